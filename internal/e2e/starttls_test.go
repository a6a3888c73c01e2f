package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// tlsBackend records what a go-smtp backend sees of TLS.
type tlsBackend struct {
	mu     sync.Mutex
	events []string
	begun  int
	ended  int
	open   int
	refuse error
}

func (b *tlsBackend) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, fmt.Sprintf(format, args...))
}

func (b *tlsBackend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	state, ok := gosmtp.TLSConnectionState(c)
	s := gosmtp.Session(c)
	b.note("session %s TLS %v %v", c.Hostname(), ok, state.HandshakeComplete == (s.Connection().TLS.Protocol != ""))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return nil, b.refuse
	}
	b.begun++
	b.open++
	return &tlsSession{b}, nil
}

type tlsSession struct{ b *tlsBackend }

func (s *tlsSession) Reset() {}
func (s *tlsSession) Logout() error {
	s.b.note("logout")
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.ended++
	s.b.open--
	return nil
}
func (s *tlsSession) Mail(from string, _ *smtp.MailOptions) error {
	s.b.note("mail %s", from)
	return nil
}
func (s *tlsSession) Rcpt(to string, _ *smtp.RcptOptions) error { s.b.note("rcpt %s", to); return nil }
func (s *tlsSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	s.b.note("data %v", err)
	return err
}
func (s *tlsSession) AuthMechanisms() []string { return []string{"PLAIN"} }
func (s *tlsSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if pass != "pass" {
			return errors.New("wrong password")
		}
		s.b.note("auth %s", user)
		return nil
	}), nil
}

func (b *tlsBackend) log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.events, "; ")
}

// serveTLS serves a go-smtp server with TLS behind p, and returns its
// listener's dial function.
func serveTLS(t *testing.T, b *tlsBackend, p *smtpproxy.Proxy, options ...func(*smtp.Server)) transport {
	t.Helper()
	srv := smtp.NewServer(b)
	srv.Domain = "mx.example"
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLSConfig = serverTLS()
	srv.EnableREQUIRETLS = true
	for _, o := range options {
		o(srv)
	}
	tr := overTCP(t)
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, tr, p) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return tr
}

// talker is a client that sends a line and reads a reply.
type talker struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func talk(t *testing.T, tr transport) *talker {
	t.Helper()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	k := &talker{t, c, bufio.NewReader(c)}
	k.want("", "220")
	return k
}

// reply reads one reply; lines are separated by spaces and bars.
func (k *talker) reply() (string, error) {
	var lines []string
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			return strings.Join(lines, " | "), err
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, " | "), nil
		}
	}
}

// want sends a line, if there is one, and checks how the reply begins.
func (k *talker) want(line, reply string) string {
	k.t.Helper()
	if line != "" {
		io.WriteString(k, line+"\r\n")
	}
	got, err := k.reply()
	if err != nil || !strings.HasPrefix(got, reply) {
		k.t.Fatalf("%q: got %q, %v; want %q", line, got, err, reply)
	}
	return got
}

func (k *talker) startTLS() {
	k.t.Helper()
	k.want("STARTTLS", "220")
	tc := tls.Client(k.Conn, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example"})
	if err := tc.Handshake(); err != nil {
		k.t.Fatal(err)
	}
	k.Conn, k.r = tc, bufio.NewReader(tc)
}

func TestAfterSTARTTLSTheServerStartsAnewWithTLSVisible(t *testing.T) {
	b := new(tlsBackend)
	tr := serveTLS(t, b, &smtpproxy.Proxy{})
	k := talk(t, tr)
	before := k.want("EHLO before.example", "250")
	if !strings.Contains(before, "STARTTLS") || strings.Contains(before, "AUTH") || strings.Contains(before, "REQUIRETLS") {
		t.Errorf("before TLS: %s", before)
	}
	k.want("AUTH PLAIN AHVzZXIAcGFzcw==", "523 5.7.10")
	k.startTLS()
	k.want("MAIL FROM:<a@example.com>", "502")
	after := k.want("EHLO after.example", "250")
	if strings.Contains(after, "STARTTLS") || !strings.Contains(after, "AUTH PLAIN") || !strings.Contains(after, "REQUIRETLS") {
		t.Errorf("inside TLS: %s", after)
	}
	k.want("STARTTLS", "503")
	k.want("AUTH PLAIN AHVzZXIAcGFzcw==", "235")
	k.want("MAIL FROM:<a@example.com>", "250")
	k.want("RCPT TO:<b@example.org>", "250")
	k.want("DATA", "354")
	k.want("text\r\n.", "250")
	k.want("QUIT", "221")
	io.Copy(io.Discard, k.r) // the server closes when it has logged out
	if got, want := b.log(), "session before.example TLS false true; logout; session after.example TLS true true; auth user; mail a@example.com; rcpt b@example.org; data <nil>; logout"; got != want {
		t.Errorf("the backend saw\n%s\nwant\n%s", got, want)
	}
}

func TestSessionsBegunEqualSessionsEndedAfterRandomDrops(t *testing.T) {
	b := new(tlsBackend)
	tr := serveTLS(t, b, &smtpproxy.Proxy{Hook: &passLog{}})
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16)
	for seed := range uint64(1000) {
		wg.Add(1)
		limit <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-limit }()
			dropAnywhere(rand.New(rand.NewPCG(seed, 3)), tr)
		}()
	}
	wg.Wait()
	for range 100 {
		b.mu.Lock()
		open := b.open
		b.mu.Unlock()
		if open == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond) // looks again: what drops is a socket, so there is no bubble
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun != b.ended || b.begun < 500 {
		t.Errorf("%d sessions begun, %d ended", b.begun, b.ended)
	}
}

// dropAnywhere plays a session with STARTTLS, up to any of its octets.
func dropAnywhere(r *rand.Rand, tr transport) {
	c, err := tr.dial()
	if err != nil {
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	left := r.IntN(4000)
	conn := net.Conn(&dropConn{c, &left})
	br := bufio.NewReader(conn)
	say := func(lines ...string) bool {
		for _, l := range lines {
			if _, err := io.WriteString(conn, l+"\r\n"); err != nil {
				return false
			}
			for {
				reply, err := br.ReadString('\n')
				if err != nil {
					return false
				}
				if len(reply) > 3 && reply[3] == ' ' {
					break
				}
			}
		}
		return true
	}
	if !say("EHLO a.example", "NOOP", "STARTTLS") {
		return
	}
	tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	conn, br = tc, bufio.NewReader(tc)
	say("EHLO b.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA", "text\r\n.", "QUIT")
}

// dropConn fails when so many octets have been written.
type dropConn struct {
	net.Conn
	left *int
}

func (c *dropConn) Write(p []byte) (int, error) {
	n := min(len(p), *c.left)
	*c.left -= n
	if n < len(p) {
		c.Conn.Write(p[:n])
		c.Conn.Close()
		return n, net.ErrClosed
	}
	return c.Conn.Write(p)
}
