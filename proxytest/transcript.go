package proxytest

import (
	"slices"
	"strings"
	"sync"

	"github.com/seed3262c777/smtpproxy"
)

// transcript writes the dialogue down.
type transcript struct {
	b       strings.Builder
	verb    string // of the line that is being answered
	sasl    bool   // the client's next line belongs to a SASL exchange
	suspect bool   // after an AUTH that failed: it may hold a secret
}

// Transcript returns the dialogue so far, for people to read and for tests to
// compare, in lines such as these:
//
//	C: AUTH PLAIN ****              the client's line, credentials masked
//	H: pass                         what the hook decided, if it was called
//	H: pass RCPT TO:<bob@c.example> and the line that it put in its place
//	H: failed                       see Session.Failure
//	P: 421 4.3.0 Not now            what the library or OnFailure decided
//	S: 250 2.0.0 OK                 the server's reply
//	C: (content)                    SendContent; (TLS handshake): StartTLS
//
// A decision with Next ends in (next), one with Disconnect in (close).
// Credentials are masked as [smtpproxy.Command.String] does; what a hook puts
// into its replies is not.
func (s *Session) Transcript() string { return s.transcript.b.String() }

func (t *transcript) line(parts ...string) {
	for _, part := range parts {
		t.b.WriteString(part)
	}
	t.b.WriteByte('\n')
}

// decided writes down the client's line and what was decided about it. failed
// tells that the hook failed.
func (t *transcript) decided(line string, d smtpproxy.Decision, w *watch, failed bool) {
	called, hooks := w.result()
	t.suspect = t.suspect && !t.sasl && !isKnown(line)
	t.line("C: ", t.masked(line))

	_, refused := d.(smtpproxy.Reply)
	switch {
	case failed:
		t.line("H: failed")
		t.decision("P: ", line, d)
	case !called && refused:
		t.decision("P: ", line, d)
	case called && refused && hooks != nil:
		// The library refuses what the hook passed.
		t.decision("H: ", line, *hooks)
		t.decision("P: ", line, d)
	case called:
		t.decision("H: ", line, d)
	}

	if pass, ok := d.(smtpproxy.Pass); ok {
		line = pass.Command
	}
	t.verb = smtpproxy.Command{Line: line}.Verb()
	if reply, ok := d.(smtpproxy.Reply); ok {
		t.answered(reply.Code)
	}
}

// replied writes down a reply of the server's.
func (t *transcript) replied(r smtpproxy.Reply) {
	t.reply("S: ", r, "")
	t.answered(r.Code)
}

// answered notes what a reply says about the client's next line.
func (t *transcript) answered(code int) {
	t.suspect = t.suspect || (t.sasl || t.verb == "AUTH") && code != 334 && code != 235
	t.sasl = code == 334
}

// decision writes down a decision about the client's line.
func (t *transcript) decision(who, line string, d smtpproxy.Decision) {
	var marks string
	switch d := d.(type) {
	case smtpproxy.Pass:
		if d.Next {
			marks = " (next)"
		}
		if d.Command != "" && d.Command != line {
			marks = " " + t.masked(d.Command) + marks
		}
		t.line(who, "pass", marks)
	case smtpproxy.Reply:
		if d.Next {
			marks += " (next)"
		}
		if d.Disconnect {
			marks += " (close)"
		}
		t.reply(who, d, marks)
	}
}

func (t *transcript) reply(who string, r smtpproxy.Reply, marks string) {
	t.line(who, strings.ReplaceAll(r.String(), "\r\n", "\n"+who), marks)
}

// masked returns a line as Command.String does for a hook that is called.
func (t *transcript) masked(line string) string {
	if t.suspect && !isKnown(line) {
		return "****"
	}
	return smtpproxy.Command{Line: line, SASL: t.sasl}.String()
}

// isKnown reports whether a line is a command, so that it is no password sent
// out of its place.
func isKnown(line string) bool {
	return slices.Contains([]string{"HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP",
		"QUIT", "VRFY", "EXPN", "HELP", "AUTH", "STARTTLS", "ETRN", "XCLIENT", "XFORWARD"}, smtpproxy.Command{Line: line}.Verb())
}

// watch is what a watchedHook notes about one call. With Proxy.HookTimeout the
// call may last longer than Send.
type watch struct {
	mu     sync.Mutex
	called bool
	pass   *smtpproxy.Pass // what the hook passed, nil if it replied
}

type watchKey struct{}

func (w *watch) result() (called bool, pass *smtpproxy.Pass) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.called, w.pass
}

// watchedHook is the hook that is tested.
type watchedHook struct{ smtpproxy.Hook }

func (h watchedHook) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	w := ctx.Value(watchKey{}).(*watch)
	w.mu.Lock()
	w.called = true
	w.mu.Unlock()

	d, err := h.Hook.Command(ctx, cmd, conn, txn)

	w.mu.Lock()
	defer w.mu.Unlock()
	switch d := d.(type) {
	case nil:
		w.pass = &smtpproxy.Pass{}
	case smtpproxy.Pass:
		w.pass = &d
	case *smtpproxy.Pass:
		if d != nil {
			pass := *d
			w.pass = &pass
		}
	}
	return d, err
}
