package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
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
