package e2e

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// This file has servers that misbehave, at each step of the dialogue.

// reciter is a server whose replies have numbers. Instead of the reply with
// number at, it does something else.
type reciter struct {
	net.Conn
	r       *bufio.Reader
	at      int
	misstep misstep
	early   bool // it replies instead before it has read what it is to reply to
	number  int
}

// misstep does what it does instead of writing a reply. It returns false if the
// server closes then.
type misstep func(s *reciter, reply string) (goesOn bool)

// serve recovers from panics, as net/http does. That is how it is left, too.
func (s *reciter) serve() {
	defer func() { recover() }()
	s.say("220 %d hello", s.number)
	for {
		s.SetReadDeadline(time.Now().Add(time.Minute))
		line, err := s.r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "EHLO":
			s.say("250-%d x\r\n250 CHUNKING", s.number)
		case "AUTH":
			s.say("334 bW9yZQ==")
			s.read(func() { s.r.ReadString('\n') }, "235 %d welcome")
		case "DATA":
			s.say("354 %d go on", s.number)
			s.read(func() {
				for line != ".\r\n" && err == nil {
					line, err = s.r.ReadString('\n')
				}
			}, "250 %d taken")
		case "BDAT":
			size := 0
			fmt.Sscanf(line, "BDAT %d", &size)
			s.read(func() { io.CopyN(io.Discard, s.r, int64(size)) }, "250 %d chunk")
		case "QUIT":
			s.say("221 %d bye", s.number)
			return
		default:
			s.say("250 %d done", s.number)
		}
	}
}

// read reads what belongs to a command, and replies.
func (s *reciter) read(what func(), reply string) {
	if early := s.early && s.number == s.at; early {
		s.say(reply, s.number)
		what()
		return
	}
	what()
	s.say(reply, s.number)
}

func (s *reciter) say(format string, args ...any) {
	reply := fmt.Sprintf(format, args...) + "\r\n"
	act := write
	if s.number == s.at {
		act = s.misstep
	}
	if s.number++; !act(s, reply) {
		panic("closing")
	}
}

func write(s *reciter, what string) bool {
	_, err := io.WriteString(s, what)
	return err == nil
}

// wrong is a way to go wrong.
type wrong struct {
	name string
	misstep
	legal []int // steps where it is none, or where the replies behind it are others
}

// A second reply to a message with two recipients (step 9) may be the second
// recipient's.
var missteps = []wrong{
	{"it replies before it has read", write, nil},
	{"it refuses before it has read", func(s *reciter, _ string) bool { return write(s, "550 refused\r\n") }, []int{5, 8, 10, 11}},
	{"it panics", func(*reciter, string) bool { panic("no") }, nil},
	{"it closes early", func(*reciter, string) bool { return false }, nil},
	{"it replies and closes", func(s *reciter, reply string) bool { write(s, reply); return false }, nil},
	{"it writes half a reply and closes", func(s *reciter, reply string) bool { write(s, reply[:len(reply)/2]); return false }, nil},
	{"it writes half a reply and panics", func(s *reciter, reply string) bool { write(s, reply[:len(reply)/2]); panic("no") }, nil},
	{"it replies twice", func(s *reciter, reply string) bool { return write(s, reply+reply) }, []int{9}},
	{"it replies twice, in two writes", func(s *reciter, reply string) bool {
		write(s, reply)
		return write(s, reply)
	}, []int{9}},
	{"it replies twice, and writes on whatever happens", func(s *reciter, reply string) bool { write(s, reply); write(s, reply); return true }, []int{9}},
	{"it replies three times", func(s *reciter, reply string) bool { return write(s, reply+reply+reply) }, []int{9}},
	{"garbage", func(s *reciter, _ string) bool { return write(s, "\x00garbage\r\n") }, nil},
	{"garbage, and writes on whatever happens", func(s *reciter, reply string) bool { write(s, "garbage\r\n"); write(s, reply); return true }, nil},
	{"garbage without end", func(s *reciter, _ string) bool { return write(s, strings.Repeat("2", 70_000)) }, nil},
	{"garbage behind the reply", func(s *reciter, reply string) bool { return write(s, reply+"garbage\r\n") }, nil},
	{"a greeting", func(s *reciter, _ string) bool { return write(s, "220 again\r\n") }, []int{0}},
	{"a request for content", func(s *reciter, _ string) bool { return write(s, "354 content?\r\n") }, nil},
	{"a request for something else", func(s *reciter, _ string) bool { return write(s, "350 go on\r\n") }, nil},
	{"a challenge", func(s *reciter, _ string) bool { return write(s, "334 AAAA\r\n") }, []int{3}},
	{"a last word", func(s *reciter, _ string) bool { return write(s, "421 leaving\r\n") }, nil},
	{"it refuses", func(s *reciter, _ string) bool { return write(s, "550 refused\r\n") }, []int{5, 8, 9, 10, 11, 12}},
	{"it never replies, and reads on", func(s *reciter, _ string) bool {
		s.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := s.r.ReadByte()
		return err == nil
	}, nil},
	{"it never replies", func(s *reciter, _ string) bool { time.Sleep(time.Minute); return false }, nil},              // in a bubble
	{"it replies late", func(s *reciter, reply string) bool { time.Sleep(time.Minute); return write(s, reply) }, nil}, // in a bubble
	{"it replies in octets", func(s *reciter, reply string) bool {
		return !slices.ContainsFunc(strings.Split(reply, ""), func(octet string) bool { return !write(s, octet) })
	}, nil},
}

// recited is what its client sends. Its hook answers HELP.
var recited = []turn{{send: "", replies: 1}, {send: "EHLO x\r\n", replies: 1}, {send: "AUTH PLAIN\r\n", replies: 1}, {send: "AAAA\r\n", replies: 1},
	{send: "NOOP\r\nHELP 1\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n", replies: 6}, {send: "NOOP\r\nx\r\n.\r\n", replies: 1},
	{send: "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nHELP 2\r\nBDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nRSET\r\n", replies: 5},
	{send: "RSET\r\nHELP 3\r\nNOOP\r\nQUIT\r\n", replies: 4}}

// recite plays a session and returns the replies, and the commands that reached
// the hook.
func recite(t *testing.T, at int, m wrong, ahead bool) (replies []string, rest string, hook *answerHelp, took time.Duration) {
	hook = &answerHelp{}
	ended := make(chan struct{})
	tr := overPipe(t)
	l := (&smtpproxy.Proxy{Hook: hook}).Listener(tr)
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		ear := &eavesdropper{hook: &hook.passLog, Conn: c}
		(&reciter{Conn: ear, r: bufio.NewReader(ear), at: at, misstep: m.misstep, early: strings.HasSuffix(m.name, "before it has read")}).serve()
		if ear.problem != "" {
			t.Error(ear.problem)
		}
	}()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	replies, rest = chat(c, recited, ahead)
	took = time.Since(start)
	<-ended
	tr.Close()
	return replies, rest, hook, took
}

func TestAServerMayMisbehaveAtAnyStep(t *testing.T) {
	var want []string
	synctest.Test(t, func(t *testing.T) { want, _, _, _ = recite(t, -1, wrong{}, false) })
	if len(want) != 20 {
		t.Fatalf("got %q", want)
	}
	for _, m := range missteps {
		t.Run(m.name, func(t *testing.T) {
			for at := range 17 { // three of the replies are the hook's
				if slices.Contains(m.legal, at) {
					continue
				}
				for _, ahead := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						got, rest, hook, took := recite(t, at, m, ahead)
						if problem := misplacedBy(m.name, got, rest, want); problem != "" {
							t.Errorf("at step %d, ahead %t: %s\ngot  %q\nwant %q\nthe hook passed %q", at, ahead, problem, got, want, hook.passed())
						}
						if took > 2*time.Minute {
							t.Errorf("at step %d: it takes %v", at, took)
						}
					})
				}
			}
		})
	}
}

// misplacedBy is misplaced, but for a reply that the server made up itself.
func misplacedBy(name string, got []string, rest string, want []string) string {
	if i := slices.IndexFunc(got, func(g string) bool { return g == "354 content?\r\n" || g == "350 go on\r\n" || g == "334 AAAA\r\n" }); i >= 0 {
		// The client has it in the place of the reply that was due.
		got = slices.Clone(got)
		got[i] = want[i]
	}
	return misplaced(got, rest, want)
}

// panicky is a go-smtp backend whose at-th call panics.
type panicky struct {
	calls *atomic.Int64
	at    int64
}

func (p panicky) call() {
	if p.calls.Add(1) == p.at {
		panic("the backend is broken")
	}
}

func (p panicky) NewSession(*smtp.Conn) (smtp.Session, error) { p.call(); return p, nil }
func (p panicky) AuthMechanisms() []string                    { p.call(); return []string{sasl.Plain} }
func (p panicky) Mail(string, *smtp.MailOptions) error        { p.call(); return nil }
func (p panicky) Rcpt(string, *smtp.RcptOptions) error        { p.call(); return nil }
func (p panicky) Reset()                                      { p.call() }
func (p panicky) Logout() error                               { return nil } // a panic there ends the process, by go-smtp
func (p panicky) Auth(string) (sasl.Server, error) {
	p.call()
	return sasl.NewPlainServer(func(string, string, string) error { p.call(); return nil }), nil
}
func (p panicky) Data(r io.Reader) error {
	p.call()
	io.CopyN(io.Discard, r, 5)
	p.call()
	_, err := io.Copy(io.Discard, r)
	p.call()
	return err
}

func TestABackendOfGoSMTPMayPanicAtAnyCall(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		name := "go-smtp"
		if lmtp {
			name = "go-smtp, LMTP"
		}
		for _, ahead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ahead %t", name, ahead), func(t *testing.T) {
				base()
				var want []string
				for at := int64(0); ; at++ {
					goroutines, descriptors := runtime.NumGoroutine(), openFiles()
					calls := new(atomic.Int64)
					srv := smtp.NewServer(panicky{calls, at})
					srv.LMTP, srv.AllowInsecureAuth = lmtp, true
					srv.ErrorLog = log.New(io.Discard, "", 0)
					tr := overTCP(t)
					served := make(chan error, 1)
					go func() { served <- srv.Serve((&smtpproxy.Proxy{Hook: &answerHelp{}}).Listener(tr)) }()
					c, err := tr.dial()
					if err != nil {
						t.Fatal(err)
					}
					c.SetDeadline(time.Now().Add(patience))
					got, rest := chat(c, played(name), ahead)
					srv.Close()
					<-served
					leavesNothing(t, goroutines, descriptors)
					if at == 0 {
						want = got
					}
					if problem := misplaced(got, rest, want); problem != "" {
						t.Fatalf("at call %d: %s\ngot  %q\nwant %q", at, problem, got, want)
					}
					if at > calls.Load() {
						if !slices.Equal(got, want) || at < 12 {
							t.Errorf("without a panic, in %d calls, got %q", at-1, got)
						}
						return
					}
					if at > 0 && slices.Equal(got, want) {
						t.Errorf("a panic at call %d, and nobody noticed", at)
					}
				}
			})
		}
	}
}

// A server that was told that the client is gone, and that doesn't close.
func TestAConnectionThatTheLibraryEndsIsClosedWhateverTheServerDoes(t *testing.T) {
	for _, tt := range []struct {
		why string
		p   smtpproxy.Proxy
	}{
		{"the hook fails", smtpproxy.Proxy{Hook: decide(func(command) (decision, error) { return nil, errTest })}},
		{"the hook disconnects", smtpproxy.Proxy{Hook: always(reply{Disconnect: true})}},
		{"the client is refused", smtpproxy.Proxy{MaxLineLength: 2}},
		{"the server's reply fits no command", smtpproxy.Proxy{}},
	} {
		raw := make(chan *faultyConn, 1)
		tr := newTransport(true, func() (server, client net.Conn, err error) {
			server, client, err = connectTCP()
			f := newFaultyConn(server, fault{}, 0)
			raw <- f
			return f, client, err
		})
		c := runScript(t, tr, &tt.p, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			for b, over := make([]byte, 100), false; !over; {
				_, err := c.Read(b)
				over = err != nil
				io.WriteString(c, "354 x\r\n")
			}
			select {
			case <-(<-raw).closed:
			case <-time.After(patience):
				t.Errorf("%s: the connection is open", tt.why)
			}
		})
		c.send("NOOP\r\n")
		c.expect("220")
		io.Copy(io.Discard, c.r)
		c.Close()
	}
}
