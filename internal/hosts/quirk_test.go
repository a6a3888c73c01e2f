package hosts

import (
	"fmt"
	"slices"
	"strings"
)

// A quirk is something that is refused, by hook, library or host, or that only
// happens rarely. What comes behind it on the same connection has to fare well.
type quirk struct {
	name string
	// on tells on which hosts it can happen; nil is on all.
	on   func(h host) bool
	play func(a *account)
	// ends tells where the connection is always closed by it, and why.
	ends map[string]string
}

func onChunks(h host) bool   { return h.chunks }
func onLMTP(h host) bool     { return h.lmtp }
func onBradfitz(h host) bool { return h.name == bradfitzHost.name }
func onChrj(h host) bool     { return h.name == chrjHost.name }
func onMhale(h host) bool    { return h.name == mhaleHost.name }
func onAUTH(h host) bool     { return h.auth }
func notEarly(h host) bool   { return !h.early }

// begin opens a transaction with one recipient, or more.
func (a *account) begin(suffix string, recipients int) {
	a.mail(fmt.Sprintf("s%d%s@example.com", a.number(), suffix), "")
	for range recipients {
		a.rcpt(fmt.Sprintf("r%d@example.org", a.number()))
	}
}

// finish sends a message that nobody has a reason to refuse in an open transaction.
func (a *account) finish() {
	if a.done() || !a.open {
		return
	}
	if code := a.rcpt(fmt.Sprintf("r%d@example.org", a.number())); !positive(code) {
		a.fail("another recipient of an open transaction got %d", code)
	}
	if !a.data(a.smallText()) {
		a.fail("the message of an open transaction got %d", a.last)
	}
}

// refuses fails unless a code is a refusal.
func (a *account) refuses(code int, of string) {
	if code != 0 && !negative(code) {
		a.fail("%s got %d, not a refusal", of, code)
	}
}

func allQuirks() []quirk { return slices.Concat(quirks, chunkQuirks) }

var quirks = []quirk{
	{name: "MAIL refused by the hook", play: func(a *account) {
		a.refuses(a.mail(fmt.Sprintf("hook%d@example.com", a.number()), ""), "MAIL")
	}},
	{name: "MAIL refused by the host", play: func(a *account) {
		a.refuses(a.ask("%s", a.badMail(fmt.Sprintf("x%d@example.com", a.number()))), "MAIL")
	}, ends: map[string]string{bradfitzHost.name: "it closes the connection after a refused MAIL"}},
	{name: "MAIL in a transaction", play: func(a *account) {
		a.begin("", 1)
		a.refuses(a.mail(fmt.Sprintf("s%d@example.com", a.number()), ""), "MAIL in a transaction")
		a.finish()
	}},
	{name: "recipients refused", play: func(a *account) {
		a.begin("", a.IntN(2))
		a.refuses(a.rcpt(fmt.Sprintf("hook%d@example.org", a.number())), "RCPT")
		a.refuses(a.rcpt(fmt.Sprintf("no%d@example.org", a.number())), "RCPT")
		if a.chance(2) {
			a.finish()
		}
	}},
	{name: "more recipients than the host takes", play: func(a *account) {
		a.begin("", a.recipients)
		a.refuses(a.rcpt("toomany@example.org"), "RCPT")
		if a.open && !a.data(a.smallText()) {
			a.fail("the message got %d", a.last)
		}
	}},
	{name: "a recipient that the hook changes", play: func(a *account) {
		a.begin("", 0)
		a.rcpt(fmt.Sprintf("alias%d@example.org", a.number()))
		a.finish()
	}},
	{name: "DATA refused by the hook", play: func(a *account) {
		a.begin(refuseVerb+"data", 1)
		a.refuses(a.ask("DATA"), "DATA")
	}},
	{name: "DATA without recipients", play: func(a *account) {
		a.begin("", 0)
		a.refuses(a.ask("DATA"), "DATA")
		a.finish()
	}},
	{name: "DATA refused by the host", on: onBradfitz, play: func(a *account) {
		a.mail(fmt.Sprintf("dataless%d@example.com", a.number()), "")
		a.rcpt(fmt.Sprintf("r%d@example.org", a.number()))
		a.refuses(a.ask("DATA"), "DATA")
	}},
	{name: "DATA with an argument", play: func(a *account) {
		a.begin("", 1)
		if a.ask("DATA x") == 354 { // some hosts don't mind
			a.content(a.smallText())
		}
	}},
	{name: "a message refused by the handler", play: func(a *account) {
		a.begin("", 1+a.IntN(2))
		if a.data(a.smallText()+refuseWord+"\r\n") && !a.host.early {
			a.fail("a message that the handler refuses got %d", a.last)
		}
	}},
	{name: "a message accepted with a text of the handler's own", on: onMhale, play: func(a *account) {
		a.begin("", 1)
		if !a.data(customWord + "\r\n") {
			a.fail("the message got %d", a.last)
		}
	}},
	{name: "a message refused by a plain error", on: func(h host) bool { return !onBradfitz(h) }, play: func(a *account) {
		a.begin("", 1)
		a.data(plainWord + "\r\n")
	}},
	{name: "a message that isn't answered", on: onBradfitz, play: func(a *account) {
		a.begin("", 1)
		a.data(plainWord + "\r\n")
	}, ends: map[string]string{bradfitzHost.name: "it gives up without a word, and its timeout ends the connection"}},
	{name: "DATA that isn't answered", on: onBradfitz, play: func(a *account) {
		a.mail(fmt.Sprintf("gone%d@example.com", a.number()), "")
		a.rcpt(fmt.Sprintf("r%d@example.org", a.number()))
		a.ask("DATA")
	}, ends: map[string]string{bradfitzHost.name: "it gives up without a word, and its timeout ends the connection"}},
	{name: "a message that is too big", on: notEarly, play: func(a *account) {
		a.begin("", 1+a.IntN(2))
		a.data(a.text(strings.Repeat("x", a.size)))
	}, ends: map[string]string{
		mhaleHost.name:    "it refuses before the end, and would take the rest for commands",
		bradfitzHost.name: "it does, too",
	}},
	{name: "a message full of lines that may be the end", on: notEarly, play: func(a *account) {
		a.begin("", 1+a.IntN(2))
		a.data(strings.Repeat(a.pick(" .\r\n", ".\r\n", ".\u00a0\r\n", "\u2003.\r\n", "\t.\r\n"), 1+a.IntN(90)) + a.evil())
	}},
	{name: "a message refused at a line", on: onBradfitz, play: func(a *account) {
		a.begin("", 1)
		a.data(a.text(lineWord))
	}, ends: map[string]string{bradfitzHost.name: "it takes what it has read of the rest for commands"}},
	{name: "a message refused before it is read", on: onChunks, play: func(a *account) {
		a.begin("", 1+a.IntN(3))
		a.data(unreadWord + "\r\n" + a.text())
	}},
	{name: "EHLO in a transaction", play: func(a *account) {
		a.begin("", a.IntN(2))
		a.anew(a.pick(a.hello()+" again.example", "HELO again.example"))
		a.open = false // even if it isn't for this host, as HELO in LMTP
	}},
	{name: "EHLO that the host refuses in a transaction", play: func(a *account) {
		a.begin("", a.IntN(2))
		a.anew(a.pick("HELO", "EHLO", "HELO nohost", a.hello()+" nohost", a.hello()))
		a.open = false // nobody knows: RCPT is refused, and MAIL begins anew
	}},
	{name: "EHLO refused by the hook in a transaction", play: func(a *account) {
		a.begin(refuseVerb+strings.ToLower(a.hello()), 1)
		a.refuses(a.greet(), "EHLO")
	}},
	{name: "RSET refused by the hook", play: func(a *account) {
		a.begin(refuseVerb+"rset", 1)
		a.refuses(a.rset(), "RSET")
		a.finish()
	}},
	{name: "RSET answered by the hook", play: func(a *account) {
		a.begin(acceptVerb+"rset", 1)
		a.rset()
	}},
	{name: "EHLO answered by the hook", play: func(a *account) {
		a.begin(acceptVerb+strings.ToLower(a.hello()), 1)
		a.greet()
	}},
	{name: "RCPT and DATA without a transaction", play: func(a *account) {
		if !a.open {
			a.refuses(a.rcpt(fmt.Sprintf("r%d@example.org", a.number())), "RCPT without a transaction")
			a.refuses(a.ask("DATA"), "DATA without a transaction")
		}
	}},
	{name: "a group whose MAIL is refused", play: func(a *account) {
		from := fmt.Sprintf("hook%d@example.com", a.number())
		to := fmt.Sprintf("r%d@example.org", a.number())
		a.say(fmt.Sprintf("MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", from, to))
		a.mailed(from, a.reply())
		a.rcpted(to, a.reply())
		a.refuses(a.reply(), "DATA")
	}},
	{name: "a line without a verb", play: func(a *account) {
		a.refuses(a.ask("%s", a.pick("", " NOOP", "\tNOOP", "NO\x00OP", "\u00a0NOOP", "1NOOP")), "it")
	}},
	{name: "STARTTLS where there is none", play: func(a *account) {
		a.refuses(a.ask("%s", a.pick("STARTTLS", "STARTTLS x", "STARTTLSX")), "STARTTLS")
	}},
	{name: "AUTH that fails", on: onAUTH, play: func(a *account) {
		if a.ask("AUTH PLAIN") == 334 {
			a.refuses(a.ask("%s", a.pick("*", "AHVzZXIAd3Jvbmc=", "AAAA", "?")), "AUTH")
		}
	}},
	{name: "XCLIENT", on: onChrj, play: func(a *account) {
		a.begin("", a.IntN(2))
		if code := a.ask("XCLIENT NAME=x"); code != 220 {
			a.fail("XCLIENT got %d", code)
		}
		a.open = false // as after EHLO
	}},
	{name: "some are refused in LMTP", on: onLMTP, play: func(a *account) {
		a.begin("", 0)
		for range 1 + a.IntN(4) {
			a.rcpt(fmt.Sprintf("%s%d@example.org", a.pick("r", lateName, busyName), a.number()))
		}
		a.data(a.smallText())
	}},
}
