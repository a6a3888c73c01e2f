package proxytest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// Whatever is in a file, reading it and playing it ends, with what is wrong at a line of it;
// and what an update has written, plays.
func FuzzDialogues(f *testing.F) {
	lines, err := os.ReadFile("testdata/lines.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for dialogue := range strings.SplitSeq(string(lines), "\n\n") {
		f.Add(dialogue)
	}
	f.Fuzz(func(t *testing.T, text string) {
		play := func(text string) (s *script, differences []error) {
			s, mistakes := readScript("x.txtar", []byte(text))
			for _, err := range mistakes {
				var m *mistakeAt
				if !errors.As(err, &m) || m.line < 1 || m.line > len(s.lines) {
					t.Errorf("%v is at no line", err)
				}
			}
			if got := s.updated(); got != text {
				t.Errorf("%q was read as %q", text, got)
			}
			if len(mistakes) > 0 {
				return nil, mistakes
			}
			for _, d := range s.dialogues {
				more, _ := d.play(&smtpproxy.Proxy{Hook: manyKinds()})
				differences = append(differences, more...)
			}
			return s, differences
		}
		s, _ := play(text)
		if s == nil {
			return
		}
		updated := s.updated()
		if _, differences := play(updated); len(differences) > 0 {
			t.Errorf("%q, updated as %q, has %v", text, updated, errors.Join(differences...))
		}
	})
}
