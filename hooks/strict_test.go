package hooks_test

import (
	netmail "net/mail"
	"regexp"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

var (
	long64  = strings.Repeat("a", 64)
	inUTF8  = smtpproxy.Transaction{Active: true, Sender: "a@example.com", SenderParams: smtpproxy.NewParams("SMTPUTF8")}
	inUTF8U = smtpproxy.Transaction{Active: true, Unparsed: "FROM:<a@example.com> AUTH=<> smtputf8"}
)

func TestMAILBeforeEHLOIsRefused_mailpit621(t *testing.T) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.Strict{}})
	s.Send("MAIL FROM:<a@example.com>")
	if got := s.Reply().String(); got != "503 5.5.1 Greet first" || s.Transaction().Active {
		t.Error(got)
	}
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<a@example.com>")
	if got := s.Reply().Code; got != 250 {
		t.Errorf("behind EHLO: %v", s.Reply())
	}
}

func TestAMalformedSourceRouteIsRefused_mailpit622(t *testing.T) {
	for path, want := range map[string]int{
		"@a.example,@b.example:c@d.example": 250, "@a.example:c@d.example": 250,
		"@a.example,c@d.example": 501, "@a.example c@d.example": 501, "@:c@d.example": 501, "@a.example,:c@d.example": 501,
		"a.example:c@d.example": 501, "@a.example,b.example:c@d.example": 501, "@a.example:": 501, "@a.example": 501, "@[192.0.2.1]:c@d.example": 501,
		"@a.example, @b.example:c@d.example": 501, "@a..example:c@d.example": 501,
	} {
		for _, command := range []string{"MAIL FROM:", "RCPT TO:"} {
			s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.Strict{}})
			s.Send("EHLO client.example")
			if command == "RCPT TO:" {
				s.Send("MAIL FROM:<>")
			}
			s.Send(command + "<" + path + ">")
			if got := s.Reply(); got.Code != want {
				t.Errorf("%s<%s>: %v, want %d", command, path, got, want)
			}
		}
	}
}

func TestANestedMAILIsRefused_mailpit623(t *testing.T) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.Strict{}})
	for _, row := range []struct {
		line string
		want int
	}{
		{"EHLO client.example", 250}, {"MAIL FROM:<a@example.com>", 250}, {"MAIL FROM:<b@example.com>", 503}, {"RCPT TO:<c@example.org>", 250},
		{"MAIL FROM:<b@example.com>", 503}, {"RSET", 250}, {"MAIL FROM:<b@example.com>", 250},
	} {
		s.Send(row.line)
		if got := s.Reply(); got.Code != row.want {
			t.Errorf("%s: %v, want %d", row.line, got, row.want)
		}
	}
	if got := s.Transaction().Sender; got != "b@example.com" {
		t.Errorf("the sender is %s", got)
	}
}

func TestCommandsComeInTheOrderOfRFC5321(t *testing.T) {
	none := smtpproxy.Transaction{}
	takesTurns(t, hooks.Strict{}, []turn{
		{"4.1.4: mail behind a greeting", ungreeted, none, "MAIL FROM:<a@example.com>", "503 5.5.1 Greet first"},
		{"in any case", ungreeted, none, "mail from:<a@example.com>", "503 5.5.1 Greet first"},
		{"its syntax comes second", ungreeted, none, "MAIL x", "503 5.5.1 Greet first"},
		{"RCPT", ungreeted, none, "RCPT TO:<b@example.org>", "503 5.5.1 Greet first"},
		{"DATA", ungreeted, none, "DATA", "503 5.5.1 Greet first"},
		{"2.2: extensions behind EHLO", ungreeted, none, "BDAT 3 LAST", "503 5.5.1 Greet with EHLO first"},
		{"AUTH", ungreeted, none, "AUTH PLAIN AGEAYg==", "503 5.5.1 Greet with EHLO first"},
		{"STARTTLS", ungreeted, none, "STARTTLS", "503 5.5.1 Greet with EHLO first"},
		{"HELO offers none", inHELO, none, "AUTH LOGIN", "503 5.5.1 Greet with EHLO first"},
		{"nor BDAT", inHELO, withRecipient, "BDAT 3 LAST", "503 5.5.1 Greet with EHLO first"},
		{"nor STARTTLS", inHELO, none, "STARTTLS", "503 5.5.1 Greet with EHLO first"},
		{"but mail", inHELO, none, "MAIL FROM:<a@example.com>", ""},
		{"EHLO does", inPlaintext, none, "AUTH LOGIN", ""},
		{"and LHLO", inLMTP, withRecipient, "BDAT 3 LAST", ""},
		{"and STARTTLS", inPlaintext, none, "STARTTLS", ""},
		{"4.1.4: these may come at any time", ungreeted, none, "NOOP", ""},
		{"HELP", ungreeted, none, "HELP", ""},
		{"EXPN", ungreeted, none, "EXPN x", ""},
		{"VRFY", ungreeted, none, "VRFY x", ""},
		{"RSET", ungreeted, none, "RSET", ""},
		{"QUIT", ungreeted, none, "QUIT", ""},
		{"EHLO again", inPlaintext, inMail, "EHLO client.example", ""},
		{"RFC 4954 4: AUTH in a transaction", inPlaintext, inMail, "AUTH LOGIN", "503 5.5.1 AUTH comes once, before MAIL"},
		{"a second time", hasAuth, none, "AUTH LOGIN", "503 5.5.1 AUTH comes once, before MAIL"},
		{"3.3: RCPT without MAIL", inPlaintext, none, "RCPT TO:<b@example.org>", "503 "},
		{"whose syntax comes second", inPlaintext, none, "RCPT x", "503 "},
		{"DATA without MAIL", inPlaintext, none, "DATA", "503 "},
		{"DATA without a recipient", inPlaintext, inMail, "DATA", "503 5.5.1 No valid recipients"},
		{"DATA with one", inPlaintext, withRecipient, "DATA", ""},
		{"in LMTP", inLMTP, withRecipient, "DATA", ""},
	})
}

func TestCommandsHaveTheSyntaxOfRFC5321(t *testing.T) {
	none := smtpproxy.Transaction{}
	takesTurns(t, hooks.Strict{}, []turn{
		{"4.1.1.1: a domain", ungreeted, none, "EHLO client.example", ""},
		{"one label", ungreeted, none, "HELO client", ""},
		{"digits and hyphens", ungreeted, none, "EHLO a-1.3com.example", ""},
		{"an address literal", ungreeted, none, "EHLO [192.0.2.1]", ""},
		{"4.1.3: of IPv6", ungreeted, none, "LHLO [IPv6:2001:db8::1]", ""},
		{"behind HELO too", ungreeted, none, "HELO [192.0.2.1]", ""},
		{"4.1.1: blanks at the end", ungreeted, none, "EHLO client.example \t ", ""},
		{"no name", ungreeted, none, "EHLO", "501 5.5.4 Syntax: EHLO domain or [address]"},
		{"blanks for a name", ungreeted, none, "HELO  ", "501 5.5.4 Syntax: HELO domain or [address]"},
		{"two words", ungreeted, none, "EHLO client example", "501 5.5.4 Syntax: EHLO"},
		{"an underscore", ungreeted, none, "EHLO my_pc.example", "501 5.5.4 Syntax: EHLO"},
		{"a hyphen at an end", ungreeted, none, "EHLO -a.example", "501 5.5.4 Syntax: EHLO"},
		{"at the other", ungreeted, none, "EHLO a.b-", "501 5.5.4 Syntax: EHLO"},
		{"a last dot", ungreeted, none, "EHLO client.example.", "501 5.5.4 Syntax: EHLO"},
		{"RFC 6531 3.7.1: A-labels", ungreeted, none, "EHLO xn--bcher-kva.example", ""},
		{"not U-labels", ungreeted, none, "EHLO b\u00fccher.example", "501 5.5.4 Syntax: EHLO"},
		{"a literal of no address", ungreeted, none, "EHLO [client]", "501 5.5.4 Syntax: EHLO"},
		{"one that isn't opened", ungreeted, none, "EHLO 192.0.2.1]", "501 5.5.4 Syntax: EHLO"},
		{"one that isn't closed", ungreeted, none, "EHLO [192.0.2.1", "501 5.5.4 Syntax: EHLO"},
		{"4.5.3.1.2: 255 octets", ungreeted, none, "EHLO " + strings.Repeat("a.", 127) + "a", ""},
		{"256", ungreeted, none, "EHLO " + strings.Repeat("a.", 127) + "ab", "501 5.5.4 Syntax: EHLO"},

		{"one space", inPlaintext, none, "MAIL  FROM:<a@example.com>", "501 5.5.4 One space stands behind MAIL"},
		{"no tab", inPlaintext, none, "NOOP\tx", "501 5.5.4 One space stands behind NOOP"},
		{"a tab behind it", inPlaintext, none, "MAIL \tFROM:<a@example.com>", "501 5.5.4 One space stands behind MAIL"},
		{"of verbs that it doesn't know it knows nothing", inPlaintext, none, "XPING  x", ""},
		{"4.1.1: DATA has no arguments", inPlaintext, withRecipient, "DATA x", "501 5.5.4 Syntax: DATA"},
		{"nor QUIT", inPlaintext, none, "QUIT now", "501 5.5.4 Syntax: QUIT"},
		{"nor RSET", inPlaintext, none, "RSET x", "501 5.5.4 Syntax: RSET"},
		{"nor STARTTLS", inPlaintext, none, "STARTTLS x", "501 5.5.4 Syntax: STARTTLS"},
		{"blanks are none", inPlaintext, withRecipient, "DATA ", ""},
		{"NOOP may have one", inPlaintext, none, "NOOP x", ""},
		{"HELP may have one", inPlaintext, none, "HELP x", ""},
		{"VRFY has one", inPlaintext, none, "VRFY", "501 5.5.4 Syntax: VRFY string"},
		{"EXPN has one", inPlaintext, none, "EXPN ", "501 5.5.4 Syntax: EXPN string"},
	})
}

func TestPathsHaveTheSyntaxOfRFC5321(t *testing.T) {
	ok := func(path string) turn { return turn{"good", inPlaintext, inMail, path, ""} }
	bad := func(why, path string) turn { return turn{why, inPlaintext, inMail, path, "501 5.1."} }
	rows := []turn{
		ok("<a@example.com>"), ok("<A.b+c-d_e=f@Example.COM>"), ok("<a@[192.0.2.1]>"), ok("<a@[IPv6:2001:db8::1]>"), ok("<a@localhost>"),
		ok("<!#$%&'*+-/=?^_`{|}~@example.com>"), ok(`<"a b"@example.com>`), ok(`<"a\"b\\"@example.com>`), ok(`<"a>b"@example.com>`),
		ok(`<"a@b"@example.com>`), ok(`<""@example.com>`), ok(`<"a\ b"@example.com>`), ok("<" + long64 + "@example.com>"), ok("<@a.example:b@c.example>"),
		ok("<a@example.com> "),
		bad("no brackets", "a@example.com"), bad("one bracket", "<a@example.com"), bad("another", "a@example.com>"), bad("a blank before it", " <a@example.com>"),
		bad("3.3: a tab before it", "\t<a@example.com>"), bad("a name before it", "Alice <a@example.com>"), bad("nothing", ""),
		bad("something right behind it", "<a@example.com>x"), bad("a bracket too many", "<a@example.com>>"), bad("two", "<<a@example.com>>"),
		bad("a tab behind it", "<a@example.com>\tBODY=8BITMIME"),
		bad("a blank in it", "<a @example.com>"), bad("within brackets", "< a@example.com >"), bad("no domain", "<a>"), bad("an empty domain", "<a@>"),
		bad("an empty local part", "<@example.com>"), bad("a dot at the end", "<a.@example.com>"), bad("at the beginning", "<.a@example.com>"),
		bad("two dots", "<a..b@example.com>"), bad("a comma", "<a,b@example.com>"), bad("a colon", "<a:b@example.com>"), bad("a comment", "<a(b)@example.com>"),
		bad("a backslash", `<a\b@example.com>`), bad("a quote within", `<a"b"@example.com>`), bad("two quotes within", `<"a""b"@example.com>`), bad("a quote that isn't closed", `<"a@example.com>`),
		bad("something behind it", `<"a"b@example.com>`), bad("a backslash at its end", `<"a\"@example.com>`), bad("a control behind one", "<\"a\\\tb\"@example.com>"),
		bad("a tab in it", "<\"a\tb\"@example.com>"), bad("a letter beyond ASCII behind one", "<\"a\\\u00fc\"@example.com>"), bad("two at signs", "<a@b@example.com>"),
		bad("an underscore in the domain", "<a@b_c.example>"), bad("a last dot", "<a@example.com.>"), bad("a dot too many", "<a@example..com>"),
		bad("a hyphen at an end", "<a@-example.com>"), bad("a bare IPv6 literal", "<a@[2001:db8::1]>"), bad("an unknown literal", "<a@[x:y]>"),
		bad("4.5.3.1.1: 65 octets", "<a"+long64+"@example.com>"), bad("4.5.3.1.3: 257 octets", "<"+long64+"@"+strings.Repeat("a.", 94)+"ab>"),
		bad("no UTF-8", "<\xff@example.com>"), bad("no letter", "<a@b\u3002example>"),
	}
	rows = append(rows, ok("<"+long64+"@"+strings.Repeat("a.", 94)+"a>"))
	for _, row := range rows {
		for keyword, detail := range map[string]string{"MAIL FROM:": "7 Syntax: FROM:<path>", "RCPT TO:": "3 Syntax: TO:<path>"} {
			row := row
			row.line = keyword + row.line
			if row.want != "" {
				row.want += detail
			}
			if strings.HasPrefix(keyword, "MAIL") {
				row.txn = smtpproxy.Transaction{}
			}
			takesTurns(t, hooks.Strict{}, []turn{row, {row.why, inLMTP, row.txn, row.line, row.want}})
		}
	}
	none := smtpproxy.Transaction{}
	takesTurns(t, hooks.Strict{}, []turn{
		{"the null reverse-path", inPlaintext, none, "MAIL FROM:<>", ""},
		{"is no forward-path", inPlaintext, inMail, "RCPT TO:<>", "501 5.1.3"},
		{"4.1.1.3: postmaster", inPlaintext, inMail, "RCPT TO:<PostMaster>", ""},
		{"is no reverse-path", inPlaintext, none, "MAIL FROM:<postmaster>", "501 5.1.7"},
		{"another keyword", inPlaintext, none, "MAIL TO:<a@example.com>", "501 5.5.4 Syntax: FROM:<path>"},
		{"none", inPlaintext, inMail, "RCPT <a@example.com>", "501 5.5.4 Syntax: TO:<path>"},
		{"no colon", inPlaintext, inMail, "RCPT TO <a@example.com>", "501 5.5.4 Syntax: TO:<path>"},
		{"in any case", inPlaintext, inMail, "rcpt to:<a@example.com>", ""},
		{"RFC 6531 3.5: without SMTPUTF8", inPlaintext, none, "MAIL FROM:<\u00fc@example.com>", "553 5.6.7 Letters beyond ASCII need SMTPUTF8"},
		{"a U-label without it", inPlaintext, inMail, "RCPT TO:<a@b\u00fccher.example>", "553 5.6.7"},
		{"with it", inPlaintext, none, "MAIL FROM:<\u00fc@b\u00fccher.example> SMTPUTF8", ""},
		{"in any case", inPlaintext, none, "MAIL FROM:<\"\u00fc\"@example.com> BODY=8BITMIME smtputf8", ""},
		{"a recipient with it", inPlaintext, inUTF8, "RCPT TO:<\u00fc@b\u00fccher.example>", ""},
		{"where MAIL could be read in different ways", inPlaintext, inUTF8U, "RCPT TO:<\u00fc@example.com>", ""},
		{"which isn't RCPT's to say", inPlaintext, inMail, "RCPT TO:<\u00fc@example.com> SMTPUTF8", "553 5.6.7"},
	})
}

func TestParametersHaveTheSyntaxOfRFC5321(t *testing.T) {
	none := smtpproxy.Transaction{}
	rows := []turn{
		{"with a value", inPlaintext, none, "SIZE=1000", ""},
		{"more", inPlaintext, none, "SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=a+2Bb", ""},
		{"without a value", inPlaintext, none, "REQUIRETLS", ""},
		{"unknown ones are the server's matter", inPlaintext, none, "X-1=<>", ""},
		{"an empty value", inPlaintext, none, "SIZE=", "501 5.5.4 Bad parameter SIZE="},
		{"an equals sign in it", inPlaintext, none, "A=b=c", "501 5.5.4 Bad parameter A=b=c"},
		{"no keyword", inPlaintext, none, "=1", "501 5.5.4 Bad parameter =1"},
		{"a keyword that is none", inPlaintext, none, "-A=1", "501 5.5.4 Bad parameter -A=1"},
		{"twice", inPlaintext, none, "SIZE=1 BODY=7BIT size=2", "501 5.5.4 Bad parameter size=2"},
		{"two spaces", inPlaintext, none, "SIZE=1  BODY=7BIT", "501 5.5.4 Bad parameter "},
		{"a tab", inPlaintext, none, "SIZE=1\tBODY=7BIT", "501 5.5.4 Bad parameter "},
		{"a long one in a reply", inPlaintext, none, strings.Repeat("a", 600) + "_", "501 5.5.4 Bad parameter " + strings.Repeat("a", 40) + "..."},
		{"RFC 6531 3.3: letters beyond ASCII", inPlaintext, none, "SMTPUTF8 X=\u00fc", ""},
		{"without it", inPlaintext, none, "X=\u00fc", "501 5.5.4 Bad parameter X=?"},
		{"not in a keyword", inPlaintext, none, "SMTPUTF8 \u00fc=x", "501 5.5.4 Bad parameter ?=x"},
		{"4.1.1.11: behind HELO", inHELO, none, "SIZE=1", "555 5.5.4 There are no parameters behind HELO"},
	}
	for _, row := range rows {
		row.line = "MAIL FROM:<a@example.com> " + row.line
		takesTurns(t, hooks.Strict{}, []turn{row})
	}
	takesTurns(t, hooks.Strict{}, []turn{
		{"of a recipient", inPlaintext, inMail, "RCPT TO:<b@example.org> NOTIFY=NEVER ORCPT=rfc822;b@example.org", ""},
		{"with letters beyond ASCII", inPlaintext, inUTF8, "RCPT TO:<b@example.org> ORCPT=utf-8;\u00fc@example.org", ""},
		{"without", inPlaintext, inMail, "RCPT TO:<b@example.org> ORCPT=utf-8;\u00fc@example.org", "501 5.5.4 Bad parameter ORCPT=utf-8;?@example.org"},
		{"behind HELO", inHELO, inMail, "RCPT TO:<b@example.org> NOTIFY=NEVER", "555 5.5.4"},
	})
}

// sentBehind is a hook that is told that more has been sent already.
func sentBehind(h smtpproxy.Hook) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		cmd.Pipelined = true
		return h.Command(ctx, cmd, conn, txn)
	})
}

func TestWhatHasToWaitForItsReplyIsTheLastOfAGroup(t *testing.T) {
	for _, line := range knownVerbs {
		verb := smtpproxy.Command{Line: line}.Verb()
		const refused = "554 5.5.0 "
		behindEHLO := ""
		switch verb {
		case "HELO", "EHLO", "LHLO", "DATA", "VRFY", "EXPN", "QUIT", "NOOP", "STARTTLS", "ETRN":
			behindEHLO = refused
		}
		for _, row := range []struct {
			conn smtpproxy.Connection
			want string
		}{{inPlaintext, behindEHLO}, {inLMTP, behindEHLO}, {inHELO, refused}} {
			s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: sentBehind(hooks.Strict{})}, row.conn, withRecipient)
			got := outcome(s.Send(line))
			if strings.HasPrefix(got, refused) != (row.want != "") || row.want != "" && got != refused+verb+" has to wait for its reply (close)" {
				t.Errorf("%s behind %s: %q, want %q", line, row.conn.HELO.Verb, got, row.want)
			}
		}
	}
}

// plainPath is an address as almost all are.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// isPlain tells whether net/mail, which net/smtp's users have their addresses from, takes an
// address, and it is of the plain kind and not too long.
func isPlain(address string) bool {
	a, err := netmail.ParseAddress("<" + address + ">")
	return err == nil && a.Address == address && plainPath.MatchString(address) && strings.IndexByte(address, '@') <= 64 && len(address) <= 254
}

// meant returns the local part and the domain of a path between angle brackets, if they are its
// only ones.
func meant(path string) (local, domain string) {
	_, path, _ = strings.Cut(path, "<")
	path, _, _ = strings.Cut(path, ">")
	if strings.HasPrefix(path, "@") {
		_, path, _ = strings.Cut(path, ":")
	}
	at := strings.LastIndexByte(path, '@')
	if at < 0 {
		return path, ""
	}
	local, domain = path[:at], path[at+1:]
	if strings.HasPrefix(local, `"`) {
		local = regexp.MustCompile(`\\(.)`).ReplaceAllString(local[1:len(local)-1], "$1")
	}
	return local, domain
}

// What Strict lets through, the library reads as the same path, if it reads it at all, and
// what is plain it lets through.
func FuzzStrict(f *testing.F) {
	for _, args := range []string{
		"<a@example.com>", "<>", "<postmaster>", "<@a.example,@b.example:c@d.example> SIZE=1", `<"a b"@example.com> BODY=8BITMIME`, `<"a\"b"@[192.0.2.1]>`,
		`<"@>"@example.com>`, "<\u00fc@b\u00fccher.example> SMTPUTF8", "<a@[IPv6:2001:db8::1]> AUTH=<>", `<"a>b"@example.com>`, "a@example.com", " <a@example.com>", "<a@example.com>\tX=y",
		"<a@example.com> X=b:c@d", "<=?a?q?b?=@example.com>", `<"a@b"@example.com>`, "<a@b_c.example>", "<a..b@example.com>", "<a@example.com> from:<b@example.com>",
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		for _, command := range []string{"MAIL FROM:", "RCPT TO:"} {
			s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.Strict{}, MaxErrors: -1})
			s.Send("EHLO client.example")
			if command == "RCPT TO:" {
				s.Send("MAIL FROM:<> SMTPUTF8")
			}
			refused := outcome(s.Send(command + args))
			if err := s.Failure(); err != nil {
				t.Fatal(err)
			}
			inner := strings.TrimSuffix(strings.TrimPrefix(args, "<"), ">")
			if args == "<"+inner+">" && isPlain(inner) && refused != "" {
				t.Errorf("%s%s: %s", command, args, refused)
			}
			if refused != "" {
				continue
			}
			txn := s.Transaction()
			unparsed, got := txn.Unparsed, txn.SenderAddress
			if command == "RCPT TO:" {
				r := txn.Recipients.At(0)
				unparsed, got = r.Unparsed, r.Address
			}
			if unparsed != "" {
				continue // more brackets than a path's own, say: no path is claimed
			}
			local, domain := meant(args)
			if got != (smtpproxy.Address{Localpart: local, Domain: domain}) {
				t.Errorf("%s%s: it is %+v, and %s, %s was let through", command, args, got, local, domain)
			}
		}
	})
}

// nginx sends MAIL right behind XCLIENT.
func TestBehindXCLIENTThereIsMailIfItTellsHELO(t *testing.T) {
	for args, want := range map[string]int{"ADDR=203.0.113.7": 503, "ADDR=203.0.113.7 HELO=client.example PROTO=ESMTP": 250, "ADDR=203.0.113.7 HELO=client.example": 250} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, hooks.Strict{})})
		s.Send("EHLO front.example")
		s.Send("XCLIENT " + args)
		d := s.Send("MAIL FROM:<a@example.com>")
		if _, refused := d.(smtpproxy.Reply); refused != (want == 503) {
			t.Errorf("%s: %v, want %d", args, d, want)
		}
	}
}
