// Package address parses what follows MAIL and RCPT (RFC 5321 section 4.1.2, with
// the UTF-8 of RFC 6531 section 3.3). Servers read it in many ways: up to the
// first '>' or the last one, from the keyword where they find it, word by word,
// or as a header field is read (RFC 5322 section 3.4). A hook decides about the
// mailbox that the server delivers to, so one is claimed only where all of them
// that accept the command take the same. Lengths are left to the server.
package address

import (
	"strings"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// Mail returns the parts of a MAIL command, given as the whole line. unparsed is set
// if it can't be read in one way only: what follows the verb, or a blank if nothing
// does; all else is zero then.
func Mail(line string) (path Path, params []Param, unparsed string) {
	args := argsOf(line)
	path, params, ok := parseMail(args)
	return kept(line, args, path, params, ok)
}

// Rcpt is Mail for RCPT.
func Rcpt(line string) (path Path, params []Param, unparsed string) {
	args := argsOf(line)
	path, params, ok := parseRcpt(args)
	return kept(line, args, path, params, ok)
}

// argsOf returns what follows the verb and white space.
func argsOf(line string) string {
	return strings.TrimLeft(line[indexSpace(line):], " \t")
}

// kept makes of what was parsed what a transaction keeps: parts of the line, or of
// a copy if they are so little of it that they would keep much for nothing.
func kept(line, args string, path Path, params []Param, ok bool) (_ Path, _ []Param, unparsed string) {
	needed := len(path.Local) + len(path.Domain) + len(path.Mailbox)
	for _, p := range params {
		needed += len(p.Key) + len(p.Value)
	}
	if !ok {
		needed = len(args)
		unparsed = args
		if args == "" {
			unparsed = " " // not nothing
		}
	}
	if len(line) <= 2*needed+64 {
		return path, params, unparsed
	}
	var b strings.Builder
	b.Grow(needed)
	for _, s := range []*string{&path.Local, &path.Domain, &path.Mailbox, &unparsed} {
		clone(&b, s)
	}
	for i := range params {
		clone(&b, &params[i].Key)
		clone(&b, &params[i].Value)
	}
	return path, params, unparsed
}

// clone makes s a part of what is built.
func clone(b *strings.Builder, s *string) {
	n := b.Len()
	b.WriteString(*s)
	*s = b.String()[n:]
}

// parseMail parses the arguments of MAIL: "FROM:<a@b> SIZE=10". All results
// are zero if ok is false; for the null reverse-path only params may be set.
func parseMail(args string) (path Path, params []Param, ok bool) {
	path, rest, ok := cutMail(args)
	return withParams(path, rest, ok)
}

// parseRcpt parses the arguments of RCPT: "TO:<a@b> NOTIFY=NEVER". All results
// are zero if ok is false.
func parseRcpt(args string) (path Path, params []Param, ok bool) {
	path, rest, ok := cutRcpt(args)
	return withParams(path, rest, ok)
}

// cutMail parses the path in the arguments of MAIL. rest are the parameters.
func cutMail(args string) (path Path, rest string, ok bool) {
	s, ok := afterKeyword(args, "FROM:")
	if !ok {
		return Path{}, "", false
	}
	// RFC 5321 section 4.1.2: Reverse-path = Path / "<>".
	if rest, null := strings.CutPrefix(s, "<>"); null {
		return Path{}, rest, !hasBracket(rest)
	}
	return cutPath(s)
}

// cutRcpt parses the path in the arguments of RCPT. rest are the parameters.
func cutRcpt(args string) (path Path, rest string, ok bool) {
	s, ok := afterKeyword(args, "TO:")
	if !ok {
		return Path{}, "", false
	}
	// RFC 5321 section 4.1.1.3: the one forward-path without a domain.
	const postmaster = "<postmaster>"
	if n := len(postmaster); len(s) >= n && ascii.EqualFold(s[:n], postmaster) {
		local := s[1 : n-1]
		return Path{Local: local, Mailbox: ascii.ToLower(local)}, s[n:], !hasBracket(s[n:])
	}
	return cutPath(s)
}

// afterKeyword returns what follows the keyword and white space, unless args does
// not start with it or has octets that no path and no parameter may hold. The
// keyword must not come again, since some servers don't look for it at the start.
func afterKeyword(args, keyword string) (s string, ok bool) {
	if !isText(args) {
		return "", false
	}
	args = strings.TrimLeft(args, " \t")
	n := len(keyword)
	if len(args) < n || !ascii.EqualFold(args[:n], keyword) {
		return "", false
	}
	args = args[n:]
	if i := strings.IndexByte(args, ':'); i >= 0 {
		for ; i < len(args); i++ {
			if i+1 >= n && ascii.EqualFold(args[i+1-n:i+1], keyword) {
				return "", false
			}
		}
	}
	// RFC 5321 section 3.3 forbids spaces after the colon, clients send them.
	s = strings.TrimLeft(args, " ")
	if strings.HasPrefix(s, "\t") {
		// To some that is a part of the path, unless that has a bracket.
		s = strings.TrimLeft(s, " \t")
		return s, strings.HasPrefix(s, "<")
	}
	return s, true
}

// isText reports whether s is valid UTF-8 without control characters and without
// white space beyond ASCII. A tab is neither, since some clients send it for a
// space.
func isText(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c-' ' < 0x7f-' ': // nearly always
		case c >= utf8.RuneSelf:
			return utf8.ValidString(s[i:]) && ascii.IndexControl(s[i:]) < 0 && !strings.ContainsFunc(s[i:], ascii.IsForeign)
		case c != '\t':
			return false
		}
	}
	return true
}
