package smtpproxy_test

import (
	"fmt"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// wholeMessages keeps clients from sending messages in chunks.
type wholeMessages struct{}

// Command implements smtpproxy.Hook: it has nothing to do with commands.
func (wholeMessages) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// Keywords implements smtpproxy.KeywordHook.
func (wholeMessages) Keywords(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	kw.Delete("CHUNKING")
	kw.Set("SIZE", "10485760")
	return nil
}

// A hook may change what the client is told of the server's extensions. What it deletes is
// refused, too: a client that sends BDAT all the same gets no further.
func ExampleKeywordHook() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: wholeMessages{}})
	s.Send("EHLO client.example")
	fmt.Println(strings.Join(s.Reply().Lines, "\n"))
	s.Send("MAIL FROM:<alice@example.com>")
	s.Send("RCPT TO:<bob@example.org>")
	s.Send("BDAT 1000 LAST")
	fmt.Println(s.Reply())
	// Output:
	// server.example
	// PIPELINING
	// 8BITMIME
	// SIZE 10485760
	// ENHANCEDSTATUSCODES
	// SMTPUTF8
	// AUTH PLAIN LOGIN
	// STARTTLS
	// 502 5.5.1 Command not implemented
}
