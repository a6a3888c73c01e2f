package smtpproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file calls the hook, and holds it to its contract.

// ask calls the hook and makes d its decision, checked; a failure's decision if
// it has none.
func (s *Session) ask(ctx context.Context, q *call, d *decision) {
	if s.cfg.HookTimeout > 0 {
		s.askInTime(ctx, q, d)
		return
	}
	c := s.newContext(ctx)
	defer s.endCall(c, q)
	hooks, failure := guard(func() (Decision, error) { return s.callHook(c, q) })
	s.conclude(c, q, d, hooks, failure)
}

// askInTime is ask with Proxy.HookTimeout.
func (s *Session) askInTime(ctx context.Context, q *call, d *decision) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HookTimeout)
	defer cancel()
	c := s.newContext(ctx)
	defer s.endCall(c, q)
	hooks, failure := s.callInTime(ctx, c, q.cmd)
	s.conclude(c, q, d, hooks, failure)
}

// endCall follows a call of the hook, whatever ended it.
func (s *Session) endCall(c *Context, q *call) {
	if q.returned {
		s.endContext(c)
		return
	}
	// runtime.Goexit: nobody gets the decision any more. The log handler may do so,
	// too.
	c.end()
	s.Close()
	s.logFailure(Failure{Err: ErrHookExit, Command: q.cmd})
}

// conclude makes d of what the call of the hook came to.
func (s *Session) conclude(c *Context, q *call, d *decision, hooks Decision, failure *Failure) {
	if failure == nil {
		if err := s.check(hooks, q, d); err != nil {
			failure = &Failure{Err: err}
		}
	}
	if failure != nil {
		s.failed(c, q, d, failure)
	}
	q.returned = true
}

// callHook calls the hook with what it may see.
func (s *Session) callHook(c *Context, q *call) (Decision, error) {
	var conn Connection
	var txn Transaction
	s.views(&conn, &txn)
	if f, ok := s.cfg.Hook.(HookFunc); ok {
		// Its method would copy all of it once more, and with that the
		// stack of an idle connection would be one of 8 KiB, not of 4.
		return f(c, q.cmd, conn, txn)
	}
	return s.cfg.Hook.Command(c, q.cmd, conn, txn)
}

// views makes conn and txn what a hook sees now. They take much of the stack, so
// that is done at the last moment: see decision. Since it is the client's turn,
// nothing moves the session between beginCall and here but its end.
func (s *Session) views(conn *Connection, txn *Transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view(conn)
	s.txn.view(txn)
}

// failed makes d the decision about a command that the hook failed at.
func (s *Session) failed(c *Context, q *call, d *decision, failure *Failure) {
	*d = decision{} // the check may have left something
	failure.Command = q.cmd
	s.logFailure(*failure)
	if f := s.cfg.OnFailure; f != nil {
		instead, second := guard(func() (Decision, error) { return f(c, *failure), nil })
		if second == nil && instead != nil {
			err := s.check(instead, q, d)
			if err == nil {
				return
			}
			second = &Failure{Err: err}
		}
		if second != nil {
			second.Command = q.cmd
			s.logFailure(*second)
		}
	}
	d.fail()
}

// guard calls a function of the user's. A panic becomes a failure.
// runtime.Goexit goes on ending the goroutine; the results are never seen then.
func guard(f func() (Decision, error)) (d Decision, failure *Failure) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			failure = &Failure{Err: panicError{v}, Stack: debug.Stack()}
		} else {
			// Goexit, or panic(nil) where GODEBUG=panicnil=1.
			failure = &Failure{Err: ErrHookExit}
		}
	}()
	d, err := f()
	returned = true
	if err != nil {
		return nil, &Failure{Err: err}
	}
	return d, nil
}

// callInTime calls the hook on a goroutine of its own, so that the call can be
// given up.
func (s *Session) callInTime(ctx context.Context, c *Context, cmd Command) (Decision, *Failure) {
	type result struct {
		d       Decision
		failure *Failure
	}
	results := make(chan result, 1)
	var conn Connection
	var txn Transaction
	s.views(&conn, &txn) // while they are those before cmd
	go func() {
		r := result{failure: &Failure{Err: ErrHookExit}}
		defer func() { results <- r }()
		r.d, r.failure = guard(func() (Decision, error) { return s.cfg.Hook.Command(c, cmd, conn, txn) })
	}()
	select {
	case r := <-results:
		if ctx.Err() == nil {
			return r.d, r.failure
		}
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, &Failure{Err: ErrHookTimeout}
	}
	return nil, &Failure{Err: ctx.Err()}
}

// newContext returns a Context for one call. One that nobody can have made
// anything of is used again, but never for another session: a hook that keeps it
// in spite of its contract must not see what is another client's.
func (s *Session) newContext(ctx context.Context) *Context {
	c := s.spare
	s.spare = nil
	if c == nil {
		c = &Context{state: &s.state}
	}
	c.begin(ctx)
	return c
}

func (s *Session) endContext(c *Context) {
	if c.end() && s.cfg.HookTimeout <= 0 {
		s.spare = c
	}
}

// check makes d of what a hook returned, if that is valid.
func (s *Session) check(hooks Decision, q *call, d *decision) error {
	switch v := hooks.(type) {
	case nil:
		return s.checkPass(Pass{}, q, d)
	case Pass:
		return s.checkPass(v, q, d)
	case *Pass:
		if v != nil {
			return s.checkPass(*v, q, d)
		}
	case Reply:
		return s.checkReply(v, q, d)
	case *Reply:
		if v != nil {
			return s.checkReply(*v, q, d)
		}
	}
	return fmt.Errorf("%w: %T", ErrInvalidDecision, hooks)
}

func (s *Session) checkReply(r Reply, q *call, d *decision) error {
	d.kind, d.reply = toClient, r.filled(q.verb)
	return d.reply.validate(q.verb, s.isLMTP())
}

func (s *Session) isLMTP() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.IsLMTP()
}

func (s *Session) checkPass(p Pass, q *call, d *decision) error {
	line := p.Command
	limit := s.cfg.lineLimit(q.cmd.SASL)
	switch {
	case q.own:
		// It may be a password, and the server hasn't asked for it.
		return fmt.Errorf("%w: Pass of an answer to the hook's own challenge", ErrInvalidDecision)
	case line == "":
		p.Command = q.cmd.Line
	case len(line) > limit-len("\r\n"):
		return fmt.Errorf("%w: a command of %d octets", ErrInvalidDecision, len(line))
	default:
		if i := ascii.IndexControl(line); i >= 0 {
			return fmt.Errorf("%w: control character %#02x in a command", ErrInvalidDecision, line[i])
		}
		if err := checkCommand(line, q, s.isLMTP()); err != nil {
			return err
		}
	}
	d.pass = p
	return nil
}

// checkCommand tells what is wrong with passing a line in the place of another.
func checkCommand(line string, q *call, lmtp bool) error {
	if q.cmd.SASL {
		return nil
	}
	was, wasLast := dialogue.ParseBDAT(q.cmd.Line)
	now, isLast := dialogue.ParseBDAT(line)
	name, verb := dialogue.VerbOf(line)
	switch {
	case verb == dialogue.NoVerb:
		return fmt.Errorf("%w: a command without a verb", ErrInvalidDecision)
	case (q.verb == dialogue.BDAT || verb == dialogue.BDAT) && (was != now || now < 0):
		return fmt.Errorf("%w: the size of a BDAT chunk changed", ErrInvalidDecision)
	case lmtp && (q.verb == dialogue.RCPT) != (verb == dialogue.RCPT):
		// The client and the server would count different recipients, and
		// with them statuses (RFC 2033 section 4.2).
		return fmt.Errorf("%w: %s in the place of %s in LMTP", ErrInvalidDecision, name, q.cmd.Verb())
	case lmtp && wasLast != isLast:
		// As many as there are recipients follow the last chunk alone (RFC
		// 2033 section 4.3).
		return fmt.Errorf("%w: LAST put in or taken out in LMTP", ErrInvalidDecision)
	case q.verb.Greets() && verb.Greets() && (q.verb == dialogue.LHLO) != (verb == dialogue.LHLO):
		// One of the two would speak LMTP.
		return fmt.Errorf("%w: %s in the place of %s", ErrInvalidDecision, name, q.cmd.Verb())
	}
	return nil
}

func (s *Session) logFailure(f Failure) {
	attrs := []slog.Attr{
		slog.Any("command", f.Command),
		slog.String("error", f.masked()),
	}
	if f.Stack != nil {
		attrs = append(attrs, slog.String("stack", string(f.Stack)))
	}
	level := slog.LevelError
	if errors.Is(f.Err, context.Canceled) {
		level = slog.LevelInfo // the connection was closed meanwhile
	}
	s.log(level, "smtpproxy: hook failed", attrs...)
}
