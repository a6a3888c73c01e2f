package smtpproxy_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// repairHELO gives a name to clients that greet without one.
func repairHELO(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch cmd.Verb() {
	case "HELO", "EHLO":
		if cmd.Args() == "" {
			return smtpproxy.Pass{Command: cmd.Verb() + " unknown.invalid"}, nil
		}
	}
	return nil, nil // the same as smtpproxy.Pass{}
}

// The server gets another command than the client sent. What is known of the
// connection follows the command that the server got.
func ExamplePass() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(repairHELO)})
	s.Send("HELO")
	fmt.Print(s.Transcript())
	fmt.Println(s.Connection().HELO.Host)
	// Output:
	// C: HELO
	// H: pass HELO unknown.invalid
	// S: 250 server.example
	// unknown.invalid
}
