package servertest

import (
	"strings"
	"testing"
)

// The recipients that lmtp has the server accept.
var three = []string{"c@d", "e@f", "c@d"}

// messageTo returns the message that these recipients got, none without any.
func messageTo(to []string, data string) []Message {
	if len(to) == 0 {
		return nil
	}
	return []Message{{"a@b", to, []byte(data)}}
}

func TestAnLMTPServerTakesLHLOAlone(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		c := overTCP(t, mk(LMTP()))
		c.expect("220")
		c.send("HELO x\r\nEHLO x\r\nlhlo nobody\r\nlhlo x\r\n")
		c.expect("500", "500", "550")
		if line := c.line(); line != "250-servertest.example\r\n" {
			t.Errorf("LHLO is answered with %q", line)
		}

		c = overTCP(t, mk())
		c.expect("220")
		c.send("LHLO x\r\n")
		c.expect("500")
	})
}

func TestAnLMTPServerAnswersAMessageForEachRecipient(t *testing.T) {
	for _, test := range []struct {
		why   string
		opts  []Option
		codes []string
		took  []string
	}{
		{"all accepted", nil, []string{"250", "250", "250"}, three},
		{"one refused", []Option{Refuse("e@f")}, []string{"250", "550", "250"}, []string{"c@d", "c@d"}},
		{"one refused that is there twice", []Option{Refuse("c@d")}, []string{"550", "250", "550"}, []string{"e@f"}},
		{"all refused", []Option{Refuse("c@d", "e@f")}, []string{"550", "550", "550"}, nil},
		{"all refused by a handler", []Option{AnswerMessages("451 4.3.0 later")}, []string{"451", "451", "451"}, nil},
	} {
		t.Run(test.why, func(t *testing.T) {
			forEach(t, func(t *testing.T, mk func(...Option) *Server) {
				for _, rest := range []string{"DATA\r\nx\r\n.\r\n", "BDAT 1\r\nxBDAT 2 LAST\r\n\r\n"} {
					s := mk(append(test.opts, LMTP())...)
					c := overTCP(t, s)
					c.expect("220")
					c.send("LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<nobody@d>\r\nRCPT TO:<e@f>\r\nRCPT TO:<c@d>\r\n")
					c.expect("250", "250", "250", "550", "250", "250")
					c.send(rest)
					if strings.HasPrefix(rest, "DATA") {
						c.expect("354")
					} else {
						c.expect("250") // for the first chunk, one alone
					}
					c.expect(test.codes...)
					c.send("DATA\r\n")
					c.expect("503")
					expectMessages(t, s, messageTo(test.took, "x\r\n")...)
				}
			})
		})
	}
}

func TestAnLMTPServerAnswersOnceWhereItHasNoRecipients(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		c := overTCP(t, mk(LMTP()))
		c.expect("220")
		c.send("LHLO x\r\nMAIL FROM:<a@b>\r\nDATA\r\nBDAT 4 LAST\r\nNOOPNOOP\r\n")
		c.expect("250", "250", "503", "503", "250")
	})
}

func TestAnLMTPServerRefusesALongChunkForEachRecipientIfItIsTheLast(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		for last, codes := range map[string][]string{"": {"552"}, " LAST": {"552", "552", "552"}} {
			s := mk(LMTP())
			c := overTCP(t, s)
			c.expect("220")
			c.send("LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRCPT TO:<c@d>\r\n")
			c.expect("250", "250", "250", "250", "250")
			c.send("BDAT 1000001" + last + "\r\n" + strings.Repeat("x", 1_000_001) + "VRFY\r\n")
			c.expect(codes...)
			c.expect("252")
			expectMessages(t, s)
		}
	})
}

// A message is refused amid its content: to whom, and what the server reads next.
func TestAnLMTPServerMayRefuseRecipientsInTheMidstOfContent(t *testing.T) {
	for _, test := range []struct {
		why   string
		opts  []Option
		early []string // statuses
		late  []string // statuses and replies, after "NOOP CRLF . CRLF VRFY CRLF"
		took  []string
	}{
		{"all, and reads on", []Option{ReadOn()},
			[]string{"552", "552", "552"}, []string{"252"}, nil},
		{"all, and reads commands", nil,
			[]string{"552", "552", "552"}, []string{"250", "500", "252"}, nil},
		{"the first, and reads on", []Option{RefuseFirst(1), ReadOn()},
			[]string{"552"}, []string{"250", "250", "252"}, []string{"e@f", "c@d"}},
		{"the first two, and reads on", []Option{RefuseFirst(2), ReadOn()},
			[]string{"552", "552"}, []string{"250", "252"}, []string{"c@d"}},
		{"the first two, reads on and refuses the third", []Option{RefuseFirst(2), ReadOn(), Refuse("c@d")},
			[]string{"552", "552"}, []string{"550", "252"}, nil},
		{"more than there are, and reads on", []Option{RefuseFirst(9), ReadOn()},
			[]string{"552", "552", "552"}, []string{"252"}, nil},
		{"the first, forgets the others and reads commands", []Option{RefuseFirst(1)},
			[]string{"552"}, []string{"250", "500", "252"}, nil},
		{"none, and reads on", []Option{RefuseFirst(0), ReadOn()},
			nil, []string{"250", "250", "250", "252"}, three},
	} {
		t.Run(test.why, func(t *testing.T) {
			forEach(t, func(t *testing.T, mk func(...Option) *Server) {
				s := mk(append(test.opts, LMTP(), LimitLines(10))...)
				c := lmtp(t, s)
				c.send("0123456789\r\n")
				c.expect(test.early...)
				expectSilence(t, c)
				c.send("NOOP\r\n.\r\nVRFY\r\n")
				c.expect(test.late...)
				expectMessages(t, s, messageTo(test.took, "0123456789\r\nNOOP\r\n")...)
			})
		})
	}
}

func TestALimitOfOctetsConcernsEachRecipientToo(t *testing.T) {
	s := EarlyRefuser(3, LMTP())
	c := lmtp(t, s)
	c.send("0123")
	c.expect("552", "552", "552")
	c.send("DATA\r\n")
	c.expect("503")
	expectMessages(t, s)
}

func TestStatusesAreWrittenOneByOne(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		c := overPipe(t, mk(LMTP()))
		c.expect("220")
		for _, line := range []string{"MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "DATA"} {
			c.send(line + "\r\n")
			c.line()
		}
		c.send("x\r\n.\r\n")
		buf := make([]byte, 1000)
		for range 2 {
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != taken+"\r\n" {
				t.Errorf("a Write gave %q, %v; want %q", buf[:n], err, taken)
			}
		}
	})
}
