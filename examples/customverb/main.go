// Command customverb is a go-smtp server with verbs that go-smtp doesn't know: XPING, which
// a hook answers and announces in the reply to EHLO, and those of clients that speak German,
// which another hook translates.
//
//	go run ./examples/customverb
//
// It shows one session of a built-in client, then serves other clients until it is
// interrupted. The hook that translates stands first: so what it makes of a line is what the
// others see, and a ReplyHook translates what comes back, where that is allowed. What 354
// and the keywords of EHLO say is for programs, and stays.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// ping answers XPING.
func ping(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return smtpproxy.Reply{Lines: []string{strings.TrimSpace("pong " + cmd.Args())}}, nil // 250 2.0.0
}

// german is a hook for clients that speak German.
type german struct{}

// verbs are what such clients say: HALLO, POST VON:<a@example.org>, EMPFAENGER AN:<b@example.org>.
var verbs = map[string]string{
	"HALLO":      "EHLO",
	"POST":       "MAIL",
	"EMPFAENGER": "RCPT",
	"INHALT":     "DATA",
	"VERGISS":    "RSET",
	"KLINGEL":    "XPING",
	"TSCHUESS":   "QUIT",
}

var keywords = map[string]string{"VON": "FROM", "AN": "TO"}

var replies = map[int]string{
	221: "Auf Wiedersehen",
	250: "In Ordnung",
	500: "Unbekannter Befehl",
	501: "Unklare Angaben",
	502: "Befehl nicht vorhanden",
	503: "Falsche Reihenfolge",
	550: "Abgelehnt",
}

// speaker is what is remembered of a client.
type speaker struct{ german bool }

// Command implements smtpproxy.Hook: it translates commands.
func (german) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	verb, ok := verbs[cmd.Verb()]
	if !ok {
		return nil, nil
	}
	smtpproxy.State[speaker](ctx).german = true
	args := cmd.Args()
	if before, path, ok := strings.Cut(args, ":"); ok {
		if keyword, ok := keywords[strings.ToUpper(before)]; ok {
			args = keyword + ":" + path
		}
	}
	return smtpproxy.Pass{Command: strings.TrimSpace(verb + " " + args)}, nil
}

// Reply implements smtpproxy.ReplyHook: it translates replies.
func (german) Reply(ctx *smtpproxy.Context, x smtpproxy.Exchange) (smtpproxy.Decision, error) {
	text, ok := replies[x.Reply.Code]
	if !ok || x.By == smtpproxy.ByHook || !smtpproxy.State[speaker](ctx).german {
		return nil, nil
	}
	switch x.Passed.Verb() {
	case "HELO", "EHLO": // what the client does next hangs on it
		return nil, nil
	}
	return smtpproxy.Reply{Lines: []string{text}}, nil
}

var session = []demo.Step{
	{Send: "", Want: "220 "}, // the greeting comes by itself
	{Send: "HALLO client.example.org", Want: "250 XPING"},
	{Send: "KLINGEL 1", Want: "250 2.0.0 pong 1"},
	{Send: "POST VON:<sender@example.org>", Want: "250 2.0.0 In Ordnung"},
	{Send: "EMPFAENGER AN:<one@example.com>", Want: "250 2.0.0 In Ordnung"},
	{Send: "INHALT", Want: "354 "},
	{Send: "Subject: customverb\n\nHallo!\n.", Want: "250 2.0.0 In Ordnung"},
	{Send: "TSCHUESS", Want: "221 2.0.0 Auf Wiedersehen"},
}

func main() { demo.Main("customverb", run) }

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("customverb", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2527", "`address` to listen on; port 0 takes a free one")
	once := flags.Bool("once", false, "exit after the built-in client's session")
	flags.Parse(args)

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	out := log.New(stdout, "", 0) // one line at a time, from any goroutine
	out.Println("listening on", l.Addr())

	var mux smtpproxy.Mux
	mux.Extend("XPING", "XPING", smtpproxy.HookFunc(ping))
	p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(german{}, &mux)}
	server := demo.Server(out, func(c *smtp.Conn) string { return "greeted as " + c.Hostname() })
	serve := func() error { return gosmtp.Serve(server, l, p) }
	client := func() error { return demo.Play(ctx, l.Addr().String(), out, session...) }
	return demo.Run(ctx, l, server, serve, client, *once)
}
