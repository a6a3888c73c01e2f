package main

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSampleHasMedianAndQuartiles(t *testing.T) {
	rows := []struct {
		figures []float64
		want    sample
	}{
		{[]float64{7}, sample{7, 7, 7}},
		{[]float64{3, 1}, sample{2, 1.5, 2.5}},
		{[]float64{5, 1, 3}, sample{3, 2, 4}},
		{[]float64{9, 1, 5, 3, 7}, sample{5, 3, 7}},
		{[]float64{1, 1, 1, 100}, sample{1, 1, 25.75}},
	}
	for _, row := range rows {
		if got := sampleOf(row.figures); got != row.want {
			t.Errorf("%v: got %v, want %v", row.figures, got, row.want)
		}
	}
	if got := sampleOf(nil).median; !math.IsNaN(got) {
		t.Errorf("the median of nothing is %v", got)
	}
}

func TestASampleLeavesItsFiguresInOrder(t *testing.T) {
	figures := []float64{3, 1, 2}
	sampleOf(figures)
	if figures[0] != 3 || figures[1] != 1 {
		t.Error(figures)
	}
}

// A machine that gets slower from round to round must not change a ratio.
func TestRoundsAreComparedInPairs(t *testing.T) {
	library, reference := []float64{1, 2, 4, 8}, []float64{2, 4, 8, 16}
	if got := pairwise(library, reference, speed.of); got != (sample{2, 2, 2}) {
		t.Error(got)
	}
}

func TestCalibrationFillsTheSliceWithAMultiple(t *testing.T) {
	var calls []int
	r := runner{least: 16, run: func(n int) (time.Duration, error) {
		calls = append(calls, n)
		return time.Duration(n) * time.Microsecond, nil
	}}
	n, err := calibrate(r, 10*time.Millisecond)
	if err != nil || n%16 != 0 || n < 5000 || n > 11000 {
		t.Error(n, err, calls)
	}
}

func TestCalibrationEndsWithAnError(t *testing.T) {
	broken := errors.New("broken")
	r := runner{least: 1, run: func(int) (time.Duration, error) { return 0, broken }}
	if _, err := calibrate(r, time.Second); err != broken {
		t.Error(err)
	}
}

func TestEachContenderWorksInEachRound(t *testing.T) {
	o := options{rounds: 20, slice: time.Nanosecond}
	var order string
	of := func(name string) contender {
		return contender{name, func() (runner, error) {
			return runner{least: 1, close: func() { order += "." }, run: func(n int) (time.Duration, error) {
				order += name
				return time.Duration(n) * time.Second, nil
			}}, nil
		}}
	}
	times, err := measure(&o, of("a"), of("b"))
	if err != nil {
		t.Fatal(err)
	}
	rounds, closed := strings.CutSuffix(strings.TrimPrefix(order, "ab"), "..") // calibrated before
	rest := strings.NewReplacer("ab", "1", "ba", "2").Replace(rounds)
	if !closed || len(rest) != 20 || !strings.Contains(rest, "1") || !strings.Contains(rest, "2") {
		t.Errorf("the order is %s", order)
	}
	for _, series := range times {
		if len(series) != 20 || sampleOf(series) != (sample{1, 1, 1}) {
			t.Error(series)
		}
	}
}
