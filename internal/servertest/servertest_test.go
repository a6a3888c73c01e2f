package servertest

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handWrittenServers are the servers that speak the common commands.
var handWrittenServers = map[string]func(...Option) *Server{
	"Strict":       Strict,
	"Lenient":      Lenient,
	"EarlyRefuser": func(opts ...Option) *Server { return EarlyRefuser(1000, opts...) },
	"RunAhead":     RunAhead,
}

func forEach(t *testing.T, f func(t *testing.T, make func(...Option) *Server)) {
	for name, mk := range handWrittenServers {
		t.Run(name, func(t *testing.T) { f(t, mk) })
	}
}

func TestEachCommandIsRecordedAndGetsOneReply(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk()
		c := overTCP(t, s)
		c.expect("220")
		script := []struct{ line, code string }{
			{"helo X", "250"},
			{"EHLO client.example", "250"},
			{"DATA", "503"},
			{"RCPT TO:<c@d>", "503"},
			{"MAIL a@b", "501"},
			{"Mail From:<A@b> SIZE=5", "250"},
			{"MAIL FROM:<again@b>", "503"},
			{"DATA", "503"},
			{"RCPT TO:<>", "501"},
			{"RCPT TO:<nobody@d>", "550"},
			{"rcpt to: <c@D>", "250"},
			{"VRFY c", "252"},
			{"RSET", "250"},
			{"DATA", "503"},
			{"", "500"},
			{"  noop  ", "250"},
			{"XYZZY \x00\xff", "500"},
			{"AUTH", "504"},
			{"AUTH LOGIN", "504"},
			{"QUIT", "221"},
		}
		var want []string
		for _, step := range script {
			c.send(step.line + "\r\n")
			c.expect(step.code)
			want = append(want, step.line)
		}
		c.expectEnd()
		expectCommands(t, s, want...)
		expectMessages(t, s)
	})
}

func TestEHLOIsAnsweredWithTheKeywords(t *testing.T) {
	const want = "250-servertest.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n" +
		"250-SIZE 1000000\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN\r\n"
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		c := overPipe(t, mk())
		c.expect("220")
		c.send("EHLO x\r\n")
		buf := make([]byte, 1000)
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("one Write gave %q, %v; want %q", buf[:n], err, want)
		}

		c = overPipe(t, mk(LineByLine()))
		c.expect("220")
		c.send("EHLO x\r\n")
		for line := range strings.SplitAfterSeq(strings.TrimSuffix(want, "\r\n"), "\r\n") {
			line = strings.TrimSuffix(line, "\r\n") + "\r\n"
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != line {
				t.Errorf("a Write gave %q, %v; want %q", buf[:n], err, line)
			}
		}
	})
}

func TestAMessageIsTakenWithItsEnvelope(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk()
		c := overTCP(t, s)
		c.expect("220")
		c.send("MAIL FROM:<>\r\nRCPT TO:<C@d>\r\nRCPT TO:<none@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n")
		c.expect("250", "250", "550", "250", "354")
		c.send("..a\r\n.b\r\n\r\n \x00\xff\r\n.\r\n")
		c.expect("250")
		c.send("DATA\r\n")
		c.expect("503")
		expectMessages(t, s, Message{"", []string{"C@d", "e@f"}, []byte(".a\r\nb\r\n\r\n \x00\xff\r\n")})
	})
}

func TestAnEmptyMessageEndsAtItsFirstLine(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk()
		c := overTCP(t, s)
		c.startMessage()
		c.send(".\r\nNOOP\r\n")
		c.expect("250", "250")
		expectCommands(t, s, append(envelope, "NOOP")...)
		expectMessages(t, s, Message{"a@b", []string{"c@d"}, nil})
	})
}

func TestChunksMakeAMessage(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk()
		c := overTCP(t, s)
		c.expect("220")
		c.send("BDAT 6\r\nQUIT\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
		c.expect("503", "250", "250")
		c.send("BDAT 7\r\n.\r\nNOOPRCPT TO:<e@f>\r\nDATA\r\nBDAT 0\r\nbdat 3 last\r\n\n.\nNOOP\r\n")
		c.expect("250", "503", "503", "250", "250", "250")
		expectCommands(t, s, "BDAT 6", "MAIL FROM:<a@b>", "RCPT TO:<c@d>",
			"BDAT 7", "RCPT TO:<e@f>", "DATA", "BDAT 0", "bdat 3 last", "NOOP")
		expectMessages(t, s, message(".\r\nNOOP\n.\n"))
	})
}

func TestChunksBeyondTheSizeAreReadAndRefused(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk()
		c := overTCP(t, s)
		c.expect("220")
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 1\r\nxBDAT 1000000\r\n" +
			strings.Repeat("NOOP\r\n  ", 125_000) + "BDAT 6 LAST\r\nNOOP\r\nQUIT\r\n")
		c.expect("250", "250", "250", "552", "503", "221")
		expectCommands(t, s, "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "BDAT 1", "BDAT 1000000", "BDAT 6 LAST", "QUIT")
		expectMessages(t, s)
	})
}

func TestAChunkOfUnknownLengthEndsTheSession(t *testing.T) {
	for _, line := range []string{"BDAT", "BDAT x", "BDAT +3", "BDAT -1", "BDAT  3", "BDAT 3 LAST x",
		"BDAT 3 la\u017ft", "BDAT 99999999999999999999"} {
		forEach(t, func(t *testing.T, mk func(...Option) *Server) {
			s := mk()
			c := overTCP(t, s)
			c.expect("220")
			c.send(line + "\r\n")
			c.expect("501")
			c.expectEnd()
			expectCommands(t, s, line)
		})
	}
}

func TestMoreThanFiftyUnknownCommandsEndTheSession(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		c := overTCP(t, mk())
		c.expect("220")
		for range maxUnknown {
			c.send("X\r\n")
			c.expect("500")
		}
		c.send("X\r\n")
		c.expect("421")
		c.expectEnd()
	})
}

func TestAuthenticationTakesAnInitialResponseOrALine(t *testing.T) {
	good, bad := plain(secret), plain("\x00user\x00word")
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk()
		c := overTCP(t, s)
		c.expect("220")
		c.send("AUTH PLAIN " + bad + "\r\nAUTH PLAIN ?\r\nauth plain\r\nDATA\r\nAUTH PLAIN\r\nBDAT 4\r\n")
		c.expect("535", "501", "334", "535", "334", "501")
		c.send("AUTH PLAIN\r\n*\r\nAUTH PLAIN\r\n" + good + "\r\nAUTH PLAIN " + good + "\r\n")
		c.expect("334", "501", "334", "235", "503")
		expectCommands(t, s, "AUTH PLAIN "+bad, "AUTH PLAIN ?", "auth plain", "AUTH PLAIN",
			"AUTH PLAIN", "AUTH PLAIN", "AUTH PLAIN "+good)
		if got, want := s.Record().SASL, []string{"DATA", "BDAT 4", "*", good}; !slices.Equal(got, want) {
			t.Errorf("SASL lines %q, want %q", got, want)
		}

		s = mk()
		c = overTCP(t, s)
		c.expect("220")
		c.send("AUTH PLAIN " + good + "\r\n")
		c.expect("235")
	})
}

func TestAMessageThatIsCutShortIsNotTaken(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		for _, end := range []string{"DATA\r\nx\r\n", "DATA\r\nx\r\n.", "BDAT 9 LAST\r\nx"} {
			s := mk()
			c := overPipe(t, s)
			c.expect("220")
			go io.Copy(io.Discard, c)
			c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + end)
			c.Close()
			waitForEnd(t, s)
			expectMessages(t, s)
		}
	})
}

func TestAMessageBeyondTheSizeIsReadAndRefused(t *testing.T) {
	for _, s := range []*Server{Strict(), Lenient(), RunAhead()} {
		c := overTCP(t, s)
		c.startMessage()
		c.send(strings.Repeat("NOOP\r\n", maxSize/6+1) + ".\r\nNOOP\r\n")
		c.expect("552", "250")
		expectCommands(t, s, append(envelope, "NOOP")...)
		expectMessages(t, s)
	}
}

func TestSessionsAreCounted(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk()
		c := overTCP(t, s)
		c.expect("220")
		if r := s.Record(); r.Sessions != 1 || r.Ended != 0 {
			t.Errorf("%d sessions, %d ended; want 1, 0", r.Sessions, r.Ended)
		}
		s.Close()
		if r := s.Record(); r.Sessions != 1 || r.Ended != 1 {
			t.Errorf("%d sessions, %d ended; want 1, 1", r.Sessions, r.Ended)
		}
	})
}

func TestARecordIsACopy(t *testing.T) {
	s := Strict()
	c := overTCP(t, s)
	c.startMessage()
	c.send("x\r\n.\r\n")
	c.expect("250")
	r := s.Record()
	r.Commands[0], r.Messages[0].To[0], r.Messages[0].Data[0] = "", "", 0
	expectCommands(t, s, envelope...)
	expectMessages(t, s, message("x\r\n"))
}

func TestCloseEndsAServerInEachState(t *testing.T) {
	states := map[string]string{
		"idle":       "",
		"content":    "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx",
		"chunk":      "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 9\r\nx",
		"SASL":       "AUTH PLAIN\r\n",
		"unanswered": strings.Repeat("EHLO x\r\n", 200),
	}
	for state, input := range states {
		t.Run(state, func(t *testing.T) {
			forEach(t, func(t *testing.T, mk func(...Option) *Server) {
				s := mk()
				c := overPipe(t, s)
				c.expect("220")
				go io.WriteString(c, input)
				if state != "unanswered" {
					go io.Copy(io.Discard, c)
				}
				time.Sleep(time.Millisecond) // for the server to get there, mostly; Close must end it anywhere
				start := time.Now()
				s.Close()
				if d := time.Since(start); d > time.Second {
					t.Errorf("Close took %v", d)
				}
			})
		})
	}
}

func TestServeAfterCloseReturnsAtOnce(t *testing.T) {
	for _, s := range []*Server{Strict(), RunAhead(), GoSMTP()} {
		s.Close()
		l := &pipeListener{done: make(chan struct{})}
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
		<-l.done
	}
}

func TestServeReturnsTheListenersError(t *testing.T) {
	for _, s := range []*Server{Strict(), RunAhead(), GoSMTP()} {
		l := &pipeListener{done: make(chan struct{})}
		l.Close()
		if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want %v", err, net.ErrClosed)
		}
		s.Close()
	}
}
