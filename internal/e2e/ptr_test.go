package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/foxcpp/go-mockdns"
	"github.com/seed3262c777/smtpproxy"
	"go.uber.org/goleak"
)

// This file is about who the client is: its host name, and its user number.

// visits is a hook that remembers the connections it was shown.
type visits struct {
	mu    sync.Mutex
	conns []connection
}

func (v *visits) Command(_ *hookContext, _ command, conn connection, _ transaction) (decision, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.conns = append(v.conns, conn)
	return nil, nil
}

// names returns the RemotePTR of each call.
func (v *visits) names() (names []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range v.conns {
		names = append(names, c.RemotePTR)
	}
	return names
}

// from makes clients come from an address.
func from(tr transport, addr string) transport {
	return transport{Listener: fromListener{tr, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}, dial: tr.dial}
}

type fromListener struct {
	net.Listener
	addr net.Addr
}

type fromConn struct {
	net.Conn
	addr net.Addr
}

func (l fromListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fromConn{c, l.addr}, nil
}

func (c fromConn) RemoteAddr() net.Addr { return c.addr }

func TestTheFirstHookKnowsTheConfirmedNameOfTheClient(t *testing.T) {
	zones := map[string]mockdns.Zone{
		"1.0.0.127.in-addr.arpa.": {PTR: []string{"Client.Example."}},
		"client.example.":         {A: []string{"127.0.0.1"}},
		"2.2.0.192.in-addr.arpa.": {PTR: []string{"client.example."}}, // it isn't
		"3.2.0.192.in-addr.arpa.": {PTR: []string{"other.example.", "third.example."}},
		"third.example.":          {A: []string{"192.0.2.9", "192.0.2.3"}},
		"4.2.0.192.in-addr.arpa.": {Err: errors.New("server failure")},
		"5.2.0.192.in-addr.arpa.": {PTR: []string{"five.example."}},
		"five.example.":           {Err: errors.New("server failure")},
		"6.2.0.192.in-addr.arpa.": {PTR: []string{"192.0.2.6."}},
		"192.0.2.6.":              {A: []string{"192.0.2.6"}},
		"six.example.":            {AAAA: []string{"2001:db8::6"}},
		"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": {PTR: []string{"six.example."}},
	}
	for addr, name := range map[string]string{
		"127.0.0.1:1": "client.example", "[::ffff:127.0.0.1]:1": "client.example", "[2001:db8::6]:1": "six.example",
		"192.0.2.2:1": "", "192.0.2.3:1": "third.example", "192.0.2.4:1": "", "192.0.2.5:1": "", "192.0.2.6:1": "", "192.0.2.7:1": "",
	} {
		for _, looksUp := range []bool{true, false} {
			hook := new(visits)
			p := &smtpproxy.Proxy{Hook: hook, LookupPTR: looksUp, Resolver: &mockdns.Resolver{Zones: zones}}
			tr := from(overTCP(t), addr)
			serveBehind(t, smtp.NewServer(new(tlsBackend)), tr, p)
			k := talk(t, tr)
			k.want("EHLO client.example", "250")
			k.want("NOOP", "250")
			want := name
			if !looksUp {
				want = ""
			}
			if got := hook.names(); !slices.Equal(got, []string{want, want}) {
				t.Errorf("%s: got %q, want %q", addr, got, want)
			}
		}
	}
}

// slowResolver answers after some time, or not before it is told to.
type slowResolver struct {
	delay    time.Duration
	stubborn bool          // ignores its context
	release  chan struct{} // ends all lookups
	ended    chan error    // gets the cause of a lookup's end
}

func newSlowResolver(delay time.Duration, stubborn bool) *slowResolver {
	return &slowResolver{delay, stubborn, make(chan struct{}), make(chan error, 100)}
}

func (r *slowResolver) LookupAddr(ctx context.Context, _ string) ([]string, error) {
	done := ctx.Done()
	if r.stubborn {
		done = nil
	}
	select {
	case <-time.After(r.delay):
		r.ended <- nil
		return []string{"slow.example."}, nil
	case <-done:
		r.ended <- ctx.Err()
		return nil, ctx.Err()
	case <-r.release:
		return nil, net.ErrClosed
	}
}

func (r *slowResolver) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	return []net.IPAddr{{IP: net.IPv4(192, 0, 2, 1)}}, nil
}

// inBubble serves go-smtp with LookupPTR over a pipe, where time is not real.
func inBubble(t *testing.T, p smtpproxy.Proxy, delay time.Duration, stubborn bool, play func(t *testing.T, k *talker, hook *visits, r *slowResolver)) {
	synctest.Test(t, func(t *testing.T) {
		hook, r := new(visits), newSlowResolver(delay, stubborn)
		p.Hook, p.LookupPTR, p.Resolver = hook, true, r
		tr := from(overPipe(t), "192.0.2.1:25")
		serveBehind(t, smtp.NewServer(new(tlsBackend)), tr, &p)
		t.Cleanup(func() { close(r.release) })
		k := talk(t, tr)
		k.SetDeadline(time.Time{})
		play(t, k, hook, r)
	})
}

// took tells how long f takes.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func TestASlowLookupIsWaitedForUntilItsTimeIsUp(t *testing.T) {
	for _, test := range []struct {
		delay, timeout, want time.Duration
		stubborn             bool
		name                 string
	}{
		{delay: 2 * time.Second, want: 2 * time.Second, name: "slow.example"},
		{delay: time.Hour, want: 5 * time.Second},
		{delay: time.Hour, want: 5 * time.Second, stubborn: true},
		{delay: 2 * time.Second, timeout: time.Second, want: time.Second},
		{delay: 2 * time.Second, timeout: time.Second, want: time.Second, stubborn: true},
		{delay: 2 * time.Second, timeout: 3 * time.Second, want: 2 * time.Second, stubborn: true, name: "slow.example"},
	} {
		inBubble(t, smtpproxy.Proxy{LookupTimeout: test.timeout}, test.delay, test.stubborn, func(t *testing.T, k *talker, hook *visits, _ *slowResolver) {
			if got := took(func() { k.want("EHLO client.example", "250") }); got != test.want {
				t.Errorf("%+v: the first command took %v", test, got)
			}
			if got := took(func() { k.want("NOOP", "250") }); got != 0 {
				t.Errorf("%+v: the second command took %v", test, got)
			}
			if got := hook.names(); !slices.Equal(got, []string{test.name, test.name}) {
				t.Errorf("%+v: got %q", test, got)
			}
		})
	}
}

func TestTheLookupBeginsAtOnceAndDelaysTheFirstCallOfTheHookAlone(t *testing.T) {
	inBubble(t, smtpproxy.Proxy{Commands: []string{"MAIL"}}, 3*time.Second, false, func(t *testing.T, k *talker, hook *visits, _ *slowResolver) {
		if got := took(func() { k.want("EHLO client.example", "250") }); got != 0 {
			t.Errorf("EHLO, which the hook isn't called for, took %v", got)
		}
		time.Sleep(2 * time.Second) // in a bubble
		if got := took(func() { k.want("MAIL FROM:<a@example.com>", "250") }); got != time.Second {
			t.Errorf("MAIL took %v, 2 s after a lookup of 3 s began", got)
		}
		if got := hook.names(); !slices.Equal(got, []string{"slow.example"}) {
			t.Errorf("got %q", got)
		}
	})
	// A lookup that is done in time delays nothing.
	inBubble(t, smtpproxy.Proxy{Commands: []string{"MAIL"}}, time.Second, false, func(t *testing.T, k *talker, hook *visits, _ *slowResolver) {
		k.want("EHLO client.example", "250")
		time.Sleep(time.Minute) // in a bubble
		if got := took(func() { k.want("MAIL FROM:<a@example.com>", "250") }); got != 0 || hook.names()[0] != "slow.example" {
			t.Errorf("MAIL took %v, got %q", got, hook.names())
		}
	})
}

func TestTheEndOfTheConnectionEndsTheLookup(t *testing.T) {
	for name, test := range map[string]struct {
		end   func(k *talker)
		err   error
		after time.Duration
	}{
		"the client hangs up": {func(k *talker) { k.Close() }, context.Canceled, 0},
		"QUIT":                {func(k *talker) { k.want("QUIT", "221") }, context.Canceled, 0},
		// As during a call of the hook, nobody reads from the client then.
		"the client hangs up when the hook is due": {func(k *talker) {
			k.want("EHLO client.example", "250")
			io.WriteString(k, "MAIL FROM:<a@example.com>\r\n")
			k.Close()
		}, context.DeadlineExceeded, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, smtpproxy.Proxy{Commands: []string{"MAIL"}, LookupTimeout: time.Minute}, time.Hour, false, func(t *testing.T, k *talker, _ *visits, r *slowResolver) {
				synctest.Wait() // until the lookup has begun
				start := time.Now()
				test.end(k)
				if err, after := <-r.ended, time.Since(start); !errors.Is(err, test.err) || after != test.after {
					t.Errorf("%v after %v, want %v after %v", err, after, test.err, test.after)
				}
			})
		})
	}
}

func TestALookupLeavesNoGoroutine(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("sessions", func(t *testing.T) {
		tr := from(overTCP(t), "192.0.2.1:25")
		p := &smtpproxy.Proxy{Hook: new(visits), Commands: []string{"MAIL"}, LookupPTR: true, LookupTimeout: time.Hour, Resolver: newSlowResolver(time.Hour, false)}
		serveBehind(t, smtp.NewServer(new(tlsBackend)), tr, p)
		for i := range 20 {
			k := talk(t, tr)
			if i%2 == 0 {
				k.want("EHLO client.example", "250")
			}
			if i%4 == 0 {
				io.WriteString(k, "MAIL FROM:<a@example.com>\r\n") // the hook is due
			} else if i%3 == 0 {
				k.Close() // the others end with the server
			}
		}
	})
	goleak.VerifyNone(t, leaks)
}

func TestTheUserAtTheOtherEndOfAUnixSocketIsKnown(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	unix, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	viaUnix := transport{Listener: unix, dial: func() (net.Conn, error) { return net.Dial("unix", unix.Addr().String()) }}
	for name, tr := range map[string]transport{"unix": viaUnix, "TCP": overTCP(t)} {
		want := smtpproxy.UID{}
		if name == "unix" && runtime.GOOS == "linux" {
			want = smtpproxy.UID{ID: uint32(os.Getuid()), Valid: true}
		}
		hook := new(visits)
		serveBehind(t, smtp.NewServer(new(tlsBackend)), tr, &smtpproxy.Proxy{Hook: hook, TLSConfig: serverTLS()})
		k := talk(t, tr)
		k.want("EHLO client.example", "250")
		k.startTLS()
		k.want("EHLO client.example", "250")
		for i, conn := range hook.conns {
			if conn.RemoteUID != want || conn.RemoteIP.IsValid() != (name == "TCP") || (conn.RemotePort != 0) != (name == "TCP") {
				t.Errorf("%s, call %d: got %+v, %v, %d", name, i, conn.RemoteUID, conn.RemoteIP, conn.RemotePort)
			}
		}
		if len(hook.conns) != 3 {
			t.Errorf("%s: the hook was called %d times", name, len(hook.conns))
		}
	}
}
