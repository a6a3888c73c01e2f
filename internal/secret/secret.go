// Package secret keeps credentials out of what is printed and logged: it finds them in
// command lines, and scrubs texts of them. What is left is made fit to be printed.
package secret

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mask stands in the place of a secret.
const Mask = "****"

// Scrub masks a secret in a text, such as that of an error: the whole of it and its
// words, encoded and decoded, as they are or as package fmt may have written them. An
// empty secret leaves the text as it is.
func Scrub(text, secret string) string {
	if secret == "" {
		return text
	}
	var secrets []string
	add := func(s string) {
		octets := []byte(s)
		secrets = append(secrets, s, escaped(s), base64.StdEncoding.EncodeToString(octets))
		if len(s) > 1 {
			inHex := hex.EncodeToString(octets)
			secrets = append(secrets, inHex, strings.ToUpper(inHex), strings.Trim(fmt.Sprint(octets), "[]"))
		}
	}
	parts := func(s string, between func(rune) bool) {
		for part := range strings.FieldsFuncSeq(s, between) {
			add(part)
		}
	}
	add(secret)
	for word := range strings.FieldsFuncSeq(secret, isBlank) {
		add(word)
		// One with something before or behind it.
		parts(word, func(r rune) bool { return strings.ContainsRune(`=:,;"'<>`, r) })
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			decoded, err := enc.DecodeString(strings.TrimRight(word, "="))
			if err != nil || len(decoded) == 0 {
				continue
			}
			add(string(decoded))
			// The parts of PLAIN end in NUL, those of OAUTHBEARER in %x01 with
			// a word before the token.
			parts(string(decoded), func(r rune) bool { return r < ' ' })
			parts(string(decoded), func(r rune) bool { return r <= ' ' })
			parts(string(decoded), func(r rune) bool { return r <= ' ' || r == '=' || r == ',' })
		}
	}
	// The longest first, which the others may be parts of.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	for _, s := range slices.Compact(secrets) {
		text = maskIn(text, s)
	}
	return text
}

// ScrubWords masks a secret where a text repeats it as it was sent: the whole of it and its
// words. What it says when it is decoded, such a text may say by chance.
func ScrubWords(text, secret string) string {
	words := strings.FieldsFunc(secret, isBlank)
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	if secret != "" {
		text = maskIn(text, secret)
	}
	for _, word := range words {
		text = maskIn(text, word)
	}
	return text
}

// maskIn masks a secret of at least one octet in a text, in upper and lower case, as one who
// takes it for a verb may echo it. One that is very short could be part of any word; it is
// masked where it stands alone.
func maskIn(text, secret string) string {
	wordAt := func(i int) bool {
		return i >= 0 && i < len(text) && (text[i] >= utf8.RuneSelf || inWord(text[i]))
	}
	var b strings.Builder
	done := 0
	for i := 0; i < len(text); {
		n, ok := foldedAt(text[i:], secret)
		if !ok || len(secret) <= 3 && (wordAt(i-1) || wordAt(i+n)) {
			i++
			continue
		}
		b.WriteString(text[done:i] + Mask)
		i += n
		done = i
	}
	return b.String() + text[done:]
}

// foldedAt reports whether a text begins with s, whatever the case of both is, and how many
// octets that are: a letter may have more of them in upper case.
func foldedAt(text, s string) (octets int, ok bool) {
	for s != "" {
		_, n := utf8.DecodeRuneInString(s)
		_, k := utf8.DecodeRuneInString(text[octets:])
		want, got := s[:n], text[octets:octets+k]
		if got != want && !(utf8.ValidString(got) && strings.EqualFold(got, want)) {
			return 0, false
		}
		s, octets = s[n:], octets+k
	}
	return octets, true
}

// Printable returns s with what a terminal or a log could take for something
// else than text written as an escape, and cut where it is endless.
func Printable(s string) string {
	s = cut(s)
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			// strconv escapes quotation marks and backslashes too. That
			// keeps the result unambiguous.
			return escaped(s)
		}
	}
	return s
}

// Quoted returns s as a Go string literal, cut where it is endless.
func Quoted(s string) string { return strconv.Quote(cut(s)) }

// cut returns what is endless cut.
func cut(s string) string {
	const limit = 1024
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}

// escaped returns s as it stands between the quotation marks of a Go string literal.
func escaped(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
