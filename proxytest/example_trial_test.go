package proxytest_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/servertest"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// server is the server that is put on trial here; it is yours in a test of yours.
var server = servertest.Lenient(servertest.LineByLine())

// A test of a server is one line. It needs a Trial if the server needs an account, say, or
// has other mailboxes.
func ExampleTestServer() {
	_ = func(t *testing.T) { // TestTheServerIsSafeBehindTheProxy
		proxytest.TestServer(t, server.Serve)
	}
}

// What is found is there as data, too.
func ExampleTrial_Report() {
	trial := proxytest.Trial{RefusedRecipient: "nobody@example.org", RefusedHost: "nohost.example", MaxMessage: 1 << 16}
	report := trial.Report(func(l net.Listener) error { return server.Serve(l) })
	for _, r := range report.Results {
		for _, f := range r.Findings {
			fmt.Println(r.Probe, f.Grade, f.Name)
		}
	}
	fmt.Println(report.Result("message-end").Answer)
	// Output:
	// pieces note replies-in-pieces
	// paths note takes-two-paths
	// message-end note ends-at-bare-newlines
	// At CRLF.CRLF, and at LF.LF, LF.CRLF, CRLF.LF, CRLF.CRCRLF, CRCRLF.CRLF.
}
