package timed

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// This file is about interruptions, errors, and ends.

// serverTLS is made outside of a bubble's time.
var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
})

func tlsServer(raw net.Conn) *tls.Conn { return tls.Server(raw, serverTLS()) }

// overTLS is overPipe with TLS in it, both ends of which have shaken hands.
func overTLS(t *testing.T, why string, f func(t *testing.T, c *Conn, client *tls.Conn)) {
	t.Helper()
	serverTLS()
	overPipe(t, why, func(t *testing.T, c *Conn, plain net.Conn) {
		c, client := shakeHands(t, c.raw, plain)
		f(t, c, client)
	})
}

// shakeHands starts TLS on a connection.
func shakeHands(t *testing.T, raw, plain net.Conn) (c *Conn, client *tls.Conn) {
	server := tlsServer(raw)
	client = tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error)
	go func() { shaken <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return newTestConn(server), client
}

func TestAnInterruptedReadEndsAtOnceAndSoDoFurtherOnes(t *testing.T) {
	check := func(t *testing.T, c *Conn, client net.Conn, interrupt func()) {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		time.AfterFunc(time.Second, interrupt)
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d != time.Second {
			t.Errorf("after %v: %v", d, err)
		}
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d > 0 {
			t.Errorf("the next one after %v: %v", d, err)
		}
		c.AllowReads()
		time.AfterFunc(time.Second, func() { io.WriteString(client, "x") })
		if d, err := endOfRead(c); err != nil || d != time.Second {
			t.Errorf("when they are allowed again, after %v: %v", d, err)
		}
		if d, err := endOfRead(c); err != os.ErrDeadlineExceeded || d.Round(time.Millisecond) != 58*time.Second {
			t.Errorf("by the server's deadline, after %v: %v", d, err)
		}
	}
	overPipe(t, "over a pipe", func(t *testing.T, c *Conn, client net.Conn) { check(t, c, client, c.InterruptReads) })
	overPipe(t, "by who holds the lock", func(t *testing.T, c *Conn, client net.Conn) {
		check(t, c, client, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.InterruptReadsLocked()
		})
	})
	overTLS(t, "over TLS", func(t *testing.T, c *Conn, client *tls.Conn) { check(t, c, client, c.InterruptReads) })
}

func TestWhatIsThereIsReadAllTheSameAfterAnInterruption(t *testing.T) {
	raw, client := overTCP(t)
	c := newTestConn(raw)
	c.InterruptReads()
	if _, err := c.Read(make([]byte, 1)); err != os.ErrDeadlineExceeded {
		t.Errorf("while reads are interrupted: %v", err)
	}
	c.AllowReads()
	io.WriteString(client, "x")
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("then %d octets, %v", n, err)
	}
}

// Else nothing would end a read from it.
func TestAConnectionThatRefusesDeadlinesIsClosedToInterruptIt(t *testing.T) {
	refused := errors.New("refused")
	overBrittle(t, "in plaintext", func(t *testing.T, c *Conn, raw *brittle, client net.Conn) {
		raw.refusesReads = refused
		time.AfterFunc(time.Second, c.InterruptReads)
		if d, err := endOfRead(c); err == nil || d != time.Second || !raw.closed {
			t.Errorf("after %v: %v, closed %v", d, err, raw.closed)
		}
	})
	serverTLS()
	overBrittle(t, "with TLS, and no alert that nobody takes", func(t *testing.T, _ *Conn, raw *brittle, client net.Conn) {
		c, _ := shakeHands(t, raw, client)
		raw.refusesReads = refused
		start := time.Now()
		if c.InterruptReads(); !raw.closed || time.Since(start) > 0 {
			t.Errorf("after %v: closed %v", time.Since(start), raw.closed)
		}
	})
	overBrittle(t, "but one that takes them isn't", func(t *testing.T, c *Conn, raw *brittle, client net.Conn) {
		if c.InterruptReads(); raw.closed {
			t.Error("it is closed")
		}
	})
}

// timeout is an error of a connection that has one of its own for deadlines.
type timeout struct{ error }

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// scripted returns errors in the place of reading.
type scripted struct {
	net.Conn
	errs []error
}

func (s *scripted) Read([]byte) (int, error) {
	err := s.errs[0]
	s.errs = s.errs[1:]
	return 0, err
}

func TestAReadReturnsTheErrorsOfTheConnection(t *testing.T) {
	own := timeout{errors.New("patience is over")}
	broken := errors.New("broken")
	for _, tt := range []struct {
		why  string
		set  time.Duration // 0: no deadline
		wait time.Duration
		errs []error
		want error
	}{
		{"one that is no timeout", -time.Second, 0, []error{broken}, broken},
		{"a timeout without a deadline", 0, 0, []error{own}, own},
		{"a timeout before the deadline", time.Minute, 0, []error{own}, own},
		{"a timeout at the deadline is that of all", time.Second, time.Second, []error{own}, os.ErrDeadlineExceeded},
	} {
		overPipe(t, tt.why, func(t *testing.T, c *Conn, _ net.Conn) {
			c = newTestConn(&scripted{c.raw, tt.errs})
			if tt.set != 0 {
				c.SetReadDeadline(time.Now().Add(tt.set))
			}
			time.Sleep(tt.wait) // a bubble's
			if _, err := endOfRead(c); err != tt.want {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	t.Run("a timeout without a deadline, by a clock that runs", func(t *testing.T) {
		// In a bubble, now may be before the epoch.
		c := newTestConn(&scripted{nil, []error{own}})
		if _, err := c.Read(nil); err != own {
			t.Errorf("%v, want %v", err, own)
		}
	})
	overBrittle(t, "a timeout with octets, in the next Read", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		raw.returnsWithErr = 3
		c.SetReadDeadline(time.Now().Add(time.Second))
		b := make([]byte, 10)
		if n, err := c.Read(b); string(b[:n]) != "xxx" || err != nil {
			t.Errorf("%q, %v", b[:n], err)
		}
		if n, err := c.Read(b); n != 0 || err != os.ErrDeadlineExceeded {
			t.Errorf("then %q, %v", b[:n], err)
		}
	})
	overBrittle(t, "of a deadline that can't be set again", func(t *testing.T, c *Conn, raw *brittle, _ net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Second))
		refused := errors.New("refused")
		time.AfterFunc(time.Second/2, func() {
			raw.refusesReads = refused
			c.SetReadDeadline(time.Now().Add(time.Minute))
		})
		if d, err := endOfRead(c); err != refused || d.Round(time.Second) != time.Second {
			t.Errorf("after %v: %v", d, err)
		}
	})
}

// This is about TCP, which no bubble has.
func TestAWriteGoesOnAfterADeadlineThatHasMovedAndLosesNoOctet(t *testing.T) {
	const first, patience = 20 * time.Millisecond, 10 * time.Second
	long := bytes.Repeat([]byte("0123456789"), 2<<20)
	for _, tt := range []struct {
		why   string
		moved time.Duration // the deadline, behind the first; 0: it isn't
		reads bool
	}{
		{"the client reads when the first has passed", patience, true},
		{"it never does", 4 * first, false},
		{"the deadline hasn't moved", 0, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			raw, client := overTCP(t)
			c := newTestConn(raw)
			start := time.Now()
			c.SetWriteDeadline(start.Add(first))
			if tt.moved > 0 {
				c.SetWriteDeadline(start.Add(tt.moved))
			}
			got := make(chan []byte, 1)
			if tt.reads {
				time.AfterFunc(2*first, func() {
					b, _ := io.ReadAll(client)
					got <- b
				})
			}
			n, err := c.Write(long)
			d := time.Since(start)
			raw.Close()
			switch {
			case tt.reads && (n != len(long) || err != nil || !bytes.Equal(<-got, long)):
				t.Errorf("%d of %d octets written after %v, %v", n, len(long), d, err)
			case !tt.reads && (!errors.Is(err, os.ErrDeadlineExceeded) || d < max(first, tt.moved) || d > patience/2):
				t.Errorf("%d octets written after %v, %v", n, d, err)
			}
		})
	}
}

func TestAWriteThatCanNotGoOnAfterADeadlineIsNotTriedAgain(t *testing.T) {
	overBrittle(t, "", func(t *testing.T, c *Conn, raw *brittle, client net.Conn) {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		raw.refusesWrites = errors.New("refused")
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		raw.refusesWrites = nil
		if d, err := endOfWrite(c); !errors.Is(err, os.ErrDeadlineExceeded) || d.Round(time.Second) != time.Second || raw.written != 1 {
			t.Errorf("after %v and %d times: %v", d, raw.written, err)
		}
	})
}

func TestALastWordHasItsOwnTime(t *testing.T) {
	for why, deadline := range map[string]time.Time{
		"there's no deadline":   {},
		"one is past":           time.Unix(1, 0),
		"one is in a long time": time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		overPipe(t, why, func(t *testing.T, c *Conn, client net.Conn) {
			c.SetWriteDeadline(deadline)
			c.LimitWrite(time.Second)
			if d, err := endOfWrite(c); !errors.Is(err, os.ErrDeadlineExceeded) || d.Round(time.Millisecond) != time.Second {
				t.Errorf("after %v: %v", d, err)
			}
			// What renews gives no more than that.
			c.RenewWrite()
			if d, err := endOfWrite(c); !errors.Is(err, os.ErrDeadlineExceeded) || d.Round(time.Millisecond) != time.Second {
				t.Errorf("the next after %v: %v", d, err)
			}
		})
	}
	overPipe(t, "a Write is under way", func(t *testing.T, c *Conn, client net.Conn) {
		time.AfterFunc(time.Second, func() { c.LimitWrite(time.Second) })
		if d, err := endOfWrite(c); !errors.Is(err, os.ErrDeadlineExceeded) || d.Round(time.Millisecond) != 2*time.Second {
			t.Errorf("after %v: %v", d, err)
		}
	})
}

func TestAClientWithoutTLSIsToldInPlaintext(t *testing.T) {
	serverTLS()
	const word = "554 x\r\n"
	overPipe(t, "it reads", func(t *testing.T, c *Conn, client net.Conn) {
		c = newTestConn(tlsServer(c.raw))
		go c.WriteBeneathTLS([]byte(word), time.Second)
		b := make([]byte, 100)
		if n, err := client.Read(b); string(b[:n]) != word || err != nil {
			t.Errorf("it got %q, %v", b[:n], err)
		}
	})
	overPipe(t, "it doesn't read", func(t *testing.T, c *Conn, client net.Conn) {
		c = newTestConn(tlsServer(c.raw))
		start := time.Now()
		if c.WriteBeneathTLS([]byte(word), time.Second); time.Since(start).Round(time.Millisecond) != time.Second {
			t.Errorf("it was waited for %v", time.Since(start))
		}
	})
	overPipe(t, "there's no TLS above", func(t *testing.T, c *Conn, client net.Conn) {
		start := time.Now()
		if c.WriteBeneathTLS([]byte(word), time.Second); time.Since(start) > 0 {
			t.Errorf("something was written, for %v", time.Since(start))
		}
	})
}

// halfPipe is an end of a pipe that can be closed on one side, for all that the
// other knows.
type halfPipe struct {
	net.Conn
	err    error
	closed *bool
}

func (h halfPipe) CloseWrite() error {
	*h.closed = true
	return h.err
}

func TestLingeringReadsOnWithinBounds(t *testing.T) {
	const limit, most = 1000, 10 * time.Second
	for _, tt := range []struct {
		why   string
		sends int
		each  time.Duration // between octets
		goes  bool          // behind that
		set   time.Duration // the server's deadline; 0: none
		took  time.Duration
		octs  int
	}{
		{"the client is silent", 0, 0, false, 0, most, 0},
		{"it trickles", limit, 3 * time.Second, false, 0, most, 3},
		{"it sends too much", 2 * limit, 0, false, 0, 0, limit},
		{"it goes", 5, time.Second, true, 0, 5 * time.Second, 5},
		{"the server's deadline, past or not, is nothing to it", 5, time.Second, true, -time.Second, 5 * time.Second, 5},
		{"nor if it comes meanwhile", 5, time.Second, true, time.Second / 2, 5 * time.Second, 5},
	} {
		overPipe(t, tt.why, func(t *testing.T, c *Conn, client net.Conn) {
			closed := false
			c = newTestConn(halfPipe{c.raw, nil, &closed})
			if tt.set != 0 {
				c.SetReadDeadline(time.Now().Add(tt.set))
			}
			sent := make(chan int, 1)
			go func() {
				n := 0
				for n < tt.sends {
					time.Sleep(tt.each) // the client is slow, on a socket, which no bubble has
					if _, err := client.Write([]byte("x")); err != nil {
						break
					}
					n++
				}
				if tt.goes {
					client.Close()
				}
				sent <- n
			}()
			start := time.Now()
			c.Linger(most, limit)
			if d := time.Since(start); d.Round(time.Millisecond) != tt.took || !closed {
				t.Errorf("it took %v, want %v; closed for writing: %v", d, tt.took, closed)
			}
			c.Close()
			if n := <-sent; n != tt.octs {
				t.Errorf("%d octets were read, want %d", n, tt.octs)
			}
		})
	}
}

func TestLingeringDoesNotReadOnWhereTheClientIsntToldOfTheEnd(t *testing.T) {
	overPipe(t, "raw can't tell it", func(t *testing.T, c *Conn, client net.Conn) {
		start := time.Now()
		if c.Linger(time.Minute, 1); time.Since(start) > 0 {
			t.Errorf("it took %v", time.Since(start))
		}
	})
	overPipe(t, "raw fails to", func(t *testing.T, c *Conn, client net.Conn) {
		closed := false
		c = newTestConn(halfPipe{c.raw, errors.New("failed"), &closed})
		start := time.Now()
		if c.Linger(time.Minute, 1); time.Since(start) > 0 || !closed {
			t.Errorf("it took %v; tried: %v", time.Since(start), closed)
		}
	})
}

func TestAClientOverTCPThatLingersGetsTheLastWordAndTheEnd(t *testing.T) {
	raw, client := overTCP(t)
	c := newTestConn(raw)
	io.WriteString(c, "421 x\r\n")
	lingered := make(chan struct{})
	go func() {
		defer close(lingered)
		c.Linger(time.Minute, 1<<20)
		c.Close()
	}()
	io.WriteString(client, strings.Repeat("x", 10000)) // else unread, TCP would reset
	if b, err := io.ReadAll(client); string(b) != "421 x\r\n" || err != nil {
		t.Errorf("it got %q, %v", b, err)
	}
	client.Close()
	<-lingered
}

func TestLingeringOverTLSReadsOnWhenTheClientHasTakenTheEnd(t *testing.T) {
	overTLS(t, "", func(t *testing.T, c *Conn, client *tls.Conn) {
		go func() {
			client.Read(make([]byte, 1)) // the end
			time.Sleep(5 * time.Second)  // a bubble's: longer than that is waited for
			client.Close()
		}()
		start := time.Now()
		if c.Linger(time.Minute, 1); time.Since(start) != 5*time.Second {
			t.Errorf("it took %v", time.Since(start))
		}
	})
}

func TestTheEndOfTLSIsNotWaitedForLong(t *testing.T) {
	for why, end := range map[string]func(*Conn){
		"Close":  func(c *Conn) { c.Close() },
		"Linger": func(c *Conn) { c.Linger(time.Minute, 1) },
	} {
		overTLS(t, why+", and the client doesn't read", func(t *testing.T, c *Conn, client *tls.Conn) {
			start := time.Now()
			if end(c); time.Since(start) != alertTime {
				t.Errorf("it was waited for %v", time.Since(start))
			}
		})
	}
	overTLS(t, "the client reads", func(t *testing.T, c *Conn, client *tls.Conn) {
		start := time.Now()
		ended := make(chan error)
		go func() {
			_, err := client.Read(make([]byte, 1))
			ended <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-ended; err != io.EOF || time.Since(start) > 0 {
			t.Errorf("it got %v, after %v", err, time.Since(start))
		}
		time.Sleep(time.Minute) // a bubble's: no timer is left
	})
	overPipe(t, "there's no TLS", func(t *testing.T, c *Conn, client net.Conn) {
		start := time.Now()
		if err := c.Close(); err != nil || time.Since(start) > 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client got %v", err)
		}
	})
}

func TestWhatIsDetachedIsTheServersNoMore(t *testing.T) {
	overBrittle(t, "", func(t *testing.T, c *Conn, raw *brittle, client net.Conn) {
		if c.IsDetached() || !c.Begun() {
			t.Error("it is handed over, or hasn't begun")
		}
		at := time.Now().Add(10 * time.Second)
		c.SetReadDeadline(at)
		c.SetWriteDeadline(at)
		if c.Detach(); !c.IsDetached() || !c.Begun() {
			t.Error("it isn't handed over, or hasn't begun")
		}
		if err := errors.Join(c.SetReadDeadline(time.Unix(1, 0)), c.SetWriteDeadline(time.Unix(1, 0))); err != nil {
			t.Errorf("the server's deadlines fail: %v", err)
		}
		c.RenewWrite()
		c.InterruptReads()
		c.AllowReads()
		if len(raw.reads) != 1 || len(raw.writes) != 1 {
			t.Errorf("it got the server's deadlines %v, %v", raw.reads, raw.writes)
		}
		// The last reply has the time that there was.
		if d, err := endOfWrite(c); !errors.Is(err, os.ErrDeadlineExceeded) || d.Round(time.Millisecond) != 10*time.Second {
			t.Errorf("a Write ended after %v: %v", d, err)
		}
		if c.Release() != net.Conn(raw) || !raw.reads[1].IsZero() || !raw.writes[1].IsZero() {
			t.Errorf("with it, it got the deadlines %v, %v", raw.reads[1:], raw.writes[1:])
		}
		c.SetReadDeadline(time.Unix(1, 0))
		c.SetWriteDeadline(time.Unix(1, 0))
		if len(raw.reads) != 2 || len(raw.writes) != 2 {
			t.Errorf("then it got the server's deadlines %v, %v", raw.reads[2:], raw.writes[2:])
		}
		c.Close()
		if !raw.closed {
			t.Error("Close doesn't close it")
		}
	})
}

func TestAConnBeginsWhenItIsTold(t *testing.T) {
	raw, other := net.Pipe()
	defer raw.Close()
	defer other.Close()
	c := NewConn(raw, new(sync.Mutex))
	if c.Begun() || c.IsDetached() || c.NetConn() != raw {
		t.Error("it has begun before")
	}
	if c.Begin(); !c.Begun() || c.IsDetached() {
		t.Error("it hasn't begun")
	}
}

// The lock is the user's, for what changes together.
func TestTheLockIsTheUsersAndNotHeldDuringIO(t *testing.T) {
	overPipe(t, "", func(t *testing.T, c *Conn, client net.Conn) {
		var ended sync.WaitGroup
		ended.Go(func() { endOfRead(c) })
		ended.Go(func() { endOfWrite(c) })
		synctest.Wait() // until both wait for the client
		c.mu.Lock()
		c.StartPace() // all that need no lock
		c.HasReadBound()
		c.NetConn()
		c.Begun()
		c.IsDetached()
		c.WriteBeneathTLS(nil, 0)
		c.InterruptReadsLocked()
		c.Close()
		c.mu.Unlock()
		ended.Wait()
	})
}
