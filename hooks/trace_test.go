package hooks_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// textLog is a log as slog.TextHandler writes it, without what differs each time.
func textLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey, "connection", "duration", "hooked", "served":
			return slog.Attr{}
		case slog.LevelKey:
			if a.Value.Any() == slog.LevelInfo {
				return slog.Attr{}
			}
		case slog.MessageKey:
			return slog.String(a.Key, strings.ReplaceAll(strings.TrimPrefix(a.Value.String(), "smtp: "), " ", "-"))
		}
		return a
	}}))
}

// buffer is written and read by several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// traced returns a Trace, and a function that returns what it has logged.
func traced(t *hooks.Trace) (smtpproxy.Observer, func() string) {
	var b buffer
	t.Logger = textLog(&b, slog.LevelDebug)
	return t.Observer(), b.String
}

// aHook is one for a verb.
func aHook(verb string, d smtpproxy.Decision, err error) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() != verb {
			return nil, nil
		}
		return d, err
	})
}

func TestTraceHasOneRecordForEachReplyAndASummary(t *testing.T) {
	observer, log := traced(&hooks.Trace{})
	h := smtpproxy.Chain(
		smtpproxy.Named("policy", aHook("VRFY", smtpproxy.Reply{Code: 252, Lines: []string{"Who knows"}}, nil)),
		smtpproxy.Named("broken", aHook("ETRN", nil, errors.New("the error's text"))),
		aHook("NOOP", smtpproxy.Pass{Command: "NOOP 2"}, nil),
	)
	p := &smtpproxy.Proxy{Hook: h, Observers: []smtpproxy.Observer{observer}, Logger: slog.New(slog.DiscardHandler)}
	s := proxytest.NewSession(p)
	s.Answer("RCPT", 250)
	s.Answer("RCPT", 550, "5.1.1 No such user")
	s.Connect()
	for _, line := range []string{"EHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "DATA"} {
		s.Send(line)
	}
	s.SendContent()
	for _, line := range []string{"VRFY x", "NOOP 1", "RCPT TO:<late@example.org>", "ETRN x"} {
		s.Send(line)
	}
	want := `msg=connected remote=192.0.2.1 port=49152
msg=command remote=192.0.2.1 code=220 by=server reply="proxytest.example ESMTP"
msg=command remote=192.0.2.1 code=250 by=server line="EHLO client.example" reply="server.example / PIPELINING / 8BITMIME / SIZE 0 / ENHANCEDSTATUSCODES / CHUNKING / SMTPUTF8 / AUTH PLAIN LOGIN / STARTTLS"
msg=command remote=192.0.2.1 code=250 by=server line="MAIL FROM:<a@example.com>" reply="2.1.0 Sender OK"
msg=command remote=192.0.2.1 code=250 by=server line="RCPT TO:<b@example.org>" reply="2.0.0 OK"
msg=command remote=192.0.2.1 code=550 by=server line="RCPT TO:<c@example.org>" reply="5.1.1 No such user"
msg=command remote=192.0.2.1 code=354 by=server line=DATA reply="Go ahead"
msg=command remote=192.0.2.1 code=250 by=server line=DATA reply="2.0.0 OK"
msg=command remote=192.0.2.1 code=252 by=hook hook=policy line="VRFY x" reply="2.0.0 Who knows"
msg=command remote=192.0.2.1 code=250 by=server line="NOOP 1" passed="NOOP 2" reply="2.0.0 OK"
msg=command remote=192.0.2.1 code=503 by=library line="RCPT TO:<late@example.org>" reply="5.5.1 Missing MAIL command"
level=ERROR msg=hook-failed remote=192.0.2.1 hook=broken cause=error line="ETRN x"
msg=command remote=192.0.2.1 code=421 by=failure line="ETRN x" reply="4.3.0 Service not available, closing transmission channel"
msg=disconnected remote=192.0.2.1 by=hook reason="hook failed" code=421 received=0 sent=0 commands="ehlo=1 mail=1 rcpt=1/3 data=1 vrfy=1 noop=1 etrn=0/1 commands=6/9"
`
	if got := log(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTraceSummaryCountsCommandsNotReplies(t *testing.T) {
	plain := base64.StdEncoding.EncodeToString([]byte("\x00u\x00p"))
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("X%c%c", 'A'+i/26, 'A'+i%26))
	}
	for _, row := range []struct {
		why   string
		hook  smtpproxy.Hook
		setUp func(s *proxytest.Session)
		lines []string // "." is content
		want  string
	}{
		{"nothing", nil, nil, nil, "commands=0"},
		{"a whole SASL exchange is one AUTH", nil, nil, []string{"EHLO x", "AUTH LOGIN", "dQ==", "cA=="}, "ehlo=1 auth=1 commands=2"},
		{"one that fails at its end is one", nil, func(s *proxytest.Session) { s.Answer("AUTH", 334, ""); s.Answer("AUTH", 535) },
			[]string{"EHLO x", "AUTH PLAIN", plain, "AUTH PLAIN " + plain}, "ehlo=1 auth=1/2 commands=2/3"},
		{"one of the hook's own is one of its verb", aHook("NOOP", smtpproxy.Reply{Code: 334}, nil), nil,
			[]string{"NOOP"}, "commands=0"},
		{"a message refused behind its content", nil, func(s *proxytest.Session) { s.Answer("DATA", 354); s.Answer("DATA", 552) },
			[]string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<b@c>", "DATA", "."}, "ehlo=1 mail=1 rcpt=1 data=0/1 commands=3/4"},
		{"DATA refused, and the next not", nil, func(s *proxytest.Session) { s.Answer("DATA", 451) },
			[]string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<b@c>", "DATA", "DATA", "."}, "ehlo=1 mail=1 rcpt=1 data=1/2 commands=4/5"},
		{"an LMTP message is one, accepted for the second recipient", nil,
			func(s *proxytest.Session) { s.Answer("DATA", 354); s.Answer("DATA", 452); s.Answer("DATA", 250) },
			[]string{"LHLO x", "MAIL FROM:<>", "RCPT TO:<b@c>", "RCPT TO:<d@e>", "RCPT TO:<f@g>", "DATA", ".", "NOOP"}, "lhlo=1 mail=1 rcpt=3 data=1 noop=1 commands=7"},
		{"chunks are counted each", nil, nil,
			[]string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<b@c>", "BDAT 3", "BDAT 0 LAST", "QUIT"}, "ehlo=1 mail=1 rcpt=1 bdat=2 quit=1 commands=6"},
		{"what no server knows", nil, nil, []string{"EHLO x", "PING", "HELP", "\x01", "?"}, "ehlo=1 unknown=0/3 help=0/1 commands=1/5"},
		{"nor is what would be taken for something else in the counts", hooks.Answers{"MAIL=99/99": {Code: 250}, `X"\=`: {Code: 250}, "X-1": {Code: 250}}, nil,
			[]string{"MAIL=99/99", `X"\=`, "X-1"}, "unknown=2 x-1=1 commands=3"},
		{"but if it is accepted", aHook("PING", smtpproxy.Reply{}, nil), nil, []string{"PING", "PONG"}, "ping=1 unknown=0/1 commands=1/2"},
		{"a password that a server takes for a command", nil, func(s *proxytest.Session) { s.Answer("AUTH", 535); s.Answer("SESAME", 250) },
			[]string{"EHLO x", "AUTH PLAIN " + plain, "Sesame"}, "ehlo=1 auth=0/1 unknown=1 commands=2/3"},
		{"verbs that a client makes up are bounded", smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
			return smtpproxy.Reply{}, nil
		}), nil, many, "xag=1 xah=1"},
	} {
		observer, log := traced(&hooks.Trace{})
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: row.hook, Observers: []smtpproxy.Observer{observer}})
		s.Connect()
		if row.setUp != nil {
			row.setUp(s)
		}
		for _, line := range row.lines {
			if line == "." {
				s.SendContent()
				continue
			}
			s.Send(line)
		}
		s.Close()
		got := regexp.MustCompile(`commands=("[^"]*"|\S*)`).FindStringSubmatch(log())[1]
		if len(row.lines) == len(many) {
			if n := len(strings.Fields(got)); n != 34 || !strings.Contains(got, row.want) || !strings.Contains(got, "unknown=8 commands=40") {
				t.Errorf("%s: %d, %s", row.why, n, got)
			}
			continue
		}
		if strings.Trim(got, `"`) != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
	}
}

func TestTraceIsOfTheNetworksThatAreChosen(t *testing.T) {
	local := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	for _, row := range []struct {
		why, remote string
		networks    []netip.Prefix
		traced      bool
	}{
		{"everybody", "198.51.100.7", nil, true},
		{"nobody's address is everybody's, too", "", nil, true},
		{"in a network", "192.0.2.7", local, true},
		{"in another", "2001:db8::7", local, true},
		{"in none", "198.51.100.7", local, false},
		{"without an address", "", local, false},
	} {
		observer, log := traced(&hooks.Trace{Networks: row.networks})
		conn := smtpproxy.Connection{}
		if row.remote != "" {
			conn.RemoteIP = netip.MustParseAddr(row.remote)
		}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{observer}}, conn, smtpproxy.Transaction{})
		s.Connect()
		s.Send("QUIT")
		if got := log(); strings.Count(got, "\n") != map[bool]int{true: 4}[row.traced] ||
			strings.Count(got, " remote=") != map[bool]int{true: 4}[row.traced && row.remote != ""] {
			t.Errorf("%s:\n%s", row.why, got)
		}
	}
}

func TestTraceFollowsTheClientThatWasTold(t *testing.T) {
	observer, log := traced(&hooks.Trace{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.XCLIENT{Trust: frontEnds}, Observers: []smtpproxy.Observer{observer}})
	s.Connect()
	s.Send("EHLO front.example")
	s.Send("XCLIENT ADDR=198.51.100.7 LOGIN=alice")
	s.Send("NOOP")
	s.Close()
	if got := log(); strings.Contains(got, "EHLO") || !strings.HasPrefix(got, `msg=command remote=198.51.100.7 code=220 by=server line="XCLIENT ADDR=198.51.100.7 LOGIN=alice"`) ||
		!strings.Contains(got, `user=alice received=0 sent=0 commands="ehlo=1 xclient=1 noop=1 commands=3"`) {
		t.Errorf("got\n%s", got)
	}
}

func TestTwoTracesCountEachForItself(t *testing.T) {
	one, first := traced(&hooks.Trace{})
	two, second := traced(&hooks.Trace{})
	s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{one, two}})
	s.Send("QUIT")
	for _, log := range []string{first(), second()} {
		if !strings.Contains(log, `"quit=1 commands=1"`) {
			t.Errorf("got\n%s", log)
		}
	}
}

func TestTraceLevelIsThatOfCommandsAlone(t *testing.T) {
	var b buffer
	trace := &hooks.Trace{Logger: textLog(&b, slog.LevelInfo), Level: slog.LevelDebug}
	s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{trace.Observer()}})
	s.Send("QUIT")
	if got := b.String(); strings.Contains(got, "msg=command") || !strings.Contains(got, "msg=connected") || !strings.Contains(got, `commands="quit=1 commands=1"`) {
		t.Errorf("got\n%s", got)
	}
}

func TestTraceGoesToTheDefaultLoggerByDefault(t *testing.T) {
	was := slog.Default()
	defer slog.SetDefault(was)
	var b buffer
	slog.SetDefault(textLog(&b, slog.LevelInfo))
	s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{new(hooks.Trace).Observer()}})
	s.Send("QUIT")
	if got := b.String(); strings.Count(got, "\n") != 3 {
		t.Errorf("got\n%s", got)
	}
}

// echo is a server that repeats what it doesn't understand, as go-smtp does, and a hook with a
// SASL exchange of its own.
func echo(s *proxytest.Session, line string) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return
	}
	all := "5.5.2 " + strings.Map(func(r rune) rune {
		if r < ' ' {
			return '?'
		}
		return r
	}, line) + ", " + strings.ToUpper(line) + " unrecognized"
	if verb := (smtpproxy.Command{Line: line}).Verb(); verb != "" && verb != "DATA" && verb != "STARTTLS" {
		s.Answer(verb, 500, all)
	}
}

const canary = "Canary7"

// canaries are dialogues with a credential in them, which is the canary.
var canaries = []struct {
	why   string
	fails bool // AUTH does, with the line in its reply
	lines []string
}{
	{"an initial response", false, []string{"AUTH PLAIN " + encoded}},
	{"one that fails", true, []string{"AUTH PLAIN " + encoded}},
	{"in lower case, with a tab", true, []string{"auth\tplain\t" + encoded}},
	{"not encoded", true, []string{"AUTH PLAIN " + canary}},
	{"without a mechanism", true, []string{"AUTH " + canary}},
	{"with an unknown mechanism", true, []string{"AUTH X-" + canary + " " + canary}},
	{"something behind it that looks like the mask", true, []string{"AUTH PLAIN " + canary + " ****"}},
	{"a line that is longer than what is shown", true, []string{strings.Repeat("x", 1100) + " LOGIN " + canary}},
	{"SASL lines", false, []string{"AUTH LOGIN", canary, canary}},
	{"a SASL line", false, []string{"AUTH PLAIN", encoded}},
	{"the client's cancel, and a password in its place", false, []string{"AUTH LOGIN", "*", canary}},
	{"a password behind an AUTH that failed, whose verb it is", true, []string{"AUTH LOGIN", canary, canary}},
	{"the same in several words", true, []string{"AUTH LOGIN", canary, "my " + canary + " is good"}},
	{"the same, with no verb", true, []string{"AUTH LOGIN", "7" + canary}},
	{"as in IMAP", false, []string{"a1 LOGIN alice " + canary}},
	{"as in POP3", false, []string{"USER alice", "PASS " + canary}},
	{"with a blank before", false, []string{" AUTH PLAIN " + canary}},
	{"an answer to the hook's own 334", false, []string{"XOWN", canary}},
	{"one that isn't right", false, []string{"XOWN", "wrong " + canary}},
	{"at a hook that fails with it", false, []string{"XFAIL", canary}},
	{"where a hook has put it in", false, []string{"XPUT"}},
	{"an answer to a hook that ends the dialogue", false, []string{"XOWN", "end " + canary}},
	{"in a command that is pipelined before", true, []string{"AUTH PLAIN " + canary, canary, "NOOP", "RSET"}},
	{"one that a hook repeats", false, []string{"AUTH PLAIN hooked " + canary}},
	{"one that a hook repeats decoded", false, []string{"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00hooked\x00"+canary))}},
	{"XCLIENT, which has no password", false, []string{"XCLIENT ADDR=198.51.100.7 LOGIN=alice", "AUTH PLAIN " + canary}},
}

// encoded is the canary as PLAIN has it.
var encoded = base64.StdEncoding.EncodeToString([]byte("\x00alice\x00" + canary))

// own is a hook with a SASL exchange of its own, which fails and repeats what it shouldn't.
var own = smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch {
	case cmd.Verb() == "XOWN", cmd.Verb() == "XFAIL":
		return smtpproxy.Reply{Code: 334, Lines: []string{"Password for " + strings.ToLower(cmd.Verb())}}, nil
	case cmd.Verb() == "XPUT":
		return smtpproxy.Pass{Command: "PASS " + canary}, nil
	case cmd.Verb() == "AUTH":
		decoded, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(cmd.Line, "AUTH PLAIN "))
		if _, pass, ok := strings.Cut(cmd.Line+string(decoded), "hooked"); ok {
			return smtpproxy.Reply{Code: 535, Lines: []string{"That is wrong: " + strings.Trim(pass, "\x00 ")}}, nil
		}
	case cmd.SASL && strings.HasPrefix(cmd.Line, "wrong"):
		return smtpproxy.Reply{Code: 535, Lines: []string{"That is wrong: " + cmd.Line}}, nil
	case cmd.SASL && strings.HasPrefix(cmd.Line, "end"):
		return smtpproxy.Reply{Code: 421, Lines: []string{cmd.Line}}, nil
	case cmd.SASL:
		return nil, fmt.Errorf("with %q", cmd.Line)
	}
	return nil, nil
})

// playCanary plays one of these dialogues, and returns what Trace logs in text and in JSON, and
// what Transcript writes.
func playCanary(fails bool, lines []string) (text, js, transcript string) {
	var b, j, tr buffer
	observers := []smtpproxy.Observer{
		(&hooks.Trace{Logger: slog.New(slog.NewTextHandler(&b, nil))}).Observer(),
		(&hooks.Trace{Logger: slog.New(slog.NewJSONHandler(&j, nil))}).Observer(),
		transcriptTo(&tr).Observer(),
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{
		Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, own), Observers: observers,
		Logger: slog.New(slog.DiscardHandler), MaxErrors: -1,
	})
	s.Connect()
	s.Send("EHLO client.example")
	sasl := false
	for _, line := range lines {
		if s.Closed() {
			break
		}
		verb := smtpproxy.Command{Line: line}.Verb()
		switch {
		case sasl && fails:
			s.Answer("AUTH", 535, "5.7.8 Not right")
		case fails || verb != "AUTH":
			if !sasl && len(line) < 400 && line != "AUTH LOGIN" && verb != "XCLIENT" {
				echo(s, line)
			}
		}
		if verb == "XPUT" {
			s.Answer("PASS", 500, "5.5.2 PASS "+canary+" unrecognized")
		}
		s.Send(line)
		sasl = s.Reply().Code == 334
	}
	s.Close()
	return b.String(), j.String(), tr.String()
}

// revealed tells whether a text has the canary in it, in whatever form.
func revealed(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, strings.ToLower(canary)) || strings.Contains(text, strings.ToLower(encoded))
}

func TestNoCredentialIsTraced(t *testing.T) {
	for _, row := range canaries {
		text, js, transcript := playCanary(row.fails, row.lines)
		for how, got := range map[string]string{"text": text, "JSON": js} {
			if revealed(got) {
				t.Errorf("%s: in %s:\n%s", row.why, how, got)
			}
		}
		// Of what repeats the lines of a SASL exchange, a Transcript is warned.
		if row.lines[0] != "XOWN" && revealed(transcript) {
			t.Errorf("%s: in the transcript:\n%s", row.why, transcript)
		}
		if !strings.Contains(text, "****") && !strings.Contains(transcript, "C: ****") {
			t.Errorf("%s: nothing is masked:\n%s", row.why, text)
		}
	}
}

func FuzzNoCredentialIsTraced(f *testing.F) {
	f.Add(uint8(0), "", "", true)
	f.Add(uint8(1), " ", "\t", false)
	f.Add(uint8(2), "x\"y", "\\", true)
	f.Add(uint8(3), "\u2028", "\x1b[2K", true)
	f.Fuzz(func(t *testing.T, form uint8, before, behind string, fails bool) {
		if strings.ContainsAny(before+behind, "\r\n\x00") || len(before)+len(behind) > 1500 {
			return // never part of a line, or of one that is taken
		}
		var lines []string
		switch form % 6 {
		case 0:
			lines = []string{"AUTH PLAIN " + before + canary + behind}
		case 1:
			lines = []string{"AUTH LOGIN", before + canary + behind, canary}
		case 2:
			lines = []string{"AUTH PLAIN =", before + canary + behind}
			fails = true
		case 3:
			lines = []string{"AUTH" + before + " " + canary + behind}
		case 4:
			lines = []string{"XOWN", before + canary + behind}
		case 5:
			lines = []string{"PASS " + before + canary + behind, "a1 LOGIN " + before + " " + canary + behind}
		}
		if form%6 == 2 && knownVerb(lines[1]) {
			return // it is a command
		}
		text, js, transcript := playCanary(fails, lines)
		if form%6 != 4 {
			text += transcript
		}
		if revealed(text) || revealed(js) {
			t.Errorf("%q:\n%s\n%s", lines, text, js)
		}
	})
}

// knownVerb tells whether a line is a command of SMTP's.
func knownVerb(line string) bool {
	switch (smtpproxy.Command{Line: line}).Verb() {
	case "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP",
		"STARTTLS", "ETRN", "XCLIENT", "XFORWARD", "TURN", "ATRN", "SEND", "SOML", "SAML", "BURL", "GET", "POST":
		return true
	}
	return false
}

// What a client says stays in its place: in one record, behind who the client is and what it got.
func TestAClientCannotWriteARecordOfItsOwn(t *testing.T) {
	forged := `time=2026-01-01T00:00:00.000Z level=INFO msg="smtp: command" connection=x remote=198.51.100.66 code=535 by=server`
	for _, line := range []string{
		"NOOP " + forged, `NOOP " ` + forged, `NOOP \" ` + forged, "NOOP x\u2028" + forged, "NOOP x\u0085" + forged, "NOOP x\xff" + forged,
		"NOOP x\\n" + forged, "EHLO x\"\t" + forged, "MAIL FROM:<\"\" " + forged + ">", forged, `","remote":"198.51.100.66","code":535,"x":"`,
		"NOOP \x1b[2K" + forged, "NOOP \u202e" + forged,
	} {
		var b, j, tr buffer
		observers := []smtpproxy.Observer{
			(&hooks.Trace{Logger: slog.New(slog.NewTextHandler(&b, nil))}).Observer(),
			(&hooks.Trace{Logger: slog.New(slog.NewJSONHandler(&j, nil))}).Observer(),
			(&hooks.Trace{Logger: slog.New(noQuotes{&tr})}).Observer(),
		}
		s := proxytest.NewSession(&smtpproxy.Proxy{Observers: observers})
		echo(s, line)
		s.Send(line)
		s.Close()
		head := regexp.MustCompile(`^time=\S+ level=INFO msg="smtp: (connected|command|disconnected)" connection=\S+ remote=192\.0\.2\.1 `)
		texts := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		for _, record := range texts {
			if !head.MatchString(record) || strings.ContainsFunc(record, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u202e' }) {
				t.Errorf("%q: the record %q", line, record)
			}
		}
		jsons := strings.Split(strings.TrimSuffix(j.String(), "\n"), "\n")
		for _, record := range jsons {
			var got struct{ Remote string }
			if err := json.Unmarshal([]byte(record), &got); err != nil || got.Remote != "192.0.2.1" {
				t.Errorf("%q: the record %s", line, record)
			}
		}
		if strings.ContainsAny(tr.String(), "\u2028\u0085\u202e\x1b\t") {
			t.Errorf("%q: the records %q", line, tr.String())
		}
		bare := strings.Split(strings.TrimSuffix(tr.String(), "\n"), "\n")
		if len(texts) != 3 || len(jsons) != 3 || len(bare) != 3 {
			t.Errorf("%q: %d and %d and %d records", line, len(texts), len(jsons), len(bare))
		}
	}
}

// noQuotes is a handler that trusts in what it gets.
type noQuotes struct{ w io.Writer }

func (h noQuotes) Enabled(context.Context, slog.Level) bool { return true }
func (h noQuotes) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h noQuotes) WithGroup(string) slog.Handler            { return h }
func (h noQuotes) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	_, err := io.WriteString(h.w, line+"\n")
	return err
}

// What is known in part only where there is a server and a network.
func TestTraceOfAServerHasTLSOctetsAndTimes(t *testing.T) {
	var b buffer
	trace := &hooks.Trace{Logger: slog.New(slog.NewTextHandler(&b, nil))}
	s := serveProxy(t, &smtpproxy.Proxy{Observers: []smtpproxy.Observer{trace.Observer()}}, how{tls: true})
	s.play(t, step{"EHLO x\r\nSTARTTLS\r\n", []string{"250-", "220"}}, step{send: startTLS},
		step{"EHLO x\r\n", []string{"250-"}},
		step{"AUTH PLAIN " + encoded + "\r\n", []string{"235"}},
		step{"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", []string{"250", "250", "354"}},
		step{"Hello\r\n.\r\n", []string{"250"}})
	await(t, func() bool { return strings.Contains(b.String(), "smtp: disconnected") })
	for _, want := range []string{
		`msg="smtp: started TLS" connection=\S+ remote=127.0.0.1 protocol=TLSv1.3 cipher=TLS_\S+\n`,
		`code=250 by=server line=DATA reply="2.0.0 OK: queued" octets=10 hooked=\S+ served=[1-9]\S+\n`,
		`by=client reason=quit code=221 user=alice duration=\S+ received=\d+ sent=\d+ commands="ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8"\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(b.String()) {
			t.Errorf("want %s in\n%s", want, b.String())
		}
	}
}
