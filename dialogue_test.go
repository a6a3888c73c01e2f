package smtpproxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
	"golang.org/x/tools/txtar"
)

// A dialogue is a file in testdata/dialogues: a txtar archive. Its comment
// tells what it is about. Its files:
//
//	servers    the servers to run it against, a line each: a name of
//	           dialogueServers, and options of serverOptions
//	proxy      options of proxyOptions, if any
//	dialogue   what is said, a line each:
//	    C: line        the client sends the line and CRLF
//	    C> "octets"    the client sends octets, as a Go string; x*1000
//	                   behind it repeats it
//	    S: line        the client gets the line and CRLF; "..." at the end
//	                   stands for anything, x*1000 behind it repeats it
//	    S* line        likewise, but for more lines of the same reply before
//	                   it, in any number
//	    S? line        likewise, if it comes at all before the end
//	    TLS            the client shakes hands
//	    NOTLS          the client tries to, and fails
//	    CLOSE          the client closes
//	    END            the server closes
//	           Lines that the client sends in a row leave in one piece, but
//	           for "|" on a line of its own between them.
//	script     what the server called "scripted" does, in the words of dialogue
//	           with the sides changed: it reads C: and C>, it writes S: and
//	           S>, and END is the end of what it can read. It closes at the end
//	hook       the lines that the hook was shown, in order
//	tells      the transaction that the hook was told of with each DATA and
//	           BDAT: its sender and recipients
//	server     the commands that the server executed, in order
//	commands   both, where they are the same
//	messages   the messages that the server took, as Go strings
//	envelopes  their senders and recipients
//
// What hook and those after it don't say isn't checked. Names of servers behind
// the name of a file, as in "-- dialogue lenient early --", make it one for those
// alone, in the place of the other.
type dialogue struct {
	servers []string
	files   map[string]string // by name, or name and server
}

// file returns what the dialogue says for a server.
func (d dialogue) file(name, server string) (text string, ok bool) {
	names := []string{name}
	if name == "hook" || name == "server" {
		names = append(names, "commands")
	}
	for _, suffix := range []string{" " + server, ""} {
		for _, name := range names {
			if text, ok = d.files[name+suffix]; ok {
				return text, true
			}
		}
	}
	return "", false
}

// lines returns the same, split at line ends.
func (d dialogue) lines(name, server string) []string {
	text, _ := d.file(name, server)
	return strings.Split(strings.TrimRight(text, "\n"), "\n")
}

// dialogueServer is what plays the server.
type dialogueServer interface {
	Serve(net.Listener) error
	Close() error
	Commands() []string
	Messages() []servertest.Message
}

var dialogueServers = map[string]func(...servertest.Option) *servertest.Server{
	"go-smtp":            servertest.GoSMTP,
	"go-smtp-lmtp":       func(o ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(false, o...) },
	"go-smtp-lmtp-early": func(o ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(true, o...) },
	"strict":             servertest.Strict,
	"strict-by-lines": func(o ...servertest.Option) *servertest.Server {
		return servertest.Strict(append(o, servertest.LineByLine())...)
	},
	"lenient": servertest.Lenient,
	"early":   func(o ...servertest.Option) *servertest.Server { return servertest.EarlyRefuser(10, o...) },
	"early-0": func(o ...servertest.Option) *servertest.Server { return servertest.EarlyRefuser(0, o...) },
}

var serverOptions = map[string]func(*smtp.Server){
	"tls":        func(s *smtp.Server) { s.TLSConfig = serverTLS() },
	"size":       func(s *smtp.Server) { s.MaxMessageBytes = 20 },
	"requiretls": func(s *smtp.Server) { s.EnableREQUIRETLS = true },
	"no-insecure-auth": func(s *smtp.Server) {
		s.AllowInsecureAuth = false
	},
	"dsn":       func(s *smtp.Server) { s.EnableDSN = true },
	"impatient": func(s *smtp.Server) { s.WriteTimeout = 200 * time.Millisecond },
	"failing":   func(s *smtp.Server) { s.Backend = failingBackend{s.Backend} },
}

// failingBackend refuses each message, whatever there is of it.
type failingBackend struct{ smtp.Backend }

type failingSession struct{ smtp.Session }

func (b failingBackend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s, err := b.Backend.NewSession(c)
	return failingSession{s}, err
}

func (failingSession) Data(io.Reader) error {
	return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "failing"}
}

var proxyOptions = map[string]func(*smtpproxy.Proxy){
	"tls":              func(p *smtpproxy.Proxy) { p.TLSConfig = serverTLS() },
	"implicit-tls":     func(p *smtpproxy.Proxy) { p.TLSConfig, p.ImplicitTLS = serverTLS(), true },
	"insecure-auth":    func(p *smtpproxy.Proxy) { p.AllowInsecureAuth = true },
	"requiretls":       func(p *smtpproxy.Proxy) { p.TLSKeywords = []string{"REQUIRETLS"} },
	"no-bare-newlines": func(p *smtpproxy.Proxy) { p.RejectBareNewlines = true },
	"four-commands":    func(p *smtpproxy.Proxy) { p.MaxCommands = 4 },
	"two-errors":       func(p *smtpproxy.Proxy) { p.MaxErrors = 2 },
	"sasl-line-of-20":  func(p *smtpproxy.Proxy) { p.MaxSASLLineLength, p.AllowInsecureAuth = 20, true },
	"reply-of-100":     func(p *smtpproxy.Proxy) { p.MaxReplyLength = 100 },
	"two-small-chunks": func(p *smtpproxy.Proxy) { p.MaxSmallChunks = 2 },
	"require-tls-auth": func(p *smtpproxy.Proxy) { p.RequireTLSForAuth = true },
}

func readDialogue(t *testing.T, name string) dialogue {
	t.Helper()
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(a.Comment)) == 0 {
		t.Fatalf("%s doesn't tell what it is about", name)
	}
	d := dialogue{files: make(map[string]string)}
	servers := make(map[string]bool)
	for _, f := range a.Files {
		if f.Name == "servers" {
			d.servers = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
			for _, server := range d.servers {
				servers[strings.Fields(server)[0]] = true
			}
			continue
		}
		words := strings.Fields(f.Name)
		switch words[0] {
		case "proxy", "dialogue", "script", "hook", "server", "commands", "tells", "messages", "envelopes":
		default:
			t.Fatalf("%s: unknown file %q", name, f.Name)
		}
		if len(words) == 1 {
			d.files[f.Name] = string(f.Data)
		}
		for _, server := range words[1:] {
			if !servers[server] {
				t.Fatalf("%s: file %q is for a server that it isn't run against", name, f.Name)
			}
			d.files[words[0]+" "+server] = string(f.Data)
		}
	}
	return d
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogues/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		d := readDialogue(t, file)
		for _, server := range d.servers {
			for name, cut := range cuts {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar")+"/"+server+"/"+name, func(t *testing.T) {
					t.Parallel()
					for seed := range cut.runs {
						sent := d.play(t, server, cut.cut(rand.New(rand.NewPCG(seed, 6))))
						if t.Failed() || sent > 100_000 {
							return // what is long is played once
						}
					}
				})
			}
		}
	}
}

// cuts are ways to cut what a client sends at once into pieces.
var cuts = map[string]struct {
	runs uint64
	cut  func(*rand.Rand) func([]byte) int // how many octets go first
}{
	"whole":     {1, func(*rand.Rand) func([]byte) int { return func(b []byte) int { return len(b) } }},
	"by octets": {1, func(*rand.Rand) func([]byte) int { return func([]byte) int { return 1 } }},
	"at random": {5, func(r *rand.Rand) func([]byte) int { return func(b []byte) int { return 1 + r.IntN(len(b)) } }},
}

// play plays the dialogue against one server. It returns how many octets the
// client has sent.
func (d dialogue) play(t *testing.T, server string, cut func([]byte) int) (sent int) {
	words := strings.Fields(server)
	server = words[0]
	var srv dialogueServer
	script := &scripted{}
	if server == "scripted" {
		script.script = d.lines("script", server)
		srv = script
	} else {
		srv = startServer(t, words)
	}
	hook := &dialogueHook{}
	p := &smtpproxy.Proxy{Hook: hook}
	options, _ := d.file("proxy", server)
	for _, w := range strings.Fields(options) {
		if proxyOptions[w] == nil {
			t.Fatalf("unknown option %q of the proxy", w)
		}
		proxyOptions[w](p)
	}
	tr := overTCP(t)
	l := &countedListener{Listener: p.Listener(tr)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	conn, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	k := &speaker{Conn: conn, r: bufio.NewReader(conn), cut: cut}
	err = k.run(d.lines("dialogue", server))
	conn.Close()
	k.flush.Wait()
	if err == nil {
		// What the client has left behind is for the server to work off.
		fallback := time.AfterFunc(15*time.Second, func() {
			t.Error("the server doesn't close")
			srv.Close()
		})
		l.open.Wait()
		fallback.Stop()
	}
	srv.Close()
	<-served
	if err != nil {
		t.Errorf("%v\nthe hook was shown %q\nthe server executed %q", err, hook.passed(), srv.Commands())
	}
	if k.stuck.Load() {
		t.Error("nobody reads what the client sends, and nobody closes")
	}
	if script.err != nil {
		t.Error(script.err)
	}
	check := func(name, what string, got []string) {
		want, ok := d.file(name, server)
		if ok && strings.TrimRight(want, "\n") != strings.Join(got, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), want)
		}
	}
	check("hook", "the hook was shown", hook.passed())
	check("tells", "the hook was told of", hook.told)
	check("server", "the server executed", srv.Commands())
	var messages, envelopes []string
	for _, m := range srv.Messages() {
		messages = append(messages, strconv.Quote(string(m.Data)))
		envelopes = append(envelopes, envelope(m.From, m.To...))
	}
	check("messages", "the server took", messages)
	check("envelopes", "the server took messages", envelopes)
	return k.sent
}

// countedListener counts the connections that the server hasn't closed.
type countedListener struct {
	net.Listener
	open sync.WaitGroup
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, closed: sync.OnceFunc(l.open.Done)}, nil
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// NetConn lets smtpproxy.SessionOf find what it looks for.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// startServer returns the server that is described by its name and options.
func startServer(t *testing.T, words []string) dialogueServer {
	t.Helper()
	start, ok := dialogueServers[words[0]]
	if !ok {
		t.Fatalf("unknown server %q", words[0])
	}
	var options []servertest.Option
	for _, w := range words[1:] {
		if serverOptions[w] == nil {
			t.Fatalf("unknown option %q of a server", w)
		}
		options = append(options, servertest.Configure(serverOptions[w]))
	}
	return start(options...)
}

// dialogueHook passes everything and remembers what it was told.
type dialogueHook struct {
	passLog
	told []string // of transactions
}

func (h *dialogueHook) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if verb := cmd.Verb(); verb == "DATA" || verb == "BDAT" {
		var to []string
		for _, r := range txn.Recipients.All() {
			to = append(to, r.Recipient)
		}
		h.told = append(h.told, envelope(txn.Sender, to...))
	}
	return h.passLog.Command(ctx, cmd, conn, txn)
}

func envelope(from string, to ...string) string {
	return "<" + strings.Join(append([]string{from}, to...), "> <") + ">"
}

// scripted is a server that does what its script says, on one connection.
type scripted struct {
	script []string
	err    error // what kept it from that; for use after Serve

	mu       sync.Mutex
	commands []string
	open     []io.Closer
}

func (s *scripted) Serve(l net.Listener) error {
	s.opened(l)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	s.opened(c)
	defer c.Close()
	r := bufio.NewReader(c)
	for i, step := range s.script {
		if err := s.step(c, r, step); err != nil {
			s.err = fmt.Errorf("the server's script, line %d, %s: %w", i+1, step, err)
			return nil
		}
	}
	return nil
}

func (s *scripted) opened(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, c)
}

func (s *scripted) step(c net.Conn, r *bufio.Reader, step string) error {
	verb, text, _ := strings.Cut(step, " ")
	switch verb {
	case "", "#":
		return nil
	case "S:":
		io.WriteString(c, text+"\r\n") // an error shows as END
		return nil
	case "S>":
		octets, err := unquote(text)
		c.Write(octets)
		return err
	case "C:":
		line, err := r.ReadString('\n')
		if line != text+"\r\n" {
			return fmt.Errorf("got %q, %w", line, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.commands = append(s.commands, text)
		return nil
	case "C>":
		octets, err := unquote(text)
		if err != nil {
			return err
		}
		got := make([]byte, len(octets))
		n, err := io.ReadFull(r, got)
		if !bytes.Equal(got, octets) {
			return fmt.Errorf("got %q, %w", got[:n], err)
		}
		return nil
	case "END":
		rest, err := io.ReadAll(r)
		if len(rest) > 0 || os.IsTimeout(err) {
			return fmt.Errorf("got %q, %v", rest, err)
		}
		return nil
	}
	return fmt.Errorf("unknown step")
}

func (s *scripted) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		c.Close()
	}
	return nil
}

func (s *scripted) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

func (s *scripted) Messages() []servertest.Message { return nil }

// speaker is the client's side of a dialogue.
type speaker struct {
	net.Conn
	r     *bufio.Reader
	cut   func([]byte) int
	queue []byte // to be sent in one piece
	sent  int    // octets, so far
	flush sync.WaitGroup
	stuck atomic.Bool // the time was over before all was sent
}

func (k *speaker) run(steps []string) error {
	for i, step := range steps {
		if err := k.step(step); err != nil {
			return fmt.Errorf("line %d, %s: %w", i+1, step, err)
		}
	}
	return nil
}

func (k *speaker) step(step string) error {
	verb, text, _ := strings.Cut(step, " ")
	switch verb {
	case "C:":
		k.queue = append(append(k.queue, text...), "\r\n"...)
		return nil
	case "C>":
		octets, err := unquote(text)
		k.queue = append(k.queue, octets...)
		return err
	}
	k.send()
	switch verb {
	case "", "#", "|":
		return nil
	case "S:", "S*", "S?":
		if _, err := k.r.Peek(1); verb == "S?" && err != nil {
			return nil
		}
		text, n := repeated(text)
		for range n {
			if err := k.expect(text, verb == "S*"); err != nil {
				return err
			}
		}
		return nil
	case "TLS", "NOTLS":
		k.flush.Wait()
		tc := tls.Client(&prefixConn{k.Conn, k.r}, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example"})
		err := tc.Handshake()
		if verb == "NOTLS" {
			if err == nil {
				return fmt.Errorf("the handshake succeeded")
			}
			return nil
		}
		k.Conn, k.r = tc, bufio.NewReader(tc)
		return err
	case "CLOSE":
		k.flush.Wait()
		return k.Close()
	case "END":
		rest, err := io.ReadAll(k.r)
		if len(rest) > 0 || os.IsTimeout(err) {
			return fmt.Errorf("got %q, %v", rest, err)
		}
		return nil
	}
	return fmt.Errorf("unknown step")
}

// expect reads the line, or a reply of which it is the last.
func (k *speaker) expect(text string, last bool) error {
	line, err := k.r.ReadString('\n')
	for last && err == nil && len(line) > 3 && line[3] == '-' && strings.HasPrefix(text, line[:3]) {
		line, err = k.r.ReadString('\n')
	}
	if err != nil {
		return fmt.Errorf("got %q, %w", line, err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	prefix, open := strings.CutSuffix(text, "...")
	if line != text && !(open && strings.HasPrefix(line, prefix)) {
		return fmt.Errorf("got %q", line)
	}
	return nil
}

// unquote returns octets given as a Go string, perhaps repeated.
func unquote(text string) ([]byte, error) {
	quoted, n := repeated(text)
	octets, err := strconv.Unquote(quoted)
	return []byte(strings.Repeat(octets, n)), err
}

var times = regexp.MustCompile(`^(.*) x\*([0-9]+)$`)

// repeated cuts off how often something is to be repeated.
func repeated(text string) (what string, n int) {
	m := times.FindStringSubmatch(text)
	if m == nil {
		return text, 1
	}
	n, _ = strconv.Atoi(m[2])
	return m[1], n
}

// send sends the queue, in pieces, while replies are read.
func (k *speaker) send() {
	b := k.queue
	k.queue = nil
	k.sent += len(b)
	if len(b) == 0 {
		return
	}
	k.flush.Wait() // what was sent before goes first
	conn := k.Conn
	k.flush.Go(func() {
		for len(b) > 0 {
			n := k.cut(b)
			if len(b) > 100_000 {
				n = max(n, 5000)
			}
			n = min(n, len(b))
			if _, err := conn.Write(b[:n]); err != nil {
				k.stuck.Store(os.IsTimeout(err)) // else the server has closed
				return
			}
			b = b[n:]
		}
	})
}
