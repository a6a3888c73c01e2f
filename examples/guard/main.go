// Command guard is a go-smtp server with a guard in front of it: hooks that are ready to use,
// put together in a chain, and a log of what they let through and what they don't.
//
//	go run ./examples/guard
//
// It shows four sessions of a built-in client, three of which the guard ends, as its log tells
// them, and then serves other clients until it is interrupted. The chain is guard, below.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// name is the server's.
const name = "mx.guard.example"

// guard is asked from top to bottom. Who is kept out by address alone isn't counted. The limits
// stand before all that refuses commands: behind it, they wouldn't be asked about a command that
// it refuses, and so would never end a connection that only sends such. One with hooks.XCLIENT or
// hooks.Rewrite has these before the limits.
func guard() smtpproxy.Hook {
	return smtpproxy.Chain(
		smtpproxy.Named("networks", &hooks.Networks{Deny: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}),
		smtpproxy.Named("limits", hooks.Limits{Limits: []hooks.Limit{
			{What: hooks.Connections, Per: hooks.PerNetwork, Max: 20},
			{What: hooks.Messages, Per: hooks.PerNetwork, Max: 100, Every: time.Hour, Beyond: smtpproxy.Reply{Code: 450}},
			{What: hooks.Errors, Max: 3}, // rather ten, on the Internet; a server may have a limit of its own
		}}.Hook()),
		smtpproxy.Named("early", &hooks.EarlyTalkers{Delay: 200 * time.Millisecond}), // seconds, on the Internet
		smtpproxy.Named("helo", &hooks.CheckHELO{Own: []string{name}}),
		smtpproxy.Named("tls", &hooks.RequireTLS{Disconnect: true}),
	)
}

// proxy puts the guard in front of a server, with a log that fail2ban can read, too.
func proxy(config *tls.Config, log io.Writer) *smtpproxy.Proxy {
	trace := &hooks.Trace{Logger: slog.New(slog.NewTextHandler(log, nil))}
	return &smtpproxy.Proxy{
		Hook:      guard(),
		Observers: []smtpproxy.Observer{trace.Observer()},
		TLSConfig: config,
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("guard", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2525", "`address` to listen on; port 0 takes a free one")
	once := flags.Bool("once", false, "exit after the built-in client's sessions")
	flags.Parse(args)

	config, err := certificate()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	defer l.Close()
	fmt.Fprintln(stdout, "listening on", l.Addr())

	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{}, nil }))
	server.Domain = name
	served := make(chan error, 1)
	var clients sync.WaitGroup
	p := proxy(config, stdout)
	p.Observers = append(p.Observers, smtpproxy.Observer{
		Connected:    func(*smtpproxy.Context, smtpproxy.Connection) { clients.Add(1) },
		Disconnected: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { clients.Done() },
	})
	go func() { served <- gosmtp.Serve(server, l, p) }()

	err = converse(ctx, l.Addr().String())
	if err == nil && !*once {
		fmt.Fprintln(stdout, "serving other clients until interrupted")
		select {
		case <-ctx.Done():
		case err = <-served:
			return err
		}
	}
	l.Close()
	server.Close()
	<-served
	clients.Wait() // for the last records
	if ctx.Err() != nil {
		return nil // interrupted, as it should be
	}
	return err
}

// session is the server's side of one client, who may send anything to anybody.
type session struct{}

func (*session) Mail(string, *smtp.MailOptions) error { return nil }
func (*session) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*session) Reset()                               {}
func (*session) Logout() error                        { return nil }

func (*session) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
