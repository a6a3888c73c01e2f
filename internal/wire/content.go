// Package wire holds the byte machines of the relay: where message content may
// end, and where a reply does. They do no I/O and know no dialogue.
package wire

import "bytes"

// Stop tells why a piece of content ends where it does.
type Stop uint8

const (
	// Open: the octets given are all content, as far as they go.
	Open Stop = iota

	// Maybe: some server could see the end of the message here. Whether
	// this one does, only what it does next can tell.
	Maybe

	// End: every server sees the end of the message here.
	End
)

// Content finds the places in message content, after DATA, where a server may
// see its end (RFC 5321 section 4.1.1.4 and its misreadings). The zero value
// is at the start of the content.
//
// The end is a line of one dot. But servers differ in what ends a line (CRLF,
// LF, CR, CR CR LF) and in what they overlook beside the dot (NULs, spaces).
// So a line counts, for a Maybe, if nothing stands in it but one dot and octets
// up to 0x20. It may end at each CR and LF behind that dot, where CRLF counts
// as one. It is an End if it is exactly CRLF "." CRLF, and the line before
// ended in a clean CRLF too.
type Content struct {
	line lineState
	cr   bool // in dotLine: a CR has come after the dot
	// tail holds the last octets, the newest last; have counts them. They
	// tell a clean line end from a stray one.
	tail [8]byte
	have uint8
}

type lineState uint8

const (
	blankLine lineState = iota // start of a line, nothing but blanks so far
	dotLine                    // blanks and one dot
	textLine                   // anything else
)

// Next returns how many octets of b, at most limit, may be handed on before the
// server has to show whether it saw the end, and why there. With Open, that is
// all of them, but for a CR whose LF may still come: what it means depends on
// what is behind it. What may be handed on counts as seen.
func (c *Content) Next(b []byte, limit int) (n int, stop Stop) {
	limit = min(limit, len(b))
	for n < limit {
		if c.line == textLine {
			// Only a line with a dot can matter: look for dots alone.
			n = c.skipText(b[:limit], n)
			continue
		}
		ch := b[n]
		if ch == '\r' && c.line == dotLine {
			if n+1 == len(b) {
				break
			}
			if b[n+1] == '\n' {
				n++
				continue // one line end, not two
			}
		}
		n++
		switch {
		case ch == '\n' || ch == '\r':
			if c.line != dotLine {
				c.line = blankLine
				continue
			}
			c.see(b[:n])
			if ch == '\r' {
				// To most servers, the line goes on; to some, a new
				// one begins.
				c.cr = true
				return n, Maybe
			}
			c.line, c.cr = blankLine, false
			if c.clean() {
				return n, End
			}
			return n, Maybe
		case ch == '.' && (c.line == blankLine || c.cr):
			c.line, c.cr = dotLine, false
		case ch > ' ':
			c.line, c.cr = textLine, false
		}
	}
	c.see(b[:n])
	return n, Open
}

// skipText returns how far b can be skipped from b[n] on, where a line with
// other text than dots is under way, and sets the state for what follows.
func (c *Content) skipText(b []byte, n int) int {
	for at := n; ; {
		i := bytes.IndexByte(b[at:], '.')
		end := len(b)
		if i >= 0 {
			end = at + i
		}
		// The line that b[end] belongs to: blank so far, or not?
		start := end
		for start > at && b[start-1] <= ' ' && b[start-1] != '\r' && b[start-1] != '\n' {
			start--
		}
		switch {
		case start > at && (b[start-1] == '\r' || b[start-1] == '\n'):
			c.line = blankLine
			return end
		case i < 0:
			return end // still in the same kind of line
		}
		at = end + 1
	}
}

// see keeps the last octets of what is handed on.
func (c *Content) see(b []byte) {
	if k := len(b); k < len(c.tail) {
		copy(c.tail[:], c.tail[k:])
		copy(c.tail[len(c.tail)-k:], b)
	} else {
		copy(c.tail[:], b[k-len(c.tail):])
	}
	c.have = uint8(min(int(c.have)+len(b), len(c.tail)))
}

// clean tells whether the content ends in CRLF "." CRLF with no stray CR or LF
// about it. The start of the content counts as a clean line end: the CRLF of
// the DATA command is before it.
func (c *Content) clean() bool {
	t := c.tail[len(c.tail)-int(c.have):]
	t, ok := bytes.CutSuffix(t, []byte(".\r\n"))
	if !ok {
		return false
	}
	if len(t) == 0 {
		return true // an empty message
	}
	t, ok = bytes.CutSuffix(t, []byte("\r\n"))
	if !ok {
		return false
	}
	if len(t) == 0 {
		return true
	}
	switch t[len(t)-1] {
	case '\r':
		return false
	case '\n':
		// An empty line before the dot: its own beginning has to be clean.
		t, ok = bytes.CutSuffix(t, []byte("\r\n"))
		return ok && !bytes.HasSuffix(t, []byte("\r"))
	}
	return true
}
