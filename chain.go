package smtpproxy

// Chain returns a Hook that asks hooks in order; nil ones are skipped. Each gets
// the line as the ones before it have left it (see [Command].Received), and the
// first Reply decides: the ones behind it aren't asked. What one fails at, the
// chain has failed at (see [Failure]).
//
// Next adds to what a hook gets, and never takes away from the others. A command
// goes through the whole chain, whoever has asked for it. A line of a SASL
// exchange, and a command that Proxy.Commands has kept from the hooks, goes to
// those alone that have asked for it with Next. The answer to a hook's own 334
// goes to that hook alone, since it may be a password.
//
// A Chain may hold other Chains, a [Mux], and hooks with a [Named]; it is taken
// apart once, where the Proxy is put to use, so that it costs no more than its
// hooks. What its hooks also are, a [ConnectHook] say, they are in a Chain, too.
//
// A hook of one's own that calls a Chain calls all of its hooks in one; then the
// Chain knows nothing of Proxy.Commands, so that a command goes through all of it.
func Chain(hooks ...Hook) Hook {
	c := new(chain)
	for _, h := range hooks {
		if h != nil {
			c.hooks = append(c.hooks, h)
		}
	}
	return c
}

type chain struct {
	hooks []Hook
	plain plain
}

// Unwrap returns the hooks.
func (c *chain) Unwrap() []Hook { return c.hooks }

// Command implements Hook for who calls it in the library's place.
func (c *chain) Command(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error) {
	return c.plain.command(c, ctx, &cmd, &conn, &txn)
}

// Named gives a hook a name, which a [Failure] tells, and the log. Where names
// are nested the innermost counts. The hooks of a named Mux all have its name. Where a hook of one's own calls h, an error of h's has
// this name, but a panic or a passed deadline only the name around both.
func Named(name string, h Hook) Hook { return &named{name: name, hook: h} }

type named struct {
	name  string
	hook  Hook
	plain plain
}

// Unwrap returns the hook.
func (n *named) Unwrap() Hook { return n.hook }

// Command implements Hook for who calls it in the library's place.
func (n *named) Command(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error) {
	return n.plain.command(n, ctx, &cmd, &conn, &txn)
}
