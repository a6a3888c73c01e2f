package hosts

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// inMemory returns the two ends of a connection that works like TCP's: a write
// doesn't wait for a read, one side can be closed alone, deadlines count. Unlike a
// socket it may be used within a bubble of testing/synctest, where the clock runs
// when all wait.
func inMemory() (server, client net.Conn, err error) {
	up, down := newFlow(), newFlow()
	return &memoryConn{in: up, out: down, port: 25}, &memoryConn{in: down, out: up, port: 50000}, nil
}

// flow is what one end has written and the other hasn't read.
type flow struct {
	mu       sync.Mutex
	octets   []byte
	ended    bool          // nothing is added any more
	gone     bool          // nobody reads any more
	deadline time.Time     // of reads
	changed  chan struct{} // closed by each change
}

func newFlow() *flow { return &flow{changed: make(chan struct{})} }

// change does f and wakes whoever waits.
func (f *flow) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// wait is what a reader waits for.
type wait struct {
	changed  chan struct{}
	deadline time.Time
}

// take reads into p, or tells what to wait for.
func (f *flow) take(p []byte) (n int, w *wait, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.gone:
		return 0, nil, net.ErrClosed
	case !f.deadline.IsZero() && !time.Now().Before(f.deadline):
		return 0, nil, os.ErrDeadlineExceeded
	case len(f.octets) > 0:
		n = copy(p, f.octets)
		f.octets = f.octets[n:]
		return n, nil, nil
	case f.ended:
		return 0, nil, io.EOF
	case len(p) == 0:
		return 0, nil, nil
	}
	return 0, &wait{f.changed, f.deadline}, nil
}

// memoryConn is one end.
type memoryConn struct {
	in, out *flow
	port    int
}

// Read implements net.Conn.
func (c *memoryConn) Read(p []byte) (int, error) {
	for {
		n, w, err := c.in.take(p)
		if w == nil {
			return n, err
		}
		if w.deadline.IsZero() {
			<-w.changed
			continue
		}
		t := time.NewTimer(time.Until(w.deadline))
		select {
		case <-w.changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// Write implements net.Conn.
func (c *memoryConn) Write(p []byte) (n int, err error) {
	c.out.change(func() {
		switch {
		case c.out.ended:
			err = net.ErrClosed
		case c.out.gone:
			err = io.ErrClosedPipe
		default:
			c.out.octets = append(c.out.octets, p...)
			n = len(p)
		}
	})
	return n, err
}

// CloseWrite ends what the other end reads.
func (c *memoryConn) CloseWrite() error {
	c.out.change(func() { c.out.ended = true })
	return nil
}

// Close implements net.Conn.
func (c *memoryConn) Close() error {
	c.in.change(func() { c.in.gone, c.in.octets = true, nil })
	return c.CloseWrite()
}

// SetReadDeadline implements net.Conn.
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.change(func() { c.in.deadline = t })
	return nil
}

// SetWriteDeadline implements net.Conn. No write takes time.
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.Conn.
func (c *memoryConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// LocalAddr implements net.Conn.
func (c *memoryConn) LocalAddr() net.Addr { return loopback(c.port) }

// RemoteAddr implements net.Conn.
func (c *memoryConn) RemoteAddr() net.Addr { return loopback(50025 - c.port) }

func loopback(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
