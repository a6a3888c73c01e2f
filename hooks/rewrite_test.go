package hooks_test

import (
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// commandFilter has what Postfix documents of smtpd_command_filter (postconf(5)): each of
// its five uses.
var commandFilter = hooks.Rewrite{
	// Clients that send malformed HELO commands.
	{Match: regexp.MustCompile(`(?i)^HELO\s*$`), To: "HELO domain.invalid"},
	// Clients that send empty lines.
	{Match: regexp.MustCompile(`^\s*$`), To: "NOOP"},
	// Clients that send RCPT TO:<'user@domain'>. The parameters stay by themselves.
	{Verb: "RCPT", Match: regexp.MustCompile(`(?i)^(RCPT\s+TO:\s*<)'([^[:space:]]+)'>$`), To: "$1$2>"},
	// VERP-style delivery.
	{Verb: "MAIL", Match: regexp.MustCompile(`(?i)^MAIL\s+FROM:\s*<listname@example\.com>$`), To: "$0 XVERP"},
	// A sink that never bounces, in Postfix's two rules: they see the whole line.
	{Match: regexp.MustCompile(`(?i)^(RCPT\s+TO:.*)\s+NOTIFY=\S+(.*)`), To: "$1 NOTIFY=NEVER$2"},
	{Match: regexp.MustCompile(`(?i)^RCPT\s+TO:.*`), To: "$0 NOTIFY=NEVER"},
}

// passed returns the line that the server got for one that the client has sent in a
// transaction.
func passed(t *testing.T, hook smtpproxy.Hook, line string) string {
	t.Helper()
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hook})
	s.Send("EHLO client.example")
	for _, verb := range []string{"MAIL", "RCPT"} {
		s.Answer(verb, 250) // whatever it is
	}
	if (smtpproxy.Command{Line: line}).Verb() != "MAIL" {
		s.Send("MAIL FROM:<sender@example.org>")
	}
	pass, ok := s.Send(line).(smtpproxy.Pass)
	if !ok {
		t.Fatalf("not passed: %v\n%s", s.Failure(), s.Transcript())
	}
	return pass.Command
}

func TestRewriteDoesWhatPostfixDocumentsOfItsCommandFilter(t *testing.T) {
	for _, tt := range []struct{ why, line, want string }{
		{"HELO without a name", "HELO", "HELO domain.invalid"},
		{"HELO and blanks", "helo \t", "HELO domain.invalid"},
		{"HELO with a name", "HELO client.example", "HELO client.example"},
		{"an empty line", "", "NOOP"},
		{"a line of blanks", " \t ", "NOOP"},
		{"a quoted path", "RCPT TO:<'bob@example.org'>", "RCPT TO:<bob@example.org>"},
		{"a quoted path, whose parameters must not be lost", "rcpt to: <'bob@example.org'>  ORCPT=rfc822;b NOTIFY=SUCCESS", "rcpt to: <bob@example.org>  ORCPT=rfc822;b NOTIFY=SUCCESS"},
		{"an apostrophe of its own", "RCPT TO:<o'neill@example.org>", "RCPT TO:<o'neill@example.org> NOTIFY=NEVER"},
		{"VERP", "MAIL FROM:<listname@example.com>", "MAIL FROM:<listname@example.com> XVERP"},
		{"VERP, with parameters", "Mail From:<ListName@Example.com> SIZE=10", "Mail From:<ListName@Example.com> XVERP SIZE=10"},
		{"no VERP for another sender", "MAIL FROM:<xlistname@example.com> SIZE=10", "MAIL FROM:<xlistname@example.com> SIZE=10"},
		{"NOTIFY put in", "RCPT TO:<bob@example.org>", "RCPT TO:<bob@example.org> NOTIFY=NEVER"},
		{"NOTIFY put in behind another parameter", "RCPT TO:<bob@example.org> ORCPT=rfc822;b", "RCPT TO:<bob@example.org> ORCPT=rfc822;b NOTIFY=NEVER"},
		{"NOTIFY changed in its place", "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b", "RCPT TO:<bob@example.org> NOTIFY=NEVER ORCPT=rfc822;b"},
		{"another command", "NOOP", "NOOP"},
	} {
		if got := passed(t, commandFilter, tt.line); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

func TestTheFirstRuleThatMatchesCounts(t *testing.T) {
	r := hooks.Rewrite{
		{Verb: "HELP", Match: regexp.MustCompile(`never`), To: "NOOP 0"},
		{Verb: "VRFY", Match: regexp.MustCompile(`(\w+)@`), To: "VRFY $1"},
		{Match: regexp.MustCompile(`^(VRFY|HELP)`), To: "NOOP $0"},
		{Match: regexp.MustCompile(`^NOOP`), To: "HELP"}, // not for what another rule has made
	}
	for _, tt := range []struct{ why, line, want string }{
		{"the rule of the verb", "VRFY bob@example.org", "VRFY bob"},
		{"one behind it, for it doesn't match", "VRFY bob", "NOOP VRFY"},
		{"a rule of another verb", "HELP bob@example.org", "NOOP HELP"},
		{"the last", "NOOP", "HELP"},
		{"none", "EXPN list", "EXPN list"},
	} {
		if got := passed(t, r, tt.line); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

func TestARuleForAVerbIsForNoOther(t *testing.T) {
	to := func(verb string) hooks.Rewrite { return hooks.Rewrite{{Verb: verb, To: "NOOP"}} }
	for _, tt := range []struct{ why, verb, line, want string }{
		{"its verb", "VRFY", "VRFY bob", "NOOP"},
		{"its verb in another case", "VrFy", "vRfY bob", "NOOP"},
		{"a verb that begins like it", "VRFY", "VRFYX bob", "VRFYX bob"},
		{"another verb", "VRFY", "EXPN VRFY", "EXPN VRFY"},
		{"a verb of somebody's own", "XPING", "XPING 1", "NOOP"},
		{"every verb, without an expression", "", "EXPN list", "NOOP"},
		{"a line without a verb", "", "<html>", "NOOP"},
	} {
		if got := passed(t, to(tt.verb), tt.line); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

func TestAnExpressionForMAILAndRCPTSeesNoParametersAndLosesNone(t *testing.T) {
	r := hooks.Rewrite{
		{Verb: "RCPT", Match: regexp.MustCompile(`NOTIFY|DROP=1`), To: "RCPT TO:<wrong@example.org>"},
		{Verb: "RCPT", Match: regexp.MustCompile(`<trap@`), To: "NOOP"},
		{Verb: "RCPT", Match: regexp.MustCompile(`@old\.example>$`), To: "RCPT TO:<new@example.org>"},
	}
	for _, tt := range []struct{ why, line, want string }{
		{"parameters stay, as they are", "RCPT TO:<bob@old.example>\tNOTIFY=NEVER  X=1 ", "RCPT TO:<new@example.org>\tNOTIFY=NEVER  X=1 "},
		{"what looks like a parameter in a local part is none", `RCPT TO:<"DROP=1"@old.example>`, "RCPT TO:<wrong@example.org>"},
		{"a command that's no RCPT any more has no parameters", "RCPT TO:<trap@old.example> NOTIFY=NEVER", "NOOP"},
		{"where servers may differ, the line is one whole", "RCPT TO:<bob@old.example> DROP=1 X=<a@b>", "RCPT TO:<wrong@example.org>"},
	} {
		if got := passed(t, r, tt.line); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

func TestOctetsThatAreNotASCIIStayAsTheyAre(t *testing.T) {
	r := hooks.Rewrite{
		{Verb: "RCPT", Match: regexp.MustCompile(`^(RCPT TO:<)'(.+)'>$`), To: "$1$2>"},
		{Verb: "VRFY", Match: regexp.MustCompile(`^VRFY (.*)$`), To: "EXPN $1"},
		{Verb: "SEND", To: "NOOP"},
	}
	for _, tt := range []struct{ why, line, want string }{
		{"UTF-8 in the path", "RCPT TO:<'jürgen@bücher.example'> X=ü", "RCPT TO:<jürgen@bücher.example> X=ü"},
		{"what is no UTF-8", "VRFY J\xfcrgen \xff", "EXPN J\xfcrgen \xff"},
		{"what is no UTF-8, in a command that has parameters else", "RCPT TO:<'J\xfcrgen@b.example'>", "RCPT TO:<J\xfcrgen@b.example>"},
		{"a verb", "send", "NOOP"},
		{"what is that verb to Unicode alone", "\u017fend", "\u017fend"},
	} {
		got := tt.line
		d, err := r.Command(smtpproxy.NewContext(t.Context()), smtpproxy.Command{Line: tt.line}, smtpproxy.Connection{}, smtpproxy.Transaction{})
		if pass, ok := d.(smtpproxy.Pass); ok {
			got = pass.Command
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %q became %q, %v; want %q", tt.why, tt.line, got, err, tt.want)
		}
	}
}

func TestARuleThatComesToNothingLeavesTheLine(t *testing.T) {
	r := hooks.Rewrite{
		{Match: regexp.MustCompile(`^HELP( me)?`), To: "$1"},
		{Match: regexp.MustCompile(`^HELP`), To: "NOOP"}, // the first that matches counts
	}
	if got := passed(t, r, "HELP you"); got != "HELP you" {
		t.Errorf("got %q", got)
	}
}

func TestAResultThatIsNoCommandIsAFailure(t *testing.T) {
	for _, tt := range []struct{ why, to string }{
		{"no verb", "250 OK"},
		{"a blank first", " NOOP"},
		{"two lines", "NOOP\r\nQUIT"},
		{"a NUL", "NOOP \x00"},
		{"more than a line may have", "NOOP " + strings.Repeat("a", 2048)},
		{"content in the place of a command", "BDAT 10 LAST"},
	} {
		p := &smtpproxy.Proxy{Hook: hooks.Rewrite{{Verb: "HELP", To: tt.to}}, Logger: slog.New(slog.DiscardHandler)}
		s := proxytest.NewSession(p)
		s.Send("EHLO client.example")
		s.Send("HELP")
		if !errors.Is(s.Failure(), smtpproxy.ErrInvalidDecision) || s.Reply().Code != 421 || !s.Closed() {
			t.Errorf("%s: %v\n%s", tt.why, s.Failure(), s.Transcript())
		}
	}
}

func TestLinesOfASASLExchangeAreNotRewritten(t *testing.T) {
	r := hooks.Rewrite{{Match: regexp.MustCompile(`.*`), To: "NOOP"}}
	asks := smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return smtpproxy.Pass{Next: true}, nil
	})
	// It gets those lines where it is called by a hook that has asked for them.
	wrapper := smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() != "" {
			return asks(ctx, cmd, conn, txn)
		}
		return r.Command(ctx, cmd, conn, txn)
	})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: wrapper, AllowInsecureAuth: true})
	s.Send("EHLO client.example")
	s.Answer("AUTH", 334, "")
	s.Send("AUTH PLAIN")
	if got := s.Send("AHVzZXIAcGFzcw=="); got != (smtpproxy.Pass{Command: "AHVzZXIAcGFzcw=="}) {
		t.Errorf("got %v", got)
	}
	if s.Reply().Code != 235 {
		t.Errorf("\n%s", s.Transcript())
	}
}

func TestHooksThatMendCommandsDoSoOneBehindTheOther(t *testing.T) {
	asks := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return smtpproxy.Pass{Command: cmd.Line, Next: cmd.Verb() == "RCPT" || cmd.Verb() == "EHLO"}, nil
	})
	var last []smtpproxy.Command
	looks := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		last = append(last, cmd)
		return nil, nil
	})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(
		asks,
		&hooks.RepairHELO{},
		hooks.Rewrite{{Verb: "RCPT", Match: regexp.MustCompile(`<'(.*)'>`), To: "RCPT TO:<$1>"}},
		hooks.StripParameters("MAIL", "XOORG"),
		hooks.StripParameters("RCPT", "NOTIFY"),
		hooks.AddParameter("RCPT", "NOTIFY=NEVER"),
		looks,
	)})
	for _, tt := range []struct {
		line, want string
		next       bool
	}{
		{"EHLO", "EHLO [192.0.2.1]", true},
		{"MAIL FROM:<a@example.org> XOORG=example.org SIZE=1", "MAIL FROM:<a@example.org> SIZE=1", false},
		{"RCPT TO:<'bob@example.org'> NOTIFY=SUCCESS ORCPT=rfc822;b", "RCPT TO:<bob@example.org> ORCPT=rfc822;b NOTIFY=NEVER", true},
	} {
		want := smtpproxy.Pass{Command: tt.want, Next: tt.next}
		if got := s.Send(tt.line); got != want {
			t.Errorf("%q: %v, want %v", tt.line, got, want)
		}
		seen := last[len(last)-1]
		if seen.Line != tt.want || seen.Received != tt.line {
			t.Errorf("the last hook saw %q, received %q", seen.Line, seen.Received)
		}
	}
	if txn := s.Transaction(); txn.Recipients.Len() != 1 || txn.Recipients.At(0).Recipient != "bob@example.org" || s.Connection().HELO.Host != "[192.0.2.1]" {
		t.Errorf("the view is %+v, greeted by %q", txn, s.Connection().HELO.Host)
	}
}

func TestInAMuxARewriteGetsTheVerbOfTheLineBeforeIt(t *testing.T) {
	var mux smtpproxy.Mux
	mux.Handle("HELP", hooks.Rewrite{{To: "VRFY bob"}})
	mux.Handle("VRFY", hooks.Rewrite{{To: "NOOP"}})
	translate := hooks.Rewrite{{Verb: "XHELP", To: "HELP"}}
	if got := passed(t, smtpproxy.Chain(translate, &mux), "XHELP"); got != "VRFY bob" {
		t.Errorf("got %q", got)
	}
}
