package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about hooks that look at their Context, what that costs, and what becomes of
// it behind the call.

// lookers are the ways in which a hook can look whether its call is called off.
var lookers = map[string]func(ctx *hookContext) (stop func(), err func() error){
	"Done": func(ctx *hookContext) (func(), func() error) {
		done := ctx.Done()
		return func() {}, func() error {
			select {
			case <-done:
				return context.Canceled
			default:
				return nil
			}
		}
	},
	"Err": func(ctx *hookContext) (func(), func() error) { ctx.Err(); return func() {}, ctx.Err },
	"context.Cause": func(ctx *hookContext) (func(), func() error) {
		return looksAgain(func() error { return context.Cause(ctx) })
	},
	"context.Cause of one with a value": func(ctx *hookContext) (func(), func() error) {
		with := context.WithValue(ctx, lookers1{}, 1)
		return looksAgain(func() error { return context.Cause(with) })
	},
	"AfterFunc": func(ctx *hookContext) (func(), func() error) {
		return looksByFunc(func(f func()) { ctx.AfterFunc(f) })
	},
	"context.AfterFunc": func(ctx *hookContext) (func(), func() error) {
		return looksByFunc(func(f func()) { context.AfterFunc(ctx, f) })
	},
	"context.WithCancel": func(ctx *hookContext) (func(), func() error) {
		with, cancel := context.WithCancel(ctx)
		return cancel, with.Err
	},
	"context.WithTimeout": func(ctx *hookContext) (func(), func() error) {
		with, cancel := context.WithTimeout(ctx, 24*time.Hour)
		return cancel, with.Err
	},
	"WithContext of one with a deadline": func(ctx *hookContext) (func(), func() error) {
		with, cancel := context.WithTimeout(ctx, 24*time.Hour)
		inner := ctx.WithContext(with)
		return cancel, func() error { return errors.Join(inner.Err(), context.Cause(inner)) }
	},
}

type lookers1 struct{}

func looksAgain(err func() error) (func(), func() error) { err(); return func() {}, err }

func looksByFunc(after func(f func())) (func(), func() error) {
	called := make(chan struct{})
	after(func() { close(called) })
	return func() {}, func() error {
		select {
		case <-called:
			return context.Canceled
		default:
			return nil
		}
	}
}

func TestALookAtTheContextCostsOneGoroutineThatEndsWithTheCall(t *testing.T) {
	for why, look := range lookers {
		for _, twice := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%s, twice %v", why, twice), func(t *testing.T) {
				h := newHolder()
				_, _, v, ctx := heldBy(t, &smtpproxy.Proxy{Hook: h}, h, false)
				for range 3 { // what a look leaves behind is nothing to the next call
					synctest.Wait()
					before := goroutinesHere(t)
					stop, err := look(ctx)
					if twice {
						var stopAgain func()
						stopAgain, err = look(ctx)
						defer stopAgain()
					}
					synctest.Wait()
					if n := goroutinesHere(t) - before; n != 1 {
						t.Errorf("%d goroutines look", n)
					}
					if err := err(); err != nil {
						t.Errorf("it is done: %v", err)
					}
					h.decided <- reply{Code: 214}
					v.expect("214")
					synctest.Wait()
					if n := goroutinesHere(t) - before; n != 0 {
						t.Errorf("%d goroutines are left", n)
					}
					if err() == nil {
						t.Error("behind the call it isn't done")
					}
					stop()
					v.send("NOOP hold\r\n")
					ctx = <-h.entered
				}
				stop, err := look(ctx)
				defer stop()
				v.fin()
				synctest.Wait()
				if err() == nil {
					t.Error("the client has left, and it isn't done")
				}
				h.decided <- nil
				v.expect("250")
			})
		}
	}
}

func TestAHookThatDoesNotLookCostsNoGoroutine(t *testing.T) {
	for why, use := range map[string]func(ctx *hookContext){
		"nothing":     func(*hookContext) {},
		"Deadline":    func(ctx *hookContext) { ctx.Deadline() },
		"Value":       func(ctx *hookContext) { ctx.Value(lookers1{}); ctx.Value(new(int)) },
		"State":       func(ctx *hookContext) { smtpproxy.State[int](ctx) },
		"WithContext": func(ctx *hookContext) { _ = ctx.WithContext(context.Background()).Err() },
	} {
		bubble(t, why, func(t *testing.T) {
			h := newHolder()
			_, _, v, ctx := heldBy(t, &smtpproxy.Proxy{Hook: h}, h, false)
			for range 2 {
				synctest.Wait()
				before := goroutinesHere(t)
				use(ctx)
				synctest.Wait()
				if n := goroutinesHere(t) - before; n != 0 {
					t.Errorf("%d goroutines", n)
				}
				h.decided <- nil
				v.ask("NOOP hold", "250")
				ctx = <-h.entered
			}
			h.decided <- nil
		})
	}
}

func TestAHookThatDoesNotLookAllocatesNothing(t *testing.T) {
	cost := func(hook smtpproxy.Hook) float64 {
		tr := newTransport(false, connectInMemory)
		c, client, _ := acceptedOver(t, tr, &smtpproxy.Proxy{Hook: hook})
		defer c.Close()
		p, noop, ok := make([]byte, 1000), []byte("NOOP\r\n"), []byte("250 ok\r\n")
		c.Write(ok[:0])
		io.WriteString(c, "220 x\r\n")
		client.Read(p)
		return testing.AllocsPerRun(100, func() {
			client.Write(noop)
			c.Read(p)
			c.Write(ok)
			client.Read(p)
		})
	}
	with := func(use func(ctx *hookContext)) float64 {
		return cost(decideIn(func(ctx *hookContext, _ command) (decision, error) { use(ctx); return nil, nil }))
	}
	bare := cost(nil)
	if n := with(func(*hookContext) {}); n > bare {
		t.Errorf("%v allocations, %v without a hook", n, bare)
	}
	if n := with(func(ctx *hookContext) { ctx.Deadline(); ctx.Value(lookers1{}) }); n > bare {
		t.Errorf("%v allocations for a hook that asks for values, %v without a hook", n, bare)
	}
	if n := with(func(ctx *hookContext) { ctx.Done() }); n <= bare {
		t.Errorf("%v allocations for a hook that looks, %v without a hook: can that be?", n, bare)
	}
}

func TestAContextThatIsKeptBeyondTheCallTellsOfNoOther(t *testing.T) {
	for _, looked := range []bool{false, true} {
		bubble(t, fmt.Sprintf("looked at in the call %v", looked), func(t *testing.T) {
			h := newHolder()
			_, _, v, kept := heldBy(t, &smtpproxy.Proxy{Hook: h}, h, false)
			if looked {
				kept.Done()
			}
			h.decided <- nil
			v.expect("250")
			synctest.Wait()
			before := goroutinesHere(t)
			if kept.Err() != context.Canceled || context.Cause(kept) != context.Canceled {
				t.Errorf("behind the call: %v, %v", kept.Err(), context.Cause(kept))
			}
			synctest.Wait()
			if n := goroutinesHere(t) - before; n != 0 {
				t.Errorf("%d goroutines look behind the call", n)
			}
			v.send("NOOP hold\r\n")
			ctx := <-h.entered
			if looked && ctx == kept {
				t.Error("it serves another call")
			}
			ctx.Done()
			v.fin()
			synctest.Wait()
			if cause := context.Cause(ctx); cause != smtpproxy.ErrClientGone {
				t.Errorf("the next call's is done for %v", cause)
			}
			if looked && context.Cause(kept) != context.Canceled {
				t.Errorf("the first one's is done for %v", context.Cause(kept))
			}
			h.decided <- nil
		})
	}
}

// With WithContext, a hook that calls another decides what that is told.
func TestWithContextTellsWhatItsContextTells(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		h := newHolder()
		_, _, v, ctx := heldBy(t, &smtpproxy.Proxy{Hook: h}, h, false)
		timed, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		derived, apart := ctx.WithContext(timed), ctx.WithContext(context.Background())
		*smtpproxy.State[string](ctx) = "kept"
		for _, c := range []*hookContext{derived, apart} {
			if got := *smtpproxy.State[string](c); got != "kept" || c.Err() != nil {
				t.Errorf("state %q, %v", got, c.Err())
			}
		}
		v.fin()
		synctest.Wait()
		if context.Cause(derived) != smtpproxy.ErrClientGone || apart.Err() != nil {
			t.Errorf("done for %v; the other one: %v", context.Cause(derived), apart.Err())
		}
		h.decided <- nil
		v.expect("250")
		if strings.Contains(fmt.Sprint(apart.Err()), "cancel") {
			t.Error("it ends with the call, of which it isn't made")
		}
	})
}

// goroutinesHere counts the goroutines of the bubble: others may still end, of tests before.
func goroutinesHere(t *testing.T) int {
	t.Helper()
	buf := make([]byte, 1<<20)
	all := string(buf[:runtime.Stack(buf, true)])
	first, _, _ := strings.Cut(all, "\n")
	_, bubble, ok := strings.Cut(first, "synctest bubble ")
	if !ok {
		t.Fatalf("no bubble: %s", first)
	}
	return strings.Count(all, "synctest bubble "+bubble)
}
