package dialogue

import "fmt"

// observer looks on at a dialogue, and keeps books of its own: what the client counts
// on, what the server may have kept, and what there is of a transaction.
type observer struct {
	m Machine

	// Of the client.
	lmtp     bool
	accepted int // recipients, as the client counts them
	owes     int // how many replies it waits for
	kept     int // how many of them are kept from it

	// Of the server.
	left    bool // it may have a transaction
	refused bool // something of the message
	ended   bool // it has what every server takes for the end
	maybe   bool // it has what some server takes for it, and hasn't read on

	// Of the transaction.
	active     bool
	recipients int
}

func observe(m Machine) *observer { return &observer{m: m, lmtp: m.lmtp} }

// step lets something happen, and tells what is wrong then.
func (o *observer) step(in *input) error {
	before, active := o.m, o.active
	began, returned, answered := apply(&o.m, in)
	o.line(in, &before, began)
	told := false
	var err error
	switch r := returned.(type) {
	case Admission:
		if r.Do != Refuse && in.line.Verb == MAIL && (r.Do == ResetFirst) != o.left {
			return fmt.Errorf("the server may have a transaction: %v, and MAIL comes with %q", o.left, printed(r))
		}
		if r.Do == Refuse {
			told = o.answered(answered.(Outcome), &before, in.line, r.Refusal.Code)
		}
	case Outcome:
		code := in.code
		if r.Instead != nil {
			code = r.Instead.Code
		}
		told = o.answered(r, &before, in.line, code)
	case Step:
		told, err = o.replied(r, &before, in.code)
	case Begun:
		if o.m.state == Content && before.state == MaybeEnd {
			o.maybe = false
		}
		if r.Missing > 0 {
			o.owes -= r.Missing
			o.refused = true
			o.endMessage()
		}
		told = r.Cleared
	case Handing:
		o.handed(in, r)
		told = r.Cleared
	case int: // DroppedRest
		if before.state == Refusing {
			o.owes, o.kept = o.owes-r, 0
			if o.owes != 0 {
				return fmt.Errorf("refused %d times, and the client waits for %d more replies", r, o.owes)
			}
		}
	case Refusal:
		o.owes-- // the library's own
	case nothing:
		switch {
		case before.state == Handover && o.m.state == Regreeting:
			o.owes-- // ReadyForTLS
			o.afresh()
			told = true
		case before.state != Handover && o.m.state == Handover:
			if before.state == Command {
				o.owes = 1 // to the command that has made the client another's
			}
			o.afresh()
			told = true // the caller has done it
		}
	}
	if err == nil {
		err = o.check(in, &before)
	}
	if active && !o.active && !told && !o.m.state.HasEnded() {
		err = fmt.Errorf("the transaction is gone, and nobody is told")
	}
	return err
}

// line follows a line of the client's.
func (o *observer) line(in *input, before *Machine, began Turn) {
	if in.kind != passing && in.kind != answering || began.NotYet == OutOfTurn {
		return
	}
	o.owes = 1
	if in.line.Verb == BDAT && in.line.Last {
		o.owes = o.statuses()
	}
	if in.line.Verb == BDAT && before.msg.octets == 0 {
		o.refused, o.ended, o.maybe = false, false, false
	}
}

// statuses returns how many replies the client counts on for a message.
func (o *observer) statuses() int {
	if !o.lmtp {
		return 1
	}
	return max(1, o.accepted)
}

// clear follows the end of a transaction.
func (o *observer) clear() { o.active, o.recipients, o.accepted = false, 0, 0 }

// afresh follows what gives the server a fresh connection.
func (o *observer) afresh() {
	o.lmtp, o.left = false, false
	o.clear()
}

// endMessage follows the last reply to a message.
func (o *observer) endMessage() {
	if !o.refused {
		o.left = false
	}
	o.clear()
}

// answered follows an answer to a line. It returns whether the caller is told that the
// transaction is gone.
func (o *observer) answered(r Outcome, before *Machine, l Line, code int) (told bool) {
	if before.state == Command || before.state == Greeting || before.state.IsSASL() {
		o.owes -= r.Copies
	}
	switch {
	case l.Verb == BDAT:
		o.active, o.recipients = false, 0
		if l.Last {
			o.accepted = 0
		}
	case code/100 == 2 && (l.Verb.Greets() || l.Verb == RSET), l.Verb == XCLIENT && code == 220:
		o.clear()
	}
	return r.Cleared
}

// replied follows a reply of the server's.
func (o *observer) replied(r Step, before *Machine, code int) (told bool, err error) {
	message := before.state >= Chunk && before.state <= GivenUp && before.state != DropChunk
	switch r.Fate {
	case Keep:
		o.kept++
	case Swallow:
		if before.state == Resetting && o.m.state == Reset {
			o.left = false
		}
	case LoseStep:
		if o.m.state != Closing {
			return false, fmt.Errorf("step is lost, and the dialogue at %v", o.m.state)
		}
		return false, nil
	case Forward:
		if code/100 == 2 && message && !o.ended && (o.lmtp || !o.maybe) {
			return false, fmt.Errorf("the client gets a %d before the server has the end", code)
		}
		o.owes--
		if o.owes < 0 && o.m.state != Unwanted && !o.m.state.HasEnded() && before.state != Greeting {
			return false, fmt.Errorf("the client gets a %d that it doesn't wait for", code)
		}
		if before.state == Greeting || before.state == Executing && o.m.state == Response {
			o.owes = 0
		}
	}
	ofMessage := message || before.state == Executing && before.has.verb == BDAT
	if ofMessage && code/100 != 2 && code != 354 && code != 334 { // 354 and 334 ask for more
		o.refused = true
	}
	if before.state == Executing && !o.m.state.HasEnded() {
		o.executed(before, code)
	} else if ofMessage && o.m.state == Command {
		o.endMessage()
	}
	return r.News == Greeted || r.News == Cleared || r.News == Anew, nil
}

// executed follows the reply to a command.
func (o *observer) executed(before *Machine, code int) {
	ok := code/100 == 2
	switch verb := before.has.verb; {
	case code == 334:
	case code == 354:
		o.owes = o.statuses()
		if verb != BDAT { // else a Session's host has given statuses of it before
			o.refused = false
		}
		o.ended, o.maybe = !before.relay, false // see Session
	case verb == XCLIENT && code == 220:
		o.lmtp = false
		o.clear()
	case verb.Greets() && code == 250:
		o.lmtp = verb == LHLO
		o.clear()
	case verb.Greets() && o.active:
		o.clear() // whether it counts on what it had, nobody knows
	case verb == MAIL && ok:
		o.active, o.left, o.recipients, o.accepted = true, true, 0, 0
	case verb == RCPT && ok:
		o.recipients++
		o.accepted++
	case verb == RSET && ok:
		o.left = false
		o.clear()
	case verb == BDAT && before.has.last && o.m.state == Command:
		o.endMessage()
	case verb == BDAT && !before.has.last && !ok:
		o.active, o.recipients = false, 0
	}
}

// handed follows content that the server gets.
func (o *observer) handed(in *input, r Handing) {
	if r.Withhold || r.Ambiguous {
		return
	}
	o.ended = o.ended || in.name == "hand end"
	o.maybe = in.name == "hand maybe"
	if r.Tell {
		o.owes, o.kept = o.owes-o.kept, 0
	}
	if r.Cleared {
		o.endMessage()
	}
}

// check holds the books against the machine.
func (o *observer) check(in *input, before *Machine) error {
	m := &o.m
	if problem := broken(before, m); problem != "" {
		return fmt.Errorf("%s", problem)
	}
	if in.kind == anytime && in.code > 0 && before.state.HasEnded() && *m != *before {
		return fmt.Errorf("a reply behind the end changes something")
	}
	if m.state.HasEnded() {
		return nil
	}
	switch {
	case m.msg.active != o.active:
		return fmt.Errorf("a transaction: %v, counted: %v", m.msg.active, o.active)
	case int(m.msg.recipients) != o.recipients:
		return fmt.Errorf("%d recipients, counted: %d", m.msg.recipients, o.recipients)
	case m.lmtp != o.lmtp:
		return fmt.Errorf("LMTP: %v, counted: %v", m.lmtp, o.lmtp)
	case (m.msg.active || m.msg.doubtful) != o.left && m.state != Unwanted:
		return fmt.Errorf("the server may have a transaction: %v, counted: %v", m.msg.active || m.msg.doubtful, o.left)
	case hasTurn(m) && (o.owes != 0 || o.kept != 0):
		return fmt.Errorf("it's the client's turn, and it waits for %d replies, of which %d are kept", o.owes, o.kept)
	}
	return nil
}
