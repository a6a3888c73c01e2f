package smtpproxy

import (
	"net"
	"runtime"
	"testing"
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

	first := time.Now().Add(time.Minute)
	c.SetDeadline(first)
	for i := range 100 {
		c.SetDeadline(first.Add(time.Duration(i) * time.Second))
	}
	if !c.reads.armed.Equal(first) || !c.writes.armed.Equal(first) {
		t.Errorf("the socket has %v and %v, not the first, %v", c.reads.armed, c.writes.armed, first)
	}
	c.SetDeadline(time.Time{})
	if !c.reads.armed.Equal(first) || !c.writes.armed.Equal(first) {
		t.Error("the socket has another, though there's none")
	}
	earlier := first.Add(-time.Second)
	c.SetDeadline(earlier)
	if !c.reads.armed.Equal(earlier) || !c.writes.armed.Equal(earlier) {
		t.Errorf("the socket has %v and %v, not the earlier one, %v", c.reads.armed, c.writes.armed, earlier)
	}
	// What has passed but isn't the server's word ends nothing.
	passing := time.Now().Add(10 * time.Millisecond)
	c.SetReadDeadline(passing)
	c.SetReadDeadline(time.Now().Add(time.Minute))
	c.s.phase = phaseCommand
	go func() {
		armed := passing
		for armed.Equal(passing) { // until it has passed, and the socket got the other
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
