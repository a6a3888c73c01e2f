package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// security is how a connection becomes secure.
type security int

const (
	plain security = iota
	implicitTLS
	startTLS
)

// exchange is something sent, and the number of replies awaited before more is.
type exchange struct {
	send    []byte
	replies int
}

// client is one connection's client.
type client struct {
	net.Conn
	tcp *net.TCPConn
	r   *bufio.Reader
	// echo: replies are not SMTP but what was sent.
	echo bool
}

// patience ends whatever hangs.
const patience = 5 * time.Minute

// dial connects, and says hello.
func dial(s *server) (*client, error) {
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: raw, tcp: raw.(*net.TCPConn), r: bufio.NewReader(raw), echo: s.kind == echoing}
	if err := c.greet(s.security); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

var hello = exchange{[]byte("EHLO client.example\r\n"), 1}

func (c *client) greet(sec security) error {
	c.SetDeadline(time.Now().Add(patience))
	if sec == implicitTLS {
		c.secure()
	}
	if !c.echo {
		if err := c.reply(); err != nil {
			return err
		}
	}
	if err := c.do(hello); err != nil {
		return err
	}
	if sec != startTLS {
		return nil
	}
	if err := c.do(exchange{[]byte("STARTTLS\r\n"), 1}); err != nil {
		return err
	}
	c.secure()
	return c.do(hello)
}

// secure starts TLS. The server is this program, on this machine.
func (c *client) secure() {
	c.Conn = tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	c.r.Reset(c.Conn)
}

// do does the exchanges one after the other.
func (c *client) do(steps ...exchange) error {
	for _, e := range steps {
		if _, err := c.Write(e.send); err != nil {
			return err
		}
		if c.echo {
			if _, err := c.r.Discard(len(e.send)); err != nil {
				return err
			}
			continue
		}
		for range e.replies {
			if err := c.reply(); err != nil {
				return err
			}
		}
	}
	return nil
}

var errShort = errors.New("a reply that is none")

// reply reads one reply, which has to be a positive one.
func (c *client) reply() error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		switch {
		case err != nil:
			return err
		case len(line) < 4:
			return errShort
		case line[0] > '3':
			return fmt.Errorf("the server replied %s", bytes.TrimSpace(line))
		case line[3] == ' ':
			return nil
		}
	}
}

// abort closes the connection without leaving traces in the kernel, which would
// run out of ports for them.
func (c *client) abort() {
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

// The pieces that dialogues are made of.

func lines(replies int, line ...string) exchange {
	return exchange{[]byte(strings.Join(line, "\r\n") + "\r\n"), replies}
}

const (
	mail = "MAIL FROM:<sender@client.example>"
	rcpt = "RCPT TO:<recipient@server.example>"
)

// text is content of about the given size with the dot that ends it, in lines
// as base64 has them.
func text(size int) exchange {
	var b bytes.Buffer
	b.WriteString("Subject: bench\r\n\r\n")
	line := strings.Repeat("Lorem+ipsum/dolor", 5)[:76] + "\r\n"
	for b.Len()+len(line) <= size {
		b.WriteString(line)
	}
	b.WriteString(".\r\n")
	return exchange{b.Bytes(), 1}
}

// lockStep is a message with a wait for each reply.
func lockStep(size int) []exchange {
	return []exchange{lines(1, mail), lines(1, rcpt), lines(1, "DATA"), text(size)}
}

// pipelined is a message whose commands are sent together.
func pipelined(recipients, size int) []exchange {
	commands := []string{mail}
	for range recipients {
		commands = append(commands, rcpt)
	}
	return []exchange{lines(recipients+2, append(commands, "DATA")...), text(size)}
}

// chunked is a message in BDAT chunks.
func chunked(chunks, size int) []exchange {
	steps := []exchange{lines(2, mail, rcpt)}
	content := text(size * chunks).send
	for i := range chunks {
		end := min((i+1)*size, len(content))
		piece := content[i*size : end]
		command := fmt.Sprintf("BDAT %d\r\n", len(piece))
		if i == chunks-1 {
			command = fmt.Sprintf("BDAT %d LAST\r\n", len(piece))
		}
		steps = append(steps, exchange{append([]byte(command), piece...), 1})
	}
	return steps
}

// repeated is a command many times at once.
func repeated(command string, n int) []exchange {
	all := make([]string, n)
	for i := range all {
		all[i] = command
	}
	return []exchange{lines(n, all...)}
}
