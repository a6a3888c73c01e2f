package dialogue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// This file holds a Machine against a table of state x input. The rows are in
// situations*_test.go.

// situation is a state, and what else matters of what has come before.
type situation struct {
	name string
	// like names a situation of which this one has the rows, but for those inputs
	// that it has rows of its own for.
	like string
	// from names the situation before, "" for the start, and way the inputs that
	// lead from there.
	from   string
	way    string
	policy *Policy // of a start, where it isn't limits
	start  Start   // of a start
	more   bool    // the client has sent another whole line
	at     State
	kept   string // what else has to be there then: see kept
	rows   []row
}

// row says what comes of inputs, separated by commas.
type row struct {
	inputs   string
	state    State  // that follows
	returned string // as printed gives it
	kept     string // what is kept then, as kept gives it; "" where it doesn't matter
	why      string
}

const (
	// stays is the state that follows where nothing changes.
	stays State = 0xff - iota
	// never is that of an input which can't come there.
	never
)

// none is what is kept where nothing is.
const none = "none"

// Replies of the server's.
const (
	accepting      = "reply 200, reply 221, reply 235, reply 250"
	intermediate   = "reply 334, reply 354, reply 399"
	negative       = negativeBut421 + ", reply 421"
	negativeBut421 = "reply 400, reply 450, reply 550, reply 554"
)

// limits are those of the table.
var limits = Policy{OffersTLS: true, SmallChunks: 2, Recipients: 2, Commands: 100, Errors: 1}

// all are the situations by their names.
var all = byName(commandSituations(), dialogueSituations(), messageSituations(), contentSituations(), endSituations())

func byName(lists ...[]situation) map[string]situation {
	m := map[string]situation{}
	for _, s := range slices.Concat(lists...) {
		if _, ok := m[s.name]; ok {
			panic("two situations are called " + s.name)
		}
		m[s.name] = s
	}
	return m
}

// machine returns a Machine that is in the situation.
func (s *situation) machine() Machine {
	var m Machine
	if s.from == "" {
		m = New(cmp.Or(s.policy, &limits), s.start)
	} else {
		from := all[s.from]
		m = from.machine()
	}
	if s.way != "" {
		for _, in := range named(s.way) {
			if !in.mayCome(&m) {
				panic(fmt.Sprintf("%s: %s can't come in %v", s.name, in.name, m.state))
			}
			in.do(&m)
		}
	}
	m.SentAhead(s.more)
	return m
}

// split returns the rows by their inputs.
func split(t *testing.T, name string, rows []row) map[string]row {
	by := map[string]row{}
	for _, r := range rows {
		if r.why == "" {
			t.Errorf("%s: the row of %s has no reason", name, r.inputs)
		}
		for _, in := range named(r.inputs) {
			if _, ok := by[in.name]; ok {
				t.Errorf("%s: two rows for %s", name, in.name)
			}
			by[in.name] = r
		}
	}
	return by
}

// rowsOf returns the rows of a situation, with those that it has from another.
func rowsOf(t *testing.T, s situation) map[string]row {
	own := split(t, s.name, s.rows)
	if s.like == "" {
		return own
	}
	like, ok := all[s.like]
	if !ok {
		t.Fatalf("%s: there is no %s", s.name, s.like)
	}
	by := rowsOf(t, like)
	for name, r := range by {
		r.kept = "" // there is more of it here
		by[name] = r
	}
	for name, r := range own {
		if was := by[name]; r.kept == "" && r.state != never && was.state == r.state && was.returned == r.returned {
			t.Errorf("%s: the row for %s is that of %s", s.name, name, s.like)
		}
		by[name] = r
	}
	return by
}

func TestWhatFollowsEachInputInEachState(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s := all[name]
		t.Run(name, func(t *testing.T) {
			m := s.machine()
			if m.state != s.at || s.kept != "" && kept(m) != strings.TrimPrefix(s.kept, none) {
				t.Fatalf("at %v with %s, want %v with %s", m.state, kept(m), s.at, s.kept)
			}
			rows := rowsOf(t, s)
			for _, in := range inputs {
				r, ok := rows[in.name]
				if !ok {
					t.Errorf("no row says what comes of: %s", in.name)
					continue
				}
				checkRow(t, &in, m, r)
			}
		})
	}
}

// checkRow holds what comes of an input against its row.
func checkRow(t *testing.T, in *input, before Machine, r row) {
	m := before
	if may := in.mayCome(&m); may != (r.state != never) {
		t.Errorf("%s may come: %v (%s)", in.name, may, r.why)
		return
	}
	if r.state == never {
		return
	}
	want := r.state
	if want == stays {
		want = before.state
	}
	got := printed(in.do(&m))
	if m.state != want || got != r.returned {
		t.Errorf("%s: %v and %q, want %v and %q (%s)", in.name, m.state, got, want, r.returned, r.why)
	}
	if r.kept != "" && kept(m) != strings.TrimPrefix(r.kept, none) {
		t.Errorf("%s: left with %s, want %s (%s)", in.name, kept(m), r.kept, r.why)
	}
	if r.state == stays {
		// A line that begins is counted, and whether a Read has begun is noted
		// wherever it does.
		m.commands, m.reading, m.asked = before.commands, before.reading, before.asked
		if m != before {
			t.Errorf("%s changes %v to %v (%s)", in.name, before, m, r.why)
		}
	}
}

// Each state has a situation at least.
func TestTheTableHasEveryState(t *testing.T) {
	at := map[State]bool{}
	for _, s := range all {
		at[s.at] = true
	}
	for s := range State(states) {
		if !at[s] {
			t.Errorf("no situation is at %v", s)
		}
	}
}

func TestTheInputsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, in := range inputs {
		if seen[in.name] || strings.Contains(in.name, ", ") {
			t.Errorf("a bad name: %s", in.name)
		}
		seen[in.name] = true
	}
}

// without returns rows without those for some inputs.
func without(list string, rows ...[]row) []row {
	var left []row
	for _, r := range slices.Concat(rows...) {
		keep := slices.DeleteFunc(named(r.inputs), func(in input) bool {
			return slices.ContainsFunc(named(list), func(not input) bool { return not.name == in.name })
		})
		if len(keep) > 0 {
			r.inputs = names(keep...)
			left = append(left, r)
		}
	}
	return left
}

// Rows that many situations have.
var (
	noTurn = []row{
		{inputs: "begin", state: stays, returned: "not ready", why: "it isn't the client's turn"},
		{inputs: names(slices.Concat(commands, answers, responses)...), state: never, why: "what begins out of turn isn't decided about"},
		{inputs: outOfTurn.name, state: Closing, returned: "send 1, disconnect", why: "but refused, and that's the end"},
	}
	noMessage = []row{
		{inputs: "read", state: stays, why: "what comes next doesn't depend on it"},
		{inputs: "read fails", state: stays, why: "it hasn't read what the client was asked for, and may try again"},
		{inputs: "hand open, hand maybe, hand end", state: stays, returned: "withhold", why: "there is no content for the server"},
		{inputs: "hand part of chunk, hand chunk", state: stays, returned: "false", why: "there is no chunk for the server"},
		{inputs: "hand MAIL", state: stays, returned: "false", why: "none waits for RSET"},
		{inputs: "time up", state: stays, returned: "true", why: "no Write waits for a Read"},
		{inputs: "refuse content", state: stays, why: "there is none"},
		{inputs: "drop rest", state: stays, returned: "0", why: "nothing is dropped"},
	}
	noChunk     = []row{{inputs: names(ofChunk...), state: never, why: "no chunk is dropped"}}
	noHandshake = []row{{inputs: names(ofHandshake...), state: never, why: "nobody has asked for TLS"}}
	noRestart   = []row{{inputs: names(ofRestart...), state: never, why: "no hook is asked"}}
	inExchange  = []row{{inputs: names(ofRestart...), state: never, why: "a hook is asked, but the client waits for what goes on with its exchange"}}
	noRefusal   = []row{{inputs: ofPostponed.name, state: never, why: "the client waits for no greeting"}}
	goesOn      = []row{
		{inputs: "hang up", state: Closing, returned: "500", why: "the library has the last word"},
		{inputs: "write fails", state: Closing, why: "the client would take the next reply for this one"},
		{inputs: "close", state: Over, why: "whoever closes waits for nothing"},
		{inputs: "finish", state: never, why: "the server isn't told of an end yet"},
	}
	// usual rows are those of a state outside a message.
	usual = slices.Concat(noMessage, noChunk, noHandshake, noRestart, noRefusal, goesOn)
	// session rows are those where the library isn't in front of a server.
	session = []row{{inputs: names(ofServer...), state: never, why: "the server reads for itself"}}
	// alone says that a reply to nothing is the last.
	alone = []row{
		{inputs: "reply 220, " + accepting + ", " + intermediate, state: Closing, returned: "lose step",
			why: "the client may take it for the reply to a command that the server will never see"},
		{inputs: negative, state: Over, returned: "forward", why: "RFC 5321 section 3.8: the server's last word"},
	}
)
