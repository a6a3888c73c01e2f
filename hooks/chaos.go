package hooks

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// Chaos makes trouble on purpose, for those who test programs that send mail: it answers
// chosen commands with chosen replies, lets clients wait, and breaks connections off, each
// with a chance of its own, and by rules that can be changed while the server runs, with
// Set or, from a test in another language, over HTTP: see [Chaos.ServeHTTP].
//
// It is nothing for a server that takes mail of value. The zero value does nothing until Set.
// Connections are broken off without a word only if they come from its Listener; else the client gets a 421 before.
//
// What it can't do: refuse a message that the server has taken. At the end of a message it can
// let the client wait, or break off.
type Chaos struct {
	mu    sync.Mutex
	rules []chaosRule
	rand  *rand.Rand
	raws  map[netip.AddrPort]net.Conn // by the client's address
}

// ChaosRule is a rule of Chaos. The first one that fits, and whose turn it is, counts; the
// others are as if they weren't there.
type ChaosRule struct {
	// At is where it has effect: "connect" (in the place of the greeting), "message" (when
	// the server has replied to a message), or a verb, such as "RCPT"; "*" is every
	// command.
	At string `json:"at"`

	// Sender, Recipient and Address are expressions (package regexp), of which a part is
	// found in the sender of the transaction, in the path of a RCPT command, or in the
	// client's IP address; empty ones fit everything.
	Sender    string `json:"sender,omitempty"`
	Recipient string `json:"recipient,omitempty"`
	Address   string `json:"address,omitempty"`

	// Probability is the chance with which it has effect where it fits, from 0 to 1; 0 is
	// always.
	Probability float64 `json:"probability,omitempty"`

	// Skip is how often it fits without effect before it has one, and Times how often it
	// has one at most; 0 is without end.
	Skip  int `json:"skip,omitempty"`
	Times int `json:"times,omitempty"`

	// Code, Enhanced, such as "4.7.1", and Text are the reply, from 200 to 599; Code 0 is
	// none: then it lets the client wait, or breaks off. At "connect" it is a 4xx or 5xx,
	// at "message" none.
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`

	// Delay is how long the client waits.
	Delay Duration `json:"delay,omitempty"`

	// Disconnect closes the connection behind the reply.
	Disconnect bool `json:"disconnect,omitempty"`

	// Drop breaks the connection off, without a reply.
	Drop bool `json:"drop,omitempty"`
}

// Duration is a time.Duration that JSON has as text, such as "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// chaosRule is a rule that is in use.
type chaosRule struct {
	ChaosRule
	sender, recipient, address *regexp.Regexp // nil fits everything
	reply                      smtpproxy.Reply
	fitted, had                int // how often it has fit, and had an effect
}

// Set sets the rules, and the seed of their chances; what was counted for the rules before
// is forgotten. A rule that can't be is an error, and nothing has changed then.
func (c *Chaos) Set(seed uint64, rules ...ChaosRule) error {
	list := make([]chaosRule, len(rules))
	for i, r := range rules {
		if err := list[i].set(r); err != nil {
			return fmt.Errorf("smtpproxy/hooks: rule %d of Chaos: %w", i+1, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules, c.rand = list, rand.New(rand.NewPCG(seed, 0))
	return nil
}

// Rules returns the rules.
func (c *Chaos) Rules() []ChaosRule {
	c.mu.Lock()
	defer c.mu.Unlock()
	rules := make([]ChaosRule, len(c.rules))
	for i := range c.rules {
		rules[i] = c.rules[i].ChaosRule
	}
	return rules
}

// set makes the rule one that is in use.
func (r *chaosRule) set(rule ChaosRule) (err error) {
	*r = chaosRule{ChaosRule: rule}
	verb := smtpproxy.Command{Line: rule.At}.Verb()
	switch {
	case rule.At == "connect", rule.At == "message", rule.At == "*":
	case verb == "" || verb != strings.ToUpper(rule.At):
		return fmt.Errorf("at %q: neither connect, message, * nor a verb", rule.At)
	default:
		r.At = verb
	}
	switch {
	case rule.Probability < 0 || rule.Probability > 1:
		return fmt.Errorf("probability %v: not from 0 to 1", rule.Probability)
	case rule.Code == 0 && (rule.Text != "" || rule.Enhanced != ""):
		return errors.New("a text without a code")
	case rule.Code == 0 && rule.Disconnect:
		return errors.New("disconnect without a code: drop does without")
	case rule.Code == 0 && rule.Delay <= 0 && !rule.Drop:
		return errors.New("neither a code nor a delay nor drop")
	case rule.Code != 0 && (rule.Code < 200 || rule.Code > 599 || rule.Code/100 == 3):
		return fmt.Errorf("code %d: not a reply", rule.Code)
	case rule.At == "connect" && rule.Code != 0 && rule.Code < 400:
		return fmt.Errorf("code %d in the place of a greeting", rule.Code)
	case rule.At == "message" && rule.Code != 0:
		return errors.New("a code at message: the server has replied already")
	case strings.ContainsAny(rule.Text, "\r\n") || len(rule.Text) > 400:
		return errors.New("a text that is no line")
	}
	r.reply = smtpproxy.Reply{Code: rule.Code, Delay: time.Duration(rule.Delay), Disconnect: rule.Disconnect}
	if rule.Text != "" {
		r.reply.Lines = []string{rule.Text}
	}
	if rule.Enhanced != "" {
		e := &r.reply.Enhanced
		if _, err := fmt.Sscanf(rule.Enhanced, "%d.%d.%d", &e[0], &e[1], &e[2]); err != nil || e.String() != rule.Enhanced || e[0] != rule.Code/100 {
			return fmt.Errorf("enhanced status code %q with code %d", rule.Enhanced, rule.Code)
		}
	}
	for _, x := range []struct {
		text string
		into **regexp.Regexp
	}{{rule.Sender, &r.sender}, {rule.Recipient, &r.recipient}, {rule.Address, &r.address}} {
		if x.text == "" {
			continue
		}
		if *x.into, err = regexp.Compile(x.text); err != nil {
			return err
		}
	}
	return nil
}

// moment is where a rule may have an effect.
type moment struct {
	at        string // "connect", "message" or a verb
	conn      smtpproxy.Connection
	sender    string
	recipient string
}

// fits tells whether the rule is one for a moment.
func (r *chaosRule) fits(m *moment) bool {
	isCommand := m.at != "connect" && m.at != "message"
	return (r.At == m.at || r.At == "*" && isCommand) &&
		(r.sender == nil || r.sender.MatchString(m.sender)) &&
		(r.recipient == nil || r.recipient.MatchString(m.recipient)) &&
		(r.address == nil || r.address.MatchString(m.conn.RemoteIP.String()))
}

// at returns the rule that has an effect now, and whether there is one.
func (c *Chaos) at(m moment) (rule chaosRule, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.rules {
		r := &c.rules[i]
		if !r.fits(&m) {
			continue
		}
		r.fitted++
		switch {
		case r.fitted <= r.Skip, r.Times > 0 && r.had >= r.Times:
		case r.Probability > 0 && c.rand.Float64() >= r.Probability:
		default:
			r.had++
			return *r, true
		}
	}
	return chaosRule{}, false
}

// decide returns what a rule does.
func (c *Chaos) decide(m moment) smtpproxy.Decision {
	r, ok := c.at(m)
	switch {
	case !ok:
		return nil
	case r.Drop:
		c.drop(m.conn.Peer)
		return smtpproxy.Reply{Code: 421}
	case r.Code == 0:
		return smtpproxy.Pass{Delay: time.Duration(r.Delay)}
	}
	return r.reply
}

// Connect implements smtpproxy.ConnectHook.
func (c *Chaos) Connect(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
	return c.decide(moment{at: "connect", conn: conn}), nil
}

// Command implements smtpproxy.Hook.
func (c *Chaos) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.SASL {
		return nil, nil
	}
	m := moment{at: cmd.Verb(), conn: conn, sender: txn.Sender}
	switch m.at {
	case "MAIL":
		m.sender = cmd.Args()
	case "RCPT":
		m.recipient = cmd.Args()
	}
	return c.decide(m), nil
}

// Reply implements smtpproxy.ReplyHook.
func (c *Chaos) Reply(_ *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
	verb := x.Passed.Verb()
	if x.Octets == 0 || verb != "DATA" && verb != "BDAT" || x.Reply.Code == 354 {
		return nil, nil
	}
	r, ok := c.at(moment{at: "message", conn: x.Connection, sender: x.Transaction.Sender})
	switch {
	case !ok:
		return nil, nil
	case r.Drop:
		c.drop(x.Connection.Peer)
		return smtpproxy.Reply{Disconnect: true}, nil
	}
	return smtpproxy.Pass{Delay: time.Duration(r.Delay)}, nil
}

// Listener returns a listener for l, to be put beneath that of the Proxy, whose connections
// Chaos can break off without a word.
func (c *Chaos) Listener(l net.Listener) net.Listener { return &chaosListener{l, c} }

type chaosListener struct {
	net.Listener
	chaos *Chaos
}

// Accept implements net.Listener.
func (l *chaosListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	a, ok := raw.RemoteAddr().(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return raw, nil
	}
	addr := netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	l.chaos.mu.Lock()
	defer l.chaos.mu.Unlock()
	if l.chaos.raws == nil {
		l.chaos.raws = make(map[netip.AddrPort]net.Conn)
	}
	l.chaos.raws[addr] = raw
	return raw, nil
}

// drop breaks a connection off, if it is one of the Listener's.
func (c *Chaos) drop(peer netip.AddrPort) {
	c.mu.Lock()
	raw := c.raws[peer]
	c.mu.Unlock()
	if raw != nil {
		raw.Close()
	}
}

// Disconnect implements smtpproxy.DisconnectHook.
func (c *Chaos) Disconnect(_ *smtpproxy.Context, conn smtpproxy.Connection, _ smtpproxy.End) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.raws, conn.Peer)
}
