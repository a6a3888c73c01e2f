package e2e

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has the names that dialogues use: of servers, and of the options of
// servers and of the proxy.

// dialogueServer is what plays the server.
type dialogueServer interface {
	Serve(net.Listener) error
	Close() error
	Commands() []string
	Messages() []servertest.Message
}

// go-smtp's LMTP is not for chunks of a message that doesn't come to its end: that
// is a data race within go-smtp v0.25.1.
var dialogueServers = map[string]func(...servertest.Option) *servertest.Server{
	"go-smtp":            servertest.GoSMTP,
	"go-smtp-lmtp":       func(o ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(false, o...) },
	"go-smtp-lmtp-early": func(o ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(true, o...) },
	"strict":             servertest.Strict,
	"strict-by-lines":    with(servertest.Strict, servertest.LineByLine()),
	"lenient":            servertest.Lenient,
	"reads-ahead":        servertest.RunAhead,
	"early":              func(o ...servertest.Option) *servertest.Server { return servertest.EarlyRefuser(10, o...) },
	"early-0":            func(o ...servertest.Option) *servertest.Server { return servertest.EarlyRefuser(0, o...) },

	"lmtp":     with(servertest.Lenient, servertest.LMTP()),
	"trims":    with(servertest.Lenient, servertest.TrimDot()),
	"unstuffs": with(servertest.Lenient, servertest.UnstuffDot()),
	// What servers do that people use, but for their limits.
	"mhale": with(servertest.Lenient, servertest.DotCRLF(), servertest.KeepEnvelope(), servertest.MailAnew()),
	"bradfitz": with(servertest.Lenient, servertest.DotCRLF(), servertest.KeepBuffer(), servertest.KeepEnvelope(),
		servertest.KeepOverHello(), servertest.GiveUp()),
	"chrj": with(servertest.Lenient, servertest.DropAtRefusedHello()),
}

// with returns a constructor of servers with more options.
func with(start func(...servertest.Option) *servertest.Server, more ...servertest.Option) func(...servertest.Option) *servertest.Server {
	return func(o ...servertest.Option) *servertest.Server { return start(slices.Concat(more, o)...) }
}

// serverOptions are for go-smtp's servers, the second half for the others.
var serverOptions = map[string]servertest.Option{
	"tls":              servertest.Configure(func(s *smtp.Server) { s.TLSConfig = serverTLS() }),
	"size":             servertest.Configure(func(s *smtp.Server) { s.MaxMessageBytes = 20 }),
	"size-of-3":        servertest.Configure(func(s *smtp.Server) { s.MaxMessageBytes = 3 }),
	"requiretls":       servertest.Configure(func(s *smtp.Server) { s.EnableREQUIRETLS = true }),
	"no-insecure-auth": servertest.Configure(func(s *smtp.Server) { s.AllowInsecureAuth = false }),
	"dsn":              servertest.Configure(func(s *smtp.Server) { s.EnableDSN = true }),
	"impatient":        servertest.Configure(func(s *smtp.Server) { s.WriteTimeout = 200 * time.Millisecond }),
	"patient":          servertest.ReadTimeout(24 * time.Hour),
	"failing":          servertest.Configure(func(s *smtp.Server) { s.Backend = failingBackend{s.Backend} }),

	// LMTP
	"tells-all-first":   tellFirst(unless("", nil)),
	"refuses-a-first":   tellFirst(unless("a@x", errNotHere)),
	"refuses-b-first":   tellFirst(unless("b@x", errNotHere)),
	"leaves-a-first":    tellFirst(unless("a@x", errLeaving)),
	"panics-in-content": panicIn(10),
	"panics-at-the-end": panicIn(-1),
	"leaves-a": lmtpData(func(x *lmtpSession, r io.Reader, status smtp.StatusCollector) error {
		err := x.Data(r)
		for _, to := range x.to {
			status.SetStatus(to, unless("a@x", errLeaving)(to))
		}
		return err
	}),

	"dot-crlf":              servertest.DotCRLF(),
	"trim-dot":              servertest.TrimDot(),
	"unstuff-dot":           servertest.UnstuffDot(),
	"lines-of-20":           servertest.LimitLines(20),
	"lines-of-100":          servertest.LimitLines(100),
	"read-on":               servertest.ReadOn(),
	"keep-buffer":           servertest.KeepBuffer(),
	"give-up":               servertest.GiveUp(),
	"keep-envelope":         servertest.KeepEnvelope(),
	"keep-over-hello":       servertest.KeepOverHello(),
	"drop-at-refused-hello": servertest.DropAtRefusedHello(),
	"mail-anew":             servertest.MailAnew(),
	"recipients-first":      servertest.RecipientsFirst(),
	"base-zero":             servertest.BDATBaseZero(),
	"answers-chunks-first":  servertest.AnswerChunksFirst(),
	"refuses-messages":      servertest.AnswerMessages("550 5.7.1 not this one"),
	"takes-in-its-words":    servertest.AnswerMessages("250 2.0.0 with pleasure"),
	"refuses-the-first":     servertest.RefuseFirst(1),
	"refuses-a":             servertest.Refuse("a@x"),
	"refuses-b":             servertest.Refuse("b@x"),
}

var proxyOptions = map[string]func(*smtpproxy.Proxy){
	"none":                func(*smtpproxy.Proxy) {},
	"tls":                 func(p *smtpproxy.Proxy) { p.TLSConfig = serverTLS() },
	"implicit-tls":        func(p *smtpproxy.Proxy) { p.TLSConfig, p.ImplicitTLS = serverTLS(), true },
	"insecure-auth":       func(p *smtpproxy.Proxy) { p.AllowInsecureAuth = true },
	"requiretls":          func(p *smtpproxy.Proxy) { p.TLSKeywords = []string{"REQUIRETLS"} },
	"no-bare-newlines":    func(p *smtpproxy.Proxy) { p.RejectBareNewlines = true },
	"four-commands":       func(p *smtpproxy.Proxy) { p.MaxCommands = 4 },
	"any-errors":          func(p *smtpproxy.Proxy) { p.MaxErrors = -1 },
	"a-minute-a-command":  func(p *smtpproxy.Proxy) { p.CommandTimeout = time.Minute },
	"a-kibibyte-a-second": func(p *smtpproxy.Proxy) { p.MinDataRate = 1 << 10 },
	"two-errors":          func(p *smtpproxy.Proxy) { p.MaxErrors = 2 },
	"sasl-line-of-20":     func(p *smtpproxy.Proxy) { p.MaxSASLLineLength, p.AllowInsecureAuth = 20, true },
	"reply-of-100":        func(p *smtpproxy.Proxy) { p.MaxReplyLength = 100 },
	"two-small-chunks":    func(p *smtpproxy.Proxy) { p.MaxSmallChunks = 2 },
	"read-ahead-of-one":   func(p *smtpproxy.Proxy) { p.MaxReadAhead = 1 },
	"lines-of-100":        func(p *smtpproxy.Proxy) { p.MaxTextLine = 100 },
	"require-tls-auth":    func(p *smtpproxy.Proxy) { p.RequireTLSForAuth = true },
	"two-recipients":      func(p *smtpproxy.Proxy) { p.MaxRecipients = 2 },
}

// startServer returns the server that is described by its name and options.
func startServer(t *testing.T, words []string) dialogueServer {
	t.Helper()
	start, ok := dialogueServers[words[0]]
	if !ok {
		t.Fatalf("unknown server %q", words[0])
	}
	var options []servertest.Option
	for _, w := range words[1:] {
		if serverOptions[w] == nil {
			t.Fatalf("unknown option %q of a server", w)
		}
		options = append(options, serverOptions[w])
	}
	return start(options...)
}

// setOptions gives the proxy the options that a line names.
func setOptions(t *testing.T, p *smtpproxy.Proxy, line string) {
	t.Helper()
	for _, w := range strings.Fields(line) {
		if proxyOptions[w] == nil {
			t.Fatalf("unknown option %q of the proxy", w)
		}
		proxyOptions[w](p)
	}
}
