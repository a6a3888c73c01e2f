package hooks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// AllowVerbs returns a hook that lets commands with some verbs through, in any case, and
// answers 502 5.5.1 to all others (RFC 5321 section 4.2.4): for a server of which only a part
// should be reached. What EHLO announces of a verb that isn't let through is taken away, so that
// no client counts on it: STARTTLS, AUTH, ETRN and such, and CHUNKING and BINARYMIME, which need
// BDAT.
//
// QUIT should be among them, and so should HELO, EHLO, MAIL, RCPT, DATA, RSET, NOOP and VRFY
// where mail is taken (RFC 5321 section 4.5.1); BDAT is refused with its chunk. Without verbs,
// nothing is let through. A line without a verb is passed: the library refuses it, and counts
// it (Proxy.MaxErrors). Lines of a SASL exchange belong to AUTH. AllowVerbs panics if one of
// them is no verb.
//
// In a smtpproxy.Chain, what the hooks behind it make of a line isn't looked at any more.
// smtpproxy.Proxy.Commands must be empty: what it doesn't have never gets here, and is let through.
func AllowVerbs(verbs ...string) smtpproxy.Hook {
	a := make(allowedVerbs, len(verbs))
	for i, v := range verbs {
		verb := smtpproxy.Command{Line: v}.Verb()
		if verb == "" || len(verb) != len(v) {
			panic(fmt.Sprintf("smtpproxy/hooks: %q is no verb", v))
		}
		a[i] = verb
	}
	return a
}

// allowedVerbs are those that AllowVerbs lets through, in upper case.
type allowedVerbs []string

// Command implements smtpproxy.Hook.
func (a allowedVerbs) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if verb := cmd.Verb(); verb == "" || slices.Contains(a, verb) {
		return nil, nil // without a verb, too, are lines of a SASL exchange
	}
	return refusal(502, 5, 5, 1, "Command not implemented"), nil
}

// announcedVerbs are the keywords in the reply to EHLO that stand for a verb, and the verb. A
// keyword that isn't here may stand for a parameter, which the verbs have nothing to do with.
var announcedVerbs = []struct{ keyword, verb string }{
	{"STARTTLS", "STARTTLS"}, {"AUTH", "AUTH"}, {"CHUNKING", "BDAT"}, {"BINARYMIME", "BDAT"}, {"BURL", "BURL"},
	{"VRFY", "VRFY"}, {"EXPN", "EXPN"}, {"HELP", "HELP"}, {"ETRN", "ETRN"}, {"ATRN", "ATRN"}, {"TURN", "TURN"},
	{"SEND", "SEND"}, {"SOML", "SOML"}, {"SAML", "SAML"}, {"XCLIENT", "XCLIENT"}, {"XFORWARD", "XFORWARD"},
}

// Keywords implements smtpproxy.KeywordHook.
func (a allowedVerbs) Keywords(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	for _, k := range announcedVerbs {
		if !slices.Contains(a, k.verb) {
			kw.Delete(k.keyword)
		}
	}
	return nil
}

// Answers answers commands in the server's place, by their verb, which may be written in any
// case, but only in one: HELP with a 214, say, which go-smtp doesn't implement and curl asks for, VRFY with "252 Cannot VRFY user"
// (RFC 5321 section 3.5.3), EXPN and ETRN with what a server's users should know. All else is
// passed: the zero value passes everything.
//
// An answer tells the client what the server doesn't know of. One that says of MAIL, RCPT or
// AUTH that it is accepted changes nothing at the server, and one that isn't valid for the
// command, such as a 354 (see smtpproxy.Reply), is a failure. Nothing is announced in the reply
// to EHLO: for that there is smtpproxy.Mux.Extend.
type Answers map[string]smtpproxy.Reply

// Command implements smtpproxy.Hook.
func (a Answers) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	verb := cmd.Verb()
	if verb == "" { // of a SASL exchange, or else the library refuses it
		return nil, nil
	}
	if r, ok := a[verb]; ok {
		return r, nil
	}
	for v, r := range a {
		if strings.EqualFold(v, verb) {
			return r, nil
		}
	}
	return nil, nil
}
