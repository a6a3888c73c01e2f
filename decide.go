package smtpproxy

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/address"
	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file takes a line of the client's to its decision: the hook's, held to the
// library's rules.

// decision is a Decision that doesn't have to be allocated. Nor has the one
// that Command returns, if its caller doesn't keep it: Command is just small
// enough to be inlined.
//
// It is handed down by a pointer, and so are calls: a connection's goroutine keeps
// the stack that its deepest call needed.
type decision struct {
	// What the connection knows, where there is one:
	conn   *conn  // the client's
	behind behind // what the client has sent behind the line

	kind     kind
	by       Source // of reply
	message  bool   // reply is one to a message
	nonsense bool   // the library has refused it since no server would know what to do with it
	begins   bool   // the content of a message comes next, and none of it has come before
	hold     bool   // reply may wait for other replies, to leave together with them

	why     dialogue.Reason // the library ends the connection
	copies  uint32          // how often reply is sent
	discard int64           // octets to drop before
	reply   Reply           // filled in; of toClient
	pass    Pass            // its Command is what the server gets next, if anything
}

// kind is what becomes of a line.
type kind uint8

const (
	toServer kind = iota // the server gets pass
	toClient             // the client gets reply, and the server perhaps pass
	startTLS             // the library shakes hands with the client
	restart              // the server starts afresh
	tooLate              // the session was over before the decision
)

// answer makes it a reply.
//
//go:noinline
func (d *decision) answer(r *Reply) {
	*d = decision{conn: d.conn, behind: d.behind, kind: toClient, reply: r.filled(dialogue.NoVerb)}
}

// refuse makes it a refusal of the library's own.
//
//go:noinline
func (d *decision) refuse(r *dialogue.Refusal) {
	reply := replyOf(*r)
	d.answer(&reply)
	d.by = ByLibrary
}

// fail makes it the reply after a failed hook.
func (d *decision) fail() {
	d.answer(&failureReply)
	d.by = ByFailure
}

// behind is what the client has sent behind a line already.
type behind uint8

const (
	nothingBehind behind = iota
	octetsBehind
	lineBehind // a whole one
)

// call is a line on its way to a decision.
type call struct {
	cmd    Command // as the next hook gets it
	links  *links
	route  route
	at     int32 // the hook that is called
	failed bool  // a hook has
	looked bool  // a hook has looked at its Context
	next   bool  // a hook has asked for the next line
	delay  time.Duration
	hooked time.Duration // what the hooks took

	verb     dialogue.Verb // of what the client has sent
	behind   behind
	own      bool // an answer to the hook's own challenge
	asksHook bool // the hook is called
	unknown  bool // it isn't known yet who is connected, which the hook is to see
	notYet   dialogue.Reason

	returned bool // the hook has, or what decided in its place
}

// decide fills in d, which must be zero but for what its maker knows: the hook's
// decision, checked, then the library's own rules.
func (s *Session) decide(ctx context.Context, line string, d *decision) {
	var q call
	q.cmd.Line, q.cmd.Received, q.cmd.Pipelined = line, line, d.behind > nothingBehind
	q.behind = d.behind
	if !s.begun {
		s.begin()
	}
	s.beginCall(&q, d.conn)
	switch {
	case q.notYet == dialogue.OutOfTurn:
		d.fail()
		d.why = q.notYet
	case q.notYet == dialogue.TooMany:
		d.refuse(&dialogue.TooManyCommands)
		d.why = q.notYet
	case ascii.IndexControl(line) >= 0:
		d.refuse(&dialogue.ControlCharacter)
		d.nonsense = true
	case q.asksHook:
		if q.unknown {
			s.awaitPTR()
		}
		began := s.now()
		s.ask(ctx, &q, d)
		if q.delay > 0 || q.looked || !began.IsZero() {
			s.waitFor(&q, d.conn, began)
		}
	default:
		d.pass.Command = line
	}
	s.settle(&q, d)
	if d.kind == restart {
		s.restart(ctx, &q, d)
	}
	if d.kind == toClient && d.conn == nil {
		d.reply.Delay = q.delay // also of what the library refuses behind the hook
	}
	if d.kind == toClient && s.more != nil {
		s.showAnswer(d)
	}
	if d.why != dialogue.NoReason {
		s.report()
	}
}

// beginCall completes q, a call for q.cmd, and stops the client's clock, if there is one.
func (s *Session) beginCall(q *call, client *conn) {
	name, verb := dialogue.VerbOf(q.cmd.Received)
	s.mu.Lock()
	defer s.mu.Unlock()
	if client != nil {
		client.client.PauseLocked()
	}
	turn := s.m.Begin(verb)
	if s.owesGreeting() {
		turn.NotYet = dialogue.OutOfTurn
	}
	s.m.SentAhead(q.behind == lineBehind)
	q.cmd.SASL, q.cmd.secret = turn.At.IsSASL(), turn.Secret && !slices.Contains(s.links().verbs, name)
	if q.cmd.SASL {
		name, verb = "", dialogue.NoVerb
	}
	q.verb, q.notYet, q.own = verb, turn.NotYet, turn.At == dialogue.OwnResponse
	q.links = s.links()
	listed := !q.cmd.SASL && q.links.listed(name, s.cfg.verbs)
	if s.more != nil {
		if turn.Asked {
			q.route.askers = &askers{asked: s.more.asked}
		}
		s.more.asked = nil // STARTTLS may have come between
	}
	q.route.only = !listed
	q.asksHook = len(q.links.steps) > 0 && (turn.Asked || listed)
	if q.cmd.secret {
		name = ""
	}
	if q.asksHook {
		q.unknown = !s.who.isKnown()
		s.txn.name() // so that views, for which the stack has less room, needn't
	}
	if s.more != nil {
		s.watched().command(name)
		s.talked().begin(q, s.txn)
	}
	s.copies, s.mustReset = 1, false
}

// settle holds a decision to the library's rules, and moves the session. Inlined, it
// would take stack beneath the hook.
//
//go:noinline
func (s *Session) settle(q *call, d *decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.State().HasEnded() {
		// It was closed meanwhile, or was before.
		d.fail()
		d.kind, d.copies = tooLate, 1
		return
	}
	if q.verb == dialogue.HTTP {
		// A browser can be made to send a request to any port, with lines in it
		// that look like commands.
		if d.kind == toServer {
			r := dialogue.HTTPRequest.Refusal()
			d.refuse(&r)
		}
		d.reply.Disconnect = true
		d.why = dialogue.HTTPRequest
	}
	if d.kind == toServer {
		s.pass(q, d)
	}
	switch d.kind {
	case toClient:
		s.answered(q, d)
	case restart:
		s.restarts(d.reply.Restart, true)
	}
	if s.more != nil {
		s.noteDecided(q, d)
	}
}

// pass completes settle for a line that the hook has passed.
func (s *Session) pass(q *call, d *decision) {
	line := d.pass.Command
	l := dialogue.Line{Verb: q.verb}
	if !q.cmd.SASL {
		if line != q.cmd.Received {
			_, l.Verb = dialogue.VerbOf(line)
		}
		describe(&l, line)
	}
	// Of what a server could read in more ways than one, it gets one form (RFC 5321
	// section 4.1.1: blanks behind a command are none of it).
	switch {
	case l.Verb == dialogue.BDAT && l.Size >= 0:
		line = dialogue.CanonicalBDAT(line)
	case l.Verb == dialogue.STARTTLS:
		line = strings.TrimRight(line, " \t")
	}
	d.pass.Command = line
	if s.more != nil && !q.cmd.SASL {
		if r := s.more.withheld.refusal(l.Verb, line); r != nil {
			next := d.pass.Next
			d.refuse(r)
			d.reply.Next = next
			return
		}
	}
	a := s.m.Passed(l, d.pass.Next, q.behind > nothingBehind)
	d.begins = a.Do == dialogue.HandFirst
	switch a.Do {
	case dialogue.Refuse:
		d.refuse(a.Refusal)
		d.nonsense, d.why = a.Nonsense, a.Reason
		return
	case dialogue.StartTLS:
		d.kind = startTLS
		return
	case dialogue.ResetFirst:
		if s.m.IsRelay() {
			d.pass.Command = dialogue.ResetCommand
		} else {
			s.mustReset = true
		}
	}
	s.keep(l.Verb, line, q.cmd.SASL)
}

// describe completes l, which has its verb, with what the machine has to know of a
// command line.
func describe(l *dialogue.Line, line string) {
	l.Size = int64(len(line))
	switch l.Verb {
	case dialogue.MAIL:
		l.ManyArgs = address.TooManyParams("MAIL", line)
	case dialogue.RCPT:
		l.ManyArgs = address.TooManyParams("RCPT", line)
	case dialogue.BDAT:
		l.Size, l.Last = dialogue.ParseBDAT(line)
	case dialogue.STARTTLS:
		l.ManyArgs = dialogue.ArgsOf(line) != ""
	}
}

// keep keeps what the reply to a passed line will tell of: a command that names
// something, or a SASL exchange for the user name in it. What the line holds of a
// credential is not kept.
func (s *Session) keep(v dialogue.Verb, line string, isSASL bool) {
	s.line = ""
	switch {
	case isSASL:
		if s.exchange != nil {
			s.exchange.Response(line)
		}
		return
	case v == dialogue.AUTH:
		s.exchange = beginExchange(dialogue.ArgsOf(line))
		return
	case v == dialogue.MAIL, v == dialogue.RCPT, v.Greets():
		s.line = line
	}
	s.exchange = nil
}

// answered completes settle for a line that the server doesn't get.
func (s *Session) answered(q *call, d *decision) {
	l := dialogue.Line{Verb: q.verb}
	if q.verb == dialogue.BDAT {
		l.Size, l.Last = dialogue.ParseBDAT(q.cmd.Received)
		d.message = l.Last
	}
	o := s.m.Answered(dialogue.Answer{
		Line: l, Code: d.reply.Code,
		Disconnect: d.reply.Disconnect, Next: d.reply.Next, Nonsense: d.nonsense, Reason: d.why,
	})
	if o.Instead != nil {
		d.refuse(o.Instead)
	}
	d.why = s.m.Reason()
	d.reply.Disconnect = o.Disconnect
	s.copies = uint32(o.Copies)
	d.discard, d.copies, d.hold = o.Discard, s.copies, o.Hold
	d.pass.Command = ""
	if o.Cancels {
		d.pass.Command = dialogue.Cancel
	}
	s.line, s.exchange = "", nil
	s.watched().answered(q, d)
	s.moved(o.Cleared)
}
