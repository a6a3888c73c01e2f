package e2e

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file plays scenes of several hooks on each door of the library, and once more with
// the hooks called by a wrapper in the library's place.

// cast are hooks that note what they are shown, one after the other.
type cast struct {
	mu     sync.Mutex
	shown  []string
	failed []string // "hook: why", as OnFailure is told
	logged strings.Builder
}

// part is what a hook does, by line, by verb, or at "SASL": a decision, an error, or a
// function. It passes all else.
type part map[string]any

// plays makes a hook that notes what it is shown, but for EHLO.
func (c *cast) plays(name string, p part) smtpproxy.Hook {
	return decide(func(cmd command) (decision, error) {
		c.note(name, cmd)
		for _, key := range []string{cmd.Line, cmd.Verb(), "SASL"} {
			if does, ok := p[key]; ok && (key != "SASL" || cmd.SASL) {
				return does.(func(command) (decision, error))(cmd)
			}
		}
		return nil, nil
	})
}

func (c *cast) note(name string, cmd command) {
	if cmd.Verb() == "EHLO" {
		return
	}
	text := name + " " + cmd.Line
	if cmd.SASL {
		text = name + " (SASL) " + cmd.Line
	}
	if cmd.Received != cmd.Line {
		text += " <- " + cmd.Received
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown = append(c.shown, text)
}

// Write makes the cast what is logged to.
func (c *cast) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logged.Write(p)
}

// does makes a part's function of a decision.
func does(d decision) func(command) (decision, error) {
	return func(command) (decision, error) { return d, nil }
}

// turnsTo puts a line in the place of another.
func turnsTo(line string) func(command) (decision, error) { return does(pass{Command: line}) }

var (
	asksNext  = does(pass{Next: true})
	refuses   = does(reply{Code: 550})
	challenge = does(reply{Code: 334, Lines: []string{"AAAA"}})
	breaks    = func(command) (decision, error) { return nil, errBroken }
	errBroken = errors.New("it is broken")
)

// composed is a scene: what a client says to several hooks, and what comes of it.
type composed struct {
	why      string
	hook     func(c *cast) smtpproxy.Hook
	commands []string // Proxy.Commands, which nobody knows but the library
	instead  decision // OnFailure's
	say      []string
	codes    []int
	shown    []string
	failed   string // "hook: why"
	// direct: it is another scene if a wrapper calls the hooks.
	direct bool
}

// wrapper calls a hook in the library's place, and tells nobody of which it is made.
type wrapper struct{ calls smtpproxy.Hook }

func (w wrapper) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	return w.calls.Command(ctx, cmd, conn, txn)
}

// playAll plays scenes on each door.
func playAll(t *testing.T, scenes []composed) {
	t.Helper()
	for _, s := range scenes {
		for name, on := range stages {
			t.Run(s.why+", on "+name, func(t *testing.T) {
				s.play(t, on, func(h smtpproxy.Hook) smtpproxy.Hook { return h })
				if !s.direct && s.commands == nil {
					s.play(t, on, func(h smtpproxy.Hook) smtpproxy.Hook { return wrapper{h} })
				}
			})
		}
	}
}

func (s composed) play(t *testing.T, on stage, wrap func(smtpproxy.Hook) smtpproxy.Hook) *cast {
	t.Helper()
	c := new(cast)
	h := wrap(s.hook(c))
	codes := on(t, &smtpproxy.Proxy{
		Hook: h, Commands: s.commands, Logger: slog.New(slog.NewTextHandler(c, nil)),
		OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.failed = append(c.failed, f.Hook+": "+f.Error())
			return s.instead
		},
	}, s.say)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(codes, s.codes) {
		t.Errorf("%T: the client got %v, want %v", h, codes, s.codes)
	}
	if !slices.Equal(c.shown, s.shown) {
		t.Errorf("%T: shown was\n%s\nwant\n%s", h, strings.Join(c.shown, "\n"), strings.Join(s.shown, "\n"))
	}
	if failed := strings.Join(c.failed, "\n"); failed != s.failed {
		t.Errorf("%T: failed has %q, want %q", h, failed, s.failed)
	}
	return c
}

// stage plays a client's lines behind EHLO, "." being content, and returns the codes that
// it gets, up to the end of the connection.
type stage func(t *testing.T, p *smtpproxy.Proxy, say []string) (codes []int)

var stages = map[string]stage{
	"go-smtp": onGoSMTP, "a fake session": onFakeSession, "a session of one's own": onOwnSession,
}

func onGoSMTP(t *testing.T, p *smtpproxy.Proxy, say []string) (codes []int) {
	p.AllowInsecureAuth = true
	f := behindGoSMTP(p)
	served := make(chan error, 1)
	tr := overTCP(t)
	go func() { served <- f.serve(tr) }()
	defer func() {
		f.close()
		<-served
	}()
	c := dialPeer(t, tr)
	defer c.Close()
	c.expect("220")
	c.ask("EHLO x", "250")
	for _, line := range say {
		octets := line + "\r\n" + strings.Repeat("x", chunkIn(line))
		if line == "." {
			octets = "hi\r\n.\r\n"
		}
		c.send(octets)
		var code int
		fmt.Sscanf(c.reply(), "%d", &code)
		if code == 501 {
			code = 500 // its word for verbs that it doesn't know
		}
		if codes = append(codes, code); code == 421 {
			c.expectEnd()
			break
		}
	}
	return codes
}

func onFakeSession(_ *testing.T, p *smtpproxy.Proxy, say []string) (codes []int) {
	s := proxytest.NewSession(p)
	defer s.Close()
	s.Send("EHLO x")
	for _, line := range say {
		if line == "." {
			s.SendContent()
		} else {
			s.Send(line)
		}
		if codes = append(codes, s.Reply().Code); s.Closed() {
			break
		}
	}
	return codes
}

func onOwnSession(t *testing.T, p *smtpproxy.Proxy, say []string) (codes []int) {
	s := p.NewSession(connection{})
	defer s.Close()
	sasl := false
	for _, line := range append([]string{"EHLO x"}, say...) {
		code := 250
		switch d := s.Command(t.Context(), line).(type) {
		case reply:
			code, sasl = d.Code, false
		case pass:
			code = ownServer(d.Command, sasl)
			sasl = code == 334
			s.Replied(code)
		}
		codes = append(codes, code)
		if s.Context().Err() != nil {
			break
		}
	}
	return codes[1:]
}

// ownServer returns the code of a server's reply to a line.
func ownServer(line string, sasl bool) int {
	cmd := command{Line: line}
	switch verb := cmd.Verb(); {
	case sasl && line == "*":
		return 501
	case sasl:
		return 235
	case verb == "AUTH" && !strings.Contains(cmd.Args(), " "):
		return 334
	case verb == "AUTH":
		return 235
	case verb == "DATA":
		return 354
	case verb == "VRFY":
		return 252
	case strings.HasPrefix(verb, "X"):
		return 500
	}
	return 250
}
