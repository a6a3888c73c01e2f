// Package ascii folds and tells apart characters as SMTP does: by ASCII alone.
// Unicode's folding would take U+017F for an S and U+212A for a K, and so one
// keyword for another.
package ascii

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// ToUpper returns s with its ASCII letters in upper case. It allocates nothing if
// nothing changes.
func ToUpper(s string) string {
	if !hasBetween(s, 'a', 'z') {
		return s
	}
	return mapped(s, upper)
}

// ToLower returns s with its ASCII letters in lower case. It allocates nothing if
// nothing changes.
func ToLower(s string) string {
	if !hasBetween(s, 'A', 'Z') {
		return s
	}
	return mapped(s, lower)
}

// hasBetween reports whether s has an octet from first to last.
func hasBetween(s string, first, last byte) bool {
	for i := range len(s) {
		if s[i]-first <= last-first {
			return true
		}
	}
	return false
}

// mapped applies f to each octet.
func mapped(s string, f func(byte) byte) string {
	b := []byte(s)
	for i := range b {
		b[i] = f(b[i])
	}
	return string(b)
}

// EqualFold reports whether a and b are the same but for the case of ASCII letters.
func EqualFold(a, b string) bool {
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

// IsLetDig reports whether r is a Let-dig (RFC 5321 section 4.1.2), an ASCII letter
// or digit.
func IsLetDig(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// IndexControl returns where s has its first ASCII control character but tab,
// -1 if it has none.
func IndexControl(s string) int {
	for i := range len(s) {
		if c := s[i]; c-' ' < 0x7f-' ' || c >= 0x80 || c == '\t' { // most are printable
			continue
		}
		return i
	}
	return -1
}

// IsForeign reports whether r is a control character or white space beyond ASCII,
// or one of those that were white space to some version of Unicode or are to some
// language's library. Some servers trim it and split at it.
func IsForeign(r rune) bool {
	return r >= utf8.RuneSelf && (unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune("\u180e\u200b\ufeff", r))
}
