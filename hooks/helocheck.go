package hooks

import (
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy"
)

// CheckHELO refuses mail of clients whose greeting can't be true: with a name that isn't one,
// such as "my printer" or a bare address, with an address literal that isn't the client's (RFC
// 5321 section 4.1.3), or with a name that is the server's own. The zero value checks all but
// the last.
//
// It is the MAIL command that is refused, with 550 5.7.1. A client whose EHLO is refused tries
// HELO with the same name; and programs that people use say what they like in EHLO and
// authenticate afterwards. So clients that have authenticated aren't checked, nor are those that
// haven't greeted, which is the server's matter. What a front end tells with XCLIENT counts as
// what a client says. A client on a unix socket may have any literal, since it has no address.
//
// # Dangers
//
// A server that is set up badly fails this as a program that sends spam does, and so does one
// that says the literal of an address behind NAT. Where a load balancer hides the clients'
// addresses, every literal is wrong. RFC 5321 section 4.1.4 forbids refusing mail since the name
// isn't the client's in the DNS, and this doesn't look there.
type CheckHELO struct {
	// Own has the names and address literals of the server, in any case, which no client
	// has, but one that runs on the server itself.
	Own []string

	// RequireDot also refuses names without a dot, such as "localhost" (RFC 5321 section
	// 2.3.5: names have to be fully qualified).
	RequireDot bool
}

// Command implements smtpproxy.Hook.
func (c *CheckHELO) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() != "MAIL" || conn.HELO.Verb == "" || conn.Auth.Mechanism != "" {
		return nil, nil
	}
	if fault := c.fault(strings.TrimRight(conn.HELO.Host, " \t"), conn.RemoteIP); fault != "" {
		return refusal(550, 5, 7, 1, fault), nil
	}
	return nil, nil
}

// fault tells what is wrong with a name of a client.
func (c *CheckHELO) fault(name string, ip netip.Addr) string {
	bare := strings.TrimSuffix(name, ".")
	switch {
	case slices.ContainsFunc(c.Own, func(own string) bool { return strings.EqualFold(strings.TrimSuffix(own, "."), bare) }):
		return "You have greeted with my name"
	case strings.HasPrefix(name, "["):
		literal, ok := ofLiteral(name)
		isKnown := ip.IsValid() && !ip.IsUnspecified() // XCLIENT has 0.0.0.0 for nobody
		switch {
		case !ok:
			return "You have greeted with a bad address literal"
		case isKnown && literal != ip.WithZone(""):
			return "You have greeted with an address that isn't yours"
		}
	case !mayBeHost(bare):
		return "You have greeted with what is no host name"
	case c.RequireDot && !strings.Contains(bare, "."):
		return "You have greeted with a name that isn't fully qualified"
	}
	return ""
}

// ofLiteral returns the address of an address literal (RFC 5321 section 4.1.3).
func ofLiteral(s string) (netip.Addr, bool) {
	s, opened := strings.CutPrefix(s, "[")
	s, closed := strings.CutSuffix(s, "]")
	if !opened || !closed {
		return netip.Addr{}, false
	}
	v6 := len(s) > len("IPv6:") && strings.EqualFold(s[:len("IPv6:")], "IPv6:")
	if v6 {
		s = s[len("IPv6:"):]
	}
	ip, err := netip.ParseAddr(s)
	return ip.Unmap(), err == nil && ip.Is6() == v6 && ip.Zone() == ""
}

// mayBeHost tells whether hosts have such names: that of letters, digits, hyphens and, in real
// life, underscores, which isn't an address (RFC 5321 section 4.1.2, RFC 6531 section 3.3). Not
// all that may be sent is registered anywhere, so hyphens may stand anywhere.
func mayBeHost(name string) bool {
	if len(name) > 255 || !utf8.ValidString(name) || strings.Trim(name, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || utf8.RuneCountInString(label) > 63 {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c >= utf8.RuneSelf:
			default:
				return false
			}
		}
	}
	return true
}

// RequirePTR refuses mail of clients whose host name isn't known: whose address has no name in
// the reverse DNS that has the same address in turn. It needs Proxy.LookupPTR: without, nobody's
// name is known. MAIL is answered 450 4.7.25 (RFC 7372 section 3.3), not 550, since the DNS may
// not have answered in time. Clients that have authenticated are let through, and so are those
// on unix sockets, and those whose address a front end doesn't know: 0.0.0.0 with XCLIENT.
//
// Many honest servers of small sites have no such name, and hosts in private networks rarely do.
type RequirePTR struct{}

// Command implements smtpproxy.Hook.
func (RequirePTR) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	isKnown := conn.RemoteIP.IsValid() && !conn.RemoteIP.IsUnspecified()
	if cmd.Verb() != "MAIL" || conn.RemotePTR != "" || conn.Auth.Mechanism != "" || !isKnown {
		return nil, nil
	}
	return refusal(450, 4, 7, 25, "Your address has no name in the DNS that leads back to it"), nil
}
