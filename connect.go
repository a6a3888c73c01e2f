package smtpproxy

import (
	"context"
	"fmt"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file is how a connection begins: which hook it has, and what that makes of the
// client.

// begin notes that the connection has begun, at that time: the server has read from it or
// written to it. It chooses the hook, and returns what is noted for the end; nil if nobody is
// told of that. Its caller holds no lock.
func (s *Session) begin(at time.Time) *watch {
	s.begun = true
	s.mu.Lock()
	closed := s.isOver && !s.m.IsRelay()
	s.mu.Unlock()
	if closed {
		return nil // it had ended before
	}
	s.choose()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.links().disconnect) == 0 {
		return nil
	}
	x := s.extras()
	if x.watch == nil {
		x.watch = &watch{began: at}
		if s.isOver {
			s.over() // it was closed meanwhile
		}
	}
	return x.watch
}

// choose asks Proxy.HookFor, once, for the connection's hook.
func (s *Session) choose() {
	f := s.cfg.HookFor
	s.mu.Lock()
	if f == nil || s.more != nil && s.more.own != nil {
		s.mu.Unlock()
		return
	}
	var conn Connection
	s.view(&conn)
	s.mu.Unlock()

	own, failure, exits := s.cfg.links, &Failure{Err: ErrHookExit}, true
	defer func() {
		if failure != nil {
			// What it would have kept out, nobody knows.
			own, _ = linksOf(failing{loggedError{failure.Err}})
			own.probe = s.cfg.links.probe
		}
		s.mu.Lock()
		s.extras().own = own
		s.mu.Unlock()
		switch {
		case exits:
			s.exited(*failure)
		case failure != nil:
			s.logFailure(*failure)
		}
	}()
	var h Hook
	o := guard(func() (Decision, error) {
		h = f(conn)
		return nil, nil
	})
	exits = false
	if failure = o.failure; failure != nil || h == nil {
		return
	}
	var err error
	if own, err = linksOf(h); err != nil {
		failure = &Failure{Err: err}
	}
}

// loggedError is an error that the log has got already.
type loggedError struct{ error }

// Unwrap returns the error.
func (e loggedError) Unwrap() error { return e.error }

// failing is the hook of a connection for which there is none.
type failing struct{ err error }

func (f failing) Command(*Context, Command, Connection, Transaction) (Decision, error) {
	return nil, f.err
}

func (f failing) Connect(*Context, Connection) (Decision, error) { return nil, f.err }

// Connect decides about the client, before it is greeted: it asks a [ConnectHook]. It
// returns a Pass, or the Reply to send in the place of the greeting, with all fields filled
// in, behind which the connection is closed; never nil, never a pointer. ctx is what the
// hook's Context is made from.
//
// A server with a state machine of its own calls it once, before Command. Behind a listener
// the library does.
func (s *Session) Connect(ctx context.Context) Decision {
	s.begin(time.Now())
	r, refused := s.connect(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case refused:
		return r
	case s.m.State().HasEnded():
		return failureReply.filled(dialogue.NoVerb)
	}
	return Pass{}
}

// connectHooks returns the hooks that decide about the client.
func (s *Session) connectHooks() []optional[ConnectHook] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links().connect
}

// connect asks the hooks about the client. If one refuses it, the session ends with the
// reply.
func (s *Session) connect(ctx context.Context) (r Reply, refused bool) {
	hooks := s.connectHooks()
	if len(hooks) == 0 || !s.enter() {
		return Reply{}, false
	}
	defer s.leave()
	s.awaitPTR()
	if t := s.cfg.HookTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	c := s.newContext(ctx)
	returned, name := false, ""
	defer func() {
		if returned {
			s.endContext(c)
			return
		}
		c.end()
		s.exited(Failure{Err: ErrHookExit, Hook: name})
	}()
	conn := s.Connection()
	for _, h := range hooks {
		name = h.name
		r, refused = s.askToConnect(ctx, c, h, conn)
		if refused {
			break
		}
	}
	returned = true
	if refused {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.m.HangUp(dialogue.NoReason)
		s.moved(false)
		s.watched().refused(r)
	}
	return r, refused
}

// askToConnect asks one hook about the client.
func (s *Session) askToConnect(ctx context.Context, c *Context, h optional[ConnectHook], conn Connection) (r Reply, refused bool) {
	o := s.guard(ctx, func() (Decision, error) { return h.hook.Connect(c, conn) })
	if o.failure == nil {
		var err error
		if r, refused, err = checkConnect(o.decision); err == nil {
			return r, refused
		}
		o.failure = &Failure{Err: err}
	}
	o.failure.Hook = h.name
	s.logFailure(*o.failure)
	if instead := s.onFailure(c, o.failure); instead != nil {
		r, refused, err := checkConnect(instead)
		if err == nil {
			return r, refused
		}
		s.logFailure(Failure{Err: err, Hook: h.name})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched().hookFailed(o.failure)
	return failureReply.filled(dialogue.NoVerb), true
}

// checkConnect returns what a decision about the client comes to, if it is valid.
func checkConnect(d Decision) (r Reply, refused bool, err error) {
	pass, reply := partsOf(d)
	switch {
	case reply != nil:
		r = reply.filled(dialogue.NoVerb)
		switch {
		case r.Code < 400:
			return r, false, fmt.Errorf("%w: %d in the place of a greeting", ErrInvalidDecision, r.Code)
		case r.Next:
			return r, false, fmt.Errorf("%w: Next in the place of a greeting", ErrInvalidDecision)
		}
		r.Disconnect = true
		return r, true, r.validate(dialogue.NoVerb, false)
	case pass == nil:
		return r, false, fmt.Errorf("%w: %T", ErrInvalidDecision, d)
	case *pass != Pass{}:
		return r, false, fmt.Errorf("%w: a Pass with a command, or Next, before there is one", ErrInvalidDecision)
	}
	return r, false, nil
}
