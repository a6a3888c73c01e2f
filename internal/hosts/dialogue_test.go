package hosts

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dialogue is a client that waits for replies, and what it has said and got.
type dialogue struct {
	*stage
	*rand.Rand
	cut     cut
	r       *bufio.Reader
	n       int
	log     []string // what was said and got
	last    int      // the code of the last reply
	text    string   // all of it
	over    bool     // the connection is closed
	greeted string   // the host's greeting
	problem string   // the first one
}

func (d *dialogue) pick(of ...string) string { return of[d.IntN(len(of))] }

func (d *dialogue) number() int { d.n++; return d.n }

func (d *dialogue) chance(n int) bool { return d.IntN(n) == 0 }

func (d *dialogue) fail(format string, args ...any) {
	if d.problem == "" {
		d.problem = fmt.Sprintf(format, args...)
	}
}

// done tells that there's no more to say.
func (d *dialogue) done() bool { return d.over || d.problem != "" }

// say sends octets.
func (d *dialogue) say(octets string) {
	if d.done() {
		return
	}
	d.log = append(d.log, fmt.Sprintf("C: %.300q", octets))
	d.send(d.Rand, d.cut, octets) // if that fails, so will reading the reply
}

// reply reads one reply and returns its code, 0 if the connection is closed.
func (d *dialogue) reply() int {
	if d.done() {
		return 0
	}
	d.client.SetReadDeadline(time.Now().Add(d.patience()))
	text, err := readReply(d.r)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		d.fail("no reply comes")
		return 0
	case err != nil && text != "":
		d.fail("the connection is closed after half a reply, %q", text)
		return 0
	case err != nil:
		d.over = true
		d.log = append(d.log, "closed")
		return 0
	}
	d.log = append(d.log, fmt.Sprintf("S: %.300q", text))
	code, err := strconv.Atoi(text[:min(3, len(text))])
	if err != nil {
		d.fail("got %q, which is no reply", text)
	}
	d.last, d.text = code, text
	return code
}

// ask sends a command line and returns the code of its reply.
func (d *dialogue) ask(format string, args ...any) int {
	d.say(fmt.Sprintf(format, args...) + "\r\n")
	return d.reply()
}

// quiet reads what nobody has asked for, and notes the end of the connection. What
// may come then is a refusal, right before the end: the client takes it for that to
// its next command, which nobody will see (RFC 5321 section 3.8).
//
// Over a socket nobody knows how long to wait for it: there it takes a command.
func (d *dialogue) quiet() {
	if !d.bubble {
		d.ask("NOOP")
		return
	}
	if d.done() {
		return
	}
	extra := 0
	for {
		d.client.SetReadDeadline(time.Now().Add(2 * time.Second)) // longer than any wait of the library's own
		if _, err := d.r.Peek(1); err != nil {
			d.over = !errors.Is(err, os.ErrDeadlineExceeded)
			break
		}
		if code := d.reply(); code < 400 {
			d.fail("got a reply, %d, that nobody has asked for", code)
			return
		}
		extra++
	}
	if d.over {
		d.log = append(d.log, "closed")
	} else if extra > 0 {
		d.fail("got a refusal that nobody has asked for, and the connection goes on")
	}
}

// talk plays one dialogue. It returns what is wrong with it, and what happened.
func talk(t *testing.T, seed uint64, h host, lim limits, c cut, tr transport, f front, passes bool, play func(d *dialogue)) (problem string, events []event) {
	t.Helper()
	name := fmt.Sprintf("%s, seed %d, %s over %s, limits %+v", h.name, seed, c, tr.name, lim)
	var log []string
	problem = tr.run(t, name, func() string {
		s, err := raise(h, lim, tr, f, passes)
		if err != nil {
			return err.Error()
		}
		d := &dialogue{stage: s, Rand: rand.New(rand.NewPCG(seed, 2)), cut: c, r: bufio.NewReader(s.client)}
		if !tr.starts { // where the greeting is behind it
			d.greeting()
		}
		play(d)
		got, problem := s.close()
		if got != "" && d.problem == "" && tr.bubble {
			problem = fmt.Sprintf("got %q at the end", got)
		}
		if d.problem != "" {
			problem = d.problem
		}
		events, log = s.rec.all(), d.log
		return problem
	})
	if problem != "" {
		problem = fmt.Sprintf("%s: %s\n  %s\n%s", name, problem, strings.Join(log, "\n  "), tale(events))
	}
	return problem, events
}

func (d *dialogue) greeting() {
	if code := d.reply(); code != 220 {
		d.fail("the greeting is %d", code)
	}
	d.greeted = d.text
}
