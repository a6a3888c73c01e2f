// Package buffer holds octets that are on their way, in memory that an idle
// connection has none of.
package buffer

import (
	"io"
	"sync"
)

// Buffer holds octets in the order in which they came. It has memory only while it
// holds some, or has been told to reserve some. The zero value is an empty Buffer.
// It is one owner's at a time, and must not be copied: see Move.
type Buffer struct{ m *memory }

// memory is what a Buffer holds octets in, from a pool.
type memory struct {
	b    []byte // b[r:w] is held
	r, w int
}

// Two sizes of memory are pooled: commands are small, content comes in bulk.
const (
	Small = 4 << 10
	Large = 32 << 10
)

var (
	smallMemory = sync.Pool{New: func() any { return newMemory(Small) }}
	largeMemory = sync.Pool{New: func() any { return newMemory(Large) }}
)

func newMemory(size int) *memory { return &memory{b: make([]byte, size)} }

func getMemory(size int) *memory {
	switch {
	case size <= Small:
		return smallMemory.Get().(*memory)
	case size <= Large:
		return largeMemory.Get().(*memory)
	}
	return newMemory(size)
}

func putMemory(m *memory) {
	m.r, m.w = 0, 0
	switch len(m.b) {
	case Small:
		smallMemory.Put(m)
	case Large:
		largeMemory.Put(m)
	}
}

// Held returns what is in the buffer. It is valid until the next call of a method
// other than Len.
func (b *Buffer) Held() []byte {
	if b.m == nil {
		return nil
	}
	return b.m.b[b.m.r:b.m.w]
}

// Len returns how many octets are held.
func (b *Buffer) Len() int {
	if b.m == nil {
		return 0
	}
	return b.m.w - b.m.r
}

// Skip drops the first n octets, of which there must be as many. The memory goes
// when the last are dropped.
func (b *Buffer) Skip(n int) {
	if n == b.Len() {
		b.Release()
		return
	}
	b.m.r += n
}

// Release drops all octets, and gives the memory back.
func (b *Buffer) Release() {
	if b.m != nil {
		putMemory(b.m)
		b.m = nil
	}
}

// Reserve gives the buffer memory in which it can hold size octets, those that it
// holds among them. What it holds stays.
func (b *Buffer) Reserve(size int) {
	m := b.m
	if m == nil {
		b.m = getMemory(size)
		return
	}
	if m.r > 0 && len(m.b) >= size {
		m.w = copy(m.b, b.Held())
		m.r = 0
	}
	if len(m.b) >= size {
		return
	}
	if size > Large {
		size = max(size, 2*len(m.b)) // else a long line would cost its square
	}
	bigger := getMemory(size)
	bigger.w = copy(bigger.b, b.Held())
	putMemory(m)
	b.m = bigger
}

// Put appends p, which must not be what the buffer itself holds.
func (b *Buffer) Put(p []byte) {
	if len(p) == 0 {
		return
	}
	b.Reserve(b.Len() + len(p))
	b.m.w += copy(b.m.b[b.m.w:], p)
}

// Take moves the first octets to p, and returns how many.
func (b *Buffer) Take(p []byte) int {
	n := copy(p, b.Held())
	b.Skip(n)
	return n
}

// Move empties the buffer, and returns one that holds what it held.
func (b *Buffer) Move() Buffer {
	moved := *b
	*b = Buffer{}
	return moved
}

// Fill reads once from r, into as much room as is reserved, but holds no more than
// limit octets then, which must not be fewer than it holds already. Reserve must have
// been called since the buffer was last empty. The memory goes if there is nothing to
// hold. The error is r's.
func (b *Buffer) Fill(r io.Reader, limit int) error {
	n, err := r.Read(b.Room(limit))
	b.Filled(n)
	return err
}

// Room returns the room that Fill reads into. Filled follows.
func (b *Buffer) Room(limit int) []byte {
	m := b.m
	return m.b[m.w:min(len(m.b), m.r+min(limit, len(m.b)))]
}

// Filled adds the first n octets of Room to what is held.
func (b *Buffer) Filled(n int) {
	b.m.w += n
	if b.m.r == b.m.w {
		b.Release()
	}
}
