package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has clients that leave at any moment, while hooks look at their Context, or hold
// lines and replies back: what was sent whole is answered as long as there is somebody to
// answer, and behind the end nobody is called.

// attendant is a hook and an observer that look, delay, and note when they are called.
type attendant struct {
	mu    sync.Mutex
	rand  *rand.Rand
	busy  map[string]bool // a call is under way, by connection
	ended map[string]int  // how often a hook was told of the end
	last  map[string]int  // how often an observer was
	gone  int             // Contexts that were done since the client was gone
	wrong []string
}

func newAttendant(seed uint64) *attendant {
	return &attendant{rand: rand.New(rand.NewPCG(seed, 16)), busy: make(map[string]bool),
		ended: make(map[string]int), last: make(map[string]int)}
}

func (a *attendant) fault(format string, args ...any) {
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

// enter notes a call, and returns what notes its return.
func (a *attendant) enter(id, what string, byHook bool) (n int, leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case byHook && a.ended[id] > 0, a.last[id] > 0:
		a.fault("%s behind the end", what)
	case a.busy[id]:
		a.fault("%s beside another call", what)
	}
	a.busy[id] = true
	return a.rand.IntN(12), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.busy[id] = false
	}
}

// attend is what a hook does with its Context, and its Decision.
func (a *attendant) attend(ctx *hookContext, n int) (decision, error) {
	switch n {
	case 0:
		ctx.Err()
	case 1:
		ctx.AfterFunc(func() {})
	case 2, 3:
		select { // as long as a query takes
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	case 4:
		return pass{Delay: time.Millisecond}, nil
	case 5:
		runtime.Gosched()
	}
	if ctx.Err() != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.gone++
	}
	return nil, nil
}

func (a *attendant) Connect(ctx *hookContext, conn connection) (decision, error) {
	n, leave := a.enter(conn.ID, "Connect", true)
	defer leave()
	return a.attend(ctx, n)
}

func (a *attendant) Command(ctx *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
	n, leave := a.enter(conn.ID, cmd.Verb(), true)
	defer leave()
	if cmd.Verb() == "XCLIENT" {
		return reply{Restart: &origin}, nil
	}
	return a.attend(ctx, n)
}

func (a *attendant) Reply(ctx *hookContext, x smtpproxy.Exchange) (decision, error) {
	n, leave := a.enter(x.Connection.ID, "Reply", true)
	defer leave()
	return a.attend(ctx, n)
}

func (a *attendant) Disconnect(_ *hookContext, conn connection, _ end) {
	_, leave := a.enter(conn.ID, "Disconnect", true)
	defer leave()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended[conn.ID]++
}

// observer is its other side.
func (a *attendant) observer() smtpproxy.Observer {
	note := func(conn connection, what string) {
		_, leave := a.enter(conn.ID, what, false)
		leave()
	}
	return smtpproxy.Observer{
		Connected:  func(_ *hookContext, conn connection) { note(conn, "Connected") },
		Exchanged:  func(_ *hookContext, x smtpproxy.Exchange) { note(x.Connection, "Exchanged") },
		StartedTLS: func(_ *hookContext, conn connection, _ error) { note(conn, "StartedTLS") },
		Disconnected: func(_ *hookContext, conn connection, _ end) {
			note(conn, "Disconnected")
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.ended[conn.ID] != 1 {
				a.fault("Disconnected, and Disconnect %d times before", a.ended[conn.ID])
			}
			a.last[conn.ID]++
		},
	}
}

// await waits until so many ends are told, and returns what was wrong.
func (a *attendant) await(n int) (wrong []string) {
	for start := time.Now(); time.Since(start) < patience; runtime.Gosched() {
		a.mu.Lock()
		told := len(a.last)
		a.mu.Unlock()
		if told >= n {
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.last) != n || len(a.ended) != n {
		a.fault("of %d connections, hooks were told of the end of %d, observers %d", n, len(a.ended), len(a.last))
	}
	for id, k := range a.last {
		if k != 1 || a.ended[id] != 1 {
			a.fault("told %d times of one end, observers %d times", a.ended[id], k)
		}
	}
	return a.wrong
}

// leavingScene is one session, piece by piece: what a client sends, and the replies to it.
type leavingScene struct{ sends, replies string }

// leavingScenes is the session of the clients that leave.
func leavingScenes(greet string) []leavingScene {
	auth := base64.StdEncoding.EncodeToString([]byte("\x00user\x00pass"))
	all := []leavingScene{
		{"", "220"}, {greet + " client.example\r\n", "250"}, {"AUTH PLAIN\r\n", "334"}, {auth + "\r\n", "235"},
		{"MAIL FROM:<a@a>\r\n", "250"}, {"XCLIENT ADDR=192.0.2.7\r\n", "220"}, {greet + " again.example\r\n", "250"},
		{"MAIL FROM:<a@a>\r\n", "250"}, {"RCPT TO:<b@b>\r\n", "250"}, {"RCPT TO:<no@b>\r\n", "550"}, {"RCPT TO:<c@b>\r\n", "250"},
		{"DATA\r\n", "354"}, {"one\r\n..\r\n.\r\n", "250"}, {"MAIL FROM:<2@a>\r\n", "250"}, {"RCPT TO:<b@b>\r\n", "250"},
		{"BDAT 3\r\none", "250"}, {"BDAT 5 LAST\r\n\r\ntwo", "250"}, {"NOOP\r\n", "250"}, {"QUIT\r\n", "221"},
	}
	if greet == "LHLO" {
		all[12].replies = "250 250"
	}
	return all
}

// wayToLeave is a way to leave.
type wayToLeave struct {
	name  string
	stays bool // for the replies
	leave func(t *testing.T, c, raw net.Conn)
}

var waysToLeave = []wayToLeave{
	{"half-closes", true, func(t *testing.T, c, _ net.Conn) {
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
	}},
	{"closes", false, func(_ *testing.T, c, _ net.Conn) { c.Close() }},
	{"resets", false, func(_ *testing.T, c, raw net.Conn) {
		raw.(*net.TCPConn).SetLinger(0)
		raw.Close()
	}},
}

// rawOf returns what is beneath TLS.
func rawOf(c net.Conn) net.Conn {
	if tc, ok := c.(*tls.Conn); ok {
		return tc.NetConn()
	}
	return c
}

// leaveAt plays so many octets of the session, leaves, and checks the replies. cut is what
// the server says of a message that is cut short.
func leaveAt(t *testing.T, tr transport, how wayToLeave, all []leavingScene, k int, startTLS bool, cut []string) {
	c, err := tr.dial()
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { c.Close() }()
	c.SetDeadline(time.Now().Add(patience))
	raw := rawOf(c)
	var octets strings.Builder
	var want []string
	for i, s := range all {
		octets.WriteString(s.sends)
		if octets.Len() <= k && !(startTLS && i == 0) {
			want = append(want, strings.Fields(s.replies)...)
		} else if len(want) > 0 && want[len(want)-1] == "354" {
			want = append(want, cut...)
		}
	}
	if startTLS {
		r := &octetReader{c} // TLS begins behind the reply, where nothing may be read ahead
		for _, line := range []string{"", "EHLO x\r\n", "STARTTLS\r\n"} {
			io.WriteString(c, line)
			if code, err := r.code(); err != nil || code[0] != '2' {
				t.Errorf("%q: %s, %v", line, code, err)
				return
			}
		}
		c = tlsClient(c)
	}
	if _, err := io.WriteString(c, octets.String()[:k]); err != nil {
		t.Errorf("sending %d octets: %v", k, err)
		return
	}
	how.leave(t, c, raw)
	if !how.stays {
		return
	}
	var got []string
	for r := (&octetReader{bufio.NewReader(c)}); ; {
		code, err := r.code()
		if err != nil {
			if err != io.EOF || code != "" {
				t.Errorf("of %q: got %q, %v", octets.String()[:k], code, err)
			}
			break
		}
		got = append(got, code)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("behind %q the client got %v, want %v", octets.String()[:k], got, want)
	}
}

// octetReader reads the codes of replies.
type octetReader struct{ r io.Reader }

func (o *octetReader) code() (string, error) {
	for {
		var line []byte
		for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; line = append(line, b[0]) {
			if _, err := io.ReadFull(o.r, b); err != nil {
				return string(line), err
			}
		}
		if line[3] == ' ' {
			return string(line[:3]), nil
		}
	}
}

func TestAClientThatLeavesAtAnyMomentLosesNothingThatItSentWholeAndIsOverOnce(t *testing.T) {
	base() // which stays open
	for _, row := range []struct {
		name     string
		startTLS bool
		implicit bool
		greet    string
		server   func() *servertest.Server
		cut      []string
	}{
		{"TCP, strict", false, false, "EHLO", func() *servertest.Server { return servertest.Strict() }, nil},
		{"TLS, strict", false, true, "EHLO", func() *servertest.Server { return servertest.Strict() }, nil},
		{"STARTTLS, strict", true, false, "EHLO", func() *servertest.Server { return servertest.Strict() }, nil},
		{"TCP, LMTP", false, false, "LHLO", func() *servertest.Server { return servertest.Strict(servertest.LMTP()) }, nil},
		{"TCP, go-smtp", false, false, "EHLO", func() *servertest.Server { return servertest.GoSMTP() }, []string{"554"}},
		{"TLS, go-smtp", false, true, "EHLO", func() *servertest.Server { return servertest.GoSMTP() }, []string{"554"}},
	} {
		for seed, how := range waysToLeave {
			t.Run(row.name+", "+how.name, func(t *testing.T) {
				goroutines, descriptors := runtime.NumGoroutine(), openFiles()
				a := newAttendant(uint64(seed))
				p := &smtpproxy.Proxy{Hook: a, Observers: []smtpproxy.Observer{a.observer()}, AllowInsecureAuth: true,
					TLSConfig: serverTLS(), ImplicitTLS: row.implicit}
				s, tr := row.server(), overTCP(t)
				l, served := p.Listener(tr), make(chan error, 1)
				go func() { served <- s.Serve(l) }()
				if row.implicit {
					dial := tr.dial
					tr.dial = func() (net.Conn, error) {
						c, err := dial()
						if err != nil {
							return nil, err
						}
						return tlsClient(c), nil
					}
				}
				all, total, step := leavingScenes(row.greet), 0, 3
				for _, s := range all {
					total += len(s.sends)
				}
				if testing.Short() {
					step = 17
				}
				if strings.HasSuffix(row.name, "go-smtp") {
					total = strings.Index(allSent(all), "BDAT") // a chunk that is cut is a data race within go-smtp
				}
				var clients sync.WaitGroup
				n := 0
				room := make(chan struct{}, 8)
				for k := seed; k <= total; k += step {
					n++
					room <- struct{}{}
					clients.Go(func() {
						defer func() { <-room }()
						leaveAt(t, tr, how, all, k, row.startTLS, row.cut)
					})
				}
				clients.Wait()
				if wrong := a.await(n); len(wrong) > 0 {
					t.Error(wrong)
				}
				s.Close()
				tr.Close()
				<-served
				leavesNothing(t, goroutines, descriptors)
			})
		}
	}
}

// allSent is what a client sends in a session.
func allSent(all []leavingScene) string {
	var b strings.Builder
	for _, s := range all {
		b.WriteString(s.sends)
	}
	return b.String()
}
