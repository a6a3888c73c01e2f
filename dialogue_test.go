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
	"strconv"
	"strings"
	"sync"
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
//	                   stands for anything
//	    S? line        likewise, if it comes at all before the end
//	    TLS            the client shakes hands
//	    NOTLS          the client tries to, and fails
//	    CLOSE          the client closes
//	    END            the server closes
//	           Lines that the client sends in a row leave in one piece, but
//	           for "|" on a line of its own between them.
//	hook       the lines that the hook was shown, in order
//	server     the commands that the server executed, in order
//	messages   the messages that the server took, as Go strings
//
// What hook, server and messages don't say isn't checked.
type dialogue struct {
	servers  []string
	proxy    []string
	steps    []string
	hook     *string
	server   *string
	messages *string
}

var dialogueServers = map[string]func(...servertest.Option) *servertest.Server{
	"go-smtp":            servertest.GoSMTP,
	"go-smtp-lmtp":       func(o ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(false, o...) },
	"go-smtp-lmtp-early": func(o ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(true, o...) },
	"strict":             servertest.Strict,
	"lenient":            servertest.Lenient,
	"early":              func(o ...servertest.Option) *servertest.Server { return servertest.EarlyRefuser(10, o...) },
}

var serverOptions = map[string]func(*smtp.Server){
	"tls":        func(s *smtp.Server) { s.TLSConfig = serverTLS() },
	"size":       func(s *smtp.Server) { s.MaxMessageBytes = 20 },
	"requiretls": func(s *smtp.Server) { s.EnableREQUIRETLS = true },
	"no-insecure-auth": func(s *smtp.Server) {
		s.AllowInsecureAuth = false
	},
}

var proxyOptions = map[string]func(*smtpproxy.Proxy){
	"tls":              func(p *smtpproxy.Proxy) { p.TLSConfig = serverTLS() },
	"implicit-tls":     func(p *smtpproxy.Proxy) { p.TLSConfig, p.ImplicitTLS = serverTLS(), true },
	"insecure-auth":    func(p *smtpproxy.Proxy) { p.AllowInsecureAuth = true },
	"requiretls":       func(p *smtpproxy.Proxy) { p.TLSKeywords = []string{"REQUIRETLS"} },
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
	var d dialogue
	for _, f := range a.Files {
		text := string(f.Data)
		switch f.Name {
		case "servers":
			d.servers = strings.Split(strings.TrimSpace(text), "\n")
		case "proxy":
			d.proxy = strings.Fields(text)
		case "dialogue":
			d.steps = strings.Split(strings.TrimRight(text, "\n"), "\n")
		case "hook":
			d.hook = &text
		case "server":
			d.server = &text
		case "messages":
			d.messages = &text
		default:
			t.Fatalf("%s: unknown file %q", name, f.Name)
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
						d.play(t, server, cut.cut(rand.New(rand.NewPCG(seed, 6))))
						if t.Failed() {
							return
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

// play plays the dialogue against one server.
func (d dialogue) play(t *testing.T, server string, cut func([]byte) int) {
	words := strings.Fields(server)
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
	hook := &passLog{}
	p := &smtpproxy.Proxy{Hook: hook}
	for _, w := range d.proxy {
		if proxyOptions[w] == nil {
			t.Fatalf("unknown option %q of the proxy", w)
		}
		proxyOptions[w](p)
	}
	srv := start(options...)
	tr := overTCP(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(p.Listener(tr)) }()
	conn, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	k := &speaker{Conn: conn, r: bufio.NewReader(conn), cut: cut}
	err = k.run(d.steps)
	conn.Close()
	k.flush.Wait()
	srv.Close()
	<-served
	if err != nil {
		t.Errorf("%v\nthe hook was shown %q\nthe server executed %q", err, hook.passed(), srv.Commands())
	}
	check := func(what string, want *string, got []string) {
		if want != nil && strings.TrimRight(*want, "\n") != strings.Join(got, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), *want)
		}
	}
	check("the hook was shown", d.hook, hook.passed())
	check("the server executed", d.server, srv.Commands())
	var messages []string
	for _, m := range srv.Messages() {
		messages = append(messages, strconv.Quote(string(m.Data)))
	}
	check("the server took", d.messages, messages)
}

// speaker is the client's side of a dialogue.
type speaker struct {
	net.Conn
	r     *bufio.Reader
	cut   func([]byte) int
	queue []byte // to be sent in one piece
	flush sync.WaitGroup
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
		quoted, times, repeated := strings.Cut(text, "\" x*")
		n := 1
		if repeated {
			quoted += "\""
			n, _ = strconv.Atoi(times)
		}
		octets, err := strconv.Unquote(quoted)
		if err != nil {
			return err
		}
		k.queue = append(k.queue, strings.Repeat(octets, n)...)
		return nil
	}
	k.send()
	switch verb {
	case "", "#", "|":
		return nil
	case "S:", "S?":
		line, err := k.r.ReadString('\n')
		if verb == "S?" && err != nil {
			return nil
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

// send sends the queue, in pieces, while replies are read.
func (k *speaker) send() {
	b := k.queue
	k.queue = nil
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
				return // the server has closed
			}
			b = b[n:]
		}
	})
}
