package hooks_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// turn is a line at some point of a dialogue, and what becomes of it.
type turn struct {
	why  string
	conn smtpproxy.Connection
	txn  smtpproxy.Transaction
	line string
	want string // how the reply begins; empty if it is passed
}

var (
	inPlaintext = smtpproxy.Connection{RemoteIP: netip.MustParseAddr("192.0.2.1"), HELO: smtpproxy.HELO{Verb: "EHLO", Host: "client.example"}}
	insideTLS   = with(inPlaintext, func(c *smtpproxy.Connection) { c.TLS.Protocol = "TLSv1.3" })
	onUnix      = with(inPlaintext, func(c *smtpproxy.Connection) { c.RemoteIP = netip.Addr{} })
	ungreeted   = with(inPlaintext, func(c *smtpproxy.Connection) { c.HELO = smtpproxy.HELO{} })
	inHELO      = with(inPlaintext, func(c *smtpproxy.Connection) { c.HELO.Verb = "HELO" })
	inLMTP      = with(inPlaintext, func(c *smtpproxy.Connection) { c.HELO.Verb = "LHLO" })
	hasAuth     = with(inPlaintext, func(c *smtpproxy.Connection) { c.Auth.Mechanism = "PLAIN" })
)

// inMail is a transaction, withRecipient one with a recipient.
var (
	inMail        = smtpproxy.Transaction{Active: true, Sender: "a@example.com"}
	withRecipient = smtpproxy.Transaction{Active: true, Sender: "a@example.com", Recipients: smtpproxy.NewRecipients(smtpproxy.Recipient{Recipient: "b@example.org"})}
)

func with(c smtpproxy.Connection, change func(*smtpproxy.Connection)) smtpproxy.Connection {
	change(&c)
	return c
}

// outcome returns what has become of a line: the reply, empty if it was passed.
func outcome(d smtpproxy.Decision) string {
	r, ok := d.(smtpproxy.Reply)
	if !ok {
		return ""
	}
	if r.Disconnect {
		return r.String() + " (close)"
	}
	return r.String()
}

// takesTurns plays each turn in a session of its own.
func takesTurns(t *testing.T, h smtpproxy.Hook, turns []turn) {
	t.Helper()
	for _, row := range turns {
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: h}, row.conn, row.txn)
		got := outcome(s.Send(row.line))
		if (row.want == "") != (got == "") || !strings.HasPrefix(got, row.want) {
			t.Errorf("%s: %q: %q, want %q", row.why, row.line, got, row.want)
		}
		if err := s.Failure(); err != nil {
			t.Errorf("%s: %v", row.why, err)
		}
		s.Close()
	}
}

// knownVerbs are all verbs of SMTP, and one that is none's.
var knownVerbs = []string{
	"HELO c.example", "EHLO c.example", "LHLO c.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA", "BDAT 3 LAST",
	"RSET", "NOOP", "QUIT", "VRFY b", "EXPN b", "HELP", "ETRN x", "AUTH PLAIN AGEAYg==", "STARTTLS", "XCLIENT ADDR=192.0.2.7", "XPING",
}

func TestAUTHOutsideTLSIsRefused(t *testing.T) {
	const refused = "523 5.7.10 TLS is required"
	takesTurns(t, &hooks.RequireTLS{}, []turn{
		{"the zero value guards AUTH", inPlaintext, smtpproxy.Transaction{}, "AUTH PLAIN AGEAYg==", refused},
		{"in any case", inPlaintext, smtpproxy.Transaction{}, "auth LOGIN", refused},
		{"without arguments too", inPlaintext, smtpproxy.Transaction{}, "AUTH", refused},
		{"before EHLO", ungreeted, smtpproxy.Transaction{}, "AUTH LOGIN", refused},
		{"behind HELO", inHELO, smtpproxy.Transaction{}, "AUTH LOGIN", refused},
		{"in LMTP", inLMTP, smtpproxy.Transaction{}, "AUTH LOGIN", refused},
		{"on a unix socket", onUnix, smtpproxy.Transaction{}, "AUTH LOGIN", refused},
		{"inside TLS it is the server's matter", insideTLS, smtpproxy.Transaction{}, "AUTH LOGIN", ""},
		{"mail isn't guarded", inPlaintext, smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""},
		{"what only starts so is another verb", inPlaintext, smtpproxy.Transaction{}, "AUTHINFO x", ""},
		{"the null chunk of a message isn't guarded", inPlaintext, withRecipient, "BDAT 0 LAST", ""},
	})
	takesTurns(t, &hooks.RequireTLS{Disconnect: true}, []turn{
		{"and the connection is closed", inPlaintext, smtpproxy.Transaction{}, "AUTH PLAIN AGEAYg==", refused + " (close)"},
		{"not behind other commands", inPlaintext, smtpproxy.Transaction{}, "MAIL FROM:<a@example.com>", ""},
	})
}

func TestWithoutTLSNothingIsTakenWhereEverythingNeedsIt(t *testing.T) {
	open := map[string]bool{"EHLO": true, "LHLO": true, "NOOP": true, "QUIT": true, "STARTTLS": true}
	for _, h := range []*hooks.RequireTLS{{Everything: true}, {Everything: true, Disconnect: true}} {
		const refused = "530 5.7.0 Must issue a STARTTLS command first"
		want := refused
		if h.Disconnect {
			want += " (close)"
		}
		for _, line := range knownVerbs {
			for _, c := range []smtpproxy.Connection{inPlaintext, inLMTP, onUnix} {
				verb := smtpproxy.Command{Line: line}.Verb()
				s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: h}, c, withRecipient)
				if got := outcome(s.Send(line)); (got == want) == open[verb] {
					t.Errorf("%+v: %s: %q", *h, line, got)
				}
				s = proxytest.ResumeSession(&smtpproxy.Proxy{Hook: h}, insideTLS, withRecipient)
				if got := outcome(s.Send(line)); strings.HasPrefix(got, refused) {
					t.Errorf("%s inside TLS: %q", line, got)
				}
			}
		}
	}
}

func TestALineWithoutAVerbIsTheLibrarysToRefuseAndToCount(t *testing.T) {
	for name, h := range map[string]smtpproxy.Hook{
		"RequireTLS": &hooks.RequireTLS{Everything: true}, "AllowVerbs": hooks.AllowVerbs("EHLO"), "Strict": hooks.Strict{},
		"Answers": hooks.Answers{"HELP": {Code: 214}},
	} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: h, MaxErrors: 2})
		for _, want := range []string{"500 ", "500 ", "421 "} {
			s.Send("\u00e9?")
			if got := s.Reply().String(); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %q, want %s", name, got, want)
			}
		}
	}
}

func TestWithoutTLSAUTHIsNotAnnounced(t *testing.T) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.RequireTLS{}})
	if line, ok := announced(keywordsOf(s, "EHLO c.example"), "AUTH"); ok {
		t.Errorf("announced: %s", line)
	}
	s.Send("MAIL FROM:<a@example.com> AUTH=<>")
	if got := s.Reply().Code; got/100 != 5 {
		t.Errorf("its parameter: %v", s.Reply())
	}
	s.Send("STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	if _, ok := announced(keywordsOf(s, "EHLO c.example"), "AUTH"); !ok {
		t.Error("inside TLS it isn't announced")
	}
	s.Send("AUTH LOGIN")
	for range 2 {
		s.Send("AUTH")
	}
	if got := s.Reply().Code; got != 235 {
		t.Errorf("AUTH inside TLS, with lines that look like commands: %v", s.Reply())
	}
}

func TestTheLinesOfASASLExchangeAreUntouched(t *testing.T) {
	for name, h := range map[string]smtpproxy.Hook{
		"RequireTLS": &hooks.RequireTLS{Everything: true}, "AllowVerbs": hooks.AllowVerbs("EHLO", "AUTH"), "Strict": hooks.Strict{},
		"Answers": hooks.Answers{"HELP": {Code: 214}, "": {Code: 214}}, "EarlyTalkers": &hooks.EarlyTalkers{}, "CheckHELO": &hooks.CheckHELO{},
		"RequirePTR": hooks.RequirePTR{}, "Networks": &hooks.Networks{},
	} {
		// A hook before it asks for the lines and hands them on, as one of a user's own may.
		next := smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
			d, err := h.Command(ctx, cmd, conn, txn)
			if d == nil && err == nil {
				d = smtpproxy.Pass{Next: true}
			}
			return d, err
		})
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: next}, insideTLS, smtpproxy.Transaction{})
		for _, line := range []string{"AUTH LOGIN", "HELP", "VRFY"} {
			if got := outcome(s.Send(line)); got != "" {
				t.Errorf("%s: %s: %q", name, line, got)
			}
		}
		if got := s.Reply().Code; got != 235 {
			t.Errorf("%s: %v", name, s.Reply())
		}
	}
}

// prefixes makes a list.
func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestClientsAreLetInByTheirNetwork(t *testing.T) {
	const refused = "554 5.7.1 Access denied (close)"
	for _, row := range []struct {
		why  string
		n    hooks.Networks
		ip   string
		want string
	}{
		{"the zero value lets everybody in", hooks.Networks{}, "192.0.2.1", ""},
		{"on a unix socket too", hooks.Networks{}, "", ""},
		{"who is allowed", hooks.Networks{Allow: prefixes("198.51.100.0/24", "192.0.2.0/24")}, "192.0.2.1", ""},
		{"who isn't", hooks.Networks{Allow: prefixes("192.0.2.0/24")}, "192.0.3.1", refused},
		{"who is denied", hooks.Networks{Deny: prefixes("192.0.2.0/24")}, "192.0.2.1", refused},
		{"who isn't denied", hooks.Networks{Deny: prefixes("192.0.2.0/24")}, "192.0.3.1", ""},
		{"Deny comes before Allow", hooks.Networks{Allow: prefixes("192.0.2.0/24"), Deny: prefixes("192.0.2.1/32")}, "192.0.2.1", refused},
		{"and leaves the others in", hooks.Networks{Allow: prefixes("192.0.2.0/24"), Deny: prefixes("192.0.2.1/32")}, "192.0.2.2", ""},
		{"IPv6", hooks.Networks{Deny: prefixes("2001:db8::/32")}, "2001:db8::1", refused},
		{"all of IPv4 is none of IPv6", hooks.Networks{Deny: prefixes("0.0.0.0/0")}, "2001:db8::1", ""},
		{"nor is all of IPv6 one of IPv4", hooks.Networks{Deny: prefixes("::/0")}, "192.0.2.1", ""},
		{"a zone doesn't matter", hooks.Networks{Deny: prefixes("fe80::/10")}, "fe80::1%eth0", refused},
		{"IPv4 in IPv6 form", hooks.Networks{Deny: prefixes("192.0.2.0/24")}, "::ffff:192.0.2.1", refused},
		{"a network in IPv6 form", hooks.Networks{Deny: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.0"), 120)}}, "192.0.2.1", refused},
		{"and no more than that", hooks.Networks{Deny: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.0"), 120)}}, "192.0.3.1", ""},
		{"an invalid one is empty", hooks.Networks{Allow: []netip.Prefix{{}}}, "192.0.2.1", refused},
		{"a unix socket is in no network to deny", hooks.Networks{Deny: prefixes("0.0.0.0/0", "::/0")}, "", ""},
		{"nor in one to allow", hooks.Networks{Allow: prefixes("0.0.0.0/0", "::/0")}, "", refused},
		{"a reply of one's own", hooks.Networks{Deny: prefixes("0.0.0.0/0"), Reply: smtpproxy.Reply{Code: 421, Lines: []string{"Later"}}}, "192.0.2.1", "421 4.7.1 Later (close)"},
		{"the text alone", hooks.Networks{Deny: prefixes("0.0.0.0/0"), Reply: smtpproxy.Reply{Lines: []string{"No"}}}, "192.0.2.1", "554 5.7.1 No (close)"},
		{"the code alone", hooks.Networks{Deny: prefixes("0.0.0.0/0"), Reply: smtpproxy.Reply{Code: 521}}, "192.0.2.1", "521 5.7.1 Access denied (close)"},
		{"the class alone", hooks.Networks{Deny: prefixes("0.0.0.0/0"), Reply: smtpproxy.Reply{Enhanced: smtpproxy.EnhancedCode{4, 7, 1}}}, "192.0.2.1", "421 4.7.1 Access denied (close)"},
		{"its enhanced code alone", hooks.Networks{Deny: prefixes("0.0.0.0/0"), Reply: smtpproxy.Reply{Enhanced: smtpproxy.NoEnhancedCode}}, "192.0.2.1", "554 Access denied (close)"},
	} {
		conn := smtpproxy.Connection{}
		if row.ip != "" {
			conn.RemoteIP = netip.MustParseAddr(row.ip)
		}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: &row.n}, conn, smtpproxy.Transaction{})
		if got := outcome(s.Connect()); got != row.want || s.Failure() != nil {
			t.Errorf("%s: %q, %v, want %q", row.why, got, s.Failure(), row.want)
		}
	}
}

func TestARefusalThatIsNoneIsAFailure(t *testing.T) {
	for _, r := range []smtpproxy.Reply{{Code: 250}, {Code: 554, Next: true}, {Restart: &smtpproxy.Origin{RemotePort: 7}}} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.Networks{Deny: prefixes("0.0.0.0/0"), Reply: r}, Logger: slog.New(slog.DiscardHandler)})
		if got := outcome(s.Connect()); !strings.HasPrefix(got, "421 ") || s.Failure() == nil {
			t.Errorf("%+v: %q, %v", r, got, s.Failure())
		}
	}
}

func TestBehindXCLIENTTheOneToldIsLetInOrNot(t *testing.T) {
	for args, want := range map[string]string{"ADDR=203.0.113.7": "554 5.7.1 Access denied", "ADDR=198.51.100.7": "220 "} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, &hooks.Networks{Deny: prefixes("203.0.113.0/24")})})
		s.Connect()
		s.Send("EHLO front.example")
		s.Send("XCLIENT " + args)
		if got := s.Reply().String(); !strings.HasPrefix(got, want) || s.Closed() != (want[0] == '5') {
			t.Errorf("%s: %q, closed %v", args, got, s.Closed())
		}
	}
}

func TestOnlySomeVerbsAreLetThrough(t *testing.T) {
	allowed := []string{"helo", "EHLO", "Mail", "RCPT", "QUIT"}
	for _, line := range knownVerbs {
		verb := smtpproxy.Command{Line: line}.Verb()
		may := false
		for _, v := range allowed {
			may = may || strings.EqualFold(v, verb)
		}
		for _, line := range []string{line, strings.ToLower(line)} {
			s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hooks.AllowVerbs(allowed...)}, inPlaintext, smtpproxy.Transaction{})
			if got := outcome(s.Send(line)); (got == "502 5.5.1 Command not implemented") == may {
				// The library's own refusal of BDAT here has another text.
				t.Errorf("%s: %q", line, got)
			}
		}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hooks.AllowVerbs()}, inPlaintext, withRecipient)
		if got := outcome(s.Send(line)); got != "502 5.5.1 Command not implemented" {
			t.Errorf("without verbs: %s: %q", line, got)
		}
	}
}

func TestAChunkIsRefusedOnceForEachLMTPRecipient(t *testing.T) {
	two := smtpproxy.Transaction{Active: true, Recipients: smtpproxy.NewRecipients(smtpproxy.Recipient{Recipient: "b@example.org"}, smtpproxy.Recipient{Recipient: "c@example.org"})}
	for name, h := range map[string]smtpproxy.Hook{"AllowVerbs": hooks.AllowVerbs("LHLO"), "RequireTLS": &hooks.RequireTLS{Everything: true}} {
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: h}, inLMTP, two)
		s.Send("BDAT 3 LAST")
		if got := len(s.Replies()); got != 2 {
			t.Errorf("%s: %d replies", name, got)
		}
	}
}

func TestWhatNeedsAnotherVerbIsNotAnnounced(t *testing.T) {
	for _, row := range []struct {
		why     string
		verbs   []string
		without string
	}{
		{"a server for mail alone", []string{"EHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT"}, "CHUNKING BINARYMIME AUTH STARTTLS ETRN XCLIENT VRFY"},
		{"chunks", []string{"EHLO", "BDAT"}, "AUTH STARTTLS ETRN XCLIENT VRFY"},
		{"all of them", []string{"EHLO", "BDAT", "AUTH", "STARTTLS", "ETRN", "XCLIENT", "VRFY"}, ""},
	} {
		all := []string{"PIPELINING", "8BITMIME", "SIZE", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "SMTPUTF8", "AUTH", "STARTTLS", "ETRN", "XCLIENT", "VRFY", "DSN", "XRCPTFORWARD"}
		more := smtpproxy.Funcs{OnKeywords: func(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
			for _, k := range all {
				if _, ok := kw.Get(k); !ok {
					kw.Set(k, "")
				}
			}
			return nil
		}}
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(more, hooks.AllowVerbs(row.verbs...))})
		list := keywordsOf(s, "EHLO c.example")
		for _, k := range all {
			_, is := announced(list, k)
			if is == strings.Contains(" "+row.without+" ", " "+k+" ") {
				t.Errorf("%s: %s announced: %v", row.why, k, is)
			}
		}
	}
}

func TestWhatIsNoVerbCanNotBeLetThrough(t *testing.T) {
	for _, verb := range []string{"", " ", "MAIL FROM:", " MAIL", "1", "\u017ftarttls"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is a verb", verb)
				}
			}()
			hooks.AllowVerbs(verb)
		}()
	}
}

func TestVerbsAreAnsweredInTheServersPlace(t *testing.T) {
	a := hooks.Answers{
		"HELP":  {Code: 214, Lines: []string{"See", "https://mail.example/help"}},
		"VRFY":  {Code: 252, Lines: []string{"Cannot VRFY user"}},
		"EXPN":  {Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"No lists"}},
		"ETRN":  {Code: 458, Lines: []string{"Nothing to send"}},
		"BDAT":  {Code: 502},
		"eTrn":  {Code: 500}, // the other counts
		"xyZZy": {Code: 250},
		"":      {Code: 250},
	}
	takesTurns(t, a, []turn{
		{"a text of two lines", inPlaintext, smtpproxy.Transaction{}, "HELP", "214-2.0.0 See\r\n214 2.0.0 https://mail.example/help"},
		{"with arguments, in any case", inPlaintext, smtpproxy.Transaction{}, "help MAIL", "214-"},
		{"before EHLO", ungreeted, smtpproxy.Transaction{}, "VRFY alice", "252 2.0.0 Cannot VRFY user"},
		{"EXPN", inPlaintext, smtpproxy.Transaction{}, "EXPN staff", "550 5.7.1 No lists"},
		{"ETRN", inPlaintext, smtpproxy.Transaction{}, "ETRN example.org", "458 4.0.0 Nothing to send"},
		{"BDAT with its chunk", inPlaintext, withRecipient, "BDAT 10 LAST", "502 5.0.0"},
		{"a verb that is written in another case", inPlaintext, smtpproxy.Transaction{}, "XYzzy", "250 "},
		{"a line without a verb is the library's", inPlaintext, smtpproxy.Transaction{}, "?", "500 "},
		{"all else is passed", inPlaintext, smtpproxy.Transaction{}, "NOOP", ""},
		{"a verb that only starts so", inPlaintext, smtpproxy.Transaction{}, "HELPME", ""},
	})
	for _, line := range knownVerbs {
		takesTurns(t, hooks.Answers(nil), []turn{{"the zero value answers nothing", insideTLS, withRecipient, line, refusedByTheLibrary(line)}})
	}
}

// refusedByTheLibrary tells what the library itself answers in a transaction inside TLS.
func refusedByTheLibrary(line string) string {
	if strings.HasPrefix(line, "MAIL") {
		return "503 "
	}
	return ""
}

func TestAPolicyThatPassesACommandAllocatesNothing(t *testing.T) {
	ctx := smtpproxy.NewContext(t.Context())
	txn := smtpproxy.Transaction{}
	for name, h := range map[string]smtpproxy.Hook{
		"RequireTLS": &hooks.RequireTLS{Everything: true}, "Networks": &hooks.Networks{Deny: prefixes("0.0.0.0/0")}, "AllowVerbs": hooks.AllowVerbs("EHLO", "MAIL"),
		"Answers": hooks.Answers{"HELP": {Code: 214}}, "EarlyTalkers": &hooks.EarlyTalkers{}, "CheckHELO": &hooks.CheckHELO{Own: []string{"mx.example"}},
		"RequirePTR": hooks.RequirePTR{}, "DNSList": hooks.NewDNSList("bl.example", hooks.DNSListOptions{}), "Strict": hooks.Strict{},
	} {
		conn := with(insideTLS, func(c *smtpproxy.Connection) { c.RemotePTR = "client.example" })
		for _, line := range []string{"EHLO client.example", "MAIL FROM:<alice@example.com>"} {
			cmd := smtpproxy.Command{Line: line}
			n := testing.AllocsPerRun(100, func() {
				if d, err := h.Command(ctx, cmd, conn, txn); d != nil || err != nil {
					t.Fatal(name, line, d, err)
				}
			})
			if n > 0 {
				t.Errorf("%s: %s: %v", name, line, n)
			}
		}
	}
}
