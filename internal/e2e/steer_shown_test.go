package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about replies that are easily shown once too often, or as another's.

// shownReplies keeps what a ReplyHook is shown, a line each.
type shownReplies struct {
	mu    sync.Mutex
	lines []string
}

func (s *shownReplies) hook(commands smtpproxy.HookFunc) smtpproxy.Hook {
	return smtpproxy.Chain(commands, smtpproxy.Funcs{OnReply: func(_ *hookContext, x smtpproxy.Exchange) (decision, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lines = append(s.lines, fmt.Sprintf("%s as %q: %d by %v, %d", x.Command.Received, x.Passed.Line, x.Reply.Code, x.By, x.Recipient))
		return nil, nil
	}})
}

func TestEachReplyIsShownOnceWithItsCommand(t *testing.T) {
	refusing := decide(func(cmd command) (decision, error) {
		if strings.HasSuffix(cmd.Received, " LAST") {
			return reply{Code: 550}, nil
		}
		return nil, nil
	})
	for _, row := range []struct {
		why   string
		hook  smtpproxy.HookFunc
		opts  []servertest.Option
		lines []string // what the client sends, and after a bar what it gets
		want  []string // but for the greeting
	}{
		{
			"a refusal of the library's is one reply, where it looks like a hook's", always(nil), nil,
			[]string{"RCPT TO:<a@b>|503", "NOOP|250"},
			[]string{`RCPT TO:<a@b> as "": 503 by library, -1`, `NOOP as "NOOP": 250 by server, -1`},
		},
		{
			"a last chunk that a hook refuses has a status for each recipient (RFC 2033 section 4.2)", refusing, []servertest.Option{servertest.LMTP()},
			[]string{"LHLO x|250", "MAIL FROM:<a@b>|250", "RCPT TO:<a@b>|250", "RCPT TO:<c@b>|250", "BDAT 3 LAST|550|550", "NOOP|250"},
			[]string{
				`LHLO x as "LHLO x": 250 by server, -1`, `MAIL FROM:<a@b> as "MAIL FROM:<a@b>": 250 by server, -1`,
				`RCPT TO:<a@b> as "RCPT TO:<a@b>": 250 by server, -1`, `RCPT TO:<c@b> as "RCPT TO:<c@b>": 250 by server, -1`,
				`BDAT 3 LAST as "": 550 by hook, 0`, `BDAT 3 LAST as "": 550 by hook, 1`, `NOOP as "NOOP": 250 by server, -1`,
			},
		},
		{
			"the library's own RSET before MAIL is none of the client's", always(nil), []servertest.Option{servertest.AnswerMessages("451 4.3.0 later")},
			[]string{"EHLO x|250", "MAIL FROM:<1@b>|250", "RCPT TO:<a@b>|250", "DATA|354", ".|451", "MAIL FROM:<2@b>|250"},
			[]string{
				`EHLO x as "EHLO x": 250 by server, -1`, `MAIL FROM:<1@b> as "MAIL FROM:<1@b>": 250 by server, -1`, `RCPT TO:<a@b> as "RCPT TO:<a@b>": 250 by server, -1`,
				`DATA as "DATA": 354 by server, -1`, `DATA as "DATA": 451 by server, -1`, `MAIL FROM:<2@b> as "MAIL FROM:<2@b>": 250 by server, -1`,
			},
		},
		{
			"of a chunk's size the server gets the canonical form", always(nil), nil,
			[]string{"EHLO x|250", "MAIL FROM:<1@b>|250", "RCPT TO:<a@b>|250", "bdat 003 last|250"},
			[]string{
				`EHLO x as "EHLO x": 250 by server, -1`, `MAIL FROM:<1@b> as "MAIL FROM:<1@b>": 250 by server, -1`,
				`RCPT TO:<a@b> as "RCPT TO:<a@b>": 250 by server, -1`, `bdat 003 last as "bdat 3 last": 250 by server, -1`,
			},
		},
	} {
		t.Run(row.why, func(t *testing.T) {
			s := new(shownReplies)
			c := behindListener(&smtpproxy.Proxy{Hook: s.hook(row.hook)}, servertest.Strict(row.opts...)).connect(t, overTCP(t))
			c.expect("220")
			for _, line := range row.lines {
				line, replies, _ := strings.Cut(line, "|")
				c.send(line + "\r\n" + strings.Repeat("x", chunkIn(line)))
				c.expect(strings.Split(replies, "|")...)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			want := append([]string{` as "": 220 by server, -1`}, row.want...)
			if !slices.Equal(s.lines, want) {
				t.Errorf("shown was\n%s\nwant\n%s", strings.Join(s.lines, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestAReplyWithoutLinesKeepsWhatIsThere(t *testing.T) {
	var told smtpproxy.Exchange
	p := &smtpproxy.Proxy{
		Hook: smtpproxy.Funcs{OnReply: func(*hookContext, smtpproxy.Exchange) (decision, error) {
			return reply{Enhanced: enhanced{2, 9, 9}, Lines: []string{}}, nil
		}},
		Observers: []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x smtpproxy.Exchange) { told = x }}},
	}
	c := behindListener(p, servertest.Strict()).connect(t, overTCP(t))
	c.expect("220 2.9.9 servertest.example ESMTP")
	c.ask("NOOP", "250 2.9.9 nothing done")
	c.ask("QUIT", "221 2.9.9 bye")
	c.expectEnd()
	if got := told.Reply.String(); got != "221 2.9.9 bye" {
		t.Errorf("observers were told of %q", got)
	}
}
