package smtpproxy

import (
	"cmp"
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
// socket gets the new one, and goes on. (100 pipelined RSET take a sixth less
// time for it.) That is for sockets; other connections, and TLS where it can't go
// on after a deadline, always get the true one.

// instant is a point in time, in nanoseconds since epoch by the monotonic clock; 0
// is none. A time.Time takes three times the room, and a connection has five.
type instant int64

var epoch = time.Now()

// past interrupts whatever waits for it.
const past instant = -longTime

// longTime, 73 years, is so far off that nobody waits for it, and so near that
// sums of instants don't overflow. (In a test with a clock of its own, now may be
// some decades before epoch.)
const longTime = 1 << 61

func now() instant { return instant(time.Since(epoch)) }

// in returns the instant that is d from now.
func in(d time.Duration) instant {
	return cmp.Or(now()+instant(min(max(d, -longTime), longTime)), 1)
}

// left returns the time until i, which isn't 0.
func (i instant) left() time.Duration { return time.Duration(i - now()) }

// instantOf returns the instant of a deadline, and how far off it is.
func instantOf(t time.Time) (at instant, after time.Duration) {
	switch {
	case t.IsZero():
		return 0, 0
	case t == t.Round(0):
		// Without a reading of the monotonic clock, it counts from now.
		after = time.Until(t)
		return in(after), after
	}
	at = cmp.Or(instant(t.Sub(epoch)), 1)
	return at, at.left()
}

// time returns i as a deadline of a net.Conn. It passes some nanoseconds later, never
// earlier, by the wall clock as it is now too: a net.Conn may go by that.
func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	left := i.left()
	return time.Now().Add(left)
}

// timing is the time for one direction.
type timing struct {
	at    instant       // the server's deadline
	after time.Duration // what was left when it was set
	armed instant       // raw's: not later than what is wanted, but maybe earlier
}

// late tells whether raw's deadline is later than the one wanted.
func (d *timing) late(want instant) bool {
	return want != 0 && (d.armed == 0 || want < d.armed)
}

// early tells whether raw's deadline has passed before the one wanted.
func (d *timing) early(want instant) bool {
	return want != d.armed && (want == 0 || want.left() > 0)
}

// arm gives raw a deadline with set, and notes it only if raw has taken it.
func (d *timing) arm(want instant, set func(time.Time) error) error {
	err := set(want.time())
	if err == nil {
		d.armed = want
	}
	return err
}

// renew gives an operation its full time from now on.
func (d *timing) renew() {
	if d.after > 0 { // else there is none, or one that is meant to interrupt
		d.at = in(d.after)
	}
}

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
	unusual, err := c.setRead(t)
	if unusual {
		c.readFailed() // it is as good as that
	}
	return err
}

// setRead sets the server's deadline. An error is unusual where others could be set:
// where none can, a server that reads at all doesn't mind.
func (c *conn) setRead(t time.Time) (unusual bool, err error) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.reads.at, c.reads.after = instantOf(t)
	c.paused = false
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
	err = c.armRead()
	return err != nil && c.armed, err
}

// SetWriteDeadline implements net.Conn. For replies that the server didn't
// write, or that were held back, the time starts anew.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.writes.at, c.writes.after = instantOf(t)
	return c.armWrite()
}

// wantedRead returns when a read from the client is to end. Its caller holds
// deadlineMu.
func (c *conn) wantedRead() instant {
	switch at := c.reads.at; {
	case c.kicked:
		return past
	case c.bound != 0 && (at == 0 || c.bound < at):
		return c.bound
	default:
		return at
	}
}

// armRead gives raw the read deadline, if raw's is too late, or if it has to be
// the true one. Its caller holds deadlineMu.
func (c *conn) armRead() error {
	want := c.wantedRead()
	if !c.reads.late(want) && (c.resumes.reads && c.begun.Load() || want == c.reads.armed) || c.gone.Load() {
		return nil
	}
	err := c.reads.arm(want, c.raw.SetReadDeadline)
	c.armed = c.armed || err == nil
	return err
}

// armWrite is armRead for writing.
func (c *conn) armWrite() error {
	want := c.writes.at
	if !c.writes.late(want) && (c.resumes.writes || want == c.writes.armed) || c.gone.Load() {
		return nil
	}
	return c.writes.arm(want, c.raw.SetWriteDeadline)
}

// resumes tells whether reading from a connection, and writing to it, can go on
// after a deadline. Of sockets that is known. TLS reads on, but doesn't survive a
// write that has met its deadline.
func resumes(raw net.Conn) (reads, writes bool) {
	switch raw := raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true, true
	case *tls.Conn:
		reads, _ = resumes(raw.NetConn())
	}
	return reads, false
}

// armBoth gives raw the true deadlines, for what can't go on after them.
func (c *conn) armBoth() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.reads.arm(c.wantedRead(), c.raw.SetReadDeadline)
	c.writes.arm(c.writes.at, c.raw.SetWriteDeadline)
}

// pause stops the clock for the client: it has done its part, and the hook's
// time is not its own. That ends when the server sets a deadline, or with
// resume.
func (c *conn) pause() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	spent := c.spent
	c.spent = false
	switch {
	case c.reads.after <= 0: // there is none, or one that is meant to interrupt
	case c.paused: // since a command before
		c.reads.at = in(c.left)
	case !spent: // the line was there before
		c.paused, c.left = true, c.reads.after
	default:
		c.paused, c.left = true, c.reads.at.left()
	}
}

// resume lets the clock go on, before a read from the client.
func (c *conn) resume() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.paused {
		c.paused = false
		c.reads.at = in(c.left)
	}
	c.spent = true
	c.armRead() // if it fails, so will the read
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
func (c *conn) readDeadlineChange() (instant, <-chan struct{}) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.reads.at, c.moved
}

// takesDeadlines tells whether raw has read deadlines, as every net.Conn should.
func (c *conn) takesDeadlines() bool {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	return c.reads.arm(c.wantedRead(), c.raw.SetReadDeadline) == nil
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

// allow bounds the time for what the client is to send next; 0 lifts the bound. It
// is reading's to call.
func (c *conn) allow(until instant) {
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
	for err != nil && isTimeout(err) {
		if n > 0 {
			return n, nil // the next Read meets it again
		}
		if err = c.rearmRead(err); err != nil {
			return 0, err
		}
		n, err = c.raw.Read(p)
	}
	return n, err
}

// isTimeout tells whether err is that of a deadline: not every net.Conn has
// os.ErrDeadlineExceeded for it. Inlined, it would cost an allocation where there's
// no error.
//
//go:noinline
func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// rearmRead gives raw the true read deadline, if there's time left, and else
// returns err, or errTooSlow if it was the library's own.
func (c *conn) rearmRead(err error) error {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	want := c.wantedRead()
	switch {
	case c.reads.armed == 0 || c.reads.armed.left() > 0:
		return err // of its own accord
	case c.reads.early(want):
		return c.reads.arm(want, c.raw.SetReadDeadline)
	case c.bound != 0 && want == c.bound:
		return errTooSlow
	}
	return os.ErrDeadlineExceeded
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
	until := in(c.slack)
	c.allow(until)
	n, err = (*fromClient)(c).Read(p)
	c.allow(0)
	c.slack = until.left() + time.Duration(n)*time.Second/time.Duration(rate)
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
	return c.resumes.writes && c.writes.early(c.writes.at) && c.writes.arm(c.writes.at, c.raw.SetWriteDeadline) == nil
}

// limitRead gives the last reads from raw, beneath fromClient, that much time.
func (c *conn) limitRead(d time.Duration) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.reads.arm(in(d), c.raw.SetReadDeadline)
}

// limitWrite interrupts a write under way when d is over, and gives later ones
// that much.
func (c *conn) limitWrite(d time.Duration) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.writes.at, c.writes.after = in(d), d
	c.armWrite()
}

// renewWrite gives a write that the server knows nothing of its full time.
func (c *conn) renewWrite() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.writes.renew()
	c.armWrite()
}
