package hosts

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// This file is the relay's way from a command line to the host.

// bringCommand brings the client's next command that is to pass, and answers those
// before it that are not.
func (c *relay) bringCommand() error {
	line, err := c.readLine()
	if err != nil {
		return err
	}
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return c.say(500, "5.5.2 control character")
	}
	c.mu.Lock()
	v := c.view
	c.mu.Unlock()
	code, pass := c.gate.decide(line, v)
	if code != 0 {
		return c.answer(line, code, fmt.Sprintf("%d.0.0 by the hook", code/100))
	}
	if code, text := c.admit(pass, v); code != 0 {
		return c.answer(pass, code, text)
	}
	c.hand(pass)
	return nil
}

var (
	startsWithVerb = regexp.MustCompile(`^[A-Za-z][!-~]*([ \t]|$)`)
	bdatLine       = regexp.MustCompile(`^(?i:BDAT) ([0-9]+)( LAST)? *$`)
)

// admit tells with which code to refuse what the hook has passed, if it must not
// reach the host, or not now.
func (c *relay) admit(line string, v view) (code int, text string) {
	switch verb := verbOf(line); {
	case !startsWithVerb.MatchString(line):
		return 500, "5.5.2 no verb"
	case strings.HasPrefix(verb, "STARTTLS"):
		return 502, "5.5.1 no TLS"
	case verb == "MAIL" && v.active:
		return 503, "5.5.1 nested MAIL"
	case (verb == "RCPT" || verb == "DATA") && !v.active && !c.passesOutside:
		return 503, "5.5.1 no transaction"
	case verb == "BDAT" && sizeOf(line) < 0:
		return 501, "5.5.4 malformed"
	case verb == "BDAT" && len(v.recipients) == 0:
		return 502, "5.5.1 Missing RCPT TO command." // go-smtp's
	case verb == "BDAT" && c.size > 0 && c.octets+sizeOf(line) > c.size:
		return 552, "5.3.4 Max message size exceeded" // likewise
	}
	return 0, ""
}

// sizeOf returns the size of a chunk, -1 if it can't be told (RFC 3030 section 2).
func sizeOf(line string) int {
	m := bdatLine.FindStringSubmatch(strings.Replace(line, " last", " LAST", 1))
	if m == nil {
		return -1
	}
	size, err := strconv.ParseUint(m[1], 10, 31)
	if err != nil {
		return -1
	}
	return int(size)
}

func isLast(line string) bool {
	return strings.HasSuffix(strings.ToUpper(strings.TrimRight(line, " ")), " LAST")
}

// answer sends the reply to a command that the host doesn't get.
func (c *relay) answer(line string, code int, text string) error {
	verb := verbOf(line)
	copies := 1
	if verb == "BDAT" {
		if err := c.drop(sizeOf(line)); err != nil {
			return err
		}
		copies = c.copies(line)
	}
	c.mu.Lock()
	if verb == "BDAT" || code/100 == 2 && clears(verb) {
		c.clear()
	}
	c.mu.Unlock()
	for range copies {
		if err := c.say(code, text); err != nil {
			return err
		}
	}
	if verb == "BDAT" && sizeOf(line) < 0 {
		c.mu.Lock()
		c.phase = over // where the chunk ends, nobody knows
		c.mu.Unlock()
	}
	return nil
}

// drop drains the chunk of a command that the host doesn't get (RFC 3030 section 2).
func (c *relay) drop(size int) error {
	if c.leavesChunk || size < 0 {
		return nil
	}
	for len(c.in) < size {
		if err := c.more(); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.dead = err
			return err
		}
	}
	c.in = c.in[size:]
	return nil
}

// copies tells how often the reply to a chunk that is refused is sent: for the last
// one once for each recipient (RFC 2033 section 4.3).
func (c *relay) copies(line string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lmtp && isLast(line) {
		return max(1, len(c.view.recipients))
	}
	return 1
}

// clears tells whether a verb ends a transaction.
func clears(verb string) bool {
	return verb == "RSET" || verb == "HELO" || verb == "EHLO" || verb == "LHLO"
}

// clear empties the view. Its caller holds mu.
func (c *relay) clear() {
	c.ids++
	c.octets = 0
	c.view = view{id: fmt.Sprint(c.ids)}
}

// hand gives the host a command, or first the RSET that it needs before.
func (c *relay) hand(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	verb := verbOf(line)
	c.after = ""
	if verb == "MAIL" && c.kept && !c.forgetsKept {
		c.after, line = line, "RSET"
	}
	if verb == "BDAT" {
		c.chunk, c.last = sizeOf(line), isLast(line)
		c.octets += c.chunk
		line = fmt.Sprintf("BDAT %d", c.chunk)
		if c.last {
			line += " LAST"
		}
		c.due = 1
		if c.lmtp && c.last {
			c.due = len(c.view.recipients)
		}
		c.codes = nil
	} else {
		c.last = false
	}
	c.line, c.phase = line, answering
	c.rest = []byte(line + "\r\n")
}

// Paths of which every reading agrees, and the first that looks like one.
var (
	plainPath = regexp.MustCompile(`^(?i:FROM|TO): ?<([^<>@:" ]+@[^<>@:" ]+)?>((?: +[A-Za-z0-9-]+(?:=[^<> ]*)?)*) *$`)
	anyPath   = regexp.MustCompile(`^(?i:FROM|TO): ?<?([^<>@: ]+@[^<>@: ]+?)?>?( .*)?$`)
)

// mailboxIn returns the mailbox in the argument of MAIL or RCPT.
func (c *relay) mailboxIn(argument string) mailbox {
	path := plainPath
	if c.firstPath {
		path = anyPath
	}
	m := path.FindStringSubmatch(argument)
	if m == nil {
		return mailbox{unparsed: argument}
	}
	return mailboxOf(m[1])
}
