package smtpproxy

import (
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/address"
	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// This file keeps from the server what it must not get, whatever the hook says.

// isBinary tells whether the message is declared to have no lines (RFC 3030
// section 3), and to be nothing else: which of two BODYs counts, servers differ
// in. Its caller holds s.mu.
func (s *Session) isBinary() bool {
	binary := false
	for key, value := range s.txn.get().SenderParams.All() {
		if key == "BODY" {
			if ascii.ToUpper(value) != "BINARYMIME" {
				return false
			}
			binary = true
		}
	}
	return binary
}

// admit refuses what must not reach the server, or not now. It completes to,
// the command. What it counts as nothing, no server would know what to do with.
func (s *Session) admit(to *command, d *decision) {
	verb := to.verb
	mail := s.txn.get()
	switch {
	case verb == "":
		// Some servers trim, or fold letters beyond ASCII, and would see
		// a verb where the hook saw none.
		d.rejectNothing(500, EnhancedCode{5, 5, 2}, "Syntax error, command unrecognized")
	case strings.HasPrefix(verb, "STARTTLS"):
		s.admitSTARTTLS(verb, d)
	case verb == "MAIL" && mail.Active:
		// RFC 5321 section 4.1.1.2; go-smtp would keep the recipients.
		d.reject(503, EnhancedCode{5, 5, 1}, "Nested MAIL command")
	case address.TooManyParams(verb, to.line):
		d.reject(555, EnhancedCode{5, 5, 4}, "Too many parameters")
	case verb == "RCPT" && !mail.Active:
		// The server may have one all the same, which it has kept from
		// before, or keep the recipient for the next (RFC 5321 section
		// 4.1.4).
		d.reject(503, EnhancedCode{5, 5, 1}, "Missing MAIL command")
	case verb == "RCPT" && s.hasTooMany(mail, to.line):
		// RFC 5321 section 4.5.3.1.10.
		d.reject(452, EnhancedCode{4, 5, 3}, "Too many recipients")
	case verb == "DATA" && !mail.Active:
		d.reject(503, EnhancedCode{5, 5, 1}, "Missing MAIL and RCPT commands")
	case verb == "BDAT":
		s.admitBDAT(to, d)
	case verb == "AUTH" && s.holdsAuth():
		d.reject(523, EnhancedCode{5, 7, 10}, "TLS is required")
	}
}

// hasTooMany tells whether there is no room for another recipient.
func (s *Session) hasTooMany(m *mail, line string) bool {
	most := s.cfg.recipients
	return m.Recipients.Len() >= most ||
		most < unlimited/recipientOctets && m.pathOctets+int64(len(line)) > int64(most)*recipientOctets
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
		d.rejectNothing(500, EnhancedCode{5, 5, 2}, "Syntax error, command unrecognized")
	case strings.Trim(d.pass.Command[len(verb):], " \t") != "":
		// RFC 3207 section 4: no parameters. Blanks are none (RFC 5321
		// section 4.1.1).
		d.rejectNothing(501, EnhancedCode{5, 5, 4}, "STARTTLS has no parameters")
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
//
// The server gets the command in one form: without leading zeros, with which some
// take the size for an octal number, and without blanks behind it.
func (s *Session) admitBDAT(to *command, d *decision) {
	size, last := parseBDAT(to.line)
	mail := s.txn.get()
	switch {
	case size < 0:
		d.rejectNothing(501, EnhancedCode{5, 5, 4}, "Malformed BDAT command")
		return
	case mail.Recipients.Len() == 0:
		d.reject(502, EnhancedCode{5, 5, 1}, "Missing RCPT TO command.")
		return
	case size > maxChunk || s.size > 0 && size > s.size-mail.octets:
		d.reject(552, EnhancedCode{5, 3, 4}, "Max message size exceeded")
		return
	case size < smallChunk && mail.smallChunks >= s.cfg.smallChunks:
		d.tooMany("chunks")
		return
	}
	to.size, to.last = size, last
	args := strings.TrimRight(to.line[len("BDAT "):], " \t")
	digits, keyword, _ := strings.Cut(args, " ")
	if n := strconv.FormatInt(size, 10); n != digits || len(args) < len(to.line)-len("BDAT ") {
		to.line = strings.TrimRight(to.line[:len("BDAT ")]+n+" "+keyword, " ")
		d.pass.Command = to.line
	}
}

// parseBDAT returns the size in a BDAT command, -1 if it isn't exactly
// "BDAT" SP chunk-size [SP "LAST"] (RFC 3030 section 2), but for blanks behind it
// (RFC 5321 section 4.1.1), and whether the chunk is the last one.
func parseBDAT(line string) (size int64, last bool) {
	if len(line) < len("BDAT 0") || !ascii.EqualFold(line[:5], "BDAT ") {
		return -1, false
	}
	digits, end, last := strings.Cut(strings.TrimRight(line[5:], " \t"), " ")
	if last && !ascii.EqualFold(end, "LAST") {
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
