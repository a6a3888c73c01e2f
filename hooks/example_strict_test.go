package hooks_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A client that is being written learns where it breaks RFC 5321.
func ExampleStrict() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.Strict{}})
	for _, line := range []string{
		"MAIL FROM:<alice@example.com>", "EHLO my_computer", "EHLO client.example", "MAIL FROM: <alice@example.com>",
		"MAIL FROM:<alice@example.com>", "RCPT TO:<@relay.example,bob@example.org>", "RCPT TO:<bob@example.org>",
	} {
		s.Send(line)
		fmt.Println(s.Reply().Code, line)
	}
	// Output:
	// 503 MAIL FROM:<alice@example.com>
	// 501 EHLO my_computer
	// 250 EHLO client.example
	// 501 MAIL FROM: <alice@example.com>
	// 250 MAIL FROM:<alice@example.com>
	// 501 RCPT TO:<@relay.example,bob@example.org>
	// 250 RCPT TO:<bob@example.org>
}
