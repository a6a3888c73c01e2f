package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about the hook that decides about a client before it is greeted.

// connecting makes a hook that decides about clients alone.
func connecting(f func(ctx *hookContext, conn connection) (decision, error)) *lifeHook {
	w := newLifeHook()
	w.connect = f
	return w
}

// welcome is what a client gets first, and what the server executes of what it has sent at
// once.
type welcome struct {
	octets   string
	ended    bool // and nothing more
	executed []string
}

const sentAtOnce = "EHLO client.example\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nQUIT\r\n"

// connectDoors are the ways for a client to be welcomed.
var connectDoors = map[string]func(t *testing.T, p *smtpproxy.Proxy) welcome{
	"go-smtp, TCP":  func(t *testing.T, p *smtpproxy.Proxy) welcome { return welcomeOver(t, overTCP(t), p) },
	"go-smtp, pipe": func(t *testing.T, p *smtpproxy.Proxy) welcome { return welcomeOver(t, overPipe(t), p) },
	"go-smtp, TLS": func(t *testing.T, p *smtpproxy.Proxy) welcome {
		return welcomeOver(t, overTLS(t), p)
	},
	"fake session": func(_ *testing.T, p *smtpproxy.Proxy) (w welcome) {
		s := proxytest.NewSession(p)
		done := make(chan struct{})
		go func() { // which the hook may end
			defer close(done)
			s.Connect()
			w.octets = s.Reply().String() + "\r\n"
		}()
		<-done
		w.ended = s.Closed()
		if !w.ended {
			w.executed = []string{"all"}
		}
		s.Close()
		return w
	},
	"session of one's own": func(t *testing.T, p *smtpproxy.Proxy) (w welcome) {
		s := p.NewSession(connection{})
		defer s.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			switch d := s.Connect(t.Context()).(type) {
			case reply:
				w.octets = d.String() + "\r\n"
				if !d.Disconnect {
					t.Error("the server isn't told to close")
				}
			case pass:
				if d != (pass{}) {
					t.Errorf("it is %+v", d)
				}
				w.octets = "220 servertest.example ESMTP Service Ready\r\n"
			}
		}()
		<-done
		w.ended = s.Context().Err() != nil
		if d, ok := s.Command(t.Context(), "EHLO x").(pass); ok {
			w.executed = []string{d.Command}
		}
		return w
	},
}

// welcomeOver welcomes a client of go-smtp.
func welcomeOver(t *testing.T, tr transport, p *smtpproxy.Proxy) (w welcome) {
	t.Helper()
	f := behindGoSMTP(p)
	served := make(chan struct{})
	go func() {
		defer close(served)
		f.serve(tr)
	}()
	c := dialPeer(t, tr)
	c.send(sentAtOnce)
	var first strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		first.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			break
		}
	}
	rest, _ := io.ReadAll(c.r)
	w.octets, w.ended = first.String(), len(rest) == 0
	c.Close()
	f.close()
	tr.Close()
	<-served
	w.executed = f.Commands()
	return w
}

func TestARefusedClientGetsTheReplyInPlaceOfTheGreeting(t *testing.T) {
	for _, row := range []struct {
		why  string
		d    decision
		want string
	}{
		{"554 (RFC 5321 section 3.1)", reply{Code: 554, Enhanced: enhanced{5, 7, 1}, Lines: []string{"Go away"}}, "554 5.7.1 Go away\r\n"},
		{"421 (RFC 5321 section 3.8)", reply{Code: 421, Enhanced: enhanced{4, 7, 0}, Lines: []string{"Too many"}}, "421 4.7.0 Too many\r\n"},
		{"450, several lines", reply{Code: 450, Enhanced: enhanced{4, 7, 1}, Lines: []string{"Not", "now"}}, "450-4.7.1 Not\r\n450 4.7.1 now\r\n"},
		{"without an enhanced code", reply{Code: 521, Enhanced: smtpproxy.NoEnhancedCode, Lines: []string{"mx.example does not accept mail"}}, "521 mx.example does not accept mail\r\n"},
		{"a pointer", &reply{Code: 554, Enhanced: enhanced{5, 7, 1}, Lines: []string{"Go away"}}, "554 5.7.1 Go away\r\n"},
		{"Disconnect, which is so anyway", reply{Code: 554, Enhanced: enhanced{5, 7, 1}, Lines: []string{"Go away"}, Disconnect: true}, "554 5.7.1 Go away\r\n"},
	} {
		for door, open := range connectDoors {
			t.Run(row.why+", "+door, func(t *testing.T) {
				h := connecting(func(*hookContext, connection) (decision, error) { return row.d, nil })
				w := open(t, &smtpproxy.Proxy{Hook: h})
				if w.octets != row.want || !w.ended {
					t.Errorf("got %q, want %q; the end: %v", w.octets, row.want, w.ended)
				}
				if len(w.executed) > 0 {
					t.Errorf("the server executed %q", w.executed)
				}
				inTime(t, "Disconnect", h.ended)
				h.wantCalls(t, "connect disconnect")
			})
		}
	}
}

func TestAClientThatIsLetInGetsTheServersGreeting(t *testing.T) {
	for why, d := range map[string]decision{"nil": nil, "Pass": pass{}, "a pointer": &pass{}} {
		for door, open := range connectDoors {
			t.Run(why+", "+door, func(t *testing.T) {
				h := connecting(func(*hookContext, connection) (decision, error) { return d, nil })
				w := open(t, &smtpproxy.Proxy{Hook: h})
				if !strings.HasPrefix(w.octets, "220 ") || w.ended || len(w.executed) == 0 {
					t.Errorf("got %q, the end: %v; the server executed %q", w.octets, w.ended, w.executed)
				}
			})
		}
	}
}

// connectFailures are what a hook must not do.
var connectFailures = []struct {
	why    string
	hook   func(ctx *hookContext, conn connection) (decision, error)
	err    error
	within time.Duration
}{
	{"250, which would be no greeting", decidesConnect(reply{}), smtpproxy.ErrInvalidDecision, 0},
	{"220, which the server gives", decidesConnect(reply{Code: 220}), smtpproxy.ErrInvalidDecision, 0},
	{"354", decidesConnect(reply{Code: 354}), smtpproxy.ErrInvalidDecision, 0},
	{"334, which nobody has asked for", decidesConnect(reply{Code: 334}), smtpproxy.ErrInvalidDecision, 0},
	{"Next, where nothing follows", decidesConnect(reply{Code: 554, Next: true}), smtpproxy.ErrInvalidDecision, 0},
	{"a code of another class than the enhanced one", decidesConnect(reply{Code: 554, Enhanced: enhanced{4, 0, 0}}), smtpproxy.ErrInvalidDecision, 0},
	{"a line end in a line", decidesConnect(reply{Code: 554, Lines: []string{"x\r\n220 y"}}), smtpproxy.ErrInvalidDecision, 0},
	{"600", decidesConnect(reply{Code: 600}), smtpproxy.ErrInvalidDecision, 0},
	{"a Pass with a command, of which there is none", decidesConnect(pass{Command: "NOOP"}), smtpproxy.ErrInvalidDecision, 0},
	{"a Pass with Next", decidesConnect(pass{Next: true}), smtpproxy.ErrInvalidDecision, 0},
	{"a nil pointer to a Reply", decidesConnect((*reply)(nil)), smtpproxy.ErrInvalidDecision, 0},
	{"a nil pointer to a Pass", decidesConnect((*pass)(nil)), smtpproxy.ErrInvalidDecision, 0},
	{"an error", func(*hookContext, connection) (decision, error) { return nil, errTest }, errTest, 0},
	{"an error beside a decision", func(*hookContext, connection) (decision, error) { return pass{}, errTest }, errTest, 0},
	{"a panic", func(*hookContext, connection) (decision, error) { panic("no") }, smtpproxy.ErrHookPanic, 0},
	{"too long a call", func(ctx *hookContext, _ connection) (decision, error) { <-ctx.Done(); return nil, nil }, smtpproxy.ErrHookTimeout, time.Millisecond},
	{"too long a call that doesn't look at its Context", func(ctx *hookContext, _ connection) (decision, error) {
		for ctx.Err() == nil {
			runtime.Gosched()
		}
		return nil, nil
	}, smtpproxy.ErrHookTimeout, time.Millisecond},
	{"the end of its goroutine, which is another's", func(*hookContext, connection) (decision, error) { runtime.Goexit(); return nil, nil }, smtpproxy.ErrHookExit, time.Hour},
	{"the end of its goroutine", func(*hookContext, connection) (decision, error) { runtime.Goexit(); return nil, nil }, smtpproxy.ErrHookExit, 0},
}

func decidesConnect(d decision) func(*hookContext, connection) (decision, error) {
	return func(*hookContext, connection) (decision, error) { return d, nil }
}

func TestAHookThatFailsAtTheStartEndsTheConnectionWith421(t *testing.T) {
	const want = "421 4.3.0 Service not available, closing transmission channel\r\n"
	for _, row := range connectFailures {
		for door, open := range connectDoors {
			t.Run(row.why+", "+door, func(t *testing.T) {
				log, failures := new(logbook), make(chan smtpproxy.Failure, 10)
				h := connecting(row.hook)
				h.givenUp = row.within > 0
				w := open(t, &smtpproxy.Proxy{Hook: smtpproxy.Named("gate", h), HookTimeout: row.within, Logger: log.logger(),
					OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision { failures <- f; return nil }})
				exits := row.err == smtpproxy.ErrHookExit && row.within == 0 // then nobody can be asked or told
				if w.octets != want && !(exits && !strings.HasPrefix(door, "go-smtp")) || !w.ended || len(w.executed) > 0 {
					t.Errorf("got %q, the end: %v; the server executed %q", w.octets, w.ended, w.executed)
				}
				if !exits {
					f := <-failures
					if !errors.Is(f, row.err) || f.Hook != "gate" || f.Command.Line != "" || (f.Stack != nil) != (row.err == smtpproxy.ErrHookPanic) {
						t.Errorf("the failure is %#v", f)
					}
				}
				if lines := log.lines("hook failed"); len(lines) != 1 || lines[0].attrs["hook"] != "gate" {
					t.Errorf("logged: %v", lines)
				}
				told := inTime(t, "Disconnect", h.ended)
				if told.end.By != smtpproxy.SideHook || told.end.Reason != smtpproxy.ReasonHookFailed || !errors.Is(told.end.Err, row.err) {
					t.Errorf("told: %s, %v", short(told.end), told.end.Err)
				}
			})
		}
	}
}

func TestOnFailureDecidesAboutAClientInTheHooksPlace(t *testing.T) {
	fails := connecting(func(*hookContext, connection) (decision, error) { return nil, errTest })
	for _, row := range []struct {
		why     string
		instead decision
		want    string
		ends    bool
	}{
		{"a refusal", reply{Code: 450, Enhanced: enhanced{4, 7, 1}, Lines: []string{"Later"}}, "450 4.7.1 Later\r\n", true},
		{"to let it in", pass{}, "220 ", false},
		{"what can't be", reply{Code: 250}, "421 4.3.0 ", true},
		{"nothing", nil, "421 4.3.0 ", true},
	} {
		for door, open := range connectDoors {
			t.Run(row.why+", "+door, func(t *testing.T) {
				w := open(t, &smtpproxy.Proxy{Hook: fails, OnFailure: func(*hookContext, smtpproxy.Failure) decision { return row.instead }})
				if !strings.HasPrefix(w.octets, row.want) || w.ended != row.ends || (len(w.executed) == 0) != row.ends {
					t.Errorf("got %q, the end: %v; the server executed %q", w.octets, w.ended, w.executed)
				}
			})
		}
	}
}

func TestTheFirstOfAChainThatRefusesAClientDecides(t *testing.T) {
	for _, row := range []struct {
		refuses int // which of three; 3: none
		asked   string
	}{{0, "0"}, {1, "01"}, {2, "012"}, {3, "012"}} {
		for door, open := range connectDoors {
			t.Run(fmt.Sprint(row.refuses, ", ", door), func(t *testing.T) {
				asked := make(chan int, 10)
				hook := func(i int) smtpproxy.Hook {
					return smtpproxy.Funcs{OnConnect: func(*hookContext, connection) (decision, error) {
						asked <- i
						if i == row.refuses {
							return reply{Code: 554, Lines: []string{fmt.Sprint(i)}}, nil
						}
						return nil, nil
					}}
				}
				w := open(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(hook(0), always(nil), smtpproxy.Named("x", smtpproxy.Chain(hook(1))), &smtpproxy.Mux{Else: hook(2)})})
				close(asked)
				var got bytes.Buffer
				for i := range asked {
					fmt.Fprint(&got, i)
				}
				want := "220 "
				if row.refuses < 3 {
					want = fmt.Sprintf("554 5.0.0 %d\r\n", row.refuses)
				}
				if got.String() != row.asked || !strings.HasPrefix(w.octets, want) {
					t.Errorf("asked: %s, want %s; the client got %q", got.String(), row.asked, w.octets)
				}
			})
		}
	}
}
