package proxytest

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about a hook that finds the client to be another's.

// told is whose the connection is.
var told = smtpproxy.Origin{
	RemoteIP: netip.MustParseAddr("192.0.2.7"), RemotePort: 7007, RemotePTR: "client.example",
	LocalIP: netip.MustParseAddr("203.0.113.25"), LocalPort: 587,
	HELO: smtpproxy.HELO{Verb: "EHLO", Host: "client.example"},
	Auth: smtpproxy.Auth{Mechanism: "XCLIENT", Username: "alice"},
}

// restarts is a hook that takes XCLIENT, and knows more at Connect, if that says so.
func restarts(connect func(conn smtpproxy.Connection) (smtpproxy.Decision, error)) *smtpproxy.Proxy {
	f := smtpproxy.Funcs{
		OnCommand: func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			if cmd.Verb() == "XCLIENT" {
				return &smtpproxy.Reply{Restart: &told}, nil
			}
			return nil, nil
		},
	}
	if connect != nil {
		f.OnConnect = func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			return connect(conn)
		}
	}
	return &smtpproxy.Proxy{Hook: smtpproxy.Named("xclient", f)}
}

func TestTheServerStartsAfreshForTheClientThatAHookTells(t *testing.T) {
	s := NewSession(restarts(nil))
	s.Connect()
	s.Send("EHLO front.example")
	s.Send("STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	s.Send("LHLO front.example")
	s.Send("MAIL FROM:<a@example.com>")
	id := s.Transaction().ID
	d := s.Send("XCLIENT ADDR=192.0.2.7")
	if r, ok := d.(smtpproxy.Reply); !ok || r.Restart == nil || *r.Restart != told || r.Code != 421 || !r.Disconnect {
		t.Errorf("decided: %+v", d)
	}
	if got := s.Reply().String(); got != "220 proxytest.example ESMTP" || s.Closed() {
		t.Errorf("the client has got %s", got)
	}
	c, x := s.Connection(), s.Transaction()
	if c.RemoteIP != told.RemoteIP || c.RemotePort != 7007 || c.RemotePTR != "client.example" || c.LocalIP != told.LocalIP || c.LocalPort != 587 ||
		c.HELO != told.HELO || c.Auth != told.Auth || c.TLS.Protocol != "TLSv1.3" || c.Peer.String() != "192.0.2.1:49152" {
		t.Errorf("the client is %+v", c)
	}
	if x.Active || x.ID == id {
		t.Errorf("a transaction is left: %+v", x)
	}
	play(t, s, step{"MAIL FROM:<a@example.com>", "503"}, step{"EHLO client.example", "250"}, step{"MAIL FROM:<a@example.com>", "250"})
}

func TestWhatWasToldOfTheClientSurvivesSTARTTLS(t *testing.T) {
	s := NewSession(restarts(nil))
	sendAll(s, "EHLO front.example", "XCLIENT LOGIN=alice", "EHLO again.example")
	if got := s.Connection().HELO.Host; got != "again.example" {
		t.Errorf("greeted as %s", got)
	}
	s.Send("STARTTLS") // Roundcube's order
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	if c := s.Connection(); c.Auth != told.Auth || c.HELO != told.HELO || c.RemoteIP != told.RemoteIP || c.TLS.Protocol != "TLSv1.3" {
		t.Errorf("the client is %+v", c)
	}
}

func TestTheTranscriptTellsOfARestart(t *testing.T) {
	for _, tt := range []struct {
		why     string
		connect func(conn smtpproxy.Connection) (smtpproxy.Decision, error)
		want    string
	}{
		{"nobody decides about the client", nil, `C: (connection)
S: 220 proxytest.example ESMTP
C: XCLIENT ADDR=192.0.2.7
H xclient: restart ADDR=192.0.2.7 PORT=7007 NAME=client.example DESTADDR=203.0.113.25 DESTPORT=587 PROTO=EHLO HELO=client.example LOGIN=alice
S: 220 proxytest.example ESMTP
`},
		{"it is refused", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if conn.RemoteIP == told.RemoteIP {
				return smtpproxy.Reply{Code: 554, Lines: []string{"Not you"}}, nil
			}
			return nil, nil
		}, `C: (connection)
S: 220 proxytest.example ESMTP
C: XCLIENT ADDR=192.0.2.7
H xclient: restart ADDR=192.0.2.7 PORT=7007 NAME=client.example DESTADDR=203.0.113.25 DESTPORT=587 PROTO=EHLO HELO=client.example LOGIN=alice
H: 554 5.0.0 Not you (close)
`},
		{"the hook fails", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if conn.RemoteIP == told.RemoteIP {
				return nil, errors.New("no")
			}
			return nil, nil
		}, `C: (connection)
S: 220 proxytest.example ESMTP
C: XCLIENT ADDR=192.0.2.7
H xclient: restart ADDR=192.0.2.7 PORT=7007 NAME=client.example DESTADDR=203.0.113.25 DESTPORT=587 PROTO=EHLO HELO=client.example LOGIN=alice
H: failed
P: 421 4.3.0 Service not available, closing transmission channel (close)
`},
		{"it is another's at once, and once more", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemotePort: conn.RemotePort + 1}}, nil
		}, `C: (connection)
H: restart PORT=49153
S: 220 proxytest.example ESMTP
C: XCLIENT ADDR=192.0.2.7
H xclient: restart ADDR=192.0.2.7 PORT=7007 NAME=client.example DESTADDR=203.0.113.25 DESTPORT=587 PROTO=EHLO HELO=client.example LOGIN=alice
H: restart ADDR=192.0.2.7 PORT=7008 NAME=client.example DESTADDR=203.0.113.25 DESTPORT=587
S: 220 proxytest.example ESMTP
`},
	} {
		s := NewSession(restarts(tt.connect))
		s.Connect()
		s.Send("XCLIENT ADDR=192.0.2.7")
		if got := s.Transcript(); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.why, got, tt.want)
		}
		s.Close()
	}
}
