// Command unixuid is a go-smtp server on a unix socket, for the programs of this machine. Nobody
// logs in: the kernel tells who is connected, and a table tells as whom a user may send.
//
//	go run ./examples/unixuid
//
// It shows a session of a built-in client, which is you, and then serves others until it is
// interrupted. Linux only: elsewhere, nobody is known, and nobody may send.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// senders has the addresses, in lower case, that users may send as, by their numbers.
type senders map[uint32][]string

// Command implements smtpproxy.Hook. It decides about recipients, when the server has accepted
// the sender, and the view tells whom it has accepted: so no spelling of MAIL gets by. Without a
// recipient there is no mail.
func (s senders) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() != "RCPT" || !txn.Active {
		return nil, nil // what is out of order, the library refuses
	}
	// An Unparsed sender leaves Sender empty, as the null sender does, which is for servers. Nor
	// is a client known whose RemoteUID isn't Valid: its ID is 0, which is root's.
	if conn.RemoteUID.Valid && txn.Sender != "" && slices.Contains(s[conn.RemoteUID.ID], txn.Sender) {
		return nil, nil
	}
	return smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"You may not send as that"}}, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "unixuid:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("unixuid", flag.ExitOnError)
	addr := flags.String("addr", "", "`path` of the socket to listen on; by default one in a new directory")
	once := flags.Bool("once", false, "exit after the built-in client's session")
	flags.Parse(args)

	if *addr == "" {
		dir, err := os.MkdirTemp("", "unixuid")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*addr = filepath.Join(dir, "smtp")
	}
	l, err := net.Listen("unix", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another path)", err)
	}
	defer l.Close()
	out := log.New(stdout, "", 0)
	out.Println("listening on", *addr)

	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{out: out, conn: c}, nil
	}))
	server.Domain = "unixuid.example"
	me := uint32(os.Getuid())
	served := make(chan error, 1)
	go func() {
		p := &smtpproxy.Proxy{Hook: senders{me: {"me@unixuid.example"}}}
		served <- gosmtp.Serve(server, l, p)
	}()

	err = converse(ctx, *addr, out)
	if err == nil && !*once {
		out.Println("serving other clients until interrupted")
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

// dialogue is the built-in client's session: what it sends, and how the last line of the reply
// has to start.
var dialogue = []struct{ send, want string }{
	{"", "220 "},
	{"EHLO client.example", "250 "},
	{"MAIL FROM:<root@unixuid.example>", "250 "}, // the server doesn't mind
	{"RCPT TO:<bob@example.org>", "550 5.7.1"},   // but the hook
	{"RSET", "250 "},
	{"MAIL FROM:<me@unixuid.example>", "250 "},
	{"RCPT TO:<bob@example.org>", "250 "},
	{"DATA", "354 "},
	{"Subject: unixuid\r\n\r\nHello!\r\n.", "250 "},
	{"QUIT", "221 "},
}

var errDialogue = errors.New("the session did not go as it should")

// converse plays the dialogue with the server, and prints it.
func converse(ctx context.Context, addr string, out *log.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	r := bufio.NewReader(conn)
	for _, step := range dialogue {
		if step.send != "" {
			out.Println("C:", strings.ReplaceAll(step.send, "\r\n", "\nC: "))
			if _, err := io.WriteString(conn, step.send+"\r\n"); err != nil {
				return err
			}
		}
		for more := true; more; {
			line, err := r.ReadString('\n')
			if err != nil {
				return fmt.Errorf("%w: after %q: %w", errDialogue, step.send, err)
			}
			out.Print("S: ", strings.TrimRight(line, "\r\n"))
			if more = strings.HasPrefix(line[3:], "-"); !more && !strings.HasPrefix(line, step.want) {
				return fmt.Errorf("%w: reply to %q: %q", errDialogue, step.send, line)
			}
		}
	}
	return nil
}

// session is the server's side of one client, who may send anything: that is for the hook.
type session struct {
	out  *log.Logger
	conn *smtp.Conn
	from string
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (*session) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*session) Reset()                               {}
func (*session) Logout() error                        { return nil }

func (s *session) Data(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		return err
	}
	uid := gosmtp.Session(s.conn).Connection().RemoteUID
	s.out.Printf("mail: %d octets from %s, user %d", n, s.from, uid.ID)
	return nil
}
