package smtpproxy

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// This file parses what follows MAIL and RCPT (RFC 5321 section 4.1.2, with
// the UTF-8 of RFC 6531 section 3.3). Servers read it in many ways: up to the
// first '>' or the last one, from the keyword where they find it, word by word,
// or as a header field is read (RFC 5322 section 3.4). A hook decides about the
// mailbox that the server delivers to, so one is claimed only where all of them
// that accept the command take the same. Lengths are left to the server.

// maxParams is how many parameters a command may have. Each costs a server, and
// a session, far more memory than its two octets on the wire.
const maxParams = 64

// mailOf returns the parts of a MAIL command. unparsed is set if it can't be read
// in one way only; all else is zero then.
func mailOf(line string) (addr Address, mailbox string, params Params, unparsed string) {
	args := argsOf(line)
	addr, mailbox, params, ok := parseMail(args)
	return kept(line, args, addr, mailbox, params, ok)
}

// rcptOf is mailOf for RCPT.
func rcptOf(line string) (addr Address, mailbox string, params Params, unparsed string) {
	args := argsOf(line)
	addr, mailbox, params, ok := parseRcpt(args)
	return kept(line, args, addr, mailbox, params, ok)
}

// kept makes of what was parsed what a transaction keeps: parts of the line, or of
// a copy if they are so little of it that they would keep much for nothing.
func kept(line, args string, addr Address, mailbox string, params Params, ok bool) (_ Address, _ string, _ Params, unparsed string) {
	needed := len(addr.Localpart) + len(addr.Domain) + len(mailbox)
	for _, p := range params.list {
		needed += len(p.key) + len(p.value)
	}
	if !ok {
		needed = len(args)
		unparsed = args
		if args == "" {
			unparsed = " " // not nothing
		}
	}
	if len(line) <= 2*needed+64 {
		return addr, mailbox, params, unparsed
	}
	var b strings.Builder
	b.Grow(needed)
	for _, s := range []*string{&addr.Localpart, &addr.Domain, &mailbox, &unparsed} {
		clone(&b, s)
	}
	for i := range params.list {
		clone(&b, &params.list[i].key)
		clone(&b, &params.list[i].value)
	}
	return addr, mailbox, params, unparsed
}

// clone makes s a part of what is built.
func clone(b *strings.Builder, s *string) {
	n := b.Len()
	b.WriteString(*s)
	*s = b.String()[n:]
}

// parseMail parses the arguments of MAIL: "FROM:<a@b> SIZE=10". All results
// are zero if ok is false; for the null reverse-path only params may be set.
func parseMail(args string) (addr Address, mailbox string, params Params, ok bool) {
	addr, mailbox, rest, ok := cutMail(args)
	return withParams(addr, mailbox, rest, ok)
}

// parseRcpt parses the arguments of RCPT: "TO:<a@b> NOTIFY=NEVER". All results
// are zero if ok is false.
func parseRcpt(args string) (addr Address, mailbox string, params Params, ok bool) {
	addr, mailbox, rest, ok := cutRcpt(args)
	return withParams(addr, mailbox, rest, ok)
}

// tooManyParams reports whether a line has more than maxParams parameters, if it
// is a MAIL or RCPT command. In one that can't be parsed each word behind the
// first is taken for one.
func tooManyParams(verb, line string) bool {
	if len(line) <= 2*maxParams {
		return false
	}
	args := argsOf(line)
	cut := cutMail
	switch verb {
	case "MAIL":
	case "RCPT":
		cut = cutRcpt
	default:
		return false
	}
	_, _, rest, ok := cut(args)
	if !ok {
		rest = args[max(strings.IndexAny(args, " \t"), 0):]
	}
	return countWords(rest) > maxParams
}

func countWords(s string) (n int) {
	between := true
	for i := range len(s) {
		space := isSpace(rune(s[i]))
		if between && !space {
			n++
		}
		between = space
	}
	return n
}

// cutMail parses the path in the arguments of MAIL. rest are the parameters.
func cutMail(args string) (addr Address, mailbox, rest string, ok bool) {
	s, ok := afterKeyword(args, "FROM:")
	if !ok {
		return Address{}, "", "", false
	}
	// RFC 5321 section 4.1.2: Reverse-path = Path / "<>".
	if rest, null := strings.CutPrefix(s, "<>"); null {
		return Address{}, "", rest, !hasBracket(rest)
	}
	return cutPath(s)
}

// cutRcpt parses the path in the arguments of RCPT. rest are the parameters.
func cutRcpt(args string) (addr Address, mailbox, rest string, ok bool) {
	s, ok := afterKeyword(args, "TO:")
	if !ok {
		return Address{}, "", "", false
	}
	// RFC 5321 section 4.1.1.3: the one forward-path without a domain.
	const postmaster = "<postmaster>"
	if n := len(postmaster); len(s) >= n && ascii.EqualFold(s[:n], postmaster) {
		local := s[1 : n-1]
		return Address{Localpart: local}, ascii.ToLower(local), s[n:], !hasBracket(s[n:])
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

// cutPath parses a path. The angle brackets may be missing; if they are there,
// there must be no others, since servers differ in which of two ends the path.
func cutPath(s string) (addr Address, mailbox, rest string, ok bool) {
	path, bracketed := strings.CutPrefix(s, "<")
	if bracketed {
		if path, rest, ok = strings.Cut(path, ">"); !ok {
			return Address{}, "", "", false
		}
	}
	if hasBracket(path) || hasBracket(rest) {
		return Address{}, "", "", false
	}

	start, okRoute := skipRoute(path)
	local, behind, okLocal := cutLocalpart(start)
	behind, okAt := strings.CutPrefix(behind, "@")
	domain, behind, okDomain := cutDomain(behind)
	mailbox = start[:len(start)-len(behind)]
	var okEnd bool
	if bracketed {
		okEnd = behind == ""
	} else {
		// To some what could be a parameter is one, and a tab is no space.
		okEnd = (behind == "" || behind[0] == ' ') && strings.IndexByte(mailbox, '=') < 0
		rest = behind
	}
	if !okRoute || !okLocal || !okAt || !okDomain || !okEnd || hasEncodedWord(mailbox) {
		return Address{}, "", "", false
	}

	addr = Address{Localpart: local, Domain: domain}
	if mailbox[0] == '"' || !isDotString(local) {
		// RFC 5321 section 4.1.2: quoted or not, it is the same mailbox,
		// so it is written in one way.
		mailbox = addr.String()
	}
	return addr, ascii.ToLower(mailbox), rest, true
}

func hasBracket(s string) bool {
	return strings.IndexByte(s, '<') >= 0 || strings.IndexByte(s, '>') >= 0
}

// withParams completes the results of parseMail and parseRcpt with the
// parameters in s, which is all that follows the path.
func withParams(addr Address, mailbox, s string, ok bool) (Address, string, Params, bool) {
	if !ok {
		return Address{}, "", Params{}, false
	}
	n := countWords(s)
	if n == 0 {
		return addr, mailbox, Params{}, true
	}
	list := make([]param, 0, n)
	for field := range strings.FieldsFuncSeq(s, isSpace) {
		// The value is the server's to judge, '=' in it included.
		key, value, _ := strings.Cut(field, "=")
		if !isKeyword(key) || hasMailbox(value) {
			return Address{}, "", Params{}, false
		}
		list = append(list, param{ascii.ToUpper(key), value})
	}
	return addr, mailbox, Params{list}, true
}

// hasMailbox reports whether a parameter's value has, or has behind it, what is the
// path to a server that looks for the last colon.
func hasMailbox(value string) bool {
	i := strings.IndexByte(value, ':')
	return i >= 0 && (strings.IndexByte(value[i:], '@') >= 0 || strings.HasSuffix(value, ":"))
}

// isKeyword reports whether s is an esmtp-keyword (RFC 5321 section 4.1.2).
func isKeyword(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf || !ascii.IsLetDig(rune(s[i])) && (i == 0 || s[i] != '-') {
			return false
		}
	}
	return s != ""
}

// hasEncodedWord reports whether s has what looks like an encoded-word (RFC 2047
// section 2). No path has any, but some servers read one as they read a header
// field, and decode it to another mailbox.
func hasEncodedWord(s string) bool {
	if strings.IndexByte(s, '?') < 0 {
		return false
	}
	_, rest, ok := strings.Cut(s, "=?")
	return ok && strings.Contains(rest, "?=")
}

// skipRoute returns s without its source route, which has to be accepted and
// should be ignored (RFC 5321 section 4.1.2, "A-d-l", and appendix C).
func skipRoute(s string) (rest string, ok bool) {
	if !strings.HasPrefix(s, "@") {
		return s, true
	}
	route, rest, ok := strings.Cut(s, ":")
	for hop := range strings.SplitSeq(route, ",") {
		domain, at := strings.CutPrefix(hop, "@")
		ok = ok && at && isDomain(domain)
	}
	return rest, ok
}

// cutLocalpart cuts the local part off s and removes its quoting.
func cutLocalpart(s string) (local, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		return cutQuotedString(s)
	}
	// Dots that don't stand between atoms are forbidden, but sent and taken.
	i := max(strings.IndexByte(s, '@'), 0)
	return s[:i], s[i:], i > 0 && areAtoms(s[:i])
}

// cutQuotedString cuts off a Quoted-string (RFC 5321 section 4.1.2), with
// which s must start, and returns what it means. An '@' in it would be the only
// one of the mailbox to servers that look for the first.
func cutQuotedString(s string) (content, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\': // quoted-pairSMTP: RFC 6531 does not extend it
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' || s[i] == '@' {
				return "", "", false
			}
			b.WriteByte(s[i])
		case c == '\t', c == '@': // a tab is the one control character that comes this far
			return "", "", false
		default: // qtextSMTP, extended by UTF8-non-ascii
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// cutDomain cuts a domain or an address literal off s. A domain may end in a dot,
// as names in the DNS do.
func cutDomain(s string) (domain, rest string, ok bool) {
	if strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ']') + 1
		return s[:i], s[i:], i > 0 && isAddressLiteral(s[1:i-1])
	}
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:], isDomain(strings.TrimSuffix(s[:i], "."))
}

// isDomain reports whether s is a Domain (RFC 5321 section 4.1.2, RFC 6531
// section 3.3). Underscores and hyphens may stand anywhere in a label, as they
// do in real life.
func isDomain(s string) bool { return isDotted(s, &inLabel, isInULabel) }

// isInULabel reports whether a rune beyond ASCII may stand in a label. A U-label
// consists of letters, marks and digits, and of the CONTEXTJ and CONTEXTO
// characters of RFC 5892 appendix A. Ideographic full stops are out, since some
// take them for dots.
func isInULabel(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd) ||
		strings.ContainsRune("\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb", r)
}

// isAddressLiteral reports whether s may stand between the brackets of an
// address literal (RFC 5321 section 4.1.3).
func isAddressLiteral(s string) bool {
	tag, content, tagged := strings.Cut(s, ":")
	if !tagged {
		ip, err := netip.ParseAddr(s)
		return err == nil && ip.Is4()
	}
	if ascii.EqualFold(tag, "IPv6") {
		ip, err := netip.ParseAddr(content)
		return err == nil && ip.Is6() && ip.Zone() == ""
	}
	// Standardized-tag is an Ldh-str, which does not end in a hyphen.
	return tag != "" && tag[len(tag)-1] != '-' && !strings.ContainsFunc(tag, isNotLDH) &&
		content != "" && !strings.ContainsFunc(content, isNotDcontent)
}

func isNotLDH(r rune) bool { return !ascii.IsLetDig(r) && r != '-' }

// isNotDcontent leaves out of dcontent what delimits something to those who read
// a path as it is in a header field, or look for its last '@'.
func isNotDcontent(r rune) bool { return r < '!' || r > '~' || strings.ContainsRune(`[\]<>@"(),;`, r) }

// areAtoms reports whether s, which is text, has nothing in it that a local part
// must not have outside quotes.
func areAtoms(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < utf8.RuneSelf && c != '.' && !inAtom[c] {
			return false
		}
	}
	return true
}

// isDotString reports whether s is a Dot-string (RFC 5321 section 4.1.2, its
// atext extended by UTF8-non-ascii, RFC 6531 section 3.3): a local part that
// needs no quotes.
func isDotString(s string) bool {
	return isDotted(s, &inAtom, func(rune) bool { return true })
}

// quoteLocalpart writes s as a Quoted-string (RFC 5321 section 4.1.2).
func quoteLocalpart(s string) string {
	b := make([]byte, 0, len(s)+len(`""`))
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(append(b, '"'))
}

// An asciiSet has the octets below 0x80 that may stand somewhere.
type asciiSet [utf8.RuneSelf]bool

var (
	inLabel = setOf(letters + digits + "-_")
	inAtom  = setOf(letters + digits + "!#$%&'*+-/=?^_`{|}~")
)

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

func setOf(chars string) (set asciiSet) {
	for _, c := range []byte(chars) {
		set[c] = true
	}
	return set
}

// isDotted reports whether s is one or more parts with dots between them, none
// of them empty and none with an octet or a rune that is not allowed.
func isDotted(s string, within *asciiSet, beyond func(rune) bool) bool {
	empty := true
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '.':
			if empty {
				return false
			}
			empty = true
			i++
			continue
		case c < utf8.RuneSelf:
			if !within[c] {
				return false
			}
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 || !beyond(r) {
				return false
			}
			i += n
		}
		empty = false
	}
	return !empty
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' }

// isText reports whether s is valid UTF-8 without control characters and without
// white space beyond ASCII. A tab is neither, since some clients send it for a
// space.
func isText(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			return utf8.ValidString(s[i:]) && ascii.IndexControl(s[i:]) < 0 && !strings.ContainsFunc(s[i:], ascii.IsForeign)
		case c < ' ' && c != '\t' || c == 0x7f:
			return false
		}
	}
	return true
}
