package dialogue

import (
	"fmt"
	"math"
	"testing"
)

// commandTurn returns a machine at the client's turn.
func commandTurn(p *Policy, s Start) Machine {
	m := New(p, s)
	m.to(Command)
	return m
}

func TestOneMoreThanTheLimitIsTooMany(t *testing.T) {
	type refusedWith struct {
		Code   int
		Reason Reason
	}
	transaction := Start{Relay: true, Active: true, Recipients: 1}
	for _, tt := range []struct {
		why    string
		policy func(limit int) Policy
		start  Start
		// do does it once more, and returns what that comes to.
		do   func(m *Machine) refusedWith
		want refusedWith
		// ends: the connection ends.
		ends bool
	}{
		{"lines that no server would know what to do with", func(n int) Policy { return Policy{Errors: n} }, Start{Relay: true},
			func(m *Machine) refusedWith {
				o := m.Answered(Answer{Line: Line{Verb: NoVerb}, Code: 500, Nonsense: true})
				return refusedWith{codeOf(o.Instead), m.Reason()}
			}, refusedWith{421, TooMany}, true},
		{"commands", func(n int) Policy { return Policy{Commands: n} }, Start{Relay: true},
			func(m *Machine) refusedWith {
				if m.Begin(NOOP).NotYet == TooMany {
					return refusedWith{TooManyCommands.Code, TooMany}
				}
				return refusedWith{}
			}, refusedWith{421, TooMany}, false},
		{"small chunks", func(n int) Policy { return Policy{SmallChunks: n, Recipients: 1} }, transaction,
			func(m *Machine) refusedWith {
				l := Line{Verb: BDAT, Size: SmallChunk - 1}
				a := m.Passed(l, false, false)
				if m.HandedChunk(int(l.Size)) {
					m.Replied(Reply{Code: 250})
				}
				return refusedWith{codeOf(a.Refusal), a.Reason}
			}, refusedWith{421, TooMany}, false},
		{"recipients", func(n int) Policy { return Policy{Recipients: n} }, Start{Relay: true, Active: true},
			func(m *Machine) refusedWith {
				a := m.Passed(Line{Verb: RCPT, Size: 1}, false, false)
				if a.Do != Refuse {
					m.Replied(Reply{Code: 250})
				}
				return refusedWith{codeOf(a.Refusal), a.Reason}
			}, refusedWith{452, NoReason}, false},
	} {
		for _, limit := range []int{0, 1, 2, 10} {
			t.Run(fmt.Sprint(limit, " ", tt.why), func(t *testing.T) {
				p := tt.policy(limit)
				m := commandTurn(&p, tt.start)
				for i := range limit {
					if got := tt.do(&m); got != (refusedWith{}) || m.state != Command {
						t.Fatalf("number %d: %v, and the dialogue at %v", i+1, got, m.state)
					}
				}
				if got := tt.do(&m); got != tt.want || m.state.HasEnded() != tt.ends {
					t.Errorf("one more: %v, and the dialogue at %v", got, m.state)
				}
			})
		}
		t.Run("no limit: "+tt.why, func(t *testing.T) {
			p := tt.policy(Unlimited)
			m := commandTurn(&p, tt.start)
			m.commands, m.errors = maxCount, maxCount
			for range 1000 {
				if got := tt.do(&m); got != (refusedWith{}) {
					t.Fatal(got)
				}
			}
		})
	}
}

func TestACountStaysAtTheMostThatItHolds(t *testing.T) {
	n := count(maxCount - 1)
	for range 3 {
		n.add()
	}
	if n != maxCount {
		t.Errorf("%d", n)
	}
	for _, tt := range []struct {
		n       count
		limit   int
		exceeds bool
	}{
		{0, 0, false}, {1, 0, true}, {1, 1, false}, {maxCount, maxCount, false}, {maxCount, maxCount - 1, true},
		{maxCount, Unlimited, false},
	} {
		if got := tt.n.exceeds(tt.limit); got != tt.exceeds {
			t.Errorf("%d exceeds %d: %v", tt.n, tt.limit, got)
		}
	}
}

// A chunk of that size is worth its command.
func TestLargeChunksAreNotCounted(t *testing.T) {
	m := commandTurn(&Policy{Recipients: 1}, Start{Relay: true, Active: true, Recipients: 1})
	for range 10 {
		if a := m.Passed(Line{Verb: BDAT, Size: SmallChunk}, false, false); a.Do == Refuse {
			t.Fatal(a)
		}
		m.HandedChunk(SmallChunk)
		m.Replied(Reply{Code: 250})
	}
	if m.msg.octets != 10*SmallChunk {
		t.Errorf("%d octets", m.msg.octets)
	}
}

// The limit of recipients is one of memory, too: long paths use it up sooner.
func TestThePathsOfAllRecipientsTakeABoundedPartOfMemory(t *testing.T) {
	for _, tt := range []struct {
		why   string
		limit int
		paths int64 // so far
		size  int64
		want  int
	}{
		{"as much as there may be", 4, 3 * PathOctets, PathOctets, 0},
		{"one octet more", 4, 3 * PathOctets, PathOctets + 1, 452},
		{"one long path", 4, 0, 4*PathOctets + 1, 452},
		{"no limit", Unlimited, math.MaxInt64 / 2, math.MaxInt32, 0},
		{"so high a limit that its product would overflow", Unlimited / PathOctets, math.MaxInt64 / 2, math.MaxInt32, 0},
		{"the highest limit whose product doesn't", Unlimited/PathOctets - 1, math.MaxInt64 / 2, math.MaxInt64 / 2, 452},
	} {
		m := commandTurn(&Policy{Recipients: tt.limit}, Start{Relay: true, Active: true})
		m.msg.paths = tt.paths
		if a := m.Passed(Line{Verb: RCPT, Size: tt.size}, false, false); codeOf(a.Refusal) != tt.want {
			t.Errorf("%s: %v", tt.why, a)
		}
	}
}

// Refused recipients take no memory.
func TestOnlyAcceptedRecipientsCount(t *testing.T) {
	m := commandTurn(&Policy{Recipients: 1}, Start{Relay: true, Active: true})
	for range 10 {
		if a := m.Passed(Line{Verb: RCPT, Size: PathOctets}, false, false); a.Do != Hand {
			t.Fatal(a)
		}
		m.Replied(Reply{Code: 550})
	}
	if m.msg.recipients != 0 || m.msg.paths != 0 {
		t.Errorf("%d recipients, %d octets", m.msg.recipients, m.msg.paths)
	}
}

func TestAMessageInChunksIsWithinTheSizeThatTheServerHasTold(t *testing.T) {
	const most = int64(math.MaxUint32)
	for _, tt := range []struct {
		why  string
		told int64
		had  int64
		size int64
		want int
	}{
		{"all of it", 10, 0, 10, 0},
		{"one octet more", 10, 0, 11, 552},
		{"what is left", 10, 4, 6, 0},
		{"one octet more than is left", 10, 4, 7, 552},
		{"nothing is left, and nothing comes", 10, 10, 0, 0},
		{"one octet, and nothing is left", 10, 10, 1, 552},
		{"none told: what every server parses", 0, 0, most, 0},
		{"none told: one octet more", 0, 0, most + 1, 552},
		{"none told: chunks add up to more", 0, most, most, 0},
		{"a size beyond what every server parses", 1 << 40, 0, most + 1, 552},
	} {
		m := commandTurn(&Policy{SmallChunks: 1, Recipients: 1}, Start{Relay: true})
		m.Passed(Line{Verb: EHLO}, false, false)
		m.Replied(Reply{Code: 250, Size: tt.told})
		m.msg = message{active: true, recipients: 1, octets: tt.had}
		if a := m.Passed(Line{Verb: BDAT, Size: tt.size}, false, false); codeOf(a.Refusal) != tt.want {
			t.Errorf("%s: %v", tt.why, a)
		}
	}
}

func TestTheSizeIsThatOfTheLastGreeting(t *testing.T) {
	m := commandTurn(&Policy{}, Start{Relay: true})
	for _, tt := range []struct {
		why  string
		verb Verb
		code int
		size int64
		want int64
	}{
		{"EHLO tells one", EHLO, 250, 10, 10},
		{"HELO says nothing of it", HELO, 250, 0, 10},
		{"a refused EHLO, too", EHLO, 550, 20, 10},
		{"LHLO tells another", LHLO, 250, 30, 30},
		{"EHLO tells none", EHLO, 250, 0, 0},
		{"EHLO tells one again", EHLO, 250, 10, 10},
		{"behind XCLIENT another server may be the one", XCLIENT, 220, 0, 0},
	} {
		m.Passed(Line{Verb: tt.verb}, false, false)
		m.Replied(Reply{Code: tt.code, Size: tt.size})
		if m.size != tt.want {
			t.Errorf("%s: %d, want %d", tt.why, m.size, tt.want)
		}
	}
	m.size = 10
	m.to(Handover)
	if m.StartedTLS(); m.size != 0 {
		t.Errorf("behind STARTTLS: %d", m.size)
	}
}

// A server has got what it's there for.
func TestAnAcceptedMessageForgivesErrors(t *testing.T) {
	for _, tt := range []struct {
		why  string
		code int
		want count
	}{
		{"accepted", 250, 0},
		{"refused", 550, 1},
	} {
		m := commandTurn(&Policy{Errors: 1, Recipients: 1}, Start{Relay: true, Active: true, Recipients: 1})
		m.Answered(Answer{Code: 500, Nonsense: true})
		m.Passed(Line{Verb: DATA}, false, false)
		m.Replied(Reply{Code: 354})
		m.to(End)
		m.Replied(Reply{Code: tt.code})
		if m.errors != tt.want || m.state != Command {
			t.Errorf("%s: %d errors, at %v", tt.why, m.errors, m.state)
		}
	}
}

// Lines of a SASL exchange are no commands.
func TestLinesOfAnExchangeAreNotCounted(t *testing.T) {
	m := commandTurn(&Policy{Commands: 1}, Start{Relay: true})
	m.Begin(AUTH)
	m.Passed(Line{Verb: AUTH}, false, false)
	m.Replied(Reply{Code: 334})
	for range 3 {
		if turn := m.Begin(NoVerb); turn.NotYet != NoReason {
			t.Error(turn)
		}
	}
	m.Passed(Line{}, false, false)
	m.Replied(Reply{Code: 235})
	if turn := m.Begin(NOOP); turn.NotYet != TooMany {
		t.Error(turn)
	}
}
