package main

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"
)

// about tells what the figures in the table are.
func about(o *options, took time.Duration) string {
	return fmt.Sprintf("%s, %s/%s, GOMAXPROCS %d, %d rounds, %s\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), o.rounds, took.Round(time.Second))
}

// table renders the results as text that is also Markdown.
func table(results []result) string {
	header := []string{"work", "compared with", "takes", "the library", "ratio", "quartiles", "to reach", ""}
	withCalls := false
	for _, r := range results {
		withCalls = withCalls || r.calls != ""
	}
	if withCalls {
		header = append(header, "system calls")
	}
	rows := [][]string{header, nil}
	for _, r := range results {
		row := []string{
			r.work, r.against, "", r.unit(r.library),
			r.figure.print(r.value.median),
			r.figure.print(r.value.low) + " to " + r.figure.print(r.value.high),
			r.goal.wanted(r.figure), r.goal.verdict(r.figure, r.value.median),
		}
		if !math.IsNaN(r.reference) {
			row[2] = r.unit(r.reference)
		}
		if r.value.low == r.value.high {
			row[5] = ""
		}
		if withCalls {
			row = append(row, r.calls)
		}
		rows = append(rows, row)
	}
	return align(rows)
}

// cpuTable renders what the processes have computed, where that was measured.
func cpuTable(results []result) string {
	rows := [][]string{{"work", "compared with", "computes", "the library", "ratio", "quartiles", "more", "quartiles", "to reach", ""}, nil}
	for _, r := range results {
		if r.cpu == nil {
			continue
		}
		c := r.cpu
		rows = append(rows, []string{
			r.work, r.against, duration(c.reference), duration(c.library),
			ratio(c.ratio.median), ratio(c.ratio.low) + " to " + ratio(c.ratio.high),
			difference.print(c.more.median), difference.print(c.more.low) + " to " + difference.print(c.more.high),
			c.goal.wanted(difference), c.goal.verdict(difference, c.more.median),
		})
	}
	return align(rows)
}

// align renders rows in columns of equal width. A nil row is a rule.
func align(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, width := range widths {
			if row == nil {
				b.WriteString("|" + strings.Repeat("-", width+2))
				continue
			}
			b.WriteString("| " + row[i] + strings.Repeat(" ", width-utf8.RuneCountInString(row[i])+1))
		}
		b.WriteString("|\n")
	}
	return b.String()
}
