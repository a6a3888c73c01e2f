package hooks

import (
	"net/netip"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// XFORWARD takes the command XFORWARD (Postfix's XFORWARD_README), by which a mail server in
// front tells where a message comes from: Postfix sends it as smtpd_proxy_filter's client,
// and as smtp(8) and lmtp(8) with smtp_send_xforward_command, amavis sends it on. Unlike
// [XCLIENT] it changes nothing but what [ForwardedOf] returns, for logs above all; who is
// connected is still the one in front. It holds for one transaction, to the end of it: the
// first command makes all unknown, further ones add to it.
//
// The command is announced to those who may send it, and answered 550 to all others, 503 in
// a transaction and 501 where it is malformed, which changes nothing. Attributes that aren't
// known are ignored.
//
// What it tells is true as far as those in Trust tell the truth. Whoever decides by it
// believes all who may connect from there. Trust is judged by conn.Peer; behind XCLIENT, which
// a front end may follow up with whatever its client sends, the client that was told has to
// be in Trust, too. The zero value believes nobody.
type XFORWARD struct {
	// Trust has the networks of the servers in front. A client on a unix socket, which
	// has no address, is never in it, nor is one with an IPv6 zone.
	Trust []netip.Prefix
}

// Forwarded is where a message comes from. What the server in front doesn't know, or hasn't
// told, is the zero value.
type Forwarded struct {
	Name   string     // the client's host name, in lower case: NAME
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
	if s.id == "" || s.id != txn.ID {
		return Forwarded{}, false // nothing, or of a transaction that is over
	}
	return s.told, true
}

// xforwardState is what a connection remembers.
type xforwardState struct {
	id   string // of the transaction
	told Forwarded
}

const xforwardAttributes = "NAME ADDR PORT PROTO HELO IDENT SOURCE"

// Keywords implements smtpproxy.KeywordHook: it announces XFORWARD to those who may send it,
// and hides a server's own from all others.
func (x *XFORWARD) Keywords(_ *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	if trusts(x.Trust, &conn) {
		kw.Set("XFORWARD", xforwardAttributes)
	} else if _, ok := kw.Get("XFORWARD"); ok {
		kw.Delete("XFORWARD")
	}
	return nil
}

// Command implements smtpproxy.Hook.
func (x *XFORWARD) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch {
	case cmd.Verb() != "XFORWARD":
		return nil, nil
	case !trusts(x.Trust, &conn):
		return notAuthorized("XFORWARD"), nil
	case txn.Active:
		return inTransaction(), nil
	}
	list, ok := attributesOf(cmd.Args())
	if !ok {
		return malformed("Syntax: XFORWARD attribute=value..."), nil
	}
	told, _ := ForwardedOf(ctx, txn)
	for i := range list {
		if a := &list[i]; !told.take(a) {
			return malformed("Bad value of " + a.name), nil
		}
	}
	*smtpproxy.State[xforwardState](ctx) = xforwardState{txn.ID, told}
	return smtpproxy.Reply{}, nil
}

// take takes an attribute, and tells whether it makes sense. The value of one that the server
// in front doesn't know is empty.
func (f *Forwarded) take(a *attribute) (ok bool) {
	switch a.name {
	case "NAME":
		f.Name = strings.ToLower(a.value)
		return !a.known || a.isHostName()
	case "ADDR":
		f.Addr, ok = a.addr()
		return ok || !a.known
	case "PORT":
		f.Port, ok = a.port()
		return ok || !a.known
	case "HELO":
		f.HELO = a.masked()
	case "PROTO":
		f.Proto = a.masked()
	case "IDENT":
		f.Ident = a.masked()
	case "SOURCE":
		f.Source = strings.ToUpper(a.value)
		return !a.known || f.Source == "LOCAL" || f.Source == "REMOTE"
	}
	return true
}
