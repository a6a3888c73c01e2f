package servertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"slices"
	"sync"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// GoSMTP returns go-smtp's server with a backend that records. go-smtp doesn't
// show the lines it executes, so that the record has the calls of the backend
// for commands: "MAIL a@b", "RCPT c@d", "DATA" (for BDAT's content too),
// "AUTH user", "RSET" and "LOGOUT". go-smtp calls Reset not only for RSET: also
// after the reply to each message and for a repeated EHLO. A session begins
// with EHLO or HELO and ends with LOGOUT.
//
// go-smtp v0.25.1 takes a last chunk that the end of the connection cut short
// for a whole one, so that the record can have a truncated message.
func GoSMTP(opts ...Option) *Server {
	return goSMTP(opts, func(x *backendSession) smtp.Session { return x })
}

// GoSMTPLMTP returns go-smtp's server speaking LMTP, recording like [GoSMTP].
// If early, it sets the status of the first recipient when it has read ten
// octets of the message, or all of a shorter one, and that of the others at the
// end. With [Refuse], the early server sets the status of the refused recipients
// early too. The record has the message for those recipients alone that were
// not refused.
func GoSMTPLMTP(early bool, opts ...Option) *Server {
	opts = append([]Option{Configure(func(srv *smtp.Server) { srv.LMTP = true })}, opts...)
	return goSMTP(opts, func(x *backendSession) smtp.Session {
		if early || len(x.server.refused) > 0 {
			return &lmtpSession{x, early}
		}
		return x
	})
}

func goSMTP(opts []Option, session func(*backendSession) smtp.Session) *Server {
	s := newServer(opts)
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		s.begin()
		return session(&backendSession{server: s}), nil
	}))
	srv.Domain = "servertest.example"
	srv.AllowInsecureAuth = true
	srv.ReadTimeout = s.readTimeout
	srv.ErrorLog = log.New(io.Discard, "", 0)
	for _, f := range s.configure {
		f(srv)
	}
	s.serve = func(l net.Listener) error { return srv.Serve(l) }
	s.stop = func() { srv.Shutdown(context.Background()) }
	return s
}

// backendSession is a session of the backend. go-smtp runs Data on a goroutine
// of its own for BDAT.
type backendSession struct {
	server *Server

	mu   sync.Mutex
	from string
	to   []string
}

var (
	errNoSuchUser = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	errRefused    = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "refused"}
	errClosing    = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "closing"}
)

func (x *backendSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (x *backendSession) Auth(mechanism string) (sasl.Server, error) {
	if mechanism != sasl.Plain {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(_, username, password string) error {
		x.server.command("AUTH " + username)
		if username != "user" || password != "pass" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (x *backendSession) Mail(from string, _ *smtp.MailOptions) error {
	x.server.command("MAIL " + from)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.from = from
	return nil
}

func (x *backendSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	x.server.command("RCPT " + to)
	if noSuchUser(to) {
		return errNoSuchUser
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.to = append(x.to, to)
	return nil
}

func (x *backendSession) Reset() {
	x.server.command("RSET")
	x.mu.Lock()
	defer x.mu.Unlock()
	x.from, x.to = "", nil
}

func (x *backendSession) Logout() error {
	x.server.command("LOGOUT")
	x.server.end()
	return nil
}

// envelope returns a message without its content.
func (x *backendSession) envelope() Message {
	x.mu.Lock()
	defer x.mu.Unlock()
	return Message{From: x.from, To: slices.Clone(x.to)}
}

func (x *backendSession) Data(r io.Reader) (err error) {
	if !x.server.enter() {
		return errClosing
	}
	defer x.server.wg.Done()
	m := x.envelope()
	x.server.command("DATA")
	if m.Data, err = io.ReadAll(r); err != nil {
		return err
	}
	x.server.message(m)
	return nil
}

// lmtpSession gives each recipient a status of its own.
type lmtpSession struct {
	*backendSession
	early bool
}

func (x *lmtpSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	if !x.server.enter() {
		return errClosing
	}
	defer x.server.wg.Done()
	m := x.envelope()
	x.server.command("DATA")

	refused := func(to string) bool { return slices.Contains(x.server.refused, to) }
	all := m.To
	m.To = slices.DeleteFunc(slices.Clone(all), refused)
	decided := func(i int) bool { return x.early && (i == 0 || refused(all[i])) }
	set := func(now func(i int) bool) {
		for i, to := range all {
			switch {
			case !now(i):
			case refused(to):
				status.SetStatus(to, errRefused)
			default:
				status.SetStatus(to, nil)
			}
		}
	}

	var content bytes.Buffer
	if err := copyN(&content, r, 10); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	set(decided)
	if _, err := io.Copy(&content, r); err != nil {
		return err
	}
	if m.Data = content.Bytes(); len(m.To) > 0 {
		x.server.message(m)
	}
	set(func(i int) bool { return !decided(i) })
	return nil
}
