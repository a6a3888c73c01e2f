package hooks

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// unxtext decodes xtext (RFC 3461 section 4): each "+" and two hexadecimal digits. What
// isn't xtext, since it has a "+" without, is taken as it is, as Postfix does.
func unxtext(s string) string {
	if !strings.Contains(s, "+") {
		return s
	}
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

// hexDigits are those of xtext, which has no small letters: bob+ab is a user's own name.
const hexDigits = "0123456789ABCDEF"

// masked puts a question mark in the place of all that isn't printable, or no UTF-8: values
// end up in logs, and in header fields.
func masked(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
