package smtpproxy

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/timed"
)

// This file waits for the server, while the client may send on or go.

// awaitReply waits until the server has replied, which takes another goroutine
// than this one. Meanwhile it reads ahead, to notice when the client goes.
func (c *conn) awaitReply() error {
	ahead := c.client.TakesDeadlines() // else nothing could end the wait
	c.s.mu.Lock()
	if p := c.s.phase; c.closed.Load() || p != phaseReply && p != phaseEnd && p != phaseGreeting {
		c.s.mu.Unlock()
		return nil
	}
	c.waiting, c.wake, c.ahead = true, make(chan struct{}), ahead
	wake, first := c.wake, c.s.phase == phaseGreeting && !c.s.regreets
	c.s.mu.Unlock()
	if first {
		t := time.AfterFunc(greetTime, func() {
			c.s.cfg.warn(warnReadsFirst)
			c.s.cfg.logWarnings()
		})
		defer t.Stop()
	}
	err := c.watch(wake, ahead)
	c.s.mu.Lock()
	c.waiting = false
	c.s.mu.Unlock()
	c.client.AllowReads()
	return err
}

// watch returns when wake is closed, when the server's deadline has passed, or
// when the client is gone, which it notices if it may read ahead.
func (c *conn) watch(wake chan struct{}, ahead bool) error {
	c.flush()
	c.client.Resume()
	for ahead && c.inErr == nil && c.in.Len() < c.s.cfg.readAhead {
		c.in.Reserve(min(c.in.Len()+512, c.s.cfg.readAhead))
		c.inErr = c.in.Fill(&c.client, c.s.cfg.readAhead)
		select {
		case <-wake:
			if errors.Is(c.inErr, os.ErrDeadlineExceeded) {
				c.inErr = nil // that was notify
			}
			return nil
		default:
		}
	}
	if c.inErr != nil && (c.inErr != io.EOF || c.in.Len() == 0) {
		return c.readError()
	}
	// There's no room to read on, or nothing: wait for what else may come.
	orphaned := timed.FromNow(orphanTime)
	for {
		at, moved := c.client.DeadlineChange()
		if c.inErr != nil && (at == 0 || at > orphaned) {
			at = orphaned
		}
		var expired <-chan time.Time
		if at != 0 {
			t := time.NewTimer(at.Until())
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-wake:
			return nil
		case <-moved:
		case <-expired:
			if c.inErr != nil && at == orphaned {
				return c.inErr
			}
			return os.ErrDeadlineExceeded
		}
	}
}
