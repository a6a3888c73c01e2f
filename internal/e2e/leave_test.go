package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about clients that leave while a hook has their line, and what its Context
// tells of that.

// holder is a hook that keeps the line "NOOP hold" until it is told to go on. Others than
// its goroutine look at the Context meanwhile, which they may.
type holder struct {
	entered chan *hookContext
	decided chan decision
	failed  chan error // instead
}

func newHolder() *holder {
	return &holder{make(chan *hookContext), make(chan decision), make(chan error)}
}

func (h *holder) Command(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
	if cmd.Line != "NOOP hold" {
		return nil, nil
	}
	return h.hold(ctx)
}

func (h *holder) hold(ctx *hookContext) (decision, error) {
	h.entered <- ctx
	select {
	case d := <-h.decided:
		return d, nil
	case err := <-h.failed:
		return nil, err
	}
}

// leaveDoor is a way to the server.
type leaveDoor struct {
	tr  func(*testing.T) transport
	tls string // where TLS begins, if anywhere
}

func cable(*testing.T) transport { return overCable() }

// Those in a bubble, and those that have sockets.
var (
	bubbleDoors = map[string]leaveDoor{
		"cable":           {cable, ""},
		"cable, TLS":      {cable, "at once"},
		"cable, STARTTLS": {cable, "STARTTLS"},
		"pipe":            {overPipe, ""},
	}
	socketDoors = map[string]leaveDoor{
		"TCP":      {overTCP, ""},
		"TLS":      {overTCP, "at once"},
		"STARTTLS": {overTCP, "STARTTLS"},
	}
)

// visitor is a client that can leave.
type visitor struct {
	*peer
	raw net.Conn // beneath TLS
}

// comeBy brings a client behind EHLO.
func comeBy(t *testing.T, door leaveDoor, p *smtpproxy.Proxy, server *servertest.Server) *visitor {
	t.Helper()
	if door.tls != "" {
		p.TLSConfig, p.ImplicitTLS = serverTLS().Clone(), door.tls == "at once"
	}
	v := &visitor{peer: behindListener(p, server).connect(t, door.tr(t))}
	v.SetDeadline(time.Time{})
	v.raw = v.Conn
	if door.tls == "at once" {
		v.secure()
	}
	v.expect("220")
	v.ask("EHLO client.example", "250")
	if door.tls == "STARTTLS" {
		v.ask("STARTTLS", "220")
		v.secure()
		v.ask("EHLO client.example", "250")
	}
	return v
}

func (v *visitor) secure() {
	v.Conn = tlsClient(v.Conn)
	v.r.Reset(v.Conn)
}

// fin closes the client's side alone.
func (v *visitor) fin() { v.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// rst resets the connection.
func (v *visitor) rst() {
	switch c := v.raw.(type) {
	case *net.TCPConn:
		c.SetLinger(0)
		c.Close()
	case *cableEnd:
		c.reset()
	}
}

// leaving is a way to leave.
type leaving struct {
	why     string
	behind  string // the line that the hook has
	leave   func(v *visitor)
	halves  bool // needs a connection of which a side can be closed, or reset
	want    error
	replies []string // that it still reads
}

var leavings = []leaving{
	{"it has closed its side, and nothing is left", "", (*visitor).fin, true, smtpproxy.ErrClientGone, []string{"250"}},
	{"half a line is left, which is no command", "QUI", (*visitor).fin, true, smtpproxy.ErrClientGone, []string{"250"}},
	{"a whole line is left, which has an answer to come", "NOOP\r\n", (*visitor).fin, true, nil, []string{"250", "250"}},
	{"a whole line and half of one are left", "NOOP\r\nNO", (*visitor).fin, true, nil, []string{"250", "250"}},
	{"it has reset the connection", "", (*visitor).rst, true, smtpproxy.ErrClientGone, nil},
	{"it has reset the connection behind a whole line", "NOOP\r\n", (*visitor).rst, true, smtpproxy.ErrClientGone, nil},
	{"it has closed the connection", "", func(v *visitor) { v.Close() }, false, smtpproxy.ErrClientGone, nil},
}

func TestAHooksContextIsDoneWhenTheClientLeaves(t *testing.T) {
	serverTLS() // outside of a bubble's time
	for name, door := range bubbleDoors {
		for _, row := range leavings {
			if row.halves && name == "pipe" {
				continue
			}
			bubble(t, name+", "+row.why, func(t *testing.T) {
				h := newHolder()
				v := comeBy(t, door, &smtpproxy.Proxy{Hook: h}, servertest.Strict())
				v.send("NOOP hold\r\n" + row.behind)
				ctx := <-h.entered
				done := ctx.Done()
				synctest.Wait()
				if ctx.Err() != nil {
					t.Errorf("it is done before: %v", context.Cause(ctx))
				}
				start := time.Now()
				row.leave(v)
				synctest.Wait()
				select {
				case <-done:
					if row.want == nil || context.Cause(ctx) != row.want || ctx.Err() != context.Canceled {
						t.Errorf("it is done: %v, for %v; want %v", ctx.Err(), context.Cause(ctx), row.want)
					}
				default:
					if row.want != nil || ctx.Err() != nil {
						t.Errorf("it isn't done: %v", ctx.Err())
					}
				}
				if d := time.Since(start); d > 0 {
					t.Errorf("that took %v", d)
				}
				h.decided <- nil
				v.expect(row.replies...)
			})
		}
	}
}

func TestAHooksContextIsDoneWhenTheClientLeavesASocket(t *testing.T) {
	for name, door := range socketDoors {
		for _, row := range leavings {
			if row.want == nil {
				continue // only time would tell
			}
			t.Run(name+", "+row.why, func(t *testing.T) {
				h := newHolder()
				v := comeBy(t, door, &smtpproxy.Proxy{Hook: h}, servertest.GoSMTP())
				v.send("NOOP hold\r\n" + row.behind)
				ctx := inTime(t, "the hook", h.entered)
				done := ctx.Done()
				<-v.sent
				row.leave(v)
				inTime(t, "the end of the Context", done)
				if cause := context.Cause(ctx); cause != row.want {
					t.Errorf("it is done for %v", cause)
				}
				h.decided <- nil
				v.expect(row.replies...)
			})
		}
	}
}

func TestTheContextOfConnectIsDoneWhenTheClientLeaves(t *testing.T) {
	for _, leave := range []string{"closes its side", "resets the connection"} {
		for _, tls := range []bool{false, true} {
			for _, uses := range []string{"reads", "writes"} {
				bubble(t, fmt.Sprintf("the client %s, TLS %v, the server %s first", leave, tls, uses), func(t *testing.T) {
					h := newHolder()
					p := &smtpproxy.Proxy{Hook: connecting(func(ctx *hookContext, _ connection) (decision, error) { return h.hold(ctx) })}
					if tls {
						p.TLSConfig, p.ImplicitTLS = serverTLS(), true
					}
					c, client, _ := acceptedOver(t, overCable(), p)
					v := &visitor{&peer{t: t, Conn: client}, client}
					if uses == "reads" {
						go c.Read(make([]byte, 100))
					} else {
						go io.WriteString(c, "220 x\r\n")
					}
					if tls {
						v.Conn = tlsClient(client)
						go v.Conn.(interface{ Handshake() error }).Handshake()
					}
					ctx := <-h.entered
					done := ctx.Done()
					synctest.Wait()
					if leave == "resets the connection" {
						v.rst()
					} else {
						v.fin()
					}
					synctest.Wait()
					select {
					case <-done:
						if cause := context.Cause(ctx); cause != smtpproxy.ErrClientGone {
							t.Errorf("it is done for %v", cause)
						}
					default:
						t.Error("it isn't done")
					}
					h.decided <- nil
					synctest.Wait()
					c.Close()
				})
			}
		}
	}
}

// A Read that waits while a Write begins the connection has the client's line to come, but
// doesn't read yet: who does is the one that begins.
func TestTheContextOfConnectIsDoneWhenAReadWaitsBeside(t *testing.T) {
	for why, leave := range map[string]func(v *visitor){"it leaves": (*visitor).fin, "it leaves, and has sent a line": func(v *visitor) {
		io.WriteString(v.Conn, "EHLO x\r\n")
		v.rst()
	}} {
		t.Run(why, func(t *testing.T) {
			h, entered, goesOn := newHolder(), make(chan struct{}), make(chan struct{})
			own := connecting(func(ctx *hookContext, _ connection) (decision, error) { return h.hold(ctx) })
			c, client, _ := acceptedOver(t, overTCP(t), &smtpproxy.Proxy{HookFor: func(connection) smtpproxy.Hook {
				close(entered)
				<-goesOn
				return own
			}})
			var both sync.WaitGroup
			both.Go(func() { io.WriteString(c, "220 x\r\n") })
			<-entered
			both.Go(func() { c.Read(make([]byte, 100)) })
			for range 10_000 {
				runtime.Gosched() // until it waits, more likely than not
			}
			close(goesOn)
			done := (<-h.entered).Done()
			leave(&visitor{&peer{t: t, Conn: client}, client})
			inTime(t, "the end of the Context", done)
			h.decided <- nil
			both.Wait()
			c.Close()
			inTime(t, "Disconnect", own.ended)
		})
	}
}

// What has come by then is read by who begins the connection; the Read that waits has it, and
// it has come early.
func TestWhatComesEarlyIsKeptWhereAReadWaitsBeside(t *testing.T) {
	entered, goesOn := make(chan struct{}), make(chan struct{})
	c, client, _ := acceptedOver(t, overTCP(t), &smtpproxy.Proxy{HookFor: func(connection) smtpproxy.Hook {
		close(entered)
		<-goesOn
		return letsIn(pass{Delay: 20 * time.Millisecond}, nil)
	}})
	var both sync.WaitGroup
	both.Go(func() { io.WriteString(c, "220 x\r\n") })
	<-entered
	got := make(chan string, 1)
	both.Go(func() {
		line := make([]byte, 100)
		n, _ := c.Read(line)
		got <- string(line[:n])
	})
	for range 10_000 {
		runtime.Gosched() // until it waits, more likely than not
	}
	io.WriteString(client, "EHLO x\r\n")
	close(goesOn)
	newCaller(t, client).play("< 220", nil)
	if line := inTime(t, "Read", got); line != "EHLO x\r\n" {
		t.Errorf("the server got %q", line)
	}
	both.Wait()
	if s, _ := smtpproxy.SessionOf(c); !s.Connection().EarlyTalker {
		t.Error("it isn't told that it has come early")
	}
	c.Close()
}

// heldBy has a line in a hook, in a bubble: behind a reply that is held for it, if held.
func heldBy(t *testing.T, p *smtpproxy.Proxy, h *holder, held bool) (server net.Conn, raw *cableEnd, v *visitor, ctx *hookContext) {
	t.Helper()
	tr := newTransport(true, func() (net.Conn, net.Conn, error) {
		var client *cableEnd
		raw, client = connectByCable()
		return raw, client, nil
	})
	server, client, _ := acceptedOver(t, tr, p)
	t.Cleanup(func() { server.Close() })
	go new(puppet).serve(server)
	v = &visitor{&peer{t: t, Conn: client, sent: make(chan struct{})}, client}
	close(v.sent)
	v.r = newCaller(t, client).r
	v.expect("220")
	if held {
		v.send("RSET\r\nNOOP hold\r\n")
	} else {
		v.send("NOOP hold\r\n")
	}
	return server, raw, v, <-h.entered
}

func TestTheCauseTellsWhatHasEndedAContext(t *testing.T) {
	goesOn := func(h *holder) { h.decided <- nil }
	for _, row := range []struct {
		why     string
		timeout time.Duration
		held    bool // a reply is
		end     func(h *holder, server net.Conn, raw *cableEnd)
		want    error
	}{
		{"the server closes the connection", 0, false, func(_ *holder, c net.Conn, _ *cableEnd) { c.Close() }, smtpproxy.ErrClosed},
		{"the server closes the connection of a hook that has a time", time.Hour, false, func(_ *holder, c net.Conn, _ *cableEnd) { c.Close() }, smtpproxy.ErrClosed},
		{"time is up", time.Minute, false, func(*holder, net.Conn, *cableEnd) { time.Sleep(time.Minute + 1) }, smtpproxy.ErrHookTimeout}, // in a bubble
		{"the call is over", 0, false, func(h *holder, _ net.Conn, _ *cableEnd) { goesOn(h) }, context.Canceled},
		{"the call of a hook that has a time is over", time.Hour, false, func(h *holder, _ net.Conn, _ *cableEnd) { goesOn(h) }, context.Canceled},
		{"a held reply does not reach the client any more", 0, true, func(_ *holder, _ net.Conn, raw *cableEnd) { raw.cutWrites() }, smtpproxy.ErrClientGone},
		{"the server writes what can be no reply", 0, false, func(_ *holder, c net.Conn, _ *cableEnd) { io.WriteString(c, "250 unasked\r\n") }, smtpproxy.ErrClosed},
	} {
		for _, late := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%s, asked late %v", row.why, late), func(t *testing.T) {
				h := newHolder()
				server, raw, _, ctx := heldBy(t, &smtpproxy.Proxy{Hook: h, HookTimeout: row.timeout}, h, row.held)
				var done <-chan struct{}
				if row.held {
					row.end(h, server, raw) // before the reply leaves, which it does when the hook looks
				}
				if !late {
					done = ctx.Done()
				}
				if !row.held {
					row.end(h, server, raw)
				} else {
					time.Sleep(10 * time.Millisecond) // for so long, a reply is held at most
				}
				synctest.Wait()
				if done == nil {
					done = ctx.Done()
				}
				select {
				case <-done:
					if cause := context.Cause(ctx); cause != row.want {
						t.Errorf("it is done for %v, want %v", cause, row.want)
					}
				default:
					t.Error("it isn't done")
				}
				if row.want != context.Canceled {
					goesOn(h)
				}
			})
		}
	}
}

// The client may wait for them, or leave since they don't come.
func TestHeldRepliesLeaveWhenAHookLooks(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		h, start := newHolder(), time.Now()
		_, _, v, ctx := heldBy(t, &smtpproxy.Proxy{Hook: h}, h, true)
		ctx.Done()
		v.expect("250")
		if d := time.Since(start); d != 0 {
			t.Errorf("it leaves after %v", d)
		}
		h.decided <- nil
		v.expect("250")
	})
}

// What a client can bring about is no error of the operator's, whatever the hook returns
// when its question is called off.
func TestAHookThatGivesUpSinceTheClientHasLeftIsNoErrorInTheLog(t *testing.T) {
	for why, err := range map[string]error{
		"the cause":        smtpproxy.ErrClientGone,
		"the error":        context.Canceled,
		"that of closing":  smtpproxy.ErrClosed,
		"one that wraps":   fmt.Errorf("asking: %w", smtpproxy.ErrClientGone),
		"another, as ever": errTest,
	} {
		bubble(t, why, func(t *testing.T) {
			log, h := new(logbook), newHolder()
			_, _, v, ctx := heldBy(t, &smtpproxy.Proxy{Hook: h, Logger: log.logger()}, h, false)
			done := ctx.Done()
			v.fin()
			<-done
			h.failed <- err
			v.expect("421")
			want := slog.LevelInfo
			if err == errTest {
				want = slog.LevelError
			}
			if lines := log.lines("hook failed"); len(lines) != 1 || lines[0].level != want {
				t.Errorf("logged: %v", lines)
			}
		})
	}
}
