package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about what ends a wait, and what it costs.

// waits are all that can be held back.
var waits = map[string]func(d time.Duration) smtpproxy.Hook{
	"a line":           func(d time.Duration) smtpproxy.Hook { return wants("NOOP", pass{Delay: d}) },
	"a hook's reply":   func(d time.Duration) smtpproxy.Hook { return wants("NOOP", reply{Code: 214, Delay: d}) },
	"a server's reply": func(d time.Duration) smtpproxy.Hook { return amendsAt("NOOP", pass{Delay: d}) },
	"a hook's reply, by others": func(d time.Duration) smtpproxy.Hook {
		return smtpproxy.Chain(wants("NOOP", reply{Code: 214}), amendsAt("NOOP", pass{Delay: d}))
	},
}

func TestAWaitEndsWithTheConnectionAtOnce(t *testing.T) {
	all := map[string]func(d time.Duration) smtpproxy.Hook{
		"a greeting":             func(d time.Duration) smtpproxy.Hook { return letsIn(pass{Delay: d}, nil) },
		"a refusal in its place": func(d time.Duration) smtpproxy.Hook { return letsIn(reply{Code: 554, Delay: d}, nil) },
		"a last word": func(d time.Duration) smtpproxy.Hook {
			return smtpproxy.Chain(wants("NOOP", reply{Code: 421}), amendsAt("NOOP", pass{Delay: d}))
		},
	}
	for why, hook := range waits {
		all[why] = hook
	}
	ends := map[string]func(a *awaited){
		"the client closes its side":      func(a *awaited) { a.client.CloseWrite() },
		"the client resets":               func(a *awaited) { a.client.reset() },
		"the server closes":               func(a *awaited) { a.server.Close() },
		"the server closes, no deadlines": func(a *awaited) { a.server.Close() },
	}
	for why, hook := range all {
		for how, ends := range ends {
			bubble(t, why+", "+how, func(t *testing.T) {
				raw := func(c net.Conn) net.Conn { return c }
				if strings.HasSuffix(how, "no deadlines") {
					raw = takesNoDeadlines
				}
				a := await(t, &smtpproxy.Proxy{Hook: hook(time.Hour)}, raw)
				synctest.Wait()
				if octets := "NOOP\r\nNO"; why == "a greeting" || why == "a refusal in its place" {
					io.WriteString(a.client, octets[6:]) // a whole line would want an answer
				} else {
					io.WriteString(a.client, octets)
				}
				time.Sleep(time.Minute) // in a bubble
				select {
				case <-a.closed:
					t.Fatalf("it doesn't wait: %s", a)
				default:
				}
				ends(a)
				<-a.closed
				if d := time.Since(a.start); d != time.Minute {
					t.Errorf("it ends after %v: %s", d, a)
				}
			})
		}
	}
}

func TestAWaitTakesNoneOfTheTimeThatTheServerGives(t *testing.T) {
	for why, hook := range waits {
		for silence, dies := range map[time.Duration]bool{4 * time.Second: false, 6 * time.Second: true} {
			bubble(t, fmt.Sprintf("%s, then the client is silent for %v", why, silence), func(t *testing.T) {
				c, client, _ := acceptedOver(t, overCable(), &smtpproxy.Proxy{Hook: hook(time.Minute)})
				ended := make(chan error, 1)
				go func() { // both deadlines at once, as some do, before the reply
					r := bufio.NewReader(c)
					for {
						c.SetDeadline(time.Now().Add(5 * time.Second))
						if _, err := io.WriteString(c, "250 x\r\n"); err != nil {
							ended <- fmt.Errorf("a reply: %w", err)
							return
						}
						if _, err := r.ReadString('\n'); err != nil {
							ended <- err
							return
						}
					}
				}()
				k := newCaller(t, client)
				k.play("< 2|> NOOP|< 2", nil)
				time.Sleep(silence) // in a bubble
				select {
				case err := <-ended:
					if !dies || !isDeadline(err) {
						t.Errorf("the server: %v", err)
					}
				default:
					if dies {
						t.Error("the server's deadline has no effect")
					}
				}
				c.Close()
			})
		}
	}
}

func isDeadline(err error) bool {
	var t net.Error
	return err != nil && errors.As(err, &t) && t.Timeout()
}

func TestAWaitTakesNoneOfCommandTimeout(t *testing.T) {
	for why, hook := range waits {
		for rest, dies := range map[time.Duration]bool{4 * time.Second: false, 6 * time.Second: true} {
			bubble(t, fmt.Sprintf("%s, the rest of the next line comes %v later", why, rest), func(t *testing.T) {
				a := await(t, &smtpproxy.Proxy{Hook: hook(time.Minute), CommandTimeout: 5 * time.Second}, nil)
				synctest.Wait()
				go io.WriteString(a.client, "NOOP\r\n")
				time.Sleep(10 * time.Second) // in a bubble
				go io.WriteString(a.client, "HE")
				time.Sleep(50*time.Second + rest) // in a bubble
				go io.WriteString(a.client, "LP\r\n")
				synctest.Wait()
				if got := a.String(); strings.Contains(got, "1m5s <421") != dies || strings.HasSuffix(got, ">HELP, 1m4s <250") == dies {
					t.Errorf("got %s", got)
				}
			})
		}
	}
}

func TestAWaitCostsNoGoroutine(t *testing.T) {
	for why, hook := range waits {
		bubble(t, why, func(t *testing.T) {
			a := await(t, &smtpproxy.Proxy{Hook: hook(time.Minute)}, nil)
			synctest.Wait()
			before := goroutinesHere(t)
			io.WriteString(a.client, "NOOP\r\n")
			time.Sleep(time.Second) // in a bubble
			if n := goroutinesHere(t) - before; n != 0 {
				t.Errorf("%d goroutines", n)
			}
			if got := a.String(); strings.Contains(got, "<2") && !strings.HasSuffix(got, "<220") && !strings.HasSuffix(got, ">NOOP") {
				t.Errorf("it doesn't wait: %s", got)
			}
		})
	}
}

// stubborn is a connection that takes no deadlines.
type stubborn struct{ net.Conn }

func (stubborn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (stubborn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (stubborn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

func takesNoDeadlines(c net.Conn) net.Conn { return stubborn{c} }
