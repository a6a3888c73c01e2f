package smtpproxy_test

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// front is where the only front end is that may tell who its clients are.
var front = netip.MustParsePrefix("192.0.2.0/24")

// takesXCLIENT takes "XCLIENT ADDR=address" from the front end.
func takesXCLIENT(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	addr, err := netip.ParseAddr(strings.TrimPrefix(cmd.Args(), "ADDR="))
	switch {
	case cmd.Verb() != "XCLIENT":
		return nil, nil
	case !front.Contains(conn.Peer.Addr()), // not RemoteIP alone, which a front end has told
		!front.Contains(conn.RemoteIP): // what a client of its sends, many a front end hands on
		return smtpproxy.Reply{Code: 550, Lines: []string{"Not authorized"}}, nil
	case txn.Active:
		return smtpproxy.Reply{Code: 503, Lines: []string{"Mail transaction in progress"}}, nil
	case err != nil:
		return smtpproxy.Reply{Code: 501, Lines: []string{"Bad address"}}, nil
	}
	return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: addr}}, nil
}

// The server starts afresh, for another client than the one connected.
func ExampleOrigin() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(takesXCLIENT)})
	s.Send("EHLO front.example")
	s.Send("XCLIENT ADDR=2001:db8::7")
	fmt.Println(s.Reply())
	conn := s.Connection()
	fmt.Println(conn.RemoteIP, "by way of", conn.Peer)
	// Output:
	// 220 proxytest.example ESMTP
	// 2001:db8::7 by way of 192.0.2.1:49152
}
