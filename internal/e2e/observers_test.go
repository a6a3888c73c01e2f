package e2e

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about observers: what they are told, in what order, and that they decide
// nothing.

// ledger notes what a hook and observers are called for, and that no two calls are at the same
// time.
type ledger struct {
	mu     sync.Mutex
	busy   string
	events []string
	faults []string
}

// call notes a call, which takes a while.
func (l *ledger) call(what string) {
	l.mu.Lock()
	if l.busy != "" {
		l.faults = append(l.faults, what+" beside "+l.busy)
	}
	l.busy = what
	l.events = append(l.events, what)
	l.mu.Unlock()
	time.Sleep(time.Millisecond) // in a bubble
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = ""
}

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(l.events, l.faults...), "|")
}

// observer notes what it is told, in lower case.
func (l *ledger) observer() smtpproxy.Observer {
	return smtpproxy.Observer{
		Connected: func(_ *hookContext, conn connection) { l.call("connected " + conn.TLS.Protocol) },
		Exchanged: func(_ *hookContext, x shownExchange) {
			l.call(strings.TrimSpace("exchanged " + x.Command.Verb() + fmt.Sprint(" ", x.Reply.Code)))
		},
		StartedTLS: func(_ *hookContext, conn connection, err error) {
			l.call(fmt.Sprint("tls ", conn.TLS.Protocol, " ", err == nil))
		},
		Failed: func(_ *hookContext, f smtpproxy.Failure) { l.call("failed " + f.Hook) },
		Disconnected: func(_ *hookContext, _ connection, e end) {
			l.call(fmt.Sprint("disconnected ", e.By, " ", e.Reason))
		},
	}
}

// hook notes what it is asked, with a capital.
func (l *ledger) hook(fails string) smtpproxy.Hook {
	noted := func(what string) error {
		l.call(what)
		if what == fails {
			return errTest
		}
		return nil
	}
	return smtpproxy.Named("h", smtpproxy.Funcs{
		OnConnect: func(*hookContext, connection) (decision, error) {
			if fails == "refuses" {
				l.call("Connect")
				return reply{Code: 554}, nil
			}
			return nil, noted("Connect")
		},
		OnCommand: func(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
			return nil, noted("Command " + cmd.Verb())
		},
		OnKeywords: func(*hookContext, connection, *smtpproxy.Keywords) error { return noted("Keywords") },
		OnReply: func(_ *hookContext, x shownExchange) (decision, error) {
			return nil, noted("Reply " + x.Command.Verb())
		},
		OnDisconnect: func(*hookContext, connection, end) { l.call("Disconnect") },
	})
}

// observedRows are connections, and all calls of hook and observer.
var observedRows = []struct {
	why    string
	proxy  smtpproxy.Proxy
	fails  string // what fails in the hook
	server endServer
	say    string
	want   string
}{
	{why: "without TLS", server: ofScript("S: 220 x|C: EHLO x|S: 250 x|C: QUIT|S: 221 x"), say: "< 220|> EHLO x|< 250|> QUIT|< 221|END",
		want: "connected |Connect|Reply |exchanged  220|Command EHLO|Keywords|Reply EHLO|exchanged EHLO 250|Command QUIT|Reply QUIT|exchanged QUIT 221|Disconnect|disconnected client quit"},
	{why: "TLS first", proxy: smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true}, server: ofScript("S: 220 x|END"), say: "TLS|< 220|FIN",
		want: "connected |tls TLSv1.3 true|Connect|Reply |exchanged  220|Disconnect|disconnected client client gone"},
	{why: "TLS first, which fails", proxy: smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true}, server: ofScript("END"), say: "NOTLS",
		want: "connected |tls  false|Disconnect|disconnected client TLS failed"},
	{why: "SMTP where TLS comes first", proxy: smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true}, server: ofScript("END"), say: "> EHLO x|< 554|END",
		want: "connected |Reply |exchanged  554|tls  false|Disconnect|disconnected client TLS failed"},
	{why: "STARTTLS", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()}, server: ofScripts("S: 220 x|C: EHLO x|S: 250 x|END", "S: 220 x|C: EHLO y|S: 250 x|END"), say: "< 220|> EHLO x|< 250|> STARTTLS|< 220|TLS|> EHLO y|< 250|FIN",
		want: "connected |Connect|Reply |exchanged  220|Command EHLO|Keywords|Reply EHLO|exchanged EHLO 250|Command STARTTLS|Reply STARTTLS|exchanged STARTTLS 220|tls TLSv1.3 true|Command EHLO|Keywords|Reply EHLO|exchanged EHLO 250|Disconnect|disconnected client client gone"},
	{why: "STARTTLS, which fails", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()}, server: ofScript("S: 220 x|END"), say: "< 220|> STARTTLS|< 220|NOTLS",
		want: "connected |Connect|Reply |exchanged  220|Command STARTTLS|Reply STARTTLS|exchanged STARTTLS 220|tls  false|Disconnect|disconnected client TLS failed"},
	{why: "refused in the place of the greeting", fails: "refuses", server: ofScript("END"), say: "< 554|END",
		want: "connected |Connect|Reply |exchanged  554|Disconnect|disconnected hook refused"},
	{why: "the hook has failed in the place of the greeting", fails: "Connect", server: ofScript("END"), say: "< 421|END",
		want: "connected |Connect|failed h|Reply |exchanged  421|Disconnect|disconnected hook hook failed"},
	{why: "the hook has failed at a command", fails: "Command NOOP", server: ofScript("S: 220 x|END"), say: "< 220|> NOOP|< 421|END",
		want: "connected |Connect|Reply |exchanged  220|Command NOOP|failed h|Reply NOOP|exchanged NOOP 421|Disconnect|disconnected hook hook failed"},
	{why: "the hook has failed at the keywords", fails: "Keywords", server: ofScript("S: 220 x|C: EHLO x|S: 250 x|END"), say: "< 220|> EHLO x|< 421|END",
		want: "connected |Connect|Reply |exchanged  220|Command EHLO|Keywords|failed h|Reply EHLO|exchanged EHLO 421|Disconnect|disconnected hook hook failed"},
	{why: "the hook has failed at a reply", fails: "Reply NOOP", server: ofScript("S: 220 x|C: NOOP|S: 250 x|END"), say: "< 220|> NOOP|< 250|FIN",
		want: "connected |Connect|Reply |exchanged  220|Command NOOP|Reply NOOP|failed h|exchanged NOOP 250|Disconnect|disconnected client client gone"},
}

func TestObserversAreToldInOrderAndNeverBesideTheHook(t *testing.T) {
	for _, row := range observedRows {
		for _, timeout := range []time.Duration{0, time.Hour} {
			bubble(t, fmt.Sprint(row.why, ", HookTimeout ", timeout), func(t *testing.T) {
				l, p := new(ledger), row.proxy
				p.Hook, p.Observers, p.HookTimeout = l.hook(row.fails), []smtpproxy.Observer{l.observer()}, timeout
				playsWith(t, row.server, &p, row.say)
				if got := l.String(); got != row.want {
					t.Errorf("called: %s\nwant:   %s", got, row.want)
				}
			})
		}
	}
}

// each is an observer that does the same whatever it is told.
func each(f func(what string)) smtpproxy.Observer {
	return smtpproxy.Observer{
		Connected:    func(*hookContext, connection) { f("Connected") },
		Exchanged:    func(*hookContext, shownExchange) { f("Exchanged") },
		StartedTLS:   func(*hookContext, connection, error) { f("StartedTLS") },
		Failed:       func(*hookContext, smtpproxy.Failure) { f("Failed") },
		Disconnected: func(*hookContext, connection, end) { f("Disconnected") },
	}
}

// everything has one of each function called; the hook fails at NOOP.
const everything = "< 220|> STARTTLS|< 220|TLS|> EHLO y|< 250|> NOOP|< 421|END"

var everythingServer = ofScripts("S: 220 x|END", "S: 220 x|C: EHLO y|S: 250 x|END")

func everythingHook() smtpproxy.Hook {
	return decide(func(cmd command) (decision, error) {
		if cmd.Verb() == "NOOP" {
			return nil, errTest
		}
		return nil, nil
	})
}

func TestAnObserverThatPanicsIsLoggedAndNothingElseHappens(t *testing.T) {
	bubble(t, "panics", func(t *testing.T) {
		log := new(logbook)
		want, told := "220 x\r\n220 2.0.0 Ready to start TLS\r\n250 x\r\n421 4.3.0 Service not available, closing transmission channel\r\n", make(map[string]int)
		octets, ends := playsWith(t, everythingServer, &smtpproxy.Proxy{TLSConfig: serverTLS(), Hook: everythingHook(), Logger: log.logger(),
			Observers: []smtpproxy.Observer{{}, each(func(what string) { panic(what) }), each(func(what string) { told[what]++ })}}, everything)
		if octets != want {
			t.Errorf("the client got %q, want %q", octets, want)
		}
		if fmt.Sprint(told) != "map[Connected:1 Disconnected:1 Exchanged:4 Failed:1 StartedTLS:1]" {
			t.Errorf("the next one is told: %v", told)
		}
		if len(ends) != 1 || ends[0].By != smtpproxy.SideHook || ends[0].Reason != smtpproxy.ReasonHookFailed {
			t.Errorf("the end: %+v", ends)
		}
		entries := log.lines("observer panicked")
		for _, e := range entries {
			told[e.attrs["panic"]]--
			if e.level != slog.LevelError || !strings.Contains(e.attrs["stack"], "observers_test.go") {
				t.Errorf("logged: %v", e)
			}
		}
		if len(entries) != 8 || fmt.Sprint(told) != "map[Connected:0 Disconnected:0 Exchanged:0 Failed:0 StartedTLS:0]" {
			t.Errorf("logged: %v", entries)
		}
	})
}

func TestAnObserverThatEndsItsGoroutineIsLoggedAndLosesNoReply(t *testing.T) {
	bubble(t, "Exchanged", func(t *testing.T) {
		log := new(logbook)
		octets, ends := playsWith(t, ofScript(srvRcpt+"C: DATA|S: 354 go|C: .|S: 250 2.0.0 x|NEVER"), &smtpproxy.Proxy{Logger: log.logger(),
			Observers: []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x shownExchange) {
				if x.Command.Verb() == "DATA" && x.Reply.Code == 250 {
					runtime.Goexit()
				}
			}}}}, toRcpt+"> DATA|< 354|> .|< 250|< 421|END")
		if !strings.Contains(octets, "250 2.0.0 x\r\n421 4.3.0 ") || len(ends) != 1 || len(log.lines("observer called runtime.Goexit")) != 1 {
			t.Errorf("the client got %q; the end: %v; logged: %v", octets, ends, log.lines(""))
		}
	})
}

func TestAnObserverThatTakesItsTimeCostsNeitherSideAnyOfTheirs(t *testing.T) {
	bubble(t, "an hour each", func(t *testing.T) {
		server := ofGoSMTP(servertest.Configure(func(s *smtp.Server) { s.ReadTimeout, s.WriteTimeout = 10*time.Second, 10*time.Second }))
		_, ends := playsWith(t, server, &smtpproxy.Proxy{TLSConfig: serverTLS(), CommandTimeout: time.Minute,
			Observers: []smtpproxy.Observer{each(func(string) { time.Sleep(time.Hour) })}}, // in a bubble
			hello+"WAIT 4s|> RCPT TO:<b@b>|< 5|WAIT 4s|> MAIL FROM:<a@a>|< 250|> STARTTLS|< 503|> RSET|< 250|> STARTTLS|< 220|TLS|> EHLO x|< 250|WAIT 4s|> QUIT|< 221|END")
		if len(ends) != 1 || short(ends[0]) != "client: quit, QUIT 221 closed, 6 commands, 0 messages, 0 recipients" {
			t.Errorf("the end: %v", ends)
		}
	})
}

func TestAnObserverMayCloseTheServer(t *testing.T) {
	for _, at := range []string{"Connected", "Exchanged", "StartedTLS", "Failed", "Disconnected"} {
		bubble(t, at, func(t *testing.T) {
			var srv *smtp.Server
			closed := make(chan bool, 100)
			told := make(map[string]int)
			p := &smtpproxy.Proxy{TLSConfig: serverTLS(), Hook: everythingHook(), Observers: []smtpproxy.Observer{each(func(what string) {
				if told[what]++; what == at {
					srv.Close()
					closed <- true
				}
			})}}
			server := func(_ *testing.T, p *smtpproxy.Proxy) (func(net.Listener) error, func() error) {
				servertest.GoSMTP(servertest.Configure(func(s *smtp.Server) { srv = s }))
				return func(l net.Listener) error { return gosmtp.Serve(srv, l, p) }, srv.Close
			}
			serve, stop := server(t, p)
			tr, served := overCable(), make(chan struct{})
			go func() {
				defer close(served)
				serve(tr)
			}()
			c, err := tr.dial()
			if err != nil {
				t.Fatal(err)
			}
			// The client says all of it, as far as it gets.
			client := make(chan struct{})
			go func() {
				defer close(client)
				defer c.Close()
				buf := make([]byte, 4096)
				if n, _ := c.Read(buf); n == 0 {
					return
				}
				if at == "StartedTLS" {
					c.Write([]byte("STARTTLS\r\n"))
					if n, _ := c.Read(buf); n == 0 {
						return
					}
					k := newCaller(t, c)
					k.play("TLS", nil)
					k.c.Read(buf)
					return
				}
				c.Write([]byte("NOOP\r\n"))
				for err := error(nil); err == nil; {
					_, err = c.Read(buf)
				}
			}()
			inTime(t, "the server's Close, from within "+at, closed)
			<-client
			stop()
			tr.Close()
			<-served
			synctest.Wait()
			if told["Connected"] != 1 || told["Disconnected"] != 1 {
				t.Errorf("told: %v", told)
			}
		})
	}
}

// A server may close while HookFor is at work: who is told of its failure is told of the end
// behind that.
func TestTheEndIsToldBehindHookForWhateverComesOfIt(t *testing.T) {
	for why, chooses := range map[string]func() smtpproxy.Hook{
		"it panics":      func() smtpproxy.Hook { panic("no") },
		"it chooses one": func() smtpproxy.Hook { return everythingHook() },
	} {
		bubble(t, why, func(t *testing.T) {
			l, asked, goOn := new(ledger), make(chan bool), make(chan bool)
			p := &smtpproxy.Proxy{Observers: []smtpproxy.Observer{l.observer()}, HookFor: func(connection) smtpproxy.Hook {
				asked <- true
				<-goOn
				l.call("HookFor")
				return chooses()
			}}
			c := runScript(t, overCable(), p, func(c net.Conn) {
				go func() {
					<-asked
					c.Close()
					time.Sleep(time.Second) // in a bubble
					goOn <- true
				}()
				c.Write([]byte("220 x\r\n"))
			})
			c.SetDeadline(time.Time{})
			c.expectEnd()
			time.Sleep(time.Minute) // in a bubble
			want := "connected |HookFor|disconnected server server closed"
			if why == "it panics" {
				want = "connected |HookFor|failed |disconnected server server closed"
			}
			if got := l.String(); got != want {
				t.Errorf("called: %s\nwant:   %s", got, want)
			}
		})
	}
}

// printExchange prints an exchange in all ways that are meant to be safe.
func printExchange(o *output, x shownExchange) error {
	if x.Command.Verb() == "EHLO" {
		return nil // which has none
	}
	for _, v := range []any{x, &x, []shownExchange{x}, map[string]shownExchange{"x": x}, struct{ X shownExchange }{x}} {
		fmt.Fprintf(o, "%v %+v %#v %s %q %x %d\n", v, v, v, v, v, v, v)
		fmt.Fprintln(o, v)
	}
	fmt.Fprintf(o, "%+v %#v %s", &x.Command, x.Passed, []command{x.Command, x.Passed})
	for _, h := range []slog.Handler{slog.NewTextHandler(o, nil), slog.NewJSONHandler(o, nil)} {
		slog.New(h).Info("exchange", "exchange", x, slog.Group("in", "exchange", &x))
	}
	b, err := json.Marshal(x)
	o.Write(b)
	return err
}

func TestNoCredentialIsInWhatAnExchangePrints(t *testing.T) {
	seen := 0
	for name, lines := range secretExchanges {
		for why, h := range map[string]smtpproxy.Hook{
			"nobody asks":                     nil,
			"a hook asks for each line":       always(pass{Next: true}),
			"a hook has an exchange":          always(reply{Code: 334}),
			"a hook refuses each line":        always(reply{Code: 535, Next: true}),
			"a hook makes another line of it": decide(func(cmd command) (decision, error) { return pass{Command: cmd.Line + " ", Next: true}, nil }),
		} {
			out := new(output)
			looks := smtpproxy.Funcs{OnReply: func(_ *hookContext, x shownExchange) (decision, error) { return nil, printExchange(out, x) }}
			s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(h, looks), AllowInsecureAuth: true, Observers: []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x shownExchange) {
				if len(leaks([]byte(x.Command.Line))) > 0 {
					seen++
				}
				if err := printExchange(out, x); err != nil {
					t.Error(err)
				}
			}}}})
			if strings.Contains(name, "wrong") {
				s.Answer("AUTH", 334, "")
				s.Answer("AUTH", 535, "5.7.8 Wrong")
			}
			for _, line := range append([]string{"EHLO x"}, lines...) {
				if !s.Closed() {
					s.Send(line)
				}
			}
			if found := leaks(out.Bytes()); len(found) > 0 {
				t.Errorf("%s, %s: %q in\n%s", name, why, found, out)
			}
		}
	}
	if seen < 3*len(secretExchanges) {
		t.Errorf("%d credentials were shown: the test says little", seen)
	}
}
