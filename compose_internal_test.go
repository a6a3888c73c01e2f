package smtpproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
)

// This file holds how a hook is taken apart into those that it is made of, and the way
// of a line through them.

// stop is a hook that a line comes by. What it makes of some lines is in it.
type stop struct {
	name  string
	makes map[string]string
}

func (s *stop) Command(*Context, Command, Connection, Transaction) (Decision, error) {
	return nil, nil
}

// at returns a stop that leaves each line as it is.
func at(name string) *stop { return &stop{name: name} }

// turns returns a stop that puts a line in the place of another.
func turns(name, from, to string) *stop { return &stop{name, map[string]string{from: to}} }

// muxOf returns a Mux with hooks by verb; that for "" is Else.
func muxOf(hooks map[string]Hook) *Mux {
	m := new(Mux)
	for verb, h := range hooks {
		if verb == "" {
			m.Else = h
		} else {
			m.Handle(verb, h)
		}
	}
	return m
}

// way returns the names of the hooks that a line comes by, if those with the names in asked
// have asked for it, and perhaps nobody else gets it.
func way(t *testing.T, h Hook, line string, only bool, asked []string) (names []string) {
	t.Helper()
	l, err := linksOf(h)
	if err != nil {
		t.Fatal(err)
	}
	r := route{only: only}
	for _, name := range asked {
		i := slices.IndexFunc(l.steps, func(s step) bool { return s.fork == nil && s.hook.(*stop).name == name })
		if i < 0 {
			t.Fatalf("there is no hook %q", name)
		}
		if r.askers == nil {
			r.askers = new(askers)
		}
		r.askers.asked = append(r.askers.asked, i)
	}
	for i := l.next(&r, line); i >= 0; i = l.next(&r, line) {
		s := l.steps[i].hook.(*stop)
		if names = append(names, s.name); len(names) > 50 {
			t.Fatalf("the way has no end: %q", names)
		}
		if to, ok := s.makes[line]; ok {
			line = to
		}
	}
	return names
}

func TestTheWayOfALineThroughHooks(t *testing.T) {
	a, b, c, d := at("a"), at("b"), at("c"), at("d")
	byVerb := muxOf(map[string]Hook{"MAIL": b, "RCPT": c, "": d})
	inner := muxOf(map[string]Hook{"MAIL": Chain(b, c)})
	nested := muxOf(map[string]Hook{"MAIL": Chain(inner, d), "RCPT": at("e"), "": at("f")})
	for _, tt := range []struct {
		why   string
		hook  Hook
		line  string
		asked []string
		only  bool
		want  []string
	}{
		{why: "no hook"},
		{why: "a hook alone", hook: a, want: []string{"a"}},
		{why: "an empty chain", hook: Chain()},
		{why: "a chain of nothing", hook: Chain(nil, nil)},
		{why: "a name for nothing", hook: Named("x", nil)},
		{why: "in order", hook: Chain(a, b, c), want: []string{"a", "b", "c"}},
		{why: "nil hooks are no hooks", hook: Chain(nil, a, nil, b), want: []string{"a", "b"}},
		{why: "chains in chains", hook: Chain(Chain(a), Chain(Chain(), Chain(b, c)), d), want: []string{"a", "b", "c", "d"}},
		{why: "names change nothing", hook: Named("x", Chain(Named("y", a), b)), want: []string{"a", "b"}},
		{why: "one hook in two places has two turns", hook: Chain(a, b, a), want: []string{"a", "b", "a"}},
		{why: "functions without one for commands are no hook", hook: Chain(a, Funcs{}, &Funcs{}, b), want: []string{"a", "b"}},

		{why: "a zero Mux", hook: new(Mux)},
		{why: "a zero Mux between hooks", hook: Chain(a, new(Mux), b), want: []string{"a", "b"}},
		{why: "the verb", hook: byVerb, line: "MAIL FROM:<>", want: []string{"b"}},
		{why: "another verb", hook: byVerb, line: "RCPT TO:<x@y>", want: []string{"c"}},
		{why: "the verb in any case", hook: byVerb, line: "rcpt TO:<x@y>", want: []string{"c"}},
		{why: "a verb that has no hook", hook: byVerb, line: "DATA", want: []string{"d"}},
		{why: "a longer verb is another one", hook: byVerb, line: "MAILX", want: []string{"d"}},
		{why: "no verb", hook: byVerb, line: " MAIL", want: []string{"d"}},
		{why: "no line", hook: byVerb, line: "", want: []string{"d"}},
		{why: "no Else", hook: inner, line: "RCPT TO:<x@y>"},
		{why: "behind the last branch", hook: Chain(byVerb, a), line: "DATA", want: []string{"d", "a"}},
		{why: "behind the first branch", hook: Chain(byVerb, a), line: "MAIL FROM:<>", want: []string{"b", "a"}},
		{why: "no Else, and hooks behind", hook: Chain(inner, a), line: "NOOP", want: []string{"a"}},
		{why: "an empty branch leads on", hook: Chain(muxOf(map[string]Hook{"MAIL": Chain(), "": b}), a), line: "MAIL", want: []string{"a"}},
		{why: "an empty branch between others", hook: Chain(muxOf(map[string]Hook{"MAIL": b, "NOOP": Chain(), "RCPT": c}), a), line: "RCPT", want: []string{"c", "a"}},
		{why: "a Mux in a Mux", hook: Chain(nested, a), line: "MAIL", want: []string{"b", "c", "d", "a"}},
		{why: "a Mux in a Mux, the other branch", hook: Chain(nested, a), line: "RCPT", want: []string{"e", "a"}},
		{why: "a Mux in a Mux, Else", hook: Chain(nested, a), line: "NOOP", want: []string{"f", "a"}},
		{why: "a Mux is a whole branch of a Mux", hook: Chain(muxOf(map[string]Hook{"MAIL": muxOf(map[string]Hook{"MAIL": b, "": c}), "RCPT": d}), a), line: "MAIL", want: []string{"b", "a"}},
		{why: "a Mux is Else of a Mux", hook: Chain(muxOf(map[string]Hook{"RCPT": d, "": muxOf(map[string]Hook{"MAIL": b, "": c})}), a), line: "NOOP", want: []string{"c", "a"}},
		{why: "a Mux in a Mux has no hook for the line", hook: Chain(muxOf(map[string]Hook{"MAIL": muxOf(map[string]Hook{"RCPT": b}), "RCPT": d}), a), line: "MAIL", want: []string{"a"}},
		{why: "two, one behind the other", hook: Chain(byVerb, muxOf(map[string]Hook{"MAIL": at("g"), "": at("h")})), line: "MAIL", want: []string{"b", "g"}},

		{why: "the verb is that of the line as it is left", hook: Chain(turns("t", "MAIL", "RCPT"), byVerb), line: "MAIL", want: []string{"t", "c"}},
		{why: "a branch isn't left in the midst of it", hook: Chain(muxOf(map[string]Hook{"MAIL": Chain(turns("t", "MAIL", "RCPT"), b), "RCPT": c}), a), line: "MAIL", want: []string{"t", "b", "a"}},

		{why: "who has asked in a chain has one turn", hook: Chain(a, b), asked: []string{"a"}, want: []string{"a", "b"}},
		{why: "all have asked in a chain", hook: Chain(a, b), asked: []string{"a", "b"}, want: []string{"a", "b"}},
		{why: "who has asked in the line's branch has one turn", hook: byVerb, line: "MAIL", asked: []string{"b"}, want: []string{"b"}},
		{why: "who has asked elsewhere comes first", hook: Chain(a, byVerb), line: "MAIL", asked: []string{"c"}, want: []string{"a", "c", "b"}},
		{why: "who has asked in Else comes first", hook: byVerb, line: "MAIL", asked: []string{"d"}, want: []string{"d", "b"}},
		{why: "several come first, in the order in which they have asked", hook: byVerb, line: "MAIL", asked: []string{"b", "c", "d"}, want: []string{"c", "d", "b"}},
		{why: "who has asked for a line without a verb", hook: byVerb, line: "?", asked: []string{"b"}, want: []string{"b", "d"}},
		{why: "who has asked, and nobody has the verb", hook: Chain(inner, a), line: "NOOP", asked: []string{"c"}, want: []string{"c", "a"}},
		{why: "who has asked in a Mux in another branch", hook: Chain(a, nested), line: "RCPT", asked: []string{"c"}, want: []string{"a", "c", "e"}},
		{why: "who has asked in a Mux in the line's branch", hook: nested, line: "MAIL", asked: []string{"c"}, want: []string{"b", "c", "d"}},
		{why: "who has asked outside of the inner one", hook: nested, line: "MAIL", asked: []string{"f", "b"}, want: []string{"f", "b", "c", "d"}},
		{
			why:  "who has asked in the inner one, which the line passes by another branch",
			hook: muxOf(map[string]Hook{"MAIL": Chain(a, muxOf(map[string]Hook{"RCPT": b, "MAIL": c}))}),
			line: "MAIL", asked: []string{"b"}, want: []string{"a", "b", "c"},
		},
		{
			why:  "who has asked, and makes the line one for itself, has had its turn",
			hook: muxOf(map[string]Hook{"MAIL": turns("t", "NOOP", "MAIL"), "": d}),
			line: "NOOP", asked: []string{"t"}, want: []string{"t"},
		},
		{
			why:  "who has asked makes the line one for a third",
			hook: muxOf(map[string]Hook{"MAIL": turns("t", "NOOP", "RCPT"), "RCPT": c, "": d}),
			line: "NOOP", asked: []string{"t"}, want: []string{"t", "c"},
		},
		{
			why:  "who has asked in the branch that the line doesn't take any more comes first, too",
			hook: muxOf(map[string]Hook{"MAIL": turns("t", "NOOP", "RCPT"), "RCPT": c, "": d}),
			line: "NOOP", asked: []string{"t", "d"}, want: []string{"t", "d", "c"},
		},

		{why: "a line for those alone that have asked", hook: Chain(a, b, c), only: true, asked: []string{"c", "a"}, want: []string{"c", "a"}},
		{why: "nobody has asked for it", hook: Chain(a, b, c), only: true},
		{why: "it takes no branch", hook: Chain(a, byVerb), line: "MAIL", only: true, asked: []string{"c"}, want: []string{"c"}},
	} {
		if got := way(t, tt.hook, tt.line, tt.only, tt.asked); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q comes by %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

func TestTheInnermostNameOfAHookCounts(t *testing.T) {
	m := muxOf(map[string]Hook{"MAIL": Named("in mux", at("b")), "RCPT": at("c")})
	l, err := linksOf(Named("all", Chain(at("a"), Named("middle", Named("inner", at("d"))), Named("mux", m))))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, s := range l.steps {
		if s.fork == nil {
			got[s.hook.(*stop).name] = s.name
		}
	}
	if want := "map[a:all b:in mux c:mux d:inner]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// outer is a hook of the user's that calls another, and inner tells of which one.
type outer struct{ Hook }

func (o outer) Unwrap() Hook { return o.Hook }

// pair is one that calls two.
type pair struct{ first, second Hook }

func (p pair) Unwrap() []Hook { return []Hook{p.first, p.second} }

func (p pair) Command(*Context, Command, Connection, Transaction) (Decision, error) { return nil, nil }

func TestAWrapperOfTheUsersCallsWhatItWrapsItself(t *testing.T) {
	for _, h := range []Hook{outer{Chain(at("a"), at("b"))}, pair{at("a"), at("b")}} {
		l, err := linksOf(Chain(h, at("c")))
		if err != nil {
			t.Fatal(err)
		}
		if len(l.steps) != 2 || l.steps[0].hook != h {
			t.Errorf("it is taken apart into %d hooks", len(l.steps))
		}
	}
}

func TestVerbsOfAMuxAreFoundWhereverItIs(t *testing.T) {
	m := muxOf(map[string]Hook{"xping": at("a"), "": muxOf(map[string]Hook{"XPONG": at("b")})})
	for why, h := range map[string]Hook{
		"alone": m, "in a chain": Chain(at("c"), m), "with a name": Named("x", m),
		"in a wrapper": outer{m}, "in one of two": pair{at("c"), outer{Chain(m)}},
	} {
		l, err := linksOf(h)
		if err != nil {
			t.Fatal(err)
		}
		for verb, want := range map[string]bool{"XPING": true, "XPONG": true, "MAIL": true, "NOOP": false, "": false} {
			if got := l.listed(verb, []string{"MAIL"}); got != want {
				t.Errorf("%s: %q is listed: %v", why, verb, got)
			}
		}
		if !l.listed("NOOP", nil) || !l.listed("", nil) {
			t.Errorf("%s: without Proxy.Commands, not all is listed", why)
		}
	}
}

// selves are hooks that are made of themselves.
func selves() map[string]Hook {
	inElse, inBranch, byChain, byWrapper := new(Mux), new(Mux), new(Mux), new(Mux)
	inElse.Else = inElse
	inBranch.Handle("NOOP", inBranch)
	byChain.Else = Chain(at("a"), Named("x", byChain))
	byWrapper.Else = outer{pair{at("a"), byWrapper}}
	deep := Hook(at("a"))
	for range maxNesting + 1 {
		deep = Chain(deep)
	}
	return map[string]Hook{
		"a Mux is its own Else": inElse, "a Mux is its own branch": inBranch, "by a chain": byChain,
		"by wrappers of the user's": byWrapper, "hooks are too deep in one another": deep,
	}
}

// emptyListener has no client.
type emptyListener struct{ net.Listener }

func (emptyListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (emptyListener) Addr() net.Addr            { return nil }

func TestAHookThatIsMadeOfItselfIsAnError(t *testing.T) {
	for why, h := range selves() {
		p := &Proxy{Hook: h}
		if err := p.Validate(); !errors.Is(err, errNesting) {
			t.Errorf("%s: Validate says %v", why, err)
		}
		if _, err := p.Listener(emptyListener{}).Accept(); !errors.Is(err, errNesting) {
			t.Errorf("%s: Accept says %v", why, err)
		}
	}
	deep := Hook(at("a"))
	for range maxNesting {
		deep = Chain(deep)
	}
	if err := (&Proxy{Hook: deep}).Validate(); err != nil {
		t.Errorf("as deep as hooks may be: %v", err)
	}
}

// What it would have kept out, nobody knows.
func TestASessionWhoseHookIsMadeOfItselfPassesNothing(t *testing.T) {
	for why, h := range selves() {
		for door, p := range map[string]*Proxy{
			"Hook": {Hook: h}, "HookFor": {HookFor: func(Connection) Hook { return h }},
			"called in the library's place": {Hook: struct{ Hook }{h}},
		} {
			var failure Failure
			p.OnFailure = func(_ *Context, f Failure) Decision { failure = f; return nil }
			d := p.NewSession(Connection{}).Command(context.Background(), "NOOP")
			if r, ok := d.(Reply); !ok || r.Code != 421 || !errors.Is(failure, errNesting) {
				t.Errorf("%s, %s: %v, %v", why, door, d, failure.Err)
			}
		}
	}
}
