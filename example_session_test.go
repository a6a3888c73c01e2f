package smtpproxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// noVRFY tells nobody which mailboxes there are.
func noVRFY(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "VRFY" {
		return smtpproxy.Reply{Code: 252, Enhanced: smtpproxy.EnhancedCode{2, 5, 0}, Lines: []string{"Send some mail"}}, nil
	}
	return nil, nil
}

// executeLine stands for a server's own state machine.
func executeLine(line string) (code int, text string) {
	switch (smtpproxy.Command{Line: line}).Verb() {
	case "HELO":
		return 250, "mx.example"
	case "VRFY":
		return 250, "<bob@mx.example>"
	case "QUIT":
		return 221, "Bye"
	}
	return 500, "Command not recognized"
}

// A server with a state machine of its own asks a Session about each line that
// it reads, and tells it each of its replies.
func ExampleSession() {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(noVRFY)}
	in := bufio.NewReader(strings.NewReader("HELO client.example\r\nVRFY bob\r\nQUIT\r\n"))

	session := p.NewSession(smtpproxy.Connection{}) // with the addresses, in a real server
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch d := session.Command(context.Background(), strings.TrimRight(line, "\r\n")).(type) {
		case smtpproxy.Pass:
			// A server that takes mail forgets its transaction first, if
			// session.MustReset() says so.
			code, text := executeLine(d.Command)
			session.Replied(code, text)
			fmt.Println(code, text)
		case smtpproxy.Reply:
			// The chunk of a BDAT command is not for the server either.
			io.CopyN(io.Discard, in, session.Discard())
			for range session.Copies() { // once, but in LMTP
				fmt.Println(d) // d.WriteTo(conn), in a real server
			}
			if d.Disconnect {
				return
			}
		}
	}
	// Output:
	// 250 mx.example
	// 252 2.5.0 Send some mail
	// 221 Bye
}
