package servertest

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pipeListener is a listener whose connections are pipes: each Write of a
// client is what the server's Read returns, no more and no less.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return nil }

// client is the test's end of a connection.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// serve runs the server on l and returns a client for the connection.
func serve(t *testing.T, s *Server, l net.Listener, dial func() (net.Conn, error)) *client {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &client{t, c, bufio.NewReader(c)}
}

func overTCP(t *testing.T, s *Server) *client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, s, l, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) })
}

func overPipe(t *testing.T, s *Server) *client {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	return serve(t, s, l, func() (net.Conn, error) {
		a, b := net.Pipe()
		l.conns <- b
		return a, nil
	})
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("sending %q: %v", s, err)
	}
}

// expect reads one reply for each of the codes.
func (c *client) expect(codes ...string) {
	c.t.Helper()
	for _, code := range codes {
		line := c.line()
		for strings.HasPrefix(line, code+"-") {
			line = c.line()
		}
		if !strings.HasPrefix(line, code+" ") {
			c.t.Fatalf("got reply %q, want %s", line, code)
		}
	}
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("reading a reply: %v", err)
	}
	return line
}

// expectEnd checks that the server hangs up without another octet.
func (c *client) expectEnd() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Fatalf("got %q, want the end of the connection", b)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the server did not hang up")
	}
}

// expectSilence checks that no reply comes for a moment.
func expectSilence(t *testing.T, c *client) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a reply, or %v", err)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
}

// startMessage brings the client to the point where content is due.
func (c *client) startMessage() {
	c.t.Helper()
	c.expect("220")
	c.send("MAIL FROM:<a@b>\r\n")
	c.expect("250")
	c.send("RCPT TO:<c@d>\r\n")
	c.expect("250")
	c.send("DATA\r\n")
	c.expect("354")
}

var envelope = []string{"MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"}

func expectCommands(t *testing.T, s *Server, want ...string) {
	t.Helper()
	if got := s.Commands(); !slices.Equal(got, want) {
		t.Errorf("commands\n got %q\nwant %q", got, want)
	}
}

func expectMessages(t *testing.T, s *Server, want ...Message) {
	t.Helper()
	if got := s.Messages(); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("messages\n got %q\nwant %q", got, want)
	}
}

// waitForEnd waits until the server's only session has ended.
func waitForEnd(t *testing.T, s *Server) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); s.Record().Ended == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the session did not end")
		}
		time.Sleep(time.Millisecond) // looks again: TCP is outside of any bubble
	}
}

func message(data string) Message { return Message{"a@b", []string{"c@d"}, []byte(data)} }

func plain(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
