package servertest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"time"
)

// dialect tells what ends a line and what ends content.
type dialect struct {
	readLine func(*bufio.Reader) (string, error)
	readData func(*bufio.Reader) ([]byte, error)
}

var (
	strict  = lines{end: "\r\n", chomp: chompCRLF}
	lenient = lines{end: "\n", chomp: chompAny}
)

// Strict returns a server that takes CRLF alone as the end of a line; a bare CR
// or LF is a part of the line. Content ends at CRLF.CRLF only, its start
// counting as the start of a line.
func Strict(opts ...Option) *Server {
	return handWritten(dialect{strict.read, strict.content(-1)}.open, opts)
}

// Lenient returns a server that takes LF, with any number of CRs before it, as
// the end of a line. Content ends at a line that is a dot, whatever ends that
// line and the one before. The ends of content lines are left as they came.
func Lenient(opts ...Option) *Server {
	return handWritten(dialect{lenient.read, lenient.content(-1)}.open, opts)
}

// EarlyRefuser returns a server with the lines of [Lenient] that refuses a
// message as soon as it has read more than n octets of its content, dot-stuffing
// and the final dot not counted. It drops what it has in its buffer at that
// moment and takes what comes next as commands, be it the rest of the content.
func EarlyRefuser(n int, opts ...Option) *Server {
	return handWritten(dialect{lenient.read, lenient.content(n)}.open, opts)
}

// open returns a source that reads from the connection when the session asks.
func (d dialect) open(c net.Conn) source {
	r := bufio.NewReader(c)
	arm := func() { c.SetReadDeadline(time.Now().Add(readTimeout)) }
	return source{
		readLine:  func() (string, error) { arm(); return d.readLine(r) },
		readData:  func() ([]byte, error) { arm(); return d.readData(r) },
		readChunk: func(w io.Writer, n int64) error { arm(); return copyN(w, r, n) },
		stop:      func() {},
	}
}

func copyN(w io.Writer, r io.Reader, n int64) error {
	_, err := io.CopyN(w, r, n)
	return err
}

// lines is a notion of what a line is.
type lines struct {
	end   string                   // ends a line
	chomp func(line []byte) []byte // removes the end from a line
}

func chompCRLF(line []byte) []byte { return bytes.TrimSuffix(line, []byte("\r\n")) }
func chompAny(line []byte) []byte  { return bytes.TrimRight(line[:len(line)-1], "\r") }

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

// content returns a function that reads content up to the line that is a dot.
// With a limit that is not negative the function refuses content that is
// longer, in the way of EarlyRefuser.
func (l lines) content(limit int) func(*bufio.Reader) ([]byte, error) {
	return func(r *bufio.Reader) ([]byte, error) {
		var content []byte
		check := func(beginning []byte) error {
			if limit < 0 || len(content)+octets(beginning) <= limit {
				return nil
			}
			r.Discard(r.Buffered())
			return refusal("552 5.3.4 too big")
		}
		for {
			line, err := l.next(r, check)
			if err != nil {
				return nil, err
			}
			if string(l.chomp(line)) == "." {
				return content, nil
			}
			content = append(content, bytes.TrimPrefix(line, []byte("."))...)
		}
	}
}

// octets counts the octets of content that a line, or its beginning, is sure to
// hold: none as long as it can be the final dot.
func octets(line []byte) int {
	rest, dot := bytes.CutPrefix(line, []byte("."))
	if dot && len(bytes.Trim(rest, "\r\n")) == 0 {
		return 0
	}
	return len(rest)
}
