package hooks_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about who a client is, and how many of them there are.

// limitsFrom lets a client connect from an address.
func limitsFrom(hook smtpproxy.Hook, ip string) *proxytest.Session {
	var conn smtpproxy.Connection
	if ip != "" {
		conn.RemoteIP = netip.MustParseAddr(ip)
	}
	s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hook}, conn, smtpproxy.Transaction{})
	s.Connect()
	return s
}

// isIn tells whether a client was let in.
func isIn(s *proxytest.Session) bool { return !s.Closed() }

func TestANetworkIsOfAsManyBitsAsTheLimitsSay(t *testing.T) {
	for _, test := range []struct {
		bits4, bits6 int
		a, b         string
		same         bool
	}{
		{0, 0, "192.0.2.1", "192.0.2.1", true},
		{0, 0, "192.0.2.1", "192.0.2.2", false},
		{0, 0, "192.0.2.1", "::ffff:192.0.2.1", true},
		{0, 0, "2001:db8::1", "2001:db8::ffff:0:0:1", true},
		{0, 0, "2001:db8::1", "2001:db8:0:1::1", false},
		{0, 0, "fe80::1%eth0", "fe80::1%eth1", true},
		{0, 0, "", "", true}, // on unix sockets
		{0, 0, "", "192.0.2.1", false},
		{24, 48, "192.0.2.1", "192.0.2.2", true},
		{24, 48, "192.0.2.1", "192.0.3.1", false},
		{24, 48, "2001:db8::1", "2001:db8:0:1::1", true},
		{24, 48, "2001:db8::1", "2001:db8:1::1", false},
		{32, 128, "2001:db8::1", "2001:db8::2", false},
	} {
		hook := limitsIn(hooks.Limits{IPv4Bits: test.bits4, IPv6Bits: test.bits6}, hooks.Limit{What: hooks.Commands, Per: hooks.PerNetwork, Max: 1, Every: time.Hour})
		say(t, limitsFrom(hook, test.a), "250", "NOOP")
		want := "250"
		if test.same {
			want = "459"
		}
		say(t, limitsFrom(hook, test.b), want, "NOOP")
	}
}

func TestHealthChecksAreNeitherCountedNorRefused(t *testing.T) {
	var limits []hooks.Limit
	for what := hooks.Connections; what <= hooks.FailedAUTH; what++ {
		limit := hooks.Limit{What: what, Per: hooks.InAll, Max: 1, Every: time.Hour}
		if what == hooks.Time {
			limit.Per, limit.Every = hooks.PerConnection, 0
		}
		limits = append(limits, limit)
	}
	hook := limitsIn(hooks.Limits{Exempt: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.0"), 126), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fe80::/10")}}, limits...)
	for range 3 {
		for _, ip := range []string{"192.0.2.1", "192.0.2.3", "::ffff:192.0.2.2", "2001:db8::1", "fe80::1%eth0"} {
			s := limitsFrom(hook, ip)
			say(t, s, "250 221", "HELO localhost", "QUIT") // as HAProxy does
			s = limitsFrom(hook, ip)
			say(t, s, "250 500 535 250 550 250 354 250 250", ehlo, "XYZZY", "535 AUTH PLAIN AGEAYg==", mail, "550 "+rcpt, rcpt, "DATA", ".", "NOOP")
			s.Close()
		}
	}
	s := limitsFrom(hook, "192.0.2.4")
	say(t, s, "250 459", "NOOP", "NOOP")
	if s = limitsFrom(hook, "192.0.2.5"); isIn(s) {
		t.Error("another client's second connection is let in")
	}
}

func TestConnectionsAtOnceAreGivenBackHoweverTheyEnd(t *testing.T) {
	hook := limitsOf(hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 2})
	for name, end := range map[string]func(s *proxytest.Session){
		"the client leaves":   (*proxytest.Session).Close,
		"QUIT":                func(s *proxytest.Session) { s.Send("QUIT") },
		"a 421":               func(s *proxytest.Session) { s.Answer("NOOP", 421); s.Send("NOOP"); s.Close() },
		"it leaves in a call": func(s *proxytest.Session) { s.SendAndLeave("NOOP") },
	} {
		t.Run(name, func(t *testing.T) {
			a, b, c := limitsFrom(hook, "192.0.2.1"), limitsFrom(hook, "192.0.2.1"), limitsFrom(hook, "192.0.2.1")
			if !isIn(a) || !isIn(b) || isIn(c) || c.Reply().Code != beyond.Code {
				t.Fatalf("three of two: %v, %v, %v", isIn(a), isIn(b), isIn(c))
			}
			if other := limitsFrom(hook, "192.0.2.2"); !isIn(other) {
				t.Error("another's first connection is refused")
			} else {
				other.Close()
			}
			end(a)
			if c = limitsFrom(hook, "192.0.2.1"); !isIn(c) {
				t.Fatal("it isn't given back")
			}
			if d := limitsFrom(hook, "192.0.2.1"); isIn(d) {
				t.Fatal("two are given back")
			}
			b.Close()
			c.Close()
		})
	}
}

func TestAClientThatAnotherHookRefusesIsGivenBackOnce(t *testing.T) {
	no := smtpproxy.Funcs{OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
		if conn.RemotePort == 0 && conn.HELO.Host == "no" {
			return smtpproxy.Reply{Code: 554}, nil
		}
		return nil, nil
	}}
	limit := limitsOf(hooks.Limit{What: hooks.Connections, Per: hooks.InAll, Max: 1})
	for _, hook := range []smtpproxy.Hook{smtpproxy.Chain(no, limit), smtpproxy.Chain(limit, no)} {
		for range 3 {
			s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hook}, smtpproxy.Connection{HELO: smtpproxy.HELO{Verb: "EHLO", Host: "no"}}, smtpproxy.Transaction{})
			if s.Connect(); s.Reply().Code != 554 {
				t.Fatalf("got %v", s.Reply())
			}
		}
		a, b := limitsFrom(hook, "192.0.2.1"), limitsFrom(hook, "192.0.2.1")
		if !isIn(a) || isIn(b) {
			t.Errorf("two of one: %v, %v", isIn(a), isIn(b))
		}
		a.Close()
	}
}

func TestADelayedConnectionIsCountedAllTheSame(t *testing.T) {
	hook := limitsOf(
		hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 1, Beyond: smtpproxy.Pass{Delay: time.Second}})
	connect := func() (*proxytest.Session, time.Duration) {
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hook}, smtpproxy.Connection{}, smtpproxy.Transaction{})
		return s, s.Connect().(smtpproxy.Pass).Delay
	}
	a, first := connect()
	b, second := connect()
	a.Close()
	c, third := connect()
	b.Close()
	c.Close()
	d, fourth := connect()
	d.Close()
	if first != 0 || second == 0 || third == 0 || fourth != 0 {
		t.Errorf("delays: %v, %v, %v, %v", first, second, third, fourth)
	}
}

func TestNewConnectionsThatAreDelayedPileUpNoDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := limitsOf(hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 1, Every: 10 * time.Second, Beyond: smtpproxy.Pass{Delay: time.Second}})
		connect := func() time.Duration {
			s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hook}, smtpproxy.Connection{}, smtpproxy.Transaction{})
			defer s.Close()
			return s.Connect().(smtpproxy.Pass).Delay
		}
		for n := range 5 {
			if d := connect(); d != 0 != (n > 0) {
				t.Errorf("connection %d: a delay of %v", n+1, d)
			}
		}
		time.Sleep(10 * time.Second)
		if d := connect(); d != 0 {
			t.Errorf("the next one, in time: a delay of %v", d)
		}
	})
}

func TestALoginsConnectionsAreCountedFromWhenItIsKnown(t *testing.T) {
	hook := limitsOf(hooks.Limit{What: hooks.Connections, Per: hooks.PerLogin, Max: 1})
	login := []string{ehlo, "AUTH PLAIN AGEAYg==", "NOOP"}
	a, b := limitsFrom(hook, "192.0.2.1"), limitsFrom(hook, "192.0.2.2")
	say(t, a, "250 235 250", login...)
	say(t, b, "250 235 459", login...)
	say(t, a, "220", "STARTTLS") // nobody is logged in behind it
	a.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	say(t, b, "459", "NOOP")
	say(t, a, "250", ehlo)
	say(t, b, "250", "NOOP")
	b.Close()
	say(t, a, "235 250", login[1:]...)
	a.Close()
}

func TestSTARTTLSBehindAUTHGivesBackNoNewConnection(t *testing.T) {
	hook := limitsOf(hooks.Limit{What: hooks.Connections, Per: hooks.PerLogin, Max: 2, Every: time.Hour})
	login := []string{ehlo, "AUTH PLAIN AGEAYg==", "NOOP"}
	for range 2 {
		s := limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 235 250 220", append(login, "STARTTLS")...)
		s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
		say(t, s, "250 250", ehlo, "NOOP")
		say(t, s, "235 250", login[1:]...) // the same connection
		s.Close()
	}
	say(t, limitsFrom(hook, "192.0.2.1"), "250 235 459", login...)
}

// front is XCLIENT, trusted by all, and limits behind it.
func front(limits smtpproxy.Hook) smtpproxy.Hook {
	return smtpproxy.Chain(&hooks.XCLIENT{Trust: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, limits)
}

func TestAClientThatAFrontEndTellsIsCountedInPlaceOfTheFrontEnd(t *testing.T) {
	for name, limit := range map[string]hooks.Limit{
		"at once": {What: hooks.Connections, Per: hooks.PerNetwork, Max: 1},
		"new":     {What: hooks.Connections, Per: hooks.PerNetwork, Max: 1, Every: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			hook := front(limitsOf(limit))
			a, b, c := limitsFrom(hook, "192.0.2.1"), (*proxytest.Session)(nil), (*proxytest.Session)(nil)
			say(t, a, "220", "XCLIENT ADDR=198.51.100.1")
			b = limitsFrom(hook, "192.0.2.1")
			if !isIn(b) {
				t.Fatal("the front end is still counted")
			}
			say(t, b, "220 220", "XCLIENT ADDR=198.51.100.2 PORT=7", "XCLIENT ADDR=198.51.100.2 PORT=8") // the same client
			c = limitsFrom(hook, "192.0.2.1")
			say(t, c, "459", "XCLIENT ADDR=198.51.100.1")
			if !c.Closed() {
				t.Error("a client beyond the limit isn't closed")
			}
			a.Close()
			again, want := limitsFrom(hook, "192.0.2.1"), "220"
			if limit.Every > 0 {
				want = "459"
			}
			say(t, again, want, "XCLIENT ADDR=198.51.100.1")
			again.Close()
			b.Close()
		})
	}
}

func TestAFrontEndMayBeExemptAndItsClientsAreNot(t *testing.T) {
	hook := front(limitsIn(hooks.Limits{Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		hooks.Limit{What: hooks.Connections, Per: hooks.PerNetwork, Max: 1},
		hooks.Limit{What: hooks.Commands, Per: hooks.PerNetwork, Max: 2, Every: time.Hour}))
	var all []*proxytest.Session
	for range 5 {
		s := limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 250 250", "NOOP", "NOOP", "NOOP")
		all = append(all, s)
	}
	say(t, all[0], "220 250 250 459", "XCLIENT ADDR=198.51.100.1", "NOOP", "NOOP", "NOOP")
	say(t, all[1], "459", "XCLIENT ADDR=198.51.100.1")
	say(t, all[2], "220 250", "XCLIENT ADDR=198.51.100.2", "NOOP")
	say(t, all[2], "220", "XCLIENT ADDR=192.0.2.9") // a check that comes from there
	say(t, all[3], "220 250 459", "XCLIENT ADDR=198.51.100.2", "NOOP", "NOOP")
}

func TestAPerConnectionLimitHoldsOverARestart(t *testing.T) {
	s := limitsFrom(front(limitsOf(hooks.Limit{What: hooks.Errors, Max: 2})), "192.0.2.1")
	say(t, s, "550 220 550 459", "550 VRFY a", "XCLIENT ADDR=198.51.100.1", "550 VRFY a", "NOOP")
}

func TestAConnectionHasItsTimeAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limitsFrom(front(limitsOf(hooks.Limit{What: hooks.Time, Max: 300})), "192.0.2.1")
		time.Sleep(299 * time.Second)
		say(t, s, "250 220 250", ehlo, "XCLIENT ADDR=198.51.100.1", "NOOP")
		time.Sleep(time.Second)
		say(t, s, "459 221", "NOOP", "QUIT")
	})
}

func TestWhatIsTakenIsRefilledSteadily(t *testing.T) {
	for _, per := range []hooks.Per{hooks.PerConnection, hooks.PerNetwork} {
		synctest.Test(t, func(t *testing.T) {
			hook := limitsOf(hooks.Limit{What: hooks.Commands, Per: per, Max: 3, Every: 30 * time.Second})
			s := limitsFrom(hook, "192.0.2.1")
			say(t, s, "250 250 250 459", "NOOP", "NOOP", "NOOP", "NOOP")
			time.Sleep(10*time.Second - time.Nanosecond)
			say(t, s, "459", "NOOP")
			time.Sleep(time.Nanosecond)
			say(t, s, "250 459", "NOOP", "NOOP")
			time.Sleep(20 * time.Second)
			say(t, s, "250 250 459", "NOOP", "NOOP", "NOOP")
			time.Sleep(time.Hour)
			say(t, s, "250 250 250 459", "NOOP", "NOOP", "NOOP", "NOOP")
		})
	}
}

func TestErrorsThatAreForgottenWithTimeLetAClientGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := limitsOf(hooks.Limit{What: hooks.Errors, Per: hooks.PerNetwork, Max: 2, Every: time.Minute})
		s := limitsFrom(hook, "192.0.2.1")
		say(t, s, "550 550 459", "550 VRFY a", "550 VRFY a", "NOOP")
		for range 5 { // what is refused costs nothing
			time.Sleep(5 * time.Second)
			say(t, s, "459", "NOOP")
		}
		time.Sleep(5 * time.Second)
		say(t, s, "250", "NOOP")
	})
}

func TestServersThatShareAStoreHoldOneLimit(t *testing.T) {
	store := new(hooks.MemoryStore)
	limits := []hooks.Limit{{What: hooks.Recipients, Per: hooks.PerSender, Max: 3, Every: time.Hour}, {What: hooks.Connections, Per: hooks.PerNetwork, Max: 2}}
	one := limitsIn(hooks.Limits{Store: store}, limits...)
	// The other has one limit more, and counts the others all the same.
	other := limitsIn(hooks.Limits{Store: store}, append([]hooks.Limit{{What: hooks.Commands, Max: 99}}, limits...)...)
	a, b := limitsFrom(one, "192.0.2.1"), limitsFrom(other, "192.0.2.1")
	say(t, a, "250 250 250 250", ehlo, mail, rcpt, rcpt)
	say(t, b, "250 250 250 459", ehlo, mail, rcpt, rcpt)
	say(t, a, "459", rcpt)
	if c := limitsFrom(one, "192.0.2.1"); isIn(c) {
		t.Error("a third connection is let in")
	}
	b.Close()
	if c := limitsFrom(one, "192.0.2.1"); !isIn(c) {
		t.Error("the other's connection isn't given back")
	} else {
		c.Close()
	}
	a.Close()
}
