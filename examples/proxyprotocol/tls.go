package main

import (
	"fmt"
	"net"

	"github.com/emersion/go-smtp"
	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// told is what a load balancer tells of a client's TLS, which nobody here has seen.
type told struct {
	inTLS    bool
	protocol string // as it names it: "TLSv1.3"
	cipher   string // this and what follows only with proxy-v2-options
	sni      string
	name     string // the common name in the client's certificate, if that is verified
}

func (t told) String() string {
	if !t.inTLS {
		return "none"
	}
	s := t.protocol
	if t.cipher != "" {
		s += " " + t.cipher
	}
	if t.sni != "" {
		s += fmt.Sprintf(", SNI %q", t.sni)
	}
	if t.name != "" {
		s += fmt.Sprintf(", certificate of %q", t.name)
	}
	return s
}

// toldOf returns what was told with the header of a server's connection.
func toldOf(c *smtp.Conn) (t told) {
	addr, ok := c.Conn().RemoteAddr().(address)
	if !ok || addr.header == nil || addr.header.Command.IsLocal() {
		return told{}
	}
	tlvs, err := addr.header.TLVs()
	if err != nil {
		return told{}
	}
	ssl, found := tlvparse.FindSSL(tlvs)
	if !found || !ssl.ClientSSL() {
		return told{}
	}
	t.inTLS = true
	t.protocol, _ = ssl.SSLVersion()
	t.cipher, _ = ssl.SSLCipher()
	if ssl.ClientCertConn() && ssl.Verified() {
		t.name, _ = ssl.ClientCN()
	}
	for _, tlv := range tlvs {
		if tlv.Type == proxyproto.PP2_TYPE_AUTHORITY {
			t.sni = string(tlv.Value)
		}
	}
	return t
}

// listener is one whose connections have the whole header with their address, which is what a
// server gets to see of a connection beneath the proxy.
type listener struct{ *proxyproto.Listener }

// Accept implements net.Listener. It waits for no header.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{c.(*proxyproto.Conn)}, nil
}

type conn struct{ *proxyproto.Conn }

// RemoteAddr implements net.Conn. It waits for the header.
func (c conn) RemoteAddr() net.Addr {
	addr := c.Conn.RemoteAddr()
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return address{tcp, c.ProxyHeader()}
	}
	return addr // UNKNOWN
}

// address is a client's, and the header that has told it.
type address struct {
	*net.TCPAddr
	header *proxyproto.Header
}
