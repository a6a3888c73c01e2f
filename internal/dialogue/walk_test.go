package dialogue

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// This file walks through all that a Machine can be at, as far as it differs in more
// than counts.

// edge is a change of state.
type edge struct{ from, to State }

// walked is what the walk has found.
type walked struct {
	machines int
	states   map[State]bool
	edges    map[edge]map[string]bool // by the class of the input that makes it
	wrong    []string
}

// apply is what the callers do with an input: a line begins before it is decided
// about, and what the library refuses it answers.
func apply(m *Machine, in *input) (began Turn, returned, answered any) {
	if in.kind == passing || in.kind == answering {
		began = m.Begin(in.line.Verb)
	}
	returned = in.do(m)
	if a, ok := returned.(Admission); ok && a.Do == Refuse {
		answered = m.Answered(Answer{Line: in.line, Code: a.Refusal.Code, Disconnect: a.Refusal.Disconnect, Nonsense: a.Nonsense, Reason: a.Reason})
	}
	return began, returned, answered
}

// fold makes a machine another that does the same, but that has counted less.
func fold(m Machine) Machine {
	m.commands, m.errors = 0, 0
	m.msg.paths, m.msg.smallChunks = 0, min(m.msg.smallChunks, 1)
	m.msg.octets = min(m.msg.octets, 1)
	m.msg.kept = min(m.msg.kept, m.msg.recipients+1)
	if m.msg.status >= 400 {
		m.msg.status = 400
	} else if m.msg.status > 0 {
		m.msg.status = 200
	}
	m.reason = min(m.reason, 1)
	return m
}

// class returns the class of inputs that one belongs to, in the words of the drawing.
// A line that the library refuses is one that is answered.
func (in *input) class(refused bool) string {
	verb, rest, _ := strings.Cut(in.name, " ")
	if refused {
		verb = "answer"
	}
	switch {
	case verb == "pass" && in.line.Verb == STARTTLS:
		return "STARTTLS"
	case verb == "pass" && in.line.Verb == MAIL:
		return "MAIL passed"
	case verb == "pass" && in.line.Verb == BDAT:
		return "BDAT passed"
	case verb == "pass":
		return "passed"
	case verb == "answer" && in.line.Verb == BDAT:
		return "BDAT answered"
	case verb == "answer" && in.code == 334:
		return "answered 334"
	case verb == "answer":
		return "answered"
	case verb == "reply" && in.code >= 400:
		return "4xx or 5xx"
	case verb == "reply" && in.code < 300 && in.code != 220:
		return "2xx"
	case verb == "reply":
		return rest
	}
	return in.name
}

// walk goes from the beginning of a dialogue, inputs in any order, to wherever they
// lead. Nothing follows its end: see TestNothingFollowsTheEnd.
var walk = sync.OnceValue(func() *walked {
	policy := &Policy{OffersTLS: true, SmallChunks: Unlimited, Recipients: 3, Commands: Unlimited, Errors: Unlimited}
	found := &walked{states: map[State]bool{}, edges: map[edge]map[string]bool{}}
	start := New(policy, Start{Relay: true})
	seen := map[Machine]bool{start: true}
	for todo := []Machine{start}; len(todo) > 0; {
		before := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		found.states[before.state] = true
		if before.state.HasEnded() {
			continue
		}
		for i := range inputs {
			in := &inputs[i]
			if !in.mayCome(&before) {
				continue
			}
			m := before
			_, _, answered := apply(&m, in)
			if problem := broken(&before, &m); problem != "" {
				found.wrong = append(found.wrong, in.name+" in "+kept(before)+": "+problem)
			}
			e := edge{before.state, m.state}
			if found.edges[e] == nil {
				found.edges[e] = map[string]bool{}
			}
			found.edges[e][in.class(answered != nil)] = true
			if m = fold(m); !seen[m] {
				seen[m] = true
				todo = append(todo, m)
			}
		}
	}
	found.machines = len(seen)
	return found
})

// broken tells what is wrong with a machine after an input.
func broken(before, m *Machine) string {
	switch {
	case before.state.HasEnded() && !m.state.HasEnded(), before.state == Over && m.state != Over:
		return "there is a way back from the end"
	case m.state == Executing && before.state != Executing && before.state != Chunk && before.state != Reset && !hasTurn(before):
		return "the server has a command, and it wasn't the client's turn"
	case m.has.due < 0 || m.msg.kept < 0 || m.msg.recipients < 0 || m.msg.chunk < 0 || m.msg.owed < 0:
		return "a count below zero"
	case m.msg.active && m.msg.doubtful:
		return "a transaction is there and may be there"
	case !m.msg.active && m.msg.recipients > 0:
		return "recipients without a transaction"
	case m.relay != before.relay || m.policy != before.policy:
		return "what never changes has changed"
	case !m.lmtp && m.msg.owed > 0:
		return "several replies are owed, but not in LMTP"
	case m.state == Unwanted && m.reason == NoReason, m.state == Refusing && m.refusal == NoReason:
		return "it ends, and nobody knows why"
	case (m.state == Cancelling || m.state == DropChunk) && m.after != Command && m.after != OwnResponse:
		return "what follows isn't the client's turn"
	case m.state == Handover && m.after != Greeting && m.after != Regreeting && m.after != Restarting:
		return "what follows is no greeting"
	case m.state == Handover && m.after == Regreeting && !m.relay:
		return "the library shakes hands in the place of a server that does so by itself"
	case m.state == Restarting && before.state != Restarting && before.state != Handover:
		return "the greeting is a reply to a command, and the server has no fresh connection"
	case isAfresh(m) && (m.lmtp || m.auth || m.size != 0 || m.suspect || m.asked || m.statuses || m.msg != message{}):
		return "the server has a fresh connection, and something of the one before is left"
	case before.tls && !m.tls:
		return "there is a way back from TLS"
	case m.state == DropChunk && m.msg.chunk == 0, m.state == Chunk && m.msg.chunk == 0:
		return "a chunk without octets"
	case m.has.last && m.state != Executing && (m.state < Chunk || m.state == DropChunk) || m.state >= Content && m.state < Handover && m.has.verb != BDAT && !m.has.last:
		return "the end of a message is due where there is none, or none is where there is"
	case m.state == Surplus && m.msg.kept == 0:
		return "nothing is accepted, but the rest is handed over"
	case !m.MayReturn() && !m.lmtp:
		return "a Write waits for a Read, but not in LMTP"
	}
	return question(m)
}

// hasTurn tells whether it's the client's turn.
func hasTurn(m *Machine) bool {
	return m.state == Command || m.state == Response || m.state == OwnResponse || m.state == Greeting && !m.relay
}

// isAfresh tells whether the server has a fresh connection, or is about to, and is known
// to have got nothing there.
func isAfresh(m *Machine) bool {
	return m.state == Restarting || m.state == Regreeting || m.state == Handover && m.after != Regreeting
}

// question asks a machine all that can be asked, and tells whether that changes it.
func question(m *Machine) string {
	before := *m
	m.State()
	m.IsRelay()
	m.IsLMTP()
	m.InTLS()
	m.HoldsAUTH()
	m.WantsKeywords()
	m.WantsRecipient()
	m.ChunkLeft()
	m.MayEndInChunk()
	m.IsReading()
	m.MayReturn()
	m.IsAtStop()
	m.Reason()
	if *m != before {
		return "a question changes it"
	}
	return ""
}

func TestWhereverADialogueLeadsItKeepsItsPromises(t *testing.T) {
	found := walk()
	t.Logf("%d machines, %d changes of state", found.machines, len(found.edges))
	for _, wrong := range found.wrong[:min(len(found.wrong), 20)] {
		t.Error(wrong)
	}
}

func TestADialogueCanBeAtEachState(t *testing.T) {
	found := walk()
	for s := range State(states) {
		if !found.states[s] {
			t.Errorf("nothing leads to %v", s)
		}
	}
}

func TestADialogueCanBeOverFromEachState(t *testing.T) {
	found := walk()
	for s := range State(states) {
		ends := found.edges[edge{s, Over}]["close"] && found.edges[edge{s, Closing}]["hang up"] && found.edges[edge{s, Closing}]["write fails"]
		if !s.HasEnded() && !ends {
			t.Errorf("%v goes on: %v", s, slices.Collect(maps.Keys(found.edges[edge{s, Over}])))
		}
	}
}

func TestACommandReachesTheServerOnTheClientsTurnAlone(t *testing.T) {
	for e, classes := range walk().edges {
		switch e.from {
		case Command, Response, Executing:
		case Reset, Chunk:
			if e.to == Executing && (len(classes) != 1 || !classes["hand MAIL"] && !classes["hand chunk"]) {
				t.Errorf("from %v by %v", e.from, slices.Sorted(maps.Keys(classes)))
			}
		default:
			if e.to == Executing {
				t.Errorf("from %v by %v", e.from, slices.Sorted(maps.Keys(classes)))
			}
		}
	}
}

// Whatever comes after the end, the state stays and the server's replies are dropped.
func TestNothingFollowsTheEnd(t *testing.T) {
	for _, s := range all {
		for _, end := range named("hang up, close") {
			m := s.machine()
			end.do(&m)
			if s.at == Over && m.state != Over {
				t.Errorf("%s: %s leads from the end to %v", s.name, end.name, m.state)
			}
			for i := range inputs {
				in, after := &inputs[i], m
				returned := in.do(&after)
				if problem := broken(&m, &after); problem != "" && in.mayCome(&m) {
					t.Errorf("%s, %s, %s: %s", s.name, end.name, in.name, problem)
				}
				if !after.state.HasEnded() {
					t.Errorf("%s, %s, %s: at %v", s.name, end.name, in.name, after.state)
				}
				if step, ok := returned.(Step); ok && step != (Step{Fate: Swallow}) {
					t.Errorf("%s, %s, %s: %s", s.name, end.name, in.name, printed(step))
				}
			}
		}
	}
}
