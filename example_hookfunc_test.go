package smtpproxy_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// limitGuests lets nobody but authenticated clients write to more than two
// recipients at once.
func limitGuests(
	_ *smtpproxy.Context,
	cmd smtpproxy.Command,
	conn smtpproxy.Connection,
	txn smtpproxy.Transaction,
) (smtpproxy.Decision, error) {
	guest := conn.Auth.Mechanism == ""
	if cmd.Verb() == "RCPT" && guest && txn.Recipients.Len() >= 2 {
		return smtpproxy.Reply{
			Code:     452,
			Enhanced: smtpproxy.EnhancedCode{4, 5, 3},
			Lines:    []string{"Too many recipients"},
		}, nil
	}
	return nil, nil // pass
}

// A first hook: a function that sees the command and what came before it.
func ExampleHookFunc() {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(limitGuests)}

	s := proxytest.NewSession(p)
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@example.com>")
	for _, name := range []string{"bob", "carol", "dave"} {
		s.Send("RCPT TO:<" + name + "@example.org>")
		fmt.Println(s.Reply())
	}
	// Output:
	// 250 2.1.5 Recipient OK
	// 250 2.1.5 Recipient OK
	// 452 4.5.3 Too many recipients
}
