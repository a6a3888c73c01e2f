package e2e

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file holds what the author of a server is warned of: once a listener, with the
// way out, and of nothing else.

// expectWarnings checks that a log has so many lines with the text, that they are
// warnings, and that it has no other line.
func (l *logbook) expectWarnings(t *testing.T, n int, text string) {
	t.Helper()
	got := l.lines("")
	for _, e := range got {
		if e.level != slog.LevelWarn || !strings.Contains(e.text, text) {
			t.Errorf("logged: %v", e)
		}
	}
	if len(got) != n {
		t.Errorf("%d warnings, want %d: %v", len(got), n, got)
	}
}

func TestAServerThatReadsBeforeItGreetsIsWarnedOfOnce(t *testing.T) {
	silent := func(n int, c net.Conn, r *bufio.Reader) { r.ReadString('\n') }
	greet := func(c net.Conn) { io.WriteString(c, "220 x\r\n") }
	for _, row := range []struct {
		why    string
		script func(n int, c net.Conn, r *bufio.Reader)
		clear  time.Duration // when the clients go, which have sent a line if that is late
		want   int
	}{
		{"it reads a PROXY header of its own, or lies in wait for early talkers", silent, time.Hour, 1},
		{"only one of its connections does", func(n int, c net.Conn, r *bufio.Reader) {
			if n > 0 {
				greet(c)
			}
			silent(n, c, r)
		}, time.Hour, 1},
		{"it greets at once", func(n int, c net.Conn, r *bufio.Reader) {
			greet(c)
			silent(n, c, r)
		}, time.Hour, 0},
		{"its reader runs ahead", func(n int, c net.Conn, r *bufio.Reader) {
			lines := readAhead(c)
			time.Sleep(2 * time.Second) // in a bubble
			greet(c)
			<-lines
		}, time.Hour, 0},
		{"it takes its time before it greets, and doesn't read", func(n int, c net.Conn, r *bufio.Reader) {
			time.Sleep(time.Minute) // in a bubble
			greet(c)
			silent(n, c, r)
		}, time.Hour, 0},
		{"it gives up soon, as the traps of some servers do", func(n int, c net.Conn, r *bufio.Reader) {
			c.SetReadDeadline(time.Now().Add(3 * time.Second))
			silent(n, c, r)
			c.SetReadDeadline(time.Time{})
			greet(c)
			silent(n, c, r)
		}, time.Hour, 0},
		{"the client says nothing, and goes soon", silent, 4 * time.Second, 0},
		{"its reader runs ahead while it is slow to reply", func(n int, c net.Conn, r *bufio.Reader) {
			greet(c)
			lines := readAhead(c)
			<-lines
			time.Sleep(time.Minute) // in a bubble
			io.WriteString(c, "250 x\r\n")
			<-lines
		}, time.Hour, 0},
	} {
		bubble(t, row.why, func(t *testing.T) {
			log := new(logbook)
			p := &smtpproxy.Proxy{Logger: log.logger()}
			for listeners := 1; listeners <= 2; listeners++ {
				tr := overPipe(t)
				serveScript(t, p.Listener(tr), row.script)
				for range 3 {
					c, err := tr.dial()
					if err != nil {
						t.Fatal(err)
					}
					go io.Copy(io.Discard, c)
					if row.clear == time.Hour {
						go io.WriteString(c, "NOOP\r\n")
					}
					time.AfterFunc(row.clear, func() { c.Close() })
				}
				time.Sleep(2 * time.Hour) // in a bubble
				synctest.Wait()
				log.expectWarnings(t, row.want*listeners, "reads from a connection before it greets")
			}
			for _, e := range log.lines("") {
				if !strings.Contains(e.text, "listener beneath") || !strings.Contains(e.text, "Connection.EarlyTalker") {
					t.Errorf("no way out in %v", e)
				}
			}
		})
	}
}

// What follows STARTTLS has a greeting that no client waits for.
func TestAServerThatReadsBeforeItGreetsBehindSTARTTLSIsNotWarnedOf(t *testing.T) {
	cfg := serverTLS()
	synctest.Test(t, func(t *testing.T) {
		log, tr := new(logbook), overPipe(t)
		p := &smtpproxy.Proxy{Logger: log.logger(), TLSConfig: cfg.Clone()}
		serveScript(t, p.Listener(tr), func(n int, c net.Conn, _ *bufio.Reader) {
			if n == 0 {
				answersTo(c, func(string) string { return "250 x\r\n" })
				return
			}
			lines := readAhead(c)
			time.Sleep(time.Minute) // in a bubble
			io.WriteString(c, "220 x\r\n")
			<-lines
			io.WriteString(c, "250 x\r\n")
			<-lines
		})
		k := talk(t, tr)
		k.SetDeadline(time.Time{})
		k.want("EHLO before.example", "250")
		k.startTLS()
		k.want("EHLO inside.example", "250")
		k.Close()
		log.expectWarnings(t, 0, "")
	})
}

func TestAServerWhoseSTARTTLSIsTakenAwayIsWarnedOfOnce(t *testing.T) {
	offers := servertest.Configure(func(s *smtp.Server) { s.TLSConfig = serverTLS() })
	for _, row := range []struct {
		why     string
		p       smtpproxy.Proxy
		options []servertest.Option
		wrap    bool // in TLS
		want    int
	}{
		{"the proxy has no TLSConfig", smtpproxy.Proxy{}, []servertest.Option{offers}, false, 1},
		{"the proxy has one", smtpproxy.Proxy{TLSConfig: serverTLS()}, []servertest.Option{offers}, false, 0},
		{"the server has none", smtpproxy.Proxy{}, nil, false, 0},
		{"neither has", smtpproxy.Proxy{TLSConfig: serverTLS()}, nil, false, 0},
		{"there is TLS already", smtpproxy.Proxy{}, []servertest.Option{offers}, true, 0},
		{"there is TLS already, begun by the proxy", smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true}, []servertest.Option{offers}, false, 0},
	} {
		t.Run(row.why, func(t *testing.T) {
			log := new(logbook)
			p := row.p
			p.Logger = log.logger()
			for listeners := 1; listeners <= 2; listeners++ {
				tr := overTCP(t)
				if row.wrap || p.ImplicitTLS {
					tr = dialTLS(tr, row.wrap)
				}
				f := behindListener(&p, servertest.GoSMTP(row.options...))
				f.start(t, tr)
				for range 3 {
					c := dialPeer(t, tr)
					c.expect("220")
					c.ask("EHLO y", "250")
					c.ask("EHLO y", "250")
					c.ask("QUIT", "221")
				}
				log.expectWarnings(t, row.want*listeners, "STARTTLS")
			}
			for _, e := range log.lines("") {
				if !strings.Contains(e.text, "Proxy.TLSConfig") || !strings.Contains(e.text, "gosmtp.Serve") {
					t.Errorf("no way out in %v", e)
				}
			}
		})
	}
}

// dialTLS makes clients begin with TLS, and the listener too if it is not for the proxy
// to do.
func dialTLS(tr transport, beneath bool) transport {
	dial := tr.dial
	tr.dial = func() (net.Conn, error) {
		c, err := dial()
		if err != nil {
			return nil, err
		}
		return tlsClient(c), nil
	}
	if beneath {
		tr.Listener = tlsListener(tr.Listener)
	}
	return tr
}

func TestGosmtpServeTakesOverTheServersTLSWithoutAWarning(t *testing.T) {
	log := new(logbook)
	tr := overTCP(t)
	srv := smtp.NewServer(new(tlsBackend))
	srv.TLSConfig = serverTLS()
	serveBehind(t, srv, tr, &smtpproxy.Proxy{Logger: log.logger()})
	k := talk(t, tr)
	if ehlo := k.want("EHLO before.example", "250"); !strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("STARTTLS isn't offered: %s", ehlo)
	}
	k.startTLS()
	k.want("EHLO inside.example", "250")
	log.expectWarnings(t, 0, "")
}

func TestTLSFromTheListenerBeneathAndImplicitTLSAreNotBothShaken(t *testing.T) {
	log := new(logbook)
	p := &smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true, Logger: log.logger()}
	for listeners := 1; listeners <= 2; listeners++ {
		tr := dialTLS(overTCP(t), true)
		hook := new(visits)
		p.Hook = hook
		srv := smtp.NewServer(new(tlsBackend))
		served := make(chan error, 1)
		go func() { served <- gosmtp.Serve(srv, tr, p) }()
		for range 3 {
			c := dialPeer(t, tr)
			c.expect("220")
			c.ask("EHLO y", "250")
			c.ask("QUIT", "221")
			c.expectEnd()
		}
		srv.Close()
		<-served
		for _, conn := range hook.conns {
			if conn.TLS.Protocol != "TLSv1.3" {
				t.Errorf("the hook is told of %+v", conn.TLS)
			}
		}
		if len(hook.conns) != 6 {
			t.Errorf("the hook was shown %d commands", len(hook.conns))
		}
		log.expectWarnings(t, listeners, "Proxy.ImplicitTLS is ignored")
	}
}
