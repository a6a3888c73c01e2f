// Command quickstart is a go-smtp server with a hook in front of it.
//
//	go run ./examples/quickstart
//
// It shows one session of a built-in client, then serves other clients until
// it is interrupted. The hook prints each command and what it decides: most
// commands pass, PING is answered by the hook itself, and a MAIL parameter
// that go-smtp would refuse is taken out.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// hook decides about each command. To decide nothing passes the command.
func hook(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch cmd.Verb() {
	case "PING":
		return smtpproxy.Reply{Code: 250, Lines: []string{"PONG"}}, nil
	case "MAIL":
		return smtpproxy.Pass{Command: withoutXOORG(cmd.Line)}, nil
	}
	return nil, nil
}

// xoorg matches a MAIL command up to its parameter XOORG, which Exchange Online
// adds. The path is matched as a whole, since a quoted local part may hold what
// looks like a parameter (RFC 5321 section 4.1.2).
var xoorg = regexp.MustCompile(`(?i)^(MAIL[ \t]+FROM:[ \t]*<(?:"(?:\\.|[^"\\])*"|[^">])*>.*?)[ \t]+XOORG=[^ \t]*`)

func withoutXOORG(line string) string { return xoorg.ReplaceAllString(line, "$1") }

// logged is h, but prints each command and what h decides about it.
func logged(h smtpproxy.Hook, out *log.Logger) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		d, err := h.Command(ctx, cmd, conn, txn)
		out.Printf("hook: %v -> %s", cmd, describe(cmd, d, err))
		return d, err
	})
}

// describe prints Commands, not their Lines, which may hold credentials.
func describe(cmd smtpproxy.Command, d smtpproxy.Decision, err error) string {
	switch d := d.(type) {
	case smtpproxy.Reply:
		return "reply " + d.String()
	case smtpproxy.Pass:
		if d.Command != "" && d.Command != cmd.Line {
			return "pass " + smtpproxy.Command{Line: d.Command, SASL: cmd.SASL}.String()
		}
	}
	if err != nil {
		return "failed: " + err.Error()
	}
	return "pass"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("quickstart", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2525", "`address` to listen on; port 0 takes a free one")
	once := flags.Bool("once", false, "exit after the built-in client's session")
	flags.Parse(args)

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	defer l.Close()
	out := log.New(stdout, "", 0) // one line at a time, from any goroutine
	out.Println("listening on", l.Addr())

	server := newServer(out)
	served := make(chan error, 1)
	go func() {
		p := &smtpproxy.Proxy{
			Hook:   logged(smtpproxy.HookFunc(hook), out),
			Logger: slog.Default(), // tells why, if the hook fails
		}
		served <- gosmtp.Serve(server, l, p)
	}()

	err = converse(ctx, l.Addr().String(), out)
	if err == nil && !*once {
		out.Println("serving other clients until interrupted; for one of yours:")
		out.Printf("    printf 'EHLO me.example\\r\\nPING\\r\\nQUIT\\r\\n' | nc %s", strings.Replace(l.Addr().String(), ":", " ", 1))
		select {
		case <-ctx.Done():
		case err = <-served:
			return err
		}
	}
	l.Close()
	server.Close()
	<-served
	if ctx.Err() != nil {
		return nil // interrupted, as it should be
	}
	return err
}

// newServer returns a go-smtp server as anybody would write it. Nothing in it
// knows of the hook.
func newServer(out *log.Logger) *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &session{out: out}, nil
	}))
	s.Domain = "quickstart.example"
	s.MaxMessageBytes = 64 << 20
	s.MaxRecipients = 100
	s.ReadTimeout = 5 * time.Minute // RFC 5321 section 4.5.3.2.7
	s.WriteTimeout = time.Minute
	return s
}

// session is the server's side of one client: it prints each message that it
// gets, and drops it.
type session struct {
	out  *log.Logger
	from string
	to   []string
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		return err
	}
	s.out.Printf("mail: from %q to %q, %d octets", s.from, s.to, n)
	return nil
}

func (s *session) Reset()        { s.from, s.to = "", nil }
func (s *session) Logout() error { return nil }
