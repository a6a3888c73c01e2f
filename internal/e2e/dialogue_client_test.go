package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// This file plays the client's side of a dialogue.

// How long the client waits at all, and in a bubble.
const (
	dialoguePatience = 15 * time.Second
	bubblePatience   = 24 * time.Hour
)

// speaker is the client's side of a dialogue.
type speaker struct {
	net.Conn
	r      *bufio.Reader
	cut    func(left []byte, gone int) int
	taken  *takenConn // the server's end, if it is known what it has read
	bubble bool       // time is not real

	queue         []byte // to be sent at once
	sent, longest int    // octets, so far and at once
	flush         sync.WaitGroup
	stuck         atomic.Bool // the time was over before all was sent
}

func (k *speaker) run(steps []string) error {
	for i, step := range steps {
		if err := k.step(step); err != nil {
			return fmt.Errorf("line %d, %s: %w", i+1, step, err)
		}
	}
	return nil
}

func (k *speaker) step(step string) error {
	verb, text, _ := strings.Cut(step, " ")
	switch verb {
	case "C:":
		k.queue = append(append(k.queue, text...), "\r\n"...)
		return nil
	case "C>":
		octets, err := unquote(text)
		k.queue = append(k.queue, octets...)
		return err
	}
	k.send()
	switch verb {
	case "", "#", "|":
		return nil
	case "S:", "S*", "S?":
		if _, err := k.r.Peek(1); verb == "S?" && err != nil {
			return nil
		}
		text, n := repeated(text)
		for range n {
			if err := k.expect(text, verb == "S*"); err != nil {
				return err
			}
		}
		return nil
	case "TLS", "NOTLS":
		k.flush.Wait()
		tc := tls.Client(&prefixConn{k.Conn, k.r}, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example"})
		err := tc.Handshake()
		if verb == "NOTLS" {
			if err == nil {
				return fmt.Errorf("the handshake succeeded")
			}
			return nil
		}
		k.Conn, k.r, k.taken = tc, bufio.NewReader(tc), nil
		return err
	case "WAIT":
		k.flush.Wait()
		return waitFor(text, k.bubble)
	case "SILENCE":
		d, err := time.ParseDuration(text)
		if err != nil || !k.bubble {
			return fmt.Errorf("a bubble's time is needed, %w", err)
		}
		defer k.SetDeadline(time.Now().Add(bubblePatience))
		return expectTimeout(k.Conn, k.r, d)
	case "HALFCLOSE":
		k.flush.Wait()
		return k.Conn.(interface{ CloseWrite() error }).CloseWrite()
	case "CLOSE":
		k.flush.Wait()
		k.Close() // the server may have done so: no matter
		return nil
	case "END":
		rest, err := io.ReadAll(k.r)
		if len(rest) > 0 || os.IsTimeout(err) {
			return fmt.Errorf("got %q, %v", rest, err)
		}
		return nil
	}
	return fmt.Errorf("unknown step")
}

// expect reads the line, or a reply of which it is the last.
func (k *speaker) expect(text string, last bool) error {
	line, err := k.r.ReadString('\n')
	for last && err == nil && len(line) > 3 && line[3] == '-' && strings.HasPrefix(text, line[:3]) {
		line, err = k.r.ReadString('\n')
	}
	if err != nil {
		return fmt.Errorf("got %q, %w", line, err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	prefix, open := strings.CutSuffix(text, "...")
	if line != text && !(open && strings.HasPrefix(line, prefix)) {
		return fmt.Errorf("got %q", line)
	}
	return nil
}

// unquote returns octets given as a Go string, perhaps repeated.
func unquote(text string) ([]byte, error) {
	quoted, n := repeated(text)
	octets, err := strconv.Unquote(quoted)
	return []byte(strings.Repeat(octets, n)), err
}

var times = regexp.MustCompile(`^(.*) x\*([0-9]+)$`)

// repeated cuts off how often something is to be repeated.
func repeated(text string) (what string, n int) {
	m := times.FindStringSubmatch(text)
	if m == nil {
		return text, 1
	}
	n, _ = strconv.Atoi(m[2])
	return m[1], n
}

// send sends the queue, in pieces, while replies are read.
func (k *speaker) send() {
	b := k.queue
	k.queue = nil
	if len(b) == 0 {
		return
	}
	before := k.sent
	k.sent += len(b)
	k.longest = max(k.longest, len(b))
	k.flush.Wait() // what was sent before goes first
	conn, taken := k.Conn, k.taken
	k.flush.Go(func() {
		for gone := 0; gone < len(b); {
			left := b[gone:]
			n := k.cut(left, gone)
			if len(b) > 4096 {
				n = max(n, 1000, len(b)/100)
			}
			n = min(n, len(left))
			if _, err := conn.Write(left[:n]); err != nil {
				k.stuck.Store(os.IsTimeout(err)) // else the server has closed
				return
			}
			gone += n
			if taken != nil && !taken.await(before+gone) {
				k.stuck.Store(true)
				return
			}
		}
	})
}

// takenConn is the server's end of a connection, which tells how much has been
// read from it: pieces that are sent one behind the other could be read as one.
type takenConn struct {
	*net.TCPConn
	octets atomic.Int64
	moved  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newTakenConn(c net.Conn) *takenConn {
	return &takenConn{TCPConn: c.(*net.TCPConn), moved: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (c *takenConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.octets.Add(int64(n))
	select {
	case c.moved <- struct{}{}:
	default:
	}
	return n, err
}

func (c *takenConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.TCPConn.Close()
}

// await returns when as many octets have been read, or nobody will read them. It
// returns false if neither comes to be.
func (c *takenConn) await(octets int) bool {
	for c.octets.Load() < int64(octets) {
		select {
		case <-c.moved:
		case <-c.closed:
			return true
		case <-time.After(15 * time.Second):
			return false
		}
	}
	return true
}

// waitFor lets time pass, which is not real.
func waitFor(text string, bubble bool) error {
	d, err := time.ParseDuration(text)
	if err == nil && !bubble {
		err = fmt.Errorf("time is real here")
	}
	if err != nil {
		return err
	}
	time.Sleep(d) // in a bubble
	return nil
}
