// Package fcrdns finds the host name of an address by forward-confirmed
// reverse DNS, the "iprev" method of RFC 8601 section 3. Whoever runs the
// reverse zone of an address can write any name into it; only what the forward
// DNS of that name says in return is evidence.
package fcrdns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// maxNames bounds the lookups that one client can cause. It is the limit that
// RFC 7208 section 4.6.4 sets for the same procedure.
const maxNames = 10

// Resolver is the part of *net.Resolver that Lookup needs.
type Resolver interface {
	// LookupAddr returns the names of an address. Names that come along with
	// an error count: it may be about others that were dropped.
	LookupAddr(ctx context.Context, addr string) (names []string, err error)

	// LookupIPAddr returns the IPv4 and IPv6 addresses of a host. The host
	// ends in a dot.
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
}

// Lookup returns the first name of ip that has ip among its addresses, in
// lower case and without the final dot, or "" if there is none or ctx is done.
// Of the names in the reverse DNS it considers the first ten; a lookup that
// fails doesn't keep it from trying the rest.
//
// The name is fit for logs and comparisons: it has two labels or more, of ASCII
// letters, digits, hyphens and underscores only, and is no IP address.
//
// Lookup calls r on its own goroutine, one lookup after the other, so nothing
// is left running when it returns. How soon it returns after ctx is done is
// therefore up to r; it begins no further lookup then. The caller sets the
// deadline.
func Lookup(ctx context.Context, r Resolver, ip netip.Addr) string {
	if !ip.IsValid() || ctx.Err() != nil {
		return ""
	}
	// The DNS knows neither zones nor IPv4 in IPv6 form.
	ip = ip.Unmap().WithZone("")
	isIP := func(a net.IPAddr) bool {
		addr, _ := netip.AddrFromSlice(a.IP)
		return addr.Unmap() == ip
	}

	names, _ := r.LookupAddr(ctx, ip.String())
	for _, name := range names[:min(len(names), maxNames)] {
		host := hostName(name)
		if host == "" {
			continue
		}
		if ctx.Err() != nil {
			return ""
		}
		// Without the dot the resolver might try the name below the domains
		// of its search list too, and even first.
		addrs, err := r.LookupIPAddr(ctx, host+".")
		if err == nil && ctx.Err() == nil && slices.ContainsFunc(addrs, isIP) {
			return host
		}
	}
	return ""
}

// hostName returns a host name in lower case and without the final dot, or ""
// for what is none. A label in the DNS can hold any octet (RFC 2181 section
// 11), a line break or a NUL for instance; a host name has the syntax of RFC
// 1034 section 3.5, as relaxed by RFC 1123 section 2.1, and in practice
// underscores. A single label is refused since it means something else on each
// network.
func hostName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if len(name) > 253 { // 255 octets with the first length and the root (RFC 1035 section 2.3.4)
		return ""
	}
	labels, last := 0, ""
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return ""
		}
		labels, last = labels+1, label
	}
	// RFC 1123 section 2.1 tells host names from addresses by the top-level
	// domain, which is alphabetic. Some resolvers read 192.0.2.0x1 as an
	// address, so it isn't enough that there is a letter in it.
	if labels < 2 || !isLetter(last[0]) {
		return ""
	}
	return strings.ToLower(name)
}

func isLabel(s string) bool {
	if len(s) < 1 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
