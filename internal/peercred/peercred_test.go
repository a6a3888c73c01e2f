package peercred_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/peercred"
)

// pair returns both ends of a connection.
func pair(t *testing.T, network, addr string) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, client
}

func unixPair(t *testing.T) (server, client net.Conn) {
	// t.TempDir can be too long for the address of a unix socket.
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return pair(t, "unix", filepath.Join(dir, "s"))
}

type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

// opaque doesn't tell what is in it.
type opaque struct{ net.Conn }

// loop is a wrapper of itself.
type loop struct{ net.Conn }

func (l loop) NetConn() net.Conn { return l }

// embedding has the methods of the socket.
type embedding struct{ *net.UnixConn }

// noSyscall is a wrapper whose own SyscallConn is of no use.
type noSyscall struct{ wrapper }

func (noSyscall) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

func TestUnixSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux")
	}
	server, client := unixPair(t)
	for name, c := range map[string]net.Conn{
		"server":         server,
		"client":         client,
		"TLS":            tls.Server(server, &tls.Config{}),
		"wrapped TLS":    wrapper{tls.Server(wrapper{server}, &tls.Config{})},
		"embedded":       embedding{server.(*net.UnixConn)},
		"no SyscallConn": noSyscall{wrapper{server}},
	} {
		if id, ok := peercred.UID(c); !ok || int(id) != os.Getuid() {
			t.Errorf("%s: got %d, %v, want %d", name, id, ok, os.Getuid())
		}
	}

	// A socket that nobody has connected.
	lone, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer lone.Close()
	if id, ok := peercred.UID(lone); ok || id != 0 {
		t.Errorf("not connected: got %d, %v", id, ok)
	}

	// Deadlines still work: the descriptor isn't in blocking mode.
	if err := server.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}

	// The credentials are those of connect(2): they outlive the client.
	client.Close()
	if id, ok := peercred.UID(server); !ok || int(id) != os.Getuid() {
		t.Errorf("client gone: got %d, %v, want %d", id, ok, os.Getuid())
	}
}

func TestUnknown(t *testing.T) {
	closed, _ := unixPair(t)
	closed.Close()
	server, client := pair(t, "tcp", "127.0.0.1:0")
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	unixServer, _ := unixPair(t)

	for name, c := range map[string]net.Conn{
		"nil":           nil,
		"TCP server":    server,
		"TCP client":    client,
		"TLS over TCP":  tls.Server(server, &tls.Config{}),
		"pipe":          pipe,
		"wrapped pipe":  wrapper{pipe},
		"wrapped nil":   wrapper{},
		"opaque":        opaque{unixServer},
		"wrapping self": loop{unixServer},
		"closed":        closed,
		"wrapped":       wrapper{closed},
	} {
		if id, ok := peercred.UID(c); ok || id != 0 {
			t.Errorf("%s: got %d, %v", name, id, ok)
		}
	}
}
