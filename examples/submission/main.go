// Command submission is a message submission server (RFC 6409): go-smtp, with
// STARTTLS on one port and TLS from the first octet on another (RFC 8314
// section 3.3), for those who authenticate. A hook in front of it hangs up on
// who would authenticate without TLS, and prints what it sees of clients.
//
//	go -C examples/submission run .
//
// Its certificate is made at each start; -cert-out writes it for clients.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "submission:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("submission", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2587", "`address` to offer STARTTLS on; port 0 takes a free one")
	tlsAddr := flags.String("tls-addr", "127.0.0.1:2465", "`address` for TLS from the first octet")
	certOut := flags.String("cert-out", "", "`file` to write the certificate to (PEM)")
	dir := flags.String("dir", "", "`directory` to write messages to; none drops them")
	user := flags.String("user", "user", "`name` of the only user")
	pass := flags.String("pass", "pass", "that user's `password`")
	once := flags.Bool("once", false, "exit after the built-in client's two sessions")
	flags.Parse(args)

	cert, certPEM, err := demo.NewCertificate()
	if err != nil {
		return err
	}
	if *certOut != "" {
		if err := os.WriteFile(*certOut, certPEM, 0o644); err != nil {
			return err
		}
	}
	account, err := newAccount(*user, *pass)
	if err != nil {
		return err
	}
	out := log.New(stdout, "", 0) // one line at a time, from any goroutine
	b := &backend{out: out, dir: *dir, account: account}
	tlsConfig := &tls.Config{
		Certificates: []tls.Certificate{cert},
		// The server takes any certificate or none. The hook gets to know
		// what verifying it gave.
		ClientAuth: tls.RequestClientCert,
	}

	starttls, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	defer starttls.Close()
	implicit, err := net.Listen("tcp", *tlsAddr)
	if err != nil {
		return fmt.Errorf("%w (-tls-addr takes another address)", err)
	}
	defer implicit.Close()
	out.Println("listening on", starttls.Addr())
	out.Println("listening on", implicit.Addr(), "(TLS)")

	// gosmtp.Serve takes a server over for one listener: hence two servers.
	servers := []*smtp.Server{newServer(b, tlsConfig), newServer(b, tlsConfig)}
	p := &smtpproxy.Proxy{
		Hook:   guard{out},
		Logger: slog.Default(), // tells of handshakes that fail, for one
	}
	pImplicit := *p
	pImplicit.ImplicitTLS = true
	served := make(chan error, len(servers))
	go func() { served <- gosmtp.Serve(servers[0], starttls, p) }()
	go func() { served <- gosmtp.Serve(servers[1], implicit, &pImplicit) }()

	end := func() {
		for _, s := range servers {
			s.Close()
		}
		// In case that a server had not come to serve yet.
		starttls.Close()
		implicit.Close()
	}
	defer end()
	defer context.AfterFunc(ctx, end)()
	if *once {
		c := &client{user: *user, pass: *pass, roots: certPEM}
		return c.submit(starttls.Addr().String(), implicit.Addr().String())
	}
	for range servers {
		if err := <-served; err != nil {
			return err
		}
	}
	return nil // interrupted, as it should be
}

// newServer returns a go-smtp server as anybody would write it. Nothing in it
// knows of the hook, and STARTTLS is the proxy's.
func newServer(b smtp.Backend, config *tls.Config) *smtp.Server {
	s := smtp.NewServer(b)
	s.Domain = "submission.example"
	s.TLSConfig = config
	s.MaxMessageBytes = 64 << 20
	s.MaxRecipients = 100
	s.ReadTimeout = 5 * time.Minute // RFC 5321 section 4.5.3.2.7
	s.WriteTimeout = time.Minute
	return s
}

// guard is the hook.
type guard struct{ out *log.Logger }

// Command prints each command, and what is known of the client by then.
func (g guard) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	inTLS := conn.TLS.Protocol != ""
	g.out.Printf("hook: %s: %v", describe(conn), cmd)
	switch verb := cmd.Verb(); {
	case verb == "EHLO" && inTLS:
		g.out.Printf("hook: %s, %d bits, SNI %q, %s", conn.TLS.Cipher, conn.TLS.KeySize, conn.TLS.SNI, describeCert(conn.TLS.PeerCert))
	case verb == "AUTH" && !inTLS:
		// AUTH is not offered without TLS, and would be refused. But who
		// tries it all the same may have sent a password already, and must
		// not get to try others.
		return smtpproxy.Reply{
			Code:       523,
			Enhanced:   smtpproxy.EnhancedCode{5, 7, 10}, // RFC 5248 section 2.4
			Lines:      []string{"AUTH needs TLS; closing connection"},
			Disconnect: true,
		}, nil
	}
	return nil, nil // pass
}

func describe(conn smtpproxy.Connection) string {
	s := "plaintext"
	if conn.TLS.Protocol != "" {
		s = conn.TLS.Protocol
	}
	if conn.Auth.Mechanism != "" {
		s += fmt.Sprintf(", user %q by %s", conn.Auth.Username, conn.Auth.Mechanism)
	}
	return s
}

// describeCert tells the number under which OpenSSL, and thus other mail
// servers' logs and policies, know the outcome of verifying a certificate: 0
// is a verified one, 18 a self-signed one.
func describeCert(cert smtpproxy.PeerCert) string {
	if cert.X509 == nil {
		return "no client certificate"
	}
	s := fmt.Sprintf("client certificate %q, verify number %d", cert.X509.Subject, cert.Error)
	if cert.Err != nil {
		s += fmt.Sprintf(" (%v)", cert.Err)
	}
	return s
}
