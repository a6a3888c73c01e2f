package e2e

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
	"go.uber.org/goleak"
)

// This file has what the tests of bad input, of decisions and of deadlines share,
// and holds that nothing is left of a connection that ends.

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // what tests bring about is no news
	goleak.VerifyTestMain(m)
}

// The hook API, by names that fit into a line.
type (
	hookContext = smtpproxy.Context
	command     = smtpproxy.Command
	connection  = smtpproxy.Connection
	transaction = smtpproxy.Transaction
	decision    = smtpproxy.Decision
	reply       = smtpproxy.Reply
	pass        = smtpproxy.Pass
	enhanced    = smtpproxy.EnhancedCode
)

// decideIn makes a hook of a function that looks at contexts and commands.
func decideIn(f func(ctx *hookContext, cmd command) (decision, error)) smtpproxy.HookFunc {
	return func(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) { return f(ctx, cmd) }
}

// decide makes a hook of a function that looks at commands alone.
func decide(f func(cmd command) (decision, error)) smtpproxy.HookFunc {
	return decideIn(func(_ *hookContext, cmd command) (decision, error) { return f(cmd) })
}

// always makes a hook that decides the same each time.
func always(d decision) smtpproxy.HookFunc {
	return decide(func(command) (decision, error) { return d, nil })
}

// patience is how long a test waits for what should happen at once.
const patience = 10 * time.Second

// fronted is a recording server with the library in front.
type fronted struct {
	*servertest.Server
	serve func(net.Listener) error
	close func() error
}

// behindListener puts Proxy.Listener in front of a server.
func behindListener(p *smtpproxy.Proxy, s *servertest.Server) fronted {
	return fronted{s, func(l net.Listener) error { return s.Serve(p.Listener(l)) }, s.Close}
}

// behindGoSMTP puts gosmtp.Serve in front of go-smtp's server.
func behindGoSMTP(p *smtpproxy.Proxy, opts ...servertest.Option) fronted {
	var srv *smtp.Server
	s := servertest.GoSMTP(append(opts, servertest.Configure(func(s *smtp.Server) { srv = s }))...)
	return fronted{s, func(l net.Listener) error { return gosmtp.Serve(srv, l, p) }, func() error {
		srv.Close()
		return s.Close()
	}}
}

// fronts are the servers that most tests here hold the library against.
var fronts = map[string]func(p *smtpproxy.Proxy) fronted{
	"go-smtp": func(p *smtpproxy.Proxy) fronted { return behindGoSMTP(p) },
	"strict":  func(p *smtpproxy.Proxy) fronted { return behindListener(p, servertest.Strict()) },
	"lenient": func(p *smtpproxy.Proxy) fronted {
		return behindListener(p, servertest.Lenient(servertest.LineByLine()))
	},
	"reads ahead": func(p *smtpproxy.Proxy) fronted { return behindListener(p, servertest.RunAhead()) },
}

// forEachFront runs f over TCP and over a pipe for each of the fronts.
func forEachFront(t *testing.T, f func(t *testing.T, tr transport, front func(*smtpproxy.Proxy) fronted)) {
	for name, front := range fronts {
		t.Run(name, func(t *testing.T) { f(t, overTCP(t), front) })
		t.Run(name+", pipe", func(t *testing.T) { f(t, overPipe(t), front) })
	}
}

// start serves until the test ends.
func (f fronted) start(t *testing.T, tr transport) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- f.serve(tr) }()
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		<-served
	})
}

// connect serves until the test ends and returns a client of the server.
func (f fronted) connect(t *testing.T, tr transport) *peer {
	t.Helper()
	f.start(t, tr)
	return dialPeer(t, tr)
}

// runScript runs a server that serves one connection behind p, and returns a
// client of it. The connection is closed when script returns.
func runScript(t *testing.T, tr transport, p *smtpproxy.Proxy, script func(c net.Conn)) *peer {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := p.Listener(tr).Accept()
		if err != nil {
			return
		}
		defer c.Close()
		script(c)
	}()
	t.Cleanup(func() {
		tr.Close()
		<-done
	})
	return dialPeer(t, tr)
}

// readAhead reads lines on a goroutine of its own, whether or not those before
// have been replied to. Without deadlines, unlike servertest.RunAhead.
func readAhead(c net.Conn) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	return lines
}

// peer is the test's end of a connection, a client.
type peer struct {
	t *testing.T
	net.Conn
	r    *bufio.Reader
	sent chan struct{} // closed when all before is written
}

func dialPeer(t *testing.T, tr transport) *peer {
	t.Helper()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	sent := make(chan struct{})
	close(sent)
	return &peer{t, c, bufio.NewReader(c), sent}
}

// send writes without waiting, since a pipe blocks until all is read.
func (p *peer) send(s string) {
	before, after := p.sent, make(chan struct{})
	p.sent = after
	go func() {
		defer close(after)
		<-before
		io.WriteString(p.Conn, s)
	}()
}

// reply reads one reply and returns it without its last line end.
func (p *peer) reply() string {
	p.t.Helper()
	var reply strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		reply.WriteString(line)
		if err != nil {
			p.t.Fatalf("got %q, then %v", reply.String(), err)
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimRight(reply.String(), "\r\n")
		}
	}
}

// expect reads a reply for each of those wanted, which it must start with.
func (p *peer) expect(replies ...string) {
	p.t.Helper()
	for _, want := range replies {
		if got := p.reply(); !strings.HasPrefix(got, want) {
			p.t.Fatalf("got reply %q, want %s", got, want)
		}
	}
}

// ask sends a line and expects a reply.
func (p *peer) ask(line, reply string) {
	p.t.Helper()
	p.send(line + "\r\n")
	p.expect(reply)
}

// expectEnd expects the end of the connection, and no octet before it.
func (p *peer) expectEnd() {
	p.t.Helper()
	if rest, err := io.ReadAll(p.r); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("got %q, %v; want the end of the connection", rest, err)
	}
}

// bubble runs f where time passes only when all wait for it.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// patientPeer is a client that waits for ever.
func patientPeer(t *testing.T, s fronted) *peer {
	t.Helper()
	c := s.connect(t, overPipe(t))
	c.SetDeadline(time.Time{})
	return c
}

// diary returns what the client gets, each piece with the time it came, up to
// the end of the connection.
func (p *peer) diary() []string {
	var entries []string
	for start := time.Now(); ; {
		line, err := p.r.ReadString('\n')
		entries = append(entries, fmt.Sprintf("%v %q", time.Since(start), line))
		if err != nil {
			return entries
		}
	}
}

func TestClosingAServerFreesAClientThatNeverReads(t *testing.T) {
	const commands = 100_000
	forEachFront(t, func(t *testing.T, tr transport, front func(*smtpproxy.Proxy) fronted) {
		ignore := goleak.IgnoreCurrent()
		if tr.halfCloses {
			tr = newTransport(true, func() (server, client net.Conn, err error) {
				if server, client, err = connectTCP(); err == nil {
					server.(*net.TCPConn).SetWriteBuffer(4 << 10)
				}
				return server, client, err
			})
		}
		var passed atomic.Int64
		s := front(&smtpproxy.Proxy{Hook: decide(func(command) (decision, error) {
			passed.Add(1)
			return nil, nil
		})})
		served := make(chan error, 1)
		go func() { served <- s.serve(tr) }()
		c, err := tr.dial()
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan struct{})
		go func() {
			defer close(written)
			io.WriteString(c, "EHLO x\r\n"+strings.Repeat("NOOP\r\n", commands))
		}()
		// Until next to nothing moves any more: when a socket's buffers are full,
		// only time tells, and a bubble has no sockets. Over a pipe, not even the
		// greeting gets away.
		for n := int64(-1); passed.Load()-n > 100 || n < 0; time.Sleep(50 * time.Millisecond) {
			n = passed.Load()
		}
		start := time.Now()
		s.close()
		<-served
		if d := time.Since(start); d > patience/2 {
			t.Errorf("Close took %v", d)
		}
		if n := passed.Load(); n > commands {
			t.Error("the client was never stuck")
		}
		c.Close()
		<-written
		if err := goleak.Find(ignore); err != nil {
			t.Error(err)
		}
	})
}

// A farewell is a client that sends the beginning of a session and goes.
type farewell struct {
	name  string
	leave func(c *net.TCPConn)
}

var farewells = []farewell{
	{"FIN", func(c *net.TCPConn) { c.CloseWrite(); io.Copy(io.Discard, c) }},
	{"RST", func(c *net.TCPConn) { c.SetLinger(0) }},
}

// watchedConn is the server's side of a connection. It tells when the server
// waits for more than a number of octets, and when it has closed.
type watchedConn struct {
	*net.TCPConn
	octets       int
	once         sync.Once
	idle, closed chan struct{}
}

func (c *watchedConn) Read(p []byte) (int, error) {
	if c.octets == 0 {
		c.once.Do(func() { close(c.idle) })
	}
	n, err := c.TCPConn.Read(p)
	c.octets -= n
	return n, err
}

func (c *watchedConn) Close() error {
	err := c.TCPConn.Close()
	if err == nil {
		close(c.closed)
	}
	return err
}

func TestAClientMayVanishAtAnyMoment(t *testing.T) {
	servers := map[string]func(*smtpproxy.Proxy) fronted{
		"go-smtp, LMTP": func(p *smtpproxy.Proxy) fronted { return behindListener(p, servertest.GoSMTPLMTP(true)) },
	}
	for name, front := range fronts {
		servers[name] = front
	}
	for name, front := range servers {
		for _, bye := range farewells {
			t.Run(name+", "+bye.name, func(t *testing.T) {
				greet := "EHLO"
				if strings.HasSuffix(name, "LMTP") {
					greet = "LHLO"
				}
				vanish(t, front(&smtpproxy.Proxy{Hook: &passLog{}}), greet, bye)
			})
		}
	}
}

// vanish plays a whole session as often as it has octets, a longer beginning
// of it each time. At the end of it, the server waits for more.
func vanish(t *testing.T, s fronted, greet string, bye farewell) {
	ignore := goleak.IgnoreCurrent()
	var watched *watchedConn
	tr := newTransport(true, func() (server, client net.Conn, err error) {
		if server, client, err = connectTCP(); err != nil {
			return nil, nil, err
		}
		watched.TCPConn = server.(*net.TCPConn)
		return watched, client, nil
	})
	served := make(chan error, 1)
	go func() { served <- s.serve(tr) }()

	const content, chunk1, chunk2 = "x\r\n.y\r\n", "NOOP\r\n.\r", "\nRSET\r\n"
	total, taken := 0, 0
	for k := 0; k <= total; k++ {
		upToDot := fmt.Sprintf("%s x\r\nAUTH PLAIN\r\n%s\r\nMAIL FROM:<1@%03d>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\nx\r\n..y\r\n.\r\n",
			greet, base64.StdEncoding.EncodeToString([]byte("\x00user\x00pass")), k)
		upToLast := upToDot
		if greet == "EHLO" { // a cut chunk is a data race within go-smtp's LMTP
			upToLast += fmt.Sprintf("MAIL FROM:<2@%03d>\r\nRCPT TO:<c@d>\r\nBDAT %d\r\n%sBDAT %d LAST\r\n%s",
				k, len(chunk1), chunk1, len(chunk2), chunk2)
		}
		session := upToLast + "QUIT\r\n"
		total = len(session)
		watched = &watchedConn{octets: k, idle: make(chan struct{}), closed: make(chan struct{})}
		conn, err := tr.dial()
		if err != nil {
			t.Fatal(err)
		}
		c := conn.(*net.TCPConn)
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, session[:k]); err != nil {
			t.Fatal(err)
		}
		select {
		case <-watched.idle:
		case <-watched.closed: // by QUIT
		case <-time.After(patience):
			t.Fatalf("the server is stuck after %q", session[:k])
		}
		bye.leave(c)
		c.Close()
		select {
		case <-watched.closed:
		case <-time.After(patience):
			t.Fatalf("the server's side stays open after %q", session[:k])
		}
		var want []string
		if k >= len(upToDot) {
			want = append(want, fmt.Sprintf("1@%03d %q", k, content))
		}
		if k >= len(upToLast) && upToLast != upToDot {
			want = append(want, fmt.Sprintf("2@%03d %q", k, chunk1+chunk2))
		}
		for _, m := range s.Messages()[taken:] {
			taken++
			got := fmt.Sprintf("%s %q", m.From, m.Data)
			if len(want) == 0 || got != want[0] {
				t.Fatalf("after %q the server took %s", session[:k], got)
			}
			want = want[1:]
		}
		// A server that reads ahead is not as far as it has read.
		if len(want) > 0 && !strings.Contains(t.Name(), "ahead") {
			t.Errorf("after %q the server didn't take %q", session[:k], want)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	<-served
	rec := s.Record()
	if rec.Sessions != rec.Ended || rec.Sessions < total/2 {
		t.Errorf("%d sessions begun, %d ended", rec.Sessions, rec.Ended)
	}
	if err := goleak.Find(ignore); err != nil {
		t.Error(err)
	}
}
