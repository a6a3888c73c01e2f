package smtpproxy

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/timed"
)

// This file is what happens on a connection while a hook has a line, or holds one back: the
// client may leave, or send on. Who reads then is the Read that has brought the line to the
// hook, or the lookout in its place.

// aside reads from the client in a time that is not the client's.
type aside struct {
	client *timed.Conn
	until  timed.Instant // 0 is for ever
}

// Read implements io.Reader.
func (a aside) Read(p []byte) (int, error) { return a.client.ReadAside(p, a.until) }

// readAside reads ahead until the client is gone, until a time, 0 for never, or until
// nothing more may be kept. It returns true if there is nothing more to expect of the
// client: it is gone, and has left no whole line. Its caller holds in.reading, or stands
// in for who does.
func (c *conn) readAside(until timed.Instant) (gone, timeUp bool) {
	limit := c.s.cfg.readAhead
	for c.in.err == nil && c.in.ahead.Len() < limit {
		c.in.ahead.Reserve(min(c.in.ahead.Len()+minRead, limit))
		err := c.in.ahead.Fill(aside{&c.client, until}, limit)
		switch {
		case err == timed.ErrTimeUp:
			return false, true
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, false // interrupted
		}
		c.in.err = err
	}
	return c.in.err != nil && (c.in.err != io.EOF || !c.in.hasLine()), false
}

// lookout looks out for a client that leaves while a hook has its line.
type lookout struct {
	c    *conn
	done chan struct{}
}

// lookOut begins to look out, and cancels when the client is gone. It returns nil where
// that can't be ended again.
func (c *conn) lookOut(cancel context.CancelCauseFunc) *lookout {
	if !c.client.TakesDeadlines() {
		return nil
	}
	l := &lookout{c, make(chan struct{})}
	go func() {
		defer close(l.done)
		c.flush()
		if gone, _ := c.readAside(0); gone {
			cancel(ErrClientGone)
		}
	}()
	return l
}

// end ends it, and returns when it has. A nil lookout has ended.
func (l *lookout) end() {
	if l == nil {
		return
	}
	l.c.client.InterruptReads()
	<-l.done
	l.c.client.AllowReads()
}

// holdBack waits, while the client may send on; it ends when the client is gone, or the
// connection is closed. reads tells that its caller may read from the client.
func (c *conn) holdBack(d time.Duration, reads bool) {
	c.flush()
	c.holdBackHere(d, reads)
}

// holdBackHere is holdBack for who has sent what is held.
func (c *conn) holdBackHere(d time.Duration, reads bool) {
	if !reads && c.in.reading.TryLock() {
		defer c.in.reading.Unlock()
		reads = true
	}
	over := c.s.ctx.Done()
	if c.hasEnded() {
		over = c.s.closing() // it is the last word that is held back
	}
	until := timed.FromNow(d)
	if reads && c.client.TakesDeadlines() {
		if gone, timeUp := c.readAside(until); gone || timeUp {
			return
		}
	}
	t := time.NewTimer(until.Until())
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
	}
}

// now returns the time, if anybody wants to know how long something takes.
func (s *Session) now() time.Time {
	if s.more == nil {
		return time.Time{}
	}
	return time.Now()
}

// waitFor holds a line of the client's back as the hook wants it, and takes note of what the
// client has sent since the hook got it, at the time began. c is nil without a listener.
func (s *Session) waitFor(q *call, c *conn, began time.Time) {
	if c != nil && q.delay > 0 {
		c.holdBack(q.delay, true)
	}
	if !began.IsZero() {
		q.hooked = time.Since(began)
	}
	if c == nil || q.delay <= 0 && !q.looked {
		return // it has sent nothing that was read
	}
	if behind := c.in.behind(); behind != q.behind {
		q.behind = behind
		s.mu.Lock()
		defer s.mu.Unlock()
		s.m.SentAhead(behind == lineBehind)
	}
}
