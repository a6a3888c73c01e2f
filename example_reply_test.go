package smtpproxy_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// replyAlways answers every command itself.
func replyAlways(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch cmd.Verb() {
	case "NOOP":
		return smtpproxy.Reply{}, nil
	case "HELP":
		return smtpproxy.Reply{Code: 214, Lines: []string{"This server", "takes no questions"}}, nil
	case "VRFY":
		return smtpproxy.Reply{Code: 252, Enhanced: smtpproxy.EnhancedCode{2, 5, 0}, Lines: []string{"Just try"}}, nil
	case "EXPN":
		return smtpproxy.Reply{Code: 502, Enhanced: smtpproxy.NoEnhancedCode}, nil
	case "GET":
		return smtpproxy.Reply{Code: 421, Lines: []string{"This is SMTP"}}, nil
	}
	return smtpproxy.Reply{Code: 500, Enhanced: smtpproxy.EnhancedCode{5, 5, 2}}, nil
}

// What a Reply leaves out is filled in. Code 421 closes the connection, and so
// does Disconnect with any code.
func ExampleReply() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(replyAlways)})
	s.Send("NOOP")
	s.Send("HELP")
	s.Send("VRFY bob")
	s.Send("EXPN list")
	s.Send("XYZZY")
	s.Send("GET / HTTP/1.1")
	fmt.Print(s.Transcript())
	// Output:
	// C: NOOP
	// H: 250 2.0.0 OK
	// C: HELP
	// H: 214-2.0.0 This server
	// H: 214 2.0.0 takes no questions
	// C: VRFY bob
	// H: 252 2.5.0 Just try
	// C: EXPN list
	// H: 502 Requested action not taken
	// C: XYZZY
	// H: 500 5.5.2 Requested action not taken
	// C: GET / HTTP/1.1
	// H: 421 4.0.0 This is SMTP (close)
}
