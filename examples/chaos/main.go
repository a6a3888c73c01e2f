// Command chaos is a server for tests of programs that send mail: it takes everything, and fails
// where, when and for whom a test says so over HTTP.
//
//	go run ./examples/chaos
//
// It shows what a test does, and how its mails fare, and then serves until it is interrupted:
//
//	curl -X PUT -d '{"rules": [{"at": "RCPT", "recipient": "@full", "code": 452}]}' http://127.0.0.1:8025/
//
// What the rules can't do, to refuse a message when the server has taken it, the server does by
// itself: see session.Data.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("chaos", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2525", "`address` to listen on for mail; port 0 takes a free one")
	apiAddr := flags.String("api", "127.0.0.1:8025", "`address` to listen on for rules; port 0 takes a free one")
	once := flags.Bool("once", false, "exit after the built-in test")
	flags.Parse(args)

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	defer l.Close()
	apiListener, err := net.Listen("tcp", *apiAddr)
	if err != nil {
		return fmt.Errorf("%w (-api takes another address)", err)
	}
	defer apiListener.Close()
	out := log.New(stdout, "", 0)
	out.Println("mail on", l.Addr(), "and rules on", apiListener.Addr())

	chaos := new(hooks.Chaos)
	server := newSink(out)
	served := make(chan error, 2)
	go func() {
		// Through chaos.Listener, connections can be broken off without a word.
		served <- gosmtp.Serve(server, chaos.Listener(l), &smtpproxy.Proxy{Hook: chaos})
	}()
	api := &http.Server{Handler: chaos, ReadHeaderTimeout: 10 * time.Second}
	go func() { served <- api.Serve(apiListener) }()

	err = demonstrate(ctx, l.Addr().String(), "http://"+apiListener.Addr().String(), out)
	if err == nil && !*once {
		out.Println("serving until interrupted")
		select {
		case <-ctx.Done():
		case err = <-served:
			return err
		}
	}
	l.Close()
	server.Close()
	api.Close()
	<-served
	<-served
	if ctx.Err() != nil {
		return nil // interrupted, as it should be
	}
	return err
}

// newSink returns a server that takes everything.
func newSink(out *log.Logger) *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{out: out}, nil }))
	s.Domain = "chaos.example"
	s.MaxMessageBytes = 64 << 20
	return s
}

// session is the server's side of one client.
type session struct {
	out *log.Logger
	to  []string
}

func (*session) Mail(string, *smtp.MailOptions) error { return nil }
func (s *session) Reset()                             { s.to = nil }
func (*session) Logout() error                        { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

// Data refuses, behind its content, a message for an address such as spam@refused.example.
func (s *session) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	for _, to := range s.to {
		if strings.HasSuffix(to, "@refused.example") {
			return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Looks like spam"}
		}
	}
	s.out.Println("sink: a message to", strings.Join(s.to, " "))
	return nil
}

var errDemonstration = errors.New("the test did not go as it should")

// demonstrate is what a test does: it sets rules, sends mail, and looks what comes of it.
func demonstrate(ctx context.Context, addr, api string, out *log.Logger) error {
	for _, step := range []struct {
		rules, to string
		want      string // what the client sees begins so; empty is that all goes well
	}{
		{`{}`, "bob@example.org", ""},
		{`{"rules": [{"at": "RCPT", "recipient": "@full", "code": 452, "enhanced": "4.2.2", "text": "Mailbox full"}]}`, "bob@full.example", "452 4.2.2"},
		{`{"rules": [{"at": "RCPT", "recipient": "@full", "code": 452, "enhanced": "4.2.2", "text": "Mailbox full"}]}`, "bob@example.org", ""},
		{`{"rules": [{"at": "connect", "times": 1, "code": 421, "enhanced": "4.7.0", "text": "Come back later"}]}`, "bob@example.org", "421 4.7.0"},
		{`{"rules": [{"at": "message", "delay": "100ms", "drop": true}]}`, "bob@example.org", "EOF"},
		{`{}`, "spam@refused.example", "554 5.7.1"},
	} {
		out.Println("test:", step.rules)
		if err := put(ctx, api, step.rules); err != nil {
			return err
		}
		err := send(ctx, addr, step.to)
		out.Printf("test: mail to %s: %v", step.to, describe(err))
		if got := describe(err); !strings.HasPrefix(got, step.want) || step.want == "" && err != nil {
			return fmt.Errorf("%w: %s, want %s", errDemonstration, got, step.want)
		}
	}
	return nil
}

// put sets the rules.
func put(ctx context.Context, api, rules string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, api, strings.NewReader(rules))
	if err != nil {
		return err
	}
	req.Close = true // no connection is kept
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, why)
	}
	return nil
}

// send is the program that is tested: it sends a mail.
func send(ctx context.Context, addr, to string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := smtp.NewClient(conn)
	defer c.Close()
	if err := c.SendMail("alice@example.com", []string{to}, strings.NewReader("Subject: chaos\r\n\r\nHello!\r\n")); err != nil {
		return err
	}
	return c.Quit()
}

// describe tells what a client has seen.
func describe(err error) string {
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		return "sent"
	case errors.As(err, &reply):
		e := reply.EnhancedCode
		return fmt.Sprintf("%d %d.%d.%d %s", reply.Code, e[0], e[1], e[2], reply.Message)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "EOF: the connection has broken off"
	}
	return err.Error()
}
