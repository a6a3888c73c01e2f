package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file holds what dialogues can't show of the limits, and the facts about
// clients that don't wait. The limits' answers are in testdata/dialogues.

func TestChunksOfAKibibyteDoNotCountAsSmall(t *testing.T) {
	s := (&smtpproxy.Proxy{MaxSmallChunks: 1}).NewSession(smtpproxy.Connection{})
	say := func(line string, code int) {
		t.Helper()
		d := s.Command(context.Background(), line)
		if _, ok := d.(smtpproxy.Pass); !ok {
			t.Fatalf("%s: %#v", line, d)
		}
		s.Replied(code)
	}
	say("EHLO x", 250)
	say("MAIL FROM:<a@a>", 250)
	say("RCPT TO:<b@b>", 250)
	say("BDAT 1023", 250)
	for range 5000 {
		say("BDAT 1024", 250)
	}
	d := s.Command(context.Background(), "BDAT 0")
	r, ok := d.(smtpproxy.Reply)
	if !ok || r.Code != 421 || !r.Disconnect {
		t.Errorf("the second small chunk of one: %#v", d)
	}
}

// recipients sends so many RCPT commands to a session, each made longer by a
// parameter, and returns how many were passed, and the last decision.
func recipients(s *smtpproxy.Session, n, octets int) (passed int, last decision) {
	for i := range n {
		line := fmt.Sprintf("RCPT TO:<%d@example.org>", i)
		if more := octets - len(line); more > 0 {
			line += " X=" + strings.Repeat("x", more-len(" X="))
		}
		last = s.Command(context.Background(), line)
		if _, ok := last.(pass); ok {
			passed++
			s.Replied(250)
		}
	}
	return passed, last
}

func TestATransactionHasNoMoreRecipientsThanItMay(t *testing.T) {
	for _, tt := range []struct {
		why       string
		max       int
		n, octets int
		want      int
	}{
		{"the default", 0, 10_001, 0, 10_000},
		{"the default, with parameters in the mean", 0, 10_001, 256, 10_000},
		{"the default, with parameters beyond", 0, 6_000, 512, 5_000},
		{"two", 2, 5, 0, 2},
		{"ten, of which two take the octets of all", 10, 10, 1000, 2},
		{"no limit", -1, 10_500, 0, 10_500},
		{"no limit of octets either", -1, 3_000, 1500, 3_000},
		{"as many as there are numbers", math.MaxInt, 10_500, 1500, 10_500},
	} {
		s := (&smtpproxy.Proxy{MaxRecipients: tt.max, MaxErrors: 1, MaxLineLength: 4096}).ResumeSession(connection{}, transaction{Active: true})
		passed, last := recipients(s, tt.n, tt.octets)
		if passed != tt.want || s.Transaction().Recipients.Len() != tt.want {
			t.Errorf("%s: %d passed, %d in the view, want %d", tt.why, passed, s.Transaction().Recipients.Len(), tt.want)
		}
		if r, ok := last.(reply); ok != (tt.want < tt.n) || ok && (r.Code != 452 || r.Enhanced != enhanced{4, 5, 3} || r.Disconnect) {
			t.Errorf("%s: the last is %v", tt.why, last)
		}
	}
}

func TestARecipientTooManyLeavesRoomForAShorterOne(t *testing.T) {
	s := (&smtpproxy.Proxy{MaxRecipients: 10, MaxLineLength: 4096}).ResumeSession(connection{}, transaction{Active: true})
	if n, _ := recipients(s, 3, 1000); n != 2 {
		t.Errorf("of 2,560 octets, %d recipients took 1,000 each", n)
	}
	if n, _ := recipients(s, 1, 560); n != 1 {
		t.Error("there is no room for 560 octets behind 2,000")
	}
	if n, _ := recipients(s, 1, 0); n != 0 {
		t.Error("there is room behind 2,560 octets")
	}
	if _, ok := s.Command(context.Background(), "RSET").(pass); !ok {
		t.Fatal("RSET isn't passed")
	}
	s.Replied(250)
	s.Command(context.Background(), "MAIL FROM:<>")
	s.Replied(250)
	if n, _ := recipients(s, 3, 1000); n != 2 {
		t.Errorf("in the next transaction, %d recipients", n)
	}
}

// A limit that is negative is off, for those that are on by default.
func TestNegativeLimitsAreOff(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	server := servertest.Strict()
	tr := overTCP(t)
	p := &smtpproxy.Proxy{MaxLineLength: -1, MaxSASLLineLength: -1, MaxReplyLength: -1, MaxReadAhead: -1, MaxSmallChunks: -1, AllowInsecureAuth: true}
	go server.Serve(p.Listener(tr))
	defer server.Close()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go fmt.Fprintf(c, "EHLO x\r\nNOOP %s\r\nAUTH PLAIN\r\n%s\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n%sBDAT 0 LAST\r\nQUIT\r\n",
		long, long, strings.Repeat("BDAT 1\r\nx", 1500))
	got, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(got), "\r\n221 ") {
		t.Errorf("%v, %d octets, the last %q", err, len(got), got[max(0, len(got)-200):])
	}
	if m := server.Record().Messages; len(m) != 1 || len(m[0].Data) != 1500 {
		t.Errorf("the server took %d messages", len(m))
	}
}

// While the server works, the library reads ahead, but not without end: the
// client's own Write waits then.
func TestAClientThatSendsAheadHasToWait(t *testing.T) {
	for _, limit := range []int{0, 8 << 10} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw, client := net.Pipe()
				defer client.Close()
				counted := &countReads{Conn: raw}
				l := &chanListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
				l.conns <- counted
				c, err := (&smtpproxy.Proxy{MaxReadAhead: limit}).Listener(l).Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				go io.Copy(io.Discard, client)
				io.WriteString(c, "220 x\r\n")
				go io.WriteString(client, strings.Repeat("NOOP\r\n", 100_000))
				b := make([]byte, 4096)
				if n, err := c.Read(b); err != nil || string(b[:n]) != "NOOP\r\n" {
					t.Fatalf("%q, %v", b[:n], err)
				}
				// A server that reads on before it has replied.
				done := make(chan error, 1)
				go func() { _, err := c.Read(b); done <- err }()
				want := int64(32 << 10)
				if limit > 0 {
					want = int64(limit)
				}
				synctest.Wait()
				// The line that the server has got isn't held any more.
				if n := counted.n.Load() - int64(len("NOOP\r\n")); n != want {
					t.Errorf("%d octets are read ahead, not %d", n, want)
				}
				io.WriteString(c, "250 ok\r\n")
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

type countReads struct {
	net.Conn
	n atomic.Int64
}

func (c *countReads) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// factsHook remembers what it was told of a client that doesn't wait.
type factsHook struct{ facts []string }

func (h *factsHook) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	fact := cmd.Verb()
	if conn.EarlyTalker {
		fact += " early"
	}
	if cmd.Pipelined {
		fact += " pipelined"
		if cmd.MustBeLast() {
			fact += "!"
		}
	}
	h.facts = append(h.facts, fact)
	return nil, nil
}

func TestAClientThatTalksBeforeItIsGreetedIsKnownForIt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a unix system")
	}
	hello := "EHLO x\r\nNOOP\r\n"
	for name, row := range map[string]struct {
		tls, early bool
	}{
		"TCP, early":   {early: true},
		"TCP, patient": {},
		"TLS, early":   {tls: true, early: true},
		"TLS, patient": {tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			raw, client, err := connectTCP()
			if err != nil {
				t.Fatal(err)
			}
			client.SetDeadline(time.Now().Add(10 * time.Second))
			defer func() { client.Close() }()
			l := &chanListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
			l.conns <- raw
			hook := &factsHook{}
			p := &smtpproxy.Proxy{Hook: hook}
			if row.tls {
				p.TLSConfig, p.ImplicitTLS = serverTLS(), true
			}
			c, err := p.Listener(l).Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()

			greet, greeted := make(chan struct{}), make(chan error, 1)
			go func() {
				<-greet
				_, err := io.WriteString(c, "220 x\r\n")
				greeted <- err
			}()
			switch {
			case row.tls:
				close(greet) // the server's first Write shakes hands
				tc := tls.Client(&glued{Conn: client, hold: row.early}, &tls.Config{InsecureSkipVerify: true})
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
				if row.early {
					io.WriteString(tc, hello)
				}
				client = tc
			case row.early:
				io.WriteString(client, hello)
				// It has arrived when the other end can see it.
				close(greet)
			default:
				close(greet)
			}
			r := bufio.NewReader(client)
			if line, err := r.ReadString('\n'); err != nil || line != "220 x\r\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if !row.early {
				io.WriteString(client, hello)
			}
			if err := <-greeted; err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 512)
			for range 2 {
				if _, err := c.Read(b); err != nil {
					t.Fatal(err)
				}
				io.WriteString(c, "250 ok\r\n")
			}
			want := "EHLO pipelined!, NOOP"
			if row.early {
				want = "EHLO early pipelined!, NOOP early"
			}
			if got := strings.Join(hook.facts, ", "); got != want {
				t.Errorf("the hook was told %q, want %q", got, want)
			}
		})
	}
}

// glued holds what a TLS client sends last in its handshake, so that it arrives
// in one piece with what it says first.
type glued struct {
	net.Conn
	hold   bool
	held   []byte
	writes int
}

func (g *glued) Write(p []byte) (int, error) {
	g.writes++
	if !g.hold || g.writes == 1 { // the ClientHello
		return g.Conn.Write(p)
	}
	g.held = append(g.held, p...)
	if g.writes == 2 { // Finished
		return len(p), nil
	}
	g.hold = false
	_, err := g.Conn.Write(g.held)
	return len(p), err
}

func TestCommandsThatMayBeFollowedAtOnceAreNotOnesThatMustBeLast(t *testing.T) {
	for verb, last := range map[string]bool{
		// RFC 2920 section 3.1.
		"EHLO x": true, "DATA": true, "VRFY x": true, "EXPN x": true, "TURN": true, "QUIT": true, "noop": true,
		"RSET": false, "MAIL FROM:<>": false, "RCPT TO:<a@b>": false, "SEND FROM:<>": false,
		"HELO x": true, "LHLO x": true, // whether there's pipelining isn't known before
		"STARTTLS": true,  // RFC 3207 section 4
		"ETRN x":   true,  // RFC 1985 section 5
		"BDAT 3":   false, // RFC 3030 section 4.2
		"AUTH X":   false,
		"":         false,
	} {
		if got := (smtpproxy.Command{Line: verb}).MustBeLast(); got != last {
			t.Errorf("%q: %v", verb, got)
		}
	}
	if (smtpproxy.Command{Line: "QUIT", SASL: true}).MustBeLast() {
		t.Error("a line of a SASL exchange is no command")
	}
}
