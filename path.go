package smtpproxy

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file parses what follows MAIL and RCPT (RFC 5321 section 4.1.2, with
// the UTF-8 of RFC 6531 section 3.3). It is lenient where that can't change
// which mailbox is meant, and gives up on everything that servers might read
// differently. Lengths are left to the server.

// parseMail parses the arguments of MAIL: "FROM:<a@b> SIZE=10". All results
// are zero if ok is false; for the null reverse-path only params may be set.
func parseMail(args string) (addr Address, mailbox string, params Params, ok bool) {
	s := afterKeyword(args, "FROM:")
	// RFC 5321 section 4.1.2: Reverse-path = Path / "<>".
	if rest, null := strings.CutPrefix(s, "<>"); null {
		return withParams(Address{}, "", rest)
	}
	return parsePath(s)
}

// parseRcpt parses the arguments of RCPT: "TO:<a@b> NOTIFY=NEVER". All results
// are zero if ok is false.
func parseRcpt(args string) (addr Address, mailbox string, params Params, ok bool) {
	s := afterKeyword(args, "TO:")
	// RFC 5321 section 4.1.1.3: the one forward-path without a domain.
	const postmaster = "<postmaster>"
	if n := len(postmaster); len(s) >= n && equalFoldASCII(s[:n], postmaster) {
		local := s[1 : n-1]
		return withParams(Address{Localpart: local}, lowerASCII(local), s[n:])
	}
	return parsePath(s)
}

// afterKeyword returns what follows the keyword, without white space around
// it, or nothing if args does not start with it or has octets that no path and
// no parameter may hold.
func afterKeyword(args, keyword string) string {
	if !isText(args) {
		return ""
	}
	args = strings.Trim(args, " \t")
	n := len(keyword)
	if len(args) < n || !equalFoldASCII(args[:n], keyword) {
		return ""
	}
	// RFC 5321 section 3.3 forbids spaces after the colon, clients send them.
	return strings.TrimLeft(args[n:], " \t")
}

// parsePath parses a path and the parameters behind it. The angle brackets
// may be missing.
func parsePath(s string) (addr Address, mailbox string, params Params, ok bool) {
	path, bracketed := strings.CutPrefix(s, "<")
	start, okRoute := skipRoute(path)
	local, rest, okLocal := cutLocalpart(start)
	rest, okAt := strings.CutPrefix(rest, "@")
	domain, rest, okDomain := cutDomain(rest)
	mailbox = start[:len(start)-len(rest)]

	var okEnd bool
	if bracketed {
		rest, okEnd = strings.CutPrefix(rest, ">")
	} else {
		okEnd = !strings.ContainsFunc(mailbox, isForeignSpace)
	}
	if !okRoute || !okLocal || !okAt || !okDomain || !okEnd {
		return Address{}, "", Params{}, false
	}

	addr = Address{Localpart: local, Domain: domain}
	if mailbox[0] == '"' {
		// RFC 5321 section 4.1.2: quoted or not, it is the same mailbox,
		// so it is written in one way.
		mailbox = addr.String()
	}
	return withParams(addr, lowerASCII(mailbox), rest)
}

// withParams completes the results of parseMail and parseRcpt with the
// parameters in s, which is all that follows the path.
func withParams(addr Address, mailbox, s string) (Address, string, Params, bool) {
	if s == "" {
		return addr, mailbox, Params{}, true
	}
	if !isSpace(rune(s[0])) || strings.ContainsFunc(s, isForeignSpace) {
		return Address{}, "", Params{}, false
	}
	var list []param
	for field := range strings.FieldsFuncSeq(s, isSpace) {
		// The value is the server's to judge, '=' in it included.
		key, value, _ := strings.Cut(field, "=")
		if key == "" {
			return Address{}, "", Params{}, false
		}
		list = append(list, param{upperASCII(key), value})
	}
	return addr, mailbox, Params{list}, true
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
	i := max(strings.IndexByte(s, '@'), 0)
	return s[:i], s[i:], isDotString(s[:i])
}

// cutQuotedString cuts off a Quoted-string (RFC 5321 section 4.1.2), with
// which s must start, and returns what it means.
func cutQuotedString(s string) (content, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\': // quoted-pairSMTP: RFC 6531 does not extend it
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return "", "", false
			}
			b.WriteByte(s[i])
		case c == '\t': // the one control character that comes this far
			return "", "", false
		default: // qtextSMTP, extended by UTF8-non-ascii
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// cutDomain cuts a domain or an address literal off s.
func cutDomain(s string) (domain, rest string, ok bool) {
	if strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ']') + 1
		return s[:i], s[i:], i > 0 && isAddressLiteral(s[1:i-1])
	}
	i := strings.IndexAny(s, "> \t")
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:], isDomain(s[:i])
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
	if equalFoldASCII(tag, "IPv6") {
		ip, err := netip.ParseAddr(content)
		return err == nil && ip.Is6() && ip.Zone() == ""
	}
	// Standardized-tag is an Ldh-str, which does not end in a hyphen.
	return tag != "" && tag[len(tag)-1] != '-' && !strings.ContainsFunc(tag, isNotLDH) &&
		content != "" && !strings.ContainsFunc(content, isNotDcontent)
}

func isNotLDH(r rune) bool { return !isLetDig(r) && r != '-' }

// isNotDcontent leaves '>' out of dcontent, since some servers let any first
// '>' behind the '@' end the path.
func isNotDcontent(r rune) bool { return r < '!' || r > '~' || strings.ContainsRune(`[\]>`, r) }

// isDotString reports whether s is a Dot-string (RFC 5321 section 4.1.2, its
// atext extended by UTF8-non-ascii, RFC 6531 section 3.3): a local part that
// needs no quotes.
func isDotString(s string) bool {
	return isDotted(s, &inAtom, func(rune) bool { return true })
}

// quoteLocalpart writes s as a Quoted-string (RFC 5321 section 4.1.2).
func quoteLocalpart(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
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
func isDotted(s string, ascii *asciiSet, beyond func(rune) bool) bool {
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
			if !ascii[c] {
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

func isLetDig(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' }

// isText reports whether s is valid UTF-8 without control characters. A tab is
// none of them, since some clients send it for a space.
func isText(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			return utf8.ValidString(s[i:]) && indexControl(s[i:]) < 0 && !strings.ContainsFunc(s[i:], isC1)
		case c < ' ' && c != '\t' || c == 0x7f:
			return false
		}
	}
	return true
}

// isC1 reports whether r is a control character beyond ASCII.
func isC1(r rune) bool { return r >= utf8.RuneSelf && unicode.IsControl(r) }

// isForeignSpace reports whether r is white space outside ASCII. Some servers
// trim it and split at it, so outside angle brackets nobody can tell what it
// belongs to.
func isForeignSpace(r rune) bool { return r >= utf8.RuneSelf && unicode.IsSpace(r) }

// SMTP folds the case of ASCII letters only. Unicode's folding would take
// U+017F for an S and U+212A for a K, and so one keyword for another.

func upperASCII(s string) string { return mapASCII(s, upper) }
func lowerASCII(s string) string { return mapASCII(s, lower) }

// mapASCII applies f to each octet. It allocates nothing if nothing changes.
func mapASCII(s string, f func(byte) byte) string {
	for i := range len(s) {
		if f(s[i]) != s[i] {
			b := []byte(s)
			for j := range b {
				b[j] = f(b[j])
			}
			return string(b)
		}
	}
	return s
}

func equalFoldASCII(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
