package smtpproxy

import (
	"context"
	"sync"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/sasl"
)

// Session is the dialogue of one client with a server, without any I/O: it
// shows commands to the hook and follows the server's replies. A listener has
// one for each connection; a server with a state machine of its own calls it
// directly:
//
//   - Command for each line that it reads, lines of a SASL exchange too;
//   - if that returns a Reply: drop Discard octets, send it Copies times, and
//     close if it says so. A Reply to a line of a SASL exchange ends the
//     exchange;
//   - if that returns a Pass: forget the transaction if MustReset says so,
//     execute its Command, and call Replied with each reply, before it is
//     sent. After 354, content is read as usual, and the reply (with LMTP,
//     replies) to its end goes to Replied; after BDAT, its chunk is read
//     before the reply. Chunks that the session passes are within the SIZE
//     that the server has told in its EHLO reply; without one, a chunk of up
//     to 4 GiB may pass.
//
// When the connection ends, Close does for the session.
//
// Command and Replied are called alternately, and StartedTLS between them, by one
// goroutine at a time. The other methods may be called at any time by any goroutine.
type Session struct {
	cfg   *config
	ctx   *Context // of the whole session
	spare *Context // made for the next call of the hook, if any
	state userState

	mu   sync.Mutex // guards what follows
	conn facts
	txn  transaction

	pending command // what the server owes replies for
	due     int     // how many

	phase     phase
	relay     bool // the library stands in front of the server; never changes
	lmtp      bool
	next      bool   // the hook asked for the next line
	suspect   bool   // after a failed AUTH: unknown commands may be secrets
	regreets  bool   // the greeting due is that of a fresh connection
	statuses  bool   // there may be another reply to the message that has just ended
	mustReset bool   // see MustReset
	why       reason // the library has ended the connection, and hasn't logged it
	copies    uint32 // see Copies
	size      int64  // the server's SIZE (RFC 1870), 0 if unlimited or unknown
	discard   int64
	counted   counts

	exchange *sasl.Exchange // of the AUTH command under way, for its user name
	unknown  *unknown       // who is connected; nil when that is known
}

// phase is whose turn it is, and what comes next. RFC 5321 section 4.1.4 and
// RFC 4954 section 4 give the order. Those of a message under way are told of in
// message.go.
type phase uint8

const (
	phaseGreeting    phase = iota // the server's greeting is due
	phasePostponed                // the client's turn: whatever it sends is refused with the greeting
	phaseCommand                  // the client's turn: a command
	phaseSASL                     // the client's turn: a line of the server's SASL exchange
	phaseOwn                      // the client's turn: a line of the hook's SASL exchange
	phaseSASLGivenUp              // likewise, but the server may have given up its exchange
	phaseReset                    // the server has been reset, and gets the MAIL command behind that
	phaseReply                    // the server's turn: it has a command
	phaseChunk                    // the server reads a chunk
	phaseContent                  // the server reads content, after 354
	phaseMaybeEnd                 // it has what it may take for the end of the content
	phaseEnd                      // it has the end, and owes replies
	phaseUndecided                // it has replied before the end; whether it reads on meanwhile shows
	phaseReadOn                   // it has given all replies, and reads on meanwhile
	phaseSurplus                  // it has given all replies, and seems to want the rest
	phaseUnwanted                 // the rest of the message is dropped, then all is over
	phaseGivenUp                  // it may have given up reading what the client was asked for
	phaseOver                     // nothing more
)

// command is a command that the server has.
type command struct {
	verb    string
	line    string
	size    int64 // of a BDAT chunk
	last    bool  // of BDAT
	swallow bool  // the client doesn't get the reply
	after   phase // follows the reply then
}

// NewSession returns a session for a connection that conn describes. An empty
// conn.ID is replaced by a random UUID, an empty ServerID by the Proxy's. conn
// may have greeted, started TLS and authenticated already.
func (p *Proxy) NewSession(conn Connection) *Session {
	return p.session(conn, transaction{})
}

// ResumeSession is NewSession in the middle of a transaction: for tests, and
// for a server that takes a dialogue over.
func (p *Proxy) ResumeSession(conn Connection, txn Transaction) *Session {
	return p.session(conn, txn.known())
}

func (p *Proxy) session(conn Connection, txn transaction) *Session {
	cfg := p.config()
	if conn.ServerID != "" {
		cfg.ServerID = conn.ServerID
	}
	return newSession(cfg, conn.facts(), txn)
}

func newSession(cfg *config, conn facts, txn transaction) *Session {
	s := &Session{cfg: cfg, conn: conn, txn: txn, lmtp: conn.helo.Verb == "LHLO"}
	s.ctx = &Context{parent: context.Background(), state: &s.state}
	if cfg.LookupPTR && conn.ptr == "" && conn.remoteIP.IsValid() {
		s.unknown = &unknown{}
		s.unknown.lookUp(s, conn.remoteIP)
	}
	return s
}

// Connection returns the connection as a hook would see it now. Behind a listener,
// before the server has first read or written, it asks the connection for its
// addresses, which may have to wait for a PROXY header.
func (s *Session) Connection() Connection {
	s.learn()
	s.mu.Lock()
	defer s.mu.Unlock()
	var conn Connection
	s.view(&conn)
	return conn
}

// view makes conn the connection as a hook sees it now. Its caller holds s.mu.
func (s *Session) view(conn *Connection) {
	s.conn.view(conn)
	conn.ServerID = s.cfg.ServerID
}

// Transaction returns the transaction as a hook would see it now.
func (s *Session) Transaction() Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	var txn Transaction
	s.txn.view(&txn)
	return txn
}

// Context returns the session's context, through which State reaches what the
// hook keeps for the connection. It is done when the session is over.
func (s *Session) Context() *Context { return s.ctx }

// Discard returns how many octets of content, a BDAT chunk, follow the last
// command that Command returned a Reply for. They must be read and dropped
// before the reply is sent (RFC 3030 section 2).
func (s *Session) Discard() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.discard
}

// Command decides about the client's next line, given without its line end. It
// returns Pass with the Command to execute, or Reply with all fields filled
// in; never nil, never a pointer, always valid. ctx is what the hook's Context
// is made from.
func (s *Session) Command(ctx context.Context, line string) Decision {
	var d decision
	s.decide(ctx, line, false, &d)
	if d.refused {
		return d.reply
	}
	return d.pass
}

// Copies returns how often to send the Reply that Command has just returned: once,
// but for the last chunk of an LMTP message, to which a client counts on a reply
// for each recipient that was accepted (RFC 2033 section 4.3).
func (s *Session) Copies() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(1, int(s.copies))
}

// MustReset tells whether the server has to forget its transaction, as for RSET
// but without a reply, before it executes the Pass that Command has just returned:
// a MAIL command. An earlier transaction came to an end of which servers think
// differently, such as a refused message, so that some would still have its
// recipients. Behind a listener the library sends RSET itself.
func (s *Session) MustReset() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mustReset
}

// Replied tells the session what the server answered, a call for each reply.
// lines are the reply's lines without code; those of a reply to EHLO or LHLO
// carry keywords from the second on (RFC 5321 section 4.1.1.1), the others may
// be left out. A server that greets may tell its greeting too.
func (s *Session) Replied(code int, lines ...string) {
	e := event{code: code, rcpt: s.recipient(code)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(&e, lines)
}

// StartedTLS tells the session that the server has completed a TLS handshake
// after STARTTLS. All that was known before it is gone (RFC 3207 section 4.2),
// but the connection's ID and user state.
func (s *Session) StartedTLS(t TLS) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(&event{kind: startedTLS, tls: &t})
}

// Close ends the session: its Context is done. A server with a state machine of
// its own calls it when the connection is closed. A call of the hook under way
// goes on; to end it, cancel the ctx given to Command.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setPhase(phaseOver)
}

// decision is a Decision that doesn't have to be allocated. Nor has the one
// that Command returns, if its caller doesn't keep it: Command is just small
// enough to be inlined.
//
// It is handed down by a pointer, and so are calls and events: a connection's
// goroutine keeps the stack that its deepest call needed.
type decision struct {
	refused bool // reply is valid; else pass is
	cancel  bool // the server's SASL exchange has to be cancelled
	reset   bool // the server gets RSET before the command
	chunk   bool // octets of a chunk follow the command
	tls     bool // the library has to start TLS
	library bool // it is the library that refuses
	nothing bool // likewise, what no server would know what to do with
	over    bool // the session was over before the decision

	why     reason // the library ends the connection
	copies  uint32 // how often reply is sent
	discard int64  // octets to drop before
	reply   Reply  // filled in
	pass    Pass   // its Command is never empty for want of a change
}

// refuse makes it a Reply.
//
//go:noinline
func (d *decision) refuse(r *Reply) { *d = decision{refused: true, reply: r.filled("")} }

// fail makes it the reply after a failed hook.
func (d *decision) fail() { d.refuse(&failureReply) }

// reject makes it a refusal of the library's own.
//
//go:noinline
func (d *decision) reject(code int, enhanced EnhancedCode, text string) {
	d.refuse(&Reply{Code: code, Enhanced: enhanced, Lines: []string{text}})
	d.library = true
}

// rejectNothing is reject for what is no command of any server's.
func (d *decision) rejectNothing(code int, enhanced EnhancedCode, text string) {
	d.reject(code, enhanced, text)
	d.nothing = true
}

// tooMany ends a connection that has used up what it may.
func (d *decision) tooMany(what string) {
	d.reject(421, EnhancedCode{4, 7, 0}, "Too many "+what)
	d.reply.Disconnect = true
	d.why = reasonTooMany
}

// call is a line on its way to a decision.
type call struct {
	cmd   Command
	verb  string
	own   bool // an answer to the hook's own challenge
	ready bool // it is the client's turn
	used  bool // there have been too many before
	shown bool // the hook is called

	returned bool // the hook has, or what decided in its place
}

// decide takes a line to its decision, which it makes of the zero value that d
// is: the hook's, checked, then the library's own rules for what the hook
// passes. pipelined is Command.Pipelined.
func (s *Session) decide(ctx context.Context, line string, pipelined bool, d *decision) {
	q := call{cmd: Command{Line: line, Pipelined: pipelined}}
	s.takeUp(&q)
	switch {
	case !q.ready:
		d.fail()
		d.why = reasonOutOfTurn
	case q.used:
		d.tooMany("commands")
	case ascii.IndexControl(line) >= 0:
		d.rejectNothing(500, EnhancedCode{5, 5, 2}, "Control character in command line")
	case q.shown:
		s.ask(ctx, &q, d)
	default:
		d.pass.Command = line
	}
	s.settle(&q, d)
	if d.why != reasonNone {
		s.report()
	}
}

// takeUp completes q, a call for q.cmd.Line.
func (s *Session) takeUp(q *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sasl := s.phase == phaseSASL || s.phase == phaseOwn
	q.cmd.SASL = sasl
	q.verb = q.cmd.Verb()
	if s.suspect {
		q.cmd.secret = !sasl && !isKnown(q.verb)
		s.suspect = q.cmd.secret
	}
	q.own = s.phase == phaseOwn
	q.shown = s.cfg.Hook != nil && (s.next || q.own || !sasl && s.cfg.listed(q.verb))
	q.ready = s.phase == phaseCommand || s.phase == phaseGreeting && !s.relay || sasl
	if q.shown {
		if s.unknown != nil {
			s.awaitPTR()
		}
		s.txn.name() // so that views, for which the stack has less room, needn't
	}
	s.discard, s.copies, s.mustReset = 0, 1, false
	if !sasl {
		s.counted.commands.add()
	}
	q.used = s.counted.commands.exceeds(s.cfg.commands)
}

// settle holds a decision to the library's rules, and moves the session.
func (s *Session) settle(q *call, d *decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = false
	if s.phase == phaseOver {
		// It was closed meanwhile, or was before.
		d.fail()
		d.over, d.copies = true, 1
		return
	}
	line, sasl := q.cmd.Line, q.cmd.SASL
	if !sasl && isHTTP(q.verb, line) {
		// The lines of its header would be taken for commands.
		if !d.refused {
			d.reject(502, EnhancedCode{5, 5, 1}, "This is not an HTTP server")
		}
		d.reply.Disconnect = true
		d.why = reasonHTTP
	}
	if !d.refused {
		s.next = d.pass.Next // even if the library refuses it
		to := command{verb: q.verb, line: d.pass.Command}
		switch {
		case sasl:
			to.verb = "AUTH"
		case to.line != line:
			to.verb = verbOf(to.line)
		}
		if !sasl {
			s.admit(&to, d)
		}
		switch {
		case d.refused:
		case d.tls:
			return // the server doesn't get it
		default:
			s.pass(&to, d)
			return
		}
	}
	s.refused(q, d)
}

// pass completes settle for a command that the server gets.
func (s *Session) pass(to *command, d *decision) {
	if to.verb != "MAIL" || !s.txn.get().doubtful {
		s.advance(&event{kind: passed, cmd: to})
		d.chunk = s.phase == phaseChunk
		return
	}
	if !s.relay {
		s.mustReset = true
		s.advance(&event{kind: passed, cmd: to})
		return
	}
	d.reset = true
	s.advance(&event{kind: passed, cmd: &command{verb: "RSET", swallow: true, after: phaseReset}})
	s.txn.change().behindReset = to.line
}

// refused completes settle for a command that the server doesn't get.
func (s *Session) refused(q *call, d *decision) {
	if d.nothing {
		s.counted.errors.add()
		if s.counted.errors.exceeds(s.cfg.errors) {
			d.tooMany("errors")
		}
	}
	to := command{verb: q.verb}
	if q.verb == "BDAT" && !q.cmd.SASL {
		to.size, to.last = parseBDAT(q.cmd.Line)
		if to.size < 0 {
			// Where the chunk ends is unknown, so what follows can't be
			// told from it.
			d.reply.Disconnect = true
			d.why = reasonChunkSize
		}
		if to.last && d.reply.Code != 421 {
			s.copies = uint32(s.statusesDue())
		}
		if !d.reply.Disconnect {
			s.discard = to.size
		}
	}
	d.copies, d.discard = s.copies, s.discard
	s.lose(d.why)
	s.next = s.next || d.reply.Next
	d.cancel = s.relay && s.phase == phaseSASL
	s.advance(&event{kind: answered, cmd: &to, code: d.reply.Code, over: d.reply.Disconnect})
}

func isKnown(verb string) bool {
	switch verb {
	case "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT",
		"VRFY", "EXPN", "HELP", "AUTH", "STARTTLS", "ETRN", "XCLIENT", "XFORWARD":
		return true
	}
	return false
}
