package address

import (
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// isPartOf reports whether part is kept in the memory of line.
func isPartOf(part, line string) bool {
	at, start := uintptr(unsafe.Pointer(unsafe.StringData(part))), uintptr(unsafe.Pointer(unsafe.StringData(line)))
	return part != "" && at >= start && at < start+uintptr(len(line))
}

func TestALineIsKeptOnlyIfItIsNeededInGreatPart(t *testing.T) {
	blanks := strings.Repeat(" ", 500)
	for _, tt := range []struct {
		name, in string
		short    string // what means the same
		kept     bool
	}{
		{"plain", "MAIL FROM:<a@b> X=y", "MAIL FROM:<a@b> X=y", true},
		{"blanks before the keyword", "MAIL " + blanks + "FROM:<a@b> X=y", "MAIL FROM:<a@b> X=y", false},
		{"blanks behind the path", "MAIL FROM:<a@b> X=y" + blanks, "MAIL FROM:<a@b> X=y", false},
		{"source route", "MAIL FROM:<@" + strings.Repeat("a.", 250) + "a:a@b>", "MAIL FROM:<a@b>", false},
		{"null reverse-path, a parameter", "MAIL FROM:<>" + blanks + "X=y", "MAIL FROM:<> X=y", false},
		{"a long value", "MAIL FROM:<a@b> X=" + strings.Repeat("y", 500), "MAIL FROM:<a@b> X=" + strings.Repeat("y", 500), true},
		{"unparsed, kept as a whole", "MAIL FROM:a" + blanks, "MAIL FROM:a" + blanks, true},
		{"unparsed, blanks before it", "MAIL" + blanks + "FROM:a", "MAIL FROM:a", false},
		{"nothing but blanks", "MAIL" + blanks, "MAIL", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, params, unparsed := Mail(tt.in)
			path2, params2, unparsed2 := Mail(tt.short)
			if path != path2 || !slices.Equal(params, params2) || unparsed != unparsed2 {
				t.Errorf("%q %q %q, want %q %q %q", path, params, unparsed, path2, params2, unparsed2)
			}
			parts := []string{path.Local, path.Domain, path.Mailbox, unparsed}
			for _, p := range params {
				parts = append(parts, p.Key, p.Value)
			}
			for _, part := range parts {
				if part != "" && isPartOf(part, tt.in) != tt.kept {
					t.Errorf("%.20q is a part of the line: %v", part, !tt.kept)
				}
			}
		})
	}
}

func TestACommandHas64ParametersAtMost(t *testing.T) {
	for _, tt := range []struct {
		name, verb, line, param string
		free                    int // words that are no parameters
		never                   bool
	}{
		{"MAIL", "MAIL", "MAIL FROM:<a@b>", " a", 0, false},
		{"MAIL, null reverse-path", "MAIL", "mail from:<>", "\ta=b", 0, false},
		{"MAIL, blanks in the local part", "MAIL", `MAIL FROM:<"a b c"@x>`, " a", 0, false},
		{"RCPT", "RCPT", "RCPT TO: <a@b>", " \t a=", 0, false},
		{"RCPT, postmaster", "RCPT", "RCPT TO:<postmaster>", " a", 0, false},
		{"RCPT, unparsed", "RCPT", "RCPT TO:a", " <>", 0, false},
		{"RCPT, nothing but words, of which the first is none", "RCPT", "RCPT", " a", 1, false},
		{"the verb of neither", "NOOP", "NOOP TO:<a@b>", " a", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{0, 1, 64, 65, 200} {
				line := tt.line + strings.Repeat(tt.param, tt.free+n)
				if got, want := TooManyParams(tt.verb, line), n > 64 && !tt.never; got != want {
					t.Errorf("%d parameters are too many: %v", n, got)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	b.Run("MAIL", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, ok := parseMail("FROM:<alice@client.example> SIZE=1000 BODY=8BITMIME"); !ok {
				b.Fatal("not parsed")
			}
		}
	})
	b.Run("RCPT", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, ok := parseRcpt("TO:<Bob@server.example>"); !ok {
				b.Fatal("not parsed")
			}
		}
	})
}
