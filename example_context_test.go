package smtpproxy_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// inquire is a question that takes its time, such as one to a data base. It ends with ctx.
func inquire(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Minute):
		return nil
	}
}

// A hook hands its Context on to whatever takes its time. It is done when the client leaves,
// when the connection is closed, and when Proxy.HookTimeout has passed; context.Cause tells
// which.
func ExampleContext() {
	hook := func(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() != "RCPT" {
			return nil, nil
		}
		err := inquire(ctx)
		if errors.Is(err, smtpproxy.ErrClientGone) {
			fmt.Println("nobody waits for the answer any more")
		}
		return nil, nil
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(hook)})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@client.example>")
	s.SendAndLeave("RCPT TO:<bob@server.example>")

	// Output: nobody waits for the answer any more
}
