package smtpproxy_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// An Observer sees each command with its reply, and decides nothing: enough for the log of
// a dialogue. A Command prints without credentials.
func ExampleObserver() {
	log := smtpproxy.Observer{
		Exchanged: func(_ *smtpproxy.Context, x smtpproxy.Exchange) {
			fmt.Printf("%v -> %d by the %v\n", x.Command, x.Reply.Code, x.By)
		},
		Disconnected: func(_ *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) {
			fmt.Printf("%v by the %v, %d commands accepted\n", end.Reason, end.By, end.Commands)
		},
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{log}})
	s.Send("EHLO client.example")
	s.Send("AUTH PLAIN AGFsaWNlAHNlc2FtZQ==")
	s.Send("RCPT TO:<bob@server.example>")
	s.Send("QUIT")

	// Output:
	// EHLO client.example -> 250 by the server
	// AUTH PLAIN **** -> 235 by the server
	// RCPT TO:<bob@server.example> -> 503 by the library
	// QUIT -> 221 by the server
	// quit by the client, 3 commands accepted
}
