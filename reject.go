package smtpproxy

import (
	"io"
)

// This file refuses messages for what is in their content: a bare CR or LF
// (Proxy.RejectBareNewlines), a line that is too long (Proxy.MaxTextLine).

// looksAtContent tells whether a message may be refused for its content.
func (c *config) looksAtContent() bool { return c.RejectBareNewlines || c.MaxTextLine > 0 }

// isRejected tells whether the message is refused for held[:n], the content that the
// server would get next. last tells that nothing is behind it. It is reading's to call.
func (c *conn) isRejected(held []byte, n int, last bool) bool {
	if !c.s.cfg.looksAtContent() {
		return false
	}
	for seen := 0; seen < n; {
		// In a chunk, something may come behind CRLF.CRLF.
		var k int
		k, c.complete = c.strict.Next(held[seen:n])
		seen += k
	}
	if c.strict.BehindCR() && (last || n < len(held) && held[n] != '\n') {
		// A server might see an end of line in it, and of the message.
		c.strict.Bare = true
	}
	if c.strict.Bare && c.s.cfg.RejectBareNewlines {
		c.rejected = reasonBareNewline
	}
	return c.rejected != reasonNone
}

// isTooLong tells whether the message is refused for a line of which the server would
// get piece next, which has no line end but at its own end.
func (c *conn) isTooLong(piece []byte) bool {
	limit := c.s.cfg.MaxTextLine
	if limit <= 0 {
		return false
	}
	c.textLine += len(piece)
	if c.textLine > limit {
		c.rejected = reasonLongLine
		return true
	}
	if piece[len(piece)-1] == '\n' {
		c.textLine = 0
	}
	return false
}

// endsBehindCR tells whether the command that the server would get next ends a
// message behind a CR, with an empty last chunk.
func (c *conn) endsBehindCR() bool {
	if !c.s.cfg.RejectBareNewlines {
		return false
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.pending.last && c.s.phase == phaseReply && c.s.txn.get().octets > 0 && c.strict.BehindCR() {
		c.rejected = reasonBareNewline
	}
	return c.rejected != reasonNone
}

// reject reads and drops the rest of a message that is refused, to its end by
// the letter of RFC 5321, or that of the chunk, and answers it. The server gets
// an error for it that is no end. When a deadline passes meanwhile, the next
// Read goes on.
func (c *conn) reject() error {
	for {
		done, err := c.rejectMore()
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	why := c.rejected
	c.rejected, c.textLine = reasonNone, 0

	c.s.mu.Lock()
	// In LMTP, one for each recipient (RFC 2033 section 4.2), but for those
	// that the server has refused already.
	replies := c.s.due + c.s.txn.get().held
	if c.s.phase == phaseOver {
		replies = 0
	}
	c.s.lose(why)
	c.s.setPhase(phaseOver)
	c.drop = true
	c.kept.Release()
	c.s.mu.Unlock()
	text := "Message has a bare CR or LF"
	if why == reasonLongLine {
		text = "Message has a line that is too long"
	}
	for range replies {
		c.respond(Reply{Code: 550, Enhanced: EnhancedCode{5, 6, 0}, Lines: []string{text}}, false)
	}
	c.finish()
	return io.ErrUnexpectedEOF
}

// rejectMore drops what there is of the rest, and tells whether that was all.
func (c *conn) rejectMore() (done bool, err error) {
	c.s.mu.Lock()
	chunk, left := c.s.pending.verb == "BDAT", c.s.txn.get().chunk
	c.s.mu.Unlock()
	held := c.in.Held()
	switch {
	case chunk && left == 0, !chunk && c.complete, c.dropped >= maxDrain:
		return true, nil
	case len(held) == 0 && c.inErr != nil:
		return false, c.contentError()
	case len(held) == 0:
		c.fill()
		return false, nil
	}
	n := len(held)
	if chunk {
		n = int(min(int64(n), left))
	} else {
		n, c.complete = c.strict.Next(held)
	}
	c.in.Skip(n)
	c.dropped += int64(n)
	if chunk {
		c.s.mu.Lock()
		c.s.txn.change().chunk -= int64(n)
		c.s.mu.Unlock()
	}
	return false, nil
}
