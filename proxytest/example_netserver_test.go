package proxytest_test

import (
	"crypto/tls"
	"fmt"
	"net/smtp"
	"net/textproto"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// refusesNobody refuses one recipient.
func refusesNobody(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Line == "RCPT TO:<nobody@example.org>" {
		return smtpproxy.Reply{Code: 550}, nil
	}
	return nil, nil
}

// A client meets a server that offers STARTTLS, and the hook in front of it.
func ExampleNewServer() {
	s := proxytest.NewServer(&smtpproxy.Proxy{
		Hook:      smtpproxy.HookFunc(refusesNobody),
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
