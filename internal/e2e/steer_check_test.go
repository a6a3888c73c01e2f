package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is the model of a steered dialogue, from the client's lines to all that is sent
// and shown.

// steerModel follows a dialogue.
type steerModel struct {
	*steered
	hooks *model
	want  *shown // what the hooks are to be shown

	conn  int    // the server's connection
	got   string // what the server has still got there
	wrote string // and what it has replied
	next  int    // the next of d.heard

	command  smtpproxy.Exchange // what an Exchange tells of the command: Command, Passed, By, Octets
	own      bool               // a hook has answered 334
	sasl     bool
	stranger *stranger
	before   int  // Restarts by commands
	rcpts    int  // that the server has accepted
	closing  bool // the dialogue ends
	ending   bool // and has
}

// check holds all that came of the dialogue against the model.
func (d *steered) check() error {
	m := &steerModel{steered: d, want: new(shown)}
	m.hooks = &model{top: d.top, asked: make(map[*tree][]*tree)}
	m.hooks.show = func(t *tree, cmd command) (decision, error) {
		m.want.add(t.name, cmd)
		m.sees(t.name)
		return d.decides(t, cmd, m.before)
	}
	if len(d.tap.conns) == 0 || len(d.first) == 0 {
		return errors.New("no greeting")
	}
	first := d.tap.conns[0].Conn
	m.stranger = strangerAt(first.RemoteAddr(), first.LocalAddr(), d.inTLS)
	m.turnTo(0)
	err := m.run()
	if err == nil {
		err = m.checkEnd()
	}
	if err == nil && len(d.told) != len(d.heard) {
		err = fmt.Errorf("observers were told of %d replies, the client got %d", len(d.told), len(d.heard))
	}
	if err == nil && len(d.first) != len(d.told) {
		err = fmt.Errorf("the hook was shown %d replies, observers %d", len(d.first), len(d.told))
	}
	for i := range max(len(d.shown.list), len(m.want.list)) {
		if i >= len(d.shown.list) || i >= len(m.want.list) || d.shown.list[i] != m.want.list[i] {
			return errors.Join(err, fmt.Errorf("shown was\n\t%s\nwant\n\t%s",
				strings.Join(d.shown.list[i:min(i+3, len(d.shown.list))], "\n\t"), strings.Join(m.want.list[i:min(i+3, len(m.want.list))], "\n\t")))
		}
	}
	return err
}

// turnTo goes on at another connection of the server's.
func (m *steerModel) turnTo(i int) {
	if m.conn = i; i < len(m.tap.conns) {
		m.got, m.wrote = m.tap.conns[i].got.String(), m.tap.conns[i].wrote.String()
	}
}

func (m *steerModel) run() error {
	for m.next < len(m.heard) && !m.ending {
		line := m.heard[m.next].line
		err := m.line(line)
		if err != nil {
			return fmt.Errorf("%q, reply %d: %w", line, m.next, err)
		}
	}
	switch {
	case m.next < len(m.heard):
		return fmt.Errorf("behind the end the client got %q", m.heard[m.next].reply)
	case m.got != "" && m.got != "*\r\n" && !m.tap.conns[m.conn].closed:
		return fmt.Errorf("the server got %q", m.got)
	case len(m.tap.conns) != m.conn+1:
		return fmt.Errorf("the server has got %d connections, want %d", len(m.tap.conns), m.conn+1)
	case m.wrote != "" && !m.ending:
		return fmt.Errorf("the client didn't get %q", m.wrote)
	case !m.ending && !m.tap.hasClosed():
		return errors.New("the client got a reply too few")
	}
	return nil
}

// line follows a line of the client's.
func (m *steerModel) line(line string) error {
	switch {
	case line == "" && m.next == 0:
		if goesOn, err := m.connects(); !goesOn || err != nil {
			return err
		}
		m.command = smtpproxy.Exchange{By: smtpproxy.ByServer}
		return m.serves("", 1)
	case line == ".":
		m.stranger.active = false
		m.command.Octets = int64(len(steeredContent))
		if err := m.gets(steeredContent); err != nil {
			return err
		}
		return m.message()
	}
	m.command = smtpproxy.Exchange{Command: command{Received: line, SASL: m.sasl}}
	if m.sasl {
		m.command.Command.Received = "" // nobody is shown what such a line holds
	}
	w := m.hooks.line(line, m.sasl, m.own)
	wasSASL, wasOwn := m.sasl, m.own
	m.sasl, m.own = false, false
	switch {
	case w.err != nil:
		return m.fails()
	case w.reply != nil && w.reply.Restart != nil:
		return m.restart(m.findsOut(w.by.name, command{Received: line, SASL: wasSASL}, m.before))
	case w.reply != nil:
		m.stranger.answered(line, wasSASL, w.reply.Code)
		if verbIn(line) == "RSET" && !wasSASL && w.reply.Code == 250 {
			m.rcpts = 0 // the client counts on nothing any more
		}
		return m.replies(w, wasSASL && !wasOwn)
	case m.first[m.next].By == smtpproxy.ByLibrary:
		return m.refuses(line)
	}
	m.command.By, m.command.Passed = smtpproxy.ByServer, command{Line: w.cmd.Line}
	if wasSASL {
		m.command.Passed.Line = ""
	}
	return m.passes(w, line)
}

// fails follows the failure of a hook.
func (m *steerModel) fails() error {
	m.command.By = smtpproxy.ByFailure
	recipient := -1
	if c := m.command.Command; m.lmtp && !c.SASL && strings.HasSuffix(c.Received, " LAST") {
		recipient = 0 // the first status, and the end
	}
	return m.says(failedReply(), recipient, false)
}

// replies follows the reply of a hook. cancels tells that it was one to a line of the
// server's exchange, which has to be ended there (RFC 4954 section 4).
func (m *steerModel) replies(w *walk, cancels bool) error {
	name := w.by.name
	m.command.By = smtpproxy.ByHook
	m.sasl = w.reply.Code == 334
	m.own = m.sasl
	copies, recipient := 1, -1
	if m.lmtp && strings.HasSuffix(w.cmd.Received, " LAST") && !m.command.Command.SASL {
		copies, recipient = max(1, m.rcpts), 0
		m.rcpts = 0
	}
	for i := range copies {
		r := recipient
		if r == 0 {
			r = i
		}
		if err := m.says(saidBy(*w.reply, name), r, i < copies-1); err != nil {
			return err
		}
	}
	if cancels && (!m.ending || m.got != "") {
		if err := m.gets("*\r\n"); err != nil {
			return err
		}
		_, rest, ok := cutReply(m.wrote)
		if !ok {
			return errors.New("the server has not replied to *")
		}
		m.wrote = rest
	}
	return nil
}

// refuses follows a refusal of the library's, whose text is the library's to choose.
func (m *steerModel) refuses(line string) error {
	m.command.By = smtpproxy.ByLibrary
	x := m.first[m.next]
	s, _, _ := cutReply(rendered(x.Reply))
	starts := verbIn(line) == "STARTTLS" && s.code == 220
	g := m.stranger
	switch {
	case s.code < 400 && !starts:
		return fmt.Errorf("the library says %v", s)
	case verbIn(line) == "STARTTLS" && !starts && !g.active && !g.proven && g.conn.TLS.Protocol == "":
		return fmt.Errorf("without a reason the library says %v", s)
	}
	g.answered(line, false, s.code)
	s.last = x.Reply.Disconnect
	copies, recipient := 1, -1
	if m.lmtp && strings.HasSuffix(line, " LAST") {
		copies, recipient = max(1, m.rcpts), 0
		m.rcpts = 0
	}
	for i := range copies {
		r := recipient
		if r == 0 {
			r = i
		}
		if err := m.says(s, r, i < copies-1); err != nil {
			return err
		}
	}
	if starts && !m.ending {
		g.conn.TLS.Protocol = "TLS"
		g.afresh()
		if err := m.startsAfresh(); err != nil {
			return err
		}
		s, rest, ok := cutReply(m.wrote)
		if !ok || s.code != 220 {
			return fmt.Errorf("the server greets with %q inside TLS", m.wrote)
		}
		m.wrote = rest
	}
	return nil
}

// passes follows a line that the server gets, as the hooks have left it.
func (m *steerModel) passes(w *walk, line string) error {
	verb := verbIn(w.cmd.Line)
	if m.command.Command.SASL {
		verb = ""
	}
	if verb == "MAIL" && strings.HasPrefix(m.got, "RSET\r\nMAIL") {
		// The library's own, of which nobody is shown anything.
		s, rest, ok := cutReply(m.wrote)
		if !ok || s.code != 250 {
			return fmt.Errorf("the server's reply to RSET is %q", m.wrote)
		}
		m.got, m.wrote = m.got[len("RSET\r\n"):], rest
	}
	chunk := 0
	if verb == "BDAT" {
		chunk = chunkIn(line)
	}
	if err := m.gets(w.cmd.Line + "\r\n" + strings.Repeat("x", chunk)); err != nil {
		return err
	}
	m.command.Octets = int64(chunk)
	if s, _, ok := cutReply(m.wrote); ok {
		m.stranger.replied(w.cmd.Line, verb == "", s.code)
	}
	if strings.HasSuffix(line, " LAST") && verb == "BDAT" {
		return m.message()
	}
	s, rest, ok := cutReply(m.wrote)
	if m.tls && m.stranger.conn.TLS.Protocol == "" && s.code == 250 && (verb == "EHLO" || verb == "LHLO") {
		// The library's own keyword is the last one.
		s.texts = append(s.texts, "STARTTLS")
		m.wrote = s.plain() + rest
	}
	if err := m.serves(line, 1); err != nil || !ok {
		return err
	}
	switch {
	case verb == "RCPT" && s.code/100 == 2:
		m.rcpts++
	case (verb == "RSET" || verb == "MAIL" || verb == "EHLO" || verb == "LHLO") && s.code/100 == 2:
		m.rcpts = 0
	}
	m.sasl = s.code == 334
	return nil
}

// gets takes off what the server has got next.
func (m *steerModel) gets(octets string) error {
	if !strings.HasPrefix(m.got, octets) {
		return fmt.Errorf("the server got %q, want %q", m.got, octets)
	}
	m.got = m.got[len(octets):]
	return nil
}

// message follows the replies to a message: in LMTP one for each recipient (RFC 2033 section
// 4.2).
func (m *steerModel) message() error {
	n := m.rcpts
	m.rcpts = 0
	if m.lmtp {
		return m.serves(".", max(1, n))
	}
	return m.serves("", 1)
}

// serves follows replies of the server's. what is a dot for statuses.
func (m *steerModel) serves(what string, n int) error {
	for i := range n {
		recipient := -1
		if what == "." {
			recipient = i
		}
		s, rest, ok := cutReply(m.wrote)
		if !ok {
			return fmt.Errorf("the server has replied %q", m.wrote)
		}
		m.wrote = rest
		s.last = s.code == 421 || s.code == 221
		if err := m.says(s, recipient, i < n-1); err != nil {
			return err
		}
	}
	return nil
}

// says follows one reply, through the hooks, to the client. Where more are to come to the same
// message, the client gets them before the end.
func (m *steerModel) says(s said, recipient int, more bool) error {
	if m.next >= len(m.heard) || m.next >= len(m.told) {
		return fmt.Errorf("the client didn't get %v, or observers weren't told", s)
	}
	s.last = s.last || m.closing
	line := m.command.Command.Received
	if m.next == 0 { // before that, nobody knows
		m.stranger.conn.EarlyTalker = m.first[0].Connection.EarlyTalker
	}
	positive, code := s.code < 400, s.code
	for i := len(m.top.kids) - 1; i >= 0; i-- {
		name := m.top.kids[i].name
		m.want.addReply(name, line, s.plain())
		m.want.addView(name+" sees", viewOf(m.stranger.conn))
		s = whimOf(m.seed, name, line, s.code, recipient).amend(s, line, name)
	}
	if positive && s.code != code || !positive && s.code < 400 {
		return fmt.Errorf("the model makes %d of %d", s.code, code)
	}
	h, x := m.heard[m.next], m.told[m.next]
	m.next++
	m.closing = s.last
	m.ending = s.last && !more
	if h.reply != s.String() {
		return fmt.Errorf("the client got %q, want %q", h.reply, s)
	}
	c, w := x.Command, m.command
	got := fmt.Sprintf("%q, SASL %v, passed %q, %q by %v, hook %q, recipient %d, last %v, %d octets",
		c.Received, c.SASL, x.Passed.Line, rendered(x.Reply), x.By, x.Hook, x.Recipient, x.Reply.Disconnect, x.Octets)
	want := fmt.Sprintf("%q, SASL %v, passed %q, %q by %v, hook %q, recipient %d, last %v, %d octets",
		line, w.Command.SASL, w.Passed.Line, s.plain(), w.By, s.hook, recipient, s.last, w.Octets)
	if got != want {
		return fmt.Errorf("observers were told\n\t%s, want\n\t%s", got, want)
	}
	return nil
}

// plain is the reply as an Exchange has it, which doesn't tell how a server has written it.
func (s said) plain() string {
	s.octets = ""
	return s.String()
}

// steeredServers are those whose dialogues are steered.
var steeredServers = map[string]struct {
	lmtp  bool
	serve func() *servertest.Server
}{
	"strict":        {false, func() *servertest.Server { return servertest.Strict() }},
	"lenient":       {false, func() *servertest.Server { return servertest.Lenient(servertest.LineByLine()) }},
	"go-smtp":       {false, func() *servertest.Server { return servertest.GoSMTP() }},
	"LMTP":          {true, func() *servertest.Server { return servertest.Strict(servertest.LMTP()) }},
	"go-smtp, LMTP": {true, func() *servertest.Server { return servertest.GoSMTPLMTP(false) }},
}

func TestWhateverHooksDoWithRepliesTheClientGetsWhatTheModelSays(t *testing.T) {
	rounds := *sessions / 3
	if testing.Short() {
		rounds = *sessions / 15
	}
	for name, s := range steeredServers {
		for transport, listen := range map[string]func(*testing.T) transport{"TCP": overTCP, "TLS": overTLS, "pipe": overPipe, "STARTTLS": overTCP} {
			t.Run(name+" over "+transport, func(t *testing.T) {
				t.Parallel()
				changed, total, ended, restarts := 0, 0, 0, 0
				for seed := range uint64(rounds) {
					d := steer(seed, s.lmtp)
					d.tls, d.inTLS = transport == "STARTTLS", transport == "TLS"
					if err := d.play(t, d.proxy(), s.serve(), listen(t)); err != nil {
						t.Fatal(err)
					}
					restarts += d.found
					for i, x := range d.told {
						total++
						if rendered(x.Reply) != rendered(d.first[i].Reply) {
							changed++
						}
						if x.Reply.Disconnect && x.Command.Verb() != "QUIT" {
							ended++
						}
					}
				}
				if changed < total/4 || total < 10*rounds {
					t.Errorf("of %d replies, hooks changed %d, and ended %d dialogues: the property says little", total, changed, ended)
				}
				if restarts < rounds/2 {
					t.Errorf("commands restarted the server %d times in %d dialogues: the property says little", restarts, rounds)
				}
			})
		}
	}
}
