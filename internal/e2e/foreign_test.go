package e2e

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about connections that aren't sockets: what a listener beneath the
// library may wrap around them, and what is different about deadlines there.

// foreign are connections with ways of their own.
var foreign = []struct {
	why  string
	wrap func(net.Conn) net.Conn
	// deadlines: the server's hold
	deadlines bool
}{
	{"as they are", func(c net.Conn) net.Conn { return c }, true},
	{"an error of its own for a deadline", func(c net.Conn) net.Conn { return ownErrors{c} }, true},
	{"a deadline beside octets", func(c net.Conn) net.Conn { return &eager{c} }, true},
	{"no deadlines", func(c net.Conn) net.Conn { return withoutDeadlines{c} }, false},
}

// ownErrors has another error than os.ErrDeadlineExceeded.
type ownErrors struct{ net.Conn }

type ownTimeout struct{}

func (ownTimeout) Error() string   { return "too late" }
func (ownTimeout) Timeout() bool   { return true }
func (ownTimeout) Temporary() bool { return true }

func (c ownErrors) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ownTimeout{}
	}
	return n, err
}

// eager fills p, if it gets the time.
type eager struct{ net.Conn }

func (c *eager) Read(p []byte) (n int, err error) {
	for n < len(p) && err == nil && (n == 0 || p[n-1] != '\n') {
		var k int
		k, err = c.Conn.Read(p[n:])
		n += k
	}
	return n, err
}

// withoutDeadlines knows none.
type withoutDeadlines struct{ net.Conn }

func (withoutDeadlines) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (withoutDeadlines) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (withoutDeadlines) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// through is a pipe whose server's side is wrapped.
func through(wrap func(net.Conn) net.Conn) transport {
	return newTransport(false, func() (server, client net.Conn, err error) {
		server, client = net.Pipe()
		return wrap(server), client, nil
	})
}

// answerAll replies to each line, a second later, whether or not the server reads
// ahead meanwhile, and sets a deadline for each.
func answerAll(c net.Conn, ahead bool) error {
	io.WriteString(c, "220 x\r\n")
	if ahead {
		for range readAhead(c) {
			time.Sleep(time.Second) // in a bubble
			io.WriteString(c, "250 x\r\n")
		}
		return nil
	}
	for b := make([]byte, 100); ; {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(b); err != nil {
			return err
		}
		io.WriteString(c, "250 x\r\n")
	}
}

func TestAConnectionOfAnotherKindIsServedLikeASocket(t *testing.T) {
	for _, tt := range foreign {
		for _, ahead := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%s, the server reads ahead: %v", tt.why, ahead), func(t *testing.T) {
				start, end := time.Now(), make(chan error, 1)
				c := runScript(t, through(tt.wrap), &smtpproxy.Proxy{}, func(c net.Conn) { end <- answerAll(c, ahead) })
				c.SetDeadline(time.Time{})
				c.expect("220")
				for range 5 {
					time.Sleep(4 * time.Second) // in a bubble
					c.send("NO")
					time.Sleep(4 * time.Second) // in a bubble
					c.send("OP\r\n")
					c.expect("250")
				}
				if !ahead && tt.deadlines {
					c.diary()
					if err := <-end; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 50*time.Second {
						t.Errorf("at last, Read returned %v after %v", err, time.Since(start))
					}
				}
			})
		}
	}
}

// idle ends a read after a time of its own, whatever the server says.
type idle struct{ net.Conn }

func (c idle) Read(p []byte) (int, error) {
	c.Conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	return c.Conn.Read(p)
}

func (c idle) SetReadDeadline(time.Time) error { return nil }

func TestAConnectionMayHaveAnIdleTimeOfItsOwn(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		ended := make(chan time.Duration, 1)
		c := runScript(t, through(func(c net.Conn) net.Conn { return idle{c} }), &smtpproxy.Proxy{CommandTimeout: time.Hour}, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			b := make([]byte, 100)
			c.SetReadDeadline(time.Now().Add(5 * time.Minute))
			c.Read(b)
			io.WriteString(c, "250 x\r\n")
			c.SetReadDeadline(time.Now().Add(5 * time.Minute))
			start := time.Now()
			_, err := c.Read(b)
			ended <- time.Since(start)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
		c.SetDeadline(time.Time{})
		c.expect("220")
		c.ask("NOOP", "250")
		c.diary()
		if took := <-ended; took != 30*time.Second {
			t.Errorf("Read ended after %v", took)
		}
	})
}

func TestASASLResponseInPiecesIsOneWithoutDeadlinesToo(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		p := &smtpproxy.Proxy{CommandTimeout: time.Minute}
		c := runScript(t, through(func(c net.Conn) net.Conn { return withoutDeadlines{c} }), p, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			b := make([]byte, 100)
			for _, code := range []string{"334", "235"} {
				c.Read(b)
				io.WriteString(c, code+" x\r\n")
			}
		})
		c.SetDeadline(time.Time{})
		c.expect("220")
		c.ask("AUTH PLAIN", "334")
		c.send("AGEA")
		time.Sleep(time.Second) // in a bubble
		c.send("Yg==\r\n")
		c.expect("235")
	})
}

func TestTheReplyToSTARTTLSHasItsTimeHoweverLongTheClientWasSilent(t *testing.T) {
	config := serverTLS()
	bubble(t, "", func(t *testing.T) {
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{TLSConfig: config}, func(c net.Conn) {
			for out := "220 x\r\n"; ; out = "250 x\r\n" {
				c.SetWriteDeadline(time.Now().Add(10 * time.Second))
				io.WriteString(c, out)
				if _, err := c.Read(make([]byte, 100)); err != nil {
					return
				}
			}
		})
		c.SetDeadline(time.Time{})
		c.expect("220")
		c.ask("EHLO x", "250")
		time.Sleep(20 * time.Second) // in a bubble
		c.ask("STARTTLS", "220")
		c.Close()
	})
}

func TestADeadlineCanBeMovedWhileTheHandshakeIsUnderWay(t *testing.T) {
	config := serverTLS()
	bubble(t, "", func(t *testing.T) {
		ended := make(chan time.Duration, 1)
		p := &smtpproxy.Proxy{TLSConfig: config, ImplicitTLS: true, HandshakeTimeout: time.Hour}
		c := runScript(t, overPipe(t), p, func(c net.Conn) {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			time.AfterFunc(time.Second, func() { c.SetDeadline(time.Now().Add(time.Minute)) })
			start := time.Now()
			io.WriteString(c, "220 x\r\n")
			ended <- time.Since(start)
		})
		c.SetDeadline(time.Time{})
		c.diary()
		if took := <-ended; took != 61*time.Second {
			t.Errorf("the handshake ended after %v", took)
		}
	})
}

func TestTheTimeOfAHookIsNotTheClientsForMoreThanOneCommandEither(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: decide(slowHook)}, func(c net.Conn) {
			c.SetReadDeadline(time.Now().Add(10 * time.Second)) // once, for the whole session
			io.WriteString(c, "220 x\r\n")
			for b := make([]byte, 100); ; {
				n, err := c.Read(b)
				if err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error("the time is up")
					}
					return
				}
				fmt.Fprintf(c, "250 %s", b[:n])
			}
		})
		c.SetDeadline(time.Time{})
		c.expect("220")
		c.send(strings.Repeat("NOOP#6s\r\n", 3))
		c.expect("250", "250", "250")
		time.Sleep(time.Second) // in a bubble
		c.ask("NOOP", "250")
		c.Close()
	})
}

func TestAPastWriteDeadlineThatIsSetWhileTheHookIsAskedHolds(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		ended := make(chan time.Duration, 1)
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: decide(slowHook)}, func(c net.Conn) {
			c.SetDeadline(time.Now().Add(time.Hour))
			io.WriteString(c, "220 x\r\n")
			time.AfterFunc(50*time.Second, func() { c.SetWriteDeadline(time.Now()) })
			start := time.Now()
			c.Read(make([]byte, 100))
			ended <- time.Since(start)
		})
		c.SetDeadline(time.Time{})
		c.expect("220")
		c.send("HELP #60s\r\n") // whose reply the client doesn't read
		time.Sleep(time.Hour)   // in a bubble
		if took := <-ended; took != time.Minute {
			t.Errorf("Read ended after %v", took)
		}
	})
}

// A Read that drops the rest of a refused message is the server's to interrupt.
func TestAPastDeadlineInterruptsTheDroppingOfContent(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		tr := newTransport(true, func() (server, client net.Conn, err error) {
			server, client = net.Pipe()
			return halfPipe{server}, client, nil
		})
		ended := make(chan time.Duration, 1)
		c := runScript(t, tr, &smtpproxy.Proxy{}, func(c net.Conn) {
			time.AfterFunc(time.Second, func() { io.WriteString(c, "220 x\r\n") })
			b := make([]byte, 100)
			for _, code := range []string{"250", "250", "354"} {
				c.Read(b)
				io.WriteString(c, code+" x\r\n")
			}
			c.Read(b)
			io.WriteString(c, "552 x\r\n")
			time.AfterFunc(time.Second, func() { c.SetReadDeadline(time.Now()) })
			start := time.Now()
			c.Read(b)
			ended <- time.Since(start)
		})
		c.SetDeadline(time.Time{})
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n0123456789")
		c.expect("220", "250", "250", "354", "552")
		c.diary()
		if took := <-ended; took != time.Second {
			t.Errorf("Read ended after %v", took)
		}
	})
}

// What is looked up, and what is logged, is about the same connection.
func TestALogEntryMayBeWrittenWhileAHostNameIsFound(t *testing.T) {
	for range 20 {
		r := lateResolver(make(chan struct{}))
		p := &smtpproxy.Proxy{LookupPTR: true, Resolver: r, Hook: &passLog{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
		c := runScript(t, overTCP(t), p, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			read := make(chan struct{})
			go func() {
				defer close(read)
				c.Read(make([]byte, 100))
			}()
			close(r)
			io.WriteString(c, "nonsense\r\n")
			<-read
		})
		c.expect("220")
		c.send("NOOP\r\n")
		c.diary()
	}
}

// lateResolver answers when it is closed.
type lateResolver chan struct{}

func (r lateResolver) LookupAddr(context.Context, string) ([]string, error) {
	<-r
	return []string{"a.example."}, nil
}

func (r lateResolver) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	return []net.IPAddr{{IP: net.IPv4(127, 0, 0, 1)}}, nil
}

func TestAWriteDeadlineThatFailsFailsEachTime(t *testing.T) {
	tr := through(func(c net.Conn) net.Conn { return withoutDeadlines{c} })
	runScript(t, tr, &smtpproxy.Proxy{}, func(c net.Conn) {
		at := time.Now().Add(time.Minute)
		for range 2 {
			if err := c.SetWriteDeadline(at); err == nil {
				t.Error("there is one now, it says")
			}
		}
	}).diary()
}

func TestTLSCanRunOverAConnectionWithoutDeadlines(t *testing.T) {
	tr := through(func(c net.Conn) net.Conn { return withoutDeadlines{c} })
	p := &smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := p.Listener(tr).Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		answerAll(c, false)
	}()
	raw, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	for _, want := range []string{"220 x\r\n", "250 x\r\n"} {
		if line, err := r.ReadString('\n'); line != want {
			t.Errorf("%q, %v", line, err)
		}
		io.WriteString(c, "NOOP\r\n")
	}
	raw.Close()
	<-done
}

// A server that sets a deadline before it reads, and doesn't look whether that works,
// is as good as one that sets none, where there are no deadlines.
func TestAMessageOverAConnectionWithoutDeadlinesIsTaken(t *testing.T) {
	for why, start := range map[string]func() *servertest.Server{
		"strict":      func() *servertest.Server { return servertest.Strict() },
		"lenient":     func() *servertest.Server { return servertest.Lenient() },
		"reads ahead": func() *servertest.Server { return servertest.RunAhead() },
	} {
		s := start()
		tr := newTransport(true, func() (server, client net.Conn, err error) {
			server, client, err = connectTCP()
			return withoutDeadlines{server}, client, err
		})
		c := behindListener(&smtpproxy.Proxy{AllowInsecureAuth: true}, s).connect(t, tr)
		c.expect("220")
		c.ask("EHLO x", "250")
		c.ask("AUTH PLAIN", "334")
		c.ask(b64("\x00user\x00pass"), "235")
		c.ask("MAIL FROM:<a@a>", "250")
		c.ask("RCPT TO:<b@b>", "250")
		c.ask("DATA", "354")
		c.ask("hi\r\n .\r\nho\r\n.", "250")
		c.ask("MAIL FROM:<a@a>", "250")
		c.ask("RCPT TO:<b@b>", "250")
		c.send("BDAT 3\r\nabc")
		c.expect("250")
		c.send("BDAT 3 LAST\r\nabc")
		c.expect("250")
		c.ask("QUIT", "221")
		if n := len(s.Messages()); n != 2 {
			t.Errorf("%s: it took %d messages", why, n)
		}
		c.Close()
	}
}

// failingDeadline takes no read deadline while fails is set.
type failingDeadline struct {
	net.Conn
	fails atomic.Bool
}

func (c *failingDeadline) SetReadDeadline(t time.Time) error {
	if c.fails.Load() {
		return errTest
	}
	return c.Conn.SetReadDeadline(t)
}

// TestWhatBelongsToAMessageIsNotForAServerThatCouldNotSetItsDeadline is about one that
// gives the message up then, without a word, and reads commands.
func TestWhatBelongsToAMessageIsNotForAServerThatCouldNotSetItsDeadline(t *testing.T) {
	for _, tt := range []struct{ line, rest string }{
		{"DATA", "MAIL FROM:<evil@evil>\r\n.\r\n"},
		{"BDAT 23 LAST", "MAIL FROM:<evil@evil>\r\n"},
		{"AUTH PLAIN", "MAIL FROM:<evil@evil>\r\n"},
	} {
		raw := make(chan *failingDeadline, 1)
		tr := newTransport(true, func() (server, client net.Conn, err error) {
			server, client, err = connectTCP()
			f := &failingDeadline{Conn: server}
			raw <- f
			return f, client, err
		})
		got := make(chan string, 1)
		c := runScript(t, tr, &smtpproxy.Proxy{AllowInsecureAuth: true}, func(c net.Conn) {
			f, b := <-raw, make([]byte, 100)
			for _, reply := range []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n"} {
				io.WriteString(c, reply)
				c.SetReadDeadline(time.Now().Add(time.Minute))
				c.Read(b)
			}
			io.WriteString(c, map[string]string{"DATA": "354 x\r\n", "AUTH PLAIN": "334 \r\n"}[tt.line])
			f.fails.Store(true)
			if c.SetReadDeadline(time.Now().Add(time.Hour)) == nil && c.SetReadDeadline(time.Now()) == nil {
				t.Error("a deadline could be set")
			}
			f.fails.Store(false)
			c.SetReadDeadline(time.Now().Add(time.Minute))
			rest, _ := io.ReadAll(c)
			got <- string(rest)
		})
		c.expect("220")
		for _, line := range []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>"} {
			c.ask(line, "250")
		}
		c.send(tt.line + "\r\n" + tt.rest)
		io.Copy(io.Discard, c.r)
		c.Close()
		if rest := <-got; rest != "" {
			t.Errorf("%s: the server got %q", tt.line, rest)
		}
	}
}

// withoutSomeDeadlines takes no deadlines for reads, or for writes.
type withoutSomeDeadlines struct {
	net.Conn
	reads, writes error
}

func (c withoutSomeDeadlines) SetReadDeadline(t time.Time) error {
	return cmp.Or(c.reads, c.Conn.SetReadDeadline(t))
}

func (c withoutSomeDeadlines) SetWriteDeadline(t time.Time) error {
	return cmp.Or(c.writes, c.Conn.SetWriteDeadline(t))
}

func TestTheServerLearnsThatADeadlineCouldNotBeSet(t *testing.T) {
	for _, tt := range []struct {
		why           string
		reads, writes error
		closed        bool
		want          [3]error // of SetDeadline, SetReadDeadline, SetWriteDeadline
	}{
		{"it could", nil, nil, false, [3]error{}},
		{"not for reads", errTest, nil, false, [3]error{errTest, errTest, nil}},
		{"not for writes", nil, errTest, false, [3]error{errTest, nil, errTest}},
		{"the connection is closed", nil, nil, true, [3]error{net.ErrClosed, net.ErrClosed, net.ErrClosed}},
	} {
		server, client := net.Pipe()
		l := &chanListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- withoutSomeDeadlines{server, tt.reads, tt.writes}
		c, err := (&smtpproxy.Proxy{}).Listener(l).Accept()
		if err != nil {
			t.Fatal(err)
		}
		if tt.closed {
			c.Close()
		}
		at := time.Now().Add(time.Hour)
		if got := [3]error{c.SetDeadline(at), c.SetReadDeadline(at), c.SetWriteDeadline(at)}; got != tt.want {
			t.Errorf("%s: errors %v, want %v", tt.why, got, tt.want)
		}
		c.Close()
		client.Close()
	}
}
