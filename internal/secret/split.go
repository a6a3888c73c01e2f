package secret

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// Split splits a command line into what may be shown, with white space in
// order, and what may be a secret, which is often nothing. It looks for what a
// client may have meant, however wrong it is: servers refuse that, but somebody
// prints it.
func Split(line string) (shown, secret string) {
	at := wordIn(line, 0)
	end := endOfWord(line, at)
	if !asksForSecret(line[at:end]) {
		if _, v := dialogue.VerbOf(line[at:end]); v.IsKnown() {
			return line, ""
		}
		at = wordIn(line, end)
		end = endOfWord(line, at)
		if !asksForSecret(line[at:end]) {
			return line, ""
		}
	}
	auth := isAuth(line[at:end])
	if auth && !slices.Contains([]string{"AUTH", "AUTHENTICATE", "AUTHINFO", "AUTHORIZATION"}, ascii.ToUpper(line[at:end])) {
		end = at + len("AUTH") // the rest may be a word of its own
	}
	shown, secret = line[:end], line[end:]
	if auth {
		separator, rest := cutSeparator(secret)
		mechanism := rest[:endOfMechanism(rest)]
		if separator != "" && isMechanism(mechanism) {
			shown += separator + mechanism
			secret = rest[len(mechanism):]
		}
	}
	separator, secret := cutSeparator(secret)
	if secret == "" {
		return line, ""
	}
	return shown + separator, secret
}

// asksForSecret reports whether behind a word follows a credential.
func asksForSecret(word string) bool {
	switch ascii.ToUpper(word) {
	case "PASS", "PASSWORD", "LOGIN", "APOP":
		return true
	}
	return isAuth(word)
}

func isAuth(word string) bool {
	const auth = "AUTH"
	return len(word) >= len(auth) && ascii.EqualFold(word[:len(auth)], auth)
}

// wordIn returns where in s the first word behind i starts, of what is letters and
// digits. In front of it may be anything else.
func wordIn(s string, i int) int {
	for i < len(s) && !inWord(s[i]) {
		i++
	}
	return i
}

// endOfWord returns where the word ends that starts in s at i.
func endOfWord(s string, i int) int {
	for i < len(s) && (inWord(s[i]) || s[i] == '-' || s[i] == '_') {
		i++
	}
	return i
}

func inWord(c byte) bool { return c < utf8.RuneSelf && ascii.IsLetDig(rune(c)) }

// cutSeparator cuts off what separates words. White space is written as one blank.
func cutSeparator(s string) (separator, rest string) {
	isSeparator := func(r rune) bool { return isBlank(r) || r == '=' || r == ':' }
	rest = strings.TrimLeftFunc(s, isSeparator)
	if rest == "" {
		rest = strings.TrimFunc(s, isBlank) // a response may be a '='
		return " ", rest
	}
	separator = s[:len(s)-len(rest)]
	if separator != "" && strings.TrimFunc(separator, isBlank) == "" {
		return " ", rest
	}
	return strings.Map(func(r rune) rune {
		if isBlank(r) {
			return -1
		}
		return r
	}, separator), rest
}

func isBlank(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || ascii.IsForeign(r) }

func endOfMechanism(s string) int {
	if i := strings.IndexFunc(s, func(r rune) bool { return isBlank(r) || r == '=' || r == ':' }); i >= 0 {
		return i
	}
	return len(s)
}

// isMechanism reports whether a word, in any case, is the name of a SASL mechanism
// that IANA has registered, or that is in wide use.
func isMechanism(word string) bool {
	const longest = 26
	if len(word) > longest {
		return false
	}
	switch name := ascii.ToUpper(word); name {
	case "PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "EXTERNAL", "ANONYMOUS", "OTP", "SKEY", "SECURID", "SRP",
		"GSSAPI", "GSS-SPNEGO", "SPNEGO", "SPNEGO-PLUS", "KERBEROS_V4", "KERBEROS_V5", "NTLM", "MSN",
		"SCRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-224", "SCRAM-SHA-224-PLUS",
		"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-384", "SCRAM-SHA-384-PLUS",
		"SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "SCRAM-SHA3-512", "SCRAM-SHA3-512-PLUS",
		"OAUTHBEARER", "XOAUTH2", "XOAUTH", "OAUTH10A", "OPENID20", "SAML20", "SXOVER-PLUS", "PLAIN-CLIENTTOKEN",
		"EAP-AES128", "EAP-AES128-PLUS", "ECDH-X25519-CHALLENGE", "ECDSA-NIST256P-CHALLENGE",
		"9798-U-RSA-SHA1-ENC", "9798-M-RSA-SHA1-ENC", "9798-U-DSA-SHA1", "9798-M-DSA-SHA1", "9798-U-ECDSA-SHA1", "9798-M-ECDSA-SHA1",
		"NMAS_AUTHEN", "NMAS_LOGIN", "NMAS-SAMBA-AUTH", "CRAM-SHA1", "CRAM-SHA256":
		return true
	default:
		// RFC 5801 section 3.1: GS2- and a mechanism's name, often one made of a hash.
		return strings.HasPrefix(name, "GS2-") && endOfWord(name, 0) == len(name)
	}
}
