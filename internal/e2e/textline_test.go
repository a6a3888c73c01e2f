package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// bufferFull is what bradfitz/go-smtpd does with a line of content that is longer than
// its buffer: it returns to its commands without a word, and takes the rest of the line,
// and what is behind it, for those.
const bufferFull = 4096

func TestALineOfContentThatIsTooLongRefusesTheMessage(t *testing.T) {
	fits := strings.Repeat("x", 98) + "\r\n"
	for _, tt := range []struct {
		why, content string
		refused      bool
	}{
		{"100 octets, with the line end", fits + fits, false},
		{"101", "x" + fits, true},
		{"a long line behind others", fits + "x" + fits, true},
		{"many lines are no long one", strings.Repeat(fits, 100), false},
		{"it has no end, but the message has", strings.Repeat("x", bufferFull) + "RCPT TO:<v@v>\r\n", true},
		{"LF alone ends a line, too", strings.Repeat("x", 99) + "\n" + fits, false},
		{"CR alone doesn't", strings.Repeat("x", 99) + "\r" + "xx\r\n", true},
	} {
		for _, bulk := range []bool{false, true} {
			for _, octets := range []bool{false, true} {
				server := servertest.Strict()
				s := behindListener(&smtpproxy.Proxy{MaxTextLine: 100, BulkContent: bulk}, server)
				c := s.connect(t, overTCP(t))
				c.send("EHLO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n")
				c.expect("220", "250", "250", "250", "354")
				content := tt.content + ".\r\n"
				if octets {
					for _, octet := range strings.Split(content[:min(len(content), 300)], "") {
						c.send(octet)
					}
					content = content[min(len(content), 300):]
				}
				c.send(content + "NOOP\r\n")
				if tt.refused {
					c.expect("550 5.6.0 Message has a line that is too long")
					c.expectEnd()
				} else {
					c.expect("250", "250")
				}
				s.close()
				if n := len(server.Messages()); n != 1 && !tt.refused || n != 0 && tt.refused {
					t.Errorf("%s, in bulk %v, in octets %v: the server took %d messages", tt.why, bulk, octets, n)
				}
				if slices.ContainsFunc(server.Commands(), func(line string) bool { return strings.Contains(line, "v@v") }) {
					t.Errorf("%s: the server executed %q", tt.why, server.Commands())
				}
			}
		}
	}
}
