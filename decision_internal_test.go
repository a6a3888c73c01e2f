package smtpproxy

import (
	"bytes"
	"context"
	"encoding/base64"
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
		{"a mechanism that nobody knows", Command{Line: "AUTH X s3cret"}, "AUTH X ****"},
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
