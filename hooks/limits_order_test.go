package hooks_test

import (
	"net/netip"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestBeforeHooksThatRefuseALimitOfErrorsEndsAConnectionThatSendsNothingElse(t *testing.T) {
	limits := limitsOf(hooks.Limit{What: hooks.Errors, Max: 3})
	for _, refuses := range limitsRefusers() {
		say(t, limitsSession(limits, refuses.hook), refuses.codes+" 459", refuses.line, refuses.line, refuses.line, refuses.line)
	}
}

// limitsRefuser is a hook that refuses a line, three times with these codes.
type limitsRefuser struct {
	hook        smtpproxy.Hook
	line, codes string
}

func limitsRefusers() []limitsRefuser {
	return []limitsRefuser{
		{&hooks.RequireTLS{}, "AUTH PLAIN AGEAYg==", "523 523 523"},
		{hooks.AllowVerbs("EHLO"), "HELP", "502 502 502"},
		{hooks.Answers{"HELP": {Code: 550}}, "HELP", "550 550 550"},
		{hooks.Strict{}, mail, "503 503 503"},
	}
}

func TestAHookThatRestartsWhenAClientConnectsEndsTheAsking(t *testing.T) {
	tells := smtpproxy.Funcs{OnConnect: func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) {
		return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: netip.MustParseAddr("203.0.113.7")}}, nil
	}}
	connected, told := &hooks.Networks{Deny: prefixes("192.0.2.1/32")}, &hooks.Networks{Deny: prefixes("203.0.113.7/32")}
	for _, row := range []struct {
		hook smtpproxy.Hook
		in   bool
	}{
		{smtpproxy.Chain(connected, tells), false},
		{smtpproxy.Chain(tells, connected), true},
		{smtpproxy.Chain(told, tells), true},
		{smtpproxy.Chain(tells, told), true},
	} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: row.hook})
		if s.Connect(); isIn(s) != row.in || row.in && s.Connection().RemoteIP != netip.MustParseAddr("203.0.113.7") {
			t.Errorf("let in: %v, as %v", isIn(s), s.Connection().RemoteIP)
		}
	}
}
