package wire

import "bytes"

// Strict follows message content by the letter of RFC 5321 section 2.3.8: CRLF
// ends a line, and CR and LF appear nowhere else. The zero value is at the start
// of the content.
type Strict struct {
	// Bare tells that a CR or an LF was not part of a CRLF. A CR is only
	// known to be one when the octet behind it is there.
	Bare bool

	at state
}

type state uint8

const (
	lineStart state = iota // behind CRLF
	inLine
	cr         // behind a CR that its LF should follow
	dot        // behind CRLF "."
	dotCR      // behind CRLF "." CR
	afterFinal // behind CRLF "." CRLF
)

// Next returns how many octets of b belong to the content, and whether they end
// it.
func (s *Strict) Next(b []byte) (n int, end bool) {
	for n < len(b) {
		if s.at == inLine {
			// Nothing but CR and LF counts.
			i := bytes.IndexAny(b[n:], "\r\n")
			if i < 0 {
				return len(b), false
			}
			n += i
		}
		s.step(b[n])
		n++
		if s.at == afterFinal {
			return n, true
		}
	}
	return n, false
}

func (s *Strict) step(ch byte) {
	was := s.at
	behindCR := was == cr || was == dotCR
	if behindCR != (ch == '\n') {
		s.Bare = true
	}
	switch {
	case ch == '\n' && was == dotCR:
		s.at = afterFinal
	case ch == '\n' && was == cr:
		s.at = lineStart
	case ch == '\r' && was == dot:
		s.at = dotCR
	case ch == '\r':
		s.at = cr
	case ch == '.' && was == lineStart:
		s.at = dot
	default:
		s.at = inLine
	}
}

// BehindCR tells whether the last octet was a CR: whether it is bare, the next
// one tells.
func (s *Strict) BehindCR() bool { return s.at == cr || s.at == dotCR }
