package proxytest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// odd is a small server that does all right, but for what is set.
type odd struct {
	lmtp     bool
	keywords []string // in the place of the usual ones

	setUp    func(x *oddSession) error                // before the greeting
	command  map[string]func(x *oddSession, a string) // in the place of the usual
	behind   func(x *oddSession, verb string)         // each reply
	readLine func(x *oddSession) (string, error)
	content  func(x *oddSession) error                    // reads it, and replies
	chunk    func(x *oddSession, octets int, last bool)   // likewise
	failed   func(x *oddSession, where string, err error) // at an error in content or a chunk
	path     func(x *oddSession, args string) (string, bool)
	dontEnd  bool // with the listener

	mu    sync.Mutex
	conns sync.WaitGroup
	done  chan struct{} // closed when the test is over
}

func newOdd(change func(o *odd)) *odd {
	o := &odd{command: make(map[string]func(*oddSession, string)), done: make(chan struct{})}
	change(o)
	return o
}

// Close waits for its goroutines.
func (o *odd) Close() error {
	close(o.done)
	o.conns.Wait()
	return nil
}

func (o *odd) Serve(l net.Listener) error {
	o.conns.Add(1)
	defer o.conns.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			if o.dontEnd {
				<-o.done
			}
			return err
		}
		o.conns.Go(func() {
			defer c.Close()
			x := &oddSession{odd: o, conn: c, r: bufio.NewReaderSize(c, 4096)}
			x.serve()
		})
	}
}

type oddSession struct {
	*odd
	conn net.Conn
	r    *bufio.Reader
	over bool
	last string // what it has replied

	from bool
	to   int
	kept bool // for a bad server's own use
}

// accepted tells whether it has just accepted something.
func (x *oddSession) accepted() bool { return strings.HasPrefix(x.last, "250") }

// heard reads a line and tells whether there is one.
func (x *oddSession) heard() bool {
	_, err := x.line()
	x.over = x.over || err != nil
	return err == nil
}

func (x *oddSession) reply(lines ...string) {
	x.last = lines[len(lines)-1]
	io.WriteString(x.conn, strings.Join(lines, "\r\n")+"\r\n")
}

func (x *oddSession) reset() { x.from, x.to = false, 0 }

// line reads one, which ends in CRLF alone.
func (x *oddSession) line() (string, error) {
	x.conn.SetReadDeadline(time.Now().Add(time.Minute))
	var line strings.Builder
	for {
		part, err := x.r.ReadString('\n')
		line.WriteString(part)
		if err != nil {
			return line.String(), err
		}
		if text, ok := strings.CutSuffix(line.String(), "\r\n"); ok && !strings.HasSuffix(text, "\r") {
			return text, nil
		}
	}
}

func (x *oddSession) serve() {
	if x.setUp != nil && x.setUp(x) != nil {
		return
	}
	x.reply("220 odd.example ESMTP")
	for !x.over {
		read := x.readLine
		if read == nil {
			read = (*oddSession).line
		}
		line, err := read(x)
		if err != nil {
			x.fail("command", err)
			return
		}
		verb, args, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		if f := x.command[verb]; f != nil {
			f(x, args)
		} else {
			x.execute(verb, args)
		}
		if x.behind != nil {
			x.behind(x, verb)
		}
	}
}

// fail is about a Read that has failed.
func (x *oddSession) fail(where string, err error) {
	switch {
	case x.failed != nil:
		x.failed(x, where, err)
		return
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.reply("421 4.4.2 too late")
	}
	x.over = true
}

var (
	fromPath = regexp.MustCompile(`(?i)^FROM:<[^<>\s]*>$`)
	toPath   = regexp.MustCompile(`(?i)^TO:<([^<>\s]+@[^<>\s]+)>$`)
)

func (x *oddSession) execute(verb, args string) {
	switch verb {
	case "EHLO", "LHLO", "HELO":
		switch {
		case x.lmtp != (verb == "LHLO"):
			x.reply("500 5.5.1 not here")
		case args == "":
			x.reply("501 5.5.4 who?")
		default:
			x.reset()
			x.hello(verb)
		}
	case "MAIL":
		switch {
		case x.from:
			x.reply("503 5.5.1 not now")
		case !fromPath.MatchString(args):
			x.reply("501 5.5.4 no path")
		default:
			x.from = true
			x.reply("250 2.1.0 sender ok")
		}
	case "RCPT":
		x.rcpt(args)
	case "DATA":
		x.data()
	case "BDAT":
		x.bdat(args)
	case "RSET":
		x.reset()
		x.reply("250 2.0.0 reset")
	case "NOOP":
		x.reply("250 2.0.0 nothing done")
	case "AUTH":
		if args != "PLAIN" {
			x.reply("504 5.5.4 PLAIN alone")
			return
		}
		x.reply("334 ")
		line, err := x.line()
		switch {
		case err != nil:
			x.fail("SASL", err)
		case line == "*":
			x.reply("501 5.7.0 cancelled")
		default:
			x.reply("235 2.7.0 welcome")
		}
	case "QUIT":
		x.over = true
		x.reply("221 2.0.0 bye")
	default:
		x.reply("500 5.5.2 unknown")
	}
}

func (x *oddSession) hello(verb string) {
	if verb == "HELO" {
		x.reply("250 odd.example")
		return
	}
	lines := []string{"250-odd.example", "250-PIPELINING", "250-CHUNKING", "250-AUTH PLAIN"}
	if x.keywords != nil {
		lines = append([]string{"250-odd.example"}, x.keywords...)
	}
	x.reply(append(lines, "250 SIZE 100000")...)
}

func (x *oddSession) rcpt(args string) {
	find := x.path
	if find == nil {
		find = func(_ *oddSession, args string) (string, bool) {
			if m := toPath.FindStringSubmatch(args); m != nil {
				return m[1], true
			}
			return "", false
		}
	}
	switch to, ok := find(x, args); {
	case !x.from:
		x.reply("503 5.5.1 not now")
	case !ok:
		x.reply("501 5.5.4 no path")
	case strings.HasPrefix(to, "no"):
		x.reply("550 5.1.1 no such user")
	default:
		x.to++
		x.reply("250 2.1.5 recipient ok")
	}
}

// statuses replies to a message.
func (x *oddSession) statuses(reply string) {
	n := 1
	if x.lmtp {
		n = x.to
	}
	for range n {
		x.reply(reply)
	}
	x.reset()
}

func (x *oddSession) data() {
	if x.to == 0 {
		x.reply("503 5.5.1 no recipients")
		return
	}
	x.reply("354 go ahead")
	if x.odd.content != nil {
		if err := x.odd.content(x); err != nil {
			x.fail("content", err)
		}
		return
	}
	octets := 0
	for {
		line, err := x.line()
		switch {
		case err != nil:
			x.fail("content", err)
			return
		case line != ".":
			octets += len(line)
			continue
		case octets > 100000:
			x.statuses("552 5.3.4 too big")
		default:
			x.statuses("250 2.0.0 taken")
		}
		return
	}
}

func (x *oddSession) bdat(args string) {
	octets, last := 0, strings.HasSuffix(args, " LAST")
	fmt.Sscan(args, &octets)
	if x.chunk != nil {
		x.chunk(x, octets, last)
		return
	}
	x.conn.SetReadDeadline(time.Now().Add(time.Minute))
	switch _, err := io.CopyN(io.Discard, x.r, int64(octets)); {
	case err != nil:
		x.fail("chunk", err)
	case x.to == 0:
		x.reply("503 5.5.1 no recipients")
	case last:
		x.statuses("250 2.0.0 taken")
	default:
		x.reply("250 2.0.0 chunk taken")
	}
}

// inTLS tells whether the server has been given a *tls.Conn.
func (x *oddSession) inTLS() bool {
	_, ok := x.conn.(*tls.Conn)
	return ok
}
