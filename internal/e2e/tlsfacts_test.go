package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// This file holds what a hook and a backend are told of TLS against what the
// client knows of it.

// tlsDoors are the ways into TLS.
var tlsDoors = []string{"STARTTLS", "ImplicitTLS", "tls.NewListener"}

// serveBehind serves srv behind p until the test ends.
func serveBehind(t *testing.T, srv *smtp.Server, l net.Listener, p *smtpproxy.Proxy) {
	srv.Domain = "mx.example"
	srv.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, p) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
}

// openDoor serves go-smtp with a way into TLS, and returns what connects a
// client up to where the handshake is its turn.
func openDoor(t *testing.T, door string, tr transport, cfg *tls.Config, p smtpproxy.Proxy, b smtp.Backend) func(*testing.T) *talker {
	srv := smtp.NewServer(b)
	srv.TLSConfig = cfg
	l := net.Listener(tr)
	switch door {
	case "ImplicitTLS":
		p.ImplicitTLS = true
	case "tls.NewListener":
		l = tls.NewListener(tr, cfg)
	}
	serveBehind(t, srv, l, &p)
	return func(t *testing.T) *talker {
		if door == "STARTTLS" {
			k := talk(t, tr)
			k.want("EHLO before.example", "250")
			k.want("STARTTLS", "220")
			return k
		}
		c, err := tr.dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		return &talker{t, c, bufio.NewReader(c)}
	}
}

// tlsWitness is a hook and a backend that remember what they last saw of TLS.
type tlsWitness struct {
	mu       sync.Mutex
	hook     []smtpproxy.TLS
	session  smtpproxy.TLS // through gosmtp.Session
	ofConn   smtpproxy.TLS // through SessionOf
	state    tls.ConnectionState
	hasState bool
}

func (w *tlsWitness) Command(_ *hookContext, _ command, conn connection, _ transaction) (decision, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = append(w.hook, conn.TLS)
	return nil, nil
}

func (w *tlsWitness) NewSession(c *smtp.Conn) (smtp.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session = gosmtp.Session(c).Connection().TLS
	s, _ := smtpproxy.SessionOf(c.Conn())
	w.ofConn = s.Connection().TLS
	w.state, w.hasState = gosmtp.TLSConnectionState(c)
	return &tlsSession{new(tlsBackend)}, nil
}

// wantEnd checks that the server closes.
func (k *talker) wantEnd() {
	k.t.Helper()
	if rest, err := io.ReadAll(k.r); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		k.t.Fatalf("got %q, %v; want the end", rest, err)
	}
}

// greetInTLS shakes hands, greets and sends NOOP. It returns the client's view of TLS.
func (k *talker) greetInTLS(door string, cfg *tls.Config) (tls.ConnectionState, error) {
	k.t.Helper()
	tc := tls.Client(k.Conn, cfg)
	if err := tc.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	k.Conn, k.r = tc, bufio.NewReader(tc)
	if door == "STARTTLS" {
		io.WriteString(k, "NOOP\r\n")
	}
	if _, err := k.reply(); err != nil {
		return tls.ConnectionState{}, err // in TLS 1.3 a refusal comes here
	}
	if ehlo := k.want("EHLO inside.example", "250"); strings.Contains(ehlo, "STARTTLS") {
		k.t.Errorf("inside TLS: %s", ehlo)
	}
	k.want("NOOP", "250")
	return tc.ConnectionState(), nil
}

func TestProtocolCipherAndServerNameAreThoseOfTheClientsTLS(t *testing.T) {
	tls13 := map[uint16]int{tls.TLS_AES_128_GCM_SHA256: 128, tls.TLS_AES_256_GCM_SHA384: 256, tls.TLS_CHACHA20_POLY1305_SHA256: 256}
	for _, door := range tlsDoors {
		for _, test := range []struct {
			version, suite uint16
			protocol       string
			cipher         string
			keySize        int
			rsa            bool
		}{
			{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", 256, false},
			{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", 128, false},
			{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305", 256, true},
			{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "TLSv1.2", "ECDHE-RSA-AES256-SHA", 256, true},
			{tls.VersionTLS13, 0, "TLSv1.3", "", 0, false},
		} {
			t.Run(door+" "+test.protocol+" "+test.cipher, func(t *testing.T) {
				cfg := serverTLS().Clone()
				if test.rsa {
					cfg.Certificates = []tls.Certificate{rsaCertificate()}
				}
				w := new(tlsWitness)
				k := openDoor(t, door, overTCP(t), cfg, smtpproxy.Proxy{Hook: w}, w)(t)
				client := &tls.Config{InsecureSkipVerify: true, ServerName: "sni.example", MinVersion: test.version, MaxVersion: test.version}
				if test.suite != 0 {
					client.CipherSuites = []uint16{test.suite}
				}
				real, err := k.greetInTLS(door, client)
				if err != nil {
					t.Fatal(err)
				}
				if test.suite == 0 {
					test.cipher, test.keySize = tls.CipherSuiteName(real.CipherSuite), tls13[real.CipherSuite]
				}
				want := smtpproxy.TLS{Protocol: test.protocol, Cipher: test.cipher, KeySize: test.keySize, SNI: "sni.example"}
				w.mu.Lock()
				defer w.mu.Unlock()
				for who, got := range map[string]smtpproxy.TLS{"hook at EHLO": w.hook[len(w.hook)-2], "hook at NOOP": w.hook[len(w.hook)-1], "gosmtp.Session": w.session, "SessionOf": w.ofConn} {
					if !reflect.DeepEqual(got, want) {
						t.Errorf("%s: got %+v, want %+v", who, got, want)
					}
				}
				if door == "STARTTLS" && (w.hook[0].Protocol != "" || w.hook[1].Protocol != "") {
					t.Error("TLS was seen before there was any")
				}
				if !w.hasState || w.state.Version != real.Version || w.state.CipherSuite != real.CipherSuite || w.state.ServerName != "sni.example" {
					t.Errorf("TLSConnectionState: got %+v, want %+v", w.state, real)
				}
				got, err1 := w.state.ExportKeyingMaterial("test", []byte("context"), 32)
				key, err2 := real.ExportKeyingMaterial("test", []byte("context"), 32)
				if err1 != nil || err2 != nil || !bytes.Equal(got, key) {
					t.Errorf("exported keys: server %x, %v; client %x, %v", got, err1, key, err2)
				}
			})
		}
	}
}

var rsaCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// identity is a certificate and its key.
type identity struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue issues a certificate; without issuer it is self-signed.
func (i *identity) issue(t *testing.T, name string, ca bool, notAfter time.Time) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if ca {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	parent, signer := template, key
	if i != nil {
		parent, signer = i.cert, i.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{cert, key}
}

func TestPeerCertTellsWhatVerifyingTheClientsCertificateGave(t *testing.T) {
	var nobody *identity
	later := time.Now().Add(time.Hour)
	root := nobody.issue(t, "root", true, later)
	middle := root.issue(t, "middle", true, later)
	stranger := nobody.issue(t, "stranger", true, later)
	tests := []struct {
		name    string
		chain   []*identity
		numbers []int
	}{
		{"verified", []*identity{root.issue(t, "a", false, later)}, []int{0}},
		{"verified through what it sent along", []*identity{middle.issue(t, "b", false, later), middle}, []int{0}},
		{"self-signed", []*identity{nobody.issue(t, "c", false, later)}, []int{18}},
		{"expired", []*identity{root.issue(t, "d", false, time.Now().Add(-time.Hour))}, []int{10}},
		{"unknown issuer", []*identity{stranger.issue(t, "e", false, later)}, []int{20, 21}},
		{"unknown issuer of what it sent along", []*identity{middle.issue(t, "f", false, later), stranger}, []int{20, 21}},
		{"none", nil, []int{0}},
	}
	for _, door := range tlsDoors {
		for _, auth := range []tls.ClientAuthType{tls.RequestClientCert, tls.RequireAnyClientCert} {
			cfg := serverTLS().Clone()
			cfg.ClientAuth, cfg.ClientCAs = auth, x509.NewCertPool()
			cfg.ClientCAs.AddCert(root.cert)
			w := new(tlsWitness)
			connect := openDoor(t, door, overTCP(t), cfg, smtpproxy.Proxy{Hook: w}, w)
			for _, test := range tests {
				t.Run(door+" "+auth.String()+" "+test.name, func(t *testing.T) {
					sent := new(tls.Certificate)
					var chain []*x509.Certificate
					for i, id := range test.chain {
						sent.Certificate = append(sent.Certificate, id.cert.Raw)
						chain = append(chain, id.cert)
						if i == 0 {
							sent.PrivateKey = id.key
						}
					}
					client := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return sent, nil }}
					_, err := connect(t).greetInTLS(door, client)
					if refused := auth == tls.RequireAnyClientCert && chain == nil; (err != nil) != refused {
						t.Fatalf("error %v, should be one: %v", err, refused)
					} else if refused {
						return
					}
					w.mu.Lock()
					defer w.mu.Unlock()
					got := w.hook[len(w.hook)-1].PeerCert
					ok := false
					for _, n := range test.numbers {
						ok = ok || got.Error == n
					}
					if !ok || (got.Err == nil) != (test.numbers[0] == 0) {
						t.Errorf("got %d, %v; want %v", got.Error, got.Err, test.numbers)
					}
					if (got.X509 == nil) != (chain == nil) || chain != nil && !got.X509.Equal(chain[0]) || len(got.Chain()) != len(chain) {
						t.Errorf("got %v and %d certificates, want %d", got.X509, len(got.Chain()), len(chain))
					}
					if len(chain) > 0 {
						got.Chain()[0] = nil
						if again := w.session.PeerCert.Chain(); again[0] == nil || got.Chain()[0] == nil {
							t.Error("Chain isn't a fresh slice")
						}
					}
					if w.session.PeerCert.Error != got.Error || w.ofConn.PeerCert.Error != got.Error || len(w.state.PeerCertificates) != len(chain) {
						t.Errorf("the server's side sees %+v, %+v, %d certificates", w.session, w.ofConn, len(w.state.PeerCertificates))
					}
				})
			}
		}
	}
}

func TestPlaintextWhereTLSIsExpectedGetsOneLineAndTheEnd(t *testing.T) {
	for _, door := range tlsDoors[1:] {
		t.Run(door, func(t *testing.T) {
			w := new(tlsWitness)
			k := openDoor(t, door, overTCP(t), serverTLS(), smtpproxy.Proxy{Hook: w}, w)(t)
			io.WriteString(k, "EHLO client.example\r\n")
			got, err := io.ReadAll(k.Conn)
			if string(got) != "554 5.7.0 TLS required\r\n" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			if len(w.hook) > 0 {
				t.Error("the hook was called")
			}
		})
	}
}

func TestASilentHandshakeEndsWhenItsTimeIsUp(t *testing.T) {
	cfg := serverTLS()
	for _, door := range tlsDoors {
		for timeout, want := range map[time.Duration]time.Duration{0: 30 * time.Second, 7 * time.Second: 7 * time.Second, -1: time.Hour} {
			t.Run(door+" "+timeout.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := new(tlsWitness)
					k := openDoor(t, door, overPipe(t), cfg.Clone(), smtpproxy.Proxy{Hook: w, HandshakeTimeout: timeout}, w)(t)
					start := time.Now()
					k.SetDeadline(start.Add(time.Hour)) // which is without limit, here
					n, err := k.Read(make([]byte, 1))
					if after := time.Since(start); n > 0 || err == nil || after != want {
						t.Errorf("%d octets, %v after %v; want the end after %v", n, err, after, want)
					}
				})
			})
		}
	}
}

// The handshake is for the goroutine that serves the connection, not for the
// one that accepts them all.
func TestAClientThatStallsInItsHandshakeKeepsNobodyWaiting(t *testing.T) {
	cfg := serverTLS().Clone()
	cfg.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	for _, door := range tlsDoors {
		t.Run(door, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := new(tlsWitness)
				connect := openDoor(t, door, overPipe(t), cfg.Clone(), smtpproxy.Proxy{Hook: w, HandshakeTimeout: -1}, w)
				for range 3 {
					connect(t) // silent
					io.WriteString(connect(t), "\x16\x03\x01\x01\x00\x01")
				}
				if _, err := connect(t).greetInTLS(door, &tls.Config{InsecureSkipVerify: true}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
