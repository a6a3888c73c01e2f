// Package gosmtp puts smtpproxy in front of a github.com/emersion/go-smtp
// server.
//
//	s := smtp.NewServer(backend)
//	err := gosmtp.Serve(s, l, &smtpproxy.Proxy{Hook: hook})
package gosmtp

import (
	"crypto/tls"
	"net"
	"runtime"
	"slices"
	"sync"
	"weak"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// Serve serves connections from l with srv, behind p. It returns what
// srv.Serve returns, and is ended like that, by srv.Close or srv.Shutdown. If p
// can't work it returns what p.Validate does, and closes l.
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
	cfg, err := configure(srv, p)
	if err != nil {
		l.Close()
		return err
	}
	return srv.Serve(cfg.Listener(l))
}

// ListenAndServe listens as srv.ListenAndServe does, on srv.Network and srv.Addr, and
// serves as [Serve] does.
func ListenAndServe(srv *smtp.Server, p *smtpproxy.Proxy) error {
	return listenAndServe(srv, p, ":smtp")
}

// ListenAndServeTLS is ListenAndServe for clients that begin with TLS (RFC 8314
// section 3.3), as srv.ListenAndServeTLS is.
func ListenAndServeTLS(srv *smtp.Server, p *smtpproxy.Proxy) error {
	if p == nil {
		return p.Validate()
	}
	cfg := *p
	cfg.ImplicitTLS = true
	return listenAndServe(srv, &cfg, ":smtps")
}

func listenAndServe(srv *smtp.Server, p *smtpproxy.Proxy, addr string) error {
	cfg, err := configure(srv, p)
	if err != nil {
		return err
	}
	network := "tcp" // as in go-smtp
	if srv.LMTP {
		network = "unix"
	}
	if srv.Network != "" {
		network = srv.Network
	}
	if srv.LMTP || srv.Addr != "" {
		addr = srv.Addr
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return srv.Serve(cfg.Listener(l))
}

// configure returns p as it is in front of srv, and takes srv over.
func configure(srv *smtp.Server, p *smtpproxy.Proxy) (*smtpproxy.Proxy, error) {
	if p == nil {
		return nil, p.Validate()
	}
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
	cfg.AllowInsecureAuth = cfg.AllowInsecureAuth || allowedInsecureAuth(srv)
	cfg.RequireTLSForAuth = true
	if srv.EnableREQUIRETLS {
		cfg.TLSKeywords = append(slices.Clone(cfg.TLSKeywords), "REQUIRETLS")
	}
	cfg.BulkContent = true
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	srv.AllowInsecureAuth = true
	return &cfg, nil
}

// policies holds the AllowInsecureAuth of each server from before configure changed
// it, for as long as the server is there. One that is served again, after an error of
// its listener say, keeps its policy.
var policies sync.Map // of weak.Pointer[smtp.Server] to bool

func allowedInsecureAuth(srv *smtp.Server) bool {
	key := weak.Make(srv)
	own, known := policies.LoadOrStore(key, srv.AllowInsecureAuth)
	if !known {
		runtime.AddCleanup(srv, func(key weak.Pointer[smtp.Server]) { policies.Delete(key) }, key)
	}
	return own.(bool)
}

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
