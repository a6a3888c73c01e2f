package hooks_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// This file has what people have asked their servers for, each in a test that is named after the
// place.

// ChangemakerStudios/Papercut-SMTP#199: a test server that says what a provider says to who
// sends too much.
func TestPapercutSMTP199SimulatesTheLimitsOfAProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reply := func(code, class, subject, detail int, text string) smtpproxy.Reply {
			return smtpproxy.Reply{Code: code, Enhanced: smtpproxy.EnhancedCode{class, subject, detail}, Lines: []string{text}}
		}
		hook := hooks.Limits{Limits: []hooks.Limit{
			{What: hooks.Connections, Per: hooks.InAll, Max: 5, Every: 10 * time.Minute, Beyond: reply(421, 4, 7, 1, "Too many connections, try again later")},
			{What: hooks.Messages, Per: hooks.InAll, Max: 3, Every: time.Hour, Beyond: reply(451, 4, 7, 1, "Try again later")},
			{What: hooks.Recipients, Max: 4, Beyond: reply(452, 4, 5, 3, "Too many recipients")},
			{What: hooks.WrongRecipients, Max: 2, Beyond: reply(550, 5, 7, 1, "Access denied")},
		}}.Hook()
		s := limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 250 250 250 250 250 452 354 250", ehlo, mail, rcpt, rcpt, rcpt, rcpt, rcpt, "DATA", ".")
		for range 2 {
			s = limitsFrom(hook, "192.0.2.1")
			say(t, s, "250 250 250 354 250", ehlo, mail, rcpt, "DATA", ".")
		}
		s = limitsFrom(hook, "192.0.2.1")
		if say(t, s, "250 451", ehlo, mail); s.Reply().String() != "451 4.7.1 Try again later" {
			t.Errorf("the fourth message of an hour: %v", s.Reply())
		}
		s = limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 451", ehlo, mail)
		if s = limitsFrom(hook, "192.0.2.1"); s.Reply().String() != "421 4.7.1 Too many connections, try again later" {
			t.Errorf("the sixth connection in ten minutes: %v", s.Reply())
		}
		time.Sleep(20 * time.Minute)
		s = limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 250 553 550 550 250", ehlo, mail, "553 "+rcpt, "550 "+rcpt, rcpt, "RSET")
		say(t, s, "250 550", mail, rcpt)
	})
}

// stalwartlabs/stalwart#1384: a client that gets 452 for one message too many of a session takes
// it for the message's fault. 421 tells it to come back, with a new session.
func TestStalwart1384AClientOfManyMessagesIsToldToComeBack(t *testing.T) {
	s, addr := limitsServe(t, hooks.Limits{Limits: []hooks.Limit{{What: hooks.Messages, Max: 2}}}.Hook())
	const messages = 5
	sent := 0
	for sessions := 1; sent < messages; sessions++ {
		if sessions > 3 {
			t.Fatalf("%d messages in %d sessions", sent, sessions-1)
		}
		c := limitsDial(t, addr, "127.0.0.1")
		c.codes(1)
		c.ask("EHLO x", "250")
		for n := 0; sent < messages; n++ {
			if n == 2 {
				c.ask(mail, "421")
				c.closed()
				break
			}
			c.ask(limitsEnvelope+"\nDATA\nhello\n.", "250 250 354 250")
			sent++
		}
	}
	if got := len(s.Messages()); got != messages {
		t.Errorf("the server has %d messages, want %d", got, messages)
	}
}

// haraka/haraka-plugin-limit PR#78: the limit of recipients for the null sender was never applied.
func TestHarakaLimit78TheNullSenderHasALimitLikeAnyOther(t *testing.T) {
	hook := limitsOf(
		hooks.Limit{What: hooks.Recipients, Per: hooks.PerSender, Max: 2, Every: time.Hour},
		hooks.Limit{What: hooks.Messages, Per: hooks.PerSender, Max: 1, Every: time.Hour})
	s := limitsSession(hook)
	say(t, s, "250 250 250 250 459", ehlo, "MAIL FROM:<>", rcpt, rcpt, rcpt)
	say(t, s, "354 250 250 459", "DATA", ".", "MAIL FROM:<>", rcpt)
	say(t, limitsSession(hook), "250 250 459", ehlo, "MAIL FROM:<> SIZE=10", rcpt)
	say(t, limitsSession(hook), "250 250 250 354 250", ehlo, mail, rcpt, "DATA", ".") // another sender
}

// suitenumerique/messages PR#728: an MX that closes behind a number of errors, and counts why it
// refuses.
func TestSuitenumerique728ABudgetOfErrorsAndACounterOfReasons(t *testing.T) {
	var mu sync.Mutex
	reasons := make(map[string]int)
	hook := hooks.Limits{
		Limits: []hooks.Limit{
			{What: hooks.Errors, Max: 3, Beyond: smtpproxy.Reply{Code: 421, Enhanced: smtpproxy.EnhancedCode{4, 7, 0}, Lines: []string{"Too many errors"}}},
			{What: hooks.Recipients, Max: 2, Beyond: smtpproxy.Reply{Code: 452, Enhanced: smtpproxy.EnhancedCode{4, 5, 3}}},
		},
		OnBeyond: func(_ *smtpproxy.Context, b hooks.Bucket) {
			mu.Lock()
			defer mu.Unlock()
			reasons[b.What.String()+" per "+b.Per.String()]++
		},
	}.Hook()
	s, addr := limitsServe(t, hook)
	c := limitsDial(t, addr, "127.0.0.1")
	c.codes(1)
	c.ask("EHLO x\n"+limitsEnvelope+"\nRCPT TO:<c@example.org>\nRCPT TO:<d@example.org>\nDATA\nx\n.", "250 250 250 250 452 354 250")
	c.ask(strings.Repeat("XYZW\n", 3)+"NOOP\nNOOP", "500 500 500 421 end")
	mu.Lock()
	defer mu.Unlock()
	if got := fmt.Sprint(reasons); got != "map[errors per connection:1 recipients per connection:1]" || len(s.Messages()) != 1 {
		t.Errorf("%s, and %d messages", got, len(s.Messages()))
	}
}

// knadh/listmonk#3017 and #2663: a sender, and an account at a relay, has a rate of its own, and
// what is beyond it waits.
func TestListmonk3017ARateForEachSenderAndForEachLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := hooks.Limits{Limits: []hooks.Limit{
			{What: hooks.Messages, Per: hooks.PerLogin, Max: 20, Every: 20 * time.Second, Beyond: smtpproxy.Reply{Code: 450}},
			{What: hooks.Messages, Per: hooks.PerSender, Max: 10, Every: 10 * time.Second, Beyond: smtpproxy.Reply{Code: 450}},
		}}.Hook()
		send := func(ip, sender, login string) (sent int) {
			c := newLimitsClient(t, hook, ip, sender, login)
			for c.message() {
				sent++
			}
			return sent
		}
		for _, test := range []struct {
			ip, sender, login string
			want              int
		}{
			{"192.0.2.1", "news@a.example", "list", 10}, {"192.0.2.2", "news@a.example", "list", 0},
			{"192.0.2.1", "news@b.example", "list", 10}, {"192.0.2.1", "news@c.example", "list", 0},
			{"192.0.2.1", "news@c.example", "other", 10},
		} {
			if got := send(test.ip, test.sender, test.login); got != test.want {
				t.Errorf("%+v: %d messages", test, got)
			}
		}
		time.Sleep(5 * time.Second)
		if got := send("192.0.2.1", "news@a.example", "list"); got != 5 {
			t.Errorf("after 5 seconds: %d messages, want 5", got)
		}
	})
}

// joshrendek/threat.gg-agent PR#17: a honeypot that hears a hundred commands in five minutes of a
// client at the most.
func TestThreatGG17AHundredCommandsAndFiveMinutes(t *testing.T) {
	hook := hooks.Limits{Limits: []hooks.Limit{{What: hooks.Commands, Max: 100}, {What: hooks.Time, Max: 300}}}.Hook()
	synctest.Test(t, func(t *testing.T) {
		s := limitsFrom(hook, "192.0.2.1")
		for range 100 {
			say(t, s, "250", "NOOP")
		}
		if say(t, s, "421", "NOOP"); !s.Closed() {
			t.Error("it goes on")
		}
		s = limitsFrom(hook, "192.0.2.1")
		for range 10 {
			say(t, s, "250", "NOOP")
			time.Sleep(30 * time.Second)
		}
		if say(t, s, "421", "NOOP"); !s.Closed() || s.Reply().String() != "421 4.7.0 Connected for too long" {
			t.Errorf("it goes on: %v", s.Reply())
		}
	})
}

// axllent/mailpit#676: 421 because of a rate that is real, not by chance.
func TestMailpit676TooManyRequestsByARateThatIsReal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := hooks.Limits{Limits: []hooks.Limit{{What: hooks.Messages, Per: hooks.PerNetwork, Max: 2, Every: time.Minute}}}.Hook()
		s := limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 250 250 250 250 250 250 421", ehlo, mail, rcpt, "BDAT 0 LAST", mail, rcpt, "BDAT 0 LAST", mail)
		time.Sleep(30 * time.Second)
		s = limitsFrom(hook, "192.0.2.1")
		say(t, s, "250 250 250 250 421", ehlo, mail, rcpt, "BDAT 0 LAST", mail)
	})
}

// aio-libs/aiosmtpd#222 and emersion/go-smtp#116: a flood of one command is bounded, others are not.
func TestAiosmtpd222AFloodOfOneCommandIsBounded(t *testing.T) {
	m := new(smtpproxy.Mux)
	m.Handle("NOOP", hooks.Limits{Limits: []hooks.Limit{{What: hooks.Commands, Max: 3}}}.Hook())
	m.Handle("RSET", hooks.Limits{Limits: []hooks.Limit{{What: hooks.Commands, Max: 2}}}.Hook())
	s := limitsSession(m)
	say(t, s, "250 252 252 252 252 250 250 250 250 250 421", ehlo, "VRFY a", "VRFY a", "VRFY a", "VRFY a", "NOOP", "RSET", "NOOP", "RSET", "NOOP", "RSET")
	if !s.Closed() {
		t.Error("it goes on")
	}
}
