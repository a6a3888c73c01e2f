package smtpproxy_test

import (
	"context"
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// tenant is the key of what withTenant gives to its hook.
type tenant struct{}

// withTenant is a hook that tells another whose mail this is, as middleware does with a
// request of HTTP.
func withTenant(name string, next smtpproxy.HookFunc) smtpproxy.HookFunc {
	return func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return next(ctx.WithContext(context.WithValue(ctx, tenant{}, name)), cmd, conn, txn)
	}
}

// commands is what countFor keeps for a connection.
type commands struct{ count int }

// countFor answers with whose commands it counts. What it keeps is the connection's, with
// whichever Context.
func countFor(ctx *smtpproxy.Context, _ smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	c := smtpproxy.State[commands](ctx)
	c.count++
	return smtpproxy.Reply{Lines: []string{fmt.Sprintf("%v: %d", ctx.Value(tenant{}), c.count)}}, nil
}

func ExampleContext_WithContext() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: withTenant("example.org", countFor)})
	for range 2 {
		s.Send("NOOP")
		fmt.Println(s.Reply())
	}
	fmt.Println(smtpproxy.State[commands](s.Context()).count)
	// Output:
	// 250 2.0.0 example.org: 1
	// 250 2.0.0 example.org: 2
	// 2
}
