package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about Mux.Extend: a verb that the server doesn't know is told of to the
// client, and answered by a hook.

// pong is a hook that answers whatever it gets.
var pong = decide(func(cmd command) (decision, error) {
	return reply{Code: 250, Lines: []string{"pong " + cmd.Args()}}, nil
})

func extended(keyword, verb string) *smtpproxy.Mux {
	m := new(smtpproxy.Mux)
	m.Extend(keyword, verb, pong)
	return m
}

func TestAVerbThatAMuxAddsIsAnnouncedAndAnsweredEndToEnd(t *testing.T) {
	for name, listen := range transports {
		for way, hook := range map[string]smtpproxy.Hook{
			"by itself":         extended("XPING a b", "xping"),
			"in a chain":        smtpproxy.Chain(always(nil), extended("XPING a b", "XPING")),
			"with a name":       smtpproxy.Named("ping", extended("XPING a b", "XPING")),
			"in another Mux":    &smtpproxy.Mux{Else: extended("XPING a b", "XPING")},
			"in all of those":   smtpproxy.Chain(smtpproxy.Named("ping", &smtpproxy.Mux{Else: smtpproxy.Chain(extended("XPING a b", "XPING"))})),
			"below a wrapper":   wrapped{extended("XPING a b", "XPING")},
			"below two of them": wrapped{many{extended("XPING a b", "XPING")}},
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				f := behindGoSMTP(&smtpproxy.Proxy{Hook: hook})
				c := f.connect(t, listen(t))
				c.expect("220")
				c.ask("XPING early", "250 2.0.0 pong early") // before EHLO, as any verb of a hook's
				c.send("EHLO x\r\n")
				if list := linesOf(c.reply()); !strings.HasSuffix(list, "|SIZE|XPING a b") || strings.Count(list, "XPING") != 1 {
					t.Errorf("the client got %s", list)
				}
				c.ask("xping now", "250 2.0.0 pong now")
				c.ask("XPINGS", "50")
				c.send("HELO x\r\n")
				if got := c.reply(); got != "250 2.0.0 Hello x" {
					t.Errorf("HELO: %q", got)
				}
				c.ask("XPING again", "250 2.0.0 pong again")
				c.ask("QUIT", "221")
			})
		}
	}
}

// wrapped and many are hooks of a user's that let the library look through them.
type wrapped struct{ smtpproxy.Hook }

func (w wrapped) Unwrap() smtpproxy.Hook { return w.Hook }

func (w wrapped) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	return w.Hook.Command(ctx, cmd, conn, txn)
}

type many []smtpproxy.Hook // can't be compared

func (m many) Unwrap() []smtpproxy.Hook { return m }

func (m many) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	for _, h := range m {
		if d, err := h.Command(ctx, cmd, conn, txn); d != nil || err != nil {
			return d, err
		}
	}
	return nil, nil
}

func TestExtendTakesThePlaceOfWhatTheServerSaysOfTheKeyword(t *testing.T) {
	m := new(smtpproxy.Mux)
	m.Extend("xb", "XB", pong)
	m.Extend("CHUNKING v2", "XCHUNK", pong)
	m.Extend("XA 1 2", "XA", pong)
	m.Handle("NOOP", always(nil))
	for name, open := range doors {
		book := new(listBook)
		d := open(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(m, book)}, new(puppet))
		d.say("EHLO x")
		d.say("LHLO x")
		d.say("HELO x")
		const list = "PIPELINING|CHUNKING v2|SIZE 1000|XB|XA 1 2" // as the Mux has left it
		got := book.took()
		if !slices.Equal(got[:2], []string{list, list}) {
			t.Errorf("%s: %q, want %q", name, got, list)
		}
	}
}

// A reply to HELO has no list, and gets none.
func TestNothingIsAnnouncedInTheReplyToHELO(t *testing.T) {
	for name, open := range doors {
		pup := new(puppet)
		d := open(t, &smtpproxy.Proxy{Hook: extended("XPING", "XPING")}, pup)
		if codes := d.say("HELO x"); codes[0] != 250 {
			t.Fatalf("%s: HELO: %v", name, codes)
		}
		if codes := d.say("XPING x"); codes[0] != 250 || len(pup.took()) != 1 {
			t.Errorf("%s: XPING: %v", name, codes)
		}
	}
	s := (&smtpproxy.Proxy{Hook: extended("XPING", "XPING")}).NewSession(connection{})
	s.Command(t.Context(), "HELO x")
	if r := s.Replied(250, "mx.example"); r.String() != "250 mx.example" {
		t.Errorf("the client gets %q", r)
	}
}

// What another hook deletes is refused, whoever has announced it, unless the hook of the
// verb answers.
func TestAKeywordOfAMuxMayBeDeletedByAnotherHook(t *testing.T) {
	m := new(smtpproxy.Mux)
	m.Extend("XPING", "XPING", decide(func(cmd command) (decision, error) {
		if cmd.Args() == "me" {
			return reply{Code: 250}, nil
		}
		return nil, nil
	}))
	for why, row := range map[string]struct {
		hook smtpproxy.Hook
		list bool
		code int // of what the hook of the verb passes
	}{
		"behind it":          {smtpproxy.Chain(m, deletes("XPING")), false, 502},
		"before it, in vain": {smtpproxy.Chain(deletes("XPING"), m), true, 500},
	} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: row.hook})
		s.Send("EHLO x")
		if got := slices.Contains(s.Reply().Lines, "XPING"); got != row.list {
			t.Errorf("%s: announced: %v", why, got)
		}
		s.Send("XPING me")
		if got := s.Reply().Code; got != 250 {
			t.Errorf("%s: the hook's answer is %d", why, got)
		}
		s.Send("XPING you")
		if got := s.Reply().Code; got != row.code {
			t.Errorf("%s: what the hook passes gets %d", why, got)
		}
	}
}

// Proxy.Commands says which verbs reach the hook; those of a Mux are some of them.
func TestAVerbThatAMuxAddsReachesItWhateverCommandsSays(t *testing.T) {
	var shown []string
	m := extended("XPING", "XPING")
	m.Else = decide(func(cmd command) (decision, error) {
		shown = append(shown, cmd.Verb())
		return nil, nil
	})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: m, Commands: []string{"VRFY"}})
	for _, line := range []string{"EHLO x", "XPING 1", "VRFY x", "NOOP"} {
		s.Send(line)
		if line == "XPING 1" && s.Reply().String() != "250 2.0.0 pong 1" {
			t.Errorf("XPING: %q", s.Reply())
		}
	}
	if !slices.Equal(shown, []string{"VRFY"}) {
		t.Errorf("Else was shown %q", shown)
	}
}
