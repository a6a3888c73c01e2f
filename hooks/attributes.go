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
	value string // decoded
	known bool   // it is neither [UNAVAILABLE] nor [TEMPUNAVAIL]
}

// attributesOf returns the attributes of a command. ok is false if that is malformed: where
// it has none, one without a value or too long, or one twice. No front end sends one twice,
// but one that doesn't encode what its clients say can be made to.
func attributesOf(args string) (list []attribute, ok bool) {
	for word := range strings.FieldsFuncSeq(args, isBlank) {
		name, value, found := strings.Cut(word, "=")
		a := attribute{name: strings.ToUpper(name), value: unxtext(value)}
		switch strings.ToUpper(value) {
		case "[UNAVAILABLE]", "[TEMPUNAVAIL]":
			a.value = ""
		default:
			a.known = true
		}
		same := func(other attribute) bool { return other.name == a.name }
		switch {
		case !found, name == "", value == "", len(value) > maxValue && a.name != "FORWARD", slices.ContainsFunc(list, same):
			return nil, false
		}
		list = append(list, a)
	}
	return list, len(list) > 0
}

// isBlank tells whether a rune separates arguments.
func isBlank(r rune) bool { return r == ' ' || r == '\t' }

// addr returns an address as the attributes ADDR and DESTADDR have it: an IPv6 address with
// the prefix "IPV6:" or, as Dovecot sends it in LMTP, without.
func (a *attribute) addr() (netip.Addr, bool) {
	s := a.value
	if len(s) > len("IPV6:") && strings.EqualFold(s[:len("IPV6:")], "IPV6:") {
		s = s[len("IPV6:"):]
	}
	ip, err := netip.ParseAddr(s)
	return ip.Unmap(), err == nil && ip.Zone() == ""
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

// isHostName tells whether a value may be a name in the DNS.
func (a *attribute) isHostName() bool {
	for i := range len(a.value) {
		switch c := a.value[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		case c == '.' && i > 0:
		default:
			return false
		}
	}
	return a.value != ""
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
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// refusal makes a negative reply.
func refusal(code, class, subject, detail int, text string) smtpproxy.Reply {
	return smtpproxy.Reply{Code: code, Enhanced: smtpproxy.EnhancedCode{class, subject, detail}, Lines: []string{text}}
}
