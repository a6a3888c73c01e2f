package e2e

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about the "*" with which the library cancels a SASL exchange of the
// server's that the hook has ended (RFC 4954 section 4).

// endsExchange refuses each line of the server's exchange.
func endsExchange(cmd command) (decision, error) {
	switch {
	case cmd.SASL:
		return reply{Code: 535}, nil
	case cmd.Verb() == "AUTH":
		return pass{Next: true}, nil
	}
	return nil, nil
}

// A server that takes "*" for a response, as that to a mechanism which it accepts
// whatever comes, has authenticated the client, and nobody would know.
func TestA2xxToTheCancelOfAnExchangeEndsTheConnection(t *testing.T) {
	for _, tt := range []struct {
		code int
		end  string // what the client gets at the end; "" if it goes on
	}{
		{501, ""}, {500, ""}, {535, ""}, {454, ""},
		{235, "421 4.3.0"}, {250, "421 4.3.0"}, {220, "421 4.3.0"}, {200, "421 4.3.0"},
		{334, "421 4.3.0"}, {354, "421 4.3.0"}, {350, "421 4.3.0"},
		{421, "421 as told"},
	} {
		for _, pipelined := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, pipelined %t", tt.code, pipelined), func(t *testing.T) {
				pup := &puppet{codes: map[string][]int{"AUTH": {334}, "": {tt.code}}}
				conns := make(chan net.Conn, 1)
				ended := make(chan struct{})
				p := &smtpproxy.Proxy{Hook: decide(endsExchange), AllowInsecureAuth: true}
				c := runScript(t, overTCP(t), p, func(c net.Conn) {
					defer close(ended)
					conns <- c
					pup.serve(c)
				})
				c.expect("220")
				c.ask("AUTH PLAIN", "334")
				if pipelined {
					c.send("AAAA\r\nNOOP\r\n")
					c.expect("535")
				} else {
					c.ask("AAAA", "535")
				}
				if tt.end != "" {
					c.expect(tt.end)
					c.expectEnd()
				} else {
					if !pipelined {
						c.send("NOOP\r\n")
					}
					c.expect("250")
				}
				s, _ := smtpproxy.SessionOf(<-conns)
				if auth := s.Connection().Auth; auth != (smtpproxy.Auth{}) {
					t.Errorf("it is told as %+v", auth)
				}
				c.Close()
				<-ended
				want := []string{"AUTH PLAIN", "*"}
				if tt.end == "" {
					want = append(want, "NOOP")
				}
				if got := pup.took(); !slices.Equal(got, want) {
					t.Errorf("the server got %q, want %q", got, want)
				}
			})
		}
	}
}

func TestNo3xxOfAHookFollowsDATA(t *testing.T) {
	for _, code := range []int{300, 334, 350, 354, 399} {
		hook := decide(func(cmd command) (decision, error) {
			if cmd.Verb() == "DATA" {
				return reply{Code: code}, nil
			}
			return nil, nil
		})
		pup := &puppet{}
		c := runScript(t, overTCP(t), &smtpproxy.Proxy{Hook: hook}, pup.serve)
		c.expect("220")
		for _, line := range []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>"} {
			c.ask(line, "250")
		}
		c.send("DATA\r\nMAIL FROM:<evil@evil>\r\n.\r\n")
		c.expect("421 4.3.0")
		c.expectEnd()
		if got := pup.took(); len(got) != 3 {
			t.Errorf("%d: the server got %q", code, got)
		}
	}
}
