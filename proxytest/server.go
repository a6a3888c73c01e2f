package proxytest

import (
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// server is the fake server: what it knows of the client, and what it waits
// for.
type server struct {
	answers  *answers // set by the test
	lmtpOnly bool     // HELO and EHLO are none of its commands (RFC 2033 section 4.1)

	greeted, lmtp, tls, authenticated bool

	mail       bool
	recipients int
	chunking   bool

	sasl      bool // a line of an AUTH exchange is due
	responses int  // how many of them
	content   bool // the content of a message is due
	handshake bool // a TLS handshake is due
}

// resume returns a server in the midst of a dialogue.
func resume(conn smtpproxy.Connection, txn smtpproxy.Transaction) server {
	return server{
		answers:       new(answers),
		greeted:       conn.HELO.Verb != "" || txn.Active,
		lmtp:          conn.HELO.Verb == "LHLO",
		tls:           conn.TLS.Protocol != "",
		authenticated: conn.Auth.Mechanism != "",
		mail:          txn.Active,
		recipients:    txn.Recipients.Len(),
	}
}

// text makes a Reply that is sent as it is written here.
func text(code int, lines ...string) smtpproxy.Reply {
	return smtpproxy.Reply{Code: code, Enhanced: smtpproxy.NoEnhancedCode, Lines: lines}
}

var (
	greeting    = text(220, serverName+" ESMTP")
	accepted    = text(250, "2.0.0 OK")
	welcome     = text(235, "2.7.0 Authentication successful")
	outOfOrder  = text(503, "5.5.1 Bad sequence of commands")
	syntaxError = text(501, "5.5.4 Syntax error in parameters")
)

// connecting stands for a verb where the answer is the server's greeting.
const connecting = "(connection)"

// greet returns the server's greeting.
func (v *server) greet() smtpproxy.Reply { return v.answer(connecting, greeting) }

// afresh returns a server to which the same client comes on a fresh connection.
func (v *server) afresh(tls bool) server {
	return server{answers: v.answers, lmtpOnly: v.lmtpOnly, tls: tls}
}

// execute executes a line and returns the replies to it: one, but for the last
// chunk of an LMTP message.
func (v *server) execute(line string) []smtpproxy.Reply {
	cmd := smtpproxy.Command{Line: line}
	verb, args := cmd.Verb(), cmd.Args()
	var r smtpproxy.Reply
	switch {
	case v.sasl:
		verb = "AUTH"
		r = v.answer(verb, v.response(line))
	case verb == "BDAT" && strings.HasSuffix(strings.ToUpper(args), " LAST"):
		return v.message(verb)
	default:
		r = v.answer(verb, v.command(verb, args))
	}
	v.took(verb, r.Code)
	return []smtpproxy.Reply{r}
}

// answer returns the test's answer to a verb, if there is one, else the good
// server's.
func (v *server) answer(verb string, good smtpproxy.Reply) smtpproxy.Reply {
	if set, ok := v.answers.take(verb); ok {
		return set
	}
	return good
}

// command returns a good server's reply to a command. A nested MAIL, and BDAT
// without a recipient, are refused by the library.
func (v *server) command(verb, args string) smtpproxy.Reply {
	switch verb {
	case "HELO", "EHLO", "LHLO":
		switch {
		case v.lmtpOnly && verb != "LHLO":
			return text(500, "5.5.1 This is LMTP: use LHLO")
		case args == "":
			return syntaxError
		}
		return v.hello(verb)
	case "MAIL":
		return v.path(args, "FROM:", v.greeted, text(250, "2.1.0 Sender OK"))
	case "RCPT":
		return v.path(args, "TO:", v.mail && !v.chunking, text(250, "2.1.5 Recipient OK"))
	case "DATA":
		if v.recipients == 0 || v.chunking {
			return outOfOrder
		}
		return text(354, "Go ahead")
	case "AUTH":
		return v.auth(args)
	case "STARTTLS":
		if v.tls {
			return outOfOrder
		}
		return text(220, "2.0.0 Go ahead")
	case "BDAT", "RSET", "NOOP":
		return accepted
	case "VRFY":
		return text(252, "2.5.0 Send some mail, I'll try my best")
	case "QUIT":
		return text(221, "2.0.0 Bye")
	case "EXPN", "HELP":
		return text(502, "5.5.1 Command not implemented")
	}
	return text(500, "5.5.2 Command not recognized")
}

func (v *server) hello(verb string) smtpproxy.Reply {
	if verb == "HELO" {
		return text(250, "server.example")
	}
	lines := []string{"server.example", "PIPELINING", "8BITMIME", "SIZE 0", "ENHANCEDSTATUSCODES",
		"CHUNKING", "SMTPUTF8", "AUTH PLAIN LOGIN"}
	if !v.tls {
		lines = append(lines, "STARTTLS")
	}
	return text(250, lines...)
}

// path returns the reply to MAIL or RCPT.
func (v *server) path(args, keyword string, inOrder bool, good smtpproxy.Reply) smtpproxy.Reply {
	switch {
	case !inOrder:
		return outOfOrder
	case len(args) <= len(keyword) || !strings.EqualFold(args[:len(keyword)], keyword):
		return syntaxError
	}
	return good
}

// auth returns the reply to AUTH (RFC 4954 section 4).
func (v *server) auth(args string) smtpproxy.Reply {
	fields := strings.Fields(args)
	if len(fields) == 0 || len(fields) > 2 {
		return syntaxError
	}
	v.responses = 2 - len(fields)
	challenge := ""
	switch strings.ToUpper(fields[0]) {
	case "PLAIN":
	case "LOGIN":
		v.responses++
		challenge = username
		if len(fields) > 1 {
			challenge = password
		}
	default:
		return text(504, "5.5.4 Unrecognized authentication type")
	}
	switch {
	case !v.greeted, v.mail, v.authenticated:
		return outOfOrder
	case v.responses > 0:
		return text(334, challenge)
	}
	return welcome
}

// The challenges of AUTH LOGIN, in base64.
const (
	username = "VXNlcm5hbWU6"
	password = "UGFzc3dvcmQ6"
)

// response returns the reply to a line of the SASL exchange.
func (v *server) response(line string) smtpproxy.Reply {
	v.responses--
	switch {
	case line == "*":
		return text(501, "5.7.0 Authentication cancelled")
	case v.responses > 0:
		return text(334, password)
	}
	return welcome
}

// message returns the replies to a message, which ends the transaction. With
// LMTP each recipient has its own (RFC 2033 section 4.2).
func (v *server) message(verb string) []smtpproxy.Reply {
	n := 1
	if v.lmtp {
		n = max(n, v.recipients)
	}
	replies := make([]smtpproxy.Reply, n)
	for i := range replies {
		replies[i] = v.answer(verb, accepted)
	}
	v.content = false
	v.reset()
	return replies
}

// took follows the server's own reply to a command or a line of an exchange.
func (v *server) took(verb string, code int) {
	good := code/100 == 2
	v.sasl = verb == "AUTH" && code == 334
	switch verb {
	case "HELO", "EHLO", "LHLO":
		if code == 250 {
			v.greeted, v.lmtp = true, verb == "LHLO"
			v.reset()
		}
	case "MAIL":
		v.mail = v.mail || good
	case "RCPT":
		if good {
			v.recipients++
		}
	case "DATA":
		v.content = code == 354
	case "BDAT":
		if v.chunking = good; !good {
			v.reset()
		}
	case "RSET":
		if good {
			v.reset()
		}
	case "AUTH":
		v.authenticated = v.authenticated || code == 235
	case "STARTTLS":
		v.handshake = code == 220
	case "XCLIENT":
		if code == 220 { // it greets again
			v.greeted, v.lmtp, v.authenticated = false, false, false
			v.reset()
		}
	}
}

func (v *server) reset() { v.mail, v.recipients, v.chunking = false, 0, false }
