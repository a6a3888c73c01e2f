package main

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

// runner does one kind of work again and again.
type runner struct {
	run   func(n int) (time.Duration, error) // n times, and how long that took
	least int                                // n is a multiple of it
	close func()
}

// contender is somebody who does the work.
type contender struct {
	name string
	open func() (runner, error)
}

// measure lets each contender do its work in each round, for about o.slice, and
// returns the seconds that it took to do it once: a slice for each contender,
// with a figure for each round.
func measure(o *options, contenders ...contender) ([][]float64, error) {
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
	times := make([][]float64, len(contenders))
	order := rand.New(rand.NewPCG(1, 2))
	for range o.rounds {
		// Nobody always comes behind the same one: what that has left for the
		// machine to do costs some percent.
		for _, i := range order.Perm(len(runners)) {
			runtime.GC() // nobody pays for another's garbage
			time.Sleep(o.slice / 50)
			d, err := runners[i].run(counts[i])
			if err != nil {
				return nil, err
			}
			times[i] = append(times[i], d.Seconds()/float64(counts[i]))
		}
	}
	return times, nil
}

// calibrate finds out how often the work is done in the given time. It also
// warms up.
func calibrate(r runner, slice time.Duration) (int, error) {
	for n := r.least; ; {
		d, err := r.run(n)
		if err != nil {
			return 0, err
		}
		if d >= slice/2 {
			return n, nil
		}
		more := int(float64(n) * min(100, slice.Seconds()/max(d.Seconds(), 1e-9)))
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
