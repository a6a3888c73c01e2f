//go:build unix

package peek

import "golang.org/x/sys/unix"

// pending looks without taking, and without waiting: Go's sockets don't block.
func pending(fd int) bool {
	n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK)
	return n > 0 && err == nil
}
