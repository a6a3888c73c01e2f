package dialogue

// This file is what the server's replies move. The state follows them, never the
// commands: what a server has made of a command, its reply tells.

// Reply is a reply of the server's.
type Reply struct {
	Code int
	Size int64 // of the keyword SIZE in a reply to EHLO or LHLO
	// NoMechanism: no SASL exchange is known that a 235 could complete.
	NoMechanism bool
}

// Fate is what becomes of a server's reply.
type Fate uint8

const (
	Forward  Fate = iota // the client gets it
	Swallow              // the client doesn't
	Keep                 // the client gets it when the server has the end of the message
	Postpone             // the client gets it when it sends a command
	LoseStep             // it can't be the reply to what the server was sent
)

// News is what a reply tells of the connection and the transaction.
type News uint8

const (
	NoNews        News = iota
	Greeted            // HELO, EHLO or LHLO is accepted, and with it no transaction is left
	Opened             // MAIL is accepted
	Added              // RCPT is accepted
	Cleared            // no transaction is left
	Authenticated      // AUTH is accepted
	Anew               // the client is to greet again: no HELO, AUTH or transaction is left
	ContentBegins      // the client sends content next
)

// Step is what to do with a server's reply.
type Step struct {
	Fate Fate
	Hold bool // it may wait for others
	News News
}

// Replied notes that the server has replied. Replies are matched to commands by
// counting (RFC 2920 section 3.1).
func (m *Machine) Replied(r Reply) Step {
	if m.partly && !m.state.HasEnded() {
		return m.repliedBeforeEndOfLine(r)
	}
	if m.state == Executing { // nearly always: a switch of many cases is a jump to who knows where
		return m.repliedToCommand(r)
	}
	switch m.state {
	case Greeting, Restarting:
		return m.repliedToConnect(r)
	case Regreeting:
		return m.repliedAfresh(r)
	case Cancelling, Resetting:
		return m.repliedToOwn(r)
	case Chunk, Content, MaybeEnd, End, Undecided, ReadOn, Surplus, Refusing, Unwanted, GivenUp:
		return m.repliedToMessage(r)
	case Handover:
		return m.repliedInHandover(r)
	case Closing, Over:
		return Step{Fate: Swallow}
	default:
		return m.repliedToNothing(r)
	}
}

// repliedBeforeEndOfLine is Replied for a line of which the server hasn't got the end: it
// is too long for it. What a server takes the rest for, nobody knows.
func (m *Machine) repliedBeforeEndOfLine(r Reply) Step {
	if r.Code < 400 || m.state == Cancelling || m.state == Resetting {
		return m.loseStep()
	}
	m.end(RefusedLine)
	m.to(Closing)
	return Step{}
}

// LoseStep ends the dialogue, since the server has begun to reply to a command before
// it had it.
func (m *Machine) LoseStep() Step { return m.loseStep() }

// loseStep ends a dialogue in which the server's replies can't be matched to the
// client's commands any more.
func (m *Machine) loseStep() Step {
	m.end(OutOfStep)
	m.to(Closing)
	return Step{Fate: LoseStep}
}

// lastWord forwards the last reply of a server that closes (RFC 5321 section 3.8).
func (m *Machine) lastWord() Step {
	m.to(Over)
	return Step{Fate: Forward}
}

// repliedToNothing is Replied where nobody waits for a reply. The client may take it
// for that to a command which the server will never see, so it must not be a positive
// one.
func (m *Machine) repliedToNothing(r Reply) Step {
	if r.Code >= 400 || m.statuses && r.Code/100 == 2 {
		return m.lastWord()
	}
	return m.loseStep()
}

// repliedInHandover is Replied on a connection that the client is about to leave. It would
// take a reply for the greeting of the fresh one, or for a part of the handshake; but a server
// that closes won't greet.
func (m *Machine) repliedInHandover(r Reply) Step {
	if r.Code == 421 && m.after != Regreeting {
		return m.lastWord()
	}
	return Step{Fate: Swallow}
}

// repliedToConnect is Replied for the greeting.
func (m *Machine) repliedToConnect(r Reply) Step {
	switch {
	case r.Code == 421:
		return m.lastWord()
	case r.Code/100 == 3 && m.relay:
		return m.loseStep()
	}
	m.to(Command) // RFC 5321 section 3.1: with 554, too, a dialogue follows
	return Step{}
}

// repliedAfresh is Replied for the greeting of a fresh connection.
func (m *Machine) repliedAfresh(r Reply) Step {
	if r.Code == 220 {
		m.to(Command)
		return Step{Fate: Swallow} // the client has had one
	}
	m.to(Postponed)
	return Step{Fate: Postpone}
}

// AnsweredPostponed notes that the client gets the greeting that was a refusal.
func (m *Machine) AnsweredPostponed() { m.to(Closing) }

// repliedToOwn is Replied for what the client doesn't know of: "*", which cancels an
// exchange, and RSET before MAIL.
func (m *Machine) repliedToOwn(r Reply) Step {
	ok := r.Code/100 == 2
	switch {
	case r.Code == 421:
		return m.lastWord()
	case m.state == Cancelling && (ok || r.Code < 400):
		// After a 2xx the client would be authenticated, and nobody would know.
		return m.loseStep()
	case m.state == Cancelling:
		m.to(m.after)
	case !ok || r.Code == 220:
		// Nobody knows what the server would add the next recipients to.
		return m.loseStep()
	default:
		m.msg.doubtful = false
		m.to(Reset)
	}
	return Step{Fate: Swallow}
}

// asksFor tells whether an intermediate reply is one to the command that the
// server has: it asks for content (RFC 5321 section 4.1.1.4), or for a line of a
// SASL exchange (RFC 4954 section 4). Where the library doesn't stand in front of
// the server, that knows what it does.
func (m *Machine) asksFor(code int) bool {
	switch {
	case !m.relay:
		return true
	case code == 354:
		return m.has.verb == DATA
	case code == 334:
		return m.has.verb == AUTH
	}
	return false // no other is defined, and a client may take any 3xx for 354
}

// repliedToCommand is Replied for the command that the server has.
func (m *Machine) repliedToCommand(r Reply) Step {
	verb := m.has.verb
	step := Step{Hold: m.more && verb.mayHold()}
	switch {
	case r.Code == 421 && !m.isStatus():
		m.to(Over)
		return step
	case r.Code/100 == 3 && !m.asksFor(r.Code):
		// What the client sends next would go past the hook.
		return m.loseStep()
	case r.Code == 220 && verb == XCLIENT:
		m.startAnew()
		step.News = Anew
		return step
	case r.Code == 220 && (verb != STARTTLS || m.relay):
		return m.loseStep()
	}
	m.has.due--
	switch {
	case r.Code == 334:
		m.has.last = false // no message ends with what comes next, whatever it was the reply to
		m.to(Response)
		return step
	case r.Code == 354:
		step.News = m.beginContent()
		return step
	case verb == BDAT:
		step.News = m.repliedToChunk(r.Code)
		return step
	}
	octets := m.has.size
	m.has = pending{}
	m.to(Command)
	ok := r.Code/100 == 2
	switch {
	case verb.Greets():
		// RFC 5321 section 4.1.4 wants a transaction gone, and kept if the
		// command is refused. Servers were seen to do neither.
		if r.Code != 250 {
			step.News = news(m.doubtTransaction())
			break
		}
		m.endTransaction(!m.msg.active && !m.msg.doubtful)
		step.News = Greeted
		m.lmtp = verb == LHLO
		if verb != HELO {
			m.size = r.Size // HELO says nothing of it
		}
	case verb == MAIL && ok:
		m.msg = message{active: true}
		step.News = Opened
	case verb == RCPT && ok:
		m.msg.recipients++
		m.msg.paths += octets
		step.News = Added
	case verb == RSET && ok:
		m.endTransaction(true)
		step.News = Cleared
	case verb == AUTH && r.Code == 235 && !r.NoMechanism:
		m.auth = true
		step.News = Authenticated
	case verb.hasAUTH():
		m.suspect = true // behind LikeAUTH the client goes on as if it had been AUTH
	case verb == QUIT && ok:
		m.to(Over)
	}
	return step
}

// news returns what it is that a transaction is gone.
func news(cleared bool) News {
	if cleared {
		return Cleared
	}
	return NoNews
}

// startAnew follows 220 to XCLIENT (Postfix), which is a greeting: the client greets
// again. What the server has made of a transaction, nobody knows.
func (m *Machine) startAnew() {
	m.leaveTransaction()
	m.lmtp, m.auth, m.size, m.suspect = false, false, 0, false
	m.has = pending{}
	m.to(Command)
}

// endTransaction follows what ends a transaction, if there is one. Without
// certainty that the server has forgotten it, it gets RSET before the next MAIL.
func (m *Machine) endTransaction(certain bool) {
	m.msg = message{doubtful: !certain && (m.msg.active || m.msg.doubtful)}
}

// doubtTransaction follows what may have ended a transaction for the server, and
// tells whether there was one.
func (m *Machine) doubtTransaction() (was bool) {
	if was = m.msg.active; was {
		m.endTransaction(false)
	}
	return was
}

// leaveTransaction follows what the client takes for the end of a transaction, and of
// what it counts on for a message in it. It tells whether there was a transaction.
func (m *Machine) leaveTransaction() (was bool) {
	was = m.doubtTransaction()
	m.msg.owed = 0
	return was
}

// TLSRefused notes that the library can't shake hands now, and returns the reply
// to STARTTLS.
func (m *Machine) TLSRefused() Refusal {
	m.to(Command)
	return unavailableTLS
}

// ReadyForTLS is the reply to STARTTLS before the handshake (RFC 3207 section 4).
var ReadyForTLS = Refusal{Code: 220, Text: "Ready to start TLS"}

// StartedTLS notes that a TLS handshake is complete. The client's next command finds
// the state after the greeting (RFC 3207 section 4.2).
func (m *Machine) StartedTLS() {
	if m.state.HasEnded() {
		return
	}
	m.forget()
	m.tls, m.more = true, false
	m.to(Command)
	if m.relay {
		m.to(m.after) // the server starts anew, on a connection of its own
	}
}

// forget forgets what a server doesn't know of a fresh connection.
func (m *Machine) forget() {
	m.lmtp, m.auth, m.size, m.suspect, m.asked = false, false, 0, false, false
	m.statuses, m.reading = false, false
	m.endTransaction(true)
}

// Restarts notes that the server starts afresh, since the client turns out to be
// another's. answers tells that its greeting is the reply to a command. What the client
// has sent behind that, is sent.
func (m *Machine) Restarts(answers bool) {
	if m.state.HasEnded() {
		return
	}
	m.forget()
	m.after = Greeting
	if answers {
		m.after = Restarting
	}
	m.to(Handover)
}

// Restarted notes that the server has the fresh connection.
func (m *Machine) Restarted() { m.to(m.after) }
