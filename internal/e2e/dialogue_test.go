package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"golang.org/x/tools/txtar"
)

// A dialogue is a file in testdata/dialogues: a txtar archive. Its comment
// tells what it is about. Its files:
//
//	servers    the servers to run it against, a line each: a name of
//	           dialogueServers, and options of serverOptions
//	transports what it runs over, a line each: names of dialogueTransports.
//	           Without it, all of them but the bubble: TCP only is for what is
//	           about STARTTLS, or about being outside of TLS, the bubble for
//	           what is about time
//	cuts       how it is cut, a line each: names of cuts. Without it, whole, by
//	           octets and at random; at every octet is for a chosen few
//	proxy      options of proxyOptions, if any. If it has several lines, each
//	           is for a run of its own; "none" are no options
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
//	    WAIT 11s       the client does nothing for so long, in a bubble
//	    SILENCE 11s    the client gets nothing for so long, in a bubble
//	    HALFCLOSE      the client closes its side, and reads on
//	    CLOSE          the client closes
//	    END            the server closes
//	           Lines that the client sends in a row leave at once, but for "|"
//	           on a line of its own between them.
//	script     what the server called "scripted" does, in the words of dialogue
//	           with the sides changed: it reads C: and C>, it writes S: and
//	           S>, and END is the end of what it can read. Further words are
//	           told of in dialogue_server_test.go. It closes at the end
//	answers    what the hook answers, a line each: the client's line, " => " and
//	           the hook's reply, or "PASS" and the line that the server gets
//	           instead. What isn't there is passed
//	hook       the lines that the hook was shown, in order
//	tells      the transaction that the hook was told of with each DATA and
//	           BDAT: its sender and recipients
//	server     the commands that the server executed, in order
//	commands   both, where they are the same
//	log        what was logged, a line each: the level, and the reason for which
//	           the connection was ended, or what else was told
//	messages   the messages that the server took, as Go strings
//	envelopes  their senders and recipients
//
// What hook and those after it don't say isn't checked. Names of servers behind
// the name of a file, as in "-- dialogue lenient early --", make it one for those
// alone, in the place of the other. In what isn't for it alone, EHLO at the start
// of a line stands for LHLO where the server speaks LMTP.
type dialogue struct {
	servers, transports, cuts []string

	files map[string]string // by name, or name and server
}

// file returns what the dialogue says for a server.
func (d dialogue) file(name, server string) (text string, ok bool) {
	names := []string{name}
	if name == "hook" || name == "server" {
		names = append(names, "commands")
	}
	for _, suffix := range []string{" " + server, ""} {
		for _, name := range names {
			text, ok = d.files[name+suffix]
			switch {
			case ok && suffix == "":
				return greet(text, server), true
			case ok:
				return text, true
			}
		}
	}
	return "", false
}

// greet returns the text with LHLO for EHLO, if that is how the server is greeted.
func greet(text, server string) string {
	if strings.HasPrefix(server, "go-smtp-lmtp") || server == "lmtp" {
		return greeting.ReplaceAllString(text, "${1}LHLO ")
	}
	return text
}

var greeting = regexp.MustCompile(`(?m)^(C: |C> "|)EHLO `)

// proxies returns the sets of options of the proxy to play it with.
func (d dialogue) proxies(server string) []string {
	return d.lines("proxy", strings.Fields(server)[0])
}

// lines returns the same, split at line ends.
func (d dialogue) lines(name, server string) []string {
	text, _ := d.file(name, server)
	return lines(text)
}

func lines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }

func readDialogue(t *testing.T, name string) dialogue {
	t.Helper()
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(a.Comment)) == 0 {
		t.Fatalf("%s doesn't tell what it is about", name)
	}
	d := dialogue{
		transports: []string{"TCP", "TLS", "implicit TLS"},
		cuts:       []string{"whole", "by octets", "at random"},
		files:      make(map[string]string),
	}
	servers := make(map[string]bool)
	for _, f := range a.Files {
		words := strings.Fields(f.Name)
		switch words[0] {
		case "servers":
			d.servers = lines(string(f.Data))
			for _, server := range d.servers {
				servers[strings.Fields(server)[0]] = true
			}
			continue
		case "transports":
			d.transports = lines(string(f.Data))
			continue
		case "cuts":
			d.cuts = lines(string(f.Data))
			continue
		case "proxy", "dialogue", "script", "answers", "hook", "server", "commands", "tells", "log", "messages", "envelopes":
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
			text := string(f.Data)
			if len(words) > 2 {
				text = greet(text, server)
			}
			d.files[words[0]+" "+server] = text
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
			for _, transport := range d.transports {
				runs, ok := dialogueTransports[transport]
				if !ok {
					t.Fatalf("%s: unknown transport %q", file, transport)
				}
				for _, cutName := range d.cuts {
					cut := cuts[cutName]
					if cut == nil {
						t.Fatalf("%s: unknown cut %q", file, cutName)
					}
					if runs[cutName] == 0 {
						continue
					}
					name := strings.TrimSuffix(filepath.Base(file), ".txtar") + "/" + server + "/" + transport + "/" + cutName
					for _, options := range d.proxies(server) {
						name := name
						if len(d.proxies(server)) > 1 {
							name += "/" + options
						}
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							for run := range runs[cutName] {
								k := d.play(t, server, transport, d.newProxy(t, server, options, transport), cut(run))
								if t.Failed() || k.sent > 100_000 || cutName == everyOctet && run+2 >= k.longest {
									return // what is long is played once
								}
							}
						})
					}
				}
			}
		}
	}
}

// dialogueTransports are what dialogues run over, and how often with each of the
// cuts: TLS beneath the library or begun by it, its records being the pieces, and
// TCP, where a piece leaves when the one before has been read, as over a pipe in a
// bubble, where time passes only when all wait for it.
var dialogueTransports = map[string]map[string]int{
	"TCP":          {"whole": 1, "by octets": 1, "at random": 5, everyOctet: 1000},
	"TLS":          {"whole": 1, "by octets": 1, "at random": 2},
	"implicit TLS": {"whole": 1, "at random": 1},
	"bubble":       {"whole": 1, "by octets": 1, "at random": 2},
}

const everyOctet = "at every octet"

// cuts are ways to cut what a client sends at once into pieces: in each run, how
// many of the octets that are left go next, when some have gone.
var cuts = map[string]func(run int) func(left []byte, gone int) int{
	"whole":     func(int) func([]byte, int) int { return func(left []byte, _ int) int { return len(left) } },
	"by octets": func(int) func([]byte, int) int { return func([]byte, int) int { return 1 } },
	"at random": func(run int) func([]byte, int) int {
		r := rand.New(rand.NewPCG(uint64(run), 6))
		return func(left []byte, _ int) int { return 1 + r.IntN(len(left)) }
	},
	everyOctet: func(run int) func([]byte, int) int {
		return func(left []byte, gone int) int {
			if gone == 0 {
				return run + 1
			}
			return len(left)
		}
	},
}

// newProxy returns what stands before one server. Its Hook is a dialogueHook.
func (d dialogue) newProxy(t *testing.T, server, options, transport string) *smtpproxy.Proxy {
	t.Helper()
	p := &smtpproxy.Proxy{Hook: newDialogueHook(t, d, strings.Fields(server)[0])}
	setOptions(t, p, options)
	if transport == "implicit TLS" {
		p.TLSConfig, p.ImplicitTLS = serverTLS(), true
	}
	return p
}

// play plays the dialogue against one server, with a proxy of newProxy's. It returns the
// client.
func (d dialogue) play(t *testing.T, server, transport string, p *smtpproxy.Proxy, cut func(left []byte, gone int) int) *speaker {
	k := &speaker{cut: cut, bubble: transport == "bubble"}
	if k.bubble {
		synctest.Test(t, func(t *testing.T) { d.playHere(t, server, transport, p, k) })
	} else {
		d.playHere(t, server, transport, p, k)
	}
	return k
}

func (d dialogue) playHere(t *testing.T, server, transport string, p *smtpproxy.Proxy, k *speaker) {
	patience := dialoguePatience
	if k.bubble {
		patience = bubblePatience
	}
	words := strings.Fields(server)
	server = words[0]
	var srv dialogueServer
	script := &scripted{bubble: k.bubble}
	if server == "scripted" {
		script.script = d.lines("script", server)
		srv = script
	} else {
		srv = startServer(t, words)
	}
	hook := p.Hook.(*dialogueHook)
	log := new(logbook)
	p.Logger = log.logger()
	tr := newTransport(true, func() (server, client net.Conn, err error) {
		if k.bubble {
			server, client = net.Pipe()
			return server, client, client.SetDeadline(time.Now().Add(patience))
		}
		if server, client, err = connectTCP(); err != nil {
			return nil, nil, err
		}
		client.SetDeadline(time.Now().Add(patience))
		switch transport {
		case "TCP":
			k.taken = newTakenConn(server)
			server = k.taken
		case "TLS":
			server = tls.Server(server, serverTLS())
			fallthrough
		default:
			client = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
		}
		return server, client, nil
	})
	l := &countedListener{Listener: p.Listener(tr)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	conn, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	k.Conn, k.r = conn, bufio.NewReader(conn)
	err = k.run(d.lines("dialogue", server))
	conn.Close()
	k.flush.Wait()
	if err == nil {
		// What the client has left behind is for the server to work off.
		fallback := time.AfterFunc(patience, func() {
			t.Error("the server doesn't close")
			srv.Close()
		})
		l.open.Wait()
		fallback.Stop()
	}
	srv.Close()
	<-served
	if err != nil {
		shown, executed := hook.passed(), srv.Commands()
		t.Errorf("%v\nof %d the hook was shown last %q\nof %d the server executed last %q", err,
			len(shown), shown[max(0, len(shown)-20):], len(executed), executed[max(0, len(executed)-20):])
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
	check("log", "was logged", log.reasons())
	client := "" // a pipe has no address
	if !k.bubble {
		client = conn.LocalAddr().String()
	}
	log.checkAbout(t, client, l.ids())
}

// countedListener counts the connections that the server hasn't closed.
type countedListener struct {
	net.Listener
	open     sync.WaitGroup
	mu       sync.Mutex
	sessions []*smtpproxy.Session
}

// ids returns those of all connections.
func (l *countedListener) ids() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		ids = append(ids, s.Connection().ID)
	}
	return ids
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	if s, ok := smtpproxy.SessionOf(c); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sessions = append(l.sessions, s)
	}
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

func envelope(from string, to ...string) string {
	return "<" + strings.Join(append([]string{from}, to...), "> <") + ">"
}
