package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about what servers with faults, and the code around them, must not bring
// about: two goroutines of a server that are in each other's way, a connection that is
// used when it is over, one that takes no deadlines, a callback that doesn't return.

// meet returns both ends of a connection behind p. Nothing waits for the server's end.
func meet(t *testing.T, p *smtpproxy.Proxy, tr transport) (c net.Conn, client *peer) {
	t.Helper()
	l := p.Listener(tr)
	t.Cleanup(func() { l.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	client = dialPeer(t, tr)
	if c = <-accepted; c == nil {
		t.Fatal("no connection")
	}
	return c, client
}

// overWrappedTCP is TCP whose server's side is wrapped.
func overWrappedTCP(wrap func(net.Conn) net.Conn) transport {
	return newTransport(true, func() (server, client net.Conn, err error) {
		if server, client, err = connectTCP(); err != nil {
			return nil, nil, err
		}
		return wrap(server), client, nil
	})
}

// begins plays the beginning of a session, a line of the client's and a reply each.
func begins(c net.Conn, client *peer, lines ...string) *bufio.Reader {
	client.t.Helper()
	r := bufio.NewReader(c)
	io.WriteString(c, "220 x\r\n")
	client.expect("220")
	for _, line := range lines {
		client.send(line + "\r\n")
		if got, err := r.ReadString('\n'); got != line+"\r\n" {
			client.t.Fatalf("the server reads %q, %v", got, err)
		}
		io.WriteString(c, "250 x\r\n")
		client.expect("250")
	}
	return r
}

// holdUp is a connection whose SetReadDeadline waits as long as it is told to, and with
// it all that asks for the session's state.
type holdUp struct {
	net.Conn
	until chan chan struct{}
}

func (c *holdUp) SetReadDeadline(t time.Time) error {
	select {
	case until := <-c.until:
		<-until
	default:
	}
	return c.Conn.SetReadDeadline(t)
}

// The reply has begun when there is no command, and is complete when there is one: the
// hook passes RCPT in between. Who waits longer than a millisecond for a mutex gets it in
// turn, so that the Write begins, the hook's decision is settled, and the Write goes on.
func TestAReplyTooManyThatMeetsARCPTCommandIsOutOfStep(t *testing.T) {
	leaveNothing(t)
	const moment = 5 * time.Millisecond
	for range 10 {
		shown, release := make(chan struct{}), make(chan struct{})
		log := new(logbook)
		p := &smtpproxy.Proxy{Logger: log.logger(), Hook: decide(func(cmd command) (decision, error) {
			if cmd.Verb() == "RCPT" {
				close(shown)
				<-release
			}
			return nil, nil
		})}
		raw := &holdUp{until: make(chan chan struct{}, 2)}
		c, client := meet(t, p, overWrappedTCP(func(c net.Conn) net.Conn { raw.Conn = c; return raw }))
		r := begins(c, client, "EHLO x", "MAIL FROM:<a@b>")
		client.send("RCPT TO:<c@d>\r\n")
		read := make(chan struct{})
		go func() {
			defer close(read)
			r.ReadString('\n')
		}()
		inTime(t, "the hook", shown)

		first, second := make(chan struct{}), make(chan struct{})
		raw.until <- first
		raw.until <- second
		held := make(chan struct{})
		go func() {
			defer close(held)
			c.SetReadDeadline(time.Now().Add(time.Hour))
			c.SetReadDeadline(time.Now().Add(2 * time.Hour)) // before those who wait
		}()
		for len(raw.until) == 2 {
			runtime.Gosched()
		}
		wrote := make(chan any, 1)
		go func() {
			defer func() { wrote <- recover() }()
			io.WriteString(c, "250 too many\r\n")
		}()
		time.Sleep(moment) // the Write waits
		close(release)
		time.Sleep(moment) // the hook's decision does, behind it
		close(first)
		time.Sleep(moment) // the Write goes on: a mutex that others hold is nothing a bubble sees
		close(second)

		if v := inTime(t, "Write", wrote); v != nil {
			t.Errorf("Write panicked: %v", v)
		}
		closed := make(chan error, 1)
		go func() { closed <- c.Close() }()
		inTime(t, "Close", closed)
		inTime(t, "Read", read)
		inTime(t, "SetReadDeadline", held)
		switch got := client.reply(); {
		case strings.HasPrefix(got, "421 4.3.0") && len(log.lines("reply that fits no command")) == 1:
		case got != "250 too many": // unless all of it came behind the command
			t.Errorf("the client gets %q; logged %q", got, log.reasons())
		}
		client.expectEnd()
		client.Close()
	}
}

// With -race, this finds what the Write and the Read do with the content at the same
// time. It is time that tells the Write when to come: nothing else may.
func TestAServerMayAskForContentOnAnotherGoroutineThanThatWhichReadsDATA(t *testing.T) {
	leaveNothing(t)
	for _, content := range []string{"hi\r\n", "h\ni\r\n"} {
		shown := make(chan struct{})
		p := &smtpproxy.Proxy{RejectBareNewlines: true, Hook: decide(func(cmd command) (decision, error) {
			if cmd.Verb() == "DATA" {
				close(shown)
			}
			return nil, nil
		})}
		c, client := meet(t, p, overTCP(t))
		r := begins(c, client, "EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>")
		wrote := make(chan error, 1)
		go func() {
			<-shown
			time.Sleep(50 * time.Millisecond) // the Read goes on
			_, err := io.WriteString(c, "354 go\r\n")
			wrote <- err
		}()
		client.send("DATA\r\n")
		if line, err := r.ReadString('\n'); line != "DATA\r\n" {
			t.Fatalf("the server reads %q, %v", line, err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		client.expect("354 go")
		client.send(content + ".\r\n")
		var got string
		for !strings.HasSuffix(got, "\r\n.\r\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				break
			}
			got += line
		}
		if bare := content != "hi\r\n"; bare {
			client.expect("550 5.6.0")
			if strings.Contains(got, ".") {
				t.Errorf("the server reads %q", got)
			}
		} else {
			io.WriteString(c, "250 taken\r\n")
			client.expect("250 taken")
			if got != content+".\r\n" {
				t.Errorf("the server reads %q", got)
			}
		}
		c.Close()
		client.Close()
	}
}

// The client goes on with the fresh connection, of which the old one knows nothing.
func TestAnOldConnectionThatFailsBehindSTARTTLSChangesNothing(t *testing.T) {
	for _, row := range []struct {
		why, line string
		code      string
		rest      string // in pieces of a line each
	}{
		{"in content", "DATA", "354", "one\r\ntwo\r\n.\r\n"},
		{"before a chunk", "BDAT 6 LAST", "", "abcd\r\n"},
		{"in a SASL exchange", "AUTH PLAIN", "334", "AHVzZXIAcGFzcw==\r\n"},
	} {
		t.Run(row.why, func(t *testing.T) {
			leaveNothing(t)
			tr := overTCP(t)
			old, got := make(chan net.Conn, 1), make(chan string, 1)
			serveScript(t, (&smtpproxy.Proxy{TLSConfig: serverTLS()}).Listener(tr), func(_ int, c net.Conn, r *bufio.Reader) {
				io.WriteString(c, "220 x\r\n")
				for line := ""; ; io.WriteString(c, "250 x\r\n") {
					if line, _ = r.ReadString('\n'); line == row.line+"\r\n" {
						break
					}
					if line == "" {
						c.Close()
						old <- c
						return
					}
				}
				if row.code != "" {
					io.WriteString(c, row.code+" go\r\n")
				}
				before := <-old
				if _, err := before.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("reading from the old connection: %v", err)
				}
				if err := before.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a deadline of the old connection: %v", err)
				}
				b := make([]byte, len(row.rest))
				n, err := io.ReadFull(r, b)
				if err != nil {
					t.Errorf("the server reads no more: %v", err)
				}
				got <- string(b[:n])
				io.WriteString(c, "299 taken\r\n")
			})
			k := talk(t, tr)
			k.want("EHLO before", "250")
			k.startTLS()
			for _, line := range []string{"EHLO inside", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"} {
				k.want(line, "250")
			}
			if row.code != "" {
				k.want(row.line, row.code)
			} else {
				io.WriteString(k, row.line+"\r\n")
			}
			k.want(strings.TrimSuffix(row.rest, "\r\n"), "299 taken")
			if text := <-got; text != row.rest {
				t.Errorf("the server reads %q, want %q", text, row.rest)
			}
		})
	}
}

// askingConn takes deadlines as long as it is told to. Its Close asks for the session.
type askingConn struct {
	net.Conn
	refuses atomic.Bool
	session atomic.Pointer[smtpproxy.Session]
	reads   chan struct{} // gets something with each Read
}

func (c *askingConn) Read(p []byte) (int, error) {
	c.reads <- struct{}{}
	return c.Conn.Read(p)
}

func (c *askingConn) SetReadDeadline(t time.Time) error {
	if c.refuses.Load() {
		return errors.ErrUnsupported
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *askingConn) Close() error {
	c.session.Load().Connection()
	return c.Conn.Close()
}

func TestAConnectionWithoutDeadlinesMayAskForTheSessionWhenItIsClosed(t *testing.T) {
	for _, row := range []struct {
		why   string
		waits bool // another goroutine reads when no deadlines are taken any more
		reply string
		want  string
	}{
		{"nonsense", false, "nonsense\r\n", "421 4.3.0"},
		{"a reply too many", false, "250 x\r\n", "421 4.3.0"},
		{"nonsense, while the server reads", true, "nonsense\r\n", "421 4.3.0"},
		{"a reply, while the server reads", true, "250 x\r\n", "250 x"},
	} {
		t.Run(row.why, func(t *testing.T) {
			leaveNothing(t)
			raw := &askingConn{reads: make(chan struct{}, 100)}
			raw.refuses.Store(!row.waits)
			c, client := meet(t, new(smtpproxy.Proxy), overWrappedTCP(func(c net.Conn) net.Conn { raw.Conn = c; return raw }))
			s, _ := smtpproxy.SessionOf(c)
			raw.session.Store(s)
			read := make(chan error, 1)
			if row.waits {
				io.WriteString(c, "220 x\r\n")
				client.ask("NOOP", "220")
				c.Read(make([]byte, 100))
				for len(raw.reads) > 0 {
					<-raw.reads
				}
				go func() {
					_, err := c.Read(make([]byte, 100))
					read <- err
				}()
				inTime(t, "a Read that waits", raw.reads)
				raw.refuses.Store(true)
			} else {
				begins(c, client)
				read <- io.EOF
			}
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				io.WriteString(c, row.reply)
			}()
			inTime(t, "Write", wrote)
			client.expect(row.want)
			if err := inTime(t, "Read", read); err == nil {
				t.Error("the server reads on")
			}
			closed := make(chan error, 1)
			go func() { closed <- c.Close() }()
			inTime(t, "Close", closed)
			client.expectEnd()
		})
	}
}

func TestWhatAReadThatEndsItsGoroutineInAHandshakeLeavesIsOver(t *testing.T) {
	for why, set := range map[string]func(p *smtpproxy.Proxy){
		"GetCertificate": func(p *smtpproxy.Proxy) { ofTLS(false, tlsCallbacks["GetCertificate"])(p, runtime.Goexit) },
		"Logger":         func(p *smtpproxy.Proxy) { logs(nil)(p, runtime.Goexit) },
	} {
		t.Run(why, func(t *testing.T) {
			leaveNothing(t)
			p := &smtpproxy.Proxy{TLSConfig: serverTLS()}
			set(p)
			c, client := meet(t, p, overTCP(t))
			s, _ := smtpproxy.SessionOf(c)
			first, second := make(chan struct{}), make(chan error, 1)
			begins(c, client, "EHLO x")
			go func() {
				defer close(first)
				c.Read(make([]byte, 100))
				t.Error("the first Read returns")
			}()
			client.ask("STARTTLS", "220")
			if why == "Logger" { // it is told of a handshake that fails
				io.WriteString(client, "NOOP\r\n")
			} else {
				tls.Client(client.Conn, &tls.Config{InsecureSkipVerify: true}).Handshake()
			}
			inTime(t, "the end of the goroutine", first)
			if s.Context().Err() == nil {
				t.Error("the session isn't over")
			}
			go func() {
				_, err := c.Read(make([]byte, 100))
				second <- err
			}()
			if err := inTime(t, "another Read", second); err == nil {
				t.Error("another Read returns something")
			}
			c.Close()
		})
	}
}

// A status of the first that is a refusal, and a Read that begins behind it, may be the
// one word of a server for all recipients. Not where another goroutine was reading
// already: its next Read tells nothing.
func TestAReaderThatPollsWhileStatusesAreGivenChangesNoneOfThem(t *testing.T) {
	for _, statuses := range [][]string{
		{"550 5.7.1 <b> no", "250 2.0.0 <c> ok", "250 2.0.0 <d> ok"},
		{"421 4.3.2 <b> later", "250 2.0.0 <c> ok", "550 5.7.1 <d> no"},
		{"250 2.0.0 <b> ok", "550 5.7.1 <c> no", "250 2.0.0 <d> ok"},
	} {
		bubble(t, statuses[0], func(t *testing.T) {
			c := runScript(t, overPipe(t), new(smtpproxy.Proxy), func(c net.Conn) {
				b := make([]byte, 100)
				for _, reply := range []string{"220 x", "250-x\r\n250 CHUNKING", "250 a", "250 b", "250 c", "250 d"} {
					io.WriteString(c, reply+"\r\n")
					c.Read(b)
				}
				io.ReadFull(c, b[:4])
				next, polls := make(chan string, 1), 0
				go func() {
					for {
						c.SetReadDeadline(time.Now().Add(time.Second))
						n, err := c.Read(b)
						if !errors.Is(err, os.ErrDeadlineExceeded) {
							next <- string(b[:n])
							return
						}
						polls++
					}
				}()
				synctest.Wait() // until the reader waits
				for _, status := range statuses {
					io.WriteString(c, status+"\r\n")
					time.Sleep(1500 * time.Millisecond) // in a bubble: the reader begins again
				}
				if line := <-next; line != "NOOP\r\n" || polls < 3 {
					t.Errorf("the server reads %q, at the %dth time", line, polls+1)
				}
				io.WriteString(c, "250 noop\r\n")
			})
			c.SetDeadline(time.Time{})
			c.send("LHLO y\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nRCPT TO:<d@d>\r\nBDAT 4 LAST\r\nhi\r\n")
			c.expect("220", "250", "250 a", "250 b", "250 c", "250 d")
			c.expect(statuses...)
			time.Sleep(5 * time.Second) // in a bubble
			c.ask("NOOP", "250 noop")
		})
	}
}
