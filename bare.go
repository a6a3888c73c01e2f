package smtpproxy

import (
	"io"
)

// This file refuses messages with a bare CR or LF (Proxy.RejectBareNewlines).

// hasBareNewline tells whether the message has a bare CR or LF by held[:n], the
// content that the server would get next. last tells that nothing is behind it.
// It is reading's to call.
func (c *conn) hasBareNewline(held []byte, n int, last bool) bool {
	if !c.s.cfg.RejectBareNewlines {
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
	c.rejected = c.strict.Bare
	return c.rejected
}

// endsBehindCR tells whether the command that the server would get next ends a
// message behind a CR, with an empty last chunk.
func (c *conn) endsBehindCR(chunk int64) bool {
	if !c.s.cfg.RejectBareNewlines || chunk > 0 {
		return false
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.rejected = c.s.pending.last && c.s.txn.get().octets > 0 && c.strict.BehindCR()
	return c.rejected
}

// reject reads and drops the rest of a message that is refused, to its end by
// the letter of RFC 5321, or that of the chunk, and answers it. The server gets
// an error for it that is no end. When a deadline passes meanwhile, the next
// Read goes on.
func (c *conn) reject() error {
	c.s.mu.Lock()
	chunk := c.s.phase == phaseReply
	left := c.chunk
	c.s.mu.Unlock()
	if chunk {
		c.complete = left == 0
	}
	for !c.complete && c.dropped < maxDrain {
		held := c.in.held()
		n := 0
		switch {
		case len(held) == 0 && c.inErr != nil:
			return c.contentError()
		case len(held) == 0:
			c.fill()
			continue
		case chunk:
			n = int(min(int64(len(held)), left))
			left -= int64(n)
			c.complete = left == 0
		default:
			n, c.complete = c.strict.Next(held)
		}
		c.in.skip(n)
		c.dropped += int64(n)
		c.s.mu.Lock()
		c.chunk = left
		c.s.mu.Unlock()
	}
	c.rejected = false
	c.s.logLostStep("bare CR or LF in a message")

	c.s.mu.Lock()
	replies := 0
	if c.s.phase == phaseContent || c.s.phase == phaseReply {
		replies = c.s.due // in LMTP, one for each recipient (RFC 2033 section 4.2)
	}
	c.s.advance(&event{kind: lost})
	c.flowing, c.chunk, c.drop = false, 0, true
	c.s.mu.Unlock()
	for range replies {
		c.respond(Reply{Code: 550, Enhanced: EnhancedCode{5, 6, 0}, Lines: []string{"Message has a bare CR or LF"}}, false)
	}
	c.finish()
	return io.ErrUnexpectedEOF
}
