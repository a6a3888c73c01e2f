package servertest

import "github.com/emersion/go-smtp"

// Option changes how a server behaves.
type Option func(*options)

type options struct {
	lineByLine bool
	refused    []string
	configure  []func(*smtp.Server)
}

// LineByLine makes the servers of this package write each line of a reply with
// a Write of its own instead of the whole reply at once. go-smtp's servers
// always do.
func LineByLine() Option {
	return func(o *options) { o.lineByLine = true }
}

// Refuse makes [GoSMTPLMTP] accept the given recipients at RCPT and refuse them
// with a 550 in their status for the message; an early server decides that
// after the first octets of the message.
func Refuse(recipients ...string) Option {
	return func(o *options) { o.refused = append(o.refused, recipients...) }
}

// Configure calls f with go-smtp's server before it serves. It is for [GoSMTP]
// and [GoSMTPLMTP].
func Configure(f func(*smtp.Server)) Option {
	return func(o *options) { o.configure = append(o.configure, f) }
}
