package proxytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/seed3262c777/smtpproxy"
)

// This file lets clients talk to a hook that is tested, and holds it to its contract while they
// do.

// course is what one goroutine lets clients do. Courses share nothing, not even a lock: that would
// put in order what the race detector should find to have none.
type course struct {
	tr    *trial
	label string // of the goroutines that come of it
	wake  chan struct{}

	mu     sync.Mutex
	limit  time.Duration // of what a client does
	doing  string        // what a client does now
	since  time.Time     // it does it; zero if nothing is done
	leaves bool          // it leaves meanwhile
	give   func()        // ends what can be ended of that
	given  bool          // up
	faults []fault

	contexts []weak.Pointer[smtpproxy.Context] // that the hook got
	keywords []weak.Pointer[smtpproxy.Keywords]
	returned []returned
}

// returned is a decision that the hook has returned, as it was.
type returned struct {
	decision, was smtpproxy.Decision
	line          string
}

var courses atomic.Int64

// labelKey is of pprof's labels, which a goroutine hands on to those that it starts.
const labelKey = "proxytest"

// course returns a course.
func (tr *trial) course() *course {
	return &course{tr: tr, limit: tr.Patience, label: strconv.FormatInt(courses.Add(1), 10), wake: make(chan struct{}, 1)}
}

// run runs a course that talk is, and waits for it, but not for ever. It returns false if a call
// of the hook doesn't return.
func (c *course) run(talk func()) bool {
	done := make(chan any, 1)
	go pprof.Do(context.Background(), pprof.Labels(labelKey, c.label), func(context.Context) {
		defer func() { done <- recover() }() // nil if the hook has ended the goroutine
		talk()
	})
	for {
		c.mu.Lock()
		wait := c.limit
		if !c.since.IsZero() {
			wait -= time.Since(c.since)
		}
		if wait <= 0 {
			f := c.stuck()
			give := c.give
			c.faults = append(c.faults, f)
			c.given = true
			c.mu.Unlock()
			if give != nil {
				give() // so that it may at least end now
			}
			return false
		}
		c.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case v := <-done:
			t.Stop()
			if v != nil {
				panic(v) // a mistake here, or in newHook
			}
			return true
		case <-t.C:
		case <-c.wake:
			t.Stop()
		}
	}
}

// stuck returns the fault that a call doesn't return. Its caller holds c.mu.
func (c *course) stuck() fault {
	if c.leaves {
		return fault{"leaving", "", fmt.Sprintf("%s: the hook has not returned within %v, though its client is gone", c.doing, c.limit), "",
			"end what waits when ctx is done: pass ctx on to what is called, or select on ctx.Done()"}
	}
	return fault{"stuck", "", fmt.Sprintf("%s: the hook has not returned within %v", c.doing, c.limit), "",
		"the client waits all that time: bound the work, let ctx end it, and make a client wait with Delay; " +
			"HookTest.Patience allows more"}
}

// step lets a client do something.
func (c *course) step(doing string, give func(), do func()) {
	c.mu.Lock()
	c.doing, c.since, c.give = doing, time.Now(), give
	leaves, given := c.leaves, c.given
	c.mu.Unlock()
	if given {
		runtime.Goexit() // nobody waits any more
	}
	if leaves {
		select {
		case c.wake <- struct{}{}: // there is less time
		default:
		}
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.since, c.give = time.Time{}, nil
	}()
	do()
}

func (c *course) found(f fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, f)
}

// take takes up what courses have found, and whether one is stuck.
func (tr *trial) take(ok bool, courses ...*course) {
	tr.stuck = tr.stuck || !ok
	for _, c := range courses {
		c.mu.Lock()
		tr.found(c.faults...)
		c.mu.Unlock()
	}
}

// visitor is who a client is. Visitors differ in all that a hook may see of them.
type visitor int

func (v visitor) name() string { return fmt.Sprintf("client%d.example", v) }

// connection returns it as it is when the client has connected.
func (v visitor) connection() smtpproxy.Connection {
	networks := []string{"192.0.2.7", "198.51.100.7", "203.0.113.7", "2001:db8::7"}
	remote := netip.MustParseAddr(networks[int(v)%len(networks)])
	for range int(v) / len(networks) {
		remote = remote.Next()
	}
	return smtpproxy.Connection{
		ID:       fmt.Sprintf("00000000-0000-4000-8000-%012d", v),
		RemoteIP: remote, RemotePort: 49152 + uint16(v), RemotePTR: v.name(),
		LocalIP: netip.MustParseAddr("192.0.2.25"), LocalPort: 25,
	}
}

// guest is a client in a course, and the hook that it talks to.
type guest struct {
	*Session
	c       *course
	who     visitor
	stage   string                                       // the method of the hook that is called
	leaving bool                                         // the client is
	looks   func(*smtpproxy.Context, smtpproxy.Exchange) // is told of replies; may be nil
}

// restartVerb is of the command by which the server starts afresh.
const restartVerb = "XPROXYTEST"

// comes lets a client connect to a hook.
func (c *course) comes(h smtpproxy.Hook, who visitor) *guest {
	g := &guest{c: c, who: who}
	before := smtpproxy.Funcs{
		OnConnect: func(ctx *smtpproxy.Context, _ smtpproxy.Connection) (smtpproxy.Decision, error) {
			g.calls("Connect", ctx)
			return nil, nil
		},
		OnCommand: func(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
			g.calls("Command", ctx)
			if cmd.Verb() == restartVerb {
				other := who + 100
				of := other.connection()
				return smtpproxy.Reply{Restart: &smtpproxy.Origin{
					RemoteIP: of.RemoteIP, RemotePort: of.RemotePort, RemotePTR: of.RemotePTR,
					HELO: smtpproxy.HELO{Verb: "EHLO", Host: other.name()},
				}}, nil
			}
			return nil, nil
		},
		OnKeywords: func(ctx *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
			g.calls("Keywords", ctx)
			c.keywords = append(c.keywords, weak.Make(kw))
			return nil
		},
		OnDisconnect: func(ctx *smtpproxy.Context, _ smtpproxy.Connection, _ smtpproxy.End) { g.calls("Disconnect", ctx) },
	}
	after := smtpproxy.Funcs{OnReply: func(ctx *smtpproxy.Context, _ smtpproxy.Exchange) (smtpproxy.Decision, error) {
		g.calls("Reply", ctx) // the last one of a Chain is asked first
		return nil, nil
	}}
	p := &smtpproxy.Proxy{
		Hook:      smtpproxy.Chain(smtpproxy.Named(neighbour, before), h, after),
		MaxErrors: -1,
		Logger:    slog.New(&errorLog{g: g}),
		Observers: []smtpproxy.Observer{{
			Failed: func(_ *smtpproxy.Context, f smtpproxy.Failure) { g.failed(f) },
			Exchanged: func(ctx *smtpproxy.Context, x smtpproxy.Exchange) {
				if g.looks != nil {
					g.looks(ctx, x)
				}
			},
		}},
	}
	g.Session = ResumeSession(p, who.connection(), smtpproxy.Transaction{})
	g.decides = func(d smtpproxy.Decision) {
		if d != nil {
			c.returned = append(c.returned, returned{d, copyOf(d), g.c.doing})
		}
	}
	g.stage = "Connect"
	c.step("(connection)", g.giveUp, func() { g.Connect() })
	return g
}

// neighbour is the name of a hook before the one that is tested.
const neighbour = "proxytest"

// calls notes that the hook is called next.
func (g *guest) calls(method string, ctx *smtpproxy.Context) {
	g.stage = method
	g.c.contexts = append(g.c.contexts, weak.Make(ctx))
}

// giveUp ends what can be ended of a call.
func (g *guest) giveUp() { g.session.Close() }

// say lets the client send lines, and what the server waits for behind them, until the connection
// is closed.
func (g *guest) say(lines ...string) {
	for _, line := range lines {
		g.complete()
		isLHLO := !g.sasl && smtpproxy.Command{Line: line}.Verb() == "LHLO"
		if !g.Closed() && !(isLHLO && g.c.tr.NoLMTP) {
			g.sends(line)
		}
	}
	g.complete()
}

// sends lets the client send a line.
func (g *guest) sends(line string) {
	g.stage = "Command"
	g.c.step(short(g.masked(line)), g.giveUp, func() { g.Send(line) })
}

// complete lets the client send what is no line.
func (g *guest) complete() {
	switch {
	case g.Closed():
	case g.server.content:
		g.c.step("(content)", g.giveUp, g.SendContent)
	case g.server.handshake:
		g.c.step("(TLS handshake)", g.giveUp, func() {
			g.StartTLS(smtpproxy.TLS{
				Protocol: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", KeySize: 128, SNI: serverName,
				PeerCert: smtpproxy.NewPeerCert(0, nil, g.c.tr.cert),
			})
		})
	}
}

// sayAndLeave lets the client send a line, and leave so long after.
func (g *guest) sayAndLeave(line string, after time.Duration) {
	if g.complete(); g.Closed() {
		return
	}
	g.leaving = true
	g.c.mu.Lock()
	g.c.limit, g.c.leaves = after+g.c.tr.grace, true
	g.c.mu.Unlock()
	var timer *time.Timer
	g.called = func(cancel context.CancelCauseFunc) {
		if after <= 0 {
			cancel(smtpproxy.ErrClientGone)
			return
		}
		timer = time.AfterFunc(after, func() { cancel(smtpproxy.ErrClientGone) })
	}
	g.sends(line)
	if timer != nil {
		timer.Stop()
	}
	g.c.mu.Lock()
	g.c.limit, g.c.leaves = g.c.tr.Patience, false
	g.c.mu.Unlock()
	g.called = nil
	g.goes()
}

// goes lets the client leave.
func (g *guest) goes() { g.c.step("(gone)", nil, g.Close) }

// told returns the dialogue so far without the neighbour.
func (g *guest) told() string {
	var b strings.Builder
	for line := range strings.Lines(g.Transcript()) {
		if !strings.HasPrefix(line, "H "+neighbour+": pass") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// continued is a line of a reply that isn't its last one.
var continued = regexp.MustCompile(`^[HPS][^:]*: [0-9]{3}-`)

// tail returns the end of a text, of a few lines that aren't too long.
func tail(s string) string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	lines = slices.DeleteFunc(lines, continued.MatchString)
	if n := len(lines) - 8; n > 0 {
		lines = append([]string{"..."}, lines[n:]...)
	}
	for i, line := range lines {
		lines[i] = short(line)
	}
	return strings.Join(lines, "\n")
}

// short returns a line that isn't too long.
func short(line string) string {
	if len(line) > 100 {
		return fmt.Sprintf("%s... (%d octets)", strings.ToValidUTF8(line[:80], ""), len(line))
	}
	return line
}

// at tells what the hook was called for.
func (g *guest) at() string {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	doing := g.c.doing
	if doing == "" {
		doing = "an empty line"
	}
	if g.stage == "Connect" && strings.HasPrefix(doing, "(conn") {
		return "Connect"
	}
	return g.stage + " at " + doing
}

// failed takes up a failure of the hook's.
func (g *guest) failed(f smtpproxy.Failure) {
	at, told := g.at(), tail(g.told())
	costs := "the client gets a 421 and is closed"
	if g.stage == "Reply" {
		costs = "the client gets the reply unchanged, and the log a line"
	}
	switch err := f.Err; {
	case errors.Is(err, smtpproxy.ErrHookPanic):
		place := where(f.Stack)
		g.c.found(fault{"panic", place, at + ": " + err.Error(), told + "\n" + place,
			costs + ": look before you slice and index; a line may be empty, without arguments, and come at any time"})
	case errors.Is(err, smtpproxy.ErrHookExit):
		g.c.found(fault{"exit", "", at + ": the hook has called runtime.Goexit", told,
			"that ends the server's goroutine: return an error or a decision instead, and call no t.FailNow or t.Fatal in a hook"})
	case errors.Is(err, smtpproxy.ErrInvalidDecision):
		g.c.found(fault{"invalid", err.Error(), at + ": " + err.Error(), told,
			costs + ": see smtpproxy.Pass, smtpproxy.Reply and the method's interface for what is valid there"})
	case g.tolerates(err):
	default:
		g.c.found(fault{"error", err.Error(), fmt.Sprintf("%s: the hook has failed: %v", at, err), told,
			costs + ", so that an error is for what the hook can't help: answer what clients do with a Reply; " +
				"HookTest.MayFail allows errors"})
	}
}

// tolerates tells whether the hook may fail so.
func (g *guest) tolerates(err error) bool {
	if g.c.tr.MayFail {
		return true
	}
	for _, end := range []error{context.Canceled, smtpproxy.ErrClientGone, smtpproxy.ErrClosed} {
		if g.leaving && errors.Is(err, end) {
			return true
		}
	}
	return false
}

// where returns the place in a stack where it panicked.
func where(stack []byte) string {
	_, behind, ok := bytes.Cut(stack, []byte("\npanic("))
	if !ok {
		return ""
	}
	first := ""
	lines := strings.Split(string(behind), "\n")
	for i := 2; i+1 < len(lines); i += 2 {
		if strings.HasPrefix(lines[i], "runtime.") || strings.HasPrefix(lines[i], "panic(") {
			continue
		}
		place, _, _ := strings.Cut(strings.TrimSpace(lines[i+1]), " +0x")
		if first == "" {
			first = place
		}
		if !strings.HasPrefix(lines[i], library) {
			return place
		}
	}
	return first
}

// library is what the names of functions of the root package begin with.
const library = "github.com/seed3262c777/smtpproxy."

// errorLog is a log of which what nobody else tells of is taken up.
type errorLog struct {
	slog.Handler // of which nothing is called
	g            *guest
}

// Enabled implements slog.Handler.
func (l *errorLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelError || !strings.HasSuffix(r.Message, "Disconnect panicked") {
		return nil
	}
	f := fault{"panic", "Disconnect", "Disconnect: the hook has panicked", "", "what comes behind in Disconnect isn't done: look before you slice and index; " +
		"Connect may not have been called, as where another hook before it has refused the client"}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "panic":
			f.what += ": " + a.Value.String()
		case "stack":
			f.told = where([]byte(a.Value.String()))
		}
		return true
	})
	l.g.c.found(f)
	return nil
}

// copyOf returns a copy of a decision, and of all that it points to.
func copyOf(d smtpproxy.Decision) smtpproxy.Decision {
	deep := func(r smtpproxy.Reply) smtpproxy.Reply {
		r.Lines = slices.Clone(r.Lines)
		if r.Restart != nil {
			o := *r.Restart
			r.Restart = &o
		}
		return r
	}
	switch d := d.(type) {
	case smtpproxy.Reply:
		return deep(d)
	case *smtpproxy.Reply:
		if d != nil {
			r := deep(*d)
			return &r
		}
	case *smtpproxy.Pass:
		if d != nil {
			p := *d
			return &p
		}
	}
	return d
}

// check looks for decisions that the hook has changed since it returned them.
func (c *course) check() {
	for _, r := range c.returned {
		if !reflect.DeepEqual(r.decision, r.was) {
			c.found(fault{"changed", "", fmt.Sprintf("Command at %q: the hook has changed the decision later that it returned there, from %s to %s",
				r.line, show(r.was), show(r.decision)), "",
				"others may still read it, and another connection's would be sent: return a new value each time, with Lines and an Origin of its own"})
			return
		}
	}
}

// show returns a decision as text.
func show(d smtpproxy.Decision) string {
	switch v := d.(type) {
	case *smtpproxy.Reply:
		return show(*v)
	case *smtpproxy.Pass:
		return show(*v)
	case smtpproxy.Reply:
		if v.Restart != nil {
			return "restart" + asXCLIENT(v.Restart)
		}
		return strconv.Quote(v.String())
	case smtpproxy.Pass:
		return fmt.Sprintf("Pass %q", v.Command)
	}
	return fmt.Sprintf("%T", d)
}
