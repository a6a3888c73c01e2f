package main

import "fmt"

// idleWork compares the memory of connections on which nothing happens, with a server of
// the given kind, which may take so many octets more at most. Each round has server processes of its own.
func idleWork(o *options, k kind, most float64) work {
	n := within(o, o.idle)
	name := fmt.Sprintf("%s idle connections, memory of each", thousands(n))
	if k != hooked {
		name += ", " + string(k)
	}
	return work{name: name, more: func(o *options, _ []result) ([]result, error) {
		var library, reference []float64
		for range o.rounds {
			without, err := idleMemory(bare, n)
			if err != nil {
				return nil, err
			}
			with, err := idleMemory(k, n)
			if err != nil {
				return nil, err
			}
			reference, library = append(reference, without), append(library, with)
		}
		return []result{{
			work:      name,
			against:   string(bare),
			reference: sampleOf(reference).median,
			library:   sampleOf(library).median,
			unit:      kibibytes,
			figure:    surplus,
			value:     pairwise(library, reference, surplus.of),
			goal:      atMost(most),
		}}, nil
	}}
}

// idleMemory returns the octets of heap and stack that a server has for each of
// n connections that have said EHLO.
func idleMemory(k kind, n int) (float64, error) {
	p, err := startProcess(k, plain)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	before, err := p.ask(memoryRequest)
	if err != nil {
		return 0, err
	}
	clients, err := dialogue{conns: n}.connect(&p.server)
	defer clients.abort()
	if err != nil {
		return 0, err
	}
	after, err := p.ask(memoryRequest)
	return (after - before) / float64(n), err
}
