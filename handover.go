package smtpproxy

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/timed"
)

// handover is a client between two connections that the server has of it. After
// STARTTLS, and where a hook has found the client to be another's, the server gets a fresh
// connection, so that nothing that it knew is left (RFC 3207 section 4.2), whatever server
// it is. This is how one goes:
//
//   - The Read of the old connection begins it, or the first Write: from then on what the
//     server writes there is dropped, and its deadlines have no effect. After STARTTLS the
//     client shakes hands.
//   - The old connection tells the server of its end, and is closed by it. That closes
//     nothing, but puts the handover into the listener's queue.
//   - Accept takes it out and returns the fresh connection, which has the same Session.
//     The server greets there. After STARTTLS the client doesn't get that greeting, as it
//     has had one; else it is the reply that it waits for.
//   - If that takes too long, or the listener is closed, the client is turned away.
type handover struct {
	fresh   *conn
	timer   *time.Timer // turns the client away
	claimed atomic.Bool // accepted by the server, or turned away
}

// addressedConn is a conn that has other addresses for the server than the client's
// connection has; nil are the same.
type addressedConn struct {
	*conn
	remote, local net.Addr
}

// RemoteAddr implements net.Conn.
func (c *addressedConn) RemoteAddr() net.Addr {
	if c.remote == nil {
		return c.conn.RemoteAddr()
	}
	return c.remote
}

// LocalAddr implements net.Conn.
func (c *addressedConn) LocalAddr() net.Addr {
	if c.local == nil {
		return c.conn.LocalAddr()
	}
	return c.local
}

// accepted returns the fresh connection as the server gets it.
func (h *handover) accepted() net.Conn {
	c := h.fresh
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	t := c.s.toldOf()
	if t == nil || !t.remote.IsValid() && !t.local.IsValid() {
		return c
	}
	return &addressedConn{c, addrOf(t.remote), addrOf(t.local)}
}

// startTLS answers STARTTLS, shakes hands, and begins the handover.
func (c *conn) startTLS() {
	if c.l.isClosed() {
		c.s.mu.Lock()
		r := c.s.m.TLSRefused()
		c.s.mu.Unlock()
		c.respond(refusalOf(r))
		return
	}
	// Nothing of the server's gets to the client any more, no deadline and
	// no reply.
	c.out.writing.Lock()
	c.client.RenewWrite()
	c.client.Detach()
	c.sayOwn(refusalOf(dialogue.ReadyForTLS), false)
	c.out.writing.Unlock()
	if c.hasEnded() {
		c.client.Close() // a hook has made it the last word
		return
	}

	tc := tls.Server(c.client.Release(), c.s.cfg.afterSTARTTLS)
	t, err := c.s.shakeHands(tc)
	if err != nil {
		c.s.observeTLS(err)
		// Nothing is sent in plaintext after the 220.
		c.s.mu.Lock()
		c.s.watched().because(SideClient, ReasonTLSFailed, err)
		c.s.mu.Unlock()
		c.s.shut()
		c.client.Close()
		return
	}
	if !c.startedTLS(t) {
		return
	}
	c.s.observeTLS(nil) // whose time isn't the server's
	fresh := &conn{s: c.s, l: c.l, client: timed.NewConn(tc, &c.s.mu)}
	fresh.client.Begin()
	fresh.client.Count(c.client.Traffic())
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.goOnIn(fresh)
}

// startedTLS follows a handshake. It returns false if the connection was closed meanwhile.
func (c *conn) startedTLS(t TLS) bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.waits.closed.Load() {
		return false // Close has closed the client's connection
	}
	c.s.startedTLS(t)
	c.s.watched().startedTLS()
	return true
}

// restart lets the server start afresh, for another client than it knows. Its caller holds
// in.reading.
func (c *conn) restart() {
	if c.l.isClosed() {
		c.hangUp(dialogue.NotAccepted)
		return
	}
	c.out.writing.Lock()
	defer c.out.writing.Unlock()
	c.sendHeld() // replies to commands before
	c.goOnAfresh()
}

// goOnAfresh begins the handover of a client that goes on as it is, with what it has sent.
// Its caller holds out.writing, and in.reading, unless nobody can read yet.
func (c *conn) goOnAfresh() {
	if c.hasEnded() {
		return
	}
	c.client.Detach()
	fresh := &conn{s: c.s, l: c.l, client: timed.NewConn(c.client.Release(), &c.s.mu)}
	fresh.client.Begin()
	fresh.client.Count(c.client.Traffic())
	fresh.in.ahead, fresh.in.err = c.in.ahead.Move(), c.in.err
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.m.Restarted()
	c.s.talked().restarted()
	c.goOnIn(fresh)
}

// goOnIn begins the handover, if the connection wasn't closed meanwhile. Its caller holds s.mu.
func (c *conn) goOnIn(fresh *conn) {
	if c.waits.closed.Load() {
		return
	}
	c.to = &handover{fresh: fresh}
	c.to.timer = time.AfterFunc(handoverTime, c.to.abandon)
}

// claim decides, once, who goes on with the fresh connection: a call of Accept,
// or abandon.
func (h *handover) claim() bool {
	if h.claimed.Swap(true) {
		return false
	}
	h.fresh.s.mu.Lock()
	defer h.fresh.s.mu.Unlock()
	h.timer.Stop()
	return true
}

// abandon turns away a client whose fresh connection nobody has accepted. It
// doesn't wait for it.
func (h *handover) abandon() {
	if !h.claim() {
		return
	}
	c := h.fresh
	go func() {
		c.s.mu.Lock()
		c.s.watched().because(SideServer, ReasonServerClosed, nil)
		c.s.mu.Unlock()
		c.s.logEnd(dialogue.NotAccepted)
		c.client.LimitWrite(closeTime)
		c.respond(refusalOf(dialogue.NotAccepted.Refusal()))
		c.s.mu.Lock()
		c.s.m.Close()
		c.s.moved(false)
		c.s.over()
		c.s.mu.Unlock()
		c.linger(lingerTime, maxLinger) // it may have sent on while nobody read
	}()
}
