package openssl

import (
	"crypto/tls"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// command runs the program that this package has to agree with.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("these tests compare with the openssl program, 3.0 or later, and need it installed: %v", err)
	}
	return exec.CommandContext(t.Context(), path, args...)
}

func TestProtocol(t *testing.T) {
	for version, want := range map[uint16]string{
		tls.VersionTLS10: "TLSv1",
		tls.VersionTLS11: "TLSv1.1",
		tls.VersionTLS12: "TLSv1.2",
		tls.VersionTLS13: "TLSv1.3",
		0:                "",
		0x0300:           "", // SSL 3.0: crypto/tls doesn't have it
		0x0305:           "", // not yet invented
	} {
		if got := Protocol(version); got != want {
			t.Errorf("Protocol(%#04x) = %q, want %q", version, got, want)
		}
	}
}

// TestCipher goes through all suites of this Go release, so that it fails for
// one that a later release adds.
func TestCipher(t *testing.T) {
	type suite struct {
		name string
		bits int
	}
	// A build without enable-weak-ssl-ciphers, the default since OpenSSL 1.1.0,
	// lists neither RC4 nor 3DES. The names are openssl-ciphers(1)'s. The bits
	// of 3DES are 112 since OpenSSL 1.1.0 and 1.0.2 (SSL_CIPHER_get_bits(3)).
	unlisted := map[uint16]suite{
		0x0005: {"RC4-SHA", 128},
		0x000a: {"DES-CBC3-SHA", 112},
		0xc007: {"ECDHE-ECDSA-RC4-SHA", 128},
		0xc011: {"ECDHE-RSA-RC4-SHA", 128},
		0xc012: {"ECDHE-RSA-DES-CBC3-SHA", 112},
	}

	b, err := command(t, "ciphers", "-V", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").CombinedOutput()
	out := string(b)
	if err != nil {
		t.Fatalf("openssl ciphers: %v: %s", err, out)
	}
	listed := map[uint16]suite{}
	line := regexp.MustCompile(`(?m)^\s*0x(..),0x(..) - (\S+) .* Enc=(\S+)\((\d+)\)`)
	for _, m := range line.FindAllStringSubmatch(out, -1) {
		id, err := strconv.ParseUint(m[1]+m[2], 16, 16)
		if err != nil {
			t.Fatal(err)
		}
		bits, err := strconv.Atoi(m[5])
		if err != nil {
			t.Fatal(err)
		}
		if m[4] == "3DES" {
			bits = 112 // 168 is printed
		}
		listed[uint16(id)] = suite{m[3], bits}
	}

	compared := 0
	all := slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites())
	for _, s := range all {
		var got suite
		got.name, got.bits = Cipher(s.ID)
		want, ok := listed[s.ID]
		if ok {
			compared++
		} else if want, ok = unlisted[s.ID]; !ok {
			t.Errorf("%s (%#04x) is known neither to the installed OpenSSL nor to this test; Cipher gives %v", s.Name, s.ID, got)
			continue
		}
		if got != want {
			t.Errorf("Cipher of %s (%#04x) = %v, want %v", s.Name, s.ID, got, want)
		}
	}
	if compared < len(all)-len(unlisted) {
		t.Errorf("openssl lists only %d of the %d suites: is its output still read right?\n%s", compared, len(all), out)
	}
	if len(ciphers) != len(all) {
		t.Errorf("%d suites in the table, %d in crypto/tls", len(ciphers), len(all))
	}
}

func TestCipherUnknown(t *testing.T) {
	for _, id := range []uint16{0, 0x0a0a /* GREASE, RFC 8701 */, 0x1304 /* TLS_AES_128_CCM_SHA256 */, 0xffff} {
		if name, bits := Cipher(id); name != "" || bits != 0 {
			t.Errorf("Cipher(%#04x) = %q, %d, want nothing", id, name, bits)
		}
	}
}
