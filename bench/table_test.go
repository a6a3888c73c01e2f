package main

import (
	"math"
	"testing"
)

func TestTable(t *testing.T) {
	results := []result{
		{
			work: "NOOP", against: "bare", reference: 14.126e-6, library: 14.2e-6, unit: duration,
			figure: speed, value: sample{0.994, 0.98, 1.01}, goal: atLeast(0.98),
		},
		{
			work: "cost", against: "NOOP", reference: 14e-6, library: 130e-9, unit: duration,
			figure: share, value: sample{0.0213, 0.02, 0.03}, goal: atMost(0.02),
		},
		{
			work: "echo", against: "écho", reference: 1e-6, library: 2e-6, unit: duration,
			figure: speed, value: sample{0.5, 0.4, 0.6}, goal: remark("the floor"), calls: "9.0 to 8.0",
		},
		counted("allocations", 1, atMost(0)),
	}
	const want = `| work        | compared with | takes  | the library | ratio | quartiles      | to reach  |             | system calls |
|-------------|---------------|--------|-------------|-------|----------------|-----------|-------------|--------------|
| NOOP        | bare          | 14.1µs | 14.2µs      | 0.99  | 0.98 to 1.01   | >= 0.98   | reached     |              |
| cost        | NOOP          | 14µs   | 130ns       | 2.1 % | 2.0 % to 3.0 % | <= 2.0 %  | not reached |              |
| echo        | écho          | 1µs    | 2µs         | 0.50  | 0.40 to 0.60   | the floor |             | 9.0 to 8.0   |
| allocations |               |        | 1           | 1     |                | <= 0      | not reached |              |
`
	if got := table(results); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTheTableHasNoColumnForCallsThatNobodyCounted(t *testing.T) {
	got := table([]result{counted("allocations", 0, atMost(0))})
	const want = `| work        | compared with | takes | the library | ratio | quartiles | to reach |         |
|-------------|---------------|-------|-------------|-------|-----------|----------|---------|
| allocations |               |       | 0           | 0     |           | <= 0     | reached |
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTheTableOfWhatIsComputedHasTheRowsOfWhichThatIsKnown(t *testing.T) {
	got := cpuTable([]result{
		{work: "NOOP", against: "bare", cpu: &usages{
			reference: 9.5e-6, library: 10.1e-6, ratio: sample{0.94, 0.93, 0.95}, more: sample{0.61e-6, 0.5e-6, 0.7e-6}, goal: atMost(0.6e-6),
		}},
		{work: "message", against: "bare", cpu: &usages{
			reference: 58e-6, library: 49e-6, ratio: sample{1.18, 1.1, 1.2}, more: sample{-9e-6, -10e-6, -8e-6},
		}},
		counted("allocations", 1, atMost(0)),
	})
	const want = `| work    | compared with | computes | the library | ratio | quartiles    | more   | quartiles        | to reach  |             |
|---------|---------------|----------|-------------|-------|--------------|--------|------------------|-----------|-------------|
| NOOP    | bare          | 9.5µs    | 10.1µs      | 0.94  | 0.93 to 0.95 | +610ns | +500ns to +700ns | <= +600ns | not reached |
| message | bare          | 58µs     | 49µs        | 1.18  | 1.10 to 1.20 | -9µs   | -10µs to -8µs    |           |             |
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestVerdict(t *testing.T) {
	rows := []struct {
		goal   goal
		median float64
		want   string
	}{
		{atLeast(1), 1.2, "reached"},
		{atLeast(1), 1, "reached"},
		{atLeast(1), 0.996, "reached"}, // it is printed 1.00
		{atLeast(1), 0.99, "not reached"},
		{atMost(1), 0.9, "reached"},
		{atMost(1), 1.01, "not reached"},
		{remark("the floor"), 1, ""},
		{goal{}, 1, ""},
	}
	for _, row := range rows {
		if got := row.goal.verdict(speed, row.median); got != row.want {
			t.Errorf("%v to be %s: got %q, want %q", row.median, row.goal.wanted(speed), got, row.want)
		}
	}
}

func TestFigures(t *testing.T) {
	rows := []struct {
		figure             figure
		library, reference float64
		want               string
	}{
		{speed, 2, 3, "1.50"},
		{growth, 3, 2, "1.50"},
		{share, 1, 50, "2.0 %"},
		{surplus, 1536, 1024, "+0.50 KiB"},
		{surplus, 1024, 1536, "-0.50 KiB"},
		{difference, 1e-6, 0.25e-6, "+750ns"},
		{difference, 1e-6, 2e-6, "-1µs"},
		{difference, 1e-6, 1.0001e-6, "0s"},
		{number, 3, math.NaN(), "3"},
	}
	for _, row := range rows {
		if got := row.figure.print(row.figure.of(row.library, row.reference)); got != row.want {
			t.Errorf("got %s, want %s", got, row.want)
		}
	}
}

func TestDurationsHaveThreeDigits(t *testing.T) {
	rows := map[float64]string{
		83e-9:        "83ns",
		1234e-9:      "1.23µs",
		12345e-9:     "12.3µs",
		0.0481234:    "48.1ms",
		1.2345:       "1.23s",
		0.0000009996: "1µs",
	}
	for seconds, want := range rows {
		if got := duration(seconds); got != want {
			t.Errorf("%v: got %s, want %s", seconds, got, want)
		}
	}
}

func TestThousands(t *testing.T) {
	rows := map[int]string{1: "1", 999: "999", 1000: "1,000", 1_000_000: "1,000,000"}
	for n, want := range rows {
		if got := thousands(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
