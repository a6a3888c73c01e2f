package smtpproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// Origin tells whose connection it is that a hook has found to be another client's, as one
// does that is told so by a front end it trusts, with XCLIENT (Postfix) say: see
// Reply.Restart. What it tells nobody has verified but the hook.
//
// It must have no control characters. What is left out is unknown, or stays, as the fields say.
type Origin struct {
	// RemoteIP and RemotePort are the client's address, for Connection and for
	// RemoteAddr of the server's connection. The zero Addr leaves the address as it is,
	// but for a RemotePort. With a RemoteIP, RemotePort 0 is unknown, and so are
	// Connection.RemoteUID and, without RemotePTR, Connection.RemotePTR: it isn't looked up.
	RemoteIP   netip.Addr
	RemotePort uint16

	// LocalIP and LocalPort are the address that the client has connected to, for
	// Connection and for LocalAddr. What is zero stays as it is.
	LocalIP   netip.Addr
	LocalPort uint16

	// RemotePTR is the client's host name. Empty is unknown, or without RemoteIP as it was.
	RemotePTR string

	// HELO is how the client has greeted the front end. The zero value is not at all: it
	// has to be greeted with. A HELO, EHLO or LHLO that the server accepts takes its place.
	HELO HELO

	// Auth is who the client has authenticated as there. The zero value is nobody. It is
	// what hooks see; the server, which knows nothing of it, still takes AUTH.
	Auth Auth
}

// validate tells what is wrong with an Origin.
func (o *Origin) validate() error {
	for _, s := range []string{
		o.RemoteIP.Zone(), o.LocalIP.Zone(), o.RemotePTR, o.HELO.Verb, o.HELO.Host, o.Auth.Mechanism, o.Auth.Username,
	} {
		if i := ascii.IndexControl(s); i >= 0 {
			return fmt.Errorf("%w: control character %#02x in an Origin", ErrInvalidDecision, s[i])
		}
	}
	return nil
}

// told is what a session was told of a client that is another's than the one connected.
type told struct {
	peer netip.AddrPort // who is connected

	// What survives STARTTLS: whoever has told it has told it to the server, too.
	helo HELO
	auth Auth

	remote, local netip.AddrPort // of the server's connection; as they are if not valid

	mustGreet bool // a server with a state machine of its own, before all else
}

// tell changes what a session knows of its client's ends to what an Origin tells.
func (o *Origin) tell(e *ends, t *told) {
	if o.RemoteIP.IsValid() {
		e.remoteIP, e.remotePort, e.uid = o.RemoteIP.Unmap(), o.RemotePort, UID{}
	} else if o.RemotePort != 0 {
		e.remotePort = o.RemotePort
	}
	if o.LocalIP.IsValid() {
		e.localIP = o.LocalIP.Unmap()
	}
	if o.LocalPort != 0 {
		e.localPort = o.LocalPort
	}
	e.earlyTalker = false
	t.helo, t.auth = o.HELO, o.Auth
	if o.RemoteIP.IsValid() || o.RemotePort != 0 {
		t.remote = netip.AddrPortFrom(e.remoteIP, e.remotePort)
	}
	if o.LocalIP.IsValid() || o.LocalPort != 0 {
		t.local = netip.AddrPortFrom(e.localIP, e.localPort)
	}
}

// addrOf returns an address as servers know it, each time another, since some change it
// (chrj/smtpd for XCLIENT); nil if it isn't valid, as on a unix socket.
func addrOf(a netip.AddrPort) net.Addr {
	if !a.IsValid() {
		return nil
	}
	return net.TCPAddrFromAddrPort(a)
}

// restarts makes the client another's. answers tells that the greeting of the server, which
// starts afresh, is the reply to a command. Its caller holds s.mu.
func (s *Session) restarts(o *Origin, answers bool) {
	if s.m.State().HasEnded() {
		return
	}
	s.m.Restarts(answers)
	x := s.extras()
	if x.told == nil {
		x.told = &told{peer: s.conn.peer()}
	}
	o.tell(&s.conn.ends, x.told)
	if o.RemoteIP.IsValid() || o.RemotePTR != "" {
		s.who = &identity{ptr: o.RemotePTR}
	}
	x.withheld, x.asked = withheld{}, nil
	s.startAfresh()
}

// restart completes a Restart by a command: the hook is asked about the client once more,
// and may refuse it, or find it another's once more.
//
//go:noinline
func (s *Session) restart(ctx context.Context, q *call, d *decision) {
	began := s.now()
	v := s.connect(ctx, d.conn)
	if more := v.delay - q.delay; d.conn != nil && more > 0 {
		d.conn.holdBack(more, true) // the line has been held back already
	}
	q.delay = max(q.delay, v.delay)
	d.reply.Delay = q.delay
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.talked(); t != nil {
		t.hooked += time.Since(began)
	}
	switch {
	case s.m.State().HasEnded() && !v.refused:
		d.fail() // it was closed meanwhile
		d.kind = tooLate
		return
	case v.refused:
		d.answer(&v.reply)
		d.by, d.copies = v.by, 1
		return
	case v.restart != nil:
		s.restarts(v.restart, true)
		d.reply.Restart = v.restart.behind(d.reply.Restart)
	}
	if d.conn == nil {
		s.hasRestarted()
	}
}

// hasRestarted notes that the server starts afresh, where it is one with a state machine of
// its own. Its caller holds s.mu.
func (s *Session) hasRestarted() {
	s.m.Restarted()
	s.talked().restarted()
	s.toldOf().mustGreet = true
}

// behind returns what is told of the client by o, and by the one before where o says nothing.
func (o *Origin) behind(before *Origin) *Origin {
	all := *o
	if !o.RemoteIP.IsValid() {
		all.RemoteIP = before.RemoteIP
		if o.RemotePort == 0 {
			all.RemotePort = before.RemotePort
		}
		if o.RemotePTR == "" {
			all.RemotePTR = before.RemotePTR
		}
	}
	if !o.LocalIP.IsValid() {
		all.LocalIP = before.LocalIP
	}
	if o.LocalPort == 0 {
		all.LocalPort = before.LocalPort
	}
	return &all
}

// startAfresh forgets what a server doesn't know of a fresh connection. Its caller holds
// s.mu.
func (s *Session) startAfresh() {
	s.line, s.exchange = "", nil
	s.txn = transaction{}
	s.conn.helo = HELO{}
	s.conn.authenticate(Auth{})
	if t := s.toldOf(); t != nil {
		s.conn.helo = t.helo
		s.conn.authenticate(t.auth)
	}
}

// toldOf returns what was told of the client, nil if nothing was. Its caller holds s.mu.
func (s *Session) toldOf() *told {
	if s.more == nil {
		return nil
	}
	return s.more.told
}

// owesGreeting tells whether a server with a state machine of its own has been told to start
// afresh, and hasn't greeted yet. Its caller holds s.mu.
func (s *Session) owesGreeting() bool {
	t := s.toldOf()
	return t != nil && t.mustGreet
}

// checkRestart makes d of a Reply that restarts the server, if that is valid.
//
//go:noinline
func (s *Session) checkRestart(r *Reply, q *call, d *decision) error {
	switch {
	case r.hasMore():
		return fmt.Errorf("%w: Restart with something else", ErrInvalidDecision)
	case q.cmd.SASL, takesMore(q.verb):
		return fmt.Errorf("%w: Restart where more than a reply is due", ErrInvalidDecision)
	}
	o := *r.Restart
	if err := o.validate(); err != nil {
		return err
	}
	d.kind, d.by, d.reply = restart, ByHook, restartReply(&o)
	q.delay = max(q.delay, State[plainDelay](s.ctx).take(r.Restart))
	return nil
}

// takesMore tells whether a client goes on in another way than with a command, behind a
// positive reply or even a negative one: with a chunk, a handshake, a line of a SASL
// exchange. HTTP is the end.
func takesMore(v dialogue.Verb) bool {
	switch v {
	case dialogue.BDAT, dialogue.STARTTLS, dialogue.LikeSTARTTLS, dialogue.AUTH, dialogue.LikeAUTH, dialogue.HTTP:
		return true
	}
	return false
}

// hasMore tells whether anything is set beside Restart.
func (r *Reply) hasMore() bool {
	return r.Code != 0 || r.Enhanced != (EnhancedCode{}) || len(r.Lines) > 0 || r.Disconnect || r.Next || r.Delay != 0
}

// restartReply returns the Reply that a server with a state machine of its own gets. One
// that doesn't know of Restart fails closed.
func restartReply(o *Origin) Reply {
	r := failureReply.filled(dialogue.NoVerb)
	r.Restart = o
	return r
}
