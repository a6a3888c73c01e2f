package main

import (
	"errors"
	"fmt"
)

// session is what a client does that keeps to the rules: some messages, and
// commands between them, of whose replies each is known beforehand.
func (c *client) session() error {
	if err := c.expect(expect{220, "ESMTP Service Ready"}); err != nil {
		return err
	}
	if err := c.ehlo(); err != nil {
		return err
	}
	if c.rng.IntN(5) == 0 {
		if err := c.secure(); err != nil {
			return err
		}
	}
	if c.rng.IntN(2) == 0 {
		if err := c.authenticate(); err != nil {
			return err
		}
	}
	for range 1 + c.rng.IntN(5) {
		if c.think() {
			break
		}
		if err := c.transaction(); err != nil {
			return err
		}
	}
	// The hook has seen each command, and once.
	c.shown++
	counted := expect{250, fmt.Sprintf("count %d\n", c.shown)}
	if err := c.exchange("XCOUNT\r\n", counted); err != nil {
		return err
	}
	if err := c.command("QUIT", expect{221, "Bye"}); err != nil {
		return err
	}
	return c.closed()
}

// authenticate sends AUTH in one of its forms.
func (c *client) authenticate() error {
	const right, wrong = "AHVzZXIAcGFzcw==", "AHVzZXIAd3Jvbmc=" // "user", and "pass" or "wrong"
	if !c.tls && c.server == strict {
		return c.command("AUTH PLAIN "+right, expect{523, "TLS is required"})
	}
	succeeded, failed := expect{235, "succeeded"}, expect{535, "failed"}
	switch c.rng.IntN(5) {
	case 0:
		return c.command("AUTH PLAIN "+right, succeeded)
	case 1:
		return c.commands([]string{"AUTH PLAIN " + wrong, "AUTH PLAIN " + right}, failed, succeeded)
	case 2:
		if err := c.command("AUTH PLAIN", expect{334, ""}); err != nil {
			return err
		}
		return c.exchange("*\r\n", expect{501, "cancelled"})
	case 3:
		return c.command("AUTH SCRAM-SHA-1 "+right, expect{504, "Unsupported"})
	default:
		if err := c.command("AUTH PLAIN", expect{334, ""}); err != nil {
			return err
		}
		return c.exchange(right+"\r\n", succeeded)
	}
}

// transaction sends a message, or something else that a client may do.
func (c *client) transaction() error {
	switch c.rng.IntN(10) {
	case 0:
		return c.chat()
	case 1:
		return c.abandon()
	default:
		return c.deliver(c.newMessage(c.kind))
	}
}

// chat sends commands in one group that the hook and the server answer in turn.
func (c *client) chat() error {
	var lines []string
	var wants []expect
	for range 1 + c.rng.IntN(20) {
		line, want := c.echo()
		switch c.rng.IntN(6) {
		case 0:
			line, want = "NOOP", expect{250, "nothing"}
		case 1:
			line, want = "XNOOP", expect{250, "nothing"} // the hook makes it NOOP
		case 2:
			line, want = "RSET", expect{250, "Session reset"}
		case 3:
			line, want = "VRFY x", expect{252, "Cannot VRFY"}
		}
		lines, wants = append(lines, line), append(wants, want)
	}
	return c.commands(lines, wants...)
}

// abandon begins a message, and leaves it.
func (c *client) abandon() error {
	m := compose(c.o.Seed, id{c.kind, c.slot, 0}) // seq 0 is never delivered
	lines, wants := envelope(m)
	lines, wants = append(lines, "RSET", "DATA"), append(wants, expect{250, "Session reset"}, expect{503, "Missing MAIL"})
	return c.commands(lines, wants...)
}

// envelope returns MAIL and RCPT commands, and the replies due.
func envelope(m *message) (lines []string, wants []expect) {
	mail := "MAIL FROM:<" + m.sender() + ">"
	if m.binary {
		mail += " BODY=BINARYMIME"
	}
	lines, wants = append(lines, mail), append(wants, expect{250, "<" + m.sender() + ">"})
	for _, r := range m.to {
		lines, wants = append(lines, "RCPT TO:<"+r.sent+">"), append(wants, r.want)
	}
	return lines, wants
}

// newMessage makes the client's next message.
func (c *client) newMessage(k kind) *message {
	return compose(c.o.Seed, c.tally.nextID(k, c.slot))
}

// deliver sends a message, and tells what came of it.
func (c *client) deliver(m *message) error {
	done, want := accepted, expect{250, "delivered " + m.id.String() + "\n"}
	if m.bare && c.server == strict {
		done, want = refused, expect{550, "bare CR or LF"}
	}
	err := c.offer(m, want)
	c.tell(m, err, done)
	for _, w := range c.owed {
		if err == nil {
			err = c.expect(w)
		}
	}
	c.owed = nil
	return err
}

// tell tells what came of a message: done, if all went as it should.
func (c *client) tell(m *message, err error, done result) {
	var wrong *wrongReply
	switch {
	case err == nil:
		c.tally.told(m.id, done)
	case errors.As(err, &wrong):
		c.tally.told(m.id, refused)
	default:
		c.tally.told(m.id, cut)
	}
}

// offer sends a message, in one of the ways there are: commands one by one or
// in groups (RFC 2920), DATA or BDAT (RFC 3030).
func (c *client) offer(m *message, taken expect) error {
	lines, wants := envelope(m)
	if m.wire != nil {
		lines, wants = append(lines, "DATA"), append(wants, expect{354, "Go ahead"})
	}
	if c.rng.IntN(3) == 0 {
		for i, line := range lines {
			if err := c.command(line, wants[i]); err != nil {
				return err
			}
		}
	} else if err := c.commands(lines, wants...); err != nil {
		return err
	}
	if m.wire == nil {
		return c.chunks(m, taken)
	}
	out := string(m.wire)
	if c.rng.IntN(3) == 0 && !m.bare {
		// RFC 2920 section 3.1: commands may follow the end at once.
		line, want := c.echo()
		c.shown++
		out, c.owed = out+line+"\r\n", append(c.owed, want)
	}
	return c.exchange(out, taken)
}

// chunks sends a message with BDAT, in lock-step or all at once.
func (c *client) chunks(m *message, taken expect) error {
	together := c.rng.IntN(2) == 0
	var out string
	var wants []expect
	for i, chunk := range m.chunks {
		c.shown++
		command, want := fmt.Sprintf("BDAT %d\r\n", len(chunk)), expect{250, "Continue"}
		if i == len(m.chunks)-1 {
			command, want = fmt.Sprintf("BDAT %d LAST\r\n", len(chunk)), taken
		}
		out, wants = out+command+string(chunk), append(wants, want)
		if together && i < len(m.chunks)-1 {
			continue
		}
		if err := c.exchange(out, wants...); err != nil {
			return err
		}
		out, wants = "", nil
	}
	return nil
}
