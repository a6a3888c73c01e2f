package apitest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about who looks at replies, and when.

// A line of a SASL exchange is for the hook that has asked for it alone, be it the server's
// exchange or a hook's.
func TestNobodyWhoLooksAtRepliesSeesWhatALineOfASASLExchangeHolds(t *testing.T) {
	for _, own := range []bool{false, true} {
		var seen []string
		look := func(_ *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
			seen = append(seen, fmt.Sprintf("%#v %#v %s%s%s%s", x.Command, x.Passed, x.Command.Line, x.Command.Received, x.Passed.Line, x.Passed.Received))
			return nil, nil
		}
		asks := func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			switch {
			case own && cmd.SASL:
				return smtpproxy.Reply{Code: 235}, nil
			case own && cmd.Verb() == "AUTH":
				return smtpproxy.Reply{Code: 334}, nil
			}
			return nil, nil
		}
		s := proxytest.NewSession(&smtpproxy.Proxy{
			Hook: smtpproxy.Chain(smtpproxy.HookFunc(asks), smtpproxy.Funcs{OnReply: look}),
			Observers: []smtpproxy.Observer{{
				Exchanged: func(ctx *smtpproxy.Context, x smtpproxy.Exchange) { look(ctx, x) },
			}},
		})
		s.Send("EHLO client.example")
		s.Send("AUTH PLAIN")
		s.Send("AGFsaWNlAHNlc2FtZQ==")
		if len(seen) != 6 || s.Reply().Code != 235 {
			t.Errorf("own %v: %d replies were seen, the last is %v", own, len(seen), s.Reply())
		}
		if slices.ContainsFunc(seen, func(x string) bool { return strings.Contains(x, "AGFsaWNl") }) {
			t.Errorf("own %v: seen: %q", own, seen)
		}
	}
}

// That the client leaves is no failure of the hook's, in the time that it has.
func TestWithATimeoutTooAHookMayDecideWhenItsClientHasLeft(t *testing.T) {
	hook := func(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() == "NOOP" {
			<-ctx.Done()
			return smtpproxy.Reply{Code: 451}, nil
		}
		return nil, nil
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(hook), HookTimeout: time.Minute})
	s.Send("EHLO client.example")
	if r, ok := s.SendAndLeave("NOOP").(smtpproxy.Reply); !ok || r.Code != 451 || s.Failure() != nil {
		t.Errorf("decided: %v, failure %v", r, s.Failure())
	}
}

// A client that speaks SMTP where TLS comes first: the connection doesn't begin twice for a
// server that reads and writes all the same, and it is no other hook's than the chosen one's.
func TestAConnectionThatDoesNotBeginIsToldOnceAndToItsOwnHook(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	told := make(chan string, 100)
	tell := func(who string) smtpproxy.Funcs {
		return smtpproxy.Funcs{
			OnReply: func(*smtpproxy.Context, smtpproxy.Exchange) (smtpproxy.Decision, error) {
				told <- who + " sees a reply"
				return nil, nil
			},
			OnDisconnect: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { told <- who + " is told of the end" },
		}
	}
	p := &smtpproxy.Proxy{
		Hook:        tell("Proxy.Hook"),
		HookFor:     func(smtpproxy.Connection) smtpproxy.Hook { return tell("the chosen hook") },
		TLSConfig:   &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }},
		ImplicitTLS: true,
		Observers: []smtpproxy.Observer{{
			Connected:    func(*smtpproxy.Context, smtpproxy.Connection) { told <- "connected" },
			StartedTLS:   func(_ *smtpproxy.Context, _ smtpproxy.Connection, err error) { told <- "TLS" },
			Exchanged:    func(_ *smtpproxy.Context, x smtpproxy.Exchange) { told <- x.Reply.String() },
			Disconnected: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { close(told) },
		}},
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "EHLO client.example\r\n")
	c, err := p.Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		io.WriteString(c, "220 server.example\r\n")
		c.Read(make([]byte, 100))
	}
	c.Close()
	var got []string
	for s := range told {
		got = append(got, s)
	}
	want := []string{"connected", "554 5.7.0 TLS required", "TLS", "the chosen hook is told of the end"}
	if !slices.Equal(got, want) {
		t.Errorf("told: %q, want %q", got, want)
	}
}
