package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file shows that what holds the library against its model finds one that is careless.

// mangled is a connection on which what is sent to the client is mangled.
type mangled struct {
	net.Conn
	mangle func(reply said) string
}

func (m mangled) Write(p []byte) (int, error) {
	var sent strings.Builder
	for rest := string(p); rest != ""; {
		s, more, ok := cutReply(rest)
		if !ok {
			sent.WriteString(rest)
			break
		}
		sent.WriteString(m.mangle(s))
		rest = more
	}
	if _, err := m.Conn.Write([]byte(sent.String())); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m mangled) CloseWrite() error { return m.Conn.(*net.TCPConn).CloseWrite() }

// carelessness is a fault of such a library: in what the client gets, in what it tells, or in what
// it does in a dialogue.
type carelessness struct {
	what   string
	mangle func(s said) string
	tell   func(told func(*hookContext, smtpproxy.Exchange)) func(*hookContext, smtpproxy.Exchange)
	in     func(d *steered)
}

var carelessWith = []carelessness{
	{what: "a reply that is amended is lost", mangle: func(s said) string {
		if strings.HasPrefix(s.texts[0], "so says") {
			return ""
		}
		return s.octets
	}},
	{what: "a reply that is amended comes in both forms", mangle: func(s said) string {
		if strings.HasPrefix(s.texts[0], "so says") {
			return s.octets + s.octets
		}
		return s.octets
	}},
	{what: "a negative reply becomes a positive one", mangle: func(s said) string {
		return strings.Replace(s.octets, "559 ", "250 ", 1)
	}},
	{what: "a reply of several lines becomes one", mangle: func(s said) string {
		if strings.HasPrefix(s.octets, "250-2.7.25") {
			s.texts, s.octets = s.texts[1:], ""
		}
		return s.String()
	}},
	{what: "an exchange is shown twice", tell: func(told func(*hookContext, smtpproxy.Exchange)) func(*hookContext, smtpproxy.Exchange) {
		return func(ctx *hookContext, x smtpproxy.Exchange) {
			told(ctx, x)
			if x.Hook != "" && x.By == smtpproxy.ByServer {
				told(ctx, x)
			}
		}
	}},
	{what: "an exchange isn't shown", tell: func(told func(*hookContext, smtpproxy.Exchange)) func(*hookContext, smtpproxy.Exchange) {
		return func(ctx *hookContext, x smtpproxy.Exchange) {
			if x.Command.Verb() != "NOOP" || x.By != smtpproxy.ByHook {
				told(ctx, x)
			}
		}
	}},
	{what: "an exchange is shown as it was before", tell: func(told func(*hookContext, smtpproxy.Exchange)) func(*hookContext, smtpproxy.Exchange) {
		return func(ctx *hookContext, x smtpproxy.Exchange) {
			if x.Reply.Code == 559 {
				x.Reply.Code = 450
			}
			told(ctx, x)
		}
	}},
}

// findOut plays dialogues until what is careless is found out.
func findOut(t *testing.T, rows []carelessness) {
	t.Helper()
	const dialogues, most = 20, 100
	play := func(seed uint64, wait time.Duration, row carelessness) error {
		d := steer(seed, false)
		d.patience = wait
		if row.in != nil {
			d.tls = true
			row.in(d)
		}
		p := d.proxy()
		if row.tell != nil {
			p.Observers[0].Exchanged = row.tell(p.Observers[0].Exchanged)
		}
		return d.play(t, p, servertest.Strict(), newTransport(true, func() (server, client net.Conn, err error) {
			if server, client, err = connectTCP(); err == nil && row.mangle != nil {
				server = mangled{server, row.mangle}
			}
			return server, client, err
		}))
	}
	for seed := range uint64(dialogues) {
		for _, row := range []carelessness{{mangle: func(s said) string { return s.octets }}, {in: func(*steered) {}}} {
			if err := play(seed, patience, row); err != nil {
				t.Fatalf("a careful one is found careless: %v", err)
			}
		}
	}
	for _, row := range rows {
		found := false
		for seed := uint64(0); seed < most && !found; seed++ {
			found = play(seed, 300*time.Millisecond, row) != nil
		}
		if !found {
			t.Errorf("%s: not found in %d dialogues", row.what, most)
		}
	}
}

func TestACarelessProxyOfRepliesIsFoundOut(t *testing.T) { findOut(t, carelessWith) }

// lateCaller is a hook of which a method is called behind the end.
type lateCaller struct {
	*attendant
	late func(a *attendant, ctx *hookContext, conn connection, e end)
}

func (c lateCaller) Disconnect(ctx *hookContext, conn connection, e end) {
	c.attendant.Disconnect(ctx, conn, e)
	c.late(c.attendant, ctx, conn, e)
}

func TestACallBehindTheEndIsFoundOut(t *testing.T) {
	for what, late := range map[string]func(a *attendant, ctx *hookContext, conn connection, e end){
		"": func(*attendant, *hookContext, connection, end) {},
		"Reply": func(a *attendant, ctx *hookContext, conn connection, _ end) {
			a.Reply(ctx, smtpproxy.Exchange{Connection: conn})
		},
		"Command": func(a *attendant, ctx *hookContext, conn connection, _ end) {
			a.Command(ctx, command{Line: "NOOP"}, conn, transaction{})
		},
		"Disconnect": func(a *attendant, ctx *hookContext, conn connection, e end) { a.Disconnect(ctx, conn, e) },
		"a call that doesn't return": func(a *attendant, _ *hookContext, conn connection, _ end) {
			a.enter(conn.ID, "a call", true)
		},
	} {
		a := newAttendant(1)
		p := &smtpproxy.Proxy{Hook: lateCaller{a, late}, Observers: []smtpproxy.Observer{a.observer()}}
		f, tr := behindListener(p, servertest.Strict()), overTCP(t)
		c := f.connect(t, tr)
		c.expect("220")
		c.ask("NOOP", "250")
		c.ask("QUIT", "221")
		c.Close()
		if wrong := a.await(1); (len(wrong) > 0) != (what != "") {
			t.Errorf("%q: found %q", what, wrong)
		}
	}
}

func TestTheModelCutsRepliesAsTheyAreWritten(t *testing.T) {
	for _, row := range []struct{ why, octets, want string }{
		{"an enhanced status code", "250 2.1.0 ok\r\n", "250 2.1.0 [ok]"},
		{"none", "250 ok\r\n", "250  [ok]"},
		{"that of each line", "550-5.1.1 a\r\n550 5.1.1 b\r\n", "550 5.1.1 [a b]"},
		{"one of the first line alone, which is text", "550-5.1.1 a\r\n550 b\r\n", "550  [5.1.1 a b]"},
		{"of another class, which is text (RFC 2034 section 4)", "550 4.1.1 a\r\n", "550  [4.1.1 a]"},
		{"with a leading zero, which is text (RFC 3463 section 2)", "550 5.01.1 a\r\n", "550  [5.01.1 a]"},
		{"without a text", "250 2.0.0\r\n", "250 2.0.0 []"},
	} {
		s, rest, ok := cutReply(row.octets + "rest")
		got := row.octets[:3] + " " + s.enhanced + " [" + strings.Join(s.texts, " ") + "]"
		if !ok || rest != "rest" || s.String() != row.octets || got != row.want {
			t.Errorf("%s: got %q, want %q; the rest is %q", row.why, got, row.want, rest)
		}
	}
}
