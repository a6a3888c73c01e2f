package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// whole returns a report in which all checks hold.
func whole() *report {
	r := &report{
		o:       &options{seed: 1, conns: 100, least: 0.95, room: 1 << 20, tears: true},
		ledger:  newLedger(1, 100),
		counts:  map[string]int{"replies checked": 5},
		logged:  map[string]int{hookPanic: 3, "go-smtp: panic serving: " + knownPanic: 1},
		looks:   2,
		fewest:  90,
		before:  usage{goroutines: 2, descriptors: 9},
		after:   usage{goroutines: 2, descriptors: 9},
		samples: rising(100<<20, 0),
		took:    time.Minute,
	}
	r.connected = r.looks * 97
	for _, a := range attacks {
		r.counts["sessions, hostile: "+a.name] = 1
	}
	r.receive(good, 1, nil)
	r.told(good, 1, accepted)
	return r
}

// receive delivers a message, whose content change may change.
func (r *report) receive(k kind, seq int, change func(content []byte) []byte) {
	m := compose(1, id{k, 1, seq})
	content := m.content
	if change != nil {
		content = change(content)
	}
	got := newReceipt(m.sender(), m.kept())
	for len(content) > 0 {
		n := min(7, len(content))
		got.Write(content[:n])
		content = content[n:]
	}
	r.ledger.deliver(m.sender(), got)
}

func (r *report) told(k kind, seq int, res result) {
	r.ledger.told(outcome{id{k, 1, seq}.sender(), res})
}

// rising is a heap that grows steadily in ten minutes, with some noise.
func rising(from, by float64) (samples []usage) {
	for i := range 200 {
		part := float64(i) / 199
		noise := float64(i%7-3) * (1 << 20)
		samples = append(samples, usage{
			at:   time.Duration(part * float64(10*time.Minute)),
			heap: from + by*part + noise,
		})
	}
	return samples
}

func TestEachFaultIsNoticed(t *testing.T) {
	cutOff := func(c []byte) []byte { return c[:len(c)-1] }
	rows := []struct {
		fault string
		do    func(r *report)
		want  string // the check that fails; empty if that is no fault
	}{
		{"nothing", func(r *report) {}, ""},
		{"no message at all", func(r *report) { r.ledger = newLedger(1, 100) }, "messages were accepted"},
		{"no reply at all", func(r *report) { r.counts["replies checked"] = 0 }, "replies were checked"},
		{"a message lost", func(r *report) { r.told(good, 2, accepted) }, "accepted, but not delivered"},
		{"a message twice", func(r *report) { r.receive(good, 1, nil) }, "delivered twice"},
		{"the last octet missing", func(r *report) {
			r.receive(good, 2, cutOff)
			r.told(good, 2, accepted)
		}, "delivered otherwise than sent"},
		{"an octet changed", func(r *report) {
			r.receive(smuggler, 2, func(c []byte) []byte { c[len(c)/2] ^= 1; return c })
			r.told(smuggler, 2, accepted)
		}, "delivered otherwise than sent"},
		{"another message's content", func(r *report) {
			r.receive(good, 2, func([]byte) []byte { return compose(1, id{good, 1, 3}).content })
			r.told(good, 2, accepted)
		}, "delivered otherwise than sent"},
		{"a recipient missing", func(r *report) {
			m := compose(1, id{good, 1, 2})
			got := newReceipt(m.sender(), m.kept()[1:])
			got.Write(m.content)
			r.ledger.deliver(m.sender(), got)
			r.told(good, 2, accepted)
		}, "delivered otherwise than sent"},
		{"a message of nobody's", func(r *report) {
			r.ledger.deliver("x@soak.example", newReceipt("x@soak.example", nil))
		}, "delivered otherwise than sent"},
		{"a torn message that go-smtp takes for whole", func(r *report) {
			r.told(torn, 2, cut)
			r.receive(torn, 2, cutOff)
		}, ""},
		{"a torn message that is none of that", func(r *report) {
			r.told(torn, 2, cut)
			r.receive(torn, 2, func(c []byte) []byte { return append(c[:len(c)-2:len(c)-2], 'x') })
		}, "delivered otherwise than sent"},
		{"a refused message delivered", func(r *report) {
			r.receive(good, 2, nil)
			r.told(good, 2, refused)
		}, "refused, but delivered"},
		{"a message that its client hasn't heard of", func(r *report) { r.receive(good, 2, nil) }, "delivered, and nobody knows why"},
		{"a client that broke off", func(r *report) {
			r.told(hostile, 2, cut)
			r.receive(hostile, 2, nil)
		}, ""},
		{"a good client, which has no reason to", func(r *report) {
			r.receive(good, 2, nil)
			r.told(good, 2, cut)
		}, "delivered, and nobody knows why"},
		{"an evil message", func(r *report) {
			from := "x" + evilDomain
			r.ledger.deliver(from, newReceipt(from, nil))
		}, "evil commands and messages"},
		{"an evil command", func(r *report) { r.ledger.sawEvil("MAIL") }, "evil commands and messages"},
		{"a wrong reply", func(r *report) { r.counts["replies wrong"]++ }, "replies wrong or out of order"},
		{"a lost connection", func(r *report) { r.counts["connections lost"]++ }, "connections lost"},
		{"a connection refused", func(r *report) { r.counts["connections not made"]++ }, "connections not made"},
		{"another panic", func(r *report) { r.logged["go-smtp: panic serving: index out of range"]++ }, "panics, but for go-smtp's known one"},
		{"an attack left out", func(r *report) { delete(r.counts, "sessions, hostile: smuggling") }, "kinds of attack"},
		{"few connected", func(r *report) { r.connected = r.looks * 94 }, "connected, mean and least"},
		{"nobody looked", func(r *report) { r.looks, r.connected = 0, 0 }, "connected, mean and least"},
		{"a heap that grows", func(r *report) { r.samples = rising(100<<20, 7<<20) }, "heap grows by less than"},
		{"a small heap that grows by little", func(r *report) { r.samples = rising(10<<20, 900<<10) }, ""},
		{"a small heap that grows by more", func(r *report) { r.samples = rising(10<<20, 1200<<10) }, "heap grows by less than"},
		{"a heap that shrinks", func(r *report) { r.samples = rising(100<<20, -7<<20) }, ""},
		{"a heap that nobody measured", func(r *report) { r.samples = nil }, "heap grows by less than"},
		{"a goroutine left", func(r *report) { r.after.goroutines++ }, "goroutines, before and after"},
		{"a descriptor left", func(r *report) { r.after.descriptors++ }, "descriptors, before and after"},
	}
	for _, row := range rows {
		t.Run(row.fault, func(t *testing.T) {
			r := whole()
			row.do(r)
			r.unseen, r.unexplained = r.ledger.unaccounted()
			var want []string
			if row.want != "" {
				want = []string{row.want}
			}
			got := failed(r)
			for i, name := range got {
				if strings.HasPrefix(name, row.want) && row.want != "" {
					got[i] = row.want
				}
			}
			if !reflect.DeepEqual(got, want) || r.holds() != (want == nil) {
				t.Errorf("failed: %q, want %q; %q", got, want, r.ledger.complaints)
			}
		})
	}
}

func TestATrendIsThatOfTheLine(t *testing.T) {
	var samples []usage
	for i := range 11 {
		samples = append(samples, usage{at: time.Duration(i) * time.Second, heap: 100 + 3*float64(i)})
	}
	got := trendOf(samples, func(u usage) float64 { return u.heap })
	want := trend{mean: 115, slope: 3, over: 10 * time.Second}
	got.spread = float64(int(got.spread*1e6)) / 1e6
	got.mean, got.slope = float64(int(got.mean*1e6+0.5))/1e6, float64(int(got.slope*1e6+0.5))/1e6
	if got != want || got.growth() != 30 {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
