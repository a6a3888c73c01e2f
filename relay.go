package smtpproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/timed"
)

// This file takes one line after the other from the client to the hook and the server: it
// asks the machine what is next, does it, and tells the machine what came of it.

// relay is Read, for one caller at a time.
func (c *conn) relay(p []byte) (n int, err error) {
	if c.in.rest.Len() > 0 && c.handsRest() {
		return c.takeRest(p), nil
	}
	for begins := true; ; begins = false {
		if c.waits.closed.Load() {
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
		line, ok, err := c.nextLine(p, state)
		if ok {
			c.answerPostponed(line)
		}
		return 0, err
	case dialogue.Reset:
		return c.handMAIL(p), nil
	case dialogue.Handover:
		// A Write beside this Read is about to begin one, for a client that Connect
		// has found to be another's.
		c.out.writing.Lock()
		c.out.writing.Unlock()
		return 0, nil
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
		c.s.shut()
		return 0, io.ErrUnexpectedEOF
	case dialogue.GivenUp:
		return 0, io.ErrUnexpectedEOF
	case dialogue.Closing, dialogue.Over:
		return 0, c.finish()
	case dialogue.Greeting, dialogue.Regreeting, dialogue.Restarting, dialogue.Executing, dialogue.Cancelling, dialogue.Resetting, dialogue.End:
		return 0, c.awaitReply()
	}
	// No Read that has begun finds the dialogue at another state.
	c.fail(true)
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
		c.respond(&answer{reply: Reply{Code: b.Code}, by: ByLibrary, copies: b.Missing, message: true})
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
	d := decision{conn: c, behind: c.in.behind()}
	c.s.decide(c.s.ctx, line, &d)
	switch d.kind {
	case tooLate:
		return 0
	case startTLS:
		c.startTLS()
		return 0
	case restart:
		c.restart()
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
	if d.pass.Delay > 0 {
		c.client.RenewWrite() // for a server that has set its deadline before it read
	}
	return c.hand(p, d.pass.Command)
}

// answer answers a line that the server doesn't get. The client's time starts
// anew with what the hook has answered; what the library refuses renews nothing, or
// a server that limits the whole session by one deadline would never see its end.
func (c *conn) answer(p []byte, d *decision) int {
	if d.by != ByLibrary {
		c.client.RenewRead()
	}
	a := &answer{reply: d.reply, by: d.by, copies: int(d.copies), hold: d.hold, message: d.message}
	if d.discard > 0 {
		a.hold = false
		c.in.late = a
		c.client.StartPace()
		return 0
	}
	c.respond(a)
	if d.pass.Command == "" {
		return 0
	}
	return c.hand(p, d.pass.Command)
}

// answerPostponed answers the client's next command with the greeting that the
// server had for it after STARTTLS.
func (c *conn) answerPostponed(line string) {
	c.s.mu.Lock()
	c.s.talked().begin(&call{cmd: Command{Line: line, Received: line}}, c.s.txn)
	c.s.m.AnsweredPostponed()
	c.s.moved(false)
	c.s.mu.Unlock()
	c.sendKept(false)
}

// handMAIL gives the server the MAIL command that has waited for RSET.
func (c *conn) handMAIL(p []byte) int {
	c.s.mu.Lock()
	ok, line := c.s.m.HandMAIL(), c.s.line
	if t := c.s.talked(); t != nil {
		t.since = time.Now()
	}
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
