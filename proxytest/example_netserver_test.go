package proxytest_test

import (
	"crypto/tls"
	"fmt"
	"net/smtp"
	"net/textproto"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A client meets a server that offers STARTTLS, and the hook in front of it.
func ExampleNewServer() {
	s := proxytest.NewServer(&smtpproxy.Proxy{
		Hook:      smtpproxy.HookFunc(noNobody),
		TLSConfig: new(tls.Config), // the server makes a certificate for itself
	})
	defer s.Close()

	c, err := smtp.Dial(s.Addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	fmt.Println(c.StartTLS(s.TLSClientConfig()))
	fmt.Println(c.Mail("alice@example.com"))
	err = c.Rcpt("nobody@example.org")
	fmt.Println(err.(*textproto.Error).Code)
	fmt.Println(c.Rcpt("bob@example.org"))
	w, _ := c.Data()
	fmt.Fprint(w, "Subject: Hello\n")
	w.Close()
	for _, m := range s.Messages() {
		fmt.Printf("%s to %s: %q\n", m.From, m.To, m.Content)
	}
	// Output:
	// <nil>
	// <nil>
	// 550
	// <nil>
	// alice@example.com to [bob@example.org]: "Subject: Hello\r\n"
}

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
