package hosts

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// gate is the hook of all tests here. It records what it is shown and what it
// decides. It refuses, or changes, what says so.
type gate struct {
	rec *record
	// passes tells that it passes everything.
	passes bool
}

// What the gate does with a line by what is in it.
const (
	hookWord  = "hook"  // is refused
	aliasWord = "alias" // a path that starts so is changed to one that starts with "a"
	// A sender with "-hk-VERB" in its name has that verb refused as long as its
	// transaction is open, one with "-ok-VERB" has it answered 250.
	refuseVerb = "-hk-"
	acceptVerb = "-ok-"
)

// decide returns the code of a reply, or 0 and the line to pass.
func (g *gate) decide(line string, v view) (code int, pass string) {
	g.rec.note(event{what: shown, text: line, view: v})
	code, pass = g.judge(line, v)
	if code != 0 {
		g.rec.noteText(answered, line)
	} else {
		g.rec.noteText(passed, pass)
	}
	return code, pass
}

func (g *gate) judge(line string, v view) (code int, pass string) {
	verb := strings.ToLower(verbOf(line))
	switch {
	case g.passes:
	case strings.Contains(line, hookWord):
		return 550, ""
	case v.active && strings.HasSuffix(v.sender.local, refuseVerb+verb):
		return 550, ""
	case v.active && strings.HasSuffix(v.sender.local, acceptVerb+verb):
		return 250, ""
	case strings.Contains(line, "<"+aliasWord):
		return 0, strings.Replace(line, "<"+aliasWord, "<a", 1)
	}
	return 0, line
}

// restartVerb is what the client says to be taken for another's, with that one's address.
const restartVerb = "XRESTART"

// Command implements smtpproxy.Hook.
func (g *gate) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if verbOf(cmd.Line) == restartVerb {
		g.rec.note(event{what: shown, text: cmd.Line, view: viewOf(txn)})
		g.rec.noteText(answered, cmd.Line)
		to := netip.MustParseAddrPort(argument(cmd.Line))
		return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: to.Addr(), RemotePort: to.Port()}}, nil
	}
	code, pass := g.decide(cmd.Line, viewOf(txn))
	switch {
	case code != 0:
		return smtpproxy.Reply{Code: code, Lines: []string{"by the hook"}}, nil
	case pass != cmd.Line:
		return smtpproxy.Pass{Command: pass}, nil
	}
	return nil, nil
}

// verbOf returns the first word of a line in upper case.
func verbOf(line string) string {
	verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	return strings.ToUpper(verb)
}

// argument returns what follows the verb.
func argument(line string) string {
	_, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	return strings.TrimSpace(arg)
}

// front puts something between a listener and a host.
type front func(l net.Listener, g *gate) net.Listener

// bare puts nothing there.
func bare(l net.Listener, _ *gate) net.Listener { return l }

// library puts the library there, with some of its settings.
func library(settings ...func(*smtpproxy.Proxy)) front {
	return func(l net.Listener, g *gate) net.Listener {
		p := &smtpproxy.Proxy{
			Hook:      g,
			Logger:    slog.New(slog.DiscardHandler),
			MaxErrors: -1, // no random client keeps within a reasonable number
		}
		for _, set := range settings {
			set(p)
		}
		return p.Listener(l)
	}
}

func rejectBareNewlines(p *smtpproxy.Proxy) { p.RejectBareNewlines = true }

func limitTextLines(p *smtpproxy.Proxy) { p.MaxTextLine = 1000 }

func startTLS(p *smtpproxy.Proxy) {
	p.TLSConfig = serverTLS()
	p.AllowInsecureAuth = true
}

func implicitTLS(p *smtpproxy.Proxy) {
	startTLS(p)
	p.ImplicitTLS = true
}

// clientTLS trusts whatever certificate there is: the connection isn't the point.
func clientTLS(c net.Conn) *tls.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) }
