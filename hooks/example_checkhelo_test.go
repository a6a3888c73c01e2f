package hooks_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Mail isn't taken from who greets as the server itself, or as another address.
func ExampleCheckHELO() {
	p := &smtpproxy.Proxy{Hook: &hooks.CheckHELO{Own: []string{"mx.example"}, RequireDot: true}}
	for _, name := range []string{"mx.example", "[192.0.2.99]", "localhost", "[192.0.2.1]", "client.example"} {
		s := proxytest.NewSession(p) // from 192.0.2.1
		s.Send("EHLO " + name)
		s.Send("MAIL FROM:<alice@example.com>")
		fmt.Println(s.Reply())
	}
	// Output:
	// 550 5.7.1 You have greeted with my name
	// 550 5.7.1 You have greeted with an address that isn't yours
	// 550 5.7.1 You have greeted with a name that isn't fully qualified
	// 250 2.1.0 Sender OK
	// 250 2.1.0 Sender OK
}
