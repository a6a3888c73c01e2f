package hooks_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestStripParametersTakesOutThoseAndNothingElse(t *testing.T) {
	mail := hooks.StripParameters("MAIL", "XOORG", "AUTH")
	for _, tt := range []struct{ why, line, want string }{
		{"Exchange Online", "MAIL FROM:<a@example.org> SIZE=16180 XOORG=example.org", "MAIL FROM:<a@example.org> SIZE=16180"},
		{"vCenter, whose sendmail has no name to tell", "MAIL From:<vc@example.org> SIZE=1459 AUTH=<>", "MAIL From:<vc@example.org> SIZE=1459"},
		{"Outlook, both", "MAIL FROM:<a@example.org> AUTH=<> SIZE=1 XOORG=b", "MAIL FROM:<a@example.org> SIZE=1"},
		{"a quotation mark in a value", `MAIL FROM:<a@example.org> X=" XOORG=b`, `MAIL FROM:<a@example.org> X="`},
		{"KMail", "MAIL FROM:<a@example.org> BODY=7BIT AUTH=a", "MAIL FROM:<a@example.org> BODY=7BIT"},
		{"another case, other blanks", "mail\tfrom: \t<a@example.org>\txoorg=b   Body=7BIT ", "mail\tfrom: \t<a@example.org>   Body=7BIT "},
		{"a keyword without a value", "MAIL FROM:<a@example.org> XOORG", "MAIL FROM:<a@example.org>"},
		{"one twice", "MAIL FROM:<a@example.org> XOORG=1 SIZE=1 XOORG=2", "MAIL FROM:<a@example.org> SIZE=1"},
		{"the null reverse-path", "MAIL FROM:<> XOORG=b", "MAIL FROM:<>"},
		{"a source route", "MAIL FROM:<@a.example,@b.example:c@d.example> XOORG=b", "MAIL FROM:<@a.example,@b.example:c@d.example>"},
		{"a quoted local part", `MAIL FROM:<"a b\" c"@example.org> XOORG=b`, `MAIL FROM:<"a b\" c"@example.org>`},
		{"UTF-8", "MAIL FROM:<jürgen@bücher.example> XOORG=ü SMTPUTF8", "MAIL FROM:<jürgen@bücher.example> SMTPUTF8"},
		{"an address literal", "MAIL FROM:<a@[IPv6:2001:db8::1]> XOORG=b", "MAIL FROM:<a@[IPv6:2001:db8::1]>"},
	} {
		if got := passed(t, mail, tt.line); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
	rcpt := hooks.StripParameters("rcpt", "notify", "orcpt")
	for _, tt := range []struct{ why, line, want string }{
		{"a printer that wants a receipt", "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.org", "RCPT TO:<bob@example.org>"},
		{"<postmaster>", "RCPT TO:<Postmaster> NOTIFY=NEVER", "RCPT TO:<Postmaster>"},
		{"the other verb", "MAIL FROM:<a@example.org> NOTIFY=NEVER", "MAIL FROM:<a@example.org> NOTIFY=NEVER"},
	} {
		if got := passed(t, rcpt, tt.line); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

// asTheyAre are commands that must not be taken apart.
var asTheyAre = []struct{ why, line string }{
	{"no parameter at all", "MAIL FROM:<a@example.org>"},
	{"no such parameter", "MAIL  FROM: <a@example.org>   SIZE=1\t \tBODY=7BIT  "},
	{"a keyword that ends like it", "MAIL FROM:<a@example.org> NOXOORG=b"},
	{"a keyword that begins like it", "MAIL FROM:<a@example.org> XOORGS=b"},
	{"a value like it", "MAIL FROM:<a@example.org> ENVID=XOORG"},
	{"a quoted local part with a bracket", `MAIL FROM:<"a> XOORG=b"@example.org>`},
	{"the same, and a parameter behind it", `MAIL FROM:<"a> XOORG=b"@example.org> XOORG=c`},
	{"the same, and no bracket behind it", `MAIL FROM:<"a> XOORG=b"@example.org`},
	{"a quoted bracket, escaped", `MAIL FROM:<"a\> XOORG=b"@example.org>`},
	{"a quotation mark, escaped", `MAIL FROM:<"a\"> XOORG=b"@example.org>`},
	{"a quoted local part that goes on", `MAIL FROM:<"a> XOORG=b`},
	{"a blank in a local part", "MAIL FROM:<a XOORG=b@example.org> XOORG=c"},
	{"two paths", "MAIL FROM:<a@example.org> FROM:<b@example.org> XOORG=c"},
	{"two keywords", "MAIL FROM:<a@example.org> XOORG=from:b"},
	{"another angle bracket", "MAIL FROM:<a@example.org> XOORG=<b@example.org>"},
	{"half of one", "MAIL FROM:<a@example.org> XOORG=b>"},
	{"an AUTH=<> that goes on", "MAIL FROM:<a@example.org> AUTH=<>b XOORG=b"},
	{"another AUTH with brackets", "MAIL FROM:<a@example.org> AUTH=<b> XOORG=b"},
	{"a mailbox behind a colon", "MAIL FROM:<a@example.org> XOORG=b:c@example.org"},
	{"a colon at the end", "MAIL FROM:<a@example.org> XOORG=b:"},
	{"a path without brackets", "MAIL FROM:a@example.org XOORG=b"},
	{"a display name", "MAIL FROM:Bob <a@example.org> XOORG=b"},
	{"a bracket that isn't closed", "MAIL FROM:<a@example.org XOORG=b"},
	{"nothing between", "MAIL FROM:<a@example.org>XOORG=b"},
	{"another keyword", "MAIL TO:<a@example.org> XOORG=b"},
	{"something before the keyword", "MAIL X FROM:<a@example.org> XOORG=b"},
	{"no keyword", "MAIL <a@example.org> XOORG=b"},
	{"a keyword of the same length", "MAIL XROM:<a@example.org> XOORG=b"},
	{"two angle brackets before a path", "MAIL FROM:<<a@example.org> XOORG=b"},
	{"no argument", "MAIL"},
	{"less than the keyword", "MAIL FRO"},
	{"what is no parameter", "MAIL FROM:<a@example.org> -X=1 XOORG=b"},
	{"white space beyond ASCII, which some servers split at", "MAIL FROM:<a@example.org> SIZE=1\u00a0 XOORG=b"},
	{"a control character beyond ASCII", "MAIL FROM:<a@example.org> SIZE=1\u0081 XOORG=b"},
	{"what is no UTF-8", "MAIL FROM:<a\xff@example.org> XOORG=b"},
	{"another command", "VRFY FROM:<a@example.org> XOORG=b"},
}

func TestWhatServersMayReadDifferentlyIsPassedAsItIs(t *testing.T) {
	for _, tt := range asTheyAre {
		if got := passed(t, hooks.StripParameters("MAIL", "XOORG"), tt.line); got != tt.line {
			t.Errorf("%s: %q became %q", tt.why, tt.line, got)
		}
	}
	add := hooks.AddParameter("MAIL", "XOORG=new")
	for _, tt := range asTheyAre[5:] {
		if got := passed(t, add, tt.line); got != tt.line {
			t.Errorf("added where there is %s: %q became %q", tt.why, tt.line, got)
		}
	}
}

func TestAddParameterAddsOneOrTakesTheFirstsPlace(t *testing.T) {
	for _, tt := range []struct{ why, verb, param, line, want string }{
		{"none before", "RCPT", "NOTIFY=NEVER", "RCPT TO:<bob@example.org>", "RCPT TO:<bob@example.org> NOTIFY=NEVER"},
		{"others before", "rcpt", "NOTIFY=NEVER", "rcpt to:<bob@example.org>\tORCPT=rfc822;b", "rcpt to:<bob@example.org>\tORCPT=rfc822;b NOTIFY=NEVER"},
		{"in the place of another", "RCPT", "NOTIFY=NEVER", "RCPT TO:<bob@example.org>  notify=SUCCESS ORCPT=rfc822;b", "RCPT TO:<bob@example.org>  NOTIFY=NEVER ORCPT=rfc822;b"},
		{"in the place of two", "RCPT", "NOTIFY=NEVER", "RCPT TO:<bob@example.org> NOTIFY=DELAY X NOTIFY", "RCPT TO:<bob@example.org> NOTIFY=NEVER X"},
		{"it is there", "RCPT", "NOTIFY=NEVER", "RCPT TO:<bob@example.org>   NOTIFY=NEVER ", "RCPT TO:<bob@example.org>   NOTIFY=NEVER "},
		{"a keyword alone", "MAIL", "XVERP", "MAIL FROM:<list@example.com>", "MAIL FROM:<list@example.com> XVERP"},
		{"AUTH=<>, as for who hasn't authenticated (RFC 4954 section 5)", "MAIL", "AUTH=<>", "MAIL FROM:<a@example.org> AUTH=mallory", "MAIL FROM:<a@example.org> AUTH=<>"},
		{"the other verb", "MAIL", "XVERP", "RCPT TO:<bob@example.org>", "RCPT TO:<bob@example.org>"},
	} {
		if got := passed(t, hooks.AddParameter(tt.verb, tt.param), tt.line); got != tt.want {
			t.Errorf("%s: %q became %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

func TestWhatIsNoParameterIsRefusedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		why  string
		make func()
	}{
		{"a verb without parameters", func() { hooks.StripParameters("HELO", "XOORG") }},
		{"a verb without parameters", func() { hooks.AddParameter("DATA", "X=1") }},
		{"no verb", func() { hooks.StripParameters("") }},
		{"a keyword with a value", func() { hooks.StripParameters("MAIL", "XOORG=") }},
		{"an empty keyword", func() { hooks.StripParameters("MAIL", "SIZE", "") }},
		{"nothing", func() { hooks.AddParameter("MAIL", "") }},
		{"no keyword", func() { hooks.AddParameter("MAIL", "=1") }},
		{"a hyphen first", func() { hooks.AddParameter("MAIL", "-X=1") }},
		{"no value", func() { hooks.AddParameter("MAIL", "X=") }},
		{"two values", func() { hooks.AddParameter("MAIL", "X=1=2") }},
		{"two parameters", func() { hooks.AddParameter("MAIL", "X=1 Y") }},
		{"two parameters by a tab", func() { hooks.AddParameter("MAIL", "X=1\tY") }},
		{"a line end", func() { hooks.AddParameter("MAIL", "X=1\r\nRSET") }},
		{"a value beyond ASCII", func() { hooks.AddParameter("MAIL", "X=ü") }},
		{"a path", func() { hooks.AddParameter("MAIL", "X=<a@b>") }},
		{"a mailbox behind a colon", func() { hooks.AddParameter("MAIL", "X=a:b@c") }},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", tt.why)
				}
			}()
			tt.make()
		}()
	}
}

// view returns the transaction after a MAIL command that the server has accepted, whatever
// it is. An AUTH=<> counts as another value: to the library, it makes a path doubtful.
func view(line string) smtpproxy.Transaction {
	s := proxytest.NewSession(&smtpproxy.Proxy{})
	s.Send("EHLO client.example")
	s.Answer("MAIL", 250)
	var b strings.Builder
	for i, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' }) {
		if i > 0 {
			b.WriteByte(' ')
		}
		if strings.EqualFold(word, "AUTH=<>") {
			word = word[:5] + "none"
		}
		b.WriteString(word)
	}
	s.Send(b.String())
	return s.Transaction()
}

// paramsOf returns parameters without those with a keyword.
func paramsOf(p smtpproxy.Params, without string) (list []string) {
	for i := range p.Len() {
		if key, value := p.At(i); key != without {
			list = append(list, key+"="+value)
		}
	}
	return list
}

// mended are hooks that leave the path alone, and the parameters but for one.
var mended = []struct {
	name, param string
	hook        smtpproxy.Hook
}{
	{"strip", "XOORG", hooks.StripParameters("MAIL", "XOORG")},
	{"strip AUTH", "AUTH", hooks.StripParameters("MAIL", "AUTH")},
	{"add", "XOORG", hooks.AddParameter("MAIL", "XOORG=new")},
	{"rewrite", "XOORG", hooks.Rewrite{{Verb: "MAIL", To: "$0 XOORG=new"}}},
}

// checkMended sends a line, and compares what the server would make of it with what it would
// make of what it gets. It returns how many hooks have changed it.
func checkMended(t *testing.T, line string) (changed int) {
	for _, tt := range mended {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: tt.hook})
		s.Send("EHLO client.example")
		s.Answer("MAIL", 250)
		pass, _ := s.Send(line).(smtpproxy.Pass)
		if s.Failure() != nil {
			t.Fatalf("%s: %q: %v", tt.name, line, s.Failure())
		}
		to := pass.Command
		if to == "" || to == line {
			continue
		}
		changed++
		before, after := view(line), view(to)
		if before.Sender != after.Sender || before.SenderAddress != after.SenderAddress || (before.Unparsed == "") != (after.Unparsed == "") {
			t.Fatalf("%s: %q became %q: %+v, before %+v", tt.name, line, to, after, before)
		}
		if b, a := paramsOf(before.SenderParams, tt.param), paramsOf(after.SenderParams, tt.param); !slices.Equal(a, b) {
			t.Fatalf("%s: %q became %q: the other parameters are %q, before %q", tt.name, line, to, a, b)
		}
		stripped := strings.HasPrefix(tt.name, "strip")
		if _, found := after.SenderParams.Get(tt.param); found == stripped && after.Unparsed == "" {
			t.Fatalf("%s: %q became %q", tt.name, line, to)
		}
	}
	return changed
}

// words are what MAIL commands are made of, good and bad.
var words = strings.Split(`MAIL|mail|VRFY| | |  |`+"\t"+`|FROM:|from:|TO:|<|>|<>|<a@b.example>|<a@b.example>|<A@B.example>|"|\"|\|a|@|b.example|:|,`+
	`|XOORG|XOORG=|XOORG=b|XOORG=b|xoorg=B|SIZE=1|SIZE=1|BODY=8BITMIME|AUTH=<>|auth=<>|AUTH=<a>|AUTH=a|X=a:b@c.example|=|-|X=:|ü|`+
	"\xff|\u00a0|\u200b|=?utf-8?q?a?=", "|")

func TestAMendedCommandNamesNoOtherPathThanBefore(t *testing.T) {
	changed := 0
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		line := "MAIL FROM:"
		if r.IntN(2) == 0 {
			line += "<a@b.example> "
		}
		for range r.IntN(10) {
			line += words[r.IntN(len(words))]
			if r.IntN(3) == 0 {
				line += " "
			}
		}
		changed += checkMended(t, line)
	}
	if changed < 1000 {
		t.Errorf("only %d changes were seen", changed)
	}
}

func FuzzAMendedCommandNamesNoOtherPathThanBefore(f *testing.F) {
	for _, tt := range asTheyAre {
		f.Add(tt.line)
	}
	for _, line := range []string{
		"MAIL FROM:<a@b.example> SIZE=1 XOORG=x AUTH=<>", "mail from: <> xoorg=", "MAIL\tFROM:\t<\"a b\"@c.example>\tXOORG\tX",
		`MAIL FROM:<"a AUTH=<> b"@c.example> XOORG=x`, "MAIL FROM:<a@b.example> XOORG=x=y", "MAIL FROM:<@a.example:b@c.example> XOORG=x",
		"MAIL FROM:<=?utf-8?q?a?=@b.example> XOORG=x", "MAIL FROM:<a@b.example> XOORG=x\u200b", "MAIL FROM:<a@b.example> X=: XOORG=x",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n") || len(line) > 200 {
			t.Skip("no line of a client's, or needlessly long")
		}
		checkMended(t, line)
	})
}
