package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"iter"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file proves that the library finds the end of a message where the server
// finds it, for each content of up to so many symbols of an alphabet.

// A session around one message.
const (
	beforeContent = "HELO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n"
	afterContent  = "x\r\n.\r\n" // ends it for every server, if nothing has before
	afterMessage  = "NOOP marker\r\nQUIT\r\n"

	aboutMessage = 5 // the reply behind the greeting and those to four commands
)

// exhaustiveDialect is a server, and how careless relays do with it.
type exhaustiveDialect struct {
	start  func() *servertest.Server
	gosmtp bool   // it records what its backend saw
	wrong  string // a careless relay that is wrong about it
	right  string // one that is right, if there is one
}

// lenient returns a function that starts a server with the lines of
// servertest.Lenient.
func lenient(opts ...servertest.Option) func() *servertest.Server {
	return func() *servertest.Server { return servertest.Lenient(opts...) }
}

var exhaustiveDialects = map[string]exhaustiveDialect{
	"strict":  {start: func() *servertest.Server { return servertest.Strict() }, wrong: "any dot", right: "CRLF.CRLF"},
	"lenient": {start: lenient(), wrong: "CRLF.CRLF", right: "any dot"},
	"go-smtp": {start: func() *servertest.Server { return servertest.GoSMTP() }, wrong: "CRLF.CRLF", gosmtp: true},
	"refuses at once": {start: func() *servertest.Server {
		return servertest.EarlyRefuser(0)
	}, wrong: "any dot"},
	"refuses early": {start: func() *servertest.Server {
		return servertest.EarlyRefuser(3)
	}, wrong: "any dot"},
	"trims the dot":             {start: lenient(servertest.TrimDot()), wrong: "any dot", right: "a dot among blanks"},
	"unstuffs the dot":          {start: lenient(servertest.UnstuffDot()), wrong: "any dot", right: "one dot or two"},
	"wants CRLF behind the dot": {start: lenient(servertest.DotCRLF()), wrong: "any dot", right: "dot CRLF"},
	"refuses at a line, as mhale/smtpd": {
		start: lenient(servertest.DotCRLF(), servertest.LimitLines(3), servertest.KeepEnvelope(), servertest.MailAnew()), wrong: "any dot",
	},
	"refuses at a line and keeps its buffer, as bradfitz/go-smtpd": {
		start: lenient(servertest.DotCRLF(), servertest.LimitLines(3), servertest.KeepBuffer(), servertest.KeepEnvelope(), servertest.KeepOverHello()), wrong: "any dot",
	},
	"refuses at the end": {start: lenient(servertest.AnswerMessages("550 5.7.1 no")), wrong: "CRLF.CRLF"},
}

// Contents are made of these symbols.
var (
	// What RFC 5321 tells apart: CR, LF, dots, and a letter for all others.
	plainSymbols = []string{"\r", "\n", ".", "a"}

	// What a server may trim lines of: a blank, one beyond ASCII, and one to
	// those who take an octet for a rune; and a letter beyond ASCII.
	blankSymbols = []string{"\r", "\n", "\r\n", ".", " ", "\u00a0", "\x85", "\u00e9"}
)

// contentsOf yields every string of up to n symbols.
func contentsOf(symbols []string, n int) iter.Seq[string] {
	return func(yield func(string) bool) {
		level := []string{""}
		for length := 0; ; length++ {
			var next []string
			for _, s := range level {
				if !yield(s) {
					return
				}
				for _, symbol := range symbols {
					next = append(next, s+symbol)
				}
			}
			if length == n {
				return
			}
			level = next
		}
	}
}

// exhaustively yields all contents of up to so many symbols of both kinds.
func exhaustively(plain, blank int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for content := range contentsOf(plainSymbols, plain) {
			if !yield(content) {
				return
			}
		}
		for content := range contentsOf(blankSymbols, blank) {
			if !yield(content) {
				return
			}
		}
	}
}

// inShort takes some symbols off with -short.
func inShort(plain, blank int) (int, int) {
	if testing.Short() {
		return plain - 2, blank - 1
	}
	return plain, blank
}

// sessionHost is a server and what is between it and its clients, for one session after
// the other.
type sessionHost struct {
	t        *testing.T
	d        exhaustiveDialect
	w        wrap
	sessions int
	server   *servertest.Server
	hook     *passLog
	tr       transport
	stop     func()
}

func newSessionHost(t *testing.T, d exhaustiveDialect, w wrap) *sessionHost {
	h := &sessionHost{t: t, d: d, w: w, stop: func() {}}
	t.Cleanup(func() { h.stop() })
	return h
}

// restart starts a server that has nothing on record.
func (h *sessionHost) restart() {
	h.stop()
	server, served := h.d.start(), make(chan error, 1)
	h.server, h.hook, h.tr = server, &passLog{}, newTransport(true, connectInMemory)
	l := h.w(h.tr, h.hook)
	go func() { served <- server.Serve(l) }()
	h.stop = func() {
		server.Close()
		<-served
	}
}

// sessionPlayed is what became of a session.
type sessionPlayed struct {
	shown    []string // to the hook
	executed []string // by the server
	messages []string // that the server took
	got      string   // by the client
}

// play plays a session, sent in the given pieces.
func (h *sessionHost) play(pieces ...string) (p sessionPlayed) {
	h.t.Helper()
	if h.sessions++; h.sessions%32 == 1 {
		h.restart() // the record is copied each time, so it has to be short
	}
	before := h.server.Record()
	h.hook.mu.Lock()
	h.hook.lines = nil
	h.hook.mu.Unlock()
	c, err := h.tr.dial()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, piece := range pieces {
		io.WriteString(c, piece)
	}
	mem := c.(*memoryConn)
	mem.CloseWrite()
	select {
	case <-mem.in.end: // to read as it comes would take longer
	case <-time.After(20 * time.Second):
		h.t.Errorf("the session hangs: sent %q", pieces)
		c.Close()
	}
	got, _ := io.ReadAll(c)
	rec := h.server.Record()
	for _, m := range rec.Messages[len(before.Messages):] {
		p.messages = append(p.messages, fmt.Sprintf("%q %q %q", m.From, m.To, m.Data))
	}
	p.shown, p.executed, p.got = h.hook.passed(), rec.Commands[len(before.Commands):], string(got)
	return p
}

// rivals are a relay and the lack of one.
type rivals struct {
	d       exhaustiveDialect
	relayed *sessionHost
	bare    *sessionHost
	// Of their sessions, on the server's side.
	meter, bareMeter *meteredConn
}

func newRivals(t *testing.T, d exhaustiveDialect, relay wrap) *rivals {
	r := &rivals{d: d}
	r.relayed = newSessionHost(t, d, func(l net.Listener, h smtpproxy.Hook) net.Listener {
		return wrappedListener{relay(l, h), func(c net.Conn) net.Conn {
			r.meter = &meteredConn{Conn: c}
			return r.meter
		}}
	})
	r.bare = newSessionHost(t, d, func(l net.Listener, _ smtpproxy.Hook) net.Listener {
		return wrappedListener{l, func(c net.Conn) net.Conn {
			r.bareMeter = &meteredConn{Conn: c, slow: true}
			return r.bareMeter
		}}
	})
	return r
}

// aftermath is what happens with commands behind a message.
type aftermath struct {
	shown    []string // to the hook
	executed []string // by the server
	classes  string   // first digits of the replies
}

func (a aftermath) equal(b aftermath) bool {
	return slices.Equal(a.shown, b.shown) && slices.Equal(a.executed, b.executed) && a.classes == b.classes
}

// commandsIn returns what has to happen with all lines of rest.
func commandsIn(rest string) (a aftermath) {
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if strings.Contains(line, "\r") {
			a.classes += "5"
			continue
		}
		a.shown = append(a.shown, line)
		switch {
		case !startsWithLetter(line):
			a.classes += "5"
			continue
		case strings.HasPrefix(line, "NOOP"), line == "QUIT":
			a.classes += "2"
		default:
			a.classes += "5"
		}
		a.executed = append(a.executed, line)
	}
	return a
}

func startsWithLetter(line string) bool {
	return line != "" && 'a' <= line[0]|0x20 && line[0]|0x20 <= 'z'
}

// certainEnd is content whose end every server sees where it ends: CRLF "." CRLF
// with no stray CR or LF about it. The start of the content counts as CRLF.
var certainEnd = regexp.MustCompile(`^\.\r\n$|(^|[^\r\n]|(^|[^\r])\r\n)\r\n\.\r\n$`)

// differ plays a session with the relay, and without. It tells what is
// different, if anything is.
func (r *rivals) differ(pieces ...string) (problem string) {
	t := r.bare.t
	t.Helper()
	sent := strings.Join(pieces, "")
	want := r.bare.play(beforeContent, strings.TrimPrefix(sent, beforeContent))
	replies := strings.SplitAfter(want.got, "\n")
	if len(r.bareMeter.noted()) <= aboutMessage || len(replies) <= aboutMessage {
		t.Fatalf("sent %q, got %q", sent, want.got)
	}
	end, final := r.bareMeter.noted()[aboutMessage], replies[aboutMessage][:1]
	if len(want.messages) > 1 {
		t.Fatalf("sent %q, it took %q", sent, want.messages)
	}

	got := r.relayed.play(pieces...)
	saw := aftermath{shown: got.shown[min(4, len(got.shown)):]}
	for line := range strings.Lines(got.got) {
		saw.classes += line[:1]
	}
	if !r.d.gosmtp {
		saw.executed = got.executed[min(4, len(got.executed)):]
	}

	// A 2xx is the server's word that what it has got was the message, to its end.
	// A refusal may come before the end, and says nothing of where the server is
	// then. It may have got more at once than made the bare one refuse. If all
	// that ends where every server sees an end, the dialogue goes on. Else it's
	// over: what the client sent next could be content, or commands.
	goesOn := true
	if final != "2" {
		end = 0
		if noted := r.meter.noted(); len(noted) > aboutMessage {
			end = noted[aboutMessage]
		}
		goesOn = end > len(beforeContent) && certainEnd.MatchString(sent[len(beforeContent):end])
	}
	var next aftermath
	if goesOn {
		next = commandsIn(sent[end:])
	}
	next.classes = "22223" + final + next.classes
	if r.d.gosmtp {
		next.executed = nil
	}
	ok := next.equal(saw)
	if r.d.gosmtp {
		ok = ok && slices.Equal(got.executed, []string{"MAIL a@a", "RCPT b@b", "DATA", "RSET", "LOGOUT"})
	}
	if ok && slices.Equal(got.messages, want.messages) {
		return ""
	}
	return fmt.Sprintf("sent %q\nthe server replies %s after %q, so that the dialogue goes on: %t\nbare, it took %q; now %q\nthe hook was shown %q\nthe server executed %q\nthe client got %q",
		pieces, final, sent[:end], goesOn, want.messages, got.messages, got.shown, got.executed, got.got)
}

func TestExhaustivelyEachShortMessageEndsWhereItDoesWithoutTheLibrary(t *testing.T) {
	for name, d := range exhaustiveDialects {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, n := newRivals(t, d, library), 0
			for content := range exhaustively(inShort(7, 4)) {
				n++
				if problem := r.differ(beforeContent + content + afterContent + afterMessage); problem != "" {
					t.Fatal(problem)
				}
			}
			want := 21845 + 4681
			if testing.Short() {
				want = 1365 + 585
			}
			if n != want {
				t.Errorf("%d messages, not %d", n, want)
			}
		})
	}
}

func TestExhaustivelyTheEndOfAMessageIsFoundHoweverItIsCut(t *testing.T) {
	for name, d := range exhaustiveDialects {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRivals(t, d, library)
			check := func(pieces ...string) {
				if problem := r.differ(pieces...); problem != "" {
					t.Fatal(problem)
				}
			}
			// Octet by octet.
			for content := range exhaustively(inShort(5, 3)) {
				check(append(octetsOf(beforeContent+content+afterContent), afterMessage)...)
			}
			// In every way there is.
			for _, content := range []string{"a\r\n.\r\n", "\r\r\n.\r\n", "\n.\n", "\r\n.\r\r\n", "\n\u00a0.\r\n", "..\r\n. \n"} {
				for cuts := range 1 << len(content) {
					check(cutInPieces(beforeContent, content+afterContent+afterMessage, cuts)...)
				}
			}
		})
	}
}

// octetsOf cuts runes too, unlike strings.Split.
func octetsOf(s string) (octets []string) {
	for i := range len(s) {
		octets = append(octets, s[i:i+1])
	}
	return octets
}

// cutInPieces appends octets to a piece, and starts another where a bit of cuts
// says so.
func cutInPieces(first, octets string, cuts int) []string {
	pieces := []string{first}
	for i := range len(octets) {
		if cuts>>i&1 != 0 {
			pieces = append(pieces, "")
		}
		pieces[len(pieces)-1] += octets[i : i+1]
	}
	return pieces
}

// Relays as one would write them at first. They are as careful as the library
// with commands, but they know best where a message ends.
func TestExhaustivelyACarelessRelayIsFoundOut(t *testing.T) {
	for name, d := range exhaustiveDialects {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := func(relay string) (problem string) {
				r := newRivals(t, d, knowsBest(relay))
				for content := range exhaustively(6, 3) {
					if problem = r.differ(beforeContent + content + afterContent + afterMessage); problem != "" {
						return problem
					}
				}
				return ""
			}
			if found(d.wrong) == "" {
				t.Errorf("a relay that ends messages at %s is not", d.wrong)
			}
			if d.right == "" {
				return
			}
			if problem := found(d.right); problem != "" {
				t.Errorf("one that is right about this server is found out too: %s", problem)
			}
		})
	}
}

// ends are notions of a message's end. They get its last line without CRLF or LF,
// and all of it.
var ends = map[string]func(line string, content []byte) bool{
	"any dot":            func(line string, _ []byte) bool { return strings.TrimRight(line, "\r") == "." },
	"CRLF.CRLF":          func(_ string, content []byte) bool { return bytes.HasSuffix(content, []byte("\r\n.\r\n")) },
	"dot CRLF":           func(_ string, content []byte) bool { return bytes.HasSuffix(content, []byte("\n.\r\n")) },
	"a dot among blanks": func(line string, _ []byte) bool { return strings.TrimSpace(line) == "." },
	"one dot or two": func(line string, _ []byte) bool {
		line = strings.TrimRight(line, "\r")
		return line == "." || line == ".."
	},
}

func knowsBest(end string) wrap {
	return func(l net.Listener, h smtpproxy.Hook) net.Listener {
		return wrappedListener{l, func(c net.Conn) net.Conn {
			return &knowsBestConn{Conn: c, r: bufio.NewReader(c), hook: h, end: end}
		}}
	}
}

type knowsBestConn struct {
	net.Conn
	r       *bufio.Reader
	hook    smtpproxy.Hook
	end     string
	content []byte // since DATA, its line end included; nil outside
}

func (c *knowsBestConn) Read(p []byte) (int, error) {
	for {
		octets, err := c.r.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		line := strings.TrimSuffix(strings.TrimSuffix(string(octets), "\n"), "\r")
		switch {
		case c.content != nil:
			c.content = append(c.content, octets...)
			if ends[c.end](line, c.content) {
				c.content = nil
			}
			return copy(p, octets), nil
		case !strings.Contains(line, "\r"):
			c.hook.Command(nil, smtpproxy.Command{Line: line}, smtpproxy.Connection{}, smtpproxy.Transaction{})
			if startsWithLetter(line) {
				if line == "DATA" {
					c.content = []byte("\r\n")
				}
				return copy(p, line+"\r\n"), nil
			}
		}
		io.WriteString(c.Conn, "500 no\r\n")
	}
}

// meteredConn notes after how many octets the server writes. If slow, it hands a
// message over octet by octet, and nothing behind the reply to it.
type meteredConn struct {
	net.Conn
	slow    bool
	mu      sync.Mutex // a server may write once more when all is over
	octets  int
	replies []int
}

func (c *meteredConn) noted() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.replies)
}

func (c *meteredConn) Read(p []byte) (int, error) {
	if c.slow {
		switch replies := len(c.noted()); {
		case replies == aboutMessage:
			p = p[:1]
		case replies > aboutMessage:
			return 0, io.EOF
		}
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.octets += n
	return n, err
}

func (c *meteredConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.replies = append(c.replies, c.octets)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

type wrappedListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l wrappedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}
