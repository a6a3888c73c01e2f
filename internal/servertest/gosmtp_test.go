package servertest

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

func TestGoSMTPRecordsTheCallsOfItsBackend(t *testing.T) {
	s := GoSMTP()
	c := overTCP(t, s)
	c.expect("220")
	c.send("EHLO x\r\nAUTH LOGIN\r\nAUTH PLAIN " + plain("\x00user\x00word") + "\r\nAUTH PLAIN\r\n" + plain(secret) + "\r\n")
	c.expect("250", "504", "535", "334", "235")
	c.send("MAIL FROM:<a@b>\r\nRCPT TO:<nobody@d>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
	c.expect("250", "550", "250", "354")
	c.send("..x\n.\n\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 1\r\n.BDAT 2 LAST\r\n\r\nRSET\r\nQUIT\r\n")
	c.expect("250", "250", "250", "250", "250", "250", "221")
	c.expectEnd()
	expectCommands(t, s, "AUTH user", "AUTH user",
		"MAIL a@b", "RCPT nobody@d", "RCPT c@d", "DATA", "RSET",
		"MAIL a@b", "RCPT c@d", "DATA", "RSET", "RSET", "LOGOUT")
	expectMessages(t, s, message(".x\n.\n\r\n"), message(".\r\n"))
	if r := s.Record(); r.Sessions != 1 || r.Ended != 1 {
		t.Errorf("%d sessions, %d ended; want 1, 1", r.Sessions, r.Ended)
	}
}

func TestGoSMTPTakesNoContentThatIsCutShort(t *testing.T) {
	s := GoSMTP()
	c := overTCP(t, s)
	c.expect("220")
	c.send("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n")
	c.expect("250", "250", "250", "354")
	c.Close()
	waitForEnd(t, s)
	expectMessages(t, s)
}

func TestGoSMTPCanBeConfigured(t *testing.T) {
	c := overTCP(t, GoSMTP(Configure(func(srv *smtp.Server) { srv.MaxMessageBytes = 5 })))
	c.expect("220")
	c.send("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
	c.expect("250", "250", "250", "354")
	c.send("123456\r\n.\r\nNOOP\r\n")
	c.expect("552", "250")
}

// lmtp brings a client to the point where content is due for three recipients.
func lmtp(t *testing.T, s *Server) *client {
	t.Helper()
	c := overTCP(t, s)
	c.expect("220")
	c.send("LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
	c.expect("250", "250", "250", "250", "250", "354")
	return c
}

func TestAnEarlyLMTPServerAnswersForItsFirstRecipientInTheMidstOfContent(t *testing.T) {
	s := GoSMTPLMTP(true)
	c := lmtp(t, s)
	c.send("0123456789")
	c.expect("250")
	expectMessages(t, s)
	c.send("\r\n.\r\nNOOP\r\n")
	c.expect("250", "250", "250")
	expectMessages(t, s, Message{"a@b", []string{"c@d", "e@f", "c@d"}, []byte("0123456789\r\n")})
}

func TestAnEarlyLMTPServerTakesAShortMessage(t *testing.T) {
	s := GoSMTPLMTP(true)
	c := lmtp(t, s)
	c.send("x\r\n.\r\nNOOP\r\n")
	c.expect("250", "250", "250", "250")
	expectMessages(t, s, Message{"a@b", []string{"c@d", "e@f", "c@d"}, []byte("x\r\n")})
}

func TestAnEarlyLMTPServerRefusesTheChosenRecipientsInTheMidstOfContent(t *testing.T) {
	s := GoSMTPLMTP(true, Refuse("e@f"))
	c := lmtp(t, s)
	c.send("0123456789")
	c.expect("250", "550")
	c.send("\r\n.\r\nNOOP\r\n")
	c.expect("250", "250")
	expectMessages(t, s, Message{"a@b", []string{"c@d", "c@d"}, []byte("0123456789\r\n")})

	s = GoSMTPLMTP(true, Refuse("c@d", "e@f"))
	c = lmtp(t, s)
	c.send("0123456789")
	c.expect("550", "550", "550")
	c.send("\r\n.\r\nNOOP\r\n")
	c.expect("250")
	expectMessages(t, s)
}

func TestALateLMTPServerAnswersAtTheEndOfContent(t *testing.T) {
	for _, test := range []struct {
		opts  []Option
		to    []string
		codes []string
	}{
		{nil, []string{"c@d", "e@f", "c@d"}, []string{"250", "250", "250"}},
		{[]Option{Refuse("c@d")}, []string{"e@f"}, []string{"550", "250", "550"}},
	} {
		s := GoSMTPLMTP(false, test.opts...)
		c := lmtp(t, s)
		c.send("0123456789")
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an answer before the end of content, or %v", err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.send("\r\n.\r\n")
		c.expect(test.codes...)
		expectMessages(t, s, Message{"a@b", test.to, []byte("0123456789\r\n")})
	}
}
