package proxytest

import (
	"maps"
	"slices"
	"strings"
)

// This file has the questions about paths, and about what is kept of a transaction.

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
