package address

import (
	"strings"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// Param is a parameter of a MAIL or RCPT command (RFC 5321 section 4.1.2,
// "esmtp-param").
type Param struct {
	Key   string // in upper case
	Value string // as sent, empty if the keyword stands alone
}

// maxParams is how many parameters a command may have. Each costs a server, and
// a session, far more memory than its two octets on the wire.
const maxParams = 64

// TooManyParams reports whether a line with the given verb has more than 64
// parameters, if it is a MAIL or RCPT command. In one that can't be parsed each word
// behind the first is taken for one.
func TooManyParams(verb, line string) bool {
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
	_, rest, ok := cut(args)
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

// withParams completes the results of parseMail and parseRcpt with the
// parameters in s, which is all that follows the path.
func withParams(path Path, s string, ok bool) (Path, []Param, bool) {
	if !ok {
		return Path{}, nil, false
	}
	n := countWords(s)
	if n == 0 {
		return path, nil, true
	}
	list := make([]Param, 0, n)
	for field := range strings.FieldsFuncSeq(s, isSpace) {
		// The value is the server's to judge, '=' in it included.
		key, value, _ := strings.Cut(field, "=")
		if !isKeyword(key) || hasMailbox(value) {
			return Path{}, nil, false
		}
		list = append(list, Param{ascii.ToUpper(key), value})
	}
	return path, list, true
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

func isSpace(r rune) bool { return r == ' ' || r == '\t' }

// indexSpace returns where s has its first space, the end if it has none.
func indexSpace(s string) int {
	for i := range len(s) {
		if isSpace(rune(s[i])) {
			return i
		}
	}
	return len(s)
}
