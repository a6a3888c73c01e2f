package e2e

import (
	"bufio"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about what comes beside a restart, on another goroutine or from the server
// that is left.

// latedConn is a connection whose deadlines take their time, once they are told to.
type latedConn struct {
	net.Conn
	slow *atomic.Bool
}

func (c latedConn) SetDeadline(t time.Time) error {
	c.wait()
	return c.Conn.SetDeadline(t)
}

func (c latedConn) SetWriteDeadline(t time.Time) error {
	c.wait()
	return c.Conn.SetWriteDeadline(t)
}

func (c latedConn) wait() {
	if c.slow.Load() {
		time.Sleep(5 * time.Millisecond) // so that the Read beside it comes in between
	}
}

// latedListener accepts them.
type latedListener struct {
	net.Listener
	slow *atomic.Bool
}

func (l latedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return latedConn{c, l.slow}, nil
}

func TestAReadBesideTheGreetingOfARestartAtConnectWaitsForIt(t *testing.T) {
	for range 20 {
		var slow atomic.Bool
		tr := overPipe(t)
		l := (&smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnConnect: func(*hookContext, connection) (decision, error) {
			slow.Store(true)
			time.Sleep(time.Millisecond) // and then the deadline takes its time
			return reply{Restart: &origin}, nil
		}}}).Listener(latedListener{tr, &slow})
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					c.SetWriteDeadline(time.Now().Add(time.Minute))
					go func() {
						time.Sleep(3 * time.Millisecond) // when the hook has been asked
						io.Copy(io.Discard, c)
						c.Close()
					}()
					io.WriteString(c, "220 hello\r\n")
				}()
			}
		}()
		client, err := tr.dial()
		if err != nil {
			t.Fatal(err)
		}
		client.SetDeadline(time.Now().Add(patience))
		if line, err := bufio.NewReader(client).ReadString('\n'); line != "220 hello\r\n" {
			t.Fatalf("the client gets %q, %v", line, err)
		}
		client.Close()
		l.Close()
	}
}

func TestAServerThatClosesWhileTheHookIsAskedOnceMoreHasItsLastWord(t *testing.T) {
	asked, goOn := make(chan struct{}), make(chan struct{})
	c, client, _ := acceptedOver(t, overPipe(t), &smtpproxy.Proxy{Hook: smtpproxy.Funcs{
		OnCommand: decideIn(restarting(origin)).Command,
		OnConnect: func(_ *hookContext, conn connection) (decision, error) {
			if conn.RemoteIP == origin.RemoteIP {
				close(asked)
				<-goOn
			}
			return nil, nil
		},
	}})
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.WriteString(c, "220 hello\r\n")
		io.Copy(io.Discard, c)
	}()
	client.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(client)
	r.ReadString('\n')
	go io.WriteString(client, "XCLIENT ADDR=192.0.2.7\r\n")
	<-asked
	go func() {
		io.WriteString(c, "421 4.3.2 shutting down\r\n")
		c.Close()
		close(goOn)
	}()
	if line, err := r.ReadString('\n'); line != "421 4.3.2 shutting down\r\n" {
		t.Errorf("the client gets %q, %v", line, err)
	}
	<-read
}

func TestWhatHooksHaveMadeOfAReplyStaysWhereAnObserverEndsItsGoroutine(t *testing.T) {
	c, client, _ := acceptedOver(t, overPipe(t), &smtpproxy.Proxy{
		Logger: new(logbook).logger(),
		Hook: smtpproxy.Funcs{OnReply: func(_ *hookContext, x shownExchange) (decision, error) {
			if x.Reply.Code == 220 {
				return reply{Lines: []string{"changed"}}, nil
			}
			return nil, nil
		}},
		Observers: []smtpproxy.Observer{{}, {Exchanged: func(*hookContext, shownExchange) { runtime.Goexit() }}},
	})
	go func() {
		defer c.Close()
		io.WriteString(c, "220 secret.internal\r\n")
	}()
	client.SetDeadline(time.Now().Add(patience))
	if all, _ := io.ReadAll(client); !strings.HasPrefix(string(all), "220 changed\r\n") || strings.Contains(string(all), "secret") {
		t.Errorf("the client gets %q", all)
	}
}

func TestTheTimeOfWhoIsAskedOnceMoreIsTheHooks(t *testing.T) {
	const wait = 50 * time.Millisecond
	told := make(chan shownExchange, 10)
	s := (&smtpproxy.Proxy{
		Hook: smtpproxy.Funcs{
			OnCommand: decideIn(restarting(origin)).Command,
			OnConnect: func(_ *hookContext, conn connection) (decision, error) {
				time.Sleep(wait) // for Hooked to tell
				return nil, nil
			},
		},
		Observers: []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x shownExchange) { told <- x }}},
	}).NewSession(connection{})
	s.Command(t.Context(), "XCLIENT ADDR=192.0.2.7")
	s.Replied(220, "hello")
	if x := <-told; x.Hooked < wait || x.Command.Verb() != "XCLIENT" {
		t.Errorf("%v: in hooks for %v", x.Command, x.Hooked)
	}
	s.Close()
}

func TestWhoHasFailedAtConnectIsNamedWhereOnFailureRefuses(t *testing.T) {
	told := make(chan shownExchange, 10)
	s := (&smtpproxy.Proxy{
		Logger: new(logbook).logger(),
		Hook: smtpproxy.Named("limits", smtpproxy.Funcs{OnConnect: func(*hookContext, connection) (decision, error) {
			return nil, io.ErrUnexpectedEOF
		}}),
		OnFailure: func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 450} },
		Observers: []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x shownExchange) { told <- x }}},
	}).NewSession(connection{})
	s.Connect(t.Context())
	if x := <-told; x.Hook != "limits" || x.Reply.Code != 450 {
		t.Errorf("%v of %q", x.Reply, x.Hook)
	}
	s.Close()
}
