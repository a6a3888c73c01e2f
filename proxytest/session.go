package proxytest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/probe"
)

// Session is a client's dialogue with the fake server, behind a hook.
//
// The server speaks SMTP and LMTP and accepts all that is well-formed and in
// order: every sender, recipient, message and password. It offers PIPELINING,
// 8BITMIME, SIZE without a limit, ENHANCEDSTATUSCODES, CHUNKING, SMTPUTF8, AUTH
// PLAIN and LOGIN and, without TLS, STARTTLS.
//
// A Session needs no closing, unless the hook wants to be told of the end. Its methods are for one goroutine, but for
// Connection, Transaction and Context, which may be called at any time by any.
// They panic when the test makes the client do what it can't do: send a command
// where content or a TLS handshake is due, or on a closed connection.
type Session struct {
	session *smtpproxy.Session
	server  server
	replies []smtpproxy.Reply // since the client last sent something
	failure error
	failed  bool                                 // at the line that was sent last
	called  func(cancel context.CancelCauseFunc) // is told how to end the Context of the hook's call; may be nil
	decides func(smtpproxy.Decision)             // is told what a hook decides about a line; may be nil
	leaves  bool                                 // the client leaves while the hook has its line
	gone    chan struct{}                        // closed when the hook has been told of the end
	transcript
}

// NewSession returns a session for a client at 192.0.2.1 port 49152 that has
// connected to 192.0.2.25 port 25 and not said anything yet. p is copied and
// not changed.
func NewSession(p *smtpproxy.Proxy) *Session {
	return ResumeSession(p, defaultClient, smtpproxy.Transaction{})
}

// ResumeSession returns a session in the midst of a dialogue: the hook finds
// conn and txn as they are, an empty ID and ServerID filled in as
// [smtpproxy.Proxy.NewSession] does. Set txn.Active for a transaction that is
// open. p is copied and not changed.
func ResumeSession(p *smtpproxy.Proxy, conn smtpproxy.Connection, txn smtpproxy.Transaction) *Session {
	s := &Session{server: resume(conn, txn), gone: make(chan struct{})}
	cfg, onFailure := *p, p.OnFailure
	probe := &probe.Probe{
		Decided:      s.noteDecision,
		Failed:       func(err error) { s.failure, s.failed = err, true },
		Disconnected: sync.OnceFunc(func() { close(s.gone) }),
	}
	cfg.Hook = watchedHook{p.Hook, probe}
	if p.HookFor != nil {
		cfg.HookFor = func(conn smtpproxy.Connection) smtpproxy.Hook {
			h := p.HookFor(conn)
			if h == nil {
				h = p.Hook
			}
			return watchedHook{h, probe}
		}
	}
	cfg.OnFailure = func(ctx *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
		s.failure, s.failed = f, true
		if onFailure != nil {
			return onFailure(ctx, f)
		}
		return nil
	}
	s.session = cfg.ResumeSession(conn, txn)
	return s
}

// noteDecision notes what a hook has decided, for the transcript.
func (s *Session) noteDecision(ctx context.Context, hook string, d any, _ error) {
	decision, _ := d.(smtpproxy.Decision)
	if w, ok := ctx.Value(watchKey{}).(*watch); ok {
		w.decided = append(w.decided, decided{hook, decision})
	}
	if s.decides != nil {
		s.decides(decision)
	}
}

// Connect lets the client connect: the hook decides about it, if it is a
// [smtpproxy.ConnectHook]; without Connect, that isn't asked. It returns an [smtpproxy.Pass], and the server has greeted the
// client then, or the [smtpproxy.Reply] that the client has got instead. One with Restart
// is none: the server has greeted the client that it tells.
func (s *Session) Connect() smtpproxy.Decision {
	s.mustBe(!s.Closed(), "Connect on a closed connection")
	s.replies, s.failed = nil, false
	s.line("C: (connection)")
	d := s.session.Connect(s.session.Context())
	if reply, ok := d.(smtpproxy.Reply); ok && reply.Restart != nil {
		s.decision("H: ", "", d)
	} else if ok {
		by := "H: "
		if s.failed {
			s.line("H: failed")
			by = "P: "
		}
		s.decision(by, "", d)
		s.replies = append(s.replies, reply)
		s.ended()
		return d
	}
	s.greet()
	return d
}

// greet lets the server greet.
func (s *Session) greet() { s.reply(s.server.greet()) }

// startAfresh lets the server start afresh, and greet.
func (s *Session) startAfresh() {
	s.server = s.server.afresh(s.server.tls)
	s.greet()
}

// Close lets the client leave, and the server close the connection. A hook that is a
// [smtpproxy.DisconnectHook] has been told of it when Close returns, as it has when the
// connection is closed by a reply: see Closed.
func (s *Session) Close() {
	if !s.Closed() {
		s.line("C: (gone)")
	}
	s.session.Close()
	s.ended()
}

// ended waits until the hook has been told of the end, if that has come.
func (s *Session) ended() {
	if s.Closed() {
		s.session.Close()
		<-s.gone
	}
}

// Send sends a line, given without its line end: a command or, after a 334, a
// line of the SASL exchange. It returns what was decided about it, by the hook
// or by the library: an [smtpproxy.Pass] whose Command is the line that the
// server got, or an [smtpproxy.Reply] with all fields filled in, never a
// pointer.
//
// A passed command is executed and replied to by the fake server when Send
// returns. The octets of a BDAT chunk count as sent with the command. A Reply to
// the last chunk of an LMTP message is the client's once for each recipient. At a Reply
// with Restart, the fake server starts afresh, and the client has got its greeting.
func (s *Session) Send(line string) smtpproxy.Decision {
	s.mustBe(!s.Closed(), "Send on a closed connection")
	s.mustBe(!s.server.content, "Send where content is due: use SendContent")
	s.mustBe(!s.server.handshake, "Send where a TLS handshake is due: use StartTLS")
	s.replies, s.failed = nil, false

	w := new(watch)
	ctx, cancel := context.WithCancelCause(s.session.Context())
	defer cancel(nil)
	if s.called != nil {
		s.called(cancel)
	}
	d := s.session.Command(context.WithValue(ctx, watchKey{}, w), line)
	if s.leaves {
		s.b.WriteString("C: (leaves) ")
	} else {
		s.b.WriteString("C: ")
	}
	s.decided(line, d, w, s.failed)
	if reply, ok := d.(smtpproxy.Reply); ok && reply.Restart != nil {
		s.startAfresh()
		return d
	} else if ok {
		s.server.sasl = false // a Reply ends the server's exchange
		for range s.session.Copies() {
			s.replies = append(s.replies, reply)
		}
		s.ended()
		return d
	}
	if s.session.MustReset() {
		s.server.reset()
	}
	for _, reply := range s.server.execute(d.(smtpproxy.Pass).Command) {
		s.reply(reply)
	}
	return d
}

// SendAndLeave sends a line, and the client leaves while the hook has it: the hook's Context
// is done, for [smtpproxy.ErrClientGone]. The connection is closed then, as by Close.
func (s *Session) SendAndLeave(line string) smtpproxy.Decision {
	s.called, s.leaves = func(cancel context.CancelCauseFunc) { cancel(smtpproxy.ErrClientGone) }, true
	d := s.Send(line)
	s.called, s.leaves = nil, false
	s.session.Close()
	s.ended()
	return d
}

// SendContent sends the content of a message, after the server's 354, and its
// end. The hook gets no content to see, so there is none to give. The server
// replies, with LMTP once for each accepted recipient (RFC 2033 section 4.2).
func (s *Session) SendContent() {
	s.mustBe(!s.Closed(), "SendContent on a closed connection")
	s.mustBe(s.server.content, "SendContent without a 354 from the server")
	s.replies = nil
	s.line("C: (content)")
	for _, reply := range s.server.message("DATA") {
		s.reply(reply)
	}
}

// StartTLS completes a TLS handshake, after the server's 220 to STARTTLS. From
// then on the hook sees t in Connection.TLS. The client has to greet again (RFC
// 3207 section 4.2), but for what a Restart has told.
func (s *Session) StartTLS(t smtpproxy.TLS) {
	s.mustBe(s.server.handshake, "StartTLS without a 220 to STARTTLS from the server")
	s.replies = nil
	s.line("C: (TLS handshake)")
	s.server = s.server.afresh(true)
	s.session.StartedTLS(t)
}

// Answer sets what the server replies to the next command with the given verb,
// in any case, that it gets, instead of what a good server would. The line of a
// SASL exchange and message content count for the command that they belong to,
// so that after a passed DATA, Answer("DATA", 554) is the reply to the content. Before an
// AUTH whose response comes in a line of its own, Answer("AUTH", 334, "") comes first.
// Several answers to the same verb are used up in turn. Lines are the text of
// the reply, the enhanced status code included; none means a standard text. The verb
// "(connection)" stands for the server's greeting.
//
// It panics if verb is no verb, if a line has a line end, and with a code that
// isn't from 200 to 299 or from 400 to 599, nor 334 for AUTH or 354 for DATA; of a greeting,
// 220 is the only good one.
func (s *Session) Answer(verb string, code int, lines ...string) {
	mistake := s.server.answers.add(verb, code, lines)
	s.mustBe(mistake == "", mistake)
}

// Reply returns what the client has got last: the hook's reply, the library's
// or the server's. That of the server has its enhanced status code in Lines and
// none in Enhanced; String gives the same text either way. It is the zero Reply
// before the first.
func (s *Session) Reply() smtpproxy.Reply {
	if len(s.replies) == 0 {
		return smtpproxy.Reply{}
	}
	return s.replies[len(s.replies)-1]
}

// Replies returns all that the client has got since it last sent something, in
// a slice that is the caller's: more than one reply after an LMTP message.
func (s *Session) Replies() []smtpproxy.Reply { return slices.Clone(s.replies) }

// Closed reports whether the connection is closed: by a Reply that says so, by
// a failure of the hook, or by the server with a 221 or 421.
func (s *Session) Closed() bool { return s.session.Context().Err() != nil }

// Failure returns the last failure of the hook, an [smtpproxy.Failure] as an
// OnFailure of the Proxy gets it, nil if there was none.
func (s *Session) Failure() error { return s.failure }

// Connection returns the connection as the hook would see it now.
func (s *Session) Connection() smtpproxy.Connection { return s.session.Connection() }

// Transaction returns the transaction as the hook would see it now.
func (s *Session) Transaction() smtpproxy.Transaction { return s.session.Transaction() }

// Context returns the context of the connection. With it, [smtpproxy.State]
// reaches what the hook keeps for the connection; before the first Send, a test
// can set that up. It is done when the connection is closed.
func (s *Session) Context() *smtpproxy.Context { return s.session.Context() }

// reply gives the client a reply of the server's, if it still can get one.
func (s *Session) reply(r smtpproxy.Reply) {
	if s.Closed() {
		return
	}
	r.Lines = slices.Clone(r.Lines) // they become the test's
	r = s.session.Replied(r.Code, r.Lines...)
	r.Next = r.Code == 334
	s.replies = append(s.replies, r)
	s.replied(r)
	s.ended()
}

// mustBe panics about a mistake of the test.
func (s *Session) mustBe(ok bool, mistake string) {
	if ok {
		return
	}
	if s.failure != nil {
		mistake += fmt.Sprintf(" (the hook failed: %v)", s.failure)
	}
	panic("proxytest: " + mistake)
}
