package proxytest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/sasl"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// file is where a recording is written to.
type file struct {
	bytes.Buffer
	closed chan struct{}
}

func newFile() *file { return &file{closed: make(chan struct{})} }

func (f *file) Close() error {
	close(f.closed)
	return nil
}

// text returns what is in the file when it is closed.
func (f *file) text(t *testing.T) string {
	t.Helper()
	select {
	case <-f.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was recorded")
	}
	return f.String()
}

// httptestCertificate is that of httptest, with a client's configuration that trusts it.
var httptestCertificate = sync.OnceValues(func() (server, client *tls.Config) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example"}
})

// recordedProxy has what go-smtp's server lets gosmtp set.
func recordedProxy() *smtpproxy.Proxy {
	server, _ := httptestCertificate()
	return &smtpproxy.Proxy{Hook: manyKinds(), TLSConfig: server, RejectBareNewlines: true}
}

// speak lets a client send lines, and wait for the reply to each, or for several with their
// number before the line, as in "*2". TLS is a handshake.
func speak(t *testing.T, c net.Conn, lines ...string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if slices.Equal(lines, []string{"NOTLS"}) {
		io.WriteString(c, "EHLO client.example\r\n")
		io.Copy(io.Discard, c)
		return
	}
	r := textproto.NewReader(bufio.NewReader(c))
	read := func() bool {
		_, _, err := r.ReadResponse(0)
		return err == nil || errors.As(err, new(*textproto.Error))
	}
	read()
	for _, line := range lines {
		replies := 1
		if rest, ok := strings.CutPrefix(line, "*"); ok && line != "*" {
			replies, line = int(rest[0]-'0'), rest[1:]
		}
		if line == "NOTLS" {
			io.WriteString(c, "NOOP\r\n")
			io.Copy(io.Discard, c)
			return
		}
		if line == "TLS" {
			_, config := httptestCertificate()
			tc := tls.Client(c, config)
			if err := tc.Handshake(); err != nil {
				t.Fatal(err)
			}
			c = tc
			r = textproto.NewReader(bufio.NewReader(c))
			continue
		}
		io.WriteString(c, line+"\r\n")
		for range replies {
			read()
		}
	}
}

func TestARecordedSessionPlaysAsItWas(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString([]byte("\x00user\x00pass"))
	wrong := base64.StdEncoding.EncodeToString([]byte("\x00user\x00correct horse"))
	smtp, lmtp := servertest.GoSMTP, func(opts ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(false, opts...) }
	mail := []string{"MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<unknown@example.org>", "RCPT TO:<spam@example.org>"}
	for _, tt := range []struct {
		why      string
		server   func(...servertest.Option) *servertest.Server
		implicit bool
		unix     bool
		lines    []string
		has      []string
	}{
		{"a status each of a refused last chunk", lmtp, false, false, []string{"LHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "*2BDAT 4 LAST\r\nab", "QUIT"},
			[]string{"C: BDAT 4 LAST\nH policy: 554 5.0.0 Requested action not taken\nC: QUIT"}},
		{"content that the library refuses", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"DATA", "a\nb\r\n.", "NOOP"}), []string{"C: (content)\nS: 55"}},
		{"no content", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"DATA", "*1"}), []string{"C: (content)\nS: 554 "}},
		{"no chunk", smtp, false, false, []string{"EHLO client.example", "BDAT 5"}, []string{"C: (gone)\n# the last word was S: 421 "}},
		{"the keywords fail", smtp, true, false, []string{"EHLO client.example", "AUTH PLAIN " + secret, "EHLO client.example"}, []string{"S: 421 4.3.0 "}},
		{"no TLS where it comes first", smtp, true, false, []string{"NOTLS"}, []string{"C: (gone)"}},
		{"no TLS behind STARTTLS", smtp, false, false, []string{"EHLO client.example", "STARTTLS", "NOTLS"}, []string{"C: (gone)\n# the TLS handshake has failed"}},
		{"a message", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"DATA", "Subject: x\r\n\r\nC: MAIL\r\n.", "QUIT"}),
			[]string{"A: (connection) 220 ", "A: DATA 354 ", "C: (content)", "H policy: 550-5.0.0 No", "S: 250 XOWN 1"}},
		{"the client doesn't say goodbye", smtp, false, false, []string{"EHLO client.example", "NOOP"}, []string{"C: (gone)"}},
		{"the client says nothing", smtp, false, false, nil, []string{"C: (connection)", "C: (gone)"}},
		{"a client without words", smtp, false, false, []string{"", "\"x\"", "(content)", "NOOP \x01", " NOOP", "NOOP \xff", "QUIT"},
			[]string{`C: ""`, `C: "\"x\""`, `C: "(content)"`, `C: "NOOP \x01"`, `C: " NOOP"`, `C: "NOOP \xff"`}},
		{"out of order", smtp, false, false, []string{"MAIL FROM:<a@example.com>", "HELO", "HELO client.example", "RCPT TO:<b@example.org>", "DATA", "BDAT 5\r\nabc", "XYZZY", "STARTTLSX", "STARTTLS now", "QUIT"},
			[]string{"P: 503 ", "P: 502 "}},
		{"chunks, and the transaction before was refused", smtp, false, false, []string{"EHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "BDAT 5\r\nabc", "BDAT 0 LAST",
			"MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "EHLO client.example", "MAIL FROM:<a@example.com>", "DATA", "QUIT"}, []string{"C: BDAT 0 LAST"}},
		{"a line is changed, with a delay", smtp, false, false, []string{"EHLO client.example", "VRFY alice", "HELP", "HELP me"},
			[]string{"# the server got NOOP", "A: NOOP 250", "H policy: 502 5.0.0 Requested action not taken (close)"}},
		{"the hook fails", smtp, false, false, []string{"EHLO client.example", "EXPN list"}, []string{"H policy: failed\nP: 421 "}},
		{"AUTH outside TLS", smtp, false, false, []string{"EHLO client.example", "AUTH PLAIN " + secret, "QUIT"}, []string{"C: AUTH PLAIN "}},
		{"STARTTLS and AUTH, at once, wrong, cancelled and in lines", smtp, false, false,
			[]string{"EHLO client.example", "STARTTLS", "TLS", "EHLO client.example", "AUTH PLAIN " + wrong, "AUTH PLAIN", "*", "AUTH X-OWN " + secret, "AUTH EXTERNAL", secret, "AUTH PLAIN", secret,
				"STARTTLS", "MAIL FROM:<a@example.com>", "RCPT TO:<hers@example.org>", "QUIT"},
			[]string{"A: STARTTLS 220 ", "C: (TLS handshake) ", " SNI=mx.example", "C: *\n", "S: 235 ", "S: 334", "H policy: 334  (next)", "C: AUTH ****"}},
		{"a password out of its place", smtp, false, false, []string{"EHLO client.example", "STARTTLS", "TLS", "EHLO client.example", "AUTH PLAIN " + wrong, "Correcthorse", "!correct", "PASS correct horse", "QUIT"},
			[]string{"A: MASKED 501 ", "C: MASKED\n", "C: ****\n", "C: PASS ****\n"}},
		{"a control character in a SASL exchange", smtp, false, false,
			[]string{"EHLO client.example", "STARTTLS", "TLS", "EHLO client.example", "AUTH PLAIN", "c2VjcmV0\x01", "NOOP", "AUTH PLAIN", secret, "QUIT"},
			[]string{"C: \"\\x00\"\nP: 500 5.5.2 Control character in command line\nA: NOOP", "S: 235 "}},
		{"TLS from the start", smtp, true, false, []string{"EHLO client.example", "AUTH PLAIN " + secret, "QUIT"}, []string{" TLS.Protocol=TLSv1.3 "}},
		{"LMTP, a status each", lmtp, false, false, slices.Concat([]string{"LHLO client.example"}, mail, []string{"RCPT TO:<refused@example.org>", "DATA", "*3x\r\n.", "NOOP", "QUIT"}),
			[]string{"S: 250 2.0.0 <b@example.org>", "S: 550 5.7.1 "}},
		{"LMTP, the last chunk", lmtp, false, false, []string{"LHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "*2BDAT 0 LAST", "QUIT"}, nil},
		{"another's client", smtp, false, false, []string{"EHLO front.example", "XCLIENT ADDR=192.0.2.7", "EHLO client.example", "NOOP", "QUIT"},
			[]string{"A: (connection) 220 servertest.example ESMTP Service Ready\nC: XCLIENT"}},
		{"it is refused at once, on a unix socket", smtp, false, true, nil, []string{`C: (connection) RemoteIP="" RemotePort=0 `, "H: 554 5.0.0 Not here (close)"}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			out := newFile()
			p := recordedProxy()
			p.ImplicitTLS = tt.implicit
			p.Observers = []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}
			network, address := "tcp", "127.0.0.1:0"
			if tt.unix {
				network, address = "unix", t.TempDir()+"/s"
			}
			l, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			server := tt.server(servertest.Refuse("refused@example.org"), servertest.ReadTimeout(200*time.Millisecond))
			go server.Serve(p.Listener(l))
			defer server.Close()
			c, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if tt.implicit && !slices.Contains(tt.lines, "NOTLS") {
				_, config := httptestCertificate()
				c = tls.Client(c, config)
			}
			speak(t, c, tt.lines...)
			c.Close()

			text := out.text(t)
			f, mistakes := readScript("recorded.txtar", []byte(text))
			if len(mistakes) > 0 {
				t.Fatalf("%v\n%s", mistakes, text)
			}
			for _, d := range f.dialogues {
				differences, mistakes := d.play(recordedProxy())
				if all := errors.Join(append(differences, mistakes...)...); all != nil {
					t.Errorf("%v\n%s", all, text)
				}
			}
			for _, want := range tt.has {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			for _, never := range []string{"AHVzZXIAcGFzcw", wrong, "orrect", "orse", "Subject", "RemotePTR"} {
				if strings.Contains(strings.ToLower(text), strings.ToLower(never)) {
					t.Errorf("%q is in\n%s", never, text)
				}
			}
		})
	}
}

func TestThePasswordInARecordingIsReplacedAndTheUsersNameIsNot(t *testing.T) {
	for _, tt := range []struct {
		mechanism string
		lines     int
	}{
		{"PLAIN", 1}, {"LOGIN", 2}, {"EXTERNAL", 1}, {"CRAM-MD5", 1}, {"XOAUTH2", 1}, {"OAUTHBEARER", 1}, {"SCRAM-SHA-256", 3},
	} {
		for _, name := range []string{"alice", "a,b=c@example.org"} {
			c := &credentials{mechanism: tt.mechanism}
			watched := sasl.Observe(tt.mechanism)
			for range tt.lines {
				response := c.next()
				c.user = name // it is known when the exchange is over
				watched.Response(response())
			}
			if got := c.response(2); got != "password" {
				t.Errorf("%s: another response is %q", tt.mechanism, got)
			}
			if got := watched.Username(); got != name {
				t.Errorf("%s: user %q, want %q", tt.mechanism, got, name)
			}
		}
	}
}

func TestARecordingIsOfTheConnectionsThatAreAskedForAlone(t *testing.T) {
	out := newFile()
	var log bytes.Buffer
	p := &smtpproxy.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil)), Observers: []smtpproxy.Observer{
		Record(func(smtpproxy.Connection) io.WriteCloser { return nil }),
		Record(func(conn smtpproxy.Connection) io.WriteCloser {
			if conn.RemotePort == 7 {
				return out
			}
			return nil
		}),
	}}
	s := ResumeSession(p, smtpproxy.Connection{RemotePort: 6}, smtpproxy.Transaction{})
	sendAll(s, "EHLO client.example", "STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	s.Close()
	s = ResumeSession(p, smtpproxy.Connection{RemotePort: 7}, smtpproxy.Transaction{})
	s.Send("NOOP seven")
	s.Close()
	if text := out.text(t); strings.Count(text, "-- session --") != 1 || !strings.Contains(text, "C: NOOP seven\n") {
		t.Error(text)
	}
	if strings.Contains(log.String(), "panic") {
		t.Error(log.String())
	}
}

func TestTwoRecordingsOfASessionAreTheSame(t *testing.T) {
	one, other := newFile(), newFile()
	p := &smtpproxy.Proxy{Observers: []smtpproxy.Observer{
		Record(func(smtpproxy.Connection) io.WriteCloser { return one }),
		Record(func(smtpproxy.Connection) io.WriteCloser { return other }),
	}}
	s := NewSession(p)
	s.Send("NOOP")
	s.Close()
	if a, b := one.text(t), other.text(t); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestARecordingIsOfLimitedLength(t *testing.T) {
	out := newFile()
	s := NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}})
	for range 2000 {
		s.Send("NOOP " + strings.Repeat("x", 1000))
	}
	s.Close()
	text := out.text(t)
	if len(text) > maxRecording+10000 || !strings.HasSuffix(text, "# What came then is left out: it was more than 1 MiB.\n") {
		t.Errorf("%d octets, with %q at the end", len(text), text[len(text)-100:])
	}
	if _, err := playWith(&smtpproxy.Proxy{}, text); err != nil {
		t.Error(err)
	}
}

func TestAClientThatTalksEarlyIsRecordedAsOneThatDoes(t *testing.T) {
	out := newFile()
	newProxy := func() *smtpproxy.Proxy {
		return &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(func(_ *smtpproxy.Context, _ smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			if conn.EarlyTalker {
				return smtpproxy.Reply{Code: 554, Disconnect: true}, nil
			}
			return nil, nil
		})}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "NOOP\r\n")
	p := newProxy()
	p.Observers = []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}
	server := servertest.GoSMTP()
	go server.Serve(p.Listener(l))
	defer server.Close()
	speak(t, c, "QUIT") // it reads the greeting, and what has come of NOOP
	c.Close()
	text := out.text(t)
	if _, err := playWith(newProxy(), text); err != nil || !strings.Contains(text, " EarlyTalker=true") || !strings.Contains(text, "H: 554 ") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestAMessageThatARecordingEndsWithHasAllItsStatuses(t *testing.T) {
	recipients := []string{"MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "RCPT TO:<d@example.org>"}
	for short := 0; short < 1200; short += 50 {
		out := newFile()
		s := NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}})
		s.Send("LHLO x")
		s.Send("NOOP " + strings.Repeat("x", maxRecording-short))
		sendAll(s, slices.Concat(recipients, []string{"DATA"})...)
		s.SendContent()
		s.Close()
		text := out.text(t)
		if _, err := playWith(&smtpproxy.Proxy{}, text); err != nil || strings.Contains(text, "the last word") {
			t.Errorf("%d octets too few: %v\n%s", short, err, text[len(text)-1000:])
		}
	}
}

// A server with a state machine of its own may say nothing of its greeting.
func TestASessionWithoutAGreetingIsRecordedToo(t *testing.T) {
	out := newFile()
	p := &smtpproxy.Proxy{Hook: manyKinds(), Observers: []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}}
	s := p.NewSession(defaultClient)
	for _, line := range []string{"EHLO client.example", "RCPT TO:<spam@example.org>", "BDAT 3"} {
		if _, passed := s.Command(t.Context(), line).(smtpproxy.Pass); passed {
			s.Replied(250, "mx.example", "SIZE")
		}
	}
	s.Replied(421, "4.3.2 Shutting down") // nobody has asked
	s.Close()
	text := out.text(t)
	if _, err := playText(text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	if !strings.Contains(text, "C: (connection)\nS: 220 proxytest.example ESMTP\n") {
		t.Error(text)
	}
}

func TestARecordingTellsOfWhatCantBePlayed(t *testing.T) {
	toDATA := "> LHLO x|250|> MAIL FROM:<a@example.com>|250|> RCPT TO:<b@example.org>|250|> RCPT TO:<c@example.org>|250|> DATA|354"
	for _, tt := range []struct{ why, say, want string }{
		{"nothing", "> NOOP|250", "S: 250 OK\nC: (gone)\n"},
		{"a last word", "> NOOP|250|421", "C: (gone)\n# the last word was S: 421 OK\n"},
		{"a last word in the place of a response", "> AUTH PLAIN|334|421", "C: AUTH PLAIN\nS: 334 OK\nC: (gone)\n# the last word was S: 421 OK\n"},
		{"a last word in the place of a response to the hook", "> AUTH EXTERNAL|421", "H policy: 334  (next)\nC: (gone)\n# the last word was S: 421 OK\n"},
		{"a status alone", toDATA + "|250", "S: 354 OK\nC: (gone)\n# the last word was S: 250 OK\n"},
		{"all statuses", toDATA + "|250|550", "C: (content)\nS: 250 OK\nS: 550 OK\nC: (gone)\n"},
		{"a message without its end", toDATA, "S: 354 OK\nC: (gone)\n"},
		{"a command without a reply", "> NOOP|250|> RSET", "S: 250 OK\nC: (gone)\n# RSET has got no reply\n"},
		{"all commands have a reply, and what was masked, too", "> AUTH PLAIN|535|> Correcthorse|500", "S: 500 OK\nC: (gone)\n"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			out := newFile()
			p := &smtpproxy.Proxy{Hook: manyKinds(), Observers: []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}}
			s := p.NewSession(defaultClient)
			for act := range strings.SplitSeq(tt.say, "|") {
				if line, ok := strings.CutPrefix(act, "> "); ok {
					s.Command(t.Context(), line)
				} else if code, err := strconv.Atoi(act); err != nil {
					t.Fatal(err)
				} else {
					s.Replied(code, "OK")
				}
			}
			s.Close()
			text := out.text(t)
			if _, err := playText(text); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
			if !strings.HasSuffix(text, tt.want) {
				t.Error(text)
			}
		})
	}
}

// Where the server is the fake one, nothing is recorded as an answer but what a dialogue has
// set: the recording knows as well as the fake one where that is.
func TestTheRecordingOfADialogueIsThatDialogue(t *testing.T) {
	data, err := os.ReadFile("testdata/lines.txtar")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := readScript("lines.txtar", data)
	for i, text := range strings.Split(string(data), "\n-- ")[1:] {
		out := newFile()
		p := &smtpproxy.Proxy{Hook: policy(), Observers: []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}}
		f.dialogues[i].play(p)
		recorded := out.text(t)
		if _, err := playWith(&smtpproxy.Proxy{Hook: policy()}, recorded); err != nil {
			t.Errorf("%v\n%s", err, recorded)
		}
		for _, line := range []string{"\nA: ", "\nC: "} {
			count := func(text string) int {
				return strings.Count(text, line) - strings.Count(text, line+"(connection)") - strings.Count(text, line+"(gone)")
			}
			if got, want := count(recorded), count(text); got != want {
				t.Errorf("%d lines%s, want %d in\n%s", got, line, want, recorded)
			}
		}
	}
}

func TestARecordingOfAClientThatHasReadNothingPlaysToo(t *testing.T) {
	out := newFile()
	r := &recording{w: out, conn: defaultClient}
	r.disconnected(smtpproxy.End{})
	text := out.text(t)
	if _, err := playWith(&smtpproxy.Proxy{}, text); err != nil || !strings.HasSuffix(text, "C: (connection)\nS: 220 proxytest.example ESMTP\nC: (gone)\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestARecordingTellsWhoseReplyItIsWhereAHookFails(t *testing.T) {
	out := newFile()
	newProxy := func() *smtpproxy.Proxy {
		return &smtpproxy.Proxy{
			Hook: smtpproxy.Chain(manyKinds(), smtpproxy.Funcs{OnReply: func(_ *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
				if x.Command.Verb() == "NOOP" {
					return nil, io.EOF
				}
				return nil, nil
			}}),
			OnFailure: func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision { return smtpproxy.Reply{Code: 451} },
		}
	}
	p := newProxy()
	p.Observers = []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}
	s := NewSession(p)
	sendAll(s, "NOOP", "RCPT TO:<b@example.org>", "EXPN list")
	s.Close()
	text := out.text(t)
	if _, err := playWith(newProxy(), text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	if !strings.Contains(text, "C: NOOP\nS: 250 2.0.0 OK\nC: RCPT TO:<b@example.org>\nP: 503 5.5.1 Missing MAIL command\nC: EXPN list\nH policy: failed\nP: 451 ") {
		t.Error(text)
	}
}
