package apitest

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about replies that are looked at where there is no listener: in a Session of
// one's own, and in the fake session.

// onReply makes a hook that decides about replies alone.
func onReply(f func(x smtpproxy.Exchange) smtpproxy.Decision) smtpproxy.Hook {
	return smtpproxy.Funcs{OnReply: func(_ *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) { return f(x), nil }}
}

// refusalsSay gives refusals another text.
func refusalsSay(text string, more smtpproxy.Reply) smtpproxy.Hook {
	return onReply(func(x smtpproxy.Exchange) smtpproxy.Decision {
		if x.Reply.Code < 400 {
			return nil
		}
		more.Lines = []string{text}
		return more
	})
}

// refuses makes a hook that refuses a verb.
func refuses(verb string, r smtpproxy.Reply) smtpproxy.Hook {
	m := new(smtpproxy.Mux)
	m.HandleFunc(verb, func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return r, nil
	})
	return m
}

func TestReplyHooksChangeWhatCommandConnectAndRepliedReturn(t *testing.T) {
	const minute = time.Minute
	gate := smtpproxy.Funcs{OnConnect: func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) {
		return smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Delay: time.Second}, nil
	}}
	for _, row := range []struct {
		why  string
		hook smtpproxy.Hook
		do   func(s *smtpproxy.Session) smtpproxy.Decision
		want smtpproxy.Reply
	}{
		{"the hook's reply", smtpproxy.Chain(refuses("NOOP", smtpproxy.Reply{Code: 550, Delay: time.Second}), refusalsSay("no", smtpproxy.Reply{})),
			func(s *smtpproxy.Session) smtpproxy.Decision { return s.Command(t.Context(), "NOOP") },
			smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 0, 0}, Lines: []string{"no"}, Delay: time.Second}},
		{"the longer Delay of two", smtpproxy.Chain(refuses("NOOP", smtpproxy.Reply{Code: 550, Delay: time.Second}), refusalsSay("no", smtpproxy.Reply{Delay: minute})),
			func(s *smtpproxy.Session) smtpproxy.Decision { return s.Command(t.Context(), "NOOP") },
			smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 0, 0}, Lines: []string{"no"}, Delay: minute}},
		{"the hook's reply that asks for the next line", smtpproxy.Chain(refuses("NOOP", smtpproxy.Reply{Code: 550, Next: true}), refusalsSay("no", smtpproxy.Reply{})),
			func(s *smtpproxy.Session) smtpproxy.Decision { return s.Command(t.Context(), "NOOP") },
			smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 0, 0}, Lines: []string{"no"}, Next: true}},
		{"the library's", refusalsSay("no", smtpproxy.Reply{Code: 421}),
			func(s *smtpproxy.Session) smtpproxy.Decision { return s.Command(t.Context(), "RCPT TO:<b@b>") },
			smtpproxy.Reply{Code: 421, Enhanced: smtpproxy.EnhancedCode{4, 5, 1}, Lines: []string{"no"}, Disconnect: true}},
		{"the greeting's", smtpproxy.Chain(gate, refusalsSay("no", smtpproxy.Reply{})),
			func(s *smtpproxy.Session) smtpproxy.Decision { return s.Connect(t.Context()) },
			smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"no"}, Disconnect: true, Delay: time.Second}},
		{"the server's", refusalsSay("no", smtpproxy.Reply{Code: 450, Delay: minute, Disconnect: true}),
			func(s *smtpproxy.Session) smtpproxy.Decision {
				s.Command(t.Context(), "NOOP")
				return s.Replied(550, "5.7.1 x")
			},
			smtpproxy.Reply{Code: 450, Enhanced: smtpproxy.EnhancedCode{4, 7, 1}, Lines: []string{"no"}, Disconnect: true, Delay: minute}},
		{"the server's, which nobody changes", onReply(func(smtpproxy.Exchange) smtpproxy.Decision { return smtpproxy.Pass{Delay: minute} }),
			func(s *smtpproxy.Session) smtpproxy.Decision {
				s.Command(t.Context(), "NOOP")
				return s.Replied(250, "2.0.0 x", "y")
			},
			smtpproxy.Reply{Code: 250, Enhanced: smtpproxy.NoEnhancedCode, Lines: []string{"2.0.0 x", "y"}, Delay: minute}},
		{"one out of step", refusalsSay("no", smtpproxy.Reply{}),
			func(s *smtpproxy.Session) smtpproxy.Decision {
				s.Connect(t.Context())
				s.Replied(220)
				return s.Replied(250)
			},
			smtpproxy.Reply{Code: 421, Enhanced: smtpproxy.EnhancedCode{4, 3, 0}, Lines: []string{"no"}, Disconnect: true}},
	} {
		ends := make(chan smtpproxy.End, 1)
		s := (&smtpproxy.Proxy{Hook: row.hook, Observers: []smtpproxy.Observer{{Disconnected: func(_ *smtpproxy.Context, _ smtpproxy.Connection, e smtpproxy.End) { ends <- e }}}}).NewSession(smtpproxy.Connection{})
		got := row.do(s)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", row.want) {
			t.Errorf("%s: got %+v, want %+v", row.why, got, row.want)
		}
		if ended := s.Context().Err() != nil; ended != row.want.Disconnect {
			t.Errorf("%s: the session has ended: %v", row.why, ended)
		}
		s.Close()
		if e := <-ends; e.Reply.String() != row.want.String() || e.Reply.Disconnect != row.want.Disconnect {
			t.Errorf("%s: the last reply is told to be %+v, want %+v", row.why, e.Reply, row.want)
		}
	}
}

// A Reply that is to be sent once for each recipient is shown once: it can be changed for all
// of them, or for none.
func TestAReplyThatIsSentForSeveralRecipientsIsShownOnce(t *testing.T) {
	for recipients := 1; recipients <= 2; recipients++ {
		var shown []int
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(refuses("BDAT", smtpproxy.Reply{Code: 552}), onReply(func(x smtpproxy.Exchange) smtpproxy.Decision {
			if x.Command.Verb() != "BDAT" {
				return nil
			}
			shown = append(shown, x.Recipient, x.Transaction.Recipients.Len())
			return smtpproxy.Reply{Lines: []string{"no"}}
		}))})
		s.Send("LHLO x")
		s.Send("MAIL FROM:<a@a>")
		for range recipients {
			s.Send("RCPT TO:<b@b>")
		}
		s.Send("BDAT 2 LAST")
		want := []int{0, 1} // the one there is
		if recipients > 1 {
			want = []int{-1, recipients}
		}
		if !slices.Equal(shown, want) {
			t.Errorf("%d recipients: shown were %v, want %v", recipients, shown, want)
		}
		if replies := s.Replies(); len(replies) != recipients || replies[recipients-1].String() != "552 5.0.0 no" {
			t.Errorf("%d recipients: the client got %v", recipients, replies)
		}
	}
}

func TestTheFakeSessionShowsRepliesAndTellsObserversAsAConnectionDoes(t *testing.T) {
	var shown, told []string
	tells := func(list *[]string) func(x smtpproxy.Exchange) {
		return func(x smtpproxy.Exchange) {
			*list = append(*list, fmt.Sprint(x.Command, " ", x.Passed.Line, " ", x.By, x.Hook, " ", x.Reply.Code, x.Reply.Enhanced, x.Recipient, x.Reply.Disconnect))
		}
	}
	look, tell := tells(&shown), tells(&told)
	s := proxytest.NewSession(&smtpproxy.Proxy{
		Hook: smtpproxy.Named("all", smtpproxy.Chain(
			onReply(func(x smtpproxy.Exchange) smtpproxy.Decision { look(x); return nil }),
			refuses("VRFY", smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}}),
			onReply(func(x smtpproxy.Exchange) smtpproxy.Decision {
				if x.Command.Verb() == "QUIT" {
					return smtpproxy.Reply{Lines: []string{"so long"}}
				}
				return nil
			}))),
		Observers: []smtpproxy.Observer{{
			Connected: func(*smtpproxy.Context, smtpproxy.Connection) { told = append(told, "connected") },
			Exchanged: func(_ *smtpproxy.Context, x smtpproxy.Exchange) { tell(x) },
			Disconnected: func(_ *smtpproxy.Context, _ smtpproxy.Connection, e smtpproxy.End) {
				told = append(told, fmt.Sprint(e.Reason, e.Reply))
			},
		}},
	})
	s.Connect()
	s.Send("LHLO x")
	s.Send("MAIL FROM:<a@a>")
	s.Answer("RCPT", 550, "5.1.1 no")
	s.Send("RCPT TO:<b@b>")
	s.Send("RCPT TO:<c@c>")
	s.Send("VRFY x")
	s.Send("DATA")
	s.SendContent()
	s.Send("AUTH PLAIN")
	s.Send("AHVzZXIAcGFzcw==")
	s.Send("QUIT")
	if got := s.Reply().String(); got != "221 2.0.0 so long" {
		t.Errorf("the client got %q", got)
	}
	want := []string{
		"  server 220  -1 false",
		"LHLO x LHLO x server 250  -1 false",
		"MAIL FROM:<a@a> MAIL FROM:<a@a> server 250 2.1.0 -1 false",
		"RCPT TO:<b@b> RCPT TO:<b@b> server 550 5.1.1 -1 false",
		"RCPT TO:<c@c> RCPT TO:<c@c> server 250 2.1.5 -1 false",
		"VRFY x  hookall 550 5.7.1 -1 false",
		"DATA DATA server 354  -1 false",
		"DATA DATA server 250 2.0.0 0 false",
		"AUTH PLAIN AUTH PLAIN server 334  -1 false",
		"****  server 235 2.7.0 -1 false",
		"QUIT QUIT serverall 221 2.0.0 -1 true",
	}
	if got := strings.Join(shown, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("shown:\n%s", got)
	}
	want = append([]string{"connected"}, append(want, "quit 221 2.0.0 so long")...)
	if got := strings.Join(told, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("told:\n%s", got)
	}
}

// With nothing that looks, a command costs what it did: the string that the line is.
func TestWithNobodyWhoLooksAtRepliesACommandAllocatesNothingMore(t *testing.T) {
	looks := func(*smtpproxy.Context, smtpproxy.Exchange) (smtpproxy.Decision, error) { return nil, nil }
	for why, row := range map[string]struct {
		proxy smtpproxy.Proxy
		more  bool
	}{
		"no hook":                     {smtpproxy.Proxy{}, false},
		"a hook of commands":          {smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnCommand: passAll}}, false},
		"a chain of them":             {smtpproxy.Proxy{Hook: smtpproxy.Chain(smtpproxy.HookFunc(passAll), smtpproxy.Named("x", smtpproxy.HookFunc(passAll)))}, false},
		"a hook of the end":           {smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnDisconnect: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) {}}}, false},
		"a hook of replies, as proof": {smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnReply: looks}}, true},
	} {
		tr := newOneListener()
		c, err := row.proxy.Listener(tr).Accept()
		if err != nil {
			t.Fatal(err)
		}
		line, reply, got, buf := []byte("NOOP\r\n"), []byte("250 2.0.0 x\r\n"), make([]byte, 4096), make([]byte, 4096)
		next := make(chan bool)
		go func() {
			for range next {
				tr.client.Write(line)
				tr.client.Read(got)
			}
		}()
		go c.Write([]byte("220 x\r\n"))
		tr.client.Read(got)
		n := testing.AllocsPerRun(500, func() {
			next <- true
			if n, err := c.Read(buf); err != nil || n != len(line) {
				t.Error(n, err)
			}
			if _, err := c.Write(reply); err != nil {
				t.Error(err)
			}
		})
		close(next)
		if n > 1 != row.more {
			t.Errorf("%s: %v allocations for each command", why, n)
		}
		c.Close()
		tr.client.Close()
	}
}

func passAll(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// oneListener has one connection.
type oneListener struct{ server, client net.Conn }

func newOneListener() *oneListener {
	s, c := net.Pipe()
	return &oneListener{s, c}
}

func (l *oneListener) Accept() (net.Conn, error) { return l.server, nil }
func (l *oneListener) Close() error              { return nil }
func (l *oneListener) Addr() net.Addr            { return l.server.LocalAddr() }
