package smtpproxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/peek"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file is the way from the server, or the hook, to the client.

// Write implements net.Conn. It takes what the server replies, in pieces of
// any size, and moves the session when a reply is complete.
func (c *conn) Write(p []byte) (int, error) {
	n, waits, err := c.writeReplies(p)
	if waits {
		err = c.awaitRest()
	}
	if err != nil {
		c.s.report()
	}
	c.s.cfg.logWarnings()
	return n, err
}

// writeReplies is Write, for one caller at a time. It tells whether the caller has to
// wait before it returns (see Session.mayReturn).
func (c *conn) writeReplies(p []byte) (n int, waits bool, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.closed.Load() {
		return 0, false, net.ErrClosed
	}
	if c.client.IsHandedOver() {
		return len(p), waits, nil
	}
	if c.broken {
		return 0, false, net.ErrClosed
	}
	if err := c.begin(); err != nil {
		return 0, false, err
	}
	if c.closed.Load() {
		return 0, false, net.ErrClosed // while it began
	}
	b := p
	if c.partial.Len() > 0 {
		c.partial.Put(p)
		b = c.partial.Held()
	}
	for len(b) > 0 {
		n, code, err := c.reply.Next(b)
		if err != nil || n > c.s.cfg.reply || n == 0 && len(b) > c.s.cfg.reply {
			return 0, false, c.lostStep(reasonMalformedReply)
		}
		if n == 0 {
			c.keepPartial(b)
			return len(p), waits, nil
		}
		if waits, err = c.relay(code, b[:n]); err != nil {
			c.partial.Release()
			return 0, false, err
		}
		b = b[n:]
	}
	c.partial.Release()
	return len(p), waits, nil
}

// keepPartial keeps b, the last octets that the server has written.
func (c *conn) keepPartial(b []byte) {
	if n := c.partial.Len(); n > 0 {
		c.partial.Skip(n - len(b)) // they are there
	} else {
		c.partial.Put(b)
	}
}

// relay gives the client one reply of the server's.
func (c *conn) relay(code int, reply []byte) (waits bool, err error) {
	early := !c.greeted && c.talksEarly()
	c.greeted = true
	t := c.take(code, reply, early)
	switch t.verdict {
	case breakStep:
		err = c.lostStep(reasonOutOfStep)
	case forward:
		if t.kept {
			c.sendKeptHere()
		}
		err = c.send(t.reply, t.hold)
	}
	if t.waiting {
		c.s.mu.Lock()
		c.notify()
		c.s.mu.Unlock()
	}
	return t.waits, err
}

// taken is what a reply of the server's has come to.
type taken struct {
	verdict
	reply   []byte // what the client gets of it
	hold    bool   // it may wait for others
	kept    bool   // after those that were kept
	waiting bool   // a Read waits for it
	waits   bool   // the Write has to wait: see Session.mayReturn
}

// take lets a reply of the server's move the session and the connection.
func (c *conn) take(code int, reply []byte, early bool) taken {
	s := c.s
	e := event{code: code, rcpt: s.recipient(code)}
	s.mu.Lock()
	defer s.mu.Unlock()
	hold := s.phase == phaseReply && mayHold(s.pending.verb)
	if early {
		s.conn.earlyTalker = true
	}
	var lines []string
	if s.wantsLines() {
		lines = wire.ReplyLines(reply)
	}
	if s.lmtp && s.phase == phaseContent {
		// In phaseMaybeEnd no Read has begun yet, though the one before may not
		// have returned.
		e.reading = c.isRead()
	}
	was := s.phase
	v, others := s.take(&e, lines)
	if others != nil {
		reply = printed(code, others)
	}
	switch {
	case was == phaseReply && s.phase == phaseContent:
		c.content, c.strict, c.textLine = wire.Content{}, wire.Strict{}, 0
		c.client.StartPace()
	case !s.mayReturn() && c.stirs == nil:
		c.stirs = make(chan struct{}, 1)
	case s.phase == phaseOver && was == phaseSurplus:
		c.drop = true // the server has left the content to the library
	}
	if v == postpone || v == keep {
		c.kept.Put(reply)
	}
	return taken{v, reply, hold, c.kept.Len() > 0, c.waiting, !s.mayReturn()}
}

// printed returns a reply as it is sent. Inlined, it would cost each connection
// stack where the least is left: see decision.
//
//go:noinline
func printed(code int, lines []string) []byte { return wire.AppendReply(nil, code, lines) }

// talksEarly tells whether the client has sent something before the greeting.
func (c *conn) talksEarly() bool {
	raw := c.client.NetConn()
	tc, ok := raw.(*tls.Conn)
	if !ok {
		return peek.Pending(raw)
	}
	if peek.Pending(tc.NetConn()) {
		return true
	}
	// The handshake may have read more from the socket than it needed. That
	// can be had without reading from the socket.
	if !c.client.TakesDeadlines() || !c.readMu.TryLock() {
		return false
	}
	defer c.readMu.Unlock()
	c.client.InterruptReads()
	c.in.Reserve(buffer.Small)
	c.inErr = c.in.Fill(&c.client, buffer.Small)
	c.client.AllowReads()
	if errors.Is(c.inErr, os.ErrDeadlineExceeded) {
		c.inErr = nil
	}
	return c.in.Len() > 0
}

// isRead tells whether a Read is under way. While the server writes, that is
// another goroutine's.
func (c *conn) isRead() bool {
	if !c.readMu.TryLock() {
		return true
	}
	c.readMu.Unlock()
	return false
}

// awaitRest lets the Write of a reply to a message that comes before its end wait for
// that end, if the server reads on meanwhile, as go-smtp does in LMTP mode: what it
// reads then is content for certain.
func (c *conn) awaitRest() error {
	c.s.mu.Lock()
	stirs := c.stirs
	c.s.mu.Unlock()
	t := time.NewTimer(readOnTime)
	defer t.Stop()
	for {
		late := false
		select {
		case <-stirs:
		case <-t.C:
			late = !c.isRead() // else it's the client that takes its time
		case <-c.s.ctx.Done():
		}
		patience, ok := c.restPatience(late)
		switch {
		case !ok:
			c.writeMu.Lock()
			defer c.writeMu.Unlock()
			return c.lostStep(reasonAmbiguousEnd)
		case patience == 0:
			return nil
		}
		t.Reset(patience)
	}
}

// restPatience returns how long a Write that waits for the end of a message goes on
// waiting for the server to read, 0 if it may return. ok is false if all is over. late
// tells that the time was up.
func (c *conn) restPatience(late bool) (d time.Duration, ok bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch {
	case late && !c.s.timeUp():
		c.stirs = nil
		return 0, false
	case c.s.mayReturn():
		c.stirs = nil
		return 0, true
	case c.s.txn.get().atStop:
		return readOnTime, true // that was the end, more likely than not
	}
	return restTime, true
}

// mayHold tells whether a reply may wait for the next ones (RFC 2920 section
// 3.2 (5) and (6)).
func mayHold(verb string) bool {
	return verb == "MAIL" || verb == "RCPT" || verb == "RSET"
}

// respond sends a reply that is not the server's.
func (c *conn) respond(r Reply, hold bool) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.client.RenewWrite()
	c.send(r.appendTo(nil), hold)
}

// respondIfOpen is respond where it isn't known how far the connection has come.
func (c *conn) respondIfOpen(r Reply) {
	if c.client.Begun() && !c.client.IsHandedOver() {
		c.respond(r.filled(""), false)
	}
}

// sendKept sends the replies that were kept.
func (c *conn) sendKept() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.client.RenewWrite()
	c.sendKeptHere()
}

// sendKeptHere is sendKept for who holds writeMu.
func (c *conn) sendKeptHere() {
	c.s.mu.Lock()
	kept := c.kept.Move()
	c.s.mu.Unlock()
	if kept.Len() > 0 {
		c.send(kept.Held(), false)
		kept.Release()
	}
}

// send writes a reply to the client, or holds it while more commands wait, so
// that the replies to a group leave together. Its caller holds writeMu.
func (c *conn) send(reply []byte, hold bool) error {
	if hold && c.more.Load() && c.out.Len()+len(reply) <= maxHeld {
		if c.out.Len() == 0 {
			c.holds.Store(true)
			c.startTimer()
		}
		c.out.Put(reply)
		return nil
	}
	if c.out.Len() == 0 {
		return c.write(reply)
	}
	c.out.Put(reply)
	return c.writeHeld()
}

// write sends b to the client. A reply that can't be sent ends the dialogue:
// the next one would be taken for it, or for its end. Its caller holds writeMu.
func (c *conn) write(b []byte) error {
	if c.cut {
		return net.ErrClosed
	}
	_, err := c.client.Write(b)
	if err != nil {
		c.cut = true
		c.s.mu.Lock()
		c.drop = true
		c.s.setPhase(phaseOver)
		c.s.mu.Unlock()
	}
	return err
}

// startTimer sees to it that no reply is held for long, however slow the hook
// or the server is with the next. A timer that runs already will do: it costs
// as much as a system call to start one.
func (c *conn) startTimer() {
	switch {
	case c.ticking:
		return
	case c.timer == nil:
		c.timer = time.AfterFunc(holdTime, func() {
			c.writeMu.Lock()
			defer c.writeMu.Unlock()
			c.ticking = false
			c.sendHeld()
		})
	default:
		c.timer.Reset(holdTime)
	}
	c.ticking = true
}

// flush sends what is held, before Read waits for the client. If another
// goroutine is writing, that one, or the timer, sends it.
func (c *conn) flush() {
	if c.holds.Load() && c.writeMu.TryLock() {
		c.sendHeld()
		c.writeMu.Unlock()
	}
}

func (c *conn) sendHeld() {
	if c.out.Len() > 0 {
		c.client.RenewWrite()
		c.writeHeld()
	}
}

func (c *conn) writeHeld() error {
	err := c.write(c.out.Held())
	c.out.Release()
	c.holds.Store(false)
	return err
}

// lostStep ends the connection when the server's replies can't be matched to
// the client's commands any more. Its caller holds writeMu.
func (c *conn) lostStep(why reason) error {
	c.broken = true
	c.partial.Release()
	c.s.mu.Lock()
	c.drop = true
	c.s.lose(why)
	c.s.setPhase(phaseOver)
	c.kept.Release()
	c.notify()
	c.s.mu.Unlock()
	c.client.RenewWrite()
	c.send(failureReply.appendTo(nil), false)
	// A Read that waits for the client ends now.
	c.client.InterruptReads()
	return net.ErrClosed
}
