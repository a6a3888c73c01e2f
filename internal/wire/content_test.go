package wire_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// A model is one kind of server: it tells the offset behind the end of the
// content that starts with s, -1 if s doesn't hold the end.
type model struct {
	name string
	end  func(s string) int
}

var models = []model{
	{"only CRLF.CRLF ends content", strictEnd},
	{"net/textproto's DotReader", textprotoEnd},
	{"go-smtp", goSMTPEnd},
	{"LF ends a line, whatever number of CRs before it", lineEnd(lfEnds, func(line string) string { return strings.TrimRight(line, "\r") })},
	{"LF ends a line, blanks around the dot don't count", lineEnd(lfEnds, func(line string) string { return strings.Trim(line, " \t\r") })},
	{"CR, LF or CRLF ends a line", lineEnd(crOrLFEnds, func(line string) string { return line })},
	{"CRLF.CRLF, NULs don't count", withoutNULs(strictEnd)},
	{"LF ends a line, CRs before it and NULs don't count", withoutNULs(lineEnd(lfEnds, func(line string) string { return strings.TrimRight(line, "\r") }))},
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

// lineEnd is the model of a server that reads lines, as split finds them, and
// looks for a dot in what trim leaves of one.
func lineEnd(split bufio.SplitFunc, trim func(string) string) func(string) int {
	return func(s string) int {
		for at := 0; ; {
			n, line, _ := split([]byte(s[at:]), false)
			if n == 0 {
				return -1
			}
			at += n
			if trim(string(line)) == "." {
				return at
			}
		}
	}
}

func lfEnds(b []byte, _ bool) (int, []byte, error) {
	i := bytes.IndexByte(b, '\n')
	return i + 1, b[:max(0, i)], nil
}

// crOrLFEnds needs to see what is behind a CR.
func crOrLFEnds(b []byte, _ bool) (int, []byte, error) {
	i := bytes.IndexAny(b, "\r\n")
	switch {
	case i < 0, b[i] == '\r' && i+1 == len(b):
		return 0, nil, nil
	case b[i] == '\r' && b[i+1] == '\n':
		return i + 2, b[:i], nil
	}
	return i + 1, b[:i], nil
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

// stop is one place where Content stops.
type stop struct {
	at   int
	kind wire.Stop
}

// stops gives the pieces to a Content, at most limit octets at a time, as long
// as the content has no End. It returns how many octets are handed on.
func stops(limit int, pieces ...string) (found []stop, at int, err error) {
	var c wire.Content
	held := ""
	for _, piece := range pieces {
		held += piece
		for {
			n, kind := c.Next([]byte(held), limit)
			if n < 0 || n > min(limit, len(held)) || n == 0 && kind != wire.Open {
				return found, at, fmt.Errorf("%d octets of %q, at most %d, stop %v", n, held, limit, kind)
			}
			at, held = at+n, held[n:]
			if kind != wire.Open {
				found = append(found, stop{at, kind})
			}
			if kind == wire.End {
				return found, at, nil
			}
			if n == 0 {
				break
			}
		}
	}
	if held != "" && held != "\r" {
		err = fmt.Errorf("%q is held back", held)
	}
	return found, at, err
}

// checkContent tells what is wrong with the places where Content stops in s.
func checkContent(s string) error {
	found, _, err := stops(len(s)+1, s)
	if err != nil {
		return err
	}
	end := len(s) + 1
	if len(found) > 0 && found[len(found)-1].kind == wire.End {
		end = found[len(found)-1].at
	}
	for _, m := range models {
		switch at := m.end(s); {
		case at < 0 && end <= len(s), at > end:
			return fmt.Errorf("the end is at %d, but not to this server: %s", end, m.name)
		case at >= 0 && !slices.ContainsFunc(found, func(st stop) bool { return st.at == at }):
			return fmt.Errorf("no stop at %d, where this server sees the end: %s", at, m.name)
		}
	}
	if !hasStray(s) && len(found) > 0 && found[0].kind != wire.End {
		return fmt.Errorf("a stop at %d that is no end, without a stray CR or LF", found[0].at)
	}
	for _, st := range found {
		if !endsDotLine(s[:st.at-1]) {
			return fmt.Errorf("a stop at %d for no reason", st.at)
		}
	}
	return nil
}

// endsDotLine tells whether a CR or LF behind s would end a line of a dot and
// blanks. A line begins behind a CR or LF.
func endsDotLine(s string) bool {
	s = strings.TrimRightFunc(s, func(r rune) bool { return isBlank(r) && r != '\n' })
	s, dot := strings.CutSuffix(s, ".")
	before := strings.TrimRightFunc(s, isBlank)
	return dot && (before == "" || strings.ContainsAny(s[len(before):], "\r\n"))
}

func isBlank(r rune) bool { return r <= ' ' }

// hasStray tells whether s has a CR or a LF that isn't of a CRLF, or a blank:
// octets that servers take in different ways.
func hasStray(s string) bool {
	return strings.ContainsFunc(strings.ReplaceAll(s, "\r\n", ""), isBlank)
}

// checkPieces tells whether Content stops elsewhere in s when it gets it cut at
// an offset, or little at a time.
func checkPieces(s string, cut, limit int) error {
	whole, all, _ := stops(len(s)+1, s)
	found, at, err := stops(limit, s[:cut], s[cut:])
	switch {
	case err != nil:
		return err
	case !slices.Equal(found, whole):
		return fmt.Errorf("cut at %d, limit %d: stops %v, uncut %v", cut, limit, found, whole)
	case at != all:
		return fmt.Errorf("cut at %d, limit %d: %d octets handed on, uncut %d", cut, limit, at, all)
	}
	return nil
}

// every calls f with each string of at most n octets out of an alphabet.
func every(alphabet string, n int, f func(string)) {
	f("")
	for length := 1; length <= n; length++ {
		s := make([]byte, length)
		digits := make([]int, length)
		for more := true; more; {
			for i, d := range digits {
				s[i] = alphabet[d]
			}
			f(string(s))
			more = false
			for i := range digits {
				if digits[i]++; digits[i] < len(alphabet) {
					more = true
					break
				}
				digits[i] = 0
			}
		}
	}
}

// TestContentStopsWhereverAServerSeesTheEnd holds for all short contents, from
// their start and behind text: a server that sees the end gets nothing beyond
// it, and what is called the end every server sees.
func TestContentStopsWhereverAServerSeesTheEnd(t *testing.T) {
	for _, tt := range []struct {
		alphabet string
		length   int
	}{
		{"\r\n.a", 7},
		{"\r\n.\x00", 7},
		{"\r\n. a", 6},
	} {
		every(tt.alphabet, tt.length, func(s string) {
			for _, before := range []string{"", "x", "x\r\n"} {
				if err := checkContent(before + s); err != nil {
					t.Errorf("%q: %v", before+s, err)
				}
			}
		})
	}
}

func TestContentStopsInTheSamePlacesHoweverItIsCut(t *testing.T) {
	every("\r\n.a", 7, func(s string) {
		for cut := range len(s) + 1 {
			if err := checkPieces(s, cut, len(s)+1); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
	})
	every("\r\n. a", 5, func(s string) {
		s = "x" + s
		for cut := range len(s) + 1 {
			for limit := 1; limit <= 3; limit++ {
				if err := checkPieces(s, cut, limit); err != nil {
					t.Errorf("%q: %v", s, err)
				}
			}
		}
	})
}

func TestContentStops(t *testing.T) {
	const maybe, end = wire.Maybe, wire.End
	for _, tt := range []struct {
		why string
		in  string
		at  []stop
	}{
		{"an empty message", ".\r\nNOOP\r\n", []stop{{3, end}}},
		{"a message", "x\r\n.\r\nNOOP\r\n", []stop{{6, end}}},
		{"an empty line before the dot", "x\r\n\r\n.\r\n", []stop{{8, end}}},
		{"the line before has a CR too many: go-smtp reads on", "x\r\r\n.\r\n", []stop{{7, maybe}}},
		{"the line before ends in LF: strict servers read on", "x\n.\r\n", []stop{{5, maybe}}},
		{"the empty line before is behind a LF", "x\n\r\n.\r\n", []stop{{7, maybe}}},
		{"the empty line before is behind CR CR LF", "x\r\r\n\r\n.\r\n", []stop{{9, maybe}}},
		{"the dot's line ends in LF", "x\r\n.\n", []stop{{5, maybe}}},
		{"LF alone", "x\n.\n", []stop{{4, maybe}}},
		{"the dot's line has two CRs: to some, the first ends it", "x\r\n.\r\r\n", []stop{{5, maybe}, {7, maybe}}},
		{"CR alone", "x\r.\ry", []stop{{4, maybe}}},
		{"NUL before the dot", "x\r\n\x00.\r\n", []stop{{7, maybe}}},
		{"NUL behind the dot", "x\r\n.\x00\r\n", []stop{{7, maybe}}},
		{"a blank behind the dot", "x\r\n. \r\n", []stop{{7, maybe}}},
		{"the end behind a place that wasn't it", "x\n.\ny\r\n.\r\n", []stop{{4, maybe}, {10, end}}},
		{"a stuffed dot is text", "..\r\nx\r\n...\r\n.x\r\nx.\r\n", nil},
		{"what is behind the CR is unknown", "x\r\n.\r", nil},
	} {
		found, _, err := stops(len(tt.in), tt.in)
		if err != nil || !slices.Equal(found, tt.at) {
			t.Errorf("%s: %q stops at %v, %v; want %v", tt.why, tt.in, found, err, tt.at)
		}
	}
}

// TestContentOfOrdinaryMailFlowsUnhindered is about speed: text, lines, dots in
// text and stuffed dots must not cost the server a Read each.
func TestContentOfOrdinaryMailFlowsUnhindered(t *testing.T) {
	line := "e.g. three dots... and a line end\r\n..stuffed\r\n\r\n"
	mail := strings.Repeat(line, 1000)
	var c wire.Content
	if n, kind := c.Next([]byte(mail), len(mail)); n != len(mail) || kind != wire.Open {
		t.Errorf("%d octets of %d, stop %v", n, len(mail), kind)
	}
	if n, kind := c.Next([]byte(".\r\nQUIT\r\n"), 100); n != 3 || kind != wire.End {
		t.Errorf("behind it: %d octets, stop %v", n, kind)
	}
}

func TestContentHandsOutNoMoreThanTheLimit(t *testing.T) {
	var c wire.Content
	for _, tt := range []struct {
		why   string
		in    string
		limit int
		n     int
		kind  wire.Stop
	}{
		{"text", "abcde", 4, 4, wire.Open},
		{"the rest of it", "e", 4, 1, wire.Open},
		{"nothing", "", 4, 0, wire.Open},
		{"up to between the dot's CR and LF", "\r\n.\r\nQUIT", 4, 4, wire.Open},
		{"the LF that was cut off", "\nQUIT", 4, 1, wire.End},
	} {
		if n, kind := c.Next([]byte(tt.in), tt.limit); n != tt.n || kind != tt.kind {
			t.Errorf("%s: %d octets of %q, stop %v; want %d, %v", tt.why, n, tt.in, kind, tt.n, tt.kind)
		}
	}
}

// FuzzContent holds the same for any content. Its corpus has, by name, the ends
// that servers were found to see where others don't.
//
// go-smtp's reader is the table of goSMTPEnd, which
// TestTheModelOfGoSMTPSeesTheEndsThatGoSMTPSees holds against the real one. Real
// servers, go-smtp's among them, are held against the library by
// TestExhaustively... and FuzzDialogue in the root package.
func FuzzContent(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string, cut, limit uint8) {
		if err := checkContent(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if err := checkPieces(s, min(int(cut), len(s)), max(1, int(limit))); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}
