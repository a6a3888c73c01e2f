package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about servers that reply to the last chunk of an LMTP message less often
// than the client counts on (RFC 2033 section 4.3), and others that only seem to.

// A server that reads ahead may begin with that when it has given the first of several
// statuses. What is missing then is on its way.
func TestAReaderThatRunsAheadOfStatusesKeepsNoneFromTheClient(t *testing.T) {
	for _, row := range []struct {
		why       string
		statuses  []string
		readAfter int // statuses that are given before the reader goes on
	}{
		{"taken for the first", []string{"250 2.0.0 <b> ok\r\n", "550 5.7.1 <c> no\r\n", "250 2.0.0 <d> ok\r\n"}, 1},
		{"taken for the first two", []string{"250 2.0.0 <b> ok\r\n", "250 2.0.0 <c> ok\r\n", "452 4.2.2 <d> full\r\n"}, 2},
		{"refused for the first two", []string{"550 5.7.1 <b> no\r\n", "550 5.7.1 <c> no\r\n", "250 2.0.0 <d> ok\r\n"}, 2},
		{"all before the reader goes on", []string{"550 5.7.1 <b> no\r\n", "250 2.0.0 <c> ok\r\n", "250 2.0.0 <d> ok\r\n"}, 3},
	} {
		bubble(t, row.why, func(t *testing.T) {
			c := runScript(t, overPipe(t), &smtpproxy.Proxy{}, func(c net.Conn) {
				b := make([]byte, 100)
				out := []string{"220 x\r\n", "250-x\r\n250 CHUNKING\r\n", "250 a\r\n", "250 b\r\n", "250 c\r\n", "250 d\r\n"}
				for _, reply := range out {
					io.WriteString(c, reply)
					c.Read(b)
				}
				io.ReadFull(c, b[:4])
				for _, status := range row.statuses[:row.readAfter] {
					io.WriteString(c, status)
				}
				next := make(chan string, 1)
				go func() {
					n, _ := c.Read(b)
					next <- string(b[:n])
				}()
				synctest.Wait() // until the reader waits
				for _, status := range row.statuses[row.readAfter:] {
					io.WriteString(c, status)
				}
				if line := <-next; line != "NOOP\r\n" {
					t.Errorf("the server reads %q", line)
				}
				io.WriteString(c, "250 noop\r\n")
			})
			c.SetDeadline(time.Time{})
			c.send("LHLO y\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nRCPT TO:<d@d>\r\nBDAT 4 LAST\r\nhi\r\nNOOP\r\n")
			c.expect("220", "250", "250 a", "250 b", "250 c", "250 d")
			for _, status := range row.statuses {
				c.expect(status[:len(status)-2])
			}
			c.expect("250 noop")
		})
	}
}

// What the client counts on must be what the server replies.
func TestAHookCannotMakeClientAndServerCountDifferentStatuses(t *testing.T) {
	for _, tt := range []struct {
		why        string
		greeting   string // that was accepted
		line, pass string
		valid      bool
	}{
		{"a recipient taken out", "LHLO", "RCPT TO:<e@f>", "NOOP", false},
		{"a recipient put in", "LHLO", "NOOP", "RCPT TO:<e@f>", false},
		{"a recipient made another", "LHLO", "RCPT TO:<e@f>", "RCPT TO:<g@h>", true},
		{"likewise, in lower case", "LHLO", "rcpt TO:<e@f>", "rcpt TO:<g@h>", true},
		{"a recipient taken out, by SMTP", "EHLO", "RCPT TO:<e@f>", "NOOP", true},
		{"a recipient put in, by SMTP", "HELO", "NOOP", "RCPT TO:<e@f>", true},

		{"the end of a message put in", "LHLO", "BDAT 3", "BDAT 3 LAST", false},
		{"the end of a message taken out", "LHLO", "BDAT 3 LAST", "BDAT 3", false},
		{"the end of a message as it was", "LHLO", "BDAT 3 LAST", "BDAT 03 last", true},
		{"the end of a message put in, by SMTP", "EHLO", "BDAT 3", "BDAT 3 LAST", true},

		{"LMTP to the server, SMTP to the client", "", "EHLO x", "LHLO x", false},
		{"likewise with HELO", "", "HELO x", "LHLO x", false},
		{"likewise, later", "EHLO", "EHLO x", "LHLO x", false},
		{"SMTP to the server, LMTP to the client", "", "LHLO x", "EHLO x", false},
		{"likewise, later", "LHLO", "LHLO x", "HELO x", false},
		{"another name of the client's", "", "LHLO x", "LHLO y", true},
		{"the older greeting", "", "EHLO x", "HELO x", true},
		{"a greeting that no server knows made one", "", "XHELO x", "LHLO x", true},
	} {
		s, failure := inTransaction(smtpproxy.Proxy{Hook: always(pass{Command: tt.pass})}, tt.greeting)
		d := s.Command(context.Background(), tt.line)
		if got := !errors.Is(failure.Err, smtpproxy.ErrInvalidDecision); got != tt.valid {
			t.Errorf("%s: %v, %v", tt.why, failure.Err, d)
		}
		if r, refused := d.(reply); refused == tt.valid || refused && (r.Code != 421 || s.Copies() != 1) {
			t.Errorf("%s: %v, %d times", tt.why, d, s.Copies())
		}
	}
}

// Two statuses in one Write, of which the first alone would have made it wait, leave
// nothing behind for which a later one waits longer.
func TestTheWriteOfAnEarlyStatusWaitsNoLongerForWhatCameBefore(t *testing.T) {
	bubble(t, "three recipients", func(t *testing.T) {
		waited := make(chan time.Duration, 1)
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{BulkContent: true}, func(c net.Conn) {
			b := make([]byte, 100)
			for _, reply := range []string{"220 x\r\n", "250 x\r\n", "250 a\r\n", "250 b\r\n", "250 c\r\n", "250 d\r\n", "354 go\r\n"} {
				io.WriteString(c, reply)
				c.Read(b)
			}
			io.WriteString(c, "550 5.7.1 <b> no\r\n250 2.0.0 <c> ok\r\n")
			c.Read(b)
			begin := time.Now()
			io.WriteString(c, "550 5.7.1 <d> no\r\n") // the server reads nothing meanwhile
			waited <- time.Since(begin)
		})
		c.SetDeadline(time.Time{})
		c.send("LHLO y\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nRCPT TO:<d@d>\r\nDATA\r\n")
		c.expect("220", "250", "250 a", "250 b", "250 c", "250 d", "354 go")
		c.send("one\r\n")
		c.expect("550 5.7.1 <b> no")
		c.send("two\r\n")
		if d := <-waited; d > time.Second {
			t.Errorf("the Write waits %v", d)
		}
	})
}

// A server that reads on while it tells the first status does so on another goroutine,
// and has another one to tell: its Write has nothing more to wait for.
func TestTheWriteOfAnEarlyStatusReturnsWhenTheServerReadsOn(t *testing.T) {
	bubble(t, "two recipients", func(t *testing.T) {
		const before = 100 * time.Millisecond // the server reads on
		waited, read := make(chan time.Duration, 1), make(chan string, 1)
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{}, func(c net.Conn) {
			b := make([]byte, 100)
			for _, reply := range []string{"220 x\r\n", "250 x\r\n", "250 a\r\n", "250 b\r\n", "250 c\r\n", "354 go\r\n"} {
				io.WriteString(c, reply)
				c.Read(b)
			}
			go func() {
				begin := time.Now()
				io.WriteString(c, "550 5.7.1 <b> no\r\n")
				waited <- time.Since(begin)
			}()
			time.Sleep(before) // in a bubble
			n, _ := c.Read(b)
			read <- string(b[:n])
		})
		c.SetDeadline(time.Time{})
		c.send("LHLO y\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nRCPT TO:<c@c>\r\nDATA\r\n")
		c.expect("220", "250", "250 a", "250 b", "250 c", "354 go")
		c.send("one\r\n")
		c.expect("550 5.7.1 <b> no")
		time.Sleep(2 * before) // in a bubble: the server waits for the rest
		c.send("two\r\n")
		if line := <-read; line != "two\r\n" {
			t.Errorf("the server reads %q", line)
		}
		if d := <-waited; d != before {
			t.Errorf("the Write waits %v, want %v", d, before)
		}
	})
}
