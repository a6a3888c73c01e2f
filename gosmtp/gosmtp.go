// Package gosmtp puts smtpproxy in front of a github.com/emersion/go-smtp
// server.
//
//	s := smtp.NewServer(backend)
//	err := gosmtp.Serve(s, l, &smtpproxy.Proxy{Hook: hook})
package gosmtp

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// Serve serves connections from l with srv, behind p. It returns what
// srv.Serve returns, and is ended like that, by srv.Close or srv.Shutdown.
//
// Serve takes srv over: it reads and sets fields of it, so they must not be
// changed afterwards, and srv must have no other listener. It reads
// MaxLineLength, as p's if that is 0, and TLSConfig, as p's if that is nil. The
// proxy ends TLS, so it sets AllowInsecureAuth to true and keeps the server's
// policy itself: AUTH is offered inside TLS only, unless srv or p had
// AllowInsecureAuth set, and so is REQUIRETLS, if EnableREQUIRETLS is set. l
// may be a tls.Listener, or p.ImplicitTLS set. p itself is copied and not
// changed.
//
// srv's own (*smtp.Conn).TLSConnectionState doesn't know of TLS then; use
// [TLSConnectionState].
func Serve(srv *smtp.Server, l net.Listener, p *smtpproxy.Proxy) error {
	cfg := *p
	if cfg.MaxLineLength == 0 {
		cfg.MaxLineLength = srv.MaxLineLength
		if cfg.MaxLineLength == 0 {
			cfg.MaxLineLength = -1 // go-smtp's 0 means no limit
		}
	}
	if cfg.TLSConfig == nil {
		cfg.TLSConfig = srv.TLSConfig
	}
	// What an earlier call has set is no policy of the user's.
	own, _ := insecure.LoadOrStore(srv, srv.AllowInsecureAuth)
	cfg.AllowInsecureAuth = cfg.AllowInsecureAuth || own.(bool)
	cfg.RequireTLSForAuth = true
	if srv.EnableREQUIRETLS {
		cfg.TLSKeywords = append(slices.Clone(cfg.TLSKeywords), "REQUIRETLS")
	}
	cfg.BulkContent = true
	srv.AllowInsecureAuth = true
	return srv.Serve(cfg.Listener(l))
}

// insecure holds, for each *smtp.Server, its AllowInsecureAuth from before Serve
// changed it. A server that is served again, after an error of its listener say,
// keeps its policy.
var insecure sync.Map

// Session returns the session of a connection that Serve serves, nil for any
// other. A backend gets c in NewSession.
func Session(c *smtp.Conn) *smtpproxy.Session {
	s, _ := smtpproxy.SessionOf(c.Conn())
	return s
}

// TLSConnectionState returns the TLS state of a connection that Serve serves:
// the client's. It stands in for (*smtp.Conn).TLSConnectionState.
func TLSConnectionState(c *smtp.Conn) (tls.ConnectionState, bool) {
	return smtpproxy.TLSConnectionState(c.Conn())
}
