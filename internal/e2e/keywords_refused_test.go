package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds that what a hook deletes from the list of keywords is refused, and not
// only hidden, and that nothing else is.

// keywords are what a KeywordHook gets.
type keywords = smtpproxy.Keywords

// onKeywords is a hook that is asked about the list alone.
func onKeywords(f func(kw *keywords) error) smtpproxy.Hook {
	return smtpproxy.Funcs{OnKeywords: func(_ *hookContext, _ connection, kw *keywords) error { return f(kw) }}
}

// deletes is a hook that deletes keywords.
func deletes(names ...string) smtpproxy.Hook {
	return onKeywords(func(kw *keywords) error {
		for _, name := range names {
			kw.Delete(name)
		}
		return nil
	})
}

// shop is a server behind one of the doors: say returns the client's replies to a line,
// and what the server got.
type shop func(line string) (codes []int, got []string)

// shops are the three doors.
var shops = map[string]func(t *testing.T, p *smtpproxy.Proxy) shop{
	"listener": func(t *testing.T, p *smtpproxy.Proxy) shop { return shopOf(t, p, behindListenerDoor) },
	"session":  func(t *testing.T, p *smtpproxy.Proxy) shop { return shopOf(t, p, behindSessionDoor) },
	"fake session": func(_ *testing.T, p *smtpproxy.Proxy) shop {
		s := proxytest.NewSession(p)
		return func(line string) (codes []int, got []string) {
			if line == "." {
				s.SendContent()
			} else if d, ok := s.Send(line).(pass); ok {
				got = []string{d.Command}
			}
			for _, r := range s.Replies() {
				codes = append(codes, r.Code)
			}
			return codes, got
		}
	},
}

func shopOf(t *testing.T, p *smtpproxy.Proxy, open func(*testing.T, *smtpproxy.Proxy, *puppet) door) shop {
	pup := new(puppet)
	d := open(t, p, pup)
	return func(line string) (codes []int, got []string) {
		pup.took()
		codes = d.say(line)
		return codes, pup.took()
	}
}

// deletion is a keyword that is deleted, and a line of a client that had it.
type deletion struct {
	why     string
	keyword string
	line    string
	code    int // of the library's refusal; 0: it is passed
}

var deletions = []deletion{
	{"a chunk", "CHUNKING", "BDAT 3", 502},
	{"the last chunk, in lower case", "chunking", "bdat 3 last", 502},
	{"an empty last chunk", "CHUNKING", "BDAT 0 LAST", 502},
	{"DATA is none", "CHUNKING", "DATA", 0},
	{"BINARYMIME is a keyword of its own", "CHUNKING", "MAIL FROM:<a@b> BODY=BINARYMIME", 0},

	{"STARTTLS", "STARTTLS", "STARTTLS", 502},
	{"STARTTLS with blanks behind", "starttls", "StartTLS \t", 502},

	{"AUTH", "AUTH", "AUTH PLAIN AA==", 502},
	{"AUTH behind a tab", "AUTH", "auth\tPLAIN AA==", 502},
	{"AUTH without anything", "AUTH", "AUTH", 502},
	{"AUTH, deleted as old clients know it", "AUTH=", "AUTH PLAIN AA==", 502},
	{"the parameter", "AUTH", "MAIL FROM:<a@b> AUTH=a+2Bb", 555},
	{"the parameter that most send", "AUTH", "MAIL FROM:<a@b> AUTH=<>", 555},
	{"another parameter", "AUTH", "MAIL FROM:<a@b> RET=FULL", 0},
	{"a mailbox of that name", "AUTH", "MAIL FROM:<auth@auth.example>", 0},
	{"a bounce address that has it and '='", "AUTH", "MAIL FROM:<bounce-oauth=example.com@list.example>", 0},
	{"a value that has it", "AUTH", "MAIL FROM:<a@b> ENVID=auth", 0},

	{"8BITMIME", "8BITMIME", "MAIL FROM:<a@b> BODY=8BITMIME", 555},
	{"8BITMIME in lower case", "8bitmime", "mail from:<a@b> body=8bitmime", 555},
	{"7BIT comes with 8BITMIME (RFC 6152)", "8BITMIME", "MAIL FROM:<a@b> BODY=7BIT", 555},
	{"BODY without a value", "8BITMIME", "MAIL FROM:<a@b> BODY", 555},
	{"BINARYMIME is a keyword of its own", "8BITMIME", "MAIL FROM:<a@b> BODY=BINARYMIME", 0},
	{"8BITMIME beside BINARYMIME", "8BITMIME", "MAIL FROM:<a@b> BODY=BINARYMIME BODY=8BITMIME", 555},
	{"no BODY", "8BITMIME", "MAIL FROM:<8bitmime@body> SIZE=3", 0},

	{"BINARYMIME", "BINARYMIME", "MAIL FROM:<a@b> BODY=BINARYMIME", 555},
	{"BINARYMIME in lower case", "BINARYMIME", "MAIL FROM:<a@b> body=binarymime", 555},
	{"BINARYMIME to go-smtp, which folds a dotless i", "BINARYMIME", "MAIL FROM:<a@b> BODY=b\u0131narymime", 555},
	{"BINARYMIME behind 8BITMIME", "BINARYMIME", "MAIL FROM:<a@b> BODY=8BITMIME BODY=BINARYMIME", 555},
	{"8BITMIME is a keyword of its own", "BINARYMIME", "MAIL FROM:<a@b> BODY=8BITMIME", 0},
	{"7BIT is none of BINARYMIME's", "BINARYMIME", "MAIL FROM:<a@b> BODY=7bit", 0},
	{"8BITMIME beside what has no one reading", "BINARYMIME", "MAIL FROM:<a@b> BODY=8BITMIME AUTH=<>", 0},
	{"BINARYMIME beside what has no one reading", "BINARYMIME", "MAIL FROM:<a@b> BODY=BINARYMIME AUTH=<>", 555},

	{"SIZE", "SIZE", "MAIL FROM:<a@b> SIZE=10", 555},
	{"SIZE in lower case", "SIZE", "MAIL FROM:<a@b> size=10", 555},
	{"SIZE without a value", "SIZE", "MAIL FROM:<> SIZE", 555},
	{"SIZE without a blank before", "SIZE", "MAIL FROM:<a@b>SIZE=10", 555},
	{"SIZE behind a tab", "SIZE", "MAIL FROM:<a@b>\tSIZE=10", 555},
	{"SIZE behind others", "SIZE", "MAIL FROM:<a@b> BODY=8BITMIME RET=HDRS SIZE=10", 555},
	{"SIZE without brackets", "SIZE", "MAIL FROM: a@b SIZE=10", 555},
	{"SIZE of a recipient", "SIZE", "RCPT TO:<c@d> SIZE=10", 555},
	{"SIZE to mhale/smtpd, which searches for it", "SIZE", "MAIL FROM:<a@b> XSIZE=10", 555},
	{"SIZE in a value, likewise", "SIZE", "MAIL FROM:<a@b> X=SIZE=10", 555},
	{"SIZE as the verb", "SIZE", "SIZE 10", 502},
	{"a longer name without a value", "SIZE", "MAIL FROM:<a@b> XSIZE", 0},
	{"a value that is so called", "SIZE", "MAIL FROM:<a@b> X=SIZE", 0},
	{"a mailbox that is so called", "SIZE", "MAIL FROM:<size@size>", 0},
	{"a mailbox with a blank, where only a broken reading finds a word", "SIZE", `MAIL FROM:<"a size"@b>`, 0},
	{"a mailbox with a value", "SIZE", "MAIL FROM:<prvs=123=size=4@b>", 0},
	{"no one reading, and SIZE", "SIZE", "MAIL FROM:<a@b> AUTH=<> SIZE=10", 555},
	{"no one reading, and SIZE before the path", "SIZE", "MAIL SIZE=10 FROM:<a@b>", 555},
	{"no one reading, and SIZE in the brackets", "SIZE", "MAIL FROM:<a@b SIZE=10>", 555},
	{"no one reading, and SIZE behind a blank beyond ASCII", "SIZE", "MAIL FROM:<a@b>\u00a0SIZE=10", 555},
	{"no one reading, and SIZE to go-smtp, which folds a long s", "SIZE", "MAIL FROM:<a@b> \u017fize=10", 555},
	{"no one reading, and a mailbox that is so called", "SIZE", "MAIL FROM:<size@b> AUTH=<>", 0},
	{"no one reading, and a part of a mailbox that is so called", "SIZE", `MAIL FROM:<"a size"@b> AUTH=<>`, 0},
	{"no one reading, and a longer word", "SIZE", "MAIL FROM:<a@b> AUTH=<> RESIZED", 0},
	{"what isn't MAIL", "SIZE", "VRFY size=10", 0},

	{"SMTPUTF8", "SMTPUTF8", "MAIL FROM:<a@b> SMTPUTF8", 555},
	{"SMTPUTF8 in lower case", "SMTPUTF8", "MAIL FROM:<a@b> smtputf8", 555},
	{"a mailbox beyond ASCII says nothing", "SMTPUTF8", "MAIL FROM:<\u00f6@b>", 0},

	{"RET", "DSN", "MAIL FROM:<a@b> RET=FULL", 555},
	{"ENVID", "DSN", "MAIL FROM:<a@b> ENVID=x", 555},
	{"NOTIFY", "DSN", "RCPT TO:<c@d> NOTIFY=NEVER", 555},
	{"ORCPT", "dsn", "rcpt to:<c@d> orcpt=rfc822;c@d", 555},
	{"the second of two", "DSN", "RCPT TO:<c@d> X=1 ORCPT=rfc822;c@d", 555},
	{"a recipient without", "DSN", "RCPT TO:<notify@d>", 0},

	{"BY", "DELIVERBY", "MAIL FROM:<a@b> BY=120;R", 555},
	{"DELIVERBY is no parameter", "DELIVERBY", "MAIL FROM:<a@b> DELIVERBY=1", 555}, // it ends in BY=
	{"a mailbox that begins so", "DELIVERBY", "MAIL FROM:<by@b> AUTH=<>", 0},
	{"HOLDFOR", "FUTURERELEASE", "MAIL FROM:<a@b> HOLDFOR=9", 555},
	{"HOLDUNTIL", "FUTURERELEASE", "MAIL FROM:<a@b> HOLDUNTIL=2030-01-01T00:00:00Z", 555},

	{"pipelining can't be refused", "PIPELINING", "PIPELINING", 0},
	{"nor can enhanced status codes", "ENHANCEDSTATUSCODES", "ENHANCEDSTATUSCODES", 0},

	{"the verb of its name", "ETRN", "ETRN example.com", 502},
	{"the verb of its name, in lower case", "xping", "xPing", 502},
	{"the verb of its name, which SMTP has always", "VRFY", "VRFY x", 502},
	{"a longer verb", "XPING", "XPINGS", 0},
	{"the parameter of its name", "MT-PRIORITY", "MAIL FROM:<a@b> MT-PRIORITY=3", 555},
	{"the parameter of its name, of a recipient", "RRVS", "RCPT TO:<c@d> RRVS=2014-04-03T23:01:00Z", 555},
	{"a parameter that another keyword brings", "XPING", "MAIL FROM:<a@b> SIZE=1", 0},
}

func TestWhatIsDeletedIsRefusedAndNotOnlyHidden(t *testing.T) {
	for _, row := range deletions {
		for name, open := range shops {
			t.Run(row.keyword+", "+row.why+", "+name, func(t *testing.T) { row.play(t, open) })
		}
	}
}

// play says the line, and holds that the dialogue goes on in step.
func (row deletion) play(t *testing.T, open func(*testing.T, *smtpproxy.Proxy) shop) {
	say := open(t, &smtpproxy.Proxy{Hook: deletes("XFIRST", row.keyword), AllowInsecureAuth: true})
	say("EHLO x")
	if verb := (command{Line: row.line}).Verb(); verb == "RCPT" || verb == "BDAT" || verb == "DATA" {
		say("MAIL FROM:<a@b>")
		say("RCPT TO:<a@b>")
	}
	codes, got := say(row.line)
	if row.code == 0 {
		if len(got) != 1 || !strings.EqualFold(got[0], row.line) {
			t.Errorf("%s: the client got %v, the server %q", row.line, codes, got)
		}
		return
	}
	if !slices.Equal(codes, []int{row.code}) || len(got) > 0 {
		t.Errorf("%s: the client got %v, the server %q", row.line, codes, got)
	}
	if codes, got = say("NOOP"); !slices.Equal(codes, []int{250}) || !slices.Equal(got, []string{"NOOP"}) {
		t.Errorf("behind it the client got %v, the server %q", codes, got)
	}
}

// A client that has MAIL with a parameter refused sends it without, as ever.
func TestAClientThatDoesWithoutWhatIsDeletedIsServed(t *testing.T) {
	for name, open := range shops {
		say := open(t, &smtpproxy.Proxy{Hook: deletes("SIZE", "CHUNKING")})
		var all []string
		for _, line := range []string{"EHLO x", "MAIL FROM:<a@b> SIZE=3", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "BDAT 3 LAST", "RSET", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "."} {
			codes, _ := say(line)
			all = append(all, fmt.Sprint(codes))
		}
		if got, want := strings.Join(all, ""), "[250][555][250][250][502][250][250][250][354][250]"; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// In LMTP, a client counts on a reply to the last chunk for each recipient (RFC 2033
// section 4.3), whoever gives it.
func TestARefusedLastChunkIsAnsweredForEachRecipientInLMTP(t *testing.T) {
	for name, open := range shops {
		say := open(t, &smtpproxy.Proxy{Hook: deletes("CHUNKING")})
		var all []string
		for _, line := range []string{"LHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "BDAT 3", "BDAT 3 LAST", "NOOP"} {
			codes, _ := say(line)
			all = append(all, fmt.Sprint(codes))
		}
		if got, want := strings.Join(all, ""), "[250][250][250][250][502][502 502][250]"; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// A hook may speak what the server doesn't: Delete keeps it from the server, Set tells of
// it, and the hook answers it.
func TestAHooksOwnAnswerToADeletedVerbIsItsOwn(t *testing.T) {
	for name, open := range shops {
		hook := smtpproxy.Funcs{
			OnKeywords: func(_ *hookContext, _ connection, kw *keywords) error {
				kw.Delete("ETRN")
				kw.Delete("SIZE")
				return nil
			},
			OnCommand: func(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
				switch {
				case cmd.Line == "ETRN mine":
					return reply{Code: 252}, nil
				case cmd.Line == "MAIL FROM:<a@b> SIZE=1":
					return pass{Command: "MAIL FROM:<a@b>"}, nil
				case cmd.Line == "NOOP SIZE":
					return pass{Command: "MAIL FROM:<a@b> SIZE=1"}, nil
				}
				return nil, nil
			},
		}
		say := open(t, &smtpproxy.Proxy{Hook: hook})
		say("EHLO x")
		for _, row := range []struct {
			why, line string
			code      int
			got       []string
		}{
			{"the hook answers", "ETRN mine", 252, nil},
			{"the hook passes", "ETRN yours", 502, nil},
			{"the hook puts in what is deleted", "NOOP SIZE", 555, nil},
			{"the hook takes out what is deleted", "MAIL FROM:<a@b> SIZE=1", 250, []string{"MAIL FROM:<a@b>"}},
		} {
			if codes, got := say(row.line); !slices.Equal(codes, []int{row.code}) || !slices.Equal(got, row.got) {
				t.Errorf("%s, %s: the client got %v, the server %q", name, row.why, codes, got)
			}
		}
	}
}

// An answer that the hook asked for is the hook's, though the line itself is refused.
func TestNextHoldsThoughTheLineIsRefused(t *testing.T) {
	for name, open := range shops {
		var shown []string
		hook := smtpproxy.Funcs{
			OnKeywords: func(_ *hookContext, _ connection, kw *keywords) error { kw.Delete("ETRN"); return nil },
			OnCommand: func(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
				shown = append(shown, cmd.Line)
				return pass{Next: cmd.Verb() == "ETRN"}, nil
			},
		}
		say := open(t, &smtpproxy.Proxy{Hook: hook, Commands: []string{"ETRN"}})
		for _, line := range []string{"EHLO x", "ETRN x", "NOOP 1", "NOOP 2"} {
			say(line)
		}
		if want := []string{"ETRN x", "NOOP 1"}; !slices.Equal(shown, want) {
			t.Errorf("%s: the hook was shown %q, want %q", name, shown, want)
		}
	}
}

// What is deleted is refused from the verbs, too, that Proxy.Commands keeps from the hook.
func TestADeletionHoldsForVerbsThatTheHookIsNotShown(t *testing.T) {
	for name, open := range shops {
		say := open(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(deletes("ETRN"), always(nil)), Commands: []string{"QUIT"}})
		say("EHLO x")
		if codes, got := say("ETRN x"); !slices.Equal(codes, []int{502}) || len(got) > 0 {
			t.Errorf("%s: the client got %v, the server %q", name, codes, got)
		}
	}
}
