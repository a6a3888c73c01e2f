package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/foxcpp/go-mockdns"
	"github.com/seed3262c777/smtpproxy"
)

// This file is about connections that don't know who is connected before their client
// has told: those of a listener that reads a PROXY header when it's first asked for an
// address. One such client must not keep the others waiting. (net/http had that:
// golang/go#12943.)

// untold is a connection that waits for its client, whatever it is asked.
type untold struct {
	net.Conn
	told   chan struct{} // closed when the client has told
	closed chan struct{}
	once   sync.Once
	deaf   bool          // Close doesn't end the wait
	asked  atomic.Int64  // how often for the client's address
	asks   chan struct{} // closed when it is first asked
}

var (
	toldRemote = netip.MustParseAddrPort("192.0.2.7:7777")
	toldLocal  = netip.MustParseAddrPort("198.51.100.1:25")
)

func (c *untold) wait() {
	closed := c.closed
	if c.deaf {
		closed = nil
	}
	select {
	case <-c.told:
	case <-closed:
	}
}

func (c *untold) RemoteAddr() net.Addr {
	if c.asked.Add(1) == 1 {
		close(c.asks)
	}
	c.wait()
	return net.TCPAddrFromAddrPort(toldRemote)
}

func (c *untold) LocalAddr() net.Addr {
	c.wait()
	return net.TCPAddrFromAddrPort(toldLocal)
}

func (c *untold) NetConn() net.Conn {
	c.wait()
	return c.Conn
}

func (c *untold) SyscallConn() (syscall.RawConn, error) {
	c.wait()
	return nil, errors.ErrUnsupported
}

func (c *untold) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// acceptedListener tells of each connection before the server gets it.
type acceptedListener struct {
	net.Listener
	tell func(net.Conn)
}

func (l acceptedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.tell(c)
	}
	return c, err
}

// overUntold is a pipe. The result of newest is the server's side of the connection
// that was made last.
func overUntold(deaf bool) (tr transport, newest func() *untold) {
	var last *untold
	tr = newTransport(false, func() (server, client net.Conn, err error) {
		server, client = net.Pipe()
		last = &untold{Conn: server, told: make(chan struct{}), closed: make(chan struct{}), asks: make(chan struct{}), deaf: deaf}
		return last, client, nil
	})
	return tr, func() *untold { return last }
}

func TestClientsThatDoNotTellWhoTheyAreKeepNobodyWaiting(t *testing.T) {
	cfg := serverTLS().Clone()
	cfg.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	for _, door := range append([]string{"none"}, tlsDoors...) {
		bubble(t, door, func(t *testing.T) {
			tr, newest := overUntold(false)
			hook := new(visits)
			b := new(tlsBackend)
			connect := openDoor(t, door, transport{Listener: tr, dial: func() (net.Conn, error) {
				c, err := tr.dial()
				if err == nil {
					close(newest().told)
				}
				return c, err
			}}, cfg.Clone(), smtpproxy.Proxy{Hook: hook, HandshakeTimeout: -1}, b)
			for range 10 {
				c, err := tr.dial()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
			}
			synctest.Wait() // until all wait for their clients
			start := time.Now()
			k := connect(t)
			if door == "none" {
				k.want("", "220")
				k.want("EHLO client.example", "250")
			} else if _, err := k.greetInTLS(door, &tls.Config{InsecureSkipVerify: true}); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d > 0 {
				t.Errorf("it was served after %v", d)
			}
			for i, conn := range hook.conns {
				if netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort) != toldRemote || netip.AddrPortFrom(conn.LocalIP, conn.LocalPort) != toldLocal {
					t.Errorf("call %d: %v:%d to %v:%d", i, conn.RemoteIP, conn.RemotePort, conn.LocalIP, conn.LocalPort)
				}
				if i == len(hook.conns)-1 && (conn.TLS.Protocol != "") != (door != "none") {
					t.Errorf("in TLS: %q", conn.TLS.Protocol)
				}
			}
			if n := newest().asked.Load(); n != 1 {
				t.Errorf("the connection was asked %d times", n)
			}
		})
	}
}

// acceptUntold returns what a listener with p accepts over such a pipe.
func acceptUntold(t *testing.T, p *smtpproxy.Proxy, deaf bool) (c net.Conn, s *smtpproxy.Session, raw *untold) {
	t.Helper()
	tr, newest := overUntold(deaf)
	l := p.Listener(tr)
	accepted := make(chan net.Conn)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	client, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	go io.Copy(io.Discard, client)
	c = <-accepted
	l.Close()
	s, ok := smtpproxy.SessionOf(c)
	if !ok {
		t.Fatal("no session")
	}
	return c, s, newest()
}

// inTime waits for what should happen at once.
func inTime[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: nothing happens", what)
	}
	return v
}

func TestASessionThatIsAskedEarlyWaitsForTheClientsAddress(t *testing.T) {
	cfg := serverTLS()
	for _, p := range []smtpproxy.Proxy{
		{},
		{TLSConfig: cfg},
		{TLSConfig: cfg, ImplicitTLS: true},
		{LookupPTR: true, Resolver: new(mockdns.Resolver)},
	} {
		c, s, raw := acceptUntold(t, &p, false)
		got := make(chan connection, 3)
		for range 3 {
			go func() { got <- s.Connection() }()
		}
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 100))
			read <- err
		}()
		inTime(t, "asking the connection", raw.asks)
		if len(got) > 0 || s.Transaction().Active || s.Context().Err() != nil {
			t.Error("there is an answer before the client has told")
		}
		close(raw.told)
		for range 3 {
			conn := inTime(t, "Connection", got)
			if netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort) != toldRemote || netip.AddrPortFrom(conn.LocalIP, conn.LocalPort) != toldLocal || conn.ID == "" {
				t.Errorf("got %+v", conn)
			}
		}
		if n := raw.asked.Load(); n != 1 {
			t.Errorf("the connection was asked %d times", n)
		}
		if c.RemoteAddr().String() != toldRemote.String() || c.LocalAddr().String() != toldLocal.String() {
			t.Errorf("addresses %v, %v", c.RemoteAddr(), c.LocalAddr())
		}
		c.Close()
		inTime(t, "Read", read)
	}
}

// That it waits, time tells only where it isn't real.
func TestASessionWaitsForTheClientsAddressHoweverLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, raw := acceptUntold(t, new(smtpproxy.Proxy), false)
		time.AfterFunc(time.Hour, func() { close(raw.told) })
		if took := took(func() { s.Connection() }); took != time.Hour {
			t.Errorf("it took %v", took)
		}
		if took := took(func() { s.Connection() }); took != 0 {
			t.Errorf("the second time took %v", took)
		}
		c.Close()
	})
}

func TestAConnectionWhoseClientDoesNotTellClosesAtOnce(t *testing.T) {
	cfg := serverTLS()
	for _, p := range []smtpproxy.Proxy{{}, {TLSConfig: cfg}, {TLSConfig: cfg, ImplicitTLS: true}} {
		for _, deaf := range []bool{false, true} {
			c, s, raw := acceptUntold(t, &p, deaf)
			ends := make(chan struct{}, 3)
			go func() {
				if n, err := c.Read(make([]byte, 100)); n > 0 || err == nil {
					t.Errorf("Read returned %d, %v", n, err)
				}
				ends <- struct{}{}
			}()
			go func() {
				if _, err := io.WriteString(c, "220 x\r\n"); err == nil {
					t.Error("Write succeeded")
				}
				ends <- struct{}{}
			}()
			go func() {
				s.Connection()
				ends <- struct{}{}
			}()
			inTime(t, "asking the connection", raw.asks)
			closed := make(chan error, 1)
			go func() { closed <- c.Close() }()
			inTime(t, "Close", closed)
			if s.Context().Err() == nil {
				t.Error("the session isn't over")
			}
			if deaf {
				close(raw.told)
			}
			for range 3 {
				inTime(t, "the end of Read, Write and Connection", ends)
			}
		}
	}
}

func TestTheNameOfTheAddressThatTheClientToldIsFound(t *testing.T) {
	zones := map[string]mockdns.Zone{
		"7.2.0.192.in-addr.arpa.": {PTR: []string{"client.example."}},
		"client.example.":         {A: []string{"192.0.2.7"}},
	}
	for _, early := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			tr, newest := overUntold(false)
			hook := new(visits)
			asked := make(chan connection, 1)
			p := &smtpproxy.Proxy{Hook: hook, LookupPTR: true, Resolver: &mockdns.Resolver{Zones: zones}}
			serveListener(t, new(tlsBackend), acceptedListener{p.Listener(tr), func(c net.Conn) {
				if s, ok := smtpproxy.SessionOf(c); ok && early { // before the server
					go func() { asked <- s.Connection() }()
				}
			}})
			c, err := tr.dial()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			<-newest().asks
			if !early {
				time.Sleep(time.Minute) // in a bubble
			}
			close(newest().told)
			k := &talker{t, c, bufio.NewReader(c)}
			k.want("", "220")
			k.want("EHLO client.example", "250")
			if names := hook.names(); len(names) != 1 || names[0] != "client.example" {
				t.Errorf("the hook was told of %q", names)
			}
			if early {
				if conn := <-asked; netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort) != toldRemote {
					t.Errorf("whoever asked early got %+v", conn)
				}
			}
		})
	}
}
