package main

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/bench/internal/cert"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// There are two servers, so that most of the library's settings are in use.
const (
	lenient = iota // AUTH without TLS, no timeout for the hook
	strict         // bare CR and LF are refused, the hook has a timeout
)

const (
	maxMessage    = 2 << 20
	maxRecipients = 100
)

// service is both servers, in this process.
type service struct {
	addrs   [2]string
	servers [2]*smtp.Server
	served  chan error
	log     *journal
}

// startService starts the servers, whose backend and hook report to the ledger.
// tamper, if not nil, changes the content on its way to the ledger.
func startService(l *ledger, hookTimeout time.Duration, tamper func([]byte) []byte) (*service, error) {
	s := &service{served: make(chan error, 2), log: newJournal()}
	config, err := cert.Config()
	if err != nil {
		return nil, err
	}
	var listeners []net.Listener
	for i := range s.servers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, err
		}
		listeners = append(listeners, listener)
		s.addrs[i] = listener.Addr().String()
	}
	for i, listener := range listeners {
		srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
			return &session{ledger: l, tamper: tamper}, nil
		}))
		srv.Domain = "server.example"
		srv.MaxMessageBytes = maxMessage
		srv.MaxRecipients = maxRecipients
		srv.MaxLineLength = 16 << 10 // for content, too
		srv.EnableBINARYMIME = true
		srv.ReadTimeout, srv.WriteTimeout = time.Minute, time.Minute
		srv.ErrorLog = s.log
		srv.AllowInsecureAuth = i == lenient
		p := &smtpproxy.Proxy{
			Hook:          hook{l},
			TLSConfig:     config,
			MaxLineLength: 2048,
			Logger:        s.log.logger(),
		}
		if i == strict {
			p.RejectBareNewlines, p.HookTimeout = true, hookTimeout
		}
		s.servers[i] = srv
		go func() { s.served <- gosmtp.Serve(srv, listener, p) }()
	}
	return s, nil
}

// stop ends the servers when they have no connection any more.
func (s *service) stop(ctx context.Context) error {
	var errs []error
	for _, srv := range s.servers {
		errs = append(errs, srv.Shutdown(ctx))
	}
	for range s.servers {
		errs = append(errs, <-s.served)
	}
	return errors.Join(errs...)
}

// session is the backend's. go-smtp calls Data on a goroutine of its own for
// BDAT.
type session struct {
	ledger *ledger
	tamper func([]byte) []byte // for tests: what becomes of content

	mu   sync.Mutex
	from string
	to   []string
}

// AuthMechanisms implements smtp.AuthSession.
func (x *session) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth implements smtp.AuthSession.
func (x *session) Auth(mechanism string) (sasl.Server, error) {
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
func (x *session) Mail(from string, _ *smtp.MailOptions) error {
	if strings.HasSuffix(from, evilDomain) {
		x.ledger.sawEvil("the backend got " + from)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (x *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "no") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no user " + to}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.to = append(x.to, to)
	return nil
}

// Reset implements smtp.Session.
func (x *session) Reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.from, x.to = "", nil
}

// Logout implements smtp.Session.
func (x *session) Logout() error { return nil }

var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// Data implements smtp.Session. The reply names the message.
func (x *session) Data(r io.Reader) error {
	x.mu.Lock()
	from, to := x.from, slices.Clone(x.to)
	x.mu.Unlock()
	got := newReceipt(from, to)
	buf := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		content := buf[:n]
		if x.tamper != nil {
			content = x.tamper(content)
		}
		got.Write(content)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	x.ledger.deliver(from, got)
	return &smtp.SMTPError{
		Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0},
		Message: "delivered " + strings.TrimSuffix(from, domain),
	}
}
