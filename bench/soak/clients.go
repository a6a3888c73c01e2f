package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy/bench/internal/rusage"
)

// orders are what the process of the clients is told.
type orders struct {
	Addrs [2]string // of the servers
	Conns int
	Seed  uint64
	Think time.Duration // mean pause of a client between two things it does
	Pause time.Duration // the longest pause of a slow client within one
	Ramp  time.Duration // all clients have begun by then
	Tears bool          // some break off messages in chunks
}

// clientsVariable is the environment variable that makes this program the
// process of the clients; it holds the orders.
const clientsVariable = "SMTPPROXY_SOAK_CLIENTS"

// clientsIfAsked is the process of the clients, if this process is to be it.
// It ends when its standard input does.
func clientsIfAsked() {
	text := os.Getenv(clientsVariable)
	if text == "" {
		return
	}
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, "soak: orders:", err)
		os.Exit(1)
	}
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	if err := runClients(&o, stop, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak: clients:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runClients keeps all clients connected until stop is closed, and reports.
func runClients(o *orders, stop <-chan struct{}, out io.Writer) error {
	t := &tally{seqs: make([]int, o.Conns), pending: news{Counts: make(map[string]int)}}
	var all sync.WaitGroup
	for slot := range o.Conns {
		all.Go(func() {
			if !wait(stop, o.Ramp*time.Duration(slot)/time.Duration(o.Conns)) {
				keepConnected(o, slot, stop, t)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	enc := json.NewEncoder(out)
	for over := false; !over; {
		over = wait(done, 200*time.Millisecond)
		if err := enc.Encode(t.take()); err != nil {
			return err
		}
	}
	return nil
}

// keepConnected leads one session after the other.
func keepConnected(o *orders, slot int, stop <-chan struct{}, t *tally) {
	rng := rand.New(rand.NewPCG(o.Seed, uint64(slot)+1))
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
			one(o, slot, n, rng, stop, t)
		}
	}
}

// one leads the n-th session of a client: of twenty, fourteen are good, three
// slow and three hostile. The hostile ones do all attacks in turn, each
// beginning with another one.
func one(o *orders, slot, n int, rng *rand.Rand, stop <-chan struct{}, t *tally) {
	c := &client{o: o, slot: slot, rng: rng, stop: stop, tally: t, kind: good, server: rng.IntN(2)}
	a := attack{"good", true, false, (*client).session}
	left := -1
	switch dice := slot % 20; {
	case dice >= 17:
		c.kind = hostile
		turn := slot/20*3 + dice - 17 + n
		for a = attacks[turn%len(attacks)]; a.tears && !o.Tears; turn++ {
			a = attacks[turn%len(attacks)]
		}
		switch a.name {
		case "vanishing":
			left = rng.IntN(6000)
		case "vanishing in chunks":
			left, c.kind = rng.IntN(6000), torn
		}
		a.name = "hostile: " + a.name
	case dice >= 14:
		c.kind, a.name = slow, "slow"
	}

	tcp, err := dial(o.Addrs[c.server], slot)
	if err != nil {
		t.count("connections not made", 1)
		t.complain(err.Error())
		wait(stop, time.Second)
		return
	}
	t.connected(1)
	defer t.connected(-1)
	c.wire = &wire{
		TCPConn: tcp, rng: rng, slow: c.kind == slow, pause: o.Pause, stop: stop,
		left: left, way: breaking(rng.IntN(int(breakings))),
	}
	defer tcp.Close()
	c.conn = c.wire
	c.r = bufio.NewReaderSize(c.conn, 512)
	if c.kind == hostile && c.think() {
		return
	}
	err = a.run(c)
	t.count("sessions, "+a.name, 1)
	if rng.IntN(2) == 0 {
		tcp.SetLinger(0)
	}
	var wrong *wrongReply
	switch {
	case err == nil:
	case errors.As(err, &wrong):
		t.count("replies wrong", 1)
		t.complain(c.complaint(a.name, err))
	case a.strict:
		t.count("connections lost", 1)
		t.complain(c.complaint(a.name, err))
	}
}

// complaint tells where an error came up.
func (c *client) complaint(name string, err error) string {
	return fmt.Sprintf("%s, client %d, server %d, TLS %v: %v, %v after sending %q",
		name, c.slot, c.server, c.tls, err, time.Since(c.sent).Round(time.Millisecond), c.last)
}

// think is a client's pause. It reports that the end has come.
func (c *client) think() (stopped bool) {
	d := time.Duration(c.rng.ExpFloat64() * float64(c.o.Think))
	return wait(c.stop, min(d, 5*c.o.Think))
}

// dial connects, on Linux from an address of the client's own: from one alone,
// ports would run out that closed connections still hold.
func dial(addr string, slot int) (*net.TCPConn, error) {
	var d net.Dialer
	if runtime.GOOS == "linux" {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(slot>>8), byte(slot))}
	}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// news is what the clients report from time to time: what was new since the
// last.
type news struct {
	Outcomes   []outcome
	Counts     map[string]int
	Complaints complaints
	Connected  int           // now
	CPU        time.Duration // of the process, so far
}

// tally gathers news.
type tally struct {
	mu      sync.Mutex
	pending news
	seqs    []int // of each client's messages
	open    int
}

func (t *tally) nextID(k kind, slot int) id {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seqs[slot]++
	return id{k, slot, t.seqs[slot]}
}

func (t *tally) told(i id, r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending.Outcomes = append(t.pending.Outcomes, outcome{i.sender(), r})
}

func (t *tally) count(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending.Counts[what] += n
}

func (t *tally) complain(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending.Complaints.add(s)
}

func (t *tally) connected(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open += n
}

func (t *tally) take() news {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.pending
	n.Connected, n.CPU = t.open, rusage.CPUTime()
	t.pending = news{Counts: make(map[string]int)}
	return n
}
