package peek_test

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/peek"
)

func TestPendingSeesWhatHasArrivedAndLeavesItThere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a unix system")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	if peek.Pending(server) {
		t.Error("something is pending before anything was sent")
	}
	// Both have to arrive before a Read can return them.
	io.WriteString(client, "ab")
	b := make([]byte, 1)
	if _, err := io.ReadFull(server, b); err != nil || b[0] != 'a' {
		t.Fatalf("read %q, %v", b, err)
	}
	server.SetReadDeadline(time.Unix(1, 0)) // has no say in this
	for range 2 {
		if !peek.Pending(server) {
			t.Error("an octet that has arrived isn't pending")
		}
	}
	server.SetReadDeadline(time.Time{})
	if _, err := io.ReadFull(server, b); err != nil || b[0] != 'b' {
		t.Fatalf("read %q, %v", b, err)
	}

	client.Close()
	if n, err := server.Read(b); n != 0 || err != io.EOF {
		t.Fatalf("read %d, %v", n, err)
	}
	if peek.Pending(server) {
		t.Error("the end of a connection is no octet")
	}
	server.Close()
	if peek.Pending(server) {
		t.Error("something is pending on a closed connection")
	}
	if a, b := net.Pipe(); peek.Pending(a) || peek.Pending(b) {
		t.Error("a pipe holds nothing")
	}
}
