package hooks_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// These are what people have asked servers made for tests for, each in front of go-smtp, on
// loopback, and set as they would, over HTTP.

// sink is such a server.
type sink struct {
	*server
	t     *testing.T
	chaos *hooks.Chaos
	api   string
}

// newSink starts one; before are hooks that stand before its Chaos.
func newSink(t *testing.T, before ...smtpproxy.Hook) *sink {
	t.Helper()
	chaos := new(hooks.Chaos)
	p := silent(chaos)
	p.Hook = smtpproxy.Chain(append(before, chaos)...)
	api := httptest.NewServer(chaos)
	t.Cleanup(api.Close)
	return &sink{serveOn(t, p, chaos, how{}), t, chaos, api.URL}
}

// put sets rules.
func (s *sink) put(rules string) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPut, s.api, strings.NewReader(rules))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s", rules, resp.Status)
	}
}

// wants plays a dialogue, and checks the codes of the replies, the greeting's among them.
func (s *sink) wants(want string, lines ...string) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	codes, end := allReplies(s.t, c, lines...)
	got := strings.Join(codes, " ")
	if end == "dropped" {
		got += " dropped"
	}
	if got = strings.TrimSpace(got); got != want {
		s.t.Errorf("%q: %s, want %s", lines, got, want)
	}
}

var aMail = []string{"EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "x\r\n."}

// github.com/axllent/mailpit/issues/402: errors of one's choice for the sender, the recipients
// and the authentication, with a chance each.
func TestMailpit402AChosenErrorAtAChosenCommand(t *testing.T) {
	s := newSink(t)
	s.put(`{"rules": [{"at": "MAIL", "code": 451}]}`)
	s.wants("220 250 451", aMail[:2]...)
	s.put(`{"rules": [{"at": "RCPT", "code": 550}, {"at": "AUTH", "code": 535}]}`)
	s.wants("220 250 250 550", aMail[:3]...)
	s.wants("220 250 535", "EHLO x", "AUTH PLAIN AGFsaWNlAHNlY3JldA==")
	s.put(`{"seed": 1, "rules": [{"at": "NOOP", "probability": 0.5, "code": 450}]}`)
	s.wants("220 450 250 450 450 250 250 450 450", "NOOP", "NOOP", "NOOP", "NOOP", "NOOP", "NOOP", "NOOP", "NOOP")
	s.put(`{}`)
	s.wants("220 250 250 250 354 250", aMail...)
}

// github.com/axllent/mailpit/issues/621: MAIL is accepted before EHLO.
func TestMailpit621MAILBeforeEHLOIsRefused(t *testing.T) {
	newSink(t, hooks.Strict{}).wants("220 503 250 250", "MAIL FROM:<alice@example.com>", "EHLO x", "MAIL FROM:<alice@example.com>")
}

// github.com/axllent/mailpit/issues/622: a source route without its colon is accepted.
func TestMailpit622AMalformedSourceRouteIsRefused(t *testing.T) {
	newSink(t, hooks.Strict{}).wants("220 250 250 501 250", "EHLO x", "MAIL FROM:<alice@example.com>",
		"RCPT TO:<@route.example user@example.com>", "RCPT TO:<user@example.com>")
}

// github.com/axllent/mailpit/issues/623: MAIL is accepted within a transaction. The library
// refuses that without any hook.
func TestMailpit623MAILWithinATransactionIsRefused(t *testing.T) {
	newSink(t).wants("220 250 250 250 503 354 250", "EHLO x", "MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.com>",
		"MAIL FROM:<charlie@example.com>", "DATA", "x\r\n.")
}

// github.com/axllent/mailpit/issues/676: a 421 that follows the rate, not a chance.
func TestMailpit676A421ByTheRateOfConnections(t *testing.T) {
	sink := newSink(t)
	sink.put(`{"rules": [{"at": "connect", "skip": 3, "every": "1h", "code": 421, "enhanced": "4.7.0", "text": "Too many connections"}]}`)
	for range 3 {
		sink.wants("220 250", "NOOP")
	}
	sink.wants("421 dropped", "NOOP")

	// And anew when the time has passed.
	synctest.Test(t, func(t *testing.T) {
		c := new(hooks.Chaos)
		rule := hooks.ChaosRule{At: "connect", Skip: 3, Every: hooks.Duration(time.Minute), Code: 421, Enhanced: "4.7.0", Text: "Too many connections"}
		if err := c.Set(1, rule); err != nil {
			t.Fatal(err)
		}
		for window := range 2 {
			for i, want := range []int{220, 220, 220, 421} {
				s := proxytest.NewSession(&smtpproxy.Proxy{Hook: c})
				s.Connect()
				if got := s.Reply().Code; got != want {
					t.Errorf("window %d, client %d: %d, want %d", window, i, got, want)
				}
				s.Close()
			}
			time.Sleep(time.Minute + time.Second) // in a bubble
		}
	})
}

// github.com/ChangemakerStudios/Papercut-SMTP/issues/199: so many mails an hour, with the reply
// of one provider or another.
func TestPapercut199TheReplyBehindSoManyMails(t *testing.T) {
	s := newSink(t)
	for _, reply := range []struct{ json, code string }{
		{`"code": 421, "enhanced": "4.7.1", "text": "Rate limit exceeded"`, "421"},
		{`"code": 451, "enhanced": "4.7.1", "text": "Rate limit exceeded"`, "451"},
		{`"code": 452, "enhanced": "4.5.3", "text": "Too many messages"`, "452"},
		{`"code": 550, "enhanced": "5.7.1", "text": "Daily quota exceeded"`, "550"},
	} {
		s.put(`{"rules": [{"at": "MAIL", "skip": 2, "every": "1h", ` + reply.json + `}]}`)
		s.wants("220 250 250 250 354 250", aMail...)
		s.wants("220 250 250 250 354 250", aMail...)
		s.wants("220 250 "+reply.code, aMail[:2]...)
	}
}

// github.com/rnwood/smtp4dev/issues/1722: a reply of one's own to any command.
func TestSmtp4dev1722AReplyOfOnesOwnToAnyCommand(t *testing.T) {
	s := newSink(t)
	for _, verb := range []string{"EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "AUTH", "STARTTLS", "PING", "QUIT"} {
		s.put(`{"rules": [{"at": "` + verb + `", "code": 599, "text": "No ` + verb + ` today"}]}`)
		s.wants("220 599", verb+" x")
	}
}

// github.com/dahlia/upyo/issues/37 and 41: a client that has to bear with a 251 to RCPT, and has to
// say HELO where EHLO gets a 500.
func TestUpyo37A251ToRCPTAndA500ToEHLO(t *testing.T) {
	s := newSink(t)
	s.put(`{"rules": [{"at": "EHLO", "code": 500, "enhanced": "none", "text": "Command unrecognized"}, {"at": "RCPT", "recipient": "^moved@", "code": 251}]}`)
	s.wants("220 500 250 250 251 250 354 250", "EHLO x", "HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<moved@d.example>", "RCPT TO:<c@d.example>", "DATA", "x\r\n.")
	// The server has not heard of the one that has moved, so there is nobody left.
	s.wants("220 250 250 251 502", "HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<moved@d.example>", "DATA")
}

// github.com/martinellich/testcontainers-mailpit/issues/59: failures for chosen addresses, set from
// a test.
func TestTestcontainersMailpit59ChaosForAnAddress(t *testing.T) {
	s := newSink(t)
	s.put(`{"rules": [
		{"at": "RCPT", "recipient": "^full@example\\.org$", "code": 452, "enhanced": "4.2.2", "text": "Mailbox full"},
		{"at": "RCPT", "recipient": "@gone\\.example$", "code": 550, "enhanced": "5.1.1"},
		{"at": "MAIL", "sender": "^spammer@", "code": 554},
		{"at": "message", "recipient": "^lost@", "drop": true}]}`)
	s.wants("220 250 554 250 452 550 250", "EHLO x", "MAIL FROM:<spammer@example.com>", "MAIL FROM:<alice@example.com>",
		"RCPT TO:<Full@example.org>", "RCPT TO:<x@gone.example> NOTIFY=NEVER", "RCPT TO:<notfull@example.org>")
	s.wants("220 250 250 250 354 dropped", "EHLO x", "MAIL FROM:<alice@example.com>", "RCPT TO:<lost@example.org>", "DATA", "x\r\n.")
}

// github.com/mailhog/MailHog/issues/326: how the next mail fails, told over HTTP.
func TestMailHog326HowTheNextMailFails(t *testing.T) {
	s := newSink(t)
	for _, next := range []struct{ rule, want string }{
		{`"at": "connect", "drop": true`, "dropped"},
		{`"at": "MAIL", "code": 451`, "220 250 451"},
		{`"at": "RCPT", "code": 550`, "220 250 250 550"},
		{`"at": "DATA", "code": 552`, "220 250 250 250 552"},
	} {
		s.put(`{"rules": [{"times": 1, ` + next.rule + `}]}`)
		lines := aMail
		if n := len(strings.Fields(next.want)) - 1; n > 0 {
			lines = aMail[:n]
		}
		s.wants(next.want, lines...)
		s.wants("220 250 250 250 354 250", aMail...) // and that behind it doesn't
	}
}
