package hooks_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestWhoTalksBeforeTheGreetingIsRefused(t *testing.T) {
	early := with(ungreeted, func(c *smtpproxy.Connection) { c.EarlyTalker = true })
	earlyOnUnix := with(early, func(c *smtpproxy.Connection) { c.RemoteIP = netip.Addr{} })
	const refused = "554 5.5.1 You have spoken before the greeting (close)"
	for _, line := range knownVerbs {
		want := refused
		if line == "QUIT" {
			want = ""
		}
		takesTurns(t, &hooks.EarlyTalkers{}, []turn{{"an early talker", early, smtpproxy.Transaction{}, line, want}, {"on a unix socket", earlyOnUnix, smtpproxy.Transaction{}, line, want}})
	}
	takesTurns(t, &hooks.EarlyTalkers{}, []turn{
		{"QUIT, as some that watch servers send it", early, smtpproxy.Transaction{}, "quit", ""},
		{"without a verb", early, smtpproxy.Transaction{}, "\u00e9", refused},
		{"who has waited", ungreeted, smtpproxy.Transaction{}, "EHLO c.example", ""},
	})
	takesTurns(t, &hooks.EarlyTalkers{Reply: smtpproxy.Reply{Code: 450, Lines: []string{"Wait"}}}, []turn{
		{"a reply of one's own", early, smtpproxy.Transaction{}, "EHLO c.example", "450 4.5.1 Wait (close)"},
	})
}

func TestTheGreetingIsHeldBack(t *testing.T) {
	for _, row := range []struct {
		why   string
		delay time.Duration
		conn  smtpproxy.Connection
		want  time.Duration
	}{
		{"not by the zero value", 0, ungreeted, 0},
		{"for Delay", 5 * time.Second, ungreeted, 5 * time.Second},
		{"on a unix socket", 5 * time.Second, onUnix, 5 * time.Second},
	} {
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: &hooks.EarlyTalkers{Delay: row.delay}}, row.conn, smtpproxy.Transaction{})
		d, ok := s.Connect().(smtpproxy.Pass)
		if !ok || d.Delay != row.want || s.Reply().Code != 220 {
			t.Errorf("%s: %+v, %v", row.why, d, s.Reply())
		}
	}
}

func TestWhoIsToldOfWithXCLIENTWaitsOnce(t *testing.T) {
	for _, args := range []string{"ADDR=203.0.113.7", "ADDR=203.0.113.7 PORT=49152", "ADDR=[UNAVAILABLE]", "PORT=7"} {
		delays := new([]time.Duration)
		e := &hooks.EarlyTalkers{Delay: 5 * time.Second}
		asked := smtpproxy.Funcs{OnConnect: func(ctx *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			d, err := e.Connect(ctx, conn)
			pass, _ := d.(smtpproxy.Pass)
			*delays = append(*delays, pass.Delay)
			return d, err
		}}
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, asked)})
		s.Connect()
		s.Send("EHLO front.example")
		s.Send("XCLIENT " + args)
		if got := *delays; len(got) != 2 || got[0] != 5*time.Second || got[1] != 0 || s.Reply().Code != 220 {
			t.Errorf("%s: %v, %v", args, got, s.Reply())
		}
	}
}

// earlyServer serves, with EarlyTalkers, a server that greets and takes EHLO and QUIT.
func earlyServer(t *testing.T, l net.Listener, e *hooks.EarlyTalkers) {
	t.Helper()
	wrapped := (&smtpproxy.Proxy{Hook: e}).Listener(l)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := wrapped.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, "220 mx.example ESMTP\r\n")
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if line == "QUIT\r\n" {
						io.WriteString(c, "221 Bye\r\n")
						return
					}
					io.WriteString(c, "250 mx.example\r\n")
				}
			}()
		}
	}()
	t.Cleanup(func() { wrapped.Close(); <-done })
}

func TestOnASocketAnEarlyTalkerIsKnown(t *testing.T) {
	const delay = 300 * time.Millisecond
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = t.TempDir() + "/s"
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		earlyServer(t, l, &hooks.EarlyTalkers{Delay: delay})
		for _, row := range []struct {
			why, early, then, want string
		}{
			{"who talks at once", "EHLO c.example\r\n", "", "220 mx.example ESMTP\r\n554 5.5.1 You have spoken before the greeting\r\n"},
			{"who sends all of it at once", "HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", "", "220 mx.example ESMTP\r\n554 5.5.1 You have spoken before the greeting\r\n"},
			{"who waits", "", "EHLO c.example\r\nQUIT\r\n", "220 mx.example ESMTP\r\n250 mx.example\r\n221 Bye\r\n"},
			{"who says QUIT", "QUIT\r\n", "", "220 mx.example ESMTP\r\n221 Bye\r\n"},
		} {
			began := time.Now()
			c, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(began.Add(20 * time.Second))
			io.WriteString(c, row.early)
			r := bufio.NewReader(c)
			greeting, err := r.ReadString('\n')
			if took := time.Since(began); err != nil || took < delay {
				t.Errorf("%s, %s: greeted after %v, %v", network, row.why, took, err)
			}
			io.WriteString(c, row.then)
			rest, _ := io.ReadAll(r)
			if got := greeting + string(rest); got != row.want {
				t.Errorf("%s, %s: %q, want %q", network, row.why, got, row.want)
			}
			c.Close()
		}
	}
}

// bubbled is a listener with connections that are made in a bubble.
type bubbled struct {
	conns chan net.Conn
	over  chan struct{}
}

func (b bubbled) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 25), Port: 25} }
func (b bubbled) Close() error   { close(b.over); return nil }
func (b bubbled) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.over:
		return nil, net.ErrClosed
	}
}

func TestTheWaitForTheGreetingIsExactAndEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bubbled{make(chan net.Conn), make(chan struct{})}
		earlyServer(t, b, &hooks.EarlyTalkers{Delay: time.Minute})
		began := time.Now()
		client, server := net.Pipe()
		b.conns <- server
		line, err := bufio.NewReader(client).ReadString('\n')
		if took := time.Since(began); took != time.Minute || !strings.HasPrefix(line, "220 ") {
			t.Errorf("%q, %v, after %v", line, err, took)
		}
		client.Close()

		client, server = net.Pipe()
		b.conns <- server
		synctest.Wait()
		client.Close()
		time.Sleep(2 * time.Minute)
		synctest.Wait() // whoever still waits would keep the bubble from ending
	})
}
