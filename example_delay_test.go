package smtpproxy_test

import (
	"fmt"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// slowly is a hook that lets those wait who guess at recipients. A connection that waits costs
// no goroutine of its own.
func slowly(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	type guesses struct{ recipients int }
	g := smtpproxy.State[guesses](ctx)
	if cmd.Verb() == "RCPT" {
		g.recipients++
	}
	if wrong := g.recipients - txn.Recipients.Len(); wrong > 2 {
		return smtpproxy.Pass{Delay: time.Duration(wrong) * time.Second}, nil
	}
	return nil, nil
}

// A test doesn't wait: the transcript tells for how long a client would.
func ExamplePass_delay() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(slowly)})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@client.example>")
	for range 3 {
		s.Answer("RCPT", 550, "5.1.1 No such user")
		fmt.Println(s.Send("RCPT TO:<guess@server.example>").(smtpproxy.Pass).Delay)
	}

	// Output:
	// 0s
	// 0s
	// 3s
}
