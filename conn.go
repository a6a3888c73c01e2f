package smtpproxy

import (
	"crypto/tls"
	"io"
	"net"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/timed"
)

// conn is the connection that the server holds: a relay between it and the
// client that lets one command through at a time. It knows I/O; what may be sent
// next, its Session's machine knows.
//
// Read brings the client's lines to the hook and then to the server, Write
// brings the server's replies to the client. A server calls them alternately,
// but Write may also come while a Read waits (LMTP statuses before the end of
// the message), and Close at any moment from anywhere.
//
// There is one lock for state, s.mu: of the machine, of what the session has written
// down, of the clock that client is, and of waits and to. It is held for a moment, and
// never while anybody reads, writes or closes or user code runs, but for the methods of
// the client's connection that set deadlines. Two tokens are held during I/O:
// in.reading by a Read, out.writing by whoever writes to the client. Who waits for
// several takes them in the order in.reading, out.writing, the turn of who looks at replies
// (see talk), s.mu; talksEarly, which has out.writing, only tries whether in.reading is free.
// User code runs while the tokens are held. Close waits for none of them.
type conn struct {
	s      *Session
	l      *listener
	client timed.Conn
	in     input
	out    output
	waits  waits
	to     *handover // the client goes on elsewhere
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
	// handoverTime is how long a client that has started TLS, or is another's than the
	// server knows, waits for it to accept the fresh connection.
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
	s := newSession(l.cfg, facts{id: newID()}, "", transaction{}, true)
	s.who = &identity{raw: raw}
	if _, isTLS := raw.(*tls.Conn); l.cfg.ImplicitTLS && !isTLS {
		raw = tls.Server(raw, l.cfg.TLSConfig)
	} else if l.cfg.ImplicitTLS {
		l.cfg.warn(warnTLSTwice)
	}
	return &conn{s: s, l: l, client: timed.NewConn(raw, &s.mu)}
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

// SetReadDeadline implements net.Conn. Time that a hook takes does not count, and
// behind a line that the hook has answered the client's time starts anew.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.waits.closed.Load() {
		return net.ErrClosed
	}
	err := c.client.SetReadDeadline(t)
	if err != nil && c.client.HasTakenDeadline() {
		// It is as good as a Read that has failed. Where no deadline can be set, a
		// server that reads at all doesn't mind.
		c.readFailed(err)
	}
	return err
}

// SetWriteDeadline implements net.Conn. For replies that the server didn't
// write, or that were held back, the time starts anew.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.waits.closed.Load() {
		return net.ErrClosed
	}
	return c.client.SetWriteDeadline(t)
}

// Read implements net.Conn. It returns at most one command, or a piece of
// message content that no server could read beyond its end.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.reading.Lock()
	defer c.in.reading.Unlock()
	returned := false
	defer func() {
		if !returned {
			// The hook has called runtime.Goexit, or a log handler or a
			// callback of the TLS configuration: this goroutine ends.
			c.fail(true)
		}
	}()
	if n, err = c.relay(p); err != nil {
		c.readFailed(err)
		c.s.report()
	}
	returned = true
	return n, err
}

// Write implements net.Conn. It takes what the server replies, in pieces of
// any size, and moves the session when a reply is complete.
func (c *conn) Write(p []byte) (int, error) {
	returned := false
	defer func() {
		if !returned {
			c.fail(false) // as in Read
		}
	}()
	waits, err := c.relayReplies(p)
	n := len(p)
	if err != nil {
		n = 0
	}
	if waits {
		err = c.awaitRest()
	}
	if err != nil {
		c.s.report()
	}
	c.s.cfg.logWarnings()
	returned = true
	return n, err
}

// Close implements net.Conn. It interrupts Read, Write and the hook, which
// sees its Context done. What has been held back is sent, if that takes no
// time to speak of. Where the client goes on elsewhere, only the server is through
// with this connection: the handover goes on.
func (c *conn) Close() error {
	if c.waits.closed.Swap(true) {
		return nil
	}
	c.s.mu.Lock()
	if to := c.to; to != nil {
		c.s.mu.Unlock()
		c.l.queue(to)
		return nil
	}
	postponed := c.s.m.State() == dialogue.Postponed
	c.s.m.Close()
	c.s.moved(false)
	c.wakeRead()
	unreported := c.s.isUnreported()
	c.s.mu.Unlock()
	if unreported {
		go c.s.report() // a log handler may take its time
	}
	if postponed && c.s.looks() {
		go c.closePostponed() // who looks may take their time
		return nil
	}
	if c.out.writing.TryLock() {
		c.out.close(&c.client, postponed)
		c.out.writing.Unlock()
	}
	return c.over()
}

// closePostponed closes the connection behind a greeting after STARTTLS that has waited for the
// client's next command.
func (c *conn) closePostponed() {
	defer c.over()
	c.client.LimitWrite(closeTime)
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	c.sendKeptHere(false, false)
}

// over closes the client's connection, and notes that the server is through with it.
func (c *conn) over() error {
	c.s.mu.Lock()
	c.s.over() // behind the last word, which counts
	c.s.mu.Unlock()
	return c.client.Close()
}

// begin finds out who is connected, shakes hands where TLS comes first, and asks the hook
// about the client, on the goroutine that first uses the connection: all of that may take
// its time. Its caller holds out.writing, so that a Read or a Write beside it waits for it, and
// in.reading too if reads says so.
func (c *conn) begin(reads bool) error {
	if c.client.Begun() {
		return nil
	}
	if c.s.begun && c.hasEnded() {
		return net.ErrClosed // it has failed to begin
	}
	began := time.Now()
	c.s.learn()
	if err := c.beginTLS(began); err != nil {
		return err
	}
	var refusal *answer
	var restarts bool
	if len(c.s.connectHooks()) > 0 {
		refusal, restarts = c.connect()
	}
	c.client.Begin()
	if c.asksUser() {
		c.client.RenewWrite()
	}
	switch {
	case refusal != nil:
		c.sayOwn(refusal, reads)
	case restarts:
		c.goOnAfresh()
	}
	return nil
}

// asksUser tells whether code of the user's is called where a connection begins: its time
// is neither the client's nor the server's.
func (c *conn) asksUser() bool {
	return c.l.cfg.HookFor != nil || len(c.l.cfg.links.connect) > 0 || len(c.l.cfg.Observers) > 0
}

// connect asks the hook about the client, and holds the greeting back as it wants. It returns
// what the client gets in its place, nil if it is let in, and whether the server starts
// afresh. Its caller holds out.writing. It may read from the client, since a Read on another
// goroutine reads only when the connection has begun.
func (c *conn) connect() (refusal *answer, restarts bool) {
	v := c.s.connect(c.s.ctx, c)
	if v.refused {
		refusal = &answer{reply: v.reply, by: v.by}
	}
	if v.delay > 0 {
		c.holdBackHere(v.delay, true)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch {
	case v.restart != nil:
		c.s.restarts(v.restart, false)
	case c.in.ahead.Len() > 0:
		c.s.conn.earlyTalker = true
	}
	return refusal, v.restart != nil
}

// beginTLS shakes hands where TLS comes first. Whatever comes of that, the connection has
// begun behind it, and has its hook.
func (c *conn) beginTLS(began time.Time) (err error) {
	err = net.ErrClosed // of runtime.Goexit in a callback of the TLS configuration
	c.s.begins(began)
	defer func() {
		if c.asksUser() {
			c.client.Pause()
		}
		c.s.choose()
		w := c.s.hasBegun(began)
		if w == nil {
			return
		}
		c.client.Count(&w.traffic)
		if err != nil {
			c.s.mu.Lock()
			defer c.s.mu.Unlock()
			w.because(SideClient, ReasonTLSFailed, err)
		}
	}()
	c.s.connected()
	if tc, ok := c.client.NetConn().(*tls.Conn); ok {
		err = c.handshake(tc)
		c.s.observeTLS(err)
		return err
	}
	return nil
}

// beginReading is begin for Read.
func (c *conn) beginReading() error {
	if c.client.Begun() {
		return nil
	}
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	return c.begin(true)
}

// readFailed notes that a Read has failed.
func (c *conn) readFailed(err error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.client.IsDetached() {
		return // the dialogue is another connection's
	}
	if s := c.s.m.State(); !s.HasEnded() && s != dialogue.GivenUp { // there it isn't the client's doing
		c.s.watched().readFailed(err, c.s.m.InMessage())
	}
	c.s.m.ReadFailed()
	c.stirWrite()
}

// hasEnded tells whether the dialogue is.
func (c *conn) hasEnded() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.m.State().HasEnded()
}

// hangUp ends the connection with a reply.
func (c *conn) hangUp(why dialogue.Reason) {
	c.s.mu.Lock()
	r := c.s.m.HangUp(why)
	c.s.moved(false)
	c.s.mu.Unlock()
	c.respond(refusalOf(r))
}

// fail ends the connection where it isn't known how far it has come. Its caller holds
// in.reading if reads says so.
func (c *conn) fail(reads bool) {
	c.s.mu.Lock()
	c.s.m.Close()
	c.s.moved(false)
	c.wakeRead()
	_, isTLS := c.client.NetConn().(*tls.Conn)
	tells := !c.client.IsDetached() && (!isTLS || c.s.m.InTLS()) // never amid a handshake
	c.s.mu.Unlock()
	defer c.client.Close() // what looks at replies may call runtime.Goexit once more
	if tells {
		c.out.writing.Lock()
		defer c.out.writing.Unlock()
		c.client.RenewWrite()
		c.sayOwn(&answer{reply: failureReply, by: ByFailure}, reads)
	}
}

// finish ends the connection after its last reply, and returns the error that the
// server gets. io.EOF would tell some servers that a message is complete.
func (c *conn) finish() error {
	c.s.mu.Lock()
	closes, inMessage := c.s.m.Finish()
	c.s.mu.Unlock()
	c.flush()
	if closes {
		c.linger(lingerTime, maxLinger)
	}
	if inMessage {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

// linger closes the client's connection, but reads on for a while first.
func (c *conn) linger(d time.Duration, limit int64) {
	defer c.client.Close()
	c.in.ahead.Release()
	// The last reply may be on its way, on another goroutine.
	c.client.LimitWrite(closeTime)
	c.out.writing.Lock()
	c.sendHeld()
	c.out.writing.Unlock()
	c.client.Linger(d, limit)
}
