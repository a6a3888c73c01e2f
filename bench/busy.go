package main

import (
	"fmt"
	"math"
)

// busyWork compares more and more connections that are all busy at the same
// time. The servers are processes of their own, so that open files don't run out.
func busyWork(o *options) []work {
	var list []work
	first := math.NaN() // the ratio with the fewest connections
	for _, n := range o.busy {
		n = within(o, n)
		d := dialogue{conns: n, steps: []exchange{lines(1, "NOOP")}}
		list = append(list, work{
			name:       "busy connections, lock-step NOOP: " + thousands(n),
			library:    d.withProcess(hooked),
			references: []reference{{d.withProcess(bare), speed, goal{}}},
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

// withProcess is like with, but the server is a process of its own.
func (d dialogue) withProcess(k kind) contender {
	return contender{string(k), func() (runner, error) {
		p, err := startProcess(k)
		if err != nil {
			return runner{}, err
		}
		r := d.runner(&p.server)
		r.least *= 5 // turns for each connection
		return r, nil
	}}
}

// within returns n, or the number of connections that the limit of open files
// leaves room for in one process.
func within(o *options, n int) int {
	const spare = 100
	if most := openFiles() - spare; n > most {
		fmt.Fprintf(o.log, "%s connections only: no more files may be open\n", thousands(most))
		return most
	}
	return n
}
