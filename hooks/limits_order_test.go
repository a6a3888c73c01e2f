package hooks_test

import (
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

func TestBeforeHooksThatRefuseALimitOfErrorsEndsAConnectionThatSendsNothingElse(t *testing.T) {
	limits := limitsOf(hooks.Limit{What: hooks.Errors, Max: 3})
	for _, refuses := range limitsRefusers() {
		say(t, limitsSession(limits, refuses.hook), refuses.codes+" 459", refuses.line, refuses.line, refuses.line, refuses.line)
	}
}

// limitsRefuser is a hook that refuses a line, three times with these codes.
type limitsRefuser struct {
	hook        smtpproxy.Hook
	line, codes string
}

func limitsRefusers() []limitsRefuser {
	return []limitsRefuser{
		{&hooks.RequireTLS{}, "AUTH PLAIN AGEAYg==", "523 523 523"},
		{hooks.AllowVerbs("EHLO"), "HELP", "502 502 502"},
		{hooks.Answers{"HELP": {Code: 550}}, "HELP", "550 550 550"},
		{hooks.Strict{}, mail, "503 503 503"},
	}
}
