package e2e

import (
	"context"
	"errors"
	"fmt"
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
