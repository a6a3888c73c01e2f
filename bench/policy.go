package main

import (
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// policyHooks are those of package hooks that look at each command, and decide by who the
// client is and what it says.
func policyHooks() []smtpproxy.Hook {
	return []smtpproxy.Hook{
		&hooks.RequireTLS{},
		hooks.AllowVerbs("HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "AUTH", "STARTTLS"),
		hooks.Answers{"HELP": {Code: 214}, "VRFY": {Code: 252}},
		&hooks.EarlyTalkers{},
		&hooks.CheckHELO{Own: []string{"mx.example"}},
		hooks.RequirePTR{},
		hooks.Strict{},
	}
}
