package e2e

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file holds random hooks of hooks against random dialogues: each hook is shown what
// the model says, and what the server executes is what they have left.

// composition is such hooks in front of a server, and a client's dialogue with it.
type composition struct {
	*rand.Rand
	seed     uint64
	top      *tree
	commands []string
	onPass   bool // OnFailure passes
	shown    *shown
	heard    []heard
	lines    int
	early    bool // the server has closed the connection
}

// heard is a line of the client's, and the code of its reply.
type heard struct {
	line string
	code int
}

func compose(seed uint64) *composition {
	r := rand.New(rand.NewPCG(seed, 14))
	c := &composition{Rand: r, seed: seed, shown: new(shown)}
	g := &grower{Rand: r}
	c.top = g.chain(1+r.IntN(3), 3)
	if r.IntN(3) == 0 {
		c.commands = []string{"AUTH", "NOOP", "MAIL"}[:1+r.IntN(3)]
	}
	c.onPass = r.IntN(2) == 0
	return c
}

// proxy is the library with the hooks.
func (c *composition) proxy(h smtpproxy.Hook) *smtpproxy.Proxy {
	p := &smtpproxy.Proxy{Hook: h, Commands: c.commands, AllowInsecureAuth: true, MaxErrors: -1}
	if c.onPass {
		p.OnFailure = func(*hookContext, smtpproxy.Failure) decision { return pass{} }
	}
	return p
}

// command returns a line of the client's. One that wants what it does next to depend on
// the reply is the last one that it sends at once (RFC 2920 section 3.1).
func (c *composition) command() (line string, isLast bool) {
	c.lines++
	n := c.lines
	switch c.IntN(16) {
	case 0, 1, 2:
		return fmt.Sprint("NOOP ", n), false
	case 3, 4:
		return fmt.Sprint("VRFY ", n), false
	case 5:
		return "RSET", false
	case 6:
		return fmt.Sprint("HELP ", n), false
	case 7:
		return fmt.Sprint("?", n), false
	case 8, 9:
		return fmt.Sprintf("MAIL FROM:<s%d@example.com>", n), false
	case 10, 11:
		return fmt.Sprintf("RCPT TO:<r%d@example.org>", n), false
	case 12:
		return "DATA", true
	case 13:
		return "noop " + fmt.Sprint(n), false
	}
	return []string{"AUTH PLAIN", "AUTH PLAIN", "AUTH PLAIN " + response}[c.IntN(3)], true
}

// converse plays the client's side.
func (c *composition) converse(p *peer) {
	p.expect("220")
	sasl := false
	for n := range 14 {
		var lines []string
		switch {
		case n == 0:
			lines = []string{"EHLO client.example"}
		case sasl:
			lines = []string{[]string{response, "*", "c2VjcmV0", fmt.Sprintf("c2VjcmV0%04d", c.IntN(10000))}[c.IntN(4)]}
		case n > 11:
			lines = []string{"QUIT"}
		case c.IntN(8) == 0:
			lines = []string{[]string{"BDAT 3 LAST", "BDAT 3"}[c.IntN(2)]}
		default:
			for range 1 + c.IntN(5) {
				line, isLast := c.command()
				if lines = append(lines, line); isLast {
					break
				}
			}
		}
		octets := strings.Join(lines, "\r\n") + "\r\n"
		if strings.HasPrefix(lines[0], "BDAT ") && !sasl {
			octets += "abc"
		}
		p.send(octets)
		for _, line := range lines {
			code := c.hears(p, line)
			if sasl = code == 334; code == 0 || code == 421 || code == 221 {
				return
			}
			if code == 354 {
				p.send("hi\r\n.\r\n")
				c.hears(p, ".")
			}
		}
	}
}

// hears reads the reply to a line; its code is 0 if there is none.
func (c *composition) hears(p *peer, line string) (code int) {
	for {
		text, err := p.r.ReadString('\n')
		if err != nil {
			c.early = true
			return 0
		}
		if len(text) > 3 && text[3] == '-' {
			continue
		}
		fmt.Sscanf(text, "%d", &code)
		c.heard = append(c.heard, heard{line, code})
		return code
	}
}

// play plays the dialogue, and tells what is wrong with it.
func (c *composition) play(t *testing.T, f fronted, tr transport, strict bool) error {
	served := make(chan error, 1)
	go func() { served <- f.serve(tr) }()
	p := dialPeer(t, tr)
	c.converse(p)
	last := heard{}
	if len(c.heard) > 0 {
		last = c.heard[len(c.heard)-1]
	}
	var rest []byte
	if last.code == 421 || last.code == 221 {
		rest, _ = io.ReadAll(p.r)
	}
	p.Close()
	f.close()
	<-served
	rec := f.Record()
	err := c.check(rec.Commands, rec.SASL, strict)
	switch {
	case len(rest) > 0:
		err = errors.Join(err, fmt.Errorf("one reply too many: %q", rest))
	case c.early && strict:
		err = errors.Join(err, errors.New("a reply too few"))
	}
	if err != nil {
		err = fmt.Errorf("seed %d: %w\nhooks %v\ncommands %v, OnFailure passes: %v\nheard %v\nexecuted %q, %q",
			c.seed, err, c.top, c.commands, c.onPass, c.heard, rec.Commands, rec.SASL)
	}
	return err
}

// check holds what was shown, executed and replied against the model.
func (c *composition) check(commands, responses []string, strict bool) error {
	want := new(shown)
	m := &model{top: c.top, asked: make(map[*tree][]*tree), commands: c.commands}
	m.show = func(t *tree, cmd command) (decision, error) {
		want.add(t.name, cmd)
		return t.decides(c.seed, cmd)
	}
	var passed, accepted, passedSASL []string
	sasl, own := false, false
	for i, h := range c.heard {
		if h.line == "." {
			continue // content
		}
		w := m.line(h.line, sasl, own)
		isOver := false
		switch {
		case w.reply != nil && w.err == nil:
			if h.code != w.reply.Code {
				return fmt.Errorf("%q got %d, but a hook replied %d", h.line, h.code, w.reply.Code)
			}
		case w.err != nil && (own || !c.onPass):
			if isOver = true; h.code != 421 || i < len(c.heard)-1 {
				return fmt.Errorf("%q got %d, but a hook has failed", h.line, h.code)
			}
		case sasl:
			passedSASL = append(passedSASL, w.cmd.Line)
		default:
			if passed = append(passed, w.cmd.Line); h.code < 400 {
				accepted = append(accepted, w.cmd.Line)
			}
		}
		own = !isOver && w.err == nil && w.reply != nil && h.code == 334
		sasl = h.code == 334
	}
	for i := range max(len(c.shown.list), len(want.list)) {
		if i >= len(c.shown.list) || i >= len(want.list) || c.shown.list[i] != want.list[i] {
			return fmt.Errorf("shown was\n\t%s\nwant\n\t%s", strings.Join(c.shown.list[i:], "\n\t"), strings.Join(want.list[i:], "\n\t"))
		}
	}
	if !strict {
		// go-smtp's backend knows of envelopes alone.
		commands = slices.DeleteFunc(commands, func(l string) bool { return !strings.HasPrefix(l, "MAIL ") && !strings.HasPrefix(l, "RCPT ") })
		passed, accepted, responses, passedSASL = envelopes(passed), envelopes(accepted), nil, nil
	}
	rest := passed
	for n, line := range commands {
		if isOwnReset(commands[n:], rest) {
			continue
		}
		i := slices.Index(rest, line)
		if i < 0 {
			return fmt.Errorf("executed, but not passed: %q, of %q", line, passed)
		}
		rest = rest[i+1:]
	}
	if line, ok := missing(accepted, commands); !ok {
		return fmt.Errorf("accepted, but not executed: %q", line)
	}
	if line, ok := missing(passedSASL, responses); !ok {
		return fmt.Errorf("passed, but not given to the server: %q", line)
	}
	cancels := slices.DeleteFunc(slices.Clone(responses), func(l string) bool { return l == "*" })
	if line, ok := missing(cancels, passedSASL); !ok {
		return fmt.Errorf("given to the server, but not passed: %q", line)
	}
	return nil
}

// missing returns the first of some lines that isn't among others, in order.
func missing(lines, others []string) (line string, ok bool) {
	for _, line := range lines {
		i := slices.Index(others, line)
		if i < 0 {
			return line, false
		}
		others = others[i+1:]
	}
	return "", true
}

func TestHooksOfHooksAreShownWhatTheModelSaysAndNothingSlipsPastThem(t *testing.T) {
	for _, name := range []string{"strict", "go-smtp"} {
		for transport, listen := range transports {
			t.Run(name+" over "+transport, func(t *testing.T) {
				t.Parallel()
				showings, exchanges := 0, 0
				for seed := range uint64(2 * *sessions) {
					c := compose(seed)
					f := fronts[name](c.proxy(c.top.hook(c.shown, seed)))
					if err := c.play(t, f, listen(t), name == "strict"); err != nil {
						t.Fatal(err)
					}
					showings += len(c.shown.list)
					for _, s := range c.shown.list {
						if strings.HasSuffix(s, "SASL: true") {
							exchanges++
						}
					}
				}
				if showings < 30**sessions || exchanges < *sessions {
					t.Errorf("hooks were shown %d lines, %d of them of an exchange: the property says little", showings, exchanges)
				}
			})
		}
	}
}

func TestCarelessHooksOfHooksAreFoundOut(t *testing.T) {
	play := func(seed uint64, fault string) error {
		c := compose(seed)
		c.commands, c.onPass = nil, false // which are the library's to know
		m := &model{top: c.top, asked: make(map[*tree][]*tree), fault: fault}
		m.show = func(t *tree, cmd command) (decision, error) {
			c.shown.add(t.name, cmd)
			return t.decides(seed, cmd)
		}
		return c.play(t, fronts["strict"](c.proxy(carelessHook{m})), overTCP(t), true)
	}
	for seed := range uint64(50) {
		if err := play(seed, ""); err != nil {
			t.Fatalf("a careful one is found careless: %v", err)
		}
	}
	for _, fault := range []string{"Next takes away", "all see a secret", "an asker is called twice"} {
		found := false
		for seed := uint64(0); seed < 50 && !found; seed++ {
			found = play(seed, fault) != nil
		}
		if !found {
			t.Errorf("%s: not found in 50 dialogues", fault)
		}
	}
}
