package smtpproxy

import "time"

// End tells how a connection has ended.
type End struct {
	By     Side   // who has ended it
	Reason Reason // why

	// Verb is the verb of the last command whose line isn't masked, empty if there was
	// none; it holds no credential. Reply is the
	// last reply that the client got, its enhanced status code in Lines, and with
	// Disconnect if the connection was closed behind it. Behind a listener, of a reply
	// of more than 128 octets it has the last line.
	Verb  string
	Reply Reply

	// Err is the error with which the client's connection has failed, io.EOF if it has
	// closed it, or the [Failure] of the hook; nil if there was none. A Session of one's
	// own knows none of the connection.
	Err error

	// Duration is the time from the server's first Read or Write to the end.
	Duration time.Duration

	// Received and Sent are the octets from and to the client, as they are outside of
	// TLS. They are 0 for a Session of one's own, which doesn't see them.
	Received, Sent int64

	// Commands, Messages and Recipients are how many of them were accepted: by a 2xx,
	// or 354, of the server's or of the hook's, or by the library's 220 to STARTTLS. A
	// message is one however many recipients it has, if one of them was accepted.
	Commands, Messages, Recipients int
}

// Side is one of those who may end a connection.
type Side int

// The sides of a connection.
const (
	SideClient  Side = iota // it has said QUIT, or is gone
	SideServer              // it has closed the connection
	SideHook                // by its decision, or by its failure
	SideLibrary             // by one of its rules, or of Proxy's limits
)

var sides = [...]string{SideClient: "client", SideServer: "server", SideHook: "hook", SideLibrary: "library"}

// String returns the side's name, such as "client".
func (s Side) String() string { return nameIn(sides[:], int(s)) }

// Reason is why a connection has ended. The list is complete: what a later version adds
// is told by one of these, too.
type Reason int

const (
	// ReasonServerClosed: the server has closed the connection, for reasons of its own, as
	// when it is shut down; or it hasn't accepted the connection behind STARTTLS or a Restart.
	ReasonServerClosed Reason = iota

	// ReasonQuit: QUIT was accepted (RFC 5321 section 4.1.1.10).
	ReasonQuit

	// ReasonRefused: who has ended the connection has refused the client, a line or a
	// message with the last reply, such as 421, or 554 in the place of a greeting.
	ReasonRefused

	// ReasonClientGone: the client has closed its connection without QUIT, or that has
	// failed: see End.Err.
	ReasonClientGone

	// ReasonCommandTimeout: the client has sent no whole command in the time that the
	// server, or Proxy.CommandTimeout, gives it.
	ReasonCommandTimeout

	// ReasonDataTimeout: likewise with message content, and Proxy.MinDataRate.
	ReasonDataTimeout

	// ReasonTLSFailed: there was no TLS handshake: see End.Err.
	ReasonTLSFailed

	// ReasonTooMany: there were too many commands, errors or chunks: see
	// Proxy.MaxCommands, MaxErrors and MaxSmallChunks.
	ReasonTooMany

	// ReasonOutOfStep: the server's replies can't be told from each other, or it can't be
	// known what the server takes for a command.
	ReasonOutOfStep

	// ReasonHookFailed: the hook has failed: see End.Err.
	ReasonHookFailed
)

var reasons = [...]string{
	ReasonServerClosed: "server closed", ReasonQuit: "quit", ReasonRefused: "refused", ReasonClientGone: "client gone",
	ReasonCommandTimeout: "command timeout", ReasonDataTimeout: "data timeout", ReasonTLSFailed: "TLS failed",
	ReasonTooMany: "too many", ReasonOutOfStep: "out of step", ReasonHookFailed: "hook failed",
}

// String returns the reason in words, such as "client gone".
func (r Reason) String() string { return nameIn(reasons[:], int(r)) }

func nameIn(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return "unknown"
	}
	return names[i]
}
