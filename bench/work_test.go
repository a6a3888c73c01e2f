package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	os.Setenv("GORACE", "atexit_sleep_ms=0") // for the server processes
	serveIfAsked()
	os.Exit(m.Run())
}

func TestAllWorkCanBeDone(t *testing.T) {
	o := quick()
	o.rounds, o.slice = 1, 0
	o.busy, o.idle, o.waiting, o.long, o.large = []int{1, 4}, 10, []int{2}, 10, 10
	var log bytes.Buffer
	o.log = &log
	list := workList(&o)
	results, err := do(list, regexp.MustCompile(""), &o)
	if err != nil {
		t.Fatal(err, log.String())
	}
	text := table(results)
	for _, w := range list {
		if !strings.Contains(text, "| "+w.name+" ") {
			t.Errorf("no line for %s in\n%s", w.name, text)
		}
	}
	file := t.TempDir() + "/results.svg"
	if err := plotRatios(file, results); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(svg, []byte("<svg")) {
		t.Errorf("%v, %.100s", err, svg)
	}
}

func TestNothingMatchesNothing(t *testing.T) {
	o := quick()
	o.log = io.Discard
	results, err := do(workList(&o), regexp.MustCompile("no such work"), &o)
	if len(results) > 0 || err != nil {
		t.Error(results, err)
	}
}

// BenchmarkWork does the work of the table for those who compare versions of the library: its
// output is for benchstat. What a server has computed for it is in cpu-ns/op.
//
//	go test -C bench -run '^$' -bench 'Work/lock-step_NOOP,_one/hooked' -count 10
func BenchmarkWork(b *testing.B) {
	o := thorough()
	o.log = io.Discard
	for _, w := range workList(&o) {
		contenders := []contender{w.library}
		for _, ref := range w.references {
			contenders = append(contenders, ref.contender)
		}
		for _, c := range contenders {
			if c.open == nil {
				continue // it takes memory, no time
			}
			b.Run(fmt.Sprintf("%s/%s", w.name, c.name), func(b *testing.B) {
				r, err := c.open()
				if err != nil {
					b.Fatal(err)
				}
				defer r.close()
				n := (b.N + r.least - 1) / r.least * r.least
				took, err := r.run(n)
				if err != nil {
					b.Fatal(err)
				}
				// Not what it takes to start a server.
				b.ReportMetric(float64(took.clock.Nanoseconds())/float64(n), "ns/op")
				b.ReportMetric(float64(took.cpu.Nanoseconds())/float64(n), "cpu-ns/op")
			})
		}
	}
}
