package smtpproxy

import (
	"log/slog"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Command is one line from the client, as it came, without its line end. It is
// valid during the hook's call.
type Command struct {
	// Line is the raw line. It holds no control character but tab. It may
	// hold a credential (see String).
	Line string

	// SASL tells that the line belongs to a SASL exchange (RFC 4954 section
	// 4): it follows a 334 and is no command. A hook sees such lines only
	// when it asked for them with Next, or answered 334 itself.
	SASL bool

	// Pipelined tells that the client had sent more behind the line when it
	// was taken up, without waiting for the reply. That is allowed for some
	// commands only (see MustBeLast). It is a fact of connections from
	// Proxy.Listener; what is on its way still can't be known.
	Pipelined bool

	// secret masks the line: it may hold a credential that was sent out of
	// its place.
	secret bool
}

// Verb returns the first word of the line in upper case, empty for a line of a
// SASL exchange and for one that doesn't start with an ASCII letter. Only
// ASCII letters are folded: "ſtarttls" (U+017F) is not STARTTLS.
func (c Command) Verb() string {
	if c.SASL {
		return ""
	}
	return verbOf(c.Line)
}

// Args returns what follows the verb, without the white space between. For a
// line without verb that is the whole line.
func (c Command) Args() string {
	if c.SASL {
		return c.Line
	}
	return argsOf(c.Line)
}

// String returns the line with credentials masked, quoted as needed to be one
// line of printable characters. Masked are the initial response of AUTH, each
// line of a SASL exchange, and a line with an unknown verb after an AUTH that
// failed, which may be a password sent in vain.
func (c Command) String() string {
	return printable(c.masked())
}

// LogValue returns what String returns. It implements slog.LogValuer.
func (c Command) LogValue() slog.Value {
	return slog.StringValue(c.String())
}

// MarshalText returns what String returns, so that JSON of whatever holds a
// Command masks it too. It implements encoding.TextMarshaler.
func (c Command) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MustBeLast tells whether a command with this verb has to be the last one that
// a client sends before it waits for a reply: because it changes what may
// follow (RFC 2920 section 3.1, RFC 3207 section 4), or since the client hasn't
// seen yet whether the server knows pipelining. AUTH and BDAT may have their
// next line or their chunk behind them.
//
// A client that breaks this is broken or malicious; a hook may refuse it:
//
//	if cmd.Pipelined && cmd.MustBeLast() {
func (c Command) MustBeLast() bool {
	switch c.Verb() {
	case "HELO", "EHLO", "LHLO", "DATA", "VRFY", "EXPN", "TURN", "QUIT", "NOOP", "STARTTLS", "ETRN":
		return true
	}
	return false
}

const mask = "****"

func (c Command) masked() string {
	switch {
	case c.SASL && c.Line == "*":
		// The client's cancel (RFC 4954 section 4) is no secret.
		return "*"
	case c.SASL, c.secret:
		return mask
	case verbOf(c.Line) != "AUTH":
		return c.Line
	}
	fields := strings.Fields(c.Line)
	if len(fields) <= 2 {
		return c.Line
	}
	return fields[0] + " " + fields[1] + " " + mask
}

// printable returns s with what a terminal or a log could take for something
// else than text written as an escape, and cut where it is endless.
func printable(s string) string {
	const limit = 1024
	end := ""
	if len(s) > limit {
		s, end = s[:limit], "..."
	}
	plain := true
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			plain = false
			break
		}
	}
	if plain {
		return s + end
	}
	// strconv escapes quotation marks and backslashes too. That keeps the
	// result unambiguous.
	quoted := strconv.Quote(s)
	return quoted[1:len(quoted)-1] + end
}

// verbOf returns the verb of a command line: its first word up to a space or a
// tab, ASCII letters in upper case; empty if it is no word of printable ASCII
// that starts with a letter.
func verbOf(line string) string {
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
		verb = upperASCII(verb)
	}
	return verb
}

func argsOf(line string) string {
	if verbOf(line) == "" {
		return line
	}
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return ""
	}
	return strings.TrimLeft(line[i:], " \t")
}

func isHELO(verb string) bool {
	return verb == "HELO" || verb == "EHLO" || verb == "LHLO"
}
