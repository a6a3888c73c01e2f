package buffer

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// check holds a buffer against the octets that it should hold.
func check(t *testing.T, what string, b *Buffer, want []byte) {
	t.Helper()
	if got := b.Held(); !bytes.Equal(got, want) || b.Len() != len(want) {
		t.Fatalf("%s: %d octets held, %d told, want %d: %.20q, want %.20q", what, len(got), b.Len(), len(want), got, want)
	}
}

// numbered returns n octets, none of which is like its neighbours.
func numbered(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i % 251)
	}
	return p
}

// Whatever is done to it, and in whatever order, a Buffer holds what a plain slice
// would, and no memory when it holds nothing and nobody has asked for room.
func TestABufferHoldsWhatASliceWould(t *testing.T) {
	sizes := []int{0, 1, 2, 500, Small - 1, Small, Small + 1, 10000, Large - 1, Large, Large + 1, 3 * Large}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var b Buffer
		var model []byte
		next := byte(0)
		octets := func(n int) []byte {
			p := make([]byte, n)
			for i := range p {
				next++
				p[i] = next
			}
			return p
		}
		for range 100 {
			size, what := sizes[r.IntN(len(sizes))], ""
			gives := true // memory back, if nothing is held
			switch r.IntN(7) {
			case 0:
				what, gives = "Put", len(model)+size > 0
				p := octets(size)
				b.Put(p)
				model = append(model, p...)
			case 1:
				what = "Skip"
				n := r.IntN(len(model) + 1)
				b.Skip(n)
				model = model[n:]
			case 2:
				what = "Take"
				p := make([]byte, size)
				n := b.Take(p)
				if want := min(size, len(model)); n != want || !bytes.Equal(p[:n], model[:n]) {
					t.Fatalf("seed %d: Take of %d returned %d: %.20q, want %d: %.20q", seed, size, n, p[:n], want, model[:want])
				}
				model = model[n:]
			case 3:
				what, gives = "Reserve", false
				b.Reserve(size)
				if room := len(b.m.b) - b.m.r; room < size {
					t.Fatalf("seed %d: room for %d octets, not %d", seed, room, size)
				}
			case 4:
				what = "Fill"
				b.Reserve(len(model) + 1)
				room := len(b.m.b) - b.m.w
				limit := len(model) + r.IntN(2*room)
				source := octets(size)
				err := b.Fill(bytes.NewReader(source), limit)
				n := min(room, limit-len(model), len(source))
				model = append(model, source[:n]...)
				if wantErr := n == 0 && len(source) == 0; (err != nil) != wantErr {
					t.Fatalf("seed %d: Fill with %d octets for a room of %d: %v", seed, size, room, err)
				}
			case 5:
				what, gives = "Move", false
				moved := b.Move()
				check(t, "what was left", &b, nil)
				b = moved
			case 6:
				if r.IntN(4) > 0 {
					continue // else little would ever be held
				}
				what = "Release"
				b.Release()
				model = nil
			}
			check(t, what, &b, model)
			if len(model) == 0 && gives && b.m != nil {
				t.Fatalf("seed %d: behind %s it holds memory for nothing", seed, what)
			}
			if len(model) > 1<<20 {
				b.Release()
				model = nil
			}
		}
		b.Release()
	}
}

func TestMemoryIsGivenBackWithTheLastOctet(t *testing.T) {
	for _, tt := range []struct {
		why  string
		goes bool
		do   func(b *Buffer)
	}{
		{"one of two octets is left", false, func(b *Buffer) { b.Skip(1) }},
		{"none is left behind Skip", true, func(b *Buffer) { b.Skip(1); b.Skip(1) }},
		{"one of two octets is left behind Take", false, func(b *Buffer) { b.Take(make([]byte, 1)) }},
		{"none is left behind Take", true, func(b *Buffer) { b.Take(make([]byte, 3)) }},
		{"it is released", true, (*Buffer).Release},
		{"it is released twice", true, func(b *Buffer) { b.Release(); b.Release() }},
		{"another has it", true, func(b *Buffer) { moved := b.Move(); moved.Release() }},
		{"nothing was skipped", false, func(b *Buffer) { b.Skip(0) }},
		{"nothing was put", false, func(b *Buffer) { b.Put(nil) }},
	} {
		var b Buffer
		b.Put([]byte("ab"))
		tt.do(&b)
		if goes := b.m == nil; goes != tt.goes {
			t.Errorf("%s: memory given back: %v", tt.why, goes)
		}
	}
}

func TestAnEmptyBufferHasNoMemory(t *testing.T) {
	var b Buffer
	b.Put(nil)
	b.Skip(0)
	b.Take(make([]byte, 1))
	b.Release()
	if moved := b.Move(); moved.m != nil {
		t.Error("what is moved has memory")
	}
	if b.m != nil || b.Len() != 0 || b.Held() != nil {
		t.Errorf("it has memory: %v", b.m)
	}
}

func TestMemoryComesInTwoSizesUntilMoreIsNeeded(t *testing.T) {
	for _, tt := range []struct {
		why             string
		has, asks, want int
	}{
		{"one octet takes the small one", 0, 1, Small},
		{"all of the small one", 0, Small, Small},
		{"one octet more", 0, Small + 1, Large},
		{"all of the large one", 0, Large, Large},
		{"more than that is made to measure", 0, Large + 1, Large + 1},
		{"what fits changes nothing", Large, 1, Large},
		{"the small one grows to the large one", Small, Small + 1, Large},
		{"the large one doubles, or a long line would cost its square", Large, Large + 1, 2 * Large},
		{"more than twice as much is made to measure", Large, 2*Large + 1, 2*Large + 1},
		{"and doubles again", 2 * Large, 2*Large + 1, 4 * Large},
	} {
		var b Buffer
		if tt.has > 0 {
			b.Reserve(tt.has)
		}
		if b.Reserve(tt.asks); len(b.m.b) != tt.want {
			t.Errorf("%s: %d octets, want %d", tt.why, len(b.m.b), tt.want)
		}
	}
}

// What one owner has held must not be another's.
func TestMemoryThatIsGivenBackIsEmptyForTheNext(t *testing.T) {
	for _, size := range []int{Small, Large} {
		m := newMemory(size)
		m.r, m.w = 10, 20
		putMemory(m)
		if m.r != 0 || m.w != 0 {
			t.Errorf("%d octets: it holds b[%d:%d]", size, m.r, m.w)
		}
	}
}

func TestReserveKeepsWhatIsHeld(t *testing.T) {
	for _, tt := range []struct {
		why           string
		holds, skip   int
		reserve, want int // want is the memory's size
	}{
		{"in the same memory", 100, 0, 200, Small},
		{"moved to its beginning, to have the room", Small, 10, Small, Small},
		{"in larger memory", Small, 0, Small + 1, Large},
		{"in larger memory, but for what was skipped", Small, 10, Large, Large},
		{"in memory of no pooled size", Large, 10, 3 * Large, 3 * Large},
	} {
		var b Buffer
		p := numbered(tt.holds)
		b.Put(p)
		b.Skip(tt.skip)
		b.Reserve(tt.reserve)
		check(t, tt.why, &b, p[tt.skip:])
		if room := len(b.m.b) - b.m.r; len(b.m.b) != tt.want || room < tt.reserve {
			t.Errorf("%s: room for %d of %d in %d octets", tt.why, room, tt.reserve, len(b.m.b))
		}
	}
}

func TestFillHoldsNoMoreThanItMay(t *testing.T) {
	for _, tt := range []struct {
		why         string
		holds, skip int
		reserve     int
		limit       int
		want        int // held then
	}{
		{"all the room there is", 0, 0, 1, 1 << 20, Small},
		{"no more than the limit", 0, 0, 1, 100, 100},
		{"the limit counts what is held already", 50, 0, 51, 100, 100},
		{"and not what was skipped", 50, 10, 100, 100, 100},
		{"the room behind what is held", 50, 0, 51, 1 << 20, Small},
		{"nothing, at the limit", 100, 0, 101, 100, 100},
		{"a limit that no sum may exceed", 50, 0, 51, int(^uint(0) >> 1), Small},
	} {
		var b Buffer
		source := numbered(2 * Small)
		b.Put(source[:tt.holds])
		b.Skip(tt.skip)
		b.Reserve(tt.reserve)
		if err := b.Fill(bytes.NewReader(source[tt.holds:]), tt.limit); err != nil {
			t.Errorf("%s: %v", tt.why, err)
		}
		check(t, tt.why, &b, source[tt.skip:][:tt.want])
	}
}

func TestFillReadsOnceAndReturnsTheReadersError(t *testing.T) {
	failed := errors.New("failed")
	for _, tt := range []struct {
		why   string
		holds string
		r     io.Reader
		err   error
		want  string
	}{
		{"one Read brings one octet", "", iotest.OneByteReader(bytes.NewReader([]byte("abc"))), nil, "a"},
		{"octets come with the error", "x", iotest.DataErrReader(bytes.NewReader([]byte("a"))), io.EOF, "xa"},
		{"an error takes nothing away", "x", iotest.ErrReader(failed), failed, "x"},
		{"with an error alone, no memory is held", "", iotest.ErrReader(failed), failed, ""},
		{"nor with nothing at all", "", bytes.NewReader(nil), io.EOF, ""},
	} {
		var b Buffer
		b.Put([]byte(tt.holds))
		b.Reserve(len(tt.holds) + 1)
		if err := b.Fill(tt.r, Small); err != tt.err {
			t.Errorf("%s: error %v", tt.why, err)
		}
		check(t, tt.why, &b, []byte(tt.want))
		if len(tt.want) == 0 && b.m != nil {
			t.Errorf("%s: there is memory", tt.why)
		}
	}
}

func TestWhatIsMovedIsIndependentOfWhereItWas(t *testing.T) {
	var b Buffer
	b.Put([]byte("first"))
	moved := b.Move()
	b.Put([]byte("second"))
	check(t, "moved", &moved, []byte("first"))
	check(t, "left", &b, []byte("second"))
	b.Release()
	check(t, "moved", &moved, []byte("first"))
}

// A connection that comes and goes between commands takes its memory from the pool.
func TestPooledMemoryCostsNoAllocation(t *testing.T) {
	p := numbered(100)
	var b Buffer
	if n := testing.AllocsPerRun(100, func() {
		b.Put(p)
		b.Skip(len(p))
	}); n >= 1 {
		t.Errorf("%v allocations for each use", n)
	}
}
