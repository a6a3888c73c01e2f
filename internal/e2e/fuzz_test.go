package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// FuzzDialogue sends any octets, in any pieces, to servers of different dialects
// behind a hook that answers some lines itself. An octet from 0x80 on can stand for
// a word, so that a mutation of few octets makes another dialogue: see words. The
// highest 16 bits of cut tell what the hook answers, the others where to cut.
//
// Each dialogue holds that
//   - what the server reads is, octet by octet, a line that the hook has passed
//     just before, with CRLF behind it, or else something that the server has
//     asked for: content after its 354, the chunk of a BDAT that it was given, one
//     line after its 334;
//   - it gets a command only when it has replied to the one before;
//   - what it executes is what it was given as commands, in order, once each;
//   - the client gets well-formed replies: all that the server wrote, and one for
//     each line that the server didn't get;
//   - the dialogue comes to its end, and leaves no goroutine.
//
// For go-smtp, which doesn't show its lines, the third point is about the
// senders and recipients that its backend sees. Where go-smtp sees the end of
// content, TestExhaustively... holds with the real server, too.
func FuzzDialogue(f *testing.F) {
	for i, d := range dialects {
		for seed := range uint64(3) {
			s := &stream{Rand: rand.New(rand.NewPCG(seed, 7)), dialect: d}
			f.Add(s.draw(12), seed|0x9249<<(48*(seed%2)), uint8(i))
		}
		f.Add([]byte("\x80\x81\x83\x85\x89text\x8a\x97"), uint64(1), uint8(i))
		f.Add([]byte("\x80\x81\x92\x93\x84\x86\x88\x8b\x8c\x8f\x97"), uint64(2), uint8(i))
	}
	f.Fuzz(func(t *testing.T, sent []byte, cut uint64, server uint8) {
		d := dialects[int(server)%len(dialects)]
		sent = spell(sent)
		if d.clean && stray.Match(sent) {
			d = dialectNamed("lenient")
		}
		before := runtime.NumGoroutine()
		if problem := hear(t, d, cut, sent, library); problem != "" {
			t.Error(problem)
		}
		if d.gosmtp && bytes.Contains(bytes.ToUpper(sent), []byte("BDAT")) {
			return // go-smtp v0.25.1 can leave one when a transfer is broken off
		}
		for start := time.Now(); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Since(start) > patience {
				buf := make([]byte, 1<<16)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
			}
		}
	})
}

// words are what the octets from 0x80 on stand for; those beyond the list stand
// for themselves.
var words = []string{
	"EHLO x\r\n", "LHLO x\r\n", "HELO x\r\n", "MAIL FROM:<a@a>\r\n", "MAIL FROM:<s@s> SIZE=9\r\n", "RCPT TO:<b@b>\r\n", "RCPT TO:<c@c>\r\n",
	"RCPT TO:<no@b>\r\n", "RCPT TO:<refused@late.example>\r\n", "DATA\r\n", "\r\n.\r\n", "BDAT 3\r\nabc", "BDAT 6 LAST\r\nNOOP\r\n", "BDAT ", " LAST\r\n",
	"RSET\r\n", "NOOP\r\n", "VRFY x\r\n", "AUTH PLAIN\r\n", "AHVzZXIAcGFzcw==\r\n", "AUTH PLAIN AHVzZXIAcGFzcw==\r\n", "*\r\n", "STARTTLS\r\n", "QUIT\r\n",
	"\r\n", "\r\n.\n", "\n.\r\n", "\r\r\n.\r\n", "\r\n.\r\r\n", "\r.\r", "\x00.", strings.Repeat("x", 100), strings.Repeat("x", 2000),
}

func spell(octets []byte) (sent []byte) {
	for _, c := range octets {
		if i := int(c) - 0x80; i >= 0 && i < len(words) {
			sent = append(sent, words[i]...)
		} else {
			sent = append(sent, c)
		}
	}
	return sent
}

// stray is a CR or LF that is not of a CRLF.
var stray = regexp.MustCompile(`\r([^\n]|$)|(^|[^\r])\n`)

// A server that reads something else than the library gives it, and a client that
// does, break what FuzzDialogue holds, each in its own way.
func TestFuzzingFindsOutWhatServerAndClientMustNotRead(t *testing.T) {
	for _, tt := range []struct{ what, instead, problem string }{
		{"NOOP\r\n", "NOOP\n", `the hook passed "NOOP", it read "NOOP\n"`},
		{"NOOP\r\n", "NOOP\r\nRSET\r\n", `the hook passed "NOOP", it read "NOOP\r\nRSET\r\n"`},
		{"NOOP\r\n", "NOOP \x00\r\n", `the hook passed "NOOP", it read "NOOP \x00\r\n"`},
		{"~", "~\r\n.\r\nRSET\r\n", "executed is not what was given"},
		{"AAAA\r\n", "AAAA\r\nRSET\r\n", `it asked for a line, and read "AAAA\r\nRSET\r\n"`},
		{"!", "!NOOP\r\n", `it read beyond the chunk: "!NOOP\r\n"`},
		{"250 2.0.0 nothing done\r\n", "", "13 replies, not 14 to 15"},
		{"250 2.0.0 nothing done\r\n", "250 1\r\n250 2\r\n250 3\r\n", "16 replies, not 14 to 15"},
		{"250 2.0.0 nothing done\r\n", "250 bare\n", `the client got no reply: "250 bare\n"`},
		{"221 2.0.0 bye\r\n", "221-2.0.0 bye\r\n", "half a reply"},
	} {
		sent := "EHLO x\r\nNOOP\r\nAUTH PLAIN\r\nAAAA\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nBDAT 1\r\n!RSET\r\n" +
			"MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n~\r\n.\r\nQUIT\r\n"
		w := func(l net.Listener, h smtpproxy.Hook) net.Listener {
			change := strings.NewReplacer(tt.what, tt.instead)
			client := wrappedListener{l, func(c net.Conn) net.Conn { return &saboteur{Conn: c, written: change} }}
			return wrappedListener{library(client, h), func(c net.Conn) net.Conn { return &saboteur{Conn: c, read: change} }}
		}
		if problem := hear(t, dialectNamed("lenient"), 1, []byte(sent), w); !strings.Contains(problem, tt.problem) {
			t.Errorf("%q instead of %q: %s", tt.instead, tt.what, problem)
		}
	}
	// A relay that gives a server as much as it reads.
	problem := hear(t, dialectNamed("reads ahead"), 1, []byte(strings.Repeat("NOOP\r\n", 100)), careless)
	if !strings.Contains(problem, "before it had replied") {
		t.Errorf("commands that don't wait for replies: %s", problem)
	}
}

func dialectNamed(name string) dialect {
	return dialects[slices.IndexFunc(dialects, func(d dialect) bool { return d.name == name })]
}

// saboteur is a connection that changes what goes over it.
type saboteur struct {
	net.Conn
	read, written *strings.Replacer
}

func (c *saboteur) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.read != nil {
		n = copy(p, c.read.Replace(string(p[:n])))
	}
	return n, err
}

func (c *saboteur) Write(p []byte) (int, error) {
	if c.written == nil {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write([]byte(c.written.Replace(string(p))))
	return len(p), err
}

// hear plays one dialogue and tells what is wrong with it.
func hear(t *testing.T, d dialect, cut uint64, sent []byte, w wrap) (problem string) {
	hook := &moody{answers: uint16(cut >> 48)}
	ear := &eavesdropper{hook: &hook.passLog}
	tr := newTransport(true, connectInMemory)
	tr.hangsUp = true
	dial := tr.dial
	var hangs atomic.Bool
	tr.dial = func() (net.Conn, error) {
		c, err := dial()
		if err == nil {
			timer := time.AfterFunc(patience/2, func() { hangs.Store(true); c.Close() })
			ear.done = func() { timer.Stop() }
		}
		return c, err
	}
	server, served := d.start(), make(chan error, 1)
	go func() {
		served <- server.Serve(wrappedListener{w(tr, hook), func(c net.Conn) net.Conn {
			ear.Conn = c
			return ear
		}})
	}()
	got := play(t, rand.New(rand.NewPCG(cut, 8)), tr, sent)
	server.Close()
	<-served
	ear.done()
	rec := server.Record()

	ear.mu.Lock()
	defer ear.mu.Unlock()
	replies, err := repliesIn(got)
	passed := hook.passed()
	own := hook.answered + len(passed) - (len(ear.given) - ear.resets)
	// When the server can't read any more, nobody needs its replies. Of an
	// exchange that the hook has cancelled, it has one too many.
	least := ear.needed - hook.cancelled + own
	if chunkLine.MatchString(hook.last) {
		least-- // if the client was gone before the end of the chunk
	}
	// A line that the hook wasn't shown has its reply, too, and so may have
	// the end.
	most := ear.replies + own + controlLines(sent) + 1
	switch {
	case ear.problem != "":
		problem = ear.problem
	case hangs.Load():
		problem = "the dialogue doesn't end"
	case err != nil:
		problem = err.Error()
	case rec.Sessions != rec.Ended:
		problem = fmt.Sprintf("%d sessions begun, %d ended", rec.Sessions, rec.Ended)
	case d.gosmtp && unpassed(rec.Commands, ear.given) != "":
		problem = "executed, but not given: " + unpassed(rec.Commands, ear.given)
	case !d.gosmtp && !slices.Equal(rec.Commands, ear.given):
		problem = "executed is not what was given"
	case replies < least || replies > most:
		problem = fmt.Sprintf("%d replies, not %d to %d", replies, least, most)
	}
	if problem == "" {
		return ""
	}
	return fmt.Sprintf("%s, cut %d: %s\nsent %q\npassed %q\ngiven  %q\nexecuted %q\ngot %q", d.name, cut, problem, sent, passed, ear.given, rec.Commands, got)
}

// moody is a hook that answers some lines. Its log is of the commands that it has
// passed.
type moody struct {
	passLog
	answers   uint16 // a bit for each line, and from the first on again
	calls     int
	answered  int
	cancelled int    // lines of the server's SASL exchange that it has answered
	asks      bool   // it has answered 334
	last      string // line that it was shown
}

func (m *moody) Command(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer := m.asks || m.answers>>(m.calls%16)&1 != 0
	m.calls++
	m.last = cmd.Line
	if !answer {
		if !cmd.SASL {
			m.lines = append(m.lines, cmd.Line)
		}
		return pass{Next: true}, nil
	}
	m.answered++
	if cmd.SASL && !m.asks {
		m.cancelled++
	}
	m.asks = !m.asks && m.calls%4 == 0
	if m.asks {
		return reply{Code: 334}, nil
	}
	return reply{Code: 535}, nil
}

// eavesdropper stands between the library and the server.
type eavesdropper struct {
	net.Conn // from the library
	hook     *passLog
	done     func()

	mu      sync.Mutex // go-smtp reads LMTP content on a goroutine of its own
	problem string
	given   []string // commands
	replies int      // that the server wrote
	needed  int      // likewise, while it could read
	deaf    bool     // a Read failed
	scanner wire.Reply
	partial []byte

	due     bool   // a command has no reply yet
	resets  int    // RSET commands of the library's own
	reset   string // the MAIL command behind the last of them, until it is read
	content bool   // the server has asked for content
	body    []byte // what it got of it
	asked   bool   // the server has asked for a line
	answer  []byte // what it got of it
	chunk   int64  // octets of a BDAT chunk that it is to read
}

func (e *eavesdropper) Read(p []byte) (int, error) {
	before := len(e.hook.passed())
	n, err := e.Conn.Read(p)
	passed := e.hook.passed()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch b := p[:n]; {
	case n == 0:
	case e.reset != "":
		line := e.reset
		e.reset = ""
		e.command(line, b)
	case len(passed) > before:
		e.command(passed[len(passed)-1], b)
	case e.content:
		e.body = append(e.body, b...)
	case e.chunk > 0:
		if e.chunk -= int64(n); e.chunk < 0 {
			e.fault("it read beyond the chunk: %q", b)
		}
	case e.asked:
		e.answer = append(e.answer, b...)
		e.asked = !bytes.HasSuffix(e.answer, []byte("\n"))
		if !e.asked && !isLine(e.answer) {
			e.fault("it asked for a line, and read %q", e.answer)
		}
	default:
		e.fault("it read what it didn't ask for: %q", b)
	}
	e.deaf = e.deaf || err != nil
	return n, err
}

// endsInDots tells whether the last line of content is the end of it to some server:
// a line of dots, with whatever isn't seen beside them.
func endsInDots(content []byte) bool {
	unseen := func(r rune) bool {
		return r <= ' ' || r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsGraphic(r)
	}
	text := string(bytes.TrimRight(content, "\r\n"))
	line := text[strings.LastIndexAny(text, "\r\n")+1:]
	dots := strings.Map(func(r rune) rune {
		if unseen(r) {
			return -1
		}
		return r
	}, line)
	return len(text) < len(content) && dots != "" && strings.Trim(dots, ".") == ""
}

var chunkLine = regexp.MustCompile(`(?i)^BDAT ([0-9]+)( LAST)?[ \t]*$`)

// command notes that the server reads b after the hook has passed a line.
func (e *eavesdropper) command(line string, b []byte) {
	own := string(b) == "RSET\r\n" && command{Line: line}.Verb() == "MAIL"
	switch {
	case own:
	case string(b) != handed(line)+"\r\n" || !isLine(b):
		e.fault("the hook passed %q, it read %q", line, b)
	case e.due:
		e.fault("it read %q before it had replied", b)
	case command{Line: line}.Verb() == "", strings.HasPrefix(strings.ToUpper(line), "STARTTLS"):
		e.fault("it read %q, which is no command for it", b)
	case e.content && !endsInDots(e.body):
		e.fault("it read %q as a command, but the content had no end: %q", b, e.body)
	}
	if own {
		e.resets++
		e.reset, line = line, "RSET"
	}
	e.given = append(e.given, handed(line))
	e.due, e.content, e.body, e.asked, e.chunk = true, false, nil, false, 0
	if m := chunkLine.FindStringSubmatch(line); m != nil {
		e.chunk, _ = strconv.ParseInt(m[1], 10, 64)
	}
}

// handed returns what a server gets of a line: the size of a chunk without leading
// zeros, and BDAT without blanks behind it.
func handed(line string) string {
	m := chunkLine.FindStringSubmatch(line)
	if m == nil {
		return line
	}
	size := strings.TrimLeft(m[1][:len(m[1])-1], "0") + m[1][len(m[1])-1:]
	return line[:len("BDAT ")] + size + m[2]
}

func (e *eavesdropper) fault(format string, args ...any) {
	if e.problem == "" {
		e.problem = "the server: " + fmt.Sprintf(format, args...)
	}
}

// isLine tells whether b is one line that every server takes for one.
func isLine(b []byte) bool {
	text, ok := bytes.CutSuffix(b, []byte("\r\n"))
	return ok && !bytes.ContainsAny(text, "\r\n\x00")
}

func (e *eavesdropper) Write(p []byte) (int, error) {
	e.mu.Lock()
	e.partial = append(e.partial, p...)
	complete := 0
	for {
		n, code, _ := e.scanner.Next(e.partial)
		if n == 0 {
			break
		}
		e.partial = e.partial[n:]
		complete++
		switch code {
		case 334:
			e.asked, e.answer = true, nil
		case 354:
			e.content = true
		default:
			if e.due && e.reset != "" && code/100 == 2 {
				complete-- // the client doesn't know of it
			}
			e.due = false
		}
	}
	e.replies += complete
	if e.deaf {
		complete = 0
	}
	e.mu.Unlock()
	n, err := e.Conn.Write(p)
	if err == nil {
		e.mu.Lock()
		e.needed += complete
		e.mu.Unlock()
	}
	return n, err
}

var replyLine = regexp.MustCompile("^[2-5][0-9]{2}[ -][^\x00\r\n]*\r\n$")

// repliesIn counts the replies in what a client got.
func repliesIn(got []byte) (n int, err error) {
	code := ""
	for line := range strings.Lines(string(got)) {
		if !replyLine.MatchString(line) || code != "" && line[:3] != code {
			return n, fmt.Errorf("the client got no reply: %q", line)
		}
		code = line[:3]
		if line[3] == ' ' {
			n++
			code = ""
		}
	}
	if code != "" {
		err = errors.New("the client got half a reply")
	}
	return n, err
}

// controlLines counts the lines that the library answers before the hook.
func controlLines(sent []byte) (n int) {
	for line := range bytes.Lines(sent) {
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			n++
		}
	}
	return n
}

// unpassed finds a call of servertest's go-smtp backend that none of the commands
// that go-smtp was given accounts for, in order.
func unpassed(executed, given []string) string {
	bare := strings.NewReplacer(`\`, "", `"`, "")
	for _, call := range executed {
		verb, addr, _ := strings.Cut(call, " ")
		if verb != "MAIL" && verb != "RCPT" {
			continue
		}
		i := slices.IndexFunc(given, func(line string) bool {
			return len(line) > 4 && strings.EqualFold(line[:4], verb) && strings.Contains(bare.Replace(line), bare.Replace(addr))
		})
		if i < 0 {
			return call
		}
		given = given[i+1:]
	}
	return ""
}
