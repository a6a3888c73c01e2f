package proxytest

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// Record returns an observer that writes sessions down as files that [Run] plays, so that
// what a client has done to a server can be done to its hook, in a test, as often as one
// likes. For each connection it calls open, which returns where to write, or nil for a client
// that is of no interest:
//
//	p.Observers = append(p.Observers, proxytest.Record(func(conn smtpproxy.Connection) io.WriteCloser {
//		f, err := os.Create(filepath.Join(dir, conn.ID+".txtar"))
//		if err != nil {
//			return nil
//		}
//		return f
//	}))
//
// When the connection is over, all is written at once, and closed. Till then it is kept in memory.
// A recording has 1 MiB, and a little more. What the client does goes into it with all that comes
// of that, such as the statuses of an LMTP message, or not at all: where it would be too much,
// the file tells that it is left out, with what came then. Errors of writing are dropped.
//
// A recording tells what the client reads, and no more: an observer isn't told what a
// hook passes. To hold the hook to that, too, put "H: pass" behind one of the client's lines,
// and let Run update the file. Where the server's replies aren't those of the fake one, they are its answers.
// So are those that a listener gives in the server's place, of which a remark tells if they are
// refusals.
//
// Message content is none of it, and what is masked in a [smtpproxy.Command] isn't:
//   - Passwords are replaced by "password", in the form of the SASL mechanism, so that the
//     user's name is the same, if AUTH has succeeded; else that is "user".
//   - "*" stands for a line of a SASL exchange that was refused with 501, with which a client
//     cancels the exchange, or which can't be decoded: an observer isn't told which. "\x00"
//     stands for one with a control character.
//   - MASKED stands for a line that may be a password sent out of its place, **** for one that
//     doesn't even begin like a command, or for a part of one.
//   - The text of a reply to such a command is masked, too, in what it repeats of it. Of a line
//     of a SASL exchange that a server repeats, an observer isn't told what to mask.
//
// All other text, addresses and names are as they were.
//
// Where a client is gone, remarks tell of what can't be played: what it has read last
// without having asked for it, as a 421 when its time is up; the statuses of an LMTP message
// where not each recipient has one; that a message was refused before its end had come, as where
// the client was gone by then; which command has got no reply, unless the one that got the last
// has the same verb: an observer is told of replies. Some of what a hook may have
// seen can't be played either: time, what was Pipelined, the client's
// certificate but for PeerCert.Error, what was bounded by the listener (Proxy.MaxLineLength, CommandTimeout), and the
// server's own reply where a hook has changed it: the recording has it changed. So a
// [smtpproxy.ReplyHook] is shown its own reply, and a [smtpproxy.KeywordHook] asked about its own
// list: one that halves SIZE halves it once more, and one that doesn't delete a keyword any
// more plays like the one that did. Whether a hook has changed the list, an observer isn't told.
func Record(open func(conn smtpproxy.Connection) io.WriteCloser) smtpproxy.Observer {
	key := new(int) // two observers of one connection have a recording each
	of := func(ctx *smtpproxy.Context) *recording { return (*smtpproxy.State[recordings](ctx))[key] }
	return smtpproxy.Observer{
		Connected: func(ctx *smtpproxy.Context, conn smtpproxy.Connection) {
			w := open(conn)
			if w == nil {
				return
			}
			all := smtpproxy.State[recordings](ctx)
			if *all == nil {
				*all = make(recordings)
			}
			(*all)[key] = &recording{w: w, began: time.Now(), conn: conn, from: addressesOf(conn)}
		},
		Exchanged: func(ctx *smtpproxy.Context, x smtpproxy.Exchange) { of(ctx).exchanged(ctx, &x) },
		StartedTLS: func(ctx *smtpproxy.Context, conn smtpproxy.Connection, err error) {
			of(ctx).startedTLS(conn.TLS, err)
		},
		Failed: func(ctx *smtpproxy.Context, f smtpproxy.Failure) { of(ctx).hasFailed(ctx, &f) },
		Disconnected: func(ctx *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) {
			of(ctx).disconnected(end)
		},
	}
}

// recordings are those of one connection.
type recordings map[*int]*recording

// recording is what has been written down of a session. The methods of a nil one do nothing.
type recording struct {
	w     io.WriteCloser
	began time.Time
	conn  smtpproxy.Connection // when it began
	turns

	begun       bool   // the server has greeted, or the client has spoken
	challenged  bool   // the last reply was 334
	contentOver bool   // the last reply was one to the content of a message
	closed      bool   // by the last reply, or the client is gone: nothing more can be played
	verb        string // of the last command that has got a reply, as in End
	refused     refused
	failures    []failure // since the last reply
	server      server    // where the fake one is when all of it is played
	auth        *credentials
	from        addresses // who the client was when it got the last reply
}

// failure is that of a hook, of which an observer is told before the reply.
type failure struct {
	ctx       *smtpproxy.Context
	hook      string
	atCommand bool
}

// refused is a message, or a chunk of one, that was refused with the last reply.
type refused struct {
	client string // what the client did in that turn, empty if there is none
	code   int
}

// Those of a transcript who speak without a name.
const (
	byServer  = "S: "
	byLibrary = "P: "
)

// exchanged writes down a reply, and what it is the reply to.
func (r *recording) exchanged(ctx *smtpproxy.Context, x *smtpproxy.Exchange) {
	if r == nil {
		return
	}
	failed := r.failedBefore(ctx, x)
	if r.full {
		return
	}
	isOther := addressesOf(x.Connection) != r.from
	r.from = addressesOf(x.Connection)
	if !isMasked(x.Command) {
		r.verb = cmp.Or(x.Command.Verb(), r.verb)
	}
	r.conn.EarlyTalker = r.conn.EarlyTalker || x.Connection.EarlyTalker // which its greeting tells
	if x.Connection.RemoteIP == r.conn.RemoteIP {
		r.conn.RemotePTR = cmp.Or(x.Connection.RemotePTR, r.conn.RemotePTR) // the DNS has taken its time
	}
	if t := r.last(); t != nil && x.Recipient > 0 {
		r.hearStatus(t, x)
		return
	}
	r.endTurn()
	if !r.begun && isNone(x.Command) && x.By != smtpproxy.ByLibrary {
		r.connected(x, r.by(x, "", failed), failed)
		return
	}
	if !r.begun {
		r.connected(r.unsaid(), byServer, "")
	}
	if r.isGone() || failed == "" && r.isUnasked(x) {
		r.lastWord(x)
		return
	}
	r.said(x, failed, isOther)
}

// hearStatus writes down a status of an LMTP message but the first one. Of a refusal of the
// hook's to the last chunk, a Session tells once for all recipients.
func (r *recording) hearStatus(t *turn, x *smtpproxy.Exchange) {
	if !r.isServers(x) {
		return
	}
	if x.Reply.Code < 400 {
		r.refused = refused{}
	}
	r.hear(t, x, byServer)
}

// failedBefore returns the line about the hook that has failed at what x is the reply to, empty
// if none has.
func (r *recording) failedBefore(ctx *smtpproxy.Context, x *smtpproxy.Exchange) (line string) {
	for _, f := range r.failures {
		switch {
		case f.ctx == ctx: // a ReplyHook's, which changes nothing in the reply
		case f.atCommand, r.begun && isNone(x.Command): // at an empty line, too
			line = (&decided{hook: f.hook}).by() + "failed"
		case !r.isServers(x): // a ConnectHook's, which a transcript doesn't name
			line = "H: failed"
		}
	}
	r.failures = nil
	return line
}

// isUnasked reports whether a reply is one to nothing that the client has sent, or to a line
// that no observer is told of. What an Exchange is the reply to stays in it until the client's
// next line.
func (r *recording) isUnasked(x *smtpproxy.Exchange) bool {
	switch {
	case r.server.content:
		return false // it is the reply to that
	case r.contentOver && x.Passed.Verb() == "DATA":
		return true // the message has its reply, and another one takes MAIL
	case !x.Reply.Disconnect:
		return false // the client goes on
	case x.Command.SASL != r.challenged:
		return true // it doesn't tell of the line that was due in the exchange, or behind it
	}
	return isNone(x.Passed) && (isNone(x.Command) && x.By != smtpproxy.ByHook || x.By == smtpproxy.ByServer)
}

// isNone reports whether a Command is of nothing that a client has sent.
func isNone(c smtpproxy.Command) bool { return c.Line == "" && !c.SASL }

// isServers reports whether a reply is what came of something that the server got, or would
// have got if no listener of the library's stood before it: that answers STARTTLS, AUTH
// outside of TLS, and content that it doesn't let through.
func (r *recording) isServers(x *smtpproxy.Exchange) bool {
	switch {
	case x.By == smtpproxy.ByServer, !isNone(x.Passed), r.server.content:
		return true
	case x.By != smtpproxy.ByLibrary:
		return false
	}
	return isSTARTTLS(x.Command) || x.Command.Verb() == "AUTH" && x.Reply.Code == 523
}

func isSTARTTLS(c smtpproxy.Command) bool { return c.Verb() == "STARTTLS" && c.Args() == "" }

// connected writes down that the client has connected, and what it has read of that.
func (r *recording) connected(x *smtpproxy.Exchange, who, failed string) {
	r.begun = true
	t := r.turn(connecting)
	t.behind = r.facts // more of which may come to light
	t.verb, t.execute = connecting, (*server).greets
	r.tell(t, failed)
	r.hear(t, x, who)
}

// unsaid is the greeting where the server has said none.
func (r *recording) unsaid() *smtpproxy.Exchange {
	return &smtpproxy.Exchange{Reply: r.server.greet()}
}

// facts returns what is to be told of who has connected.
func (r *recording) facts() string {
	c := r.conn
	c.ID, c.ServerID, c.HELO, c.Auth, c.Peer = "", "", smtpproxy.HELO{}, smtpproxy.Auth{}, defaultClient.Peer
	return toldOf(c, defaultClient)
}

// greets is greet as one that a turn executes.
func (v *server) greets() []smtpproxy.Reply { return []smtpproxy.Reply{v.greet()} }

// said writes down a line of the client's, or message content, with the reply. isOther tells that
// the client has turned out to be another's at that.
func (r *recording) said(x *smtpproxy.Exchange, failed string, isOther bool) {
	passed := x.Passed
	if isNone(passed) && x.By == smtpproxy.ByLibrary && r.isServers(x) {
		passed = x.Command
	}
	var t *turn
	r.contentOver = r.server.content
	switch {
	case r.contentOver:
		t = r.turn("(content)")
		t.verb, t.execute = "DATA", func(v *server) []smtpproxy.Reply { return v.message("DATA") }
	default:
		client, behind := r.masked(x)
		t = r.turn(client)
		t.behind = behind
		if isNone(passed) {
			r.server.sasl = false // a Reply ends the server's exchange
		}
		r.passes(t, passed, x)
	}
	hook := x.Hook
	if isOther {
		hook = "" // a ConnectHook has refused it, which a transcript doesn't name
	}
	who := r.by(x, hook, failed)
	r.remarkAbout(t, x, who)
	r.tell(t, failed)
	r.hear(t, x, who)
	r.refused = refused{}
	if x.Reply.Code >= 400 && who == byServer && (r.contentOver || passed.Verb() == "BDAT") {
		r.refused = refused{t.client, x.Reply.Code}
	}
	if x.Reply.Code == 235 && r.auth != nil {
		r.auth.user = x.Connection.Auth.Username
	}
}

// addresses are those of a Connection. A Restart alone changes them.
type addresses struct{ remote, local netip.AddrPort }

func addressesOf(c smtpproxy.Connection) addresses {
	return addresses{netip.AddrPortFrom(c.RemoteIP, c.RemotePort), netip.AddrPortFrom(c.LocalIP, c.LocalPort)}
}

// remarkAbout remarks what the lines of a turn tell wrong.
func (r *recording) remarkAbout(t *turn, x *smtpproxy.Exchange, who string) {
	switch {
	case who != byServer:
	case x.By == smtpproxy.ByLibrary && x.Reply.Code >= 400:
		r.remark(t, "it is the library that has refused that, in the server's place")
	case x.By == smtpproxy.ByFailure:
		r.remark(t, "a hook has failed at the keywords in the server's reply, which isn't known")
	}
	if x.Command.SASL && x.Reply.Code == 501 {
		r.remark(t, "the client has cancelled, or sent what can't be decoded: both are refused with 501")
	}
}

// passes notes what the server has got in a turn.
func (r *recording) passes(t *turn, passed smtpproxy.Command, x *smtpproxy.Exchange) {
	if isNone(passed) {
		if x.By == smtpproxy.ByServer { // it greets whom a Restart has told
			t.verb, t.execute = connecting, func(v *server) []smtpproxy.Reply {
				*v = v.afresh(v.tls)
				return v.greets()
			}
		}
		return
	}
	line, client := passed.Line, t.client
	t.verb = passed.Verb()
	switch {
	case passed.SASL:
		t.verb = "AUTH"
		if x.Reply.Code == 501 {
			line = cancels
		}
	case line != x.Command.Line:
		r.remark(t, "the server got "+passed.String())
	case isMasked(passed):
		line, t.verb = client, (smtpproxy.Command{Line: client}).Verb()
	}
	verb := t.verb
	t.execute = func(v *server) []smtpproxy.Reply {
		if verb == "MAIL" && v.mail {
			v.reset() // the library has seen to that
		}
		return v.execute(line)
	}
}

// by returns who has given a reply, for a line of the transcript. A hook that has failed hasn't:
// it is that of Proxy.OnFailure.
func (r *recording) by(x *smtpproxy.Exchange, hook, failed string) string {
	switch {
	case r.isServers(x):
		return byServer
	case x.By == smtpproxy.ByHook && failed == "":
		return (&decided{hook: hook}).by()
	}
	return byLibrary
}

// tell writes down a line that comes before the reply, if there is one.
func (r *recording) tell(t *turn, line string) {
	if line != "" {
		r.add(t, &t.heard, spoken{text: line})
	}
}

// hear writes down a reply.
func (r *recording) hear(t *turn, x *smtpproxy.Exchange, who string) {
	s := spoken{who, withoutSecrets(x), x.Reply.Code}
	if who != byServer {
		s.text += marksOf(x.Reply)
	}
	r.add(t, &t.heard, s)
	r.closed, r.challenged = x.Reply.Disconnect, x.Reply.Code == 334
}

// hasFailed notes that a hook has failed.
func (r *recording) hasFailed(ctx *smtpproxy.Context, f *smtpproxy.Failure) {
	if r != nil && !r.full {
		r.failures = append(r.failures, failure{ctx, f.Hook, !isNone(f.Command)})
	}
}

// startedTLS writes down a handshake.
func (r *recording) startedTLS(t smtpproxy.TLS, err error) {
	switch {
	case r == nil, r.full:
	case !r.begun:
		r.conn.TLS = t
	case err != nil:
		r.remark(r.leave(), "the TLS handshake has failed")
	default:
		r.turn("(TLS handshake)" + toldOf(t, smtpproxy.TLS{Protocol: "TLSv1.3"}))
		r.server = r.server.afresh(true)
	}
}

// disconnected writes the recording.
func (r *recording) disconnected(end smtpproxy.End) {
	if r == nil {
		return
	}
	defer r.w.Close()
	if !r.begun {
		r.connected(r.unsaid(), byServer, "")
	}
	r.endTurn()
	hasLastWord := r.isGone()
	if !r.closed && !r.full {
		r.leave()
	}
	if t := r.last(); t != nil && !r.full {
		if end.Verb != r.verb && end.Verb != "" && r.isGone() && len(t.remarks) == 0 {
			r.remark(t, end.Verb+" has got no reply")
		}
		if text := r.refused.early(&end, hasLastWord); text != "" {
			r.remark(t, text)
		}
	}
	fmt.Fprintf(r.w, "Recorded at %s, of connection %s. It was ended by the %v: %v.\n\n-- session --\n%s",
		r.began.UTC().Format(time.RFC3339), r.conn.ID, end.By, end.Reason, r.all())
}

// early returns a remark about a message that may have been refused before its end had come, as
// where the client was gone by then: it can't be seen in its reply. hasLastWord tells that the
// server has said something more.
func (f refused) early(end *smtpproxy.End, hasLastWord bool) string {
	byServer := end.By == smtpproxy.SideServer && end.Reason == smtpproxy.ReasonRefused
	switch {
	case f.client == "":
		return ""
	case end.Reason == smtpproxy.ReasonDataTimeout, byServer && f.code != 421 && !hasLastWord:
		// A server that refuses a message at its end lets the client go on.
		return f.client + " was refused before its end had come"
	case byServer:
		return "whether the end of " + f.client + " had come when it was refused isn't known"
	}
	return ""
}
