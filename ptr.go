package smtpproxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"

	"github.com/seed3262c777/smtpproxy/internal/fcrdns"
)

// identity is what a session can't know at once about who is connected.
type identity struct {
	raw  net.Conn // whose ends are unknown; nil if they are known
	once sync.Once

	// The lookup of the host name, while there is one.
	ctx   context.Context
	found <-chan string

	ptr string // the host name, when it is known
}

// isKnown tells whether there is nothing to wait for. Its caller holds s.mu.
func (u *identity) isKnown() bool { return u == nil || u.raw == nil && u.found == nil }

// learn asks the connection for its ends, if they are unknown, and starts to look up
// the client's host name. Its caller holds no lock.
func (s *Session) learn() {
	s.mu.Lock()
	u := s.who
	s.mu.Unlock()
	if u == nil {
		return
	}
	u.once.Do(func() {
		if u.raw == nil {
			return
		}
		e := endsOf(u.raw)
		if s.cfg.LookupPTR && e.remoteIP.IsValid() {
			u.lookUp(s, e.remoteIP)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conn.ends, u.raw = e, nil
		if u.isKnown() {
			s.who = nil
		}
	})
}

// lookUp starts to look up the client's host name.
func (u *identity) lookUp(s *Session, ip netip.Addr) {
	var r Resolver = net.DefaultResolver
	if s.cfg.Resolver != nil {
		r = s.cfg.Resolver
	}
	timeout := s.cfg.LookupTimeout
	if timeout <= 0 {
		timeout = defaultLookupTimeout
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	found := make(chan string, 1)
	u.ctx, u.found = ctx, found
	go func() {
		defer cancel()
		var name string
		// Whatever the resolver does, whoever waits for the name goes on; a
		// panic would end the process.
		defer func() { found <- name }()
		returned := false
		defer s.guardLookup(&returned)
		name = fcrdns.Lookup(ctx, r, ip)
		returned = true
	}()
}

// guardLookup recovers from a panic of the resolver's: there is no name then, nor
// if it calls runtime.Goexit.
func (s *Session) guardLookup(returned *bool) {
	switch v := recover(); {
	case v != nil:
		s.log(slog.LevelError, "smtpproxy: Resolver panicked",
			slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	case !*returned:
		s.log(slog.LevelError, "smtpproxy: Resolver ended its goroutine")
	}
}

// awaitPTR waits until the client's host name is known, or known to be
// unknown, whatever the resolver does.
func (s *Session) awaitPTR() {
	s.mu.Lock()
	u := s.who
	s.mu.Unlock()
	if u == nil || u.found == nil {
		return
	}
	var name string
	select {
	case name = <-u.found:
	case <-u.ctx.Done():
		select {
		case name = <-u.found: // both were there
		default:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.ptr, u.ctx, u.found = name, nil, nil
}
