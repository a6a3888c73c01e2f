package smtpproxy

import (
	"io"
	"sync"
)

// buffer holds octets that are on their way. It has memory only while it holds
// some, so that an idle connection costs none.
type buffer struct{ m *memory }

// memory is what a buffer holds octets in, from a pool.
type memory struct {
	b    []byte // b[r:w] is held
	r, w int
}

// Two sizes are pooled: commands are small, content comes in bulk.
const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

var (
	smallMemory = sync.Pool{New: func() any { return newMemory(smallBuffer) }}
	largeMemory = sync.Pool{New: func() any { return newMemory(largeBuffer) }}
)

func newMemory(size int) *memory { return &memory{b: make([]byte, size)} }

func getMemory(size int) *memory {
	switch {
	case size <= smallBuffer:
		return smallMemory.Get().(*memory)
	case size <= largeBuffer:
		return largeMemory.Get().(*memory)
	}
	return newMemory(size)
}

func putMemory(m *memory) {
	m.r, m.w = 0, 0
	switch len(m.b) {
	case smallBuffer:
		smallMemory.Put(m)
	case largeBuffer:
		largeMemory.Put(m)
	}
}

// held returns what is in the buffer. It is valid until the next call.
func (b *buffer) held() []byte {
	if b.m == nil {
		return nil
	}
	return b.m.b[b.m.r:b.m.w]
}

func (b *buffer) len() int {
	if b.m == nil {
		return 0
	}
	return b.m.w - b.m.r
}

// skip drops the first n octets. The memory goes when the last are dropped.
func (b *buffer) skip(n int) {
	if n == b.len() {
		b.release()
		return
	}
	b.m.r += n
}

func (b *buffer) release() {
	if b.m != nil {
		putMemory(b.m)
		b.m = nil
	}
}

// reserve makes the buffer one that can hold size octets.
func (b *buffer) reserve(size int) {
	m := b.m
	if m == nil {
		b.m = getMemory(size)
		return
	}
	if m.r > 0 && len(m.b) >= size {
		m.w = copy(m.b, b.held())
		m.r = 0
	}
	if len(m.b) >= size {
		return
	}
	if size > largeBuffer {
		size = max(size, 2*len(m.b)) // else a long line would cost its square
	}
	bigger := getMemory(size)
	bigger.w = copy(bigger.b, b.held())
	putMemory(m)
	b.m = bigger
}

// put appends p.
func (b *buffer) put(p []byte) {
	if len(p) == 0 {
		return
	}
	b.reserve(b.len() + len(p))
	b.m.w += copy(b.m.b[b.m.w:], p)
}

// take moves the first octets to p.
func (b *buffer) take(p []byte) int {
	n := copy(p, b.held())
	b.skip(n)
	return n
}

// move empties the buffer, and returns one that holds what it held.
func (b *buffer) move() buffer {
	moved := *b
	*b = buffer{}
	return moved
}

// fill reads once from r, into as much room as is reserved, but holds no more
// than limit octets then.
func (b *buffer) fill(r io.Reader, limit int) error {
	m := b.m
	n, err := r.Read(m.b[m.w:min(len(m.b), m.r+min(limit, len(m.b)))])
	m.w += n
	if m.r == m.w {
		b.release()
	}
	return err
}
