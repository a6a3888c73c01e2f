package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file holds the library against clients and servers that break the
// protocol.

func TestALineWithoutEndIsRefusedInBoundedMemory(t *testing.T) {
	forEachFront(t, func(t *testing.T, tr transport, front func(*smtpproxy.Proxy) fronted) {
		hook := &passLog{}
		front(&smtpproxy.Proxy{Hook: hook}).start(t, tr)
		piece := bytes.Repeat([]byte("NOOP "), 8<<10)
		for _, tt := range []struct {
			why    string
			before []string
			code   string
			refuse string
		}{
			{"a command", []string{"EHLO x"}, "250", "500 5.4.0 "},
			{"a line of a SASL exchange", []string{"EHLO x", "AUTH PLAIN"}, "334", "500 5.5.6 "},
		} {
			c := dialPeer(t, tr)
			c.send(strings.Join(tt.before, "\r\n") + "\r\n")
			for c.expect("220"); !strings.HasPrefix(c.reply(), tt.code); {
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			written := make(chan struct{})
			go func() {
				defer close(written)
				for n := 0; n < 10<<20; n += len(piece) {
					if _, err := c.Write(piece); err != nil {
						return
					}
				}
			}()
			c.expect(tt.refuse)
			c.expectEnd()
			<-written
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%s: %d octets allocated", tt.why, n)
			}
			if lines := hook.passed(); lines[len(lines)-1] != tt.before[len(tt.before)-1] {
				t.Errorf("%s: the hook saw %.100q", tt.why, lines)
			}
		}
	})
}

func TestCommandsWithControlCharactersAreRefusedUnseen(t *testing.T) {
	forEachFront(t, func(t *testing.T, tr transport, front func(*smtpproxy.Proxy) fronted) {
		hook := &passLog{}
		s := front(&smtpproxy.Proxy{Hook: hook})
		c := s.connect(t, tr)
		c.expect("220")
		c.ask("EHLO x", "250")
		for _, tt := range []struct{ why, line string }{
			{"NUL in the verb", "NO\x00OP"},
			{"NUL alone", "\x00"},
			{"CR between commands", "NOOP\rRSET"},
			{"CR before the CRLF", "NOOP\r"},
			{"CR in an address, which go-smtp would accept", "MAIL FROM:<a\r@a>"},
			{"NUL in an address, which go-smtp would accept", "MAIL FROM:<a\x00@a>"},
			{"DEL in an address", "MAIL FROM:<a\x7f@a>"},
			{"escape", "NOOP \x1b[2J"},
		} {
			c.send(tt.line + "\r\n")
			if got := c.reply(); !strings.HasPrefix(got, "500 5.5.2 ") {
				t.Errorf("%s: %q", tt.why, got)
			}
			c.ask("NOOP", "250")
		}
		if lines := hook.passed(); slices.ContainsFunc(lines, func(l string) bool { return l != "NOOP" && l != "EHLO x" }) {
			t.Errorf("the hook saw %q", lines)
		}
		for _, line := range s.Commands() {
			if line != "EHLO x" && line != "NOOP" {
				t.Errorf("the server executed %q", line)
			}
		}
	})
}

// TestASASLLineWithAControlCharacterEndsTheExchange is about a line that no
// server could tell from two.
func TestASASLLineWithAControlCharacterEndsTheExchange(t *testing.T) {
	forEachFront(t, func(t *testing.T, tr transport, front func(*smtpproxy.Proxy) fronted) {
		s := front(&smtpproxy.Proxy{})
		c := s.connect(t, tr)
		c.expect("220")
		c.ask("EHLO x", "250")
		for _, line := range []string{"AGEA\x00Yg==", "AGEAYg==\rNOOP", "\r"} {
			c.ask("AUTH PLAIN", "334")
			c.ask(line, "500 5.5.2 ")
			c.ask("NOOP", "250")
		}
		if sasl := s.Record().SASL; slices.ContainsFunc(sasl, func(l string) bool { return l != "*" }) {
			t.Errorf("the server got %q", sasl)
		}
	})
}

func TestTheServerGetsCRLFWhateverEndedTheLine(t *testing.T) {
	for _, size := range []int{1, 5, 6, 7, 4096} {
		read := make(chan string, 1)
		c := runScript(t, overTCP(t), &smtpproxy.Proxy{}, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			var all []byte
			b := make([]byte, size)
			for {
				n, err := c.Read(b)
				all = append(all, b[:n]...)
				if bytes.HasSuffix(all, []byte("\n")) && n > 0 {
					io.WriteString(c, "250 ok\r\n")
				}
				if err != nil {
					break
				}
			}
			read <- string(all)
		})
		c.send("NOOP\nNOOP 2\r\nNOOP 3\nNOOP 4")
		c.expect("220", "250", "250", "250")
		c.Close()
		if got, want := <-read, "NOOP\r\nNOOP 2\r\nNOOP 3\r\n"; got != want {
			t.Errorf("read %d at a time, the server got %q, want %q", size, got, want)
		}
	}
}

// TestTLSOfTheServersOwnIsNeverStarted is about go-smtp, to which each line
// that begins like STARTTLS, its letters folded beyond ASCII, is STARTTLS.
func TestTLSOfTheServersOwnIsNeverStarted(t *testing.T) {
	withTLS := servertest.Configure(func(s *smtp.Server) { s.TLSConfig = serverTLS() })
	hook := smtpproxy.HookFunc(func(_ *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
		if conn.TLS.Protocol != "" {
			t.Errorf("%v in TLS", cmd)
		}
		if line, ok := strings.CutPrefix(cmd.Line, "NOOP "); ok {
			return pass{Command: line}, nil
		}
		return nil, nil
	})
	bareServer := servertest.GoSMTP(withTLS)
	bareFront := fronted{bareServer, bareServer.Serve, bareServer.Close}
	c := bareFront.connect(t, overTCP(t))
	c.expect("220")
	c.send("EHLO x\r\n")
	if got := c.reply(); !strings.Contains(got, "STARTTLS") {
		t.Fatalf("go-smtp offers no TLS: %q", got)
	}

	c = behindListener(&smtpproxy.Proxy{Hook: hook}, servertest.GoSMTP(withTLS)).connect(t, overTCP(t))
	c.expect("220")
	c.send("EHLO x\r\n")
	if got := c.reply(); strings.Contains(got, "STARTTLS") || !strings.Contains(got, "PIPELINING") {
		t.Errorf("the client is offered %q", got)
	}
	for _, tt := range []struct{ line, reply string }{
		{"STARTTLS", "502 5.5.1 "},
		{"starttls", "502 5.5.1 "},
		{"NOOP STARTTLS", "502 5.5.1 "}, // the hook's rewrite
		{"STARTTLS x", "501 5.5.4 "},
		{"STARTTLS ", "502 5.5.1 "},
		{"STARTTLS\tx", "501 5.5.4 "},
		{"STARTTLSFOO", "500 5.5.2 "},
		{"STARTTLS\u00a0", "500 5.5.2 "},
		{"\u017ftarttls", "500 5.5.2 "}, // folds to STARTTLS
		{"STARTTL\u017f", "500 5.5.2 "},
		{"NOOP \u017ftarttls", "421 4.3.0 "}, // not a valid rewrite: it has no verb
	} {
		c.send(tt.line + "\r\n")
		if got := c.reply(); !strings.HasPrefix(got, tt.reply) {
			t.Errorf("%q: %q, want %s", tt.line, got, tt.reply)
		}
	}
	c.expectEnd()
}

// lost is what a client gets when its commands and the server's replies can't
// be matched any more.
const lost = "421 4.3.0 Service not available, closing transmission channel\r\n"

// answerNOOP is a server that greets, writes what it is told to in reply to the
// first line, and then answers properly. A stubborn one writes on when a Write
// has failed. It returns the lines it got.
func answerNOOP(t *testing.T, stubborn bool, greeting string, write ...string) (*peer, <-chan []string) {
	lines := make(chan []string, 1)
	return runScript(t, overTCP(t), &smtpproxy.Proxy{}, func(c net.Conn) {
		var got []string
		defer func() { lines <- got }()
		io.WriteString(c, greeting)
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			got = append(got, strings.TrimSpace(line))
			if len(got) > 1 {
				fmt.Fprintf(c, "250 %s\r\n", strings.TrimSpace(line))
				continue
			}
			for _, s := range write {
				if _, err := io.WriteString(c, s); err != nil && !stubborn {
					break
				}
			}
		}
	}), lines
}

func TestNoReplyOfAFaultyServerIsTakenForThatToAnotherCommand(t *testing.T) {
	endless := slices.Repeat([]string{"250-" + strings.Repeat("x", 1000) + "\r\n"}, 1000)
	for _, tt := range []struct {
		why   string
		write []string
		got   string
		lines int
	}{
		{"a proper reply in pieces", []string{"25", "0-a\r", "\n250", " b\r\n"}, "250-a\r\n250 b\r\n250 NOOP 2\r\n", 2},
		{"two digits", []string{"25\r\n"}, lost, 1},
		{"no code", []string{"hello\r\n"}, lost, 1},
		{"an empty line", []string{"\r\n"}, lost, 1},
		{"a preliminary reply, which SMTP hasn't", []string{"150 wait\r\n"}, lost, 1},
		{"another code in the next line", []string{"250-a\r\n251 b\r\n"}, lost, 1},
		{"another code, in two writes", []string{"250-a\r\n", "251 b\r\n"}, lost, 1},
		{"a CR within the text", []string{"250 x\ry\r\n"}, lost, 1},
		{"a NUL within the text", []string{"250 x\x00y\r\n"}, lost, 1},
		{"a reply without end", endless, lost, 1},
		{"a line without end", slices.Repeat([]string{strings.Repeat("2", 1000)}, 1000), lost, 1},
		{"a second greeting", []string{"220 x\r\n"}, lost, 1},
		{"two replies", []string{"250 a\r\n250 b\r\n"}, "250 a\r\n" + lost, 1},
		{"two replies, in two writes", []string{"250 a\r\n", "250 b\r\n"}, "250 a\r\n" + lost, 1},
		{"two replies, the second negative", []string{"500 a\r\n", "500 b\r\n"}, "500 a\r\n500 b\r\n", 1},
		{"three replies", []string{"250 a\r\n250 b\r\n", "250 c\r\n"}, "250 a\r\n" + lost, 1},
		{"a request for content", []string{"354 go on\r\n"}, lost, 1},
		{"a challenge", []string{"334 go on\r\n"}, lost, 1},
		{"a reply, and nonsense", []string{"250 a\r\nx\r\n"}, "250 a\r\n" + lost, 1},
		{"it closes", []string{"421 bye\r\n"}, "421 bye\r\n", 1},
	} {
		c, lines := answerNOOP(t, false, "220 x\r\n", tt.write...)
		c.send("NOOP 1\r\nNOOP 2\r\n")
		if tt.lines == 2 {
			c.send("QUIT\r\n")
		}
		c.expect("220")
		var got strings.Builder
		for line, err := c.r.ReadString('\n'); err == nil && line != "250 QUIT\r\n"; line, err = c.r.ReadString('\n') {
			got.WriteString(line)
		}
		c.Close()
		if seen := <-lines; got.String() != tt.got || len(slices.DeleteFunc(seen, func(l string) bool { return l == "QUIT" })) != tt.lines {
			t.Errorf("%s: the client got %.200q, the server %q", tt.why, got.String(), seen)
		}
	}

	c, _ := answerNOOP(t, false, "hello\r\n")
	c.send("NOOP\r\n")
	c.expect(strings.TrimSuffix(lost, "\r\n"))
	c.expectEnd()
}

func TestAServerThatGoesOnWithNonsenseGivesOneReply(t *testing.T) {
	for _, nonsense := range []string{"25\r\n", "250-a\r\n251 b\r\n", "250-" + strings.Repeat("x", 70_000)} {
		c, lines := answerNOOP(t, true, "220 x\r\n", nonsense, nonsense, "250 ok\r\n")
		c.send("NOOP 1\r\nNOOP 2\r\n")
		c.expect("220")
		got, _ := io.ReadAll(c.r)
		c.Close()
		if seen := <-lines; string(got) != lost || len(seen) != 1 {
			t.Errorf("%.20q: the client got %q, the server %q", nonsense, got, seen)
		}
	}
}

func TestCommandsSentBeforeTheGreetingWaitForIt(t *testing.T) {
	for name, listen := range transports {
		t.Run(name, func(t *testing.T) {
			greet := make(chan struct{})
			ahead := make(chan (<-chan string), 1)
			hook := &passLog{}
			c := runScript(t, listen(t), &smtpproxy.Proxy{Hook: hook}, func(c net.Conn) {
				lines := readAhead(c) // although it hasn't greeted
				ahead <- lines
				<-greet
				io.WriteString(c, "220 x\r\n")
				for line := range lines {
					fmt.Fprintf(c, "250 %s", line)
				}
			})
			c.send("EHLO x\r\nNOOP\r\n")
			<-c.sent
			select {
			case line := <-<-ahead:
				t.Errorf("the server read %q before its greeting", line)
			case <-time.After(20 * time.Millisecond):
			}
			if lines := hook.passed(); len(lines) > 0 {
				t.Errorf("the hook saw %q before the greeting", lines)
			}
			close(greet)
			c.expect("220 x", "250 EHLO x", "250 NOOP")
			c.Close()
		})
	}
}

// TestWhatFollowsAnEarlyRefusalByAllRecipientsIsNeverTakenForCommands is about
// LMTP servers that refuse a message in the middle of it. go-smtp reads on.
func TestWhatFollowsAnEarlyRefusalByAllRecipientsIsNeverTakenForCommands(t *testing.T) {
	const message = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n0123456789"
	replies := []string{"220", "250", "250", "250", "250", "354", "550", "550"}
	for _, tt := range []struct{ why, rest string }{
		{"the end", "\r\n.\r\nNOOP\r\n"},
		{"text like commands", "\r\n" + smuggled + "NOOP\r\n"},
		{"an end to some servers, but not to one that reads on", "\n.\nMAIL FROM:<evil@e>\r\n..\r\n.\r\nNOOP\r\n"},
	} {
		s := behindListener(&smtpproxy.Proxy{}, servertest.GoSMTPLMTP(true, servertest.Refuse("c@d", "e@f")))
		c := s.connect(t, overTCP(t))
		c.send(message)
		c.expect(replies...)
		c.send(tt.rest)
		c.expect("250")
		c.ask("QUIT", "221")
		c.expectEnd()
		s.close()
		if rec := s.Record(); len(rec.Messages) > 0 || rec.Ended != 1 || slices.Contains(rec.Commands, "MAIL evil@e") {
			t.Errorf("%s: %+q", tt.why, rec)
		}
	}

	// This one takes the next that it reads for a command.
	got := make(chan string, 1)
	c := runScript(t, overTCP(t), &smtpproxy.Proxy{}, func(c net.Conn) {
		b := make([]byte, 100)
		for _, reply := range replies[:5] {
			io.WriteString(c, reply+" x\r\n")
			c.Read(b)
		}
		io.WriteString(c, "354 x\r\n")
		c.Read(b[:10])
		io.WriteString(c, "550 x\r\n550 x\r\n")
		rest, _ := io.ReadAll(c)
		got <- string(rest)
	})
	c.send(message + "\r\n" + smuggled + "NOOP\r\n")
	c.expect(replies...)
	c.expectEnd()
	c.Close()
	if rest := <-got; rest != "" {
		t.Errorf("behind its replies the server got %q", rest)
	}
}

func TestWhatFollowsAnEarlyRefusalIsNeverTakenForCommands(t *testing.T) {
	for _, octets := range []int{0, 5, 20} {
		s := behindListener(&smtpproxy.Proxy{}, servertest.EarlyRefuser(octets))
		c := s.connect(t, overTCP(t))
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + strings.Repeat("more than the server reads at once\r\n", 200) + smuggled + "NOOP\r\n")
		c.expect("220", "250", "250", "354", "552")
		c.expectEnd()
		c.Close()
		s.close()
		if rec := s.Record(); len(rec.Messages) > 0 || len(rec.Commands) != 3 {
			t.Errorf("%d octets: %+q", octets, rec)
		}
	}
}

// smuggled are commands within a chunk. Its end would end a message too.
const smuggled = "RSET\r\nMAIL FROM:<evil@e>\r\nRCPT TO:<v@v>\r\nDATA\r\nhi\r\n.\r\n"

// refusing is a go-smtp backend that refuses each message unread.
type refusing struct{ smtp.Session }

func (refusing) Mail(string, *smtp.MailOptions) error { return nil }
func (refusing) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (refusing) Data(io.Reader) error                 { return &smtp.SMTPError{Code: 554, Message: "no"} }
func (refusing) Reset()                               {}
func (refusing) Logout() error                        { return nil }

// TestTheChunkOfARefusedBDATIsNeverTakenForCommands is about go-smtp most of
// all, which executes what is in such chunks.
func TestTheChunkOfARefusedBDATIsNeverTakenForCommands(t *testing.T) {
	refuse := decide(func(cmd command) (decision, error) {
		switch cmd.Line {
		case "BDAT 6":
			return reply{Code: 450}, nil
		case "BDAT 7":
			return reply{}, nil
		case "BDAT 8":
			return nil, io.ErrUnexpectedEOF
		case "BDAT 9 LAST":
			return pass{Command: "NOOP"}, nil
		}
		return nil, nil
	})
	goSMTP := func(f func(*smtp.Server)) func(*smtpproxy.Proxy) fronted {
		return func(p *smtpproxy.Proxy) fronted { return behindGoSMTP(p, servertest.Configure(f)) }
	}
	fails := goSMTP(func(s *smtp.Server) {
		s.Backend = smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return refusing{}, nil })
	})
	atMost := func(n int) func(*smtpproxy.Proxy) fronted {
		return goSMTP(func(s *smtp.Server) { s.MaxMessageBytes = int64(n) })
	}
	const sender, mail = "MAIL FROM:<a@b>\r\n", "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
	last := fmt.Sprintf("BDAT %d LAST\r\n%s", len(smuggled), smuggled)
	for _, tt := range []struct {
		why     string
		front   func(*smtpproxy.Proxy) fronted // nil: each of fronts
		send    string                         // behind EHLO, and before NOOP
		replies []string
		ends    bool // instead of a reply to NOOP
	}{
		{"no transaction", nil, last, []string{"502 5.5.1 "}, false},
		{"no recipient", nil, sender + last, []string{"250", "502 5.5.1 "}, false},
		{"no accepted recipient", nil, sender + "RCPT TO:<nobody@d>\r\n" + last, []string{"250", "550", "502 5.5.1 "}, false},
		{"behind a failed chunk", fails, mail + "BDAT 3\r\nabc" + last, []string{"250", "250", "554", "502 5.5.1 "}, false},
		{"behind a failed chunk, and DATA", fails, mail + "BDAT 3\r\nabcDATA\r\n" + last, []string{"250", "250", "554", "503 5.5.1 ", "502 5.5.1 "}, false},
		{"behind a failed chunk, RSET recovers", fails, mail + "BDAT 3\r\nabcRSET\r\n" + mail + "BDAT 3\r\nabc", []string{"250", "250", "554", "250", "250", "250", "554"}, false},
		{"beyond the size", atMost(3), mail + last, []string{"250", "250", "552 5.3.4 "}, false},
		{"beyond the size, in two chunks", atMost(len(smuggled) + 2), mail + "BDAT 3\r\nabc" + last, []string{"250", "250", "250", "552 5.3.4 "}, false},
		{"by the hook", nil, mail + "BDAT 6\r\nQUIT\r\n", []string{"250", "250", "450 4.0.0 "}, false},
		{"taken by the hook, the rest refused", nil, mail + "BDAT 7\r\n\nQUIT\r\n" + last, []string{"250", "250", "250 2.0.0 OK", "502 5.5.1 "}, false},
		{"the hook fails", nil, mail + "BDAT 8\r\n\nQUIT\r\n\n", []string{"250", "250", "421 4.3.0 "}, true},
		{"the hook rewrites it", nil, mail + "BDAT 9 LAST\r\n\nQUIT\r\n\n\n", []string{"250", "250", "421 4.3.0 "}, true},
		{"no size", nil, mail + "BDAT\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"a sign", nil, mail + "BDAT +3\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"a negative size", nil, mail + "BDAT -1\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"not decimal", nil, mail + "BDAT 0x3\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"two spaces", nil, mail + "BDAT  3\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"a tab", nil, mail + "BDAT\t3\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"not LAST", nil, mail + "BDAT 3 la\u017ft\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"more than LAST", nil, mail + "BDAT 3 LAST x\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
		{"beyond 64 bits", nil, mail + "BDAT 18446744073709551616\r\n" + smuggled, []string{"250", "250", "501 5.5.4 "}, true},
	} {
		tested := fronts
		if tt.front != nil {
			tested = map[string]func(*smtpproxy.Proxy) fronted{"go-smtp": tt.front}
		}
		for name, front := range tested {
			for _, cut := range []int{len(tt.send), strings.Index(tt.send, "BDAT") + 4, max(0, len(tt.send)-9), 1} {
				s := front(&smtpproxy.Proxy{Hook: refuse})
				c := s.connect(t, overTCP(t))
				c.send("EHLO x\r\n")
				c.expect("220", "250")
				for piece := range slices.Chunk([]byte(tt.send), max(1, cut)) {
					c.send(string(piece))
				}
				c.send("NOOP\r\n")
				var got []string
				for range tt.replies {
					got = append(got, c.reply())
				}
				if !slices.EqualFunc(got, tt.replies, strings.HasPrefix) {
					t.Errorf("%s, %s: got %q, want %q", tt.why, name, got, tt.replies)
				}
				if !tt.ends {
					c.expect("250")
					c.send("QUIT\r\n")
					c.expect("221")
				}
				c.expectEnd()
				s.close()
				rec := s.Record()
				executed := strings.Join(rec.Commands, "\n")
				if len(rec.Messages) > 0 || strings.Contains(executed, "evil") || strings.Contains(executed, "BDAT") {
					t.Errorf("%s, %s: %+q", tt.why, name, rec)
				}
			}
		}
	}
}

// TestABDATThatNoServerParsesIsReadToItsEnd is about a size that a server may
// not hold, with a chunk that never comes.
func TestABDATThatNoServerParsesIsReadToItsEnd(t *testing.T) {
	for name, front := range fronts {
		hook := &passLog{}
		s := front(&smtpproxy.Proxy{Hook: hook})
		c := s.connect(t, overTCP(t))
		c.send("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 4294967296 LAST\r\n" + strings.Repeat(smuggled, 1000))
		c.expect("220", "250", "250", "250")
		<-c.sent
		c.Conn.(*net.TCPConn).CloseWrite()
		c.expectEnd()
		s.close()
		if rec := s.Record(); len(rec.Messages) > 0 || len(hook.passed()) != 4 {
			t.Errorf("%s: the hook saw %.200q, the server %.200q", name, hook.passed(), rec.Commands)
		}
	}
}

func TestAReplyBeforeTheChunkIsReadEndsTheConnection(t *testing.T) {
	for _, read := range []int{0, 3} {
		rest := make(chan string, 1)
		c := runScript(t, overTCP(t), &smtpproxy.Proxy{}, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			b := make([]byte, 100)
			for range 2 {
				c.Read(b)
				io.WriteString(c, "250 ok\r\n")
			}
			c.Read(b)
			io.ReadFull(c, b[:read])
			io.WriteString(c, "550 no\r\n")
			more, _ := io.ReadAll(c)
			rest <- string(more)
		})
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
		c.expect("220", "250", "250", "550 no")
		c.expectEnd()
		c.Close()
		if got := <-rest; got != "" {
			t.Errorf("behind its reply the server got %q", got)
		}
	}
}

// go-smtp in LMTP mode answers a chunk once, whatever the recipients, if its
// backend fails before it has read it. The client counts on one for each.
func TestAnLMTPServerThatAnswersAChunkOnceForAllGoesOn(t *testing.T) {
	s := behindListener(&smtpproxy.Proxy{}, servertest.GoSMTPLMTP(false, servertest.Configure(func(s *smtp.Server) {
		s.Backend = smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return refusing{}, nil })
	})))
	c := s.connect(t, overTCP(t))
	c.send("LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nBDAT 5 LAST\r\nabcdeNOOP\r\nQUIT\r\n")
	c.expect("220", "250", "250", "250", "250", "554", "554", "250", "221")
	c.expectEnd()
	s.close()
}
