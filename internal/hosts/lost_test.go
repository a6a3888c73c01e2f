package hosts

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file proves that nothing is lost: a refusal concerns what it refuses and
// nothing else.

// fate is what became of a quirk: how often it was met, the connection was closed
// by it, and a transaction followed that was delivered.
type fate struct{ met, closed, went int }

// tally has the fate of each quirk.
type tally map[string]*fate

func (tl tally) of(name string) *fate {
	if tl[name] == nil {
		tl[name] = new(fate)
	}
	return tl[name]
}

// check fails if a quirk that the host can meet wasn't met, or ended the connection
// each time without being listed for it, or never though it is listed.
func (tl tally) check(t *testing.T, h host) {
	t.Helper()
	for _, q := range allQuirks() {
		if q.on != nil && !q.on(h) {
			continue
		}
		n := tl.of(q.name)
		t.Logf("%s: met %d times, closed %d, went on %d", q.name, n.met, n.closed, n.went)
		switch why, ends := q.ends[h.name]; {
		case n.met == 0:
			t.Errorf("%s: never met", q.name)
		case ends && n.closed < n.met:
			t.Errorf("%s is listed as the end of the connection, since %s: it was so %d of %d times", q.name, why, n.closed, n.met)
		case !ends && n.went == 0:
			t.Errorf("%s: no transaction came through behind it in %d times", q.name, n.met)
		}
	}
}

// fare plays a client that meets some quirks, and after each a transaction that
// nobody has a reason to refuse.
func fare(a *account, t tally) {
	a.greet()
	for range 1 + a.IntN(3) {
		q := a.quirk()
		n := t.of(q.name)
		n.met++
		a.log = append(a.log, "-- "+q.name)
		q.play(a)
		a.quiet()
		if a.over {
			n.closed++
		}
		if a.done() {
			return
		}
		a.between()
		a.wellFormed()
		if a.done() {
			a.fail("the connection was closed later")
			return
		}
		n.went++
	}
	if code := a.ask("QUIT"); code != 221 {
		a.fail("QUIT got %d", code)
	}
}

// quirk picks one that this host, and this transport, can meet.
func (a *account) quirk() quirk {
	all := a.quirks
	for {
		q := all[a.IntN(len(all))]
		if (q.on == nil || q.on(a.host)) && (a.bubble || isQuick(q, a.host)) {
			return q
		}
	}
}

// isQuick tells whether a quirk needs no time to pass, and no order among the
// goroutines of go-smtp, which is not to be had over a socket.
func isQuick(q quirk, h host) bool {
	return !strings.Contains(q.ends[h.name], "timeout") && q.on == nil
}

// between is what a client may do after a refusal. It has to have no transaction
// open, by what it knows, when it begins the next one.
func (a *account) between() {
	switch {
	case !a.open && a.chance(4):
		a.rset()
	case !a.open && a.chance(4):
		a.greet()
	case !a.open && a.chance(3):
		a.refuses(a.rcpt("outside@example.org"), "RCPT without a transaction")
	case !a.open:
	case strings.Contains(a.sender, refuseVerb+"rset"):
		a.greet()
	case strings.Contains(a.sender, refuseVerb), strings.HasPrefix(a.sender, noDataName), a.chance(3):
		a.rset()
	case a.chance(2):
		a.greet()
	default:
		a.finish()
	}
}

// farewell plays one random client, and settles its account. It may meet more quirks than all
// fronts have.
func farewell(t *testing.T, seed uint64, h host, c cut, tr transport, f front, tl tally, more ...quirk) (problem string, events []event) {
	t.Helper()
	lim := limits{size: []int{64, 200, 1500}[seed%3], recipients: 5, timeout: time.Minute}
	if h.early {
		lim.size = 2000 // what it has accepted before, it must not refuse itself
	}
	var a *account
	problem, events = talk(t, seed, h, lim, c, tr, f, false, func(d *dialogue) {
		a = &account{dialogue: d, quirks: slices.Concat(allQuirks(), more)}
		fare(a, tl)
	})
	if problem == "" && a != nil {
		if problem = a.settle(events); problem != "" {
			problem = fmt.Sprintf("%s, seed %d, %s over %s, limits %+v: %s\n  %s\n%s", h.name, seed, c, tr.name, lim, problem, strings.Join(a.log, "\n  "), tale(events))
		}
	}
	return problem, events
}

func TestARefusalConcernsWhatItRefusesAndNothingElse(t *testing.T) {
	forEachHost(t, func(t *testing.T, h host, c cut, tr transport, n int) {
		tl := make(tally)
		var found findings
		for seed := range uint64(n) {
			f := library(settingsFor(tr, seed%4 == 3)...)
			problem, _ := farewell(t, seed, h, c, tr, f, tl)
			found.add(seed, problem)
		}
		found.report(t, "of an account", n)
		// A message in pieces that is refused midway ends the connection.
		if c == whole && n >= enoughClients {
			tl.check(t, h)
		}
	})
}
