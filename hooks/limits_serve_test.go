package hooks_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
	"go.uber.org/goleak"
)

// This file holds limits in front of go-smtp's server, over loopback.

// limitsServe serves until the test ends, and returns what a client dials. Nothing is left of
// it then.
func limitsServe(t *testing.T, hook smtpproxy.Hook, opts ...servertest.Option) (*servertest.Server, string) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	var srv *smtp.Server
	s := servertest.GoSMTP(append(opts, servertest.Configure(func(s *smtp.Server) { srv = s }))...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	p := &smtpproxy.Proxy{Hook: hook, AllowInsecureAuth: true, Logger: slog.New(slog.DiscardHandler)}
	go func() { served <- gosmtp.Serve(srv, l, p) }()
	t.Cleanup(func() {
		srv.Close()
		s.Close()
		<-served
	})
	return s, l.Addr().String()
}

// limitsPeer is a client on the network.
type limitsPeer struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// limitsDial connects from an address, and reads no greeting.
func limitsDial(t testing.TB, addr, from string) *limitsPeer {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return &limitsPeer{t, c, bufio.NewReader(c)}
}

// codes reads n replies, and returns their codes, such as "250 421", and "end" for the end.
func (p *limitsPeer) codes(n int) string {
	p.t.Helper()
	var codes []string
	for len(codes) < n {
		line, err := p.r.ReadString('\n')
		if err != nil {
			codes = append(codes, "end")
			break
		}
		if len(line) >= 4 && line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	return strings.Join(codes, " ")
}

// ask sends lines at once, and holds the codes of the replies.
func (p *limitsPeer) ask(lines string, want string) {
	p.t.Helper()
	io.WriteString(p, strings.ReplaceAll(lines, "\n", "\r\n")+"\r\n")
	if got := p.codes(strings.Count(want, " ") + 1); got != want {
		p.t.Fatalf("%.60q: got %s, want %s", lines, got, want)
	}
}

// limitsClosed waits for the end of a connection.
func (p *limitsPeer) closed() {
	p.t.Helper()
	if got := p.codes(1); got != "end" {
		p.t.Fatalf("got %s, want the end", got)
	}
}

const limitsEnvelope = "MAIL FROM:<a@example.com>\nRCPT TO:<b@example.org>"

func TestAThousandConnectionsAtOnceNeverExceedALimitOfAHundred(t *testing.T) {
	const clients, limit = 1000, 100
	var here, most, let atomic.Int64
	type letIn struct{ is bool }
	gone := smtpproxy.Funcs{OnDisconnect: func(ctx *smtpproxy.Context, _ smtpproxy.Connection, _ smtpproxy.End) {
		if smtpproxy.State[letIn](ctx).is {
			here.Add(-1)
		}
	}}
	come := smtpproxy.Funcs{OnConnect: func(ctx *smtpproxy.Context, _ smtpproxy.Connection) (smtpproxy.Decision, error) {
		smtpproxy.State[letIn](ctx).is = true
		let.Add(1)
		n := here.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return nil, nil
	}}
	store, b := new(hooks.MemoryStore), hooks.Bucket{What: hooks.Connections, Per: hooks.PerNetwork, Max: limit, Who: "127.0.0.1/32"}
	limits := hooks.Limits{Limits: []hooks.Limit{{What: b.What, Per: b.Per, Max: b.Max}}, Store: store}.Hook()
	_, addr := limitsServe(t, smtpproxy.Chain(gone, limits, come))
	for range 2 { // the second time, all of the first are given back
		let.Store(0)
		peers := make([]*limitsPeer, clients)
		var wg sync.WaitGroup
		for i := range peers {
			peers[i] = limitsDial(t, addr, "127.0.0.1")
			wg.Go(func() {
				if got := peers[i].codes(1); got != "220" && got != "421" {
					t.Errorf("greeted with %s", got)
				}
			})
		}
		wg.Wait()
		if n := let.Load(); n != limit {
			t.Errorf("%d of %d clients were let in, want %d", n, clients, limit)
		}
		for _, p := range peers {
			p.Close()
		}
		for end := time.Now().Add(10 * time.Second); !take(t, store, b, limit); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("they aren't all given back")
			}
		}
		charge(t, store, b, -limit)
	}
	if n := most.Load(); n != limit {
		t.Errorf("%d connections at once, want %d", n, limit)
	}
}

func TestALimitHoldsForClientsThatSendAllAtOnce(t *testing.T) {
	limit := func(what hooks.Counted, n int) smtpproxy.Hook {
		return hooks.Limits{Limits: []hooks.Limit{{What: what, Max: n, Beyond: smtpproxy.Reply{Code: 459, Disconnect: true}}}}.Hook()
	}
	for _, test := range []struct {
		name, lines, want string
		hook              smtpproxy.Hook
	}{
		{"commands", "EHLO x\nNOOP\nNOOP\nNOOP\nNOOP", "250 250 250 459 end", limit(hooks.Commands, 3)},
		{"errors", "EHLO x\nVRFY\nXYZZY\nRCPT\nNOOP\nNOOP", "250 252 501 503 459 end", limit(hooks.Errors, 2)},
		{"unknown verbs", "EHLO x\nXYZZY\nEXPN a\nXYZW\nNOOP\nNOOP", "250 501 502 500 459 end", limit(hooks.UnknownVerbs, 2)},
		{"recipients", "EHLO x\n" + limitsEnvelope + strings.Repeat("\nRCPT TO:<c@example.org>", 3), "250 250 250 250 459 end", limit(hooks.Recipients, 2)},
		{"wrong recipients", "EHLO x\nMAIL FROM:<a@b>" + strings.Repeat("\nRCPT TO:<nobody@example.org>", 3), "250 250 550 550 459 end", limit(hooks.WrongRecipients, 2)},
		{"unauthenticated commands", "EHLO x\nNOOP\nNOOP\nNOOP", "250 250 459 end", limit(hooks.Unauthenticated, 2)},
		{"failed AUTH", "EHLO x" + strings.Repeat("\nAUTH PLAIN AGEAYg==", 3), "250 535 535 459 end", limit(hooks.FailedAUTH, 2)},
		{"failed AUTH in exchanges", "EHLO x" + strings.Repeat("\nAUTH PLAIN\nAGEAYg==", 3), "250 334 535 334 535 459 end", limit(hooks.FailedAUTH, 2)},
		{"octets of chunks", "EHLO x\n" + limitsEnvelope + strings.Repeat("\nBDAT 6\nNOOP", 4), "250 250 250 250 250 459 end", limit(hooks.Octets, 12)},
		{"messages in chunks", "EHLO x" + strings.Repeat("\n"+limitsEnvelope+"\nBDAT 6 last\nNOOP", 2), "250 250 250 250 459 end", limit(hooks.Messages, 1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, addr := limitsServe(t, test.hook)
			c := limitsDial(t, addr, "127.0.0.1")
			c.codes(1)
			c.ask(test.lines, test.want)
		})
	}
}

func TestOctetsAreThoseOfContentPerConnectionAndPerNetworkAndSenderAndLogin(t *testing.T) {
	message := "DATA\n" + strings.Repeat("0123456789\n", 100) + "."
	for _, per := range limitsPers {
		t.Run(per.String(), func(t *testing.T) {
			_, addr := limitsServe(t, hooks.Limits{Limits: []hooks.Limit{
				{What: hooks.Octets, Per: per, Max: 2000, Every: time.Hour, Beyond: beyond},
			}}.Hook())
			open := func(from, sender string) *limitsPeer {
				c := limitsDial(t, addr, from)
				c.codes(1)
				c.ask("EHLO x", "250")
				if per == hooks.PerLogin && from == "127.0.0.1" {
					c.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00user\x00pass")), "235")
				}
				return c
			}
			envelope := "MAIL FROM:<a@example.com>\nRCPT TO:<b@example.org>"
			a := open("127.0.0.1", "a")
			for range 2 {
				a.ask(envelope+"\n"+message, "250 250 354 250")
			}
			want := "459"
			if per == hooks.PerSender {
				want = "250 459" // who sends isn't known at MAIL
			}
			a.ask(envelope, want)
			b, want := open("127.0.0.1", "a"), want
			if per == hooks.PerConnection {
				want = "250 250"
			}
			b.ask(envelope, want)
			if per == hooks.InAll {
				return
			}
			other := open("127.0.0.2", "b")
			other.ask("MAIL FROM:<b@example.com>\nRCPT TO:<b@example.org>\n"+message, "250 250 354 250")
		})
	}
}

func TestInLMTPOctetsCountOnceHoweverManyStatusesThereAre(t *testing.T) {
	for _, early := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := &smtpproxy.Proxy{Hook: limitsOf(hooks.Limit{What: hooks.Octets, Max: 2000}), Logger: slog.New(slog.DiscardHandler)}
		s := servertest.GoSMTPLMTP(early)
		served := make(chan error, 1)
		go func() { served <- s.Serve(p.Listener(l)) }()
		c := limitsDial(t, l.Addr().String(), "127.0.0.1")
		c.codes(1)
		c.ask("LHLO x", "250")
		message := "MAIL FROM:<a@b>" + strings.Repeat("\nRCPT TO:<b@example.org>", 3) + "\nDATA\n" + strings.Repeat("0123456789\n", 80) + "."
		for range 2 { // of 960 octets, and some more
			c.ask(message, "250 250 250 250 354 250 250 250")
		}
		c.ask(message[:strings.Index(message, "\n")], "250")
		c.ask("RSET\n"+message, "250 250 250 250 250 354 250 250 250")
		c.ask("MAIL FROM:<a@b>", "459")
		c.Close()
		s.Close()
		<-served
	}
}

func TestAMessageThatIsBrokenOffCountsWithWhatHasCome(t *testing.T) {
	limit := hooks.Limit{What: hooks.Octets, Per: hooks.PerNetwork, Max: 100_000, Every: 1000 * time.Hour, Beyond: beyond}
	b := hooks.Bucket{What: limit.What, Per: limit.Per, Max: limit.Max, Every: limit.Every, Who: "127.0.0.1/32"}
	for name, s := range map[string]*servertest.Server{
		"a server that says so":                    servertest.GoSMTP(),
		"a server that closes the connection then": servertest.Strict(),
	} {
		t.Run(name, func(t *testing.T) {
			store := new(hooks.MemoryStore)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			p := &smtpproxy.Proxy{Hook: limitsIn(hooks.Limits{Store: store}, limit), Logger: slog.New(slog.DiscardHandler)}
			served := make(chan error, 1)
			go func() { served <- s.Serve(p.Listener(l)) }()
			defer func() { s.Close(); <-served }()
			c := limitsDial(t, l.Addr().String(), "127.0.0.1")
			c.codes(1)
			c.ask("EHLO x", "250")
			for range 30 { // commands are no content
				c.ask("NOOP "+strings.Repeat("x", 500), "250")
			}
			content := strings.Repeat(strings.Repeat("x", 98)+"\r\n", 200)
			c.ask(limitsEnvelope+"\nDATA", "250 250 354")
			io.WriteString(c, content+".\r\n")
			if got := c.codes(1); got != "250" {
				t.Fatal(got)
			}
			c.ask(limitsEnvelope+"\nDATA", "250 250 354")
			io.WriteString(c, content+content)
			c.Conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
			const sent = 60_000
			for end := time.Now().Add(10 * time.Second); take(t, store, b, 100_000-sent+100); time.Sleep(time.Millisecond) {
				if charge(t, store, b, -(100_000 - sent + 100)); time.Now().After(end) {
					t.Fatal("it isn't counted")
				}
			}
			if !take(t, store, b, 100_000-sent-300) {
				t.Error("more is counted than has come")
			}
		})
	}
}

func TestRefusingLeavesClientAndServerInStep(t *testing.T) {
	for verb, lines := range map[string][2]string{
		"BDAT":       {"BDAT 6\nNOOP\nNOOP", "450 450"},
		"BDAT LAST":  {"BDAT 6 LAST\nNOOP\nNOOP", "450 450"},
		"DATA":       {"DATA\nNOOP", "450 450"},
		"STARTTLS":   {"STARTTLS\nNOOP", "450 450"},
		"AUTH":       {"AUTH PLAIN AHVzZXIAcGFzcw==\nNOOP", "450 450"},
		"EHLO":       {"EHLO y\nNOOP", "450 450"},
		"an unknown": {"XYZZY\nNOOP", "450 450"},
		"none":       {"\n123\nNOOP", "450 450 450"},
		"QUIT":       {"QUIT", "221"},
	} {
		t.Run(verb, func(t *testing.T) {
			s, addr := limitsServe(t, hooks.Limits{Limits: []hooks.Limit{
				{What: hooks.Commands, Max: 3, Beyond: smtpproxy.Reply{Code: 450}},
			}}.Hook())
			c := limitsDial(t, addr, "127.0.0.1")
			c.codes(1)
			c.ask("EHLO x\n"+limitsEnvelope, "250 250 250")
			c.ask(lines[0], lines[1])
			if got := fmt.Sprint(s.Commands()); verb != "QUIT" && got != "[MAIL a@example.com RCPT b@example.org]" {
				t.Errorf("the server got %s", got)
			}
		})
	}
}

func TestNothingIsGotAroundByReconnecting(t *testing.T) {
	for _, test := range []struct {
		what        hooks.Counted
		lines, want string
		then        string
	}{
		{hooks.Commands, "NOOP\nNOOP", "250 250", "NOOP"},
		{hooks.Errors, "VRFY\nXYZZY\nXYZZY", "252 501 501", "NOOP"},
		{hooks.Recipients, "EHLO x\n" + limitsEnvelope + "\nRCPT TO:<c@example.org>", "250 250 250 250", "RCPT TO:<b@example.org>"},
		{hooks.WrongRecipients, "EHLO x\nMAIL FROM:<a@b>\nRCPT TO:<nobody@x>\nRCPT TO:<nobody@x>", "250 250 550 550", "RCPT TO:<b@example.org>"},
		{hooks.FailedAUTH, "EHLO x\nAUTH PLAIN AGEAYg==\nAUTH PLAIN AGEAYg==", "250 535 535", "AUTH PLAIN AHVzZXIAcGFzcw=="},
		{hooks.Messages, "EHLO x" + strings.Repeat("\n"+limitsEnvelope+"\nBDAT 0 LAST", 2), "250 250 250 250 250 250 250", "MAIL FROM:<b@example.com>"},
	} {
		t.Run(test.what.String(), func(t *testing.T) {
			_, addr := limitsServe(t, hooks.Limits{Limits: []hooks.Limit{
				{What: test.what, Per: hooks.PerNetwork, Max: 2, Every: time.Hour, Beyond: beyond},
			}}.Hook())
			c := limitsDial(t, addr, "127.0.0.1")
			c.codes(1)
			c.ask(test.lines, test.want)
			c.Close()
			c = limitsDial(t, addr, "127.0.0.1")
			c.codes(1)
			c.ask(test.then, "459")
			other := limitsDial(t, addr, "127.0.0.2")
			other.codes(1)
			if other.ask("NOOP", "250"); test.what == hooks.Commands {
				other.ask("NOOP", "250")
			}
		})
	}
}
