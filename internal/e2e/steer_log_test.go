package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file writes the log of a session of a client that many people test servers with.

// sessionLog is the observer of a log: a line for each command, with who has replied what, and
// how long that took.
func sessionLog(log *bytes.Buffer) smtpproxy.Observer {
	return smtpproxy.Observer{
		Exchanged: func(_ *hookContext, x smtpproxy.Exchange) {
			fmt.Fprintf(log, "%v | %v %s | %q | %v\n", x.Command, x.By, x.Hook, x.Reply.String(), x.Hooked+x.Served)
		},
		Disconnected: func(_ *hookContext, _ connection, e end) {
			fmt.Fprintf(log, "%v by the %v | %d commands, %d messages | %v\n", e.Reason, e.By, e.Commands, e.Messages, e.Duration)
		},
	}
}

// durations are what differs each time.
var durations = regexp.MustCompile(`(?m)[0-9.]+(ns|µs|ms|s)$`)

func TestTheLogOfASessionWithSwaksTellsAllAndNoPassword(t *testing.T) {
	swaks, err := exec.LookPath("swaks")
	if err != nil {
		t.Skip("swaks isn't installed: internal/compat/clients.sh installs it, and runs this test")
	}
	const golden = ` | server  | "220 servertest.example ESMTP Service Ready" | DURATION
EHLO client.example | server  | "250-Hello client.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-AUTH PLAIN\r\n250 SIZE" | DURATION
AUTH PLAIN **** | server  | "235 2.0.0 Authentication succeeded" | DURATION
MAIL FROM:<alice@example.org> | server  | "250 2.0.0 Roger, accepting mail from <alice@example.org>" | DURATION
RCPT TO:<blocked@example.com> | hook gate | "550 5.7.1 Not for you" | DURATION
RCPT TO:<bob@example.com> | server  | "250 2.0.0 I'll make sure <bob@example.com> gets this" | DURATION
DATA | server  | "354 Go ahead. End your data with <CR><LF>.<CR><LF>" | DURATION
DATA | server  | "250 2.0.0 OK: queued" | DURATION
QUIT | server  | "221 2.0.0 Bye" | DURATION
quit by the client | 6 commands, 1 messages | DURATION
`
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	over := make(chan struct{})
	gate := decide(func(cmd command) (decision, error) {
		if strings.Contains(cmd.Line, "blocked@") {
			return reply{Code: 550, Enhanced: enhanced{5, 7, 1}, Lines: []string{"Not for you"}}, nil
		}
		return nil, nil
	})
	p := &smtpproxy.Proxy{Hook: smtpproxy.Named("gate", gate), AllowInsecureAuth: true, Observers: []smtpproxy.Observer{
		sessionLog(&log),
		{Disconnected: func(*hookContext, connection, end) { close(over) }},
	}}
	f := behindGoSMTP(p)
	var served sync.WaitGroup
	served.Go(func() { f.serve(l) })
	defer served.Wait()
	defer f.close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	out, err := exec.CommandContext(ctx, swaks, "--config", "--server", "127.0.0.1", "--port", port, "--helo", "client.example",
		"--from", "alice@example.org", "--to", "blocked@example.com,bob@example.com", "--auth", "PLAIN",
		"--auth-user", "user", "--auth-password", "pass", "--data", "Subject: hello\n\nHello.\n").CombinedOutput()
	if err != nil {
		t.Fatalf("swaks: %v\n%s", err, out)
	}
	inTime(t, "the end", over)
	got := durations.ReplaceAllString(log.String(), "DURATION")
	if got != golden {
		t.Errorf("got:\n%s\nwant:\n%s", got, golden)
	}
	if !strings.Contains(string(out), "AHVzZXIAcGFzcw==") {
		t.Errorf("swaks sent no password, by which this shows little:\n%s", out)
	}
	for _, secret := range []string{"AHVzZXIAcGFzcw", "pass", "user"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log tells %q:\n%s", secret, log.String())
		}
	}
	if n := len(f.Messages()); n != 1 {
		t.Errorf("the server took %d messages", n)
	}
}
