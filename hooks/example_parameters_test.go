package hooks_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Clients send what they weren't offered: Exchange Online XOORG, vCenter AUTH=<>.
func ExampleStripParameters() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.StripParameters("MAIL", "XOORG", "AUTH")})
	s.Send("EHLO client.example")
	for _, line := range []string{
		"MAIL FROM:<alice@example.com> SIZE=16180 XOORG=example.com",
		"RSET",
		"MAIL From:<vcenter@example.com> SIZE=1459 AUTH=<>",
		"RSET",
		`MAIL FROM:<"a> XOORG=b"@example.com>`, // no parameter
	} {
		fmt.Println(s.Send(line).(smtpproxy.Pass).Command)
	}
	// Output:
	// MAIL FROM:<alice@example.com> SIZE=16180
	// RSET
	// MAIL From:<vcenter@example.com> SIZE=1459
	// RSET
	// MAIL FROM:<"a> XOORG=b"@example.com>
}

// Nobody is ever told of what becomes of a message.
func ExampleAddParameter() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.AddParameter("RCPT", "NOTIFY=NEVER")})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@example.com>")
	fmt.Println(s.Send("RCPT TO:<bob@example.org>").(smtpproxy.Pass).Command)
	fmt.Println(s.Send("RCPT TO:<carol@example.org> NOTIFY=SUCCESS").(smtpproxy.Pass).Command)
	// Output:
	// RCPT TO:<bob@example.org> NOTIFY=NEVER
	// RCPT TO:<carol@example.org> NOTIFY=NEVER
}
