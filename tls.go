package smtpproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/openssl"
)

// This file shakes hands in the server's place (RFC 3207, RFC 8314), and tells what
// came of it.

// handshake shakes hands on a connection that begins with TLS.
func (c *conn) handshake(tc *tls.Conn) error {
	if c.hasEnded() {
		return net.ErrClosed // it has failed already
	}
	t, err := c.s.shakeHands(tc)
	if err != nil {
		c.s.shut()
		var header tls.RecordHeaderError
		if errors.As(err, &header) && header.Conn != nil {
			c.sayBeneathTLS(refusalOf(dialogue.TLSRequired))
		}
		c.client.Close()
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.m.Secured()
	c.s.conn.secure = &secure{tls: t}
	return nil
}

// sayBeneathTLS is sayOwn for a client that has begun without TLS.
func (c *conn) sayBeneathTLS(a *answer) {
	c.s.mu.Lock()
	v, reply := c.s.shownAnswer(a)
	c.s.mu.Unlock()
	if v != nil {
		if c.s.show(v); v.changed {
			reply = v.x.Reply.appendTo(nil)
		}
	}
	c.client.WriteBeneathTLS(reply, closeTime)
}

// shakeHands completes a handshake, in Proxy.HandshakeTimeout, and returns what a hook
// may know of it.
func (s *Session) shakeHands(tc *tls.Conn) (t TLS, err error) {
	ctx, cancel := context.Context(s.ctx), context.CancelFunc(func() {})
	switch timeout := s.cfg.HandshakeTimeout; {
	case timeout == 0:
		ctx, cancel = context.WithTimeout(ctx, defaultHandshakeTimeout)
	case timeout > 0:
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	if t, err = s.shakeHandsGuarded(ctx, tc); err != nil {
		s.log(slog.LevelInfo, "smtpproxy: TLS handshake failed",
			slog.String("error", err.Error()))
	}
	return t, err
}

// shakeHandsGuarded is shakeHands where callbacks may panic. Those of the TLS
// configuration are user code: a panic of theirs fails the handshake, as an error of
// theirs does, and nothing else.
func (s *Session) shakeHandsGuarded(ctx context.Context, tc *tls.Conn) (t TLS, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("smtpproxy: callback of the TLS configuration panicked: %v", v)
			s.log(slog.LevelError, "smtpproxy: callback of the TLS configuration panicked",
				slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
	}()
	if err := tc.HandshakeContext(ctx); err != nil {
		return TLS{}, err
	}
	return s.cfg.describe(tc.ConnectionState()), nil
}

// describe returns what a hook may know of a TLS connection.
func (c *config) describe(state tls.ConnectionState) TLS {
	t := TLS{Protocol: openssl.Protocol(state.Version), SNI: state.ServerName}
	t.Cipher, t.KeySize = openssl.Cipher(state.CipherSuite)
	chain := state.PeerCertificates
	switch {
	case len(chain) == 0:
	case len(state.VerifiedChains) > 0:
		t.PeerCert = NewPeerCert(0, nil, chain...)
	default:
		var roots *x509.CertPool
		now := time.Now()
		if c.TLSConfig != nil {
			roots = c.TLSConfig.ClientCAs
			if c.TLSConfig.Time != nil {
				now = c.TLSConfig.Time()
			}
		}
		number, err := openssl.Verify(chain, roots, now)
		t.PeerCert = NewPeerCert(number, err, chain...)
	}
	return t
}

// TLSConnectionState returns the TLS state of a connection that a server got
// from Proxy.Listener, where the library ends TLS and the server doesn't see a
// *tls.Conn. It looks into wrappers like SessionOf.
func TLSConnectionState(c net.Conn) (tls.ConnectionState, bool) {
	if c, ok := unwrap(c); ok && c.client.Begun() {
		if tc, ok := c.client.NetConn().(*tls.Conn); ok {
			return tc.ConnectionState(), true
		}
	}
	return tls.ConnectionState{}, false
}
