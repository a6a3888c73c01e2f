package proxytest

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// This file has the questions about messages, and what is kept of them.

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

// pathForm is an argument of RCPT in which A and B stand for mailboxes.
type pathForm string

var pathForms = []pathForm{
	"TO:<A> TO:<B>", "TO:A TO:<B>", "TO:<A> <B>", "TO:A <B>", "TO:<A>,<B>", "TO:<A>SIZE=<B>", "TO:<A> X=TO:<B>", "TO:<A> X=<B>", "X TO:<A> TO:<B>",
	"TO:<A> (TO:<B>)", `TO:"<A>" <B>`, "TO:<A> ORCPT=rfc822;B",
}

func (f pathForm) with(a, b string) string {
	before, after, _ := strings.Cut(string(f), "A") // the first one is A
	i := strings.LastIndexByte(after, 'B')
	return before + a + after[:i] + b + after[i+1:]
}

// askPaths asks which of two mailboxes the server takes, and whether the library claims
// another.
func (h *hearing) askPaths(r *Result) {
	other := h.RefusedRecipient
	if other == "" {
		other = h.Other
	}
	takes := make(map[string][]string)
	for _, f := range pathForms {
		var codes [2]int
		for i, args := range []string{f.with(h.Recipient, other), f.with(other, h.Recipient)} {
			v := h.begin(0)
			if v == nil {
				return
			}
			codes[i] = v.ask("RCPT " + args)
			if positive(codes[i]) && h.RefusedRecipient != "" && strings.EqualFold(h.claim(args), h.RefusedRecipient) {
				r.find(v, "takes-another-path", "It accepts a RCPT command that names a mailbox which it refuses.", "{args}", args)
			}
			v.leave()
		}
		first, second := positive(codes[0]), positive(codes[1])
		switch {
		case !first && !second, h.claim(f.with(h.Recipient, other)) != "":
		case h.RefusedRecipient == "" || first && second:
			takes[""] = append(takes[""], string(f))
		case first:
			takes["A of "] = append(takes["A of "], string(f))
		default:
			takes["B of "] = append(takes["B of "], string(f))
		}
	}
	var accepted []string
	for _, which := range slices.Sorted(maps.Keys(takes)) {
		accepted = append(accepted, which+strings.Join(takes[which], ", "))
	}
	if len(accepted) == 0 {
		r.Answer = "It refuses such commands."
		return
	}
	list := strings.Join(accepted, "; ")
	r.Answer = "It takes " + list + "."
	r.find(nil, "takes-two-paths", "It accepts a recipient of which servers take different mailboxes: "+list+".")
}

// keeps tells whether the server still has a transaction, or some of it.
func (v *visit) keeps(rcptFirst bool) bool {
	if !rcptFirst && positive(v.ask("RCPT TO:<"+v.h.Recipient+">")) {
		return true
	}
	return v.ask("DATA") == 354
}

// askEnvelope asks what the server forgets, and when.
func (h *hearing) askEnvelope(r *Result) {
	var kept []string
	// Outside of a transaction.
	v := h.visit()
	if v == nil {
		return
	}
	rcptFirst := positive(v.ask("RCPT TO:<" + h.Recipient + ">"))
	if rcptFirst {
		r.find(v, "takes-rcpt-first", "It accepts RCPT before MAIL.")
	}
	v.leave()
	if v = h.begin(0); v == nil {
		return
	}
	dataFirst := v.ask("DATA") == 354 // then it says nothing of recipients
	v.leave()

	// keepsAfter does something in a transaction, and looks at what is left.
	after := func(name, when string, do func(v *visit) bool) {
		v := h.begin(1)
		if v == nil || !do(v) {
			return
		}
		if v.keeps(rcptFirst) {
			kept = append(kept, when)
			r.find(v, name, "It keeps a transaction "+when+".")
		}
		v.leave()
	}
	// anew does so, and looks at what is left in the next transaction.
	anew := func(name, when string, do func(v *visit) bool) {
		if dataFirst {
			return
		}
		v := h.begin(1)
		if v == nil || !do(v) || !v.mail() {
			return
		}
		if v.ask("DATA") == 354 {
			kept = append(kept, when)
			r.find(v, name, "It keeps recipients "+when+", and over MAIL.")
		}
		v.leave()
	}
	reset := func(v *visit) bool {
		if code := v.ask("RSET"); !positive(code) {
			r.find(v, "refuses-rset", "It doesn't accept RSET.")
			return false
		}
		return true
	}
	after("keeps-over-rset", "over RSET", reset)
	anew("keeps-over-rset", "over RSET", reset)
	after("keeps-over-ehlo", "over "+h.hello(), func(v *visit) bool { return positive(v.ask(h.hello() + " " + h.Host)) })
	accepted := func(v *visit) bool {
		return v.data() && positive(v.say("text\r\n.\r\n", h.statuses(1)).code()) && v.plainly()
	}
	after("keeps-behind-message", "behind a message that it has accepted", accepted)
	anew("keeps-recipients", "behind a message that it has accepted", accepted)
	for _, f := range h.refusals() {
		after("keeps-behind-refusal", "behind a message that it has refused", func(v *visit) bool { return v.refused(f.content) })
		anew("keeps-over-rset", "over RSET behind a message that it has refused", func(v *visit) bool { return v.refused(f.content) && reset(v) })
	}

	// A second MAIL, and a HELO that is refused.
	if v = h.begin(1); v != nil && positive(v.ask("MAIL FROM:<"+h.Sender+">")) {
		r.find(v, "takes-mail-within", "It accepts MAIL in a transaction.")
	}
	v.leave()
	if v = h.begin(1); v != nil {
		line := h.hello()
		if h.RefusedHost != "" {
			line += " " + h.RefusedHost
		}
		if negative(v.ask(line)) && !v.keeps(true) {
			r.find(v, "forgets-at-refused-helo", "It forgets a transaction at a greeting that it refuses.")
		}
		v.leave()
	}
	r.Answer = "When it has to."
	if len(kept) > 0 {
		r.Answer = "It keeps one " + strings.Join(slices.Compact(kept), ", ") + "."
	}
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

// askChunks asks about BDAT.
func (h *hearing) askChunks(r *Result) {
	_, offered := h.keywords["CHUNKING"]
	chunk := strings.Repeat(nextCommand, 5) + "x" // an octet more would make it 6 commands
	bdat := fmt.Sprintf("BDAT %d", len(chunk))
	if !offered {
		if v := h.begin(1); v != nil {
			a := v.say(bdat+" LAST\r\n", 1)
			if len(a.codes) == 0 && a.doing == waits {
				a = v.say(chunk, 1) // it knows it all the same
			}
			r.judgeReplies(v, "BDAT", a, 1)
			r.Answer = "It doesn't offer CHUNKING."
			v.leave()
		}
		return
	}
	r.Answer = "Yes."
	last := func(line string, n int) *visit {
		v := h.begin(n)
		if v == nil {
			r.Answer = ""
			return nil
		}
		want := 1
		if strings.HasSuffix(line, "LAST") {
			want = h.statuses(n)
		}
		a := v.say(line+"\r\n", 0)
		switch {
		case a.anyPositive():
			r.Answer = "It answers before it reads."
			r.find(v, "answers-bdat-early", "It accepts a chunk before it has read it.")
			return nil
		case len(a.codes) > 0:
			r.Answer = "It refuses BDAT, though it offers CHUNKING."
			r.find(v, "refuses-bdat", "It offers CHUNKING and refuses BDAT.")
			return nil
		}
		a = v.say(chunk, want)
		switch {
		case len(a.codes) > want:
			r.Answer = "No."
			r.find(v, "chunk-is-commands", "It takes octets of a chunk for commands.")
			return nil
		case len(a.codes) == 0 && a.doing != closed:
			r.Answer = "No."
			r.find(v, "reads-past-chunk", "It reads more octets than the chunk has.")
			return nil
		}
		if !v.isInStep() {
			r.Answer = "No."
			r.find(v, "chunk-is-commands", "Behind a chunk it doesn't answer the next command once.")
			return nil
		}
		return v
	}
	if v := last(bdat, 1); v != nil {
		v.leave()
	} else {
		return
	}
	if v := last(bdat+" LAST", 1); v != nil {
		v.leave()
	} else {
		return
	}
	if len(h.RefusedTexts) == 0 {
		return
	}
	chunk = h.RefusedTexts[0] + "\r\n" + chunk
	for _, whole := range []bool{true, false} {
		v := h.begin(1)
		if v == nil {
			return
		}
		v.say(fmt.Sprintf("BDAT %d LAST\r\n", len(chunk)), 0)
		if whole {
			if a := v.say(chunk, 1); len(a.codes) > h.statuses(1) || a.doing == waits && !v.isInStep() {
				r.Answer = "No."
				r.find(v, "chunk-is-commands", "It takes octets of a chunk that it has refused for commands.")
			}
			v.leave()
			continue
		}
		v.s.set(func(s *stage) { s.inLines, s.stops = true, true })
		if a := v.say(chunk, 1); a.aside != "" {
			r.Answer = "Yes, but it refuses one before it has read it."
			r.find(v, "refuses-chunk-early", "It refuses a chunk before it has read it.")
		}
		v.leave()
	}
}

// half is content that isn't all of it.
const half = "text\r\nhalf a li"

// askTimeouts asks what the server reads when a Read has failed for its deadline.
func (h *hearing) askTimeouts(r *Result) {
	deadline := false
	var givesUp []string
	try := func(v *visit, name, where, handed string) {
		if v == nil {
			return
		}
		if handed != "" {
			v.say(handed, 0)
		}
		set := false
		v.s.set(func(s *stage) { set = !s.readDeadline.IsZero() })
		if !set {
			v.leave()
			return
		}
		deadline = true
		v.note("", "[the Read's deadline passes]")
		v.s.fail(os.ErrDeadlineExceeded, true)
		a := v.settle(-1)
		switch {
		case a.anyPositive() && name == "gives-up-sasl":
			r.find(v, "succeeds-without-response", "Where the response to AUTH can't be read, it answers with success.")
		case a.anyPositive():
			r.find(v, "accepts-cut-message", "It accepts a message that was cut off.")
		case a.doing == waits:
			v.plainly()
			if a := v.say(nextCommand, 1); len(a.codes) > 0 {
				givesUp = append(givesUp, where)
				r.find(v, name, "Behind a timeout in "+where+" it reads commands.")
			}
		}
		v.leave()
	}
	try(h.content(1), "gives-up-content", "a message", half)
	if _, ok := h.keywords["CHUNKING"]; ok {
		if v := h.begin(1); v != nil && len(v.say("BDAT 100 LAST\r\n", 0).codes) == 0 {
			try(v, "gives-up-chunk", "a chunk", "NOOP\r\nNOOP\r\nhalf")
		}
	}
	if h.takesPLAIN() {
		if v := h.visit(); v != nil && v.ask("AUTH PLAIN") == 334 {
			try(v, "gives-up-sasl", "a SASL exchange", "")
		}
	}
	switch {
	case len(givesUp) > 0:
		r.Answer = "Commands, behind one in " + strings.Join(givesUp, ", ") + "."
	case !deadline && h.cannot == "":
		r.Answer = "It sets no deadline."
	case h.cannot == "":
		r.Answer = "Nothing that it takes for commands."
	}
}

// askCutOff asks whether the server takes a message for whole whose end doesn't come.
func (h *hearing) askCutOff(r *Result) {
	var takes []string
	try := func(v *visit, where, handed string, err error) {
		if v == nil {
			return
		}
		v.say(handed, 0)
		v.note("", "[the client is gone: "+err.Error()+"]")
		v.s.fail(err, false)
		a := v.settle(-1)
		switch {
		case !a.anyPositive():
		case err == io.EOF:
			takes = append(takes, where)
			r.find(v, "takes-eof-for-end", "It takes the end of the connection in "+where+" for that of the message.")
		default:
			r.Answer = "It accepts it."
			r.find(v, "accepts-cut-message", "It accepts a message that was cut off in "+where+".")
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, io.EOF} {
		try(h.content(1), "content", half, err)
		if _, ok := h.keywords["CHUNKING"]; ok {
			if v := h.begin(1); v != nil && len(v.say("BDAT 100 LAST\r\n", 0).codes) == 0 {
				try(v, "a chunk", half, err)
			}
		}
	}
	switch {
	case r.Answer != "" || h.cannot != "" || h.lost != "":
	case len(takes) > 0:
		r.Answer = "Nothing, but it would take io.EOF in " + strings.Join(takes, ", ") + " for its end."
	default:
		r.Answer = "Nothing."
	}
}

// askStatuses asks how many replies a message for two recipients gets.
func (h *hearing) askStatuses(r *Result) {
	if !h.LMTP {
		r.Answer = "It doesn't speak LMTP."
		return
	}
	r.Answer = "Yes."
	judge := func(v *visit, a answer) {
		if len(a.codes) != 2 && a.doing != closed {
			r.Answer = "No."
			r.find(v, "statuses-missing", fmt.Sprintf("A message for 2 recipients gets %d replies.", len(a.codes)))
		}
	}
	v := h.content(2)
	if v == nil {
		r.Answer = ""
		return
	}
	judge(v, v.say("text\r\n.\r\n", 2))
	v.leave()
	if _, ok := h.keywords["CHUNKING"]; !ok {
		return
	}
	if v = h.begin(2); v != nil && len(v.say("BDAT 6 LAST\r\n", 0).codes) == 0 {
		judge(v, v.say("text\r\n", 2))
	}
	v.leave()
}

// takesPLAIN tells whether the server offers AUTH PLAIN.
func (h *hearing) takesPLAIN() bool {
	return slices.Contains(strings.Fields(strings.ToUpper(h.keywords["AUTH"])), "PLAIN")
}

// askAuth asks about AUTH.
func (h *hearing) askAuth(r *Result) {
	if h.visit() == nil {
		return
	}
	if _, ok := h.keywords["AUTH"]; !ok {
		r.Answer = "It doesn't offer it."
		if _, ok := h.keywordsInTLS()["AUTH"]; ok {
			r.Answer = "No."
			r.find(h.last(), "wants-tls-conn", "It offers AUTH on a *tls.Conn alone.")
		}
		return
	}
	r.Answer = "Yes."
	if !h.takesPLAIN() {
		r.Answer = "It offers it, but not PLAIN, which alone is tried."
		return
	}
	v := h.visit()
	if v == nil {
		return
	}
	if v.ask("AUTH PLAIN") != 334 {
		r.Answer = "It offers it."
		v.leave()
		return
	}
	a := v.say("*\r\n", 1)
	switch {
	case a.anyPositive():
		r.Answer = "No."
		r.find(v, "cancel-succeeds", "It answers the cancelling of an AUTH exchange with success.")
	case len(a.codes) == 0 && a.doing != closed:
		r.Answer = "No."
		r.find(v, "no-reply", "It doesn't answer the cancelling of an AUTH exchange.")
	case len(a.codes) != 1, !v.isInStep():
		r.Answer = "No."
		r.find(v, "many-replies", "It answers the cancelling of an AUTH exchange more than once, or the command behind it.")
	}
	v.leave()
	if h.Username == "" {
		return
	}
	if v = h.visit(); v != nil && v.ask("AUTH PLAIN") == 334 {
		v.note("C: ", "[the response]")
		v.s.give(h.plain(h.Password) + "\r\n")
		if a := v.settle(1); !positive(a.code()) {
			r.find(v, "untried", "It doesn't let Trial.Username in with Trial.Password.")
		} else if !v.isInStep() {
			r.find(v, "many-replies", "Behind AUTH, it doesn't answer the next command once.")
		}
	}
	v.leave()
}
