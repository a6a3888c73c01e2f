package hooks

import (
	"strings"
	"unicode/utf8"
)

// unxtext decodes xtext (RFC 3461 section 4). What isn't xtext is taken as it is: nginx
// before 1.29.2, and Roundcube, send user names so. Control characters, and octets that are
// no UTF-8, become question marks, since values end up in logs.
func unxtext(s string) string {
	if strings.Contains(s, "+") {
		s = decoded(s)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// decoded returns s with each "+" and two hexadecimal digits decoded, or s if it has a "+"
// without.
func decoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return s
		}
		high, low := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
		if high < 0 || low < 0 {
			return s
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String()
}

// hexDigits are those of xtext, which has no small letters.
const hexDigits = "0123456789ABCDEF"
