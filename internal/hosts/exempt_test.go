package hosts

import (
	"slices"
	"sync"
	"testing"
)

// This file is about what nobody in front of a host can keep it from.

// exempt is what a host does that no one in front of it can keep it from; counted,
// so that the list stays true.
type exempt map[string]int

const executesOwn = "executes its own buffer after a refusal midway"

// ownBuffer tells for each event whether the host does it with what it had already
// read when it refused a message midway. Nothing in front of it can help that; it can
// only give it nothing more.
func ownBuffer(h host, events []event) []bool {
	own, now := make([]bool, len(events)), false
	for i, e := range events {
		switch e.what {
		case midway:
			now = h.midway
		case handed:
			now = false
		}
		own[i] = now
	}
	return own
}

// check looks for something that must not have happened.
type check func(h host, events []event, ex exempt) string

// counts are what is exempt, for each host.
type counts struct {
	mu sync.Mutex
	of map[string]exempt
}

func newCounts() *counts { return &counts{of: make(map[string]exempt)} }

func (c *counts) add(h host, ex exempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, n := range ex {
		if c.of[h.name] == nil {
			c.of[h.name] = make(exempt)
		}
		c.of[h.name][name] += n
	}
}

// are fails unless what was exempt is what is listed: no more, and no less, or the
// list isn't true.
func (c *counts) are(t *testing.T, listed map[string][]string) {
	t.Helper()
	for _, h := range hosts {
		for name, n := range c.of[h.name] {
			t.Logf("%s %s: %d times", h.name, name, n)
			if !slices.Contains(listed[h.name], name) {
				t.Errorf("%s %s, which isn't listed", h.name, name)
			}
		}
		for _, name := range listed[h.name] {
			if c.of[h.name][name] == 0 {
				t.Errorf("%s never %s, though it is listed", h.name, name)
			}
		}
	}
}
