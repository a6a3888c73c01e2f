package gosmtp

import (
	"bufio"
	"errors"
	"io"
	"log"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// This file holds that a server's policy is kept for as long as the server is there.

// serveOnce serves a server with one client, and closes it. It returns what the client
// got.
func serveOnce(t *testing.T, srv *smtp.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(srv, l, new(smtpproxy.Proxy)) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "EHLO client.example\r\nAUTH PLAIN\r\nQUIT\r\n")
	got, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Error(err)
	}
	l.Close() // the server's Accept fails, and it may be served again
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	return string(got)
}

func newServer() *smtp.Server {
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return nil, errors.New("nobody is served")
	}))
	srv.ErrorLog = log.New(io.Discard, "", 0)
	return srv
}

// forgotten collects garbage until the entry of a server is gone.
func forgotten(key weak.Pointer[smtp.Server]) bool {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.GC() {
		if _, known := policies.Load(key); !known {
			return true
		}
	}
	return false
}

func TestAServerThatIsGoneIsForgotten(t *testing.T) {
	for _, serves := range []int{1, 3} {
		srv := newServer()
		key := weak.Make(srv)
		for range serves {
			serveOnce(t, srv)
		}
		runtime.GC()
		if _, known := policies.Load(key); !known {
			t.Error("the policy of a server that is there is forgotten")
		}
		srv.Close()
		runtime.KeepAlive(srv)
		srv = nil
		if !forgotten(key) {
			t.Errorf("a server that was served %d times is kept for ever", serves)
		}
	}
}

func TestAServerThatIsServedAgainKeepsItsPolicy(t *testing.T) {
	for _, allows := range []bool{false, true} {
		srv := newServer()
		srv.AllowInsecureAuth = allows
		for i := range 3 {
			refused := strings.Contains(serveOnce(t, srv), "523 5.7.10")
			if refused == allows {
				t.Errorf("time %d: AllowInsecureAuth was %v, AUTH is refused: %v", i, allows, refused)
			}
			runtime.GC()
		}
		srv.Close()
	}
}
