//go:build !race

package hooks_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/hooks"
)

// This file measures memory. (With the race detector, a million takes a minute.)

// heap is how much there is, and is needed.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAMillionClientsAreAllKnownInTheMemoryThatTheDocsName(t *testing.T) {
	before := heap()
	s := new(hooks.MemoryStore)
	for i := range million {
		take(t, s, bucketOf(i), 2)
	}
	used := heap() - before
	t.Logf("%.1f MiB, %.1f octets a client", float64(used)/(1<<20), float64(used)/million)
	if used > 64<<20 {
		t.Errorf("a million clients take %d octets", used)
	}
	for i := range million {
		if take(t, s, bucketOf(i), 0) {
			t.Fatalf("client %d is forgotten", i)
		}
	}

	// Any number of others, with names of any length, changes nothing.
	long := strings.Repeat("x", 1000)
	for i := range million {
		b := bucketOf(i)
		b.Who += long
		charge(t, s, b, 1)
	}
	if used := heap() - before; used > 64<<20 {
		t.Errorf("two million clients take %d octets", used)
	}
	runtime.KeepAlive(s)
}

func TestClientsThatHaveGoneTakeNoMemory(t *testing.T) {
	before := heap()
	s := new(hooks.MemoryStore)
	for i := range million {
		b := bucketOf(i)
		b.What, b.Every = hooks.Connections, 0
		take(t, s, b, 1)
		charge(t, s, b, -1)
	}
	if used := int64(heap()) - int64(before); used > 1<<20 {
		t.Errorf("a million connections that came and went take %d octets", used)
	}
	runtime.KeepAlive(s)
}
