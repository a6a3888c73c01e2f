package hooks

import (
	"net/netip"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// EarlyTalkers refuses clients that send something before they are greeted, which RFC 5321
// section 3.1 forbids, as many programs that send spam do. Such a client gets 554 5.5.1 to its
// first command, unless that is QUIT, and is closed. Its greeting is held back for Delay, so that
// it has time to give itself away: a few seconds tell most. The zero value refuses those that
// talk at once.
//
// What it looks at is smtpproxy.Connection.EarlyTalker, which is known on unix systems. A client
// that a front end tells of with XCLIENT doesn't wait again, since the front end has been
// greeted, and it isn't known whether the client has.
//
// In a smtpproxy.Chain, a hook whose own Connect decides on a Restart stands behind it: see
// [Networks].
//
// # Dangers
//
// An honest server waits for five minutes (RFC 5321 section 4.5.3.2.1), but people who send
// mail with a program, and what watches the server, don't like to wait. Who shouldn't have to is
// told by Proxy.HookFor. Each client that waits is a connection and a goroutine. A load balancer
// that connects only once its client has sent something makes early talkers of all that come
// by way of it.
type EarlyTalkers struct {
	// Delay is how long a greeting is held back.
	Delay time.Duration

	// Reply is what early talkers get, a 4xx or 5xx. What is zero in it is as in
	// "554 5.5.1 You have spoken before the greeting".
	Reply smtpproxy.Reply
}

// Connect implements smtpproxy.ConnectHook.
func (e *EarlyTalkers) Connect(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
	if conn.Peer != netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort) {
		return nil, nil // it was told of, and has been greeted
	}
	return smtpproxy.Pass{Delay: e.Delay}, nil
}

// Command implements smtpproxy.Hook.
func (e *EarlyTalkers) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if !conn.EarlyTalker || cmd.Verb() == "QUIT" {
		return nil, nil
	}
	return e.refuse(), nil
}

// refuse returns the refusal. Few connections need the stack that it takes.
//
//go:noinline
func (e *EarlyTalkers) refuse() smtpproxy.Decision {
	r := orElse(e.Reply, refusal(554, 5, 5, 1, "You have spoken before the greeting"))
	r.Disconnect = true
	return r
}
