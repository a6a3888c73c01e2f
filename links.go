package smtpproxy

import (
	"context"
	"errors"
	"slices"

	"github.com/seed3262c777/smtpproxy/internal/probe"
)

// This file takes a hook apart into those that it is made of, and finds the way of a
// line through them. A hook that called the next one by value would cost each
// connection 4 KiB of stack; so the library walks, and calls one after the other from
// the same place.

// links are the hooks that a hook is made of. They never change.
type links struct {
	steps []step
	verbs []string     // those that a Mux in it has
	probe *probe.Probe // may be nil

	// Those that are more than a Hook.
	connect    []optional[ConnectHook]
	keywords   []optional[KeywordHook]
	replies    []optional[ReplyHook]
	disconnect []optional[DisconnectHook]
}

// step is a place on the way: of a hook, or where the way parts.
type step struct {
	link
	fork *fork // where the way parts; there is no hook then
	next int   // the step behind it
}

// link is a hook in its place.
type link struct {
	name string // of Named
	hook Hook
	f    HookFunc // hook, if it is one: see callHook
}

// fork is where a Mux parts the way.
type fork struct {
	branches map[string]branch // by verb
	other    branch            // for all other verbs
	end      int               // the step behind all of them
}

// branch are the steps from start on, before end. It may be empty.
type branch struct{ start, end int }

func (b branch) has(i int) bool { return b.start <= i && i < b.end }

// maxNesting is how deep hooks may be in one another. It finds those that are in
// themselves.
const maxNesting = 100

var errNesting = errors.New("smtpproxy: hooks are nested more than 100 deep, or a Mux is in itself")

// linksOf takes a hook apart. A nil Hook has no links.
func linksOf(h Hook) (*links, error) {
	l := new(links)
	if !nestsAtMost(h, maxNesting) {
		return l, errNesting
	}
	l.add(h, "")
	l.addVerbs(h)
	l.connect = find[ConnectHook](h, "")
	l.keywords = find[KeywordHook](h, "")
	l.replies = find[ReplyHook](h, "")
	l.disconnect = find[DisconnectHook](h, "")
	return l, nil
}

// listed tells whether the hooks are called for a verb, with Proxy.Commands, in upper
// case, being some.
func (l *links) listed(verb string, some []string) bool {
	return len(some) == 0 || slices.Contains(some, verb) || slices.Contains(l.verbs, verb)
}

// tellProbe tells what a hook has decided.
func (l *links) tellProbe(ctx context.Context, q *call, o outcome) {
	var err error
	if o.failure != nil {
		err = *o.failure
	}
	l.probe.Decided(ctx, q.link().name, o.decision, err)
}

// failedProbe tells of a failure that Proxy.OnFailure isn't asked about.
func (l *links) failedProbe(f *Failure) {
	if l.probe != nil {
		l.probe.Failed(*f)
	}
}

// toldProbe tells that the hooks have been told of the end.
func (l *links) toldProbe() {
	if l.probe != nil {
		l.probe.Disconnected()
	}
}

// madeOf returns the hooks that a hook tells to be made of.
func madeOf(h Hook) []Hook {
	switch h := h.(type) {
	case interface{ Unwrap() Hook }:
		return []Hook{h.Unwrap()}
	case interface{ Unwrap() []Hook }:
		return h.Unwrap()
	}
	return nil
}

func nestsAtMost(h Hook, n int) bool {
	for _, inner := range madeOf(h) {
		if n == 0 || !nestsAtMost(inner, n-1) {
			return false
		}
	}
	return true
}

// add appends what h is made of. name is the innermost one around it.
func (l *links) add(h Hook, name string) {
	switch h := h.(type) {
	case nil:
	case *chain:
		for _, h := range h.hooks {
			l.add(h, name)
		}
	case *named:
		l.add(h.hook, h.name)
	case *Mux:
		l.addMux(h, name)
	case probe.Watched:
		l.probe = h.Probe()
		for _, h := range madeOf(h.(Hook)) {
			l.add(h, name)
		}
	default:
		f, _ := h.(HookFunc)
		if funcs, ok := funcsOf(h); ok {
			if f = funcs.OnCommand; f == nil {
				return
			}
		}
		l.steps = append(l.steps, step{link: link{name, h, f}, next: len(l.steps) + 1})
	}
}

func (l *links) addMux(m *Mux, name string) {
	at := len(l.steps)
	f := &fork{branches: make(map[string]branch, len(m.routes))}
	l.steps = append(l.steps, step{fork: f})
	for _, r := range m.routes {
		f.branches[r.verb] = l.addBranch(r.hook, name)
	}
	f.other = l.addBranch(m.Else, name)
	f.end = len(l.steps)
	l.steps[at].next = f.end
	// Each branch leads behind all of them, as the last one does.
	for _, b := range f.branches {
		b.leadTo(l.steps, f.end)
	}
}

// addVerbs appends the verbs of each Mux in h. Those in a wrapper of the user's are called
// by that, but only if it is.
func (l *links) addVerbs(h Hook) {
	if m, ok := h.(*Mux); ok {
		for _, r := range m.routes {
			l.verbs = append(l.verbs, r.verb)
		}
	}
	for _, inner := range madeOf(h) {
		l.addVerbs(inner)
	}
}

func (l *links) addBranch(h Hook, name string) branch {
	start := len(l.steps)
	l.add(h, name)
	return branch{start, len(l.steps)}
}

// leadTo lets what led behind the branch lead to another step.
func (b branch) leadTo(steps []step, to int) {
	for i := b.start; i < b.end; i++ {
		if steps[i].next == b.end {
			steps[i].next = to
		}
	}
}

// route is the way of one line.
type route struct {
	askers *askers // nil if nobody has asked for the line
	at     int32   // the next step
	only   bool    // nobody else gets the line
}

// askers are the hooks that have asked for a line with Next.
type askers struct {
	asked []int // in order
	ahead []int // those that have got the line before it was their turn
}

// asked tells whether a hook on the way has asked for the line.
func (r *route) asked(i int) bool {
	return r.only || r.askers != nil && slices.Contains(r.askers.asked, i)
}

// next returns the next hook on a line's way, as the line is now, and -1 at its end.
func (l *links) next(r *route, line string) int {
	if r.only {
		return r.askers.next()
	}
	for int(r.at) < len(l.steps) {
		i, s := int(r.at), &l.steps[r.at]
		if s.fork == nil {
			r.at = int32(s.next)
			if !r.askers.had(i) {
				return i
			}
			continue
		}
		way := s.fork.of(line)
		if i := r.askers.nextIn(i, s.fork.end, way); i >= 0 {
			return i
		}
		if r.at = int32(s.next); way.start < way.end {
			r.at = int32(way.start)
		}
	}
	return -1
}

// of returns the branch for a line.
func (f *fork) of(line string) branch {
	if b, ok := f.branches[verbName(line)]; ok {
		return b
	}
	return f.other
}

// next returns the next one, -1 if there is none.
func (a *askers) next() int {
	if a == nil || len(a.asked) == 0 {
		return -1
	}
	i := a.asked[0]
	a.asked = a.asked[1:]
	return i
}

// nextIn returns the next one in a fork, but not in the branch that the line takes,
// where it has its turn. It returns -1 if there is none.
func (a *askers) nextIn(fork, end int, way branch) int {
	if a == nil {
		return -1
	}
	for _, i := range a.asked {
		if fork < i && i < end && !way.has(i) && !a.had(i) {
			a.ahead = append(a.ahead, i)
			return i
		}
	}
	return -1
}

// had tells whether one has got the line.
func (a *askers) had(i int) bool { return a != nil && slices.Contains(a.ahead, i) }
