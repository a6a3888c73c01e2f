package smtpproxy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/dialogue"
	"github.com/seed3262c777/smtpproxy/internal/timed"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file notes what an End tells, and tells it.

// watch is what a session notes for its End. It is there only if a hook is told of that;
// the methods of a nil *watch do nothing. The lock for state guards it.
type watch struct {
	began   time.Time
	traffic timed.Traffic
	calls   int  // of the hook, under way
	over    bool // the server is through with the connection
	told    bool // the hook is, or has been
	begins  bool // it isn't known yet which hook that is

	end      End
	ended    bool  // who has ended the dialogue, and why, stands in end
	presumed cause // the same, if nothing else is known at the end
	last     []byte
	accepted bool // the message is counted
}

// cause is who has ended a dialogue, and why.
type cause struct {
	by  Side
	why Reason
	err error
}

// watched returns what is noted for the End, nil if nobody is told. Its caller holds s.mu.
func (s *Session) watched() *watch {
	if s.more == nil {
		return nil
	}
	return s.more.watch
}

// entry is until when user code may be called.
type entry uint8

const (
	untilEnded entry = iota // as long as the dialogue goes on
	untilOver               // as long as the server has the connection
	always                  // until it is told of the end
)

// enter notes that user code is about to be called, and waits for its turn. It returns false
// if that must not be called any more.
func (s *Session) enter(until entry) bool {
	s.mu.Lock()
	t := s.talked()
	s.mu.Unlock()
	if t != nil {
		t.turn.Lock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watched()
	if until == untilEnded && s.m.State().HasEnded() || until == untilOver && s.isOver || w != nil && w.told {
		if t != nil {
			t.turn.Unlock()
		}
		return false
	}
	if w != nil {
		w.calls++
	}
	return true
}

// leave notes that the call of a hook has returned, or is given up.
func (s *Session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.talked(); t != nil {
		t.turn.Unlock()
	}
	if w := s.watched(); w != nil {
		w.calls--
		s.tell(w)
	}
}

// over notes that the server is through with the connection. Its caller holds s.mu.
func (s *Session) over() {
	if !s.isOver && s.more != nil && s.more.closing != nil {
		close(s.more.closing)
	}
	s.isOver = true
	if t := s.talked(); t != nil && t.last != nil {
		t.last.end(closedOff)
	}
	if w := s.watched(); w != nil && !w.over {
		w.over = true
		w.end.Duration = time.Since(w.began)
		s.tell(w)
	}
}

// closing returns what is closed when the server is through with the connection.
func (s *Session) closing() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.extras()
	if x.closing == nil {
		x.closing = make(chan struct{})
		if s.isOver {
			close(x.closing)
		}
	}
	return x.closing
}

// tell tells the hook of the end, once, when none of its methods runs any more. Its caller
// holds s.mu.
func (s *Session) tell(w *watch) {
	if w.over && w.calls == 0 && !w.told {
		w.told = true
		s.tellNow(w)
	}
}

// tellNow is tell when it is time. Behind each call of a hook, there is less stack than it takes.
//
//go:noinline
func (s *Session) tellNow(w *watch) {
	w.conclude(&s.m)
	var conn Connection
	s.view(&conn)
	l, end := s.links(), w.end
	go s.disconnect(l, conn, end)
}

// disconnect calls the hooks that are told of the end.
func (s *Session) disconnect(l *links, conn Connection, end End) {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if t := s.cfg.HookTimeout; t > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, t, ErrHookTimeout)
	}
	defer cancel()
	c := &Context{parent: ctx, state: &s.state}
	defer l.toldProbe()
	defer c.end(calledOff)
	defer s.observe(func(o *Observer) {
		if o.Disconnected != nil {
			o.Disconnected(c, conn, end)
		}
	})
	s.disconnectFrom(l.disconnect, c, conn, end)
}

// disconnectFrom is disconnect from the first of some hooks on. What one does, be it a panic
// or runtime.Goexit, is nothing to the others.
func (s *Session) disconnectFrom(hooks []optional[DisconnectHook], c *Context, conn Connection, end End) {
	if len(hooks) == 0 {
		return
	}
	h := hooks[0]
	defer s.disconnectFrom(hooks[1:], c, conn, end)
	defer func() {
		if v := recover(); v != nil {
			attrs := []slog.Attr{slog.Any("panic", v), slog.String("stack", string(debug.Stack()))}
			if h.name != "" {
				attrs = append(attrs, slog.String("hook", h.name))
			}
			s.log(slog.LevelError, "smtpproxy: Disconnect panicked", attrs...)
		}
	}()
	h.hook.Disconnect(c, conn, end)
}

// because notes who has ended the dialogue, and why. The first one counts, and nothing
// behind the end.
func (w *watch) because(by Side, why Reason, err error) {
	if w == nil || w.ended || w.over {
		return
	}
	w.ended = true
	w.end.By, w.end.Reason, w.end.Err = by, why, err
}

// presume notes who has ended the dialogue, and why, if nothing else is known at the end.
func (w *watch) presume(by Side, why Reason, err error) {
	if w != nil {
		w.presumed = cause{by, why, err}
	}
}

// command notes a line of the client's; verb is empty if it is none of a command.
func (w *watch) command(verb string) {
	if w == nil {
		return
	}
	if verb != "" {
		w.end.Verb = verb
	}
	if w.presumed.why == ReasonCommandTimeout || w.presumed.why == ReasonDataTimeout {
		w.presumed = cause{} // it has gone on after all
	}
}

// refused notes a reply of the hook's that ends the connection.
func (w *watch) refused(r Reply) {
	if w != nil && !w.over {
		w.end.Reply = r
		w.because(SideHook, ReasonRefused, nil)
	}
}

// hookFailed notes that the hook has failed, and the client has got a 421 for it.
func (w *watch) hookFailed(f *Failure) {
	if w != nil {
		w.because(SideHook, ReasonHookFailed, *f)
	}
}

// wontRestart notes that a server with a state machine of its own has closed the connection
// where it was to start afresh, with the Reply that it got for that.
func (w *watch) wontRestart() {
	if w != nil {
		w.replies(failureReply)
		w.because(SideServer, ReasonServerClosed, nil)
	}
}

// answered notes the hook's answer to a command, or the library's.
func (w *watch) answered(q *call, d *decision) {
	if w == nil {
		return
	}
	w.end.Reply = d.reply
	if d.by == ByLibrary {
		return
	}
	ok := d.reply.Code/100 == 2
	if ok && !q.cmd.SASL {
		w.end.Commands++
	}
	switch {
	case !ok:
	case q.verb == dialogue.RCPT:
		w.end.Recipients++
	case q.verb == dialogue.BDAT && isLastChunk(q.cmd.Received):
		w.end.Messages++
	}
	switch {
	case !d.reply.Disconnect, d.by == ByFailure:
	case ok && q.verb == dialogue.QUIT:
		w.because(SideClient, ReasonQuit, nil)
	default:
		w.because(SideHook, ReasonRefused, nil)
	}
}

func isLastChunk(line string) bool {
	_, last := dialogue.ParseBDAT(line)
	return last
}

// startedTLS notes that STARTTLS, which the library has answered, has led to TLS.
func (w *watch) startedTLS() {
	if w != nil {
		w.end.Commands++
	}
}

// replied notes a reply of the server's that has moved the machine from the state was.
// message tells that it is one to a message.
func (w *watch) replied(code int, was dialogue.State, message bool, m *dialogue.Machine, news dialogue.News) {
	if w == nil {
		return
	}
	ok := code/100 == 2
	switch {
	case message && (w.accepted || !ok):
		// It is counted for another recipient, in LMTP, or not accepted.
	case message:
		w.accepted = true
		w.end.Messages++
		if was == dialogue.Executing {
			w.end.Commands++ // BDAT
		}
	case (was == dialogue.Greeting || was == dialogue.Restarting) && code >= 400:
		w.presume(SideServer, ReasonRefused, nil)
	case (was == dialogue.Executing || was == dialogue.Restarting) && (ok || code == 354):
		w.end.Commands++
	}
	switch news {
	case dialogue.Opened:
		w.accepted = false
	case dialogue.Added:
		w.end.Recipients++
	}
	if was.HasEnded() || m.State() != dialogue.Over {
		return
	}
	if ok { // QUIT is all that ends a dialogue so
		w.because(SideClient, ReasonQuit, nil)
	} else if w.presumed.why == ReasonServerClosed {
		w.because(SideServer, ReasonRefused, nil)
	}
}

// readFailed notes that a read from the client has failed, in the midst of a message or
// where it might have sent a command.
func (w *watch) readFailed(err error, inMessage bool) {
	switch {
	case w == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The server may set another, and go on.
		why := ReasonCommandTimeout
		if inMessage {
			why = ReasonDataTimeout
		}
		w.presume(SideServer, why, err)
	default:
		w.because(SideClient, ReasonClientGone, err)
	}
}

// replies notes the reply that a client of a server of its own gets.
func (w *watch) replies(r Reply) {
	if w != nil {
		w.end.Reply = r
	}
}

// sent notes a reply to the client, or several. Of a long one, such as that to EHLO, the last
// line will do: it is kept as long as the connection is idle.
func (w *watch) sent(replies []byte) {
	if w == nil {
		return
	}
	if len(replies) > maxLast {
		replies = replies[bytes.LastIndexByte(replies[:len(replies)-1], '\n')+1:]
	}
	w.last = append(w.last[:0], replies...)
}

// maxLast is how much is kept of the last reply, unless it is one line.
const maxLast = 128

// conclude completes the End.
func (w *watch) conclude(m *dialogue.Machine) {
	e := &w.end
	switch why := m.Reason(); {
	case why != dialogue.NoReason:
		e.By, e.Reason = endOf(why, m.InMessage())
	case !w.ended:
		p := w.presumed
		switch {
		case p.why != ReasonServerClosed:
		case m.IsRelay():
			p.by = SideServer
		default:
			// A server of one's own that closes says 421 before (RFC 5321 section 3.8).
			p.why = ReasonClientGone
		}
		e.By, e.Reason, e.Err = p.by, p.why, p.err
	}
	e.Received, e.Sent = w.traffic.Received.Load(), w.traffic.Sent.Load()
	last := w.last
	if len(last) == 0 && e.Reply.Code != 0 {
		last = e.Reply.appendTo(nil) // of a Session of one's own
	}
	e.Reply = lastOf(last)
	e.Reply.Disconnect = e.closedByReply()
}

// closedByReply tells whether the connection was closed behind the last reply, and for what
// that told.
func (e *End) closedByReply() bool {
	switch e.Reason {
	case ReasonQuit, ReasonRefused, ReasonTooMany, ReasonOutOfStep, ReasonHookFailed:
		return e.Reply.Code != 0
	}
	return e.Reply.Code == 421
}

// endOf returns what the end of a connection is that the library has ended for a reason.
func endOf(why dialogue.Reason, inMessage bool) (Side, Reason) {
	switch why {
	case dialogue.AmbiguousEnd, dialogue.MalformedReply, dialogue.OutOfStep, dialogue.OutOfTurn, dialogue.SASLGivenUp:
		return SideLibrary, ReasonOutOfStep
	case dialogue.NotAccepted:
		return SideServer, ReasonServerClosed
	case dialogue.RefusedEarly, dialogue.RefusedLine:
		return SideServer, ReasonRefused
	case dialogue.TooMany:
		return SideLibrary, ReasonTooMany
	case dialogue.TooSlow:
		if inMessage {
			return SideLibrary, ReasonDataTimeout
		}
		return SideLibrary, ReasonCommandTimeout
	}
	return SideLibrary, ReasonRefused
}

// lastOf returns the last of some replies.
func lastOf(b []byte) Reply {
	for {
		var r wire.Reply
		n, code, err := r.Next(b)
		if err != nil || n == 0 {
			return Reply{}
		}
		if n == len(b) {
			return Reply{Code: code, Enhanced: NoEnhancedCode, Lines: wire.ReplyLines(b)}
		}
		b = b[n:]
	}
}
