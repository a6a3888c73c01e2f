package smtpproxy_test

import (
	"fmt"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// hideUsers tells nobody which mailboxes there are.
func hideUsers(_ *smtpproxy.Context, _ smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return smtpproxy.Reply{Code: 252, Enhanced: smtpproxy.EnhancedCode{2, 5, 0}, Lines: []string{"Send some mail"}}, nil
}

// ping answers XPING, which the server doesn't know.
func ping(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return smtpproxy.Reply{Lines: []string{"pong " + cmd.Args()}}, nil
}

// A Mux has a hook for each verb. What Extend adds is told to the client, too, in the
// reply to EHLO.
func ExampleMux() {
	var mux smtpproxy.Mux
	mux.HandleFunc("VRFY", hideUsers)
	mux.HandleFunc("EXPN", hideUsers)
	mux.Extend("XPING", "XPING", smtpproxy.HookFunc(ping))

	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &mux})
	s.Send("EHLO client.example")
	fmt.Println(strings.Join(s.Reply().Lines, "\n"))
	for _, line := range []string{"vrfy bob", "XPING 1", "NOOP"} {
		s.Send(line)
		fmt.Println(s.Reply())
	}
	// Output:
	// server.example
	// PIPELINING
	// 8BITMIME
	// SIZE 0
	// ENHANCEDSTATUSCODES
	// CHUNKING
	// SMTPUTF8
	// AUTH PLAIN LOGIN
	// STARTTLS
	// XPING
	// 252 2.5.0 Send some mail
	// 250 2.0.0 pong 1
	// 250 2.0.0 OK
}
