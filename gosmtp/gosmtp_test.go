package gosmtp_test

import (
	"bufio"
	"io"
	"log"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

type session struct{ smtp.Session }

func (session) Reset()                           {}
func (session) Logout() error                    { return nil }
func (session) AuthMechanisms() []string         { return []string{sasl.Plain} }
func (session) Auth(string) (sasl.Server, error) { return nil, smtp.ErrAuthUnsupported }

func TestAServerThatIsServedAgainKeepsItsPolicyForAUTH(t *testing.T) {
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return session{}, nil }))
	srv.ErrorLog = log.New(io.Discard, "", 0)
	failed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failed.Close()
	if err := gosmtp.Serve(srv, failed, &smtpproxy.Proxy{}); err == nil {
		t.Fatal("a closed listener was served")
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, &smtpproxy.Proxy{}) }()
	defer func() { srv.Close(); <-served }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "EHLO client.example\r\nAUTH PLAIN\r\nQUIT\r\n")
	got, err := io.ReadAll(bufio.NewReader(c))
	if err != nil || strings.Contains(string(got), "250-AUTH") || !strings.Contains(string(got), "523 5.7.10") {
		t.Errorf("AUTH outside TLS: %q, %v", got, err)
	}
}
