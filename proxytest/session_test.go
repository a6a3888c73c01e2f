package proxytest

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // hooks fail here all the time
	goleak.VerifyTestMain(m)
}

// decide returns a proxy with a hook that makes the same of every command.
func decide(f func(ctx *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error)) *smtpproxy.Proxy {
	return &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return f(ctx, cmd)
	})}
}

// passAll is a hook that is called, and passes.
var passAll = decide(func(*smtpproxy.Context, smtpproxy.Command) (smtpproxy.Decision, error) { return nil, nil })

// step is a line of a client, and how its reply starts.
type step struct{ line, reply string }

// content as a line is message content.
const content = "(content)"

// play plays a dialogue.
func play(t *testing.T, s *Session, steps ...step) {
	t.Helper()
	for _, step := range steps {
		if step.line == content {
			s.SendContent()
		} else {
			s.Send(step.line)
		}
		if got := s.Reply().String(); !strings.HasPrefix(got, step.reply) {
			t.Errorf("%s: got %q, want %q", step.line, got, step.reply)
		}
	}
}

// sendAll sends lines whose replies don't matter.
func sendAll(s *Session, lines ...string) {
	for _, line := range lines {
		if line == content {
			s.SendContent()
		} else {
			s.Send(line)
		}
	}
}

// panics returns what f panics with, as text.
func panics(f func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	return "no panic"
}

func TestTheServerAcceptsWhatIsInOrderAndRefusesTheRest(t *testing.T) {
	play(t, NewSession(passAll),
		step{"NOOP", "250"},
		step{"MAIL FROM:<a@example.com>", "503"},
		step{"AUTH PLAIN", "503"},
		step{"EHLO", "501"},
		step{"HELO client.example", "250 server.example"},
		step{"RCPT TO:<b@example.org>", "503"},
		step{"DATA", "503"},
		step{"MAIL", "501"},
		step{"MAIL FROM:", "501"},
		step{"MAIL TO:<a@example.com>", "501"},
		step{"mail from:<a@example.com> SIZE=10", "250"},
		step{"DATA", "503"},
		step{"AUTH PLAIN", "503"},
		step{"RCPT FROM:<b@example.org>", "501"},
		step{"RCPT TO:<b@example.org>", "250"},
		step{"RSET", "250"},
		step{"RCPT TO:<b@example.org>", "503"},
		step{"MAIL FROM:<>", "250"},
		step{"RCPT TO:<b@example.org>", "250"},
		step{"VRFY b", "252"},
		step{"DATA", "354"},
		step{content, "250"},
		step{"RCPT TO:<b@example.org>", "503"},
		step{"HELP", "502"},
		step{"XYZZY", "500"},
		step{"QUIT", "221"},
	)
}

func TestTheServerOffersItsKeywords(t *testing.T) {
	const want = "server.example PIPELINING 8BITMIME SIZE 0 ENHANCEDSTATUSCODES CHUNKING SMTPUTF8 AUTH PLAIN LOGIN"
	for _, verb := range []string{"EHLO", "LHLO"} {
		s := NewSession(passAll)
		s.Send(verb + " client.example")
		if got := strings.Join(s.Reply().Lines, " "); got != want+" STARTTLS" {
			t.Errorf("%s: %s", verb, got)
		}
		s.Send("STARTTLS")
		s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
		s.Send(verb + " client.example")
		if got := strings.Join(s.Reply().Lines, " "); got != want {
			t.Errorf("%s after STARTTLS: %s", verb, got)
		}
	}
}

func TestTheServerTakesChunks(t *testing.T) {
	s := NewSession(passAll)
	play(t, s,
		step{"EHLO client.example", "250"},
		step{"BDAT 3", "502"},
		step{"MAIL FROM:<a@example.com>", "250"},
		step{"RCPT TO:<b@example.org>", "250"},
		step{"BDAT 3", "250"},
		step{"DATA", "503"},
		step{"RCPT TO:<c@example.org>", "503"},
		step{"BDAT 0", "250"},
		step{"bdat 3 last", "250"},
		step{"DATA", "503"},
		step{"MAIL FROM:<a@example.com>", "250"},
		step{"RCPT TO:<b@example.org>", "250"},
		step{"DATA", "354"},
	)
}

func TestAfterARefusedChunkTheTransactionIsOver(t *testing.T) {
	s := NewSession(passAll)
	s.Answer("BDAT", 552, "5.3.4 Too big")
	play(t, s,
		step{"EHLO client.example", "250"},
		step{"MAIL FROM:<a@example.com>", "250"},
		step{"RCPT TO:<b@example.org>", "250"},
		step{"BDAT 3", "552"},
		step{"BDAT 3 LAST", "502"},
		step{"MAIL FROM:<a@example.com>", "250"},
		step{"DATA", "503"},
	)
}

func TestAChunkThatTheHookAnswersIsNotTheServers(t *testing.T) {
	s := NewSession(decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		if cmd.Verb() == "BDAT" {
			return smtpproxy.Reply{Code: 550}, nil
		}
		return nil, nil
	}))
	s.Answer("BDAT", 451, "must stay unused")
	play(t, s,
		step{"EHLO client.example", "250"},
		step{"MAIL FROM:<a@example.com>", "250"},
		step{"RCPT TO:<b@example.org>", "250"},
		step{"BDAT 3", "550"},
		step{"RSET", "250"},
	)
}

func TestLMTPRepliesOncePerRecipient(t *testing.T) {
	for _, end := range [][]string{{"DATA", content}, {"BDAT 3 LAST"}} {
		s := NewSession(passAll)
		sendAll(s, "LHLO client.example", "MAIL FROM:<a@example.com>",
			"RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "RCPT TO:<b@example.org>")
		sendAll(s, end[:len(end)-1]...)
		s.Answer(end[0][:4], 250, "2.1.5 b")
		s.Answer(end[0][:4], 550, "5.1.1 c")
		sendAll(s, end[len(end)-1])
		var got []string
		for _, r := range s.Replies() {
			got = append(got, r.String())
		}
		if want := []string{"250 2.1.5 b", "550 5.1.1 c", "250 2.0.0 OK"}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", end, got, want)
		}
		if s.Transaction().Active {
			t.Errorf("%s: the transaction is open after its last reply", end)
		}
		play(t, s, step{"DATA", "503"})
	}
}

func TestA421ForOneRecipientDoesNotHideTheNext(t *testing.T) {
	s := NewSession(passAll)
	sendAll(s, "LHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "DATA")
	s.Answer("DATA", 421)
	s.SendContent()
	// RFC 2033 section 4.2: the second is for the other recipient.
	var codes []int
	for _, r := range s.Replies() {
		codes = append(codes, r.Code)
	}
	if !slices.Equal(codes, []int{421, 250}) || s.Closed() {
		t.Errorf("replies %d, closed %v; want 421 and 250, and it's open", codes, s.Closed())
	}
}

func TestAuthenticationTakesAnInitialResponseOrLines(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []step
		auth  bool
	}{
		{"PLAIN", []step{{"AUTH PLAIN", "334 "}, {"AGEAYg==", "235"}}, true},
		{"PLAIN at once", []step{{"AUTH PLAIN AGEAYg==", "235"}}, true},
		{"LOGIN asks twice", []step{{"auth login", "334 VXNlcm5hbWU6"}, {"YQ==", "334 UGFzc3dvcmQ6"}, {"Yg==", "235"}}, true},
		{"LOGIN asks once", []step{{"AUTH LOGIN YQ==", "334 UGFzc3dvcmQ6"}, {"Yg==", "235"}}, true},
		{"cancelled", []step{{"AUTH LOGIN", "334"}, {"YQ==", "334"}, {"*", "501"}, {"NOOP", "250"}}, false},
		{"after a cancelled one", []step{{"AUTH LOGIN", "334"}, {"*", "501"}, {"AUTH PLAIN", "334"}, {"AGEAYg==", "235"}}, true},
		{"no mechanism", []step{{"AUTH", "501"}}, false},
		{"too many words", []step{{"AUTH PLAIN a b", "501"}}, false},
		{"unknown mechanism", []step{{"AUTH X", "504"}}, false},
		{"twice", []step{{"AUTH PLAIN AGEAYg==", "235"}, {"AUTH PLAIN AGEAYg==", "503"}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := NewSession(passAll)
			s.Send("EHLO client.example")
			play(t, s, tt.steps...)
			if got := s.Connection().Auth.Mechanism != ""; got != tt.auth {
				t.Errorf("authenticated: %v, want %v", got, tt.auth)
			}
		})
	}
}

func TestAnAnswerIsForTheNextCommandWithItsVerb(t *testing.T) {
	s := NewSession(passAll)
	s.Answer("mail", 451, "4.3.0 first")
	s.Answer("MAIL", 452)
	s.Answer("AUTH", 334, "Y2hhbGxlbmdl")
	s.Answer("AUTH", 535, "5.7.8 no")
	play(t, s,
		step{"EHLO client.example", "250"},
		step{"MAIL FROM:<a@example.com>", "451 4.3.0 first"},
		step{"AUTH SCRAM-SHA-256", "334 Y2hhbGxlbmdl"},
		step{"cmVzcG9uc2U=", "535 5.7.8 no"},
		step{"Mail From:<a@example.com>", "452 4.0.0 Requested action not taken"},
		step{"MAIL FROM:<a@example.com>", "250 2.1.0"},
		step{"RCPT TO:<b@example.org>", "250"},
	)
	s.Answer("DATA", 354)
	s.Answer("DATA", 554, "5.6.0 first", "5.6.0 second")
	play(t, s, step{"DATA", "354"}, step{content, "554-5.6.0 first\r\n554 5.6.0 second"})
}

func TestAnAnswerIsForWhatTheServerGets(t *testing.T) {
	s := NewSession(decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		switch cmd.Verb() {
		case "VRFY":
			return smtpproxy.Pass{Command: "NOOP"}, nil
		case "RCPT":
			return smtpproxy.Reply{Code: 450}, nil
		}
		return nil, nil
	}))
	s.Answer("VRFY", 550, "must stay unused")
	s.Answer("RCPT", 550, "must stay unused")
	s.Answer("NOOP", 251, "that one")
	play(t, s, step{"RCPT TO:<b@example.org>", "450"}, step{"VRFY b", "251 that one"})
}

func TestTheViewsFollowTheAnswers(t *testing.T) {
	s := NewSession(passAll)
	s.Answer("EHLO", 550)
	s.Send("EHLO first.example")
	if h := s.Connection().HELO; h != (smtpproxy.HELO{}) {
		t.Errorf("a refused EHLO gives %+v", h)
	}
	s.Send("EHLO second.example")
	if h := s.Connection().HELO.Host; h != "second.example" {
		t.Errorf("host %q", h)
	}
	s.Send("MAIL FROM:<a@example.com>")
	s.Answer("RCPT", 550)
	s.Send("RCPT TO:<b@example.org>")
	s.Send("RCPT TO:<c@example.org>")
	if r := s.Transaction().Recipients; r.Len() != 1 || r.At(0).Recipient != "c@example.org" {
		t.Errorf("recipients %+v", r)
	}
}

func TestPresetValuesArriveInTheHookAsTheyAre(t *testing.T) {
	conn := smtpproxy.Connection{
		ID: "connection", RemoteIP: netip.MustParseAddr("2001:db8::1"), RemotePort: 1, RemotePTR: "client.example",
		Peer:    netip.MustParseAddrPort("[2001:db8::3]:3"),
		LocalIP: netip.MustParseAddr("2001:db8::2"), LocalPort: 2, ServerID: "server",
		HELO: smtpproxy.HELO{Verb: "LHLO", Host: "x"},
		TLS:  smtpproxy.TLS{Protocol: "TLSv1.2", PeerCert: smtpproxy.NewPeerCert(18, io.EOF)},
		Auth: smtpproxy.Auth{Mechanism: "EXTERNAL", Username: "u"},
	}
	txn := smtpproxy.Transaction{
		ID: "transaction", Active: true, Sender: "a@example.com", SenderParams: smtpproxy.NewParams("SIZE=1"),
		Recipients: smtpproxy.NewRecipients(smtpproxy.Recipient{Recipient: "b@example.org"}, smtpproxy.Recipient{Recipient: "c@example.org"}),
	}
	called := false
	s := ResumeSession(&smtpproxy.Proxy{ServerID: "another", Hook: smtpproxy.HookFunc(
		func(_ *smtpproxy.Context, _ smtpproxy.Command, c smtpproxy.Connection, x smtpproxy.Transaction) (smtpproxy.Decision, error) {
			if !called && (!reflect.DeepEqual(c, conn) || !reflect.DeepEqual(x, txn)) {
				t.Errorf("got %+v\n%+v", c, x)
			}
			called = true
			return nil, nil
		})}, conn, txn)
	// The server is where the transaction is, too.
	play(t, s, step{"DATA", "354"})
	if !called {
		t.Error("the hook wasn't called")
	}
	s.SendContent()
	if n := len(s.Replies()); n != 2 {
		t.Errorf("%d replies to an LMTP message for two", n)
	}
	play(t, s, step{"AUTH PLAIN", "503"}, step{"STARTTLS", "503"})
}

func TestAPresetTransactionNeedsNoGreeting(t *testing.T) {
	play(t, ResumeSession(passAll, smtpproxy.Connection{}, smtpproxy.Transaction{Active: true}),
		step{"RCPT TO:<b@example.org>", "250"},
		step{"RSET", "250"},
		step{"MAIL FROM:<a@example.com>", "250"},
	)
}

func TestANewSessionHasAddresses(t *testing.T) {
	c := NewSession(passAll).Connection()
	if !c.RemoteIP.Is4() || !c.LocalIP.Is4() || c.RemotePort == 0 || c.LocalPort != 25 || c.ID == "" {
		t.Errorf("%+v", c)
	}
}

func TestDecisionsAreValues(t *testing.T) {
	s := NewSession(decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		switch cmd.Verb() {
		case "NOOP":
			return &smtpproxy.Pass{Next: true}, nil
		case "VRFY":
			return &smtpproxy.Reply{}, nil
		}
		return nil, nil
	}))
	if d := s.Send("NOOP"); d != (smtpproxy.Pass{Command: "NOOP", Next: true}) {
		t.Errorf("got %#v", d)
	}
	if d, ok := s.Send("VRFY b").(smtpproxy.Reply); !ok || d.String() != "250 2.0.0 OK" || d.Code != 250 {
		t.Errorf("got %#v", d)
	}
	if d := s.Send("RSET"); d != (smtpproxy.Pass{Command: "RSET"}) {
		t.Errorf("got %#v", d)
	}
}

func TestTheProxyIsCopiedAndNotChanged(t *testing.T) {
	hook := new(failing)
	p := &smtpproxy.Proxy{Hook: hook, Commands: []string{"NOOP"}}
	s := NewSession(p)
	if !reflect.DeepEqual(p, &smtpproxy.Proxy{Hook: hook, Commands: []string{"NOOP"}}) {
		t.Errorf("changed to %+v", p)
	}
	p.OnFailure = func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision { return smtpproxy.Reply{} }
	p.Hook = nil
	play(t, s, step{"NOOP error", "421"})
}

var errHook = errors.New("the hook's own error")

// failing is a hook that fails as it is told.
type failing struct{ _ int }

func (*failing) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch cmd.Line {
	case "NOOP error":
		return nil, errHook
	case "NOOP panic":
		panic(errHook)
	case "NOOP invalid":
		return smtpproxy.Reply{Code: 99}, nil
	}
	return nil, nil
}

func TestAFailureOfTheHookIsKept(t *testing.T) {
	for line, want := range map[string]error{
		"NOOP":         nil,
		"NOOP error":   errHook,
		"NOOP panic":   smtpproxy.ErrHookPanic,
		"NOOP invalid": smtpproxy.ErrInvalidDecision,
	} {
		s := NewSession(&smtpproxy.Proxy{Hook: new(failing)})
		s.Send(line)
		if err := s.Failure(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", line, err, want)
		}
		var f smtpproxy.Failure
		if want != nil && (!errors.As(s.Failure(), &f) || f.Command.Line != line || s.Reply().Code != 421 || !s.Closed()) {
			t.Errorf("%s: failure %+v, reply %v, closed %v", line, f, s.Reply(), s.Closed())
		}
	}
}

func TestTheProxysOnFailureDecidesAsEver(t *testing.T) {
	p := &smtpproxy.Proxy{Hook: new(failing)}
	p.OnFailure = func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
		if errors.Is(f, smtpproxy.ErrHookPanic) {
			return smtpproxy.Pass{}
		}
		return smtpproxy.Reply{Code: 451}
	}
	s := NewSession(p)
	play(t, s, step{"NOOP error", "451"}, step{"NOOP panic", "250"}, step{"NOOP", "250"})
	if err := s.Failure(); !errors.Is(err, smtpproxy.ErrHookPanic) {
		t.Errorf("the last failure is %v", err)
	}
}

func TestACallThatTakesTooLongIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := decide(func(*smtpproxy.Context, smtpproxy.Command) (smtpproxy.Decision, error) {
			time.Sleep(2 * time.Second) // whatever its Context says
			return nil, nil
		})
		p.HookTimeout = time.Second
		s := NewSession(p)
		s.Send("NOOP")
		if err := s.Failure(); !errors.Is(err, smtpproxy.ErrHookTimeout) || !s.Closed() {
			t.Errorf("%v, closed %v", err, s.Closed())
		}
		if got, want := s.Transcript(), "C: NOOP\nH: failed\nP: 421 4.3.0 "; !strings.HasPrefix(got, want) {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		time.Sleep(time.Minute) // until the call that was given up has returned
	})
}

func TestTheConnectionIsClosedByWhateverClosesIt(t *testing.T) {
	p := decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		if cmd.Verb() == "VRFY" {
			return smtpproxy.Reply{Disconnect: true}, nil
		}
		return nil, nil
	})
	for line, closed := range map[string]bool{"NOOP": false, "VRFY b": true, "QUIT": true, "RSET": true} {
		s := NewSession(p)
		s.Answer("RSET", 421)
		s.Send(line)
		if s.Closed() != closed {
			t.Errorf("%s: closed %v, want %v", line, s.Closed(), closed)
		}
		if err := s.Context().Err(); (err != nil) != closed {
			t.Errorf("%s: the context's error is %v", line, err)
		}
	}
}

func TestWhatAClientCanNotDoPanics(t *testing.T) {
	failed := NewSession(&smtpproxy.Proxy{Hook: new(failing)})
	failed.Send("NOOP error")
	data := NewSession(passAll)
	sendAll(data, "EHLO x", "MAIL FROM:<>", "RCPT TO:<b@example.org>", "DATA")
	tls := NewSession(passAll)
	sendAll(tls, "STARTTLS")
	idle := NewSession(passAll)
	cut := NewSession(passAll)
	sendAll(cut, "QUIT")
	for _, tt := range []struct {
		want string
		f    func()
	}{
		{"Send on a closed connection (the hook failed: the hook's own error)", func() { failed.Send("NOOP") }},
		{"Send on a closed connection", func() { cut.Send("NOOP") }},
		{"SendContent on a closed connection", func() { cut.SendContent() }},
		{"Send where content is due: use SendContent", func() { data.Send("NOOP") }},
		{"Send where a TLS handshake is due: use StartTLS", func() { tls.Send("NOOP") }},
		{"SendContent without a 354 from the server", func() { idle.SendContent() }},
		{"StartTLS without a 220 to STARTTLS from the server", func() { idle.StartTLS(smtpproxy.TLS{}) }},
		{"Answer without a verb", func() { idle.Answer("", 250) }},
		{"Answer to NOOP with code 199", func() { idle.Answer("noop", 199) }},
		{"Answer to NOOP with code 600", func() { idle.Answer("NOOP", 600) }},
		{"Answer to NOOP with code 334", func() { idle.Answer("NOOP", 334) }},
		{"Answer to AUTH with code 354", func() { idle.Answer("AUTH", 354) }},
		{"Answer with a line end in a line", func() { idle.Answer("NOOP", 250, "a\nb") }},
	} {
		if got := panics(tt.f); got != "proxytest: "+tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	// None of it has moved the dialogue.
	data.SendContent()
	tls.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	play(t, data, step{"NOOP", "250"})
	play(t, tls, step{"NOOP", "250"})
	play(t, idle, step{"NOOP", "250"})
}

func TestARefusedSTARTTLSNeedsNoHandshake(t *testing.T) {
	s := NewSession(passAll)
	s.Answer("STARTTLS", 454)
	play(t, s, step{"STARTTLS", "454"}, step{"NOOP", "250"}, step{"STARTTLS", "220"})
}

func TestAfterTLSTheClientHasToGreetAgain(t *testing.T) {
	s := NewSession(passAll)
	sendAll(s, "EHLO client.example", "AUTH PLAIN AGEAYg==", "MAIL FROM:<a@example.com>", "STARTTLS")
	id := s.Transaction().ID
	smtpproxy.State[visits](s.Context()).n = 1
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3", SNI: "mx.example"})
	c := s.Connection()
	if c.TLS.SNI != "mx.example" || c.HELO.Verb != "" || c.Auth.Mechanism != "" || s.Transaction().Active || s.Transaction().ID == id {
		t.Errorf("%+v\n%+v", c, s.Transaction())
	}
	if n := smtpproxy.State[visits](s.Context()).n; n != 1 {
		t.Errorf("the state is lost: %d", n)
	}
	play(t, s, step{"MAIL FROM:<a@example.com>", "503"}, step{"EHLO client.example", "250"},
		step{"AUTH PLAIN AGEAYg==", "235"}, step{"STARTTLS", "503"})
}

func TestAnAnswerStaysForAfterTheHandshake(t *testing.T) {
	s := NewSession(passAll)
	s.Answer("MAIL", 451)
	s.Send("STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	play(t, s, step{"EHLO client.example", "250"}, step{"MAIL FROM:<>", "451"})
}

type visits struct{ n int }

func TestTheHooksStateCanBeSetAndRead(t *testing.T) {
	s := NewSession(decide(func(ctx *smtpproxy.Context, _ smtpproxy.Command) (smtpproxy.Decision, error) {
		smtpproxy.State[visits](ctx).n++
		return nil, nil
	}))
	smtpproxy.State[visits](s.Context()).n = 10
	sendAll(s, "EHLO client.example", "RSET")
	if n := smtpproxy.State[visits](s.Context()).n; n != 12 {
		t.Errorf("%d, want 12", n)
	}
}

func TestRepliesBelongToTheCaller(t *testing.T) {
	s := NewSession(passAll)
	if s.Replies() != nil || s.Reply().Code != 0 {
		t.Errorf("before the first: %v, %v", s.Replies(), s.Reply())
	}
	s.Send("NOOP")
	s.Replies()[0].Code = 500
	if code := s.Reply().Code; code != 250 {
		t.Errorf("the reply became %d", code)
	}
	s.Reply().Lines[0] = "changed"
	answer := []string{"as set"}
	s.Answer("RSET", 250, answer...)
	answer[0] = "changed"
	play(t, s, step{"RSET", "250 as set"}, step{"NOOP", "250 2.0.0 OK"})
	if n := len(s.Replies()); n != 1 {
		t.Errorf("%d replies to one command", n)
	}
}

func TestTheTranscriptTellsWhoSaidWhat(t *testing.T) {
	p := decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		switch cmd.Verb() {
		case "MAIL":
			return smtpproxy.Pass{Command: "MAIL FROM:<rewritten@example.com>", Next: true}, nil
		case "RCPT":
			return smtpproxy.Reply{Code: 550, Lines: []string{"one", "two"}, Next: true}, nil
		case "RSET":
			return smtpproxy.Pass{Command: "MAIL FROM:<nested@example.com>"}, nil
		case "QUIT":
			return nil, errHook
		}
		return nil, nil
	})
	p.Commands = []string{"EHLO", "MAIL", "RCPT", "RSET", "QUIT"}
	p.OnFailure = func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision { return smtpproxy.Pass{Command: "NOOP"} }
	s := NewSession(p)
	s.Answer("EHLO", 250, "mx.example", "SIZE")
	sendAll(s, "EHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "VRFY \xff",
		"NOOP", "NOOP \x00", "RSET", "QUIT", "STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	const want = `C: EHLO client.example
H: pass
S: 250-mx.example
S: 250 SIZE
C: MAIL FROM:<a@example.com>
H: pass MAIL FROM:<rewritten@example.com> (next)
S: 250 2.1.0 Sender OK
C: RCPT TO:<b@example.org>
H: 550-5.0.0 one
H: 550 5.0.0 two (next)
C: VRFY \xff
H: pass
S: 252 2.5.0 Send some mail, I'll try my best
C: NOOP
S: 250 2.0.0 OK
C: NOOP \x00
P: 500 5.5.2 Control character in command line
C: RSET
H: pass MAIL FROM:<nested@example.com>
P: 503 5.5.1 Nested MAIL command
C: QUIT
H: failed
P: pass NOOP
S: 250 2.0.0 OK
C: STARTTLS
S: 220 2.0.0 Go ahead
C: (TLS handshake)
`
	if got := s.Transcript(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTheTranscriptHoldsNoCredential(t *testing.T) {
	const secret = "c2VjcmV0"
	next := decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		return smtpproxy.Pass{Next: true}, nil
	})
	changing := decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		return smtpproxy.Pass{Command: cmd.Line + "=", Next: true}, nil
	})
	refusing := decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		if cmd.Verb() == "AUTH" {
			return smtpproxy.Reply{Code: 535}, nil
		}
		return nil, nil
	})
	own := decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		if cmd.SASL {
			return smtpproxy.Reply{Code: 535}, nil
		}
		return smtpproxy.Reply{Code: 334}, nil
	})
	own.Commands = []string{"AUTH"}
	for name, p := range map[string]*smtpproxy.Proxy{
		"no hook":                         {},
		"a hook that passes":              passAll,
		"a hook for MAIL alone":           {Hook: passAll.Hook, Commands: []string{"MAIL"}},
		"a hook that sees the exchange":   next,
		"a hook that changes each line":   changing,
		"a hook that refuses AUTH":        refusing,
		"a hook with an exchange":         own,
		"a hook for AUTH that is refused": {Hook: refusing.Hook, Commands: []string{"AUTH"}},
	} {
		for _, lines := range [][]string{
			{"AUTH PLAIN " + secret},
			{"AUTH PLAIN", secret},
			{"AUTH LOGIN", secret, secret},
			{"AUTH PLAIN", secret + "\x00"},
			// The password comes although the server didn't ask for it, twice.
			{"AUTH XOAUTH2", secret, secret, "NOOP"},
		} {
			for _, code := range []int{0, 535} {
				s := NewSession(p)
				s.Send("EHLO client.example")
				if code != 0 {
					s.Answer("AUTH", code)
				}
				for _, line := range lines {
					if !s.Closed() {
						s.Send(line)
					}
				}
				if got := s.Transcript(); strings.Contains(got, secret) || !strings.Contains(got, "****") {
					t.Errorf("%s, %q, %d:\n%s", name, lines, code, got)
				}
			}
		}
	}
}

func TestTheTranscriptMasksAfterAnExchangeOfTheHooksOwnToo(t *testing.T) {
	p := decide(func(_ *smtpproxy.Context, cmd smtpproxy.Command) (smtpproxy.Decision, error) {
		if cmd.SASL {
			return smtpproxy.Reply{Code: 535}, nil
		}
		return smtpproxy.Reply{Code: 334}, nil
	})
	p.Commands = []string{"XLOGIN"}
	s := NewSession(p)
	sendAll(s, "XLOGIN", "c2VjcmV0", "c2VjcmV0")
	if got := s.Transcript(); strings.Contains(got, "c2VjcmV0") {
		t.Error(got)
	}
}

func TestAfterAFailedAUTHCommandsAreReadable(t *testing.T) {
	s := NewSession(&smtpproxy.Proxy{})
	s.Answer("AUTH", 535)
	sendAll(s, "EHLO client.example", "AUTH PLAIN AGEAYg==", "NOOP readable", "XYZZY readable")
	for _, want := range []string{"C: NOOP readable\n", "C: XYZZY readable\n"} {
		if got := s.Transcript(); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
