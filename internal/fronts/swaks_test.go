package fronts

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

// swaks sends a message to a server, and returns its exit status and what it printed.
func swaks(t *testing.T, s *server, options ...string) (status int, printed string) {
	t.Helper()
	path := program.Need(t, "swaks")
	ctx, cancel := context.WithTimeout(t.Context(), program.Patience)
	defer cancel()
	args := append([]string{"--config", "--server", "127.0.0.1", "--port", s.port, "--helo", "swaks.example",
		"--from", "sender@example.org", "--to", "rcpt@example.com", "--body", "hello"}, options...)
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	exit := new(exec.ExitError)
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, out)
	}
	if ctx.Err() != nil {
		t.Fatalf("swaks takes too long:\n%s", out)
	}
	return max(exit.ExitCode(), 0), string(out)
}

func TestSwaksTellsTheServerWhoseConnectionItIs(t *testing.T) {
	program.Need(t, "swaks")
	s := serve(t, serverOptions{})
	for _, test := range []struct {
		why     string
		options string
		sent    []string // of XCLIENT; swaks sends attributes in the order of its options
		conn    smtpproxy.Connection
	}{
		{
			"one attribute", "--xclient-addr 192.0.2.7",
			[]string{"XCLIENT ADDR=192.0.2.7"},
			smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.7")},
		},
		{
			// In xtext, a "+" is "+2B".
			"all attributes", "--xclient-name Client.Example --xclient-addr IPV6:2001:db8::7 --xclient-port 7777 --xclient-proto ESMTP" +
				" --xclient-helo h.example --xclient-login alice+tag@example.com --xclient-destaddr 192.0.2.25 --xclient-destport 587",
			[]string{"XCLIENT NAME=Client.Example ADDR=IPV6:2001:db8::7 PORT=7777 PROTO=ESMTP" +
				" HELO=h.example LOGIN=alice+2Btag@example.com DESTADDR=192.0.2.25 DESTPORT=587"},
			smtpproxy.Connection{
				RemoteIP: netip.MustParseAddr("2001:db8::7"), RemotePort: 7777, RemotePTR: "client.example",
				LocalIP: netip.MustParseAddr("192.0.2.25"), LocalPort: 587,
				Auth: smtpproxy.Auth{Mechanism: "XCLIENT", Username: "alice+tag@example.com"},
			},
		},
		{
			"unknown values", "--xclient-name [UNAVAILABLE] --xclient-addr 192.0.2.7 --xclient-login [TEMPUNAVAIL]",
			[]string{"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 LOGIN=[TEMPUNAVAIL]"},
			smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.7")},
		},
		{
			"the name in the reverse DNS", "--xclient-reverse-name client.example --xclient-addr 192.0.2.7",
			[]string{"XCLIENT REVERSE_NAME=client.example ADDR=192.0.2.7"},
			smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.7")},
		},
		{
			// Each is a command of its own, and the next one is sent when it was answered.
			"several commands", "--xclient-name client.example --xclient-delim --xclient-addr 192.0.2.7",
			[]string{"XCLIENT NAME=client.example", "XCLIENT ADDR=192.0.2.7"},
			smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.7")},
		},
		{
			"pipelining", "--pipeline --xclient-addr 192.0.2.7 --xclient-login alice",
			[]string{"XCLIENT ADDR=192.0.2.7 LOGIN=alice"},
			smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.7"), Auth: smtpproxy.Auth{Mechanism: "XCLIENT", Username: "alice"}},
		},
		{
			"HELO", "--protocol SMTP",
			nil,
			smtpproxy.Connection{RemoteIP: netip.MustParseAddr("127.0.0.1")},
		},
	} {
		t.Run(test.why, func(t *testing.T) {
			status, printed := swaks(t, s, strings.Fields(test.options)...)
			if status != 0 {
				t.Fatalf("swaks ended with %d:\n%s", status, printed)
			}
			m, octets := s.one(t)
			if got := linesOf("XCLIENT", commandsOf(octets)); !slices.Equal(got, test.sent) {
				t.Errorf("swaks sent %q, want %q", got, test.sent)
			}
			// A greeting is told, too, but then swaks greets again.
			got, want := m.conn, test.conn
			if got.HELO.Host != "swaks.example" {
				t.Errorf("the client's greeting is %+v", got.HELO)
			}
			if !want.LocalIP.IsValid() {
				want.LocalIP, want.LocalPort = got.Peer.Addr(), got.LocalPort
			}
			if test.sent == nil {
				want.RemotePort = got.Peer.Port()
			}
			if got.RemoteIP != want.RemoteIP || got.RemotePort != want.RemotePort || got.RemotePTR != want.RemotePTR ||
				got.LocalIP != want.LocalIP || got.LocalPort != want.LocalPort || got.Auth != want.Auth {
				t.Errorf("the hook sees %+v, want %+v", got, want)
			}
			if remote := netip.AddrPortFrom(want.RemoteIP, want.RemotePort).String(); m.remote != remote {
				t.Errorf("the server's connection is from %s, want %s", m.remote, remote)
			}
			if peer := got.Peer.Addr().String(); peer != "127.0.0.1" {
				t.Errorf("the peer is %s", peer)
			}
		})
	}
}

func TestSwaksIsRefusedWhatItMayNotSay(t *testing.T) {
	program.Need(t, "swaks")
	trusting := &hooks.XCLIENT{Trust: trusted}
	nobody := new(hooks.XCLIENT)
	strict := &hooks.XCLIENT{Trust: trusted, Strict: true, Attributes: []string{"NAME", "ADDR"}}
	for _, test := range []struct {
		why     string
		xclient *hooks.XCLIENT
		options string
		status  int    // 33: XCLIENT has failed, or wasn't offered
		reply   string // to XCLIENT, if it was sent
		client  string // of the message, if it was accepted
	}{
		{"nobody is trusted", nobody, "--xclient-addr 192.0.2.7", 33, "", ""},
		{"nobody is trusted, and it goes on", nobody, "--xclient-optional --xclient-addr 192.0.2.7", 0, "", "127.0.0.1"},
		{"from where nobody is trusted", trusting, "--local-interface 127.0.0.2 --xclient-optional --xclient-addr 192.0.2.7", 0, "", "127.0.0.2"},
		{"a bad address", trusting, "--xclient-addr 192.0.2", 33, "501 5.5.4", ""},
		{"a bad address, and it goes on", trusting, "--xclient-optional --xclient-addr 192.0.2", 0, "501 5.5.4", "127.0.0.1"},
		{"no value", trusting, "--xclient ADDR", 33, "501 5.5.4", ""},
		{"an attribute that isn't known", strict, "--xclient-no-verify --xclient-reverse-name x --xclient-addr 192.0.2.7", 33, "501 5.5.4", ""},
		{"an attribute that isn't announced", strict, "--xclient-reverse-name x --xclient-addr 192.0.2.7", 33, "", ""},
		// It speaks for 192.0.2.7 now, who isn't trusted.
		{"another one behind it", trusting, "--xclient-addr 192.0.2.7 --xclient-delim --xclient-login root", 33, "550 5.7.0", ""},
	} {
		t.Run(test.why, func(t *testing.T) {
			s := serve(t, serverOptions{xclient: test.xclient})
			status, printed := swaks(t, s, strings.Fields(test.options)...)
			if status != test.status || !strings.Contains(printed, test.reply) {
				t.Errorf("swaks ended with %d, want %d and %q:\n%s", status, test.status, test.reply, printed)
			}
			if sent := linesOf("XCLIENT", s.commands()); len(sent) > 0 != (test.reply != "") {
				t.Errorf("swaks sent %q", sent)
			}
			var client string
			if test.status == 0 {
				m, _ := s.one(t)
				client = m.conn.RemoteIP.String()
				if m.conn.Auth.Username != "" {
					t.Errorf("the client is %+v", m.conn.Auth)
				}
			} else if len(s.await(t, 0)) > 0 {
				t.Error("there is a message")
			}
			if client != test.client {
				t.Errorf("the client is %q, want %q", client, test.client)
			}
		})
	}
}
