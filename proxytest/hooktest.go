package proxytest

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// TestHook tests a hook of any kind against what each has to stand, whatever it is for, and
// reports each fault with t.Error. newHook returns a hook that has served nobody yet; it is
// called many times. A test of one's own needs no more:
//
//	func TestTheHookStandsWhateverComes(t *testing.T) {
//		proxytest.TestHook(t, func() smtpproxy.Hook { return newHook(config) })
//	}
//
// Lines come that no well-behaved client sends: without a verb, without arguments, with octets
// that are no UTF-8, of 2,000 octets; all verbs, in any order and at any time, with accepted and
// refused transactions, TLS, SASL exchanges, SMTP and LMTP, and a server that starts afresh (see
// [smtpproxy.Reply].Restart). The hook's optional methods are called as the library calls them,
// since it is the library that does. Clients come at once, and leave while the hook has their
// line. What is a fault:
//
//   - a panic, runtime.Goexit, an error, an invalid decision: for the client each is a 421, so
//     that anybody who sends such a line ends the connection;
//   - a call that takes more than [HookTest].Patience, or goes on when its client has left;
//   - another decision about the same dialogue where other clients come before, between or at
//     once: what the hook remembers of one connection shows on another (see [smtpproxy.State]);
//   - goroutines that are left, more with each connection; a Context, or Keywords, that is kept
//     beyond its call;
//   - a write to what the library has given to the hook, or to a decision that it has returned.
//
// Run it with the race detector (go test -race), which reports by itself what is not locked
// between connections. There is no network: what only a connection tells, Command.Pipelined say,
// is not set, and a Delay isn't waited for. [HookTest] has what may be different for a hook.
func TestHook(t testing.TB, newHook func() smtpproxy.Hook) {
	t.Helper()
	HookTest{}.Run(t, newHook)
}

// HookTest is a [TestHook] for a hook with ways of its own. The zero value is as strict as
// TestHook.
type HookTest struct {
	// Lines are what the clients send, too, one after the other and among the others: those
	// that the hook has something to do with, as a verb of its own, a recipient that it
	// refuses, or an account that it knows ("AUTH PLAIN", and the response on a line of its own).
	Lines []string

	// MayFail lets the hook return errors, as one does whose database isn't there in the test.
	// Panics and invalid decisions are faults still.
	MayFail bool

	// Varies tells that what the hook decides hangs on more than the client's own dialogue: on
	// chance, the clock, or on what all clients do together. What remembering it mixes up isn't
	// looked for then.
	Varies bool

	// NoLMTP leaves LMTP out, for a hook in front of a server that doesn't speak it.
	NoLMTP bool

	// Patience is how long a call of the hook may take. 0 means 5 seconds.
	Patience time.Duration

	grace time.Duration // how long it may take when its client has left; 0 means 2 seconds
}

// Run tests a hook: see [TestHook].
func (h HookTest) Run(t testing.TB, newHook func() smtpproxy.Hook) {
	t.Helper()
	for _, f := range h.try(newHook) {
		t.Error(f)
	}
}

// fault is what is wrong with a hook.
type fault struct {
	kind string // of which a few are enough
	key  string // what is the same in those of a kind of which one is enough
	what string // was done, and came of it
	told string // what was said before, for people to read
	todo string // by the hook's author
}

// String returns a message of a few lines.
func (f fault) String() string {
	var b strings.Builder
	b.WriteString(f.what)
	if f.told != "" {
		b.WriteString("\n    " + strings.ReplaceAll(strings.TrimSuffix(f.told, "\n"), "\n", "\n    "))
	}
	fmt.Fprintf(&b, "\n  -> %s", f.todo)
	return b.String()
}

// Few are enough of a kind.
const fewFaults = 3

// trial is a HookTest under way.
type trial struct {
	HookTest
	newHook func() smtpproxy.Hook
	faults  []fault
	stuck   bool              // a call of the hook doesn't return: there's no going on
	cert    *x509.Certificate // of the clients
}

// try returns what is wrong with a hook.
func (h HookTest) try(newHook func() smtpproxy.Hook) []fault {
	if h.Patience <= 0 {
		h.Patience = 5 * time.Second
	}
	if h.grace <= 0 {
		h.grace = 2 * time.Second
	}
	tr := &trial{HookTest: h, newHook: newHook, cert: clientCertificate()}
	if newHook() == nil {
		return []fault{{"nil", "", "newHook has returned nil", "", "return a hook that has served nobody yet"}}
	}
	for _, part := range []func(*trial){
		(*trial).usual, (*trial).odd, (*trial).anyOrder, (*trial).leaving, (*trial).writes, (*trial).leavings, (*trial).apart,
	} {
		if part(tr); tr.stuck {
			break
		}
	}
	return tr.faults
}

// found takes faults up, a few of each kind.
func (tr *trial) found(faults ...fault) {
	for _, f := range faults {
		same := 0
		for _, known := range tr.faults {
			switch {
			case known.kind == f.kind && known.key == f.key:
				same = fewFaults
			case known.kind == f.kind:
				same++
			}
		}
		if same < fewFaults {
			tr.faults = append(tr.faults, f)
		}
	}
}

// has tells whether a fault of some kinds was found.
func (tr *trial) has(kinds ...string) bool {
	return slices.ContainsFunc(tr.faults, func(f fault) bool { return slices.Contains(kinds, f.kind) })
}
