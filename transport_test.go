package smtpproxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// transport is a listener, and how to reach it: the same scenario runs over
// each.
type transport struct {
	net.Listener
	dial    func() (net.Conn, error)
	hangsUp bool // the client closes when it has sent all
}

var transports = map[string]func(*testing.T) transport{
	"TCP":  overTCP,
	"pipe": overPipe,
	"TLS":  overTLS,
}

func overTCP(t *testing.T) transport {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return transport{Listener: l, dial: func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }}
}

func overTLS(t *testing.T) transport {
	t.Helper()
	tr := overTCP(t)
	addr := tr.Addr().String()
	tr.Listener = tls.NewListener(tr.Listener, serverTLS())
	tr.dial = func() (net.Conn, error) {
		return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	}
	return tr
}

// overPipe connects without any buffer between: each Write waits for a Read.
func overPipe(*testing.T) transport {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	return transport{Listener: l, dial: l.dial}
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial() (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

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
