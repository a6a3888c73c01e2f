package smtpproxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file makes of a Proxy what sessions and listeners work with, and tells what
// is wrong with it.

// Validate tells what about p can't work: a verb in Commands that no command has,
// ImplicitTLS without a TLSConfig, a TLSConfig without a certificate, a Hook that is made of
// itself. A listener's Accept returns the same error, and so does gosmtp.Serve. A nil *Proxy
// is an error, too.
func (p *Proxy) Validate() error {
	if p == nil {
		return errors.New("smtpproxy: the Proxy is nil")
	}
	for _, verb := range p.Commands {
		if name, _ := dialogue.VerbOf(verb); name == "" || name != ascii.ToUpper(verb) {
			return fmt.Errorf("smtpproxy: Proxy.Commands has %q, which is no verb", verb)
		}
	}
	if !nestsAtMost(p.Hook, maxNesting) {
		return errNesting
	}
	switch t := p.TLSConfig; {
	case t == nil && p.ImplicitTLS:
		return errors.New("smtpproxy: Proxy.ImplicitTLS needs a TLSConfig")
	case t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil:
		return errors.New("smtpproxy: Proxy.TLSConfig has no certificate")
	}
	return nil
}

// config is a Proxy, copied once for all sessions of a listener.
type config struct {
	Proxy
	limits
	policy dialogue.Policy
	links  *links // of Hook
	// unchosen has no hook, for a connection for which HookFor is not asked yet.
	unchosen *links
	verbs    []string // Commands in upper case
	// afterSTARTTLS is TLSConfig as it is there.
	afterSTARTTLS *tls.Config
	log           *slog.Logger
	level         slog.Level // of what log gets, at least
	invalid       error      // what is wrong with it

	warned [warnings]atomic.Int32
	news   atomic.Bool // there are warnings to log
}

func (p *Proxy) config() *config {
	invalid := p.Validate()
	if p == nil {
		p = new(Proxy)
	}
	of, err := linksOf(p.Hook)
	if err != nil {
		// A session of one's own has no Accept that would tell.
		of, _ = linksOf(failing{err})
	}
	cfg := &config{
		Proxy: *p, links: of, unchosen: &links{probe: of.probe},
		limits: p.limits(), policy: p.policy(), invalid: invalid, log: p.Logger, level: slog.LevelDebug,
	}
	cfg.TLSKeywords = slices.Clone(p.TLSKeywords)
	cfg.Observers = slices.Clone(p.Observers)
	for _, v := range p.Commands {
		cfg.verbs = append(cfg.verbs, ascii.ToUpper(v))
	}
	if cfg.log == nil {
		cfg.log, cfg.level = slog.Default(), slog.LevelWarn
	}
	cfg.afterSTARTTLS = cfg.TLSConfig
	if cfg.TLSConfig != nil && !cfg.SessionTickets {
		cfg.afterSTARTTLS = withoutTickets(cfg.TLSConfig)
	}
	return cfg
}

// withoutTickets returns a copy of a configuration that sends no session tickets,
// whatever the configuration for a client is. Microsoft's Outlook breaks off where a
// server written in Go sends one after STARTTLS (golang/go#70232).
func withoutTickets(t *tls.Config) *tls.Config {
	t = t.Clone()
	t.SessionTicketsDisabled = true
	if forClient := t.GetConfigForClient; forClient != nil {
		t.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := forClient(hello)
			if own == nil || err != nil {
				return own, err
			}
			own = own.Clone()
			own.SessionTicketsDisabled = true
			return own, nil
		}
	}
	return t
}

// The defaults of those limits that keep memory safe, and end what has no end. The
// others are policy, and off.
const (
	defaultMaxLineLength  = 2048
	defaultMaxSASLLine    = 12288 // RFC 4954 section 4 finds it sufficient
	defaultMaxReplyLength = 64 << 10
	defaultMaxReadAhead   = 32 << 10
	defaultMaxSmallChunks = 1000
	defaultMaxRecipients  = 10_000
	defaultMaxErrors      = 10
)

// limits are those of a Proxy, with the defaults filled in.
type limits struct {
	line      int // octets, with the line end
	saslLine  int // likewise
	reply     int
	readAhead int
}

func (p *Proxy) limits() limits {
	return limits{
		line:      limit(p.MaxLineLength, defaultMaxLineLength),
		saslLine:  limit(p.MaxSASLLineLength, defaultMaxSASLLine) + len("\r\n"),
		reply:     limit(p.MaxReplyLength, defaultMaxReplyLength),
		readAhead: max(limit(p.MaxReadAhead, defaultMaxReadAhead), buffer.Small),
	}
}

// policy returns what a session's machine goes by.
func (p *Proxy) policy() dialogue.Policy {
	return dialogue.Policy{
		OffersTLS:   p.TLSConfig != nil,
		ProtectAUTH: !p.AllowInsecureAuth && (p.TLSConfig != nil || p.RequireTLSForAuth),
		SmallChunks: limit(p.MaxSmallChunks, defaultMaxSmallChunks),
		Recipients:  limit(p.MaxRecipients, defaultMaxRecipients),
		Commands:    limit(p.MaxCommands, dialogue.Unlimited),
		Errors:      limit(p.MaxErrors, defaultMaxErrors),
	}
}

// limit returns the value of a field: 0 is the default, negative is off.
func limit(field, byDefault int) int {
	switch {
	case field == 0:
		return byDefault
	case field < 0:
		return dialogue.Unlimited
	}
	return field
}

// lineLimit returns the longest line of a SASL exchange, or command, with its
// line end.
func (l *limits) lineLimit(sasl bool) int {
	if sasl {
		return l.saslLine
	}
	return l.line
}
