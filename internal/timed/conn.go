// Package timed has a connection whose deadlines have two owners: a server, and a
// library that stands between it and its client.
//
// The server's deadlines are meant for it and the client. What the library, and the
// user code that it calls, do on their own account must not eat them; and where the
// library sets the client a time, the server's deadlines don't matter or come on top:
//
//	whose time passes                        what becomes of the server's deadlines       told by
//	the client's, which is read from         the read deadline runs                       Resume, which Read calls
//	the user code's, with the client's line  the read deadline stands still               Pause
//	the user code's, which has answered it   the client has its full time anew            RenewRead
//	the server's                             what the server sets, counts             SetReadDeadline, SetWriteDeadline
//	the client's, which takes a reply that   the full time anew                           RenewWrite
//	  the server didn't write now
//	the client's, to finish what it began    they count; so does the library's own bound  SetReadBound, ReadPaced
//	the library's, which says a last word    they don't count any more                    LimitWrite, Linger, WriteBeneathTLS
//
// It costs more to give a socket a deadline than to read a command. So a deadline
// that only moves to later stays where it is until it passes; then the socket gets
// the new one, and goes on. (100 pipelined RSET take a sixth less time for it.) That
// is for sockets; other connections, and TLS where it can't go on after a deadline,
// always get the true one.
package timed

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a net.Conn, raw, and the times in which it is read and written. All octets
// that are read from raw, or written to it, go through its methods.
//
// Its lock is its user's, as sync.Cond's is, so that what it knows can change
// together with what the user knows. A method whose name ends in Locked is called
// with the lock held; all others must not be, but for those whose comment says that
// they need no lock. No lock is held while raw reads or writes; but raw's methods for
// deadlines are called with the lock held.
//
// At most one goroutine reads at a time, and at most one writes.
type Conn struct {
	raw   net.Conn
	stage atomic.Int32 // one of the stages

	// Guarded by mu, and so are the deadlines of raw.
	paused         bool // reads.at doesn't count: see Pause
	readSincePause bool // the client has been read from since the last Pause
	interrupted    bool // reads end at once
	taken          bool // raw has taken a read deadline
	mu             *sync.Mutex
	reads          timing
	writes         timing
	budget         time.Duration // what was left of reads.at when it was paused
	moved          chan struct{} // closed when the server sets another read deadline

	traffic *Traffic // counts octets; may be nil

	// The reader's, which sets it with the lock held, and reads it without.
	bound Instant // the library's own for reads
	// The reader's alone.
	paceCredit time.Duration // for how long the client may be silent in ReadPaced
}

// The stages of a Conn. It begins with the first.
const (
	// raw is read and written by others, as for a TLS handshake, which can't go
	// on after a deadline that only seems to have passed: it has the true ones.
	direct int32 = iota
	// raw is read and written by the Conn alone.
	begun
	// raw is about to be another's: the server's deadlines have no effect.
	detached
	// raw is another's, and so are its deadlines.
	released
)

// alertTime bounds the write of TLS's close_notify alert, which would otherwise be
// waited for 5 seconds.
const alertTime = time.Second

// maxPaceCredit is by how much a client may be behind the rate of ReadPaced.
const maxPaceCredit = 30 * time.Second

// ErrTooSlow tells that the client has used up the time that the library gives it:
// that of SetReadBound, or of ReadPaced.
var ErrTooSlow = errors.New("smtpproxy: client too slow")

// ErrTimeUp tells that the time of ReadAside has passed.
var ErrTimeUp = errors.New("smtpproxy: time up")

// NewConn returns a Conn for raw, whose lock is mu. It must not be copied but into
// its place, before it is used.
func NewConn(raw net.Conn, mu *sync.Mutex) Conn { return Conn{raw: raw, mu: mu} }

// NetConn returns raw, for what is neither reading nor writing nor a deadline, or
// comes before Begin. It needs no lock.
func (c *Conn) NetConn() net.Conn { return c.raw }

// Begin tells that from now on nobody else reads or writes raw. It needs no lock.
func (c *Conn) Begin() { c.stage.Store(begun) }

// Begun tells whether Begin has been called. It needs no lock.
func (c *Conn) Begun() bool { return c.stage.Load() != direct }

// Traffic counts what comes from the client, and what goes to it, in octets as they are
// read and written here: inside of TLS, if raw is TLS.
type Traffic struct{ Received, Sent atomic.Int64 }

// Count counts from now on in t; nil counts nothing. It needs no lock, but must be called
// while nobody reads or writes.
func (c *Conn) Count(t *Traffic) { c.traffic = t }

// Traffic returns what Count was called with. It needs no lock.
func (c *Conn) Traffic() *Traffic { return c.traffic }

// IsCounted tells whether there is one. It needs no lock.
func (c *Conn) IsCounted() bool { return c.traffic != nil }

// Detach tells that another is about to have raw. The server's deadlines have no
// effect any more. What is still to be read and written has the time that there is,
// until Release. It needs no lock.
func (c *Conn) Detach() { c.stage.Store(detached) }

// IsDetached tells whether Detach has been called. It needs no lock.
func (c *Conn) IsDetached() bool { return c.stage.Load() >= detached }

// Release takes all deadlines from raw, and returns it for who gets it.
func (c *Conn) Release() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stage.Store(released)
	c.raw.SetDeadline(time.Time{})
	return c.raw
}

// timing is the time for one direction.
type timing struct {
	at    Instant       // the server's deadline
	after time.Duration // what was left when it was set
	armed Instant       // raw's: not later than what is wanted, but maybe earlier
}

// late tells whether raw's deadline is later than the one wanted.
func (d *timing) late(want Instant) bool {
	return want != 0 && (d.armed == 0 || want < d.armed)
}

// early tells whether raw's deadline has passed before the one wanted.
func (d *timing) early(want Instant) bool {
	return want != d.armed && (want == 0 || want.Until() > 0)
}

// arm gives raw a deadline with set, and notes it only if raw has taken it.
func (d *timing) arm(want Instant, set func(time.Time) error) error {
	err := set(want.time())
	if err == nil {
		d.armed = want
	}
	return err
}

// renew gives an operation its full time from now on.
func (d *timing) renew() {
	if d.after > 0 { // else there is none, or one that is meant to interrupt
		d.at = FromNow(d.after)
	}
}

// SetReadDeadline sets the server's deadline for reads, and ends a Pause.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads.at, c.reads.after = instantOf(t)
	c.paused = false
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
	return c.armReadLocked()
}

// SetWriteDeadline sets the server's deadline for writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes.at, c.writes.after = instantOf(t)
	return c.armWriteLocked()
}

// HasTakenDeadline tells whether raw has ever taken a read deadline. If not, an error
// of SetReadDeadline is nothing unusual for it.
func (c *Conn) HasTakenDeadline() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken
}

// TakesDeadlines tells whether raw takes a read deadline now, as every net.Conn
// should: else InterruptReads can only close it.
func (c *Conn) TakesDeadlines() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken && resumesReads(c.raw) {
		return true // a socket that has taken one takes others
	}
	return c.reads.arm(c.wantedReadLocked(), c.raw.SetReadDeadline) == nil
}

// DeadlineChange returns the server's read deadline, and a channel that is closed
// when it sets another.
func (c *Conn) DeadlineChange() (Instant, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.reads.at, c.moved
}

// wantedReadLocked returns when a read from the client is to end.
func (c *Conn) wantedReadLocked() Instant {
	switch at := c.reads.at; {
	case c.interrupted:
		return past
	case c.bound != 0 && (at == 0 || c.bound < at):
		return c.bound
	default:
		return at
	}
}

// armReadLocked gives raw the read deadline, if raw's is too late, or if it has to be
// the true one.
func (c *Conn) armReadLocked() error {
	want, stage := c.wantedReadLocked(), c.stage.Load()
	if stage >= detached || !c.reads.late(want) && (want == c.reads.armed || stage == begun && resumesReads(c.raw)) {
		return nil
	}
	err := c.reads.arm(want, c.raw.SetReadDeadline)
	c.taken = c.taken || err == nil
	return err
}

// armWriteLocked is armReadLocked for writing.
func (c *Conn) armWriteLocked() error {
	want := c.writes.at
	if c.IsDetached() || !c.writes.late(want) && (want == c.writes.armed || resumesWrites(c.raw)) {
		return nil
	}
	return c.writes.arm(want, c.raw.SetWriteDeadline)
}

// resumesWrites tells whether writing to a connection can go on after a deadline. Of
// sockets that is known. TLS doesn't survive a write that has met its deadline.
func resumesWrites(raw net.Conn) bool {
	switch raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// resumesReads is resumesWrites for reading, with which TLS goes on as what is beneath
// it does.
func resumesReads(raw net.Conn) bool {
	if tc, ok := raw.(*tls.Conn); ok {
		return resumesWrites(tc.NetConn())
	}
	return resumesWrites(raw)
}

// Pause stops the clock for the client: it has done its part, and the time that
// passes is not its own. That ends when the server sets a deadline, or with Resume.
func (c *Conn) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.PauseLocked()
}

// PauseLocked is Pause with the lock held.
func (c *Conn) PauseLocked() {
	read := c.readSincePause
	c.readSincePause = false
	switch {
	case c.reads.after <= 0: // there is none, or one that is meant to interrupt
	case c.paused:
		// Since an earlier Pause: nothing has been read.
		c.reads.at = FromNow(c.budget)
	case !read:
		// What the client has sent was there before: it took none of its time.
		c.paused, c.budget = true, c.reads.after
	default:
		c.paused, c.budget = true, c.reads.at.Until()
	}
}

// Resume lets the clock go on, before a read from the client.
func (c *Conn) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused {
		c.paused = false
		c.reads.at = FromNow(c.budget)
	}
	c.readSincePause = true
	c.armReadLocked() // if it fails, so will the read
}

// RenewRead gives the server's read deadline its full time from now on.
func (c *Conn) RenewRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = false
	c.reads.renew()
}

// RenewWrite gives a write that the server knows nothing of its full time.
func (c *Conn) RenewWrite() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes.renew()
	if c.stage.Load() == detached && c.writes.after > 0 {
		c.writes.arm(c.writes.at, c.raw.SetWriteDeadline) // for what is still to be written
		return
	}
	c.armWriteLocked()
}

// InterruptReads ends a read from the client, and each further one, until AllowReads.
func (c *Conn) InterruptReads() {
	c.mu.Lock()
	ok := c.InterruptReadsLocked()
	c.mu.Unlock()
	if !ok {
		c.Abort()
	}
}

// InterruptReadsLocked is InterruptReads with the lock held. It returns false if raw takes
// no deadline: then only Abort ends a read.
func (c *Conn) InterruptReadsLocked() bool {
	c.interrupted = true
	return c.armReadLocked() == nil
}

// AllowReads ends InterruptReads.
func (c *Conn) AllowReads() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = false
}

// SetReadBound bounds the time for what the client is to send next, from the next
// Read on; 0 lifts the bound. Only the reader may call it.
func (c *Conn) SetReadBound(at Instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound = at
}

// HasReadBound tells whether there is a bound. Only the reader may call it. It needs
// no lock.
func (c *Conn) HasReadBound() bool { return c.bound != 0 }

// receive reads from raw. Read alone does the same by itself: with a call less around the system
// call.
func (c *Conn) receive(p []byte) (n int, err error) {
	n, err = c.raw.Read(p)
	if c.traffic != nil {
		c.traffic.Received.Add(int64(n))
	}
	return n, err
}

// transmit writes to raw, or what is beneath it. Write begins with the same by itself, as Read
// does.
func (c *Conn) transmit(to net.Conn, p []byte) (n int, err error) {
	n, err = to.Write(p)
	if c.traffic != nil {
		c.traffic.Sent.Add(int64(n))
	}
	return n, err
}

// Read reads from the client, in the time that it has.
func (c *Conn) Read(p []byte) (n int, err error) {
	c.Resume()
	n, err = c.raw.Read(p)
	if c.traffic != nil {
		c.traffic.Received.Add(int64(n))
	}
	for err != nil && isTimeout(err) {
		if n > 0 {
			return n, nil // the next Read meets it again
		}
		if err = c.rearmRead(err); err != nil {
			return 0, err
		}
		n, err = c.receive(p)
	}
	return n, err
}

// ReadAside reads from the client in a time that is not the client's: its deadline doesn't
// count, and stands still if it is paused. until bounds it, ErrTimeUp tells that it has
// passed; 0 is for ever. InterruptReads ends it with os.ErrDeadlineExceeded.
func (c *Conn) ReadAside(p []byte, until Instant) (n int, err error) {
	for {
		if err := c.armAside(until); err != nil {
			return 0, err
		}
		n, err = c.receive(p)
		switch {
		case n > 0 && isTimeout(err):
			return n, nil
		case err == nil, !isTimeout(err), c.timesOutItself(until):
			return n, err
		}
	}
}

// timesOutItself tells whether raw has met a timeout that is none of its deadline, which
// ReadAside has set: the client's system doesn't answer any more, say.
func (c *Conn) timesOutItself(until Instant) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servesAsideLocked(until)
}

// servesAsideLocked tells whether raw's deadline hasn't passed, and will do for a ReadAside
// until some time: it is that, or an earlier one, behind which reading goes on.
func (c *Conn) servesAsideLocked(until Instant) bool {
	at := c.reads.armed
	if at != 0 && at.Until() <= 0 {
		return false
	}
	return at == until || !c.reads.late(until) && resumesReads(c.raw)
}

// armAside gives raw the deadline of ReadAside, and returns an error if that has passed, or
// reads are interrupted.
func (c *Conn) armAside(until Instant) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.interrupted:
		return os.ErrDeadlineExceeded
	case until != 0 && until.Until() <= 0:
		return ErrTimeUp
	case c.servesAsideLocked(until):
		return nil
	}
	return c.reads.arm(until, c.raw.SetReadDeadline)
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
// returns err, or ErrTooSlow if it was the library's own.
func (c *Conn) rearmRead(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.wantedReadLocked()
	switch {
	case c.reads.armed == 0 || c.reads.armed.Until() > 0:
		return err // of its own accord
	case c.reads.early(want):
		return c.reads.arm(want, c.raw.SetReadDeadline)
	case c.bound != 0 && want == c.bound:
		return ErrTooSlow
	}
	return os.ErrDeadlineExceeded
}

// ReadPaced is Read from a client that has to keep a rate, in octets a second; it may
// be behind by maxPaceCredit. A rate of 0 or less is none. The time between two calls
// is not the client's.
func (c *Conn) ReadPaced(p []byte, rate int) (n int, err error) {
	if rate <= 0 {
		return c.Read(p)
	}
	until := FromNow(c.paceCredit)
	c.SetReadBound(until)
	n, err = c.Read(p)
	c.SetReadBound(0)
	c.paceCredit = until.Until() + time.Duration(n)*time.Second/time.Duration(rate)
	c.paceCredit = min(c.paceCredit, maxPaceCredit)
	return n, err
}

// StartPace lets a client's rate count anew in ReadPaced. It needs no lock, but must
// be called by the reader, or while it is certain that nobody reads.
func (c *Conn) StartPace() { c.paceCredit = maxPaceCredit }

// Write writes to the client, in the time that it has.
func (c *Conn) Write(p []byte) (n int, err error) {
	n, err = c.raw.Write(p)
	if c.traffic != nil {
		c.traffic.Sent.Add(int64(n))
	}
	for errors.Is(err, os.ErrDeadlineExceeded) && c.rearmWrite() {
		var more int
		more, err = c.transmit(c.raw, p[n:])
		n += more
	}
	return n, err
}

// rearmWrite gives raw the true write deadline, if there's time left and
// writing can go on.
func (c *Conn) rearmWrite() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return resumesWrites(c.raw) && c.writes.early(c.writes.at) && c.writes.arm(c.writes.at, c.raw.SetWriteDeadline) == nil
}
