package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about what may go wrong where the server starts afresh.

// restartStage is where a server starts afresh, in a bubble.
type restartStage struct {
	t        *testing.T
	connects bool // the hook decides so at Connect
	w        *warden
	hook     smtpproxy.Hook // w, unless there is another that calls it
	p        smtpproxy.Proxy
	prepare  func()      // changes w before anybody connects
	accepts  func(n int) // is called before a connection is accepted
	log      *logbook
	l        net.Listener
	raw      *cableEnd // the server's end of the client's connection
	client   *cableEnd
	k        *caller
	served   atomic.Int64 // connections that the server has had
	asked    atomic.Int64 // calls of Accept
}

// arrives serves each connection with script, and brings a client to where the server starts
// afresh, but for the command.
func (s *restartStage) arrives(t *testing.T, script func(n int, c net.Conn, r *bufio.Reader)) {
	t.Helper()
	s.t, s.log = t, new(logbook)
	if s.w == nil {
		s.w = newWarden(origin)
	}
	restartDoor{atConnect: s.connects, noTLS: true}.guard(&s.p, s.w, transport{})
	if s.prepare != nil {
		s.prepare()
	}
	if s.hook != nil {
		s.p.Hook = s.hook
	}
	s.p.Logger = s.log.logger()
	tr := newTransport(true, func() (net.Conn, net.Conn, error) {
		s.raw, s.client = connectByCable()
		return s.raw, s.client, nil
	})
	s.l = s.p.Listener(tr)
	serveScript(t, stageListener{s.l, s}, func(n int, c net.Conn, r *bufio.Reader) {
		s.served.Add(1)
		script(n, c, r)
	})
	if _, err := tr.dial(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.client.Close() })
	s.k = newCaller(t, s.client)
	if !s.connects {
		s.k.play("< 220|> EHLO front.example|< 250", nil)
	}
}

// stageListener asks a stage before it accepts.
type stageListener struct {
	net.Listener
	s *restartStage
}

func (l stageListener) Accept() (net.Conn, error) {
	if n := int(l.s.asked.Add(1)) - 1; l.s.accepts != nil {
		l.s.accepts(n)
	}
	return l.Listener.Accept()
}

// asks sends the command.
func (s *restartStage) asks() {
	if !s.connects {
		s.k.play("> XCLIENT", nil)
	}
}

// ends checks what was told of the end, once, that the log tells why, and that the client's
// connection is closed. Of want, a part will do.
func (s *restartStage) ends(want, logged string) {
	s.t.Helper()
	told := <-s.w.ended
	synctest.Wait()
	if got := short(told.end); !strings.HasPrefix(got, want) || len(s.w.ended) > 0 {
		s.t.Errorf("told: %s\nwant: %s", got, want)
	}
	if _, ok := s.raw.closed(); !ok {
		s.t.Error("the client's connection is open")
	}
	if got := strings.Join(s.log.reasons(), ", "); got != logged {
		s.t.Errorf("logged: %s\nwant:   %s", got, logged)
	}
}

// servesBut serves all connections by a puppet, but the fresh one.
func servesBut(fresh func(c net.Conn, r *bufio.Reader)) func(n int, c net.Conn, r *bufio.Reader) {
	return func(n int, c net.Conn, r *bufio.Reader) {
		if n == 1 {
			fresh(c, r)
			return
		}
		new(puppet).serve(c)
	}
}

// bothWays runs f where the server starts afresh by a command, and at Connect.
func bothWays(t *testing.T, why string, f func(t *testing.T, s *restartStage)) {
	for _, connects := range []bool{false, true} {
		bubble(t, fmt.Sprintf("%s, at Connect %v", why, connects), func(t *testing.T) { f(t, &restartStage{connects: connects}) })
	}
}

func TestAFreshServerThatFailsEndsTheConnection(t *testing.T) {
	const lost = "WARN reply that fits no command"
	for _, row := range []struct {
		why                string
		fresh              func(c net.Conn, r *bufio.Reader)
		steps, end, logged string
	}{
		{"it closes instead of greeting", func(net.Conn, *bufio.Reader) {}, "END", "server: server closed", ""},
		{"it closes amid its greeting", func(c net.Conn, _ *bufio.Reader) { io.WriteString(c, "220-x\r\n220") }, "END", "server: server closed", ""},
		{"it says 421", func(c net.Conn, _ *bufio.Reader) { io.WriteString(c, "421 4.3.2 busy\r\n") }, "< 421 4.3.2 busy|END", "server: refused", ""},
		{"it says 554, and closes", func(c net.Conn, _ *bufio.Reader) { io.WriteString(c, "554 5.3.2 no\r\n") }, "< 554 5.3.2 no|END", "server: refused", ""},
		{"it greets twice: the second is no reply to anything", func(c net.Conn, r *bufio.Reader) {
			io.WriteString(c, "220 x\r\n220 y\r\n")
			r.ReadString('\n')
		}, "< 220|< 421 4.3.0|END", "library: out of step", lost},
		{"it asks for content", func(c net.Conn, r *bufio.Reader) { io.WriteString(c, "354 go\r\n"); r.ReadString('\n') },
			"< 421 4.3.0|END", "library: out of step", lost},
		{"it asks for a password", func(c net.Conn, r *bufio.Reader) { io.WriteString(c, "334 \r\n"); r.ReadString('\n') },
			"< 421 4.3.0|END", "library: out of step", lost},
		{"it says what is no reply", func(c net.Conn, r *bufio.Reader) { io.WriteString(c, "hello\r\n"); r.ReadString('\n') },
			"< 421 4.3.0|END", "library: out of step", "WARN malformed reply from the server"},
		{"it reads, gives up and closes", func(c net.Conn, r *bufio.Reader) {
			c.SetReadDeadline(time.Now().Add(time.Second))
			r.ReadString('\n')
		}, "END", "server: command timeout", ""},
	} {
		bothWays(t, row.why, func(t *testing.T, s *restartStage) {
			s.arrives(t, servesBut(row.fresh))
			s.asks()
			s.k.play(row.steps, nil)
			s.ends(row.end, row.logged)
		})
	}
}

func TestAFreshServerThatReadsBeforeItGreetsGetsNoCommandBefore(t *testing.T) {
	bothWays(t, "", func(t *testing.T, s *restartStage) {
		s.arrives(t, servesBut(func(c net.Conn, r *bufio.Reader) {
			lines := readAhead(c)
			select {
			case line := <-lines:
				t.Errorf("before its greeting, the server gets %q", line)
			case <-time.After(time.Minute):
			}
			io.WriteString(c, "220 fresh.example\r\n")
			for line := range lines {
				io.WriteString(c, "250 "+line)
			}
		}))
		began := time.Now()
		s.asks()
		s.k.play("> NOOP|< 220 fresh.example|< 250 NOOP", nil)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAServerHasTenSecondsToStartAfresh(t *testing.T) {
	for delay, want := range map[time.Duration]time.Duration{
		0: 0, 9 * time.Second: 9 * time.Second, 11 * time.Second: 10 * time.Second, time.Hour: 10 * time.Second,
	} {
		bothWays(t, delay.String(), func(t *testing.T, s *restartStage) {
			hasTime := delay == want
			s.arrives(t, func(n int, c net.Conn, _ *bufio.Reader) {
				if n == 1 && !hasTime {
					t.Error("the fresh connection is accepted in spite of all")
				}
				new(puppet).serve(c)
				if n == 0 {
					time.Sleep(delay) // in a bubble; then it closes
				}
			})
			began := time.Now()
			s.asks()
			if hasTime {
				s.k.play("< 220|> NOOP|< 250", nil)
			} else {
				s.k.play("< 421 4.3.2|END", nil)
			}
			if took := time.Since(began); took != want {
				t.Errorf("it took %v", took)
			}
			if !hasTime {
				s.client.Close() // else it is lingered for
				s.ends("server: server closed", "WARN the server hasn't accepted the fresh connection")
				time.Sleep(time.Hour) // in a bubble: the server closes the old connection
			}
		})
	}
}

// What nobody has read from a socket that is closed, resets it, and the last reply may be
// lost.
func TestAClientThatIsTurnedAwayWhileItSendsIsNotReset(t *testing.T) {
	for _, d := range []restartDoor{{name: "by a command", noTLS: true}, {name: "at Connect", atConnect: true, noTLS: true}, {name: "in TLS", tls: "STARTTLS"}} {
		t.Run(d.name, func(t *testing.T) {
			w, tr, sent := newWarden(origin), overTCP(t), make(chan struct{})
			p := new(smtpproxy.Proxy)
			l := p.Listener(d.guard(p, w, tr))
			serveScript(t, l, func(n int, c net.Conn, _ *bufio.Reader) {
				new(puppet).serve(c)
				if _, inTLS := smtpproxy.TLSConnectionState(c); inTLS == (d.tls != "") { // it starts afresh
					<-sent
					l.Close()
				}
			})
			k := d.arrive(t, tr)
			io.WriteString(k.Conn, strings.Repeat("NOOP\r\n", 1000))
			close(sent)
			k.want("", "421 4.3.2")
			if rest, err := io.ReadAll(k.r); len(rest) > 0 || err != nil {
				t.Errorf("behind 421 comes %q, %v", rest, err)
			}
			told := inTime(t, "Disconnect", w.ended)
			if told.end.Reason != smtpproxy.ReasonServerClosed {
				t.Errorf("told: %s", short(told.end))
			}
		})
	}
}

// whenRestarting calls f in the hook that decides to let the server start afresh.
func (s *restartStage) whenRestarting(f func()) {
	decides, connect := s.w.command, s.w.connect
	s.w.command = func(ctx *hookContext, cmd command) (decision, error) {
		if cmd.Verb() == "XCLIENT" {
			f()
		}
		return decides(ctx, cmd)
	}
	if s.connects {
		s.w.connect = func(ctx *hookContext, conn connection) (decision, error) {
			f()
			return connect(ctx, conn)
		}
	}
}

// whenAsked calls f in the hook that is asked about the new client.
func (s *restartStage) whenAsked(f func() (decision, error)) {
	s.w.connect = func(_ *hookContext, conn connection) (decision, error) {
		if conn.RemoteIP == origin.RemoteIP {
			return f()
		}
		return nil, nil
	}
}

func TestAListenerThatIsClosedTurnsTheClientAway(t *testing.T) {
	for why, closes := range map[string]func(s *restartStage){
		"while the hook decides": func(s *restartStage) { s.prepare = func() { s.whenRestarting(func() { s.l.Close() }) } },
		"while the hook is asked about the new client": func(s *restartStage) {
			s.prepare = func() {
				if s.connects {
					s.whenRestarting(func() { s.l.Close() }) // it isn't asked once more
					return
				}
				s.whenAsked(func() (decision, error) { s.l.Close(); return nil, nil })
			}
		},
		"before the old connection is closed": nil,
		"when the old connection is closed": func(s *restartStage) {
			s.accepts = func(n int) {
				if n == 1 {
					synctest.Wait() // until that has happened
					s.l.Close()
				}
			}
		},
	} {
		bothWays(t, why, func(t *testing.T, s *restartStage) {
			if closes != nil {
				closes(s)
			}
			s.arrives(t, func(_ int, c net.Conn, _ *bufio.Reader) {
				new(puppet).serve(c)
				if closes == nil {
					s.l.Close()
				}
			})
			began := time.Now()
			s.asks()
			s.k.play("< 421 4.3.2|END", nil)
			if took := time.Since(began); took > 0 {
				t.Errorf("it took %v", took)
			}
			s.client.Close()
			s.ends("server: server closed", "WARN the server hasn't accepted the fresh connection")
			if n := s.served.Load(); n != 1 {
				t.Errorf("the server has had %d connections", n)
			}
		})
	}
}

// That the listener is closed is known before the server closes anything.
func TestAListenerThatIsClosedTurnsTheClientAwayHoweverSlowTheServerIs(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		s := new(restartStage)
		s.arrives(t, func(_ int, c net.Conn, _ *bufio.Reader) {
			new(puppet).serve(c)
			time.Sleep(time.Minute) // in a bubble
		})
		s.l.Close()
		began := time.Now()
		s.k.play("> XCLIENT|< 421 4.3.2|END", nil)
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v", took)
		}
		s.client.Close()
		s.ends("server: server closed", "WARN the server hasn't accepted the fresh connection")
	})
}

func TestAListenerThatIsClosedLaterChangesNothing(t *testing.T) {
	bothWays(t, "", func(t *testing.T, s *restartStage) {
		s.arrives(t, func(n int, c net.Conn, _ *bufio.Reader) {
			if n == 1 {
				s.l.Close() // before it greets
			}
			new(puppet).serve(c)
		})
		s.asks()
		s.k.play("< 220|> NOOP|< 250|> XCLIENT|< 421 4.3.2|END", nil)
		s.client.Close()
		s.ends("server: server closed", "WARN the server hasn't accepted the fresh connection")
	})
}

// A hook that always finds the client to be another's is asked once for each command.
func TestAHookThatAlwaysRestartsDoesNotDoSoForEver(t *testing.T) {
	bothWays(t, "", func(t *testing.T, s *restartStage) {
		s.prepare = func() {
			s.w.connect = func(*hookContext, connection) (decision, error) { return reply{Restart: s.w.next()}, nil }
		}
		connects := s.connects
		s.connects = true // the first greeting is that of the second connection
		s.arrives(t, func(_ int, c net.Conn, _ *bufio.Reader) { new(puppet).serve(c) })
		s.k.play("< 220|> NOOP|< 250", nil)
		want := "connect NOOP"
		if !connects {
			s.k.play("> XCLIENT|< 220|> NOOP|< 250", nil)
			want += " XCLIENT connect NOOP"
		}
		s.w.wantCalls(t, want)
		if n, want := s.served.Load(), int64(strings.Count(want, "connect")+1); n != want {
			t.Errorf("the server has had %d connections, want %d", n, want)
		}
	})
}

func TestAClientThatRestartsTheServerAThousandTimesIsServedOrBounded(t *testing.T) {
	for limit, want := range map[int]int{0: 1000, 100: 100} {
		for _, atOnce := range []bool{false, true} {
			bubble(t, fmt.Sprintf("at most %d commands, at once %v", limit, atOnce), func(t *testing.T) {
				s := &restartStage{p: smtpproxy.Proxy{MaxCommands: limit}}
				open, most := atomic.Int64{}, atomic.Int64{}
				s.arrives(t, func(_ int, c net.Conn, _ *bufio.Reader) {
					most.Store(max(most.Load(), open.Add(1)))
					defer open.Add(-1)
					new(puppet).serve(c)
				})
				if atOnce {
					go s.client.Write([]byte(strings.Repeat("XCLIENT\r\n", 1000)))
				}
				restarts := 0
				for range 1000 {
					if !atOnce {
						s.k.send("XCLIENT\r\n")
					}
					line, err := s.k.r.ReadString('\n')
					if err != nil || line[:3] != "220" {
						break
					}
					restarts++
				}
				commands := restarts + 1 // there was EHLO
				if limit > 0 {
					restarts++ // which is one of those that are limited
				}
				if restarts != want || most.Load() > 2 {
					t.Errorf("%d restarts, want %d; %d connections at a time", restarts, want, most.Load())
				}
				s.client.Close()
				told := <-s.w.ended
				if (told.end.Reason == smtpproxy.ReasonTooMany) != (limit > 0) || told.end.Commands != commands {
					t.Errorf("told: %s", short(told.end))
				}
			})
		}
	}
}

func TestAClientMayLeaveAtAnyMomentOfARestart(t *testing.T) {
	const later = time.Second
	for why, when := range map[string]func(s *restartStage){
		"while the hook decides": func(s *restartStage) { s.prepare = func() { s.whenRestarting(func() { time.Sleep(2 * later) }) } }, // in a bubble
		"while the hook is asked about the new client": func(s *restartStage) {
			s.prepare = func() {
				if s.connects {
					s.whenRestarting(func() { time.Sleep(2 * later) }) // in a bubble
					return
				}
				s.whenAsked(func() (decision, error) { time.Sleep(2 * later); return nil, nil }) // in a bubble
			}
		},
		"before the fresh connection is accepted": func(s *restartStage) {
			s.accepts = func(n int) {
				if n == 1 {
					time.Sleep(2 * later) // in a bubble
				}
			}
		},
		"before the fresh server greets": nil,
		"behind the greeting":            nil,
	} {
		for bye, leave := range map[string]func(c *cableEnd){"FIN": func(c *cableEnd) { c.Close() }, "RST": (*cableEnd).reset} {
			bothWays(t, why+", "+bye, func(t *testing.T, s *restartStage) {
				if when != nil {
					when(s)
				}
				var closed atomic.Int64
				s.arrives(t, func(n int, c net.Conn, _ *bufio.Reader) {
					if n == 1 && why == "before the fresh server greets" {
						time.Sleep(2 * later) // in a bubble
					}
					new(puppet).serve(c)
					closed.Add(1)
				})
				s.asks()
				time.Sleep(later) // in a bubble
				leave(s.client)
				s.ends("client: client gone", "")
				if n := closed.Load(); n != s.served.Load() {
					t.Errorf("of %d connections of the server's, %d have ended", s.served.Load(), n)
				}
			})
		}
	}
}

func TestWhatAServerDoesWithItsOldConnectionIsNothingToTheClient(t *testing.T) {
	for why, acts := range map[string]func(t *testing.T, c net.Conn){
		"it says that it closes": func(_ *testing.T, c net.Conn) { io.WriteString(c, "421 4.4.2 idle\r\n") },
		"it says what is no reply": func(t *testing.T, c net.Conn) {
			if n, err := io.WriteString(c, "hello"); n != 5 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
		},
		"it sets deadlines that have passed": func(t *testing.T, c net.Conn) {
			for _, set := range []func(time.Time) error{c.SetDeadline, c.SetReadDeadline, c.SetWriteDeadline} {
				if err := set(time.Now().Add(-time.Hour)); err != nil {
					t.Error(err)
				}
			}
		},
		"it sets deadlines that will have passed": func(_ *testing.T, c net.Conn) { c.SetDeadline(time.Now().Add(time.Second)) },
		"it reads on": func(t *testing.T, c net.Conn) {
			for range 3 {
				if n, err := c.Read(make([]byte, 100)); n != 0 || err != io.EOF {
					t.Errorf("Read: %d, %v", n, err)
				}
			}
		},
		"it closes it late, and again and again": func(_ *testing.T, c net.Conn) {
			time.Sleep(9 * time.Second) // in a bubble
			c.Close()
			time.Sleep(time.Minute) // in a bubble
			c.Close()
		},
		"it goes on with it when it is closed": func(_ *testing.T, c net.Conn) {
			c.Close()
			for range 10 {
				io.WriteString(c, "421 4.4.2 idle\r\n")
				c.SetDeadline(time.Now().Add(-time.Hour))
				c.Read(make([]byte, 100))
				c.Close()
				time.Sleep(time.Second) // in a bubble
			}
		},
	} {
		bothWays(t, why, func(t *testing.T, s *restartStage) {
			s.arrives(t, func(n int, c net.Conn, _ *bufio.Reader) {
				new(puppet).serve(c)
				if n == 0 {
					acts(t, c)
				}
			})
			s.asks()
			s.k.play("< 220|WAIT 5s|> NOOP|< 250|WAIT 1h|> NOOP|< 250|> QUIT|< 221|END", nil)
			s.ends("client: quit", "")
		})
	}
}

func TestRepliesThatAreHeldLeaveBeforeTheServerStartsAfresh(t *testing.T) {
	for _, row := range []struct {
		why   string
		hook  func(cmd command) (decision, error)
		code  string
		asked time.Duration // how long the hook takes that is asked about the new client
	}{
		{"the server's", nil, "250", time.Minute},
		{"the server's, and the greeting comes at once", nil, "250", 0},
		{"the hook's", func(command) (decision, error) { return reply{Code: 451}, nil }, "451", time.Minute},
		{"the hook's, and the greeting comes at once", func(command) (decision, error) { return reply{Code: 451}, nil }, "451", 0},
	} {
		bubble(t, row.why, func(t *testing.T) {
			w := newWarden(origin)
			s := &restartStage{w: w, hook: smtpproxy.Chain(decide(func(cmd command) (decision, error) {
				if verb := cmd.Verb(); row.hook == nil || verb == "XCLIENT" || isGreeting(verb) {
					return nil, nil
				}
				return row.hook(cmd)
			}), w)}
			s.prepare = func() { s.whenAsked(func() (decision, error) { time.Sleep(row.asked); return nil, nil }) } // in a bubble
			s.arrives(t, servesAll)
			began := time.Now()
			s.k.send("RSET\r\nMAIL FROM:<a@a>\r\nRSET\r\nXCLIENT\r\nMAIL FROM:<c@c>\r\nNOOP\r\n")
			for range 3 {
				s.k.expect(row.code)
			}
			if took := time.Since(began); took > 5*time.Millisecond {
				t.Errorf("replies to commands before are held back for %v", took)
			}
			s.k.expect("220")
			if took := time.Since(began); took != row.asked {
				t.Errorf("the greeting comes after %v", took)
			}
			s.k.expect(row.code)
			s.k.expect(row.code)
		})
	}
}
