package smtpproxy

import (
	"context"
	"log/slog"
)

// This file tells the user's log why the library has ended connections.

// reason is why the library has ended a connection.
type reason uint8

const (
	reasonNone reason = iota
	reasonAmbiguousEnd
	reasonBareNewline
	reasonBehindSTARTTLS
	reasonLongLine
	reasonMalformedReply
	reasonOutOfStep
	reasonOutOfTurn
	reasonRefusedEarly
	reasonSASLGivenUp
	reasonTLSUnasked
	reasonLogged // it was one of those
)

var reasons = [...]string{
	reasonAmbiguousEnd:   "ambiguous end of a message that is replied to",
	reasonBareNewline:    "bare CR or LF in a message",
	reasonBehindSTARTTLS: "input behind STARTTLS",
	reasonLongLine:       "line of a message too long",
	reasonMalformedReply: "malformed reply from the server",
	reasonOutOfStep:      "reply that fits no command",
	reasonOutOfTurn:      "command out of turn",
	reasonRefusedEarly:   "message refused before its end",
	reasonSASLGivenUp:    "response in a SASL exchange that the server may have given up",
	reasonTLSUnasked:     "TLS without STARTTLS",
}

// log calls the user's log handler. It is user code, so its caller holds no lock
// that anybody else waits for. If it panics, that is not what the server's
// goroutine should die of.
func (s *Session) log(level slog.Level, msg string, attrs ...slog.Attr) {
	if s.cfg.Logger == nil {
		return
	}
	defer func() { _ = recover() }()
	s.cfg.Logger.LogAttrs(context.Background(), level, msg, attrs...)
}

// logEnd logs why the library ends the connection.
func (s *Session) logEnd(why reason) {
	s.log(slog.LevelWarn, "smtpproxy: connection ended",
		slog.String("connection", s.conn.id), slog.String("reason", reasons[why]))
}

// lose notes why the library ends the connection, for report. The first reason
// counts. Its caller holds s.mu.
func (s *Session) lose(why reason) {
	if s.why == reasonNone {
		s.why = why
	}
}

// report logs what lose has noted, once.
func (s *Session) report() {
	s.mu.Lock()
	why := s.why
	if why != reasonNone {
		s.why = reasonLogged
	}
	s.mu.Unlock()
	if why != reasonNone && why != reasonLogged {
		s.logEnd(why)
	}
}
