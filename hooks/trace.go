package hooks

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// Trace writes the dialogue of each connection to a log: who has connected, each command
// with what was decided, the reply and how long it has taken, and when it's over, a summary
// as Postfix has it. Credentials are masked, as smtpproxy.Command.String does; what servers and
// hooks put into their replies is not, and senders and recipients are there.
//
// The records, each with the attributes "connection" (its ID) and "remote" (the client's
// address):
//
//	smtp: connected      peer, if it isn't the client
//	smtp: command        line; passed, if the server got another; reply, by, hook, what has
//	                     taken its time: hooked, served; octets of content; recipient in LMTP
//	smtp: started TLS    protocol, cipher, or error
//	smtp: hook failed    hook, error
//	smtp: disconnected   by, reason, reply, duration, received and sent octets, and the
//	                     commands: ehlo=1 mail=2 rcpt=1/2 data=1 is of two RCPT one accepted
//
// A command is logged when its reply leaves, so a reply that nobody asked for has no line.
type Trace struct {
	// Logger gets the records; nil is slog.Default.
	Logger *slog.Logger

	// Level is that of the commands; the zero value is slog.LevelInfo. All other records have
	// slog.LevelInfo, failures slog.LevelError.
	Level slog.Level

	// Networks has those whose clients are traced; empty is everybody.
	Networks []netip.Prefix
}

// traceState counts the commands of a connection.
type traceState struct {
	verbs []traceCount // in the order in which they first came
}

// traceCount counts the commands with a verb.
type traceCount struct {
	verb            string
	accepted, total int
}

// Observer returns what Proxy.Observers takes.
func (t *Trace) Observer() smtpproxy.Observer {
	return smtpproxy.Observer{
		Connected:    t.connected,
		Exchanged:    t.exchanged,
		StartedTLS:   t.startedTLS,
		Disconnected: t.disconnected,
	}
}

// log logs a record about a connection.
func (t *Trace) log(ctx *smtpproxy.Context, level slog.Level, msg string, conn smtpproxy.Connection, attrs ...slog.Attr) {
	if len(t.Networks) > 0 && !contains(t.Networks, conn.RemoteIP) {
		return
	}
	about := []slog.Attr{slog.String("connection", conn.ID)}
	if conn.RemoteIP.IsValid() {
		about = append(about, slog.String("remote", conn.RemoteIP.String()))
	}
	cmp.Or(t.Logger, slog.Default()).LogAttrs(context.WithoutCancel(ctx), level, msg, append(about, attrs...)...)
}

func (t *Trace) connected(ctx *smtpproxy.Context, conn smtpproxy.Connection) {
	var attrs []slog.Attr
	if conn.Peer.Addr() != conn.RemoteIP {
		attrs = append(attrs, slog.String("peer", conn.Peer.String()))
	}
	t.log(ctx, slog.LevelInfo, "smtp: connected", conn, attrs...)
}

func (t *Trace) exchanged(ctx *smtpproxy.Context, x smtpproxy.Exchange) {
	smtpproxy.State[traceState](ctx).count(&x)
	var attrs []slog.Attr
	if x.Command.Line != "" || x.Command.SASL {
		attrs = append(attrs, slog.Any("line", x.Command))
	}
	if x.Passed.Line != "" && x.Passed.Line != x.Command.Line {
		attrs = append(attrs, slog.Any("passed", x.Passed))
	}
	attrs = append(attrs, slog.String("reply", x.Reply.String()), slog.String("by", x.By.String()))
	if x.Hook != "" {
		attrs = append(attrs, slog.String("hook", x.Hook))
	}
	attrs = append(attrs, slog.Duration("hooked", x.Hooked), slog.Duration("served", x.Served))
	if x.Octets > 0 {
		attrs = append(attrs, slog.Int64("octets", x.Octets))
	}
	if x.Recipient >= 0 {
		attrs = append(attrs, slog.Int("recipient", x.Recipient))
	}
	t.log(ctx, t.Level, "smtp: command", x.Connection, attrs...)
}

func (t *Trace) startedTLS(ctx *smtpproxy.Context, conn smtpproxy.Connection, err error) {
	if err != nil {
		t.log(ctx, slog.LevelInfo, "smtp: started TLS", conn, slog.String("error", err.Error()))
		return
	}
	t.log(ctx, slog.LevelInfo, "smtp: started TLS", conn, slog.String("protocol", conn.TLS.Protocol), slog.String("cipher", conn.TLS.Cipher))
}

func (t *Trace) disconnected(ctx *smtpproxy.Context, conn smtpproxy.Connection, end smtpproxy.End) {
	attrs := []slog.Attr{slog.String("by", end.By.String()), slog.String("reason", end.Reason.String())}
	if end.Reply.Code != 0 {
		attrs = append(attrs, slog.String("reply", end.Reply.String()))
	}
	attrs = append(attrs, slog.Duration("duration", end.Duration), slog.Int64("received", end.Received), slog.Int64("sent", end.Sent),
		slog.String("commands", smtpproxy.State[traceState](ctx).String()))
	t.log(ctx, slog.LevelInfo, "smtp: disconnected", conn, attrs...)
}

// count counts the command of an exchange, once for all statuses of an LMTP message.
func (s *traceState) count(x *smtpproxy.Exchange) {
	verb := strings.ToLower(x.Command.Verb())
	if x.Command.SASL || verb == "" && x.Command.Line == "" || x.Recipient > 0 || x.Reply.Code == 334 {
		return
	}
	if !strings.HasPrefix(strings.ToLower(x.Command.String()), verb) {
		verb = "other" // what is masked may be a password
	}
	i := slices.IndexFunc(s.verbs, func(c traceCount) bool { return c.verb == verb })
	if i < 0 {
		if len(s.verbs) >= maxTraced {
			verb = "other"
		}
		if i = slices.IndexFunc(s.verbs, func(c traceCount) bool { return c.verb == verb }); i < 0 {
			s.verbs = append(s.verbs, traceCount{verb: verb})
			i = len(s.verbs) - 1
		}
	}
	s.verbs[i].total++
	if x.Reply.Code < 400 {
		s.verbs[i].accepted++
	}
}

// maxTraced is how many verbs are told apart, since a client may make them up.
const maxTraced = 32

// String returns the counts in Postfix's manner.
func (s *traceState) String() string {
	var words []string
	accepted, total := 0, 0
	for _, c := range s.verbs {
		words = append(words, c.String())
		accepted, total = accepted+c.accepted, total+c.total
	}
	return strings.Join(append(words, (&traceCount{"commands", accepted, total}).String()), " ")
}

// String returns a count: of the commands accepted, and of all if those are more.
func (c *traceCount) String() string {
	if c.accepted == c.total {
		return fmt.Sprintf("%s=%d", c.verb, c.total)
	}
	return fmt.Sprintf("%s=%d/%d", c.verb, c.accepted, c.total)
}
