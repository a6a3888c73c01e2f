package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// step is what a client sends, CRLF at its end included, and how the reply to
// it starts.
type step struct{ send, want string }

// play serves one client, which takes the steps, and returns what the server
// printed. A last step whose want is "closed" sees the connection closed.
func play(t *testing.T, hook func(*log.Logger) smtpproxy.Hook, steps ...step) string {
	t.Helper()
	return playFrom(t, hook, "220 ", steps...)
}

// playFrom is play with another greeting.
func playFrom(t *testing.T, hook func(*log.Logger) smtpproxy.Hook, greeting string, steps ...step) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	out := log.New(&printed, "", 0)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, l, &smtpproxy.Proxy{Hook: hook(out), Observers: []smtpproxy.Observer{refusals(out)}}, out)
	}()

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := textproto.NewConn(conn)
	for _, s := range slices.Concat([]step{{"", greeting}}, steps) {
		if _, err := io.WriteString(conn, s.send); err != nil {
			t.Fatal(err)
		}
		code, text, err := c.ReadResponse(0)
		got := fmt.Sprint(code, " ", text)
		if s.want == "closed" && err == io.EOF {
			break
		}
		if err != nil && code == 0 {
			t.Fatalf("reply to %q: %v", s.send, err)
		}
		if !strings.HasPrefix(got, s.want) {
			t.Errorf("reply to %q: %q, want %q", s.send, got, s.want)
		}
	}
	c.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	return strings.ReplaceAll(printed.String(), fmt.Sprint("port ", l.Addr().(*net.TCPAddr).Port), "port 2526")
}

func plain(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + password))
}

func TestEachCommandWorksAndIsShownToTheHookOnce(t *testing.T) {
	got := play(t, chain,
		step{"NOOP\r\n", "250 "},
		step{"MAIL FROM:<a@example.org>\r\n", "503 "},
		step{"HELO client.example.org\r\n", "250 ownserver.example"},
		step{"EHLO client.example.org\r\n", "250 ownserver.example\nPIPELINING\n8BITMIME\nCHUNKING\nSIZE 10485760\nAUTH PLAIN\nXCLIENT ADDR"},
		step{"auth plain\r\n", "334 "},
		step{plain("demo", "demo") + "\r\n", "235 "},
		step{"MAIL FROM:<a@example.org>\r\n", "250 "},
		step{"RSET\r\n", "250 "},
		step{"RCPT TO:<one@example.com>\r\n", "503 "},
		step{"MAIL FROM:<a@example.org>\r\n", "250 "},
		step{"RCPT TO:<one@example.com>\r\n", "250 "},
		step{"RCPT TO:<two@example.com>\r\n", "250 "},
		step{"DATA\r\n", "354 "},
		step{"..\r\n\n.\nRSET\r\n.\r\n", "250 "},
		step{"MAIL FROM:<>\r\n", "250 "},
		step{"RCPT TO:<one@example.com>\r\n", "250 "},
		step{"BDAT 6\r\nRSET\r\n", "250 "},
		step{"DATA\r\n", "503 "},
		step{"BDAT 6 LAST\r\nQUIT\r\n", "250 "},
		step{"PING\r\n", "500 "},
		step{"QUIT\r\n", "221 "},
		step{"", "closed"},
	)
	want := `client: 127.0.0.1, port 2526
hook: NOOP
hook: MAIL FROM:<a@example.org>
refused by the server: MAIL FROM:<a@example.org>: 503 Bad sequence of commands
hook: HELO client.example.org
hook: EHLO client.example.org
hook: auth plain
hook: ****
hook: MAIL FROM:<a@example.org>
hook: RSET
hook: RCPT TO:<one@example.com>
refused by the library: RCPT TO:<one@example.com>: 503 5.5.1 Missing MAIL command
hook: MAIL FROM:<a@example.org>
hook: RCPT TO:<one@example.com>
hook: RCPT TO:<two@example.com>
hook: DATA
mail: from "a@example.org" to ["one@example.com" "two@example.com"], 12 octets
hook: MAIL FROM:<>
hook: RCPT TO:<one@example.com>
hook: BDAT 6
hook: DATA
refused by the server: DATA: 503 Bad sequence of commands
hook: BDAT 6 LAST
mail: from "" to ["one@example.com"], 12 octets
hook: PING
refused by the server: PING: 500 Command unrecognized
hook: QUIT
`
	if got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

// command makes a hook of a function that looks at commands alone.
func command(f func(smtpproxy.Command) smtpproxy.Decision) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return f(cmd), nil
	})
}

// with puts hooks before those of the server.
func with(before ...smtpproxy.Hook) func(*log.Logger) smtpproxy.Hook {
	return func(out *log.Logger) smtpproxy.Hook { return smtpproxy.Chain(smtpproxy.Chain(before...), chain(out)) }
}

func TestAClientIsRefusedBeforeItIsGreeted(t *testing.T) {
	gate := smtpproxy.Funcs{OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
		return smtpproxy.Reply{Code: 554, Lines: []string{"Not from " + conn.RemoteIP.String()}}, nil
	}}
	got := playFrom(t, with(gate), "554 5.0.0 Not from 127.0.0.1", step{"", "closed"})
	if want := "refused by the hook: : 554 5.0.0 Not from 127.0.0.1\n"; got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

func TestBehindXCLIENTTheServerStartsAfreshForTheClientThatTheFrontEndTells(t *testing.T) {
	got := play(t, chain,
		step{"EHLO front.example\r\n", "250 ownserver.example\nPIPELINING\n8BITMIME\nCHUNKING\nSIZE 10485760\nAUTH PLAIN\nXCLIENT ADDR"},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "235 "},
		// What is behind it is kept.
		step{"XCLIENT ADDR=192.0.2.7\r\nMAIL FROM:<a@example.org>\r\n", "220 ownserver.example"},
		step{"", "503 "}, // the server has forgotten the greeting
		step{"EHLO client.example.org\r\n", "250 ownserver.example\nPIPELINING\n8BITMIME\nCHUNKING\nSIZE 10485760"},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "502 "},
		step{"XCLIENT ADDR=127.0.0.1\r\n", "550 "}, // it may be the client's own
		step{"QUIT\r\n", "221 "},
	)
	got += play(t, chain,
		step{"EHLO front.example\r\n", "250 "},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "235 "},
		step{"MAIL FROM:<a@example.org>\r\n", "250 "},
		step{"XCLIENT ADDR=127.0.0.1\r\n", "503 "},
		step{"RSET\r\n", "250 "},
		step{"XCLIENT ADDR=127.0.0.1\r\n", "220 "},
		step{"EHLO client.example.org\r\n", "250 "},
		// It has forgotten who was authenticated, too.
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "235 "},
		step{"QUIT\r\n", "221 "},
	)
	for _, want := range []string{
		"client: 127.0.0.1, port 2526\nhook: EHLO front.example\n",
		"hook: XCLIENT ADDR=192.0.2.7\nclient: 192.0.2.7, port 2526\nhook: MAIL",
		"hook: XCLIENT ADDR=127.0.0.1\nclient: 127.0.0.1, port 2526\nhook: EHLO",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("printed\n%s\nwant\n%s", got, want)
		}
	}
}

func TestXCLIENTIsForAFrontEndThatIsTrustedWhateverAClientIsToldToBe(t *testing.T) {
	// As if the client had come from elsewhere.
	const elsewhere = "192.0.2.1:49152"
	s := (&smtpproxy.Proxy{Hook: chain(log.New(io.Discard, "", 0))}).NewSession(smtpproxy.Connection{
		Peer: netip.MustParseAddrPort(elsewhere), RemoteIP: netip.MustParseAddr("127.0.0.1"),
	})
	if r, ok := s.Command(t.Context(), "XCLIENT ADDR=192.0.2.7").(smtpproxy.Reply); !ok || r.Code != 550 {
		t.Errorf("got %v", r)
	}
}

func TestTheHookChangesWhatTheClientGetsAndHoldsItBack(t *testing.T) {
	const wait = 20 * time.Millisecond
	polite := smtpproxy.Funcs{
		OnConnect: func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) {
			return smtpproxy.Pass{Delay: wait}, nil
		},
		OnKeywords: func(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
			kw.Delete("CHUNKING")
			return nil
		},
		OnReply: func(_ *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
			if x.Reply.Code == 500 {
				return smtpproxy.Reply{Lines: []string{"Beg your pardon?"}, Delay: wait}, nil
			}
			return nil, nil
		},
		OnCommand: func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			switch cmd.Verb() {
			case "NOOP":
				return smtpproxy.Pass{Delay: wait}, nil
			case "VRFY":
				return smtpproxy.Reply{Code: 252, Delay: wait}, nil
			}
			return nil, nil
		},
	}
	began := time.Now()
	play(t, with(polite),
		step{"EHLO client.example.org\r\n", "250 ownserver.example\nPIPELINING\n8BITMIME\nSIZE 10485760\nAUTH PLAIN\nXCLIENT ADDR"},
		step{"BDAT 4 LAST\r\nQUIT", "502 "},
		step{"NOOP\r\n", "250 "},
		step{"VRFY x\r\n", "252 "},
		step{"PING\r\n", "500 Beg your pardon?"},
		step{"XCLIENT ADDR=127.0.0.1\r\n", "220 "}, // Connect is asked once more
	)
	if took := time.Since(began); took < 5*wait {
		t.Errorf("it took %v, with five times %v to wait", took, wait)
	}
}

// Of a message that was refused, some servers keep the recipients. This one forgets them
// where the session says so.
func TestATransactionThatTheSessionHasLeftIsForgotten(t *testing.T) {
	refuses := command(func(cmd smtpproxy.Command) smtpproxy.Decision {
		switch cmd.Verb() {
		case "RSET": // the client counts on it
			return smtpproxy.Reply{}
		}
		return nil
	})
	got := play(t, with(refuses),
		step{"EHLO client.example.org\r\n", "250 "},
		step{"MAIL FROM:<a@example.org>\r\n", "250 "},
		step{"RCPT TO:<one@example.com>\r\n", "250 "},
		step{"RSET\r\n", "250 "},
		step{"MAIL FROM:<b@example.org>\r\n", "250 "},
		step{"RCPT TO:<two@example.com>\r\n", "250 "},
		step{"DATA\r\n", "354 "},
		step{"x\r\n.\r\n", "250 "},
	)
	if want := `mail: from "b@example.org" to ["two@example.com"], 3 octets`; !strings.Contains(got, want) {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

func TestTheChunkOfABDATThatTheHookRepliesToIsDropped(t *testing.T) {
	hook := func(out *log.Logger) smtpproxy.Hook {
		return command(func(cmd smtpproxy.Command) smtpproxy.Decision {
			out.Println("hook:", cmd)
			if cmd.Verb() == "BDAT" {
				return smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"No chunks"}}
			}
			return nil
		})
	}
	got := play(t, hook,
		step{"EHLO client.example.org\r\n", "250 "},
		step{"MAIL FROM:<a@example.org>\r\n", "250 "},
		step{"RCPT TO:<one@example.com>\r\n", "250 "},
		// In one write, so that the server has all of it.
		step{"BDAT 12 LAST\r\nQUIT\r\nQUIT\r\nNOOP\r\n", "554 5.7.1 No chunks"},
		step{"", "250 "},
	)
	if want := "hook: BDAT 12 LAST\nrefused by the hook: BDAT 12 LAST: 554 5.7.1 No chunks\nhook: NOOP\n"; !strings.HasSuffix(got, want) {
		t.Errorf("printed\n%s\nwant it to end in\n%s", got, want)
	}
}

func TestAChunkBeyondTheLimitIsDropped(t *testing.T) {
	big := fmt.Sprintf("BDAT %d\r\n%s", maxMessage+1, strings.Repeat("QUIT\r\n", maxMessage/6+1)[:maxMessage+1])
	for _, helo := range []string{"EHLO", "HELO"} {
		play(t, chain,
			step{helo + " client.example.org\r\n", "250 "},
			step{"MAIL FROM:<a@example.org>\r\n", "250 "},
			step{"RCPT TO:<one@example.com>\r\n", "250 "},
			step{big, "552 "},
			step{"RSET\r\n", "250 "},
		)
	}
}

func TestAMessageBeyondTheLimitIsReadToItsEnd(t *testing.T) {
	play(t, chain,
		step{"HELO client.example.org\r\n", "250 "},
		step{"MAIL FROM:<a@example.org>\r\n", "250 "},
		step{"RCPT TO:<one@example.com>\r\n", "250 "},
		step{"DATA\r\n", "354 "},
		step{strings.Repeat("QUIT\r\n", maxMessage/6+1) + ".\r\n", "552 "},
		step{"NOOP\r\n", "250 "},
	)
}

func TestTheHookSeesTheResponseItAskedForWithNext(t *testing.T) {
	locked := plain("locked", "password")
	got := play(t, chain,
		step{"EHLO client.example.org\r\n", "250 "},
		step{"AUTH PLAIN\r\n", "334 "},
		step{locked + "\r\n", "535 5.7.8 Account locked"},
		// The exchange is over: this is a command.
		step{"NOOP\r\n", "250 "},
		step{"AUTH PLAIN " + locked + "\r\n", "535 5.7.8 Account locked"},
		step{"AUTH PLAIN\r\n", "334 "},
		step{"*\r\n", "501 "},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "421 4.7.0 Too many attempts"},
		step{"", "closed"},
	)
	if strings.Contains(got, locked) {
		t.Errorf("a credential was printed:\n%s", got)
	}
}

func TestAWrongPasswordIsRefused(t *testing.T) {
	play(t, chain,
		step{"EHLO client.example.org\r\n", "250 "},
		step{"AUTH PLAIN " + plain("demo", "wrong") + "\r\n", "535 "},
		step{"AUTH LOGIN\r\n", "504 "},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "235 "},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "421 "},
	)
}

func TestALineWithoutEndIsRefused(t *testing.T) {
	play(t, chain, step{strings.Repeat("x", maxLine), "500 "}, step{"", "closed"})
}

func TestRunTellsWhereItListensUntilItIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-addr", "127.0.0.1:0"}, stdout) }()
	printed := bufio.NewReader(out)
	line, err := printed.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, printed)
	m := regexp.MustCompile(`^listening on (127\.0\.0\.1:[1-9][0-9]*)\n$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("printed %q", line)
	}
	// A client that is still connected keeps nothing from ending.
	conn, err := net.Dial("tcp", m[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := run(ctx, []string{"-addr", m[1]}, io.Discard); err == nil || !strings.Contains(err.Error(), m[1]) {
		t.Errorf("a port in use gives %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheHookStandsWhateverComes(t *testing.T) {
	response := base64.StdEncoding.EncodeToString([]byte("\x00locked\x00secret"))
	proxytest.HookTest{Lines: []string{"XCLIENT ADDR=192.0.2.99", "AUTH PLAIN", response, "AUTH PLAIN " + response}}.Run(t, func() smtpproxy.Hook {
		return chain(log.New(io.Discard, "", 0))
	})
}
