package main

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
)

func TestOncePlaysAFrontEndThatIsTrustedAndOneThatIsNot(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := regexp.MustCompile(`(?s)^a front end that isn't trusted:
S:    220 .*
C:    XCLIENT ADDR=192\.0\.2\.7 PORT=40000 LOGIN=alice
S:    550 5\.7\.0 [^\n]*
C:    EHLO client\.example\.org
.*
mail: from "sender@example\.org" to \["one@example\.com"\], 28 octets, by 127\.0\.0\.1
S:    250 .*
a front end that is:
S:    220 .*
S:    250 XCLIENT [^\n]*
C:    XCLIENT ADDR=192\.0\.2\.7 PORT=40000 LOGIN=alice
S:    220 [^\n]*
C:    EHLO client\.example\.org
.*
mail: from "sender@example\.org" to \["one@example\.com"\], 28 octets, by 192\.0\.2\.7 through 127\.0\.0\.1, user "alice"
S:    250 [^\n]*
C:    QUIT
S:    221 [^\n]*
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got\n%s\nwant a match of\n%v", &out, want)
	}
	if first, _, _ := strings.Cut(out.String(), "a front end that is:"); strings.Contains(first, "250 XCLIENT") {
		t.Errorf("XCLIENT was announced to who isn't trusted:\n%s", first)
	}
}

func TestOnlyThePeerIsTrusted(t *testing.T) {
	for _, tt := range []struct{ why, trust, want string }{
		{"nobody", "", "550 "},
		{"somebody else", "192.0.2.0/24,2001:db8::/32", "550 "},
		{"who is connected", "192.0.2.0/24,127.0.0.1/32", "220 "},
	} {
		var trust []netip.Prefix
		if tt.trust != "" {
			var err error
			if trust, err = networks(tt.trust); err != nil {
				t.Fatal(err)
			}
		}
		// Who has been told to be trusted isn't.
		steps := []demo.Step{
			{Send: "", Want: "220 "},
			{Send: "XCLIENT ADDR=192.0.2.7", Want: tt.want},
			{Send: "EHLO client.example", Want: "250 "},
			{Send: "XCLIENT ADDR=192.0.2.8", Want: tt.want},
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := serve(t.Context(), l, trust, log.New(io.Discard, "", 0), steps); err != nil {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
}

func TestTrustIsAListOfNetworks(t *testing.T) {
	got, err := networks("192.0.2.25/32,2001:db8::/32")
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.25/32"), netip.MustParsePrefix("2001:db8::/32")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, list := range []string{"", "192.0.2.25", "192.0.2.0/24,", "front.example/32"} {
		if got, err := networks(list); err == nil {
			t.Errorf("%q is %v", list, got)
		}
	}
}
