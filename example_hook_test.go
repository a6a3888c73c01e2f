package smtpproxy_test

import (
	"fmt"
	"net/netip"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// relayGuard lets only clients in its networks send mail. All connections
// share it, so what it holds must not change without a lock.
type relayGuard struct {
	networks []netip.Prefix
}

func (g *relayGuard) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() != "MAIL" {
		return nil, nil
	}
	for _, network := range g.networks {
		if network.Contains(conn.RemoteIP) {
			return nil, nil
		}
	}
	return smtpproxy.Reply{
		Code:       550,
		Enhanced:   smtpproxy.EnhancedCode{5, 7, 1},
		Lines:      []string{"Not from " + conn.RemoteIP.String()},
		Disconnect: true,
	}, nil
}

// A hook with a configuration is a type of its own.
func ExampleHook() {
	guard := &relayGuard{networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	p := &smtpproxy.Proxy{Hook: guard}

	for _, address := range []string{"198.51.100.7", "203.0.113.9"} {
		client := smtpproxy.Connection{RemoteIP: netip.MustParseAddr(address)}
		s := proxytest.ResumeSession(p, client, smtpproxy.Transaction{})
		s.Send("EHLO client.example")
		s.Send("MAIL FROM:<alice@example.com>")
		fmt.Println(s.Reply())
	}
	// Output:
	// 250 2.1.0 Sender OK
	// 550 5.7.1 Not from 203.0.113.9
}
