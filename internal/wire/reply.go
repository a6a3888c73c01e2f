package wire

import (
	"bytes"
	"errors"
	"strings"
)

// ErrReply tells that a server wrote what is no SMTP reply.
var ErrReply = errors.New("smtpproxy: malformed reply from the server")

// Reply finds the end of a reply (RFC 5321 section 4.2.1) in what a server
// writes, in however many pieces. The zero value is at the start of a reply.
type Reply struct {
	code int
	at   int // where the first line starts that hasn't been read
}

// Next looks for the end of the reply that starts at b[0]; b holds all of it
// that there is, what earlier calls were given included. It returns the
// reply's length, 0 if it isn't complete, and its code. After a complete reply
// it is at the start of the next.
func (r *Reply) Next(b []byte) (n, code int, err error) {
	for {
		i := bytes.IndexByte(b[r.at:], '\n')
		if i < 0 {
			return 0, 0, nil
		}
		line := bytes.TrimRight(b[r.at:r.at+i], "\r")
		code, last := parseReplyLine(line)
		if code == 0 || r.at > 0 && code != r.code {
			return 0, 0, ErrReply
		}
		r.code = code
		r.at += i + 1
		if last {
			n = r.at
			*r = Reply{}
			return n, code, nil
		}
	}
}

// parseReplyLine returns the code of a reply line, 0 if it is none, and
// whether it is the reply's last. A last line may be the code alone.
func parseReplyLine(line []byte) (code int, last bool) {
	if len(line) < 3 || bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return 0, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false
		}
		code = code*10 + int(c-'0')
	}
	switch {
	case code < 200 || code > 599:
		return 0, false
	case len(line) == 3 || line[3] == ' ':
		return code, true
	case line[3] == '-':
		return code, false
	}
	return 0, false
}

// ReplyLines returns the lines of a complete reply without their codes.
func ReplyLines(b []byte) []string {
	text := string(b)
	lines := make([]string, 0, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		lines = append(lines, line[min(4, len(line)):])
	}
	return lines
}

// AppendReply appends a reply of the given lines to b.
func AppendReply(b []byte, code int, lines []string) []byte {
	for i, line := range lines {
		b = append(b, byte('0'+code/100), byte('0'+code/10%10), byte('0'+code%10))
		if i < len(lines)-1 {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		b = append(b, line...)
		b = append(b, '\r', '\n')
	}
	return b
}
