package smtpproxy_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Funcs makes a hook of functions, without a type for it. This one is told of the end of
// each connection.
func ExampleFuncs() {
	hook := smtpproxy.Funcs{
		OnDisconnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection, end smtpproxy.End) {
			fmt.Printf("%s: %s, by the %s, after %s; %d message for %d recipients\n",
				conn.RemoteIP, end.Reason, end.By, end.Verb, end.Messages, end.Recipients)
		},
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hook})
	s.Connect()
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@example.com>")
	s.Send("RCPT TO:<bob@example.org>")
	s.Send("RCPT TO:<carol@example.org>")
	s.Send("DATA")
	s.SendContent()
	s.Send("QUIT")
	// Output:
	// 192.0.2.1: quit, by the client, after QUIT; 1 message for 2 recipients
}
