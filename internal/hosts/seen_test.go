package hosts

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file proves that a hook is shown what the server has: the transaction in its
// view at DATA, or BDAT, is the one that the host's handler is given with the
// message.

// unlike tells where the two differ.
func unlike(h host, events []event) string {
	var last, now view
	var line string
	var arguments []string // of MAIL and RCPT, as passed
	for i, e := range events {
		problem := ""
		switch e.what {
		case shown:
			last = e.view
			problem = misquoted(last, arguments)
		case passed:
			line = e.text
			arguments = append(arguments, argument(line))
			if verb := verbOf(line); verb == "DATA" || verb == "BDAT" {
				now = last
			}
		case delivered, refused:
			problem = differs(e.msg, now)
		}
		if problem != "" {
			return fmt.Sprintf("%s\n%s", problem, tale(events[:i+1]))
		}
	}
	return ""
}

// differs compares a message with the view at its DATA.
func differs(m message, v view) string {
	switch {
	case !v.active:
		return "a message outside of a transaction that the hook has seen"
	case !v.sender.is(m.from):
		return fmt.Sprintf("the hook saw the sender %v, the host has %q", v.sender, m.from)
	case len(m.to) != len(v.recipients):
		return fmt.Sprintf("the hook saw the recipients %v, the host has %q", v.recipients, m.to)
	}
	for i, to := range m.to {
		if !v.recipients[i].is(to) {
			return fmt.Sprintf("the hook saw the recipient %v, the host has %q", v.recipients[i], to)
		}
	}
	return ""
}

// misquoted tells which argument in a view isn't one that was passed.
func misquoted(v view, arguments []string) string {
	for _, m := range append([]mailbox{v.sender}, v.recipients...) {
		if m.unparsed != "" && !slices.Contains(arguments, m.unparsed) {
			return fmt.Sprintf("the hook saw the argument %q, which nobody has sent", m.unparsed)
		}
	}
	return ""
}

// roam says commands in any order, with paths that servers read differently.
func roam(d *dialogue) {
	recipients := 0 // at most: in LMTP, as many statuses come
	d.ask("%s client.example", d.hello())
	for range 4 + d.IntN(20) {
		if d.quiet(); d.done() {
			return
		}
		switch d.IntN(12) {
		case 0:
			d.ask("%s", d.pick(d.hello()+" again.example", "HELO again.example", "HELO", "EHLO", "HELO nohost", "RSET", "RSET", "RSET hook", "NOOP", "VRFY x"))
		case 1, 2, 3:
			d.ask("MAIL %s", d.reversePath())
		case 4, 5, 6, 7:
			if positive(d.ask("RCPT %s", d.forwardPath())) {
				recipients++
			}
		case 8:
			if d.host.chunks && recipients > 0 {
				d.roamChunk(&recipients)
			}
		default:
			d.roamData(&recipients)
		}
	}
	d.quiet()
}

// roamData sends a message, if DATA is accepted.
func (d *dialogue) roamData(recipients *int) {
	if d.ask("DATA") != 354 {
		return
	}
	text := d.pick("", "text\r\n", refuseWord+"\r\n", customWord+"\r\n", unreadWord+"\r\n", ".\u00a0\r\n", " .\r\n", strings.Repeat("x", 45)+"\r\n")
	d.say(stuffed(text) + ".\r\n")
	d.replies(recipients)
}

// roamChunk sends a message in a chunk.
func (d *dialogue) roamChunk(recipients *int) {
	text := d.pick("", "text\r\n", refuseWord+"\r\n", unreadWord+"\r\n", "RSET\r\n", strings.Repeat("x", 45)+"\r\n")
	d.say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text))
	d.replies(recipients)
}

// replies reads the replies to a message: in LMTP as many as there are, and no fewer
// than one.
func (d *dialogue) replies(recipients *int) {
	d.reply()
	for d.lmtp && *recipients > 1 && d.waiting() {
		d.reply()
	}
	*recipients = 0
}

// waiting tells whether there's something to read.
func (d *dialogue) waiting() bool {
	if d.done() {
		return false
	}
	wait := 2 * time.Second
	if !d.bubble {
		wait = 20 * time.Millisecond
	}
	d.client.SetReadDeadline(time.Now().Add(wait))
	_, err := d.r.Peek(1)
	return err == nil
}

func (d *dialogue) reversePath() string {
	n := d.number()
	return d.pick(
		fmt.Sprintf("FROM:<s%d@example.com>", n), fmt.Sprintf("FROM:<s%d@example.com>", n), fmt.Sprintf("FROM:<S.Ender%d@Example.COM>", n), "FROM:<>",
		fmt.Sprintf("from:<s%d@example.com> SIZE=10", n), fmt.Sprintf("FROM: <s%d@example.com>", n), fmt.Sprintf("FROM:s%d@example.com", n),
		fmt.Sprintf(`FROM:<"s%d"@example.com>`, n), fmt.Sprintf(`FROM:<"s %d"@example.com>`, n), fmt.Sprintf("FROM:<@relay.example:s%d@example.com>", n),
		fmt.Sprintf("FROM:good@ok.example FROM:<s%d@evil.example>", n), fmt.Sprintf("FROM:<good@ok.example> X=FROM:<s%d@evil.example>", n),
		fmt.Sprintf("FROM:<good@ok.example> <s%d@evil.example>", n), fmt.Sprintf("FROM:<s%d@evil.example.>", n),
		fmt.Sprintf("FROM:<a..%d@docomo.example>", n),
		fmt.Sprintf("FROM:<s%d@evil.example>SIZE=1", n), fmt.Sprintf("FROM:<s%d@evil.example> X=<y>", n), fmt.Sprintf("X FROM:<s%d@evil.example>", n),
		fmt.Sprintf("FROM:<no%d@example.com>", n), fmt.Sprintf("FROM:<hook%d@example.com>", n), fmt.Sprintf("FROM:<alias%d@example.com>", n),
		fmt.Sprintf("FROM:<s%d%srset@example.com>", n, acceptVerb), fmt.Sprintf("FROM:<s%d%sdata@example.com>", n, refuseVerb))
}

func (d *dialogue) forwardPath() string {
	n := d.number()
	return d.pick(
		fmt.Sprintf("TO:<r%d@example.org>", n), fmt.Sprintf("TO:<r%d@example.org>", n),
		fmt.Sprintf("to:<R.Cpt%d@Example.ORG>", n), fmt.Sprintf("TO: <r%d@example.org>", n),
		fmt.Sprintf("TO:r%d@example.org", n), fmt.Sprintf(`TO:<"r %d"@example.org>`, n), fmt.Sprintf("TO:<@relay.example:r%d@example.org>", n), "TO:<postmaster>",
		fmt.Sprintf("TO:good@ok.example TO:<r%d@evil.example>", n), fmt.Sprintf("TO:<good@ok.example> X=TO:<r%d@evil.example>", n),
		fmt.Sprintf("TO:good@ok.example X=TO:<r%d@evil.example>", n), fmt.Sprintf("TO:<good@ok.example> <r%d@evil.example>", n),
		fmt.Sprintf("TO:<r%d@evil.example.>", n), fmt.Sprintf("TO:<a..%d@docomo.example>", n),
		fmt.Sprintf("TO:<r%d@evil.example>SIZE=1", n),
		fmt.Sprintf("X TO:<r%d@evil.example>", n), fmt.Sprintf("TO:<good%d@ok.example>,<evil@evil.example>", n), fmt.Sprintf("TO:Good <r%d@evil.example>", n),
		fmt.Sprintf("TO:<no%d@example.org>", n), fmt.Sprintf("TO:<hook%d@example.org>", n), fmt.Sprintf("TO:<alias%d@example.org>", n), fmt.Sprintf("TO:<late%d@example.org>", n))
}

// look plays one roaming client and tells where the views differ, and how many
// messages the host has had.
func look(t *testing.T, seed uint64, h host, c cut, tr transport, f front) (problem string, messages int) {
	t.Helper()
	lim := limits{size: []int{40, 1000}[seed%2], recipients: 5, timeout: time.Minute}
	problem, events := talk(t, seed, h, lim, c, tr, f, false, roam)
	if problem == "" {
		if problem = unlike(h, events); problem != "" {
			problem = fmt.Sprintf("%s, seed %d, %s over %s, limits %+v: %s", h.name, seed, c, tr.name, lim, problem)
		}
	}
	for _, e := range events {
		if e.what == delivered || e.what == refused {
			messages++
		}
	}
	return problem, messages
}

func TestAHookIsShownTheTransactionThatTheHostHas(t *testing.T) {
	forEachHost(t, func(t *testing.T, h host, c cut, tr transport, n int) {
		var found findings
		messages := 0
		for seed := range uint64(n) {
			f := library(settingsFor(tr, seed%4 == 3)...)
			problem, m := look(t, seed, h, c, tr, f)
			found.add(seed, problem)
			messages += m
		}
		found.report(t, "of a roaming client", n)
		if messages < n/5 {
			t.Errorf("only %d messages in %d sessions: the property says little", messages, n)
		}
	})
}
