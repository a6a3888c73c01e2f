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
// The command is announced to those who may send it, with the attributes that are taken,
// and answered 550 to all others, 503 in a transaction, 501 where it is malformed and 554
// where TTL says that front ends go round in a loop. Nothing has changed then. It is taken
// before EHLO too; a server that insists on EHLO does so behind it.
//
// ADDR, PORT, NAME, DESTADDR and DESTPORT go to conn; HELO and PROTO are conn.HELO, and
// LOGIN is conn.Auth, with the mechanism "XCLIENT". [XCLIENTInfo] has the rest. What a command
// doesn't tell is unknown, since it may be of another client than the one before it. Only the
// addresses stay where it tells none, and with that of the client its port and name.
// ADDR=[UNAVAILABLE] makes it 0.0.0.0, which is nobody's. Dovecot splits a long command: so
// those that have come in the same breath count as one, and so does one right behind another
// that has told SESSION or TTL, which Dovecot alone does, if it tells something else.
//
// In a smtpproxy.Chain it stands before all that decides by who the client is, and is asked
// about every command: with a smtpproxy.Mux, or Proxy.Commands, or a hook before it that
// answers, it can't see what has stood between two XCLIENT.
//
// # Dangers
//
// Whoever may send it is whoever it likes to be: with LOGIN, any user. So nobody may who
// isn't in Trust. The zero value believes nobody.
//   - A front end must be the only one who can connect from its address. Trust is judged by
//     conn.Peer, which nothing that is told changes.
//   - Front ends such as nginx and Dovecot hand everything on, once a client is logged in:
//     an XCLIENT of its own, too. So behind one, another is believed only if the client that
//     was told is in Trust as well, as in Postfix. A front end's clients must not be, and it
//     must tell ADDR, and await the reply before it hands anything on.
//   - Where the listener beneath reads a PROXY header, conn.Peer is whom that names: the
//     client, who isn't trusted. A front end sends one or the other. From whom the listener
//     takes such a header has to be kept as narrow as Trust.
//   - A front end that doesn't encode user names can be made to tell more by one of them: see
//     RawLogin.
type XCLIENT struct {
	// Trust has the networks of the front ends: of nobody else. A client on a unix socket,
	// which has no address, is never in it, nor is one with an IPv6 zone.
	Trust []netip.Prefix

	// Attributes are those that are announced and taken; nil stands for all that are
	// known: Postfix's NAME ADDR PORT PROTO HELO LOGIN REVERSE_NAME DESTADDR DESTPORT, and
	// Dovecot's SESSION TTL TIMEOUT CLIENT-TRANSPORT DESTNAME FORWARD. Others in it are
	// neither announced nor taken.
	Attributes []string

	// Strict answers 501 to a command with other attributes. By default those are
	// ignored, as Dovecot does: nginx sends its own without looking at what is announced.
	Strict bool

	// RawLogin takes LOGIN as it stands, for front ends that don't encode it: nginx before
	// 1.29.2 and Roundcube. Otherwise it is decoded, if it can be, and their user admi+6E
	// comes out as admin. It implies Strict: a name of theirs with a blank ends there, and
	// what follows counts as further attributes. So Attributes should have those alone
	// that the front end sends each time, LOGIN and ADDR, and NAME with nginx: whatever a
	// name could add is then one too many, and refused.
	RawLogin bool
}

// XCLIENTInfo is what a front end has told of a connection that isn't in
// smtpproxy.Connection. Nobody has verified it but the front end. What that hasn't told is the
// zero value.
type XCLIENTInfo struct {
	ReverseName string        // the client's name in the reverse DNS, confirmed or not: REVERSE_NAME
	Session     string        // the front end's name for the connection: SESSION
	Transport   string        // how the client is connected there: CLIENT-TRANSPORT, such as "TLS" or "insecure"
	DestName    string        // the name of the server there: DESTNAME
	Forward     string        // more about the user, in base64: FORWARD
	Timeout     time.Duration // how long the front end waits: TIMEOUT
	TTL         int           // how many servers the connection may still come to, with this one: TTL
}

// XCLIENTInfoOf returns what a front end has told of a connection with XCLIENT: the zero
// value before it has, and for a client that isn't trusted.
func XCLIENTInfoOf(ctx *smtpproxy.Context) XCLIENTInfo {
	return smtpproxy.State[xclientState](ctx).told.info
}

// xclientState is what a connection remembers.
type xclientState struct {
	told   xclientTold
	goesOn continuation
}

// continuation tells whether XCLIENT right behind XCLIENT is a part of the same, and so the
// front end's own, not what its client sends.
type continuation uint8

const (
	isOver continuation = iota
	// mayGoOn: it is, if it tells something else. This is Dovecot, whose octets may come
	// one by one, but which greets before it hands its client's on. nginx may not.
	mayGoOn
	// goesOn: it is. It has been sent already.
	goesOn
)

// xclientTold is what a front end has told.
type xclientTold struct {
	origin             smtpproxy.Origin // but for HELO
	verb, host         string           // PROTO and HELO
	nameless, portless bool             // the client has no name, or no port
	names              uint32           // which of xclientAttributes these are, a bit each
	info               XCLIENTInfo
}

var xclientAttributes = []string{
	"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "REVERSE_NAME", "DESTADDR", "DESTPORT",
	"SESSION", "TTL", "TIMEOUT", "CLIENT-TRANSPORT", "DESTNAME", "FORWARD",
}

// attributes returns those that are taken.
func (x *XCLIENT) attributes() []string {
	if x.Attributes == nil {
		return xclientAttributes
	}
	return slices.DeleteFunc(slices.Clone(xclientAttributes), func(name string) bool {
		return !slices.ContainsFunc(x.Attributes, func(a string) bool { return strings.EqualFold(a, name) })
	})
}

// Keywords implements smtpproxy.KeywordHook: it announces XCLIENT to those who may send it,
// and hides a server's own from all others.
func (x *XCLIENT) Keywords(ctx *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	if contains(x.Trust, conn.Peer.Addr()) {
		smtpproxy.State[xclientState](ctx).goesOn = isOver
	}
	if trusts(x.Trust, &conn) {
		kw.Set("XCLIENT", strings.Join(x.attributes(), " "))
	} else if _, ok := kw.Get("XCLIENT"); ok {
		kw.Delete("XCLIENT")
	}
	return nil
}

// Command implements smtpproxy.Hook.
func (x *XCLIENT) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	isXCLIENT := cmd.Verb() == "XCLIENT"
	if !contains(x.Trust, conn.Peer.Addr()) {
		if isXCLIENT {
			return notAuthorized("XCLIENT"), nil
		}
		return nil, nil // who isn't trusted costs nothing
	}
	s := smtpproxy.State[xclientState](ctx)
	on := s.goesOn
	s.goesOn = isOver
	switch {
	case !isXCLIENT:
		return nil, nil
	}
	if on == mayGoOn && s.told.repeats(cmd.Args()) {
		on = isOver
	}
	switch {
	case on == isOver && !trusts(x.Trust, &conn):
		return notAuthorized("XCLIENT"), nil
	case txn.Active:
		return inTransaction(), nil
	}
	return x.believed(s, on != isOver, &cmd, &conn), nil
}

// believed decides about a command of one who is believed. It has a frame of its own, since a
// connection's goroutine keeps the stack that its commands need.
//
//go:noinline
func (x *XCLIENT) believed(s *xclientState, continues bool, cmd *smtpproxy.Command, conn *smtpproxy.Connection) smtpproxy.Decision {
	var told xclientTold
	if continues {
		told = s.told
	}
	if r := x.take(&told, cmd.Args()); r != nil {
		return *r
	}
	s.told = told
	switch {
	case cmd.Pipelined:
		s.goesOn = goesOn
	case told.info.Session != "" || told.info.TTL != 0:
		s.goesOn = mayGoOn
	}
	return smtpproxy.Reply{Restart: told.whole(conn)}
}

// repeats tells whether a command has an attribute that was told already, or is malformed.
func (t *xclientTold) repeats(args string) bool {
	list, ok := attributesOf(args)
	return !ok || slices.ContainsFunc(list, func(a attribute) bool {
		i := slices.Index(xclientAttributes, a.name)
		return i >= 0 && t.names&(1<<i) != 0
	})
}

// take takes the attributes of a command. It returns a refusal if they make no sense.
func (x *XCLIENT) take(told *xclientTold, args string) *smtpproxy.Reply {
	list, ok := attributesOf(args)
	if !ok {
		return malformed("Syntax: XCLIENT attribute=value...")
	}
	taken := x.attributes()
	for i := range list {
		a := &list[i]
		switch {
		case slices.Contains(taken, a.name):
			if x.RawLogin && a.name == "LOGIN" {
				a.value = a.raw
			}
			bit := uint32(1) << slices.Index(xclientAttributes, a.name)
			if told.names&bit != 0 {
				return malformed("A second " + a.name)
			}
			told.names |= bit
			if !told.take(a) {
				return malformed("Bad value of " + a.name)
			}
			if a.name == "TTL" && a.known && told.info.TTL == 0 {
				r := refusal(554, 5, 4, 6, "Front ends in a loop")
				return &r
			}
		case x.Strict || x.RawLogin:
			return malformed("Unknown attribute " + shortened(a.name))
		}
	}
	return nil
}

// take takes an attribute, and tells whether it makes sense.
func (t *xclientTold) take(a *attribute) (ok bool) {
	if !a.known {
		t.forget(a.name)
		return true
	}
	o, info := &t.origin, &t.info
	switch a.name {
	case "NAME":
		o.RemotePTR, t.nameless = strings.ToLower(a.value), false
		return a.isHostName()
	case "ADDR":
		o.RemoteIP, ok = a.addr()
		return ok
	case "PORT":
		o.RemotePort, ok = a.port()
		t.portless = o.RemotePort == 0
		return ok
	case "PROTO":
		t.verb, ok = a.verb()
		return ok
	case "HELO":
		t.host = a.masked()
	case "LOGIN":
		o.Auth = smtpproxy.Auth{Mechanism: "XCLIENT", Username: a.value}
		return a.value == a.masked() // a masked name would be another user's
	case "REVERSE_NAME":
		info.ReverseName = strings.ToLower(a.value)
		return a.isHostName()
	case "DESTADDR":
		o.LocalIP, ok = a.addr()
		return ok
	case "DESTPORT":
		o.LocalPort, ok = a.port()
		return ok
	case "SESSION":
		info.Session = a.masked()
	case "TTL":
		info.TTL, ok = a.number()
		return ok
	case "TIMEOUT":
		var n int
		n, ok = a.number()
		info.Timeout = time.Duration(n) * time.Second
		return ok
	case "CLIENT-TRANSPORT":
		info.Transport = a.masked()
	case "DESTNAME":
		info.DestName = a.masked()
	case "FORWARD":
		info.Forward = a.masked()
	}
	return true
}

// forget takes an attribute that the front end doesn't know.
func (t *xclientTold) forget(name string) {
	switch name {
	case "NAME":
		t.origin.RemotePTR, t.nameless = "", true
	case "ADDR":
		t.origin.RemoteIP = netip.IPv4Unspecified()
	case "PORT":
		t.origin.RemotePort, t.portless = 0, true
	case "PROTO":
		t.verb = ""
	case "HELO":
		t.host = ""
	case "LOGIN":
		t.origin.Auth = smtpproxy.Auth{}
	}
}

// whole returns all that is told of a client, which was told of as conn before.
func (t *xclientTold) whole(conn *smtpproxy.Connection) *smtpproxy.Origin {
	o := t.origin
	if t.host != "" { // PROTO alone is no greeting
		o.HELO = smtpproxy.HELO{Verb: cmp.Or(t.verb, "HELO"), Host: t.host}
	}
	if !o.RemoteIP.IsValid() && (t.nameless || t.portless) {
		// Of the address that stays, something is unknown now.
		o.RemoteIP = conn.RemoteIP
		if !t.nameless {
			o.RemotePTR = cmp.Or(o.RemotePTR, conn.RemotePTR)
		}
		if !t.portless {
			o.RemotePort = cmp.Or(o.RemotePort, conn.RemotePort)
		}
	}
	return &o
}
