// Command ownserver is a small SMTP server with a state machine of its own,
// which asks a smtpproxy.Session about each line before it executes it.
//
//	go run ./examples/ownserver
//
// The loop is client.serve in server.go. The hook, in this file, prints what
// clients send and watches over AUTH; a front end on the same machine may tell with
// XCLIENT who its client is; an observer prints refusals. The only account is "demo" with the
// password "demo"; there is no TLS, so this is no server for the Internet.
package main

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// attempts is what the hook remembers of a connection.
type attempts struct{ auth int }

// chain returns all hooks of this server's. A front end on the same machine may tell whose
// connection it is; what it tells is for the server, too: the session lets it start afresh.
func chain(out *log.Logger) smtpproxy.Hook {
	front := &hooks.XCLIENT{
		Trust:      []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Attributes: []string{"ADDR"},
	}
	return smtpproxy.Chain(guard(out), front, smtpproxy.Funcs{OnKeywords: keywords})
}

// keywords offers clients from elsewhere no AUTH, since there is no TLS; what isn't offered,
// the session refuses, too.
func keywords(_ *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	if !conn.RemoteIP.IsLoopback() {
		kw.Delete("AUTH")
	}
	return nil
}

// refusals returns an observer that prints what clients are refused, whoever refuses it.
func refusals(out *log.Logger) smtpproxy.Observer {
	return smtpproxy.Observer{Exchanged: func(_ *smtpproxy.Context, x smtpproxy.Exchange) {
		if x.Reply.Code >= 400 {
			out.Printf("refused by the %v: %v: %v", x.By, x.Command, x.Reply)
		}
	}}
}

// guard returns a hook that prints each line, ends a connection at its fourth
// AUTH, and refuses an account that is locked before the server has looked at
// the password.
func guard(out *log.Logger) smtpproxy.HookFunc {
	locked := smtpproxy.Reply{Code: 535, Enhanced: smtpproxy.EnhancedCode{5, 7, 8}, Lines: []string{"Account locked"}}
	return func(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		out.Println("hook:", cmd) // credentials are masked
		switch {
		case cmd.SASL: // the line that Next asked for
			if isLocked(cmd.Line) {
				return locked, nil
			}
		case cmd.Verb() == "AUTH":
			a := smtpproxy.State[attempts](ctx)
			if a.auth++; a.auth > 3 {
				return smtpproxy.Reply{Code: 421, Enhanced: smtpproxy.EnhancedCode{4, 7, 0}, Lines: []string{"Too many attempts"}}, nil
			}
			// AUTH PLAIN with an initial response has no further line.
			if _, response, ok := strings.Cut(cmd.Args(), " "); ok && isLocked(response) {
				return locked, nil
			}
			return smtpproxy.Pass{Next: true}, nil
		}
		return nil, nil
	}
}

// isLocked tells whether a response of AUTH PLAIN names a locked account.
func isLocked(response string) bool {
	message, err := base64.StdEncoding.DecodeString(response)
	fields := strings.Split(string(message), "\x00") // RFC 4616 section 2
	return err == nil && len(fields) == 3 && fields[1] == "locked"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ownserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ownserver", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2526", "`address` to listen on; port 0 takes a free one")
	flags.Parse(args)

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	out := log.New(stdout, "", 0)
	out.Println("listening on", l.Addr())
	p := &smtpproxy.Proxy{Hook: chain(out), Observers: []smtpproxy.Observer{refusals(out)}}
	return serve(ctx, l, p, out)
}
