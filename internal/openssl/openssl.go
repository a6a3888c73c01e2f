// Package openssl says in OpenSSL's words what crypto/tls and crypto/x509 say
// in Go's: the names of protocols and ciphers, and the number for what
// verifying a client's certificate gave. Access rules and logs of mail servers
// are written in those words.
package openssl

import "crypto/tls"

// Protocol returns OpenSSL's name for a TLS version, as SSL_get_version(3)
// does, or "" for one that crypto/tls doesn't know.
func Protocol(version uint16) string {
	switch version {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return ""
}

// Cipher returns OpenSSL's name for a cipher suite and the secret bits of its
// key, as SSL_CIPHER_get_name(3) and SSL_CIPHER_get_bits(3) do, or "" and 0 for
// a suite that crypto/tls doesn't know.
func Cipher(id uint16) (name string, bits int) {
	c := ciphers[id]
	return c.name, c.bits
}

// The names are those of openssl-ciphers(1), "CIPHER SUITE NAMES". Those of
// TLS 1.3 are the standard's own, all others are not.
var ciphers = map[uint16]struct {
	name string
	bits int
}{
	tls.TLS_AES_128_GCM_SHA256:       {"TLS_AES_128_GCM_SHA256", 128},
	tls.TLS_AES_256_GCM_SHA384:       {"TLS_AES_256_GCM_SHA384", 256},
	tls.TLS_CHACHA20_POLY1305_SHA256: {"TLS_CHACHA20_POLY1305_SHA256", 256},

	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       {"ECDHE-ECDSA-AES128-GCM-SHA256", 128},
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       {"ECDHE-ECDSA-AES256-GCM-SHA384", 256},
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: {"ECDHE-ECDSA-CHACHA20-POLY1305", 256},
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256:       {"ECDHE-ECDSA-AES128-SHA256", 128},
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          {"ECDHE-ECDSA-AES128-SHA", 128},
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          {"ECDHE-ECDSA-AES256-SHA", 256},
	tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA:              {"ECDHE-ECDSA-RC4-SHA", 128},

	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:       {"ECDHE-RSA-AES128-GCM-SHA256", 128},
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:       {"ECDHE-RSA-AES256-GCM-SHA384", 256},
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: {"ECDHE-RSA-CHACHA20-POLY1305", 256},
	tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256:       {"ECDHE-RSA-AES128-SHA256", 128},
	tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:          {"ECDHE-RSA-AES128-SHA", 128},
	tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:          {"ECDHE-RSA-AES256-SHA", 256},
	tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA:         {"ECDHE-RSA-DES-CBC3-SHA", tripleDES},
	tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA:              {"ECDHE-RSA-RC4-SHA", 128},

	tls.TLS_RSA_WITH_AES_128_GCM_SHA256: {"AES128-GCM-SHA256", 128},
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384: {"AES256-GCM-SHA384", 256},
	tls.TLS_RSA_WITH_AES_128_CBC_SHA256: {"AES128-SHA256", 128},
	tls.TLS_RSA_WITH_AES_128_CBC_SHA:    {"AES128-SHA", 128},
	tls.TLS_RSA_WITH_AES_256_CBC_SHA:    {"AES256-SHA", 256},
	tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA:   {"DES-CBC3-SHA", tripleDES},
	tls.TLS_RSA_WITH_RC4_128_SHA:        {"RC4-SHA", 128},
}

// tripleDES is what SSL_CIPHER_get_bits returns for 3DES, the secret bits. The
// 168 that it hands out beside them, and that openssl-ciphers(1) prints, are
// the bits that the algorithm takes.
const tripleDES = 112
