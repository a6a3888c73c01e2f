package servertest

import (
	"testing"
	"testing/synctest"
	"time"
)

// Each input is a beginning without an end. Time is a bubble's.
func TestAServerThatGivesUpReadsCommandsNext(t *testing.T) {
	for _, test := range []struct {
		why      string
		begins   string
		codes    []string
		commands []string
	}{
		{"content", "DATA\r\nx\r\ny", []string{"354"}, []string{"DATA"}},
		{"content behind a line that could be the end", "DATA\r\nx\r\n. \r\n", []string{"354"}, []string{"DATA"}},
		{"a chunk", "BDAT 9\r\nx", nil, []string{"BDAT 9"}},
		{"a last chunk", "BDAT 9 LAST\r\nx", nil, []string{"BDAT 9 LAST"}},
		{"a SASL exchange", "AUTH PLAIN\r\nAAAA", []string{"334"}, []string{"AUTH PLAIN"}},
	} {
		t.Run(test.why, func(t *testing.T) {
			forEach(t, func(t *testing.T, mk func(...Option) *Server) {
				synctest.Test(t, func(t *testing.T) {
					s := mk(GiveUp(), ReadTimeout(time.Second))
					c := overPipe(t, s)
					c.play("250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>")
					c.send(test.begins)
					c.expect(test.codes...)
					time.Sleep(1900 * time.Millisecond) // in a bubble
					c.send("NOOP\r\n")                  // the deadline is a new one
					c.expect("250")
					c.send("BDAT 1 LAST\r\nz") // and the transaction the old one
					c.expect("250")
					expectCommands(t, s, append(append(envelope[:2:2], test.commands...), "NOOP", "BDAT 1 LAST")...)
					expectMessages(t, s, message("z"))
					if sasl := s.Record().SASL; len(sasl) > 0 {
						t.Errorf("SASL lines %q", sasl)
					}
					time.Sleep(1100 * time.Millisecond) // in a bubble; nothing to give up now
					c.expectEnd()
				})
			})
		})
	}
}

func TestAServerThatDoesNotGiveUpEndsTheSession(t *testing.T) {
	for _, begins := range []string{"DATA\r\nx", "BDAT 9\r\nx", "AUTH PLAIN\r\nAAAA", "NOO"} {
		forEach(t, func(t *testing.T, mk func(...Option) *Server) {
			synctest.Test(t, func(t *testing.T) {
				s := mk(ReadTimeout(time.Second))
				c := overPipe(t, s)
				c.play("250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>")
				c.send(begins)
				if begins[0] == 'D' || begins[0] == 'A' {
					c.line()
				}
				c.expectEnd()
				synctest.Wait()
				if r := s.Record(); r.Ended != 1 || len(r.Messages) > 0 {
					t.Errorf("%d sessions ended; messages %q", r.Ended, r.Messages)
				}
			})
		})
	}
}

func TestAServerThatGivesUpEndsWithItsClient(t *testing.T) {
	for _, begins := range []string{"DATA\r\nx", "BDAT 9\r\nx", "AUTH PLAIN\r\nAAAA"} {
		forEach(t, func(t *testing.T, mk func(...Option) *Server) {
			s := mk(GiveUp())
			c := overPipe(t, s)
			c.play("250 MAIL FROM:<a@b>", "250 RCPT TO:<c@d>")
			c.send(begins)
			if begins[0] != 'B' {
				c.line()
			}
			c.Close()
			waitForEnd(t, s)
			expectMessages(t, s)
		})
	}
}

func TestGoSMTPHasAReadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := overPipe(t, GoSMTP(ReadTimeout(time.Second)))
		c.expect("220")
		start := time.Now()
		c.expect("421")
		if d := time.Since(start); d != time.Second {
			t.Errorf("it waits %v", d)
		}
	})
}
