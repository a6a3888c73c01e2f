package smtpproxy

import "net"

// Listener returns a listener whose connections show each command to the hook
// before the server reads it. The server serves it in the place of l:
//
//	err := server.Serve(p.Listener(l))
//
// All happens inside the server's own Read and Write calls: there is no
// goroutine for a connection, and Accept does nothing that could block. Errors
// of l.Accept are returned as they are. The addresses of a connection are
// those of l's, and so are their concrete types.
func (p *Proxy) Listener(l net.Listener) net.Listener {
	return &listener{Listener: l, cfg: p.config()}
}

type listener struct {
	net.Listener
	cfg *config
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(raw, l.cfg), nil
}

// SessionOf returns the session of a connection that a server got from
// Proxy.Listener. It looks into wrappers that have a method NetConn() net.Conn,
// as *tls.Conn has.
func SessionOf(c net.Conn) (*Session, bool) {
	for c != nil {
		if c, ok := c.(*conn); ok {
			return c.s, true
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = w.NetConn()
	}
	return nil, false
}
