package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy/bench/internal/rusage"
)

// The variables of the environment that make this program a server process: its
// kind, how its connections become secure, and the file for a profile of what it
// computes, if there is to be one.
const (
	serveVariable    = "SMTPPROXY_BENCH_SERVE"
	securityVariable = "SMTPPROXY_BENCH_SECURITY"
	profileVariable  = "SMTPPROXY_BENCH_PROFILE"
)

// The requests to a server process are lines, and so are its answers.
const (
	memoryRequest     = "memory"
	goroutinesRequest = "goroutines"
	cpuRequest        = "cpu"
)

// serveIfAsked is a server process, if this process is to be one.
func serveIfAsked() {
	k := kind(os.Getenv(serveVariable))
	if k == "" {
		return
	}
	sec, err := strconv.Atoi(os.Getenv(securityVariable))
	if err == nil {
		err = profiled(func() error { return serveProcess(k, security(sec), os.Stdin, os.Stdout) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// profiled does f, with a profile of it if one is asked for.
func profiled(f func() error) error {
	name := os.Getenv(profileVariable)
	if name == "" {
		return f()
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, file.Close())
}

// serveProcess prints the server's address, answers requests, and ends with in.
func serveProcess(k kind, sec security, in io.Reader, out io.Writer) error {
	s, err := start(k, sec)
	if err != nil {
		return err
	}
	defer s.stop()
	fmt.Fprintln(out, s.addr)
	requests := bufio.NewScanner(in)
	for requests.Scan() {
		switch requests.Text() {
		case memoryRequest:
			fmt.Fprintln(out, memory())
		case goroutinesRequest:
			fmt.Fprintln(out, runtime.NumGoroutine())
		case cpuRequest:
			fmt.Fprintln(out, rusage.CPUTime().Seconds())
		}
	}
	return requests.Err()
}

// memory returns the octets of heap and stacks in use, when all is collected
// that can be.
func memory() uint64 {
	// The first collection moves what is pooled aside, the next frees it.
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// profiles is the directory for the profiles of server processes, if they are
// wanted, and how many there are.
var profiles struct {
	dir   string
	count int
}

// nextProfile returns the file for one more.
func nextProfile(k kind) string {
	profiles.count++
	return filepath.Join(profiles.dir, fmt.Sprintf("%03d %s.prof", profiles.count, k))
}

// process is a server process as its parent sees it.
type process struct {
	server
	cmd *exec.Cmd
	in  io.Closer
	w   io.Writer
	out *bufio.Reader
}

// startProcess starts this program as a server, by way of another program if
// one is given with its arguments.
func startProcess(k kind, sec security, by ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append(by, self)
	p := &process{cmd: exec.Command(args[0], args[1:]...)}
	p.cmd.Env = append(os.Environ(), serveVariable+"="+string(k), fmt.Sprintf("%s=%d", securityVariable, sec))
	if profiles.dir != "" {
		p.cmd.Env = append(p.cmd.Env, profileVariable+"="+nextProfile(k))
	}
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.w, p.out = stdin, stdin, bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.server = server{kind: k, security: sec, stop: func() { p.end() }}
	if p.addr, err = p.line(); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

func (p *process) line() (string, error) {
	line, err := p.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

// ask asks for a number.
func (p *process) ask(request string) (float64, error) {
	if _, err := fmt.Fprintln(p.w, request); err != nil {
		return 0, err
	}
	line, err := p.line()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(line, 64)
}

// cpu returns the time that it has computed so far.
func (p *process) cpu() (time.Duration, error) {
	seconds, err := p.ask(cpuRequest)
	return time.Duration(seconds * float64(time.Second)), err
}

// end ends the process by closing its standard input.
func (p *process) end() error {
	p.in.Close()
	return p.cmd.Wait()
}
