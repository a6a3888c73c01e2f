package main

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/seed3262c777/smtpproxy/bench/internal/rusage"
)

// runner does one kind of work again and again.
type runner struct {
	run   func(n int) (spent, error) // n times, and what that took
	least int                        // n is a multiple of it
	close func()
}

// spent is the time that something took: by the clock, and of computing in the
// process that is measured, which is the server's where there is one.
type spent struct{ clock, cpu time.Duration }

// meter returns the time that a process has computed so far.
type meter func() (time.Duration, error)

// own is the meter of this process.
func own() (time.Duration, error) { return rusage.CPUTime(), nil }

// spend returns what f takes.
func (m meter) spend(f func() error) (spent, error) {
	before, err := m()
	if err != nil {
		return spent{}, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return spent{}, err
	}
	clock := time.Since(start)
	after, err := m()
	return spent{clock, after - before}, err
}

// runner makes one of what is done n times.
func (m meter) runner(f func(n int) error, close func()) runner {
	return runner{least: 1, close: close, run: func(n int) (spent, error) {
		return m.spend(func() error { return f(n) })
	}}
}

// timed makes a runner of what this process does n times.
func timed(f func(n int) error, close func()) runner { return meter(own).runner(f, close) }

// contender is somebody who does the work.
type contender struct {
	name string
	open func() (runner, error)
}

// measure lets each contender do its work in each round, for about o.slice, and
// returns the seconds that it took to do it once, for each contender.
func measure(o *options, contenders ...contender) ([]series, error) {
	runners := make([]runner, len(contenders))
	counts := make([]int, len(contenders))
	for i, c := range contenders {
		r, err := c.open()
		if err != nil {
			return nil, err
		}
		defer r.close()
		runners[i] = r
		if counts[i], err = calibrate(r, o.slice); err != nil {
			return nil, err
		}
	}
	times := make([]series, len(contenders))
	order := rand.New(rand.NewPCG(1, 2))
	for range o.rounds {
		// Nobody always comes behind the same one: what that has left for the
		// machine to do costs some percent.
		for _, i := range order.Perm(len(runners)) {
			runtime.GC() // nobody pays for another's garbage
			time.Sleep(o.slice / 50)
			took, err := runners[i].run(counts[i])
			if err != nil {
				return nil, err
			}
			times[i].add(took, counts[i])
		}
	}
	return times, nil
}

// series are the seconds that something took once, round by round.
type series struct{ clock, cpu []float64 }

// add adds a round in which it was done n times.
func (s *series) add(took spent, n int) {
	s.clock = append(s.clock, took.clock.Seconds()/float64(n))
	s.cpu = append(s.cpu, took.cpu.Seconds()/float64(n))
}

// calibrate finds out how often the work is done in the given time. It also
// warms up.
func calibrate(r runner, slice time.Duration) (int, error) {
	for n := r.least; ; {
		took, err := r.run(n)
		if err != nil {
			return 0, err
		}
		if took.clock >= slice/2 {
			return n, nil
		}
		more := int(float64(n) * min(100, slice.Seconds()/max(took.clock.Seconds(), 1e-9)))
		n = max(n, more/r.least*r.least) + r.least
	}
}

// sample is what a series of figures comes to.
type sample struct {
	median, low, high float64 // low and high are the quartiles
}

func sampleOf(figures []float64) sample {
	sorted := slices.Sorted(slices.Values(figures))
	return sample{quantile(sorted, 0.5), quantile(sorted, 0.25), quantile(sorted, 0.75)}
}

// quantile interpolates between the two nearest figures.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// pairwise compares two series round by round.
func pairwise(library, reference []float64, f func(library, reference float64) float64) sample {
	var figures []float64
	for i := range min(len(library), len(reference)) {
		figures = append(figures, f(library[i], reference[i]))
	}
	return sampleOf(figures)
}
