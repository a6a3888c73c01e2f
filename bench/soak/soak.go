package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/seed3262c777/smtpproxy/bench/internal/rusage"
)

// options tell how much is done.
type options struct {
	conns  int
	time   time.Duration
	seed   uint64
	think  time.Duration
	pause  time.Duration
	hang   time.Duration // the strict server's HookTimeout
	tears  bool
	room   float64             // octets that the heap may grow by in any case
	least  float64             // of the connections, this share has to be there on average
	log    io.Writer           // progress
	tamper func([]byte) []byte // for tests
}

// run does it all: servers here, clients in a process of their own, for the
// time asked for; then everything ends, and is held against what it has to be.
func run(o *options) (*report, error) {
	// Some more than a descriptor for each connection: those that are just
	// closed, the listeners, the pipes.
	if need, most := o.conns+o.conns/10+100, rusage.OpenFiles(); most < need {
		return nil, fmt.Errorf("%d connections need %d open files, and the limit is %d: raise it (ulimit -n), or use fewer -conns", o.conns, need, most)
	}
	if err := warmUp(); err != nil {
		return nil, err
	}
	start := time.Now()
	r := &report{o: o, before: measure(start), counts: make(map[string]int), fewest: o.conns}
	r.ledger = newLedger(o.seed, o.conns)
	s, err := startService(r.ledger, o.hang, o.tamper)
	if err != nil {
		return nil, err
	}
	cpu := rusage.CPUTime()
	err = r.lead(s, start)
	r.serverCPU = rusage.CPUTime() - cpu
	r.took = time.Since(start)
	r.logged = s.log.all()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if stuck := s.stop(ctx); stuck != nil {
		// The goroutines that are left will tell.
		r.complaints.add("the servers don't come to an end: " + stuck.Error())
	}
	if err != nil {
		return nil, err
	}
	r.after = settle(start, r.before)
	r.unseen, r.unexplained = r.ledger.unaccounted()
	return r, nil
}

// lead lets the clients come, keeps them for the time asked for, and lets them
// go.
func (r *report) lead(s *service, start time.Time) error {
	o := r.o
	ramp := min(o.time/10, 20*time.Second)
	c, err := startCrowd(&orders{
		Addrs: s.addrs, Conns: o.conns, Seed: o.seed, Think: o.think, Pause: o.pause, Ramp: ramp, Tears: o.tears,
	})
	if err != nil {
		return err
	}
	r.warm = o.time / 5
	every := min(max(o.time/150, 50*time.Millisecond), 4*time.Second)
	sampling := startSampler(start, every, o.time)
	over := time.NewTimer(o.time)
	defer over.Stop()
	progress := time.Now()
	for busy := true; busy; {
		select {
		case n, open := <-c.news:
			if !open {
				busy = false // end tells why
				break
			}
			r.take(n)
			if time.Since(start) > r.warm {
				r.sawConnected(n.Connected)
			}
			if time.Since(progress) > 10*time.Second {
				progress = time.Now()
				fmt.Fprintf(o.log, "%v: %d connected, %d messages accepted\n",
					time.Since(start).Round(time.Second), n.Connected, r.ledger.acceptedSoFar())
			}
		case <-over.C:
			busy = false
		}
	}
	r.all, r.stall = sampling.end(), sampling.stall
	r.samples = since(r.all, r.warm)
	return c.end(r.take)
}

// take takes what the clients report.
func (r *report) take(n news) {
	for _, o := range n.Outcomes {
		r.ledger.told(o)
	}
	for what, count := range n.Counts {
		r.counts[what] += count
	}
	for _, s := range n.Complaints {
		r.complaints.add(s)
	}
	r.clientCPU = n.CPU
}

func (r *report) sawConnected(n int) {
	r.looks++
	r.connected += n
	r.fewest = min(r.fewest, n)
}

// warmUp has the runtime open what it keeps, so that it doesn't count.
func warmUp() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	a, b, err := os.Pipe()
	if err != nil {
		return err
	}
	return errors.Join(l.Close(), a.Close(), b.Close())
}

// settle measures when what was begun has ended, or patience has.
func settle(start time.Time, before usage) usage {
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		u := measure(start)
		if u.goroutines <= before.goroutines && u.descriptors <= before.descriptors || time.Now().After(limit) {
			return u
		}
	}
}
