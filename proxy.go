// Package smtpproxy puts user code, a hook, in front of the state machine of
// an SMTP server. The hook gets each raw command line, with a read-only view
// of the connection and the transaction and a mutable context of its own, and
// decides: pass the command, perhaps changed, to the server, or reply to the
// client, and the server never sees the command.
//
// A server that takes a net.Listener needs no change:
//
//	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(hook)}
//	err := server.Serve(p.Listener(l))
//
// For github.com/emersion/go-smtp, package gosmtp does a little more. A server
// with a state machine of its own calls a [Session] for each line instead.
// Package proxytest tests hooks without a server.
//
// Three promises: every command that the server executes was shown to the hook
// before, in order and exactly once; with a hook that passes everything, neither
// client nor server notice that it is there; and nothing that either of them
// counts on is lost. They hold for a server that reads from a connection only when
// it has answered what it read before, as most do. A server whose reader runs ahead
// in a goroutine of its own is safe as long as message content has no stray CR or
// LF. SECURITY.md tells which servers are tested, and what they get noticed by.
//
// The dialogue follows RFC 5321 (SMTP), RFC 2920 (PIPELINING), RFC 3030
// (CHUNKING), RFC 4954 (AUTH), RFC 3207 (STARTTLS) and RFC 2033 (LMTP).
package smtpproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/secret"
)

// Hook decides about commands.
//
// Command is called for each command line before the server gets it, and for
// each further line asked for with Next. It returns Pass or Reply, or nil,
// which passes the line unchanged. An error, even beside a decision, a panic,
// a call longer than Proxy.HookTimeout and an invalid decision are a
// [Failure]: the client gets a 421 reply that doesn't tell why, and the
// connection is closed.
//
// For one connection, Command is called by one goroutine at a time; for
// different connections it is called concurrently. While it runs, the
// connection waits. ctx and cmd are valid during the call; conn and txn are
// values, which the hook may keep.
//
// A hook that calls runtime.Goexit, as testing.T.FailNow does, ends the
// server's goroutine for the connection after the 421.
type Hook interface {
	Command(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error)
}

// HookFunc is a function that is a Hook.
type HookFunc func(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error)

// Command implements Hook by calling f.
func (f HookFunc) Command(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error) {
	return f(ctx, cmd, conn, txn)
}

// Decision is what a hook decides: [Pass] or [Reply], or a pointer to one that
// isn't nil. A type that embeds one of them is no decision but a failure.
type Decision interface {
	decision()
}

// Pass is a Decision: the server gets the command. The zero value passes it
// unchanged.
type Pass struct {
	// Command is the line that the server gets instead, without line end;
	// empty means the client's. It must be one line without control
	// characters but tab, within the line limit, that starts with a verb;
	// in a SASL exchange, any line without control characters. The
	// library's view of the dialogue follows this command. BDAT can't be
	// put in, taken out, or given another size, since the octets that
	// follow stay as they are; nor, in LMTP, RCPT or LAST be put in or taken
	// out, nor LHLO be put in the place of EHLO or HELO or made one of them,
	// since the client counts on a status for each recipient (RFC 2033
	// sections 4.2 and 4.3).
	Command string

	// Next asks for the client's next line, whatever Proxy.Commands says:
	// after AUTH, the client's answer to the server's challenge.
	Next bool

	// Delay holds the line back for so long. Replies to earlier commands leave
	// first; the wait ends with the connection, and costs neither the client nor
	// the server of the time that they have. In a Chain, the longest Delay counts.
	// 0 or negative is none. A server with a state machine of its own waits by itself.
	Delay time.Duration
}

func (Pass) decision()  {}
func (Reply) decision() {}

// Proxy is the configuration of the library. The zero value passes every
// command. Listener and NewSession copy it; to change it afterwards has no
// effect on them.
type Proxy struct {
	// Who decides, and what then.

	// Hook decides about commands; nil passes all. It may be made of others, with
	// Chain, Mux and Named, and be a ConnectHook, a KeywordHook, a ReplyHook and a
	// DisconnectHook, too.
	Hook Hook

	// HookFor, if not nil, chooses the hook of a connection; nil is Hook. It is called once
	// for each connection, on the goroutine that first uses it and before any method of the
	// hook, behind the TLS handshake where TLS comes first; RemotePTR may not be known yet.
	// The connection keeps its hook, over STARTTLS too. If HookFor panics, that is a failure
	// of the hook's at whatever comes first: the client gets a 421, unless OnFailure decides
	// otherwise. To put another hook into use while a server runs, let it load an atomic.Pointer.
	HookFor func(Connection) Hook

	// Commands are the verbs that the hook is called for, in any case;
	// empty means every command line.
	Commands []string

	// HookTimeout limits a call of the hook. After it, the client gets a 421
	// reply though the call still runs, on a goroutine of its own, until
	// the hook returns; its Context is done. Of a Chain, it
	// limits the calls of all hooks for a line together. 0 or negative means
	// no limit.
	HookTimeout time.Duration

	// OnFailure, if not nil, decides instead of the hook when Command or Connect failed.
	// If it returns nil, fails itself or decides what is not valid, the
	// client gets the 421 reply. ctx is done after a passed deadline.
	OnFailure func(ctx *Context, f Failure) Decision

	// Observers are told what happens, and decide nothing.
	Observers []Observer

	// What a hook sees beyond the line.

	// ServerID is copied to Connection.ServerID.
	ServerID string

	// LookupPTR sets Connection.RemotePTR to the client's host name, if
	// the reverse DNS has one with the client's address. The lookup starts
	// when the server first reads or writes; the first call of the hook
	// waits for it.
	LookupPTR bool

	// Resolver is asked by LookupPTR. nil means net.DefaultResolver.
	Resolver Resolver

	// LookupTimeout limits LookupPTR. 0 or negative means 5 seconds.
	LookupTimeout time.Duration

	// TransportID, if not nil, gives each accepted recipient its
	// TransportID. It is called when the server has accepted the recipient,
	// before the client is told, and must not block or panic.
	TransportID func(Connection, Recipient) string

	// TLS and AUTH.

	// TLSConfig makes a listener offer STARTTLS, and end TLS itself (RFC
	// 3207). After the handshake the server gets a fresh connection from
	// Accept. Without TLSConfig, the server's own STARTTLS is taken out of
	// the EHLO reply and refused, since behind it the hook would be blind.
	// A client's certificate is verified against its ClientCAs, whatever
	// its ClientAuth, and the result recorded in TLS.PeerCert.
	TLSConfig *tls.Config

	// ImplicitTLS makes connections start with a TLS handshake with
	// TLSConfig (RFC 8314 section 3.3), as a tls.Listener beneath does.
	ImplicitTLS bool

	// HandshakeTimeout limits a TLS handshake. 0 means 30 seconds; negative
	// means no limit.
	HandshakeTimeout time.Duration

	// SessionTickets lets a server send TLS session tickets after STARTTLS
	// (RFC 8446 section 4.6.1, RFC 5077), unless TLSConfig disables them.
	// Without it none are sent there, since Microsoft's Outlook breaks off at
	// those of Go. Where TLS comes first, TLSConfig alone decides.
	SessionTickets bool

	// TLSKeywords are EHLO keywords that are added inside TLS, for a server
	// that can't know of it: such as "REQUIRETLS" (RFC 8689).
	TLSKeywords []string

	// AllowInsecureAuth offers and passes AUTH outside TLS. Without it, a
	// listener with TLSConfig holds AUTH back from the EHLO reply until
	// there is TLS, and answers it 523 5.7.10 (RFC 4954 section 4, RFC 5248
	// section 2.4).
	AllowInsecureAuth bool

	// RequireTLSForAuth holds AUTH back like that without a TLSConfig too,
	// unless AllowInsecureAuth is set.
	RequireTLSForAuth bool

	// Limits of what is kept. They are on by default, since they keep memory safe.

	// MaxLineLength limits a command line, in octets with its line end.
	// A longer one is answered 500 and the connection closed. 0 means 2048,
	// which leaves room for all registered extensions; negative means no
	// limit. Set it to the server's own limit, if that is lower.
	MaxLineLength int

	// MaxSASLLineLength limits a line of a SASL exchange, in octets without
	// its line end. A longer one is answered 500 5.5.6 and the connection
	// closed. 0 means 12288 (RFC 4954 section 4); negative means no limit.
	MaxSASLLineLength int

	// MaxReplyLength limits one reply of the server's, in octets with its
	// line ends. At a longer one, the client gets a 421 reply and both sides
	// are closed. 0 means 65536; negative means no limit.
	MaxReplyLength int

	// MaxReadAhead limits what is kept of a client that sends ahead of the
	// replies, in octets. Beyond it, nothing is read until the server has
	// caught up, so that the client has to wait; it gets no reply for that.
	// Message content is read in pieces of this size. 0 means 32768;
	// negative means no limit, which lets a client fill the memory while
	// the server works. Less than 4096 has the effect of 4096, and a line
	// always finds room up to its own limit.
	MaxReadAhead int

	// MaxRecipients limits the recipients of one transaction that the server
	// has accepted. The RCPT beyond is answered 452 4.5.3 (RFC 5321 section
	// 4.5.3.1.10); so is one that would make their commands longer than 256
	// octets in the mean. 0 means 10000; negative means no limit.
	MaxRecipients int

	// Limits of what a client may do.

	// MaxCommands limits the commands of one connection, lines of a SASL
	// exchange not counted. The one beyond is answered 421 4.7.0 and the
	// connection closed; the hook isn't shown it. 0 or negative means no
	// limit.
	MaxCommands int

	// MaxErrors limits the lines of one connection that no server would know
	// what to do with, and that the library itself refuses: without a verb,
	// with control characters, malformed STARTTLS and BDAT. What is refused
	// because of order, limits or policy doesn't count. The one beyond is
	// answered 421 4.7.0 and the connection closed. The count starts anew with
	// each message that the server accepts. 0 means 10; negative means no
	// limit.
	MaxErrors int

	// MaxSmallChunks limits the BDAT chunks of less than 1 KiB in one
	// message (RFC 3030), each of which costs more to read than it brings.
	// The one beyond is answered 421 4.7.0 and the connection closed. 0
	// means 1000; negative means no limit.
	MaxSmallChunks int

	// CommandTimeout limits the time from the first octet of a command line,
	// or of a line of a SASL exchange, to its end, however steadily the
	// client sends. After it, the client gets 421 4.4.2 and the connection
	// is closed. How long a client may be silent between commands is the
	// server's to limit, as it is without the library (RFC 5321 section
	// 4.5.3.2.7). 0 or negative means no limit.
	CommandTimeout time.Duration

	// MinDataRate is how many octets a second a client must send of message
	// content. It may be 30 seconds behind, and no more ahead; the time that
	// the server takes to read doesn't count. One that falls behind gets 421
	// 4.4.2 and the connection is closed; the server never sees an end of
	// the message. 0 or negative means no limit.
	MinDataRate int

	// Message content.

	// RejectBareNewlines refuses a message with a CR or an LF that is not
	// part of a CRLF (RFC 5321 section 2.3.8): servers differ in what they
	// make of it, so that the next one may find commands in the content.
	// The rest is read up to CRLF.CRLF, the server never sees an end, the
	// client gets 550 5.6.0 and is closed. A message sent with BDAT is
	// refused likewise, unless it is declared BODY=BINARYMIME (RFC 3030
	// section 3). False leaves the message to the server.
	RejectBareNewlines bool

	// MaxTextLine limits a line of message content after DATA, in octets with
	// its line end (RFC 5321 section 4.5.3.1.6 has 1,000). A message with a
	// longer one is refused as RejectBareNewlines does. It is for servers with
	// a limit of their own beyond which they take the rest of a line for the
	// next, or the message for ended without a word: bradfitz/go-smtpd does at
	// 4,096. 0 or negative means no limit.
	MaxTextLine int

	// BulkContent hands message content after DATA to the server in pieces of
	// many lines, instead of line by line: large messages are faster for it.
	// It is for a server that never takes for commands what it has read of a
	// message that it then refuses, which depends on how its code was written:
	// go-smtp is one, and gosmtp.Serve sets it.
	BulkContent bool

	// The log.

	// Logger gets what goes wrong, with the client's address: failures of the
	// hook (Error), faults of the server and of its set-up (Warn), and each
	// connection that the library ends for what the client did (Info). Nothing
	// logged holds a credential, but what the hook's own errors hold. Its
	// handler may take its time, and call anything. nil means slog.Default()
	// for warnings and errors; a logger with slog.DiscardHandler is silence.
	Logger *slog.Logger
}

// The defaults of Proxy's times.
const (
	defaultHandshakeTimeout = 30 * time.Second
	defaultLookupTimeout    = 5 * time.Second
)

// Resolver looks names up in the DNS, as *net.Resolver does.
type Resolver interface {
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
}

var (
	// ErrInvalidDecision is the cause of a failure by a decision that is
	// not valid: see Pass and Reply.
	ErrInvalidDecision = errors.New("smtpproxy: invalid decision")

	// ErrHookTimeout is the cause of a failure by a call longer than
	// Proxy.HookTimeout.
	ErrHookTimeout = errors.New("smtpproxy: hook timeout")

	// ErrHookPanic is the cause of a failure by a panic.
	ErrHookPanic = errors.New("smtpproxy: hook panicked")

	// ErrHookExit is the cause of a failure by runtime.Goexit.
	ErrHookExit = errors.New("smtpproxy: hook ended its goroutine")
)

// Failure tells how a hook failed.
type Failure struct {
	// Err is the cause: the hook's own error, or one that wraps
	// ErrInvalidDecision, ErrHookTimeout, ErrHookPanic or ErrHookExit. The
	// text of a panic's is the panic's value, and may hold a credential if
	// the hook put it there.
	Err error

	// Stack is the goroutine's stack at a panic, else nil.
	Stack []byte

	// Command is the command that the hook failed at, as it was shown to it.
	Command Command

	// Hook is the name that Named has given to the hook, empty if it has none.
	Hook string
}

// Error implements error; the text is that of Err.
func (f Failure) Error() string { return f.Err.Error() }

// Unwrap returns Err.
func (f Failure) Unwrap() error { return f.Err }

// GoString returns the failure as a Go expression. The command is masked, and
// in the text of Err what is masked in the command. It implements
// fmt.GoStringer.
func (f Failure) GoString() string {
	var b strings.Builder
	b.WriteString("smtpproxy.Failure{Err:")
	if f.Err == nil {
		b.WriteString("nil")
	} else {
		fmt.Fprintf(&b, "errors.New(%q)", f.masked())
	}
	if f.Stack != nil {
		fmt.Fprintf(&b, ", Stack:[]byte(%q)", f.Stack)
	}
	fmt.Fprintf(&b, ", Command:%#v", f.Command)
	if f.Hook != "" {
		fmt.Fprintf(&b, ", Hook:%q", f.Hook)
	}
	b.WriteByte('}')
	return b.String()
}

// Format formats what Error returns, and GoString for %#v. It implements
// fmt.Formatter.
func (f Failure) Format(s fmt.State, verb rune) { format(s, verb, f.Error, f.GoString) }

// masked returns the text of Err with the mask in the place of what is masked in the
// command.
func (f Failure) masked() string {
	// fmt bears with an Error method that panics, as that of a nil pointer in an
	// error may: the log is written within the server's Read.
	_, hidden, _ := f.Command.split()
	text := secret.Scrub(fmt.Sprint(f.Err), hidden)
	if received := f.Command; received.Received != received.Line {
		received.Line = received.Received // which the hook has seen, too
		_, hidden, _ = received.split()
		text = secret.Scrub(text, hidden)
	}
	return text
}

// panicError keeps a panic's value, so that errors.As finds an error in it.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("%v: %v", ErrHookPanic, e.value) }

func (e panicError) Unwrap() []error {
	if err, ok := e.value.(error); ok {
		return []error{ErrHookPanic, err}
	}
	return []error{ErrHookPanic}
}

// Format formats what Error returns: the value could be a Command, which fmt
// would not ask how to print it here.
func (e panicError) Format(s fmt.State, verb rune) {
	format(s, verb, e.Error, func() string { return "errors.New(" + strconv.Quote(e.Error()) + ")" })
}
