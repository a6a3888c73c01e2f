package e2e

import (
	"runtime"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file has the rows of the table of ends_test.go.

const (
	toHello = "EHLO x\r\n"
	toMail  = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
)

// behind returns the turns of a client up to the last line, or what else it sends,
// which is to have so many replies.
func behind(before, last string, replies int) []turn {
	turns := []turn{{send: "", replies: 1}}
	for line := range strings.Lines(before) {
		turns = append(turns, turn{send: line, replies: 1})
	}
	return append(turns, turn{send: last, replies: replies})
}

// toHelp is a Proxy whose hook does something at HELP, and wants to see all else.
func toHelp(act func(ctx *hookContext) (decision, error)) func() *smtpproxy.Proxy {
	return func() *smtpproxy.Proxy {
		return &smtpproxy.Proxy{Hook: decideIn(func(ctx *hookContext, cmd command) (decision, error) {
			if cmd.Verb() == "HELP" {
				return act(ctx)
			}
			return pass{Next: true}, nil
		})}
	}
}

// decides is toHelp for a decision.
func decides(d decision) func() *smtpproxy.Proxy {
	return toHelp(func(*hookContext) (decision, error) { return d, nil })
}

func proxyOf(p smtpproxy.Proxy) func() *smtpproxy.Proxy { return func() *smtpproxy.Proxy { return &p } }

// answersSASL is a Proxy whose hook answers lines of a SASL exchange.
func answersSASL(d decision) func() *smtpproxy.Proxy {
	return proxyOf(smtpproxy.Proxy{Hook: decide(func(cmd command) (decision, error) {
		switch {
		case cmd.SASL:
			return d, nil
		case cmd.Line == "AUTH OWN":
			return reply{Code: 334}, nil
		}
		return pass{Next: true}, nil
	})})
}

// bareRefused, and longRefused, refuse messages for their content.
var (
	bareRefused = proxyOf(smtpproxy.Proxy{RejectBareNewlines: true, MinDataRate: 1})
	longRefused = proxyOf(smtpproxy.Proxy{MaxTextLine: 10})
	chunkFailed = proxyOf(smtpproxy.Proxy{Hook: atChunks(reply{Code: 450}, nil), MinDataRate: 1})
)

// readsBeside is a server that reads on another goroutine while it writes. what is what
// it does when it has answered EHLO.
func readsBeside(what func(h *endHost)) func(h *endHost) {
	return func(h *endHost) {
		h.say("220 x\r\n")
		h.line()
		read := make(chan struct{})
		go func() {
			defer close(read)
			h.readOn(1)
		}()
		h.say("250 x\r\n")
		time.Sleep(time.Second) // in a bubble: the Read waits for the client
		what(h)
		<-read
	}
}

// whileItReads does something while a Read of the server's is under way.
func whileItReads(what func(h *endHost)) func(h *endHost) {
	return func(h *endHost) {
		read := make(chan struct{})
		go func() {
			defer close(read)
			h.readOn(1)
		}()
		time.Sleep(10 * time.Second) // in a bubble
		what(h)
		<-read
	}
}

// closesIn is a server that is closed while it is at something.
func closesIn(at func(h *endHost)) func(h *endHost) {
	return func(h *endHost) {
		time.AfterFunc(time.Minute, func() { h.Close() }) // in a bubble
		at(h)
	}
}

// upTo is a server that behaves well up to a line, and then does something.
func upTo(verb string, what func(h *endHost)) func(h *endHost) {
	return func(h *endHost) {
		h.say("220 x\r\n")
		for {
			line, ok := h.line()
			switch {
			case !ok:
				return
			case command{Line: line}.Verb() == verb:
				what(h)
				return
			}
			h.execute(line)
		}
	}
}

// inContent is a server that has something to say in message content.
func inContent(what func(h *endHost)) func(h *endHost) {
	return upTo("DATA", func(h *endHost) {
		h.say("354 x\r\n")
		what(h)
	})
}

func sayOnce(text string) func(h *endHost) { return func(h *endHost) { h.say(text) } }

// The ways in which a client leaves.
var (
	closesItsSide = func(c clientEnd) { c.CloseWrite() }
	isReset       = clientEnd.reset
	stopsReading  = func(c clientEnd) { c.Close() }
)

var finales = []finale{
	// The hook.
	{why: "the hook answers 421", proxy: decides(reply{Code: 421}), turns: behind(toHello, "HELP\r\n", 1),
		codes: "220 250 421", got: toHello, lingers: lingers},
	{why: "the hook answers 221", proxy: decides(reply{Code: 221}), turns: behind(toHello, "HELP\r\n", 1),
		codes: "220 250 221", got: toHello, lingers: lingers},
	{why: "the hook disconnects", proxy: decides(reply{Code: 550, Disconnect: true}), turns: behind(toHello, "HELP\r\n", 1),
		codes: "220 250 550", got: toHello, lingers: lingers},
	{why: "the hook fails", proxy: toHelp(func(*hookContext) (decision, error) { return nil, errTest }), turns: behind(toHello, "HELP\r\n", 1),
		codes: "220 250 421", got: toHello, lingers: lingers},
	{why: "the hook panics", proxy: toHelp(func(*hookContext) (decision, error) { panic("no") }), turns: behind(toHello, "HELP\r\n", 1),
		codes: "220 250 421", got: toHello, lingers: lingers},
	{why: "the hook ends its goroutine", proxy: toHelp(func(*hookContext) (decision, error) { runtime.Goexit(); return nil, nil }),
		turns: behind(toHello, "HELP\r\n", 1), codes: "220 250 421", got: toHello},
	{why: "the hook's decision is invalid", proxy: decides(reply{Code: 99}), turns: behind(toHello, "HELP\r\n", 1),
		codes: "220 250 421", got: toHello, lingers: lingers},
	{why: "the hook takes too long", turns: behind(toHello, "HELP\r\n", 1), after: time.Minute,
		proxy: func() *smtpproxy.Proxy {
			p := toHelp(func(ctx *hookContext) (decision, error) { <-ctx.Done(); return nil, nil })()
			p.HookTimeout = time.Minute
			return p
		},
		codes: "220 250 421", got: toHello, lingers: lingers},
	{why: "the hook fails, and OnFailure disconnects", turns: behind(toHello, "HELP\r\n", 1),
		proxy: func() *smtpproxy.Proxy {
			p := toHelp(func(*hookContext) (decision, error) { return nil, errTest })()
			p.OnFailure = func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 451, Disconnect: true} }
			return p
		},
		codes: "220 250 451", got: toHello, lingers: lingers},
	{why: "the hook answers 421 to the first command", proxy: decides(reply{Code: 421}), turns: behind("", "HELP\r\n", 1),
		codes: "220 421", lingers: lingers},
	{why: "the hook answers 421 behind replies that are held", proxy: decides(reply{Code: 421}), turns: behind(toHello, toMail+"HELP\r\n", 3),
		codes: "220 250 250 250 421", got: toHello + toMail, lingers: lingers},
	{why: "the hook answers 421 to a chunk", proxy: proxyOf(smtpproxy.Proxy{Hook: atChunks(reply{Code: 421}, nil)}),
		turns: behind(toHello+toMail, "BDAT 9\r\n123456789", 1), codes: "220 250 250 250 421", got: toHello + toMail, lingers: lingers},
	{why: "the hook answers 421 to a line of the server's exchange", proxy: answersSASL(reply{Code: 421}),
		turns: behind(toHello+"AUTH PLAIN\r\n", "eA==\r\n", 1), codes: "220 250 334 421", got: toHello + "AUTH PLAIN\r\n", lingers: lingers},
	{why: "the hook answers 421 to a line of its own exchange", proxy: answersSASL(reply{Code: 421}),
		turns: behind(toHello+"AUTH OWN\r\n", "eA==\r\n", 1), codes: "220 250 334 421", got: toHello, lingers: lingers},

	// Limits.
	{why: "a line is too long", proxy: proxyOf(smtpproxy.Proxy{MaxLineLength: 20}), turns: behind(toHello, "NOOP 0123456789012345", 1),
		codes: "220 250 500", got: toHello, log: "line too long", lingers: lingers},
	{why: "a line of a SASL exchange is too long", proxy: proxyOf(smtpproxy.Proxy{MaxSASLLineLength: 20}),
		turns: behind(toHello+"AUTH PLAIN\r\n", strings.Repeat("A", 30), 1),
		codes: "220 250 334 500", got: toHello + "AUTH PLAIN\r\n", log: "line too long", lingers: lingers},
	{why: "a command is too slow", proxy: proxyOf(smtpproxy.Proxy{CommandTimeout: time.Minute}), turns: behind(toHello, "NOO", 1),
		codes: "220 250 421", got: toHello, log: "client too slow", after: time.Minute, alone: true, lingers: lingers},
	// A Read of content that is too slow returns before the library reads on.
	{why: "content is too slow", proxy: proxyOf(smtpproxy.Proxy{MinDataRate: 1}), turns: behind(toHello+toMail+"DATA\r\n", "x\r\n", 1),
		codes: "220 250 250 250 354 421", got: toHello + toMail + "DATA\r\nx\r\n", log: "client too slow", after: 30 * time.Second, alone: true, knows: true, lingers: lingers},
	{why: "a chunk is too slow", proxy: proxyOf(smtpproxy.Proxy{MinDataRate: 1}), turns: behind(toHello+toMail, "BDAT 9\r\nx", 1),
		codes: "220 250 250 250 421", got: toHello + toMail + "BDAT 9\r\nx", log: "client too slow", after: 30 * time.Second, alone: true, knows: true, lingers: lingers},
	{why: "a chunk that the hook has refused is too slow", proxy: chunkFailed, turns: behind(toHello+toMail, "BDAT 9\r\nx", 1),
		codes: "220 250 250 250 421", got: toHello + toMail, log: "client too slow", after: 30 * time.Second, alone: true, lingers: lingers},
	{why: "the rest of a message with a bare LF is too slow", proxy: bareRefused, turns: behind(toHello+toMail+"DATA\r\n", "a\nb", 1),
		codes: "220 250 250 250 354 421", got: toHello + toMail + "DATA\r\n", log: "client too slow", after: 30 * time.Second, alone: true, knows: true, lingers: lingers},
	{why: "too many errors", proxy: proxyOf(smtpproxy.Proxy{MaxErrors: 1}), turns: behind(toHello, "1\r\n2\r\n", 2),
		codes: "220 250 500 421", got: toHello, log: "too many commands, errors or chunks", lingers: lingers},
	{why: "too many commands", proxy: proxyOf(smtpproxy.Proxy{MaxCommands: 1}), turns: behind(toHello, "NOOP\r\n", 1),
		codes: "220 250 421", got: toHello, log: "too many commands, errors or chunks", lingers: lingers},
	{why: "too many chunks", proxy: proxyOf(smtpproxy.Proxy{MaxSmallChunks: 1}), turns: behind(toHello+toMail, "BDAT 1\r\nxBDAT 1\r\nx", 2),
		codes: "220 250 250 250 250 421", got: toHello + toMail + "BDAT 1\r\nx", log: "too many commands, errors or chunks", lingers: lingers},
	{why: "a chunk of unknown size", turns: behind(toHello+toMail, "BDAT 99999999999999999999\r\n", 1),
		codes: "220 250 250 250 501", got: toHello + toMail, log: "chunk of unknown size", lingers: lingers},
	{why: "HTTP", turns: behind("", "POST / HTTP/1.1\r\n", 1), codes: "220 502", log: "HTTP", lingers: lingers},
	{why: "TLS without STARTTLS", turns: behind(toHello, "\x16\x03\x01", 1),
		codes: "220 250 554", got: toHello, log: "TLS without STARTTLS", lingers: lingers},
	{why: "input behind STARTTLS", proxy: func() *smtpproxy.Proxy { return &smtpproxy.Proxy{TLSConfig: serverTLS()} },
		turns: behind(toHello, "STARTTLS\r\nNOOP\r\n", 1), codes: "220 250 503", got: toHello, log: "input behind STARTTLS", lingers: lingers},
	{why: "a response to an exchange that the server may have given up", turns: behind(toHello+"AUTH PLAIN\r\n", "eA==\r\n", 1),
		serve: upTo("AUTH", func(h *endHost) {
			h.SetReadDeadline(time.Now().Add(-time.Second))
			h.say("334 \r\n")
			h.r.ReadByte()
			h.SetReadDeadline(time.Time{})
			h.readErr = nil // that one was the deadline's
			h.readOn(1)
		}),
		codes: "220 250 334 421", got: toHello + "AUTH PLAIN\r\n", log: "response in a SASL exchange that the server may have given up", lingers: lingers},

	// Messages that are refused.
	{why: "a bare LF in content", proxy: bareRefused, turns: behind(toHello+toMail+"DATA\r\n", "x\r\na\nb\r\n.\r\n", 1),
		codes: "220 250 250 250 354 550", got: toHello + toMail + "DATA\r\nx\r\n", log: "bare CR or LF in a message", lingers: lingers},
	{why: "a bare LF in a chunk", proxy: bareRefused, turns: behind(toHello+toMail, "BDAT 3 LAST\r\na\nb", 1),
		codes: "220 250 250 250 550", got: toHello + toMail + "BDAT 3 LAST\r\n", log: "bare CR or LF in a message", lingers: lingers},
	{why: "a line of content is too long", proxy: longRefused, turns: behind(toHello+toMail+"DATA\r\n", "0123456789\r\n.\r\n", 1),
		codes: "220 250 250 250 354 550", got: toHello + toMail + "DATA\r\n", log: "line of a message too long", lingers: lingers},
	{why: "the server refuses content before its end", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n", 1),
		serve: inContent(func(h *endHost) { h.line(); h.say("552 x\r\n") }),
		codes: "220 250 250 250 354 552", got: toHello + toMail + "DATA\r\nx\r\n", log: "message refused before its end", lingers: drains, open: true, refused: true, knows: true},
	{why: "the server refuses what may be the end of content", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n.\n", 1),
		serve: inContent(func(h *endHost) { h.line(); h.line(); h.say("554 x\r\n") }),
		codes: "220 250 250 250 354 554", got: toHello + toMail + "DATA\r\nx\r\n.\n", log: "message refused before its end", lingers: drains, open: true, refused: true, knows: true},
	{why: "the server refuses a chunk before it reads it", turns: behind(toHello+toMail, "BDAT 9\r\n123456789", 1), serve: upTo("BDAT", sayOnce("552 x\r\n")),
		codes: "220 250 250 250 552", got: toHello + toMail + "BDAT 9\r\n", log: "message refused before its end", lingers: drains, open: true, refused: true, knows: true},
	{why: "an ambiguous end of content that the server has taken", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n\n.\n", 1),
		serve: inContent(func(h *endHost) { h.line(); h.say("250 x\r\n"); h.line(); h.readOn(1) }),
		codes: "220 250 250 250 354 421", got: toHello + toMail + "DATA\r\nx\r\n\n", log: "ambiguous end of a message that is replied to", lingers: lingers},

	// Replies that fit nothing.
	{why: "two replies in one", turns: behind(toHello, "NOOP\r\n", 2), answers: map[string]string{"NOOP": "250 x\r\n250 y\r\n"},
		codes: "220 250 250 421", got: toHello + "NOOP\r\n", log: "reply that fits no command", lingers: lingers, knows: true},
	{why: "a reply behind the reply", turns: behind(toHello, "NOOP\r\n", 2), serve: upTo("NOOP", func(h *endHost) { h.say("250 x\r\n"); h.say("250 y\r\n") }),
		codes: "220 250 250 421", got: toHello + "NOOP\r\n", log: "reply that fits no command", lingers: lingers, knows: true},
	{why: "354 to NOOP", turns: behind(toHello, "NOOP\r\n", 1), answers: map[string]string{"NOOP": "354 x\r\n"},
		codes: "220 250 421", got: toHello + "NOOP\r\n", log: "reply that fits no command", lingers: lingers, knows: true},
	{why: "nonsense for a reply", turns: behind(toHello, "NOOP\r\n", 1), answers: map[string]string{"NOOP": "nonsense\r\n"},
		codes: "220 250 421", got: toHello + "NOOP\r\n", log: "malformed reply from the server", lingers: lingers, knows: true},
	{why: "half a reply, then nonsense", turns: behind(toHello, "NOOP\r\n", 1), serve: upTo("NOOP", func(h *endHost) { h.say("250-x\r\n"); h.say("nonsense\r\n") }),
		codes: "220 250 421", got: toHello + "NOOP\r\n", log: "malformed reply from the server", lingers: lingers, knows: true},
	{why: "a reply too long", proxy: proxyOf(smtpproxy.Proxy{MaxReplyLength: 100}), turns: behind(toHello, "NOOP\r\n", 1),
		answers: map[string]string{"NOOP": strings.Repeat("250-x\r\n", 20)},
		codes:   "220 250 421", got: toHello + "NOOP\r\n", log: "malformed reply from the server", lingers: lingers, knows: true},
	{why: "a chunk is taken before it is read", turns: behind(toHello+toMail, "BDAT 9\r\n123456789", 1), serve: upTo("BDAT", sayOnce("250 x\r\n")),
		codes: "220 250 250 250 421", got: toHello + toMail + "BDAT 9\r\n", log: "reply that fits no command", lingers: lingers, knows: true},
	{why: "a reply that fits nothing, while a Read waits", turns: behind("", toHello, 2), serve: readsBeside(sayOnce("250 x\r\n")),
		codes: "220 250 421", got: toHello, log: "reply that fits no command", alone: true, after: time.Second, lingers: lingers},
	{why: "nonsense, while a Read waits", turns: behind("", toHello, 2), serve: readsBeside(sayOnce("nonsense\r\n")),
		codes: "220 250 421", got: toHello, log: "malformed reply from the server", alone: true, after: time.Second, lingers: lingers},
	{why: "a reply that fits nothing, when the server's time to write is over", turns: behind("", toHello, 2), serve: upTo("EHLO", func(h *endHost) {
		h.SetWriteDeadline(time.Now().Add(time.Second))
		h.say("250 x\r\n")
		time.Sleep(time.Minute) // in a bubble
		h.say("250 x\r\n")
	}), codes: "220 250 421", got: toHello, log: "reply that fits no command", after: time.Minute, lingers: lingers, knows: true},
	{why: "nonsense, while a Read waits for a reply and the client has gone", turns: behind(toHello, "NOOP\r\nNOOP\r\n", 0), leave: closesItsSide,
		serve: upTo("NOOP", whileItReads(sayOnce("nonsense\r\n"))), after: 10 * time.Second,
		codes: "220 250 421", got: toHello + "NOOP\r\n", log: "malformed reply from the server", lingers: lingers},
	{why: "nonsense, while the rest of a message with a bare LF is dropped", turns: behind(toHello+toMail+"DATA\r\n", "a\nb", 1),
		proxy: proxyOf(smtpproxy.Proxy{RejectBareNewlines: true}), serve: inContent(whileItReads(sayOnce("nonsense\r\n"))), after: 10 * time.Second,
		codes: "220 250 250 250 354 421", got: toHello + toMail + "DATA\r\n", log: "malformed reply from the server", alone: true, lingers: lingers},
	{why: "nonsense, while a chunk that the hook has refused is dropped", turns: behind(toHello+"MAIL FROM:<a@b>\r\n", "BDAT 9\r\nx", 1),
		proxy: proxyOf(smtpproxy.Proxy{Hook: atChunks(reply{Code: 450}, nil)}),
		serve: upTo("MAIL", func(h *endHost) { h.say("250 x\r\n"); whileItReads(sayOnce("nonsense\r\n"))(h) }), after: 10 * time.Second,
		codes: "220 250 250 421", got: toHello + "MAIL FROM:<a@b>\r\n", log: "malformed reply from the server", alone: true, lingers: lingers},

	// The server leaves.
	{why: "QUIT", turns: behind(toHello, "QUIT\r\n", 1), codes: "220 250 221", got: toHello + "QUIT\r\n"},
	{why: "QUIT in a transaction", turns: behind(toHello+toMail, "QUIT\r\n", 1), codes: "220 250 250 250 221", got: toHello + toMail + "QUIT\r\n"},
	{why: "the server answers 421", turns: behind(toHello, "NOOP\r\n", 1), answers: map[string]string{"NOOP": "421 x\r\n"},
		codes: "220 250 421", got: toHello + "NOOP\r\n"},
	{why: "the server answers 421 behind replies that are held", turns: behind(toHello, toMail+"NOOP\r\n", 3), answers: map[string]string{"NOOP": "421 x\r\n"},
		codes: "220 250 250 250 421", got: toHello + toMail + "NOOP\r\n"},
	{why: "the server answers 421 to DATA", turns: behind(toHello+toMail, "DATA\r\n", 1), answers: map[string]string{"DATA": "421 x\r\n"},
		codes: "220 250 250 250 421", got: toHello + toMail + "DATA\r\n"},
	{why: "the server answers 421 to a message", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n.\r\n", 1), answers: map[string]string{".": "421 x\r\n"},
		codes: "220 250 250 250 354 421", got: toHello + toMail + "DATA\r\nx\r\n.\r\n"},
	{why: "the server answers 421 to a chunk", turns: behind(toHello+toMail, "BDAT 1\r\nx", 1), answers: map[string]string{"BDAT": "421 x\r\n"},
		codes: "220 250 250 250 421", got: toHello + toMail + "BDAT 1\r\nx"},
	{why: "the server answers 421 in a SASL exchange", turns: behind(toHello+"AUTH PLAIN\r\n", "eA==\r\n", 1), answers: map[string]string{"=": "421 x\r\n"},
		codes: "220 250 334 421", got: toHello + "AUTH PLAIN\r\neA==\r\n"},
	{why: "the server leaves before it reads", turns: behind("", toHello, 2), serve: upTo("EHLO", func(h *endHost) { h.say("250 x\r\n"); h.say("421 x\r\n") }),
		codes: "220 250 421", got: toHello},
	{why: "the server leaves while a Read waits", turns: behind("", toHello, 2), serve: readsBeside(func(h *endHost) { h.say("421 x\r\n"); h.Close() }),
		codes: "220 250 421", got: toHello, alone: true, after: time.Second},
	{why: "the server greets with 421", turns: behind("", "", 0), answers: map[string]string{"": "421 x\r\n"}, codes: "421", got: ""},
	{why: "the server greets with 554, and waits for QUIT", turns: behind("", "QUIT\r\n", 1), answers: map[string]string{"": "554 x\r\n"},
		codes: "554 221", got: "QUIT\r\n"},

	// The server is closed.
	{why: "the server is closed while it waits for the greeting to be sent", turns: behind("", "", 0), serve: func(h *endHost) { h.Close() }, codes: ""},
	{why: "the server is closed while it waits for a command", turns: behind(toHello, "", 1), serve: closesIn((*endHost).goOn),
		codes: "220 250", got: toHello, alone: true, after: time.Minute},
	{why: "the server is closed while it waits for the rest of a line", turns: behind(toHello, "NOO", 1), serve: closesIn((*endHost).goOn),
		codes: "220 250", got: toHello, alone: true, after: time.Minute},
	{why: "the server is closed in content", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n", 1), serve: closesIn((*endHost).goOn),
		codes: "220 250 250 250 354", got: toHello + toMail + "DATA\r\nx\r\n", alone: true, after: time.Minute},
	{why: "the server is closed in a chunk", turns: behind(toHello+toMail, "BDAT 9\r\nx", 1), serve: closesIn((*endHost).goOn),
		codes: "220 250 250 250", got: toHello + toMail + "BDAT 9\r\nx", alone: true, after: time.Minute},
	{why: "the server is closed in a chunk that the hook has refused", turns: behind(toHello+toMail, "BDAT 9\r\nx", 1),
		proxy: proxyOf(smtpproxy.Proxy{Hook: atChunks(reply{Code: 450}, nil)}), serve: closesIn((*endHost).goOn),
		codes: "220 250 250 250", got: toHello + toMail, alone: true, after: time.Minute},
	{why: "the server is closed in the rest of a message with a bare LF", turns: behind(toHello+toMail+"DATA\r\n", "a\nb", 1),
		proxy: proxyOf(smtpproxy.Proxy{RejectBareNewlines: true}), serve: closesIn((*endHost).goOn),
		codes: "220 250 250 250 354", got: toHello + toMail + "DATA\r\n", alone: true, after: time.Minute},
	{why: "the server is closed in the rest of a message that it has refused", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n", 1),
		serve: inContent(func(h *endHost) {
			h.line()
			h.say("552 x\r\n")
			time.AfterFunc(time.Second, func() { h.Close() }) // in a bubble
			h.readOn(1)
		}),
		codes: "220 250 250 250 354 552", got: toHello + toMail + "DATA\r\nx\r\n", log: "message refused before its end", alone: true},
	{why: "the server is closed while the hook runs", turns: behind(toHello, "HELP\r\n", 1),
		proxy: toHelp(func(ctx *hookContext) (decision, error) { <-ctx.Done(); return pass{}, nil }), serve: closesIn((*endHost).goOn),
		codes: "220 250", got: toHello, after: time.Minute},
	{why: "the server is closed while the hook runs, and answers", turns: behind(toHello, "HELP\r\n", 1),
		proxy: toHelp(func(ctx *hookContext) (decision, error) { <-ctx.Done(); return reply{}, nil }), serve: closesIn((*endHost).goOn),
		codes: "220 250", got: toHello, after: time.Minute},
	{why: "the server is closed while a reply is due", turns: behind(toHello, "NOOP\r\n", 1),
		serve: upTo("NOOP", closesIn(func(h *endHost) { h.readOn(1) })),
		codes: "220 250", got: toHello + "NOOP\r\n", after: time.Minute},
	{why: "the server is closed while a reply is due, and the client has gone", turns: behind(toHello, "NOOP\r\nNOOP\r\n", 0), leave: closesItsSide,
		serve: upTo("NOOP", whileItReads(func(h *endHost) { h.Close() })), codes: "220 250", got: toHello + "NOOP\r\n"},
	{why: "the server is closed while a reply is held", turns: behind(toHello, toMail, 1),
		serve: upTo("MAIL", func(h *endHost) { h.say("250 x\r\n"); h.Close() }), codes: "220 250 250", got: toHello + "MAIL FROM:<a@b>\r\n"},

	// The client leaves.
	{why: "the client ends before it is greeted", turns: []turn{{}}, leave: closesItsSide, codes: "220", open: true},
	{why: "the client ends", turns: behind("", toHello, 1), leave: closesItsSide, codes: "220 250", got: toHello, open: true},
	{why: "the client ends in a line", turns: behind(toHello, "NOOP", 0), leave: closesItsSide, codes: "220 250", got: toHello, open: true},
	{why: "the client ends in content", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n", 0), leave: closesItsSide,
		codes: "220 250 250 250 354", got: toHello + toMail + "DATA\r\nx\r\n", open: true},
	{why: "the client ends in a chunk", turns: behind(toHello+toMail, "BDAT 9\r\nx", 0), leave: closesItsSide,
		codes: "220 250 250 250", got: toHello + toMail + "BDAT 9\r\nx", open: true},
	{why: "the client ends in a SASL exchange", turns: behind(toHello, "AUTH PLAIN\r\n", 1), leave: closesItsSide,
		codes: "220 250 334", got: toHello + "AUTH PLAIN\r\n", open: true},
	{why: "the client ends in a chunk that the hook has refused", proxy: proxyOf(smtpproxy.Proxy{Hook: atChunks(reply{Code: 450}, nil)}),
		turns: behind(toHello+toMail, "BDAT 9\r\nx", 0), leave: closesItsSide, codes: "220 250 250 250", got: toHello + toMail, open: true},
	{why: "the client ends in the rest of a message with a bare LF", proxy: bareRefused, turns: behind(toHello+toMail+"DATA\r\n", "a\nb", 0), leave: closesItsSide,
		codes: "220 250 250 250 354", got: toHello + toMail + "DATA\r\n", open: true},
	{why: "the client ends in the rest of a chunk with a bare LF", proxy: bareRefused, turns: behind(toHello+toMail, "BDAT 9\r\na\nb", 0), leave: closesItsSide,
		codes: "220 250 250 250", got: toHello + toMail + "BDAT 9\r\n", open: true},
	{why: "the client ends in the rest of a message that the server has refused", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n", 1), leave: closesItsSide,
		serve: inContent(func(h *endHost) { h.line(); h.say("552 x\r\n"); h.readOn(1) }),
		codes: "220 250 250 250 354 552", got: toHello + toMail + "DATA\r\nx\r\n", log: "message refused before its end", lingers: drains},
	{why: "the client ends while the hook runs", proxy: toHelp(func(*hookContext) (decision, error) {
		time.Sleep(time.Minute) // in a bubble
		return reply{Code: 214}, nil
	}), turns: behind(toHello, "HELP\r\n", 0), leave: closesItsSide, codes: "220 250 214", got: toHello, open: true},
	{why: "the client ends while the hook runs, and disconnects", proxy: toHelp(func(*hookContext) (decision, error) {
		time.Sleep(time.Minute) // in a bubble
		return reply{Code: 421}, nil
	}), turns: behind(toHello, "HELP\r\n", 0), leave: closesItsSide, codes: "220 250 421", got: toHello, after: time.Minute, lingers: lingers},
	{why: "the client ends while a reply is due, and a Read waits", turns: behind(toHello, "NOOP\r\n", 0), leave: closesItsSide,
		serve: upTo("NOOP", func(h *endHost) { h.readOn(1); h.say("250 x\r\n") }), codes: "220 250 250", got: toHello + "NOOP\r\n", open: true},
	{why: "the client ends in its handshake", proxy: func() *smtpproxy.Proxy { return &smtpproxy.Proxy{TLSConfig: serverTLS()} },
		turns: behind(toHello, "STARTTLS\r\n", 1), leave: closesItsSide, codes: "220 250 220", got: toHello, lingers: atOnce},
	{why: "the client speaks SMTP where TLS is expected", proxy: func() *smtpproxy.Proxy { return &smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true} },
		turns: []turn{{send: toHello, replies: 1}}, codes: "554", lingers: atOnce},
	{why: "the client ends where TLS is expected", proxy: func() *smtpproxy.Proxy { return &smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true} },
		turns: []turn{{}}, leave: closesItsSide, lingers: atOnce},
	{why: "the client is reset", turns: behind("", toHello, 1), leave: isReset, codes: "220 250", got: toHello, open: true},
	{why: "the client is reset in content", turns: behind(toHello+toMail+"DATA\r\n", "x\r\n", 0), leave: isReset,
		codes: "220 250 250 250 354", got: toHello + toMail + "DATA\r\nx\r\n", open: true},
	{why: "the client is reset in a chunk", turns: behind(toHello+toMail, "BDAT 9\r\nx", 0), leave: isReset,
		codes: "220 250 250 250", got: toHello + toMail + "BDAT 9\r\nx", open: true},
	{why: "the client is reset in the rest of a message with a bare LF", proxy: bareRefused, turns: behind(toHello+toMail+"DATA\r\n", "a\nb", 0), leave: isReset,
		codes: "220 250 250 250 354", got: toHello + toMail + "DATA\r\n", open: true},
	{why: "the client is reset while the hook runs", proxy: toHelp(func(*hookContext) (decision, error) {
		time.Sleep(time.Minute) // in a bubble
		return reply{Code: 214}, nil
	}), turns: behind(toHello, "HELP\r\n", 0), leave: isReset, codes: "220 250 214", got: toHello, after: time.Minute, lingers: lingers},
	{why: "the client closes", turns: behind("", toHello, 1), leave: stopsReading, codes: "220 250", got: toHello, open: true},
	{why: "the client closes while its command is executed", turns: behind(toHello, "NOOP\r\n", 0), leave: stopsReading,
		serve: upTo("NOOP", func(h *endHost) {
			time.Sleep(time.Minute) // in a bubble
			h.say("250 x\r\n")
		}), codes: "220 250 250", got: toHello + "NOOP\r\n", after: time.Minute, knows: true, lingers: lingers},

	// Nothing gets to the client any more.
	{why: "a reply can't be sent", turns: behind("", toHello, 0), serve: upTo("EHLO", func(h *endHost) {
		h.raw.cutWrites()
		h.say("250 x\r\n")
	}), codes: "220", got: toHello, knows: true, lingers: lingers, silent: true},
	{why: "the hook's reply can't be sent", turns: behind(toHello, "HELP\r\n", 0), proxy: decides(reply{Code: 214}),
		serve: upTo("EHLO", func(h *endHost) {
			h.say("250 x\r\n")
			h.raw.cutWrites()
			h.readOn(1)
		}), codes: "220 250", got: toHello, lingers: lingers, silent: true},
}
