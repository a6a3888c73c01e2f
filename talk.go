package smtpproxy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file shows replies to who looks at them: hooks that may change them, and observers.

// talk is what a session notes of the command under way, for an Exchange. It is there only
// if somebody looks. The lock for state guards all but turn.
type talk struct {
	// turn is held while user code runs that may look at the connection at the same time
	// as other user code: a hook's Reply, on the goroutine of a Write, and its Command, say.
	turn sync.Mutex

	// What stands in an Exchange: see there.
	command, passed Command
	hook            string
	hooked          time.Duration
	octets          int64

	txn    transaction // before the command
	since  time.Time   // when the server has got the last of it
	status int         // the next status of an LMTP message

	due    bool     // other statuses follow the one that is shown
	closes bool     // a hook ends the connection behind the last of them
	last   *Context // of the hooks that are shown the last reply
}

// talked returns what is noted, nil if nobody looks. Its caller holds s.mu.
func (s *Session) talked() *talk {
	if s.more == nil {
		return nil
	}
	return s.more.talk
}

// begin notes a line of the client's.
func (t *talk) begin(q *call, txn transaction) {
	if t != nil {
		t.reset()
		t.command, t.txn = seen(q.cmd), txn
	}
}

// reset forgets the command before.
func (t *talk) reset() {
	t.command, t.passed, t.hook, t.hooked, t.octets = Command{}, Command{}, "", 0, 0
	t.txn, t.since, t.status = transaction{}, time.Time{}, 0
}

// restarted notes that the server is about to greet once more.
func (t *talk) restarted() {
	if t != nil {
		t.since = time.Now()
	}
}

// seen returns a line as all who look at replies may see it. What is in a line of a SASL
// exchange is for nobody but who has asked for it.
func seen(cmd Command) Command {
	if cmd.SASL {
		return Command{SASL: true, Pipelined: cmd.Pipelined}
	}
	return cmd
}

// noteDecided notes what has become of the line. Its caller holds s.mu.
func (s *Session) noteDecided(q *call, d *decision) {
	t := s.talked()
	if t == nil {
		return
	}
	t.hook, t.hooked = "", q.hooked
	if d.by == ByHook && d.kind != restart && q.links != nil {
		t.hook = q.link().name
	}
	if d.kind == toServer {
		t.passed = q.cmd
		t.passed.Line = d.pass.Command
		if s.m.State() == dialogue.Resetting {
			t.passed.Line = s.line // MAIL: nobody is shown the RSET before it
		}
		t.passed = seen(t.passed)
		t.since = time.Now()
	}
}

// handed notes that the server has got octets of message content.
func (s *Session) handed(octets int) {
	if s.more == nil {
		return // nobody looks: it is set before there is content
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.talked(); t != nil {
		t.octets += int64(octets)
		t.since = time.Now()
	}
}

// looks tells whether somebody looks at replies.
func (s *Session) looks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.talked() != nil
}

// showing is the way of a reply past all who look at it. It is apart from the stack, of
// which an Exchange, which a hook gets by value, takes a fifth of what there is: see decision.
type showing struct {
	x     *Exchange                             // with the reply as it is by now
	first Reply                                 // as it was given
	call  func(*optional[ReplyHook], *Observer) // shows x to one of them

	changed bool // the client reads something else than in the first
	isLast  bool // a hook has made it the last one
	delay   time.Duration

	// While the hooks are called:
	client *conn // that gets the reply, which is sent so if nobody changes it; nil without a listener
	reply  []byte
	base   *Context // that c is made from
	ctx    context.Context
	cancel context.CancelFunc
	c      *Context
	hooks  []optional[ReplyHook] // still to be called
	asked  bool                  // all hooks have been
	over   bool                  // and all observers

	// The one that is shown the reply:
	hook     string   // its name
	lines    []string // the reply's, while it has lines of its own
	decision Decision
	err      error
	failure  *Failure
	returned bool
}

// newShowing returns one of a zero Exchange. That is a variable of a function's, since Go would
// copy one that is behind a pointer twice, and both copies to the stack.
func newShowing() *showing {
	var x Exchange
	v := &showing{x: &x}
	v.call = func(h *optional[ReplyHook], o *Observer) {
		switch {
		case h == nil && o.Exchanged != nil:
			o.Exchanged(v.c, x)
		case h == nil:
		case h.funcs != nil:
			v.decision, v.err = h.funcs.OnReply(v.c, x)
		default:
			v.decision, v.err = h.hook.Reply(v.c, x)
		}
		v.returned = true
	}
	return v
}

// shown returns what is to be shown of a reply, nil if nobody looks. statuses is 0 if it isn't
// one to a message, else how many of those are still to be shown that have moved the machine
// already, this one among them. Its caller holds s.mu, and has moved the machine.
func (s *Session) shown(by Source, r *Reply, statuses int) *showing {
	t := s.talked()
	if t == nil {
		return nil
	}
	v := newShowing()
	x := v.x
	x.Command, x.Passed, x.Hook, x.Hooked, x.Octets = t.command, t.passed, t.hook, t.hooked, t.octets
	x.Reply, x.By, x.Recipient = *r, by, -1
	x.Reply.Disconnect = r.Disconnect || s.m.State().HasEnded()
	x.Reply.Delay = 0 // that is over
	v.first = x.Reply
	if by == ByServer {
		x.Hook = ""
		if !t.since.IsZero() {
			x.Served = time.Since(t.since)
		}
	}
	if statuses > 0 && s.m.IsLMTP() {
		x.Recipient = t.status
		t.status++
	}
	over := s.m.State() == dialogue.Command && statuses <= 1
	t.due = !over && x.Recipient >= 0 && t.status < t.txn.get().Recipients.Len()
	s.view(&x.Connection)
	txn := &s.txn
	if !txn.get().Active && t.txn.get().Active {
		txn = &t.txn
	}
	txn.view(&x.Transaction)
	if over {
		t.reset() // that was all
	}
	return v
}

// oneIf returns 1 for true, else 0.
func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// endByHook notes that a hook ends the connection, with a reply that it has changed. Its
// caller holds s.mu.
func (s *Session) endByHook() {
	if !s.m.State().HasEnded() {
		s.watched().because(SideHook, ReasonRefused, nil)
		s.m.HangUp(dialogue.NoReason)
		s.moved(false)
	}
}

// showAnswer shows the answer to a line, which the server doesn't get, where the library
// doesn't stand in front of the server.
func (s *Session) showAnswer(d *decision) {
	s.mu.Lock()
	var v *showing
	if !s.m.IsRelay() {
		v = s.shown(d.by, &d.reply, oneIf(d.message))
	}
	s.mu.Unlock()
	if v == nil {
		return
	}
	if d.copies > 1 {
		v.x.Recipient = -1 // it is the status of all of them
	}
	s.show(v)
	held, isLast := max(d.reply.Delay, v.delay), d.reply.Disconnect || v.isLast
	if v.changed {
		d.reply = v.x.Reply
	}
	d.reply.Delay, d.reply.Disconnect = held, d.reply.Disconnect || isLast
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.isLast {
		s.endByHook()
	}
	s.watched().replies(d.reply)
}

// show shows a reply to the hooks and to the observers. Its caller holds no lock.
func (s *Session) show(v *showing) {
	if !s.enter(untilOver) {
		return
	}
	defer s.endShowing(v)
	s.beginShowing(v)
	for h := v.next(); h != nil; h = v.next() {
		s.callReply(v, h)
		s.amend(v)
	}
	s.concludeAmending(v)
	for i := range s.cfg.Observers {
		v.lend()
		v.callObserver(&s.cfg.Observers[i])
		s.observed(v)
	}
	v.over = true
}

// next returns the next hook that is shown the reply, nil if all have been.
//
//go:noinline
func (v *showing) next() *optional[ReplyHook] {
	n := len(v.hooks) - 1
	if v.asked = n < 0; v.asked {
		return nil
	}
	h := &v.hooks[n] // the last one of a chain comes first
	v.hooks, v.hook = v.hooks[:n], h.name
	v.lend()
	return h
}

// beginShowing finds those who look at a reply, and makes their Context.
//
//go:noinline
func (s *Session) beginShowing(v *showing) {
	if v.client != nil {
		v.client.client.Pause() // the hooks' time is not the client's
	}
	v.base = s.replyContext()
	v.ctx, v.cancel = v.base, func() {}
	if limit := s.cfg.HookTimeout; limit > 0 {
		v.ctx, v.cancel = context.WithTimeoutCause(v.base, limit, ErrHookTimeout)
	}
	v.c = &Context{parent: v.ctx, state: &s.state}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.x.Reply.Disconnect = v.first.Disconnect || s.talked().closes
	v.hooks = s.links().replies
}

// concludeAmending notes what the hooks have made of a reply, before the observers are told.
//
//go:noinline
func (s *Session) concludeAmending(v *showing) {
	reply := &v.x.Reply
	v.isLast = reply.Disconnect && !v.first.Disconnect
	v.changed = !reply.reads(&v.first)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.talked(); v.isLast && t.due {
		// Who lacks a status sends the message again (RFC 2033 section 4.2).
		t.closes, reply.Disconnect, v.isLast = true, false, false
	}
}

// endShowing follows the calls of those who look at a reply, whatever ended them.
func (s *Session) endShowing(v *showing) {
	if !v.over && v.client != nil {
		defer v.sendAsShown()
	}
	defer s.leave()
	defer s.endReply(v.base)
	defer v.cancel()
	defer func() { v.c.end(s.endOf(v.ctx)) }()
	switch {
	case v.over:
	case v.asked:
		v.takeBack()
		s.observerExited()
	default:
		s.exited(Failure{Err: ErrHookExit, Command: v.x.Command, Hook: v.hook})
	}
}

// lend prepares v for who is shown the reply next, and gives it the lines: what one does to
// them, even where it has been given up, is nothing to the others.
//
//go:noinline
func (v *showing) lend() {
	v.decision, v.err, v.failure, v.returned = nil, nil, nil, false
	v.lines = v.x.Reply.Lines
	v.x.Reply.Lines = slices.Clone(v.lines)
}

// takeBack follows lend.
func (v *showing) takeBack() { v.x.Reply.Lines = v.lines }

// callReply shows a reply to a hook, as callHook does with a line.
func (s *Session) callReply(v *showing, h *optional[ReplyHook]) {
	if s.cfg.HookTimeout > 0 {
		s.replyInTime(v, h)
		return
	}
	defer v.heard()
	v.call(h, nil)
}

// callObserver shows a reply to an observer.
func (v *showing) callObserver(o *Observer) {
	defer v.heard()
	v.call(nil, o)
}

// heard follows the call of one that is shown the reply, whatever ended it.
func (v *showing) heard() {
	if !v.returned {
		v.failure = failureOf(recover())
	}
}

// replyInTime shows a reply to a hook on a goroutine of its own, so that the call can be
// given up.
//
//go:noinline
func (s *Session) replyInTime(v *showing, h *optional[ReplyHook]) {
	c, x := v.c, *v.x
	o := inTime(v.ctx, func() (Decision, error) { return h.hook.Reply(c, x) })
	v.decision, v.failure = o.decision, o.failure
}

// amend makes of a reply what a hook wants of it, if that is valid.
//
//go:noinline
func (s *Session) amend(v *showing) {
	v.takeBack()
	if v.failure == nil && v.err == nil {
		var amends bool
		var delay time.Duration
		if amends, delay, v.err = amended(v.x, v.decision); v.err == nil {
			v.delay = max(v.delay, delay)
			if amends {
				v.x.Hook = v.hook
			}
			return
		}
	}
	f := Failure{Err: v.err}
	if v.failure != nil {
		f = *v.failure
	}
	f.Command, f.Hook = v.x.Command, v.hook
	s.logFailureIn(v.c, f)
}

// observed follows the call of an observer that is shown the reply.
//
//go:noinline
func (s *Session) observed(v *showing) {
	v.takeBack()
	if v.failure != nil {
		p, _ := v.failure.Err.(panicError)
		s.observerPanicked(p.value, v.failure.Stack)
	}
}

// reads tells whether the client reads the same in r and in other.
func (r *Reply) reads(other *Reply) bool {
	return r.Code == other.Code && r.Enhanced == other.Enhanced && slices.Equal(r.Lines, other.Lines)
}

// replyContext returns the Context that those for a reply are made from. The dialogue's own
// is done with its last reply, which has still to be seen: then it is one that is done when
// the server closes the connection.
func (s *Session) replyContext() *Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.talked()
	if s.isOver || t == nil || !s.m.State().HasEnded() {
		return s.ctx
	}
	t.last = &Context{parent: context.Background(), state: &s.state}
	return t.last
}

// endReply follows the call that has made a Context of one by replyContext.
func (s *Session) endReply(base *Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.talked(); t != nil && t.last == base {
		t.last = nil
		base.end(calledOff)
	}
}

// amended makes of an Exchange's reply what a hook wants of it, if that is valid: see
// ReplyHook. It tells whether that is another one.
func amended(x *Exchange, d Decision) (amended bool, delay time.Duration, err error) {
	pass, change := partsOf(d)
	switch {
	case pass != nil && (pass.Command != "" || pass.Next):
		return false, 0, fmt.Errorf("%w: a Pass with a command, or Next, behind a reply", ErrInvalidDecision)
	case pass != nil:
		return false, pass.Delay, nil
	case change == nil:
		return false, 0, fmt.Errorf("%w: %T", ErrInvalidDecision, d)
	case change.Restart != nil:
		return false, 0, fmt.Errorf("%w: Restart behind a reply", ErrInvalidDecision)
	case change.Next && !x.Reply.Next:
		return false, 0, fmt.Errorf("%w: Next behind a reply", ErrInvalidDecision)
	}
	was := &x.Reply
	r := *was
	if change.Code != 0 {
		r.Code = change.Code
	}
	if change.Enhanced != (EnhancedCode{}) {
		r.Enhanced = change.Enhanced
	} else if r.Enhanced != NoEnhancedCode {
		r.Enhanced[0] = r.Code / 100
	}
	if len(change.Lines) > 0 {
		r.Lines = change.Lines
	}
	// In LMTP, a status of 421 that nobody has changed to that is one of several.
	r.Disconnect = r.Disconnect || change.Disconnect || r.Code == 421 && was.Code != 421
	switch {
	case r.reads(was):
		amended = r.Disconnect != was.Disconnect
	case was.Code < 400 && r.Code != was.Code, r.Code/100 < 4 != (was.Code/100 < 4):
		return false, 0, fmt.Errorf("%w: %d changed to %d", ErrInvalidDecision, was.Code, r.Code)
	case was.Code/100 == 3, was.Code == 250 && (greets(x.Command) || greets(x.Passed)):
		return false, 0, fmt.Errorf("%w: a %d to %s changed", ErrInvalidDecision, was.Code, x.Command.Verb())
	default:
		if err := r.validate(dialogue.NoVerb, false); err != nil {
			return false, 0, err
		}
		amended = true
	}
	x.Reply = r
	return amended, change.Delay, nil
}

// parsed returns a reply that is given as it is sent, with the enhanced status code that each
// line begins with in its place (RFC 2034 section 4).
func parsed(code int, lines []string) Reply {
	as := Reply{Code: code, Enhanced: NoEnhancedCode, Lines: lines}
	if code/100 == 3 || len(lines) == 0 {
		return as
	}
	texts := make([]string, len(lines))
	var all EnhancedCode
	for i, line := range lines {
		e, text, ok := cutEnhanced(line)
		if !ok || e[0] != code/100 || i > 0 && e != all {
			return as
		}
		all, texts[i] = e, text
	}
	return Reply{Code: code, Enhanced: all, Lines: texts}
}

// cutEnhanced cuts the enhanced status code off a line: class "." subject "." detail, without
// leading zeros (RFC 3463 section 2).
func cutEnhanced(line string) (e EnhancedCode, text string, ok bool) {
	first, text, _ := strings.Cut(line, " ")
	for i := range e {
		digits, rest, more := strings.Cut(first, ".")
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n > 999 || len(digits) > 1 && digits[0] == '0' || more != (i < 2) {
			return e, line, false
		}
		e[i], first = int(n), rest
	}
	return e, text, true
}

// greets tells whether a command is one by which a client names itself.
func greets(c Command) bool {
	_, verb := dialogue.VerbOf(c.Line)
	return !c.SASL && verb.Greets()
}
