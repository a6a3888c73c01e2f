package smtpproxy

import (
	"strconv"
	"strings"
)

// This file keeps from the server what it must not get, whatever the hook says.

// isBinary tells whether the message is declared to have no lines (RFC 3030
// section 3), and to be nothing else: which of two BODYs counts, servers differ
// in. Its caller holds s.mu.
func (s *Session) isBinary() bool {
	binary := false
	for key, value := range s.txn.get().SenderParams.All() {
		if key == "BODY" {
			if upperASCII(value) != "BINARYMIME" {
				return false
			}
			binary = true
		}
	}
	return binary
}

// admit refuses what must not reach the server, or not now. It completes to,
// the command.
func (s *Session) admit(to *command, d *decision) {
	verb := to.verb
	switch {
	case verb == "":
		// Some servers trim, or fold letters beyond ASCII, and would see
		// a verb where the hook saw none.
		d.reject(500, EnhancedCode{5, 5, 2}, "Syntax error, command unrecognized")
	case strings.HasPrefix(verb, "STARTTLS"):
		s.admitSTARTTLS(verb, d)
	case verb == "MAIL" && s.txn.get().Active:
		// RFC 5321 section 4.1.1.2; go-smtp would keep the recipients.
		d.reject(503, EnhancedCode{5, 5, 1}, "Nested MAIL command")
	case verb == "DATA" && s.bdatFailed:
		// RFC 3030 section 2.
		d.reject(503, EnhancedCode{5, 5, 1}, "DATA not allowed after BDAT")
	case verb == "BDAT":
		to.size, to.last = parseBDAT(to.line)
		s.admitBDAT(to.size, d)
	case verb == "AUTH" && s.holdsAuth():
		d.reject(523, EnhancedCode{5, 7, 10}, "TLS is required")
	}
}

// holdsAuth tells whether AUTH is neither offered nor passed, for want of TLS.
// Behind the library a server can't know, so the library keeps its policy.
func (s *Session) holdsAuth() bool {
	return s.relay && !s.conn.inTLS() && !s.cfg.AllowInsecureAuth &&
		(s.cfg.TLSConfig != nil || s.cfg.RequireTLSForAuth)
}

// admitSTARTTLS refuses all that starts like STARTTLS, since some servers look
// at no more, and STARTTLS itself where the library couldn't look inside.
func (s *Session) admitSTARTTLS(verb string, d *decision) {
	switch {
	case verb != "STARTTLS":
		d.reject(500, EnhancedCode{5, 5, 2}, "Syntax error, command unrecognized")
	case d.pass.Command[len(verb):] != "":
		// RFC 3207 section 4: no parameters.
		d.reject(501, EnhancedCode{5, 5, 4}, "STARTTLS has no parameters")
	case !s.relay:
	case s.conn.inTLS():
		d.reject(503, EnhancedCode{5, 5, 1}, "Already running in TLS")
	case s.cfg.TLSConfig == nil:
		d.reject(502, EnhancedCode{5, 5, 1}, "TLS not supported")
	case s.txn.get().Active || s.conn.hasAuth():
		d.reject(503, EnhancedCode{5, 5, 1}, "STARTTLS not allowed after MAIL or AUTH")
	default:
		d.tls = true
	}
}

// maxChunk is the largest chunk size that every server parses.
const maxChunk = 1<<32 - 1

// admitBDAT refuses chunks of which it isn't certain that the server reads
// them before it replies (RFC 3030 section 2): else nobody could tell the
// chunk from the commands behind it. Codes and texts are go-smtp's.
func (s *Session) admitBDAT(size int64, d *decision) {
	mail := s.txn.get()
	switch {
	case size < 0:
		d.reject(501, EnhancedCode{5, 5, 4}, "Malformed BDAT command")
	case mail.Recipients.Len() == 0 || s.bdatFailed:
		d.reject(502, EnhancedCode{5, 5, 1}, "Missing RCPT TO command.")
	case size > maxChunk || s.size > 0 && size > s.size-mail.octets:
		d.reject(552, EnhancedCode{5, 3, 4}, "Max message size exceeded")
	case size < smallChunk && mail.smallChunks >= s.cfg.smallChunks:
		d.tooMany("chunks")
	}
}

// chunkSize returns the size in a BDAT command, -1 if it isn't exactly
// "BDAT" SP chunk-size [SP "LAST"] (RFC 3030 section 2).
func chunkSize(line string) int64 {
	size, _ := parseBDAT(line)
	return size
}

func parseBDAT(line string) (size int64, last bool) {
	if len(line) < len("BDAT 0") || !equalFoldASCII(line[:5], "BDAT ") {
		return -1, false
	}
	digits, end, last := strings.Cut(line[5:], " ")
	if last && !equalFoldASCII(end, "LAST") {
		return -1, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return -1, false
		}
	}
	size, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return -1, false
	}
	return size, last
}
