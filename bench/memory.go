package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file measures the library alone, without network and without server.

var passing = &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(pass)}

// script is a client in memory: each Read is its next line, and what it gets is
// dropped.
type script struct {
	net.Conn // for the methods that nobody calls
	next     []byte
	from     *net.TCPAddr
}

func (s *script) Read(p []byte) (int, error)       { return copy(p, s.next), nil }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return s.from }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }

// once is a listener for one connection.
type once struct{ net.Conn }

func (o once) Accept() (net.Conn, error) { return o.Conn, nil }
func (o once) Close() error              { return nil }
func (o once) Addr() net.Addr            { return o.LocalAddr() }

// relay is both a client and a server about a connection of the library's.
type relay struct {
	client *script
	conn   net.Conn // the server's
	buf    [4096]byte
}

var ok = []byte("250 2.0.0 OK\r\n")

func openRelay(p *smtpproxy.Proxy) (*relay, error) { return openRelayFrom(p, new(net.TCPAddr)) }

func openRelayFrom(p *smtpproxy.Proxy, from *net.TCPAddr) (*relay, error) {
	client := &script{from: from}
	conn, err := p.Listener(once{client}).Accept()
	if err != nil {
		return nil, err
	}
	r := &relay{client: client, conn: conn}
	_, err = io.WriteString(conn, "220 server.example\r\n")
	return r, err
}

var errRelay = errors.New("the relay brought something else than the command")

var (
	noopLine = []byte("NOOP\r\n")
	mailLine = []byte(mail + "\r\n")
	rcptLine = []byte(rcpt + "\r\n")
)

// command relays a command and its reply.
func (r *relay) command(line []byte) error {
	r.client.next = line
	n, err := r.conn.Read(r.buf[:])
	if err != nil {
		return err
	}
	if n != len(line) {
		return errRelay
	}
	_, err = r.conn.Write(ok)
	return err
}

// commands relays a command several times.
func (r *relay) commands(n int, line []byte) error {
	for range n {
		if err := r.command(line); err != nil {
			return err
		}
	}
	return nil
}

// newRelay relays NOOP.
func newRelay() (runner, error) {
	r, err := openRelay(passing)
	if err != nil {
		return runner{}, err
	}
	return timed(func(n int) error { return r.commands(n, noopLine) }, func() { r.conn.Close() }), nil
}

// newSession decides about NOOP, and learns of its reply.
func newSession() (runner, error) {
	s := passing.NewSession(smtpproxy.Connection{})
	ctx := context.Background()
	return timed(func(n int) error {
		for range n {
			if _, passed := s.Command(ctx, "NOOP").(smtpproxy.Pass); !passed {
				return errRelay
			}
			s.Replied(250)
		}
		return nil
	}, s.Close), nil
}

// cost is what a part of the library costs: in time, as a share of the round
// trip of one command to a bare server, and in allocations.
func cost(name string, open func() (runner, error), roundTrip dialogue, time, allocs float64) work {
	trip := roundTrip.with(bare)
	trip.name = "lock-step NOOP, " + trip.name
	return work{
		name:       name,
		library:    contender{"the library", open},
		references: []reference{{contender: trip, figure: share, goal: atMost(time)}},
		more: func(_ *options, results []result) ([]result, error) {
			r, err := open()
			if err != nil {
				return nil, err
			}
			defer r.close()
			n := testing.AllocsPerRun(1000, func() {
				if _, e := r.run(1); e != nil {
					err = e
				}
			})
			return append(results, counted(name+": allocations", n, atMost(allocs))), err
		},
	}
}

// transactionGrowth compares a command in a small transaction with one in a
// large one.
func transactionGrowth(o *options) work {
	name := fmt.Sprintf("one command, transaction of 1 and of %s recipients", thousands(o.large))
	with := func(recipients int) contender {
		return contender{"itself with " + thousands(recipients), func() (runner, error) {
			r, err := openRelay(passing)
			if err != nil {
				return runner{}, err
			}
			err = errors.Join(r.commands(1, mailLine), r.commands(recipients, rcptLine))
			return timed(func(n int) error { return r.commands(n, noopLine) }, func() { r.conn.Close() }), err
		}}
	}
	return work{name: name, library: with(o.large), references: []reference{{contender: with(1), figure: growth, goal: atMost(1.1)}}}
}

// connectionGrowth compares a command on a young connection with one on an old
// one.
func connectionGrowth(o *options) work {
	const young = 1000
	name := fmt.Sprintf("one command, connection of 1 to %s and of %s commands", thousands(young), thousands(o.long))
	after := contender{"itself, old", func() (runner, error) {
		r, err := openRelay(passing)
		if err != nil {
			return runner{}, err
		}
		err = r.commands(o.long, noopLine)
		return timed(func(n int) error { return r.commands(n, noopLine) }, func() { r.conn.Close() }), err
	}}
	before := contender{"itself, young", func() (runner, error) {
		return runner{least: young, close: func() {}, run: func(n int) (spent, error) {
			var all spent
			for range n / young {
				r, err := openRelay(passing)
				if err != nil {
					return spent{}, err
				}
				took, err := meter(own).spend(func() error { return r.commands(young, noopLine) })
				r.conn.Close()
				if err != nil {
					return spent{}, err
				}
				all.clock += took.clock
				all.cpu += took.cpu
			}
			return all, nil
		}}, nil
	}}
	return work{name: name, library: after, references: []reference{{contender: before, figure: growth, goal: atMost(1.1)}}}
}

// thousands prints a number as people do.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
