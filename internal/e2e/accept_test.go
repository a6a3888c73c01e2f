package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about clients that are accepted while nobody has asked for them: so
// that a fresh connection after STARTTLS needn't wait for a new client, a call of
// Accept lets the listener beneath wait for one, and doesn't wait for that.

// withAcceptUnderWay calls f with a listener of the library's, of which Accept has
// returned a fresh connection last, while the one beneath, which is tr or around it,
// still waits for a client. All is in a bubble.
func withAcceptUnderWay(t *testing.T, around func(tr transport) net.Listener, f func(l net.Listener, tr transport)) {
	config := serverTLS() // outside of the bubble's time
	synctest.Test(t, func(t *testing.T) {
		tr := overCable()
		l := (&smtpproxy.Proxy{TLSConfig: config}).Listener(around(tr))
		accepted := make(chan net.Conn)
		accept := func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}
		go accept()
		client, err := tr.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		first := <-accepted
		go accept()
		synctest.Wait() // it waits for a new client
		go io.WriteString(first, "220 x\r\n")
		io.WriteString(client, "STARTTLS\r\n")
		over := make(chan struct{})
		go func() {
			defer close(over)
			io.Copy(io.Discard, first)
			first.Close()
		}()
		r := bufio.NewReader(client)
		for range 2 {
			if line, err := r.ReadString('\n'); err != nil || line[:3] != "220" {
				t.Fatalf("got %q, %v", line, err)
			}
		}
		if err := tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
			t.Fatal(err)
		}
		<-over
		fresh := <-accepted
		defer fresh.Close()
		f(l, tr)
	})
}

func wantClosed(t *testing.T, l net.Listener) {
	t.Helper()
	for range 3 {
		if c, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("behind Close, Accept returned %v, %v", c, err)
		}
	}
}

func TestAClientThatNobodyHasAskedForIsClosedWithItsListener(t *testing.T) {
	asItIs := func(tr transport) net.Listener { return tr }
	for why, acceptsBehind := range map[string]bool{"Accept is called": true, "nobody calls Accept": false} {
		t.Run(why, func(t *testing.T) {
			withAcceptUnderWay(t, asItIs, func(l net.Listener, tr transport) {
				newcomer, err := tr.dial()
				if err != nil {
					t.Fatal(err)
				}
				defer newcomer.Close()
				synctest.Wait() // it is accepted, and nobody has it
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				if acceptsBehind {
					wantClosed(t, l)
				}
				synctest.Wait()
				wantShut(t, newcomer)
			})
		})
	}
}

// wantShut expects that the other end has been closed, and has written nothing.
func wantShut(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Hour)) // in a bubble
	if got, err := io.ReadAll(c); len(got) > 0 || err != nil {
		t.Errorf("got %q, %v; want the end", got, err)
	}
}

// lateListener returns one client more when it has been closed.
type lateListener struct {
	transport
	late chan net.Conn
}

func (l lateListener) Accept() (net.Conn, error) {
	c, err := l.transport.Accept()
	if err == nil {
		return c, nil
	}
	if c, ok := <-l.late; ok {
		return c, nil
	}
	return nil, err
}

func TestAClientThatComesWithTheEndOfItsListenerIsClosedToo(t *testing.T) {
	var late chan net.Conn
	withLate := func(tr transport) net.Listener {
		late = make(chan net.Conn)
		return lateListener{tr, late}
	}
	withAcceptUnderWay(t, withLate, func(l net.Listener, _ transport) {
		server, newcomer := connectByCable()
		defer newcomer.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		late <- server
		close(late)
		synctest.Wait()
		wantShut(t, newcomer)
		wantClosed(t, l)
	})
}
