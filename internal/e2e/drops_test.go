package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// This file ends connections at random moments, by whoever can end them, and counts the
// ends that the hook is told of.

// dropper is a hook that drops clients at random, and holds that the end comes once and
// last.
type dropper struct {
	givesUp bool // calls may be given up

	mu    sync.Mutex
	rand  *rand.Rand
	begun map[string]int // calls under way, by connection
	told  map[string]int // ends
	ends  map[string]int // by side and reason
	errs  []string
}

// chance returns a number below n.
func (d *dropper) chance(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(n)
}

// enter notes a call, and returns what notes its return.
func (d *dropper) enter(conn connection, what string) (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told[conn.ID] > 0 && !d.givesUp {
		d.errs = append(d.errs, what+" behind the end")
	}
	if d.begun[conn.ID] > 0 && !d.givesUp {
		d.errs = append(d.errs, what+" beside another call")
	}
	d.begun[conn.ID]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.begun[conn.ID]--
	}
}

// whim does what a hook may do.
func (d *dropper) whim(ctx *hookContext) (decision, error) {
	switch d.chance(60) {
	case 0:
		return reply{Code: 421}, nil
	case 1:
		return reply{Code: 554, Disconnect: true}, nil
	case 2:
		return nil, errTest
	case 3:
		panic("no")
	case 4:
		runtime.Goexit()
	case 5:
		if d.givesUp {
			<-ctx.Done() // in HookTimeout, or when the connection is closed
		}
	case 6, 7, 8, 9, 10:
		runtime.Gosched()
	}
	return nil, nil
}

func (d *dropper) Connect(ctx *hookContext, conn connection) (decision, error) {
	defer d.enter(conn, "Connect")()
	return d.whim(ctx)
}

func (d *dropper) Command(ctx *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
	defer d.enter(conn, cmd.Verb())()
	return d.whim(ctx)
}

func (d *dropper) Keywords(ctx *hookContext, conn connection, _ *smtpproxy.Keywords) error {
	defer d.enter(conn, "Keywords")()
	_, err := d.whim(ctx)
	return err
}

func (d *dropper) Disconnect(_ *hookContext, conn connection, e end) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun[conn.ID] > 0 && !d.givesUp {
		d.errs = append(d.errs, "Disconnect beside another call")
	}
	d.told[conn.ID]++
	d.ends[fmt.Sprint(e.By, ": ", e.Reason)]++
}

// usedListener notes which connections the server has read from or written to.
type usedListener struct {
	net.Listener
	used *sync.Map
}

type usedConn struct {
	net.Conn
	id   string
	used *sync.Map
}

func (l usedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s, _ := smtpproxy.SessionOf(c)
	return &usedConn{c, s.Connection().ID, l.used}, nil
}

func (c *usedConn) NetConn() net.Conn { return c.Conn }

func (c *usedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.used.Store(c.id, true)
	}
	return n, err
}

// Write notes only what came before Close: behind it, nothing is used any more.
func (c *usedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.used.Store(c.id, true)
	}
	return n, err
}

// dropRound serves some clients, and ends each connection and the server at random.
func dropRound(t *testing.T, seed uint64, clients int, d *dropper, used *sync.Map) {
	p := &smtpproxy.Proxy{Hook: d}
	r := rand.New(rand.NewPCG(seed, 4))
	if d.givesUp {
		p.HookTimeout = 5 * time.Millisecond
	}
	if r.IntN(4) == 0 {
		p.ImplicitTLS = true
	}
	srv := smtp.NewServer(new(tlsBackend))
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.ReadTimeout = patience
	p.TLSConfig, p.AllowInsecureAuth = serverTLS(), true
	srv.AllowInsecureAuth = true
	tr := overTCP(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(usedListener{p.Listener(tr), used})
	}()
	var all sync.WaitGroup
	var left atomic.Int32
	left.Store(int32(clients))
	half := make(chan struct{})
	for i := range clients {
		all.Go(func() {
			dropClient(rand.New(rand.NewPCG(seed, uint64(i))), tr, p.ImplicitTLS)
			if left.Add(-1) == int32(clients/2) {
				close(half)
			}
		})
	}
	how := r.IntN(3)
	if how < 2 {
		<-half // the others are anywhere
	} else {
		all.Wait()
	}
	if how == 0 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	} else {
		srv.Close()
	}
	all.Wait()
	<-served
}

// dropClient plays a session, and leaves it anywhere.
func dropClient(r *rand.Rand, tr transport, implicit bool) {
	c, err := tr.dial()
	if err != nil {
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	left := r.IntN(3000)
	conn := net.Conn(&dropConn{c, &left})
	if implicit {
		conn = tlsClient(conn)
	}
	br := bufio.NewReader(conn)
	say := func(lines ...string) bool {
		for _, l := range lines {
			if l != "" {
				if _, err := io.WriteString(conn, l+"\r\n"); err != nil {
					return false
				}
			}
			if readReply(br) != nil {
				return false
			}
		}
		return true
	}
	if r.IntN(10) == 0 {
		io.WriteString(conn, "EHLO a\r\nNOOP\r\n") // and goes
		return
	}
	if !say("", "EHLO a.example", "NOOP") {
		return
	}
	if !implicit && r.IntN(2) == 0 {
		if !say("STARTTLS") {
			return
		}
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		br = bufio.NewReader(conn)
		if !say("EHLO b.example") {
			return
		}
	}
	if !say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA", "text\r\n.", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>") {
		return
	}
	switch r.IntN(4) {
	case 0:
		c.(*net.TCPConn).SetLinger(0)
	case 1:
		say("DATA") // and no end; a chunk that is cut by Close is a data race within go-smtp
	case 2:
		say("QUIT")
	}
}

// await waits until all ends are told that have to be.
func (d *dropper) await(used *sync.Map) {
	complete := func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		all := true
		used.Range(func(id, _ any) bool {
			all = d.told[id.(string)] > 0
			return all
		})
		for id := range d.begun {
			all = all && d.told[id] > 0
		}
		return all
	}
	for start := time.Now(); !complete() && time.Since(start) < patience; {
		runtime.Gosched()
	}
}

// check holds what was told against what was called, and returns how many connections the
// server has used.
func (d *dropper) check(t *testing.T, seed uint64, used *sync.Map) (n int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.errs) > 0 {
		t.Errorf("seed %d: %q", seed, d.errs)
	}
	for id, n := range d.told {
		if n != 1 {
			t.Errorf("seed %d: told %d times of %s", seed, n, id)
		}
	}
	used.Range(func(id, _ any) bool {
		n++
		if d.told[id.(string)] == 0 {
			t.Errorf("seed %d: nobody was told of %s, which the server has used", seed, id)
		}
		return true
	})
	for id := range d.begun {
		if d.told[id] == 0 {
			t.Errorf("seed %d: nobody was told of %s, for which the hook was called", seed, id)
		}
	}
	return n
}

// addTo adds the ends of a round to those of all. A server that is closed doesn't wait for a
// connection that it has just accepted: its end may come in the next round.
func (d *dropper) addTo(ends map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for end, n := range d.ends {
		ends[end] += n
	}
}

func TestEveryConnectionThatEndsAnywhereIsToldOfOnceAndLast(t *testing.T) {
	rounds, clients := 40, 50
	if testing.Short() {
		rounds = 6
	}
	base() // which stays open
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()
	ends, total := make(map[string]int), 0
	for seed := range uint64(rounds) {
		d := &dropper{givesUp: seed%3 == 0, rand: rand.New(rand.NewPCG(seed, 5)),
			begun: make(map[string]int), told: make(map[string]int), ends: make(map[string]int)}
		used := new(sync.Map)
		dropRound(t, seed, clients, d, used)
		d.await(used)
		leavesNothing(t, goroutines, descriptors)
		total += d.check(t, seed, used)
		d.addTo(ends)
		if t.Failed() {
			return
		}
	}
	if total < rounds*clients/4 {
		t.Errorf("only %d connections were used", total)
	}
	for _, want := range []string{"client: quit", "client: client gone", "hook: refused", "hook: hook failed", "server: server closed", "client: TLS failed"} {
		if ends[want] == 0 && !testing.Short() {
			t.Errorf("nobody was told of %q: %v", want, ends)
		}
	}
}

// OnFailure may pass the command, which the hook has to be shown before, and the
// connection may end, behind which there is no call.
func TestACallThatIsGivenUpHasBegun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that it would begin late
	const times = 100
	var calls atomic.Int32
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range times {
		s := (&smtpproxy.Proxy{HookTimeout: time.Hour, Hook: decide(func(command) (decision, error) {
			calls.Add(1)
			return nil, nil
		})}).NewSession(connection{})
		if r, ok := s.Command(over, "NOOP").(reply); !ok || r.Code != 421 {
			t.Errorf("got %v", r)
		}
	}
	// Between its beginning and the hook's first step, a goroutine may be interrupted.
	if n := calls.Load(); n < times/2 {
		t.Errorf("of %d calls, %d have begun", times, n)
	}
}

// The same with gosmtp.Serve, whose server is closed amid handshakes.
func TestAServerThatIsClosedAmidHandshakesTellsOfEachConnection(t *testing.T) {
	base() // which stays open
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()
	for range 20 {
		d := &dropper{rand: rand.New(rand.NewPCG(1, 1)), begun: make(map[string]int), told: make(map[string]int), ends: make(map[string]int)}
		w := newLifeHook()
		srv := smtp.NewServer(new(tlsBackend))
		srv.TLSConfig, srv.ErrorLog = serverTLS(), log.New(io.Discard, "", 0)
		srv.ReadTimeout = 100 * time.Millisecond // go-smtp doesn't close what it accepts beside its Close
		tr := overTCP(t)
		served := make(chan struct{})
		go func() {
			defer close(served)
			gosmtp.Serve(srv, tr, &smtpproxy.Proxy{Hook: w})
		}()
		const clients = 8
		var all sync.WaitGroup
		ready := make(chan struct{}, clients)
		for i := range clients {
			all.Go(func() {
				c, err := tr.dial()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				br := bufio.NewReader(c)
				readReply(br)
				io.WriteString(c, "STARTTLS\r\n")
				readReply(br)
				ready <- struct{}{}
				for range d.chance(3) * i {
					runtime.Gosched()
				}
				tlsClient(c).(*tls.Conn).Handshake()
				io.Copy(io.Discard, c)
			})
		}
		for range clients {
			<-ready
		}
		srv.Close()
		all.Wait()
		<-served
		leavesNothing(t, goroutines, descriptors)
		if n := len(w.ended); n != clients {
			t.Fatalf("told of %d connections", n)
		}
	}
}
