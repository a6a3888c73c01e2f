package proxytest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// servable is a server that can be put on trial.
type servable interface {
	Serve(net.Listener) error
	Close() error
}

// badServer is one, and what is to be found out about it: that, and nothing else.
type badServer struct {
	why   string
	serve servable
	trial Trial
	want  string // the findings, with the question that finds each
}

// change makes an odd server.
func change(f func(o *odd)) servable { return newOdd(f) }

func says(lines ...string) func(*oddSession, string) {
	return func(x *oddSession, _ string) { x.reply(lines...) }
}

// anyPath is what is found about all servers of servertest.
const anyPath = "paths: takes-two-paths"

// readsContent is content that is read line by line, until at does something at a line.
func readsContent(at func(x *oddSession, line string, octets int) (done bool)) func(*oddSession) error {
	return func(x *oddSession) error {
		for octets := 0; ; {
			line, err := x.line()
			if err != nil {
				return err
			}
			octets += len(line) + 2
			if at(x, line, octets) {
				return nil
			}
		}
	}
}

func badServers() []badServer {
	refuses, large := Trial{RefusedTexts: []string{"refuse"}}, Trial{MaxMessage: 2_000_000}
	return []badServer{
		{why: "it refuses all senders", want: "replies: untried", serve: change(func(o *odd) {
			o.command["MAIL"] = says("550 5.7.1 not you")
		})},
		{why: "it wants a PROXY header", want: "greeting: reads-before-greeting", trial: Trial{Timeout: 50 * time.Millisecond}, serve: change(func(o *odd) {
			o.setUp = func(x *oddSession) error { _, err := x.line(); return err }
		})},
		{why: "it traps clients that talk early", want: "greeting: waits-for-early-talkers", serve: change(func(o *odd) {
			o.setUp = func(x *oddSession) error {
				x.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := x.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
					return io.EOF
				}
				return nil
			}
		})},
		{why: "it wants a socket of the system's", want: "greeting: wants-tcp-conn", serve: change(func(o *odd) {
			o.setUp = func(x *oddSession) error {
				if _, ok := x.conn.(*net.TCPConn); !ok {
					return io.EOF
				}
				return nil
			}
		})},
		{why: "it doesn't close", want: "handover: stays-open", trial: Trial{Timeout: 100 * time.Millisecond}, serve: change(func(o *odd) {
			o.failed = func(x *oddSession, _ string, _ error) { <-x.done; x.over = true }
		})},
		{why: "it serves one client", want: "greeting: no-fresh-connection", trial: Trial{Timeout: 100 * time.Millisecond}, serve: onlyOne{change(func(*odd) {})}},
		{why: "it doesn't end", want: "end: stays-behind-close", trial: Trial{Timeout: 100 * time.Millisecond}, serve: change(func(o *odd) { o.dontEnd = true })},
		{why: "it keeps connections that break off in a message", want: "end: leaves-connections", trial: Trial{Timeout: 100 * time.Millisecond}, serve: change(func(o *odd) {
			o.failed = func(x *oddSession, where string, _ error) {
				if where == "content" {
					<-x.done
				}
				x.over = true
			}
		})},
		{why: "it has TLS", want: "starttls: offers-starttls", serve: change(func(o *odd) { o.keywords = []string{"250-STARTTLS"} })},

		{why: "a goroutine of its own reads", want: "read-ahead: reads-ahead, " + anyPath, serve: servertest.RunAhead()},
		{why: "it ignores VRFY", want: "replies: no-reply", trial: Trial{Timeout: 100 * time.Millisecond}, serve: change(func(o *odd) {
			o.command["VRFY"] = func(*oddSession, string) {}
		})},
		{why: "it answers HELP twice", want: "replies: many-replies", serve: change(func(o *odd) {
			o.command["HELP"] = says("214 help", "214 more help")
		})},
		{why: "it has no patience", want: "replies: goodbye-behind-reply", serve: change(func(o *odd) {
			o.command["XYZZY"] = func(x *oddSession, _ string) { x.reply("500 5.5.2 what?", "421 4.7.0 bye"); x.over = true }
		})},
		{why: "it says nonsense", want: "replies: malformed-reply", serve: change(func(o *odd) { o.command["EXPN"] = says("no") })},
		{why: "it answers what it isn't asked, behind a message", want: "message-end: loses-step", serve: change(func(o *odd) {
			message := make(map[*oddSession]bool)
			o.behind = func(x *oddSession, verb string) {
				x.mu.Lock()
				defer x.mu.Unlock()
				if message[x] && verb == "NOOP" {
					x.reply("250 2.0.0 and the message is delivered")
				}
				message[x] = verb == "DATA" && x.accepted()
			}
		})},
		{why: "it writes line by line", want: "pieces: replies-in-pieces, " + anyPath, serve: servertest.Strict(servertest.LineByLine())},
		{why: "its lines have 512 octets", want: "long-commands: splits-long-commands", serve: change(func(o *odd) {
			o.readLine = func(x *oddSession) (string, error) {
				var line []byte
				for len(line) < 512 {
					b, err := x.r.ReadByte()
					if line = append(line, b); err != nil || b == '\n' {
						return strings.TrimRight(string(line), "\r\n"), err
					}
				}
				return string(line), nil
			}
		})},
		{why: "it takes the first path that it finds", want: "paths: takes-two-paths", trial: Trial{RefusedRecipient: "no@example.org"}, serve: change(func(o *odd) {
			o.path = func(_ *oddSession, args string) (string, bool) {
				_, rest, open := strings.Cut(args, "<")
				to, _, ok := strings.Cut(rest, ">")
				return to, open && ok && !strings.Contains(args, "ORCPT")
			}
		})},
		{why: "it takes the original recipient", want: "paths: takes-another-path", trial: Trial{RefusedRecipient: "no@example.org"}, serve: change(func(o *odd) {
			o.path = func(_ *oddSession, args string) (string, bool) {
				if _, to, ok := strings.Cut(args, "> ORCPT=rfc822;"); ok {
					return to, true
				}
				if m := toPath.FindStringSubmatch(args); m != nil {
					return m[1], true
				}
				return "", false
			}
		})},

		{why: "it wants a *tls.Conn", want: "auth: wants-tls-conn", serve: change(func(o *odd) {
			o.command["EHLO"] = func(x *oddSession, _ string) {
				if x.reset(); x.inTLS() {
					x.reply("250-odd.example", "250 AUTH PLAIN")
				} else {
					x.reply("250-odd.example", "250 PIPELINING")
				}
			}
		})},
		{why: "it lets everybody in", want: "auth: cancel-succeeds", serve: change(func(o *odd) {
			o.command["AUTH"] = func(x *oddSession, _ string) {
				if x.reply("334 "); x.heard() {
					x.reply("235 2.7.0 welcome")
				}
			}
		})},
		{why: "it lets in who says nothing", want: "timeouts: succeeds-without-response", serve: change(func(o *odd) {
			o.failed = func(x *oddSession, where string, _ error) {
				if x.over = true; where == "SASL" {
					x.reply("235 2.7.0 welcome")
				}
			}
		})},

		{why: "it knows no RSET", want: "envelope: refuses-rset", serve: change(func(o *odd) { o.command["RSET"] = says("502 5.5.1 no") })},
		{why: "it does nothing at RSET", want: "envelope: keeps-over-rset", serve: change(func(o *odd) { o.command["RSET"] = says("250 2.0.0 yes") })},
		{why: "it adds recipients to recipients", want: "envelope: keeps-recipients", serve: change(func(o *odd) {
			o.behind = func(x *oddSession, verb string) {
				x.kept = x.kept || verb == "DATA" && x.accepted()
				if x.kept && verb == "MAIL" {
					x.to++
				}
			}
		})},
		{why: "it does nothing at EHLO", want: anyPath + ", envelope: keeps-over-ehlo", serve: servertest.Strict(servertest.KeepOverHello())},
		{why: "it keeps all behind a message", want: "envelope: keeps-behind-message", serve: change(func(o *odd) {
			o.command["MAIL"] = func(x *oddSession, args string) {
				if x.kept {
					x.reset()
				}
				x.execute("MAIL", args)
			}
			o.behind = func(x *oddSession, verb string) {
				if x.kept = verb == "DATA" && x.accepted(); x.kept {
					x.from, x.to = true, 1
				}
			}
		})},
		{why: "it keeps all behind a message that it has refused", want: anyPath + ", envelope: keeps-behind-refusal", trial: large,
			serve: servertest.Strict(servertest.KeepEnvelope())},
		{why: "it takes recipients at any time", want: anyPath + ", envelope: takes-rcpt-first", serve: servertest.Strict(servertest.RecipientsFirst())},
		{why: "it takes senders at any time", want: anyPath + ", envelope: takes-mail-within", serve: servertest.Strict(servertest.MailAnew())},
		{why: "it forgets all at a refused EHLO", want: anyPath + ", envelope: forgets-at-refused-helo", trial: Trial{RefusedHost: "nohost"},
			serve: servertest.Strict(servertest.DropAtRefusedHello())},

		{why: "it sees no end in an empty message", want: "message-end: misses-end", serve: change(func(o *odd) {
			o.content = func(x *oddSession) error {
				empty := true
				return readsContent(func(x *oddSession, line string, _ int) bool {
					if line == "." && !empty {
						x.statuses("250 2.0.0 taken")
						return true
					}
					empty = line == "." && empty
					return false
				})(x)
			}
		})},
		{why: "it ends a message at QUIT", want: "message-end: ends-elsewhere", serve: change(func(o *odd) {
			o.content = readsContent(func(x *oddSession, line string, _ int) bool {
				if line == "." || line == "QUIT" {
					x.statuses("250 2.0.0 taken")
				}
				return x.to == 0
			})
		})},
		{why: "it takes a CR for the end of a line, unless there is a LF behind", want: "message-end: looks-past-end, message-end: ends-at-bare-newlines", serve: change(func(o *odd) {
			o.content = func(x *oddSession) error {
				x.conn.SetReadDeadline(time.Now().Add(time.Minute))
				for line := []byte(nil); ; {
					b, err := x.r.ReadByte()
					if err != nil {
						return err
					}
					switch next, _ := byte(0), error(nil); b {
					case '\r':
						if peeked, err := x.r.Peek(1); err != nil {
							return err
						} else {
							next = peeked[0]
						}
						if next != '\n' && string(line) == "." {
							x.statuses("250 2.0.0 taken")
							return nil
						}
						if next != '\n' {
							line = nil
							continue
						}
						line = append(line, b)
					case '\n':
						if string(line) == ".\r" {
							x.statuses("250 2.0.0 taken")
							return nil
						}
						if line = append(line, b); bytes.HasSuffix(line, []byte("\r\n")) {
							line = nil
						}
					default:
						line = append(line, b)
					}
				}
			}
		})},
		{why: "it takes LF for CRLF", want: anyPath + ", message-end: ends-at-bare-newlines", serve: servertest.Lenient()},
		{why: "it trims lines", want: anyPath + ", message-end: ends-at-odd-dots", serve: servertest.Strict(servertest.TrimDot())},
		{why: "its buffer has 4,096 octets, beyond which it gives up", want: "long-lines: gives-up-long-lines", serve: change(func(o *odd) {
			o.content = func(x *oddSession) error {
				for clean := true; ; {
					line, err := x.r.ReadSlice('\n')
					switch {
					case errors.Is(err, bufio.ErrBufferFull):
						return nil
					case err != nil:
						return err
					case string(line) == ".\r\n" && clean:
						x.statuses("250 2.0.0 taken")
						return nil
					}
					clean = bytes.HasSuffix(line, []byte("\r\n"))
				}
			}
		})},
		{why: "it refuses lines of more than 1,000 octets, and closes", want: "long-lines: refuses-long-lines", serve: change(func(o *odd) {
			o.content = readsContent(func(x *oddSession, line string, _ int) bool {
				switch {
				case len(line)+2 > 1000:
					x.reply("500 5.5.2 too long a line")
					x.over = true
				case line == ".":
					x.statuses("250 2.0.0 taken")
				}
				return x.over || x.to == 0
			})
		})},
		{why: "it refuses a message in the midst of a line", want: "refused-message: rest-of-line-is-command", serve: change(func(o *odd) {
			o.content = func(x *oddSession) error {
				var last string
				for octets := 0; octets < 100050; octets++ {
					b, err := x.r.ReadByte()
					if err != nil {
						return err
					}
					if last += string(b); len(last) > 5 {
						last = last[1:]
					}
					if last == "\r\n.\r\n" || octets == 2 && last == ".\r\n" {
						x.statuses("250 2.0.0 taken")
						return nil
					}
				}
				x.statuses("552 5.3.4 too big")
				return nil
			}
		})},
		{why: "it reads commands behind a message that it refuses early", want: anyPath + ", message-end: ends-at-bare-newlines, refused-message: rest-is-commands", trial: large,
			serve: servertest.EarlyRefuser(400_000)},
		{why: "it refuses a message early, and reads on", want: anyPath + ", message-end: ends-at-bare-newlines, refused-message: refuses-early", trial: large,
			serve: servertest.EarlyRefuser(400_000, servertest.ReadOn())},
		{why: "it takes all that it has read for commands", want: "refused-message: rest-is-commands, refused-message: unsafe-in-bulk", trial: refuses, serve: change(func(o *odd) {
			o.content = readsContent(func(x *oddSession, line string, _ int) bool {
				switch line {
				case "refuse":
					x.statuses("550 5.7.1 refused")
				case ".":
					x.statuses("250 2.0.0 taken")
				}
				return x.to == 0
			})
		})},
		{why: "it accepts a message at its first 99,000 octets", want: "refused-message: accepts-early, refused-message: unsafe-in-bulk", serve: change(func(o *odd) {
			o.content = readsContent(func(x *oddSession, line string, octets int) bool {
				if octets > 99_000 || line == "." {
					x.statuses("250 2.0.0 taken")
				}
				return x.to == 0
			})
		})},

		{why: "it drops a message that it doesn't like without a word", want: "refused-message: no-reply", trial: refuses, serve: change(func(o *odd) {
			o.content = readsContent(func(x *oddSession, line string, octets int) bool {
				x.kept = x.kept || line == "refuse"
				if line == "." && !x.kept {
					x.statuses("250 2.0.0 taken")
				}
				return line == "."
			})
		})},

		{why: "it answers BDAT at once", want: anyPath + ", chunks: answers-bdat-early", serve: servertest.Strict(servertest.AnswerChunksFirst())},
		{why: "it knows no BDAT, and says it does", want: "chunks: refuses-bdat", serve: change(func(o *odd) { o.command["BDAT"] = says("502 5.5.1 no") })},
		{why: "it takes a refused chunk for commands", want: "chunks: chunk-is-commands, chunks: refuses-chunk-early", trial: refuses, serve: change(func(o *odd) {
			o.content = readsContent(func(x *oddSession, line string, _ int) bool {
				if line == "refuse" {
					x.to = -1
				}
				if line == "." && x.to < 0 {
					x.to = 0
					x.statuses("550 5.7.1 refused")
				} else if line == "." {
					x.statuses("250 2.0.0 taken")
				}
				return line == "."
			})
			o.chunk = func(x *oddSession, octets int, last bool) {
				begun, _ := x.r.Peek(6)
				if string(begun) == "refuse" {
					x.r.Discard(8)
					x.statuses("550 5.7.1 refused")
					return
				}
				if _, err := io.CopyN(io.Discard, x.r, int64(octets)); err != nil {
					x.over = true
				} else if x.to > 0 {
					x.statuses("250 2.0.0 taken")
				}
			}
		})},
		{why: "it reads a line end behind a chunk", want: "chunks: reads-past-chunk", serve: change(func(o *odd) {
			o.chunk = func(x *oddSession, octets int, _ bool) {
				if _, err := io.CopyN(io.Discard, x.r, int64(octets)+2); err != nil {
					x.over = true
					return
				}
				x.statuses("250 2.0.0 taken")
			}
		})},
		{why: "it goes on when it can't read", want: anyPath + ", timeouts: gives-up-content, timeouts: gives-up-chunk, timeouts: gives-up-sasl",
			serve: servertest.Strict(servertest.GiveUp())},
		{why: "it takes any error for the end of a message", want: "timeouts: accepts-cut-message, cut-off: accepts-cut-message, cut-off: takes-eof-for-end", serve: change(func(o *odd) {
			o.failed = func(x *oddSession, where string, _ error) {
				if x.over = true; where == "content" {
					x.reply("250 2.0.0 taken")
				}
			}
		})},
		{why: "it has one status for all", want: "statuses: statuses-missing", trial: Trial{LMTP: true, Timeout: 300 * time.Millisecond}, serve: change(func(o *odd) {
			o.lmtp = true
			o.behind = func(*oddSession, string) {}
			o.content = readsContent(func(x *oddSession, line string, _ int) bool {
				if line == "." {
					x.to = 1
					x.statuses("250 2.0.0 taken")
				}
				return line == "."
			})
		})},
	}
}

// onlyOne accepts once.
type onlyOne struct{ servable }

func (o onlyOne) Serve(l net.Listener) error {
	return o.servable.Serve(&firstOnly{Listener: l})
}

type firstOnly struct {
	net.Listener
	accepted bool
}

func (l *firstOnly) Accept() (net.Conn, error) {
	if !l.accepted {
		l.accepted = true
		return l.Listener.Accept()
	}
	<-l.Listener.(*stages).done
	return nil, net.ErrClosed
}

// tried tells what was found, and by which question.
func found(r Report) string {
	var all []string
	for _, result := range r.Results {
		for _, f := range result.Findings {
			all = append(all, result.Probe+": "+f.Name)
		}
	}
	return strings.Join(all, ", ")
}

func TestEachBadServerIsFoundOutByTheQuestionThatIsAboutIt(t *testing.T) {
	ruled := make(map[string]bool)
	var texts strings.Builder
	for _, bad := range badServers() {
		t.Run(bad.why, func(t *testing.T) {
			defer bad.serve.Close()
			if bad.trial.MaxMessage == 0 {
				bad.trial.MaxMessage = 200_000 // what takes less time
			}
			bad.trial.Grace = 20 * time.Millisecond
			r := bad.trial.Report(bad.serve.Serve)
			if got := found(r); got != bad.want {
				t.Errorf("found: %s\nwant:  %s", got, bad.want)
				for _, f := range r.Findings() {
					t.Log(f)
				}
			}
			fmt.Fprintf(&texts, "# A server: %s.\n\n", bad.why)
			for _, f := range r.Findings() {
				if !ruled[f.Name] {
					fmt.Fprintf(&texts, "%s\n\n", f)
				}
				ruled[f.Name] = true
			}
		})
	}
	if t.Failed() {
		return
	}
	for name := range rulings {
		if !ruled[name] && name != "takes-eof-for-end" {
			t.Errorf("no bad server of this test is found to be one that %s", name)
		}
	}
	golden(t, "testdata/trial.golden", texts.String())
}

// golden holds a text against a file. With PROXYTEST_UPDATE=1 it writes the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if os.Getenv("PROXYTEST_UPDATE") != "" {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		i := 0
		for i < min(len(gotLines), len(wantLines)) && gotLines[i] == wantLines[i] {
			i++
		}
		t.Errorf("%s:%d differs: run the test with PROXYTEST_UPDATE=1 and look at the difference\ngot %q", name, i+1, gotLines[min(i, len(gotLines)-1)])
	}
}

// recorder is a testing.TB that has no subtests.
type recorder struct {
	testing.TB
	errors, logs []string
}

func (r *recorder) Helper() {}

func (r *recorder) Error(args ...any) { r.errors = append(r.errors, fmt.Sprint(args...)) }

func (r *recorder) Log(args ...any) { r.logs = append(r.logs, fmt.Sprint(args...)) }

func (r *recorder) Logf(format string, args ...any) { r.Log(fmt.Sprintf(format, args...)) }

func TestNothingIsFoundAboutAGoodServer(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		t.Run(fmt.Sprintf("LMTP %t", lmtp), func(t *testing.T) {
			good := newOdd(func(o *odd) { o.lmtp = lmtp })
			defer good.Close()
			trial := Trial{LMTP: lmtp, RefusedRecipient: "no@example.org", Username: "user", Password: "pass"}
			begin := time.Now()
			r := trial.Run(t, good.Serve)
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			if got := found(r); got != "" {
				t.Errorf("found: %s", got)
			}
			for _, result := range r.Results {
				if result.Answer == "" || result.Question == "" {
					t.Errorf("no answer: %+v", result)
				}
			}
		})
	}
}

func TestViolationsAreErrorsAndNotesAreLogged(t *testing.T) {
	for _, tt := range []struct {
		why    string
		server servable
		errors string // what the first error begins with
		log    string // what is logged
	}{
		{"a good server", newOdd(func(*odd) {}), "", "Does it greet before it reads? Yes."},
		{"a violation", newOdd(func(o *odd) { o.command["HELP"] = says("214 a", "214 b") }), "many-replies (violation): ", "Does it answer each command once? No."},
		{"a note", newOdd(func(o *odd) { o.keywords = []string{"250-STARTTLS"} }), "", "offers-starttls (note): "},
		{"what can't be tried", newOdd(func(o *odd) { o.command["MAIL"] = says("550 no") }), "untried (untried): ", "Not tried: the server doesn't accept MAIL"},
	} {
		r := new(recorder)
		Trial{MaxMessage: 1 << 10}.Run(r, tt.server.Serve)
		switch {
		case tt.errors == "" && len(r.errors) > 0, tt.errors != "" && (len(r.errors) != 1 || !strings.HasPrefix(r.errors[0], tt.errors)):
			t.Errorf("%s: errors %q, want %q", tt.why, r.errors, tt.errors)
		case !slices.ContainsFunc(r.logs, func(line string) bool { return strings.Contains(line, tt.log) }):
			t.Errorf("%s: %q isn't logged: %q", tt.why, tt.log, r.logs)
		}
		tt.server.Close()
	}
}

func TestAServerThatCannotServeEndsTheTrial(t *testing.T) {
	for why, serve := range map[string]func(net.Listener) error{
		"an error":           func(net.Listener) error { return errors.New("no port") },
		"no error":           func(net.Listener) error { return nil },
		"an ended goroutine": func(net.Listener) error { new(testing.T).FailNow(); return nil },
		"a closed listener":  func(l net.Listener) error { return l.Close() },
		"a closed listener, and some more to do": func(l net.Listener) error {
			defer time.Sleep(50 * time.Millisecond)
			return l.Close()
		},
		"a refusal": func(l net.Listener) error {
			for {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				io.WriteString(c, "554 not you\r\n")
				c.Close()
			}
		},
	} {
		begin := time.Now()
		r := Trial{}.Report(serve)
		if got := found(r); got != "greeting: untried" {
			t.Errorf("%s: found %s", why, got)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("%s: it took %v", why, d)
		}
	}
}

// A server may do nothing for ever, or something.
func TestATrialEndsWhateverTheServerDoes(t *testing.T) {
	for why, handle := range map[string]func(c net.Conn, done chan struct{}){
		"it is silent": func(_ net.Conn, done chan struct{}) { <-done },
		// Up to the end of the trial, which closes what is open, and not as fast as it can.
		"it reads again and again": func(c net.Conn, _ chan struct{}) {
			io.WriteString(c, "220 x\r\n")
			for range 5000 {
				if _, err := c.Read(make([]byte, 10)); errors.Is(err, net.ErrClosed) {
					return
				}
			}
			t.Error("it reads again and again, and nobody minds")
		},
		"it greets again and again": func(c net.Conn, _ chan struct{}) {
			for range 1000 {
				if _, err := io.WriteString(c, "220 x\r\n"); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		},
		"it says yes to everything": func(c net.Conn, _ chan struct{}) {
			io.WriteString(c, "220 x\r\n")
			for s := bufio.NewScanner(c); s.Scan(); {
				io.WriteString(c, "250 x\r\n")
			}
		},
	} {
		done, begin := make(chan struct{}), time.Now()
		var conns sync.WaitGroup
		r := Trial{Timeout: 20 * time.Millisecond, Grace: time.Millisecond, MaxMessage: 1 << 10}.Report(func(l net.Listener) error {
			for {
				c, err := l.Accept()
				if err != nil {
					return err
				}
				conns.Go(func() {
					defer c.Close()
					handle(c, done)
				})
			}
		})
		close(done)
		conns.Wait()
		if found(r) == "" {
			t.Errorf("%s: nothing is found", why)
		}
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("%s: it took %v", why, d)
		}
	}
}

func TestATrialLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	good := newOdd(func(*odd) {})
	Trial{MaxMessage: 1 << 10}.Report(good.Serve)
	good.Close()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines more\n%s", runtime.NumGoroutine()-before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAReportTellsWhatItIsAskedFor(t *testing.T) {
	note, violation := Finding{Name: "a", Grade: Note}, Finding{Name: "b", Grade: Violation}
	r := Report{[]Result{{Probe: "one", Findings: []Finding{note}}, {Probe: "two", Findings: []Finding{violation}}}}
	if got := r.Findings(); !slices.Equal(got, []Finding{note, violation}) {
		t.Errorf("findings: %+v", got)
	}
	if got := r.Result("two"); len(got.Findings) != 1 || got.Findings[0] != violation {
		t.Errorf("result: %+v", got)
	}
	if got := r.Result("three"); got.Probe != "" {
		t.Errorf("no result: %+v", got)
	}
	for g, want := range map[Grade]string{Note: "note", Violation: "violation", Untried: "untried", 7: "Grade(7)"} {
		if got := g.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
