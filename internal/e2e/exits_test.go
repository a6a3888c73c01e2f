package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// This file is about user code that doesn't return: it panics, or ends its goroutine
// by runtime.Goexit, as testing.T.FailNow does. It must not end the process, nor
// leave anything behind.

var exits = map[string]func(){
	"panics":               func() { panic("no") },
	"panics with nil":      func() { panic(nil) },
	"ends its goroutine":   runtime.Goexit,
	"panics with an error": func() { panic(errTest) },
}

func TestUserCodeMayFailToReturn(t *testing.T) {
	for _, scene := range userScenes() {
		for name, exit := range exits {
			t.Run(scene.why+", "+name, func(t *testing.T) {
				scene.play(t, func(*userRun) { exit() }, func(*userRun) {})
			})
		}
	}
}

// TestASessionEndsWithAHookThatEndsItsGoroutine is about a log handler that does so
// as well, when it is told of that.
func TestASessionEndsWithAHookThatEndsItsGoroutine(t *testing.T) {
	for name, exit := range exits {
		var kept *hookContext
		p := &smtpproxy.Proxy{Hook: decideIn(func(ctx *hookContext, _ command) (decision, error) {
			kept = ctx
			runtime.Goexit()
			return nil, nil
		})}
		logs(nil)(p, exit)
		s := p.NewSession(connection{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Command(context.Background(), "NOOP")
		}()
		<-done
		if s.Context().Err() == nil || kept.Err() == nil {
			t.Errorf("the log %s: of the session %v, of the call %v", name, s.Context().Err(), kept.Err())
		}
	}
}

// brokenResolver doesn't return from one of its methods.
type brokenResolver struct {
	exit   func()
	second bool // only the second
}

func (r brokenResolver) LookupAddr(context.Context, string) ([]string, error) {
	if !r.second {
		r.exit()
	}
	return []string{"client.example."}, nil
}

func (r brokenResolver) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	r.exit()
	return nil, nil
}

func TestAResolverThatDoesNotReturnLeavesTheHostWithoutAName(t *testing.T) {
	for name, exit := range exits {
		for _, second := range []bool{false, true} {
			leaveNothing(t)
			var logged bytes.Buffer
			hook := new(visits)
			p := &smtpproxy.Proxy{
				Hook: hook, LookupPTR: true, Resolver: brokenResolver{exit: exit, second: second},
				Logger: slog.New(slog.NewTextHandler(&logged, nil)),
			}
			tr := from(overTCP(t), "192.0.2.1:25")
			serveBehind(t, smtp.NewServer(new(tlsBackend)), tr, p)
			k := talk(t, tr)
			k.say("EHLO x", "250", "NOOP", "250", "QUIT", "221")
			k.wantEnd()
			if got := hook.names(); !slices.Equal(got, []string{"", "", ""}) {
				t.Errorf("it %s: the hook was told of %q", name, got)
			}
			if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "Resolver") {
				t.Errorf("it %s: logged %q", name, got)
			}
		}
	}
}

// TestNothingInPlaintextFollowsAHandshakeThatUserCodeBreaksOff is about callbacks of
// the TLS configuration, and log handlers.
func TestNothingInPlaintextFollowsAHandshakeThatUserCodeBreaksOff(t *testing.T) {
	type broken struct {
		why string
		set func(p *smtpproxy.Proxy, exit func())
		// fails: the client breaks the handshake off
		fails bool
	}
	var all []broken
	for name, set := range tlsCallbacks {
		all = append(all, broken{why: name, set: func(p *smtpproxy.Proxy, exit func()) { ofTLS(p.ImplicitTLS, set)(p, exit) }})
	}
	all = append(all,
		broken{why: "Logger, the handshake fails", fails: true, set: logs(nil)},
		broken{why: "Logger, a callback panics", set: func(p *smtpproxy.Proxy, exit func()) {
			logs(nil)(p, exit)
			p.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("no") }
		}},
		broken{why: "Logger, a callback ends its goroutine", set: func(p *smtpproxy.Proxy, exit func()) {
			logs(nil)(p, exit)
			p.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { runtime.Goexit(); return nil, nil }
		}})
	for _, b := range all {
		for name, exit := range exits {
			for _, implicit := range []bool{false, true} {
				how := "STARTTLS"
				if implicit {
					how = "implicit TLS"
				}
				t.Run(b.why+", "+name+", "+how, func(t *testing.T) {
					leaveNothing(t)
					hook := new(passLog)
					p := &smtpproxy.Proxy{Hook: hook, TLSConfig: serverTLS().Clone(), ImplicitTLS: implicit}
					b.set(p, exit)
					tr := overTCP(t)
					backend := new(tlsBackend)
					serveListener(t, backend, p.Listener(tr))
					c := dialPeer(t, tr)
					if !implicit {
						c.expect("220")
						c.ask("EHLO x", "250")
						c.ask("STARTTLS", "220")
					}
					got := recordConn{&prefixConn{c.Conn, c.r}, new(bytes.Buffer)}
					if b.fails {
						io.WriteString(got, "\x16\x03\x01\xff\xff\x01\x02")
					} else {
						tc := tls.Client(got, &tls.Config{InsecureSkipVerify: true, Certificates: serverTLS().Certificates})
						if tc.Handshake() == nil {
							io.WriteString(tc, "EHLO inside\r\n")
						}
						if text, _ := io.ReadAll(tc); len(text) > 0 {
							t.Errorf("inside TLS, the client got %q", text)
						}
					}
					if _, err := io.ReadAll(got); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatal("the connection isn't closed")
					}
					if octets := got.got.Bytes(); !isTLS(octets) {
						t.Errorf("behind the 220 the client got %q", octets)
					}
					if n := len(hook.passed()); n > 2 {
						t.Errorf("the hook was shown %q", hook.passed())
					}
				})
			}
		}
	}
}

// isTLS tells whether all octets are in TLS records.
func isTLS(octets []byte) bool {
	for len(octets) > 0 {
		if len(octets) < 5 || octets[0] < 20 || octets[0] > 23 || octets[1] != 3 {
			return false
		}
		octets = octets[min(len(octets), 5+int(octets[3])<<8+int(octets[4])):]
	}
	return true
}
