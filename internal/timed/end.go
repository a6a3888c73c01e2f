package timed

import (
	"crypto/tls"
	"io"
	"time"
)

// This file is about the end of a connection: the last word, what nobody wants any more,
// and how raw is closed.

// LimitWrite interrupts a write under way when d is over, and gives later ones that
// much, whatever the server's deadline is.
func (c *Conn) LimitWrite(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes.at, c.writes.after = FromNow(d), d
	c.armWriteLocked()
}

// WriteBeneathTLS writes p, in d at most, in plaintext: to a client that has begun
// without TLS where raw is a *tls.Conn. If raw isn't, it does nothing. It needs no lock.
func (c *Conn) WriteBeneathTLS(p []byte, d time.Duration) {
	if tc, ok := c.raw.(*tls.Conn); ok {
		plain := tc.NetConn()
		plain.SetWriteDeadline(time.Now().Add(d))
		c.transmit(plain, p)
	}
}

// Linger ends what is written to the client, and drops what it still sends, for d and
// for limit octets at most. It returns when the client has done the same, or at once
// if raw can't be closed for writing alone.
func (c *Conn) Linger(d time.Duration, limit int64) {
	w, ok := c.raw.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	end := c.limitAlert()
	err := w.CloseWrite()
	end()
	if err != nil {
		return
	}
	c.limitRead(d)
	io.CopyN(io.Discard, (*lastReads)(c), limit)
}

// limitRead gives the last reads that much time, whatever the server's deadline is.
func (c *Conn) limitRead(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads.arm(FromNow(d), c.raw.SetReadDeadline)
}

// lastReads reads what nobody wants, up to the deadline that raw has.
type lastReads Conn

// Read implements io.Reader.
func (r *lastReads) Read(p []byte) (int, error) { return (*Conn)(r).receive(p) }

// Close closes raw. It needs no lock.
func (c *Conn) Close() error {
	defer c.limitAlert()()
	return c.raw.Close()
}

// limitAlert bounds the time in which the client has to take the close_notify alert
// of TLS, until the result is called.
func (c *Conn) limitAlert() (end func() bool) {
	tc, ok := c.raw.(*tls.Conn)
	if !ok {
		return func() bool { return false }
	}
	return time.AfterFunc(alertTime, func() { tc.NetConn().Close() }).Stop
}

// Abort closes raw without a word to the client. It needs no lock.
func (c *Conn) Abort() {
	if tc, ok := c.raw.(*tls.Conn); ok {
		tc.NetConn().Close() // without an alert that could block
	} else {
		c.raw.Close()
	}
}
