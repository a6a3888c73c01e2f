package openssl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"
)

// The results that have a number here, of X509_STORE_CTX_get_error(3).
const (
	verified       = 0
	unspecified    = 1 // all that has no number in this list
	notYetValid    = 9
	expired        = 10
	selfSigned     = 18
	selfSignedRoot = 19 // behind the leaf
	noIssuer       = 20
	noLeafIssuer   = 21
	invalidCA      = 24 // OpenSSL before 3.0; since then 79, and 24 is another error
	pathLength     = 25
	invalidPurpose = 26
	notPermitted   = 47 // by name constraints; 48, excluded by them, has no number here
)

// maxDepth bounds the work for one chain, as OpenSSL's default for -verify_depth does.
const maxDepth = 100

var errNoCertificate = errors.New("openssl: no certificate to verify")

// Verify verifies a certificate for client authentication against roots (nil:
// the system's) at a time (zero: now). chain is as the client sent it, its own
// certificate first; the others may be missing, useless or in any order.
//
// Go decides: err is crypto/x509's, nil for a verified certificate, and number
// is 0 exactly then. For an error, number is OpenSSL's for the same chain:
// 9, 10, 18, 19, 20, 21, 24, 25, 26 or 47; all others are 1. OpenSSL would
// report several errors of one certificate one after another. As with its
// default callback, the first one counts: trust (18 to 21) before extensions
// (24 to 26) before signatures and times (9, 10) before names (47). So a number
// like "expired" also says that there is a trusted issuer.
//
// The one exception is a certificate alone, without its issuer. OpenSSL then
// reports 20 and 21, and the latter is what its servers record if they go on.
// An empty chain is 1, since X509_verify_cert(3) has a number of its own for it.
func Verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (number int, err error) {
	if len(chain) == 0 {
		return unspecified, errNoCertificate
	}
	if now.IsZero() {
		now = time.Now()
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err == nil {
		return verified, nil
	}
	path, number := buildPath(chain, roots, now)
	if number == verified {
		number = checkPath(path, now)
	}
	if number == verified {
		number = unspecified
		// Go says in words only whether a name is not permitted or excluded.
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName &&
			!strings.Contains(invalid.Detail, "excluded") {
			number = notPermitted
		}
	}
	return number, err
}

// buildPath finds the path from the leaf to a root, or why there is none. Go
// tries all paths and tells of the last; OpenSSL builds one, which it then
// checks (openssl-verification-options(1), "Certification Path Building"): at
// each step it looks among the roots first, then in what the client sent, by
// names and key identifiers only.
func buildPath(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (path []*x509.Certificate, number int) {
	path = chain[:1:1]
	for {
		c := path[len(path)-1]
		root, number := trustedIssuer(c, roots, now)
		if number != verified {
			return nil, number
		}
		if root == c {
			return path, verified
		}
		if root != nil {
			return append(path, root), verified
		}
		issuer := sentIssuer(c, chain[1:], path, now)
		alone := len(path) == 1
		switch {
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
		path = append(path, issuer)
	}
}

// trustedIssuer returns the root that signed c, or c itself if it is one, or nil
// if the roots know nothing of either. number tells why a root that they do
// have for c can't be its issuer.
func trustedIssuer(c *x509.Certificate, roots *x509.CertPool, now time.Time) (root *x509.Certificate, number int) {
	// A pool can't be searched, only verified against. With all that could be
	// wrong with c itself left out, the outcome is about the root alone.
	probe := &x509.Certificate{
		Raw:                c.Raw,
		RawTBSCertificate:  c.RawTBSCertificate,
		RawIssuer:          c.RawIssuer,
		RawSubject:         c.RawSubject,
		AuthorityKeyId:     c.AuthorityKeyId,
		PublicKey:          c.PublicKey,
		SignatureAlgorithm: c.SignatureAlgorithm,
		Signature:          c.Signature,
		NotBefore:          now,
		NotAfter:           now,
	}
	chains, err := probe.Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		if len(chains[0]) == 1 {
			return c, verified
		}
		return chains[0][1], verified
	}
	var (
		invalid   x509.CertificateInvalidError
		unknown   x509.UnknownAuthorityError
		noRoots   x509.SystemRootsError
		forbidden x509.ConstraintViolationError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Cert != probe:
		return invalid.Cert, verified // it signed c, but is expired or the like
	case errors.As(err, &noRoots):
		return nil, verified
	case !errors.As(err, &unknown):
		return nil, unspecified // such as a critical extension of the root
	}
	// If there is a root of the right name, the error's text says what is wrong
	// with it, after what it says anyway. Only the text does.
	hint := strings.TrimPrefix(unknown.Error(), x509.UnknownAuthorityError{}.Error())
	switch {
	case hint == "":
		return nil, verified
	case strings.Contains(hint, forbidden.Error()):
		return nil, invalidCA
	case strings.Contains(hint, x509.InsecureAlgorithmError(c.SignatureAlgorithm).Error()):
		return nil, unspecified // 68, signature algorithm too weak
	case len(c.AuthorityKeyId) == 0:
		return nil, unspecified // 7, wrong signature
	}
	// Another key than the one that c names: to OpenSSL, another issuer.
	return nil, verified
}

// sentIssuer returns the issuer of c among the certificates that the client
// sent, or nil. Of several, it is the first that is valid now, else the one
// that was or will be valid last.
func sentIssuer(c *x509.Certificate, sent, path []*x509.Certificate, now time.Time) *x509.Certificate {
	var best *x509.Certificate
	for _, p := range sent {
		if !issued(p, c) || slices.ContainsFunc(path, p.Equal) {
			continue
		}
		if timeError(p, now) == verified {
			return p
		}
		if best == nil || p.NotAfter.After(best.NotAfter) {
			best = p
		}
	}
	return best
}

// issued tells whether p looks like the issuer of c (X509_check_issued(3)).
// Nothing is verified: who looks like it and isn't makes for a wrong signature.
func issued(p, c *x509.Certificate) bool {
	return bytes.Equal(p.RawSubject, c.RawIssuer) &&
		(len(p.SubjectKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(p.SubjectKeyId, c.AuthorityKeyId))
}

// checkPath returns the first error of a path that ends in a root, in OpenSSL's
// order: extensions from the leaf up, then signatures and times from the root
// down. What is an error, Go decides.
func checkPath(path []*x509.Certificate, now time.Time) int {
	top := len(path) - 1
	for i, c := range path {
		switch {
		case len(c.UnhandledCriticalExtensions) > 0: // RFC 5280 section 4.2
			return unspecified // 34
		case 0 < i && i < top && !mayIssue(c): // the root's signature was accepted
			return invalidCA
		case !mayAuthenticate(c):
			return invalidPurpose
		case i > 1 && c.BasicConstraintsValid && c.MaxPathLen >= 0 && i-1 > c.MaxPathLen:
			return pathLength
		}
	}
	for i := top; i >= 0; i-- {
		if i < top && path[i].CheckSignatureFrom(path[i+1]) != nil {
			return unspecified // 7, wrong signature, or 68, its algorithm too weak
		}
		if number := timeError(path[i], now); number != verified {
			return number
		}
	}
	return verified
}

// mayIssue: RFC 5280 sections 4.2.1.9 and 4.2.1.3.
func mayIssue(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA &&
		(c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0)
}

// mayAuthenticate: RFC 5280 section 4.2.1.12. By custom, it is asked of the
// issuers as well.
func mayAuthenticate(c *x509.Certificate) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// timeError: RFC 5280 section 4.1.2.5.
func timeError(c *x509.Certificate, now time.Time) int {
	switch {
	case now.Before(c.NotBefore):
		return notYetValid
	case now.After(c.NotAfter):
		return expired
	}
	return verified
}
