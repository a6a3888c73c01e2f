package e2e

import (
	"bytes"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about the RSET that a server gets before MAIL, where it may have kept
// something of an earlier transaction (see certainty_test.go for where that is).

// doubtful is a client of a puppet that has refused a message, and has got nothing
// since.
type doubtful struct {
	*peer
	pup   *puppet
	ended chan struct{}
}

func inDoubt(t *testing.T, tr transport, p *smtpproxy.Proxy, pup *puppet) doubtful {
	t.Helper()
	d := doubtful{pup: pup, ended: make(chan struct{})}
	pup.codes = map[string][]int{".": {550}}
	d.peer = runScript(t, tr, p, func(c net.Conn) {
		defer close(d.ended)
		pup.serve(c)
	})
	d.expect("220")
	d.ask("EHLO x", "250")
	d.refuseMessage()
	pup.took()
	return d
}

// refuseMessage sends one that is refused.
func (d doubtful) refuseMessage() {
	d.t.Helper()
	d.ask("MAIL FROM:<a@a>", "250")
	d.ask("RCPT TO:<b@b>", "250")
	d.ask("DATA", "354")
	d.ask("hi\r\n.", "550")
}

// took returns what the server has got up to the end.
func (d doubtful) took() []string {
	d.Close()
	<-d.ended
	return d.pup.took()
}

func TestWhatTheServerAnswersToRSETDecidesAboutMAIL(t *testing.T) {
	const (
		mail = "MAIL FROM:<c@c>"
		ok   = "250 as told"
	)
	for _, tt := range []struct {
		why    string
		answer []string // in one Write each
		want   string   // what the client gets in reply to MAIL
	}{
		{"accepted", []string{"250 reset\r\n"}, ok},
		{"accepted with another 2xx", []string{"200 reset\r\n"}, ok},
		{"accepted in two lines", []string{"250-re\r\n250 set\r\n"}, ok},
		{"accepted in two writes", []string{"250-re\r\n25", "0 set\r\n"}, ok},
		{"the server leaves", []string{"421 4.3.2 leaving\r\n"}, "421 4.3.2 leaving"},
		{"unknown", []string{"500 what?\r\n"}, "421 4.3.0"},
		{"refused", []string{"550 no\r\n"}, "421 4.3.0"},
		{"refused for now", []string{"451 later\r\n"}, "421 4.3.0"},
		{"a request for content", []string{"354 go on\r\n"}, "421 4.3.0"},
		{"a challenge", []string{"334 go on\r\n"}, "421 4.3.0"},
		{"a greeting", []string{"220 hello\r\n"}, "421 4.3.0"},
		{"nonsense", []string{"reset\r\n"}, "421 4.3.0"},
		{"accepted twice", []string{"250 reset\r\n250 reset\r\n"}, "421 4.3.0"},
	} {
		for _, behind := range []string{"", "RCPT TO:<d@d>\r\nNOOP\r\n"} {
			hook, pup := &passLog{}, &puppet{says: map[string][]string{"RSET": tt.answer}}
			d := inDoubt(t, overTCP(t), &smtpproxy.Proxy{Hook: hook}, pup)
			d.send(mail + "\r\n" + behind)
			d.expect(tt.want)
			want := []string{"RSET"}
			switch {
			case tt.want != ok:
				d.expectEnd()
			case behind != "":
				d.expect(ok, ok)
				want = []string{"RSET", mail, "RCPT TO:<d@d>", "NOOP"}
			default:
				want = []string{"RSET", mail}
			}
			if got := d.took(); !slices.Equal(got, want) {
				t.Errorf("%s: the server got %q, want %q", tt.why, got, want)
			}
			if got := hook.passed(); slices.Contains(got, "RSET") {
				t.Errorf("%s: the hook was shown %q", tt.why, got)
			}
		}
	}
}

func TestRepliesThatAreHeldDoNotWaitForRSET(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		pup := &puppet{takes: map[string]time.Duration{"RSET": time.Minute}}
		d := inDoubt(t, overPipe(t), &smtpproxy.Proxy{}, pup)
		d.SetDeadline(time.Time{})
		d.send("RCPT TO:<early@x>\r\nMAIL FROM:<c@c>\r\nRCPT TO:<d@d>\r\nQUIT\r\n")
		got := d.diary()
		want := []string{`5ms "503 5.5.1`, `1m0s "250 as told`, `1m0s "250 as told`, `1m0s "221`, `1m0s ""`}
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Before the hook has decided, nobody knows whether there will be a MAIL at all.
func TestRSETIsSentWhenTheHookHasPassedMAILAndNotBefore(t *testing.T) {
	for _, tt := range []struct {
		why     string
		decide  func() (decision, error)
		instead decision // OnFailure's
		want    string
		server  []string
	}{
		{"passed", func() (decision, error) { return nil, nil }, nil, "250", []string{"RSET", "MAIL FROM:<c@c>"}},
		{"passed, changed", func() (decision, error) { return pass{Command: "MAIL FROM:<e@e>"}, nil }, nil, "250", []string{"RSET", "MAIL FROM:<e@e>"}},
		{"made another command", func() (decision, error) { return pass{Command: "NOOP"}, nil }, nil, "250", []string{"NOOP"}},
		{"accepted by the hook", func() (decision, error) { return reply{}, nil }, nil, "250", nil},
		{"refused by the hook", func() (decision, error) { return reply{Code: 550}, nil }, nil, "550", nil},
		{"the hook disconnects", func() (decision, error) { return reply{Code: 550, Disconnect: true}, nil }, nil, "550", nil},
		{"the hook fails", func() (decision, error) { return nil, errTest }, nil, "421", nil},
		{"the hook panics", func() (decision, error) { panic("no") }, nil, "421", nil},
		{"the hook fails, and OnFailure passes", func() (decision, error) { return nil, errTest }, pass{}, "250", []string{"RSET", "MAIL FROM:<c@c>"}},
		{"the hook fails, and OnFailure refuses", func() (decision, error) { return nil, errTest }, reply{Code: 451}, "451", nil},
	} {
		pup := &puppet{}
		hook := decide(func(cmd command) (decision, error) {
			if cmd.Line == "MAIL FROM:<c@c>" {
				return tt.decide()
			}
			return nil, nil
		})
		p := &smtpproxy.Proxy{Hook: hook, OnFailure: func(*hookContext, smtpproxy.Failure) decision { return tt.instead }}
		d := inDoubt(t, overTCP(t), p, pup)
		d.ask("MAIL FROM:<c@c>", tt.want)
		if got := d.took(); !slices.Equal(got, tt.server) {
			t.Errorf("%s: the server got %q, want %q", tt.why, got, tt.server)
		}
	}
	// Another command that the hook makes MAIL of is one.
	pup := &puppet{}
	d := inDoubt(t, overTCP(t), &smtpproxy.Proxy{Hook: decide(func(cmd command) (decision, error) {
		if cmd.Verb() == "NOOP" {
			return pass{Command: "MAIL FROM:<c@c>"}, nil
		}
		return nil, nil
	})}, pup)
	d.ask("NOOP", "250")
	if got, want := d.took(), []string{"RSET", "MAIL FROM:<c@c>"}; !slices.Equal(got, want) {
		t.Errorf("made of NOOP: the server got %q, want %q", got, want)
	}
}

func TestRSETOfTheLibrarysOwnIsSentOnceAndOnlyWhereItIsNeeded(t *testing.T) {
	const refused = "MAIL FROM:<a@a>|RCPT TO:<b@b>|DATA|hi\r\n."
	for _, tt := range []struct {
		why   string
		codes map[string][]int
		say   string // lines, with a reply each
		want  int    // how often the server gets RSET
	}{
		{"no transaction before", nil, "MAIL FROM:<a@a>", 0},
		{"MAIL is refused, and another", map[string][]int{"MAIL": {550, 451}}, "MAIL FROM:<a@a>|MAIL FROM:<a@a>|MAIL FROM:<a@a>", 0},
		{"RCPT, DATA and BDAT without MAIL", nil, "RCPT TO:<b@b>|DATA|BDAT 0 LAST|MAIL FROM:<a@a>", 0},
		{"EHLO and HELO without a transaction", map[string][]int{"HELO": {550}}, "EHLO y|HELO z|MAIL FROM:<a@a>", 0},
		{"messages that are taken", nil, refused + "|" + refused + "|MAIL FROM:<c@c>", 0},
		{"a message that is refused", map[string][]int{".": {550}}, refused + "|MAIL FROM:<c@c>", 1},
		{"two of them", map[string][]int{".": {550, 451}}, refused + "|" + refused + "|MAIL FROM:<c@c>", 2},
		{"other commands in between", map[string][]int{".": {550}}, refused + "|NOOP|EHLO y|VRFY z|MAIL FROM:<c@c>", 1},
		{"MAIL behind it is refused, and another", map[string][]int{".": {550}, "MAIL": {250, 550, 451}}, refused + "|MAIL FROM:<c@c>|MAIL FROM:<d@d>|MAIL FROM:<e@e>", 1},
		{"the client's own RSET", map[string][]int{".": {550}}, refused + "|RSET|MAIL FROM:<c@c>", 1},
		{"the client's own RSET, which is refused", map[string][]int{".": {550}, "RSET": {550}}, refused + "|RSET|MAIL FROM:<c@c>", 2},
		{"no further MAIL", map[string][]int{".": {550}}, refused + "|NOOP", 0},
	} {
		pup := &puppet{codes: tt.codes}
		d := doubtful{pup: pup, ended: make(chan struct{})}
		d.peer = runScript(t, overTCP(t), &smtpproxy.Proxy{}, func(c net.Conn) {
			defer close(d.ended)
			pup.serve(c)
		})
		d.expect("220")
		d.ask("EHLO x", "250")
		for line := range strings.SplitSeq(tt.say, "|") {
			d.send(line + "\r\n")
			d.reply()
		}
		got := slices.DeleteFunc(d.took(), func(line string) bool { return line != "RSET" })
		if len(got) != tt.want {
			t.Errorf("%s: RSET %d times, want %d", tt.why, len(got), tt.want)
		}
	}
}

func TestRSETOfTheLibrarysOwnIsShownToNobodyAndCounted(t *testing.T) {
	var shown []string
	var txns []transaction
	var log bytes.Buffer
	hook := smtpproxy.HookFunc(func(_ *hookContext, cmd command, _ connection, txn transaction) (decision, error) {
		shown, txns = append(shown, cmd.Line), append(txns, txn)
		return nil, nil
	})
	pup := &puppet{}
	p := &smtpproxy.Proxy{Hook: hook, MaxCommands: 8, MaxErrors: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	d := inDoubt(t, overTCP(t), p, pup)
	for _, line := range []string{"MAIL FROM:<c@c>", "RCPT TO:<d@d>", "NOOP", "NOOP"} {
		d.ask(line, "250")
	}
	d.ask("NOOP", "421 4.7.0 Too many commands")
	want := []string{"EHLO x", "MAIL FROM:<a@a>", "RCPT TO:<b@b>", "DATA", "MAIL FROM:<c@c>", "RCPT TO:<d@d>", "NOOP", "NOOP"}
	if !slices.Equal(shown, want) {
		t.Errorf("the hook was shown %q, want %q", shown, want)
	}
	if txns[4].ID != txns[5].ID || txns[4].ID == txns[3].ID || txns[4].Active || !txns[5].Active {
		t.Errorf("the transactions that the hook was told of: %v", txns[3:6])
	}
	if strings.Contains(log.String(), "RSET") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("logged %s; want the end alone", &log)
	}
	d.took()
}

func TestRepliesToAGroupBehindARefusedMessageStayInOrder(t *testing.T) {
	group := "x\r\n.\r\nMAIL FROM:<1@a>\r\nRCPT TO:<no@b>\r\nRCPT TO:<b@b>\r\nDATA\r\n"
	for _, server := range []struct {
		why   string
		start func() *servertest.Server
	}{
		{"strict", func() *servertest.Server { return servertest.Strict(servertest.AnswerMessages("550 5.7.1 no")) }},
		{"it keeps the envelope", func() *servertest.Server {
			return servertest.Lenient(servertest.AnswerMessages("550 5.7.1 no"), servertest.KeepEnvelope())
		}},
		{"reads ahead", func() *servertest.Server { return servertest.RunAhead(servertest.AnswerMessages("550 5.7.1 no")) }},
		{"in pieces", func() *servertest.Server {
			return servertest.Strict(servertest.AnswerMessages("550 5.7.1 no"), servertest.LineByLine())
		}},
	} {
		for name, listen := range transports {
			for _, cut := range []int{len(group), 7, 1} {
				s := server.start()
				c := behindListener(&smtpproxy.Proxy{}, s).connect(t, listen(t))
				c.expect("220")
				c.ask("EHLO x", "250")
				c.send("MAIL FROM:<0@a>\r\nRCPT TO:<b@b>\r\nDATA\r\n")
				c.expect("250 2.1.0", "250 2.1.5", "354")
				for range 3 {
					for piece := range slices.Chunk([]byte(group), cut) {
						c.send(string(piece))
					}
					c.expect("550 5.7.1", "250 2.1.0", "550 5.1.1", "250 2.1.5", "354")
				}
				c.ask(".", "550 5.7.1")
				c.ask("QUIT", "221")
				c.Close()
				s.Close()
				mail := []string{"MAIL FROM:<1@a>", "RCPT TO:<no@b>", "RCPT TO:<b@b>", "DATA", "RSET"}
				want := slices.Concat([]string{"EHLO x", "MAIL FROM:<0@a>", "RCPT TO:<b@b>", "DATA", "RSET"}, mail, mail, mail[:4], []string{"QUIT"})
				if got := s.Commands(); !slices.Equal(got, want) {
					t.Errorf("%s over %s in pieces of %d: the server executed %q", server.why, name, cut, got)
				}
			}
		}
	}
}
