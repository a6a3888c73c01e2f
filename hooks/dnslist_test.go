package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/foxcpp/go-mockdns"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// lookup is a Resolver, and counts the questions.
type lookup struct {
	f     func(ctx context.Context, host string) ([]netip.Addr, error)
	asked atomic.Int32
}

func (l *lookup) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	l.asked.Add(1)
	if network != "ip4" {
		return nil, fmt.Errorf("asked for %s", network)
	}
	return l.f(ctx, host)
}

var yes, no = []netip.Addr{netip.MustParseAddr("127.0.0.2")}, &net.DNSError{Err: "no such host", IsNotFound: true}

// listsAll and listsNone are resolvers of such lists.
func listsAll() *lookup {
	return &lookup{f: func(context.Context, string) ([]netip.Addr, error) { return yes, nil }}
}

func listsNone() *lookup {
	return &lookup{f: func(context.Context, string) ([]netip.Addr, error) { return nil, no }}
}

// isListed tells whether a client is refused by a list.
func isListed(t *testing.T, h smtpproxy.Hook, ip string) string {
	t.Helper()
	conn := smtpproxy.Connection{}
	if ip != "" {
		conn.RemoteIP = netip.MustParseAddr(ip)
	}
	s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: h}, conn, smtpproxy.Transaction{})
	defer s.Close()
	got := outcome(s.Connect())
	if err := s.Failure(); err != nil {
		t.Errorf("%s: %v", ip, err)
	}
	return got
}

func TestClientsInADNSListAreRefused(t *testing.T) {
	zones := map[string]mockdns.Zone{}
	for name, answers := range map[string][]string{
		"1.2.0.192.bl.example.":       {"127.0.0.2"},
		"2.2.0.192.bl.example.":       {"127.255.255.254"},
		"3.2.0.192.bl.example.":       {"203.0.113.80"},
		"4.2.0.192.bl.example.":       {"127.255.255.254", "127.0.0.4"},
		"1.2.0.10.bl.example.":        {"127.0.0.2"},
		"1.0.0.127.bl.example.":       {"127.0.0.2"},
		"1.0.64.100.bl.example.":      {"127.0.0.2"},
		"1.1.254.169.bl.example.":     {"127.0.0.2"},
		"0.0.0.0.bl.example.":         {"127.0.0.2"},
		"255.255.255.255.bl.example.": {"127.0.0.2"},
		"b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example.": {"127.0.0.2"},
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.c.f.bl.example.": {"127.0.0.2"},
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.bl.example.": {"127.0.0.2"},
	} {
		zones[name] = mockdns.Zone{A: answers}
	}
	r := &mockdns.Resolver{Zones: zones}
	const refused = "554 5.7.1 Your address %s is listed by bl.example (close)"
	listed := func(ip string) string { return fmt.Sprintf(refused, ip) }
	for _, row := range []struct {
		why  string
		o    hooks.DNSListOptions
		ip   string
		want string
	}{
		{"who is listed", hooks.DNSListOptions{}, "192.0.2.1", listed("192.0.2.1")},
		{"who isn't", hooks.DNSListOptions{}, "192.0.2.9", ""},
		{"IPv6", hooks.DNSListOptions{}, "2001:db8::567:89ab", listed("2001:db8::567:89ab")},
		{"IPv4 in IPv6 form", hooks.DNSListOptions{}, "::ffff:192.0.2.1", listed("192.0.2.1")},
		{"an answer about who asks doesn't count", hooks.DNSListOptions{}, "192.0.2.2", ""},
		{"nor does one that is a host's", hooks.DNSListOptions{}, "192.0.2.3", ""},
		{"one of two does", hooks.DNSListOptions{}, "192.0.2.4", listed("192.0.2.4")},
		{"other answers may count", hooks.DNSListOptions{Listed: prefixes("203.0.113.80/32")}, "192.0.2.3", listed("192.0.2.3")},
		{"and these not then", hooks.DNSListOptions{Listed: prefixes("203.0.113.80/32")}, "192.0.2.1", ""},
		{"none may", hooks.DNSListOptions{Listed: []netip.Prefix{}}, "192.0.2.1", ""},
		{"a private network", hooks.DNSListOptions{}, "10.0.2.1", ""},
		{"in IPv6", hooks.DNSListOptions{}, "fc00::1", ""},
		{"this machine", hooks.DNSListOptions{}, "127.0.0.1", ""},
		{"behind a provider's NAT", hooks.DNSListOptions{}, "100.64.0.1", ""},
		{"a link", hooks.DNSListOptions{}, "169.254.1.1", ""},
		{"a link in IPv6", hooks.DNSListOptions{}, "fe80::1%eth0", ""},
		{"of whom XCLIENT tells nothing", hooks.DNSListOptions{}, "0.0.0.0", ""},
		{"nobody's", hooks.DNSListOptions{}, "255.255.255.255", ""},
		{"a unix socket", hooks.DNSListOptions{}, "", ""},
		{"a reply of one's own", hooks.DNSListOptions{Reply: smtpproxy.Reply{Code: 450, Lines: []string{"Later"}}}, "192.0.2.1", "450 4.7.1 Later (close)"},
		{"its text alone", hooks.DNSListOptions{Reply: smtpproxy.Reply{Lines: []string{"See https://bl.example"}}}, "192.0.2.1", "554 5.7.1 See https://bl.example (close)"},
	} {
		row.o.Resolver = r
		for _, zone := range []string{"bl.example", "bl.example."} {
			d := hooks.NewDNSList(zone, row.o)
			for range 2 { // asked, and kept
				if got := isListed(t, d, row.ip); got != row.want {
					t.Errorf("%s: %q, want %q", row.why, got, row.want)
				}
			}
		}
	}
}

func TestWhatIsNoZoneCanNotBeAsked(t *testing.T) {
	for _, zone := range []string{"", ".", "bl..example", "https://bl.example", "192.0.2.1", "bl example", strings.Repeat("a.", 95) + "a"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is a zone", zone)
				}
			}()
			hooks.NewDNSList(zone, hooks.DNSListOptions{})
		}()
	}
	hooks.NewDNSList(strings.Repeat("a.", 94)+"a", hooks.DNSListOptions{}) // 189: with 64 of an address, 253
}

func TestAListThatIsNotMadeLetsNobodyIn(t *testing.T) {
	for _, conn := range []smtpproxy.Connection{inPlaintext, onUnix} {
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: &hooks.DNSList{}, Logger: slog.New(slog.DiscardHandler)}, conn, smtpproxy.Transaction{})
		if got := outcome(s.Connect()); !strings.HasPrefix(got, "421 ") || s.Failure() == nil {
			t.Errorf("%q, %v", got, s.Failure())
		}
	}
}

func TestBehindXCLIENTTheOneToldIsLookedFor(t *testing.T) {
	l := &lookup{f: func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "7.113.0.203.bl.example." {
			return yes, nil
		}
		return nil, no
	}}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l}))})
	s.Connect()
	s.Send("XCLIENT ADDR=203.0.113.7")
	if got := s.Reply().String(); !strings.HasPrefix(got, "554 5.7.1 Your address 203.0.113.7") || !s.Closed() {
		t.Errorf("%q, closed %v", got, s.Closed())
	}
}

func TestAnAnswerIsKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			why   string
			keep  time.Duration
			until time.Duration // the last moment at which it isn't asked again
		}{
			{"by default five minutes", 0, 5*time.Minute - 1}, {"as long as is set", time.Hour, time.Hour - 1}, {"not at all", -1, -1},
		} {
			for _, l := range []*lookup{listsAll(), listsNone()} {
				d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l, Keep: row.keep})
				first := isListed(t, d, "192.0.2.1")
				want := int32(1)
				if row.until >= 0 {
					time.Sleep(row.until)
				} else {
					want = 2
				}
				if got := isListed(t, d, "192.0.2.1"); got != first || l.asked.Load() != want {
					t.Errorf("%s: %q, asked %d times", row.why, got, l.asked.Load())
				}
				time.Sleep(time.Nanosecond)
				if got := isListed(t, d, "192.0.2.1"); got != first || l.asked.Load() != want+1 {
					t.Errorf("%s: %q then, asked %d times", row.why, got, l.asked.Load())
				}
			}
		}
	})
}

func TestAQuestionThatIsNotAnsweredLetsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			why     string
			f       func(ctx context.Context) error
			timeout time.Duration
			takes   time.Duration
		}{
			{"in time, by default", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 0, 5 * time.Second},
			{"in the time that is set", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, time.Second, time.Second},
			{"but with a failure", func(context.Context) error { return &net.DNSError{Err: "server misbehaving", IsTemporary: true} }, 0, 0},
			{"but with another", func(context.Context) error { return errors.New("x") }, 0, 0},
		} {
			l := &lookup{f: func(ctx context.Context, _ string) ([]netip.Addr, error) { return yes, row.f(ctx) }}
			d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l, Timeout: row.timeout})
			for asked := range int32(2) { // it isn't kept
				began := time.Now()
				if got := isListed(t, d, "192.0.2.1"); got != "" || time.Since(began) != row.takes || l.asked.Load() != asked+1 {
					t.Errorf("%s: %q after %v, asked %d times", row.why, got, time.Since(began), l.asked.Load())
				}
			}
		}
	})
}

func TestClientsWhoComeAtOnceAreOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lookup{f: func(ctx context.Context, _ string) ([]netip.Addr, error) { time.Sleep(time.Second); return yes, nil }}
		d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l, Keep: -1})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if got := isListed(t, d, fmt.Sprintf("192.0.2.%d", 1+i%2)); !strings.HasPrefix(got, "554 ") {
					t.Errorf("%q", got)
				}
			})
		}
		wg.Wait()
		if got := l.asked.Load(); got != 2 {
			t.Errorf("asked %d times about 2 addresses", got)
		}
	})
}

func TestAFailureIsSharedByThoseWhoWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lookup{f: func(context.Context, string) ([]netip.Addr, error) {
			time.Sleep(time.Second)
			return nil, errors.New("away")
		}}
		d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l})
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if got := isListed(t, d, "192.0.2.1"); got != "" || time.Since(began) != time.Second {
					t.Errorf("%q after %v", got, time.Since(began))
				}
			})
		}
		wg.Wait()
		if got := l.asked.Load(); got != 1 {
			t.Errorf("asked %d times", got)
		}
	})
}

func TestWhoLeavesEndsItsOwnQuestionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		l := &lookup{f: func(ctx context.Context, _ string) ([]netip.Addr, error) {
			select {
			case <-ctx.Done():
				ended.Add(1)
				return nil, ctx.Err()
			case <-time.After(3 * time.Second):
				return yes, nil
			}
		}}
		d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l})
		conn := smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.1")}
		ask := func(ctx context.Context) smtpproxy.Decision {
			decision, err := d.Connect(smtpproxy.NewContext(ctx), conn)
			if err != nil {
				t.Error(err)
			}
			return decision
		}
		var wg sync.WaitGroup
		first, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			if got := ask(first); got != nil {
				t.Errorf("who has left: %v", got)
			}
		})
		synctest.Wait()
		second, leaveToo := context.WithCancel(t.Context())
		wg.Go(func() {
			if got := ask(second); got != nil {
				t.Errorf("who has left while another asked: %v", got)
			}
		})
		wg.Go(func() {
			began := time.Now()
			if got := ask(t.Context()); got == nil || time.Since(began) != 4*time.Second {
				t.Errorf("who has waited: %v after %v", got, time.Since(began))
			}
		})
		time.Sleep(500 * time.Millisecond)
		leaveToo()
		synctest.Wait()
		if ended.Load() != 0 {
			t.Error("the question has ended with another's leaving")
		}
		time.Sleep(500 * time.Millisecond)
		leave()
		wg.Wait()
		if ended.Load() != 1 || l.asked.Load() != 2 {
			t.Errorf("%d given up, %d asked", ended.Load(), l.asked.Load())
		}
	})
}

func TestWhileTheDNSIsAwayEachClientWaitsForTheTimeoutAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lookup{f: func(ctx context.Context, _ string) ([]netip.Addr, error) { <-ctx.Done(); return nil, ctx.Err() }}
		d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l, Timeout: time.Second})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				began := time.Now()
				if got := isListed(t, d, "192.0.2.1"); got != "" || time.Since(began) != time.Second {
					t.Errorf("%d: %q after %v", i, got, time.Since(began))
				}
			})
		}
		wg.Wait()
	})
}

func TestAResolverThatPanicsLetsOthersAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := new(atomic.Bool)
		l := &lookup{f: func(context.Context, string) ([]netip.Addr, error) {
			time.Sleep(time.Second)
			if !first.Swap(true) {
				panic("resolver")
			}
			return yes, nil
		}}
		d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l})
		conn := smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.1")}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			d.Connect(smtpproxy.NewContext(t.Context()), conn)
		})
		synctest.Wait()
		wg.Go(func() {
			if got := isListed(t, d, "192.0.2.1"); !strings.HasPrefix(got, "554 ") {
				t.Errorf("%q", got)
			}
		})
		wg.Wait()
	})
}

func TestTenThousandAnswersAreKeptAtMost(t *testing.T) {
	l := listsNone()
	d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l, Keep: time.Hour})
	ctx := smtpproxy.NewContext(t.Context())
	ask := func(i int) {
		ip := netip.AddrFrom4([4]byte{8, byte(i >> 16), byte(i >> 8), byte(i)})
		if _, err := d.Connect(ctx, smtpproxy.Connection{RemoteIP: ip}); err != nil {
			t.Fatal(err)
		}
	}
	// wants asks about some, and checks how many questions that were.
	wants := func(why string, from, to, want int) {
		t.Helper()
		before := l.asked.Load()
		for i := from; i < to; i++ {
			ask(i)
		}
		if got := int(l.asked.Load() - before); got != want {
			t.Errorf("%s: asked %d times, want %d", why, got, want)
		}
	}
	wants("new ones", 0, 10_000, 10_000)
	wants("all are kept", 0, 10_000, 0)
	wants("one more", 10_000, 10_001, 1)
	wants("which takes the place of the first alone", 1, 10_001, 0)
	wants("that is forgotten", 0, 1, 1)

	wants("many more", 20_000, 150_000, 130_000)
	wants("of which the last are kept", 140_000, 150_000, 0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	runtime.KeepAlive(d)
	d = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := int64(before.HeapAlloc) - int64(after.HeapAlloc); got > 5<<19 {
		t.Errorf("%d octets, more than is documented", got)
	} else {
		t.Logf("%d octets", got)
	}
}

func TestManyAskAListConcurrently(t *testing.T) {
	l := &lookup{f: func(_ context.Context, host string) ([]netip.Addr, error) {
		runtime.Gosched()
		if strings.HasPrefix(host, "1") {
			return yes, nil
		}
		return nil, no
	}}
	d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l, Keep: time.Microsecond})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			ctx := smtpproxy.NewContext(t.Context())
			for i := range 2000 {
				n := byte((i + g) % 50)
				got, err := d.Connect(ctx, smtpproxy.Connection{RemoteIP: netip.AddrFrom4([4]byte{8, 8, 8, n})})
				if listed := strings.HasPrefix(fmt.Sprint(n), "1"); err != nil || (got != nil) != listed {
					t.Errorf("%d: %v, %v", n, got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAClientThatLeavesEndsTheQuestion(t *testing.T) {
	gone := make(chan error, 1)
	asked := make(chan struct{})
	l := &lookup{f: func(ctx context.Context, _ string) ([]netip.Addr, error) {
		close(asked)
		<-ctx.Done()
		gone <- context.Cause(ctx)
		return nil, ctx.Err()
	}}
	d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: l, Timeout: 20 * time.Second})
	s := serve(t, d, how{peer: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	c.Close()
	select {
	case cause := <-gone:
		if !errors.Is(cause, smtpproxy.ErrClientGone) {
			t.Errorf("it has ended with %v", cause)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
}
