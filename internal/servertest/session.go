package servertest

import (
	"encoding/base64"
	"io"
	"net"
	"strconv"
	"strings"
)

const (
	maxSize    = 1_000_000 // octets of content, as told in EHLO's SIZE
	maxUnknown = 50        // unknown commands before the server hangs up
	secret     = "\x00user\x00pass"
)

// source is where a session takes its input from; this is all that tells one
// dialect from another.
type source struct {
	readLine  func() (string, error)           // one line, without its end
	readBody  func(*body) error                // the content after a 354
	readChunk func(w io.Writer, n int64) error // the n octets after a BDAT
	stop      func()                           // called once, when the connection is closed
}

// session is the executing side of one connection.
type session struct {
	server *Server
	conn   net.Conn
	in     source

	authenticated bool
	unknown       int  // unknown commands so far
	closing       bool // no command after this one

	transaction
}

// handWritten returns a server that runs a session on each connection.
func handWritten(open func(net.Conn, *options) source, opts []Option) *Server {
	s := newServer(opts)
	s.serve = s.acceptEach(func(c net.Conn) {
		s.begin()
		defer s.end()
		x := &session{server: s, conn: c, in: open(c, &s.options)}
		defer x.in.stop()
		defer c.Close()
		x.run()
	})
	return s
}

// run executes commands until one of them or an error ends the session.
func (x *session) run() {
	err := x.reply("220 servertest.example ESMTP")
	for err == nil && !x.closing {
		var line string
		if line, err = x.in.readLine(); err != nil {
			return
		}
		x.server.command(line)
		var answer []string
		if answer, err = x.execute(line); err == nil && len(answer) > 0 {
			err = x.reply(answer...)
		}
	}
}

// reply writes a reply, all but the first line of a longer one given as EHLO
// keywords are: without the code.
func (x *session) reply(lines ...string) error {
	first := lines[0]
	var all []string
	for i, line := range lines {
		if i > 0 {
			line = first[:4] + line
		}
		if i < len(lines)-1 {
			line = line[:3] + "-" + line[4:]
		}
		all = append(all, line+"\r\n")
	}
	if !x.server.lineByLine {
		all = []string{strings.Join(all, "")}
	}
	for _, s := range all {
		if _, err := io.WriteString(x.conn, s); err != nil {
			return err
		}
	}
	return nil
}

// verb returns the first word of a command line in upper case.
func verb(line string) string {
	if f := strings.Fields(line); len(f) > 0 {
		return strings.ToUpper(f[0])
	}
	return ""
}

// replyEach writes replies of one line each.
func (x *session) replyEach(replies []string) error {
	for _, r := range replies {
		if err := x.reply(r); err != nil {
			return err
		}
	}
	return nil
}

// execute executes a command and returns the lines of its reply; none if it has
// had all replies that it gets. An error means that the connection is lost.
func (x *session) execute(line string) ([]string, error) {
	switch v := verb(line); v {
	case "HELO", "EHLO", "LHLO":
		// RFC 2033 section 4.1 has LHLO alone, and 500 for the others.
		if x.server.lmtp == (v == "LHLO") {
			return x.hello(line)
		}
	case "MAIL":
		return one(x.setSender(line))
	case "RCPT":
		return one(x.addRecipient(line))
	case "DATA":
		return x.data()
	case "BDAT":
		return x.bdat(line)
	case "RSET":
		x.reset()
		return one("250 2.0.0 reset")
	case "NOOP":
		return one("250 2.0.0 nothing done")
	case "VRFY":
		return one("252 2.5.0 send and see")
	case "AUTH":
		return x.auth(line)
	case "QUIT":
		x.closing = true
		return one("221 2.0.0 bye")
	}
	if x.unknown++; x.unknown > maxUnknown {
		x.closing = true
		return one("421 4.7.0 too many unknown commands")
	}
	return one("500 5.5.2 unknown command")
}

func one(line string) ([]string, error) { return []string{line}, nil }

// failed tells what a read leads to that failed within a command.
func (x *session) failed(err error) ([]string, error) {
	if x.server.givesUp {
		return nil, nil
	}
	return nil, err
}

func (x *session) hello(line string) ([]string, error) {
	_, client, _ := strings.Cut(strings.TrimSpace(line), " ")
	refused := strings.HasPrefix(client, "no")
	if refused && x.server.dropsAtHello || !refused && !x.server.keepsOverHello {
		x.reset()
	}
	switch {
	case refused:
		return one("550 5.7.1 no such client")
	case verb(line) == "HELO":
		return one("250 servertest.example")
	}
	return []string{"250 servertest.example", "PIPELINING", "8BITMIME", "CHUNKING",
		"SIZE " + strconv.Itoa(maxSize), "ENHANCEDSTATUSCODES", "AUTH PLAIN"}, nil
}

func (x *session) auth(line string) ([]string, error) {
	args := strings.Fields(line)[1:]
	switch {
	case x.authenticated:
		return one("503 5.5.1 authenticated already")
	case len(args) == 0 || len(args) > 2 || !strings.EqualFold(args[0], "PLAIN"):
		return one("504 5.5.4 syntax: AUTH PLAIN [initial-response]")
	}
	if len(args) == 1 {
		if err := x.reply("334 "); err != nil {
			return nil, err
		}
		response, err := x.in.readLine()
		if err != nil {
			return x.failed(err)
		}
		x.server.sasl(response)
		args = append(args, response)
	}
	if args[1] == "*" {
		return one("501 5.7.0 cancelled")
	}
	response, err := base64.StdEncoding.DecodeString(args[1])
	if err != nil {
		return one("501 5.5.2 not base64")
	}
	if !strings.HasSuffix(string(response), secret) {
		return one("535 5.7.8 wrong user or password")
	}
	x.authenticated = true
	return one("235 2.7.0 welcome")
}
