package hooks

import (
	"github.com/seed3262c777/smtpproxy"
)

// RequireTLS keeps clients that aren't inside TLS from AUTH, or from everything. The zero value
// guards AUTH: it isn't announced without TLS, and is answered 523 5.7.10 (RFC 5248 section
// 2.4). So without TLS, the library answers 555 5.5.4 to the parameter AUTH= of MAIL, too, since that is
// announced with it: for clients that send AUTH=<> all the same, [StripParameters] takes it out. Where the Proxy has a TLSConfig the library does so by itself, behind the hooks, unless
// AllowInsecureAuth is set; what it can't do is to end the session, and to ask for TLS before
// mail.
//
// A Proxy without a TLSConfig, and without TLS in the listener beneath it, gives nobody a way
// into TLS, and this hook can't know. TLS that a front end has ended, and tells of with XCLIENT,
// isn't seen. smtpproxy.Proxy.Commands must be empty, or has to have all that is to be refused:
// what it doesn't have never gets here.
//
// # Dangers
//
// A client that has sent its password in plaintext has lost it, whatever the answer is;
// Disconnect makes sure that somebody notices. On a public MX, Everything refuses the mail of
// all servers that don't speak TLS, which RFC 3207 section 4 forbids: it is for submission, and
// between servers that know each other. It is for clients on unix sockets too: give those
// another hook with Proxy.HookFor.
type RequireTLS struct {
	// Everything answers 530 5.7.0 to all commands, AUTH among them, but those that lead to
	// TLS or to the end: EHLO, LHLO, NOOP, STARTTLS and QUIT (RFC 3207 section 4).
	Everything bool

	// Disconnect closes the connection behind the refusal.
	Disconnect bool
}

// Keywords implements smtpproxy.KeywordHook: it doesn't let AUTH be announced without TLS.
func (r *RequireTLS) Keywords(_ *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	if conn.TLS.Protocol == "" {
		kw.Delete("AUTH")
	}
	return nil
}

// Command implements smtpproxy.Hook.
func (r *RequireTLS) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if conn.TLS.Protocol != "" {
		return nil, nil
	}
	switch verb := cmd.Verb(); verb {
	case "EHLO", "LHLO", "NOOP", "STARTTLS", "QUIT":
		return nil, nil
	case "": // of a SASL exchange, or else the library refuses it, and counts it (Proxy.MaxErrors)
		return nil, nil
	case "AUTH":
		if !r.Everything {
			return r.refuse(523, 10, "TLS is required"), nil
		}
	}
	if !r.Everything {
		return nil, nil
	}
	return r.refuse(530, 0, "Must issue a STARTTLS command first"), nil
}

// refuse returns the refusal. Few connections need the stack that it takes.
//
//go:noinline
func (r *RequireTLS) refuse(code, detail int, text string) smtpproxy.Decision {
	refused := refusal(code, 5, 7, detail, text)
	refused.Disconnect = r.Disconnect
	return refused
}
