package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// server is the program, run in a goroutine.
type server struct {
	starttls, implicit string // addresses
	config             *tls.Config
	cancel             context.CancelFunc
	ended              chan error

	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer.
func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *server) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// wantOutput waits for a match, which may come after the client's reply.
func (s *server) wantOutput(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	for range 500 {
		if m := re.FindStringSubmatch(s.output()); m != nil {
			return m
		}
		time.Sleep(10 * time.Millisecond) // looks again: its sockets are outside of any bubble
	}
	t.Fatalf("no match of %s in\n%s", pattern, s.output())
	return nil
}

func start(t *testing.T, args ...string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{cancel: cancel, ended: make(chan error, 1)}
	cert := filepath.Join(t.TempDir(), "cert.pem")
	args = append([]string{"-addr", "127.0.0.1:0", "-tls-addr", "127.0.0.1:0", "-cert-out", cert}, args...)
	go func() { s.ended <- run(ctx, args, s) }()
	s.starttls = s.wantOutput(t, `^listening on (127\.0\.0\.1:\d+)$`)[1]
	s.implicit = s.wantOutput(t, `^listening on (127\.0\.0\.1:\d+) \(TLS\)$`)[1]
	t.Cleanup(func() {
		cancel()
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
	})
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	s.config = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	s.config.RootCAs.AppendCertsFromPEM(pem)
	return s
}

// eachDoor runs a test with a client inside TLS on either port.
func (s *server) eachDoor(t *testing.T, test func(t *testing.T, c *smtp.Client)) {
	for _, door := range []struct {
		name, addr string
		dial       func(string, *tls.Config) (*smtp.Client, error)
	}{
		{"STARTTLS", s.starttls, smtp.DialStartTLS},
		{"implicit TLS", s.implicit, smtp.DialTLS},
	} {
		t.Run(door.name, func(t *testing.T) {
			c, err := door.dial(door.addr, s.config)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			test(t, c)
		})
	}
}

func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	var got *smtp.SMTPError
	if !errors.As(err, &got) || got.Code != code {
		t.Errorf("got %v, want code %d", err, code)
	}
}

func TestOnceSubmitsAMessageOnEitherPortAndReturns(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0", "-tls-addr", "127.0.0.1:0", "-dir", dir}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := regexp.MustCompile(`^listening on 127\.0\.0\.1:\d+
listening on 127\.0\.0\.1:\d+ \(TLS\)
hook: plaintext: EHLO localhost
hook: plaintext: STARTTLS
hook: TLSv1\.3: EHLO localhost
hook: TLS_\w+, \d+ bits, SNI "", no client certificate
hook: TLSv1\.3: AUTH PLAIN \*\*\*\*
hook: TLSv1\.3, user "user" by PLAIN: MAIL FROM:<sender@example\.org>.*
hook: TLSv1\.3, user "user" by PLAIN: RCPT TO:<one@example\.com>
hook: TLSv1\.3, user "user" by PLAIN: DATA
mail: by "user" from "sender@example\.org" to \["one@example\.com"\], 39 octets
hook: TLSv1\.3, user "user" by PLAIN: QUIT
hook: TLSv1\.3: EHLO localhost
hook: TLS_\w+, \d+ bits, SNI "", no client certificate
hook: TLSv1\.3: AUTH SCRAM-SHA-256 \*\*\*\*
hook: TLSv1\.3, user "user" by SCRAM-SHA-256: MAIL FROM:<sender@example\.org>.*
hook: TLSv1\.3, user "user" by SCRAM-SHA-256: RCPT TO:<one@example\.com>
hook: TLSv1\.3, user "user" by SCRAM-SHA-256: DATA
mail: by "user" from "sender@example\.org" to \["one@example\.com"\], 51 octets
hook: TLSv1\.3, user "user" by SCRAM-SHA-256: QUIT
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got\n%s\nwant a match of\n%v", &out, want)
	}
	for name, want := range map[string]string{
		"1.eml": "Subject: STARTTLS and PLAIN\r\n\r\nHello!\r\n",
		"2.eml": "Subject: implicit TLS and SCRAM-SHA-256\r\n\r\nHello!\r\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestOnceFailsIfASessionDoes(t *testing.T) {
	args := []string{"-once", "-addr", "127.0.0.1:0", "-tls-addr", "127.0.0.1:0", "-dir", "/nonexistent"}
	if err := run(t.Context(), args, io.Discard); err == nil {
		t.Error("no error")
	}
}

func TestWhoAuthenticatesWithoutTLSIsHungUpOn(t *testing.T) {
	s := start(t)
	for _, command := range []string{"AUTH PLAIN AHVzZXIAcGFzcw==", "auth scram-sha-256", "AUTH"} {
		c, err := textproto.Dial("tcp", s.starttls)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, _, err := c.ReadResponse(220); err != nil {
			t.Fatal(err)
		}
		c.PrintfLine("EHLO client.example")
		_, lines, err := c.ReadResponse(250)
		if err != nil || strings.Contains(lines, "AUTH") || !strings.Contains(lines, "STARTTLS") {
			t.Errorf("EHLO's reply is %q, %v", lines, err)
		}
		c.PrintfLine("%s", command)
		if _, text, err := c.ReadResponse(523); err != nil || !strings.HasPrefix(text, "5.7.10 ") {
			t.Errorf("%s: got %q, %v", command, text, err)
		}
		if line, err := c.ReadLine(); err != io.EOF {
			t.Errorf("%s: got %q, %v; want the end", command, line, err)
		}
	}
}

func TestMailNeedsAuthentication(t *testing.T) {
	s := start(t)
	c, err := smtp.Dial(s.starttls)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantCode(t, c.Mail("sender@example.org", nil), 530)
	s.eachDoor(t, func(t *testing.T, c *smtp.Client) {
		wantCode(t, c.Mail("sender@example.org", nil), 530)
	})
}

func TestRSETKeepsTheAuthentication(t *testing.T) {
	s := start(t)
	s.eachDoor(t, func(t *testing.T, c *smtp.Client) {
		if err := c.Auth(sasl.NewPlainClient("", "user", "pass")); err != nil {
			t.Fatal(err)
		}
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
		if err := c.Mail("sender@example.org", nil); err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyTheUserWithThePasswordIsAccepted(t *testing.T) {
	s := start(t, "-user", "böb", "-pass", "a,b=c")
	scram := func(user, pass string) sasl.Client {
		c, err := newSCRAMClient(user, pass)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s.eachDoor(t, func(t *testing.T, c *smtp.Client) {
		for _, auth := range []sasl.Client{
			sasl.NewPlainClient("", "böb", "wrong"),
			sasl.NewPlainClient("", "böb", ""),
			sasl.NewPlainClient("", "bob", "a,b=c"),
			sasl.NewPlainClient("root", "böb", "a,b=c"),
			scram("böb", "wrong"),
			scram("bob", "a,b=c"),
		} {
			wantCode(t, c.Auth(auth), 535)
		}
		wantCode(t, c.Auth(sasl.NewLoginClient("böb", "a,b=c")), 504)
		wantCode(t, c.Mail("sender@example.org", nil), 530)
	})
	for _, auth := range []func() sasl.Client{
		func() sasl.Client { return sasl.NewPlainClient("", "böb", "a,b=c") },
		func() sasl.Client { return sasl.NewPlainClient("böb", "böb", "a,b=c") },
		func() sasl.Client { return scram("böb", "a,b=c") },
		func() sasl.Client { return withoutInitialResponse{scram("böb", "a,b=c")} },
	} {
		s.eachDoor(t, func(t *testing.T, c *smtp.Client) {
			if err := c.Auth(auth()); err != nil {
				t.Fatal(err)
			}
			if err := c.Mail("sender@example.org", nil); err != nil {
				t.Error(err)
			}
		})
	}
	s.wantOutput(t, `user "böb" by SCRAM-SHA-256: MAIL`)
}

// withoutInitialResponse makes a client wait for the server's empty challenge.
type withoutInitialResponse struct{ sasl.Client }

func (c withoutInitialResponse) Start() (string, []byte, error) { return scramSHA256, nil, nil }

func (c withoutInitialResponse) Next(challenge []byte) ([]byte, error) {
	if len(challenge) == 0 {
		_, first, err := c.Client.Start()
		return first, err
	}
	return c.Client.Next(challenge)
}

func TestASCRAMClientMustAnswerTheServersSignatureWithNothing(t *testing.T) {
	a, err := newAccount("user", "pass")
	if err != nil {
		t.Fatal(err)
	}
	for answer, ok := range map[string]bool{"": true, "x": false} {
		accepted := false
		server, err := a.scram(func(user string) { accepted = user == "user" })
		if err != nil {
			t.Fatal(err)
		}
		client, err := newSCRAMClient("user", "pass")
		if err != nil {
			t.Fatal(err)
		}
		_, response, err := client.Start()
		for range 2 {
			if err != nil {
				t.Fatal(err)
			}
			challenge, done, err := server.Next(response)
			if err != nil || done || accepted {
				t.Fatalf("got %q, %v, %v, accepted %v", challenge, done, err, accepted)
			}
			if response, err = client.Next(challenge); err != nil {
				t.Fatal(err)
			}
		}
		if _, done, _ := server.Next([]byte(answer)); done != ok || accepted != ok {
			t.Errorf("%q: done %v, accepted %v; want %v", answer, done, accepted, ok)
		}
	}
}

func TestAClientsCertificateIsLoggedWithItsVerifyNumber(t *testing.T) {
	s := start(t)
	cert, _, err := demo.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	s.config.Certificates = []tls.Certificate{cert}
	s.eachDoor(t, func(t *testing.T, c *smtp.Client) {
		if err := c.Hello("client.example"); err != nil && !strings.Contains(err.Error(), "already") {
			t.Fatal(err)
		}
		if err := c.Noop(); err != nil {
			t.Fatal(err)
		}
	})
	line := `hook: TLS_\w+, \d+ bits, SNI "localhost", client certificate "CN=localhost", verify number 18 \(x509: .*\)\n`
	s.wantOutput(t, line+`(?s).*`+line)
}

func TestNoCredentialIsPrinted(t *testing.T) {
	s := start(t)
	s.eachDoor(t, func(t *testing.T, c *smtp.Client) {
		c.Auth(withoutInitialResponse{sasl.NewPlainClient("", "user", "wrong")})
		c.Auth(sasl.NewPlainClient("", "user", "pass"))
		c.Quit()
	})
	s.wantOutput(t, `by PLAIN: QUIT\n(?s).*by PLAIN: QUIT\n`)
	if got := s.output(); regexp.MustCompile(`pass|wrong|AHVzZXIA`).MatchString(got) {
		t.Errorf("got\n%s", got)
	}
}

func TestAClientThatStaysKeepsNothingFromEnding(t *testing.T) {
	s := start(t)
	s.eachDoor(t, func(t *testing.T, c *smtp.Client) { c.Noop() })
	silent, err := net.Dial("tcp", s.implicit) // never shakes hands
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c, err := smtp.DialStartTLS(s.starttls, s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.cancel()
	select {
	case err := <-s.ended:
		s.ended <- err
	case <-time.After(10 * time.Second):
		t.Fatal("still running")
	}
}

func TestAnInterruptAtOnceIsNoError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"-addr", "127.0.0.1:0", "-tls-addr", "127.0.0.1:0"}, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestAPortInUseIsAnErrorThatNamesTheFlag(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, flag := range []string{"-addr", "-tls-addr"} {
		args := []string{"-addr", "127.0.0.1:0", "-tls-addr", "127.0.0.1:0", flag, l.Addr().String()}
		err := run(t.Context(), args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "("+flag+" ") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func TestTheHookStandsWhateverComes(t *testing.T) {
	proxytest.TestHook(t, func() smtpproxy.Hook { return guard{log.New(io.Discard, "", 0)} })
}
