package hosts

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file proves that nobody notices the library, in lock step: a client that says
// the same to a host and to the same host behind the library, a command at a time,
// gets the same replies, and the host does the same. Where they differ, it has to be
// in the list of differences, and each of these has to occur.

// exchange is a command, or the content of a message, and both replies to it.
type exchange struct {
	host        host
	line        string // empty for content
	content     string
	bare, front answer
}

// answer is what a client gets: the text of the last reply, and how many there were.
type answer struct {
	text    string
	code    int // 0 if the connection was closed
	replies int
	over    bool // the connection is closed now
}

func (a answer) String() string {
	s := fmt.Sprintf("%d replies, the last %q", a.replies, a.text)
	if a.over {
		s += ", and the end"
	}
	return s
}

// pair is a client of both.
type pair struct {
	*rand.Rand
	host        host
	bare, front *dialogue
	n           int
	strange     int
	open        bool // more or less: what a client would believe
	differences map[string]int
	// excused are messages that the bare host alone had at a difference: it was
	// sent them in a transaction that the library had ended.
	excused []message
	had     int // messages that the bare host had before the exchange
	problem string
}

func (p *pair) pick(of ...string) string { return of[p.IntN(len(of))] }

func (p *pair) number() int { p.n++; return p.n }

// both sends the same to both, and reads one reply, or all that comes.
func (p *pair) both(octets string, all bool) (bare, front answer) {
	p.had = len(deliveries(p.bare.rec))
	for i, d := range []*dialogue{p.bare, p.front} {
		a := answer{}
		d.say(octets)
		a.code = d.reply()
		if !d.done() {
			a.text, a.replies = d.text, 1
		}
		for all && d.waiting() {
			d.reply()
			if !d.done() {
				a.text, a.replies = d.text, a.replies+1
			}
		}
		if d.problem == "" {
			d.over = d.over || d.ended()
		} else if p.problem == "" {
			p.problem = d.problem
		}
		a.over = d.over
		*[]*answer{&bare, &front}[i] = a
	}
	return bare, front
}

// ended tells whether the connection is closed.
func (d *dialogue) ended() bool {
	d.client.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := d.r.Peek(1)
	return err != nil && !strings.Contains(err.Error(), "timeout")
}

// sameText compares replies. mhale/smtpd tells mechanisms in no order.
func sameText(a, b string) bool {
	order := strings.NewReplacer("AUTH LOGIN PLAIN", "AUTH PLAIN LOGIN")
	return order.Replace(a) == order.Replace(b)
}

// step plays one command, and reports whether both can go on.
func (p *pair) step(line string) (code int, goesOn bool) {
	ending := "\r\n"
	if strings.HasSuffix(line, "\n") {
		ending = "" // the line has one of its own
	}
	// A host may tell statuses before it has the message.
	bare, front := p.both(line+ending, verbOf(line) != "DATA")
	goesOn = p.judge(exchange{host: p.host, line: line, bare: bare, front: front})
	return front.code, goesOn
}

// judge compares, and after a difference that is listed brings both back to the same
// state, if it can.
func (p *pair) judge(x exchange) (goesOn bool) {
	if p.problem != "" {
		return false
	}
	a, b := x.bare, x.front
	if a.code == b.code && a.replies == b.replies && a.over == b.over && sameText(a.text, b.text) {
		return !a.over
	}
	for _, d := range differences {
		if d.is(x) {
			p.differences[d.name]++
			p.excused = append(p.excused, deliveries(p.bare.rec)[p.had:]...)
			return p.again(x)
		}
	}
	p.problem = fmt.Sprintf("%q got %v, without anything between %v", x.line+x.content, b, a)
	return false
}

// again makes both forget their transactions, unless more than that differs now.
func (p *pair) again(x exchange) bool {
	for _, a := range []answer{x.bare, x.front} {
		if a.over || a.code/100 == 3 || a.code == 235 {
			return false
		}
	}
	for _, line := range []string{"RSET\r\n", p.host.hello() + " client.example\r\n", "RSET\r\n"} {
		bare, front := p.both(line, true)
		if bare.code != 250 || front.code != 250 {
			p.problem = fmt.Sprintf("%q got %v, without anything between %v", line, front, bare)
			return false
		}
	}
	p.open = false
	return true
}

// play says what comes to a client's mind.
func (p *pair) play() {
	if p.IntN(8) > 0 {
		if _, goesOn := p.step(p.host.hello() + " client.example"); !goesOn {
			return
		}
	}
	for range 3 + p.IntN(25) {
		if !p.move() {
			return
		}
	}
	p.step("QUIT")
}

func (p *pair) move() (goesOn bool) {
	n := p.number()
	switch p.IntN(34) {
	case 0, 1, 2, 3:
		if p.open && p.IntN(6) > 0 {
			return p.recipient(n)
		}
		code, goesOn := p.step(p.pick("MAIL FROM:", "MAIL FROM:", "mail from:") + p.pick(
			fmt.Sprintf("<s%d@example.com>", n), fmt.Sprintf("<s%d@example.com>", n), "<>", fmt.Sprintf("<s%d@example.com> SIZE=10", n),
			fmt.Sprintf("<s%d@example.com> BODY=8BITMIME", n), fmt.Sprintf("<no%d@example.com>", n), "<", fmt.Sprintf("<s%d@example.com> SIZE=99999999", n)))
		p.open = p.open || positive(code)
		return goesOn
	case 4, 5, 6, 7:
		return p.recipient(n)
	case 8, 9, 10, 11, 12:
		return p.message()
	case 13:
		return p.plain(p.pick("RSET", "rset"))
	case 14:
		return p.plain(p.pick(p.host.hello()+" again.example", "HELO again.example", "EHLO again.example", "LHLO again.example"))
	case 15:
		return p.plain(p.pick("HELO", "EHLO", "HELO nohost", "EHLO nohost"))
	case 16:
		return p.plain(p.pick("NOOP", "noop", "NOOP x", "VRFY someone", "HELP", "EXPN list"))
	case 17:
		return p.odd()
	case 18:
		return p.auth()
	case 19:
		if p.host.chunks {
			return p.chunk()
		}
		return p.plain(p.pick("BDAT 0 LAST", "BDAT 0"))
	case 20:
		if p.host.name == chrjHost.name {
			return p.plain("XCLIENT NAME=x")
		}
		return true
	case 21:
		return p.plain("NOOP\n")
	case 22:
		// What a host has kept of a message that it refused may show in other commands.
		goesOn := true
		for _, line := range []string{"RSET", "MAIL FROM:<s@example.com>", "RCPT TO:<r@example.org>", "DATA", "MAIL FROM:<", "AUTH PLAIN AHVzZXIAd3Jvbmc="} {
			var code int
			if code, goesOn = p.step(line); code == 354 && goesOn {
				goesOn = p.sends(refuseWord + "\r\n")
			}
			if !goesOn {
				break
			}
		}
		return goesOn
	default:
		return p.transaction(n)
	}
}

// transaction is a whole one, so that messages come often.
func (p *pair) transaction(n int) bool {
	for _, format := range []string{"MAIL FROM:<s%d@example.com>", "RCPT TO:<r%d@example.org>", "RCPT TO:<late%d@example.org>"} {
		line := fmt.Sprintf(format, n)
		if p.open && verbOf(line) == "MAIL" || strings.Contains(line, lateName) && p.IntN(3) > 0 {
			continue
		}
		code, goesOn := p.step(line)
		if !goesOn {
			return false
		}
		if negative(code) {
			return true
		}
		p.open = true
	}
	if p.host.chunks && p.IntN(3) == 0 {
		return p.chunk()
	}
	return p.message()
}

func (p *pair) plain(line string) bool {
	code, goesOn := p.step(line)
	open := p.open
	switch verbOf(line) {
	case "RSET", "EHLO", "HELO", "LHLO", "XCLIENT":
		p.open = false
	}
	if strings.Contains(line, "LO") && open && negative(code) && goesOn {
		// Some hosts keep the transaction, and go-smtp puts its recipients into
		// the next one.
		if p.IntN(2) == 0 {
			_, goesOn = p.step("RCPT TO:<kept@example.org>")
		}
		if goesOn {
			_, goesOn = p.step("RSET")
		}
	}
	return goesOn
}

// odd says what few servers know, and not often: go-smtp closes at the fourth.
func (p *pair) odd() bool {
	if p.strange++; p.strange > 2 {
		return true
	}
	return p.plain(p.pick("XYZZY", "", " NOOP", "\tNOOP", "1NOOP", "NO\x00OP", "STARTTLS", "STARTTLS x", "X", "DATA x", "RSET "))
}

func (p *pair) recipient(n int) bool {
	if !p.open && p.IntN(3) > 0 {
		return true
	}
	_, goesOn := p.step(p.pick(fmt.Sprintf("RCPT TO:<r%d@example.org>", n), fmt.Sprintf("RCPT TO:<r%d@example.org>", n), fmt.Sprintf("rcpt to:<r%d@example.org>", n),
		fmt.Sprintf("RCPT TO:<no%d@example.org>", n), "RCPT TO:<", "RCPT", fmt.Sprintf("RCPT TO:<late%d@example.org>", n)))
	return goesOn
}

// auth is a SASL exchange, where there is one.
func (p *pair) auth() bool {
	code, goesOn := p.step(p.pick("AUTH PLAIN", "AUTH PLAIN AHVzZXIAcGFzcw==", "AUTH PLAIN AHVzZXIAd3Jvbmc=", "AUTH", "AUTH X-OTHER"))
	if code == 334 && goesOn {
		_, goesOn = p.step(p.pick("AHVzZXIAcGFzcw==", "AHVzZXIAd3Jvbmc=", "*", "?"))
	}
	return goesOn
}

func (p *pair) text() string {
	return p.pick("", "text\r\n", "text\r\n", "text\r\n", refuseWord+"\r\n", customWord+"\r\n", plainWord+"\r\n", unreadWord+"\r\n", lineWord+"\r\n",
		".dot\r\n", "\u043c\u0438\u0440.\r\n", " .\r\n", ".\u00a0\r\ntext\r\n", ".\r\n", "a\nb\r\n", "a\rb\r\n", strings.Repeat("0123456789\r\n", 30),
		" .\r\n"+strings.Repeat("0123456789\r\n", 30), strings.Repeat("0123456789\r\n", 30)+" .\r\n")
}

// message is DATA and what follows it.
func (p *pair) message() bool {
	code, goesOn := p.step("DATA")
	if code != 354 || !goesOn {
		return goesOn
	}
	return p.sends(p.text())
}

// sends sends the content of a message.
func (p *pair) sends(text string) bool {
	bare, front := p.both(stuffed(text)+".\r\n", true)
	p.open = false
	return p.judge(exchange{host: p.host, content: text, bare: bare, front: front})
}

// chunk is BDAT.
func (p *pair) chunk() bool {
	text := p.text()
	last := " LAST"
	if !p.host.lmtp && p.IntN(3) == 0 {
		last = "" // in LMTP, a transfer that is broken off is a data race of go-smtp's own
	}
	bare, front := p.both(fmt.Sprintf("BDAT %d%s\r\n%s", len(text), last, text), true)
	return p.judge(exchange{host: p.host, line: "BDAT", content: text, bare: bare, front: front})
}

// deliveries returns the messages that a host's handler has accepted.
func deliveries(rec *record) (out []message) {
	for _, e := range rec.all() {
		if e.what == delivered {
			out = append(out, e.msg)
		}
	}
	return out
}

func equal(a, b message) bool { return a.String() == b.String() }

func contains(list []message, m message) bool {
	return slices.ContainsFunc(list, func(other message) bool { return equal(m, other) })
}

// notice plays one random client of both.
func notice(t *testing.T, seed uint64, h host, f front, ex map[string]int) (problem string, messages int) {
	t.Helper()
	lim := limits{size: []int{200, 10_000}[seed%2], recipients: 5, timeout: time.Hour / 2}
	name := fmt.Sprintf("%s, seed %d, limits %+v", h.name, seed, lim)
	var story string
	problem = memory.run(t, name, func() string {
		p := &pair{Rand: rand.New(rand.NewPCG(seed, 3)), host: h, differences: ex}
		for i, front := range []front{bare, f} {
			s, err := raise(h, lim, memory, front, true)
			if err != nil {
				return err.Error()
			}
			d := &dialogue{stage: s, cut: whole, r: bufio.NewReader(s.client)}
			d.greeting()
			*[]**dialogue{&p.bare, &p.front}[i] = d
		}
		p.play()
		_, problem1 := p.bare.close()
		_, problem2 := p.front.close()
		did, bareDid := deliveries(p.front.rec), deliveries(p.bare.rec)
		messages = len(did)
		bareDid = slices.DeleteFunc(bareDid, func(m message) bool { return contains(p.excused, m) })
		story = fmt.Sprintf("bare:\n  %s\nbehind it:\n  %s\n%s", strings.Join(p.bare.log, "\n  "), strings.Join(p.front.log, "\n  "), tale(p.front.rec.all()))
		switch {
		case p.problem != "":
			return p.problem
		case problem1 != "" || problem2 != "":
			return fmt.Sprintf("bare: %s, behind it: %s", problem1, problem2)
		case !slices.EqualFunc(did, bareDid, equal):
			return fmt.Sprintf("the host delivered %v, without anything between %v", did, bareDid)
		}
		return ""
	})
	if problem != "" {
		problem = name + ": " + problem + "\n" + story
	}
	return problem, messages
}
