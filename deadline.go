package smtpproxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

// This file is about time: how long the library reads from the client and
// writes to it.
//
// The server's deadlines are meant for it and the client. What the library and
// the hook do on their own account must not eat them.
//
// It costs more to give a socket a deadline than to read a command. So a
// deadline that only moves to later stays where it is until it passes; then the
// socket gets the new one, and goes on. (100 pipelined RSET take a fifth less
// time for it.)

// timing is the time for one direction.
type timing struct {
	at    time.Time     // the server's deadline; zero: none
	after time.Duration // what was left when it was set
	armed time.Time     // raw's: not later than what is wanted, but maybe earlier
}

// late tells whether raw's deadline is later than the one wanted.
func (d *timing) late(want time.Time) bool {
	return !want.IsZero() && (d.armed.IsZero() || want.Before(d.armed))
}

// renew gives an operation its full time from now on.
func (d *timing) renew() {
	if d.after > 0 { // else there is none, or one that is meant to interrupt
		d.at = time.Now().Add(d.after)
	}
}

// past interrupts whatever waits for it.
var past = time.Unix(1, 0)

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn. Time that a hook takes does not count,
// and after a command that the server didn't get to see the time starts anew.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.reads.at, c.reads.after, c.paused = t, 0, false
	if !t.IsZero() {
		c.reads.after = time.Until(t)
	}
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
	return c.armRead()
}

// SetWriteDeadline implements net.Conn. For replies that the server didn't
// write, or that were held back, the time starts anew.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.writes.at, c.writes.after = t, 0
	switch {
	case t.IsZero():
	case c.paused:
		// This saves a look at the clock. It is too long by what the hook
		// and the server have taken for the command, which does no harm.
		c.writes.after = t.Sub(c.reads.at) + c.left
	default:
		c.writes.after = time.Until(t)
	}
	return c.armWrite()
}

// wantedRead returns when a read from the client is to end, the zero time if
// never. Its caller holds deadlineMu.
func (c *conn) wantedRead() time.Time {
	switch at := c.reads.at; {
	case c.kicked:
		return past
	case !c.bound.IsZero() && (at.IsZero() || c.bound.Before(at)):
		return c.bound
	default:
		return at
	}
}

// armRead gives raw the read deadline, if raw's is too late. Its caller holds
// deadlineMu.
func (c *conn) armRead() error {
	want := c.wantedRead()
	if !c.reads.late(want) || c.gone.Load() {
		return nil
	}
	c.reads.armed = want
	err := c.raw.SetReadDeadline(want)
	if err != nil {
		c.givenUp.Store(true) // as good as a Read that fails
	}
	return err
}

// armWrite is armRead for writing. TLS doesn't survive a write that has met its
// deadline, and who knows what else doesn't: there it is always the true one.
func (c *conn) armWrite() error {
	want := c.writes.at
	if !c.writes.late(want) && (c.resumes() || want.Equal(c.writes.armed)) || c.gone.Load() {
		return nil
	}
	c.writes.armed = want
	return c.raw.SetWriteDeadline(want)
}

// resumes tells whether a write can go on after its deadline.
func (c *conn) resumes() bool {
	switch c.raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// armBoth gives raw the true deadlines, for what can't go on after them.
func (c *conn) armBoth() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.reads.armed, c.writes.armed = c.wantedRead(), c.writes.at
	c.raw.SetReadDeadline(c.reads.armed)
	c.raw.SetWriteDeadline(c.writes.armed)
}

// pause stops the clock for the client: it has done its part, and the hook's
// time is not its own. That ends when the server sets a deadline, or with
// resume.
func (c *conn) pause() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.reads.after > 0 { // else there is none, or one that is meant to interrupt
		c.paused, c.left = true, time.Until(c.reads.at)
	}
}

// resume lets the clock go on, before a read from the client.
func (c *conn) resume() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.paused {
		c.paused = false
		c.reads.at = time.Now().Add(c.left)
	}
}

// renewRead gives the server's read deadline its full time from now on.
func (c *conn) renewRead() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.paused = false
	c.reads.renew()
}

// readDeadlineChange returns the server's read deadline, and a channel that is
// closed when it sets another.
func (c *conn) readDeadlineChange() (time.Time, <-chan struct{}) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.reads.at, c.moved
}

// kick ends a read from the client, and each further one, until unkick.
func (c *conn) kick() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.kicked = true
	if c.armRead() == nil {
		return
	}
	// Then only this ends it.
	if tc, ok := c.raw.(*tls.Conn); ok {
		tc.NetConn().Close() // without an alert that could block
	} else {
		c.raw.Close()
	}
}

func (c *conn) unkick() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.kicked = false
}

// errTooSlow tells that the client has used up the time that the library gives
// it: Proxy.CommandTimeout, or that of Proxy.MinDataRate.
var errTooSlow = errors.New("smtpproxy: client too slow")

// allow bounds the time for what the client is to send next; the zero time
// lifts the bound. It is reading's to call.
func (c *conn) allow(until time.Time) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.bound = until
	c.armRead()
}

// fromClient reads from a conn's client, in the time that it has.
type fromClient conn

// Read implements io.Reader.
func (f *fromClient) Read(p []byte) (n int, err error) {
	c := (*conn)(f)
	c.resume()
	n, err = c.raw.Read(p)
	for n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if err = c.rearmRead(err); err != nil {
			return 0, err
		}
		n, err = c.raw.Read(p)
	}
	return n, err
}

// rearmRead gives raw the true read deadline, if there's time left, and else
// returns err, or errTooSlow if it was the library's own.
func (c *conn) rearmRead(err error) error {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	want := c.wantedRead()
	switch {
	case c.reads.early(want):
		return c.raw.SetReadDeadline(want)
	case !c.bound.IsZero() && want.Equal(c.bound):
		return errTooSlow
	}
	return err
}

// early tells whether raw's deadline has passed before the one wanted, which it
// is to get now.
func (d *timing) early(want time.Time) bool {
	if want.Equal(d.armed) || !want.IsZero() && !time.Now().Before(want) {
		return false
	}
	d.armed = want
	return true
}

// contentFromClient is fromClient for message content: see Proxy.MinDataRate.
type contentFromClient conn

// Read implements io.Reader.
func (f *contentFromClient) Read(p []byte) (n int, err error) {
	c := (*conn)(f)
	rate := c.s.cfg.MinDataRate
	if rate <= 0 {
		return (*fromClient)(c).Read(p)
	}
	start := time.Now()
	c.allow(start.Add(c.slack))
	n, err = (*fromClient)(c).Read(p)
	c.allow(time.Time{})
	c.slack += time.Duration(n)*time.Second/time.Duration(rate) - time.Since(start)
	c.slack = min(c.slack, dataSlack)
	return n, err
}

// toClient writes to a conn's client, in the time that it has. Its caller holds
// writeMu.
type toClient conn

// Write implements io.Writer.
func (t *toClient) Write(p []byte) (n int, err error) {
	c := (*conn)(t)
	n, err = c.raw.Write(p)
	for errors.Is(err, os.ErrDeadlineExceeded) && c.rearmWrite() {
		var more int
		more, err = c.raw.Write(p[n:])
		n += more
	}
	return n, err
}

// rearmWrite gives raw the true write deadline, if there's time left and
// writing can go on.
func (c *conn) rearmWrite() bool {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	return c.resumes() && c.writes.early(c.writes.at) && c.raw.SetWriteDeadline(c.writes.at) == nil
}

// limitWrite interrupts a write under way when d is over, and gives later ones
// that much.
func (c *conn) limitWrite(d time.Duration) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.writes.at, c.writes.after = time.Now().Add(d), d
	c.armWrite()
}

// renewWrite gives a write that the server knows nothing of its full time.
func (c *conn) renewWrite() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.writes.renew()
	c.armWrite()
}
