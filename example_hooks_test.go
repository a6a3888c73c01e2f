package smtpproxy_test

import (
	"encoding/base64"
	"net/netip"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// The hooks of the examples are what others begin with.
func TestTheHooksOfTheExamplesStandWhateverComes(t *testing.T) {
	plain := base64.StdEncoding.EncodeToString([]byte("\x00root\x00password"))
	for _, tt := range []struct {
		why  string
		test proxytest.HookTest
		hook smtpproxy.Hook
	}{
		{"it answers a command", proxytest.HookTest{}, smtpproxy.HookFunc(answerHELP)},
		{"it refuses a command", proxytest.HookTest{}, smtpproxy.HookFunc(noVRFY)},
		{"it goes by the client", proxytest.HookTest{}, smtpproxy.HookFunc(limitGuests)},
		{"it goes by TLS", proxytest.HookTest{}, smtpproxy.HookFunc(onlyInTLS)},
		{"it answers all", proxytest.HookTest{NoLMTP: true}, smtpproxy.HookFunc(replyAlways)},
		{"it changes a command", proxytest.HookTest{}, smtpproxy.HookFunc(repairHELO)},
		{"it has a configuration", proxytest.HookTest{}, &relayGuard{networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}},
		{"it turns clients away", proxytest.HookTest{}, &blockList{networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}},
		{"it sees responses", proxytest.HookTest{Lines: []string{"AUTH PLAIN", plain, "AUTH PLAIN " + plain}}, smtpproxy.HookFunc(lockRoot)},
		{"it has a verb of its own", proxytest.HookTest{Lines: []string{"XTAG", "XTAG name"}}, smtpproxy.HookFunc(takeTag)},
		{"it counts", proxytest.HookTest{}, smtpproxy.HookFunc(countNOOP)},
		{"it hands on a Context", proxytest.HookTest{NoLMTP: true}, withTenant("example.org", countFor)},
		{"it delays", proxytest.HookTest{}, smtpproxy.HookFunc(slowly)},
		{"it fails", proxytest.HookTest{MayFail: true}, smtpproxy.HookFunc(lookUp)},
		{"it changes keywords", proxytest.HookTest{}, wholeMessages{}},
		{"it changes replies", proxytest.HookTest{}, politely{"https://mail.example/help"}},
		{"it takes XCLIENT", proxytest.HookTest{Lines: []string{"XCLIENT ADDR=2001:db8::7"}}, smtpproxy.HookFunc(takesXCLIENT)},
		{"it is a chain", proxytest.HookTest{}, smtpproxy.Chain(
			smtpproxy.Named("normal", smtpproxy.HookFunc(lowerDomain)),
			smtpproxy.Named("relay", smtpproxy.HookFunc(ownDomain)),
		)},
	} {
		t.Run(tt.why, func(t *testing.T) {
			tt.test.Patience = time.Minute // other tests run, too
			tt.test.Run(t, func() smtpproxy.Hook { return tt.hook })
		})
	}
}
