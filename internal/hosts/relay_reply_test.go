package hosts

import (
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// This file is the relay's way from the host's reply to the client.

// Write implements net.Conn.
func (c *relay) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partial += string(p)
	for {
		n := replyIn(c.partial)
		if n == 0 {
			return len(p), nil
		}
		text := c.partial[:n]
		c.partial = c.partial[n:]
		if c.phase == over {
			return 0, io.ErrClosedPipe
		}
		c.take(text)
		c.change()
	}
}

// replyIn returns the length of the reply that text starts with, 0 if it isn't
// complete.
func replyIn(text string) int {
	for at := 0; ; {
		i := strings.IndexByte(text[at:], '\n')
		if i < 0 {
			return 0
		}
		if len(text[at:]) < 4 || text[at+3] != '-' {
			return at + i + 1
		}
		at += i + 1
	}
}

func codeOf(reply string) int {
	return int(reply[0]-'0')*100 + int(reply[1]-'0')*10 + int(reply[2]-'0')
}

// forward gives a reply to the client. Its caller holds mu.
func (c *relay) forward(text string) { io.WriteString(c.Conn, text) }

// take takes one reply. Its caller holds mu.
func (c *relay) take(text string) {
	code := codeOf(text)
	switch c.phase {
	case greeting:
		c.forward(text)
		c.phase = commanding
	case commanding, authenticating:
		// Nobody waits for it.
		if code < 400 {
			c.lose()
			return
		}
		c.forward(text)
		c.phase = over
	case answering:
		c.takeAnswer(code, text)
	case taking:
		c.takeStatus(code, text)
	}
}

// takeAnswer takes the reply to a command.
func (c *relay) takeAnswer(code int, text string) {
	verb := verbOf(c.line)
	switch {
	case c.chunk > 0 && code < 400, c.dead != nil && code < 400:
		c.lose()
	case c.chunk > 0, c.dead != nil:
		c.forward(text)
		c.phase = over
	case c.after != "" && code/100 == 2 && code != 220:
		c.kept, c.phase = false, commanding // the MAIL command is next
	case code == 421 && (c.hidesBusy || verb != "BDAT" || !c.lmtp || !c.last):
		c.forward(text)
		c.phase = over
	case c.after != "":
		c.lose()
	case code == 334 && verb == "AUTH":
		c.forward(text)
		c.phase = authenticating
	case code == 354 && verb == "DATA":
		c.forward(text)
		c.phase, c.end, c.piece = taking, noEnd, lines{}
		c.codes, c.held, c.due = nil, nil, 1
		if c.lmtp {
			c.due = max(1, len(c.view.recipients))
		}
	case code/100 == 3, code == 220 && verb != "XCLIENT":
		c.lose()
	default:
		c.forward(text)
		if m := sizeLine.FindStringSubmatch(text); m != nil {
			c.size, _ = strconv.Atoi(m[1])
		}
		c.settle(verb, code)
	}
}

// sizeLine is what a host tells of its limit (RFC 1870 section 4).
var sizeLine = regexp.MustCompile(`(?m)^250[- ]SIZE ([1-9][0-9]*)`)

// settle moves the view by the last reply to a command.
func (c *relay) settle(verb string, code int) {
	ok := code/100 == 2
	if verb == "BDAT" {
		c.codes = append(c.codes, code)
		if c.due--; c.due > 0 {
			return
		}
		c.phase = commanding
		if c.last || !ok {
			c.finish()
		}
		return
	}
	c.phase = commanding
	switch {
	case verb == "MAIL" && ok:
		c.kept = true
		c.view.active, c.view.sender, c.view.recipients = true, c.mailboxIn(argument(c.line)), nil
	case verb == "RCPT" && ok:
		c.view.recipients = append(c.view.recipients[:len(c.view.recipients):len(c.view.recipients)], c.mailboxIn(argument(c.line)))
	case verb == "RSET" && ok:
		c.kept = false
		c.clear()
	case verb == "XCLIENT" && ok, clears(verb) && verb != "RSET" && (ok || c.view.active && !c.keepsRefused):
		c.clear()
		c.lmtp = c.lmtp || verb == "LHLO" && ok
	case verb == "QUIT" && ok:
		c.phase = over
	}
}

// finish ends a message to which all has been said.
func (c *relay) finish() {
	accepted := len(c.codes) > 0
	for _, code := range c.codes {
		accepted = accepted && code/100 == 2
	}
	for _, text := range c.held {
		c.forward(text)
	}
	c.kept = c.kept && !accepted
	c.held, c.last, c.end, c.phase = nil, false, noEnd, commanding
	c.clear()
}

// takeStatus takes a reply to a message, which may come before its end.
func (c *relay) takeStatus(code int, text string) {
	c.due--
	c.codes = append(c.codes, code)
	ok := code/100 == 2
	switch {
	case code/100 == 3, c.due < 0, c.dead != nil && ok:
		c.lose()
	case c.dead != nil:
		c.forward(text)
		if c.due == 0 {
			c.phase = over
		}
	case code == 421 && (!c.lmtp || c.hidesBusy):
		c.forward(text)
		c.phase = over
	case c.end == sureEnd, c.end == mayBeEnd && !c.lmtp && (ok || c.trustsRefusals), c.end == mayBeEnd && c.lmtp && c.trustsRefusals:
		c.tell(text)
		if c.due == 0 {
			c.finish()
		}
	case !c.lmtp && ok:
		c.lose() // before its end, no message is accepted
	case !c.lmtp:
		c.forward(text)
		c.phase = over
	case ok && c.tellsEarly:
		c.forward(text)
	case ok:
		c.held = append(c.held, text)
	default:
		c.tell(text)
		if !c.readsOn() && !c.any2xx() {
			c.phase = over
		}
	}
}

// tell sends a status, or holds it behind others that are held: they are told apart
// by their order (RFC 2033 section 4.2).
func (c *relay) tell(text string) {
	if c.end == sureEnd {
		for _, held := range c.held {
			c.forward(held)
		}
		c.held = nil
	}
	if len(c.held) > 0 {
		c.held = append(c.held, text)
	} else {
		c.forward(text)
	}
}

func (c *relay) any2xx() bool {
	for _, code := range c.codes {
		if code/100 == 2 {
			return true
		}
	}
	return false
}

// readsOn tells whether a host that has refused before the end reads on, on another
// goroutine: then its Read comes before this Write has returned.
func (c *relay) readsOn() bool {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	for c.reading == 0 && c.phase == taking {
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
			c.mu.Lock()
		case <-t.C:
			c.mu.Lock()
			return c.reading > 0
		}
	}
	return c.reading > 0
}

// end is what a host may make of the content that it has.
type end int

const (
	noEnd end = iota
	mayBeEnd
	sureEnd
)

// lines follows content, line by line.
type lines struct {
	sinceLF, sinceEnd string // what the host has of a line, by what may end it
	stray             bool   // the line before didn't end in a clean CRLF
}

// next returns how much of b may be handed on before the host has to show what it
// makes of it.
func (l *lines) next(b []byte, onlyDot, inBulk bool) (n int, at end) {
	for n < len(b) {
		ch := b[n]
		if ch == '\r' && n+1 == len(b) {
			return n, noEnd // what it means depends on what is behind it
		}
		n++
		octet := string(b[n-1 : n])
		l.sinceLF += octet
		isEnd := ch == '\n' || ch == '\r' && b[n] != '\n'
		if ch != '\r' && ch != '\n' {
			l.sinceEnd += octet
		}
		if !isEnd {
			continue
		}
		lf := l.sinceLF
		dots := isDots(l.sinceEnd) || isDots(lf)
		clean := lf == ".\r\n" && !l.stray
		l.sinceEnd = ""
		if ch == '\n' {
			l.stray = !strings.HasSuffix(lf, "\r\n") || strings.HasSuffix(lf, "\r\r\n") || lf == "\r\n" && l.stray
			l.sinceLF = ""
		}
		switch {
		case clean, onlyDot && lf == ".\r\n":
			return n, sureEnd
		case dots && !onlyDot:
			return n, mayBeEnd
		case !inBulk:
			return n, noEnd
		}
	}
	return n, noEnd
}

// isDots tells whether nothing but dots is left of a line when all is taken away
// that somebody may overlook: blanks, controls, and what a rune takes no ink for.
func isDots(line string) bool {
	line = strings.Map(func(r rune) rune {
		if r != utf8.RuneError && (unicode.IsSpace(r) || !unicode.IsGraphic(r)) {
			return -1
		}
		return r
	}, line)
	return line != "" && strings.Trim(line, ".") == ""
}
