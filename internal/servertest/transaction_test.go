package servertest

import (
	"strings"
	"testing"
)

// play sends lines one by one, and expects the codes that stand before them.
func (c *client) play(script ...string) {
	c.t.Helper()
	c.expect("220")
	for _, step := range script {
		code, line, _ := strings.Cut(step, " ")
		c.send(line + "\r\n")
		if code != "-" { // part of the content
			c.expect(code)
		}
	}
}

// What a server makes of an envelope where RFC 5321 has it end, or begin.
func TestAnEnvelopeLivesAsLongAsTheOptionsSay(t *testing.T) {
	begun := []string{"250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>"}
	sent := []string{"354 DATA", "- x", "250 ."}
	refused := []string{"354 DATA", "- x", "552 0123456789", "500 0123456789"}
	x := Message{"a@b", []string{"c@d"}, []byte("x\r\n")}
	to := func(recipients ...string) Message { return Message{"a@b", recipients, []byte("x\r\n")} }

	for _, test := range []struct {
		why    string
		opts   []Option
		script [][]string
		took   []Message
	}{
		{"a refused message ends it", []Option{LimitLines(9)},
			[][]string{begun, refused, {"503 DATA", "503 RCPT TO:<e@f>"}, begun, sent}, []Message{x}},
		{"or leaves it as it was", []Option{LimitLines(9), KeepEnvelope()},
			[][]string{begun, refused, {"503 MAIL FROM:<e@f>", "250 RCPT TO:<g@h>"}, sent, {"503 DATA"}}, []Message{to("c@d", "g@h")}},
		{"or to the next MAIL", []Option{LimitLines(9), KeepEnvelope(), MailAnew()},
			[][]string{begun, refused, begun, sent, {"503 DATA"}}, []Message{x}},
		{"a message that a handler refuses ends it", []Option{AnswerMessages("451 4.3.0 later")},
			[][]string{begun, {"354 DATA", "- x", "451 .", "503 DATA"}}, nil},
		{"or leaves it as it was", []Option{AnswerMessages("451 4.3.0 later"), KeepEnvelope()},
			[][]string{begun, {"354 DATA", "- x", "451 .", "354 DATA", "- x", "451 ."}}, nil},
		{"a message that a handler takes ends it", []Option{AnswerMessages("250 2.0.0 queued as 7")},
			[][]string{begun, sent, {"503 DATA"}}, []Message{x}},
		{"or leaves it as it was, if the reply isn't the usual one", []Option{AnswerMessages("250 2.0.0 queued as 7"), KeepEnvelope()},
			[][]string{begun, sent, sent}, []Message{x, x}},
		{"the usual reply ends it in each case", []Option{KeepEnvelope()},
			[][]string{begun, sent, {"503 DATA"}}, []Message{x}},
		{"RSET ends it in each case", []Option{KeepEnvelope(), KeepOverHello()},
			[][]string{begun, {"250 RSET", "503 DATA"}}, nil},
		{"chunks that have their answer are gone, the envelope isn't", []Option{AnswerMessages("250 2.0.0 queued as 7"), KeepEnvelope()},
			[][]string{begun, {"250 BDAT 2\r\n", "250 BDAT 3 LAST\r\nx", "250 RCPT TO:<e@f>", "250 BDAT 3 LAST\r\nx"}},
			[]Message{{"a@b", []string{"c@d"}, []byte("\r\nx\r\n")}, to("c@d", "e@f")}},

		{"EHLO ends it", nil, [][]string{begun, {"250 EHLO x", "503 DATA"}}, nil},
		{"HELO does", nil, [][]string{begun, {"250 HELO x", "503 DATA"}}, nil},
		{"EHLO leaves it", []Option{KeepOverHello()}, [][]string{begun, {"250 EHLO x"}, sent}, []Message{x}},
		{"HELO does", []Option{KeepOverHello()}, [][]string{begun, {"250 HELO x"}, sent}, []Message{x}},
		{"a refused EHLO leaves it", nil, [][]string{begun, {"550 EHLO nobody"}, sent}, []Message{x}},
		{"a refused EHLO ends it", []Option{DropAtRefusedHello()}, [][]string{begun, {"550 EHLO nobody", "503 DATA"}}, nil},
		{"but one that is accepted doesn't", []Option{DropAtRefusedHello(), KeepOverHello()},
			[][]string{begun, {"250 EHLO x"}, sent}, []Message{x}},

		{"MAIL within it begins another", []Option{MailAnew()},
			[][]string{{"250 MAIL FROM:<e@f>", "250 RCPT TO:<g@h>"}, begun, sent}, []Message{x}},
		{"RCPT waits for MAIL", []Option{RecipientsFirst()},
			[][]string{{"250 RCPT TO:<e@f>", "503 DATA", "503 BDAT 0 LAST"}, begun, sent, {"503 DATA"}}, []Message{to("e@f", "c@d")}},
		{"unless something ends its waiting", []Option{RecipientsFirst()},
			[][]string{{"250 RCPT TO:<e@f>", "250 RSET"}, begun, sent}, []Message{x}},
		{"a message that only waiting recipients have", []Option{RecipientsFirst()},
			[][]string{{"250 RCPT TO:<c@d>", "550 RCPT TO:<nobody@d>", "250 MAIL FROM:<a@b>"}, sent}, []Message{x}},
	} {
		t.Run(test.why, func(t *testing.T) {
			forEach(t, func(t *testing.T, mk func(...Option) *Server) {
				s := mk(test.opts...)
				c := overPipe(t, s)
				var script []string
				for _, part := range test.script {
					script = append(script, part...)
				}
				c.play(script...)
				expectMessages(t, s, test.took...)
			})
		})
	}
}

func TestAnLMTPServerKeepsAnEnvelopeThatNobodyTook(t *testing.T) {
	begun := []string{"250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>", "250 RCPT TO:<e@f>", "354 DATA", "- x"}
	for _, test := range []struct {
		why   string
		opts  []Option
		after []string
	}{
		{"both are refused", []Option{Refuse("c@d", "e@f")}, []string{"550 .", "250 RCPT TO:<g@h>"}},
		{"one has it", []Option{Refuse("c@d")}, []string{"550 .", "503 RCPT TO:<g@h>"}},
		{"both have it, with a text of the handler's", []Option{AnswerMessages("250 2.0.0 queued as 7")}, []string{"250 .", "250 RCPT TO:<g@h>"}},
	} {
		t.Run(test.why, func(t *testing.T) {
			c := overTCP(t, Strict(append(test.opts, LMTP(), KeepEnvelope())...))
			c.play(begun...)
			c.send(".\r\n")
			c.expect(test.after[0][:3])
			c.line() // the other status
			c.send("RCPT TO:<g@h>\r\n")
			c.expect(test.after[1][:3])
		})
	}
}

func TestASizeOfAChunkMayBeReadAsGoReadsIt(t *testing.T) {
	for _, test := range []struct {
		why    string
		size   string
		octets int
	}{
		{"decimal", "10", 10},
		{"octal", "010", 8},
		{"octal, with zeros more", "0010", 8},
		{"hexadecimal", "0x10", 16},
		{"binary", "0b10", 2},
		{"apart", "1_0", 10},
		{"a sign", "+10", 10},
		{"nothing", "0", 0},
	} {
		t.Run(test.why, func(t *testing.T) {
			forEach(t, func(t *testing.T, mk func(...Option) *Server) {
				s := mk(BDATBaseZero())
				c := overPipe(t, s)
				c.play("250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>")
				data := strings.Repeat("x", test.octets)
				c.send("BDAT " + test.size + " LAST\r\n" + data + "NOOP\r\n")
				c.expect("250", "250")
				expectCommands(t, s, "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "BDAT "+test.size+" LAST", "NOOP")
				expectMessages(t, s, message(data))
			})
		})
	}
	for _, size := range []string{"09", "-1", "x", "0x", "99999999999999999999"} {
		t.Run(size, func(t *testing.T) {
			c := overPipe(t, Strict(BDATBaseZero()))
			c.play("501 BDAT " + size)
			c.expectEnd()
		})
	}
}

func TestAServerMayAnswerAChunkThatItHasNotRead(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk(AnswerChunksFirst())
		c := overPipe(t, s)
		c.play("250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>", "250 BDAT 4")
		c.send("RSET")
		expectSilence(t, c)
		c.send("BDAT 4 LAST\r\n")
		c.expect("250")
		expectMessages(t, s)
		c.send("RSETNOOP\r\n")
		c.expect("250")
		expectCommands(t, s, "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "BDAT 4", "BDAT 4 LAST", "NOOP")
		expectMessages(t, s, message("RSETRSET"))

		// What it won't take, it answers like others.
		c.send("BDAT 4\r\nRSET")
		c.expect("503")

		s = mk(AnswerChunksFirst(), LMTP())
		c = overPipe(t, s)
		c.play("250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>", "250 RCPT TO:<e@f>", "250 BDAT 4")
		c.send("RSETBDAT 0 LAST\r\n")
		c.expect("250", "250")
		c.send("NOOP\r\n")
		c.expect("250")
		expectMessages(t, s, Message{"a@b", []string{"c@d", "e@f"}, []byte("RSET")})
	})
}
