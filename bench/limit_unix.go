//go:build unix

package main

import (
	"math"
	"syscall"
)

// openFiles returns how many files a process may have open. The runtime has
// raised the soft limit to the hard one already.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, math.MaxInt32))
}
