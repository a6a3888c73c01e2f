// Command sasl is a go-smtp server that knows nothing of AUTH, and a hook in front of it
// that does: with CRAM-MD5 (RFC 2195), which go-smtp doesn't have, and which many clients do.
//
//	go run ./examples/sasl
//
// It shows a session of a built-in client, then serves other clients until it is
// interrupted. The only user is "demo" with the password "demo".
//
// The mechanism and the policy, that mail needs AUTH, are in cram.go. AUTH is offered and
// taken inside TLS alone. CRAM-MD5 sends no password, but what it sends is enough for
// others to try passwords on, and without TLS they could also take the session over behind it.
// The library holds AUTH back by itself where there is no TLS, but only a server's: a
// hook that offers AUTH has to look at Connection.TLS.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	netsmtp "net/smtp"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

func main() { demo.Main("sasl", run) }

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("sasl", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2529", "`address` to listen on; port 0 takes a free one")
	once := flags.Bool("once", false, "exit after the built-in client's session")
	flags.Parse(args)

	cert, certPEM, err := demo.NewCertificate() // a new one at each start
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	out := log.New(stdout, "", 0) // one line at a time, from any goroutine
	out.Println("listening on", l.Addr())

	server := demo.Server(out, func(c *smtp.Conn) string {
		return fmt.Sprintf("user %q", userOf(gosmtp.Session(c).Context()))
	})
	p := &smtpproxy.Proxy{
		Hook:      cramMD5{"demo": "demo"},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		Observers: []smtpproxy.Observer{{Exchanged: func(_ *smtpproxy.Context, x smtpproxy.Exchange) {
			text := strings.ReplaceAll(x.Reply.String(), "\r\n", " | ")
			out.Printf("%v -> %v: %s", x.Command, x.By, text) // credentials are masked
		}}},
	}
	serve := func() error { return gosmtp.Serve(server, l, p) }
	client := func() error { return submit(l.Addr().String(), certPEM) }
	return demo.Run(ctx, l, server, serve, client, *once)
}

// submit plays the built-in client's session, with net/smtp's client.
func submit(addr string, roots []byte) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	c, err := netsmtp.NewClient(conn, "localhost")
	if err != nil {
		return err
	}
	defer c.Close()
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	config.RootCAs.AppendCertsFromPEM(roots)
	if err := c.StartTLS(config); err != nil {
		return err
	}
	if err := c.Mail("sender@example.org"); err == nil {
		return errors.New("MAIL was accepted without AUTH")
	}
	for _, step := range []func() error{
		func() error { return c.Auth(netsmtp.CRAMMD5Auth("demo", "demo")) },
		func() error { return c.Mail("sender@example.org") },
		func() error { return c.Rcpt("one@example.com") },
		func() error { return send(c, "Subject: sasl\r\n\r\nHello!\r\n") },
		c.Quit,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// send sends the content of a message.
func send(c *netsmtp.Client, content string) error {
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return err
	}
	return w.Close()
}
