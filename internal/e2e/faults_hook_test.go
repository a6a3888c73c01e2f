package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has hooks that fail at each command of a session.

// hookFault is what a hook does at one of its calls.
type hookFault struct {
	name    string
	act     func(ctx *hookContext) (decision, error)
	timeout time.Duration // Proxy.HookTimeout
	closes  bool          // it takes a Close to end it
	exits   bool          // by runtime.Goexit
}

var hookFaults = []hookFault{
	{name: "it fails", act: func(*hookContext) (decision, error) { return nil, errTest }},
	{name: "it panics", act: func(*hookContext) (decision, error) { panic("no") }},
	{name: "it panics within its time", act: func(*hookContext) (decision, error) { panic("no") }, timeout: time.Minute},
	{name: "it ends its goroutine", exits: true, act: func(*hookContext) (decision, error) { runtime.Goexit(); return nil, nil }},
	{name: "no reply", act: func(*hookContext) (decision, error) { return reply{Code: 99}, nil }},
	{name: "two replies in one", act: func(*hookContext) (decision, error) {
		return reply{Code: 250, Lines: []string{"a\r\n250 b"}}, nil
	}},
	{name: "two commands in one", act: func(*hookContext) (decision, error) { return pass{Command: "NOOP\r\nNOOP"}, nil }},
	{name: "no command", act: func(*hookContext) (decision, error) { return pass{Command: " "}, nil }},
	{name: "a nil pointer", act: func(*hookContext) (decision, error) { return (*reply)(nil), nil }},
	{name: "it waits for its time to pass", timeout: time.Minute, act: func(ctx *hookContext) (decision, error) {
		<-ctx.Done()
		return nil, nil
	}},
	{name: "it takes twice its time", timeout: time.Minute, act: func(*hookContext) (decision, error) {
		time.Sleep(2 * time.Minute) // in a bubble
		return pass{Command: "RSET"}, nil
	}},
	{name: "it panics when its time has passed", timeout: time.Minute, act: func(*hookContext) (decision, error) {
		time.Sleep(2 * time.Minute) // in a bubble
		panic("late")
	}},
	{name: "it waits until the server is closed", closes: true, act: func(ctx *hookContext) (decision, error) {
		<-ctx.Done()
		return nil, nil
	}},
	{name: "it waits, in vain for its time, until the server is closed", timeout: 100 * time.Hour, closes: true, act: func(ctx *hookContext) (decision, error) {
		<-ctx.Done()
		return reply{}, nil
	}},
}

// keeper is a hook that keeps what it is given, and looks at it, and calls what
// can be called, on goroutines of its own until the end.
type keeper struct {
	answerHelp
	at    int
	fault *hookFault
	calls int
	busy  sync.WaitGroup
	done  chan struct{}
	kept  []*hookContext
	in    chan struct{}
}

// keptState is the user state of a keeper.
type keptState struct {
	sync.Mutex
	n int
}

func facts(conn connection, txn transaction, cmd command) string {
	var all strings.Builder
	fmt.Fprint(&all, conn.ID, conn.HELO, conn.Auth, txn.ID, txn.Active, txn.Sender, cmd)
	for k, v := range txn.SenderParams.All() {
		fmt.Fprint(&all, k, v)
	}
	for _, r := range txn.Recipients.All() {
		fmt.Fprint(&all, r.Recipient)
	}
	return all.String()
}

func (k *keeper) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	k.calls++
	k.kept = append(k.kept, ctx)
	state := smtpproxy.State[keptState](ctx)
	first := facts(conn, txn, cmd)
	k.busy.Go(func() {
		for n := 0; ; n++ {
			ctx.Err()
			ctx.Deadline()
			ctx.Value("key")
			stop := ctx.AfterFunc(func() {})
			stop()
			smtpproxy.State[keptState](ctx).Lock()
			state.n++
			state.Unlock()
			if now := facts(conn, txn, cmd); now != first {
				panic(fmt.Sprintf("%q became %q", first, now))
			}
			// What it does to its copies is its own affair.
			conn, cmd := conn, cmd
			conn.HELO.Host, conn.Auth.Username, cmd.Line = "evil", "root", "QUIT"
			txn := txn
			txn.Recipients, txn.Active = smtpproxy.NewRecipients(), !txn.Active
			if n < 3 {
				runtime.Gosched() // as soon as it can, beside the session
				continue
			}
			select {
			case <-k.done:
				return
			case <-time.After(time.Minute):
			}
		}
	})
	if k.fault != nil && k.calls == k.at {
		close(k.in)
		return k.fault.act(ctx)
	}
	return k.answerHelp.Command(ctx, cmd, conn, txn)
}

// endure plays a session in a bubble whose hook fails at one of its calls.
func endure(t *testing.T, server *servertest.Server, turns []turn, ahead bool, f *hookFault, at int) (got []string, rest string, k *keeper) {
	k = &keeper{at: at, fault: f, done: make(chan struct{}), in: make(chan struct{})}
	p := smtpproxy.Proxy{Hook: k}
	if f != nil {
		p.HookTimeout = f.timeout
	}
	var conns []net.Conn
	tr := overPipe(t)
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(wrappedListener{p.Listener(tr), func(c net.Conn) net.Conn {
			conns = append(conns, c)
			return c
		}})
	}()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var closing sync.WaitGroup
	if f != nil && f.closes {
		closing.Go(func() {
			select {
			case <-k.in:
				time.Sleep(time.Second) // in a bubble
			case <-over:
			}
			for _, c := range conns {
				c.Close()
			}
		})
	}
	start := time.Now()
	got, rest = chat(c, turns, ahead)
	if d := time.Since(start); d > 5*time.Minute {
		t.Errorf("it takes %v", d)
	}
	close(over)
	closing.Wait()
	server.Close()
	<-served
	time.Sleep(2 * time.Minute) // calls that were given up still run
	close(k.done)
	k.busy.Wait()
	for i, ctx := range k.kept {
		select {
		case <-ctx.Done():
		default:
			t.Errorf("the context of call %d isn't done", i+1)
		}
		if !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("the context of call %d ended with %v", i+1, ctx.Err())
		}
	}
	if session, ok := smtpproxy.SessionOf(conns[0]); !ok || session.Context().Err() == nil {
		t.Error("the session isn't over")
	}
	return got, rest, k
}

func TestAHookMayFailAtAnyCommand(t *testing.T) {
	for _, name := range []string{"go-smtp", "go-smtp, LMTP", "strict", "reads ahead"} {
		for _, ahead := range []bool{false, true} {
			if name != "go-smtp" && ahead != (name == "strict") {
				continue // one of both will do
			}
			t.Run(fmt.Sprintf("%s, ahead %t", name, ahead), func(t *testing.T) {
				var want, messages []string
				calls := 0
				play := func(f *hookFault, at int) {
					synctest.Test(t, func(t *testing.T) {
						server := faultedServers[name]()
						got, rest, k := endure(t, server, played(name), ahead, f, at)
						var taken []string
						for _, m := range server.Messages() {
							taken = append(taken, fmt.Sprintf("%s %q", m.From, m.Data))
						}
						if f == nil {
							want, messages, calls = got, taken, k.calls
							return
						}
						if problem := misplaced(got, rest, want); problem != "" {
							t.Errorf("%s, at call %d: %s\ngot  %q\nwant %q", f.name, at, problem, got, want)
						}
						if k.calls != at {
							t.Errorf("%s, at call %d: it is called again", f.name, at)
						}
						if len(taken) > len(messages) || !slices.Equal(taken, messages[:len(taken)]) || len(taken) < accepted(got) {
							t.Errorf("%s, at call %d: the server took %q, the client got %q", f.name, at, taken, got)
						}
						leave := len(got) > 0 && strings.HasPrefix(got[len(got)-1], "421")
						if leave == f.closes {
							t.Errorf("%s, at call %d: the client got %q", f.name, at, got)
						}
						for _, line := range server.Commands() {
							if !slices.Contains(k.passed(), line) && !strings.HasPrefix(name, "go-smtp") {
								t.Errorf("%s, at call %d: the server executed %q", f.name, at, line)
							}
						}
					})
				}
				play(nil, 0)
				if len(messages) == 0 || calls < 13 {
					t.Fatalf("without a fault, the client got %q", want)
				}
				for i := range hookFaults {
					if hookFaults[i].exits && name == "reads ahead" {
						continue // the goroutine is the one that reads, and its server waits for it
					}
					for at := 1; at <= calls; at++ {
						play(&hookFaults[i], at)
					}
				}
			})
		}
	}
}
