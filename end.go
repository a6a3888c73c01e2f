package smtpproxy

import (
	"io"
	"time"
)

// This file ends connections.

// tooLong answers a line that is longer than allowed, without waiting for its
// end, which may never come.
func (c *conn) tooLong() {
	c.s.mu.Lock()
	enhanced := EnhancedCode{5, 4, 0} // go-smtp's
	if p := c.s.phase; p == phaseSASL || p == phaseOwn || p == phaseSASLGivenUp {
		enhanced = EnhancedCode{5, 5, 6} // RFC 4954 section 4
	}
	c.s.mu.Unlock()
	c.hangUp(reasonTooLong, Reply{Code: 500, Enhanced: enhanced, Lines: []string{"Too long line, closing connection"}})
}

// tooSlow answers a client that has used up its time (RFC 5321 section 4.5.3.2,
// RFC 3463 section 3.5).
func (c *conn) tooSlow() {
	c.unwanted, c.rejected = nil, reasonNone
	c.hangUp(reasonTooSlow, Reply{Code: 421, Enhanced: EnhancedCode{4, 4, 2}, Lines: []string{"Too slow, closing connection"}})
}

// hangUp ends the connection with a reply.
func (c *conn) hangUp(why reason, r Reply) {
	c.s.mu.Lock()
	c.s.lose(why)
	c.s.setPhase(phaseOver)
	c.drop = true
	c.s.mu.Unlock()
	c.respond(r, false)
}

// finish ends the connection after its last reply. A server that sent it
// closes by itself; else the library does. It returns the error for the server: in
// the middle of a message, io.EOF would tell some that it is complete.
func (c *conn) finish() error {
	c.s.mu.Lock()
	drop, verb := c.drop, c.s.pending.verb
	c.drop = false
	c.s.mu.Unlock()
	c.flush()
	if drop {
		c.linger(lingerTime, maxLinger)
	}
	if verb == "DATA" || verb == "BDAT" {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

// linger closes the client's connection, but reads on for a while first.
func (c *conn) linger(d time.Duration, limit int64) {
	defer c.client.Close()
	c.in.Release()
	// The last reply may be on its way, on another goroutine.
	c.client.LimitWrite(closeTime)
	c.writeMu.Lock()
	c.sendHeld()
	c.writeMu.Unlock()
	c.client.Linger(d, limit)
}
