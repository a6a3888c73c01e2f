package hooks_test

import (
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds that nothing is got around, and that nobody is counted for what wasn't.

// limitsOf makes a hook of limits, each refused with beyond unless it says otherwise.
func limitsOf(limits ...hooks.Limit) smtpproxy.Hook { return limitsIn(hooks.Limits{}, limits...) }

func limitsIn(l hooks.Limits, limits ...hooks.Limit) smtpproxy.Hook {
	for _, limit := range limits {
		if limit.Beyond == nil {
			limit.Beyond = beyond
		}
		l.Limits = append(l.Limits, limit)
	}
	return l.Hook()
}

func limitsSession(hooks ...smtpproxy.Hook) *proxytest.Session {
	return proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(hooks...)})
}

// say sends lines, and holds the codes of the replies. "." is the content of a message, a line
// such as "550 RCPT TO:<a@b>" is answered so by the server, if it gets it.
func say(t *testing.T, s *proxytest.Session, want string, lines ...string) {
	t.Helper()
	var got []string
	for _, line := range lines {
		if line == "." {
			s.SendContent()
		} else {
			if code, rest, ok := strings.Cut(line, " "); ok && code != "" && code[0] >= '1' && code[0] <= '9' {
				n := int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
				s.Answer(smtpproxy.Command{Line: rest}.Verb(), n)
				line = rest
			}
			s.Send(line)
		}
		for _, r := range s.Replies() {
			got = append(got, r.String()[:3])
		}
	}
	if all := strings.Join(got, " "); all != want {
		t.Helper()
		t.Fatalf("got %s, want %s\n%s", all, want, s.Transcript())
	}
}

const (
	ehlo = "EHLO x"
	mail = "MAIL FROM:<a@example.com>"
	rcpt = "RCPT TO:<b@example.org>"
)

func TestNoCommandMakesAConnectionForgetWhatItHasDone(t *testing.T) {
	for _, between := range []string{"RSET", "EHLO y", "HELO y", "STARTTLS"} {
		s := limitsSession(limitsOf(hooks.Limit{What: hooks.Recipients, Max: 2}, hooks.Limit{What: hooks.Errors, Max: 2}))
		say(t, s, "250 250 250 250 459", ehlo, mail, rcpt, rcpt, rcpt)
		say(t, s, "550", "550 VRFY a")
		s.Send(between)
		if between == "STARTTLS" {
			s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
		}
		say(t, s, "250 250 459", ehlo, mail, rcpt)
		say(t, s, "550 459 459", "550 VRFY a", "VRFY a", "NOOP")
	}
}

func TestASenderIsTheSameInUpperAndLowerCase(t *testing.T) {
	hook := limitsOf(hooks.Limit{What: hooks.Recipients, Per: hooks.PerSender, Max: 2, Every: time.Hour})
	say(t, limitsSession(hook), "250 250 250", ehlo, "MAIL FROM:<Bob@Example.COM>", rcpt)
	say(t, limitsSession(hook), "250 250 250", ehlo, "MAIL FROM:<bob@example.com>", rcpt)
	say(t, limitsSession(hook), "250 250 459", ehlo, "MAIL FROM:<\"BOB\"@EXAMPLE.com> SIZE=7", rcpt)
	say(t, limitsSession(hook), "250 250 250 250", ehlo, "MAIL FROM:<ÄB@example.com> SMTPUTF8", rcpt, rcpt)
	say(t, limitsSession(hook), "250 250 459", ehlo, "MAIL FROM:<äb@example.com> SMTPUTF8", rcpt)
}

func TestSendersThatNobodyKnowsForCertainAreOne(t *testing.T) {
	hook := limitsOf(hooks.Limit{What: hooks.Messages, Per: hooks.PerSender, Max: 2, Every: time.Hour})
	s := limitsSession(hook)
	say(t, s, "250 250 250 354 250", ehlo, "MAIL FROM:<a@b> FROM:<c@d>", rcpt, "DATA", ".")
	say(t, s, "250 250 354 250", "MAIL FROM:<e@f> FROM:<g@h>", rcpt, "DATA", ".")
	say(t, s, "250 459 459", "MAIL FROM:<i@j> FROM:<k@l>", rcpt, rcpt)
	say(t, s, "250 250 250", "RSET", "MAIL FROM:<>", rcpt) // which is another one
}

func TestALoginIsTheSameInUpperAndLowerCase(t *testing.T) {
	hook := limitsOf(hooks.Limit{What: hooks.Messages, Per: hooks.PerLogin, Max: 1, Every: time.Hour})
	a := newLimitsClient(t, hook, "192.0.2.1", "a@b", "Alice")
	b := newLimitsClient(t, hook, "192.0.2.2", "c@d", "alice")
	if !a.message() || b.message() {
		t.Errorf("%s\n%s", a.s.Transcript(), b.s.Transcript())
	}
}

func TestWhatIsRefusedIsGivenBack(t *testing.T) {
	refuses := func(verb string) smtpproxy.Hook {
		return smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			if cmd.Verb() == verb && strings.Contains(cmd.Line, "refused") {
				return smtpproxy.Reply{Code: 554}, nil
			}
			return nil, nil
		})
	}
	for _, per := range []hooks.Limit{{Per: hooks.PerConnection}, {Per: hooks.PerNetwork, Every: time.Hour}} {
		recipients, messages := per, per
		recipients.What, recipients.Max, messages.What, messages.Max = hooks.Recipients, 2, hooks.Messages, 2
		t.Run("by the server, "+per.Per.String(), func(t *testing.T) {
			s := limitsSession(limitsOf(recipients, messages))
			say(t, s, "250 250 550 450 250 250", ehlo, mail, "550 "+rcpt, "450 "+rcpt, rcpt, rcpt)
			say(t, s, "459 451 554", rcpt, "451 DATA", "554 BDAT 0 LAST")
			s = limitsSession(limitsOf(messages))
			say(t, s, "250", ehlo)
			for range 3 {
				say(t, s, "250 250 354", mail, rcpt, "DATA")
				s.Answer("DATA", 554)
				say(t, s, "554", ".")
			}
			for range 2 {
				say(t, s, "250 250 354 250", mail, rcpt, "DATA", ".")
			}
			say(t, s, "459", mail)
		})
		t.Run("by another hook, "+per.Per.String(), func(t *testing.T) {
			s := limitsSession(limitsOf(recipients), refuses("RCPT"))
			say(t, s, "250 250 554 554 554 250 250 459", ehlo, mail, "RCPT TO:<refused@x>", "RCPT TO:<refused@x>", "RCPT TO:<refused@x>", rcpt, rcpt, rcpt)
		})
		t.Run("by the library, "+per.Per.String(), func(t *testing.T) {
			s := limitsSession(limitsOf(recipients))
			say(t, s, "250 503 503 503 250 250 250 459", ehlo, rcpt, rcpt, rcpt, mail, rcpt, rcpt, rcpt)
		})
		t.Run("by another limit, "+per.Per.String(), func(t *testing.T) {
			store := new(hooks.MemoryStore)
			sender := hooks.Limit{What: hooks.Recipients, Per: hooks.PerSender, Max: 1, Every: time.Hour, Beyond: smtpproxy.Reply{Code: 458}}
			hook := limitsIn(hooks.Limits{Store: store}, recipients, sender)
			s := limitsSession(hook)
			say(t, s, "250 250 250 458 458 458", ehlo, mail, rcpt, rcpt, rcpt, rcpt)
			say(t, s, "250 250 250 459", "RSET", "MAIL FROM:<c@example.com>", rcpt, rcpt)
		})
	}
}

func TestInLMTPAMessageIsOneAndEachStatusThatRefusesItIsAnError(t *testing.T) {
	s := limitsSession(limitsOf(hooks.Limit{What: hooks.Messages, Max: 2}))
	say(t, s, "250", "LHLO x")
	statuses := func(codes ...int) {
		t.Helper()
		say(t, s, "250 250 250 354", mail, rcpt, rcpt, "DATA")
		for _, code := range codes {
			s.Answer("DATA", code)
		}
		s.SendContent()
	}
	statuses(550, 450) // it is accepted for nobody, and given back
	statuses(550, 250)
	statuses(250, 550)
	say(t, s, "459", mail)

	s = limitsSession(limitsOf(hooks.Limit{What: hooks.Errors, Max: 4}))
	say(t, s, "250", "LHLO x")
	statuses(550, 450)
	statuses(250, 550)
	say(t, s, "250 250 250 250 450 250 459", "NOOP", mail, rcpt, rcpt, "450 BDAT 0 LAST", "NOOP")
}

func TestALimitsOwnRefusalIsNoErrorAndAnothersIs(t *testing.T) {
	second := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() == "HELP" {
			return smtpproxy.Reply{Code: 502}, nil
		}
		return nil, nil
	})
	limits := []hooks.Limit{{What: hooks.Errors, Max: 3}, {What: hooks.Recipients, Max: 1, Beyond: smtpproxy.Reply{Code: 452}}}
	// The hook that refuses stands behind the limits, or before, where they don't see the command.
	for _, s := range []*proxytest.Session{limitsSession(limitsOf(limits...), second), limitsSession(second, limitsOf(limits...))} {
		say(t, s, "250 250 250 452 452 452 452", ehlo, mail, rcpt, rcpt, rcpt, rcpt, rcpt)
		say(t, s, "502 452 502 452 502 459 459", "HELP", rcpt, "HELP", rcpt, "HELP", rcpt, "NOOP")
	}
}

func TestARefusedChunkThatIsAnsweredForEachRecipientIsNoError(t *testing.T) {
	limits := []hooks.Limit{{What: hooks.Errors, Max: 1}, {What: hooks.Messages, Max: 1, Beyond: smtpproxy.Reply{Code: 452}}}
	store := new(hooks.MemoryStore)
	limits[1].Per, limits[1].Every = hooks.PerNetwork, time.Hour
	hook := limitsIn(hooks.Limits{Store: store}, limits...)
	s := limitsSession(hook)
	say(t, s, "250 250 250 250", "LHLO x", mail, rcpt, rcpt)
	say(t, limitsSession(hook), "250 250 250 250", ehlo, mail, rcpt, "BDAT 0 LAST") // meanwhile
	say(t, s, "452 452 250 550 459", "BDAT 0 LAST", "NOOP", "550 VRFY a", "NOOP")
}

func TestRecipientsBehindARefusedSenderAreNotWrongOnes(t *testing.T) {
	s := limitsSession(limitsOf(hooks.Limit{What: hooks.WrongRecipients, Max: 1}))
	say(t, s, "250 450 503 503 503 250 450 550 459", ehlo, "450 "+mail, rcpt, rcpt, rcpt, mail, "450 "+rcpt, "550 "+rcpt, rcpt)
}

func TestLinesOfAnExchangeAreNoCommands(t *testing.T) {
	s := limitsSession(limitsOf(hooks.Limit{What: hooks.Commands, Max: 3}))
	say(t, s, "250 334 334 235 250 459", ehlo, "AUTH LOGIN", "YQ==", "YQ==", "NOOP", "NOOP")

	s = limitsSession(limitsOf(hooks.Limit{What: hooks.UnknownVerbs, Max: 1}))
	say(t, s, "250 334 501 250 500 459", ehlo, "AUTH LOGIN", "*", "NOOP", "XYZZY", "NOOP")

	// Nor are they to a hook of one's own that hands all it gets on.
	limited := limitsOf(hooks.Limit{What: hooks.Commands, Max: 1})
	ctx := smtpproxy.NewContext(t.Context())
	for range 3 {
		if d, err := limited.Command(ctx, smtpproxy.Command{Line: "YQ==", SASL: true}, smtpproxy.Connection{}, smtpproxy.Transaction{}); d != nil || err != nil {
			t.Error(d, err)
		}
	}

	// What judges no password is no failed one.
	s = limitsSession(limitsOf(hooks.Limit{What: hooks.FailedAUTH, Max: 2}))
	say(t, s, "250 504 501 503 334 501", ehlo, "AUTH GSSAPI", "AUTH", "503 AUTH PLAIN AGEAYg==", "AUTH LOGIN", "*")
	say(t, s, "454 535 459 250", "454 AUTH PLAIN AGEAYg==", "535 AUTH PLAIN AGEAYg==", "AUTH PLAIN AGEAYg==", "NOOP")
}

func TestWhoHasAuthenticatedIsNotCountedAmongThoseWhoHaveNot(t *testing.T) {
	s := limitsSession(limitsOf(hooks.Limit{What: hooks.Unauthenticated, Max: 2}))
	say(t, s, "250 250 459 459 235 250 250 250", ehlo, "NOOP", "NOOP", "NOOP", "AUTH PLAIN AGEAYg==", "NOOP", "NOOP", mail)
}

func TestQUITIsNeverRefusedUnlessItIsSomethingElse(t *testing.T) {
	s := limitsSession(limitsOf(hooks.Limit{What: hooks.Commands, Max: 1}))
	say(t, s, "250 459 459 221", "NOOP", "NOOP", "QUIT now", "QUIT ")
}

func TestADelayPassesWhatIsBeyondAndTheLongestCounts(t *testing.T) {
	slow := func(max int, d time.Duration) hooks.Limit {
		return hooks.Limit{What: hooks.Commands, Max: max, Beyond: smtpproxy.Pass{Delay: d}}
	}
	s := limitsSession(limitsOf(slow(1, 2*time.Second), slow(2, time.Second), slow(3, 5*time.Second),
		hooks.Limit{What: hooks.Commands, Max: 4, Beyond: smtpproxy.Reply{Code: 459, Delay: time.Second}}))
	for n, want := range []time.Duration{0, 2 * time.Second, 2 * time.Second, 5 * time.Second} {
		if p, ok := s.Send("NOOP").(smtpproxy.Pass); !ok || p.Delay != want {
			t.Errorf("command %d: %+v, want a delay of %v", n+1, p, want)
		}
	}
	if r, ok := s.Send("NOOP").(smtpproxy.Reply); !ok || r.Delay != 5*time.Second || r.Code != 459 {
		t.Errorf("the last: %+v", r)
	}
}

func TestARefusalSaysWhatThereIsTooMuchOfUnlessItSaysSomethingElse(t *testing.T) {
	for _, test := range []struct {
		beyond smtpproxy.Decision
		want   string
	}{
		{nil, "421 4.7.0 Too many commands"},
		{smtpproxy.Reply{Code: 450}, "450 4.7.0 Too many commands"},
		{&smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}}, "554 5.7.1 Too many commands"},
		{smtpproxy.Reply{Code: 452, Enhanced: smtpproxy.EnhancedCode{4, 5, 3}, Lines: []string{"Come", "back"}}, "452-4.5.3 Come\r\n452 4.5.3 Back"},
	} {
		lines := []string{"Come", "Back"}
		if r, ok := test.beyond.(smtpproxy.Reply); ok && len(r.Lines) > 0 {
			r.Lines = lines
			test.beyond = r
		}
		limits := hooks.Limits{Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: test.beyond}}}
		s := limitsSession(limits.Hook())
		limits.Limits[0].Max, lines[0] = 7, "changed" // what is changed afterwards has no effect
		s.Send("NOOP")
		s.Send("NOOP")
		if got := s.Reply().String(); got != test.want || s.Closed() != (s.Reply().Code == 421) {
			t.Errorf("%v: got %q, want %q", test.beyond, got, test.want)
		}
	}
}

func TestEachTimeThatALimitIsExceededIsTold(t *testing.T) {
	var told []string
	hook := limitsIn(hooks.Limits{OnBeyond: func(_ *smtpproxy.Context, b hooks.Bucket) { told = append(told, b.String()) }},
		hooks.Limit{What: hooks.Recipients, Per: hooks.PerSender, Max: 1, Every: time.Hour},
		hooks.Limit{What: hooks.Commands, Per: hooks.PerNetwork, Max: 5, Every: time.Minute, Beyond: smtpproxy.Pass{Delay: 1}})
	say(t, limitsSession(hook), "250 250 250 459 250 250 250", ehlo, mail, rcpt, rcpt, "NOOP", "NOOP", "NOOP") // four, and one refused
	want := "[recipients/sender/1/1h0m0s/a@example.com commands/network/5/1m0s/192.0.2.1/32 commands/network/5/1m0s/192.0.2.1/32]"
	if got := "[" + strings.Join(told, " ") + "]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTwoLimitsOfAChainCountApart(t *testing.T) {
	one := hooks.Limit{What: hooks.Commands, Max: 2}
	s := limitsSession(limitsOf(one), limitsOf(hooks.Limit{What: hooks.Commands, Max: 3, Beyond: smtpproxy.Reply{Code: 458}}))
	say(t, s, "250 250 459", "NOOP", "NOOP", "NOOP")
	one.Beyond = smtpproxy.Pass{}
	s = limitsSession(limitsOf(one), limitsOf(hooks.Limit{What: hooks.Commands, Max: 3, Beyond: smtpproxy.Reply{Code: 458}}))
	say(t, s, "250 250 250 458", "NOOP", "NOOP", "NOOP", "NOOP")
}

func TestWhatOneLimitRefusesTheOthersCount(t *testing.T) {
	for _, limits := range [][]hooks.Limit{
		{{What: hooks.Recipients, Max: 1, Beyond: smtpproxy.Reply{Code: 452}}, {What: hooks.Commands, Max: 6, Beyond: smtpproxy.Reply{Code: 421}}},
		{{What: hooks.Commands, Max: 6, Beyond: smtpproxy.Reply{Code: 421}}, {What: hooks.Recipients, Max: 1, Beyond: smtpproxy.Reply{Code: 452}}},
	} {
		s := limitsSession(limitsOf(limits...))
		say(t, s, "250 250 250 452 452 452 421", ehlo, mail, rcpt, rcpt, rcpt, rcpt, rcpt)
	}
}

func TestAMessageIsOneHoweverManyChunksItHas(t *testing.T) {
	for _, per := range []hooks.Per{hooks.PerConnection, hooks.PerNetwork} {
		s := limitsSession(limitsOf(hooks.Limit{What: hooks.Messages, Per: per, Max: 2, Every: time.Hour}))
		say(t, s, "250", ehlo)
		for range 2 {
			say(t, s, "250 250 250 250 250 250", mail, rcpt, "BDAT 1", "BDAT 0", "BDAT 10", "bdat 0 last")
		}
		say(t, s, "459", mail)
	}
}

func TestAServerThatRefusesAClientBeforeItHasSaidAnythingIsNotTheClientsError(t *testing.T) {
	hook := limitsOf(hooks.Limit{What: hooks.Errors, Per: hooks.PerNetwork, Max: 1, Every: time.Hour})
	for _, says := range []int{554, 421} {
		s := (&smtpproxy.Proxy{Hook: hook}).NewSession(smtpproxy.Connection{})
		s.Connect(t.Context())
		if says == 421 { // later, since it is idle
			s.Replied(220, "server.example")
		}
		s.Replied(says, "server.example")
		s.Close()
	}
	s := (&smtpproxy.Proxy{Hook: hook}).NewSession(smtpproxy.Connection{})
	if _, passed := s.Command(t.Context(), "NOOP").(smtpproxy.Pass); !passed {
		t.Error("they are counted")
	}
	s.Close()
}
