package hosts

import (
	"fmt"
	"strings"
)

// This file has the quirks of messages in chunks (RFC 3030).

func onSMTPChunks(h host) bool { return h.chunks && !h.lmtp }

var chunkQuirks = []quirk{
	{name: "a chunk refused by the hook", on: onChunks, play: func(a *account) {
		a.begin(refuseVerb+"bdat", 1+a.IntN(3))
		a.chunk(a.text())
	}},
	{name: "a chunk without recipients", on: onChunks, play: func(a *account) {
		a.begin("", 0)
		a.refuses(a.lastChunk("RSET\r\nVRFY evil\r\n"), "a chunk without recipients")
		a.open = false // a chunk that is refused ends the transaction
	}},
	{name: "a chunk without a transaction", on: onChunks, play: func(a *account) {
		if !a.open {
			a.refuses(a.lastChunk("RSET\r\nVRFY evil\r\n"), "a chunk without a transaction")
		}
	}},
	{name: "a chunk that is too big", on: onChunks, play: func(a *account) {
		a.begin("", 1+a.IntN(3))
		a.chunk(a.text(strings.Repeat("x", a.size)))
	}},
	{name: "a chunk refused by the handler", on: onChunks, play: func(a *account) {
		a.begin("", 1+a.IntN(3))
		a.chunk(refuseWord + "\r\n")
	}},
	{name: "a chunk refused before it is read", on: onChunks, play: func(a *account) {
		a.begin("", 1+a.IntN(3))
		a.chunk(unreadWord + "\r\n" + a.text())
	}},
	{name: "a chunk with zeros before its size", on: onChunks, play: func(a *account) {
		a.begin("", 1)
		text := a.smallText()
		a.say(fmt.Sprintf("BDAT 00%d LAST\r\n%s", len(text), text))
		if !a.ended(text, []int{a.reply()}) {
			a.fail("it got %d", a.last)
		}
	}},
	{name: "a chunk of unknown size", on: onChunks, play: func(a *account) {
		a.begin("", 1)
		a.refuses(a.ask("BDAT %s LAST", a.pick("x", "-1", "+1", "0x1", "1 2")), "BDAT")
		a.quiet()
	}, ends: everywhere("nobody knows where the chunk ends")},
	{name: "chunks and then RSET or EHLO", on: onSMTPChunks, play: func(a *account) {
		a.begin("", 1)
		a.first()
		a.anew(a.pick("RSET", "EHLO again.example", "HELO again.example"))
	}},
	{name: "chunks and then EHLO that is refused", on: onSMTPChunks, play: func(a *account) {
		a.begin("", 1)
		a.first()
		a.anew(a.pick("EHLO", "HELO"))
		a.open = false
	}},
	{name: "commands between chunks", on: onSMTPChunks, play: func(a *account) {
		a.begin("", 1)
		text := a.first()
		a.refuses(a.ask("%s", a.pick("DATA", "MAIL FROM:<between@example.com>", "RCPT TO:<between@example.org>", "RCPT TO:<hook@example.org>")), "it")
		a.finishChunks(text, "last\r\n")
	}},
	{name: "a second chunk that is refused", on: onSMTPChunks, play: func(a *account) {
		a.begin(a.pick("", refuseVerb+"bdat"), 1)
		a.first()
		text := strings.Repeat("x", a.size) + "\r\nRSET\r\n"
		a.say(fmt.Sprintf("BDAT %d%s\r\n%s", len(text), a.pick("", " LAST"), text))
		a.refuses(a.reply(), "a second chunk that is too big")
		a.open = false
		a.refuses(a.lastChunk("RSET\r\nVRFY evil\r\n"), "a chunk behind one that was refused")
		a.refuses(a.rcpt("behind@example.org"), "RCPT behind a refused chunk")
	}},
	{name: "a first chunk that is refused", on: onSMTPChunks, play: func(a *account) {
		a.begin("", 1)
		text := strings.Repeat("x", a.size+1)
		a.say(fmt.Sprintf("BDAT %d\r\n%s", len(text), text))
		a.refuses(a.reply(), "a first chunk that is too big")
		a.open = false
		a.refuses(a.lastChunk("RSET\r\nVRFY evil\r\n"), "a chunk behind one that was refused")
	}},
}

func everywhere(why string) map[string]string {
	ends := make(map[string]string)
	for _, h := range hosts {
		ends[h.name] = why
	}
	return ends
}

// first sends a chunk that isn't the last, and returns it.
func (a *account) first() string {
	text := fmt.Sprintf("m%d\r\n", a.number())
	if strings.Contains(a.sender, refuseVerb) {
		return "" // the hook refuses the second one, which is the first then
	}
	a.say(fmt.Sprintf("BDAT %d\r\n%s", len(text), text))
	if code := a.reply(); code != 250 {
		a.fail("a first chunk got %d", code)
	}
	return text
}

// lastChunk sends a last chunk.
func (a *account) lastChunk(text string) int {
	a.say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text))
	return a.reply()
}

// finishChunks sends the last chunk of a message that nobody has a reason to refuse.
func (a *account) finishChunks(before, text string) {
	if !a.ended(before+text, []int{a.lastChunk(text)}) {
		a.fail("the last chunk got %d", a.last)
	}
}
