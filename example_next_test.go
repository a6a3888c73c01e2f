package smtpproxy_test

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// lockRoot refuses the account root, whatever the password.
func lockRoot(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	response := ""
	switch {
	case cmd.SASL:
		response = cmd.Line
	case cmd.Verb() == "AUTH":
		_, response, _ = strings.Cut(cmd.Args(), " ") // it may come with the command
	}
	message, _ := base64.StdEncoding.DecodeString(response)
	if fields := strings.Split(string(message), "\x00"); len(fields) == 3 && fields[1] == "root" {
		return smtpproxy.Reply{
			Code:     535,
			Enhanced: smtpproxy.EnhancedCode{5, 7, 8},
			Lines:    []string{"Account locked"},
		}, nil
	}
	return smtpproxy.Pass{Next: cmd.Verb() == "AUTH"}, nil
}

// Next asks for one more line: here the client's answer to the challenge of
// AUTH PLAIN, which is no command and would not be shown otherwise.
func ExamplePass_next() {
	s := proxytest.NewSession(&smtpproxy.Proxy{
		Hook:     smtpproxy.HookFunc(lockRoot),
		Commands: []string{"AUTH"},
	})
	s.Send("EHLO client.example")
	for _, username := range []string{"root", "alice"} {
		s.Send("AUTH PLAIN")
		s.Send(base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00password")))
		fmt.Println(s.Reply())
	}
	// Output:
	// 535 5.7.8 Account locked
	// 235 2.7.0 Authentication successful
}
