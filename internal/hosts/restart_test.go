package hosts

import (
	"fmt"
	"strings"
	"testing"
)

// This file has hooks that find the client to be another's: the host gets a fresh connection,
// and its own greeting is the reply.

// restarts are such quirks.
var restarts = []quirk{
	{name: "the client is another's", play: func(a *account) {
		a.another()
		a.greet()
	}},
	{name: "the client is another's, in a transaction", play: func(a *account) {
		a.begin("", a.IntN(3))
		a.another()
		if a.chance(2) {
			a.refuses(a.rcpt("outside@example.org"), "RCPT behind it")
		}
		a.greet()
	}},
	{name: "the client is another's, behind a message that was refused", play: func(a *account) {
		a.begin("", 1)
		a.data(refuseWord + "\r\n")
		a.another()
		a.greet()
	}},
	{name: "the client is another's, and another's again", play: func(a *account) {
		for range 2 + a.IntN(2) {
			a.another()
		}
		a.greet()
	}},
	{name: "the client is another's, and has sent more behind that", play: func(a *account) {
		from, to := fmt.Sprintf("s%d@example.com", a.number()), fmt.Sprintf("r%d@example.org", a.number())
		a.say(fmt.Sprintf("%s\r\n%s client.example\r\nMAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", a.restartLine(), a.hello(), from, to))
		a.isGreetedAgain(a.reply())
		if code := a.reply(); code != 250 {
			a.fail("%s got %d", a.hello(), code)
		}
		a.mailed(from, a.reply())
		a.rcpted(to, a.reply())
		if code := a.reply(); code != 354 || !a.content(a.smallText()) {
			a.fail("the message got %d", a.last)
		}
	}},
	{name: "the client is another's, and had authenticated", on: onAUTH, play: func(a *account) {
		auth := func() int { return a.ask("AUTH PLAIN AHVzZXIAcGFzcw==") }
		first := auth()
		a.another()
		a.greet()
		if again := auth(); first == 235 && again != 235 { // no host takes it twice
			a.fail("AUTH of another client got %d", again)
		}
	}},
}

// restartLine is a line that tells who the client is.
func (a *account) restartLine() string {
	a.told = append(a.told, fmt.Sprintf("192.0.2.%d:%d", 1+a.IntN(250), 1+a.IntN(60000)))
	return restartVerb + " " + a.told[len(a.told)-1]
}

// another makes the client another's.
func (a *account) another() { a.isGreetedAgain(a.ask("%s", a.restartLine())) }

func (a *account) isGreetedAgain(code int) {
	if code != 220 || a.greeted != "" && a.dialogue.text != a.greeted {
		a.fail("the host doesn't greet, but says %q", a.dialogue.text)
	}
	a.open, a.to = false, nil
}

// knowsClients tells whether a host was told who its client is, each time.
func knowsClients(_ host, events []event) string {
	told, fresh := "", true
	for i, e := range events {
		switch e.what {
		case answered:
			if verbOf(e.text) == restartVerb {
				told, fresh = argument(e.text), false
			}
		case opened:
			fresh = true
		case client:
			if told != "" && (e.text != told || !fresh) {
				return fmt.Sprintf("the client is %s, not %s\n%s", e.text, told, tale(events[:i+1]))
			}
		}
	}
	return ""
}

func TestARestartOfAHostIsAFreshStartAndNothingElse(t *testing.T) {
	forEachHost(t, func(t *testing.T, h host, c cut, tr transport, n int) {
		tl := make(tally)
		var found findings
		for seed := range uint64(n) {
			problem, events := farewell(t, seed, h, c, tr, library(settingsFor(tr, seed%4 == 3)...), tl, restarts...)
			for _, check := range []check{slipped, escaped, knowsClients} {
				if problem == "" {
					problem = check(h, events)
				}
			}
			found.add(seed, problem)
		}
		found.report(t, "with restarts", n)
		went := 0
		for name, fate := range tl {
			if strings.HasPrefix(name, restarts[0].name) {
				went += fate.went
			}
		}
		if went < n/8 {
			t.Errorf("%d times a transaction followed a restart, in %d sessions: the property says little", went, n)
		}
	})
}
