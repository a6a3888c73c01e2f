package smtpproxy

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/timed"
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
// Locks, in the order they may be taken: readMu, writeMu, s.mu, which is client's too.
// Only readMu, writeMu and beginning are held during I/O; Close waits for none of them.
type conn struct {
	client    timed.Conn // the client's connection: all that is read and written
	s         *Session
	l         *listener
	beginning sync.Mutex // held until it is known who is connected, and TLS has begun

	closed  atomic.Bool
	claimed atomic.Bool // after STARTTLS: accepted by the server, or turned away
	more    atomic.Bool // in holds another whole line
	holds   atomic.Bool // out holds something

	readMu   sync.Mutex    // held by Read; guards what follows
	in       buffer.Buffer // what the client has sent ahead
	inErr    error         // why nothing will be added to in
	rest     buffer.Buffer // of a line that was longer than the server's slice
	unwanted *unwanted     // nil if there's nothing to drop
	dropped  int64         // octets of a message that is rejected, so far
	rejected reason        // it is refused for its content: what is left is dropped
	complete bool          // nothing is left

	writeMu sync.Mutex // guards what follows, and client.Write
	broken  bool       // what the server writes is no dialogue any more
	cut     bool       // a reply couldn't be sent, or not as a whole
	ticking bool       // timer runs
	greeted bool       // the server has
	reply   wire.Reply
	partial buffer.Buffer // a reply that the server hasn't finished
	out     buffer.Buffer // replies held back
	timer   *time.Timer

	// Read's while there is content; set anew when a message begins, while no
	// Read uses them.
	content  wire.Content
	strict   wire.Strict // if looksAtContent
	textLine int         // octets of a line that the server has got, with MaxTextLine

	// Guarded by s.mu, since they change together with the session:
	drop    bool // the library ends the connection
	waiting bool // Read waits for a reply
	ahead   bool // and reads ahead meanwhile
	// stirs gets something when the server reads while its Write doesn't
	// return (see Session.mayReturn), and when that may.
	stirs    chan struct{}
	wake     chan struct{}
	next     *conn       // follows this one after STARTTLS
	patience *time.Timer // after STARTTLS: until the server has accepted it
	// kept are replies of the server's that the client gets later: those to a
	// message before its end, or a greeting that isn't 220 after STARTTLS.
	kept buffer.Buffer
}

// unwanted is what is left of a chunk that nobody wants, and the reply to it.
type unwanted struct {
	octets int64
	reply  Reply
	copies int
	renews bool // the reply gives the client its full time
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
	// greetTime is how long a server may read before it greets without being
	// warned of.
	greetTime = 5 * time.Second
	// readOnTime is how long an LMTP server that replies to a message before
	// its end may take to read on.
	readOnTime = 300 * time.Millisecond
	// restTime is how long one that has read on may take to do so again.
	restTime = time.Minute
)

// Sizes that bound what the library keeps.
const (
	maxHeld   = 4 << 10  // octets of replies held
	maxLinger = 1 << 20  // octets read after the last reply
	maxDrain  = 64 << 20 // octets of content read when nobody wants it
)

func newConn(raw net.Conn, l *listener) *conn {
	s := newSession(l.cfg, facts{id: newID()}, transaction{})
	s.relay, s.unknown = true, &unknown{raw: raw}
	if _, isTLS := raw.(*tls.Conn); l.cfg.ImplicitTLS && !isTLS {
		raw = tls.Server(raw, l.cfg.TLSConfig)
	} else if l.cfg.ImplicitTLS {
		l.cfg.warn(warnTLSTwice)
	}
	return &conn{client: timed.NewConn(raw, &s.mu), s: s, l: l}
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.client.NetConn().LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.client.NetConn().RemoteAddr() }

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
	if c.closed.Load() {
		return net.ErrClosed
	}
	err := c.client.SetReadDeadline(t)
	if err != nil && c.client.HasTakenDeadline() {
		// It is as good as a Read that has failed. Where no deadline can be set, a
		// server that reads at all doesn't mind.
		c.readFailed()
	}
	return err
}

// SetWriteDeadline implements net.Conn. For replies that the server didn't
// write, or that were held back, the time starts anew.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.client.SetWriteDeadline(t)
}

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
	// A greeting that the client hasn't had yet is its last word; replies to a
	// message that the server hasn't got are none.
	postponed := c.s.phase == phasePostponed
	c.s.setPhase(phaseOver)
	c.notify()
	kept, unreported := c.kept.Move(), c.s.why != reasonNone && c.s.why != reasonLogged
	c.s.mu.Unlock()
	if unreported {
		go c.s.report() // a log handler may take its time
	}
	if c.writeMu.TryLock() {
		if postponed {
			c.out.Put(kept.Held())
		}
		if c.out.Len() > 0 && !c.cut {
			c.client.LimitWrite(closeTime)
			c.client.Write(c.out.Held())
		}
		c.out.Release()
		if c.timer != nil {
			c.timer.Stop()
		}
		c.writeMu.Unlock()
	}
	kept.Release()
	return c.client.Close()
}

// notify ends a wait for a reply. Its caller holds s.mu.
func (c *conn) notify() {
	if !c.waiting {
		return
	}
	c.waiting = false
	close(c.wake)
	if c.ahead {
		c.client.InterruptReadsLocked()
	}
}
