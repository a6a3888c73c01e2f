package hooks_test

import (
	"io"
	"log"
	"net"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// serveProxy serves go-smtp behind a proxy, on loopback.
func serveProxy(t *testing.T, p *smtpproxy.Proxy, how how) *server {
	t.Helper()
	return serveOn(t, p, nil, how)
}

// serveOn is serveProxy, whose connections Chaos can break off, if there is one.
func serveOn(t *testing.T, p *smtpproxy.Proxy, chaos *hooks.Chaos, how how) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	if chaos != nil {
		l = chaos.Listener(l)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &backend{s}, nil }))
	srv.LMTP = how.lmtp
	srv.AllowInsecureAuth = true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	if how.tls {
		srv.TLSConfig = certificate(t)
	}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, p) }()
	t.Cleanup(func() {
		l.Close() // go-smtp may not know of it yet
		srv.Close()
		<-served
	})
	return s
}

// await waits until something is so.
func await(t *testing.T, isSo func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !isSo(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it isn't so after 20 seconds")
		}
	}
}
