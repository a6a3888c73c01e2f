package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file has one table: all ways in which a connection ends, and what the server
// and the client may do then. In each of its cells,
//   - the server has got what was before the end, and not an octet of what is behind;
//   - the client gets each reply once, and nothing behind the last;
//   - the connection is closed in time, by the library if the library has ended it;
//   - each further Read is the same error, but for that of a reset, which is told once,
//     and each Write that fails has written nothing;
//   - no goroutine is left, the session's context is done, and one line of the log at
//     most tells of a reason.

// smuggledMail is what the client sends behind the end.
const smuggledMail = "MAIL FROM:<evil@behind>\r\nRCPT TO:<evil@behind>\r\nDATA\r\n"

// finale is a way in which a connection ends.
type finale struct {
	why   string
	proxy func() *smtpproxy.Proxy
	turns []turn            // the last one brings it about
	leave func(c clientEnd) // or the client does, behind them

	// answers are what the server writes to a verb, "." being the end of content and
	// "" the greeting, by default what a good server does. Behind a 221 or 421 it is
	// done.
	answers map[string]string
	serve   func(h *endHost) // what the server does instead, up to the end

	got   string        // by the server
	codes string        // of the replies, by the client
	log   string        // the reason, if one is logged
	after time.Duration // behind the last turn, or the client's leave

	// lingers is for how long the library reads on behind the last reply, if the
	// client is silent, or atOnce; 0 is for servers that close by themselves.
	lingers time.Duration
	// knows: the server has known of the end before it reads again.
	knows bool
	// open: the server may write more, which is its word to the client.
	open bool
	// refused: it has refused the message, so what it writes is too much for the
	// client, but for 421.
	refused bool
	// alone: nothing can be sent behind the end, and at once.
	alone bool
	// silent: the client doesn't know of the end.
	silent bool
}

// endHost is the server of a finale.
type endHost struct {
	t *testing.T
	*finale
	net.Conn
	r        *bufio.Reader
	raw      *cableEnd // beneath the library, in a bubble
	session  *smtpproxy.Session
	log      *logbook
	received strings.Builder
	readErr  error // of the Read that has failed

	mu       sync.Mutex
	closed   bool
	closedAt time.Time
}

// serveWith makes it one that serves a connection.
func (h *endHost) serveWith(c net.Conn) {
	h.Conn, h.r = c, bufio.NewReader(h)
}

// Read notes what is read, and holds the errors to what they have to be.
func (h *endHost) Read(p []byte) (int, error) {
	closed := h.isClosed()
	n, err := h.Conn.Read(p)
	h.received.Write(p[:n])
	ended := errors.Is(h.readErr, io.EOF) || errors.Is(h.readErr, io.ErrUnexpectedEOF)
	switch {
	case n == 0 && err == nil:
		h.t.Error("a Read has returned neither octets nor an error")
	case err == nil && h.readErr != nil:
		h.t.Errorf("behind %v, a Read returned %q", h.readErr, p[:n])
	case !closed && h.isClosed() && h.raw != nil && time.Since(h.closedAt) > 0:
		h.t.Errorf("a Read has waited for %v behind Close", time.Since(h.closedAt))
	case closed && !errors.Is(err, net.ErrClosed):
		h.t.Errorf("behind Close, a Read returned %v", err)
	case err != nil && ended && err != h.readErr && !h.isClosed():
		h.t.Errorf("behind %v, a Read returned %v", h.readErr, err)
	case err != nil:
		h.readErr = err
	}
	return n, err
}

// say writes a reply, and tells whether that went well.
func (h *endHost) say(text string) bool {
	n, err := io.WriteString(h.Conn, text)
	switch {
	case err == nil && n != len(text), err != nil && n != 0:
		h.t.Errorf("a Write returned %d of %d, %v", n, len(text), err)
	case err == nil && h.isClosed():
		h.t.Error("behind Close, a Write has no error")
	}
	return err == nil
}

func (h *endHost) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

func (h *endHost) Close() error {
	h.mu.Lock()
	if !h.closed {
		h.closed, h.closedAt = true, time.Now()
	}
	h.mu.Unlock()
	return h.Conn.Close()
}

// line reads a line.
func (h *endHost) line() (string, bool) {
	line, err := h.r.ReadString('\n')
	return strings.TrimSuffix(line, "\r\n"), err == nil
}

// reply answers as the finale has it, or with a good server's reply.
func (h *endHost) reply(verb, byDefault string) bool {
	text, ok := h.answers[verb]
	if !ok {
		text = byDefault + "\r\n"
	}
	return h.say(text) && !strings.HasPrefix(text, "221") && !strings.HasPrefix(text, "421")
}

// goOn is a good server, up to the end.
func (h *endHost) goOn() {
	if !h.reply("", "220 x") {
		return
	}
	for {
		line, ok := h.line()
		if !ok || !h.execute(line) {
			return
		}
	}
}

// execute executes one command.
func (h *endHost) execute(line string) bool {
	verb, size := command{Line: line}.Verb(), int64(0)
	switch verb {
	case "EHLO":
		return h.reply(verb, "250-x\r\n250-CHUNKING\r\n250 SIZE 1000000")
	case "QUIT":
		return h.reply(verb, "221 x")
	case "AUTH":
		if !h.reply(verb, "334 ") {
			return false
		}
		_, ok := h.line()
		return ok && h.reply("=", "235 x")
	case "BDAT":
		fmt.Sscanf(line, "BDAT %d", &size)
		if _, err := io.CopyN(io.Discard, h.r, size); err != nil {
			return false
		}
	case "DATA":
		if !h.reply(verb, "354 x") {
			return false
		}
		for line := ""; line != "."; {
			var ok bool
			if line, ok = h.line(); !ok {
				return false
			}
		}
		return h.reply(".", "250 x")
	}
	return h.reply(verb, "250 x")
}

// hostAct is what a server does behind the end, before it closes.
type hostAct struct {
	why    string
	act    func(h *endHost)
	open   string // what the client gets of it, if it may get something
	closes bool   // it does so before it reads again
	breaks bool   // what it writes is out of step
	// races: a Read may end all before it writes.
	races bool
}

var hostActs = []hostAct{
	{why: "it reads again and again", act: func(h *endHost) {
		h.readOn(20)
		if h.lingers != 0 && h.session.Context().Err() == nil {
			h.t.Error("the library has ended the connection, and the session isn't over")
		}
		if want := h.finale.log; h.lingers != 0 && want != "" && len(h.log.lines(want)) != 1 {
			h.t.Errorf("the server has been told of the end, and %q isn't logged", want)
		}
		if h.lingers != 0 && h.raw != nil {
			time.Sleep(time.Minute) // in a bubble: the library closes
		}
	}},
	{why: "it writes a 2xx", open: "421", breaks: true, act: func(h *endHost) { h.say("250 more\r\n"); h.readOn(3) }},
	{why: "it writes a 4xx", open: "450", act: func(h *endHost) { h.say("450 more\r\n"); h.readOn(3) }},
	{why: "it takes its leave", open: "421", act: func(h *endHost) { h.say("421 more\r\n"); h.readOn(3) }},
	{why: "it writes one reply behind the other", open: "421", breaks: true, act: func(h *endHost) {
		for range 3 {
			h.say("250 more\r\n")
			h.say("421-more\r\n421 more\r\n")
			h.readOn(1)
		}
	}},
	{why: "it writes half a reply", act: func(h *endHost) { h.say("250 mo"); h.readOn(3) }},
	{why: "it writes nonsense", open: "421", breaks: true, act: func(h *endHost) {
		for range 3 {
			h.say("nonsense\r\n")
			h.readOn(1)
		}
	}},
	{why: "it sets deadlines", act: func(h *endHost) {
		for _, after := range []time.Duration{-time.Second, time.Hour, time.Minute, -time.Second} {
			for _, set := range []func(time.Time) error{h.SetDeadline, h.SetReadDeadline, h.SetWriteDeadline} {
				if err := set(time.Now().Add(after)); err != nil && !errors.Is(err, net.ErrClosed) {
					h.t.Errorf("a deadline can't be set: %v", err)
				}
			}
			h.readOn(1)
		}
		h.SetDeadline(time.Time{})
		h.readOn(1)
	}},
	{why: "it closes", closes: true, act: func(*endHost) {}},
	{why: "it closes twice, and uses it", closes: true, act: func(h *endHost) {
		for range 2 {
			if err := h.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				h.t.Errorf("Close: %v", err)
			}
		}
		h.readOn(2)
		h.say("250 more\r\n")
		if err := h.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			h.t.Errorf("behind Close, SetDeadline returned %v", err)
		}
	}},
	{why: "it reads and writes on two goroutines", open: "421", breaks: true, races: true, act: func(h *endHost) {
		var both sync.WaitGroup
		both.Go(func() { h.readOn(20) })
		both.Go(func() {
			for range 20 {
				h.say("250 more\r\n")
			}
		})
		both.Wait()
	}},
}

// readOn reads so often, and fails each time.
func (h *endHost) readOn(times int) {
	for range times {
		if n, err := h.Read(make([]byte, 600)); err == nil {
			h.t.Errorf("a Read returned %d octets", n)
			return
		}
	}
}

// clientAct is what a client does when it has got the last reply.
type clientAct struct {
	why   string
	act   func(c clientEnd)
	stays bool // its side isn't closed
	ahead bool // it has sent more behind the end, before it has got the reply to it
	much  bool // it sends more than the library reads
}

const silence = "it is silent"

var clientActs = []clientAct{
	{why: "it closes", act: func(c clientEnd) { c.Close() }},
	{why: "it closes its side", act: func(c clientEnd) { c.CloseWrite() }},
	{why: "it is reset", act: func(c clientEnd) { c.reset() }},
	{why: silence, stays: true, act: func(clientEnd) {}},
	{why: "it has sent ahead", stays: true, ahead: true, act: func(clientEnd) {}},
	{why: "it goes on sending", stays: true, much: true, act: func(c clientEnd) {
		for range 2 << 20 / 500 {
			if _, err := io.WriteString(c, strings.Repeat(smuggledMail, 500/len(smuggledMail))); err != nil {
				return
			}
		}
	}},
}

// collected is what the client gets.
type collected struct {
	mu      sync.Mutex
	changed sync.Cond
	text    string
	err     error
	endedAt time.Time
}

func (k *collected) collect(c net.Conn) {
	for b := make([]byte, 4<<10); ; {
		n, err := c.Read(b)
		k.mu.Lock()
		k.text += string(b[:n])
		k.err, k.endedAt = err, time.Now()
		k.changed.Broadcast()
		k.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// codesIn returns the codes of replies, and what follows the last whole one.
func codesIn(text string) (codes []string, rest string) {
	for text != "" {
		line, after, ok := strings.Cut(text, "\r\n")
		if !ok || len(line) < 4 {
			return codes, text
		}
		if line[3] != '-' {
			codes = append(codes, line[:3])
		}
		text = after
	}
	return codes, ""
}

// await waits until there are so many replies, or the end, and returns their codes.
func (k *collected) await(replies int) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		codes, rest := codesIn(k.text)
		switch {
		case k.err != nil && rest != "":
			return append(codes, rest)
		case k.err != nil || len(codes) >= replies:
			return codes
		}
		k.changed.Wait()
	}
}

// clientEnd is the client's end of a connection.
type clientEnd interface {
	net.Conn
	CloseWrite() error
	reset()
}

// tcpClient is that of a socket.
type tcpClient struct{ *net.TCPConn }

func (c tcpClient) reset() {
	c.SetLinger(0)
	c.Close()
}

// wiring is a connection for a finale.
type wiring struct {
	server     net.Conn
	client     clientEnd
	raw        *cableEnd // the server's, in a bubble
	halfCloses bool      // the server's end does, for all that the library knows
}

// inMemoryWiring is one in a bubble.
func inMemoryWiring() wiring {
	server, client := connectByCable()
	return wiring{server, client, server, true}
}

// play plays a finale up to its end, and what follows then.
func (f *finale) play(t *testing.T, w wiring, host hostAct, client *clientAct) {
	c, log := w.client, new(logbook)
	p := new(smtpproxy.Proxy)
	if f.proxy != nil {
		p = f.proxy()
	}
	p.Logger = log.logger()
	tr := newTransport(true, func() (net.Conn, net.Conn, error) { return w.server, c, nil })
	l := p.Listener(tr)
	defer l.Close()
	h := &endHost{t: t, finale: f, raw: w.raw, log: log}
	wait := synctest.Wait
	if w.raw == nil {
		wait = func() {}
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		h.session, _ = smtpproxy.SessionOf(conn)
		h.serveWith(conn)
		tooLong := time.AfterFunc(24*time.Hour, func() {
			t.Error("the server waits for ever")
			h.Close()
		})
		defer tooLong.Stop()
		defer h.Close()
		if f.serve != nil {
			f.serve(h)
		} else {
			h.goOn()
		}
		host.act(h)
	}()
	if _, err := tr.dial(); err != nil {
		t.Fatal(err)
	}
	got := new(collected)
	got.changed.L = &got.mu
	var collecting sync.WaitGroup
	collecting.Go(func() { got.collect(c) })

	replies, before := 0, time.Now()
	for i, turn := range f.turns {
		send := turn.send
		if i == len(f.turns)-1 {
			before = time.Now()
			if client != nil && client.ahead {
				send += smuggledMail
			}
		}
		io.WriteString(c, send)
		replies += turn.replies
		got.await(replies)
	}
	want := strings.Fields(f.codes)
	if f.leave == nil {
		got.await(len(want))
	} else {
		wait() // so far the server has come
		f.leave(c)
	}
	end := time.Now()
	switch d := end.Sub(before); {
	case f.leave != nil:
		end = end.Add(f.after)
	case w.raw != nil && d != f.after:
		t.Errorf("the end comes after %v, want %v", d, f.after)
	}
	if f.open && host.open != "" && !(f.refused && host.open == "450") {
		want = append(want, host.open)
	}
	if client != nil {
		client.act(c)
	}
	<-served
	if client != nil && client.stays || f.leave != nil {
		collecting.Wait()
	}
	if w.raw != nil {
		f.checkClosed(t, h, w.halfCloses, host, client, end)
		if client != nil && client.stays && f.lingers != 0 && !f.open && !host.closes && !got.endedAt.Equal(end) {
			t.Errorf("the client learns of the end after %v", got.endedAt.Sub(end))
		}
	}
	if got := h.received.String(); got != f.got {
		t.Errorf("the server got %q, want %q", got, f.got)
	}
	c.Close()
	collecting.Wait()
	if codes := got.await(1 << 20); !slices.Equal(codes, want) && !(f.mayMiss(host, client) && isPrefix(codes, want)) {
		t.Errorf("the client got %q, want %q", codes, want)
	}
	if h.session == nil || h.session.Context().Err() == nil {
		t.Error("the session isn't over")
	}
	wait() // a line of the log may be written behind Close
	f.checkLog(t, log)
}

// mayMiss tells whether the client may have left before the last replies, or the server
// have come too late with them.
func (f *finale) mayMiss(host hostAct, client *clientAct) bool {
	return f.leave != nil || f.open && (host.races || client != nil && !client.stays)
}

func isPrefix(codes, want []string) bool {
	return len(codes) <= len(want) && slices.Equal(codes, want[:len(codes)])
}

// checkClosed holds when the connection was closed.
func (f *finale) checkClosed(t *testing.T, h *endHost, halfCloses bool, host hostAct, client *clientAct, end time.Time) {
	at, closed := h.raw.closed()
	if !closed {
		t.Error("the connection isn't closed")
		return
	}
	lingering := f.lingers
	if f.open && host.breaks {
		lingering = min(lingering, lingers)
	}
	want := end
	switch {
	case f.lingers == 0 || f.knows && host.closes:
		want = h.closedAt // the server's own Close
	case f.lingers != atOnce && halfCloses && client != nil && client.stays && !(client.much && lingering < drains):
		want = end.Add(lingering)
	}
	inTime := f.open && host.races && !at.After(end.Add(f.lingers)) // if nobody knows what comes first
	if !at.Equal(want) && !inTime {
		t.Errorf("the connection is closed after %v, want %v", at.Sub(end), want.Sub(end))
	}
}

// checkLog holds that one reason is logged, if any.
func (f *finale) checkLog(t *testing.T, log *logbook) {
	var reasons []string
	for _, e := range log.lines("") {
		if why, ok := e.attrs["reason"]; ok {
			reasons = append(reasons, why)
		}
	}
	if len(reasons) > 1 || !f.open && strings.Join(reasons, "") != f.log {
		t.Errorf("%q was logged, want %q", reasons, f.log)
	}
}

// How long the library reads on behind the last reply.
const (
	lingers = time.Second
	drains  = 30 * time.Second // in a message
	atOnce  = -1               // it closes
)

func TestBehindTheEndOfAConnectionNothingMoreIsReadOrAnswered(t *testing.T) {
	serverTLS() // outside of the bubbles' time
	for i := range finales {
		f := &finales[i]
		t.Run(f.why, func(t *testing.T) {
			for _, host := range hostActs {
				if f.leave != nil {
					bubble(t, host.why, func(t *testing.T) { f.play(t, inMemoryWiring(), host, nil) })
					continue
				}
				for _, client := range clientActs {
					if !f.allows(client) {
						continue
					}
					bubble(t, host.why+", "+client.why, func(t *testing.T) { f.play(t, inMemoryWiring(), host, &client) })
				}
			}
		})
	}
}

// allows tells whether a client may do so.
func (f *finale) allows(client clientAct) bool {
	return !(client.ahead && f.alone) && !(f.silent && client.why != silence)
}

// A connection that can't be closed on one side is closed at once.
func TestAConnectionThatCannotBeHalfClosedEndsAtOnce(t *testing.T) {
	serverTLS() // outside of the bubbles' time
	for i := range finales {
		f := &finales[i]
		for _, client := range clientActs {
			if f.leave == nil && f.allows(client) && client.stays {
				bubble(t, f.why+", "+client.why, func(t *testing.T) {
					w := inMemoryWiring()
					w.server, w.halfCloses = struct{ net.Conn }{w.server}, false
					f.play(t, w, hostActs[0], &client)
				})
			}
		}
	}
}

// A connection that takes no deadlines is closed to end a Read.
func TestAConnectionWithoutDeadlinesEndsAtOnceWhileItIsRead(t *testing.T) {
	rows := 0
	for i := range finales {
		f := finales[i]
		if f.leave != nil || f.lingers == 0 || !strings.Contains(f.why, "while a Read waits") {
			continue
		}
		rows++
		bubble(t, f.why, func(t *testing.T) {
			w := inMemoryWiring()
			w.server, w.halfCloses = withoutDeadlines{w.server}, false
			for _, client := range clientActs {
				if client.why == silence {
					f.play(t, w, hostActs[0], &client)
				}
			}
		})
	}
	if rows == 0 {
		t.Error("there are none")
	}
}

// A sample of the same over sockets, where nothing takes its time.
func TestBehindTheEndOfATCPConnectionNothingMoreIsReadOrAnswered(t *testing.T) {
	leaveNothing(t)
	base()
	for i := range finales {
		f := &finales[i]
		if f.leave != nil || f.after > 0 || f.silent {
			continue
		}
		t.Run(f.why, func(t *testing.T) {
			for j, host := range hostActs {
				for k, client := range clientActs {
					switch {
					case (i+j+k)%3 > 0, !f.allows(client):
						continue
					case client.stays && !(client.much && f.lingers == lingers):
						continue // a second, or half a minute
					}
					server, c, err := connectTCP()
					if err != nil {
						t.Fatal(err)
					}
					c.SetDeadline(time.Now().Add(patience))
					t.Run(host.why+", "+client.why, func(t *testing.T) {
						f.play(t, wiring{server, tcpClient{c.(*net.TCPConn)}, nil, true}, host, &client)
					})
				}
			}
		})
	}
}
