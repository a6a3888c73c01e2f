package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about many hooks that wait at the same time.

// waitsOf are ways to wait for a time, or for the client to leave.
var waitsOf = map[string]func(ctx *hookContext, d time.Duration) error{
	"Done": func(ctx *hookContext, d time.Duration) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d):
			return nil
		}
	},
	"a context of its own": func(ctx *hookContext, d time.Duration) error {
		own, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		<-own.Done()
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return nil
	},
}

// Half of the clients leave while the hook waits.
func TestAThousandHooksThatWaitHaveOneGoroutineEachOnlyWhileTheyWait(t *testing.T) {
	const clients, waits = 1000, 50 * time.Millisecond
	const others = 2 // outside of the bubble: those of the runtime
	for name, wait := range waitsOf {
		bubble(t, name, func(t *testing.T) {
			var gone, stayed, other atomic.Int32
			hook := decideIn(func(ctx *hookContext, cmd command) (decision, error) {
				if cmd.Verb() != "NOOP" {
					return nil, nil
				}
				began := time.Now()
				switch err := wait(ctx, waits); {
				case errors.Is(err, smtpproxy.ErrClientGone) && time.Since(began) == waits/2:
					gone.Add(1)
				case err == nil && time.Since(began) == waits:
					stayed.Add(1)
				default:
					other.Add(1)
				}
				return reply{Code: 250, Enhanced: smtpproxy.NoEnhancedCode, Lines: []string{cmd.Args()}}, nil
			})
			f := behindListener(&smtpproxy.Proxy{Hook: hook}, servertest.Strict())
			tr := overPipe(t)
			f.start(t, tr)
			begin := make(chan struct{})
			conns, replies := make([]net.Conn, clients), make([]string, clients)
			for i := range clients {
				c, err := tr.dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns[i] = c
				go func() {
					r := bufio.NewReader(c)
					readReply(r)
					<-begin
					fmt.Fprintf(c, "NOOP %d\r\n", i)
					replies[i], _ = r.ReadString('\n')
					<-t.Context().Done()
				}()
			}
			synctest.Wait()
			idle := runtime.NumGoroutine()
			close(begin)
			synctest.Wait()
			if n := runtime.NumGoroutine() - idle; n > clients+others {
				t.Errorf("%d goroutines more for %d calls that wait", n, clients)
			}
			time.Sleep(waits / 2) // in a bubble
			for _, c := range conns[:clients/2] {
				c.Close()
			}
			synctest.Wait()
			if n := runtime.NumGoroutine() - idle; n > clients/2+others {
				t.Errorf("%d goroutines more for %d calls that wait, and clients that have left", n, clients/2)
			}
			time.Sleep(waits / 2) // in a bubble
			synctest.Wait()
			if n := runtime.NumGoroutine() - idle; n > others {
				t.Errorf("%d goroutines more when nobody waits", n)
			}
			if gone.Load() != clients/2 || stayed.Load() != clients/2 || other.Load() != 0 {
				t.Errorf("the hook was left by %d clients, has waited for %d, and else %d", gone.Load(), stayed.Load(), other.Load())
			}
			for i, got := range replies[clients/2:] {
				if want := fmt.Sprintf("250 %d", clients/2+i); strings.TrimSpace(got) != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
			if n := len(f.Commands()); n > 0 {
				t.Errorf("the server executed %d commands", n)
			}
		})
	}
}
