package hooks_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Clients have three seconds to give themselves away, but for those of one's own network, which
// don't wait.
func ExampleEarlyTalkers() {
	own := netip.MustParsePrefix("192.0.2.0/24")
	guard := &hooks.EarlyTalkers{Delay: 3 * time.Second}
	p := &smtpproxy.Proxy{HookFor: func(conn smtpproxy.Connection) smtpproxy.Hook {
		if own.Contains(conn.RemoteIP) {
			return nil // Proxy.Hook, which passes everything here
		}
		return guard
	}}
	for _, client := range []smtpproxy.Connection{
		{RemoteIP: netip.MustParseAddr("192.0.2.7")},
		{RemoteIP: netip.MustParseAddr("203.0.113.7")},
		{RemoteIP: netip.MustParseAddr("203.0.113.9"), EarlyTalker: true},
	} {
		s := proxytest.ResumeSession(p, client, smtpproxy.Transaction{})
		pass := s.Connect().(smtpproxy.Pass)
		s.Send("HELO client.example")
		fmt.Printf("greeted after %v, then %v\n", pass.Delay, s.Reply())
	}
	// Output:
	// greeted after 0s, then 250 server.example
	// greeted after 3s, then 250 server.example
	// greeted after 3s, then 554 5.5.1 You have spoken before the greeting
}
