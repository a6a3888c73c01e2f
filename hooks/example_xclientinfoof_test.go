package hooks_test

import (
	"fmt"
	"net/netip"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// onlyFromTLS refuses mail of clients that are connected to the front end without TLS, whatever
// the front end itself has here.
func onlyFromTLS(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "MAIL" && hooks.XCLIENTInfoOf(ctx).Transport != "TLS" {
		return smtpproxy.Reply{Code: 530, Enhanced: smtpproxy.EnhancedCode{5, 7, 0}, Lines: []string{"Must issue a STARTTLS command first"}}, nil
	}
	return nil, nil
}

// Dovecot's submission proxy tells how its client is connected, and of its session.
func ExampleXCLIENTInfoOf() {
	p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(
		&hooks.XCLIENT{Trust: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}},
		smtpproxy.HookFunc(onlyFromTLS),
	)}
	for _, transport := range []string{"insecure", "TLS"} {
		s := proxytest.NewSession(p)
		s.Send("EHLO proxy.example")
		s.Send("XCLIENT ADDR=198.51.100.7 SESSION=Ww+2B1 CLIENT-TRANSPORT=" + transport)
		s.Send("EHLO proxy.example")
		s.Send("MAIL FROM:<alice@example.com>")
		fmt.Println(hooks.XCLIENTInfoOf(s.Context()).Session, s.Reply())
	}
	// Output:
	// Ww+1 530 5.7.0 Must issue a STARTTLS command first
	// Ww+1 250 2.1.0 Sender OK
}
