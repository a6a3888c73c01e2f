package timed

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// Sleeps and timeouts are in bubbles of testing/synctest, where they take no time,
// but for sockets, which no bubble has.

// newTestConn returns a Conn for raw that has begun.
func newTestConn(raw net.Conn) *Conn {
	c := new(Conn)
	*c = NewConn(raw, new(sync.Mutex))
	c.Begin()
	return c
}

// overPipe runs f in a bubble, with a Conn over a pipe that has begun.
func overPipe(t *testing.T, why string, f func(t *testing.T, c *Conn, client net.Conn)) {
	t.Helper()
	t.Run(why, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			raw, client := net.Pipe()
			defer raw.Close()
			defer client.Close()
			f(t, newTestConn(raw), client)
		})
	})
}

// overTCP returns both ends of a connection over TCP.
func overTCP(t *testing.T) (raw, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// endOfRead reads in a bubble, and tells after how long that ended with what.
func endOfRead(c io.Reader) (d time.Duration, err error) {
	start := time.Now()
	_, err = c.Read(make([]byte, 100))
	return time.Since(start), err
}

// endOfWrite is endOfRead for a write that nobody reads.
func endOfWrite(c io.Writer) (d time.Duration, err error) {
	start := time.Now()
	_, err = c.Write([]byte("x"))
	return time.Since(start), err
}

// brittle is a connection that never comes to itself after a deadline, as a TLS
// connection that has met one in a write. It remembers the deadlines that it has got.
type brittle struct {
	net.Conn
	reads, writes  []time.Time
	refusesReads   error // of SetReadDeadline
	refusesWrites  error
	failed         error
	returnsWithErr int // octets that it tells it has read with an error
	closed         bool
	written        int // how often
}

func (b *brittle) Read(p []byte) (n int, err error) {
	if b.failed != nil {
		return 0, b.failed
	}
	if n, err = b.Conn.Read(p); errors.Is(err, os.ErrDeadlineExceeded) {
		b.failed = err
		n = copy(p, strings.Repeat("x", b.returnsWithErr))
	}
	return n, err
}

func (b *brittle) Write(p []byte) (int, error) {
	b.written++
	return b.Conn.Write(p)
}

func (b *brittle) SetReadDeadline(t time.Time) error {
	if b.refusesReads != nil {
		return b.refusesReads
	}
	b.reads = append(b.reads, t)
	return b.Conn.SetReadDeadline(t)
}

func (b *brittle) SetWriteDeadline(t time.Time) error {
	if b.refusesWrites != nil {
		return b.refusesWrites
	}
	b.writes = append(b.writes, t)
	return b.Conn.SetWriteDeadline(t)
}

func (b *brittle) SetDeadline(t time.Time) error {
	return errors.Join(b.SetReadDeadline(t), b.SetWriteDeadline(t))
}

func (b *brittle) Close() error {
	b.closed = true
	return b.Conn.Close()
}

// overBrittle is overPipe with a brittle one.
func overBrittle(t *testing.T, why string, f func(t *testing.T, c *Conn, raw *brittle, client net.Conn)) {
	t.Helper()
	overPipe(t, why, func(t *testing.T, c *Conn, client net.Conn) {
		raw := &brittle{Conn: c.raw}
		f(t, newTestConn(raw), raw, client)
	})
}

func TestADeadlineThatMovesOnIsLeftToTheSocketUntilItPasses(t *testing.T) {
	raw, client := overTCP(t)
	c := newTestConn(raw)
	setBoth := func(t time.Time) {
		c.SetReadDeadline(t)
		c.SetWriteDeadline(t)
	}
	first := time.Now().Add(time.Minute)
	setBoth(first)
	for i := range 100 {
		setBoth(first.Add(time.Duration(i) * time.Second))
	}
	is := func(i Instant, t time.Time) bool { return i.time().Sub(t).Abs() < time.Second/2 }
	if !is(c.reads.armed, first) || !is(c.writes.armed, first) {
		t.Errorf("the socket has %v and %v, not the first, %v", c.reads.armed.time(), c.writes.armed.time(), first)
	}
	setBoth(time.Time{})
	if !is(c.reads.armed, first) || !is(c.writes.armed, first) {
		t.Error("the socket has another, though there's none")
	}
	earlier := first.Add(-time.Second)
	setBoth(earlier)
	if !is(c.reads.armed, earlier) || !is(c.writes.armed, earlier) {
		t.Errorf("the socket has %v and %v, not the earlier one, %v", c.reads.armed.time(), c.writes.armed.time(), earlier)
	}
	// What has passed but isn't the server's word ends nothing.
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	passing := c.reads.armed
	c.SetReadDeadline(time.Now().Add(time.Minute))
	go func() {
		armed := passing
		for armed == passing { // until it has passed, and the socket got the other
			runtime.Gosched()
			c.mu.Lock()
			armed = c.reads.armed
			c.mu.Unlock()
		}
		client.Write([]byte("NOOP\r\n"))
	}()
	if n, err := c.Read(make([]byte, 100)); n != len("NOOP\r\n") || err != nil {
		t.Errorf("%d octets read, %v", n, err)
	}
}

func TestWhatMayNotGoOnAfterADeadlineAlwaysHasTheTrueOne(t *testing.T) {
	tcp, _ := overTCP(t)
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	for _, tt := range []struct {
		why           string
		raw           net.Conn
		begun         bool
		reads, writes bool // the true one
	}{
		{"a socket", tcp, true, false, false},
		{"a socket from which others read, who would take the earlier one for true", tcp, false, true, false},
		{"a pipe, of which nothing is known", pipe, true, true, true},
		{"a pipe before that", pipe, false, true, true},
		{"TLS over a socket: reading goes on, writing doesn't", tlsServer(tcp), true, false, true},
		{"TLS over a socket, in the handshake", tlsServer(tcp), false, true, true},
		{"TLS over a pipe", tlsServer(pipe), true, true, true},
		{"TLS over TLS", tlsServer(tlsServer(tcp)), true, true, true},
	} {
		c := new(Conn)
		*c = NewConn(tt.raw, new(sync.Mutex))
		if tt.begun {
			c.Begin()
		}
		for _, deadline := range []time.Time{time.Now().Add(2 * time.Hour), {}} {
			c.raw.SetDeadline(time.Time{})
			c.reads, c.writes = timing{}, timing{}
			first := time.Now().Add(time.Hour)
			c.SetReadDeadline(first)
			c.SetWriteDeadline(first)
			c.SetReadDeadline(deadline)
			c.SetWriteDeadline(deadline)
			if exact := c.reads.armed == c.reads.at; exact != tt.reads {
				t.Errorf("%s: reads have the true one: %v", tt.why, exact)
			}
			if exact := c.writes.armed == c.writes.at; exact != tt.writes {
				t.Errorf("%s: writes have the true one: %v", tt.why, exact)
			}
		}
	}
}

func TestAReadEndsAtTheDeadlineThatWasSetLast(t *testing.T) {
	overBrittle(t, "it moves to later, and octets come before it", func(t *testing.T, c *Conn, raw *brittle, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Second))
		c.SetReadDeadline(time.Now().Add(3 * time.Second))
		time.AfterFunc(2*time.Second, func() { io.WriteString(client, "x") })
		if d, err := endOfRead(c); err != nil || d != 2*time.Second {
			t.Errorf("after %v: %v", d, err)
		}
	})
	overBrittle(t, "it moves to later, and nothing comes", func(t *testing.T, c *Conn, raw *brittle, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Second))
		c.SetReadDeadline(time.Now().Add(3 * time.Second))
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d < 3*time.Second || d > 3*time.Second+time.Millisecond {
			t.Errorf("after %v: %v", d, err)
		}
	})
	overPipe(t, "it moves to earlier while a Read waits", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Hour))
		time.AfterFunc(time.Second, func() { c.SetReadDeadline(time.Now().Add(time.Second)) })
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d.Round(time.Second) != 2*time.Second {
			t.Errorf("after %v: %v", d, err)
		}
	})
	overPipe(t, "it is lifted", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Second))
		c.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { client.Close() })
		if d, err := endOfRead(c); err != io.EOF || d != time.Hour {
			t.Errorf("after %v: %v", d, err)
		}
	})
	overPipe(t, "it has passed already", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(-time.Second))
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d > 0 {
			t.Errorf("after %v: %v", d, err)
		}
	})
}

func TestAWriteEndsAtTheDeadlineThatWasSetLast(t *testing.T) {
	overPipe(t, "it moves to later", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.SetWriteDeadline(time.Now().Add(3 * time.Second))
		if d, err := endOfWrite(c); !errors.Is(err, os.ErrDeadlineExceeded) || d.Round(time.Second) != 3*time.Second {
			t.Errorf("after %v: %v", d, err)
		}
	})
	overPipe(t, "it moves to earlier while a Write waits", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetWriteDeadline(time.Now().Add(time.Hour))
		time.AfterFunc(time.Second, func() { c.SetWriteDeadline(time.Now()) })
		if d, err := endOfWrite(c); !errors.Is(err, os.ErrDeadlineExceeded) || d.Round(time.Second) != time.Second {
			t.Errorf("after %v: %v", d, err)
		}
	})
}

func TestAnErrorOfADeadlineIsTheServers(t *testing.T) {
	refused := errors.New("refused")
	at := time.Now().Add(time.Hour)
	overBrittle(t, "for reads", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		raw.refusesReads = refused
		if err := c.SetReadDeadline(at); err != refused {
			t.Errorf("error %v", err)
		}
		if err := c.SetWriteDeadline(at); err != nil {
			t.Errorf("for writes, error %v", err)
		}
		if c.reads.armed != 0 {
			t.Error("it is noted as if it were raw's")
		}
	})
	overBrittle(t, "for writes", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		raw.refusesWrites = refused
		if err := c.SetWriteDeadline(at); err != refused {
			t.Errorf("error %v", err)
		}
		if err := c.SetReadDeadline(at); err != nil {
			t.Errorf("for reads, error %v", err)
		}
		if c.writes.armed != 0 {
			t.Error("it is noted as if it were raw's")
		}
	})
}

func TestWhetherDeadlinesAreTakenIsKnown(t *testing.T) {
	refused := errors.New("refused")
	at := time.Now().Add(time.Hour)
	overBrittle(t, "they never are", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		raw.refusesReads = refused
		if c.SetReadDeadline(at); c.HasTakenDeadline() || c.TakesDeadlines() {
			t.Error("they are, for all that it knows")
		}
	})
	overBrittle(t, "they aren't any more", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		if c.HasTakenDeadline() {
			t.Error("one was taken before it was set")
		}
		c.SetReadDeadline(at)
		if raw.refusesReads = refused; !c.HasTakenDeadline() || c.TakesDeadlines() {
			t.Error("they never were, or still are")
		}
		c.SetReadDeadline(at.Add(time.Hour))
		if !c.HasTakenDeadline() {
			t.Error("it has forgotten that they were")
		}
	})
	overPipe(t, "a Read that waits keeps its own", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		time.AfterFunc(time.Second, func() { c.TakesDeadlines() })
		giveUp := time.AfterFunc(time.Hour, func() { client.Close() })
		defer giveUp.Stop()
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d.Round(time.Second) != time.Minute {
			t.Errorf("it ended after %v: %v", d, err)
		}
	})
	overBrittle(t, "they always are", func(t *testing.T, c *Conn, raw *brittle, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Second))
		if !c.TakesDeadlines() {
			t.Error("they aren't, for all that it knows")
		}
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d.Round(time.Second) != time.Second {
			t.Errorf("behind the question, a Read ended after %v: %v", d, err)
		}
	})
}

// The server's deadline is one of ten seconds.
func TestTheTimeThatIsNotTheClientsDoesNotCount(t *testing.T) {
	const deadline = 10 * time.Second
	type step func(c *Conn, client net.Conn)
	set := func(d time.Duration) step {
		return func(c *Conn, _ net.Conn) { c.SetReadDeadline(time.Now().Add(d)) }
	}
	lift := func(c *Conn, _ net.Conn) { c.SetReadDeadline(time.Time{}) }
	// The client sends after that time, and it is read.
	sends := func(after time.Duration) step {
		return func(c *Conn, client net.Conn) {
			time.AfterFunc(after, func() { io.WriteString(client, "x") })
			c.Read(make([]byte, 1))
		}
	}
	pause := func(c *Conn, _ net.Conn) { c.Pause() }
	resume := func(c *Conn, _ net.Conn) { c.Resume() }
	renew := func(c *Conn, _ net.Conn) { c.RenewRead() }
	wait := func(d time.Duration) step { return func(*Conn, net.Conn) { time.Sleep(d) } } // in a bubble
	const never = -1
	for _, tt := range []struct {
		why   string
		steps []step
		want  time.Duration // that the next Read has then
	}{
		{"none but the client's has passed", []step{set(deadline), sends(4 * time.Second)}, 6 * time.Second},
		{"the server's own counts", []step{set(deadline), sends(4 * time.Second), wait(time.Second)}, 5 * time.Second},
		{"the hook's doesn't", []step{set(deadline), sends(4 * time.Second), pause, wait(20 * time.Second)}, 6 * time.Second},
		{"nor with several commands", []step{set(deadline), sends(time.Second), pause, wait(20 * time.Second), sends(time.Second), pause, wait(20 * time.Second)}, 8 * time.Second},
		// It was buffered. The client has used none of the time.
		{"nor a hook's with what was there when the deadline was set", []step{set(deadline), wait(3 * time.Second), pause, wait(20 * time.Second)}, deadline},
		{"nor with what came with the command before", []step{
			set(deadline), sends(4 * time.Second), pause, wait(20 * time.Second),
			set(deadline), wait(3 * time.Second), pause, wait(20 * time.Second)}, deadline},
		{"two hooks' behind one read neither, and what the client has used stays used", []step{
			set(deadline), sends(4 * time.Second), pause, wait(20 * time.Second), pause, wait(20 * time.Second)}, 6 * time.Second},
		{"the clock goes on with a wait for the client, as with a Read", []step{
			set(deadline), sends(4 * time.Second), pause, wait(20 * time.Second), resume, wait(time.Second)}, 5 * time.Second},
		{"a deadline that is set meanwhile counts from then on", []step{
			set(deadline), sends(4 * time.Second), pause, wait(5 * time.Second), set(deadline), wait(3 * time.Second)}, 7 * time.Second},
		{"an answer renews", []step{set(deadline), sends(4 * time.Second), renew}, deadline},
		{"an answer after a hook renews, from then on", []step{
			set(deadline), sends(4 * time.Second), pause, wait(20 * time.Second), renew, wait(time.Second)}, 9 * time.Second},
		{"no deadline stays none behind a hook", []step{lift, sends(time.Second), pause, wait(20 * time.Second)}, never},
		{"and with what was there before", []step{lift, pause, wait(time.Second)}, never},
		{"and behind an answer", []step{lift, sends(time.Second), pause, wait(20 * time.Second), renew}, never},
		{"one that is lifted meanwhile, too", []step{
			set(deadline), sends(4 * time.Second), pause, lift, wait(20 * time.Second)}, never},
		{"one that is meant to interrupt stays past behind a hook", []step{set(-time.Second), pause, wait(time.Second)}, 0},
		{"and behind an answer to it", []step{set(-time.Second), renew}, 0},
		{"and if it is set while the hook is asked", []step{set(deadline), sends(4 * time.Second), pause, set(-time.Second), renew}, 0},
	} {
		overBrittle(t, tt.why, func(t *testing.T, c *Conn, _ *brittle, client net.Conn) {
			for _, s := range tt.steps {
				s(c, client)
			}
			giveUp := time.AfterFunc(time.Hour, func() { client.Close() })
			defer giveUp.Stop()
			d, err := endOfRead(c)
			if tt.want == never {
				if err != io.EOF {
					t.Errorf("a Read ended after %v: %v", d, err)
				}
			} else if err != os.ErrDeadlineExceeded || d.Round(time.Millisecond) != tt.want {
				t.Errorf("a Read ended after %v: %v, want %v", d, err, tt.want)
			}
		})
	}
}

func TestWhoWaitsByTheServersDeadlineSeesItChange(t *testing.T) {
	overPipe(t, "", func(t *testing.T, c *Conn, client net.Conn) {
		at, moved := c.DeadlineChange()
		if at != 0 {
			t.Errorf("without a deadline, it is in %v", at.Until())
		}
		if _, again := c.DeadlineChange(); again != moved {
			t.Error("two who wait have two channels")
		}
		isMoved := func() bool {
			select {
			case <-moved:
				return true
			default:
				return false
			}
		}
		c.SetWriteDeadline(time.Now())
		c.SetReadBound(FromNow(time.Second))
		c.Pause()
		c.RenewRead()
		if isMoved() {
			t.Error("what isn't the server's read deadline has moved it")
		}
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if !isMoved() {
			t.Error("it doesn't tell")
		}
		if at, moved = c.DeadlineChange(); at.Until() != time.Minute || isMoved() {
			t.Errorf("then it is in %v, and has moved: %v", at.Until(), isMoved())
		}
		if c.SetReadDeadline(time.Time{}); !isMoved() {
			t.Error("it doesn't tell that it is lifted")
		}
	})
	overPipe(t, "while it is paused again and again", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for range 3 {
			c.Pause()
			if at, _ := c.DeadlineChange(); at.Until() != 10*time.Second {
				t.Errorf("it is in %v", at.Until())
			}
			time.Sleep(time.Minute) // a bubble's: the hook is slow
		}
	})
}

func TestAWriteThatTheServerKnowsNothingOfHasTheFullTime(t *testing.T) {
	for _, tt := range []struct {
		why    string
		set    time.Duration // 0: none
		want   time.Duration // 0: at once
		renews bool
	}{
		{"without it", 10 * time.Second, time.Second, false},
		{"with it", 10 * time.Second, 10 * time.Second, true},
		{"what is meant to interrupt isn't renewed", -time.Second, 0, true},
		{"none isn't", 0, time.Hour, true},
	} {
		overPipe(t, tt.why, func(t *testing.T, c *Conn, client net.Conn) {
			if tt.set != 0 {
				c.SetWriteDeadline(time.Now().Add(tt.set))
			}
			time.Sleep(9 * time.Second) // a bubble's
			if tt.renews {
				c.RenewWrite()
			}
			giveUp := time.AfterFunc(time.Hour, func() { client.Close() })
			defer giveUp.Stop()
			d, err := endOfWrite(c)
			if d.Round(time.Second) != tt.want || errors.Is(err, os.ErrDeadlineExceeded) != (tt.want < time.Hour) {
				t.Errorf("after %v: %v, want %v", d, err, tt.want)
			}
		})
	}
}

func TestTheLibrarysOwnBoundComesOnTopOfTheServersDeadline(t *testing.T) {
	for _, tt := range []struct {
		why             string
		deadline, bound time.Duration // 0: none
		want            time.Duration
		err             error
	}{
		{"the bound is earlier", 10 * time.Second, 5 * time.Second, 5 * time.Second, ErrTooSlow},
		{"there's no deadline", 0, 5 * time.Second, 5 * time.Second, ErrTooSlow},
		{"the deadline is earlier", 5 * time.Second, 10 * time.Second, 5 * time.Second, os.ErrDeadlineExceeded},
		{"there's no bound", 5 * time.Second, 0, 5 * time.Second, os.ErrDeadlineExceeded},
		{"the bound has passed already", 5 * time.Second, -time.Second, 0, ErrTooSlow},
		{"there's neither", 0, 0, time.Hour, io.EOF},
	} {
		overPipe(t, tt.why, func(t *testing.T, c *Conn, client net.Conn) {
			if tt.deadline != 0 {
				c.SetReadDeadline(time.Now().Add(tt.deadline))
			}
			c.SetReadBound(FromNow(time.Millisecond))
			if tt.bound == 0 {
				c.SetReadBound(0)
			} else {
				c.SetReadBound(FromNow(tt.bound))
			}
			if c.HasReadBound() != (tt.bound != 0) {
				t.Errorf("there is one: %v", c.HasReadBound())
			}
			giveUp := time.AfterFunc(time.Hour, func() { client.Close() })
			defer giveUp.Stop()
			if d, err := endOfRead(c); err != tt.err || d.Round(time.Millisecond) != tt.want {
				t.Errorf("after %v: %v, want %v after %v", d, err, tt.err, tt.want)
			}
		})
	}
	t.Run("without a deadline, by a clock that runs", func(t *testing.T) {
		// In a bubble, now may be before the epoch.
		raw, _ := overTCP(t)
		c := newTestConn(raw)
		c.SetReadBound(FromNow(10 * time.Millisecond))
		giveUp := time.AfterFunc(10*time.Second, func() { raw.Close() })
		defer giveUp.Stop()
		if d, err := endOfRead(c); err != ErrTooSlow {
			t.Errorf("after %v: %v", d, err)
		}
	})
	overPipe(t, "an interruption is none of it", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetReadBound(FromNow(time.Minute))
		c.InterruptReads()
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d > 0 {
			t.Errorf("after %v: %v", d, err)
		}
	})
}

func TestAClientHasToKeepItsRate(t *testing.T) {
	const rate = 10
	// A step is a wait of nobody's, then octets that come after a silence.
	type step struct {
		idle, silence time.Duration
		octets        int
	}
	for _, tt := range []struct {
		why   string
		rate  int
		steps []step
		start bool          // anew then
		want  time.Duration // how long it may be silent then
	}{
		{"nothing has come", rate, nil, false, maxPaceCredit},
		{"silence costs as much", rate, []step{{0, 9 * time.Second, 0}}, false, 21 * time.Second},
		{"octets bring a tenth of a second each", rate, []step{{0, 9 * time.Second, 50}}, false, 26 * time.Second},
		{"but no more than there was at the start", rate, []step{{0, 9 * time.Second, 1000}}, false, maxPaceCredit},
		{"time between reads is not the client's", rate, []step{{time.Hour, 9 * time.Second, 0}, {time.Hour, time.Second, 0}}, false, 20 * time.Second},
		{"with the next message, it counts anew", rate, []step{{0, 20 * time.Second, 0}}, true, maxPaceCredit},
		{"there's no rate", 0, []step{{0, time.Minute, 1}}, false, time.Hour},
		{"there's none below either", -1, []step{{0, time.Minute, 1}}, false, time.Hour},
	} {
		overPipe(t, tt.why, func(t *testing.T, c *Conn, client net.Conn) {
			c.StartPace()
			b := make([]byte, 10000)
			for _, s := range tt.steps {
				time.Sleep(s.idle)                       // a bubble's
				octets := make([]byte, max(1, s.octets)) // a pipe's Read doesn't end without any
				time.AfterFunc(s.silence, func() { client.Write(octets) })
				if n, err := c.ReadPaced(b, tt.rate); n != len(octets) || err != nil {
					t.Fatalf("%d octets, %v", n, err)
				}
				if s.octets == 0 {
					c.paceCredit -= time.Second / rate // what it has brought
				}
				if c.HasReadBound() {
					t.Error("a bound is left")
				}
			}
			if tt.start {
				c.StartPace()
			}
			giveUp := time.AfterFunc(time.Hour, func() { client.Close() })
			defer giveUp.Stop()
			start := time.Now()
			_, err := c.ReadPaced(b, tt.rate)
			d, wantErr := time.Since(start), ErrTooSlow
			if tt.rate <= 0 {
				wantErr = io.EOF
			}
			if err != wantErr || d.Round(time.Millisecond) != tt.want {
				t.Errorf("after %v: %v, want %v", d, err, tt.want)
			}
			if c.HasReadBound() {
				t.Error("behind it, a bound is left")
			}
		})
	}
}

// What is known of raw must be so little that an idle connection has room for it:
// sizes of allocations come in steps.
func TestAConnTakesNoMoreRoomThanItMust(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); unsafe.Sizeof(uintptr(0)) == 8 && size > 120 {
		t.Errorf("%d octets", size)
	}
}

func TestACommandCostsNoAllocation(t *testing.T) {
	raw, client := overTCP(t)
	c := newTestConn(raw)
	line, b := []byte("NOOP\r\n"), make([]byte, 100)
	deadline := time.Now().Add(time.Hour)
	c.StartPace()
	if n := testing.AllocsPerRun(100, func() {
		deadline = deadline.Add(-time.Second) // the socket gets each
		c.SetReadDeadline(deadline)
		c.SetWriteDeadline(deadline)
		c.Pause()
		c.RenewRead()
		c.RenewWrite()
		client.Write(line)
		c.Read(b)
		client.Write(line)
		c.ReadPaced(b, 1)
		c.Write(line)
		client.Read(b)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
