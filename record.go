package smtpproxy

import (
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/address"
	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/sasl"
)

// This file is what a session writes down of the server's replies: names, paths and
// parameters. Where the dialogue is at, its machine knows.

// replied lets a reply of the server's move the session; accepted is what accepts
// returned, size what list did. Its caller holds s.mu.
func (s *Session) replied(code int, accepted *Recipient, size int64) (step dialogue.Step) {
	was, message := s.m.State(), s.m.IsMessage()
	if s.m.WantsRecipient() && code/100 == 2 && accepted == nil {
		step = s.m.LoseStep() // the reply has begun before the command was there
	} else {
		step = s.m.Replied(dialogue.Reply{Code: code, Size: size, NoMechanism: s.exchange == nil})
	}
	if s.more != nil {
		s.watched().replied(code, was, message, &s.m, step.News)
	}
	if step.News != dialogue.NoNews || s.line != "" || s.exchange != nil {
		s.record(step.News, accepted)
	}
	s.moved(false)
	return step
}

// record writes down what a reply tells.
func (s *Session) record(news dialogue.News, accepted *Recipient) {
	switch news {
	case dialogue.Greeted:
		name, _ := dialogue.VerbOf(s.line)
		s.conn.helo = HELO{name, hostOf(s.line)}
		s.txn = transaction{}
	case dialogue.Opened:
		s.txn.open(s.line)
	case dialogue.Added:
		s.txn.add(accepted)
	case dialogue.Cleared:
		s.txn = transaction{}
	case dialogue.Authenticated:
		s.conn.authenticate(Auth{s.exchange.Mechanism, s.exchange.Username()})
	case dialogue.Anew:
		if t := s.toldOf(); t != nil {
			t.helo, t.auth = HELO{}, Auth{} // the server has been told something else
		}
		s.conn.helo = HELO{}
		s.conn.authenticate(Auth{})
		if s.txn.get().Active {
			s.txn = transaction{}
		}
	}
	switch s.m.State() {
	case dialogue.Reset:
		// MAIL is still to come.
	case dialogue.Response:
		// The exchange goes on.
	default:
		s.line, s.exchange = "", nil
	}
}

// moved follows what has moved the machine. cleared tells that what there was of a
// transaction is gone. Its caller holds s.mu.
func (s *Session) moved(cleared bool) {
	if cleared {
		s.txn = transaction{}
	}
	if s.m.State().HasEnded() {
		s.ctx.end(closedOff)
	}
}

// startedTLS follows a handshake. Its caller holds s.mu.
func (s *Session) startedTLS(t TLS) {
	if s.m.State().HasEnded() {
		return
	}
	s.m.StartedTLS()
	if t := s.talked(); t != nil {
		t.reset()
	}
	s.conn.secure = &secure{tls: t}
	s.startAfresh()
}

// accepts makes r, which must be zero, the recipient that a reply with the code accepts, and returns
// it, nil if the reply accepts none. Its caller holds s.mu, which it lets go while it calls
// Proxy.TransportID.
func (s *Session) accepts(code int, r *Recipient) *Recipient {
	if !s.m.WantsRecipient() || code/100 != 2 {
		return nil
	}
	path, params, unparsed := address.Rcpt(s.line)
	r.Address, r.Recipient = Address{path.Local, path.Domain}, path.Mailbox
	r.Params, r.Unparsed = Params{params}, unparsed
	if s.cfg.TransportID != nil {
		s.mu.Unlock()
		defer s.mu.Lock() // after runtime.Goexit, too
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

// hostOf returns the argument of HELO: a part of the line, or a copy if it is so little
// of it that it would keep much for nothing.
func hostOf(line string) string {
	host := strings.TrimSpace(dialogue.ArgsOf(line))
	if len(line) > 2*len(host)+64 {
		host = strings.Clone(host)
	}
	return host
}

// beginExchange follows the SASL exchange of an AUTH command with these arguments. It
// returns nil without a mechanism.
func beginExchange(args string) *sasl.Exchange {
	// Servers split at all kinds of white space. What isn't split off here could be a
	// password that ends up as a mechanism.
	words := strings.Fields(args)
	if len(words) == 0 {
		return nil
	}
	x := sasl.Observe(ascii.ToUpper(words[0]))
	if len(words) > 1 {
		x.Response(words[1])
	}
	return x
}
