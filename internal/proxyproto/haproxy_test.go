package proxyproto_test

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/pires/go-proxyproto"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

func TestMain(m *testing.M) { os.Exit(program.Main(m)) }

// behind is a server behind HAProxy, which counts its health checks.
type behind struct {
	witness
	mu     sync.Mutex
	checks []string // the commands of a connection from HAProxy itself
	mails  int
}

func (b *behind) NewSession(c *smtp.Conn) (smtp.Session, error) {
	if _, err := b.witness.NewSession(c); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *behind) Mail(string, *smtp.MailOptions) error { return nil }
func (b *behind) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (b *behind) Data(r io.Reader) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails++
	_, err := io.Copy(io.Discard, r)
	return err
}

func (b *behind) disconnected(_ *smtpproxy.Context, conn smtpproxy.Connection, end smtpproxy.End) {
	// Who doesn't greet is package program, which finds out whether HAProxy listens.
	if conn.RemoteIP.String() == "127.0.0.1" && conn.HELO.Verb != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.checks = append(b.checks, conn.HELO.Verb+" "+conn.HELO.Host+", "+end.Reason.String())
	}
}

// serveBehind starts a server that takes PROXY headers and believes 127.0.0.1 what it says.
func serveBehind(t *testing.T) (b *behind, addr string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := netip.MustParsePrefix("127.0.0.1/32")
	l := &proxyproto.Listener{Listener: tcp, ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		if ip := o.Upstream.(*net.TCPAddr).AddrPort().Addr(); !front.Contains(ip) {
			return proxyproto.REJECT, nil
		}
		return proxyproto.REQUIRE, nil
	}}
	b = new(behind)
	srv := smtp.NewServer(b)
	srv.ErrorLog = log.New(io.Discard, "", 0)
	p := &smtpproxy.Proxy{
		Hook:      smtpproxy.Chain(&hooks.XCLIENT{Trust: []netip.Prefix{front}}, &hooks.XFORWARD{Trust: []netip.Prefix{front}}, &b.witness),
		Observers: []smtpproxy.Observer{{Disconnected: b.disconnected}},
		Logger:    slog.New(slog.DiscardHandler),
	}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, p) }()
	t.Cleanup(func() {
		tcp.Close() // go-smtp may not know of it yet
		srv.Close()
		<-served
	})
	return b, tcp.Addr().String()
}

// startHAProxy starts HAProxy in front of a server, with TLS at one of two addresses.
func startHAProxy(t *testing.T, server string) (plain, plain6, encrypted string) {
	t.Helper()
	path := program.Need(t, "haproxy")
	dir := program.Dir(t)
	cert := serverTLS().Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	program.Write(t, filepath.Join(dir, "both.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	plain, encrypted = net.JoinHostPort("127.0.0.1", program.Port(t)), net.JoinHostPort("127.0.0.1", program.Port(t))
	plain6 = net.JoinHostPort("::1", program.Port(t))
	conf := program.Write(t, filepath.Join(dir, "haproxy.cfg"), strings.NewReplacer(
		"DIR", dir, "PLAIN6", plain6, "PLAIN", plain, "ENCRYPTED", encrypted, "SERVER", server,
	).Replace(`
defaults
	mode tcp
	timeout connect 10s
	timeout client 30s
	timeout server 30s
	timeout check 10s
frontend front
	bind PLAIN
	bind PLAIN6
	bind ENCRYPTED ssl crt DIR/both.pem
	default_backend back
backend back
	option smtpchk EHLO check.example
	server one SERVER check inter 100ms send-proxy-v2-ssl check-send-proxy
`))
	program.Start(t, []string{plain, plain6, encrypted}, path, "-db", "-f", conf)
	return plain, plain6, encrypted
}

func TestBehindHAProxyTheServerSeesItsClients(t *testing.T) {
	b, addr := serveBehind(t)
	plain, plain6, encrypted := startHAProxy(t, addr)
	for _, test := range []struct {
		why, addr, from string
	}{
		{"PROXY v2", plain, "127.0.0.2"},
		{"PROXY v2, IPv6", plain6, "::1"},
		{"PROXY v2, and TLS to HAProxy", encrypted, "127.0.0.3"},
	} {
		t.Run(test.why, func(t *testing.T) {
			k := dialFrom(t, test.from, test.addr)
			want := k.LocalAddr().(*net.TCPAddr).AddrPort()
			if test.addr == encrypted {
				k.handshake()
			}
			k.say("", "220")
			k.say("EHLO client.example", "250")
			// HAProxy is in the list, its client isn't, and that is who says it.
			k.say("XCLIENT ADDR=192.0.2.7 LOGIN=root", "550")
			k.say("XFORWARD ADDR=192.0.2.7", "550")
			k.say("MAIL FROM:<sender@example.org>", "250")
			k.say("RCPT TO:<rcpt@example.com>", "250")
			k.say("DATA", "354")
			k.say("hello\r\n.", "250")
			k.say("QUIT", "221")

			mine := 0
			conns, addrs := b.take()
			for _, conn := range conns {
				if conn.RemoteIP.String() == "127.0.0.1" {
					continue // a health check
				}
				mine++
				if remote := netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort); remote != want || conn.Peer != want {
					t.Errorf("the client is %v, the peer %v; want %v", remote, conn.Peer, want)
				}
				if local := netip.AddrPortFrom(conn.LocalIP, conn.LocalPort).String(); local != test.addr {
					t.Errorf("it has connected to %s, want %s", local, test.addr)
				}
				if conn.TLS.Protocol != "" {
					t.Errorf("the library knows of TLS at HAProxy: %+v", conn.TLS)
				}
			}
			if mine == 0 || !strings.Contains(strings.Join(addrs, "\n"), want.String()+" "+test.addr) {
				t.Errorf("the server's connections are %q, want one of %v", addrs, want)
			}
		})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mails != 3 {
		t.Errorf("there are %d messages", b.mails)
	}
}

// They come with a PROXY header that says so (LOCAL).
func TestHAProxysHealthChecksAreHAProxys(t *testing.T) {
	b, addr := serveBehind(t)
	plain, _, _ := startHAProxy(t, addr)
	for end := time.Now().Add(program.Patience); ; time.Sleep(10 * time.Millisecond) {
		b.mu.Lock()
		checks := b.checks
		b.mu.Unlock()
		if len(checks) >= 3 {
			for _, check := range checks {
				if check != "EHLO check.example, quit" {
					t.Errorf("a check was %q", check)
				}
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("there were %d checks", len(checks))
		}
	}
	k := dialFrom(t, "127.0.0.2", plain)
	k.say("", "220") // it thinks that the server is well
}

// dialFrom is dial from an address of this machine.
func dialFrom(t *testing.T, from, addr string) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, c)
}
