package e2e

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about hooks that a wrapper of the user's calls, in the library's place. That
// they are the same hooks then, all scenes of this package hold (see playAll).

func TestAWrapperGetsALineForWhomItCallsThoughOneOfThemHasFailed(t *testing.T) {
	hook := func(c *cast) smtpproxy.Hook {
		return chain(c.plays("a", part{"AUTH": asksNext}), named("b", c.plays("b", part{"AUTH": breaks})))
	}
	playAll(t, []composed{
		{
			why: "OnFailure asks for a wrapper, in which one has asked", instead: pass{Next: true}, direct: true,
			hook: func(c *cast) smtpproxy.Hook { return wrapper{hook(c)} },
			say:  []string{"AUTH PLAIN", response}, codes: []int{334, 235}, failed: "b: it is broken",
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "a (SASL) " + response},
		},
	})
}

// A test of a hook of one's own has no session, only a Context.
func TestAChainThatIsCalledWithoutASessionGoesByItsContext(t *testing.T) {
	c := new(cast)
	m := routes(byVerb{"AUTH": c.plays("a", part{"AUTH": asksNext}), "NOOP": c.plays("b", part{"NOOP": turnsTo("VRFY x")}), "XOWN": c.plays("c", part{"XOWN": challenge})})
	hook := chain(m, c.plays("d", nil))
	one, another := smtpproxy.NewContext(t.Context()), smtpproxy.NewContext(t.Context())
	for _, row := range []struct {
		why  string
		ctx  *hookContext
		cmd  command
		want decision
	}{
		{"the line as it was received is the line", one, command{Line: "NOOP"}, pass{Command: "VRFY x"}},
		{"one asks for the next line", one, command{Line: "AUTH PLAIN"}, pass{Next: true}},
		{"of this client alone", another, command{Line: "AAAA", SASL: true}, pass{}},
		{"and gets it", one.WithContext(t.Context()), command{Line: "BBBB", SASL: true}, pass{}},
		{"and no other", one, command{Line: "CCCC", SASL: true}, pass{}},
		{"one has a challenge of its own", one, command{Line: "XOWN"}, reply{Code: 334, Lines: []string{"AAAA"}}},
		{"whose answer it gets", one, command{Line: "DDDD", SASL: true}, pass{}},
	} {
		d, err := hook.Command(row.ctx, row.cmd, connection{}, transaction{})
		if err != nil || !reflect.DeepEqual(d, row.want) {
			t.Errorf("%s: %v, %v", row.why, d, err)
		}
	}
	want := []string{"b NOOP", "d VRFY x <- NOOP", "a AUTH PLAIN", "d AUTH PLAIN", "a (SASL) BBBB", "c XOWN", "c (SASL) DDDD"}
	if !slices.Equal(c.shown, want) {
		t.Errorf("shown was %q", c.shown)
	}
}

// A call that is given up goes on beside the next one, if OnFailure lets the connection go on.
func TestAWrapperThatIsGivenUpHarmsNoneOfTheChainThatItCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := true
		shown := make(chan string, 100)
		hook := wrapper{chain(
			decide(func(cmd command) (decision, error) { shown <- "a " + cmd.Line; return pass{Next: true}, nil }),
			decideIn(func(ctx *hookContext, cmd command) (decision, error) {
				shown <- "b " + cmd.Line
				if slow {
					slow = false
					<-ctx.Done() // and goes on beside the next call
				}
				return pass{Next: true}, nil
			}))}
		p := &smtpproxy.Proxy{Hook: hook, HookTimeout: time.Second, OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision {
			if !errors.Is(f, smtpproxy.ErrHookTimeout) {
				t.Error(f)
			}
			return pass{}
		}}
		s := p.NewSession(connection{})
		for i := range 20 {
			line := fmt.Sprint("NOOP ", i)
			if d := s.Command(context.Background(), line); d.(pass).Command != line {
				t.Errorf("%s: %v", line, d)
			}
			s.Replied(250)
			for _, name := range []string{"a ", "b "} {
				if got := <-shown; got != name+line {
					t.Errorf("shown was %q", got)
				}
			}
		}
		s.Close()
	})
}
