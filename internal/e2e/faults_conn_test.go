package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// This file has what the tests of faults share: sessions, a client that plays
// them, and a connection that can be broken.

// turn is what a client sends at a time, and how many replies it waits for then.
type turn struct {
	send    string
	replies int
	tls     bool // it shakes hands behind the reply
}

// played is a session for a server: AUTH, and a message with DATA and one with
// BDAT, in which the hook answers HELP itself.
func played(name string) []turn {
	const mail = "HELP 1\r\nMAIL FROM:<1@x>\r\nRCPT TO:<c@d>\r\nRCPT TO:<no@d>\r\nHELP 2\r\nRCPT TO:<e@f>\r\nDATA\r\n"
	head := func(greet string) []turn {
		return []turn{{send: "", replies: 1}, {send: greet + " x\r\n", replies: 1}, {send: "AUTH PLAIN\r\n", replies: 1},
			{send: b64("\x00user\x00pass") + "\r\n", replies: 1}, {send: mail, replies: 7}, {send: "x\r\n..y", replies: 0}}
	}
	if strings.HasSuffix(name, "LMTP") {
		// Without BDAT: a transfer that is broken off is a data race within
		// go-smtp's LMTP.
		return append(head("LHLO"), turn{send: "\r\n.\r\n", replies: 2},
			turn{send: "HELP 3\r\nRSET\r\nVRFY x\r\nHELP 4\r\n", replies: 4}, turn{send: "QUIT\r\n", replies: 1})
	}
	return append(head("EHLO"), turn{send: "\r\n.\r\n", replies: 1},
		turn{send: "HELP 3\r\nRSET\r\nVRFY x\r\nHELP 4\r\n", replies: 4},
		turn{send: "MAIL FROM:<2@x>\r\nRCPT TO:<c@d>\r\nBDAT 8\r\nNOOP\r\n.\r", replies: 3},
		turn{send: "BDAT 8 LAST\r\n\nRS", replies: 0}, turn{send: "ET\r\n.", replies: 1}, turn{send: "QUIT\r\n", replies: 1})
}

// inTLS is a session with STARTTLS.
var inTLS = []turn{{send: "", replies: 1}, {send: "EHLO x\r\n", replies: 1}, {send: "STARTTLS\r\n", replies: 1, tls: true},
	{send: "EHLO y\r\n", replies: 1}, {send: "HELP 1\r\nMAIL FROM:<1@x>\r\nRCPT TO:<c@d>\r\nDATA\r\n", replies: 4},
	{send: "x\r\n..y\r\n.\r\n", replies: 1}, {send: "HELP 2\r\nQUIT\r\n", replies: 2}}

// oneByOne faults the turns into lines, for a client that sends nothing ahead.
func oneByOne(turns []turn) (lines []turn) {
	for _, t := range turns {
		rest := t.send
		for t.replies > 1 && !strings.HasPrefix(t.send, "\r\n") { // else it's LMTP's end of a message
			line, after, _ := strings.Cut(rest, "\r\n")
			lines = append(lines, turn{send: line + "\r\n", replies: 1})
			rest = after
			t.replies--
		}
		t.send = rest
		lines = append(lines, t)
	}
	return lines
}

// chat plays a client and returns the replies that it got, and what it got of
// one more.
func chat(c net.Conn, turns []turn, ahead bool) (replies []string, rest string) {
	r := bufio.NewReader(c)
	reply := func() bool {
		for {
			line, err := r.ReadString('\n')
			if rest += line; err != nil {
				return false
			}
			if len(line) < 4 || line[3] != '-' {
				replies, rest = append(replies, rest), ""
				return true
			}
		}
	}
	if ahead {
		var all strings.Builder
		for _, t := range turns {
			all.WriteString(t.send)
		}
		turns = []turn{{send: all.String()}}
	}
	// It writes while it reads, since a pipe holds nothing.
	var writing sync.WaitGroup
	defer writing.Wait()
	defer func() { c.Close() }()
	turnsLeft := make(chan turn, len(turns))
	defer close(turnsLeft)
	write := func(c net.Conn) {
		for t := range turnsLeft {
			if t.send != "" {
				io.WriteString(c, t.send)
			}
			if t.tls {
				return
			}
		}
	}
	writing.Go(func() { write(c) })
	for _, t := range turns {
		turnsLeft <- t
		for range t.replies {
			if !reply() {
				return replies, rest
			}
		}
		if t.tls && strings.HasPrefix(replies[len(replies)-1], "220") {
			writing.Wait()
			tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if tc.Handshake() != nil {
				return replies, rest
			}
			c = tc
			r.Reset(c)
			writing.Go(func() { write(tc) })
		}
	}
	for reply() {
	}
	return replies, rest
}

// misplaced tells what is wrong with the replies that a client got, by those
// that it gets without a fault. The server may have refused what it couldn't
// execute, or have taken its leave.
func misplaced(got []string, rest string, want []string) string {
	refuses := func(g string) bool { return g[0] == '4' || g[0] == '5' }
	for i, g := range got {
		if i < len(want) && g == want[i] {
			continue
		}
		isLeave := strings.HasPrefix(g, "421") && i == len(got)-1 && rest == ""
		if !isLeave && (!refuses(g) || slices.Contains(want, g) || i >= len(want)) {
			return fmt.Sprintf("%q in place of %q", g, want[min(i, len(want)):min(i+1, len(want))])
		}
	}
	// Half a reply is one of that which is next.
	if rest != "" && (len(got) >= len(want) || !strings.HasPrefix(want[len(got)], rest)) && !refuses(rest) {
		return fmt.Sprintf("the replies end in %q", rest)
	}
	return ""
}

// accepted counts the messages that a client was told were taken.
func accepted(got []string) (n int) {
	for _, g := range got {
		if strings.Contains(g, "OK: queued") && !strings.Contains(g, "<e@f>") || strings.HasPrefix(g, "250 2.0.0 taken") {
			n++
		}
	}
	return n
}

// answerHelp is a hook that answers HELP, and remembers what it has passed.
type answerHelp struct{ passLog }

func (h *answerHelp) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	if cmd.Verb() == "HELP" {
		return reply{Code: 214, Lines: []string{cmd.Args()}}, nil
	}
	return h.passLog.Command(ctx, cmd, conn, txn)
}

// fault is what is wrong with a connection: the n-th of the calls of a kind, and
// those behind it.
type fault struct {
	name   string
	op     string // the method that is counted; "" is any
	err    error  // that it returns
	octets int    // that are read or written nevertheless
	once   bool   // the calls behind it work
	stalls bool   // it waits for a deadline, or for Close
	short  bool   // it is well, but for no more than an octet
	drops  bool   // it does nothing, and tells it has
}

var errCut = errors.New("the cable is cut")

// faultyConn is a connection with a fault.
type faultyConn struct {
	net.Conn
	fault
	n      int           // 0: never
	spare  net.Conn      // nobody is at the other end of it
	struck chan struct{} // closed when the fault has happened
	closed chan struct{}

	mu     sync.Mutex
	calls  int
	isShut bool
}

func newFaultyConn(c net.Conn, f fault, n int) *faultyConn {
	spare, _ := net.Pipe()
	return &faultyConn{Conn: c, fault: f, n: n, spare: spare, struck: make(chan struct{}), closed: make(chan struct{})}
}

// NetConn is for SessionOf.
func (c *faultyConn) NetConn() net.Conn { return c.Conn }

// strikes tells whether a call is to fail.
func (c *faultyConn) strikes(op string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 || c.op != "" && c.op != op {
		return false
	}
	if c.calls++; c.calls == c.n {
		close(c.struck)
		if c.op == "" {
			c.Conn.Close() // calls that are under way fail as well
		}
	}
	return c.calls == c.n || c.calls > c.n && !c.once
}

func (c *faultyConn) Read(p []byte) (int, error) {
	switch struck := c.strikes("Read"); {
	case !struck:
		return c.Conn.Read(p)
	case c.stalls:
		return c.spare.Read(p)
	case c.short:
		return c.Conn.Read(p[:1])
	case c.octets > 0:
		n, _ := c.Conn.Read(p[:min(c.octets, len(p))])
		return n, c.err
	}
	return 0, c.err
}

func (c *faultyConn) Write(p []byte) (int, error) {
	switch struck := c.strikes("Write"); {
	case !struck:
		return c.Conn.Write(p)
	case c.stalls:
		return c.spare.Write(p)
	case c.drops:
		return len(p), nil
	case c.short:
		for i := range p {
			if n, err := c.Conn.Write(p[i : i+1]); err != nil {
				return i + n, err
			}
		}
		return len(p), nil
	case c.octets > 0:
		n, _ := c.Conn.Write(p[:min(c.octets, len(p)-1)])
		return n, c.err
	}
	return 0, c.err
}

func (c *faultyConn) deadline(op string, set, setSpare func(time.Time) error, t time.Time) error {
	if c.strikes(op) && c.err != nil {
		return c.err
	}
	setSpare(t)
	return set(t)
}

func (c *faultyConn) SetReadDeadline(t time.Time) error {
	return c.deadline("SetReadDeadline", c.Conn.SetReadDeadline, c.spare.SetReadDeadline, t)
}

func (c *faultyConn) SetWriteDeadline(t time.Time) error {
	return c.deadline("SetWriteDeadline", c.Conn.SetWriteDeadline, c.spare.SetWriteDeadline, t)
}

func (c *faultyConn) SetDeadline(t time.Time) error {
	return c.deadline("SetDeadline", c.Conn.SetDeadline, c.spare.SetDeadline, t)
}

// CloseWrite is there as on TCP, so that the library reads on before it closes.
func (c *faultyConn) CloseWrite() error {
	if c.strikes("CloseWrite") && c.err != nil {
		return c.err
	}
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection even if it tells otherwise.
func (c *faultyConn) Close() error {
	struck := c.strikes("Close")
	c.mu.Lock()
	if !c.isShut {
		c.isShut = true
		close(c.closed)
	}
	c.mu.Unlock()
	c.spare.Close()
	if err := c.Conn.Close(); !struck || c.err == nil {
		return err
	}
	return c.err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
