package smtpproxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/peek"
	"github.com/seed3262c777/smtpproxy/internal/timed"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file takes one line after the other from the client to the hook and the server,
// and one reply after the other back: it asks the machine what is next, does it, and
// tells the machine what came of it.

// relay is Read, for one caller at a time.
func (c *conn) relay(p []byte) (n int, err error) {
	if c.in.rest.Len() > 0 && c.handsRest() {
		return c.takeRest(p), nil
	}
	for begins := true; ; begins = false {
		if c.closed.Load() {
			return 0, net.ErrClosed
		}
		if err := c.beginReading(); err != nil {
			return 0, io.EOF
		}
		if n, err = c.relayNext(p, begins); n > 0 {
			return n, nil
		}
		if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && c.hasEnded()) {
			return 0, err
		}
		// Else the deadline was loseStep's, which has interrupted the read: the next
		// look tells so.
	}
}

// relayNext does what the dialogue is at. It returns 0 and no error if there was
// nothing for the server. begins tells that a Read has just begun.
func (c *conn) relayNext(p []byte, begins bool) (n int, err error) {
	state, handedOver := c.next(begins)
	if handedOver {
		return 0, io.EOF
	}
	switch state {
	case dialogue.Command, dialogue.Response, dialogue.OwnResponse:
		line, ok, err := c.nextLine(p, state)
		if ok {
			return c.relayLine(p, line), nil
		}
		return 0, err
	case dialogue.StrayResponse:
		_, ok, err := c.nextLine(p, state)
		if ok {
			// The server might take it for a command, which the hook
			// wasn't shown.
			c.hangUp(dialogue.SASLGivenUp)
		}
		return 0, err
	case dialogue.Postponed:
		_, ok, err := c.nextLine(p, state)
		if ok {
			c.answerPostponed()
		}
		return 0, err
	case dialogue.Reset:
		return c.handMAIL(p), nil
	case dialogue.Content, dialogue.ReadOn, dialogue.Surplus:
		return c.relayContent(p)
	case dialogue.Chunk:
		return c.relayChunk(p)
	case dialogue.DropChunk:
		return 0, c.dropChunk()
	case dialogue.Refusing:
		return 0, c.dropRest()
	case dialogue.Unwanted:
		c.linger(drainTime, maxDrain)
		c.s.Close()
		return 0, io.ErrUnexpectedEOF
	case dialogue.GivenUp:
		return 0, io.ErrUnexpectedEOF
	case dialogue.Closing, dialogue.Over:
		return 0, c.finish()
	case dialogue.Greeting, dialogue.Regreeting, dialogue.Executing, dialogue.Cancelling, dialogue.Resetting, dialogue.End:
		return 0, c.awaitReply()
	}
	// No Read that has begun finds the dialogue at another state.
	c.fail()
	return 0, net.ErrClosed
}

// next tells where the dialogue is at, and whether the client goes on elsewhere.
func (c *conn) next(begins bool) (state dialogue.State, handedOver bool) {
	var b dialogue.Begun
	c.s.mu.Lock()
	if c.to != nil {
		c.s.mu.Unlock()
		return 0, true
	}
	if begins {
		b = c.s.m.ReadBegins()
		c.s.moved(b.Cleared)
		c.stirWrite()
	}
	state = c.s.m.State()
	content := c.waits.content
	c.waits.content = false
	c.s.mu.Unlock()
	if content {
		c.beginMessage()
	}
	if b.Missing > 0 {
		c.respond(Reply{Code: b.Code}, b.Missing, false)
	}
	return state, false
}

// nextLine returns the client's next line, and whether there is one. It may use p to
// read into.
func (c *conn) nextLine(p []byte, state dialogue.State) (line string, ok bool, err error) {
	limit := c.s.cfg.lineLimit(state.IsSASL())
	held, inP := c.in.ahead.Held(), false
	for {
		line, ok, err = c.in.cutLine(held, inP, limit)
		switch {
		case ok:
			if c.client.HasReadBound() {
				c.client.SetReadBound(0)
			}
			return line, true, nil
		case err == errClientHello:
			c.hangUp(dialogue.TLSUnasked)
			return "", false, nil
		case err == errLineTooLong:
			c.hangUp(dialogue.TooLong)
			return "", false, nil
		case inP:
			c.in.ahead.Put(held)
		}
		switch {
		case c.in.err == timed.ErrTooSlow:
			c.hangUp(dialogue.TooSlow)
			return "", false, nil
		case c.in.err != nil:
			// An unfinished line is no command.
			return "", false, c.in.readError()
		case len(held) > 0 && !c.client.HasReadBound() && c.s.cfg.CommandTimeout > 0:
			c.client.SetReadBound(timed.FromNow(c.s.cfg.CommandTimeout))
		}
		c.flush()
		held, inP = c.in.receive(&c.client, p, min(len(held)+1, limit), c.s.cfg.readAhead)
	}
}

// relayLine takes the client's line to the hook, and to the server what the
// hook passes. It returns 0 if there was nothing for the server.
func (c *conn) relayLine(p []byte, line string) int {
	d := decision{clock: &c.client, behind: c.in.behind()}
	c.s.decide(c.s.ctx, line, &d)
	switch d.kind {
	case tooLate:
		return 0
	case startTLS:
		c.startTLS()
		return 0
	case toClient:
		return c.answer(p, &d)
	}
	if d.begins {
		c.beginMessage()
	}
	if c.endsBehindCR() {
		return 0
	}
	return c.hand(p, d.pass.Command)
}

// answer answers a line that the server doesn't get. The client's time starts
// anew with what the hook has answered; what the library refuses renews nothing, or
// a server that limits the whole session by one deadline would never see its end.
func (c *conn) answer(p []byte, d *decision) int {
	if !d.library {
		c.client.RenewRead()
	}
	if d.discard > 0 {
		c.in.late = &lateAnswer{d.reply, int(d.copies), !d.library}
		c.client.StartPace()
		return 0
	}
	c.respond(d.reply, int(d.copies), d.hold)
	if d.pass.Command == "" {
		return 0
	}
	return c.hand(p, d.pass.Command)
}

// answerPostponed answers the client's next command with the greeting that the
// server had for it after STARTTLS.
func (c *conn) answerPostponed() {
	c.s.mu.Lock()
	c.s.m.AnsweredPostponed()
	c.s.moved(false)
	c.s.mu.Unlock()
	c.sendKept()
}

// handMAIL gives the server the MAIL command that has waited for RSET.
func (c *conn) handMAIL(p []byte) int {
	c.s.mu.Lock()
	ok, line := c.s.m.HandMAIL(), c.s.line
	c.s.mu.Unlock()
	if !ok {
		return 0 // it was closed meanwhile
	}
	return c.hand(p, line)
}

// hand gives a line to the server. It ends in CRLF, whatever the client's did.
func (c *conn) hand(p []byte, line string) int {
	if len(line)+2 <= len(p) {
		n := copy(p, line)
		p[n], p[n+1] = '\r', '\n'
		return n + 2
	}
	c.in.rest.Put([]byte(line + "\r\n"))
	c.s.mu.Lock()
	c.s.m.HandedPartly()
	c.s.mu.Unlock()
	return c.takeRest(p)
}

// handsRest tells whether the server gets the rest of a line. If not, it is dropped: the
// server has replied already, and might take it for a command.
func (c *conn) handsRest() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	hands := c.s.m.HandsRest()
	if !hands {
		c.in.rest.Release()
	}
	return hands
}

// takeRest gives the server more of a line that didn't fit into the slice of its Read.
func (c *conn) takeRest(p []byte) int {
	n := c.in.rest.Take(p)
	if c.in.rest.Len() == 0 {
		c.s.mu.Lock()
		c.s.m.HandedRest()
		c.s.mu.Unlock()
	}
	return n
}

// relayReplies is Write, for one caller at a time. It tells whether the caller has to
// wait before it returns (see dialogue.Machine.MayReturn).
func (c *conn) relayReplies(p []byte) (n int, waits bool, err error) {
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	switch {
	case c.closed.Load(), c.out.lost:
		return 0, false, net.ErrClosed
	case c.client.IsDetached():
		return len(p), false, nil
	}
	if err := c.begin(); err != nil {
		return 0, false, err
	}
	if c.closed.Load() {
		return 0, false, net.ErrClosed // while it began
	}
	b := p
	if c.out.partial.Len() > 0 {
		c.out.partial.Put(p)
		b = c.out.partial.Held()
	}
	for len(b) > 0 {
		reply, code, err := c.out.next(b, c.s.cfg.reply)
		switch {
		case err != nil && c.hasEnded():
			c.out.lost = true
			return 0, false, net.ErrClosed
		case err != nil:
			return 0, false, c.loseStep(dialogue.MalformedReply)
		case reply == nil:
			return len(p), waits, nil
		}
		if waits, err = c.relayReply(code, reply); err != nil {
			c.out.partial.Release()
			return 0, false, err
		}
		b = b[len(reply):]
	}
	c.out.partial.Release()
	return len(p), waits, nil
}

// relayReply gives the client one reply of the server's: the machine moves, and then,
// without the lock, the reply is sent.
func (c *conn) relayReply(code int, reply []byte) (waits bool, err error) {
	s := c.s
	accepted, greets := s.beforeReply(code)
	early := greets && c.talksEarly()

	s.mu.Lock()
	s.conn.earlyTalker = s.conn.earlyTalker || early
	var lines []string
	if s.m.WantsKeywords() {
		lines = wire.ReplyLines(reply)
	}
	step, others := s.replied(code, accepted, lines)
	if others != nil {
		reply = printed(code, others)
	}
	c.waits.content = c.waits.content || step.News == dialogue.ContentBegins
	waits = !s.m.MayReturn()
	c.awaitsRest(waits)
	wakes := c.waits.reply != nil
	s.mu.Unlock()

	switch step.Fate {
	case dialogue.LoseStep:
		return false, c.loseStep(dialogue.OutOfStep)
	case dialogue.Keep, dialogue.Postpone:
		c.out.kept.Put(reply)
	case dialogue.Forward:
		c.sendKeptHere()
		err = c.send(reply, step.Hold)
	}
	if wakes {
		s.mu.Lock()
		c.wakeRead()
		s.mu.Unlock()
	}
	return waits, err
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
	tc, ok := raw.(*tls.Conn)
	if !ok {
		return peek.Pending(raw)
	}
	if peek.Pending(tc.NetConn()) {
		return true
	}
	// The handshake may have read more from the socket than it needed. That
	// can be had without reading from the socket.
	if !c.client.TakesDeadlines() || !c.in.reading.TryLock() {
		return false
	}
	defer c.in.reading.Unlock()
	if c.in.ahead.Len() > 0 {
		return true
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

// respond sends a reply that is not the server's, as often as the client counts on it.
func (c *conn) respond(r Reply, copies int, hold bool) {
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	for range copies {
		c.client.RenewWrite()
		c.send(r.appendTo(nil), hold)
	}
}

// send writes a reply to the client, or holds it while more commands wait. Its caller
// holds out.writing.
func (c *conn) send(reply []byte, hold bool) error {
	err := c.out.send(&c.client, reply, hold)
	if err != nil {
		c.writeFailed()
	} else if c.out.held.Len() > 0 {
		c.out.startTimer(c.holdTimeUp)
	}
	return err
}

// writeFailed notes that a reply couldn't be sent.
func (c *conn) writeFailed() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.m.WriteFailed()
	c.s.moved(false)
}

// sendKept sends the replies that were kept.
func (c *conn) sendKept() {
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	c.client.RenewWrite()
	c.sendKeptHere()
}

// sendKeptHere is sendKept for who holds out.writing.
func (c *conn) sendKeptHere() {
	if c.out.kept.Len() > 0 {
		kept := c.out.kept.Move()
		c.send(kept.Held(), false)
		kept.Release()
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
	if c.out.held.Len() > 0 {
		c.client.RenewWrite()
		if err := c.out.sendHeld(&c.client); err != nil {
			c.writeFailed()
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
	c.send(replyOf(r).appendTo(nil), false)
	// A Read that waits for the client ends now.
	c.client.InterruptReads()
	return net.ErrClosed
}
