package hooks_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// untold is the server's end, if nothing is told of it.
const untold = " > 192.0.2.25:25"

// long255 is a name of 255 octets, the longest value.
var long255 = strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("a", 63)

func TestAFrontEndTellsWhoTheClientIs(t *testing.T) {
	for _, row := range []struct{ why, args, want string }{
		{"an address is of another client: nothing else of the front end's is left", "ADDR=203.0.113.7", "203.0.113.7:0" + untold},
		{"IPv6 has a prefix", "ADDR=IPV6:2001:db8::7", "2001:db8::7:0" + untold},
		{"in any case", "ADDR=ipv6:2001:DB8::7", "2001:db8::7:0" + untold},
		{"Dovecot's LMTP proxy leaves it out", "ADDR=2001:db8::7", "2001:db8::7:0" + untold},
		{"it may be encoded", "ADDR=IPV6+3A2001+3Adb8+3A+3A7", "2001:db8::7:0" + untold},
		{"an IPv4 address is never in IPv6 form in a Connection", "ADDR=IPV6:::ffff:203.0.113.7", "203.0.113.7:0" + untold},
		{"without prefix, too", "ADDR=::ffff:203.0.113.7", "203.0.113.7:0" + untold},
		{"whose address isn't known is nobody", "ADDR=[UNAVAILABLE]", "0.0.0.0:0" + untold},
		{"a name comes in lower case, as from the DNS", "NAME=Client.Example ADDR=203.0.113.7", "203.0.113.7:0 (client.example)" + untold},
		{"the order doesn't matter", "ADDR=203.0.113.7 NAME=client.example", "203.0.113.7:0 (client.example)" + untold},
		{"names in the DNS have underscores", "NAME=_x-1.example ADDR=203.0.113.7", "203.0.113.7:0 (_x-1.example)" + untold},
		{"one label is a name", "NAME=localhost ADDR=203.0.113.7", "203.0.113.7:0 (localhost)" + untold},
		{"the longest value", "ADDR=203.0.113.7 NAME=" + long255, "203.0.113.7:0 (" + long255 + ")" + untold},
		{"the name is unknown", "NAME=[UNAVAILABLE] ADDR=203.0.113.7", "203.0.113.7:0" + untold},
		{"the name is unknown for now, in any case", "ADDR=203.0.113.7 NAME=[TempUnavail]", "203.0.113.7:0" + untold},
		{"a name unknown takes that of the address that stays", "NAME=[unavailable]", "192.0.2.1:49152" + untold},
		{"and not the port that is told", "NAME=[UNAVAILABLE] PORT=7", "192.0.2.1:7" + untold},
		{"a name of the address that stays", "NAME=client.example", "192.0.2.1:49152 (client.example)" + untold},
		{"a port", "ADDR=203.0.113.7 PORT=65535", "203.0.113.7:65535" + untold},
		{"a port of the address that stays", "PORT=7", "192.0.2.1:7 (front.example)" + untold},
		{"the least port is an unknown one", "ADDR=203.0.113.7 PORT=0", "203.0.113.7:0" + untold},
		{"a port unknown takes that of the address that stays, and no more", "PORT=[UNAVAILABLE]", "192.0.2.1:0 (front.example)" + untold},
		{"so does the port 0", "PORT=0", "192.0.2.1:0 (front.example)" + untold},
		{"with a name", "PORT=[UNAVAILABLE] NAME=client.example", "192.0.2.1:0 (client.example)" + untold},
		{"without", "PORT=[UNAVAILABLE] NAME=[UNAVAILABLE]", "192.0.2.1:0" + untold},
		{"HELO alone is the old one, as in Postfix", "HELO=client.example", "192.0.2.1:49152 (front.example)" + untold + ", HELO client.example"},
		{"PROTO says which", "HELO=client.example PROTO=ESMTP", "192.0.2.1:49152 (front.example)" + untold + ", EHLO client.example"},
		{"before it, in any case", "PROTO=esmtp HELO=client.example", "192.0.2.1:49152 (front.example)" + untold + ", EHLO client.example"},
		{"SMTP", "PROTO=SMTP HELO=client.example", "192.0.2.1:49152 (front.example)" + untold + ", HELO client.example"},
		{"Dovecot has LMTP", "PROTO=LMTP HELO=client.example", "192.0.2.1:49152 (front.example)" + untold + ", LHLO client.example"},
		{"PROTO alone is no greeting", "PROTO=ESMTP", "192.0.2.1:49152 (front.example)" + untold},
		{"nor is it with one unknown", "PROTO=ESMTP HELO=[UNAVAILABLE]", "192.0.2.1:49152 (front.example)" + untold},
		{"PROTO unknown is the old one", "PROTO=[UNAVAILABLE] HELO=client.example", "192.0.2.1:49152 (front.example)" + untold + ", HELO client.example"},
		{"a greeting may have anything in it", "HELO=[192.0.2.7]", "192.0.2.1:49152 (front.example)" + untold + ", HELO [192.0.2.7]"},
		{"but controls are masked, and what is no UTF-8", "HELO=a+0D+0Ab+00+1B+7F+C2+85+FFc", "192.0.2.1:49152 (front.example)" + untold + ", HELO a??b?????c"},
		{"and what would turn a log around, or end a line of it", "HELO=a+E2+80+AEb+E2+80+A8", "192.0.2.1:49152 (front.example)" + untold + ", HELO a?b?"},
		{"LOGIN is Auth", "LOGIN=alice", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT alice"},
		{"decoded", "LOGIN=alice+40example+2Eorg", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT alice@example.org"},
		{"a blank is encoded", "LOGIN=alice+20b+3Dc", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT alice b=c"},
		{"what is raw has an at sign, as from nginx before 1.29.2 and Roundcube", "LOGIN=alice@example.org", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT alice@example.org"},
		{"and an equals sign", "LOGIN=a=b", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT a=b"},
		{"what isn't xtext is raw, all of it", "LOGIN=a+40b+zz", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT a+40b+zz"},
		{"so is what is cut short", "LOGIN=alice+4", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT alice+4"},
		{"xtext has capital letters", "LOGIN=bob+ab", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT bob+ab"},
		{"letters beyond ASCII, raw", "LOGIN=ålice", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT ålice"},
		{"and encoded", "LOGIN=+C3+A5lice", "192.0.2.1:49152 (front.example)" + untold + ", XCLIENT ålice"},
		{"nobody has logged in", "LOGIN=[UNAVAILABLE]", "192.0.2.1:49152 (front.example)" + untold},
		{"what the client has connected to", "DESTADDR=198.51.100.25 DESTPORT=587", "192.0.2.1:49152 (front.example) > 198.51.100.25:587"},
		{"over IPv6", "DESTADDR=IPV6:2001:db8::25", "192.0.2.1:49152 (front.example) > 2001:db8::25:25"},
		{"which stays, if it is unknown", "DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]", "192.0.2.1:49152 (front.example)" + untold},
		{"names come in any case", "addr=203.0.113.7 Login=alice", "203.0.113.7:0" + untold + ", XCLIENT alice"},
		{"several blanks, and tabs", " \tADDR=203.0.113.7  \tLOGIN=alice \t", "203.0.113.7:0" + untold + ", XCLIENT alice"},
		{"what isn't known is ignored", "X-MORE=1 ADDR=203.0.113.7 CLIENT_CERT=abc", "203.0.113.7:0" + untold},
		{"even if there is nothing else", "X-MORE=1", "192.0.2.1:49152 (front.example)" + untold},
	} {
		s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
		s.Send("XCLIENT " + row.args)
		c := s.Connection()
		if got := who(c); s.Reply().Code != 220 || got != row.want {
			t.Errorf("%s: XCLIENT %s: %v,\n%s, want\n%s", row.why, row.args, s.Reply(), got, row.want)
		}
		if c.Peer.String() != "192.0.2.1:49152" {
			t.Errorf("%s: the peer is %v", row.why, c.Peer)
		}
		if err := s.Failure(); err != nil {
			t.Errorf("%s: %v", row.why, err)
		}
	}
}

func TestWhatNoConnectionHasRoomForIsInXCLIENTInfo(t *testing.T) {
	forward := strings.Repeat("Zm9yd2FyZA+3D+3D", 60)
	s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
	if got := hooks.XCLIENTInfoOf(s.Context()); got != (hooks.XCLIENTInfo{}) {
		t.Errorf("before anything is told: %+v", got)
	}
	s.Send("XCLIENT ADDR=203.0.113.7 SESSION=a+2Bb TTL=4 TIMEOUT=30 CLIENT-TRANSPORT=TLS DESTNAME=mx+0A REVERSE_NAME=R.example FORWARD=" + forward)
	want := hooks.XCLIENTInfo{
		Session: "a+b", TTL: 4, Timeout: 30 * time.Second, Transport: "TLS", DestName: "mx?", ReverseName: "r.example",
		Forward: strings.Repeat("Zm9yd2FyZA==", 60),
	}
	if got := hooks.XCLIENTInfoOf(s.Context()); got != want {
		t.Errorf("%v\n%+v, want\n%+v", s.Reply(), got, want)
	}
	masked := fromFront(&hooks.XCLIENT{Trust: frontEnds})
	masked.Send("XCLIENT SESSION=a+0Ab CLIENT-TRANSPORT=+1B DESTNAME=+FF FORWARD=+00 REVERSE_NAME=[UNAVAILABLE]")
	if got := hooks.XCLIENTInfoOf(masked.Context()); got != (hooks.XCLIENTInfo{Session: "a?b", Transport: "?", DestName: "?", Forward: "?"}) {
		t.Errorf("what isn't printable: %+v", got)
	}
	for _, refused := range []string{"XCLIENT SESSION=b TTL=0", "XCLIENT SESSION=b", "XCLIENT"} {
		s.Send(refused) // by the client told, who isn't trusted
		if got := hooks.XCLIENTInfoOf(s.Context()); got != want {
			t.Errorf("behind %s: %+v", refused, got)
		}
	}
	s.Send("STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	if got := hooks.XCLIENTInfoOf(s.Context()); got != want {
		t.Errorf("behind STARTTLS: %+v", got)
	}
	s = fromFront(&hooks.XCLIENT{Trust: frontEnds})
	s.Send("XCLIENT TTL=2147483647 TIMEOUT=2147483647 SESSION=x")
	if got := hooks.XCLIENTInfoOf(s.Context()); got.TTL != 1<<31-1 || got.Timeout != (1<<31-1)*time.Second {
		t.Errorf("the largest: %+v", got)
	}
	s.Send("XCLIENT ADDR=192.0.2.9 TTL=[UNAVAILABLE] SESSION=[UNAVAILABLE]")
	if got := hooks.XCLIENTInfoOf(s.Context()); s.Reply().Code != 220 || got != (hooks.XCLIENTInfo{}) {
		t.Errorf("of another client: %v, %+v", s.Reply(), got)
	}
}

// refused checks that a command was refused, and has changed nothing.
func refused(t *testing.T, s *proxytest.Session, why, line, want, client string) {
	t.Helper()
	told := hooks.XCLIENTInfoOf(s.Context())
	txn := s.Transaction()
	s.Send(line)
	if got := s.Reply().String(); !strings.HasPrefix(got, want) || s.Closed() {
		t.Errorf("%s: %.60q: %s, want %s", why, line, got, want)
	}
	if got := who(s.Connection()); got != client {
		t.Errorf("%s: %.60q made the client\n%s, who was\n%s", why, line, got, client)
	}
	if got := hooks.XCLIENTInfoOf(s.Context()); got != told {
		t.Errorf("%s: %.60q: %+v, was %+v", why, line, got, told)
	}
	if got := s.Transaction(); got.ID != txn.ID || got.Active != txn.Active {
		t.Errorf("%s: %.60q: the transaction has ended", why, line)
	}
	if err := s.Failure(); err != nil {
		t.Errorf("%s: %v", why, err)
	}
}

func TestWhatMakesNoSenseIsRefusedAndChangesNothing(t *testing.T) {
	s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
	for _, row := range []struct{ why, line string }{
		{"no attributes", "XCLIENT"},
		{"blanks are none", "XCLIENT  \t "},
		{"one without a value", "XCLIENT ADDR"},
		{"with an empty one", "XCLIENT ADDR="},
		{"no name", "XCLIENT =203.0.113.7"},
		{"a blank within", "XCLIENT ADDR =203.0.113.7"},
		{"one with a name that is none", "XCLIENT A/B=1"},
		{"that only looks like one", "XCLIENT ſESSION=1"},
		{"behind a good one", "XCLIENT ADDR=203.0.113.7 PORT"},
		{"a good one in front of a bad one", "XCLIENT LOGIN=alice ADDR=203.0.113.777"},
		{"one twice", "XCLIENT ADDR=203.0.113.7 ADDR=203.0.113.7"},
		{"in another case", "XCLIENT ADDR=203.0.113.7 addr=127.0.0.1"},
		{"once unknown", "XCLIENT LOGIN=[UNAVAILABLE] LOGIN=alice"},
		{"one that nobody knows twice", "XCLIENT X-MORE=1 X-MORE=1"},
		{"no address", "XCLIENT ADDR=client.example"},
		{"an address with a zone is one of the front end's links", "XCLIENT ADDR=IPV6:fe80::1%eth0"},
		{"likewise 4in6", "XCLIENT ADDR=::ffff:203.0.113.7%1"},
		{"brackets are for greetings", "XCLIENT ADDR=[203.0.113.7]"},
		{"IPv4 in the clothes of IPv6", "XCLIENT ADDR=IPV6:203.0.113.7"},
		{"the prefix alone", "XCLIENT ADDR=IPV6:"},
		{"leading zeros are octal to some", "XCLIENT ADDR=203.0.113.07"},
		{"a prefix", "XCLIENT ADDR=203.0.113.0/24"},
		{"a port with an address", "XCLIENT ADDR=203.0.113.7:25"},
		{"a line end in an address", "XCLIENT ADDR=203.0.113.7+0D+0A"},
		{"too large a port", "XCLIENT PORT=65536"},
		{"a negative one", "XCLIENT PORT=-1"},
		{"a sign", "XCLIENT PORT=+1"},
		{"no number", "XCLIENT PORT=smtp"},
		{"other digits", "XCLIENT PORT=٢٥"},
		{"a destination is an address", "XCLIENT DESTADDR=mx.example"},
		{"its port a port", "XCLIENT DESTPORT=65536"},
		{"a name with a blank", "XCLIENT NAME=a+20b"},
		{"with a line end", "XCLIENT NAME=a+0D+0Ab"},
		{"with a NUL", "XCLIENT NAME=a+00"},
		{"with an empty label", "XCLIENT NAME=a..b"},
		{"at the end", "XCLIENT NAME=a.example."},
		{"in front", "XCLIENT NAME=.example"},
		{"with a hyphen at an end", "XCLIENT NAME=-a.example"},
		{"at the other", "XCLIENT NAME=a-.example"},
		{"beyond ASCII", "XCLIENT NAME=ålice.example"},
		{"with a label too long", "XCLIENT NAME=" + strings.Repeat("a", 64) + ".example"},
		{"that is an address", "XCLIENT NAME=127.0.0.1"},
		{"so for the other name", "XCLIENT REVERSE_NAME=127.0.0.1"},
		{"a protocol that is none", "XCLIENT PROTO=HTTP"},
		{"a value of 256 octets", "XCLIENT NAME=" + long255 + "3"},
		{"as sent", "XCLIENT LOGIN=" + strings.Repeat("+41", 86)},
		{"of one unknown, too", "XCLIENT X-MORE=" + strings.Repeat("a", 256)},
		{"a user name with a control character would be another's when masked", "XCLIENT LOGIN=alice+0Ab"},
		{"with a NUL", "XCLIENT LOGIN=admin+00"},
		{"that is no UTF-8, encoded", "XCLIENT LOGIN=+E5lice"},
		{"and raw", "XCLIENT LOGIN=\xe5lice"},
		{"invisible", "XCLIENT LOGIN=admin+E2+80+8B"},
		{"a TTL that is no number", "XCLIENT TTL=many"},
		{"a negative one", "XCLIENT TTL=-1"},
		{"too large a one", "XCLIENT TTL=2147483648"},
		{"no time", "XCLIENT TIMEOUT=1s"},
		{"too long a one", "XCLIENT TIMEOUT=2147483648"},
	} {
		refused(t, s, row.why, row.line, "501 5.5.4 ", theFront)
	}
	refused(t, s, "it has been through too many", "XCLIENT ADDR=203.0.113.7 TTL=0", "554 5.4.6 ", theFront)
	refused(t, s, "in front of what follows, too", "XCLIENT TTL=0 ADDR=203.0.113.7", "554 5.4.6 ", theFront)
	s.Send("XCLIENT TTL=1")
	if s.Reply().Code != 220 {
		t.Errorf("with one server left, this one: %v", s.Reply())
	}
}

func TestOnlyAttributesConfiguredAreAnnouncedAndTaken(t *testing.T) {
	for _, row := range []struct {
		why        string
		attributes []string
		announced  string
		args, want string
	}{
		{"all by default", nil, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN REVERSE_NAME DESTADDR DESTPORT SESSION TTL TIMEOUT CLIENT-TRANSPORT DESTNAME FORWARD",
			"LOGIN=alice", "220 192.0.2.1:49152 (front.example)" + untold + ", XCLIENT alice"},
		{"nginx's", []string{"NAME", "ADDR", "LOGIN"}, "XCLIENT NAME ADDR LOGIN",
			"ADDR=203.0.113.7 PORT=7 HELO=x DESTPORT=1", "220 203.0.113.7:0" + untold},
		{"those without LOGIN", []string{"ADDR"}, "XCLIENT ADDR", "ADDR=203.0.113.7 LOGIN=alice", "220 203.0.113.7:0" + untold},
		{"what isn't taken may make no sense", []string{"ADDR"}, "XCLIENT ADDR", "ADDR=203.0.113.7 PORT=x TTL=0", "220 203.0.113.7:0" + untold},
		{"a TTL that isn't taken is no loop", []string{"ADDR"}, "XCLIENT ADDR", "ADDR=203.0.113.7 TTL=5", "220 203.0.113.7:0" + untold},
		{"what nobody knows isn't announced", []string{"ADDR", "X-MORE", "x y\r\n"}, "XCLIENT ADDR", "ADDR=203.0.113.7 X-MORE=1", "220 203.0.113.7:0" + untold},
		{"they are configured in any case", []string{"login", "Addr"}, "XCLIENT ADDR LOGIN", "LOGIN=a ADDR=203.0.113.7", "220 203.0.113.7:0" + untold + ", XCLIENT a"},
		{"none", []string{}, "XCLIENT", "ADDR=203.0.113.7 LOGIN=alice", "220 192.0.2.1:49152 (front.example)" + untold},
	} {
		s := fromFront(&hooks.XCLIENT{Trust: frontEnds, Attributes: row.attributes})
		if got, _ := announced(keywordsOf(s, "EHLO front.example"), "XCLIENT"); got != row.announced {
			t.Errorf("%s: announced %q, want %q", row.why, got, row.announced)
		}
		s.Send("XCLIENT " + row.args)
		if got := s.Reply().String()[:4] + who(s.Connection()); got != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
	}
}

func TestStrictRefusesWhatIsNotTaken(t *testing.T) {
	strict := &hooks.XCLIENT{Trust: frontEnds, Attributes: []string{"NAME", "ADDR"}, Strict: true}
	s := fromFront(strict)
	refused(t, s, "unknown", "XCLIENT ADDR=203.0.113.7 X-MORE=1", "501 5.5.4 Unknown attribute X-MORE", theFront)
	refused(t, s, "unknown, with a name too long for a reply", "XCLIENT "+strings.Repeat("A", 1000)+"=1", "501 5.5.4 ", theFront)
	refused(t, s, "not configured", "XCLIENT ADDR=203.0.113.7 LOGIN=alice", "501 5.5.4 Unknown attribute LOGIN", theFront)
	s.Send("XCLIENT ADDR=203.0.113.7 NAME=client.example")
	if got := who(s.Connection()); s.Reply().Code != 220 || got != "203.0.113.7:0 (client.example)"+untold {
		t.Errorf("%v: %s", s.Reply(), got)
	}
}

func TestARawLOGINIsTakenAsItStands(t *testing.T) {
	for _, row := range []struct{ login, raw, decoded string }{
		{"admi+6E", "admi+6E", "admin"},
		{"alice+40x", "alice+40x", "alice@x"},
		{"alice", "alice", "alice"},
	} {
		for _, x := range []*hooks.XCLIENT{{RawLogin: true}, {}} {
			x.Trust = frontEnds
			want := row.decoded
			if x.RawLogin {
				want = row.raw
			}
			s := fromFront(x)
			s.Send("XCLIENT SESSION=+41 LOGIN=" + row.login)
			if got := s.Connection().Auth.Username; got != want || hooks.XCLIENTInfoOf(s.Context()).Session != "A" {
				t.Errorf("LOGIN=%s, RawLogin %v: %q, want %q", row.login, x.RawLogin, got, want)
			}
		}
	}
	s := fromFront(&hooks.XCLIENT{Trust: frontEnds, RawLogin: true})
	refused(t, s, "a raw name may hide an attribute", "XCLIENT LOGIN=admin x=y", "501 5.5.4 ", theFront)
	refused(t, s, "no UTF-8", "XCLIENT LOGIN=\xff", "501 5.5.4 ", theFront)
	s.Send("XCLIENT LOGIN=[UNAVAILABLE]")
	if got := s.Connection().Auth; s.Reply().Code != 220 || got != (smtpproxy.Auth{}) {
		t.Errorf("nobody: %v, %+v", s.Reply(), got)
	}
}

func TestXCLIENTIsTakenBeforeAndBehindEachGreeting(t *testing.T) {
	for _, greeting := range []string{"", "HELO front.example", "EHLO front.example", "LHLO front.example"} {
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.XCLIENT{Trust: frontEnds}})
		s.Connect()
		if greeting != "" {
			s.Send(greeting)
		}
		s.Send("xclient ADDR=203.0.113.7 HELO=client.example")
		if got := who(s.Connection()); s.Reply().String() != "220 proxytest.example ESMTP" || got != "203.0.113.7:0"+untold+", HELO client.example" {
			t.Errorf("behind %q: %v, %s", greeting, s.Reply(), got)
		}
		s.Send("MAIL FROM:<a@example.com>")
		if s.Reply().Code != 503 {
			t.Errorf("the server hasn't started afresh: %v", s.Reply())
		}
	}
}

func TestXCLIENTIsRefusedInATransactionAndTakenBehindIt(t *testing.T) {
	s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
	s.Send("MAIL FROM:<a@example.com>")
	refused(t, s, "behind MAIL", "XCLIENT ADDR=203.0.113.7", "503 5.5.1 ", theFront)
	s.Send("RCPT TO:<b@example.org>")
	refused(t, s, "behind RCPT", "XCLIENT ADDR=203.0.113.7", "503 5.5.1 ", theFront)
	refused(t, s, "whatever it says", "XCLIENT", "503 5.5.1 ", theFront)
	s.Answer("DATA", 451)
	s.Send("DATA")
	refused(t, s, "behind a DATA that was refused", "XCLIENT ADDR=203.0.113.7", "503 5.5.1 ", theFront)
	s.Send("DATA")
	s.SendContent()
	s.Send("XCLIENT ADDR=203.0.113.7")
	if got := who(s.Connection()); s.Reply().Code != 220 || got != "203.0.113.7:0"+untold {
		t.Errorf("behind the message: %v, %s", s.Reply(), got)
	}
}

func TestACommandThatStandsAloneIsOfAnotherClient(t *testing.T) {
	s := fromFront(&hooks.XCLIENT{Trust: frontEnds})
	for _, row := range []struct{ why, args, want string }{
		{"the first", "ADDR=192.0.2.7 PORT=7 NAME=a.example LOGIN=alice PROTO=ESMTP HELO=a DESTADDR=198.51.100.25 DESTPORT=587 TIMEOUT=1",
			"192.0.2.7:7 (a.example) > 198.51.100.25:587, EHLO a, XCLIENT alice"},
		{"the addresses stay, if nothing is told of them", "TIMEOUT=2", "192.0.2.7:7 (a.example) > 198.51.100.25:587"},
		{"LOGIN and HELO are gone with another's address", "ADDR=192.0.2.8", "192.0.2.8:0 > 198.51.100.25:587"},
	} {
		s.Send("XCLIENT " + row.args)
		if got := who(s.Connection()); s.Reply().Code != 220 || got != row.want {
			t.Errorf("%s: %v, %s, want %s", row.why, s.Reply(), got, row.want)
		}
	}
	if got := hooks.XCLIENTInfoOf(s.Context()); got != (hooks.XCLIENTInfo{}) {
		t.Errorf("of the first there is left %+v", got)
	}
}

func TestWhatWasToldIsKeptBehindSTARTTLS(t *testing.T) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.XCLIENT{Trust: frontEnds}})
	s.Send("EHLO webmail.example")
	s.Send("XCLIENT LOGIN=alice@example.org ADDR=203.0.113.7")
	s.Send("STARTTLS") // Roundcube's order
	if s.Reply().Code != 220 {
		t.Fatalf("STARTTLS: %v", s.Reply())
	}
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	if got := who(s.Connection()); got != "203.0.113.7:0"+untold+", XCLIENT alice@example.org" || s.Connection().TLS.Protocol == "" {
		t.Errorf("it is %s", got)
	}
}

func TestOnlyThoseInTrustAreBelievedAndToldOfXCLIENT(t *testing.T) {
	trust := []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("fe80::/10"), {},
	}
	for _, row := range []struct {
		why, ip  string
		trust    []netip.Prefix
		believed bool
	}{
		{"the first of a network", "192.0.2.0", trust, true},
		{"the last", "192.0.2.15", trust, true},
		{"the one behind it", "192.0.2.16", trust, false},
		{"a single one", "2001:db8::1", trust, true},
		{"its neighbour", "2001:db8::2", trust, false},
		{"IPv4 in IPv6 form", "::ffff:192.0.2.1", trust, true},
		{"on a link, which one can't be said in Trust", "fe80::1%eth0", trust, false},
		{"loopback is nothing special", "127.0.0.1", trust, false},
		{"nobody is trusted by default", "192.0.2.1", nil, false},
		{"a unix socket has no address", "", trust, false},
		{"though all are trusted", "", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, false},
		{"all", "203.0.113.9", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, true},
	} {
		conn := smtpproxy.Connection{RemotePort: 49152}
		if row.ip != "" {
			conn.RemoteIP = netip.MustParseAddr(row.ip)
		}
		for _, greeting := range []string{"EHLO x", "LHLO x"} {
			s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: &hooks.XCLIENT{Trust: row.trust}}, conn, smtpproxy.Transaction{})
			verb := greeting[:4]
			s.Answer(verb, 250, "mx.example", "PIPELINING", "XCLIENT SERVERS-OWN", "SIZE")
			keywords := keywordsOf(s, greeting)
			line, is := announced(keywords, "XCLIENT")
			if is != row.believed || strings.Contains(line, "OWN") || len(keywords) < 2 {
				t.Errorf("%s: announced %q", row.why, keywords)
			}
			client := who(s.Connection())
			if row.believed {
				s.Send("XCLIENT ADDR=203.0.113.7")
				if got := s.Connection().RemoteIP.String(); s.Reply().Code != 220 || got != "203.0.113.7" {
					t.Errorf("%s: %v, %s", row.why, s.Reply(), got)
				}
				continue
			}
			for _, line := range []string{"XCLIENT ADDR=203.0.113.7 LOGIN=admin", "XCLIENT", "xclient ADDR=[UNAVAILABLE]"} {
				refused(t, s, row.why, line, "550 5.7.0 ", client)
			}
			s.Send("MAIL FROM:<a@example.com>")
			refused(t, s, row.why+", who isn't told of the transaction", "XCLIENT ADDR=203.0.113.7", "550 5.7.0 ", client)
		}
	}
}

func TestTheListIsLeftAloneForThoseWhoAreNotTrusted(t *testing.T) {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{}, &hooks.XFORWARD{})})
	plain := proxytest.NewSession(&smtpproxy.Proxy{})
	if got, want := keywordsOf(s, "EHLO x"), keywordsOf(plain, "EHLO x"); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("%q, without the hooks %q", got, want)
	}
}

func TestConnectIsAskedAboutTheClientThatWasTold(t *testing.T) {
	blocks := smtpproxy.Funcs{OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
		if conn.RemoteIP == netip.MustParseAddr("203.0.113.66") {
			return smtpproxy.Reply{Code: 554, Lines: []string{"Blocked"}}, nil
		}
		return nil, nil
	}}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(&hooks.XCLIENT{Trust: frontEnds}, blocks)})
	s.Connect()
	s.Send("XCLIENT ADDR=203.0.113.66")
	if got := s.Reply().String(); got != "554 5.0.0 Blocked" || !s.Closed() {
		t.Errorf("got %s", got)
	}
}

func TestABurstEndsWithEHLOEvenIfTheHookIsNotAskedAboutIt(t *testing.T) {
	x := &hooks.XCLIENT{Trust: frontEnds}
	pipelined := smtpproxy.Funcs{
		OnCommand: func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
			cmd.Pipelined = true
			return x.Command(ctx, cmd, conn, txn)
		},
		OnKeywords: x.Keywords,
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: pipelined, Commands: []string{"XCLIENT"}})
	s.Send("XCLIENT LOGIN=alice")
	s.Send("XCLIENT NAME=client.example")
	if got := s.Connection().Auth.Username; got != "alice" {
		t.Errorf("a burst is no whole: %q", got)
	}
	s.Send("EHLO front.example")
	s.Send("XCLIENT NAME=other.example")
	if got := s.Connection().Auth.Username; s.Reply().Code != 220 || got != "" {
		t.Errorf("another client: %v, %q", s.Reply(), got)
	}
}

// Dovecot pipelines them, but with a line end in a packet of its own.
func TestXCLIENTThatDovecotHasSplitCountsAsOne(t *testing.T) {
	x := &hooks.XCLIENT{Trust: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	var info hooks.XCLIENTInfo
	look := smtpproxy.HookFunc(func(ctx *smtpproxy.Context, _ smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		info = hooks.XCLIENTInfoOf(ctx)
		return nil, nil
	})
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(x, look)})
	s.Send("XCLIENT HELO=client.example PROTO=ESMTP LOGIN=alice TTL=4 PORT=7777 ADDR=198.51.100.7 SESSION=abc")
	s.Send("XCLIENT FORWARD=" + strings.Repeat("a", 800))
	s.Send("EHLO front.example")
	conn := s.Connection()
	if conn.RemoteIP.String() != "198.51.100.7" || conn.RemotePort != 7777 || conn.Auth.Username != "alice" || info.Session != "abc" || len(info.Forward) != 800 {
		t.Errorf("%s\n%+v\n%+v", s.Transcript(), conn, info)
	}
	if s.Send("XCLIENT LOGIN=root"); s.Reply().Code != 550 {
		t.Error("the client may send it:", s.Transcript())
	}
}
