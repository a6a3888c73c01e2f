package fronts

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

// postfix are Postfix's servers, by how they pass mail on.
type postfix struct {
	filter string // while its client waits, to the server as smtpd_proxy_filter
	adjust string // the same, but when it has the whole message
	relay  string // from its queue, by SMTP
	lmtp   string // from its queue, by LMTP
	log    string // a file
}

// delivered waits until Postfix has done with some messages from its queue, and so has put
// their connection aside for the next one.
func (p *postfix) delivered(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(program.Patience); ; time.Sleep(5 * time.Millisecond) {
		log, err := os.ReadFile(p.log)
		if err == nil && strings.Count(string(log), ": removed\n") >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("Postfix has not delivered %d messages: %v", n, err)
		}
	}
}

// startPostfix starts Postfix in front of servers of SMTP and LMTP.
func startPostfix(t *testing.T, smtp, lmtp *server) *postfix {
	t.Helper()
	master := "/usr/lib/postfix/sbin/master"
	program.NeedFile(t, master)
	program.NeedRoot(t, "postfix")
	owner, err := osuser.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	group, err := osuser.LookupGroup("postdrop")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(group.Gid)

	dir := program.Dir(t)
	for _, d := range []struct {
		name     string
		mode     os.FileMode
		uid, gid int
	}{
		{"etc", 0o755, 0, 0}, {"data", 0o700, uid, 0}, {"queue", 0o755, 0, 0}, {"queue/pid", 0o755, 0, 0},
		{"queue/public", 0o710, uid, gid}, {"queue/maildrop", 0o730, uid, gid}, {"queue/private", 0o700, uid, 0},
		{"queue/active", 0o700, uid, 0}, {"queue/bounce", 0o700, uid, 0}, {"queue/corrupt", 0o700, uid, 0},
		{"queue/defer", 0o700, uid, 0}, {"queue/deferred", 0o700, uid, 0}, {"queue/flush", 0o700, uid, 0},
		{"queue/hold", 0o700, uid, 0}, {"queue/incoming", 0o700, uid, 0}, {"queue/saved", 0o700, uid, 0},
		{"queue/trace", 0o700, uid, 0},
	} {
		name := filepath.Join(dir, d.name)
		if err := os.Mkdir(name, d.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, d.mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		if err := os.Chown(name, d.uid, d.gid); err != nil {
			t.Fatal(err)
		}
	}
	p := postfix{log: filepath.Join(dir, "log")}
	for _, addr := range []*string{&p.filter, &p.adjust, &p.relay, &p.lmtp} {
		*addr = net.JoinHostPort("127.0.0.1", program.Port(t))
	}
	// No name is looked up in the DNS.
	program.Write(t, filepath.Join(dir, "etc/main.cf"), strings.NewReplacer("DIR", dir, "SMTP", smtp.port).Replace(`
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/log
maillog_file_prefixes = DIR
myhostname = front.example
mydestination =
alias_maps =
local_recipient_maps =
inet_protocols = all
smtp_host_lookup = native
disable_dns_lookups = yes
smtpd_tls_security_level = none
smtpd_peername_lookup = no
relay_domains = example.com
smtpd_authorized_xclient_hosts = static:all
smtp_send_xforward_command = yes
lmtp_send_xforward_command = yes
smtp_connection_cache_destinations = static:all
lmtp_connection_cache_destinations = static:all
relay_transport = relay:[127.0.0.1]:SMTP
`))
	program.Write(t, filepath.Join(dir, "etc/master.cf"), strings.NewReplacer(
		"LMTP-FILTER", p.lmtp, "FILTER", p.filter, "ADJUST", p.adjust, "RELAY", p.relay, "SMTP", smtp.addr, "LMTP", lmtp.addr,
	).Replace(`
FILTER inet n - n - - smtpd -o smtpd_proxy_filter=SMTP
ADJUST inet n - n - - smtpd -o smtpd_proxy_filter=SMTP -o smtpd_proxy_options=speed_adjust
RELAY inet n - n - - smtpd
LMTP-FILTER inet n - n - - smtpd -o content_filter=lmtp:inet:LMTP
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`))
	if out, err := exec.Command(program.Need(t, "postconf"), "-h", "mail_version").Output(); err == nil {
		t.Logf("Postfix %s", out)
	}
	t.Cleanup(func() {
		if log, err := os.ReadFile(p.log); err == nil && t.Failed() {
			t.Logf("Postfix has logged:\n%s", log)
		}
	})
	program.Start(t, []string{p.filter, p.adjust, p.relay, p.lmtp}, master, "-c", filepath.Join(dir, "etc"), "-d")
	smtp.forget()
	return &p
}

// introduce says who a client of Postfix is, which takes XCLIENT, too, but has no client of it.
func (k *client) introduce(xclient, greeting string) {
	k.t.Helper()
	k.say("XCLIENT "+xclient, 220)
	k.say(greeting, 250)
}

func TestPostfixTellsWhereEachMessageIsFrom(t *testing.T) {
	s := serve(t, serverOptions{})
	l := serve(t, serverOptions{lmtp: true})
	p := startPostfix(t, s, l)
	// What is sent with these, but for the message's name in Postfix's queue.
	first := hooks.Forwarded{
		Name: "client.example", Addr: netip.MustParseAddr("2001:db8::7"), Port: 7777,
		HELO: "c+d=e", Proto: "SMTP", Source: "REMOTE",
	}
	second := hooks.Forwarded{
		Addr: netip.MustParseAddr("192.0.2.8"), Port: 8888, HELO: "second.example", Proto: "ESMTP", Source: "REMOTE",
	}
	// The first is in smtpd; the other in smtp(8) and lmtp(8), which leave out what they
	// don't know, and don't wait for replies.
	filtering := [2]string{
		"XFORWARD NAME=client.example ADDR=IPv6:2001:db8::7 PORT=7777 HELO=c+2Bd=e IDENT=[UNAVAILABLE] PROTO=SMTP SOURCE=REMOTE",
		"XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.8 PORT=8888 HELO=second.example IDENT=[UNAVAILABLE] PROTO=ESMTP SOURCE=REMOTE",
	}
	delivering := [2]string{
		"XFORWARD NAME=client.example ADDR=IPv6:2001:db8::7 PORT=7777|XFORWARD PROTO=SMTP HELO=c+2Bd=e IDENT=QUEUE SOURCE=REMOTE",
		"XFORWARD ADDR=192.0.2.8 PORT=8888|XFORWARD PROTO=ESMTP HELO=second.example IDENT=QUEUE SOURCE=REMOTE",
	}
	queued := 0
	for _, test := range []struct {
		why    string
		addr   string
		server *server
		sent   [2]string
		queue  bool // the message has a name
		conns  int
	}{
		{"smtpd_proxy_filter", p.filter, s, filtering, false, 2},
		{"smtpd_proxy_filter with speed_adjust", p.adjust, s, filtering, false, 2},
		{"smtp_send_xforward_command", p.relay, s, delivering, true, 1},
		{"lmtp_send_xforward_command", p.lmtp, l, delivering, true, 1},
	} {
		t.Run(test.why, func(t *testing.T) {
			k := dial(t, "127.0.0.2", test.addr)
			k.say("", 220)
			k.introduce("NAME=client.example ADDR=IPV6:2001:db8::7 PORT=7777", "HELO c+d=e")
			k.mail()
			test.server.await(t, 1)
			if test.queue {
				queued++
				p.delivered(t, queued)
			}
			k.introduce("NAME=[UNAVAILABLE] ADDR=192.0.2.8 PORT=8888", "EHLO second.example")
			k.mail()
			k.say("QUIT", 221)
			mails := test.server.await(t, 2)
			if test.queue {
				queued++
			}
			sent := linesOf("XFORWARD", test.server.commands())
			test.server.mu.Lock()
			conns := len(test.server.sent)
			test.server.mu.Unlock()
			test.server.forget()

			want := strings.Split(strings.Join(test.sent[:], "|"), "|")
			for i, forwarded := range []hooks.Forwarded{first, second} {
				m := mails[i]
				m.check(t)
				if ident := m.forwarded.Ident; test.queue {
					if !regexp.MustCompile("^[0-9A-F]{8,}$").MatchString(ident) {
						t.Errorf("the name of a message is %q", ident)
					}
					want[2*i+1] = strings.Replace(want[2*i+1], "QUEUE", ident, 1)
					forwarded.Ident = ident
				}
				if m.forwarded != forwarded {
					t.Errorf("message %d is from %+v, want %+v", i+1, m.forwarded, forwarded)
				}
				if ip := m.conn.RemoteIP.String(); ip != "127.0.0.1" {
					t.Errorf("the client of the server is %s, not Postfix", ip)
				}
			}
			if !slices.Equal(sent, want) {
				t.Errorf("Postfix sent\n%q, want\n%q", sent, want)
			}
			if conns != test.conns {
				t.Errorf("Postfix has come %d times, want %d", conns, test.conns)
			}
		})
	}
}

// It sends no XFORWARD where it isn't offered any.
func TestPostfixThatIsNotTrustedTellsNothing(t *testing.T) {
	s := serve(t, serverOptions{xclient: new(hooks.XCLIENT)})
	p := startPostfix(t, s, s)
	for _, addr := range []string{p.filter, p.relay} {
		k := dial(t, "127.0.0.2", addr)
		k.say("", 220)
		k.say("EHLO c.example", 250)
		k.mail()
		k.say("QUIT", 221)
		m, octets := s.one(t)
		m.check(t)
		if m.forwarded != (hooks.Forwarded{}) || strings.Contains(octets, "XFORWARD") {
			t.Errorf("the message is from %+v; Postfix sent %q", m.forwarded, octets)
		}
	}
}
