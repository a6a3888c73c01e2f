package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about how a session begins: with a client that doesn't wait to be
// greeted, with lines that nobody has to know the client for, and with a greeting of
// the client's that the hook replies to.

// readsFirst serves a connection with a server that reads for so long before it greets,
// and returns whether the client was known then for talking early. The client is to
// send a NOOP, and more.
func readsFirst(t *testing.T, p *smtpproxy.Proxy, l net.Listener, d time.Duration) (early <-chan bool) {
	known := make(chan bool, 1)
	go func() {
		defer close(known)
		c, err := p.Listener(l).Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("the server panicked: %v", v)
			}
		}()
		c.SetReadDeadline(time.Now().Add(d))
		if n, err := c.Read(make([]byte, 100)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("before the greeting the server reads %d octets, %v", n, err)
		}
		c.SetReadDeadline(time.Time{})
		if _, err := io.WriteString(c, "220 x\r\n"); err != nil {
			t.Errorf("the greeting: %v", err)
		}
		s, _ := smtpproxy.SessionOf(c)
		known <- s.Connection().EarlyTalker
		if line, err := bufio.NewReader(c).ReadString('\n'); line != "NOOP\r\n" {
			t.Errorf("behind the greeting the server reads %q, %v", line, err)
		}
	}()
	return known
}

// More than the library looks for in one piece, when it looks whether there is anything.
var tooEarly = strings.Repeat("NOOP\r\n", 1000)

func TestAClientWhoseEarlyTalkTheServerHasReadAheadIsKnownForIt(t *testing.T) {
	cfg := serverTLS().Clone()
	cfg.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	for why, row := range map[string]struct {
		p      smtpproxy.Proxy
		server func(net.Conn) net.Conn
		tls    bool
		early  string
	}{
		"plain":            {early: tooEarly},
		"plain, one line":  {early: "NOOP\r\n"},
		"plain, patient":   {},
		"implicit TLS":     {p: smtpproxy.Proxy{TLSConfig: cfg, ImplicitTLS: true}, tls: true, early: tooEarly},
		"TLS, one line":    {p: smtpproxy.Proxy{TLSConfig: cfg, ImplicitTLS: true}, tls: true, early: "NOOP\r\n"},
		"TLS, patient":     {p: smtpproxy.Proxy{TLSConfig: cfg, ImplicitTLS: true}, tls: true},
		"TLS beneath":      {server: func(c net.Conn) net.Conn { return tls.Server(c, cfg) }, tls: true, early: tooEarly},
		"plain, a wrapper": {server: func(c net.Conn) net.Conn { return fromConn{c, chanAddr{}} }, early: tooEarly},
	} {
		bubble(t, why, func(t *testing.T) {
			tr := through(func(c net.Conn) net.Conn {
				if row.server != nil {
					c = row.server(c)
				}
				return c
			})
			known := readsFirst(t, &row.p, tr, time.Second)
			c, err := tr.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if row.tls {
				tc := tlsClient(c).(*tls.Conn)
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
				c = tc
			}
			io.WriteString(c, row.early)
			if line, err := bufio.NewReader(c).ReadString('\n'); line != "220 x\r\n" {
				t.Errorf("the client gets %q, %v", line, err)
			}
			if row.early == "" {
				io.WriteString(c, "NOOP\r\n")
			}
			if early := <-known; early != (row.early != "") {
				t.Errorf("an early talker: %t", early)
			}
			synctest.Wait()
		})
	}
}

func TestAClientOfASocketWhoseEarlyTalkTheServerHasReadAheadIsKnownForIt(t *testing.T) {
	leaveNothing(t)
	tr := newTransport(true, func() (server, client net.Conn, err error) {
		if server, client, err = connectTCP(); err == nil {
			io.WriteString(client, tooEarly) // it is there when the server reads
		}
		return server, client, err
	})
	known := readsFirst(t, new(smtpproxy.Proxy), tr, 50*time.Millisecond)
	c := dialPeer(t, tr)
	c.expect("220")
	if !inTime(t, "the greeting", known) {
		t.Error("it isn't")
	}
	<-known // closed when the server is through
}

// slowWriter is a connection whose Write returns long after the other end has got it all.
type slowWriter struct{ net.Conn }

func (c slowWriter) Write(p []byte) (int, error) {
	defer time.Sleep(time.Second) // in a bubble
	return c.Conn.Write(p)
}

func TestAClientThatAnswersItsGreetingAtOnceDoesNotTalkEarlyWhoeverReads(t *testing.T) {
	for name, raw := range map[string]func(net.Conn) net.Conn{
		"pipe": func(c net.Conn) net.Conn { return slowWriter{c} },
		"TLS":  func(c net.Conn) net.Conn { return tls.Server(slowWriter{c}, serverTLS()) },
	} {
		serverTLS() // outside of a bubble's time
		bubble(t, name, func(t *testing.T) {
			c, client, _ := acceptedOver(t, through(raw), new(smtpproxy.Proxy))
			if name == "TLS" {
				client = tlsClient(client)
			}
			read := make(chan string, 1)
			go func() {
				line, _ := bufio.NewReader(c).ReadString('\n')
				read <- line
			}()
			go func() {
				time.Sleep(time.Minute) // in a bubble; the Read waits
				io.WriteString(c, "220 x\r\n")
			}()
			newCaller(t, client).play("< 220|> NOOP", nil)
			if line := <-read; line != "NOOP\r\n" {
				t.Errorf("the server reads %q", line)
			}
			if s, _ := smtpproxy.SessionOf(c); s.Connection().EarlyTalker {
				t.Error("it is told to talk early")
			}
			c.Close()
		})
	}
}

// What the library refuses whatever the hook says, it refuses at once.
func TestALineThatTheHookIsNotShownDoesNotWaitForTheNameOfTheClient(t *testing.T) {
	inBubble(t, smtpproxy.Proxy{LookupTimeout: time.Hour}, time.Minute, false, func(t *testing.T, k *talker, hook *visits, _ *slowResolver) {
		if d := took(func() { k.want("EHLO \x01", "5") }); d != 0 {
			t.Errorf("a line with a control character is answered after %v", d)
		}
		if d := took(func() { k.want("EHLO client.example", "250") }); d != time.Minute {
			t.Errorf("the first line that the hook is shown is answered after %v", d)
		}
		if got := hook.names(); !slices.Equal(got, []string{"slow.example"}) {
			t.Errorf("the hook was told of %q", got)
		}
	})
	inBubble(t, smtpproxy.Proxy{LookupTimeout: time.Hour, Commands: []string{"MAIL"}, MaxCommands: 1}, time.Minute, false, func(t *testing.T, k *talker, hook *visits, _ *slowResolver) {
		k.want("EHLO client.example", "250")
		if d := took(func() { k.want("MAIL FROM:<a@b>", "421") }); d != 0 {
			t.Errorf("a command too many is answered after %v", d)
		}
		if got := hook.names(); len(got) > 0 {
			t.Errorf("the hook was told of %q", got)
		}
	})
}

// A client counts on as many replies to a message as the greeting that was accepted last
// promises, and the server gives as many as that which it has accepted.
func TestAHooksReplyToAGreetingCannotMakeSMTPOfLMTPNorLMTPOfSMTP(t *testing.T) {
	for _, tt := range []struct {
		accepted, verb string
		code           int
		valid          bool
	}{
		{"LHLO", "EHLO", 250, false},
		{"LHLO", "HELO", 250, false},
		{"LHLO", "EHLO", 200, false}, // a client may look at the first digit alone
		{"LHLO", "EHLO", 220, false},
		{"LHLO", "ehlo", 250, false},
		{"LHLO", "LHLO", 250, true},
		{"LHLO", "lhlo", 250, true},
		{"", "LHLO", 250, false},
		{"", "LHLO", 299, false},
		{"", "EHLO", 250, true},
		{"", "HELO", 250, true},
		{"EHLO", "LHLO", 250, false},
		{"HELO", "LHLO", 250, false},
		{"EHLO", "EHLO", 250, true},
		{"EHLO", "HELO", 250, true},

		{"LHLO", "EHLO", 550, true},
		{"LHLO", "HELO", 502, true},
		{"LHLO", "EHLO", 450, true},
		{"LHLO", "LHLO", 550, true},
		{"", "LHLO", 500, true},
		{"", "EHLO", 550, true},
		{"EHLO", "LHLO", 500, true},
		{"HELO", "LHLO", 450, true},
	} {
		why := fmt.Sprintf("%d to %s behind %q", tt.code, tt.verb, tt.accepted)
		p := smtpproxy.Proxy{Hook: decide(func(cmd command) (decision, error) {
			if cmd.Args() == "again" {
				return reply{Code: tt.code}, nil
			}
			return nil, nil
		})}
		check := func(door string, d decision, failure error) {
			t.Helper()
			if invalid := errors.Is(failure, smtpproxy.ErrInvalidDecision); invalid == tt.valid {
				t.Errorf("%s, %s: %v", door, why, failure)
			}
			want := 421
			if tt.valid {
				want = tt.code
			}
			if r, ok := d.(reply); !ok || r.Code != want || r.Disconnect == tt.valid {
				t.Errorf("%s, %s: the client gets %+v", door, why, d)
			}
		}

		var failure error
		behindSession := p
		behindSession.OnFailure = func(_ *hookContext, f smtpproxy.Failure) decision { failure = f; return nil }
		s := behindSession.NewSession(connection{})
		s.Replied(220)
		tested := proxytest.NewSession(&p)
		if tt.accepted != "" {
			s.Command(context.Background(), tt.accepted+" first")
			s.Replied(250, "x")
			tested.Send(tt.accepted + " first")
		}
		d := s.Command(context.Background(), tt.verb+" again")
		check("Session", d, failure)
		d = tested.Send(tt.verb + " again")
		check("proxytest", d, tested.Failure())
		if over := s.Context().Err() != nil; over == tt.valid || tested.Closed() == tt.valid {
			t.Errorf("%s: the session is over: %t, %t", why, over, tested.Closed())
		}
	}
}
