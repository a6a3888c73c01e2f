package apitest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about what hooks of hooks cost, and about a Context for another hook.

// passes is a hook that passes everything.
type passes struct{}

func (passes) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

func TestHooksOfHooksAllocateNothingForACommand(t *testing.T) {
	called := 0
	counts := smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		called++
		return nil, nil
	})
	m := new(smtpproxy.Mux)
	m.Handle("NOOP", smtpproxy.Chain(counts, passes{}))
	m.Handle("MAIL", passes{})
	withElse := &smtpproxy.Mux{Else: counts}
	for _, row := range []struct {
		why  string
		hook smtpproxy.Hook
		line string
	}{
		{"a chain of three", smtpproxy.Chain(counts, passes{}, counts), "NOOP"},
		{"with names", smtpproxy.Named("x", smtpproxy.Chain(smtpproxy.Named("y", counts), passes{})), "NOOP"},
		{"functions", smtpproxy.Funcs{OnCommand: counts}, "NOOP"},
		{"a Mux", m, "NOOP"},
		{"a Mux in a chain", smtpproxy.Chain(passes{}, m, counts), "NOOP"},
		{"Else of a Mux", smtpproxy.Chain(passes{}, withElse), "VRFY x"},
	} {
		called = 0
		s := (&smtpproxy.Proxy{Hook: row.hook}).NewSession(smtpproxy.Connection{})
		ctx := context.Background()
		allocations := testing.AllocsPerRun(1000, func() {
			if _, ok := s.Command(ctx, row.line).(smtpproxy.Pass); !ok {
				t.Error("not passed")
			}
			s.Replied(250)
		})
		if allocations != 0 {
			t.Errorf("%s: %v allocations for each command", row.why, allocations)
		}
		if called < 1000 {
			t.Errorf("%s: the hooks were called %d times", row.why, called)
		}
	}
}

type visits struct{ n int }

type key struct{}

func TestAContextMadeFromAnotherHasTheSameStateAndNothingElseOfIt(t *testing.T) {
	before, cancelBefore := context.WithCancel(context.WithValue(t.Context(), key{}, "before"))
	defer cancelBefore()
	ctx := smtpproxy.NewContext(before)
	smtpproxy.State[visits](ctx).n = 1

	at := time.Now().Add(time.Hour)
	parent, cancel := context.WithDeadline(context.WithValue(t.Context(), key{}, "with"), at)
	defer cancel()
	with := ctx.WithContext(parent)

	smtpproxy.State[visits](with).n++
	if n := smtpproxy.State[visits](ctx).n; n != 2 {
		t.Errorf("the state is another one, with %d", n)
	}
	if got, ok := with.Deadline(); !ok || !got.Equal(at) {
		t.Errorf("its deadline is %v, %t", got, ok)
	}
	if _, ok := ctx.Deadline(); ok {
		t.Error("the first one has a deadline")
	}
	if got := fmt.Sprintf("%v %v", with.Value(key{}), ctx.Value(key{})); got != "with before" {
		t.Errorf("their values are %s", got)
	}
	cancelBefore()
	if err := with.Err(); err != nil {
		t.Errorf("it ends with the first one: %v", err)
	}
	done := make(chan struct{})
	with.AfterFunc(func() { close(done) })
	cancel()
	<-done
	<-with.Done()
	if err := with.Err(); err != context.Canceled {
		t.Errorf("behind its end, its error is %v", err)
	}
	if again := with.WithContext(t.Context()); again.Err() != nil || smtpproxy.State[visits](again).n != 2 {
		t.Errorf("one made from it: %v, %+v", again.Err(), smtpproxy.State[visits](again))
	}
}

func TestAContextMadeFromAnotherGoesThroughHooks(t *testing.T) {
	inner := smtpproxy.HookFunc(func(ctx *smtpproxy.Context, _ smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		smtpproxy.State[visits](ctx).n++
		if got := ctx.Value(key{}); got != "outer" {
			t.Errorf("the inner hook's value is %v", got)
		}
		return nil, nil
	})
	outer := smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return inner(ctx.WithContext(context.WithValue(ctx, key{}, "outer")), cmd, conn, txn)
	})
	s := (&smtpproxy.Proxy{Hook: outer}).NewSession(smtpproxy.Connection{})
	s.Command(t.Context(), "NOOP")
	if n := smtpproxy.State[visits](s.Context()).n; n != 1 {
		t.Errorf("the session has another state, with %d", n)
	}
}

// A hook that makes one for each command, from a context that lives as long as the server,
// must not leave something behind in that for each.
func TestAContextMadeFromAnotherLeavesNothingBehind(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	with := smtpproxy.NewContext(t.Context()).WithContext(parent)
	if with.Done() != parent.Done() {
		t.Error("it has an end of its own, which its parent has to keep")
	}
}

func TestAContextIsNotMadeFromNil(t *testing.T) {
	defer func() {
		if v := recover(); v != "smtpproxy: nil context" {
			t.Errorf("panicked with %v", v)
		}
	}()
	var none context.Context
	smtpproxy.NewContext(t.Context()).WithContext(none)
}

// A word that nobody knows may be a password behind a failed AUTH. What a Mux has a hook for
// is known.
func TestAVerbOfAMuxIsNoPasswordBehindAFailedAUTH(t *testing.T) {
	var shown []string
	print := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		shown = append(shown, cmd.String())
		return nil, nil
	})
	m := new(smtpproxy.Mux)
	m.Handle("XPING", print)
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(print, m)})
	s.Answer("AUTH", 535)
	s.Send("EHLO a.example")
	s.Send("AUTH PLAIN AGEAYg==")
	s.Send("XPING 1")
	s.Send("hunter2")
	if want := []string{"EHLO a.example", "AUTH PLAIN ****", "XPING 1", "XPING 1", "****"}; !slices.Equal(shown, want) {
		t.Errorf("shown: %q, want %q", shown, want)
	}
}

// A server of one's own that closes by itself says so before (RFC 5321 section 3.8).
func TestASessionThatIsClosedWithoutAWordHasLostItsClient(t *testing.T) {
	for _, tt := range []struct {
		why  string
		does func(s *smtpproxy.Session)
		by   smtpproxy.Side
		want smtpproxy.Reason
	}{
		{"nothing is said", func(*smtpproxy.Session) {}, smtpproxy.SideClient, smtpproxy.ReasonClientGone},
		{"421 is said", func(s *smtpproxy.Session) { s.Replied(421, "Shutting down") }, smtpproxy.SideServer, smtpproxy.ReasonRefused},
	} {
		ends := make(chan smtpproxy.End, 1)
		s := (&smtpproxy.Proxy{Hook: smtpproxy.Funcs{
			OnDisconnect: func(_ *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) { ends <- end },
		}}).NewSession(smtpproxy.Connection{})
		s.Connect(t.Context())
		s.Replied(220)
		tt.does(s)
		s.Close()
		if end := <-ends; end.By != tt.by || end.Reason != tt.want {
			t.Errorf("%s: ended by the %v, %v", tt.why, end.By, end.Reason)
		}
	}
}
