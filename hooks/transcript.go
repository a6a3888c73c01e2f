package hooks

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// Transcript writes the dialogue of each connection to a file of its own, say, in the notation
// of proxytest.Session.Transcript, so that what a client does can be read, and made a test:
//
//	C: (connection)
//	S: 220 mx.example ESMTP
//	C: AUTH PLAIN ****              the client's line, credentials masked
//	H: pass                         the hook has let it pass
//	H: pass RCPT TO:<bob@c.example> and put another line in its place
//	H audit: 550 5.7.1 No           or the hook named audit has replied to it
//	P: 503 5.5.1 Bad sequence       or the library has, or OnFailure
//	S: 250 2.0.0 OK                 the server's reply
//	C: (content)                    a message; (TLS handshake); (gone): without QUIT
//
// It sees what an observer sees, which is less than a test does: where hooks of a smtpproxy.Chain
// let a line pass, there is one line for all of them, without names, and of lines of a SASL
// exchange none; Next and Delay aren't there; a Restart is told by what has changed. A reply
// stands there as the client gets it.
//
// Lines are masked as smtpproxy.Command.String does. Replies are not: of one to a line that is
// masked, what is in that line is masked if it is repeated, but a server, or a hook, that
// repeats the line of a SASL exchange gives it away here, too. Message content isn't there.
//
// The zero value writes nothing. A Transcript may be used by many connections at the same time,
// and isn't to be changed then.
type Transcript struct {
	// Open returns what the transcript of a connection is written to, a few lines at a time.
	// nil is none, for clients that aren't of interest. It is closed at the end. Each
	// connection waits for its own; one that is slow, or without end, is for you to buffer,
	// or to bound. So is how many files are open.
	Open func(conn smtpproxy.Connection) (io.WriteCloser, error)

	// Logger gets errors of Open, Write and Close, as warnings; nothing more is written of a
	// connection then. nil is slog.Default.
	Logger *slog.Logger
}

// transcriptStates has what each Transcript knows of a connection.
type transcriptStates struct{ all []*transcriptState }

// transcriptState is what a Transcript knows of a connection.
type transcriptState struct {
	transcript *Transcript
	w          io.WriteCloser // nil if nothing is written
	conn       smtpproxy.Connection
	content    bool   // what comes next is the reply to the content of a message
	failed     string // who the last line has failed at, as printed; empty is nobody
	b          strings.Builder
}

// Observer returns what belongs into Proxy.Observers.
func (t *Transcript) Observer() smtpproxy.Observer {
	if t.Open == nil {
		return smtpproxy.Observer{}
	}
	return smtpproxy.Observer{
		Connected:    t.connected,
		Exchanged:    t.exchanged,
		StartedTLS:   t.startedTLS,
		Failed:       t.failed,
		Disconnected: t.disconnected,
	}
}

// of returns what is known of a connection, nil if nothing is written of it.
func (t *Transcript) of(ctx *smtpproxy.Context) *transcriptState {
	for _, s := range smtpproxy.State[transcriptStates](ctx).all {
		if s.transcript == t && s.w != nil {
			return s
		}
	}
	return nil
}

// warn logs an error, by which the transcript of a connection ends.
func (t *Transcript) warn(conn *smtpproxy.Connection, err error) {
	if err != nil {
		cmp.Or(t.Logger, slog.Default()).LogAttrs(context.Background(), slog.LevelWarn, "smtp: transcript failed",
			slog.String("connection", printable(conn.ID)), slog.String("error", printable(err.Error())))
	}
}

func (t *Transcript) connected(ctx *smtpproxy.Context, conn smtpproxy.Connection) {
	w, err := t.Open(conn)
	if err != nil {
		t.warn(&conn, err)
		return
	}
	if w == nil {
		return
	}
	s := &transcriptState{transcript: t, w: w, conn: conn}
	states := smtpproxy.State[transcriptStates](ctx)
	states.all = append(states.all, s)
	s.line("C: ", "(connection)", "")
	s.flush()
}

func (t *Transcript) failed(ctx *smtpproxy.Context, f smtpproxy.Failure) {
	if s := t.of(ctx); s != nil {
		s.failed = by(f.Hook)
	}
}

func (t *Transcript) startedTLS(ctx *smtpproxy.Context, conn smtpproxy.Connection, err error) {
	s := t.of(ctx)
	switch {
	case s == nil:
		return
	case err != nil:
		s.line("C: ", "(TLS handshake failed)", "")
	default:
		s.line("C: ", "(TLS handshake)", "")
	}
	s.conn, s.content = conn, false
	s.flush()
}

func (t *Transcript) disconnected(ctx *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) {
	s := t.of(ctx)
	if s == nil {
		return
	}
	if end.Reason == smtpproxy.ReasonClientGone {
		s.line("C: ", "(gone)", "")
		s.flush()
	}
	if s.w != nil {
		t.warn(&s.conn, s.w.Close())
		s.w = nil
	}
}

func (t *Transcript) exchanged(ctx *smtpproxy.Context, x smtpproxy.Exchange) {
	s := t.of(ctx)
	if s == nil {
		return
	}
	isCommand := x.Command.Line != "" || x.Command.SASL
	switch {
	case x.Recipient > 0: // another status
	case s.content:
		s.line("C: ", "(content)", "")
	case isCommand:
		s.line("C: ", x.Command.String(), "")
		s.decided(&x)
	}
	who := "S: "
	switch x.By {
	case smtpproxy.ByHook:
		if who = by(x.Hook); s.failed != "" {
			s.line(s.failed, "failed", "")
			who = "P: " // OnFailure
		}
	case smtpproxy.ByFailure:
		s.line(cmp.Or(s.failed, by(x.Hook)), "failed", "")
		who = "P: "
	case smtpproxy.ByLibrary:
		who = "P: "
	}
	s.reply(who, &x)
	s.content = x.Reply.Code == 354
	s.conn, s.failed = x.Connection, ""
	s.flush()
}

// decided writes down what was decided about a line, but for a reply.
func (s *transcriptState) decided(x *smtpproxy.Exchange) {
	atServer := x.By == smtpproxy.ByServer
	pass := "pass"
	if x.Passed.Line != "" && x.Passed.Line != x.Command.Line {
		pass += " " + x.Passed.String()
	}
	switch {
	case x.By == smtpproxy.ByHook, x.By == smtpproxy.ByFailure:
	case s.failed != "":
		s.line(s.failed, "failed", "")
		s.line("P: ", pass, "")
	case atServer && x.Passed.Line == "" && !x.Passed.SASL:
		s.line(by(x.Hook), "restart", s.asXCLIENT(&x.Connection))
	case x.Hooked > 0: // else no hook was asked
		s.line("H: ", pass, "")
	}
}

// asXCLIENT returns what has changed of a connection, in the words of XCLIENT.
func (s *transcriptState) asXCLIENT(now *smtpproxy.Connection) string {
	var b strings.Builder
	was := &s.conn
	tell := func(name string, value any, told bool) {
		if told {
			fmt.Fprintf(&b, " %s=%v", name, value)
		}
	}
	tell("ADDR", now.RemoteIP, now.RemoteIP != was.RemoteIP)
	tell("PORT", now.RemotePort, now.RemotePort != was.RemotePort && now.RemotePort != 0)
	tell("NAME", now.RemotePTR, now.RemotePTR != was.RemotePTR && now.RemotePTR != "")
	tell("DESTADDR", now.LocalIP, now.LocalIP != was.LocalIP)
	tell("DESTPORT", now.LocalPort, now.LocalPort != was.LocalPort)
	tell("PROTO", now.HELO.Verb, now.HELO.Verb != "")
	tell("HELO", now.HELO.Host, now.HELO.Host != "")
	tell("LOGIN", now.Auth.Username, now.Auth.Username != "")
	return b.String()
}

// reply writes a reply down.
func (s *transcriptState) reply(who string, x *smtpproxy.Exchange) {
	marks := ""
	if who != "S: " {
		if x.Reply.Code == 334 {
			marks += " (next)"
		}
		if x.Reply.Disconnect {
			marks += " (close)"
		}
	}
	r := x.Reply
	if repeats(&r, x.Command) || repeats(&r, x.Passed) {
		r.Lines = []string{mask}
	}
	lines := strings.Split(r.String(), "\r\n")
	for i, line := range lines {
		if i < len(lines)-1 {
			s.line(who, line, "")
			continue
		}
		s.line(who, line, marks)
	}
}

// line writes a line, whose text is to be one of printable characters.
func (s *transcriptState) line(who, text, marks string) {
	s.b.WriteString(who)
	s.b.WriteString(printable(text))
	s.b.WriteString(printable(marks))
	s.b.WriteByte('\n')
}

// flush writes the lines to where they belong.
func (s *transcriptState) flush() {
	_, err := io.WriteString(s.w, s.b.String())
	s.b.Reset()
	if err != nil {
		s.transcript.warn(&s.conn, err)
		s.w.Close()
		s.w = nil
	}
}

// by returns how a line begins that tells of a hook.
func by(hook string) string {
	if hook == "" {
		return "H: "
	}
	return "H " + printable(hook) + ": "
}

// repeats tells whether a reply has a word in it of what is masked in a line, in any case, as it
// is or decoded.
func repeats(r *smtpproxy.Reply, cmd smtpproxy.Command) bool {
	if cmd.SASL || !mayHide(cmd) {
		return false
	}
	shown := strings.TrimSuffix(cmd.String(), mask)
	hidden := strings.TrimPrefix(cmd.Line, shown)
	text := strings.ToLower(strings.Join(r.Lines, "\n"))
	for word := range strings.FieldsSeq(hidden) {
		if strings.Contains(text, strings.ToLower(word)) {
			return true
		}
		decoded, _ := base64.RawStdEncoding.DecodeString(strings.TrimRight(word, "="))
		for part := range strings.FieldsFuncSeq(string(decoded), func(r rune) bool { return r < ' ' }) {
			if strings.Contains(text, strings.ToLower(part)) {
				return true
			}
		}
	}
	return false
}
