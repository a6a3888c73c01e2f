package smtpproxy_test

import (
	"fmt"
	"io"
	"net"
	"net/textproto"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// answerHELP answers HELP, which go-smtp doesn't implement, and passes all else.
func answerHELP(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "HELP" {
		return smtpproxy.Reply{Code: 214, Lines: []string{"See https://mail.example/help"}}, nil
	}
	return nil, nil
}

// serveAny is your server.Serve(l), but with a hook in front.
func serveAny(server interface{ Serve(net.Listener) error }, l net.Listener) error {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(answerHELP)}
	return server.Serve(p.Listener(l)) // was: server.Serve(l)
}

// dropMail is a backend of go-smtp's, as any: it takes mail and drops it.
type dropMail struct{}

func (dropMail) NewSession(*smtp.Conn) (smtp.Session, error) { return dropMail{}, nil }
func (dropMail) Mail(string, *smtp.MailOptions) error        { return nil }
func (dropMail) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (dropMail) Reset()                                      {}
func (dropMail) Logout() error                               { return nil }

func (dropMail) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// The server stays as it is; only its listener is wrapped.
func ExampleProxy_Listener() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := smtp.NewServer(dropMail{})
	server.Domain = "mx.example"
	go serveAny(server, l)
	defer server.Close()

	client, err := textproto.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	defer client.Close()
	for _, command := range []string{"", "HELO client.example", "HELP", "QUIT"} {
		if command != "" {
			client.PrintfLine("%s", command)
		}
		reply, err := client.ReadLine()
		if err != nil {
			panic(err)
		}
		fmt.Println(reply)
	}
	// Output:
	// 220 mx.example ESMTP Service Ready
	// 250 2.0.0 Hello client.example
	// 214 2.0.0 See https://mail.example/help
	// 221 2.0.0 Bye
}
