package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file holds that a configuration that can't work is an error where the server
// starts, and not a hook that is never called.

// brokenListener is a listener whose Accept fails.
type brokenListener struct {
	net.Listener
	accepts int
}

var errAccept = errors.New("the listener beneath was asked")

func (l *brokenListener) Accept() (net.Conn, error) {
	l.accepts++
	return nil, errAccept
}

func TestAConfigurationThatCannotWorkIsAnErrorOfEachAccept(t *testing.T) {
	cert := serverTLS().Certificates
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert[0], nil }
	forClient := func(*tls.ClientHelloInfo) (*tls.Config, error) { return serverTLS(), nil }
	for _, row := range []struct {
		why  string
		p    *smtpproxy.Proxy
		says string // part of the error; "" where there is none
	}{
		{"none at all", nil, "nil"},
		{"the zero value passes everything", &smtpproxy.Proxy{}, ""},

		{"verbs, in any case", &smtpproxy.Proxy{Commands: []string{"MAIL", "rcpt", "Data", "X-PING"}}, ""},
		{"two words are no verb", &smtpproxy.Proxy{Commands: []string{"EHLO", "MAIL FROM"}}, `"MAIL FROM"`},
		{"a blank comes before no verb", &smtpproxy.Proxy{Commands: []string{" RCPT"}}, `" RCPT"`},
		{"a blank comes behind no verb", &smtpproxy.Proxy{Commands: []string{"RCPT "}}, `"RCPT "`},
		{"a tab does neither", &smtpproxy.Proxy{Commands: []string{"RCPT\t"}}, `"RCPT\t"`},
		{"a line end is none of it", &smtpproxy.Proxy{Commands: []string{"QUIT\r\n"}}, `"QUIT\r\n"`},
		{"nothing is no verb", &smtpproxy.Proxy{Commands: []string{""}}, `""`},
		{"a verb is ASCII", &smtpproxy.Proxy{Commands: []string{"R\u017fET"}}, "\"R\u017fET\""},
		{"a verb starts with a letter", &smtpproxy.Proxy{Commands: []string{"1MAIL"}}, `"1MAIL"`},

		{"ImplicitTLS has nothing to begin TLS with", &smtpproxy.Proxy{ImplicitTLS: true}, "ImplicitTLS"},
		{"TLS needs a certificate", &smtpproxy.Proxy{TLSConfig: new(tls.Config)}, "certificate"},
		{"likewise from the start", &smtpproxy.Proxy{TLSConfig: new(tls.Config), ImplicitTLS: true}, "certificate"},
		{"what a client needs is none", &smtpproxy.Proxy{TLSConfig: &tls.Config{
			RootCAs: x509.NewCertPool(), ServerName: "mx.example",
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert[0], nil },
		}}, "certificate"},
		{"an empty list has none", &smtpproxy.Proxy{TLSConfig: &tls.Config{Certificates: []tls.Certificate{}}}, "certificate"},
		{"a list has one", &smtpproxy.Proxy{TLSConfig: &tls.Config{Certificates: cert}}, ""},
		{"GetCertificate has one", &smtpproxy.Proxy{TLSConfig: &tls.Config{GetCertificate: get}}, ""},
		{"GetConfigForClient has one", &smtpproxy.Proxy{TLSConfig: &tls.Config{GetConfigForClient: forClient}}, ""},
		{"likewise from the start", &smtpproxy.Proxy{TLSConfig: &tls.Config{GetConfigForClient: forClient}, ImplicitTLS: true}, ""},
	} {
		err := row.p.Validate()
		if row.says == "" {
			if err != nil {
				t.Errorf("%s: %v", row.why, err)
			}
			err = errAccept
		} else if err == nil || !strings.HasPrefix(err.Error(), "smtpproxy: ") || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want one about %s", row.why, err, row.says)
			continue
		}
		beneath := new(brokenListener)
		l := row.p.Listener(beneath)
		for range 3 {
			c, got := l.Accept()
			if c != nil || got == nil || got.Error() != err.Error() {
				t.Errorf("%s: Accept returned %v, %v; want %v", row.why, c, got, err)
			}
			var timeout net.Error
			if errors.As(got, &timeout) {
				t.Errorf("%s: a server would ask again, for %v", row.why, got)
			}
		}
		if (beneath.accepts > 0) != (row.says == "") {
			t.Errorf("%s: the listener beneath was asked %d times", row.why, beneath.accepts)
		}
	}
}

// What is wrong is told to the server, whichever it is.
func TestAServerReturnsTheErrorOfItsConfiguration(t *testing.T) {
	for name, s := range map[string]*servertest.Server{"go-smtp": servertest.GoSMTP(), "another": servertest.Strict()} {
		tr := overTCP(t)
		err := s.Serve((&smtpproxy.Proxy{Commands: []string{"MAIL FROM"}}).Listener(tr))
		if err == nil || !strings.Contains(err.Error(), "MAIL FROM") {
			t.Errorf("%s: %v", name, err)
		}
		tr.Close()
	}
}

func TestAListenerOfTheLibraryIsNotWrappedAgain(t *testing.T) {
	p := new(smtpproxy.Proxy)
	beneath := new(brokenListener)
	once := p.Listener(beneath)
	twice := new(smtpproxy.Proxy).Listener(once)
	for range 3 {
		if c, err := twice.Accept(); c != nil || err == nil || !strings.Contains(err.Error(), "wrapped again") {
			t.Errorf("got %v, %v", c, err)
		}
	}
	if beneath.accepts > 0 {
		t.Error("the listener beneath was asked")
	}
	if _, err := once.Accept(); err != errAccept {
		t.Errorf("the one beneath returned %v", err)
	}
	// Of two faults, what the Proxy's author wrote comes first.
	if _, err := (*smtpproxy.Proxy)(nil).Listener(once).Accept(); err == nil || !strings.Contains(err.Error(), "nil") {
		t.Errorf("got %v", err)
	}
}
