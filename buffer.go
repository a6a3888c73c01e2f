package smtpproxy

import (
	"io"
	"sync"
)

// buffer holds what a client sent ahead. It has memory only while it holds
// something, so that an idle connection costs none.
type buffer struct {
	b    []byte // b[r:w] is held
	r, w int
}

// Two sizes are pooled: commands are small, content comes in bulk.
const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

func getBuffer(size int) []byte {
	switch {
	case size <= smallBuffer:
		return smallBuffers.Get().(*[smallBuffer]byte)[:]
	case size <= largeBuffer:
		return largeBuffers.Get().(*[largeBuffer]byte)[:]
	}
	return make([]byte, size)
}

func putBuffer(b []byte) {
	switch len(b) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(b))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(b))
	}
}

// held returns what is in the buffer. It is valid until the next call.
func (b *buffer) held() []byte { return b.b[b.r:b.w] }

func (b *buffer) len() int { return b.w - b.r }

// skip drops the first n octets. The memory goes when the last are dropped.
func (b *buffer) skip(n int) {
	b.r += n
	if b.r == b.w {
		b.release()
	}
}

func (b *buffer) release() {
	putBuffer(b.b)
	*b = buffer{}
}

// reserve makes the buffer one that can hold size octets.
func (b *buffer) reserve(size int) {
	if b.r > 0 && len(b.b) >= size {
		b.w = copy(b.b, b.held())
		b.r = 0
	}
	if len(b.b) >= size {
		return
	}
	if size > largeBuffer {
		size = max(size, 2*len(b.b)) // else a long line would cost its square
	}
	bigger := getBuffer(size)
	n := copy(bigger, b.held())
	putBuffer(b.b)
	*b = buffer{b: bigger, w: n}
}

// put appends p.
func (b *buffer) put(p []byte) {
	if len(p) == 0 {
		return
	}
	b.reserve(b.len() + len(p))
	b.w += copy(b.b[b.w:], p)
}

// fill reads once from r, into as much room as is reserved, but holds no more
// than limit octets then.
func (b *buffer) fill(r io.Reader, limit int) error {
	n, err := r.Read(b.b[b.w:min(len(b.b), b.r+min(limit, len(b.b)))])
	b.w += n
	if b.r == b.w {
		b.release()
	}
	return err
}
