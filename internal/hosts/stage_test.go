package hosts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing/synctest"
	"time"
)

// stage is one host behind a front, with one client.
type stage struct {
	host
	limits
	transport
	rec    *record
	tap    *tap
	client net.Conn
	served chan struct{}
}

// raise begins to serve, and connects. Whoever calls it calls close.
func raise(h host, lim limits, tr transport, f front, passes bool) (*stage, error) {
	server, client, err := tr.connect()
	if err != nil {
		return nil, err
	}
	s := &stage{host: h, limits: lim, transport: tr, rec: new(record), client: client, served: make(chan struct{})}
	s.tap = &tap{Listener: f(newListener(server), &gate{rec: s.rec, passes: passes}), rec: s.rec}
	go func() {
		defer close(s.served)
		h.serve(s.tap, lim, s.rec)
		s.tap.wg.Wait()
	}()
	switch {
	case tr.tls:
		s.client = clientTLS(client)
	case tr.starts:
		err = s.startTLS()
	}
	return s, err
}

// startTLS is what a client does first where that is its first step.
func (s *stage) startTLS() error {
	s.client.SetDeadline(time.Now().Add(s.patience()))
	r := bufio.NewReader(s.client)
	for _, step := range []struct{ line, code string }{{"", "220"}, {s.hello() + " client.example\r\n", "250"}, {"STARTTLS\r\n", "220"}} {
		io.WriteString(s.client, step.line)
		got, err := readReply(r)
		if err != nil || !strings.HasPrefix(got, step.code) {
			return fmt.Errorf("%q got %q, %v; want %s", step.line, got, err, step.code)
		}
	}
	tc := clientTLS(s.client)
	s.client = tc
	return tc.Handshake()
}

func (h host) hello() string {
	if h.lmtp {
		return "LHLO"
	}
	return "EHLO"
}

// close ends the session, and all that serves it. It returns what the client has
// still got, and what is wrong with the end.
func (s *stage) close() (got, problem string) {
	s.client.SetDeadline(time.Now().Add(s.patience()))
	s.client.(interface{ CloseWrite() error }).CloseWrite()
	b, err := io.ReadAll(s.client)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		problem = "the host doesn't end when the client has"
	}
	s.client.Close()
	s.tap.Close()
	if !s.ends() {
		problem = "the host doesn't end when its client is gone"
		s.tap.cut()
		if !s.ends() {
			problem = "the host doesn't end when its connection is closed"
		}
	}
	return string(b), problem
}

func (s *stage) ends() bool {
	t := time.NewTimer(s.patience())
	defer t.Stop()
	select {
	case <-s.served:
		return true
	case <-t.C:
		return false
	}
}

// cut is how what a client sends is cut.
type cut string

const (
	whole  cut = "whole"
	random cut = "at random"
	octets cut = "octet by octet"
)

// send writes octets in pieces. In a bubble, the host has seen each, and done all
// it can, before the next one is on its way; that also orders the host's goroutines
// for the race detector.
func (s *stage) send(r *rand.Rand, c cut, b string) error {
	s.client.SetWriteDeadline(time.Now().Add(s.patience()))
	for len(b) > 0 {
		n := len(b)
		switch c {
		case octets:
			n = 1
		case random:
			n = 1 + r.IntN(n)
			if r.IntN(2) == 0 {
				n = min(n, 1+r.IntN(20))
			}
		}
		if _, err := io.WriteString(s.client, b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if s.bubble {
			synctest.Wait()
		}
	}
	return nil
}

// readReply reads a reply of one or more lines, and returns it without its last
// line end.
func readReply(r *bufio.Reader) (string, error) {
	var reply strings.Builder
	for {
		line, err := r.ReadString('\n')
		reply.WriteString(line)
		if err != nil {
			return reply.String(), err
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimRight(reply.String(), "\r\n"), nil
		}
	}
}
