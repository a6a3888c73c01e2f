package smtpproxy

import (
	"bytes"
	"io"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/timed"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file is the way of message content from the client to the server: in pieces
// that no server could read beyond its end, or to nowhere.

// content is a message on its way. A message begins with the zero value. Read uses it
// while content is read; it is set anew when a message begins, while no Read uses it.
type content struct {
	dropped  int32        // octets of a message that is refused
	line     int32        // octets of a line that the server has got, with MaxTextLine
	dialects wire.Content // where some server may see the end
	strict   wire.Strict  // where the end is by the letter of RFC 5321, if looksAtContent
	complete bool         // strict has seen it
}

// contentFromClient reads content from a conn's client, which has to keep a rate.
type contentFromClient conn

// Read implements io.Reader.
func (f *contentFromClient) Read(p []byte) (int, error) {
	return f.client.ReadPaced(p, f.s.cfg.MinDataRate)
}

// fill reads once from the client, in bulk, what nobody wants.
func (c *conn) fill() {
	c.flush()
	c.in.ahead.Reserve(min(buffer.Large, c.s.cfg.readAhead))
	c.in.err = c.in.ahead.Fill((*contentFromClient)(c), c.s.cfg.readAhead)
}

// relayContent gives the server a piece of message content, up to the next
// place where it could see its end. reads tells that there is none yet.
func (c *conn) relayContent(p []byte) (n int, reads bool, err error) {
	held := c.in.ahead.Held()
	n, stop := c.in.content.dialects.Next(held, c.s.cfg.piece(held, len(p)))
	switch {
	case n > 0:
		return c.handContent(p, held, n, stop), false, nil
	case c.in.err != nil:
		return 0, false, c.contentError()
	}
	return 0, true, nil
}

// piece returns how much of held the server may get at once, at most. Some servers
// that refuse a message at one of its lines take those behind it, as far as they have
// read them, for commands: bradfitz/go-smtpd does. So it gets one line, whatever
// ends it.
func (c *config) piece(held []byte, most int) int {
	held = held[:min(len(held), most)]
	if c.BulkContent && c.MaxTextLine <= 0 {
		return len(held)
	}
	if i := bytes.IndexByte(held, '\n'); i >= 0 {
		held = held[:i+1]
	}
	if i := bytes.IndexByte(held, '\r'); i >= 0 && i+1 < len(held) && held[i+1] != '\n' {
		held = held[:i+1]
	}
	return len(held)
}

// handContent gives the server held[:n], unless that must not be.
func (c *conn) handContent(p, held []byte, n int, stop wire.Stop) int {
	if why := c.in.content.refusal(c.s.cfg, held, n); why != dialogue.NoReason {
		c.in.ahead.Skip(n)
		c.refuseContent(why)
		return 0
	}
	c.s.mu.Lock()
	h := c.s.m.Handed(stop)
	if stop != wire.Open {
		c.s.m.SentAhead(bytes.IndexByte(held[n:], '\n') >= 0)
	}
	c.s.moved(h.Cleared)
	c.stirWrite()
	c.s.mu.Unlock()
	switch {
	case h.Withhold:
		return 0
	case h.Ambiguous:
		c.respond(refusalOf(dialogue.AmbiguousEnd.Refusal()))
		return 0
	}
	copy(p, held[:n])
	c.in.ahead.Skip(n)
	c.s.handed(n)
	if h.Tell {
		c.sendKept(true)
	}
	return n
}

// contentError returns the error of a client that is gone, or has to go, in the
// middle of a message. io.EOF would tell some servers that the message is complete.
func (c *conn) contentError() error {
	err := c.in.readError()
	switch err {
	case io.EOF:
		return io.ErrUnexpectedEOF
	case timed.ErrTooSlow:
		c.hangUp(dialogue.TooSlow)
		return io.ErrUnexpectedEOF
	}
	return err
}

// relayChunk gives the server octets of a BDAT chunk.
func (c *conn) relayChunk(p []byte) (n int, err error) {
	c.s.mu.Lock()
	left, last := c.s.m.ChunkLeft()
	binary := c.s.txn.isBinary()
	c.s.mu.Unlock()
	p = p[:min(int64(len(p)), left)]
	switch held := c.in.ahead.Held(); {
	case len(held) > 0:
		n = copy(p, held)
		c.in.ahead.Skip(n)
	case c.in.err != nil:
		return 0, c.contentError()
	default:
		c.flush()
		n, c.in.err = (*contentFromClient)(c).Read(p)
	}
	c.s.handed(n)
	refused := !binary && c.in.content.isBare(c.s.cfg, p[:n], n, last && left == int64(n))
	if refused {
		c.refuseContent(dialogue.BareNewline)
	}
	more := c.in.hasLine()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.m.SentAhead(more)
	if refused {
		c.s.m.Dropped(n)
		return 0, nil
	}
	if n == 0 || !c.s.m.HandedChunk(n) {
		return 0, nil
	}
	return n, nil
}

// beginMessage notes that the content of a message comes next, behind 354 or in chunks.
func (c *conn) beginMessage() {
	if c.in.content == nil {
		c.in.content = new(content)
	}
	*c.in.content = content{}
	c.client.StartPace()
}

// endsBehindCR tells whether the command that the server would get next ends a
// message behind a CR, with an empty last chunk. If so, the message is refused.
func (c *conn) endsBehindCR() bool {
	if !c.s.cfg.RejectBareNewlines || c.in.content == nil || !c.in.content.strict.BehindCR() {
		return false
	}
	c.s.mu.Lock()
	ends := c.s.m.MayEndInChunk()
	c.s.mu.Unlock()
	if ends {
		c.refuseContent(dialogue.BareNewline)
	}
	return ends
}

// dropChunk drops what there is of a chunk whose command the server didn't get, and
// answers the command behind the last octet (RFC 3030 section 2). When a deadline
// passes meanwhile, the next Read goes on.
func (c *conn) dropChunk() error {
	held := c.in.ahead.Held()
	switch {
	case len(held) > 0:
	case c.in.err == nil:
		c.fill()
		return nil
	case c.in.err == timed.ErrTooSlow:
		c.hangUp(dialogue.TooSlow)
		return nil
	default:
		return c.in.readError()
	}
	c.s.mu.Lock()
	left, _ := c.s.m.ChunkLeft()
	n := int(min(int64(len(held)), left))
	c.in.ahead.Skip(n)
	done := c.s.m.Dropped(n)
	c.s.m.SentAhead(c.in.hasLine())
	c.s.mu.Unlock()
	if done {
		a := c.in.late
		c.in.late = nil
		if a.by != ByLibrary {
			c.client.RenewRead()
		}
		c.respond(a)
	}
	return nil
}

// looksAtContent tells whether a message may be refused for its content: for a bare CR
// or LF (Proxy.RejectBareNewlines), or for a line that is too long (Proxy.MaxTextLine).
// It must name each cause of refusal, since only then is content followed by the letter
// of RFC 5321, and with that to the end up to which a refused message is dropped.
func (c *config) looksAtContent() bool { return c.RejectBareNewlines || c.MaxTextLine > 0 }

// refusal returns why a message is refused for held[:n], the content that the server
// would get next, if it is.
func (m *content) refusal(cfg *config, held []byte, n int) dialogue.Reason {
	switch {
	case m.isBare(cfg, held, n, false):
		return dialogue.BareNewline
	case m.isTooLong(cfg, held[:n]):
		return dialogue.LongLine
	}
	return dialogue.NoReason
}

// isBare tells whether a message is refused for a bare CR or LF in held[:n]. last tells
// that nothing is behind it.
func (m *content) isBare(cfg *config, held []byte, n int, last bool) bool {
	if !cfg.looksAtContent() {
		return false
	}
	for seen := 0; seen < n; {
		// In a chunk, something may come behind CRLF.CRLF.
		var k int
		k, m.complete = m.strict.Next(held[seen:n])
		seen += k
	}
	if m.strict.BehindCR() && (last || n < len(held) && held[n] != '\n') {
		// A server might see an end of line in it, and of the message.
		m.strict.Bare = true
	}
	return m.strict.Bare && cfg.RejectBareNewlines
}

// isTooLong tells whether a message is refused for a line of which the server would get
// piece next, which has no line end but at its own end.
func (m *content) isTooLong(cfg *config, piece []byte) bool {
	if cfg.MaxTextLine <= 0 {
		return false
	}
	m.line += int32(len(piece))
	if int(m.line) > cfg.MaxTextLine {
		return true
	}
	if piece[len(piece)-1] == '\n' {
		m.line = 0
	}
	return false
}

// refuseContent begins to refuse a message. The server gets an error for it that is no
// end.
func (c *conn) refuseContent(why dialogue.Reason) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.m.RefusedContent(why)
	c.stirWrite()
}

// dropRest drops what there is of a message that is refused, to its end by the letter
// of RFC 5321, or that of the chunk, and answers it then. When a deadline passes
// meanwhile, the next Read goes on.
func (c *conn) dropRest() error {
	c.s.mu.Lock()
	left, inChunk := c.s.m.RestOfChunk()
	c.s.mu.Unlock()
	m, held := c.in.content, c.in.ahead.Held()
	switch {
	case inChunk && left == 0, !inChunk && m.complete, m.dropped >= maxDrain:
		c.s.mu.Lock()
		message := c.s.m.IsMessage()
		r, copies := c.s.m.DroppedRest()
		c.s.moved(false)
		c.s.mu.Unlock()
		c.respond(&answer{reply: replyOf(r), by: ByLibrary, copies: copies, message: message})
		return c.finish()
	case len(held) == 0 && c.in.err != nil:
		return c.contentError()
	case len(held) == 0:
		c.fill()
		return nil
	}
	n := len(held)
	if inChunk {
		n = int(min(int64(n), left))
	} else {
		n, m.complete = m.strict.Next(held)
	}
	c.in.ahead.Skip(n)
	m.dropped += int32(n)
	if inChunk {
		c.s.mu.Lock()
		c.s.m.Dropped(n)
		c.s.mu.Unlock()
	}
	return nil
}
