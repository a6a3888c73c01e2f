// Command sink is the server that clients.sh delivers to: go-smtp behind a
// hook that passes everything. It keeps each message as the backend got it.
//
// In -dir it writes N.eml, the octets of message N (from 1), N.rcpt, its
// recipients, one a line, and verbs, the verb of each command the hook saw.
package main

import (
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
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

func main() {
	dir := flag.String("dir", ".", "directory to write to")
	lmtp := flag.Bool("lmtp", false, "speak LMTP")
	flag.Parse()
	if err := run(*dir, *lmtp); err != nil {
		log.Fatal(err)
	}
}

func run(dir string, lmtp bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// Append mode lets a reader empty the file between two deliveries.
	verbs, err := os.OpenFile(filepath.Join(dir, "verbs"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer verbs.Close()
	hook := func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		_, err := fmt.Fprintln(verbs, cmd.Verb())
		return nil, err
	}

	s := smtp.NewServer(&backend{dir: dir})
	s.Domain = "localhost"
	s.LMTP = lmtp
	s.MaxMessageBytes = 64 << 20
	s.ReadTimeout = 30 * time.Second
	s.WriteTimeout = 30 * time.Second

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() {
		served <- gosmtp.Serve(s, l, &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(hook)})
	}()
	fmt.Println("listening on", l.Addr())

	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	if err := <-served; err != nil && !errors.Is(err, smtp.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

type backend struct {
	dir      string
	messages atomic.Int64
}

func (b *backend) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &session{backend: b}, nil
}

type session struct {
	backend *backend
	rcpts   []string
}

func (s *session) Reset()                               { s.rcpts = nil }
func (s *session) Logout() error                        { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.rcpts = append(s.rcpts, to)
	return nil
}

// Data writes nothing unless the message came to its end.
func (s *session) Data(r io.Reader) error {
	msg, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	base := filepath.Join(s.backend.dir, fmt.Sprint(s.backend.messages.Add(1)))
	rcpts := strings.Join(s.rcpts, "\n") + "\n"
	return errors.Join(
		os.WriteFile(base+".eml", msg, 0o600),
		os.WriteFile(base+".rcpt", []byte(rcpts), 0o600),
	)
}
