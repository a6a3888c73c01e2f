package hooks_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// forwardedOf returns what is told of the transaction of a session.
func forwardedOf(s *proxytest.Session) (hooks.Forwarded, bool) {
	return hooks.ForwardedOf(s.Context(), s.Transaction())
}

func TestAServerInFrontTellsWhereAMessageComesFrom(t *testing.T) {
	ip := netip.MustParseAddr
	for _, row := range []struct {
		why, args string
		want      hooks.Forwarded
	}{
		{"all of it", "NAME=Client.example ADDR=203.0.113.7 PORT=7 HELO=hi PROTO=ESMTP IDENT=4abc SOURCE=REMOTE",
			hooks.Forwarded{Name: "client.example", Addr: ip("203.0.113.7"), Port: 7, HELO: "hi", Proto: "ESMTP", Ident: "4abc", Source: "REMOTE"}},
		{"nothing known", "NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] PROTO=[UNAVAILABLE] IDENT=[UNAVAILABLE] SOURCE=[UNAVAILABLE]",
			hooks.Forwarded{}},
		{"in any case", "name=[unavailable] addr=[TempUnavail] port=7", hooks.Forwarded{Port: 7}},
		{"IPv6", "ADDR=IPV6:2001:db8::7", hooks.Forwarded{Addr: ip("2001:db8::7")}},
		{"without prefix", "ADDR=2001:db8::7", hooks.Forwarded{Addr: ip("2001:db8::7")}},
		{"in IPv6 form", "ADDR=IPV6:::ffff:203.0.113.7", hooks.Forwarded{Addr: ip("203.0.113.7")}},
		{"xtext", "HELO=a+2Bb IDENT=+3D", hooks.Forwarded{HELO: "a+b", Ident: "="}},
		{"what isn't xtext", "HELO=a+b", hooks.Forwarded{HELO: "a+b"}},
		{"controls are masked, and what is no UTF-8", "HELO=a+0D+0A PROTO=+1B IDENT=\xff+C2+85+E2+80+AE", hooks.Forwarded{HELO: "a??", Proto: "?", Ident: "???"}},
		{"a message that began there", "SOURCE=local", hooks.Forwarded{Source: "LOCAL"}},
		{"what isn't known is ignored", "X-MORE=1 PORT=7", hooks.Forwarded{Port: 7}},
		{"not all are XCLIENT's", "LOGIN=admin DESTADDR=127.0.0.1 PORT=7", hooks.Forwarded{Port: 7}},
	} {
		s := fromFront(&hooks.XFORWARD{Trust: frontEnds})
		id := s.Transaction().ID
		s.Send("XFORWARD " + row.args)
		got, ok := forwardedOf(s)
		if s.Reply().String() != "250 2.0.0 OK" || !ok || got != row.want {
			t.Errorf("%s: %v, %+v", row.why, s.Reply(), got)
		}
		if client := who(s.Connection()); client != theFront || s.Transaction().ID != id || s.Failure() != nil {
			t.Errorf("%s: it is %s, %v", row.why, client, s.Failure())
		}
	}
}

func TestXFORWARDOfOneTransactionAddsUpAndIsOverWithIt(t *testing.T) {
	first := hooks.Forwarded{Name: "client.example", Port: 7, Ident: "4abc"}
	for _, row := range []struct {
		why  string
		ends func(s *proxytest.Session)
	}{
		{"the end of the message", func(s *proxytest.Session) { s.SendContent() }},
		{"a message refused", func(s *proxytest.Session) { s.Answer("DATA", 550); s.SendContent() }},
		{"RSET", func(s *proxytest.Session) { s.SendContent(); s.Send("XFORWARD PORT=9"); s.Send("RSET") }},
		{"EHLO", func(s *proxytest.Session) { s.SendContent(); s.Send("XFORWARD PORT=9"); s.Send("EHLO front.example") }},
		{"HELO", func(s *proxytest.Session) { s.SendContent(); s.Send("XFORWARD PORT=9"); s.Send("HELO front.example") }},
	} {
		s := fromFront(&hooks.XFORWARD{Trust: frontEnds})
		if got, ok := forwardedOf(s); ok || got != (hooks.Forwarded{}) {
			t.Errorf("before the first: %+v", got)
		}
		s.Send("XFORWARD NAME=client.example PORT=8")
		s.Send("XFORWARD PORT=7 IDENT=4abc")
		for _, line := range []string{"NOOP", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA"} {
			s.Send(line)
			if got, ok := forwardedOf(s); !ok || got != first {
				t.Errorf("behind %s: %+v", line, got)
			}
		}
		row.ends(s)
		if got, ok := forwardedOf(s); ok || got != (hooks.Forwarded{}) {
			t.Errorf("behind %s: %+v", row.why, got)
		}
		s.Send("XFORWARD HELO=hi")
		if got, ok := forwardedOf(s); !ok || got != (hooks.Forwarded{HELO: "hi"}) {
			t.Errorf("of the transaction behind %s: %+v", row.why, got)
		}
		s.Send("XFORWARD HELO=[UNAVAILABLE]")
		if got, ok := forwardedOf(s); !ok || got != (hooks.Forwarded{}) {
			t.Errorf("taken back: %+v", got)
		}
	}
}

func TestXFORWARDIsOverWithRSETInATransaction(t *testing.T) {
	s := fromFront(&hooks.XFORWARD{Trust: frontEnds})
	for _, line := range []string{"XFORWARD PORT=7", "MAIL FROM:<>", "RSET", "MAIL FROM:<>"} {
		s.Send(line)
	}
	if got, ok := forwardedOf(s); ok {
		t.Errorf("of the one before: %+v", got)
	}
	s.Send("RSET")
	s.Answer("MAIL", 451)
	s.Send("XFORWARD PORT=7")
	s.Send("MAIL FROM:<>")
	s.Send("MAIL FROM:<>")
	if got, ok := forwardedOf(s); !ok || got.Port != 7 {
		t.Errorf("a refused MAIL begins and ends nothing: %+v", got)
	}
}

func TestNoTransactionIsToldOfWhereNothingWas(t *testing.T) {
	s := fromFront(&hooks.XFORWARD{Trust: frontEnds})
	if _, ok := hooks.ForwardedOf(s.Context(), smtpproxy.Transaction{}); ok {
		t.Error("of a transaction that is none")
	}
}

func TestRefusedXFORWARDChangesNothing(t *testing.T) {
	s := fromFront(&hooks.XFORWARD{Trust: frontEnds})
	s.Send("XFORWARD NAME=client.example ADDR=203.0.113.7 PORT=7 IDENT=4abc SOURCE=REMOTE")
	was, _ := forwardedOf(s)
	unchanged := func(why, line, want string) {
		t.Helper()
		refused(t, s, why, line, want, theFront)
		if got, ok := forwardedOf(s); !ok || got != was {
			t.Errorf("%s: %.60q: %+v", why, line, got)
		}
	}
	for _, row := range []struct{ why, line string }{
		{"no attributes", "XFORWARD"},
		{"one without a value", "XFORWARD NAME"},
		{"with an empty one", "XFORWARD NAME="},
		{"one twice", "XFORWARD PORT=8 port=9"},
		{"too long", "XFORWARD IDENT=" + strings.Repeat("a", 256)},
		{"behind good ones", "XFORWARD IDENT=x PORT=8 ADDR=localhost"},
		{"no name", "XFORWARD NAME=a+0Ab"},
		{"an address for a name", "XFORWARD NAME=203.0.113.7"},
		{"an address with a zone", "XFORWARD ADDR=fe80::1%eth0"},
		{"IPv4 in the clothes of IPv6", "XFORWARD ADDR=IPV6:203.0.113.7"},
		{"no port", "XFORWARD PORT=65536"},
		{"neither here nor there", "XFORWARD SOURCE=BOTH"},
	} {
		unchanged(row.why, row.line, "501 5.5.4 ")
	}
	s.Send("MAIL FROM:<a@example.com>")
	unchanged("in a transaction", "XFORWARD PORT=8", "503 5.5.1 ")
	unchanged("whatever it says", "XFORWARD", "503 5.5.1 ")
}

func TestOnlyThoseInTrustAreBelievedAndToldOfXFORWARD(t *testing.T) {
	for _, row := range []struct {
		why, ip  string
		trust    []netip.Prefix
		believed bool
	}{
		{"the server in front", "192.0.2.1", frontEnds, true},
		{"anybody", "203.0.113.9", frontEnds, false},
		{"nobody is by default", "192.0.2.1", nil, false},
		{"a unix socket has no address", "", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, false},
	} {
		var conn smtpproxy.Connection
		if row.ip != "" {
			conn.RemoteIP = netip.MustParseAddr(row.ip)
		}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: &hooks.XFORWARD{Trust: row.trust}}, conn, smtpproxy.Transaction{})
		for _, greeting := range []string{"EHLO x", "LHLO x"} {
			s.Answer(greeting[:4], 250, "mx.example", "XFORWARD SERVERS-OWN", "SIZE")
			line, is := announced(keywordsOf(s, greeting), "XFORWARD")
			if is != row.believed || is && line != "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE" {
				t.Errorf("%s: announced %q", row.why, line)
			}
		}
		s.Send("XFORWARD NAME=client.example")
		_, ok := forwardedOf(s)
		if code := s.Reply().Code; ok != row.believed || code != map[bool]int{true: 250, false: 550}[row.believed] {
			t.Errorf("%s: %v", row.why, s.Reply())
		}
	}
}
