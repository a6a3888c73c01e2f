package apitest

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds docs/ownserver.md: each duty that it tells has rows here, in which a host
// that is careless of it fails, and the careful one doesn't.

// conformanceRow is a dialogue that tells a careful host from a careless one.
type conformanceRow struct {
	duty    string // as docs/ownserver.md has it
	fault   fault
	wrong   string // what goes wrong, in words
	proxy   func(h *ownHost) smtpproxy.Proxy
	packets []string
	right   string // what happens with a careful host, and not with the other
	bad     string // what happens with the careless one alone
}

// showing makes a Proxy whose hook notes each line, and asks for the next.
func showing(more ...smtpproxy.Hook) func(h *ownHost) smtpproxy.Proxy {
	return func(h *ownHost) smtpproxy.Proxy {
		return smtpproxy.Proxy{
			Hook: smtpproxy.Chain(slices.Concat([]smtpproxy.Hook{smtpproxy.Funcs{
				OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
					h.note("hook: connect %v", conn.RemoteIP)
					return nil, nil
				},
				OnCommand: func(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
					h.note("hook: %s%s", cmd.Line, map[bool]string{true: ", in TLS"}[conn.TLS.Protocol != ""])
					return smtpproxy.Pass{Next: cmd.Verb() == "AUTH"}, nil
				},
				OnKeywords: func(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
					_, chunking := kw.Get("CHUNKING")
					h.note("hook: CHUNKING %v", chunking)
					return nil
				},
			}}, more)...),
			Observers: []smtpproxy.Observer{{
				Exchanged:  func(_ *smtpproxy.Context, x smtpproxy.Exchange) { h.note("told: %s: %d", x.Command.Line, x.Reply.Code) },
				StartedTLS: func(*smtpproxy.Context, smtpproxy.Connection, error) { h.note("told: TLS") },
				Disconnected: func(_ *smtpproxy.Context, conn smtpproxy.Connection, e smtpproxy.End) {
					h.note("told: the end of %v by the %v: %v", conn.RemoteIP, e.By, e.Reason)
				},
			}},
		}
	}
}

// decides makes a hook of decisions about lines.
func decides(of map[string]smtpproxy.Decision) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return of[cmd.Line], nil
	})
}

// greetsWith makes a hook of a decision about clients.
func greetsWith(d smtpproxy.Decision) smtpproxy.Hook {
	return onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) { return d, nil })
}

// response is one of AUTH PLAIN.
var response = base64.StdEncoding.EncodeToString([]byte("\x00alice\x00secret"))

const minute = time.Minute

// leaves makes a hook that lets the client leave at QUIT, and waits for what its Context says.
func leaves(h *ownHost, d smtpproxy.Decision) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() != "QUIT" {
			return nil, nil
		}
		close(h.gone)
		if d != nil {
			return d, nil
		}
		select {
		case <-ctx.Done():
			h.note("hook: %v", context.Cause(ctx))
		case <-time.After(minute):
			h.note("hook: waited")
		}
		return nil, nil
	})
}

// message is one to a recipient.
const message = "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\nx\r\n.\r\n"

var conformanceRows = []conformanceRow{
	{duty: "Describe the client", fault: tellsNoAddress, wrong: "the hook doesn't know who is there",
		proxy: showing(), packets: []string{"NOOP\r\n"}, right: "hook: connect 192.0.2.1\n", bad: "hook: connect invalid IP\n"},

	{duty: "Ask before the greeting", fault: asksNotAtAll, wrong: "a client is let in that the hook would have refused",
		proxy: showing(greetsWith(smtpproxy.Reply{Code: 554})), packets: []string{"NOOP\r\n"},
		right: "S: 554 5.0.0 Requested action not taken\nclosed\n", bad: "S: 220 host.example\n"},
	{duty: "Ask before the greeting", fault: asksNotAtAll, wrong: "the greeting isn't held back",
		proxy: showing(greetsWith(smtpproxy.Pass{Delay: minute})), packets: []string{"NOOP\r\n"},
		right: "S: 220 host.example (after 1m0s)\n", bad: "S: 220 host.example\n"},
	{duty: "Ask before the greeting", fault: asksOverAgain, wrong: "behind a handshake, a hook that counts its clients counts one twice",
		proxy: showing(), packets: []string{"EHLO x\r\n", "STARTTLS\r\n", handshake, "NOOP\r\n"},
		right: "told: TLS\nhook: NOOP, in TLS\n", bad: "told: TLS\nhook: connect 192.0.2.1\n"},
	{duty: "Ask before the greeting", fault: asksOverAgain, wrong: "behind a Restart, one that counts them by address does",
		proxy: showing(xclient(&alice)), packets: []string{"XCLIENT\r\nNOOP\r\n"},
		bad: "hook: connect 198.51.100.7\nhook: connect 198.51.100.7\n"},

	{duty: "Refuse whom it refuses", fault: greetsAnybody, wrong: "the client isn't told why, and comes again: the session has ended, so that all it gets is 421",
		proxy: showing(greetsWith(smtpproxy.Reply{Code: 554})), packets: []string{"NOOP\r\n"},
		right: "S: 554 5.0.0 Requested action not taken\nclosed\n", bad: "S: 421 4.3.0 Service not available, closing transmission channel\nclosed\n"},

	{duty: "Tell the greeting", fault: hidesGreeting, wrong: "who looks at replies isn't shown it",
		proxy: showing(), packets: []string{"NOOP\r\n"}, right: "told: : 220\n"},

	{duty: "Show each line", fault: hidesSASL, wrong: "a line of a SASL exchange passes the hook that asked for it, and the session ends, which doesn't know what the reply is one to",
		proxy: showing(decides(map[string]smtpproxy.Decision{"AUTH PLAIN": smtpproxy.Pass{Next: true}})), packets: []string{"EHLO x\r\n", "AUTH PLAIN\r\n", response + "\r\n", message},
		right: "hook: " + response + "\n", bad: "S: 421 "},
	{duty: "Show each line", fault: showsContent, wrong: "a line of a message would be one for the hook: the session ends",
		proxy: showing(), packets: []string{"EHLO x\r\n", message}, right: "mail from <a@a> to <b@b>", bad: "S: 421 "},

	{duty: "Cancel for who has left", fault: neverCancels, wrong: "the hook works on for nobody",
		proxy: func(h *ownHost) smtpproxy.Proxy { return showing(leaves(h, nil))(h) }, packets: []string{"QUIT\r\n"},
		right: "hook: smtpproxy: client gone\n", bad: "hook: waited (after 1m0s)\n"},

	{duty: "Wait", fault: neverWaits, wrong: "the greeting isn't held back",
		proxy: showing(greetsWith(smtpproxy.Pass{Delay: minute})), packets: []string{"NOOP\r\n"}, right: "S: 220 host.example (after 1m0s)\n"},
	{duty: "Wait", fault: neverWaits, wrong: "a refusal isn't, in the place of a greeting",
		proxy: showing(greetsWith(smtpproxy.Reply{Code: 554, Delay: minute})), packets: []string{"NOOP\r\n"}, right: "S: 554 5.0.0 Requested action not taken (after 1m0s)\n"},
	{duty: "Wait", fault: neverWaits, wrong: "a line is executed too early",
		proxy: showing(decides(map[string]smtpproxy.Decision{"NOOP": smtpproxy.Pass{Delay: minute}})), packets: []string{"NOOP\r\n"}, right: "executes NOOP (after 1m0s)\n"},
	{duty: "Wait", fault: neverWaits, wrong: "whoever guesses passwords may go on at once",
		proxy: showing(decides(map[string]smtpproxy.Decision{"NOOP": smtpproxy.Reply{Code: 535, Delay: minute}})), packets: []string{"NOOP\r\n"}, right: "S: 535 5.0.0 Requested action not taken (after 1m0s)\n"},
	{duty: "Wait", fault: neverWaits, wrong: "a reply of the server's isn't held back",
		proxy: showing(onReply(func(x smtpproxy.Exchange) smtpproxy.Decision {
			if x.Command.Verb() == "NOOP" {
				return smtpproxy.Pass{Delay: minute}
			}
			return nil
		})), packets: []string{"NOOP\r\n"}, right: "S: 250 OK (after 1m0s)\n"},
	{duty: "Wait", fault: neverWaits, wrong: "nor is the greeting behind a Restart",
		proxy: showing(decides(map[string]smtpproxy.Decision{"XCLIENT": smtpproxy.Pass{Delay: minute}}), xclient(&alice)), packets: []string{"XCLIENT\r\n"}, right: "S: 220 host.example (after 1m0s)\n"},
	{duty: "Wait", fault: waitsForNobody, wrong: "the connection is kept open for who has left it",
		proxy:   func(h *ownHost) smtpproxy.Proxy { return showing(leaves(h, smtpproxy.Pass{Delay: minute}))(h) },
		packets: []string{"QUIT\r\n"}, right: "hook: QUIT\nclosed\n", bad: "executes QUIT (after 1m0s)\n"},

	{duty: "Forget the transaction", fault: neverResets, wrong: "the next message goes to the recipients of one that was given up, too",
		proxy:   showing(decides(map[string]smtpproxy.Decision{"RSET": smtpproxy.Reply{}})),
		packets: []string{"EHLO x\r\n", "MAIL FROM:<z@z>\r\nRCPT TO:<secret@z>\r\nRSET\r\n", message},
		right:   "mail from <a@a> to <b@b>", bad: "mail from <a@a> to <secret@z> <b@b>"},

	{duty: "Execute what is passed", fault: executesReceived, wrong: "what the hook has changed is changed for the hook alone",
		proxy:   showing(decides(map[string]smtpproxy.Decision{"RCPT TO:<b@b>": smtpproxy.Pass{Command: "RCPT TO:<archive@b>"}})),
		packets: []string{"EHLO x\r\n", message}, right: "mail from <a@a> to <archive@b>", bad: "executes RCPT TO:<b@b>\n"},

	{duty: "Execute nothing that is answered", fault: executesAnswered, wrong: "what the hook has refused is done: the reply is one too many, and the session ends",
		proxy:   showing(decides(map[string]smtpproxy.Decision{"RCPT TO:<b@b>": smtpproxy.Reply{Code: 550}})),
		packets: []string{"EHLO x\r\n", "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nDATA\r\nx\r\n.\r\n"}, right: "mail from <a@a> to <c@c>", bad: "executes RCPT TO:<b@b>\n"},
	{duty: "Execute nothing that is answered", fault: staysInSASL, wrong: "the next command is taken for a password",
		proxy: showing(smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			if cmd.SASL {
				return smtpproxy.Reply{Code: 535}, nil
			}
			return smtpproxy.Pass{Next: cmd.Verb() == "AUTH"}, nil
		})), packets: []string{"EHLO x\r\n", "AUTH PLAIN\r\n", response + "\r\n", "NOOP\r\n"}, right: "executes NOOP\n", bad: "takes a line for a response\n"},

	{duty: "Drop the chunk", fault: keepsChunk, wrong: "what is in the chunk is executed",
		proxy:   showing(decides(map[string]smtpproxy.Decision{"BDAT 17 LAST": smtpproxy.Reply{Code: 554}})),
		packets: []string{"EHLO x\r\n", "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n", "BDAT 17 LAST\r\nMAIL FROM:<z@z>\r\nNOOP\r\n"},
		right:   "S: 554 5.0.0 Requested action not taken\nhook: NOOP\n", bad: "executes MAIL FROM:<z@z>\n"},
	{duty: "Drop the chunk", fault: keepsChunk, wrong: "so it is where the library has refused it",
		proxy:   showing(),
		packets: []string{"EHLO x\r\n", "BDAT 17 LAST\r\nMAIL FROM:<z@z>\r\nNOOP\r\n"},
		bad:     "executes MAIL FROM:<z@z>\n"},

	{duty: "Answer for each recipient", fault: answersOnce, wrong: "an LMTP client takes the next reply for that to its message",
		proxy:   showing(decides(map[string]smtpproxy.Decision{"BDAT 4 LAST": smtpproxy.Reply{Code: 554}})),
		packets: []string{"LHLO x\r\n", "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\n", "BDAT 4 LAST\r\nx\r\nyNOOP\r\n"},
		right:   strings.Repeat("S: 554 5.0.0 Requested action not taken\n", 2)},

	{duty: "Close behind Disconnect", fault: goesOn, wrong: "the client stays, though every line of its gets 421",
		proxy:   showing(decides(map[string]smtpproxy.Decision{"NOOP": smtpproxy.Reply{Code: 421}})),
		packets: []string{"NOOP\r\n", "NOOP\r\n"}, bad: "channel\nS: 421 "},
	{duty: "Close behind Disconnect", fault: goesOnReplied, wrong: "so it does where a KeywordHook has failed",
		proxy:   showing(smtpproxy.Funcs{OnKeywords: func(*smtpproxy.Context, smtpproxy.Connection, *smtpproxy.Keywords) error { return io.EOF }}),
		packets: []string{"EHLO x\r\n", "NOOP\r\n"}, bad: "channel\nS: 421 "},
	{duty: "Close behind Disconnect", fault: goesOnReplied, wrong: "so it does where a ReplyHook has ended the connection",
		proxy: showing(onReply(func(x smtpproxy.Exchange) smtpproxy.Decision {
			return smtpproxy.Reply{Disconnect: x.Reply.Code == 500}
		})), packets: []string{"PING\r\n", "NOOP\r\n"}, right: "S: 500 Unknown\nclosed\n", bad: "S: 421 "},

	{duty: "Tell each reply", fault: hides354, wrong: "for the session, the transaction goes on behind its message, and it refuses the next",
		proxy: showing(), packets: []string{"EHLO x\r\n", message, message}, bad: "told: MAIL FROM:<a@a>: 503\n"},
	{duty: "Tell each reply", fault: hidesLast, wrong: "the next line comes where the session waits for a reply, and ends it",
		proxy: showing(), packets: []string{"EHLO x\r\n", message, "NOOP\r\n"}, right: "hook: NOOP\n", bad: "S: 421 "},
	{duty: "Tell each reply", fault: hidesStatuses, wrong: "likewise in LMTP, if not each recipient's is told",
		proxy: showing(), packets: []string{"LHLO x\r\n", "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nDATA\r\nx\r\n.\r\n", "NOOP\r\n"}, right: "hook: NOOP\n", bad: "S: 421 "},
	{duty: "Tell each reply", fault: hidesStatuses, wrong: "likewise behind the last chunk of an LMTP message",
		proxy: showing(), packets: []string{"LHLO x\r\n", "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nBDAT 2\r\nxyBDAT 2 LAST\r\nxy", "NOOP\r\n"}, right: "hook: NOOP\n", bad: "S: 421 "},

	{duty: "Tell the keywords", fault: hidesKeywords, wrong: "a KeywordHook has nothing to look at",
		proxy: showing(), packets: []string{"EHLO x\r\n"}, right: "hook: CHUNKING true\n", bad: "hook: CHUNKING false\n"},
	{duty: "Tell the keywords", fault: hidesKeywords, wrong: "the session passes chunks that the server has no room for",
		proxy: showing(), packets: []string{"EHLO x\r\n", "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n", "BDAT 1001 LAST\r\n" + strings.Repeat("x", 1001)},
		right: "S: 552 5.3.4 ", bad: "executes BDAT 1001 LAST\n"},

	{duty: "Send what Replied returns", fault: sendsItsOwn, wrong: "the client is offered what it must not use",
		proxy: showing(smtpproxy.Funcs{OnKeywords: func(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
			kw.Delete("CHUNKING")
			return nil
		}}), packets: []string{"EHLO x\r\n"}, right: "S: 250-host.example|250-PIPELINING|250-SIZE", bad: "|250-CHUNKING"},
	{duty: "Send what Replied returns", fault: sendsItsOwn, wrong: "what a ReplyHook says isn't said",
		proxy: showing(onReply(func(x smtpproxy.Exchange) smtpproxy.Decision {
			if x.Reply.Code == 500 {
				return smtpproxy.Reply{Code: 550, Lines: []string{"As you like"}}
			}
			return nil
		})), packets: []string{"PING\r\n"}, right: "S: 550 As you like\n", bad: "S: 500 Unknown\n"},

	{duty: "Begin anew in TLS", fault: hidesTLS, wrong: "the hook refuses what is sent in TLS, since it doesn't know of it",
		proxy: showing(), packets: []string{"EHLO x\r\n", "STARTTLS\r\n", handshake, "EHLO x\r\n", message},
		right: "hook: EHLO x, in TLS\n", bad: "hook: DATA\n"},
	{duty: "Begin anew in TLS", fault: keepsOverTLS, wrong: "what was said in the clear, by whomever, holds in TLS",
		proxy: showing(), packets: []string{"EHLO x\r\n", "AUTH PLAIN\r\n", response + "\r\n", "STARTTLS\r\n", handshake, message},
		right: "S: 503 Greet first\n", bad: `of "alice" at`},
	{duty: "Begin anew in TLS", fault: keepsPlaintext, wrong: "a line that somebody on the way has put in is taken for one inside TLS",
		proxy: showing(), packets: []string{"EHLO x\r\n", "STARTTLS\r\nEHLO injected\r\n", handshake, "NOOP\r\n"},
		right: "told: TLS\nhook: NOOP, in TLS\n", bad: "executes EHLO injected\n"},

	{duty: "Start afresh", fault: knowsNoRestart, wrong: "the front end can't use it, but nothing that its client sends is taken for the front end's",
		proxy: showing(xclient(&alice)), packets: []string{"EHLO x\r\n", "XCLIENT\r\n" + message},
		right: "S: 220 host.example\nhook: MAIL", bad: "S: 421 4.3.0 Service not available, closing transmission channel\nclosed\ntold: the end of 198.51.100.7 by the server: server closed\n"},
	{duty: "Start afresh", fault: knowsNoRestart, wrong: "likewise before the greeting",
		proxy: showing(greetsWith(smtpproxy.Reply{Restart: &alice})), packets: []string{"NOOP\r\n"},
		right: "S: 220 host.example\nhook: NOOP\n", bad: "S: 421 4.3.0 Service not available, closing transmission channel\nclosed\ntold: the end of 198.51.100.7 by the server: server closed\n"},
	{duty: "Start afresh", fault: keepsState, wrong: "the client has the rights of the front end",
		proxy: showing(xclient(&alice)), packets: []string{"EHLO x\r\n", "AUTH PLAIN\r\n", response + "\r\n", "XCLIENT\r\n", message},
		right: "S: 503 Greet first\n", bad: `of "alice" at`},
	{duty: "Start afresh", fault: hidesNewGreeting, wrong: "the next line comes where the session waits for the greeting, and ends it",
		proxy: showing(xclient(&alice)), packets: []string{"XCLIENT\r\n", "NOOP\r\n"}, right: "told: XCLIENT: 220\n", bad: "S: 421 "},
	{duty: "Start afresh", fault: keepsAddress, wrong: "the server takes the front end for the client",
		proxy: showing(xclient(&alice)), packets: []string{"XCLIENT\r\n", "EHLO x\r\n", message}, right: "at 198.51.100.7:7007\n", bad: "at 192.0.2.1:49152\n"},
	{duty: "Start afresh", fault: losesRest, wrong: "a client that doesn't wait for the greeting waits for the reply to what it has sent behind",
		proxy: showing(xclient(&alice)), packets: []string{"XCLIENT\r\nNOOP\r\n"}, right: "executes NOOP\n"},

	{duty: "Close the session", fault: closesNothing, wrong: "nobody is told of the end",
		proxy: showing(), packets: []string{"QUIT\r\n"}, right: "told: the end of 192.0.2.1 by the client: quit\n"},
}

func TestACarefulHostFaresWellWhereACarelessOneDoesNot(t *testing.T) {
	has := func(log, what string) bool { return what != "" && strings.Contains(log, what) }
	for _, row := range conformanceRows {
		t.Run(fmt.Sprint(row.duty, ", ", row.fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if log := runOwnHost(t, careful, row.proxy, row.packets...); row.right != "" && !has(log, row.right) || has(log, row.bad) {
					t.Errorf("the careful host, which is to do\n%s\nand not\n%s\n(%s), does\n%s", row.right, row.bad, row.wrong, log)
				}
				if log := runOwnHost(t, row.fault, row.proxy, row.packets...); has(log, row.right) || row.bad != "" && !has(log, row.bad) {
					t.Errorf("one that %s, and so is to do\n%s\nand not\n%s\n(%s), does\n%s", row.fault, row.bad, row.right, row.wrong, log)
				}
			})
		})
	}
}

// The fake server of proxytest is a careful host, too.
func TestTheFakeSessionShowsHooksWhatACarefulHostShowsThem(t *testing.T) {
	shown := func(log string) (lines []string) {
		var replies []string
		var end string
		for line := range strings.Lines(log) {
			line, _, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " (after")
			switch {
			case strings.HasPrefix(line, "told: the end"):
				end = line // on a goroutine of its own
			case strings.HasPrefix(line, "hook:"), strings.HasPrefix(line, "told:"):
				lines = append(lines, line)
			case strings.HasPrefix(line, "S: "):
				replies = append(replies, line[:len("S: 250")])
			}
		}
		return append(append(lines, replies...), end)
	}
	for _, row := range conformanceRows {
		switch row.fault {
		case neverCancels, waitsForNobody, keepsPlaintext, hidesKeywords:
			continue // its client leaves otherwise, its TLS has nothing before, and its SIZE is another
		}
		t.Run(fmt.Sprint(row.duty, ", ", row.fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := shown(runOwnHost(t, careful, row.proxy, row.packets...))
				h := &ownHost{began: time.Now()}
				p := row.proxy(h)
				s := proxytest.ResumeSession(&p, toServer(), smtpproxy.Transaction{})
				playFake(h, s, strings.Join(row.packets, ""))
				s.Close()
				time.Sleep(time.Nanosecond)
				h.mu.Lock()
				defer h.mu.Unlock()
				if got := shown(h.log.String()); !slices.Equal(got, want) {
					t.Errorf("%s: %s:\n%s\nwant\n%s", row.duty, row.wrong, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		})
	}
}

// playFake lets the client of a fake session send what it sends.
func playFake(h *ownHost, s *proxytest.Session, input string) {
	noteReplies := func() {
		for _, r := range s.Replies() {
			h.note("S: %d", r.Code)
		}
	}
	s.Connect()
	for noteReplies(); input != "" && !s.Closed(); noteReplies() {
		if rest, ok := strings.CutPrefix(input, handshake); ok {
			input = rest
			s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
			continue
		}
		if s.Reply().Code == 354 {
			_, input, _ = strings.Cut(input, "\r\n.\r\n")
			s.SendContent()
			continue
		}
		var line string
		line, input, _ = strings.Cut(input, "\r\n")
		var chunk int
		if fmt.Sscanf(line, "BDAT %d", &chunk); chunk > 0 {
			input = input[chunk:]
		}
		if strings.HasPrefix(line, "PING") {
			s.Answer("PING", 500, "Unknown")
		}
		s.Send(line)
	}
}

// dutiesIn returns the duties that docs/ownserver.md tells, in its order.
func dutiesIn(t *testing.T) (duties []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/ownserver.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\| \*\*(.*?)\*\* \|`).FindAllStringSubmatch(string(text), -1) {
		duties = append(duties, m[1])
	}
	return duties
}

func TestEachDutyOfAHostIsToldAndShown(t *testing.T) {
	var shown []string
	faults := make(map[fault]bool)
	for _, row := range conformanceRows {
		if !slices.Contains(shown, row.duty) {
			shown = append(shown, row.duty)
		}
		faults[row.fault] = true
	}
	if told := dutiesIn(t); !slices.Equal(told, shown) {
		t.Errorf("docs/ownserver.md tells\n%s\nshown are\n%s", strings.Join(told, "\n"), strings.Join(shown, "\n"))
	}
	source, err := os.ReadFile("ownhost_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +fault = "(.+)"$`).FindAllStringSubmatch(string(source), -1) {
		if !faults[fault(m[1])] {
			t.Errorf("no row has a host that %s", m[1])
		}
	}
}
