package smtpproxy_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// tag is what a client has said about the mail that it is going to send.
type tag struct{ name string }

// takeTag implements a verb of its own: XTAG name.
func takeTag(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch {
	case cmd.Verb() != "XTAG":
		return nil, nil
	case txn.Active:
		return smtpproxy.Reply{Code: 503, Enhanced: smtpproxy.EnhancedCode{5, 5, 1}, Lines: []string{"XTAG comes before MAIL"}}, nil
	case cmd.Args() == "":
		return smtpproxy.Reply{Code: 501, Enhanced: smtpproxy.EnhancedCode{5, 5, 4}, Lines: []string{"Syntax: XTAG name"}}, nil
	}
	smtpproxy.State[tag](ctx).name = cmd.Args()
	return smtpproxy.Reply{}, nil // 250 2.0.0 OK
}

// A hook adds a verb to a server that doesn't know it. What it learns, the
// server's side can ask for.
func Example_ownVerb() {
	s := proxytest.NewSession(&smtpproxy.Proxy{
		Hook:     smtpproxy.HookFunc(takeTag),
		Commands: []string{"XTAG"}, // the hook is for nothing else
	})
	s.Send("HELO client.example")
	s.Send("XTAG")
	s.Send("xtag newsletter")
	s.Send("MAIL FROM:<alice@example.com>")
	s.Send("XTAG invoice")
	fmt.Print(s.Transcript())
	fmt.Println("tag:", smtpproxy.State[tag](s.Context()).name)
	// Output:
	// C: HELO client.example
	// S: 250 server.example
	// C: XTAG
	// H: 501 5.5.4 Syntax: XTAG name
	// C: xtag newsletter
	// H: 250 2.0.0 OK
	// C: MAIL FROM:<alice@example.com>
	// S: 250 2.1.0 Sender OK
	// C: XTAG invoice
	// H: 503 5.5.1 XTAG comes before MAIL
	// tag: newsletter
}
