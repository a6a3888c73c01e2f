package hooks_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about stores that are away, slow or wrong.

// badStore is a store that does what a test says, before it does what a good one does.
type badStore struct {
	hooks.MemoryStore
	mu     sync.Mutex
	before func(ctx context.Context, charges bool) error
	calls  int
}

func (b *badStore) do(ctx context.Context, charges bool) error {
	b.mu.Lock()
	f := b.before
	b.calls++
	b.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(ctx, charges)
}

func (b *badStore) set(f func(ctx context.Context, charges bool) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = f
}

func (b *badStore) Take(ctx context.Context, bucket hooks.Bucket, n int) (bool, error) {
	if err := b.do(ctx, false); err != nil {
		return false, err
	}
	return b.MemoryStore.Take(ctx, bucket, n)
}

func (b *badStore) Charge(ctx context.Context, bucket hooks.Bucket, n int) error {
	if err := b.do(ctx, true); err != nil {
		return err
	}
	return b.MemoryStore.Charge(ctx, bucket, n)
}

var errAway = errors.New("the store is away")

func isAway(context.Context, bool) error { return errAway }

// everyKind are limits of all kinds that ask a store.
func everyKind() (limits []hooks.Limit) {
	for what := hooks.Connections; what <= hooks.FailedAUTH; what++ {
		if what != hooks.Time {
			limits = append(limits, hooks.Limit{What: what, Per: hooks.PerNetwork, Max: 1, Every: time.Hour})
		}
	}
	return append(limits, hooks.Limit{What: hooks.Connections, Per: hooks.InAll, Max: 1})
}

func TestWithoutAStoreTheDialogueGoesOnAndTheLogTellsOnce(t *testing.T) {
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	store := new(badStore)
	store.set(isAway)
	hook := limitsIn(hooks.Limits{Store: store}, everyKind()...)
	for range 2 {
		s := limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 500 535 250 550 250 354 250 250", ehlo, "XYZZY", "535 AUTH PLAIN AGEAYg==", mail, "550 "+rcpt, rcpt, "DATA", ".", "NOOP")
		s.Close()
	}
	store.set(nil)
	s := limitsFrom(hook, "192.0.2.1") // nothing was counted, or given back
	say(t, s, "250 459", "NOOP", "NOOP")
	if other := limitsFrom(hook, "192.0.2.2"); isIn(other) {
		t.Error("a second connection is let in")
	}
	s.Close()
	got := log.String()
	if strings.Count(got, "\n") != 2 || !strings.Contains(got, "is away") || !strings.Contains(got, errAway.Error()) || !strings.Contains(got, "is back") {
		t.Errorf("the log has\n%s", got)
	}
}

func TestAStoreThatIsAwayIsAskedOnceInACall(t *testing.T) {
	store := new(badStore)
	var told int
	var limits []hooks.Limit
	for _, l := range everyKind() {
		if l.Max = 5; l.What != hooks.Connections {
			limits = append(limits, l)
		}
	}
	hook := limitsIn(hooks.Limits{Store: store, OnAway: func(*smtpproxy.Context, error) smtpproxy.Decision {
		told++
		return nil
	}}, limits...)
	s := limitsFrom(hook, "192.0.2.1")
	say(t, s, "250 250", ehlo, mail)
	store.set(isAway)
	for _, line := range []string{"NOOP", "550 " + rcpt, "500 XYZZY"} {
		store.calls, told = 0, 0
		say(t, s, map[string]string{"N": "250", "5": line[:3]}[line[:1]], line)
		if store.calls != told || told < 1 || told > 2 { // at the command, and at a reply that counts
			t.Errorf("%s: asked %d times, told %d times", line, store.calls, told)
		}
	}
}

func TestWhatIsDoneWithoutAStoreIsDecidedBehindWhatCouldNotBeGivenBack(t *testing.T) {
	store := new(badStore)
	hook := front(limitsIn(hooks.Limits{Store: store, OnAway: func(*smtpproxy.Context, error) smtpproxy.Decision {
		return smtpproxy.Reply{Code: 451}
	}}, hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 5}))
	s := limitsFrom(hook, "192.0.2.1")
	store.set(isAway)
	store.calls = 0
	say(t, s, "451", "XCLIENT ADDR=198.51.100.1")
	if store.calls != 1 {
		t.Errorf("asked %d times", store.calls)
	}
}

func TestWhatIsDoneWithoutAStoreIsChosen(t *testing.T) {
	store := new(badStore)
	var told []error
	var away smtpproxy.Decision
	hook := limitsIn(hooks.Limits{Store: store, OnAway: func(_ *smtpproxy.Context, err error) smtpproxy.Decision {
		told = append(told, err)
		return away
	}}, hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 5}, hooks.Limit{What: hooks.Recipients, Per: hooks.PerNetwork, Max: 5, Every: time.Hour},
		hooks.Limit{What: hooks.Errors, Per: hooks.PerNetwork, Max: 5, Every: time.Hour})
	s := limitsFrom(hook, "192.0.2.1")
	say(t, s, "250 250", ehlo, mail)
	store.set(isAway)
	for _, test := range []struct {
		away smtpproxy.Decision
		want string
	}{
		{nil, "250"},
		{smtpproxy.Pass{Delay: time.Second}, "250"},
		{smtpproxy.Reply{Code: 451, Enhanced: smtpproxy.EnhancedCode{4, 3, 0}, Lines: []string{"Come back later"}}, "451"},
	} {
		away = test.away
		say(t, s, test.want, rcpt)
	}
	if got := s.Reply().String(); got != "451 4.3.0 Come back later" {
		t.Errorf("got %q", got)
	}
	if other := limitsFrom(hook, "192.0.2.1"); isIn(other) || other.Reply().Code != 451 {
		t.Error("a client is let in")
	}
	if told[0] != errAway {
		t.Errorf("told of %v", told[0])
	}
	store.set(nil)
	away = smtpproxy.Reply{}
	say(t, s, "250", rcpt)
	store.set(isAway)
	say(t, s, "421", rcpt) // what it decides isn't valid
	if s.Failure() == nil {
		t.Error("that isn't a failure of the hook's")
	}
}

func TestWhereThereIsNothingToDecideAStoreThatIsAwayDecidesNothing(t *testing.T) {
	store := new(badStore)
	told := 0
	limits := hooks.Limits{Store: store, OnAway: func(*smtpproxy.Context, error) smtpproxy.Decision {
		told++
		return smtpproxy.Reply{Code: 451}
	}}
	s := limitsFrom(limitsIn(limits, hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 5},
		hooks.Limit{What: hooks.Errors, Per: hooks.PerNetwork, Max: 5, Every: time.Hour}), "192.0.2.1")
	store.set(func(_ context.Context, charges bool) error {
		if charges {
			return errAway
		}
		return nil
	})
	say(t, s, "500 250", "XYZZY", "NOOP") // the error isn't counted
	if s.Close(); told != 2 {             // and the connection isn't given back
		t.Errorf("told of %d errors, want 2", told)
	}
}

func TestAStoreIsWaitedForNoLongerThanTheLimitsSay(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{0: time.Second, 50 * time.Millisecond: 50 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			store := new(badStore)
			store.set(func(ctx context.Context, _ bool) error { <-ctx.Done(); return ctx.Err() })
			var told error
			hook := limitsIn(hooks.Limits{Store: store, Timeout: limit, OnAway: func(_ *smtpproxy.Context, err error) smtpproxy.Decision {
				told = err
				return nil
			}}, hooks.Limit{What: hooks.Commands, Per: hooks.PerNetwork, Max: 1, Every: time.Hour})
			s := limitsFrom(hook, "192.0.2.1")
			start := time.Now()
			say(t, s, "250", "NOOP")
			if took := time.Since(start); took != want || !errors.Is(told, context.DeadlineExceeded) {
				t.Errorf("waited for %v, and told of %v; want %v", took, told, want)
			}
		})
	}
}

// A client that leaves while a store counts what it has done would get around that.
func TestWhoLeavesIsCountedAllTheSame(t *testing.T) {
	store := new(badStore)
	store.set(func(ctx context.Context, _ bool) error { return ctx.Err() })
	limit := hooks.Limit{What: hooks.Commands, Per: hooks.PerNetwork, Max: 1, Every: time.Hour}
	hook := limitsIn(hooks.Limits{Store: store, OnAway: func(_ *smtpproxy.Context, err error) smtpproxy.Decision {
		t.Errorf("the store's context: %v", err)
		return nil
	}}, limit)
	limitsFrom(hook, "192.0.2.1").SendAndLeave("NOOP")
	say(t, limitsFrom(hook, "192.0.2.1"), "459", "NOOP")
}

func TestAStoreThatPanicsIsAFailureOfTheHooks(t *testing.T) {
	store := new(badStore)
	hook := limitsIn(hooks.Limits{Store: store}, hooks.Limit{What: hooks.Commands, Per: hooks.PerNetwork, Max: 1, Every: time.Hour},
		hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 1})
	s := limitsFrom(hook, "192.0.2.1")
	store.set(func(context.Context, bool) error { panic("wrong") })
	say(t, s, "421", "NOOP")
	store.set(nil)
	if s = limitsFrom(hook, "192.0.2.1"); !isIn(s) && !s.Closed() {
		t.Error("it isn't unlocked")
	}
}

// What a call takes that has been given up is given back with the rest.
func TestACallThatIsGivenUpLeavesNoConnectionBehind(t *testing.T) {
	store := new(badStore)
	hook := limitsIn(hooks.Limits{Store: store, Timeout: time.Hour}, hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 1})
	goOn := make(chan struct{})
	store.set(func(_ context.Context, charges bool) error {
		if !charges {
			<-goOn
		}
		return nil
	})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hook, HookTimeout: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	time.AfterFunc(100*time.Millisecond, func() { close(goOn) })
	s.Connect() // returns when the end is told
	select {
	case <-goOn:
	default:
		t.Error("the end was told while the call ran")
	}
	if s.Reply().Code != 421 {
		t.Fatalf("got %v", s.Reply())
	}
	store.set(nil)
	for range 2 {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hook})
		if s.Connect(); !isIn(s) {
			t.Error("the connection that was given up is still counted")
		}
		s.Close()
	}
}

func TestAStoreIsAskedNoMoreThanTheLimitsNeed(t *testing.T) {
	store := new(badStore)
	hook := limitsIn(hooks.Limits{Store: store}, hooks.Limit{What: hooks.Errors, Max: 9}, hooks.Limit{What: hooks.Commands, Max: 9, Every: time.Hour},
		hooks.Limit{What: hooks.Recipients, Per: hooks.PerSender, Max: 9, Every: time.Hour}, hooks.Limit{What: hooks.Messages, Per: hooks.PerNetwork, Max: 9, Every: time.Hour})
	s := limitsFrom(hook, "192.0.2.1")
	for _, test := range []struct {
		line  string
		calls int
	}{{ehlo, 0}, {mail, 1}, {rcpt, 2}, {"550 " + rcpt, 4}, {"NOOP", 4}, {"DATA", 5}, {".", 5}, {"QUIT", 5}} {
		s := s
		code, line := "250", test.line
		switch line {
		case "DATA":
			code = "354"
		case "QUIT":
			code = "221"
		case "550 " + rcpt:
			code = "550"
		}
		if say(t, s, code, line); store.calls != test.calls {
			t.Errorf("behind %q, the store was asked %d times, want %d", test.line, store.calls, test.calls)
		}
	}
}
