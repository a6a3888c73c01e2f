package smtpproxy

import (
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/sasl"
)

// This file holds the dialogue's transitions: what moves a Session's state,
// and all that does.

// event is one thing that moves the dialogue.
type event struct {
	kind eventKind
	over bool       // answered: the connection ends
	code int        // replied, answered
	cmd  *command   // passed, answered
	size int64      // replied: of SIZE in the reply to EHLO or LHLO
	rcpt *Recipient // replied: the recipient that a 2xx accepts
	tls  *TLS       // startedTLS
}

type eventKind uint8

const (
	passed     eventKind = iota // the server gets cmd
	answered                    // the hook or the library answered cmd with code
	replied                     // the server replied with code
	startedTLS                  // a TLS handshake is complete
	readsOn                     // the server has begun to read again
	lost                        // nobody knows any more whose turn it is
)

// verdict is what becomes of a server's reply.
type verdict uint8

const (
	forward   verdict = iota // the client gets it
	swallow                  // the client doesn't
	postpone                 // the client gets it when it sends a command
	breakStep                // it can't be the reply to what the server was sent
)

// take takes the server's reply into the state. lines are needed of a reply to
// EHLO or LHLO only; if the client has to get others, they are returned, and lines
// used for them. Its caller holds s.mu, which is released while Proxy.TransportID
// is called.
func (s *Session) take(code int, lines []string) (v verdict, others []string) {
	e := event{kind: replied, code: code}
	if s.phase == phaseReply && s.pending.verb == "RCPT" && code/100 == 2 {
		return s.takeRecipient(&e), nil
	}
	if code == 250 && s.wantsLines() {
		e.size = sizeKeyword(lines)
		if s.relay {
			others = s.offered(lines)
		}
	}
	return s.advance(&e), others
}

// takeRecipient is take for a recipient that the server accepts. It is no part of
// take for the sake of the stack: see decision.
//
//go:noinline
func (s *Session) takeRecipient(e *event) verdict {
	var r Recipient
	r.Address, r.Recipient, r.Params, _ = parseRcpt(argsOf(s.pending.line))
	if s.cfg.TransportID != nil {
		r.TransportID = s.transportID(r)
	}
	e.rcpt = &r
	return s.advance(e)
}

// transportID calls Proxy.TransportID, with s.mu released. A panic gives none:
// it would end the process, from within the server's Write.
func (s *Session) transportID(r Recipient) (id string) {
	var conn Connection
	s.view(&conn)
	s.mu.Unlock()
	defer s.mu.Lock()
	defer func() {
		if v := recover(); v != nil && s.cfg.Logger != nil {
			s.cfg.Logger.Error("smtpproxy: TransportID panicked", "connection", conn.ID)
		}
	}()
	return s.cfg.TransportID(conn, r)
}

// wantsLines tells whether the reply that is due carries keywords.
func (s *Session) wantsLines() bool {
	return s.phase == phaseReply && (s.pending.verb == "EHLO" || s.pending.verb == "LHLO")
}

// advance is the one function that moves the dialogue. Its caller holds s.mu.
func (s *Session) advance(e *event) verdict {
	if s.phase == phaseOver {
		return swallow
	}
	switch e.kind {
	case passed:
		s.advanceCommand(e.cmd)
	case answered:
		s.advanceAnswer(e)
	case replied:
		return s.advanceReply(e)
	case startedTLS:
		s.advanceTLS(e.tls)
	case readsOn:
		// go-smtp in LMTP mode answers a chunk once for all recipients, if
		// its backend fails early, and goes on.
		if s.phase == phaseReply && s.lmtp && s.pending.last && s.due < s.txn.get().Recipients.Len() {
			s.endMessage()
		}
	case lost:
		s.setPhase(phaseOver)
	}
	return forward
}

// advanceCommand is the part of advance for a command that the server gets.
func (s *Session) advanceCommand(cmd *command) {
	s.statuses = false
	s.observe(cmd)
	s.phase, s.pending, s.due = phaseReply, *cmd, 1
	if cmd.verb == "BDAT" && cmd.size < smallChunk {
		s.txn.change().smallChunks++
	}
	if cmd.verb == "BDAT" && cmd.last && s.lmtp {
		// RFC 2033 section 4.3.
		s.due = s.txn.get().Recipients.Len()
	}
}

// advanceAnswer is the part of advance for a command that the server doesn't
// get.
func (s *Session) advanceAnswer(e *event) {
	s.statuses = false
	next := phaseCommand
	if e.code == 334 {
		next = phaseOwn
	}
	switch {
	case e.over:
		next = phaseOver
	case s.phase == phaseSASL && s.relay:
		// RFC 4954 section 4: the exchange is cancelled with "*"; the
		// client has its answer already.
		s.pending, s.due = command{line: "*", swallow: true, after: next}, 1
		next = phaseReply
	}
	if e.cmd.verb == "BDAT" {
		// A message with a hole must not reach the server's end.
		s.bdatFailed = true
	}
	s.exchange = nil
	s.suspect = s.suspect || e.code != 334 && e.code != 235 &&
		(s.phase == phaseSASL || s.phase == phaseOwn || e.cmd.verb == "AUTH")
	s.setPhase(next)
}

// advanceTLS is the part of advance for TLS. The client's next command finds the
// state after the greeting (RFC 3207 section 4.2).
func (s *Session) advanceTLS(t *TLS) {
	s.conn.helo, s.conn.secure = HELO{}, &secure{tls: *t}
	s.lmtp, s.size, s.suspect, s.next = false, 0, false, false
	s.resetTransaction()
	s.setPhase(phaseCommand)
	if s.relay {
		// The server starts anew, on a connection of its own.
		s.regreets = true
		s.setPhase(phaseGreeting)
	}
}

// asksFor tells whether an intermediate reply is one to the command that the
// server has: it asks for content (RFC 5321 section 4.1.1.4), or for a line of a
// SASL exchange (RFC 4954 section 4). Where the library doesn't stand in front of
// the server, that knows what it does.
func (s *Session) asksFor(code int) bool {
	switch {
	case !s.relay:
		return true
	case s.phase != phaseReply:
		return false
	case code == 354:
		return s.pending.verb == "DATA"
	case code == 334:
		return s.pending.verb == "AUTH"
	}
	return false // no other is defined, and a client may take any 3xx for 354
}

// advanceReply is the part of advance for the server's replies. Replies are
// matched to commands by counting (RFC 2920 section 3.1).
func (s *Session) advanceReply(e *event) verdict {
	cmd, was := s.pending, s.phase
	switch {
	case was == phaseGreeting && s.regreets:
		s.regreets = false
		s.setPhase(phaseCommand)
		if e.code == 220 {
			return swallow // the client has had one
		}
		return postpone
	case e.code == 421 || was == phaseCommand || was == phaseSASL || was == phaseOwn:
		// The server closes (RFC 5321 section 3.8), or nobody waits for
		// the reply: either way it is the last. The client may take it for
		// that to a command which the server will never see, so it must not
		// be a positive one.
		status := s.statuses && e.code/100 == 2
		s.setPhase(phaseOver)
		if e.code < 400 && !status {
			return breakStep
		}
		return forward
	case e.code/100 == 3 && !s.asksFor(e.code):
		// What the client sends next would go past the hook.
		s.setPhase(phaseOver)
		return breakStep
	case was == phaseGreeting:
		// RFC 5321 section 3.1: with 554, too, a dialogue follows.
		s.setPhase(phaseCommand)
		return forward
	case e.code == 220 && (cmd.verb != "STARTTLS" || s.relay):
		s.setPhase(phaseOver)
		return breakStep
	}
	s.due--
	if was == phaseContent {
		if s.due == 0 {
			s.endMessage()
		}
		return forward
	}
	if cmd.swallow {
		if e.code/100 == 3 {
			s.setPhase(phaseOver)
			return breakStep
		}
		s.setPhase(cmd.after)
		return swallow
	}
	switch {
	case e.code == 334:
		s.setPhase(phaseSASL)
		return forward
	case e.code == 354:
		s.setPhase(phaseContent)
		s.due = 1
		if s.lmtp {
			// RFC 2033 section 4.2: a reply for each accepted RCPT.
			s.due = max(1, s.txn.get().Recipients.Len())
		}
		return forward
	case s.due > 0:
		return forward
	}
	exchange := s.exchange
	// A command that nobody knows may be a password sent out of its place.
	s.pending, s.exchange = command{}, nil
	s.setPhase(phaseCommand)
	ok := e.code/100 == 2
	switch cmd.verb {
	case "HELO", "EHLO", "LHLO":
		if e.code != 250 {
			break // RFC 5321 section 4.1.4: as if it had not been sent
		}
		s.conn.helo = HELO{cmd.verb, strings.TrimSpace(argsOf(cmd.line))}
		s.lmtp = cmd.verb == "LHLO"
		s.size = e.size
		s.resetTransaction()
	case "MAIL":
		if ok {
			s.openTransaction(cmd.line)
		}
	case "RCPT":
		if ok {
			r := &s.txn.change().Recipients
			r.list = append(r.list, *e.rcpt)
		}
	case "RSET":
		if ok {
			s.resetTransaction()
		}
	case "BDAT":
		s.txn.change().octets += cmd.size
		switch {
		case cmd.last:
			s.endMessage()
		case !ok:
			// Servers differ in what is left of the transaction; further
			// chunks have no place in any (RFC 3030 section 2).
			s.endMessage()
			s.bdatFailed = true
		}
	case "AUTH":
		if e.code == 235 && exchange != nil {
			s.conn.authenticate(Auth{exchange.Mechanism, exchange.Username()})
		} else {
			s.suspect = true
		}
	case "QUIT":
		if ok {
			s.setPhase(phaseOver)
		}
	}
	return forward
}

func (s *Session) setPhase(p phase) {
	s.phase = p
	if p == phaseOver {
		s.ctx.end()
	}
}

// openTransaction opens a transaction with an accepted MAIL command. A path
// that can't be parsed leaves the parsed fields empty: the server took it.
func (s *Session) openTransaction(line string) {
	mail := s.txn.change()
	mail.Active, mail.octets, mail.smallChunks = true, 0, 0
	s.bdatFailed = false
	mail.SenderAddress, mail.Sender, mail.SenderParams, _ = parseMail(argsOf(line))
}

// resetTransaction is RSET: no transaction is open (RFC 5321 section 4.1.1.5).
func (s *Session) resetTransaction() {
	s.txn = transaction{}
	s.bdatFailed = false
}

// endMessage follows the reply to the end of a message, which clears the
// transaction whatever the reply was (RFC 5321 section 4.1.1.4).
func (s *Session) endMessage() {
	// Without LHLO, too, a server may speak LMTP, and reply for each recipient.
	// It is no loss if the client takes one such reply for that to its next
	// command: with that, no message ends.
	s.statuses = !s.lmtp && s.txn.get().Recipients.Len() > 1
	s.resetTransaction()
	s.setPhase(phaseCommand)
}

// observe follows a SASL exchange for the user name in it. What cmd holds of a
// credential is forgotten.
func (s *Session) observe(cmd *command) {
	if s.phase != phaseSASL {
		s.exchange = nil
	}
	switch {
	case s.phase == phaseSASL:
		if s.exchange != nil {
			s.exchange.Response(cmd.line)
		}
		cmd.line = ""
	case cmd.verb == "AUTH":
		// Servers split at all kinds of white space. What isn't split off
		// here could be a password that ends up as a mechanism.
		words := strings.Fields(argsOf(cmd.line))
		if len(words) > 0 {
			s.exchange = sasl.Observe(upperASCII(words[0]))
		}
		if len(words) > 1 {
			s.exchange.Response(words[1])
		}
		cmd.line = ""
	}
}

// offered returns the lines of an EHLO reply with the keywords that the client
// may use now, in the place of lines; nil if they are the same.
func (s *Session) offered(lines []string) []string {
	var more []string
	if s.conn.inTLS() {
		more = s.cfg.TLSKeywords
	} else if s.cfg.TLSConfig != nil {
		more = []string{"STARTTLS"}
	}
	out := lines[:1]
	for _, line := range lines[1:] {
		keyword := keywordOf(line)
		switch {
		case keyword == "STARTTLS":
			// The server's own would blind the hook. The library's may
			// have its place.
			if s.conn.inTLS() || len(more) == 0 {
				continue
			}
			more = nil
		case s.holdsAuth() && (keyword == "AUTH" || strings.HasPrefix(keyword, "AUTH=")):
			continue
		}
		out = append(out, line)
	}
	if len(out) == len(lines) && len(more) == 0 {
		return nil
	}
	return append(out, more...)
}

// keywordOf returns the keyword of a line in an EHLO reply, in upper case (RFC
// 5321 section 4.1.1.1).
func keywordOf(line string) string {
	keyword, _, _ := strings.Cut(line, " ")
	return upperASCII(keyword)
}

// sizeKeyword returns the message size that an EHLO reply declares, 0 if there
// is no limit (RFC 1870 section 4).
func sizeKeyword(lines []string) int64 {
	for i, line := range lines {
		if i == 0 || keywordOf(line) != "SIZE" {
			continue
		}
		_, arg, _ := strings.Cut(line, " ")
		size, err := strconv.ParseInt(strings.TrimSpace(arg), 10, 64)
		if err != nil || size < 0 {
			return 0
		}
		return size
	}
	return 0
}
