package servertest

import (
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	taken  = "250 2.0.0 taken"
	tooBig = "552 5.3.4 too big"
)

// transaction is what a session knows of the message to come.
type transaction struct {
	mail     bool // MAIL was accepted
	from     string
	to       []string
	chunking bool // a chunk was taken
	chunks   strings.Builder
}

func (x *session) reset() {
	x.mail, x.from, x.to = false, "", nil
	x.dropChunks()
}

func (x *session) dropChunks() {
	x.chunking = false
	x.chunks.Reset()
}

func (x *session) setSender(line string) string {
	from, ok := path(line, "FROM:")
	switch {
	case !ok:
		return "501 5.5.4 syntax: MAIL FROM:<address>"
	case x.mail && !x.server.mailAnew:
		return "503 5.5.1 there is a sender already"
	case x.mail:
		x.reset()
	}
	x.mail, x.from = true, from
	return "250 2.1.0 sender ok"
}

func (x *session) addRecipient(line string) string {
	to, ok := path(line, "TO:")
	switch {
	case !ok || to == "":
		return "501 5.5.4 syntax: RCPT TO:<address>"
	case !x.mail && !x.server.recipientsFirst || x.chunking:
		return "503 5.5.1 not now"
	case noSuchUser(to):
		return "550 5.1.1 no such user"
	}
	x.to = append(x.to, to)
	return "250 2.1.5 recipient ok"
}

func noSuchUser(recipient string) bool { return strings.HasPrefix(recipient, "no") }

// path returns what the angle brackets after the keyword enclose.
func path(line, keyword string) (string, bool) {
	rest := strings.TrimSpace(line)
	rest = strings.TrimSpace(rest[len(strings.Fields(rest)[0]):])
	if len(rest) < len(keyword) || !strings.EqualFold(rest[:len(keyword)], keyword) {
		return "", false
	}
	_, rest, open := strings.Cut(rest, "<")
	addr, _, end := strings.Cut(rest, ">")
	return addr, open && end
}

// isReady tells whether a message may come.
func (x *session) isReady() bool { return x.mail && len(x.to) > 0 }

// forEach returns the reply to a message as often as n recipients have it.
func (x *session) forEach(n int, reply string) []string {
	if !x.server.lmtp {
		n = 1
	}
	return slices.Repeat([]string{reply}, n)
}

// errLeft is why the content of a message is not read to its end.
var errLeft = errors.New("the message is refused")

func (x *session) data() ([]string, error) {
	if !x.isReady() || x.chunking {
		return one("503 5.5.1 no recipients, or chunks before")
	}
	if err := x.reply("354 go ahead"); err != nil {
		return nil, err
	}
	refused := 0 // recipients that have their reply before the end
	b := &body{options: &x.server.options, refuse: func() error {
		refused = len(x.to)
		if n := x.server.refusedFirst; x.server.lmtp && n >= 0 {
			refused = min(n, refused)
		}
		if err := x.replyEach(x.forEach(refused, tooBig)); err != nil || x.server.readsOn {
			return err
		}
		return errLeft
	}}
	err := x.in.readBody(b)
	switch {
	case errors.Is(err, errLeft):
		x.end(false)
		return nil, nil
	case err != nil:
		return x.failed(err)
	}
	return nil, x.replyEach(x.deliver(b.content, refused))
}

// deliver ends the transaction with a message, and returns the replies that it
// gets; the first so many recipients have theirs.
func (x *session) deliver(content []byte, refused int) (replies []string) {
	var takers []string
	for _, to := range x.to[refused:] {
		reply := x.status(to, content)
		if reply[0] == '2' {
			takers = append(takers, to)
		}
		replies = append(replies, reply)
	}
	if len(takers) > 0 {
		x.server.message(Message{x.from, takers, content})
	}
	x.end(slices.Contains(replies, taken))
	if !x.server.lmtp {
		replies = slices.Compact(replies)
	}
	return replies
}

// status returns the reply to a message for one recipient. In SMTP, it is the
// same for each.
func (x *session) status(to string, content []byte) string {
	switch {
	case len(content) > maxSize:
		return tooBig
	case x.server.lmtp && slices.Contains(x.server.refused, to):
		return "550 5.7.1 refused"
	case x.server.reply != "":
		return x.server.reply
	}
	return taken
}

// end ends the transaction behind its message, if the server does then.
func (x *session) end(usual bool) {
	if x.server.keepsEnvelope && !usual {
		x.dropChunks()
		return
	}
	x.reset()
}

var bdatLine = regexp.MustCompile(`^[Bb][Dd][Aa][Tt] (\S+)( [Ll][Aa][Ss][Tt])?$`)

// chunk takes a BDAT command apart.
func (x *session) chunk(line string) (size int64, last, ok bool) {
	m := bdatLine.FindStringSubmatch(line)
	if m == nil {
		return 0, false, false
	}
	if x.server.baseZero {
		n, err := strconv.ParseInt(m[1], 0, 64)
		return n, m[2] != "", err == nil && n >= 0
	}
	n, err := strconv.ParseUint(m[1], 10, 63) // takes no sign
	return int64(n), m[2] != "", err == nil
}

func (x *session) bdat(line string) ([]string, error) {
	size, last, ok := x.chunk(line)
	if !ok { // nobody knows how much follows
		x.closing = true
		return one("501 5.5.4 syntax: BDAT size [LAST]")
	}

	// RFC 2033 section 4.3 wants a status for each recipient behind the last
	// chunk alone.
	each := func(reply string) []string {
		if last && x.isReady() {
			return x.forEach(len(x.to), reply)
		}
		return []string{reply}
	}
	fits := size <= maxSize-int64(x.chunks.Len())
	takes := x.isReady() && fits
	answered := takes && x.server.answersChunks
	if answered {
		if err := x.replyEach(each("250 2.0.0 taken unseen")); err != nil {
			return nil, err
		}
	}

	var chunk strings.Builder
	var w io.Writer = &chunk
	if !takes {
		w = io.Discard
	}
	if err := x.in.readChunk(w, size); err != nil {
		return x.failed(err)
	}
	x.chunks.WriteString(chunk.String())
	var replies []string
	switch {
	case !x.isReady():
		return one("503 5.5.1 no recipients")
	case !fits:
		replies = each(tooBig)
		x.end(false)
	case last:
		replies = x.deliver([]byte(x.chunks.String()), 0)
	default:
		x.chunking = true
		replies = each("250 2.0.0 chunk taken")
	}
	if answered {
		return nil, nil
	}
	return nil, x.replyEach(replies)
}
