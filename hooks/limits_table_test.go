package hooks_test

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds everything that is counted against everybody that it may be counted for.

// beyond is the reply of a limit, and of nobody else.
var beyond = smtpproxy.Reply{Code: 459}

// limitsClient is a client of some network, sender and login, in the midst of a
// transaction, so that nothing has to be sent that would be counted, too.
type limitsClient struct {
	t    *testing.T
	hook smtpproxy.Hook
	conn smtpproxy.Connection
	txn  smtpproxy.Transaction
	s    *proxytest.Session
}

func newLimitsClient(t *testing.T, hook smtpproxy.Hook, ip, sender, login string) *limitsClient {
	c := &limitsClient{t: t, hook: hook}
	c.conn = smtpproxy.Connection{RemoteIP: netip.MustParseAddr(ip), HELO: smtpproxy.HELO{Verb: "EHLO", Host: "client.example"}}
	if login != "" {
		c.conn.Auth = smtpproxy.Auth{Mechanism: "PLAIN", Username: login}
	}
	c.txn = smtpproxy.Transaction{Active: true, Sender: sender}
	c.connect()
	return c
}

// connect opens a connection, beside those before, and tells whether it was let in.
func (c *limitsClient) connect() (ok bool) {
	c.s = proxytest.ResumeSession(&smtpproxy.Proxy{Hook: c.hook}, c.conn, c.txn)
	c.t.Cleanup(c.s.Close)
	_, ok = c.s.Connect().(smtpproxy.Pass)
	return ok
}

// send sends a line, and tells whether no limit has refused it.
func (c *limitsClient) send(line string) (ok bool) {
	c.s.Send(line)
	return c.s.Reply().Code != beyond.Code
}

// answered sends a line that the server answers with a code, if it gets it.
func (c *limitsClient) answered(code int, line string) (ok bool) {
	verb := smtpproxy.Command{Line: line}.Verb()
	c.s.Answer(verb, code)
	return c.send(line)
}

// message sends a message.
func (c *limitsClient) message() (ok bool) {
	if !c.s.Transaction().Active && !c.send("MAIL FROM:<"+c.txn.Sender+">") {
		return false
	}
	c.send("RCPT TO:<bob@example.org>")
	if c.send("DATA"); c.s.Reply().Code == 354 {
		c.s.SendContent()
	}
	return c.s.Reply().Code == 250
}

// again connects once more, and does what the connection tells of a login.
func (c *limitsClient) again() bool { return c.connect() && c.send("NOOP") }

// limitsUnits do what is counted once, and tell whether no limit has refused it. Octets, which
// a Session of one's own doesn't see, and Time have tests of their own.
var limitsUnits = map[hooks.Counted]func(c *limitsClient) (ok bool){
	hooks.Connections:     (*limitsClient).again,
	hooks.Commands:        func(c *limitsClient) bool { return c.send("NOOP") },
	hooks.Errors:          func(c *limitsClient) bool { return c.answered(550, "VRFY bob") },
	hooks.UnknownVerbs:    func(c *limitsClient) bool { return c.send("XYZZY") },
	hooks.WrongRecipients: func(c *limitsClient) bool { return c.answered(550, "RCPT TO:<nobody@example.org>") },
	hooks.Recipients:      func(c *limitsClient) bool { return c.send("RCPT TO:<bob@example.org>") },
	hooks.Messages:        (*limitsClient).message,
	hooks.Unauthenticated: func(c *limitsClient) bool { return c.send("NOOP") },
	hooks.FailedAUTH:      func(c *limitsClient) bool { return c.answered(535, "AUTH PLAIN AGEAYg==") },
}

var limitsPers = []hooks.Per{hooks.PerConnection, hooks.PerNetwork, hooks.PerSender, hooks.PerLogin, hooks.InAll}

func TestWhateverIsCountedIsBoundedForWhomeverItIsCountedFor(t *testing.T) {
	valid := 0
	for what, unit := range limitsUnits {
		for _, per := range limitsPers {
			limit := hooks.Limit{What: what, Per: per, Max: 2, Every: time.Hour, Beyond: beyond}
			l := hooks.Limits{Limits: []hooks.Limit{limit}}
			if l.Validate() != nil {
				continue
			}
			valid++
			t.Run(what.String()+" per "+per.String(), func(t *testing.T) {
				alice, bob := "alice", "bob"
				if what == hooks.Unauthenticated || what == hooks.FailedAUTH {
					alice, bob = "", ""
				}
				hook := l.Hook()
				a := newLimitsClient(t, hook, "192.0.2.1", "a@example.com", alice)
				if what == hooks.Connections && per != hooks.PerLogin {
					a.s.Close() // it was counted
					a.hook = l.Hook()
				}
				for n := 1; n <= 2; n++ {
					if !unit(a) {
						t.Fatalf("number %d is refused\n%s", n, a.s.Transcript())
					}
				}
				if unit(a) {
					t.Fatalf("number 3 is passed\n%s", a.s.Transcript())
				}
				hook = a.hook
				if what == hooks.Connections {
					if unit(a) {
						t.Error("number 4 is passed")
					}
				} else if again := newLimitsClient(t, hook, "192.0.2.1", "a@example.com", alice); unit(again) != (per == hooks.PerConnection) {
					t.Errorf("the same client once more\n%s", again.s.Transcript())
				}
				b := &limitsClient{t: t, hook: hook}
				*b = *a
				b.conn.RemoteIP, b.txn.Sender = netip.MustParseAddr("198.51.100.1"), "b@example.com"
				if bob != "" {
					b.conn.Auth.Username = bob
				}
				if ok := what == hooks.Connections || b.connect(); !ok || unit(b) != (per != hooks.InAll) {
					t.Errorf("another client\n%s", b.s.Transcript())
				}
			})
		}
	}
	if valid != 40 {
		t.Errorf("%d of them make sense, want 40", valid)
	}
}

func TestATimeThatNoDurationHasIsAnError(t *testing.T) {
	const most = math.MaxInt64 / int64(time.Second)
	if most+1 > math.MaxInt {
		t.Skip("no int is as large")
	}
	for _, n := range []int64{most, most + 1} {
		err := hooks.Limits{Limits: []hooks.Limit{{What: hooks.Time, Max: int(n)}}}.Validate()
		if (err == nil) != (n == most) {
			t.Errorf("%d seconds: %v", n, err)
		}
	}
}

func TestLimitsThatCannotHoldAreErrors(t *testing.T) {
	ok := hooks.Limit{What: hooks.Commands, Max: 1}
	for name, l := range map[string]hooks.Limits{
		"connections of one":           {Limits: []hooks.Limit{{What: hooks.Connections, Max: 1}}},
		"connections of a sender":      {Limits: []hooks.Limit{{What: hooks.Connections, Per: hooks.PerSender, Max: 1}}},
		"time of a network":            {Limits: []hooks.Limit{{What: hooks.Time, Per: hooks.PerNetwork, Max: 1}}},
		"time that is refilled":        {Limits: []hooks.Limit{{What: hooks.Time, Max: 1, Every: time.Hour}}},
		"a login that has failed":      {Limits: []hooks.Limit{{What: hooks.FailedAUTH, Per: hooks.PerLogin, Max: 1, Every: time.Hour}}},
		"a login without one":          {Limits: []hooks.Limit{{What: hooks.Unauthenticated, Per: hooks.PerLogin, Max: 1, Every: time.Hour}}},
		"a total for ever":             {Limits: []hooks.Limit{{What: hooks.Commands, Per: hooks.PerNetwork, Max: 1}}},
		"none at all":                  {Limits: []hooks.Limit{{What: hooks.Commands}}},
		"negative time":                {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Every: -1}}},
		"more than one a nanosecond":   {Limits: []hooks.Limit{{What: hooks.Octets, Max: 2, Every: 1}}},
		"nothing that is counted":      {Limits: []hooks.Limit{{What: 99, Max: 1}}},
		"nobody it is counted for":     {Limits: []hooks.Limit{{What: hooks.Commands, Per: 99, Max: 1}}},
		"the same twice":               {Limits: []hooks.Limit{ok, ok}},
		"a reply that accepts":         {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: smtpproxy.Reply{}}}},
		"a reply that asks for more":   {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: smtpproxy.Reply{Code: 450, Next: true}}}},
		"a reply that starts afresh":   {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: &smtpproxy.Reply{Code: 450, Restart: &smtpproxy.Origin{}}}}},
		"a reply that can't be sent":   {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: smtpproxy.Reply{Code: 450, Lines: []string{"a\nb"}}}}},
		"another class":                {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: smtpproxy.Reply{Code: 450, Enhanced: smtpproxy.EnhancedCode{5, 7, 0}}}}},
		"a command in place of it":     {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: smtpproxy.Pass{Command: "NOOP"}}}},
		"a Pass that asks for more":    {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: &smtpproxy.Pass{Next: true}}}},
		"no decision":                  {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: (*smtpproxy.Reply)(nil)}}},
		"no decision either":           {Limits: []hooks.Limit{{What: hooks.Commands, Max: 1, Beyond: (*smtpproxy.Pass)(nil)}}},
		"a network of 33 bits":         {IPv4Bits: 33},
		"a network of negative bits":   {IPv6Bits: -1},
		"an exempt network of nothing": {Exempt: []netip.Prefix{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			err := l.Validate()
			if err == nil {
				t.Fatal("it is valid")
			}
			defer func() {
				if recover() == nil {
					t.Error("Hook doesn't panic")
				}
			}()
			l.Hook()
		})
	}
	if err := (hooks.Limits{Limits: []hooks.Limit{ok}}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (hooks.Limits{}).Validate(); err != nil {
		t.Error("without any:", err)
	}
}

func TestAHookForLimitsIsNoMoreThanTheyNeed(t *testing.T) {
	for _, test := range []struct {
		name                              string
		limits                            []hooks.Limit
		connects, commands, replies, ends bool
	}{
		{name: "none"},
		{name: "commands", limits: []hooks.Limit{{What: hooks.Commands, Max: 1}}, commands: true},
		{name: "time", limits: []hooks.Limit{{What: hooks.Time, Max: 1}}, connects: true, commands: true},
		{name: "connections at once", limits: []hooks.Limit{{What: hooks.Connections, Per: hooks.PerNetwork, Max: 1}}, connects: true, ends: true},
		{name: "new connections", limits: []hooks.Limit{{What: hooks.Connections, Per: hooks.InAll, Max: 1, Every: time.Hour}}, connects: true},
		{name: "a login's connections", limits: []hooks.Limit{{What: hooks.Connections, Per: hooks.PerLogin, Max: 1}}, commands: true, ends: true},
		{name: "errors", limits: []hooks.Limit{{What: hooks.Errors, Max: 1}}, commands: true, replies: true},
		{name: "octets", limits: []hooks.Limit{{What: hooks.Octets, Max: 1}}, commands: true, replies: true},
		{name: "octets of a network", limits: []hooks.Limit{{What: hooks.Octets, Per: hooks.PerNetwork, Max: 1, Every: time.Hour}}, commands: true, replies: true, ends: true},
	} {
		f := hooks.Limits{Limits: test.limits}.Hook().(smtpproxy.Funcs)
		if f.OnConnect != nil != test.connects || f.OnCommand != nil != test.commands || f.OnReply != nil != test.replies ||
			f.OnDisconnect != nil != test.ends || f.OnKeywords != nil {
			t.Errorf("%s: connect %v, command %v, reply %v, disconnect %v", test.name, f.OnConnect != nil, f.OnCommand != nil, f.OnReply != nil, f.OnDisconnect != nil)
		}
	}
}
