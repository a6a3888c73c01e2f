// Package wire holds the byte machines of the relay: where message content may
// end, and where a reply does. They do no I/O and know no dialogue.
package wire

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

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
// LF, CR, CR CR LF) and in what they overlook beside the dot (NULs, spaces, what
// Unicode has of both); and some take off the dot that a client puts before
// another (RFC 5321 section 4.5.2) before they look. So a line counts, for a
// Maybe, if only dots are left when the blanks in it are taken away (firstRune).
// It may end at each CR and LF behind a dot, where CRLF counts as one. It is an
// End if it is exactly CRLF "." CRLF, and the line before ended in a clean CRLF
// too.
type Content struct {
	// A rune that tail has the beginning of doesn't count in line yet.
	line lineState
	// tail holds the last octets, the newest last; have counts them. They
	// tell a clean line end from a stray one.
	tail [8]byte
	have uint8
}

type lineState uint8

const (
	blankLine lineState = iota // start of a line, nothing but blanks so far
	dotLine                    // dots, at least one, and blanks
	textLine                   // anything else
)

// Next returns how many octets of b, at most limit, may be handed on before the
// server has to show whether it saw the end, and why there. With Open, that is
// all of them, but for a CR whose LF may still come: what it means depends on
// what is behind it. What may be handed on counts as seen.
func (c *Content) Next(b []byte, limit int) (n int, stop Stop) {
	limit = min(limit, len(b))
	n = c.finishRune(b[:limit])
	for n < limit {
		if c.line == textLine {
			// Only a line with a dot can matter: look for dots alone.
			n = c.skipText(b[:limit], n)
			continue
		}
		switch ch := b[n]; {
		case ch == '.':
			c.line = dotLine
			n++
		case ch != '\r' && ch != '\n':
			size, text := firstRune(b[n:limit])
			if text {
				c.line = textLine
			}
			n += size
		case c.line == blankLine:
			n++
		case ch == '\r' && n+1 == len(b):
			c.see(b[:n])
			return n, Open
		case ch == '\r' && b[n+1] == '\n':
			n++ // one line end, not two
		default:
			n++
			c.see(b[:n])
			// Behind a CR or LF alone, the line goes on to some servers. To
			// others a new one begins, which can end only where this one can.
			if bytes.HasSuffix(c.tail[:], []byte("\r\n")) {
				c.line = blankLine
			}
			if c.clean() {
				return n, End
			}
			return n, Maybe
		}
	}
	c.see(b[:n])
	return n, Open
}

// skipText returns how far b can be skipped from b[n] on, where a line with
// other text than dots is under way, and sets the state for what follows.
func (c *Content) skipText(b []byte, n int) int {
	for {
		i := bytes.IndexByte(b[n:], '.')
		end := n + i
		if i < 0 {
			end = len(b)
		}
		// Is there text in the line that b[end] belongs to? To look for its
		// last octets is enough in most languages.
	line:
		for at := end - 1; at >= n; at-- {
			switch ch := b[at]; {
			case '!' <= ch && ch <= '~' || beginsLetters(ch):
				break line
			case !utf8.RuneStart(ch):
				// What it is depends on the octets before.
			case ch == '\r' || ch == '\n':
				c.line = blankLine
				return at + 1
			case ch < utf8.RuneSelf: // blank
			case at+1 < len(b) && utf8.RuneStart(b[at+1]):
				break line // no UTF-8, but KOI8-R, say
			default:
				if _, text := firstRune(b[at:]); text {
					break line
				}
			}
		}
		if i < 0 {
			return end // still in the same line
		}
		n = end + 1
	}
}

// beginsLetters tells whether ch begins Cyrillic or Han letters and signs alone.
// Where they make up the text, it need not be looked up in the tables of Unicode.
func beginsLetters(ch byte) bool {
	return 0xd0 <= ch && ch <= 0xd3 || 0xe4 <= ch && ch <= 0xe9
}

// finishRune takes the rest of a rune whose beginning was handed on, and returns
// how many octets of b that is.
func (c *Content) finishRune(b []byte) int {
	if c.line == textLine {
		return 0
	}
	for k := 1; k < utf8.UTFMax; k++ {
		begun := c.tail[len(c.tail)-k:]
		if !utf8.RuneStart(begun[0]) {
			continue
		}
		if utf8.FullRune(begun) {
			break
		}
		var all [utf8.UTFMax]byte
		copy(all[:], begun)
		size, text := firstRune(all[:k+copy(all[k:], b)])
		if text {
			c.line = textLine
		}
		return max(0, size-k)
	}
	return 0
}

// firstRune returns how many octets the rune has that b begins with, and whether
// it is text, not a blank. Of one that isn't all there, that isn't known yet.
//
// A blank is what some server trims from a line. In Unicode, whose octets RFC
// 6152 section 3 lets in, these are what unicode.IsSpace takes and what
// unicode.IsGraphic doesn't; in other words, all but what prints. A server that
// takes each octet for a rune, as in ISO 8859-1, also trims 0x85, 0xa0 and 0xad, but
// where they are part of a rune in UTF-8 its first octet is text to that server.
func firstRune(b []byte) (size int, text bool) {
	r, size := utf8.DecodeRune(b)
	switch ch := b[0]; {
	case size > 1:
		return size, unicode.IsPrint(r)
	case ch <= 0xa0, ch == 0xad: // ASCII, or no UTF-8
		return 1, '!' <= ch && ch <= '~'
	case utf8.FullRune(b):
		return 1, true // no UTF-8
	}
	return len(b), false
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
