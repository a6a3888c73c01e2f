package main

import "testing"

func TestTheSumOfSystemCallsIsFound(t *testing.T) {
	const withErrors = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000300           3       100         7 read
 40.00    0.000200           2       100           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.000500           2       200         7 total
`
	const without = `100.00    0.000500           2       300           total
`
	for summary, want := range map[string]int{withErrors: 200, without: 300} {
		if got, err := totalCalls([]byte(summary)); got != want || err != nil {
			t.Errorf("got %d, %v; want %d", got, err, want)
		}
	}
	if _, err := totalCalls([]byte("strace: not permitted")); err == nil {
		t.Error("no error without a sum")
	}
}
