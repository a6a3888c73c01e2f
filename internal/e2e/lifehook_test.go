package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file has a hook that is told of all that a hook can be told of, and a client that
// counts: for the tests of how a connection begins, and how it ends.

// end is what a hook is told of the end.
type end = smtpproxy.End

// lifeHook is a hook with all methods. It notes which of them are called, and that no two
// are at the same time. Without functions it passes everything.
type lifeHook struct {
	connect  func(ctx *hookContext, conn connection) (decision, error)
	command  func(ctx *hookContext, cmd command) (decision, error)
	keywords func(kw *smtpproxy.Keywords) error
	gone     func(ctx *hookContext)
	ended    chan farewellTold // what Disconnect was told
	givenUp  bool              // calls may be given up, with HookTimeout, and return later

	mu     sync.Mutex
	busy   bool
	faults []string
	calls  []string
	conns  []connection // of Connect
}

// farewellTold is what Disconnect gets, and finds.
type farewellTold struct {
	end  end
	conn connection
	err  error // of its Context
	kept int   // how many calls are counted in the connection's state
}

func newLifeHook() *lifeHook { return &lifeHook{ended: make(chan farewellTold, 100)} }

// visitCount is the connection's state.
type visitCount struct{ calls atomic.Int32 }

// enters notes that a method is called.
func (w *lifeHook) enters(ctx *hookContext, what string) {
	smtpproxy.State[visitCount](ctx).calls.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy && !w.givenUp {
		w.faults = append(w.faults, what+" beside another call")
	}
	w.busy = true
	w.calls = append(w.calls, what)
}

func (w *lifeHook) leaves() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = false
}

func (w *lifeHook) Connect(ctx *hookContext, conn connection) (decision, error) {
	w.enters(ctx, "connect")
	defer w.leaves()
	w.mu.Lock()
	w.conns = append(w.conns, conn)
	w.mu.Unlock()
	if w.connect == nil {
		return nil, nil
	}
	return w.connect(ctx, conn)
}

func (w *lifeHook) Command(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
	w.enters(ctx, cmd.Verb())
	defer w.leaves()
	if w.command == nil {
		return nil, nil
	}
	return w.command(ctx, cmd)
}

func (w *lifeHook) Keywords(ctx *hookContext, _ connection, kw *smtpproxy.Keywords) error {
	w.enters(ctx, "keywords")
	defer w.leaves()
	if w.keywords == nil {
		return nil
	}
	return w.keywords(kw)
}

func (w *lifeHook) Disconnect(ctx *hookContext, conn connection, e end) {
	kept := int(smtpproxy.State[visitCount](ctx).calls.Load())
	w.enters(ctx, "disconnect")
	w.leaves()
	w.ended <- farewellTold{e, conn, ctx.Err(), kept}
	if w.gone != nil {
		w.gone(ctx)
	}
}

// called returns the calls so far, and checks that they came one after the other.
func (w *lifeHook) called(t *testing.T) []string {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) > 0 {
		t.Errorf("called: %v", w.faults)
	}
	return slices.Clone(w.calls)
}

// wantCalls checks what was called.
func (w *lifeHook) wantCalls(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(w.called(t), " "); got != want {
		t.Errorf("called: %s\nwant:   %s", got, want)
	}
}

// caller is a client that counts the octets of its dialogue, inside TLS where there is TLS.
type caller struct {
	t         *testing.T
	c         net.Conn
	r         *bufio.Reader
	sent, got int64
	octets    []byte // that it has got
	last      string // line of the last reply
}

func newCaller(t *testing.T, c net.Conn) *caller {
	k := &caller{t: t, c: c}
	k.r = bufio.NewReader(k)
	return k
}

// Read reads from the server, for k.r.
func (k *caller) Read(p []byte) (int, error) {
	n, err := k.c.Read(p)
	k.got += int64(n)
	k.octets = append(k.octets, p[:n]...)
	return n, err
}

func (k *caller) send(octets string) {
	n, _ := io.WriteString(k.c, octets)
	k.sent += int64(n)
}

// play says what steps tell, one after the other, separated by bars:
//
//	> line    sends the line and CRLF
//	. octets  sends octets, those of a Go string
//	< 250     gets a reply that starts so
//	TLS       shakes hands; NOTLS sends what is no handshake
//	END       the server closes, and sends nothing before
//	ALL       gets all that comes up to the end
//	FIN       the client closes
//	RST       the client resets the connection, if it can
//	WAIT 11s  does nothing for so long, in a bubble
//	CALL      what the test does
func (k *caller) play(steps string, call func()) {
	k.t.Helper()
	for step := range strings.SplitSeq(steps, "|") {
		switch verb, text, _ := strings.Cut(step, " "); verb {
		case ">":
			k.send(text + "\r\n")
		case ".":
			octets, err := unquote(text)
			if err != nil {
				k.t.Fatal(err)
			}
			k.send(string(octets))
		case "<":
			k.expect(text)
		case "TLS":
			k.c = tls.Client(k.c, &tls.Config{InsecureSkipVerify: true, ServerName: "sni.example"})
			if err := k.c.(*tls.Conn).Handshake(); err != nil {
				k.t.Fatal(err)
			}
		case "NOTLS":
			io.WriteString(k.c, "\x16\x03\x01\xff\xff\x01\x02")
			io.Copy(io.Discard, k.c)
		case "END":
			if rest, _ := io.ReadAll(k.r); len(rest) > 0 {
				k.t.Errorf("behind %q came %q", k.last, rest)
			}
		case "ALL":
			io.Copy(io.Discard, k.r)
		case "FIN":
			k.c.Close()
		case "RST":
			switch c := k.c.(type) {
			case *net.TCPConn:
				c.SetLinger(0)
				c.Close()
			case *cableEnd:
				c.reset()
			}
		case "WAIT":
			if err := waitFor(text, true); err != nil {
				k.t.Fatal(err)
			}
		case "CALL":
			call()
		default:
			k.t.Fatalf("unknown step %q", step)
		}
	}
}

// expect reads a reply.
func (k *caller) expect(start string) {
	k.t.Helper()
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			k.t.Fatalf("got %q, %v; want %s", line, err, start)
		}
		k.last = line
		if len(line) > 3 && line[3] == ' ' {
			if !strings.HasPrefix(line, start) {
				k.t.Fatalf("got %q, want %s", line, start)
			}
			return
		}
	}
}

// readReply reads a reply with all its lines.
func readReply(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil || len(line) > 3 && line[3] == ' ' {
			return err
		}
	}
}

// short tells of an end but for its octets, its Err and how long it took.
func short(e end) string {
	r := e.Reply
	closed := ""
	if r.Disconnect {
		closed = " closed"
	}
	return fmt.Sprintf("%v: %v, %s %d%s, %d commands, %d messages, %d recipients",
		e.By, e.Reason, e.Verb, r.Code, closed, e.Commands, e.Messages, e.Recipients)
}
