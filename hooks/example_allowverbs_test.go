package hooks_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A server is reached for mail, and for nothing else that it can do.
func ExampleAllowVerbs() {
	s := proxytest.NewSession(&smtpproxy.Proxy{
		Hook: hooks.AllowVerbs("HELO", "EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "QUIT"),
	})
	s.Send("EHLO client.example")
	fmt.Println(s.Reply().Lines[1:])
	s.Send("AUTH LOGIN")
	fmt.Println(s.Reply())
	// Output:
	// [PIPELINING 8BITMIME SIZE 0 ENHANCEDSTATUSCODES SMTPUTF8]
	// 502 5.5.1 Command not implemented
}
