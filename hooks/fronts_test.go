package hooks_test

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// This file has the dialogues of front ends with go-smtp behind the hooks. They were written
// from the documentation and the sources of nginx, Dovecot, Roundcube and Postfix, not
// recorded from them.

// loopback is where the front ends are here.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// message is what follows on "MAIL", step by step.
var message = []step{
	{"RCPT TO:<bob@example.org>\r\n", []string{"250"}},
	{"DATA\r\n", []string{"354"}},
	{"Subject: x\r\n\r\nHello\r\n.\r\n", []string{"250"}},
}

const noted = `server: message "Subject: x\r\n\r\nHello\r\n"`

var plain = "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00alice@example.org\x00secret")) + "\r\n"

func TestFrontEndsGetTheRepliesThatTheyNeed(t *testing.T) {
	for _, front := range []struct {
		name  string
		x     *hooks.XCLIENT
		how   how
		talk  []step
		ends  []step // nil for a message
		want  []string
		local string // what DESTADDR and DESTPORT have made of the address of this server
	}{
		{
			name: "nginx 1.22, behind its own AUTH: the name isn't encoded", x: &hooks.XCLIENT{RawLogin: true, Attributes: []string{"NAME", "ADDR", "LOGIN"}},
			talk: []step{
				{"EHLO mail.example.org\r\n", []string{"250"}},
				{"XCLIENT ADDR=203.0.113.7 LOGIN=alice+x@example.org NAME=client.example\r\n", []string{"220"}},
				{"EHLO client.example\r\n", []string{"250"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "server: from 203.0.113.7:0",
				"MAIL: 203.0.113.7:0 (client.example) > SERVER, EHLO client.example, XCLIENT alice+x@example.org, peer 127.0.0.1"},
		},
		{
			name: "nginx 1.29, behind its own AUTH", x: &hooks.XCLIENT{},
			talk: []step{
				{"EHLO mail.example.org\r\n", []string{"250"}},
				{"XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=alice+2Bx@example.org NAME=[TEMPUNAVAIL]\r\n", []string{"220"}},
				{"EHLO client.example\r\n", []string{"250"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "server: from [2001:db8::7]:0",
				"MAIL: 2001:db8::7:0 > SERVER, EHLO client.example, XCLIENT alice+x@example.org, peer 127.0.0.1"},
		},
		{
			name: "nginx with smtp_auth none: nobody has logged in, and the client says HELO", x: &hooks.XCLIENT{},
			talk: []step{
				{"EHLO mail.example.org\r\n", []string{"250"}},
				{"XCLIENT ADDR=203.0.113.7 NAME=[UNAVAILABLE]\r\n", []string{"220"}},
				{"HELO client.example\r\n", []string{"250"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "server: from 203.0.113.7:0",
				"MAIL: 203.0.113.7:0 > SERVER, HELO client.example, peer 127.0.0.1"},
		},
		{
			name: "nginx, whose client hasn't greeted: go-smtp insists on it", x: &hooks.XCLIENT{},
			talk: []step{
				{"EHLO mail.example.org\r\n", []string{"250"}},
				{"XCLIENT ADDR=203.0.113.7 NAME=[UNAVAILABLE]\r\n", []string{"220"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"502"}},
			},
			ends: []step{{"NOOP\r\n", []string{"250"}}},
			want: []string{"server: from 127.0.0.1:PORT",
				"MAIL: 203.0.113.7:0 > SERVER, peer 127.0.0.1", "NOOP: 203.0.113.7:0 > SERVER, peer 127.0.0.1"},
		},
		{
			name: "Dovecot's submission proxy greets in the same breath", x: &hooks.XCLIENT{},
			talk: []step{
				{"EHLO proxy.example.org\r\n", []string{"250"}},
				{"XCLIENT HELO=[203.0.113.7] PROTO=ESMTP TTL=4 PORT=40007 ADDR=203.0.113.7 DESTPORT=587 DESTADDR=198.51.100.25 " +
					"SESSION=Ww+2B1 CLIENT-TRANSPORT=TLS DESTNAME=[UNAVAILABLE]\r\nEHLO proxy.example.org\r\n", []string{"220", "250"}},
				{plain, []string{"235"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			local: "198.51.100.25:587",
			want: []string{"server: from 127.0.0.1:PORT", "server: from 203.0.113.7:40007", "server: AUTH alice@example.org",
				"MAIL: 203.0.113.7:40007 > SERVER, EHLO proxy.example.org, PLAIN alice@example.org, peer 127.0.0.1"},
		},
		{
			name: "Dovecot's splits what is longer than 512 octets: ADDR isn't in the last", x: &hooks.XCLIENT{},
			talk: []step{
				{"EHLO proxy.example.org\r\n", []string{"250"}},
				{"XCLIENT HELO=client.example PROTO=ESMTP LOGIN=alice TTL=4 PORT=40007 ADDR=IPV6:2001:db8::7\r\n" +
					"XCLIENT DESTPORT=587 DESTADDR=IPV6:2001:db8::25 SESSION=Ww1 CLIENT-TRANSPORT=insecure\r\n" +
					"XCLIENT FORWARD=" + strings.Repeat("Zm9v", 120) + "+3D+3D\r\n" +
					"EHLO proxy.example.org\r\n", []string{"220", "220", "220", "250"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			local: "2001:db8::25:587",
			want: []string{"server: from 127.0.0.1:PORT", "server: from [2001:db8::7]:40007",
				"MAIL: 2001:db8::7:40007 > SERVER, EHLO proxy.example.org, XCLIENT alice, peer 127.0.0.1"},
		},
		{
			name: "Dovecot's over TLS", x: &hooks.XCLIENT{}, how: how{tls: true},
			talk: []step{
				{"EHLO proxy.example.org\r\n", []string{"250"}},
				{"STARTTLS\r\n", []string{"220"}},
				{startTLS, nil},
				{"EHLO proxy.example.org\r\n", []string{"250"}},
				{"XCLIENT HELO=client.example PROTO=ESMTP TTL=4 PORT=40007 ADDR=203.0.113.7\r\nXCLIENT SESSION=Ww1\r\nEHLO proxy.example.org\r\n", []string{"220", "220", "250"}},
				{plain, []string{"235"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "server: from 127.0.0.1:PORT", "server: from 203.0.113.7:40007", "server: AUTH alice@example.org",
				"MAIL: 203.0.113.7:40007 > SERVER, EHLO proxy.example.org, PLAIN alice@example.org, peer 127.0.0.1"},
		},
		{
			name: "Dovecot's LMTP proxy leaves out IPV6:, and awaits each reply", x: &hooks.XCLIENT{}, how: how{lmtp: true},
			talk: []step{
				{"LHLO proxy.example.org\r\n", []string{"250"}},
				{"XCLIENT HELO=client.example PROTO=LMTP TTL=4 TIMEOUT=30 PORT=40007 ADDR=2001:db8::7 SESSION=Ww1\r\n", []string{"220"}},
				{"LHLO proxy.example.org\r\n", []string{"250"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "server: from [2001:db8::7]:40007",
				"MAIL: 2001:db8::7:40007 > SERVER, LHLO proxy.example.org, peer 127.0.0.1"},
		},
		{
			name: "Roundcube doesn't encode the name", x: &hooks.XCLIENT{RawLogin: true, Attributes: []string{"LOGIN", "ADDR"}},
			talk: []step{
				{"EHLO webmail.example.org\r\n", []string{"250"}},
				{"XCLIENT LOGIN=alice@example.org ADDR=IPV6:2001:db8::7\r\n", []string{"220"}},
				{"EHLO webmail.example.org\r\n", []string{"250"}},
				{plain, []string{"235"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "server: from [2001:db8::7]:0", "server: AUTH alice@example.org",
				"MAIL: 2001:db8::7:0 > SERVER, EHLO webmail.example.org, PLAIN alice@example.org, peer 127.0.0.1"},
		},
		{
			name: "Roundcube with TLS starts that behind XCLIENT, without EHLO", x: &hooks.XCLIENT{RawLogin: true, Attributes: []string{"LOGIN", "ADDR"}}, how: how{tls: true},
			talk: []step{
				{"EHLO webmail.example.org\r\n", []string{"250"}},
				{"XCLIENT LOGIN=alice@example.org ADDR=203.0.113.7\r\n", []string{"220"}},
				{"STARTTLS\r\n", []string{"220"}},
				{startTLS, nil},
				{"EHLO webmail.example.org\r\n", []string{"250"}},
				{"MAIL FROM:<alice@example.org>\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "server: from 203.0.113.7:0",
				"MAIL: 203.0.113.7:0 > SERVER, EHLO webmail.example.org, XCLIENT alice@example.org, peer 127.0.0.1"},
		},
		{
			name: "Postfix before a filter awaits each reply", x: &hooks.XCLIENT{},
			talk: []step{
				{"EHLO mx.example.org\r\n", []string{"250"}},
				{"XFORWARD NAME=client.example ADDR=203.0.113.7 PORT=40007 HELO=client.example IDENT=[UNAVAILABLE] PROTO=ESMTP\r\n", []string{"250"}},
				{"XFORWARD SOURCE=REMOTE\r\n", []string{"250"}},
				{"MAIL FROM:<alice@example.org> SIZE=20\r\n", []string{"250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "MAIL: 127.0.0.1:PORT > SERVER, EHLO mx.example.org, peer 127.0.0.1",
				"forwarded: {Name:client.example Addr:203.0.113.7 Port:40007 HELO:client.example Proto:ESMTP Ident: Source:REMOTE}"},
		},
		{
			name: "Postfix's smtp(8) doesn't await them, and tells of two messages", x: &hooks.XCLIENT{},
			talk: []step{
				{"EHLO mx.example.org\r\n", []string{"250"}},
				{"XFORWARD NAME=client.example ADDR=203.0.113.7 PORT=40007\r\nXFORWARD PROTO=ESMTP HELO=client.example IDENT=4abc SOURCE=REMOTE\r\n" +
					"MAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n", []string{"250", "250", "250", "250", "354"}},
				{"Subject: x\r\n\r\nHello\r\n.\r\n", []string{"250"}},
				{"XFORWARD SOURCE=LOCAL\r\nMAIL FROM:<>\r\n", []string{"250", "250"}},
			},
			want: []string{"server: from 127.0.0.1:PORT", "MAIL: 127.0.0.1:PORT > SERVER, EHLO mx.example.org, peer 127.0.0.1",
				"forwarded: {Name:client.example Addr:203.0.113.7 Port:40007 HELO:client.example Proto:ESMTP Ident:4abc Source:REMOTE}",
				noted, "MAIL: 127.0.0.1:PORT > SERVER, EHLO mx.example.org, peer 127.0.0.1",
				"forwarded: {Name: Addr:invalid IP Port:0 HELO: Proto: Ident: Source:LOCAL}"},
		},
	} {
		t.Run(front.name, func(t *testing.T) {
			t.Parallel()
			front.x.Trust = loopback
			s := serve(t, smtpproxy.Chain(front.x, &hooks.XFORWARD{Trust: loopback}), front.how)
			ends, want := front.ends, front.want
			if ends == nil {
				ends, want = message, append(want, noted)
			}
			port := s.play(t, append(front.talk, ends...)...).port
			local := s.addr
			if front.local != "" {
				local = front.local
			}
			for i := range want {
				want[i] = strings.NewReplacer(":PORT", fmt.Sprintf(":%d", port), "SERVER", local).Replace(want[i])
			}
			s.wants(t, front.name, want...)
		})
	}
}

func TestTheRulesHoldInFrontOfGoSMTP(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	begin := []step{{"EHLO x\r\n", []string{"250"}}}
	for _, row := range []struct {
		why       string
		trust     []netip.Prefix
		talk      []step
		announced bool
		noop      string // as whom the client is seen at last
	}{
		{"a client that greets, told of XCLIENT", loopback, append(begin, step{"XCLIENT ADDR=203.0.113.7\r\n", []string{"220 "}}), true, "203.0.113.7:0 > SERVER"},
		{"one that greets in the old way", loopback, []step{{"HELO x\r\n", []string{"250"}}, {"XCLIENT ADDR=203.0.113.7\r\n", []string{"220 "}}}, false, "203.0.113.7:0 > SERVER"},
		{"one that doesn't greet", loopback, []step{{"XCLIENT ADDR=203.0.113.7\r\n", []string{"220 "}}}, false, "203.0.113.7:0 > SERVER"},
		{"whoever isn't trusted", elsewhere, append(begin, step{"XCLIENT ADDR=203.0.113.7\r\nXFORWARD ADDR=203.0.113.7\r\n", []string{"550 5.7.0 ", "550 5.7.0 "}}), false,
			"127.0.0.1:PORT > SERVER, EHLO x"},
		{"nobody is by default", nil, append(begin, step{"XCLIENT ADDR=203.0.113.7\r\nXFORWARD ADDR=203.0.113.7\r\n", []string{"550 5.7.0 ", "550 5.7.0 "}}), false,
			"127.0.0.1:PORT > SERVER, EHLO x"},
		{"in a transaction", loopback, append(begin, step{"MAIL FROM:<a@example.com>\r\nXCLIENT ADDR=203.0.113.7\r\nXFORWARD ADDR=203.0.113.7\r\nRSET\r\n",
			[]string{"250", "503 5.5.1 ", "503 5.5.1 ", "250"}}), true, "127.0.0.1:PORT > SERVER, EHLO x"},
		{"what makes no sense", loopback, append(begin, step{"XCLIENT ADDR=x\r\nXFORWARD ADDR=x\r\n", []string{"501 5.5.4 ", "501 5.5.4 "}}), true,
			"127.0.0.1:PORT > SERVER, EHLO x"},
		{"a name alone takes what the server knows of its login, too", loopback, append(begin, step{plain, []string{"235"}},
			step{"XCLIENT NAME=client.example\r\nEHLO y\r\n" + plain, []string{"220", "250", "235"}}), true, "127.0.0.1:PORT (client.example) > SERVER, EHLO y, PLAIN alice@example.org"},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			s := serve(t, smtpproxy.Chain(&hooks.XCLIENT{Trust: row.trust}, &hooks.XFORWARD{Trust: row.trust}), how{})
			p := s.play(t, append(row.talk, step{"NOOP\r\n", []string{"250"}})...)
			want := strings.NewReplacer(":PORT", fmt.Sprintf(":%d", p.port), "SERVER", s.addr).Replace("NOOP: " + row.noop + ", peer 127.0.0.1")
			if log := s.record(); log[len(log)-1] != want {
				t.Errorf("the last is\n%s, want\n%s", log[len(log)-1], want)
			}
			for _, keyword := range []string{"XCLIENT NAME ADDR ", "XFORWARD NAME ADDR "} {
				if strings.Contains(p.replies[1], keyword) != row.announced {
					t.Errorf("%s: %s", keyword, p.replies[1])
				}
			}
		})
	}
}
