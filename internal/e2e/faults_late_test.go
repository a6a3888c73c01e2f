package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has what goes wrong when something comes too late, or half.

// TestContentThatComesTooLateIsNeverTakenForCommands is about servers that give
// a message up at their deadline, and read commands then.
func TestContentThatComesTooLateIsNeverTakenForCommands(t *testing.T) {
	for _, tt := range []struct {
		why    string
		server func() *servertest.Server
		greet  string
	}{
		{"go-smtp", func() *servertest.Server { return servertest.GoSMTP() }, "EHLO"},
		{"LMTP", func() *servertest.Server { return servertest.GoSMTPLMTP(false) }, "LHLO"},
		{"LMTP, the first recipient has its status", func() *servertest.Server { return servertest.GoSMTPLMTP(true) }, "LHLO"},
		{"LMTP, all have their status", func() *servertest.Server { return servertest.GoSMTPLMTP(true, servertest.Refuse("c@d", "e@f")) }, "LHLO"},
	} {
		for _, content := range []string{"", "12345", "0123456789"} {
			for _, later := range []time.Duration{11 * time.Second, 21 * time.Second} {
				bubble(t, fmt.Sprintf("%s, %q, %v", tt.why, content, later), func(t *testing.T) {
					s := tt.server()
					c := patientPeer(t, behindListener(&smtpproxy.Proxy{Hook: &passLog{}}, s))
					c.expect("220")
					c.ask(tt.greet+" x", "250")
					for _, line := range []string{"MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>"} {
						c.ask(line, "250")
					}
					c.ask("DATA", "354")
					sent := make(chan struct{})
					go func() {
						defer close(sent)
						io.WriteString(c, content)
						time.Sleep(later) // in a bubble
						io.WriteString(c, "RSET\r\nMAIL FROM:<evil@e>\r\n.\r\n")
					}()
					got := c.diary()
					<-sent
					if commands := s.Commands(); slices.Contains(commands, "MAIL evil@e") {
						t.Errorf("unseen by the hook, the server executed %q; the client got %q", commands, got)
					}
				})
			}
		}
	}
}

// cutConn is a connection whose second write is cut short.
type cutConn struct {
	net.Conn
	writes         int
	stuck, release chan struct{}
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes != 2 {
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:5])
	close(c.stuck)
	<-c.release
	return n, io.ErrShortWrite
}

// TestNothingFollowsHalfAReply is about a hook that answers while a reply that
// was held is on its way.
func TestNothingFollowsHalfAReply(t *testing.T) {
	for range 50 { // a matter of which goroutine comes first
		stuck, release := make(chan struct{}), make(chan struct{})
		tr := newTransport(true, func() (server, client net.Conn, err error) {
			server, client, err = connectTCP()
			return &cutConn{Conn: server, stuck: stuck, release: release}, client, err
		})
		hook := decideIn(func(ctx *hookContext, cmd command) (decision, error) {
			if cmd.Verb() != "HELP" {
				return nil, nil
			}
			<-stuck
			ctx.AfterFunc(func() { close(release) })
			return reply{Code: 214}, nil
		})
		c := runScript(t, tr, &smtpproxy.Proxy{Hook: hook}, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			for b := make([]byte, 100); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
				io.WriteString(c, "250 x\r\n")
			}
		})
		c.send("MAIL FROM:<a@b>\r\nHELP\r\n")
		c.expect("220")
		if got, _ := io.ReadAll(c.r); string(got) != "250 x" {
			t.Fatalf("got %q", got)
		}
	}
}
