package e2e

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/uuid"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds the library to what the hook language that its design comes
// from gives a hook to see and to say: a row for each of its variables and
// functions. Each row is played on a fake session, and on go-smtp over TCP.

// guest is the client of a row, with the hook and the server that it speaks to.
type guest interface {
	// send sends a line and returns the reply.
	send(line string) string
	// content sends message content and its end, and returns the reply.
	content() string
	// refuse makes the server refuse EHLO, MAIL, RCPT or a message's content,
	// the next time.
	refuse(verb string)
	// hungUp waits until the connection is closed. It reports whether it is.
	hungUp() bool
	// addresses returns the client's own address and the server's.
	addresses() (client, server netip.AddrPort)
	// executed returns the server's MAIL and RCPT commands.
	executed() []string
	// context returns what the server's side can reach: after EHLO.
	context() *smtpproxy.Context
}

// guests are the ways to open a connection to a server behind a proxy.
var guests = map[string]func(*testing.T, *smtpproxy.Proxy) guest{
	"fake":    fakeGuest,
	"go-smtp": goSMTPGuest,
}

// faked is a guest of package proxytest.
type faked struct {
	*proxytest.Session
	passed []string
}

var fakedClient, fakedServer = netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("[2001:db8::25]:25")

func fakeGuest(_ *testing.T, p *smtpproxy.Proxy) guest {
	return &faked{Session: proxytest.ResumeSession(p, smtpproxy.Connection{
		RemoteIP: fakedClient.Addr(), RemotePort: fakedClient.Port(),
		LocalIP: fakedServer.Addr(), LocalPort: fakedServer.Port(),
	}, smtpproxy.Transaction{})}
}

func (g *faked) send(line string) string {
	p, _ := g.Send(line).(smtpproxy.Pass)
	switch verb := (smtpproxy.Command{Line: p.Command}).Verb(); {
	case g.Reply().Code != 250:
	case verb == "MAIL", verb == "RCPT":
		path, _, _ := strings.Cut(p.Command, ">")
		g.passed = append(g.passed, path+">")
	}
	return g.Reply().String()
}

func (g *faked) content() string {
	g.SendContent()
	return g.Reply().String()
}

func (g *faked) refuse(verb string)                         { g.Answer(verb, 550, "5.0.0 refused") }
func (g *faked) hungUp() bool                               { return g.Closed() }
func (g *faked) addresses() (client, server netip.AddrPort) { return fakedClient, fakedServer }
func (g *faked) executed() []string                         { return g.passed }
func (g *faked) context() *smtpproxy.Context                { return g.Context() }

// dialed is a guest of go-smtp over TCP.
type dialed struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
	*backend
}

func goSMTPGuest(t *testing.T, p *smtpproxy.Proxy) guest {
	b := &backend{refusals: make(map[string]bool)}
	srv := smtp.NewServer(b)
	srv.Domain = "server.example"
	srv.EnableDSN, srv.EnableSMTPUTF8 = true, true
	srv.ReadTimeout = 10 * time.Second
	srv.ErrorLog = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, p) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	g := &dialed{t, c, bufio.NewReader(c), b}
	g.reply()
	return g
}

func (g *dialed) send(line string) string {
	g.t.Helper()
	if _, err := io.WriteString(g, line+"\r\n"); err != nil {
		g.t.Fatalf("sending %q: %v", line, err)
	}
	return g.reply()
}

func (g *dialed) content() string {
	g.t.Helper()
	return g.send("Subject: x\r\n\r\n.")
}

func (g *dialed) reply() string {
	g.t.Helper()
	var lines []string
	for {
		line, err := g.r.ReadString('\n')
		if err != nil {
			g.t.Fatalf("reading a reply: %v", err)
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\r\n")
		}
	}
}

func (g *dialed) hungUp() bool {
	b, err := g.r.ReadByte()
	if err != io.EOF {
		g.t.Logf("read %q, %v", b, err)
	}
	return err == io.EOF
}

func (g *dialed) addresses() (client, server netip.AddrPort) {
	return netip.MustParseAddrPort(g.LocalAddr().String()), netip.MustParseAddrPort(g.RemoteAddr().String())
}

// backend is go-smtp's, for one connection.
type backend struct {
	mu       sync.Mutex
	refusals map[string]bool
	commands []string
	ctx      *smtpproxy.Context
}

func (b *backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	b.mu.Lock()
	b.ctx = gosmtp.Session(c).Context()
	b.mu.Unlock()
	return b, b.execute("EHLO", "")
}

func (b *backend) Mail(from string, _ *smtp.MailOptions) error {
	return b.execute("MAIL", "MAIL FROM:<"+from+">")
}

func (b *backend) Rcpt(to string, _ *smtp.RcptOptions) error {
	return b.execute("RCPT", "RCPT TO:<"+to+">")
}

func (b *backend) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return b.execute("DATA", "")
}

func (b *backend) Reset()        {}
func (b *backend) Logout() error { return nil }

func (b *backend) execute(verb, command string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusals[verb] {
		delete(b.refusals, verb)
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 0, 0}, Message: "refused"}
	}
	if command != "" {
		b.commands = append(b.commands, command)
	}
	return nil
}

func (b *backend) refuse(verb string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals[verb] = true
}

func (b *backend) executed() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.commands)
}

func (b *backend) context() *smtpproxy.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ctx
}

// look is what a hook gets to see in one call.
type look struct {
	cmd  smtpproxy.Command
	conn smtpproxy.Connection
	txn  smtpproxy.Transaction
}

// looks is a hook that keeps what it sees, and decides what decide does.
type looks struct {
	decide smtpproxy.HookFunc

	mu   sync.Mutex
	kept []look
}

func (l *looks) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	l.mu.Lock()
	l.kept = append(l.kept, look{cmd, conn, txn})
	l.mu.Unlock()
	if l.decide == nil {
		return nil, nil
	}
	return l.decide(ctx, cmd, conn, txn)
}

// scene is one row being played.
type scene struct {
	*testing.T
	guest
	hook *looks
}

// say sends lines and checks how their replies start.
func (s *scene) say(dialogue ...string) {
	s.Helper()
	for i := 0; i < len(dialogue); i += 2 {
		line, want := dialogue[i], dialogue[i+1]
		var got string
		if line == theContent {
			got = s.content()
		} else {
			got = s.send(line)
		}
		if !strings.HasPrefix(got, want) {
			s.Fatalf("%s: got %q, want %q", line, got, want)
		}
	}
}

// theContent stands for message content.
const theContent = "(content)"

// last returns what the hook has seen last.
func (s *scene) last() look {
	s.hook.mu.Lock()
	defer s.hook.mu.Unlock()
	if len(s.hook.kept) == 0 {
		s.Fatal("the hook was not called")
	}
	return s.hook.kept[len(s.hook.kept)-1]
}

// lines returns the commands that the hook has seen.
func (s *scene) lines() []string {
	s.hook.mu.Lock()
	defer s.hook.mu.Unlock()
	var lines []string
	for _, l := range s.hook.kept {
		lines = append(lines, l.cmd.Line)
	}
	return lines
}

// now returns what the hook sees of a NOOP.
func (s *scene) now() look {
	s.Helper()
	s.say("NOOP", "250")
	return s.last()
}

// same compares what is comparable.
func same[T comparable](s *scene, what string, got, want T) {
	s.Helper()
	if got != want {
		s.Errorf("%s: got %#v, want %#v", what, got, want)
	}
}

func sameLines(s *scene, what string, got, want []string) {
	s.Helper()
	if !slices.Equal(got, want) {
		s.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// row is a row of the table.
type row struct {
	name   string // what the hook language has
	reason string // what about it is to be shown here
	proxy  smtpproxy.Proxy
	decide smtpproxy.HookFunc
	play   func(s *scene)
}

func playRows(t *testing.T, rows []row) {
	for _, r := range rows {
		for name, open := range guests {
			t.Run(r.name+", "+r.reason+"/"+name, func(t *testing.T) {
				hook := &looks{decide: r.decide}
				p := r.proxy
				p.Hook = hook
				r.play(&scene{t, open(t, &p), hook})
			})
		}
	}
}

func TestWhatAHookSees(t *testing.T) {
	playRows(t, []row{
		{
			name: "command", reason: "raw, as the client wrote it",
			play: func(s *scene) {
				const line = `nOOp  a "b\"	<c> =é `
				s.say(line, "250")
				same(s, "line", s.last().cmd.Line, line)
			},
		},
		{
			name: "id of the connection", reason: "a UUID, the same until the client is gone",
			play: func(s *scene) {
				id := s.now().conn.ID
				if _, err := uuid.Parse(id); err != nil {
					s.Errorf("%q: %v", id, err)
				}
				s.say("EHLO a", "250", "RSET", "250", "EHLO b", "250")
				same(s, "ID", s.now().conn.ID, id)
			},
		},
		{
			name: "remoteip, remoteport, localip, localport", reason: "those of the sockets",
			play: func(s *scene) {
				conn := s.now().conn
				client, server := s.addresses()
				same(s, "remote", netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort), client)
				same(s, "local", netip.AddrPortFrom(conn.LocalIP, conn.LocalPort), server)
			},
		},
		{
			name: "serverid", reason: "as configured",
			proxy: smtpproxy.Proxy{ServerID: "inbound"},
			play:  func(s *scene) { same(s, "ServerID", s.now().conn.ServerID, "inbound") },
		},
		{
			name: "helo", reason: "there is none before the server's 250, also at EHLO itself",
			play: func(s *scene) {
				s.say("EHLO client.example", "250")
				same(s, "at EHLO", s.last().conn.HELO, smtpproxy.HELO{})
				same(s, "later", s.now().conn.HELO, smtpproxy.HELO{Verb: "EHLO", Host: "client.example"})
			},
		},
		{
			name: "helo", reason: "a refused EHLO leaves none",
			play: func(s *scene) {
				s.refuse("EHLO")
				s.say("EHLO client.example", "550")
				same(s, "refused", s.now().conn.HELO, smtpproxy.HELO{})
			},
		},
		{
			name: "helo", reason: "a refused EHLO leaves the one before, an accepted HELO replaces it",
			play: func(s *scene) {
				s.say("ehlo First.example", "250", "EHLO", "501")
				same(s, "refused", s.now().conn.HELO, smtpproxy.HELO{Verb: "EHLO", Host: "First.example"})
				s.say("helo second.example", "250")
				same(s, "accepted", s.now().conn.HELO, smtpproxy.HELO{Verb: "HELO", Host: "second.example"})
			},
		},
		{
			name: "id of the transaction", reason: "a UUID that is there from the start and the same for all of a transaction",
			play: func(s *scene) {
				s.say("EHLO a", "250")
				id := s.last().txn.ID
				if _, err := uuid.Parse(id); err != nil {
					s.Errorf("%q: %v", id, err)
				}
				// EHLO's own reply starts anew.
				id = s.now().txn.ID
				for _, line := range []string{"MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "NOOP"} {
					s.say(line, "250")
					same(s, line, s.last().txn.ID, id)
				}
				s.say("DATA", "354")
				same(s, "DATA", s.last().txn.ID, id)
			},
		},
		{
			name: "id of the transaction", reason: "new after all that ends one",
			play: func(s *scene) {
				s.say("EHLO a", "250")
				ids := []string{s.now().txn.ID}
				for _, end := range []string{"RSET", "EHLO b", theContent, "failing content"} {
					s.say("MAIL FROM:<a@example.com>", "250", "RCPT TO:<b@example.org>", "250")
					same(s, "active before "+end, s.now().txn.Active, true)
					switch end {
					case theContent:
						s.say("DATA", "354", theContent, "250")
					case "failing content":
						s.say("DATA", "354")
						s.refuse("DATA")
						s.say(theContent, "550")
					default:
						s.say(end, "250")
					}
					txn := s.now().txn
					if slices.Contains(ids, txn.ID) {
						s.Errorf("after %s there is an ID as before", end)
					}
					ids = append(ids, txn.ID)
					if want := (smtpproxy.Transaction{ID: txn.ID}); !reflect.DeepEqual(txn, want) {
						s.Errorf("after %s: %+v", end, txn)
					}
				}
			},
		},
		{
			name: "sender", reason: "in lower case, of an accepted MAIL",
			play: func(s *scene) {
				s.say("EHLO a", "250", "MAIL FROM:<Alice.B@EXAMPLE.com>", "250")
				same(s, "at MAIL", s.last().txn.Active, false)
				same(s, "sender at MAIL", s.last().txn.Sender, "")
				txn := s.now().txn
				same(s, "active", txn.Active, true)
				same(s, "sender", txn.Sender, "alice.b@example.com")
			},
		},
		{
			name: "sender", reason: "none of a refused MAIL",
			play: func(s *scene) {
				s.refuse("MAIL")
				s.say("EHLO a", "250", "MAIL FROM:<a@example.com>", "550")
				txn := s.now().txn
				same(s, "active", txn.Active, false)
				same(s, "sender", txn.Sender, "")
			},
		},
		{
			name: "sender", reason: "the null sender is one",
			play: func(s *scene) {
				s.say("EHLO a", "250", "MAIL FROM:<>", "250")
				txn := s.now().txn
				same(s, "active", txn.Active, true)
				same(s, "sender", txn.Sender, "")
				same(s, "address", txn.SenderAddress, smtpproxy.Address{})
			},
		},
		{
			name: "senderaddress: localpart, domain", reason: "letters as the client wrote them",
			play: func(s *scene) {
				s.say("EHLO a", "250", `MAIL FROM:<"Alice B"@EXAMPLE.com>`, "250")
				same(s, "address", s.now().txn.SenderAddress, smtpproxy.Address{Localpart: "Alice B", Domain: "EXAMPLE.com"})
				same(s, "sender", s.last().txn.Sender, `"alice b"@example.com`)
			},
		},
		{
			name: "senderparams", reason: "keys in upper case, values as they are",
			play: func(s *scene) {
				s.say("EHLO a", "250", "MAIL FROM:<a@example.com> size=10 smtputf8 Body=8BITMIME", "250")
				same(s, "params", list(s.now().txn.SenderParams), "SIZE=10 SMTPUTF8= BODY=8BITMIME")
				value, ok := s.last().txn.SenderParams.Get("body")
				same(s, "BODY", value, "8BITMIME")
				same(s, "has BODY", ok, true)
			},
		},
		{
			name: "recipients", reason: "the accepted ones in their order, duplicates too",
			play: func(s *scene) {
				s.say("EHLO a", "250", "MAIL FROM:<a@example.com>", "250", "RCPT TO:<b@example.org>", "250")
				same(s, "at the first RCPT", s.last().txn.Recipients.Len(), 0)
				s.refuse("RCPT")
				s.say("RCPT TO:<refused@example.org>", "550", "RCPT TO:<c@example.org>", "250", "RCPT TO:<b@example.org>", "250")
				var got []string
				for _, r := range s.now().txn.Recipients.All() {
					got = append(got, r.Recipient)
				}
				sameLines(s, "recipients", got, []string{"b@example.org", "c@example.org", "b@example.org"})
				same(s, "the second", s.last().txn.Recipients.At(1).Recipient, "c@example.org")
			},
		},
		{
			name: "recipient, address, params, transportid", reason: "the recipient in lower case, its address as written",
			proxy: smtpproxy.Proxy{TransportID: func(conn smtpproxy.Connection, r smtpproxy.Recipient) string {
				return conn.HELO.Host + " for " + r.Address.Domain
			}},
			play: func(s *scene) {
				s.say("EHLO a", "250", "MAIL FROM:<>", "250", "RCPT TO:<Bob@Example.ORG> notify=NEVER", "250")
				r := s.now().txn.Recipients.At(0)
				same(s, "recipient", r.Recipient, "bob@example.org")
				same(s, "address", r.Address, smtpproxy.Address{Localpart: "Bob", Domain: "Example.ORG"})
				same(s, "params", list(r.Params), "NOTIFY=NEVER")
				same(s, "transport ID", r.TransportID, "a for Example.ORG")
			},
		},
		{
			name: "context", reason: "bound to the connection: it lasts over RSET, EHLO and messages, and the server reaches it",
			decide: func(ctx *smtpproxy.Context, _ smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				smtpproxy.State[tally](ctx).n++
				return nil, nil
			},
			play: func(s *scene) {
				s.say("EHLO a", "250", "RSET", "250", "MAIL FROM:<>", "250", "RCPT TO:<b@example.org>", "250",
					"DATA", "354", theContent, "250", "EHLO b", "250")
				same(s, "calls", smtpproxy.State[tally](s.context()).n, 6)
			},
		},
	})
}

// tally is the user state of a row.
type tally struct{ n int }

// list writes parameters out.
func list(p smtpproxy.Params) string {
	var out []string
	for key, value := range p.All() {
		out = append(out, key+"="+value)
	}
	return strings.Join(out, " ")
}

func TestConnectionsHaveTheirOwnIDAndContext(t *testing.T) {
	for name, open := range guests {
		t.Run(name, func(t *testing.T) {
			hook := &looks{}
			p := &smtpproxy.Proxy{Hook: hook}
			a, b := &scene{t, open(t, p), hook}, &scene{t, open(t, p), hook}
			a.say("EHLO a", "250")
			b.say("EHLO b", "250")
			if id := a.now().conn.ID; id == b.now().conn.ID {
				t.Errorf("both connections are %s", id)
			}
			smtpproxy.State[tally](a.context()).n = 1
			same(b, "the other's state", smtpproxy.State[tally](b.context()).n, 0)
		})
	}
}

// rcptHook decides about RCPT, and passes all else.
func rcptHook(d smtpproxy.Decision, err error) smtpproxy.HookFunc {
	return func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() == "RCPT" {
			return d, err
		}
		return nil, nil
	}
}

func TestWhatAHookSays(t *testing.T) {
	const mail, rcpt = "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>"
	// replied is a row with a Reply to RCPT, which the server doesn't see.
	replied := func(reason string, reply smtpproxy.Decision, want string, then func(s *scene)) row {
		return row{
			name: "Reply", reason: reason, decide: rcptHook(reply, nil),
			proxy: smtpproxy.Proxy{Commands: []string{"RCPT"}},
			play: func(s *scene) {
				s.say("EHLO a", "250", mail, "250")
				same(s, "reply", s.send(rcpt), want)
				sameLines(s, "executed", s.executed(), []string{mail})
				then(s)
			},
		}
	}
	goesOn := func(s *scene) {
		s.say("NOOP", "250")
		sameLines(s, "seen", s.lines(), []string{rcpt})
	}
	closes := func(s *scene) { same(s, "closed", s.hungUp(), true) }

	playRows(t, []row{
		{
			name: "implicit end", reason: "passes the command",
			decide: rcptHook(nil, nil),
			play: func(s *scene) {
				s.say("EHLO a", "250", mail, "250", rcpt, "250")
				sameLines(s, "executed", s.executed(), []string{mail, rcpt})
			},
		},
		{
			name: "Pass", reason: "unchanged",
			decide: rcptHook(smtpproxy.Pass{}, nil),
			play: func(s *scene) {
				s.say("EHLO a", "250", mail, "250", rcpt, "250")
				sameLines(s, "executed", s.executed(), []string{mail, rcpt})
			},
		},
		{
			name: "Pass, command", reason: "the server and the views know the new one alone",
			decide: rcptHook(&smtpproxy.Pass{Command: "RCPT TO:<New@example.org> NOTIFY=NEVER"}, nil),
			play: func(s *scene) {
				s.say("EHLO a", "250", mail, "250", rcpt, "250")
				sameLines(s, "executed", s.executed(), []string{mail, "RCPT TO:<New@example.org>"})
				recipients := s.now().txn.Recipients
				same(s, "number of recipients", recipients.Len(), 1)
				same(s, "recipient", recipients.At(0).Recipient, "new@example.org")
				same(s, "params", list(recipients.At(0).Params), "NOTIFY=NEVER")
			},
		},
		{
			name: "Pass, next", reason: "one line more, whatever its verb",
			decide: rcptHook(smtpproxy.Pass{Next: true}, nil),
			proxy:  smtpproxy.Proxy{Commands: []string{"rcpt"}},
			play: func(s *scene) {
				s.say("EHLO a", "250", mail, "250", rcpt, "250", "NOOP seen", "250", "NOOP unseen", "250")
				sameLines(s, "seen", s.lines(), []string{rcpt, "NOOP seen"})
			},
		},
		{
			name: "Reply, next", reason: "one line more, whatever its verb",
			decide: rcptHook(smtpproxy.Reply{Code: 550, Next: true}, nil),
			proxy:  smtpproxy.Proxy{Commands: []string{"RCPT"}},
			play: func(s *scene) {
				s.say("EHLO a", "250", mail, "250", rcpt, "550", "NOOP seen", "250", "NOOP unseen", "250")
				sameLines(s, "seen", s.lines(), []string{rcpt, "NOOP seen"})
			},
		},
		replied("250 by default", smtpproxy.Reply{}, "250 2.0.0 OK", func(s *scene) {
			goesOn(s)
			// The server knows of no recipient.
			s.say("DATA", "50")
		}),
		replied("as a pointer", &smtpproxy.Reply{Code: 550}, "550 5.0.0 Requested action not taken", goesOn),
		replied("the reason, a line each", smtpproxy.Reply{Code: 450, Lines: []string{"one", "two"}}, "450-4.0.0 one\r\n450 4.0.0 two", goesOn),
		replied("reply code and enhanced code", smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 1, 1}, Lines: []string{"no"}}, "550 5.1.1 no", goesOn),
		replied("no enhanced code", smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.NoEnhancedCode, Lines: []string{"no"}}, "550 no", goesOn),
		replied("disconnect", smtpproxy.Reply{Code: 550, Disconnect: true, Lines: []string{"bye"}}, "550 5.0.0 bye", closes),
		replied("221 disconnects", smtpproxy.Reply{Code: 221}, "221 2.0.0 Bye", closes),
		replied("421 disconnects", smtpproxy.Reply{Code: 421, Lines: []string{"later"}}, "421 4.0.0 later", closes),
	})
}

// notPass looks like a decision, and is none.
type notPass struct{ smtpproxy.Pass }

func TestAScriptErrorIsA421AndTheEndOfTheConnection(t *testing.T) {
	const mail, rcpt = "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>"
	panicking := func(v any) smtpproxy.HookFunc {
		return func(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			if cmd.Verb() == "RCPT" {
				panic(v)
			}
			return nil, nil
		}
	}
	for _, tt := range []struct {
		name   string
		decide smtpproxy.HookFunc
		want   error
	}{
		{"error", rcptHook(nil, io.ErrNoProgress), io.ErrNoProgress},
		{"error beside a decision", rcptHook(smtpproxy.Reply{}, io.ErrNoProgress), io.ErrNoProgress},
		{"panic", panicking("secret"), smtpproxy.ErrHookPanic},
		{"panic with an error", panicking(io.ErrNoProgress), io.ErrNoProgress},
		{"panic with nil", panicking(nil), smtpproxy.ErrHookPanic},
		{"a decision of another type", rcptHook(notPass{}, nil), smtpproxy.ErrInvalidDecision},
		{"a pointer to a decision of another type", rcptHook(&notPass{}, nil), smtpproxy.ErrInvalidDecision},
		{"nil *Pass", rcptHook((*smtpproxy.Pass)(nil), nil), smtpproxy.ErrInvalidDecision},
		{"nil *Reply", rcptHook((*smtpproxy.Reply)(nil), nil), smtpproxy.ErrInvalidDecision},
	} {
		for name, open := range guests {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				hook := &looks{decide: tt.decide}
				var failure error
				s := &scene{t, open(t, &smtpproxy.Proxy{Hook: hook, OnFailure: func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
					failure = f
					return nil
				}}), hook}
				s.say("EHLO a", "250", mail, "250")
				// The client isn't told why.
				same(s, "reply", s.send(rcpt), "421 4.3.0 Service not available, closing transmission channel")
				same(s, "closed", s.hungUp(), true)
				sameLines(s, "executed", s.executed(), []string{mail})
				if !errors.Is(failure, tt.want) {
					t.Errorf("the failure is %v, want %v", failure, tt.want)
				}
			})
		}
	}
}

// Rows of the table that take a listener, TLS or AUTH to come about: here it is
// shown that they arrive in the hook as they were found out.
func TestWhatIsKnownOfAConnectionArrivesInTheHook(t *testing.T) {
	client, root := &x509.Certificate{Raw: []byte("client")}, &x509.Certificate{Raw: []byte("root")}
	selfSigned := errors.New("self-signed certificate")
	hook := &looks{}
	s := &scene{t, &faked{Session: proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hook}, smtpproxy.Connection{
		RemotePTR: "client.example",
		RemoteUID: smtpproxy.UID{ID: 0, Valid: true},
		TLS: smtpproxy.TLS{Protocol: "TLSv1.3", Cipher: "ECDHE-RSA-AES256-SHA384", KeySize: 256, SNI: "mx.example",
			PeerCert: smtpproxy.NewPeerCert(18, selfSigned, client, root)},
		Auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: "alice"},
	}, smtpproxy.Transaction{})}, hook}

	// EHLO and RSET change none of it.
	s.say("EHLO a", "250", "RSET", "250")
	conn := s.now().conn
	same(s, "remoteptr", conn.RemotePTR, "client.example")
	same(s, "remoteuid", conn.RemoteUID, smtpproxy.UID{ID: 0, Valid: true})
	same(s, "tls protocol", conn.TLS.Protocol, "TLSv1.3")
	same(s, "tls cipher", conn.TLS.Cipher, "ECDHE-RSA-AES256-SHA384")
	same(s, "tls keysize", conn.TLS.KeySize, 256)
	same(s, "tls sni", conn.TLS.SNI, "mx.example")
	same(s, "peercert x509", conn.TLS.PeerCert.X509, client)
	same(s, "peercert error", conn.TLS.PeerCert.Error, 18)
	same(s, "peercert error as an error", conn.TLS.PeerCert.Err, selfSigned)
	if chain := conn.TLS.PeerCert.Chain(); !slices.Equal(chain, []*x509.Certificate{client, root}) {
		t.Errorf("peercert chain %v", chain)
	}
	same(s, "auth", conn.Auth, smtpproxy.Auth{Mechanism: "PLAIN", Username: "alice"})
}

func TestTheMechanismIsInUpperCaseFromThe235On(t *testing.T) {
	hook := &looks{}
	s := &scene{t, fakeGuest(t, &smtpproxy.Proxy{Hook: hook}), hook}
	s.say("EHLO a", "250", "AUTH plain", "334 ")
	same(s, "at AUTH", s.last().conn.Auth.Mechanism, "")
	s.say("AGFsaWNlAHNlY3JldA==", "235")
	same(s, "afterwards", s.now().conn.Auth.Mechanism, "PLAIN")
}

// vandal is a hook that changes all that it can reach of what it is given.
type vandal struct{ looks }

func (v *vandal) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	v.looks.Command(ctx, cmd, conn, txn)
	for _, r := range txn.Recipients.All() {
		wreck(reflect.ValueOf(&r).Elem())
	}
	for i := range txn.Recipients.Len() {
		r := txn.Recipients.At(i)
		wreck(reflect.ValueOf(&r).Elem())
	}
	wreck(reflect.ValueOf(&cmd).Elem())
	wreck(reflect.ValueOf(&conn).Elem())
	wreck(reflect.ValueOf(&txn).Elem())
	return nil, nil
}

// wreck overwrites whatever exported fields, pointers, slices and methods
// without arguments lead to from v, but certificates, which everyone shares.
func wreck(v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if _, ok := v.Interface().(*x509.Certificate); !ok && !v.IsNil() {
			wreck(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				wreck(v.Field(i))
			}
		}
		fallthrough
	default:
		for i := range v.NumMethod() {
			m := v.Method(i)
			if m.Type().NumIn() > 0 || m.Type().NumOut() == 0 {
				continue
			}
			switch m.Type().Out(0).Kind() {
			case reflect.Slice, reflect.Map:
				wreckElements(m.Call(nil)[0])
			}
		}
		wreckElements(v)
	}
	if v.CanSet() {
		v.SetZero()
	}
}

// wreckElements overwrites the elements of a slice or map, and those that are
// behind its end.
func wreckElements(v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		all := v.Slice(0, v.Cap())
		for i := range all.Len() {
			all.Index(i).SetZero()
		}
	case reflect.Map:
		v.Clear()
	}
}

// told writes out what a hook has seen, the same for each run of a dialogue.
func (l *looks) told(g guest) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	client, server := g.addresses()
	var transactions, out []string
	for _, k := range l.kept {
		if !slices.Contains(transactions, k.txn.ID) {
			transactions = append(transactions, k.txn.ID)
		}
		known := []string{k.conn.ID, "connection", "Peer:" + client.String(), "Peer:client", fmt.Sprint("Port:", client.Port()), "Port:client", fmt.Sprint("Port:", server.Port()), "Port:server"}
		for i, id := range transactions {
			known = append(known, id, fmt.Sprint("transaction ", i))
		}
		out = append(out, strings.NewReplacer(known...).Replace(fmt.Sprintf("%+v\n%+v\n%+v", k.cmd, k.conn, k.txn)))
	}
	return out
}

func TestHookCannotChangeWhatTheNextCallSees(t *testing.T) {
	dialogue := []string{
		"EHLO a", "250", "NOOP", "250",
		"MAIL FROM:<Alice@Example.COM> SIZE=10 BODY=8BITMIME", "250", "NOOP", "250",
		"RCPT TO:<Bob@Example.ORG> NOTIFY=NEVER", "250", "NOOP", "250",
		"RCPT TO:<Carol@Example.ORG> NOTIFY=DELAY,FAILURE", "250", "RCPT TO:<dave@example.org>", "250", "NOOP", "250",
		"DATA", "354", theContent, "250", "NOOP", "250", "EHLO b", "250", "NOOP", "250",
	}
	chain := []*x509.Certificate{{Raw: []byte("client")}, {Raw: []byte("root")}}
	preset := func(_ *testing.T, p *smtpproxy.Proxy) guest {
		return &faked{Session: proxytest.ResumeSession(p, smtpproxy.Connection{
			ID: "an ID", RemotePTR: "client.example", RemoteUID: smtpproxy.UID{ID: 1, Valid: true},
			TLS:  smtpproxy.TLS{Protocol: "TLSv1.3", SNI: "mx.example", PeerCert: smtpproxy.NewPeerCert(20, x509.UnknownAuthorityError{Cert: chain[0]}, chain...)},
			Auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: "alice"},
		}, smtpproxy.Transaction{})}
	}
	p := smtpproxy.Proxy{ServerID: "inbound", TransportID: func(_ smtpproxy.Connection, r smtpproxy.Recipient) string { return r.Address.Domain }}
	for name, open := range map[string]func(*testing.T, *smtpproxy.Proxy) guest{"fake": fakeGuest, "preset": preset, "go-smtp": goSMTPGuest} {
		t.Run(name, func(t *testing.T) {
			gentle, rough := &looks{}, &vandal{}
			p.Hook = gentle
			s := &scene{t, open(t, &p), gentle}
			s.say(dialogue...)
			want := gentle.told(s)
			for _, part := range []string{"alice@example.com", "NOTIFY", "carol@example.org", "dave@example.org", "example.org", "inbound"} {
				if !strings.Contains(strings.Join(want, ""), part) {
					t.Fatalf("the dialogue shows the hook no %q", part)
				}
			}

			p.Hook = rough
			s = &scene{t, open(t, &p), &rough.looks}
			s.say(dialogue...)
			got := rough.told(s)
			if len(got) != len(want) {
				t.Fatalf("%d calls, want %d", len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("call %d:\n got %s\nwant %s", i, got[i], want[i])
				}
			}
		})
	}
}

func TestWhatAHookKeepsStaysAsItWas(t *testing.T) {
	for name, open := range guests {
		t.Run(name, func(t *testing.T) {
			hook := &looks{}
			s := &scene{t, open(t, &smtpproxy.Proxy{Hook: hook}), hook}
			s.say("EHLO a", "250", "MAIL FROM:<a@example.com> SIZE=1", "250", "RCPT TO:<b@example.org>", "250")
			kept := s.now()
			before := hook.told(s)
			s.say("RCPT TO:<c@example.org>", "250", "RCPT TO:<d@example.org>", "250", "RSET", "250",
				"MAIL FROM:<e@example.com> SIZE=2", "250", "RCPT TO:<f@example.org>", "250", "EHLO b", "250")
			if after := hook.told(s)[:len(before)]; !slices.Equal(before, after) {
				t.Errorf("was\n%q\nis\n%q", before, after)
			}
			same(s, "recipients", kept.txn.Recipients.Len(), 1)
			same(s, "recipient", kept.txn.Recipients.At(0).Recipient, "b@example.org")
			same(s, "params", list(kept.txn.SenderParams), "SIZE=1")
		})
	}
}
