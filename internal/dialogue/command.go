package dialogue

// This file is what becomes of a client's line: what the machine tells before the
// hook is asked, what must not reach the server whatever the hook says, and what
// moves then.

// Line is a line of the client's, as far as the dialogue cares.
type Line struct {
	Verb Verb // NoVerb for a line of a SASL exchange
	// Size is that of the chunk of a BDAT command, -1 if it is malformed; of another
	// command, how many octets it has.
	Size int64
	Last bool // of BDAT
	// ManyArgs: it has more arguments than it may: STARTTLS any, MAIL and RCPT more
	// parameters than the library keeps.
	ManyArgs bool
}

// What each command brings to the machine and back has four fields at most, here and
// below: the compiler keeps that many in registers.

// Turn is what the machine knows of a line before the hook is asked.
type Turn struct {
	At     State  // the client's turn, if NotYet is NoReason
	NotYet Reason // OutOfTurn, or TooMany commands
	Asked  bool   // the hook has asked for the line
	Secret bool   // it may be a credential that was sent out of its place
}

// Begin notes that the client has sent a line with a verb, and tells what the machine
// knows of it.
func (m *Machine) Begin(v Verb) Turn {
	sasl := m.state == Response || m.state == OwnResponse
	t := Turn{At: m.state, Asked: m.asked}
	m.asked = false
	if !m.relay {
		m.msg.chunk = 0 // what the answer before had to drop
	}
	if m.suspect {
		t.Secret = !sasl && !v.IsKnown()
		m.suspect = t.Secret
	}
	if !sasl {
		m.commands.add()
	}
	switch {
	case !sasl && m.state != Command && (m.state != Greeting || m.relay):
		t.NotYet = OutOfTurn
	case m.commands.exceeds(m.policy.Commands):
		t.NotYet = TooMany
	}
	return t
}

// Do is what to do with a line that the hook has passed.
type Do uint8

const (
	Hand       Do = iota // the server gets it
	HandFirst            // likewise, and it brings the first content of a message
	ResetFirst           // the server forgets its transaction, and gets it then
	StartTLS             // the library shakes hands with the client
	Refuse               // the client gets the refusal: see Answered
)

// Admission is what becomes of a line that the hook has passed.
type Admission struct {
	Refusal *Refusal // of Refuse
	Do      Do
	// Nonsense: no server would know what to do with the line.
	Nonsense bool
	Reason   Reason // the library ends the connection
}

func refuse(r *Refusal) Admission { return Admission{Do: Refuse, Refusal: r} }

func refuseNonsense(r *Refusal) Admission {
	return Admission{Do: Refuse, Refusal: r, Nonsense: true}
}

// Passed notes that the hook has passed a line, and that it has or hasn't asked for
// the next one. behind tells that the client has sent more.
func (m *Machine) Passed(l Line, next, behind bool) Admission {
	m.asked = next // even if the library refuses the line
	if m.state.IsSASL() {
		m.executes(Line{Verb: AUTH})
		return Admission{}
	}
	a := m.admit(l, behind)
	switch {
	case a.Do == Refuse:
	case a.Do == StartTLS:
		m.after = Regreeting
		m.to(Handover)
	case l.Verb == MAIL && m.msg.doubtful && m.relay:
		a.Do = ResetFirst
		m.executes(Line{Verb: RSET})
		m.to(Resetting)
	case l.Verb == MAIL && m.msg.doubtful:
		a.Do = ResetFirst
		m.executes(l)
	default:
		if l.Verb == BDAT && m.msg.octets == 0 {
			a.Do = HandFirst
		}
		m.executes(l)
	}
	return a
}

// executes notes that the server gets a command.
func (m *Machine) executes(l Line) {
	m.statuses, m.reading = false, false
	m.has = pending{l.Size, 1, l.Verb, l.Last}
	m.to(Executing)
	if l.Verb == BDAT {
		m.beginChunk()
	}
}

// admit tells what must not reach the server, or not now.
func (m *Machine) admit(l Line, behind bool) Admission {
	switch v := l.Verb; {
	case v == NoVerb:
		// Some servers trim, or fold letters beyond ASCII, and would see
		// a verb where the hook saw none.
		return refuseNonsense(&unrecognized)
	case v == LikeSTARTTLS, v == STARTTLS:
		return m.admitSTARTTLS(l, behind)
	case v == MAIL && m.msg.active:
		// RFC 5321 section 4.1.1.2; go-smtp would keep the recipients.
		return refuse(&nestedMAIL)
	case l.ManyArgs:
		return refuse(&tooManyParams)
	case v == RCPT && !m.msg.active:
		// The server may have one all the same, which it has kept from
		// before, or keep the recipient for the next (RFC 5321 section
		// 4.1.4).
		return refuse(&missingMAIL)
	case v == RCPT && m.hasTooMany(l.Size):
		// RFC 5321 section 4.5.3.1.10.
		return refuse(&tooManyRecipients)
	case v == DATA && !m.msg.active:
		return refuse(&missingTransaction)
	case v == BDAT:
		return m.admitBDAT(l)
	case v == AUTH && m.HoldsAUTH():
		return refuse(&missingTLS)
	}
	return Admission{}
}

// hasTooMany tells whether there is no room for another recipient, whose command has
// that many octets.
func (m *Machine) hasTooMany(octets int64) bool {
	most := m.policy.Recipients
	return int(m.msg.recipients) >= most ||
		most < Unlimited/PathOctets && m.msg.paths+octets > int64(most)*PathOctets
}

// admitSTARTTLS refuses all that starts like STARTTLS, since some servers look
// at no more, and STARTTLS itself where the library couldn't look inside.
func (m *Machine) admitSTARTTLS(l Line, behind bool) Admission {
	switch {
	case l.Verb != STARTTLS:
		return refuseNonsense(&unrecognized)
	case l.ManyArgs:
		// RFC 3207 section 4: no parameters. Blanks are none (RFC 5321
		// section 4.1.1).
		return refuseNonsense(&paramOfSTARTTLS)
	case !m.relay:
		return Admission{}
	case m.tls:
		return refuse(&secondTLS)
	case !m.policy.OffersTLS:
		return refuse(&noTLS)
	case m.msg.active || m.auth:
		return refuse(&lateSTARTTLS)
	case behind:
		// RFC 3207 section 4: nothing may follow STARTTLS before the
		// handshake. Executed inside TLS, it would be taken for the word
		// of whoever is at the other end there.
		return Admission{Do: Refuse, Refusal: &refusals[BehindSTARTTLS], Reason: BehindSTARTTLS}
	}
	return Admission{Do: StartTLS}
}

// maxChunk is the largest chunk size that every server parses.
const maxChunk = 1<<32 - 1

// admitBDAT refuses chunks of which it isn't certain that the server reads
// them before it replies (RFC 3030 section 2): else nobody could tell the
// chunk from the commands behind it. Codes and texts are go-smtp's.
func (m *Machine) admitBDAT(l Line) Admission {
	switch {
	case l.Size < 0:
		return refuseNonsense(&refusals[ChunkSize])
	case m.msg.recipients == 0:
		return refuse(&missingRCPT)
	case l.Size > maxChunk || m.size > 0 && l.Size > m.size-m.msg.octets:
		return refuse(&tooLarge)
	case l.Size < SmallChunk && int(m.msg.smallChunks) >= m.policy.SmallChunks:
		return Admission{Do: Refuse, Refusal: &tooManyChunks, Reason: TooMany}
	}
	return Admission{}
}

// HandedPartly notes that the server has got a part of a line. The rest follows.
func (m *Machine) HandedPartly() { m.partly = true }

// HandsRest tells whether the server gets the rest of the line that it has got a part
// of: not if it has replied, since it might take the rest for a command.
func (m *Machine) HandsRest() bool { return m.partly && !m.state.HasEnded() }

// HandedRest notes that the server has got the whole line.
func (m *Machine) HandedRest() { m.partly = false }

// HandMAIL notes that the server gets the MAIL command that has waited for RSET, and
// returns false if there is none.
func (m *Machine) HandMAIL() bool {
	if m.state != Reset {
		return false
	}
	m.executes(Line{Verb: MAIL})
	return true
}

// Answer is a reply to a line that the server doesn't get, the hook's or the
// library's.
type Answer struct {
	Line       Line // as the client has sent it
	Code       int
	Disconnect bool
	Next       bool   // the hook asks for the next line
	Nonsense   bool   // see Admission
	Reason     Reason // the library ends the connection
}

// Outcome is what comes of an Answer.
type Outcome struct {
	// Instead is what the client gets in the place of the answer, if it isn't nil.
	Instead    *Refusal
	Disconnect bool  // the connection ends with the answer
	Copies     int   // how often the client gets it
	Discard    int64 // so many octets of a chunk are dropped before
	Hold       bool  // the answer may wait for others
	// Cancels: the server gets Cancel, since its exchange is over.
	Cancels bool
	Cleared bool // what there was of a transaction is gone
}

// Cancel is the line that takes a SASL exchange back (RFC 4954 section 4), and
// ResetCommand the one that takes a transaction back.
const (
	Cancel       = "*"
	ResetCommand = "RSET"
)

// Answered notes that the client gets a reply to a line that the server doesn't get.
func (m *Machine) Answered(a Answer) Outcome {
	o := Outcome{Disconnect: a.Disconnect, Copies: 1}
	if a.Nonsense {
		m.errors.add()
		if m.errors.exceeds(m.policy.Errors) {
			o.Instead, o.Disconnect = &tooManyErrors, true
			a.Code, a.Reason = o.Instead.Code, TooMany
		}
	}
	l := a.Line
	if l.Verb == BDAT {
		if l.Size < 0 {
			// Where the chunk ends is unknown, so what follows can't be
			// told from it.
			o.Disconnect, a.Reason = true, ChunkSize
		}
		if l.Last && a.Code != 421 {
			o.Copies = int(m.statusesDue())
		}
		if !o.Disconnect {
			o.Discard = l.Size
		}
	}
	m.end(a.Reason)
	m.asked = m.asked || a.Next
	m.statuses = false
	m.suspect = m.suspect || a.Code != 334 && a.Code != 235 &&
		(m.state == Response || m.state == OwnResponse || l.Verb.hasAUTH())
	o.Hold = m.more && l.Verb.mayHold()
	o.Cleared = m.takeBack(l, a.Code)
	if o.Discard > 0 {
		m.msg.chunk = o.Discard
	}

	next := Command
	if a.Code == 334 {
		next = OwnResponse
	}
	switch {
	case o.Disconnect:
		m.to(Closing)
	case m.relay && m.state == Response:
		// RFC 4954 section 4: the exchange is cancelled with "*"; the
		// client has its answer already.
		o.Cancels = true
		m.executes(Line{})
		m.after = next
		m.to(Cancelling)
	case m.relay && o.Discard > 0:
		m.after = next
		m.to(DropChunk)
	default:
		m.to(next)
	}
	return o
}

// takeBack follows an answer after which the client counts on having no transaction,
// or the server can't be relied on to have one. It tells whether there was something
// to forget.
func (m *Machine) takeBack(l Line, code int) (cleared bool) {
	switch l.Verb {
	case BDAT:
		// A message with a hole must not reach the server's end.
		return m.refuseChunk(l.Last)
	case RSET, HELO, EHLO, LHLO:
		// Behind a 2xx the client counts on having no transaction any more; the
		// server has it.
		return code/100 == 2 && m.leaveTransaction()
	case XCLIENT:
		return code == 220 && m.leaveTransaction() // likewise
	}
	return false
}

// Dropped notes that n octets of a chunk have been dropped. It returns true if they
// were the last of a chunk whose command waits for its answer: the client has its turn.
func (m *Machine) Dropped(n int) (done bool) {
	m.msg.chunk -= int64(n)
	if done = m.state == DropChunk && m.msg.chunk <= 0; done {
		m.to(m.after)
	}
	return done
}
