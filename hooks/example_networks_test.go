package hooks_test

import (
	"fmt"
	"net/netip"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Some networks don't get as far as the greeting.
func ExampleNetworks() {
	p := &smtpproxy.Proxy{Hook: &hooks.Networks{
		Deny:  []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		Reply: smtpproxy.Reply{Lines: []string{"See https://mail.example/denied"}}, // 554 5.7.1
	}}
	for _, ip := range []string{"203.0.113.7", "198.51.100.7"} {
		s := proxytest.ResumeSession(p, smtpproxy.Connection{RemoteIP: netip.MustParseAddr(ip)}, smtpproxy.Transaction{})
		s.Connect()
		fmt.Println(s.Reply())
	}
	// Output:
	// 554 5.7.1 See https://mail.example/denied
	// 220 proxytest.example ESMTP
}
