package wire_test

import (
	"bufio"
	"io"
	"log"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// pipes is a listener for pipes.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// heard is a backend that tells for each message whether it came to an end.
type heard chan bool

func (h heard) NewSession(*smtp.Conn) (smtp.Session, error) { return h, nil }
func (heard) Mail(string, *smtp.MailOptions) error          { return nil }
func (heard) Rcpt(string, *smtp.RcptOptions) error          { return nil }
func (heard) Reset()                                        {}
func (heard) Logout() error                                 { return nil }

func (h heard) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	h <- err == nil
	return err
}

// go-smtp's own reader can't be called from here, so the model of it, which
// FuzzContent and the tests here use, is held against the real server: where one
// sees an end in a content, the other does.
func TestTheModelOfGoSMTPSeesTheEndsThatGoSMTPSees(t *testing.T) {
	l, ended := make(pipes), make(heard, 1)
	srv := smtp.NewServer(ended)
	srv.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()

	found := 0
	play := func(content string) {
		c, server := net.Pipe()
		defer c.Close()
		l <- server
		r := bufio.NewReader(c)
		reply := func() {
			for line := "250-"; len(line) > 3 && line[3] == '-'; {
				line, _ = r.ReadString('\n')
			}
		}
		reply()
		for _, line := range []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>", "DATA"} {
			io.WriteString(c, line+"\r\n")
			reply()
		}
		go io.Copy(io.Discard, r)
		io.WriteString(c, content)
		c.Close()
		end := <-ended
		if want := goSMTPEnd(content) >= 0; end != want {
			t.Errorf("%q: go-smtp sees an end: %v, the model: %v", content, end, want)
		}
		if end {
			found++
		}
	}
	every("\r\n.a", 6, play)
	every("\r\n.\x00", 4, func(s string) { play("x\r\n" + s) })
	every("\r\n. ", 4, func(s string) { play("x" + s) })
	if found < 50 {
		t.Errorf("only %d contents have an end", found)
	}
	for _, s := range []string{".\r\n", strings.Repeat("a", 1500) + "\r\n.\r\n", "a\r\r\n.\r\n", "a\r\n.\rX\r\n.\r\n"} {
		play(s)
	}
	close(l)
	<-served
}
