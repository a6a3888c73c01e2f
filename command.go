package smtpproxy

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/address"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/secret"
)

// Command is one line from the client, as it came, without its line end. It is
// valid during the hook's call.
type Command struct {
	// Line is the raw line. It holds no control character but tab. It may
	// hold a credential, which is masked wherever the Command itself is
	// printed or logged (see String), but not in Line and Received. Nor can package fmt
	// mask a Command that it finds in an unexported field of a struct, be it
	// one of the hook's or of an error that wraps a Failure, or that is to be
	// printed with %p or %w, of which vet warns.
	Line string

	// Received is the line as the client has sent it. Line is what the hooks before
	// this one have made of it, the same for the first.
	Received string

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
	return verbName(c.Line)
}

// verbName returns the verb of a command line.
func verbName(line string) string {
	name, _ := dialogue.VerbOf(line)
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

// Path returns what a MAIL or RCPT command names, as Transaction has it when the server has
// accepted it: the mailbox (as Transaction.Sender or Recipient.Recipient), its parts, and the
// parameters. The mailbox of the null reverse-path is empty.
//
// ok is false for all other commands, and where servers could read the command in different
// ways (see Transaction.Unparsed): a hook that decides by mailbox should refuse it then. What
// looks for a mailbox in Args by itself misses other ways to write it, such as
// TO:<"bob"@example.org>.
func (c Command) Path() (mailbox string, parts Address, params Params, ok bool) {
	var path address.Path
	var list []address.Param
	var unparsed string
	switch c.Verb() {
	case "MAIL":
		path, list, unparsed = address.Mail(c.Line)
	case "RCPT":
		path, list, unparsed = address.Rcpt(c.Line)
	default:
		return "", Address{}, Params{}, false
	}
	return path.Mailbox, Address{path.Local, path.Domain}, Params{list}, unparsed == ""
}

// String returns the line with credentials masked, quoted as needed to be one
// line of printable characters. Masked are
//   - each line of a SASL exchange;
//   - what stands behind a first word that begins with AUTH, well-formed or not,
//     or is PASS, PASSWORD, LOGIN or APOP, but for the name of a SASL mechanism
//     behind AUTH. One that isn't registered or in wide use is masked, too, since
//     it could be a response that was sent without a mechanism;
//   - the same where another word stands before, which is no SMTP command: as in
//     IMAP's "a1 LOGIN alice secret";
//   - a line with an unknown verb, which is neither SMTP's nor a Mux's, after an AUTH
//     that failed, until another command comes: it may be a password sent in vain.
func (c Command) String() string {
	return secret.Printable(c.masked())
}

// GoString returns the command as a Go expression, masked as String does. It
// implements fmt.GoStringer.
func (c Command) GoString() string {
	var b strings.Builder
	b.WriteString("smtpproxy.Command{Line:")
	b.WriteString(secret.Quoted(c.masked()))
	if c.Received != "" && c.Received != c.Line {
		received := c
		received.Line = c.Received
		b.WriteString(", Received:" + secret.Quoted(received.masked()))
	}
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

// masked returns the line with the mask in the place of credentials.
func (c Command) masked() string {
	shown, _, masked := c.split()
	if !masked {
		return c.Line
	}
	return shown + secret.Mask
}

// split splits the line into what may be shown and what may be a secret, which is
// there if masked is true.
func (c Command) split() (shown, hidden string, masked bool) {
	switch {
	case c.SASL && c.Line == "*":
		// The client's cancel (RFC 4954 section 4) is no secret.
		return c.Line, "", false
	case c.SASL, c.secret:
		return "", c.Line, true
	}
	shown, hidden = secret.Split(c.Line)
	return shown, hidden, hidden != ""
}

// format formats a text as fmt formats a string, and for %#v another one.
func format(s fmt.State, verb rune, text, goSyntax func() string) {
	if verb == 'v' && s.Flag('#') {
		io.WriteString(s, goSyntax())
		return
	}
	fmt.Fprintf(s, fmt.FormatString(s, verb), text())
}
