package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file holds that a hook which lets in whoever has a certificate that is verified
// lets in nobody else: above all nobody who has none, for whom Error is 0, too.

func TestVerifiedIsACertificateWithoutAFault(t *testing.T) {
	cert := new(x509.Certificate)
	fault := errors.New("a fault")
	for _, row := range []struct {
		why  string
		cert smtpproxy.PeerCert
		want bool
	}{
		{"none", smtpproxy.PeerCert{}, false},
		{"none, though there is no fault", smtpproxy.NewPeerCert(0, nil), false},
		{"none, and a fault", smtpproxy.NewPeerCert(21, fault), false},
		{"one without a fault", smtpproxy.NewPeerCert(0, nil, cert), true},
		{"one with those above it", smtpproxy.NewPeerCert(0, nil, cert, cert), true},
		{"one with a fault", smtpproxy.NewPeerCert(18, fault, cert), false},
		{"one with a fault that has no text", smtpproxy.NewPeerCert(18, nil, cert), false},
		{"one with a fault that has no number", smtpproxy.NewPeerCert(0, fault, cert), false},
		{"written down without a chain", smtpproxy.PeerCert{X509: cert}, true},
		{"likewise, with a fault", smtpproxy.PeerCert{X509: cert, Error: 10}, false},
	} {
		if got := row.cert.Verified(); got != row.want {
			t.Errorf("%s: %v", row.why, got)
		}
	}
	if (smtpproxy.TLS{}).PeerCert.Verified() {
		t.Error("without TLS there is a verified certificate")
	}
}

// presents returns a client's configuration that presents a chain, whether or not the
// server would take it.
func presents(chain ...*identity) *tls.Config {
	sent := new(tls.Certificate)
	for i, id := range chain {
		sent.Certificate = append(sent.Certificate, id.cert.Raw)
		if i == 0 {
			sent.PrivateKey = id.key
		}
	}
	return &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example",
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return sent, nil }}
}

// pki are certificates of all kinds.
type pki struct {
	roots  *x509.CertPool
	chains map[string][]*identity
}

func newPKI(t *testing.T) pki {
	var nobody *identity
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	root, stranger := nobody.issue(t, "root", true, later), nobody.issue(t, "stranger", true, later)
	middle := root.issue(t, "middle", true, later)
	p := pki{x509.NewCertPool(), map[string][]*identity{
		"none":                    nil,
		"good":                    {root.issue(t, "a", false, later)},
		"good, with its issuer":   {middle.issue(t, "b", false, later), middle},
		"its issuer is missing":   {middle.issue(t, "c", false, later)},
		"somebody else's":         {stranger.issue(t, "d", false, later)},
		"somebody else's, issuer": {stranger.issue(t, "e", false, later), stranger},
		"its own":                 {nobody.issue(t, "f", false, later)},
		"expired":                 {root.issue(t, "g", false, before)},
		"the root's own name":     {nobody.issue(t, "root", false, later)},
	}}
	p.roots.AddCert(root.cert)
	return p
}

func good(name string) bool { return name == "good" || name == "good, with its issuer" }

func TestOnlyAGoodCertificateIsVerified(t *testing.T) {
	p := newPKI(t)
	for _, door := range tlsDoors {
		for _, auth := range []tls.ClientAuthType{tls.NoClientCert, tls.RequestClientCert, tls.VerifyClientCertIfGiven} {
			cfg := serverTLS().Clone()
			cfg.ClientAuth, cfg.ClientCAs = auth, p.roots
			w := new(tlsWitness)
			connect := openDoor(t, door, overTCP(t), cfg, smtpproxy.Proxy{Hook: w}, w)
			for name, chain := range p.chains {
				if _, err := connect(t).greetInTLS(door, presents(chain...)); err != nil {
					if auth != tls.VerifyClientCertIfGiven || good(name) || chain == nil {
						t.Errorf("%s, %v, %s: %v", door, auth, name, err)
					}
					continue // the handshake has refused it
				}
				w.mu.Lock()
				got := w.hook[len(w.hook)-1].PeerCert
				if want := good(name) && auth != tls.NoClientCert; got.Verified() != want || w.session.PeerCert.Verified() != want {
					t.Errorf("%s, %v, %s: %v, Error %d, %v", door, auth, name, got.Verified(), got.Error, got.Err)
				}
				if (got.X509 != nil) != (chain != nil && auth != tls.NoClientCert) {
					t.Errorf("%s, %v, %s: there is a certificate: %v", door, auth, name, got.X509 != nil)
				}
				w.mu.Unlock()
			}
		}
	}
}

// Where the Proxy has no TLSConfig, what the handshake has verified counts.
func TestTheListenerBeneathMayHaveVerified(t *testing.T) {
	p := newPKI(t)
	for _, row := range []struct {
		auth     tls.ClientAuthType
		verifies bool
	}{
		{tls.VerifyClientCertIfGiven, true},
		{tls.RequireAndVerifyClientCert, true},
		// Nobody has verified it against anything but the system's authorities.
		{tls.RequestClientCert, false},
		{tls.RequireAnyClientCert, false},
	} {
		cfg := serverTLS().Clone()
		cfg.ClientAuth, cfg.ClientCAs = row.auth, p.roots
		w := new(tlsWitness)
		tr := overTCP(t)
		serveListener(t, w, (&smtpproxy.Proxy{Hook: w}).Listener(tls.NewListener(tr, cfg)))
		for name, chain := range p.chains {
			c, err := tr.dial()
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(patience))
			k := &talker{t, c, bufio.NewReader(c)}
			_, err = k.greetInTLS("tls.NewListener", presents(chain...))
			k.Close()
			refused := row.verifies && chain != nil && !good(name) ||
				chain == nil && (row.auth == tls.RequireAndVerifyClientCert || row.auth == tls.RequireAnyClientCert)
			if (err != nil) != refused {
				t.Errorf("%v, %s: %v, should be refused: %v", row.auth, name, err, refused)
			}
			if err != nil {
				continue
			}
			w.mu.Lock()
			got := w.hook[len(w.hook)-1].PeerCert
			if want := row.verifies && good(name); got.Verified() != want || want && (got.Error != 0 || got.Err != nil) {
				t.Errorf("%v, %s: %v, Error %d, %v", row.auth, name, got.Verified(), got.Error, got.Err)
			}
			w.mu.Unlock()
		}
	}
}

// A session that is resumed has the certificate of the one before.
func TestAResumedSessionIsVerifiedLikeTheOneBefore(t *testing.T) {
	p := newPKI(t)
	for _, auth := range []tls.ClientAuthType{tls.RequestClientCert, tls.VerifyClientCertIfGiven} {
		for _, name := range []string{"good", "its own", "none"} {
			if auth == tls.VerifyClientCertIfGiven && name == "its own" {
				continue // it never gets a session
			}
			cfg := serverTLS().Clone()
			cfg.ClientAuth, cfg.ClientCAs = auth, p.roots
			w := new(tlsWitness)
			connect := openDoor(t, "ImplicitTLS", overTCP(t), cfg, smtpproxy.Proxy{Hook: w}, w)
			client := presents(p.chains[name]...)
			client.ClientSessionCache = tls.NewLRUClientSessionCache(10)
			for _, resumed := range []bool{false, true} {
				k := connect(t)
				state, err := k.greetInTLS("ImplicitTLS", client)
				if err != nil || state.DidResume != resumed {
					t.Fatalf("%v, %s: %v, resumed: %v", auth, name, err, state.DidResume)
				}
				k.want("QUIT", "221")
				w.mu.Lock()
				if got := w.hook[len(w.hook)-1].PeerCert; got.Verified() != good(name) {
					t.Errorf("%v, %s, resumed %v: %v, Error %d", auth, name, resumed, got.Verified(), got.Error)
				}
				w.mu.Unlock()
			}
		}
	}
}
