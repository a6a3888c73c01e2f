package proxytest_test

import (
	"fmt"
	"net/smtp"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A client is tested against a server that, for once, says what few do.
func ExampleServer_Answer() {
	s := proxytest.NewServer(&smtpproxy.Proxy{})
	defer s.Close()
	s.Answer("EHLO", 500, "5.5.1 Command unrecognized")
	s.Answer("RCPT", 251, "User not local; will forward to <carol@example.net>")

	c, err := smtp.Dial(s.Addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	fmt.Println(c.Mail("alice@example.com")) // falls back to HELO
	fmt.Println(c.Rcpt("bob@example.org"))
	// Output:
	// <nil>
	// <nil>
}
