package hooks_test

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about what a client can make a front end, and through it the hooks, believe.

// nginx122 is set up for nginx before 1.29.2, roundcube for Roundcube: they don't encode user
// names.
var (
	nginx122  = hooks.XCLIENT{Trust: frontEnds, RawLogin: true, Attributes: []string{"ADDR", "LOGIN", "NAME"}}
	roundcube = hooks.XCLIENT{Trust: frontEnds, RawLogin: true, Attributes: []string{"LOGIN", "ADDR"}}
)

func TestAUserNameCanTellNothingMore(t *testing.T) {
	names := []string{
		"x ADDR=127.0.0.1", "x addr=127.0.0.1", "x\tADDR=127.0.0.1", "x NAME=localhost", "x LOGIN=admin", "x PORT=25", "x HELO=admin",
		"x PROTO=ESMTP", "x DESTADDR=127.0.0.1", "x DESTPORT=587", "x SESSION=1", "x TTL=1", "x FORWARD=YWRtaW4+3D",
		"x REVERSE_NAME=localhost", "admin y=z", "admin y", "admin =", "admin =y", "admin ADDR", "admin ADDR=", " admin", "LOGIN=admin LOGIN",
		"x ADDR=[UNAVAILABLE]", "x NAME=[UNAVAILABLE]",
	}
	for _, front := range []struct {
		name, before, behind string
		x                    hooks.XCLIENT
	}{
		{"nginx before 1.29.2", "XCLIENT ADDR=203.0.113.7 LOGIN=", " NAME=client.example", nginx122},
		{"Roundcube", "XCLIENT LOGIN=", " ADDR=203.0.113.7", roundcube},
	} {
		for _, name := range names {
			s := fromFront(&front.x)
			refused(t, s, front.name, front.before+name+front.behind, "501 5.5.4 ", theFront)
		}
		s := fromFront(&front.x)
		s.Send(front.before + "admi+6E" + front.behind)
		if got := s.Connection().Auth.Username; got != "admi+6E" {
			t.Errorf("%s: admi+6E has become %s", front.name, got)
		}
	}
}

// Without these settings, each of these is believed: that is what RawLogin and Attributes
// are documented for.
func TestAUserNameTellsMoreWhereItsFrontEndIsNotSetUpFor(t *testing.T) {
	for _, row := range []struct{ line, want string }{
		{"XCLIENT LOGIN=x ADDR=127.0.0.1", "127.0.0.1:0" + untold + ", XCLIENT x"}, // Roundcube without smtp_xclient_addr
		{"XCLIENT ADDR=203.0.113.7 LOGIN=x PORT=25 NAME=client.example", "203.0.113.7:25 (client.example)" + untold + ", XCLIENT x"},
		{"XCLIENT ADDR=203.0.113.7 LOGIN=admin y=z NAME=client.example", "203.0.113.7:0 (client.example)" + untold + ", XCLIENT admin"},
		{"XCLIENT ADDR=203.0.113.7 LOGIN=admi+6E NAME=client.example", "203.0.113.7:0 (client.example)" + untold + ", XCLIENT admin"},
	} {
		s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
		s.Send(row.line)
		if got := who(s.Connection()); got != row.want {
			t.Errorf("%s: %v, %s, want %s", row.line, s.Reply(), got, row.want)
		}
	}
	// What a front end tells by itself can't be told over even so.
	for _, line := range []string{
		"XCLIENT ADDR=203.0.113.7 LOGIN=x ADDR=127.0.0.1 NAME=client.example",
		"XCLIENT ADDR=203.0.113.7 LOGIN=x NAME=localhost NAME=client.example",
		"XCLIENT ADDR=203.0.113.7 LOGIN=x LOGIN=admin NAME=client.example",
	} {
		refused(t, fromFront(&hooks.XCLIENT{Trust: frontEnds}), "by default", line, "501 5.5.4 ", theFront)
	}
}

func TestAnEncodedValueStaysOneValue(t *testing.T) {
	for _, row := range []struct{ why, args, want string }{
		{"blanks", "ADDR=203.0.113.7 LOGIN=x+20ADDR+3D127.0.0.1", "203.0.113.7:0" + untold + ", XCLIENT x ADDR=127.0.0.1"},
		{"twice encoded", "ADDR=203.0.113.7 LOGIN=x+2B41", "203.0.113.7:0" + untold + ", XCLIENT x+41"},
		{"a line in a greeting", "ADDR=203.0.113.7 HELO=x+0D+0AXCLIENT+20LOGIN+3Dadmin", "203.0.113.7:0" + untold + ", HELO x??XCLIENT LOGIN=admin"},
		{"what unknown stands for", "ADDR=203.0.113.7 HELO=+5BUNAVAILABLE+5D", "203.0.113.7:0" + untold + ", HELO [UNAVAILABLE]"},
	} {
		s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
		s.Send("XCLIENT " + row.args)
		if got := who(s.Connection()); got != row.want {
			t.Errorf("%s: %v, %s, want %s", row.why, s.Reply(), got, row.want)
		}
	}
}

func TestAClientWhoseFrontEndHandsOnWhatItSendsIsNotBelieved(t *testing.T) {
	for _, told := range []string{"ADDR=203.0.113.7 LOGIN=eve", "ADDR=IPV6:2001:db8::7", "ADDR=[UNAVAILABLE]"} {
		for _, before := range []string{"", "EHLO eve.example", "HELO eve.example", "NOOP", "RSET", "VRFY x", "AUTH PLAIN AGV2ZQBwdw=="} {
			s := fromFront(smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, &hooks.XFORWARD{Trust: frontEnds}))
			s.Send("XCLIENT " + told)
			if before != "" {
				s.Send(before)
			}
			eve := who(s.Connection())
			for _, line := range []string{"XCLIENT LOGIN=admin", "XCLIENT ADDR=127.0.0.1", "XCLIENT ADDR=192.0.2.1 LOGIN=admin", "XCLIENT", "XFORWARD ADDR=127.0.0.1"} {
				refused(t, s, "behind "+before, line, "550 5.7.0 ", eve)
			}
			if _, ok := forwardedOf(s); ok {
				t.Error("XFORWARD was believed")
			}
			keywords := keywordsOf(s, "EHLO eve.example")
			for _, keyword := range []string{"XCLIENT", "XFORWARD"} {
				if line, ok := announced(keywords, keyword); ok {
					t.Errorf("announced %s", line)
				}
			}
			s.Send("STARTTLS")
			s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
			refused(t, s, "within TLS", "XCLIENT LOGIN=admin", "550 5.7.0 ", who(s.Connection()))
		}
	}
}

// It is the front end that is connected, whoever it tells of: what makes Trust too wide, or
// what tells no address, lets its clients in. See the documentation of XCLIENT.
func TestAClientInTrustIsBelievedWhereItsFrontEndHandsOnWhatItSends(t *testing.T) {
	for _, told := range []string{"ADDR=192.0.2.66", "LOGIN=eve"} {
		s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
		s.Send("XCLIENT " + told)
		if _, ok := announced(keywordsOf(s, "EHLO eve.example"), "XCLIENT"); !ok {
			t.Errorf("%s: not announced", told)
		}
		s.Send("XCLIENT LOGIN=admin")
		if got := s.Connection().Auth.Username; got != "admin" {
			t.Errorf("%s: %v, %s", told, s.Reply(), got)
		}
	}
}

func TestTrustNeverComesFromWhatWasTold(t *testing.T) {
	// Nobody but the front end can tell anything, but another hook may know of a client.
	otherwise := smtpproxy.Funcs{OnCommand: func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() == "XOTHER" {
			return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: netip.MustParseAddr("192.0.2.1")}}, nil
		}
		return nil, nil
	}}
	h := smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, &hooks.XFORWARD{Trust: frontEnds}, otherwise)
	s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: h}, smtpproxy.Connection{RemoteIP: netip.MustParseAddr("203.0.113.9")}, smtpproxy.Transaction{})
	s.Send("XOTHER")
	if s.Connection().RemoteIP.String() != "192.0.2.1" {
		t.Fatal("it isn't told of an address in Trust")
	}
	keywords := keywordsOf(s, "EHLO x")
	for _, keyword := range []string{"XCLIENT", "XFORWARD"} {
		if line, ok := announced(keywords, keyword); ok {
			t.Errorf("announced %s", line)
		}
		refused(t, s, "by the address told", keyword+" ADDR=203.0.113.7", "550 5.7.0 ", who(s.Connection()))
	}
}

func TestXCLIENTInASASLExchangeIsALineOfIt(t *testing.T) {
	for _, next := range []bool{false, true} { // the hook is asked about the line
		asks := smtpproxy.Funcs{OnCommand: func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			return smtpproxy.Pass{Next: next}, nil
		}}
		x := &hooks.XCLIENT{Trust: frontEnds}
		for _, h := range []smtpproxy.Hook{smtpproxy.Chain(x, asks), smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
			d, err := x.Command(ctx, cmd, conn, txn)
			if d == nil {
				d = smtpproxy.Pass{Next: next}
			}
			return d, err
		})} {
			s := proxytest.NewSession(&smtpproxy.Proxy{Hook: h})
			s.Send("EHLO front.example")
			s.Send("AUTH PLAIN")
			d := s.Send("XCLIENT ADDR=203.0.113.7 LOGIN=admin")
			if p, ok := d.(smtpproxy.Pass); !ok || p.Command != "XCLIENT ADDR=203.0.113.7 LOGIN=admin" {
				t.Errorf("decided: %v", d)
			}
			if got := s.Connection(); got.RemoteIP.String() != "192.0.2.1" || got.Auth.Username == "admin" {
				t.Errorf("it is %s", who(got))
			}
		}
	}
}

func TestAClientThatAPROXYHeaderNamesIsThePeer(t *testing.T) {
	eve := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 7}
	s := serve(t, smtpproxy.Chain(&hooks.XCLIENT{Trust: loopback}, &hooks.XFORWARD{Trust: loopback}), how{peer: eve})
	p := s.play(t,
		step{"EHLO eve.example\r\n", []string{"250"}},
		step{"XCLIENT ADDR=127.0.0.1 LOGIN=admin\r\n", []string{"550 5.7.0"}},
		step{"XFORWARD ADDR=127.0.0.1\r\nNOOP\r\n", []string{"550 5.7.0", "250"}})
	if strings.Contains(p.replies[1], "XCLIENT") || strings.Contains(p.replies[1], "XFORWARD") {
		t.Errorf("announced: %s", p.replies[1])
	}
	s.wants(t, "eve", "server: from 203.0.113.7:7", "NOOP: 203.0.113.7:7 > "+s.addr+", EHLO eve.example, peer 203.0.113.7")
}

func TestWhatStandsBehindARefusedXCLIENTIsJudgedByItself(t *testing.T) {
	for _, row := range []struct {
		why, send string
		want      []string
		noop      string // whose it is
	}{
		{"what was told with the refused one isn't", "XCLIENT LOGIN=admin ADDR=x\r\nXCLIENT ADDR=203.0.113.7\r\nNOOP\r\n",
			[]string{"501", "220", "250"}, "203.0.113.7:0"},
		{"what was told before it is gone, too", "XCLIENT LOGIN=admin\r\nXCLIENT ADDR=x\r\nXCLIENT ADDR=203.0.113.7\r\nNOOP\r\n",
			[]string{"220", "501", "220", "250"}, "203.0.113.7:0"},
		{"and a client that was told isn't believed behind it", "XCLIENT ADDR=203.0.113.7 LOGIN=eve\r\nXCLIENT ADDR=x\r\nXCLIENT LOGIN=admin\r\nNOOP\r\n",
			[]string{"220", "501", "550", "250"}, "203.0.113.7:0 > SERVER, XCLIENT eve"},
		{"nothing told stays as it is", "XCLIENT ADDR=x\r\nNOOP\r\n", []string{"501", "250"}, "127.0.0.1:PORT"},
		{"one of a loop", "XCLIENT ADDR=203.0.113.7 TTL=0\r\nNOOP\r\n", []string{"554", "250"}, "127.0.0.1:PORT"},
		{"behind another command it is of another client", "XCLIENT ADDR=127.0.0.9 LOGIN=alice\r\nNOOP\r\nXCLIENT ADDR=203.0.113.7\r\nNOOP\r\n",
			[]string{"220", "250", "220", "250"}, "203.0.113.7:0"},
		{"behind EHLO, likewise", "XCLIENT ADDR=127.0.0.9 LOGIN=alice\r\nEHLO x\r\nXCLIENT ADDR=203.0.113.7\r\nNOOP\r\n",
			[]string{"220", "250", "220", "250"}, "203.0.113.7:0"},
		{"behind EHLO, one that was told isn't believed", "XCLIENT ADDR=203.0.113.7 LOGIN=eve\r\nEHLO x\r\nXCLIENT LOGIN=admin\r\nNOOP\r\n",
			[]string{"220", "250", "550", "250"}, "203.0.113.7:0 > SERVER, EHLO x, XCLIENT eve"},
		{"a MAIL in the same breath", "XCLIENT ADDR=203.0.113.7\r\nEHLO x\r\nMAIL FROM:<a@example.com>\r\nXCLIENT LOGIN=admin\r\nNOOP\r\n",
			[]string{"220", "250", "250", "550", "250"}, "203.0.113.7:0 > SERVER, EHLO x"},
		{"an XCLIENT in a message is a line of it", "XCLIENT ADDR=127.0.0.9\r\nEHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nXCLIENT LOGIN=admin\r\n.\r\nNOOP\r\n",
			[]string{"220", "250", "250", "250", "354", "250", "250"}, "127.0.0.9:0 > SERVER, EHLO x"},
		{"and in a chunk of it", "XCLIENT ADDR=127.0.0.9\r\nEHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nBDAT 21 LAST\r\nXCLIENT LOGIN=admin\r\nNOOP\r\n",
			[]string{"220", "250", "250", "250", "250", "250"}, "127.0.0.9:0 > SERVER, EHLO x"},
		{"behind a DATA that was refused, in the transaction still", "XCLIENT ADDR=127.0.0.9\r\nEHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\nXCLIENT LOGIN=admin\r\nNOOP\r\n",
			[]string{"220", "250", "250", "550", "5", "503", "250"}, "127.0.0.9:0 > SERVER, EHLO x"},
		{"a line end in a raw name gives an attribute twice", "XCLIENT ADDR=203.0.113.7 LOGIN=x\r\nXCLIENT LOGIN=admin NAME=client.example\r\nNOOP\r\n",
			[]string{"220", "501", "250"}, "203.0.113.7:0 > SERVER, XCLIENT x"},
		{"a bare line feed likewise", "XCLIENT ADDR=203.0.113.7 LOGIN=x\nXCLIENT LOGIN=admin NAME=client.example\r\nNOOP\r\n",
			[]string{"220", "501", "250"}, "203.0.113.7:0 > SERVER, XCLIENT x"},
		{"or a client that isn't believed", "XCLIENT ADDR=203.0.113.7 LOGIN=x\r\nRSET\r\nXCLIENT LOGIN=admin NAME=client.example\r\nNOOP\r\n",
			[]string{"220", "2", "550", "250"}, "203.0.113.7:0 > SERVER, XCLIENT x"},
		{"unknown, and known then", "XCLIENT ADDR=[UNAVAILABLE]\r\nXCLIENT ADDR=127.0.0.9\r\nNOOP\r\n",
			[]string{"220", "501", "250"}, "0.0.0.0:0"},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &hooks.XCLIENT{Trust: loopback}, how{})
			p := s.play(t, step{row.send, row.want})
			noop := row.noop
			if !strings.Contains(noop, ">") {
				noop += " > SERVER"
			}
			noop = strings.NewReplacer(":PORT", ":"+strconv.Itoa(p.port), "SERVER", s.addr).Replace("NOOP: " + noop + ", peer 127.0.0.1")
			log := s.record()
			if got := log[len(log)-1]; got != noop {
				t.Errorf("the last is\n%s, want\n%s", got, noop)
			}
		})
	}
}
