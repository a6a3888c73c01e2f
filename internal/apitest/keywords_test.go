package apitest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// ehloLines is a list with all that makes lists differ: letters in any case, blanks
// within and behind, a keyword that old clients look for, and one that is none.
var ehloLines = []string{
	"mx.example greets you", "PIPELINING", "8bitmime", "AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN", "auth=CRAM-MD5",
	"Size 1000", "X_ODD  two  blanks ", "DSN", "",
}

// onKeywords is a hook that is asked about the list alone.
func onKeywords(f func(kw *smtpproxy.Keywords) error) smtpproxy.Hook {
	return smtpproxy.Funcs{OnKeywords: func(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error { return f(kw) }}
}

// listed returns the lines that a client gets for those of the server.
func listed(t *testing.T, lines []string, change func(kw *smtpproxy.Keywords)) (r smtpproxy.Reply) {
	t.Helper()
	called := false
	s := (&smtpproxy.Proxy{Hook: onKeywords(func(kw *smtpproxy.Keywords) error {
		called = true
		change(kw)
		return nil
	})}).NewSession(smtpproxy.Connection{})
	s.Command(t.Context(), "EHLO client.example")
	r = s.Replied(250, lines...)
	if !called {
		t.Fatal("the hook wasn't asked")
	}
	return r
}

func TestKeywordsAreFoundInAnyCase(t *testing.T) {
	for _, row := range []struct {
		name, params string
		ok           bool
		why          string
	}{
		{"SIZE", "1000", true, "as it is written in the RFC"},
		{"sIzE", "1000", true, "in any case"},
		{"8BITMIME", "", true, "without parameters, in lower case in the list"},
		{"AUTH", "PLAIN LOGIN", true, "AUTH is another than AUTH="},
		{"auth=", "PLAIN LOGIN", true, "the first of two lines"},
		{"X_ODD", " two  blanks ", true, "what is no keyword, as it is"},
		{"CHUNKING", "", false, "what isn't there"},
		{"mx.example", "", false, "the first line is the greeting"},
		{"SIZE 1000", "", false, "a line is no name"},
		{"SI", "", false, "the beginning of a name is no name"},
	} {
		listed(t, ehloLines, func(kw *smtpproxy.Keywords) {
			if params, ok := kw.Get(row.name); params != row.params || ok != row.ok {
				t.Errorf("%s: Get(%q) returns %q, %v", row.why, row.name, params, ok)
			}
		})
	}
}

func TestKeywordsComeInTheOrderOfTheListAndInUpperCase(t *testing.T) {
	listed(t, ehloLines, func(kw *smtpproxy.Keywords) {
		var got []string
		for name, params := range kw.All() {
			got = append(got, name+"|"+params)
		}
		want := []string{
			"PIPELINING|", "8BITMIME|", "AUTH|PLAIN LOGIN", "AUTH=|PLAIN LOGIN", "AUTH=|CRAM-MD5", "SIZE|1000",
			"X_ODD| two  blanks ", "DSN|", "|",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		for name := range kw.All() {
			if name != "PIPELINING" {
				t.Error("the loop goes on behind its end")
			}
			break
		}
	})
}

func TestAListThatNobodyChangesIsThatOfTheServer(t *testing.T) {
	for why, change := range map[string]func(kw *smtpproxy.Keywords){
		"nothing is done":           func(*smtpproxy.Keywords) {},
		"it is looked at":           func(kw *smtpproxy.Keywords) { kw.Get("SIZE"); _ = slices.Sorted(keys(kw)) },
		"what isn't there is taken": func(kw *smtpproxy.Keywords) { kw.Delete("ETRN") },
		"STARTTLS is set":           func(kw *smtpproxy.Keywords) { kw.Set("starttls", "") },
	} {
		lines := slices.Clone(ehloLines)
		if r := listed(t, lines, change); !slices.Equal(r.Lines, ehloLines) || r.Code != 250 || r.Disconnect {
			t.Errorf("%s: %q", why, r)
		}
		if !slices.Equal(lines, ehloLines) {
			t.Errorf("%s: the host's own lines have become %q", why, lines)
		}
	}
}

func keys(kw *smtpproxy.Keywords) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range kw.All() {
			if !yield(name) {
				return
			}
		}
	}
}

func TestAListIsChangedInPlace(t *testing.T) {
	few := []string{"mx.example", "PIPELINING", "Size 1000", "AUTH PLAIN", "AUTH=PLAIN", "DSN"}
	for _, row := range []struct {
		why    string
		change func(kw *smtpproxy.Keywords)
		want   string
	}{
		{"what is there keeps its place", func(kw *smtpproxy.Keywords) { kw.Set("size", "500") }, "PIPELINING|SIZE 500|AUTH PLAIN|AUTH=PLAIN|DSN"},
		{"what is new comes last", func(kw *smtpproxy.Keywords) { kw.Set("xping", "") }, "PIPELINING|Size 1000|AUTH PLAIN|AUTH=PLAIN|DSN|XPING"},
		{"in the order in which it is set", func(kw *smtpproxy.Keywords) { kw.Set("XB", "2"); kw.Set("XA", "1") }, "PIPELINING|Size 1000|AUTH PLAIN|AUTH=PLAIN|DSN|XB 2|XA 1"},
		{"parameters are taken away", func(kw *smtpproxy.Keywords) { kw.Set("SIZE", "") }, "PIPELINING|SIZE|AUTH PLAIN|AUTH=PLAIN|DSN"},
		{"blanks at the end aren't sent", func(kw *smtpproxy.Keywords) { kw.Set("SIZE", "5  ") }, "PIPELINING|SIZE 5|AUTH PLAIN|AUTH=PLAIN|DSN"},
		{"AUTH alone", func(kw *smtpproxy.Keywords) { kw.Set("AUTH", "LOGIN") }, "PIPELINING|Size 1000|AUTH LOGIN|AUTH=PLAIN|DSN"},
		{"AUTH= alone", func(kw *smtpproxy.Keywords) { kw.Set("auth=", "LOGIN XA") }, "PIPELINING|Size 1000|AUTH PLAIN|AUTH=LOGIN XA|DSN"},
		{"one is taken out", func(kw *smtpproxy.Keywords) { kw.Delete("siZe") }, "PIPELINING|AUTH PLAIN|AUTH=PLAIN|DSN"},
		{"AUTH takes AUTH= with it", func(kw *smtpproxy.Keywords) { kw.Delete("auth") }, "PIPELINING|Size 1000|DSN"},
		{"and so does AUTH=", func(kw *smtpproxy.Keywords) { kw.Delete("AUTH=") }, "PIPELINING|Size 1000|DSN"},
		{"what is taken out may come back", func(kw *smtpproxy.Keywords) { kw.Delete("SIZE"); kw.Set("SIZE", "7") }, "PIPELINING|AUTH PLAIN|AUTH=PLAIN|DSN|SIZE 7"},
		{"what is set may be taken out", func(kw *smtpproxy.Keywords) { kw.Set("XA", ""); kw.Delete("xa") }, "PIPELINING|Size 1000|AUTH PLAIN|AUTH=PLAIN|DSN"},
		{"all of it", func(kw *smtpproxy.Keywords) {
			for _, name := range slices.Collect(keys(kw)) {
				kw.Delete(name)
			}
		}, ""},
	} {
		got := listed(t, few, row.change).Lines
		if got[0] != "mx.example" || strings.Join(got[1:], "|") != row.want {
			t.Errorf("%s: %q", row.why, got)
		}
	}
}

// A list may come with two lines of one keyword. What a hook sets is all that is left of
// them, or AUTH with fewer mechanisms would be AUTH with all.
func TestWhatIsSetTakesThePlaceOfAllLinesOfTheKeyword(t *testing.T) {
	got := listed(t, []string{"mx.example", "AUTH PLAIN", "SIZE", "auth LOGIN", "AUTH=PLAIN", "AUTH X"}, func(kw *smtpproxy.Keywords) {
		kw.Set("AUTH", "XOAUTH2")
	}).Lines
	if want := []string{"mx.example", "AUTH XOAUTH2", "SIZE", "AUTH=PLAIN"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A hook that lets through no more than it knows deletes whatever else there is, lines
// that no client understands included.
func TestAHookMayDeleteAllThatItDoesNotKnow(t *testing.T) {
	r := listed(t, ehloLines, func(kw *smtpproxy.Keywords) {
		for _, name := range slices.Collect(keys(kw)) {
			if name != "DSN" && name != "PIPELINING" {
				kw.Delete(name)
			}
		}
	})
	if want := []string{ehloLines[0], "PIPELINING", "DSN"}; !slices.Equal(r.Lines, want) || r.Disconnect {
		t.Errorf("got %q", r)
	}
}

func TestAListThatCanNotBeSentIsAFailure(t *testing.T) {
	long := func(name string, line int) string { return strings.Repeat("x", line-len("250- \r\n")-len(name)) }
	for _, row := range []struct {
		why   string
		do    func(kw *smtpproxy.Keywords)
		valid bool
	}{
		{"a line of 512 octets", func(kw *smtpproxy.Keywords) { kw.Set("XA", long("XA", 512)) }, true},
		{"a line of 513 octets", func(kw *smtpproxy.Keywords) { kw.Set("XA", long("XA", 513)) }, false},
		{"a tab is no control character here", func(kw *smtpproxy.Keywords) { kw.Set("XA", "a\tb") }, true},
		{"a hyphen within", func(kw *smtpproxy.Keywords) { kw.Set("MT-PRIORITY", "MIXER") }, true},
		{"a digit first", func(kw *smtpproxy.Keywords) { kw.Set("8BITMIME", "") }, true},
		{"a line end in the parameters", func(kw *smtpproxy.Keywords) { kw.Set("XA", "a\r\n250 ok") }, false},
		{"NUL in the parameters", func(kw *smtpproxy.Keywords) { kw.Set("XA", "\x00") }, false},
		{"DEL in the parameters", func(kw *smtpproxy.Keywords) { kw.Set("XA", "\x7f") }, false},
		{"no name", func(kw *smtpproxy.Keywords) { kw.Set("", "a") }, false},
		{"a name that is a line", func(kw *smtpproxy.Keywords) { kw.Set("SIZE 10", "") }, false},
		{"a name with a line end", func(kw *smtpproxy.Keywords) { kw.Set("XA\r\n250 ok", "") }, false},
		{"a name that begins with a hyphen", func(kw *smtpproxy.Keywords) { kw.Set("-XA", "") }, false},
		{"a name beyond ASCII", func(kw *smtpproxy.Keywords) { kw.Set("\u017fIZE", "") }, false},
		{"a name with a low line", func(kw *smtpproxy.Keywords) { kw.Set("X_A", "") }, false},
		{"a name with an equals sign", func(kw *smtpproxy.Keywords) { kw.Set("SIZE=", "1") }, false},
		{"an equals sign alone", func(kw *smtpproxy.Keywords) { kw.Set("=", "") }, false},
		{"a mistake that is mended later", func(kw *smtpproxy.Keywords) { kw.Set("X A", ""); kw.Delete("XA") }, false},
		{"Delete with a line for a name", func(kw *smtpproxy.Keywords) { kw.Delete("SIZE 1000") }, false},
		{"Delete without a name", func(kw *smtpproxy.Keywords) { kw.Delete("") }, false},
		{"Delete with what is no name, and isn't there", func(kw *smtpproxy.Keywords) { kw.Delete("X_ODD") }, false},
	} {
		got := listed(t, []string{"mx.example", "SIZE 1000"}, row.do)
		if got.Disconnect == row.valid || row.valid != (got.Code == 250) || !row.valid && got.Code != 421 {
			t.Errorf("%s: %q", row.why, got)
		}
	}
}

func TestAnInvalidListIsTheFailureOfTheHookThatMadeIt(t *testing.T) {
	told := make(chan error, 1)
	p := &smtpproxy.Proxy{
		Hook: smtpproxy.Chain(
			smtpproxy.Named("first", onKeywords(func(kw *smtpproxy.Keywords) error { kw.Delete("SIZE"); return nil })),
			smtpproxy.Named("second", onKeywords(func(kw *smtpproxy.Keywords) error { kw.Set("X X", ""); return nil })),
			smtpproxy.Named("third", onKeywords(func(*smtpproxy.Keywords) error { t.Error("asked behind a failure"); return nil })),
			smtpproxy.Funcs{OnDisconnect: func(_ *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) { told <- end.Err }},
		),
		OnFailure: func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision {
			t.Error("OnFailure is asked, though the server has accepted the command")
			return smtpproxy.Pass{}
		},
	}
	s := p.NewSession(smtpproxy.Connection{})
	s.Command(t.Context(), "EHLO x")
	if r := s.Replied(250, "mx.example", "SIZE"); r.Code != 421 || !r.Disconnect || s.Context().Err() == nil {
		t.Errorf("got %q", r)
	}
	s.Close()
	var f smtpproxy.Failure
	if err := <-told; !errors.As(err, &f) || f.Hook != "second" || !errors.Is(err, smtpproxy.ErrInvalidDecision) || !strings.Contains(fmt.Sprint(err), `"X X"`) {
		t.Errorf("the end is told to be by %+v", f)
	}
}
