package smtpproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file calls the hook, and holds it to its contract.

// ask calls the hooks on the line's way, and makes d their decision, checked; a
// failure's decision if one has failed.
func (s *Session) ask(ctx context.Context, q *call, d *decision) {
	if s.more != nil && !s.enter(untilEnded) {
		return
	}
	if s.cfg.HookTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.cfg.HookTimeout, ErrHookTimeout)
		defer cancel()
	}
	c := s.newContext(ctx, d.conn)
	defer s.endCall(c, q)
	d.pass.Command = q.cmd.Line
	for d.kind == toServer && !q.failed && q.goOn() {
		if unasked := !q.route.asked(int(q.at)); s.state.unasked.Load() != unasked {
			s.state.unasked.Store(unasked)
		}
		// Nothing returned is Pass, which changes nothing, but for an answer to the hook's own
		// challenge, which nobody may pass.
		if o := s.callHook(ctx, c, q); o.decision != nil || o.failure != nil || q.own || q.links.probe != nil {
			s.conclude(ctx, c, q, d, o)
		}
	}
	q.looked = !s.endContext(ctx, c)
	q.returned = true
}

// goOn goes on to the next hook, if there is one.
func (q *call) goOn() bool {
	q.at = int32(q.links.next(&q.route, q.cmd.Line))
	return q.at >= 0
}

// outcome is what the call of a hook has come to.
type outcome struct {
	decision Decision
	failure  *Failure
}

// conclude makes d of what the call of a hook came to, if that is more than a Pass of the line as it
// is.
//
//go:noinline
func (s *Session) conclude(ctx context.Context, c *Context, q *call, d *decision, o outcome) {
	if q.links.probe != nil {
		q.links.tellProbe(ctx, q, o)
	}
	if o.failure == nil {
		if err := s.check(o.decision, q, d); err != nil {
			o.failure = &Failure{Err: err}
		}
	}
	if o.failure != nil {
		s.failed(c, q, d, o.failure)
	}
}

// endCall follows the calls of hooks for a line, whatever ended them.
func (s *Session) endCall(c *Context, q *call) {
	if s.more != nil {
		defer s.leave()
	}
	if q.returned {
		return
	}
	c.end(calledOff)
	s.exited(Failure{Err: ErrHookExit, Command: q.cmd, Hook: q.link().name})
}

// exited follows a hook that has called runtime.Goexit: nobody gets its decision any more.
// The log handler may do so, too.
func (s *Session) exited(f Failure) {
	s.mu.Lock()
	s.watched().hookFailed(&f)
	s.m.Close()
	s.moved(false)
	s.mu.Unlock()
	s.logFailure(f)
}

// link returns the hook that is called.
func (q *call) link() *link { return &q.links.steps[q.at].link }

// callHook calls a hook with what it may see. A panic becomes a failure. runtime.Goexit
// goes on ending the goroutine; the outcome is never seen then.
//
// What the hook may see takes much of the stack, so that is got at the last moment: see
// decision. Since it is the client's turn, nothing moves the session between beginCall
// and here but its end.
func (s *Session) callHook(ctx context.Context, c *Context, q *call) (o outcome) {
	if s.cfg.HookTimeout > 0 {
		return s.callInTime(ctx, c, q)
	}
	returned := false
	defer func() {
		if !returned {
			o = outcome{nil, failureOf(recover())}
		}
	}()
	var conn Connection
	var txn Transaction
	s.views(&conn, &txn)
	cmd := q.cmd
	var err error
	if l := q.link(); l.f != nil {
		// Its method would copy all of it once more, and with that the
		// stack of an idle connection would be one of 8 KiB, not of 4.
		o.decision, err = l.f(c, cmd, conn, txn)
	} else {
		o.decision, err = l.hook.Command(c, cmd, conn, txn)
	}
	returned = true
	if err != nil {
		return outcome{nil, &Failure{Err: err}}
	}
	return o
}

// views makes conn and txn, which must be zero, what a hook sees now.
func (s *Session) views(conn *Connection, txn *Transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view(conn)
	s.txn.view(txn)
}

// failureOf returns the failure by a panic with the value v; nil stands for
// runtime.Goexit, or panic(nil) where GODEBUG=panicnil=1.
func failureOf(v any) *Failure {
	if v == nil {
		return &Failure{Err: ErrHookExit}
	}
	return &Failure{Err: panicError{v}, Stack: debug.Stack()}
}

// failed makes d the decision about a command that the hook failed at.
func (s *Session) failed(c *Context, q *call, d *decision, failure *Failure) {
	*d = decision{conn: d.conn} // the check may have left something
	q.failed = true
	failure.about(q)
	s.logFailure(*failure)
	if instead := s.onFailure(c, failure); instead != nil {
		err := s.check(instead, q, d)
		if err == nil {
			return
		}
		s.logFailure(Failure{Err: err, Command: q.cmd, Hook: failure.Hook})
	}
	s.mu.Lock()
	s.watched().hookFailed(failure)
	s.mu.Unlock()
	d.fail()
}

// onFailure asks Proxy.OnFailure what to do instead; nil is the 421.
func (s *Session) onFailure(c *Context, failure *Failure) Decision {
	f := s.cfg.OnFailure
	if f == nil {
		return nil
	}
	o := guard(func() (Decision, error) { return f(c, *failure), nil })
	if o.failure != nil {
		o.failure.Command, o.failure.Hook = failure.Command, failure.Hook
		s.logFailure(*o.failure)
	}
	return o.decision
}

// about completes a failure: at what command, and which hook.
func (f *Failure) about(q *call) {
	f.Command, f.Hook = q.cmd, q.link().name
	var inner *namedError
	if errors.As(f.Err, &inner) {
		f.Hook = inner.hook
	}
}

// guard calls a function of the user's. A panic becomes a failure.
// runtime.Goexit goes on ending the goroutine; the outcome is never seen then.
func guard(f func() (Decision, error)) (o outcome) {
	returned := false
	defer func() {
		if !returned {
			o = outcome{nil, failureOf(recover())}
		}
	}()
	d, err := f()
	returned = true
	if err != nil {
		return outcome{nil, &Failure{Err: err}}
	}
	return outcome{d, nil}
}

// callInTime calls a hook on a goroutine of its own, so that the call can be given up.
//
//go:noinline
func (s *Session) callInTime(ctx context.Context, c *Context, q *call) outcome {
	hook, cmd := q.link().hook, q.cmd
	var conn Connection
	var txn Transaction
	s.views(&conn, &txn)
	return inTime(ctx, func() (Decision, error) { return hook.Command(c, cmd, conn, txn) })
}

// guard is the function guard, in Proxy.HookTimeout, which ctx has.
func (s *Session) guard(ctx context.Context, f func() (Decision, error)) outcome {
	if s.cfg.HookTimeout > 0 {
		return inTime(ctx, f)
	}
	return guard(f)
}

// inTime is guard, but gives up when ctx is done. A call that is given up has begun: the
// hook was shown what Proxy.OnFailure may pass, and what comes behind, as the end of the
// connection, comes behind it.
func inTime(ctx context.Context, f func() (Decision, error)) outcome {
	begun, outcomes := make(chan struct{}), make(chan outcome, 1)
	go func() {
		close(begun)
		o := outcome{failure: &Failure{Err: ErrHookExit}}
		defer func() { outcomes <- o }()
		o = guard(f)
	}()
	select {
	case o := <-outcomes:
		if ctx.Err() == nil || context.Cause(ctx) == ErrClientGone {
			return o
		}
	case <-ctx.Done():
		<-begun
		if o, ok := afterClient(ctx, outcomes); ok {
			return o
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return outcome{failure: &Failure{Err: ErrHookTimeout}}
	}
	return outcome{failure: &Failure{Err: ctx.Err()}}
}

// afterClient goes on waiting for a hook whose client has left, which is no failure, as long
// as there's time.
func afterClient(ctx context.Context, outcomes <-chan outcome) (o outcome, ok bool) {
	if context.Cause(ctx) != ErrClientGone {
		return o, false
	}
	at, _ := ctx.Deadline()
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case o = <-outcomes:
		return o, true
	case <-t.C:
		return outcome{failure: &Failure{Err: ErrHookTimeout}}, true
	}
}

// newContext returns a Context for one call. One that nobody can have made
// anything of is used again, but never for another session: a hook that keeps it
// in spite of its contract must not see what is another client's.
func (s *Session) newContext(ctx context.Context, client *conn) *Context {
	c := s.spare
	s.spare = nil
	if c == nil {
		c = &Context{state: &s.state}
	}
	c.begin(ctx, client)
	return c
}

// endContext ends a Context that was made from ctx. It returns whether nobody has made
// anything of it.
func (s *Session) endContext(ctx context.Context, c *Context) (unused bool) {
	if unused = c.end(s.endOf(ctx)); unused && s.cfg.HookTimeout <= 0 {
		s.spare = c
	}
	return unused
}

// endOf returns how a Context ends that was made from ctx: a call that has been given up
// may still look why.
func (s *Session) endOf(ctx context.Context) *standard {
	if s.cfg.HookTimeout <= 0 {
		return calledOff
	}
	return endLike(ctx)
}

// endLike returns the end of a Context that has ended as ctx has, calledOff if that hasn't.
func endLike(ctx context.Context) *standard {
	if cause := context.Cause(ctx); cause != nil {
		return endedBy(cause)
	}
	return calledOff
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
	if r.Restart != nil {
		return s.checkRestart(&r, q, d)
	}
	d.kind, d.by, d.reply = toClient, ByHook, r.filled(q.verb)
	if err := d.reply.validate(q.verb, s.isLMTP()); err != nil {
		return err
	}
	if r.Next || d.reply.Code == 334 {
		s.asksForNext(q, d.reply.Code == 334)
	}
	q.delay = max(q.delay, r.Delay)
	d.reply.Next, d.reply.Delay = q.next, q.delay
	return nil
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
	if p.Next {
		s.asksForNext(q, false)
	}
	q.delay = max(q.delay, p.Delay)
	d.pass = Pass{Command: p.Command, Next: q.next, Delay: q.delay}
	q.cmd.Line = p.Command
	return nil
}

// asksForNext notes that the hook that is called has asked for the next line. alone tells
// that nobody else gets it.
func (s *Session) asksForNext(q *call, alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.extras()
	if alone {
		x.asked = nil
	}
	x.asked = append(x.asked, int(q.at))
	q.next = true
}

// checkCommand tells what is wrong with passing a line in the place of another.
func checkCommand(line string, q *call, lmtp bool) error {
	if q.cmd.SASL {
		return nil
	}
	was, wasLast := dialogue.ParseBDAT(q.cmd.Received)
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
		return fmt.Errorf("%w: %s in the place of %s in LMTP", ErrInvalidDecision, name, verbName(q.cmd.Received))
	case lmtp && wasLast != isLast:
		// As many as there are recipients follow the last chunk alone (RFC
		// 2033 section 4.3).
		return fmt.Errorf("%w: LAST put in or taken out in LMTP", ErrInvalidDecision)
	case q.verb.Greets() && verb.Greets() && (q.verb == dialogue.LHLO) != (verb == dialogue.LHLO):
		// One of the two would speak LMTP.
		return fmt.Errorf("%w: %s in the place of %s", ErrInvalidDecision, name, verbName(q.cmd.Received))
	}
	return nil
}

// logFailure logs a failure, and tells it.
func (s *Session) logFailure(f Failure) { s.logFailureIn(s.ctx, f) }

// logFailureIn is logFailure with the Context with which observers are told.
func (s *Session) logFailureIn(c *Context, f Failure) {
	if errors.As(f.Err, new(loggedError)) {
		return
	}
	var attrs []slog.Attr
	if f.Command.Line != "" {
		attrs = append(attrs, slog.Any("command", f.Command))
	}
	attrs = append(attrs, slog.String("error", f.masked()))
	if f.Hook != "" {
		attrs = append(attrs, slog.String("hook", f.Hook))
	}
	if f.Stack != nil {
		attrs = append(attrs, slog.String("stack", string(f.Stack)))
	}
	level := slog.LevelError
	for _, end := range []error{context.Canceled, ErrClosed, ErrClientGone} {
		if errors.Is(f.Err, end) {
			level = slog.LevelInfo // the hook has given up, since it was called off
		}
	}
	s.log(level, "smtpproxy: hook failed", attrs...)
	s.observeFailure(c, f)
}
