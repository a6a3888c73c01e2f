package proxytest

import (
	"slices"
	"strconv"
	"strings"
)

// This file has the questions about messages: where they end, and what is made of one that is
// refused.

// nextCommand is what a server shows with that it takes the next octets for commands.
const nextCommand = "NOOP\r\n"

func digits(n int) string { return strconv.Itoa(n) }

// commas returns n as English texts have it.
func commas(n int) string {
	s := digits(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plainly hands over what comes as it comes.
func (v *visit) plainly() bool {
	v.s.set(func(s *stage) { s.inLines, s.stops = false, false })
	return true
}

// refused has a message refused at its end, and tells whether it was. In a transaction.
func (v *visit) refused(content string) bool {
	if !v.data() {
		return false
	}
	v.s.set(func(s *stage) { s.stops = true })
	a := v.say(content+".\r\n", v.h.statuses(1))
	v.plainly()
	return negative(a.code()) && a.aside == "" && a.doing == waits
}

// refusal is content for which the server is known to refuse a message, and why.
type refusal struct{ why, content string }

// refusals returns those that are known.
func (h *hearing) refusals() (all []refusal) {
	for _, text := range h.RefusedTexts {
		all = append(all, refusal{strconv.Quote(text), text + "\r\n"})
	}
	if size := h.size(); size > 0 && size < h.MaxMessage {
		// How the server counts line ends isn't known.
		line := strings.Repeat("x", 98) + "\r\n"
		all = append(all, refusal{"its size", strings.Repeat(line, size/98+2)})
	}
	return all
}

// ending is octets in a message, behind some text, that some server takes for its end.
type ending struct {
	octets, name string
	bare         bool // there is a CR or LF in it that isn't part of a CRLF
}

// toTheLetter has CRLF.CRLF in it, so that it's nothing to find fault with.
const toTheLetter = "CRCRLF.CRLF"

var endings = []ending{
	{"\n.\n", "LF.LF", true},
	{"\n.\r\n", "LF.CRLF", true},
	{"\r\n.\n", "CRLF.LF", true},
	{"\r.\r", "CR.CR", true},
	{"\r.\n", "CR.LF", true},
	{"\r.\r\n", "CR.CRLF", true},
	{"\n.\r", "LF.CR", true},
	{"\r\n.\r", "CRLF.CR", true},
	{"\r\n.\r\r\n", "CRLF.CRCRLF", true},
	{"\r\r\n.\r\n", toTheLetter, true},
	{"\r\n..\r\n", "a line of two dots", false},
	{"\r\n...\r\n", "a line of three dots", false},
	{"\r\n. \r\n", "a dot and a blank", false},
	{"\r\n.\t\r\n", "a dot and a tab", false},
	{"\r\n .\r\n", "a blank and a dot", false},
	{"\r\n.\x00\r\n", "a dot and a NUL", false},
	{"\r\n\x00.\r\n", "a NUL and a dot", false},
	{"\r\n.\u00a0\r\n", "a dot and a no-break space", false},
	{"\r\n.\u2028\r\n", "a dot and a line separator", false},
	{"\r\n\ufeff.\r\n", "a byte order mark and a dot", false},
}

// noEndings are lines in which nobody sees the end.
var noEndings = []string{
	"", ".x", "..x", "x.", ". x", "-.", ".,", "\x04", "\x1a", "QUIT", ".QUIT", "RSET", "EHLO client.example", "DATA", "=", "*", "--", "</mail>",
}

// askMessageEnd asks where the server sees the end of a message.
func (h *hearing) askMessageEnd(r *Result) {
	for _, text := range []string{"text\r\n.\r\n", ".\r\n", "text\r\n\r\n.\r\n"} {
		v := h.content(1)
		if v == nil {
			return
		}
		a := v.say(text, h.statuses(1))
		r.judgeReplies(v, "the end of a message", a, h.statuses(1))
		if a.code() == 0 && a.doing != closed {
			r.Answer = "Not everywhere."
			r.Findings = nil
			r.find(v, "misses-end", "It doesn't see the end of a message at CRLF.CRLF.")
			return
		}
		if !v.isInStep() {
			r.find(v, "loses-step", "Behind a message it doesn't answer the next command once.")
		}
		v.leave()
	}

	v := h.content(1)
	if v == nil {
		return
	}
	for _, line := range noEndings {
		if a := v.say(line+"\r\n", 0); len(a.codes) > 0 {
			r.find(v, "ends-elsewhere", "It replies in the midst of a message, at a line that is no end.")
			v.leave()
			return
		}
	}
	v.leave()

	var others []string
	bare, found := true, false
	for _, e := range endings {
		v := h.content(1)
		if v == nil {
			return
		}
		if a := v.say("text"+e.octets, 0); len(a.codes) > 0 {
			others, bare = append(others, e.name), bare && e.bare
			found = found || e.name != toTheLetter
		} else if a = v.say("more\r\n", 0); len(a.codes) > 0 {
			r.find(v, "looks-past-end", "It sees the end of a message at "+e.name+" when it has read what is behind.")
		}
		v.leave()
	}
	if len(others) == 0 {
		r.Answer = "At CRLF.CRLF."
		return
	}
	list := strings.Join(others, ", ")
	r.Answer = "At CRLF.CRLF, and at " + list + "."
	if !found {
		return
	}
	name := "ends-at-bare-newlines"
	if !bare {
		name = "ends-at-odd-dots"
	}
	r.find(nil, name, "It sees the end of a message at "+list+", too.")
}

// isInStep tells whether a command gets one reply.
func (v *visit) isInStep() bool {
	v.plainly()
	a := v.say(nextCommand, -1)
	return a.doing == closed || len(a.codes) == 1 && a.rest == ""
}

// lengths are those of lines, without their ends, that servers have as limits, or as the
// size of a buffer.
var lengths = []int{510, 998, 1000, 1024, 2000, 2048, 4096, 8192, 16384, 32768, 65536}

// askLongLines asks for lines at which the server gives a message up, or sees two lines.
func (h *hearing) askLongLines(r *Result) {
	r.Answer = "Yes."
	most := h.MaxMessage
	if h.size() > 0 {
		most = min(most, h.size())
	}
	for _, length := range lengths {
		if 5*length+1000 > most {
			break
		}
		v := h.content(1)
		if v == nil {
			r.Answer = ""
			return
		}
		for n := length - 2; n <= length+2; n++ {
			a := v.say(strings.Repeat("x", n)+".\r\n", 0)
			if a.doing == stuck {
				break
			}
			if len(a.codes) == 0 && a.doing != closed {
				a = v.say(nextCommand, 0)
			}
			if len(a.codes) > 0 || a.doing == closed {
				h.judgeLongLine(r, v, a, n+3)
				return
			}
		}
		v.leave()
	}
}

// judgeLongLine is about a line of so many octets, at which the server has replied, or
// closed the connection.
func (h *hearing) judgeLongLine(r *Result, v *visit, a answer, octets int) {
	// Is it the line, or how much there is of all?
	w := h.content(1)
	if w == nil {
		return
	}
	short := strings.Repeat("x", 60) + "\r\n"
	if b := w.say(strings.Repeat(short, 5*octets/len(short)+1), 0); len(b.codes) > 0 || b.doing == closed {
		return // which another question is about
	}
	w.leave()

	commands := a.anyPositive()
	if a.doing == waits && !commands {
		v.plainly()
		commands = len(v.say(nextCommand, 1).codes) > 0
	}
	good, bad := 2, octets
	for bad-good > 1 {
		n := (good + bad) / 2
		w := h.content(1)
		if w == nil {
			return
		}
		b := w.say(strings.Repeat("x", n-3)+".\r\n"+nextCommand, 0)
		if len(b.codes) > 0 || b.doing == closed {
			bad = n
		} else {
			good = n
		}
		w.leave()
	}
	limit := []string{"{n}", digits(good)}
	switch {
	case commands:
		r.Answer = "Not beyond " + commas(good) + " octets."
		r.find(v, "gives-up-long-lines", "Behind a line of more than "+commas(good)+" octets, it takes what follows in the message for commands.", limit...)
	default:
		r.Answer = "It refuses those of more than " + commas(good) + " octets at once."
		r.find(v, "refuses-long-lines", "At a line of more than "+commas(good)+" octets, it refuses the message before its end.", limit...)
	}
}

// askRefusedMessage asks what the server does when it refuses a message.
func (h *hearing) askRefusedMessage(r *Result) {
	refusals := h.refusals()
	if len(refusals) == 0 {
		r.Answer = "Not tried: nothing is known for which it refuses a message."
		return
	}
	var answers []string
	for _, f := range refusals {
		answer := h.askRefusal(r, f)
		if answer == "" {
			return
		}
		answers = append(answers, answer)
	}
	if len(slices.Compact(slices.Clone(answers))) > 1 {
		for i, f := range refusals {
			answers[i] = "For " + f.why + ": " + answers[i]
		}
	}
	r.Answer = strings.Join(slices.Compact(answers), " ")
}

// askRefusal asks so for one cause of a refusal.
func (h *hearing) askRefusal(r *Result, f refusal) (does string) {
	v := h.content(1)
	if v == nil {
		return ""
	}
	defer v.leave()
	v.s.set(func(s *stage) { s.stops = true })
	rest := strings.Repeat(nextCommand, 5)
	a := v.sayPatiently(f.content) // one goroutine may read on while another replies
	early := len(a.codes) > 0
	if !early && a.doing == waits {
		a = v.say(rest+".\r\n", h.statuses(1))
		early = a.aside != ""
	}
	switch {
	case a.doing == closed:
		return "It closes the connection."
	case len(a.codes) == 0:
		r.find(v, "no-reply", "It doesn't answer a message that it has been asked to refuse.")
		return "It doesn't tell."
	case !early && !negative(a.code()):
		if f.why != "its size" {
			r.find(v, "untried", "It doesn't refuse a message with the line "+f.why+".")
		}
		return "Not tried: it didn't refuse the message."
	case len(a.codes) > h.statuses(1):
		r.find(v, "rest-of-line-is-command", "It refuses a message, and takes what it has read of it for commands.")
		return "Commands."
	case !early:
		if !v.isInStep() {
			r.find(v, "loses-step", "Behind a message that it has refused, it doesn't answer the next command once.")
		}
		h.askInBulk(r, f.content+rest)
		return "The message, which it reads to its end."
	}
	accepted := a.anyPositive()
	v.plainly()
	commands := len(v.say(nextCommand, 1).codes) > 0
	switch {
	case accepted && commands && !h.LMTP:
		r.find(v, "accepts-early", "It accepts a message before its end, and takes the rest for commands.")
		does = "Commands, though it has accepted it."
	case commands:
		r.find(v, "rest-is-commands", "It refuses a message before its end, and takes the rest for commands.")
		does = "Commands."
	default:
		r.find(v, "refuses-early", "It refuses a message before its end, and reads on.")
		does = "The message, though it has refused it before its end."
	}
	h.askInBulk(r, f.content+rest)
	return does
}

// askInBulk asks what a server that refuses a message does with what it has read of it
// at once.
func (h *hearing) askInBulk(r *Result, text string) {
	v := h.content(1)
	if v == nil {
		return
	}
	v.plainly()
	v.s.set(func(s *stage) { s.stops = true })
	if a := v.say(text, 1); len(a.codes) > h.statuses(1) {
		r.find(v, "unsafe-in-bulk", "Where it reads many lines of a message at once, it refuses it and takes those behind for commands.")
	}
	v.leave()
}
