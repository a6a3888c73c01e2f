package openssl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"
)

// The results that have a number here (X509_STORE_CTX_get_error(3)).
const (
	verified       = 0
	unspecified    = 1 // all others
	notYetValid    = 9
	expired        = 10
	selfSigned     = 18
	selfSignedRoot = 19
	noIssuer       = 20
	noLeafIssuer   = 21
	invalidCA      = 24 // so before OpenSSL 3.0, which says 79 and gave 24 to another error
	pathLength     = 25
	invalidPurpose = 26
	notPermitted   = 47
)

// maxDepth is OpenSSL's default for -verify_depth, and bounds the work here.
const maxDepth = 100

// Verify verifies a client's certificate against roots (nil: the system's) at a
// time (zero: now). chain is as the client sent it: its certificate first, then
// others, which may be missing, useless or in any order.
//
// Go decides. err is crypto/x509's, and number is 0 if it is nil, else one of 9,
// 10, 18, 19, 20, 21, 24, 25, 26 and 47 if OpenSSL has that error, else 1. If it
// has several, the first one counts, as with its default callback: trust (18 to
// 21), then extensions (24 to 26), then times (9, 10), then names (47). So 10
// doesn't hide that nobody trusted issued the certificate.
//
// For a certificate that comes alone and has no known issuer, OpenSSL has 20
// and then 21. This is 21, which its servers record if they go on after 20.
// No certificate at all is 1, as X509_verify_cert(3) has an error of its own for it.
func Verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (number int, err error) {
	if len(chain) == 0 {
		return unspecified, errors.New("openssl: no certificate to verify")
	}
	if now.IsZero() {
		now = time.Now()
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: now, KeyUsages: usage})
	if err == nil {
		return verified, nil
	}
	path, number := buildPath(chain, roots, now)
	if number == verified {
		number = checkPath(path, now)
	}
	if number != verified {
		return number, err
	}
	// Names are last. Only Go's text tells 47 from 48, excluded.
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName &&
		!strings.Contains(invalid.Detail, "excluded") {
		return notPermitted, err
	}
	return unspecified, err
}

// buildPath finds the path from the leaf to a root, or the number for why there
// is none. Go tries all paths and tells of the last. OpenSSL builds a single
// one, by names and key identifiers only, looking for each issuer among the
// roots first (openssl-verification-options(1), "Certification Path Building").
func buildPath(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (path []*x509.Certificate, number int) {
	for c := chain[0]; ; {
		path = append(path, c)
		root, number := trustedIssuer(c, roots, now)
		if root == c || number != verified {
			return path, number
		}
		if root != nil {
			return append(path, root), verified
		}
		issuer := sentIssuer(c, chain[1:], path, now)
		switch alone := len(path) == 1; {
		case issued(c, c) && alone:
			return nil, selfSigned
		case issued(c, c):
			return nil, selfSignedRoot
		case issuer == nil && alone:
			return nil, noLeafIssuer
		case issuer == nil:
			return nil, noIssuer
		case len(path) > maxDepth:
			return nil, unspecified // 22, chain too long
		}
		c = issuer
	}
}

// trustedIssuer returns the root that signed c, or c if it is a root, or nil.
// number tells why a root of the right name can't be the issuer.
func trustedIssuer(c *x509.Certificate, roots *x509.CertPool, now time.Time) (root *x509.Certificate, number int) {
	// A pool can only be verified against. Without all that could be wrong with
	// c itself, the outcome is about the root.
	probe := &x509.Certificate{
		Raw: c.Raw, RawTBSCertificate: c.RawTBSCertificate, RawIssuer: c.RawIssuer, RawSubject: c.RawSubject,
		AuthorityKeyId: c.AuthorityKeyId, PublicKey: c.PublicKey, NotBefore: now, NotAfter: now,
		SignatureAlgorithm: c.SignatureAlgorithm, Signature: c.Signature,
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	chains, err := probe.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: usage})
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil && len(chains[0]) == 1:
		return c, verified
	case err == nil:
		return chains[0][1], verified
	case errors.As(err, &invalid) && invalid.Cert != probe:
		return invalid.Cert, verified // it signed c, but is expired or the like
	case !errors.As(err, &unknown):
		return nil, unspecified // such as an unknown critical extension of the root
	}
	// What is wrong with a root of the right name, Go adds to the error's text.
	hint := strings.TrimPrefix(unknown.Error(), x509.UnknownAuthorityError{}.Error())
	switch {
	case hint == "" || issued(c, c): // a self-signed certificate has no other issuer
		return nil, verified
	case strings.Contains(hint, x509.ConstraintViolationError{}.Error()):
		return nil, invalidCA
	case strings.Contains(hint, x509.InsecureAlgorithmError(c.SignatureAlgorithm).Error()):
		return nil, unspecified // 68, signature algorithm too weak
	case len(c.AuthorityKeyId) > 0:
		return nil, verified // most likely it names another key, so another issuer
	}
	return nil, unspecified // 7, wrong signature
}

// sentIssuer returns the issuer of c among those sent, or nil. Of several, it is
// the first that is valid now, else the one that is valid last.
func sentIssuer(c *x509.Certificate, sent, path []*x509.Certificate, now time.Time) (issuer *x509.Certificate) {
	for _, p := range sent {
		switch {
		case !issued(p, c) || slices.ContainsFunc(path, p.Equal):
		case checkTime(p, now) == verified:
			return p
		case issuer == nil || p.NotAfter.After(issuer.NotAfter):
			issuer = p
		}
	}
	return issuer
}

// issued tells whether p looks like the issuer of c, whoever signed it.
func issued(p, c *x509.Certificate) bool {
	return bytes.Equal(p.RawSubject, c.RawIssuer) &&
		(len(p.SubjectKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(p.SubjectKeyId, c.AuthorityKeyId))
}

// checkPath returns the first error of a path to a root, in OpenSSL's order:
// extensions from the leaf up, then signatures and times from the root down.
// What is an error is as in Go, though.
func checkPath(path []*x509.Certificate, now time.Time) int {
	root := len(path) - 1
	for i, c := range path {
		switch {
		case len(c.UnhandledCriticalExtensions) > 0: // RFC 5280 section 4.2
			return unspecified // 34
		case 0 < i && i < root && !isCA(c): // Go looked at the root
			return invalidCA
		case !forClients(c):
			return invalidPurpose
		case i > 1 && c.BasicConstraintsValid && 0 <= c.MaxPathLen && c.MaxPathLen < i-1: // RFC 5280 section 4.2.1.9
			return pathLength
		}
	}
	for i := root; i >= 0; i-- {
		if i < root && path[i].CheckSignatureFrom(path[i+1]) != nil {
			return unspecified // 7, wrong signature, or 68, its algorithm too weak
		}
		if number := checkTime(path[i], now); number != verified {
			return number
		}
	}
	return verified
}

// isCA: RFC 5280 sections 4.2.1.3 and 4.2.1.9.
func isCA(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0)
}

// forClients: RFC 5280 section 4.2.1.12, which both ask of issuers as well.
func forClients(c *x509.Certificate) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// checkTime: RFC 5280 section 4.1.2.5.
func checkTime(c *x509.Certificate, now time.Time) int {
	switch {
	case now.Before(c.NotBefore):
		return notYetValid
	case now.After(c.NotAfter):
		return expired
	}
	return verified
}
