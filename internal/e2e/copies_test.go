package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds that a server with a state machine of its own, and who tests a hook,
// are told how often a client counts on a reply. Behind a listener, dialogues show it.

// answering makes a hook that answers some lines and passes the others.
func answering(answers map[string]decision) smtpproxy.Hook {
	return decide(func(cmd command) (decision, error) { return answers[cmd.Line], nil })
}

var copiesRows = []struct {
	why     string
	lines   string // the last of them is answered
	answers map[string]decision
	want    string // the reply and how often it is due
}{
	{"the hook refuses the whole message",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 4 LAST",
		map[string]decision{"BDAT 4 LAST": reply{Code: 550}}, "550 x2"},
	{"the library does",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 40 LAST", nil, "552 x2"},
	{"only what the server has accepted is a recipient",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<nobody@b>|RCPT TO:<c@c>|BDAT 40 LAST", nil, "552 x2"},
	{"the same recipient twice is two",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<b@b>|BDAT 40 LAST", nil, "552 x2"},
	{"without any recipient it is one reply",
		"LHLO y|MAIL FROM:<a@a>|BDAT 4 LAST", nil, "502 x1"},
	{"a chunk that isn't the last one is answered once",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 40", nil, "552 x1"},
	{"the library has refused a chunk before",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 40|BDAT 4 LAST", nil, "502 x2"},
	{"the hook has",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 4|BDAT 5 LAST",
		map[string]decision{"BDAT 4": reply{Code: 452}}, "502 x2"},
	{"the server has",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 3|BDAT 5 LAST", nil, "502 x2"},
	{"that was another message, which RSET has given up",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 3|RSET|BDAT 5 LAST", nil, "502 x1"},
	{"that was another message, which the hook has given up with its own reply to RSET",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 3|RSET|BDAT 5 LAST",
		map[string]decision{"RSET": reply{}}, "502 x1"},
	{"that was another message, before the hook's own greeting",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 3|LHLO z|BDAT 5 LAST",
		map[string]decision{"LHLO z": reply{}}, "502 x1"},
	{"that was another message, and a greeting is refused",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 3|LHLO z|BDAT 5 LAST",
		map[string]decision{"LHLO z": reply{Code: 550}}, "502 x2"},
	{"that was another message, before the hook's 220 to XCLIENT",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 3|XCLIENT NAME=x|BDAT 5 LAST",
		map[string]decision{"XCLIENT NAME=x": reply{Code: 220}}, "502 x1"},
	{"that was another message, whose last chunk was answered",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 3|BDAT 5 LAST|BDAT 5 LAST", nil, "502 x1"},
	{"the hook takes leave, so that all is over after one",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 4 LAST",
		map[string]decision{"BDAT 4 LAST": reply{Code: 421}}, "421 x1"},
	{"what follows is answered once",
		"LHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 40 LAST|RCPT TO:<d@d>", nil, "503 x1"},
	{"in SMTP there is one reply to a message",
		"EHLO y|MAIL FROM:<a@a>|RCPT TO:<b@b>|RCPT TO:<c@c>|BDAT 40 LAST", nil, "552 x1"},
}

func TestASessionTellsHowOftenAReplyIsDue(t *testing.T) {
	for _, row := range copiesRows {
		s := (&smtpproxy.Proxy{Hook: answering(row.answers)}).NewSession(smtpproxy.Connection{})
		if n := s.Copies(); n != 1 {
			t.Errorf("%s: before any command, %d copies", row.why, n)
		}
		got := ""
		for line := range strings.SplitSeq(row.lines, "|") {
			switch d := s.Command(context.Background(), line).(type) {
			case reply:
				got = fmt.Sprintf("%d x%d", d.Code, s.Copies())
			case pass:
				got = ""
				if n := s.Copies(); n != 1 {
					t.Errorf("%s: %s is passed, %d copies", row.why, line, n)
				}
				switch {
				case strings.Contains(line, "nobody"):
					s.Replied(550)
				case line == "BDAT 3": // the server has no room
					s.Replied(452)
				default:
					s.Replied(250, "server.example", "SIZE 30")
				}
			}
		}
		if got != row.want {
			t.Errorf("%s: the last reply is %s, want %s", row.why, got, row.want)
		}
	}
}

func TestAFakeClientGetsAReplyAsOftenAsItIsDue(t *testing.T) {
	for _, row := range copiesRows {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: answering(row.answers)})
		for _, greeting := range []string{"LHLO", "EHLO"} {
			s.Answer(greeting, 250, "server.example", "SIZE 30")
		}
		for line := range strings.SplitSeq(row.lines, "|") {
			switch {
			case strings.Contains(line, "nobody"):
				s.Answer("RCPT", 550)
			case line == "BDAT 3":
				s.Answer("BDAT", 452)
			}
			s.Send(line)
		}
		if got := fmt.Sprintf("%d x%d", s.Reply().Code, len(s.Replies())); got != row.want {
			t.Errorf("%s: the client got %v at last, want %s", row.why, s.Replies(), row.want)
		}
	}
}

// A fake LMTP server's transaction is the library's, whatever has been refused: the
// next message has its own recipients.
func TestBehindAMessageThatIsRefusedAFakeServerTakesTheNextOne(t *testing.T) {
	for _, row := range copiesRows {
		if strings.HasPrefix(row.want, "421") {
			continue
		}
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: answering(row.answers)})
		s.Answer("LHLO", 250, "server.example", "SIZE 30")
		s.Answer("EHLO", 250, "server.example", "SIZE 30")
		for line := range strings.SplitSeq(row.lines, "|") {
			s.Send(line)
		}
		for _, line := range []string{"MAIL FROM:<d@d>", "RCPT TO:<e@e>", "BDAT 6 LAST"} {
			s.Send(line)
			if replies := s.Replies(); len(replies) != 1 || replies[0].Code != 250 {
				t.Errorf("%s: %s, got %v", row.why, line, replies)
			}
		}
	}
}
