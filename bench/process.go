package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// serveVariable is the environment variable that makes this program a server
// process; it holds the kind.
const serveVariable = "SMTPPROXY_BENCH_SERVE"

// The requests to a server process are lines, and so are its answers.
const (
	memoryRequest     = "memory"
	goroutinesRequest = "goroutines"
)

// serveIfAsked is a server process, if this process is to be one.
func serveIfAsked() {
	k := kind(os.Getenv(serveVariable))
	if k == "" {
		return
	}
	if err := serveProcess(k, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveProcess prints the server's address, answers requests, and ends with in.
func serveProcess(k kind, in io.Reader, out io.Writer) error {
	s, err := start(k, plain)
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
func startProcess(k kind, by ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append(by, self)
	p := &process{cmd: exec.Command(args[0], args[1:]...)}
	p.cmd.Env = append(os.Environ(), serveVariable+"="+string(k))
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
	p.server = server{kind: k, stop: func() { p.end() }}
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

// end ends the process by closing its standard input.
func (p *process) end() error {
	p.in.Close()
	return p.cmd.Wait()
}
