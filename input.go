package smtpproxy

import (
	"bytes"
	"errors"
	"os"
	"sync"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// input is what the client sends: lines, content, and what is dropped of both.
type input struct {
	reading sync.Mutex    // the token of who reads from the client; guards what follows
	ahead   buffer.Buffer // what the client has sent ahead
	err     error         // why nothing will be added to ahead
	// rest is the end of the last line, which did not fit into the slice of the
	// server's Read. The next Read returns it first.
	rest    buffer.Buffer
	content *content // nil before the first message
	late    *answer  // to a BDAT command, when its chunk is dropped (RFC 3030 section 2)
}

// The errors of cutLine, with which the connection ends.
var (
	errClientHello = errors.New("smtpproxy: TLS without STARTTLS")
	errLineTooLong = errors.New("smtpproxy: line too long")
)

// cutLine cuts the client's next line off held, which is all that there is of what the
// client has sent: in the server's own slice if inP, else in in.ahead. It returns the
// line without its line end, CRLF or LF, and leaves what is behind it in in.ahead. With
// its line end, a line has limit octets at most. It returns false if there is none yet.
func (in *input) cutLine(held []byte, inP bool, limit int) (line string, ok bool, err error) {
	i := bytes.IndexByte(held, '\n')
	switch {
	case isClientHello(held):
		return "", false, errClientHello // it may have no LF, and be followed by silence
	case i >= limit, i < 0 && len(held) >= limit:
		return "", false, errLineTooLong // without waiting for its end, which may never come
	case i < 0:
		return "", false, nil
	}
	line = dialogue.LineOf(bytes.TrimSuffix(held[:i], []byte("\r")))
	if inP {
		in.ahead.Put(held[i+1:])
	} else {
		in.ahead.Skip(i + 1)
	}
	return line, true, nil
}

// isClientHello tells whether b starts like a TLS handshake: with the type of
// its record, and the major version if that is there already (RFC 8446 section
// 5.1). No command and no SASL response does.
func isClientHello(b []byte) bool {
	return len(b) > 0 && b[0] == 0x16 && (len(b) == 1 || b[1] == 3)
}

// behind tells what the client has sent ahead.
func (in *input) behind() behind {
	switch {
	case in.ahead.Len() == 0:
		return nothingBehind
	case in.hasLine():
		return lineBehind
	}
	return octetsBehind
}

// hasLine tells whether the client has sent a whole line ahead.
func (in *input) hasLine() bool { return bytes.IndexByte(in.ahead.Held(), '\n') >= 0 }

// minRead is for how many octets a read from the client has room, at least.
const minRead = 512

// isEmpty tells whether nothing is held, and more may come.
func (in *input) isEmpty() bool { return in.ahead.Len() == 0 && in.err == nil }

// room returns what the client is read into next: the server's own slice, p, or room in in.ahead.
func (in *input) room(p []byte, state dialogue.State, l *limits) (room []byte, inP bool) {
	if state.IsContent() { // it comes in bulk, as in fill
		in.ahead.Reserve(min(buffer.Large, l.readAhead))
		return in.ahead.Room(l.readAhead), false
	}
	// While nothing is held, the server's slice serves for a line, so that nothing has to be kept
	// for a client that is silent, and a line that comes alone isn't copied.
	if in.ahead.Len() == 0 && len(p) >= minRead {
		return p[:min(len(p), l.readAhead)], true
	}
	size := min(in.ahead.Len()+1, l.lineLimit(state.IsSASL()))
	in.ahead.Reserve(max(size, min(2*in.ahead.Len(), buffer.Small), minRead))
	return in.ahead.Room(max(size, l.readAhead)), false
}

// readError returns the error of the client's connection, when all that was
// read before it is used up. A passed deadline is forgotten, since the server
// may set another.
func (in *input) readError() error {
	err := in.err
	if errors.Is(err, os.ErrDeadlineExceeded) {
		in.err = nil
	} else {
		in.ahead.Release()
	}
	return err
}
