package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file holds what lies beyond the edge of other tests: each of these was found by a
// change of the code that none of them noticed.

// readsOnInLMTP plays a client that sends an LMTP message in two pieces, and QUIT, to a
// server that has a status for it before its end, and reads the rest on another goroutine
// than that which writes it: so long after that, and slow at a MAIL in content.
func readsOnInLMTP(t *testing.T, status string, before, slow time.Duration, rest string) {
	const head = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n"
	h := &endHost{t: t, finale: new(finale)}
	done := make(chan struct{})
	c := runScript(t, overCable(), &smtpproxy.Proxy{}, func(c net.Conn) {
		defer close(done)
		h.serveWith(c)
		h.say("220 x\r\n")
		for line := ""; line != "DATA"; {
			line, _ = h.line()
			h.say(map[bool]string{false: "250 x\r\n", true: "354 x\r\n"}[line == "DATA"])
		}
		h.line() // of the content
		told := make(chan struct{})
		go func() {
			defer close(told)
			h.say(status + " x\r\n")
		}()
		time.Sleep(before) // in a bubble: the Write waits
		for line, ok := "", true; ok && line != "."; {
			if line, ok = h.line(); strings.HasPrefix(line, "MAIL") {
				time.Sleep(slow) // in a bubble
			}
		}
		begin := time.Now()
		<-told
		if d := time.Since(begin); d > 0 {
			t.Errorf("behind the end, the Write of the status goes on for %v", d)
		}
		if line, _ := h.line(); line == "QUIT" {
			h.say("221 x\r\n")
		}
	})
	c.SetDeadline(time.Now().Add(time.Hour))
	c.send(head)
	c.expect("220", "250", "250", "250", "354")
	time.Sleep(before / 2) // in a bubble: nobody reads
	c.send(rest + ".\r\nQUIT\r\n")
	c.expect(status, "221")
	c.expectEnd()
	<-done
	if got, want := h.received.String(), head+rest+".\r\nQUIT\r\n"; got != want {
		t.Errorf("the server got %q, want %q", got, want)
	}
}

func TestAServerThatReadsOnLaterGetsTheRestOfAnLMTPMessage(t *testing.T) {
	const evil = "MAIL FROM:<evil@e>\r\n"
	for _, status := range []string{"550", "250", "421"} {
		for _, before := range []time.Duration{time.Millisecond, 250 * time.Millisecond} {
			bubble(t, fmt.Sprint(status, ", ", before), func(t *testing.T) { readsOnInLMTP(t, status, before, 0, evil) })
		}
	}
	bubble(t, "it takes its time, and reads on behind what may have been the end", func(t *testing.T) {
		readsOnInLMTP(t, "250", time.Millisecond, time.Second, "a\n.\n"+evil)
	})
}

func TestWhatFollowsAFailedExchangeOfTheHooksOwnMayBeAPassword(t *testing.T) {
	var seen []string
	s := (&smtpproxy.Proxy{Hook: decide(func(cmd command) (decision, error) {
		seen = append(seen, cmd.String())
		switch {
		case cmd.SASL:
			return reply{Code: 535}, nil
		case cmd.Verb() == "AUTH":
			return reply{Code: 334}, nil
		}
		return nil, nil
	})}).NewSession(connection{})
	for _, line := range []string{"AUTH OWN", "dXNlcg==", "hunter2", "NOOP hunter2", "hunter2"} {
		if _, ok := s.Command(context.Background(), line).(pass); ok {
			s.Replied(500)
		}
	}
	if got, want := strings.Join(seen, ", "), "AUTH ****, ****, ****, NOOP hunter2, hunter2"; got != want {
		t.Errorf("the hook prints %s, want %s", got, want)
	}
}

// A secret of three octets could be a part of any word, and is masked where it stands
// alone. One of four is masked wherever it is.
func TestASecretOfFourOctetsIsMaskedWithinAWord(t *testing.T) {
	for _, tt := range []struct{ line, err, want string }{
		{"PASS abcd", "abcd xabcdx", "**** x****x"},
		{"PASS abc", "abc xabc abcx (abc)", "**** xabc abcx (****)"},
		{"PASS a", "a ab: a", "**** ab: ****"},
		{"PASS abcde", "xabcdex", "x****x"},
	} {
		log := new(logbook)
		p := &smtpproxy.Proxy{Logger: log.logger(), Hook: decide(func(command) (decision, error) { return nil, errors.New(tt.err) })}
		p.NewSession(connection{}).Command(context.Background(), tt.line)
		if got := log.lines(""); len(got) != 1 || got[0].attrs["error"] != tt.want {
			t.Errorf("%s: %q was logged as %v, want %q", tt.line, tt.err, got, tt.want)
		}
	}
}

// A state machine of its own knows whether there is TLS.
func TestASessionLeavesTheServersPolicyForAUTHToTheServer(t *testing.T) {
	for why, p := range map[string]smtpproxy.Proxy{
		"TLSConfig":         {TLSConfig: serverTLS()},
		"RequireTLSForAuth": {RequireTLSForAuth: true},
	} {
		s := p.NewSession(connection{})
		if d := s.Command(context.Background(), "AUTH PLAIN AHUAcA=="); d != (pass{Command: "AUTH PLAIN AHUAcA=="}) {
			t.Errorf("%s: got %v", why, d)
		}
	}
}

func TestTheTimeOfAHookAtALineThatCameWithOthersIsNotTheContents(t *testing.T) {
	for _, tt := range []struct {
		why  string
		wait time.Duration // before the content
		want string
	}{
		{"in time", 9 * time.Second, "250"},
		{"too late", 11 * time.Second, "554"},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			c := patientPeer(t, behindGoSMTP(&smtpproxy.Proxy{Hook: decide(slowHook)}))
			c.expect("220")
			c.ask("EHLO x", "250")
			c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA#8s\r\n")
			c.expect("250", "250", "354")
			time.Sleep(tt.wait) // in a bubble: go-smtp's deadline is ten seconds
			c.send("x\r\n.\r\n")
			c.expect(tt.want)
		})
	}
}

// TestTheEndIsNotHeldUpByAReplyThatTheClientDoesNotTake is about the last reply, which the
// client never reads, while a Read of the server's waits.
func TestTheEndIsNotHeldUpByAReplyThatTheClientDoesNotTake(t *testing.T) {
	ended := make(chan time.Duration, 1)
	tr := newTransport(true, func() (net.Conn, net.Conn, error) {
		server, client := connectByCable()
		server.out.room = len("220 x\r\n")
		return server, client, nil
	})
	c := runScript(t, tr, &smtpproxy.Proxy{}, func(c net.Conn) {
		read := make(chan struct{})
		go func() {
			defer close(read)
			c.Read(make([]byte, 10))
		}()
		io.WriteString(c, "220 x\r\n")
		start := time.Now()
		unlock := time.AfterFunc(patience, func() { c.Close() })
		defer unlock.Stop()
		io.WriteString(c, "nonsense\r\n")
		<-read
		ended <- time.Since(start)
	})
	defer c.Close()
	if d := <-ended; d > patience/2 {
		t.Errorf("the end has taken %v", d)
	}
}

// deadReads is a connection that can't be given a read deadline.
type deadReads struct{ net.Conn }

var errNoDeadline = errors.New("no deadline for reading")

func (deadReads) SetReadDeadline(time.Time) error { return errNoDeadline }

func TestSetDeadlineTellsOfADeadlineThatCannotBeSet(t *testing.T) {
	tr := newTransport(true, func() (server, client net.Conn, err error) {
		server, client, err = connectTCP()
		return deadReads{server}, client, err
	})
	errs := make(chan error, 1)
	runScript(t, tr, &smtpproxy.Proxy{}, func(c net.Conn) { errs <- c.SetDeadline(time.Now().Add(time.Hour)) })
	if err := <-errs; !errors.Is(err, errNoDeadline) {
		t.Errorf("SetDeadline returned %v", err)
	}
}

// foreignConn is of a kind that the library doesn't know: nothing but its deadline tells
// it when to end.
type foreignConn struct {
	net.Conn
	reads, writes chan time.Time // that were set
}

func (c foreignConn) SetReadDeadline(t time.Time) error {
	c.reads <- t
	return c.Conn.SetReadDeadline(t)
}
func (c foreignConn) SetWriteDeadline(t time.Time) error {
	c.writes <- t
	return c.Conn.SetWriteDeadline(t)
}

// A socket gets a deadline that has moved on when the earlier one has passed. Who knows
// whether others can go on then?
func TestAConnectionOfAnotherKindAlwaysHasItsTrueDeadline(t *testing.T) {
	tr := newTransport(true, func() (net.Conn, net.Conn, error) {
		server, client, err := connectTCP()
		return foreignConn{server, make(chan time.Time, 100), make(chan time.Time, 100)}, client, err
	})
	accepted := make(chan net.Conn, 1)
	raw := make(chan foreignConn, 1)
	beneath := acceptedListener{tr, func(c net.Conn) { raw <- c.(foreignConn) }}
	go func() {
		c, _ := (&smtpproxy.Proxy{}).Listener(beneath).Accept()
		accepted <- c
	}()
	client := dialPeer(t, tr)
	f, c := <-raw, <-accepted
	defer c.Close()
	go io.WriteString(c, "220 x\r\n")
	client.expect("220")
	for _, after := range []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour} {
		want := time.Now().Add(after)
		if err := c.SetDeadline(want); err != nil {
			t.Fatal(err)
		}
		for what, set := range map[string]chan time.Time{"reading": f.reads, "writing": f.writes} {
			var last time.Time
			for len(set) > 0 {
				last = <-set
			}
			if d := last.Sub(want).Abs(); d > time.Minute {
				t.Errorf("the deadline for %s is %v, want %v", what, last, want)
			}
		}
	}
	past := time.Now().Add(-time.Hour)
	c.SetReadDeadline(past)
	if n, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind it, a Read returned %d, %v", n, err)
	}
}

// pausingConn waits before its second Write.
type pausingConn struct {
	net.Conn
	writes        int
	waiting, goOn chan struct{}
}

func (c *pausingConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		close(c.waiting)
		<-c.goOn
	}
	return c.Conn.Write(p)
}

// A handshake doesn't go on behind a deadline, so a socket has its true one, too.
func TestADeadlineThatMovesWhileASocketShakesHandsHolds(t *testing.T) {
	tr := overTCP(t)
	l := (&smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true}).Listener(tr)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	client := dialPeer(t, tr)
	c := <-accepted
	defer c.Close()
	early := time.Now().Add(time.Second)
	c.SetReadDeadline(early)
	go io.WriteString(c, "220 x\r\n")
	pausing := &pausingConn{Conn: client.Conn, waiting: make(chan struct{}), goOn: make(chan struct{})}
	client.Conn = tls.Client(pausing, &tls.Config{InsecureSkipVerify: true})
	client.r.Reset(client.Conn)
	client.send("NOOP\r\n")
	<-pausing.waiting // the server has answered, and waits for the rest
	c.SetReadDeadline(time.Now().Add(time.Hour))
	time.Sleep(time.Until(early) + 50*time.Millisecond) // a socket's deadline passes in real time
	close(pausing.goOn)
	b := make([]byte, 10)
	if n, err := c.Read(b); string(b[:n]) != "NOOP\r\n" {
		t.Errorf("a Read returned %q, %v", b[:n], err)
	}
}

func TestTLSConnectionStateIsThatOfTLSWhichTheLibraryHasEnded(t *testing.T) {
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	for why, c := range map[string]net.Conn{"none": nil, "another's": server, "another's TLS": tls.Server(server, serverTLS())} {
		if state, ok := smtpproxy.TLSConnectionState(c); ok {
			t.Errorf("%s: %+v", why, state)
		}
		if s, ok := smtpproxy.SessionOf(c); ok {
			t.Errorf("%s: %v", why, s)
		}
	}
	for why, p := range map[string]*smtpproxy.Proxy{
		"no TLS":                {},
		"TLS that isn't begun":  {TLSConfig: serverTLS(), ImplicitTLS: true},
		"STARTTLS may come yet": {TLSConfig: serverTLS()},
	} {
		done := make(chan struct{})
		runScript(t, overTCP(t), p, func(c net.Conn) {
			defer close(done)
			if state, ok := smtpproxy.TLSConnectionState(c); ok {
				t.Errorf("%s: %+v", why, state)
			}
			if _, ok := smtpproxy.SessionOf(c); !ok {
				t.Errorf("%s: there is no session", why)
			}
		})
		<-done
	}
}
