package smtpproxy_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// noops is what countNOOP remembers of a connection. The type is not exported,
// so nobody else can have the same.
type noops struct{ count int }

// countNOOP ends a connection at its third NOOP.
func countNOOP(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "NOOP" {
		n := smtpproxy.State[noops](ctx)
		n.count++
		if n.count > 2 {
			return smtpproxy.Reply{
				Code:     421,
				Enhanced: smtpproxy.EnhancedCode{4, 7, 0},
				Lines:    []string{"Too many NOOPs"},
			}, nil
		}
	}
	return nil, nil
}

// Each connection has its own count, which RSET and EHLO don't clear.
func ExampleState() {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(countNOOP)}

	first := proxytest.NewSession(p)
	for _, command := range []string{"NOOP", "NOOP", "EHLO client.example", "NOOP"} {
		first.Send(command)
	}
	fmt.Println(first.Reply())

	second := proxytest.NewSession(p)
	second.Send("NOOP")
	fmt.Println(second.Reply())

	// The server's side reaches the same value.
	fmt.Println(smtpproxy.State[noops](second.Context()).count)
	// Output:
	// 421 4.7.0 Too many NOOPs
	// 250 2.0.0 OK
	// 1
}
