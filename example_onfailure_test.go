package smtpproxy_test

import (
	"errors"
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

var errLookup = errors.New("directory is down")

// lookUp stands for a hook that asks another system about each recipient.
func lookUp(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "RCPT" {
		return nil, errLookup
	}
	return nil, nil
}

// tryAgain has the client come back when the directory does. All other
// failures it leaves to the library.
func tryAgain(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
	if errors.Is(f, errLookup) {
		return smtpproxy.Reply{Code: 451, Enhanced: smtpproxy.EnhancedCode{4, 4, 3}, Lines: []string{"Try again later"}}
	}
	return nil
}

// Without OnFailure, a hook that fails gives 421, and the connection is closed.
func ExampleProxy_OnFailure() {
	for _, p := range []*smtpproxy.Proxy{
		{Hook: smtpproxy.HookFunc(lookUp)},
		{Hook: smtpproxy.HookFunc(lookUp), OnFailure: tryAgain},
	} {
		s := proxytest.NewSession(p)
		s.Send("EHLO client.example")
		s.Send("MAIL FROM:<alice@example.com>")
		s.Send("RCPT TO:<bob@example.org>")
		fmt.Println(s.Reply(), "- closed:", s.Closed())
	}
	// Output:
	// 421 4.3.0 Service not available, closing transmission channel - closed: true
	// 451 4.4.3 Try again later - closed: false
}
