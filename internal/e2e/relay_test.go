package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file proves that nothing slips past the hook: random octets from a
// client, against servers of different dialects.

var sessions = flag.Int("sessions", 150, "random sessions for each property and server")

// passLog is a hook that passes everything and remembers what it has passed.
type passLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *passLog) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, cmd.Line)
	return nil, nil
}

func (l *passLog) passed() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// wrap puts something between a listener and a server.
type wrap func(net.Listener, smtpproxy.Hook) net.Listener

func library(l net.Listener, h smtpproxy.Hook) net.Listener {
	return (&smtpproxy.Proxy{Hook: h}).Listener(l)
}

// dialect is a server, and what the property needs to know about it.
type dialect struct {
	name  string
	start func() *servertest.Server
	// clean servers are safe only if content has no stray CR or LF.
	clean bool
	lmtp  bool
	// refuses: it replies to messages before their end.
	refuses bool
	// gosmtp servers record what their backend saw, not lines.
	gosmtp bool
}

var dialects = []dialect{
	{name: "go-smtp", gosmtp: true, start: func() *servertest.Server { return servertest.GoSMTP() }},
	{name: "go-smtp LMTP", gosmtp: true, lmtp: true, start: func() *servertest.Server { return servertest.GoSMTPLMTP(false) }},
	{name: "go-smtp LMTP, early statuses", gosmtp: true, lmtp: true, start: func() *servertest.Server {
		return servertest.GoSMTPLMTP(true, servertest.Refuse("refused@late.example"))
	}},
	{name: "strict", start: func() *servertest.Server { return servertest.Strict() }},
	{name: "strict, a write for each line", start: func() *servertest.Server { return servertest.Strict(servertest.LineByLine()) }},
	{name: "lenient", start: func() *servertest.Server { return servertest.Lenient() }},
	{name: "refuses early", refuses: true, start: func() *servertest.Server { return servertest.EarlyRefuser(20) }},
	{name: "refuses at once", refuses: true, start: func() *servertest.Server { return servertest.EarlyRefuser(0) }},
	{name: "reads ahead", clean: true, start: func() *servertest.Server { return servertest.RunAhead() }},
}

// stream draws what a client sends. Addresses are numbered, so that a command
// that comes out of content can't be taken for one that was passed.
type stream struct {
	*rand.Rand
	bytes.Buffer
	n int
	dialect
}

func (s *stream) pick(of ...string) string { return of[s.IntN(len(of))] }

func (s *stream) number() int { s.n++; return s.n }

func (s *stream) line(text string) {
	s.WriteString(text)
	s.WriteString(s.pick("\r\n", "\r\n", "\r\n", "\r\n", "\n"))
}

func (s *stream) draw(commands int) []byte {
	hello := s.pick("EHLO", "EHLO", "HELO")
	if s.lmtp {
		hello = "LHLO"
	}
	s.line(hello + " client.example")
	for range commands {
		s.command()
	}
	return s.Bytes()
}

func (s *stream) command() {
	switch s.IntN(20) {
	case 0, 1, 2:
		s.line(fmt.Sprintf("MAIL FROM:<s%d@example.com>%s", s.number(), s.pick("", "", " SIZE=10", " BODY=8BITMIME")))
	case 3, 4, 5:
		s.line(fmt.Sprintf("RCPT TO:<r%d@example.org>", s.number()))
	case 6:
		s.line(fmt.Sprintf("RCPT TO:<no%d@example.org>", s.number()))
	case 7, 8, 9, 10:
		s.line(s.pick("DATA", "DATA", "data", "DATA ", "DATA x"))
		s.content()
	case 11, 12:
		s.bdat()
	case 13:
		s.line(s.pick("RSET", "NOOP", "VRFY x", "HELP", "EHLO again", "LHLO again", "noop x y"))
	case 14:
		s.line(s.pick("AUTH PLAIN", "AUTH PLAIN AHVzZXIAcGFzcw==", "AUTH LOGIN", "AUTH"))
		s.line(s.pick("AHVzZXIAcGFzcw==", "*", "=", "AAAA", "MAIL FROM:<evil@example.com>"))
	case 15:
		s.line(s.pick("STARTTLS", "starttls", "STARTTLSFOO", "STARTTLS x", "\u017ftarttls"))
	case 16:
		s.line(s.pick("", " NOOP", "\tNOOP", "NO\x00OP", "NOOP\rRSET", "X", "\xff\xfe", "R\u017fET"))
	case 17:
		// A whole transaction at once, so that content comes often.
		s.line("RSET")
		s.line(fmt.Sprintf("MAIL FROM:<s%d@example.com>", s.number()))
		s.line(fmt.Sprintf("RCPT TO:<r%d@example.org>", s.number()))
		if s.IntN(2) == 0 {
			s.line("RCPT TO:<refused@late.example>")
		}
		if s.IntN(3) == 0 {
			s.bdat()
			return
		}
		s.line("DATA")
		s.content()
	case 18:
		s.line(fmt.Sprintf("NOOP %s", strings.Repeat("x", s.IntN(600))))
	case 19:
		if s.IntN(4) == 0 {
			s.line("QUIT")
		}
	}
}

// evil is command text that must never be executed when it is content.
const evil = "RSET\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<evil@example.org>\r\n"

func (s *stream) content() {
	for range s.IntN(12) {
		switch {
		case s.clean:
			s.WriteString(s.pick("a\r\n", "..\r\n", "\r\n", ".a\r\n", "a.\r\n", "\x00", "text", evil, "BDAT 3 LAST\r\nabc\r\n"))
		default:
			s.WriteString(s.pick("\r", "\n", ".", "\x00", "a", "\r\n", "\r\n.", "\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\r\n.\r\n",
				"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\r\n", "\r\n. \r\n", "\r\n..\r\n", evil, "DATA\r\n", "BDAT 3 LAST\r\nabc"))
		}
	}
	if s.clean || s.IntN(8) > 0 {
		s.WriteString("\r\n.\r\n")
	}
}

func (s *stream) bdat() {
	chunk := s.pick("", "abc", evil, ".\r\n", "a\n.\r\nb", "\r\n.\r\n", "BDAT 4\r\n")
	size := fmt.Sprint(len(chunk))
	if !s.lmtp && s.IntN(8) == 0 {
		size = s.pick("0", "1", "-1", "+3", "0x3", "4294967296", "18446744073709551616", "", " 3", "2000000")
	}
	last := s.pick("", "", " LAST", " LAST", " last", " LAST x", "  LAST")
	if s.gosmtp {
		// go-smtp v0.25.1 has data races of its own, bare or not, when a BDAT
		// transfer is broken off: handleBdat's goroutine reads c.dataResult,
		// and in LMTP mode c.recipients, while they are set anew.
		last = s.pick(" LAST", " LAST", " last", " LAST x", "  LAST")
	}
	s.WriteString("BDAT " + size + last + s.pick("\r\n", "\r\n", "\n"))
	s.WriteString(chunk)
}

// play runs one connection: it sends b in random pieces, and returns all that
// came back when both sides are done.
func play(t *testing.T, r *rand.Rand, tr transport, b []byte) []byte {
	t.Helper()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var got []byte
	done := make(chan error, 1)
	go func() {
		var err error
		got, err = io.ReadAll(c)
		done <- err
	}()
	for len(b) > 0 {
		n := 1 + r.IntN(len(b))
		if r.IntN(2) == 0 {
			n = min(n, 1+r.IntN(20))
		}
		if _, err := c.Write(b[:n]); err != nil {
			break // the server has closed
		}
		b = b[n:]
	}
	if tr.hangsUp {
		if tr.halfCloses {
			c.(interface{ CloseWrite() error }).CloseWrite()
		} else {
			// A pipe can't be closed on one side. What comes back is
			// complete if the session has come to its QUIT.
			c.Write([]byte("\r\n.\r\nQUIT\r\n"))
			c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		}
	}
	if err := <-done; err != nil && !tr.hangsUp || tr.halfCloses && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the session doesn't end: %v", err)
	}
	return got
}

// slip plays one random session and tells what the server executed that the
// hook didn't pass before, in order.
func slip(t *testing.T, seed uint64, d dialect, listen func(*testing.T) transport, w wrap) (problem string, executed int) {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &stream{Rand: r, dialect: d}
	return slipWith(t, seed, d, listen, w, r, s.draw(1+r.IntN(25)))
}

func slipWith(t *testing.T, seed uint64, d dialect, listen func(*testing.T) transport, w wrap, r *rand.Rand, sent []byte) (problem string, executed int) {

	tr := listen(t)
	tr.hangsUp = true
	hook := &passLog{}
	server := d.start()
	served := make(chan error, 1)
	go func() { served <- server.Serve(w(tr, hook)) }()
	got := play(t, r, tr, sent)
	server.Close()
	<-served

	rec := server.Record()
	passed := hook.passed()
	if d.gosmtp {
		passed = envelopes(passed)
		rec.Commands = slices.DeleteFunc(rec.Commands, func(c string) bool {
			return !strings.HasPrefix(c, "MAIL ") && !strings.HasPrefix(c, "RCPT ")
		})
	}
	if rec.Sessions != rec.Ended {
		problem = fmt.Sprintf("%d sessions begun, %d ended", rec.Sessions, rec.Ended)
	}
	rest := passed
	for n, c := range rec.Commands {
		i := slices.Index(rest, c)
		if isOwnReset(rec.Commands[n:], rest) {
			continue
		}
		if i < 0 {
			problem = fmt.Sprintf("executed unseen: %q", c)
			break
		}
		rest = rest[i+1:]
	}
	if problem != "" {
		problem = fmt.Sprintf("%s, seed %d: %s\nsent %q\npassed %q\nexecuted %q\ngot %q", d.name, seed, problem, sent, passed, rec.Commands, got)
	}
	return problem, len(rec.Commands)
}

// isOwnReset tells whether the first of what a server executed is the library's own
// RSET, which is always right before a MAIL command, rather than the client's. passed
// is what the hook passed since.
func isOwnReset(executed, passed []string) bool {
	isMAIL := func(line string) bool { return strings.HasPrefix(strings.ToUpper(line), "MAIL") }
	if executed[0] != "RSET" {
		return false
	}
	own, mail := slices.Index(passed, "RSET"), slices.IndexFunc(passed, isMAIL)
	if len(executed) == 1 { // all is over behind it
		return own < 0 && mail >= 0
	}
	mail = slices.Index(passed, executed[1])
	return isMAIL(executed[1]) && (own < 0 || mail >= 0 && mail < own)
}

// envelopes turns command lines into what servertest's go-smtp backend records
// of them.
func envelopes(lines []string) []string {
	var out []string
	for _, l := range lines {
		for _, verb := range []string{"MAIL FROM:<", "RCPT TO:<"} {
			if rest, ok := strings.CutPrefix(l, verb); ok {
				addr, _, _ := strings.Cut(rest, ">")
				out = append(out, verb[:5]+addr)
			}
		}
	}
	return out
}

func TestEveryCommandThatAServerExecutesWasPassedByTheHook(t *testing.T) {
	for _, d := range dialects {
		for name, listen := range transports {
			t.Run(d.name+" over "+name, func(t *testing.T) {
				t.Parallel()
				total := 0
				restless := new(restless)
				for seed := range uint64(*sessions) {
					problem, executed := slip(t, seed, d, listen, restless.inSome(seed, library))
					if problem != "" {
						t.Fatal(problem)
					}
					total += executed
				}
				restless.check(t, *sessions)
				if total < *sessions {
					t.Errorf("only %d commands were executed in %d sessions: the property says little", total, *sessions)
				}
			})
		}
	}
}

// A relay as one would write it at first: it shows each line to the hook, and
// lets content through from DATA to a line that is a dot.
func TestACarelessRelayIsFoundOut(t *testing.T) {
	for _, d := range dialects {
		if d.clean {
			continue // with content that is clean, this one is careful enough
		}
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(200) {
				if problem, _ := slip(t, seed, d, overTCP, careless); problem != "" {
					return
				}
			}
			t.Error("nothing slipped past a careless relay in 200 sessions")
		})
	}
}

func careless(l net.Listener, h smtpproxy.Hook) net.Listener { return &carelessListener{l, h} }

type carelessListener struct {
	net.Listener
	hook smtpproxy.Hook
}

func (l *carelessListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &carelessConn{Conn: c, r: bufio.NewReader(c), hook: l.hook}, nil
}

type carelessConn struct {
	net.Conn
	r       *bufio.Reader
	hook    smtpproxy.Hook
	content bool
	rest    []byte
}

func (c *carelessConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		line, err := c.r.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case c.content:
			c.content = text != "."
		default:
			c.hook.Command(nil, smtpproxy.Command{Line: text}, smtpproxy.Connection{}, smtpproxy.Transaction{})
			c.content = strings.EqualFold(text, "DATA")
		}
		c.rest = line
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
