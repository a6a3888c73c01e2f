package smtpproxy

import "github.com/seed3262c777/smtpproxy/internal/wire"

// This file is the part of the dialogue that is about a message under way: from
// BDAT, or from the server's 354 to DATA, to its last reply.
//
// Where content ends is the server's word: it reads on, or it replies. But a
// reply may come before the end. A server that speaks LMTP may tell statuses
// while it reads, on another goroutine, as go-smtp does; others refuse what is too
// long and then read on, or take the rest for commands, or give up without a word.
// Which of them this one does, the client must not be able to make use of:
//
//	phaseContent    it reads content, the end is not in sight
//	phaseMaybeEnd   it has got a line that some servers take for the end: if it
//	                reads on, it was not; a 2xx is its word that it was; a refusal
//	                tells nothing, since it may have come within the message
//	phaseEnd        it has got CRLF "." CRLF, which all servers take for the end
//	phaseUndecided  it has replied before the end, speaks LMTP, and its Write doesn't
//	                return: a Read that begins now is another goroutine's, and can
//	                want nothing but the rest
//	phaseReadOn     it has given all replies before the end, and reads the rest on
//	                another goroutine, for as long as its Write doesn't return
//	phaseSurplus    it has given all replies before the end, one is 2xx, and nothing
//	                tells that its next Read isn't for the rest
//	phaseUnwanted   it has refused the message, and gets nothing more: it might take
//	                the rest for commands
//	phaseGivenUp    its Read has failed: it may have gone on to commands without a
//	                word, so it gets nothing more, but its refusal is the client's
//
// A 2xx before the end is kept from the client until the server has got the end:
// it would tell that a message is delivered which may never come to be.

// advanceChunk is the part of advanceCommand for BDAT.
func (s *Session) advanceChunk(cmd *command) {
	m := s.txn.change()
	if cmd.size < smallChunk {
		m.smallChunks++
	}
	if cmd.last {
		s.due = s.statusesDue()
	}
	if s.relay && cmd.size > 0 {
		m.chunk = cmd.size
		s.phase = phaseChunk
	}
}

// statusesDue returns how many replies end a message: in LMTP one for each
// recipient (RFC 2033 sections 4.2 and 4.3).
func (s *Session) statusesDue() int {
	if !s.lmtp {
		return 1
	}
	m := s.txn.get()
	return max(1, m.Recipients.Len(), m.owed)
}

// isStatus tells whether a reply that is due is that for one recipient of several.
func (s *Session) isStatus() bool { return s.lmtp && s.pending.last && s.phase == phaseReply }

// beginContent follows 354.
func (s *Session) beginContent() {
	s.due = s.statusesDue()
	s.setPhase(phaseContent)
	if !s.relay {
		s.setPhase(phaseEnd) // the server reads it without the session
	}
}

// readBegins notes that the server has begun to read. It returns how many replies to
// a message the client counts on that the server hasn't given, and doesn't give any
// more, and their code.
func (s *Session) readBegins() (missing, code int) {
	switch s.phase {
	case phaseMaybeEnd:
		s.txn.change().atStop = false
		s.setPhase(phaseContent)
	case phaseUndecided, phaseReadOn:
		s.readsOn()
	case phaseReply:
		status := int(s.txn.get().status)
		if !s.isStatus() || s.statusesDue()-s.due != 1 || status < 400 {
			break // a reader that runs ahead, while the others are on their way
		}
		// go-smtp in LMTP mode answers a chunk once for all recipients, if its
		// backend fails early, and goes on.
		missing, code = s.due, status
		if code == 421 {
			code = 451 // the connection goes on
		}
		s.txn.change().refused = true
		s.endMessage()
	}
	return missing, code
}

// readsOn notes that a server that has refused the message, or given a status
// of it, reads on all the same.
func (s *Session) readsOn() {
	s.txn.change().atStop = false
	if s.due > 0 {
		s.setPhase(phaseContent)
	} else {
		s.setPhase(phaseReadOn)
	}
}

// readFailed notes that the server has met an error where it has read what the
// client was asked for, and may go on to commands without a word (as go-smtp does
// with AUTH).
func (s *Session) readFailed() {
	switch s.phase {
	case phaseSASL:
		s.setPhase(phaseSASLGivenUp)
	case phaseChunk, phaseContent, phaseReadOn, phaseSurplus:
		s.setPhase(phaseGivenUp)
	}
}

// mayReturn tells whether the Write of a reply to a message may return. While it
// doesn't, whoever reads is another goroutine than its.
func (s *Session) mayReturn() bool { return s.phase != phaseUndecided && s.phase != phaseReadOn }

// timeUp notes that the server has had time enough to read on, and doesn't. It returns
// false if the end of the connection is all that is left.
func (s *Session) timeUp() bool {
	m := s.txn.get()
	switch {
	case s.mayReturn():
	case m.held == 0:
		s.refuseRest()
	case m.atStop:
		// Its next Read won't tell whether that was the end.
		s.lose(reasonAmbiguousEnd)
		return false
	default:
		s.setPhase(phaseSurplus) // the reader may be the same goroutine
	}
	return true
}

// handing is what to do with content that the server would get next.
type handing uint8

const (
	handOver        handing = iota // the server gets it
	handOverAndTell                // likewise, and the client the replies that were kept
	withhold                       // the server has replied meanwhile: it may not want it
	hangUp                         // nor does anybody know what it wants: all is over
)

// handed notes that the server would get content that ends at a stop.
func (s *Session) handed(stop wire.Stop) handing {
	m := s.txn.get()
	held := m.held > 0
	switch {
	case s.phase != phaseContent && s.phase != phaseReadOn && s.phase != phaseSurplus:
		return withhold
	case stop == wire.Open:
		return handOver
	case stop == wire.Maybe && s.phase == phaseContent:
		s.setPhase(phaseMaybeEnd)
		return handOver
	case stop == wire.Maybe && s.phase == phaseReadOn:
		s.txn.change().atStop = true
		return handOver
	case stop == wire.Maybe:
		// Whether it wants content or commands next, its Read doesn't tell.
		return hangUp
	case s.phase == phaseContent:
		s.setPhase(phaseEnd)
	default:
		s.endMessage()
	}
	if held {
		return handOverAndTell
	}
	return handOver
}

// handedChunk notes that the server gets n octets of a chunk, and returns false if
// it must not.
func (s *Session) handedChunk(n int) bool {
	if s.phase != phaseChunk {
		return false
	}
	m := s.txn.change()
	if m.chunk -= int64(n); m.chunk <= 0 {
		s.setPhase(phaseReply)
	}
	return true
}

// replyToMessage is the part of advanceReply for a reply to a message whose end the
// server may not have got.
func (s *Session) replyToMessage(e *event) verdict {
	positive := e.code/100 == 2
	m := s.txn.change()
	if e.code/100 == 3 || e.code == 220 || s.due == 0 && positive {
		s.setPhase(phaseOver)
		return breakStep
	}
	s.due = max(0, s.due-1)
	m.refused = m.refused || !positive
	switch s.phase {
	case phaseEnd:
		if e.code == 421 && !s.lmtp {
			s.setPhase(phaseOver)
		} else if s.due == 0 {
			s.endMessage()
		}
		return forward
	case phaseMaybeEnd:
		if !s.lmtp && positive {
			s.endMessage()
			return forward
		}
		return s.replyBeforeEnd(m, positive, e.reading)
	case phaseContent, phaseUndecided:
		return s.replyBeforeEnd(m, positive, e.reading)
	}
	// In a chunk, or where the server gets nothing more: what it accepts it
	// can't have got.
	switch {
	case positive || m.held > 0:
		s.setPhase(phaseOver)
		return breakStep
	case s.phase == phaseSurplus:
		s.setPhase(phaseOver)
	case s.phase == phaseGivenUp && s.due > 0:
		// Others follow.
	default:
		s.refuseRest()
	}
	return forward
}

// replyBeforeEnd is replyToMessage for content that the server reads.
func (s *Session) replyBeforeEnd(m *mail, positive, reading bool) (v verdict) {
	if positive || m.held > 0 {
		m.held++
		v = keep
	}
	m.atStop = m.atStop || s.phase == phaseMaybeEnd
	switch {
	case m.held > 0 && s.due > 0:
		// It goes on, to the next status at least.
		if s.phase == phaseUndecided {
			s.setPhase(phaseContent)
		}
	case !s.lmtp && positive:
		s.setPhase(phaseSurplus)
	case !s.lmtp:
		s.refuseRest()
	case reading:
		s.readsOn()
	default:
		s.setPhase(phaseUndecided)
	}
	return v
}

// refuseRest keeps the rest of the message from a server that has refused it.
func (s *Session) refuseRest() {
	s.lose(reasonRefusedEarly)
	s.setPhase(phaseUnwanted)
}

// replyToChunk is the part of advanceReply for a chunk that the server has got.
func (s *Session) replyToChunk(code int) verdict {
	m := s.txn.change()
	ok := code/100 == 2
	m.refused = m.refused || !ok
	switch {
	case s.pending.last:
		if m.status = int16(code); s.due == 0 {
			s.endMessage()
		}
		return forward
	case ok:
		m.octets += s.pending.size
	default:
		s.refuseChunk(false)
	}
	s.pending = command{}
	s.setPhase(phaseCommand)
	return forward
}

// refuseChunk follows a chunk that the server has refused, or didn't get. Servers
// differ in what is left of the transaction then; further chunks have no place in
// any (RFC 3030 section 2).
func (s *Session) refuseChunk(last bool) {
	owed := s.statusesDue()
	s.doubtTransaction()
	switch {
	case !last && owed > 1:
		s.txn.change().owed = owed
	case last && s.txn.get().owed > 0:
		s.txn.change().owed = 0
	}
}

// endMessage follows the last reply to a message, which clears the transaction
// whatever the reply was (RFC 5321 section 4.1.1.4).
func (s *Session) endMessage() {
	m := s.txn.get()
	// Without LHLO, too, a server may speak LMTP, and reply for each recipient.
	// It is no loss if the client takes one such reply for that to its next
	// command: with that, no message ends.
	s.statuses = !s.lmtp && m.Recipients.Len() > 1
	if !m.refused {
		s.counted.errors = 0 // the server has got what it's there for
	}
	s.endTransaction(!m.refused)
	s.pending = command{}
	s.setPhase(phaseCommand)
}
