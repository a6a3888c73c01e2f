package hooks

import (
	"fmt"
	"slices"
)

// Counted is what a [Limit] counts.
type Counted int

const (
	// Connections are those that are there at once or, with Limit.Every, new ones. They are
	// counted when the client connects, and PerLogin when it has authenticated. If it
	// turns out to be another's, by XCLIENT say, that one's are counted in their place. A new one
	// of a login stays counted, whoever authenticates after it behind STARTTLS.
	Connections Counted = iota

	// Commands are all command lines, refused ones too, but for QUIT alone, and for lines with
	// control characters, which no hook sees (they are Errors).
	Commands

	// Errors are negative replies, whoever has given them, but for those of the limits'
	// own. In LMTP, each status of a message counts. A server may end a connection before,
	// by a limit of its own: go-smtp does at the fifth command that it doesn't know.
	Errors

	// UnknownVerbs are lines that are answered 500 to 502, but for those with a verb of SMTP's
	// own, such as HELP, whether the server has it or not. (go-smtp answers 501 to some.)
	UnknownVerbs

	// WrongRecipients are RCPT commands, within a transaction, that are refused for good (5xx).
	WrongRecipients

	// Recipients are RCPT commands that are accepted.
	Recipients

	// Messages are those that are accepted, and those whose end has brought no reply: one that
	// a client breaks off behind DATA, or in its content, counts, since the server may have taken
	// it all the same.
	//
	// So it costs a client next to nothing to use up what many share: with InAll, anybody takes
	// it from everybody by connecting, saying DATA and leaving, and with PerSender, from whoever
	// it says it is. Let Beyond of these be a smtpproxy.Pass with a Delay, or have them
	// behind a limit PerNetwork of Messages, or of Connections with Every, that is much smaller.
	Messages

	// Octets are those of message content that the server has got, accepted or not, and
	// about as many as have come of a message that the client has broken off. A Session of
	// one's own doesn't tell of them.
	Octets

	// Time is how many seconds the client has been connected. It is a limit of a connection
	// alone. A client is refused at its first command behind it: how long one may say
	// nothing is for Proxy.CommandTimeout, or the server.
	Time

	// Unauthenticated are commands of clients that haven't authenticated, but for AUTH.
	Unauthenticated

	// FailedAUTH are AUTH commands, and exchanges, that are refused, but for what judges
	// no password: a syntax error, an unknown mechanism and an order that is wrong (500 to 504), and
	// TLS that is missing (523, 530, 538).
	FailedAUTH
)

var countedNames = [...]string{
	Connections: "connections", Commands: "commands", Errors: "errors", UnknownVerbs: "unknown verbs",
	WrongRecipients: "wrong recipients", Recipients: "recipients", Messages: "messages", Octets: "octets",
	Time: "time", Unauthenticated: "unauthenticated", FailedAUTH: "failed AUTH",
}

// String returns its name, such as "wrong recipients".
func (c Counted) String() string { return nameOf(countedNames[:], int(c)) }

// text is what a client is told that has had more than its share of it.
func (c Counted) text() string {
	switch c {
	case Octets:
		return "Too much mail"
	case Time:
		return "Connected for too long"
	case Unauthenticated:
		return "Too many commands without authentication"
	case FailedAUTH:
		return "Too many failed authentications"
	}
	return "Too many " + c.String()
}

// Per is who a [Limit] holds for: each of them has the whole of it.
type Per int

const (
	// PerConnection is each connection, over RSET, STARTTLS and a smtpproxy.Reply with
	// Restart.
	PerConnection Per = iota

	// PerNetwork is each network that clients come from, of conn.RemoteIP: see
	// Limits.IPv4Bits. Those on unix sockets have none, and count as one.
	PerNetwork

	// PerSender is each sender of a transaction. Letters count as the same in upper and
	// lower case; the null sender is a sender like any other, and all whose command servers
	// may read in different ways (smtpproxy.Transaction.Unparsed) are one. What isn't in a
	// transaction is counted for no sender. A client can call itself what it likes, and use up
	// what is another's.
	PerSender

	// PerLogin is each user name that clients have authenticated with, letters in upper and
	// lower case the same. Those of a mechanism that tells no name are one. What comes before AUTH is
	// counted for nobody.
	PerLogin

	// InAll is all clients together.
	InAll
)

var perNames = [...]string{
	PerConnection: "connection", PerNetwork: "network", PerSender: "sender", PerLogin: "login", InAll: "all",
}

// String returns its name, such as "network".
func (p Per) String() string { return nameOf(perNames[:], int(p)) }

func nameOf(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// never are those that something can't be counted for.
var never = map[Counted][]Per{
	Connections:     {PerConnection, PerSender},
	Time:            {PerNetwork, PerSender, PerLogin, InAll},
	Unauthenticated: {PerLogin},
	FailedAUTH:      {PerSender, PerLogin},
}

// makesSense tells what is wrong with counting something for somebody.
func makesSense(c Counted, p Per) error {
	switch {
	case c < 0 || int(c) >= len(countedNames):
		return fmt.Errorf("nothing that is counted: %d", int(c))
	case p < 0 || int(p) >= len(perNames):
		return fmt.Errorf("nobody that it is counted for: %d", int(p))
	case slices.Contains(never[c], p):
		return fmt.Errorf("%v can't be counted per %v", c, p)
	}
	return nil
}
