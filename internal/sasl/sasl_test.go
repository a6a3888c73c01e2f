package sasl_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	gosasl "github.com/emersion/go-sasl"

	"github.com/seed3262c777/smtpproxy/internal/sasl"
)

// b64 encodes a response for the wire.
func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// proof is what a client's last SCRAM message ends in.
const proof = ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="

var exchanges = []struct {
	why       string
	mechanism string
	lines     []string
	want      string
	secrets   []string // what must not be kept
}{
	{"RFC 4954 section 4.1, with an initial response", "PLAIN", []string{"dGVzdAB0ZXN0ADEyMzQ="}, "test", []string{"1234"}},
	{"RFC 4616 section 4, no authzid", "PLAIN", []string{b64("\x00tim\x00tanstaaftanstaaf")}, "tim", []string{"tanstaaf"}},
	{"RFC 4616 section 4, acts as another", "PLAIN", []string{b64("Ursel\x00Kurt\x00xipj3plmq")}, "Kurt", []string{"xipj3plmq"}},
	{"UTF-8", "PLAIN", []string{b64("\x00jürgen@例え.jp\x00pässwort")}, "jürgen@例え.jp", []string{"pässwort"}},
	{"spaces are of the name", "PLAIN", []string{b64("\x00Tim T \x00secret")}, "Tim T ", []string{"secret"}},
	{"as spelt, no case is folded", "PLAIN", []string{b64("\x00TiM\x00secret")}, "TiM", []string{"secret"}},
	{"an empty password is the server's business", "PLAIN", []string{b64("\x00tim\x00")}, "tim", nil},
	{"no name", "PLAIN", []string{b64("\x00\x00secret")}, "", []string{"secret"}},
	{"one NUL", "PLAIN", []string{b64("tim\x00secret")}, "", []string{"secret"}},
	{"three NULs", "PLAIN", []string{b64("\x00tim\x00secret\x00more")}, "", []string{"secret", "more"}},
	{"empty initial response", "PLAIN", []string{"="}, "", nil},
	{"empty later response", "PLAIN", []string{""}, "", nil},
	{"cancelled at once", "PLAIN", []string{"*"}, "", nil},
	{"cancelled after the name", "PLAIN", []string{b64("\x00tim\x00secret"), "*"}, "", []string{"secret"}},
	{"one response too many", "PLAIN", []string{b64("\x00tim\x00secret"), ""}, "", []string{"secret"}},
	{"what follows a cancelled exchange is not of it", "PLAIN", []string{"*", b64("\x00tim\x00secret")}, "", []string{"secret"}},
	{"control character in the name", "PLAIN", []string{b64("\x00ti\rm\x00secret")}, "", []string{"secret"}},
	{"DEL in the name", "PLAIN", []string{b64("\x00ti\x7fm\x00secret")}, "", []string{"secret"}},
	{"C1 control character in the name", "PLAIN", []string{b64("\x00ti\u0085m\x00secret")}, "", []string{"secret"}},
	{"invalid UTF-8 in the name", "PLAIN", []string{b64("\x00ti\xffm\x00secret")}, "", []string{"secret"}},
	{"invalid UTF-8 elsewhere", "PLAIN", []string{b64("\xff\x00tim\x00\xffsecret")}, "tim", []string{"secret"}},

	{"no base64 at all", "PLAIN", []string{"!secret!"}, "", []string{"secret"}},
	{"not padded", "PLAIN", []string{"dGVzdAB0ZXN0ADEyMzQ"}, "", []string{"1234"}},
	{"pad in front, RFC 4954 section 4", "PLAIN", []string{"=AAA"}, "", nil},
	{"pad inside, RFC 4954 section 4", "PLAIN", []string{"AAA=BBB"}, "", nil},
	{"two pads alone", "PLAIN", []string{"=="}, "", nil},
	{"URL alphabet", "PLAIN", []string{strings.NewReplacer("+", "-", "/", "_").Replace(b64("\x00tim\x00\xfb\xff\xfe???"))}, "", nil},
	{"space behind", "PLAIN", []string{"dGVzdAB0ZXN0ADEyMzQ= "}, "", []string{"1234"}},
	{"CR inside", "PLAIN", []string{"dGVzdAB0\rZXN0ADEyMzQ="}, "", []string{"1234"}},
	{"LF behind", "PLAIN", []string{"dGVzdAB0ZXN0ADEyMzQ=\n"}, "", []string{"1234"}},
	{"the longest", "PLAIN", []string{b64("\x00tim\x00" + strings.Repeat("s", 12288/4*3-5))}, "tim", []string{"sss"}},
	{"too long", "PLAIN", []string{b64("\x00tim\x00" + strings.Repeat("s", 12288/4*3-4))}, "", []string{"sss"}},

	{"name, password", "LOGIN", []string{b64("tim"), b64("secret")}, "tim", []string{"secret"}},
	{"the password is still to come", "LOGIN", []string{b64("tim")}, "tim", nil},
	{"empty password", "LOGIN", []string{b64("tim"), ""}, "tim", nil},
	{"empty name", "LOGIN", []string{"=", b64("secret")}, "", []string{"secret"}},
	{"a server that ignores the initial response: who knows", "LOGIN", []string{"=", b64("tim"), b64("secret")}, "", []string{"secret"}},
	{"cancelled instead of the password", "LOGIN", []string{b64("tim"), "*"}, "", nil},
	{"malformed password", "LOGIN", []string{b64("tim"), "secret!"}, "", []string{"secret"}},
	{"malformed name", "LOGIN", []string{"tim!", b64("secret")}, "", []string{"secret"}},
	{"PLAIN's response", "LOGIN", []string{b64("\x00tim\x00secret")}, "", []string{"secret"}},
	{"one response too many", "LOGIN", []string{b64("tim"), b64("secret"), b64("more")}, "", []string{"secret", "more"}},

	{"RFC 4505 section 4, trace is no name", "ANONYMOUS", []string{"c2lyaGM="}, "", []string{"sirhc"}},
	{"no trace", "ANONYMOUS", []string{"="}, "", nil},
	{"no trace, later", "ANONYMOUS", []string{""}, "", nil},
	{"cancelled", "ANONYMOUS", []string{"*"}, "", nil},

	{"RFC 4954 section 4.1, the certificate's identity", "EXTERNAL", []string{"="}, "", nil},
	{"the same, later", "EXTERNAL", []string{""}, "", nil},
	{"RFC 4422 appendix A.2", "EXTERNAL", []string{b64("fred@example.com")}, "fred@example.com", nil},
	{"RFC 4422 appendix A.1: no NUL", "EXTERNAL", []string{b64("fred\x00@example.com")}, "", nil},
	{"invalid UTF-8", "EXTERNAL", []string{b64("fred\xc0")}, "", nil},
	{"cancelled", "EXTERNAL", []string{b64("fred@example.com"), "*"}, "", nil},
	{"one response too many", "EXTERNAL", []string{"", b64("fred@example.com")}, "", nil},

	{"RFC 7628 section 4.1", "OAUTHBEARER", []string{
		"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB",
	}, "user@example.com", []string{"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg"}},
	{"RFC 7628 section 3.2.3: %x01 after a failure", "OAUTHBEARER", []string{b64("n,a=tim,\x01auth=Bearer secret\x01\x01"), "AQ=="}, "", []string{"secret"}},
	{"an empty response after a failure", "OAUTHBEARER", []string{b64("n,a=tim,\x01auth=Bearer secret\x01\x01"), ""}, "", []string{"secret"}},
	{"cancelled after a failure", "OAUTHBEARER", []string{b64("n,a=tim,\x01auth=Bearer secret\x01\x01"), "*"}, "", []string{"secret"}},
	{"%x01 alone", "OAUTHBEARER", []string{"AQ=="}, "", nil},
	{"the token's identity", "OAUTHBEARER", []string{b64("n,,\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"RFC 5801 section 4: escaped", "OAUTHBEARER", []string{b64("n,a=t=2Ci=3Dm,\x01auth=Bearer secret\x01\x01")}, "t,i=m", []string{"secret"}},
	{"not escaped", "OAUTHBEARER", []string{b64("n,a=t=im,\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"RFC 7628 section 3.1.1: reserved keys", "OAUTHBEARER", []string{b64("n,a=tim,\x01auth=Bearer secret\x01qs=x\x01\x01")}, "tim", []string{"secret"}},
	{"a key that quotes the token", "OAUTHBEARER", []string{b64("n,a=tim,\x01auth Bearer secret=\x01\x01")}, "tim", []string{"secret"}},
	{"a client that could bind", "OAUTHBEARER", []string{b64("y,a=tim,\x01auth=Bearer secret\x01\x01")}, "tim", []string{"secret"}},
	{"no such flag", "OAUTHBEARER", []string{b64("x,a=tim,\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"no authzid where one stands", "OAUTHBEARER", []string{b64("n,tim,\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"header without end", "OAUTHBEARER", []string{b64("n,a=tim\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"control character", "OAUTHBEARER", []string{b64("n,a=tim\x01auth=Bearer secret\x01,\x01")}, "", []string{"secret"}},
	{"empty, then as if it were the first", "OAUTHBEARER", []string{"=", b64("n,a=tim,\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"cancelled", "OAUTHBEARER", []string{"*"}, "", nil},

	{"the example of its documentation", "XOAUTH2", []string{
		"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ==",
	}, "someuser@example.com", []string{"ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"}},
	{"an empty response after a failure", "XOAUTH2", []string{b64("user=tim\x01auth=Bearer secret\x01\x01"), ""}, "", []string{"secret"}},
	{"a name with =", "XOAUTH2", []string{b64("user=t=2Cim\x01auth=Bearer secret\x01\x01")}, "t=2Cim", []string{"secret"}},
	{"no user", "XOAUTH2", []string{b64("auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"no token", "XOAUTH2", []string{b64("user=tim\x01\x01")}, "", nil},
	{"a field that is no token", "XOAUTH2", []string{b64("user=tim\x01Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"one end too few", "XOAUTH2", []string{b64("user=tim\x01auth=Bearer secret\x01")}, "", []string{"secret"}},
	{"two users", "XOAUTH2", []string{b64("user=tim\x01auth=Bearer secret\x01user=tom\x01\x01")}, "", []string{"secret"}},
	{"two users first", "XOAUTH2", []string{b64("user=tim\x01user=tom\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"control character", "XOAUTH2", []string{b64("user=ti\nm\x01auth=Bearer secret\x01\x01")}, "", []string{"secret"}},
	{"empty", "XOAUTH2", []string{"="}, "", nil},
	{"cancelled", "XOAUTH2", []string{"*"}, "", nil},

	{"RFC 2195 section 2", "CRAM-MD5", []string{"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"}, "tim", []string{"b913a602c7eda7a495b4e6e7334d3890"}},
	{"RFC 4954 section 4.1", "CRAM-MD5", []string{"cmpzMyBlYzNhNTlmZWQzOTVhYmExZWM2MzY3YzRmNGI0MWFjMA=="}, "rjs3", []string{"ec3a59fed395aba1ec6367c4f4b41ac0"}},
	{"a name with spaces", "CRAM-MD5", []string{b64("Tim T b913a602c7eda7a495b4e6e7334d3890")}, "Tim T", []string{"b913a602"}},
	{"no digest", "CRAM-MD5", []string{b64("tim")}, "", nil},
	{"digest alone", "CRAM-MD5", []string{b64("b913a602c7eda7a495b4e6e7334d3890")}, "", []string{"b913a602"}},
	{"digest too short", "CRAM-MD5", []string{b64("tim b913a602c7eda7a495b4e6e7334d38")}, "", []string{"b913a602"}},
	{"digest too long", "CRAM-MD5", []string{b64("tim b913a602c7eda7a495b4e6e7334d389000")}, "", []string{"b913a602"}},
	{"a password for a digest", "CRAM-MD5", []string{b64("tim thirty-two_octets_of_a_password!")}, "", []string{"password"}},
	{"RFC 4954 section 4: no initial response here", "CRAM-MD5", []string{"=", b64("tim b913a602c7eda7a495b4e6e7334d3890")}, "", []string{"b913a602"}},
	{"empty", "CRAM-MD5", []string{""}, "", nil},
	{"cancelled", "CRAM-MD5", []string{"*"}, "", nil},

	{"RFC 5802 section 5, and the last message in a 334", "SCRAM-SHA-1", []string{
		b64("n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"),
		b64("c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="),
		"",
	}, "user", []string{"v0X8v3Bz2T0CJGbJQyF0X"}},
	{"RFC 7677 section 3, and a server that saves the last message", "SCRAM-SHA-256", []string{
		b64("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"),
		b64("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" + proof),
	}, "user", []string{"dHzbZapWIk4jUhN"}},
	{"channel binding, an ignored authzid", "SCRAM-SHA-256-PLUS", []string{b64("p=tls-exporter,a=admin,n=user,r=abc"), b64("c=cA==,r=abcdef" + proof), "="}, "user", []string{"admin", "dHzbZapWIk4jUhN"}},
	{"RFC 5802 section 5.1: escaped", "SCRAM-SHA-512", []string{b64("y,,n=a=2Cb=3D2C=3D3D,r=abc")}, "a,b=2C=3D", nil},
	{"RFC 5802 section 5.1: another escape", "SCRAM-SHA-512", []string{b64("n,,n=a=2Fb,r=abc")}, "", nil},
	{"RFC 5802 section 5.1: = at the end", "SCRAM-SHA-512", []string{b64("n,,n=a=2Cb=,r=abc")}, "", nil},
	{"RFC 5802 section 5.1: the escapes are in upper case", "SCRAM-SHA-512", []string{b64("n,,n=a=2cb,r=abc")}, "", nil},
	{"RFC 5802 section 5.1: m= must fail", "SCRAM-SHA-1", []string{b64("n,,m=x,n=user,r=abc")}, "", nil},
	{"extensions follow the nonce", "SCRAM-SHA-1", []string{b64("n,,n=user,r=abc,x=y")}, "user", nil},
	{"no nonce", "SCRAM-SHA-1", []string{b64("n,,n=user")}, "", nil},
	{"no GS2 header", "SCRAM-SHA-1", []string{b64("n=user,r=abc")}, "", nil},
	{"no name", "SCRAM-SHA-1", []string{b64("n,,r=abc")}, "", nil},
	{"control character", "SCRAM-SHA-1", []string{b64("n,,n=us\ter,r=abc")}, "", nil},
	{"NUL", "SCRAM-SHA-1", []string{b64("n,,n=us\x00er,r=abc")}, "", nil},
	{"empty", "SCRAM-SHA-1", []string{"="}, "", nil},
	{"cancelled, the server's signature was wrong", "SCRAM-SHA-1", []string{b64("n,,n=user,r=abc"), b64("c=biws,r=abcdef" + proof), "*"}, "", nil},
	{"malformed final message", "SCRAM-SHA-1", []string{b64("n,,n=user,r=abc"), "c=biws"}, "", nil},
	{"one response too many", "SCRAM-SHA-1", []string{b64("n,,n=user,r=abc"), b64("c=biws,r=abcdef" + proof), "", ""}, "", nil},

	{"unknown", "GSSAPI", []string{b64("\x00tim\x00secret")}, "", []string{"tim", "secret"}},
	{"unknown", "DIGEST-MD5", []string{b64(`username="tim"`)}, "", []string{"tim"}},
	{"unknown in lower case", "plain", []string{b64("\x00tim\x00secret")}, "", []string{"tim", "secret"}},
	{"unknown without its hyphen", "SCRAM", []string{b64("n,,n=user,r=abc")}, "", nil},
	{"none", "", []string{b64("\x00tim\x00secret"), "*"}, "", []string{"tim", "secret"}},
}

func TestUsername(t *testing.T) {
	t.Parallel()
	for _, tt := range exchanges {
		t.Run(tt.mechanism+"/"+tt.why, func(t *testing.T) {
			t.Parallel()
			e := sasl.Observe(tt.mechanism)
			if got := e.Username(); got != "" {
				t.Errorf("Username() = %q before the first response", got)
			}
			for _, line := range tt.lines {
				e.Response(line)
				checkForgotten(t, e, line, tt.secrets)
			}
			if got := e.Username(); got != tt.want {
				t.Errorf("Username() = %q after %q, want %q", got, tt.lines, tt.want)
			}
		})
	}
}

// checkForgotten reports what an exchange should not have kept of a response.
func checkForgotten(t testing.TB, e *sasl.Exchange, line string, secrets []string) {
	t.Helper()
	kept := contents(t, reflect.ValueOf(e))
	kept = append(kept, fmt.Sprintf("%v %+v %#v", e, e, e))
	if len(line) > 1 { // not "=" and "*"
		secrets = append(slices.Clone(secrets), line)
	}
	for _, secret := range secrets {
		for _, k := range kept {
			if strings.Contains(k, secret) || strings.Contains(k, b64(secret)) {
				t.Errorf("the exchange holds %q in %q", secret, k)
			}
		}
	}
}

// contents returns every string that can be reached from v. A function that is
// there after a response could hold anything.
func contents(t testing.TB, v reflect.Value) []string {
	t.Helper()
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return contents(t, v.Elem())
	case reflect.Struct:
		var all []string
		for i := range v.NumField() {
			all = append(all, contents(t, v.Field(i))...)
		}
		return all
	case reflect.String:
		return []string{v.String()}
	case reflect.Func:
		if !v.IsNil() {
			t.Error("the exchange holds a function")
		}
		return nil
	case reflect.Bool, reflect.Int:
		return nil
	default:
		t.Errorf("the exchange holds a %v", v.Kind())
		return nil
	}
}

// TestClients listens to the clients of go-sasl.
func TestClients(t *testing.T) {
	t.Parallel()
	const secret = "open sesame"
	bearer := func(user string) gosasl.Client {
		return gosasl.NewOAuthBearerClient(&gosasl.OAuthBearerOptions{Username: user, Token: secret, Host: "mx.example.org", Port: 587})
	}
	for _, tt := range []struct {
		why        string
		client     gosasl.Client
		challenges []string
		want       string
	}{
		{"name and password", gosasl.NewPlainClient("", "tim@example.org", secret), nil, "tim@example.org"},
		{"acts as another", gosasl.NewPlainClient("admin", "tim", secret), nil, "tim"},
		{"NUL in the password", gosasl.NewPlainClient("", "tim", secret+"\x00"), nil, ""},
		{"name, then password", gosasl.NewLoginClient("jürgen", secret), []string{"Password:"}, "jürgen"},
		{"no name", gosasl.NewLoginClient("", secret), []string{"Password:"}, ""},
		{"token", bearer("tim"), nil, "tim"},
		{"token only", bearer(""), nil, ""},
		{"refused", bearer("tim"), []string{`{"status":"invalid_token"}`}, ""},
		{"identity", gosasl.NewExternalClient("fred@example.com"), nil, "fred@example.com"},
		{"the certificate's identity", gosasl.NewExternalClient(""), nil, ""},
		{"trace", gosasl.NewAnonymousClient("sirhc"), nil, ""},
	} {
		for _, initial := range []bool{true, false} {
			mechanism, first, err := tt.client.Start()
			if err != nil {
				t.Fatal(err)
			}
			line := b64(string(first))
			if initial && line == "" {
				line = "=" // RFC 4954 section 4
			}
			e := sasl.Observe(mechanism)
			e.Response(line)
			checkForgotten(t, e, line, []string{secret})
			for _, challenge := range tt.challenges {
				response, err := tt.client.Next([]byte(challenge))
				if refused := new(gosasl.OAuthBearerError); errors.As(err, &refused) {
					response = []byte{1} // RFC 7628 section 3.2.3
				} else if err != nil {
					t.Fatal(err)
				}
				line := b64(string(response))
				e.Response(line)
				checkForgotten(t, e, line, []string{secret})
			}
			if got := e.Username(); got != tt.want {
				t.Errorf("%s, %s, initial response %v: Username() = %q, want %q", mechanism, tt.why, initial, got, tt.want)
			}
		}
	}
}

func TestZeroExchange(t *testing.T) {
	t.Parallel()
	var e sasl.Exchange
	e.Response(b64("\x00tim\x00secret"))
	if got := e.Username(); got != "" {
		t.Errorf("Username() = %q, want none", got)
	}
}

// FuzzExchange checks what holds for any responses, one a line.
func FuzzExchange(f *testing.F) {
	f.Fuzz(func(t *testing.T, mechanism, lines string) {
		e := sasl.Observe(mechanism)
		var first string
		for i, line := range strings.Split(lines, "\n") {
			e.Response(line)
			name := e.Username()
			if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
				t.Errorf("Username() = %q is unfit to be shown", name)
			}
			contents(t, reflect.ValueOf(e))
			if i == 0 {
				first = name
				checkServer(t, mechanism, line, name)
			}
			// What comes later may be a password: at most, it ends the claim.
			if name != "" && (name != first || line == "*") {
				t.Errorf("Username() = %q after %q, and %q after the first response", name, line, first)
			}
		}
	})
}

// checkServer reports a name that is not the one that go-sasl's server would
// see and accept in the first response.
func checkServer(t *testing.T, mechanism, line, name string) {
	t.Helper()
	var seen string
	var server gosasl.Server
	switch mechanism {
	case gosasl.Plain:
		server = gosasl.NewPlainServer(func(_, username, _ string) error {
			seen = username
			return nil
		})
	case gosasl.External:
		server = gosasl.NewExternalServer(func(identity string) error {
			seen = identity
			return nil
		})
	case gosasl.OAuthBearer:
		server = gosasl.NewOAuthBearerServer(func(opts gosasl.OAuthBearerOptions) *gosasl.OAuthBearerError {
			seen = opts.Username
			return nil
		})
	default:
		return
	}
	response, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(line) > 12288 || strings.ContainsAny(line, "\r\n") {
		if name != "" {
			t.Errorf("Username() = %q of a response that can't be decoded", name)
		}
		return
	}
	_, done, err := server.Next(response)
	switch {
	case err != nil || !done:
		return // perhaps for reasons that aren't the observer's
	case !utf8.ValidString(seen) || strings.ContainsFunc(seen, unicode.IsControl):
		seen = ""
	case mechanism == gosasl.OAuthBearer && strings.Contains(seen, "="):
		return // which that server doesn't decode
	}
	if name != seen {
		t.Errorf("%s: Username() = %q, the server sees %q", mechanism, name, seen)
	}
}
