package proxytest

import (
	"slices"
	"strings"
)

// This file has the question about AUTH.

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
