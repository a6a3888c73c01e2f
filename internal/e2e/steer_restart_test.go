package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file has what hooks at random know of a client, and a model of what comes of it: that
// it is another's than the one connected, at a command or when it connects, or that it isn't
// wanted. It knows of a Restart what the documentation of Origin tells.

// restarted is what a hook returns that has found the client to be another's.
type restarted struct {
	smtpproxy.Origin
	wrong string // why that is invalid; "" if it isn't
}

// decision is a Reply for it.
func (r *restarted) decision() reply {
	o := r.Origin
	d := reply{Restart: &o}
	switch r.wrong {
	case "a code":
		d.Code = 250
	case "lines":
		d.Lines = []string{"never"}
	case "the end":
		d.Disconnect = true
	}
	return d
}

var (
	toldIPs = []string{"192.0.2.7", "2001:db8::7", "::ffff:192.0.2.8", "fe80::1%eth0"}
	toldTo  = []string{"203.0.113.25", "2001:db8::25"}
)

// drawRestart draws what a hook finds out: all of it, or a part.
func drawRestart(r *rand.Rand) *restarted {
	f := new(restarted)
	o := &f.Origin
	if r.IntN(2) == 0 {
		o.RemoteIP = netip.MustParseAddr(toldIPs[r.IntN(len(toldIPs))])
	}
	if r.IntN(2) == 0 {
		o.RemotePort = uint16(1 + r.IntN(65535))
	}
	if r.IntN(3) == 0 {
		o.RemotePTR = fmt.Sprintf("client%d.example", r.IntN(100))
	}
	if r.IntN(3) == 0 {
		o.LocalIP = netip.MustParseAddr(toldTo[r.IntN(len(toldTo))])
	}
	if r.IntN(3) == 0 {
		o.LocalPort = uint16(1 + r.IntN(65535))
	}
	if r.IntN(2) == 0 {
		o.HELO = smtpproxy.HELO{Verb: []string{"HELO", "EHLO", "LHLO"}[r.IntN(3)], Host: fmt.Sprintf("told%d.example", r.IntN(100))}
	}
	if r.IntN(2) == 0 {
		o.Auth = smtpproxy.Auth{Mechanism: "XCLIENT", Username: fmt.Sprint("told", r.IntN(100))}
	}
	if r.IntN(40) == 0 {
		f.wrong = []string{"a code", "lines", "the end", "a control character"}[r.IntN(4)]
	}
	if f.wrong == "a control character" {
		o.RemotePTR = "x\r\n"
	}
	return f
}

// findsOut returns what a hook finds out at a command, nil if nothing. before is how often
// commands have restarted the server so far.
func (d *steered) findsOut(hook string, cmd command, before int) *restarted {
	h := hashOf(d.seed, hook, cmd.Received, cmd.SASL, before, "restart")
	switch rate := d.restarts; {
	case rate == 0:
		return nil
	case ofNoCommand(cmd) != "":
		rate *= 6 // it ends the dialogue
		fallthrough
	default:
		if h%rate > 0 {
			return nil
		}
	}
	f := drawRestart(rand.New(rand.NewPCG(h, 2)))
	if f.wrong == "" {
		f.wrong = ofNoCommand(cmd)
	}
	return f
}

// ofNoCommand tells why no Restart may be returned at a line: the client goes on with what is
// no command.
func ofNoCommand(cmd command) string {
	switch {
	case cmd.SASL:
		return "a SASL exchange"
	case slices.Contains([]string{"AUTH", "BDAT", "STARTTLS"}, verbIn(cmd.Received)):
		return "a client that goes on"
	}
	return ""
}

// greetedAs is what a hook decides about a client.
type greetedAs struct {
	restart *restarted
	refused bool
	failed  bool
	delay   time.Duration
}

// greets returns what a hook decides about the client when it is asked behind so many Restarts
// by commands.
func (d *steered) greets(hook string, before int) greetedAs {
	if d.restarts == 0 {
		return greetedAs{}
	}
	h := hashOf(d.seed, hook, before, "connect")
	switch n := h % 200; {
	case n == 0:
		return greetedAs{refused: true}
	case n == 1:
		return greetedAs{failed: true}
	case n < 20:
		return greetedAs{restart: drawRestart(rand.New(rand.NewPCG(h, 3)))}
	case n < 40:
		return greetedAs{delay: time.Millisecond}
	}
	return greetedAs{}
}

// Connect decides about the client, and asked again about the one that it turns out to be.
func (s steerer) Connect(_ *hookContext, conn connection) (decision, error) {
	d := s.d
	d.mu.Lock()
	before := d.found
	d.mu.Unlock()
	if d.careless.connectsOnce && before > 0 {
		return nil, nil
	}
	d.shown.addView(s.hook.name+" connects", d.views(conn))
	switch g := d.greets(s.hook.name, before); {
	case g.restart != nil:
		return g.restart.decision(), nil
	case g.refused:
		return reply{Code: 550}, nil
	case g.failed:
		return nil, errBroken
	case g.delay > 0:
		return pass{Delay: g.delay}, nil
	}
	return nil, nil
}

// views returns what a hook sees of the connection, and notes whether that is the same one.
func (d *steered) views(conn connection) view {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id == "" {
		d.id = conn.ID
	}
	if conn.ID != d.id {
		d.wrong = append(d.wrong, fmt.Sprintf("the connection is %s, and was %s", conn.ID, d.id))
	}
	if see := d.careless.see; see != nil {
		was := d.saw
		d.saw = conn
		see(&conn, was, d.found)
	}
	return viewOf(conn)
}

// view is what is known of a client, to be compared and read.
type view string

func viewOf(c connection) view {
	return view(fmt.Sprintf("%v, known as %q and %q, connected by %v to %v, early %v, greeted %q, authenticated %q, TLS %v",
		netip.AddrPortFrom(c.RemoteIP, c.RemotePort), c.RemotePTR, fmt.Sprint(c.RemoteUID), c.Peer, netip.AddrPortFrom(c.LocalIP, c.LocalPort),
		c.EarlyTalker, c.HELO, c.Auth, c.TLS.Protocol != ""))
}

func (s *shown) addView(name string, v view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprint(name, ": ", v))
}

// transactionSeen is what a hook sees of the transaction at a command.
func transactionSeen(active bool, recipients int) view {
	return view(fmt.Sprintf("transaction %v with %d", active, recipients))
}

// sees notes what a hook sees at a command, and that no transaction goes on behind a Restart.
func (d *steered) sees(hook string, conn connection, txn transaction) {
	d.shown.addView(hook+" sees", d.views(conn))
	d.shown.addView(hook+" sees", transactionSeen(txn.Active, txn.Recipients.Len()))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transactions == nil {
		d.transactions = make(map[string]int)
	}
	if at, ok := d.transactions[txn.ID]; ok && at != d.found {
		d.wrong = append(d.wrong, fmt.Sprintf("transaction %s goes on behind a Restart", txn.ID))
	}
	d.transactions[txn.ID] = d.found
}

// stranger is the model of who the client is, and of what the server knows of it.
type stranger struct {
	conn   connection // but for what can't be known before
	told   smtpproxy.Origin
	active bool // a transaction is open
	proven bool // the server has authenticated the client, on this connection

	remote, local string // told to the server; "" if they are as they were
}

// strangerAt returns the model of a client that has connected from an address to another.
func strangerAt(remote, local net.Addr, tls bool) *stranger {
	g := new(stranger)
	peer, _ := netip.ParseAddrPort(remote.String()) // none on a pipe
	to, _ := netip.ParseAddrPort(local.String())
	c := &g.conn
	c.Peer, c.RemoteIP, c.RemotePort, c.LocalIP, c.LocalPort = peer, peer.Addr(), peer.Port(), to.Addr(), to.Port()
	if tls {
		c.TLS.Protocol = "TLS"
	}
	return g
}

// afresh is what is left when the server gets a fresh connection.
func (g *stranger) afresh() {
	g.conn.HELO, g.conn.Auth = g.told.HELO, g.told.Auth
	g.active, g.proven = false, false
}

// isAnother makes the client another's.
func (g *stranger) isAnother(o smtpproxy.Origin) {
	c := &g.conn
	switch {
	case o.RemoteIP.IsValid():
		c.RemoteIP, c.RemotePort, c.RemotePTR = o.RemoteIP.Unmap(), o.RemotePort, o.RemotePTR
	default:
		if o.RemotePort != 0 {
			c.RemotePort = o.RemotePort
		}
		if o.RemotePTR != "" {
			c.RemotePTR = o.RemotePTR
		}
	}
	if o.LocalIP.IsValid() {
		c.LocalIP = o.LocalIP.Unmap()
	}
	if o.LocalPort != 0 {
		c.LocalPort = o.LocalPort
	}
	if (o.RemoteIP.IsValid() || o.RemotePort != 0) && c.RemoteIP.IsValid() {
		g.remote = netip.AddrPortFrom(c.RemoteIP, c.RemotePort).String()
	}
	if (o.LocalIP.IsValid() || o.LocalPort != 0) && c.LocalIP.IsValid() {
		g.local = netip.AddrPortFrom(c.LocalIP, c.LocalPort).String()
	}
	c.EarlyTalker = false
	g.told = o
	g.afresh()
}

// replied follows a reply of the server's to a line, as it got that.
func (g *stranger) replied(line string, sasl bool, code int) {
	verb, args, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); {
	case code == 235:
		g.conn.Auth = smtpproxy.Auth{Mechanism: "PLAIN", Username: "user"}
		g.proven = true
	case sasl:
	case isGreeting(verb):
		if g.active = false; code/100 == 2 {
			g.conn.HELO = smtpproxy.HELO{Verb: verb, Host: args}
		}
	case verb == "RSET" && code/100 == 2, verb == "BDAT" && (code >= 400 || strings.HasSuffix(line, " LAST")):
		g.active = false
	case verb == "MAIL" && code/100 == 2:
		g.active = true
	}
}

// answered follows a reply of a hook's or the library's.
func (g *stranger) answered(line string, sasl bool, code int) {
	verb := verbIn(line)
	if !sasl && (verb == "BDAT" || code/100 == 2 && (verb == "RSET" || isGreeting(verb))) {
		g.active = false
	}
}

// sees tells what the hook is to see.
func (m *steerModel) sees(hook string) {
	m.want.addView(hook+" sees", viewOf(m.stranger.conn))
	n := 0
	if m.stranger.active {
		n = m.rcpts
	}
	m.want.addView(hook+" sees", transactionSeen(m.stranger.active, n))
}

// connects follows the hooks that are asked about the client. goesOn tells that it is greeted
// next.
func (m *steerModel) connects() (goesOn bool, err error) {
	for _, t := range m.top.kids {
		m.want.addView(t.name+" connects", viewOf(m.stranger.conn))
		g := m.greets(t.name, m.before)
		switch {
		case g.failed, g.restart != nil && g.restart.wrong != "":
			return false, m.fails()
		case g.refused:
			m.command.By = smtpproxy.ByHook
			s := saidBy(reply{Code: 550}, t.name)
			s.last = true
			return false, m.says(s, -1, false)
		case g.restart != nil:
			m.stranger.isAnother(g.restart.Origin)
			if m.next == 0 { // the server has begun to greet
				return true, m.startsAfresh()
			}
			return true, nil
		}
	}
	return true, nil
}

// startsAfresh follows a server to its next connection. On the one before, it has got nothing
// that was sent behind the command.
func (m *steerModel) startsAfresh() error {
	if m.got != "" {
		return fmt.Errorf("the old connection got %q", m.got)
	}
	m.turnTo(m.conn + 1)
	if m.conn >= len(m.tap.conns) {
		return errors.New("the server has no fresh connection")
	}
	m.rcpts = 0
	return m.isTold()
}

// isTold checks the addresses of the server's connection.
func (m *steerModel) isTold() error {
	c, first := m.tap.conns[m.conn], m.tap.conns[0]
	for _, a := range []struct {
		what   string
		got    net.Addr
		want   string
		before net.Addr
	}{{"RemoteAddr", c.RemoteAddr(), m.stranger.remote, first.Conn.RemoteAddr()}, {"LocalAddr", c.LocalAddr(), m.stranger.local, first.Conn.LocalAddr()}} {
		_, isTCP := a.got.(*net.TCPAddr)
		switch {
		case a.want == "" && a.got.String() != a.before.String():
			return fmt.Errorf("%s is %v, and was %v", a.what, a.got, a.before)
		case a.want != "" && (a.got.String() != a.want || !isTCP):
			return fmt.Errorf("%s is %T %v, want %s", a.what, a.got, a.got, a.want)
		}
	}
	return nil
}

// restart follows a hook's Restart by a command.
func (m *steerModel) restart(f *restarted) error {
	if f.wrong != "" {
		return m.fails()
	}
	m.before++
	m.stranger.isAnother(f.Origin)
	if goesOn, err := m.connects(); !goesOn || err != nil {
		return err
	}
	if err := m.startsAfresh(); err != nil {
		return err
	}
	m.command.By = smtpproxy.ByServer
	return m.serves("", 1)
}

// parting is what is told of the end.
type parting struct {
	conn connection
	end  end
}

// checkEnd checks what was told of the end of the connection, once.
func (m *steerModel) checkEnd() error {
	select {
	case <-m.over:
	case <-time.After(patience):
		return errors.New("nobody was told of the end")
	}
	got, sent := 0, 0 // at least
	for _, h := range m.heard {
		got += len(h.reply)
		if !strings.HasSuffix(h.line, " LAST") && h.line != "." && h.line != "" {
			sent += len(h.line + "\r\n")
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.connected != 1 || len(m.parted) != 1 || len(m.over) > 0 {
		return fmt.Errorf("observers were told of %d beginnings, hooks of %d ends", m.connected, len(m.parted))
	}
	p := m.parted[0]
	switch v := viewOf(p.conn); {
	case v != viewOf(m.stranger.conn):
		return fmt.Errorf("at the end the client is\n\t%s, want\n\t%s", v, viewOf(m.stranger.conn))
	case m.counts && m.stranger.conn.TLS.Protocol == "" && (p.end.Received < int64(sent) || p.end.Sent < int64(got)):
		return fmt.Errorf("the client has sent %d octets and got %d; told was %d and %d", sent, got, p.end.Received, p.end.Sent)
	}
	return nil
}

// carelessOrigin are the faults of a library that is careless with Restarts.
type carelessOrigin struct {
	connectsOnce bool // Connect isn't asked again
	// see changes what is seen of the connection: how it was at the call before is given
	// too, and how often commands have restarted the server.
	see func(now *connection, was connection, restarts int)
}

// seeing is a fault in what is seen of the connection.
func seeing(what string, see func(now *connection, was connection, restarts bool)) carelessness {
	return carelessness{what: what, in: func(d *steered) {
		before := 0
		d.careless.see = func(now *connection, was connection, found int) {
			see(now, was, found > before)
			before = found
		}
	}}
}

// atFirst is a fault in what the server reads first of a fresh connection: f returns what it
// gets of that.
func atFirst(what string, f func(old *tapped, octets string) string) carelessness {
	return carelessness{what: what, in: func(d *steered) {
		last := 0
		d.tap.reads = func(t *tapped, octets []byte) int {
			if t.n <= last || len(octets) == 0 {
				return len(octets)
			}
			last = t.n
			return copy(octets, f(d.tap.conns[t.n-1], string(octets)))
		}
	}}
}

// greetingAfresh is a fault in what the server writes first there.
func greetingAfresh(what string, f func(octets string) string) carelessness {
	return carelessness{what: what, in: func(d *steered) {
		last := 0
		d.tap.writes = func(t *tapped, octets string) string {
			if t.n <= last {
				return octets
			}
			last = t.n
			return f(octets)
		}
	}}
}

func TestACarelessRestartIsFoundOut(t *testing.T) {
	findOut(t, []carelessness{
		{what: "Connect isn't asked again", in: func(d *steered) { d.careless.connectsOnce = true }},
		seeing("Peer is the client that was told", func(now *connection, _ connection, _ bool) {
			now.Peer = netip.AddrPortFrom(now.RemoteIP, now.RemotePort)
		}),
		seeing("the address stays", func(now *connection, was connection, restarts bool) {
			if restarts {
				now.RemoteIP, now.RemotePort = was.RemoteIP, was.RemotePort
			}
		}),
		seeing("the host name stays", func(now *connection, was connection, restarts bool) {
			if restarts && now.RemotePTR == "" {
				now.RemotePTR = was.RemotePTR
			}
		}),
		seeing("who has greeted stays", func(now *connection, was connection, restarts bool) {
			if restarts && now.HELO.Verb == "" {
				now.HELO = was.HELO
			}
		}),
		seeing("who has authenticated stays", func(now *connection, was connection, restarts bool) {
			if restarts && now.Auth.Username == "" {
				now.Auth = was.Auth
			}
		}),
		seeing("who has talked early stays so", func(now *connection, was connection, restarts bool) {
			now.EarlyTalker = now.EarlyTalker || restarts && was.EarlyTalker
		}),
		seeing("who was told to have authenticated isn't so inside TLS", func(now *connection, _ connection, _ bool) {
			if now.TLS.Protocol != "" && now.Auth.Mechanism == "XCLIENT" {
				now.Auth = smtpproxy.Auth{}
			}
		}),
		atFirst("what is sent behind is lost", func(*tapped, string) string { return "" }),
		atFirst("the old connection gets it, too", func(old *tapped, octets string) string {
			old.got.WriteString(octets)
			return octets
		}),
		greetingAfresh("the greeting is kept from the client", func(string) string { return "" }),
		greetingAfresh("the client gets what the old connection says", func(octets string) string { return "421 4.4.2 bye\r\n" + octets }),
	})
}

// restless is a hook that restarts the server at commands at random, and passes the others.
type restless struct {
	mu    sync.Mutex
	rand  *rand.Rand
	times int
}

func (r *restless) Command(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ofNoCommand(cmd) != "" || r.rand.IntN(8) > 0 {
		return nil, nil
	}
	r.times++
	f := drawRestart(r.rand)
	for f.wrong != "" {
		f = drawRestart(r.rand)
	}
	return f.decision(), nil
}

// inSome puts it before the hook in every second session.
func (r *restless) inSome(seed uint64, w wrap) wrap {
	if seed%2 == 0 {
		return w
	}
	r.rand = rand.New(rand.NewPCG(seed, 17))
	return func(l net.Listener, h smtpproxy.Hook) net.Listener { return w(l, smtpproxy.Chain(r, h)) }
}

// check tells whether it has been met often enough in so many sessions.
func (r *restless) check(t *testing.T, sessions int) {
	if r.times < sessions/3 {
		t.Errorf("the server was restarted %d times in %d sessions: the property says little", r.times, sessions)
	}
}
