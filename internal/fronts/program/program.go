// Package program starts other people's programs for tests, and ends them.
package program

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for a program to do something.
const Patience = 30 * time.Second

var required = flag.String("fronts", "", `"required" makes a missing program a failure; by default its tests are skipped`)

// missing has a line for each program that tests were skipped for.
var missing struct {
	sync.Mutex
	why []string
}

// Main runs the tests of a package, tells in one line why some were skipped, and returns
// the exit status.
func Main(m *testing.M) int {
	flag.Parse()
	if *required != "" && *required != "required" {
		fmt.Fprintln(os.Stderr, "-fronts takes nothing but required")
		return 2
	}
	code := m.Run()
	if len(missing.why) > 0 {
		fmt.Println("left out, which internal/compat/fronts.sh doesn't:", strings.Join(missing.why, "; "))
	}
	return code
}

// LeaveOut skips a test, or fails it if what it lacks is required.
func LeaveOut(t testing.TB, why string) {
	t.Helper()
	if *required == "required" {
		t.Fatal(why)
	}
	missing.Lock()
	defer missing.Unlock()
	if !slices.Contains(missing.why, why) {
		missing.why = append(missing.why, why)
	}
	t.Skip(why)
}

// Need returns the path of a program, or skips the test.
func Need(t testing.TB, name string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		LeaveOut(t, name+" is started on Linux only") // where all of 127.0.0.0/8 is loopback
	}
	// Servers are where not everybody looks.
	for _, dir := range []string{"", "/usr/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	LeaveOut(t, name+" is not installed")
	return ""
}

// NeedFile skips the test if a file isn't there, of a program's module, say.
func NeedFile(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		LeaveOut(t, path+" is not installed")
	}
}

// NeedRoot skips a test of a program that starts as root alone.
func NeedRoot(t testing.TB, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		LeaveOut(t, name+" starts as root only")
	}
}

// Dir returns a directory that every user may go into, with a short name for sockets.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fronts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Write writes a file.
func Write(t testing.TB, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// Port returns a port that is free on 127.0.0.1 and ::1, and isn't one that the system
// gives to clients. It skips the test if there is no IPv6.
func Port(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		LeaveOut(t, "there is no ::1")
	}
	l.Close()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		free := true
		for _, host := range []string{"127.0.0.1", "::1"} {
			l, err := net.Listen("tcp", net.JoinHostPort(host, port))
			if err != nil {
				free = false
				continue
			}
			l.Close()
		}
		if free {
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// Process is a program that runs.
type Process struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	done   chan struct{}
	err    error
}

// Start starts a program, which is ended with the test. It fails the test if it doesn't
// listen at all of the addresses soon.
func Start(t testing.TB, addrs []string, path string, args ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = ownGroup()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { p.end(t) })
	for _, addr := range addrs {
		p.await(t, addr)
	}
	return p
}

// await waits until something listens at an address.
func (p *Process) await(t testing.TB, addr string) {
	t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(10 * time.Millisecond) {
		select {
		case <-p.done:
			t.Fatalf("%s has ended: %v", p.cmd.Path, p.err)
		default:
		}
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// end ends the program and all that it has started.
func (p *Process) end(t testing.TB) {
	terminate(p.cmd.Process)
	select {
	case <-p.done:
	case <-time.After(Patience):
		t.Errorf("%s did not end in time", p.cmd.Path)
	}
	killGroup(p.cmd.Process)
	<-p.done
	if t.Failed() && p.output.Len() > 0 {
		t.Logf("%s printed:\n%s", p.cmd.Path, p.output.String())
	}
}
