package e2e

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// connectInMemory returns both ends of a connection that holds all that is
// written until it is read. A Read returns what one Write wrote, or a part of
// it.
func connectInMemory() (server, client net.Conn, err error) {
	up, down := newMemoryQueue(), newMemoryQueue()
	return &memoryConn{in: up, out: down}, &memoryConn{in: down, out: up}, nil
}

// memoryQueue is one direction of the connection.
type memoryQueue struct {
	mu      sync.Mutex
	changed sync.Cond
	pieces  [][]byte
	closed  bool
	expired bool          // the reader's deadline is past
	end     chan struct{} // closed when closed is set
}

func newMemoryQueue() *memoryQueue {
	q := &memoryQueue{end: make(chan struct{})}
	q.changed.L = &q.mu
	return q
}

func (q *memoryQueue) set(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
	q.changed.Broadcast()
}

type memoryConn struct{ in, out *memoryQueue }

func (c *memoryConn) Read(p []byte) (int, error) {
	q := c.in
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pieces) == 0 && !q.closed && !q.expired {
		q.changed.Wait()
	}
	switch {
	case q.expired:
		return 0, os.ErrDeadlineExceeded
	case len(q.pieces) == 0:
		return 0, io.EOF
	}
	n := copy(p, q.pieces[0])
	if q.pieces[0] = q.pieces[0][n:]; len(q.pieces[0]) == 0 {
		q.pieces = q.pieces[1:]
	}
	return n, nil
}

func (c *memoryConn) Write(p []byte) (n int, err error) {
	c.out.set(func() {
		if c.out.closed {
			err = net.ErrClosed
		} else if len(p) > 0 {
			c.out.pieces = append(c.out.pieces, bytes.Clone(p))
			n = len(p)
		}
	})
	return n, err
}

func (q *memoryQueue) close() {
	q.set(func() {
		if !q.closed {
			close(q.end)
		}
		q.closed = true
	})
}

func (c *memoryConn) CloseWrite() error {
	c.out.close()
	return nil
}

func (c *memoryConn) Close() error {
	c.in.close()
	c.out.close()
	return nil
}

// SetReadDeadline knows deadlines that are past. Others are never reached.
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.set(func() { c.in.expired = !t.IsZero() && time.Until(t) <= 0 })
	return nil
}

func (c *memoryConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return chanAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return chanAddr{} }
