package e2e

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about a hook that ends the connection at one of several statuses.

// An LMTP client that lacks a status sends the message again, to a recipient that may have it
// (RFC 2033 section 4.2), so it gets them all before the end.
func TestAClientThatIsHungUpOnAtOneStatusOfSeveralGetsThemAll(t *testing.T) {
	refusing := decide(func(cmd command) (decision, error) {
		if strings.HasSuffix(cmd.Received, " LAST") {
			return reply{Code: 550}, nil
		}
		return nil, nil
	})
	for _, row := range []struct {
		why     string
		server  func() *servertest.Server
		hook    smtpproxy.HookFunc
		message string // behind the recipients
		want    string
	}{
		{"the server's", func() *servertest.Server { return servertest.Strict(servertest.LMTP()) }, always(nil), "DATA\r\nhi\r\n.\r\n", "354 250 250 250"},
		{"the server's, to chunks", func() *servertest.Server { return servertest.Strict(servertest.LMTP()) }, always(nil), "BDAT 3 LAST\r\nxxx", "250 250 250"},
		{"go-smtp's", func() *servertest.Server { return servertest.GoSMTPLMTP(false) }, always(nil), "DATA\r\nhi\r\n.\r\n", "354 250 250 250"},
		{"go-smtp's, the first of which it has before the end", func() *servertest.Server { return servertest.GoSMTPLMTP(true) }, always(nil), "DATA\r\nhi hi hi hi\r\n.\r\n", "354 250 250 250"},
		{"a hook's", func() *servertest.Server { return servertest.Strict(servertest.LMTP()) }, refusing, "BDAT 3 LAST\r\nxxx", "550 550 550"},
	} {
		for recipient := range 3 {
			t.Run(fmt.Sprint(row.why, ", ", recipient), func(t *testing.T) {
				var shown []int
				p := &smtpproxy.Proxy{
					Hook: smtpproxy.Chain(row.hook, smtpproxy.Funcs{OnReply: func(_ *hookContext, x smtpproxy.Exchange) (decision, error) {
						if x.Recipient == recipient {
							return reply{Disconnect: true}, nil
						}
						return nil, nil
					}}),
					Observers: []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x smtpproxy.Exchange) {
						if x.Recipient >= 0 {
							shown = append(shown, x.Recipient)
						}
					}}},
				}
				c := behindListener(p, row.server()).connect(t, overTCP(t))
				c.expect("220")
				c.send("LHLO x\r\nMAIL FROM:<a@a>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@b>\r\nRCPT TO:<d@b>\r\n" + row.message + "NOOP\r\n")
				c.expect("250", "250", "250", "250", "250")
				rest, err := io.ReadAll(c.r)
				var codes []string
				for sent := string(rest); sent != ""; {
					r, more, ok := cutReply(sent)
					if !ok {
						t.Fatalf("got %q", rest)
					}
					codes, sent = append(codes, fmt.Sprint(r.code)), more
				}
				if got := strings.Join(codes, " "); got != row.want || err != nil {
					t.Errorf("got %s, %v, want %s", got, err, row.want)
				}
				if got := fmt.Sprint(shown); got != "[0 1 2]" {
					t.Errorf("shown were the statuses for %s", got)
				}
			})
		}
	}
}

func TestAStateMachineIsToldToCloseBehindTheLastStatus(t *testing.T) {
	for recipient := range 3 {
		p := &smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnReply: func(_ *hookContext, x smtpproxy.Exchange) (decision, error) {
			if x.Recipient == recipient {
				return reply{Code: map[bool]int{true: 421, false: 0}[x.Reply.Code >= 400], Disconnect: true}, nil
			}
			return nil, nil
		}}}
		s := p.NewSession(connection{})
		s.Replied(220, "x LMTP")
		for _, line := range []string{"LHLO x", "MAIL FROM:<a@a>", "RCPT TO:<a@b>", "RCPT TO:<c@b>", "RCPT TO:<d@b>"} {
			s.Command(t.Context(), line)
			s.Replied(250, "ok")
		}
		s.Command(t.Context(), "DATA")
		s.Replied(354, "go ahead")
		var got []string
		for _, code := range []int{250, 550, 250} {
			r := s.Replied(code, "status")
			got = append(got, fmt.Sprint(r.Code, " ", r.Disconnect))
		}
		want := []string{"250 false", "550 false", "250 true"}
		if recipient == 1 {
			want[1] = "421 false"
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d: got %v, want %v", recipient, got, want)
		}
		if d, ok := s.Command(t.Context(), "NOOP").(reply); !ok || d.Code != 421 {
			t.Errorf("%d: behind it comes %v", recipient, d)
		}
	}
}

// Nobody is told of the end while somebody is still shown a reply.
func TestTheEndIsToldBehindAReplyThatIsBeingShownWhenTheServerCloses(t *testing.T) {
	a, conn := newAttendant(1), make(chan net.Conn, 1)
	showing, goOn := make(chan struct{}), make(chan struct{})
	p := &smtpproxy.Proxy{Hook: a, Observers: []smtpproxy.Observer{a.observer(), {Exchanged: func(_ *hookContext, x smtpproxy.Exchange) {
		if x.Command.Verb() != "NOOP" {
			return
		}
		_, leave := a.enter(x.Connection.ID, "Exchanged", false)
		defer leave()
		close(showing)
		<-goOn
	}}}}
	c := runScript(t, overTCP(t), p, func(c net.Conn) {
		conn <- c
		new(puppet).serve(c)
	})
	c.expect("220")
	c.send("NOOP\r\n")
	inTime(t, "the reply", showing)
	(<-conn).Close()
	for range 100 {
		runtime.Gosched() // what would come now has every chance
	}
	close(goOn)
	if wrong := a.await(1); len(wrong) > 0 {
		t.Error(wrong)
	}
}
