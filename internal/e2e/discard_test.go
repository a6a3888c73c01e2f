package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about a chunk of which the end never comes: whoever is to leave
// doesn't stay for it.

const endless = "BDAT 9223372036854775807 LAST\r\n"

// farewell421s are what ends a connection at a command with such a chunk, and how.
var farewell421s = []struct {
	why   string
	proxy smtpproxy.Proxy
	send  string // "" is endless
	want  string // the reply
	after time.Duration
}{
	{why: "the hook fails", proxy: smtpproxy.Proxy{Hook: atChunks(nil, errTest)}, want: "421 4.3.0"},
	{why: "the hook panics", proxy: smtpproxy.Proxy{Hook: decide(func(cmd command) (decision, error) {
		if cmd.Verb() == "BDAT" {
			panic("no")
		}
		return nil, nil
	})}, want: "421 4.3.0"},
	{why: "the hook's decision is invalid", proxy: smtpproxy.Proxy{Hook: atChunks(reply{Code: 354}, nil)}, want: "421 4.3.0"},
	{why: "the hook takes too long", proxy: smtpproxy.Proxy{HookTimeout: time.Minute, Hook: decide(func(cmd command) (decision, error) {
		if cmd.Verb() == "BDAT" {
			time.Sleep(2 * time.Minute) // in a bubble
		}
		return nil, nil
	})}, want: "421 4.3.0", after: time.Minute},
	{why: "the hook has 421", proxy: smtpproxy.Proxy{Hook: atChunks(reply{Code: 421}, nil)}, want: "421 4.0.0"},
	{why: "the hook has 221", proxy: smtpproxy.Proxy{Hook: atChunks(reply{Code: 221}, nil)}, want: "221 2.0.0"},
	{why: "the hook disconnects", proxy: smtpproxy.Proxy{Hook: atChunks(reply{Code: 550, Disconnect: true}, nil)}, want: "550 5.0.0"},
	{why: "the hook fails, and OnFailure disconnects", proxy: smtpproxy.Proxy{
		Hook:      atChunks(nil, errTest),
		OnFailure: func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 451, Disconnect: true} },
	}, want: "451 4.0.0"},
	{why: "it is one command too many", proxy: smtpproxy.Proxy{MaxCommands: 3}, want: "421 4.7.0 Too many commands"},
	{why: "it is one error too many", proxy: smtpproxy.Proxy{MaxErrors: 1}, send: "NO\x01OP\r\nBDAT 9223372036854775808 LAST\r\n", want: "421 4.7.0 Too many errors"},
	{why: "its size is beyond all numbers", send: "BDAT 9223372036854775808 LAST\r\n", want: "501 5.5.4"},
}

// atChunks is a hook that decides about BDAT, and passes the rest.
func atChunks(d decision, err error) smtpproxy.HookFunc {
	return decide(func(cmd command) (decision, error) {
		if cmd.Verb() == "BDAT" {
			return d, err
		}
		return nil, nil
	})
}

func TestNoChunkHoldsOffTheEndOfAConnection(t *testing.T) {
	for _, tt := range farewell421s {
		bubble(t, tt.why, func(t *testing.T) {
			pup := &puppet{}
			c := runScript(t, overPipe(t), &tt.proxy, pup.serve)
			c.SetDeadline(time.Time{})
			c.expect("220")
			for _, line := range []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>"} {
				c.ask(line, "250")
			}
			pup.took()
			line := endless
			if tt.send != "" {
				line = tt.send
			}
			c.send(line)
			if strings.HasPrefix(line, "NO") {
				c.expect("500 5.5.2")
			}
			got := c.diary()
			want := []string{fmt.Sprintf("%v \"%s", tt.after, tt.want), tt.after.String() + ` ""`}
			if !slices.EqualFunc(got, want, strings.HasPrefix) {
				t.Errorf("got %q, want %q", got, want)
			}
			if got := pup.took(); len(got) > 0 {
				t.Errorf("the server got %q", got)
			}
			time.Sleep(time.Hour) // until the hook returns, in a bubble
		})
	}
}

func TestAnLMTPClientHasAReplyForEachRecipientOfAChunkThatEndsTheConnection(t *testing.T) {
	for _, tt := range []struct {
		d    decision
		want []string
	}{
		{reply{Code: 550, Disconnect: true}, []string{`0s "550 `, `0s "550 `, `0s ""`}},
		{reply{Code: 421}, []string{`0s "421 `, `0s ""`}}, // which is no status
	} {
		bubble(t, fmt.Sprint(tt.d), func(t *testing.T) {
			c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: atChunks(tt.d, nil)}, new(puppet).serve)
			c.SetDeadline(time.Time{})
			c.expect("220")
			for _, line := range []string{"LHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>", "RCPT TO:<c@c>"} {
				c.ask(line, "250")
			}
			c.send(endless)
			if got := c.diary(); !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestASessionHasNothingToDropBeforeItEnds(t *testing.T) {
	for _, tt := range farewell421s {
		if tt.after > 0 {
			continue // not in a bubble
		}
		s := tt.proxy.NewSession(connection{})
		for _, line := range []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>"} {
			s.Command(context.Background(), line)
			s.Replied(250)
		}
		line := endless
		if tt.send != "" {
			line = tt.send
		}
		var d decision
		for line := range strings.Lines(line) {
			d = s.Command(context.Background(), strings.TrimSuffix(line, "\r\n"))
		}
		r, ok := d.(reply)
		if !ok || !r.Disconnect || !strings.HasPrefix(r.String(), tt.want) || s.Discard() != 0 || s.Copies() != 1 {
			t.Errorf("%s: %v, %d octets to drop, %d copies", tt.why, d, s.Discard(), s.Copies())
		}
	}
	// What stays has to be told from the commands behind.
	s := (&smtpproxy.Proxy{Hook: atChunks(reply{Code: 550}, nil)}).ResumeSession(connection{}, transaction{Active: true})
	s.Command(context.Background(), strings.TrimSuffix(endless, "\r\n"))
	if s.Discard() != 1<<63-1 {
		t.Errorf("a chunk of a connection that goes on: %d octets to drop", s.Discard())
	}
}

// Closed while octets arrive, TCP would reset the connection, and the client might
// never see the reply. So some more is read, but not all that may come.
func TestAfterTheLastReplyAClientIsReadFromForAWhileAndWithinBounds(t *testing.T) {
	counted := make(chan *countReads, 1)
	tr := newTransport(true, func() (server, client net.Conn, err error) {
		server, client, err = connectTCP()
		n := &countReads{Conn: server}
		counted <- n
		return halfClosing{n, server.(*net.TCPConn)}, client, err
	})
	c := runScript(t, tr, &smtpproxy.Proxy{Hook: atChunks(nil, errTest)}, new(puppet).serve)
	c.expect("220")
	for _, line := range []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>"} {
		c.ask(line, "250")
	}
	c.send(endless)
	c.expect("421 4.3.0")
	sent := make(chan int)
	go func() {
		n := 0
		for b := make([]byte, 64<<10); ; {
			m, err := c.Write(b)
			if n += m; err != nil || n > 100<<20 {
				sent <- n
				return
			}
		}
	}()
	io.Copy(io.Discard, c.r)
	if n := <-sent; n > 50<<20 {
		t.Errorf("%d octets behind the last reply were sent", n)
	}
	if n := (<-counted).n.Load(); n > 1<<20+64<<10 {
		t.Errorf("%d octets behind the last reply were read", n)
	}
}

// halfClosing is a connection that closes one side of a socket.
type halfClosing struct {
	net.Conn
	socket *net.TCPConn
}

func (c halfClosing) CloseWrite() error { return c.socket.CloseWrite() }
