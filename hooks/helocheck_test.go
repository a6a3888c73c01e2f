package hooks_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestMailOfAClientIsRefusedWhoseGreetingCanNotBeTrue(t *testing.T) {
	const (
		mine        = "550 5.7.1 You have greeted with my name"
		literal     = "550 5.7.1 You have greeted with a bad address literal"
		another     = "550 5.7.1 You have greeted with an address that isn't yours"
		noName      = "550 5.7.1 You have greeted with what is no host name"
		unqualified = "550 5.7.1 You have greeted with a name that isn't fully qualified"
	)
	zero := &hooks.CheckHELO{}
	own := &hooks.CheckHELO{Own: []string{"mx.example", "mail.example.", "[192.0.2.25]"}, RequireDot: true}
	for _, row := range []struct {
		why, name, ip string
		c             *hooks.CheckHELO
		want          string
	}{
		{"a name", "client.example", "192.0.2.1", zero, ""},
		{"names with underscores, as in real life", "my_pc.client-.example", "192.0.2.1", zero, ""},
		{"a name in the DNS may end in a dot", "client.example.", "192.0.2.1", zero, ""},
		{"letters beyond ASCII", "b\u00fccher.example", "192.0.2.1", zero, ""},
		{"one label is a name", "localhost", "192.0.2.1", zero, ""},
		{"unless a dot is needed", "localhost", "192.0.2.1", own, unqualified},
		{"which isn't the last one", "localhost.", "192.0.2.1", own, unqualified},
		{"two words", "my printer", "192.0.2.1", zero, noName},
		{"a bare address", "192.0.2.1", "192.0.2.1", zero, noName},
		{"a bare IPv6 address", "2001:db8::1", "2001:db8::1", zero, noName},
		{"digits", "12345", "192.0.2.1", zero, noName},
		{"digits and dots", "192.0.2", "192.0.2.1", zero, noName},
		{"a dot too many", "client..example", "192.0.2.1", zero, noName},
		{"a dot alone", ".", "192.0.2.1", zero, noName},
		{"an at sign", "a@client.example", "192.0.2.1", zero, noName},
		{"a label that is too long", strings.Repeat("a", 64) + ".example", "192.0.2.1", zero, noName},
		{"the longest label", strings.Repeat("a", 63) + ".example", "192.0.2.1", zero, ""},
		{"too long a name", strings.Repeat("a.", 127) + "ab", "192.0.2.1", zero, noName},
		{"no UTF-8", "\xff.example", "192.0.2.1", zero, noName},
		{"the client's address", "[192.0.2.1]", "192.0.2.1", zero, ""},
		{"the client's IPv6 address, however it is written", "[ipv6:2001:DB8:0::1]", "2001:db8::1", zero, ""},
		{"an IPv4 address in IPv6 form", "[IPv6:::ffff:192.0.2.1]", "192.0.2.1", zero, ""},
		{"a client with a zone", "[IPv6:fe80::1]", "fe80::1%eth0", zero, ""},
		{"another's address", "[192.0.2.2]", "192.0.2.1", zero, another},
		{"another's IPv6 address", "[IPv6:2001:db8::2]", "2001:db8::1", zero, another},
		{"IPv6 without its tag", "[2001:db8::1]", "2001:db8::1", zero, literal},
		{"IPv4 with it", "[IPv6:192.0.2.1]", "192.0.2.1", zero, literal},
		{"a literal that isn't closed", "[192.0.2.1", "192.0.2.1", zero, literal},
		{"a zone in it", "[IPv6:fe80::1%eth0]", "fe80::1%eth0", zero, literal},
		{"nothing in it", "[]", "192.0.2.1", zero, literal},
		{"another tag", "[x400:y]", "192.0.2.1", zero, literal},
		{"on a unix socket any address", "[192.0.2.2]", "", zero, ""},
		{"but a literal", "[192.0.2", "", zero, literal},
		{"of whom nothing is known, likewise", "[192.0.2.2]", "0.0.0.0", zero, ""},
		{"the server's name", "mx.example", "192.0.2.1", own, mine},
		{"in any case, with a dot", "MX.example.", "192.0.2.1", own, mine},
		{"a name that is set with a dot", "mail.example", "192.0.2.1", own, mine},
		{"the server's address", "[192.0.2.25]", "192.0.2.1", own, mine},
		{"a name that only ends so", "a.mx.example", "192.0.2.1", own, ""},
	} {
		for _, verb := range []string{"HELO", "EHLO", "LHLO"} {
			conn := smtpproxy.Connection{HELO: smtpproxy.HELO{Verb: verb, Host: row.name}}
			if row.ip != "" {
				conn.RemoteIP = netip.MustParseAddr(row.ip)
			}
			takesTurns(t, row.c, []turn{
				{row.why + ": " + verb + " " + row.name, conn, smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", row.want},
				{"who has authenticated isn't checked", with(conn, func(c *smtpproxy.Connection) { c.Auth.Mechanism = "PLAIN" }), smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""},
			})
		}
	}
}

func TestOnlyMAILIsRefusedForAGreeting(t *testing.T) {
	bad := with(insideTLS, func(c *smtpproxy.Connection) { c.HELO.Host = "my printer" })
	for _, line := range knownVerbs {
		want := ""
		if strings.HasPrefix(line, "MAIL") {
			want = "550 "
		}
		takesTurns(t, &hooks.CheckHELO{}, []turn{{"a bad greeting", bad, withRecipient, line, want}})
	}
	takesTurns(t, &hooks.CheckHELO{}, []turn{{"who hasn't greeted", ungreeted, smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""}})
}

// A program that people use says a literal of its private address, and authenticates then.
func TestAProgramMayGreetBadlyAndAuthenticate(t *testing.T) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.CheckHELO{}})
	for _, row := range []struct {
		line string
		want int
	}{
		{"EHLO [192.168.1.5]", 250}, {"MAIL FROM:<a@example.com>", 550}, {"AUTH PLAIN AGEAYg==", 235}, {"MAIL FROM:<a@example.com>", 250},
		{"RSET", 250}, {"EHLO client.example", 250}, {"MAIL FROM:<a@example.com>", 250},
	} {
		s.Send(row.line)
		if got := s.Reply(); got.Code != row.want {
			t.Errorf("%s: %v, want %d", row.line, got, row.want)
		}
	}
}

func TestAGreetingThatXCLIENTTellsIsChecked(t *testing.T) {
	for args, want := range map[string]int{
		"ADDR=203.0.113.7 HELO=[203.0.113.7]":          250,
		"ADDR=203.0.113.7 HELO=[192.0.2.1]":            550,
		"ADDR=203.0.113.7 HELO=192.0.2.1":              550,
		"ADDR=[UNAVAILABLE] HELO=[192.0.2.1]":          250,
		"ADDR=203.0.113.7 HELO=192.0.2.1 LOGIN=alice":  250,
		"ADDR=203.0.113.7 HELO=client.example":         250,
		"ADDR=203.0.113.7 HELO=mx.example PROTO=ESMTP": 550,
	} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, &hooks.CheckHELO{Own: []string{"mx.example"}})})
		s.Send("EHLO front.example")
		s.Send("XCLIENT " + args)
		d := s.Send("MAIL FROM:<a@example.com>")
		if r, refused := d.(smtpproxy.Reply); refused != (want == 550) || refused && r.Code != 550 {
			t.Errorf("%s: %v, want %d", args, d, want)
		}
	}
}

func TestMailOfAClientWithoutANameIsRefusedForNow(t *testing.T) {
	named := with(inPlaintext, func(c *smtpproxy.Connection) { c.RemotePTR = "client.example" })
	for _, line := range knownVerbs {
		want := ""
		if strings.HasPrefix(line, "MAIL") {
			want = "450 4.7.25 Your address has no name in the DNS that leads back to it"
		}
		takesTurns(t, hooks.RequirePTR{}, []turn{{"no name", inPlaintext, withRecipient, line, want}, {"in LMTP", inLMTP, withRecipient, line, want}})
	}
	takesTurns(t, hooks.RequirePTR{}, []turn{
		{"a name", named, smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""},
		{"who has authenticated", hasAuth, smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""},
		{"a unix socket", onUnix, smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""},
		{"who isn't known to a front end", with(inPlaintext, func(c *smtpproxy.Connection) { c.RemoteIP = netip.IPv4Unspecified() }), smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""},
	})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, hooks.RequirePTR{})})
	s.Send("XCLIENT ADDR=203.0.113.7 NAME=client.example HELO=client.example")
	if d := s.Send("MAIL FROM:<a@example.com>"); outcome(d) != "" {
		t.Errorf("a name that is told: %v", d)
	}
}
