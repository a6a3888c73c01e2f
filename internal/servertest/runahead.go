package servertest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// RunAhead returns a server with the lines of [Strict] that has a goroutine of
// its own for reading. That goroutine reads on as fast as it can, whether or
// not what it read was executed and answered, and after the end of content
// too. Only behind DATA and BDAT, where it can't know what comes, it waits for
// the executing side: for the 354 or another answer to DATA, and for BDAT to be
// taken as a command rather than as a line of a SASL exchange.
func RunAhead(opts ...Option) *Server {
	return handWritten(openAhead, opts)
}

// ahead is what the reading and the executing side of a connection share.
type ahead struct {
	items    chan item    // closed when nothing more comes
	verdicts chan reading // what to read behind DATA or BDAT
	done     chan struct{}

	owed bool // the executing side's: the reading side waits for a verdict
}

// item is a line, or that content or a chunk was read; or the error that ended
// the reading of it.
type item struct {
	line string
	err  error
}

// reading reads what is not a line. A nil reading is the verdict that another
// line follows.
type reading func(*bufio.Reader) error

func openAhead(c net.Conn, o *options) source {
	a := &ahead{
		items:    make(chan item, 64),
		verdicts: make(chan reading),
		done:     make(chan struct{}),
	}
	go a.read(c, o.readTimeout)
	return source{
		readLine: a.readLine,
		readBody: func(b *body) error {
			return a.ask(func(r *bufio.Reader) error { return b.read(r, strict) })
		},
		readChunk: func(w io.Writer, n int64) error {
			return a.ask(func(r *bufio.Reader) error { return copyN(w, r, n) })
		},
		stop: func() {
			close(a.done)
			for range a.items {
			}
		},
	}
}

// read is the reading side. What the executing side makes of content or a chunk
// that can't be read is its own business; only a connection without another line
// ends the reading.
func (a *ahead) read(c net.Conn, timeout time.Duration) {
	defer close(a.items)
	r := bufio.NewReader(c)
	for {
		c.SetReadDeadline(time.Now().Add(timeout))
		line, err := strict.read(r)
		switch {
		case !a.send(line, err), err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return
		case !waits(line):
			continue
		}
		select {
		case read := <-a.verdicts:
			if read == nil {
				continue
			}
			c.SetReadDeadline(time.Now().Add(timeout))
			if !a.send("", read(r)) {
				return
			}
		case <-a.done:
			return
		}
	}
}

// send hands an item over and reports whether somebody takes it.
func (a *ahead) send(line string, err error) bool {
	select {
	case a.items <- item{line, err}:
		return true
	case <-a.done:
		return false
	}
}

// waits reports whether the reading side waits for a verdict behind a line.
func waits(line string) bool {
	v := verb(line)
	return v == "DATA" || v == "BDAT"
}

func (a *ahead) readLine() (string, error) {
	if a.owed {
		a.verdicts <- nil
	}
	it, ok := <-a.items
	if !ok {
		it.err = io.EOF
	}
	a.owed = it.err == nil && waits(it.line)
	return it.line, it.err
}

// ask has the reading side read what is not a line.
func (a *ahead) ask(read reading) error {
	a.verdicts <- read
	a.owed = false
	return (<-a.items).err
}
