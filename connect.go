package smtpproxy

import (
	"context"
	"fmt"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file is how a connection begins: which hook it has, and what that makes of the
// client.

// begin notes that the connection has begun: the server has read from it or written to
// it. It chooses the hook. Its caller holds no lock.
func (s *Session) begin() {
	s.begun = true
	s.mu.Lock()
	closed := s.isOver && !s.m.IsRelay()
	s.mu.Unlock()
	if closed {
		return // it had ended before
	}
	began := time.Now()
	s.begins(began)
	defer s.hasBegun(began)
	s.connected()
	s.choose()
}

// begins notes that a connection begins, at that time. The end isn't told before hasBegun.
func (s *Session) begins(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.note(at); w != nil {
		w.begins = true
		w.calls++
	}
}

// hasBegun notes that it is known which hook a connection has. It returns what is noted for
// the End.
func (s *Session) hasBegun(at time.Time) *watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.note(at)
	if w != nil && w.begins {
		w.begins = false
		w.calls--
		s.tell(w)
	}
	return w
}

// note notes what somebody is to be told of a connection that began at that time, as far as it
// is known who that is. It returns what is noted for the End. Its caller holds s.mu.
func (s *Session) note(began time.Time) *watch {
	s.begun = true
	l, observed := s.links(), len(s.cfg.Observers) > 0
	if observed || len(l.replies) > 0 {
		if x := s.extras(); x.talk == nil {
			x.talk = new(talk)
		}
	}
	if observed || len(l.disconnect) > 0 {
		if x := s.extras(); x.watch == nil {
			x.watch = &watch{began: began}
			if s.isOver {
				s.over() // it was closed meanwhile
			}
		}
	}
	return s.watched()
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
	if !s.enter(always) { // what it is told of, it is told of before the end
		return
	}
	defer s.leave()

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
// in, behind which the connection is closed; never nil, never a pointer. With Restart set,
// the server greets the client that it tells instead. ctx is what the hook's Context is made
// from.
//
// A server with a state machine of its own calls it once, before Command, and not again
// behind STARTTLS or a Restart. Behind a listener the library does.
func (s *Session) Connect(ctx context.Context) Decision {
	s.begin()
	v := s.connect(ctx, nil)
	if !v.refused {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.m.State().HasEnded():
			return failureReply.filled(dialogue.NoVerb)
		case v.restart == nil:
			return Pass{Delay: v.delay}
		}
		s.restarts(v.restart, false)
		s.hasRestarted()
		r := restartReply(v.restart)
		r.Delay = v.delay
		return r
	}
	d := decision{kind: toClient, by: v.by, reply: v.reply}
	s.showAnswer(&d)
	return d.reply
}

// connectHooks returns the hooks that decide about the client.
func (s *Session) connectHooks() []optional[ConnectHook] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links().connect
}

// verdict is what the hooks decide about a client.
type verdict struct {
	delay   time.Duration // how long the greeting is held back, whoever gives it
	refused bool
	reply   Reply // in its place, filled in
	by      Source
	restart *Origin // who the client is, if that is another
}

// connect asks the hooks about the client, whose connection is looked after if it isn't nil.
// If one refuses it, the session ends.
func (s *Session) connect(ctx context.Context, client *conn) (v verdict) {
	hooks := s.connectHooks()
	if len(hooks) == 0 || !s.enter(untilEnded) {
		return verdict{}
	}
	defer s.leave()
	s.awaitPTR()
	if t := s.cfg.HookTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, ErrHookTimeout)
		defer cancel()
	}
	c := s.newContext(ctx, client)
	returned, name := false, ""
	defer func() {
		if returned {
			s.endContext(ctx, c)
			return
		}
		c.end(calledOff)
		s.exited(Failure{Err: ErrHookExit, Hook: name})
	}()
	for i := range hooks {
		name = hooks[i].name
		delay := v.delay
		v = s.askToConnect(ctx, c, &hooks[i])
		if v.delay = max(v.delay, delay); v.refused || v.restart != nil {
			break
		}
	}
	returned = true
	if v.refused {
		v.reply.Delay = v.delay
		s.mu.Lock()
		defer s.mu.Unlock()
		s.m.HangUp(dialogue.NoReason)
		s.moved(false)
		s.watched().refused(v.reply)
	}
	return v
}

// askToConnect asks one hook about the client.
func (s *Session) askToConnect(ctx context.Context, c *Context, h *optional[ConnectHook]) verdict {
	var conn Connection
	s.see(&conn)
	o := s.guard(ctx, func() (Decision, error) {
		if h.funcs != nil {
			return h.funcs.OnConnect(c, conn)
		}
		return h.hook.Connect(c, conn)
	})
	return s.verdictOf(c, h.name, o)
}

// verdictOf returns what the call of a hook about the client comes to.
func (s *Session) verdictOf(c *Context, name string, o outcome) (v verdict) {
	if o.failure == nil {
		var err error
		if v, err = verdictOf(o.decision); err == nil {
			if v.refused {
				s.refusedBy(name)
			}
			return v
		}
		o.failure = &Failure{Err: err}
	}
	return s.failedToConnect(c, name, o.failure)
}

// refusedBy notes which hook has refused the client.
func (s *Session) refusedBy(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.talked(); t != nil {
		t.hook = name
	}
}

// failedToConnect returns what the failure of a hook about the client comes to.
//
//go:noinline
func (s *Session) failedToConnect(c *Context, name string, f *Failure) verdict {
	f.Hook = name
	s.logFailure(*f)
	if instead := s.onFailure(c, f); instead != nil {
		v, err := verdictOf(instead)
		if err == nil {
			if v.refused {
				s.refusedBy(name)
			}
			return v
		}
		s.logFailure(Failure{Err: err, Hook: name})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched().hookFailed(f)
	return verdict{refused: true, reply: failureReply.filled(dialogue.NoVerb), by: ByFailure}
}

// verdictOf returns what a decision about the client comes to, if it is valid.
func verdictOf(d Decision) (verdict, error) {
	pass, reply := partsOf(d)
	switch {
	case reply != nil && reply.Restart != nil:
		if reply.hasMore() {
			return verdict{}, fmt.Errorf("%w: Restart with something else", ErrInvalidDecision)
		}
		o := *reply.Restart
		return verdict{restart: &o}, o.validate()
	case reply != nil:
		return refusalBy(reply)
	case pass == nil:
		return verdict{}, fmt.Errorf("%w: %T", ErrInvalidDecision, d)
	case pass.Command != "" || pass.Next:
		return verdict{}, fmt.Errorf("%w: a Pass with a command, or Next, before there is one", ErrInvalidDecision)
	}
	return verdict{delay: pass.Delay}, nil
}

// refusalBy returns what a Reply in the place of the greeting comes to. Few connections need the
// stack that it takes.
//
//go:noinline
func refusalBy(reply *Reply) (verdict, error) {
	r := reply.filled(dialogue.NoVerb)
	switch {
	case r.Code < 400:
		return verdict{}, fmt.Errorf("%w: %d in the place of a greeting", ErrInvalidDecision, r.Code)
	case r.Next:
		return verdict{}, fmt.Errorf("%w: Next in the place of a greeting", ErrInvalidDecision)
	}
	r.Disconnect = true
	return verdict{delay: r.Delay, refused: true, reply: r, by: ByHook}, r.validate(dialogue.NoVerb, false)
}
