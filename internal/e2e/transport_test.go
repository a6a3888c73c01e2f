package e2e

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
	dial       func() (net.Conn, error)
	halfCloses bool // a client can close its side alone
	hangsUp    bool // the client does so when it has sent all
}

var transports = map[string]func(*testing.T) transport{
	"TCP":  overTCP,
	"pipe": overPipe,
	"TLS":  overTLS,
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

// connectTCP returns both ends of a TCP connection.
func connectTCP() (server, client net.Conn, err error) {
	baseMu.Lock()
	defer baseMu.Unlock()
	if client, err = net.Dial("tcp", base().Addr().String()); err != nil {
		return nil, nil, err
	}
	server, err = base().Accept()
	return server, client, err
}

func overTCP(*testing.T) transport {
	return newTransport(true, connectTCP)
}

func overTLS(*testing.T) transport {
	return newTransport(true, func() (server, client net.Conn, err error) {
		if server, client, err = connectTCP(); err != nil {
			return nil, nil, err
		}
		return tls.Server(server, serverTLS()), tls.Client(client, &tls.Config{InsecureSkipVerify: true}), nil
	})
}

// overPipe connects without any buffer between: each Write waits for a Read.
func overPipe(*testing.T) transport {
	return newTransport(false, func() (server, client net.Conn, err error) {
		server, client = net.Pipe()
		return server, client, nil
	})
}

func newTransport(halfCloses bool, connect func() (server, client net.Conn, err error)) transport {
	l := &chanListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	return transport{Listener: l, halfCloses: halfCloses, dial: func() (net.Conn, error) {
		server, client, err := connect()
		if err != nil {
			return nil, err
		}
		select {
		case l.conns <- server:
			return client, nil
		case <-l.closed:
			server.Close()
			client.Close()
			return nil, net.ErrClosed
		}
	}}
}

type chanListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *chanListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *chanListener) Addr() net.Addr { return chanAddr{} }

type chanAddr struct{}

func (chanAddr) Network() string { return "test" }
func (chanAddr) String() string  { return "test" }

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

// tlsClient is the client's side of TLS that doesn't care for who is at the other end.
func tlsClient(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) }

// tlsListener begins TLS on each connection.
func tlsListener(l net.Listener) net.Listener { return tls.NewListener(l, serverTLS()) }
