//go:build unix

package peek

import "golang.org/x/sys/unix"

// pending looks without taking, and without waiting: Go's sockets don't block. As
// a rule there's nothing, which poll tells without allocating anything.
func pending(fd int) bool {
	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if ready == 0 && err == nil {
		return false
	}
	n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK)
	return n > 0 && err == nil
}
