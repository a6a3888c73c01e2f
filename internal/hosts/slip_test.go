package hosts

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// This file proves that nothing slips past the hook.

// check looks for something that must not have happened.
type check func(h host, events []event) string

// slipped tells what the host executed that the hook had not passed just before,
// in order, once. The library's own RSET, right before a MAIL command that the hook
// has passed, is the one exception.
func slipped(h host, events []event) string {
	var pending struct {
		line                 string
		executed, called     bool // by the host, as a line and as a call
		given                bool // to the host
		open                 bool // the line was passed, and nothing has come after it
		ownReset, resetGiven bool
	}
	due := 0 // replies that the host may have written, to commands and as a greeting
	replies := &replyCounter{}
	refusedMidway := false
	for i, e := range events {
		problem := ""
		switch e.what {
		case opened:
			due, replies, refusedMidway = 1, &replyCounter{}, false
		case shown:
			pending.open = false
		case passed:
			pending.line, pending.executed, pending.called = e.text, false, false
			pending.open, pending.given, pending.ownReset, pending.resetGiven = true, false, false, false
		case midway:
			refusedMidway = h.midway
		case handed:
			switch {
			case refusedMidway:
				problem = fmt.Sprintf("was handed %q after it had refused a message midway", e.text)
			case pending.open && !pending.given && isTheLine(strings.TrimSuffix(e.text, "\r\n"), pending.line):
				pending.given = true
				due++
			case pending.open && !pending.given && !pending.resetGiven && verbOf(pending.line) == "MAIL" && e.text == "RSET\r\n":
				pending.resetGiven = true
				due++
			}
		case wrote:
			due -= replies.count(e.text)
			if due < 0 && !h.lmtp {
				problem = fmt.Sprintf("replied %q to what was no command", e.text)
				due = 0
			}
		case command:
			switch {
			case pending.open && !pending.executed && isTheLine(e.text, strings.TrimSpace(pending.line)):
				pending.executed = true
			case pending.open && !pending.executed && !pending.ownReset && verbOf(pending.line) == "MAIL" && e.text == "RSET":
				pending.ownReset = true
			default:
				problem = fmt.Sprintf("executed %q unseen", e.text)
			}
		case mail, rcpt:
			verb := map[what]string{mail: "MAIL", rcpt: "RCPT"}[e.what]
			if !pending.open || pending.called || verbOf(pending.line) != verb || !strings.Contains(unquoted(pending.line), unquoted(e.text)) {
				problem = fmt.Sprintf("took %q for the %s of a command unseen", e.text, e.what)
			}
			pending.called = true
		case begins:
			if !pending.open || pending.called || verbOf(pending.line) != "DATA" {
				problem = "began to take content unseen"
			}
			pending.called = true
		}
		if problem == "" {
			continue
		}
		return fmt.Sprintf("%s\n%s", problem, tale(events[:i+1]))
	}
	return ""
}

// escaped tells what of a message's body became a command. Whoever wrote the body
// isn't the client: a client with manners must not be made to send his commands.
func escaped(_ host, events []event) string {
	for i, e := range events {
		switch e.what {
		case shown, command, mail, rcpt:
			if strings.Contains(e.text, bodyName) {
				return fmt.Sprintf("the body became a command, %s %q\n%s", e.what, e.text, tale(events[:i+1]))
			}
		}
	}
	return ""
}

// isTheLine tells whether what the host got is the line that was passed. BDAT may
// have another form, in which all read the same size.
func isTheLine(got, line string) bool {
	return got == line || verbOf(line) == "BDAT" && verbOf(got) == "BDAT"
}

// replyCounter counts the replies in what a host has written, in pieces.
type replyCounter struct{ rest string }

// count returns how many last replies to commands are complete now. One that nobody
// has asked for doesn't count if it says that the host closes: 421 (RFC 5321 section
// 3.8), and go-smtp's replies to a line that is too long, and to too many errors.
func (c *replyCounter) count(text string) (n int) {
	c.rest += text
	for {
		line, rest, ok := strings.Cut(c.rest, "\n")
		if !ok {
			return n
		}
		c.rest = rest
		more := len(line) > 3 && line[3] == '-'
		closes := strings.HasPrefix(line, "421") || strings.Contains(line, "Too long line, closing") || strings.Contains(line, "Too many errors. Quiting")
		if !more && !closes && line[0] != '3' {
			n++
		}
	}
}

// blast plays one random session that pays no regard to replies.
func blast(t *testing.T, seed uint64, h host, c cut, tr transport, f front, checks ...check) (problem string, executed int) {
	t.Helper()
	name := fmt.Sprintf("%s, seed %d, %s over %s", h.name, seed, c, tr.name)
	r := rand.New(rand.NewPCG(seed, 1))
	lim := limits{size: []int{40, 40, 200, 10_000}[r.IntN(4)], recipients: 5, timeout: time.Minute}
	if !tr.bubble {
		lim.timeout = time.Second // some wait for it
	}
	s := &stream{Rand: r, host: h, limits: lim, pauses: tr.bubble}
	pieces := s.draw(1 + r.IntN(12))
	var events []event
	problem = tr.run(t, name, func() string {
		stage, err := raise(h, lim, tr, f, false)
		if err != nil {
			return err.Error()
		}
		for _, p := range pieces {
			if stage.send(r, c, p.octets) != nil {
				break // the host has closed
			}
			time.Sleep(p.pause) // what was sent comes alone; no time in a bubble, 0 without one
		}
		if tr.bubble {
			time.Sleep(time.Second) // until all has been done that can be
		}
		_, problem := stage.close()
		events = stage.rec.all()
		return problem
	})
	for _, check := range checks {
		if problem == "" {
			problem = check(h, events)
		}
	}
	for _, e := range events {
		if e.what == command || e.what == mail || e.what == rcpt {
			executed++
		}
	}
	if problem != "" {
		problem = fmt.Sprintf("%s, limits %+v: %s\nsent %.6000s", name, lim, problem, fmt.Sprint(pieces))
	}
	return problem, executed
}

func TestEveryCommandThatAHostExecutesWasPassedByTheHook(t *testing.T) {
	forEachHost(t, func(t *testing.T, h host, c cut, tr transport, n int) {
		var blasts, bodies findings
		total := 0
		for seed := range uint64(n) {
			f := library(settingsFor(tr, seed%4 == 3)...)
			problem, executed := blast(t, seed, h, c, tr, f, slipped)
			blasts.add(seed, problem)
			total += executed
			bodies.add(seed, attempt(t, seed, h, c, tr, f))
		}
		blasts.report(t, "of octets", n)
		bodies.report(t, "of a client with manners", n)
		if total < n/2 {
			t.Errorf("only %d commands were executed in %d sessions: the property says little", total, n)
		}
	})
}

// attempt plays a client with manners, whose messages are full of commands.
func attempt(t *testing.T, seed uint64, h host, c cut, tr transport, f front) string {
	t.Helper()
	name := fmt.Sprintf("%s, seed %d, %s over %s", h.name, seed, c, tr.name)
	_, events := farewell(t, seed, h, c, tr, f, make(tally))
	for _, check := range []check{slipped, escaped} {
		if problem := check(h, events); problem != "" {
			return name + ": " + problem
		}
	}
	return ""
}
