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

	"github.com/seed3262c777/smtpproxy/internal/openssl"
	"github.com/seed3262c777/smtpproxy/internal/timed"
)

// This file starts and ends TLS in the server's place (RFC 3207, RFC 8314).

// startTLS answers STARTTLS and shakes hands. The client goes on with a fresh
// connection, which the server accepts when it has closed this one: so nothing
// that it knew is left (RFC 3207 section 4.2), whatever server it is.
func (c *conn) startTLS() {
	switch {
	case c.in.Len() > 0:
		// RFC 3207 section 4: nothing may follow STARTTLS before the
		// handshake. Executed inside TLS, it would be taken for the word
		// of whoever is at the other end there.
		c.hangUp(reasonBehindSTARTTLS, Reply{Code: 503, Enhanced: EnhancedCode{5, 5, 1}, Lines: []string{"Nothing may follow STARTTLS"}})
		return
	case c.l.isClosed():
		c.respond(Reply{Code: 454, Enhanced: EnhancedCode{4, 7, 0}, Lines: []string{"TLS not available now"}}, false)
		return
	}
	// Nothing of the server's gets to the client any more, no deadline and
	// no reply.
	c.writeMu.Lock()
	c.client.RenewWrite()
	c.client.HandOver()
	c.send(Reply{Code: 220, Lines: []string{"Ready to start TLS"}}.appendTo(nil), false)
	c.writeMu.Unlock()

	tc := tls.Server(c.client.Release(), c.s.cfg.startTLS)
	next := &conn{client: timed.NewConn(tc, &c.s.mu), s: c.s, l: c.l, greeted: true}
	t, err := next.shakeHands()
	if err != nil {
		// Nothing is sent in plaintext after the 220.
		c.s.Close()
		c.client.Close()
		return
	}
	next.client.Begin()

	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.closed.Load() {
		return // Close has closed client
	}
	c.s.advance(&event{kind: startedTLS, tls: &t})
	c.next = next
	next.patience = time.AfterFunc(handoverTime, next.abandon)
}

// claim decides, once, who goes on with a fresh connection: a call of Accept,
// or abandon.
func (c *conn) claim() bool {
	if c.claimed.Swap(true) {
		return false
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.patience.Stop()
	return true
}

// abandon turns away a client whose fresh connection nobody has accepted. It
// doesn't wait for it.
func (c *conn) abandon() {
	if c.claim() {
		go func() {
			c.s.logEnd(reasonNotAccepted)
			c.client.LimitWrite(closeTime)
			Reply{Code: 421, Enhanced: EnhancedCode{4, 3, 2}}.WriteTo(&c.client)
			c.Close()
		}()
	}
}

// begin finds out who is connected, and shakes hands where TLS comes first, on the
// goroutine that first uses the connection: both may take as long as the client likes.
func (c *conn) begin() error {
	if c.client.Begun() {
		return nil
	}
	c.beginning.Lock()
	defer c.beginning.Unlock()
	if c.client.Begun() {
		return nil
	}
	c.s.learn()
	if _, isTLS := c.client.NetConn().(*tls.Conn); isTLS {
		if c.isOver() {
			return net.ErrClosed // it has failed already
		}
		if err := c.handshake(); err != nil {
			return err
		}
	}
	c.client.Begin()
	return nil
}

// handshake shakes hands on a connection that starts with TLS.
func (c *conn) handshake() error {
	t, err := c.shakeHands()
	if err != nil {
		c.s.Close()
		c.rejectPlaintext(err)
		c.client.Close()
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.conn.secure = &secure{tls: t}
	return nil
}

// shakeHands completes the handshake, and returns what a hook may know of it.
func (c *conn) shakeHands() (t TLS, err error) {
	ctx, cancel := context.Context(c.s.ctx), context.CancelFunc(func() {})
	switch timeout := c.s.cfg.HandshakeTimeout; {
	case timeout == 0:
		ctx, cancel = context.WithTimeout(ctx, defaultHandshakeTimeout)
	case timeout > 0:
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	t, err = c.s.shakeHands(ctx, c.client.NetConn().(*tls.Conn))
	if err != nil {
		c.s.log(slog.LevelInfo, "smtpproxy: TLS handshake failed",
			slog.String("error", err.Error()))
	}
	return t, err
}

// shakeHands shakes hands, and describes what came of it. The TLS configuration's
// callbacks are user code: a panic of theirs fails the handshake, as an error of
// theirs does, and nothing else.
func (s *Session) shakeHands(ctx context.Context, tc *tls.Conn) (t TLS, err error) {
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

// rejectPlaintext tells a client that speaks SMTP where TLS is expected.
func (c *conn) rejectPlaintext(err error) {
	var header tls.RecordHeaderError
	if errors.As(err, &header) && header.Conn != nil {
		c.client.WriteBeneathTLS([]byte("554 5.7.0 TLS required\r\n"), closeTime)
	}
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
