package hooks_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// This file has the policies before go-smtp, on loopback.

// guarded is go-smtp behind a hook, which notes what it gets.
func guarded(t *testing.T, p smtpproxy.Proxy, peer string, lmtp bool) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		s.note("session")
		return &backend{s}, nil
	}))
	srv.LMTP, srv.AllowInsecureAuth, srv.ErrorLog = lmtp, true, log.New(io.Discard, "", 0)
	p.Logger = slog.New(slog.DiscardHandler)
	p.AllowInsecureAuth = true
	p.OnFailure = func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
		t.Errorf("a hook failed: %v", f)
		return nil
	}
	var from net.Addr
	if peer != "" {
		from = &net.TCPAddr{IP: net.ParseIP(peer), Port: 7}
	}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, peerListener{l, from}, &p) }()
	t.Cleanup(func() { srv.Close(); <-served })
	return s
}

// talk connects and sends steps, each when the reply to the one before has come. It returns the
// codes of all replies, with "closed" where the server closes the connection. A step startTLS
// shakes hands, and one without a line end is sent without waiting for a reply.
func (s *server) talk(t *testing.T, tlsFirst bool, steps ...string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Close() }()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var codes []string
	secure := func() {
		tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c = tc
	}
	if tlsFirst {
		secure()
	}
	r := bufio.NewReader(c)
	read := func() bool {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				codes = append(codes, "closed")
				return false
			}
			if line[3] == ' ' {
				codes = append(codes, line[:3])
				return true
			}
		}
	}
	if !read() {
		return strings.Join(codes, " ")
	}
	for _, step := range append(steps, "") {
		switch {
		case step == startTLS:
			secure()
			r.Reset(c)
			continue
		case step == "":
			c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // is it closed?
			if _, err := r.ReadByte(); err == io.EOF {
				codes = append(codes, "closed")
			}
			continue
		}
		io.WriteString(c, step)
		if strings.HasSuffix(step, "\n") && !read() {
			break
		}
	}
	return strings.Join(codes, " ")
}

// security is how a client and a server speak TLS.
var securities = []string{"plain", "STARTTLS", "implicit TLS"}

// secured returns a proxy for that, and how a dialogue begins that has come to EHLO.
func secured(t *testing.T, security string, h smtpproxy.Hook) (p smtpproxy.Proxy, tlsFirst bool, begin []string, codes string) {
	p.Hook = h
	begin, codes = []string{"EHLO c.example\r\n"}, "220 250"
	switch security {
	case "STARTTLS":
		p.TLSConfig = certificate(t)
		begin, codes = []string{"EHLO c.example\r\n", "STARTTLS\r\n", startTLS, "EHLO c.example\r\n"}, "220 250 220 250"
	case "implicit TLS":
		p.TLSConfig, p.ImplicitTLS, tlsFirst = certificate(t), true, true
	}
	return p, tlsFirst, begin, codes
}

func TestAUTHWithoutTLSEndsTheSession_gosmtp227(t *testing.T) {
	for _, security := range securities {
		p, tlsFirst, begin, codes := secured(t, security, &hooks.RequireTLS{Disconnect: true})
		s := guarded(t, p, "", false)
		want, noted := codes+" 235", []string{"session", "server: AUTH a"}
		if security == "plain" {
			want, noted = codes+" 523 closed", []string{"session"}
		} else if security == "STARTTLS" {
			noted = []string{"session", "session", "server: AUTH a"}
			if got := s.talk(t, false, "EHLO c.example\r\n", "AUTH PLAIN AGEAYg==\r\nNOOP\r\n"); got != "220 250 523 closed" {
				t.Errorf("before STARTTLS: %s", got)
			}
			noted = append([]string{"session"}, noted...)
		}
		if got := s.talk(t, tlsFirst, append(begin, "AUTH PLAIN AGEAYg==\r\n")...); got != want {
			t.Errorf("%s: %s, want %s", security, got, want)
		}
		s.wants(t, security, noted...)
	}
}

func TestMailWaitsForTLS(t *testing.T) {
	for _, security := range securities {
		p, tlsFirst, begin, codes := secured(t, security, &hooks.RequireTLS{Everything: true})
		s := guarded(t, p, "", false)
		want := codes + " 250 250"
		if security == "plain" {
			want = codes + " 530 530"
		}
		if got := s.talk(t, tlsFirst, append(begin, "MAIL FROM:<a@example.com>\r\n", "RCPT TO:<b@example.org>\r\n")...); got != want {
			t.Errorf("%s: %s, want %s", security, got, want)
		}
	}
}

func TestAClientIsRefusedByItsAddressBeforeTheGreeting_gosmtp205_gosmtp237_gosmtp130(t *testing.T) {
	for _, security := range []string{"plain", "implicit TLS"} {
		for peer, want := range map[string]string{"203.0.113.7": "554 closed", "2001:db8::7": "554 closed", "198.51.100.7": "220 250"} {
			p, tlsFirst, begin, _ := secured(t, security, &hooks.Networks{Deny: prefixes("203.0.113.0/24", "2001:db8::/32")})
			s := guarded(t, p, peer, false)
			for range 3 { // the server goes on
				if got := s.talk(t, tlsFirst, begin...); got != want {
					t.Errorf("%s from %s: %s, want %s", security, peer, got, want)
				}
			}
			if got := len(s.record()); got > 0 != (want[0] == '2') {
				t.Errorf("%s from %s: %d sessions", security, peer, got)
			}
		}
	}
}

func TestHELPIsAnswered_gosmtp264(t *testing.T) {
	help := hooks.Answers{"HELP": {Code: 214, Lines: []string{"See https://mail.example/help"}}}
	for name, want := range map[string]string{"as go-smtp does": "220 502", "in its place": "220 214"} {
		var h smtpproxy.Hook
		if want == "220 214" {
			h = help
		}
		if got := guarded(t, smtpproxy.Proxy{Hook: h}, "", false).talk(t, false, "HELP\r\n"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestVRFYIsAnswered252_interactsh991(t *testing.T) {
	h := hooks.Answers{"VRFY": {Code: 252, Enhanced: smtpproxy.EnhancedCode{2, 5, 0}, Lines: []string{"Cannot VRFY user, but will take the message"}}}
	s := guarded(t, smtpproxy.Proxy{Hook: h}, "", false)
	if got := s.talk(t, false, "VRFY alice\r\n", "EHLO c.example\r\n", "vrfy bob\r\n", "NOOP\r\n"); got != "220 252 250 252 250" {
		t.Error(got)
	}
}

func TestARefusedChunkIsNoCommand(t *testing.T) {
	for name, h := range map[string]smtpproxy.Hook{
		"AllowVerbs": hooks.AllowVerbs("EHLO", "LHLO", "MAIL", "RCPT", "RSET", "NOOP"), "Answers": hooks.Answers{"BDAT": {Code: 502}},
	} {
		for _, lmtp := range []bool{false, true} {
			s := guarded(t, smtpproxy.Proxy{Hook: h}, "", lmtp)
			hello, bdat := "EHLO", "502"
			if lmtp {
				hello, bdat = "LHLO", "502 502" // once for each recipient
			}
			chunk := "MAIL FROM:<x@example.com>\r\n"
			steps := []string{hello + " c.example\r\n", "MAIL FROM:<a@example.com>\r\n", "RCPT TO:<b@example.org>\r\n", "RCPT TO:<c@example.org>\r\n",
				fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk), "NOOP\r\n", "MAIL FROM:<d@example.com>\r\n"}
			want := "220 250 250 250 250 " + bdat + " 250 250"
			if lmtp {
				want = "220 250 250 250 250 502 502 250" // each reply is read behind one more line
			}
			if got := s.talk(t, false, steps...); got != want {
				t.Errorf("%s, LMTP %v: %s, want %s", name, lmtp, got, want)
			}
		}
	}
}

func TestContentThatDoesNotWaitIsNoCommand(t *testing.T) {
	for _, hello := range []string{"EHLO c.example\r\n", "HELO c.example\r\n"} {
		s := guarded(t, smtpproxy.Proxy{Hook: hooks.Strict{}}, "", false)
		got := s.talk(t, false, hello, "MAIL FROM:<a@example.com>\r\n", "RCPT TO:<b@example.org>\r\n", "DATA\r\nMAIL FROM:<x@example.com>\r\n.\r\n")
		if got != "220 250 250 250 554 closed" {
			t.Errorf("%q: %s", hello, got)
		}
		s.wants(t, hello, "session")
	}
}

func TestClientsThatKeepToTheRulesAreNotHeldUpByStrict(t *testing.T) {
	for _, security := range securities {
		p, tlsFirst, begin, codes := secured(t, security, hooks.Strict{})
		s := guarded(t, p, "", false)
		got := s.talk(t, tlsFirst, append(begin, "AUTH LOGIN\r\n", "QQ==\r\n", "QQ==\r\n", "MAIL FROM:<a@example.com> SIZE=10\r\n", "RCPT TO:<nobody@example.org>\r\n", "DATA\r\n",
			"RCPT TO:<b@example.org>\r\n", "DATA\r\n", "Subject: x\r\n\r\nHELO x\r\n.\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<b@example.org>\r\n", "BDAT 6\r\nNOOP\r\n", "BDAT 0 LAST\r\n", "QUIT\r\n")...)
		if want := codes + " 334 334 235 250 550 503 250 354 250 250 250 250 250 221 closed"; got != want {
			t.Errorf("%s: %s, want %s", security, got, want)
		}
		noted := slices.DeleteFunc(s.record(), func(line string) bool { return line == "session" })
		if want := []string{`server: message "Subject: x\r\n\r\nHELO x\r\n"`, `server: message "NOOP\r\n"`}; !slices.Equal(noted, want) {
			t.Errorf("%s: %q", security, noted)
		}
	}
}

func TestAListedClientIsRefusedBeforeTheGreeting(t *testing.T) {
	d := hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: listsAll()})
	for peer, want := range map[string]string{"203.0.113.7": "554 closed", "2001:db8::7": "554 closed", "10.0.0.1": "220 250", "": "220 250"} {
		if got := guarded(t, smtpproxy.Proxy{Hook: d}, peer, false).talk(t, false, "EHLO c.example\r\n"); got != want {
			t.Errorf("from %q: %s, want %s", peer, got, want)
		}
	}
}

func TestMailOfBadGreetingsAndOfNamelessHostsIsRefused(t *testing.T) {
	h := smtpproxy.Chain(&hooks.CheckHELO{Own: []string{"mx.example"}}, hooks.RequirePTR{})
	for _, row := range []struct{ hello, want string }{
		{"EHLO mx.example\r\n", "220 250 550"}, {"HELO 127.0.0.1\r\n", "220 250 550"}, {"EHLO [127.0.0.2]\r\n", "220 250 550"}, {"EHLO [127.0.0.1]\r\n", "220 250 450"},
	} {
		s := guarded(t, smtpproxy.Proxy{Hook: h}, "", false)
		if got := s.talk(t, false, row.hello, "MAIL FROM:<a@example.com>\r\n"); got != row.want {
			t.Errorf("%q: %s, want %s", row.hello, got, row.want)
		}
		if got := s.talk(t, false, row.hello, "AUTH PLAIN AGEAYg==\r\n", "MAIL FROM:<a@example.com>\r\n"); got != "220 250 235 250" {
			t.Errorf("%q, authenticated: %s", row.hello, got)
		}
	}
}

func TestAnEarlyTalkerNeverReachesGoSMTP(t *testing.T) {
	s := guarded(t, smtpproxy.Proxy{Hook: &hooks.EarlyTalkers{Delay: 100 * time.Millisecond}}, "", false)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "EHLO c.example\r\nMAIL FROM:<a@example.com>\r\n")
	all, _ := io.ReadAll(c)
	if lines := strings.Split(string(all), "\r\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "220 ") || !strings.HasPrefix(lines[1], "554 5.5.1 ") {
		t.Errorf("%q", all)
	}
	if got := s.talk(t, false, "EHLO c.example\r\n"); got != "220 250" {
		t.Errorf("who waits: %s", got)
	}
	s.wants(t, "sessions", "session")
}
