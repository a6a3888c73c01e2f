package main

import (
	"bytes"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
)

// result is what a client knows of a message when it is done with it.
type result string

const (
	accepted result = "accepted" // it has got 250 for it
	refused  result = "refused"  // it has got something else
	cut      result = "cut"      // it has broken the connection off before the reply
)

// outcome is a message and its result.
type outcome struct {
	ID     string // as a sender
	Result result
}

// ledger holds what the backend got against what the clients were told. What it
// keeps of a message is some bits, since the memory of this process is measured.
type ledger struct {
	seed uint64

	mu         sync.Mutex
	slots      []marks
	delivered  int
	accepted   int
	refused    int
	cut        int
	missing    int // accepted, not delivered
	duplicates int
	mismatched int // other octets, other envelope
	truncated  int // of a torn message: a beginning of it was delivered
	contrary   int // refused, but delivered
	evil       int
	complaints complaints
}

// marks are what is known of the messages of one client, a bit for each.
type marks struct{ delivered, accepted, refused, cut bits }

func newLedger(seed uint64, slots int) *ledger {
	l := &ledger{seed: seed, slots: make([]marks, slots)}
	for i := range l.slots {
		// All at once, so as not to grow later.
		room := make(bits, 4*16)
		l.slots[i] = marks{room[:0:16], room[16:16:32], room[32:32:48], room[48:48:64]}
	}
	return l
}

type bits []uint64

func (b bits) has(i int) bool { return i/64 < len(b) && b[i/64]>>(i%64)&1 == 1 }

func (b *bits) set(i int) {
	for i/64 >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

// receipt takes the content of a message as the backend reads it.
type receipt struct {
	to   []string
	head []byte
	sum  hash.Hash // of the envelope and what follows the head
	n    int       // octets of that
	all  []byte    // of a torn message
	torn bool
}

func newReceipt(from string, to []string) *receipt {
	i, ok := idOf(from)
	return &receipt{to: to, sum: newDigest(to), torn: ok && i.kind == torn}
}

// Write implements io.Writer.
func (r *receipt) Write(p []byte) (int, error) {
	size := len(p)
	if r.torn {
		r.all = append(r.all, p...)
	}
	for len(p) > 0 && !bytes.HasSuffix(r.head, []byte("\n")) && len(r.head) < 1000 {
		r.head, p = append(r.head, p[0]), p[1:]
	}
	r.sum.Write(p)
	r.n += len(p)
	return size, nil
}

// deliver enters a message that the backend has got whole.
func (l *ledger) deliver(from string, r *receipt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delivered++
	i, ok := idOf(from)
	switch {
	case strings.HasSuffix(from, evilDomain):
		l.evil++
		l.complaints.add("an evil message was delivered: " + from)
		return
	case !ok || i.slot >= len(l.slots):
		l.mismatched++
		l.complaints.add("a message of nobody's was delivered: " + from)
		return
	}
	m := &l.slots[i.slot]
	if m.delivered.has(i.seq) {
		l.duplicates++
		l.complaints.add(fmt.Sprintf("%v was delivered twice", i))
	}
	m.delivered.set(i.seq)
	head := fmt.Sprintf("Soak: %v %d %x\r\n", i, r.n, r.sum.Sum(nil))
	switch {
	case string(r.head) == head:
	case i.kind == torn && l.isBeginning(i, r):
		l.truncated++
	default:
		l.mismatched++
		l.complaints.add(fmt.Sprintf("%v was delivered otherwise than sent: to %q, %d octets behind the head %q", i, r.to, r.n, r.head))
	}
}

// isBeginning tells whether what was delivered is a beginning of the message,
// and less than all.
func (l *ledger) isBeginning(i id, r *receipt) bool {
	m := compose(l.seed, i)
	return slices.Equal(r.to, m.kept()) && len(r.all) < len(m.content) && bytes.HasPrefix(m.content, r.all)
}

// told enters what a client was told. A message is delivered before the reply
// to it is sent, so that of an accepted one the ledger knows already.
func (l *ledger) told(o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := idOf(o.ID)
	if !ok || i.slot >= len(l.slots) {
		l.complaints.add("an outcome of nobody's message: " + o.ID)
		l.contrary++
		return
	}
	m := &l.slots[i.slot]
	switch o.Result {
	case accepted:
		l.accepted++
		m.accepted.set(i.seq)
		if !m.delivered.has(i.seq) {
			l.missing++
			l.complaints.add(fmt.Sprintf("%v was accepted, but not delivered", i))
		}
	case refused:
		l.refused++
		m.refused.set(i.seq)
		if m.delivered.has(i.seq) {
			l.contrary++
			l.complaints.add(fmt.Sprintf("%v was refused, but delivered", i))
		}
	case cut:
		l.cut++
		if i.kind != good && i.kind != slow { // those don't break off
			m.cut.set(i.seq)
		}
	}
}

// sawEvil notes a command that the hook or the backend got.
func (l *ledger) sawEvil(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evil++
	l.complaints.add("content became a command: " + what)
}

// unaccounted counts, when all is over, the messages that were delivered without
// their client knowing: those whose client broke off, and the others, which
// must not be.
func (l *ledger) unaccounted() (unseen, unexplained int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for slot, m := range l.slots {
		for seq := range 64 * len(m.delivered) {
			switch {
			case !m.delivered.has(seq) || m.accepted.has(seq) || m.refused.has(seq):
			case m.cut.has(seq):
				unseen++
			default:
				unexplained++
				l.complaints.add(fmt.Sprintf("client %d doesn't know of its message %d, which was delivered", slot, seq))
			}
		}
	}
	return unseen, unexplained
}

// complaints are what went wrong, the first ones of it.
type complaints []string

func (c *complaints) add(s string) {
	if len(*c) < 20 {
		*c = append(*c, s)
	}
}

func (l *ledger) acceptedSoFar() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted
}
