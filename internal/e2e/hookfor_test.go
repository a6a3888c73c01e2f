package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about choosing a hook for each connection.

func TestHookForIsAskedOnceBeforeAnyMethodOfTheHook(t *testing.T) {
	for _, door := range tlsDoors {
		t.Run(door, func(t *testing.T) {
			h := newLifeHook()
			var seen []connection
			k := openDoor(t, door, overTCP(t), serverTLS().Clone(), smtpproxy.Proxy{HookFor: func(conn connection) smtpproxy.Hook {
				if calls := h.called(t); len(calls) > 0 {
					t.Errorf("before it was called: %q", calls)
				}
				seen = append(seen, conn)
				return h
			}}, new(tlsBackend))(t)
			if _, err := k.greetInTLS(door, &tls.Config{InsecureSkipVerify: true, ServerName: "sni.example"}); err != nil {
				t.Fatal(err)
			}
			k.want("QUIT", "221")
			k.wantEnd()
			told := inTime(t, "Disconnect", h.ended)
			if len(seen) != 1 {
				t.Fatalf("it was asked %d times", len(seen))
			}
			want := "sni.example"
			if door == "STARTTLS" {
				want = "" // which comes later
			}
			if conn := seen[0]; conn.TLS.SNI != want || conn.ID != told.conn.ID || conn.RemotePort == 0 || conn.RemoteIP != told.conn.RemoteIP {
				t.Errorf("it was told of %+v", conn)
			}
			if calls := h.called(t); calls[0] != "connect" || calls[len(calls)-1] != "disconnect" {
				t.Errorf("called: %q", calls)
			}
		})
	}
}

func TestHookForIsAskedOnceHoweverOftenTheServerTries(t *testing.T) {
	for why, fails := range map[string]func() smtpproxy.Hook{
		"it chooses":          func() smtpproxy.Hook { return newLifeHook() },
		"it panics":           func() smtpproxy.Hook { panic("no") },
		"it ends a goroutine": func() smtpproxy.Hook { runtime.Goexit(); return nil },
	} {
		var asked atomic.Int32
		p := &smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true, HookFor: func(connection) smtpproxy.Hook {
			asked.Add(1)
			return fails()
		}}
		c, client, _ := acceptedOver(t, overTCP(t), p)
		io.WriteString(client, "EHLO in plaintext\r\n")
		for range 3 {
			tried := make(chan struct{})
			go func() { // which may be ended
				defer close(tried)
				if _, err := c.Read(make([]byte, 100)); err == nil {
					t.Errorf("%s: Read succeeds", why)
				}
			}()
			<-tried
			io.WriteString(c, "220 x\r\n")
		}
		s := p.NewSession(connection{})
		for range 2 {
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.Connect(t.Context())
				s.Command(t.Context(), "NOOP")
			}()
			<-done
		}
		s.Close()
		if n := asked.Load(); n != 2 {
			t.Errorf("%s: it was asked %d times about two connections", why, n)
		}
	}
}

// goroutine returns the number of the goroutine that calls it.
func goroutine() string {
	buf := make([]byte, 64)
	return strings.Fields(string(buf[:runtime.Stack(buf, false)]))[1]
}

func TestHookForIsAskedOnTheGoroutineThatFirstUsesTheConnection(t *testing.T) {
	for why, use := range map[string]func(c net.Conn){
		"Read":  func(c net.Conn) { c.Read(make([]byte, 100)) },
		"Write": func(c net.Conn) { io.WriteString(c, "220 x\r\n") },
	} {
		asked := make(chan string, 10)
		c, client, _ := acceptedOver(t, overTCP(t), &smtpproxy.Proxy{HookFor: func(connection) smtpproxy.Hook {
			asked <- goroutine()
			return nil
		}})
		c.RemoteAddr()
		if len(asked) > 0 {
			t.Errorf("%s: it is asked before", why)
		}
		client.Close()
		own := make(chan string)
		go func() {
			use(c)
			own <- goroutine()
		}()
		if want := <-own; len(asked) != 1 || <-asked != want {
			t.Errorf("%s: it was asked elsewhere, or not once", why)
		}
	}
}

func TestHookForThatReturnsNilLeavesTheHook(t *testing.T) {
	for door, open := range puppetDoors {
		t.Run(door, func(t *testing.T) {
			h, other := newLifeHook(), newLifeHook()
			asked := 0
			p := &smtpproxy.Proxy{Hook: h, HookFor: func(connection) smtpproxy.Hook {
				asked++
				if asked == 1 {
					return nil
				}
				return other
			}}
			say, leave := open(t, p)
			say("NOOP")
			leave()
			inTime(t, "Disconnect", h.ended)
			h.wantCalls(t, "connect NOOP disconnect")
			say, leave = open(t, p)
			say("NOOP")
			leave()
			inTime(t, "Disconnect", other.ended)
			other.wantCalls(t, "connect NOOP disconnect")
			h.wantCalls(t, "connect NOOP disconnect")
			if asked != 2 {
				t.Errorf("it was asked %d times", asked)
			}
		})
	}
}

func TestHookForThatFailsEndsTheConnectionWith421(t *testing.T) {
	var inItself smtpproxy.Mux
	inItself.Else = &inItself
	for _, row := range []struct {
		why  string
		fail func() smtpproxy.Hook
		says string
	}{
		{"panics", func() smtpproxy.Hook { panic("no") }, "no"},
		{"ends its goroutine", func() smtpproxy.Hook { runtime.Goexit(); return nil }, "ended its goroutine"},
		{"a Mux that is in itself", func() smtpproxy.Hook { return &inItself }, "nested"},
	} {
		for door, open := range connectDoors {
			t.Run(row.why+", "+door, func(t *testing.T) {
				log, asked, h := new(logbook), 0, newLifeHook()
				w := open(t, &smtpproxy.Proxy{Hook: h, Logger: log.logger(), HookFor: func(connection) smtpproxy.Hook { asked++; return row.fail() }})
				exits := row.why == "ends its goroutine" && !strings.HasPrefix(door, "go-smtp") // then nobody gets a reply
				if !strings.HasPrefix(w.octets, "421 4.3.0 ") && !exits || len(w.executed) > 0 {
					t.Errorf("got %q, the end: %v; the server executed %q", w.octets, w.ended, w.executed)
				}
				if lines := log.lines("hook failed"); len(lines) != 1 || !strings.Contains(lines[0].attrs["error"], row.says) || (lines[0].attrs["stack"] != "") != (row.why == "panics") {
					t.Errorf("logged: %v", lines)
				}
				if asked != 1 {
					t.Errorf("it was asked %d times", asked)
				}
				h.wantCalls(t, "") // it wasn't chosen
			})
		}
	}
}

func TestAChosenMuxAddsItsVerbs(t *testing.T) {
	for door, open := range puppetDoors {
		t.Run(door, func(t *testing.T) {
			var shown []string
			note := func(by string, d decision) smtpproxy.HookFunc {
				return decide(func(cmd command) (decision, error) {
					shown = append(shown, by+" "+cmd.Verb())
					return d, nil
				})
			}
			m := &smtpproxy.Mux{Else: note("else", nil)}
			m.Handle("HELP", note("help", reply{Code: 214}))
			m.Extend("XPING", "XPING", note("xping", reply{Code: 252}))
			p := &smtpproxy.Proxy{Commands: []string{"NOOP"}, Hook: note("not chosen", nil), HookFor: func(connection) smtpproxy.Hook { return m }}
			say, leave := open(t, p)
			for line, want := range map[string]int{"HELP": 214, "XPING": 252, "NOOP": 250} {
				if got := say(line); got != want {
					t.Errorf("%s: got %d", line, got)
				}
			}
			say("RSET")
			leave()
			if len(shown) != 3 || strings.Contains(strings.Join(shown, " "), "RSET") {
				t.Errorf("shown: %q", shown)
			}
		})
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{HookFor: func(connection) smtpproxy.Hook {
		m := new(smtpproxy.Mux)
		m.Extend("XPING now", "XPING", always(nil))
		return m
	}})
	s.Send("EHLO x")
	if got := strings.Join(s.Reply().Lines, "|"); !strings.HasSuffix(got, "|XPING now") {
		t.Errorf("offered: %s", got)
	}
}

func TestTheChosenHookIsToldOfTheEnd(t *testing.T) {
	for _, say := range []string{hello + "> QUIT|< 221|END", "NOTLS", hello + "> STARTTLS|< 220|NOTLS", "< 220|FIN"} {
		t.Run(say, func(t *testing.T) {
			h, other := newLifeHook(), newLifeHook()
			row := endRow{say: say, proxy: smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: say == "NOTLS",
				HookFor: func(connection) smtpproxy.Hook { return h }}}
			row.hook = func(w *lifeHook) { // of Proxy.Hook, which isn't chosen
				close(w.ended)
				other = w
			}
			row.play(t, overTCP(t), nil)
			inTime(t, "Disconnect", h.ended)
			other.wantCalls(t, "")
			if calls := h.called(t); say == "NOTLS" && len(calls) != 1 {
				t.Errorf("without a handshake, it was called: %q", calls)
			}
		})
	}
}

// generation is a hook that tells which it is, and to which connections it belongs.
type generation struct {
	number  int
	mu      *sync.Mutex
	belongs map[string]int // connections, to generations
	calls   *atomic.Int64
	ends    *atomic.Int64
	errs    *[]string
}

func (g generation) sees(conn connection, what string) {
	g.calls.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	was, known := g.belongs[conn.ID]
	if known && was != g.number {
		*g.errs = append(*g.errs, fmt.Sprintf("%s: %d, then %d", what, was, g.number))
	}
	g.belongs[conn.ID] = g.number
}

func (g generation) Connect(_ *hookContext, conn connection) (decision, error) {
	g.sees(conn, "Connect")
	return nil, nil
}

func (g generation) Command(_ *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
	g.sees(conn, cmd.Verb())
	return nil, nil
}

func (g generation) Disconnect(_ *hookContext, conn connection, _ end) {
	g.sees(conn, "Disconnect")
	g.ends.Add(1)
}

func TestHooksAreSwappedWhileConnectionsKeepTheirs(t *testing.T) {
	clients, each := 8, 20
	if testing.Short() {
		each = 5
	}
	g := generation{mu: new(sync.Mutex), belongs: make(map[string]int), calls: new(atomic.Int64), ends: new(atomic.Int64), errs: new([]string)}
	var current atomic.Pointer[generation]
	current.Store(&g)
	p := &smtpproxy.Proxy{HookFor: func(connection) smtpproxy.Hook { return *current.Load() }}
	tr := serveTLS(t, new(tlsBackend), p)
	swapped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swapped)
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			next := g
			next.number = n
			current.Store(&next)
			runtime.Gosched()
		}
	}()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				k := talk(t, tr)
				k.say("EHLO x", "250")
				k.startTLS()
				k.say("EHLO x", "250", "NOOP", "250", "QUIT", "221")
				k.wantEnd()
				k.Close()
			}
		})
	}
	all.Wait()
	close(done)
	<-swapped
	total := int64(clients * each)
	for g.ends.Load() < total {
		runtime.Gosched()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(*g.errs) > 0 {
		t.Errorf("changed: %q", *g.errs)
	}
	// Connect, EHLO, STARTTLS, EHLO, NOOP, QUIT, Disconnect.
	if n := g.calls.Load(); n != 7*total || len(g.belongs) != int(total) {
		t.Errorf("%d calls of %d connections", n, len(g.belongs))
	}
}
