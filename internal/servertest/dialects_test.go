package servertest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

func TestOnlyCRLFEndsALineForTheStrict(t *testing.T) {
	for name, mk := range map[string]func(...Option) *Server{"Strict": Strict, "RunAhead": RunAhead} {
		t.Run(name, func(t *testing.T) {
			s := mk()
			c := overTCP(t, s)
			c.expect("220")
			c.send("NOOP\nRSET\rQUIT\r\r\nVRFY\r\n")
			c.expect("250", "252")
			expectCommands(t, s, "NOOP\nRSET\rQUIT\r", "VRFY")
		})
	}
}

func TestALineFeedEndsALineForTheLenient(t *testing.T) {
	s := Lenient()
	c := overTCP(t, s)
	c.expect("220")
	c.send("NOOP\nRSET\rVRFY\r\r\n\nVRFY\r\n")
	c.expect("250", "250", "500", "252")
	expectCommands(t, s, "NOOP", "RSET\rVRFY", "", "VRFY")
}

// Where content ends is what tells the dialects apart. Each input goes on with
// "NOOP CRLF . CRLF" and so ends for every dialect.
func TestContentEndsWhereTheDialectSays(t *testing.T) {
	const tail = "NOOP\r\n.\r\n"
	tests := []struct {
		content         string
		strict, lenient bool // whether the content ends before the tail
		strictData      string
		lenientData     string
	}{
		{"a\r\n.\r\n", true, true, "a\r\n", "a\r\n"},
		{"a\n.\n", false, true, "a\n.\n", "a\n"},
		{"a\n.\r\n", false, true, "a\n.\r\n", "a\n"},
		{"a\r\n.\n", false, true, "a\r\n\n", "a\r\n"},
		{"a\r\r\n.\r\n", true, true, "a\r\r\n", "a\r\r\n"},
		{"a\n\r\n.\r\n", true, true, "a\n\r\n", "a\n\r\n"},
		{"a\r\n.\r\r\n", false, true, "a\r\n\r\r\n", "a\r\n"},
		{".\n", false, true, "\n", ""},
		{"a\r.\r\n", false, false, "a\r.\r\n", "a\r.\r\n"},
		{"a\r.\r", false, false, "a\r.\r", "a\r.\r"},
		{"a\r\n.\r", false, false, "a\r\n\r", "a\r\n\r"},
		{"a\n..\n", false, false, "a\n..\n", "a\n.\n"},
		{"a\r\n..\r\n", false, false, "a\r\n.\r\n", "a\r\n.\r\n"},
		{"a\r\n\x00.\r\n", false, false, "a\r\n\x00.\r\n", "a\r\n\x00.\r\n"},
		{"a\r\n.\x00\r\n", false, false, "a\r\n\x00\r\n", "a\r\n\x00\r\n"},
		{"a\r\n. \r\n", false, false, "a\r\n \r\n", "a\r\n \r\n"},
	}
	for name, mk := range handWrittenServers {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s %q", name, test.content), func(t *testing.T) {
				ends, data := test.strict, test.strictData
				if name == "Lenient" || name == "EarlyRefuser" {
					ends, data = test.lenient, test.lenientData
				}
				s := mk()
				c := overTCP(t, s)
				c.startMessage()
				c.send(test.content + tail)
				if ends {
					c.expect("250", "250", "500")
					expectCommands(t, s, append(envelope, "NOOP", ".")...)
				} else {
					c.expect("250")
					expectCommands(t, s, envelope...)
					data += "NOOP\r\n"
				}
				if got := s.Messages(); len(got) != 1 || string(got[0].Data) != data {
					t.Errorf("messages %q, want one with %q", got, data)
				}
			})
		}
	}
}

func TestTheEarlyRefuserExecutesWhatFollowsItsRefusal(t *testing.T) {
	s := EarlyRefuser(10)
	c := overPipe(t, s)
	c.startMessage()
	c.send("01234567\r\nin the buffer\r\nRSET\r\n")
	c.expect("552")
	c.send("NOOP\r\n.\r\nDATA\r\n")
	c.expect("250", "500", "503")
	expectCommands(t, s, append(envelope, "NOOP", ".", "DATA")...)
	expectMessages(t, s)
}

func TestTheEarlyRefuserDoesNotWaitForTheEndOfALine(t *testing.T) {
	s := EarlyRefuser(10)
	c := overPipe(t, s)
	c.startMessage()
	for range 11 {
		c.send("x")
	}
	c.expect("552")
}

func TestTheEarlyRefuserTakesAMessageOfItsLimit(t *testing.T) {
	for _, end := range []string{".\n", ".\r\n", ".\r\r\n"} {
		s := EarlyRefuser(10)
		c := overTCP(t, s)
		c.startMessage()
		c.send("..234567\r\n\n" + end)
		c.expect("250")
		expectMessages(t, s, message(".234567\r\n\n"))
	}
}

func TestARunAheadServerReadsWhileItsRepliesWait(t *testing.T) {
	s := RunAhead()
	c := overPipe(t, s)
	for range 20 {
		c.send("NOOP\r\n") // not even the greeting was taken yet
	}
	c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := io.WriteString(c, "x"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind DATA the server read on without a 354: %d, %v", n, err)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.expect("220")
	for range 20 {
		c.expect("250")
	}
	c.expect("250", "250", "354")
	c.send("x\r\n.\r\n")
	c.send("NOOP\r\n") // the reply to the message was not taken yet
	c.send("QUIT\r\n")
	c.expect("250", "250", "221")
	c.expectEnd()
	expectMessages(t, s, message("x\r\n"))
}

func TestARunAheadServerExecutesPipelinedInputInOrder(t *testing.T) {
	s := RunAhead()
	c := overTCP(t, s)
	c.send("EHLO x\r\nDATA\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nRSET\r\n..\r\n.\r\n" +
		"NOOP\r\nBDAT 4\r\nMAILMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nBDAT 1 LAST\r\nyQUIT\r\n")
	c.expect("220", "250", "503", "250", "250", "354", "250", "250", "503", "250", "250", "250", "221")
	c.expectEnd()
	expectCommands(t, s, "EHLO x", "DATA", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA",
		"NOOP", "BDAT 4", "MAIL FROM:<e@f>", "RCPT TO:<g@h>", "BDAT 1 LAST", "QUIT")
	expectMessages(t, s, message("RSET\r\n.\r\n"), Message{"e@f", []string{"g@h"}, []byte("y")})
}
