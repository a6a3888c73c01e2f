package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about the RSET that goes to the host right before MAIL when the
// transaction before ended in doubt. The client gets no reply to it, no hook is shown
// it, and nobody counts it.

// fronts are the library, and the relay that obeys the same rules.
var fronts = []struct {
	name string
	front
}{
	{"library", library()},
	{"relay", careful(rules{})},
}

// An ending is how a transaction may end, and how many RSET a hook is to be shown, and
// the host to be handed, until the next one is open.
type ending struct {
	why           string
	on            func(h host) bool
	play          func(a *account)
	shown, handed int
}

var endings = []ending{
	{"there was none on a fresh connection", nil, func(*account) {}, 0, 0},
	{"its MAIL was refused by the hook", nil, func(a *account) { a.mail("hook@example.com", "") }, 0, 0},
	{"its message was accepted", nil, func(a *account) { a.begin("", 2); a.data("text\r\n") }, 0, 0},
	{"its message was accepted with a text of the handler's own", onMhale, func(a *account) { a.begin("", 1); a.data(customWord + "\r\n") }, 0, 0},
	{"its chunk was accepted", onChunks, func(a *account) { a.begin("", 1); a.chunk("text\r\n") }, 0, 0},
	{"the client sent RSET", nil, func(a *account) { a.begin("", 1); a.rset() }, 1, 1},
	{"its message was refused and the client sent RSET", notEarly, func(a *account) { a.begin("", 1); a.data(refuseWord + "\r\n"); a.rset() }, 1, 1},
	{"the client sent RSET amid chunks", onSMTPChunks, func(a *account) { a.begin("", 1); a.first(); a.rset() }, 1, 1},
	{"EHLO came amid it, and the client sent RSET", nil, func(a *account) { a.begin("", 1); a.greet(); a.rset() }, 1, 1},

	{"its message was refused by the handler", notEarly, func(a *account) { a.begin("", 1); a.data(refuseWord + "\r\n") }, 0, 1},
	{"its message was too big", func(h host) bool { return !h.early && h.name != bradfitzHost.name && h.name != mhaleHost.name }, func(a *account) {
		a.begin("", 1)
		a.data(strings.Repeat("x", a.size) + "\r\n")
	}, 0, 1},
	{"its message was refused for one of its recipients", onLMTP, func(a *account) {
		a.begin("", 1)
		a.rcpt(lateName + "@example.org")
		a.data("text\r\n")
	}, 0, 1},
	{"EHLO came amid it", nil, func(a *account) { a.begin("", 1); a.greet() }, 0, 1},
	{"EHLO came amid it, before a recipient", nil, func(a *account) { a.begin("", 0); a.greet() }, 0, 1},
	{"HELO came amid it that the host may refuse", nil, func(a *account) { a.begin("", 1); a.anew("HELO") }, 0, 1},
	{"EHLO came amid its chunks", onSMTPChunks, func(a *account) { a.begin("", 1); a.first(); a.greet() }, 0, 1},
	{"EHLO that the host refuses came amid its chunks", onSMTPChunks, func(a *account) { a.begin("", 1); a.first(); a.anew("EHLO") }, 0, 1},
	{"its chunk was refused by the hook", onChunks, func(a *account) { a.begin(refuseVerb+"bdat", 1); a.chunk("text\r\n") }, 0, 1},
	{"its chunk was refused by the handler", func(h host) bool { return h.chunks && !h.early }, func(a *account) {
		a.begin("", 1)
		a.chunk(refuseWord + "\r\n")
	}, 0, 1},
	{"its chunk was refused by the library, which has drained it", onChunks, func(a *account) { a.begin("", 0); a.lastChunk("RSET\r\n") }, 0, 1},
	{"its second chunk was too big", onSMTPChunks, func(a *account) {
		a.begin("", 1)
		a.first()
		a.lastChunk(strings.Repeat("x", a.size))
	}, 0, 1},
	{"the hook answered RSET itself", nil, func(a *account) { a.begin(acceptVerb+"rset", 1); a.rset() }, 1, 1},
	{"the hook answered EHLO itself", nil, func(a *account) { a.begin(acceptVerb+strings.ToLower(a.hello()), 1); a.greet() }, 0, 1},
	{"the client gave its peer another name", onChrj, func(a *account) { a.begin("", 1); a.ask("XCLIENT NAME=x") }, 0, 1},
}

func TestATransactionInDoubtIsResetBeforeTheNext(t *testing.T) {
	for _, f := range fronts {
		for _, h := range hosts {
			for _, e := range endings {
				if e.on != nil && !e.on(h) {
					continue
				}
				for _, way := range []string{"in lock step", "pipelined"} {
					t.Run(fmt.Sprintf("%s, %s, %s, %s", f.name, h.name, e.why, way), func(t *testing.T) {
						if problem := reset(t, h, f.front, e, way == "pipelined"); problem != "" {
							t.Error(problem)
						}
					})
				}
			}
		}
	}
}

// reset plays a transaction that ends, and the next one.
func reset(t *testing.T, h host, f front, e ending, pipelined bool) string {
	var before int
	problem, events := talk(t, 0, h, limits{size: 100, recipients: 5, timeout: time.Minute}, whole, memory, f, false, func(d *dialogue) {
		a := &account{dialogue: d}
		a.greet()
		e.play(a)
		before = len(d.rec.all())
		a.next(pipelined)
	})
	if problem != "" {
		return problem
	}
	return resets(events, before, e)
}

// next is a transaction that is delivered.
func (a *account) next(pipelined bool) {
	codes := []int{}
	group := []string{"MAIL FROM:<next@example.com>\r\n", "RCPT TO:<next@example.org>\r\n", "DATA\r\n"}
	if pipelined {
		a.say(strings.Join(group, ""))
	}
	for _, line := range group {
		if !pipelined {
			a.say(line)
		}
		codes = append(codes, a.reply())
	}
	if fmt.Sprint(codes) != "[250 250 354]" {
		a.fail("the next transaction got %v", codes)
	}
	a.say("text\r\n.\r\n")
	if code := a.reply(); code != 250 {
		a.fail("the next message got %d", code)
	}
	a.quiet()
}

// resets holds what happened around the next transaction against the rules.
func resets(events []event, before int, want ending) string {
	got, shownResets, id := 0, 0, ""
	var last event // that a hook was shown, or the host handed
	for i, e := range events {
		switch e.what {
		case shown:
			if e.text == "RSET" {
				shownResets++
			}
			if i >= before && verbOf(e.text) == "MAIL" {
				id = e.view.id
			}
			if i >= before && verbOf(e.text) == "RCPT" && e.view.id != id {
				return fmt.Sprintf("the transaction had ID %s at MAIL and %s at RCPT\n%s", id, e.view.id, tale(events))
			}
		case handed:
			if e.text == "RSET\r\n" {
				got++
				if i >= before && verbOf(last.text) != "MAIL" {
					return fmt.Sprintf("RSET was sent behind %q\n%s", last.text, tale(events))
				}
			}
		default:
			continue
		}
		last = e
	}
	switch {
	case got != want.handed:
		return fmt.Sprintf("the host was handed %d RSET, want %d\n%s", got, want.handed, tale(events))
	case shownResets != want.shown:
		return fmt.Sprintf("a hook was shown %d RSET, want %d\n%s", shownResets, want.shown, tale(events))
	}
	return ""
}

func TestTheLibrarysOwnRSETIsNotCounted(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			atMost := library(func(p *smtpproxy.Proxy) { p.MaxCommands = 7 })
			problem, events := talk(t, 0, h, limits{size: 100, recipients: 5, timeout: time.Minute}, whole, memory, atMost, false, func(d *dialogue) {
				a := &account{dialogue: d}
				a.greet()      // 1
				a.begin("", 1) // 2, 3
				a.greet()      // 4, and the transaction has ended in doubt
				a.next(false)  // 5, 6, 7
				a.ask("NOOP")  // one too many
				if a.last != 421 {
					a.fail("the eighth command got %d", a.last)
				}
			})
			if problem != "" {
				t.Fatal(problem)
			}
			if problem := resets(events, 0, ending{handed: 1}); problem != "" {
				t.Error(problem)
			}
		})
	}
}

func TestNothingIsResetForAMAILThatTheHookRefuses(t *testing.T) {
	for _, f := range fronts {
		for _, h := range hosts {
			t.Run(f.name+", "+h.name, func(t *testing.T) {
				problem, events := talk(t, 0, h, limits{size: 100, recipients: 5, timeout: time.Minute}, whole, memory, f.front, false, func(d *dialogue) {
					a := &account{dialogue: d}
					a.greet()
					a.begin("", 1)
					a.greet()
					a.refuses(a.mail("hook@example.com", ""), "MAIL")
					a.quiet()
				})
				if problem != "" {
					t.Fatal(problem)
				}
				for _, e := range events {
					if e.what == handed && e.text == "RSET\r\n" {
						t.Errorf("the host was handed RSET:\n%s", tale(events))
					}
				}
			})
		}
	}
}
