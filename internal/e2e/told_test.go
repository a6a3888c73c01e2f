package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about when a hook is told of the end, and that this holds up nobody.

// acceptedOver returns a connection of a listener with p, and its client's end.
func acceptedOver(t *testing.T, tr transport, p *smtpproxy.Proxy) (server, client net.Conn, l net.Listener) {
	t.Helper()
	l = p.Listener(tr)
	t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		conns <- c
	}()
	client, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server = <-conns
	t.Cleanup(func() { server.Close() })
	return server, client, l
}

func TestNobodyIsToldOfAConnectionThatTheServerHasNotUsed(t *testing.T) {
	for why, use := range map[string]func(c net.Conn){
		"closed at once":         func(net.Conn) {},
		"asked for its address":  func(c net.Conn) { c.RemoteAddr(); smtpproxy.SessionOf(c) },
		"given a deadline":       func(c net.Conn) { c.SetDeadline(time.Now().Add(time.Hour)) },
		"read with no room":      func(c net.Conn) { c.Read(nil) },
		"used behind its close":  func(c net.Conn) { c.Close(); c.Read(make([]byte, 1)); io.WriteString(c, "220 x\r\n") },
		"its session was closed": func(c net.Conn) { s, _ := smtpproxy.SessionOf(c); s.Close() },
	} {
		bubble(t, why, func(t *testing.T) {
			w := newLifeHook()
			c, _, _ := acceptedOver(t, overPipe(t), &smtpproxy.Proxy{Hook: w})
			use(c)
			c.Close()
			synctest.Wait()
			w.wantCalls(t, "")
		})
	}
}

func TestASessionOfOnesOwnTellsWithCloseIfItWasUsed(t *testing.T) {
	for _, row := range []struct {
		why  string
		use  func(s *smtpproxy.Session)
		want string
	}{
		{"not used", func(*smtpproxy.Session) {}, ""},
		{"asked", func(s *smtpproxy.Session) { s.Connection(); s.Transaction() }, ""},
		{"Connect", func(s *smtpproxy.Session) { s.Connect(s.Context()) }, "connect disconnect"},
		{"Command", func(s *smtpproxy.Session) { s.Command(s.Context(), "NOOP") }, "NOOP disconnect"},
		{"closed twice", func(s *smtpproxy.Session) { s.Command(s.Context(), "NOOP"); s.Close() }, "NOOP disconnect"},
		{"closed before", func(s *smtpproxy.Session) { s.Close(); s.Connect(s.Context()); s.Command(s.Context(), "NOOP") }, ""},
	} {
		bubble(t, row.why, func(t *testing.T) {
			w := newLifeHook()
			s := (&smtpproxy.Proxy{Hook: w}).NewSession(connection{})
			row.use(s)
			s.Close()
			synctest.Wait()
			w.wantCalls(t, row.want)
		})
	}
}

func TestASessionThatHasEndedLetsNoClientIn(t *testing.T) {
	for why, p := range map[string]*smtpproxy.Proxy{"without a hook": {}, "with one": {Hook: newLifeHook()}} {
		s := p.NewSession(connection{})
		s.Close()
		if r, ok := s.Connect(t.Context()).(reply); !ok || r.Code != 421 || !r.Disconnect {
			t.Errorf("%s: got %v", why, r)
		}
	}
	// It may also end while the hook decides.
	var s *smtpproxy.Session
	h := connecting(func(*hookContext, connection) (decision, error) { s.Close(); return nil, nil })
	s = (&smtpproxy.Proxy{Hook: h}).NewSession(connection{})
	if r, ok := s.Connect(t.Context()).(reply); !ok || r.Code != 421 {
		t.Errorf("while it decides: got %v", r)
	}
	inTime(t, "Disconnect", h.ended)
	h.wantCalls(t, "connect disconnect")
}

// puppetDoors are the ways to a server through the library, a hook being told of the end.
var puppetDoors = map[string]func(t *testing.T, p *smtpproxy.Proxy) (say func(line string) (code int), leave func()){
	"listener": func(t *testing.T, p *smtpproxy.Proxy) (func(string) int, func()) {
		d := behindListenerDoor(t, p, new(puppet)).(*listenerDoor)
		return func(line string) int { return d.say(line)[0] }, func() { d.c.Close() }
	},
	"session of one's own": func(t *testing.T, p *smtpproxy.Proxy) (func(string) int, func()) {
		s := p.NewSession(connection{})
		s.Connect(t.Context())
		s.Replied(220, "puppet")
		d := &sessionDoor{t, new(puppet), s}
		return func(line string) int { return d.say(line)[0] }, s.Close
	},
	"fake session": func(_ *testing.T, p *smtpproxy.Proxy) (func(string) int, func()) {
		s := proxytest.NewSession(p)
		s.Connect()
		return func(line string) int {
			if line == "." {
				s.SendContent()
			} else {
				s.Send(line)
			}
			return s.Reply().Code
		}, s.Close
	},
}

func TestAnEndIsToldAlikeThroughAllDoors(t *testing.T) {
	mail := []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>", "RCPT TO:<c@c>", "DATA", "."}
	for _, row := range []struct {
		why   string
		hook  func(w *lifeHook)
		proxy smtpproxy.Proxy
		lines []string
		want  string
	}{
		{"QUIT", nil, smtpproxy.Proxy{}, append(mail, "QUIT"), "client: quit, QUIT 221 closed, 6 commands, 1 messages, 2 recipients"},
		{"the hook's 421", answersVerb("NOOP", reply{Code: 421}, nil), smtpproxy.Proxy{}, append(mail, "NOOP"), "hook: refused, NOOP 421 closed, 5 commands, 1 messages, 2 recipients"},
		{"the hook's 554, multi-line", answersVerb("NOOP", reply{Code: 554, Enhanced: enhanced{5, 7, 1}, Lines: []string{"go", "away"}, Disconnect: true}, nil), smtpproxy.Proxy{},
			[]string{"NOOP"}, "hook: refused, NOOP 554 closed, 0 commands, 0 messages, 0 recipients"},
		{"a hook that has failed", answersVerb("NOOP", nil, errTest), smtpproxy.Proxy{}, []string{"NOOP"}, "hook: hook failed, NOOP 421 closed, 0 commands, 0 messages, 0 recipients"},
		{"too many commands", nil, smtpproxy.Proxy{MaxCommands: 1}, []string{"NOOP", "NOOP"}, "library: too many, NOOP 421 closed, 1 commands, 0 messages, 0 recipients"},
		{"HTTP", nil, smtpproxy.Proxy{}, []string{"GET / HTTP/1.1"}, "library: refused, GET 502 closed, 0 commands, 0 messages, 0 recipients"},
		{"LMTP in a chunk", nil, smtpproxy.Proxy{}, []string{"LHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>", "RCPT TO:<c@c>", "BDAT 3 LAST", "QUIT"},
			"client: quit, QUIT 221 closed, 6 commands, 1 messages, 2 recipients"},
	} {
		for door, open := range puppetDoors {
			t.Run(row.why+", "+door, func(t *testing.T) {
				w := newLifeHook()
				if row.hook != nil {
					row.hook(w)
				}
				p := row.proxy
				p.Hook = w
				say, leave := open(t, &p)
				for _, line := range row.lines {
					say(line)
				}
				leave()
				told := inTime(t, "Disconnect", w.ended)
				if got := short(told.end); got != row.want {
					t.Errorf("told: %s\nwant: %s", got, row.want)
				}
				if r := told.end.Reply; r.Enhanced != smtpproxy.NoEnhancedCode || row.why == "the hook's 554, multi-line" && r.String() != "554-5.7.1 go\r\n554 5.7.1 away" {
					t.Errorf("the last reply is told as %+v", r)
				}
				if told.err != nil || told.kept < 2 {
					t.Errorf("of %d calls in the connection's state; the Context is done: %v", told.kept, told.err)
				}
			})
		}
	}
}

func TestTheEndIsToldWhenTheLastCallHasReturned(t *testing.T) {
	for _, at := range []string{"connect", "NOOP", "keywords"} {
		bubble(t, at, func(t *testing.T) {
			w := newLifeHook()
			release := make(chan struct{})
			waits := func(what string) {
				if what == at {
					<-release // whatever its Context says
				}
			}
			w.connect = func(*hookContext, connection) (decision, error) { waits("connect"); return nil, nil }
			w.command = func(_ *hookContext, cmd command) (decision, error) { waits(cmd.Verb()); return nil, nil }
			w.keywords = func(*smtpproxy.Keywords) error { waits("keywords"); return nil }
			c, client, _ := acceptedOver(t, overPipe(t), &smtpproxy.Proxy{Hook: w})
			go new(puppet).serve(c)
			go io.Copy(io.Discard, client)
			go io.WriteString(client, "EHLO x\r\nNOOP\r\n")
			synctest.Wait() // until the hook has been called
			if d := took(func() { c.Close() }); d != 0 {
				t.Errorf("Close took %v", d)
			}
			synctest.Wait()
			if calls := w.called(t); calls[len(calls)-1] != at {
				t.Errorf("while it runs, the hook was called: %q", calls)
			}
			close(release)
			synctest.Wait()
			if calls := w.called(t); calls[len(calls)-1] != "disconnect" || calls[len(calls)-2] != at {
				t.Errorf("called: %q", calls)
			}
			client.Close()
		})
	}
}

func TestTheEndIsToldWhenTheLastCallHasBeenGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLifeHook()
		w.givenUp = true
		release := make(chan struct{})
		w.command = func(*hookContext, command) (decision, error) { <-release; return nil, nil }
		c, client, _ := acceptedOver(t, overPipe(t), &smtpproxy.Proxy{Hook: w, HookTimeout: time.Minute})
		go func() { new(puppet).serve(c); c.Close() }()
		k := newCaller(t, client)
		start := time.Now()
		k.play("< 220|> NOOP|< 421|END", nil)
		told := <-w.ended
		if d := time.Since(start); d != time.Minute {
			t.Errorf("it was told after %v", d)
		}
		if told.end.Reason != smtpproxy.ReasonHookFailed || told.err != nil {
			t.Errorf("told: %s, its Context is done: %v", short(told.end), told.err)
		}
		close(release)
	})
}

func TestAHookThatTakesItsTimeWithTheEndHoldsUpNobody(t *testing.T) {
	for door, open := range puppetDoors {
		if door == "fake session" {
			continue // its Close waits, so that a test can look
		}
		bubble(t, door, func(t *testing.T) {
			w := newLifeHook()
			release := make(chan struct{})
			w.gone = func(ctx *hookContext) {
				<-release
				if ctx.Err() != nil {
					t.Error("its Context is done")
				}
			}
			p := &smtpproxy.Proxy{Hook: w}
			if door == "listener" {
				c, client, _ := acceptedOver(t, overPipe(t), p)
				go new(puppet).serve(c)
				newCaller(t, client).play("< 220|> QUIT|< 221|FIN", nil)
				if d := took(func() { c.Close() }); d != 0 {
					t.Errorf("Close took %v", d)
				}
			} else {
				say, leave := open(t, p)
				say("QUIT")
				if d := took(leave); d != 0 {
					t.Errorf("Close took %v", d)
				}
			}
			<-w.ended
			time.Sleep(time.Hour) // in a bubble
			close(release)
		})
	}
}

// exitingHook is told of the end, and doesn't return.
type exitingHook struct {
	smtpproxy.Funcs
	exit func()
	told chan<- string
}

func (h exitingHook) Disconnect(*hookContext, connection, end) {
	h.told <- "the one that doesn't return"
	h.exit()
}

func TestAHookThatDoesNotReturnFromDisconnectKeepsNobodyFromBeingTold(t *testing.T) {
	for name, exit := range exits {
		t.Run(name, func(t *testing.T) {
			log, told := new(logbook), make(chan string, 10)
			first, last := newLifeHook(), newLifeHook()
			p := &smtpproxy.Proxy{Logger: log.logger(), Hook: smtpproxy.Chain(
				first, smtpproxy.Named("broken", exitingHook{exit: exit, told: told}), smtpproxy.Named("also broken", exitingHook{exit: exit, told: told}), last)}
			s := p.NewSession(connection{})
			s.Connect(t.Context())
			s.Close()
			inTime(t, "the first", first.ended)
			inTime(t, "the second", told)
			inTime(t, "the third", told)
			inTime(t, "the last", last.ended)
			want := 0
			if strings.HasPrefix(name, "panics") {
				want = 2
			}
			if lines := log.lines("Disconnect panicked"); len(lines) != want || want > 0 && (lines[0].attrs["hook"] != "broken" || lines[0].attrs["stack"] == "") {
				t.Errorf("logged: %v", lines)
			}
		})
	}
}

func TestAHandoverThatNobodyAcceptsIsAnEnd(t *testing.T) {
	for _, row := range []struct {
		why    string
		closes bool // the listener is
		after  time.Duration
	}{
		{"the server accepts no more", false, 10 * time.Second},
		{"the listener is closed", true, 0},
	} {
		bubble(t, row.why, func(t *testing.T) {
			w := newLifeHook()
			c, client, l := acceptedOver(t, overCable(), &smtpproxy.Proxy{Hook: w, TLSConfig: serverTLS()})
			served := make(chan struct{})
			go func() {
				defer close(served)
				new(puppet).serve(c)
				c.Close()
			}()
			k := newCaller(t, client)
			k.play("< 220|> STARTTLS|< 220|TLS", nil)
			<-served
			start := time.Now()
			if row.closes {
				l.Close()
			}
			k.play("< 421 4.3.2|END", nil)
			told := <-w.ended
			if d := time.Since(start); d != row.after {
				t.Errorf("told after %v", d)
			}
			const want = "server: server closed, STARTTLS 421 closed, 1 commands, 0 messages, 0 recipients"
			if got := short(told.end); got != want || told.end.Sent != k.got || told.end.Received != k.sent {
				t.Errorf("told: %s, %d octets received, %d sent\nwant: %s, %d, %d", got, told.end.Received, told.end.Sent, want, k.sent, k.got)
			}
			if told.conn.TLS.Protocol == "" {
				t.Error("TLS isn't told of")
			}
			w.wantCalls(t, "connect STARTTLS disconnect")
		})
	}
}

// A callback of the TLS configuration may end the goroutine amid the handshake.
func TestAHandshakeThatDoesNotReturnIsAnEnd(t *testing.T) {
	cfg := serverTLS().Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { runtime.Goexit(); return nil, nil }
	for _, implicit := range []bool{true, false} {
		w := newLifeHook()
		c, client, _ := acceptedOver(t, overTCP(t), &smtpproxy.Proxy{Hook: w, TLSConfig: cfg, ImplicitTLS: implicit})
		go func() {
			defer c.Close()
			new(puppet).serve(c)
		}()
		k := newCaller(t, client)
		if !implicit {
			k.play("< 220|> STARTTLS|< 220", nil)
		}
		tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake()
		if told := inTime(t, "Disconnect", w.ended); implicit && told.end.Reason != smtpproxy.ReasonTLSFailed {
			t.Errorf("told: %s", short(told.end))
		}
	}
}
