package servertest

import (
	"bufio"
	"io"
	"net"
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
	items    chan item
	verdicts chan reading // what to read behind DATA or BDAT
	done     chan struct{}
	ended    chan struct{}

	owed bool // the executing side's: the reading side waits for a verdict
}

// item is a line, the content of a message or a chunk; or the error that ended
// the reading.
type item struct {
	bytes []byte
	err   error
}

// reading reads what is not a line. A nil reading is the verdict that another
// line follows.
type reading func(*bufio.Reader) ([]byte, error)

func openAhead(c net.Conn) source {
	a := &ahead{
		items:    make(chan item, 64),
		verdicts: make(chan reading),
		done:     make(chan struct{}),
		ended:    make(chan struct{}),
	}
	go a.read(c)
	return source{
		readLine: a.readLine,
		readData: func() ([]byte, error) { return a.ask(strict.content(-1)) },
		readChunk: func(w io.Writer, n int64) error {
			_, err := a.ask(func(r *bufio.Reader) ([]byte, error) { return nil, copyN(w, r, n) })
			return err
		},
		stop: func() { close(a.done); <-a.ended },
	}
}

// read is the reading side.
func (a *ahead) read(c net.Conn) {
	defer close(a.ended)
	r := bufio.NewReader(c)
	for {
		c.SetReadDeadline(time.Now().Add(readTimeout))
		line, err := strict.read(r)
		if !a.send([]byte(line), err) {
			return
		}
		if !waits(line) {
			continue
		}
		select {
		case read := <-a.verdicts:
			if read == nil {
				continue
			}
			c.SetReadDeadline(time.Now().Add(readTimeout))
			if b, err := read(r); !a.send(b, err) {
				return
			}
		case <-a.done:
			return
		}
	}
}

// send hands an item over and reports whether to read on.
func (a *ahead) send(b []byte, err error) bool {
	select {
	case a.items <- item{b, err}:
		return err == nil
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
	it := <-a.items
	line := string(it.bytes)
	a.owed = it.err == nil && waits(line)
	return line, it.err
}

// ask has the reading side read what is not a line.
func (a *ahead) ask(read reading) ([]byte, error) {
	a.verdicts <- read
	a.owed = false
	it := <-a.items
	return it.bytes, it.err
}
