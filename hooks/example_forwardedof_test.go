package hooks_test

import (
	"fmt"
	"net/netip"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// logMail logs who sends a message: the client of the server in front, if that has told, else
// whoever is connected.
func logMail(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "MAIL" {
		client := conn.RemoteIP
		if from, told := hooks.ForwardedOf(ctx, txn); told && from.Addr.IsValid() {
			client = from.Addr
		}
		fmt.Println(client, cmd.Args())
	}
	return nil, nil
}

// The log names the client of the server in front.
func ExampleForwardedOf() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(
		&hooks.XFORWARD{Trust: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}},
		smtpproxy.HookFunc(logMail),
	)})
	s.Send("EHLO mx.example")
	s.Send("XFORWARD ADDR=IPV6:2001:db8::7 PROTO=ESMTP")
	s.Send("MAIL FROM:<alice@example.com>")
	s.Send("RSET")
	s.Send("MAIL FROM:<postmaster@mx.example>") // the server's own
	// Output:
	// 2001:db8::7 FROM:<alice@example.com>
	// 192.0.2.1 FROM:<postmaster@mx.example>
}
