package smtpproxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// onlyInTLS refuses mail outside of TLS (RFC 3207 section 4).
func onlyInTLS(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "MAIL" && conn.TLS.Protocol == "" {
		return smtpproxy.Reply{
			Code:     530,
			Enhanced: smtpproxy.EnhancedCode{5, 7, 0},
			Lines:    []string{"Must issue a STARTTLS command first"},
		}, nil
	}
	return nil, nil // pass
}

// serveWithTLS offers STARTTLS with the certificates in config.
func serveWithTLS(server *smtp.Server, l net.Listener, config *tls.Config) error {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(onlyInTLS), TLSConfig: config}
	return gosmtp.Serve(server, l, p)
}

// takeMail is a backend of go-smtp's, as any: it takes mail and drops it.
type takeMail struct{}

func (takeMail) NewSession(*smtp.Conn) (smtp.Session, error) { return takeMail{}, nil }
func (takeMail) Mail(string, *smtp.MailOptions) error        { return nil }
func (takeMail) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (takeMail) Data(r io.Reader) error                      { _, err := io.Copy(io.Discard, r); return err }
func (takeMail) Reset()                                      {}
func (takeMail) Logout() error                               { return nil }

// selfSigned returns a configuration with a certificate that nobody else has signed.
func selfSigned() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"mx.example"},
		NotAfter:     time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
}

// The proxy ends TLS, so the hook sees the commands inside, and knows of TLS.
func ExampleProxy_startTLS() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := smtp.NewServer(takeMail{})
	server.Domain = "mx.example"
	go serveWithTLS(server, l, selfSigned())
	defer server.Close()

	client, err := smtp.Dial(l.Addr().String())
	if err != nil {
		panic(err)
	}
	fmt.Println("in plaintext:", client.Mail("alice@example.com", nil))
	client.Close()

	// This client doesn't verify the certificate.
	client, err = smtp.DialStartTLS(l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		panic(err)
	}
	fmt.Println("inside TLS:", client.Mail("alice@example.com", nil))
	client.Close()
	// Output:
	// in plaintext: SMTP error 530: Must issue a STARTTLS command first
	// inside TLS: <nil>
}
