package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

const (
	maxLine    = 12288 + 2 // RFC 4954 section 4: the longest line of all is one of SASL
	maxMessage = 10 << 20
	timeout    = 5 * time.Minute // RFC 5321 section 4.5.3.2.7
)

// client is one client's connection.
type client struct {
	conn    net.Conn
	r       *bufio.Reader
	out     *log.Logger
	session *smtpproxy.Session
	stop    <-chan struct{} // closed when the server stops

	over bool // no command after this one
	state
}

// state is where the state machine is at.
type state struct {
	greeted       bool
	authenticated bool
	sasl          bool // the next line answers AUTH's challenge
	transaction
}

type transaction struct {
	open    bool // by MAIL
	from    string
	to      []string
	chunked bool // by BDAT
	content []byte
}

// serve is the whole dialogue. The session decides about the client before it is greeted,
// and about each line, one that answers a challenge too.
func (c *client) serve(ctx context.Context) error {
	defer c.session.Close()
	err := c.obey(c.session.Connect(ctx), c.greet)
	for err == nil && !c.over {
		var line string
		if line, err = c.readLine(); err != nil {
			return err
		}
		err = c.obey(c.session.Command(ctx, line), c.execute)
	}
	return err
}

// obey does what the session has decided. What it passes, perhaps changed, is executed, and
// each reply goes through the session (see reply). What it replies to is never executed.
// With Restart, the client is another's: what is known of it is forgotten, and it is greeted.
func (c *client) obey(d smtpproxy.Decision, execute func(line string) error) error {
	reply, replied := d.(smtpproxy.Reply)
	switch {
	case replied && reply.Restart != nil:
		c.wait(reply.Delay)
		c.state = state{}
		return c.greet("")
	case replied:
		return c.answer(reply)
	}
	pass := d.(smtpproxy.Pass)
	c.wait(pass.Delay)
	if c.session.MustReset() {
		c.transaction = transaction{}
	}
	return execute(pass.Command)
}

// greet greets the client, whoever that is now; there is no line to execute. The greeting
// goes through the session as all replies do.
func (c *client) greet(string) error {
	conn := c.session.Connection()
	c.out.Printf("client: %v, port %d", conn.RemoteIP, conn.LocalPort)
	return c.reply(220, "ownserver.example ESMTP")
}

// answer sends a reply that is the hook's, or the library's, and drops the
// octets that belong to the command: a BDAT chunk. The session knows of it. A server that
// speaks LMTP, too, would send it session.Copies times (RFC 2033 section 4.3), and in deliver
// reply once for each recipient; in SMTP, that is once.
func (c *client) answer(r smtpproxy.Reply) error {
	c.sasl = false // a Reply ends the exchange, if there is one
	c.over = r.Disconnect
	if _, err := io.CopyN(io.Discard, c.r, c.session.Discard()); err != nil {
		return err
	}
	c.wait(r.Delay)
	_, err := r.WriteTo(c.conn)
	return err
}

// wait waits for as long as a hook wants it. It doesn't notice that the client leaves, for
// which it would have to read ahead.
func (c *client) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		c.conn.SetDeadline(time.Now().Add(timeout))
	case <-c.stop:
	}
}

// reply sends a reply of the server's own, as the session returns it.
func (c *client) reply(code int, lines ...string) error {
	r := c.session.Replied(code, lines...)
	c.over = c.over || r.Disconnect
	c.wait(r.Delay)
	_, err := r.WriteTo(c.conn)
	return err
}

// readLine returns a line without its line end.
func (c *client) readLine() (string, error) {
	c.conn.SetDeadline(time.Now().Add(timeout))
	line, err := c.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		c.reply(500, "Too long line, closing connection")
	}
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))), nil
}

// execute executes a line that the hook has passed.
func (c *client) execute(line string) error {
	if c.sasl {
		c.sasl = false
		return c.authenticate(line)
	}
	cmd := smtpproxy.Command{Line: line}
	switch cmd.Verb() {
	case "EHLO":
		c.greeted, c.transaction = true, transaction{}
		return c.reply(250, "ownserver.example", "PIPELINING", "8BITMIME", "CHUNKING",
			fmt.Sprint("SIZE ", maxMessage), "AUTH PLAIN")
	case "HELO":
		c.greeted, c.transaction = true, transaction{}
		return c.reply(250, "ownserver.example")
	case "MAIL":
		return c.mail(cmd.Args())
	case "RCPT":
		return c.rcpt(cmd.Args())
	case "DATA":
		return c.data()
	case "BDAT":
		return c.bdat(cmd.Args())
	case "AUTH":
		return c.auth(cmd.Args())
	case "RSET":
		c.transaction = transaction{}
		return c.reply(250, "OK")
	case "NOOP":
		return c.reply(250, "OK")
	case "QUIT":
		c.over = true
		return c.reply(221, "Bye")
	}
	return c.reply(500, "Command unrecognized")
}

func (c *client) mail(args string) error {
	from, ok := path(args, "FROM:")
	switch {
	case !c.greeted || c.open:
		return c.reply(503, "Bad sequence of commands")
	case !ok:
		return c.reply(501, "Syntax: MAIL FROM:<address>")
	}
	c.open, c.from = true, from
	return c.reply(250, "OK")
}

func (c *client) rcpt(args string) error {
	to, ok := path(args, "TO:")
	switch {
	case !c.open || c.chunked:
		return c.reply(503, "Bad sequence of commands")
	case !ok || to == "":
		return c.reply(501, "Syntax: RCPT TO:<address>")
	case len(c.to) == 100:
		return c.reply(452, "Too many recipients")
	}
	c.to = append(c.to, to)
	return c.reply(250, "OK")
}

// path returns what the angle brackets behind keyword enclose.
func path(args, keyword string) (string, bool) {
	if n := len(keyword); len(args) >= n && strings.EqualFold(args[:n], keyword) {
		if rest, ok := strings.CutPrefix(strings.TrimLeft(args[n:], " "), "<"); ok {
			path, _, ok := strings.Cut(rest, ">")
			return path, ok
		}
	}
	return "", false
}

func (c *client) data() error {
	if len(c.to) == 0 || c.chunked {
		return c.reply(503, "Bad sequence of commands")
	}
	if err := c.reply(354, "Go ahead"); err != nil {
		return err
	}
	if err := c.readContent(); err != nil {
		return err
	}
	return c.deliver()
}

// readContent reads up to CRLF "." CRLF, and nothing else ends the content (RFC
// 5321 section 4.1.1.4). Of one that is too long only the end is kept.
func (c *client) readContent() error {
	tooLong := false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
		if len(c.content) == 0 || bytes.HasSuffix(c.content, []byte("\r\n")) {
			if string(line) == ".\r\n" {
				break
			}
			line = bytes.TrimPrefix(line, []byte(".")) // RFC 5321 section 4.5.2
		}
		c.content = append(c.content, line...)
		if len(c.content) > maxMessage {
			c.content = c.content[len(c.content)-2:]
			tooLong = true
		}
	}
	if tooLong {
		c.content = make([]byte, maxMessage+1)
	}
	return nil
}

// bdat takes a chunk. The session has seen to it that the arguments are well
// formed and that there is a recipient. It has seen to the size as well, but
// only after EHLO, whose reply tells SIZE.
func (c *client) bdat(args string) error {
	var size int64
	if _, err := fmt.Sscan(args, &size); err != nil {
		return err
	}
	if size > int64(maxMessage-len(c.content)) {
		c.transaction = transaction{}
		if _, err := io.CopyN(io.Discard, c.r, size); err != nil {
			return err
		}
		return c.reply(552, "Message too big")
	}
	chunk := make([]byte, size)
	if _, err := io.ReadFull(c.r, chunk); err != nil {
		return err
	}
	c.content = append(c.content, chunk...)
	c.chunked = true
	if strings.Contains(args, " ") { // LAST
		return c.deliver()
	}
	return c.reply(250, "OK")
}

func (c *client) deliver() error {
	t := c.transaction
	c.transaction = transaction{}
	if len(t.content) > maxMessage {
		return c.reply(552, "Message too big")
	}
	c.out.Printf("mail: from %q to %q, %d octets", t.from, t.to, len(t.content))
	return c.reply(250, "OK")
}

func (c *client) auth(args string) error {
	mechanism, response, initial := strings.Cut(args, " ")
	switch {
	case c.authenticated || c.open:
		return c.reply(503, "Bad sequence of commands")
	case !strings.EqualFold(mechanism, "PLAIN"):
		return c.reply(504, "Unknown mechanism")
	case initial:
		return c.authenticate(response)
	}
	c.sasl = true
	return c.reply(334, "")
}

// authenticate checks a response of AUTH PLAIN (RFC 4616 section 2).
func (c *client) authenticate(response string) error {
	message, err := base64.StdEncoding.DecodeString(response)
	switch {
	case response == "*":
		return c.reply(501, "Authentication cancelled")
	case err != nil:
		return c.reply(501, "Response is not base64")
	case subtle.ConstantTimeCompare(message, []byte("\x00demo\x00demo")) == 0:
		return c.reply(535, "Authentication failed")
	}
	c.authenticated = true
	return c.reply(235, "Authentication succeeded")
}

// serve accepts connections from l until ctx is done, which ends them all.
func serve(ctx context.Context, l net.Listener, p *smtpproxy.Proxy, out *log.Logger) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.Close()
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		clients.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			c := &client{
				conn:    conn,
				r:       bufio.NewReaderSize(conn, maxLine),
				out:     out,
				session: p.NewSession(describe(conn)),
				stop:    ctx.Done(),
			}
			if err := c.serve(ctx); err != nil && err != io.EOF && ctx.Err() == nil {
				out.Println("error:", err)
			}
		})
	}
}

// describe tells the session who is connected with whom.
func describe(c net.Conn) smtpproxy.Connection {
	remote, local := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	return smtpproxy.Connection{
		RemoteIP: remote.Addr().Unmap(), RemotePort: remote.Port(),
		LocalIP: local.Addr().Unmap(), LocalPort: local.Port(),
		ServerID: "ownserver",
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return tcp.AddrPort()
}
