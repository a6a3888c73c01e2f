package smtpproxy

import (
	"context"
	"log/slog"
	"net"
	"runtime/debug"

	"github.com/seed3262c777/smtpproxy/internal/fcrdns"
)

// lookupPTR starts to look up the client's host name.
func (s *Session) lookupPTR() {
	var r Resolver = net.DefaultResolver
	if s.cfg.Resolver != nil {
		r = s.cfg.Resolver
	}
	timeout := s.cfg.LookupTimeout
	if timeout <= 0 {
		timeout = defaultLookupTimeout
	}
	ip := s.conn.remoteIP
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	found := make(chan string, 1)
	s.ptr = &lookup{ctx, found}
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
			slog.String("connection", s.conn.id), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	case !*returned:
		s.log(slog.LevelError, "smtpproxy: Resolver ended its goroutine", slog.String("connection", s.conn.id))
	}
}

// lookup is a lookup under way.
type lookup struct {
	ctx   context.Context
	found <-chan string
}

// awaitPTR waits until the client's host name is known, or known to be
// unknown, whatever the resolver does. Its caller holds s.mu, which is released
// meanwhile.
func (s *Session) awaitPTR() {
	l := s.ptr
	s.ptr = nil
	s.mu.Unlock()
	var name string
	select {
	case name = <-l.found:
	case <-l.ctx.Done():
		select {
		case name = <-l.found: // both were there
		default:
		}
	}
	s.mu.Lock()
	s.conn.ptr = name
}
