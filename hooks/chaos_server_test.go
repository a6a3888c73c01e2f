package hooks_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// silent is a proxy with a Chaos, and no word in the log.
func silent(c *hooks.Chaos) *smtpproxy.Proxy {
	return &smtpproxy.Proxy{Hook: c, Logger: slog.New(slog.DiscardHandler)}
}

// allReplies sends commands one after the other, each when the reply before is there, and
// returns the codes of the replies, and how the connection has ended: by EOF, by a reset, or not.
func allReplies(t *testing.T, c net.Conn, lines ...string) (codes []string, end string) {
	t.Helper()
	defer func() { c.Close() }()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	for _, line := range append([]string{""}, lines...) {
		if line == startTLS {
			tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if err := tc.Handshake(); err != nil {
				return codes, ended(t, err)
			}
			c = tc
			r.Reset(c)
			continue
		}
		if line != "" {
			if _, err := io.WriteString(c, line+"\r\n"); err != nil {
				return codes, ended(t, err)
			}
		}
		for more := true; more; {
			reply, err := r.ReadString('\n')
			if err != nil {
				return codes, ended(t, err)
			}
			if more = reply[3] == '-'; !more {
				codes = append(codes, reply[:3])
			}
		}
	}
	return codes, "no end"
}

// ended tells how a connection has ended.
func ended(t *testing.T, err error) string {
	t.Helper()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "dropped"
	case strings.Contains(err.Error(), "forcibly closed"): // Windows
		return "dropped"
	}
	t.Error(err)
	return "failed"
}

func TestADropIsWithoutAWord(t *testing.T) {
	message := []string{"EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "Hello\r\n.", "QUIT"}
	secure := append([]string{"EHLO x", "STARTTLS", startTLS}, message...)
	for _, row := range []struct {
		at        string
		how       how
		lines     []string
		skip      int
		want      string // all replies before
		delivered bool
	}{
		{"connect", how{}, message, 0, "", false},
		{"EHLO", how{}, message, 0, "220", false},
		{"MAIL", how{}, message, 0, "220 250", false},
		{"RCPT", how{}, message, 0, "220 250 250", false},
		{"DATA", how{}, message, 0, "220 250 250 250", false},
		{"message", how{}, message, 0, "220 250 250 250 354", true},
		{"QUIT", how{}, message, 0, "220 250 250 250 354 250", true},
		{"*", how{}, message, 2, "220 250 250", false},
		{"STARTTLS", how{tls: true}, secure, 0, "220 250", false},
		{"EHLO", how{tls: true}, secure, 1, "220 250 220", false},
		{"RCPT", how{tls: true}, secure, 0, "220 250 220 250 250", false},
		{"message", how{tls: true}, secure, 0, "220 250 220 250 250 250 354", true},
		{"DATA", how{lmtp: true}, append([]string{"LHLO x"}, message[1:]...), 0, "220 250 250 250", false},
		{"message", how{lmtp: true}, append([]string{"LHLO x"}, message[1:]...), 0, "220 250 250 250 354", true},
	} {
		chaos := chaosOf(t, hooks.ChaosRule{At: row.at, Skip: row.skip, Drop: true})
		s := serveOn(t, silent(chaos), chaos, row.how)
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		codes, end := allReplies(t, c, row.lines...)
		if got := strings.Join(codes, " "); got != row.want || end != "dropped" {
			t.Errorf("at %s of %q: %s, %s, want %s", row.at, row.lines, got, end, row.want)
		}
		if delivered := strings.Contains(strings.Join(s.record(), "\n"), "message"); delivered != row.delivered {
			t.Errorf("at %s of %q: delivered: %v", row.at, row.lines, delivered)
		}
		await(t, func() bool { return hooks.ChaosConns(chaos) == 0 })
	}
}

// With TLS from the start, by the proxy or beneath it, a client doesn't even get the alert that
// TLS is over.
func TestADropBeneathTLSIsWithoutAWordToo(t *testing.T) {
	for _, why := range []string{"the proxy's", "a listener's beneath"} {
		chaos := chaosOf(t, hooks.ChaosRule{At: "NOOP", Drop: true})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l = chaos.Listener(l)
		p := silent(chaos)
		if why == "the proxy's" {
			p.TLSConfig, p.ImplicitTLS = certificate(t), true
		} else {
			l = tls.NewListener(l, certificate(t))
		}
		srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &backend{new(server)}, nil }))
		served := make(chan error, 1)
		go func() { served <- gosmtp.Serve(srv, l, p) }()
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		counted := &countingConn{Conn: raw}
		c := tls.Client(counted, &tls.Config{InsecureSkipVerify: true})
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "220 ") {
			t.Errorf("%s: %q, %v", why, line, err)
		}
		before := counted.read
		io.WriteString(c, "NOOP\r\n")
		if line, err := r.ReadString('\n'); line != "" || ended(t, err) != "dropped" || counted.read != before {
			t.Errorf("%s: %q, %v, behind %d octets", why, line, err, counted.read-before)
		}
		await(t, func() bool { return hooks.ChaosConns(chaos) == 0 })
		l.Close()
		srv.Close()
		<-served
	}
}

// countingConn counts what is read from a connection.
type countingConn struct {
	net.Conn
	read int
}

func (c *countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read += n
	return n, err
}

func TestADelayedDropLetsTheClientWaitAndSaysNothing(t *testing.T) {
	const delay = 150 * time.Millisecond
	for _, at := range []string{"connect", "NOOP"} {
		chaos := chaosOf(t, hooks.ChaosRule{At: at, Drop: true, Delay: hooks.Duration(delay)})
		s := serveOn(t, silent(chaos), chaos, how{})
		began := time.Now()
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		codes, end := allReplies(t, c, "NOOP")
		if took := time.Since(began); took < delay || took > 10*time.Second || end != "dropped" || len(codes) > 1 {
			t.Errorf("at %s: %q, %s after %v", at, codes, end, took)
		}
		await(t, func() bool { return hooks.ChaosConns(chaos) == 0 })
	}
}

func TestADelayIsOfTheCommandItIsFor(t *testing.T) {
	const delay = 100 * time.Millisecond
	for _, at := range []string{"connect", "EHLO", "message"} {
		chaos := chaosOf(t, hooks.ChaosRule{At: at, Delay: hooks.Duration(delay)})
		s := serveOn(t, silent(chaos), chaos, how{})
		began := time.Now()
		s.play(t, step{"EHLO x\r\n", []string{"250"}}, step{"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", []string{"250", "250", "354"}}, step{"x\r\n.\r\n", []string{"250"}})
		if took := time.Since(began); took < delay {
			t.Errorf("at %s: %v", at, took)
		}
	}
}

// descriptors returns how many files are open.
func descriptors(t *testing.T) int {
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(files) == 0 {
		t.Skip("there is no /proc/self/fd")
	}
	return len(files)
}

func TestNothingIsLeftOfConnectionsHoweverTheyEnd(t *testing.T) {
	before := descriptors(t)
	chaos := chaosOf(t,
		hooks.ChaosRule{At: "connect", Skip: 2, Times: 20, Drop: true},
		hooks.ChaosRule{At: "NOOP", Probability: 0.5, Drop: true},
		hooks.ChaosRule{At: "EHLO", Probability: 0.3, Drop: true, Delay: hooks.Duration(10 * time.Millisecond)},
		hooks.ChaosRule{At: "RSET", Probability: 0.3, Code: 421})
	t.Run("served", func(t *testing.T) {
		s := serveOn(t, silent(chaos), chaos, how{tls: true})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for n := range 25 {
					c, err := net.Dial("tcp", s.addr)
					if err != nil {
						t.Error(err)
						return
					}
					switch (n + i) % 5 {
					case 0:
						c.Close() // at once
					case 1:
						io.WriteString(c, "EHLO x\r\nNOOP\r\nRSET\r\n")
						c.Close() // without waiting
					case 2:
						allReplies(t, c, "EHLO x", "STARTTLS", "rubbish that is no handshake")
					case 3:
						allReplies(t, c, "EHLO x", "STARTTLS", startTLS, "EHLO x", "NOOP")
					default:
						allReplies(t, c, "EHLO x", "NOOP", "RSET", "QUIT")
					}
				}
			})
		}
		wg.Wait()
		await(t, func() bool { return hooks.ChaosConns(chaos) == 0 })
	})
	runtime.GC()
	await(t, func() bool { return descriptors(t) <= before })
}

// sameEnds is a listener whose connections all tell the same addresses: as when a client's port
// is used again before the server has noticed that the connection before is gone.
type sameEnds struct{ net.Listener }

func (l sameEnds) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return peerConn{c, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 4711}}, nil
}

func TestAPortThatIsUsedAgainIsTheNewClients(t *testing.T) {
	chaos := chaosOf(t, hooks.ChaosRule{At: "NOOP", Drop: true}, hooks.ChaosRule{At: "EHLO", Text: "Hello", Code: 250})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &backend{new(server)}, nil }))
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, chaos.Listener(sameEnds{l}), silent(chaos)) }()
	defer func() { srv.Close(); <-served }()
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "220") {
			t.Fatalf("%q, %v", line, err)
		}
		return c, r
	}
	old, oldReplies := dial()
	defer old.Close()
	again, replies := dial()
	defer again.Close()

	// The old one still lives, and each is itself: a drop of the old one isn't one of the new.
	io.WriteString(old, "NOOP\r\n")
	if line, err := oldReplies.ReadString('\n'); line != "" || ended(t, err) != "dropped" {
		t.Errorf("the old one: %q, %v", line, err)
	}
	io.WriteString(again, "EHLO x\r\n")
	if line, err := replies.ReadString('\n'); line != "250 Hello\r\n" {
		t.Errorf("the new one: %q, %v", line, err)
	}
	if n := hooks.ChaosConns(chaos); n != 1 {
		t.Errorf("%d connections are known, want that of the new one", n)
	}
	io.WriteString(again, "NOOP\r\n")
	if line, err := replies.ReadString('\n'); line != "" || ended(t, err) != "dropped" {
		t.Errorf("the new one: %q, %v", line, err)
	}
	await(t, func() bool { return hooks.ChaosConns(chaos) == 0 })
}

// What is known of a connection is known through the Listener, too.
func TestTheListenerHidesNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("who is at a unix socket is known on Linux")
	}
	for _, network := range []string{"tcp", "unix"} {
		chaos := chaosOf(t, hooks.ChaosRule{At: "RSET", Drop: true})
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = filepath.Join(t.TempDir(), "s")
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		var seen smtpproxy.Connection
		look := smtpproxy.HookFunc(func(_ *smtpproxy.Context, _ smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			seen = conn
			return nil, nil
		})
		srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &backend{new(server)}, nil }))
		served := make(chan error, 1)
		p := silent(chaos)
		p.Hook = smtpproxy.Chain(look, chaos)
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, "NOOP\r\n") // before it is accepted
		go func() { served <- gosmtp.Serve(srv, chaos.Listener(l), p) }()
		r := bufio.NewReader(c)
		r.ReadString('\n')
		r.ReadString('\n')
		io.WriteString(c, "RSET\r\n")
		line, _ := r.ReadString('\n') // on a unix socket, nobody can be told from others
		if want := map[string]string{"tcp": "", "unix": "421"}[network]; len(line) > 3 && line[:3] != want || line == "" && want != "" {
			t.Errorf("%s: %q", network, line)
		}
		c.Close()
		srv.Close()
		<-served
		if !seen.EarlyTalker {
			t.Errorf("%s: the client doesn't talk early", network)
		}
		if uid := (smtpproxy.UID{ID: uint32(os.Getuid()), Valid: true}); network == "unix" && seen.RemoteUID != uid {
			t.Errorf("the user is %+v", seen.RemoteUID)
		}
	}
}

// Whoever asks a connection beneath for its address may wait for a PROXY header.
func TestTheListenerAsksNothingInAccept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := new(hooks.Chaos).Listener(shyListener{l}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	if beneath := c.(interface{ NetConn() net.Conn }).NetConn(); beneath.LocalAddr() != c.LocalAddr() {
		t.Errorf("beneath is %v", beneath)
	}
	c.Close()
}

func TestAConnectionThatIsClosedIsNotKnownAgain(t *testing.T) {
	for _, closesFirst := range []bool{false, true} {
		testClosed(t, closesFirst)
	}
}

func testClosed(t *testing.T, closesFirst bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	chaos := new(hooks.Chaos)
	c, err := chaos.Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	known := func(want int) {
		t.Helper()
		if c.RemoteAddr().String() != client.LocalAddr().String() || hooks.ChaosConns(chaos) != want {
			t.Errorf("%v, %d connections are known, want %d", c.RemoteAddr(), hooks.ChaosConns(chaos), want)
		}
	}
	if !closesFirst {
		known(1)
		known(1)
	}
	c.Close()
	known(0)
}

type shyListener struct{ net.Listener }

func (l shyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return shyConn{c}, err
}

type shyConn struct{ net.Conn }

func (shyConn) RemoteAddr() net.Addr { panic("it is asked for its address") }
