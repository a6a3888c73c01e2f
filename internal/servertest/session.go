package servertest

import (
	"encoding/base64"
	"errors"
	"io"
	"net"
	"regexp"
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
	readData  func() ([]byte, error)           // the content after a 354; may fail with a refusal
	readChunk func(w io.Writer, n int64) error // the n octets after a BDAT
	stop      func()                           // called once, when the connection is closed
}

// refusal is an error of readData after which the session goes on: the reply
// that the message gets.
type refusal string

func (r refusal) Error() string { return string(r) }

// session is the executing side of one connection.
type session struct {
	server *Server
	conn   net.Conn
	in     source

	authenticated bool
	unknown       int  // unknown commands so far
	closing       bool // no command after this one

	// The transaction.
	mail     bool
	from     string
	to       []string
	chunking bool
	chunks   strings.Builder
}

// handWritten returns a server that runs a session on each connection.
func handWritten(open func(net.Conn) source, opts []Option) *Server {
	s := newServer(opts)
	s.serve = s.acceptEach(func(c net.Conn) {
		s.begin()
		defer s.end()
		x := &session{server: s, conn: c, in: open(c)}
		defer x.in.stop()
		defer c.Close()
		x.run()
	})
	return s
}

// run executes commands, each with exactly one reply, until one of them or an
// error ends the session.
func (x *session) run() {
	err := x.reply("220 servertest.example ESMTP")
	for err == nil && !x.closing {
		var line string
		if line, err = x.in.readLine(); err != nil {
			return
		}
		x.server.command(line)
		var answer []string
		if answer, err = x.execute(line); err == nil {
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

// execute executes a command and returns the lines of its reply. An error
// means that the connection is lost.
func (x *session) execute(line string) ([]string, error) {
	switch verb(line) {
	case "HELO":
		x.reset()
		return one("250 servertest.example")
	case "EHLO":
		x.reset()
		return []string{"250 servertest.example", "PIPELINING", "8BITMIME", "CHUNKING",
			"SIZE " + strconv.Itoa(maxSize), "ENHANCEDSTATUSCODES", "AUTH PLAIN"}, nil
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

func (x *session) reset() {
	x.mail, x.from, x.to = false, "", nil
	x.chunking = false
	x.chunks.Reset()
}

func (x *session) setSender(line string) string {
	from, ok := path(line, "FROM:")
	switch {
	case !ok:
		return "501 5.5.4 syntax: MAIL FROM:<address>"
	case x.mail:
		return "503 5.5.1 there is a sender already"
	}
	x.mail, x.from = true, from
	return "250 2.1.0 sender ok"
}

func (x *session) addRecipient(line string) string {
	to, ok := path(line, "TO:")
	switch {
	case !ok || to == "":
		return "501 5.5.4 syntax: RCPT TO:<address>"
	case !x.mail || x.chunking:
		return "503 5.5.1 not now"
	case noSuchUser(to):
		return "550 5.1.1 no such user"
	}
	x.to = append(x.to, to)
	return "250 2.1.5 recipient ok"
}

func noSuchUser(recipient string) bool { return strings.HasPrefix(recipient, "no") }

// path returns what the angle brackets after the keyword enclose.
func path(line, keyword string) (string, bool) {
	rest := strings.TrimSpace(line)
	rest = strings.TrimSpace(rest[len(strings.Fields(rest)[0]):])
	if len(rest) < len(keyword) || !strings.EqualFold(rest[:len(keyword)], keyword) {
		return "", false
	}
	_, rest, open := strings.Cut(rest, "<")
	addr, _, end := strings.Cut(rest, ">")
	return addr, open && end
}

func (x *session) data() ([]string, error) {
	if len(x.to) == 0 || x.chunking {
		return one("503 5.5.1 no recipients, or chunks before")
	}
	if err := x.reply("354 go ahead"); err != nil {
		return nil, err
	}
	content, err := x.in.readData()
	var refused refusal
	if errors.As(err, &refused) {
		x.reset()
		return one(string(refused))
	}
	if err != nil {
		return nil, err
	}
	return one(x.deliver(content))
}

func (x *session) deliver(content []byte) string {
	defer x.reset()
	if len(content) > maxSize {
		return "552 5.3.4 too big"
	}
	x.server.message(Message{x.from, x.to, content})
	return "250 2.0.0 taken"
}

var bdatLine = regexp.MustCompile(`^[Bb][Dd][Aa][Tt] ([0-9]+)( [Ll][Aa][Ss][Tt])?$`)

func (x *session) bdat(line string) ([]string, error) {
	m := bdatLine.FindStringSubmatch(line)
	var size int64
	err := errors.New("syntax")
	if m != nil {
		size, err = strconv.ParseInt(m[1], 10, 64)
	}
	if err != nil { // nobody knows how much follows
		x.closing = true
		return one("501 5.5.4 syntax: BDAT size [LAST]")
	}

	var w io.Writer = &x.chunks
	tooBig := size > maxSize-int64(x.chunks.Len())
	if len(x.to) == 0 || tooBig {
		w = io.Discard
	}
	if err := x.in.readChunk(w, size); err != nil {
		return nil, err
	}
	switch {
	case len(x.to) == 0:
		return one("503 5.5.1 no recipients")
	case tooBig:
		x.reset()
		return one("552 5.3.4 too big")
	case m[2] == "":
		x.chunking = true
		return one("250 2.0.0 chunk taken")
	}
	return one(x.deliver([]byte(x.chunks.String())))
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
			return nil, err
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
