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
	if d.by == ByHook && q.links != nil {
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

// shown returns the Exchange of a reply, nil if nobody looks. statuses is 0 if it isn't one to
// a message, else how many of those are still to be shown that have moved the machine already,
// this one among them. Its caller holds s.mu, and has moved the machine.
func (s *Session) shown(by Source, r Reply, statuses int) *Exchange {
	t := s.talked()
	if t == nil {
		return nil
	}
	x := &Exchange{
		Command: t.command, Passed: t.passed, Hook: t.hook, Hooked: t.hooked, Octets: t.octets,
		Reply: r, By: by, Recipient: -1,
	}
	x.Reply.Disconnect = r.Disconnect || s.m.State().HasEnded()
	x.Reply.Delay = 0 // that is over
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
	return x
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
	var x *Exchange
	if !s.m.IsRelay() {
		x = s.shown(d.by, d.reply, oneIf(d.message))
	}
	s.mu.Unlock()
	if x == nil {
		return
	}
	if d.copies > 1 {
		x.Recipient = -1 // it is the status of all of them
	}
	v := s.show(x)
	held := max(d.reply.Delay, v.delay)
	if v.changed {
		d.reply = v.reply
	}
	d.reply.Delay = held
	d.reply.Disconnect = d.reply.Disconnect || v.isLast
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.isLast {
		s.endByHook()
	}
	s.watched().replies(d.reply)
}

// showing is what has become of a reply that was shown.
type showing struct {
	reply   Reply // that the client gets
	changed bool  // it isn't the same
	isLast  bool  // a hook has made it the last one
	delay   time.Duration
}

// show shows a reply to the hooks and to the observers. Its caller holds no lock.
func (s *Session) show(x *Exchange) (v showing) {
	if !s.enter(untilOver) {
		return showing{reply: x.Reply}
	}
	defer s.leave()
	base := s.replyContext()
	defer s.endReply(base)
	ctx, cancel := context.Context(base), context.CancelFunc(func() {})
	if limit := s.cfg.HookTimeout; limit > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, limit, ErrHookTimeout)
	}
	defer cancel()
	c := &Context{parent: ctx, state: &s.state}
	defer func() { c.end(s.endOf(ctx)) }()

	s.mu.Lock()
	hooks, t := s.links().replies, s.talked()
	due, closes := t.due, t.closes
	s.mu.Unlock()
	first := x.Reply
	x.Reply.Disconnect = first.Disconnect || closes
	returned, name := false, ""
	defer func() {
		if !returned {
			s.exited(Failure{Err: ErrHookExit, Command: x.Command, Hook: name})
		}
	}()
	for i := len(hooks) - 1; i >= 0; i-- {
		h, y := hooks[i], x.clone()
		name = h.name
		o := s.guard(ctx, func() (Decision, error) { return h.hook.Reply(c, y) })
		if o.failure == nil {
			amended, delay, err := amend(x, o.decision)
			if err == nil {
				v.delay = max(v.delay, delay)
				if amended {
					x.Hook = h.name
				}
				continue
			}
			o.failure = &Failure{Err: err}
		}
		o.failure.Command, o.failure.Hook = x.Command, h.name
		s.logFailure(*o.failure)
	}
	returned = true
	s.observe(func(o *Observer) {
		if o.Exchanged != nil {
			o.Exchanged(c, x.clone())
		}
	})
	v.reply, v.isLast = x.Reply, x.Reply.Disconnect && !first.Disconnect
	v.changed = !x.Reply.reads(&first)
	if v.isLast && due {
		// Who lacks a status sends the message again (RFC 2033 section 4.2).
		s.mu.Lock()
		defer s.mu.Unlock()
		t.closes, v.reply.Disconnect, v.isLast = true, false, false
	}
	return v
}

// clone returns a copy that is whoever's it is shown to: what one does to it, even where it
// has been given up, is nothing to the others.
func (x *Exchange) clone() Exchange {
	y := *x
	y.Reply.Lines = slices.Clone(y.Reply.Lines)
	return y
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

// amend makes of an Exchange's reply what a hook wants of it, if that is valid: see
// ReplyHook.
func amend(x *Exchange, d Decision) (amended bool, delay time.Duration, err error) {
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
