package hooks_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// What a submission server may bound. The address that a load balancer checks the server from
// is left out, and the operator's log is told who exceeds what.
func ExampleLimits() {
	limits := hooks.Limits{
		Limits: []hooks.Limit{
			{What: hooks.Connections, Per: hooks.PerNetwork, Max: 20},
			{What: hooks.FailedAUTH, Per: hooks.PerNetwork, Max: 5, Every: time.Hour},
			{What: hooks.Messages, Per: hooks.PerLogin, Max: 500, Every: 24 * time.Hour, Beyond: smtpproxy.Reply{Code: 450}},
			{What: hooks.Errors, Max: 3, Beyond: smtpproxy.Pass{Delay: time.Second}},
			{What: hooks.Errors, Max: 10},
		},
		Exempt:   []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")},
		OnBeyond: func(_ *smtpproxy.Context, b hooks.Bucket) { fmt.Println("too many", b.What, "per", b.Per) },
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Named("limits", limits.Hook())})
	s.Connect()
	for range 7 {
		if s.Closed() {
			break
		}
		s.Answer("AUTH", 535, "5.7.8 Wrong user name or password")
		s.Send("AUTH PLAIN AGFsaWNlAGd1ZXNz")
		fmt.Println(s.Reply())
	}
	// Output:
	// 535 5.7.8 Wrong user name or password
	// 535 5.7.8 Wrong user name or password
	// 535 5.7.8 Wrong user name or password
	// too many errors per connection
	// 535 5.7.8 Wrong user name or password
	// too many errors per connection
	// 535 5.7.8 Wrong user name or password
	// too many failed AUTH per network
	// too many errors per connection
	// 421 4.7.0 Too many failed authentications
}
