package proxytest

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
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
// When the connection is over, all is written at once, and closed. What is kept till then is
// 1 MiB at most; of what goes beyond, the file tells that it is left out. Errors of writing are
// dropped.
//
// A recording tells what the client reads, and no more: an observer isn't told what a
// hook passes. To hold the hook to that, too, put "H: pass" behind one of the client's lines,
// and let Run update the file. Where the server's replies aren't those of the fake one, they are its answers.
// Passwords are replaced by "password", in the form of the SASL mechanism, so that the user's
// name is the same, if AUTH has succeeded; of what else is masked in a [smtpproxy.Command], the mask is left. Message
// content is none of it. Addresses, names and the text of replies are as they were.
//
// Where a client is gone, a remark tells of what can't be played: what it has read last
// without having asked for it, as a 421 when its time is up; which command has got no reply;
// the statuses of an LMTP message where not each recipient has one. Some of what a hook may have
// seen can't be played either: time, what was Pipelined, the client's
// certificate but for PeerCert.Error, what was bounded by the listener (Proxy.MaxLineLength, CommandTimeout), and the
// server's own reply where a [smtpproxy.ReplyHook] has changed it: the recording has it changed.
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
			(*all)[key] = &recording{w: w, began: time.Now(), conn: conn}
		},
		Exchanged: func(ctx *smtpproxy.Context, x smtpproxy.Exchange) { of(ctx).exchanged(&x) },
		StartedTLS: func(ctx *smtpproxy.Context, conn smtpproxy.Connection, err error) {
			of(ctx).startedTLS(conn.TLS, err)
		},
		Failed: func(ctx *smtpproxy.Context, f smtpproxy.Failure) { of(ctx).hasFailed(f.Hook) },
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

	turns       []*turn
	size        int
	full        bool
	begun       bool   // the server has greeted, or the client has spoken
	challenged  bool   // the last reply was 334
	contentOver bool   // the last reply was one to the content of a message
	closed      bool   // by the last reply
	verb        string // of the last command that has got a reply, as in End
	failed      string
	server      server // where the fake one is when all of it is played
	auth        *credentials
}

// turn is what the client does, and what comes of it.
type turn struct {
	client string // its line as readClient reads it, or the beginning of it
	behind func() string

	verb    string                            // of what the server has got
	execute func(v *server) []smtpproxy.Reply // lets the fake server do the same
	replies []smtpproxy.Reply                 // of the server's
	heard   []string                          // lines S:, H: and P:
	answers []string                          // lines A:
	remark  string
	over    bool
}

// maxRecording bounds what is kept of a connection.
const maxRecording = 1 << 20

// turn begins one, and ends the one before.
func (r *recording) turn(client string) *turn {
	r.endTurn()
	t := &turn{client: client}
	r.turns = append(r.turns, t)
	return t
}

// endTurn lets the fake server follow what the real one has replied, and notes what it has to
// be told to do the same.
func (r *recording) endTurn() {
	if len(r.turns) == 0 {
		return
	}
	t := r.turns[len(r.turns)-1]
	if t.over {
		return
	}
	t.over = true
	if t.execute != nil && len(t.replies) > 0 {
		own := r.server
		switch replies := t.execute(&own); {
		case slices.EqualFunc(replies, t.replies, reads):
			r.server = own
		case len(replies) > len(t.replies):
			// The connection has ended amid the statuses of an LMTP message. The fake server
			// has one for each recipient.
			r.server = own
			said := t.heard
			*t = turn{client: "(gone)", over: true}
			t.lastWords(said)
		default:
			r.server.answers = &answers{byVerb: map[string][]smtpproxy.Reply{t.verb: slices.Clone(t.replies)}}
			t.execute(&r.server)
			r.server.answers = nil
			for _, reply := range t.replies {
				t.answers = append(t.answers, saidBy("A: "+t.verb+" ", reply)...)
			}
		}
	}
	for _, line := range slices.Concat(t.answers, t.heard) {
		r.size += len(line)
	}
	r.size += len(t.client) + 100
}

// reads reports whether a client reads the same in two replies.
func reads(a, b smtpproxy.Reply) bool { return a.String() == b.String() }

// saidBy returns the lines of a reply.
func saidBy(who string, r smtpproxy.Reply) []string {
	return strings.Split(who+strings.ReplaceAll(r.String(), "\r\n", "\n"+who), "\n")
}

// exchanged writes down a reply, and what it is the reply to.
func (r *recording) exchanged(x *smtpproxy.Exchange) {
	if r == nil {
		return
	}
	defer func() { r.failed = "" }()
	isMore := x.Recipient > 0 // a status of an LMTP message whose others are written down
	if r.full = r.full || r.size > maxRecording && !isMore; r.full {
		return
	}
	if !isMasked(x.Command) {
		r.verb = cmp.Or(x.Command.Verb(), r.verb)
	}
	r.conn.EarlyTalker = r.conn.EarlyTalker || x.Connection.EarlyTalker // which its greeting tells
	if x.Connection.RemoteIP == r.conn.RemoteIP {
		r.conn.RemotePTR = cmp.Or(x.Connection.RemotePTR, r.conn.RemotePTR) // the DNS has taken its time
	}
	if isMore && len(r.turns) > 0 {
		if r.isServers(x) {
			r.hear(r.turns[len(r.turns)-1], x, "S: ")
		}
		return
	}
	r.endTurn()
	if !r.begun && isNone(x.Command) && x.By != smtpproxy.ByLibrary {
		r.connected(x, r.by(x, ""))
		return
	}
	if !r.begun {
		r.connected(r.unsaid(), "S: ")
	}
	if r.isLastWord(x) {
		r.gone().lastWords(saidBy(r.by(x, ""), x.Reply))
		return
	}
	r.said(x)
}

// isLastWord reports whether a reply is the answer to nothing that the client has sent since
// the one before.
func (r *recording) isLastWord(x *smtpproxy.Exchange) bool {
	switch {
	case r.server.content:
		return false
	case r.contentOver && x.Passed.Verb() == "DATA":
		return true // without MAIL, the server gets no other
	case !x.Reply.Disconnect:
		return false
	case x.Command.SASL != r.challenged:
		return true // a line of a SASL exchange was due, or that is over
	}
	return isNone(x.Passed) && (isNone(x.Command) || x.By == smtpproxy.ByServer)
}

// gone writes down that the client is gone.
func (r *recording) gone() *turn {
	r.closed = true
	if len(r.turns) > 0 {
		if t := r.turns[len(r.turns)-1]; t.client == "(gone)" {
			return t
		}
	}
	return r.turn("(gone)")
}

// lastWords notes what can't be played: a reply with which the connection has ended, though it
// was due to nothing, or others were due.
func (t *turn) lastWords(lines []string) {
	if t.remark == "" {
		t.remark = "the last word was "
	} else {
		t.remark += ", "
	}
	t.remark += strings.Join(lines, ", ")
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
func (r *recording) connected(x *smtpproxy.Exchange, who string) {
	r.begun = true
	t := r.turn("(connection)")
	t.behind = r.facts // more of which may come to light
	t.verb, t.execute = connecting, (*server).greets
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

// said writes down a line of the client's, or message content, with the reply.
func (r *recording) said(x *smtpproxy.Exchange) {
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
	r.hear(t, x, r.by(x, x.Hook))
	if x.Reply.Code == 235 && r.auth != nil {
		r.auth.user = x.Connection.Auth.Username
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
	line := passed.Line
	t.verb = passed.Verb()
	switch {
	case passed.SASL:
		t.verb = "AUTH"
		if x.Reply.Code == 501 {
			line = cancels
		}
	case line != x.Command.Line:
		t.remark = "the server got " + passed.String()
	case isMasked(passed):
		line, t.verb = t.client, (smtpproxy.Command{Line: t.client}).Verb()
	}
	t.execute = func(v *server) []smtpproxy.Reply {
		if t.verb == "MAIL" && v.mail {
			v.reset() // the library has seen to that
		}
		return v.execute(line)
	}
}

// by returns who has given a reply, for a line of the transcript.
func (r *recording) by(x *smtpproxy.Exchange, hook string) string {
	switch {
	case r.isServers(x):
		return "S: "
	case x.By == smtpproxy.ByHook && r.failed == "":
		return (&decided{hook: hook}).by()
	}
	return "P: "
}

// hear writes down a reply.
func (r *recording) hear(t *turn, x *smtpproxy.Exchange, who string) {
	if who != "S: " && r.failed != "" {
		t.heard = append(t.heard, r.failed)
	}
	lines := saidBy(who, x.Reply)
	if who == "S: " {
		t.replies = append(t.replies, x.Reply)
	} else {
		lines[len(lines)-1] += marksOf(x.Reply)
	}
	t.heard = append(t.heard, lines...)
	r.closed, r.challenged = x.Reply.Disconnect, x.Reply.Code == 334
}

// hasFailed notes that a hook has failed.
func (r *recording) hasFailed(hook string) {
	if r != nil {
		r.failed = (&decided{hook: hook}).by() + "failed"
	}
}

// startedTLS writes down a handshake.
func (r *recording) startedTLS(t smtpproxy.TLS, err error) {
	switch {
	case r == nil, r.full, r.closed:
	case !r.begun:
		r.conn.TLS = t
	case err != nil:
		r.gone().remark = "the TLS handshake has failed"
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
		r.connected(r.unsaid(), "S: ")
	}
	r.endTurn()
	if !r.closed && !r.full {
		if t := r.gone(); t.remark == "" && end.Verb != r.verb && end.Verb != "" {
			t.remark = end.Verb + " has got no reply"
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Recorded at %s, of connection %s. It was ended by the %v: %v.\n\n-- session --\n",
		r.began.UTC().Format(time.RFC3339), r.conn.ID, end.By, end.Reason)
	for _, t := range r.turns {
		t.writeTo(&b)
	}
	if r.full {
		b.WriteString("# What came then is left out: it was more than 1 MiB.\n")
	}
	io.WriteString(r.w, b.String())
}

func (t *turn) writeTo(b *strings.Builder) {
	for _, line := range t.answers {
		b.WriteString(line + "\n")
	}
	b.WriteString("C: " + t.client)
	if t.behind != nil {
		b.WriteString(t.behind())
	}
	b.WriteString("\n")
	if t.remark != "" {
		b.WriteString("# " + t.remark + "\n")
	}
	for _, line := range t.heard {
		b.WriteString(line + "\n")
	}
}
