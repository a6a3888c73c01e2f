package smtpproxy

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file keeps credentials out of what is printed and logged of commands.

const mask = "****"

// String returns the line with credentials masked, quoted as needed to be one
// line of printable characters. Masked are
//   - each line of a SASL exchange;
//   - what stands behind a first word that begins with AUTH, well-formed or not,
//     or is PASS, PASSWORD, LOGIN or APOP, but for the name of a SASL mechanism
//     behind AUTH. One that isn't registered or in wide use is masked, too, since
//     it could be a response that was sent without a mechanism;
//   - the same where another word stands before, which is no SMTP command: as in
//     IMAP's "a1 LOGIN alice secret";
//   - a line with an unknown verb after an AUTH that failed, which may be a
//     password sent in vain.
func (c Command) String() string {
	return printable(c.masked())
}

// GoString returns the command as a Go expression, masked as String does. It
// implements fmt.GoStringer.
func (c Command) GoString() string {
	var b strings.Builder
	b.WriteString("smtpproxy.Command{Line:")
	b.WriteString(strconv.Quote(cut(c.masked())))
	if c.SASL {
		b.WriteString(", SASL:true")
	}
	if c.Pipelined {
		b.WriteString(", Pipelined:true")
	}
	b.WriteString("}")
	return b.String()
}

// Format formats what String returns, and GoString for %#v, so that no verb
// shows a credential. It implements fmt.Formatter.
func (c Command) Format(f fmt.State, verb rune) { format(f, verb, c.String, c.GoString) }

// GoString returns the failure as a Go expression. The command is masked, and
// in the text of Err what is masked in the command. It implements
// fmt.GoStringer.
func (f Failure) GoString() string {
	var b strings.Builder
	b.WriteString("smtpproxy.Failure{Err:")
	if f.Err == nil {
		b.WriteString("nil")
	} else {
		fmt.Fprintf(&b, "errors.New(%q)", scrub(fmt.Sprint(f.Err), f.Command))
	}
	if f.Stack != nil {
		fmt.Fprintf(&b, ", Stack:[]byte(%q)", f.Stack)
	}
	fmt.Fprintf(&b, ", Command:%#v}", f.Command)
	return b.String()
}

// Format formats what Error returns, and GoString for %#v. It implements
// fmt.Formatter.
func (f Failure) Format(s fmt.State, verb rune) { format(s, verb, f.Error, f.GoString) }

// Format formats what Error returns: the value could be a Command, which fmt
// would not ask how to print it here.
func (e panicError) Format(s fmt.State, verb rune) {
	format(s, verb, e.Error, func() string { return "errors.New(" + strconv.Quote(e.Error()) + ")" })
}

// format formats a text as fmt formats a string, and for %#v another one.
func format(s fmt.State, verb rune, text, goSyntax func() string) {
	if verb == 'v' && s.Flag('#') {
		io.WriteString(s, goSyntax())
		return
	}
	fmt.Fprintf(s, fmt.FormatString(s, verb), text())
}

// masked returns the line with the mask in the place of credentials.
func (c Command) masked() string {
	shown, _, masked := c.split()
	if !masked {
		return c.Line
	}
	return shown + mask
}

// split splits the line into what may be shown and what may be a secret, which is
// there if masked is true.
func (c Command) split() (shown, secret string, masked bool) {
	switch {
	case c.SASL && c.Line == "*":
		// The client's cancel (RFC 4954 section 4) is no secret.
		return c.Line, "", false
	case c.SASL, c.secret:
		return "", c.Line, true
	}
	shown, secret = splitSecret(c.Line)
	return shown, secret, secret != ""
}

// splitSecret splits a command line into what may be shown, with white space in
// order, and what may be a secret, which is often nothing. It looks for what a
// client may have meant, however wrong it is: servers refuse that, but somebody
// prints it.
func splitSecret(line string) (shown, secret string) {
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

// cut returns what is endless cut.
func cut(s string) string {
	const limit = 1024
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}

// printable returns s with what a terminal or a log could take for something
// else than text written as an escape, and cut where it is endless.
func printable(s string) string {
	s = cut(s)
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			// strconv escapes quotation marks and backslashes too. That
			// keeps the result unambiguous.
			return quoted(s)
		}
	}
	return s
}

func quoted(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// scrub masks in the text of a hook's error what the command masks: the words
// of a line with a credential, encoded and decoded.
func scrub(text string, cmd Command) string {
	_, secret, masked := cmd.split()
	if !masked {
		return text
	}
	var secrets []string
	add := func(s string) {
		octets := []byte(s)
		secrets = append(secrets, s, quoted(s), base64.StdEncoding.EncodeToString(octets))
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

// maskIn masks a secret in a text. One that is very short could be part of any
// word; it is masked where it stands alone.
func maskIn(text, secret string) string {
	if len(secret) > 3 {
		return strings.ReplaceAll(text, secret, mask)
	}
	if secret == "" {
		return text
	}
	inWord := func(i int) bool {
		return i >= 0 && i < len(text) && (text[i] >= utf8.RuneSelf || inWord(text[i]))
	}
	for i := 0; i+len(secret) <= len(text); i++ {
		if text[i:i+len(secret)] == secret && !inWord(i-1) && !inWord(i+len(secret)) {
			text = text[:i] + mask + text[i+len(secret):]
			i += len(mask) - 1
		}
	}
	return text
}
