package smtpproxy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Context is what a hook may use and change: a context.Context for one call
// and, through [State], the connection's user state.
//
// As a context.Context it is made from the ctx given to Session.Command; behind
// a listener, from one that is done when the connection is closed. It is done when
// the call is over, and before that, with context.Cause telling which,
//   - when the client leaves ([ErrClientGone]): its connection fails, or it has sent its
//     last octet and no whole line is left behind the one that the hook has;
//   - when the server or the library closes the connection ([ErrClosed]);
//   - when Proxy.HookTimeout has passed ([ErrHookTimeout]).
//
// The reply to the line is sent all the same, if there is anybody left to get it. Whether
// the client leaves is looked after from when the hook first asks for Done or Err, or derives
// a context, on a goroutine that ends with the call; what the client sends meanwhile is
// kept, up to Proxy.MaxReadAhead. A hook that doesn't ask costs nothing. A client's
// connection that takes no deadlines is not looked after.
//
// A Context is valid during the call. All its methods may be called from
// several goroutines.
type Context struct {
	state *userState

	mu     sync.Mutex
	parent context.Context
	std    *standard // made when a hook first waits for anything
	client *conn     // whose line the call is about; nil without a listener
}

// standard is the standard library's context that a Context stands for.
type standard struct {
	context.Context
	cancel  context.CancelCauseFunc
	lookout *lookout // for the client; may be nil
}

// What a Context stands for that has ended before anybody asked.
var (
	calledOff = endedBy(context.Canceled)
	closedOff = endedBy(ErrClosed)
	goneOff   = endedBy(ErrClientGone)
)

func endedBy(cause error) *standard {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return &standard{Context: ctx, cancel: cancel}
}

var (
	// ErrClientGone is the cause of a Context that is done since the client has left.
	ErrClientGone = errors.New("smtpproxy: client gone")

	// ErrClosed is the cause of a Context that is done since the connection is closed.
	ErrClosed = errors.New("smtpproxy: connection closed")
)

// NewContext returns a Context with a user state of its own, for calling a
// hook in a test. It is done when parent is.
func NewContext(parent context.Context) *Context {
	return &Context{parent: parent, state: new(userState)}
}

// WithContext returns a Context with the same user state that is made from ctx, as
// (*http.Request).WithContext does: for a hook that calls another with a deadline of
// its own, or with values. It panics if ctx is nil.
func (c *Context) WithContext(ctx context.Context) *Context {
	if ctx == nil {
		panic("smtpproxy: nil context")
	}
	// Nobody ends it, so nothing is made for it that ctx would have to keep.
	return &Context{parent: ctx, state: c.state, std: &standard{Context: ctx, cancel: func(error) {}}}
}

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.base().Deadline() }

// Value implements context.Context.
func (c *Context) Value(key any) any {
	c.mu.Lock()
	std, parent := c.std, c.parent
	c.mu.Unlock()
	if std == nil {
		return parent.Value(key)
	}
	return std.Value(key) // the cause, among others
}

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.standard().Done() }

// Err implements context.Context.
func (c *Context) Err() error { return c.standard().Err() }

// AfterFunc runs f in its own goroutine when the Context is done, like
// context.AfterFunc, which calls it.
func (c *Context) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.standard(), f)
}

func (c *Context) base() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parent
}

// standard makes c.std late, since most hooks never wait.
func (c *Context) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.std == nil {
		c.std = new(standard)
		c.std.Context, c.std.cancel = context.WithCancelCause(c.parent)
		if c.client != nil {
			c.std.lookout = c.client.lookOut(c.std.cancel)
		}
	}
	return c.std.Context
}

// begin makes the Context one for a call with the given parent, about a line of the
// client's. What a hook has made from it since the call before, which it must not, is
// done, and not of this one.
func (c *Context) begin(parent context.Context, client *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parent, c.std, c.client = parent, nil, client
}

// end makes the Context done, if it isn't, and nobody looks out for the client any more.
// It reports whether nobody can still hold anything made from it, so that it may serve
// the next command.
func (c *Context) end(ended *standard) (unused bool) {
	c.mu.Lock()
	std := c.std
	if std == nil {
		c.std = ended
	}
	c.mu.Unlock()
	if std == nil {
		return true
	}
	std.cancel(context.Cause(ended))
	std.lookout.end()
	return false
}

// userState holds one value of each type, for as long as the client's
// connection lasts.
type userState struct {
	mu      sync.Mutex
	last    *userValue  // a list: a slice would take three times the room where there's none
	unasked atomic.Bool // the hook that is called hasn't asked for its line with Next
}

type userValue struct {
	value  any
	before *userValue
}

// State returns the connection's T, which is made, as a zero T, when it is
// first asked for. It lasts until the client's connection ends: over
// transactions, RSET, EHLO and STARTTLS. Each T is there once for a
// connection, so T should be an unexported type of the caller's package.
//
// The server's side reaches the same T: State[T](session.Context()), the
// session being that of SessionOf or gosmtp.Session.
//
// State may be called from several goroutines; what is done with the T is the
// caller's to lock. No lock is needed between hook calls, nor between a hook
// and the part of the server that answers commands: a hook runs only while
// the server waits for a command, and only one at a time. A lock is needed
// against goroutines of the hook's or the server's own, such as go-smtp's for
// the content of a BDAT or LMTP message, and, if Proxy.HookTimeout is set,
// against a call that has been given up and still runs.
func State[T any](ctx *Context) *T {
	st := ctx.state
	st.mu.Lock()
	defer st.mu.Unlock()
	for v := st.last; v != nil; v = v.before {
		if t, ok := v.value.(*T); ok {
			return t
		}
	}
	t := new(T)
	st.last = &userValue{t, st.last}
	return t
}
