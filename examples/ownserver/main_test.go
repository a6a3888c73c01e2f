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
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// step is what a client sends, CRLF at its end included, and how the reply to
// it starts.
type step struct{ send, want string }

// play serves one client, which takes the steps, and returns what the server
// printed. A last step whose want is "closed" sees the connection closed.
func play(t *testing.T, hook func(*log.Logger) smtpproxy.HookFunc, steps ...step) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	out := log.New(&printed, "", 0)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l, &smtpproxy.Proxy{Hook: hook(out)}, out) }()

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := textproto.NewConn(conn)
	for _, s := range slices.Concat([]step{{"", "220 "}}, steps) {
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
	return printed.String()
}

func plain(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + password))
}

func TestEachCommandWorksAndIsShownToTheHookOnce(t *testing.T) {
	got := play(t, guard,
		step{"NOOP\r\n", "250 "},
		step{"MAIL FROM:<a@example.org>\r\n", "503 "},
		step{"HELO client.example.org\r\n", "250 ownserver.example"},
		step{"EHLO client.example.org\r\n", "250 ownserver.example\nPIPELINING\n8BITMIME\nCHUNKING\nSIZE 10485760\nAUTH PLAIN"},
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
	want := `hook: NOOP
hook: MAIL FROM:<a@example.org>
hook: HELO client.example.org
hook: EHLO client.example.org
hook: auth plain
hook: ****
hook: MAIL FROM:<a@example.org>
hook: RSET
hook: RCPT TO:<one@example.com>
hook: MAIL FROM:<a@example.org>
hook: RCPT TO:<one@example.com>
hook: RCPT TO:<two@example.com>
hook: DATA
mail: from "a@example.org" to ["one@example.com" "two@example.com"], 12 octets
hook: MAIL FROM:<>
hook: RCPT TO:<one@example.com>
hook: BDAT 6
hook: DATA
hook: BDAT 6 LAST
mail: from "" to ["one@example.com"], 12 octets
hook: PING
hook: QUIT
`
	if got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

func TestTheChunkOfABDATThatTheHookRepliesToIsDropped(t *testing.T) {
	hook := func(out *log.Logger) smtpproxy.HookFunc {
		return func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			out.Println("hook:", cmd)
			if cmd.Verb() == "BDAT" {
				return smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"No chunks"}}, nil
			}
			return nil, nil
		}
	}
	got := play(t, hook,
		step{"EHLO client.example.org\r\n", "250 "},
		step{"MAIL FROM:<a@example.org>\r\n", "250 "},
		step{"RCPT TO:<one@example.com>\r\n", "250 "},
		// In one write, so that the server has all of it.
		step{"BDAT 12 LAST\r\nQUIT\r\nQUIT\r\nNOOP\r\n", "554 5.7.1 No chunks"},
		step{"", "250 "},
	)
	if want := "hook: BDAT 12 LAST\nhook: NOOP\n"; !strings.HasSuffix(got, want) {
		t.Errorf("printed\n%s\nwant it to end in\n%s", got, want)
	}
}

func TestAChunkBeyondTheLimitIsDropped(t *testing.T) {
	big := fmt.Sprintf("BDAT %d\r\n%s", maxMessage+1, strings.Repeat("QUIT\r\n", maxMessage/6+1)[:maxMessage+1])
	for _, helo := range []string{"EHLO", "HELO"} {
		play(t, guard,
			step{helo + " client.example.org\r\n", "250 "},
			step{"MAIL FROM:<a@example.org>\r\n", "250 "},
			step{"RCPT TO:<one@example.com>\r\n", "250 "},
			step{big, "552 "},
			step{"RSET\r\n", "250 "},
		)
	}
}

func TestAMessageBeyondTheLimitIsReadToItsEnd(t *testing.T) {
	play(t, guard,
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
	got := play(t, guard,
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
	play(t, guard,
		step{"EHLO client.example.org\r\n", "250 "},
		step{"AUTH PLAIN " + plain("demo", "wrong") + "\r\n", "535 "},
		step{"AUTH LOGIN\r\n", "504 "},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "235 "},
		step{"AUTH PLAIN " + plain("demo", "demo") + "\r\n", "421 "},
	)
}

func TestALineWithoutEndIsRefused(t *testing.T) {
	play(t, guard, step{strings.Repeat("x", maxLine), "500 "}, step{"", "closed"})
}

func TestRunTellsWhereItListensUntilItIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-addr", "127.0.0.1:0"}, stdout) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
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
