package apitest

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is a server with a state machine of its own, in memory. It does all that such a
// server owes its Session, or all but one thing.

// fault is what a careless host does.
type fault string

const (
	careful          fault = ""
	tellsNoAddress   fault = "tells no address"
	asksNotAtAll     fault = "doesn't call Connect"
	asksOverAgain    fault = "calls Connect again behind a handshake and a Restart"
	greetsAnybody    fault = "greets whom Connect has refused"
	hidesGreeting    fault = "doesn't tell its greeting"
	hidesSASL        fault = "doesn't call Command for a line of a SASL exchange"
	showsContent     fault = "calls Command for lines of content"
	neverCancels     fault = "cancels nothing when the client leaves"
	neverWaits       fault = "ignores Delay"
	waitsForNobody   fault = "waits for a client that has left"
	neverResets      fault = "ignores MustReset"
	executesReceived fault = "executes the client's line"
	executesAnswered fault = "executes what it got a Reply for"
	staysInSASL      fault = "stays in the SASL exchange behind a Reply"
	keepsChunk       fault = "ignores Discard"
	answersOnce      fault = "ignores Copies"
	goesOn           fault = "ignores Disconnect of a Reply"
	goesOnReplied    fault = "ignores Disconnect of what Replied returns"
	hides354         fault = "doesn't call Replied for 354"
	hidesLast        fault = "doesn't call Replied for the end of a message"
	hidesStatuses    fault = "calls Replied once for all LMTP statuses"
	hidesKeywords    fault = "tells no keywords"
	sendsItsOwn      fault = "ignores what Replied returns"
	hidesTLS         fault = "doesn't call StartedTLS"
	keepsOverTLS     fault = "keeps its state over a handshake"
	keepsPlaintext   fault = "reads on in what came before the handshake"
	knowsNoRestart   fault = "doesn't know Restart"
	keepsState       fault = "keeps its state over a Restart"
	hidesNewGreeting fault = "doesn't tell its greeting behind a Restart"
	keepsAddress     fault = "keeps the addresses over a Restart"
	losesRest        fault = "drops what is behind a Restart"
	closesNothing    fault = "doesn't call Close"
)

// handshake is what a client of ownHost sends in the place of one, in a packet of its own.
const handshake = "<handshake>"

// ownHost is such a server, with one client.
type ownHost struct {
	fault   fault
	session *smtpproxy.Session
	client  netip.AddrPort
	began   time.Time
	ctx     context.Context

	packets []string      // what the client is still to send, each at once
	in      string        // what there is of it
	gone    chan struct{} // closed when the client leaves

	over bool // no command after this one
	hostState

	mu  sync.Mutex
	log strings.Builder // what happens, a line each
}

// hostState is what it knows of the client.
type hostState struct {
	greeted, lmtp bool
	user          string
	sasl          bool // the next line is a response
	hostTransaction
}

type hostTransaction struct {
	from    string
	to      []string
	content string
}

// runOwnHost lets a client send packets, and returns what happens. It must be called in a
// bubble of synctest.
func runOwnHost(t *testing.T, f fault, proxy func(h *ownHost) smtpproxy.Proxy, packets ...string) string {
	h := &ownHost{fault: f, packets: slices.Clone(packets), gone: make(chan struct{}), began: time.Now(), client: frontEnd, ctx: t.Context()}
	p := proxy(h)
	conn := toServer()
	if f == tellsNoAddress {
		conn = smtpproxy.Connection{}
	}
	h.session = p.NewSession(conn)
	if h.serve(); f == closesNothing {
		defer h.session.Close()
	} else {
		h.session.Close()
	}
	time.Sleep(time.Nanosecond) // in which the end is told
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// note notes what happens.
func (h *ownHost) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(&h.log, format, args...)
	if d := time.Since(h.began); d > 0 {
		fmt.Fprintf(&h.log, " (after %v)", d)
	}
	h.log.WriteByte('\n')
}

// serve is the whole dialogue.
func (h *ownHost) serve() {
	defer func() { h.note("closed") }()
	var d smtpproxy.Decision = smtpproxy.Pass{}
	if h.fault != asksNotAtAll {
		d = h.session.Connect(h.ctx)
	}
	err := h.obey(d, "", h.greet)
	for err == nil && !h.over {
		var line string
		if line, err = h.readLine(); err != nil {
			return
		}
		if h.sasl && h.fault == hidesSASL {
			err = h.execute(line)
			continue
		}
		ctx, end := h.watched()
		d := h.session.Command(ctx, line)
		end()
		err = h.obey(d, line, h.execute)
	}
}

// watched returns a context that is done when the client leaves.
func (h *ownHost) watched() (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(h.ctx)
	if h.fault == neverCancels {
		return ctx, func() { cancel(nil) }
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-h.gone:
			cancel(smtpproxy.ErrClientGone)
		case <-ended:
		}
	}()
	return ctx, func() { close(ended); cancel(nil) }
}

// obey does what the session has decided.
func (h *ownHost) obey(d smtpproxy.Decision, line string, execute func(string) error) error {
	reply, replied := d.(smtpproxy.Reply)
	switch {
	case replied && reply.Restart != nil && h.fault != knowsNoRestart:
		return h.restart(reply)
	case replied && line == "" && h.fault == greetsAnybody:
		return h.greet("")
	case replied:
		err := h.answer(reply)
		if h.fault == executesAnswered {
			execute(line)
		}
		return err
	}
	pass := d.(smtpproxy.Pass)
	if err := h.wait(pass.Delay); err != nil {
		return err
	}
	if h.session.MustReset() && h.fault != neverResets {
		h.hostTransaction = hostTransaction{}
	}
	if line != "" && h.fault != executesReceived {
		line = pass.Command
	}
	return execute(line)
}

// restart starts afresh, for another client.
func (h *ownHost) restart(r smtpproxy.Reply) error {
	if err := h.wait(r.Delay); err != nil {
		return err
	}
	if h.fault != keepsState {
		h.hostState = hostState{}
	}
	if conn := h.session.Connection(); h.fault != keepsAddress {
		h.client = netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort)
	}
	if h.fault == losesRest {
		h.in = ""
	}
	if h.fault == asksOverAgain {
		h.session.Connect(h.ctx)
	}
	return h.greet("")
}

// answer sends a reply that isn't the server's.
func (h *ownHost) answer(r smtpproxy.Reply) error {
	if h.fault != staysInSASL {
		h.sasl = false
	}
	h.over = r.Disconnect && h.fault != goesOn
	if h.fault != keepsChunk {
		if _, err := h.read(int(h.session.Discard())); err != nil {
			return err
		}
	}
	if err := h.wait(r.Delay); err != nil {
		return err
	}
	h.note("S: %v", r)
	for i := 1; i < h.session.Copies() && h.fault != answersOnce; i++ {
		h.note("S: %v", r)
	}
	return nil
}

// wait waits for as long as a hook wants it, or until the client leaves.
func (h *ownHost) wait(d time.Duration) error {
	if d == 0 || h.fault == neverWaits {
		return nil
	}
	gone := h.gone
	if h.fault == waitsForNobody {
		gone = nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-gone:
		return io.EOF
	}
}

// reply sends a reply of the server's own.
func (h *ownHost) reply(code int, lines ...string) error {
	told := lines
	if h.fault == hidesKeywords {
		told = nil
	}
	return h.send(h.session.Replied(code, told...), code, lines...)
}

// replyUntold is reply, but the session isn't told by a careless host.
func (h *ownHost) replyUntold(f fault, code int, lines ...string) error {
	if h.fault != f {
		return h.reply(code, lines...)
	}
	h.note("S: %v", ownReply(code, lines))
	return nil
}

func (h *ownHost) send(r smtpproxy.Reply, code int, lines ...string) error {
	if h.fault == sendsItsOwn {
		r = ownReply(code, lines)
	}
	h.over = h.over || r.Disconnect && h.fault != goesOnReplied
	if err := h.wait(r.Delay); err != nil {
		return err
	}
	h.note("S: %s", strings.ReplaceAll(r.String(), "\r\n", "|"))
	return nil
}

func ownReply(code int, lines []string) smtpproxy.Reply {
	return smtpproxy.Reply{Code: code, Enhanced: smtpproxy.NoEnhancedCode, Lines: lines}
}

// greet greets the client, whoever that is now.
func (h *ownHost) greet(string) error {
	f := hidesGreeting
	if h.client != frontEnd {
		f = hidesNewGreeting
	}
	return h.replyUntold(f, 220, "host.example")
}

// read reads so many octets.
func (h *ownHost) read(n int) (string, error) {
	for len(h.in) < n {
		if len(h.packets) == 0 {
			return "", io.EOF
		}
		h.in, h.packets = h.in+h.packets[0], h.packets[1:]
	}
	octets := h.in[:n]
	h.in = h.in[n:]
	return octets, nil
}

// readLine returns a line without its line end.
func (h *ownHost) readLine() (string, error) {
	for n := 1; ; n++ {
		if n > len(h.in) && len(h.packets) == 0 {
			return "", io.EOF
		}
		if i := strings.Index(h.in, "\r\n"); i >= 0 {
			line, err := h.read(i + 2)
			return strings.TrimSuffix(line, "\r\n"), err
		}
		h.in, h.packets = h.in+h.packets[0], h.packets[1:]
	}
}

// execute executes a line that the session has passed.
func (h *ownHost) execute(line string) error {
	if h.sasl {
		h.sasl = false
		return h.authenticate(line)
	}
	h.note("executes %s", line)
	cmd := smtpproxy.Command{Line: line}
	switch cmd.Verb() {
	case "EHLO", "LHLO":
		h.greeted, h.lmtp, h.hostTransaction = true, cmd.Verb() == "LHLO", hostTransaction{}
		return h.reply(250, "host.example", "PIPELINING", "CHUNKING", "SIZE 1000", "AUTH PLAIN", "STARTTLS")
	case "MAIL":
		if !h.greeted {
			return h.reply(503, "Greet first")
		}
		h.from = strings.TrimPrefix(cmd.Args(), "FROM:") // nested MAIL, the session refuses
		return h.reply(250, "OK")
	case "RCPT":
		h.to = append(h.to, strings.TrimPrefix(cmd.Args(), "TO:"))
		return h.reply(250, "OK")
	case "DATA":
		return h.data()
	case "BDAT":
		return h.bdat(cmd.Args())
	case "RSET":
		h.hostTransaction = hostTransaction{}
		return h.reply(250, "OK")
	case "AUTH":
		h.sasl = true
		return h.reply(334, "")
	case "STARTTLS":
		return h.startTLS()
	case "QUIT":
		h.over = true
		return h.reply(221, "Bye")
	case "NOOP":
		return h.reply(250, "OK")
	}
	return h.reply(500, "Unknown")
}

func (h *ownHost) data() error {
	if err := h.replyUntold(hides354, 354, "Go ahead"); err != nil {
		return err
	}
	for {
		line, err := h.readLine()
		if err != nil {
			return err
		}
		if h.fault == showsContent {
			if r, ok := h.session.Command(h.ctx, line).(smtpproxy.Reply); ok {
				return h.answer(r)
			}
		}
		if line == "." {
			return h.deliver()
		}
		h.content += strings.TrimPrefix(line, ".") + "\r\n"
	}
}

// bdat takes a chunk. The session has seen to it that it is well-formed.
func (h *ownHost) bdat(args string) error {
	var size int
	fmt.Sscan(args, &size)
	chunk, err := h.read(size)
	if err != nil {
		return err
	}
	h.content += chunk
	if strings.HasSuffix(args, "LAST") {
		return h.deliver()
	}
	return h.reply(250, "OK")
}

// deliver takes the message. In LMTP, each recipient has a reply of its own.
func (h *ownHost) deliver() error {
	x := h.hostTransaction
	h.hostTransaction = hostTransaction{}
	h.note("mail from %s to %s: %q, of %q at %v", x.from, strings.Join(x.to, " "), x.content, h.user, h.client)
	replies := 1
	if h.lmtp {
		replies = len(x.to)
	}
	for i := range replies {
		f := hidesLast
		if i > 0 {
			f = hidesStatuses
		}
		if err := h.replyUntold(f, 250, "OK"); err != nil {
			return err
		}
	}
	return nil
}

// authenticate checks a response of AUTH PLAIN, of which it takes any.
func (h *ownHost) authenticate(response string) error {
	message, err := base64.StdEncoding.DecodeString(response)
	if fields := strings.Split(string(message), "\x00"); err == nil && len(fields) == 3 {
		h.user = fields[1]
		return h.reply(235, "Welcome")
	}
	h.note("takes a line for a response")
	return h.reply(501, "Not base64")
}

// startTLS shakes hands, as far as that goes here.
func (h *ownHost) startTLS() error {
	if err := h.reply(220, "Go ahead"); err != nil {
		return err
	}
	if h.fault != keepsPlaintext {
		h.in = "" // RFC 3207 section 4.2
	}
	i := slices.Index(h.packets, handshake)
	if i < 0 {
		return io.EOF
	}
	h.packets = slices.Delete(h.packets, i, i+1)
	if h.fault != hidesTLS {
		h.session.StartedTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	}
	if h.fault != keepsOverTLS {
		h.hostState = hostState{}
	}
	if h.fault == asksOverAgain {
		h.session.Connect(h.ctx)
	}
	return nil
}
