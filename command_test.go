package smtpproxy_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about what is shown of commands, in logs above all.

func TestACommandIsShownWithoutItsCredentials(t *testing.T) {
	for _, tt := range []struct {
		why  string
		cmd  smtpproxy.Command
		want string
	}{
		{"a command", smtpproxy.Command{Line: "MAIL FROM:<a@b> SIZE=1"}, "MAIL FROM:<a@b> SIZE=1"},
		{"an initial response", smtpproxy.Command{Line: "AUTH PLAIN AGEAYg=="}, "AUTH PLAIN ****"},
		{"a tab before", smtpproxy.Command{Line: "\tAUTH PLAIN s3cret"}, `\tAUTH PLAIN ****`},
		{"control characters, which the library refuses", smtpproxy.Command{Line: "\x00AUTH\x00PLAIN\x01s3cret"}, `\x00AUTH PLAIN ****`},
		{"as in POP3", smtpproxy.Command{Line: "PASS s3cret and more"}, "PASS ****"},
		{"as in IMAP", smtpproxy.Command{Line: "a1 LOGIN alice s3cret"}, "a1 LOGIN ****"},
		{"a line of a SASL exchange", smtpproxy.Command{Line: "AGEAYg==", SASL: true}, "****"},
		{"an empty line of a SASL exchange", smtpproxy.Command{Line: "", SASL: true}, "****"},
		{"a line of a SASL exchange like a command", smtpproxy.Command{Line: "NOOP", SASL: true}, "****"},
		{"a cancelled SASL exchange", smtpproxy.Command{Line: "*", SASL: true}, "*"},
		{"a star and more", smtpproxy.Command{Line: "*s3cret", SASL: true}, "****"},
		{"a password out of place", inVain(t, "s3cret"), "****"},
		{"a pass phrase out of place", inVain(t, "s3cret and more"), "****"},
		{"an empty line", smtpproxy.Command{Line: ""}, ""},
		{"what could be taken for something else", smtpproxy.Command{Line: "X \u200b\u2028\ufeff\u202e\xff\t"}, `X \u200b\u2028\ufeff\u202e\xff\t`},
		{"endless", smtpproxy.Command{Line: strings.Repeat("X", 2000)}, strings.Repeat("X", 1024) + "..."},
	} {
		if got := tt.cmd.String(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
		if got := tt.cmd.LogValue().String(); got != tt.want {
			t.Errorf("%s: in a log %q, want %q", tt.why, got, tt.want)
		}
		if got := fmt.Sprintf("%v %s %+v", tt.cmd, tt.cmd, tt.cmd); got != tt.want+" "+tt.want+" "+tt.want {
			t.Errorf("%s: printed %q", tt.why, got)
		}
	}
}

// spellings returns a secret as fmt and encoding/json might write it.
func spellings(secret string) []string {
	inHex := hex.EncodeToString([]byte(secret))
	return []string{
		secret, base64.StdEncoding.EncodeToString([]byte(secret)), inHex, strings.ToUpper(inHex),
		fmt.Sprintf("% x", secret), fmt.Sprintf("% X", secret), fmt.Sprintf("%# x", secret), fmt.Sprintf("%# X", secret),
		strings.Trim(fmt.Sprint([]byte(secret)), "[]"), strings.Trim(fmt.Sprintf("%#v", []byte(secret)), "[]byte{}"),
	}
}

func TestNoVerbOfPackageFmtShowsACredential(t *testing.T) {
	const password = "correct-horse"
	response := base64.StdEncoding.EncodeToString([]byte("\x00alice\x00" + password))
	needles := append(spellings(password), spellings(response)...)
	for _, cmd := range []smtpproxy.Command{
		{Line: "AUTH PLAIN " + response},
		{Line: "AUTH PLAIN " + response, Pipelined: true},
		{Line: "auth\tplain\t" + password},
		{Line: "AUTH " + response},
		{Line: "AUTH=PLAIN " + response},
		{Line: "AUTH:" + password},
		{Line: "AUTHENTICATE PLAIN " + response},
		{Line: " AUTH PLAIN " + response},
		{Line: "\u3000\ufeffAUTH PLAIN " + response},
		{Line: "PASS " + password},
		{Line: "a1 LOGIN alice " + password},
		{Line: response, SASL: true},
		inVain(t, password+" and more"),
	} {
		failure := smtpproxy.Failure{Err: errors.New("no"), Command: cmd, Stack: []byte("stack")}
		panicked := smtpproxy.Failure{Err: panicked(t, cmd), Command: cmd}
		told := smtpproxy.Failure{Err: errors.New("bad line " + cmd.Line + ", password " + password), Command: cmd}
		type exported struct{ C smtpproxy.Command }
		for name, v := range map[string]any{
			"command": cmd, "pointer": &cmd, "slice": []smtpproxy.Command{cmd, cmd}, "array": [1]smtpproxy.Command{cmd}, "of pointers": []*smtpproxy.Command{&cmd},
			"map": map[string]smtpproxy.Command{"x": cmd}, "key": map[smtpproxy.Command]bool{cmd: true}, "any": []any{cmd, &cmd},
			"field": exported{cmd}, "pointer to a field": &exported{cmd}, "embedded": struct{ smtpproxy.Command }{cmd}, "pointer in a field": struct{ C *smtpproxy.Command }{&cmd},
			"failure": failure, "pointer to a failure": &failure, "slice of failures": []smtpproxy.Failure{failure}, "failure in a field": struct{ F smtpproxy.Failure }{failure},
			"as an error": error(failure), "wrapped": fmt.Errorf("wrapped: %w", failure), "joined": errors.Join(failure),
			"panic": panicked, "pointer to a panic": &panicked, "slice of panics": []smtpproxy.Failure{panicked}, "its error": panicked.Err, "error in a field": struct{ Err error }{panicked.Err},
		} {
			shows := func(how, got string) bool {
				for _, needle := range needles {
					if strings.Contains(got, needle) {
						t.Errorf("%#v in %s, %s: %s", cmd, name, how, got)
						return true
					}
				}
				return false
			}
			unexported := name == "wrapped" || name == "joined" // in structs of other packages
		verbs:
			for verb := 'A'; verb <= 'z'; verb++ {
				for _, flags := range []string{"", "+", "#", " ", "-", "0", "# ", "+#", "80", "-80.70"} {
					formats := strings.Contains("vsqxX", string(verb)) && !strings.Contains(flags, "#")
					if verb > 'Z' && verb < 'a' || verb == 'p' || verb == 'w' || unexported && !formats {
						continue
					}
					if format := "%" + flags + string(verb); shows(format, fmt.Sprintf(format, v)) {
						break verbs // one tells enough
					}
				}
			}
			shows("Print", fmt.Sprint(v))
			shows("Println", fmt.Sprintln(v, v))
			shows("logged", inLogs(t, v))
			for _, wrong := range []string{"", "%[2]v", "%[9]v", "%*s", "%.*v", "%*d", "%!"} {
				if !unexported || wrong != "%*d" && wrong != "%!" {
					shows(wrong, fmt.Sprintf(wrong, v, v, v))
				}
			}
		}
		// What a hook puts into its error is in it; not so as a Go expression.
		for _, got := range []string{fmt.Sprintf("%#v", told), fmt.Sprintf("%#v", &told), fmt.Sprintf("%#v", []smtpproxy.Failure{told})} {
			for _, needle := range needles {
				if strings.Contains(got, needle) {
					t.Errorf("%#v: %s", cmd, got)
				}
			}
		}
	}
}

// inLogs returns what v is logged as, and what it is as JSON.
func inLogs(t *testing.T, v any) string {
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("command", "v", v, slog.Group("in", "v", v))
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Error(err)
	}
	return log.String() + string(b)
}

func TestACommandWithinAnotherValueIsMaskedInJSON(t *testing.T) {
	b, err := json.Marshal(map[string]any{"all": []smtpproxy.Command{{Line: "AUTH PLAIN AGEAc2VjcmV0"}, {Line: "c2VjcmV0", SASL: true}}})
	if want := `{"all":["AUTH PLAIN ****","****"]}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v; want %s", b, err, want)
	}
}

func TestCommandsAndFailuresAreFormattedAsTextOrGo(t *testing.T) {
	cmd := smtpproxy.Command{Line: "AUTH PLAIN s3cret", Pipelined: true}
	noop := smtpproxy.Command{Line: "NOOP \"x\""}
	for _, tt := range []struct {
		format string
		v      any
		want   string
	}{
		{"%v", cmd, "AUTH PLAIN ****"},
		{"%+v", []smtpproxy.Command{cmd, noop}, `[AUTH PLAIN **** NOOP "x"]`},
		{"%s|", noop, `NOOP "x"|`},
		{"%-10s|", noop, `NOOP "x"  |`},
		{"%10.4s|", noop, `      NOOP|`},
		{"%q", noop, `"NOOP \"x\""`},
		{"%#q", noop, "`NOOP \"x\"`"},
		{"%x", noop, "4e4f4f5020227822"},
		{"%d", noop, `%!d(string=NOOP "x")`},
		{"%#v", noop, `smtpproxy.Command{Line:"NOOP \"x\""}`},
		{"%#v", cmd, `smtpproxy.Command{Line:"AUTH PLAIN ****", Pipelined:true}`},
		{"%#v", smtpproxy.Command{Line: "s3cret", SASL: true}, `smtpproxy.Command{Line:"****", SASL:true}`},
		{"%#v", []smtpproxy.Command{noop}, `[]smtpproxy.Command{smtpproxy.Command{Line:"NOOP \"x\""}}`},
		{"%#v", smtpproxy.Command{Line: strings.Repeat("X", 2000)}, `smtpproxy.Command{Line:"` + strings.Repeat("X", 1024) + `..."}`},
		{"%v", (*smtpproxy.Command)(nil), "<nil>"},
		{"%v", smtpproxy.Failure{Err: errors.New("no"), Command: cmd}, "no"},
		{"%q", smtpproxy.Failure{Err: errors.New("no"), Command: cmd}, `"no"`},
		{"%+v", &smtpproxy.Failure{Err: errors.New("no s3cret"), Command: cmd}, "no s3cret"},
		{"%#v", smtpproxy.Failure{Err: errors.New("no \"s3cret\""), Command: cmd},
			`smtpproxy.Failure{Err:errors.New("no \"****\""), Command:smtpproxy.Command{Line:"AUTH PLAIN ****", Pipelined:true}}`},
		{"%#v", smtpproxy.Failure{Stack: []byte("a\n"), Command: noop}, `smtpproxy.Failure{Err:nil, Stack:[]byte("a\n"), Command:smtpproxy.Command{Line:"NOOP \"x\""}}`},
		{"%#v", panicked(t, noop), `errors.New("smtpproxy: hook panicked: NOOP \"x\"")`},
	} {
		if got := fmt.Sprintf(tt.format, tt.v); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.format, got, tt.want)
		}
	}
	if got, want := fmt.Errorf("failed: %w", smtpproxy.Failure{Err: errors.New("no")}).Error(), "failed: no"; got != want {
		t.Errorf("wrapped: %s, want %s", got, want)
	}
}

func TestWhatACommandMasksIsMaskedInTheErrorsOfHooks(t *testing.T) {
	for _, tt := range []struct {
		why        string
		cmd        smtpproxy.Command
		text, want string
	}{
		{"nothing is secret", smtpproxy.Command{Line: "NOOP AGEAYg=="}, "bad AGEAYg==", "bad AGEAYg=="},
		{"a response", smtpproxy.Command{Line: "AUTH PLAIN AGFsaWNlAGNvcnJlY3Q="}, "PLAIN AGFsaWNlAGNvcnJlY3Q= is alice, correct", "PLAIN **** is ****, ****"},
		{"two octets in a SASL exchange", smtpproxy.Command{Line: "cHc=", SASL: true}, "cHc= is pw", "**** is ****"},
		{"a cancelled SASL exchange", smtpproxy.Command{Line: "*", SASL: true}, "bad *", "bad *"},
		{"an empty line of a SASL exchange", smtpproxy.Command{SASL: true}, "bad line", "bad line"},
		{"a password out of place", inVain(t, "correct"), "bad correct", "bad ****"},
	} {
		failure := smtpproxy.Failure{Err: errors.New(tt.text), Command: tt.cmd}
		if got, want := failure.GoString(), fmt.Sprintf("smtpproxy.Failure{Err:errors.New(%q), Command:%#v}", tt.want, tt.cmd); got != want {
			t.Errorf("%s: %s, want %s", tt.why, got, want)
		}
	}
}

// sent is a line from the client, and the server's reply if it gets the line.
type sent struct {
	line  string
	reply int
}

// play plays a dialogue.
func play(s *smtpproxy.Session, lines []sent) {
	for _, l := range lines {
		if _, ok := s.Command(context.Background(), l.line).(smtpproxy.Pass); ok {
			s.Replied(l.reply)
		}
	}
}

// decided returns a hook that looks at nothing but the command.
func decided(by func(smtpproxy.Command) (smtpproxy.Decision, error)) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return by(cmd)
	})
}

// inVain returns a line as a hook is shown it behind an AUTH that failed.
func inVain(t *testing.T, line string) (shown smtpproxy.Command) {
	t.Helper()
	p := &smtpproxy.Proxy{Hook: decided(func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		shown = cmd
		return nil, nil
	})}
	play(p.NewSession(smtpproxy.Connection{}), []sent{{"AUTH LOGIN", 504}, {line, 500}})
	if shown.Line != line || shown.SASL {
		t.Fatalf("the hook is shown %#v", shown)
	}
	return shown
}

// panicked returns the cause of a failure by a panic with the value.
func panicked(t *testing.T, value any) (cause error) {
	t.Helper()
	p := &smtpproxy.Proxy{
		Hook:      decided(func(smtpproxy.Command) (smtpproxy.Decision, error) { panic(value) }),
		OnFailure: func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision { cause = f.Err; return nil },
	}
	p.NewSession(smtpproxy.Connection{}).Command(t.Context(), "NOOP")
	if !errors.Is(cause, smtpproxy.ErrHookPanic) {
		t.Fatalf("the cause is %v", cause)
	}
	return cause
}

func TestALineThatMayBeAPasswordInVainIsMaskedUntilAKnownCommand(t *testing.T) {
	for _, tt := range []struct {
		why  string
		sent []sent
		want []string
	}{
		{"nothing has failed", []sent{{"s3cret", 500}}, []string{"s3cret"}},
		{"AUTH refused", []sent{{"AUTH LOGIN", 504}, {"s3cret", 500}}, []string{"AUTH LOGIN", "****"}},
		{"refused before EHLO", []sent{{"auth login", 503}, {"s3cret", 500}}, []string{"auth login", "****"}},
		{"the exchange failed", []sent{{"AUTH LOGIN", 334}, {"dQ==", 334}, {"cA==", 535}, {"cA==", 500}}, []string{"AUTH LOGIN", "****", "****", "****"}},
		{"cancelled", []sent{{"AUTH LOGIN", 334}, {"*", 501}, {"s3cret", 500}}, []string{"AUTH LOGIN", "*", "****"}},
		{"line after line", []sent{{"AUTH LOGIN", 504}, {"dQ==", 500}, {"s3cret x", 500}, {"", 500}}, []string{"AUTH LOGIN", "****", "****", "****"}},
		{"a known verb ends it", []sent{{"AUTH LOGIN", 504}, {"noop x", 250}, {"s3cret", 500}}, []string{"AUTH LOGIN", "noop x", "s3cret"}},
		{"a known verb behind a password ends it", []sent{{"AUTH LOGIN", 504}, {"s3cret", 500}, {"QUIT", 500}, {"x", 500}}, []string{"AUTH LOGIN", "****", "QUIT", "x"}},
		{"AUTH again", []sent{{"AUTH LOGIN", 504}, {"AUTH PLAIN s3cret", 504}, {"s3cret", 500}}, []string{"AUTH LOGIN", "AUTH PLAIN ****", "****"}},
		{"what only looks like AUTH refused", []sent{{"AUTHENTICATE LOGIN", 500}, {"s3cret", 500}}, []string{"AUTHENTICATE LOGIN", "****"}},
		{"AUTH accepted", []sent{{"AUTH PLAIN AGEAYg==", 235}, {"XYZZY", 500}}, []string{"AUTH PLAIN ****", "XYZZY"}},
	} {
		var got []string
		p := &smtpproxy.Proxy{Hook: decided(func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			got = append(got, cmd.String())
			return smtpproxy.Pass{Next: true}, nil
		})}
		play(p.NewSession(smtpproxy.Connection{}), tt.sent)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}

	// The hook refuses, instead of the server.
	var got []string
	p := &smtpproxy.Proxy{Hook: decided(func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		got = append(got, cmd.String())
		return smtpproxy.Reply{Code: 535}, nil
	})}
	play(p.NewSession(smtpproxy.Connection{}), []sent{{"AUTH PLAIN s3cret", 0}, {"s3cret", 0}, {"RSET", 0}})
	if want := []string{"AUTH PLAIN ****", "****", "RSET"}; !slices.Equal(got, want) {
		t.Errorf("refused by the hook: %q, want %q", got, want)
	}
}

func TestTheLogTellsOfAFailureWhatItTakesToMendIt(t *testing.T) {
	var log bytes.Buffer
	p := &smtpproxy.Proxy{Logger: slog.New(slog.NewJSONHandler(&log, nil)), Hook: decided(func(smtpproxy.Command) (smtpproxy.Decision, error) {
		panic(errors.New("the database is on fire"))
	})}
	s := p.NewSession(smtpproxy.Connection{ID: "7", HELO: smtpproxy.HELO{Verb: "EHLO", Host: "x"}})
	s.Command(context.Background(), "AUTH PLAIN AGFsaWNlAGNvcnJlY3QtaG9yc2U=")
	var got struct{ Level, Msg, Connection, Command, Error, Stack string }
	if err := json.Unmarshal(log.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &log)
	}
	if !strings.Contains(got.Stack, "TestTheLogTells") {
		t.Errorf("stack %s", got.Stack)
	}
	got.Stack = ""
	want := got
	want.Level, want.Msg, want.Connection = "ERROR", "smtpproxy: hook failed", "7"
	want.Command, want.Error = "AUTH PLAIN ****", "smtpproxy: hook panicked: the database is on fire"
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestNothingOfAPasswordIsLoggedWhenAHookFailsInTheMiddleOfAUTH lets hooks fail
// that put what they know into their errors.
func TestNothingOfAPasswordIsLoggedWhenAHookFailsInTheMiddleOfAUTH(t *testing.T) {
	const password = "correct-horse"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00alice\x00" + password))
	login := base64.StdEncoding.EncodeToString([]byte(password))
	dialogues := map[string][]sent{
		"an initial response":                {{"AUTH PLAIN " + plain, 0}},
		"in lower case, separated by tabs":   {{"auth\tplain\t" + plain, 0}},
		"not encoded":                        {{"AUTH PLAIN " + password, 0}},
		"without a mechanism":                {{"AUTH " + plain, 0}},
		"without a mechanism, not encoded":   {{"AUTH " + password, 0}},
		"with an equals sign":                {{"AUTH=PLAIN " + plain, 0}},
		"with an equals sign alone":          {{"AUTH=" + login, 0}},
		"another verb":                       {{"AUTHENTICATE PLAIN " + plain, 0}},
		"a blank before":                     {{" AUTH PLAIN " + plain, 0}},
		"as in POP3":                         {{"PASS " + password, 0}},
		"as in IMAP":                         {{"a1 LOGIN alice " + password, 0}},
		"a line of the server's exchange":    {{"AUTH PLAIN", 334}, {plain, 0}},
		"a later line of it":                 {{"AUTH LOGIN", 334}, {"YWxpY2U=", 334}, {login, 0}},
		"a line of the hook's exchange":      {{"AUTH X-OWN", 0}, {plain, 0}},
		"behind an AUTH that failed":         {{"AUTH LOGIN", 504}, {login, 0}},
		"behind it, not encoded, with words": {{"AUTH LOGIN", 504}, {password + " and more", 0}},
	}
	decoded := func(cmd smtpproxy.Command) string {
		word := cmd.Line[strings.LastIndexAny(cmd.Line, " \t")+1:]
		b, _ := base64.StdEncoding.DecodeString(word)
		return string(b)
	}
	parts := func(cmd smtpproxy.Command) []string { return strings.Split(decoded(cmd), "\x00") }
	failures := map[string]func(cmd smtpproxy.Command) (smtpproxy.Decision, error){
		"error with the line": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return nil, fmt.Errorf("refused %s", cmd.Line)
		},
		"error with the quoted line": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return nil, fmt.Errorf("refused %q", cmd.Line)
		},
		"error with the arguments": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return nil, fmt.Errorf("refused %v", strings.Fields(cmd.Args()))
		},
		"error with what it decoded": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return nil, fmt.Errorf("refused %s", decoded(cmd))
		},
		"error with parts of it": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return nil, fmt.Errorf("refused %q", parts(cmd))
		},
		"panic with the line":    func(cmd smtpproxy.Command) (smtpproxy.Decision, error) { panic(cmd.Line) },
		"panic with the command": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) { panic(cmd) },
		"panic with an error":    func(cmd smtpproxy.Command) (smtpproxy.Decision, error) { panic(errors.New(decoded(cmd))) },
		"a reply of two lines in one": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return smtpproxy.Reply{Lines: []string{cmd.Line + "\r\n"}}, nil
		},
		"a command of two lines in one": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return smtpproxy.Pass{Command: cmd.Line + "\r\n"}, nil
		},
		"a command that is too long": func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
			return smtpproxy.Pass{Command: cmd.Line + strings.Repeat(" ", 20_000)}, nil
		},
	}
	for why, dialogue := range dialogues {
		for how, fail := range failures {
			last := dialogue[len(dialogue)-1].line
			for _, again := range []bool{false, true} { // OnFailure fails too
				var log bytes.Buffer
				failed := false
				p := &smtpproxy.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil)), Hook: decided(func(cmd smtpproxy.Command) (smtpproxy.Decision, error) {
					switch {
					case cmd.Line == last:
						failed = true
						return fail(cmd)
					case cmd.Args() == "X-OWN":
						return smtpproxy.Reply{Code: 334}, nil
					}
					return smtpproxy.Pass{Next: true}, nil
				})}
				if again {
					p.OnFailure = func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision { panic(f.Command.Line) }
				}
				play(p.NewSession(smtpproxy.Connection{}), dialogue)
				text := log.String()
				if !failed || !strings.Contains(text, "hook failed") {
					t.Errorf("%s, %s: no failure: %s", why, how, text)
				}
				for _, secret := range []string{password, plain, login} {
					if strings.Contains(text, secret) {
						t.Errorf("%s, %s: %q is in %s", why, how, secret, text)
					}
				}
			}
		}
	}
}

func TestAPathIsWhatTheTransactionHasWhenTheServerHasAcceptedIt(t *testing.T) {
	for _, row := range []struct{ line, mailbox, local, why string }{
		{"MAIL FROM:<Alice@Example.ORG> SIZE=10", "alice@example.org", "Alice", "as Transaction.Sender"},
		{"mail from:<>", "", "", "the null reverse-path"},
		{"RCPT TO:<bob@example.org>", "bob@example.org", "bob", "the plain one"},
		{"RCPT TO: <bob@example.org>", "bob@example.org", "bob", "many clients send a blank"},
		{`RCPT TO:<"bob"@example.org>`, "bob@example.org", "bob", "needless quotes"},
		{"RCPT TO:<@relay.example:bob@example.org>", "bob@example.org", "bob", "a source route"},
		{"RCPT TO:bob@example.org NOTIFY=NEVER", "bob@example.org", "bob", "without brackets"},
		{"RCPT TO:<postmaster>", "postmaster", "postmaster", "RFC 5321 section 4.1.1.3"},
	} {
		s := (&smtpproxy.Proxy{}).NewSession(smtpproxy.Connection{})
		cmd := smtpproxy.Command{Line: row.line}
		mailbox, parts, params, ok := cmd.Path()
		if !ok || mailbox != row.mailbox || parts.Localpart != row.local {
			t.Errorf("%s: %q, %+v, %v (%s)", row.line, mailbox, parts, ok, row.why)
		}
		if cmd.Verb() == "RCPT" {
			s.Command(t.Context(), "MAIL FROM:<a@a.example>")
			s.Replied(250)
		}
		s.Command(t.Context(), row.line)
		s.Replied(250)
		txn := s.Transaction()
		want, of, list := txn.Sender, txn.SenderAddress, txn.SenderParams
		if txn.Recipients.Len() > 0 {
			r := txn.Recipients.At(0)
			want, of, list = r.Recipient, r.Address, r.Params
		}
		if mailbox != want || parts != of || params.Len() != list.Len() {
			t.Errorf("%s: the transaction has %q, %+v (%s)", row.line, want, of, row.why)
		}
	}
	for _, row := range []struct{ line, why string }{
		{"RCPT TO:<a@b.example> TO:<c@d.example>", "servers differ in which one they take"},
		{"MAIL", "there is none"},
		{"NOOP FROM:<a@b.example>", "not of MAIL or RCPT"},
		{"", "no command"},
	} {
		if mailbox, _, _, ok := (smtpproxy.Command{Line: row.line}).Path(); ok {
			t.Errorf("%s: %q (%s)", row.line, mailbox, row.why)
		}
	}
	if _, _, _, ok := (smtpproxy.Command{Line: "RCPT TO:<a@b.example>", SASL: true}).Path(); ok {
		t.Error("of a line of a SASL exchange")
	}
}
