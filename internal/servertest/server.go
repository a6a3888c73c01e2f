// Package servertest has small SMTP servers that keep a record of what they
// did: every command they executed and every message they took. They differ in
// the ways real servers differ, in what ends a line, what ends the content of a
// message and how far ahead they read, so that a test can hold any of them
// against what a client sent.
//
// [Strict], [Lenient], [EarlyRefuser] and [RunAhead] are written by hand and
// speak the same commands: HELO, EHLO, MAIL, RCPT, DATA, BDAT, RSET, NOOP, VRFY,
// AUTH PLAIN and QUIT, with [LMTP] LHLO in the place of the first two. Clients
// and recipients whose name starts with "no" are refused, and the only account is
// "user" with the password "pass". Each Option is one more way in which servers
// differ, most of them seen in one that people use: mhale/smtpd with a MaxSize of
// n is
//
//	Lenient(DotCRLF(), LimitLines(n), KeepEnvelope(), MailAnew())
//
// and bradfitz/go-smtpd with a handler that refuses at n octets is
//
//	Lenient(DotCRLF(), LimitLines(n), KeepBuffer(), KeepEnvelope(), KeepOverHello(), GiveUp())
//
// but for the texts of replies and what they bear with in commands. [GoSMTP] and
// [GoSMTPLMTP] put a backend with the same rules for recipients and accounts
// behind github.com/emersion/go-smtp.
package servertest

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
)

// Server is a server of one dialect. Use a constructor to make one; a Server
// serves any number of listeners and connections until Close.
type Server struct {
	recorder
	options

	serve func(net.Listener) error // accepts until the listener fails
	stop  func()                   // waits for what serve started outside of wg

	mu        sync.Mutex
	closed    bool
	listeners map[*listener]struct{}
	conns     map[net.Conn]struct{}
	wg        sync.WaitGroup // raised only while not closed, or by one it counts
}

func newServer(opts []Option) *Server {
	s := &Server{
		listeners: make(map[*listener]struct{}),
		conns:     make(map[net.Conn]struct{}),
		stop:      func() {},
	}
	s.options.set(opts)
	return s
}

// Serve accepts connections from l and serves them until Close is called,
// which makes it return nil, or until l fails. It closes l.
func (s *Server) Serve(l net.Listener) error {
	tl := &listener{Listener: l, server: s}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return tl.Close()
	}
	s.wg.Add(1)
	s.listeners[tl] = struct{}{}
	s.mu.Unlock()
	defer s.wg.Done()
	defer tl.Close()

	err := s.serve(tl)

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, tl)
	if s.closed {
		return nil
	}
	return err
}

// Close closes the listeners and connections that the server has and waits
// until all its goroutines have ended: what Record returns then is final.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true // nothing is added to the maps from here on
	listeners := slices.Collect(maps.Keys(s.listeners))
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()

	var errs []error
	for _, l := range listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	s.wg.Wait()
	s.stop()
	return errors.Join(errs...)
}

// enter counts the caller as a goroutine that Close waits for, until it calls
// s.wg.Done. It reports false when the server is closed already.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.wg.Add(1)
	}
	return !s.closed
}

// acceptEach returns a serve function that runs handle for each connection;
// handle closes it.
func (s *Server) acceptEach(handle func(net.Conn)) func(net.Listener) error {
	return func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			s.wg.Go(func() {
				defer s.forget(c)
				handle(c)
			})
		}
	}
}

func (s *Server) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// listener notes the connections it accepts, so that Close can close them. The
// connections themselves are handed on as they are.
type listener struct {
	net.Listener
	server *Server
	once   sync.Once
	err    error
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	if l.server.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	l.server.conns[c] = struct{}{}
	return c, nil
}

func (l *listener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
