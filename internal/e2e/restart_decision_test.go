package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about which decisions let the server start afresh, and when.

// servesAll serves each connection by a puppet.
func servesAll(_ int, c net.Conn, _ *bufio.Reader) { new(puppet).serve(c) }

// restartsAt returns a hook that decides so about a line.
func restartsAt(line string, d decision) func(*hookContext, command) (decision, error) {
	return func(_ *hookContext, cmd command) (decision, error) {
		if cmd.Line == line {
			return d, nil
		}
		return nil, nil
	}
}

func TestARestartIsADecisionAboutCommands(t *testing.T) {
	for _, line := range []string{
		"XCLIENT ADDR=192.0.2.7", "xclient", "HELO x", "EHLO x", "LHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>", "DATA", "RSET", "NOOP",
		"QUIT", "VRFY x", "X-ANYTHING y", "123",
	} {
		for what, d := range map[string]decision{"Reply": reply{Restart: &origin}, "*Reply": &reply{Restart: &origin}} {
			bubble(t, line+", "+what, func(t *testing.T) {
				s := new(restartStage)
				s.prepare = func() { s.w.command = restartsAt(line, d) }
				s.arrives(t, servesAll)
				s.k.play("> "+line+"|< 220|> EHLO again.example|< 250|> NOOP again|< 250", nil)
				if got := s.w.saw(t, "NOOP again").conn; got.RemoteIP != origin.RemoteIP {
					t.Errorf("the client is %+v", got)
				}
			})
		}
	}
}

// invalidRestarts are decisions that can't be.
var invalidRestarts = []struct {
	why  string
	d    decision
	only string // "" for both a command and Connect
}{
	{"a code", reply{Restart: &origin, Code: 220}, ""},
	{"an enhanced code", reply{Restart: &origin, Enhanced: enhanced{2, 0, 0}}, ""},
	{"no enhanced code, which is something too", reply{Restart: &origin, Enhanced: smtpproxy.NoEnhancedCode}, ""},
	{"a text", reply{Restart: &origin, Lines: []string{"hello"}}, ""},
	{"Disconnect", reply{Restart: &origin, Disconnect: true}, ""},
	{"Next", reply{Restart: &origin, Next: true}, ""},
	{"Delay", reply{Restart: &origin, Delay: time.Second}, ""},
	{"a pointer to one with a code", &reply{Restart: &origin, Code: 250}, ""},
	{"a line end in a name", reply{Restart: &smtpproxy.Origin{RemotePTR: "x\r\ny"}}, ""},
	{"NUL in who has greeted", reply{Restart: &smtpproxy.Origin{HELO: smtpproxy.HELO{Verb: "EHLO", Host: "x\x00"}}}, ""},
	{"a line end in a verb", reply{Restart: &smtpproxy.Origin{HELO: smtpproxy.HELO{Verb: "EHLO\n", Host: "x"}}}, ""},
	{"DEL in a user's name", reply{Restart: &smtpproxy.Origin{Auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: "\x7f"}}}, ""},
	{"a line end in a mechanism", reply{Restart: &smtpproxy.Origin{Auth: smtpproxy.Auth{Mechanism: "PLAIN\r", Username: "x"}}}, ""},
	{"a line end in the zone of the client's address", reply{Restart: &smtpproxy.Origin{RemoteIP: netip.MustParseAddr("fe80::1").WithZone("x\r\ny")}}, ""},
	{"a line end in the zone of the server's", reply{Restart: &smtpproxy.Origin{LocalIP: netip.MustParseAddr("fe80::1").WithZone("x\r\ny")}}, ""},
}

func TestARestartThatIsInvalidIsAFailure(t *testing.T) {
	for _, row := range invalidRestarts {
		bothWays(t, row.why, func(t *testing.T, s *restartStage) {
			s.prepare = func() {
				s.w.command = restartsAt("XCLIENT", row.d)
				if s.connects {
					s.w.connect = decidesConnect(row.d)
				}
			}
			s.failsWith(t, "", "XCLIENT", smtpproxy.ErrInvalidDecision)
		})
	}
}

// failsWith checks that the decision about a line is a failure, behind which nothing follows.
func (s *restartStage) failsWith(t *testing.T, before, line string, err error) {
	t.Helper()
	failures := make(chan smtpproxy.Failure, 10)
	s.p.OnFailure = func(_ *hookContext, f smtpproxy.Failure) decision { failures <- f; return nil }
	got := new(puppet)
	s.arrives(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		if strings.Contains(before, "334") {
			got.codes = map[string][]int{"AUTH": {334}}
		}
		got.serve(c)
	})
	if before != "" {
		s.k.play(before, nil)
	}
	got.took()
	if !s.connects {
		s.k.send(line + "\r\nNOOP\r\n")
	}
	s.k.play("< 421 4.3.0|END", nil)
	s.client.Close()
	s.ends("hook: hook failed", "ERROR hook failed")
	if n, lines := s.served.Load(), got.took(); n != 1 || len(lines) > 0 {
		t.Errorf("the server has had %d connections, and got %q", n, lines)
	}
	if f := <-failures; !errors.Is(f, err) {
		t.Errorf("the failure is %v", f)
	}
}

func TestARestartWhereMoreThanAReplyIsDueIsAFailure(t *testing.T) {
	for _, row := range []struct {
		why, before, line string
		asks              bool // for the line, at AUTH
		own               bool // answers AUTH
	}{
		{why: "a chunk follows", line: "BDAT 4 LAST"},
		{why: "a handshake follows", line: "STARTTLS"},
		{why: "some take it for STARTTLS", line: "STARTTLS now"},
		{why: "some take it for STARTTLS, too", line: "STARTTLSX"},
		{why: "a SASL exchange follows (RFC 4954)", line: "AUTH LOGIN"},
		{why: "it holds a password", line: "AUTH PLAIN AHgAeQ=="},
		{why: "some take it for AUTH", line: "AUTHX PLAIN"},
		{why: "it is a line of the server's SASL exchange", before: "> AUTH LOGIN|< 334", line: "dXNlcg==", asks: true},
		{why: "it is a line of a SASL exchange of the hook's own", before: "> AUTH LOGIN|< 334", line: "dXNlcg==", own: true},
		{why: "it cancels one", before: "> AUTH LOGIN|< 334", line: "*", asks: true},
	} {
		bubble(t, row.why, func(t *testing.T) {
			s := &restartStage{p: smtpproxy.Proxy{AllowInsecureAuth: true}}
			s.prepare = func() {
				at := restartsAt(row.line, reply{Restart: &origin})
				s.w.command = func(ctx *hookContext, cmd command) (decision, error) {
					switch {
					case cmd.Line == "AUTH LOGIN" && row.asks:
						return pass{Next: true}, nil
					case cmd.Line == "AUTH LOGIN" && row.own:
						return reply{Code: 334}, nil
					}
					return at(ctx, cmd)
				}
			}
			s.failsWith(t, row.before, row.line, smtpproxy.ErrInvalidDecision)
		})
	}
	for why, line := range map[string]string{
		"a request in HTTP is the end anyway":                "GET / HTTP/1.1",
		"behind a chunk of unknown size nothing can be read": "BDAT x",
	} {
		bubble(t, why, func(t *testing.T) {
			s := new(restartStage)
			s.prepare = func() { s.w.command = restartsAt(line, reply{Restart: &origin}) }
			s.arrives(t, servesAll)
			s.k.play("> "+line+"|< 421 4.3.0|END", nil)
			if n := s.served.Load(); n != 1 {
				t.Errorf("the server has had %d connections", n)
			}
		})
	}
}

func TestARestartBehindAReplyIsAFailureThatChangesNothing(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		s := new(restartStage)
		s.w = newWarden(origin)
		failed := 0
		s.hook = smtpproxy.Chain(s.w, amendsAt("NOOP", reply{Restart: &origin}))
		s.p.Observers = []smtpproxy.Observer{{Failed: func(_ *hookContext, f smtpproxy.Failure) {
			if failed++; !errors.Is(f, smtpproxy.ErrInvalidDecision) {
				t.Errorf("the failure is %v", f)
			}
		}}}
		s.arrives(t, servesAll)
		s.k.play("> NOOP|< 250 as told|> RSET|< 250|> QUIT|< 221|END", nil)
		if failed != 1 || s.served.Load() != 1 {
			t.Errorf("%d failures, %d connections", failed, s.served.Load())
		}
	})
}

func TestOnFailureMayLetTheServerStartAfresh(t *testing.T) {
	bothWays(t, "", func(t *testing.T, s *restartStage) {
		s.prepare = func() {
			s.w.command = func(_ *hookContext, cmd command) (decision, error) {
				if cmd.Verb() == "XCLIENT" {
					return nil, errTest
				}
				return nil, nil
			}
			if s.connects {
				s.w.connect = func(*hookContext, connection) (decision, error) { return nil, errTest }
			}
		}
		s.p.OnFailure = func(*hookContext, smtpproxy.Failure) decision { return reply{Restart: &origin} }
		s.arrives(t, servesAll)
		s.asks()
		s.k.play("< 220|> NOOP|< 250", nil)
		if got := s.w.saw(t, "NOOP").conn; got.RemoteIP != origin.RemoteIP || s.served.Load() != 2 {
			t.Errorf("the client is %+v, of %d connections", got, s.served.Load())
		}
	})
}

func TestAHookThatTakesTooLongLetsNoServerStartAfresh(t *testing.T) {
	for why, looks := range map[string]bool{"it looks at its Context": true, "it doesn't": false} {
		for _, at := range []string{"command", "Connect", "Connect, asked once more"} {
			bubble(t, why+", "+at, func(t *testing.T) {
				s := &restartStage{connects: at == "Connect", p: smtpproxy.Proxy{HookTimeout: time.Second}}
				wait := func(ctx *hookContext) {
					if looks {
						<-ctx.Done()
					}
					time.Sleep(time.Minute) // in a bubble
				}
				s.prepare = func() {
					s.w.givenUp = true
					decides := s.w.command
					s.w.command = func(ctx *hookContext, cmd command) (decision, error) {
						if cmd.Verb() == "XCLIENT" && at == "command" {
							wait(ctx)
						}
						return decides(ctx, cmd)
					}
					s.w.connect = func(ctx *hookContext, conn connection) (decision, error) {
						if s.connects || conn.RemoteIP == origin.RemoteIP {
							wait(ctx)
							return reply{Restart: &origin}, nil
						}
						return nil, nil
					}
				}
				began := time.Now()
				s.failsWith(t, "", "XCLIENT", smtpproxy.ErrHookTimeout)
				if took := time.Since(began); took != time.Second {
					t.Errorf("it took %v", took)
				}
				time.Sleep(time.Hour) // in a bubble: the hook returns
				if n := s.served.Load(); n != 1 {
					t.Errorf("the server has had %d connections", n)
				}
			})
		}
	}
}

func TestADelayBesideARestartHoldsTheGreetingBack(t *testing.T) {
	letsInLate := func(conn connection, d decision) (decision, error) {
		if conn.RemoteIP == origin.RemoteIP {
			return d, nil
		}
		return nil, nil
	}
	again := func(d decision) smtpproxy.Hook {
		return smtpproxy.Funcs{OnConnect: func(_ *hookContext, conn connection) (decision, error) { return letsInLate(conn, d) }}
	}
	for _, row := range []struct {
		why         string
		before, end smtpproxy.Hook // of the chain
		want        time.Duration
		reply       string
		connects    bool
	}{
		{"of a hook before", wants("XCLIENT", pass{Delay: three}), nil, three, "220", false},
		{"the longest of two", wants("XCLIENT", pass{Delay: three}, pass{Delay: 1}), nil, three, "220", false},
		{"of who is asked about the new client", again(pass{Delay: three}), nil, three, "220", false},
		{"of who refuses it", again(reply{Code: 554, Delay: three}), nil, three, "554", false},
		{"the longest of both", smtpproxy.Chain(wants("XCLIENT", pass{Delay: 2 * time.Second}), again(pass{Delay: three})), nil, three, "220", false},
		{"the longest of both, the other way", smtpproxy.Chain(wants("XCLIENT", pass{Delay: three}), again(pass{Delay: 2 * time.Second})), nil, three, "220", false},
		{"of who sees the greeting as a reply", nil, amendsAt("XCLIENT", pass{Delay: three}), three, "220", false},
		{"at Connect, of a hook before", letsIn(pass{Delay: three}, nil), nil, three, "220", true},
		{"at Connect, of a hook that isn't asked any more", nil, letsIn(pass{Delay: three}, nil), 0, "220", true},
		{"at Connect, of who sees the greeting", nil, amendsAt("", pass{Delay: three}), three, "220", true},
		{"none", nil, nil, 0, "220", false},
		{"none, at Connect", nil, nil, 0, "220", true},
	} {
		for _, sends := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%s, the client sends on %v", row.why, sends), func(t *testing.T) {
				w := newWarden(origin)
				s := &restartStage{connects: row.connects, w: w, hook: smtpproxy.Chain(row.before, w, row.end)}
				s.arrives(t, servesAll)
				began := time.Now()
				s.asks()
				if sends && row.want > 0 {
					synctest.Wait()
					s.k.play("> EHLO client.example", nil)
				}
				s.k.expect(row.reply)
				if took := time.Since(began); took != row.want {
					t.Errorf("it comes after %v, want %v", took, row.want)
				}
				if row.reply != "220" {
					s.k.play("END", nil)
					return
				}
				if !sends || row.want == 0 {
					s.k.play("> EHLO client.example", nil)
				}
				s.k.play("< 250|> NOOP|< 250", nil)
				if got := w.saw(t, "NOOP").conn; got.EarlyTalker != (sends && row.connects && row.before != nil) || got.RemoteIP != origin.RemoteIP {
					t.Errorf("the client is %+v", got)
				}
			})
		}
	}
}
