package hosts

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// account is a client that keeps an account of what it was told: what is open, who
// was accepted, and what it has been promised. It believes replies and nothing else.
type account struct {
	*dialogue
	quirks   []quirk
	open     bool // MAIL was accepted, and nothing has ended it
	sender   string
	to       []string
	promised []message // by a 2xx to the message, in order
	perhaps  []message // the connection was closed without a word about them
	partly   []message // likewise, but some of their statuses had come
	told     []string  // who it was said to be
}

// positive and negative tell what a code is.
func positive(code int) bool { return code/100 == 2 }
func negative(code int) bool { return code >= 400 }

// mail opens a transaction, if it is accepted.
func (a *account) mail(path, params string) int {
	code := a.ask("MAIL FROM:<%s>%s", path, params)
	a.mailed(path, code)
	return code
}

func (a *account) mailed(path string, code int) {
	if positive(code) {
		a.open, a.sender, a.to = true, path, nil
	}
}

// rcpt adds a recipient, if it is accepted.
func (a *account) rcpt(path string) int {
	code := a.ask("RCPT TO:<%s>", path)
	a.rcpted(path, code)
	return code
}

func (a *account) rcpted(path string, code int) {
	switch {
	case !positive(code):
	case !a.open:
		a.fail("a recipient was accepted outside of a transaction")
	default:
		// The hook has changed it.
		a.to = append(a.to, strings.Replace(path, aliasWord, "a", 1))
	}
}

// anew says what clears a transaction, if it is accepted.
func (a *account) anew(line string) int {
	code := a.ask("%s", line)
	if positive(code) {
		a.open, a.to = false, nil
	}
	return code
}

func (a *account) rset() int { return a.anew("RSET") }

func (a *account) greet() int { return a.anew(a.hello() + " client.example") }

// text returns a message as a client with manners has it: with CRLF for line ends,
// not yet dot-stuffed. What it says may be a command, with an address of its own.
func (a *account) text(words ...string) string {
	var b strings.Builder
	for range a.IntN(4) {
		b.WriteString(a.pick("", ".", "..", ".dot", "text.", " .", ". ", ".\u00a0", "\u2003.", "\u043c\u0438\u0440.",
			"RSET", "NOOP", "BDAT 3 LAST", strings.Repeat("x", a.IntN(200))))
		b.WriteString("\r\n")
		if a.chance(3) {
			b.WriteString(a.evil())
		}
	}
	for _, word := range words {
		b.WriteString(word + "\r\n")
		if a.chance(2) {
			b.WriteString(a.evil())
		}
	}
	return b.String()
}

// evil is a piece of a body that would deliver a message, if it were commands.
func (a *account) evil() string {
	return fmt.Sprintf("MAIL FROM:<%s%d@evil.example>\r\nRCPT TO:<%[1]s%[2]d@victim.example>\r\nDATA\r\nx\r\n", bodyName, a.number())
}

// bodyName begins the addresses that only a body has.
const bodyName = "body"

// smallText is one that nobody has a reason to refuse. Where a host has told all
// statuses before, a line in which some server may see the end is one.
func (a *account) smallText() string {
	if a.host.early {
		return fmt.Sprintf("m%d\r\n", a.number())
	}
	return a.pick("", "a\r\n", ".\r\n", " .\r\n", "\u043c\u0438\u0440.\r\n", "RSET\r\n") + fmt.Sprintf("m%d\r\n", a.number())
}

// stuffed is RFC 5321 section 4.5.2.
func stuffed(text string) string {
	text = strings.ReplaceAll(text, "\r\n.", "\r\n..")
	if strings.HasPrefix(text, ".") {
		text = "." + text
	}
	return text
}

// data sends a message with DATA, and reports whether it was accepted, for one
// recipient at least.
func (a *account) data(text string) bool {
	return a.ask("DATA") == 354 && a.content(text)
}

// content sends a message that DATA has asked for.
func (a *account) content(text string) bool {
	due := a.due()
	var codes []int
	if a.lmtp && a.bubble {
		// Before the end, nobody can promise anything.
		a.say(stuffed(text))
		codes = a.beforeTheEnd(due)
		a.say(".\r\n")
	} else {
		a.say(stuffed(text) + ".\r\n")
	}
	for len(codes) < due && !a.done() {
		codes = append(codes, a.reply())
	}
	return a.ended(text, codes)
}

// due is how many replies come to the end of a message: in LMTP one for each
// recipient (RFC 2033 section 4.2).
func (a *account) due() int {
	if a.lmtp {
		return len(a.to)
	}
	return 1
}

// beforeTheEnd reads the replies that come before the end of a message.
func (a *account) beforeTheEnd(due int) (codes []int) {
	for len(codes) < due && !a.done() {
		a.client.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := a.r.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		code := a.reply()
		if code != 0 && !negative(code) {
			a.fail("got %d for a message before its end was sent", code)
		}
		codes = append(codes, code)
	}
	return codes
}

// ended enters the replies to a message into the account.
func (a *account) ended(text string, codes []int) bool {
	m := message{from: a.sender, to: a.to, content: plainEnds(text)}
	unsure := m
	for i, code := range codes {
		told := a.to
		if a.lmtp && i < len(a.to) {
			told = a.to[i : i+1]
		}
		switch {
		case positive(code):
			m.told = append(m.told, told...)
		case code == 0 || code == 421 && !a.lmtp:
			unsure.told = append(unsure.told, told...)
		}
	}
	a.open, a.to = false, nil
	switch {
	case a.lmtp && len(unsure.told) > 0 && codes[0] != 0 && codes[len(codes)-1] == 0:
		a.partly = append(a.partly, unsure)
	case len(unsure.told) > 0:
		unsure.told = append(unsure.told, m.told...)
		a.perhaps = append(a.perhaps, unsure)
	case len(m.told) > 0:
		a.promised = append(a.promised, m)
	}
	a.quiet()
	return len(m.told) > 0
}

// chunk sends a message in one chunk (RFC 3030 section 2), the last or only one.
func (a *account) chunk(text string) bool {
	a.say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text))
	codes := []int{a.reply()}
	if a.lmtp {
		// go-smtp answers once what it refuses for all.
		codes = append(codes, a.statuses(codes[0])...)
	}
	return a.ended(text, codes)
}

// statuses reads what comes behind the first status of an LMTP chunk.
func (a *account) statuses(first int) (codes []int) {
	for len(codes)+1 < len(a.to) && !a.done() {
		if negative(first) && a.bubble {
			a.client.SetReadDeadline(time.Now().Add(2 * time.Second))
			if _, err := a.r.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
		codes = append(codes, a.reply())
	}
	return codes
}

// wellFormed is a transaction that nobody has a reason to refuse, pipelined or not
// (RFC 2920 section 3.1). It has to be delivered.
func (a *account) wellFormed() {
	a.quiet()
	if a.done() {
		return
	}
	if a.host.chunks && a.chance(3) {
		a.wellFormedChunk()
		return
	}
	from := fmt.Sprintf("s%d@example.com", a.number())
	var to []string
	for range 1 + a.IntN(3) {
		to = append(to, fmt.Sprintf("%s%d@example.org", a.pick("r", "r", aliasWord), a.number()))
	}
	got := map[string]int{}
	if a.chance(2) {
		got["MAIL"] = a.mail(from, "")
		for _, path := range to {
			got["RCPT"] = max(got["RCPT"], a.rcpt(path))
		}
		got["DATA"] = a.ask("DATA")
	} else {
		var group strings.Builder
		fmt.Fprintf(&group, "MAIL FROM:<%s>\r\n", from)
		for _, path := range to {
			fmt.Fprintf(&group, "RCPT TO:<%s>\r\n", path)
		}
		a.say(group.String() + "DATA\r\n")
		got["MAIL"] = a.reply()
		a.mailed(from, got["MAIL"])
		for _, path := range to {
			code := a.reply()
			a.rcpted(path, code)
			got["RCPT"] = max(got["RCPT"], code)
		}
		got["DATA"] = a.reply()
	}
	if got["MAIL"] != 250 || got["RCPT"] != 250 || got["DATA"] != 354 {
		a.fail("a transaction that nobody has a reason to refuse got %v", got)
		return
	}
	if !a.content(a.smallText()) {
		a.fail("a message that nobody has a reason to refuse got %d", a.last)
	}
}

// wellFormedChunk is wellFormed with BDAT.
func (a *account) wellFormedChunk() {
	mail := a.mail(fmt.Sprintf("s%d@example.com", a.number()), "")
	rcpt := a.rcpt(fmt.Sprintf("r%d@example.org", a.number()))
	if mail != 250 || rcpt != 250 {
		a.fail("a transaction that nobody has a reason to refuse got %d and %d", mail, rcpt)
		return
	}
	if !a.chunk(a.smallText()) {
		a.fail("a chunk that nobody has a reason to refuse got %d", a.last)
	}
}

// settle holds the account against what was delivered.
func (a *account) settle(events []event) string {
	rest, perhaps := a.promised, a.perhaps
	for _, e := range events {
		if e.what != delivered {
			continue
		}
		m := e.msg
		switch {
		case len(a.partly) > 0 && m.from == a.partly[0].from:
			return fmt.Sprintf("delivered, but not all statuses were told: %v", m)
		case len(rest) > 0 && same(m, rest[0]):
			rest = rest[1:]
		case len(perhaps) > 0 && m.from == perhaps[0].from && m.content == perhaps[0].content:
			perhaps = perhaps[1:]
		default:
			return fmt.Sprintf("delivered, but not promised: %v\npromised are %v", m, rest)
		}
	}
	if len(rest) > 0 {
		return fmt.Sprintf("promised, but not delivered: %v", rest)
	}
	// Who closes says so before (RFC 5321 section 3.8), but for a host that gives
	// up without a word.
	if a.over && !negative(a.last) && a.last != 221 && !has(events, silent) {
		return fmt.Sprintf("the connection was closed after a %d", a.last)
	}
	return ""
}

// same compares a message that was delivered with one that was promised.
func same(m, promised message) bool {
	return m.from == promised.from && fmt.Sprint(m.told) == fmt.Sprint(promised.told) && m.content == promised.content
}
