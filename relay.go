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

// relay is Read, for one caller at a time. Lines, and content after 354, are read from here, with
// as few calls in between as can be: a system call makes each return behind it dearer, since the
// kernel's own calls take the place of what the processor remembers of where returns lead.
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
		state, handedOver := c.next(begins)
		if handedOver {
			return 0, io.EOF
		}
		k, reads := 0, state.IsRead() && c.in.isEmpty() // k octets were read into p
		for {
			if reads {
				c.flush()
				room, inP := c.in.room(p, state, &c.s.cfg.limits)
				if state.IsContent() {
					k, c.in.err = c.client.ReadPaced(room, c.s.cfg.MinDataRate)
				} else {
					k, c.in.err = c.client.Read(room)
				}
				if !inP {
					c.in.ahead.Filled(k)
					k = 0
				}
			}
			if n, reads, err = c.relayNext(p, k, state); !reads {
				break
			}
		}
		if n > 0 {
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
// nothing for the server. reads tells that it goes on when more has been read from the
// client: k octets into p, or else into in.ahead (see input.room).
func (c *conn) relayNext(p []byte, k int, state dialogue.State) (n int, reads bool, err error) {
	switch {
	case state.AwaitsLine():
		var line string
		var ok bool
		if line, ok, reads, err = c.nextLine(p[:k], state); ok {
			n = c.relayLine(p, line, state)
		}
		return n, reads, err
	case state.IsContent():
		return c.relayContent(p)
	}
	n, err = c.relayOther(p, state)
	return n, false, err
}

// relayOther is relayNext where nothing of what comes next has to be read, or not by relay.
func (c *conn) relayOther(p []byte, state dialogue.State) (n int, err error) {
	switch state {
	case dialogue.Reset:
		return c.handMAIL(p), nil
	case dialogue.Handover:
		// A Write beside this Read is about to begin one, for a client that Connect
		// has found to be another's.
		c.out.writing.Lock()
		c.out.writing.Unlock()
		return 0, nil
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

// nextLine returns the client's next line, and whether there is one; got is what has just been
// read into the server's own slice. reads tells that more has to be read first.
func (c *conn) nextLine(got []byte, state dialogue.State) (line string, ok, reads bool, err error) {
	held, inP := got, len(got) > 0
	if !inP {
		held = c.in.ahead.Held()
	}
	if len(held) > 0 {
		line, ok, err = c.in.cutLine(held, inP, c.s.cfg.lineLimit(state.IsSASL()))
	}
	switch {
	case ok:
		if c.client.HasReadBound() {
			c.client.SetReadBound(0)
		}
		return line, true, false, nil
	case err == errClientHello:
		c.hangUp(dialogue.TLSUnasked)
		return "", false, false, nil
	case err == errLineTooLong:
		c.hangUp(dialogue.TooLong)
		return "", false, false, nil
	case inP:
		c.in.ahead.Put(held)
	}
	switch {
	case c.in.err == timed.ErrTooSlow:
		c.hangUp(dialogue.TooSlow)
		return "", false, false, nil
	case c.in.err != nil:
		// An unfinished line is no command.
		return "", false, false, c.in.readError()
	case len(held) > 0 && !c.client.HasReadBound() && c.s.cfg.CommandTimeout > 0:
		c.client.SetReadBound(timed.FromNow(c.s.cfg.CommandTimeout))
	}
	return "", false, true, nil
}

// relayLine takes the client's line to the hook, and to the server what the
// hook passes. It returns 0 if there was nothing for the server.
func (c *conn) relayLine(p []byte, line string, state dialogue.State) int {
	switch state {
	case dialogue.StrayResponse:
		// The server might take it for a command, which the hook wasn't shown.
		c.hangUp(dialogue.SASLGivenUp)
		return 0
	case dialogue.Postponed:
		c.answerPostponed(line)
		return 0
	}
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
