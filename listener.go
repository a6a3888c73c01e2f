package smtpproxy

import (
	"errors"
	"net"
	"sync"
)

// Listener returns a listener whose connections show each command to the hook
// before the server reads it. The server serves it in the place of l:
//
//	err := server.Serve(p.Listener(l))
//
// All happens inside the server's own Read and Write calls: there is no
// goroutine for a connection, and Accept asks the connection nothing, not even
// for its addresses. Errors of l.Accept are returned as they are; a p that can't
// work is an error of each Accept (see Validate). The addresses of a connection
// are those of l's, and so are their concrete types.
//
// With Proxy.TLSConfig, a client that has started TLS reaches the server as a
// fresh connection, which Accept returns ahead of new clients once the server
// has closed the old one. Its greeting is not sent to the client, which has
// had one. So does a client that a hook has found to be another's (see
// Reply.Restart), with the addresses told, as *net.TCPAddr; there the greeting is sent.
func (p *Proxy) Listener(l net.Listener) net.Listener {
	cfg := p.config()
	if _, ours := l.(*listener); ours && cfg.invalid == nil {
		cfg.invalid = errors.New("smtpproxy: a listener of a Proxy is wrapped again")
	}
	return &listener{
		Listener: l,
		cfg:      cfg,
		accepted: make(chan acceptance, 1),
		changed:  make(chan struct{}, 1),
	}
}

type listener struct {
	net.Listener
	cfg *config

	mu        sync.Mutex
	closed    bool
	fresh     []*handover     // wait to be accepted
	accepting bool            // a call of Listener.Accept is under way, or in accepted
	accepted  chan acceptance // what it returned
	changed   chan struct{}   // wakes a call of Accept to look again
}

type acceptance struct {
	raw net.Conn
	err error
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	if l.cfg.invalid != nil {
		return nil, l.cfg.invalid
	}
	for {
		l.mu.Lock()
		if h := l.takeFresh(); h != nil {
			l.mu.Unlock()
			return h.accepted(), nil
		}
		if !l.accepting {
			l.accepting = true
			go l.acceptOne()
		}
		l.mu.Unlock()
		select {
		case <-l.changed:
		case a := <-l.accepted:
			l.mu.Lock()
			l.accepting = false
			l.mu.Unlock()
			l.wake() // another call may have to go on with accepting
			if a.err != nil {
				return nil, a.err
			}
			return newConn(a.raw, l), nil
		}
	}
}

// acceptOne accepts one connection for whichever call of Accept comes to it,
// so that none has to wait for a new client while a fresh connection is there.
func (l *listener) acceptOne() {
	raw, err := l.Listener.Accept()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.closed {
		raw.Close()
		raw, err = nil, net.ErrClosed
	}
	l.accepted <- acceptance{raw, err}
}

func (l *listener) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// queue lets Accept return the fresh connection, or turns its client away.
func (l *listener) queue(h *handover) {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.fresh = append(l.fresh, h)
	}
	l.mu.Unlock()
	l.wake()
	if closed {
		h.abandon()
	}
}

// takeFresh returns the oldest fresh connection, nil if there is none. Its
// caller holds l.mu.
func (l *listener) takeFresh() *handover {
	for len(l.fresh) > 0 {
		h := l.fresh[0]
		l.fresh = l.fresh[1:]
		if h.claim() {
			return h
		}
	}
	return nil
}

func (l *listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close implements net.Listener. Clients between two connections are turned
// away with a 421 reply.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	l.closed = true
	fresh := l.fresh
	l.fresh = nil
	select {
	case a := <-l.accepted:
		if a.raw != nil {
			a.raw.Close()
			a = acceptance{err: net.ErrClosed}
		}
		l.accepted <- a
	default:
	}
	l.mu.Unlock()
	l.wake()
	for _, h := range fresh {
		h.abandon()
	}
	return err
}

// SessionOf returns the session of a connection that a server got from
// Proxy.Listener. All connections that the server gets of a client have the same one, so one
// that is about to be closed, after STARTTLS or a Restart, tells of the client as it is now. It looks into wrappers that have a method NetConn() net.Conn,
// as *tls.Conn has.
func SessionOf(c net.Conn) (*Session, bool) {
	if c, ok := unwrap(c); ok {
		return c.s, true
	}
	return nil, false
}

func unwrap(c net.Conn) (*conn, bool) {
	for c != nil {
		switch c := c.(type) {
		case *conn:
			return c, true
		case *addressedConn:
			return c.conn, true
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = w.NetConn()
	}
	return nil, false
}
