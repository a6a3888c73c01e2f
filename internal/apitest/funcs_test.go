package apitest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// calls notes which methods of hooks are called, one word each.
type calls []string

func (c *calls) note(format string, args ...any) { *c = append(*c, fmt.Sprintf(format, args...)) }

// took returns what was noted since it was asked last.
func (c *calls) took() string {
	defer func() { *c = nil }()
	return strings.Join(*c, " ")
}

// funcs are Funcs that note what is called, with those set whose letter is in set.
func (c *calls) funcs(name, set string) (f smtpproxy.Funcs) {
	if strings.Contains(set, "c") {
		f.OnConnect = func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) {
			c.note("%sconnect", name)
			return nil, nil
		}
	}
	if strings.Contains(set, "l") {
		f.OnCommand = func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
			c.note("%sline", name)
			return nil, nil
		}
	}
	if strings.Contains(set, "k") {
		f.OnKeywords = func(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
			c.note("%skeywords", name)
			return nil
		}
	}
	if strings.Contains(set, "d") {
		f.OnDisconnect = func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { c.note("%sdisconnect", name) }
	}
	return f
}

// live plays a connection from its beginning to its end.
func live(h smtpproxy.Hook) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: h})
	s.Connect()
	s.Send("EHLO x")
	s.Close()
}

func TestFuncsAreCalledForWhatIsSet(t *testing.T) {
	words := map[rune]string{'c': "connect", 'l': "line", 'k': "keywords", 'd': "disconnect"}
	for _, set := range []string{"", "c", "l", "k", "d", "cd", "lk", "clkd"} {
		var c calls
		var want []string
		for _, letter := range set {
			want = append(want, words[letter])
		}
		f := c.funcs("", set)
		for way, h := range map[string]smtpproxy.Hook{
			"a value": f, "a pointer": &f, "with a name": smtpproxy.Named("n", f), "in a chain": smtpproxy.Chain(f),
			"in a Mux": &smtpproxy.Mux{Else: &f}, "embedded": struct{ smtpproxy.Funcs }{f}, "embedded by a pointer": struct{ *smtpproxy.Funcs }{&f},
		} {
			live(h)
			if got := c.took(); got != strings.Join(want, " ") {
				t.Errorf("%q set, %s: called %q, want %q", set, way, got, want)
			}
		}
		// The Command of a wrapper is its own; what it isn't itself, the library finds.
		live(seeThrough{f})
		if got := c.took(); got != strings.Join(slices.DeleteFunc(want, func(w string) bool { return w == "line" }), " ") {
			t.Errorf("%q set, below a wrapper: called %q", set, got)
		}
	}
}

// seeThrough is a wrapper that lets the library look through it, and passes all itself.
type seeThrough struct{ inner smtpproxy.Hook }

func (s seeThrough) Unwrap() smtpproxy.Hook { return s.inner }

func (s seeThrough) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// A transcript has a line for each hook that was asked about a command.
func TestFuncsWithoutOnCommandAreNotAskedAboutCommands(t *testing.T) {
	var c calls
	f := c.funcs("", "ckd")
	for way, h := range map[string]smtpproxy.Hook{
		"a value": f, "a pointer": &f, "with a name": smtpproxy.Named("n", f), "in a chain": smtpproxy.Chain(f, &f),
		"in a Mux": &smtpproxy.Mux{Else: &f},
	} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: h})
		s.Send("EHLO x")
		s.Send("NOOP")
		if got := s.Transcript(); strings.Contains(got, "H") && strings.Contains(got, "pass") {
			t.Errorf("%s: asked about commands:\n%s", way, got)
		}
		s.Close()
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnCommand: f.Command}})
	if s.Send("NOOP"); !strings.Contains(s.Transcript(), "H: pass") {
		t.Errorf("a hook that is asked leaves no trace:\n%s", s.Transcript())
	}
	s.Close()
}

func TestHooksOfTheUsersThatAreMoreAreFoundThroughWhateverTheyAreIn(t *testing.T) {
	var c calls
	in := func(name string) smtpproxy.Hook { return c.funcs(name, "ckd") }
	mux := new(smtpproxy.Mux)
	mux.Handle("XA", in("xa."))
	mux.Handle("XB", in("xb."))
	mux.Else = in("else.")
	for _, row := range []struct {
		why   string
		hook  smtpproxy.Hook
		names string // of those found, in order
	}{
		{"Chain keeps the order", smtpproxy.Chain(in("1."), in("2."), nil, in("3.")), "1 2 3"},
		{"Named", smtpproxy.Named("a", smtpproxy.Named("b", in("1."))), "1"},
		{"Mux: verbs as they came, then Else", mux, "xa xb else"},
		{"a wrapper of one", seeThrough{in("1.")}, "1"},
		{"a wrapper of many", seesMany{in("1."), in("2.")}, "1 2"},
		{"a wrapper of none", seeThrough{}, ""},
		{"a wrapper of many, none of them a hook", seesMany{nil, nil}, ""},
		{"all in one another", smtpproxy.Chain(in("1."), smtpproxy.Named("n", seesMany{in("2."), smtpproxy.Chain(seeThrough{in("3.")})}), mux), "1 2 3 xa xb else"},
		{"the same hook in two places has both", smtpproxy.Chain(in("1."), seesMany{in("1.")}), "1 1"},
		{"below one that is all of it itself, nothing", itself{in("inner."), in("outer.").(smtpproxy.Funcs)}, "outer"},
		{"a Chain that only a method knows of", hidden{smtpproxy.Chain(in("1."))}, ""},
	} {
		live(row.hook)
		for _, what := range []string{"connect", "keywords", "disconnect"} {
			var names []string
			for _, call := range c {
				if name, ok := strings.CutSuffix(call, "."+what); ok {
					names = append(names, name)
				}
			}
			if got := strings.Join(names, " "); got != row.names {
				t.Errorf("%s: %s: %q, want %q", row.why, what, got, row.names)
			}
		}
		c = nil
	}
}

// seesMany is a wrapper of many. It can't be compared, as most hooks here.
type seesMany []smtpproxy.Hook

func (s seesMany) Unwrap() []smtpproxy.Hook { return s }

func (s seesMany) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// itself is a wrapper that is all that its hook is, and decides what becomes of that.
type itself struct {
	inner smtpproxy.Hook
	smtpproxy.Funcs
}

func (i itself) Unwrap() smtpproxy.Hook { return i.inner }

// hidden is a wrapper that doesn't let the library look through it.
type hidden struct{ inner smtpproxy.Hook }

func (h hidden) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return h.inner.Command(ctx, cmd, conn, txn)
}

// keywordsAlone is a wrapper that is one of the three itself.
type keywordsAlone struct {
	seeThrough
	c *calls
}

func (k keywordsAlone) Keywords(*smtpproxy.Context, smtpproxy.Connection, *smtpproxy.Keywords) error {
	k.c.note("outer.keywords")
	return nil
}

// A wrapper stands for what it is in the place of: the rest is still its hook's.
func TestAWrapperHidesOnlyWhatItIsItself(t *testing.T) {
	var c calls
	live(keywordsAlone{seeThrough{c.funcs("inner.", "ckd")}, &c})
	if got, want := c.took(), "inner.connect outer.keywords inner.disconnect"; got != want {
		t.Errorf("called %q, want %q", got, want)
	}
}

// uncomparable is a hook that can't be compared or be the key of a map.
type uncomparable struct {
	_ func()
	c *calls
	_ []int
}

func (u uncomparable) Command(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	u.c.note("line")
	return smtpproxy.Pass{Next: true}, nil
}

func (u uncomparable) Keywords(*smtpproxy.Context, smtpproxy.Connection, *smtpproxy.Keywords) error {
	u.c.note("keywords")
	return nil
}

// To compare such a hook, or to make it the key of a map, is a panic.
func TestHooksAreNeitherComparedNorHashed(t *testing.T) {
	var c calls
	u := uncomparable{c: &c}
	f := smtpproxy.HookFunc(u.Command)
	mux := &smtpproxy.Mux{Else: u}
	mux.Handle("NOOP", u)
	mux.Extend("XA", "XA", f)
	h := smtpproxy.Chain(u, f, smtpproxy.Named("n", u), mux, seesMany{u, f}, c.funcs("", "k"))
	p := &smtpproxy.Proxy{Hook: h, HookFor: func(smtpproxy.Connection) smtpproxy.Hook { return smtpproxy.Chain(h, u) }}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	s := proxytest.NewSession(p)
	for _, line := range []string{"EHLO x", "NOOP", "XA", "QUIT"} {
		s.Send(line)
	}
	if s.Failure() != nil {
		t.Fatal(s.Failure())
	}
	// u in the chain, with a name, and behind it; in the Mux as Else and for a verb; in
	// seesMany; the Funcs.
	if got := strings.Count(c.took(), "keywords"); got != 7 {
		t.Errorf("asked about the list %d times", got)
	}
	// A hook of a user's that calls the chain works with them, too.
	outer := proxytest.NewSession(&smtpproxy.Proxy{Hook: hidden{h}})
	if outer.Send("NOOP"); outer.Failure() != nil || !strings.Contains(c.took(), "line line line line") {
		t.Errorf("failed with %v", outer.Failure())
	}
}

func TestExtendPanicsAsHandleDoes(t *testing.T) {
	pass := smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return nil, nil
	})
	for _, row := range []struct {
		why, keyword, verb string
		hook               smtpproxy.Hook
		text               string // of the panic; "" is none
	}{
		{"a keyword alone", "XPING", "XPING", pass, ""},
		{"with parameters", "XCLIENT NAME ADDR", "XCLIENT", pass, ""},
		{"in lower case", "xping", "xping", pass, ""},
		{"a verb of another name", "XKEY", "XVERB", pass, ""},
		{"the verb has a hook", "XNEW", "taken", pass, "hook for TAKEN already"},
		{"no hook", "XPING", "XPING", nil, "no hook for XPING"},
		{"no verb", "XPING", "", pass, `"" is no verb`},
		{"a verb with a blank", "XPING", "X PING", pass, "is no verb"},
		{"no keyword", "", "XPING", pass, `"" is no keyword`},
		{"a blank first", " XPING", "XPING", pass, "is no keyword"},
		{"an old form of AUTH", "AUTH=PLAIN", "XPING", pass, "is no keyword"},
		{"a line end", "XPING a\r\nb", "XPING", pass, "is no keyword"},
		{"too long a line", "XPING " + strings.Repeat("a", 512), "XPING", pass, "is no keyword"},
		{"STARTTLS is the library's", "STARTTLS", "STARTTLS", pass, "is no keyword"},
	} {
		got := func() (text string) {
			defer func() {
				if v := recover(); v != nil {
					text = fmt.Sprint(v)
				}
			}()
			m := new(smtpproxy.Mux)
			m.Handle("TAKEN", pass)
			m.Extend(row.keyword, row.verb, row.hook)
			return ""
		}()
		if (got == "") != (row.text == "") || !strings.Contains(got, row.text) {
			t.Errorf("%s: panics with %q, want %q", row.why, got, row.text)
		}
	}
}
