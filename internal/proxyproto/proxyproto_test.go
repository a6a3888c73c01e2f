// Package proxyproto_test holds the library against github.com/pires/go-proxyproto, a
// listener that knows its connections' addresses only when their clients have sent a
// PROXY header. It is a module of its own, so that nobody else needs that one.
package proxyproto_test

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
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/pires/go-proxyproto"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// patience is less than what go-proxyproto waits for one header, which is 10 seconds.
const patience = 5 * time.Second

// headers are what fronts send first.
var headers = []struct {
	why      string
	version  byte
	from, to string
}{
	{"version 1", 1, "192.0.2.7:7777", "198.51.100.1:25"},
	{"version 1, IPv6", 1, "[2001:db8::7]:7777", "[2001:db8::1]:25"},
	{"version 2", 2, "192.0.2.8:8888", "198.51.100.2:587"},
	{"version 2, IPv6", 2, "[2001:db8::8]:8888", "[2001:db8::2]:465"},
}

// doors are the ways into TLS, if any.
var doors = []struct {
	name     string
	startTLS bool
	implicit bool // the proxy begins TLS
	beneath  bool // the listener does
}{
	{name: "plain"},
	{name: "STARTTLS", startTLS: true},
	{name: "ImplicitTLS", implicit: true},
	{name: "tls.NewListener", beneath: true},
}

// witness is a hook and a backend that keep what they are told of the connection.
type witness struct {
	smtp.Session
	mu    sync.Mutex
	conns []smtpproxy.Connection
	addrs []string // of the server's connection
}

func (w *witness) Command(_ *smtpproxy.Context, _ smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, conn)
	return nil, nil
}

func (w *witness) NewSession(c *smtp.Conn) (smtp.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, gosmtp.Session(c).Connection())
	w.addrs = append(w.addrs, fmt.Sprint(c.Conn().RemoteAddr(), " ", c.Conn().LocalAddr()))
	return w, nil
}

func (w *witness) Mail(string, *smtp.MailOptions) error { return nil }

func (w *witness) Reset()        {}
func (w *witness) Logout() error { return nil }

// take returns what was kept, and forgets it.
func (w *witness) take() (conns []smtpproxy.Connection, addrs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	conns, addrs, w.conns, w.addrs = w.conns, w.addrs, nil, nil
	return conns, addrs
}

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

// client is a client that speaks at once or not at all.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, c)
}

func newClient(t *testing.T, c net.Conn) *client {
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{t, c, bufio.NewReader(c)}
}

// say sends a line, if there is one, and reads a reply.
func (c *client) say(line, code string) {
	c.t.Helper()
	if line != "" {
		io.WriteString(c, line+"\r\n")
	}
	for {
		got, err := c.r.ReadString('\n')
		if err != nil || !strings.HasPrefix(got, code) {
			c.t.Fatalf("%q: got %q, %v; want %s", line, got, err, code)
		}
		if got[3] == ' ' {
			return
		}
	}
}

func (c *client) handshake() {
	c.t.Helper()
	tc := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
}

func TestClientsWithoutAPROXYHeaderKeepNobodyWaiting(t *testing.T) {
	for _, door := range doors {
		t.Run(door.name, func(t *testing.T) {
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := net.Listener(&proxyproto.Listener{Listener: tcp})
			if door.beneath {
				l = tls.NewListener(l, serverTLS())
			}
			w := new(witness)
			srv := smtp.NewServer(w)
			srv.ErrorLog = log.New(io.Discard, "", 0)
			p := &smtpproxy.Proxy{Hook: w, TLSConfig: serverTLS(), ImplicitTLS: door.implicit}
			served := make(chan error, 1)
			go func() { served <- gosmtp.Serve(srv, l, p) }()

			for range 10 {
				dial(t, tcp.Addr().String()) // silent
			}
			for _, h := range headers {
				k := dial(t, tcp.Addr().String())
				from, to := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(h.from)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(h.to))
				if _, err := proxyproto.HeaderProxyFromAddrs(h.version, from, to).WriteTo(k); err != nil {
					t.Fatal(err)
				}
				if door.implicit || door.beneath {
					k.handshake()
				}
				k.say("", "220")
				k.say("EHLO client.example", "250")
				if door.startTLS {
					k.say("STARTTLS", "220")
					k.handshake()
					k.say("EHLO client.example", "250")
				}
				k.say("NOOP", "250")
				k.say("QUIT", "221")

				conns, addrs := w.take()
				for i, conn := range conns {
					remote, local := netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort), netip.AddrPortFrom(conn.LocalIP, conn.LocalPort)
					if remote.String() != h.from || local.String() != h.to {
						t.Errorf("%s, look %d: %v to %v, want %s to %s", h.why, i, remote, local, h.from, h.to)
					}
				}
				if last := conns[len(conns)-1]; (last.TLS.Protocol != "") != (door.name != "plain") {
					t.Errorf("%s: TLS %q at last", h.why, last.TLS.Protocol)
				}
				for _, addr := range addrs {
					if addr != h.from+" "+h.to {
						t.Errorf("%s: the server's connection is from %s", h.why, addr)
					}
				}
			}

			start := time.Now()
			srv.Close()
			<-served
			if took := time.Since(start); took > patience {
				t.Errorf("with silent clients, Close took %v", took)
			}
		})
	}
}

// A load balancer that speaks TLS to the server may put its header inside of it. Then it's the
// listener that has read the header which knows of TLS, and no hook does.
func TestAHeaderMayComeInsideTLS_james2634(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := new(witness)
	srv := smtp.NewServer(w)
	srv.ErrorLog = log.New(io.Discard, "", 0)
	l := &proxyproto.Listener{Listener: tls.NewListener(tcp, serverTLS())}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, &smtpproxy.Proxy{Hook: w}) }()
	defer func() { srv.Close(); <-served }()

	k := dial(t, tcp.Addr().String())
	k.handshake()
	io.WriteString(k, "PROXY TCP4 192.0.2.7 198.51.100.1 7777 25\r\n")
	k.say("", "220")
	k.say("EHLO client.example", "250")
	k.say("MAIL FROM:<a@example.com>", "250")
	k.say("QUIT", "221")
	conns, _ := w.take()
	if len(conns) == 0 {
		t.Fatal("the hook wasn't called")
	}
	for _, conn := range conns {
		if conn.RemoteIP.String() != "192.0.2.7" || conn.TLS.Protocol != "" {
			t.Errorf("a hook was told of %v, TLS %q", conn.RemoteIP, conn.TLS.Protocol)
		}
	}
}

// What go-proxyproto refuses is the end of that connection alone.
func TestAHeaderThatIsRefusedEndsItsConnectionAlone(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &proxyproto.Listener{Listener: tcp, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		return proxyproto.REQUIRE, nil
	}}
	w := new(witness)
	srv := smtp.NewServer(w)
	srv.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, &smtpproxy.Proxy{Hook: w}) }()
	defer func() { srv.Close(); <-served }()

	for _, first := range []string{"EHLO client.example\r\n", "PROXY nonsense\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 7777\r\n"} {
		k := dial(t, tcp.Addr().String())
		io.WriteString(k, first)
		if got, _ := io.ReadAll(k.r); len(got) > 0 {
			t.Errorf("%q: got %q", first, got)
		}
	}
	if conns, _ := w.take(); len(conns) > 0 {
		t.Errorf("the hook was called for %+v", conns)
	}
	k := dial(t, tcp.Addr().String())
	io.WriteString(k, "PROXY TCP4 192.0.2.7 198.51.100.1 7777 25\r\n")
	k.say("", "220")
	k.say("EHLO client.example", "250")
	if conns, _ := w.take(); len(conns) == 0 || conns[0].RemoteIP.String() != "192.0.2.7" {
		t.Errorf("the hook was told of %+v", conns)
	}
}

// What a front says of its client, it says itself: who comes through it doesn't speak for it.
func TestOnlyTheFrontItselfIsBelievedThatItsClientIsAnothers(t *testing.T) {
	front, client := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.7")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := new(witness)
	xclient := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		switch {
		case cmd.Verb() != "XCLIENT":
			return nil, nil
		case conn.Peer.Addr() != front:
			return smtpproxy.Reply{Code: 550, Lines: []string{"Not from you"}}, nil
		}
		return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: client, RemotePort: 7}}, nil
	})
	srv := smtp.NewServer(w)
	srv.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	l := &proxyproto.Listener{Listener: tcp, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		return proxyproto.USE, nil // the header may be left out
	}}
	go func() { served <- gosmtp.Serve(srv, l, &smtpproxy.Proxy{Hook: smtpproxy.Chain(xclient, w)}) }()
	defer func() { srv.Close(); <-served }()

	local, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}).Format()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		why, header string
		believed    bool
	}{
		{"a client that the front tells of", "PROXY TCP4 192.0.2.7 198.51.100.1 7777 25\r\n", false},
		{"the front, with no header", "", true},
		{"the front, with a header of its own", string(local), true},
	} {
		k := dial(t, tcp.Addr().String())
		if row.header == "" {
			row.header = "NOOP\r\n" // the listener beneath waits for what might be one
		}
		io.WriteString(k, row.header)
		k.say("", "220")
		if row.header == "NOOP\r\n" {
			k.say("", "250")
		}
		if !row.believed {
			k.say("XCLIENT ADDR=203.0.113.7", "550")
			continue
		}
		k.say("XCLIENT ADDR=203.0.113.7", "220")
		k.say("EHLO client.example", "250")
		k.say("XCLIENT ADDR=203.0.113.7", "220") // it is still the front that speaks
		k.say("EHLO client.example", "250")
		conns, addrs := w.take()
		if last := conns[len(conns)-1]; last.RemoteIP != client || last.Peer.Addr() != front || !strings.HasPrefix(addrs[len(addrs)-1], "203.0.113.7:7 127.0.0.1:") {
			t.Errorf("%s: told of %+v, %q", row.why, last, addrs)
		}
	}
}
