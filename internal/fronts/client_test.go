package fronts

import (
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

// client is a client of a front end.
type client struct {
	t *testing.T
	c net.Conn
	*textproto.Conn
	from netip.AddrPort
}

// dial connects to an address from another one.
func dial(t *testing.T, from, addr string) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: program.Patience}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(program.Patience))
	return &client{t, c, textproto.NewConn(c), c.LocalAddr().(*net.TCPAddr).AddrPort()}
}

// say sends a line, if it isn't empty, and returns the reply's text, if its code is right.
func (k *client) say(line string, code int) string {
	k.t.Helper()
	if line != "" {
		if err := k.PrintfLine("%s", line); err != nil {
			k.t.Fatal(err)
		}
	}
	_, text, err := k.ReadResponse(code)
	if err != nil {
		k.t.Fatalf("%q: %v, want %d", line, err, code)
	}
	return text
}

// startTLS begins TLS.
func (k *client) startTLS() {
	k.t.Helper()
	k.say("STARTTLS", 220)
	k.c = tls.Client(k.c, &tls.Config{InsecureSkipVerify: true}) // who it is isn't the question
	k.Conn = textproto.NewConn(k.c)
}

// authPlain is the command by which a client says who it is.
func authPlain(user string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))
}

func (k *client) login(user string) {
	k.t.Helper()
	k.say(authPlain(user), 235)
}

const text = "Subject: hello\r\n\r\nHello\r\n..\r\n"

// mail sends a message.
func (k *client) mail() {
	k.t.Helper()
	k.say("MAIL FROM:<sender@example.org>", 250)
	k.say("RCPT TO:<rcpt@example.com>", 250)
	k.data()
}

func (k *client) data() {
	k.t.Helper()
	k.say("DATA", 354)
	if err := k.PrintfLine("%s.", text); err != nil {
		k.t.Fatal(err)
	}
	k.say("", 250)
}

// check checks that a message is the one that mail sends.
func (m mail) check(t *testing.T) {
	t.Helper()
	if want := strings.ReplaceAll(text, "\r\n..", "\r\n."); !strings.HasSuffix(m.body, want) {
		t.Errorf("got message %q, want %q", m.body, want)
	}
	if m.from != "sender@example.org" || strings.Join(m.to, " ") != "rcpt@example.com" {
		t.Errorf("got a message from %q to %q", m.from, m.to)
	}
}
