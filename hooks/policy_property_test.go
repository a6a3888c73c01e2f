package hooks_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// policies are all of them, as they may be set up.
func policies(r *rand.Rand) []smtpproxy.Hook {
	one := func(list ...smtpproxy.Hook) smtpproxy.Hook { return list[r.IntN(len(list))] }
	odd := &lookup{f: func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host[0] {
		case '7':
			return yes, nil
		case '1':
			return nil, fmt.Errorf("away")
		}
		return nil, no
	}}
	return []smtpproxy.Hook{
		&hooks.XCLIENT{Trust: frontEnds},
		&hooks.RequireTLS{Everything: r.IntN(3) == 0, Disconnect: r.IntN(3) == 0},
		one(&hooks.Networks{}, &hooks.Networks{Deny: prefixes("203.0.113.0/24")}, &hooks.Networks{Allow: prefixes("192.0.2.0/24", "2001:db8::/32"), Reply: smtpproxy.Reply{Code: 450}}),
		hooks.AllowVerbs(slices.DeleteFunc([]string{"HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "AUTH", "STARTTLS", "XCLIENT"},
			func(string) bool { return r.IntN(8) == 0 })...),
		hooks.Answers{"HELP": {Code: 214}, "VRFY": {Code: 252}, "EXPN": {Code: 550}, "NOOP": {Code: 250, Lines: []string{"Nothing done"}}},
		&hooks.EarlyTalkers{Delay: time.Duration(r.IntN(2)) * time.Second},
		&hooks.CheckHELO{Own: []string{"mx.example"}, RequireDot: r.IntN(2) == 0},
		hooks.RequirePTR{},
		hooks.NewDNSList("bl.example", hooks.DNSListOptions{Resolver: odd}),
		hooks.Strict{},
	}
}

var someLines = append(slices.Clone(knownVerbs),
	"EHLO", "EHLO my printer", "HELO mx.example", "EHLO [192.0.2.1]", "MAIL FROM:<>", "MAIL FROM:a@example.com", "MAIL FROM:<a@example.com> SIZE=1 SIZE=2",
	"MAIL FROM:<\u00fc@example.com> SMTPUTF8", "RCPT TO:<@a:b@c>", "RCPT TO:<\u00fc@example.com>", "RCPT TO:<b@example.org> NOTIFY=NEVER", "RCPT", "DATA x", "BDAT 0 LAST",
	"BDAT x", "AUTH LOGIN", "AUTH", "RSET x", "\u00e9", "", "XCLIENT ADDR=203.0.113.7 HELO=x", "XCLIENT NAME=client.example ADDR=198.51.100.7", "STARTTLS x",
	"MAIL FROM:<"+strings.Repeat("a", 300)+"@example.com>", "MAIL FROM:<a@example.com> "+strings.Repeat("x", 600)+"_", "EHLO "+strings.Repeat("x", 600),
)

// However these hooks are put together, none fails, and what one refuses, or what stands
// before it, neither the server nor the hooks behind get.
func TestPoliciesInAnyOrderNeverFailAndWhatTheyRefuseIsNotExecuted(t *testing.T) {
	refusals, executed := map[int]int{}, 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 7))
		list := policies(r)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:1+r.IntN(len(list))]
		got := "" // the line that came through all of them
		last := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			got = cmd.Line
			return nil, nil
		})
		pipelined := false
		for i, h := range list {
			if _, ok := h.(hooks.Strict); ok {
				list[i] = smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
					cmd.Pipelined = pipelined
					return h.Command(ctx, cmd, conn, txn)
				})
			}
		}
		conn := smtpproxy.Connection{RemotePort: 7, EarlyTalker: r.IntN(8) == 0}
		if ips := []string{"192.0.2.1", "203.0.113.7", "2001:db8::7", ""}; ips[seed%4] != "" {
			conn.RemoteIP = netip.MustParseAddr(ips[seed%4])
		}
		if r.IntN(2) == 0 {
			conn.RemotePTR = "client.example"
		}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(append(list, last)...), Logger: slog.New(slog.DiscardHandler)}, conn, smtpproxy.Transaction{})
		fail := func(format string, args ...any) {
			t.Fatalf("seed %d: %T\n%s\n%s", seed, list, s.Transcript(), fmt.Sprintf(format, args...))
		}
		s.Connect()
		sasl := false
		for range 40 {
			if s.Closed() {
				break
			}
			line := someLines[r.IntN(len(someLines))]
			if !sasl && r.IntN(2) == 0 { // or what leads somewhere
				c, txn := s.Connection(), s.Transaction()
				switch {
				case c.HELO.Verb == "":
					line = "EHLO client.example"
				case !txn.Active:
					line = "MAIL FROM:<a@example.com>"
				case txn.Recipients.Len() == 0:
					line = "RCPT TO:<b@example.org>"
				default:
					line = "DATA"
				}
			}
			pipelined = r.IntN(10) == 0
			before, id := s.Connection(), s.Transaction().ID
			got = ""
			said := strings.Count(s.Transcript(), "\nS: ") // by the server
			d := s.Send(line)
			if err := s.Failure(); err != nil {
				fail("%s: %v", line, err)
			}
			switch d := d.(type) {
			case smtpproxy.Pass:
				executed++
				if d.Command != line || got != line && !sasl {
					fail("%s: passed as %s, and the last hook has got %s", line, d.Command, got)
				}
			case smtpproxy.Reply:
				if d.Restart != nil || s.Closed() && strings.HasPrefix(line, "XCLIENT ") {
					break // the client is another's, who may have been refused in turn
				}
				refusals[d.Code]++
				if n := strings.Count(s.Transcript(), "\nS: "); n != said {
					fail("%s: %v, and the server has replied", line, d)
				}
				after := s.Connection()
				after.EarlyTalker = before.EarlyTalker
				chunk := strings.HasPrefix(line, "BDAT") // which ends the transaction
				if fmt.Sprint(after) != fmt.Sprint(before) || s.Transaction().ID != id && !chunk {
					fail("%s: %v, and it is %+v", line, d, after)
				}
			default:
				fail("%s: %T", line, d)
			}
			if c := s.Reply().Code; c < 200 || c > 599 {
				fail("%s: %v", line, s.Reply())
			}
			if sasl = s.Reply().Code == 334; sasl {
				continue
			}
			switch pass, verb := d.(smtpproxy.Pass); {
			case pass.Command == "" || s.Closed():
			case verb && s.Reply().Code == 354:
				s.SendContent()
			case verb && s.Reply().Code == 220 && strings.HasPrefix(line, "STARTTLS"):
				s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
			}
		}
		s.Close()
	}
	t.Logf("%d executed, refused %v", executed, refusals)
	for _, code := range []int{214, 252, 450, 501, 502, 503, 523, 530, 550, 553, 554} {
		if refusals[code] < 20 {
			t.Errorf("%d came %d times: the property says little", code, refusals[code])
		}
	}
	if executed < 5000 {
		t.Errorf("%d executed: the property says little", executed)
	}
}
