package servertest

import (
	"bufio"
	"bytes"
)

// body reads the content of one message.
type body struct {
	*options
	content []byte       // so far, without dot-stuffing
	refuse  func() error // called once, when a limit is passed; with nil, the reading goes on
	passed  bool         // a limit is
}

// read reads up to the line that ends the content. It returns an error of refuse
// at once.
func (b *body) read(r *bufio.Reader, l lines) error {
	for {
		line, err := l.next(r, func(beginning []byte) error {
			return b.check(r, b.octetLimit, len(b.content)+octets(beginning))
		})
		switch {
		case err != nil:
			return err
		case b.isDot(line, l):
			return nil
		}
		b.content = append(b.content, bytes.TrimPrefix(line, []byte("."))...)
		if err := b.check(r, b.lineLimit, len(b.content)); err != nil {
			return err
		}
	}
}

// isDot tells whether a line ends the content.
func (b *body) isDot(line []byte, l lines) bool {
	chomp := l.chomp
	if b.dotCRLF {
		chomp = chompCRLF
	}
	text := chomp(line)
	if b.trimsDot {
		text = bytes.TrimSpace(text)
	}
	if b.unstuffsDot && bytes.HasPrefix(text, []byte("..")) {
		text = text[1:]
	}
	return string(text) == "."
}

// check calls refuse if the content is the first time longer than a limit.
func (b *body) check(r *bufio.Reader, limit, octets int) error {
	if limit < 0 || octets <= limit || b.passed {
		return nil
	}
	b.passed = true
	if !b.readsOn && !b.keepsBuffer {
		r.Discard(r.Buffered())
	}
	return b.refuse()
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
