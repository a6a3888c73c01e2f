package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about a KeywordHook that fails, takes its time, or is overtaken by the end.

// listFailure is a way in which it fails.
type listFailure struct {
	why     string
	fail    func(ctx *hookContext, kw *keywords) error
	timeout time.Duration
	cause   error
}

var listFailures = []listFailure{
	{"an error", func(*hookContext, *keywords) error { return errTest }, 0, errTest},
	{"an error, with a time of its own", func(*hookContext, *keywords) error { return errTest }, time.Hour, errTest},
	{"an error behind a change", func(_ *hookContext, kw *keywords) error { kw.Delete("SIZE"); return errTest }, 0, errTest},
	{"a panic", func(*hookContext, *keywords) error { panic("no") }, 0, smtpproxy.ErrHookPanic},
	{"a panic with nil", func(*hookContext, *keywords) error { panic(nil) }, 0, smtpproxy.ErrHookPanic},
	{"a panic, with a time of its own", func(*hookContext, *keywords) error { panic("no") }, time.Hour, smtpproxy.ErrHookPanic},
	{"the end of its goroutine", func(*hookContext, *keywords) error { runtime.Goexit(); return nil }, 0, smtpproxy.ErrHookExit},
	{"the end of its goroutine, with a time of its own", func(*hookContext, *keywords) error { runtime.Goexit(); return nil }, time.Hour, smtpproxy.ErrHookExit},
	{"too long a time", func(ctx *hookContext, _ *keywords) error { <-ctx.Done(); return nil }, time.Millisecond, smtpproxy.ErrHookTimeout},
	{"a list that can't be sent", func(_ *hookContext, kw *keywords) error { kw.Set("X\r\n250", ""); return nil }, 0, smtpproxy.ErrInvalidDecision},
}

// proxy returns a Proxy whose second hook fails, and one that must not be asked behind it.
func (f listFailure) proxy(t *testing.T, log *logbook) *smtpproxy.Proxy {
	failing := smtpproxy.Funcs{OnKeywords: func(ctx *hookContext, _ connection, kw *keywords) error { return f.fail(ctx, kw) }}
	return &smtpproxy.Proxy{
		Hook: smtpproxy.Chain(
			smtpproxy.Named("lister", deletes("ETRN")),
			smtpproxy.Named("failing", failing),
			onKeywords(func(*keywords) error { t.Error("asked behind a failure"); return nil }),
		),
		HookTimeout: f.timeout,
		Logger:      log.logger(),
		OnFailure: func(*hookContext, smtpproxy.Failure) decision {
			t.Error("OnFailure is asked, though the server has accepted the command")
			return pass{}
		},
	}
}

// check looks for the line in the log.
func (f listFailure) check(t *testing.T, log *logbook) {
	t.Helper()
	lines := log.lines("hook failed")
	if len(lines) != 1 || lines[0].attrs["hook"] != "failing" || lines[0].attrs["error"] == "" || (lines[0].attrs["stack"] != "") != (f.cause == smtpproxy.ErrHookPanic) {
		t.Errorf("logged: %v", log.lines(""))
	}
}

// What the hook wanted to close would be open: so the client gets 421, and no list.
func TestAListThatAHookFailsAtIsA421AndTheEnd(t *testing.T) {
	for _, f := range listFailures {
		for _, greet := range []string{"EHLO x", "HELO x", "LHLO x"} {
			t.Run(f.why+", "+greet+", listener", func(t *testing.T) {
				log, read := new(logbook), make(chan error, 1)
				// What a server writes with, it also reads with, but for a goroutine
				// that the hook ends.
				c := runScript(t, overTCP(t), f.proxy(t, log), func(c net.Conn) {
					io.WriteString(c, "220 x\r\n")
					r := bufio.NewReader(c)
					r.ReadString('\n')
					wrote := make(chan struct{})
					go func() {
						defer close(wrote)
						io.WriteString(c, "250-x\r\n250 SIZE\r\n")
					}()
					<-wrote
					line, err := r.ReadString('\n')
					if line != "" {
						t.Errorf("the server got %q", line)
					}
					read <- err
				})
				c.expect("220")
				c.send(greet + "\r\nNOOP injected\r\n")
				if got := c.reply(); got+"\r\n" != lost {
					t.Errorf("the client got %q", got)
				}
				c.expectEnd()
				c.Close()
				if err := <-read; err != io.EOF && (f.cause != smtpproxy.ErrHookExit || err == nil) {
					t.Errorf("the server got %v, not EOF", err)
				}
				f.check(t, log)
			})
			t.Run(f.why+", "+greet+", session", func(t *testing.T) {
				log := new(logbook)
				s := f.proxy(t, log).NewSession(connection{})
				s.Command(t.Context(), greet)
				var r reply
				done := make(chan struct{})
				go func() {
					defer close(done)
					r = s.Replied(250, "x", "SIZE")
				}()
				<-done
				if exits := f.cause == smtpproxy.ErrHookExit && f.timeout == 0; !exits && (r.String()+"\r\n" != lost || !r.Disconnect) {
					t.Errorf("the client gets %q", r)
				}
				if s.Context().Err() == nil {
					t.Error("the session goes on")
				}
				if d, ok := s.Command(t.Context(), "NOOP").(reply); !ok || d.Code != 421 {
					t.Errorf("the session passes %v", d)
				}
				f.check(t, log)
			})
		}
		if f.cause == smtpproxy.ErrHookExit && f.timeout == 0 {
			continue // it would end the test
		}
		t.Run(f.why+", fake session", func(t *testing.T) {
			log := new(logbook)
			s := proxytest.NewSession(f.proxy(t, log))
			s.Send("EHLO x")
			if s.Reply().String()+"\r\n" != lost || !s.Closed() {
				t.Errorf("the client gets %q", s.Reply())
			}
			var failure smtpproxy.Failure
			if !errors.As(s.Failure(), &failure) || failure.Hook != "failing" || !errors.Is(failure, f.cause) {
				t.Errorf("failed with %v", s.Failure())
			}
			f.check(t, log)
		})
	}
}

// With go-smtp, the session of the backend ends, and nothing is left.
func TestGoSMTPEndsItsSessionWhenAListFails(t *testing.T) {
	for _, f := range listFailures {
		t.Run(f.why, func(t *testing.T) {
			leaveNothing(t)
			s := behindGoSMTP(f.proxy(t, new(logbook)))
			c := s.connect(t, overTCP(t))
			c.expect("220")
			c.send("EHLO x\r\nMAIL FROM:<a@b>\r\n")
			c.expect("421 4.3.0")
			c.expectEnd()
			s.close()
			if rec := s.Record(); rec.Sessions != 1 || rec.Ended != 1 || !slices.Equal(rec.Commands, []string{"LOGOUT"}) {
				t.Errorf("%d sessions, %d ended, executed %q", rec.Sessions, rec.Ended, rec.Commands)
			}
		})
	}
}

// A Write waits for a call under way; Close never does.
func TestCloseDoesNotWaitForAHookThatIsAskedAboutTheList(t *testing.T) {
	leaveNothing(t)
	asked, release := make(chan struct{}), make(chan struct{})
	hook := onKeywords(func(kw *keywords) error {
		close(asked)
		<-release
		kw.Delete("SIZE")
		return nil
	})
	wrote := make(chan error, 1)
	conns := make(chan net.Conn, 1)
	ended := make(chan struct{})
	c := runScript(t, overTCP(t), &smtpproxy.Proxy{Hook: hook}, func(c net.Conn) {
		conns <- c
		io.WriteString(c, "220 x\r\n")
		bufio.NewReader(c).ReadString('\n')
		_, err := io.WriteString(c, "250-x\r\n250 SIZE\r\n")
		wrote <- err
		<-ended
	})
	defer close(ended)
	c.expect("220")
	c.send("EHLO x\r\n")
	<-asked
	closed := make(chan error, 1)
	server := <-conns
	go func() { closed <- server.Close() }()
	if err := inTime(t, "Close", closed); err != nil {
		t.Error(err)
	}
	c.expectEnd() // the client gets no list
	select {
	case err := <-wrote:
		t.Errorf("the Write has returned %v before the hook has", err)
	default:
	}
	close(release)
	inTime(t, "Write", wrote)
}

// So it is with a session of one's own: what Replied returns then is the end.
func TestASessionThatIsClosedWhileTheHookIsAskedEnds(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	hook := onKeywords(func(*keywords) error { close(asked); <-release; return nil })
	s := (&smtpproxy.Proxy{Hook: hook}).NewSession(connection{})
	s.Command(t.Context(), "EHLO x")
	replied := make(chan reply, 1)
	go func() { replied <- s.Replied(250, "x", "SIZE") }()
	<-asked
	s.Close()
	close(release)
	if r := <-replied; !r.Disconnect {
		t.Errorf("the session goes on with %q", r)
	}
	if got := s.Connection().HELO; got != (smtpproxy.HELO{}) {
		t.Errorf("the client has greeted: %v", got)
	}
}

// slow is a hook that takes its time for the list.
func slow(d time.Duration) smtpproxy.Hook {
	return onKeywords(func(*keywords) error { time.Sleep(d); return nil }) // in a bubble
}

// The time that the hook takes is neither the client's nor the server's.
func TestAHookMayTakeLongerForTheListThanTheServersDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := behindGoSMTP(&smtpproxy.Proxy{Hook: slow(time.Hour)}, servertest.Configure(func(s *smtp.Server) {
			s.ReadTimeout, s.WriteTimeout = time.Minute, time.Minute
		}))
		c := patientPeer(t, s)
		c.expect("220")
		c.ask("EHLO x", "250")
		c.ask("NOOP", "250")
		c.ask("QUIT", "221")
	})
}

// Replies that wait for others, to leave together with them (RFC 2920 section 3.2), don't
// wait for a hook.
func TestRepliesThatAreHeldDoNotWaitForTheHook(t *testing.T) {
	release := make(chan struct{})
	hook := onKeywords(func(*keywords) error { <-release; return nil })
	c := behindGoSMTP(&smtpproxy.Proxy{Hook: hook}).connect(t, overTCP(t))
	c.expect("220")
	c.send("RSET\r\nRSET\r\nEHLO x\r\n")
	c.expect("250", "250")
	close(release)
	c.expect("250")
}

// A hook that keeps what it is told not to keep changes nothing any more.
func TestKeywordsThatAHookKeepsChangeNothing(t *testing.T) {
	var kept *keywords
	hook := onKeywords(func(kw *keywords) error { kept = kw; kw.Delete("ETRN"); kw.Delete("SIZE"); return nil })
	for name, open := range shops {
		say := open(t, &smtpproxy.Proxy{Hook: hook})
		say("EHLO x")
		kept.Set("ETRN", "")
		kept.Set("SIZE", "")
		kept.Delete("NOOP")
		var all []string
		for _, line := range []string{"ETRN x", "MAIL FROM:<a@b> SIZE=1", "NOOP"} {
			codes, _ := say(line)
			all = append(all, fmt.Sprint(codes))
		}
		if got := strings.Join(all, ""); got != "[502][555][250]" {
			t.Errorf("%s: the client got %s", name, got)
		}
	}
}

// The hook is asked by one goroutine at a time for a connection, and by many for many.
func TestConnectionsAskTheSameHookAtTheSameTime(t *testing.T) {
	const n = 8
	var all sync.WaitGroup
	all.Add(n)
	hook := onKeywords(func(kw *keywords) error {
		all.Done()
		all.Wait() // for all of them
		kw.Delete("SIZE")
		return nil
	})
	s := behindGoSMTP(&smtpproxy.Proxy{Hook: hook})
	tr := overTCP(t)
	s.start(t, tr)
	var clients []*peer
	for range n {
		c := dialPeer(t, tr)
		c.expect("220")
		c.send("EHLO x\r\n")
		clients = append(clients, c)
	}
	for _, c := range clients {
		if list := linesOf(c.reply()); strings.Contains(list, "SIZE") {
			t.Errorf("the client got %s", list)
		}
	}
}
