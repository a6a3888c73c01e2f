package hooks_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Who sends a password in plaintext is closed, so that somebody notices.
func ExampleRequireTLS() {
	p := &smtpproxy.Proxy{Hook: &hooks.RequireTLS{Disconnect: true}} // and TLSConfig

	s := proxytest.NewSession(p)
	s.Send("EHLO client.example")
	s.Send("AUTH PLAIN AGFsaWNlAHNlY3JldA==")
	fmt.Println(s.Reply(), "closed:", s.Closed())

	s = proxytest.NewSession(p)
	s.Send("EHLO client.example")
	s.Send("STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	s.Send("EHLO client.example")
	s.Send("AUTH PLAIN AGFsaWNlAHNlY3JldA==")
	fmt.Println(s.Reply())
	// Output:
	// 523 5.7.10 TLS is required closed: true
	// 235 2.7.0 Authentication successful
}
