package hosts

import (
	"context"
	"io"
	"log"
	"net"
	"strings"
	"sync"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// goSMTPHost is github.com/emersion/go-smtp. It shows what its backend is told:
// senders, recipients and messages.
var goSMTPHost = host{
	name:    "go-smtp",
	chunks:  true,
	auth:    true,
	badMail: func(path string) string { return "MAIL FROM:<" + refusedName + path + ">" },
	serve:   serveGoSMTP(false, false),
}

// goLMTPHost is go-smtp speaking LMTP, with a status for each recipient that is
// told when the message has been read.
var goLMTPHost = host{
	name:    "go-smtp LMTP",
	lmtp:    true,
	chunks:  true,
	auth:    true,
	badMail: goSMTPHost.badMail,
	serve:   serveGoSMTP(true, false),
}

// goLMTPEarlyHost tells all statuses at once and reads then.
var goLMTPEarlyHost = host{
	name:    "go-smtp LMTP, early statuses",
	lmtp:    true,
	early:   true,
	chunks:  true,
	auth:    true,
	badMail: goSMTPHost.badMail,
	serve:   serveGoSMTP(true, true),
}

func serveGoSMTP(lmtp, early bool) func(net.Listener, limits, *record) error {
	return func(l net.Listener, lim limits, rec *record) error {
		srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
			if strings.HasPrefix(c.Hostname(), refusedName) {
				return nil, errRefused
			}
			b := &backend{rec: rec, client: c.Conn().RemoteAddr().String()}
			if lmtp {
				return &lmtpBackend{b, early}, nil
			}
			return b, nil
		}))
		srv.LMTP = lmtp
		srv.Domain = "gosmtp.example"
		srv.AllowInsecureAuth = true
		srv.MaxMessageBytes = int64(lim.size)
		srv.MaxRecipients = lim.recipients
		srv.ReadTimeout = lim.timeout
		srv.WriteTimeout = lim.timeout
		srv.ErrorLog = log.New(io.Discard, "", 0)
		err := srv.Serve(l)
		srv.Shutdown(context.Background()) // waits for its goroutines
		return err
	}
}

var (
	errRefused = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "refused"}
	errBusy    = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "busy"}
)

// backend is a session of the backend. go-smtp calls Data on a goroutine of its
// own for chunks.
type backend struct {
	rec    *record
	client string

	mu   sync.Mutex
	from string
	to   []string
}

// AuthMechanisms implements smtp.AuthSession.
func (b *backend) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth implements smtp.AuthSession.
func (b *backend) Auth(mechanism string) (sasl.Server, error) {
	if mechanism != sasl.Plain {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "user" || password != "pass" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (b *backend) Mail(from string, _ *smtp.MailOptions) error {
	b.rec.noteText(mail, from)
	b.rec.noteText(client, b.client)
	if strings.HasPrefix(from, refusedName) {
		return errRefused
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (b *backend) Rcpt(to string, _ *smtp.RcptOptions) error {
	b.rec.noteText(rcpt, to)
	if strings.HasPrefix(to, refusedName) {
		return errRefused
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = append(b.to, to)
	return nil
}

// Reset implements smtp.Session.
func (b *backend) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from, b.to = "", nil
}

// Logout implements smtp.Session.
func (b *backend) Logout() error { return nil }

// message returns the message that the session has, with the given content.
func (b *backend) message(content []byte) message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return newMessage(b.from, b.to, content)
}

// read reads content, but for what is to be refused before its end.
func read(r io.Reader) ([]byte, error) {
	// Not with io.ReadFull, which has one error for short content and for content
	// that breaks off.
	beginning, err := io.ReadAll(io.LimitReader(r, int64(len(unreadWord))))
	if err == nil && string(beginning) == unreadWord {
		err = errRefused
	}
	if err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(r)
	return append(beginning, rest...), err
}

// Data implements smtp.Session.
func (b *backend) Data(r io.Reader) error {
	m := b.message(nil)
	content, err := read(r)
	if err != nil {
		return err
	}
	m.content = plainEnds(string(content))
	switch judge(content) {
	case bad, badCustom:
		b.rec.note(event{what: refused, msg: m})
		return errRefused
	case badPlain:
		b.rec.note(event{what: refused, msg: m})
		return io.ErrNoProgress
	}
	b.rec.note(event{what: delivered, msg: m})
	return nil
}

// lmtpBackend has a status for each recipient.
type lmtpBackend struct {
	*backend
	early bool
}

// LMTPData implements smtp.LMTPSession.
func (b *lmtpBackend) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	m := b.message(nil)
	m.told = nil
	statusOf := func(to string) error {
		switch {
		case strings.HasPrefix(to, lateName):
			return errRefused
		case strings.HasPrefix(to, busyName):
			return errBusy
		}
		return nil
	}
	tell := func() {
		for _, to := range m.to {
			err := statusOf(to)
			if err == nil {
				m.told = append(m.told, to)
			}
			// The nil of an interface that holds a nil pointer would be no nil.
			status.SetStatus(to, err)
		}
	}
	if b.early {
		tell()
		content, err := io.ReadAll(r)
		if m.content = plainEnds(string(content)); err == nil && len(m.told) > 0 {
			b.rec.note(event{what: delivered, msg: m})
		}
		return err
	}
	content, err := read(r)
	if err != nil {
		return err
	}
	m.content = plainEnds(string(content))
	if judge(content) != good {
		b.rec.note(event{what: refused, msg: m})
		return errRefused
	}
	tell()
	if len(m.told) > 0 {
		b.rec.note(event{what: delivered, msg: m})
	}
	return nil
}
