package proxytest

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
	"time"
)

// serverName is how a Server calls itself.
const serverName = "proxytest.example"

// certificate makes, once, the certificate of servers that have no other. Nobody but they, and
// whom they tell, trusts it.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("proxytest: " + err.Error())
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: serverName},
		DNSNames:     []string{serverName, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Unix(0, 0), // whatever the clock of a test says
		NotAfter:     time.Unix(1<<32, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &x509.Certificate{Subject: pkix.Name{CommonName: serverName}}, key.Public(), key)
	if err != nil {
		panic("proxytest: " + err.Error())
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic("proxytest: " + err.Error())
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

// withCertificate returns a configuration that has a certificate, nil if there is none.
func withCertificate(c *tls.Config) *tls.Config {
	if c == nil || len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil {
		return c
	}
	c = c.Clone()
	c.Certificates = []tls.Certificate{certificate()}
	return c
}

// leafOf returns the certificate of a configuration, nil if it has none by itself.
func leafOf(c *tls.Config) *x509.Certificate {
	if c == nil || len(c.Certificates) == 0 {
		return nil
	}
	first := c.Certificates[0]
	if first.Leaf != nil {
		return first.Leaf
	}
	if len(first.Certificate) == 0 {
		return nil
	}
	leaf, _ := x509.ParseCertificate(first.Certificate[0])
	return leaf
}

// clientCertificate returns a certificate for a client, which is the caller's.
func clientCertificate() *x509.Certificate {
	c, err := x509.ParseCertificate(certificate().Certificate[0])
	if err != nil {
		panic("proxytest: " + err.Error())
	}
	return c
}
