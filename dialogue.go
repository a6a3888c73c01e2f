package smtpproxy

import (
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/address"
	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/sasl"
)

// This file holds the dialogue's transitions: what moves a Session's state,
// and all that does.

// event is one thing that moves the dialogue.
type event struct {
	kind    eventKind
	over    bool       // answered: the connection ends
	reading bool       // replied: a Read of the server's is under way
	code    int        // replied, answered
	cmd     *command   // passed, answered
	size    int64      // replied: of SIZE in the reply to EHLO or LHLO
	rcpt    *Recipient // replied: the recipient that a 2xx accepts
	tls     *TLS       // startedTLS
}

type eventKind uint8

const (
	passed     eventKind = iota // the server gets cmd
	answered                    // the hook or the library answered cmd with code
	replied                     // the server replied with code
	startedTLS                  // a TLS handshake is complete
)

// verdict is what becomes of a server's reply.
type verdict uint8

const (
	forward   verdict = iota // the client gets it
	swallow                  // the client doesn't
	keep                     // the client gets it when the server has the end of the message
	postpone                 // the client gets it when it sends a command
	breakStep                // it can't be the reply to what the server was sent
)

// take takes the server's reply into the state; rcpt is what recipient returned.
// lines are needed of a reply to EHLO or LHLO only; if the client has to get
// others, they are returned, and lines used for them. Its caller holds s.mu.
func (s *Session) take(e *event, lines []string) (v verdict, others []string) {
	e.kind = replied
	if e.code == 250 && s.wantsLines() {
		e.size = sizeKeyword(lines)
		if s.relay {
			others = s.offered(lines)
		}
	}
	return s.advance(e), others
}

// recipient returns the recipient that a reply accepts, nil if it doesn't. It
// calls Proxy.TransportID, so its caller holds no lock.
func (s *Session) recipient(code int) *Recipient {
	if code/100 != 2 {
		return nil
	}
	s.mu.Lock()
	line, due := s.pending.line, s.phase == phaseReply && s.pending.verb == "RCPT"
	s.mu.Unlock()
	if !due {
		return nil
	}
	r := new(Recipient)
	path, params, unparsed := address.Rcpt(line)
	r.Address, r.Recipient = Address{path.Local, path.Domain}, path.Mailbox
	r.Params, r.Unparsed = Params{params}, unparsed
	if s.cfg.TransportID != nil {
		r.TransportID = s.transportID(*r)
	}
	return r
}

// transportID calls Proxy.TransportID. A panic gives none: it would end the
// process, from within the server's Write.
func (s *Session) transportID(r Recipient) (id string) {
	conn := s.Connection()
	defer func() {
		if v := recover(); v != nil {
			s.log(slog.LevelError, "smtpproxy: TransportID panicked",
				slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
	}()
	return s.cfg.TransportID(conn, r)
}

// wantsLines tells whether the reply that is due carries keywords.
func (s *Session) wantsLines() bool {
	return s.phase == phaseReply && (s.pending.verb == "EHLO" || s.pending.verb == "LHLO")
}

// advance is the one function that moves the dialogue; what moves it within a
// message is in message.go. Its caller holds s.mu.
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
	}
	return forward
}

// advanceCommand is the part of advance for a command that the server gets.
func (s *Session) advanceCommand(cmd *command) {
	s.statuses = false
	s.observe(cmd)
	s.phase, s.pending, s.due = phaseReply, *cmd, 1
	if cmd.verb == "BDAT" {
		s.advanceChunk(cmd)
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
	switch e.cmd.verb {
	case "BDAT":
		// A message with a hole must not reach the server's end.
		s.refuseChunk(e.cmd.last)
	case "RSET", "HELO", "EHLO", "LHLO":
		if e.code/100 == 2 {
			// The client counts on having no transaction any more; the
			// server has it.
			s.leaveTransaction()
		}
	case "XCLIENT":
		if e.code == 220 {
			s.leaveTransaction() // likewise
		}
	}
	s.exchange = nil
	s.suspect = s.suspect || e.code != 334 && e.code != 235 &&
		(s.phase == phaseSASL || s.phase == phaseOwn || isAuth(e.cmd.verb))
	s.setPhase(next)
}

// advanceTLS is the part of advance for TLS. The client's next command finds the
// state after the greeting (RFC 3207 section 4.2).
func (s *Session) advanceTLS(t *TLS) {
	s.conn.helo, s.conn.secure = HELO{}, &secure{tls: *t}
	s.lmtp, s.size, s.suspect, s.next = false, 0, false, false
	s.endTransaction(true)
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
		if e.code == 220 {
			s.setPhase(phaseCommand)
			return swallow // the client has had one
		}
		s.setPhase(phasePostponed)
		return postpone
	case was >= phaseChunk:
		return s.replyToMessage(e)
	case e.code == 421 && !s.isStatus() || was != phaseReply && was != phaseGreeting:
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
	case e.code == 220 && cmd.verb == "XCLIENT":
		s.startAnew()
		return forward
	case e.code == 220 && (cmd.verb != "STARTTLS" || s.relay):
		s.setPhase(phaseOver)
		return breakStep
	case cmd.swallow:
		return s.replyToOwn(e.code)
	}
	s.due--
	switch {
	case e.code == 334:
		s.setPhase(phaseSASL)
		return forward
	case e.code == 354:
		s.beginContent()
		return forward
	case cmd.verb == "BDAT":
		return s.replyToChunk(e.code)
	}
	exchange := s.exchange
	// A command that nobody knows may be a password sent out of its place.
	s.pending, s.exchange = command{}, nil
	s.setPhase(phaseCommand)
	ok := e.code/100 == 2
	switch cmd.verb {
	case "HELO", "EHLO", "LHLO":
		// RFC 5321 section 4.1.4 wants a transaction gone, and kept if the
		// command is refused. Servers were seen to do neither.
		if e.code != 250 {
			s.doubtTransaction()
			break
		}
		s.endTransaction(!s.txn.get().Active && !s.txn.get().doubtful)
		s.conn.helo = HELO{cmd.verb, hostOf(cmd.line)}
		s.lmtp = cmd.verb == "LHLO"
		if cmd.verb != "HELO" {
			s.size = e.size // HELO says nothing of it
		}
	case "MAIL":
		if ok {
			s.openTransaction(cmd.line)
		}
	case "RCPT":
		if ok {
			m := s.txn.change()
			m.Recipients.list = append(m.Recipients.list, *e.rcpt)
			m.pathOctets += int64(len(cmd.line))
		}
	case "RSET":
		if ok {
			s.endTransaction(true)
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
	default:
		if isAuth(cmd.verb) {
			s.suspect = true // the client goes on as if it had been AUTH
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

// hostOf returns the argument of HELO: a part of the line, or a copy if it is so little
// of it that it would keep much for nothing.
func hostOf(line string) string {
	host := strings.TrimSpace(argsOf(line))
	if len(line) > 2*len(host)+64 {
		host = strings.Clone(host)
	}
	return host
}

// startAnew follows 220 to XCLIENT (Postfix), which is a greeting: the client greets
// again. What the server has made of a transaction, nobody knows.
func (s *Session) startAnew() {
	s.conn.helo = HELO{}
	if s.conn.secure != nil {
		s.conn.secure.auth = Auth{}
	}
	s.leaveTransaction()
	s.lmtp, s.size, s.suspect = false, 0, false
	s.pending = command{}
	s.setPhase(phaseCommand)
}

// replyToOwn is the part of advanceReply for what the client doesn't know of: "*",
// which cancels an exchange, and RSET before MAIL.
func (s *Session) replyToOwn(code int) verdict {
	cmd := s.pending
	ok := code/100 == 2
	if code/100 == 3 || ok != (cmd.verb == "RSET") {
		// After a 2xx to "*" the client would be authenticated, and nobody
		// would know. Where RSET is refused, nobody knows what the server
		// would add the next recipients to.
		s.setPhase(phaseOver)
		return breakStep
	}
	if ok {
		s.txn.change().doubtful = false
	}
	s.setPhase(cmd.after)
	return swallow
}

// behindReset returns the MAIL command that has waited for RSET, for the server to
// get.
func (s *Session) behindReset() (line string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phaseReset {
		return "", false
	}
	m := s.txn.change()
	line, m.behindReset = m.behindReset, ""
	s.advance(&event{kind: passed, cmd: &command{verb: "MAIL", line: line}})
	return line, true
}

// openTransaction opens a transaction with an accepted MAIL command.
func (s *Session) openTransaction(line string) {
	m := s.txn.change()
	*m = mail{}
	m.Active = true
	path, params, unparsed := address.Mail(line)
	m.SenderAddress, m.Sender = Address{path.Local, path.Domain}, path.Mailbox
	m.SenderParams, m.Unparsed = Params{params}, unparsed
}

// endTransaction follows what ends a transaction, if there is one. Without
// certainty that the server has forgotten it, it gets RSET before the next MAIL.
func (s *Session) endTransaction(certain bool) {
	doubtful := !certain && (s.txn.get().Active || s.txn.get().doubtful)
	s.txn = transaction{}
	if doubtful {
		s.txn.change().doubtful = true
	}
}

// doubtTransaction follows what may have ended a transaction for the server, if
// there is one.
func (s *Session) doubtTransaction() {
	if s.txn.get().Active {
		s.endTransaction(false)
	}
}

// leaveTransaction follows what the client takes for the end of a transaction, and of
// what it counts on for a message in it.
func (s *Session) leaveTransaction() {
	s.doubtTransaction()
	if s.txn.get().owed > 0 {
		s.txn.change().owed = 0
	}
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
			s.exchange = sasl.Observe(ascii.ToUpper(words[0]))
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
			if s.conn.inTLS() {
				continue
			}
			if len(more) == 0 {
				s.cfg.warn(warnSTARTTLS)
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
	return ascii.ToUpper(keyword)
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
