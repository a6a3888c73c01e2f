package hooks_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/foxcpp/go-mockdns"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A list is asked about each client, here one that the example serves itself.
func ExampleNewDNSList() {
	list := hooks.NewDNSList("bl.example", hooks.DNSListOptions{
		Timeout: 2 * time.Second,
		Resolver: &mockdns.Resolver{Zones: map[string]mockdns.Zone{ // left out, it is net.DefaultResolver
			"7.113.0.203.bl.example.": {A: []string{"127.0.0.2"}},
		}},
	})
	p := &smtpproxy.Proxy{Hook: list}
	for _, ip := range []string{"203.0.113.7", "203.0.113.8"} {
		s := proxytest.ResumeSession(p, smtpproxy.Connection{RemoteIP: netip.MustParseAddr(ip)}, smtpproxy.Transaction{})
		s.Connect()
		fmt.Println(s.Reply())
	}
	// Output:
	// 554 5.7.1 Your address 203.0.113.7 is listed by bl.example
	// 220 proxytest.example ESMTP
}
