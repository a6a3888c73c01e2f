package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
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

// This file is about what a client sends while a hook has its line, or lets it wait.

// flows are what a client may send without waiting for replies.
var flows = map[string]string{
	"commands": "EHLO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nRSET\r\nNOOP\r\nVRFY x\r\nQUIT\r\n",
	"content behind DATA": "EHLO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\nSubject: x\r\n\r\n..\r\nNOOP\r\n" +
		strings.Repeat("x23456789\r\n", 500) + ".\r\nNOOP\r\nQUIT\r\n",
	"chunks": "EHLO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nBDAT 14\r\nNOOP\r\nRSET\r\n\r\nBDAT 3\r\n\r\n.BDAT 5000 LAST\r\n" +
		strings.Repeat("y23456789\n", 500) + "MAIL FROM:<d@d>\r\nNOOP\r\nQUIT\r\n",
	"a SASL exchange": "EHLO x\r\nAUTH PLAIN\r\nAHVzZXIAc2VjcmV0\r\nNOOP\r\nMAIL FROM:<a@a>\r\nQUIT\r\n",
}

// meanwhile are what a hook does that lets the client send on.
var meanwhile = map[string]smtpproxy.Hook{
	"looks": decideIn(func(ctx *hookContext, cmd command) (decision, error) {
		ctx.Done()
		time.Sleep(time.Second) // in a bubble
		return pass{Next: cmd.Verb() == "AUTH" && !cmd.SASL}, nil
	}),
	"looks late": decideIn(func(ctx *hookContext, cmd command) (decision, error) {
		time.Sleep(time.Second / 2) // in a bubble
		context.AfterFunc(ctx, func() {})
		time.Sleep(time.Second / 2) // in a bubble
		return pass{Next: cmd.Verb() == "AUTH" && !cmd.SASL}, nil
	}),
	"lets wait": decide(func(cmd command) (decision, error) {
		return pass{Next: cmd.Verb() == "AUTH" && !cmd.SASL, Delay: time.Second}, nil
	}),
	"looks, and lets wait": decideIn(func(ctx *hookContext, _ command) (decision, error) {
		return pass{Delay: time.Second}, ctx.Err()
	}),
	"holds replies back": smtpproxy.Funcs{OnReply: func(*hookContext, smtpproxy.Exchange) (decision, error) {
		return pass{Delay: time.Second}, nil
	}},
	"does all of it": smtpproxy.Funcs{
		OnConnect: func(ctx *hookContext, _ connection) (decision, error) { return pass{Delay: time.Second}, ctx.Err() },
		OnCommand: func(ctx *hookContext, _ command, _ connection, _ transaction) (decision, error) {
			return pass{Delay: time.Second}, ctx.Err()
		},
		OnReply: func(*hookContext, smtpproxy.Exchange) (decision, error) { return pass{Delay: time.Second}, nil },
	},
}

// flow lets a client send octets, so many at once, ten times a second, and returns what it
// gets, by codes, and what the server did.
func flow(t *testing.T, f fronted, tr transport, octets string, size int) (codes []string, rec servertest.Record) {
	t.Helper()
	f.start(t, tr)
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for piece := range slices.Chunk([]byte(octets), size) {
			if _, err := c.Write(piece); err != nil {
				return
			}
			time.Sleep(time.Second / 10) // in a bubble
		}
	}()
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			break
		}
		if line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	c.Close()
	<-sent
	synctest.Wait()
	return codes, f.Record()
}

func TestWhatArrivesMeanwhileIsKeptInOrder(t *testing.T) {
	for name, octets := range flows {
		var codes []string
		var want servertest.Record
		bubble(t, name+", without the library", func(t *testing.T) {
			s := servertest.Strict()
			codes, want = flow(t, fronted{s, s.Serve, s.Close}, overCable(), octets, len(octets))
			if len(codes) < 6 || codes[len(codes)-1] != "221" {
				t.Errorf("got %q", codes)
			}
		})
		for why, hook := range meanwhile {
			for _, size := range []int{7, 97, 100_000} {
				for tr, connect := range map[string]func(*testing.T) transport{"cable": cable, "pipe": overPipe, "no deadlines": stubbornly} {
					bubble(t, fmt.Sprintf("%s, the hook %s, %d octets at once, %s", name, why, size, tr), func(t *testing.T) {
						var mu sync.Mutex
						var seen []string
						sees := decide(func(cmd command) (decision, error) {
							mu.Lock()
							defer mu.Unlock()
							if !cmd.SASL {
								seen = append(seen, cmd.Line)
							}
							return nil, nil
						})
						p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(sees, hook), AllowInsecureAuth: true, MaxReadAhead: 4096}
						got, rec := flow(t, behindListener(p, servertest.Strict(servertest.ReadTimeout(time.Hour))), connect(t), octets, size)
						if !slices.Equal(got, codes) {
							t.Errorf("the client got %q, want %q", got, codes)
						}
						if fmt.Sprint(rec) != fmt.Sprint(want) {
							t.Errorf("the server did %.300v, want %.300v", rec, want)
						}
						if !slices.Equal(seen, want.Commands) {
							t.Errorf("the hook saw %q, want %q", seen, want.Commands)
						}
					})
				}
			}
		}
	}
}

// stubbornly makes connections that take no deadlines: nobody looks after them.
func stubbornly(*testing.T) transport {
	return newTransport(true, func() (server, client net.Conn, err error) {
		s, c := connectByCable()
		return takesNoDeadlines(s), c, nil
	})
}

func TestAClientThatTakesNoDeadlinesIsNotLookedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolder()
		c, client, _ := acceptedOver(t, stubbornly(t), &smtpproxy.Proxy{Hook: h})
		served := make(chan struct{})
		go func() {
			defer close(served)
			new(puppet).serve(c)
		}()
		k := newCaller(t, client)
		k.play("< 220|> NOOP hold", nil)
		ctx := <-h.entered
		synctest.Wait()
		before := goroutinesHere(t)
		ctx.Done()
		k.send("NOOP\r\n")
		synctest.Wait()
		if n := goroutinesHere(t) - before; n != 0 || ctx.Err() != nil {
			t.Errorf("%d goroutines, %v", n, ctx.Err())
		}
		h.decided <- nil
		k.play("< 250|< 250|> NOOP hold", nil)
		ctx = <-h.entered
		done := ctx.Done()
		client.(*cableEnd).CloseWrite()
		synctest.Wait()
		if ctx.Err() != nil {
			t.Errorf("it is done: %v", context.Cause(ctx))
		}
		c.Close()
		<-done
		if cause := context.Cause(ctx); cause != smtpproxy.ErrClosed {
			t.Errorf("it is done for %v", cause)
		}
		h.decided <- nil
		<-served
	})
}

// What is kept of a client is bounded. Behind the bound, it has to wait, as without a hook.
func TestNoMoreIsKeptThanMaxReadAheadAndTheRestArrivesLater(t *testing.T) {
	const lines = 3000
	for why, decide := range map[string]func(h *holder, ctx *hookContext){
		"looks":     func(h *holder, ctx *hookContext) { ctx.Done(); synctest.Wait() },
		"lets wait": func(h *holder, _ *hookContext) { h.decided <- pass{Delay: time.Minute}; time.Sleep(time.Second) }, // in a bubble
	} {
		bubble(t, why, func(t *testing.T) {
			h := newHolder()
			c, client, _ := acceptedOver(t, overPipe(t), &smtpproxy.Proxy{Hook: h, MaxReadAhead: 4096})
			served := make(chan struct{})
			go func() {
				defer close(served)
				new(puppet).serve(c)
			}()
			k := newCaller(t, client)
			k.play("< 220|> NOOP hold", nil)
			ctx := <-h.entered
			var mu sync.Mutex
			sent := 0
			go func() {
				for range lines {
					io.WriteString(client, "NOOP\r\n")
					mu.Lock()
					sent++
					mu.Unlock()
				}
			}()
			decide(h, ctx)
			mu.Lock()
			if octets := 6 * sent; octets > 4096 || octets < 4096-6 {
				t.Errorf("%d octets are read", octets)
			}
			mu.Unlock()
			if why == "looks" {
				h.decided <- nil
			}
			for range lines + 1 {
				k.expect("250")
			}
			client.Close()
			<-served
		})
	}
}

// RFC 3207 section 4.2: what comes behind STARTTLS in plaintext must not become a command
// inside TLS, and what comes before the 220 has come behind STARTTLS.
func TestWhatArrivesBehindSTARTTLSMeanwhileIsRefused(t *testing.T) {
	serverTLS() // outside of a bubble's time
	starttls := func(f func(ctx *hookContext) decision) smtpproxy.Hook {
		return decideIn(func(ctx *hookContext, cmd command) (decision, error) {
			if cmd.Verb() == "STARTTLS" {
				return f(ctx), nil
			}
			return nil, nil
		})
	}
	for _, row := range []struct {
		why  string
		hook smtpproxy.Hook
		behind,
		want string
	}{
		{"the hook looks, a line", starttls(func(ctx *hookContext) decision { ctx.Done(); time.Sleep(three); return nil }), "NOOP evil\r\n", "503"}, // in a bubble
		{"the hook looks, half a line", starttls(func(ctx *hookContext) decision { ctx.Done(); time.Sleep(three); return nil }), "NO", "503"},       // in a bubble
		{"the hook lets wait, a line", starttls(func(*hookContext) decision { return pass{Delay: three} }), "NOOP evil\r\n", "503"},
		{"the hook lets wait, half a line", starttls(func(*hookContext) decision { return pass{Delay: three} }), "NO", "503"},
		{"the hook looks, nothing", starttls(func(ctx *hookContext) decision { ctx.Done(); time.Sleep(three); return nil }), "", "220"}, // in a bubble
		{"the hook lets wait, nothing", starttls(func(*hookContext) decision { return pass{Delay: three} }), "", "220"},
		{"the 220 is held back, nothing", amendsAt("STARTTLS", pass{Delay: three}), "", "220"},
		{"the 220 is held back, a line, which is no handshake", amendsAt("STARTTLS", pass{Delay: three}), "NOOP evil\r\n", "220"},
	} {
		bubble(t, row.why, func(t *testing.T) {
			s := servertest.Strict()
			tr := overCable()
			behindListener(&smtpproxy.Proxy{Hook: row.hook, TLSConfig: serverTLS()}, s).start(t, tr)
			client, err := tr.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			k := newCaller(t, client)
			k.play("< 220|> EHLO x|< 250|> STARTTLS", nil)
			start := time.Now()
			time.Sleep(time.Second) // in a bubble
			k.send(row.behind)
			k.expect(row.want)
			if d := time.Since(start); d.Round(time.Millisecond) != three {
				t.Errorf("the reply comes after %v", d)
			}
			want := []string{"EHLO x"}
			if row.behind == "" {
				client = tlsClient(client)
				k = newCaller(t, client)
				k.play("> EHLO y|< 250|> NOOP|< 250|> QUIT|< 221", nil)
				want = append(want, "EHLO y", "NOOP", "QUIT")
			}
			io.Copy(io.Discard, client)
			if got := s.Commands(); !slices.Equal(got, want) {
				t.Errorf("the server executed %q, want %q", got, want)
			}
		})
	}
}

// A chunk that is refused is dropped behind the wait, and its octets count as they are sent.
func TestAWaitBeforeAChunkIsDroppedDropsNothingElse(t *testing.T) {
	for why, hook := range map[string]smtpproxy.Hook{
		"the refusal lets wait":       wants("BDAT", reply{Code: 451, Delay: three}),
		"the hook looks, and refuses": wantsLooking("BDAT", reply{Code: 451}, three),
		"who sees it lets wait":       smtpproxy.Chain(wants("BDAT", reply{Code: 451}), amendsAt("BDAT", pass{Delay: three})),
	} {
		for _, each := range []time.Duration{0, time.Second} { // between octets
			bubble(t, fmt.Sprintf("%s, %v between octets", why, each), func(t *testing.T) {
				a := await(t, &smtpproxy.Proxy{Hook: hook, MinDataRate: 1}, nil)
				synctest.Wait()
				for _, line := range []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>"} {
					io.WriteString(a.client, line+"\r\n")
					synctest.Wait()
				}
				for _, octet := range []string{"BDAT 6\r\n", "N", "O", "O", "P", "\r", "\n", "RSET\r\n"} {
					io.WriteString(a.client, octet)
					time.Sleep(each) // in a bubble
				}
				time.Sleep(10 * time.Second) // in a bubble
				at := max(three, 6*each)
				if strings.HasPrefix(why, "who") {
					at = 6*each + three
				}
				refused, _ := a.first("<451")
				reset, _ := a.first(">RSET")
				if want := fmt.Sprint(at, " <451"); refused != want {
					t.Errorf("got %s, want %s", refused, want)
				}
				if want := fmt.Sprint(max(at, 7*each), " >RSET"); reset != want {
					t.Errorf("got %s, want %s", reset, want)
				}
				if got := a.String(); strings.Contains(got, ">BDAT") || strings.Count(got, " <") != 6 {
					t.Errorf("got %s", got)
				}
			})
		}
	}
}

// wantsLooking is wants for one that looks, and takes its time.
func wantsLooking(verb string, d decision, takes time.Duration) smtpproxy.Hook {
	return decideIn(func(ctx *hookContext, cmd command) (decision, error) {
		if cmd.Verb() != verb {
			return nil, nil
		}
		ctx.Done()
		time.Sleep(takes) // in a bubble
		return d, nil
	})
}

// The rate counts the time that a client takes, and no octet twice: what came aside was sent
// while its time stood still.
func TestAHookThatLooksTakesNoneOfTheTimeForContent(t *testing.T) {
	for why, silence := range map[string]time.Duration{"421": 40 * time.Second, "250": 20 * time.Second} {
		bubble(t, why, func(t *testing.T) {
			a := await(t, &smtpproxy.Proxy{Hook: wantsLooking("BDAT", nil, time.Hour), MinDataRate: 1000}, nil)
			synctest.Wait()
			io.WriteString(a.client, "EHLO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nBDAT 8 LAST\r\n1234")
			time.Sleep(time.Hour + silence) // in a bubble
			io.WriteString(a.client, "5678")
			synctest.Wait()
			if got := a.String(); !strings.HasSuffix(got, "<"+why) {
				t.Errorf("got %s", got)
			}
		})
	}
}

// A hook that ends the goroutine of the server's Write leaves the client to the one that
// reads: the last word waits, but reads nothing beside.
func TestAGoroutineThatEndsInAReplyDoesNotReadBesideTheServer(t *testing.T) {
	for range 20 {
		c, client, _ := acceptedOver(t, overTCP(t), &smtpproxy.Proxy{Hook: smtpproxy.Funcs{
			OnReply: func(_ *hookContext, x smtpproxy.Exchange) (decision, error) {
				if x.By == smtpproxy.ByFailure {
					return pass{Delay: time.Millisecond}, nil
				}
				if x.Command.Verb() == "NOOP" {
					runtime.Goexit()
				}
				return nil, nil
			},
		}})
		io.WriteString(c, "220 x\r\n")
		lines := readAhead(c)
		k := newCaller(t, client)
		k.play("< 220|> NOOP|> RSET", nil)
		<-lines
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			io.WriteString(c, "250 x\r\n")
		}()
		k.play("< 250|< 421|END", nil)
		<-wrote
		c.Close()
		for range lines { // RSET may have been passed before
		}
	}
}

// With a server that reads on one goroutine and writes on another, whoever reads has the
// client alone.
func TestAServerOnTwoGoroutinesLosesNothingToAHookThatLooks(t *testing.T) {
	const lines = 200
	look := decideIn(func(ctx *hookContext, _ command) (decision, error) {
		ctx.Err()
		runtime.Gosched()
		return nil, nil
	})
	holds := smtpproxy.Funcs{OnReply: func(*hookContext, smtpproxy.Exchange) (decision, error) {
		return pass{Delay: time.Microsecond}, nil
	}}
	for name, tr := range map[string]func(*testing.T) transport{"TCP": overTCP, "pipe": overPipe} {
		t.Run(name, func(t *testing.T) {
			s := servertest.RunAhead()
			c := behindListener(&smtpproxy.Proxy{Hook: smtpproxy.Chain(look, holds)}, s).connect(t, tr(t))
			var all, want strings.Builder
			for i := range lines {
				fmt.Fprintf(&all, "VRFY %d\r\n", i)
				fmt.Fprintf(&want, "VRFY %d\n", i)
			}
			c.expect("220")
			c.send(all.String())
			for range lines {
				c.expect("252")
			}
			if got := strings.Join(s.Commands(), "\n") + "\n"; got != want.String() {
				t.Errorf("the server executed %q", got)
			}
		})
	}
}
