package smtpproxy

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// plain is what a Chain, a Mux or a named hook needs to work as any Hook does, for a
// hook of the user's that calls it in the library's place.
type plain struct{ links atomic.Pointer[links] }

// of returns the links of the hook, which it keeps.
func (p *plain) of(h Hook) (*links, error) {
	if l := p.links.Load(); l != nil {
		return l, nil
	}
	l, err := linksOf(h)
	if err != nil {
		return nil, err
	}
	// Whose links are kept, for them hooks have asked for lines.
	if !p.links.CompareAndSwap(nil, l) {
		return p.links.Load(), nil
	}
	return l, nil
}

// forget forgets the links of a hook that has changed.
func (p *plain) forget() { p.links.Store(nil) }

// plainAskers are the hooks of a connection that have asked for its next line, by the
// links that they are among. A call that has been given up (see Proxy.HookTimeout) may use
// them beside another.
type plainAskers struct {
	mu   sync.Mutex
	list []plainAsker
}

type plainAsker struct {
	links *links
	asked []int
}

// take returns those that have asked, and forgets them.
func (a *plainAskers) take(l *links) []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		if a.list[i].links == l {
			asked := a.list[i].asked
			a.list[i].asked = nil
			return asked
		}
	}
	return nil
}

func (a *plainAskers) put(l *links, asked []int) {
	if asked == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		if a.list[i].links == l {
			a.list[i].asked = asked
			return
		}
	}
	a.list = append(a.list, plainAsker{l, asked})
}

// plainDelay is how long a client is to wait for a Restart, for which there is no place in
// the Reply: what hooks before the one that decided so have wanted. A call that has been
// given up may use it beside another.
type plainDelay struct {
	mu     sync.Mutex
	origin *Origin // of the Restart
	delay  time.Duration
}

func (p *plainDelay) put(o *Origin, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.origin, p.delay = o, delay
}

// take returns how long the client waits for a Restart, 0 if it is another.
func (p *plainDelay) take(o *Origin) (delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.origin == o {
		delay = p.delay
	}
	p.origin = nil
	return delay
}

// held returns the Reply, held back for so long at least, as the ones before have wanted.
func (r *Reply) held(ctx *Context, delay time.Duration) Reply {
	held := *r
	switch {
	case held.Delay >= delay:
	case held.Restart != nil:
		State[plainDelay](ctx).put(held.Restart, delay)
	default:
		held.Delay = delay
	}
	return held
}

// namedError is an error of a hook with a name.
type namedError struct {
	hook string
	error
}

// Unwrap returns the hook's error.
func (e *namedError) Unwrap() error { return e.error }

// command asks the hooks that h is made of, one after the other. What it returns is
// held to the library's rules by who has asked h.
func (p *plain) command(h Hook, ctx *Context, cmd *Command, conn *Connection, txn *Transaction) (Decision, error) {
	l, err := p.of(h)
	if err != nil {
		return nil, err
	}
	before, unasked := State[plainAskers](ctx), ctx.state.unasked.Load()
	defer ctx.state.unasked.Store(unasked)
	r := route{askers: &askers{asked: before.take(l)}, only: cmd.SASL}
	if unasked {
		// They have asked for a line that has not come here: a hook before has answered
		// it, or who has called h hasn't asked for it in turn.
		r.askers.asked = nil
	}
	if cmd.Received == "" {
		cmd.Received = cmd.Line // a test has made it
	}
	var passed Pass
	var asked []int
	for i := l.next(&r, cmd.Line); i >= 0; i = l.next(&r, cmd.Line) {
		link := &l.steps[i].link
		ctx.state.unasked.Store(!r.asked(i))
		d, err := link.hook.Command(ctx, *cmd, *conn, *txn)
		pass, reply := partsOf(d)
		switch {
		case err != nil:
			before.put(l, asked)
			return nil, link.failed(err)
		case reply != nil:
			if reply.Code == 334 {
				asked = nil // the answer is for nobody else
			}
			if reply.Next || reply.Code == 334 {
				asked = append(asked, i)
			}
			before.put(l, asked)
			return reply.held(ctx, passed.Delay), nil
		case pass == nil:
			return nil, link.failed(fmt.Errorf("%w: %T", ErrInvalidDecision, d))
		}
		if at := ascii.IndexControl(pass.Command); at >= 0 {
			return nil, link.failed(fmt.Errorf("%w: control character %#02x in a command", ErrInvalidDecision, pass.Command[at]))
		}
		passed.Delay = max(passed.Delay, pass.Delay)
		if pass.Next {
			passed.Next = true
			asked = append(asked, i)
		}
		if pass.Command != "" {
			cmd.Line, passed.Command = pass.Command, pass.Command
		}
	}
	before.put(l, asked)
	return passed, nil
}

// failed returns a hook's error, with its name if it has one.
func (l *link) failed(err error) error {
	if l.name == "" {
		return err
	}
	return &namedError{l.name, err}
}

// partsOf returns what a decision is: a Pass or a Reply, neither if it is no decision.
func partsOf(d Decision) (*Pass, *Reply) {
	switch d := d.(type) {
	case nil:
		return new(Pass), nil
	case Pass:
		return &d, nil
	case *Pass:
		return d, nil
	case Reply:
		return nil, &d
	case *Reply:
		return nil, d
	}
	return nil, nil
}
