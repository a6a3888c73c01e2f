package e2e

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about a server that sets one deadline for the whole session.

// lifetime returns how long such a server, with ten seconds, serves a client that
// sends something each second, for as long as it is let, behind some first lines.
func lifetime(t *testing.T, p *smtpproxy.Proxy, first, each string, times int) (d time.Duration) {
	t.Helper()
	ended := make(chan time.Duration, 1)
	c := runScript(t, overPipe(t), p, func(c net.Conn) {
		start := time.Now()
		c.SetReadDeadline(start.Add(10 * time.Second))
		watched := &lastError{Conn: c}
		new(puppet).serve(watched)
		if !errors.Is(watched.err, os.ErrDeadlineExceeded) {
			t.Errorf("the server's Read ended with %v", watched.err)
		}
		ended <- time.Since(start)
	})
	c.SetDeadline(time.Time{})
	var client sync.WaitGroup
	client.Go(func() { io.Copy(io.Discard, c.Conn) })
	client.Go(func() {
		if _, err := io.WriteString(c, first); err != nil {
			return
		}
		for range times {
			time.Sleep(time.Second) // in a bubble
			if _, err := io.WriteString(c, each); err != nil {
				return
			}
		}
	})
	d = <-ended
	c.Close()
	client.Wait()
	return d
}

// lastError keeps the error of a Read.
type lastError struct {
	net.Conn
	err error
}

func (c *lastError) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.err = err
	return n, err
}

func TestWhatTheLibraryRefusesDoesNotMakeASessionLonger(t *testing.T) {
	const mail, rcpt = "MAIL FROM:<a@a>\r\n", "RCPT TO:<b@b>\r\n"
	for _, tt := range []struct {
		why         string
		p           smtpproxy.Proxy
		first, each string
	}{
		{why: "no verb", each: "1 2 3\r\n"},
		{why: "an empty line", each: "\r\n"},
		{why: "control characters", each: "NO\x01OP\r\n"},
		{why: "a nested MAIL", first: mail, each: mail},
		{why: "a recipient without a sender", each: rcpt},
		{why: "DATA without a sender", each: "DATA\r\n"},
		{why: "a recipient too many", p: smtpproxy.Proxy{MaxRecipients: 1}, first: mail + rcpt, each: rcpt},
		{why: "STARTTLS", each: "STARTTLS\r\n"},
		{why: "like STARTTLS", each: "STARTTLSX\r\n"},
		{why: "AUTH outside TLS", p: smtpproxy.Proxy{RequireTLSForAuth: true}, each: "AUTH PLAIN AA==\r\n"},
		{why: "a chunk without a recipient", each: "BDAT 3\r\nabc"},
		{why: "an empty chunk without a recipient", each: "BDAT 0 LAST\r\n"},
		{why: "a chunk in octets", first: "BDAT 1000\r\n", each: "a"},
		{why: "a chunk that is too large, in octets", first: "EHLO x\r\n" + mail + rcpt + "BDAT 1001 LAST\r\n", each: "a"},
		{why: "several at once", each: "1\r\nBDAT 3\r\nabc" + rcpt + "\x01\r\n"},
		{why: "behind a refused message", first: mail, each: "DATA\x01\r\n" + mail},
	} {
		for why, hook := range map[string]smtpproxy.Hook{"": nil, ", seen by a hook": always(nil), ", seen by a slow one": decide(func(command) (decision, error) {
			time.Sleep(time.Second / 10) // in a bubble
			return nil, nil
		})} {
			bubble(t, tt.why+why, func(t *testing.T) {
				p := tt.p
				p.Hook, p.MaxErrors = hook, -1
				d := lifetime(t, &p, tt.first, tt.each, 1000)
				// The hook's time isn't the client's.
				if slow := strings.HasSuffix(why, "slow one"); d < 10*time.Second || !slow && d > 10*time.Second || d > time.Minute {
					t.Errorf("it took %v", d)
				}
			})
		}
	}
}

func TestWhatAHookAnswersMakesASessionLonger(t *testing.T) {
	for _, tt := range []struct {
		why   string
		first string
		each  string
	}{
		{"a command", "", "HELP\r\n"},
		{"a chunk", "MAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\n", "BDAT 3\r\nabc"},
		{"a recipient", "MAIL FROM:<a@a>\r\n", "RCPT TO:<no@b>\r\n"},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			hook := decide(func(cmd command) (decision, error) {
				if strings.HasPrefix(tt.each, cmd.Line) {
					return reply{Code: 450}, nil
				}
				return nil, nil
			})
			if d := lifetime(t, &smtpproxy.Proxy{Hook: hook}, tt.first, tt.each, 60); d != 70*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}
