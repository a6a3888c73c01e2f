package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

// patience is how long a client waits for a reply. Longer is a fault.
const patience = 2 * time.Minute

// client is one connection's.
type client struct {
	o     *orders
	kind  kind
	slot  int
	rng   *rand.Rand
	stop  <-chan struct{}
	tally *tally

	server int   // which of the two
	wire   *wire // what conn is on
	conn   net.Conn
	r      *bufio.Reader
	tls    bool
	shown  int // commands that the hook must have been shown
	echoes int
	owed   []expect // replies to commands that were sent behind a message
	last   string   // what was sent, the beginning of it
	sent   time.Time
}

// expect is a reply that has to come: its code, and a text that only this one
// has.
type expect struct {
	code int
	text string
}

// wrongReply is a reply that is not the one that was due.
type wrongReply struct {
	want expect
	code int
	text string
}

func (w *wrongReply) Error() string {
	return fmt.Sprintf("got %d %.200q where %d with %q was due", w.code, w.text, w.want.code, w.want.text)
}

// commands sends lines at once, and checks the replies to them in their order.
// The hook is shown each.
func (c *client) commands(lines []string, wants ...expect) error {
	c.shown += len(lines)
	return c.exchange(strings.Join(lines, "\r\n")+"\r\n", wants...)
}

// command sends one line.
func (c *client) command(line string, want expect) error {
	return c.commands([]string{line}, want)
}

// exchange sends anything, and checks the replies.
func (c *client) exchange(out string, wants ...expect) error {
	if err := c.send(out); err != nil {
		return err
	}
	for _, want := range wants {
		if err := c.expect(want); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) send(out string) error {
	c.last, c.sent = out[:min(len(out), 200)], time.Now()
	c.conn.SetDeadline(c.sent.Add(patience))
	_, err := io.WriteString(c.conn, out)
	return err
}

// expect reads a reply and checks it.
func (c *client) expect(want expect) error {
	c.conn.SetDeadline(time.Now().Add(patience))
	code, text, err := readReply(c.r)
	if err != nil {
		return err
	}
	c.tally.count("replies checked", 1)
	if code != want.code || !strings.Contains(text, want.text) {
		return &wrongReply{want, code, text}
	}
	return nil
}

// readReply reads one reply, of any number of lines.
func readReply(r *bufio.Reader) (code int, text string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, "", err
		}
		line = strings.TrimSuffix(line, "\r\n")
		if len(line) < 4 {
			return 0, "", fmt.Errorf("a reply that is none: %q", line)
		}
		n, err := strconv.Atoi(line[:3])
		if err != nil || code != 0 && n != code || line[3] != ' ' && line[3] != '-' {
			return 0, "", fmt.Errorf("a reply that is none: %q", line)
		}
		code = n
		text += line[4:] + "\n"
		if line[3] == ' ' {
			return code, text, nil
		}
	}
}

// closed checks that nothing more comes.
func (c *client) closed() error {
	c.conn.SetDeadline(time.Now().Add(patience))
	line, err := c.r.ReadString('\n')
	switch {
	case line != "":
		return &wrongReply{want: expect{0, "the end"}, text: line}
	case err != io.EOF:
		return err
	}
	return nil
}

// ehlo checks what is offered, too.
func (c *client) ehlo() error {
	c.shown++
	if err := c.send(fmt.Sprintf("EHLO client%d.example\r\n", c.slot)); err != nil {
		return err
	}
	code, text, err := readReply(c.r)
	if err != nil {
		return err
	}
	c.tally.count("replies checked", 1)
	want := expect{250, fmt.Sprintf("Hello client%d.example\n", c.slot)}
	auth := c.tls || c.server == lenient
	if code != want.code || !strings.Contains(text, want.text) ||
		strings.Contains(text, "\nSTARTTLS\n") == c.tls || strings.Contains(text, "\nAUTH PLAIN\n") != auth {
		return &wrongReply{want, code, text}
	}
	return nil
}

// secure starts TLS, and says EHLO again.
func (c *client) secure() error {
	if err := c.command("STARTTLS", expect{220, "Ready to start TLS"}); err != nil {
		return err
	}
	tc := tls.Client(c.wire, &tls.Config{InsecureSkipVerify: true}) // the server is this program
	c.conn = tc
	c.r.Reset(tc)
	c.conn.SetDeadline(time.Now().Add(patience))
	if err := tc.Handshake(); err != nil {
		return err
	}
	c.tls = true
	c.tally.count("sessions in TLS", 1)
	return c.ehlo()
}

// echo is a command that the hook answers, and a number that only this reply
// has.
func (c *client) echo() (string, expect) {
	c.echoes++
	n := fmt.Sprintf("%d-%d", c.slot, c.echoes)
	return "XECHO " + n, expect{250, "echo " + n + "\n"}
}
