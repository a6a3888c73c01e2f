package hooks

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/seed3262c777/smtpproxy"
)

// Chaos makes trouble on purpose, for those who test programs that send mail: it answers
// chosen commands with chosen replies, lets clients wait, and breaks connections off, by rules
// with which it can be said when, for whom, how often and with which chance. The rules are
// changed while the server runs: with Set or, from a test in any language, over HTTP, see
// [Chaos.ServeHTTP]. The zero value does nothing until then, and every method may be called
// at any time by anybody. It must not be copied.
//
// It has no place in front of a server that takes mail of value.
//
// Connections are broken off without a word if they come through its Listener; else, and on
// unix sockets, the client first gets a 421, or the reply to its message.
//
// What it can't do is refuse a message that the server has taken, since then there would be
// one that the client sends again: at the end of a message it lets the client wait, or breaks
// off, and clients have to bear with that, too (RFC 1047). To have a message refused, refuse its
// DATA, or its last BDAT; or let the server refuse it behind the content, which a server made
// for tests can. For the same reason a 251 of its own to RCPT, say, is all that there is of that
// recipient: the server has not heard of it.
type Chaos struct {
	mu    sync.Mutex
	seed  uint64
	rules []chaosRule
	conns map[chaosEnds]*chaosConn // those of the Listeners that somebody has asked who they are of
}

// ChaosRule is a rule of Chaos. Of those that fit, the first whose turn it is has an effect; the
// others are as if they weren't there.
//
// Expressions are those of package regexp, in any case of letters; they fit where a part does,
// so "@full\.example$" is a domain. Empty ones fit everything.
type ChaosRule struct {
	// At is where it has effect: "connect" (in the place of the greeting), "message" (when
	// the server has replied to the content of a message), or a verb in any case, such as "EHLO"
	// or "DATA"; "*" is every command. Lines of a SASL exchange are none.
	At string `json:"at"`

	// Client is the client's IP address, or a network such as "192.0.2.0/24".
	Client string `json:"client,omitempty"`

	// Sender is an expression for the sender of the transaction, or of a MAIL command, such
	// as "alice@example.com"; that of a bounce is empty. Where servers could read the command in
	// different ways, it is for all that follows MAIL, and likewise with Recipient.
	Sender string `json:"sender,omitempty"`

	// Recipient is an expression for the recipient: that of a RCPT command, and otherwise one
	// of those that the transaction has. Of an LMTP message, each has its own status.
	Recipient string `json:"recipient,omitempty"`

	// Probability is the chance with which it has an effect where it fits, up to 1. The zero
	// value is always; in JSON, a 0 is an error, since it could mean never.
	Probability float64 `json:"probability,omitempty"`

	// Skip is how often it fits without effect first. Times is how often it has one at most; 0
	// is without end. With Every, both are counted anew when that time has passed since it has
	// fit first: Skip 5, Every 10 minutes at "connect" lets five connections through in ten
	// minutes.
	Skip  int      `json:"skip,omitempty"`
	Times int      `json:"times,omitempty"`
	Every Duration `json:"every,omitempty"`

	// Code, Enhanced, such as "4.7.1", and Text are the reply. Code is a 2xx, 4xx or 5xx, at
	// "connect" a 4xx or 5xx, at "message" none; 0 is none: then it only lets the client wait, or
	// breaks off. Enhanced is by default the class of the code, such as "4.0.0", and "none" is
	// none. What the library doesn't let a hook reply, a 25x to RCPT in LMTP above all, is a 421
	// (see smtpproxy.Reply).
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`

	// Delay is how long the client waits: for the reply, or before the server gets the
	// command, or until the connection breaks off.
	Delay Duration `json:"delay,omitempty"`

	// Disconnect closes the connection behind the reply.
	Disconnect bool `json:"disconnect,omitempty"`

	// Drop breaks the connection off, without a reply.
	Drop bool `json:"drop,omitempty"`
}

// Duration is a time.Duration that is "1.5s", say, in JSON.
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
	client            netip.Prefix   // invalid fits everything
	sender, recipient *regexp.Regexp // nil fits everything
	reply             smtpproxy.Reply

	// What is counted, with the lock of Chaos held:
	rand        *rand.Rand
	since       time.Time // when it has fit first, of the time of Every
	fitted, had int       // how often it has fit, and had an effect
}

// Set sets the rules, in the place of those before. What was counted is forgotten. The same
// seed lets the same rules strike at the same of the things that they fit, one after the other;
// each has chances of its own. A rule that makes no sense is an error, and nothing has changed
// then.
func (c *Chaos) Set(seed uint64, rules ...ChaosRule) error {
	list := make([]chaosRule, len(rules))
	for i, r := range rules {
		if err := list[i].set(r); err != nil {
			return fmt.Errorf("smtpproxy/hooks: rule %d of Chaos: %w", i+1, err)
		}
		list[i].rand = rand.New(rand.NewPCG(seed, uint64(i)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seed, c.rules = seed, list
	return nil
}

// Rules returns what was Set last, in a slice that is the caller's.
func (c *Chaos) Rules() (seed uint64, rules []ChaosRule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rules = make([]ChaosRule, len(c.rules))
	for i := range c.rules {
		rules[i] = c.rules[i].ChaosRule
	}
	return c.seed, rules
}

// set makes the rule one that is in use.
func (r *chaosRule) set(rule ChaosRule) (err error) {
	*r = chaosRule{ChaosRule: rule}
	if r.At, err = placeOf(rule.At); err != nil {
		return err
	}
	if err = rule.validate(r.At); err != nil {
		return err
	}
	r.reply = smtpproxy.Reply{Code: rule.Code, Delay: time.Duration(rule.Delay), Disconnect: rule.Disconnect}
	if rule.Text != "" {
		r.reply.Lines = []string{rule.Text}
	}
	if r.reply.Enhanced, err = enhancedOf(rule.Enhanced, rule.Code); err != nil {
		return err
	}
	if r.client, err = networkOf(rule.Client); err != nil {
		return err
	}
	if r.sender, err = expression(rule.Sender); err != nil {
		return fmt.Errorf("sender: %w", err)
	}
	if r.recipient, err = expression(rule.Recipient); err != nil {
		return fmt.Errorf("recipient: %w", err)
	}
	return nil
}

// placeOf returns a rule's At as it is compared.
func placeOf(at string) (string, error) {
	if at == "connect" || at == "message" || at == "*" {
		return at, nil
	}
	if verb := (smtpproxy.Command{Line: at}).Verb(); verb != "" && verb == strings.ToUpper(at) {
		return verb, nil
	}
	return "", fmt.Errorf("at %q: neither connect, message, * nor a verb", at)
}

// validate tells what of a rule makes no sense.
func (r *ChaosRule) validate(at string) error {
	switch {
	case !(r.Probability >= 0 && r.Probability <= 1): // NaN neither
		return fmt.Errorf("probability %v: not from 0 to 1", r.Probability)
	case r.Skip < 0 || r.Times < 0 || r.Every < 0 || r.Delay < 0:
		return errors.New("skip, times, every or delay below 0")
	case r.Every > 0 && r.Skip == 0 && r.Times == 0:
		return errors.New("every without skip or times, which it counts anew")
	case r.Drop && (r.Code != 0 || r.Disconnect):
		return errors.New("drop is without a reply: it has no code, and no disconnect")
	case r.Code == 0 && (r.Text != "" || r.Enhanced != "" || r.Disconnect):
		return errors.New("text, enhanced and disconnect need a code")
	case r.Code == 0 && r.Delay == 0 && !r.Drop:
		return errors.New("neither a code nor a delay nor drop")
	case r.Code != 0 && r.Code/100 != 2 && r.Code/100 != 4 && r.Code/100 != 5:
		return fmt.Errorf("code %d: neither 2xx, 4xx nor 5xx", r.Code)
	case at == "connect" && r.Code/100 == 2:
		return fmt.Errorf("code %d in the place of a greeting: neither 4xx nor 5xx", r.Code)
	case at == "connect" && r.Sender+r.Recipient != "":
		return errors.New("nobody has named a sender or a recipient at connect")
	case at == "message" && r.Code != 0:
		return errors.New("a code at message, where the server has replied already: refuse DATA, or let the server refuse the content")
	case at == "STARTTLS" && r.Code == 220:
		return errors.New("code 220 to STARTTLS, which nothing would follow")
	case strings.ContainsFunc(r.Text, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) || len(r.Text) > maxChaosText:
		return fmt.Errorf("a text that isn't one line of at most %d octets", maxChaosText)
	}
	return nil
}

// maxChaosText is how long the text of a reply may be, which has room for 512 octets (RFC 5321
// section 4.5.3.1.5).
const maxChaosText = 480

// enhancedOf returns an enhanced status code, for a reply with that code.
func enhancedOf(text string, code int) (e smtpproxy.EnhancedCode, err error) {
	switch text {
	case "":
		return e, nil
	case "none":
		return smtpproxy.NoEnhancedCode, nil
	}
	_, err = fmt.Sscanf(text, "%d.%d.%d", &e[0], &e[1], &e[2])
	if err != nil || e.String() != text || e[0] != code/100 || min(e[1], e[2]) < 0 || max(e[1], e[2]) > 999 {
		return e, fmt.Errorf("enhanced status code %q with code %d", text, code)
	}
	return e, nil
}

// networkOf returns a network, or that of an address alone; empty is none.
func networkOf(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if ip, err := netip.ParseAddr(text); err == nil {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("client %q: neither an address nor a network", text)
	}
	return p, nil
}

// expression returns an expression; empty is none.
func expression(text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil
	}
	if _, err := regexp.Compile(text); err != nil {
		return nil, err // without what is put before it
	}
	return regexp.Compile("(?i)" + text)
}

// moment is where a rule may have an effect.
type moment struct {
	at         string // as in a rule
	client     netip.Addr
	sender     string
	recipients []string
}

// fits tells whether the rule is one for a moment.
func (r *chaosRule) fits(m *moment) bool {
	isCommand := m.at != "connect" && m.at != "message"
	return (r.At == m.at || r.At == "*" && isCommand) &&
		(!r.client.IsValid() || isIn([]netip.Prefix{r.client}, m.client)) &&
		(r.sender == nil || r.sender.MatchString(m.sender)) &&
		(r.recipient == nil || slices.ContainsFunc(m.recipients, r.recipient.MatchString))
}

// strikes counts that the rule fits, and tells whether it has an effect.
func (r *chaosRule) strikes(now time.Time) bool {
	if every := time.Duration(r.Every); every > 0 && now.Sub(r.since) >= every {
		r.since, r.fitted, r.had = now, 0, 0
	}
	r.fitted++
	switch {
	case r.fitted <= r.Skip, r.Times > 0 && r.had >= r.Times:
		return false
	case r.Probability > 0 && r.rand.Float64() >= r.Probability:
		return false
	}
	r.had++
	return true
}

// at returns the rule that has an effect now, nil if none has.
func (c *Chaos) at(m *moment) *chaosRule {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.rules {
		if r := &c.rules[i]; r.fits(m) && r.strikes(time.Now()) {
			return r
		}
	}
	return nil
}

// idle tells whether there are no rules, so that nothing has to be found out.
func (c *Chaos) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.rules) == 0
}

// chaosState is what is kept for a connection.
type chaosState struct {
	conn    *chaosConn // nil if it's none of a Listener's
	known   bool       // conn is
	content bool       // the next reply is the one to the content of a message
}

// decide returns what happens at a moment.
func (c *Chaos) decide(ctx *smtpproxy.Context, conn *smtpproxy.Connection, m *moment) smtpproxy.Decision {
	m.client = conn.RemoteIP
	r := c.at(m)
	switch {
	case r == nil:
		return nil
	case r.Drop:
		return c.drop(ctx, conn, time.Duration(r.Delay))
	case r.Code == 0:
		return smtpproxy.Pass{Delay: time.Duration(r.Delay)}
	}
	return r.reply
}

// Connect implements smtpproxy.ConnectHook.
func (c *Chaos) Connect(ctx *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
	c.connOf(ctx, &conn) // before a Restart tells other addresses
	return c.decide(ctx, &conn, &moment{at: "connect"}), nil
}

// Command implements smtpproxy.Hook.
func (c *Chaos) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.SASL || c.idle() {
		return nil, nil
	}
	m := moment{at: cmd.Verb(), sender: senderOf(&txn)}
	switch m.at {
	case "MAIL":
		m.sender = mailboxOf(cmd)
	case "RCPT":
		m.recipients = []string{mailboxOf(cmd)}
	default:
		m.recipients = mailboxes(txn.Recipients, -1)
	}
	return c.decide(ctx, &conn, &m), nil
}

// Reply implements smtpproxy.ReplyHook.
func (c *Chaos) Reply(ctx *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
	s := smtpproxy.State[chaosState](ctx)
	isContent := false
	switch x.Passed.Verb() {
	case "DATA":
		isContent = s.content
	case "BDAT":
		isContent = isLastChunk(x.Passed.Args())
	}
	s.content = x.Reply.Code == 354 || isContent && x.Recipient >= 0 // another status may come
	if !isContent || c.idle() {
		return nil, nil
	}
	m := moment{at: "message", sender: senderOf(&x.Transaction), recipients: mailboxes(x.Transaction.Recipients, x.Recipient)}
	switch d := c.decide(ctx, &x.Connection, &m).(type) {
	case smtpproxy.Reply: // it breaks off: the reply is as it was, if anybody gets it
		return smtpproxy.Reply{Disconnect: true, Delay: d.Delay}, nil
	default:
		return d, nil
	}
}

// isLastChunk tells whether a BDAT command with these arguments ends the message (RFC 3030
// section 2).
func isLastChunk(args string) bool {
	words := strings.Fields(args)
	return len(words) == 2 && strings.EqualFold(words[1], "LAST")
}

// mailboxOf returns the mailbox that a MAIL or RCPT command names, or all its arguments where
// servers could read it in different ways, but not because of AUTH=<> alone.
func mailboxOf(cmd smtpproxy.Command) string {
	args := cmd.Args()
	if path, _, ok := cutParameters(cmd); ok {
		cmd.Line = path
	}
	if mailbox, _, _, ok := cmd.Path(); ok {
		return mailbox
	}
	return args
}

// senderOf is mailboxOf for the MAIL command of a transaction.
func senderOf(txn *smtpproxy.Transaction) string {
	if txn.Unparsed == "" {
		return txn.Sender
	}
	return mailboxOf(smtpproxy.Command{Line: "MAIL " + txn.Unparsed})
}

// mailboxes returns the recipients as a rule sees them: all, or that at an index.
func mailboxes(r smtpproxy.Recipients, only int) (list []string) {
	for i, recipient := range r.All() {
		if only < 0 || i == only {
			list = append(list, recipient.Recipient+recipient.Unparsed) // one of both is empty
		}
	}
	return list
}

// drop breaks a connection off, when a time has passed, and returns what the client gets if it
// is none of the Listener's.
func (c *Chaos) drop(ctx *smtpproxy.Context, conn *smtpproxy.Connection, delay time.Duration) smtpproxy.Decision {
	goodbye := smtpproxy.Reply{Code: 421, Delay: delay}
	switch broken := c.connOf(ctx, conn); {
	case broken == nil:
	case delay == 0:
		broken.Close()
	default:
		time.AfterFunc(delay, func() { broken.Close() })
		goodbye.Delay += time.Minute // which is cut short
	}
	return goodbye
}

// connOf returns the Listener's connection that a client has, nil if it has none.
func (c *Chaos) connOf(ctx *smtpproxy.Context, conn *smtpproxy.Connection) *chaosConn {
	s := smtpproxy.State[chaosState](ctx)
	if !s.known {
		c.mu.Lock()
		s.conn = c.conns[chaosEnds{conn.Peer, netip.AddrPortFrom(conn.LocalIP, conn.LocalPort)}]
		c.mu.Unlock()
		s.known = true
	}
	return s.conn
}

// Listener returns a listener for l whose connections Chaos can break off without a word. It
// belongs right beneath that of the Proxy, and above one that reads PROXY headers; with a
// tls.Listener, beneath that:
//
//	gosmtp.Serve(server, chaos.Listener(l), proxy)
func (c *Chaos) Listener(l net.Listener) net.Listener { return &chaosListener{l, c} }

type chaosListener struct {
	net.Listener
	chaos *Chaos
}

// Accept implements net.Listener. It asks the connection nothing.
func (l *chaosListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &chaosConn{Conn: raw, chaos: l.chaos}, nil
}

// chaosEnds are both ends of a connection, by which a hook knows it.
type chaosEnds struct{ remote, local netip.AddrPort }

// chaosConn is a connection that can be broken off.
type chaosConn struct {
	net.Conn
	chaos *Chaos
	ends  chaosEnds // with the lock of Chaos held; zero before somebody has asked
	over  bool      // likewise
}

// NetConn returns the connection beneath.
func (c *chaosConn) NetConn() net.Conn { return c.Conn }

// SyscallConn implements syscall.Conn, by which it is known whether a client talks early.
func (c *chaosConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// RemoteAddr implements net.Conn. Who asks is about to tell a hook of the address.
func (c *chaosConn) RemoteAddr() net.Addr {
	remote := c.Conn.RemoteAddr()
	if ends := (chaosEnds{addrPort(remote), addrPort(c.Conn.LocalAddr())}); ends.remote.IsValid() {
		c.register(ends)
	}
	return remote
}

// register notes whose connection it is. A port may be another client's by now, whose server
// hasn't noticed that the one before is gone.
func (c *chaosConn) register(ends chaosEnds) {
	c.chaos.mu.Lock()
	defer c.chaos.mu.Unlock()
	if c.over || c.ends == ends {
		return
	}
	c.ends = ends
	if c.chaos.conns == nil {
		c.chaos.conns = make(map[chaosEnds]*chaosConn)
	}
	c.chaos.conns[ends] = c
}

// Close implements net.Conn.
func (c *chaosConn) Close() error {
	c.chaos.mu.Lock()
	c.over = true
	if c.chaos.conns[c.ends] == c {
		delete(c.chaos.conns, c.ends)
	}
	c.chaos.mu.Unlock()
	return c.Conn.Close()
}

// addrPort returns an address as Connection.Peer has it, invalid if it has none.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	return netip.AddrPort{}
}
