package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file has a server that replies with the codes that it is given: behind a
// listener, or as the state machine that calls a Session.

// puppet is that server. It reads content up to a line that is a dot.
type puppet struct {
	codes map[string][]int         // by verb, "." being the end of content; by default what a good server says
	takes map[string]time.Duration // likewise, how long that takes, in a bubble
	says  map[string][]string      // likewise, what it writes instead, in one Write each
	lmtp  bool
	rcpts int

	mu       sync.Mutex
	executed []string
}

// code returns what it replies to a verb.
func (p *puppet) code(verb string, byDefault int) int {
	codes := p.codes[verb]
	if len(codes) == 0 {
		return byDefault
	}
	p.codes[verb] = codes[1:]
	return codes[0]
}

// executes notes what it gets.
func (p *puppet) executes(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.executed = append(p.executed, line)
}

// took returns what it has got since it was asked last.
func (p *puppet) took() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := p.executed
	p.executed = nil
	return lines
}

// answer returns the codes of its replies to a line, whose chunk it has got.
func (p *puppet) answer(line string) []int {
	p.executes(line)
	verb, byDefault := command{Line: line}.Verb(), 250
	time.Sleep(p.takes[verb]) // in a bubble
	switch verb {
	case "DATA":
		byDefault = 354
	case "AUTH":
		byDefault = 235
	case "QUIT":
		byDefault = 221
	case "BDAT":
		if strings.HasSuffix(line, " LAST") {
			return p.statuses(verb)
		}
	}
	code := p.code(verb, byDefault)
	switch {
	case verb == "RCPT" && code/100 == 2:
		p.rcpts++
	case verb == "RSET" && code/100 == 2, verb == "MAIL":
		p.rcpts = 0
	case code == 250 && isGreeting(verb):
		p.lmtp, p.rcpts = verb == "LHLO", 0
	}
	return []int{code}
}

// statuses returns the codes of its replies to a message: in LMTP one for each
// recipient.
func (p *puppet) statuses(verb string) (codes []int) {
	n := 1
	if p.lmtp {
		n = max(1, p.rcpts)
	}
	for range n {
		codes = append(codes, p.code(verb, 250))
	}
	p.rcpts = 0
	return codes
}

func isGreeting(verb string) bool { return verb == "HELO" || verb == "EHLO" || verb == "LHLO" }

// lines returns the lines of the reply to a command.
func (p *puppet) lines(line string, code int) []string {
	if verb := (command{Line: line}).Verb(); code == 250 && (verb == "EHLO" || verb == "LHLO") {
		return []string{"puppet", "PIPELINING", "CHUNKING", "SIZE 1000"}
	}
	return []string{"as told"}
}

// serve is the puppet behind a listener.
func (p *puppet) serve(c net.Conn) {
	r := bufio.NewReader(c)
	say := func(line string, code int) {
		lines := p.lines(line, code)
		for i, text := range lines {
			sep := "-"
			if i == len(lines)-1 {
				sep = " "
			}
			fmt.Fprintf(c, "%d%s%s\r\n", code, sep, text)
		}
	}
	say("", 220)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		var size int64
		if n, _ := fmt.Sscanf(strings.ToUpper(line), "BDAT %d", &size); n == 1 {
			if _, err := io.CopyN(io.Discard, r, size); err != nil {
				return
			}
		}
		codes := p.answer(line)
		if instead := p.says[command{Line: line}.Verb()]; len(instead) > 0 {
			for _, piece := range instead {
				io.WriteString(c, piece)
			}
			continue
		}
		for _, code := range codes {
			say(line, code)
		}
		if line != "DATA" || codes[0] != 354 {
			continue
		}
		for line != ".\r\n" {
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		for _, code := range p.statuses(".") {
			say("", code)
		}
	}
}

// door is a way to the puppet, through the library.
type door interface {
	// say sends a line, and what belongs to it: a chunk, or, as a dot, content and
	// its end. It returns the codes that the client gets.
	say(line string) []int
	// mail is say for MAIL, and tells whether the server had to forget its
	// transaction before it.
	mail(line string) (codes []int, reset bool)
	session() *smtpproxy.Session
}

// doors are the two.
var doors = map[string]func(*testing.T, *smtpproxy.Proxy, *puppet) door{
	"listener": behindListenerDoor,
	"session":  behindSessionDoor,
}

// counted is what a client counts on: in LMTP a reply for each recipient.
type counted struct {
	lmtp  bool
	rcpts int
}

// replies returns how many replies a line has.
func (n *counted) replies(line string) int {
	if n.lmtp && (line == "." || strings.HasSuffix(line, " LAST")) {
		return max(1, n.rcpts)
	}
	return 1
}

func (n *counted) got(line string, codes []int) {
	verb, ok := command{Line: line}.Verb(), codes[0]/100 == 2
	switch {
	case isGreeting(verb) && ok:
		n.lmtp, n.rcpts = verb == "LHLO", 0
	case verb == "MAIL", verb == "RSET" && ok, line == ".", strings.HasSuffix(line, " LAST"):
		n.rcpts = 0
	case verb == "RCPT" && ok:
		n.rcpts++
	}
}

// listenerDoor is a client behind Proxy.Listener.
type listenerDoor struct {
	counted
	c    *peer
	p    *puppet
	conn chan net.Conn
	s    *smtpproxy.Session
}

func behindListenerDoor(t *testing.T, p *smtpproxy.Proxy, pup *puppet) door {
	d := &listenerDoor{p: pup, conn: make(chan net.Conn, 1)}
	d.c = runScript(t, overTCP(t), p, func(c net.Conn) {
		d.conn <- c
		pup.serve(c)
	})
	t.Cleanup(func() { d.c.Close() })
	d.c.expect("220")
	return d
}

func (d *listenerDoor) session() *smtpproxy.Session {
	if d.s == nil {
		d.s, _ = smtpproxy.SessionOf(<-d.conn)
	}
	return d.s
}

func (d *listenerDoor) say(line string) (codes []int) {
	d.c.t.Helper()
	octets := line + "\r\n"
	if line == "." {
		octets = "hi\r\n.\r\n"
	}
	d.c.send(octets + strings.Repeat("x", chunkIn(line)))
	for range d.replies(line) {
		var code int
		fmt.Sscanf(d.c.reply(), "%d", &code)
		codes = append(codes, code)
	}
	d.got(line, codes)
	return codes
}

// chunkIn returns the size of a chunk.
func chunkIn(line string) (size int) {
	fmt.Sscanf(strings.ToUpper(line), "BDAT %d", &size)
	return size
}

func (d *listenerDoor) mail(line string) (codes []int, reset bool) {
	d.p.took()
	codes = d.say(line)
	return codes, slices.Contains(d.p.took(), "RSET")
}

// sessionDoor is a state machine that calls a Session.
type sessionDoor struct {
	t *testing.T
	p *puppet
	s *smtpproxy.Session
}

func behindSessionDoor(t *testing.T, p *smtpproxy.Proxy, pup *puppet) door {
	s := p.NewSession(connection{})
	s.Replied(220)
	return &sessionDoor{t, pup, s}
}

func (d *sessionDoor) session() *smtpproxy.Session { return d.s }

func (d *sessionDoor) say(line string) []int {
	d.t.Helper()
	codes, reset := d.command(line)
	if reset {
		d.t.Errorf("%s: the server has to forget its transaction", line)
	}
	return codes
}

func (d *sessionDoor) mail(line string) (codes []int, reset bool) { return d.command(line) }

func (d *sessionDoor) command(line string) (codes []int, reset bool) {
	d.t.Helper()
	switch {
	case line == ".":
		codes = d.p.statuses(".")
	default:
		switch decided := d.s.Command(d.t.Context(), line).(type) {
		case reply:
			if got := d.s.Discard(); got != int64(chunkIn(line)) {
				d.t.Errorf("%s: %d octets to drop", line, got)
			}
			return slices.Repeat([]int{decided.Code}, d.s.Copies()), d.s.MustReset()
		case pass:
			line = decided.Command
		}
		if reset = d.s.MustReset(); reset {
			d.p.rcpts = 0
		}
		if n := d.s.Copies(); n != 1 {
			d.t.Errorf("%s: %d copies of a Pass", line, n)
		}
		codes = d.p.answer(line)
	}
	for _, code := range codes {
		d.s.Replied(code, d.p.lines(line, code)...)
	}
	return codes, reset
}
