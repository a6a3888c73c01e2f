package hooks_test

import (
	"fmt"
	"regexp"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// What Postfix's manual has as examples of smtpd_command_filter.
func ExampleRewrite() {
	table := hooks.Rewrite{
		{Match: regexp.MustCompile(`^\s*$`), To: "NOOP"}, // an empty line
		{Verb: "RCPT", Match: regexp.MustCompile(`(?i)^(RCPT\s+TO:\s*<)'(.+)'>$`), To: "$1$2>"},
		{Verb: "MAIL", Match: regexp.MustCompile(`(?i)^MAIL\s+FROM:\s*<list@example\.com>$`), To: "$0 XVERP"},
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: table})
	s.Send("EHLO client.example")
	for _, line := range []string{
		"",
		"MAIL FROM:<list@example.com> SIZE=1000",
		"RCPT TO:<'bob@example.org'> NOTIFY=NEVER",
	} {
		fmt.Println(s.Send(line).(smtpproxy.Pass).Command)
	}
	// Output:
	// NOOP
	// MAIL FROM:<list@example.com> XVERP SIZE=1000
	// RCPT TO:<bob@example.org> NOTIFY=NEVER
}
