package e2e

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file extends the two properties to sessions with STARTTLS.

func libraryTLS(l net.Listener, h smtpproxy.Hook) net.Listener {
	p := &smtpproxy.Proxy{Hook: h, TLSConfig: serverTLS(), AllowInsecureAuth: true}
	return p.Listener(l)
}

// upgrade is a transport whose client sends some octets, then STARTTLS, and
// goes on inside TLS if it is let.
func upgrade(listen func(*testing.T) transport, before []byte, got *bytes.Buffer) func(*testing.T) transport {
	return func(t *testing.T) transport {
		tr := listen(t)
		dial := tr.dial
		tr.dial = func() (net.Conn, error) {
			c, err := dial()
			if err != nil {
				return nil, err
			}
			return startTLS(c, before, got)
		}
		return tr
	}
}

const ready = "220 2.0.0 Ready to start TLS\r\n"

// startTLS returns the connection inside TLS, or the plain one if the server
// doesn't agree.
func startTLS(c net.Conn, before []byte, got *bytes.Buffer) (net.Conn, error) {
	go c.Write(append(bytes.Clone(before), "STARTTLS\r\n"...))
	one := make([]byte, 1)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for !strings.HasSuffix(got.String(), ready) {
		if n, err := c.Read(one); n == 0 || err != nil {
			c.Close()
			return c, nil
		}
		got.Write(one)
		if got.Len() > len("220 servertest") {
			// Without an answer to STARTTLS for so long, there is none:
			// it is content, or a line of something else.
			c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
		}
	}
	c.SetReadDeadline(time.Time{})
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true}), nil
}

func TestNothingSlipsPastTheHookWithSTARTTLSAnywhere(t *testing.T) {
	for _, d := range dialects {
		for _, transport := range []string{"TCP", "pipe"} {
			t.Run(d.name+" over "+transport, func(t *testing.T) {
				t.Parallel()
				upgraded := 0
				restless := new(restless)
				for seed := range uint64(*sessions / 2) {
					r := rand.New(rand.NewPCG(seed, 4))
					before := (&stream{Rand: r, dialect: d}).draw(r.IntN(3))
					inside := (&stream{Rand: r, dialect: d, n: 1000}).draw(1 + r.IntN(12))
					var got bytes.Buffer
					problem, _ := slipWith(t, seed, d, upgrade(transports[transport], before, &got), restless.inSome(seed, libraryTLS), r, inside)
					if problem != "" {
						t.Fatalf("before TLS %q\n%s", before, problem)
					}
					if strings.HasSuffix(got.String(), ready) {
						upgraded++
					}
				}
				restless.check(t, *sessions/2)
				if upgraded < *sessions/10 {
					t.Errorf("only %d of %d sessions came to TLS: the property says little", upgraded, *sessions/2)
				}
			})
		}
	}
}

func TestASessionWithSTARTTLSIsTheSameAsWithoutTheLibrary(t *testing.T) {
	d := dialect{name: "go-smtp", gosmtp: true, start: func() *servertest.Server {
		return servertest.GoSMTP(servertest.Configure(func(s *smtp.Server) { s.TLSConfig = serverTLS() }))
	}}
	for seed := range uint64(*sessions) {
		r := rand.New(rand.NewPCG(seed, 5))
		before := []byte("EHLO before.example\r\n" + []string{"", "NOOP\r\n", "RSET\r\n"}[r.IntN(3)])
		sent := (&stream{Rand: r, dialect: d}).proper()
		var gotBefore, wantBefore bytes.Buffer
		want, wantRecord := converse(t, r, d, upgrade(overTCP, before, &wantBefore), bare, nil, sent)
		got, gotRecord := converse(t, r, d, upgrade(overTCP, before, &gotBefore), libraryTLS, &passLog{}, sent)
		if gotBefore.String() != wantBefore.String() || !bytes.Equal(got, want) || len(got) == 0 {
			t.Fatalf("seed %d: sent %.3000q\ngot  %q + %q\nwant %q + %q", seed, sent, gotBefore.String(), got, wantBefore.String(), want)
		}
		if !reflect.DeepEqual(gotRecord.Messages, wantRecord.Messages) {
			t.Fatalf("seed %d: messages differ", seed)
		}
	}
}

// The probe for command injection: what comes in one piece with STARTTLS, or
// octet by octet behind it, is neither executed nor answered, before or after
// the handshake.
func TestNothingInjectedBehindSTARTTLSIsExecutedOrAnswered(t *testing.T) {
	const injected = "STARTTLS\r\nEHLO injected.example\r\nNOOP injected\r\n"
	for _, name := range []string{"in one piece", "octet by octet"} {
		t.Run(name, func(t *testing.T) {
			hook := &passLog{}
			server := servertest.Strict()
			tr := overTCP(t)
			served := make(chan error, 1)
			go func() { served <- server.Serve(libraryTLS(tr, hook)) }()
			k := talk(t, tr)
			k.want("EHLO client.example", "250")
			if name == "in one piece" {
				io.WriteString(k, injected)
			} else {
				for i := range len(injected) {
					if _, err := io.WriteString(k, injected[i:i+1]); err != nil {
						break
					}
				}
			}
			// Whatever the server says, the client shakes hands.
			reply, err := k.reply()
			if err == nil && !strings.HasPrefix(reply, "220") && !strings.HasPrefix(reply, "503") {
				t.Errorf("STARTTLS: %q", reply)
			}
			tc := tls.Client(&prefixConn{k.Conn, k.r}, &tls.Config{InsecureSkipVerify: true})
			tc.SetDeadline(time.Now().Add(2 * time.Second))
			if err := tc.Handshake(); err == nil {
				t.Error("the handshake succeeded")
			}
			k.Close()
			server.Close()
			<-served
			for _, line := range append(server.Commands(), hook.passed()...) {
				if strings.Contains(line, "injected") {
					t.Errorf("executed or shown: %q", line)
				}
			}
		})
	}
}

type prefixConn struct {
	net.Conn
	r io.Reader
}

func (c *prefixConn) Read(p []byte) (int, error) { return c.r.Read(p) }
