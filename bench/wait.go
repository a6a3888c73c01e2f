package main

import (
	"fmt"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file measures connections whose hooks wait: for something that takes its time, or with
// Delay.

const wait = 50 * time.Millisecond

// waits is a hook that waits for something, and for the client, which may leave.
func waits(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() != "RSET" {
		return nil, nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return nil, nil
}

// delays is a hook that lets the client wait as long.
func delays(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() != "RSET" {
		return nil, nil
	}
	return smtpproxy.Pass{Delay: wait}, nil
}

// slowSink is a session that waits as long by itself.
type slowSink struct{ sink }

func (slowSink) Reset() { time.Sleep(wait) }

// waitWork compares connections whose hooks wait at each command with those of a bare server
// that waits by itself, and counts the goroutines that a connection has then.
func waitWork(o *options, k kind, n int) work {
	n = within(o, n)
	name := fmt.Sprintf("%s connections, %s", thousands(n), k)
	g := atMost(1.05)
	if n > 1_000 {
		g = remark("-") // there are more of them than these processors answer in 50 ms
	}
	d := dialogue{conns: n, turns: 5, steps: []exchange{lines(1, "RSET")}}
	return work{
		name:       name,
		library:    d.with(k),
		references: []reference{{contender: d.with(bareWaiting), figure: growth, goal: g}},
		more: func(_ *options, results []result) ([]result, error) {
			goroutines, err := waitingGoroutines(d, k, n)
			return append(results, counted(name+": goroutines of each", goroutines, remark("-"))), err
		},
	}
}

// waitingGoroutines returns how many goroutines a server has for each connection while all
// hooks wait.
func waitingGoroutines(d dialogue, k kind, n int) (float64, error) {
	p, err := startProcess(k, plain)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	before, err := p.ask(goroutinesRequest)
	if err != nil {
		return 0, err
	}
	all, err := d.connect(&p.server)
	defer all.abort()
	if err != nil {
		return 0, err
	}
	most := 0.0
	done := make(chan error, 1)
	go func() {
		done <- d.lead(all, 20*n)
	}()
	for {
		select {
		case err := <-done:
			return (most - before) / float64(n), err
		default:
		}
		now, err := p.ask(goroutinesRequest)
		if err != nil {
			return 0, err
		}
		most = max(most, now)
		time.Sleep(wait / 10)
	}
}
