package smtpproxy

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/timed"
)

// This file waits: a Read for the server's reply, while the client may send on or go,
// and a Write for the rest of a message that the server has replied to.

// waits are what the server's goroutines wait for, and what is for them when they go on.
// The lock for state guards them.
type waits struct {
	reply chan struct{} // a Read waits until it is closed; nil if none does
	rest  chan struct{} // a Write waits, and gets something when it should look again; nil if none does
	ahead bool          // the Read that waits for the reply reads ahead meanwhile

	content bool        // a Read waits for content that begins, or will
	closed  atomic.Bool // the server has closed the connection: nobody waits any more
}

// awaitsRest notes whether the Write under way has to wait. If not, one that waits is
// to look again. Its caller holds s.mu.
func (c *conn) awaitsRest(has bool) {
	switch {
	case !has:
		c.stirWrite()
		c.waits.rest = nil
	case c.waits.rest == nil:
		c.waits.rest = make(chan struct{}, 1)
	}
}

// wakeRead ends the wait of a Read. Its caller holds s.mu.
func (c *conn) wakeRead() {
	if c.waits.reply == nil {
		return
	}
	close(c.waits.reply)
	c.waits.reply = nil
	if c.waits.ahead && !c.client.InterruptReadsLocked() {
		go c.client.Abort() // which may take its time
	}
}

// stirWrite tells a Write that waits to look again. Its caller holds s.mu.
func (c *conn) stirWrite() {
	if c.waits.rest == nil {
		return
	}
	select {
	case c.waits.rest <- struct{}{}:
	default:
	}
}

// awaitReply waits until the server has replied, which takes another goroutine
// than this one. Meanwhile it reads ahead, to notice when the client goes.
func (c *conn) awaitReply() error {
	ahead := c.client.TakesDeadlines() // else nothing could end the wait
	c.s.mu.Lock()
	state := c.s.m.State()
	if c.waits.closed.Load() || !state.OwesReply() {
		c.s.mu.Unlock()
		return nil
	}
	replied := make(chan struct{})
	c.waits.reply, c.waits.ahead = replied, ahead
	c.noteEarlyTalk()
	c.s.mu.Unlock()
	if state == dialogue.Greeting {
		t := time.AfterFunc(greetTime, func() {
			c.s.cfg.warn(warnReadsFirst)
			c.s.cfg.logWarnings()
		})
		defer t.Stop()
	}
	err := c.watch(replied, ahead)
	c.s.mu.Lock()
	c.waits.reply = nil
	c.s.mu.Unlock()
	c.client.AllowReads()
	return err
}

// noteEarlyTalk notes that the client has sent something, if the server hasn't greeted it yet.
// (It has the greeting before the Read that waits for that goes on, and may answer at once.)
// Its caller holds s.mu, and in.reading.
func (c *conn) noteEarlyTalk() {
	if c.s.m.State() == dialogue.Greeting && c.in.ahead.Len() > 0 {
		c.s.conn.earlyTalker = true
	}
}

// watch returns when replied is closed, when the server's deadline has passed, or
// when the client is gone, which it notices if it may read ahead.
func (c *conn) watch(replied chan struct{}, ahead bool) error {
	c.flush()
	c.client.Resume()
	limit := c.s.cfg.readAhead
	for ahead && c.in.err == nil && c.in.ahead.Len() < limit {
		c.in.ahead.Reserve(min(c.in.ahead.Len()+minRead, limit))
		c.in.err = c.in.ahead.Fill(&c.client, limit)
		c.s.mu.Lock()
		c.noteEarlyTalk()
		c.s.mu.Unlock()
		select {
		case <-replied:
			if errors.Is(c.in.err, os.ErrDeadlineExceeded) {
				c.in.err = nil // wakeRead has interrupted the read
			}
			return nil
		default:
		}
	}
	if c.in.err != nil && (c.in.err != io.EOF || c.in.ahead.Len() == 0) {
		return c.in.readError()
	}
	// There's no room to read on, or nothing: wait for what else may come.
	orphaned := timed.FromNow(orphanTime)
	for {
		at, moved := c.client.DeadlineChange()
		if c.in.err != nil && (at == 0 || at > orphaned) {
			at = orphaned
		}
		switch c.await(replied, moved, at) {
		case waitReplied:
			return nil
		case waitExpired:
			if c.in.err != nil && at == orphaned {
				return c.in.err
			}
			return os.ErrDeadlineExceeded
		}
	}
}

// waited is what has ended a wait.
type waited uint8

const (
	waitReplied waited = iota
	waitMoved          // the server has set another deadline
	waitExpired
)

// await waits until a time, 0 if there is none, and for what may come before.
func (c *conn) await(replied, moved <-chan struct{}, until timed.Instant) waited {
	var expired <-chan time.Time
	if until != 0 {
		t := time.NewTimer(until.Until())
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-replied:
		return waitReplied
	case <-moved:
		return waitMoved
	case <-expired:
		return waitExpired
	}
}

// awaitRest lets the Write of a reply to a message that comes before its end wait for
// that end, if the server reads on meanwhile, as go-smtp does in LMTP mode: what it
// reads then is content for certain.
func (c *conn) awaitRest() error {
	c.s.mu.Lock()
	rest := c.waits.rest
	c.s.mu.Unlock()
	t := time.NewTimer(readOnTime)
	defer t.Stop()
	for {
		timeUp := false
		select {
		case <-rest:
		case <-t.C:
			timeUp = true
		case <-c.s.ctx.Done():
		}
		patience, ok := c.restPatience(rest, timeUp)
		switch {
		case !ok:
			c.out.writing.Lock()
			defer c.out.writing.Unlock()
			return c.loseStep(dialogue.AmbiguousEnd)
		case patience == 0:
			return nil
		}
		t.Reset(patience)
	}
}

// restPatience returns how long a Write that waits for the end of a message goes on
// waiting for the server to read, 0 if it may return. ok is false if all is over. rest is
// what it waits for.
func (c *conn) restPatience(rest chan struct{}, timeUp bool) (d time.Duration, ok bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	ok = true
	if timeUp && !c.s.m.IsReading() { // else it's the client that takes its time
		ok = c.s.m.TimeUp()
		c.s.moved(false)
	}
	switch {
	case !ok, c.s.m.MayReturn():
		if c.waits.rest == rest { // else another Write has come to wait
			c.waits.rest = nil
		}
		return 0, ok
	case c.s.m.IsAtStop():
		return readOnTime, true // that was the end, more likely than not
	}
	return restTime, true
}
