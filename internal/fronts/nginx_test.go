package fronts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foxcpp/go-mockdns"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

// nginxServers are nginx's mail servers, by what a client may do.
type nginxServers struct {
	none   string // mail without AUTH
	auth   string // AUTH at nginx, and STARTTLS
	passOn string // AUTH at nginx, and by nginx at the server behind it
	named  string // mail without AUTH; it looks up its clients' names
	slow   string // the same, but the DNS doesn't answer
	none6  string // as none, on ::1
}

// startNginx starts nginx's mail proxy in front of a server. Its "xclient on" is the default.
func startNginx(t *testing.T, s *server) *nginxServers {
	t.Helper()
	path := program.Need(t, "nginx")
	version, err := exec.Command(path, "-V").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	var load string
	for option := range strings.FieldsSeq(string(version)) {
		if modules, ok := strings.CutPrefix(option, "--modules-path="); ok && strings.Contains(string(version), "--with-mail=dynamic") {
			module := filepath.Join(modules, "ngx_mail_module.so")
			program.NeedFile(t, module)
			load = "load_module " + module + ";"
		}
	}
	if !strings.Contains(string(version), "--with-mail") {
		program.LeaveOut(t, "nginx has no mail proxy")
	}

	var n nginxServers
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch {
		case r.Header.Get("Auth-Method") == "none":
		case r.Header.Get("Auth-User") == user && r.Header.Get("Auth-Pass") == password:
		default:
			h.Set("Auth-Status", "Invalid login or password")
			return
		}
		h.Set("Auth-Status", "OK")
		h.Set("Auth-Server", "127.0.0.1")
		h.Set("Auth-Port", s.port)
	}))
	t.Cleanup(auth.Close)
	resolver := startResolver(t)

	dir := program.Dir(t)
	cert, key := writeCertificate(t, dir)
	var addrs []string
	port := func(host string) string {
		addrs = append(addrs, net.JoinHostPort(host, program.Port(t)))
		return addrs[len(addrs)-1]
	}
	n.none, n.none6, n.named = port("127.0.0.1"), port("::1"), port("127.0.0.1")
	n.slow = port("127.0.0.1")
	n.auth, n.passOn = port("127.0.0.1"), port("127.0.0.1")
	conf := program.Write(t, filepath.Join(dir, "nginx.conf"), strings.NewReplacer(
		"LOAD", load, "DIR", dir, "AUTH-HTTP", auth.URL[len("http://"):], "RESOLVER", resolver, "SILENT", silent(t), "SLOW", n.slow,
		"CERT", cert, "KEY", key, "NONE6", n.none6, "NONE", n.none, "NAMED", n.named,
		"PASS-ON", n.passOn, "AUTH", n.auth,
	).Replace(`
LOAD
daemon off;
master_process off;
pid DIR/pid;
error_log stderr notice;
events { worker_connections 64; }
mail {
	server_name front.example;
	auth_http AUTH-HTTP/;
	smtp_auth none;
	server { listen NONE; listen NONE6; protocol smtp; }
	server { listen NAMED; protocol smtp; resolver RESOLVER; }
	server { listen SLOW; protocol smtp; resolver SILENT; resolver_timeout 100ms; }
	server {
		listen AUTH;
		protocol smtp;
		smtp_auth plain login;
		starttls on;
		ssl_certificate CERT;
		ssl_certificate_key KEY;
	}
	server { listen PASS-ON; protocol smtp; smtp_auth plain login; proxy_smtp_auth on; }
}
`))
	program.Start(t, addrs, path, "-p", dir, "-e", "stderr", "-c", conf)
	s.forget()
	return &n
}

// startResolver starts a DNS server, in which 127.0.0.3 has a name.
func startResolver(t *testing.T) (addr string) {
	t.Helper()
	dns, err := mockdns.NewServerWithLogger(map[string]mockdns.Zone{
		"3.0.0.127.in-addr.arpa.": {PTR: []string{"client.example."}},
		"client.example.":         {A: []string{"127.0.0.3"}},
	}, log.New(io.Discard, "", 0), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	return dns.LocalAddr().String()
}

// silent returns the address of a DNS server that doesn't answer.
func silent(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

// writeCertificate writes a certificate that nobody would trust, and its key.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"front.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = program.Write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = program.Write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
	return cert, key
}

// nginxPrelude is what nginx 1.22.1 sends first, whatever its client has said, and without
// looking at what the server announces.
const nginxPrelude = "EHLO front.example\r\n"

func TestBehindNginxTheServerSeesItsClients(t *testing.T) {
	s := serve(t, serverOptions{})
	n := startNginx(t, s)
	xclientLogin := smtpproxy.Auth{Mechanism: "XCLIENT", Username: user}
	for _, test := range []struct {
		why   string
		addr  string
		from  string
		steps string // what the client says before it sends a message

		sent string // up to the message
		helo string
		name string
		auth smtpproxy.Auth
	}{
		{
			why: "EHLO", addr: n.none, from: "127.0.0.2", steps: "EHLO",
			sent: "XCLIENT ADDR=127.0.0.2 NAME=[UNAVAILABLE]\r\nEHLO c.example\r\n", helo: "EHLO",
		},
		{
			why: "HELO", addr: n.none, from: "127.0.0.2", steps: "HELO",
			sent: "XCLIENT ADDR=127.0.0.2 NAME=[UNAVAILABLE]\r\nHELO c.example\r\n", helo: "HELO",
		},
		{
			why: "IPv6", addr: n.none6, from: "::1", steps: "EHLO",
			sent: "XCLIENT ADDR=IPV6:::1 NAME=[UNAVAILABLE]\r\nEHLO c.example\r\n", helo: "EHLO",
		},
		{
			why: "a name in the DNS", addr: n.named, from: "127.0.0.3", steps: "EHLO",
			sent: "XCLIENT ADDR=127.0.0.3 NAME=client.example\r\nEHLO c.example\r\n", helo: "EHLO", name: "client.example",
		},
		{
			why: "no name in the DNS", addr: n.named, from: "127.0.0.4", steps: "EHLO",
			sent: "XCLIENT ADDR=127.0.0.4 NAME=[UNAVAILABLE]\r\nEHLO c.example\r\n", helo: "EHLO",
		},
		{
			why: "a DNS that doesn't answer", addr: n.slow, from: "127.0.0.3", steps: "EHLO",
			sent: "XCLIENT ADDR=127.0.0.3 NAME=[TEMPUNAVAIL]\r\nEHLO c.example\r\n", helo: "EHLO",
		},
		{
			why: "AUTH at nginx", addr: n.auth, from: "127.0.0.5", steps: "EHLO AUTH",
			sent: "XCLIENT ADDR=127.0.0.5 LOGIN=alice@example.com NAME=[UNAVAILABLE]\r\nEHLO c.example\r\n", helo: "EHLO", auth: xclientLogin,
		},
		{
			why: "AUTH at nginx inside TLS", addr: n.auth, from: "127.0.0.5", steps: "EHLO STARTTLS EHLO AUTH",
			sent: "XCLIENT ADDR=127.0.0.5 LOGIN=alice@example.com NAME=[UNAVAILABLE]\r\nEHLO c.example\r\n", helo: "EHLO", auth: xclientLogin,
		},
		{
			// There is nothing for nginx to say then, and the EHLO is the client's own.
			why: "AUTH at nginx before EHLO", addr: n.auth, from: "127.0.0.5", steps: "AUTH EHLO",
			sent: "XCLIENT ADDR=127.0.0.5 LOGIN=alice@example.com NAME=[UNAVAILABLE]\r\nEHLO c.example\r\n", helo: "EHLO", auth: xclientLogin,
		},
		{
			// nginx doesn't tell LOGIN then, but authenticates.
			why: "AUTH at nginx, and at the server", addr: n.passOn, from: "127.0.0.5", steps: "EHLO AUTH",
			sent: "XCLIENT ADDR=127.0.0.5 NAME=[UNAVAILABLE]\r\nEHLO c.example\r\n" + authPlain(user) + "\r\n", helo: "EHLO",
			auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: user},
		},
	} {
		t.Run(test.why, func(t *testing.T) {
			k := dial(t, test.from, test.addr)
			k.say("", 220)
			for step := range strings.FieldsSeq(test.steps) {
				switch step {
				case "AUTH":
					k.login(user)
				case "STARTTLS":
					k.startTLS()
				default:
					k.say(step+" c.example", 250)
				}
			}
			k.mail()
			k.say("QUIT", 221)
			m, octets := s.one(t)
			m.check(t)
			if got, _, _ := strings.Cut(octets, "MAIL"); got != nginxPrelude+test.sent {
				t.Errorf("nginx sent %q, want %q", got, nginxPrelude+test.sent)
			}
			// nginx doesn't tell the port.
			if ip := m.conn.RemoteIP.String(); ip != test.from || m.conn.RemotePort != 0 || m.remote != net.JoinHostPort(test.from, "0") {
				t.Errorf("the client is %s port %d, the server's connection from %s; want %s", ip, m.conn.RemotePort, m.remote, test.from)
			}
			if peer := m.conn.Peer.Addr().String(); peer != "127.0.0.1" {
				t.Errorf("the peer is %s, want nginx", peer)
			}
			if want := (smtpproxy.HELO{Verb: test.helo, Host: "c.example"}); m.conn.HELO != want || m.hello != "c.example" {
				t.Errorf("the client's greeting is %+v, %q to the server", m.conn.HELO, m.hello)
			}
			if m.conn.RemotePTR != test.name {
				t.Errorf("the client's name is %q, want %q", m.conn.RemotePTR, test.name)
			}
			if m.conn.Auth != test.auth || (m.user != "") != (test.auth.Mechanism == "PLAIN") {
				t.Errorf("the client has authenticated as %+v, %q for the server; want %+v", m.conn.Auth, m.user, test.auth)
			}
		})
	}
}

// It accepts MAIL of its own, and says it to the server when it has a recipient. go-smtp wants
// to be greeted, and nginx doesn't greet it again behind XCLIENT if its client has not.
func TestBehindNginxAClientThatDoesNotGreetFaresAsWithoutIt(t *testing.T) {
	s := serve(t, serverOptions{})
	n := startNginx(t, s)
	k := dial(t, "127.0.0.2", n.none)
	k.say("", 220)
	k.say("MAIL FROM:<sender@example.org>", 250)
	k.say("RCPT TO:<rcpt@example.com>", 451)
	want := nginxPrelude + "XCLIENT ADDR=127.0.0.2 NAME=[UNAVAILABLE]\r\nMAIL FROM:<sender@example.org>\r\n"
	if got := s.octets(); got != want {
		t.Errorf("nginx sent %q, want %q", got, want)
	}
}

// With the first recipient that it lets in, nginx steps aside.
func TestBehindNginxAClientGoesOnAfterItsFirstMessageAndARefusal(t *testing.T) {
	s := serve(t, serverOptions{})
	n := startNginx(t, s)
	k := dial(t, "127.0.0.2", n.none)
	k.say("", 220)
	k.say("EHLO c.example", 250)
	k.say("MAIL FROM:<sender@example.org>", 250)
	k.say("RCPT TO:<nobody@example.com>", 550)
	k.say("RCPT TO:<rcpt@example.com>", 250)
	k.data()
	k.mail()
	k.say("QUIT", 221)
	for _, m := range s.await(t, 2) {
		m.check(t)
		if ip := m.conn.RemoteIP.String(); ip != "127.0.0.2" {
			t.Errorf("the client is %s", ip)
		}
	}
}

func TestNginxThatIsNotTrustedGetsNoFurther(t *testing.T) {
	s := serve(t, serverOptions{xclient: &hooks.XCLIENT{Trust: []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}}})
	n := startNginx(t, s)
	for _, addr := range []string{n.none, n.auth, n.passOn} {
		k := dial(t, "127.0.0.9", addr) // who is trusted, but not who is connected
		k.say("", 220)
		k.say("EHLO c.example", 250)
		if addr == n.none {
			k.say("MAIL FROM:<sender@example.org>", 250) // nginx's own reply
			k.say("RCPT TO:<rcpt@example.com>", 451)
		} else {
			k.say(authPlain(user), 451)
		}
	}
	if commands := s.commands(); slices.ContainsFunc(commands, func(line string) bool {
		return !strings.HasPrefix(line, "EHLO ") && !strings.HasPrefix(line, "XCLIENT ")
	}) || len(commands) != 6 {
		t.Errorf("nginx sent %q", commands)
	}
}

// When nginx has stepped aside, its client talks to the server.
func TestClientsOfNginxCannotSpeakForIt(t *testing.T) {
	s := serve(t, serverOptions{})
	n := startNginx(t, s)
	for _, addr := range []string{n.none, n.auth} {
		k := dial(t, "127.0.0.2", addr)
		k.say("", 220)
		k.say("EHLO c.example", 250)
		if addr == n.none {
			k.say("MAIL FROM:<sender@example.org>", 250)
			k.say("RCPT TO:<rcpt@example.com>", 250)
			k.say("RSET", 250)
		} else {
			k.login(user)
		}
		k.say("XCLIENT LOGIN=root ADDR=192.0.2.1", 550)
		k.say("XFORWARD ADDR=192.0.2.1", 550)
		if announced := k.say("EHLO c.example", 250); strings.Contains(announced, "XCLIENT") || strings.Contains(announced, "XFORWARD") {
			t.Errorf("the client was told of %q", announced)
		}
		k.mail()
		m, _ := s.one(t)
		if m.conn.RemoteIP.String() != "127.0.0.2" || m.conn.Auth.Username == "root" {
			t.Errorf("the client is %s, %+v", m.conn.RemoteIP, m.conn.Auth)
		}
	}
}
