package e2e

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// This file has a connection in memory with all that a socket has: deadlines, a side
// that is closed alone, a reset, and room for so much and no more on the way to the
// server. It works in a bubble of testing/synctest.

// cableRoom is how much of what the client sends is on its way at most.
const cableRoom = 64 << 10

// overCable makes connections of that kind.
func overCable() transport {
	return newTransport(true, func() (server, client net.Conn, err error) {
		s, c := connectByCable()
		return s, c, nil
	})
}

// connectByCable returns both ends of such a connection.
func connectByCable() (server, client *cableEnd) {
	up, down := newCableLine(cableRoom), newCableLine(1<<30)
	return &cableEnd{in: up, out: down}, &cableEnd{in: down, out: up}
}

// cableLine is one direction.
type cableLine struct {
	mu      sync.Mutex
	changed sync.Cond
	octets  []byte
	room    int
	ended   bool  // nothing more is written
	closed  bool  // nobody reads any more
	broken  error // of each call

	reader, writer cableDeadline
	failed         int // reads that had an error
	deadlines      int // that were set
}

// tooOften is how often nobody has a reason to call a method of a connection: time
// doesn't pass in a bubble while somebody does so for ever.
const tooOften = 10_000

func newCableLine(room int) *cableLine {
	l := &cableLine{room: room}
	l.changed.L = &l.mu
	return l
}

func (l *cableLine) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.changed.Broadcast()
}

// cableDeadline is that of one side of a line.
type cableDeadline struct {
	passed bool
	timer  *time.Timer
}

func (l *cableLine) setDeadline(d *cableDeadline, t time.Time) error {
	l.set(func() {
		if l.deadlines++; l.deadlines > tooOften {
			panic("a connection gets deadlines, again and again")
		}
		if d.timer != nil {
			d.timer.Stop()
		}
		after := time.Until(t)
		d.passed = !t.IsZero() && after <= 0
		if d.passed || t.IsZero() {
			return
		}
		var timer *time.Timer
		timer = time.AfterFunc(after, func() { l.set(func() { d.passed = d.passed || d.timer == timer }) })
		d.timer = timer
	})
	return nil
}

// cableEnd is one end.
type cableEnd struct {
	in, out *cableLine

	mu       sync.Mutex
	closedAt time.Time
	isClosed bool
	noWrite  bool // each Write fails, as when there is no route any more
}

// closed tells whether it is, and when.
func (c *cableEnd) closed() (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closedAt, c.isClosed
}

func (c *cableEnd) Read(p []byte) (n int, err error) {
	if _, ok := c.closed(); ok {
		return 0, net.ErrClosed
	}
	l := c.in
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.closed:
			err = net.ErrClosed
		case l.reader.passed:
			err = os.ErrDeadlineExceeded
		case len(l.octets) > 0 && l.broken == nil:
			n = copy(p, l.octets)
			l.octets = l.octets[n:]
			l.changed.Broadcast()
			return n, nil
		case l.broken != nil:
			err = l.broken
		case l.ended:
			err = io.EOF
		default:
			l.changed.Wait()
			continue
		}
		if l.failed++; l.failed > tooOften {
			panic("a connection is read from that has nothing more to give, again and again")
		}
		return 0, err
	}
}

func (c *cableEnd) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	noWrite := c.noWrite
	c.mu.Unlock()
	if _, ok := c.closed(); ok {
		return 0, net.ErrClosed
	}
	if noWrite {
		return 0, syscall.EHOSTUNREACH
	}
	l := c.out
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.broken != nil:
			return n, l.broken
		case l.ended, l.closed:
			return n, syscall.EPIPE
		case l.writer.passed:
			return n, os.ErrDeadlineExceeded
		case len(p) == 0:
			return n, nil
		}
		room := min(len(p), l.room-len(l.octets))
		if room <= 0 {
			l.changed.Wait()
			continue
		}
		l.octets = append(l.octets, p[:room]...)
		p, n = p[room:], n+room
		l.changed.Broadcast()
	}
}

// CloseWrite ends what this end writes.
func (c *cableEnd) CloseWrite() error {
	if _, ok := c.closed(); ok {
		return net.ErrClosed
	}
	c.out.set(func() { c.out.ended = true })
	return nil
}

func (c *cableEnd) Close() error {
	c.mu.Lock()
	before := c.isClosed
	if !before {
		c.isClosed, c.closedAt = true, time.Now()
	}
	c.mu.Unlock()
	if before {
		return net.ErrClosed
	}
	c.out.set(func() { c.out.ended = true })
	c.in.set(func() { c.in.closed, c.in.octets = true, nil })
	return nil
}

// reset closes this end so that the other loses what is on its way.
func (c *cableEnd) reset() {
	c.out.set(func() { c.out.broken = syscall.ECONNRESET })
	c.in.set(func() { c.in.broken = syscall.ECONNRESET })
	c.Close()
}

// cutWrites lets each Write of this end fail from now on.
func (c *cableEnd) cutWrites() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noWrite = true
}

func (c *cableEnd) SetReadDeadline(t time.Time) error {
	if _, ok := c.closed(); ok {
		return net.ErrClosed
	}
	return c.in.setDeadline(&c.in.reader, t)
}

func (c *cableEnd) SetWriteDeadline(t time.Time) error {
	if _, ok := c.closed(); ok {
		return net.ErrClosed
	}
	return c.out.setDeadline(&c.out.writer, t)
}

func (c *cableEnd) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *cableEnd) LocalAddr() net.Addr  { return chanAddr{} }
func (c *cableEnd) RemoteAddr() net.Addr { return chanAddr{} }
