package smtpproxy_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Servers split AUTH at all kinds of white space. What is left of an initial
// response in the mechanism would be a password for every hook to see.
func TestAMechanismHoldsNoInitialResponse(t *testing.T) {
	for _, space := range []string{" ", "  ", "\t", " \t ", "\u00a0"} {
		s := proxytest.NewSession(&smtpproxy.Proxy{})
		s.Send("EHLO client.example")
		s.Send("AUTH plain" + space + "AGFsaWNlAHNlY3JldA==")
		if auth := s.Connection().Auth; auth != (smtpproxy.Auth{Mechanism: "PLAIN", Username: "alice"}) {
			t.Errorf("split at %q: %q", space, auth)
		}
	}
}

func TestNextHoldsWhateverBecomesOfTheCommand(t *testing.T) {
	rows := []struct{ line, reason string }{
		{"MAIL FROM:<nested@example.com>", "the library refuses a nested MAIL"},
		{"BDAT 0 LAST", "the library refuses a chunk without recipients"},
		{"STARTTLSFOO", "the library refuses what is like STARTTLS"},
		{"RSET", "the server answers"},
	}
	for _, row := range rows {
		t.Run(row.reason, func(t *testing.T) {
			var shown []string
			// With Commands, only Next brings the line after.
			p := &smtpproxy.Proxy{Commands: []string{"mail", "bdat", "starttlsfoo", "rset"}}
			p.Hook = smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				shown = append(shown, cmd.Line)
				return smtpproxy.Pass{Next: cmd.Line == row.line}, nil
			})
			s := p.ResumeSession(smtpproxy.Connection{}, smtpproxy.Transaction{Active: true})
			for _, line := range []string{row.line, "NOOP", "NOOP again"} {
				if _, passed := s.Command(context.Background(), line).(smtpproxy.Pass); passed {
					s.Replied(250)
				}
			}
			if !slices.Equal(shown, []string{row.line, "NOOP"}) {
				t.Errorf("shown %q", shown)
			}
		})
	}
}

func TestAClosedSessionEndsItsContextAndAnswersNothingMore(t *testing.T) {
	s := new(smtpproxy.Proxy).NewSession(smtpproxy.Connection{})
	s.Close()
	select {
	case <-s.Context().Done():
	default:
		t.Error("the context isn't done")
	}
	r, ok := s.Command(context.Background(), "NOOP").(smtpproxy.Reply)
	if !ok || r.Code != 421 || !r.Disconnect {
		t.Errorf("got %v", r)
	}
}

func TestPassingACommandAllocatesNothing(t *testing.T) {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return nil, nil
	})}
	s := p.NewSession(smtpproxy.Connection{})
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := s.Command(ctx, "NOOP").(smtpproxy.Pass); !ok {
			t.Error("not passed")
		}
		s.Replied(250)
	}); n != 0 {
		t.Errorf("%v allocations for each command", n)
	}
}

func TestSessionsThatResumeOneTransactionDoNotShareRecipients(t *testing.T) {
	var p smtpproxy.Proxy
	accepted := func(s *smtpproxy.Session, line string) {
		s.Command(context.Background(), line)
		s.Replied(250)
	}
	first := p.NewSession(smtpproxy.Connection{})
	accepted(first, "MAIL FROM:<>")
	for _, to := range []string{"a", "b", "c"} { // so that there's room behind them
		accepted(first, "RCPT TO:<"+to+"@server.example>")
	}
	sessions := []*smtpproxy.Session{first}
	for range 2 {
		sessions = append(sessions, p.ResumeSession(smtpproxy.Connection{}, first.Transaction()))
	}
	last := []string{"one@server.example", "two@server.example", "three@server.example"}
	for i, s := range sessions {
		accepted(s, "RCPT TO:<"+last[i]+">")
	}
	for i, s := range sessions {
		if r := s.Transaction().Recipients; r.Len() != 4 || r.At(3).Recipient != last[i] {
			t.Errorf("the last of %d recipients is %v, want %s", r.Len(), r.At(r.Len()-1), last[i])
		}
	}
}

// A server may take the size for an octal number, if it has leading zeros.
func TestASessionPassesTheSizeOfAChunkInOneForm(t *testing.T) {
	for line, want := range map[string]string{
		"BDAT 0100":           "BDAT 100",
		"BDAT 0100 LAST":      "BDAT 100 LAST",
		"bdat 007 last":       "bdat 7 last",
		"BDAT 00 LAST":        "BDAT 0 LAST",
		"BDAT 000":            "BDAT 0",
		"BDAT 08":             "BDAT 8",
		"BDAT 00004294967295": "BDAT 4294967295",
		"BDAT 0":              "BDAT 0",
		"BDAT 0 LAST":         "BDAT 0 LAST",
		"BDAT 100 last":       "BDAT 100 last",
		"bDaT 10":             "bDaT 10",
	} {
		for why, hook := range map[string]smtpproxy.Hook{
			"": nil,
			", passed by a hook": smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
				return nil, nil
			}),
			", written by a hook": smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				return smtpproxy.Pass{Command: cmd.Line}, nil
			}),
		} {
			p := &smtpproxy.Proxy{Hook: hook}
			s := p.ResumeSession(smtpproxy.Connection{}, smtpproxy.Transaction{Active: true, Recipients: smtpproxy.NewRecipients(smtpproxy.Recipient{})})
			if got, ok := s.Command(t.Context(), line).(smtpproxy.Pass); !ok || got.Command != want {
				t.Errorf("%s%s: %+v, want %s", line, why, got, want)
			}
		}
	}
}

// inTransaction returns a session whose server has accepted the commands.
func inTransaction(t testing.TB, p *smtpproxy.Proxy, lines ...string) *smtpproxy.Session {
	t.Helper()
	s := p.NewSession(smtpproxy.Connection{})
	for _, line := range lines {
		if d, ok := s.Command(t.Context(), line).(smtpproxy.Pass); !ok {
			t.Fatalf("%.80q isn't passed: %v", line, d)
		}
		s.Replied(250)
	}
	return s
}

func TestWhatServersReadDifferentlyIsShownAsItWasSent(t *testing.T) {
	for _, tt := range []struct {
		mail, rcpt                 string
		sender, recipient          string
		unparsedMail, unparsedRcpt string
	}{
		{mail: "MAIL FROM:<>", rcpt: "RCPT TO:<postmaster>", recipient: "postmaster"},
		{mail: "MAIL FROM:<a@b> SIZE=1", rcpt: "RCPT TO:<c@d> X", sender: "a@b", recipient: "c@d"},
		{mail: "MAIL FROM:good@ok FROM:<evil@evil>", unparsedMail: "FROM:good@ok FROM:<evil@evil>",
			rcpt: "RCPT TO:good@ok TO:<evil@evil>", unparsedRcpt: "TO:good@ok TO:<evil@evil>"},
		{mail: "mail \t from:good@ok X=FROM:<evil@evil> ", unparsedMail: "from:good@ok X=FROM:<evil@evil> ",
			rcpt: "rcpt \t to:good@ok X=TO:<evil@evil>\t", unparsedRcpt: "to:good@ok X=TO:<evil@evil>\t"},
		{mail: "MAIL FROM:<evil>", unparsedMail: "FROM:<evil>", rcpt: "RCPT TO:<>", unparsedRcpt: "TO:<>"},
		{mail: "MAIL", unparsedMail: " ", rcpt: "RCPT", unparsedRcpt: " "},
		{mail: "MAIL \t", unparsedMail: " ", rcpt: "RCPT \t", unparsedRcpt: " "},
		{mail: "MAIL FROM:<a@b> AUTH=<>", unparsedMail: "FROM:<a@b> AUTH=<>",
			rcpt: "RCPT TO:<a@b> ORCPT=rfc822;<c@d>", unparsedRcpt: "TO:<a@b> ORCPT=rfc822;<c@d>"},
	} {
		var told smtpproxy.Recipient
		p := &smtpproxy.Proxy{TransportID: func(_ smtpproxy.Connection, r smtpproxy.Recipient) string { told = r; return "id" }}
		txn := inTransaction(t, p, tt.mail, tt.rcpt).Transaction()
		if txn.Sender != tt.sender || txn.Unparsed != tt.unparsedMail {
			t.Errorf("%q: sender %q, unparsed %q", tt.mail, txn.Sender, txn.Unparsed)
		}
		if r := txn.Recipients.At(0); r.Recipient != tt.recipient || r.Unparsed != tt.unparsedRcpt || r.TransportID != "id" {
			t.Errorf("%q: %+v", tt.rcpt, r)
		}
		if told.Recipient != tt.recipient || told.Unparsed != tt.unparsedRcpt {
			t.Errorf("%q: TransportID was told %+v", tt.rcpt, told)
		}
		if !txn.Active {
			t.Errorf("%q opens no transaction", tt.mail)
		}
	}
}

func TestWhatIsUnparsedIsForgottenWithItsTransaction(t *testing.T) {
	s := inTransaction(t, &smtpproxy.Proxy{}, "MAIL FROM:a", "RSET")
	if txn := s.Transaction(); txn.Unparsed != "" {
		t.Errorf("after RSET: %+v", txn)
	}
	s = inTransaction(t, &smtpproxy.Proxy{}, "MAIL FROM:a", "EHLO x", "MAIL FROM:<a@b>")
	if txn := s.Transaction(); txn.Unparsed != "" || txn.Sender != "a@b" {
		t.Errorf("after another MAIL: %+v", txn)
	}
	s = (&smtpproxy.Proxy{}).ResumeSession(smtpproxy.Connection{}, inTransaction(t, &smtpproxy.Proxy{}, "MAIL FROM:a", "RCPT TO:b").Transaction())
	if txn := s.Transaction(); txn.Unparsed != "FROM:a" || txn.Recipients.At(0).Unparsed != "TO:b" {
		t.Errorf("resumed: %+v", txn)
	}
}

func TestMailAndRcptHave64ParametersAtMost(t *testing.T) {
	for _, tt := range []struct{ before, path, param string }{
		{"", "MAIL FROM:<>", " a"},
		{"", "MAIL FROM:<a@b>", " a"},
		{"", "mail from: a@b ", "\ta=b"},
		{"", "MAIL FROM:<a@b>", "  SIZE=1000 "},
		{"", `MAIL FROM:<"a b c d e f"@x>`, " a"},
		{"", "MAIL FROM:a", " a"},
		{"", "MAIL FROM:<a@b>", " <>"},
		{"MAIL FROM:<a@b>", "RCPT TO:<postmaster>", " a"},
		{"MAIL FROM:<a@b>", "RCPT TO:<a@b>", " a"},
		{"MAIL FROM:<a@b>", "RCPT \t TO: \t <a@b>", "\t \ta="},
		{"MAIL FROM:<a@b>", "RCPT TO:<a@b>", "\t \ta=<"},
		{"MAIL FROM:<a@b>", "RCPT TO:a", " a"},
		{"MAIL FROM:<a@b>", "RCPT", " a a"}, // the first is no parameter
	} {
		for _, n := range []int{64, 65} {
			line := tt.path + strings.Repeat(tt.param, n)
			if tt.path == "RCPT" {
				line = "RCPT to" + strings.Repeat(" a", n)
			}
			s := (&smtpproxy.Proxy{}).NewSession(smtpproxy.Connection{})
			if tt.before != "" {
				s = inTransaction(t, &smtpproxy.Proxy{}, tt.before)
			}
			d := s.Command(t.Context(), line)
			r, refused := d.(smtpproxy.Reply)
			if refused != (n > 64) {
				t.Errorf("%q and %d times %q: %v", tt.path, n, tt.param, d)
			}
			if refused && r.String() != "555 5.5.4 Too many parameters" {
				t.Errorf("%q and %d times %q: %v", tt.path, n, tt.param, r)
			}
			if refused && r.Disconnect {
				t.Errorf("%q and %d times %q ends the connection", tt.path, n, tt.param)
			}
		}
	}

	// It is about what the server gets.
	many := strings.Repeat(" a", 100)
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() == "NOOP" {
			return smtpproxy.Pass{Command: "MAIL FROM:<a@b>" + many}, nil
		}
		return smtpproxy.Pass{Command: "MAIL FROM:<a@b>"}, nil
	})}
	if r, ok := p.NewSession(smtpproxy.Connection{}).Command(t.Context(), "NOOP").(smtpproxy.Reply); !ok || r.Code != 555 {
		t.Errorf("MAIL put in by the hook: %v", r)
	}
	if d, ok := p.NewSession(smtpproxy.Connection{}).Command(t.Context(), "MAIL FROM:<a@b>"+many).(smtpproxy.Pass); !ok {
		t.Errorf("MAIL mended by the hook: %v", d)
	}
	if d, ok := (&smtpproxy.Proxy{}).NewSession(smtpproxy.Connection{}).Command(t.Context(), "NOOP"+many).(smtpproxy.Pass); !ok {
		t.Errorf("NOOP: %v", d)
	}
	s := inTransaction(t, &smtpproxy.Proxy{}, "MAIL FROM:<a@b>")
	if r, ok := s.Command(t.Context(), "MAIL FROM:<a@b>"+many).(smtpproxy.Reply); !ok || r.Code != 503 {
		t.Errorf("MAIL in a transaction: %v", r)
	}
}

// What is kept of a command is measured by what a great many of them take.
func TestATransactionKeepsWhatItNeedsNotTheLine(t *testing.T) {
	const sessions, recipients = 50, 40
	const param = 32 // octets of one, but its strings
	// octets returns how many a session takes.
	octets := func(mail, rcpt string) int {
		kept := make([]*smtpproxy.Session, 0, sessions)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools kept is gone, too
		runtime.ReadMemStats(&before)
		for range sessions {
			lines := []string{strings.Clone(mail)}
			for range recipients {
				lines = append(lines, strings.Clone(rcpt))
			}
			kept = append(kept, inTransaction(t, &smtpproxy.Proxy{}, lines...))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(kept)
		return (int(after.HeapAlloc) - int(before.HeapAlloc)) / sessions
	}
	blanks := strings.Repeat(" ", 1900)
	plain := octets("MAIL FROM:<a@a>", "RCPT TO:<b@b>")
	if n := plain / recipients; n > 400 {
		t.Errorf("%d octets for each plain recipient", n)
	}
	// hold holds that a session takes no more than a plain one. If it does, that may
	// be somebody else's.
	hold := func(most int, mail, rcpt string) {
		t.Helper()
		more := 0
		for range 3 {
			if more = octets(mail, rcpt) - plain; more <= most {
				return
			}
		}
		t.Errorf("%.20q... of %d octets, and %d times %.20q... of %d octets: %d octets more than plain ones, want %d at most",
			mail, len(mail), recipients, rcpt, len(rcpt), more, most)
	}
	for _, tt := range []struct {
		args string
		most int // octets more than a plain one
	}{
		{"<b@b>" + blanks, 100},
		{blanks + "<b@b>", 100},
		{"<b@b>" + blanks + "X=1", 100 + param},
		{"<@" + strings.Repeat("a.", 900) + "a:b@b>", 100},
		{"<" + strings.Repeat("@a,", 600) + "@a:b@b> X=", 100 + param},
		{strings.Repeat("\t", 1900) + `<"B"@B>`, 100},
		{"<b@b>" + strings.Repeat(" a", 33), 33*param + 500},
		{"<b@b>" + strings.Repeat(" a", 64), 64*param + 500},
		{"<b@b>" + strings.Repeat(" a", 64) + blanks, 64*param + 500},
	} {
		hold(recipients*tt.most, "MAIL FROM:<a@a>", "RCPT TO:"+tt.args)
		hold(tt.most+400, "MAIL FROM:"+tt.args, "RCPT TO:<b@b>")
	}
	for _, rcpt := range []string{"RCPT " + blanks + "TO:<b@b>", "RCPT " + blanks + "TO:b", "RCPT" + blanks} {
		hold(recipients*100, "MAIL FROM:<a@a>", rcpt)
	}
	for _, mail := range []string{"MAIL FROM:<>" + blanks, "MAIL" + blanks + "FROM:<>", "MAIL" + blanks + "FROM:a", "MAIL" + blanks} {
		hold(500, mail, "RCPT TO:<b@b>")
	}
}

func TestAddressString(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   smtpproxy.Address
		want string
	}{
		{"null", smtpproxy.Address{}, ""},
		{"postmaster", smtpproxy.Address{Localpart: "Postmaster"}, "Postmaster"},
		{"plain, case kept", smtpproxy.Address{"A", "B"}, "A@B"},
		{"empty local part", smtpproxy.Address{"", "b"}, `""@b`},
		{"space", smtpproxy.Address{"a b", "c"}, `"a b"@c`},
		{"quote and backslash", smtpproxy.Address{`a"\b`, "c"}, `"a\"\\b"@c`},
		{"double dot", smtpproxy.Address{"a..b", "c"}, `"a..b"@c`},
		{"literal", smtpproxy.Address{"a", "[IPv6:::1]"}, "a@[IPv6:::1]"},
		{"UTF-8", smtpproxy.Address{"用户", "例え.jp"}, "用户@例え.jp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.in.String(); got != tt.want {
				t.Errorf("%#v.String() = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}
