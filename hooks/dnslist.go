package hooks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// DNSList refuses clients whose address is in a list that the DNS serves (RFC 5782), in the
// place of the greeting, with 554 5.7.1. It is made with [NewDNSList]; a zero value fails.
//
// A question that isn't answered in time, or with a failure, lets the client in; it ends when
// the client leaves. Clients with the same address that come at the same time are one question,
// and what is answered is kept for a while. Nobody asks about clients on unix sockets and those
// whose address says nothing about them: in private networks (RFC 1918, RFC 4193), in that
// between a provider and its customers (RFC 6598), on a link, and on this machine itself.
//
// In a smtpproxy.Chain, a hook whose own Connect decides on a Restart stands behind it: see
// [Networks].
//
// # Dangers
//
// What the list says is somebody else's policy: a wrong entry, or a list that has been given up
// and answers everything, refuses honest mail. Its operator sees who connects, and most have
// rules about who may ask. While it doesn't answer, each client waits for Timeout. Proxy.HookTimeout
// has to be longer than that, or it is a failure. Behind a load balancer that hides the clients'
// addresses, it is asked about the load balancer.
type DNSList struct {
	zone    string
	options DNSListOptions

	mu    sync.Mutex
	asked map[netip.Addr]*question // just now
	known map[netip.Addr]dnsListed
	order []netip.Addr // those known, a ring
	first int          // which of them was asked about first, once it is full
}

// DNSListOptions are those of a DNSList. The zero value is made of defaults.
type DNSListOptions struct {
	// Resolver is asked; nil is net.DefaultResolver. It may be called from several
	// goroutines, and should return when its context is done. That a name isn't there, it
	// tells with a *net.DNSError that IsNotFound.
	Resolver interface {
		LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	}

	// Timeout bounds a question; 0 is 5 seconds.
	Timeout time.Duration

	// Listed has the answers that count, for lists whose answers mean different things; nil
	// stands for 127.0.0.0/8 but for 127.255.255.0/24, which many lists answer to who asks in
	// a way that they don't want.
	Listed []netip.Prefix

	// Keep is for how long an answer is kept; 0 is 5 minutes, a negative one keeps none. Of
	// 10,000 addresses at most, which take some 2 MiB: then the one that was asked about
	// first is forgotten.
	Keep time.Duration

	// Reply is what clients in the list get, a 4xx or 5xx, or it is a failure. What is zero in
	// it is as in "554 5.7.1 Your address 192.0.2.1 is listed by bl.example".
	Reply smtpproxy.Reply
}

// maxKnown is how many answers are kept.
const maxKnown = 10_000

// dnsListed is an answer.
type dnsListed struct {
	listed bool
	until  time.Time
}

// question is one that is being asked.
type question struct {
	done            chan struct{} // closed when it is over
	listed, settled bool          // then; unless settled, who waits asks himself
}

var (
	listAnswers = netip.MustParsePrefix("127.0.0.0/8")
	listErrors  = netip.MustParsePrefix("127.255.255.0/24")

	betweenProviders = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
)

// NewDNSList returns a hook for the list in a zone, such as "bl.example". It panics if that is no
// domain, as it would ask for something else then.
func NewDNSList(zone string, options DNSListOptions) *DNSList {
	zone = strings.TrimSuffix(zone, ".")
	if !mayBeHost(zone) || len(zone) > 253-len(reversed(netip.IPv6Unspecified()))-1 {
		panic(fmt.Sprintf("smtpproxy/hooks: %q is no zone", zone))
	}
	if options.Resolver == nil {
		options.Resolver = net.DefaultResolver
	}
	if options.Timeout == 0 {
		options.Timeout = 5 * time.Second
	}
	if options.Keep == 0 {
		options.Keep = 5 * time.Minute
	}
	options.Listed = slices.Clone(options.Listed)
	return &DNSList{zone: zone, options: options, asked: make(map[netip.Addr]*question), known: make(map[netip.Addr]dnsListed)}
}

// Command implements smtpproxy.Hook: it passes everything.
func (d *DNSList) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// Connect implements smtpproxy.ConnectHook.
func (d *DNSList) Connect(ctx *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
	if d.zone == "" {
		return nil, errors.New("smtpproxy/hooks: a DNSList that isn't made with NewDNSList")
	}
	ip := conn.RemoteIP.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || betweenProviders.Contains(ip) || !d.lists(ctx, ip) {
		return nil, nil
	}
	return orElse(d.options.Reply, refusal(554, 5, 7, 1, fmt.Sprintf("Your address %v is listed by %s", ip, d.zone))), nil
}

// lists tells whether an address is in the list.
func (d *DNSList) lists(ctx context.Context, ip netip.Addr) bool {
	ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
	defer cancel()
	for {
		d.mu.Lock()
		known, ok := d.known[ip]
		if ok && time.Now().Before(known.until) {
			d.mu.Unlock()
			return known.listed
		}
		q := d.asked[ip]
		if q == nil {
			q = &question{done: make(chan struct{})}
			d.asked[ip] = q
			d.mu.Unlock()
			d.ask(ctx, ip, q)
			return q.listed
		}
		d.mu.Unlock()
		select {
		case <-q.done:
			if q.settled {
				return q.listed
			}
		case <-ctx.Done():
			return false
		}
	}
}

// ask asks the DNS. Unless it is given up, because the client has left, say, others who wait
// for the answer have it too.
func (d *DNSList) ask(ctx context.Context, ip netip.Addr, q *question) {
	answered := false
	defer func() { // whatever the Resolver does
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.asked, ip)
		if answered {
			d.keep(ip, q.listed)
		}
		close(q.done)
	}()
	answers, err := d.options.Resolver.LookupNetIP(ctx, "ip4", reversed(ip)+"."+d.zone+".")
	var missing *net.DNSError
	answered = err == nil || errors.As(err, &missing) && missing.IsNotFound
	q.listed = err == nil && slices.ContainsFunc(answers, d.counts)
	q.settled = answered || ctx.Err() == nil
}

// counts tells whether an answer means that an address is listed.
func (d *DNSList) counts(answer netip.Addr) bool {
	answer = answer.Unmap()
	if d.options.Listed != nil {
		return isIn(d.options.Listed, answer)
	}
	return listAnswers.Contains(answer) && !listErrors.Contains(answer)
}

// keep keeps an answer, in the place of the oldest if there are too many. Its caller holds d.mu.
func (d *DNSList) keep(ip netip.Addr, listed bool) {
	if d.options.Keep < 0 {
		return
	}
	if _, ok := d.known[ip]; !ok {
		if len(d.order) < maxKnown {
			d.order = append(d.order, ip)
		} else {
			delete(d.known, d.order[d.first])
			d.order[d.first] = ip
			d.first = (d.first + 1) % maxKnown
		}
	}
	d.known[ip] = dnsListed{listed, time.Now().Add(d.options.Keep)}
}

// reversed returns an address as lists have it: the octets of an IPv4 address, and the
// nibbles of an IPv6 address, the last first (RFC 5782 sections 2.1 and 2.4).
func reversed(ip netip.Addr) string {
	var b strings.Builder
	octets := ip.AsSlice()
	for i := len(octets) - 1; i >= 0; i-- {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		if ip.Is4() {
			fmt.Fprint(&b, octets[i])
		} else {
			fmt.Fprintf(&b, "%x.%x", octets[i]&0xf, octets[i]>>4)
		}
	}
	return b.String()
}
