// Package gosmtp puts smtpproxy in front of a github.com/emersion/go-smtp
// server.
//
//	s := smtp.NewServer(backend)
//	err := gosmtp.Serve(s, l, &smtpproxy.Proxy{Hook: hook})
package gosmtp

import (
	"net"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// Serve serves connections from l with srv, behind p. It returns what
// srv.Serve returns, and is ended like that, by srv.Close or srv.Shutdown.
//
// Serve takes srv over: it reads and sets fields of it, so they must not be
// changed afterwards, and srv must have no other listener. It reads
// MaxLineLength, as p's if that is 0. p itself is copied and not changed.
func Serve(srv *smtp.Server, l net.Listener, p *smtpproxy.Proxy) error {
	cfg := *p
	if cfg.MaxLineLength == 0 {
		cfg.MaxLineLength = srv.MaxLineLength
		if cfg.MaxLineLength == 0 {
			cfg.MaxLineLength = -1 // go-smtp's 0 means no limit
		}
	}
	return srv.Serve(cfg.Listener(l))
}

// Session returns the session of a connection that Serve serves, nil for any
// other. A backend gets c in NewSession.
func Session(c *smtp.Conn) *smtpproxy.Session {
	s, _ := smtpproxy.SessionOf(c.Conn())
	return s
}
