package demo

import (
	"io"
	"log"
	"time"

	"github.com/emersion/go-smtp"
)

// Server returns a go-smtp server that prints each message that it gets, with what about
// tells of its client, and drops it.
func Server(out *log.Logger, about func(c *smtp.Conn) string) *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{out: out, about: func() string { return about(c) }}, nil
	}))
	s.Domain = "server.example"
	s.MaxMessageBytes = 64 << 20
	s.MaxRecipients = 100
	s.ReadTimeout = 5 * time.Minute // RFC 5321 section 4.5.3.2.7
	s.WriteTimeout = time.Minute
	return s
}

// session is the server's side of one client.
type session struct {
	out   *log.Logger
	about func() string
	from  string
	to    []string
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
	s.out.Printf("mail: from %q to %q, %d octets, %s", s.from, s.to, n, s.about())
	return nil
}

func (s *session) Reset()        { s.from, s.to = "", nil }
func (s *session) Logout() error { return nil }
