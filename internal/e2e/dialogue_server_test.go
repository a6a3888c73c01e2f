package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file plays the server's side of a dialogue from its script. Beside the words
// told of in dialogue_test.go, it has
//
//	WAIT 11s       it takes so long, in a bubble
//	BESIDE reply   it writes it, while it goes on
//	LATE           it sets a deadline that has passed, and its Read fails; then it
//	               has all the time again
//	SILENCE 10s    it waits for so long, and gets nothing, in a bubble
//	BROKEN "octets" its Read fails, and not as at the end, behind no more than those
//	               octets
//	PART "octets"  its Read has room for those octets, and no more

// scripted is a server that does what its script says, on one connection.
type scripted struct {
	script []string
	bubble bool  // time is not real
	err    error // what kept it from its script; for use after Serve
	beside sync.WaitGroup

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
	defer s.beside.Wait()
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
		return expectOctets(r, octets)
	case "PART":
		octets, err := unquote(text)
		if err != nil || r.Buffered() > 0 {
			return fmt.Errorf("it has read %d octets more, %w", r.Buffered(), err)
		}
		return expectOctets(c, octets)
	case "BESIDE":
		s.beside.Go(func() { io.WriteString(c, text+"\r\n") })
		return nil
	case "WAIT":
		return waitFor(text, s.bubble)
	case "LATE":
		return expectTimeout(c, r, -time.Second)
	case "SILENCE":
		d, err := time.ParseDuration(text)
		if err != nil || !s.bubble {
			return fmt.Errorf("a bubble's time is needed, %w", err)
		}
		return expectTimeout(c, r, d)
	case "BROKEN":
		before, err := unquote(cmp.Or(text, `""`))
		if err != nil {
			return err
		}
		// io.ReadAll has no error for io.EOF.
		if got, err := io.ReadAll(r); err == nil || os.IsTimeout(err) || !bytes.HasPrefix(before, got) {
			return fmt.Errorf("got %q, %v", got, err)
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

// expectOctets reads those octets.
func expectOctets(r io.Reader, octets []byte) error {
	got := make([]byte, len(octets))
	n, err := io.ReadFull(r, got)
	if !bytes.Equal(got, octets) {
		return fmt.Errorf("got %q, %w", got[:n], err)
	}
	return nil
}

// expectTimeout reads with so much time, and gets nothing.
func expectTimeout(c net.Conn, r *bufio.Reader, d time.Duration) error {
	c.SetReadDeadline(time.Now().Add(d))
	defer c.SetReadDeadline(time.Time{})
	if b, err := r.Peek(1); !os.IsTimeout(err) {
		return fmt.Errorf("got %q, %v", b, err)
	}
	return nil
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
