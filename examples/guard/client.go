package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"time"
)

// step is what the client sends, and how the last line of the reply has to start.
type step struct{ send, want string }

const startTLS = "STARTTLS"

// sessions are the built-in client's.
var sessions = [][]step{
	{ // one that doesn't wait for the greeting
		{"EHLO spam.example", "220 "},
		{"", "554 5.5.1"},
	},
	{ // one that says it is the server
		{"", "220 "},
		{"EHLO " + name, "250 "},
		{"MAIL FROM:<a@spam.example>", "550 5.7.1"},
		{"EHLO [203.0.113.7]", "250 "},
		{"MAIL FROM:<a@spam.example>", "550 5.7.1"},
		{"VRFY bob", "252 "},
		{"MAIL FROM:<b@spam.example>", "550 5.7.1"},
		{"MAIL FROM:<c@spam.example>", "421 4.7.0"}, // the errors are too many
	},
	{ // one that would tell everybody its password
		{"", "220 "},
		{"EHLO client.example", "250 "},
		{"AUTH PLAIN AGFsaWNlAHNlc2FtZQ==", "523 5.7.10"},
	},
	{ // one as it should be
		{"", "220 "},
		{"EHLO client.example", "250 "},
		{startTLS, "220 "},
		{"EHLO client.example", "250 "},
		{"MAIL FROM:<alice@client.example>", "250 "},
		{"RCPT TO:<bob@guard.example>", "250 "},
		{"DATA", "354 "},
		{"Subject: guard\r\n\r\nHello!\r\n.", "250 "},
		{"QUIT", "221 "},
	},
}

var errSession = errors.New("the session did not go as it should")

// converse plays the sessions with the server at addr.
func converse(ctx context.Context, addr string) error {
	for _, steps := range sessions {
		if err := play(ctx, addr, steps); err != nil {
			return err
		}
	}
	return nil
}

// play plays one, and waits for the server to close the connection.
func play(ctx context.Context, addr string, steps []step) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	c := conn
	r := bufio.NewReader(c)
	for _, s := range steps {
		if s.send != "" {
			if _, err := io.WriteString(c, s.send+"\r\n"); err != nil {
				return err
			}
		}
		for more := true; more; {
			line, err := r.ReadString('\n')
			if err != nil {
				return fmt.Errorf("%w: after %q: %w", errSession, s.send, err)
			}
			if more = strings.HasPrefix(line[3:], "-"); !more && !strings.HasPrefix(line, s.want) {
				return fmt.Errorf("%w: reply to %q: %q", errSession, s.send, line)
			}
		}
		if s.send == startTLS {
			c = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // a demonstration: it has no authority
			r = bufio.NewReader(c)
		}
	}
	if line, err := r.ReadString('\n'); err != io.EOF {
		return fmt.Errorf("%w: %q, %v in the place of the end", errSession, line, err)
	}
	return nil
}

// certificate makes a key, and a certificate that it signs itself. A real server has one from
// an authority that clients trust already.
func certificate() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}
