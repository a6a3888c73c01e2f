package main

import (
	"io"
	"log/slog"
	"net/netip"
	"regexp"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// This file measures what each of the ready hooks costs that looks at each command: NOOP,
// which all of them pass. Limits have rows of their own.

// readyHook is a hook of package hooks, or an observer.
type readyHook struct {
	name     string
	hook     smtpproxy.Hook
	observer *smtpproxy.Observer
}

// policyHooks are those that decide by who the client is and what it says.
func policyHooks() []readyHook {
	return []readyHook{
		{name: "RequireTLS", hook: &hooks.RequireTLS{}},
		{name: "AllowVerbs", hook: hooks.AllowVerbs("HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "AUTH", "STARTTLS")},
		{name: "Answers", hook: hooks.Answers{"HELP": {Code: 214}, "VRFY": {Code: 252}}},
		{name: "EarlyTalkers", hook: &hooks.EarlyTalkers{}},
		{name: "CheckHELO", hook: &hooks.CheckHELO{Own: []string{"mx.example"}}},
		{name: "RequirePTR", hook: hooks.RequirePTR{}},
		{name: "Strict", hook: hooks.Strict{}},
	}
}

// readyWork compares each of the ready hooks with one that passes everything.
func readyWork() []work {
	front := []netip.Prefix{netip.MustParsePrefix("192.0.2.25/32")}
	chaos := new(hooks.Chaos)
	if err := chaos.Set(1, hooks.ChaosRule{At: "RCPT", Code: 452}); err != nil {
		panic(err)
	}
	trace := (&hooks.Trace{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}).Observer()
	policy := policyHooks()
	all := append(policy[:len(policy):len(policy)],
		readyHook{name: "XCLIENT", hook: &hooks.XCLIENT{Trust: front}},
		readyHook{name: "XFORWARD", hook: &hooks.XFORWARD{Trust: front}},
		readyHook{name: "Rewrite", hook: hooks.Rewrite{{Verb: "HELO", Match: regexp.MustCompile(`^HELO$`), To: "HELO domain.invalid"}}},
		readyHook{name: "StripParameters", hook: hooks.StripParameters("MAIL", "XOORG")},
		readyHook{name: "AddParameter", hook: hooks.AddParameter("RCPT", "NOTIFY=NEVER")},
		readyHook{name: "RepairHELO", hook: &hooks.RepairHELO{}},
		readyHook{name: "Chaos", hook: chaos},
		readyHook{name: "Trace", hook: smtpproxy.HookFunc(pass), observer: &trace},
	)
	var list []work
	for _, r := range all {
		p := &smtpproxy.Proxy{Hook: r.hook}
		if r.observer != nil {
			p.Observers = []smtpproxy.Observer{*r.observer}
		}
		list = append(list, composed("hooks."+r.name, p, remark("-")))
	}
	var chain []smtpproxy.Hook
	for _, r := range policy {
		chain = append(chain, r.hook)
	}
	return append(list, composed("the 7 policy hooks", &smtpproxy.Proxy{Hook: smtpproxy.Chain(chain...)}, remark("-")))
}
