package fronts

import (
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

// trusted is where the front ends of these tests connect from; their clients connect to them
// from 127.0.0.2 and other addresses of this machine.
var trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

const (
	user     = "alice@example.com"
	password = "secret"
)

// server is a go-smtp server behind hooks.XCLIENT and hooks.XFORWARD, which keeps what it is
// told.
type server struct {
	addr, port string

	mu    sync.Mutex
	mails []mail
	told  map[string]mail // by the ID of a connection, what the hook has seen at MAIL
	sent  []*recorder     // what each client of the server has sent

	dialogue []string // to be printed if the test fails
}

// mail is a message, and what is known of where it is from.
type mail struct {
	conn      smtpproxy.Connection // as the server sees it
	info      hooks.XCLIENTInfo
	forwarded hooks.Forwarded // if it is, else the zero value
	remote    string          // the address of the server's connection
	local     string
	hello     string // what the server was greeted with
	user      string // whom the server has authenticated
	from      string
	to        []string
	body      string
}

// recorder is a connection that keeps what is read from it.
type recorder struct {
	*net.TCPConn
	mu   sync.Mutex
	data []byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.TCPConn.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = append(r.data, b[:n]...)
	return n, err
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.data)
}

type recordingListener struct {
	net.Listener
	s *server
}

func (l recordingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r := &recorder{TCPConn: c.(*net.TCPConn)}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.sent = append(l.s.sent, r)
	return r, nil
}

// serverOptions are how a server differs.
type serverOptions struct {
	xclient *hooks.XCLIENT // nil trusts what is trusted
	lmtp    bool
}

// serve starts a server, which ends with the test.
func serve(t *testing.T, o serverOptions) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), told: make(map[string]mail)}
	_, s.port, _ = net.SplitHostPort(s.addr)
	if o.xclient == nil {
		o.xclient = &hooks.XCLIENT{Trust: trusted}
	}
	srv := smtp.NewServer(s)
	srv.Domain = "backend.example"
	srv.AllowInsecureAuth = true
	srv.LMTP = o.lmtp
	srv.ErrorLog = log.New(io.Discard, "", 0)
	p := &smtpproxy.Proxy{
		Hook:      smtpproxy.Chain(o.xclient, &hooks.XFORWARD{Trust: o.xclient.Trust}, smtpproxy.HookFunc(s.look)),
		Observers: []smtpproxy.Observer{{Exchanged: s.exchanged}},
		Logger:    slog.New(slog.DiscardHandler),
	}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, recordingListener{l, s}, p) }()
	t.Cleanup(func() {
		l.Close() // go-smtp may not know of it yet
		srv.Close()
		<-served
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.Failed() && len(s.dialogue) > 0 {
			t.Logf("the server's dialogues:\n%s", strings.Join(s.dialogue, "\n"))
		}
	})
	return s
}

// look keeps what only a hook knows of a message.
func (s *server) look(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "MAIL" {
		forwarded, _ := hooks.ForwardedOf(ctx, txn)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told[conn.ID] = mail{info: hooks.XCLIENTInfoOf(ctx), forwarded: forwarded}
	}
	return nil, nil
}

// session is the server's own view.
type session struct {
	s *server
	c *smtp.Conn
	m mail
}

func (s *server) NewSession(c *smtp.Conn) (smtp.Session, error) { return &session{s: s, c: c}, nil }

func (u *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (u *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, name, pass string) error {
		if name != user || pass != password {
			return errors.New("wrong")
		}
		u.m.user = name
		return nil
	}), nil
}

func (u *session) Mail(from string, _ *smtp.MailOptions) error {
	u.m = mail{user: u.m.user, from: from}
	return nil
}

func (u *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	}
	u.m.to = append(u.m.to, to)
	return nil
}

func (u *session) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := u.m
	m.conn = gosmtp.Session(u.c).Connection()
	m.remote, m.local = u.c.Conn().RemoteAddr().String(), u.c.Conn().LocalAddr().String()
	m.hello, m.body = u.c.Hostname(), string(body)
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	told := u.s.told[m.conn.ID]
	m.info, m.forwarded = told.info, told.forwarded
	u.s.mails = append(u.s.mails, m)
	return nil
}

func (u *session) Reset()        {}
func (u *session) Logout() error { return nil }

// await waits until the server has some messages, and returns them.
func (s *server) await(t *testing.T, n int) []mail {
	t.Helper()
	for end := time.Now().Add(program.Patience); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		mails := slices.Clone(s.mails)
		s.mu.Unlock()
		if len(mails) >= n {
			if len(mails) > n {
				t.Errorf("got %d messages, want %d", len(mails), n)
			}
			return mails
		}
		if time.Now().After(end) {
			t.Fatalf("got %d messages, want %d; the front end has sent:\n%s", len(mails), n, s.octets())
		}
	}
}

// one waits for the one message, and forgets it and what was sent for it.
func (s *server) one(t *testing.T) (m mail, octets string) {
	t.Helper()
	m = s.await(t, 1)[0]
	octets = s.octets()
	s.forget()
	return m, octets
}

// forget forgets messages, and what was sent up to now.
func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails, s.sent = nil, nil
}

// octets returns what was sent to the server, on one connection after the other.
func (s *server) octets() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all strings.Builder
	for _, r := range s.sent {
		all.WriteString(r.String())
	}
	return all.String()
}

// commands returns the lines that were sent to the server, without messages.
func (s *server) commands() []string { return commandsOf(s.octets()) }

// commandsOf returns the command lines in some octets.
func commandsOf(octets string) (lines []string) {
	content := false
	for line := range strings.SplitSeq(strings.TrimSuffix(octets, "\r\n"), "\r\n") {
		switch {
		case content:
			content = line != "."
		default:
			lines = append(lines, line)
			content = strings.EqualFold(line, "DATA")
		}
	}
	return lines
}

// linesOf returns the lines of a command.
func linesOf(verb string, lines []string) (those []string) {
	for _, line := range lines {
		if strings.HasPrefix(line, verb+" ") {
			those = append(those, line)
		}
	}
	return those
}

// exchanged keeps a command and its reply.
func (s *server) exchanged(_ *smtpproxy.Context, x smtpproxy.Exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialogue = append(s.dialogue, fmt.Sprintf("%v: %d %q", x.Command, x.Reply.Code, x.Reply.Lines))
}
