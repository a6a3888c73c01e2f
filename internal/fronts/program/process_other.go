//go:build !linux

package program

import (
	"os"
	"syscall"
)

// Nothing is started here: see Need.

func ownGroup() *syscall.SysProcAttr { return nil }

func terminate(p *os.Process) { p.Kill() }

func killGroup(*os.Process) {}
