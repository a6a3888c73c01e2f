package hooks

import (
	"math"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file counts, and refuses.

// connect counts a client that connects, or that another turns out to be.
func (h *limiter) connect(ctx *smtpproxy.Context, conn *smtpproxy.Connection) (smtpproxy.Decision, error) {
	s, lock := h.state(ctx)
	defer lock.Unlock()
	s.look(h, conn)
	a := asking{h: h, s: s, ctx: ctx}
	for i := range h.rules {
		r := &h.rules[i]
		if !r.atConnect() {
			continue
		}
		who, _ := s.who(r, conn, nil)
		a.holds(i, who, !s.exempt)
	}
	return a.decision()
}

// command asks whether a command is within the limits.
func (h *limiter) command(ctx *smtpproxy.Context, cmd *smtpproxy.Command, conn *smtpproxy.Connection, txn *smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.SASL {
		return nil, nil
	}
	s, lock := h.state(ctx)
	defer lock.Unlock()
	s.look(h, conn)
	s.begin(cmd)
	verb := cmd.Verb()
	if s.exempt || verb == "QUIT" && strings.TrimRight(cmd.Args(), " \t") == "" {
		return nil, nil
	}
	a := asking{h: h, s: s, ctx: ctx}
	for i := range h.rules {
		r := &h.rules[i]
		if r.atConnect() {
			continue
		}
		who, counts := s.who(r, conn, txn)
		if r.What == Connections {
			a.holds(i, who, counts)
		} else if n, asked := r.takes(verb, cmd, conn, txn); asked && counts {
			a.takes(i, who, n)
			if r.What == Octets && r.Per != PerConnection && verb != "MAIL" && verb != "RCPT" {
				s.sending = append(s.sending, pending{i, who})
			}
		}
	}
	if a.refuses() {
		s.giveBack(&a)
		s.end()
		s.refused = true
	}
	return a.decision()
}

// takes returns how many tokens a command takes before it is passed: 0 asks whether there
// is one. asked is false for one that the limit isn't about.
func (r *rule) takes(verb string, cmd *smtpproxy.Command, conn *smtpproxy.Connection, txn *smtpproxy.Transaction) (n int, asked bool) {
	switch r.What {
	case Commands:
		return 1, true
	case Unauthenticated:
		return 1, conn.Auth.Mechanism == "" && verb != "AUTH"
	case Errors, UnknownVerbs, Time:
		return 0, true
	case FailedAUTH:
		return 0, verb == "AUTH"
	case WrongRecipients:
		return 0, verb == "RCPT"
	case Recipients:
		return 1, verb == "RCPT"
	}
	// Messages and Octets.
	switch verb {
	case "MAIL":
		return 0, true
	case "RCPT":
		return 0, r.Per == PerSender && txn.Recipients.Len() == 0
	case "DATA":
		return r.perMessage(), true
	case "BDAT":
		if !isLast(cmd) {
			return 0, r.What == Octets
		}
		return r.perMessage(), true
	}
	return 0, false
}

// perMessage returns how many tokens a message takes before it is passed.
func (r *rule) perMessage() int {
	if r.What == Messages {
		return 1
	}
	return 0
}

// isLast tells whether a BDAT command is one of a last chunk, if any.
func isLast(cmd *smtpproxy.Command) bool {
	args := strings.TrimRight(cmd.Args(), " \t")
	return len(args) >= len("LAST") && strings.EqualFold(args[len(args)-len("LAST"):], "LAST")
}

// reply counts what a reply tells.
func (h *limiter) reply(ctx *smtpproxy.Context, x *smtpproxy.Exchange) {
	s, lock := h.state(ctx)
	defer lock.Unlock()
	if x.Reply.Code/100 == 3 {
		return // it goes on
	}
	last := x.Recipient < 0 || x.Recipient+1 >= x.Transaction.Recipients.Len()
	if last {
		defer s.end()
	}
	s.look(h, &x.Connection)
	a := asking{h: h, s: s, ctx: ctx}
	switch negative := x.Reply.Code >= 400; {
	case !negative:
		s.pending = s.pending[:0] // they count
	case last:
		s.giveBack(&a)
	}
	octets := x.Octets - s.octets
	s.octets, s.content = x.Octets, s.content+octets
	if s.exempt || x.Command.Received == "" && !x.Command.SASL && !s.empty {
		return // a greeting, or a last word that nobody has asked for
	}
	for i := range h.rules {
		r := &h.rules[i]
		n := 0
		if r.What == Octets {
			n = int(min(octets, math.MaxInt))
		} else if !s.refused {
			n = r.What.in(x)
		}
		if n <= 0 {
			continue
		}
		if who, counts := s.who(r, &x.Connection, &x.Transaction); counts {
			a.charge(i, who, n)
		}
	}
}

// in returns how much of it there is in a reply, of what only replies tell.
func (c Counted) in(x *smtpproxy.Exchange) int {
	code, verb := x.Reply.Code, x.Command.Verb()
	is := code >= 400
	switch c {
	case Errors:
	case UnknownVerbs:
		is = code >= 500 && code <= 502 && !x.Command.SASL && !isKnown(verb)
	case WrongRecipients:
		is = code >= 500 && verb == "RCPT" && x.Transaction.Active
	case FailedAUTH:
		is = is && (verb == "AUTH" || x.Command.SASL) && judges(code)
	default:
		is = false
	}
	if is {
		return 1
	}
	return 0
}

// isKnown tells whether a verb is one of SMTP's that a server knows of, and may refuse with
// 502, as it does with what is out of order.
func isKnown(verb string) bool {
	switch verb {
	case "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "AUTH", "STARTTLS", "VRFY", "EXPN", "HELP", "ETRN":
		return true
	}
	return false
}

// judges tells whether a negative reply to AUTH may say that a password is wrong.
func judges(code int) bool {
	switch code {
	case 500, 501, 502, 503, 504, 523, 530, 538:
		return false
	}
	return true
}

// disconnect gives back what a connection has held, and counts what has come of a message that
// was broken off.
func (h *limiter) disconnect(ctx *smtpproxy.Context, end *smtpproxy.End) {
	s, lock := h.state(ctx)
	defer lock.Unlock()
	a := asking{h: h, s: s, ctx: ctx}
	for i := range h.rules {
		if r := &h.rules[i]; r.What == Connections && r.Every == 0 {
			a.holds(i, "", false)
		}
	}
	if rest := end.Received - s.lines - s.content; rest > 0 {
		for _, p := range s.sending {
			a.charge(p.rule, p.who, int(min(rest, math.MaxInt)))
		}
	}
}

// asking is one call of the hook, and what it comes to.
type asking struct {
	h     *limiter
	s     *limitsState
	ctx   *smtpproxy.Context
	v     verdict
	found bool // there is something to decide
	err   error

	away    bool               // the store is, and isn't asked again in this call
	without smtpproxy.Decision // what OnAway has returned then, until it is decided
}

// refuses tells whether what is asked about is refused.
func (a *asking) refuses() bool { return a.err != nil || a.found && !a.v.passes }

func (a *asking) decision() (smtpproxy.Decision, error) {
	switch {
	case a.err != nil:
		return nil, a.err
	case !a.found:
		return nil, nil
	case a.v.passes:
		return smtpproxy.Pass{Delay: a.v.delay}, nil
	}
	r := a.v.refusal
	r.Delay = a.v.delay
	return r, nil
}

// decide adds a decision to those before: the first that refuses counts, but for one that
// closes behind it.
func (a *asking) decide(v verdict) {
	delay := max(v.delay, a.v.delay)
	if !a.refuses() || v.closes() && !a.v.closes() {
		a.v, a.found = v, true
	}
	a.v.delay = delay
}

// takes takes n tokens of a limit, or decides what is done without.
func (a *asking) takes(i int, who string, n int) {
	r := &a.h.rules[i]
	ok, known := a.take(i, who, n)
	switch {
	case !ok:
		a.exceeded(r, who)
	case known && n > 0 && (r.What == Recipients || r.What == Messages):
		a.s.pending = append(a.s.pending, pending{i, who})
	}
}

// holds sees to it that the connection is counted for someone, if it counts, and for nobody else.
func (a *asking) holds(i int, who string, counts bool) {
	r, h := &a.h.rules[i], a.s.hold(a.h, i)
	if h.counts && (!counts || h.who != who) {
		// A new connection of a login stays one when STARTTLS or another login ends it. An address
		// that turns out to be another's never was the client's.
		stays := r.Per == PerLogin && r.Every > 0
		if stays && !counts {
			return
		}
		if h.counts = false; !stays {
			a.charge(i, h.who, -1)
		}
	}
	if h.counts || !counts {
		return
	}
	ok, known := a.take(i, who, 1)
	switch {
	case !ok:
		a.exceeded(r, who)
		if !r.beyond.passes || r.Every > 0 {
			return
		}
		known = a.charge(i, who, 1) // it is there all the same
	}
	h.who, h.counts = who, known
}

// exceeded decides what is done beyond a limit.
func (a *asking) exceeded(r *rule, who string) {
	if f := a.h.onBeyond; f != nil {
		f(a.ctx, r.bucket(who))
	}
	a.decide(r.beyond)
}

// take takes n tokens of a limit, if there are as many. known is false if nobody knows.
func (a *asking) take(i int, who string, n int) (ok, known bool) {
	r := &a.h.rules[i]
	b := r.bucket(who)
	if r.What == Time {
		return time.Since(a.s.began) < time.Duration(r.Max)*time.Second, true
	}
	if r.Per == PerConnection {
		l := &a.s.levels[i]
		*l, ok = l.take(&b, a.s.now(r), n)
		return ok, true
	}
	if !a.away {
		ok, err := a.h.store.Take(a.ctx, b, n)
		if err == nil {
			return ok, true
		}
		a.goesAway(err)
	}
	a.decideWithout()
	return true, false
}

// charge takes n tokens of a limit in any case, and tells whether that is known to have been
// done.
func (a *asking) charge(i int, who string, n int) bool {
	r := &a.h.rules[i]
	b := r.bucket(who)
	if r.Per == PerConnection {
		l := &a.s.levels[i]
		*l = l.charge(&b, a.s.now(r), n)
		return true
	}
	if a.away {
		return false
	}
	err := a.h.store.Charge(a.ctx, b, n)
	if err != nil {
		a.goesAway(err)
	}
	return err == nil
}

// goesAway notes that the store is away, and asks what is done then.
func (a *asking) goesAway(err error) {
	a.away = true
	if f := a.h.onAway; f != nil {
		a.without = f(a.ctx, err)
	}
}

// decideWithout decides what is done without a store, once in a call.
func (a *asking) decideWithout() {
	d := a.without
	if d == nil {
		return
	}
	a.without = nil
	v, err := verdictOf(d)
	if err != nil {
		a.err = err
		return
	}
	a.decide(v)
}
