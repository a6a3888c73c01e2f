package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"go.uber.org/goleak"
)

// This file holds that no user code runs under a lock: whatever it is, it may ask
// all of the session, close the server, and take its time.

// userScene is a session that comes to user code.
type userScene struct {
	why string
	// set makes user what the library calls there.
	set func(p *smtpproxy.Proxy, user func())
	// script is the server's (see scripted); none is go-smtp.
	script string
	// say is what the client sends and waits for: "> line", "< code" and "TLS".
	say string
	// logged is what the log handler gets, if that is what is called.
	logged string
}

// goSMTPHost is go-smtp's server, whose Close doesn't wait for what it serves, but
// is not for two goroutines.
type goSMTPHost struct {
	*smtp.Server
	once *sync.Once
}

func (h goSMTPHost) Close() error {
	h.once.Do(func() { h.Server.Close() })
	return nil
}

func newGoSMTPHost() goSMTPHost {
	srv := smtp.NewServer(newSASLBackend())
	srv.AllowInsecureAuth = true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	return goSMTPHost{srv, new(sync.Once)}
}

// host is a server that may be closed from anywhere.
type host interface {
	Serve(net.Listener) error
	Close() error
}

const (
	greetIt  = "< 220|> EHLO x|< 250|"
	mailToIt = greetIt + "> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|"
	startIt  = greetIt + "> STARTTLS|< 220|TLS|> EHLO x|< 250|> QUIT|< 221"

	scriptMail = `S: 220 x
C: EHLO x
S: 250 x
C: MAIL FROM:<a@a>
S: 250 x
C: RCPT TO:<b@b>
S: 250 x
`
)

// ofTLS returns what sets a callback of the TLS configuration.
func ofTLS(implicit bool, set func(cfg *tls.Config, user func())) func(*smtpproxy.Proxy, func()) {
	return func(p *smtpproxy.Proxy, user func()) {
		cfg := serverTLS().Clone()
		set(cfg, user)
		p.TLSConfig, p.ImplicitTLS = cfg, implicit
		p.SessionTickets = true // they have a time
	}
}

// tlsCallbacks are those of a TLS configuration that a server calls.
var tlsCallbacks = map[string]func(cfg *tls.Config, user func()){
	"GetCertificate": func(cfg *tls.Config, user func()) {
		certificate := cfg.Certificates[0]
		cfg.Certificates = nil
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { user(); return &certificate, nil }
	},
	"GetConfigForClient": func(cfg *tls.Config, user func()) {
		cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { user(); return nil, nil }
	},
	"VerifyConnection": func(cfg *tls.Config, user func()) {
		cfg.VerifyConnection = func(tls.ConnectionState) error { user(); return nil }
	},
	"Time": func(cfg *tls.Config, user func()) {
		cfg.Time = func() time.Time { user(); return time.Now() }
	},
	// Behind the handshake the library looks at the client's certificate.
	"Time, of a certificate": func(cfg *tls.Config, user func()) {
		cfg.ClientAuth, cfg.SessionTicketsDisabled = tls.RequestClientCert, true
		cfg.Time = func() time.Time { user(); return time.Now() }
	},
}

// logs makes user the log handler, and sets something else.
func logs(set func(p *smtpproxy.Proxy)) func(*smtpproxy.Proxy, func()) {
	return func(p *smtpproxy.Proxy, user func()) {
		p.Logger = slog.New(userHandler{slog.DiscardHandler, user, func(string) {}})
		if set != nil {
			set(p)
		}
	}
}

type userHandler struct {
	slog.Handler
	user func()
	got  func(text string)
}

func (h userHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h userHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			text += ": " + a.Value.String()
		}
		return true
	})
	h.got(strings.TrimPrefix(text, "smtpproxy: "))
	h.user()
	return nil
}

// userResolver is one that finds nothing.
type userResolver func()

func (r userResolver) LookupAddr(context.Context, string) ([]string, error) { r(); return nil, nil }

func (r userResolver) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	r()
	return nil, nil
}

func userScenes() []userScene {
	scenes := []userScene{
		{why: "the hook", say: mailToIt + "> QUIT|< 221", set: func(p *smtpproxy.Proxy, user func()) {
			p.Hook = decide(func(command) (decision, error) { user(); return nil, nil })
		}},
		{why: "the hook, with a time of its own", say: mailToIt + "> QUIT|< 221", set: func(p *smtpproxy.Proxy, user func()) {
			p.HookTimeout = time.Hour
			p.Hook = decide(func(command) (decision, error) { user(); return nil, nil })
		}},
		{why: "the hook, asked about the list", say: greetIt + "> QUIT|< 221", set: func(p *smtpproxy.Proxy, user func()) {
			p.Hook = onKeywords(func(*keywords) error { user(); return nil })
		}},
		{why: "the hook, asked about the list, with a time of its own", say: greetIt + "> QUIT|< 221", set: func(p *smtpproxy.Proxy, user func()) {
			p.HookTimeout = time.Hour
			p.Hook = onKeywords(func(*keywords) error { user(); return nil })
		}},
		{why: "OnFailure", say: greetIt, set: func(p *smtpproxy.Proxy, user func()) {
			p.Hook = always(reply{Code: 99})
			p.OnFailure = func(*hookContext, smtpproxy.Failure) decision { user(); return nil }
		}},
		{why: "TransportID", say: mailToIt + "> QUIT|< 221", set: func(p *smtpproxy.Proxy, user func()) {
			p.TransportID = func(connection, smtpproxy.Recipient) string { user(); return "x" }
		}},
		{why: "Resolver", say: greetIt + "> QUIT|< 221", set: func(p *smtpproxy.Proxy, user func()) {
			p.Hook, p.LookupPTR, p.Resolver = always(nil), true, userResolver(user)
		}},

		{why: "Logger, the hook fails", logged: "hook failed", say: greetIt, set: logs(func(p *smtpproxy.Proxy) { p.Hook = always(reply{Code: 99}) })},
		{why: "Logger, the hook panics", logged: "hook failed", say: greetIt, set: logs(func(p *smtpproxy.Proxy) {
			p.Hook = decide(func(command) (decision, error) { panic("no") })
		})},
		{why: "Logger, the hook ends its goroutine", logged: "hook failed", say: greetIt, set: logs(func(p *smtpproxy.Proxy) {
			p.Hook = decide(func(command) (decision, error) { runtime.Goexit(); return nil, nil })
		})},
		{why: "Logger, OnFailure fails", logged: "hook failed", say: greetIt, set: logs(func(p *smtpproxy.Proxy) {
			p.Hook = always(reply{Code: 99})
			p.OnFailure = func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 99} }
		})},
		{why: "Logger, TransportID panics", logged: "TransportID panicked", say: mailToIt + "> QUIT|< 221", set: logs(func(p *smtpproxy.Proxy) {
			p.TransportID = func(connection, smtpproxy.Recipient) string { panic("no") }
		})},
		{why: "Logger, the Resolver panics", logged: "Resolver panicked", say: greetIt + "> QUIT|< 221", set: logs(func(p *smtpproxy.Proxy) {
			p.Hook, p.LookupPTR, p.Resolver = always(nil), true, userResolver(func() { panic("no") })
		})},
		{why: "Logger, a callback of TLS panics", logged: "callback of the TLS configuration panicked", say: startIt, set: logs(func(p *smtpproxy.Proxy) {
			p.TLSConfig = serverTLS().Clone()
			p.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("no") }
		})},
		{why: "Logger, the handshake fails", logged: "TLS handshake failed", say: greetIt + "> STARTTLS|< 220|> NOOP", set: logs(func(p *smtpproxy.Proxy) { p.TLSConfig = serverTLS() })},
		{why: "Logger, no TLS where it is expected", logged: "TLS handshake failed", say: "> NOOP", set: logs(func(p *smtpproxy.Proxy) { p.TLSConfig, p.ImplicitTLS = serverTLS(), true })},
		{why: "Logger, input behind STARTTLS", logged: "connection ended: input behind STARTTLS", say: greetIt + "> STARTTLS\r\nNOOP", set: logs(func(p *smtpproxy.Proxy) { p.TLSConfig = serverTLS() })},
		{why: "Logger, TLS unasked", logged: "connection ended: TLS without STARTTLS", say: "< 220|> \x16\x03", set: logs(nil)},
		{why: "Logger, a bare LF", logged: "connection ended: bare CR or LF in a message", say: mailToIt + "> DATA|< 354|> a\nb\r\n.", set: logs(func(p *smtpproxy.Proxy) { p.RejectBareNewlines = true })},
		{why: "Logger, a malformed reply", logged: "connection ended: malformed reply from the server", say: greetIt, set: logs(nil), script: "S: hello"},
		{why: "Logger, a reply too many", logged: "connection ended: reply that fits no command", say: greetIt, set: logs(nil), script: "S: 220 x\nC: EHLO x\nS> \"250 x\\r\\n250 x\\r\\n\""},
		{why: "Logger, a reply to nothing, while the server reads", logged: "connection ended: reply that fits no command", say: "< 220", set: logs(nil), script: "S: 220 x\nBESIDE 250 x\nBROKEN"},
		{why: "Logger, a message refused early", logged: "connection ended: message refused before its end", say: mailToIt + "> DATA|< 354|< 550", set: logs(nil), script: scriptMail + "C: DATA\nS: 354 x\nS: 550 x\nBROKEN"},
		{why: "Logger, a message refused early, and nothing read", logged: "connection ended: message refused before its end", say: mailToIt + "> DATA|< 354|< 550", set: logs(nil), script: scriptMail + "C: DATA\nS: 354 x\nS: 550 x"},
		{why: "Logger, an ambiguous end", logged: "connection ended: ambiguous end of a message that is replied to", say: mailToIt + "> DATA|< 354|> x\r\n .\r\ny\r\n.", set: logs(nil), script: scriptMail + "C: DATA\nS: 354 x\nS: 250 x\nBROKEN \"x\\r\\n\""},
		{why: "Logger, an exchange given up", logged: "connection ended: response in a SASL exchange that the server may have given up", say: greetIt + "> AUTH PLAIN|< 334|> AAAA", set: logs(nil),
			script: "S: 220 x\nC: EHLO x\nS: 250 x\nC: AUTH PLAIN\nS: 334 \nLATE\nEND"},
	}
	for name, set := range tlsCallbacks {
		scenes = append(scenes,
			userScene{why: name + ", STARTTLS", set: ofTLS(false, set), say: startIt},
			userScene{why: name + ", implicit TLS", set: ofTLS(true, set), say: "TLS|" + greetIt + "> QUIT|< 221"})
	}
	return scenes
}

// userRun is a scene that is played.
type userRun struct {
	mu      sync.Mutex
	conns   []net.Conn
	host    host
	called  atomic.Int32
	entered chan struct{} // closed by the first call
	once    sync.Once
}

// ask asks all that there is of each session.
func (r *userRun) ask() {
	r.mu.Lock()
	conns := slices.Clone(r.conns)
	r.mu.Unlock()
	for _, c := range conns {
		s, ok := smtpproxy.SessionOf(c)
		if !ok {
			panic("no session")
		}
		s.Connection()
		s.Transaction()
		s.Discard()
		s.Copies()
		s.MustReset()
		s.Context().Err()
		s.Context().Deadline()
		smtpproxy.State[int](s.Context())
		smtpproxy.TLSConnectionState(c)
	}
}

// play plays the scene with what the user's code does, and meanwhile beside. It
// returns when all has ended.
func (scene userScene) play(t *testing.T, user func(*userRun), beside func(*userRun)) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	r := &userRun{host: newGoSMTPHost(), entered: make(chan struct{})}
	if scene.script != "" {
		r.host = &scripted{script: strings.Split(scene.script, "\n")}
	}
	var p smtpproxy.Proxy
	scene.set(&p, func() {
		r.called.Add(1)
		r.once.Do(func() { close(r.entered) })
		user(r)
	})
	var logged sync.Map
	if p.Logger != nil {
		h := p.Logger.Handler().(userHandler)
		h.got = func(text string) { logged.Store(text, true) }
		p.Logger = slog.New(h)
	}
	tr := from(overTCP(t), "192.0.2.1:25")
	l := wrappedListener{p.Listener(tr), func(c net.Conn) net.Conn {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.conns = append(r.conns, c)
		return c
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		served := make(chan struct{})
		go func() {
			defer close(served) // it may be this goroutine that ends
			r.host.Serve(l)
		}()
		c, err := tr.dial()
		if err != nil {
			t.Error(err)
			return
		}
		var side sync.WaitGroup
		side.Go(func() { beside(r) })
		followScene(c, scene.say)
		select {
		case <-r.entered: // a line may be logged when all else is over
		case <-time.After(patience):
		}
		side.Wait()
		r.host.Close()
		tr.Close()
		<-served
		c.Close()
	}()
	select {
	case <-done:
	case <-time.After(2 * patience):
		buf := make([]byte, 1<<17)
		t.Fatalf("it hangs:\n%s", buf[:runtime.Stack(buf, true)])
	}
	if r.called.Load() == 0 {
		t.Error("the user's code wasn't called")
	}
	if _, ok := logged.Load(scene.logged); scene.logged != "" && !ok {
		t.Errorf("%q isn't logged", scene.logged)
	}
	if err := goleak.Find(leaks); err != nil {
		t.Error(err)
	}
}

// followScene plays the client, as far as it gets.
func followScene(c net.Conn, say string) {
	c.SetDeadline(time.Now().Add(patience))
	defer func() { c.Close() }()
	r := bufio.NewReader(c)
	for step := range strings.SplitSeq(strings.TrimSuffix(say, "|"), "|") {
		switch verb, text, _ := strings.Cut(step, " "); verb {
		case ">":
			io.WriteString(c, text+"\r\n")
		case "<":
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if len(line) > 3 && line[3] == ' ' {
					break
				}
			}
		case "TLS":
			certificate := serverTLS().Certificates[0]
			tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate}})
			if tc.Handshake() != nil {
				return
			}
			c = tc
			r.Reset(tc)
		}
	}
	if !strings.HasSuffix(say, "221") {
		io.Copy(io.Discard, r)
	}
}

func TestUserCodeMayAskAllOfTheSession(t *testing.T) {
	for _, scene := range userScenes() {
		t.Run(scene.why, func(t *testing.T) {
			scene.play(t, (*userRun).ask, func(*userRun) {})
		})
	}
}

func TestUserCodeMayCloseTheServer(t *testing.T) {
	for _, scene := range userScenes() {
		t.Run(scene.why, func(t *testing.T) {
			scene.play(t, func(r *userRun) { r.host.Close() }, func(*userRun) {})
		})
	}
}

func TestUserCodeThatTakesItsTimeKeepsNobodyFromClosingTheServer(t *testing.T) {
	for _, scene := range userScenes() {
		t.Run(scene.why, func(t *testing.T) {
			release := make(chan struct{})
			scene.play(t, func(*userRun) { <-release }, func(r *userRun) {
				defer close(release)
				<-r.entered
				closed := make(chan struct{})
				go func() {
					defer close(closed)
					r.ask()
					r.host.Close()
				}()
				select {
				case <-closed:
				case <-time.After(patience / 2):
					t.Error("Close waits for it")
				}
			})
		})
	}
}

// TestTheLogOfAStateMachineMayAskAndCloseItsSession is about a line that comes when
// the server has the turn.
func TestTheLogOfAStateMachineMayAskAndCloseItsSession(t *testing.T) {
	var s *smtpproxy.Session
	calls := 0
	p := &smtpproxy.Proxy{Logger: slog.New(userHandler{slog.DiscardHandler, func() {
		calls++
		s.Connection()
		s.Transaction()
		s.Discard()
		s.Copies()
		s.MustReset()
		s.Close()
	}, func(text string) {
		if text != "connection ended: command out of turn" {
			t.Errorf("logged %q", text)
		}
	}})}
	s = p.NewSession(connection{})
	s.Command(t.Context(), "NOOP")
	if r, ok := s.Command(t.Context(), "NOOP").(reply); !ok || r.Code != 421 || calls != 1 {
		t.Errorf("got %v, logged %d times", r, calls)
	}
}
