package main

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// output is written by several goroutines.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestOnceShowsHowMailsFare(t *testing.T) {
	var out output
	if err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0", "-api", "127.0.0.1:0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	_, got, _ := strings.Cut(out.String(), "\n")
	const full = `{"rules": [{"at": "RCPT", "recipient": "@full", "code": 452, "enhanced": "4.2.2", "text": "Mailbox full"}]}`
	want := `test: {}
sink: a message to bob@example.org
test: mail to bob@example.org: sent
test: ` + full + `
test: mail to bob@full.example: 452 4.2.2 Mailbox full
test: ` + full + `
sink: a message to bob@example.org
test: mail to bob@example.org: sent
test: {"rules": [{"at": "connect", "times": 1, "code": 421, "enhanced": "4.7.0", "text": "Come back later"}]}
test: mail to bob@example.org: 421 4.7.0 Come back later
test: {"rules": [{"at": "message", "delay": "100ms", "drop": true}]}
sink: a message to bob@example.org
test: mail to bob@example.org: EOF: the connection has broken off
test: {}
test: mail to spam@refused.example: 554 5.7.1 Looks like spam
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestItServesOthersUntilInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out output
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"-addr", "127.0.0.1:0", "-api", "127.0.0.1:0"}, &out) }()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "until interrupted"); {
		if time.Now().After(end) {
			t.Fatal(out.String())
		}
		time.Sleep(time.Millisecond) // looks again: its sockets are outside of any bubble
	}
	words := strings.Fields(out.String())
	if err := put(ctx, "http://"+words[6], `{"rules": [{"at": "connect", "code": 421}]}`); err != nil {
		t.Error(err)
	}
	if err := put(ctx, "http://"+words[6], `{"rules": [{"at": "nowhere else"}]}`); err == nil || !strings.Contains(err.Error(), "400") {
		t.Error(err)
	}
	c, err := net.Dial("tcp", words[2])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "421 ") {
		t.Errorf("%q, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAnAddressInUseIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for flag, args := range map[string][]string{"-addr": {"-addr", taken}, "-api": {"-addr", "127.0.0.1:0", "-api", taken}} {
		if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
