package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about the hook that decides about clients, which is asked once more about the
// one that turns out to be connected.

func TestTheHookIsAskedAboutTheNewClientOnce(t *testing.T) {
	forEachRestartDoor(t, func(t *testing.T, d restartDoor, tr transport) {
		w := newWarden(origin)
		p := &smtpproxy.Proxy{ServerID: "mx1"}
		servePuppet(t, p.Listener(d.guard(p, w, tr)), new(puppet))
		k := d.arrive(t, tr)
		k.want("", "220")
		k.plays("NOOP|250|QUIT|221")
		k.wantEnd()
		inTime(t, "Disconnect", w.ended)
		w.lifeHook.mu.Lock()
		asked := w.conns
		w.lifeHook.mu.Unlock()
		switch {
		case d.atConnect && len(asked) != 1, !d.atConnect && len(asked) != 2:
			t.Fatalf("it was asked %d times", len(asked))
		case d.atConnect:
			return
		}
		// All that the next line's hook is told of, but for the transaction, is known already.
		if want := w.saw(t, "NOOP").conn; !reflect.DeepEqual(asked[1], want) || want.RemoteIP != origin.RemoteIP || want.Peer != asked[0].Peer {
			t.Errorf("asked about\n%+v\nwant\n%+v", asked[1], want)
		}
		if calls := strings.Join(w.called(t), " "); !strings.HasSuffix(calls, "XCLIENT connect NOOP QUIT disconnect") {
			t.Errorf("called: %s", calls)
		}
	})
}

// refusesTheNew makes w refuse the client that it finds.
func refusesTheNew(w *warden, d decision) {
	w.connect = func(_ *hookContext, conn connection) (decision, error) {
		if conn.RemoteIP == origin.RemoteIP {
			return d, nil
		}
		return nil, nil
	}
}

func TestTheRefusalOfTheNewClientIsTheReplyAndTheEnd(t *testing.T) {
	for _, row := range []struct {
		why    string
		d      decision
		octets string
	}{
		{"554", reply{Code: 554, Enhanced: enhanced{5, 7, 1}, Lines: []string{"Go away"}}, "554 5.7.1 Go away\r\n"},
		{"421", &reply{Code: 421, Lines: []string{"Later"}}, "421 4.0.0 Later\r\n"},
		{"450, several lines", reply{Code: 450, Lines: []string{"a", "b"}}, "450-4.0.0 a\r\n450 4.0.0 b\r\n"},
	} {
		forEachRestartDoor(t, func(t *testing.T, d restartDoor, tr transport) {
			if d.atConnect || d.behind {
				return
			}
			w, pup := newWarden(origin), new(puppet)
			p := new(smtpproxy.Proxy)
			beneath := d.guard(p, w, tr)
			refusesTheNew(w, row.d)
			served := make(chan int, 10)
			serveScript(t, p.Listener(beneath), func(n int, c net.Conn, _ *bufio.Reader) {
				served <- n
				pup.serve(c)
			})
			k := d.arrive(t, tr)
			got, err := io.ReadAll(k.r)
			if string(got) != row.octets || err != nil {
				t.Errorf("%s: got %q, %v; want %q", row.why, got, err, row.octets)
			}
			k.Close() // else it is lingered for
			told := inTime(t, "Disconnect", w.ended)
			if told.end.By != smtpproxy.SideHook || told.end.Reason != smtpproxy.ReasonRefused || told.end.Verb != "XCLIENT" ||
				fmt.Sprint(told.end.Reply.Code) != row.octets[:3] || told.conn.RemoteIP != origin.RemoteIP {
				t.Errorf("told: %s, of %+v", short(told.end), told.conn)
			}
			greeted := 1 // HELO and the like
			if d.tls == "STARTTLS" {
				greeted = 2
			}
			if lines := pup.took(); len(served) != greeted || len(lines) != greeted || len(w.ended) > 0 {
				t.Errorf("the server has had %d connections, and got %q", len(served), lines)
			}
		})
	}
}

func TestWhatIsSentBehindARefusedRestartIsNoCommand(t *testing.T) {
	for _, over := range transports {
		w, pup, tr := newWarden(origin), new(puppet), over(t)
		refusesTheNew(w, reply{Code: 554})
		servePuppet(t, (&smtpproxy.Proxy{Hook: w}).Listener(tr), pup)
		k := dialPeer(t, tr)
		k.expect("220")
		k.send("RSET\r\nXCLIENT\r\nEHLO x\r\nMAIL FROM:<a@a>\r\nQUIT\r\n")
		k.expect("250", "554 5.0.0")
		if rest, _ := io.ReadAll(k.r); len(rest) > 0 {
			t.Errorf("behind the refusal comes %q", rest)
		}
		k.Close()
		if told := inTime(t, "Disconnect", w.ended); told.end.Reason != smtpproxy.ReasonRefused {
			t.Errorf("told: %s", short(told.end))
		}
		if got := verbsOf(pup.took()) + ", " + verbsOf(w.lines()); got != "RSET, RSET XCLIENT" {
			t.Errorf("the server got, and the hook was shown %s", got)
		}
	}
}

func TestTheHooksOwnRestartCountsAndIsNotAskedAbout(t *testing.T) {
	own := smtpproxy.Origin{RemoteIP: netip.MustParseAddr("2001:db8::9"), RemotePort: 9, RemotePTR: "nine.example", HELO: smtpproxy.HELO{Verb: "HELO", Host: "nine.example"}}
	forEachRestartDoor(t, func(t *testing.T, d restartDoor, tr transport) {
		if d.atConnect {
			return
		}
		w := newWarden(origin)
		p := new(smtpproxy.Proxy)
		refuses := func(_ *hookContext, conn connection) (decision, error) {
			switch conn.RemoteIP {
			case origin.RemoteIP:
				return reply{Restart: &own}, nil
			case own.RemoteIP:
				return reply{Code: 554}, nil
			}
			return nil, nil
		}
		w.connect = refuses
		sessions := d.serveShown(t, p, w, tr)
		k := d.arrive(t, tr)
		k.want("", "220")
		d.settle(k)
		k.plays("NOOP|250|" + d.hello("x") + "|250")
		got, conn := newest(t, sessions), w.saw(t, "NOOP").conn
		wantAddr(t, "RemoteAddr", got.remote, "[2001:db8::9]:9")
		wantAddr(t, "LocalAddr", got.local, "203.0.113.25:587")
		if conn.RemoteIP != own.RemoteIP || conn.RemotePort != 9 || conn.RemotePTR != own.RemotePTR || conn.HELO != own.HELO ||
			conn.Auth != (smtpproxy.Auth{}) || conn.LocalIP != origin.LocalIP || conn.LocalPort != 587 {
			t.Errorf("the client is %+v", conn)
		}
		if n := strings.Count(strings.Join(w.called(t), " "), "connect"); n != 2 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

func TestAHookThatFailsWhenItIsAskedOnceMoreEndsTheConnectionWith421(t *testing.T) {
	for _, row := range connectFailures {
		t.Run(row.why, func(t *testing.T) {
			log, failures := new(logbook), make(chan smtpproxy.Failure, 10)
			w, pup, tr := newWarden(origin), new(puppet), overTCP(t)
			w.givenUp = row.within > 0
			w.connect = func(ctx *hookContext, conn connection) (decision, error) {
				if conn.RemoteIP != origin.RemoteIP {
					return nil, nil
				}
				return row.hook(ctx, conn)
			}
			p := &smtpproxy.Proxy{Hook: smtpproxy.Named("gate", w), HookTimeout: row.within, Logger: log.logger(),
				OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision { failures <- f; return nil }}
			servePuppet(t, p.Listener(tr), pup)
			k := talk(t, tr)
			k.want("XCLIENT", "421 4.3.0 Service not available, closing transmission channel")
			k.wantEnd()
			k.Close()                                                                 // else it is lingered for
			if exits := row.err == smtpproxy.ErrHookExit && row.within == 0; !exits { // else nobody can be asked
				if f := inTime(t, "OnFailure", failures); !errors.Is(f, row.err) || f.Hook != "gate" {
					t.Errorf("the failure is %#v", f)
				}
			}
			told := inTime(t, "Disconnect", w.ended)
			if told.end.By != smtpproxy.SideHook || told.end.Reason != smtpproxy.ReasonHookFailed || !errors.Is(told.end.Err, row.err) {
				t.Errorf("told: %s, %v", short(told.end), told.end.Err)
			}
			if lines := log.lines("hook failed"); len(lines) != 1 {
				t.Errorf("logged: %v", lines)
			}
			if lines := pup.took(); len(lines) > 0 {
				t.Errorf("the server got %q", lines)
			}
		})
	}
}

func TestOnFailureDecidesAboutTheNewClientInTheHooksPlace(t *testing.T) {
	for why, row := range map[string]struct {
		instead decision
		want    string
	}{
		"a refusal":               {reply{Code: 450, Lines: []string{"Later"}}, "450 4.0.0 Later"},
		"to let it in":            {pass{}, "220"},
		"that it is another's":    {reply{Restart: &smtpproxy.Origin{RemotePort: 3}}, "220"},
		"what can't be":           {reply{Code: 250}, "421 4.3.0"},
		"a Restart that can't be": {reply{Restart: &smtpproxy.Origin{}, Code: 554}, "421 4.3.0"},
	} {
		t.Run(why, func(t *testing.T) {
			w, tr := newWarden(origin), overTCP(t)
			w.connect = func(_ *hookContext, conn connection) (decision, error) {
				if conn.RemoteIP == origin.RemoteIP {
					return nil, errTest
				}
				return nil, nil
			}
			p := &smtpproxy.Proxy{Hook: w, OnFailure: func(*hookContext, smtpproxy.Failure) decision { return row.instead }}
			servePuppet(t, p.Listener(tr), new(puppet))
			k := talk(t, tr)
			k.want("XCLIENT", row.want)
			if row.want != "220" {
				k.wantEnd()
				k.Close() // else it is lingered for
				return
			}
			k.want("NOOP", "250")
			if got := w.saw(t, "NOOP").conn; got.RemoteIP != origin.RemoteIP || (got.RemotePort == 3) != (why == "that it is another's") {
				t.Errorf("the client is %+v", got)
			}
		})
	}
}

func TestTheFirstOfAChainThatDecidesAboutTheNewClientCounts(t *testing.T) {
	for decides, asked := range []string{"0", "01", "012", "012"} {
		for _, restarts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, another's %v", decides, restarts), func(t *testing.T) {
				var got strings.Builder
				hook := func(i int) smtpproxy.Hook {
					return smtpproxy.Funcs{OnConnect: func(_ *hookContext, conn connection) (decision, error) {
						if conn.RemoteIP != origin.RemoteIP {
							return nil, nil
						}
						fmt.Fprint(&got, i)
						switch {
						case i != decides:
							return nil, nil
						case restarts:
							return reply{Restart: &smtpproxy.Origin{RemotePort: 1}}, nil
						}
						return reply{Code: 554, Lines: []string{fmt.Sprint(i)}}, nil
					}}
				}
				w, tr := newWarden(origin), overTCP(t)
				p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(hook(0), w, smtpproxy.Named("x", smtpproxy.Chain(hook(1))), &smtpproxy.Mux{Else: hook(2)})}
				servePuppet(t, p.Listener(tr), new(puppet))
				want := "220"
				if decides < 3 && !restarts {
					want = fmt.Sprintf("554 5.0.0 %d", decides)
				}
				k := talk(t, tr)
				k.want("XCLIENT", want)
				k.Close() // else it may be lingered for
				if got.String() != asked {
					t.Errorf("asked: %s, want %s", got.String(), asked)
				}
			})
		}
	}
}

// The greeting is a reply as any, for who sees them.
func TestWhoSeesRepliesSeesTheGreetingOfTheFreshServerAsThatToTheCommand(t *testing.T) {
	for why, row := range map[string]struct {
		refuses bool
		want    string
	}{
		"the server's":       {false, `"" 220 server "", "XCLIENT x" 220 server "", "NOOP" 250 server "", "QUIT" 221 server ""`},
		"the hook's refusal": {true, `"" 220 server "", "XCLIENT x" 554 hook "gate"`},
	} {
		for _, byHook := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a hook sees it %v", why, byHook), func(t *testing.T) {
				var seen []string
				var conns []connection
				see := func(x smtpproxy.Exchange) {
					seen = append(seen, fmt.Sprintf("%q %d %v %q", x.Command.Line, x.Reply.Code, x.By, x.Hook))
					conns = append(conns, x.Connection)
				}
				w, tr := newWarden(origin), overTCP(t)
				if row.refuses {
					refusesTheNew(w, reply{Code: 554})
				}
				p := &smtpproxy.Proxy{Hook: smtpproxy.Named("gate", w)}
				if byHook {
					p.Hook = smtpproxy.Chain(p.Hook, smtpproxy.Funcs{OnReply: func(_ *hookContext, x smtpproxy.Exchange) (decision, error) {
						see(x)
						return nil, nil
					}})
				} else {
					p.Observers = []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x smtpproxy.Exchange) { see(x) }}}
				}
				servePuppet(t, p.Listener(tr), new(puppet))
				k := talk(t, tr)
				if row.refuses {
					k.want("XCLIENT x", "554")
				} else {
					k.plays("XCLIENT x|220|NOOP|250|QUIT|221")
				}
				k.wantEnd()
				k.Close() // else it is lingered for
				inTime(t, "Disconnect", w.ended)
				if got := strings.Join(seen, ", "); got != row.want {
					t.Errorf("seen: %s\nwant: %s", got, row.want)
				}
				if conns[0].RemoteIP == origin.RemoteIP || conns[1].RemoteIP != origin.RemoteIP {
					t.Errorf("of %v and %v", conns[0].RemoteIP, conns[1].RemoteIP)
				}
			})
		}
	}
}

// What a hook makes of the greeting, the client gets.
func TestAHookMayChangeTheGreetingOfAFreshServerThatRefuses(t *testing.T) {
	for _, row := range []struct {
		why      string
		greeting string
		change   reply
		want     string
		ends     bool
	}{
		{"its text", "554 5.3.2 no\r\n", reply{Lines: []string{"sorry"}}, "554 5.3.2 sorry", false},
		{"its code, to 421, which is the end", "554 5.3.2 no\r\n", reply{Code: 421, Enhanced: enhanced{4, 3, 2}}, "421 4.3.2 no", true},
		{"Disconnect", "220 x\r\n", reply{Disconnect: true}, "220 x", true},
	} {
		bubble(t, row.why, func(t *testing.T) {
			w := newWarden(origin)
			s := &restartStage{w: w, hook: smtpproxy.Chain(w, amendsAt("XCLIENT", row.change))}
			s.arrives(t, servesBut(func(c net.Conn, r *bufio.Reader) {
				io.WriteString(c, row.greeting)
				for {
					if _, err := r.ReadString('\n'); err != nil {
						return
					}
					io.WriteString(c, "250 x\r\n")
				}
			}))
			s.asks()
			s.k.play("< "+row.want, nil)
			if !row.ends {
				s.k.play("> NOOP|< 250", nil)
				return
			}
			s.k.play("END", nil)
			s.client.Close()
			s.ends("hook: refused, XCLIENT", "")
			time.Sleep(time.Minute) // in a bubble
		})
	}
}
