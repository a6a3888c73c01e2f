// Package peercred tells which user is at the other end of a unix socket.
package peercred

import (
	"net"
	"syscall"
)

// maxWrappers bounds the search for the socket: a wrapper that returns itself
// must not hang the server.
const maxWrappers = 16

// UID returns the user who connected the other end of a unix socket, as known
// to the kernel at that moment: whoever holds the connection since may be
// another. It looks into wrappers that have a method NetConn() net.Conn, as
// *tls.Conn has. ok is false if c isn't a unix socket, is closed, or the system
// isn't Linux.
//
// A user who has no number in the server's user namespace is the overflow user
// of user_namespaces(7), 65534 as a rule.
func UID(c net.Conn) (id uint32, ok bool) {
	for range maxWrappers {
		if _, isTCP := c.(*net.TCPConn); isTCP {
			break // most are: not worth a system call
		}
		if sc, isSocket := c.(syscall.Conn); isSocket {
			if id, ok = uid(sc); ok {
				return id, true
			}
		}
		w, isWrapper := c.(interface{ NetConn() net.Conn })
		if !isWrapper {
			break
		}
		c = w.NetConn()
	}
	return 0, false
}
