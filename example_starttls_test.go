package smtpproxy_test

import (
	"crypto/tls"
	"fmt"
	"net"

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

// The proxy ends TLS, so the hook sees the commands inside, and knows of TLS.
func ExampleProxy_startTLS() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := smtp.NewServer(dropMail{})
	server.Domain = "mx.example"
	go serveWithTLS(server, l, serverTLS())
	defer server.Close()

	client, err := smtp.Dial(l.Addr().String())
	if err != nil {
		panic(err)
	}
	fmt.Println("in plaintext:", client.Mail("alice@example.com", nil))
	client.Close()

	// This client doesn't verify the certificate, which nobody has signed.
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
