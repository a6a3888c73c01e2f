package hooks

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// XFORWARD takes the command XFORWARD (Postfix's XFORWARD_README), by which a mail server in
// front tells where a message comes from: Postfix sends it as smtpd_proxy_filter's client,
// and as smtp(8) and lmtp(8) with smtp_send_xforward_command, amavis sends it on. Unlike
// [XCLIENT] it changes nothing but what [ForwardedOf] returns, for logs above all; who is
// connected is still the one in front. It holds for one transaction, to the end of it.
//
// What it tells is true as far as those in Trust tell the truth. Whoever decides by it
// believes all who may connect from there.
//
// The command is announced to those in Trust, and answered 550 to all others, 503 in a
// transaction and 501 where it is malformed. Attributes that aren't known are ignored. The
// zero value believes nobody.
type XFORWARD struct {
	// Trust has the networks of the servers in front.
	Trust []netip.Prefix
}

// Forwarded is where a message comes from. What the server in front doesn't know is the zero
// value.
type Forwarded struct {
	Name   string     // the client's host name: NAME
	Addr   netip.Addr // its address: ADDR
	Port   uint16     // PORT
	HELO   string     // how it has greeted: HELO
	Proto  string     // the protocol, such as "ESMTP": PROTO
	Ident  string     // the name of the message in front, for logs: IDENT
	Source string     // "LOCAL" or "REMOTE": SOURCE
}

// ForwardedOf returns where the message of a transaction comes from, and whether that was
// told.
func ForwardedOf(ctx *smtpproxy.Context, txn smtpproxy.Transaction) (Forwarded, bool) {
	s := smtpproxy.State[xforwardState](ctx)
	if s.id != txn.ID {
		return Forwarded{}, false // of a transaction that is over
	}
	return s.told, true
}

// xforwardState is what a connection remembers.
type xforwardState struct {
	id   string // of the transaction
	told Forwarded
}

const xforwardAttributes = "NAME ADDR PORT PROTO HELO IDENT SOURCE"

// Keywords implements smtpproxy.KeywordHook.
func (x *XFORWARD) Keywords(_ *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	if contains(x.Trust, conn.Peer.Addr()) {
		kw.Set("XFORWARD", xforwardAttributes)
	} else if _, ok := kw.Get("XFORWARD"); ok {
		kw.Delete("XFORWARD")
	}
	return nil
}

// Command implements smtpproxy.Hook.
func (x *XFORWARD) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() != "XFORWARD" {
		return nil, nil
	}
	if !contains(x.Trust, conn.Peer.Addr()) {
		return refusal(550, 5, 7, 0, "XFORWARD not authorized"), nil
	}
	if txn.Active {
		return refusal(503, 5, 5, 1, "Mail transaction in progress"), nil
	}
	list, ok := attributesOf(cmd.Args())
	if !ok {
		return refusal(501, 5, 5, 4, "Syntax: XFORWARD attribute=value..."), nil
	}
	told, _ := ForwardedOf(ctx, txn) // the first one of a transaction makes all unknown
	for i := range list {
		if a := &list[i]; !told.take(a) {
			return refusal(501, 5, 5, 4, "Bad value of "+printable(a.name)), nil
		}
	}
	*smtpproxy.State[xforwardState](ctx) = xforwardState{txn.ID, told}
	return smtpproxy.Reply{}, nil
}

// take takes an attribute, and tells whether it makes sense.
func (f *Forwarded) take(a *attribute) (ok bool) {
	ok = !a.known
	switch a.name {
	case "NAME":
		f.Name, ok = a.value, ok || a.isHostName()
	case "ADDR":
		if f.Addr = (netip.Addr{}); a.known {
			f.Addr, ok = a.addr()
		}
	case "PORT":
		if f.Port = 0; a.known {
			f.Port, ok = a.port()
		}
	case "HELO":
		f.HELO, ok = a.value, true
	case "PROTO":
		f.Proto, ok = a.value, true
	case "IDENT":
		f.Ident, ok = a.value, true
	case "SOURCE":
		f.Source = strings.ToUpper(a.value)
		ok = ok || slices.Contains([]string{"LOCAL", "REMOTE"}, f.Source)
	default:
		ok = true
	}
	return ok
}
