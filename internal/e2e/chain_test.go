package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about hooks in a Chain.

var (
	chain = smtpproxy.Chain
	named = smtpproxy.Named
)

// response is what go-smtp's server takes for the right password.
var response = b64("\x00user\x00pass")

func TestTheHooksOfAChainAreAskedInOrderUpToTheFirstReply(t *testing.T) {
	playAll(t, []composed{
		{
			why: "all pass", say: []string{"NOOP", "VRFY x"}, codes: []int{250, 252},
			hook:  func(c *cast) smtpproxy.Hook { return chain(c.plays("a", nil), c.plays("b", nil), c.plays("c", nil)) },
			shown: []string{"a NOOP", "b NOOP", "c NOOP", "a VRFY x", "b VRFY x", "c VRFY x"},
		},
		{
			why: "nil ones are skipped", say: []string{"NOOP"}, codes: []int{250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(nil, c.plays("a", nil), nil, chain(nil), named("x", nil), c.plays("b", nil), nil)
			},
			shown: []string{"a NOOP", "b NOOP"},
		},
		{
			why: "the first Reply decides, and the rest aren't asked", say: []string{"VRFY x", "NOOP"}, codes: []int{550, 250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", nil), c.plays("b", part{"VRFY": refuses}), c.plays("c", part{"VRFY": does(reply{})}))
			},
			shown: []string{"a VRFY x", "b VRFY x", "a NOOP", "b NOOP", "c NOOP"},
		},
		{
			why: "pointers and nil are decisions, too", say: []string{"NOOP", "VRFY x"}, codes: []int{250, 450},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"NOOP": does(&pass{Command: "NOOP 1"})}), c.plays("b", part{"VRFY": does(&reply{Code: 450})}), c.plays("c", nil))
			},
			shown: []string{"a NOOP", "b NOOP 1 <- NOOP", "c NOOP 1 <- NOOP", "a VRFY x", "b VRFY x"},
		},
		{
			why: "chains in a chain", say: []string{"NOOP"}, codes: []int{550},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(chain(c.plays("a", nil)), named("x", chain(c.plays("b", nil), c.plays("c", part{"NOOP": refuses}))), c.plays("d", nil))
			},
			shown: []string{"a NOOP", "b NOOP", "c NOOP"},
		},
	})
}

func TestEachHookOfAChainSeesTheLineAsTheOnesBeforeHaveLeftIt(t *testing.T) {
	playAll(t, []composed{
		{
			why: "two rewrite it", say: []string{"NOOP 1"}, codes: []int{252},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"NOOP": turnsTo("NOOP 2")}), c.plays("b", nil), c.plays("c", part{"NOOP": turnsTo("VRFY 3")}), c.plays("d", nil))
			},
			shown: []string{"a NOOP 1", "b NOOP 2 <- NOOP 1", "c NOOP 2 <- NOOP 1", "d VRFY 3 <- NOOP 1"},
		},
		{
			why: "one takes it back", say: []string{"NOOP 1"}, codes: []int{250},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"NOOP": turnsTo("VRFY 2")}),
					c.plays("b", part{"VRFY": func(cmd command) (decision, error) { return pass{Command: cmd.Received}, nil }}), c.plays("c", nil))
			},
			shown: []string{"a NOOP 1", "b VRFY 2 <- NOOP 1", "c NOOP 1"},
		},
		{
			why: "a line of a SASL exchange", say: []string{"AUTH PLAIN", "AAAA"}, codes: []int{334, 235},
			hook: func(c *cast) smtpproxy.Hook {
				return chain(c.plays("a", part{"AUTH": asksNext, "SASL": turnsTo(response)}), c.plays("b", part{"AUTH": asksNext}))
			},
			shown: []string{"a AUTH PLAIN", "b AUTH PLAIN", "a (SASL) AAAA", "b (SASL) " + response + " <- AAAA"},
		},
	})
}

func TestWhatAHookOfAChainFailsAtTheChainFailsAtWithItsName(t *testing.T) {
	abc := func(c *cast, d func(command) (decision, error)) smtpproxy.Hook {
		return named("all", chain(c.plays("a", nil), named("middle", named("b", c.plays("b", part{"NOOP": d}))), c.plays("c", nil)))
	}
	shown := []string{"a NOOP", "b NOOP"}
	for _, row := range []struct {
		why    string
		d      func(command) (decision, error)
		failed string
		direct bool // a wrapper's name is that of what isn't the chain's to know
	}{
		{why: "an error", d: breaks, failed: "b: it is broken"},
		{why: "an error beside a decision", d: func(command) (decision, error) { return reply{}, errBroken }, failed: "b: it is broken"},
		{why: "no decision", d: does(struct{ pass }{}), failed: "b: smtpproxy: invalid decision: struct { smtpproxy.Pass }"},
		{why: "a nil pointer", d: does((*reply)(nil)), failed: "b: smtpproxy: invalid decision: *smtpproxy.Reply"},
		{why: "a control character", d: turnsTo("NOOP\r\nRSET"), failed: "b: smtpproxy: invalid decision: control character 0x0d in a command"},
		{why: "a panic", d: func(command) (decision, error) { panic("help") }, failed: "b: smtpproxy: hook panicked: help", direct: true},
		{why: "an invalid Reply", d: does(reply{Code: 99}), failed: "b: smtpproxy: invalid decision: code 99", direct: true},
		{why: "an invalid command", d: turnsTo("1"), failed: "b: smtpproxy: invalid decision: a command without a verb", direct: true},
	} {
		hook := func(c *cast) smtpproxy.Hook { return abc(c, row.d) }
		playAll(t, []composed{
			{why: row.why, hook: hook, say: []string{"NOOP", "VRFY x"}, codes: []int{421}, shown: shown, failed: row.failed, direct: row.direct},
			{
				why: row.why + ", which OnFailure answers", hook: hook, instead: reply{Code: 451}, direct: row.direct,
				say: []string{"NOOP", "VRFY x"}, codes: []int{451, 252}, failed: row.failed,
				shown: append(shown, "a VRFY x", "b VRFY x", "c VRFY x"),
			},
			{
				why: row.why + ", which OnFailure passes", hook: hook, instead: pass{}, direct: row.direct,
				say: []string{"NOOP"}, codes: []int{250}, failed: row.failed, shown: shown,
			},
		})
	}
}

func TestTheNameOfAFailedHookIsInTheLog(t *testing.T) {
	for why, row := range map[string]struct {
		hook func(h smtpproxy.Hook) smtpproxy.Hook
		want string
	}{
		"no name":              {func(h smtpproxy.Hook) smtpproxy.Hook { return chain(named("other", always(nil)), h) }, ""},
		"the innermost name":   {func(h smtpproxy.Hook) smtpproxy.Hook { return named("outer", chain(named("inner", h))) }, " hook=inner"},
		"the name around it":   {func(h smtpproxy.Hook) smtpproxy.Hook { return named("outer", chain(named("other", always(nil)), h)) }, " hook=outer"},
		"a name in a wrapper":  {func(h smtpproxy.Hook) smtpproxy.Hook { return named("outer", wrapper{named("inner", h)}) }, " hook=inner"},
		"the wrapper's name":   {func(h smtpproxy.Hook) smtpproxy.Hook { return named("outer", wrapper{chain(h)}) }, " hook=outer"},
		"a wrapper in another": {func(h smtpproxy.Hook) smtpproxy.Hook { return wrapper{chain(wrapper{named("inner", h)})} }, " hook=inner"},
	} {
		var logged bytes.Buffer
		p := &smtpproxy.Proxy{
			Hook:   row.hook(decide(func(command) (decision, error) { return nil, errBroken })),
			Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		}
		var failure smtpproxy.Failure
		p.OnFailure = func(_ *hookContext, f smtpproxy.Failure) decision { failure = f; return nil }
		p.NewSession(connection{}).Command(t.Context(), "NOOP")
		if text := logged.String(); !strings.Contains(text, `error="it is broken"`+row.want) || strings.Contains(text, " hook=") != (row.want != "") {
			t.Errorf("%s: logged %s", why, text)
		}
		if want := strings.TrimPrefix(row.want, " hook="); failure.Hook != want || !errors.Is(failure, errBroken) || failure.Command.Line != "NOOP" {
			t.Errorf("%s: %#v, want the name %q", why, failure, want)
		}
	}
}

func TestADeadlineThatPassesInAChainIsTheFailureOfWhomItFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failure smtpproxy.Failure
		asked := 0
		p := &smtpproxy.Proxy{
			HookTimeout: time.Minute,
			Hook: chain(
				named("quick", decide(func(command) (decision, error) { time.Sleep(40 * time.Second); return nil, nil })), // in a bubble
				named("slow", decideIn(func(ctx *hookContext, _ command) (decision, error) { <-ctx.Done(); return nil, nil })),
				named("behind", decide(func(command) (decision, error) { asked++; return nil, nil }))),
			OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision { failure = f; return nil },
		}
		start := time.Now()
		d := p.NewSession(connection{}).Command(t.Context(), "NOOP")
		if r, ok := d.(reply); !ok || r.Code != 421 || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", d, time.Since(start))
		}
		if failure.Hook != "slow" || !errors.Is(failure, smtpproxy.ErrHookTimeout) || asked != 0 {
			t.Errorf("%#v, %d hooks asked behind it", failure, asked)
		}
	})
}

// What a client counts on depends on what it has sent, whatever hooks have made of that
// in between.
func TestDecisionsOfAChainAreHeldToWhatTheClientHasSent(t *testing.T) {
	for _, row := range []struct {
		why   string
		greet string
		line  string
		turns []string // what each hook makes of it
		last  decision // of the hook behind them
		valid bool
	}{
		{"a chunk's size as it was", "EHLO", "BDAT 3", []string{"bdat 003", "BDAT 3"}, nil, true},
		{"a chunk's size changed by the second", "EHLO", "BDAT 3", []string{"BDAT 003", "BDAT 4"}, nil, false},
		{"a chunk's size changed, and changed back", "EHLO", "BDAT 3", []string{"BDAT 4", "BDAT 3"}, nil, false},
		{"a chunk put in", "EHLO", "NOOP", []string{"VRFY x", "BDAT 3"}, nil, false},
		{"a chunk taken out", "EHLO", "BDAT 3", []string{"BDAT 3 LAST", "NOOP"}, nil, false},
		{"LAST put in and taken out", "EHLO", "BDAT 3", []string{"BDAT 3 LAST", "BDAT 3"}, nil, true},
		{"LAST put in and taken out, in LMTP", "LHLO", "BDAT 3", []string{"BDAT 3 LAST", "BDAT 3"}, nil, false},
		{"LAST as it was, in LMTP", "LHLO", "BDAT 3 LAST", []string{"BDAT 03 LAST", "bdat 3 last"}, nil, true},
		{"another recipient in LMTP", "LHLO", "RCPT TO:<a@b>", []string{"RCPT TO:<c@d>", "RCPT TO:<e@f>"}, nil, true},
		{"a recipient taken out by the second, in LMTP", "LHLO", "RCPT TO:<a@b>", []string{"RCPT TO:<c@d>", "NOOP"}, nil, false},
		{"a recipient put in by the second, in LMTP", "LHLO", "NOOP", []string{"VRFY x", "RCPT TO:<c@d>"}, nil, false},
		{"a recipient accepted by a hook behind, in LMTP", "LHLO", "RCPT TO:<a@b>", []string{"RCPT TO:<c@d>"}, reply{Code: 250}, false},
		{"a recipient refused by a hook behind, in LMTP", "LHLO", "RCPT TO:<a@b>", []string{"RCPT TO:<c@d>"}, reply{Code: 550}, true},
		{"EHLO made HELO, and EHLO", "EHLO", "EHLO a", []string{"HELO a", "EHLO b"}, nil, true},
		{"EHLO made LHLO by the second", "EHLO", "EHLO a", []string{"HELO a", "LHLO a"}, nil, false},
		{"LHLO made EHLO by way of NOOP", "EHLO", "LHLO a", []string{"NOOP", "EHLO a"}, nil, false},
		{"3xx to a DATA that was made NOOP", "EHLO", "DATA", []string{"NOOP"}, reply{Code: 350}, false},
		{"220 to a STARTTLS that was made NOOP", "EHLO", "STARTTLS", []string{"NOOP"}, reply{Code: 220}, false},
		{"220 to a NOOP that was made STARTTLS", "EHLO", "NOOP", []string{"STARTTLS"}, reply{Code: 220}, true},
		{"354 to a NOOP that was made DATA", "EHLO", "NOOP", []string{"DATA"}, reply{Code: 354}, false},
	} {
		var hooks []smtpproxy.Hook
		for _, line := range row.turns {
			hooks = append(hooks, always(pass{Command: line}))
		}
		hooks = append(hooks, always(row.last))
		s, failure := inTransaction(smtpproxy.Proxy{Hook: chain(hooks...)}, row.greet)
		d := s.Command(t.Context(), row.line)
		switch {
		case row.valid && failure.Err != nil:
			t.Errorf("%s: %v", row.why, failure)
		case !row.valid && (!errors.Is(*failure, smtpproxy.ErrInvalidDecision) || fmt.Sprint(d)+"\r\n" != lost):
			t.Errorf("%s: %v, %v", row.why, d, failure.Err)
		}
	}
}

func TestTheDroppedOctetsAreThoseOfTheChunkThatTheClientHasSent(t *testing.T) {
	s, _ := inTransaction(smtpproxy.Proxy{Hook: chain(always(pass{Command: "BDAT 007 LAST"}), always(reply{Code: 450}))}, "EHLO")
	if d, ok := s.Command(t.Context(), "BDAT 7").(reply); !ok || d.Code != 450 || s.Discard() != 7 || s.Copies() != 1 {
		t.Errorf("%v, %d octets to drop, %d copies", d, s.Discard(), s.Copies())
	}
}

// A hook that prints what it is shown must not show what the client has sent to another.
func TestNothingThatIsPrintedOfACommandShowsASecretInReceived(t *testing.T) {
	for why, cmd := range map[string]command{
		"AUTH made NOOP":               {Line: "NOOP", Received: "AUTH PLAIN " + response},
		"AUTH made another":            {Line: "AUTH PLAIN AAAA", Received: "AUTH PLAIN " + response},
		"a line of a SASL exchange":    {Line: "AAAA", Received: response, SASL: true},
		"a line that one has given up": {Line: "*", Received: response, SASL: true},
		"the line itself":              {Line: "AUTH PLAIN " + response, Received: "NOOP"},
		"both":                         {Line: "AUTH PLAIN " + response, Received: "AUTH PLAIN " + response},
		"as in POP3":                   {Line: "NOOP", Received: "PASS " + response},
	} {
		var out output
		out.print(cmd)
		if err := json.NewEncoder(&out).Encode(map[string]any{"c": cmd, "p": &cmd}); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(&out, "%v %#v", smtpproxy.Failure{Err: errBroken, Command: cmd}, smtpproxy.Failure{Err: errBroken, Command: cmd})
		if text := out.String(); strings.Contains(text, response) || strings.Contains(text, response[2:10]) || !strings.Contains(text, "****") {
			t.Errorf("%s: %s", why, text)
		}
	}
	if got := fmt.Sprintf("%#v", command{Line: "NOOP 2", Received: "NOOP 1"}); got != `smtpproxy.Command{Line:"NOOP 2", Received:"NOOP 1"}` {
		t.Errorf("what is no secret is %s", got)
	}
}

func TestAnErrorIsLoggedWithoutASecretThatAHookBeforeHasTakenOut(t *testing.T) {
	for why, turns := range map[string]string{"made NOOP": "NOOP", "made another secret": "AUTH PLAIN AAAABBBB"} {
		for what, fails := range map[string]func(cmd command) error{
			"as it is": func(cmd command) error { return errors.New("what is " + cmd.Received) },
			"decoded":  func(cmd command) error { return errors.New("what is " + decoded(command{Line: cmd.Received})) },
			"its line": func(cmd command) error { return errors.New("what is " + cmd.Line) },
		} {
			var logged bytes.Buffer
			var failure smtpproxy.Failure
			p := &smtpproxy.Proxy{
				Hook:      chain(always(pass{Command: turns}), decide(func(cmd command) (decision, error) { return nil, fails(cmd) })),
				Logger:    slog.New(slog.NewTextHandler(&logged, nil)),
				OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision { failure = f; return nil },
			}
			p.NewSession(connection{}).Command(t.Context(), "AUTH PLAIN "+b64("\x00user\x00"+secretPassword))
			text := logged.String() + fmt.Sprintf("%#v", failure)
			if found := leaks([]byte(text)); len(found) > 0 || strings.Contains(text, "AAAABBBB") || !strings.Contains(text, "what is") {
				t.Errorf("%s, %s: %q in %s", why, what, found, text)
			}
		}
	}
}
