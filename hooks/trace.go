package hooks

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy"
)

// Trace writes the dialogue of each connection to a log: who has connected, each command
// with its reply and who has given it, and, when it is over, a summary in Postfix's manner.
// It is an observer, and decides nothing:
//
//	trace := &hooks.Trace{}
//	p := &smtpproxy.Proxy{Observers: []smtpproxy.Observer{trace.Observer()}}
//
// These are the records. Each has first the attributes "connection", its ID, and "remote", the
// client's address, which is left out where there is none, as on a unix socket:
//
//	smtp: connected     port; peer, who is connected, if that isn't the client
//	smtp: command       code, by (server, hook, library, failure), hook, line, passed (what
//	                    the server got, if that is another line), reply (the text), recipient
//	                    (the index, in LMTP), octets (of content), hooked, served (the time in
//	                    hooks, and in the server)
//	smtp: started TLS   protocol, cipher; or error
//	smtp: hook failed   hook, cause (error, panic, timeout, invalid decision), line
//	smtp: disconnected  by (client, server, hook, library), reason, code (of the last reply),
//	                    user (who has authenticated), duration, received, sent (octets),
//	                    commands
//
// In "ehlo=1 auth=0/1 mail=2 rcpt=1/2 data=1 commands=5/7", one of two RCPT was accepted. What
// no server knows is "unknown", unless it was accepted and has letters, digits and hyphens only.
//
// A command is logged when its reply leaves, be it the greeting, which has no line. The two
// replies of a message, 354 and that to the content, are two records and one command; so are
// the statuses of an LMTP message.
//
// # Credentials
//
// Lines are masked as smtpproxy.Command.String does. Of a reply to a line that is masked, the
// text is, too, since some servers repeat what they don't understand. The text of errors isn't
// logged; the Proxy's own Logger has it. Senders, recipients and user names are logged: whom
// they tell something, and for how long, is for you to decide.
//
// Each value is one line of printable characters, and what the client can say comes behind
// "remote" and "code": so a program that reads the log isn't told something else by a client.
// docs/fail2ban.md has a filter for fail2ban.
//
// The zero value logs everybody to slog.Default. A Trace may be used by many connections at the
// same time, and isn't to be changed then; each connection waits for the Logger's handler.
type Trace struct {
	// Logger gets the records; nil is slog.Default.
	Logger *slog.Logger

	// Level is that of "smtp: command"; the zero value is slog.LevelInfo. Failures have
	// slog.LevelError, all other records slog.LevelInfo.
	Level slog.Level

	// Networks has those whose clients are traced; empty is everybody. It's the client that
	// counts, as conn.RemoteIP tells it: behind an XCLIENT that is believed, the one that was
	// told. One without an address is in no network.
	Networks []netip.Prefix
}

// traceStates has what each Trace knows of a connection: there may be more than one.
type traceStates struct{ all []*traceState }

// traceState is what a Trace knows of a connection.
type traceState struct {
	trace  *Trace
	conn   string     // its ID
	remote netip.Addr // as it was last

	counts   []traceCount // in the order in which the verbs first came
	last     string       // the verb of the last one, as it is counted
	goesOn   bool         // it isn't over, behind 334 or 354
	accepted bool         // it was, for a recipient at least
}

// traceCount counts the commands with a verb.
type traceCount struct {
	verb            string
	accepted, total int
}

// Observer returns what belongs into Proxy.Observers.
func (t *Trace) Observer() smtpproxy.Observer {
	return smtpproxy.Observer{
		Connected:    t.connected,
		Exchanged:    t.exchanged,
		StartedTLS:   t.startedTLS,
		Failed:       t.failed,
		Disconnected: t.disconnected,
	}
}

// of returns what is known of a connection.
func (t *Trace) of(ctx *smtpproxy.Context) *traceState {
	states := smtpproxy.State[traceStates](ctx)
	for _, s := range states.all {
		if s.trace == t {
			return s
		}
	}
	s := &traceState{trace: t}
	states.all = append(states.all, s)
	return s
}

// at notes who a connection is of.
func (s *traceState) at(conn *smtpproxy.Connection) *traceState {
	s.conn, s.remote = conn.ID, conn.RemoteIP
	return s
}

// logs tells whether there is somebody to get a record.
func (s *traceState) logs(ctx context.Context, level slog.Level) bool {
	t := s.trace
	return (len(t.Networks) == 0 || isIn(t.Networks, s.remote)) && t.logger().Enabled(ctx, level)
}

func (t *Trace) logger() *slog.Logger { return cmp.Or(t.Logger, slog.Default()) }

// log logs a record, if there is somebody to get it.
func (s *traceState) log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr) {
	ctx = context.WithoutCancel(ctx) // a record isn't lost since the client is
	if !s.logs(ctx, level) {
		return
	}
	about := append(make([]slog.Attr, 0, 2+len(attrs)), slog.String("connection", printable(s.conn)))
	if s.remote.IsValid() {
		about = append(about, slog.String("remote", printable(s.remote.String())))
	}
	s.trace.logger().LogAttrs(ctx, level, msg, append(about, attrs...)...)
}

func (t *Trace) connected(ctx *smtpproxy.Context, conn smtpproxy.Connection) {
	var attrs []slog.Attr
	if conn.RemotePort != 0 {
		attrs = append(attrs, slog.Int("port", int(conn.RemotePort)))
	}
	if conn.Peer.IsValid() && conn.Peer.Addr() != conn.RemoteIP {
		attrs = append(attrs, slog.String("peer", printable(conn.Peer.String())))
	}
	t.of(ctx).at(&conn).log(ctx, slog.LevelInfo, "smtp: connected", attrs...)
}

func (t *Trace) exchanged(ctx *smtpproxy.Context, x smtpproxy.Exchange) {
	s := t.of(ctx).at(&x.Connection)
	s.count(&x)
	if !s.logs(ctx, t.Level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 10), slog.Int("code", x.Reply.Code), slog.String("by", x.By.String()))
	if x.Hook != "" {
		attrs = append(attrs, slog.String("hook", printable(x.Hook)))
	}
	line := x.Command.String()
	if x.Command.Line != "" || x.Command.SASL {
		attrs = append(attrs, slog.String("line", line))
	}
	if x.Passed.Line != x.Command.Line && x.Passed.Line != "" {
		attrs = append(attrs, slog.String("passed", x.Passed.String()))
	}
	text := textOf(&x.Reply)
	if mayHide(x.Command) || mayHide(x.Passed) {
		text = textOf(&smtpproxy.Reply{Enhanced: x.Reply.Enhanced, Lines: []string{mask}})
	}
	attrs = append(attrs, slog.String("reply", text))
	if x.Recipient >= 0 {
		attrs = append(attrs, slog.Int("recipient", x.Recipient))
	}
	if x.Octets > 0 {
		attrs = append(attrs, slog.Int64("octets", x.Octets))
	}
	attrs = append(attrs, slog.Duration("hooked", x.Hooked), slog.Duration("served", x.Served))
	s.log(ctx, t.Level, "smtp: command", attrs...)
}

func (t *Trace) startedTLS(ctx *smtpproxy.Context, conn smtpproxy.Connection, err error) {
	attrs := []slog.Attr{slog.String("protocol", conn.TLS.Protocol), slog.String("cipher", conn.TLS.Cipher)}
	if err != nil {
		attrs = []slog.Attr{slog.String("error", printable(err.Error()))}
	}
	t.of(ctx).at(&conn).log(ctx, slog.LevelInfo, "smtp: started TLS", attrs...)
}

func (t *Trace) failed(ctx *smtpproxy.Context, f smtpproxy.Failure) {
	var attrs []slog.Attr
	if f.Hook != "" {
		attrs = append(attrs, slog.String("hook", printable(f.Hook)))
	}
	cause := "error"
	switch {
	case errors.Is(f.Err, smtpproxy.ErrHookPanic), errors.Is(f.Err, smtpproxy.ErrHookExit):
		cause = "panic"
	case errors.Is(f.Err, smtpproxy.ErrHookTimeout):
		cause = "timeout"
	case errors.Is(f.Err, smtpproxy.ErrInvalidDecision):
		cause = "invalid decision"
	}
	attrs = append(attrs, slog.String("cause", cause))
	if f.Command.Line != "" {
		attrs = append(attrs, slog.String("line", f.Command.String()))
	}
	t.of(ctx).log(ctx, slog.LevelError, "smtp: hook failed", attrs...)
}

func (t *Trace) disconnected(ctx *smtpproxy.Context, conn smtpproxy.Connection, end smtpproxy.End) {
	s := t.of(ctx).at(&conn)
	attrs := []slog.Attr{slog.String("by", end.By.String()), slog.String("reason", end.Reason.String())}
	if end.Reply.Code != 0 {
		attrs = append(attrs, slog.Int("code", end.Reply.Code))
	}
	if conn.Auth.Username != "" {
		attrs = append(attrs, slog.String("user", printable(conn.Auth.Username)))
	}
	attrs = append(attrs, slog.Duration("duration", end.Duration), slog.Int64("received", end.Received),
		slog.Int64("sent", end.Sent), slog.String("commands", s.String()))
	s.log(ctx, slog.LevelInfo, "smtp: disconnected", attrs...)
}

// count counts the command that a reply is for: when the last one to it leaves.
func (s *traceState) count(x *smtpproxy.Exchange) {
	ok := x.Reply.Code < 400
	if x.Recipient > 0 { // another status of a message that is counted
		if ok && !s.accepted {
			s.accepted = true
			s.counts[s.find(s.last)].accepted++
		}
		return
	}
	if !s.goesOn {
		s.last = verbOf(x.Command, ok)
	}
	if s.goesOn = x.Reply.Code == 334 || x.Reply.Code == 354; s.goesOn || s.last == "" {
		return // the one that counts is still to come; or it's the greeting
	}
	c := &s.counts[s.find(s.last)]
	c.total++
	if s.accepted = ok; ok {
		c.accepted++
	}
}

// verbOf returns the name that a command is counted by, empty if there was none.
func verbOf(cmd smtpproxy.Command, accepted bool) string {
	verb := strings.ToLower(cmd.Verb())
	switch {
	case cmd.Line == "":
		return ""
	case isVerb(verb), accepted && isKeyword(verb) && !mayHide(cmd):
		return verb
	}
	return "unknown" // a password, for all that is known
}

// isVerb tells whether servers know a verb.
func isVerb(verb string) bool {
	switch verb {
	case "helo", "ehlo", "lhlo", "mail", "rcpt", "data", "bdat", "rset", "noop", "quit", "vrfy", "expn", "help",
		"auth", "starttls", "etrn", "xclient", "xforward":
		return true
	}
	return false
}

// maxTraced is how many verbs are told apart, since a client could make them up where each is
// accepted.
const maxTraced = 32

// find returns where the commands with a verb are counted.
func (s *traceState) find(verb string) int {
	for {
		for i := range s.counts {
			if s.counts[i].verb == verb {
				return i
			}
		}
		if len(s.counts) < maxTraced || verb == "unknown" {
			s.counts = append(s.counts, traceCount{verb: verb})
			return len(s.counts) - 1
		}
		verb = "unknown"
	}
}

// String returns the counts in Postfix's manner.
func (s *traceState) String() string {
	var b strings.Builder
	all := traceCount{verb: "commands"}
	for _, c := range s.counts {
		c.print(&b)
		all.accepted, all.total = all.accepted+c.accepted, all.total+c.total
	}
	all.print(&b)
	return b.String()
}

// print prints a count: how many were accepted, and of how many, if those are more.
func (c *traceCount) print(b *strings.Builder) {
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(c.verb + "=" + strconv.Itoa(c.accepted))
	if c.accepted < c.total {
		b.WriteString("/" + strconv.Itoa(c.total))
	}
}

// mask stands in the place of a credential in smtpproxy.Command.String.
const mask = "****"

// maxShown is how much of a line, or of a text, is shown.
const maxShown = 1024

// mayHide tells whether a line holds something that isn't shown, as each of a SASL exchange does,
// or is so long that it might.
func mayHide(cmd smtpproxy.Command) bool {
	s := cmd.String()
	return strings.HasSuffix(s, mask) || len(s) > maxShown
}

// textOf returns the text of a reply, in one line.
func textOf(r *smtpproxy.Reply) string {
	text := strings.Join(r.Lines, " / ")
	if e := r.Enhanced.String(); e != "" {
		text = e + " " + text
	}
	return printable(text)
}

// printable returns a text with what could be taken for something else than text written as an
// escape, and cut where it is endless.
func printable(s string) string {
	if len(s) > maxShown {
		s = s[:maxShown] + "..."
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			q := strconv.Quote(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}
