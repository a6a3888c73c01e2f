package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// crowd is the process of the clients, as its parent sees it.
type crowd struct {
	cmd   *exec.Cmd
	stdin io.Closer
	news  chan news // closed when the process says no more
}

// startCrowd starts this program as the process of the clients. What is in
// this process is the servers' alone then.
func startCrowd(o *orders) (*crowd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	c := &crowd{cmd: exec.Command(self), news: make(chan news)}
	c.cmd.Env = append(os.Environ(), clientsVariable+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.news)
		dec := json.NewDecoder(stdout)
		for {
			var n news
			if err := dec.Decode(&n); err != nil {
				return
			}
			c.news <- n
		}
	}()
	return c, nil
}

// end tells the clients to come to an end, and takes what they say to the last.
func (c *crowd) end(take func(news)) error {
	c.stdin.Close()
	late := false
	timer := time.NewTimer(2 * patience)
	defer timer.Stop()
	for open := true; open; {
		var n news
		select {
		case n, open = <-c.news:
			if open {
				take(n)
			}
		case <-timer.C:
			late = true
			c.cmd.Process.Kill()
		}
	}
	err := c.cmd.Wait()
	if late {
		return errors.New("the clients didn't come to an end")
	}
	if err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	return nil
}
