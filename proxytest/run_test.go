package proxytest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// manyKinds is a hook that decides something of each kind.
func manyKinds() smtpproxy.Hook {
	return smtpproxy.Chain(policy(), smtpproxy.Funcs{
		OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if conn.LocalPort == 0 {
				return smtpproxy.Reply{Code: 554, Lines: []string{"Not here"}}, nil
			}
			return nil, nil
		},
		OnKeywords: func(_ *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
			if conn.Auth.Mechanism != "" && conn.Auth.Mechanism != "XCLIENT" {
				return errors.New("once more?")
			}
			kw.Set("XOWN", "1")
			kw.Delete("SMTPUTF8")
			return nil
		},
	})
}

// policy is the part of it that decides about commands.
func policy() smtpproxy.Hook {
	return smtpproxy.Named("policy", smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		switch {
		case cmd.Verb() == "RCPT" && strings.Contains(cmd.Line, "spam@"):
			return smtpproxy.Reply{Code: 550, Lines: []string{"No", "spam"}}, nil
		case cmd.Verb() == "RCPT" && strings.Contains(cmd.Line, "hers@") && conn.Auth.Username != "user":
			return smtpproxy.Reply{Code: 550, Lines: []string{"Not you"}}, nil
		case cmd.Verb() == "RCPT" && txn.Recipients.Len() > 3:
			return smtpproxy.Reply{Code: 452}, nil
		case cmd.Verb() == "VRFY":
			return smtpproxy.Pass{Command: "NOOP", Delay: time.Millisecond}, nil
		case cmd.Verb() == "HELP":
			return smtpproxy.Reply{Code: 502, Delay: time.Millisecond, Disconnect: cmd.Args() != ""}, nil
		case cmd.Verb() == "EXPN":
			return nil, errors.New("it fails")
		case cmd.Verb() == "BDAT" && cmd.Args() == "4 LAST":
			return smtpproxy.Reply{Code: 554}, nil
		case cmd.Verb() == "XCLIENT":
			return smtpproxy.Reply{Restart: &told}, nil
		case cmd.Verb() == "AUTH" && cmd.Args() == "EXTERNAL", cmd.Verb() == "XLOGIN":
			return smtpproxy.Reply{Code: 334}, nil
		case cmd.SASL:
			return smtpproxy.Reply{Code: 535, Lines: []string{"No"}}, nil
		}
		return nil, nil
	}))
}

func TestEachLineOfADialogueDoesWhatItSays(t *testing.T) {
	Run(t, "testdata/lines.txtar", func(*testing.T) *smtpproxy.Proxy { return &smtpproxy.Proxy{Hook: manyKinds()} })
}

// playText plays a file, and returns all that is wrong with it.
func playText(text string) (*script, error) {
	return playWith(&smtpproxy.Proxy{Hook: manyKinds()}, text)
}

func playWith(p *smtpproxy.Proxy, text string) (*script, error) {
	f, mistakes := readScript("testdata/x.txtar", []byte(text))
	if len(mistakes) == 0 {
		for _, d := range f.dialogues {
			more, wrong := d.play(p)
			mistakes = append(append(mistakes, more...), wrong...)
		}
	}
	return f, errors.Join(mistakes...)
}

func TestWhatIsWrongInAFileIsToldWithItsLineAndWhatToDo(t *testing.T) {
	for _, tt := range []struct{ why, text, want string }{
		{"an empty file", "", `1: there is no dialogue: begin one with a line such as "-- a guest --"`},
		{"no dialogue", "What it is.\n\n", `3: there is no dialogue: begin one with a line such as "-- a guest --"`},
		{"lines before the first", "C: NOOP\n", `1: "C: NOOP" stands before the first dialogue: begin that with a line such as "-- a guest --"`},
		{"a marker without a name", "--  --\nC: NOOP\n", `2: "C: NOOP" stands before the first dialogue: begin that with a line such as "-- a guest --"`},
		{"a marker with a blank for a name", "--   --\nC: NOOP\n", `2: "C: NOOP" stands before the first dialogue: begin that with a line such as "-- a guest --"`},
		{"a dialogue without a client", "-- x --\n# nobody\n", `1: nothing happens in the dialogue "x": write what the client sends, as in C: EHLO client.example`},
		{"two of one name", "-- x --\nC: NOOP\n-- x --\nC: NOOP\n", `3: there is a dialogue "x" above: give this one another name`},
		{"another letter", "-- x --\nC: NOOP\nX: 250\n", `3: "X: 250" is no line of a dialogue: begin it with C:, A:, S:, H:, P:, = or #`},
		{"no letter", "-- x --\nNOOP\nC: NOOP", `2: "NOOP" is no line of a dialogue: begin it with C:, A:, S:, H:, P:, = or #`},
		{"a reply to nothing", "-- x --\nS: 220\nC: NOOP\n", `2: "S: 220" comes of nothing: the client has done nothing yet, in a line C: above`},
		{"no line to send", "-- x --\nC:  \n", `2: there is no line for the client to send: write C: "" for an empty one`},
		{"nor with (leaves)", "-- x --\nC: (leaves)\n", `2: there is no line for the client to send: write C: "" for an empty one`},
		{"a string without an end", "-- x --\nC: \"NOOP\n", `2: "NOOP is no Go string: begin and end it with a quotation mark, and write \" for one within`},
		{"something else in parentheses", "-- x --\nC: (waits)\n", `2: "(waits)" is nothing that a client does, which is (connection), (content), (TLS handshake), (leaves) with a line, or (gone); a line that begins so is written as a Go string, "(waits)"`},
		{"a connection later", "-- x --\nC: NOOP\nC: (connection)\n", `3: (connection) is where a dialogue begins: the client is connected`},
		{"content that is given", "-- x --\nC: (content) Subject: x\n", `2: nothing may stand behind (content)`},
		{"an unknown field of a connection", "-- x --\nC: (connection) Remote=192.0.2.1\n", `2: Connection has no field Remote: it has RemoteIP, RemotePort, Peer, RemotePTR, RemoteUID, LocalIP, LocalPort, ServerID, EarlyTalker, HELO, TLS, Auth`},
		{"a field of a field that has none", "-- x --\nC: (connection) RemoteIP.x=192.0.2.1\n", `2: Connection has no RemoteIP.x`},
		{"a field without a value", "-- x --\nC: (connection) RemoteIP\n", `2: "RemoteIP" is no field with a value, such as RemoteIP=192.0.2.7`},
		{"no field at all", "-- x --\nC: NOOP\nC: (TLS handshake) =x\n", `3: "=x" is no field with a value, such as SNI=mx.example`},
		{"no address", "-- x --\nC: (connection) RemoteIP=1.2\n", `2: RemoteIP can't be "1.2": ParseAddr("1.2"): IPv4 address too short`},
		{"no number", "-- x --\nC: (connection) RemotePort=65536\n", `2: RemotePort can't be "65536": strconv.ParseUint: parsing "65536": value out of range`},
		{"no truth", "-- x --\nC: (connection) EarlyTalker=y\n", `2: EarlyTalker can't be "y": strconv.ParseBool: parsing "y": invalid syntax`},
		{"a certificate", "-- x --\nC: (TLS handshake) PeerCert.X509=x\n", `2: PeerCert.X509 can't be told in a file: set it in a test in Go, with ResumeSession`},
		{"an answer without a reply", "-- x --\nA: RCPT\nC: NOOP\n", `2: "RCPT" is no answer: write the command's verb and a reply, as in A: RCPT 550 5.1.1 No such user`},
		{"an answer without a verb", "-- x --\nA: 550\nC: NOOP\n", `2: "550" is no answer: write the command's verb and a reply, as in A: RCPT 550 5.1.1 No such user`},
		{"an answer without a blank", "-- x --\nA: RCPT 550No\nC: NOOP\n", `2: "RCPT 550No" is no answer: write the command's verb and a reply, as in A: RCPT 550 5.1.1 No such user`},
		{"a code that can't be", "-- x --\nA: RCPT 354\nC: NOOP\n", `2: 354 is no answer to RCPT: that begins with 2, 4 or 5, or is 334 to AUTH or 354 to DATA; a greeting is 220`},
		{"a greeting that can't be", "-- x --\nA: (connection) 250\nC: NOOP\n", `2: 250 is no answer to (connection): that begins with 2, 4 or 5, or is 334 to AUTH or 354 to DATA; a greeting is 220`},
		{"an answer that has no end", "-- x --\nA: RCPT 550-No\nC: NOOP\n", `3: the answer to RCPT above has no last line: in that, a blank follows the code`},
		{"nor at the end", "-- x --\nC: NOOP\nA: RCPT 550-No", `3: the answer to RCPT has no last line: in that, a blank follows the code`},
		{"another answer within", "-- x --\nA: RCPT 550-No\nA: RCPT 551 No\nC: NOOP\n", `3: the answer to RCPT above goes on, with 550 in each of its lines and a blank behind it in the last`},
		{"an answer too many", "-- x --\nA: NOOP 250 first\nA: NOOP 250 second\nC: NOOP\nH policy: pass\nS: 250 first\n", `3: the server has got no NOOP to answer so behind this line: let the client send one there, or delete the line`},
		{"an answer behind its command", "-- x --\nC: NOOP\nH policy: pass\nS: 250 2.0.0 OK\nA: NOOP 250 first\n", `5: the server has got no NOOP to answer so behind this line: let the client send one there, or delete the line`},
		{"two answers too many", "-- x --\nA: RSET 250\nA: NOOP 250\nC: QUIT\nS: 221 2.0.0 Bye\n", `2: the server has got no RSET to answer so behind this line: let the client send one there, or delete the line
testdata/x.txtar:3: the server has got no NOOP to answer so behind this line: let the client send one there, or delete the line`},
		{"what isn't exported", "-- x --\nC: NOOP\n= Connection.TLS.PeerCert.chain x\n", `3: Connection.TLS.PeerCert has no chain: it has Error, Err, Verified`},
		{"nothing to look at", "-- x --\nC: NOOP\n= HELO.Host x\n", `3: "HELO.Host" is nothing to look at: begin with a field, as in = Connection.HELO.Host or = Transaction.Sender`},
		{"an unknown field", "-- x --\nC: NOOP\n= Connection.HELO.Name x\n", `3: Connection.HELO has no Name: it has Verb, Host`},
		{"a field of a single value", "-- x --\nC: NOOP\n= Transaction.Sender.Domain x\n", `3: Transaction.Sender has no Domain: it is a single value`},
		{"several values", "-- x --\nC: NOOP\n= Transaction.Recipients x\n", `3: Transaction.Recipients is more than one value: it has Len, 0, 1, ...`},
		{"several values of the parameters", "-- x --\nC: NOOP\n= Transaction.SenderParams x\n", `3: Transaction.SenderParams is more than one value: it has Len, SIZE, ...`},
		{"no number of a recipient", "-- x --\nC: NOOP\n= Transaction.Recipients.-1.Recipient x\n", `3: Transaction.Recipients has no -1: it has Len, 0, 1, ...`},
		{"a certificate to look at", "-- x --\nC: NOOP\n= Connection.TLS.PeerCert.X509 x\n", `3: Connection.TLS.PeerCert.X509 is no single value: look at it in a test in Go`},
		{"a random ID", "-- x --\nC: NOOP\n= Transaction.ID x\n", `3: Transaction.ID is another one each time`},
		{"another value", "-- x --\nC: NOOP\nH policy: pass\nS: 250 2.0.0 OK\n= Connection.HELO.Host x\n", `5: Connection.HELO.Host is empty, not x`},
		{"another value than none", "-- x --\nC: NOOP\nH policy: pass\nS: 250 2.0.0 OK\n= Transaction.Recipients.Len\n", `5: Transaction.Recipients.Len is 0, not empty`},
		{"a command for content", "-- x --\nC: HELO a\nS: 250 server.example\nC: MAIL FROM:<>\nS: 250 2.1.0 Sender OK\nC: RCPT TO:<b@c>\nS: 250 2.1.5 Recipient OK\nC: DATA\nS: 354 Go ahead\nC: QUIT\n",
			`10: the server waits for the content of a message: write C: (content) before this`},
		{"content for a command", "-- x --\nC: (content)\n", `2: the server waits for no content: it has answered no 354 to DATA`},
		{"a command for a handshake", "-- x --\nC: STARTTLS\nS: 220 2.0.0 Go ahead\nC: QUIT\n", `4: the server waits for a TLS handshake: write C: (TLS handshake) before this`},
		{"a handshake for a command", "-- x --\nC: (TLS handshake)\n", `2: the server waits for no TLS handshake: it has answered no 220 to STARTTLS`},
		{"a command behind the end", "-- x --\nC: QUIT\nS: 221 2.0.0 Bye\nC: NOOP\n", `4: the connection is closed: the client can do nothing more`},
		{"another reply", "-- x --\nC: NOOP\nH policy: pass\n# Why not.\nS: 251 2.0.0 OK\n", `5: after C: NOOP
	was said:
		H policy: pass
		S: 250 2.0.0 OK
	the file has:
		H policy: pass
		S: 251 2.0.0 OK`},
		{"a reply too many", "-- x --\nC: QUIT\nS: 221 2.0.0 Bye\nS: 221 2.0.0 Bye\n", `4: after C: QUIT
	was said:
		S: 221 2.0.0 Bye
	the file has:
		S: 221 2.0.0 Bye
		S: 221 2.0.0 Bye`},
		{"nothing is said", "-- x --\nC: (gone)\nS: 221 2.0.0 Bye\n", `3: after C: (gone)
	was said: nothing
	the file has:
		S: 221 2.0.0 Bye`},
		{"nothing is in the file", "-- x --\nC: NOOP\n", `2: after C: NOOP
	was said:
		H policy: pass
		S: 250 2.0.0 OK
	the file has: nothing`},
		{"a password is masked", "-- x --\nC: AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=\nH policy: pass\n", `2: after C: AUTH PLAIN ****
	was said:
		H policy: pass
		S: 503 5.5.1 Bad sequence of commands
	the file has:
		H policy: pass`},
		{"the hook fails", "-- x --\nC: EXPN\nS: 250\n", `3: after C: EXPN
	was said:
		H policy: failed
		P: 421 4.3.0 Service not available, closing transmission channel (close)
	the file has:
		S: 250
	the hook's failure:
		it fails`},
	} {
		_, err := playText(tt.text)
		if got, want := fmt.Sprint(err), "testdata/x.txtar:"+tt.want; got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.why, got, want)
		}
	}
}

func TestAllThatIsWrongInAFileIsToldAtOnce(t *testing.T) {
	_, err := playText("-- x --\nX: 1\nC: (waits)\nC: NOOP\n= x\n-- x --\n")
	if n := strings.Count(fmt.Sprint(err), "testdata/x.txtar:"); n != 4 {
		t.Errorf("%d mistakes: %v", n, err)
	}
}

func TestAnUpdateWritesWhatWasSaidAndChangesNothingElse(t *testing.T) {
	for _, tt := range []struct{ why, text, want string }{
		{"nothing differs", "x\n-- x --\n# why\nC: QUIT\n\nS: 221 2.0.0 Bye  \n", "x\n-- x --\n# why\nC: QUIT\n\nS: 221 2.0.0 Bye  \n"},
		{"a new file, without an end of its last line", "x\n-- x --\nC: NOOP\n= Transaction.Sender\nC: QUIT", "x\n-- x --\nC: NOOP\nH policy: pass\nS: 250 2.0.0 OK\n= Transaction.Sender\nC: QUIT\nH policy: pass\nS: 221 2.0.0 Bye\n"},
		{"lines ended by CRLF", "x\r\n-- x --\r\nC: NOOP\r\n# why\r\nS: 2\r\nH x: pass\r\n", "x\r\n-- x --\r\nC: NOOP\r\n# why\r\nH policy: pass\r\nS: 250 2.0.0 OK\r\n"},
		{"what stands between stays in its order", "-- x --\nC: NOOP\n# one\nS: 1\n\n# two\nS: 2\nA: NOOP 250\nH x: pass\n# three\nC: NOOP\nH policy: pass\nS: 250 2.0.0 OK",
			"-- x --\nC: NOOP\n# one\nH policy: pass\nS: 250 2.0.0 OK\n\n# two\nA: NOOP 250\n# three\nC: NOOP\nH policy: pass\nS: 250 2.0.0 OK"},
		{"in short", "-- x --\nC: VRFY x\nS: 1\nC: HELP\n", "-- x --\nC: VRFY x\nS: 250 2.0.0 OK\nC: HELP\nH policy: 502 5.0.0 Requested action not taken\n"},
		{"a dialogue in short beside one that isn't", "-- x --\nC: NOOP\nS: 1\n-- y --\nC: HELP\n", "-- x --\nC: NOOP\nS: 250 2.0.0 OK\n-- y --\nC: HELP\nH policy: 502 5.0.0 Requested action not taken (after 1ms)\n"},
		{"up to where it can't be played", "-- x --\nC: QUIT\nC: NOOP\nH: pass\n", "-- x --\nC: QUIT\nH policy: pass\nS: 221 2.0.0 Bye\nC: NOOP\nH: pass\n"},
		{"a line that isn't the client's any more", "-- x --\nC: (gone)\nS: 1\n", "-- x --\nC: (gone)\n"},
	} {
		f, _ := playText(tt.text)
		if got := f.updated(); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.why, got, tt.want)
		}
	}
}

func TestATranscriptIsADialogueThatPlays(t *testing.T) {
	s := NewSession(&smtpproxy.Proxy{Hook: manyKinds()})
	s.Connect()
	sendAll(s, "EHLO client.example", "AUTH EXTERNAL", "cGFzc3dvcmQ=", "VRFY x", "HELP", "MAIL FROM:<>", "RCPT TO:<b@example.org>", "RCPT TO:<spam@example.org>", "DATA", content, "STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	s.SendAndLeave("NOOP")
	if _, err := playText("-- x --\n" + s.Transcript()); err != nil {
		t.Errorf("%v\n%s", err, s.Transcript())
	}
}

func TestBehindADialogueTheHookIsToldOfTheEnd(t *testing.T) {
	told := 0
	p := &smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnDisconnect: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { told++ }}}
	if _, err := playWith(p, "-- x --\nC: NOOP\nS: 250 2.0.0 OK\n"); err != nil || told != 1 {
		t.Errorf("told %d times: %v", told, err)
	}
}

// TestRunInAProcessOfItsOwn is what the tests below run, with what they set in the
// environment.
func TestRunInAProcessOfItsOwn(t *testing.T) {
	pattern, ok := os.LookupEnv("PROXYTEST_PATTERN")
	if !ok {
		t.Skip("it is run by other tests")
	}
	Run(t, pattern, func(t *testing.T) *smtpproxy.Proxy {
		switch os.Getenv("PROXYTEST_HOOK") {
		case "none":
			return nil
		case "parallel":
			t.Parallel()
		case "changed":
			return decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
				return smtpproxy.Reply{Code: 451}, nil
			})
		}
		return passAll
	})
}

// runs runs the test above, and returns what it prints, and whether it passes.
func runs(t *testing.T, environment ...string) (output string, passes bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^TestRunInAProcessOfItsOwn$")
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return string(out), err == nil
}

func TestANewFileIsWrittenByAnUpdateAndHoldsTheHookToItFromThenOn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "new.txtar")
	pattern := "PROXYTEST_PATTERN=" + name
	expect := func(why string, passes bool, want string, environment ...string) {
		t.Helper()
		out, ok := runs(t, append([]string{pattern}, environment...)...)
		if ok != passes || !strings.Contains(out, want) {
			t.Errorf("%s: passes %v; no %q in\n%s", why, ok, want, out)
		}
	}
	expect("there is no file", false, "A first one needs no more than this, and PROXYTEST_UPDATE=1 go test:")
	if err := os.WriteFile(name, []byte(firstFile), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("nothing is in it", false, "If that is right, PROXYTEST_UPDATE=1 go test writes it into ")
	expect("nothing is in it", false, "new.txtar:4: after C: EHLO client.example\n", "PROXYTEST_UPDATE=0")
	expect("it is updated", true, "new.txtar is updated: read what it says now", "PROXYTEST_UPDATE=1", "PROXYTEST_HOOK=parallel")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, after, _ := strings.Cut(string(text), "C: MAIL FROM:<alice@example.com>\n"); after != "H: pass\nS: 250 2.1.0 Sender OK\n" {
		t.Errorf("it says:\n%s", text)
	}
	expect("as it was", true, "--- PASS: TestRunInAProcessOfItsOwn/new/its_name")
	expect("there is nothing to update", true, "PASS", "PROXYTEST_UPDATE=1")
	if out, _ := runs(t, pattern, "PROXYTEST_UPDATE=1"); strings.Contains(out, "is updated") {
		t.Errorf("there is nothing to update:\n%s", out)
	}
	expect("another hook", false, "new.txtar:5: after C: EHLO client.example\n", "PROXYTEST_HOOK=changed")
	expect("no hook", false, "newProxy has returned nil", "PROXYTEST_HOOK=none")
	if err := os.WriteFile(name, []byte(firstFile+"X: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a file that is wrong isn't updated", false, `new.txtar:6: "X: 1" is no line of a dialogue`, "PROXYTEST_UPDATE=1")
	if text, err := os.ReadFile(name); err != nil || string(text) != firstFile+"X: 1\n" {
		t.Errorf("it is updated, or %v:\n%s", err, text)
	}
	pattern = "PROXYTEST_PATTERN=["
	expect("a pattern that is wrong", false, "syntax error in pattern")
}
