package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"go.uber.org/goleak"
)

// This file is about what a hook returns, and what it does instead of returning.

// inTransaction returns a session in which a chunk could come next, and a place
// for the last failure of its hook.
func inTransaction(p smtpproxy.Proxy, verb string) (*smtpproxy.Session, *smtpproxy.Failure) {
	var failure smtpproxy.Failure
	p.OnFailure = func(_ *hookContext, f smtpproxy.Failure) decision {
		failure = f
		return nil
	}
	conn := connection{HELO: smtpproxy.HELO{Verb: verb, Host: "x"}}
	txn := transaction{Active: true, Recipients: smtpproxy.NewRecipients(smtpproxy.Recipient{Recipient: "c@d"})}
	return p.ResumeSession(conn, txn), &failure
}

func TestADecisionIsHeldToItsContract(t *testing.T) {
	long := func(n int) []string { return []string{strings.Repeat("x", n)} }
	noop := func(n int) string { return "NOOP " + strings.Repeat("x", n-len("NOOP ")) }
	none := smtpproxy.NoEnhancedCode
	for _, tt := range []struct {
		why   string
		line  string
		d     decision
		valid bool
	}{
		{"nothing", "NOOP", nil, true},
		{"a pointer to Pass", "NOOP", &pass{}, true},
		{"a pointer to Reply", "NOOP", &reply{}, true},
		{"a nil pointer to Pass", "NOOP", (*pass)(nil), false},
		{"a nil pointer to Reply", "NOOP", (*reply)(nil), false},
		{"a type that embeds Pass", "NOOP", struct{ pass }{}, false},
		{"a type that embeds a pointer to Reply", "NOOP", struct{ *reply }{&reply{}}, false},

		{"LF in a reply", "NOOP", reply{Code: 550, Lines: []string{"no\n250 ok"}}, false},
		{"CRLF in a reply", "NOOP", reply{Code: 550, Lines: []string{"no\r\n250 ok"}}, false},
		{"CR at the end of a reply", "NOOP", reply{Lines: []string{"a", "b\r"}}, false},
		{"NUL in a reply", "NOOP", reply{Lines: []string{"a\x00"}}, false},
		{"DEL in a reply", "NOOP", reply{Lines: []string{"a\x7f"}}, false},
		{"escape in a reply", "NOOP", reply{Lines: []string{"\x1b[2J"}}, false},
		{"tab in a reply", "NOOP", reply{Lines: []string{"a\tb"}}, true},
		{"UTF-8 in a reply", "NOOP", reply{Lines: []string{"für dich, \u65e5\u672c"}}, true},
		{"an empty line in a reply", "NOOP", reply{Lines: []string{""}}, true},
		{"100 lines", "NOOP", reply{Lines: slices.Repeat([]string{"x"}, 100)}, true},
		{"101 lines", "NOOP", reply{Lines: slices.Repeat([]string{"x"}, 101)}, false},
		{"512 octets", "NOOP", reply{Enhanced: none, Lines: long(512 - len("250 \r\n"))}, true},
		{"513 octets", "NOOP", reply{Enhanced: none, Lines: long(513 - len("250 \r\n"))}, false},
		{"512 octets with an enhanced code", "NOOP", reply{Lines: long(512 - len("250 2.0.0 \r\n"))}, true},
		{"513 octets with an enhanced code", "NOOP", reply{Lines: long(513 - len("250 2.0.0 \r\n"))}, false},
		{"513 octets with a longer enhanced code", "NOOP", reply{Enhanced: enhanced{2, 100, 10}, Lines: long(513 - len("250 2.100.10 \r\n"))}, false},

		{"code 99", "NOOP", reply{Code: 99}, false},
		{"code 199", "NOOP", reply{Code: 199}, false},
		{"code 200", "NOOP", reply{Code: 200}, true},
		{"code 599", "NOOP", reply{Code: 599}, true},
		{"code 600", "NOOP", reply{Code: 600}, false},
		{"a negative code", "NOOP", reply{Code: -250}, false},
		{"354 to DATA", "DATA", reply{Code: 354}, false},
		{"300 to DATA, which a client may take for 354", "DATA", reply{Code: 300}, false},
		{"334 to DATA", "DATA", reply{Code: 334}, false},
		{"350 to DATA", "DATA", reply{Code: 350}, false},
		{"399 to data", "data", reply{Code: 399}, false},
		{"250 to DATA", "DATA", reply{}, true},
		{"450 to DATA", "DATA", reply{Code: 450}, true},
		{"350 to another command", "NOOP", reply{Code: 350}, true},
		{"354 to another command", "NOOP", reply{Code: 354}, false},
		{"220 to STARTTLS", "STARTTLS", reply{Code: 220}, false},
		{"220 to starttls", "starttls", reply{Code: 220}, false},
		{"454 to STARTTLS", "STARTTLS", reply{Code: 454}, true},
		{"220 to another command", "NOOP", reply{Code: 220}, true},
		{"250 to RCPT, by SMTP", "RCPT TO:<e@f>", reply{}, true},

		{"another class in the enhanced code", "NOOP", reply{Code: 550, Enhanced: enhanced{4, 0, 0}}, false},
		{"an enhanced code with 334", "NOOP", reply{Code: 334, Enhanced: enhanced{3, 0, 0}}, false},
		{"an enhanced code of four digits", "NOOP", reply{Enhanced: enhanced{2, 1000, 0}}, false},
		{"a negative subject", "NOOP", reply{Enhanced: enhanced{2, -1, 0}}, false},
		{"no enhanced code", "NOOP", reply{Code: 550, Enhanced: none}, true},

		{"LF in a command", "NOOP", pass{Command: "NOOP\nRSET"}, false},
		{"CRLF behind a command", "NOOP", pass{Command: "NOOP\r\n"}, false},
		{"NUL in a command", "NOOP", pass{Command: "NO\x00OP"}, false},
		{"DEL in a command", "NOOP", pass{Command: "NOOP \x7f"}, false},
		{"tab in a command", "NOOP", pass{Command: "NOOP\tx"}, true},
		{"UTF-8 in a command", "NOOP", pass{Command: "MAIL FROM:<\u00f6@b>"}, true},
		{"a command at the line limit", "NOOP", pass{Command: noop(2048 - 2)}, true},
		{"a command over the line limit", "NOOP", pass{Command: noop(2048 - 1)}, false},
		{"a space before the verb", "NOOP", pass{Command: " NOOP"}, false},
		{"a verb that starts with a digit", "NOOP", pass{Command: "1NOOP"}, false},
		{"a verb beyond ASCII", "NOOP", pass{Command: "\u017ftarttls"}, false},
		{"blanks alone", "NOOP", pass{Command: "  "}, false},

		{"BDAT as it was", "BDAT 3", pass{Command: "BDAT 3"}, true},
		{"BDAT written in another way", "BDAT 3", pass{Command: "bdat 003"}, true},
		{"LAST put in", "BDAT 3", pass{Command: "BDAT 3 LAST"}, true},
		{"LAST taken out", "BDAT 3 LAST", pass{Command: "BDAT 3"}, true},
		{"another size", "BDAT 3", pass{Command: "BDAT 4"}, false},
		{"BDAT made another command", "BDAT 3", pass{Command: "RSET"}, false},
		{"BDAT put in", "NOOP", pass{Command: "BDAT 3"}, false},
		{"BDAT of nothing put in", "NOOP", pass{Command: "BDAT 0 LAST"}, false},
		{"BDAT of an unknown size", "BDAT 3", pass{Command: "BDAT x"}, false},
		{"BDAT of an unknown size made another", "BDAT x", pass{Command: "BDAT y"}, false},
		{"BDAT of an unknown size mended", "BDAT x", pass{Command: "BDAT 3"}, false},
	} {
		s, failure := inTransaction(smtpproxy.Proxy{Hook: always(tt.d)}, "EHLO")
		got := s.Command(context.Background(), tt.line)
		switch {
		case tt.valid && failure.Err != nil:
			t.Errorf("%s: %v", tt.why, failure)
		case !tt.valid && !errors.Is(failure.Err, smtpproxy.ErrInvalidDecision):
			t.Errorf("%s: %v, no failure", tt.why, got)
		case !tt.valid && fmt.Sprint(got)+"\r\n" != lost:
			t.Errorf("%s: %v", tt.why, got)
		}
	}
}

func TestAHookCannotAcceptAnLMTPRecipient(t *testing.T) {
	for code, valid := range map[int]bool{250: false, 251: false, 252: false, 200: true, 450: true, 550: true} {
		s, failure := inTransaction(smtpproxy.Proxy{Hook: always(reply{Code: code})}, "LHLO")
		s.Command(context.Background(), "rcpt TO:<e@f>")
		if errors.Is(failure.Err, smtpproxy.ErrInvalidDecision) == valid {
			t.Errorf("%d: %v", code, failure.Err)
		}
	}
}

// TestTheAnswerToAHooksOwnChallengeIsTheHooksAlone is about a line that may be
// a password, which the server hasn't asked for.
func TestTheAnswerToAHooksOwnChallengeIsTheHooksAlone(t *testing.T) {
	for _, tt := range []struct {
		why   string
		d     decision
		valid bool
	}{
		{"answered", reply{Code: 235}, true},
		{"challenged again", reply{Code: 334}, true},
		{"passed", pass{}, false},
		{"passed by default", nil, false},
		{"rewritten", pass{Command: "NOOP"}, false},
	} {
		var seen []string
		s, failure := inTransaction(smtpproxy.Proxy{Commands: []string{"AUTH"}, Hook: decide(func(cmd command) (decision, error) {
			seen = append(seen, fmt.Sprintf("%s %t", cmd.Line, cmd.SASL))
			if cmd.Verb() == "AUTH" {
				return reply{Code: 334}, nil
			}
			return tt.d, nil
		})}, "EHLO")
		got := s.Command(context.Background(), "AUTH LOGIN")
		if r, ok := got.(reply); !ok || !r.Next || r.Disconnect || r.String() != "334 " {
			t.Errorf("%s: the challenge is %+v", tt.why, got)
		}
		got = s.Command(context.Background(), "DATA")
		if _, ok := got.(reply); !ok || (failure.Err == nil) != tt.valid {
			t.Errorf("%s: %v, %v", tt.why, got, failure.Err)
		}
		if want := []string{"AUTH LOGIN false", "DATA true"}; !slices.Equal(seen, want) {
			t.Errorf("%s: the hook saw %q", tt.why, seen)
		}
	}
}

func TestAReplyIsPrinted(t *testing.T) {
	for _, tt := range []struct {
		why  string
		line string
		r    reply
		want string
	}{
		{"by default", "NOOP", reply{}, "250 2.0.0 OK"},
		{"a code alone", "NOOP", reply{Code: 550}, "550 5.0.0 Requested action not taken"},
		{"an enhanced code", "NOOP", reply{Code: 450, Enhanced: enhanced{4, 7, 1}, Lines: []string{"later"}}, "450 4.7.1 later"},
		{"the enhanced code on every line", "NOOP", reply{Code: 550, Enhanced: enhanced{5, 7, 1}, Lines: []string{"a", "", "c"}}, "550-5.7.1 a\r\n550-5.7.1 \r\n550 5.7.1 c"},
		{"no enhanced code", "NOOP", reply{Enhanced: smtpproxy.NoEnhancedCode, Lines: []string{"a", "b"}}, "250-a\r\n250 b"},
		{"to EHLO", "EHLO x", reply{}, "250 OK"},
		{"to ehlo", "ehlo x", reply{Lines: []string{"a", "SIZE"}}, "250-a\r\n250 SIZE"},
		{"to HELO", "HELO x", reply{}, "250 OK"},
		{"to LHLO, refused", "LHLO x", reply{Code: 550, Lines: []string{"no"}}, "550 no"},
		{"to EHLO, with a code that is asked for", "EHLO x", reply{Code: 550, Enhanced: enhanced{5, 7, 1}, Lines: []string{"no"}}, "550 5.7.1 no"},
		{"an empty challenge", "AUTH PLAIN", reply{Code: 334}, "334 "},
		{"a challenge", "AUTH LOGIN", reply{Code: 334, Lines: []string{"VXNlcm5hbWU6"}}, "334 VXNlcm5hbWU6"},
		{"a farewell", "NOOP", reply{Code: 221}, "221 2.0.0 Bye"},
		{"the service not available", "NOOP", reply{Code: 421}, "421 4.0.0 Service not available, closing transmission channel"},
	} {
		s, _ := inTransaction(smtpproxy.Proxy{Hook: always(tt.r)}, "EHLO")
		got := s.Command(context.Background(), tt.line).(reply)
		var wire bytes.Buffer
		n, err := got.WriteTo(&wire)
		if got.String() != tt.want || wire.String() != tt.want+"\r\n" || n != int64(wire.Len()) || err != nil {
			t.Errorf("%s: %q, on the wire %q, %d, %v; want %q", tt.why, got, wire.String(), n, err, tt.want)
		}
	}
}

func TestWhatAReplyImplies(t *testing.T) {
	for _, tt := range []struct {
		r                reply
		disconnect, next bool
	}{
		{reply{}, false, false},
		{reply{Code: 550}, false, false},
		{reply{Code: 550, Disconnect: true}, true, false},
		{reply{Next: true}, false, true},
		{reply{Code: 221}, true, false},
		{reply{Code: 421}, true, false},
		{reply{Code: 334}, false, true},
	} {
		s, _ := inTransaction(smtpproxy.Proxy{Hook: always(tt.r)}, "EHLO")
		if got := s.Command(context.Background(), "NOOP").(reply); got.Disconnect != tt.disconnect || got.Next != tt.next {
			t.Errorf("%+v became %+v", tt.r, got)
		}
		over := s.Context().Err() != nil
		if over != tt.disconnect {
			t.Errorf("%+v: the session is over: %t", tt.r, over)
		}
	}
}

var errTest = errors.New("the database is on fire")

func TestAHookThatFailsIsA421AndTheEnd(t *testing.T) {
	for _, tt := range []struct {
		why  string
		hook func() (decision, error)
		want []error
		text string
	}{
		{"an error", func() (decision, error) { return nil, errTest }, []error{errTest}, errTest.Error()},
		{"an error wins over Pass", func() (decision, error) { return pass{}, errTest }, []error{errTest}, errTest.Error()},
		{"an error wins over Reply", func() (decision, error) { return reply{Code: 250}, errTest }, []error{errTest}, errTest.Error()},
		{"a panic", func() (decision, error) { panic("help") }, []error{smtpproxy.ErrHookPanic}, "smtpproxy: hook panicked: help"},
		{"a panic with an error", func() (decision, error) { panic(fmt.Errorf("no: %w", errTest)) }, []error{smtpproxy.ErrHookPanic, errTest}, "smtpproxy: hook panicked: no: the database is on fire"},
		{"a panic with nil", func() (decision, error) { panic(nil) }, []error{smtpproxy.ErrHookPanic}, ""},
		{"a fault", func() (decision, error) { return []decision{}[len(errTest.Error())], nil }, []error{smtpproxy.ErrHookPanic}, ""},
		{"an invalid decision", func() (decision, error) { return reply{Code: 1}, nil }, []error{smtpproxy.ErrInvalidDecision}, ""},
	} {
		for _, timeout := range []time.Duration{0, time.Hour} {
			hook := decide(func(command) (decision, error) { return tt.hook() })
			s, failure := inTransaction(smtpproxy.Proxy{Hook: hook, HookTimeout: timeout}, "EHLO")
			got := s.Command(context.Background(), "RSET")
			if r, ok := got.(reply); !ok || r.String()+"\r\n" != lost || !r.Disconnect {
				t.Errorf("%s: %+v", tt.why, got)
			}
			for _, want := range tt.want {
				if !errors.Is(*failure, want) {
					t.Errorf("%s: %v is no %v", tt.why, failure.Err, want)
				}
			}
			if tt.text != "" && failure.Error() != tt.text {
				t.Errorf("%s: %q, want %q", tt.why, failure, tt.text)
			}
			if panicked := errors.Is(*failure, smtpproxy.ErrHookPanic); panicked != bytes.Contains(failure.Stack, []byte("TestAHookThatFailsIsA421AndTheEnd")) {
				t.Errorf("%s: stack %s", tt.why, failure.Stack)
			}
			if failure.Command.Line != "RSET" {
				t.Errorf("%s: at %v", tt.why, failure.Command)
			}
			if next := s.Command(context.Background(), "NOOP"); fmt.Sprint(next)+"\r\n" != lost {
				t.Errorf("%s: behind it %v", tt.why, next)
			}
		}
	}
}

func TestOnFailureMayDecideOtherwise(t *testing.T) {
	for _, tt := range []struct {
		why     string
		err     error
		decides func(f smtpproxy.Failure) decision
		want    string
	}{
		{"by the cause", errTest, func(f smtpproxy.Failure) decision {
			if errors.Is(f, errTest) {
				return reply{Code: 451}
			}
			return nil
		}, "451 4.0.0 Requested action not taken"},
		{"another cause", io.ErrUnexpectedEOF, func(f smtpproxy.Failure) decision {
			if errors.Is(f, errTest) {
				return reply{Code: 451}
			}
			return nil
		}, lost},
		{"pass", errTest, func(smtpproxy.Failure) decision { return pass{} }, "{RSET false 0s}"},
		{"it panics", errTest, func(smtpproxy.Failure) decision { panic("again") }, lost},
		{"it decides what is not valid", errTest, func(smtpproxy.Failure) decision { return reply{Code: 1} }, lost},
		{"a nil pointer", errTest, func(smtpproxy.Failure) decision { return (*reply)(nil) }, lost},
	} {
		var logged bytes.Buffer
		p := &smtpproxy.Proxy{
			Hook:      decide(func(command) (decision, error) { return nil, tt.err }),
			OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision { return tt.decides(f) },
			Logger:    slog.New(slog.NewTextHandler(&logged, nil)),
		}
		got := fmt.Sprint(p.NewSession(connection{}).Command(context.Background(), "RSET"))
		if got != strings.TrimSuffix(tt.want, "\r\n") {
			t.Errorf("%s: %s", tt.why, got)
		}
		if !strings.Contains(logged.String(), tt.err.Error()) {
			t.Errorf("%s: logged %s", tt.why, &logged)
		}
	}
}

// TestAHookThatTakesTooLongIsGivenUp is about hooks that go on whatever happens:
// what they return later harms nobody.
func TestAHookThatTakesTooLongIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		why string
		end func() (decision, error)
	}{
		{"it passes late", func() (decision, error) { return pass{Command: "RSET"}, nil }},
		{"it replies late", func() (decision, error) { return reply{Next: true}, nil }},
		{"it fails late", func() (decision, error) { return nil, errTest }},
		{"it panics late", func() (decision, error) { panic("late") }},
		{"it exits late", func() (decision, error) { runtime.Goexit(); return nil, nil }},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			start := time.Now()
			ended := make(chan error, 1)
			s, failure := inTransaction(smtpproxy.Proxy{HookTimeout: time.Minute, Hook: decideIn(func(ctx *hookContext, _ command) (decision, error) {
				if at, ok := ctx.Deadline(); !ok || at.Sub(start) != time.Minute {
					t.Errorf("the deadline is %v, %t", at, ok)
				}
				<-ctx.Done()
				err := ctx.Err()
				time.Sleep(time.Hour) // in a bubble
				*smtpproxy.State[int](ctx) = 1
				ended <- err
				return tt.end()
			})}, "EHLO")
			got := s.Command(context.Background(), "NOOP")
			if d := time.Since(start); fmt.Sprint(got)+"\r\n" != lost || d != time.Minute {
				t.Errorf("%v after %v", got, d)
			}
			if !errors.Is(*failure, smtpproxy.ErrHookTimeout) {
				t.Errorf("the failure is %v", failure)
			}
			// Its time is up, and the call is over as well.
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				t.Errorf("the hook's context ended with %v", err)
			}
			synctest.Wait()
			if next := s.Command(context.Background(), "NOOP"); fmt.Sprint(next)+"\r\n" != lost {
				t.Errorf("then %v", next)
			}
		})
	}
}

// TestAHookThatReturnsWhenItsTimeIsUpHasTakenTooLong is about hooks that end
// with their context, as they should.
func TestAHookThatReturnsWhenItsTimeIsUpHasTakenTooLong(t *testing.T) {
	for why, end := range map[string]func(err error) (decision, error){
		"it passes":  func(error) (decision, error) { return nil, nil },
		"it replies": func(error) (decision, error) { return reply{}, nil },
		"it fails":   func(err error) (decision, error) { return nil, err },
	} {
		bubble(t, why, func(t *testing.T) {
			for range 100 { // it may depend on which goroutine runs first
				s, failure := inTransaction(smtpproxy.Proxy{HookTimeout: time.Minute, Hook: decideIn(func(ctx *hookContext, _ command) (decision, error) {
					<-ctx.Done()
					return end(ctx.Err())
				})}, "EHLO")
				got := s.Command(context.Background(), "NOOP")
				if fmt.Sprint(got)+"\r\n" != lost || !errors.Is(*failure, smtpproxy.ErrHookTimeout) {
					t.Fatalf("%v, %v", got, failure.Err)
				}
			}
		})
	}
}

func TestTheContextOfOnFailureIsDoneWhenTheTimeIsUpAndOnlyThen(t *testing.T) {
	for _, tt := range []struct {
		why     string
		timeout time.Duration
		hook    func() error
		want    error
	}{
		{"no limit", 0, func() error { return errTest }, nil},
		{"in time", time.Minute, func() error { return errTest }, nil},
		{"too late", time.Minute, func() error { time.Sleep(2 * time.Minute); return nil }, context.DeadlineExceeded}, // in a bubble
	} {
		bubble(t, tt.why, func(t *testing.T) {
			asked := false
			p := smtpproxy.Proxy{
				HookTimeout: tt.timeout,
				Hook:        decide(func(command) (decision, error) { return nil, tt.hook() }),
				OnFailure: func(ctx *hookContext, _ smtpproxy.Failure) decision {
					asked = true
					if err := ctx.Err(); !errors.Is(err, tt.want) {
						t.Errorf("the context's error is %v, want %v", err, tt.want)
					}
					return nil
				},
			}
			if p.NewSession(connection{}).Command(context.Background(), "NOOP"); !asked {
				t.Error("OnFailure was not called")
			}
			time.Sleep(time.Hour) // until the hook returns
		})
	}
}

func TestAHookThatIsGivenUpEndsTheConnection(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		c := patientPeer(t, behindGoSMTP(&smtpproxy.Proxy{HookTimeout: time.Minute, Hook: decide(func(command) (decision, error) {
			time.Sleep(time.Hour) // in a bubble
			return nil, nil
		})}))
		c.expect("220")
		c.send("NOOP\r\nNOOP\r\n")
		if got := c.diary(); !slices.Equal(got, []string{fmt.Sprintf("1m0s %q", lost), `1m0s ""`}) {
			t.Errorf("got %q", got)
		}
		time.Sleep(time.Hour) // until the hook returns
	})
}

// TestAHookThatEndsItsGoroutineEndsItsConnectionAlone is about runtime.Goexit,
// as of testing.T.FailNow.
func TestAHookThatEndsItsGoroutineEndsItsConnectionAlone(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Hour} {
		for _, name := range []string{"go-smtp", "strict"} {
			for transport, listen := range transports {
				t.Run(fmt.Sprintf("%s, %s, HookTimeout %v", name, transport, timeout), func(t *testing.T) {
					ignore := goleak.IgnoreCurrent()
					var logged bytes.Buffer
					s := fronts[name](&smtpproxy.Proxy{
						HookTimeout: timeout,
						Logger:      slog.New(slog.NewTextHandler(&logged, nil)),
						Hook: decide(func(cmd command) (decision, error) {
							if cmd.Verb() == "NOOP" {
								runtime.Goexit()
							}
							return nil, nil
						}),
					})
					served := make(chan error, 1)
					tr := listen(t)
					go func() { served <- s.serve(tr) }()
					for range 2 {
						c := dialPeer(t, tr)
						c.expect("220")
						c.ask("EHLO x", "250")
						c.send("NOOP\r\nVRFY x\r\n")
						c.expect(strings.TrimSuffix(lost, "\r\n"))
						c.expectEnd()
						c.Close()
					}
					s.close()
					<-served
					if err := goleak.Find(ignore); err != nil {
						t.Error(err)
					}
					if rec := s.Record(); rec.Sessions != 2 || rec.Ended != 2 || slices.Contains(rec.Commands, "VRFY x") {
						t.Errorf("%+q", rec)
					}
					if n := strings.Count(logged.String(), smtpproxy.ErrHookExit.Error()); n != 2 {
						t.Errorf("logged %s", &logged)
					}
				})
			}
		}
	}
}

// nilError is an error whose method fails for a nil pointer, the usual mistake
// being to return one as an error.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestAnErrorThatPanicsIsAFailureAndNoMore(t *testing.T) {
	p := &smtpproxy.Proxy{
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Hook: smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
			var e *nilError
			return nil, e
		}),
	}
	r, ok := p.NewSession(smtpproxy.Connection{}).Command(context.Background(), "NOOP").(smtpproxy.Reply)
	if !ok || r.Code != 421 {
		t.Errorf("got %v", r)
	}
}

func TestAPanicOfTransportIDGivesNone(t *testing.T) {
	p := &smtpproxy.Proxy{TransportID: func(smtpproxy.Connection, smtpproxy.Recipient) string { panic("none") }}
	s := p.ResumeSession(smtpproxy.Connection{}, smtpproxy.Transaction{Active: true})
	s.Command(context.Background(), "RCPT TO:<a@example.org>")
	s.Replied(250)
	if r := s.Transaction().Recipients; r.Len() != 1 || r.At(0).TransportID != "" {
		t.Errorf("recipients %v", r)
	}
}

// TestAContextThatAHookHasKeptDoesNotEndTheNextOne is about a hook that uses it
// after the call, which it must not.
func TestAContextThatAHookHasKeptDoesNotEndTheNextOne(t *testing.T) {
	var kept *hookContext
	s := (&smtpproxy.Proxy{Hook: decideIn(func(ctx *hookContext, cmd command) (decision, error) {
		kept = ctx
		if cmd.Verb() == "RSET" {
			return nil, ctx.Err()
		}
		return nil, nil
	})}).NewSession(connection{})
	for _, line := range []string{"NOOP", "RSET", "NOOP", "RSET"} {
		if d := s.Command(context.Background(), line); d != (pass{Command: line}) {
			t.Errorf("%s: the context is done: %v", line, d)
		}
		s.Replied(250)
		if kept.Err() == nil {
			t.Errorf("%s: behind the call, the context isn't done", line)
		}
	}
}

// What is invalid about a decision must not be left in the one that takes its
// place.
func TestOnFailureMayPassWhatTheHookHasRepliedToInVain(t *testing.T) {
	for _, r := range []reply{{Code: 354}, {Code: 250, Lines: []string{"x\r\n250 y"}}} {
		p := &smtpproxy.Proxy{Hook: always(r), OnFailure: func(*hookContext, smtpproxy.Failure) decision { return pass{} }}
		if d, ok := p.NewSession(connection{}).Command(t.Context(), "NOOP").(pass); !ok || d.Command != "NOOP" {
			t.Errorf("%+v: %+v, passed: %v", r, d, ok)
		}
	}
}

func TestAnOnFailureThatEndsItsGoroutineEndsTheSession(t *testing.T) {
	p := &smtpproxy.Proxy{Hook: always(reply{Code: 99}), OnFailure: func(*hookContext, smtpproxy.Failure) decision {
		runtime.Goexit()
		return nil
	}}
	s := p.NewSession(connection{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Command(context.Background(), "NOOP")
	}()
	<-done
	if s.Context().Err() == nil {
		t.Error("the session goes on")
	}
}

func TestATransportIDThatEndsItsGoroutineLeavesTheConnectionToBeClosed(t *testing.T) {
	closed := make(chan struct{})
	p := &smtpproxy.Proxy{TransportID: func(connection, smtpproxy.Recipient) string {
		runtime.Goexit()
		return ""
	}}
	c := runScript(t, overTCP(t), p, func(c net.Conn) {
		go func() {
			defer close(closed)
			defer c.Close()
			io.WriteString(c, "220 x\r\n")
			for b := make([]byte, 100); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
				io.WriteString(c, "250 x\r\n")
			}
		}()
		<-closed
	})
	c.expect("220")
	c.ask("MAIL FROM:<a@b>", "250")
	c.send("RCPT TO:<c@d>\r\n")
	c.diary()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("Close waits")
	}
}

// A hook that is given up may begin only then, and must see what it was asked
// about.
func TestAHookThatIsGivenUpSeesTheStateBeforeItsCommand(t *testing.T) {
	for range 50 {
		shown := make(chan transaction, 1)
		p := smtpproxy.Proxy{
			HookTimeout: time.Nanosecond,
			Hook: smtpproxy.HookFunc(func(_ *hookContext, _ command, _ smtpproxy.Connection, txn transaction) (decision, error) {
				shown <- txn
				return nil, nil
			}),
			OnFailure: func(*hookContext, smtpproxy.Failure) decision { return pass{} },
		}
		s := p.NewSession(smtpproxy.Connection{})
		s.Command(context.Background(), "MAIL FROM:<alice@client.example>")
		s.Replied(250)
		if txn := <-shown; txn.Active {
			t.Fatalf("MAIL was shown with its own sender, %q", txn.Sender)
		}
	}
}
