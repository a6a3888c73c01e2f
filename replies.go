package smtpproxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/peek"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file takes one reply after the other to the client: the server's, when they have
// moved the machine, and those of hook and library.

// relayReplies is Write, for one caller at a time. It tells whether the caller has to
// wait before it returns (see dialogue.Machine.MayReturn). Hooks are called from here: what is
// on the stack meanwhile is as little as can be.
func (c *conn) relayReplies(p []byte) (waits bool, err error) {
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	if takes, err := c.takesReplies(); !takes {
		return false, err
	}
	if c.out.partial.Len() > 0 {
		c.out.partial.Put(p)
		p = c.out.partial.Held()
	}
	for len(p) > 0 && err == nil {
		reply, code, bad := c.out.next(p, c.s.cfg.reply)
		switch {
		case bad != nil && c.hasEnded():
			c.out.lost = true
			return false, net.ErrClosed
		case bad != nil:
			return false, c.loseStep(dialogue.MalformedReply)
		case reply == nil:
			return waits, nil
		}
		p = p[len(reply):]
		step, sent, v, mustWait, wakes := c.moveByReply(code, reply, nil)
		if sent == nil {
			step, sent, v, mustWait, wakes = c.moveByReply(code, reply, c.list(code, reply))
		}
		waits = mustWait
		switch step.Fate {
		case dialogue.LoseStep:
			err = c.loseStep(dialogue.OutOfStep)
		case dialogue.Keep, dialogue.Postpone:
			c.out.kept.Put(sent)
		case dialogue.Forward:
			if c.out.kept.Len() > 0 {
				c.sendKeptHere(true, false)
			}
			if v == nil {
				err = c.send(sent, step.Hold)
				break
			}
			c.show(v, sent)
			err = c.sendShown(v, sent, step.Hold, false)
		}
		if wakes {
			c.wakeReader()
		}
	}
	c.out.partial.Release()
	return waits && err == nil, err
}

// takesReplies tells whether replies of the server's are for the client; err is what the
// server gets if they aren't, nil if it isn't to notice. It is also where a connection begins.
func (c *conn) takesReplies() (takes bool, err error) {
	switch {
	case c.waits.closed.Load(), c.out.lost:
		return false, net.ErrClosed
	case c.client.IsDetached():
		return false, nil
	}
	if c.client.Begun() {
		return true, nil
	}
	if err := c.begin(false); err != nil {
		return false, err
	}
	switch { // while it began
	case c.waits.closed.Load():
		return false, net.ErrClosed
	case c.client.IsDetached():
		return false, nil
	}
	return true, nil
}

// wakeReader ends the wait of a Read.
func (c *conn) wakeReader() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.wakeRead()
}

// list returns what becomes of the keywords in a reply to HELO, EHLO or LHLO; nothing if it has
// turned out to be none, since the connection is closed.
func (c *conn) list(code int, reply []byte) *listing {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.m.Greets() {
		return new(listing)
	}
	asks := len(s.links().keywords) > 0
	if asks { // who waits for a held reply doesn't wait for the hook
		s.mu.Unlock()
		c.sendHeld()
		s.mu.Lock()
	}
	var lines []string
	if s.m.WantsKeywords() {
		lines = wire.ReplyLines(reply)
	}
	list := s.list(code, lines)
	if asks { // the hook's time is not the server's
		s.mu.Unlock()
		c.client.RenewWrite()
		s.mu.Lock()
	}
	return &list
}

// moveByReply lets a reply of the server's move the machine; list is what c.list has returned, nil
// if that hasn't been asked. It returns the reply as the client gets it, nil if nothing has moved,
// since that has to be asked before; what is to be shown of it; whether the Write has to
// wait before it returns; and whether a Read waits for the reply.
func (c *conn) moveByReply(code int, reply []byte, list *listing) (step dialogue.Step, sent []byte, v *showing, waits, wakes bool) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.m.State() == dialogue.Greeting:
		s.mu.Unlock()
		early := c.talksEarly()
		s.mu.Lock()
		s.conn.earlyTalker = s.conn.earlyTalker || early
	case list == nil && s.m.Greets():
		return step, nil, nil, false, false
	}
	var size int64
	if list != nil {
		size = list.size
		switch {
		case list.failed:
			v, reply = s.shownAnswer(&answer{reply: failureReply, by: ByFailure})
			return step, reply, v, false, c.waits.reply != nil
		case list.lines != nil:
			reply = printed(code, list.lines)
		}
	}
	message := s.m.IsMessage()
	var r Recipient
	step = s.replied(code, s.accepts(code, &r), size)
	if step.Fate == dialogue.Forward && s.talked() != nil {
		v = s.shownReply(code, reply, oneIf(message))
	}
	c.waits.content = c.waits.content || step.News == dialogue.ContentBegins
	waits = !s.m.MayReturn()
	c.awaitsRest(waits)
	return step, reply, v, waits, c.waits.reply != nil
}

// shownReply is shown for a reply of the server's, as it has sent it.
//
//go:noinline
func (s *Session) shownReply(code int, reply []byte, statuses int) *showing {
	r := parsed(code, wire.ReplyLines(reply))
	return s.shown(ByServer, &r, statuses)
}

// printed returns a reply as it is sent. Inlined, it would cost each connection
// stack where the least is left: see decision.
//
//go:noinline
func printed(code int, lines []string) []byte { return wire.AppendReply(nil, code, lines) }

// talksEarly tells whether the client has sent something before the greeting. (What a
// Read has read ahead that waits for the greeting, it tells itself: see awaitReply.)
func (c *conn) talksEarly() bool {
	raw := c.client.NetConn()
	tc, isTLS := raw.(*tls.Conn)
	if isTLS {
		raw = tc.NetConn()
	}
	if peek.Pending(raw) {
		return true
	}
	if !c.in.reading.TryLock() {
		return false
	}
	defer c.in.reading.Unlock()
	if c.in.ahead.Len() > 0 {
		return true // it has come while a hook was asked
	}
	// The handshake may have read more from the socket than it needed. That
	// can be had without reading from the socket.
	if !isTLS || !c.client.TakesDeadlines() {
		return false
	}
	c.client.InterruptReads()
	c.in.ahead.Reserve(buffer.Small)
	c.in.err = c.in.ahead.Fill(&c.client, buffer.Small)
	c.client.AllowReads()
	if errors.Is(c.in.err, os.ErrDeadlineExceeded) {
		c.in.err = nil
	}
	return c.in.ahead.Len() > 0
}

// answer is a reply that is not the server's.
type answer struct {
	reply   Reply
	by      Source
	copies  int  // how often the client still gets it
	hold    bool // it may wait for others
	message bool // it is one to a message
}

// refusalOf returns a refusal of the library's as an answer.
func refusalOf(r dialogue.Refusal) *answer {
	return &answer{reply: replyOf(r), by: ByLibrary, copies: 1}
}

// respond sends a reply that is not the server's, as often as the client counts on it. Its
// caller holds in.reading.
func (c *conn) respond(a *answer) {
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	for ; a.copies > 0; a.copies-- {
		c.client.RenewWrite()
		c.sayOwn(a, true)
	}
}

// sayOwn sends a reply that is not the server's. Its caller holds out.writing, and in.reading
// too if reads says so.
func (c *conn) sayOwn(a *answer, reads bool) error {
	c.s.mu.Lock()
	v, reply := c.s.shownAnswer(a)
	c.s.mu.Unlock()
	c.show(v, reply)
	return c.sendShown(v, reply, a.hold, reads)
}

// shownAnswer is shown for a reply that is not the server's. It returns that as it is sent, too.
// Its caller holds s.mu, and has moved the machine.
//
//go:noinline
func (s *Session) shownAnswer(a *answer) (*showing, []byte) {
	statuses := 0
	if a.message {
		statuses = a.copies
	}
	r := a.reply.filled(dialogue.NoVerb)
	return s.shown(a.by, &r, statuses), a.reply.appendTo(nil)
}

// show shows a reply to who looks at replies; v is nil if nobody does. If one of them calls
// runtime.Goexit, which ends the server's goroutine, and the connection with it, the client
// gets the reply as it is: it tells what has happened. Its caller holds out.writing. It has no
// frame of its own, for what comes above needs the stack.
func (c *conn) show(v *showing, reply []byte) {
	if v != nil {
		v.client, v.reply = c, reply
		c.s.show(v)
	}
}

// sendAsShown sends a reply whose showing has been broken off: as the hooks have made it, if
// all of them have been asked.
func (v *showing) sendAsShown() {
	reply := v.reply
	if v.asked && !v.x.Reply.reads(&v.first) {
		reply = v.x.Reply.appendTo(nil)
	}
	v.client.client.RenewWrite()
	v.client.send(reply, false)
	if v.first.Disconnect {
		v.client.client.Close() // no other reply follows
	}
}

// sendShown sends a reply that has been shown to who looks at replies. Its caller holds
// out.writing, and in.reading too if reads says so.
func (c *conn) sendShown(v *showing, reply []byte, hold, reads bool) error {
	if v == nil {
		return c.send(reply, hold)
	}
	if v.changed {
		reply = v.x.Reply.appendTo(nil)
	}
	if v.delay > 0 {
		c.sendHeld()
		if c.out.ticking && c.out.timer.Stop() {
			c.out.ticking = false // else it would wait, too, on a goroutine
		}
		c.holdBackHere(v.delay, reads)
	}
	c.client.RenewWrite() // the hooks' time is not the server's
	if v.isLast {
		c.s.mu.Lock()
		c.s.endByHook()
		c.wakeRead()
		c.s.mu.Unlock()
	}
	err := c.send(reply, hold && !v.isLast)
	if v.isLast && !reads {
		c.client.InterruptReads() // a Read that waits for the client ends now
	}
	return err
}

// send writes a reply to the client, or holds it while more commands wait. Its caller
// holds out.writing.
func (c *conn) send(reply []byte, hold bool) error {
	b := c.out.add(reply, hold)
	var err error
	switch {
	case len(b) > 0:
		_, err = c.client.Write(b)
		c.out.written(err)
	case c.out.failed:
		err = net.ErrClosed
	case !c.out.ticking:
		c.startTimer()
	}
	if err != nil {
		c.writeFailed(err)
		return err
	}
	if c.client.IsCounted() {
		c.noteSent(reply)
	}
	return nil
}

// noteSent notes a reply to the client for the End.
func (c *conn) noteSent(reply []byte) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.watched().sent(reply)
}

// startTimer sees to it that no reply is held for long, however slow the hook
// or the server is with the next. A timer that runs already will do: it costs
// as much as a system call to start one.
func (c *conn) startTimer() {
	c.out.ticking = true
	if c.out.timer == nil {
		c.out.timer = time.AfterFunc(holdTime, c.holdTimeUp)
		return
	}
	c.out.timer.Reset(holdTime)
}

// writeFailed notes that a reply couldn't be sent.
func (c *conn) writeFailed(err error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if !c.s.m.State().HasEnded() {
		c.s.watched().because(SideClient, ReasonClientGone, err)
		c.s.ctx.end(goneOff) // a hook may have a line
	}
	c.s.m.WriteFailed()
	c.s.moved(false)
}

// sendKept sends the replies that were kept; message tells that they are those to a message.
// Its caller holds in.reading.
func (c *conn) sendKept(message bool) {
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	c.client.RenewWrite()
	c.sendKeptHere(message, true)
}

// sendKeptHere is sendKept for who holds out.writing, and in.reading too if reads says so.
func (c *conn) sendKeptHere(message, reads bool) {
	if c.out.kept.Len() == 0 {
		return
	}
	kept := c.out.kept.Move()
	defer kept.Release()
	if !c.s.looks() {
		c.send(kept.Held(), false)
		return
	}
	var next wire.Reply
	for b := kept.Held(); len(b) > 0; {
		n, code, err := next.Next(b)
		if err != nil || n == 0 {
			return // that can't be: whole replies are kept
		}
		statuses := 0
		if message {
			statuses = 1 + oneIf(n < len(b)) // more follow
		}
		c.s.mu.Lock()
		v := c.s.shownReply(code, b[:n], statuses)
		c.s.mu.Unlock()
		c.show(v, b[:n])
		c.sendShown(v, b[:n], false, reads)
		b = b[n:]
	}
}

// flush sends what is held, before Read waits for the client. If another
// goroutine is writing, that one, or the timer, sends it.
func (c *conn) flush() {
	if c.out.holds.Load() && c.out.writing.TryLock() {
		c.sendHeld()
		c.out.writing.Unlock()
	}
}

// sendHeld sends what is held. Its caller holds out.writing.
func (c *conn) sendHeld() {
	if b := c.out.add(nil, false); len(b) > 0 {
		c.client.RenewWrite()
		_, err := c.client.Write(b)
		if c.out.written(err); err != nil {
			c.writeFailed(err)
		}
	}
}

// holdTimeUp sends what has been held long enough.
func (c *conn) holdTimeUp() {
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	c.out.ticking = false
	c.sendHeld()
}

// loseStep ends the connection when the server's replies can't be matched to
// the client's commands any more. Its caller holds out.writing.
func (c *conn) loseStep(why dialogue.Reason) error {
	c.out.lost = true
	c.out.partial.Release()
	c.out.kept.Release()
	c.s.mu.Lock()
	r := c.s.m.HangUp(why)
	c.s.moved(false)
	c.wakeRead()
	c.s.mu.Unlock()
	c.client.RenewWrite()
	c.sayOwn(refusalOf(r), false)
	// A Read that waits for the client ends now.
	c.client.InterruptReads()
	return net.ErrClosed
}
