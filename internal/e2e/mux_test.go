package e2e

import (
	"fmt"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about hooks in a Mux.

// routes makes a Mux of hooks by verb; that for "" is Else.
func routes(hooks map[string]smtpproxy.Hook) *smtpproxy.Mux {
	m := new(smtpproxy.Mux)
	for verb, h := range hooks {
		if verb == "" {
			m.Else = h
		} else {
			m.Handle(verb, h)
		}
	}
	return m
}

type byVerb = map[string]smtpproxy.Hook

func TestAMuxHandsEachCommandToTheHookForItsVerb(t *testing.T) {
	playAll(t, []composed{
		{
			why: "in any case", say: []string{"NOOP x", "noop", "vrfy y", "RSET", "XPING"}, codes: []int{250, 250, 550, 250, 550},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"noop": c.plays("a", nil), "VRFY": c.plays("b", part{"VRFY": refuses}), "XPing": c.plays("c", part{"XPING": refuses})})
			},
			shown: []string{"a NOOP x", "a noop", "b vrfy y", "c XPING"},
		},
		{
			why: "all others to Else", say: []string{"NOOP", "VRFY x", "NOOPS"}, codes: []int{250, 550, 550},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"NOOP": c.plays("a", nil), "": c.plays("b", part{"VRFY": refuses, "NOOPS": refuses})})
			},
			shown: []string{"a NOOP", "b VRFY x", "b NOOPS"},
		},
		{
			why: "a line without a verb to Else", say: []string{"?", "\tNOOP", "", "AUTH PLAIN", response}, codes: []int{550, 500, 500, 334, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"NOOP": c.plays("a", nil), "AUTH": nothing{}, "": c.plays("b", part{"?": refuses})})
			},
			shown: []string{"b ?", "b \tNOOP", "b "},
		},
		{
			why: "the zero Mux passes everything", say: []string{"NOOP", "XPING", "?"}, codes: []int{250, 500, 500},
			hook: func(*cast) smtpproxy.Hook { return new(smtpproxy.Mux) },
		},
		{
			why: "between the hooks of a chain", say: []string{"NOOP", "VRFY x"}, codes: []int{250, 550},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", nil), routes(byVerb{"NOOP": chain(c.plays("b", nil), c.plays("c", nil)), "VRFY": c.plays("d", part{"VRFY": refuses})}), c.plays("e", nil))
			},
			shown: []string{"a NOOP", "b NOOP", "c NOOP", "e NOOP", "a VRFY x", "d VRFY x"},
		},
		{
			why: "the verb is that of the line as the hooks before have left it", say: []string{"NOOP 1", "VRFY 1"}, codes: []int{252, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"NOOP": turnsTo("VRFY 2"), "VRFY": turnsTo("NOOP 2")}),
					routes(byVerb{"NOOP": c.plays("b", nil), "VRFY": c.plays("c", nil)}))
			},
			shown: []string{"a NOOP 1", "c VRFY 2 <- NOOP 1", "a VRFY 1", "b NOOP 2 <- VRFY 1"},
		},
		{
			why: "a Mux in a Mux", say: []string{"NOOP", "VRFY x", "RSET"}, codes: []int{250, 252, 250},
			hook: func(c *cast) smtpproxy.Hook {
				inner := routes(byVerb{"VRFY": c.plays("b", nil), "": c.plays("c", nil)})
				return chain(routes(byVerb{"NOOP": c.plays("a", nil), "": inner}), c.plays("d", nil))
			},
			shown: []string{"a NOOP", "d NOOP", "b VRFY x", "d VRFY x", "c RSET", "d RSET"},
		},
		{
			why: "what one in it fails at", say: []string{"NOOP"}, codes: []int{421}, failed: "b: it is broken",
			hook: func(c *cast) smtpproxy.Hook {
				return named("all", routes(byVerb{"NOOP": named("b", c.plays("b", part{"NOOP": breaks}))}))
			},
			shown: []string{"b NOOP"},
		},
	})
}

// nothing is a hook that passes everything.
type nothing struct{}

func (nothing) Command(*hookContext, command, connection, transaction) (decision, error) {
	return nil, nil
}

func TestTheVerbsOfAMuxAreAddedToProxyCommands(t *testing.T) {
	hook := func(c *cast) smtpproxy.Hook {
		return chain(c.plays("a", nil), routes(byVerb{"xping": c.plays("b", part{"XPING": refuses}), "": c.plays("c", nil)}))
	}
	say, codes := []string{"NOOP", "XPING", "VRFY x", "?"}, []int{250, 550, 252, 500}
	shown := []string{"a NOOP", "c NOOP", "a XPING", "b XPING"}
	playAll(t, []composed{
		{why: "in a chain", commands: []string{"NOOP"}, hook: hook, say: say, codes: codes, shown: shown},
		{
			why: "in a wrapper that tells what it calls", commands: []string{"NOOP"}, say: say, codes: codes, shown: shown,
			hook: func(c *cast) smtpproxy.Hook { return openWrapper{wrapper{hook(c)}} },
		},
		{
			why: "not in a wrapper that doesn't tell", commands: []string{"NOOP"}, say: say, codes: []int{250, 500, 252, 500}, shown: shown[:2],
			hook: func(c *cast) smtpproxy.Hook { return wrapper{hook(c)} },
		},
		{
			why: "all go to a Mux where Proxy.Commands is empty", say: say, codes: codes, hook: hook,
			shown: append(shown[:4:4], "a VRFY x", "c VRFY x", "a ?", "c ?"),
		},
	})
}

// openWrapper is one that tells what it calls.
type openWrapper struct{ wrapper }

func (w openWrapper) Unwrap() smtpproxy.Hook { return w.calls }

func TestWhoHasAskedInAMuxGetsACommandOfAnotherVerbBeforeTheHookForIt(t *testing.T) {
	playAll(t, []composed{
		{
			why: "another verb", say: []string{"NOOP", "VRFY x", "VRFY y"}, codes: []int{250, 252, 252},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", nil), routes(byVerb{"NOOP": c.plays("b", part{"NOOP": asksNext}), "VRFY": c.plays("c", nil)}), c.plays("d", nil))
			},
			shown: []string{
				"a NOOP", "b NOOP", "d NOOP", "a VRFY x", "b VRFY x", "c VRFY x", "d VRFY x", "a VRFY y", "c VRFY y", "d VRFY y",
			},
		},
		{
			why: "its own verb, once", say: []string{"NOOP", "NOOP 2"}, codes: []int{250, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"NOOP": c.plays("a", part{"NOOP": asksNext}), "": c.plays("b", nil)})
			},
			shown: []string{"a NOOP", "a NOOP 2"},
		},
		{
			why: "it rewrites the line, which then is for another", say: []string{"NOOP", "VRFY x"}, codes: []int{250, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{
					"NOOP": c.plays("a", part{"NOOP": asksNext, "VRFY x": turnsTo("RSET")}), "VRFY": c.plays("b", nil), "RSET": c.plays("c", nil),
				})
			},
			shown: []string{"a NOOP", "a VRFY x", "c RSET <- VRFY x"},
		},
		{
			why: "it rewrites the line into one of its own, and has had it", say: []string{"NOOP", "VRFY x"}, codes: []int{250, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"NOOP": c.plays("a", part{"NOOP": asksNext, "VRFY x": turnsTo("NOOP 2")}), "VRFY": c.plays("b", nil)})
			},
			shown: []string{"a NOOP", "a VRFY x"},
		},
		{
			why: "it refuses it", say: []string{"NOOP", "VRFY x", "VRFY y"}, codes: []int{250, 550, 252},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"NOOP": c.plays("a", part{"NOOP": asksNext, "VRFY": refuses}), "VRFY": c.plays("b", nil)})
			},
			shown: []string{"a NOOP", "a VRFY x", "b VRFY y"},
		},
		{
			why: "Else has asked", say: []string{"RSET", "NOOP"}, codes: []int{250, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"NOOP": c.plays("a", nil), "": c.plays("b", part{"RSET": asksNext})})
			},
			shown: []string{"b RSET", "b NOOP", "a NOOP"},
		},
		{
			why: "a hook before has answered the line, and the next isn't the one asked for", say: []string{"NOOP", "VRFY x", "RSET"}, codes: []int{250, 550, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"VRFY": refuses}), routes(byVerb{"NOOP": c.plays("b", part{"NOOP": asksNext}), "RSET": c.plays("c", nil)}))
			},
			shown: []string{"a NOOP", "b NOOP", "a VRFY x", "a RSET", "c RSET"},
		},
		{
			why: "a line that Proxy.Commands keeps from the others", commands: []string{"NOOP"}, say: []string{"NOOP", "RSET", "VRFY x"}, codes: []int{250, 250, 252},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"NOOP": c.plays("a", part{"NOOP": asksNext}), "": c.plays("b", nil)})
			},
			shown: []string{"a NOOP", "a RSET"},
		},
		{
			why: "a line of an exchange is for who has asked alone", say: []string{"AUTH PLAIN", response, "NOOP"}, codes: []int{334, 235, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{"AUTH": c.plays("a", part{"AUTH": asksNext}), "": c.plays("b", nil)})
			},
			shown: []string{"a AUTH PLAIN", "a (SASL) " + response, "b NOOP"},
		},
		{
			why: "the answer to a challenge of one in it", say: []string{"RSET", "AUTH X", "c2VjcmV0", "NOOP"}, codes: []int{250, 334, 235, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return routes(byVerb{
					"AUTH": c.plays("a", part{"AUTH": challenge, "SASL": does(reply{Code: 235})}),
					"RSET": c.plays("b", part{"RSET": asksNext, "AUTH": asksNext}), "": c.plays("c", nil),
				})
			},
			shown: []string{"b RSET", "b AUTH X", "a AUTH X", "a (SASL) c2VjcmV0", "c NOOP"},
		},
	})
}

// A hook gets the one line after the one at which it has asked, in a wrapper as well: that
// line may not come there, and then no other does.
func TestWhoHasAskedInAWrapperGetsNoLaterLine(t *testing.T) {
	inner := func(c *cast) smtpproxy.Hook {
		return routes(byVerb{"NOOP": c.plays("b", part{"NOOP": asksNext}), "AUTH": c.plays("c", nil)})
	}
	playAll(t, []composed{
		{
			why: "a hook before the wrapper has answered the line", say: []string{"NOOP", "VRFY x", "AUTH PLAIN " + response}, codes: []int{250, 550, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"VRFY": refuses}), wrapper{inner(c)})
			},
			shown: []string{"a NOOP", "b NOOP", "a VRFY x", "a AUTH PLAIN " + response, "c AUTH PLAIN " + response},
		},
		{
			why: "the wrapper hasn't asked in turn", commands: []string{"NOOP", "AUTH"}, say: []string{"NOOP", "VRFY x", "AUTH PLAIN " + response}, codes: []int{250, 252, 235},
			hook: func(c *cast) smtpproxy.Hook {
				h := inner(c)
				return smtpproxy.HookFunc(func(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
					_, err := h.Command(ctx, cmd, conn, txn)
					return nil, err
				})
			},
			shown: []string{"b NOOP", "c AUTH PLAIN " + response},
		},
		{
			why: "the line has come to the wrapper", say: []string{"NOOP", "AUTH PLAIN " + response}, codes: []int{250, 235},
			hook:  func(c *cast) smtpproxy.Hook { return chain(c.plays("a", nil), wrapper{wrapper{inner(c)}}) },
			shown: []string{"a NOOP", "b NOOP", "a AUTH PLAIN " + response, "b AUTH PLAIN " + response, "c AUTH PLAIN " + response},
		},
		{
			why: "a wrapper in another, which has asked", say: []string{"NOOP", "VRFY x", "AUTH PLAIN " + response}, codes: []int{250, 550, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return wrapper{chain(c.plays("a", part{"NOOP": asksNext, "VRFY": does(reply{Code: 550, Next: true})}), wrapper{inner(c)})}
			},
			shown: []string{"a NOOP", "b NOOP", "a VRFY x", "a AUTH PLAIN " + response, "c AUTH PLAIN " + response},
		},
		{
			why: "two wrappers, of which one has asked", say: []string{"NOOP", "AUTH PLAIN " + response}, codes: []int{250, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return wrapper{chain(wrapper{routes(byVerb{"RSET": c.plays("a", nil)})}, wrapper{inner(c)}, c.plays("d", nil))}
			},
			shown: []string{"b NOOP", "d NOOP", "b AUTH PLAIN " + response, "c AUTH PLAIN " + response, "d AUTH PLAIN " + response},
		},
	})
}

func TestHandlePanicsOnWhatCannotBeRouted(t *testing.T) {
	handle := func(verb string) func(*smtpproxy.Mux) { return func(m *smtpproxy.Mux) { m.Handle(verb, nothing{}) } }
	extend := func(keyword, verb string) func(*smtpproxy.Mux) {
		return func(m *smtpproxy.Mux) { m.Extend(keyword, verb, nothing{}) }
	}
	for _, row := range []struct {
		why  string
		do   func(m *smtpproxy.Mux)
		want string // "" is no panic
	}{
		{"another verb", handle("VRFY"), ""},
		{"an unknown verb", handle("xPing1"), ""},
		{"a verb twice", handle("NOOP"), "smtpproxy: Mux has a hook for NOOP already"},
		{"a verb twice, in another case", handle("noop"), "smtpproxy: Mux has a hook for NOOP already"},
		{"no verb", handle(""), `smtpproxy: "" is no verb for a Mux`},
		{"two words", handle("VRFY x"), `smtpproxy: "VRFY x" is no verb for a Mux`},
		{"a blank before", handle(" VRFY"), `smtpproxy: " VRFY" is no verb for a Mux`},
		{"a blank behind", handle("VRFY "), `smtpproxy: "VRFY " is no verb for a Mux`},
		{"a digit before", handle("1VRFY"), `smtpproxy: "1VRFY" is no verb for a Mux`},
		{"no hook", func(m *smtpproxy.Mux) { m.Handle("VRFY", nil) }, "smtpproxy: Mux has no hook for VRFY"},
		{"no function", func(m *smtpproxy.Mux) { m.HandleFunc("VRFY", nil) }, "smtpproxy: Mux has no function for VRFY"},
		{"a function", func(m *smtpproxy.Mux) { m.HandleFunc("VRFY", nothing{}.Command) }, ""},
		{"an extension", extend("XPING", "XPING"), ""},
		{"an extension with parameters", extend("XCLIENT NAME ADDR", "XCLIENT"), ""},
		{"an extension whose verb is there", extend("XPING", "NOOP"), "smtpproxy: Mux has a hook for NOOP already"},
		{"an extension without a keyword", extend("", "XPING"), `smtpproxy: "" is no keyword for a Mux`},
		{"an extension of what the library offers itself", extend("STARTTLS", "XPING"), `smtpproxy: "STARTTLS" is no keyword for a Mux`},
	} {
		m := routes(byVerb{"NOOP": nothing{}})
		if got := panicOf(func() { row.do(m) }); got != row.want {
			t.Errorf("%s: %q, want %q", row.why, got, row.want)
		}
	}
}

// panicOf returns what f panics with, as text; "" if it doesn't.
func panicOf(f func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}

func TestWhatIsRegisteredLaterCountsForAMuxThatAWrapperCalls(t *testing.T) {
	c := new(cast)
	m := routes(byVerb{"NOOP": c.plays("a", nil)})
	s := (&smtpproxy.Proxy{Hook: wrapper{m}}).NewSession(connection{})
	for _, line := range []string{"NOOP", "VRFY x"} {
		s.Command(t.Context(), line)
		s.Replied(250)
		if line == "NOOP" {
			m.Handle("VRFY", c.plays("b", nil))
		}
	}
	if got := fmt.Sprint(c.shown); got != "[a NOOP b VRFY x]" {
		t.Errorf("shown was %s", got)
	}
}
