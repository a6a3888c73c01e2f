package hooks_test

import (
	"net/netip"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestRepairHELOGivesANameToWhoHasNoGoodOne(t *testing.T) {
	const literal = "[192.0.2.7]"
	for _, tt := range []struct{ why, name, line, want string }{
		{"none", "", "EHLO", "EHLO " + literal},
		{"none, and HELO", "", "HELO", "HELO " + literal},
		{"none, in LMTP", "", "LHLO", "LHLO " + literal},
		{"blanks", "", "ehlo \t ", "EHLO " + literal},
		{"a printer's name", "", "EHLO Office Printer 2", "EHLO " + literal},
		{"a tab in it", "", "EHLO office\tprinter", "EHLO " + literal},
		{"a blank in a literal", "", "EHLO [192.0.2.7 ]", "EHLO " + literal},
		{"a name for those", "printer.example.org", "HELO my printer", "HELO printer.example.org"},
		{"a good one", "printer.example.org", "EHLO client.example", "EHLO client.example"},
		{"a good one, and blanks behind it", "", "EHLO  client.example ", "EHLO  client.example "},
		{"one that isn't fully qualified", "", "EHLO localhost", "EHLO localhost"},
		{"a literal", "", "EHLO [IPv6:2001:db8::1]", "EHLO [IPv6:2001:db8::1]"},
		{"UTF-8", "", "EHLO bücher.example", "EHLO bücher.example"},
		{"another command", "", "NOOP", "NOOP"},
	} {
		conn := smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.7")}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: &hooks.RepairHELO{Name: tt.name}}, conn, smtpproxy.Transaction{})
		if got, want := s.Send(tt.line), (smtpproxy.Pass{Command: tt.want}); got != want {
			t.Errorf("%s: %q became %v, want %v", tt.why, tt.line, got, want)
		}
		if s.Reply().Code != 250 {
			t.Errorf("%s: the server says %v", tt.why, s.Reply())
		}
	}
}

func TestWithoutANameTheAddressIsOne(t *testing.T) {
	for _, tt := range []struct{ why, ip, want string }{
		{"IPv4", "192.0.2.1", "[192.0.2.1]"},
		{"IPv6", "2001:db8::7", "[IPv6:2001:db8::7]"},
		{"IPv6 of a link, whose zone is nobody else's", "fe80::1%eth0", "[IPv6:fe80::1]"},
		{"IPv4 in IPv6 form", "::ffff:192.0.2.1", "[192.0.2.1]"},
		{"a unix socket", "", "localhost"},
	} {
		var conn smtpproxy.Connection
		if tt.ip != "" {
			conn.RemoteIP = netip.MustParseAddr(tt.ip)
		}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: &hooks.RepairHELO{}}, conn, smtpproxy.Transaction{})
		s.Send("EHLO")
		if got := s.Connection().HELO; got != (smtpproxy.HELO{Verb: "EHLO", Host: tt.want}) {
			t.Errorf("%s: greeted by %v, want %q", tt.why, got, tt.want)
		}
	}
}

func TestAHookBehindRepairHELOCanStillTell(t *testing.T) {
	bad := 0
	counts := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Received != cmd.Line {
			bad++
		}
		return nil, nil
	})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.RepairHELO{}, counts)})
	s.Send("EHLO client.example")
	s.Send("EHLO")
	if bad != 1 {
		t.Errorf("%d bad names, want 1", bad)
	}
}
