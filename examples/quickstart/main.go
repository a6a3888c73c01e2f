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
	"regexp"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
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

// dialogue is the built-in client's session.
var dialogue = []demo.Step{
	{Send: "", Want: "220 "}, // the greeting comes by itself
	{Send: "EHLO client.example.org", Want: "250 "},
	{Send: "PING", Want: "250 2.0.0 PONG"},
	{Send: "MAIL FROM:<sender@example.org> XOORG=example.org", Want: "250 "},
	{Send: "RCPT TO:<one@example.com>", Want: "250 "},
	{Send: "DATA", Want: "354 "},
	{Send: "Subject: quickstart\n\nHello!\n.", Want: "250 "},
	{Send: "QUIT", Want: "221 "},
}

func main() { demo.Main("quickstart", run) }

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("quickstart", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2525", "`address` to listen on; port 0 takes a free one")
	once := flags.Bool("once", false, "exit after the built-in client's session")
	flags.Parse(args)

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	out := log.New(stdout, "", 0) // one line at a time, from any goroutine
	out.Println("listening on", l.Addr())

	server := newServer(out)
	p := &smtpproxy.Proxy{
		Hook:   logged(smtpproxy.HookFunc(hook), out),
		Logger: slog.Default(), // tells why, if the hook fails
	}
	serve := func() error { return gosmtp.Serve(server, l, p) }
	client := func() error {
		err := demo.Play(ctx, l.Addr().String(), out, dialogue...)
		if err == nil && !*once {
			out.Println("serving other clients until interrupted; for one of yours:")
			out.Printf("    printf 'EHLO me.example\\r\\nPING\\r\\nQUIT\\r\\n' | nc %s", strings.Replace(l.Addr().String(), ":", " ", 1))
		}
		return err
	}
	return demo.Run(ctx, l, server, serve, client, *once)
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
