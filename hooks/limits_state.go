package hooks

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is what limits remember of a connection.

// limitsStates are those of all Limits that a connection has. The lock is held during each call: with
// smtpproxy.Proxy.HookTimeout, one that was given up may still run beside the next.
type limitsStates struct {
	mu  sync.Mutex
	all []*limitsState
}

// limitsState is what one Limits remembers of a connection.
type limitsState struct {
	of    *limiter
	began time.Time

	levels []level // by limit, of those of a connection alone

	// Who the client is.
	known   bool
	ip      netip.Addr
	network string
	exempt  bool

	held    []held    // by limit, of Connections; nil before the first
	pending []pending // what the command under way has taken, and gets back if it is refused

	// The command under way.
	empty   bool // the line is
	refused bool // by a limit
	octets  int64
	sending []pending // whom its content counts for, of Octets

	content int64 // octets of messages so far
	lines   int64 // octets of lines so far
}

// held is whether a connection is counted, and for whom.
type held struct {
	who    string
	counts bool
}

// pending is what is still to be done for somebody with a limit.
type pending struct {
	rule int
	who  string
}

// state returns what is remembered of the connection, and the lock, which is held.
func (h *limiter) state(ctx *smtpproxy.Context) (s *limitsState, lock *sync.Mutex) {
	states := smtpproxy.State[limitsStates](ctx)
	states.mu.Lock()
	for _, s := range states.all {
		if s.of == h {
			return s, &states.mu
		}
	}
	s = &limitsState{of: h, began: time.Now()}
	if h.needs(func(r *rule) bool { return r.Per == PerConnection }) {
		s.levels = make([]level, len(h.rules))
	}
	states.all = append(states.all, s)
	return s, &states.mu
}

// look finds out who the client is.
func (s *limitsState) look(h *limiter, conn *smtpproxy.Connection) {
	if s.known && s.ip == conn.RemoteIP {
		return
	}
	s.known, s.ip = true, conn.RemoteIP
	ip := conn.RemoteIP.Unmap().WithZone("")
	s.exempt = isIn(h.exempt, ip)
	n := h.bits6
	if ip.Is4() {
		n = h.bits4
	}
	s.network = ""
	if p, err := ip.Prefix(n); err == nil {
		s.network = p.String()
	}
}

// who returns whose bucket of a limit it is. counts is false if nobody's.
func (s *limitsState) who(r *rule, conn *smtpproxy.Connection, txn *smtpproxy.Transaction) (who string, counts bool) {
	switch r.Per {
	case PerConnection:
		return conn.ID, true
	case PerNetwork:
		return s.network, true
	case PerSender:
		switch {
		case txn.Unparsed != "":
			return "<?>", true
		case txn.Sender == "":
			return "<>", txn.Active
		}
		return strings.ToLower(txn.Sender), txn.Active
	case PerLogin:
		return strings.ToLower(conn.Auth.Username), conn.Auth.Mechanism != ""
	}
	return "", true
}

// begin notes a command.
func (s *limitsState) begin(cmd *smtpproxy.Command) {
	s.end()
	s.empty = cmd.Received == ""
	s.lines += int64(len(cmd.Received) + len("\r\n"))
}

// end forgets the command under way.
func (s *limitsState) end() {
	s.empty, s.refused, s.octets = false, false, 0
	s.pending, s.sending = s.pending[:0], s.sending[:0]
}

// giveBack gives back what the command under way has taken.
func (s *limitsState) giveBack(a *asking) {
	for _, p := range s.pending {
		a.charge(p.rule, p.who, -1)
	}
	s.pending = s.pending[:0]
}

// hold returns whether the connection is counted for a limit.
func (s *limitsState) hold(h *limiter, i int) *held {
	if s.held == nil {
		s.held = make([]held, len(h.rules))
	}
	return &s.held[i]
}

// now returns the time of a limit's levels, if that needs one.
func (s *limitsState) now(r *rule) int64 {
	if r.Every == 0 {
		return 0
	}
	return int64(time.Since(s.began))
}
