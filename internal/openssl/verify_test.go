package openssl

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// identity is a certificate and its key. forger and nameOnly change its fields,
// for what it signs.
type identity struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

type edit func(*x509.Certificate)

var (
	noon       = time.Date(2030, 6, 15, 12, 0, 0, 0, time.UTC) // when the rows verify
	nextSerial int64
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate that is valid on the day of noon, signed by parent,
// or by itself if that is nil.
func issue(t *testing.T, parent *identity, key *ecdsa.PrivateKey, cn string, edits ...edit) *identity {
	t.Helper()
	nextSerial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(nextSerial),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    noon.Add(-12 * time.Hour),
		NotAfter:     noon.Add(12 * time.Hour),
	}
	for _, e := range edits {
		if e != nil {
			e(template)
		}
	}
	if parent == nil {
		parent = &identity{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.Certificate, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{c, key}
}

func root(t *testing.T, cn string, edits ...edit) *identity { return ca(t, nil, cn, edits...) }

func ca(t *testing.T, parent *identity, cn string, edits ...edit) *identity {
	t.Helper()
	return issue(t, parent, newKey(t), cn, append([]edit{asCA}, edits...)...)
}

func leaf(t *testing.T, parent *identity, edits ...edit) *identity {
	t.Helper()
	return issue(t, parent, newKey(t), "client", edits...)
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.MaxPathLen = true, true, x509.KeyUsageCertSign, -1
}

func notCA(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, 0 }

func noBasicConstraints(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = false, false, 0
}

func past(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Hour) }

func future(c *x509.Certificate) { c.NotBefore = noon.Add(time.Hour) }

func sha1(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }

func pathLen(n int) edit {
	return func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
}

func keyUsage(u x509.KeyUsage) edit { return func(c *x509.Certificate) { c.KeyUsage = u } }

func purpose(u ...x509.ExtKeyUsage) edit { return func(c *x509.Certificate) { c.ExtKeyUsage = u } }

func dnsName(name string) edit { return func(c *x509.Certificate) { c.DNSNames = []string{name} } }

func permit(domain string) edit {
	return func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{domain}, true
	}
}

func exclude(domain string) edit {
	return func(c *x509.Certificate) {
		c.ExcludedDNSDomains, c.PermittedDNSDomainsCritical = []string{domain}, true
	}
}

// critical adds a critical extension.
func critical(id asn1.ObjectIdentifier, der []byte) edit {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: true, Value: der})
	}
}

// unknownCritical adds one that nobody knows: a NULL with the identifier for examples.
var unknownCritical = critical(asn1.ObjectIdentifier{2, 999, 1}, []byte{5, 0})

// permitDirectoryName permits subjects that start with an empty name, so all
// (RFC 5280 section 4.2.1.10).
var permitDirectoryName = critical(asn1.ObjectIdentifier{2, 5, 29, 30},
	[]byte{0x30, 0x08, 0xa0, 0x06, 0x30, 0x04, 0xa4, 0x02, 0x30, 0x00})

// requirePolicy asks for a policy in all certificates (RFC 5280 section 4.2.1.11).
var requirePolicy = critical(asn1.ObjectIdentifier{2, 5, 29, 36}, []byte{0x30, 0x03, 0x80, 0x01, 0x00})

func both(a, b edit) edit { return func(c *x509.Certificate) { a(c); b(c) } }

// version1 makes a self-signed certificate without extensions, such as old
// roots are (RFC 5280 section 4.1.2.1).
func version1(t *testing.T, cn string) *identity {
	t.Helper()
	model := root(t, cn)
	type tbs struct {
		Serial    *big.Int
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Validity  struct{ NotBefore, NotAfter time.Time }
		Subject   asn1.RawValue
		Key       asn1.RawValue
	}
	content := tbs{Serial: model.SerialNumber, Issuer: asn1.RawValue{FullBytes: model.RawIssuer},
		Subject: asn1.RawValue{FullBytes: model.RawSubject}, Key: asn1.RawValue{FullBytes: model.RawSubjectPublicKeyInfo}}
	content.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2} // ecdsa-with-SHA256, RFC 5758
	content.Validity.NotBefore, content.Validity.NotAfter = model.NotBefore, model.NotAfter
	signed, err := asn1.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(signed)
	signature, err := ecdsa.SignASN1(rand.Reader, model.key, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Content   asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: signed}, content.Algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{c, model.key}
}

// long makes a leaf with more issuers between it and the root than anyone needs.
func long(t *testing.T, root *identity) []*identity {
	t.Helper()
	var sent []*identity
	for n := range 110 {
		root = ca(t, root, strconv.Itoa(n))
		sent = append(sent, root)
	}
	return append(ids(leaf(t, root)), sent...)
}

// forger returns someone who signs as another, with a key of their own.
func forger(t *testing.T, of *identity) *identity {
	t.Helper()
	c := *of.Certificate
	c.PublicKey = nil
	return &identity{&c, newKey(t)}
}

// nameOnly returns an issuer whose certificates don't name its key.
func nameOnly(i *identity) *identity {
	c := *i.Certificate
	c.SubjectKeyId = nil
	return &identity{&c, i.key}
}

// material is what a row is about: what the client sends, whom the server trusts.
type material struct{ chain, roots []*identity }

func ids(i ...*identity) []*identity { return i }

// TestVerify compares with the number that openssl verify prints first. It is
// run as OpenSSL's servers verify: for sslclient, at security level 1.
func TestVerify(t *testing.T) {
	type makeFunc = func(t *testing.T) material
	// alone makes a leaf that comes without its issuer, which is trusted.
	alone := func(rootEdit, leafEdit edit) makeFunc {
		return func(t *testing.T) material {
			r := root(t, "root", rootEdit)
			return material{ids(leaf(t, r, leafEdit)), ids(r)}
		}
	}
	// three makes a leaf that comes with its issuer, and a trusted root.
	three := func(rootEdit, caEdit, leafEdit edit) makeFunc {
		return func(t *testing.T) material {
			r := root(t, "root", rootEdit)
			c := ca(t, r, "ca", caEdit)
			return material{ids(leaf(t, c, leafEdit), c), ids(r)}
		}
	}
	// self makes a self-signed leaf that nobody trusts.
	self := func(edits ...edit) makeFunc {
		return func(t *testing.T) material {
			return material{ids(leaf(t, nil, edits...)), ids(root(t, "root"))}
		}
	}
	const recorded = "a server that goes on after 20 records 21 for a lone leaf"

	for _, tt := range []struct {
		name    string // why this row is here
		make    makeFunc
		at      time.Time // noon if zero
		want    int
		openssl int
		differs string // why openssl is another number than want
	}{
		// 0
		{name: "leaf of a root", make: alone(nil, nil)},
		{name: "right purpose", make: alone(nil, purpose(x509.ExtKeyUsageClientAuth))},
		{name: "right purpose among others", make: alone(nil, purpose(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))},
		{name: "leaf, issuer, root", make: three(nil, nil, nil)},
		{name: "path length just long enough", make: three(pathLen(1), pathLen(0), nil)},
		{name: "permitted name", make: three(nil, permit("example.org"), dnsName("a.example.org"))},
		{name: "sent in any order, with useless ones", make: func(t *testing.T) material {
			r := root(t, "root")
			a := ca(t, r, "a")
			b := ca(t, a, "b")
			return material{ids(leaf(t, b), root(t, "other"), r, a, leaf(t, nil), b), ids(r)}
		}},
		{name: "self-signed and trusted", make: func(t *testing.T) material {
			l := leaf(t, nil)
			return material{ids(l), ids(l)}
		}},
		{name: "two roots of one name", make: func(t *testing.T) material {
			a, b := root(t, "root"), root(t, "root")
			return material{ids(leaf(t, b)), ids(a, b)}
		}},
		{name: "expired root beside its successor", make: func(t *testing.T) material {
			old := root(t, "root", past)
			r := issue(t, nil, old.key, "root", asCA)
			return material{ids(leaf(t, r)), ids(old, r)}
		}},
		{name: "expired issuer beside its successor", make: func(t *testing.T) material {
			r := root(t, "root")
			old := ca(t, r, "ca", past)
			c := issue(t, r, old.key, "ca", asCA)
			return material{ids(leaf(t, c), old, c), ids(r)}
		}},
		{name: "last second", make: alone(nil, nil), at: noon.Add(12 * time.Hour), openssl: 10,
			differs: "notAfter is inclusive in RFC 5280 section 4.1.2.5, and exclusive in OpenSSL"},
		{name: "root that is not self-signed", make: func(t *testing.T) material {
			c := ca(t, root(t, "root"), "ca")
			return material{ids(leaf(t, c)), ids(c)}
		}, openssl: 2, differs: "Go takes it for a trust anchor, OpenSSL only with -partial_chain"},
		{name: "trusted leaf that is not self-signed", make: func(t *testing.T) material {
			l := leaf(t, root(t, "root"))
			return material{ids(l), ids(l)}
		}, openssl: 20, differs: "Go takes it for a trust anchor, OpenSSL only with -partial_chain"},
		{name: "any purpose", make: alone(nil, purpose(x509.ExtKeyUsageAny)), openssl: 26,
			differs: "OpenSSL doesn't take it for all purposes, though openssl-verification-options(1) does"},
		{name: "leaf only for encipherment", make: alone(nil, keyUsage(x509.KeyUsageKeyEncipherment)), openssl: 26,
			differs: "Go doesn't look at a leaf's key usage"},
		{name: "not permitted common name", make: func(t *testing.T) material {
			r := root(t, "root", permit("example.org"))
			return material{ids(issue(t, r, newKey(t), "a.example.com")), ids(r)}
		}, openssl: 47, differs: "Go doesn't look for host names in the common name"},

		// 9, 10
		{name: "leaf not yet valid", make: alone(nil, future), want: 9, openssl: 9},
		{name: "issuer not yet valid", make: three(nil, future, nil), want: 9, openssl: 9},
		{name: "root not yet valid", make: alone(future, nil), want: 9, openssl: 9},
		{name: "leaf expired", make: alone(nil, past), want: 10, openssl: 10},
		{name: "issuer expired", make: three(nil, past, nil), want: 10, openssl: 10},
		{name: "root expired", make: alone(past, nil), want: 10, openssl: 10},
		{name: "trusted self-signed leaf expired", make: func(t *testing.T) material {
			l := leaf(t, nil, past)
			return material{ids(l), ids(l)}
		}, want: 10, openssl: 10},
		{name: "times are looked at from the root down", make: three(past, future, nil), want: 10, openssl: 10},
		{name: "issuer expired, wrong signature in its name", make: func(t *testing.T) material {
			r := root(t, "root")
			c := ca(t, r, "ca", past)
			return material{ids(leaf(t, forger(t, c)), c), ids(r)}
		}, want: 10, openssl: 10},
		{name: "all issuers of a name expired: the last to expire counts", make: func(t *testing.T) material {
			r := root(t, "root")
			a := ca(t, r, "ca", past, purpose(x509.ExtKeyUsageServerAuth))
			b := issue(t, r, a.key, "ca", asCA, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) })
			return material{ids(leaf(t, a), a, b), ids(r)}
		}, want: 10, openssl: 10},
		{name: "expired and not permitted", make: three(nil, permit("example.org"), both(dnsName("a.example.com"), past)), want: 10, openssl: 10},

		{name: "valid issuer beside one not yet valid, leaf expired", make: func(t *testing.T) material {
			r := root(t, "root")
			a := ca(t, r, "ca")
			b := issue(t, r, a.key, "ca", asCA, future, func(c *x509.Certificate) { c.NotAfter = noon.Add(24 * time.Hour) })
			return material{ids(leaf(t, a, past), a, b), ids(r)}
		}, want: 10, openssl: 10},
		{name: "another of the issuer's name, leaf expired", make: func(t *testing.T) material {
			r := root(t, "root")
			c := ca(t, r, "ca")
			return material{ids(leaf(t, c, past), ca(t, root(t, "unknown"), "ca"), c), ids(r)}
		}, want: 10, openssl: 10},
		{name: "path length just long enough, leaf expired", make: three(pathLen(1), pathLen(0), past), want: 10, openssl: 10},
		{name: "issuer without key usage, leaf expired", make: three(nil, keyUsage(0), past), want: 10, openssl: 10},
		{name: "root of version 1, leaf expired", make: func(t *testing.T) material {
			r := version1(t, "root")
			c := ca(t, r, "ca")
			return material{ids(leaf(t, c, past), c), ids(r)}
		}, want: 10, openssl: 10},
		{name: "any purpose, expired", make: alone(nil, both(purpose(x509.ExtKeyUsageAny), past)), want: 10, openssl: 26,
			differs: "as above, any purpose is none to OpenSSL"},

		// 18, 19
		{name: "self-signed", make: self(), want: 18, openssl: 18},
		{name: "self-signed CA", make: self(asCA), want: 18, openssl: 18},
		{name: "self-signed and expired", make: self(past), want: 18, openssl: 18},
		{name: "self-signed for another purpose", make: self(purpose(x509.ExtKeyUsageServerAuth)), want: 18, openssl: 18},
		{name: "self-signed, with an unknown critical extension", make: self(unknownCritical), want: 18, openssl: 18},
		{name: "self-signed by SHA-1", make: self(sha1), want: 18, openssl: 18},
		{name: "self-signed, with useless others", make: func(t *testing.T) material {
			return material{ids(leaf(t, nil), root(t, "other")), ids(root(t, "root"))}
		}, want: 18, openssl: 18},
		{name: "self-signed, in a root's name", make: func(t *testing.T) material {
			return material{ids(leaf(t, nil)), ids(root(t, "client"))}
		}, want: 18, openssl: 18},
		{name: "self-signed by SHA-1, in a root's name", make: func(t *testing.T) material {
			return material{ids(leaf(t, nil, sha1)), ids(root(t, "client"))}
		}, want: 18, openssl: 18},
		{name: "self-signed, no roots", make: func(t *testing.T) material { return material{ids(leaf(t, nil)), nil} }, want: 18, openssl: 18},
		{name: "root sent and not trusted", make: func(t *testing.T) material {
			r := root(t, "root")
			return material{ids(leaf(t, r), r), ids(root(t, "other"))}
		}, want: 19, openssl: 19},
		{name: "issuer and root sent and not trusted", make: func(t *testing.T) material {
			r := root(t, "root")
			c := ca(t, r, "ca")
			return material{ids(leaf(t, c, past), r, c), ids(root(t, "other"))}
		}, want: 19, openssl: 19},
		{name: "root sent that has the name of a trusted one", make: func(t *testing.T) material {
			r := root(t, "root")
			return material{ids(leaf(t, r), r), ids(root(t, "root"))}
		}, want: 19, openssl: 19},

		// 20, 21
		{name: "unknown issuer of the issuer", make: func(t *testing.T) material {
			c := ca(t, root(t, "unknown"), "ca")
			return material{ids(leaf(t, c), c), ids(root(t, "root"))}
		}, want: 20, openssl: 20},
		{name: "unknown issuer of the issuer, leaf expired", make: func(t *testing.T) material {
			c := ca(t, root(t, "unknown"), "ca")
			return material{ids(leaf(t, c, past), c), ids(root(t, "root"))}
		}, want: 20, openssl: 20},
		{name: "unknown issuer of an issuer that is no CA", make: func(t *testing.T) material {
			c := ca(t, root(t, "unknown"), "ca", notCA)
			return material{ids(leaf(t, c), c), ids(root(t, "root"))}
		}, want: 20, openssl: 20},
		{name: "two that issued each other", make: func(t *testing.T) material {
			r := root(t, "a")
			b := ca(t, r, "b")
			a := issue(t, b, r.key, "a", asCA)
			return material{ids(leaf(t, a), a, b), ids(root(t, "root"))}
		}, want: 20, openssl: 20},
		{name: "unknown issuer", make: func(t *testing.T) material {
			return material{ids(leaf(t, root(t, "unknown"))), ids(root(t, "root"))}
		}, want: 21, openssl: 20, differs: recorded},
		{name: "unknown issuer, expired", make: func(t *testing.T) material {
			return material{ids(leaf(t, root(t, "unknown"), past)), ids(root(t, "root"))}
		}, want: 21, openssl: 20, differs: recorded},
		{name: "unknown issuer, useless others", make: func(t *testing.T) material {
			return material{ids(leaf(t, root(t, "unknown")), root(t, "other")), ids(root(t, "root"))}
		}, want: 21, openssl: 20, differs: recorded},
		{name: "root of the issuer's name with another key identifier", make: func(t *testing.T) material {
			return material{ids(leaf(t, root(t, "root"))), ids(root(t, "root"))}
		}, want: 21, openssl: 20, differs: recorded},
		{name: "wrong signature, in the root's name and key identifier", make: func(t *testing.T) material {
			r := root(t, "root")
			return material{ids(leaf(t, forger(t, r))), ids(r)}
		}, want: 21, openssl: 7, differs: "a pool doesn't tell a root's key identifier, so that of the leaf is taken for another"},

		// 24
		{name: "issuer is no CA", make: three(nil, notCA, nil), want: 24, openssl: 79},
		{name: "issuer without basic constraints", make: three(nil, noBasicConstraints, nil), want: 24, openssl: 79},
		{name: "issuer may not sign certificates", make: three(nil, keyUsage(x509.KeyUsageCRLSign), nil), want: 24, openssl: 79},
		{name: "issuer and root are no CAs, SHA-1 by the root", make: three(notCA, both(notCA, sha1), nil), want: 24, openssl: 79},
		{name: "root is no CA", make: alone(notCA, nil), want: 24, openssl: 79},
		{name: "root without basic constraints", make: alone(noBasicConstraints, nil), want: 24, openssl: 79},
		{name: "issuer is no CA, leaf expired", make: three(nil, notCA, past), want: 24, openssl: 79},
		{name: "issuer without basic constraints, for signing certificates", want: 24, openssl: 79,
			make: three(nil, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false }, nil)},

		// 25
		{name: "path length 0 and one more", make: three(pathLen(0), nil, nil), want: 25, openssl: 25},
		{name: "path length of an issuer", make: func(t *testing.T) material {
			r := root(t, "root")
			a := ca(t, r, "a", pathLen(0))
			b := ca(t, a, "b")
			return material{ids(leaf(t, b), b, a), ids(r)}
		}, want: 25, openssl: 25},
		{name: "path length 0, leaf expired", make: three(pathLen(0), nil, past), want: 25, openssl: 25},
		{name: "path length and an issuer's new key", make: func(t *testing.T) material {
			r := root(t, "root", pathLen(0))
			c := ca(t, r, "root", func(c *x509.Certificate) { c.AuthorityKeyId = r.SubjectKeyId })
			return material{ids(leaf(t, c), c), ids(r)}
		}, want: 25, differs: "RFC 5280 section 4.2.1.9 doesn't count self-issued certificates, Go does"},

		// 26
		{name: "leaf for servers only", make: alone(nil, purpose(x509.ExtKeyUsageServerAuth)), want: 26, openssl: 26},
		{name: "leaf for a purpose unknown to Go", want: 26, openssl: 26,
			make: alone(nil, func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 999, 2}} })},
		{name: "issuer for servers only", make: three(nil, purpose(x509.ExtKeyUsageServerAuth), nil), want: 26, openssl: 26},
		{name: "root for servers only", make: alone(purpose(x509.ExtKeyUsageServerAuth), nil), want: 26, openssl: 26},
		{name: "leaf for servers only, expired", want: 26, openssl: 26, make: alone(nil, both(purpose(x509.ExtKeyUsageServerAuth), past))},
		{name: "leaf for servers only, unusable root", make: alone(unknownCritical, purpose(x509.ExtKeyUsageServerAuth)), want: 26, openssl: 26},
		{name: "extensions are looked at from the leaf up", make: three(nil, notCA, purpose(x509.ExtKeyUsageServerAuth)), want: 26, openssl: 26},

		// 47
		{name: "name not permitted", make: three(nil, permit("example.org"), dnsName("a.example.com")), want: 47, openssl: 47},
		{name: "name not permitted by the root", make: alone(permit("example.org"), dnsName("a.example.com")), want: 47, openssl: 47},

		// 1
		{name: "name excluded", make: three(nil, exclude("example.com"), dnsName("a.example.com")), want: 1, openssl: 48},
		{name: "name excluded among those permitted", want: 1, openssl: 48, make: three(permit("example.org"), exclude("a.example.org"), dnsName("a.example.org"))},
		{name: "unknown critical extension", make: alone(nil, unknownCritical), want: 1, openssl: 34},
		{name: "unknown critical extension, expired", make: alone(nil, both(unknownCritical, past)), want: 1, openssl: 34},
		{name: "unknown critical extension of the issuer", make: three(nil, unknownCritical, nil), want: 1, openssl: 34},
		{name: "unknown critical extension of the root", make: alone(unknownCritical, nil), want: 1, openssl: 34},
		{name: "SHA-1 by the root", make: alone(nil, sha1), want: 1, openssl: 68},
		{name: "SHA-1 by the issuer", make: three(nil, nil, sha1), want: 1, openssl: 68},
		{name: "SHA-1 by the issuer, which is expired", make: three(nil, past, sha1), want: 1, openssl: 68},
		{name: "wrong signature, in the root's name", make: func(t *testing.T) material {
			r := root(t, "root")
			return material{ids(leaf(t, nameOnly(forger(t, r)))), ids(r)}
		}, want: 1, openssl: 7},
		{name: "wrong signature, in the issuer's name", make: func(t *testing.T) material {
			r := root(t, "root")
			c := ca(t, r, "ca")
			return material{ids(leaf(t, forger(t, c)), c), ids(r)}
		}, want: 1, openssl: 7},
		{name: "wrong signature, in the issuer's name, expired", make: func(t *testing.T) material {
			r := root(t, "root")
			c := ca(t, r, "ca")
			return material{ids(leaf(t, forger(t, c), past), c), ids(r)}
		}, want: 1, openssl: 7},
		{name: "more issuers than OpenSSL looks for", make: func(t *testing.T) material {
			r := root(t, "root")
			return material{long(t, r), ids(r)}
		}, want: 1, openssl: 22},
		{name: "more issuers than OpenSSL looks for, unknown root", make: func(t *testing.T) material {
			return material{long(t, root(t, "unknown")), ids(root(t, "root"))}
		}, want: 1, openssl: 22},
		{name: "issuer that wants a policy", make: three(nil, requirePolicy, nil), want: 1,
			differs: "OpenSSL looks at policies only with -policy_check"},
		{name: "directory name constraints", make: three(nil, permitDirectoryName, nil), want: 1,
			differs: "Go doesn't know them, so to it they are an unknown critical extension"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.make(t)
			at := tt.at
			if at.IsZero() {
				at = noon
			}
			pool := x509.NewCertPool()
			for _, r := range m.roots {
				pool.AddCert(r.Certificate)
			}
			var chain []*x509.Certificate
			for _, i := range m.chain {
				chain = append(chain, i.Certificate)
			}
			number, err := Verify(chain, pool, at)
			if number != tt.want {
				t.Errorf("number %d, want %d; Go says: %v", number, tt.want, err)
			}
			if (number == 0) != (err == nil) {
				t.Errorf("number %d with error %v", number, err)
			}

			first, out := firstError(t, m, at)
			if first != tt.openssl {
				t.Errorf("openssl verify says %d, not %d: %s", first, tt.openssl, out)
			}
			if same := listed(first) == tt.want; same == (tt.differs != "") {
				t.Errorf("wanted %d, openssl says %d; the reason for a difference is %q", tt.want, first, tt.differs)
			}
		})
	}
}

// listed returns the number that stands for one of OpenSSL's.
func listed(number int) int {
	if number == 79 {
		return invalidCA
	}
	if slices.Contains([]int{0, 9, 10, 18, 19, 20, 21, 24, 25, 26, 47}, number) {
		return number
	}
	return unspecified
}

// firstError returns the first error of openssl verify, 0 if it has none.
func firstError(t *testing.T, m material, at time.Time) (number int, out string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"verify", "-purpose", "sslclient", "-auth_level", "1", "-attime", strconv.FormatInt(at.Unix(), 10),
		"-no-CApath", "-no-CAstore", "-CAfile", writePEM(t, dir, "roots", m.roots)}
	if len(m.roots) == 0 {
		args = append(args[:len(args)-2], "-no-CAfile")
	}
	if len(m.chain) > 1 {
		args = append(args, "-untrusted", writePEM(t, dir, "untrusted", m.chain[1:]))
	}
	b, err := command(t, append(args, writePEM(t, dir, "leaf", m.chain[:1]))...).CombinedOutput()
	out = string(b)
	match := regexp.MustCompile(`(?m)^error (\d+) at \d+ depth`).FindStringSubmatch(out)
	if (err == nil) != (match == nil) {
		t.Fatalf("openssl verify: %v: %s", err, out)
	}
	if match == nil {
		return 0, out
	}
	number, err = strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return number, out
}

func writePEM(t *testing.T, dir, name string, i []*identity) string {
	t.Helper()
	var b []byte
	for _, i := range i {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Raw})...)
	}
	name = filepath.Join(dir, name+".pem")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestVerifyDefaults(t *testing.T) {
	year := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0)
	}
	over := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().AddDate(-2, 0, 0), time.Now().AddDate(-1, 0, 0)
	}
	r := root(t, "root", year)
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate)

	for _, tt := range []struct {
		name  string
		chain []*identity
		roots *x509.CertPool
		want  int
	}{
		{"the zero time is now", ids(leaf(t, r, year)), pool, 0},
		{"the zero time is now: expired", ids(leaf(t, r, over)), pool, 10},
		{"no roots are the system's: self-signed", ids(r), nil, 18},
		{"no roots are the system's: unknown issuer", ids(leaf(t, r, year)), nil, 21},
		{"an empty chain is X509_V_ERR_INVALID_CALL (69), so 1", nil, pool, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var chain []*x509.Certificate
			for _, i := range tt.chain {
				chain = append(chain, i.Certificate)
			}
			number, err := Verify(chain, tt.roots, time.Time{})
			if number != tt.want || (err == nil) != (tt.want == 0) {
				t.Errorf("number %d, want %d; error: %v", number, tt.want, err)
			}
		})
	}
}

// TestRecorded is about the one number that is not the first of openssl verify.
// A server that goes on after an error has the last one as its result
// (SSL_get_verify_result(3)). So does openssl s_server, whose session tells.
func TestRecorded(t *testing.T) {
	server, l := leaf(t, nil), leaf(t, root(t, "unknown"))
	dir := t.TempDir()
	der, err := x509.MarshalECPrivateKey(server.key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	certFile := writePEM(t, dir, "server", ids(server))
	cmd := command(t, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-verify", "1",
		"-attime", strconv.FormatInt(noon.Unix(), 10), "-cert", certFile, "-key", keyFile, "-CAfile", certFile)
	if _, err := cmd.StdinPipe(); err != nil { // at its end, s_server would stop
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() }).Stop()

	var out []byte
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		out = append(append(out, lines.Bytes()...), '\n')
		addr, ok := strings.CutPrefix(lines.Text(), "ACCEPT ")
		if !ok {
			continue
		}
		conn, err := tls.Dial("tcp", addr, &tls.Config{
			InsecureSkipVerify: true,
			MaxVersion:         tls.VersionTLS12, // the server verifies before the handshake ends
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: [][]byte{l.Raw}, PrivateKey: l.key}, nil
			},
		})
		if err != nil {
			t.Error(err)
			cmd.Process.Kill()
			break
		}
		conn.Close()
	}
	cmd.Wait() // the output is what counts

	cmd = command(t, "sess_id", "-noout", "-text")
	cmd.Stdin = bytes.NewReader(out)
	session, err := cmd.CombinedOutput()
	result := regexp.MustCompile(`Verify return code: (\d+)`).FindSubmatch(session)
	if result == nil {
		t.Fatalf("no result: %v: %s%s", err, out, session)
	}
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate)
	if number, err := Verify([]*x509.Certificate{l.Certificate}, pool, noon); strconv.Itoa(number) != string(result[1]) {
		t.Errorf("number %d (%v), but s_server recorded %s", number, err, result[1])
	}
}
