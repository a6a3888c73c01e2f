package smtpproxy

import (
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestADeadlineThatMovesOnIsLeftToTheSocketUntilItPasses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := (&Proxy{}).Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	c := accepted.(*conn)

	if err := c.begin(); err != nil {
		t.Fatal(err)
	}
	first := time.Now().Add(time.Minute)
	c.SetDeadline(first)
	for i := range 100 {
		c.SetDeadline(first.Add(time.Duration(i) * time.Second))
	}
	is := func(i instant, t time.Time) bool { return i.time().Sub(t).Abs() < time.Second/2 }
	if !is(c.reads.armed, first) || !is(c.writes.armed, first) {
		t.Errorf("the socket has %v and %v, not the first, %v", c.reads.armed.time(), c.writes.armed.time(), first)
	}
	c.SetDeadline(time.Time{})
	if !is(c.reads.armed, first) || !is(c.writes.armed, first) {
		t.Error("the socket has another, though there's none")
	}
	earlier := first.Add(-time.Second)
	c.SetDeadline(earlier)
	if !is(c.reads.armed, earlier) || !is(c.writes.armed, earlier) {
		t.Errorf("the socket has %v and %v, not the earlier one, %v", c.reads.armed.time(), c.writes.armed.time(), earlier)
	}
	// What has passed but isn't the server's word ends nothing.
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	passing := c.reads.armed
	c.SetReadDeadline(time.Now().Add(time.Minute))
	c.s.phase = phaseCommand
	go func() {
		armed := passing
		for armed == passing { // until it has passed, and the socket got the other
			runtime.Gosched()
			c.deadlineMu.Lock()
			armed = c.reads.armed
			c.deadlineMu.Unlock()
		}
		client.Write([]byte("NOOP\r\n"))
	}()
	if n, err := c.Read(make([]byte, 100)); n != len("NOOP\r\n") || err != nil {
		t.Errorf("%d octets read, %v", n, err)
	}
}

func TestEveryDeadlineIsAnInstant(t *testing.T) {
	check := func(t *testing.T) {
		for _, c := range []struct {
			deadline time.Time
			left     time.Duration // 0: none
		}{
			{time.Time{}, 0},
			{time.Now().Add(time.Hour), time.Hour},
			{time.Now().Add(-time.Hour), -time.Hour},
			{time.Now().Add(time.Hour).Round(0), time.Hour}, // without the monotonic clock
			{time.Unix(1, 0), -20 * 365 * 24 * time.Hour},
			{time.Time{}.Add(1), -longTime}, // as long ago as can be
			{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), longTime},
		} {
			at, after := instantOf(c.deadline)
			switch got := at.time(); {
			case c.left == 0:
				if at != 0 || !got.IsZero() {
					t.Errorf("no deadline: %v", got)
				}
			case c.left < 0 && max(at.left(), after, time.Until(got)) > c.left+time.Second,
				c.left > 0 && min(at.left(), after, time.Until(got)) < c.left-time.Second:
				t.Errorf("%v: %v, in %v, after %v", c.deadline, got, at.left(), after)
			}
		}
		if past.left() > -time.Hour || !past.time().Before(time.Now()) {
			t.Errorf("the past is in %v", past.left())
		}
	}
	t.Run("real clock", check)
	t.Run("test's clock", func(t *testing.T) { synctest.Test(t, check) })
}
