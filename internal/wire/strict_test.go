package wire_test

import (
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// Each string of up to seven octets of those that matter, in pieces of any size.
func TestStrictFindsTheEndAndEachBareNewline(t *testing.T) {
	var try func(s string)
	try = func(s string) {
		wantEnd := strictEnd(s)
		seen := s
		if wantEnd >= 0 {
			seen = s[:wantEnd]
		}
		// A CR at the very end may still get its LF.
		clean := strings.ReplaceAll(strings.TrimSuffix(seen, "\r"), "\r\n", "")
		wantBare := strings.ContainsAny(clean, "\r\n")
		for size := 1; size <= max(1, len(s)); size++ {
			var c wire.Strict
			at, end := 0, false
			for at < len(s) && !end {
				var n int
				n, end = c.Next([]byte(s[at:min(at+size, len(s))]))
				at += n
			}
			if end != (wantEnd >= 0) || end && at != wantEnd || c.Bare != wantBare {
				t.Fatalf("%q by %d: end %v at %d, bare %v; want end at %d, bare %v", s, size, end, at, c.Bare, wantEnd, wantBare)
			}
			if !end && c.BehindCR() != strings.HasSuffix(s, "\r") {
				t.Fatalf("%q by %d: behind a CR: %v", s, size, c.BehindCR())
			}
		}
		if len(s) < 7 {
			for _, ch := range "\r\n.a" {
				try(s + string(ch))
			}
		}
	}
	try("")
}
