// Command soak keeps thousands of connections to a go-smtp server behind a hook
// busy, with good, slow and hostile clients, and checks that what was accepted
// is what was delivered, that each reply is the one that was due, and that
// neither memory nor goroutines nor descriptors are left behind.
//
//	go -C bench run ./soak
//
// It talks to 127.0.0.1 only. The servers are this process, so that what it uses
// is theirs; the clients are another. The exit status is 1 if a property fails.
//
// A message names itself in its sender, and tells its digest in its first line:
// see message.go. What each client was told is held against what the backend
// got: see ledger.go. What hostile clients do is in hostile.go.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	clientsIfAsked()
	o := options{tears: true, least: 0.95, room: 1 << 20, log: os.Stderr}
	flag.IntVar(&o.conns, "conns", 5000, "connections at the same time")
	flag.DurationVar(&o.time, "time", 10*time.Minute, "how long")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "what all messages, and all that is drawn, follow from")
	flag.DurationVar(&o.think, "think", 4*time.Second, "mean pause of a client between two messages")
	flag.DurationVar(&o.pause, "pause", 500*time.Millisecond, "longest pause of a slow client within one")
	flag.DurationVar(&o.hang, "hang", 30*time.Second, "after that, a hook that hangs is given up")
	small := flag.Bool("quick", false, "some seconds, with few connections")
	table := flag.String("samples", "", "write what was measured from time to time to this file, as CSV")
	flag.Parse()
	if *small {
		quick(&o)
	}
	r, err := run(&o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	r.print(os.Stdout)
	if *table != "" {
		if err := write(*table, r.all); err != nil {
			fmt.Fprintln(os.Stderr, "soak:", err)
			os.Exit(1)
		}
	}
	if !r.holds() {
		fmt.Fprintln(os.Stderr, "soak: not all properties hold")
		os.Exit(1)
	}
}

func write(name string, samples []usage) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(writeSamples(f, samples), f.Close())
}

// quick is enough to see that everything works. It is too short to tell about
// memory: the clients may still be on their way when the warm-up is over.
func quick(o *options) {
	o.conns, o.time = 160, 3*time.Second
	o.least, o.room = 0.8, 8<<20 // sessions are short, and so is the time
	o.think, o.pause, o.hang = 50*time.Millisecond, 5*time.Millisecond, 3*time.Second
}
