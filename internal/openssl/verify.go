package openssl

import (
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

// Verify verifies a client's certificate against roots (nil: the system's) at a
// time (zero: now). chain is as the client sent it: its certificate first, then
// others, which may be missing, useless or in any order.
//
// Go decides: err is crypto/x509's, and number is 0 if it is nil. Else number is
// OpenSSL's for the same chain if that is 9, 10, 18, 19, 20, 21, 24, 25, 26 or
// 47, and 1 for all others. If OpenSSL has several errors, the first one counts,
// as with its default callback: trust (18 to 21), then extensions (24 to 26),
// then times (9, 10), then names (47). So 10 never hides that nobody trusted
// issued the certificate. TestVerify holds what the two don't agree on.
//
// A certificate whose issuer was neither sent nor is trusted is the one
// exception: OpenSSL has 20 and then 21 for it, and its servers, if they go on
// after 20, are left with 21. So it is 21 here. No certificate at all is 1:
// X509_verify_cert(3) refuses that with a number that has no place here.
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
	if n := checkExtensions(path); n != verified {
		return n, err // it is below the root that number may be about
	}
	if number == verified {
		number = checkSignaturesAndTimes(path, now)
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

// checkExtensions returns the first error in OpenSSL's order, from the leaf up.
// What is an error is as in Go.
func checkExtensions(path []*x509.Certificate) int {
	for i, c := range path {
		switch {
		case len(c.UnhandledCriticalExtensions) > 0: // RFC 5280 section 4.2
			return unspecified // 34
		case i > 0 && !isCA(c):
			return invalidCA
		case !forClients(c):
			return invalidPurpose
		case c.BasicConstraintsValid && 0 <= c.MaxPathLen && c.MaxPathLen < i-1: // RFC 5280 section 4.2.1.9
			return pathLength
		}
	}
	return verified
}

// checkSignaturesAndTimes returns the first error, from the root down, and
// before that, whether an algorithm is too weak.
func checkSignaturesAndTimes(path []*x509.Certificate, now time.Time) int {
	signatures := make([]error, len(path)) // the root's own counts for nothing
	for i, issuer := range path[1:] {
		signatures[i] = path[i].CheckSignatureFrom(issuer)
		var weak x509.InsecureAlgorithmError
		if errors.As(signatures[i], &weak) {
			return unspecified // 68
		}
	}
	for i, c := range slices.Backward(path) {
		if signatures[i] != nil {
			return unspecified // 7, wrong signature
		}
		if number := checkTime(c, now); number != verified {
			return number
		}
	}
	return verified
}

// isCA: RFC 5280 sections 4.2.1.3 and 4.2.1.9. Version 1, without extensions,
// is for roots only.
func isCA(c *x509.Certificate) bool {
	return c.IsCA && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0) || c.Version == 1 && issued(c, c)
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
