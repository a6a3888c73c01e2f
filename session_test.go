package smtpproxy_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Servers split AUTH at all kinds of white space. What is left of an initial
// response in the mechanism would be a password for every hook to see.
func TestAMechanismHoldsNoInitialResponse(t *testing.T) {
	for _, space := range []string{" ", "  ", "\t", " \t ", "\u00a0"} {
		s := proxytest.NewSession(&smtpproxy.Proxy{})
		s.Send("EHLO client.example")
		s.Send("AUTH plain" + space + "AGFsaWNlAHNlY3JldA==")
		if auth := s.Connection().Auth; auth != (smtpproxy.Auth{Mechanism: "PLAIN", Username: "alice"}) {
			t.Errorf("split at %q: %q", space, auth)
		}
	}
}

func TestNextHoldsWhateverBecomesOfTheCommand(t *testing.T) {
	rows := []struct{ line, reason string }{
		{"MAIL FROM:<nested@example.com>", "the library refuses a nested MAIL"},
		{"BDAT 0 LAST", "the library refuses a chunk without recipients"},
		{"STARTTLSFOO", "the library refuses what is like STARTTLS"},
		{"RSET", "the server answers"},
	}
	for _, row := range rows {
		t.Run(row.reason, func(t *testing.T) {
			var shown []string
			// With Commands, only Next brings the line after.
			p := &smtpproxy.Proxy{Commands: []string{"mail", "bdat", "starttlsfoo", "rset"}}
			p.Hook = smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				shown = append(shown, cmd.Line)
				return smtpproxy.Pass{Next: cmd.Line == row.line}, nil
			})
			s := p.ResumeSession(smtpproxy.Connection{}, smtpproxy.Transaction{Active: true})
			for _, line := range []string{row.line, "NOOP", "NOOP again"} {
				if _, passed := s.Command(context.Background(), line).(smtpproxy.Pass); passed {
					s.Replied(250)
				}
			}
			if !slices.Equal(shown, []string{row.line, "NOOP"}) {
				t.Errorf("shown %q", shown)
			}
		})
	}
}

func TestAClosedSessionEndsItsContextAndAnswersNothingMore(t *testing.T) {
	s := new(smtpproxy.Proxy).NewSession(smtpproxy.Connection{})
	s.Close()
	select {
	case <-s.Context().Done():
	default:
		t.Error("the context isn't done")
	}
	r, ok := s.Command(context.Background(), "NOOP").(smtpproxy.Reply)
	if !ok || r.Code != 421 || !r.Disconnect {
		t.Errorf("got %v", r)
	}
}

func TestPassingACommandAllocatesNothing(t *testing.T) {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return nil, nil
	})}
	s := p.NewSession(smtpproxy.Connection{})
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := s.Command(ctx, "NOOP").(smtpproxy.Pass); !ok {
			t.Error("not passed")
		}
		s.Replied(250)
	}); n != 0 {
		t.Errorf("%v allocations for each command", n)
	}
}

func TestACommandWithinAnotherValueIsMaskedInJSON(t *testing.T) {
	b, err := json.Marshal(map[string]any{"all": []smtpproxy.Command{{Line: "AUTH PLAIN AGEAc2VjcmV0"}, {Line: "c2VjcmV0", SASL: true}}})
	if want := `{"all":["AUTH PLAIN ****","****"]}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v; want %s", b, err, want)
	}
}

func TestSessionsThatResumeOneTransactionDoNotShareRecipients(t *testing.T) {
	var p smtpproxy.Proxy
	accepted := func(s *smtpproxy.Session, line string) {
		s.Command(context.Background(), line)
		s.Replied(250)
	}
	first := p.NewSession(smtpproxy.Connection{})
	accepted(first, "MAIL FROM:<>")
	for _, to := range []string{"a", "b", "c"} { // so that there's room behind them
		accepted(first, "RCPT TO:<"+to+"@server.example>")
	}
	sessions := []*smtpproxy.Session{first}
	for range 2 {
		sessions = append(sessions, p.ResumeSession(smtpproxy.Connection{}, first.Transaction()))
	}
	last := []string{"one@server.example", "two@server.example", "three@server.example"}
	for i, s := range sessions {
		accepted(s, "RCPT TO:<"+last[i]+">")
	}
	for i, s := range sessions {
		if r := s.Transaction().Recipients; r.Len() != 4 || r.At(3).Recipient != last[i] {
			t.Errorf("the last of %d recipients is %v, want %s", r.Len(), r.At(r.Len()-1), last[i])
		}
	}
}

// A server may take the size for an octal number, if it has leading zeros.
func TestASessionPassesTheSizeOfAChunkInOneForm(t *testing.T) {
	for line, want := range map[string]string{
		"BDAT 0100":           "BDAT 100",
		"BDAT 0100 LAST":      "BDAT 100 LAST",
		"bdat 007 last":       "bdat 7 last",
		"BDAT 00 LAST":        "BDAT 0 LAST",
		"BDAT 000":            "BDAT 0",
		"BDAT 08":             "BDAT 8",
		"BDAT 00004294967295": "BDAT 4294967295",
		"BDAT 0":              "BDAT 0",
		"BDAT 0 LAST":         "BDAT 0 LAST",
		"BDAT 100 last":       "BDAT 100 last",
		"bDaT 10":             "bDaT 10",
	} {
		for why, hook := range map[string]smtpproxy.Hook{
			"": nil,
			", passed by a hook": smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
				return nil, nil
			}),
			", written by a hook": smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				return smtpproxy.Pass{Command: cmd.Line}, nil
			}),
		} {
			p := &smtpproxy.Proxy{Hook: hook}
			s := p.ResumeSession(smtpproxy.Connection{}, smtpproxy.Transaction{Active: true, Recipients: smtpproxy.NewRecipients(smtpproxy.Recipient{})})
			if got, ok := s.Command(t.Context(), line).(smtpproxy.Pass); !ok || got.Command != want {
				t.Errorf("%s%s: %+v, want %s", line, why, got, want)
			}
		}
	}
}
