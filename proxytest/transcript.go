package proxytest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/probe"
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
//	H audit: pass                   the same of a hook with a name
//	H: restart ADDR=192.0.2.7       the server starts afresh, for whom that tells, in the
//	                                words of XCLIENT
//	H: failed                       see Session.Failure
//	P: 421 4.3.0 Not now            what the library or OnFailure decided
//	S: 250 2.0.0 OK                 the server's reply
//	C: (content)                    SendContent; (TLS handshake): StartTLS;
//	                                (connection): Connect; (gone): Close
//	C: (leaves) RSET                SendAndLeave
//
// A decision with Next ends in (next), one with Disconnect in (close), one with Delay, for
// which a test doesn't wait, in (after 5s).
// Credentials are masked as [smtpproxy.Command.String] does; what a hook puts
// into its replies is not.
func (s *Session) Transcript() string { return s.transcript.b.String() }

func (t *transcript) line(parts ...string) {
	for _, part := range parts {
		t.b.WriteString(part)
	}
	t.b.WriteByte('\n')
}

// decided writes down the client's line, but for the C: before it, and what was decided
// about it. failed tells that the hook failed.
func (t *transcript) decided(line string, d smtpproxy.Decision, w *watch, failed bool) {
	t.suspect = t.suspect && !t.sasl && !isKnown(line)
	t.line(t.masked(line))
	t.hooks(line, d, w.decided, failed)

	if pass, ok := d.(smtpproxy.Pass); ok {
		line = pass.Command
	}
	t.verb = smtpproxy.Command{Line: line}.Verb()
	if reply, ok := d.(smtpproxy.Reply); ok {
		t.answered(reply.Code)
	}
}

// hooks writes down what the hooks have decided about a line, and what the library, or
// OnFailure, if that is something else.
func (t *transcript) hooks(line string, d smtpproxy.Decision, all []decided, failed bool) {
	_, refused := d.(smtpproxy.Reply)
	if len(all) == 0 {
		if refused {
			t.decision("P: ", line, d)
		}
		return
	}
	last := all[len(all)-1]
	for _, h := range all[:len(all)-1] {
		if pass, ok := h.passed(); ok {
			t.decision(h.by(), line, pass)
			if pass.Command != "" {
				line = pass.Command
			}
		}
	}
	if o := last.restart(); o != nil {
		// A Connect may have had the last word.
		t.decision(last.by(), line, smtpproxy.Reply{Restart: o})
		switch reply, _ := d.(smtpproxy.Reply); {
		case failed:
			t.line("H: failed")
			t.decision("P: ", line, d)
		case reply.Restart == nil || *reply.Restart != *o:
			t.decision("H: ", line, d)
		}
		return
	}
	switch pass, passed := last.passed(); {
	case failed:
		t.line(last.by() + "failed")
		t.decision("P: ", line, d)
	case refused && passed:
		t.decision(last.by(), line, pass)
		t.decision("P: ", line, d)
	case passed && len(all) > 1:
		t.decision(last.by(), line, pass)
	default:
		t.decision(last.by(), line, d)
	}
}

// replied writes down a reply of the server's.
func (t *transcript) replied(r smtpproxy.Reply) {
	t.reply("S: ", r, after(r.Delay))
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
		marks += after(d.Delay)
		if d.Command != "" && d.Command != line {
			marks = " " + t.masked(d.Command) + marks
		}
		t.line(who, "pass", marks)
	case smtpproxy.Reply:
		if d.Restart != nil {
			t.line(who, "restart", asXCLIENT(d.Restart), after(d.Delay))
			return
		}
		t.reply(who, d, marksOf(d)+after(d.Delay))
	}
}

// marksOf returns what a Reply asks for beside its text.
func marksOf(r smtpproxy.Reply) (marks string) {
	if r.Next {
		marks = " (next)"
	}
	if r.Disconnect {
		marks += " (close)"
	}
	return marks
}

// asXCLIENT returns what an Origin tells, in the words of XCLIENT.
func asXCLIENT(o *smtpproxy.Origin) string {
	var b strings.Builder
	tell := func(name string, value any, known bool) {
		if known {
			fmt.Fprintf(&b, " %s=%v", name, value)
		}
	}
	tell("ADDR", o.RemoteIP, o.RemoteIP.IsValid())
	tell("PORT", o.RemotePort, o.RemotePort != 0)
	tell("NAME", o.RemotePTR, o.RemotePTR != "")
	tell("DESTADDR", o.LocalIP, o.LocalIP.IsValid())
	tell("DESTPORT", o.LocalPort, o.LocalPort != 0)
	tell("PROTO", o.HELO.Verb, o.HELO.Verb != "")
	tell("HELO", o.HELO.Host, o.HELO.Host != "")
	tell("LOGIN", o.Auth.Username, o.Auth.Username != "")
	return b.String()
}

// after tells of a Delay, for which nobody waits.
func after(delay time.Duration) string {
	if delay <= 0 {
		return ""
	}
	return fmt.Sprintf(" (after %v)", delay)
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

// watch notes what the hooks have decided about a line, one after the other.
type watch struct{ decided []decided }

// decided is what a hook has decided.
type decided struct {
	hook     string // its name, if it has one
	decision smtpproxy.Decision
}

type watchKey struct{}

// passed returns what a hook has passed, if it has.
func (d *decided) passed() (smtpproxy.Pass, bool) {
	switch d := d.decision.(type) {
	case nil:
		return smtpproxy.Pass{}, true
	case smtpproxy.Pass:
		return d, true
	case *smtpproxy.Pass:
		if d != nil {
			return *d, true
		}
	}
	return smtpproxy.Pass{}, false
}

// restart returns what a hook has told of the client, nil if it has told nothing.
func (d *decided) restart() *smtpproxy.Origin {
	switch d := d.decision.(type) {
	case smtpproxy.Reply:
		return d.Restart
	case *smtpproxy.Reply:
		if d != nil {
			return d.Restart
		}
	}
	return nil
}

// by returns who has decided, for a line of the transcript.
func (d *decided) by() string {
	if d.hook == "" {
		return "H: "
	}
	return "H " + d.hook + ": "
}

// watchedHook is the hook that is tested.
type watchedHook struct {
	smtpproxy.Hook
	probe *probe.Probe
}

// Unwrap returns the hook.
func (h watchedHook) Unwrap() smtpproxy.Hook { return h.Hook }

// Probe implements probe.Watched.
func (h watchedHook) Probe() *probe.Probe { return h.probe }
