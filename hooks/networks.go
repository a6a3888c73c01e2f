package hooks

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/seed3262c777/smtpproxy"
)

// Networks lets clients in by their address, or keeps them out, before they are greeted
// (RFC 5321 section 3.1). Where a front end has told of another client with XCLIENT, that one's
// address counts, and it is decided again. The zero value lets everybody in.
//
// A client without an address, as on a unix socket, is in no network: so Deny doesn't keep it
// out, and Allow doesn't let it in. An IPv6 zone doesn't count, and a network of IPv4 addresses
// in IPv6 form (::ffff:192.0.2.0/120) is that of the IPv4 addresses. ::/0 has the IPv6 addresses
// alone: everybody is both 0.0.0.0/0 and ::/0. An invalid prefix is a network without addresses.
//
// Behind a load balancer that doesn't tell who its clients are, all have its address.
//
// In a smtpproxy.Chain, it stands before a hook whose own Connect decides on a Restart, because
// it knows who the client is without an XCLIENT. That ends the asking: the hooks before it have
// been asked about who is connected, those behind it about nobody, and none is about the client
// that it tells, who is its own to refuse. So such a hook stands last.
type Networks struct {
	// Allow lets in those alone who are in one of these networks; empty is everybody.
	Allow []netip.Prefix

	// Deny keeps out those who are in one of these networks, whatever Allow says.
	Deny []netip.Prefix

	// Reply is what others get in the place of the greeting, a 4xx or 5xx, or it is a
	// failure. What is zero in it is as in "554 5.7.1 Access denied", or in "421 4.7.1" of it if
	// what is set has a 4 (RFC 7504 has 521 for hosts that never take mail).
	Reply smtpproxy.Reply
}

// Connect implements smtpproxy.ConnectHook.
func (n *Networks) Connect(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
	if !isIn(n.Deny, conn.RemoteIP) && (len(n.Allow) == 0 || isIn(n.Allow, conn.RemoteIP)) {
		return nil, nil
	}
	return orElse(n.Reply, refusal(554, 5, 7, 1, "Access denied")), nil
}

// Command implements smtpproxy.Hook: it passes everything.
func (n *Networks) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// isIn tells whether an address is in one of some networks, whose prefixes may be written in
// IPv6 form. It is contains for all but who is trusted, where what is written in another form
// must not let anybody in.
func isIn(networks []netip.Prefix, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool {
		const mapped = 96 // bits before the IPv4 address
		if p.Addr().Is4In6() && p.Bits() >= mapped {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
		}
		return p.Contains(ip)
	})
}

// orElse returns a reply that a user has set; what is zero in it is as in another one, in the
// class, 4 or 5, of what the user has set.
func orElse(set, otherwise smtpproxy.Reply) smtpproxy.Reply {
	if set.Code == 0 && set.Enhanced[0] == 4 && otherwise.Code/100 != 4 {
		set.Code = 421 // the client is turned away, and may come back
	}
	set.Code = cmp.Or(set.Code, otherwise.Code)
	if e := otherwise.Enhanced; set.Enhanced == (smtpproxy.EnhancedCode{}) {
		set.Enhanced = smtpproxy.EnhancedCode{set.Code / 100, e[1], e[2]}
	}
	if len(set.Lines) == 0 {
		set.Lines = otherwise.Lines
	}
	return set
}
