package main

import (
	"fmt"
	"math"

	"github.com/seed3262c777/smtpproxy/bench/internal/rusage"
)

// busyWork compares more and more connections that are all busy at the same
// time.
func busyWork(o *options, k kind, name string) []work {
	var list []work
	first := math.NaN() // the ratio with the fewest connections
	for _, n := range o.busy {
		n = within(o, n)
		d := dialogue{conns: n, turns: 5, steps: []exchange{lines(1, "NOOP")}}
		list = append(list, work{
			name:       "busy connections, lock-step NOOP, " + name + ": " + thousands(n),
			library:    d.with(k),
			references: []reference{{contender: d.with(bare), figure: speed, goal: goal{}}},
			more: func(_ *options, results []result) ([]result, error) {
				// Flat means that it doesn't get worse from the first on.
				if math.IsNaN(first) {
					first = results[0].value.median
				} else {
					results[0].goal = atLeast(first / 1.1)
				}
				return results, nil
			},
		})
	}
	return list
}

// within returns n, or the number of connections that the limit of open files
// leaves room for in one process.
func within(o *options, n int) int {
	const spare = 100
	if most := rusage.OpenFiles() - spare; n > most {
		fmt.Fprintf(o.log, "%s connections only: no more files may be open\n", thousands(most))
		return most
	}
	return n
}
