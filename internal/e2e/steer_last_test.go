package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about hooks that are shown the last reply of a connection.

// What a hook asks somebody about the last reply, it may still ask.
func TestTheContextOfTheLastReplyIsDoneOnlyWhenTheServerCloses(t *testing.T) {
	for _, limit := range []time.Duration{0, patience} {
		for _, last := range []struct {
			why, line string
			hook      smtpproxy.HookFunc
		}{
			{"the server's 221", "QUIT", always(nil)},
			{"a hook's 421", "NOOP", always(reply{Code: 421})},
			{"a hook's refusal with Disconnect", "NOOP", always(reply{Code: 550, Disconnect: true})},
			{"the 421 of a failure", "NOOP", decide(func(command) (decision, error) { return nil, errTest })},
		} {
			t.Run(fmt.Sprint(last.why, ", HookTimeout ", limit), func(t *testing.T) {
				amended := fmt.Sprint(map[bool]int{true: 550, false: 421}[strings.Contains(last.why, "refusal")], " ")
				if last.line == "QUIT" {
					amended = "221 "
				}
				p := &smtpproxy.Proxy{HookTimeout: limit, Hook: smtpproxy.Chain(last.hook, smtpproxy.Funcs{OnReply: func(ctx *hookContext, x smtpproxy.Exchange) (decision, error) {
					if x.Command.Received == "" {
						return nil, nil
					}
					own, cancel := context.WithTimeout(ctx, patience)
					defer cancel()
					if ctx.Err() != nil || own.Err() != nil {
						return nil, ctx.Err()
					}
					return reply{Lines: []string{"asked"}}, nil
				}})}
				c := behindListener(p, servertest.Strict()).connect(t, overTCP(t))
				c.expect("220")
				c.send(last.line + "\r\n")
				if got := c.reply(); !strings.HasPrefix(got, amended) || !strings.HasSuffix(got, " asked") {
					t.Errorf("got %q", got)
				}
				c.expectEnd()
			})
		}
	}
	t.Run("and then with its cause", func(t *testing.T) {
		asked, cause := make(chan struct{}), make(chan error, 1)
		conn := make(chan net.Conn, 1)
		p := &smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnReply: func(ctx *hookContext, x smtpproxy.Exchange) (decision, error) {
			if x.Command.Verb() == "QUIT" {
				close(asked)
				<-ctx.Done()
				cause <- context.Cause(ctx)
			}
			return nil, nil
		}}}
		c := runScript(t, overTCP(t), p, func(c net.Conn) {
			conn <- c
			new(puppet).serve(c)
		})
		c.expect("220")
		c.send("QUIT\r\n")
		inTime(t, "the hook's call", asked)
		(<-conn).Close()
		if err := inTime(t, "the end of its Context", cause); err != smtpproxy.ErrClosed {
			t.Errorf("the cause is %v", err)
		}
	})
}
