package main

import (
	"fmt"
	"strings"
)

// This file holds the attacks with BDAT (RFC 3030), where a server that loses
// count takes content for commands.

// chunkTooSoon sends commands in a chunk that the server can't take.
func (c *client) chunkTooSoon() error {
	if err := c.begin(); err != nil {
		return err
	}
	chunk := fmt.Sprintf("BDAT %d LAST\r\n%s\r\n", len(c.evil())+2, c.evil())
	missing := expect{502, "Missing RCPT TO"}
	out := chunk + "MAIL FROM:<early@soak.example>\r\n" + chunk + "RSET\r\n" + chunk
	if err := c.exchange(out, missing, expect{250, "<early@"}, missing, expect{250, "reset"}, missing); err != nil {
		return err
	}
	return c.alive()
}

// beginMessage brings a transaction to where its content is due.
func (c *client) beginMessage() error {
	if err := c.begin(); err != nil {
		return err
	}
	lines, wants := envelope(compose(c.o.Seed, id{hostile, c.slot, 0}))
	return c.commands(lines, wants...)
}

func (c *client) malformedChunk() error {
	if err := c.beginMessage(); err != nil {
		return err
	}
	sizes := []string{" -1", " +3", " 0x10", " 3 LAST x", "", " 18446744073709551616", " 1e3 LAST", "  3"}
	bad := "BDAT" + sizes[c.rng.IntN(len(sizes))] + "\r\n" + c.evil() + "\r\n"
	if err := c.exchange(bad, expect{501, "Malformed BDAT"}); err != nil {
		return err
	}
	return c.closed()
}

// largeChunk has one more octet than the server takes.
func (c *client) largeChunk() error {
	if err := c.beginMessage(); err != nil {
		return err
	}
	if c.rng.IntN(8) > 0 {
		// Mostly, it only says so.
		return c.send(fmt.Sprintf("BDAT %d LAST\r\n%s\r\n", maxMessage+1, c.evil()))
	}
	block := strings.Repeat(c.evil()+"\r\n", (maxMessage+1)/(len(c.evil())+2)+1)[:maxMessage+1]
	if err := c.exchange(fmt.Sprintf("BDAT %d LAST\r\n%s", len(block), block), expect{552, "Max message size"}); err != nil {
		return err
	}
	return c.alive()
}

// wrongChunk has less than it says, and vanishes; or more, which is commands
// then, though no evil ones: they are what the client sent.
func (c *client) wrongChunk() error {
	if err := c.begin(); err != nil {
		return err
	}
	m := c.newMessage(torn)
	c.tally.told(m.id, cut)
	lines, wants := envelope(m)
	if err := c.commands(lines, wants...); err != nil {
		return err
	}
	n := len(m.content)
	if c.rng.IntN(2) == 0 {
		return c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", n+1+c.rng.IntN(1000), m.content))
	}
	k := c.rng.IntN(n)
	return c.send(fmt.Sprintf("BDAT %d\r\n%s", k, m.content[:k]) + "NONSENSE\r\nQUIT\r\n")
}

// manyChunks sends more small chunks than the library allows.
func (c *client) manyChunks() error {
	if err := c.begin(); err != nil {
		return err
	}
	lines, wants := envelope(compose(c.o.Seed, id{torn, c.slot, 0}))
	if err := c.commands(lines, wants...); err != nil {
		return err
	}
	const most = 1000
	next := make([]expect, most)
	for i := range next {
		next[i] = expect{250, "Continue"}
	}
	if err := c.exchange(strings.Repeat("BDAT 0\r\n", most+1), append(next, expect{421, "Too many chunks"})...); err != nil {
		return err
	}
	return c.closed()
}
