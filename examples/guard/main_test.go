package main

import (
	"context"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
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

func TestOnceShowsWhomTheGuardLetsThrough(t *testing.T) {
	var out output
	if err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	got := out.String()
	for _, want := range []string{
		`code=554 by=hook hook=early line="EHLO spam\.example" reply="5\.5\.1 `,
		`code=550 by=hook hook=helo line="MAIL FROM:<a@spam\.example>" reply="5\.7\.1 `,
		`code=421 by=hook hook=limits line="MAIL FROM:<c@spam\.example>" reply="4\.7\.0 Too many errors`,
		`code=523 by=hook hook=tls line="AUTH PLAIN \*\*\*\*" reply="5\.7\.10 \*\*\*\*"`,
		`msg="smtp: started TLS" connection=\S+ remote=127\.0\.0\.1 protocol=TLSv1\.3`,
		`code=250 by=server line=DATA reply="2\.0\.0 `,
		`commands="ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7"`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("want %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "AGFsaWNl") {
		t.Errorf("a password in\n%s", got)
	}
}

func TestANetworkIsKeptOut(t *testing.T) {
	for ip, want := range map[string]int{"203.0.113.7": 554, "198.51.100.7": 220} {
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: guard()}, smtpproxy.Connection{RemoteIP: netip.MustParseAddr(ip)}, smtpproxy.Transaction{})
		s.Connect()
		if got := s.Reply().Code; got != want {
			t.Errorf("%s: %d, want %d", ip, got, want)
		}
	}
}

func TestItServesOthersUntilInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out output
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"-addr", "127.0.0.1:0"}, &out) }()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "until interrupted"); {
		if time.Now().After(end) {
			t.Fatal(out.String())
		}
		time.Sleep(time.Millisecond) // looks again: its sockets are outside of any bubble
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
