package smtpproxy_test

import (
	"fmt"
	"net/netip"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// blockList turns clients away before they have said a word.
type blockList struct {
	networks []netip.Prefix
}

// Command implements smtpproxy.Hook: whoever is let in may do all.
func (b *blockList) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// Connect implements smtpproxy.ConnectHook.
func (b *blockList) Connect(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
	for _, network := range b.networks {
		if network.Contains(conn.RemoteIP) {
			return smtpproxy.Reply{Code: 554, Lines: []string{"No mail from " + network.String()}}, nil
		}
	}
	return nil, nil
}

// A hook may also decide about connections. A refusal takes the place of the greeting.
func ExampleConnectHook() {
	p := &smtpproxy.Proxy{Hook: &blockList{networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}
	for _, address := range []string{"203.0.113.9", "198.51.100.7"} {
		client := smtpproxy.Connection{RemoteIP: netip.MustParseAddr(address)}
		s := proxytest.ResumeSession(p, client, smtpproxy.Transaction{})
		s.Connect()
		fmt.Println(s.Reply())
	}
	// Output:
	// 554 5.0.0 No mail from 203.0.113.0/24
	// 220 proxytest.example ESMTP
}

// HookFor chooses the hook of each connection, once: by the client's address, as here, or
// by the port, or from what is reloaded while the server runs.
func ExampleProxy_HookFor() {
	refuse := smtpproxy.Funcs{OnConnect: func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) {
		return smtpproxy.Reply{Code: 421, Lines: []string{"Come back later"}}, nil
	}}
	p := &smtpproxy.Proxy{HookFor: func(conn smtpproxy.Connection) smtpproxy.Hook {
		if conn.RemoteIP.IsLoopback() {
			return nil // Proxy.Hook, which isn't set
		}
		return refuse
	}}
	for _, address := range []string{"203.0.113.9", "127.0.0.1"} {
		client := smtpproxy.Connection{RemoteIP: netip.MustParseAddr(address)}
		s := proxytest.ResumeSession(p, client, smtpproxy.Transaction{})
		s.Connect()
		fmt.Println(s.Reply())
	}
	// Output:
	// 421 4.0.0 Come back later
	// 220 proxytest.example ESMTP
}
