package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file holds what dialogues can't show of the log: where it is, what is told of a
// hook, and that no credential is.

// lastSession keeps the session of the connection that is accepted last.
func lastSession(l net.Listener, last **smtpproxy.Session) net.Listener {
	return acceptedListener{l, func(c net.Conn) { *last, _ = smtpproxy.SessionOf(c) }}
}

func TestAHookThatFailsIsToldOfOnce(t *testing.T) {
	for _, row := range []struct {
		why   string
		hook  func(ctx *hookContext) (decision, error)
		p     smtpproxy.Proxy
		lines int
		says  string
		stack bool
	}{
		{"an error", func(*hookContext) (decision, error) { return nil, errors.New("out of luck") }, smtpproxy.Proxy{}, 1, "out of luck", false},
		{"an error beside a decision", func(*hookContext) (decision, error) { return pass{}, errors.New("out of luck") }, smtpproxy.Proxy{}, 1, "out of luck", false},
		{"a panic", func(*hookContext) (decision, error) { panic("at the disco") }, smtpproxy.Proxy{}, 1, "at the disco", true},
		{"an invalid reply", func(*hookContext) (decision, error) { return reply{Code: 99}, nil }, smtpproxy.Proxy{}, 1, "code 99", false},
		{"an invalid line", func(*hookContext) (decision, error) { return pass{Command: "1"}, nil }, smtpproxy.Proxy{}, 1, "without a verb", false},
		{"no time left", func(ctx *hookContext) (decision, error) { <-ctx.Done(); return nil, nil }, smtpproxy.Proxy{HookTimeout: time.Millisecond}, 1, "timeout", false},
		{"the end of its goroutine", func(*hookContext) (decision, error) { runtime.Goexit(); return nil, nil }, smtpproxy.Proxy{}, 1, "ended its goroutine", false},
		{"OnFailure decides instead", func(*hookContext) (decision, error) { return nil, errors.New("out of luck") }, smtpproxy.Proxy{
			OnFailure: func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 451} },
		}, 1, "out of luck", false},
		{"OnFailure fails, too", func(*hookContext) (decision, error) { return nil, errors.New("out of luck") }, smtpproxy.Proxy{
			OnFailure: func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 99} },
		}, 2, "", false},
	} {
		t.Run(row.why, func(t *testing.T) {
			log, last := new(logbook), new(smtpproxy.Session)
			p := row.p
			p.Logger = log.logger()
			p.Hook = decideIn(func(ctx *hookContext, cmd command) (decision, error) {
				if cmd.Verb() != "NOOP" {
					return nil, nil
				}
				return row.hook(ctx)
			})
			tr := overTCP(t)
			s := servertest.Strict()
			f := fronted{s, func(l net.Listener) error { return s.Serve(lastSession(p.Listener(l), &last)) }, s.Close}
			c := f.connect(t, tr)
			c.expect("220")
			c.ask("EHLO x", "250")
			c.ask("NOOP now", "4")
			c.Close()
			s.Close()
			lines := log.lines("")
			for _, e := range lines {
				if e.level != slog.LevelError || e.text != "smtpproxy: hook failed" || e.attrs["command"] != "NOOP now" || !strings.Contains(e.attrs["error"], row.says) ||
					e.attrs["connection"] != last.Connection().ID || e.attrs["remote"] != c.LocalAddr().String() || (e.attrs["stack"] != "") != row.stack {
					t.Errorf("logged: %v", e)
				}
			}
			if len(lines) != row.lines {
				t.Errorf("%d lines, want %d: %v", len(lines), row.lines, lines)
			}
		})
	}
}

func TestAHandshakeThatFailsIsToldOfWithTheClientsAddress(t *testing.T) {
	for _, door := range tlsDoors {
		log := new(logbook)
		connect := openDoor(t, door, overTCP(t), serverTLS().Clone(), smtpproxy.Proxy{Logger: log.logger()}, new(tlsBackend))
		k := connect(t)
		io.WriteString(k, "\x16\x03\x01\xff\xff\x01\x02")
		io.ReadAll(k) // until the server has closed
		lines := log.lines("")
		if len(lines) != 1 || lines[0].level != slog.LevelInfo || !strings.Contains(lines[0].text, "TLS handshake failed") ||
			lines[0].attrs["remote"] != k.LocalAddr().String() || lines[0].attrs["connection"] == "" || lines[0].attrs["error"] == "" {
			t.Errorf("%s: logged: %v", door, lines)
		}
	}
}

func TestACommandOutOfTurnIsTheServersFaultAndToldOfOnce(t *testing.T) {
	log := new(logbook)
	p := &smtpproxy.Proxy{Logger: log.logger()}
	s := p.NewSession(connection{ID: "id", RemoteIP: netip.MustParseAddr("192.0.2.1"), RemotePort: 7777})
	if _, ok := s.Command(context.Background(), "EHLO x").(pass); !ok {
		t.Fatal("EHLO isn't passed")
	}
	for range 3 { // though no reply to EHLO was told
		if r, ok := s.Command(context.Background(), "NOOP").(reply); !ok || r.Code != 421 || !r.Disconnect {
			t.Errorf("got %v", r)
		}
	}
	lines := log.lines("")
	if len(lines) != 1 || lines[0].level != slog.LevelWarn || lines[0].attrs["reason"] != "command out of turn" ||
		lines[0].attrs["connection"] != "id" || lines[0].attrs["remote"] != "192.0.2.1:7777" {
		t.Errorf("logged: %v", lines)
	}

	if _, ok := lines[0].attrs["peer"]; ok {
		t.Errorf("nobody else is connected: %v", lines)
	}

	// Of a client that is another's, both are told.
	log = new(logbook)
	p.Logger = log.logger()
	s = p.NewSession(connection{RemoteIP: netip.MustParseAddr("192.0.2.1"), RemotePort: 7777, Peer: netip.MustParseAddrPort("198.51.100.1:25")})
	s.Command(context.Background(), "EHLO x")
	s.Command(context.Background(), "NOOP")
	if lines := log.lines(""); len(lines) != 1 || lines[0].attrs["remote"] != "192.0.2.1:7777" || lines[0].attrs["peer"] != "198.51.100.1:25" {
		t.Errorf("logged: %v", lines)
	}

	// Where all is over, a line more is nobody's fault.
	log = new(logbook)
	p.Logger = log.logger()
	s = p.NewSession(connection{})
	s.Close()
	s.Command(context.Background(), "NOOP")
	if lines := log.lines(""); len(lines) > 0 {
		t.Errorf("logged: %v", lines)
	}
}

// bring brings about a line of each level: a hook that fails, a server that loses step,
// a client that speaks HTTP.
func bring(t *testing.T, logger *slog.Logger) {
	for _, line := range []string{"NOOP fail", "NOOP twice", "GET / HTTP/1.1"} {
		p := &smtpproxy.Proxy{Logger: logger, Hook: decide(func(cmd command) (decision, error) {
			if cmd.Line == "NOOP fail" {
				return nil, errors.New("out of luck")
			}
			return nil, nil
		})}
		ended := make(chan struct{})
		c := runScript(t, overTCP(t), p, func(c net.Conn) {
			defer close(ended)
			answersTo(c, func(string) string { return "250 once\r\n250 twice\r\n" })
		})
		c.expect("220")
		c.send(line + "\r\n")
		io.ReadAll(c.r)
		c.Close() // or the library would wait for that
		<-ended
	}
}

func TestWithoutALoggerWarningsAndErrorsGoToTheDefaultOne(t *testing.T) {
	for _, row := range []struct {
		why    string
		logger func(own *logbook) *slog.Logger
		own    string
		other  string // what the default one gets
	}{
		{"none", func(*logbook) *slog.Logger { return nil }, "[]", "[ERROR hook failed WARN reply that fits no command]"},
		{"one that discards", func(*logbook) *slog.Logger { return slog.New(slog.DiscardHandler) }, "[]", "[]"},
		{"one of one's own", func(own *logbook) *slog.Logger { return own.logger() }, "[ERROR hook failed WARN reply that fits no command INFO HTTP]", "[]"},
	} {
		own, other := new(logbook), new(logbook)
		other.byDefault(t)
		bring(t, row.logger(own))
		if got := fmt.Sprint(own.reasons()); got != row.own {
			t.Errorf("%s: it got %s, want %s", row.why, got, row.own)
		}
		if got := fmt.Sprint(other.reasons()); got != row.other {
			t.Errorf("%s: the default one got %s, want %s", row.why, got, row.other)
		}
	}
}

func TestALoggerThatPanicsHarmsNobody(t *testing.T) {
	bring(t, slog.New(panicking{}))
}

type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { panic("no") }
func (panicking) Handle(context.Context, slog.Record) error { panic("no") }

// A credential may have been sent right before the end, in its place or out of it, and
// be in what ends the connection.
func TestNoCredentialIsLoggedWhereAConnectionIsEnded(t *testing.T) {
	secret := b64("\x00user\x00" + secretPassword)
	for _, row := range []struct {
		why    string
		last   string // what the client sends at last
		answer string // what the server answers to that, or to anything if there is no last
		says   string // part of the log
	}{
		{"HTTP", "GET /?auth=" + secretPassword + " HTTP/1.1\r\n", "", "HTTP"},
		{"TLS", "\x16\x03\x01" + secretPassword, "", "TLS without STARTTLS"},
		{"a line too long", "AUTH PLAIN " + strings.Repeat(secret, 300) + "\r\n", "", "too long"},
		{"a chunk of unknown size", "BDAT " + secretPassword + "\r\n", "", "unknown size"},
		{"control octets", "\x00AUTH PLAIN " + secret + "\r\n\x01" + secretPassword + "\r\n", "", "too many"},
		{"what looks like STARTTLS", "STARTTLS" + secretPassword + "\r\nSTARTTLS " + secretPassword + "\r\n", "", "too many"},
		{"no verb", "1 " + secretPassword + "\r\n" + " AUTH PLAIN " + secret + "\r\n", "", "too many"},
		{"a server that sends it back", "NOOP\r\n", "AUTH PLAIN " + secret + "\r\n", "malformed"},
		{"a server that sends it back in a reply too many", "NOOP\r\n", "250 ok\r\n250 " + secretPassword + "\r\n", "fits no command"},
		{"a hook that fails at it", "AUTH PLAIN " + secret + "\r\n", "", "hook failed"},
		{"a hook that panics at it", "PASS " + secretPassword + "\r\n", "", "hook failed"},
	} {
		for exchange, lines := range secretExchanges {
			out := new(output)
			p := &smtpproxy.Proxy{
				AllowInsecureAuth: true, MaxErrors: -1,
				Logger: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})),
			}
			if row.says == "too many" {
				p.MaxErrors = 1
			}
			failing := false
			if row.says == "hook failed" {
				p.Hook = decide(func(cmd command) (decision, error) {
					switch {
					case !failing:
						return nil, nil
					case cmd.Verb() == "PASS":
						panic(cmd)
					}
					return nil, fmt.Errorf("no luck with %q", cmd.Line)
				})
			}
			ended, asked := make(chan struct{}), false
			c := runScript(t, overTCP(t), p, func(c net.Conn) {
				defer close(ended)
				answersTo(c, func(line string) string {
					switch {
					case row.answer != "" && line+"\r\n" == row.last:
						return row.answer
					case !asked && strings.HasPrefix(strings.ToUpper(line), "AUTH "):
						asked = true
						return "334 \r\n"
					}
					asked = false
					return "250 x\r\n"
				})
			})
			c.expect("220")
			for _, line := range lines {
				c.send(line + "\r\n")
				if _, err := c.r.ReadString('\n'); err != nil {
					break // ended
				}
			}
			failing = true
			c.send("*\r\n" + row.last) // a SASL exchange ends there
			io.ReadAll(c.r)
			c.Close()
			<-ended
			out.mu.Lock()
			if found := leaks(out.Bytes()); len(found) > 0 || !strings.Contains(out.String(), row.says) {
				t.Errorf("%s, %s: %q in\n%s", row.why, exchange, found, out.String())
			}
			out.mu.Unlock()
		}
	}
}
