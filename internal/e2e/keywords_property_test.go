package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file holds lists of keywords that hooks change at random against a model of them, and
// what the server executes against what the model says is deleted.

// change is one thing that a hook does to a list.
type change struct{ set, name, params string }

func (c change) do(kw *keywords) {
	if c.set == "set" {
		kw.Set(c.name, c.params)
	} else {
		kw.Delete(c.name)
	}
}

// listModel is a list as the client sees it, and what is deleted.
type listModel struct {
	lines   []string
	deleted map[string]bool
}

func nameOf(line string) string {
	name, _, _ := strings.Cut(strings.ToUpper(line), " ")
	return name
}

func (m *listModel) do(c change) {
	name := strings.ToUpper(c.name)
	at := slices.IndexFunc(m.lines, func(line string) bool { return nameOf(line) == name })
	switch {
	case c.set == "set" && name == "STARTTLS":
	case c.set == "set":
		delete(m.deleted, name)
		line := strings.TrimSpace(name + " " + c.params)
		if at < 0 {
			m.lines = append(m.lines, line)
		} else {
			m.lines[at] = line
		}
	default:
		m.deleted[name] = true
		if at >= 0 {
			m.lines = slices.Delete(m.lines, at, at+1)
		}
	}
}

// lists draws what the hooks of a dialogue do, each time that they are asked.
type lists struct {
	*rand.Rand
	hooks   [][]change // what each does when they are asked next
	asked   bool
	current listModel
}

var (
	changedNames = []string{"CHUNKING", "SIZE", "8BITMIME", "BINARYMIME", "AUTH", "DSN", "SMTPUTF8", "VRFY", "XFOO", "XBAR", "STARTTLS", "PIPELINING", "ENHANCEDSTATUSCODES"}
	changedCases = []func(string) string{strings.ToUpper, strings.ToLower, func(s string) string { return s[:1] + strings.ToLower(s[1:]) }}
)

// hook returns a chain of hooks.
func (l *lists) hook() smtpproxy.Hook {
	hooks := []smtpproxy.Hook{decideIn(restarting(origin))}
	for i := range l.hooks {
		hooks = append(hooks, onKeywords(func(kw *keywords) error {
			for _, c := range l.hooks[i] {
				c.do(kw)
			}
			l.asked = true
			return nil
		}))
	}
	return smtpproxy.Chain(hooks...)
}

// draw draws what they do next.
func (l *lists) draw() {
	l.asked = false
	for i := range l.hooks {
		l.hooks[i] = nil
		for range l.IntN(5) {
			c := change{"delete", changedCases[l.IntN(3)](changedNames[l.IntN(len(changedNames))]), ""}
			if l.IntN(3) == 0 {
				c.set, c.params = "set", []string{"", "1", "A B=c"}[l.IntN(3)]
			}
			l.hooks[i] = append(l.hooks[i], c)
		}
	}
}

// expect makes the model what a reply with these lines is to become.
func (l *lists) expect(lines []string) {
	l.current = listModel{slices.Clone(lines), make(map[string]bool)}
	for _, changes := range l.hooks {
		for _, c := range changes {
			l.current.do(c)
		}
	}
}

// needs are lines of a client, and the keyword that each stands for.
var needs = []struct{ keyword, line string }{
	{"", "NOOP"}, {"", "MAIL FROM:<size@dsn>"}, {"", "MAIL FROM:<a@b>"},
	{"VRFY", "VRFY x"}, {"XFOO", "xfoo y"}, {"AUTH", "AUTH PLAIN AAAA"}, {"AUTH", "MAIL FROM:<a@b> AUTH=<>"},
	{"SIZE", "MAIL FROM:<a@b> SIZE=3"}, {"SIZE", "MAIL FROM:<a@b> AUTHOR=<> size=3"},
	{"8BITMIME", "MAIL FROM:<a@b> BODY=8BITMIME"}, {"BINARYMIME", "MAIL FROM:<a@b> body=BinaryMIME"},
	{"SMTPUTF8", "MAIL FROM:<a@b> SMTPUTF8"}, {"DSN", "MAIL FROM:<a@b> RET=HDRS"},
	{"DSN", "RCPT TO:<c@d> NOTIFY=NEVER"}, {"CHUNKING", "BDAT 6"},
}

// keywordDialogue is a client, and what the model has the server execute.
type keywordDialogue struct {
	*talker
	l        *lists
	executed []string // as the model has it
}

// say sends a line; wrong tells what is wrong with what comes of it.
func (d *keywordDialogue) say(line, keyword string) (wrong string) {
	octets := line + "\r\n"
	if strings.HasPrefix(line, "BDAT") {
		octets += "NOOP\r\n"
	}
	d.Write([]byte(octets))
	got, err := d.reply()
	refused := strings.HasPrefix(got, "502 5.5.1") || strings.HasPrefix(got, "555 5.5.4")
	if !d.l.current.deleted[keyword] {
		d.executed = append(d.executed, line)
	}
	if err != nil || refused != d.l.current.deleted[keyword] {
		return fmt.Sprintf("%q, deleted: %v: got %q, %v", line, d.l.current.deleted[keyword], got, err)
	}
	return ""
}

// greet says hello, and checks the list.
func (d *keywordDialogue) greet(line string, base []string) (wrong string) {
	d.l.draw()
	d.l.expect(base)
	d.executed = append(d.executed, line)
	d.Write([]byte(line + "\r\n"))
	got, err := d.reply()
	want := strings.Join(d.l.current.lines, "|")
	if line[0] == 'H' {
		want = ""
	}
	if err != nil || !d.l.asked || linesOf(got) != want {
		return fmt.Sprintf("%s: asked: %v; got %q, %v, want %q", line, d.l.asked, got, err, want)
	}
	return ""
}

// some says a few lines, each where no transaction is open but one of its own.
func (d *keywordDialogue) some() (wrong string) {
	for range 1 + d.l.IntN(4) {
		n := needs[d.l.IntN(len(needs))]
		lines := []string{"RSET"}
		if n.line[0] == 'R' || n.line[0] == 'B' {
			lines = append(lines, "MAIL FROM:<a@b>", "RCPT TO:<c@d>")
		}
		for _, line := range lines {
			if wrong = d.say(line, ""); wrong != "" {
				return wrong
			}
		}
		if wrong = d.say(n.line, n.keyword); wrong != "" {
			return wrong
		}
	}
	return ""
}

func TestTheClientSeesTheListThatTheHooksMadeAndNothingDeletedReachesTheServer(t *testing.T) {
	dialogues := 2000
	if testing.Short() {
		dialogues = 200
	}
	plain := []string{"PIPELINING", "8BITMIME", "CHUNKING", "SIZE 1000000", "ENHANCEDSTATUSCODES", "AUTH PLAIN"}
	offersTLS := append(slices.Clone(plain), "STARTTLS")
	refused, inTLS := 0, 0
	for seed := range uint64(dialogues) {
		l := &lists{Rand: rand.New(rand.NewPCG(seed, 14))}
		l.hooks = make([][]change, 1+l.IntN(3))
		p := &smtpproxy.Proxy{Hook: l.hook(), TLSConfig: serverTLS(), AllowInsecureAuth: true}
		f := behindListener(p, servertest.Strict())
		tr := newTransport(false, connectInMemory)
		served := make(chan error, 1)
		go func() { served <- f.serve(tr) }()
		d := &keywordDialogue{talk(t, tr), l, nil}

		ehlo := func() string {
			if _, ok := d.Conn.(*tls.Conn); ok {
				return d.greet("EHLO x", plain)
			}
			return d.greet("EHLO x", offersTLS)
		}
		steps := []func() string{ehlo, d.some}
		switch {
		case seed%5 == 0:
			steps = append(steps, d.startTLS, d.some, ehlo, d.some)
		case seed%5 == 1:
			steps = append(steps, d.restart, d.some, ehlo, d.some)
		case l.IntN(2) == 0:
			steps = append(steps, func() string { return d.greet("HELO y", nil) }, d.some)
		default:
			steps = append(steps, ehlo, d.some)
		}
		for _, step := range steps {
			if wrong := step(); wrong != "" {
				t.Fatalf("seed %d: the hooks do %v, executed so far %q: %s", seed, l.hooks, d.executed, wrong)
			}
			if _, ok := d.Conn.(*tls.Conn); ok {
				inTLS++
			}
			refused += len(l.current.deleted)
		}
		d.Close()
		f.close()
		<-served
		if got := f.Commands(); !slices.Equal(got, d.executed) {
			t.Fatalf("seed %d: the server executed\n%q, the model has\n%q", seed, got, d.executed)
		}
	}
	if refused < dialogues || inTLS < dialogues/5 {
		t.Errorf("%d deletions, %d steps inside TLS in %d dialogues say little", refused, inTLS, dialogues)
	}
}

// restart makes the client another's, to whom nothing has been announced, and so nothing
// been closed.
func (d *keywordDialogue) restart() (wrong string) {
	d.Write([]byte("XCLIENT ADDR=192.0.2.7\r\n"))
	if got, err := d.reply(); err != nil || !strings.HasPrefix(got, "220") {
		return fmt.Sprintf("XCLIENT: got %q, %v", got, err)
	}
	d.l.current = listModel{}
	return ""
}

// startTLS shakes hands, unless STARTTLS is deleted.
func (d *keywordDialogue) startTLS() (wrong string) {
	d.say("RSET", "")
	d.Write([]byte("STARTTLS\r\n"))
	want := "220"
	if d.l.current.deleted["STARTTLS"] {
		want = "502 5.5.1"
	}
	if got, err := d.reply(); err != nil || !strings.HasPrefix(got, want) {
		return fmt.Sprintf("STARTTLS: got %q, %v, want %s", got, err, want)
	}
	if want == "220" {
		d.Conn = tlsClient(d.Conn)
		d.r = bufio.NewReader(d.Conn)
	}
	return ""
}
