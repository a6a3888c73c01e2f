package smtpproxy_test

import (
	"fmt"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// politely is a hook that tells clients whom to ask when they are refused.
type politely struct{ contact string }

func (politely) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// Reply makes it a ReplyHook.
func (p politely) Reply(_ *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
	if x.Reply.Code < 500 {
		return nil, nil // stays as it is
	}
	// Code and enhanced status code are zero, so they stay.
	return smtpproxy.Reply{Lines: append(x.Reply.Lines[:len(x.Reply.Lines):len(x.Reply.Lines)], "Questions: "+p.contact)}, nil
}

// A hook may change what the client gets, whoever has given the reply.
func ExampleReplyHook() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: politely{"https://mail.example/help"}})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@client.example>")
	s.Answer("RCPT", 550, "5.1.1 No such user")
	s.Send("RCPT TO:<nobody@server.example>")
	fmt.Println(strings.ReplaceAll(s.Reply().String(), "\r\n", "\n"))

	// Output:
	// 550-5.1.1 No such user
	// 550 5.1.1 Questions: https://mail.example/help
}
