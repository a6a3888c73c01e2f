package timed

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// This file is about reads in a time that is not the client's, and about the octets that
// are counted.

// asideOf is a Conn that is read from aside up to a time.
type asideOf struct {
	c     *Conn
	until Instant
}

func (a asideOf) Read(p []byte) (int, error) { return a.c.ReadAside(p, a.until) }

// forEachRaw runs f in a bubble over a pipe, and over TLS in it.
func forEachRaw(t *testing.T, why string, f func(t *testing.T, c *Conn, client net.Conn)) {
	t.Helper()
	overPipe(t, why+", pipe", f)
	overTLS(t, why+", TLS", func(t *testing.T, c *Conn, client *tls.Conn) { f(t, c, client) })
}

// wantEnd holds when a read ends, to the millisecond, and with what.
func wantEnd(t *testing.T, what string, r io.Reader, after time.Duration, want error) {
	t.Helper()
	if d, err := endOfRead(r); d.Round(time.Millisecond) != after || !errors.Is(err, want) {
		t.Errorf("%s ends after %v: %v; want %v: %v", what, d, err, after, want)
	}
}

// sendAfter lets the client send an octet later.
func sendAfter(client net.Conn, d time.Duration) {
	time.AfterFunc(d, func() { client.Write([]byte("x")) })
}

func TestTheServersDeadlineDoesNotCountForAReadAside(t *testing.T) {
	for _, row := range []struct {
		why  string
		amid func(c *Conn) // ten seconds after the read has begun
	}{
		{"it passes meanwhile", func(*Conn) {}},
		{"the server sets another meanwhile", func(c *Conn) { c.SetReadDeadline(time.Now().Add(time.Second)) }},
		{"the server sets one meanwhile that has passed", func(c *Conn) { c.SetReadDeadline(time.Now().Add(-time.Second)) }},
		{"the server takes it back meanwhile", func(c *Conn) { c.SetReadDeadline(time.Time{}) }},
	} {
		forEachRaw(t, row.why, func(t *testing.T, c *Conn, client net.Conn) {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			time.AfterFunc(10*time.Second, func() { row.amid(c) })
			sendAfter(client, time.Minute)
			wantEnd(t, "the read aside", asideOf{c, 0}, time.Minute, nil)
		})
	}
	forEachRaw(t, "it has passed before", func(t *testing.T, c *Conn, client net.Conn) {
		c.SetReadDeadline(time.Now().Add(-time.Second))
		sendAfter(client, time.Minute)
		wantEnd(t, "the read aside", asideOf{c, 0}, time.Minute, nil)
	})
}

// Behind a read aside, the deadline that raw has is none of the server's: the next Read has
// to set that anew, whichever is the later of the two.
func TestAReadBehindAReadAsideHasTheTimeThatItHadBefore(t *testing.T) {
	for _, aside := range []struct {
		why   string
		until time.Duration // 0: for ever
		want  error
	}{
		{"aside up to a time", 20 * time.Second, ErrTimeUp},
		{"aside until octets come", 0, nil},
		{"aside until octets come, which come in time", time.Hour, nil},
	} {
		read := func(t *testing.T, c *Conn, client net.Conn) {
			t.Helper()
			until := Instant(0)
			if aside.until > 0 {
				until = FromNow(aside.until)
			}
			if aside.want == nil {
				sendAfter(client, 20*time.Second)
			}
			wantEnd(t, "the read aside", asideOf{c, until}, 20*time.Second, aside.want)
		}
		forEachRaw(t, "paused, nothing was read, "+aside.why, func(t *testing.T, c *Conn, client net.Conn) {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			c.Pause()
			read(t, c, client)
			wantEnd(t, "the Read", c, 5*time.Second, os.ErrDeadlineExceeded)
		})
		forEachRaw(t, "paused when the client had used a part, "+aside.why, func(t *testing.T, c *Conn, client net.Conn) {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			sendAfter(client, 2*time.Second)
			wantEnd(t, "the first Read", c, 2*time.Second, nil)
			c.Pause()
			read(t, c, client)
			wantEnd(t, "the Read", c, 3*time.Second, os.ErrDeadlineExceeded)
		})
		forEachRaw(t, "the server has set one since, "+aside.why, func(t *testing.T, c *Conn, client net.Conn) {
			read(t, c, client)
			c.SetReadDeadline(time.Now().Add(time.Second))
			wantEnd(t, "the Read", c, time.Second, os.ErrDeadlineExceeded)
		})
		forEachRaw(t, "there is none, "+aside.why, func(t *testing.T, c *Conn, client net.Conn) {
			read(t, c, client)
			sendAfter(client, 24*time.Hour)
			wantEnd(t, "the Read", c, 24*time.Hour, nil)
		})
		forEachRaw(t, "it wasn't paused, "+aside.why, func(t *testing.T, c *Conn, client net.Conn) {
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			read(t, c, client)
			wantEnd(t, "the Read", c, 10*time.Second, os.ErrDeadlineExceeded)
		})
	}
}

func TestAReadAsideEndsWhenItsTimeIsUp(t *testing.T) {
	forEachRaw(t, "nothing comes", func(t *testing.T, c *Conn, client net.Conn) {
		wantEnd(t, "the read aside", asideOf{c, FromNow(time.Second)}, time.Second, ErrTimeUp)
	})
	forEachRaw(t, "it was up before, though there is something", func(t *testing.T, c *Conn, client net.Conn) {
		sendAfter(client, 0)
		synctest.Wait()
		wantEnd(t, "the read aside", asideOf{c, FromNow(-time.Second)}, 0, ErrTimeUp)
		wantEnd(t, "the Read", c, 0, nil) // nothing is lost
	})
	forEachRaw(t, "twice", func(t *testing.T, c *Conn, client net.Conn) {
		wantEnd(t, "the first", asideOf{c, FromNow(2 * time.Second)}, 2*time.Second, ErrTimeUp)
		wantEnd(t, "the second", asideOf{c, FromNow(time.Second)}, time.Second, ErrTimeUp)
	})
}

func TestAnInterruptionEndsAReadAside(t *testing.T) {
	for why, until := range map[string]time.Duration{"for ever": 0, "up to a time": time.Hour} {
		aside := func(c *Conn) asideOf {
			if until == 0 {
				return asideOf{c, 0}
			}
			return asideOf{c, FromNow(until)}
		}
		forEachRaw(t, why, func(t *testing.T, c *Conn, client net.Conn) {
			time.AfterFunc(time.Second, c.InterruptReads)
			wantEnd(t, "the read aside", aside(c), time.Second, os.ErrDeadlineExceeded)
			wantEnd(t, "a further one", aside(c), 0, os.ErrDeadlineExceeded)
			c.AllowReads()
			sendAfter(client, time.Minute)
			wantEnd(t, "one that is allowed again", aside(c), time.Minute, nil)
			sendAfter(client, time.Minute)
			wantEnd(t, "the Read", c, time.Minute, nil)
		})
	}
}

// A socket keeps an earlier deadline than the one wanted until that passes.
func TestAReadAsideOverTCPMindsNoDeadlineThatTheSocketHas(t *testing.T) {
	for why, wrap := range map[string]func(t *testing.T) (*Conn, net.Conn){
		"TCP": func(t *testing.T) (*Conn, net.Conn) { raw, client := overTCP(t); return newTestConn(raw), client },
		"TLS": func(t *testing.T) (*Conn, net.Conn) {
			raw, plain := overTCP(t)
			c, client := shakeHands(t, raw, plain)
			return c, client
		},
	} {
		t.Run(why, func(t *testing.T) {
			c, client := wrap(t)
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			c.Pause()
			until := FromNow(20 * time.Millisecond)
			if _, err := c.ReadAside(make([]byte, 10), until); err != ErrTimeUp || until.Until() > 0 {
				t.Errorf("%v, %v before its time", err, until.Until())
			}
			c.SetReadDeadline(time.Now().Add(time.Minute))
			client.Write([]byte("xy"))
			p := make([]byte, 1)
			for _, read := range []func([]byte) (int, error){c.Read, func(p []byte) (int, error) { return c.ReadAside(p, 0) }} {
				if n, err := read(p); n != 1 || err != nil {
					t.Errorf("%d octets, %v", n, err)
				}
			}
			client.Close()
			if _, err := c.ReadAside(p, FromNow(time.Minute)); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestAReadAsideReturnsTheErrorsOfTheConnection(t *testing.T) {
	own, broken := timeout{errors.New("patience is over")}, errors.New("broken")
	for _, row := range []struct {
		why  string
		errs []error
		want error
	}{
		{"one that is no timeout", []error{broken}, broken},
		{"the end", []error{io.EOF}, io.EOF},
		{"a timeout of the connection's own", []error{own, broken}, own},
		{"the system has given the client up", []error{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, io.EOF}, syscall.ETIMEDOUT},
	} {
		for _, until := range []time.Duration{0, time.Hour} {
			overPipe(t, row.why, func(t *testing.T, c *Conn, _ net.Conn) {
				c = newTestConn(&scripted{Conn: c.raw, errs: row.errs})
				aside := asideOf{c, 0}
				if until > 0 {
					aside.until = FromNow(until)
				}
				wantEnd(t, "the read aside", aside, 0, row.want)
			})
		}
	}
	refused := errors.New("refused")
	overBrittle(t, "that of a deadline which isn't taken", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		raw.refusesReads = refused
		wantEnd(t, "the read aside", asideOf{c, FromNow(time.Second)}, 0, refused)
	})
	overBrittle(t, "octets that come with a deadline that has passed", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		raw.returnsWithErr = 3
		if n, err := c.ReadAside(make([]byte, 10), FromNow(time.Second)); n != 3 || err != nil {
			t.Errorf("%d octets, %v", n, err)
		}
	})
}

func TestOctetsAreCountedAsTheyAreReadAndWritten(t *testing.T) {
	var counted Traffic
	want := func(t *testing.T, what string, received, sent int64) {
		t.Helper()
		if r, s := counted.Received.Swap(0), counted.Sent.Swap(0); r != received || s != sent {
			t.Errorf("%s: %d octets received, %d sent; want %d, %d", what, r, s, received, sent)
		}
	}
	forEachRaw(t, "each way", func(t *testing.T, c *Conn, client net.Conn) {
		if c.IsCounted() || c.Traffic() != nil {
			t.Error("they are, without Count")
		}
		go client.Write([]byte("not counted"))
		c.Read(make([]byte, 20))
		c.Count(&counted)
		if !c.IsCounted() || c.Traffic() != &counted {
			t.Error("they aren't, for all that it tells")
		}
		p := make([]byte, 3)
		go client.Write([]byte("123456789"))
		c.Read(p)
		want(t, "Read", 3, 0)
		c.ReadAside(p[:2], 0)
		want(t, "ReadAside", 2, 0)
		c.StartPace()
		c.ReadPaced(p, 1000)
		want(t, "ReadPaced", 3, 0)
		c.ReadAside(p, FromNow(time.Hour))
		want(t, "ReadAside, of fewer", 1, 0)
		c.ReadAside(p, FromNow(time.Second))
		want(t, "ReadAside of nothing", 0, 0)
		go io.ReadFull(client, make([]byte, 4))
		c.Write([]byte("1234"))
		want(t, "Write", 0, 4)
		c.Count(nil)
		go client.Write([]byte("not counted"))
		c.Read(make([]byte, 20))
		want(t, "Count(nil)", 0, 0)
	})
	t.Run("what nobody wants at the end", func(t *testing.T) {
		raw, client := overTCP(t)
		c := newTestConn(raw)
		c.Count(&counted)
		client.Write([]byte("12345"))
		client.CloseWrite()
		c.Linger(time.Minute, 100)
		want(t, "Linger", 5, 0)
	})
}

// A socket's deadline costs more than anything else of a short wait.
func TestAReadAsideLeavesASocketTheDeadlineThatIsMetBefore(t *testing.T) {
	const first, wait = 20 * time.Millisecond, 60 * time.Millisecond
	for _, tt := range []struct {
		why      string
		deadline time.Duration // the server's
		until    time.Duration // 0: for ever
		want     error
		leaves   bool
	}{
		{"the server's is a long way off", time.Minute, 0, nil, true},
		{"it passes meanwhile", first, 0, nil, false},
		{"it is later than the end", time.Minute, first, ErrTimeUp, false},
		{"it passes before the end", first, 2 * first, ErrTimeUp, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			raw, client := overTCP(t)
			c := newTestConn(raw)
			c.SetReadDeadline(time.Now().Add(tt.deadline))
			armed := c.reads.armed
			if !c.TakesDeadlines() {
				t.Error("it takes no deadlines")
			}
			var until Instant
			least := wait
			if tt.until != 0 {
				until, least = FromNow(tt.until), tt.until
			}
			sendAfter(client, wait)
			if d, err := endOfRead(asideOf{c, until}); err != tt.want || d < least-time.Millisecond {
				t.Errorf("after %v: %v", d, err)
			}
			if tt.leaves && c.reads.armed != armed {
				t.Error("the socket has got another")
			}
			c.InterruptReads()
			if _, err := endOfRead(asideOf{c, 0}); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("interrupted: %v", err)
			}
			c.AllowReads()
			sendAfter(client, first)
			if _, err := endOfRead(c); err != nil && tt.deadline > wait {
				t.Errorf("the next read: %v", err)
			}
		})
	}
}
