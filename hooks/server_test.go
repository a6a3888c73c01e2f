package hooks_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// This file is go-smtp behind the hooks, on loopback, with a record of what it is told and of
// what hooks see.

// server is such a server.
type server struct {
	addr string
	mu   sync.Mutex
	log  []string
}

func (s *server) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// record returns what was noted.
func (s *server) record() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// how tells how a server is served.
type how struct {
	lmtp bool
	tls  bool
	peer net.Addr // who is connected, nil for loopback: as a PROXY header tells it
}

// serve serves with a hook, behind which another one notes who sends each MAIL and NOOP, and
// where the message comes from.
func serve(t *testing.T, h smtpproxy.Hook, how how) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		s.note("server: from %v", c.Conn().RemoteAddr())
		return &backend{s}, nil
	}))
	srv.LMTP = how.lmtp
	srv.AllowInsecureAuth = true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	if how.tls {
		srv.TLSConfig = certificate(t)
	}
	notes := smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		switch cmd.Verb() {
		case "MAIL", "NOOP":
			s.note("%s: %s, peer %v", cmd.Verb(), who(conn), conn.Peer.Addr())
			if f, ok := hooks.ForwardedOf(ctx, txn); ok {
				s.note("forwarded: %+v", f)
			}
		case "XCLIENT", "XFORWARD":
			s.note("passed: %s", cmd.Line)
		}
		return nil, nil
	})
	p := &smtpproxy.Proxy{
		Hook: smtpproxy.Chain(h, notes), Logger: slog.New(slog.DiscardHandler),
		OnFailure: func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
			t.Errorf("a hook failed: %v", f)
			return nil
		},
	}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, peerListener{l, how.peer}, p) }()
	t.Cleanup(func() { srv.Close(); <-served })
	return s
}

// peerListener is a listener that knows who its clients are.
type peerListener struct {
	net.Listener
	peer net.Addr
}

func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.peer == nil {
		return c, err
	}
	return peerConn{c, l.peer}, nil
}

type peerConn struct {
	net.Conn
	peer net.Addr
}

func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// backend is go-smtp's, for a connection.
type backend struct{ s *server }

func (b *backend) Reset()                               {}
func (b *backend) Logout() error                        { return nil }
func (b *backend) Mail(string, *smtp.MailOptions) error { return nil }
func (b *backend) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	}
	return nil
}
func (b *backend) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

func (b *backend) Auth(mechanism string) (sasl.Server, error) {
	if mechanism == sasl.Login {
		return &login{}, nil
	}
	return sasl.NewPlainServer(func(_, username, _ string) error {
		b.s.note("server: AUTH %s", username)
		return nil
	}), nil
}

// login is a mechanism that takes whatever it gets.
type login struct{ n int }

func (l *login) Next([]byte) (challenge []byte, done bool, err error) {
	l.n++
	return []byte("Next:"), l.n > 2, nil
}

func (b *backend) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	b.s.note("server: message %q", content)
	return err
}

// certificate returns a configuration with a certificate of its own.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// step is what a client sends at once, and how the replies begin that it then awaits. For
// startTLS, it shakes hands.
type step struct {
	send string
	want []string
}

const startTLS = "(TLS)"

// played is what came of a dialogue.
type played struct {
	port    int // the client's
	replies []string
}

// play connects, plays a dialogue to its end, and returns what came of it.
func (s *server) play(t *testing.T, steps ...step) played {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Close() }()
	port := c.LocalAddr().(*net.TCPAddr).Port
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	var all []string
	for _, step := range append([]step{{"", []string{"220"}}}, steps...) {
		if step.send == startTLS {
			tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if err := tc.Handshake(); err != nil {
				t.Fatal(err)
			}
			c = tc
			r.Reset(c)
			continue
		}
		if _, err := io.WriteString(c, step.send); err != nil {
			t.Fatalf("%q: %v", step.send, err)
		}
		for _, want := range step.want {
			reply := ""
			for more := true; more; {
				line, err := r.ReadString('\n')
				if err != nil {
					t.Fatalf("%q: %q, %v, want %s\n%s", step.send, line, err, want, strings.Join(s.record(), "\n"))
				}
				reply += line
				more = len(line) > 3 && line[3] == '-'
			}
			if !strings.HasPrefix(reply, want) {
				t.Errorf("%q: %q, want %s", step.send, reply, want)
			}
			all = append(all, reply)
		}
	}
	io.WriteString(c, "QUIT\r\n")
	if rest, _ := io.ReadAll(r); !strings.HasPrefix(string(rest), "221 ") {
		t.Errorf("at the end: %q", rest)
	}
	return played{port, all}
}

// wants checks the record.
func (s *server) wants(t *testing.T, why string, want ...string) {
	t.Helper()
	if got := s.record(); !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", why, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
