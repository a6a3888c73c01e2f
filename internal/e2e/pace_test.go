package e2e

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file holds Proxy.CommandTimeout and Proxy.MinDataRate, and when a socket
// gets its deadlines. Sleeps are in bubbles of testing/synctest, but for one.

// A piece is sent after a pause, octet by octet with a pause after each.
type piece struct {
	pause  time.Duration
	octets string
	each   time.Duration
}

// trickle plays pieces against go-smtp, whose own deadline is ten seconds, and
// returns when the client got what.
func trickle(t *testing.T, p *smtpproxy.Proxy, pieces []piece, opts ...servertest.Option) (diary []string, took []servertest.Message) {
	s := behindGoSMTP(p, opts...)
	c := patientPeer(t, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, piece := range pieces {
			time.Sleep(piece.pause) // in a bubble
			if piece.each == 0 {
				io.WriteString(c, piece.octets)
				continue
			}
			for i := range len(piece.octets) {
				io.WriteString(c, piece.octets[i:i+1])
				time.Sleep(piece.each) // in a bubble
			}
		}
	}()
	diary = c.diary()
	c.Close()
	<-done
	return diary, s.Messages()
}

func TestACommandHasToBeCompleteInTime(t *testing.T) {
	const hello = "EHLO x\r\n"
	for _, tt := range []struct {
		why    string
		pieces []piece
		end    string // of what the client gets
	}{
		{"a line that trickles", []piece{{0, hello, 0}, {3 * time.Second, "NOOP 123456789\r\n", time.Second}},
			`8s "421 4.4.2 Too slow, closing connection\r\n"`},
		{"a line of a SASL exchange that trickles", []piece{{0, hello + "AUTH PLAIN\r\n", 0}, {0, "AHVzZXIAcGFzcw==\r\n", time.Second}},
			`5s "421 4.4.2 Too slow, closing connection\r\n"`},
		{"the rest of a line that came behind another", []piece{{0, hello + "NO", 0}, {time.Second, "OP 123456789\r\n", time.Second}},
			`5s "421 4.4.2 Too slow, closing connection\r\n"`},
		{"each line in time, if not all of them", []piece{{0, hello, 500 * time.Millisecond}, {0, "NOOP\r\nNOOP\r\nQUIT\r\n", 700 * time.Millisecond}},
			`15.9s "221 2.0.0 Bye\r\n"`},
		{"silence between lines is the server's matter", []piece{{9 * time.Second, hello, 0}, {9 * time.Second, "NOOP\r\n", 0}},
			`28s "421 4.4.2 Idle timeout, bye bye\r\n"`},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			p := &smtpproxy.Proxy{CommandTimeout: 5 * time.Second, AllowInsecureAuth: true}
			got, _ := trickle(t, p, tt.pieces)
			if last := got[len(got)-2]; last != tt.end {
				t.Errorf("the client got %q at last, want %q", last, tt.end)
			}
		})
	}
}

func TestMessageContentHasToKeepItsRate(t *testing.T) {
	const (
		mail = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
		slow = `"421 4.4.2 Too slow, closing connection\r\n"`
		fine = `"221 2.0.0 Bye\r\n"`
	)
	line := strings.Repeat("x", 98) + "\r\n" // a second's worth
	end := piece{0, "\r\n.\r\nQUIT\r\n", 0}
	patient := servertest.Configure(func(s *smtp.Server) { s.ReadTimeout = time.Hour })
	for _, tt := range []struct {
		why    string
		pieces []piece
		end    string
	}{
		// Each second costs one of the thirty, and an octet brings 1/100.
		{"a trickle in DATA", []piece{{0, mail + "DATA\r\n", 0}, {0, strings.Repeat("x", 100), time.Second}}, "30.3s " + slow},
		{"a trickle in a chunk", []piece{{0, mail + "BDAT 500 LAST\r\n", 0}, {0, strings.Repeat("x", 100), time.Second}}, "30.3s " + slow},
		{"a trickle over many chunks", []piece{{0, mail, 0}, {0, strings.Repeat("BDAT 1\r\nx", 20), 3 * time.Second}}, "4m51.1s " + slow},
		{"a trickle in a chunk that is refused", []piece{{0, "EHLO x\r\nBDAT 500\r\n", 0}, {0, strings.Repeat("x", 100), time.Second}}, "30.3s " + slow},
		{"twice the rate", []piece{{0, mail + "DATA\r\n", 0}, {0, strings.Repeat(line, 100), 5 * time.Millisecond}, end}, "50s " + fine},
		{"little more than half the rate", []piece{{0, mail + "DATA\r\n", 0}, {0, strings.Repeat(line, 100), 17 * time.Millisecond}, end}, "1m12.84s " + slow},
		{"a pause that isn't too long", []piece{{0, mail + "DATA\r\n", 0}, {29 * time.Second, strings.Repeat(line, 30), 0}, {29 * time.Second, "x", 0}, end}, "58s " + fine},
		{"a pause that is too long", []piece{{0, mail + "DATA\r\n", 0}, {31 * time.Second, line, 0}}, "30s " + slow},
		{"a pause that is too long, after much at once",
			[]piece{{0, mail + "DATA\r\n", 0}, {0, strings.Repeat(line, 1000), 0}, {31 * time.Second, line, 0}}, "30s " + slow},
		{"a pause as long, but between messages",
			[]piece{{0, mail + "DATA\r\n", 0}, {29 * time.Second, "x\r\n.\r\n", 0}, {31 * time.Second, mail[8:] + "DATA\r\n", 0}, {29 * time.Second, "x\r\n.\r\nQUIT\r\n", 0}}, "1m29s " + fine},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			got, took := trickle(t, &smtpproxy.Proxy{MinDataRate: 100, MaxSmallChunks: -1}, tt.pieces, patient)
			if last := got[len(got)-2]; last != tt.end {
				t.Errorf("the client got %q at last, want %q", last, tt.end)
			}
			if strings.HasSuffix(tt.end, slow) && len(took) > 0 {
				t.Errorf("the server took %q", took)
			}
		})
	}
}

// The rate is the client's: a server that takes its time with what it has got
// costs it nothing.
func TestTheTimeOfTheServerIsNotTheClients(t *testing.T) {
	const line = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
	bubble(t, "", func(t *testing.T) {
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{MinDataRate: 100}, func(c net.Conn) {
			b := make([]byte, 10)
			io.WriteString(c, "220 x\r\n")
			for _, code := range []string{"250", "250", "354"} {
				for n := 0; n == 0 || b[n-1] != '\n'; {
					n, _ = c.Read(b)
				}
				io.WriteString(c, code+" x\r\n")
			}
			for range 100 {
				time.Sleep(time.Minute) // in a bubble
				if n, err := c.Read(b); n != len(b) || err != nil {
					t.Errorf("%q, %v", b[:n], err)
				}
			}
		})
		c.SetDeadline(time.Time{})
		c.send(line + strings.Repeat("x", 1000))
		c.expect("220", "250", "250", "354")
		c.expectEnd()
	})
}

// TestAWriteGoesOnAfterADeadlineThatHasMoved is about TCP, which no bubble has.
func TestAWriteGoesOnAfterADeadlineThatHasMoved(t *testing.T) {
	long := append(bytes.Repeat([]byte("220-x\r\n"), 1<<20), "220 x\r\n"...)
	const first, second = 50 * time.Millisecond, 200 * time.Millisecond
	for why, reads := range map[string]bool{"the client reads": true, "the client doesn't read": false} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			raw, client, err := connectTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			l := &chanListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
			l.conns <- raw
			c, err := (&smtpproxy.Proxy{MaxReplyLength: -1}).Listener(l).Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			start := time.Now()
			c.SetWriteDeadline(start.Add(first))
			if reads {
				c.SetWriteDeadline(start.Add(patience))
				time.AfterFunc(2*first, func() { io.Copy(io.Discard, client) })
			} else {
				c.SetWriteDeadline(start.Add(second))
			}
			n, err := c.Write(long)
			switch d := time.Since(start); {
			case reads && (n != len(long) || err != nil || d < first):
				t.Errorf("%d of %d octets written, %v, after %v", n, len(long), err, d)
			case !reads && (err == nil || d < second || d > patience/2):
				t.Errorf("%d octets written, %v, after %v", n, err, d)
			}
		})
	}
}
