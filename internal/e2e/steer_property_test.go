package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file plays random dialogues through chains of hooks that do at random what hooks may
// do, and must not do, and holds against a model, octet for octet, what the server gets,
// what the client gets, and what hooks and observers are shown of it.

// steered is such a dialogue.
type steered struct {
	*rand.Rand
	seed uint64
	lmtp bool
	tls  bool // STARTTLS is offered
	top  *tree
	tap  steerTap

	shown *shown // what the hooks were shown, replies too
	mu    sync.Mutex
	first []smtpproxy.Exchange // as the witness, which is asked first, has seen them
	told  []smtpproxy.Exchange // as the observer has
	wrong []string             // what must not be

	restarts     uint64 // a hook restarts the server at one of so many lines; 0 is never
	found        int    // how often one has, by a command
	id           string // of the connection
	transactions map[string]int
	connected    int       // beginnings that observers were told of
	parted       []parting // ends that hooks were told of
	over         chan end  // that observers were told of, behind them
	counts       bool      // the client waits for the end, so that all octets are counted

	inTLS    bool // from the start
	careless carelessOrigin
	saw      connection

	heard []answered
	lines int

	patience time.Duration // of the client
}

// answered is a line of the client's with a reply, as many times as it has replies.
type answered struct{ line, reply string }

// steerTap records what a server gets, and what it replies, on each of its connections.
type steerTap struct {
	mu    sync.Mutex
	conns []*tapped
	bye   bool // the server says so when it can't read any more, which nobody is to get

	// What a careless library would make of it; nil for a careful one.
	reads  func(t *tapped, octets []byte) int
	writes func(t *tapped, octets string) string
}

type tapped struct {
	net.Conn
	tap        *steerTap
	n          int // of those before
	got, wrote strings.Builder
	closed     bool
}

type tapListener struct {
	net.Listener
	tap *steerTap
}

func (l tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.tap.mu.Lock()
	defer l.tap.mu.Unlock()
	t := &tapped{Conn: c, tap: l.tap, n: len(l.tap.conns)}
	l.tap.conns = append(l.tap.conns, t)
	return t, nil
}

func (t *tapped) NetConn() net.Conn { return t.Conn }

func (t *tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if err != nil && t.tap.bye {
		io.WriteString(t.Conn, "421 4.4.2 bye\r\n")
	}
	t.tap.mu.Lock()
	defer t.tap.mu.Unlock()
	if f := t.tap.reads; f != nil {
		n = f(t, p[:n])
	}
	t.got.Write(p[:n])
	return n, err
}

func (t *tapped) Write(p []byte) (int, error) {
	t.tap.mu.Lock()
	t.wrote.Write(p)
	octets := p
	if f := t.tap.writes; f != nil {
		octets = []byte(f(t, string(p)))
	}
	t.tap.mu.Unlock()
	if _, err := t.Conn.Write(octets); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t *tapped) Close() error {
	t.tap.mu.Lock()
	t.closed = true
	t.tap.mu.Unlock()
	return t.Conn.Close()
}

func (t *steerTap) hasClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.conns, func(c *tapped) bool { return c.closed })
}

// steer makes a dialogue.
func steer(seed uint64, lmtp bool) *steered {
	d := &steered{Rand: rand.New(rand.NewPCG(seed, 15)), seed: seed, lmtp: lmtp, shown: new(shown), patience: patience, over: make(chan end, 10)}
	d.restarts = []uint64{0, 8, 24}[seed%3]
	d.tap.bye = seed%4 > 1
	g := &grower{Rand: d.Rand}
	d.top = &tree{kind: inChain}
	for range 1 + d.IntN(4) {
		d.top.kids = append(d.top.kids, g.single())
	}
	return d
}

// steerer is one hook of the chain.
type steerer struct {
	d    *steered
	hook *tree
}

// looks is what a hook does with its Context: most don't look.
func (d *steered) looks(ctx *hookContext, n uint64) {
	switch n % 16 {
	case 0, 1:
		if err := ctx.Err(); err != nil {
			d.fault("a Context is done: %v", err)
		}
	case 2:
		select {
		case <-ctx.Done():
			d.fault("a Context is done")
		default:
		}
	case 3:
		ctx.AfterFunc(func() {})()
	case 4:
		select {
		case <-ctx.Done():
			d.fault("a Context is done")
		case <-time.After(time.Millisecond):
		}
	}
}

func (d *steered) fault(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrong = append(d.wrong, fmt.Sprintf(format, args...))
}

func (s steerer) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	s.d.shown.add(s.hook.name, cmd)
	s.d.sees(s.hook.name, conn, txn)
	h := hashOf(s.d.seed, s.hook.name, cmd.Received)
	s.d.looks(ctx, h)
	dec, err := s.d.decides(s.hook, cmd, s.d.found)
	if r, ok := dec.(reply); ok && r.Restart != nil {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		s.d.found++
		return dec, err
	}
	if h%24 != 0 {
		return dec, err
	}
	switch v := dec.(type) { // the same, a little later
	case nil:
		dec = pass{Delay: time.Millisecond}
	case pass:
		v.Delay = time.Millisecond
		dec = v
	case reply:
		v.Delay = time.Millisecond
		dec = v
	}
	return dec, err
}

func (s steerer) Reply(ctx *hookContext, x smtpproxy.Exchange) (decision, error) {
	line, first := x.Command.Received, rendered(x.Reply)
	s.d.shown.addReply(s.hook.name, line, first)
	s.d.shown.addView(s.hook.name+" sees", s.d.views(x.Connection))
	s.d.looks(ctx, hashOf(s.d.seed, s.hook.name, line, "reply"))
	return whimOf(s.d.seed, s.hook.name, line, x.Reply.Code, x.Recipient).decides(x.Reply.Code, s.hook.name)
}

func (s *shown) addReply(name, line, reply string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf("%s: %q -> %q", name, line, reply))
}

// rendered is a Reply as it is sent, all of whose fields are filled in.
func rendered(r reply) string {
	s := said{code: r.Code, texts: r.Lines}
	if r.Enhanced != smtpproxy.NoEnhancedCode {
		s.enhanced = fmt.Sprintf("%d.%d.%d", r.Enhanced[0], r.Enhanced[1], r.Enhanced[2])
	}
	return s.String()
}

// decides is what a hook decides about a line, within what doesn't make a client miscount:
// an LMTP recipient that the server doesn't know, say. before is how often commands have
// restarted the server so far.
func (d *steered) decides(t *tree, cmd command, before int) (decision, error) {
	if f := d.findsOut(t.name, cmd, before); f != nil {
		return f.decision(), nil
	}
	verb := verbIn(cmd.Received)
	if !cmd.SASL && slices.Contains([]string{"LHLO", "STARTTLS"}, verb) {
		return nil, nil
	}
	dec, err := t.decides(d.seed, cmd)
	if r, ok := dec.(*reply); ok && r.Code == 250 && d.lmtp && slices.Contains([]string{"MAIL", "RCPT"}, verb) {
		return reply{Code: 550}, nil
	}
	return dec, err
}

func hashOf(parts ...any) uint64 {
	var h uint64 = 14695981039346656037
	for _, b := range []byte(fmt.Sprint(parts...)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h >> 8
}

// hooks is the chain. Behind it stands the witness, which sees each reply first.
func (d *steered) hooks() smtpproxy.Hook {
	var all []smtpproxy.Hook
	for i, t := range d.top.kids {
		var h smtpproxy.Hook = smtpproxy.Named(t.name, steerer{d, t})
		switch i % 3 {
		case 1:
			h = smtpproxy.Chain(nil, h)
		case 2:
			h = &smtpproxy.Mux{Else: h}
		}
		all = append(all, h)
	}
	return smtpproxy.Chain(append(all, smtpproxy.Funcs{
		OnReply: func(_ *hookContext, x smtpproxy.Exchange) (decision, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.first = append(d.first, x)
			return nil, nil
		},
		OnDisconnect: func(_ *hookContext, conn connection, e end) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.parted = append(d.parted, parting{conn, e})
		},
	})...)
}

// proxy is the library with the hooks, and observers of which the last one panics.
func (d *steered) proxy() *smtpproxy.Proxy {
	p := &smtpproxy.Proxy{Hook: d.hooks(), AllowInsecureAuth: true, MaxErrors: -1}
	if d.IntN(3) == 0 {
		p.HookTimeout = patience
	}
	if d.tls {
		p.TLSConfig = serverTLS()
	}
	p.Observers = []smtpproxy.Observer{
		{
			Connected: func(*hookContext, connection) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.connected++
			},
			Exchanged: func(_ *hookContext, x smtpproxy.Exchange) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.told = append(d.told, x)
			},
			Disconnected: func(_ *hookContext, _ connection, e end) { d.over <- e },
		},
		{
			Connected:    func(*hookContext, connection) { panic("Connected") },
			Exchanged:    func(*hookContext, smtpproxy.Exchange) { panic("Exchanged") },
			StartedTLS:   func(*hookContext, connection, error) { panic("StartedTLS") },
			Failed:       func(*hookContext, smtpproxy.Failure) { panic("Failed") },
			Disconnected: func(*hookContext, connection, end) { panic("Disconnected") },
		},
	}
	return p
}

const steeredContent = "hi\r\n..\r\n.\r\n"

// group returns lines that a client may send at once (RFC 2920 section 3.1).
func (d *steered) group(n int) (lines []string) {
	hello := "EHLO client.example"
	if d.lmtp {
		hello = "LHLO client.example"
	}
	switch {
	case n == 0:
		return []string{hello}
	case n > 13:
		return []string{"QUIT"}
	case d.IntN(10) == 0:
		return []string{[]string{"BDAT 3 LAST", "BDAT 3", "BDAT 0 LAST"}[d.IntN(3)]}
	case d.IntN(4) == 0: // most of the random ones lead to no message
		d.lines += 3
		m, r := fmt.Sprintf("MAIL FROM:<s%d@example.com>", d.lines), fmt.Sprintf("RCPT TO:<r%d@example.org>", d.lines)
		all := []string{"RSET", m, r, fmt.Sprintf("RCPT TO:<no%d@example.org>", d.lines), fmt.Sprintf("RCPT TO:<t%d@example.org>", d.lines), "DATA"}
		return all[:5+d.IntN(2)]
	}
	for range 1 + d.IntN(5) {
		d.lines++
		k := d.lines
		switch d.IntN(14) {
		case 0, 1:
			lines = append(lines, fmt.Sprint("NOOP ", k))
		case 2:
			lines = append(lines, fmt.Sprint("VRFY ", k))
		case 3:
			lines = append(lines, "RSET")
		case 4:
			lines = append(lines, fmt.Sprint("?", k))
		case 5, 6:
			lines = append(lines, fmt.Sprintf("MAIL FROM:<s%d@example.com>", k))
		case 7, 8, 9:
			lines = append(lines, fmt.Sprintf("RCPT TO:<r%d@example.org>", k))
		case 10:
			return append(lines, "DATA")
		case 11:
			return append(lines, []string{"AUTH PLAIN", "AUTH PLAIN " + response}[d.IntN(2)])
		case 12:
			return append(lines, hello)
		case 13:
			if d.tls {
				return append(lines, "STARTTLS")
			}
		}
		if d.tls && d.IntN(12) == 0 {
			return append(lines, "STARTTLS")
		}
	}
	return append(lines, fmt.Sprint("NOOP ", d.lines))
}

// converse plays the client's side. It ends where the server, or a hook, does.
func (d *steered) converse(p *peer) {
	early := d.IntN(6) == 0
	if early {
		p.send(d.group(0)[0] + "\r\n")
	}
	if !d.hears(p, "", 1) {
		return
	}
	sasl, fresh, rcpts := false, false, 0
	var later []string
	for n := 0; ; n++ { // up to QUIT, but that may restart the server
		lines := d.group(n)
		if n < 13 && later != nil {
			lines = later
		}
		later = nil
		if fresh && !sasl { // the server has forgotten all (RFC 3207 section 4.2)
			lines, fresh = d.group(0), false
		}
		if last := len(lines) - 1; last > 0 && lines[last] == "DATA" && d.lmtp && d.restarts > 0 {
			// Who hasn't said LHLO to a server that knows LMTP alone can't count statuses.
			lines, later = lines[:last], lines[last:]
		}
		if sasl {
			lines = []string{[]string{response, "*", "c2VjcmV0", fmt.Sprintf("c2VjcmV0%04d", d.IntN(10000))}[d.IntN(4)]}
		}
		octets := strings.Join(lines, "\r\n") + "\r\n"
		if !sasl {
			octets += strings.Repeat("x", chunkIn(lines[0]))
		}
		if n > 0 || !early {
			p.send(octets)
		}
		for _, line := range lines {
			replies := 1
			if d.lmtp && !sasl && strings.HasSuffix(line, " LAST") {
				replies = max(1, rcpts)
			}
			if !d.hears(p, line, replies) {
				return
			}
			last := d.heard[len(d.heard)-1].reply
			ok := last[0] == '2'
			switch verb := verbIn(line); {
			case sasl:
			case verb != "STARTTLS" && strings.HasPrefix(last, "220"): // the server has started afresh
				fresh, rcpts, later = d.lmtp || d.IntN(3) > 0, 0, nil
			case verb == "RCPT" && ok:
				rcpts++
			case slices.Contains([]string{"MAIL", "RSET", "LHLO", "EHLO"}, verb) && ok, strings.HasSuffix(line, " LAST"):
				rcpts = 0
			case verb == "STARTTLS" && ok:
				<-p.sent
				p.Conn = tlsClient(p.Conn)
				if err := p.Conn.(*tls.Conn).Handshake(); err != nil {
					d.fault("handshake: %v", err)
					return
				}
				p.r.Reset(p.Conn)
				fresh, rcpts = true, 0
			}
			if sasl = strings.HasPrefix(last, "334"); strings.HasPrefix(last, "354") {
				replies := 1
				if d.lmtp {
					replies = max(1, rcpts)
				}
				p.send(steeredContent)
				if !d.hears(p, ".", replies) {
					return
				}
				rcpts = 0
			}
		}
	}
}

// hears reads the replies to a line. It returns false if the dialogue is over.
func (d *steered) hears(p *peer, line string, replies int) bool {
	for range replies {
		var octets strings.Builder
		for {
			text, err := p.r.ReadString('\n')
			octets.WriteString(text)
			if err != nil {
				if octets.Len() > 0 || !errors.Is(err, io.EOF) && (!d.tap.hasClosed() || errors.Is(err, os.ErrDeadlineExceeded)) { // a server that closes may reset it
					d.fault("reply %q, %v", octets.String(), err)
				}
				return false
			}
			if len(text) < 4 || text[3] != '-' {
				break
			}
		}
		d.heard = append(d.heard, answered{line, octets.String()})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// An observer is told before the client gets it. At one of several statuses, the end
	// comes behind the last one.
	if n := len(d.heard); len(d.told) < n || d.told[n-1].Reply.Disconnect {
		return false
	}
	return true
}

// play plays the dialogue, and tells what is wrong with it.
func (d *steered) play(t *testing.T, p *smtpproxy.Proxy, s *servertest.Server, tr transport) error {
	served := make(chan error, 1)
	go func() { served <- s.Serve(tapListener{p.Listener(tr), &d.tap}) }()
	k := dialPeer(t, tr)
	k.SetDeadline(time.Now().Add(d.patience))
	d.converse(k)
	d.counts = tr.halfCloses
	if tr.halfCloses { // else there is nothing to read any more when the other side is closed
		if rest, err := io.ReadAll(k.r); len(rest) > 0 {
			d.fault("behind the end came %q, %v", rest, err)
		}
	}
	k.Close()
	s.Close()
	<-served
	err := d.check()
	for _, w := range d.wrong {
		err = errors.Join(err, errors.New(w))
	}
	if err != nil {
		var heard []string
		for _, h := range d.heard {
			heard = append(heard, fmt.Sprintf("%q -> %q", h.line, h.reply))
		}
		err = fmt.Errorf("seed %d: %w\nhooks %v, HookTimeout %v\n%s", d.seed, err, d.top, p.HookTimeout, strings.Join(heard, "\n"))
	}
	return err
}
