package proxytest

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// stage is a connection as the server on trial has it: the trial stands where the
// library would stand. It sees each Read and Write, and so knows when the server
// waits for more, without a clock.
type stage struct {
	timeout, grace time.Duration

	mu      sync.Mutex
	changed *sync.Cond
	moves   int // counts what the server does

	in      []byte // what the server will be handed
	inLines bool   // a line at a time, as the library hands content over
	stops   bool   // a whole reply sets aside what it hasn't been handed yet
	aside   []byte
	inErr   error // what a Read returns when there's nothing in in
	once    bool  // but once
	reading int   // Reads that wait for more

	out     []byte // what the server has written, and nobody has taken yet
	parser  wire.Reply
	codes   []int // of the whole replies in out
	replies int   // ends of them, in octets of out
	writes  []string
	broken  bool // it has written what is no reply

	due, hold bool // a reply is due; a Write waits for a Read that comes too early
	ahead     bool // such a Read has come

	closed        bool
	failures      int // Reads that have failed
	timeouts      int // those whose deadline has passed
	readDeadline  time.Time
	wake          *time.Timer // when it passes
	deadlineIsSet bool        // it was, once at least
}

func newStage(timeout, grace time.Duration) *stage {
	s := &stage{timeout: timeout, grace: grace}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// move wakes who waits. s.mu is held.
func (s *stage) move() {
	s.moves++
	s.changed.Broadcast()
}

// Read implements net.Conn.
func (s *stage) Read(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	defer func() {
		if err == nil {
			return
		}
		if s.failures++; s.failures > 100 {
			s.mu.Unlock()
			time.Sleep(10 * time.Millisecond) // it asks again and again
			s.mu.Lock()
		}
	}()
	s.reading++
	defer func() { s.reading--; s.move() }()
	s.move()
	for {
		switch {
		case s.closed:
			return 0, net.ErrClosed
		case !s.readDeadline.IsZero() && !time.Now().Before(s.readDeadline):
			s.timeouts++
			return 0, os.ErrDeadlineExceeded
		case len(s.in) > 0:
			n := copy(p, s.in[:s.piece()])
			s.in = s.in[n:]
			return n, nil
		case s.inErr != nil:
			err := s.inErr
			if s.once {
				s.inErr, s.once = nil, false
			}
			return 0, err
		}
		s.ahead = s.ahead || s.due
		s.changed.Wait()
	}
}

// piece returns how much of in a Read is handed at most.
func (s *stage) piece() int {
	if !s.inLines {
		return len(s.in)
	}
	i := bytes.IndexAny(s.in, "\r\n")
	switch {
	case i < 0:
		return len(s.in)
	case s.in[i] == '\r' && i+1 < len(s.in) && s.in[i+1] == '\n':
		return i + 2
	}
	return i + 1
}

// Write implements net.Conn.
func (s *stage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold {
		s.waitLocked(s.grace, func() bool { return s.ahead || s.closed })
	}
	if s.closed {
		return 0, net.ErrClosed
	}
	s.out = append(s.out, p...)
	s.writes = append(s.writes, string(p))
	for !s.broken {
		n, code, err := s.parser.Next(s.out[s.replies:])
		if err != nil {
			s.broken = true
		}
		if n == 0 {
			break
		}
		s.replies += n
		s.codes = append(s.codes, code)
		s.due, s.hold = false, false
		if s.stops {
			s.aside, s.in = s.in, nil
		}
	}
	s.move()
	return len(p), nil
}

// Close implements net.Conn.
func (s *stage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if s.wake != nil {
		s.wake.Stop()
	}
	s.move()
	return nil
}

// trialPort is the port of the client; no two connections need different ones.
const trialPort = 49152

// LocalAddr implements net.Conn.
func (*stage) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

// RemoteAddr implements net.Conn.
func (*stage) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: trialPort}
}

// SetDeadline implements net.Conn.
func (s *stage) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. No Write waits.
func (s *stage) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (s *stage) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.readDeadline = t
	if s.wake != nil {
		s.wake.Stop()
	}
	if !t.IsZero() {
		s.deadlineIsSet = true
		s.wake = time.AfterFunc(time.Until(t), func() { s.set(func(*stage) { s.changed.Broadcast() }) })
	}
	s.changed.Broadcast()
	return nil
}

// maxMoves is how often a wait begins anew because the server has done something.
const maxMoves = 5

// waitLocked waits until a condition holds, for d, and a few times longer if the server
// does something meanwhile. It tells whether it holds. s.mu is held.
func (s *stage) waitLocked(d time.Duration, is func() bool) bool {
	moves, late, times := s.moves, false, 0
	timer := time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.changed.Broadcast()
	})
	defer timer.Stop()
	for !is() {
		if late {
			if times++; moves == s.moves || times > maxMoves {
				return is()
			}
			moves, late = s.moves, false
			timer.Reset(d)
		}
		s.changed.Wait()
	}
	return true
}

// doing is what the server does when it has done what it had to.
type doing int

const (
	waits  doing = iota // for more, in a Read
	closed              // the connection
	stuck               // nothing that can be seen
)

// answer is what the server has written since it was last asked.
type answer struct {
	text   string
	codes  []int // of whole replies
	rest   string
	broken bool // what it has written is no reply
	doing
	writes []string
	aside  string // what it has not been handed, with stops
}

// settle waits until the server waits for more, and returns what it has written. Where
// so many replies are to come and haven't, it waits for a while longer, since the server
// may read before it writes; with readsAhead, also for what isn't to come. -1 are all
// that come.
func (s *stage) settle(replies int, readsAhead bool) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := func() bool { return s.reading > 0 && len(s.in) == 0 && s.inErr == nil }
	a := answer{doing: waits}
	for {
		if !s.waitLocked(s.timeout, func() bool { return s.closed || idle() }) {
			a.doing = stuck
		}
		came := len(s.codes) >= max(replies, 1) && s.replies == len(s.out)
		if s.closed || a.doing == stuck || came && (replies > 0 || !readsAhead) || replies == 0 && !readsAhead {
			break
		}
		moves, grace := s.moves, s.grace
		if replies > 0 {
			grace *= 4
		}
		if !s.waitLocked(grace, func() bool { return s.closed || s.moves != moves }) {
			break
		}
	}
	if s.closed {
		a.doing = closed
	}
	a.text, a.codes, a.rest, a.broken, a.writes = string(s.out), s.codes, string(s.out[s.replies:]), s.broken, s.writes
	a.aside = string(s.aside)
	s.out, s.codes, s.replies, s.parser, s.writes, s.aside = nil, nil, 0, wire.Reply{}, nil, nil
	return a
}

// give puts octets where the server gets them from.
func (s *stage) give(octets string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in, s.due = append(s.in, octets...), true
	s.changed.Broadcast()
}

// fail makes Reads fail when all is handed over.
func (s *stage) fail(err error, once bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inErr, s.once = err, once
	s.changed.Broadcast()
}

// set changes how it behaves.
func (s *stage) set(f func(s *stage)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// end tells the server that the client is gone, and whether it closes then.
func (s *stage) end() bool {
	s.fail(io.EOF, false)
	return s.isClosed(s.timeout)
}

// isClosed waits for the server to close.
func (s *stage) isClosed(d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waitLocked(d, func() bool { return s.closed })
}

// awaitReply waits until the server has replied, or closed.
func (s *stage) awaitReply() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitLocked(s.timeout, func() bool { return s.closed || len(s.codes) > 0 || s.broken })
}

// stages is the listener that the server on trial gets.
type stages struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newStages() *stages {
	return &stages{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *stages) Accept() (net.Conn, error) {
	if l.isClosed() { // counts more
		return nil, net.ErrClosed
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *stages) Close() error {
	err := net.ErrClosed
	l.once.Do(func() { close(l.done); err = nil })
	return err
}

// isClosed tells whether Close has been called.
func (l *stages) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Addr implements net.Listener.
func (*stages) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

// connect has the server accept a connection, and tells whether it does in time.
func (l *stages) connect(c net.Conn, timeout time.Duration) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.done:
	case <-time.After(timeout):
	}
	return false
}
