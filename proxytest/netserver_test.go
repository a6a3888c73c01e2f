package proxytest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"net/smtp"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"go.uber.org/goleak"
)

// patience is how long a test waits for what should happen at once.
const patience = 10 * time.Second

// logbook is a hook that notes what it is called for, and passes it.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (b *logbook) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, fmt.Sprintf(format, args...))
}

func (b *logbook) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	b.note("%s %t", cmd.Verb(), conn.TLS.Protocol != "")
	return nil, nil
}

func (b *logbook) Connect(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
	b.note("connect %t", conn.TLS.Protocol != "")
	return nil, nil
}

func (b *logbook) Disconnect(_ *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) {
	b.note("%v", end.Reason)
}

func (b *logbook) read() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// talker is a client, by hand.
type talker struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, s *Server) *talker {
	t.Helper()
	c, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return &talker{t, c, bufio.NewReader(c)}
}

// say sends some text, and expects replies that begin so.
func (c *talker) say(sent string, replies ...string) {
	c.t.Helper()
	if _, err := io.WriteString(c, sent); err != nil {
		c.t.Fatalf("%q: %v", sent, err)
	}
	for _, want := range replies {
		line := "000-"
		for got := ""; line[3:4] != " "; got += line {
			var err error
			if line, err = c.r.ReadString('\n'); err != nil || len(line) < 4 || !strings.HasPrefix(line, want[:3]) {
				c.t.Fatalf("%q: got %q, %v, want %s", sent, got+line, err, want)
			}
		}
		if !strings.HasPrefix(line, want) {
			c.t.Errorf("%q: got %q, want %s", sent, line, want)
		}
	}
}

// expectEnd expects the end of the connection, and no octet before it.
func (c *talker) expectEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("got %q, %v, want the end", rest, err)
	}
}

// deliver sends a message with the standard library's client, whose connection is c.
func deliver(c net.Conn, startTLS *tls.Config, content string) error {
	client, err := smtp.NewClient(c, "127.0.0.1")
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Hello("client.example"); err != nil {
		return err
	}
	if ok, _ := client.Extension("STARTTLS"); ok != (startTLS != nil) {
		return fmt.Errorf("STARTTLS is offered: %t", ok)
	}
	if startTLS != nil {
		if err := client.StartTLS(startTLS); err != nil {
			return err
		}
	}
	if err := client.Auth(smtp.PlainAuth("", "alice", "secret", "127.0.0.1")); err != nil {
		return err
	}
	if err := client.Mail("Alice@Example.com"); err != nil {
		return err
	}
	for _, to := range []string{"bob@example.org", "carol@example.org"} {
		if err := client.Rcpt(to); err != nil {
			return err
		}
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	io.WriteString(w, content)
	if err := w.Close(); err != nil {
		return err
	}
	return client.Quit()
}

func TestAServerSpeaksWhatItsProxySays(t *testing.T) {
	inClear := []string{"connect false", "EHLO false", "AUTH false", "MAIL false", "RCPT false", "RCPT false", "DATA false", "QUIT false", "quit"}
	inTLS := []string{"EHLO true", "AUTH true", "MAIL true", "RCPT true", "RCPT true", "DATA true", "QUIT true", "quit"}
	own := ownCertificate(t)
	for _, tt := range []struct {
		why      string
		p        smtpproxy.Proxy
		starts   bool // TLS, by STARTTLS
		implicit bool
		want     []string
	}{
		{"nothing is said of TLS", smtpproxy.Proxy{}, false, false, inClear},
		{"an empty TLSConfig is enough for STARTTLS", smtpproxy.Proxy{TLSConfig: new(tls.Config)}, true, false,
			slices.Concat([]string{"connect false", "EHLO false", "STARTTLS false"}, inTLS)},
		{"ImplicitTLS is enough for TLS", smtpproxy.Proxy{ImplicitTLS: true}, false, true,
			slices.Concat([]string{"connect true"}, inTLS)},
		{"a certificate that is there is used", smtpproxy.Proxy{TLSConfig: own, ImplicitTLS: true}, false, true,
			slices.Concat([]string{"connect true"}, inTLS)},
	} {
		t.Run(tt.why, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			hook := new(logbook)
			tt.p.Hook = hook
			s := NewServer(&tt.p)
			defer s.Close()
			var startTLS *tls.Config
			if tt.starts {
				startTLS = s.TLSClientConfig()
			}
			c, err := s.Dial()
			if err != nil {
				t.Fatal(err)
			}
			if _, is := c.(*tls.Conn); is != tt.implicit {
				t.Errorf("the client's connection is %T", c)
			}
			if err := deliver(c, startTLS, "Subject: hello\n\n.dot\n"); err != nil {
				t.Fatal(err)
			}
			want := []Message{{"Alice@Example.com", []string{"bob@example.org", "carol@example.org"}, []byte("Subject: hello\r\n\r\n.dot\r\n")}}
			if got := s.Messages(); !reflect.DeepEqual(got, want) {
				t.Errorf("the server has %q", got)
			}
			if cert := s.Certificate(); (cert != nil) != (tt.starts || tt.implicit) || (s.TLSClientConfig() == nil) != (cert == nil) {
				t.Errorf("the certificate is %v", cert)
			} else if tt.p.TLSConfig == own && cert.DNSNames[0] != "own.example" {
				t.Errorf("the certificate is for %s", cert.DNSNames)
			}
			s.Close()
			if got := hook.read(); !slices.Equal(got, tt.want) {
				t.Errorf("the hook was called for %q\nwant %q", got, tt.want)
			}
		})
	}
}

// ownCertificate returns a configuration with a certificate of the test's own.
func ownCertificate(t *testing.T) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"own.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestTheTestsProxyIsNotChanged(t *testing.T) {
	config := new(tls.Config)
	p := &smtpproxy.Proxy{TLSConfig: config, Observers: make([]smtpproxy.Observer, 0, 1)}
	s := NewServer(p)
	defer s.Close()
	if p.TLSConfig != config || len(config.Certificates) > 0 || len(p.Observers) > 0 || p.Observers[:1][0].Connected != nil {
		t.Errorf("it has become %+v", p)
	}
}

func TestAnLMTPServerListensOnAUnixSocket(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	hook := new(logbook)
	s := NewLMTPServer(&smtpproxy.Proxy{Hook: hook})
	defer s.Close()
	if info, err := os.Stat(s.Addr); err != nil || info.Mode()&fs.ModeSocket == 0 {
		t.Fatalf("at %s there is %v, %v", s.Addr, info, err)
	}
	c := dial(t, s)
	c.say("", "220")
	c.say("EHLO client.example\r\n", "500")
	c.say("HELO client.example\r\n", "500")
	c.say("LHLO client.example\r\n", "250")
	s.Answer("DATA", 354)
	s.Answer("DATA", 550, "5.1.1 Nobody")
	c.say("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n", "250", "250", "250", "354")
	c.say("one\r\n.\r\n", "550", "250")
	c.say("MAIL FROM:<>\r\nRCPT TO:<d@example.org>\r\nRCPT TO:<e@example.org>\r\nBDAT 3\r\ntwoBDAT 5 LAST\r\n.\r\n\r\n", "250", "250", "250", "250", "250", "250")
	c.say("QUIT\r\n", "221")
	c.expectEnd()
	c.Close()
	want := []Message{
		{"a@example.com", []string{"c@example.org"}, []byte("one\r\n")},
		{"", []string{"d@example.org", "e@example.org"}, []byte("two.\r\n\r\n")},
	}
	if got := s.Messages(); !reflect.DeepEqual(got, want) {
		t.Errorf("the server has %q", got)
	}
	s.Close()
	if _, err := os.Stat(s.Addr[:strings.LastIndexByte(s.Addr, os.PathSeparator)]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of the socket is left: %v", err)
	}
	if got, want := hook.read()[:3], []string{"connect false", "EHLO false", "HELO false"}; !slices.Equal(got, want) {
		t.Errorf("the hook was called for %q", got)
	}
}

func TestAServerKeepsWhatItAcceptsAndNothingElse(t *testing.T) {
	for _, tt := range []struct {
		why     string
		answer  func(s *Server)
		sent    string
		replies []string
		want    []Message
	}{
		{"dots are unstuffed, and a dot on a line of its own but for its end is content", nil,
			"MAIL FROM:<a@b> SIZE=9\r\nRCPT TO:<\"c>\\\"\"@d>\r\nDATA\r\n..\r\n...x\r\n\n.\n\r\n.\r\n", []string{"250", "250", "354", "250"},
			[]Message{{"a@b", []string{`"c>\""@d`}, []byte(".\r\n..x\r\n\n.\n\r\n")}}},
		{"the message is refused", func(s *Server) { s.Answer("DATA", 354); s.Answer("DATA", 554) },
			"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n", []string{"250", "250", "354", "554"}, nil},
		{"DATA is refused", func(s *Server) { s.Answer("data", 451) },
			"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nDATA\r\nx\r\n.\r\n", []string{"250", "250", "451", "354", "250"},
			[]Message{{"a@b", []string{"c@d"}, []byte("x\r\n")}}},
		{"a recipient is refused", func(s *Server) { s.Answer("RCPT", 550) },
			"MAIL FROM:<a@b>\r\nRCPT TO:<no@d>\r\nRCPT TO: <c@d>\r\nBDAT 1 LAST\r\nx", []string{"250", "550", "250", "250"},
			[]Message{{"a@b", []string{"c@d"}, []byte("x")}}},
		{"a chunk is refused, and its octets are no commands", func(s *Server) { s.Answer("BDAT", 552) },
			"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6\r\nNOOP\r\nMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nBDAT 0 LAST\r\n",
			[]string{"250", "250", "552", "250", "250", "250"}, []Message{{"e@f", []string{"g@h"}, nil}}},
		{"the transaction is given up", nil,
			"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\nMAIL FROM:e@f\r\nRCPT TO:<g@h>\r\nDATA\r\n.\r\n",
			[]string{"250", "250", "250", "250", "250", "354", "250"}, []Message{{"e@f", []string{"g@h"}, nil}}},
		{"the client leaves amid the content", nil, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n", []string{"250", "250", "354"}, nil},
		{"the client leaves amid a chunk", nil, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 9 LAST\r\nx", []string{"250", "250"}, nil},
		{"the server says goodbye", func(s *Server) { s.Answer("NOOP", 421) }, "EHLO x\r\nNOOP\r\n", []string{"250", "421"}, nil},
	} {
		s := NewServer(&smtpproxy.Proxy{})
		c := dial(t, s)
		c.say("EHLO client.example\r\n", "220", "250")
		if tt.answer != nil {
			tt.answer(s)
		}
		c.say(tt.sent, tt.replies...)
		c.Close()
		s.Close()
		got := s.Messages()
		for i := range got {
			got[i].Content = bytes.Clone(got[i].Content)
		}
		same := slices.EqualFunc(got, tt.want, func(a, b Message) bool {
			return a.From == b.From && slices.Equal(a.To, b.To) && bytes.Equal(a.Content, b.Content)
		})
		if !same {
			t.Errorf("%s: the server has %q, want %q", tt.why, got, tt.want)
		}
	}
}

func TestTheMessagesAreTheTests(t *testing.T) {
	s := NewServer(&smtpproxy.Proxy{})
	defer s.Close()
	c := dial(t, s)
	c.say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n", "220", "250", "250", "250", "354", "250")
	m := s.Messages()[0]
	m.To[0], m.Content[0] = "changed", 'y'
	if got := s.Messages()[0]; got.To[0] != "c@d" || string(got.Content) != "x\r\n" {
		t.Errorf("the server has %q", got)
	}
}

// dahlia/upyo#37 and #41: a client took 251 to RCPT for a refusal, and didn't fall back to HELO
// where EHLO was refused. Both want a server that says so once.
func TestAClientMeetsThe251ToRCPTAnd500ToEHLOThatUpyo37And41AskFor(t *testing.T) {
	var heard logbook
	s := NewServer(&smtpproxy.Proxy{Hook: &heard})
	defer s.Close()
	s.Answer("EHLO", 500, "5.5.1 Command unrecognized")
	s.Answer("RCPT", 251, "User not local; will forward to <carol@example.net>")
	c, err := smtp.Dial(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("alice@example.com"); err != nil { // it says hello first
		t.Fatal(err)
	}
	if err := c.Rcpt("bob@example.org"); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "x")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if m := s.Messages(); len(m) != 1 || !slices.Equal(m[0].To, []string{"bob@example.org"}) {
		t.Errorf("the server has %q", m)
	}
	if got, want := heard.read()[:3], []string{"connect false", "EHLO false", "HELO false"}; !slices.Equal(got, want) {
		t.Errorf("the hook was called for %q", got)
	}
}

func TestAnAnswerIsForTheNextCommandOnWhicheverConnection(t *testing.T) {
	s := NewServer(&smtpproxy.Proxy{})
	defer s.Close()
	a, b := dial(t, s), dial(t, s)
	a.say("", "220")
	b.say("", "220")
	s.Answer("NOOP", 550)
	b.say("NOOP\r\n", "550")
	a.say("NOOP\r\n", "250")
	for _, tt := range []struct{ want, verb string }{
		{"proxytest: Answer without a verb", ""}, {"proxytest: Answer to NOOP with code 334", "NOOP"},
	} {
		if got := panics(func() { s.Answer(tt.verb, 334) }); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestAServerStartsAfreshForTheClientThatAHookTells(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var ends atomic.Int64
	p := restarts(nil)
	p.Hook = smtpproxy.Chain(p.Hook, smtpproxy.Funcs{OnDisconnect: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { ends.Add(1) }})
	p.TLSConfig = new(tls.Config)
	s := NewServer(p)
	defer s.Close()
	c := dial(t, s)
	c.say("EHLO front.example\r\n", "220", "250")
	c.say("STARTTLS\r\n", "220")
	tc := tls.Client(c.Conn, s.TLSClientConfig())
	c.Conn, c.r = tc, bufio.NewReader(tc)
	c.say("EHLO front.example\r\n", "250")
	c.say("AUTH PLAIN AGEAYg==\r\n", "235")
	c.say("XCLIENT ADDR=192.0.2.7\r\n", "220 proxytest.example")
	c.say("MAIL FROM:<a@b>\r\n", "503") // it has to greet anew
	c.say("EHLO client.example\r\nMAIL FROM:<a@b>\r\n", "250", "250")
	c.Close()
	s.Close()
	if n := ends.Load(); n != 1 {
		t.Errorf("the hook was told of %d ends", n)
	}
}

func TestAServerServesManyClientsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		why string
		new func(p *smtpproxy.Proxy) *Server
		p   smtpproxy.Proxy
	}{
		{"without TLS", NewServer, smtpproxy.Proxy{}},
		{"with TLS first", NewServer, smtpproxy.Proxy{ImplicitTLS: true}},
		{"on a unix socket", NewLMTPServer, smtpproxy.Proxy{}},
	} {
		s := tt.new(&tt.p)
		hello := "EHLO"
		if s.network == "unix" {
			hello = "LHLO"
		}
		const clients, messages = 20, 5
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				c := dial(t, s)
				defer c.Close()
				c.say(hello+" x\r\n", "220", "250")
				for j := range messages {
					c.say(fmt.Sprintf("MAIL FROM:<%d@%d>\r\nRCPT TO:<%d@%d>\r\nDATA\r\n%d %d\r\n.\r\n", i, j, i, j, i, j), "250", "250", "354", "250")
				}
				c.say("QUIT\r\n", "221")
			})
		}
		all.Wait()
		s.Close()
		got := make(map[string]int)
		for _, m := range s.Messages() {
			if m.From != m.To[0] || m.From != strings.ReplaceAll(strings.TrimSpace(string(m.Content)), " ", "@") {
				t.Errorf("%s: mixed up: %q", tt.why, m)
			}
			got[m.From]++
		}
		if len(got) != clients*messages {
			t.Errorf("%s: %d messages", tt.why, len(got))
		}
	}
}

// descriptors returns how many files the process has open, 0 where that isn't known.
func descriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

func TestCloseLeavesNothingWhateverTheClientsAreAt(t *testing.T) {
	certificate() // once for all
	starting := smtpproxy.Proxy{TLSConfig: new(tls.Config)}
	for _, tt := range []struct {
		why  string
		p    smtpproxy.Proxy
		sent string
		wait int // replies
	}{
		{"the client has said nothing", smtpproxy.Proxy{}, "", 0},
		{"the client is between two commands", smtpproxy.Proxy{}, "EHLO x\r\n", 2},
		{"half a command has come", smtpproxy.Proxy{}, "EHLO x\r\nNO", 2},
		{"half a message has come", smtpproxy.Proxy{}, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx", 5},
		{"half a chunk has come", smtpproxy.Proxy{}, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 9\r\nx", 4},
		{"a response is due", smtpproxy.Proxy{}, "EHLO x\r\nAUTH LOGIN\r\n", 3},
		{"no handshake has come, though TLS comes first", smtpproxy.Proxy{ImplicitTLS: true}, "", 0},
		{"no handshake has come behind STARTTLS", starting, "EHLO x\r\nSTARTTLS\r\n", 3},
		{"the client hasn't closed its side behind QUIT", smtpproxy.Proxy{}, "QUIT\r\n", 2},
	} {
		t.Run(tt.why, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			before := descriptors()
			hook := new(logbook)
			tt.p.Hook = hook
			s := NewServer(&tt.p)
			var clients []net.Conn
			for range 3 {
				c, err := net.Dial("tcp", s.Addr)
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(patience))
				io.WriteString(c, tt.sent)
				for r := bufio.NewReader(c); tt.wait > 0 && readReplies(r, tt.wait) != nil; {
					t.Fatal("a reply is missing")
				}
				clients = append(clients, c)
			}
			began := time.Now()
			s.Close()
			s.Close()
			if d := time.Since(began); d > patience/2 {
				t.Errorf("it took %v", d)
			}
			begun, ended := 0, 0
			for _, line := range hook.read() {
				switch line {
				case "connect false":
					begun++
				case "server closed", "quit", "client gone", "TLS failed":
					ended++
				}
			}
			if tt.wait > 0 && begun != len(clients) || ended < begun {
				t.Errorf("%d connections, of the end of %d the hook was told: %q", begun, ended, hook.read())
			}
			for _, c := range clients {
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a client's connection is left open")
				}
				c.Close()
			}
			if after := descriptors(); after > before {
				t.Errorf("%d descriptors before, %d behind", before, after)
			}
			if _, err := s.Dial(); err == nil {
				t.Error("it still listens")
			}
		})
	}
}

// readReplies reads so many replies.
func readReplies(r *bufio.Reader, n int) error {
	for n > 0 {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if line[3] == ' ' {
			n--
		}
	}
	return nil
}

func TestCloseWaitsForAHookThatHasALine(t *testing.T) {
	entered, goOn, returned := make(chan bool), make(chan bool), atomic.Bool{}
	s := NewServer(decide(func(ctx *smtpproxy.Context, _ smtpproxy.Command) (smtpproxy.Decision, error) {
		close(entered)
		<-ctx.Done()
		<-goOn
		returned.Store(true)
		return nil, nil
	}))
	c := dial(t, s)
	c.say("NOOP\r\n", "220")
	<-entered
	closed := make(chan bool)
	go func() {
		defer close(closed)
		s.Close()
	}()
	runtime.Gosched()
	select {
	case <-closed:
		t.Error("it has not waited")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	<-closed
	if !returned.Load() {
		t.Error("it has not waited")
	}
}

func TestCloseMayComeWhileClientsCome(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for range 20 {
		s := NewServer(restarts(nil))
		var clients sync.WaitGroup
		for range 5 {
			clients.Go(func() {
				for {
					c, err := s.Dial()
					if err != nil {
						return
					}
					c.SetDeadline(time.Now().Add(patience))
					io.WriteString(c, "EHLO x\r\nXCLIENT ADDR=192.0.2.7\r\nXCLIENT ADDR=192.0.2.7\r\nQUIT\r\n")
					if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error("a client's connection is left open")
					}
					c.Close()
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		s.Close()
		clients.Wait()
	}
}

func TestAProxyThatCantWorkIsAPanicAndLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := descriptors()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, start := range []func(*smtpproxy.Proxy) *Server{NewServer, NewLMTPServer} {
		got := panics(func() { start(&smtpproxy.Proxy{Commands: []string{"no verb"}}) })
		if !strings.HasPrefix(got, "proxytest: smtpproxy: Proxy.Commands has") {
			t.Errorf("got %q", got)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors before, %d behind", before, after)
	}
}

func TestAHookSeesWhereAClientOfAServerComesFrom(t *testing.T) {
	seen := make(chan smtpproxy.Connection, 1)
	p := &smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
		seen <- conn
		return nil, nil
	}}}
	s := NewServer(p)
	defer s.Close()
	c := dial(t, s)
	c.say("", "220")
	conn := <-seen
	if got, want := netip.AddrPortFrom(conn.RemoteIP, conn.RemotePort).String(), c.LocalAddr().String(); got != want {
		t.Errorf("the client is %s, not %s", got, want)
	}
	if got := netip.AddrPortFrom(conn.LocalIP, conn.LocalPort).String(); got != s.Addr {
		t.Errorf("the server is %s, not %s", got, s.Addr)
	}
	if runtime.GOOS != "linux" {
		return
	}
	l := NewLMTPServer(p)
	defer l.Close()
	dial(t, l).say("", "220")
	if conn := <-seen; conn.RemoteUID != (smtpproxy.UID{ID: uint32(os.Getuid()), Valid: true}) {
		t.Errorf("the user is %+v", conn.RemoteUID)
	}
}

func TestAServerWarnsOfNothing(t *testing.T) {
	var log bytes.Buffer
	s := NewServer(&smtpproxy.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	c := dial(t, s)
	c.say("EHLO x\r\nSTARTTLS\r\nQUIT\r\n", "220", "250", "502", "221")
	c.Close()
	s.Close()
	if log.Len() > 0 {
		t.Error(log.String())
	}
}
