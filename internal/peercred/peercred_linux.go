package peercred

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// uid asks for SO_PEERCRED (unix(7)). It does so in Control: File would
// duplicate the descriptor, and set it to blocking mode when its Fd is called.
func uid(c syscall.Conn) (id uint32, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		// The option exists for sockets of every family, and has no error to
		// tell that it has no answer: the user is -1 then, which nobody is.
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || domain != unix.AF_UNIX {
			return
		}
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || cred.Uid == ^uint32(0) {
			return
		}
		id, ok = cred.Uid, true
	})
	return id, ok && err == nil
}
