package hooks

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// This file reads attributes as XCLIENT and XFORWARD have them.

// maxValue is how long the value of an attribute may be, as in Postfix; FORWARD, which is
// a list, may be as long as a line.
const maxValue = 255

// attribute is one of a command's.
type attribute struct {
	name  string // in upper case
	raw   string // its value as sent
	value string // decoded, without a look at what is in it
	known bool   // it is neither [UNAVAILABLE] nor [TEMPUNAVAIL]
}

// attributesOf returns the attributes of a command. ok is false if that is malformed: where
// it has none, one without a value or too long, or one twice. No front end sends one twice,
// but one that doesn't encode what its clients say can be made to.
func attributesOf(args string) (list []attribute, ok bool) {
	for word := range strings.FieldsFuncSeq(args, isBlank) {
		name, raw, _ := strings.Cut(word, "=")
		a := attribute{name: strings.ToUpper(name), raw: raw, value: unxtext(raw)}
		switch strings.ToUpper(raw) {
		case "[UNAVAILABLE]", "[TEMPUNAVAIL]":
			a.raw, a.value = "", ""
		default:
			a.known = true
		}
		same := func(other attribute) bool { return other.name == a.name }
		switch {
		case !isName(name), raw == "", len(raw) > maxValue && a.name != "FORWARD", slices.ContainsFunc(list, same):
			return nil, false
		}
		list = append(list, a)
	}
	return list, len(list) > 0
}

// isBlank tells whether a rune separates arguments.
func isBlank(r rune) bool { return r == ' ' || r == '\t' }

// isName tells whether an attribute may have a name.
func isName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return name != ""
}

// masked returns the value as it may stand in a log.
func (a *attribute) masked() string { return masked(a.value) }

// addr returns an address as the attributes ADDR and DESTADDR have it: an IPv6 address with
// the prefix "IPV6:" or, as Dovecot sends it in LMTP, without.
func (a *attribute) addr() (netip.Addr, bool) {
	s, is6 := a.value, false
	if len(s) > len("IPV6:") && strings.EqualFold(s[:len("IPV6:")], "IPV6:") {
		s, is6 = s[len("IPV6:"):], true
	}
	ip, err := netip.ParseAddr(s)
	return ip.Unmap(), err == nil && ip.Zone() == "" && (ip.Is6() || !is6)
}

// port returns a port. 0 is unknown.
func (a *attribute) port() (uint16, bool) {
	n, err := strconv.ParseUint(a.value, 10, 16)
	return uint16(n), err == nil
}

// number returns a count.
func (a *attribute) number() (int, bool) {
	n, err := strconv.ParseUint(a.value, 10, 31)
	return int(n), err == nil
}

// isHostName tells whether a value may be a name in the DNS, and is no address.
func (a *attribute) isHostName() bool {
	hasLetter := false
	for label := range strings.SplitSeq(a.value, ".") {
		if !isName(label) || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		hasLetter = hasLetter || strings.Trim(label, "0123456789") != ""
	}
	return hasLetter && len(a.value) <= maxValue
}

// verb returns the verb of the greeting that a PROTO stands for.
func (a *attribute) verb() (string, bool) {
	switch strings.ToUpper(a.value) {
	case "SMTP":
		return "HELO", true
	case "ESMTP":
		return "EHLO", true
	case "LMTP":
		return "LHLO", true
	}
	return "", false
}

// contains tells whether one of some networks has an address.
func contains(networks []netip.Prefix, ip netip.Addr) bool {
	ip = ip.Unmap()
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// trusts tells whether somebody is believed: who is connected has to be in one of some
// networks, and, since a front end may hand on what its clients send, whoever it has told of.
func trusts(networks []netip.Prefix, conn *smtpproxy.Connection) bool {
	return contains(networks, conn.Peer.Addr()) && contains(networks, conn.RemoteIP)
}

// refusal makes a negative reply.
func refusal(code, class, subject, detail int, text string) smtpproxy.Reply {
	return smtpproxy.Reply{Code: code, Enhanced: smtpproxy.EnhancedCode{class, subject, detail}, Lines: []string{text}}
}

// The codes are Postfix's.

func notAuthorized(verb string) smtpproxy.Reply {
	return refusal(550, 5, 7, 0, verb+" not authorized")
}

func inTransaction() smtpproxy.Reply { return refusal(503, 5, 5, 1, "Mail transaction in progress") }

func malformed(text string) *smtpproxy.Reply {
	r := refusal(501, 5, 5, 4, text)
	return &r
}

// shortened returns the name of an attribute for a reply, which it must not be too long for.
func shortened(name string) string {
	if len(name) > 40 {
		return name[:40] + "..."
	}
	return name
}
