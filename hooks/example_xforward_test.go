package hooks_test

import (
	"fmt"
	"net/netip"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A filter behind Postfix (smtpd_proxy_filter) learns where each message comes from. Who is
// connected is still Postfix.
func ExampleXFORWARD() {
	postfix := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.XFORWARD{Trust: postfix}})
	s.Send("EHLO mx.example")
	s.Send("XFORWARD NAME=client.example ADDR=198.51.100.7 PORT=[UNAVAILABLE]")
	s.Send("MAIL FROM:<alice@example.com>")

	from, _ := hooks.ForwardedOf(s.Context(), s.Transaction())
	fmt.Println("from", from.Name, from.Addr, "by way of", s.Connection().RemoteIP)

	s.Send("RSET") // and it is of no message any more
	_, told := hooks.ForwardedOf(s.Context(), s.Transaction())
	fmt.Println("told:", told)
	// Output:
	// from client.example 198.51.100.7 by way of 192.0.2.1
	// told: false
}
