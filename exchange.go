package smtpproxy

import "time"

// Exchange is a reply that a client is about to get, and what it is the reply to. A
// message has one for 354, and one for its end; in LMTP one for each recipient then.
type Exchange struct {
	// Command is the command as the client has sent it. Of a line of a SASL exchange, it
	// tells that it was one, and nothing of what it held: that is for the hook that has
	// asked for it alone. It
	// is empty for the greeting, and for the last word to a client that has sent nothing.
	// Of a message it is DATA, or the last BDAT.
	Command Command

	// Passed is what the server got instead of it, the same line if the hook has changed
	// nothing. It is empty if the server got nothing.
	Passed Command

	// Reply is what the client gets, all fields filled in. A server's reply has its
	// enhanced status code in Enhanced if each line begins with it, else none.
	Reply Reply

	// By is who has given the reply, in its first form.
	By Source

	// Hook is the name of the hook that has given the reply, or changed it last; empty if
	// none has, or it has no name.
	Hook string

	// Hooked is the time that the hooks took with the command, their Delay included. Served
	// is the time from when the server had the command, or the last octet of the message, to
	// its reply; 0 for a reply that is not the server's.
	Hooked, Served time.Duration

	// Octets are those of the message content that the server has got since the command.
	Octets int64

	// Recipient is the index of the recipient that the status of an LMTP message is for
	// (RFC 2033 section 4.2), among those accepted; else -1. In a Session of one's own, a
	// Reply to be sent for several recipients is one Exchange, with -1: see Session.Copies.
	Recipient int

	// Connection and Transaction are as after the reply, but the Transaction is the one
	// that the reply ended, if it ended one.
	Connection  Connection
	Transaction Transaction
}

// Source is who has given a reply.
type Source int

// The sources of a reply.
const (
	ByServer  Source = iota
	ByHook           // a hook's Reply, or OnFailure's
	ByLibrary        // one of its rules, or of Proxy's limits
	ByFailure        // the 421 after a failure of the hook's
)

var sources = [...]string{ByServer: "server", ByHook: "hook", ByLibrary: "library", ByFailure: "failure"}

// String returns the source's name, such as "server".
func (s Source) String() string { return nameIn(sources[:], int(s)) }

// Observer is told what happens on connections. It decides nothing; nil functions are
// skipped.
//
// The functions are called one after the other for a connection, and not while a method of
// its hook runs, on the goroutine on which the thing happens, which waits; for different
// connections they are called concurrently. A panic, and runtime.Goexit, are logged. A function
// may close the server or the connection, but must not write to it: it is called while a reply
// is being written.
type Observer struct {
	// Connected: the server has first read from the connection, or written to it.
	Connected func(ctx *Context, conn Connection)

	// Exchanged: the client gets this reply, in the form in which the hooks have left it.
	Exchanged func(ctx *Context, x Exchange)

	// StartedTLS: a TLS handshake is over; err is nil if it has succeeded.
	StartedTLS func(ctx *Context, conn Connection, err error)

	// Failed: the hook has failed. Where that was a ReplyHook, which leaves the reply as it
	// is, ctx is the one with which Exchanged is told of that reply; else it is another.
	Failed func(ctx *Context, f Failure)

	// Disconnected: the connection is over: see DisconnectHook. It is told after the hooks
	// are.
	Disconnected func(ctx *Context, conn Connection, end End)
}
