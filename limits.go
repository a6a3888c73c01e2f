package smtpproxy

import (
	"math"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
)

// This file holds the limits on what a client, or the server, may send: the
// defaults of Proxy's fields, what has been counted, and what is answered.

// The defaults of those limits that keep memory safe, and end what has no end. The
// others are policy, and off.
const (
	defaultMaxLineLength  = 2048
	defaultMaxSASLLine    = 12288 // RFC 4954 section 4 finds it sufficient
	defaultMaxReplyLength = 64 << 10
	defaultMaxReadAhead   = 32 << 10
	defaultMaxSmallChunks = 1000
	defaultMaxRecipients  = 10_000
	defaultMaxErrors      = 10
)

// recipientOctets is how many octets a recipient may take in the mean, with its
// parameters: the limit of recipients is one of memory, too.
const recipientOctets = 256

// smallChunk is the size from which on a BDAT chunk is worth its command.
const smallChunk = 1 << 10

// limits are those of a Proxy, with the defaults filled in.
type limits struct {
	line        int // octets, with the line end
	saslLine    int // likewise
	reply       int
	readAhead   int
	smallChunks int
	recipients  int
	commands    int
	errors      int
}

func (p *Proxy) limits() limits {
	return limits{
		line:        limit(p.MaxLineLength, defaultMaxLineLength),
		saslLine:    limit(p.MaxSASLLineLength, defaultMaxSASLLine) + len("\r\n"),
		reply:       limit(p.MaxReplyLength, defaultMaxReplyLength),
		readAhead:   max(limit(p.MaxReadAhead, defaultMaxReadAhead), buffer.Small),
		smallChunks: limit(p.MaxSmallChunks, defaultMaxSmallChunks),
		recipients:  limit(p.MaxRecipients, defaultMaxRecipients),
		commands:    limit(p.MaxCommands, unlimited),
		errors:      limit(p.MaxErrors, defaultMaxErrors),
	}
}

// unlimited leaves room to add a line end.
const unlimited = math.MaxInt - 2

// limit returns the value of a field: 0 is the default, negative is off.
func limit(field, byDefault int) int {
	switch {
	case field == 0:
		return byDefault
	case field < 0:
		return unlimited
	}
	return field
}

// lineLimit returns the longest line of a SASL exchange, or command, with its
// line end.
func (l *limits) lineLimit(sasl bool) int {
	if sasl {
		return l.saslLine
	}
	return l.line
}

// counts are what a session has counted against its limits.
type counts struct {
	commands count
	errors   count // commands that no server would know what to do with
}

// count counts up to what 32 bits hold, and stays there.
type count uint32

func (n *count) add() {
	if *n < math.MaxUint32 {
		*n++
	}
}

func (n count) exceeds(limit int) bool { return int64(n) > int64(limit) }

// isHTTP tells whether a line is the request line of HTTP (RFC 9112 section 3).
// A browser can be made to send a request to any port, with lines in it that
// look like commands.
func isHTTP(verb, line string) bool {
	switch verb {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI":
		args := argsOf(line)
		return strings.HasPrefix(args, "/") || strings.Contains(args, " HTTP/")
	}
	return false
}
