package main

import (
	"fmt"
	"strings"
	"time"
)

// attack is one thing that hostile clients do.
type attack struct {
	name string
	// strict: the server has to answer as it says; anything else is a fault.
	// Else the connection may end at any point, but a wrong reply is a fault.
	strict bool
	tears  bool // it breaks off messages in chunks
	run    func(c *client) error
}

// attacks are all there are.
var attacks = []attack{
	{"smuggling", true, false, (*client).smuggle},
	{"commands behind STARTTLS", true, false, (*client).injectIntoTLS},
	{"STARTTLS, then no TLS", false, false, (*client).breakHandshake},
	{"HTTP", true, false, (*client).http},
	{"TLS on the plain port", true, false, (*client).clientHello},
	{"garbage", false, false, (*client).garbage},
	{"control characters", true, false, (*client).controls},
	{"endless line", false, false, (*client).endless},
	{"all in one segment", true, false, (*client).oneSegment},
	{"flood of commands", true, false, (*client).flood},
	{"flood of recipients", true, false, (*client).recipients},
	{"nested MAIL", true, false, (*client).nested},
	{"chunk without recipient", true, false, (*client).chunkTooSoon},
	{"malformed BDAT", true, false, (*client).malformedChunk},
	{"chunk beyond SIZE", true, false, (*client).largeChunk},
	{"chunk of another size", false, true, (*client).wrongChunk},
	{"flood of chunks", true, true, (*client).manyChunks},
	{"hook that panics", true, false, (*client).panics},
	{"hook that hangs", true, false, (*client).hangs},
	{"silence", false, false, (*client).silence},
	{"not waiting for the reply", false, false, (*client).leave},
	{"vanishing", false, false, (*client).session},
	{"vanishing in chunks", false, true, (*client).session},
}

// begin reads the greeting and says EHLO.
func (c *client) begin() error {
	if err := c.expect(expect{220, "ESMTP"}); err != nil {
		return err
	}
	return c.ehlo()
}

// evil returns commands that are not meant for the server.
func (c *client) evil() string { return evil(fmt.Sprint("client", c.slot)) }

// alive checks that the dialogue is still in step.
func (c *client) alive() error {
	line, want := c.echo()
	return c.command(line, want)
}

func (c *client) smuggle() error {
	if err := c.begin(); err != nil {
		return err
	}
	m := c.newMessage(smuggler)
	if err := c.deliver(m); err != nil {
		return err
	}
	if m.bare && c.server == strict {
		return c.closed()
	}
	return c.alive()
}

func (c *client) injectIntoTLS() error {
	if err := c.begin(); err != nil {
		return err
	}
	if err := c.exchange("STARTTLS\r\n"+c.evil()+"\r\n", expect{503, "Nothing may follow"}); err != nil {
		return err
	}
	return c.closed()
}

func (c *client) breakHandshake() error {
	if err := c.begin(); err != nil {
		return err
	}
	if err := c.command("STARTTLS", expect{220, "Ready"}); err != nil {
		return err
	}
	switch c.rng.IntN(3) {
	case 0:
		return c.send(c.evil() + "\r\n.\r\n")
	case 1:
		c.wire.SetLinger(0)
		return nil
	default:
		return c.send("\x16\x03\x01\xff\xff" + c.evil())
	}
}

func (c *client) http() error {
	if err := c.expect(expect{220, ""}); err != nil {
		return err
	}
	if err := c.exchange("POST / HTTP/1.1\r\nHost: mail.example\r\n\r\n"+c.evil()+"\r\n", expect{502, "HTTP"}); err != nil {
		return err
	}
	return c.closed()
}

func (c *client) clientHello() error {
	if err := c.expect(expect{220, ""}); err != nil {
		return err
	}
	if err := c.exchange("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n"+c.evil()+"\r\n", expect{554, "TLS has not been started"}); err != nil {
		return err
	}
	return c.closed()
}

func (c *client) garbage() error {
	return c.send(octets(c.rng, c.o.Seed, 2000, "QUIT")[:1000])
}

func (c *client) controls() error {
	if err := c.begin(); err != nil {
		return err
	}
	bad := []string{"MAIL FROM:<a\x00@a>", "MAIL FROM:<a\r@a>", "NOOP\x00", "\x7fNOOP", "NO\rOP\rRSET"}
	want := expect{500, "Control character"}
	return c.exchange(strings.Join(bad, "\r\n")+"\r\n", want, want, want, want, want)
}

// endless has no end of line, for long.
func (c *client) endless() error {
	if err := c.begin(); err != nil {
		return err
	}
	line := strings.Repeat("a", 4000)
	for range 1 + c.rng.IntN(200) {
		if err := c.send(line); err != nil {
			return err
		}
	}
	return c.send("\r\n" + c.evil() + "\r\n")
}

// oneSegment doesn't wait for anything, not even for the greeting. It is a
// message all the same.
func (c *client) oneSegment() error {
	m := c.newMessage(hostile)
	lines, wants := envelope(m)
	lines = append([]string{"EHLO x"}, append(lines, "DATA")...)
	wants = append([]expect{{220, "ESMTP"}, {250, "Hello x\n"}}, append(wants, expect{354, "Go ahead"})...)
	echo, echoed := c.echo()
	out := strings.Join(lines, "\r\n") + "\r\n" + string(m.wire) + echo + "\r\nQUIT\r\n"
	err := c.exchange(out, append(wants, expect{250, "delivered " + m.id.String() + "\n"})...)
	c.tell(m, err, accepted)
	if err != nil {
		return err
	}
	if err := c.expect(echoed); err != nil {
		return err
	}
	if err := c.expect(expect{221, "Bye"}); err != nil {
		return err
	}
	return c.closed()
}

// flood sends commands before it reads any reply.
func (c *client) flood() error {
	if err := c.begin(); err != nil {
		return err
	}
	var lines []string
	var wants []expect
	for range 500 {
		line, want := c.echo()
		lines, wants = append(lines, line, "NOOP"), append(wants, want, expect{250, "nothing"})
	}
	return c.commands(lines, wants...)
}

func (c *client) recipients() error {
	if err := c.begin(); err != nil {
		return err
	}
	lines, wants := []string{"MAIL FROM:<many@soak.example>"}, []expect{{250, "<many@"}}
	for i := range 300 {
		a := fmt.Sprintf("<user%d@soak.example>", i)
		want := expect{250, a}
		if i >= maxRecipients {
			want = expect{452, "Maximum limit"}
		}
		lines, wants = append(lines, "RCPT TO:"+a), append(wants, want)
	}
	return c.commands(lines, wants...)
}

// nested tries to change the sender of a message that has recipients already.
func (c *client) nested() error {
	if err := c.begin(); err != nil {
		return err
	}
	m := c.newMessage(hostile)
	lines, wants := envelope(m)
	lines = append(lines, "MAIL FROM:<nested@soak.example>", "DATA")
	wants = append(wants, expect{503, "Nested MAIL"}, expect{354, "Go ahead"})
	err := c.commands(lines, wants...)
	if err == nil {
		err = c.exchange(string(m.wire), expect{250, "delivered " + m.id.String() + "\n"})
	}
	c.tell(m, err, accepted)
	if err != nil {
		return err
	}
	return c.alive()
}

func (c *client) panics() error {
	if err := c.begin(); err != nil {
		return err
	}
	if err := c.exchange("XPANIC\r\n"+c.evil()+"\r\n", expect{421, "not available"}); err != nil {
		return err
	}
	return c.closed()
}

// hangs calls a hook that only a timeout ends.
func (c *client) hangs() error {
	if c.server != strict {
		return c.panics() // the other server has none
	}
	if err := c.begin(); err != nil {
		return err
	}
	if err := c.exchange("XHANG\r\n", expect{421, "not available"}); err != nil {
		return err
	}
	return c.closed()
}

// leave sends a message, and doesn't care what becomes of it.
func (c *client) leave() error {
	if err := c.begin(); err != nil {
		return err
	}
	m := c.newMessage(hostile)
	c.tally.told(m.id, cut)
	lines, wants := envelope(m)
	if err := c.commands(append(lines, "DATA"), append(wants, expect{354, "Go ahead"})...); err != nil {
		return err
	}
	return c.send(string(m.wire))
}

// silence begins a command, or an exchange, and waits for the server to give
// up.
func (c *client) silence() error {
	if err := c.begin(); err != nil {
		return err
	}
	half := []string{"", "NOO", "AUTH PLAIN\r\nAGV2", "STARTTLS\r\n"}[c.rng.IntN(4)]
	if err := c.send(half); err != nil {
		return err
	}
	wait(c.stop, time.Duration(c.rng.IntN(1000))*c.o.Think/200) // up to five times
	return nil
}
