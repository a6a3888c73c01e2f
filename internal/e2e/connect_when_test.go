package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/foxcpp/go-mockdns"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about when a hook is asked about a client, and what goes on beside.

func TestTheHookIsAskedAboutAClientWhenTheServerFirstReadsOrWrites(t *testing.T) {
	for why, use := range map[string]func(c net.Conn){
		"Read":  func(c net.Conn) { c.Read(make([]byte, 100)) },
		"Write": func(c net.Conn) { io.WriteString(c, "220 x\r\n") },
	} {
		for _, tls := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%s, TLS %v", why, tls), func(t *testing.T) {
				h := newLifeHook()
				p := &smtpproxy.Proxy{Hook: h}
				if tls {
					p.TLSConfig, p.ImplicitTLS = serverTLS(), true
				}
				c, client, _ := acceptedOver(t, overCable(), p)
				c.SetDeadline(time.Now().Add(time.Hour))
				c.RemoteAddr()
				synctest.Wait()
				h.wantCalls(t, "")
				go use(c)
				k := newCaller(t, client)
				if tls {
					synctest.Wait()
					h.wantCalls(t, "") // behind the handshake
					k.play("TLS", nil)
				}
				synctest.Wait()
				h.wantCalls(t, "connect")
				if conn := h.conns[0]; tls && (conn.TLS.Protocol == "" || conn.TLS.SNI != "sni.example") || !tls && conn.TLS.Protocol != "" {
					t.Errorf("it was told of %+v", conn.TLS)
				}
				client.Close()
				c.Close()
			})
		}
	}
}

func TestTheHookIsAskedAboutAClientThatHasToldItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := connecting(func(_ *hookContext, conn connection) (decision, error) {
			if netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort) != toldRemote || netip.AddrPortFrom(conn.LocalIP, conn.LocalPort) != toldLocal {
				t.Errorf("it was told of %v, %v", conn.RemoteIP, conn.LocalIP)
			}
			return nil, nil
		})
		c, _, raw := acceptUntold(t, &smtpproxy.Proxy{Hook: h}, false)
		go io.WriteString(c, "220 x\r\n")
		synctest.Wait()
		h.wantCalls(t, "")
		close(raw.told)
		synctest.Wait()
		h.wantCalls(t, "connect")
		c.Close()
	})
}

func TestTheHookThatIsAskedAboutAClientKnowsItsName(t *testing.T) {
	zones := map[string]mockdns.Zone{
		"7.2.0.192.in-addr.arpa.": {PTR: []string{"client.example."}},
		"client.example.":         {A: []string{"192.0.2.7"}},
	}
	h := newLifeHook()
	w := welcomeOver(t, from(overTCP(t), "192.0.2.7:7777"), &smtpproxy.Proxy{Hook: h, LookupPTR: true, Resolver: &mockdns.Resolver{Zones: zones}})
	if w.octets[:3] != "220" || h.conns[0].RemotePTR != "client.example" {
		t.Errorf("got %q; the name is %q", w.octets, h.conns[0].RemotePTR)
	}
	if told := inTime(t, "Disconnect", h.ended); told.conn.RemotePTR != "client.example" || told.conn.HELO.Host != "client.example" {
		t.Errorf("at the end, it is told of %+v", told.conn)
	}
}

func TestTheTimeOfTheHookIsNeitherTheClientsNorTheServers(t *testing.T) {
	for _, of := range []string{"Connect", "HookFor"} {
		for silence, dies := range map[time.Duration]bool{4 * time.Second: false, 6 * time.Second: true} {
			bubble(t, fmt.Sprintf("%s, the client is silent for %v", of, silence), func(t *testing.T) {
				h := newLifeHook()
				p := &smtpproxy.Proxy{Hook: h}
				sleeps := func() { time.Sleep(time.Minute) } // in a bubble
				if of == "Connect" {
					h.connect = func(*hookContext, connection) (decision, error) { sleeps(); return nil, nil }
				} else {
					p.HookFor = func(connection) smtpproxy.Hook { sleeps(); return smtpproxy.HookFunc(h.Command) }
				}
				c, client, _ := acceptedOver(t, overPipe(t), p)
				c.SetDeadline(time.Now().Add(5 * time.Second))
				ended := make(chan error, 1)
				go func() {
					if _, err := io.WriteString(c, "220 x\r\n"); err != nil {
						t.Errorf("the greeting: %v", err)
					}
					_, err := c.Read(make([]byte, 100))
					ended <- err
				}()
				k := newCaller(t, client)
				time.Sleep(time.Minute + 4*time.Second) // the greeting has 5
				k.play("< 220", nil)
				time.Sleep(silence) // in a bubble
				go k.send("NOOP\r\n")
				if err := <-ended; (err != nil) != dies {
					t.Errorf("the server's Read: %v", err)
				}
				client.Close()
				c.Close()
			})
		}
	}
}

// readNoted tells of reads.
type readNoted struct {
	net.Conn
	reads atomic.Int32
}

func (c *readNoted) Read(p []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(p)
}

// A Read beside would make the time of the client's run, and take what it sends early.
func TestAReadBesideTheHookThatIsAskedAboutAClientWaitsForIt(t *testing.T) {
	for _, writesFirst := range []bool{false, true} {
		server, client := net.Pipe()
		raw := &readNoted{Conn: server}
		entered := make(chan struct{})
		h := connecting(func(*hookContext, connection) (decision, error) {
			close(entered)
			for range 10_000 {
				runtime.Gosched()
			}
			if n := raw.reads.Load(); n > 0 {
				t.Errorf("the client is read from, %d times", n)
			}
			return nil, nil
		})
		l := &chanListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- raw
		c, err := (&smtpproxy.Proxy{Hook: h}).Listener(l).Accept()
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		reads := func() { c.Read(make([]byte, 100)) }
		writes := func() { io.WriteString(c, "220 x\r\n") }
		if writesFirst {
			reads, writes = writes, reads
		}
		both.Go(reads)
		<-entered
		both.Go(writes)
		newCaller(t, client).play("< 220|> NOOP", nil)
		both.Wait()
		c.Close()
		client.Close()
		inTime(t, "Disconnect", h.ended)
		h.wantCalls(t, "connect NOOP disconnect")
	}
}

func TestCloseDuringTheCallEndsItAndWaitsForNothing(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		for _, timeout := range []time.Duration{0, time.Hour} {
			bubble(t, fmt.Sprintf("deaf %v, HookTimeout %v", deaf, timeout), func(t *testing.T) {
				release := make(chan struct{})
				var done time.Time
				h := connecting(func(ctx *hookContext, _ connection) (decision, error) {
					<-ctx.Done()
					done = time.Now()
					if deaf {
						<-release
					}
					return nil, nil
				})
				h.givenUp = true
				c, client, _ := acceptedOver(t, overPipe(t), &smtpproxy.Proxy{Hook: h, HookTimeout: timeout})
				wrote := make(chan error, 1)
				go func() {
					_, err := io.WriteString(c, "220 x\r\n")
					wrote <- err
				}()
				time.Sleep(time.Minute) // in a bubble
				start := time.Now()
				c.Close()
				synctest.Wait()
				if d := time.Since(start); d != 0 || done != start {
					t.Errorf("Close took %v, the Context was done at %v", d, done)
				}
				close(release)
				if err := <-wrote; !errors.Is(err, net.ErrClosed) {
					t.Errorf("the server's Write: %v", err)
				}
				if got, _ := io.ReadAll(client); len(got) > 0 {
					t.Errorf("the client got %q", got)
				}
			})
		}
	}
}

func TestWhoTalksEarlyIsToldWhateverTheHookTakes(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprint(early), func(t *testing.T) {
			sent := make(chan struct{})
			var seen connection
			h := connecting(func(_ *hookContext, conn connection) (decision, error) {
				<-sent
				return nil, nil
			})
			p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(h, smtpproxy.HookFunc(func(_ *hookContext, _ command, conn connection, _ transaction) (decision, error) {
				seen = conn
				return nil, nil
			}))}
			c := behindGoSMTP(p).connect(t, overTCP(t))
			if early {
				io.WriteString(c.Conn, "EHLO x\r\n")
			}
			close(sent)
			c.expect("220")
			if !early {
				c.send("EHLO x\r\n")
			}
			c.expect("250")
			c.ask("QUIT", "221")
			if seen.EarlyTalker != early || h.conns[0].EarlyTalker {
				t.Errorf("it is told as %v", seen.EarlyTalker)
			}
		})
	}
}

func TestTheHookIsAskedAboutAClientOnceAndBehindSTARTTLSNotAgain(t *testing.T) {
	h := newLifeHook()
	k := openDoor(t, "STARTTLS", overTCP(t), serverTLS().Clone(), smtpproxy.Proxy{Hook: h}, new(tlsBackend))(t)
	if _, err := k.greetInTLS("STARTTLS", &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	k.want("QUIT", "221")
	k.wantEnd()
	inTime(t, "Disconnect", h.ended)
	h.wantCalls(t, "connect EHLO keywords STARTTLS NOOP EHLO keywords NOOP QUIT disconnect")
}

// Whatever the server's two goroutines do at once, no two methods of a hook run at once.
func TestAServerThatReadsAndWritesAtOnceCallsOneMethodAtATime(t *testing.T) {
	for name, server := range map[string]func() *servertest.Server{
		"reads ahead":   func() *servertest.Server { return servertest.RunAhead() },
		"go-smtp, LMTP": func() *servertest.Server { return servertest.GoSMTPLMTP(true) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newLifeHook()
			pauses := func() { runtime.Gosched(); runtime.Gosched() }
			h.connect = func(*hookContext, connection) (decision, error) { pauses(); return nil, nil }
			h.command = func(*hookContext, command) (decision, error) { pauses(); return nil, nil }
			h.keywords = func(*smtpproxy.Keywords) error { pauses(); return nil }
			f := behindListener(&smtpproxy.Proxy{Hook: h}, server())
			tr := overTCP(t)
			f.start(t, tr)
			for range 20 {
				c := dialPeer(t, tr)
				c.send("LHLO x\r\nEHLO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n")
				c.expect("220")
				c.Close()
				inTime(t, "Disconnect", h.ended)
				h.mu.Lock()
				h.busy = false
				h.mu.Unlock()
			}
			if calls := h.called(t); strings.Count(strings.Join(calls, " "), "disconnect") != 20 {
				t.Errorf("called: %q", calls)
			}
		})
	}
}

// A server that closes the connection beside a hook that refuses the client: whoever is
// first, the session ends once, and the server executes nothing.
func TestARefusalAndACloseAtOnceAreOneEnd(t *testing.T) {
	for range 50 {
		h := connecting(func(*hookContext, connection) (decision, error) { return reply{Code: 554}, nil })
		var srv *smtp.Server
		s := servertest.GoSMTP(servertest.Configure(func(s *smtp.Server) { srv = s }))
		f := fronted{s, func(l net.Listener) error { return s.Serve((&smtpproxy.Proxy{Hook: h}).Listener(l)) }, s.Close}
		c := f.connect(t, overTCP(t))
		srv.Close()
		io.ReadAll(c.r)
		if n := len(f.Commands()); n > 0 {
			t.Errorf("the server executed %d commands", n)
		}
	}
}
