package smtpproxy

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// Reply is a Decision: the client gets this reply, and the server never sees
// the command.
//
// The zero value is "250 2.0.0 OK". A Reply must be valid: Code from 200 to
// 599 but not 354, nor any 3xx to DATA, which would start message content (RFC
// 5321 section 4.1.1.4); the class of Enhanced equal to the class of Code; at most 100
// Lines, without control characters but tab, each at most 512 octets on the
// wire (RFC 5321 section 4.5.3.1.5); no 220 to STARTTLS and no 25x to an LMTP
// RCPT, whose recipients the server has to know (RFC 2033 section 4.2); no 2xx to LHLO
// where the server hasn't accepted one, nor to EHLO and HELO where it has, since the
// client would count on other replies to a message than the server gives. An invalid
// Reply is a [Failure].
type Reply struct {
	// Code is the reply code (RFC 5321 section 4.2). 0 means 250. 334 goes
	// on with a SASL exchange of the hook's own and implies Next (RFC 4954
	// section 4).
	Code int

	// Enhanced is the enhanced status code (RFC 3463), printed on every
	// line (RFC 2034 section 4). The zero value means X.0.0, X being the
	// class of Code, and none for 3xx and in reply to HELO, EHLO and LHLO.
	Enhanced EnhancedCode

	// Lines is the text, a reply line each. None means a standard text.
	Lines []string

	// Disconnect closes the connection after the reply. Codes 221 and 421
	// always do (RFC 5321 section 3.8).
	Disconnect bool

	// Next asks for the client's next line, whatever Proxy.Commands says.
	Next bool

	// Delay holds the reply back for so long, as Pass.Delay does a line.
	Delay time.Duration

	// Restart lets the server start afresh, for the client that it tells: the server gets
	// a connection with its addresses, and greets. That greeting is the reply, whatever its
	// code. Nothing is left of what was known of the client before, HELO, AUTH and
	// transaction among it, but TLS and what it has sent behind the command. With this, a
	// hook can take XCLIENT (Postfix), say. Connection.Peer stays who is connected, and
	// [State] what the hook has kept.
	//
	// A [ConnectHook] is asked about the client once more before that, unless it has
	// decided so itself; its refusal is the reply then.
	//
	// It is a decision about a command other than AUTH, BDAT and STARTTLS, or of a
	// ConnectHook; all other fields must be zero. From Session.Command it comes back with Code 421 and
	// Disconnect, for a server that doesn't know of it.
	Restart *Origin
}

// EnhancedCode is an enhanced status code: class, subject and detail (RFC 3463
// section 2). The zero value stands for the class of the reply and .0.0.
type EnhancedCode [3]int

// NoEnhancedCode leaves the enhanced status code out of a Reply.
var NoEnhancedCode = EnhancedCode{-1, -1, -1}

// String returns the code as it is printed in a reply, such as "5.7.1", and an
// empty string for the zero value and NoEnhancedCode.
func (e EnhancedCode) String() string {
	if e == NoEnhancedCode || e == (EnhancedCode{}) {
		return ""
	}
	return string(e.appendTo(nil))
}

func (e EnhancedCode) appendTo(b []byte) []byte {
	for i, n := range e {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return b
}

// The limits of a Reply; the line is RFC 5321 section 4.5.3.1.5, its CRLF
// included.
const (
	maxReplyLines = 100
	maxReplyLine  = 512
)

// failureReply is the reply after a failed hook.
var failureReply = replyOf(dialogue.Failed)

// replyOf returns a refusal of the library's own as a Reply.
func replyOf(r dialogue.Refusal) Reply {
	return Reply{Code: r.Code, Enhanced: r.Enhanced, Lines: []string{r.Text}, Disconnect: r.Disconnect}
}

// String returns the reply as it is sent, lines separated by CRLF and without
// the last CRLF. It expects a valid Reply.
func (r Reply) String() string {
	b := r.appendTo(nil)
	return string(b[:len(b)-2])
}

// WriteTo sends the reply to w in one Write. It expects a valid Reply, as
// [Session.Command] returns it. It implements io.WriterTo.
func (r Reply) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(r.appendTo(nil))
	return int64(n), err
}

func (r Reply) appendTo(b []byte) []byte {
	r = r.filled(dialogue.NoVerb)
	size := 0
	for _, line := range r.Lines {
		size += len("250 2.999.999 ") + len(line) + len("\r\n")
	}
	b = slices.Grow(b, size)
	last := len(r.Lines) - 1
	for i, line := range r.Lines {
		b = strconv.AppendInt(b, int64(r.Code), 10)
		if i < last {
			b = append(b, '-')
		} else {
			// The space stands even before an empty text: a SASL
			// challenge of no octets is "334 " (RFC 4954 section 4).
			b = append(b, ' ')
		}
		if r.Enhanced != NoEnhancedCode {
			b = append(r.Enhanced.appendTo(b), ' ')
		}
		b = append(b, line...)
		b = append(b, '\r', '\n')
	}
	return b
}

// filled returns the reply with all that a zero value stands for written out.
// verb is that of the command answered.
func (r Reply) filled(verb dialogue.Verb) Reply {
	if r.Code == 0 {
		r.Code = 250
	}
	if r.Enhanced == (EnhancedCode{}) {
		r.Enhanced = EnhancedCode{r.Code / 100, 0, 0}
		if r.Code/100 == 3 || verb.Greets() {
			// RFC 2034 section 4: a code stands in 2xx, 4xx and 5xx
			// replies but those to HELO and EHLO.
			r.Enhanced = NoEnhancedCode
		}
	}
	if len(r.Lines) == 0 {
		r.Lines = standardText(r.Code)
	}
	if r.Code == 221 || r.Code == 421 {
		r.Disconnect = true
	}
	if r.Code == 334 {
		r.Next = true
	}
	return r
}

var (
	textOK       = []string{"OK"}
	textBye      = []string{"Bye"}
	textEmpty    = []string{""}
	textNotTaken = []string{"Requested action not taken"}
	textFailure  = []string{dialogue.Failed.Text}
)

func standardText(code int) []string {
	switch {
	case code == 221:
		return textBye
	case code == 421:
		return textFailure
	case code/100 == 2:
		return textOK
	case code/100 == 3:
		return textEmpty
	default:
		return textNotTaken
	}
}

// validate tells what is wrong with a Reply, already filled, to a command with
// the given verb.
func (r Reply) validate(verb dialogue.Verb, lmtp bool) error {
	class := r.Code / 100
	switch {
	case r.Code < 200 || r.Code > 599:
		return fmt.Errorf("%w: code %d", ErrInvalidDecision, r.Code)
	case r.Code == 354 || class == 3 && verb == dialogue.DATA:
		// A client may take any 3xx to DATA for 354.
		return fmt.Errorf("%w: a hook can't take message content (%d)", ErrInvalidDecision, r.Code)
	case r.Code == 220 && verb == dialogue.STARTTLS:
		return fmt.Errorf("%w: a hook can't start TLS (220)", ErrInvalidDecision)
	case class == 2 && verb.Greets() && (verb == dialogue.LHLO) != lmtp:
		// The client would count on other replies to a message than the server gives.
		return fmt.Errorf("%w: a hook can't make SMTP of LMTP, nor LMTP of SMTP (%d)", ErrInvalidDecision, r.Code)
	case r.Code/10 == 25 && verb == dialogue.RCPT && lmtp:
		return fmt.Errorf("%w: a hook can't accept an LMTP recipient (%d)", ErrInvalidDecision, r.Code)
	case len(r.Lines) > maxReplyLines:
		return fmt.Errorf("%w: %d lines", ErrInvalidDecision, len(r.Lines))
	}
	prefix := len("250 ")
	if r.Enhanced != NoEnhancedCode {
		for _, n := range r.Enhanced {
			if n < 0 || n > 999 {
				return fmt.Errorf("%w: enhanced code %v", ErrInvalidDecision, [3]int(r.Enhanced))
			}
		}
		// RFC 3463 section 2 has classes 2, 4 and 5 alone.
		if r.Enhanced[0] != class || class == 3 {
			return fmt.Errorf("%w: enhanced code %v with code %d", ErrInvalidDecision, r.Enhanced, r.Code)
		}
		var room [len("2.999.999")]byte
		prefix += len(r.Enhanced.appendTo(room[:0])) + 1
	}
	for _, line := range r.Lines {
		if prefix+len(line)+len("\r\n") > maxReplyLine {
			return fmt.Errorf("%w: a line of more than %d octets", ErrInvalidDecision, maxReplyLine)
		}
		if i := ascii.IndexControl(line); i >= 0 {
			return fmt.Errorf("%w: control character %#02x in a line", ErrInvalidDecision, line[i])
		}
	}
	return nil
}
