package hooks_test

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// One record a command, without credentials, and a summary in Postfix's manner.
func ExampleTrace() {
	short := func(_ []string, a slog.Attr) slog.Attr { // what differs each time
		switch a.Key {
		case "time", "connection", "port", "hooked", "served", "duration", "received", "sent":
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: short}))
	trace := &hooks.Trace{Logger: log}

	s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{trace.Observer()}})
	s.Answer("AUTH", 535, "5.7.8 Authentication failed")
	s.Send("HELO client.example")
	s.Send("AUTH PLAIN AGFsaWNlAHNlc2FtZQ==")
	s.Send("QUIT")
	// Output:
	// level=INFO msg="smtp: connected" remote=192.0.2.1
	// level=INFO msg="smtp: command" remote=192.0.2.1 code=250 by=server line="HELO client.example" reply=server.example
	// level=INFO msg="smtp: command" remote=192.0.2.1 code=535 by=server line="AUTH PLAIN ****" reply="5.7.8 ****"
	// level=INFO msg="smtp: command" remote=192.0.2.1 code=221 by=server line=QUIT reply="2.0.0 Bye"
	// level=INFO msg="smtp: disconnected" remote=192.0.2.1 by=client reason=quit code=221 commands="helo=1 auth=0/1 quit=1 commands=2/3"
}

// The dialogue of each connection of one network goes to a file of its own, say.
func ExampleTranscript() {
	transcript := &hooks.Transcript{Open: func(conn smtpproxy.Connection) (io.WriteCloser, error) {
		if !strings.HasPrefix(conn.RemoteIP.String(), "192.0.2.") {
			return nil, nil
		}
		return os.Stdout, nil // os.Create(filepath.Join(dir, conn.ID+".txt"))
	}}

	s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{transcript.Observer()}})
	s.Connect()
	s.Send("HELO client.example")
	s.Send("RCPT TO:<bob@example.org>")
	s.Send("NOOP")
	// Output:
	// C: (connection)
	// S: 220 proxytest.example ESMTP
	// C: HELO client.example
	// S: 250 server.example
	// C: RCPT TO:<bob@example.org>
	// P: 503 5.5.1 Missing MAIL command
	// C: NOOP
	// S: 250 2.0.0 OK
}
