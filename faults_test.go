package smtpproxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file breaks connections at each of their calls: those of the client,
// beneath the library, and the server's use of what it got from the library.
//
// After each session nothing is left of it, and the client has got the replies
// that it gets without the fault, each to its own command, up to the moment of
// the fault. Neighbouring replies differ, so that none can be taken for another.

// turn is what a client sends at a time, and how many replies it waits for then.
type turn struct {
	send    string
	replies int
	tls     bool // it shakes hands behind the reply
}

// played is a session for a server: AUTH, and a message with DATA and one with
// BDAT, in which the hook answers HELP itself.
func played(name string) []turn {
	const mail = "HELP 1\r\nMAIL FROM:<1@x>\r\nRCPT TO:<c@d>\r\nRCPT TO:<no@d>\r\nHELP 2\r\nRCPT TO:<e@f>\r\nDATA\r\n"
	head := func(greet string) []turn {
		return []turn{{send: "", replies: 1}, {send: greet + " x\r\n", replies: 1}, {send: "AUTH PLAIN\r\n", replies: 1},
			{send: b64("\x00user\x00pass") + "\r\n", replies: 1}, {send: mail, replies: 7}, {send: "x\r\n..y", replies: 0}}
	}
	if strings.HasSuffix(name, "LMTP") {
		// Without BDAT: a transfer that is broken off is a data race within
		// go-smtp's LMTP.
		return append(head("LHLO"), turn{send: "\r\n.\r\n", replies: 2},
			turn{send: "HELP 3\r\nRSET\r\nVRFY x\r\nHELP 4\r\n", replies: 4}, turn{send: "QUIT\r\n", replies: 1})
	}
	return append(head("EHLO"), turn{send: "\r\n.\r\n", replies: 1},
		turn{send: "HELP 3\r\nRSET\r\nVRFY x\r\nHELP 4\r\n", replies: 4},
		turn{send: "MAIL FROM:<2@x>\r\nRCPT TO:<c@d>\r\nBDAT 8\r\nNOOP\r\n.\r", replies: 3},
		turn{send: "BDAT 8 LAST\r\n\nRS", replies: 0}, turn{send: "ET\r\n.", replies: 1}, turn{send: "QUIT\r\n", replies: 1})
}

// inTLS is a session with STARTTLS.
var inTLS = []turn{{send: "", replies: 1}, {send: "EHLO x\r\n", replies: 1}, {send: "STARTTLS\r\n", replies: 1, tls: true},
	{send: "EHLO y\r\n", replies: 1}, {send: "HELP 1\r\nMAIL FROM:<1@x>\r\nRCPT TO:<c@d>\r\nDATA\r\n", replies: 4},
	{send: "x\r\n..y\r\n.\r\n", replies: 1}, {send: "HELP 2\r\nQUIT\r\n", replies: 2}}

// oneByOne faults the turns into lines, for a client that sends nothing ahead.
func oneByOne(turns []turn) (lines []turn) {
	for _, t := range turns {
		rest := t.send
		for t.replies > 1 && !strings.HasPrefix(t.send, "\r\n") { // else it's LMTP's end of a message
			line, after, _ := strings.Cut(rest, "\r\n")
			lines = append(lines, turn{send: line + "\r\n", replies: 1})
			rest = after
			t.replies--
		}
		t.send = rest
		lines = append(lines, t)
	}
	return lines
}

// chat plays a client and returns the replies that it got, and what it got of
// one more.
func chat(c net.Conn, turns []turn, ahead bool) (replies []string, rest string) {
	r := bufio.NewReader(c)
	reply := func() bool {
		for {
			line, err := r.ReadString('\n')
			if rest += line; err != nil {
				return false
			}
			if len(line) < 4 || line[3] != '-' {
				replies, rest = append(replies, rest), ""
				return true
			}
		}
	}
	if ahead {
		var all strings.Builder
		for _, t := range turns {
			all.WriteString(t.send)
		}
		turns = []turn{{send: all.String()}}
	}
	// It writes while it reads, since a pipe holds nothing.
	var writing sync.WaitGroup
	defer writing.Wait()
	defer func() { c.Close() }()
	turnsLeft := make(chan turn, len(turns))
	defer close(turnsLeft)
	write := func(c net.Conn) {
		for t := range turnsLeft {
			if t.send != "" {
				io.WriteString(c, t.send)
			}
			if t.tls {
				return
			}
		}
	}
	writing.Go(func() { write(c) })
	for _, t := range turns {
		turnsLeft <- t
		for range t.replies {
			if !reply() {
				return replies, rest
			}
		}
		if t.tls && strings.HasPrefix(replies[len(replies)-1], "220") {
			writing.Wait()
			tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if tc.Handshake() != nil {
				return replies, rest
			}
			c = tc
			r.Reset(c)
			writing.Go(func() { write(tc) })
		}
	}
	for reply() {
	}
	return replies, rest
}

// misplaced tells what is wrong with the replies that a client got, by those
// that it gets without a fault. The server may have refused what it couldn't
// execute, or have taken its leave.
func misplaced(got []string, rest string, want []string) string {
	refuses := func(g string) bool { return g[0] == '4' || g[0] == '5' }
	for i, g := range got {
		if i < len(want) && g == want[i] {
			continue
		}
		isLeave := strings.HasPrefix(g, "421") && i == len(got)-1 && rest == ""
		if !isLeave && (!refuses(g) || slices.Contains(want, g) || i >= len(want)) {
			return fmt.Sprintf("%q in place of %q", g, want[min(i, len(want)):min(i+1, len(want))])
		}
	}
	// Half a reply is one of that which is next.
	if rest != "" && (len(got) >= len(want) || !strings.HasPrefix(want[len(got)], rest)) && !refuses(rest) {
		return fmt.Sprintf("the replies end in %q", rest)
	}
	return ""
}

// accepted counts the messages that a client was told were taken.
func accepted(got []string) (n int) {
	for _, g := range got {
		if strings.Contains(g, "OK: queued") && !strings.Contains(g, "<e@f>") || strings.HasPrefix(g, "250 2.0.0 taken") {
			n++
		}
	}
	return n
}

// answerHelp is a hook that answers HELP, and remembers what it has passed.
type answerHelp struct{ passLog }

func (h *answerHelp) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	if cmd.Verb() == "HELP" {
		return reply{Code: 214, Lines: []string{cmd.Args()}}, nil
	}
	return h.passLog.Command(ctx, cmd, conn, txn)
}

// fault is what is wrong with a connection: the n-th of the calls of a kind, and
// those behind it.
type fault struct {
	name   string
	op     string // the method that is counted; "" is any
	err    error  // that it returns
	octets int    // that are read or written nevertheless
	once   bool   // the calls behind it work
	stalls bool   // it waits for a deadline, or for Close
	short  bool   // it is well, but for no more than an octet
	drops  bool   // it does nothing, and tells it has
}

var errCut = errors.New("the cable is cut")

// faultyConn is a connection with a fault.
type faultyConn struct {
	net.Conn
	fault
	n      int           // 0: never
	spare  net.Conn      // nobody is at the other end of it
	struck chan struct{} // closed when the fault has happened
	closed chan struct{}

	mu     sync.Mutex
	calls  int
	isShut bool
}

func newFaultyConn(c net.Conn, f fault, n int) *faultyConn {
	spare, _ := net.Pipe()
	return &faultyConn{Conn: c, fault: f, n: n, spare: spare, struck: make(chan struct{}), closed: make(chan struct{})}
}

// NetConn is for SessionOf.
func (c *faultyConn) NetConn() net.Conn { return c.Conn }

// strikes tells whether a call is to fail.
func (c *faultyConn) strikes(op string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 || c.op != "" && c.op != op {
		return false
	}
	if c.calls++; c.calls == c.n {
		close(c.struck)
		if c.op == "" {
			c.Conn.Close() // calls that are under way fail as well
		}
	}
	return c.calls == c.n || c.calls > c.n && !c.once
}

func (c *faultyConn) Read(p []byte) (int, error) {
	switch struck := c.strikes("Read"); {
	case !struck:
		return c.Conn.Read(p)
	case c.stalls:
		return c.spare.Read(p)
	case c.short:
		return c.Conn.Read(p[:1])
	case c.octets > 0:
		n, _ := c.Conn.Read(p[:min(c.octets, len(p))])
		return n, c.err
	}
	return 0, c.err
}

func (c *faultyConn) Write(p []byte) (int, error) {
	switch struck := c.strikes("Write"); {
	case !struck:
		return c.Conn.Write(p)
	case c.stalls:
		return c.spare.Write(p)
	case c.drops:
		return len(p), nil
	case c.short:
		for i := range p {
			if n, err := c.Conn.Write(p[i : i+1]); err != nil {
				return i + n, err
			}
		}
		return len(p), nil
	case c.octets > 0:
		n, _ := c.Conn.Write(p[:min(c.octets, len(p)-1)])
		return n, c.err
	}
	return 0, c.err
}

func (c *faultyConn) deadline(op string, set, setSpare func(time.Time) error, t time.Time) error {
	if c.strikes(op) && c.err != nil {
		return c.err
	}
	setSpare(t)
	return set(t)
}

func (c *faultyConn) SetReadDeadline(t time.Time) error {
	return c.deadline("SetReadDeadline", c.Conn.SetReadDeadline, c.spare.SetReadDeadline, t)
}

func (c *faultyConn) SetWriteDeadline(t time.Time) error {
	return c.deadline("SetWriteDeadline", c.Conn.SetWriteDeadline, c.spare.SetWriteDeadline, t)
}

func (c *faultyConn) SetDeadline(t time.Time) error {
	return c.deadline("SetDeadline", c.Conn.SetDeadline, c.spare.SetDeadline, t)
}

// CloseWrite is there as on TCP, so that the library reads on before it closes.
func (c *faultyConn) CloseWrite() error {
	if c.strikes("CloseWrite") && c.err != nil {
		return c.err
	}
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection even if it tells otherwise.
func (c *faultyConn) Close() error {
	struck := c.strikes("Close")
	c.mu.Lock()
	if !c.isShut {
		c.isShut = true
		close(c.closed)
	}
	c.mu.Unlock()
	c.spare.Close()
	if err := c.Conn.Close(); !struck || c.err == nil {
		return err
	}
	return c.err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ordeal is a session on a connection with a fault.
type ordeal struct {
	server func() *servertest.Server
	proxy  smtpproxy.Proxy
	listen func(*testing.T) transport
	turns  []turn
	ahead  bool // the client doesn't wait for replies
	above  bool // the fault is in the server's use of the connection
	ends   bool // the server is closed when the fault has happened
	bubble bool // time passes when all wait for it

	want     []string // replies
	messages []string // whole
}

// sweep breaks the first call, then the second, until the session gets through
// without coming to it. It returns how many sessions that took.
func (o *ordeal) sweep(t *testing.T, f fault) (n int) {
	t.Helper()
	play := func(f fault, n int) (struck bool) {
		if !o.bubble {
			return o.play(t, f, n)
		}
		synctest.Test(t, func(t *testing.T) { struck = o.play(t, f, n) })
		return struck
	}
	if o.want == nil {
		base() // has a descriptor of its own
		play(fault{}, 0)
		for i := range o.want[1:] {
			if o.want[i] == o.want[i+1] {
				t.Fatalf("one reply %q could be taken for another", o.want[i])
			}
		}
	}
	for n = 1; ; n++ {
		struck := play(f, n)
		switch {
		case t.Failed():
			t.Fatalf("%s, at call %d", f.name, n)
		case !struck && n == 1:
			t.Fatalf("%s: there is no such call", f.name)
		case !struck:
			return n
		}
	}
}

// play plays one session, and tells whether it came to the fault.
func (o *ordeal) play(t *testing.T, f fault, n int) (struck bool) {
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()
	hook := &answerHelp{}
	var ears []*eavesdropper
	var faulty *faultyConn
	raw := make(chan *faultyConn, 1)
	p := o.proxy
	p.Hook = hook
	tr := o.listen(t)
	below := wrappedListener{tr, func(c net.Conn) net.Conn {
		fc := newFaultyConn(c, fault{}, 0)
		if !o.above {
			fc = newFaultyConn(c, f, n)
			faulty = fc
		}
		raw <- fc
		return fc
	}}
	above := wrappedListener{p.Listener(below), func(c net.Conn) net.Conn {
		if o.above {
			faulty = newFaultyConn(c, f, n)
			return faulty
		}
		ears = append(ears, &eavesdropper{hook: &hook.passLog, Conn: c})
		return ears[len(ears)-1]
	}}
	s, served := o.server(), make(chan error, 1)
	go func() { served <- s.Serve(above) }()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	client := <-raw
	limit := patience / 2
	if o.bubble {
		limit = time.Hour
	}
	hangs := time.AfterFunc(limit, func() {
		buf := make([]byte, 1<<16)
		t.Errorf("the session doesn't end:\n%s", buf[:runtime.Stack(buf, true)])
		c.Close()
		client.Close()
	})
	closing := make(chan struct{})
	go func() {
		defer close(closing)
		if o.ends {
			select {
			case <-client.struck:
			case <-client.closed:
			}
			s.Close()
		}
	}()
	start := time.Now()
	got, rest := chat(c, o.turns, o.ahead)
	<-client.closed // by the server, or the library
	hangs.Stop()
	if d := time.Since(start); o.bubble && d > time.Minute {
		t.Errorf("it takes %v", d)
	}
	<-closing
	s.Close()
	<-served
	struck = faulty != nil && isClosed(faulty.struck)
	if !o.bubble { // none can be left in a bubble
		leavesNothing(t, goroutines, descriptors)
	}

	rec := s.Record()
	if rec.Sessions != rec.Ended {
		t.Errorf("%d sessions begun, %d ended", rec.Sessions, rec.Ended)
	}
	for _, ear := range ears {
		if ear.problem != "" {
			t.Error(ear.problem)
		}
	}
	var messages []string
	for _, m := range rec.Messages {
		messages = append(messages, fmt.Sprintf("%s %q", m.From, m.Data))
	}
	if o.want == nil {
		o.want, o.messages = got, messages
		replies := 0
		for _, turn := range o.turns {
			replies += turn.replies
		}
		if len(got) != replies || rest != "" || len(messages) == 0 {
			t.Fatalf("without a fault the client got %q %q, the server %q", got, rest, messages)
		}
		return false
	}
	if problem := misplaced(got, rest, o.want); problem != "" {
		t.Errorf("%s\ngot  %q %q\nwant %q", problem, got, rest, o.want)
	}
	for i, m := range messages {
		if !slices.Contains(o.messages, m) || slices.Contains(messages[:i], m) {
			t.Errorf("the server took %q, want %q", messages, o.messages)
		}
	}
	if n := accepted(got); n > len(messages) {
		t.Errorf("the client was told that %d messages were taken, of %q", n, messages)
	}
	harmless := !struck || f.short
	if harmless && (!slices.Equal(got, o.want) || !slices.Equal(messages, o.messages)) {
		t.Errorf("all is well, and the client got %q %q, the server %q", got, rest, messages)
	}
	return struck
}

// leavesNothing checks that all goroutines but those before end, and that no
// descriptor is left.
func leavesNothing(t *testing.T, goroutines, descriptors int) {
	t.Helper()
	for start := time.Now(); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Since(start) > patience {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, buf[:runtime.Stack(buf, true)])
		}
	}
	if n := openFiles(); n != descriptors {
		t.Errorf("%d descriptors, %d before", n, descriptors)
	}
}

// openFiles counts the descriptors of the process, where the system tells.
func openFiles() int {
	files, _ := os.ReadDir("/proc/self/fd")
	return len(files)
}

// faultedServers are those whose sessions are broken.
var faultedServers = map[string]func() *servertest.Server{
	"go-smtp": func() *servertest.Server {
		return servertest.GoSMTP(servertest.Configure(func(s *smtp.Server) { s.WriteTimeout = 10 * time.Second }))
	},
	"go-smtp, LMTP": func() *servertest.Server {
		return servertest.GoSMTPLMTP(true, servertest.Configure(func(s *smtp.Server) { s.WriteTimeout = 10 * time.Second }))
	},
	"strict":      func() *servertest.Server { return servertest.Strict() },
	"lenient":     func() *servertest.Server { return servertest.Lenient(servertest.LineByLine()) },
	"reads ahead": func() *servertest.Server { return servertest.RunAhead() },
}

func inMemory(*testing.T) transport { return newTransport(true, connectInMemory) }

var clientFaults = []fault{
	{name: "all fails from then on", err: errCut},
	{name: "the end, from then on", err: io.EOF},
	{name: "nothing is read any more", op: "Read", err: errCut},
	{name: "a read fails once", op: "Read", err: errCut, once: true},
	{name: "a read is its last", op: "Read", err: io.EOF, octets: 1 << 10},
	{name: "a read is its last, and not whole", op: "Read", err: errCut, octets: 1},
	{name: "a read is too late, once", op: "Read", err: os.ErrDeadlineExceeded, once: true},
	{name: "nothing is written any more", op: "Write", err: errCut},
	{name: "a write fails once", op: "Write", err: errCut, once: true},
	{name: "a write is too late, once", op: "Write", err: os.ErrDeadlineExceeded, once: true},
	{name: "a write is cut short", op: "Write", err: io.ErrShortWrite, octets: 1},
	{name: "a write is cut short, once", op: "Write", err: io.ErrShortWrite, octets: 5, once: true},
	{name: "a write fails once, all but done", op: "Write", err: errCut, octets: 1 << 10, once: true},
	{name: "no read deadline can be set", op: "SetReadDeadline", err: errCut},
	{name: "a read deadline can't be set, once", op: "SetReadDeadline", err: errCut, once: true},
	{name: "Close fails", op: "Close", err: errCut},
	{name: "an octet at a time is read", op: "Read", short: true},
}

func TestAConnectionMayFailAtAnyCall(t *testing.T) {
	sessions := 0
	for name, server := range faultedServers {
		for over, listen := range map[string]func(*testing.T) transport{"memory": inMemory, "TCP": overTCP} {
			for _, ahead := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, ahead %t", name, over, ahead), func(t *testing.T) {
					o := &ordeal{server: server, listen: listen, turns: played(name), ahead: ahead}
					for _, f := range clientFaults {
						sessions += o.sweep(t, f)
					}
				})
			}
		}
	}
	t.Logf("%d sessions", sessions)
}

func TestAConnectionMayFailAtAnyCallOfAHandshakeAndBehindIt(t *testing.T) {
	sessions := 0
	for _, name := range []string{"go-smtp", "strict", "reads ahead"} {
		t.Run(name, func(t *testing.T) {
			o := &ordeal{server: faultedServers[name], proxy: smtpproxy.Proxy{TLSConfig: serverTLS()}, listen: overTCP, turns: inTLS}
			for _, f := range clientFaults {
				if f.op == "Write" && f.octets > 0 && f.once {
					continue // half a record: the client waits for the other half, and the library a second for the client
				}
				sessions += o.sweep(t, f)
			}
		})
	}
	t.Logf("%d sessions", sessions)
}

var (
	stalledRead  = fault{name: "a read stalls", op: "Read", stalls: true}
	stalledWrite = fault{name: "a write stalls", op: "Write", stalls: true}
)

func TestAConnectionMayStallAtAnyCallUntilTheServerIsClosed(t *testing.T) {
	for name, server := range faultedServers {
		for _, ahead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ahead %t", name, ahead), func(t *testing.T) {
				o := &ordeal{server: server, listen: inMemory, turns: played(name), ahead: ahead, ends: true}
				o.sweep(t, stalledRead)
				o.sweep(t, stalledWrite)
			})
		}
	}
}

func TestAConnectionMayStallAtAnyCallUntilADeadline(t *testing.T) {
	for name, server := range faultedServers {
		t.Run(name, func(t *testing.T) {
			(&ordeal{server: server, listen: overPipe, turns: played(name), bubble: true}).sweep(t, stalledRead)
			if strings.HasPrefix(name, "go-smtp") { // the others set no deadline for writing
				// Nothing is sent ahead: a reply that is held while another
				// stalls has a timer that waits for a mutex.
				(&ordeal{server: server, listen: overPipe, turns: oneByOne(played(name)), bubble: true}).sweep(t, stalledWrite)
			}
		})
	}
}

func TestAConnectionMayStallAtAnyCallOfAHandshakeAndBehindIt(t *testing.T) {
	config := serverTLS().Clone()
	config.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	o := &ordeal{server: faultedServers["go-smtp"], proxy: smtpproxy.Proxy{TLSConfig: config}, listen: overPipe, turns: oneByOne(inTLS), bubble: true}
	o.sweep(t, stalledRead)
	o.sweep(t, stalledWrite)
}

func TestAServerMayUseItsConnectionInPiecesAndStopAtAnyCall(t *testing.T) {
	for name, server := range faultedServers {
		t.Run(name, func(t *testing.T) {
			for _, ahead := range []bool{false, true} {
				o := &ordeal{server: server, listen: inMemory, turns: played(name), ahead: ahead, above: true}
				o.sweep(t, fault{name: "it reads an octet at a time", op: "Read", short: true})
				o.sweep(t, fault{name: "it writes an octet at a time", op: "Write", short: true})
				o.sweep(t, fault{name: "it reads no more", op: "Read", err: errCut})
			}
			// Without its reply, the library lets it read no more commands.
			o := &ordeal{server: server, listen: overPipe, turns: played(name), above: true, bubble: true}
			o.sweep(t, fault{name: "it writes no more", op: "Write", err: errCut})
			if name == "strict" || name == "reads ahead" {
				// The others write a reply in more than one piece: if one of
				// them is lost, nobody can tell.
				o.sweep(t, fault{name: "a write is lost", op: "Write", drops: true, once: true})
			}
		})
	}
}
