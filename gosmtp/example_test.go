package gosmtp_test

import (
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// answerHELP answers HELP, which go-smtp doesn't implement, and passes all else.
func answerHELP(
	ctx *smtpproxy.Context, // done when the call is over; keeps what is yours: State
	cmd smtpproxy.Command, // the line: cmd.Verb(), cmd.Args(), cmd.Line
	conn smtpproxy.Connection, // who: RemoteIP, HELO, TLS, Auth
	txn smtpproxy.Transaction, // what: Sender, Recipients
) (smtpproxy.Decision, error) {
	if cmd.Verb() == "HELP" {
		return smtpproxy.Reply{Code: 214, Lines: []string{"See https://mail.example/help"}}, nil
	}
	return nil, nil
}

// serveWithHook is your server.ListenAndServe(), but with a hook in front.
func serveWithHook(server *smtp.Server) error {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(answerHELP)}
	return gosmtp.ListenAndServe(server, p) // was: server.ListenAndServe()
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

// One line of a server changes. This one listens on a unix socket, as it would on a
// port.
func ExampleListenAndServe() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	server := smtp.NewServer(dropMail{})
	server.Domain = "mx.example"
	server.Network, server.Addr = "unix", filepath.Join(dir, "smtp.sock")
	go serveWithHook(server)
	defer server.Close()

	var conn net.Conn
	for conn == nil { // until it listens
		conn, _ = net.Dial("unix", server.Addr)
	}
	client := textproto.NewConn(conn)
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
