package smtpproxy

// ConnectHook is what a Hook may also be: one that decides about connections.
//
// Connect is called once for a connection, before an octet of SMTP: when the server
// first reads from it or writes to it, behind the TLS handshake where TLS comes first,
// and behind a PROXY header. nil and a Pass let the client in. A Reply with a 4xx or 5xx
// code is what the client gets in the place of the greeting, and the end of the
// connection (RFC 5321 sections 3.1 and 4.2.1); the server gets no command of it. One with
// Restart tells that the client is another's. All else is invalid. An error, a panic and a call longer than Proxy.HookTimeout are a [Failure],
// as in Hook.
//
// Behind a Restart by a hook's Command, Connect is called once more, about the client that
// it tells.
//
// No other method of the hook is called for the connection at the same time.
type ConnectHook interface {
	Connect(ctx *Context, conn Connection) (Decision, error)
}

// KeywordHook is what a Hook may also be: one that changes what the client is told of
// the server's extensions.
//
// Keywords is called for each 250 of the server's to EHLO and LHLO, with the list as the
// client would get it, and for each 250 to HELO, with an empty one, since what is deleted
// then isn't passed either (see [Keywords].Delete). It is called before the client gets the
// reply; conn is the Connection before it. An error, a panic and a list that can't be sent
// are a [Failure]: what the hook wanted to close would be open. Proxy.OnFailure isn't asked
// then, since the server has accepted the command.
type KeywordHook interface {
	Keywords(ctx *Context, conn Connection, kw *Keywords) error
}

// ReplyHook is what a Hook may also be: one that sees, and may change, what the client gets.
//
// Reply is called for every reply that the client is about to get, whoever gives it: the
// greeting, a server's reply, each status of an LMTP message, a hook's Reply, and the library's
// own. In a Chain, the last hook is asked first. nil and Pass{} change nothing. Of a Reply, the
// fields that are zero keep what is there; Delay holds the reply back, and Disconnect closes the
// connection behind it; at a status of an LMTP message, behind the last one, since a client that
// lacks one sends the message again. Of a negative reply, the code may be changed to another 4xx
// or 5xx; a change to 421 closes the connection likewise. Every other code stays. A 354, a 334
// and the reply to an accepted HELO, EHLO or LHLO can be seen and held back, but not changed:
// what the client does next hangs on them (see [KeywordHook]). All else is invalid.
//
// An error, a panic and what is invalid leave the reply as it is, and are logged, since it tells
// what has happened already. What nobody changes goes out octet for octet. The view of the
// dialogue follows the server's reply, not what a hook makes of it. Reply must not write to
// the connection: it is called while a reply is being written.
type ReplyHook interface {
	Reply(ctx *Context, x Exchange) (Decision, error)
}

// DisconnectHook is what a Hook may also be: one that is told of the end.
//
// Disconnect is called exactly once for each connection that the server has read from or
// written to, when the server has closed it and the last call of another method of the hook
// has returned, or has been given up. It is called once for a client, however many
// connections STARTTLS and Restart have made of it for the server. It has a goroutine of its own, so
// that nobody waits for it; a panic is logged. ctx isn't done, unless Proxy.HookTimeout has
// passed; with it, [State] has what the hook has kept for the connection.
//
// It is called for a client, too, that Connect has refused, be it another hook's: a hook that
// counts connections should count back only what it has counted. Behind a last reply, the
// server learns of the end when the client has closed its side, for which it has a second, or
// it might lose that reply.
//
// A Session of one's own tells with Close, if Connect or Command was called before. It
// doesn't see why the connection is closed: where nothing that was said tells,
// that is ReasonClientGone, since a server that closes by itself replies 421 first (RFC
// 5321 section 3.8). One that closes it where a Restart asks for its greeting has sent the 421
// of that Reply: that is ReasonServerClosed.
type DisconnectHook interface {
	Disconnect(ctx *Context, conn Connection, end End)
}

// A hook may be one of these by itself, or by what it is made of: they are found through
// Chain, Mux and Named, and through a wrapper that has a method Unwrap() Hook or
// Unwrap() []Hook, if the wrapper isn't one by itself.

// Funcs is a Hook made of functions. It is a ConnectHook, a KeywordHook, a ReplyHook and a
// DisconnectHook only if the function for it is set; without OnCommand, it passes all
// commands.
type Funcs struct {
	OnConnect    func(ctx *Context, conn Connection) (Decision, error)
	OnCommand    func(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error)
	OnKeywords   func(ctx *Context, conn Connection, kw *Keywords) error
	OnReply      func(ctx *Context, x Exchange) (Decision, error)
	OnDisconnect func(ctx *Context, conn Connection, end End)
}

// Command implements Hook.
func (f Funcs) Command(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error) {
	if f.OnCommand == nil {
		return nil, nil
	}
	return f.OnCommand(ctx, cmd, conn, txn)
}

// Connect implements ConnectHook.
func (f Funcs) Connect(ctx *Context, conn Connection) (Decision, error) {
	if f.OnConnect == nil {
		return nil, nil
	}
	return f.OnConnect(ctx, conn)
}

// Keywords implements KeywordHook.
func (f Funcs) Keywords(ctx *Context, conn Connection, kw *Keywords) error {
	if f.OnKeywords == nil {
		return nil
	}
	return f.OnKeywords(ctx, conn, kw)
}

// Reply implements ReplyHook.
func (f Funcs) Reply(ctx *Context, x Exchange) (Decision, error) {
	if f.OnReply == nil {
		return nil, nil
	}
	return f.OnReply(ctx, x)
}

// Disconnect implements DisconnectHook.
func (f Funcs) Disconnect(ctx *Context, conn Connection, end End) {
	if f.OnDisconnect != nil {
		f.OnDisconnect(ctx, conn, end)
	}
}

// funcsOf returns the Funcs that a hook is.
func funcsOf(h Hook) (Funcs, bool) {
	switch h := h.(type) {
	case Funcs:
		return h, true
	case *Funcs:
		if h != nil {
			return *h, true
		}
	}
	return Funcs{}, false
}

// optional is a hook in its place that is more than a Hook.
type optional[T any] struct {
	name  string
	hook  T
	funcs *Funcs // hook, if it is one: its methods would copy what they get once more
}

// find returns the hooks among those that h is made of which are a T, in order. name is
// the innermost one around h.
func find[T any](h Hook, name string) (found []optional[T]) {
	if n, ok := h.(*named); ok {
		return find[T](n.hook, n.name)
	}
	t, is := h.(T)
	_, isMux := h.(*Mux)
	if is && counts[T](h) {
		o := optional[T]{name: name, hook: t}
		if f, ok := funcsOf(h); ok {
			o.funcs = &f
		}
		found = append(found, o)
	}
	if is && !isMux {
		return found // it knows itself what to do with what it is made of
	}
	for _, inner := range madeOf(h) {
		found = append(found, find[T](inner, name)...)
	}
	return found
}

// counts tells whether a hook with the methods of a T has something to do in them.
func counts[T any](h Hook) bool {
	if m, ok := h.(*Mux); ok {
		return m.extends() // it is a KeywordHook, and nothing else
	}
	f, ok := funcsOf(h)
	if !ok {
		return true
	}
	switch any((*T)(nil)).(type) {
	case *ConnectHook:
		return f.OnConnect != nil
	case *KeywordHook:
		return f.OnKeywords != nil
	case *ReplyHook:
		return f.OnReply != nil
	}
	return f.OnDisconnect != nil
}
