package proxytest

import (
	"bufio"
	"bytes"
	"cmp"
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
		{"content that the library refuses", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"DATA", "a\nb\r\n.", "NOOP"}), []string{"C: (content)\n# it is the library that has refused that, in the server's place\nS: 550 5.6.0 "}},
		{"a chunk that the library refuses", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"BDAT 5\r\na\nb"}),
			[]string{"C: BDAT 5\n# it is the library that has refused that, in the server's place\nS: 550 5.6.0 "}},
		{"no content", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"DATA", "*1"}),
			[]string{"C: (content)\nS: 554 ", "C: (gone)\n# (content) was refused before its end had come\n"}},
		{"the client leaves amid content", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"DATA", "*0a"}),
			[]string{"C: (content)\nS: 554 ", "C: (gone)\n# (content) was refused before its end had come\n"}},
		{"a chunk that isn't whole", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"BDAT 9 LAST\r\nabc"}),
			[]string{"C: BDAT 9 LAST\nS: 554 ", "C: (gone)\n# BDAT 9 LAST was refused before its end had come\n"}},
		{"the client leaves amid a chunk", smtp, false, false, slices.Concat([]string{"EHLO client.example"}, mail, []string{"*0BDAT 9\r\nabc"}),
			[]string{"C: BDAT 9\nS: 554 ", "C: (gone)\n# BDAT 9 was refused before its end had come\n"}},
		{"no chunk", smtp, false, false, []string{"EHLO client.example", "BDAT 5"}, []string{"C: (gone)\n# the last word was S: 421 "}},
		{"the keywords fail", smtp, true, false, []string{"EHLO client.example", "AUTH PLAIN " + secret, "EHLO client.example"}, []string{"# a hook has failed at the keywords in the server's reply, which isn't known\nS: 421 4.3.0 "}},
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
			[]string{"A: STARTTLS 220 ", "C: (TLS handshake) ", " SNI=mx.example", "C: *\n# the client has cancelled, or sent what can't be decoded: both are refused with 501\n", "S: 235 ", "S: 334", "H policy: 334  (next)", "C: AUTH ****"}},
		{"a password out of its place", smtp, false, false, []string{"EHLO client.example", "STARTTLS", "TLS", "EHLO client.example", "AUTH PLAIN " + wrong, "Correcthorse", "!correct", "PASS correct horse", "QUIT"},
			[]string{"A: MASKED 501 ", "C: MASKED\n", "C: ****\n", "C: PASS ****\n"}},
		{"a control character in a SASL exchange", smtp, false, false,
			[]string{"EHLO client.example", "STARTTLS", "TLS", "EHLO client.example", "AUTH PLAIN", "c2VjcmV0\x01", "NOOP", "AUTH PLAIN", secret, "QUIT"},
			[]string{"C: \"\\x00\"\nP: 500 5.5.2 Control character in command line\nA: NOOP", "S: 235 "}},
		{"TLS from the start", smtp, true, false, []string{"EHLO client.example", "AUTH PLAIN " + secret, "QUIT"}, []string{" TLS.Protocol=TLSv1.3 "}},
		{"LMTP, a status each", lmtp, false, false, slices.Concat([]string{"LHLO client.example"}, mail, []string{"RCPT TO:<refused@example.org>", "DATA", "*3x\r\n.", "NOOP", "QUIT"}),
			[]string{"S: 250 2.0.0 <b@example.org>", "S: 550 5.7.1 "}},
		{"LMTP, the last chunk", lmtp, false, false, []string{"LHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "*2BDAT 0 LAST", "QUIT"}, nil},
		{"another's client", smtp, false, false, []string{"EHLO front.example", "XCLIENT ADDR=192.0.2.7", "EHLO client.example", "RCPT TO:<spam@example.org>", "QUIT"},
			[]string{"C: RCPT TO:<spam@example.org>\nH policy: 550-", "A: (connection) 220 servertest.example ESMTP Service Ready\nC: XCLIENT"}},
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
	recipients := func(s *smtpproxy.Session, n int) {
		for _, line := range slices.Concat([]string{"LHLO x", "MAIL FROM:<a@example.com>"}, slices.Repeat([]string{"RCPT TO:<b@example.org>"}, n)) {
			s.Command(t.Context(), line)
			s.Replied(250, "OK")
		}
	}
	for _, tt := range []struct {
		why   string
		play  func(s *smtpproxy.Session)
		whole bool
	}{
		{"many commands", func(s *smtpproxy.Session) {
			for range 9500 {
				s.Command(t.Context(), "NOOP")
				s.Replied(250, "2.0.0 OK")
			}
		}, true},
		{"too many commands", func(s *smtpproxy.Session) {
			for range 70_000 {
				s.Command(t.Context(), "NOOP")
				s.Replied(250, "2.0.0 OK")
			}
		}, false},
		{"long commands", func(s *smtpproxy.Session) {
			for range 2000 {
				s.Command(t.Context(), "NOOP "+strings.Repeat("x", 1000))
				s.Replied(250, "2.0.0 OK")
			}
		}, false},
		{"long statuses", func(s *smtpproxy.Session) {
			recipients(s, 3000)
			s.Command(t.Context(), "DATA")
			s.Replied(354, "OK")
			for range 3000 {
				s.Replied(250, strings.Repeat("x", 5000))
			}
		}, false},
		{"long replies, which are answers, too", func(s *smtpproxy.Session) {
			for range 200 {
				s.Command(t.Context(), "HELP")
				s.Replied(214, slices.Repeat([]string{strings.Repeat("x", 50)}, 100)...)
			}
		}, false},
		{"an endless greeting", func(s *smtpproxy.Session) {
			s.Connect(s.Context())
			s.Replied(220, strings.Repeat("x", 2<<20))
		}, false},
		{"long names of users", func(s *smtpproxy.Session) {
			secret := base64.StdEncoding.EncodeToString([]byte("\x00" + strings.Repeat("x", 9000) + "\x00pass"))
			for range 300 {
				s.Command(t.Context(), "AUTH PLAIN")
				s.Replied(334)
				s.Command(t.Context(), secret)
				s.Replied(235, "OK")
			}
		}, false},
		{"last words", func(s *smtpproxy.Session) {
			recipients(s, 300)
			s.Command(t.Context(), "DATA")
			s.Replied(354, "OK")
			for range 200 {
				s.Replied(250, strings.Repeat("x", 5000))
			}
		}, true},
	} {
		t.Run(tt.why, func(t *testing.T) {
			out, most := newFile(), 0
			r := &recording{w: out, conn: defaultClient, from: addressesOf(defaultClient)}
			s := (&smtpproxy.Proxy{AllowInsecureAuth: true, Observers: []smtpproxy.Observer{{
				Exchanged: func(ctx *smtpproxy.Context, x smtpproxy.Exchange) {
					r.exchanged(ctx, &x)
					most = max(most, r.holds())
				},
				Disconnected: func(_ *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) { r.disconnected(end) },
			}}}).NewSession(defaultClient)
			tt.play(s)
			s.Close()
			text := out.text(t)
			if len(text) > maxRecording+500 || most > maxRecording {
				t.Errorf("%d octets, and %d were kept", len(text), most)
			}
			if left := strings.HasSuffix(text, "# What came then is left out: with it, there would be more than 1 MiB.\n"); left == tt.whole {
				t.Errorf("%d octets, with %q at the end", len(text), text[len(text)-100:])
			}
			if !tt.whole && tt.why != "an endless greeting" && tt.why != "long statuses" && len(text) < maxRecording-50_000 {
				t.Errorf("%d octets alone are kept", len(text))
			}
			if _, err := playWith(&smtpproxy.Proxy{AllowInsecureAuth: true}, text); err != nil {
				t.Error(err.Error()[:min(len(err.Error()), 1000)])
			}
		})
	}
}

// holds returns how many octets of text are kept.
func (r *recording) holds() (octets int) {
	octets = r.text.Len()
	for _, t := range append(slices.Clone(r.open), r.opening) {
		if t == nil {
			continue
		}
		octets += len(t.client)
		for _, s := range t.heard {
			octets += len(s.text) // answers have the same
		}
		for _, remark := range t.remarks {
			octets += len(remark)
		}
	}
	return octets
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
	toRCPT := "> LHLO x|250|> MAIL FROM:<a@example.com>|250|> RCPT TO:<b@example.org>|250|> RCPT TO:<c@example.org>|250"
	toDATA := toRCPT + "|> DATA|354"
	toContent := "> EHLO x|250|> MAIL FROM:<a@example.com>|250|> RCPT TO:<b@example.org>|250|> DATA|354"
	for _, tt := range []struct{ why, say, want string }{
		{"nothing", "> NOOP|250", "S: 250 OK\nC: (gone)\n"},
		{"a last word", "> NOOP|250|421", "C: (gone)\n# the last word was S: 421 OK\n"},
		{"a last word in the place of a response", "> AUTH PLAIN|334|421", "C: AUTH PLAIN\nS: 334 OK\nC: (gone)\n# the last word was S: 421 OK\n"},
		{"a last word in the place of a response to the hook", "> AUTH EXTERNAL|421", "H policy: 334  (next)\nC: (gone)\n# the last word was S: 421 OK\n"},
		{"a status alone", toDATA + "|250", "S: 354 OK\nC: (gone)\n# (content) has got S: 250 OK alone\n"},
		{"a status of a chunk alone, and a command", toRCPT + "|> BDAT 3 LAST|550|> NOOP", "S: 250 OK\nC: (gone)\n# BDAT 3 LAST has got S: 550 OK alone\n# the last word was P: 421 4.3.0 "},
		{"all statuses", toDATA + "|250|550", "C: (content)\nS: 250 OK\nS: 550 OK\nC: (gone)\n"},
		{"a message without its end", toDATA, "S: 354 OK\nC: (gone)\n"},
		{"a command without a reply", "> NOOP|250|> RSET", "S: 250 OK\nC: (gone)\n# RSET has got no reply\n"},
		{"a command without a reply, behind one of the same name", "> NOOP|250|> NOOP", "S: 250 OK\nC: (gone)\n"}, // as an observer is told of it
		{"a refused message", toContent + "|554", "C: (content)\nS: 554 OK\nC: (gone)\n"},
		{"a message that is answered 421", toContent + "|421", "C: (content)\n# whether the end of (content) had come when it was refused isn't known\nS: 421 OK\n"},
		{"a chunk that is answered 421", toRCPT + "|> BDAT 3|421", "C: BDAT 3\n# whether the end of BDAT 3 had come when it was refused isn't known\nS: 421 OK\n"},
		{"a last word behind a refused message", toContent + "|554|421", "C: (content)\nS: 554 OK\nC: (gone)\n# the last word was S: 421 OK\n# whether the end of (content) had come when it was refused isn't known\n"},
		{"a last word that is long behind one", toContent + "|554|> NOOP|250|421", "C: NOOP\nS: 250 OK\nC: (gone)\n# the last word was S: 421 OK\n"},
		{"a last word behind a message for two that was refused to one", toDATA + "|550|250|421", "C: (content)\nS: 550 OK\nS: 250 OK\nC: (gone)\n# the last word was S: 421 OK\n"},
		{"an exchange of several lines", "> AUTH LOGIN|334|> YWxpY2U=|334|> c2VjcmV0|235", "C: YWxpY2U=\nS: 334 OK\nA: AUTH 235 OK\nC: cGFzc3dvcmQ=\nS: 235 OK\nC: (gone)\n"},
		{"a response that is cancelled, or can't be decoded", "> AUTH PLAIN|334|> !|501", "C: *\n# the client has cancelled, or sent what can't be decoded: both are refused with 501\nS: 501 OK\nC: (gone)\n"},
		{"a name that was sent in vain, and is repeated", "> AUTH LOGIN|504|> Ym9i|500 5.5.2 Syntax errors, YM9I command unrecognized", "C: MASKED\nS: 500 5.5.2 Syntax errors, MASKED command unrecognized\nC: (gone)\n"},
		{"a response that is repeated", "> AUTH PLAIN AGFsaWNlAHNlY3JldA==|501 bad:/AGFsaWNlAHNlY3JldA==, alice", "S: 501-bad:\nS: 501 ****, alice\nC: (gone)\n"},
		{"a password that is repeated", "> PASS correct horse|500 no PASS CORRECT HORSE", "C: PASS ****\nS: 500 no PASS ****\nC: (gone)\n"},
		{"all commands have a reply, and what was masked, too", "> AUTH PLAIN|535|> Correcthorse|500", "S: 500 OK\nC: (gone)\n"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			out := newFile()
			p := &smtpproxy.Proxy{Hook: manyKinds(), Observers: []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}}
			s := p.NewSession(defaultClient)
			for act := range strings.SplitSeq(tt.say, "|") {
				if line, ok := strings.CutPrefix(act, "> "); ok {
					s.Command(t.Context(), line)
				} else {
					code, text, _ := strings.Cut(act, " ")
					n, err := strconv.Atoi(code)
					if err != nil {
						t.Fatal(err)
					}
					s.Replied(n, strings.Split(cmp.Or(text, "OK"), "/")...)
				}
			}
			s.Close()
			text := out.text(t)
			if _, err := playText(text); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
			if isWhole := strings.HasSuffix(tt.want, "\n"); !strings.Contains(text, tt.want) || isWhole && !strings.HasSuffix(text, tt.want) {
				t.Error(text)
			}
			for _, never := range []string{"Ym9i", "AGFsaW", "secret", "correct"} {
				if strings.Contains(strings.ToLower(text), strings.ToLower(never)) {
					t.Errorf("%q is in\n%s", never, text)
				}
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
	// At a command, at its reply, or at who has connected, it fails if that is for it.
	failing := func(connects bool) smtpproxy.Hook {
		f := smtpproxy.Funcs{
			OnCommand: func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				switch cmd.Verb() {
				case "EXPN", "":
					return nil, io.EOF
				case "VRFY":
					return smtpproxy.Reply{Code: 550}, nil
				case "XCLIENT":
					return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemotePort: 7}}, nil
				}
				return nil, nil
			},
			OnReply: func(_ *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
				if x.Command.Args() == "panics" {
					panic("at the reply")
				}
				return nil, io.EOF
			},
		}
		if connects {
			f.OnConnect = func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) { return nil, io.EOF }
		} else {
			f.OnConnect = func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
				if conn.RemotePort == 7 {
					return smtpproxy.Reply{Code: 554}, nil
				}
				return nil, nil
			}
		}
		return smtpproxy.Named("policy", f)
	}
	decides := func(d smtpproxy.Decision) func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision {
		return func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision { return d }
	}
	for _, tt := range []struct {
		why       string
		connects  bool
		onFailure func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision
		line      string
		want      string
	}{
		{"the server's", false, nil, "NOOP", "C: NOOP\nS: 250 2.0.0 OK\n"},
		{"the hook's", false, nil, "VRFY x", "C: VRFY x\nH policy: 550 5.0.0 "},
		{"the hook's, by a panic", false, nil, "VRFY panics", "C: VRFY panics\nH policy: 550 5.0.0 "},
		{"the hook's, where OnFailure isn't asked", false, decides(smtpproxy.Reply{Code: 451}), "VRFY x", "C: VRFY x\nH policy: 550 5.0.0 "},
		{"the library's", false, nil, "RCPT TO:<b@example.org>", "C: RCPT TO:<b@example.org>\nP: 503 5.5.1 "},
		{"421", false, nil, "EXPN x", "C: EXPN x\nH policy: failed\nP: 421 4.3.0 "},
		{"OnFailure's", false, decides(smtpproxy.Reply{Code: 451}), "EXPN x", "C: EXPN x\nH policy: failed\nP: 451 4.0.0 "},
		{"the server's, since OnFailure passes it", false, decides(smtpproxy.Pass{}), "EXPN x", "C: EXPN x\nH policy: failed\nS: 502 5.5.1 "},
		{"421 to an empty line", false, nil, "(empty)", "C: \"\"\nH policy: failed\nP: 421 4.3.0 "},
		{"the hook's for whom a Restart tells of", false, nil, "XCLIENT PORT=7", "C: XCLIENT PORT=7\nH: 554 5.0.0 "},
		{"421 for who has connected", true, nil, "", "C: (connection)\nH: failed\nP: 421 4.3.0 "},
		{"OnFailure's for who has connected", true, decides(smtpproxy.Reply{Code: 554}), "", "C: (connection)\nH: failed\nP: 554 5.0.0 "},
		{"the server's for who has connected", true, decides(smtpproxy.Pass{}), "", "C: (connection)\nS: 220 "},
	} {
		t.Run(tt.why, func(t *testing.T) {
			newProxy := func() *smtpproxy.Proxy {
				return &smtpproxy.Proxy{Hook: failing(tt.connects), OnFailure: tt.onFailure}
			}
			wantPlayed(t, newProxy, func(s *Session) {
				if tt.line != "" {
					s.Send(strings.TrimPrefix(tt.line, "(empty)"))
				}
			}, tt.want)
		})
	}
}

// wantPlayed wants what is recorded of a session with a proxy to play with another that is the same,
// and to tell something.
func wantPlayed(t *testing.T, newProxy func() *smtpproxy.Proxy, say func(s *Session), want string) {
	t.Helper()
	out, p := newFile(), newProxy()
	p.Observers = []smtpproxy.Observer{Record(func(smtpproxy.Connection) io.WriteCloser { return out })}
	s := NewSession(p)
	s.Connect()
	say(s)
	s.Close()
	text := out.text(t)
	if _, err := playWith(newProxy(), text); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	if !strings.Contains(text, want) {
		t.Error(text)
	}
}

// What the hook repeats of a line is what stands in its place.
func TestARecordingOfAHookThatRepeatsWhatIsMaskedPlaysToo(t *testing.T) {
	newProxy := func() *smtpproxy.Proxy {
		return &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			if cmd.Verb() == "AUTH" {
				return smtpproxy.Reply{Code: 535}, nil
			}
			return smtpproxy.Reply{Code: 500, Lines: []string{cmd.Line + " is none"}, Disconnect: cmd.Line == ""}, nil
		})}
	}
	for _, tt := range []struct {
		lines []string
		want  string
	}{
		{[]string{"AUTH PLAIN AGFsaWNlAHNlY3JldA==", "Correcthorse", "500"}, "C: MASKED\nH: 500 5.0.0 MASKED is none\nC: ****\nH: 500 5.0.0 **** is none\n"},
		{[]string{""}, "C: \"\"\nH: 500 5.0.0  is none (close)\n"},
	} {
		wantPlayed(t, newProxy, func(s *Session) { sendAll(s, tt.lines...) }, tt.want)
	}
}

func TestWhatARecordingTellsOfAMessageThatWasRefused(t *testing.T) {
	early, unknown := "BDAT 3 was refused before its end had come", "whether the end of BDAT 3 had come when it was refused isn't known"
	for _, tt := range []struct {
		why         string
		code        int
		by          smtpproxy.Side
		reason      smtpproxy.Reason
		hasLastWord bool
		want        string
	}{
		{"the client has gone on", 554, smtpproxy.SideClient, smtpproxy.ReasonQuit, false, ""},
		{"the client was gone then", 554, smtpproxy.SideClient, smtpproxy.ReasonClientGone, false, ""},
		{"the server ends what it refuses early", 554, smtpproxy.SideServer, smtpproxy.ReasonRefused, false, early},
		{"it ends with its last word", 554, smtpproxy.SideServer, smtpproxy.ReasonRefused, true, unknown},
		{"that is its last word", 421, smtpproxy.SideServer, smtpproxy.ReasonRefused, false, unknown},
		{"the time was up", 421, smtpproxy.SideLibrary, smtpproxy.ReasonDataTimeout, false, early},
		{"the library refuses it for what is in it", 550, smtpproxy.SideLibrary, smtpproxy.ReasonRefused, false, ""},
	} {
		f := refused{"BDAT 3", tt.code}
		if got := f.early(&smtpproxy.End{By: tt.by, Reason: tt.reason}, tt.hasLastWord); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}
