package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
)

// talk leads a dialogue with a server that says what it is given to say,
// whatever it gets.
func talk(t *testing.T, says string, dialogue func(*client) error) (news, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		defer theirs.Close()
		go theirs.Write([]byte(says))
		buf := make([]byte, 1000)
		for {
			if _, err := theirs.Read(buf); err != nil {
				return
			}
		}
	}()
	tl := &tally{pending: news{Counts: make(map[string]int)}, seqs: make([]int, 1)}
	c := &client{o: &orders{Seed: 1}, conn: ours, r: bufio.NewReader(ours), tally: tl}
	err := dialogue(c)
	return tl.take(), err
}

func TestRepliesHaveToComeInOrder(t *testing.T) {
	ask := func(c *client) error {
		a, wantA := c.echo()
		b, wantB := c.echo()
		return c.commands([]string{a, "NOOP", b}, wantA, expect{250, "nothing"}, wantB)
	}
	const first, second, noop = "250 2.0.0 echo 0-1\r\n", "250 2.0.0 echo 0-2\r\n", "250 2.0.0 I have done nothing\r\n"
	rows := []struct {
		says string
		ok   bool
	}{
		{first + noop + second, true},
		{second + noop + first, false},
		{first + second + noop, false},
		{first + first + noop + second, false}, // one too many
		{noop + second, false},                 // one too few
		{"550 2.0.0 echo 0-1\r\n" + noop + second, false},
	}
	for _, row := range rows {
		n, err := talk(t, row.says, ask)
		var wrong *wrongReply
		if row.ok != (err == nil) || !row.ok && !errors.As(err, &wrong) {
			t.Errorf("%q: %v", row.says, err)
		}
		if row.ok && n.Counts["replies checked"] != 3 {
			t.Errorf("%d replies checked", n.Counts["replies checked"])
		}
	}
}

func TestWhatAClientIsToldOfItsMessage(t *testing.T) {
	m := compose(1, id{hostile, 0, 1})
	var before strings.Builder
	_, wants := envelope(m)
	for _, w := range append(wants, expect{354, "Go ahead"}) {
		fmt.Fprintf(&before, "%d %s\r\n", w.code, w.text)
	}
	rows := []struct {
		says string
		want result
	}{
		{before.String() + "250 2.0.0 delivered h0-1\r\n", accepted},
		{before.String() + "250 2.0.0 delivered h0-2\r\n", refused}, // a reply to another one
		{before.String() + "554 5.0.0 no\r\n", refused},
		{"", cut},
	}
	for _, row := range rows {
		n, err := talk(t, row.says, func(c *client) error {
			if row.says == "" {
				c.conn.Close()
			}
			c.rng = rand.New(rand.NewPCG(1, 1))
			err := c.offer(m, expect{250, "delivered h0-1\n"})
			c.owed = nil
			c.tell(m, err, accepted)
			return err
		})
		if len(n.Outcomes) != 1 || n.Outcomes[0] != (outcome{m.sender(), row.want}) || (err == nil) != (row.want == accepted) {
			t.Errorf("%q: %v, %v", row.says, n.Outcomes, err)
		}
	}
}

func TestRepliesThatAreNone(t *testing.T) {
	for _, text := range []string{"", "25\r\n", "250-a\r\n", "250-a\r\n251 b\r\n", "abc d\r\n", "250_x\r\n"} {
		if code, _, err := readReply(bufio.NewReader(strings.NewReader(text))); err == nil {
			t.Errorf("%q is a reply: %d", text, code)
		}
	}
	code, text, err := readReply(bufio.NewReader(strings.NewReader("250-a\r\n250 b\r\n")))
	if code != 250 || text != "a\nb\n" || err != nil {
		t.Error(code, text, err)
	}
}

func TestAMessageFollowsFromItsSeedAndID(t *testing.T) {
	i := id{good, 12, 5}
	if !bytes.Equal(compose(1, i).content, compose(1, i).content) {
		t.Error("two messages with the same id differ")
	}
	if bytes.Equal(compose(1, i).content, compose(2, i).content) || bytes.Equal(compose(1, i).content, compose(1, id{good, 12, 6}).content) {
		t.Error("two messages are the same")
	}
}

func TestMessagesAreOfAllKinds(t *testing.T) {
	var empty, large, chunked, binary, dots, long int
	for seq := range 2000 {
		m := compose(1, id{good, 0, seq})
		_, rest, _ := bytes.Cut(m.content, []byte("\r\n"))
		switch {
		case len(rest) == 0:
			empty++
		case len(rest) > 200<<10:
			large++
		}
		if m.chunks != nil {
			chunked++
		}
		if !bytes.Equal(bytes.Join(m.chunks, nil), m.content) == (m.chunks != nil) {
			t.Fatalf("%v: the chunks aren't the content", m.id)
		}
		if m.binary {
			binary++
			continue
		}
		clean := bytes.ReplaceAll(rest, []byte("\r\n"), nil)
		if bytes.ContainsAny(clean, "\r\n") {
			t.Fatalf("%v has a bare CR or LF", m.id)
		}
		for line := range bytes.Lines(rest) {
			if line[0] == '.' {
				dots++
			}
			if len(line) > 2000 {
				long++
			}
		}
	}
	for what, n := range map[string]int{"empty": empty, "large": large, "chunked": chunked, "binary": binary, "dots": dots, "long": long} {
		if n == 0 {
			t.Errorf("none is %s", what)
		}
	}
}

func TestSenders(t *testing.T) {
	want := id{torn, 12, 345}
	if got, ok := idOf(want.sender()); got != want || !ok {
		t.Error(got, ok)
	}
	for _, s := range []string{"", "g1-2", "g1@soak.example", "g-@soak.example", "g1-02@soak.example", "g1-2@evil.example", "g1--2x@soak.example"} {
		if got, ok := idOf(s); ok {
			t.Errorf("%q is the sender of %v", s, got)
		}
	}
}
