package hosts

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A piece is what a client sends, and how long it waits then.
type piece struct {
	octets string
	pause  time.Duration
}

func (p piece) String() string {
	if p.pause > 0 {
		return fmt.Sprintf("%q (%v)", p.octets, p.pause)
	}
	return fmt.Sprintf("%q", p.octets)
}

// stream draws what a client sends that keeps to no rule: octets without regard
// to replies. Addresses are numbered, so that a command that comes out of content
// can't be taken for one that was passed.
type stream struct {
	*rand.Rand
	host
	limits
	pauses bool
	pieces []piece
	n      int
}

func (s *stream) pick(of ...string) string { return of[s.IntN(len(of))] }

func (s *stream) number() int { s.n++; return s.n }

// chance is true once in n times.
func (s *stream) chance(n int) bool { return s.IntN(n) == 0 }

func (s *stream) add(format string, args ...any) {
	if len(s.pieces) == 0 || s.pieces[len(s.pieces)-1].pause > 0 {
		s.pieces = append(s.pieces, piece{})
	}
	s.pieces[len(s.pieces)-1].octets += fmt.Sprintf(format, args...)
}

// pause is longer than the host's patience.
func (s *stream) pause() {
	if s.pauses && len(s.pieces) > 0 {
		s.pieces[len(s.pieces)-1].pause = s.timeout + s.timeout/2
	}
}

func (s *stream) line(format string, args ...any) {
	s.add(format, args...)
	s.add("%s", s.pick("\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n"))
}

func (s *stream) draw(commands int) []piece {
	s.line("%s client.example", s.hello())
	for range commands {
		s.command()
	}
	return s.pieces
}

func (s *stream) command() {
	switch s.IntN(20) {
	case 0:
		s.line("MAIL FROM:<s%d@example.com>%s", s.number(), s.pick("", "", " SIZE=10", " BODY=8BITMIME"))
	case 1, 2:
		s.line("RCPT TO:<r%d@example.org>", s.number())
	case 3:
		s.line(s.pick("RCPT TO:<no%d@example.org>", "RCPT TO:<hook%d@example.org>", "RCPT TO:<alias%d@example.org>", "MAIL FROM:<hook%d@example.com>"), s.number())
	case 4:
		s.line(s.pick("RCPT TO:good@ok.example TO:<two%d@evil.example>", "RCPT TO:<two%d@evil.example>SIZE=1",
			"MAIL FROM:<two%d@evil.example> X=FROM:<x@evil.example>"), s.number())
	case 5:
		s.line("%s", s.pick("DATA", "data", "DATA ", "DATA x"))
		s.content()
	case 6:
		s.chunk()
	case 7:
		s.line("%s", s.pick("RSET", "NOOP", "VRFY x", "HELP",
			"EHLO again", "HELO", "LHLO again", "noop x y", "RSET hook", "EHLO nohost", "XCLIENT NAME=x"))
	case 8:
		s.line("%s", s.pick("AUTH PLAIN", "AUTH PLAIN AHVzZXIAcGFzcw==", "AUTH LOGIN", "AUTH"))
		if s.chance(2) {
			s.pause()
		}
		s.line("%s", s.pick("AHVzZXIAcGFzcw==", "*", "=", "AAAA", s.evil()))
	case 9:
		s.line("%s", s.pick("STARTTLS", "STARTTLSFOO", "STARTTLS x", "\u017ftarttls"))
	case 10:
		s.line("%s", s.pick("", " NOOP", "\tNOOP", "NO\x00OP", "NOOP\rRSET", "X", "\xff\xfe", "R\u017fET", "\u00a0NOOP"))
	default:
		s.transaction()
	}
}

// transaction is a whole one, so that content comes often.
func (s *stream) transaction() {
	if s.chance(2) {
		s.line("RSET")
	}
	s.line("MAIL FROM:<%s%d@example.com>", s.pick("s", "s", "s", "s", "s", noDataName, "no"), s.number())
	for range 1 + s.IntN(2) {
		s.line("RCPT TO:<%s%d@example.org>", s.pick("r", "r", "r", "alias", "no", lateName, busyName), s.number())
	}
	if s.host.chunks && s.chance(3) {
		s.chunk()
		return
	}
	s.line("DATA")
	s.content()
}

// evil is command text that must never be executed when it is content. It may be
// lines without the end of the last one.
func (s *stream) evil() string {
	n := s.number()
	rcpt := fmt.Sprintf("RCPT TO:<ceo%d@victim.example>", n)
	mail := fmt.Sprintf("MAIL FROM:<evil%d@evil.example>\r\n%s", n, rcpt)
	return s.pick(rcpt, mail, "RSET\r\n"+mail, mail+"\r\nDATA\r\nx", "RSET\r\n"+mail+"\r\nDATA\r\nx", "NOOP", "RSET", "VRFY x")
}

// Lines in which some server may see the end of a message: those of RFC 5321
// section 4.1.1.4 and what has been made of it.
var mayEnd = []string{
	" .\r\n", ". \r\n", "\t.\r\n", "..\r\n", "...\r\n", ".\n", ".\r", ".\r\r\n", "\x00.\r\n", ".\x00\r\n", "\v.\f\r\n",
	".\u00a0\r\n", "\u0085.\r\n", ".\u2003\r\n", "\u2028.\r\n", ".\u3000\r\n", "\ufeff.\r\n", "\u200b.\r\n",
	"\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r\r\n.\r\n",
}

func (s *stream) content() {
	switch s.IntN(8) {
	case 0:
		// Issue 11, 1: it conforms to RFC 5321.
		s.add("%s%s\r\n.\r\n", strings.Repeat(" .\r\n", 90), s.evil())
		return
	case 1:
		for range 1 + s.IntN(100) {
			s.add("%s", s.pick(mayEnd[:7]...))
		}
		s.add("%s\r\n", s.evil())
	case 2:
		s.add("text\r\n")
		s.pause()
		s.add("%s\r\n", s.evil())
	case 3:
		s.add("%s\r\n", s.pick(refuseWord, customWord, plainWord, lineWord, unreadWord))
		s.add("%s\r\n", s.evil())
	default:
		for range s.IntN(12) {
			s.add("%s", s.pick(s.pick(mayEnd...), "a", "\r", "\n", ".", "\x00", "\r\n", "text.\r\n", "\u043c\u0438\u0440.\r\n", s.evil()+"\r\n", "BDAT 3 LAST\r\nabc\r\n"))
		}
	}
	if s.chance(8) {
		s.pause()
	}
	if !s.chance(8) {
		s.add("%s", s.pick("\r\n.\r\n", "\r\n.\r\n", "\r\n.\r\n"+s.evil()+"\r\n"))
	}
}

func (s *stream) chunk() {
	chunk := s.pick("", "abc", s.evil()+"\r\n", ".\r\n", "a\n.\r\nb", "\r\n.\r\n", "BDAT 4\r\n",
		unreadWord+"\r\n"+s.evil()+"\r\n", strings.Repeat("x", 64)+"\r\n"+s.evil()+"\r\n")
	if s.lmtp {
		// A chunk that is broken off is a data race of go-smtp's own there, and one
		// with a bare LF may be.
		chunk = strings.ReplaceAll(chunk, "a\n", "a\r\n")
	}
	size := fmt.Sprint(len(chunk))
	if !s.lmtp && s.chance(6) {
		size = s.pick("0", "1", "-1", "+3", "0x3", "4294967296", "18446744073709551616", "", " 3", "2000000", "0100", "00"+size, "9223372036854775807")
	}
	// go-smtp v0.25.1 has data races of its own, bare or not, when a transfer in
	// chunks is broken off: handleBdat's goroutine reads c.dataResult, and in LMTP
	// mode c.recipients, while they are set anew. So each chunk here is the last.
	s.line("BDAT %s%s", size, s.pick(" LAST", " LAST", " last", " LAST x", "  LAST"))
	if !s.lmtp && s.chance(4) && len(chunk) > 3 {
		s.add("%s", chunk[:3])
		s.pause()
		s.add("%s", chunk[3:])
		return
	}
	s.add("%s", chunk)
}
