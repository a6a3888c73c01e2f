package smtpproxy

import (
	"context"
	"sync"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/sasl"
)

// Session is the dialogue of one client with a server, without any I/O: it
// shows commands to the hook and follows the server's replies. A listener has
// one for each connection; a server with a state machine of its own calls it
// directly:
//
//   - Connect before it greets; if that returns a Reply without Restart: send it, and
//     close;
//   - Command for each line that it reads, lines of a SASL exchange too;
//   - if that returns a Reply: drop Discard octets, send it Copies times, and
//     close if it says so. A Reply to a line of a SASL exchange ends the
//     exchange;
//   - if a Reply has Restart set, the client is another's: forget what it has said, but TLS
//     and what is behind the line, take its addresses from Connection, greet, and call
//     Replied with the greeting, which is the reply;
//   - if that returns a Pass: forget the transaction if MustReset says so,
//     execute its Command, and call Replied with each reply: what it returns is what
//     to send. After 354, content is read as usual, and the reply (with LMTP,
//     replies) to its end goes to Replied; after BDAT, its chunk is read
//     before the reply. Chunks that the session passes are within the SIZE
//     that the server has told in its EHLO reply; without one, a chunk of up
//     to 4 GiB may pass.
//
// What is returned may have a Delay: wait for so long, or for the client's end if that comes
// before, and only then execute it, or send it. To have a hook told that the client leaves
// during Command, cancel its ctx with [ErrClientGone] (see context.WithCancelCause).
//
// When the connection ends, Close does for the session.
//
// docs/ownserver.md has all of this in a table, with what happens if it is left out.
//
// Connect comes first, then Command and Replied are called alternately, and StartedTLS
// between them, by one goroutine at a time. The other methods may be called at any time by any goroutine.
type Session struct {
	cfg   *config
	ctx   *Context // of the whole session
	spare *Context // made for the next call of the hook, if any
	state userState

	mu   sync.Mutex // the lock for state: see conn
	m    dialogue.Machine
	conn facts
	txn  transaction
	line string // the command that the server has, as far as its reply tells of it

	exchange *sasl.Exchange // of the AUTH command under way, for its user name
	who      *identity      // what isn't in conn of who is connected; may be nil

	more *extras // what few sessions have

	copies    uint32 // see Copies
	mustReset bool   // see MustReset
	reported  bool   // why the library has ended the connection is logged
	begun     bool   // begin has been called; of the goroutine that calls Command
	isOver    bool   // the server is through with the connection
}

// extras are what few sessions have.
type extras struct {
	own      *links   // of the hook that Proxy.HookFor has chosen
	asked    []int    // the hooks that have asked for the next line
	withheld withheld // what a hook has deleted from the keywords
	watch    *watch   // what is noted for the End
	talk     *talk    // what is noted for an Exchange
	told     *told    // what a hook has told of the client

	closing chan struct{} // see there
}

// extras returns them, to be changed. Its caller holds s.mu.
func (s *Session) extras() *extras {
	if s.more == nil {
		s.more = new(extras)
	}
	return s.more
}

// links returns the hooks. Its caller holds s.mu.
func (s *Session) links() *links {
	switch {
	case s.more != nil && s.more.own != nil:
		return s.more.own
	case s.cfg.HookFor != nil:
		return s.cfg.unchosen
	}
	return s.cfg.links
}

// NewSession returns a session for a connection that conn describes. An empty
// conn.ID is replaced by a random UUID, an empty ServerID by the Proxy's, and a Peer that
// isn't valid by RemoteIP and RemotePort. conn may have greeted, started TLS and authenticated already.
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
	s := newSession(cfg, conn.facts(), conn.RemotePTR, txn, false)
	if conn.Peer.IsValid() {
		s.extras().told = &told{peer: conn.Peer}
	}
	return s
}

// newSession returns a session. ptr is the client's host name, if it is known. relay
// tells that the library stands in front of the server.
func newSession(cfg *config, conn facts, ptr string, txn transaction, relay bool) *Session {
	s := &Session{cfg: cfg, conn: conn, txn: txn}
	s.m = dialogue.New(&cfg.policy, dialogue.Start{
		Relay: relay,
		LMTP:  conn.helo.Verb == "LHLO", TLS: conn.inTLS(), Auth: conn.hasAuth(),
		Active: txn.get().Active, Recipients: txn.get().Recipients.Len(),
	})
	s.ctx = &Context{parent: context.Background(), state: &s.state}
	switch {
	case ptr != "":
		s.who = &identity{ptr: ptr}
	case cfg.LookupPTR && conn.remoteIP.IsValid():
		s.who = new(identity)
		s.who.lookUp(s, conn.remoteIP)
	}
	return s
}

// Connection returns the connection as a hook would see it now. Behind a listener,
// before the server has first read or written, it asks the connection for its
// addresses, which may have to wait for a PROXY header.
func (s *Session) Connection() Connection {
	var conn Connection
	s.see(&conn)
	return conn
}

// see makes conn, which must be zero, what Connection returns.
func (s *Session) see(conn *Connection) {
	s.learn()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view(conn)
}

// view makes conn, which must be zero, the connection as a hook sees it now. Its caller holds s.mu.
func (s *Session) view(conn *Connection) {
	s.conn.view(conn)
	if t := s.toldOf(); t != nil {
		conn.Peer = t.peer
	}
	conn.ServerID = s.cfg.ServerID
	if s.who != nil {
		conn.RemotePTR = s.who.ptr
	}
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
	left, _ := s.m.ChunkLeft()
	return left
}

// Command decides about the client's next line, given without its line end. It
// returns Pass with the Command to execute, or Reply with all fields filled
// in; never nil, never a pointer, always valid. Restart has what the hooks together have
// told of the client. ctx is what the hook's Context is made from, also where a
// [ConnectHook] is asked about that client.
func (s *Session) Command(ctx context.Context, line string) Decision {
	var d decision
	s.decide(ctx, line, &d)
	if d.kind == toServer {
		return d.pass
	}
	return d.reply
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
// be left out. A server that greets may tell its greeting too; behind a Restart it has to,
// or the next command gets 421.
//
// It returns the reply that the client gets: with the lines given, unless a [KeywordHook]
// has changed those of a reply to EHLO or LHLO, or a [ReplyHook] the reply. A reply that can't
// be one to the last command, and one behind the end of the session, becomes a 421 with
// Disconnect.
func (s *Session) Replied(code int, lines ...string) (r Reply) {
	v := s.hear(code, lines, &r)
	if v == nil {
		return r
	}
	if s.show(v); v.changed {
		r = v.x.Reply
	}
	r.Delay = v.delay
	r.Disconnect = r.Disconnect || v.isLast
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.isLast {
		s.endByHook()
	}
	s.watched().replies(r)
	return r
}

// hear lets a reply of the server's move the session, and makes r the reply that the client
// gets. It returns what is to be shown of it, nil if nobody looks.
func (s *Session) hear(code int, lines []string, r *Reply) *showing {
	s.mu.Lock()
	defer s.mu.Unlock()
	over, message, by := s.m.State().HasEnded(), s.m.IsMessage(), ByServer
	if t := s.toldOf(); t != nil {
		t.mustGreet = false
	}
	var list listing
	if s.m.Greets() {
		list = s.list(code, lines)
	}
	var to Recipient
	step := s.replied(code, s.accepts(code, &to), list.size)
	r.Code, r.Enhanced, r.Lines, r.Disconnect = code, NoEnhancedCode, lines, s.m.State().HasEnded()
	switch {
	case list.failed:
		*r, by = failureReply.filled(dialogue.NoVerb), ByFailure
	case over, step.Fate == dialogue.LoseStep:
		*r, by = failureReply.filled(dialogue.NoVerb), ByLibrary
	case list.lines != nil:
		r.Lines = list.lines
	}
	if over || s.more == nil {
		return nil
	}
	s.watched().replies(*r)
	if s.talked() == nil {
		return nil
	}
	seen := *r
	if by == ByServer {
		seen = parsed(code, r.Lines)
	}
	return s.shown(by, &seen, oneIf(message))
}

// StartedTLS tells the session that the server has completed a TLS handshake
// after STARTTLS. All that was known before it is gone (RFC 3207 section 4.2),
// but the connection's ID and user state, and what a Restart has told.
func (s *Session) StartedTLS(t TLS) {
	s.mu.Lock()
	ended := s.m.State().HasEnded()
	s.startedTLS(t)
	s.mu.Unlock()
	if !ended {
		s.observeTLS(nil)
	}
}

// Close ends the session: its Context is done. A server with a state machine of
// its own calls it when the connection is closed. A call of the hook under way
// goes on; to end it, cancel the ctx given to Command.
func (s *Session) Close() {
	s.mu.Lock()
	if s.owesGreeting() {
		s.watched().wontRestart()
	}
	s.m.Close()
	s.moved(false)
	if !s.m.IsRelay() {
		s.over()
	}
	l, told := s.links(), s.watched() != nil
	s.mu.Unlock()
	if !told {
		l.toldProbe() // there is nothing to be told of
	}
}

// shut ends the session from within.
func (s *Session) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.Close()
	s.moved(false)
}
