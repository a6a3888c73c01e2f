package e2e

import (
	"slices"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about several hooks of which some ask for a line with Next: it adds to what
// a hook gets, and never takes away from the others.

func TestACommandGoesThroughTheWholeChainWhoeverHasAskedForIt(t *testing.T) {
	playAll(t, []composed{
		{
			why: "one has asked", say: []string{"NOOP", "VRFY x", "RSET"}, codes: []int{250, 252, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", nil), c.plays("b", part{"NOOP": asksNext}), c.plays("c", nil))
			},
			shown: []string{"a NOOP", "b NOOP", "c NOOP", "a VRFY x", "b VRFY x", "c VRFY x", "a RSET", "b RSET", "c RSET"},
		},
		{
			why: "one has asked, and replied", say: []string{"NOOP", "VRFY x"}, codes: []int{550, 252},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", nil), c.plays("b", part{"NOOP": does(reply{Code: 550, Next: true})}), c.plays("c", nil))
			},
			shown: []string{"a NOOP", "b NOOP", "a VRFY x", "b VRFY x", "c VRFY x"},
		},
		{
			why: "AUTH is refused, so that a command follows", say: []string{"AUTH PLAIN", "NOOP"}, codes: []int{550, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext}), c.plays("b", part{"AUTH": refuses}))
			},
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "a NOOP", "b NOOP"},
		},
	})
}

func TestALineOfASASLExchangeGoesToThoseAloneThatHaveAskedForIt(t *testing.T) {
	playAll(t, []composed{
		{
			why: "nobody", say: []string{"AUTH PLAIN", response, "NOOP"}, codes: []int{334, 235, 250},
			hook:  func(c *cast) smtpproxy.Hook { return chain(c.plays("a", nil), c.plays("b", nil)) },
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "a NOOP", "b NOOP"},
		},
		{
			why: "one", say: []string{"AUTH PLAIN", response, "NOOP"}, codes: []int{334, 235, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", nil), c.plays("b", part{"AUTH": asksNext}), c.plays("c", nil))
			},
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "c AUTH PLAIN", "b (SASL) " + response, "a NOOP", "b NOOP", "c NOOP"},
		},
		{
			why: "two, in order", say: []string{"AUTH PLAIN", response}, codes: []int{334, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext}), c.plays("b", nil), c.plays("c", part{"AUTH": asksNext}))
			},
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "c AUTH PLAIN", "a (SASL) " + response, "c (SASL) " + response},
		},
		{
			why: "the first of two refuses it", say: []string{"AUTH PLAIN", response, "NOOP"}, codes: []int{334, 550, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext, "SASL": refuses}), c.plays("b", part{"AUTH": asksNext}))
			},
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "a (SASL) " + response, "a NOOP", "b NOOP"},
		},
		{
			why: "who has asked for the line before hasn't asked for this one", say: []string{"NOOP", "AUTH PLAIN", response}, codes: []int{250, 334, 235},
			hook:  func(c *cast) smtpproxy.Hook { return chain(c.plays("a", part{"NOOP": asksNext}), c.plays("b", nil)) },
			shown: []string{"a NOOP", "b NOOP", "a AUTH PLAIN", "b AUTH PLAIN"},
		},
		{
			why: "who asks in vain has not asked for the exchange behind", say: []string{"NOOP", "VRFY x", "AUTH PLAIN", response}, codes: []int{250, 550, 334, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"VRFY": refuses}), c.plays("b", part{"NOOP": asksNext, "VRFY": asksNext}))
			},
			shown: []string{"a NOOP", "b NOOP", "a VRFY x", "a AUTH PLAIN", "b AUTH PLAIN"},
		},
	})
}

func TestALineThatProxyCommandsKeepsFromHooksGoesToThoseAloneThatHaveAskedForIt(t *testing.T) {
	playAll(t, []composed{{
		why: "two have asked", commands: []string{"noop"}, say: []string{"NOOP", "VRFY x", "RSET", "NOOP y"}, codes: []int{250, 550, 250, 250},
		hook: func(c *cast) smtpproxy.Hook {
			return chain(c.plays("a", nil), c.plays("b", part{"NOOP": asksNext, "VRFY": turnsTo("VRFY z")}),
				c.plays("c", nil), c.plays("d", part{"NOOP": asksNext, "VRFY": refuses}))
		},
		shown: []string{
			"a NOOP", "b NOOP", "c NOOP", "d NOOP", "b VRFY x", "d VRFY z <- VRFY x",
			"a NOOP y", "b NOOP y", "c NOOP y", "d NOOP y",
		},
	}})
}

func TestTheAnswerToAHooksOwnChallengeIsForItAlone(t *testing.T) {
	own := part{"AUTH": challenge, "SASL": does(reply{Code: 235})}
	playAll(t, []composed{
		{
			why: "nobody has asked", say: []string{"AUTH X", "c2VjcmV0", "NOOP"}, codes: []int{334, 235, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", nil), c.plays("b", own), c.plays("c", nil))
			},
			shown: []string{"a AUTH X", "b AUTH X", "b (SASL) c2VjcmV0", "a NOOP", "b NOOP", "c NOOP"},
		},
		{
			why: "one before has asked", say: []string{"AUTH X", "c2VjcmV0", "NOOP"}, codes: []int{334, 235, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext}), c.plays("b", own), c.plays("c", nil))
			},
			shown: []string{"a AUTH X", "b AUTH X", "b (SASL) c2VjcmV0", "a NOOP", "b NOOP", "c NOOP"},
		},
		{
			why: "in the server's exchange, for which two have asked", say: []string{"AUTH PLAIN", "Zmlyc3Q=", "c2VjcmV0"}, codes: []int{334, 334, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext, "SASL": asksNext}),
					c.plays("b", part{"AUTH": asksNext, "Zmlyc3Q=": challenge, "c2VjcmV0": does(reply{Code: 235})}), c.plays("c", part{"AUTH": asksNext}))
			},
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "c AUTH PLAIN", "a (SASL) Zmlyc3Q=", "b (SASL) Zmlyc3Q=", "b (SASL) c2VjcmV0"},
		},
		{
			why: "to another command", say: []string{"NOOP", "c2VjcmV0"}, codes: []int{334, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"NOOP": asksNext}), c.plays("b", part{"NOOP": challenge, "SASL": does(reply{Code: 235})}))
			},
			shown: []string{"a NOOP", "b NOOP", "b (SASL) c2VjcmV0"},
		},
		{
			why: "several lines of it", say: []string{"AUTH X", "Zmlyc3Q=", "c2VjcmV0"}, codes: []int{334, 334, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext}), c.plays("b", part{"AUTH": challenge, "Zmlyc3Q=": challenge, "c2VjcmV0": does(reply{Code: 235})}))
			},
			shown: []string{"a AUTH X", "b AUTH X", "b (SASL) Zmlyc3Q=", "b (SASL) c2VjcmV0"},
		},
		{
			why: "OnFailure's, in the place of the hook that has failed", say: []string{"AUTH X", "c2VjcmV0"}, codes: []int{334, 235},
			instead: reply{Code: 334}, failed: "b: it is broken", direct: true,
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext}), named("b", c.plays("b", part{"AUTH": breaks, "SASL": does(reply{Code: 235})})))
			},
			shown: []string{"a AUTH X", "b AUTH X", "b (SASL) c2VjcmV0"},
		},
	})
}

func TestAnAnswerToAHooksOwnChallengeIsNeverPassed(t *testing.T) {
	const invalid = ": smtpproxy: invalid decision: Pass of an answer to the hook's own challenge"
	for why, d := range map[string]decision{"as it is": nil, "changed": pass{Command: "NOOP"}, "with Next": pass{Next: true}} {
		hook := func(c *cast) smtpproxy.Hook {
			return named("x", chain(c.plays("a", part{"AUTH": asksNext}), c.plays("b", part{"AUTH": challenge, "SASL": does(d)}), c.plays("c", nil)))
		}
		shown := []string{"a AUTH X", "b AUTH X", "b (SASL) c2VjcmV0"}
		playAll(t, []composed{
			{why: why, hook: hook, say: []string{"AUTH X", "c2VjcmV0", "NOOP"}, codes: []int{334, 421}, shown: shown, failed: "x" + invalid, direct: true},
			{
				why: why + ", though OnFailure would pass it", hook: hook, instead: pass{}, say: []string{"AUTH X", "c2VjcmV0", "NOOP"},
				codes: []int{334, 421}, shown: shown, failed: "x" + invalid, direct: true,
			},
		})
		hook = func(c *cast) smtpproxy.Hook { return chain(c.plays("b", part{"AUTH": challenge, "SASL": does(d)})) }
		playAll(t, []composed{{
			why: why + ", in a wrapper, too", hook: hook, say: []string{"AUTH X", "c2VjcmV0", "NOOP"}, codes: []int{334, 421},
			shown: []string{"b AUTH X", "b (SASL) c2VjcmV0"}, failed: invalid,
		}})
	}
}

func TestNextSurvivesAHookBehindThatFails(t *testing.T) {
	hook := func(c *cast) smtpproxy.Hook {
		return chain(c.plays("a", part{"AUTH": asksNext, "NOOP": asksNext}), named("b", c.plays("b", part{"AUTH": breaks, "NOOP": breaks})))
	}
	playAll(t, []composed{
		{
			why: "OnFailure passes", hook: hook, instead: pass{}, direct: true, // what fails can't ask
			say: []string{"AUTH PLAIN", response, "VRFY x"}, codes: []int{334, 235, 252}, failed: "b: it is broken",
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "a (SASL) " + response, "a VRFY x", "b VRFY x"},
		},
		{
			why: "OnFailure answers", hook: hook, instead: reply{Code: 451}, direct: true, commands: []string{"NOOP"},
			say: []string{"NOOP", "VRFY x", "RSET"}, codes: []int{451, 252, 250}, failed: "b: it is broken",
			shown: []string{"a NOOP", "b NOOP", "a VRFY x"},
		},
		{
			why: "OnFailure asks in the place of what has failed", hook: hook, instead: pass{Next: true}, direct: true,
			say: []string{"AUTH PLAIN", response}, codes: []int{334, 235}, failed: "b: it is broken",
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "a (SASL) " + response, "b (SASL) " + response},
		},
	})
}

// The client's greeting inside TLS is the line behind STARTTLS, but nobody has asked for that:
// what was before TLS is forgotten.
func TestWhoHasAskedAtSTARTTLSGetsNoLineOfALaterExchange(t *testing.T) {
	for why, wrap := range map[string]func(smtpproxy.Hook) smtpproxy.Hook{
		"the library's": func(h smtpproxy.Hook) smtpproxy.Hook { return h },
		"a wrapper's":   func(h smtpproxy.Hook) smtpproxy.Hook { return wrapper{h} },
	} {
		c := new(cast)
		s := (&smtpproxy.Proxy{Hook: wrap(chain(c.plays("a", part{"STARTTLS": asksNext}), c.plays("b", part{"AUTH": asksNext})))}).NewSession(connection{})
		for _, line := range []string{"STARTTLS", "EHLO x", "AUTH PLAIN", response} {
			if d, ok := s.Command(t.Context(), line).(pass); !ok {
				t.Fatalf("%s: %v", line, d)
			}
			code := map[string]int{"STARTTLS": 220, "AUTH PLAIN": 334, response: 235}[line]
			s.Replied(max(code, 250*(1-min(code, 1))))
			if line == "STARTTLS" {
				s.StartedTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
			}
		}
		if want := []string{"a STARTTLS", "b STARTTLS", "a AUTH PLAIN", "b AUTH PLAIN", "b (SASL) " + response}; !slices.Equal(c.shown, want) {
			t.Errorf("%s: shown was %q, want %q", why, c.shown, want)
		}
		s.Close()
	}
}
