package hosts

import (
	"fmt"
	"testing"
)

// This file tests the properties: a relay that obeys the rules holds them, and one
// that breaks a rule doesn't.

// property is one of those that this package proves, for one random session.
type property struct {
	name string
	hold func(t *testing.T, seed uint64, h host, c cut, f front) (problem string)
}

var (
	nothingSlips = property{"nothing slips past", func(t *testing.T, seed uint64, h host, c cut, f front) string {
		problem, _ := blast(t, seed, h, c, memory, f, slipped)
		if problem == "" {
			problem = attempt(t, seed, h, c, memory, f)
		}
		return problem
	}}
	viewIsTrue = property{"the view is the host's", func(t *testing.T, seed uint64, h host, c cut, f front) string {
		problem, _ := look(t, seed, h, c, memory, f)
		return problem
	}}
	nothingLost = property{"nothing is lost", func(t *testing.T, seed uint64, h host, c cut, f front) string {
		problem, _ := farewell(t, seed, h, c, memory, f, make(tally))
		return problem
	}}
)

func TestARelayThatObeysTheRulesMeetsEachQuirk(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			tl := make(tally)
			n := sessions(enoughClients)
			var found findings
			for seed := range uint64(n) {
				problem, _ := farewell(t, seed, h, whole, memory, careful(rules{}), tl)
				found.add(seed, problem)
			}
			found.report(t, "of an account", n)
			if n >= enoughClients {
				tl.check(t, h)
			}
		})
	}
}

func TestARelayThatObeysTheRulesHoldsTheProperties(t *testing.T) {
	for _, h := range hosts {
		for _, p := range []property{nothingSlips, viewIsTrue, nothingLost} {
			t.Run(h.name+", "+p.name, func(t *testing.T) {
				t.Parallel()
				for _, c := range []cut{whole, random, octets} {
					n := sessions(60)
					var found findings
					for seed := range uint64(n) {
						found.add(seed, p.hold(t, seed, h, c, careful(rules{})))
					}
					found.report(t, fmt.Sprintf("cut %s", c), n)
				}
			})
		}
	}
}

// A relay that is careless about one rule, and where that is found out.
var careless = []struct {
	name  string
	rules rules
	property
	host host
}{
	{"it takes a refusal at a line with dots for the reply to the end", rules{trustsRefusals: true}, nothingSlips, mhaleHost},
	{"it knows no end but a dot and CRLF, and hands over more than a line", rules{onlyDot: true, inBulk: true}, nothingSlips, chrjHost},
	{"it hands over more than a line at once", rules{inBulk: true}, nothingSlips, bradfitzHost},
	{"it tells LMTP statuses before the end of the message", rules{tellsEarly: true}, nothingLost, goLMTPEarlyHost},
	{"it feeds content on after a Read that failed", rules{feedsOn: true}, nothingSlips, bradfitzHost},
	{"it takes the first path that it sees", rules{firstPath: true}, viewIsTrue, mhaleHost},
	{"it takes the first path that it sees", rules{firstPath: true}, viewIsTrue, bradfitzHost},
	{"it doesn't reset what the host may have kept", rules{forgetsKept: true}, nothingLost, bradfitzHost},
	{"it lets recipients through without a transaction", rules{passesOutside: true}, viewIsTrue, mhaleHost},
	{"it believes in a transaction over an EHLO that was refused", rules{keepsRefused: true}, nothingLost, chrjHost},
	{"it takes a 421 in LMTP for the last status", rules{hidesBusy: true}, nothingLost, goLMTPHost},
	{"it leaves the chunk of a command that it has refused", rules{leavesChunk: true}, nothingLost, goSMTPHost},
}

func TestARelayThatBreaksARuleIsFoundOut(t *testing.T) {
	for _, row := range careless {
		t.Run(fmt.Sprintf("%s, %s", row.name, row.host.name), func(t *testing.T) {
			t.Parallel()
			const most = 400
			for seed := range uint64(most) {
				if row.hold(t, seed, row.host, []cut{whole, random}[seed%2], careful(row.rules)) != "" {
					t.Logf("found out with seed %d", seed)
					return
				}
			}
			t.Errorf("%q wasn't found out in %d sessions", row.property.name, most)
		})
	}
}
