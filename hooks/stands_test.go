package hooks_test

import (
	"context"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// listsNobody is a resolver that knows of no name.
type listsNobody struct{}

func (listsNobody) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, nil
}

// What every hook has to stand, each ready one does.
func TestEachReadyHookStandsWhateverComes(t *testing.T) {
	everybody := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	xclients := []string{"XCLIENT ADDR=192.0.2.7 NAME=a.example LOGIN=alice", "XCLIENT", "XFORWARD NAME=a.example", "XFORWARD"}
	for name, test := range map[string]struct {
		proxytest.HookTest
		hook func() smtpproxy.Hook
	}{
		"XCLIENT":         {proxytest.HookTest{Lines: xclients}, func() smtpproxy.Hook { return &hooks.XCLIENT{Trust: everybody} }},
		"XCLIENT, nobody": {proxytest.HookTest{Lines: xclients}, func() smtpproxy.Hook { return new(hooks.XCLIENT) }},
		"XFORWARD":        {proxytest.HookTest{Lines: xclients}, func() smtpproxy.Hook { return &hooks.XFORWARD{Trust: everybody} }},
		"Rewrite": {hook: func() smtpproxy.Hook {
			return hooks.Rewrite{{Match: regexp.MustCompile(`^\s*$`), To: "NOOP"}, {Verb: "HELO", Match: regexp.MustCompile(`^HELO$`), To: "HELO domain.invalid"}}
		}},
		"StripParameters": {hook: func() smtpproxy.Hook { return hooks.StripParameters("MAIL", "SIZE", "AUTH") }},
		"AddParameter":    {hook: func() smtpproxy.Hook { return hooks.AddParameter("RCPT", "NOTIFY=NEVER") }},
		"RepairHELO":      {hook: func() smtpproxy.Hook { return new(hooks.RepairHELO) }},
		"Limits": {hook: func() smtpproxy.Hook {
			return hooks.Limits{Limits: []hooks.Limit{
				{What: hooks.Commands, Max: 20, Beyond: smtpproxy.Reply{Code: 450}},
				{What: hooks.Errors, Max: 5},
				{What: hooks.Recipients, Max: 3, Beyond: smtpproxy.Reply{Code: 452}},
				{What: hooks.Messages, Max: 2, Beyond: smtpproxy.Pass{Delay: time.Second}},
			}}.Hook()
		}},
		"Networks": {hook: func() smtpproxy.Hook { return new(hooks.Networks) }},
		"Networks, one": {hook: func() smtpproxy.Hook {
			return &hooks.Networks{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
		}},
		"DNSList": {hook: func() smtpproxy.Hook {
			return hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: listsNobody{}})
		}},
		"EarlyTalkers": {hook: func() smtpproxy.Hook { return &hooks.EarlyTalkers{Delay: time.Second} }},
		"CheckHELO":    {hook: func() smtpproxy.Hook { return &hooks.CheckHELO{Own: []string{"server.example"}, RequireDot: true} }},
		"RequirePTR":   {hook: func() smtpproxy.Hook { return hooks.RequirePTR{} }},
		"RequireTLS":   {hook: func() smtpproxy.Hook { return &hooks.RequireTLS{Everything: true, Disconnect: true} }},
		"AllowVerbs":   {hook: func() smtpproxy.Hook { return hooks.AllowVerbs("EHLO", "MAIL", "RCPT", "DATA", "QUIT") }},
		"Answers":      {hook: func() smtpproxy.Hook { return hooks.Answers{"HELP": {Code: 214}, "VRFY": {Code: 252}} }},
		"Strict":       {hook: func() smtpproxy.Hook { return hooks.Strict{} }},
		"Chaos": {hook: func() smtpproxy.Hook {
			c := new(hooks.Chaos)
			if err := c.Set(1, hooks.ChaosRule{At: "RCPT", Code: 452}, hooks.ChaosRule{At: "message", Delay: hooks.Duration(time.Second)}); err != nil {
				t.Fatal(err)
			}
			return c
		}},
	} {
		t.Run(name, func(t *testing.T) { test.Run(t, test.hook) })
	}
}
