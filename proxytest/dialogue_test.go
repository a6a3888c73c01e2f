package proxytest

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// The server keeps its own account of the dialogue, and the library keeps its.
// Whatever is said, they must agree: else a hook is tested against something
// that doesn't happen. Likewise what the transcript masks.
func TestTheServerAndTheLibraryAgreeAboutAnyDialogue(t *testing.T) {
	lines := []string{
		"HELO a", "EHLO b", "LHLO c", "EHLO", "MAIL FROM:<a@example.com>", "MAIL FROM:<>", "RCPT TO:<b@example.org>",
		"RCPT TO:<c@example.org>", "RCPT", "DATA", "BDAT 3", "BDAT 0 LAST", "BDAT x", "RSET", "NOOP", "AUTH PLAIN",
		"AUTH PLAIN AGEAYg==", "AUTH LOGIN", "AGEAYg==", "*", "STARTTLS", "STARTTLSX", "", "\x00", "XYZZY", "XCLIENT ADDR=192.0.2.9", "HELP",
	}
	for range 5 { // so that whole transactions come about
		lines = append(lines, "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "DATA", "LHLO again")
	}
	verbs := []string{"HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "AUTH", "STARTTLS", "XCLIENT"}
	codes := []int{200, 220, 235, 250, 251, 334, 354, 450, 503, 550}
	decisions := []smtpproxy.Decision{
		smtpproxy.Reply{}, smtpproxy.Reply{Code: 550}, smtpproxy.Reply{Code: 334}, smtpproxy.Reply{Code: 235},
		smtpproxy.Pass{Command: "NOOP"}, smtpproxy.Pass{Command: "RSET"}, smtpproxy.Pass{Command: "DATA"}, smtpproxy.Pass{Next: true},
		smtpproxy.Reply{Restart: &smtpproxy.Origin{RemotePort: 7}},
	}
	messages := 0
	for seed := range uint64(2500) {
		r := rand.New(rand.NewPCG(seed, 0))
		masked, doubtful := "", false
		s := NewSession(decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			masked = cmd.String()
			if r.IntN(20) > 0 {
				return nil, nil
			}
			return decisions[r.IntN(len(decisions))], nil
		}))
		for range 50 {
			if s.Closed() {
				break
			}
			if r.IntN(6) == 0 {
				verb, code := verbs[r.IntN(len(verbs))], codes[r.IntN(len(codes))]
				if mayAnswer(verb, code) {
					s.Answer(verb, code)
				}
			}
			before := s.server
			switch {
			case s.server.content:
				s.SendContent()
				messages++
			case s.server.handshake:
				s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
			default:
				line := lines[r.IntN(len(lines))]
				masked = ""
				length := len(s.Transcript())
				s.Send(line)
				if got := s.Transcript()[length:]; masked != "" && !strings.HasPrefix(got, "C: "+masked+"\n") {
					t.Fatalf("seed %d: the hook logs %q, the transcript says %q", seed, masked, got)
				}
			}
			if s.Closed() {
				break // the server's account doesn't matter any more
			}
			c, x, v := s.Connection(), s.Transaction(), s.server
			if !x.Active && v.mail && forgets(s, before) {
				doubtful = true
			}
			doubtful = doubtful && v.mail && !x.Active
			if !doubtful && (x.Active != v.mail || x.Recipients.Len() != v.recipients) || (c.Auth.Mechanism != "") != v.authenticated ||
				(c.HELO.Verb != "") != v.greeted || (c.HELO.Verb == "LHLO") != v.lmtp || (c.TLS.Protocol != "") != v.tls {
				t.Fatalf("seed %d: the server knows %+v, the library %+v\n%+v\n%s", seed, v, c, x, s.Transcript())
			}
			if v.sasl && s.Reply().Code != 334 {
				t.Fatalf("seed %d: the server waits for a line that won't come\n%s", seed, s.Transcript())
			}
		}
		if err := s.Failure(); err != nil && !isInvalid(err) {
			t.Fatalf("seed %d: %v\n%s", seed, err, s.Transcript())
		}
	}
	if messages < 300 {
		t.Errorf("only %d messages: the property says little", messages)
	}
}

// forgets tells whether what was sent last leaves the library without certainty about
// a transaction, so that it forgets it though the server has it: a chunk or a greeting
// that is refused, or the hook's own reply to what would have ended the transaction.
func forgets(s *Session, before server) bool {
	transcript := s.Transcript()
	last := transcript[strings.LastIndex(transcript, "C: ")+len("C: "):]
	verb := smtpproxy.Command{Line: last[:strings.IndexByte(last, '\n')]}.Verb()
	switch verb {
	case "BDAT", "HELO", "EHLO", "LHLO":
		return before.mail
	case "RSET":
		return before.mail && strings.Contains(last, "\nH: 2")
	}
	return false
}

// isInvalid reports whether a decision was one that the library refuses where
// it came: a 334 where none may stand, a Pass of the answer to the hook's own.
func isInvalid(err error) bool { return errors.Is(err, smtpproxy.ErrInvalidDecision) }
