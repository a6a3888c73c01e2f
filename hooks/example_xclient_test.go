package hooks_test

import (
	"fmt"
	"net/netip"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// notFrom refuses clients by their address, behind a front end as well as before it.
func notFrom(blocked netip.Prefix) smtpproxy.Hook {
	return smtpproxy.Funcs{OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
		if blocked.Contains(conn.RemoteIP) {
			return smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"Not from there"}}, nil
		}
		return nil, nil
	}}
}

// nginx (1.29.2 or newer) on 192.0.2.1 tells whose connections these are.
func ExampleXCLIENT() {
	p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(
		&hooks.XCLIENT{
			Trust:      []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
			Attributes: []string{"ADDR", "LOGIN", "NAME"}, // what nginx sends
		},
		notFrom(netip.MustParsePrefix("203.0.113.0/24")),
	)}

	s := proxytest.NewSession(p) // from 192.0.2.1
	s.Send("EHLO mail.example")
	s.Send("XCLIENT ADDR=198.51.100.7 LOGIN=alice+2Bnews NAME=client.example")
	conn := s.Connection()
	fmt.Println(s.Reply())
	fmt.Println(conn.RemoteIP, conn.RemotePTR, conn.Auth.Mechanism, conn.Auth.Username, "by way of", conn.Peer.Addr())

	s.Send("XCLIENT LOGIN=admin") // the client's own, which nginx has handed on
	fmt.Println(s.Reply())

	s = proxytest.NewSession(p)
	s.Send("XCLIENT ADDR=203.0.113.9 NAME=[UNAVAILABLE]")
	fmt.Println(s.Reply())
	// Output:
	// 220 proxytest.example ESMTP
	// 198.51.100.7 client.example XCLIENT alice+news by way of 192.0.2.1
	// 550 5.7.0 XCLIENT not authorized
	// 554 5.7.1 Not from there
}
