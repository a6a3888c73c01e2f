package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestOnceSubmitsAMessageBehindAUTHAndPrintsNoSecret(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := regexp.MustCompile(`(?m)^listening on 127\.0\.0\.1:[1-9][0-9]*
 -> server: 220 .*
EHLO localhost -> server: (250[- ][^A|][^|]*\| )+250 STARTTLS
STARTTLS -> library: 220 .*
EHLO localhost -> server: .* \| 250 AUTH CRAM-MD5
MAIL FROM:<sender@example\.org>.* -> hook: 530 5\.7\.0 Authentication required
AUTH CRAM-MD5 -> hook: 334 [\w+/]+=*
\*\*\*\* -> hook: 235 2\.7\.0 Welcome
MAIL FROM:<sender@example\.org>.* -> server: 250 .*
RCPT TO:<one@example\.com> -> server: 250 .*
DATA -> server: 354 .*
mail: from "sender@example\.org" to \["one@example\.com"\], 25 octets, user "demo"
DATA -> server: 250 .*
QUIT -> server: 221 .*
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got\n%s\nwant a match of\n%v", &out, want)
	}
}

func newSession(inTLS bool) *proxytest.Session {
	var conn smtpproxy.Connection
	if inTLS {
		conn.TLS.Protocol = "TLSv1.3"
	}
	s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: cramMD5{"demo": "demo", "": "nobody's"}}, conn, smtpproxy.Transaction{})
	s.Answer("EHLO", 250, "server.example", "PIPELINING")
	s.Send("EHLO client.example")
	return s
}

// answer answers the challenge that the client has got.
func answer(t *testing.T, s *proxytest.Session, user, password string) string {
	t.Helper()
	challenge, err := base64.StdEncoding.DecodeString(s.Reply().Lines[0])
	if s.Reply().Code != 334 || err != nil {
		t.Fatalf("got %v, %v, want a challenge", s.Reply(), err)
	}
	mac := hmac.New(md5.New, []byte(password))
	mac.Write(challenge)
	return base64.StdEncoding.EncodeToString([]byte(user + " " + hex.EncodeToString(mac.Sum(nil))))
}

func TestTheMechanismIsThatOfTheRFC(t *testing.T) {
	// The example of RFC 2195 section 2.
	l := &login{challenge: "<1896.697170952@postoffice.reston.mci.net>"}
	h := cramMD5{"tim": "tanstaaftanstaaf"}
	got := h.finish(l, "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw")
	if r, ok := got.(smtpproxy.Reply); !ok || r.Code != 235 || l.user != "tim" {
		t.Errorf("got %v for %q", got, l.user)
	}
}

func TestWhoKnowsThePasswordMaySendMail(t *testing.T) {
	s := newSession(true)
	if got := s.Reply().Lines; got[len(got)-1] != "AUTH CRAM-MD5" {
		t.Errorf("announced is %q", got)
	}
	for _, tt := range []struct {
		why, user, password, mail, again string
		auth                             int
	}{
		{"another's password", "demo", "wrong", "530", "334", 535},
		{"no such user, and no password", "mallory", "", "530", "334", 535},
		{"the user", "demo", "demo", "250", "503", 235},
	} {
		s.Send("auth cram-md5")
		s.Send(answer(t, s, tt.user, tt.password))
		if got := s.Reply().Code; got != tt.auth {
			t.Errorf("%s: AUTH got %d, want %d", tt.why, got, tt.auth)
		}
		if s.Send("MAIL FROM:<a@example.org>"); !strings.HasPrefix(s.Reply().String(), tt.mail) {
			t.Errorf("%s: MAIL got %v", tt.why, s.Reply())
		}
	}
	s.Send("RSET")
	if s.Send("AUTH CRAM-MD5"); s.Reply().Code != 503 {
		t.Errorf("a second time: %v", s.Reply())
	}
	if got := s.Connection().Auth; got != (smtpproxy.Auth{}) || userOf(s.Context()) != "demo" {
		t.Errorf("the library knows of %v, the hook of %q", got, userOf(s.Context()))
	}
}

func TestAnAnswerIsForItsOwnChallenge(t *testing.T) {
	s := newSession(true)
	s.Send("AUTH CRAM-MD5")
	old := answer(t, s, "demo", "demo")
	s.Send("*")
	s.Send("AUTH CRAM-MD5")
	if s.Send(old); s.Reply().Code != 535 {
		t.Errorf("the answer to another challenge got %v", s.Reply())
	}
}

func TestWhatIsWrongWithAUTHIsTold(t *testing.T) {
	for _, tt := range []struct {
		why  string
		tls  bool
		line []string
		want string
	}{
		{"no TLS", false, []string{"AUTH CRAM-MD5"}, "523 5.7.10 "},
		{"cancelled", true, []string{"AUTH CRAM-MD5", "*"}, "501 5.7.0 "},
		{"no base64", true, []string{"AUTH CRAM-MD5", "!"}, "501 5.5.2 "},
		{"no answer at all", true, []string{"AUTH CRAM-MD5", ""}, "535 5.7.8 "},
		{"no digest", true, []string{"AUTH CRAM-MD5", "ZGVtbw=="}, "535 5.7.8 "},
		{"an initial response", true, []string{"AUTH CRAM-MD5 ZGVtbw=="}, "501 5.7.0 "},
		{"a mechanism that's the server's to know", true, []string{"AUTH X-TOKEN"}, "504 "},
		{"mail without it", true, []string{"MAIL FROM:<>"}, "530 5.7.0 "},
	} {
		s := newSession(tt.tls)
		if announced := strings.Contains(s.Reply().String(), "AUTH"); announced != tt.tls {
			t.Errorf("%s: AUTH announced: %v", tt.why, announced)
		}
		for _, line := range tt.line {
			s.Send(line)
		}
		if got := s.Reply().String(); !strings.HasPrefix(got, tt.want) || s.Failure() != nil || userOf(s.Context()) != "" {
			t.Errorf("%s: %q, want %q\n%s", tt.why, got, tt.want, s.Transcript())
		}
	}
}

func TestWhoHasAuthenticatedWithTheServerNeedsNoHook(t *testing.T) {
	s := newSession(true)
	s.Send("AUTH PLAIN AHVzZXIAcGFzcw==")
	if s.Send("AUTH CRAM-MD5"); s.Reply().Code != 503 {
		t.Errorf("AUTH once more got %v", s.Reply())
	}
	if s.Send("MAIL FROM:<a@example.org>"); s.Reply().Code != 250 {
		t.Errorf("MAIL got %v", s.Reply())
	}
}

func TestAUTHWithinATransactionIsRefused(t *testing.T) {
	conn := smtpproxy.Connection{TLS: smtpproxy.TLS{Protocol: "TLSv1.3"}}
	s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: cramMD5{}}, conn, smtpproxy.Transaction{Active: true})
	if s.Send("AUTH CRAM-MD5"); s.Reply().Code != 503 {
		t.Errorf("got %v", s.Reply())
	}
}

func TestTheThirdWrongAnswerIsTheLast(t *testing.T) {
	s := newSession(true)
	for i := range 3 {
		if s.Closed() {
			t.Fatalf("closed after %d", i)
		}
		s.Send("AUTH CRAM-MD5")
		s.Send("ZGVtbw==")
	}
	if s.Reply().Code != 535 || !s.Closed() {
		t.Errorf("got %v, closed %v", s.Reply(), s.Closed())
	}
}
