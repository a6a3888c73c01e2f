package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// backend is the server's side: it takes messages from who has authenticated,
// prints a line about each and writes it to dir, if there is one, as N.eml.
type backend struct {
	out      *log.Logger
	dir      string
	account  *account
	messages atomic.Int64
}

// errAuthRequired refuses mail from anybody else (RFC 6409 section 4.3, RFC 4954
// section 6).
var errAuthRequired = &smtp.SMTPError{
	Code:         530,
	EnhancedCode: smtp.EnhancedCode{5, 7, 0},
	Message:      "Authentication required",
}

func (b *backend) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &session{backend: b}, nil
}

// session is one client's. After STARTTLS that is a new one, since the server
// starts anew.
type session struct {
	*backend
	user string // empty before AUTH
	from string
	to   []string
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain, scramSHA256} }

func (s *session) Auth(mechanism string) (sasl.Server, error) {
	accept := func(user string) { s.user = user }
	switch mechanism {
	case sasl.Plain:
		return s.account.plain(accept), nil
	case scramSHA256:
		return s.account.scram(accept)
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.user == "" {
		return errAuthRequired
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	message, err := io.ReadAll(r) // up to the server's MaxMessageBytes
	if err != nil {
		return err
	}
	if s.dir != "" {
		name := fmt.Sprintf("%d.eml", s.messages.Add(1))
		if err := os.WriteFile(filepath.Join(s.dir, name), message, 0o600); err != nil {
			return err
		}
	}
	s.out.Printf("mail: by %q from %q to %q, %d octets", s.user, s.from, s.to, len(message))
	return nil
}

func (s *session) Reset()        { s.from, s.to = "", nil }
func (s *session) Logout() error { return nil }
