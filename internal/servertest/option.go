package servertest

import (
	"time"

	"github.com/emersion/go-smtp"
)

// Option changes how a server behaves. Options can be combined. Those that don't
// say so are for the hand-written servers alone.
type Option func(*options)

type options struct {
	lineByLine  bool
	readTimeout time.Duration
	givesUp     bool
	configure   []func(*smtp.Server)

	// What ends content.
	dotCRLF, trimsDot, unstuffsDot bool

	// Limits, and what a server does that finds one passed.
	octetLimit, lineLimit int // negative: none
	readsOn, keepsBuffer  bool

	// LMTP.
	lmtp         bool
	refused      []string
	refusedFirst int // recipients; negative: all

	// What becomes of a transaction.
	reply           string // to each message; "" is the usual one
	keepsEnvelope   bool
	keepsOverHello  bool
	dropsAtHello    bool
	mailAnew        bool
	recipientsFirst bool

	// Chunks.
	baseZero      bool
	answersChunks bool
}

func (o *options) set(opts []Option) {
	o.readTimeout = 10 * time.Second
	o.octetLimit, o.lineLimit, o.refusedFirst = -1, -1, -1
	for _, opt := range opts {
		opt(o)
	}
}

// LineByLine makes the servers of this package write each line of a reply with
// a Write of its own instead of the whole reply at once. go-smtp's servers
// always do.
func LineByLine() Option {
	return func(o *options) { o.lineByLine = true }
}

// Configure calls f with go-smtp's server before it serves. It is for [GoSMTP]
// and [GoSMTPLMTP].
func Configure(f func(*smtp.Server)) Option {
	return func(o *options) { o.configure = append(o.configure, f) }
}

// ReadTimeout bounds the wait for each command, line of a SASL exchange, content
// and chunk. Without it, that is ten seconds, so that a test that lost step fails
// instead of hanging. It is for go-smtp's servers too.
func ReadTimeout(d time.Duration) Option {
	return func(o *options) { o.readTimeout = d }
}

// GiveUp makes a server return to its commands without any reply, and with a
// fresh deadline, when it can't read content, a chunk or a line of a SASL
// exchange to the end. What it has read of that is lost, the transaction is as
// before. bradfitz/go-smtpd does so in content, go-smtp in a SASL exchange.
// Without the option the session ends.
func GiveUp() Option {
	return func(o *options) { o.givesUp = true }
}

// DotCRLF makes content end only at a line that is a dot and CRLF, whatever ends
// the line before: with the lines of [Lenient], what mhale/smtpd and
// bradfitz/go-smtpd do.
func DotCRLF() Option {
	return func(o *options) { o.dotCRLF = true }
}

// TrimDot makes content end at a line that is a dot when [bytes.TrimSpace] has
// taken off what Unicode has of spaces.
func TrimDot() Option {
	return func(o *options) { o.trimsDot = true }
}

// UnstuffDot makes content end at a line of two dots too: of two dots that begin
// a line, one is taken off first (RFC 5321 section 4.5.2 has it the other way
// round), and the line is compared with a dot then. So ".." ends content, "."
// does as always, and "..." doesn't.
func UnstuffDot() Option {
	return func(o *options) { o.unstuffsDot = true }
}

// LimitLines makes a server refuse a message as soon as a line makes it longer
// than n octets, without the dot-stuffing but with the ends of lines. Only the
// line that ends the content isn't counted. The rest is as with [EarlyRefuser],
// but the refusal always comes behind a whole line, be it one that another
// server would take for the end. With [DotCRLF], [KeepEnvelope] and [MailAnew],
// it's what mhale/smtpd does.
func LimitLines(n int) Option {
	return func(o *options) { o.lineLimit = n }
}

func limitOctets(n int) Option {
	return func(o *options) { o.octetLimit = n }
}

// ReadOn makes a server that refuses a message before its end read the content
// to that end before it takes commands.
func ReadOn() Option {
	return func(o *options) { o.readsOn = true }
}

// KeepBuffer makes a server that refuses a message before its end take what it
// has in its buffer for commands too, instead of dropping it. bradfitz/go-smtpd
// does when its handler refuses a line.
func KeepBuffer() Option {
	return func(o *options) { o.keepsBuffer = true }
}

// LMTP makes a server speak LMTP: it takes LHLO alone, and answers the end of
// DATA's content and the last chunk once for each accepted recipient (RFC 2033
// sections 4.1 to 4.3). A limit concerns each of them.
func LMTP() Option {
	return func(o *options) { o.lmtp = true }
}

// RefuseFirst makes an LMTP server refuse a message that passes a limit to its
// first n recipients only. With [ReadOn], the others get their status at the end.
// Without, they get none, and the server reads commands in the midst of content:
// no client can tell.
func RefuseFirst(n int) Option {
	return func(o *options) { o.refusedFirst = n }
}

// Refuse makes an LMTP server accept the given recipients at RCPT and refuse them
// with a 550 in their status for the message. It is for [GoSMTPLMTP] too; an early
// server decides that after the first octets of the message.
func Refuse(recipients ...string) Option {
	return func(o *options) { o.refused = append(o.refused, recipients...) }
}

// AnswerMessages makes a server give each whole message this reply, as if a
// handler had returned it. A 2xx takes the message, any other refuses it.
func AnswerMessages(reply string) Option {
	return func(o *options) { o.reply = reply }
}

// KeepEnvelope leaves sender and recipients in force behind a message that gets
// anything but the usual 250, be it a refusal or the 2xx of [AnswerMessages].
// mhale/smtpd does so, and bradfitz/go-smtpd for a refusal. In LMTP, one status
// that is the usual 250 ends the transaction.
func KeepEnvelope() Option {
	return func(o *options) { o.keepsEnvelope = true }
}

// KeepOverHello leaves the transaction in force at HELO and EHLO, against RFC
// 5321 section 4.1.4. bradfitz/go-smtpd does so.
func KeepOverHello() Option {
	return func(o *options) { o.keepsOverHello = true }
}

// DropAtRefusedHello makes a refused HELO or EHLO end the transaction, where RFC
// 5321 section 4.1.4 wants nothing to change. chrj/smtpd does so.
func DropAtRefusedHello() Option {
	return func(o *options) { o.dropsAtHello = true }
}

// MailAnew makes MAIL begin a new transaction instead of a refusal where one is
// open. mhale/smtpd does so.
func MailAnew() Option {
	return func(o *options) { o.mailAnew = true }
}

// RecipientsFirst makes a server accept RCPT outside of a transaction. It keeps
// such recipients for the next one, to whose own they are added.
func RecipientsFirst() Option {
	return func(o *options) { o.recipientsFirst = true }
}

// BDATBaseZero makes a server read the size of a chunk as Go reads its literals:
// 0100 is 64, and 0x10 is 16. [fmt.Sscan] and [strconv.ParseInt] with a base of
// 0 do so.
func BDATBaseZero() Option {
	return func(o *options) { o.baseZero = true }
}

// AnswerChunksFirst makes a server answer BDAT with 250 before it reads the chunk,
// whatever becomes of that then. It is a fault: RFC 3030 section 2 wants the reply
// behind the chunk.
func AnswerChunksFirst() Option {
	return func(o *options) { o.answersChunks = true }
}
