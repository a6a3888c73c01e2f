package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about clients that a hook lets wait.

// timeline is what happens in a bubble, and when.
type timeline struct {
	mu      sync.Mutex
	start   time.Time
	entries []string
}

func (l *timeline) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, fmt.Sprint(time.Since(l.start).Round(time.Millisecond), " ", what))
}

func (l *timeline) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.entries, ", ")
}

// first returns the first entry about something.
func (l *timeline) first(what string) (entry string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if strings.Contains(e, what) {
			return e, true
		}
	}
	return "", false
}

// follow notes the replies that a client gets, by their codes, until it gets no more.
func (l *timeline) follow(r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if len(line) > 3 && line[3] == ' ' {
			l.note("<" + line[:3])
		}
	}
}

// timedConn notes what the server reads.
type timedConn struct {
	net.Conn
	l *timeline
}

func (c timedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for line := range strings.Lines(string(p[:n])) {
		c.l.note(">" + strings.TrimRight(line, "\r\n"))
	}
	return n, err
}

// awaited is a connection on which a client waits, in a bubble.
type awaited struct {
	*timeline
	server net.Conn
	client *cableEnd
	closed chan struct{} // by the server
}

// await begins one.
func await(t *testing.T, p *smtpproxy.Proxy, raw func(net.Conn) net.Conn) *awaited {
	t.Helper()
	var client *cableEnd
	tr := newTransport(true, func() (net.Conn, net.Conn, error) {
		server, c := connectByCable()
		client = c
		if raw != nil {
			return raw(server), c, nil
		}
		return server, c, nil
	})
	server, _, _ := acceptedOver(t, tr, p)
	a := &awaited{&timeline{start: time.Now()}, server, client, make(chan struct{})}
	go func() {
		defer close(a.closed)
		new(puppet).serve(timedConn{server, a.timeline})
		server.Close()
	}()
	t.Cleanup(func() {
		client.Close()
		server.Close()
		<-a.closed
	})
	go a.follow(bufio.NewReader(client))
	return a
}

// wants makes a hook of decisions about a verb, one for each of a chain.
func wants(verb string, ds ...decision) smtpproxy.Hook {
	var hooks []smtpproxy.Hook
	for _, d := range ds {
		hooks = append(hooks, decide(func(cmd command) (decision, error) {
			if cmd.Verb() != verb {
				return nil, nil
			}
			if err, ok := d.(failingDecision); ok {
				return nil, err.error
			}
			return d, nil
		}))
	}
	return smtpproxy.Chain(hooks...)
}

// failingDecision is none: the hook fails.
type failingDecision struct {
	reply
	error
}

// amendsAt makes a hook that decides so about each reply to a verb.
func amendsAt(verb string, d decision) smtpproxy.Hook {
	return smtpproxy.Funcs{OnReply: func(_ *hookContext, x smtpproxy.Exchange) (decision, error) {
		if x.Command.Verb() == verb {
			return d, nil
		}
		return nil, nil
	}}
}

// letsIn makes a hook that decides so about each client.
func letsIn(d decision, err error) smtpproxy.Hook {
	return smtpproxy.Funcs{OnConnect: func(*hookContext, connection) (decision, error) { return d, err }}
}

const three = 3 * time.Second

// delayRow is a wait.
type delayRow struct {
	why  string
	hook smtpproxy.Hook
	say  string
	want string        // see timeline
	told time.Duration // of what is decided about the line and of the reply together, where the library doesn't wait
}

var delayRows = []delayRow{
	{"Pass holds the line back", wants("NOOP", pass{Delay: three}), "NOOP", "0s <220, 3s >NOOP, 3s <250", three},
	{"a pointer does", wants("NOOP", &pass{Delay: three}), "NOOP", "0s <220, 3s >NOOP, 3s <250", three},
	{"Pass of another command", wants("NOOP", pass{Command: "HELP", Delay: three}), "NOOP", "0s <220, 3s >HELP, 3s <250", three},
	{"Reply is held back itself", wants("NOOP", reply{Code: 214, Delay: three}), "NOOP", "0s <220, 3s <214", three},
	{"nothing is held back for none", wants("NOOP", pass{}), "NOOP", "0s <220, 0s >NOOP, 0s <250", 0},
	{"negative is none", wants("NOOP", pass{Delay: -three}), "NOOP", "0s <220, 0s >NOOP, 0s <250", 0},
	{"negative is none of a Reply", wants("NOOP", reply{Code: 214, Delay: -three}), "NOOP", "0s <220, 0s <214", 0},
	{"the longest of a chain counts", wants("NOOP", pass{Delay: 1}, pass{Delay: three}, pass{Delay: 2}), "NOOP", "0s <220, 3s >NOOP, 3s <250", three},
	{"the longest counts, be it that of a Pass before a Reply", wants("NOOP", pass{Delay: three}, reply{Code: 214, Delay: 1}), "NOOP", "0s <220, 3s <214", three},
	{"the longest counts, be it that of the Reply", wants("NOOP", pass{Delay: 1}, reply{Code: 214, Delay: three}), "NOOP", "0s <220, 3s <214", three},
	{"OnFailure's Reply is held back", wants("NOOP", failingDecision{error: errTest}), "NOOP", "0s <220, 3s <451", three},
	{"what the library refuses behind the hook is held back, as the line is", wants("RCPT", pass{Delay: three}), "RCPT TO:<b@b>", "0s <220, 3s <503", three},
	{"a last word is held back", wants("NOOP", reply{Code: 554, Disconnect: true, Delay: three}), "NOOP", "0s <220, 3s <554", three},
	{"the server's reply", amendsAt("NOOP", pass{Delay: three}), "NOOP", "0s <220, 0s >NOOP, 3s <250", three},
	{"the server's reply, by a Reply", amendsAt("NOOP", reply{Delay: three}), "NOOP", "0s <220, 0s >NOOP, 3s <250", three},
	{"a hook's reply", smtpproxy.Chain(wants("NOOP", reply{Code: 214}), amendsAt("NOOP", pass{Delay: three})), "NOOP", "0s <220, 3s <214", three},
	{"the library's refusal", amendsAt("DATA", pass{Delay: three}), "DATA", "0s <220, 3s <503", three},
	{"the library's last word", amendsAt("GET", pass{Delay: three}), "GET / HTTP/1.1", "0s <220, 3s <502", three},
	{"the longest of those who see a reply", smtpproxy.Chain(amendsAt("NOOP", pass{Delay: 1}), amendsAt("NOOP", pass{Delay: three}), amendsAt("NOOP", pass{Delay: 2})), "NOOP", "0s <220, 0s >NOOP, 3s <250", three},
	{"negative is none of those who see a reply", amendsAt("NOOP", pass{Delay: -three}), "NOOP", "0s <220, 0s >NOOP, 0s <250", 0},
}

// onFailure is what rows have for a hook that fails.
func onFailure(*hookContext, smtpproxy.Failure) decision { return reply{Code: 451, Delay: three} }

func TestADelayHoldsBackWhatIsDecided(t *testing.T) {
	for _, row := range delayRows {
		for name, raw := range map[string]func(net.Conn) net.Conn{"cable": nil, "no deadlines": takesNoDeadlines} {
			bubble(t, row.why+", "+name, func(t *testing.T) {
				a := await(t, &smtpproxy.Proxy{Hook: row.hook, OnFailure: onFailure}, raw)
				synctest.Wait()
				go io.WriteString(a.client, row.say+"\r\n")
				time.Sleep(three + 1) // in a bubble
				synctest.Wait()
				if got := a.String(); got != row.want {
					t.Errorf("got  %s\nwant %s", got, row.want)
				}
			})
		}
	}
}

// A server of one's own waits by itself, and a test of a hook doesn't at all.
func TestADelayIsToldWhereTheLibraryDoesNotWait(t *testing.T) {
	delayOf := func(d decision) time.Duration {
		if d, ok := d.(pass); ok {
			return d.Delay
		}
		return d.(reply).Delay
	}
	for _, row := range delayRows {
		bubble(t, row.why, func(t *testing.T) {
			start := time.Now()
			p := &smtpproxy.Proxy{Hook: row.hook, OnFailure: onFailure}
			s := p.NewSession(connection{})
			defer s.Close()
			s.Replied(220, "x")
			d := s.Command(t.Context(), row.say)
			told := delayOf(d)
			if _, passed := d.(pass); passed {
				told += s.Replied(250, "x").Delay
			}
			if told != row.told {
				t.Errorf("a server is told %v, want %v", told, row.told)
			}
			fake := proxytest.NewSession(p)
			defer fake.Close()
			d = fake.Send(row.say)
			told = delayOf(d)
			if _, passed := d.(pass); passed {
				told += fake.Reply().Delay
			}
			if told != row.told {
				t.Errorf("a test is told %v, want %v", told, row.told)
			}
			if d := time.Since(start); d > 0 {
				t.Errorf("that took %v", d)
			}
		})
	}
}

func TestADelayOfConnectHoldsTheFirstReplyBack(t *testing.T) {
	for _, row := range []struct {
		why  string
		hook smtpproxy.Hook
		want string
		told time.Duration
	}{
		{"the greeting", letsIn(pass{Delay: three}, nil), "3s <220", three},
		{"a refusal", letsIn(reply{Code: 554, Delay: three}, nil), "3s <554", three},
		{"the longest of a chain", smtpproxy.Chain(letsIn(pass{Delay: three}, nil), letsIn(pass{Delay: 1}, nil)), "3s <220", three},
		{"the longest before a refusal", smtpproxy.Chain(letsIn(pass{Delay: three}, nil), letsIn(reply{Code: 554}, nil)), "3s <554", three},
		{"OnFailure's Reply", letsIn(nil, errTest), "3s <451", three},
		{"negative is none", letsIn(pass{Delay: -three}, nil), "0s <220", 0},
		{"the greeting, by who sees replies", amendsAt("", pass{Delay: three}), "3s <220", 0},
		{"a refusal, by who sees replies", smtpproxy.Chain(letsIn(reply{Code: 554}, nil), amendsAt("", pass{Delay: three})), "3s <554", three},
	} {
		for name, raw := range map[string]func(net.Conn) net.Conn{"cable": nil, "no deadlines": takesNoDeadlines} {
			for _, early := range []bool{false, true} {
				bubble(t, fmt.Sprintf("%s, %s, early %v", row.why, name, early), func(t *testing.T) {
					a := await(t, &smtpproxy.Proxy{Hook: row.hook, OnFailure: onFailure}, raw)
					if early { // and is not gone: it wants an answer
						go func() { io.WriteString(a.client, "EHLO x\r\n"); a.client.CloseWrite() }()
					}
					time.Sleep(three + 1) // in a bubble
					synctest.Wait()
					got := a.String()
					if early { // what comes behind is nothing to this test, and may be noted before
						got, _ = a.first("<")
					}
					if got != row.want {
						t.Errorf("got  %s\nwant %s", got, row.want)
					}
				})
			}
		}
		t.Run(row.why+", told", func(t *testing.T) {
			s := (&smtpproxy.Proxy{Hook: row.hook, OnFailure: onFailure}).NewSession(connection{})
			defer s.Close()
			told := time.Duration(0)
			switch d := s.Connect(t.Context()).(type) {
			case pass:
				told = d.Delay
			case reply:
				told = d.Delay
			}
			if told != row.told {
				t.Errorf("a server is told %v, want %v", told, row.told)
			}
		})
	}
}

func TestWhoTalksWhileTheGreetingIsHeldBackTalksEarly(t *testing.T) {
	serverTLS() // outside of a bubble's time
	for _, tls := range []bool{false, true} {
		for _, talks := range []time.Duration{time.Second, 4 * time.Second} {
			for _, readsFirst := range []bool{false, true} {
				bubble(t, fmt.Sprintf("TLS %v, at %v, the server reads first %v", tls, talks, readsFirst), func(t *testing.T) {
					p := &smtpproxy.Proxy{Hook: letsIn(pass{Delay: three}, nil)}
					if tls {
						p.TLSConfig, p.ImplicitTLS = serverTLS(), true
					}
					c, raw, _ := acceptedOver(t, overCable(), p)
					lines := make(chan string, 1)
					reads := func() {
						line := make([]byte, 100)
						n, _ := c.Read(line)
						lines <- string(line[:n])
					}
					if readsFirst {
						go reads()
						time.AfterFunc(three+three/6, func() { io.WriteString(c, "220 x\r\n") })
					} else {
						go func() { io.WriteString(c, "220 x\r\n"); reads() }()
					}
					client := net.Conn(raw)
					if tls {
						client = tlsClient(raw)
					}
					talk := time.AfterFunc(talks, func() { io.WriteString(client, "EHLO x\r\n") })
					defer talk.Stop()
					newCaller(t, client).play("< 220", nil)
					if got := <-lines; got != "EHLO x\r\n" {
						t.Errorf("the server got %q", got)
					}
					s, _ := smtpproxy.SessionOf(c)
					if early := s.Connection().EarlyTalker; early != (talks < three) {
						t.Errorf("it is told as %v", early)
					}
					c.Close()
				})
			}
		}
	}
}

func TestRepliesToEarlierCommandsLeaveBeforeAWait(t *testing.T) {
	for _, row := range []struct {
		why  string
		hook smtpproxy.Hook
		want string
	}{
		{"of a line", wants("NOOP", pass{Delay: three}), "0s <220, 0s >RSET, 0s <250, 3s >NOOP, 3s <250"},
		{"of a hook's reply", wants("NOOP", reply{Code: 214, Delay: three}), "0s <220, 0s >RSET, 0s <250, 3s <214"},
		{"of a server's reply", amendsAt("NOOP", pass{Delay: three}), "0s <220, 0s >RSET, 0s >NOOP, 0s <250, 3s <250"},
	} {
		bubble(t, row.why, func(t *testing.T) {
			a := await(t, &smtpproxy.Proxy{Hook: row.hook}, nil)
			synctest.Wait()
			go io.WriteString(a.client, "RSET\r\nNOOP\r\n")
			time.Sleep(three + 1) // in a bubble
			synctest.Wait()
			if got := a.String(); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}
