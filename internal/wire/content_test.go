package wire_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

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
	if want := all.stops(s); !slices.Equal(found, want) {
		return fmt.Errorf("stops %v, want %v", found, want)
	}
	return checkStops(s, found)
}

// checkStops tells which server sees the end of s elsewhere than where a scanner
// stops.
func checkStops(s string, found []stop) error {
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
	return nil
}

// rules make a scanner that has the whole content before it. With all of them
// it stops where Content has to, and without one it lets a server see an end
// where it doesn't stop.
type rules struct {
	lines    bool // dots alone make a line, not one dot only
	controls bool // octets up to 0x20, and 0x7f, are blanks
	spaces   bool // so are runes that unicode.IsSpace takes
	hidden   bool // and those that unicode.IsGraphic doesn't take
	invalid  bool // and octets from 0x80 to 0xa0, and 0xad, that are no UTF-8
}

var all = rules{true, true, true, true, true}

// stops finds the places up to the first End.
func (ru rules) stops(s string) (found []stop) {
	const crlf = "$$"
	classes := strings.ReplaceAll(ru.classes(s), "\r\n", crlf)
	for i, ch := range []byte(classes) {
		line := classes[:i]
		switch {
		case ch == '\n', ch == '\r' && i+1 < len(s):
		case ch == '$' && s[i] == '\n':
			line = strings.TrimSuffix(line, "$")
		default:
			continue
		}
		// To some, a CR or LF alone doesn't end the line.
		line = strings.TrimRight(line, " \r\n")
		before := strings.TrimRight(line, " .")
		dots := strings.Count(line[len(before):], ".")
		switch {
		case !strings.HasSuffix(line, "."), dots > 1 && !ru.lines:
		case strings.HasSuffix(before, "x"):
		case cleanEnd.MatchString("x\r\n" + s[:i+1]): // behind the DATA command
			return append(found, stop{i + 1, wire.End})
		default:
			found = append(found, stop{i + 1, wire.Maybe})
		}
	}
	return found
}

var cleanEnd = regexp.MustCompile(`(?s-m)([^\r\n]|[^\r]\r\n)\r\n\.\r\n$`)

// classes has for each octet of s what it is: CR, LF, a dot, a blank or text.
func (ru rules) classes(s string) string {
	classes := make([]byte, 0, len(s))
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		class := byte('x')
		switch {
		case r == '.', r == '\r', r == '\n':
			class = s[0]
		case r < utf8.RuneSelf:
			if ru.controls && (r <= ' ' || r == 0x7f) {
				class = ' '
			}
		case r == utf8.RuneError && size == 1:
			if ru.invalid && (s[0] <= 0xa0 || s[0] == 0xad) {
				class = ' '
			}
		case ru.spaces && unicode.IsSpace(r), ru.hidden && !unicode.IsGraphic(r):
			class = ' '
		}
		for range size {
			classes = append(classes, class)
		}
		s = s[size:]
	}
	return string(classes)
}

// checkPieces tells whether Content stops elsewhere when it gets the content cut,
// or little at a time.
func checkPieces(limit int, pieces ...string) error {
	s := strings.Join(pieces, "")
	whole, all, _ := stops(len(s)+1, s)
	found, at, err := stops(limit, pieces...)
	switch {
	case err != nil:
		return err
	case !slices.Equal(found, whole):
		return fmt.Errorf("cut into %q, limit %d: stops %v, uncut %v", pieces, limit, found, whole)
	case at != all:
		return fmt.Errorf("cut into %q, limit %d: %d octets handed on, uncut %d", pieces, limit, at, all)
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

// alphabets have the octets that matter, and so many of them in a row that they
// make up a line with what is about it. They are: those of lines; what servers
// overlook; U+00A0 and its octets; U+3000, which is a blank, and U+3002, which is
// none; U+E0001 of four octets.
var alphabets = []struct {
	octets string
	length int
}{
	{"\r\n.a", 7},
	{"\r\n.\x00", 6},
	{"\r\n. a", 6},
	{"\r\n.\xc2\xa0", 6},
	{"\r\n. \xc2\xa0\x85", 5},
	{"\n.\xe3\x80\x82", 6},
	{"\n.\xf3\xa0\x80\x81", 6},
}

// TestContentStopsWhereverAServerSeesTheEnd holds for all short contents, from
// their start and behind text: a server that sees the end gets nothing beyond
// it, and what is called the end every server sees.
func TestContentStopsWhereverAServerSeesTheEnd(t *testing.T) {
	for _, tt := range alphabets {
		every(tt.octets, tt.length, func(s string) {
			for _, before := range []string{"", "x", "x\r\n"} {
				if err := checkContent(before + s); err != nil {
					t.Errorf("%q: %v", before+s, err)
				}
			}
		})
	}
}

// A scanner that lacks a rule must be found out by the servers above.
func TestEachRuleOfContentIsThereForAServer(t *testing.T) {
	for _, tt := range []struct {
		without string
		rule    func(*rules) *bool
	}{
		{"lines of dots", func(ru *rules) *bool { return &ru.lines }},
		{"controls", func(ru *rules) *bool { return &ru.controls }},
		{"spaces of Unicode", func(ru *rules) *bool { return &ru.spaces }},
		{"what doesn't print", func(ru *rules) *bool { return &ru.hidden }},
		{"octets beyond ASCII", func(ru *rules) *bool { return &ru.invalid }},
	} {
		ru := all
		*tt.rule(&ru) = false
		found := ""
		for _, a := range alphabets {
			if found != "" {
				break
			}
			every(a.octets, min(a.length, 6), func(s string) {
				if found != "" {
					return
				}
				if err := checkStops(s, ru.stops(s)); err != nil {
					found = fmt.Sprintf("%q: %v", s, err)
				}
			})
		}
		if found == "" {
			t.Errorf("without %s: no server minds", tt.without)
		}
		t.Logf("without %s: %s", tt.without, found)
	}
}

func TestContentStopsInTheSamePlacesHoweverItIsCut(t *testing.T) {
	for _, tt := range alphabets {
		every(tt.octets, 5, func(s string) {
			for _, s := range []string{s, "x" + s} {
				for cut := range len(s) {
					if err := checkPieces(len(s)+1, s[:cut], s[cut:]); err != nil {
						t.Errorf("%q: %v", s, err)
					}
				}
				for limit := 1; limit <= 3; limit++ {
					if err := checkPieces(limit, s); err != nil {
						t.Errorf("%q: %v", s, err)
					}
				}
			}
		})
	}
}

func TestLongContentStopsInTheSamePlacesHoweverItIsCut(t *testing.T) {
	const seed = 1
	rnd := rand.New(rand.NewPCG(seed, seed))
	parts := strings.Split(". . .. \x00 \x7f \x80 \x85 \xa0 \u0085 \u00a0 \u2003 \u3000 \ufeff \u0378 \U000e0001 "+
		"\xa1 \xc2 \xe3 \xe3\x80 \xf3\xa0 \xf3\xa0\x80 \xff a é и は 。 \U0001f600 e.g. Привет これは", " ")
	ends := []string{"\r\n", "\r\n", "\n", "\r", "\r\r\n", " \r\n"}
	for range 2000 {
		var text strings.Builder
		for range 1 + rnd.IntN(100) {
			for range rnd.IntN(4) {
				text.WriteString(parts[rnd.IntN(len(parts))])
			}
			text.WriteString(ends[rnd.IntN(len(ends))])
		}
		s := text.String()
		if err := checkContent(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		var pieces []string
		for left, size := s, 1+rnd.IntN(20); left != ""; {
			n := min(len(left), 1+rnd.IntN(size))
			pieces, left = append(pieces, left[:n]), left[n:]
		}
		if err := checkPieces(1+rnd.IntN(30), pieces...); err != nil {
			t.Error(err)
		}
	}
}

// Each rune stands before the dot, where Content looks back, and behind it, cut
// in each place. Of those beyond the planes with letters, one in many will do.
func TestEachRuneIsEitherABlankOrText(t *testing.T) {
	for r, step := rune(0), rune(1); r <= unicode.MaxRune; r += step {
		if r > 0x3ffff {
			step = 97
		}
		if !utf8.ValidRune(r) || r == '.' || r == '\r' || r == '\n' {
			continue
		}
		kind := wire.Open
		if unicode.IsSpace(r) || !unicode.IsGraphic(r) {
			kind = wire.Maybe
		}
		buf := append([]byte("x\n"), string(r)+".\n"...)
		var c wire.Content
		if n, got := c.Next(buf, len(buf)); n != len(buf) || got != kind {
			t.Errorf("%q: %d octets, stop %v; want %v", buf, n, got, kind)
		}
		buf[0], buf[1] = '\n', '.'
		buf[len(buf)-2] = ' '
		for cut := 3; cut < len(buf)-1; cut++ {
			var c wire.Content
			c.Next(buf[:cut], cut)
			if n, got := c.Next(buf[cut:], len(buf)); n != len(buf)-cut || got != kind {
				t.Errorf("%q, %q: %d octets, stop %v; want %v", buf[:cut], buf[cut:], n, got, kind)
			}
		}
	}
}

// Content must flow: a line that no server takes for the end costs no Read.
func TestLinesOfTextAreNoEnd(t *testing.T) {
	for _, tt := range []struct{ why, line string }{
		{"a letter of ASCII", "a."},
		{"a mark of ASCII", "-."},
		{"text behind the dot", ".a"},
		{"text behind stuffed dots", "...a"},
		{"text between dots and blanks", ". . a . ."},
		{"Russian", "Привет мир."},
		{"one letter, Cyrillic", "и."},
		{"Japanese, kana at the end", "これは."},
		{"Japanese, Han at the end", "日本."},
		{"a full stop that is none in ASCII", "。"},
		{"a full stop that is none in ASCII, and one that is", "。."},
		{"a full stop of full width", "．"},
		{"three dots in one letter", "…"},
		{"an accent alone", "\u0301."},
		{"a blank pattern of Braille is a sign that prints", "\u2800."},
		{"the replacement character, encoded, prints", "\ufffd."},
		{"an emoji", "\U0001f600."},
		{"text before a blank of Unicode", "a\u00a0."},
		{"text behind a blank of Unicode", ".\u3000a"},
		{"é in ISO 8859-1", "\xe9."},
		{"the first octet behind those that are blanks in ISO 8859-1", "\xa1."},
		{"a pound sign in ISO 8859-1, which any look at octets sees", "\xa3."},
		{"an octet that UTF-8 never has", "\xff."},
		{"Russian in KOI8-R", "\xf0\xd2\xc9\xd7\xc5\xd4."},
		{"Russian in KOI8-R, its last octet begins a rune", "\xcd\xc9\xd2."},
		{"Japanese in EUC-JP", "\xa4\xb3\xa4\xec\xa4\xcf."},
		{"the beginning of U+00A0", "\xc2."},
		{"the beginning of U+3000", "\xe3\x80."},
		{"the beginning of U+E0001", ".\xf3\xa0\x80"},
		{"a blank cut off by another", "\xe3\x80\u3000."},
		{"a surrogate half is no UTF-8, and its first octet is text", "\xed\xa0\x80."},
		{"a dot encoded in two octets is no UTF-8", "\xc0\xae"},
		{"a blank encoded in three octets is no UTF-8", "\xe0\x82\xa0."},
		{"what is beyond U+10FFFF is no UTF-8", "\xf4\x90\x80\x80."},
	} {
		for _, before := range []string{"", "x\r\n", "\n"} {
			s := before + tt.line + "\r\nx\n"
			for limit := 1; limit <= len(s); limit++ {
				if found, at, err := stops(limit, s); err != nil || len(found) > 0 || at != len(s) {
					t.Errorf("%s: %q, limit %d: stops %v at %d, %v", tt.why, s, limit, found, at, err)
				}
			}
		}
	}
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
		{"where LF alone ends no line, blanks may be trimmed", "x\r\n.\n \r\n", []stop{{5, maybe}, {8, maybe}}},
		{"CR alone", "x\r.\ry", []stop{{4, maybe}}},
		{"NUL before the dot", "x\r\n\x00.\r\n", []stop{{7, maybe}}},
		{"NUL behind the dot", "x\r\n.\x00\r\n", []stop{{7, maybe}}},
		{"a blank behind the dot", "x\r\n. \r\n", []stop{{7, maybe}}},
		{"the end behind a place that wasn't it", "x\n.\ny\r\n.\r\n", []stop{{4, maybe}, {10, end}}},
		{"a stuffed dot, and dots: the first may be taken off", "..\r\nx\r\n...\r\n.x\r\nx.\r\n", []stop{{4, maybe}, {12, maybe}}},
		{"what a stuffed dot leaves may be trimmed", "x\r\n. .\r\n", []stop{{8, maybe}}},
		{"a dot behind the CR that may end a line", ".\r.\r\n", []stop{{2, maybe}, {5, maybe}}},
		{"DEL", "x\r\n\x7f.\r\n", []stop{{7, maybe}}},
		{"U+0085, next line", "\u0085.\r\n", []stop{{5, maybe}}},
		{"U+00A0, no-break space", "\u00a0.\r\n", []stop{{5, maybe}}},
		{"U+00AD, soft hyphen", ".\u00ad\r\n", []stop{{5, maybe}}},
		{"U+2003, em space", "\u2003.\r\n", []stop{{6, maybe}}},
		{"U+2028, line separator", "\u2028.\r\n", []stop{{6, maybe}}},
		{"U+200B, zero width space", ".\u200b\r\n", []stop{{6, maybe}}},
		{"U+3000, ideographic space", ".\u3000\r\n", []stop{{6, maybe}}},
		{"U+FEFF, byte order mark", "\ufeff.\r\n", []stop{{6, maybe}}},
		{"U+0378, unassigned", "\u0378.\r\n", []stop{{5, maybe}}},
		{"U+E000, for private use", "\ue000.\r\n", []stop{{6, maybe}}},
		{"U+E0001, of four octets", "\U000e0001.\r\n", []stop{{7, maybe}}},
		{"next line and no-break space in ISO 8859-1", "\x85.\xa0\r\n", []stop{{5, maybe}}},
		{"what is left of a rune", "x\r\n\x80\x80.\r\n", []stop{{8, maybe}}},
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
// TestExhaustively... and FuzzDialogue in internal/e2e.
func FuzzContent(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string, cut, limit uint8) {
		if err := checkContent(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		at := min(int(cut), len(s))
		if err := checkPieces(max(1, int(limit)), s[:at], s[at:]); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}
