// Command bench does the same work on a go-smtp server and on one behind a hook
// that passes everything, side by side in one run, and prints how they compare.
// It needs nothing but the machine it runs on, and talks to 127.0.0.1 only.
//
//	go -C bench run .
//
// The table is also written to out/results.txt, and a picture of it to
// out/results.svg. docs/performance.md tells how to read them.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// options tell how much is measured.
type options struct {
	rounds  int           // of each comparison
	slice   time.Duration // of a round, for each contender
	busy    []int         // connections at the same time
	idle    int           // connections
	waiting []int         // connections whose hooks wait
	bulk    int           // MiB of a large message
	long    int           // commands of a long connection
	large   int           // recipients of a large transaction
	clients []int         // that limits know
	counts  [2]int        // messages in the two runs that system calls are counted in
	log     io.Writer     // progress and notes
}

func thorough() options {
	return options{
		rounds:  21,
		slice:   100 * time.Millisecond,
		busy:    []int{10, 1_000, 10_000},
		idle:    10_000,
		waiting: []int{10, 1_000, 10_000},
		bulk:    10,
		long:    1_000_000,
		large:   10_000,
		clients: []int{1_000, 1_000_000},
		counts:  [2]int{50, 250},
		log:     os.Stderr,
	}
}

// quick is enough to see that everything works. Its figures are noise.
func quick() options {
	return options{
		rounds:  3,
		slice:   5 * time.Millisecond,
		busy:    []int{1, 10, 100},
		idle:    100,
		waiting: []int{20},
		bulk:    1,
		long:    10_000,
		large:   1_000,
		clients: []int{1_000},
		counts:  [2]int{5, 15},
		log:     os.Stderr,
	}
}

func main() {
	serveIfAsked()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	rounds := flag.Int("rounds", 0, "rounds of each comparison (default 21, with -quick 3)")
	only := flag.String("only", "", "regular expression: do only the work whose name it matches")
	small := flag.Bool("quick", false, "do everything, but so little of it that the figures are noise")
	out := flag.String("out", "out", "directory for results.txt and results.svg")
	profile := flag.String("profile", "", "directory for CPU profiles of the server processes")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	o := thorough()
	if *small {
		o = quick()
	}
	if *rounds > 0 {
		o.rounds = *rounds
	}

	if *profile != "" {
		if profiles.dir, err = filepath.Abs(*profile); err != nil {
			return err
		}
		if err := os.MkdirAll(profiles.dir, 0o755); err != nil {
			return err
		}
	}

	start := time.Now()
	results, err := do(workList(&o), match, &o)
	if err != nil {
		return err
	}
	text := about(&o, time.Since(start)) + "\n" + table(results)
	if computed := cpuTable(results); computed != cpuTable(nil) {
		text += "\n" + computed
	}
	fmt.Print(text)
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(*out, "results.txt"), []byte(text), 0o644); err != nil {
		return err
	}
	return plotRatios(filepath.Join(*out, "results.svg"), results)
}

// do does the work that is asked for, a piece at a time.
func do(list []work, match *regexp.Regexp, o *options) ([]result, error) {
	var all []result
	for _, w := range list {
		if !match.MatchString(w.name) {
			continue
		}
		fmt.Fprintf(o.log, "%s\n", w.name)
		results, err := w.do(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		all = append(all, results...)
	}
	return all, nil
}
