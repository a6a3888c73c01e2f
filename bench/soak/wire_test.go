package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// connect returns both ends of a connection on this machine.
func connect(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	b.SetDeadline(time.Now().Add(10 * time.Second))
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func TestAClientBreaksOffWhereItIsToldTo(t *testing.T) {
	for way := range breakings {
		ours, theirs := connect(t)
		w := &wire{TCPConn: ours, left: 12, way: way}
		if n, err := w.Write([]byte("0123456789")); n != 10 || err != nil {
			t.Fatal(n, err)
		}
		cut := make(chan error, 1)
		go func() {
			_, err := w.Write([]byte("abcdef"))
			cut <- err
		}()
		got := make([]byte, 12)
		if _, err := io.ReadFull(theirs, got); string(got) != "0123456789ab" || err != nil {
			t.Errorf("way %d: got %q, %v", way, got, err)
		}
		_, err := theirs.Read(got)
		if (err == io.EOF) == (way == reset) || err == nil {
			t.Errorf("way %d ends in %v", way, err)
		}
		theirs.Close() // way halve waits for it
		if err := <-cut; !errors.Is(err, errCut) {
			t.Errorf("way %d: %v", way, err)
		}
	}
}

func TestASlowClientSendsAndReadsEverything(t *testing.T) {
	ours, theirs := connect(t)
	w := &wire{TCPConn: ours, left: -1, slow: true, rng: rand.New(rand.NewPCG(1, 1))}
	want := bytes.Repeat([]byte("0123456789"), 100)
	go func() {
		w.Write(want)
		ours.CloseWrite()
	}()
	got, err := io.ReadAll(theirs)
	if !bytes.Equal(got, want) || err != nil {
		t.Errorf("the server got %d octets, %v", len(got), err)
	}
	theirs.Write(want)
	theirs.Close()
	if got, err = io.ReadAll(w); !bytes.Equal(got, want) || err != nil {
		t.Errorf("the client got %d octets, %v", len(got), err)
	}
}

func TestThePlaceOfAPanicIsInTheJournal(t *testing.T) {
	const stack = `panic serving 127.1.2.3:4: runtime error: invalid memory address or nil pointer dereference
goroutine 7 [running]:
runtime/debug.Stack()
	/go/debug/stack.go:26 +0x5e
github.com/emersion/go-smtp.(*Conn).handlePanic(0xc000, {0x8, 0xd}, 0x0)
	/go-smtp/conn.go:1111 +0x25
github.com/emersion/go-smtp.(*Conn).handleBdat.func1.1()
	/go-smtp/conn.go:1022 +0x45
panic({0x8?, 0xd?})
	/go/runtime/panic.go:783 +0x132
github.com/emersion/go-smtp.(*Conn).handleBdat.func1()
	/go-smtp/conn.go:1032 +0xa4
created by github.com/emersion/go-smtp.(*Conn).handleBdat in goroutine 6
`
	j := newJournal()
	j.Printf("%s", stack)
	j.Printf("%s", strings.ReplaceAll(stack, "handleBdat.func1()", "handleData(0x1)"))
	want := map[string]int{
		"go-smtp: panic serving ADDRESS: runtime error: invalid memory address or " + knownPanic:                                          1,
		"go-smtp: panic serving ADDRESS: runtime error: invalid memory address or nil pointer dereference, in go-smtp.(*Conn).handleData": 1,
	}
	got := j.all()
	for kind, n := range want {
		if got[kind] != n {
			t.Errorf("%d of %q in %q", got[kind], kind, got)
		}
	}
	r := whole()
	r.logged = got
	if n := r.panics(); n != 1 {
		t.Errorf("%d panics, want the one that isn't known", n)
	}
}

func TestSamplesAreATable(t *testing.T) {
	var b strings.Builder
	samples := []usage{{at: time.Second, heap: 1, stacks: 2, resident: 3, goroutines: 4, descriptors: 5}, {at: 3 * time.Second}}
	if err := writeSamples(&b, samples); err != nil {
		t.Fatal(err)
	}
	const want = "seconds,heap,stacks,resident,goroutines,descriptors\n1.00,1,2,3,4,5\n3.00,0,0,0,0,0\n"
	if b.String() != want {
		t.Errorf("got %q", b.String())
	}
	if got := since(samples, 2*time.Second); len(got) != 1 || got[0].at != 3*time.Second {
		t.Errorf("%v", got)
	}
	if got := since(samples, time.Minute); got != nil {
		t.Errorf("%v", got)
	}
}
