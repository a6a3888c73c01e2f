package gosmtp_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// This file is about the ways to start a server without a listener of one's own.

var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// newServer returns a go-smtp server that takes all and stores nothing.
func newServer() *smtp.Server {
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return session{}, nil }))
	srv.ErrorLog = log.New(io.Discard, "", 0)
	return srv
}

// seen is a hook that keeps what it is shown last.
type seen struct {
	mu    sync.Mutex
	lines []string
	conn  smtpproxy.Connection
}

func (s *seen) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines, s.conn = append(s.lines, cmd.Line), conn
	return nil, nil
}

// freePort returns an address of TCP that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// socketDir makes a directory whose name is short enough for a socket in it.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// dialSoon connects as soon as somebody listens, unless the server has ended.
func dialSoon(t *testing.T, network, addr string, served <-chan error) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if c, err := net.Dial(network, addr); err == nil {
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(deadline)
			return c
		}
		select {
		case err := <-served:
			t.Fatalf("the server ended: %v", err)
		default:
		}
	}
	t.Fatalf("nobody listens on %s %s", network, addr)
	return nil
}

// talk sends lines, one for each reply, and returns the replies. No line is the greeting's.
func talk(c net.Conn, r *bufio.Reader, lines ...string) string {
	var all strings.Builder
	for _, line := range lines {
		if line != "" {
			io.WriteString(c, line+"\r\n")
		}
		for {
			reply, err := r.ReadString('\n')
			all.WriteString(reply)
			if err != nil {
				return all.String() + err.Error()
			}
			if len(reply) > 3 && reply[3] == ' ' {
				break
			}
		}
	}
	return all.String()
}

func TestAServerListensWhereItWouldWithoutTheLibrary(t *testing.T) {
	for _, row := range []struct {
		why           string
		network, addr string // of the server
		lmtp          bool
		tls           bool      // from the start
		dial          [2]string // where a client finds it
	}{
		{"an address of TCP", "", "PORT", false, false, [2]string{"tcp", "PORT"}},
		{"TLS on an address of TCP", "", "PORT", false, true, [2]string{"tcp", "PORT"}},
		{"IPv4 alone", "tcp4", "PORT", false, false, [2]string{"tcp", "PORT"}},
		{"LMTP on a socket", "", "socket", true, false, [2]string{"unix", "socket"}},
		{"LMTP on a socket, in TLS", "", "socket", true, true, [2]string{"unix", "socket"}},
		{"LMTP on an address of TCP", "tcp", "PORT", true, false, [2]string{"tcp", "PORT"}},
		{"SMTP on a socket", "unix", "socket", false, false, [2]string{"unix", "socket"}},
		// The names are those of ports where the network is TCP.
		{"without an address, the one for SMTP", "unix", "", false, false, [2]string{"unix", ":smtp"}},
		{"without an address, the one for SMTP in TLS", "unix", "", false, true, [2]string{"unix", ":smtps"}},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Chdir(socketDir(t))
			port := freePort(t)
			hook := new(seen)
			p := &smtpproxy.Proxy{Hook: hook}
			srv := newServer()
			srv.TLSConfig = serverTLS()
			srv.Network, srv.LMTP = row.network, row.lmtp
			srv.Addr = strings.ReplaceAll(row.addr, "PORT", port)
			serve := gosmtp.ListenAndServe
			if row.tls {
				serve = gosmtp.ListenAndServeTLS
			}
			served := make(chan error, 1)
			go func() { served <- serve(srv, p) }()
			c := dialSoon(t, row.dial[0], strings.ReplaceAll(row.dial[1], "PORT", port), served)

			greeting := "EHLO x"
			if row.lmtp {
				greeting = "LHLO x"
			}
			if row.tls {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			}
			r := bufio.NewReader(c)
			got := talk(c, r, "", greeting)
			if strings.Contains(got, "STARTTLS") == row.tls || strings.Contains(got, "AUTH PLAIN") != row.tls {
				t.Errorf("the client is offered %q", got)
			}
			if !row.tls {
				talk(c, r, "STARTTLS")
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				got = talk(c, bufio.NewReader(c), greeting, "NOOP")
				if strings.Contains(got, "STARTTLS") || !strings.Contains(got, "AUTH PLAIN") {
					t.Errorf("inside TLS the client is offered %q", got)
				}
			}
			hook.mu.Lock()
			if lines := strings.Join(hook.lines, "|"); !strings.HasPrefix(lines, greeting) || hook.conn.TLS.Protocol == "" {
				t.Errorf("the hook was shown %s, in TLS %q", lines, hook.conn.TLS.Protocol)
			}
			hook.mu.Unlock()
			if p.ImplicitTLS || p.TLSConfig != nil {
				t.Error("the Proxy was changed")
			}

			if err := srv.Close(); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Errorf("after Close: %v", err)
			}
			if c, err := net.Dial(row.dial[0], strings.ReplaceAll(row.dial[1], "PORT", port)); err == nil {
				c.Close()
				t.Error("somebody listens after Close")
			}
		})
	}
}

func TestAServerThatListensEndsByShutdown(t *testing.T) {
	for i, serve := range []func(*smtp.Server, *smtpproxy.Proxy) error{gosmtp.ListenAndServe, gosmtp.ListenAndServeTLS} {
		srv := newServer()
		srv.Addr = freePort(t)
		served := make(chan error, 1)
		go func() { served <- serve(srv, &smtpproxy.Proxy{TLSConfig: serverTLS()}) }()
		c := dialSoon(t, "tcp", srv.Addr, served)
		if i == 1 {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		}
		if got := talk(c, bufio.NewReader(c), "", "QUIT"); !strings.Contains(got, "221 ") {
			t.Errorf("the client got %q", got)
		}
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Errorf("after Shutdown: %v", err)
		}
	}
}

func TestAnAddressThatIsTakenIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, serve := range map[string]func(*smtp.Server, *smtpproxy.Proxy) error{
		"ListenAndServe": gosmtp.ListenAndServe, "ListenAndServeTLS": gosmtp.ListenAndServeTLS,
	} {
		srv := newServer()
		srv.Addr = l.Addr().String()
		srv.TLSConfig = serverTLS()
		if err := serve(srv, new(smtpproxy.Proxy)); err == nil {
			t.Errorf("%s: no error", name)
		}
		srv.Network, srv.Addr = "unix", filepath.Join(socketDir(t), "no", "such", "socket")
		if err := serve(srv, new(smtpproxy.Proxy)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
