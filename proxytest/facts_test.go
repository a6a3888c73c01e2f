package proxytest

import (
	"io"
	"net/netip"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

func TestWhatIsToldOfAConnectionIsReadAgain(t *testing.T) {
	other := defaultClient
	other.RemoteIP, other.RemotePort = netip.MustParseAddr("2001:db8::1"), 0
	for _, tt := range []struct {
		why  string
		conn smtpproxy.Connection
		want string
	}{
		{"nothing else than always", defaultClient, ""},
		{"another address", other, " RemoteIP=2001:db8::1 RemotePort=0"},
		{"none", smtpproxy.Connection{LocalIP: defaultClient.LocalIP, LocalPort: 25}, ` RemoteIP="" RemotePort=0`},
		{"what has to be quoted", func() smtpproxy.Connection {
			c := defaultClient
			c.RemotePTR, c.TLS.SNI, c.HELO.Host = "a b", `"`, "\x00="
			return c
		}(), ` RemotePTR="a b" HELO.Host="\x00=" TLS.SNI="\""`},
		{"fields of fields", func() smtpproxy.Connection {
			c := defaultClient
			c.RemoteUID = smtpproxy.UID{ID: 7, Valid: true}
			c.TLS.PeerCert = smtpproxy.NewPeerCert(-1, io.EOF)
			c.TLS.KeySize = 128
			return c
		}(), ` RemoteUID.ID=7 RemoteUID.Valid=true TLS.KeySize=128 TLS.PeerCert.Error=-1`},
	} {
		text := toldOf(tt.conn, defaultClient)
		if text != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, text, tt.want)
		}
		got := defaultClient
		if err := tell(&got, text); err != nil || toldOf(got, tt.conn) != "" {
			t.Errorf("%s: %s is read as %+v: %v", tt.why, text, got, err)
		}
	}
}

func TestALineIsReadAsItIsWritten(t *testing.T) {
	for _, line := range []string{"", " ", "NOOP", " NOOP", "NOOP\t", "(gone)", `"`, `NOOP "x" \x00`, "\x00", "\xff", "\u00f6", "\ufffd", "\u2028", "C: x", "a\r\nb"} {
		var s act
		err := s.readClient(literal(line), true, func(format string, _ ...any) error { return &mistakeAt{text: format} })
		if err != nil || s.text != line || s.do != sends {
			t.Errorf("%q is written as %s, and read as %q: %v", line, literal(line), s.text, err)
		}
	}
}
