package hosts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// transport is how a client reaches a host.
type transport struct {
	name    string
	connect func() (server, client net.Conn, err error)
	// bubble: it can be used where the clock runs when all wait, so that time
	// costs nothing, and each piece of a stream is seen apart from the next one.
	bubble bool
	tls    bool // TLS from the start, which the library ends
	starts bool // STARTTLS is the client's first step
}

var (
	memory     = transport{name: "memory", connect: inMemory, bubble: true}
	overTCP    = transport{name: "TCP", connect: connectTCP}
	overTLS    = transport{name: "TLS", connect: connectTCP, tls: true}
	overStart  = transport{name: "STARTTLS", connect: connectTCP, starts: true}
	transports = []transport{memory, overTCP, overTLS, overStart}
)

// patience is how long a client, or a test, waits for what must come.
func (tr transport) patience() time.Duration {
	if tr.bubble {
		return time.Hour // longer than any timeout
	}
	return 10 * time.Second
}

// run calls f, in a bubble if that can be, and returns what it returns. A bubble
// that is stuck is a problem, and no end of all tests.
func (tr transport) run(t *testing.T, what string, f func() string) (problem string) {
	t.Helper()
	if !tr.bubble {
		return f()
	}
	// Time stands still within as long as somebody waits for a lock, or is busy.
	stuck := time.AfterFunc(time.Minute, func() { panic(what + ": stuck for a minute") })
	defer stuck.Stop()
	defer func() {
		if v := recover(); v != nil {
			problem = fmt.Sprintf("%s: %v\n%s", what, v, problem)
		}
	}()
	synctest.Test(t, func(*testing.T) { problem = f() })
	return problem
}

// base is one TCP listener for all tests: a port each would use them all up.
var base = sync.OnceValue(func() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l
})

var baseMu sync.Mutex

func connectTCP() (server, client net.Conn, err error) {
	baseMu.Lock()
	defer baseMu.Unlock()
	if client, err = net.Dial("tcp", base().Addr().String()); err != nil {
		return nil, nil, err
	}
	server, err = base().Accept()
	return server, client, err
}

// oneListener accepts one connection.
type oneListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newListener(c net.Conn) *oneListener {
	l := &oneListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- c
	return l
}

// Accept implements net.Listener.
func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *oneListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *oneListener) Addr() net.Addr { return loopback(25) }

// serverTLS returns a configuration with a certificate made for this run.
var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})
