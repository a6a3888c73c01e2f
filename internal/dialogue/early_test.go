package dialogue

import (
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file is about what a server does at the same moment on two goroutines.

// inLMTPContent returns a machine at the content of an LMTP message with that many
// recipients, which a Read of the server's waits for.
func inLMTPContent(t *testing.T, recipients int) *Machine {
	t.Helper()
	m := New(&Policy{Commands: Unlimited, Recipients: Unlimited}, Start{Relay: true, LMTP: true, Active: true, Recipients: recipients})
	m.Replied(Reply{Code: 220})
	m.ReadBegins()
	m.Begin(DATA)
	m.Passed(Line{Verb: DATA}, false, false)
	m.Replied(Reply{Code: 354})
	m.ReadBegins()
	if m.State() != Content {
		t.Fatalf("the machine is at %v", m.State())
	}
	return &m
}

// A Read that has handed over what may be the end is under way up to its last
// instruction. That doesn't mean that the server reads on.
func TestTheReadThatHasHandedOverWhatMayBeTheEndIsNotAServerThatReadsOn(t *testing.T) {
	for _, tt := range []struct {
		why        string
		recipients int
		handed     wire.Stop // by a Read that has got something, if got
		got        bool
		want       State
	}{
		{"a Read hands over what may be the end", 2, wire.Maybe, true, Undecided},
		{"a Read waits for content", 2, 0, false, Content},
		{"a Read has got content, none waits for more", 2, wire.Open, true, Undecided},
		// All that was due has come. Its Write waits to see who reads the rest.
		{"the last status, a Read hands over what may be the end", 1, wire.Maybe, true, Undecided},
		{"the last status, a Read waits for content", 1, 0, false, ReadOn},
		{"the last status, no Read waits for more", 1, wire.Open, true, Undecided},
	} {
		t.Run(tt.why, func(t *testing.T) {
			m := inLMTPContent(t, tt.recipients)
			if tt.got {
				m.Handed(tt.handed)
			}
			if step := m.Replied(Reply{Code: 550}); step.Fate != Forward {
				t.Errorf("the refusal's fate is %v", step.Fate)
			}
			if got := m.State(); got != tt.want {
				t.Errorf("the machine is at %v, not at %v", got, tt.want)
			}
		})
	}
}
