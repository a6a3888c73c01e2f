package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"
)

// usage is what this process uses.
type usage struct {
	at          time.Duration // since the start
	heap        float64       // octets that live, after a collection
	stacks      float64
	resident    float64 // NaN if not known
	goroutines  int
	descriptors int // -1 if not known
}

// measure collects the garbage first: of what is left, the clients of the moment
// need a part, and the rest would be a leak.
func measure(start time.Time) usage {
	// The first collection moves what is pooled aside, the next frees it.
	for range 3 {
		runtime.GC()
	}
	// Not runtime.MemStats: it counts what became garbage meanwhile, too.
	figures := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(figures)
	return usage{
		at:          time.Since(start),
		heap:        float64(figures[0].Value.Uint64()),
		stacks:      float64(figures[1].Value.Uint64()),
		resident:    resident(),
		goroutines:  runtime.NumGoroutine(),
		descriptors: descriptors(),
	}
}

// resident returns the resident set, where there is a /proc.
func resident() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if f := strings.Fields(string(text)); err == nil && len(f) > 1 {
		if pages, err := strconv.ParseFloat(f[1], 64); err == nil {
			return pages * float64(os.Getpagesize())
		}
	}
	return math.NaN()
}

// descriptors counts the open ones, where there is a /proc.
func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries) - 1 // without the one that reads the directory
}

// sampler measures from time to time.
type sampler struct {
	mu      sync.Mutex
	samples []usage
	stall   time.Duration // the longest that a goroutine had to wait for its turn
	stop    chan struct{}
	done    chan struct{}
}

func startSampler(start time.Time, every time.Duration, total time.Duration) *sampler {
	s := &sampler{
		samples: make([]usage, 0, int(total/every)+100),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	ticking := make(chan struct{})
	go func() {
		defer close(ticking)
		const tick = 50 * time.Millisecond
		for begin := time.Now(); !wait(s.stop, tick); begin = time.Now() {
			s.stall = max(s.stall, time.Since(begin)-tick)
		}
	}()
	go func() {
		defer close(s.done)
		defer func() { <-ticking }()
		for !wait(s.stop, every) {
			u := measure(start)
			s.mu.Lock()
			s.samples = append(s.samples, u)
			s.mu.Unlock()
		}
	}()
	return s
}

// end returns all samples.
func (s *sampler) end() []usage {
	close(s.stop)
	<-s.done
	return s.samples
}

// since returns the samples from a time on.
func since(samples []usage, at time.Duration) []usage {
	for i, u := range samples {
		if u.at >= at {
			return samples[i:]
		}
	}
	return nil
}

// writeSamples writes samples as a table of comma-separated values.
func writeSamples(w io.Writer, samples []usage) error {
	b := []byte("seconds,heap,stacks,resident,goroutines,descriptors\n")
	for _, u := range samples {
		b = fmt.Appendf(b, "%.2f,%.0f,%.0f,%.0f,%d,%d\n", u.at.Seconds(), u.heap, u.stacks, u.resident, u.goroutines, u.descriptors)
	}
	_, err := w.Write(b)
	return err
}

// trend is the line that fits a series best, by least squares.
type trend struct {
	mean   float64
	slope  float64       // per second
	spread float64       // the slope's standard error
	over   time.Duration // from the first sample to the last
}

func trendOf(samples []usage, figure func(usage) float64) trend {
	n := float64(len(samples))
	if n < 3 {
		return trend{mean: math.NaN(), slope: math.NaN(), spread: math.NaN()}
	}
	var x, y float64
	for _, u := range samples {
		x, y = x+u.at.Seconds()/n, y+figure(u)/n
	}
	var xx, xy float64
	for _, u := range samples {
		dx := u.at.Seconds() - x
		xx, xy = xx+dx*dx, xy+dx*(figure(u)-y)
	}
	t := trend{mean: y, slope: xy / xx, over: samples[len(samples)-1].at - samples[0].at}
	var rest float64
	for _, u := range samples {
		d := figure(u) - y - t.slope*(u.at.Seconds()-x)
		rest += d * d
	}
	t.spread = math.Sqrt(rest / (n - 2) / xx)
	return t
}

// growth is what the line rises by, from its first sample to its last.
func (t trend) growth() float64 { return t.slope * t.over.Seconds() }

// tolerance is the share of the heap that it may seem to grow by, since by chance
// more is under way at the end than at the start: with thousands of clients a
// hundredth or two.
const tolerance = 0.05

// allowed is the most that the figure may grow and still be called flat; least
// is for heaps so small that their share is nothing.
func (t trend) allowed(least float64) float64 { return max(tolerance*t.mean, least) }

// flat tells whether the figure doesn't grow.
func (t trend) flat(least float64) bool { return t.growth() < t.allowed(least) }
