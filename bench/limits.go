package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// This file measures what limits cost, however many clients they know.

// perNetwork bounds the commands of a network, but for none in practice.
var perNetwork = hooks.Limit{What: hooks.Commands, Per: hooks.PerNetwork, Max: 1 << 30, Every: time.Hour}

// limited is a proxy with limits, each of something of a connection or a network.
func limited(limits ...hooks.Limit) *smtpproxy.Proxy {
	return &smtpproxy.Proxy{Hook: hooks.Limits{Limits: limits}.Hook()}
}

func limitsWork(o *options) []work {
	all := 1 << 30
	list := []work{
		composed("limits of a connection", limited(
			hooks.Limit{What: hooks.Commands, Max: all}, hooks.Limit{What: hooks.Unauthenticated, Max: all}, hooks.Limit{What: hooks.Time, Max: all}), remark("-")),
		composed("a limit of a network", limited(perNetwork), remark("-")),
		composed("limits of errors and recipients", limited(
			hooks.Limit{What: hooks.Errors, Max: all}, hooks.Limit{What: hooks.Recipients, Per: hooks.PerNetwork, Max: all, Every: time.Hour}), remark("-")),
	}
	for _, n := range o.clients {
		list = append(list, work{
			name:       fmt.Sprintf("one command, a limit that knows %s clients", thousands(n)),
			library:    contender{"itself, " + thousands(n) + " clients", func() (runner, error) { return someOf(n) }},
			references: []reference{{contender: contender{"itself, 1 client", func() (runner, error) { return someOf(1) }}, figure: growth, goal: remark("flat")}},
		})
	}
	return list
}

// addr is the address of one of many clients.
func addr(i int) net.IP { return net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)) }

// someOf relays commands of a thousand connections in turn, each from one of n clients that a limit
// knows.
func someOf(n int) (runner, error) {
	const conns = 1000
	store := new(hooks.MemoryStore)
	for i := range n {
		b := hooks.Bucket{What: perNetwork.What, Per: perNetwork.Per, Max: perNetwork.Max, Every: perNetwork.Every, Who: addr(i).String() + "/32"}
		store.Charge(context.Background(), b, 1<<20)
	}
	p := &smtpproxy.Proxy{Hook: hooks.Limits{Limits: []hooks.Limit{perNetwork}, Store: store}.Hook()}
	relays := make([]*relay, conns)
	for i := range relays {
		r, err := openRelayFrom(p, &net.TCPAddr{IP: addr(i * 7919 % n)})
		if err != nil {
			return runner{}, err
		}
		relays[i] = r
	}
	at := 0
	return timed(func(n int) error {
		for range n {
			at = (at + 1) % conns
			if err := relays[at].command(noopLine); err != nil {
				return err
			}
		}
		return nil
	}, func() {
		for _, r := range relays {
			r.conn.Close()
		}
	}), nil
}
