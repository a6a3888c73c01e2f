// Package peek tells whether a socket has something to read.
package peek

import (
	"net"
	"syscall"
)

// Pending tells whether octets have arrived at c that nobody has read yet. It
// neither waits nor reads. It is false if c is no socket, and on systems that
// aren't unix.
func Pending(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	// Not raw.Read, which gives up at a deadline that has passed.
	err = raw.Control(func(fd uintptr) { found = pending(int(fd)) })
	return found && err == nil
}
