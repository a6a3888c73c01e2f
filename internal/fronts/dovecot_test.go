package fronts

import (
	"encoding/base64"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

// dovecot are Dovecot's submission and LMTP proxies.
type dovecot struct {
	submission, submission6 string
	lmtp, lmtp6             string
}

// startDovecot starts Dovecot, whose users have their mail where the fields of their lines say,
// such as "alice@example.com port=2525".
func startDovecot(t *testing.T, users ...string) *dovecot {
	t.Helper()
	path := program.Need(t, "dovecot")
	for _, service := range []string{"submission-login", "lmtp"} {
		program.NeedFile(t, filepath.Join("/usr/lib/dovecot", service))
	}
	program.NeedRoot(t, "dovecot")
	dir := program.Dir(t)
	var passwd strings.Builder
	for _, user := range users {
		name, fields, _ := strings.Cut(user, " ")
		passwd.WriteString(name + ":{PLAIN}" + password + "::::::proxy=y host=127.0.0.1 " + fields + "\n")
	}
	program.Write(t, filepath.Join(dir, "users"), passwd.String())
	submission, lmtp := program.Port(t), program.Port(t)
	conf := program.Write(t, filepath.Join(dir, "dovecot.conf"), strings.NewReplacer("DIR", dir, "SUBMISSION", submission, "LMTP", lmtp).Replace(`
base_dir = DIR/run
state_dir = DIR/state
log_path = /dev/stderr
info_log_path = /dev/stderr
protocols = submission lmtp
hostname = front.example
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
lmtp_proxy = yes
passdb {
  driver = passwd-file
  args = DIR/users
}
service submission-login {
  inet_listener submission {
    address = 127.0.0.1 ::1
    port = SUBMISSION
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1 ::1
    port = LMTP
  }
}
`))
	if out, err := exec.Command(path, "--version").Output(); err == nil {
		t.Logf("Dovecot %s", out)
	}
	d := &dovecot{
		net.JoinHostPort("127.0.0.1", submission), net.JoinHostPort("::1", submission),
		net.JoinHostPort("127.0.0.1", lmtp), net.JoinHostPort("::1", lmtp),
	}
	program.Start(t, []string{d.submission, d.submission6, d.lmtp, d.lmtp6}, path, "-F", "-c", conf)
	return d
}

// forward is what Dovecot sends of fields whose names begin with "forward_".
func forward(fields ...string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Join(fields, "\t")))
}

func TestBehindDovecotTheServerSeesItsClients(t *testing.T) {
	s := serve(t, serverOptions{})
	l := serve(t, serverOptions{lmtp: true})
	one, two := strings.Repeat("a", 300), strings.Repeat("b", 300)
	d := startDovecot(t,
		user+" port="+s.port,
		"noauth@example.com proxy_noauth=y port="+s.port,
		"short@example.com proxy_noauth=y port="+s.port+" forward_one=1",
		"long@example.com proxy_noauth=y port="+s.port+" forward_one="+one+" forward_two="+two,
		"rcpt@example.com port="+l.port)
	xclient := func(name string) smtpproxy.Auth { return smtpproxy.Auth{Mechanism: "XCLIENT", Username: name} }
	for _, test := range []struct {
		why    string
		server *server
		addr   string
		from   string
		login  string

		sent string // up to the message; PORT, SESSION stand for what differs each time
		info hooks.XCLIENTInfo
		auth smtpproxy.Auth
	}{
		{
			// All in small pieces, as it happens, but without waiting for replies: the second EHLO
			// comes before the reply to XCLIENT.
			why: "AUTH at the server", server: s, addr: d.submission, from: "127.0.0.2", login: user,
			sent: "EHLO front.example\r\nXCLIENT HELO=c.example PROTO=ESMTP TTL=4 PORT=PORT ADDR=127.0.0.2 SESSION=SESSION\r\n" +
				"EHLO front.example\r\nAUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte(user+"\x00"+user+"\x00"+password)) + "\r\n",
			info: hooks.XCLIENTInfo{TTL: 4},
			auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: user},
		},
		{
			// The version of these tests doesn't send "IPV6:".
			why: "IPv6", server: s, addr: d.submission6, from: "::1", login: user,
			sent: "EHLO front.example\r\nXCLIENT HELO=c.example PROTO=ESMTP TTL=4 PORT=PORT ADDR=(IPV6:)?::1 SESSION=SESSION\r\n" +
				"EHLO front.example\r\nAUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte(user+"\x00"+user+"\x00"+password)) + "\r\n",
			info: hooks.XCLIENTInfo{TTL: 4},
			auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: user},
		},
		{
			why: "LOGIN, and no AUTH", server: s, addr: d.submission, from: "127.0.0.2", login: "noauth@example.com",
			sent: "EHLO front.example\r\nXCLIENT HELO=c.example PROTO=ESMTP LOGIN=noauth@example.com TTL=4 PORT=PORT ADDR=127.0.0.2 SESSION=SESSION\r\n" +
				"EHLO front.example\r\n",
			info: hooks.XCLIENTInfo{TTL: 4},
			auth: xclient("noauth@example.com"),
		},
		{
			why: "FORWARD", server: s, addr: d.submission, from: "127.0.0.2", login: "short@example.com",
			sent: "EHLO front.example\r\nXCLIENT HELO=c.example PROTO=ESMTP LOGIN=short@example.com TTL=4 PORT=PORT ADDR=127.0.0.2 SESSION=SESSION" +
				" FORWARD=" + strings.ReplaceAll(forward("one=1"), "=", "+3D") + "\r\nEHLO front.example\r\n",
			info: hooks.XCLIENTInfo{TTL: 4, Forward: forward("one=1")},
			auth: xclient("short@example.com"),
		},
		{
			// More than 512 octets are too many for one command.
			why: "two XCLIENT", server: s, addr: d.submission, from: "127.0.0.2", login: "long@example.com",
			sent: "EHLO front.example\r\nXCLIENT HELO=c.example PROTO=ESMTP LOGIN=long@example.com TTL=4 PORT=PORT ADDR=127.0.0.2 SESSION=SESSION\r\n" +
				"XCLIENT FORWARD=" + forward("one="+one, "two="+two) + "\r\nEHLO front.example\r\n",
			info: hooks.XCLIENTInfo{TTL: 4, Forward: forward("one="+one, "two="+two)},
			auth: xclient("long@example.com"),
		},
		{
			why: "LMTP", server: l, addr: d.lmtp, from: "127.0.0.2",
			sent: "LHLO front.example\r\nXCLIENT HELO=c.example PROTO=LMTP SESSION=SESSION TTL=5 PORT=PORT ADDR=127.0.0.2\r\nLHLO front.example\r\n",
			info: hooks.XCLIENTInfo{TTL: 5},
		},
		{
			why: "LMTP and IPv6", server: l, addr: d.lmtp6, from: "::1",
			sent: "LHLO front.example\r\nXCLIENT HELO=c.example PROTO=LMTP SESSION=SESSION TTL=5 PORT=PORT ADDR=::1\r\nLHLO front.example\r\n",
			info: hooks.XCLIENTInfo{TTL: 5},
		},
	} {
		t.Run(test.why, func(t *testing.T) {
			k := dial(t, test.from, test.addr)
			k.say("", 220)
			if test.login != "" {
				k.say("EHLO c.example", 250)
				k.login(test.login)
			} else {
				k.say("LHLO c.example", 250)
			}
			k.mail()
			k.say("QUIT", 221)
			m, octets := test.server.one(t)
			m.check(t)

			pattern := strings.NewReplacer("PORT=PORT", "PORT="+strconv.Itoa(int(k.from.Port())), "=SESSION", "=(?P<session>[^ \r]+)", "+", "[+]").Replace(test.sent)
			got, _, _ := strings.Cut(octets, "MAIL FROM")
			match := regexp.MustCompile("^" + pattern + "$")
			found := match.FindStringSubmatch(got)
			if found == nil {
				t.Fatalf("Dovecot sent\n%q, want\n%q", got, pattern)
			}
			if session := found[match.SubexpIndex("session")]; m.info.Session != strings.ReplaceAll(session, "+2B", "+") {
				t.Errorf("the session is %q, %q was sent", m.info.Session, session)
			}
			m.info.Session = ""
			if m.info != test.info {
				t.Errorf("told were %+v, want %+v", m.info, test.info)
			}
			if remote := netip.AddrPortFrom(m.conn.RemoteIP, m.conn.RemotePort); remote != k.from || m.remote != k.from.String() {
				t.Errorf("the client is %s, the server's connection from %s; want %s", remote, m.remote, k.from)
			}
			if peer := m.conn.Peer.Addr().String(); peer != "127.0.0.1" {
				t.Errorf("the peer is %s, want Dovecot", peer)
			}
			if m.conn.Auth != test.auth || (m.user != "") != (test.auth.Mechanism == "PLAIN") {
				t.Errorf("the client has authenticated as %+v, %q for the server; want %+v", m.conn.Auth, m.user, test.auth)
			}
		})
	}
}

// It sends no XCLIENT where it isn't offered any.
func TestDovecotThatIsNotTrustedIsTheClientItself(t *testing.T) {
	s := serve(t, serverOptions{xclient: new(hooks.XCLIENT)})
	d := startDovecot(t, user+" port="+s.port)
	k := dial(t, "127.0.0.2", d.submission)
	k.say("", 220)
	k.say("EHLO c.example", 250)
	k.login(user)
	k.mail()
	k.say("QUIT", 221)
	m, octets := s.one(t)
	if strings.Contains(octets, "XCLIENT") || m.conn.RemoteIP.String() != "127.0.0.1" {
		t.Errorf("the client is %s, Dovecot sent %q", m.conn.RemoteIP, octets)
	}
}

// When they have logged in, they talk to the server.
func TestClientsOfDovecotCannotSpeakForIt(t *testing.T) {
	s := serve(t, serverOptions{})
	d := startDovecot(t, user+" port="+s.port, "noauth@example.com proxy_noauth=y port="+s.port)
	for _, name := range []string{user, "noauth@example.com"} {
		k := dial(t, "127.0.0.2", d.submission)
		k.say("", 220)
		k.say("EHLO c.example", 250)
		k.login(name)
		k.say("XCLIENT LOGIN=root ADDR=192.0.2.1", 550)
		k.say("XFORWARD ADDR=192.0.2.1", 550)
		k.mail()
		k.say("QUIT", 221)
		m, _ := s.one(t)
		if m.conn.RemoteIP.String() != "127.0.0.2" || m.conn.Auth.Username != name {
			t.Errorf("the client is %s, %+v", m.conn.RemoteIP, m.conn.Auth)
		}
	}
}
