package main

import (
	"fmt"
	"sync"

	"github.com/seed3262c777/smtpproxy"
)

// work is a piece of work that fills lines of the table.
type work struct {
	name       string
	library    contender
	references []reference
	// more completes the results of the comparison, or makes them where there
	// is none.
	more func(*options, []result) ([]result, error)
}

func (w work) do(o *options) (results []result, err error) {
	if len(w.references) > 0 {
		results, err = compare(o, w.name, w.library, w.references...)
	}
	if err == nil && w.more != nil {
		results, err = w.more(o, results)
	}
	return results, err
}

// small is the size of a message whose content doesn't matter, in octets.
const small = 2 << 10

const mebi = 1 << 20

// workList is all there is to do, in the table's order.
func workList(o *options) []work {
	noop := dialogue{steps: []exchange{lines(1, "NOOP")}}
	among16 := dialogue{conns: 16, steps: noop.steps}
	message := dialogue{conns: 16, steps: lockStep(small)}
	session := dialogue{fresh: true, steps: lockStep(small)}
	bulk := pipelined(1, o.bulk*mebi)
	size := fmt.Sprintf("%d MiB", o.bulk)
	list := []work{
		control("lock-step NOOP, one connection", noop),
		control("lock-step NOOP, 16 connections", among16),
		noop.against("lock-step NOOP, one connection", atLeast(0.98), echoing, forwarding, tunneling),
		message.against("lock-step message, 16 connections", atLeast(0.98), echoing, forwarding, tunneling).withCalls(message.steps),
		session.against("session: connect, EHLO, message, QUIT", atLeast(1), echoing, forwarding, tunneling),
		among16.inPlace("lock-step NOOP, 16 connections without timeouts", atMost(0.6e-6)),
		message.inPlace("lock-step message, 16 connections without timeouts", atMost(4*0.6e-6)),
		dialogue{steps: pipelined(1, small)}.against("pipelined message, 1 recipient", atLeast(1.1)),
		dialogue{steps: pipelined(10, small)}.against("pipelined message, 10 recipients", atLeast(1.5)).withCalls(pipelined(10, small)),
		dialogue{steps: pipelined(100, small)}.against("pipelined message, 100 recipients", atLeast(2)),
		dialogue{steps: repeated("RSET", 100)}.against("100 pipelined RSET", atLeast(3)),
		dialogue{steps: bulk}.against("DATA, "+size, atLeast(1)),
		dialogue{security: implicitTLS, steps: bulk}.against("DATA, "+size+", inside TLS", atLeast(1)),
		dialogue{steps: chunked(o.bulk, mebi)}.against("BDAT, "+size+" in chunks of 1 MiB", atLeast(0.95)),
		dialogue{fresh: true, security: startTLS, steps: lockStep(small)}.against("session with STARTTLS", atLeast(0.95)),
		cost("Session.Command with a pass hook", newSession, noop, 0.02, 0),
		cost("relay of one command, in memory", newRelay, noop, 0.05, 1),
		composed("a chain of 1 hook", &smtpproxy.Proxy{Hook: chainOf(1)}, remark("-")),
		composed("a chain of 3 hooks", &smtpproxy.Proxy{Hook: chainOf(3)}, remark("-")),
		composed("a chain of 10 hooks", &smtpproxy.Proxy{Hook: chainOf(10)}, remark("-")),
		composed("a Mux", &smtpproxy.Proxy{Hook: muxOf()}, remark("-")),
		composed("an observer", &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(pass), Observers: []smtpproxy.Observer{observer}}, remark("-")),
		composed("a hook that sees replies", &smtpproxy.Proxy{Hook: seesReplies}, remark("-")),
	}
	list = append(list, readyWork()...)
	list = append(list, limitsWork(o)...)
	for _, n := range o.waiting {
		list = append(list, waitWork(o, waiting, n), waitWork(o, delaying, n))
	}
	list = append(list,
		refusedWork(),
		idleWork(o, hooked, 1<<10),
		idleWork(o, chained, 1<<10),
		idleWork(o, observed, 4<<10),
		transactionGrowth(o),
		connectionGrowth(o),
	)
	list = append(list, busyWork(o, hooked, "a hook")...)
	return append(list, busyWork(o, chained10, "a chain of 10 hooks")...)
}

// dialogue is what clients say to a server.
type dialogue struct {
	conns    int  // that say it at the same time; 0 is 1
	turns    int  // that each of them takes at least; 0 is 1
	fresh    bool // on a new connection each time
	security security
	steps    []exchange
}

// against compares the library with bare go-smtp, and with others without a
// goal.
func (d dialogue) against(name string, g goal, others ...kind) work {
	w := work{name: name, library: d.with(hooked), references: []reference{{contender: d.with(bare), figure: speed, goal: g}}}
	for _, k := range others {
		text := "-"
		if k == echoing {
			text = "the floor"
		}
		w.references = append(w.references, reference{contender: d.with(k), figure: speed, goal: remark(text)})
	}
	return w
}

// inPlace compares what a server computes for the dialogue with what it computes without
// the library, where neither has timeouts: what the socket's deadlines cost one of them, and the
// library's own the other, would be in it.
func (d dialogue) inPlace(name string, more goal) work {
	return work{name: name, library: d.with(hookedUntimed), references: []reference{{d.with(bareUntimed), speed, goal{}, more}}}
}

// control compares bare go-smtp with itself: what differs there is the noise.
func control(name string, d dialogue) work {
	another := d.with(bare)
	another.name = "itself, another server"
	return work{
		name:       "control: " + name,
		library:    d.with(bare),
		references: []reference{{contender: another, figure: speed, goal: remark("the noise")}},
	}
}

// with is a server that the dialogue is led with, in a process of its own. How fast that is, and a
// TCP connection to it, is a matter of luck too: so each round has its own.
func (d dialogue) with(k kind) contender {
	return contender{string(k), func() (runner, error) {
		return runner{least: max(1, d.conns) * max(1, d.turns), close: func() {}, run: func(n int) (spent, error) {
			p, err := startProcess(k, d.security)
			if err != nil {
				return spent{}, err
			}
			defer p.stop()
			return d.measure(p, n)
		}}, nil
	}}
}

// measure leads the dialogue with a server n times.
func (d dialogue) measure(p *process, n int) (spent, error) {
	if d.fresh {
		if err := d.sessions(&p.server, 1+n/4); err != nil {
			return spent{}, err
		}
		return meter(p.cpu).spend(func() error { return d.sessions(&p.server, n) })
	}
	clients, err := d.connect(&p.server)
	defer clients.abort()
	if err != nil {
		return spent{}, err
	}
	if err := d.lead(clients, max(len(clients), n/4)); err != nil { // until the server has its memory
		return spent{}, err
	}
	return meter(p.cpu).spend(func() error { return d.lead(clients, n) })
}

// clients are connected to the same server.
type clients []*client

func (c clients) abort() {
	for _, one := range c {
		one.abort()
	}
}

// connect connects the dialogue's clients. There may be some in spite of an
// error.
func (d dialogue) connect(s *server) (clients, error) {
	var all clients
	for range max(1, d.conns) {
		c, err := dial(s)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// lead leads the dialogue n times, shared by all clients.
func (d dialogue) lead(clients clients, n int) error {
	errs := make(chan error, len(clients))
	var begin, done sync.WaitGroup
	begin.Add(1)
	for _, c := range clients {
		done.Go(func() {
			begin.Wait()
			for range n / len(clients) {
				if err := c.do(d.steps...); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	begin.Done()
	done.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// sessions leads the dialogue n times, on a connection of its own each time.
func (d dialogue) sessions(s *server, n int) error {
	for range n {
		if err := d.session(s); err != nil {
			return err
		}
	}
	return nil
}

func (d dialogue) session(s *server) error {
	c, err := dial(s)
	if err != nil {
		return err
	}
	defer c.tcp.Close()
	if err := c.do(d.steps...); err != nil {
		return err
	}
	return c.do(lines(1, "QUIT"))
}
