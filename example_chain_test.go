package smtpproxy_test

import (
	"fmt"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// lowerDomain writes the domain of a recipient in lower case.
func lowerDomain(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if local, domain, ok := strings.Cut(cmd.Line, "@"); ok && cmd.Verb() == "RCPT" {
		return smtpproxy.Pass{Command: local + "@" + strings.ToLower(domain)}, nil
	}
	return nil, nil
}

// ownDomain takes mail for one domain alone.
func ownDomain(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if _, to, _, ok := cmd.Path(); cmd.Verb() == "RCPT" && (!ok || to.Domain != "example.org") {
		return smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"No relaying"}}, nil
	}
	return nil, nil
}

// The hooks of a chain are asked in order. Each gets the line as those before it have
// left it, and the first Reply decides. Their names tell them apart, in a transcript as in
// a log.
func ExampleChain() {
	s := proxytest.NewSession(&smtpproxy.Proxy{
		Hook: smtpproxy.Chain(
			smtpproxy.Named("normal", smtpproxy.HookFunc(lowerDomain)),
			smtpproxy.Named("relay", smtpproxy.HookFunc(ownDomain)),
		),
		Commands: []string{"RCPT"}, // the others aren't for these hooks
	})
	s.Send("HELO client.example")
	s.Send("MAIL FROM:<alice@example.com>")
	s.Send("RCPT TO:<Bob@Example.ORG>")
	s.Send("RCPT TO:<carol@example.net>")
	fmt.Print(s.Transcript())
	// Output:
	// C: HELO client.example
	// S: 250 server.example
	// C: MAIL FROM:<alice@example.com>
	// S: 250 2.1.0 Sender OK
	// C: RCPT TO:<Bob@Example.ORG>
	// H normal: pass RCPT TO:<Bob@example.org>
	// H relay: pass
	// S: 250 2.1.5 Recipient OK
	// C: RCPT TO:<carol@example.net>
	// H normal: pass
	// H relay: 550 5.7.1 No relaying
}
