package e2e

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about what comes of a hook's change of a reply: what stays fixed, what closes,
// what the state follows, and a hook that ends its goroutine.

// repliesHook makes a hook that decides about replies alone.
func repliesHook(f func(x shownExchange) decision) smtpproxy.Funcs {
	return smtpproxy.Funcs{OnReply: func(_ *hookContext, x shownExchange) (decision, error) { return f(x), nil }}
}

// playsWith plays what a client says to a server, with a hook.
func playsWith(t *testing.T, server endServer, p *smtpproxy.Proxy, say string) (octets string, told []end) {
	t.Helper()
	ends := make(chan end, 10)
	p.Observers = append(p.Observers, smtpproxy.Observer{Disconnected: func(_ *hookContext, _ connection, e end) { ends <- e }})
	serve, stop := server(t, p)
	tr, served := overCable(), make(chan struct{})
	go func() {
		defer close(served) // it may be its own goroutine that ends
		serve(tr)
	}()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	k := newCaller(t, c)
	leave := sync.OnceFunc(func() {
		k.c.Close()
		time.Sleep(time.Second) // it is the client that leaves
		stop()
		tr.Close()
		<-served
	})
	t.Cleanup(leave)
	k.play(say, nil)
	leave()
	time.Sleep(3 * time.Hour) // who is told of the end may take their time
	synctest.Wait()
	close(ends)
	for e := range ends {
		told = append(told, e)
	}
	return string(k.octets), told
}

func TestAHookChangesNoReplyOnWhichTheNextStepHangs(t *testing.T) {
	const say = "< 220|> EHLO x|< 250|> AUTH PLAIN|< 334|> AHVzZXIAcGFzcw==|< 235|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|> DATA|< 354|> .|< 250|> HELO y|< 250|FIN"
	const script = "S: 220 x|C: EHLO x|S> \"250-x\\r\\n250 SIZE 5\\r\\n\"|C: AUTH PLAIN|S: 334 q|C: AHVzZXIAcGFzcw==|S: 235 2.7.0 x|C: MAIL FROM:<a@a>|S: 250 2.1.0 x|C: RCPT TO:<b@b>|S: 250 2.1.5 x|C: DATA|S: 354 go|C: .|S: 250 2.0.0 x|C: HELO y|S: 250 x|END"
	for why, d := range map[string]reply{
		"another text":           {Lines: []string{"z", "AUTH PLAIN"}},
		"another enhanced code":  {Enhanced: enhanced{2, 9, 9}},
		"a text, and Disconnect": {Lines: []string{"z"}, Disconnect: true},
		"a refusal":              {Code: 554},
		"421":                    {Code: 421},
		"another of the class":   {Code: 399},
	} {
		bubble(t, why, func(t *testing.T) {
			log := new(logbook)
			octets, _ := playsWith(t, ofScript(script), &smtpproxy.Proxy{AllowInsecureAuth: true, Logger: log.logger(), Hook: smtpproxy.Named("editor", repliesHook(func(x shownExchange) decision {
				if x.Reply.Code/100 == 3 || x.Reply.Code == 250 && (x.Command.Verb() == "EHLO" || x.Command.Verb() == "HELO") {
					return d
				}
				return nil
			}))}, say)
			want := "220 x\r\n250-x\r\n250 SIZE 5\r\n334 q\r\n235 2.7.0 x\r\n250 2.1.0 x\r\n250 2.1.5 x\r\n354 go\r\n250 2.0.0 x\r\n250 x\r\n"
			if octets != want {
				t.Errorf("the client got %q, want %q", octets, want)
			}
			if entries := log.lines("hook failed"); len(entries) != 4 || entries[0].attrs["hook"] != "editor" {
				t.Errorf("logged: %v", entries)
			}
		})
	}
}

// The library's replies, a hook's and a failure's are changed as the server's are.
func TestAHookChangesARefusalWhoeverGivesIt(t *testing.T) {
	commands := decide(func(cmd command) (decision, error) {
		switch cmd.Verb() {
		case "VRFY":
			return reply{Code: 550, Enhanced: enhanced{5, 7, 1}}, nil
		case "ETRN":
			return nil, errTest
		}
		return nil, nil
	})
	edits := repliesHook(func(x shownExchange) decision {
		if x.Reply.Code < 400 {
			return nil
		}
		return reply{Lines: []string{fmt.Sprint(x.By, " ", x.Hook, " ", x.Reply.Code)}}
	})
	for _, timeout := range []time.Duration{0, time.Hour} {
		bubble(t, fmt.Sprint("HookTimeout ", timeout), func(t *testing.T) {
			octets, ends := playsWith(t, ofScript(srvHello+"C: NOOP|S: 451 4.3.0 x|END"),
				&smtpproxy.Proxy{HookTimeout: timeout, Hook: smtpproxy.Chain(smtpproxy.Named("judge", commands), smtpproxy.Named("editor", edits))},
				hello+"> NOOP|< 451|> VRFY x|< 550|> RCPT TO:<b@b>|< 503|> ETRN x|< 421|END")
			want := "220 x\r\n250 x\r\n451 4.3.0 server  451\r\n550 5.7.1 hook judge 550\r\n503 5.5.1 library  503\r\n421 4.3.0 failure  421\r\n"
			if octets != want {
				t.Errorf("the client got %q, want %q", octets, want)
			}
			if len(ends) != 1 || ends[0].By != smtpproxy.SideHook || ends[0].Reason != smtpproxy.ReasonHookFailed || strings.Join(ends[0].Reply.Lines, "") != "4.3.0 failure  421" {
				t.Errorf("told: %+v", ends)
			}
		})
	}
}

func TestAHookChangesWhatGoSMTPReplies(t *testing.T) {
	bubble(t, "RCPT, and the end of a message", func(t *testing.T) {
		octets, ends := playsWith(t, ofGoSMTP(), &smtpproxy.Proxy{Hook: repliesHook(func(x shownExchange) decision {
			switch {
			case x.Reply.Code == 550:
				return reply{Code: 450, Lines: []string{"later"}}
			case x.Command.Verb() == "DATA" && x.Reply.Code == 250:
				return reply{Enhanced: enhanced{2, 6, 0}, Lines: []string{fmt.Sprint("taken: ", x.Octets, " octets for ", x.Transaction.Recipients.Len())}}
			}
			return nil
		})}, toRcpt+"> RCPT TO:<nobody@b>|< 450 4.1.1 later|> DATA|< 354|> hi\r\n.|< 250 2.6.0 taken: 7 octets for 1|> QUIT|< 221|END")
		if len(ends) != 1 || ends[0].Messages != 1 || ends[0].Recipients != 1 {
			t.Errorf("the client got %q; the end: %v", octets, ends)
		}
	})
}

func TestTheLastReplyMayBeChangedAsOthersMay(t *testing.T) {
	gate := func(*hookContext, connection) (decision, error) { return reply{Code: 554}, nil }
	for _, row := range []struct {
		why       string
		script    string
		connect   func(*hookContext, connection) (decision, error)
		say, want string
	}{
		{"221", "S: 220 x|C: QUIT|S: 221 2.0.0 x", nil, "< 220|> QUIT|< 221|END", "220 x\r\n221 2.0.0 changed\r\n"},
		{"421 of the server's", "S: 220 x|C: NOOP|S: 421 4.3.2 x", nil, "< 220|> NOOP|< 421|END", "220 x\r\n421 4.3.2 changed\r\n"},
		{"a client that is refused", "END", gate, "< 554|END", "554 5.0.0 changed\r\n"},
		{"HTTP", "S: 220 x|END", nil, "< 220|> GET / HTTP/1.1|< 502|END", "220 x\r\n502 5.5.1 changed\r\n"},
	} {
		for _, timeout := range []time.Duration{0, time.Hour} {
			bubble(t, fmt.Sprint(row.why, ", HookTimeout ", timeout), func(t *testing.T) {
				h := smtpproxy.Funcs{OnConnect: row.connect, OnReply: func(ctx *hookContext, x shownExchange) (decision, error) {
					if !x.Reply.Disconnect {
						return nil, nil
					}
					// A hook that asks somebody about the text has the time for it.
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(time.Second):
					}
					return reply{Lines: []string{"changed"}}, nil
				}}
				if octets, _ := playsWith(t, ofScript(row.script), &smtpproxy.Proxy{Hook: h, HookTimeout: timeout}, row.say); octets != row.want {
					t.Errorf("the client got %q, want %q", octets, row.want)
				}
			})
		}
	}
}

func TestDisconnectClosesBehindAReplyForTheClientAndTheServer(t *testing.T) {
	closesAt := func(at string) smtpproxy.Hook {
		return repliesHook(func(x shownExchange) decision {
			if tell(x) == at {
				return reply{Disconnect: true}
			}
			return nil
		})
	}
	for _, row := range []struct{ why, at, script, say, end string }{
		{"the greeting", "- server 220", "S: 220 x|END", "< 220|END", "hook: refused,  220 closed, 0 commands, 0 messages, 0 recipients"},
		{"EHLO", "EHLO server 250", srvHello + "END", hello + "END", "hook: refused, EHLO 250 closed, 1 commands, 0 messages, 0 recipients"},
		{"RCPT, whose reply is held for others (RFC 2920 section 3.2)", "RCPT server 250 2.1.5 t1", srvRcpt + "END",
			hello + `. "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\n"|< 250|< 250|END`, "hook: refused, RCPT 250 closed, 3 commands, 0 messages, 1 recipients"},
		{"354, behind which no content comes to the server", "DATA server 354 t1", srvRcpt + "C: DATA|S: 354 go|BROKEN",
			toRcpt + "> DATA|< 354|> hi\r\n.|END", "hook: refused, DATA 354 closed, 4 commands, 0 messages, 1 recipients"},
		{"the reply to a message", "DATA server 250 2.0.0 3o t1", srvRcpt + "C: DATA|S: 354 go|C: .|S: 250 2.0.0 x|END",
			toRcpt + "> DATA|< 354|> .|< 250|END", "hook: refused, DATA 250 closed, 4 commands, 1 messages, 1 recipients"},
		{"the first of two LMTP statuses, behind the last of which it closes", "DATA server 250 2.1.5 #0 3o t2", srvLMTP + "C: DATA|S: 354 go|C: .|S: 250 2.1.5 x|S: 250 2.1.5 x|END",
			toLMTP + "> DATA|< 354|> .|< 250|< 250|END", "hook: refused, DATA 250 closed, 5 commands, 1 messages, 2 recipients"},
		{"the first of two LMTP statuses that were kept", "DATA server 250 2.1.5 #0 7o t2", srvLMTP + "C: DATA|S: 354 go|C: hi|S: 250 2.1.5 x|S: 250 2.1.5 x|C: .|END",
			toLMTP + "> DATA|< 354|> hi|WAIT 2s|> .|< 250|< 250|END", "hook: refused, DATA 250 closed, 5 commands, 1 messages, 2 recipients"},
		{"the first of two copies of the library's", "BDAT! library 552 5.3.4 #0 t2", "S: 220 x|C: LHLO x|S> \"250-x\\r\\n250 SIZE 3\\r\\n\"|C: MAIL FROM:<a@a>|S: 250 2.1.0 x|C: RCPT TO:<b@b>|S: 250 2.1.5 x|C: RCPT TO:<c@c>|S: 250 2.1.5 x|END",
			toLMTP + `. "BDAT 4 LAST\r\nhiho"|< 552|< 552|END`, "hook: refused, BDAT 552 closed, 4 commands, 0 messages, 2 recipients"},
		{"a line of an exchange", "AUTH server 334", srvHello + "C: AUTH PLAIN|S: 334 x|END", hello + "> AUTH PLAIN|< 334|END", "hook: refused, AUTH 334 closed, 1 commands, 0 messages, 0 recipients"},
		{"the library's refusal", "RCPT! library 503 5.5.1", srvHello + "END", hello + "> RCPT TO:<b@b>|< 503|END", "hook: refused, RCPT 503 closed, 1 commands, 0 messages, 0 recipients"},
		{"STARTTLS, behind which no handshake comes", "STARTTLS! library 220 2.0.0", srvHello + "END", hello + "> STARTTLS|< 220|END", "hook: refused, STARTTLS 220 closed, 1 commands, 0 messages, 0 recipients"},
	} {
		bubble(t, row.why, func(t *testing.T) {
			_, ends := playsWith(t, ofScript(row.script), &smtpproxy.Proxy{Hook: closesAt(row.at), TLSConfig: serverTLS(), AllowInsecureAuth: true}, row.say)
			if len(ends) != 1 || short(ends[0]) != row.end {
				t.Errorf("told: %v\nwant: %s", ends, row.end)
			}
		})
	}
}

// In LMTP a status of 421 is one of those due, and the next one follows.
func TestOnlyAChangeTo421Closes(t *testing.T) {
	for why, row := range map[string]struct {
		d    reply
		want string
		ends bool
	}{
		"another text":       {reply{Lines: []string{"full"}}, "421 4.2.2 full\r\n250 2.1.5 x\r\n", false},
		"the same code":      {reply{Code: 421}, "421 4.2.2 x\r\n250 2.1.5 x\r\n", false},
		"another code":       {reply{Code: 452}, "452 4.2.2 x\r\n250 2.1.5 x\r\n", false},
		"Disconnect besides": {reply{Lines: []string{"full"}, Disconnect: true}, "421 4.2.2 full\r\n250 2.1.5 x\r\n", true}, // behind the last status
	} {
		bubble(t, why, func(t *testing.T) {
			say := toLMTP + "> DATA|< 354|> .|< 4|< 250|FIN"
			if row.ends {
				say = toLMTP + "> DATA|< 354|> .|< 4|< 250|END"
			}
			var told []bool
			p := &smtpproxy.Proxy{Hook: repliesHook(func(x shownExchange) decision {
				if x.Reply.Code == 421 {
					return row.d
				}
				return nil
			})}
			p.Observers = []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x shownExchange) {
				if x.Recipient >= 0 {
					told = append(told, x.Reply.Disconnect)
				}
			}}}
			octets, _ := playsWith(t, ofScript(srvLMTP+"C: DATA|S: 354 go|C: .|S: 421 4.2.2 x|S: 250 2.1.5 x|END"), p, say)
			if want := []bool{false, row.ends}; !slices.Equal(told, want) {
				t.Errorf("an observer is told that the statuses close: %v, want %v", told, want)
			}
			if !strings.HasSuffix(octets, "354 go\r\n"+row.want) {
				t.Errorf("the client got %q, want %q", octets, row.want)
			}
		})
	}
}

func TestDisconnectEndsTheReadOfAServerThatReadsOnAnotherGoroutine(t *testing.T) {
	for why, d := range map[string]reply{"Disconnect": {Disconnect: true}, "a change to 421": {Code: 421, Enhanced: enhanced{4, 7, 0}}} {
		bubble(t, why, func(t *testing.T) {
			h := repliesHook(func(x shownExchange) decision {
				if x.Command.Verb() == "NOOP" {
					return d
				}
				return nil
			})
			var readers sync.WaitGroup
			c := runScript(t, overCable(), &smtpproxy.Proxy{Hook: h}, func(c net.Conn) {
				io.WriteString(c, "220 x\r\n")
				lines := make(chan string, 10)
				readers.Go(func() {
					for l := range readAhead(c) {
						lines <- l
					}
					close(lines)
				})
				<-lines
				synctest.Wait() // it waits for the next command
				if _, err := io.WriteString(c, "550 5.7.1 no\r\n"); err != nil {
					t.Errorf("the reply is the client's, but Write returns %v", err)
				}
				if line, ok := <-lines; ok {
					t.Errorf("the server got %q", line)
				}
			})
			c.SetDeadline(time.Time{})
			start := time.Now()
			c.expect("220")
			c.send("NOOP\r\n")
			c.reply()
			c.expectEnd()
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("the end came after %v", took)
			}
			c.Close()
			readers.Wait()
		})
	}
}

// A hook that calls runtime.Goexit ends the server's goroutine, and the connection with it. What
// has happened, the client learns all the same.
func TestAHookThatEndsItsGoroutineAtAReplyDoesNotLoseIt(t *testing.T) {
	exits := func(at string) smtpproxy.Hook {
		return smtpproxy.Named("quitter", repliesHook(func(x shownExchange) decision {
			if tell(x) == at {
				runtime.Goexit()
			}
			return nil
		}))
	}
	for _, row := range []struct{ why, at, script, say string }{
		{"of the server's", "DATA server 250 2.0.0 3o t1", srvRcpt + "C: DATA|S: 354 go|C: .|S: 250 2.0.0 x|NEVER", toRcpt + "> DATA|< 354|> .|< 250|< 421 4.3.0|END"},
		{"of the library's", "RCPT! library 503 5.5.1", srvHello + "END|NEVER", hello + "> RCPT TO:<b@b>|< 503|< 421 4.3.0|END"},
		{"the last one", "QUIT server 221 2.0.0 last", srvHello + "C: QUIT|S: 221 2.0.0 x|NEVER", hello + "> QUIT|< 221|END"},
	} {
		bubble(t, row.why, func(t *testing.T) {
			log := new(logbook)
			_, ends := playsWith(t, ofScript(row.script), &smtpproxy.Proxy{Hook: exits(row.at), Logger: log.logger()}, row.say)
			if entries := log.lines("hook failed"); len(entries) != 1 || entries[0].attrs["hook"] != "quitter" || entries[0].attrs["error"] != smtpproxy.ErrHookExit.Error() {
				t.Errorf("logged: %v", log.lines(""))
			}
			if len(ends) != 1 {
				t.Errorf("told of the end: %v", ends)
			}
		})
	}
}

func TestTheStateFollowsTheServerWhateverTheClientIsTold(t *testing.T) {
	say := func(s *proxytest.Session, line, want string) {
		t.Helper()
		if s.Send(line); s.Reply().String() != want {
			t.Errorf("%s: the client got %q, want %q", line, s.Reply().String(), want)
		}
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: repliesHook(func(x shownExchange) decision {
		if x.Reply.Code >= 400 {
			return reply{Code: 450 + 100*(1-(x.Reply.Code/100-4)), Lines: []string{"changed"}} // the other class
		}
		if x.Command.Verb() == "EHLO" {
			return nil
		}
		return reply{Lines: []string{"changed"}}
	})})
	s.Send("EHLO x")
	s.Answer("MAIL", 250, "2.1.0 x")
	s.Answer("RCPT", 550, "5.1.1 x")
	s.Answer("RCPT", 250, "2.1.5 x")
	say(s, "MAIL FROM:<a@a>", "250 2.1.0 changed")
	say(s, "RCPT TO:<b@b>", "450 4.1.1 changed")
	say(s, "RCPT TO:<c@c>", "250 2.1.5 changed")
	if txn := s.Transaction(); !txn.Active || txn.Sender != "a@a" || txn.Recipients.Len() != 1 || txn.Recipients.At(0).Recipient != "c@c" {
		t.Errorf("the transaction is %+v", txn)
	}
	s.Answer("RSET", 451, "4.3.0 x")
	say(s, "RSET", "550 5.3.0 changed")
	if !s.Transaction().Active {
		t.Error("a refused RSET has ended the transaction")
	}
	s.Answer("AUTH", 535, "5.7.8 x")
	say(s, "AUTH PLAIN AHVzZXIAcGFzcw==", "450 4.7.8 changed")
	if got := s.Connection().Auth; got.Mechanism != "" {
		t.Errorf("authenticated: %+v", got)
	}
}

func TestAnExchangeHasTheIDOfTheTransactionThatAHookWasShown(t *testing.T) {
	for why, resumed := range map[string]transaction{"from MAIL on": {}, "resumed, without an ID": {Active: true, Sender: "a@a"}} {
		ids := make(map[string]bool)
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: smtpproxy.Funcs{
			OnCommand: func(_ *hookContext, cmd command, _ connection, txn transaction) (decision, error) {
				if cmd.Verb() != "EHLO" {
					ids[txn.ID] = true
				}
				return nil, nil
			},
			OnReply: func(_ *hookContext, x shownExchange) (decision, error) {
				if x.Command.Verb() != "EHLO" {
					ids[x.Transaction.ID] = true
				}
				return nil, nil
			},
		}}, connection{}, resumed)
		if !resumed.Active {
			s.Send("EHLO x")
			s.Send("MAIL FROM:<a@a>")
		}
		s.Send("RSET")
		if len(ids) != 1 || s.Transaction().ID == "" || ids[s.Transaction().ID] {
			t.Errorf("%s: shown were %v; the next is %s", why, ids, s.Transaction().ID)
		}
	}
}
