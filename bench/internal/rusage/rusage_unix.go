//go:build unix

// Package rusage tells what a process uses of its machine, and may use.
package rusage

import (
	"math"
	"syscall"
	"time"
)

// OpenFiles returns how many files a process may have open. The runtime has
// raised the soft limit to the hard one already.
func OpenFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, math.MaxInt32))
}

// CPUTime returns the time that this process has computed so far, in its own code
// and in the kernel.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
