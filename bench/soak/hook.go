package main

import (
	"fmt"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// hook is a realistic one: it passes most commands, changes some, answers some,
// keeps something for each connection, and fails at times.
type hook struct{ ledger *ledger }

// seen is what it keeps for a connection.
type seen struct{ commands int }

// Command implements smtpproxy.Hook.
func (h hook) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	s := smtpproxy.State[seen](ctx)
	s.commands++
	if strings.Contains(cmd.Line, evilDomain) {
		h.ledger.sawEvil("the hook got " + cmd.String())
	}
	switch cmd.Verb() {
	case "RCPT":
		path := cmd.Args()
		switch {
		case strings.HasPrefix(path, "TO:<barred"):
			return smtpproxy.Reply{Code: 554, Lines: []string{"barred: " + path}}, nil
		case strings.HasSuffix(path, "@old.example>"):
			return smtpproxy.Pass{Command: strings.Replace(cmd.Line, "@old.example>", domain+">", 1)}, nil
		}
	case "XNOOP":
		return smtpproxy.Pass{Command: "NOOP"}, nil
	case "XECHO":
		return smtpproxy.Reply{Lines: []string{"echo " + cmd.Args()}}, nil
	case "XCOUNT":
		return smtpproxy.Reply{Lines: []string{fmt.Sprint("count ", s.commands)}}, nil
	case "XPANIC":
		panic("as asked for")
	case "XHANG":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, nil
}
