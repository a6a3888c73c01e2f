package e2e

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about a server that starts afresh, since a hook has found the client to be
// another's.

// origin is whose connection the front end says it is.
var origin = smtpproxy.Origin{
	RemoteIP: netip.MustParseAddr("192.0.2.7"), RemotePort: 7007, RemotePTR: "client.example",
	LocalIP: netip.MustParseAddr("203.0.113.25"), LocalPort: 587,
	HELO: smtpproxy.HELO{Verb: "EHLO", Host: "client.example"},
	Auth: smtpproxy.Auth{Mechanism: "XCLIENT", Username: "alice"},
}

// restarting returns a hook that lets the server start afresh at XCLIENT, for an origin.
func restarting(o smtpproxy.Origin) func(*hookContext, command) (decision, error) {
	return func(_ *hookContext, cmd command) (decision, error) {
		if cmd.Verb() == "XCLIENT" {
			return smtpproxy.Reply{Restart: &o}, nil
		}
		return nil, nil
	}
}

func TestARestartGivesTheServerAFreshConnectionWithTheAddressesTold(t *testing.T) {
	h := newLifeHook()
	h.command = restarting(origin)
	backend := make(chan [2]net.Addr, 10)
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		backend <- [2]net.Addr{c.Conn().RemoteAddr(), c.Conn().LocalAddr()}
		if gosmtp.Session(c) == nil {
			t.Error("it has no session")
		}
		return &tlsSession{new(tlsBackend)}, nil
	}))
	tr := overTCP(t)
	serveBehind(t, srv, tr, &smtpproxy.Proxy{Hook: h})
	k := talk(t, tr)
	k.want("EHLO front.example", "250")
	<-backend
	k.want("MAIL FROM:<a@a.example>", "250")
	io.WriteString(k.Conn, "XCLIENT ADDR=192.0.2.7\r\nEHLO client.example\r\nNOOP\r\n")
	k.want("", "220")
	k.want("", "250")
	k.want("", "250")
	if got := <-backend; got[0].String() != "192.0.2.7:7007" || got[1].String() != "203.0.113.25:587" {
		t.Errorf("the server's connection is from %v to %v", got[0], got[1])
	}
	k.want("QUIT", "221")
	k.wantEnd()
	told := inTime(t, "Disconnect", h.ended)
	if c := told.conn; c.RemoteIP != origin.RemoteIP || c.RemotePTR != "client.example" || c.Peer.Addr().String() != "127.0.0.1" || c.Auth != origin.Auth {
		t.Errorf("told of %+v", c)
	}
	if got := strings.Join(h.called(t), " "); got != "connect EHLO keywords MAIL XCLIENT connect EHLO keywords NOOP QUIT disconnect" {
		t.Errorf("called: %s", got)
	}
}

// The 421 that a failing hook leads to is no other hook's, though one has decided before.
func TestAConnectThatFailsBehindARestartIsNotTheReplyOfTheHookThatRestarts(t *testing.T) {
	restarts := smtpproxy.Named("restarts", decideIn(restarting(origin)))
	fails := smtpproxy.Named("fails", smtpproxy.Funcs{OnConnect: func(_ *hookContext, conn connection) (decision, error) {
		if conn.RemoteIP == origin.RemoteIP {
			return nil, errTest
		}
		return nil, nil
	}})
	var told smtpproxy.Exchange
	p := &smtpproxy.Proxy{
		Hook:      smtpproxy.Chain(restarts, fails),
		Observers: []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x smtpproxy.Exchange) { told = x }}},
	}
	c := behindListener(p, servertest.Strict()).connect(t, overTCP(t))
	c.expect("220")
	c.ask("XCLIENT ADDR=192.0.2.7", "421")
	c.expectEnd()
	if told.By != smtpproxy.ByFailure || told.Hook != "" || told.Command.Received != "XCLIENT ADDR=192.0.2.7" {
		t.Errorf("told of a reply to %q by %v, hook %q", told.Command.Received, told.By, told.Hook)
	}
}

// Some servers write to the address that they get, for an XCLIENT of their own.
func TestAServerThatChangesItsClientsAddressChangesItForItselfAlone(t *testing.T) {
	told := make(chan string, 10)
	f := decideIn(restarting(smtpproxy.Origin{RemoteIP: origin.RemoteIP, RemotePort: 7007}))
	again := decideIn(func(_ *hookContext, cmd command) (decision, error) {
		if cmd.Verb() == "AGAIN" {
			return reply{Restart: &smtpproxy.Origin{RemotePTR: "again.example"}}, nil
		}
		return nil, nil
	})
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		told <- c.Conn().RemoteAddr().String()
		if a, ok := c.Conn().RemoteAddr().(*net.TCPAddr); ok && a.Port == 7007 {
			a.IP[len(a.IP)-1]++
			a.Port++
		}
		return &tlsSession{new(tlsBackend)}, nil
	}))
	tr := overTCP(t)
	serveBehind(t, srv, tr, &smtpproxy.Proxy{Hook: smtpproxy.Chain(f, again)})
	k := talk(t, tr)
	for _, line := range []string{"EHLO x|250", "XCLIENT ADDR=192.0.2.7|220", "EHLO x|250", "AGAIN|220", "EHLO x|250", "QUIT|221"} {
		line, code, _ := strings.Cut(line, "|")
		k.want(line, code)
	}
	<-told
	for range 2 {
		if got := <-told; got != "192.0.2.7:7007" {
			t.Errorf("the server's client is %s", got)
		}
	}
}
