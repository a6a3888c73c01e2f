package fcrdns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/foxcpp/go-mockdns"

	"github.com/seed3262c777/smtpproxy/internal/fcrdns"
)

var (
	_ fcrdns.Resolver = (*net.Resolver)(nil)
	_ fcrdns.Resolver = (*mockdns.Resolver)(nil)
)

var zones = map[string]mockdns.Zone{
	"1.2.0.192.in-addr.arpa.": {PTR: []string{"Mail.Example.ORG."}},
	"mail.example.org.":       {A: []string{"192.0.2.200", "192.0.2.1"}, AAAA: []string{"2001:db8::1"}},
	"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": {PTR: []string{"mail.example.org."}},

	// The name of somebody else.
	"2.2.0.192.in-addr.arpa.": {PTR: []string{"mail.example.org."}},

	// One good name among bad ones: none such, failing, refused, another's.
	"3.2.0.192.in-addr.arpa.": {PTR: []string{
		"none.example.org.", "fails.example.org.", "a b.example.org.", "mail.example.org.",
		"good.example.org.", "later.example.org.",
	}},
	"fails.example.org.": {Err: errors.New("server failure")},
	"a b.example.org.":   {A: []string{"192.0.2.3"}},
	"good.example.org.":  {A: []string{"192.0.2.3"}},
	"later.example.org.": {A: []string{"192.0.2.3"}},

	"4.2.0.192.in-addr.arpa.": {Err: errors.New("server failure")},
	"5.2.0.192.in-addr.arpa.": {},

	// An alias, as for zones without delegation on octet boundaries.
	"6.2.0.192.in-addr.arpa.": {PTR: []string{"alias.example.org."}},
	"alias.example.org.":      {CNAME: "host6.example.org."},
	"host6.example.org.":      {A: []string{"192.0.2.6"}},

	"1.0.0.127.in-addr.arpa.": {PTR: []string{"localhost.", "me.example.org."}},
	"localhost.":              {A: []string{"127.0.0.1"}},
	"me.example.org.":         {A: []string{"127.0.0.1"}, AAAA: []string{"fe80::1"}},
	"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa.": {PTR: []string{"me.example.org."}},
	"8.0.0.10.in-addr.arpa.": {PTR: []string{"lan.example.org."}},
	"lan.example.org.":       {A: []string{"10.0.0.8"}},
}

func TestLookup(t *testing.T) {
	tests := map[string]string{
		"192.0.2.1":        "mail.example.org",
		"::ffff:192.0.2.1": "mail.example.org",
		"2001:db8::1":      "mail.example.org",
		"192.0.2.2":        "",
		"192.0.2.3":        "good.example.org",
		"192.0.2.4":        "",
		"192.0.2.5":        "",
		"192.0.2.6":        "alias.example.org",
		"192.0.2.7":        "",
		"127.0.0.1":        "me.example.org",
		"fe80::1":          "me.example.org",
		"fe80::1%eth0":     "me.example.org",
		"10.0.0.8":         "lan.example.org",
	}
	for ip, want := range tests {
		got := fcrdns.Lookup(t.Context(), &mockdns.Resolver{Zones: zones}, netip.MustParseAddr(ip))
		if got != want {
			t.Errorf("%s: got %q, want %q", ip, got, want)
		}
	}
}

// TestNetResolver looks names up over the wire. net.Resolver returns an error
// beside the names if it has dropped one.
func TestNetResolver(t *testing.T) {
	srv, err := mockdns.NewServerWithLogger(zones, discard{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	r := &net.Resolver{}
	srv.PatchNet(r)
	r.PreferGo = true

	for ip, want := range map[string]string{
		"192.0.2.1":   "mail.example.org",
		"2001:db8::1": "mail.example.org",
		"192.0.2.2":   "",
		"192.0.2.3":   "good.example.org",
	} {
		if got := fcrdns.Lookup(t.Context(), r, netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: got %q, want %q", ip, got, want)
		}
	}
}

type discard struct{}

func (discard) Printf(string, ...any) {}

var client = netip.MustParseAddr("192.0.2.1")

// resolver is made of two functions. It gives the client's address to every
// name by default, and keeps the names that it was asked for.
type resolver struct {
	names   func(context.Context) ([]string, error)
	addrs   func(ctx context.Context, host string) ([]net.IPAddr, error)
	forward []string
}

func names(s ...string) *resolver {
	return &resolver{names: func(context.Context) ([]string, error) { return s, nil }}
}

func (r *resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return r.names(ctx)
}

func (r *resolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	r.forward = append(r.forward, host)
	if r.addrs == nil {
		return []net.IPAddr{{IP: client.AsSlice()}}, nil
	}
	return r.addrs(ctx, host)
}

func TestNames(t *testing.T) {
	label := strings.Repeat("a", 63)
	name253 := strings.Repeat(label+".", 3) + strings.Repeat("b", 61)
	for _, tt := range []struct{ name, want string }{
		{"mail.example", "mail.example"},
		{"mail.example.", "mail.example"},
		{"MAIL.eXample.", "mail.example"},
		{"192-0-2-1.dyn_pool.example", "192-0-2-1.dyn_pool.example"},
		{"1.2.3.4.example", "1.2.3.4.example"},
		{"_mail.xn--bcher-kva.xn--p1ai", "_mail.xn--bcher-kva.xn--p1ai"},
		{"a--b.example", "a--b.example"},
		{label + ".example", label + ".example"},
		{name253, name253},
		{name253 + ".", name253},

		{"", ""},
		{".", ""},
		{"..", ""},
		{"localhost", ""},
		{"localhost.", ""},
		{".mail.example", ""},
		{"mail..example", ""},
		{"mail.example..", ""},
		{"a" + label + ".example", ""},
		{name253 + "b", ""},
		{"-mail.example", ""},
		{"mail-.example", ""},
		{"mail.-example", ""},
		{"mail.example-", ""},
		{"*.example", ""},
		{"192.0.2.1", ""},
		{"192.0.2.1.", ""},
		{"192.0.2.0x1", ""},
		{"0xc0.0x000201", ""},
		{"mail.123", ""},
		{"mail.1a", ""},
		{"mail._", ""},
		{"[192.0.2.1]", ""},
		{"[192.0.2.1].example", ""},
		{"2001:db8::1", ""},
		{"fe80::1%eth0.example", ""},
		{"mail.example\r\n250 ok.example", ""},
		{"mail.example\n", ""},
		{"\tmail.example", ""},
		{" mail.example", ""},
		{"mail.example\x00.example", ""},
		{"mail.exa\x7fmple", ""},
		{"mail.exa\x1b[31mmple", ""},
		{`mail\.example.org`, ""},
		{`mail\010.example.org`, ""},
		{"mail@example.org", ""},
		{`"mail".example.org`, ""},
		{"<mail>.example.org", ""},
		{"mail;rm.example.org", ""},
		{"mail/../example.org", ""},
		{"b\u00fccher.example", ""},
		{"mail\u3002example.org", ""},
		{"\u212aelvin.example", ""}, // the sign K, whose lower case is the letter k
		{"\u202eliam.example", ""},
		{"mail.example\xff", ""},
	} {
		r := names(tt.name)
		if got := fcrdns.Lookup(t.Context(), r, client); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.name, got, tt.want)
		}
		if tt.want == "" && len(r.forward) > 0 {
			t.Errorf("%q: was looked up", tt.name)
		}
		if tt.want != "" && !slices.Equal(r.forward, []string{tt.want + "."}) {
			t.Errorf("%q: looked up %q", tt.name, r.forward)
		}
	}
}

func FuzzLookup(f *testing.F) {
	label := `[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?`
	hostName := regexp.MustCompile(`^(` + label + `\.)+[a-zA-Z]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?\.?$`)
	for _, s := range []string{"mail.example.", "MAIL.a-1.example", "192.0.2.1", "a..b", "-a.b-", "a.\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		want := strings.TrimSuffix(name, ".")
		if !hostName.MatchString(name) || len(want) > 253 {
			want = ""
		}
		if got := fcrdns.Lookup(t.Context(), names(name), client); got != strings.ToLower(want) {
			t.Errorf("%q: got %q, want %q", name, got, strings.ToLower(want))
		}
	})
}

func TestTenNames(t *testing.T) {
	var all, first []string
	for i := range 30 {
		all = append(all, fmt.Sprintf("host%d.example.", i))
	}
	first = all[:10]
	for i, want := range map[int]string{0: "host0.example", 9: "host9.example", 10: "", 29: ""} {
		r := names(all...)
		r.addrs = func(_ context.Context, host string) ([]net.IPAddr, error) {
			if host == all[i] {
				return []net.IPAddr{{IP: client.AsSlice()}}, nil
			}
			return nil, nil
		}
		if got := fcrdns.Lookup(t.Context(), r, client); got != want {
			t.Errorf("name %d: got %q, want %q", i, got, want)
		}
		if n := min(i+1, 10); !slices.Equal(r.forward, first[:n]) {
			t.Errorf("name %d: looked up %q", i, r.forward)
		}
	}

	// Names that are refused count too.
	r := names(append(slices.Repeat([]string{"no host"}, 10), "mail.example.")...)
	if got := fcrdns.Lookup(t.Context(), r, client); got != "" || len(r.forward) > 0 {
		t.Errorf("after ten refused names: got %q, looked up %q", got, r.forward)
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		ip    string
		addrs []net.IPAddr
		want  bool
	}{
		{"192.0.2.1", []net.IPAddr{{IP: net.IP{192, 0, 2, 1}}}, true},
		{"192.0.2.1", []net.IPAddr{{IP: net.ParseIP("::ffff:192.0.2.1")}}, true},
		{"::ffff:192.0.2.1", []net.IPAddr{{IP: net.IP{192, 0, 2, 1}}}, true},
		{"fe80::1", []net.IPAddr{{IP: net.ParseIP("fe80::1"), Zone: "eth1"}}, true},
		{"192.0.2.1", nil, false},
		{"192.0.2.1", []net.IPAddr{{}, {IP: net.IP{1, 2, 3}}}, false},
		{"192.0.2.1", []net.IPAddr{{IP: net.ParseIP("::192.0.2.1")}}, false}, // "IPv4-compatible"
		{"::", []net.IPAddr{{}, {IP: net.IPv4zero}}, false},
		{"0.0.0.0", []net.IPAddr{{}, {IP: net.IPv6zero}}, false},
	} {
		r := names("mail.example.")
		r.addrs = func(context.Context, string) ([]net.IPAddr, error) { return tt.addrs, nil }
		if got := fcrdns.Lookup(t.Context(), r, netip.MustParseAddr(tt.ip)); (got != "") != tt.want {
			t.Errorf("%s, %v: got %q", tt.ip, tt.addrs, got)
		}
	}
}

func TestErrors(t *testing.T) {
	// Nothing to look up; a nil Resolver would panic.
	if got := fcrdns.Lookup(t.Context(), nil, netip.Addr{}); got != "" {
		t.Errorf("invalid address: got %q", got)
	}

	r := names()
	r.names = func(context.Context) ([]string, error) {
		return []string{"mail.example."}, errors.New("others dropped")
	}
	if got := fcrdns.Lookup(t.Context(), r, client); got != "mail.example" {
		t.Errorf("names and an error: got %q", got)
	}

	r = names("mail.example.")
	r.addrs = func(context.Context, string) ([]net.IPAddr, error) {
		return []net.IPAddr{{IP: client.AsSlice()}}, errors.New("truncated")
	}
	if got := fcrdns.Lookup(t.Context(), r, client); got != "" {
		t.Errorf("addresses and an error: got %q", got)
	}
}

func TestContext(t *testing.T) {
	const timeout = 5 * time.Second
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	slow := func() { time.Sleep(2 * timeout) } // ignores the context

	for name, tt := range map[string]struct {
		r       *resolver
		took    time.Duration
		forward int
	}{
		"reverse": {&resolver{
			names: func(ctx context.Context) ([]string, error) { return nil, wait(ctx) },
		}, timeout, 0},
		"reverse, ignored": {&resolver{
			names: func(context.Context) ([]string, error) { slow(); return []string{"a.example", "b.example"}, nil },
		}, 2 * timeout, 0},
		"forward": {&resolver{
			names: func(context.Context) ([]string, error) { return []string{"a.example", "b.example"}, nil },
			addrs: func(ctx context.Context, _ string) ([]net.IPAddr, error) { return nil, wait(ctx) },
		}, timeout, 1},
		"forward, ignored": {&resolver{
			names: func(context.Context) ([]string, error) { return []string{"a.example", "b.example"}, nil },
			addrs: func(context.Context, string) ([]net.IPAddr, error) {
				slow()
				return []net.IPAddr{{IP: client.AsSlice()}}, nil
			},
		}, 2 * timeout, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				start := time.Now()
				if got := fcrdns.Lookup(ctx, tt.r, client); got != "" {
					t.Errorf("got %q", got)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if len(tt.r.forward) != tt.forward {
					t.Errorf("looked up %q", tt.r.forward)
				}
			})
		})
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := fcrdns.Lookup(ctx, nil, client); got != "" { // a nil Resolver would panic
		t.Errorf("context done before: got %q", got)
	}
}
