package main

import (
	"fmt"
	"math"
	"time"
)

// result is one line of the table.
type result struct {
	work      string
	against   string  // what the library is compared with
	reference float64 // the median of that; NaN if there is nothing to show
	library   float64 // the median of the library's
	unit      func(float64) string
	figure    figure
	value     sample // of the figure, round by round
	goal      goal
	calls     string // system calls, without and with the hook
	cpu       *usages
}

// usages are what the processes that were compared have computed.
type usages struct {
	reference, library float64 // medians, in seconds for one piece of work
	ratio              sample  // reference to library, round by round
	more               sample  // library less reference, in seconds
	goal               goal    // of more
}

// figure is what two measurements are brought down to.
type figure struct {
	of    func(library, reference float64) float64
	print func(float64) string
}

var (
	// speed is how many times as fast the library is.
	speed = figure{
		of:    func(library, reference float64) float64 { return reference / library },
		print: ratio,
	}
	// growth is how many times as long the library takes.
	growth = figure{
		of:    func(library, reference float64) float64 { return library / reference },
		print: ratio,
	}
	// share is the library's part of the reference.
	share = figure{
		of:    func(library, reference float64) float64 { return library / reference },
		print: percent,
	}
	// surplus is what the library takes more.
	surplus = figure{
		of:    func(library, reference float64) float64 { return library - reference },
		print: func(v float64) string { return fmt.Sprintf("%+.2f KiB", v/1024) },
	}
	// difference is how much longer the library takes, in seconds.
	difference = figure{of: surplus.of, print: signedDuration}
	// number is a count that needs no reference.
	number = figure{
		of:    func(library, _ float64) float64 { return library },
		print: count,
	}
)

func ratio(v float64) string   { return fmt.Sprintf("%.2f", v) }
func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
func count(v float64) string   { return fmt.Sprintf("%.0f", v) }
func kibibytes(v float64) string {
	return fmt.Sprintf("%.2f KiB", v/1024)
}

// duration prints seconds with three digits.
func duration(v float64) string {
	d := time.Duration(math.Round(v * float64(time.Second)))
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// signedDuration prints more or fewer seconds.
func signedDuration(v float64) string {
	switch d := duration(math.Abs(v)); {
	case d == "0s":
		return d
	case v < 0:
		return "-" + d
	default:
		return "+" + d
	}
}

// goal is what a figure is wanted to be. The zero goal is none.
type goal struct {
	limit float64
	sense int    // 1: at least limit; -1: at most
	text  string // in place of the limit
}

func atLeast(limit float64) goal { return goal{limit: limit, sense: 1} }
func atMost(limit float64) goal  { return goal{limit: limit, sense: -1} }
func remark(text string) goal    { return goal{text: text} }

// wanted tells what is to be reached.
func (g goal) wanted(f figure) string {
	switch {
	case g.text != "":
		return g.text
	case g.sense > 0:
		return ">= " + f.print(g.limit)
	case g.sense < 0:
		return "<= " + f.print(g.limit)
	}
	return ""
}

// verdict tells whether it is reached. It looks at the figure as it is printed, no
// closer.
func (g goal) verdict(f figure, median float64) string {
	if g.sense == 0 {
		return ""
	}
	if float64(g.sense)*(median-g.limit) >= 0 || f.print(median) == f.print(g.limit) {
		return "reached"
	}
	return "not reached"
}

// compare measures the library against references, all in the same rounds.
func compare(o *options, name string, library contender, references ...reference) ([]result, error) {
	contenders := []contender{library}
	for _, ref := range references {
		contenders = append(contenders, ref.contender)
	}
	times, err := measure(o, contenders...)
	if err != nil {
		return nil, err
	}
	var results []result
	for i, ref := range references {
		results = append(results, result{
			work:      name,
			against:   ref.name,
			reference: sampleOf(times[i+1].clock).median,
			library:   sampleOf(times[0].clock).median,
			unit:      duration,
			figure:    ref.figure,
			value:     pairwise(times[0].clock, times[i+1].clock, ref.figure.of),
			goal:      ref.goal,
			cpu: &usages{
				reference: sampleOf(times[i+1].cpu).median,
				library:   sampleOf(times[0].cpu).median,
				ratio:     pairwise(times[0].cpu, times[i+1].cpu, speed.of),
				more:      pairwise(times[0].cpu, times[i+1].cpu, difference.of),
				goal:      ref.more,
			},
		})
	}
	return results, nil
}

// reference is a contender that the library is compared with.
type reference struct {
	contender
	figure figure
	goal   goal
	more   goal // of the seconds that are computed more
}

// counted is a line for a count.
func counted(name string, n float64, g goal) result {
	return result{
		work:      name,
		reference: math.NaN(),
		library:   n,
		unit:      count,
		figure:    number,
		value:     sample{n, n, n},
		goal:      g,
	}
}
