package address

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// Path is a reverse-path or a forward-path (RFC 5321 section 4.1.2). The zero value
// is the null reverse-path.
type Path struct {
	// Local is the local part without its quoting, Domain a domain name or an
	// address literal with its brackets, both with letters as sent. Domain is
	// empty for <postmaster>.
	Local, Domain string

	// Mailbox is what Join makes of them, in lower case.
	Mailbox string
}

// Join returns a mailbox in the form that SMTP transports: the local part is quoted
// where it has to be. Without domain it is the local part alone.
func Join(local, domain string) string {
	if local == "" && domain == "" {
		return ""
	}
	if !isDotString(local) {
		local = quoteLocalpart(local)
	}
	if domain == "" {
		return local
	}
	return local + "@" + domain
}

// cutPath parses a path. The angle brackets may be missing; if they are there,
// there must be no others, since servers differ in which of two ends the path.
func cutPath(s string) (p Path, rest string, ok bool) {
	path, bracketed := strings.CutPrefix(s, "<")
	if bracketed {
		if path, rest, ok = strings.Cut(path, ">"); !ok {
			return Path{}, "", false
		}
	}
	if hasBracket(path) || hasBracket(rest) {
		return Path{}, "", false
	}

	start, okRoute := skipRoute(path)
	local, behind, okLocal := cutLocalpart(start)
	behind, okAt := strings.CutPrefix(behind, "@")
	domain, behind, okDomain := cutDomain(behind)
	mailbox := start[:len(start)-len(behind)]
	var okEnd bool
	if bracketed {
		okEnd = behind == ""
	} else {
		// To some what could be a parameter is one, and a tab is no space.
		okEnd = (behind == "" || behind[0] == ' ') && strings.IndexByte(mailbox, '=') < 0
		rest = behind
	}
	if !okRoute || !okLocal || !okAt || !okDomain || !okEnd || hasEncodedWord(mailbox) {
		return Path{}, "", false
	}

	if mailbox[0] == '"' || !isDotString(local) {
		// RFC 5321 section 4.1.2: quoted or not, it is the same mailbox,
		// so it is written in one way.
		mailbox = Join(local, domain)
	}
	return Path{local, domain, ascii.ToLower(mailbox)}, rest, true
}

func hasBracket(s string) bool {
	return strings.IndexByte(s, '<') >= 0 || strings.IndexByte(s, '>') >= 0
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
	i := indexSpace(s)
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
