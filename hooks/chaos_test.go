package hooks_test

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// chaosOf returns a Chaos with rules.
func chaosOf(t testing.TB, rules ...hooks.ChaosRule) *hooks.Chaos {
	t.Helper()
	c := new(hooks.Chaos)
	if err := c.Set(1, rules...); err != nil {
		t.Fatal(err)
	}
	return c
}

// inChaos plays a dialogue, in which "." is content, and returns the codes of the replies, and
// what was decided where that isn't a reply.
func inChaos(c *hooks.Chaos, lines ...string) string {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: c, Logger: slog.New(slog.DiscardHandler)})
	s.Connect()
	return chaosCodes(s, lines...)
}

func chaosCodes(s *proxytest.Session, lines ...string) string {
	var codes []string
	reply := func() {
		for _, r := range s.Replies() {
			codes = append(codes, fmt.Sprint(r.Code))
		}
		if s.Closed() {
			codes = append(codes, "closed")
		}
	}
	reply()
	for _, line := range lines {
		if s.Closed() {
			break
		}
		if line == "." && s.Reply().Code != 354 {
			continue // it was refused
		} else if line == "." {
			s.SendContent()
		} else if p, ok := s.Send(line).(smtpproxy.Pass); ok && p.Delay > 0 {
			codes = append(codes, p.Delay.String())
		}
		reply()
	}
	return strings.Join(codes, " ")
}

// aMessage is a dialogue.
var aMessage = []string{"EHLO x", "MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.org>", "DATA", ".", "QUIT"}

const noChaos = "220 250 250 250 354 250 221 closed"

func TestChaosStrikesWhereARuleSays(t *testing.T) {
	lmtp := []string{"LHLO x", "MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.org>", "RCPT TO:<carol@example.org>", "DATA", "."}
	chunks := []string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<bob@example.org>", "BDAT 3", "BDAT 3 last", "NOOP"}
	for _, row := range []struct {
		why   string
		rule  hooks.ChaosRule
		lines []string
		want  string
	}{
		{"the greeting", hooks.ChaosRule{At: "connect", Code: 421}, aMessage, "421 closed"},
		{"the greeting, for good", hooks.ChaosRule{At: "connect", Code: 554}, aMessage, "554 closed"},
		{"EHLO", hooks.ChaosRule{At: "EHLO", Code: 500}, []string{"EHLO x", "HELO x"}, "220 500 250"},
		{"EHLO, with nothing in the list", hooks.ChaosRule{At: "EHLO", Code: 250}, []string{"EHLO x"}, "220 250"},
		{"a verb in any case", hooks.ChaosRule{At: "mail", Code: 451}, []string{"Mail FROM:<a@b>", "RCPT TO:<c@d>"}, "220 451 503"},
		{"DATA", hooks.ChaosRule{At: "DATA", Code: 452}, aMessage[:4], "220 250 250 250 452"},
		{"AUTH", hooks.ChaosRule{At: "AUTH", Code: 454}, []string{"EHLO x", "AUTH PLAIN AGEAYg=="}, "220 250 454"},
		{"a verb that no server knows", hooks.ChaosRule{At: "PING", Code: 250}, []string{"PING"}, "220 250"},
		{"every command, not connect and message", hooks.ChaosRule{At: "*", Code: 250}, []string{"X", "QUIT"}, "220 250 250"},
		{"every command, but not lines of a SASL exchange", hooks.ChaosRule{At: "*", Skip: 2, Code: 450}, []string{"EHLO x", "AUTH LOGIN", "dQ==", "cA==", "NOOP"}, "220 250 334 334 235 450"},
		{"and the connection is closed behind it", hooks.ChaosRule{At: "RCPT", Code: 450, Disconnect: true}, aMessage, "220 250 250 450 closed"},
		{"dropped, without a Listener", hooks.ChaosRule{At: "RCPT", Drop: true}, aMessage, "220 250 250 421 closed"},
		{"each chunk", hooks.ChaosRule{At: "BDAT", Code: 452}, chunks, "220 250 250 250 452 452 250"},
		{"the last chunk", hooks.ChaosRule{At: "BDAT", Skip: 1, Code: 452}, chunks, "220 250 250 250 250 452 250"},
		{"a message, which is dropped without a Listener behind its reply", hooks.ChaosRule{At: "message", Drop: true}, aMessage, "220 250 250 250 354 250 closed"},
		{"a message in chunks", hooks.ChaosRule{At: "message", Drop: true}, chunks, "220 250 250 250 250 250 closed"},
		{"a message that the hook has refused is none", hooks.ChaosRule{At: "message", Drop: true}, []string{"EHLO x", "DATA", "BDAT 0 LAST", "NOOP"}, "220 250 503 502 250"},
		{"an LMTP message, behind the last status", hooks.ChaosRule{At: "message", Drop: true}, lmtp, "220 250 250 250 250 354 250 250 closed"},
		{"the status of one recipient", hooks.ChaosRule{At: "message", Recipient: "carol", Skip: 1, Drop: true}, append(slices.Clone(lmtp), lmtp[1:]...), "220 250 250 250 250 354 250 250 250 250 250 354 250 250 closed"},
		{"what comes behind an LMTP message is none", hooks.ChaosRule{At: "message", Skip: 2, Drop: true}, append(slices.Clone(lmtp), "NOOP", "DATA"), "220 250 250 250 250 354 250 250 250 503"},
		{"a delay of the line", hooks.ChaosRule{At: "RCPT", Delay: hooks.Duration(time.Second)}, aMessage[:3], "220 250 250 1s 250"},

		{"of a client", hooks.ChaosRule{At: "NOOP", Client: "192.0.2.1", Code: 450}, []string{"NOOP"}, "220 450"},
		{"of a network", hooks.ChaosRule{At: "NOOP", Client: "192.0.2.200/24", Code: 450}, []string{"NOOP"}, "220 450"},
		{"in IPv6 form", hooks.ChaosRule{At: "NOOP", Client: "::ffff:192.0.2.1", Code: 450}, []string{"NOOP"}, "220 450"},
		{"of a network in IPv6 form", hooks.ChaosRule{At: "NOOP", Client: "::ffff:192.0.2.0/120", Code: 450}, []string{"NOOP"}, "220 450"},
		{"of none", hooks.ChaosRule{At: "NOOP", Client: "192.0.2.2", Code: 450}, []string{"NOOP"}, "220 250"},

		{"a sender, at MAIL", hooks.ChaosRule{At: "MAIL", Sender: "^ALICE@example\\.com$", Code: 450}, aMessage[:2], "220 250 450"},
		{"with parameters", hooks.ChaosRule{At: "MAIL", Sender: "^alice@example\\.com$", Code: 450}, []string{"EHLO x", "MAIL FROM: <alice@example.com> SIZE=1"}, "220 250 450"},
		{"behind a source route", hooks.ChaosRule{At: "MAIL", Sender: "^alice@example\\.com$", Code: 450}, []string{"EHLO x", "MAIL FROM:<@r.example:alice@example.com>"}, "220 250 450"},
		{"a sender, later", hooks.ChaosRule{At: "DATA", Sender: "^alice@example\\.com$", Code: 450}, aMessage[:4], "220 250 250 250 450"},
		{"another sender", hooks.ChaosRule{At: "*", Sender: "carol", Code: 450}, aMessage, noChaos},
		{"a bounce", hooks.ChaosRule{At: "MAIL", Sender: "^$", Code: 450}, []string{"EHLO x", "MAIL FROM:<>"}, "220 250 450"},
		{"in quotation marks", hooks.ChaosRule{At: "MAIL", Sender: "^alice@example\\.com$", Code: 450}, []string{"EHLO x", `MAIL FROM:<"alice"@example.com>`}, "220 250 450"},
		{"with a parameter in angle brackets", hooks.ChaosRule{At: "MAIL", Sender: "^alice@example\\.com$", Code: 450}, []string{"EHLO x", "MAIL FROM:<alice@example.com> AUTH=<>"}, "220 250 450"},
		{"the same, at RCPT", hooks.ChaosRule{At: "RCPT", Sender: "^alice@example\\.com$", Code: 450}, []string{"EHLO x", "MAIL FROM:<alice@example.com> AUTH=<>", "RCPT TO:<x@y>"}, "220 250 250 450"},
		{"that may be read in different ways", hooks.ChaosRule{At: "MAIL", Sender: "^FROM:.*carol", Code: 450}, []string{"EHLO x", "MAIL FROM:<a@b> FROM:<carol@d>"}, "220 250 450"},
		{"the same, later", hooks.ChaosRule{At: "RCPT", Sender: "^FROM:.*carol", Code: 450}, []string{"EHLO x", "MAIL FROM:<a@b> FROM:<carol@d>", "RCPT TO:<x@y>"}, "220 250 250 450"},
		{"a recipient, at RCPT", hooks.ChaosRule{At: "RCPT", Recipient: "^bob@", Code: 450}, aMessage[:3], "220 250 250 450"},
		{"without brackets", hooks.ChaosRule{At: "RCPT", Recipient: "bob@example\\.org$", Code: 450}, []string{"EHLO x", "MAIL FROM:<>", "RCPT TO:bob@example.org"}, "220 250 250 450"},
		{"another recipient", hooks.ChaosRule{At: "RCPT", Recipient: "carol", Code: 450}, aMessage, noChaos},
		{"one of them, later", hooks.ChaosRule{At: "DATA", Recipient: "^carol@", Code: 450}, lmtp[:5], "220 250 250 250 250 450"},
		{"one of them, at a message", hooks.ChaosRule{At: "message", Recipient: "^carol@", Drop: true}, []string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<bob@example.org>", "RCPT TO:<carol@example.org>", "DATA", "."}, "220 250 250 250 250 354 250 closed"},
		{"none of them", hooks.ChaosRule{At: "message", Recipient: "^dave@", Drop: true}, aMessage, noChaos},
	} {
		if got := inChaos(chaosOf(t, row.rule), row.lines...); got != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
	}
	if got := inChaos(new(hooks.Chaos), aMessage...); got != noChaos {
		t.Errorf("without rules: %s", got)
	}
}

func TestChaosRepliesAsTold(t *testing.T) {
	for _, row := range []struct {
		rule hooks.ChaosRule
		want string
	}{
		{hooks.ChaosRule{Code: 452}, "452 4.0.0 Requested action not taken"},
		{hooks.ChaosRule{Code: 452, Text: "Disk full"}, "452 4.0.0 Disk full"},
		{hooks.ChaosRule{Code: 452, Enhanced: "4.3.1", Text: "Disk full"}, "452 4.3.1 Disk full"},
		{hooks.ChaosRule{Code: 452, Enhanced: "none", Text: "Disk full"}, "452 Disk full"},
		{hooks.ChaosRule{Code: 421}, "421 4.0.0 Service not available, closing transmission channel"},
		{hooks.ChaosRule{Code: 550, Text: strings.Repeat("x", 480), Enhanced: "5.999.999"}, "550 5.999.999 " + strings.Repeat("x", 480)},
	} {
		row.rule.At = "NOOP"
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: chaosOf(t, row.rule)})
		s.Send("NOOP")
		if got := s.Reply().String(); got != row.want || s.Failure() != nil {
			t.Errorf("%+v: %s, %v", row.rule, got, s.Failure())
		}
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: chaosOf(t, hooks.ChaosRule{At: "NOOP", Code: 450, Delay: hooks.Duration(time.Second)})})
	if r, _ := s.Send("NOOP").(smtpproxy.Reply); r.Delay != time.Second {
		t.Errorf("a delay of %v", r.Delay)
	}
}

func TestTheFirstRuleWhoseTurnItIsCounts(t *testing.T) {
	four := []string{"NOOP", "NOOP", "NOOP", "NOOP", "NOOP", "NOOP"}
	for _, row := range []struct {
		why   string
		rules []hooks.ChaosRule
		want  string
	}{
		{"the first", []hooks.ChaosRule{{At: "*", Code: 450}, {At: "NOOP", Code: 451}}, "220 450 450 450 450 450 450"},
		{"one that doesn't fit is passed over", []hooks.ChaosRule{{At: "RSET", Code: 450}, {At: "NOOP", Code: 451}}, "220 451 451 451 451 451 451"},
		{"twice, then the next", []hooks.ChaosRule{{At: "*", Code: 450, Times: 2}, {At: "NOOP", Code: 451}}, "220 450 450 451 451 451 451"},
		{"from the third on", []hooks.ChaosRule{{At: "*", Code: 450, Skip: 2}}, "220 250 250 450 450 450 450"},
		{"the third and the fourth", []hooks.ChaosRule{{At: "*", Code: 450, Skip: 2, Times: 2}}, "220 250 250 450 450 250 250"},
		{"what another rule has answered doesn't count", []hooks.ChaosRule{{At: "*", Code: 450, Times: 2}, {At: "*", Code: 451, Skip: 1}}, "220 450 450 250 451 451 451"},
	} {
		if got := inChaos(chaosOf(t, row.rules...), four...); got != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
	}
}

func TestWhatIsCountedIsCountedAnewWithEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chaosOf(t, hooks.ChaosRule{At: "NOOP", Code: 450, Skip: 2, Every: hooks.Duration(time.Hour)})
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: c})
		for _, want := range []string{"250", "250 250 450", "250 250 450 450"} {
			time.Sleep(time.Hour)
			noops := strings.Count(want, " ") + 1
			s.Send("NOOP")
			got := s.Reply().Code
			codes := []string{fmt.Sprint(got)}
			for range noops - 1 {
				time.Sleep(10 * time.Minute)
				s.Send("NOOP")
				codes = append(codes, fmt.Sprint(s.Reply().Code))
			}
			if got := strings.Join(codes, " "); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

func TestTheSameSeedStrikesAtTheSame(t *testing.T) {
	half := hooks.ChaosRule{At: "NOOP", Probability: 0.5, Code: 450}
	lines := slices.Repeat([]string{"NOOP"}, 200)
	run := func(seed uint64, rules ...hooks.ChaosRule) string {
		c := new(hooks.Chaos)
		if err := c.Set(seed, rules...); err != nil {
			t.Fatal(err)
		}
		return inChaos(c, lines...)
	}
	one := run(7, half)
	if again := run(7, half); again != one {
		t.Errorf("got\n%s\nand\n%s", one, again)
	}
	if other := run(8, half); other == one {
		t.Error("another seed makes no difference")
	}
	if beside := run(7, half, hooks.ChaosRule{At: "RSET", Probability: 0.1, Code: 450}); beside != one {
		t.Error("a rule behind it makes a difference")
	}
	if behind := run(7, hooks.ChaosRule{At: "RSET", Probability: 0.5, Code: 450}, half); behind == one {
		t.Error("each rule has the same chances")
	}
	if n := strings.Count(one, "450"); n < 70 || n > 130 {
		t.Errorf("%d of 200 with a chance of a half", n)
	}
	if got := strings.Count(run(7, hooks.ChaosRule{At: "NOOP", Probability: 1, Code: 450}), "450"); got != 200 {
		t.Errorf("%d of 200 with a chance of 1", got)
	}
	c := new(hooks.Chaos)
	c.Set(7, half)
	inChaos(c, lines...)
	c.Set(7, half) // begins anew
	if again := inChaos(c, lines...); again != one {
		t.Error("Set doesn't begin anew")
	}
}

// badRules make no sense, for a reason that the error tells.
var badRules = []struct {
	rule hooks.ChaosRule
	want string
}{
	{hooks.ChaosRule{Code: 450}, `at "": neither connect, message, * nor a verb`},
	{hooks.ChaosRule{At: "RCPT TO", Code: 450}, `at "RCPT TO"`},
	{hooks.ChaosRule{At: "ſtarttls", Code: 450}, `at "ſtarttls"`},
	{hooks.ChaosRule{At: "Connect ", Code: 450}, `at "Connect "`},
	{hooks.ChaosRule{At: "NOOP"}, "neither a code nor a delay nor drop"},
	{hooks.ChaosRule{At: "NOOP", Code: 199}, "code 199"},
	{hooks.ChaosRule{At: "NOOP", Code: 354}, "code 354"},
	{hooks.ChaosRule{At: "NOOP", Code: 600}, "code 600"},
	{hooks.ChaosRule{At: "NOOP", Code: -450}, "code -450"},
	{hooks.ChaosRule{At: "connect", Code: 220}, "code 220 in the place of a greeting"},
	{hooks.ChaosRule{At: "connect", Code: 421, Sender: "x"}, "nobody has named a sender"},
	{hooks.ChaosRule{At: "message", Code: 550}, "the server has replied already"},
	{hooks.ChaosRule{At: "STARTTLS", Code: 220}, "code 220 to STARTTLS"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Drop: true}, "drop is without a reply"},
	{hooks.ChaosRule{At: "NOOP", Drop: true, Disconnect: true}, "drop is without a reply"},
	{hooks.ChaosRule{At: "NOOP", Delay: 1, Text: "x"}, "need a code"},
	{hooks.ChaosRule{At: "NOOP", Delay: 1, Enhanced: "4.0.0"}, "need a code"},
	{hooks.ChaosRule{At: "NOOP", Delay: 1, Disconnect: true}, "need a code"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Enhanced: "5.0.0"}, `enhanced status code "5.0.0" with code 450`},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Enhanced: "4.0"}, `enhanced status code "4.0"`},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Enhanced: "4.-1.0"}, `enhanced status code`},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Enhanced: "4.1000.0"}, `enhanced status code`},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Enhanced: "4.1.0 x"}, `enhanced status code`},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Text: "a\r\n250 b"}, "a text that isn't one line"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Text: "a\x00b"}, "a text that isn't one line"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Text: strings.Repeat("x", 481)}, "a text that isn't one line"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Probability: -0.1}, "probability -0.1"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Probability: 50}, "probability 50"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Probability: math.NaN()}, "probability NaN"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Skip: -1}, "below 0"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Times: -1}, "below 0"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Delay: -1}, "below 0"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Times: 1, Every: -1}, "below 0"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Every: 1}, "every without skip or times"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Client: "localhost"}, `client "localhost": neither an address nor a network`},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Sender: "("}, "sender: error parsing regexp: missing closing ): `(`"},
	{hooks.ChaosRule{At: "NOOP", Code: 450, Recipient: "*"}, "recipient: error parsing regexp"},
}

func TestARuleThatMakesNoSenseIsAnErrorAndChangesNothing(t *testing.T) {
	good := hooks.ChaosRule{At: "NOOP", Code: 450}
	c := chaosOf(t, good)
	for _, row := range badRules {
		err := c.Set(2, hooks.ChaosRule{At: "NOOP", Code: 451}, row.rule)
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "rule 2 ") {
			t.Errorf("%+v: %v, want %s", row.rule, err, row.want)
		}
	}
	seed, rules := c.Rules()
	if seed != 1 || !reflect.DeepEqual(rules, []hooks.ChaosRule{good}) {
		t.Errorf("%d, %+v", seed, rules)
	}
	if got := inChaos(c, "NOOP"); got != "220 450" {
		t.Errorf("got %s", got)
	}
}

// Whatever can be set, the library takes.
func TestNoRuleThatCanBeSetIsAFailureOfTheHook(t *testing.T) {
	lines := []string{"EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "STARTTLS", "AUTH LOGIN", "BDAT 0 LAST", "RSET", "X"}
	for _, at := range []string{"*", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "AUTH", "STARTTLS", "NOOP", "QUIT", "RSET", "PING"} {
		for _, code := range []int{200, 211, 220, 221, 235, 250, 251, 299, 400, 421, 450, 500, 554, 599} {
			c := new(hooks.Chaos)
			if err := c.Set(1, hooks.ChaosRule{At: at, Code: code, Text: "x\ty"}); err != nil {
				if at != "STARTTLS" || code != 220 {
					t.Error(err)
				}
				continue
			}
			for _, line := range lines {
				if at == "*" && code == 220 && line == "STARTTLS" {
					continue // the one reply that doesn't exist
				}
				s := proxytest.NewSession(&smtpproxy.Proxy{Hook: c})
				s.Send(line)
				if s.Failure() != nil {
					t.Errorf("%d at %s, %s: %v", code, at, line, s.Failure())
				}
			}
		}
	}
}

func TestRulesAreTheCallersOwn(t *testing.T) {
	c := chaosOf(t, hooks.ChaosRule{At: "noop", Code: 450})
	_, rules := c.Rules()
	rules[0].Code = 250
	if _, rules = c.Rules(); rules[0].Code != 450 || rules[0].At != "NOOP" {
		t.Errorf("%+v", rules)
	}
}

// Rules may change amid a connection, and behind an XCLIENT it is another client's.
func TestRulesCountFromWhenTheyAreSetAndForTheClientThatWasTold(t *testing.T) {
	c := new(hooks.Chaos)
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, c)})
	s.Connect()
	if got := chaosCodes(s, "NOOP"); got != "220 250" {
		t.Error(got)
	}
	c.Set(0, hooks.ChaosRule{At: "NOOP", Code: 450, Client: "198.51.100.7"})
	if got := chaosCodes(s, "NOOP", "XCLIENT ADDR=198.51.100.7", "NOOP"); got != "250 250 220 450" {
		t.Error(got)
	}
	if ip := s.Connection().RemoteIP; ip != netip.MustParseAddr("198.51.100.7") {
		t.Error(ip)
	}
	c.Set(0)
	if got := chaosCodes(s, "NOOP"); got != "450 250" {
		t.Error(got)
	}
}

func TestRulesMayBeChangedWhileManyConnectionsGoOn(t *testing.T) {
	c := new(hooks.Chaos)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				inChaos(c, aMessage...)
			}
		})
		wg.Go(func() {
			for n := range 50 {
				c.Set(uint64(n), hooks.ChaosRule{At: "*", Probability: 0.3, Code: 450 + i}, hooks.ChaosRule{At: "message", Times: 3, Drop: true})
				c.Rules()
			}
		})
	}
	wg.Wait()
	c.Set(0)
	if got := inChaos(c, aMessage...); got != noChaos {
		t.Error(got)
	}
}

func TestADATAThatTheServerRefusesIsNoMessage(t *testing.T) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: chaosOf(t, hooks.ChaosRule{At: "message", Skip: 1, Drop: true})})
	lines := []string{"MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "."}
	got := chaosCodes(s, append([]string{"LHLO x"}, lines...)...)
	s.Answer("DATA", 451)
	got += " " + chaosCodes(s, lines...)[len("250 "):] // without the last reply once more
	if want := "250 250 250 354 250 250 250 451"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
