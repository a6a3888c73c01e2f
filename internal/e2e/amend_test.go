package e2e

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about what a hook may make of a reply: the rules of DESIGN, Reply.

// amended is what a client gets to NOOP, the last command that it sends.
type amended struct {
	octets string
	closed bool // by the reply
}

// amendDoors are the ways to a server that replies to NOOP with a code and lines.
var amendDoors = map[string]func(t *testing.T, p *smtpproxy.Proxy, code int, lines ...string) amended{
	"behind a listener": func(t *testing.T, p *smtpproxy.Proxy, code int, lines ...string) amended {
		row := shownRow{server: ofScript("S: 220 x|C: NOOP|S> \"" + strings.ReplaceAll(wireOf(code, lines), "\r\n", `\r\n`) + "\"|END")}
		serve, stop := row.server(t, p)
		tr, served := overCable(), make(chan struct{})
		go func() {
			defer close(served)
			serve(tr)
		}()
		c, _ := tr.dial()
		k := newCaller(t, c)
		k.play("< 220|> NOOP|WAIT 1s", nil)
		closes := make(chan bool, 1)
		go func() {
			io.Copy(io.Discard, k.r) // up to the end, whoever brings it about
			closes <- true
		}()
		time.Sleep(time.Second) // in a bubble
		var a amended
		select {
		case <-closes:
			a.closed = true
		default:
		}
		c.Close()
		if !a.closed {
			<-closes
		}
		stop()
		tr.Close()
		<-served
		a.octets = strings.TrimPrefix(string(k.octets), "220 x\r\n")
		return a
	},
	"fake session": func(_ *testing.T, p *smtpproxy.Proxy, code int, lines ...string) (a amended) {
		s := proxytest.NewSession(p)
		defer s.Close()
		s.Answer("NOOP", code, lines...)
		s.Send("NOOP")
		return amended{octets: s.Reply().String() + "\r\n", closed: s.Closed()}
	},
	"session of one's own": func(t *testing.T, p *smtpproxy.Proxy, code int, lines ...string) amended {
		s := p.NewSession(connection{})
		defer s.Close()
		s.Command(t.Context(), "NOOP")
		r := s.Replied(code, lines...)
		if r.Disconnect != (s.Context().Err() != nil) {
			t.Errorf("the server is to close: %v; the session has ended: %v", r.Disconnect, s.Context().Err())
		}
		return amended{octets: r.String() + "\r\n", closed: r.Disconnect}
	},
}

func wireOf(code int, lines []string) string {
	return reply{Code: code, Enhanced: smtpproxy.NoEnhancedCode, Lines: lines}.String() + "\r\n"
}

// amends makes a hook that decides about the reply to NOOP.
func amends(d decision, err error) smtpproxy.Hook {
	return smtpproxy.Funcs{OnReply: func(_ *hookContext, x shownExchange) (decision, error) {
		if x.Command.Line != "NOOP" {
			return nil, nil
		}
		return d, err
	}}
}

// bad is a reply whose lines begin with an enhanced status code, fine one that is positive.
var (
	bad   = []string{"5.1.1 a", "5.1.1 b"}
	plain = []string{"a"}
)

func TestAHookMayChangeWhatAReplySaysButNotWhatItMeans(t *testing.T) {
	long := strings.Repeat("x", 512-len("550 5.1.1 \r\n"))
	for _, row := range []struct {
		why   string
		code  int
		lines []string
		d     decision
		want  string // "" is what the server says
		ends  bool
	}{
		{"nil changes nothing", 550, bad, nil, "", false},
		{"Pass changes nothing", 550, bad, pass{}, "", false},
		{"a pointer to a Pass changes nothing", 550, bad, &pass{}, "", false},
		{"zero fields keep what is there: all of them", 550, bad, reply{}, "", false},
		{"a pointer to a Reply is one", 550, bad, &reply{Lines: []string{"c"}}, "550 5.1.1 c\r\n", false},
		{"zero fields keep what is there: the codes", 550, bad, reply{Lines: []string{"c"}}, "550 5.1.1 c\r\n", false},
		{"zero fields keep what is there: the code and the lines", 550, bad, reply{Enhanced: enhanced{5, 7, 1}}, "550-5.7.1 a\r\n550 5.7.1 b\r\n", false},
		{"no lines are none to put in their place", 550, bad, reply{Lines: []string{}}, "", false},
		{"an empty line is one", 550, bad, reply{Lines: []string{""}}, "550 5.1.1 \r\n", false},
		{"the same again", 550, bad, reply{Code: 550, Enhanced: enhanced{5, 1, 1}, Lines: []string{"a", "b"}}, "", false},
		{"another code of the class", 550, bad, reply{Code: 554}, "554-5.1.1 a\r\n554 5.1.1 b\r\n", false},
		{"another class moves the enhanced code with it (RFC 3463 section 2)", 550, bad, reply{Code: 450}, "450-4.1.1 a\r\n450 4.1.1 b\r\n", false},
		{"another class, and back the other way", 450, []string{"4.7.1 a"}, reply{Code: 550}, "550 5.7.1 a\r\n", false},
		{"another class, and no enhanced code to move", 550, plain, reply{Code: 450}, "450 a\r\n", false},
		{"another class with an enhanced code of its own", 550, bad, reply{Code: 450, Enhanced: enhanced{4, 7, 1}}, "450-4.7.1 a\r\n450 4.7.1 b\r\n", false},
		{"an enhanced code where there was none", 550, plain, reply{Enhanced: enhanced{5, 7, 1}}, "550 5.7.1 a\r\n", false},
		{"no enhanced code where there was one", 550, bad, reply{Enhanced: smtpproxy.NoEnhancedCode}, "550-a\r\n550 b\r\n", false},
		{"a change to 421 closes (RFC 5321 section 3.8)", 550, bad, reply{Code: 421, Lines: []string{"c"}}, "421 4.1.1 c\r\n", true},
		{"Disconnect closes behind a refusal, whose octets stay", 550, bad, reply{Disconnect: true}, "", true},
		{"Disconnect closes behind what is accepted, whose octets stay", 250, plain, reply{Disconnect: true}, "", true},
		{"a positive reply may be given another text", 250, []string{"2.0.0 a"}, reply{Lines: []string{"b"}}, "250 2.0.0 b\r\n", false},
		{"a positive reply may be given another enhanced code", 250, []string{"2.0.0 a"}, reply{Enhanced: enhanced{2, 1, 5}}, "250 2.1.5 a\r\n", false},
		{"as long a line as a client has to take (RFC 5321 section 4.5.3.1.5)", 550, bad, reply{Lines: []string{long}}, "550 5.1.1 " + long + "\r\n", false},
		{"Delay alone changes nothing", 550, bad, pass{Delay: time.Millisecond}, "", false},
		{"Delay beside a change", 550, bad, reply{Lines: []string{"c"}, Delay: time.Millisecond}, "550 5.1.1 c\r\n", false},
		{"421 of the server's with another text", 421, []string{"4.3.2 a"}, reply{Lines: []string{"b"}}, "421 4.3.2 b\r\n", true},
		{"421 of the server's closes all the same", 421, []string{"4.3.2 a"}, reply{Code: 550}, "550 5.3.2 a\r\n", true},
	} {
		for door, open := range amendDoors {
			bubble(t, row.why+", "+door, func(t *testing.T) {
				log := new(logbook)
				got := open(t, &smtpproxy.Proxy{Hook: amends(row.d, nil), Logger: log.logger()}, row.code, row.lines...)
				want := row.want
				if want == "" {
					want = wireOf(row.code, row.lines)
				}
				if got.octets != want || got.closed != row.ends {
					t.Errorf("the client got %q, the end: %v; want %q, %v", got.octets, got.closed, want, row.ends)
				}
				if lines := log.lines("hook failed"); len(lines) > 0 {
					t.Errorf("logged: %v", lines)
				}
			})
		}
	}
}

// invalidAmendments are what a hook must not make of a reply.
var invalidAmendments = []struct {
	why   string
	code  int
	lines []string
	d     decision
}{
	{"a refusal made 250, which would say more than is true", 550, bad, reply{Code: 250}},
	{"a refusal made 354, for which the client would send content", 550, bad, reply{Code: 354}},
	{"a refusal made 334", 550, bad, reply{Code: 334}},
	{"a refusal made 600, which is no reply", 550, bad, reply{Code: 600}},
	{"a refusal made 1", 550, bad, reply{Code: 1}},
	{"a refusal made -450", 550, bad, reply{Code: -450}},
	{"250 made 550, which the server has accepted", 250, plain, reply{Code: 550}},
	{"250 made 421", 250, plain, reply{Code: 421}},
	{"250 made 251", 250, plain, reply{Code: 251}},
	{"an enhanced code of another class", 550, bad, reply{Enhanced: enhanced{4, 1, 1}}},
	{"an enhanced code that doesn't follow the code", 550, bad, reply{Code: 450, Enhanced: enhanced{5, 1, 1}}},
	{"an enhanced code with a number that is none", 550, bad, reply{Enhanced: enhanced{5, 1, 1000}}},
	{"a line end in a line, behind which another reply would stand", 550, bad, reply{Lines: []string{"a\r\n250 ok"}}},
	{"a NUL in a line", 550, bad, reply{Lines: []string{"\x00"}}},
	{"a line too long (RFC 5321 section 4.5.3.1.5)", 550, bad, reply{Lines: []string{strings.Repeat("x", 512-len("550 5.1.1 \r\n")+1)}}},
	{"too many lines", 550, bad, reply{Lines: make([]string, 101)}},
	{"Next", 550, bad, reply{Next: true}},
	{"Next in a Pass", 550, bad, pass{Next: true}},
	{"a command in a Pass", 550, bad, pass{Command: "NOOP"}},
	{"Disconnect beside what is invalid", 550, bad, reply{Code: 250, Disconnect: true}},
	{"a nil pointer to a Reply", 550, bad, (*reply)(nil)},
	{"a nil pointer to a Pass", 550, bad, (*pass)(nil)},
}

func TestWhatIsInvalidLeavesTheReplyAsItIsAndIsLogged(t *testing.T) {
	for _, row := range invalidAmendments {
		for door, open := range amendDoors {
			bubble(t, row.why+", "+door, func(t *testing.T) {
				wantFailedAmendment(t, open, smtpproxy.Proxy{Hook: smtpproxy.Named("editor", amends(row.d, nil))}, row.code, row.lines, smtpproxy.ErrInvalidDecision, "editor")
			})
		}
	}
}

// wantFailedAmendment checks that the client gets what the server says, and that the failure of
// a hook is logged and told once.
func wantFailedAmendment(t *testing.T, open func(*testing.T, *smtpproxy.Proxy, int, ...string) amended, p smtpproxy.Proxy, code int, lines []string, want error, hook string) {
	t.Helper()
	log := new(logbook)
	var told []smtpproxy.Failure
	p.Logger = log.logger()
	var failed, shown *hookContext
	p.Observers = []smtpproxy.Observer{{
		Failed:    func(ctx *hookContext, f smtpproxy.Failure) { told, failed = append(told, f), ctx },
		Exchanged: func(ctx *hookContext, x shownExchange) { shown = ctx },
	}}
	p.OnFailure = func(*hookContext, smtpproxy.Failure) decision {
		t.Error("OnFailure is asked: it is too late to decide")
		return nil
	}
	got := open(t, &p, code, lines...)
	if got.octets != wireOf(code, lines) || got.closed {
		t.Errorf("the client got %q, the end: %v", got.octets, got.closed)
	}
	if entries := log.lines("hook failed"); len(entries) != 1 || entries[0].attrs["hook"] != hook || entries[0].attrs["command"] != "NOOP" || entries[0].level != slog.LevelError {
		t.Errorf("logged: %v", entries)
	}
	if len(told) != 1 || told[0].Hook != hook || !errors.Is(told[0], want) || told[0].Command.Line != "NOOP" {
		t.Errorf("told: %#v", told)
	}
	if failed != shown {
		t.Error("that isn't told with the Context of the reply")
	}
}

func TestAHookThatFailsAtAReplyLeavesItAsItIs(t *testing.T) {
	for _, row := range []struct {
		why     string
		f       func(ctx *hookContext) (decision, error)
		timeout time.Duration
		want    error
	}{
		{"an error", func(*hookContext) (decision, error) { return nil, errTest }, 0, errTest},
		{"an error beside a change", func(*hookContext) (decision, error) { return reply{Lines: []string{"c"}}, errTest }, 0, errTest},
		{"a panic", func(*hookContext) (decision, error) { panic("no") }, 0, smtpproxy.ErrHookPanic},
		{"an error, on a goroutine of its own", func(*hookContext) (decision, error) { return nil, errTest }, time.Hour, errTest},
		{"a panic, on a goroutine of its own", func(*hookContext) (decision, error) { panic("no") }, time.Hour, smtpproxy.ErrHookPanic},
		{"the end of that goroutine", func(*hookContext) (decision, error) { runtime.Goexit(); return nil, nil }, time.Hour, smtpproxy.ErrHookExit},
		{"too long a call", func(ctx *hookContext) (decision, error) { <-ctx.Done(); return reply{Lines: []string{"c"}}, nil }, time.Millisecond, smtpproxy.ErrHookTimeout},
	} {
		for door, open := range amendDoors {
			bubble(t, row.why+", "+door, func(t *testing.T) {
				// Those before and behind it change the reply as if it weren't there.
				asked := 0
				h := smtpproxy.Funcs{OnReply: func(ctx *hookContext, x shownExchange) (decision, error) {
					if x.Command.Line != "NOOP" {
						return nil, nil
					}
					asked++
					return row.f(ctx)
				}}
				wantFailedAmendment(t, open, smtpproxy.Proxy{Hook: smtpproxy.Named("editor", h), HookTimeout: row.timeout}, 250, plain, row.want, "editor")
				if asked != 1 {
					t.Errorf("asked %d times", asked)
				}
			})
		}
	}
}

func TestTheOthersOfAChainChangeTheReplyWhereOneFails(t *testing.T) {
	adds := func(name string) smtpproxy.Hook {
		return smtpproxy.Named(name, smtpproxy.Funcs{OnReply: func(_ *hookContext, x shownExchange) (decision, error) {
			if x.Command.Line != "NOOP" {
				return nil, nil
			}
			x.Reply.Lines[0] = "spoilt" // which is the hook's own copy
			return reply{Lines: []string{fmt.Sprint(x.Reply.Code, x.Hook, " ", name)}}, nil
		}})
	}
	for why, failing := range map[string]smtpproxy.Hook{
		"none fails": smtpproxy.Funcs{},
		"one fails":  amends(nil, errTest),
		"one writes into what it is shown": smtpproxy.Funcs{OnReply: func(_ *hookContext, x shownExchange) (decision, error) {
			x.Reply.Lines[0], x.Reply.Code = "spoilt", 250
			return nil, nil
		}},
	} {
		for door, open := range amendDoors {
			bubble(t, why+", "+door, func(t *testing.T) {
				var seen []string
				looks := smtpproxy.Funcs{OnReply: func(_ *hookContext, x shownExchange) (decision, error) {
					if x.Command.Line == "NOOP" {
						seen = append(seen, fmt.Sprint(x.By, x.Hook, x.Reply.Lines))
					}
					return nil, nil
				}}
				var told []string
				got := open(t, &smtpproxy.Proxy{
					Hook: smtpproxy.Chain(looks, adds("first"), failing, looks, adds("last"), looks),
					Observers: []smtpproxy.Observer{
						{Exchanged: func(_ *hookContext, x shownExchange) { x.Reply.Lines[0] = "spoilt" }},
						{Exchanged: func(_ *hookContext, x shownExchange) {
							if x.Command.Line == "NOOP" {
								told = append(told, fmt.Sprint(x.By, x.Hook, x.Reply.Lines))
							}
						}},
					}}, 550, "a")
				if want := "550 550last first\r\n"; got.octets != want {
					t.Errorf("the client got %q, want %q", got.octets, want)
				}
				if got, want := fmt.Sprint(seen), "[server[a] serverlast[550 last] serverfirst[550last first]]"; got != want {
					t.Errorf("seen: %s, want %s", got, want)
				}
				if got, want := fmt.Sprint(told), "[serverfirst[550last first]]"; got != want {
					t.Errorf("told: %s, want %s", got, want)
				}
			})
		}
	}
}
