package hooks_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// frontEnds is where the front ends are that are trusted in these tests.
var frontEnds = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}

// fromFront returns a session of the front end at 192.0.2.1, which has greeted as itself and
// logged in.
func fromFront(h smtpproxy.Hook) *proxytest.Session {
	return proxytest.ResumeSession(&smtpproxy.Proxy{Hook: h}, smtpproxy.Connection{
		RemoteIP: netip.MustParseAddr("192.0.2.1"), RemotePort: 49152, RemotePTR: "front.example",
		LocalIP: netip.MustParseAddr("192.0.2.25"), LocalPort: 25,
		HELO: smtpproxy.HELO{Verb: "EHLO", Host: "front.example"},
		Auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: "front"},
	}, smtpproxy.Transaction{})
}

// theFront is who it is, as long as nothing is told.
const theFront = "192.0.2.1:49152 (front.example) > 192.0.2.25:25, EHLO front.example, PLAIN front"

// who returns who a client is, as hooks see it.
func who(c smtpproxy.Connection) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v:%d", c.RemoteIP, c.RemotePort)
	if c.RemotePTR != "" {
		fmt.Fprintf(&b, " (%s)", c.RemotePTR)
	}
	fmt.Fprintf(&b, " > %v:%d", c.LocalIP, c.LocalPort)
	if c.HELO != (smtpproxy.HELO{}) {
		fmt.Fprintf(&b, ", %s %s", c.HELO.Verb, c.HELO.Host)
	}
	if c.Auth != (smtpproxy.Auth{}) {
		fmt.Fprintf(&b, ", %s %s", c.Auth.Mechanism, c.Auth.Username)
	}
	return b.String()
}

// keywordsOf sends EHLO, or LHLO, and returns what the reply announces.
func keywordsOf(s *proxytest.Session, greeting string) []string {
	s.Send(greeting)
	return s.Reply().Lines[1:]
}

// announced returns the line with a keyword, and whether there is one.
func announced(keywords []string, keyword string) (line string, ok bool) {
	for _, line := range keywords {
		if name, _, _ := strings.Cut(line, " "); name == keyword {
			return line, true
		}
	}
	return "", false
}
