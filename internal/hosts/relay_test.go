package hosts

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// relay does what the library does, as simply as can be: a line for each Read, all
// within the host's own calls. It is here to test the properties: obeying all rules
// it has to hold them, and breaking one it must not.
type relay struct {
	net.Conn // the client's
	gate     *gate
	rules

	readMu sync.Mutex
	in     []byte // from the client, not yet looked at
	rest   []byte // for the host, of what it has begun to get
	piece  lines  // where in the content it is

	mu       sync.Mutex
	changed  chan struct{} // closed by each reply
	deadline time.Time
	reading  int    // Reads under way
	partial  string // of a reply
	phase    phase
	lmtp     bool
	line     string // the command that the host has
	after    string // the MAIL command that follows the relay's own RSET
	due      int    // replies to the message
	end      end    // where in the content the host is
	size     int    // what the host takes, 0 if it hasn't told
	chunk    int    // octets of a chunk that the host hasn't got
	octets   int    // of the message in chunks so far
	last     bool   // it is the last one
	codes    []int  // of the message
	held     []string
	dead     error // a Read failed amid content: nothing more to the host
	kept     bool  // the host may have a transaction that the view hasn't
	view     view
	ids      int
}

// rules are those that a relay may break, one at a time.
type rules struct {
	trustsRefusals bool // a refusal where content may have ended was the reply to its end
	inBulk         bool // the host gets more than a line of content at once
	onlyDot        bool // content ends in a line "." CRLF and nowhere else
	tellsEarly     bool // a 2xx goes to the client before the end of the message
	feedsOn        bool // content goes on after a Read that failed
	firstPath      bool // the first path in a command is its mailbox
	forgetsKept    bool // a transaction that has ended in doubt isn't reset before MAIL
	passesOutside  bool // RCPT and DATA pass without a transaction
	keepsRefused   bool // EHLO that was refused leaves the transaction as it was
	hidesBusy      bool // a 421 in LMTP is the last status
	leavesChunk    bool // the chunk of a BDAT command that is refused isn't drained
}

type phase int

const (
	greeting phase = iota
	commanding
	answering
	taking // content
	authenticating
	over
)

// careful is a front that obeys the rules, or breaks those given.
func careful(broken rules) front {
	return func(l net.Listener, g *gate) net.Listener { return &relayListener{l, g, broken} }
}

type relayListener struct {
	net.Listener
	gate *gate
	rules
}

// Accept implements net.Listener.
func (l *relayListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &relay{Conn: c, gate: l.gate, rules: l.rules, changed: make(chan struct{}), view: view{id: "0"}}, nil
}

// SetReadDeadline implements net.Conn.
func (c *relay) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.change()
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *relay) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// Close implements net.Conn.
func (c *relay) Close() error {
	c.mu.Lock()
	c.phase = over
	c.change()
	c.mu.Unlock()
	return c.Conn.Close()
}

// change wakes those who wait. Its caller holds mu.
func (c *relay) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Read implements net.Conn.
func (c *relay) Read(p []byte) (int, error) {
	c.begin(1)
	defer c.begin(-1)
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		if len(c.rest) > 0 {
			n := copy(p, c.rest)
			c.rest = c.rest[n:]
			return n, nil
		}
		if err := c.bring(); err != nil {
			return 0, err
		}
	}
}

// begin notes that a Read begins, or ends.
func (c *relay) begin(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading += n
	c.change()
}

// bring puts what the host is to get next into rest, or waits for what has to come
// first.
func (c *relay) bring() error {
	c.mu.Lock()
	phase, after := c.phase, c.after
	switch {
	case c.dead != nil && !c.feedsOn:
		defer c.mu.Unlock()
		return c.dead
	case phase == answering && c.lmtp && c.last && c.chunk == 0 && len(c.codes) > 0:
		// go-smtp answers a chunk once that it refuses for all, and reads on.
		c.finish()
		phase = c.phase
	case phase == answering && c.chunk > 0, phase == taking && c.end != sureEnd:
		if c.end == mayBeEnd && c.due == 0 {
			c.lose() // the host has said all, and nobody knows what it reads now
			phase = over
			break
		}
		c.end = noEnd // the host reads on
		c.mu.Unlock()
		return c.bringContent()
	}
	c.mu.Unlock()
	switch phase {
	case over:
		c.Conn.Close()
		return io.EOF
	case commanding:
		if after != "" {
			c.hand(after)
			return nil
		}
		return c.bringCommand()
	case authenticating:
		return c.bringResponse()
	}
	return c.await()
}

// await waits for a reply.
func (c *relay) await() error {
	c.mu.Lock()
	changed, deadline := c.changed, c.deadline
	c.mu.Unlock()
	if deadline.IsZero() {
		<-changed
		return nil
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-changed:
		return nil
	case <-t.C:
		return c.fails(timeoutError{})
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

// fails notes that a Read fails amid what is no command.
func (c *relay) fails(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // else some hosts would take it for the end of the message
	}
	if c.phase != commanding {
		c.dead = err
	}
	return err
}

// more reads more from the client.
func (c *relay) more() error {
	buf := make([]byte, 4096)
	n, err := c.Conn.Read(buf)
	c.in = append(c.in, buf[:n]...)
	return err
}

// readLine reads a line of the client's, without its end.
func (c *relay) readLine() (string, error) {
	for {
		if i := strings.IndexByte(string(c.in), '\n'); i >= 0 {
			line := strings.TrimSuffix(string(c.in[:i]), "\r")
			c.in = c.in[i+1:]
			return line, nil
		}
		if err := c.more(); err != nil {
			return "", err
		}
	}
}

// bringResponse brings a line of a SASL exchange.
func (c *relay) bringResponse() error {
	line, err := c.readLine()
	if err != nil {
		return c.fails(err)
	}
	c.mu.Lock()
	c.phase = answering
	c.mu.Unlock()
	c.rest = []byte(line + "\r\n")
	return nil
}

// bringContent brings content up to where the host may see its end, or a piece of a
// chunk.
func (c *relay) bringContent() error {
	c.mu.Lock()
	chunk := c.chunk
	c.mu.Unlock()
	for {
		n, at := min(chunk, len(c.in)), noEnd
		if chunk == 0 {
			n, at = c.piece.next(c.in, c.onlyDot, c.inBulk)
		}
		if n > 0 {
			c.rest, c.in = c.in[:n:n], c.in[n:]
			c.mu.Lock()
			c.end, c.chunk = at, max(c.chunk-n, 0)
			if c.end == sureEnd && c.due == 0 {
				c.finish()
			}
			c.mu.Unlock()
			return nil
		}
		if err := c.more(); err != nil {
			return c.fails(err)
		}
	}
}

// say sends a reply of the relay's own, or of the hook's.
func (c *relay) say(code int, text string) error {
	_, err := fmt.Fprintf(c.Conn, "%d %s\r\n", code, text)
	return err
}

// lose ends the connection when nobody knows any more what is whose. Its caller
// holds mu.
func (c *relay) lose() {
	if c.phase != over {
		c.say(421, "4.3.0 lost step")
	}
	c.phase = over
	c.change()
}
