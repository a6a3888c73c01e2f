package smtpproxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file plays the server's side of a dialogue from its script.

// scripted is a server that does what its script says, on one connection.
type scripted struct {
	script []string
	err    error // what kept it from that; for use after Serve

	mu       sync.Mutex
	commands []string
	open     []io.Closer
}

func (s *scripted) Serve(l net.Listener) error {
	s.opened(l)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	s.opened(c)
	defer c.Close()
	r := bufio.NewReader(c)
	for i, step := range s.script {
		if err := s.step(c, r, step); err != nil {
			s.err = fmt.Errorf("the server's script, line %d, %s: %w", i+1, step, err)
			return nil
		}
	}
	return nil
}

func (s *scripted) opened(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, c)
}

func (s *scripted) step(c net.Conn, r *bufio.Reader, step string) error {
	verb, text, _ := strings.Cut(step, " ")
	switch verb {
	case "", "#":
		return nil
	case "S:":
		io.WriteString(c, text+"\r\n") // an error shows as END
		return nil
	case "S>":
		octets, err := unquote(text)
		c.Write(octets)
		return err
	case "C:":
		line, err := r.ReadString('\n')
		if line != text+"\r\n" {
			return fmt.Errorf("got %q, %w", line, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.commands = append(s.commands, text)
		return nil
	case "C>":
		octets, err := unquote(text)
		if err != nil {
			return err
		}
		got := make([]byte, len(octets))
		n, err := io.ReadFull(r, got)
		if !bytes.Equal(got, octets) {
			return fmt.Errorf("got %q, %w", got[:n], err)
		}
		return nil
	case "END":
		rest, err := io.ReadAll(r)
		if len(rest) > 0 || os.IsTimeout(err) {
			return fmt.Errorf("got %q, %v", rest, err)
		}
		return nil
	}
	return fmt.Errorf("unknown step")
}

func (s *scripted) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		c.Close()
	}
	return nil
}

func (s *scripted) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

func (s *scripted) Messages() []servertest.Message { return nil }
