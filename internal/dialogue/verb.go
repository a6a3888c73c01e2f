package dialogue

import (
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// Verb is the verb of a command, as far as the dialogue cares.
type Verb uint8

const (
	NoVerb Verb = iota // no command, or a line of a SASL exchange
	HELO
	EHLO
	LHLO
	MAIL
	RCPT
	DATA
	BDAT
	RSET
	NOOP
	QUIT
	VRFY
	EXPN
	HELP
	AUTH
	STARTTLS
	ETRN
	XCLIENT
	XFORWARD
	LikeAUTH     // another word that begins with AUTH: a misspelt one, most likely
	LikeSTARTTLS // another word that begins with STARTTLS: some servers look at no more
	HTTP         // the method of a request in HTTP
	Other        // a verb that nobody knows here
)

// LineOf returns string(b). For the commands that have no arguments, as most clients write them, it
// allocates nothing.
func LineOf(b []byte) string {
	switch string(b) {
	case "DATA":
		return "DATA"
	case "RSET":
		return "RSET"
	case "NOOP":
		return "NOOP"
	case "QUIT":
		return "QUIT"
	}
	return string(b)
}

// VerbOf returns the verb of a command line: its first word up to a space or a tab,
// ASCII letters in upper case, and which one it is. The name is empty if the line
// doesn't begin with a word of printable ASCII that starts with a letter.
func VerbOf(line string) (name string, v Verb) {
	name = word(line)
	switch name {
	case "":
		return name, NoVerb
	case "HELO":
		return name, HELO
	case "EHLO":
		return name, EHLO
	case "LHLO":
		return name, LHLO
	case "MAIL":
		return name, MAIL
	case "RCPT":
		return name, RCPT
	case "DATA":
		return name, DATA
	case "BDAT":
		return name, BDAT
	case "RSET":
		return name, RSET
	case "NOOP":
		return name, NOOP
	case "QUIT":
		return name, QUIT
	case "VRFY":
		return name, VRFY
	case "EXPN":
		return name, EXPN
	case "HELP":
		return name, HELP
	case "AUTH":
		return name, AUTH
	case "STARTTLS":
		return name, STARTTLS
	case "ETRN":
		return name, ETRN
	case "XCLIENT":
		return name, XCLIENT
	case "XFORWARD":
		return name, XFORWARD
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI":
		if args := ArgsOf(line); strings.HasPrefix(args, "/") || strings.Contains(args, " HTTP/") {
			return name, HTTP // RFC 9112 section 3
		}
	}
	switch {
	case strings.HasPrefix(name, "STARTTLS"):
		return name, LikeSTARTTLS
	case strings.HasPrefix(name, "AUTH"):
		return name, LikeAUTH
	}
	return name, Other
}

// word returns the first word of a line in upper case.
func word(line string) string {
	if line == "" || line[0]|0x20 < 'a' || line[0]|0x20 > 'z' {
		return ""
	}
	verb, inLower := line, false
	for i := range len(line) {
		c := line[i]
		if c == ' ' || c == '\t' {
			verb = line[:i]
			break
		}
		if c < ' ' || c >= 0x7f {
			return ""
		}
		inLower = inLower || c >= 'a'
	}
	if inLower {
		verb = ascii.ToUpper(verb)
	}
	return verb
}

// ArgsOf returns what follows the verb, without the white space between. For a line
// without a verb that is the whole line.
func ArgsOf(line string) string {
	if word(line) == "" {
		return line
	}
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return ""
	}
	return strings.TrimLeft(line[i:], " \t")
}

// IsKnown tells whether the verb is one of SMTP's, or of an extension that is known
// here.
func (v Verb) IsKnown() bool { return v > NoVerb && v < LikeAUTH }

// Greets tells whether the verb is that of a command by which a client names itself.
func (v Verb) Greets() bool { return v == HELO || v == EHLO || v == LHLO }

// hasAUTH tells whether a client that sends the verb may mean AUTH.
func (v Verb) hasAUTH() bool { return v == AUTH || v == LikeAUTH }

// mayHold tells whether the reply to a command may wait for the next ones (RFC 2920
// section 3.2 (5) and (6)).
func (v Verb) mayHold() bool { return v == MAIL || v == RCPT || v == RSET }

// ParseBDAT returns the size in a BDAT command, -1 if it isn't exactly
// "BDAT" SP chunk-size [SP "LAST"] (RFC 3030 section 2), but for blanks behind it
// (RFC 5321 section 4.1.1), and whether the chunk is the last one.
func ParseBDAT(line string) (size int64, last bool) {
	if len(line) < len("BDAT 0") || !ascii.EqualFold(line[:5], "BDAT ") {
		return -1, false
	}
	digits, end, last := strings.Cut(strings.TrimRight(line[5:], " \t"), " ")
	if last && !ascii.EqualFold(end, "LAST") {
		return -1, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return -1, false
		}
	}
	size, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return -1, false
	}
	return size, last
}

// CanonicalBDAT returns a well-formed BDAT command in the one form that a server gets:
// without leading zeros, with which some take the size for an octal number, and
// without blanks behind it.
func CanonicalBDAT(line string) string {
	size, _ := ParseBDAT(line)
	args := strings.TrimRight(line[len("BDAT "):], " \t")
	digits, keyword, _ := strings.Cut(args, " ")
	n := strconv.FormatInt(size, 10)
	if n == digits && len(args) == len(line)-len("BDAT ") {
		return line
	}
	return strings.TrimRight(line[:len("BDAT ")]+n+" "+keyword, " ")
}
