package main

import (
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/bench/internal/rusage"
)

func TestMain(m *testing.M) {
	os.Setenv("GORACE", "atexit_sleep_ms=0") // for the process of the clients
	clientsIfAsked()
	os.Exit(m.Run())
}

// failed returns the names of the checks that don't hold.
func failed(r *report) (names []string) {
	for _, c := range r.checks() {
		if !c.holds {
			names = append(names, c.name)
		}
	}
	return names
}

func TestAShortRunHolds(t *testing.T) {
	o := options{seed: 1, tears: tears, log: io.Discard}
	quick(&o)
	r, err := run(&o)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	r.print(&text)
	if !r.holds() {
		t.Errorf("%q\n%s", failed(r), text.String())
	}
	for _, c := range r.checks() {
		if !strings.Contains(text.String(), "\n"+c.name) {
			t.Errorf("%q isn't in the report", c.name)
		}
	}
	if !tears {
		t.Log("without clients that break off messages in chunks: go-smtp has data races there")
	}
}

// One octet of one message, on its way from go-smtp to the ledger.
func TestAnOctetThatDiffersIsNoticed(t *testing.T) {
	o := options{seed: 1, tears: tears, log: io.Discard}
	quick(&o)
	o.conns, o.time = 20, time.Second
	var once sync.Once
	o.tamper = func(content []byte) []byte {
		if len(content) > 500 {
			once.Do(func() { content[400] ^= 1 })
		}
		return content
	}
	r, err := run(&o)
	if err != nil {
		t.Fatal(err)
	}
	if r.holds() || r.ledger.mismatched != 1 {
		t.Errorf("%d messages differ", r.ledger.mismatched)
	}
}

func TestALimitThatIsTooLowIsTold(t *testing.T) {
	o := options{conns: rusage.OpenFiles() + 1, log: io.Discard}
	if rusage.OpenFiles() > 1<<30 {
		// As on Windows: run has nothing to refuse there.
		t.Skip("no limit of open files on this system, so none is too low") // Windows has none
	}
	if _, err := run(&o); err == nil || !strings.Contains(err.Error(), "ulimit -n") {
		t.Error(err)
	}
}
