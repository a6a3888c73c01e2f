package hooks

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// XCLIENT takes the command XCLIENT (Postfix's XCLIENT_README), by which a front end tells
// whose connection it is. nginx's mail proxy sends it, and Dovecot's submission and LMTP
// proxies, Roundcube and swaks do: behind it, conn.RemoteIP is the client's address, and the
// server has a fresh connection from there (see smtpproxy.Reply.Restart).
//
// Its danger is that whoever may send it is whoever it likes to be: with LOGIN, any user.
// So nobody may who isn't in Trust; a front end must be the only one who can connect from
// there; and it must not pass the XCLIENT of its own clients on. Trust is judged by
// conn.Peer, which nothing that is told changes.
//
// The command is announced to those who may send it, with the attributes that are taken,
// and answered 550 to all others. It is answered 503 in a transaction and 501 where it is
// malformed; nothing has changed then. It is taken before EHLO too. NAME, ADDR, PORT, HELO, PROTO, LOGIN, DESTADDR and
// DESTPORT go to conn, [XCLIENTInfo] has the rest. An address that a
// command doesn't tell stays. Everything else is unknown then, since it may be another
// client's, but where the command has come behind another one in the same breath, as Dovecot
// splits a long one: those count as one.
// ADDR=[UNAVAILABLE] makes the address 0.0.0.0, which is nobody's.
//
// The zero value believes nobody. In a smtpproxy.Chain it stands before all that decides by
// who the client is.
type XCLIENT struct {
	// Trust has the networks of the front ends.
	Trust []netip.Prefix

	// Attributes are those that are announced and taken, in upper case; nil stands for
	// all that are known: NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT, and
	// Dovecot's SESSION TTL TIMEOUT CLIENT-TRANSPORT DESTNAME FORWARD.
	Attributes []string

	// Strict answers 501 to a command with other attributes. By default those are
	// ignored, as Dovecot does: nginx sends its own without looking at what is announced.
	Strict bool
}

// XCLIENTInfo is what a front end has told of a connection that is neither in
// smtpproxy.Connection: Dovecot's attributes.
type XCLIENTInfo struct {
	Session   string        // the front end's name for the connection: SESSION
	Transport string        // how the client is connected there: CLIENT-TRANSPORT, such as "TLS" or "insecure"
	DestName  string        // the name of the server there: DESTNAME
	Forward   string        // more about the user, in base64: FORWARD
	Timeout   time.Duration // how long the front end waits: TIMEOUT
	TTL       int           // how many front ends may follow: TTL
}

// XCLIENTInfoOf returns what a front end has told of a connection with XCLIENT.
func XCLIENTInfoOf(ctx *smtpproxy.Context) XCLIENTInfo {
	return smtpproxy.State[xclientState](ctx).told.info
}

// xclientState is what a connection remembers.
type xclientState struct {
	told xclientTold
	// goesOn: the client has sent something behind its last command, XCLIENT, already. If
	// that is XCLIENT again, it is a part of the same.
	goesOn bool
}

// xclientTold is what a front end has told.
type xclientTold struct {
	origin   smtpproxy.Origin
	info     XCLIENTInfo
	nameless bool // the client has no name
}

var xclientAttributes = []string{
	"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT",
	"SESSION", "TTL", "TIMEOUT", "CLIENT-TRANSPORT", "DESTNAME", "FORWARD",
}

func (x *XCLIENT) attributes() []string {
	if x.Attributes == nil {
		return xclientAttributes
	}
	return x.Attributes
}

// Keywords implements smtpproxy.KeywordHook.
func (x *XCLIENT) Keywords(ctx *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	smtpproxy.State[xclientState](ctx).goesOn = false
	if contains(x.Trust, conn.Peer.Addr()) {
		kw.Set("XCLIENT", strings.Join(x.attributes(), " "))
	} else if _, ok := kw.Get("XCLIENT"); ok {
		kw.Delete("XCLIENT")
	}
	return nil
}

// Command implements smtpproxy.Hook.
func (x *XCLIENT) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	s := smtpproxy.State[xclientState](ctx)
	goesOn := s.goesOn
	s.goesOn = false
	if cmd.Verb() != "XCLIENT" {
		return nil, nil
	}
	if !contains(x.Trust, conn.Peer.Addr()) {
		return refusal(550, 5, 7, 0, "XCLIENT not authorized"), nil
	}
	if txn.Active {
		return refusal(503, 5, 5, 1, "Mail transaction in progress"), nil
	}
	list, ok := attributesOf(cmd.Args())
	if !ok {
		return refusal(501, 5, 5, 4, "Syntax: XCLIENT attribute=value..."), nil
	}
	var told xclientTold
	if goesOn {
		told = s.told
	}
	for i := range list {
		a := &list[i]
		switch {
		case slices.Contains(x.attributes(), a.name):
			if !told.take(a) {
				return refusal(501, 5, 5, 4, "Bad value of "+printable(a.name)), nil
			}
		case x.Strict:
			return refusal(501, 5, 5, 4, "Unknown attribute "+printable(a.name)), nil
		}
		if a.name == "TTL" && a.known && told.info.TTL == 0 {
			return refusal(554, 5, 4, 6, "Front ends in a loop"), nil
		}
	}
	s.told, s.goesOn = told, cmd.Pipelined
	o := told.origin
	if o.HELO.Host == "" {
		o.HELO = smtpproxy.HELO{} // PROTO alone is no greeting
	}
	if told.nameless && !o.RemoteIP.IsValid() {
		o.RemoteIP, o.RemotePort = conn.RemoteIP, cmp.Or(o.RemotePort, conn.RemotePort) // whose name is unknown now
	}
	return smtpproxy.Reply{Restart: &o}, nil
}

// take takes an attribute, and tells whether it makes sense.
func (t *xclientTold) take(a *attribute) (ok bool) {
	o, info := &t.origin, &t.info
	if !a.known {
		t.forget(a.name)
		return true
	}
	switch a.name {
	case "NAME":
		o.RemotePTR, t.nameless, ok = strings.ToLower(a.value), false, a.isHostName()
	case "ADDR":
		o.RemoteIP, ok = a.addr()
	case "PORT":
		o.RemotePort, ok = a.port()
	case "PROTO":
		o.HELO.Verb, ok = a.verb()
	case "HELO":
		o.HELO.Host, ok = a.value, true
		if o.HELO.Verb == "" {
			o.HELO.Verb = "HELO"
		}
	case "LOGIN":
		o.Auth, ok = smtpproxy.Auth{Mechanism: "XCLIENT", Username: a.value}, true
	case "DESTADDR":
		o.LocalIP, ok = a.addr()
	case "DESTPORT":
		o.LocalPort, ok = a.port()
	case "SESSION":
		info.Session, ok = a.value, true
	case "TTL":
		info.TTL, ok = a.number()
	case "TIMEOUT":
		var n int
		n, ok = a.number()
		info.Timeout = time.Duration(n) * time.Second
	case "CLIENT-TRANSPORT":
		info.Transport, ok = a.value, true
	case "DESTNAME":
		info.DestName, ok = a.value, true
	case "FORWARD":
		info.Forward, ok = a.value, true
	}
	return ok
}

// forget takes an attribute that the front end doesn't know.
func (t *xclientTold) forget(name string) {
	switch name {
	case "ADDR":
		t.origin.RemoteIP = netip.IPv4Unspecified()
	case "NAME":
		t.origin.RemotePTR, t.nameless = "", true
	case "HELO":
		t.origin.HELO = smtpproxy.HELO{}
	case "LOGIN":
		t.origin.Auth = smtpproxy.Auth{}
	}
}

// printable returns a name for a reply, which it must not be too long for.
func printable(name string) string {
	if len(name) > 40 {
		name = name[:40] + "..."
	}
	return unxtext(name)
}
