package smtpproxy

import (
	"log/slog"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// Command is one line from the client, as it came, without its line end. It is
// valid during the hook's call.
type Command struct {
	// Line is the raw line. It holds no control character but tab. It may
	// hold a credential, which is masked wherever the Command itself is
	// printed or logged (see String), but not in Line. Nor can package fmt
	// mask a Command that it finds in an unexported field of a struct, be it
	// one of the hook's or of an error that wraps a Failure, or that is to be
	// printed with %p or %w, of which vet warns.
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
	name, _ := dialogue.VerbOf(c.Line)
	return name
}

// Args returns what follows the verb, without the white space between. For a
// line without verb that is the whole line.
func (c Command) Args() string {
	if c.SASL {
		return c.Line
	}
	return dialogue.ArgsOf(c.Line)
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
