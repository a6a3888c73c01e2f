package wire_test

import (
	"bufio"
	"io"
	"net/textproto"
	"slices"
	"strings"
	"unicode"
)

// A model is one kind of server: it tells the offset behind the end of the
// content that starts with s, -1 if s doesn't hold the end.
type model struct {
	name string
	end  func(s string) int
}

var models = slices.Concat([]model{
	{"only CRLF.CRLF ends content", strictEnd},
	{"net/textproto's DotReader", textprotoEnd},
	{"go-smtp", goSMTPEnd},
	{"CRLF.CRLF, NULs don't count", withoutNULs(strictEnd)},
	{"LF ends a line, CRs before it and NULs don't count", withoutNULs(lineEnd(lfEnds, trimCRs))},
}, lineModels())

// lineModels returns the servers that read lines, each in its way, and look for
// a dot in what they leave of one, each in its way.
func lineModels() (all []model) {
	for _, line := range []struct {
		name  string
		split splitter
	}{
		{"LF ends a line", lfEnds},
		{"CR, LF or CRLF ends a line", crOrLFEnds},
		{"CRLF ends a line", crlfEnds},
	} {
		for _, left := range []struct {
			name string
			trim func(string) string
		}{
			{"whatever number of CRs before it", trimCRs},
			{"blanks around the dot don't count", func(line string) string { return strings.Trim(line, " \t\r") }},
			{"strings.TrimSpace", strings.TrimSpace},
			{"a stuffed dot is taken off first", unstuff},
			{"strings.TrimSpace, and a stuffed dot is taken off first", func(line string) string {
				return strings.TrimSpace(unstuff(strings.TrimSpace(line)))
			}},
			{"what Unicode takes for a space or for no graphic is trimmed", func(line string) string {
				return strings.TrimFunc(line, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) })
			}},
			{"each octet is a rune, spaces and what is no graphic are trimmed", trimLatin1},
			{"dots alone", func(line string) string {
				if line != "" && strings.Trim(line, ".") == "" {
					return "."
				}
				return ""
			}},
		} {
			trim := func(line string) string { return left.trim(trimCRs(line)) }
			all = append(all, model{line.name + ", " + left.name, lineEnd(line.split, trim)})
		}
	}
	return all
}

func trimCRs(line string) string { return strings.TrimRight(line, "\r") }

// unstuff takes off the dot that a client puts before another (RFC 5321 section
// 4.5.2), and before anything else.
func unstuff(line string) string {
	if len(line) > 1 {
		return strings.TrimPrefix(line, ".")
	}
	return line
}

func trimLatin1(line string) string {
	isBlank := func(i int) bool { return unicode.IsSpace(rune(line[i])) || !unicode.IsGraphic(rune(line[i])) }
	for line != "" && isBlank(0) {
		line = line[1:]
	}
	for line != "" && isBlank(len(line)-1) {
		line = line[:len(line)-1]
	}
	return line
}

func strictEnd(s string) int {
	const before = "\r\n" // of the DATA command
	i := strings.Index(before+s, "\r\n.\r\n")
	if i < 0 {
		return -1
	}
	return i + len("\r\n.\r\n") - len(before)
}

// textprotoEnd asks the standard library.
func textprotoEnd(s string) int {
	in := strings.NewReader(s)
	r := bufio.NewReaderSize(in, 16)
	if _, err := io.Copy(io.Discard, textproto.NewReader(r).DotReader()); err != nil {
		return -1
	}
	return len(s) - in.Len() - r.Buffered()
}

// goSMTPEnd is a table of the states that go-smtp v0.25.1 goes through. What is
// not in it leads to the middle of a line, a CR behind a CR too.
func goSMTPEnd(s string) int {
	const begin, dot, dotCR, cr, middle, end = 0, 1, 2, 3, 4, 5
	next := [...]map[byte]int{
		begin:  {'.': dot, '\r': cr},
		dot:    {'\r': dotCR},
		dotCR:  {'\n': end},
		cr:     {'\n': begin},
		middle: {'\r': cr},
	}
	state := begin
	for i := range len(s) {
		to, ok := next[state][s[i]]
		switch {
		case !ok:
			state = middle
		case to == end:
			return i + 1
		default:
			state = to
		}
	}
	return -1
}

// A splitter returns the first line of s, and the offset behind its end; 0 if it
// doesn't end yet.
type splitter func(s string) (end int, line string)

// lineEnd is the model of a server that reads lines, as split finds them, and
// looks for a dot in what trim leaves of one.
func lineEnd(split splitter, trim func(string) string) func(string) int {
	return func(s string) int {
		for at := 0; ; {
			n, line := split(s[at:])
			if n == 0 {
				return -1
			}
			at += n
			if trim(line) == "." {
				return at
			}
		}
	}
}

func lfEnds(s string) (int, string) {
	i := strings.IndexByte(s, '\n')
	return i + 1, s[:max(0, i)]
}

func crlfEnds(s string) (int, string) {
	if i := strings.Index(s, "\r\n"); i >= 0 {
		return i + 2, s[:i]
	}
	return 0, ""
}

// crOrLFEnds needs to see what is behind a CR.
func crOrLFEnds(s string) (int, string) {
	i := strings.IndexAny(s, "\r\n")
	switch {
	case i < 0, s[i] == '\r' && i+1 == len(s):
		return 0, ""
	case s[i] == '\r' && s[i+1] == '\n':
		return i + 2, s[:i]
	}
	return i + 1, s[:i]
}

// withoutNULs is a server that overlooks NULs.
func withoutNULs(end func(string) int) func(string) int {
	return func(s string) int {
		left := end(strings.ReplaceAll(s, "\x00", ""))
		if left < 0 {
			return -1
		}
		for i := range len(s) {
			if s[i] != 0 {
				left--
			}
			if left == 0 {
				return i + 1
			}
		}
		return -1
	}
}
