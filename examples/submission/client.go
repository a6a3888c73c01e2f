package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/xdg-go/scram"
)

// client is the built-in client.
type client struct {
	user, pass string
	roots      []byte // PEM of the certificate that it trusts
}

// submit submits a message with STARTTLS and PLAIN to one address, and one with
// TLS from the first octet and SCRAM-SHA-256 to the other.
func (c *client) submit(starttls, implicit string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.roots)
	config := &tls.Config{RootCAs: roots}
	scram, err := newSCRAMClient(c.user, c.pass)
	if err != nil {
		return err
	}
	for _, session := range []struct {
		what string
		dial func(addr string, config *tls.Config) (*smtp.Client, error)
		addr string
		auth sasl.Client
	}{
		{"STARTTLS and PLAIN", smtp.DialStartTLS, starttls, sasl.NewPlainClient("", c.user, c.pass)},
		{"implicit TLS and SCRAM-SHA-256", smtp.DialTLS, implicit, scram},
	} {
		conn, err := session.dial(session.addr, config)
		if err != nil {
			return fmt.Errorf("%s: %w", session.what, err)
		}
		err = deliver(conn, session.auth, session.what)
		conn.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", session.what, err)
		}
	}
	return nil
}

func deliver(c *smtp.Client, auth sasl.Client, subject string) error {
	if err := c.Auth(auth); err != nil {
		return err
	}
	message := "Subject: " + subject + "\r\n\r\nHello!\r\n"
	err := c.SendMail("sender@example.org", []string{"one@example.com"}, strings.NewReader(message))
	if err != nil {
		return err
	}
	return c.Quit()
}

// scramClient makes a sasl.Client of a conversation.
type scramClient struct{ conversation *scram.ClientConversation }

func newSCRAMClient(user, pass string) (sasl.Client, error) {
	c, err := scram.SHA256.NewClient(user, pass, "")
	if err != nil {
		return nil, err
	}
	return &scramClient{c.NewConversation()}, nil
}

// Start implements sasl.Client.
func (c *scramClient) Start() (mechanism string, initial []byte, err error) {
	first, err := c.conversation.Step("")
	return scramSHA256, []byte(first), err
}

// Next implements sasl.Client. A server that doesn't know the password fails
// here (RFC 5802 section 3).
func (c *scramClient) Next(challenge []byte) (response []byte, err error) {
	message, err := c.conversation.Step(string(challenge))
	return []byte(message), err
}
