package servertest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"time"
)

var (
	strict  = lines{end: "\r\n", chomp: chompCRLF}
	lenient = lines{end: "\n", chomp: chompAny}
)

// Strict returns a server that takes CRLF alone as the end of a line; a bare CR
// or LF is a part of the line. Content ends at CRLF.CRLF only, its start
// counting as the start of a line.
func Strict(opts ...Option) *Server { return handWritten(strict.open, opts) }

// Lenient returns a server that takes LF, with any number of CRs before it, as
// the end of a line. Content ends at a line that is a dot, whatever ends that
// line and the one before. The ends of content lines are left as they came.
func Lenient(opts ...Option) *Server { return handWritten(lenient.open, opts) }

// EarlyRefuser returns a server with the lines of [Lenient] that refuses a
// message as soon as it has read more than n octets of its content, dot-stuffing
// and the final dot not counted. It drops what it has in its buffer at that
// moment and takes what comes next as commands, be it the rest of the content.
func EarlyRefuser(n int, opts ...Option) *Server {
	return Lenient(append([]Option{limitOctets(n)}, opts...)...)
}

// lines is a notion of what a line is.
type lines struct {
	end   string                   // ends a line
	chomp func(line []byte) []byte // removes the end from a line
}

func chompCRLF(line []byte) []byte { return bytes.TrimSuffix(line, []byte("\r\n")) }
func chompAny(line []byte) []byte  { return bytes.TrimRight(line[:len(line)-1], "\r") }

// open returns a source that reads from the connection when the session asks.
func (l lines) open(c net.Conn, o *options) source {
	r := bufio.NewReader(c)
	arm := func() { c.SetReadDeadline(time.Now().Add(o.readTimeout)) }
	return source{
		readLine:  func() (string, error) { arm(); return l.read(r) },
		readBody:  func(b *body) error { arm(); return b.read(r, l) },
		readChunk: func(w io.Writer, n int64) error { arm(); return copyN(w, r, n) },
		stop:      func() {},
	}
}

func copyN(w io.Writer, r io.Reader, n int64) error {
	_, err := io.CopyN(w, r, n)
	return err
}

// read reads one line and returns it without its end.
func (l lines) read(r *bufio.Reader) (string, error) {
	line, err := l.next(r, func([]byte) error { return nil })
	if err != nil {
		return "", err
	}
	return string(l.chomp(line)), nil
}

// next reads one line with its end. It shows each beginning of the line to
// check, and stops when that fails.
func (l lines) next(r *bufio.Reader, check func(beginning []byte) error) ([]byte, error) {
	var line []byte
	for !bytes.HasSuffix(line, []byte(l.end)) {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		line = append(line, b)
		if err := check(line); err != nil {
			return nil, err
		}
	}
	return line, nil
}
