package wire_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// scan gives what a server writes to a Reply, in pieces, and returns the
// replies that it finds and what is left.
func scan(pieces ...string) (replies []string, codes []int, left string, err error) {
	var r wire.Reply
	for _, piece := range pieces {
		left += piece
		for {
			n, code, err := r.Next([]byte(left))
			if err != nil {
				return replies, codes, left, err
			}
			if n == 0 {
				break
			}
			replies, codes = append(replies, left[:n]), append(codes, code)
			left = left[n:]
		}
	}
	return replies, codes, left, nil
}

func TestAReplyEndsAtItsLastLine(t *testing.T) {
	for _, tt := range []struct {
		why     string
		in      string
		replies []string
		codes   []int
		left    string
	}{
		{"one line", "250 ok\r\n", []string{"250 ok\r\n"}, []int{250}, ""},
		{"no text behind the space", "334 \r\n", []string{"334 \r\n"}, []int{334}, ""},
		{"the code alone", "250\r\n", []string{"250\r\n"}, []int{250}, ""},
		{"several lines", "250-a\r\n250-\r\n250 b\r\n", []string{"250-a\r\n250-\r\n250 b\r\n"}, []int{250}, ""},
		{"the last of several lines is the code alone", "250-a\r\n250\r\n", []string{"250-a\r\n250\r\n"}, []int{250}, ""},
		{"LF ends the lines", "250-a\n250 b\n", []string{"250-a\n250 b\n"}, []int{250}, ""},
		{"more than one CR before the LF", "250 a\r\r\n", []string{"250 a\r\r\n"}, []int{250}, ""},
		{"two replies at once", "250 a\r\n354 b\r\n", []string{"250 a\r\n", "354 b\r\n"}, []int{250, 354}, ""},
		{"the first and the last code", "200 a\r\n599 b\r\n", []string{"200 a\r\n", "599 b\r\n"}, []int{200, 599}, ""},
		{"octets beyond ASCII, and a tab", "250 \xff\t\r\n", []string{"250 \xff\t\r\n"}, []int{250}, ""},
		{"a line that goes on", "250 a", nil, nil, "250 a"},
		{"a CR whose LF is missing", "250 a\r", nil, nil, "250 a\r"},
		{"a reply that goes on", "250 a\r\n250-b\r\n", []string{"250 a\r\n"}, []int{250}, "250-b\r\n"},
		{"nothing", "", nil, nil, ""},
	} {
		replies, codes, left, err := scan(tt.in)
		if err != nil || !slices.Equal(replies, tt.replies) || !slices.Equal(codes, tt.codes) || left != tt.left {
			t.Errorf("%s: %q gives %q %v, %q, %v", tt.why, tt.in, replies, codes, left, err)
		}
	}
}

func TestAReplyIsTheSameInAnySegmentation(t *testing.T) {
	const in = "220 x\r\n250-a\r\n250-\r\n250 b\r\n334 \r\n250\r\n451-c\n451 d\n500"
	replies, codes, left, err := scan(in)
	if err != nil || len(replies) != 5 {
		t.Fatal(replies, err)
	}
	check := func(pieces ...string) {
		t.Helper()
		r, c, l, err := scan(pieces...)
		if err != nil || !slices.Equal(r, replies) || !slices.Equal(c, codes) || l != left {
			t.Errorf("%q: %q %v, %q, %v", pieces, r, c, l, err)
		}
	}
	for i := range len(in) + 1 {
		for j := i; j <= len(in); j++ {
			check(in[:i], in[i:j], in[j:])
		}
	}
	check(strings.Split(in, "")...)
}

func TestWhatIsNoReplyIsAnError(t *testing.T) {
	for _, tt := range []struct{ why, in string }{
		{"two digits", "25\r\n"},
		{"two digits and a text", "25 ok\r\n"},
		{"four digits", "2500 ok\r\n"},
		{"a letter in the code", "25O ok\r\n"},
		{"a dot in the code", "5.0 ok\r\n"},
		{"a sign in the code", "+25 ok\r\n"},
		{"a digit beyond ASCII", "2\u0665\r\n"},
		{"a blank before the code", " 250 ok\r\n"},
		{"a tab behind the code", "250\tok\r\n"},
		{"an underscore behind the code", "250_ok\r\n"},
		{"a code below 200", "199 ok\r\n"},
		{"a code above 599", "600 ok\r\n"},
		{"an empty line", "\r\n"},
		{"an empty line in the middle", "250-a\r\n\r\n250 b\r\n"},
		{"text without a code", "hello\r\n"},
		{"another code in the next line", "250-a\r\n251 b\r\n"},
		{"another code, and it goes on", "250-a\r\n251-b\r\n"},
		{"a CR within the text", "250 x\ry\r\n"},
		{"a CR behind the code", "250\r ok\r\n"},
		{"a NUL", "250 x\x00y\r\n"},
	} {
		for cut := range len(tt.in) + 1 {
			replies, _, _, err := scan(tt.in[:cut], tt.in[cut:])
			if !errors.Is(err, wire.ErrReply) {
				t.Errorf("%s: %q cut at %d gives %q, %v", tt.why, tt.in, cut, replies, err)
			}
		}
	}
}

func TestTheLinesOfAReplyMakeTheSameReply(t *testing.T) {
	for _, tt := range []struct {
		in    string
		lines []string
		out   string // empty: as in
	}{
		{"250 ok\r\n", []string{"ok"}, ""},
		{"250-a b\r\n250-\r\n250 c\r\n", []string{"a b", "", "c"}, ""},
		{"334 \r\n", []string{""}, ""},
		{"250\r\n", []string{""}, "250 \r\n"},
		{"250-a\n250 b\n", []string{"a", "b"}, "250-a\r\n250 b\r\n"},
	} {
		lines := wire.ReplyLines([]byte(tt.in))
		if !slices.Equal(lines, tt.lines) {
			t.Errorf("%q has lines %q", tt.in, lines)
		}
		want := "x" + tt.in
		if tt.out != "" {
			want = "x" + tt.out
		}
		_, codes, _, _ := scan(tt.in)
		if out := string(wire.AppendReply([]byte("x"), codes[0], lines)); out != want {
			t.Errorf("%q became %q", want, out)
		}
	}
}

// checkReplies tells what is wrong with what Reply finds in what a server
// writes, cut at an offset.
func checkReplies(s string, cut int) error {
	replies, codes, left, err := scan(s)
	cutReplies, cutCodes, cutLeft, cutErr := scan(s[:cut], s[cut:])
	if !slices.Equal(replies, cutReplies) || !slices.Equal(codes, cutCodes) || !errors.Is(cutErr, err) {
		return fmt.Errorf("%q %v; cut at %d: %q %v", replies, err, cut, cutReplies, cutErr)
	}
	if err == nil && (strings.Join(replies, "")+left != s || left != cutLeft) {
		return fmt.Errorf("%q and %q, cut at %d %q", replies, left, cut, cutLeft)
	}
	for i, reply := range replies {
		code := fmt.Sprint(codes[i])
		for line := range strings.Lines(reply) {
			if !strings.HasPrefix(line, code) || !strings.HasSuffix(line, "\n") {
				return fmt.Errorf("line %q in the reply %q with code %s", line, reply, code)
			}
		}
		again := string(wire.AppendReply(nil, codes[i], wire.ReplyLines([]byte(reply))))
		same, sameCodes, rest, err := scan(again)
		if err != nil || rest != "" || !slices.Equal(same, []string{again}) || sameCodes[0] != codes[i] {
			return fmt.Errorf("%q became %q: %q, %v", reply, again, same, err)
		}
	}
	return nil
}

func FuzzReply(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string, cut uint8) {
		if err := checkReplies(s, min(int(cut), len(s))); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}
