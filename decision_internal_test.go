package smtpproxy

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
)

// This file is about what is shown of commands, in logs above all.

func TestACommandIsShownWithoutItsCredentials(t *testing.T) {
	for _, tt := range []struct {
		why  string
		cmd  Command
		want string
	}{
		{"a command", Command{Line: "MAIL FROM:<a@b> SIZE=1"}, "MAIL FROM:<a@b> SIZE=1"},
		{"AUTH alone", Command{Line: "AUTH"}, "AUTH"},
		{"a mechanism", Command{Line: "AUTH PLAIN"}, "AUTH PLAIN"},
		{"an initial response", Command{Line: "AUTH PLAIN AGEAYg=="}, "AUTH PLAIN ****"},
		{"an empty initial response", Command{Line: "AUTH PLAIN ="}, "AUTH PLAIN ****"},
		{"in lower case", Command{Line: "auth plain AGEAYg=="}, "auth plain ****"},
		{"separated by tabs", Command{Line: "AUTH\tPLAIN\tAGEAYg=="}, "AUTH PLAIN ****"},
		{"separated by more than it should", Command{Line: "AUTH  \t PLAIN   AGEAYg==  "}, "AUTH PLAIN ****"},
		{"more words than there should be", Command{Line: "AUTH PLAIN a s3cret"}, "AUTH PLAIN ****"},
		{"a mechanism that nobody knows, which may be a response", Command{Line: "AUTH X s3cret"}, "AUTH ****"},
		{"a response without a mechanism", Command{Line: "AUTH AGEAYg=="}, "AUTH ****"},
		{"a mechanism and nothing", Command{Line: "AUTH PLAIN  "}, "AUTH PLAIN  "},
		{"a mechanism of more than one part", Command{Line: "AUTH scram-sha-256-plus biws"}, "AUTH scram-sha-256-plus ****"},
		{"a mechanism made of a hash", Command{Line: "AUTH GS2-DT4PIK22T6A biws"}, "AUTH GS2-DT4PIK22T6A ****"},
		{"a mechanism and text behind it", Command{Line: "AUTH PLAIN-s3cret x"}, "AUTH ****"},
		{"a password like a mechanism made of a hash", Command{Line: "AUTH GS2-s3cret!"}, "AUTH ****"},
		{"an equals sign", Command{Line: "AUTH=PLAIN s3cret"}, "AUTH=PLAIN ****"},
		{"a colon", Command{Line: "Auth: Plain s3cret"}, "Auth:Plain ****"},
		{"an equals sign alone", Command{Line: "AUTH="}, "AUTH ****"},
		{"an equals sign, no mechanism", Command{Line: "AUTH = s3cret"}, "AUTH=****"},
		{"an equals sign behind the mechanism", Command{Line: "AUTH PLAIN=s3cret"}, "AUTH PLAIN=****"},
		{"another verb", Command{Line: "AUTHENTICATE PLAIN s3cret"}, "AUTHENTICATE PLAIN ****"},
		{"another verb without a mechanism", Command{Line: "Authenticate s3cret"}, "Authenticate ****"},
		{"a verb that is glued to something", Command{Line: "AUTHs3cret PLAIN x"}, "AUTH****"},
		{"a mechanism that is glued to the verb", Command{Line: "AUTHPLAIN s3cret"}, "AUTH****"},
		{"a verb with a hyphen", Command{Line: "AUTH-s3cret"}, "AUTH****"},
		{"a verb with something else", Command{Line: "AUTH\"s3cret\""}, "AUTH****"},
		{"a header field", Command{Line: "Authorization: Basic s3cret"}, "Authorization:****"},
		{"a blank before", Command{Line: " AUTH PLAIN s3cret"}, " AUTH PLAIN ****"},
		{"a tab before", Command{Line: "\tAUTH PLAIN s3cret"}, `\tAUTH PLAIN ****`},
		{"no-break space before and between", Command{Line: "\u00a0AUTH\u00a0PLAIN\u3000s3cret"}, `\u00a0AUTH PLAIN ****`},
		{"byte order mark, zero width space", Command{Line: "\ufeff\u200bAUTH\u200bPLAIN\ufeffs3cret"}, `\ufeff\u200bAUTH PLAIN ****`},
		{"a prompt before", Command{Line: "> AUTH PLAIN s3cret"}, "> AUTH PLAIN ****"},
		{"a name before", Command{Line: "C: AUTH PLAIN s3cret"}, "C: AUTH PLAIN ****"},
		{"control characters, which the library refuses", Command{Line: "\x00AUTH\x00PLAIN\x01s3cret"}, `\x00AUTH PLAIN ****`},
		{"as in POP3", Command{Line: "PASS s3cret and more"}, "PASS ****"},
		{"as in POP3, the user", Command{Line: "USER alice"}, "USER alice"},
		{"as in POP3, a digest", Command{Line: "apop alice c4c9334bac560ecc979e58001b3e22fb"}, "apop ****"},
		{"a password with a colon", Command{Line: "Password:s3cret"}, "Password:****"},
		{"as in IMAP", Command{Line: "a1 LOGIN alice s3cret"}, "a1 LOGIN ****"},
		{"as in IMAP, by hand", Command{Line: ". login alice s3cret"}, ". login ****"},
		{"as in IMAP, without a tag", Command{Line: "LOGIN alice s3cret"}, "LOGIN ****"},
		{"as in IMAP, SASL", Command{Line: "a1 AUTHENTICATE PLAIN AGEAYg=="}, "a1 AUTHENTICATE PLAIN ****"},
		{"LOGIN alone", Command{Line: "a1 LOGIN"}, "a1 LOGIN"},
		{"a host called login", Command{Line: "EHLO login s3cret"}, "EHLO login s3cret"},
		{"help", Command{Line: "HELP AUTH PLAIN"}, "HELP AUTH PLAIN"},
		{"AUTH of MAIL is no credential", Command{Line: "MAIL FROM:<a@b> AUTH=<>"}, "MAIL FROM:<a@b> AUTH=<>"},
		{"a line of a SASL exchange", Command{Line: "AGEAYg==", SASL: true}, "****"},
		{"an empty line of a SASL exchange", Command{Line: "", SASL: true}, "****"},
		{"a line of a SASL exchange like a command", Command{Line: "NOOP", SASL: true}, "****"},
		{"a cancelled SASL exchange", Command{Line: "*", SASL: true}, "*"},
		{"a star and more", Command{Line: "*s3cret", SASL: true}, "****"},
		{"a password out of place", Command{Line: "s3cret", secret: true}, "****"},
		{"a pass phrase out of place", Command{Line: "s3cret and more", secret: true}, "****"},
		{"an empty line", Command{Line: ""}, ""},
		{"beyond ASCII", Command{Line: "MAIL FROM:<\u00f6@b>"}, "MAIL FROM:<\u00f6@b>"},
		{"what could be taken for something else", Command{Line: "X \u200b\u2028\ufeff\u202e\xff\t"}, `X \u200b\u2028\ufeff\u202e\xff\t`},
		{"endless", Command{Line: strings.Repeat("X", 2000)}, strings.Repeat("X", 1024) + "..."},
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
	for _, cmd := range []Command{
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
		{Line: password + " and more", secret: true},
	} {
		failure := Failure{Err: errors.New("no"), Command: cmd, Stack: []byte("stack")}
		panicked := Failure{Err: panicError{cmd}, Command: cmd}
		told := Failure{Err: errors.New("bad line " + cmd.Line + ", password " + password), Command: cmd}
		type exported struct{ C Command }
		for name, v := range map[string]any{
			"command": cmd, "pointer": &cmd, "slice": []Command{cmd, cmd}, "array": [1]Command{cmd}, "of pointers": []*Command{&cmd},
			"map": map[string]Command{"x": cmd}, "key": map[Command]bool{cmd: true}, "any": []any{cmd, &cmd},
			"field": exported{cmd}, "pointer to a field": &exported{cmd}, "embedded": struct{ Command }{cmd}, "pointer in a field": struct{ C *Command }{&cmd},
			"failure": failure, "pointer to a failure": &failure, "slice of failures": []Failure{failure}, "failure in a field": struct{ F Failure }{failure},
			"as an error": error(failure), "wrapped": fmt.Errorf("wrapped: %w", failure), "joined": errors.Join(failure),
			"panic": panicked, "pointer to a panic": &panicked, "slice of panics": []Failure{panicked}, "its error": panicked.Err, "error in a field": struct{ Err error }{panicked.Err},
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
		for _, got := range []string{fmt.Sprintf("%#v", told), fmt.Sprintf("%#v", &told), fmt.Sprintf("%#v", []Failure{told})} {
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

func TestCommandsAndFailuresAreFormattedAsTextOrGo(t *testing.T) {
	cmd := Command{Line: "AUTH PLAIN s3cret", Pipelined: true}
	noop := Command{Line: "NOOP \"x\""}
	for _, tt := range []struct {
		format string
		v      any
		want   string
	}{
		{"%v", cmd, "AUTH PLAIN ****"},
		{"%+v", []Command{cmd, noop}, `[AUTH PLAIN **** NOOP "x"]`},
		{"%s|", noop, `NOOP "x"|`},
		{"%-10s|", noop, `NOOP "x"  |`},
		{"%10.4s|", noop, `      NOOP|`},
		{"%q", noop, `"NOOP \"x\""`},
		{"%#q", noop, "`NOOP \"x\"`"},
		{"%x", noop, "4e4f4f5020227822"},
		{"%d", noop, `%!d(string=NOOP "x")`},
		{"%#v", noop, `smtpproxy.Command{Line:"NOOP \"x\""}`},
		{"%#v", cmd, `smtpproxy.Command{Line:"AUTH PLAIN ****", Pipelined:true}`},
		{"%#v", Command{Line: "s3cret", SASL: true}, `smtpproxy.Command{Line:"****", SASL:true}`},
		{"%#v", []Command{noop}, `[]smtpproxy.Command{smtpproxy.Command{Line:"NOOP \"x\""}}`},
		{"%#v", Command{Line: strings.Repeat("X", 2000)}, `smtpproxy.Command{Line:"` + strings.Repeat("X", 1024) + `..."}`},
		{"%v", (*Command)(nil), "<nil>"},
		{"%v", Failure{Err: errors.New("no"), Command: cmd}, "no"},
		{"%q", Failure{Err: errors.New("no"), Command: cmd}, `"no"`},
		{"%+v", &Failure{Err: errors.New("no s3cret"), Command: cmd}, "no s3cret"},
		{"%#v", Failure{Err: errors.New("no \"s3cret\""), Command: cmd},
			`smtpproxy.Failure{Err:errors.New("no \"****\""), Command:smtpproxy.Command{Line:"AUTH PLAIN ****", Pipelined:true}}`},
		{"%#v", Failure{Stack: []byte("a\n"), Command: noop}, `smtpproxy.Failure{Err:nil, Stack:[]byte("a\n"), Command:smtpproxy.Command{Line:"NOOP \"x\""}}`},
		{"%#v", panicError{noop}, `errors.New("smtpproxy: hook panicked: NOOP \"x\"")`},
	} {
		if got := fmt.Sprintf(tt.format, tt.v); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.format, got, tt.want)
		}
	}
	if got, want := fmt.Errorf("failed: %w", Failure{Err: errors.New("no")}).Error(), "failed: no"; got != want {
		t.Errorf("wrapped: %s, want %s", got, want)
	}
}

func TestWhatACommandMasksIsMaskedInTheErrorsOfHooks(t *testing.T) {
	for _, tt := range []struct {
		why        string
		cmd        Command
		text, want string
	}{
		{"nothing is secret", Command{Line: "NOOP AGEAYg=="}, "bad AGEAYg==", "bad AGEAYg=="},
		{"a mechanism isn't", Command{Line: "AUTH PLAIN"}, "bad PLAIN", "bad PLAIN"},
		{"a response", Command{Line: "AUTH PLAIN AGFsaWNlAGNvcnJlY3Q="}, "PLAIN AGFsaWNlAGNvcnJlY3Q= is alice, correct", "PLAIN **** is ****, ****"},
		{"without a mechanism", Command{Line: "AUTH AGFsaWNlAGNvcnJlY3Q="}, "bad AGFsaWNlAGNvcnJlY3Q= of correct", "bad **** of ****"},
		{"without a mechanism and padding", Command{Line: "AUTH AGFsaWNlAGNvcnJlY3Q"}, "bad AGFsaWNlAGNvcnJlY3Q of correct", "bad **** of ****"},
		{"with an equals sign", Command{Line: "AUTH=PLAIN correct"}, "bad AUTH=PLAIN correct", "bad AUTH=PLAIN ****"},
		{"with an equals sign alone", Command{Line: "AUTH=correct"}, "bad correct", "bad ****"},
		{"with a blank before", Command{Line: " AUTH PLAIN correct"}, `bad " AUTH PLAIN correct"`, `bad " AUTH PLAIN ****"`},
		{"as in IMAP", Command{Line: "a1 LOGIN alice correct"}, "alice is not correct", "**** is not ****"},
		{"an unknown mechanism", Command{Line: "AUTH X-OWN correct"}, "no X-OWN correct", "no ****"},
		{"three octets", Command{Line: "AUTH PLAIN pwd"}, `"pwd" is no pwd2, pwd`, `"****" is no pwd2, ****`},
		{"three octets, encoded", Command{Line: "AUTH PLAIN AGEAcHdk"}, `"\x00a\x00pwd": a, pwd`, `"****": ****, ****`},
		{"two octets in a SASL exchange", Command{Line: "cHc=", SASL: true}, "cHc= is pw", "**** is ****"},
		{"one octet", Command{Line: "PASS x"}, "x is not xx", "**** is not xx"},
		{"quoted", Command{Line: `PASS a"\ö` + "\u200b"}, fmt.Sprintf("bad %q", `a"\ö`+"\u200b"), `bad "****"`},
		{"in hex", Command{Line: "PASS correct"}, fmt.Sprintf("%x %X", "correct", "correct"), "**** ****"},
		{"as octets", Command{Line: "PASS correct"}, fmt.Sprint([]byte("correct")), "[****]"},
		{"encoded", Command{Line: "PASS correct"}, base64.StdEncoding.EncodeToString([]byte("correct")), "****"},
		{"one that is a part of another", Command{Line: "PASS corr correct"}, "correct corr", "**** ****"},
		{"a token", Command{Line: "AUTH OAUTHBEARER " + base64.StdEncoding.EncodeToString([]byte("n,a=u@x,\x01auth=Bearer t0ken\x01\x01"))}, "bad t0ken of u@x", "bad **** of ****"},
	} {
		if got := scrub(tt.text, tt.cmd); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, got, tt.want)
		}
	}
}

// sent is a line from the client, and the server's reply if it gets the line.
type sent struct {
	line  string
	reply int
}

// shown plays a dialogue and returns how its lines are shown to the hook.
func shown(s *Session, lines []sent) {
	for _, l := range lines {
		if _, ok := s.Command(context.Background(), l.line).(Pass); ok {
			s.Replied(l.reply)
		}
	}
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
		p := &Proxy{Hook: HookFunc(func(_ *Context, cmd Command, _ Connection, _ Transaction) (Decision, error) {
			got = append(got, cmd.String())
			return Pass{Next: true}, nil
		})}
		shown(p.NewSession(Connection{}), tt.sent)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}

	// The hook refuses, instead of the server.
	var got []string
	p := &Proxy{Hook: HookFunc(func(_ *Context, cmd Command, _ Connection, _ Transaction) (Decision, error) {
		got = append(got, cmd.String())
		return Reply{Code: 535}, nil
	})}
	shown(p.NewSession(Connection{}), []sent{{"AUTH PLAIN s3cret", 0}, {"s3cret", 0}, {"RSET", 0}})
	if want := []string{"AUTH PLAIN ****", "****", "RSET"}; !slices.Equal(got, want) {
		t.Errorf("refused by the hook: %q, want %q", got, want)
	}
}

func TestTheLogTellsOfAFailureWhatItTakesToMendIt(t *testing.T) {
	var log bytes.Buffer
	p := &Proxy{Logger: slog.New(slog.NewJSONHandler(&log, nil)), Hook: HookFunc(func(*Context, Command, Connection, Transaction) (Decision, error) {
		panic(errors.New("the database is on fire"))
	})}
	s := p.NewSession(Connection{ID: "7", HELO: HELO{Verb: "EHLO", Host: "x"}})
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
	decoded := func(cmd Command) string {
		word := cmd.Line[strings.LastIndexAny(cmd.Line, " \t")+1:]
		b, _ := base64.StdEncoding.DecodeString(word)
		return string(b)
	}
	parts := func(cmd Command) []string { return strings.Split(decoded(cmd), "\x00") }
	failures := map[string]func(cmd Command) (Decision, error){
		"error with the line":           func(cmd Command) (Decision, error) { return nil, fmt.Errorf("refused %s", cmd.Line) },
		"error with the quoted line":    func(cmd Command) (Decision, error) { return nil, fmt.Errorf("refused %q", cmd.Line) },
		"error with the arguments":      func(cmd Command) (Decision, error) { return nil, fmt.Errorf("refused %v", strings.Fields(cmd.Args())) },
		"error with what it decoded":    func(cmd Command) (Decision, error) { return nil, fmt.Errorf("refused %s", decoded(cmd)) },
		"error with parts of it":        func(cmd Command) (Decision, error) { return nil, fmt.Errorf("refused %q", parts(cmd)) },
		"panic with the line":           func(cmd Command) (Decision, error) { panic(cmd.Line) },
		"panic with the command":        func(cmd Command) (Decision, error) { panic(cmd) },
		"panic with an error":           func(cmd Command) (Decision, error) { panic(errors.New(decoded(cmd))) },
		"a reply of two lines in one":   func(cmd Command) (Decision, error) { return Reply{Lines: []string{cmd.Line + "\r\n"}}, nil },
		"a command of two lines in one": func(cmd Command) (Decision, error) { return Pass{Command: cmd.Line + "\r\n"}, nil },
		"a command that is too long":    func(cmd Command) (Decision, error) { return Pass{Command: cmd.Line + strings.Repeat(" ", 20_000)}, nil },
	}
	for why, dialogue := range dialogues {
		for how, fail := range failures {
			last := dialogue[len(dialogue)-1].line
			for _, again := range []bool{false, true} { // OnFailure fails too
				var log bytes.Buffer
				failed := false
				p := &Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil)), Hook: HookFunc(func(_ *Context, cmd Command, _ Connection, _ Transaction) (Decision, error) {
					switch {
					case cmd.Line == last:
						failed = true
						return fail(cmd)
					case cmd.Args() == "X-OWN":
						return Reply{Code: 334}, nil
					}
					return Pass{Next: true}, nil
				})}
				if again {
					p.OnFailure = func(_ *Context, f Failure) Decision { panic(f.Command.Line) }
				}
				shown(p.NewSession(Connection{}), dialogue)
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
