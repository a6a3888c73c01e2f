package smtpproxy

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file tells the user's log what has gone wrong: why the library has ended a
// connection, and what about the server it can't work with.

// levelOf returns the level of the line about the end of a connection. What any client
// can bring about is no more than information: a log that anybody can fill with warnings
// is worth nothing.
func levelOf(why dialogue.Reason) slog.Level {
	switch why {
	case dialogue.MalformedReply, dialogue.NotAccepted, dialogue.OutOfStep, dialogue.OutOfTurn:
		return slog.LevelWarn // the server's doing
	}
	return slog.LevelInfo
}

// logTo calls the user's log handler. It is user code, so its caller holds no lock
// that anybody else waits for. If it panics, that is not what the server's goroutine
// should die of.
func (c *config) logTo(level slog.Level, msg string, attrs ...slog.Attr) {
	if level < c.level {
		return
	}
	defer func() { _ = recover() }()
	c.log.LogAttrs(context.Background(), level, msg, attrs...)
}

// log is logTo about a session: with its connection, the client's address, and who is
// connected, if that is another (see Connection.Peer).
func (s *Session) log(level slog.Level, msg string, attrs ...slog.Attr) {
	if level < s.cfg.level {
		return
	}
	s.mu.Lock()
	about := []slog.Attr{slog.String("connection", s.conn.id)}
	if s.conn.remoteIP.IsValid() {
		about = append(about, slog.Any("remote", netip.AddrPortFrom(s.conn.remoteIP, s.conn.remotePort)))
	}
	if t := s.toldOf(); t != nil && t.peer.IsValid() && t.peer != s.conn.peer() {
		about = append(about, slog.Any("peer", t.peer))
	}
	s.mu.Unlock()
	s.cfg.logTo(level, msg, append(about, attrs...)...)
}

// logEnd logs why the library ends the connection.
func (s *Session) logEnd(why dialogue.Reason) {
	s.log(levelOf(why), "smtpproxy: connection ended", slog.String("reason", why.String()))
}

// report logs why the library has ended the connection, once.
func (s *Session) report() {
	s.mu.Lock()
	why, unreported := s.m.Reason(), s.isUnreported()
	s.reported = s.reported || unreported
	s.mu.Unlock()
	if unreported {
		s.logEnd(why)
	}
}

// isUnreported tells whether there is something for report to log. Its caller holds
// s.mu.
func (s *Session) isUnreported() bool { return s.m.Reason() != dialogue.NoReason && !s.reported }

// warning is something about the server, or its set-up, that its author should know.
// It is told once a listener.
type warning uint8

const (
	warnSTARTTLS   warning = iota // the server's own STARTTLS is taken away
	warnTLSTwice                  // TLS from the listener beneath, and ImplicitTLS
	warnReadsFirst                // the server reads before it greets
	warnings                      // how many there are
)

var warningTexts = [warnings]string{
	warnSTARTTLS: "smtpproxy: the server's STARTTLS is not offered, since a hook would be blind behind it: " +
		"set Proxy.TLSConfig, or use gosmtp.Serve",
	warnTLSTwice: "smtpproxy: Proxy.ImplicitTLS is ignored, since connections arrive as *tls.Conn: " +
		"leave one of the two out",
	warnReadsFirst: "smtpproxy: the server reads from a connection before it greets the client, and waits for what " +
		"never comes: a PROXY header has to be read by the listener beneath, and whether a client talks early " +
		"is told by Connection.EarlyTalker",
}

// The states of a warning.
const (
	warningNoted  = 1
	warningLogged = 2
)

// warn notes a warning for logWarnings. Its caller may hold locks.
func (c *config) warn(w warning) {
	if c.warned[w].CompareAndSwap(0, warningNoted) {
		c.news.Store(true)
	}
}

// logWarnings logs what warn has noted, once.
func (c *config) logWarnings() {
	if c.news.Load() {
		c.logNews()
	}
}

func (c *config) logNews() {
	if !c.news.Swap(false) {
		return
	}
	for w := range c.warned {
		if c.warned[w].CompareAndSwap(warningNoted, warningLogged) {
			c.logTo(slog.LevelWarn, warningTexts[w])
		}
	}
}
