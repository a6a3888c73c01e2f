package hooks

import (
	"net/netip"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// Limits bounds what clients do: on a connection, from a network, as a sender, as a login,
// all together.
//
//	hook := hooks.Limits{Limits: []hooks.Limit{
//		{What: hooks.Connections, Per: hooks.PerNetwork, Max: 20},
//		{What: hooks.Messages, Per: hooks.PerLogin, Max: 100, Every: time.Hour},
//		{What: hooks.Errors, Max: 10},
//	}}.Hook()
//
// What a command stands for is taken before it is passed, in one step with the question
// whether there is as much: so no limit is exceeded, however many connections a client has.
// A recipient and a message that are refused then, by whomever, are given back.
// What only the reply tells, errors say, is counted with that, and refused at the
// next command: so of these, each of several connections at once may have one too many.
//
// In a smtpproxy.Chain it stands behind those that find out who the client is, such as
// [XCLIENT], and that change commands, such as [Rewrite], and before all that refuse or answer
// commands. It isn't asked about what a hook before it answers: that doesn't count among
// Commands, and however many Errors there are of that kind, which it sees by their replies, the
// connection stays open until there comes a command that it is asked about. [Networks] and
// [DNSList], which refuse clients in the place of the greeting, may stand before it: whom they
// refuse isn't counted then. A hook whose own Connect decides on a Restart stands last, as with
// Networks: Connections PerNetwork and InAll are counted for who is connected then, and behind it
// for nobody. With smtpproxy.Proxy.Commands, it sees those commands alone, and
// bounds what clients do with no others.
//
// Whoever shares a network, a sender or a login with others can use up what is theirs, too: a
// network may be a whole company behind one address, and a sender is what a client says it is.
// So what is the only way in for many is better delayed than refused.
//
// It is no guard against who sends slowly, or nothing: see smtpproxy.Proxy.CommandTimeout
// and MinDataRate, and MaxErrors, MaxCommands and MaxRecipients, which need no hook.
type Limits struct {
	// Limits are all asked. Of those that are exceeded, one that closes the connection decides,
	// else the first that refuses; the longest delay counts.
	Limits []Limit

	// Exempt has the networks of clients that are neither counted nor refused: those of a
	// load balancer that looks whether the server is there, and of front ends which tell
	// later whose connection it is. It is judged by conn.RemoteIP, as it is at the time: with
	// XCLIENT, by what the front end has told.
	Exempt []netip.Prefix

	// IPv4Bits and IPv6Bits are how many bits of an address make a client's network. 0 is 32
	// and 64: an IPv4 address, and what a provider gives a customer at the least.
	IPv4Bits, IPv6Bits int

	// Store keeps what isn't of one connection alone. nil is a MemoryStore of the hook's own,
	// which begins anew with each call of Hook. Limits that are the same in What, Per, Max and
	// Every share their buckets in a Store: so they keep count over a change of the others, and
	// two in one chain count everything twice.
	Store Store

	// Timeout is how long a call of a Store other than a MemoryStore may take, which a
	// command waits for. 0 is one second. With smtpproxy.Proxy.HookTimeout, that must be longer,
	// by as much as the other hooks of a chain and the calls of a Store that answers need: else
	// it is over before, which is a failure of the hook's, and OnAway doesn't decide.
	Timeout time.Duration

	// OnAway, if not nil, is told of each error of the Store, and decides what is done with
	// the command, or the client that connects, whose limits nobody knows. Behind an error, the
	// Store isn't asked again about the same command, reply, connection or end: so nobody waits
	// for it more than once, and what is to be counted or given back then isn't. nil goes on
	// as if there were none. Where there is nothing to decide about, behind a reply
	// and at the end, what it returns doesn't matter. What it returns is held to the rules for
	// Limit.Beyond, and else a failure of the hook's. Without OnAway, the dialogue goes on, and
	// slog.Default() is told when the store goes away and when it is back. OnAway may be called
	// concurrently for several connections. It is called, as OnBeyond and the Store are, under a
	// lock that the connection has for its limits: one that waits holds up that connection alone,
	// its end too.
	OnAway func(ctx *smtpproxy.Context, err error) smtpproxy.Decision

	// OnBeyond, if not nil, is told each time that a limit is exceeded: which one, and by whom. It
	// is for a log, or for a counter by Bucket.What and Bucket.Per, of which there are few;
	// Bucket.Who is the client's to choose. It may be called concurrently, as OnAway is.
	OnBeyond func(ctx *smtpproxy.Context, b Bucket)
}

// Limit is a limit of a [Limits].
type Limit struct {
	What Counted
	Per  Per

	// Max is how much is allowed; 1 at least.
	Max int

	// Every is the time in which Max is refilled, steadily: who has used all of it up gets a
	// tenth of it back in a tenth of the time (see [Bucket]). 0 is a total for the connection, and with
	// Connections, those at once. All else that isn't PerConnection needs it.
	Every time.Duration

	// Beyond is what is done beyond the limit. nil is a 421 reply, which closes the
	// connection: the client comes back later. A Reply has a 4xx or 5xx code, and may have
	// Disconnect and Delay. What it leaves out is filled in: X.7.0, and what there is too
	// much of. A Pass has a Delay: what is beyond the limit is passed, and waits. All other
	// decisions are invalid.
	//
	// With a reply that doesn't close, each command that the limit is about is refused
	// until there are tokens again: all of them with Commands, Errors, UnknownVerbs, Time and
	// Unauthenticated (but AUTH); RCPT with Recipients and WrongRecipients; AUTH with FailedAUTH; MAIL,
	// DATA and BDAT with Messages and Octets. QUIT never is. (A client that is
	// refused a last chunk of BDAT has sent its message in vain; so it is asked at MAIL whether
	// one more is allowed, and PerSender at its first RCPT.)
	Beyond smtpproxy.Decision
}

// Validate returns an error that tells what is wrong with the limits.
func (l Limits) Validate() error {
	_, err := l.limiter()
	return err
}

// Hook returns the hook. It is a copy: what is changed afterwards has no effect on it. It panics
// if the limits aren't valid (see Validate).
//
// It costs what the limits need. All of them need the commands, but for Connections, PerNetwork
// and InAll, which need to be asked when a client connects, as Time does, and when it is gone.
// Errors, UnknownVerbs, WrongRecipients, FailedAUTH, Recipients, Messages and Octets need the
// replies: only with these is it a smtpproxy.ReplyHook, for which the library does more with
// each command. Of the limits that are not PerConnection each asks the Store at each
// command that it is about. For commands or replies, an idle connection has a stack of 8 KiB
// instead of 4, as with each hook that does more than look.
func (l Limits) Hook() smtpproxy.Hook {
	h, err := l.limiter()
	if err != nil {
		panic(err)
	}
	var f smtpproxy.Funcs
	if h.needs(func(r *rule) bool { return r.atConnect() || r.What == Time }) {
		f.OnConnect = func(ctx *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			return h.connect(ctx, &conn)
		}
	}
	if h.needs(func(r *rule) bool { return !r.atConnect() }) {
		f.OnCommand = func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
			return h.command(ctx, &cmd, &conn, &txn)
		}
	}
	if h.needs((*rule).needsReplies) {
		f.OnReply = func(ctx *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
			h.reply(ctx, &x)
			return nil, nil
		}
	}
	if h.needs(func(r *rule) bool {
		return r.What == Connections && r.Every == 0 || r.What == Octets && r.Per != PerConnection
	}) {
		f.OnDisconnect = func(ctx *smtpproxy.Context, _ smtpproxy.Connection, end smtpproxy.End) {
			h.disconnect(ctx, &end)
		}
	}
	return f
}
