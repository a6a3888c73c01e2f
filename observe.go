package smtpproxy

import (
	"log/slog"
	"runtime/debug"
)

// This file tells observers.

// observe calls f for each observer. A panic is nothing to the others.
func (s *Session) observe(f func(*Observer)) {
	for i := range s.cfg.Observers {
		s.observeOne(&s.cfg.Observers[i], f)
	}
}

func (s *Session) observeOne(o *Observer, f func(*Observer)) {
	returned := false
	defer func() {
		v := recover()
		switch {
		case v != nil:
			s.observerPanicked(v, debug.Stack())
		case !returned:
			s.observerExited()
		}
	}()
	f(o)
	returned = true
}

func (s *Session) observerPanicked(v any, stack []byte) {
	s.log(slog.LevelError, "smtpproxy: observer panicked", slog.Any("panic", v), slog.String("stack", string(stack)))
}

func (s *Session) observerExited() {
	s.log(slog.LevelError, "smtpproxy: observer called runtime.Goexit")
}

// connected tells that the connection has begun.
func (s *Session) connected() {
	if len(s.cfg.Observers) == 0 || !s.enter(always) {
		return
	}
	defer s.leave()
	conn := s.Connection()
	s.observe(func(o *Observer) {
		if o.Connected != nil {
			o.Connected(s.ctx, conn)
		}
	})
}

// observeTLS tells that a handshake is over.
func (s *Session) observeTLS(err error) {
	if len(s.cfg.Observers) == 0 || !s.enter(always) {
		return
	}
	defer s.leave()
	conn := s.Connection()
	s.observe(func(o *Observer) {
		if o.StartedTLS != nil {
			o.StartedTLS(s.ctx, conn, err)
		}
	})
}

// observeFailure tells that the hook has failed.
func (s *Session) observeFailure(c *Context, f Failure) {
	s.observe(func(o *Observer) {
		if o.Failed != nil {
			o.Failed(c, f)
		}
	})
}
