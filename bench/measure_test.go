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
	r := runner{least: 16, run: func(n int) (spent, error) {
		calls = append(calls, n)
		return spent{clock: time.Duration(n) * time.Microsecond}, nil
	}}
	n, err := calibrate(r, 10*time.Millisecond)
	if err != nil || n%16 != 0 || n < 5000 || n > 11000 {
		t.Error(n, err, calls)
	}
}

func TestCalibrationEndsWithAnError(t *testing.T) {
	broken := errors.New("broken")
	r := runner{least: 1, run: func(int) (spent, error) { return spent{}, broken }}
	if _, err := calibrate(r, time.Second); err != broken {
		t.Error(err)
	}
}

func TestEachContenderWorksInEachRound(t *testing.T) {
	o := options{rounds: 20, slice: time.Nanosecond}
	var order string
	of := func(name string) contender {
		return contender{name, func() (runner, error) {
			return runner{least: 1, close: func() { order += "." }, run: func(n int) (spent, error) {
				order += name
				return spent{time.Duration(n) * time.Second, time.Duration(n) * time.Minute}, nil
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
		if len(series.clock) != 20 || sampleOf(series.clock) != (sample{1, 1, 1}) || sampleOf(series.cpu) != (sample{60, 60, 60}) {
			t.Error(series)
		}
	}
}

func TestWhatIsSpentIsTheProcessesTimeWhileItWorks(t *testing.T) {
	at := time.Hour
	m := meter(func() (time.Duration, error) { return at, nil })
	took, err := m.spend(func() error { at += time.Minute; return nil })
	if err != nil || took.cpu != time.Minute || took.clock > time.Minute {
		t.Error(took, err)
	}
	broken := errors.New("broken")
	if _, err := m.spend(func() error { return broken }); err != broken {
		t.Error(err)
	}
	if _, err := meter(func() (time.Duration, error) { return 0, broken }).spend(func() error { return nil }); err != broken {
		t.Error(err)
	}
}

// A server process that computes is found to, and one that waits isn't.
func TestAServerProcessTellsWhatItHasComputed(t *testing.T) {
	p, err := startProcess(bare, plain)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	took, err := meter(p.cpu).spend(func() error { return send(&p.server, 300, lockStep(small)) })
	if err != nil || took.cpu < took.clock/100 || took.cpu > 2*took.clock {
		t.Errorf("300 messages took %v of the server's %v, %v", took.cpu, took.clock, err)
	}
}
