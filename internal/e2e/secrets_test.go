package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// This file looks for credentials where they don't belong: on the wire without
// TLS, in logs and other output, and in memory when they have done their work.

const (
	secretPassword = "correct-horse-7f3a"
	secretToken    = "bearer-battery-9c1e"
)

// secretExchanges are the client's lines of exchanges that hold a credential.
var secretExchanges = map[string][]string{
	"PLAIN":                         {"AUTH PLAIN " + b64("\x00user\x00"+secretPassword)},
	"plain after white space":       {"auth \t plain  " + b64("\x00user\x00"+secretPassword)},
	"PLAIN without initial":         {"AUTH PLAIN", b64("\x00user\x00" + secretPassword)},
	"LOGIN":                         {"AUTH LOGIN", b64("user"), b64(secretPassword)},
	"LOGIN, the server not knowing": {"AUTH LOGON", b64("user"), b64(secretPassword)},
	"PLAIN, wrong, and once more":   {"AUTH PLAIN", b64("\x00user\x00" + secretPassword + "!"), b64("\x00user\x00" + secretPassword + "!"), secretPassword},
	"PLAIN, the verb again":         {"AUTH PLAIN", "AUTH PLAIN " + b64("\x00user\x00"+secretPassword)},
	"a response without mechanism":  {"AUTH " + b64("\x00user\x00"+secretPassword)},
	"a password without mechanism":  {"AUTH " + secretPassword},
	"an equals sign":                {"AUTH=PLAIN " + b64("\x00user\x00"+secretPassword)},
	"a colon":                       {"AUTH:" + secretPassword},
	"AUTHENTICATE":                  {"AUTHENTICATE PLAIN " + b64("\x00user\x00"+secretPassword)},
	"a blank before":                {" AUTH PLAIN " + b64("\x00user\x00"+secretPassword)},
	"another blank before":          {"\u3000AUTH PLAIN " + b64("\x00user\x00"+secretPassword)},
	"as in POP3":                    {"USER user", "PASS " + secretPassword},
	"as in IMAP":                    {"a1 LOGIN user " + secretPassword},
	"OAUTHBEARER":                   {"AUTH OAUTHBEARER " + b64("n,a=user,\x01auth=Bearer "+secretToken+"\x01\x01")},
	"OAUTHBEARER without initial":   {"AUTH OAUTHBEARER", b64("n,a=user,\x01auth=Bearer " + secretToken + "\x01\x01")},
}

// leaks returns what of the credentials is in b: plain, encoded, or a piece of
// that.
func leaks(b []byte) (found []string) {
	needles := []string{secretPassword, secretToken}
	for _, lines := range secretExchanges {
		for _, line := range lines {
			words := strings.Fields(line)
			if word := words[len(words)-1]; len(word) > 12 {
				needles = append(needles, word[len(word)/2-4:len(word)/2+8])
			}
		}
	}
	b = bytes.ToLower(b)
	for _, n := range needles {
		if bytes.Contains(b, []byte(strings.ToLower(n))) {
			found = append(found, n)
		}
	}
	return found
}

// output is what a program prints and logs.
type output struct {
	mu sync.Mutex
	bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.Write(p)
}

// print prints a command in all ways that are meant to be safe.
func (o *output) print(cmd command) {
	fmt.Fprintln(o, cmd.String(), cmd, &cmd)
	fmt.Fprintf(o, "%v %+v %#v %s %q %x %d %t\n", cmd, cmd, cmd, cmd, cmd, cmd, cmd, cmd)
	for _, v := range []any{[]command{cmd}, []*command{&cmd}, map[string]command{"x": cmd}, struct{ C command }{cmd}} {
		fmt.Fprintf(o, "%v %+v %#v %s\n", v, v, v, v)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(o, nil), slog.NewJSONHandler(o, nil)} {
		slog.New(h).Info("command", "command", cmd, slog.Group("in", "command", cmd))
	}
}

// decoded returns what a SASL response on the line says.
func decoded(cmd command) string {
	words := strings.Fields(cmd.Line)
	b, _ := base64.StdEncoding.DecodeString(words[len(words)-1])
	return string(b)
}

// clumsy are the ways a hook fails, with the credential at hand.
var clumsy = []string{
	"error", "error, decoded", "error, parsed", "panic", "panic, decoded", "invalid code", "invalid reply", "invalid pass",
	"too long pass", "goroutine's end", "timeout", "refusal", "nothing",
}

func fail(way string, ctx *hookContext, cmd command) (decision, error) {
	switch way {
	case "error":
		return nil, fmt.Errorf("bad line %q", cmd.Line)
	case "error, decoded":
		return pass{}, fmt.Errorf("bad response %s of %s", decoded(cmd), cmd)
	case "error, parsed":
		return nil, fmt.Errorf("bad fields %s", strings.Split(decoded(cmd), "\x00"))
	case "panic":
		panic(cmd.Line)
	case "panic, decoded":
		panic(errors.New(decoded(cmd)))
	case "invalid code":
		return reply{Code: 99, Lines: []string{cmd.Line}}, nil
	case "invalid reply":
		return reply{Code: 550, Lines: []string{cmd.Line + "\r\n"}}, nil
	case "invalid pass":
		return pass{Command: cmd.Line + "\r\nRSET"}, nil
	case "too long pass":
		return pass{Command: cmd.Line + strings.Repeat("=", 20000)}, nil
	case "goroutine's end":
		runtime.Goexit()
	case "timeout":
		<-ctx.Done()
		return nil, fmt.Errorf("%w at %s", ctx.Err(), cmd.Line)
	case "refusal":
		return reply{Code: 535}, nil
	}
	return pass{Next: true}, nil
}

func TestNoCredentialIsPrintedOrLoggedWhateverTheHookDoes(t *testing.T) {
	cfg := serverTLS().Clone()
	cfg.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	for exchange, lines := range secretExchanges {
		for _, way := range clumsy {
			for at := range lines {
				synctest.Test(t, func(t *testing.T) {
					p := &smtpproxy.Proxy{TLSConfig: cfg.Clone()}
					if way == "timeout" || at%2 == 1 {
						p.HookTimeout = time.Minute
					}
					out := playClumsy(t, p, lines, at, way)
					if found := leaks(out); len(found) > 0 {
						t.Errorf("%s, %s at line %d: %q in\n%s", exchange, way, at, found, out)
					}
				})
			}
		}
	}
}

// playClumsy plays an exchange inside TLS, with a hook that prints each command
// and fails at one. It returns all that was printed and logged.
func playClumsy(t *testing.T, p *smtpproxy.Proxy, lines []string, at int, way string) []byte {
	out, n := new(output), 0
	p.Logger = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
	p.Hook = decideIn(func(ctx *hookContext, cmd command) (decision, error) {
		out.print(cmd)
		if n < len(lines) && cmd.Line == lines[n] {
			if n++; n == at+1 {
				return fail(way, ctx, cmd)
			}
		}
		return pass{Next: true}, nil
	})
	p.OnFailure = func(_ *hookContext, f smtpproxy.Failure) decision {
		out.print(f.Command)
		return nil
	}
	tr := overPipe(t)
	srv := serveListener(t, newSASLBackend(), p.Listener(tr))
	k := talk(t, tr)
	k.SetDeadline(time.Time{})
	k.want("EHLO before.example", "250")
	k.startTLS()
	k.want("EHLO inside.example", "250")
	for _, line := range lines {
		io.WriteString(k, line+"\r\n")
		if reply, err := k.reply(); err != nil || strings.HasPrefix(reply, "421") {
			break
		}
	}
	k.Close()
	srv.Shutdown(context.Background())
	if n <= at {
		t.Errorf("the hook saw %d lines of %q", n, lines)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	return bytes.Clone(out.Bytes())
}

// spy holds a credential, where the search must find it.
type spy struct{ words map[string]any }

func TestNothingOfACredentialIsLeftInTheSession(t *testing.T) {
	for exchange, lines := range secretExchanges {
		var s *smtpproxy.Session
		b := newSASLBackend()
		p := &smtpproxy.Proxy{Hook: always(pass{Next: true})}
		tr := overTCP(t)
		srv := serveListener(t, smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
			s = gosmtp.Session(c)
			return b.NewSession(c)
		}), p.Listener(tr))
		k := talk(t, tr)
		k.want("EHLO client.example", "250")
		for _, line := range lines {
			io.WriteString(k, line+"\r\n")
			k.want("", "")
		}
		k.Close()
		srv.Shutdown(context.Background())
		if found := leaks(memory(s)); len(found) > 0 {
			t.Errorf("%s: left %q", exchange, found)
		}
		smtpproxy.State[spy](s.Context()).words = map[string]any{"x": &[]string{lines[len(lines)-1]}}
		if len(leaks(memory(s))) == 0 && len(lines[len(lines)-1]) > 20 {
			t.Errorf("%s: the search doesn't find what is there", exchange)
		}
	}
}

// memory returns all strings and octets that are reached from v.
func memory(v any) []byte {
	var b bytes.Buffer
	seen := make(map[unsafe.Pointer]bool)
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			b.WriteString(v.String() + "\n")
		case reflect.Pointer:
			if !v.IsNil() && !seen[v.UnsafePointer()] {
				seen[v.UnsafePointer()] = true
				walk(v.Elem())
			}
		case reflect.Interface:
			walk(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.Uint8 {
				b.Write(unsafe.Slice((*byte)(v.UnsafePointer()), v.Cap()))
				return
			}
			fallthrough
		case reflect.Array:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Map:
			for it := v.MapRange(); it.Next(); {
				walk(it.Key())
				walk(it.Value())
			}
		}
	}
	walk(reflect.ValueOf(v))
	return b.Bytes()
}

func TestAuthIsOfferedAndPassedWhereThePolicyAllowsIt(t *testing.T) {
	for _, test := range []struct {
		name           string
		p              smtpproxy.Proxy
		tls, allows    bool // of go-smtp
		listener       bool // Proxy.Listener, not gosmtp.Serve; go-smtp allows AUTH
		before, inside bool // AUTH is offered and passed
	}{
		{name: "Serve", tls: true, inside: true},
		{name: "Serve, the server allows", tls: true, allows: true, before: true, inside: true},
		{name: "Serve, the proxy allows", p: smtpproxy.Proxy{AllowInsecureAuth: true}, tls: true, before: true, inside: true},
		{name: "Serve, TLS of the proxy", p: smtpproxy.Proxy{TLSConfig: serverTLS()}, inside: true},
		{name: "Serve without TLS"},
		{name: "Serve without TLS, the server allows", allows: true, before: true},
		{name: "Serve without TLS, the proxy allows", p: smtpproxy.Proxy{AllowInsecureAuth: true}, before: true},
		{name: "Listener", p: smtpproxy.Proxy{TLSConfig: serverTLS()}, listener: true, inside: true},
		{name: "Listener, allowed", p: smtpproxy.Proxy{TLSConfig: serverTLS(), AllowInsecureAuth: true}, listener: true, before: true, inside: true},
		{name: "Listener without TLS", listener: true, before: true},
		{name: "Listener without TLS, required", p: smtpproxy.Proxy{RequireTLSForAuth: true}, listener: true},
		{name: "Listener without TLS, required, allowed", p: smtpproxy.Proxy{RequireTLSForAuth: true, AllowInsecureAuth: true}, listener: true, before: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			serve := func() *talker {
				tr := overTCP(t)
				if test.listener {
					serveListener(t, newSASLBackend(), test.p.Listener(tr))
					return talk(t, tr)
				}
				srv := smtp.NewServer(newSASLBackend())
				srv.AllowInsecureAuth = test.allows
				if test.tls {
					srv.TLSConfig = serverTLS()
				}
				serveBehind(t, srv, tr, &test.p)
				return talk(t, tr)
			}
			check := func(k *talker, allowed bool) {
				t.Helper()
				ehlo := k.want("EHLO client.example", "250")
				if offered := strings.Contains(ehlo, " | 250-AUTH "); offered != allowed {
					t.Errorf("offered: %s", ehlo)
				}
				k.want("AUTH PLAIN "+b64("\x00user\x00pass"), map[bool]string{true: "235", false: "523 5.7.10 TLS is required"}[allowed])
			}
			check(serve(), test.before)
			if test.tls || test.p.TLSConfig != nil {
				k := serve()
				k.want("EHLO before.example", "250")
				k.startTLS()
				check(k, test.inside)
			}
		})
	}
}

func TestALegacyKeywordForAuthIsHeldBackToo(t *testing.T) {
	tr := overTCP(t)
	serveScript(t, (&smtpproxy.Proxy{TLSConfig: serverTLS()}).Listener(tr), func(_ int, c net.Conn, r *bufio.Reader) {
		fmt.Fprint(c, "220 mx.example\r\n")
		for {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
			fmt.Fprint(c, "250-mx.example\r\n250-AUTH=LOGIN PLAIN\r\n250-AUTH LOGIN PLAIN\r\n250-auth=\r\n250-AUTHOR\r\n250 Auth\r\n")
		}
	})
	k := talk(t, tr)
	k.want("EHLO client.example", "250-mx.example | 250-AUTHOR | 250 STARTTLS")
	k.startTLS()
	k.want("EHLO client.example", "250-mx.example | 250-AUTH=LOGIN PLAIN | 250-AUTH LOGIN PLAIN | 250-auth= | 250-AUTHOR | 250 Auth")
}

// recordConn keeps what is read from a connection.
type recordConn struct {
	net.Conn
	got *bytes.Buffer
}

func (c recordConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.got.Write(p[:n])
	return n, err
}

func TestAHandshakeThatFailsOrIsBrokenOffEndsInSilence(t *testing.T) {
	leaveNothing(t)
	for name, play := range map[string]func(c net.Conn, srv *smtp.Server){
		"garbage":            func(c net.Conn, _ *smtp.Server) { io.WriteString(c, "\x16\x03\x01\xff\xff\x01\x02") },
		"plaintext":          func(c net.Conn, _ *smtp.Server) { io.WriteString(c, "EHLO plain.example\r\nNOOP\r\n") },
		"the client refuses": func(c net.Conn, _ *smtp.Server) { tls.Client(c, &tls.Config{ServerName: "mx.example"}).Handshake() },
		"no common version": func(c net.Conn, _ *smtp.Server) {
			tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}).Handshake()
		},
		"the client hangs up": func(c net.Conn, _ *smtp.Server) { c.(recordConn).Conn.(*net.TCPConn).CloseWrite() },
		"the server closes":   func(_ net.Conn, srv *smtp.Server) { srv.Close() },
		"the server closes in the middle": func(c net.Conn, srv *smtp.Server) {
			io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00")
			srv.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, hook := new(tlsBackend), new(passLog)
			tr := overTCP(t)
			srv := serveListener(t, b, (&smtpproxy.Proxy{Hook: hook, TLSConfig: serverTLS()}).Listener(tr))
			k := talk(t, tr)
			k.want("EHLO before.example", "250")
			k.want("STARTTLS", "220")
			c := recordConn{k.Conn, new(bytes.Buffer)}
			play(c, srv)
			if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			// All that may come are TLS records.
			for got := c.got.Bytes(); len(got) > 0; {
				if len(got) < 5 || got[0] < 20 || got[0] > 23 || got[1] != 3 || len(got) < 5+int(got[3])<<8+int(got[4]) {
					t.Fatalf("after 220: %q", got)
				}
				got = got[5+int(got[3])<<8+int(got[4]):]
			}
			srv.Shutdown(context.Background()) // or it is closed already
			if lines := hook.passed(); !slices.Equal(lines, []string{"EHLO before.example", "STARTTLS"}) {
				t.Errorf("the hook was shown %q", lines)
			}
		})
	}
}
