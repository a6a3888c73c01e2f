package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// withCalls adds to the first line of a work how many system calls a server
// makes for each message, if strace is there to count them.
func (w work) withCalls(message []exchange) work {
	w.more = func(o *options, results []result) ([]result, error) {
		strace, err := exec.LookPath("strace")
		if err != nil {
			fmt.Fprintln(o.log, "no strace: system calls are not counted")
			return results, nil
		}
		var counts []string
		for _, k := range []kind{bare, hooked} {
			n, err := callsPerMessage(strace, k, o.counts, message)
			if err != nil {
				return nil, fmt.Errorf("counting system calls: %w", err)
			}
			counts = append(counts, fmt.Sprintf("%.1f", n))
		}
		results[0].calls = strings.Join(counts, " to ")
		return results, nil
	}
	return w
}

// callsPerMessage compares two runs of different length, so that the calls that
// start and end a server don't count.
func callsPerMessage(strace string, k kind, messages [2]int, message []exchange) (float64, error) {
	var calls [2]int
	for i, n := range messages {
		var err error
		if calls[i], err = countCalls(strace, k, n, message); err != nil {
			return 0, err
		}
	}
	return float64(calls[1]-calls[0]) / float64(messages[1]-messages[0]), nil
}

// scheduling are calls by which Go's scheduler waits and wakes. How many there are
// depends on how slow strace makes the process, more than on the work.
const scheduling = "futex,nanosleep,epoll_pwait,sched_yield,tgkill,getpid,rt_sigreturn,madvise"

// countCalls returns how many system calls a server process makes, from its
// start to its end, while one client sends it messages.
func countCalls(strace string, k kind, messages int, message []exchange) (int, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "calls")
	p, err := startProcess(k, plain, strace, "-f", "-c", "-e", "trace=!"+scheduling, "-o", file)
	if err != nil {
		return 0, err
	}
	err = send(&p.server, messages, message)
	if e := p.end(); err == nil {
		err = e
	}
	if err != nil {
		return 0, err
	}
	summary, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return totalCalls(summary)
}

func send(s *server, messages int, message []exchange) error {
	c, err := dial(s)
	if err != nil {
		return err
	}
	defer c.Close()
	for range messages {
		if err := c.do(message...); err != nil {
			return err
		}
	}
	return nil
}

// totalCalls finds the sum in the summary that strace -c writes: a table with
// the columns % time, seconds, usecs/call, calls, errors, syscall.
func totalCalls(summary []byte) (int, error) {
	for s := bufio.NewScanner(bytes.NewReader(summary)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) >= 5 && f[len(f)-1] == "total" {
			return strconv.Atoi(f[3])
		}
	}
	return 0, fmt.Errorf("no total in what strace wrote: %q", summary)
}
