package hooks_test

import (
	"net/netip"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestXCLIENTFromAFrontEndThatIsTrustedChangesTheClient(t *testing.T) {
	x := &hooks.XCLIENT{Trust: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: x})
	s.Send("XCLIENT NAME=client.example ADDR=IPV6:2001:db8::7 LOGIN=alice+40example")
	conn := s.Connection()
	if s.Reply().Code != 220 || conn.RemoteIP.String() != "2001:db8::7" || conn.RemotePTR != "client.example" || conn.Auth.Username != "alice@example" {
		t.Errorf("%s\n%+v", s.Transcript(), conn)
	}
}
