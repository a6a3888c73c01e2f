package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"go.uber.org/goleak"
)

// This file is about the way from a server's connection to the fresh one that
// follows it after STARTTLS, and all that may come in between.

// leaveNothing checks, when all else of the test has been cleaned up, that it
// has left no goroutine.
func leaveNothing(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
}

// serveListener serves go-smtp on a listener that has the proxy in it.
func serveListener(t *testing.T, b smtp.Backend, l net.Listener) *smtp.Server {
	srv := smtp.NewServer(b)
	srv.AllowInsecureAuth = true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return srv
}

// serveScript runs script for each connection of l, with its number, until the
// test ends.
func serveScript(t *testing.T, l net.Listener, script func(int, net.Conn, *bufio.Reader)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				script(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
}

// slowListener takes its time before each Accept.
type slowListener struct {
	net.Listener
	delay time.Duration
	done  <-chan struct{}
}

func (l slowListener) Accept() (net.Conn, error) {
	select {
	case <-time.After(l.delay):
	case <-l.done:
	}
	return l.Listener.Accept()
}

func TestAServerHasTenSecondsToAcceptTheFreshConnection(t *testing.T) {
	cfg := serverTLS().Clone()
	cfg.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	for _, test := range []struct {
		delay, want time.Duration
		reply       string
	}{
		{0, 0, "250"},
		{9 * time.Second, 9 * time.Second, "250"},
		{11 * time.Second, 10 * time.Second, "421 4.3.2"},
		{time.Hour, 10 * time.Second, "421 4.3.2"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := new(tlsBackend)
			tr := overPipe(t)
			done := make(chan struct{})
			serveListener(t, b, slowListener{(&smtpproxy.Proxy{TLSConfig: cfg.Clone()}).Listener(tr), test.delay, done})
			t.Cleanup(func() { close(done) })
			k := talk(t, tr)
			k.SetDeadline(time.Time{})
			k.want("EHLO before.example", "250")
			k.startTLS()
			start := time.Now()
			go io.WriteString(k, "EHLO inside.example\r\n")
			k.want("", test.reply)
			if got := time.Since(start); got != test.want {
				t.Errorf("a server that accepts after %v: the client had its reply after %v", test.delay, got)
			}
			if test.reply != "250" {
				k.wantEnd()
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if open := b.begun - b.ended; (open == 1) != (test.reply == "250") {
				t.Errorf("a server that accepts after %v has %d sessions", test.delay, open)
			}
		})
	}
}

func TestAServerThatShutsDownRefusesSTARTTLSAndServesOn(t *testing.T) {
	leaveNothing(t)
	tr := overTCP(t)
	srv := serveListener(t, new(tlsBackend), (&smtpproxy.Proxy{TLSConfig: serverTLS()}).Listener(tr))
	k, late := talk(t, tr), talk(t, tr)
	k.want("EHLO before.example", "250")
	late.want("EHLO before.example", "250")
	late.want("STARTTLS", "220")
	over, cancel := context.WithCancel(context.Background())
	cancel()
	srv.Shutdown(over) // closes the listener, and doesn't wait
	k.say("STARTTLS", "454 4.7.0", "NOOP", "250", "STARTTLS", "454", "QUIT", "221")
	k.wantEnd()

	// Inside its handshake it is too late for a 454.
	tc := tls.Client(late.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	late.Conn, late.r = tc, bufio.NewReader(tc)
	late.want("", "421 4.3.2")
	late.wantEnd()
}

// limitedListener has n connections at a time, like LimitListener of
// golang.org/x/net/netutil, but tells what it wraps.
type limitedListener struct {
	net.Listener
	slots chan struct{}
}

type limitedConn struct {
	net.Conn
	release func()
}

func limitListener(l net.Listener, n int) net.Listener {
	return limitedListener{l, make(chan struct{}, n)}
}

func (l limitedListener) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{c, sync.OnceFunc(func() { <-l.slots })}, nil
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

func (c *limitedConn) NetConn() net.Conn { return c.Conn }

func TestAServerOfOneConnectionCanStartTLSWhileOthersWait(t *testing.T) {
	leaveNothing(t)
	for _, above := range []bool{true, false} {
		b := new(tlsBackend)
		tr := overTCP(t)
		p := &smtpproxy.Proxy{TLSConfig: serverTLS()}
		if above {
			serveListener(t, b, limitListener(p.Listener(tr), 1))
		} else {
			serveListener(t, b, p.Listener(limitListener(tr, 1)))
		}
		k := talk(t, tr)
		other := make(chan *talker)
		go func() {
			c, _ := tr.dial() // waits until it is accepted
			other <- &talker{t, c, bufio.NewReader(c)}
		}()
		k.want("EHLO before.example", "250")
		k.startTLS()
		k.say("EHLO inside.example", "250", "MAIL FROM:<a@example.com>", "250", "QUIT", "221")
		k.Close()
		k = <-other
		k.SetDeadline(time.Now().Add(10 * time.Second))
		k.want("", "220")
		k.startTLS()
		k.want("EHLO other.example", "250")
		k.Close()
		if got, want := b.log(), "session before.example TLS false true; logout; session inside.example TLS true true; mail a@example.com; logout; session other.example"; !strings.HasPrefix(got, want) {
			t.Errorf("limit above the proxy: %v; the backend saw\n%s\nwant\n%s", above, got, want)
		}
	}
}

func TestAServerThatRefusesTheFreshConnectionAnswersTheNextCommand(t *testing.T) {
	leaveNothing(t)
	for _, greeting := range []string{"554 5.3.2 not you", "421 4.3.2 too busy", "450-come | 450 later"} {
		for _, closes := range []bool{true, false} {
			hook := new(passLog)
			tr := overTCP(t)
			executed := make(chan string, 10)
			serveScript(t, (&smtpproxy.Proxy{Hook: hook, TLSConfig: serverTLS()}).Listener(tr), func(n int, c net.Conn, r *bufio.Reader) {
				if n == 0 {
					fmt.Fprint(c, "220 mx.example\r\n")
				} else {
					fmt.Fprint(c, strings.ReplaceAll(greeting, " | ", "\r\n")+"\r\n")
				}
				for n == 0 || !closes {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					executed <- line
					fmt.Fprint(c, "250 mx.example\r\n")
				}
			})
			k := talk(t, tr)
			k.want("EHLO before.example", "250")
			k.startTLS()
			if got := k.want("EHLO inside.example", greeting[:3]); got != greeting {
				t.Errorf("got %q, want %q", got, greeting)
			}
			k.wantEnd()
			if <-executed; len(executed) > 0 {
				t.Errorf("%s: the server executed %q", greeting, <-executed)
			}
			if got := hook.passed(); len(got) != 2 {
				t.Errorf("%s: the hook was shown %q", greeting, got)
			}
		}
	}
}

// gatedListener accepts one connection for each that may come in.
type gatedListener struct {
	net.Listener
	gate   chan struct{}
	ids    chan string   // of the connections accepted
	closed chan struct{} // gets one for each that is closed
}

func (l gatedListener) Accept() (net.Conn, error) {
	<-l.gate
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s, _ := smtpproxy.SessionOf(c)
	l.ids <- s.Connection().ID
	return &limitedConn{c, func() { l.closed <- struct{}{} }}, nil
}

// askedListener tells of each call of Accept.
type askedListener struct {
	net.Listener
	asked chan struct{}
}

func (l askedListener) Accept() (net.Conn, error) {
	l.asked <- struct{}{}
	return l.Listener.Accept()
}

func TestAClientInsideTLSIsAcceptedAheadOfNewOnes(t *testing.T) {
	leaveNothing(t)
	tr := overTCP(t)
	beneath := askedListener{tr, make(chan struct{}, 20)}
	l := gatedListener{(&smtpproxy.Proxy{TLSConfig: serverTLS()}).Listener(beneath), make(chan struct{}), make(chan string, 20), make(chan struct{}, 20)}
	serveListener(t, new(tlsBackend), l)
	t.Cleanup(func() { close(l.gate) })
	var clients []*talker
	var ids []string
	for range 3 {
		l.gate <- struct{}{}
		clients, ids = append(clients, talk(t, tr)), append(ids, <-l.ids)
		<-beneath.asked
	}
	startTLS := func(n int) {
		clients[n].startTLS()
		<-l.closed // the connection before TLS
	}

	// A call of Accept that waits for a new client returns the one in TLS.
	l.gate <- struct{}{}
	<-beneath.asked // or it could come too late to wait for one
	startTLS(0)
	if <-l.ids != ids[0] {
		t.Error("a call that waits: the client inside TLS isn't accepted")
	}
	// A new client that has been taken from tr meanwhile comes later,
	newcomer, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer newcomer.Close()
	startTLS(1)
	l.gate <- struct{}{}
	if <-l.ids != ids[1] {
		t.Error("a new client is there: it was accepted first")
	}
	l.gate <- struct{}{}
	<-l.ids
	// and so does one that still waits in tr.
	startTLS(2)
	go func() {
		if c, err := tr.dial(); err == nil {
			c.Close()
		}
	}()
	l.gate <- struct{}{}
	if <-l.ids != ids[2] {
		t.Error("a new client waits: it was accepted first")
	}
	for _, k := range clients {
		k.want("EHLO inside.example", "250")
	}
}

type visit struct{ n int }

func TestTheUserStateAndTheIDOutliveSTARTTLSAndNothingElse(t *testing.T) {
	leaveNothing(t)
	var calls []string
	var txns []string
	hook := smtpproxy.HookFunc(func(ctx *hookContext, _ command, conn connection, txn transaction) (decision, error) {
		v := smtpproxy.State[visit](ctx)
		v.n++
		calls = append(calls, fmt.Sprintf("%s %d %q %v", conn.ID, v.n, conn.HELO.Host, txn.Active))
		txns = append(txns, txn.ID)
		return nil, nil
	})
	var sessions []*smtpproxy.Session
	b := smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		sessions = append(sessions, gosmtp.Session(c))
		return &tlsSession{new(tlsBackend)}, nil
	})
	tr := overTCP(t)
	serveListener(t, b, (&smtpproxy.Proxy{Hook: hook, TLSConfig: serverTLS()}).Listener(tr))
	k := talk(t, tr)
	k.want("EHLO before.example", "250")
	k.startTLS()
	k.say("RCPT TO:<b@example.org>", "503", "EHLO inside.example", "250", "NOOP", "250")
	id := sessions[0].Connection().ID
	want := fmt.Sprintf(`%[1]s 1 "" false|%[1]s 2 "before.example" false|%[1]s 3 "" false|%[1]s 4 "" false|%[1]s 5 "inside.example" false`, id)
	if got := strings.Join(calls, "|"); got != want || id == "" {
		t.Errorf("the hook saw %s\nwant %s", got, want)
	}
	if len(sessions) != 2 || sessions[0] != sessions[1] || smtpproxy.State[visit](sessions[1].Context()).n != 5 {
		t.Errorf("the backend has %d sessions of the library's", len(sessions))
	}
	if txns[1] == txns[2] {
		t.Error("the transaction's ID has outlived STARTTLS")
	}
}

// failingListener returns errors.
type failingListener struct {
	net.Listener
	errs chan error
}

type acceptError bool // is it temporary?

func (e acceptError) Error() string   { return fmt.Sprintf("accept error, temporary: %v", bool(e)) }
func (e acceptError) Timeout() bool   { return false }
func (e acceptError) Temporary() bool { return bool(e) }

func (l failingListener) Accept() (net.Conn, error) { return nil, <-l.errs }

func TestErrorsOfAcceptArriveAtTheServerAsTheyAre(t *testing.T) {
	leaveNothing(t)
	for _, p := range []*smtpproxy.Proxy{{}, {TLSConfig: serverTLS()}, {TLSConfig: serverTLS(), ImplicitTLS: true}} {
		l := failingListener{overTCP(t), make(chan error, 3)}
		for _, temporary := range []bool{true, true, false} {
			l.errs <- acceptError(temporary)
		}
		var errorLog bytes.Buffer
		srv := smtp.NewServer(new(tlsBackend))
		srv.ErrorLog = log.New(&errorLog, "", 0)
		if err := srv.Serve(p.Listener(l)); err != acceptError(false) {
			t.Errorf("Serve: %v", err)
		}
		if n := strings.Count(errorLog.String(), acceptError(true).Error()); n != 2 {
			t.Errorf("%d temporary errors in %q", n, errorLog.String())
		}
		srv.Close()
	}
}
