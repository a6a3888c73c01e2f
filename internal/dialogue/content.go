package dialogue

import "github.com/seed3262c777/smtpproxy/internal/wire"

// This file is the part of the dialogue that is about a message under way: from
// BDAT, or from the server's 354 to DATA, to its last reply.
//
// Where content ends is the server's word: it reads on, or it replies. But a
// reply may come before the end. A server that speaks LMTP may tell statuses
// while it reads, on another goroutine, as go-smtp does: its backend refuses one
// recipient at once, and takes the message for the others. Other servers refuse what
// is too long and then read on, or take the rest for commands, or give up without a
// word. Which of them this one does, the client must not be able to make use of:
//
//   - MaybeEnd: if the server reads on, that was not the end; a 2xx is its word that
//     it was; a refusal tells nothing, since it may have come within the message.
//   - Undecided: a server that speaks LMTP has replied before the end, and its Write
//     is kept from returning. A Read that begins now is another goroutine's, and can
//     want nothing but the rest.
//   - ReadOn: what such a goroutine reads, for as long as the Write doesn't return.
//   - Surplus: the server may have one goroutine, and nothing tells that its next Read
//     isn't for the rest.
//   - Unwanted: the server has refused the message, and gets nothing more: it might
//     take the rest for commands.
//   - GivenUp: its Read has failed. It may have gone on to commands without a word, so
//     it gets nothing more, but its refusal is the client's.
//
// A 2xx before the end is kept from the client until the server has got the end:
// it would tell that a message is delivered which may never come to be.

// beginChunk is the part of executes for BDAT.
func (m *Machine) beginChunk() {
	if m.has.size < SmallChunk {
		m.msg.smallChunks++
	}
	if m.has.last {
		m.has.due = m.statusesDue()
	}
	if m.relay && m.has.size > 0 {
		m.msg.chunk = m.has.size
		m.to(Chunk)
	}
}

// statusesDue returns how many replies end a message: in LMTP one for each
// recipient (RFC 2033 sections 4.2 and 4.3).
func (m *Machine) statusesDue() int32 {
	if !m.lmtp {
		return 1
	}
	return max(1, m.msg.recipients, m.msg.owed)
}

// isStatus tells whether a reply that is due is that for one recipient of several.
func (m *Machine) isStatus() bool { return m.lmtp && m.has.last && m.state == Executing }

// beginContent follows 354.
func (m *Machine) beginContent() News {
	m.has.due, m.has.last = m.statusesDue(), true
	m.to(Content)
	if !m.relay {
		m.to(End) // the server reads it without the session
	}
	return ContentBegins
}

// Begun is what the client gets when the server begins to read: that many replies to
// a message that it counts on, that the server hasn't given, and doesn't give any
// more.
type Begun struct {
	Missing, Code int
	Cleared       bool // what there was of a transaction is gone
}

// ReadBegins notes that the server has begun to read.
func (m *Machine) ReadBegins() (b Begun) {
	m.reading = true
	switch m.state {
	case MaybeEnd:
		m.msg.atStop = false
		m.to(Content)
	case Undecided, ReadOn:
		m.readsOn()
	case Executing:
		status := int(m.msg.status)
		if !m.isStatus() || m.statusesDue()-m.has.due != 1 || status < 400 {
			break // a reader that runs ahead, while the others are on their way
		}
		// go-smtp in LMTP mode answers a chunk once for all recipients, if its
		// backend fails early, and goes on.
		if status == 421 {
			status = 451 // the connection goes on
		}
		b = Begun{int(m.has.due), status, true}
		m.msg.refused = true
		m.endMessage()
	}
	return b
}

// readsOn notes that a server that has refused the message, or given a status
// of it, reads on all the same.
func (m *Machine) readsOn() {
	m.msg.atStop = false
	if m.has.due > 0 {
		m.to(Content)
	} else {
		m.to(ReadOn)
	}
}

// ReadFailed notes that the server has met an error. Where it has read what the
// client was asked for, it may go on to commands without a word (as go-smtp does
// with AUTH).
func (m *Machine) ReadFailed() {
	m.reading = false
	switch m.state {
	case Response:
		m.to(StrayResponse)
	case Chunk, Content, ReadOn, Surplus:
		m.to(GivenUp)
	}
}

// IsReading tells whether a Read of the server's is under way, and has got nothing
// yet. While the server writes, that is another goroutine's.
func (m *Machine) IsReading() bool { return m.reading }

// MayReturn tells whether the Write of a reply to a message may return. While it
// doesn't, whoever reads is another goroutine than its.
func (m *Machine) MayReturn() bool { return m.state != Undecided && m.state != ReadOn }

// IsAtStop tells whether a server that has replied has what it may take for the end.
func (m *Machine) IsAtStop() bool { return m.msg.atStop }

// TimeUp notes that the server has had time enough to read on, and doesn't. It returns
// false if the end of the connection is all that is left.
func (m *Machine) TimeUp() bool {
	switch {
	case m.MayReturn():
	case m.msg.kept == 0:
		m.withholdRest()
	case m.msg.atStop:
		// Its next Read won't tell whether that was the end.
		m.end(AmbiguousEnd)
		m.to(Closing)
		return false
	default:
		m.to(Surplus) // the reader may be the same goroutine
	}
	return true
}

// Handing is what to do with content that the server would get next.
type Handing struct {
	// Withhold: the server has replied meanwhile, and may not want it.
	Withhold bool
	// Ambiguous: nobody knows what the server wants. All is over.
	Ambiguous bool
	// Tell: the client gets the replies that were kept.
	Tell    bool
	Cleared bool // what there was of a transaction is gone
}

// Handed notes that the server would get content that ends at a stop.
func (m *Machine) Handed(stop wire.Stop) (h Handing) {
	held := m.msg.kept > 0
	switch {
	case m.state != Content && m.state != ReadOn && m.state != Surplus:
		return Handing{Withhold: true}
	case stop == wire.Open:
	case stop == wire.Maybe && m.state == Content:
		m.to(MaybeEnd)
	case stop == wire.Maybe && m.state == ReadOn:
		m.msg.atStop = true
	case stop == wire.Maybe:
		// Whether it wants content or commands next, its Read doesn't tell.
		m.end(AmbiguousEnd)
		m.to(Closing)
		return Handing{Ambiguous: true}
	case m.state == Content:
		m.to(End)
		h.Tell = held
	default:
		m.endMessage()
		h.Tell, h.Cleared = held, true
	}
	m.reading = false
	return h
}

// HandedChunk notes that the server would get n octets of a chunk, and returns false
// if it must not.
func (m *Machine) HandedChunk(n int) bool {
	if m.state != Chunk {
		return false
	}
	m.reading = false
	if m.msg.chunk -= int64(n); m.msg.chunk <= 0 {
		m.to(Executing)
	}
	return true
}

// RefusedContent notes that the library refuses a message for its content. Its rest is
// dropped, to its end by the letter of RFC 5321, or that of the chunk.
func (m *Machine) RefusedContent(r Reason) {
	switch m.state {
	case Executing, Chunk, Content, ReadOn, Surplus:
		m.refusal = r
		m.to(Refusing)
	}
}

// RestOfChunk returns how many octets of a chunk are still to be dropped, if the message
// that the library refuses comes in chunks.
func (m *Machine) RestOfChunk() (left int64, inChunk bool) {
	return m.msg.chunk, m.has.verb == BDAT
}

// DroppedRest notes that nothing is left of a message that the library refuses. It
// returns the refusal, and how often the client gets it: in LMTP, once for each
// recipient (RFC 2033 section 4.2), but for those that the server has refused already.
func (m *Machine) DroppedRest() (r Refusal, copies int) {
	if m.state != Refusing {
		return NoRefusal, 0 // the dialogue has ended meanwhile
	}
	m.end(m.refusal)
	m.to(Closing)
	return m.refusal.Refusal(), int(m.has.due + m.msg.kept)
}

// repliedToMessage is Replied for a message whose end the server may not have got.
func (m *Machine) repliedToMessage(r Reply) Step {
	positive := r.Code/100 == 2
	switch {
	case r.Code/100 == 3, r.Code == 220:
		return m.loseStep()
	case m.has.due == 0 && (positive || m.msg.kept > 0):
		return m.loseStep()
	case m.has.due == 0:
		return m.repliedTooMuch(r)
	}
	m.has.due--
	m.msg.refused = m.msg.refused || !positive
	switch m.state {
	case End:
		if r.Code == 421 && !m.lmtp {
			return m.lastWord()
		}
		if m.has.due == 0 {
			m.endMessage()
			return Step{News: Cleared}
		}
		return Step{}
	case MaybeEnd:
		if !m.lmtp && positive {
			m.endMessage()
			return Step{News: Cleared}
		}
		return m.repliedBeforeEnd(positive)
	case Content, Undecided:
		return m.repliedBeforeEnd(positive)
	case Refusing:
		if positive || m.msg.kept > 0 {
			// The client gets the library's refusal in its place.
			m.msg.kept++
			return Step{Fate: Keep}
		}
		return Step{}
	}
	// In a chunk, or where the server gets nothing more: what it accepts it
	// can't have got.
	switch {
	case positive || m.msg.kept > 0:
		return m.loseStep()
	case m.state == GivenUp && m.has.due > 0:
		// Others follow.
	default:
		m.withholdRest()
	}
	return Step{}
}

// repliedTooMuch is repliedToMessage for a refusal of a message that is refused already.
// The client would take it for the reply to its next command, but for the last word of
// a server that closes.
func (m *Machine) repliedTooMuch(r Reply) Step {
	if m.state == Refusing {
		return Step{Fate: Swallow} // the library has the last word
	}
	m.withholdRest()
	if r.Code != 421 {
		return Step{Fate: Swallow}
	}
	return Step{}
}

// repliedBeforeEnd is repliedToMessage for content that the server reads.
func (m *Machine) repliedBeforeEnd(positive bool) (step Step) {
	if positive || m.msg.kept > 0 {
		m.msg.kept++
		step.Fate = Keep
	}
	m.msg.atStop = m.msg.atStop || m.state == MaybeEnd
	switch {
	case m.msg.kept > 0 && m.has.due > 0:
		// It goes on, to the next status at least.
		if m.state == Undecided {
			m.to(Content)
		}
	case !m.lmtp && positive:
		m.to(Surplus)
	case !m.lmtp:
		m.withholdRest()
	case m.reading:
		m.readsOn()
	default:
		m.to(Undecided)
	}
	return step
}

// withholdRest keeps the rest of the message from a server that has refused it.
func (m *Machine) withholdRest() {
	m.end(RefusedEarly)
	m.to(Unwanted)
}

// repliedToChunk is the part of repliedToCommand for a chunk that the server has got.
func (m *Machine) repliedToChunk(code int) News {
	ok := code/100 == 2
	m.msg.refused = m.msg.refused || !ok
	cleared := false
	switch {
	case m.has.last:
		if m.msg.status = int16(code); m.reading {
			m.msg.status = 0 // another goroutine reads, so the next Read tells nothing
		}
		if m.has.due > 0 {
			return NoNews
		}
		m.endMessage()
		return Cleared
	case ok:
		m.msg.octets += m.has.size
	default:
		cleared = m.refuseChunk(false)
	}
	m.has = pending{}
	m.to(Command)
	return news(cleared)
}

// refuseChunk follows a chunk that the server has refused, or didn't get. Servers
// differ in what is left of the transaction then; further chunks have no place in
// any (RFC 3030 section 2). It tells whether there was a transaction.
func (m *Machine) refuseChunk(last bool) (was bool) {
	owed := m.statusesDue()
	was = m.doubtTransaction()
	switch {
	case last:
		m.msg.owed = 0
	case owed > 1:
		m.msg.owed = owed
	}
	return was
}

// endMessage follows the last reply to a message, which clears the transaction
// whatever the reply was (RFC 5321 section 4.1.1.4).
func (m *Machine) endMessage() {
	// Without LHLO, too, a server may speak LMTP, and reply for each recipient.
	// It is no loss if the client takes one such reply for that to its next
	// command: with that, no message ends.
	m.statuses = !m.lmtp && m.msg.recipients > 1
	if !m.msg.refused {
		m.errors = 0 // the server has got what it's there for
	}
	m.endTransaction(!m.msg.refused)
	m.has = pending{}
	m.to(Command)
}
