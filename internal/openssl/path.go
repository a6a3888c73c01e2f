package openssl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"
)

// maxDepth is OpenSSL's default for -verify_depth, and bounds the work here.
const maxDepth = 100

// buildPath finds the path from the leaf to a root, or why there is none. If a
// root of the right name can't be the issuer, the path ends before it.
//
// Go tries all paths and tells of the last. OpenSSL builds a single one, by names
// and key identifiers only, looking for each issuer among the roots first
// (openssl-verification-options(1), "Certification Path Building").
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
