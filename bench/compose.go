package main

import (
	"bufio"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file measures what it costs to put hooks together, and to refuse a client before it
// is greeted.

// chainOf is a chain of hooks that pass everything.
func chainOf(n int) smtpproxy.Hook {
	return smtpproxy.Chain(slices.Repeat([]smtpproxy.Hook{smtpproxy.HookFunc(pass)}, n)...)
}

// muxOf hands NOOP to a hook that passes it.
func muxOf() smtpproxy.Hook {
	m := &smtpproxy.Mux{Else: smtpproxy.HookFunc(pass)}
	for _, verb := range []string{"EHLO", "MAIL", "RCPT", "NOOP"} {
		m.HandleFunc(verb, pass)
	}
	return m
}

// composed compares a command behind hooks that are put together, and what looks at it, with
// one behind a hook.
func composed(name string, p *smtpproxy.Proxy, g goal) work {
	with := func(name string, p *smtpproxy.Proxy) contender {
		return contender{name, func() (runner, error) {
			r, err := openRelay(p)
			if err != nil {
				return runner{}, err
			}
			return timed(func(n int) error { return r.commands(n, noopLine) }, func() { r.conn.Close() }), nil
		}}
	}
	return work{
		name:       "one command, " + name,
		library:    with("itself, "+name, p),
		references: []reference{{contender: with("itself, a hook", passing), figure: growth, goal: g}},
	}
}

// observer is told of everything, and makes nothing of it.
var observer = smtpproxy.Observer{
	Connected:    func(*smtpproxy.Context, smtpproxy.Connection) {},
	Exchanged:    func(*smtpproxy.Context, smtpproxy.Exchange) {},
	StartedTLS:   func(*smtpproxy.Context, smtpproxy.Connection, error) {},
	Failed:       func(*smtpproxy.Context, smtpproxy.Failure) {},
	Disconnected: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) {},
}

// seesReplies is a hook that sees replies, and changes none.
var seesReplies = smtpproxy.Funcs{
	OnCommand: pass,
	OnReply:   func(*smtpproxy.Context, smtpproxy.Exchange) (smtpproxy.Decision, error) { return nil, nil },
}

// allOfIt is a proxy with all that can look at a connection.
var allOfIt = &smtpproxy.Proxy{
	Hook: smtpproxy.Chain(seesReplies, smtpproxy.Funcs{
		OnConnect:    func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) { return nil, nil },
		OnKeywords:   func(*smtpproxy.Context, smtpproxy.Connection, *smtpproxy.Keywords) error { return nil },
		OnDisconnect: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) {},
	}),
	Observers: []smtpproxy.Observer{observer},
}

// refusal is what a client gets in the place of a greeting.
const refusal = "554 5.7.1 Go away\r\n"

// refuses is a hook that refuses each client.
type refuses struct{ smtpproxy.Hook }

func (refuses) Connect(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) {
	return smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"Go away"}}, nil
}

// refusedWork compares clients that are refused at connect with those that a bare listener
// refuses.
func refusedWork() work {
	with := func(k kind) contender {
		return contender{string(k), func() (runner, error) {
			p, err := startProcess(k, plain)
			if err != nil {
				return runner{}, err
			}
			return meter(p.cpu).runner(func(n int) error {
				for range n {
					if err := refused(p.addr); err != nil {
						return err
					}
				}
				return nil
			}, p.stop), nil
		}}
	}
	return work{
		name:       "a client refused at connect",
		library:    with(refusing),
		references: []reference{{contender: with(bareRefusing), figure: speed, goal: remark("the floor")}},
	}
}

var errNotRefused = errors.New("a client that isn't refused")

// refused is a client that counts on a refusal, and leaves.
func refused(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}()
	c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "554 ") {
		err = errNotRefused
	}
	return err
}
