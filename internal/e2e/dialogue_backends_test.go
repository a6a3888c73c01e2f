package e2e

import (
	"io"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has go-smtp's backends with ways of their own.

// failingBackend refuses each message, whatever there is of it.
type failingBackend struct{ smtp.Backend }

type failingSession struct{ smtp.Session }

func (b failingBackend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s, err := b.Backend.NewSession(c)
	return failingSession{s}, err
}

func (failingSession) Data(io.Reader) error {
	return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "failing"}
}

// lmtpData does with a message what data does.
func lmtpData(data func(x *lmtpSession, r io.Reader, status smtp.StatusCollector) error) servertest.Option {
	return servertest.Configure(func(s *smtp.Server) { s.Backend = lmtpBackend{s.Backend, data} })
}

type lmtpBackend struct {
	smtp.Backend
	data func(*lmtpSession, io.Reader, smtp.StatusCollector) error
}

type lmtpSession struct {
	smtp.Session
	lmtpBackend
	to []string
}

func (b lmtpBackend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s, err := b.Backend.NewSession(c)
	return &lmtpSession{Session: s, lmtpBackend: b}, err
}

func (x *lmtpSession) Rcpt(to string, o *smtp.RcptOptions) error {
	err := x.Session.Rcpt(to, o)
	if err == nil {
		x.to = append(x.to, to)
	}
	return err
}

func (x *lmtpSession) Reset() {
	x.to = nil
	x.Session.Reset()
}

func (x *lmtpSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	return x.data(x, r, status)
}

// tellFirst tells each recipient its status before it reads anything.
func tellFirst(code func(to string) error) servertest.Option {
	return lmtpData(func(x *lmtpSession, r io.Reader, status smtp.StatusCollector) error {
		for _, to := range x.to {
			status.SetStatus(to, code(to))
		}
		return x.Data(r)
	})
}

var (
	errNotHere = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not here"}
	errLeaving = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "leaving"}
)

// unless is an error for one recipient.
func unless(to string, err error) func(string) error {
	return func(t string) error {
		if t == to {
			return err
		}
		return nil
	}
}

// panicIn panics when it has read so many octets, or all with -1.
func panicIn(octets int64) servertest.Option {
	return lmtpData(func(_ *lmtpSession, r io.Reader, _ smtp.StatusCollector) error {
		if octets < 0 {
			io.Copy(io.Discard, r)
		} else {
			io.CopyN(io.Discard, r, octets)
		}
		panic("the backend is broken")
	})
}
