package smtpproxy

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// conn is the connection that the server holds: a relay between it and the
// client that lets one command through at a time. It knows I/O; the dialogue
// is its Session's.
//
// Read brings the client's lines to the hook and then to the server, Write
// brings the server's replies to the client. A server calls them alternately,
// but Write may also come while a Read waits (LMTP statuses before the end of
// the message), and Close at any moment from anywhere.
//
// Locks, in the order they may be taken: readMu, writeMu, s.mu, deadlineMu.
// Only readMu, writeMu and shake are held during I/O; Close takes none of them.
type conn struct {
	raw    net.Conn
	s      *Session
	l      *listener
	closed atomic.Bool
	shaken atomic.Bool // no TLS handshake is due
	shake  sync.Mutex  // held during the handshake
	gone   atomic.Bool // raw is another connection's, after STARTTLS

	readMu   sync.Mutex // held by Read; guards what follows
	in       buffer     // what the client has sent ahead
	inErr    error      // why nothing will be added to in
	limit    int        // of the next line, with its line end
	rest     []byte     // of a line that was longer than the server's slice
	rejected bool       // it has a bare CR or LF: what is left is dropped
	complete bool       // nothing is left
	dropped  int64      // octets of it so far
	// What is left of a chunk that nobody wants, and the reply to it.
	unwanted      int64
	unwantedReply *Reply

	writeMu sync.Mutex // guards what follows, and Write of raw
	reply   wire.Reply
	partial []byte // a reply that the server hasn't finished
	broken  bool   // what the server writes is no dialogue any more
	out     []byte // replies held back
	cut     bool   // a reply couldn't be sent, or not as a whole
	timer   *time.Timer
	ticking bool // timer runs
	greeted bool // the server has

	// givenUp tells that a Read has failed, and the server has written
	// nothing since, or nothing but replies to content.
	givenUp atomic.Bool

	// reading tells that a Read is under way.
	reading atomic.Bool

	// more tells that in holds another whole line.
	more atomic.Bool

	// Guarded by s.mu, since they change together with the session:
	content wire.Content // also used without s.mu, by Read
	strict  wire.Strict  // likewise, with RejectBareNewlines
	ended   bool         // the server has the content's end, or may think so
	sure    bool         // ended, and there's no doubt about it
	taken   bool         // a reply before the end was 2xx
	flowing bool         // all replies are here, the content isn't
	refused bool         // likewise, and nobody wants the rest
	chunk   int64        // octets of a BDAT chunk that the server hasn't got
	drop    bool         // the library ends the connection
	waiting bool         // Read waits for a reply
	// undecided is there while it isn't known whether the server reads on
	// after it has refused a message before its end.
	undecided chan struct{}
	wake      chan struct{}
	next      *conn // follows this one after STARTTLS
	// postponed is the server's greeting, if it wasn't 220 after STARTTLS.
	postponed []byte

	// Of a connection after STARTTLS, until the server has accepted it:
	patience *time.Timer
	claimed  atomic.Bool // not guarded by s.mu

	timed         atomic.Bool // the server has set a read deadline
	deadlineMu    sync.Mutex
	readDeadline  deadline
	writeDeadline deadline
	moved         chan struct{} // closed when the server sets another read deadline
	kicked        bool          // raw's read deadline is past, to end a wait
}

// Times that bound what the library does on its own account.
const (
	// holdTime is how long a reply may be held for others to join it.
	holdTime = 5 * time.Millisecond
	// closeTime bounds the last write of a connection that is closed.
	closeTime = time.Second
	// lingerTime bounds reading on after the last reply. Closed while
	// octets arrive, TCP would reset the connection, and the client might
	// never see that reply.
	lingerTime = time.Second
	// drainTime bounds the same in the middle of a message.
	drainTime = 30 * time.Second
	// orphanTime is how long a server may take to reply when the client is
	// gone but left commands behind.
	orphanTime = time.Minute
	// handoverTime is how long a client that has started TLS waits for the
	// server to accept its fresh connection.
	handoverTime = 10 * time.Second
	// decideTime is how long an LMTP server that refuses a message before
	// its end may take to read on.
	decideTime = 100 * time.Millisecond
)

// Sizes that bound what the library keeps.
const (
	maxHeld   = 4 << 10  // octets of replies held
	maxLinger = 1 << 20  // octets read after the last reply
	maxDrain  = 64 << 20 // octets of content read when nobody wants it
)

func newConn(raw net.Conn, l *listener) *conn {
	s := newSession(l.cfg, newConnection(raw, l.cfg.ServerID), Transaction{})
	s.relay = true
	if l.cfg.ImplicitTLS {
		config := l.cfg.TLSConfig
		if config == nil {
			config = new(tls.Config) // no handshake succeeds
		}
		raw = tls.Server(raw, config)
	}
	c := &conn{raw: raw, s: s, l: l}
	_, isTLS := raw.(*tls.Conn)
	c.shaken.Store(!isTLS)
	return c
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// Close implements net.Conn. It interrupts Read, Write and the hook, which
// sees its Context done. What has been held back is sent, if that takes no
// time to speak of.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.s.mu.Lock()
	if c.next != nil {
		c.s.mu.Unlock()
		c.l.queue(c.next)
		return nil
	}
	c.s.advance(&event{kind: lost})
	c.notify()
	postponed := c.postponed
	c.s.mu.Unlock()
	if c.writeMu.TryLock() {
		c.out = append(c.out, postponed...)
		if len(c.out) > 0 && !c.cut {
			c.raw.SetWriteDeadline(time.Now().Add(closeTime))
			c.raw.Write(c.out)
			c.out = nil
		}
		if c.timer != nil {
			c.timer.Stop()
		}
		c.writeMu.Unlock()
	}
	return c.closeRaw()
}

// closeRaw closes the client's connection. TLS would wait 5 seconds for a
// client that doesn't read to take the close_notify alert.
func (c *conn) closeRaw() error {
	if tc, ok := c.raw.(*tls.Conn); ok {
		t := time.AfterFunc(closeTime, func() { tc.NetConn().Close() })
		defer t.Stop()
	}
	return c.raw.Close()
}

// deadline is one that the server has set. What the library and the hook do on
// their own account must not eat it.
type deadline struct {
	at    time.Time     // zero: none
	after time.Duration // what was left when it was set
	moved bool          // at isn't raw's any more
}

func newDeadline(t time.Time) deadline {
	d := deadline{at: t}
	if !t.IsZero() {
		d.after = time.Until(t)
	}
	return d
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn. Time that a hook takes does not count,
// and after a command that the server didn't get to see the time starts anew.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.readDeadline = newDeadline(t)
	c.timed.Store(true)
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
	if c.gone.Load() {
		return nil
	}
	if c.kicked {
		c.readDeadline.moved = true // for now, raw's has another purpose
		return nil
	}
	err := c.raw.SetReadDeadline(t)
	if err != nil {
		c.givenUp.Store(true) // as good as a Read that fails
	}
	return err
}

// SetWriteDeadline implements net.Conn. For replies that the server didn't
// write, or that were held back, the time starts anew.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.writeDeadline = newDeadline(t)
	if c.gone.Load() {
		return nil
	}
	return c.raw.SetWriteDeadline(t)
}

// extend moves the server's read deadline by what the hook took.
func (c *conn) extend(d time.Duration) {
	c.move(func(r *deadline) { r.at = r.at.Add(d) })
}

// renew gives the server's read deadline its full time from now on.
func (c *conn) renew() {
	c.move(func(r *deadline) { r.at = time.Now().Add(r.after) })
}

func (c *conn) move(by func(*deadline)) {
	if !c.timed.Load() {
		return
	}
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.readDeadline.after > 0 { // else none, or one that is meant to interrupt
		by(&c.readDeadline)
		c.readDeadline.moved = true
	}
}

// now returns the time if a deadline depends on it. The zero time saves a call
// of time.Now for each command.
func (c *conn) now() time.Time {
	if !c.timed.Load() {
		return time.Time{}
	}
	return time.Now()
}

// readDeadlineChange returns the server's read deadline, and a channel that is
// closed when it sets another.
func (c *conn) readDeadlineChange() (time.Time, <-chan struct{}) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.readDeadline.at, c.moved
}

// beforeRead makes raw's read deadline the server's, unless it is there to end
// the read that follows.
func (c *conn) beforeRead() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.readDeadline.moved && !c.kicked {
		c.raw.SetReadDeadline(c.readDeadline.at)
		c.readDeadline.moved = false
	}
}

// beforeOwnWrite gives a write that the server knows nothing of its full time.
func (c *conn) beforeOwnWrite() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.writeDeadline.after > 0 {
		c.raw.SetWriteDeadline(time.Now().Add(c.writeDeadline.after))
	}
}

// notify ends a wait for a reply. Its caller holds s.mu.
func (c *conn) notify() {
	if !c.waiting {
		return
	}
	c.waiting = false
	close(c.wake)
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.kick()
}

// kick ends a Read of raw. Its caller holds deadlineMu.
func (c *conn) kick() {
	c.kicked = true
	if err := c.raw.SetReadDeadline(time.Unix(1, 0)); err == nil {
		return
	}
	// Then only this ends it.
	if tc, ok := c.raw.(*tls.Conn); ok {
		tc.NetConn().Close() // without an alert that could block
	} else {
		c.raw.Close()
	}
}

// unkick gives raw's read deadline back to the server.
func (c *conn) unkick() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.kicked = false
	c.readDeadline.moved = true
}
