package smtpproxy

import (
	"testing"
	"unsafe"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file is what only the inside shows: what is kept of a connection, and its size.

// Go allocates in sizes of its own: 192, 208, 224, 240, 256, 288, 320, 352 octets and so
// on. One field too many, and each idle connection takes the next larger one. Most connections are idle
// most of the time.
func TestAnIdleConnectionTakesNoMoreThanTheSizesOfItsParts(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("sizes are those of a 64-bit system")
	}
	for _, part := range []struct {
		what       string
		size, most uintptr
	}{
		{"conn", unsafe.Sizeof(conn{}), 288},
		{"Session", unsafe.Sizeof(Session{}), 352},
		// There in a transaction.
		{"Transaction", unsafe.Sizeof(Transaction{}), 208},
	} {
		if part.size > part.most {
			t.Errorf("%s has %d octets, more than %d", part.what, part.size, part.most)
		}
	}
}

func TestNothingIsKeptOfAMAILThatHasWaitedForRSET(t *testing.T) {
	s := newSession(new(Proxy).config(), facts{}, "", (&Transaction{Active: true}).known(), true)
	s.Replied(220)
	for _, line := range []string{"EHLO a.example", "NOOP"} {
		s.Command(t.Context(), line)
		s.Replied(501) // which leaves in doubt whether there is a transaction
	}
	var d decision
	s.decide(t.Context(), "MAIL FROM:<a@b>", &d)
	if d.pass.Command != dialogue.ResetCommand {
		t.Fatalf("the server gets %q, it isn't reset", d.pass.Command)
	}
	s.Replied(250)
	if !s.m.HandMAIL() || s.line != "MAIL FROM:<a@b>" {
		t.Fatalf("then it gets %q", s.line)
	}
	s.Replied(550)
	if s.line != "" {
		t.Errorf("kept: %q", s.line)
	}
	if s.decide(t.Context(), "MAIL FROM:<a@b>", &d); d.pass.Command != "MAIL FROM:<a@b>" {
		t.Errorf("reset once more: %q", d.pass.Command)
	}
}

// What a Write and a Read on two goroutines may come to, one step after the other: the
// reply has begun before there is a command, and is complete when RCPT is passed.
func TestAReplyThatHasBegunBeforeTheRCPTCommandIsOutOfStep(t *testing.T) {
	s := newSession(new(Proxy).config(), facts{}, "", (&Transaction{Active: true}).known(), true)
	s.Replied(220)
	s.mu.Lock()
	accepted := s.accepts(250, new(Recipient))
	s.mu.Unlock()
	s.Command(t.Context(), "RCPT TO:<c@d>")
	s.mu.Lock()
	step := s.replied(250, accepted, 0)
	s.mu.Unlock()
	if step.Fate != dialogue.LoseStep || s.m.Reason() != dialogue.OutOfStep || s.Context().Err() == nil {
		t.Errorf("the reply's fate is %d, the session ends for %q, %v", step.Fate, s.m.Reason(), s.Context().Err())
	}
	if n := s.Transaction().Recipients.Len(); n > 0 {
		t.Errorf("there are %d recipients", n)
	}
}

// What a Funcs has no function for costs nothing: nobody asks it.
func TestFuncsCountOnlyForWhatIsSet(t *testing.T) {
	all := Funcs{
		OnConnect:    func(*Context, Connection) (Decision, error) { return nil, nil },
		OnCommand:    func(*Context, Command, Connection, Transaction) (Decision, error) { return nil, nil },
		OnKeywords:   func(*Context, Connection, *Keywords) error { return nil },
		OnDisconnect: func(*Context, Connection, End) {},
	}
	for why, row := range map[string]struct {
		f    Funcs
		want [4]int // hooks asked about: the connection, commands, keywords, the end
	}{
		"nothing":    {Funcs{}, [4]int{}},
		"all":        {all, [4]int{1, 1, 1, 1}},
		"connection": {Funcs{OnConnect: all.OnConnect}, [4]int{1, 0, 0, 0}},
		"commands":   {Funcs{OnCommand: all.OnCommand}, [4]int{0, 1, 0, 0}},
		"keywords":   {Funcs{OnKeywords: all.OnKeywords}, [4]int{0, 0, 1, 0}},
		"the end":    {Funcs{OnDisconnect: all.OnDisconnect}, [4]int{0, 0, 0, 1}},
	} {
		for _, h := range []Hook{row.f, &row.f, Chain(row.f), Named("n", &row.f)} {
			l, err := linksOf(h)
			if got := [4]int{len(l.connect), len(l.steps), len(l.keywords), len(l.disconnect)}; got != row.want || err != nil {
				t.Errorf("%s, %T: %v, %v; want %v", why, h, got, err, row.want)
			}
		}
	}
	l, _ := linksOf(&Mux{Else: all})
	if got := len(l.keywords); got != 1 {
		t.Errorf("a Mux that announces nothing is asked about the list: %d hooks", got)
	}
}
