package hooks

import (
	"regexp"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// Rewrite changes command lines by a table, as Postfix's smtpd_command_filter does, for
// clients that say what a server doesn't understand. The first rule that matches counts, and
// what it makes of a line isn't looked at again.
//
// A line is what the client, or the hooks before, make it: a rule whose expression has
// neither ^ nor $ may match in the middle of a name. Lines of a SASL exchange aren't
// touched.
type Rewrite []RewriteRule

// RewriteRule is a rule of a Rewrite.
type RewriteRule struct {
	// Verb is that of the commands that the rule is for, in any case; empty is every
	// line, also one without a verb.
	Verb string

	// Match is found in the line; nil is in every one. With the verb MAIL or RCPT, it is
	// looked for in what stands before the parameters: "RCPT TO:<bob@example.org>". (A
	// command that servers may read in different ways has no parameters here: see
	// StripParameters.)
	Match *regexp.Regexp

	// To takes the place of the whole line. $1 in it is what the first group has matched,
	// and $0 all that has (see regexp.Regexp.Expand). If that comes to nothing, the line stays
	// as it is. With the verb MAIL or RCPT, parameters stay behind it, if it has the
	// same verb. The result has to be a command: else it is a failure.
	To string
}

// whole matches all of a line.
var whole = regexp.MustCompile(`(?s)^.*$`)

// Command implements smtpproxy.Hook.
func (r Rewrite) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.SASL {
		return nil, nil
	}
	verb := cmd.Verb()
	for i := range r {
		rule := &r[i]
		line, params, match := cmd.Line, "", rule.Match
		if rule.Verb != "" {
			if !strings.EqualFold(rule.Verb, verb) {
				continue
			}
			if path, rest, ok := cutParameters(cmd); ok {
				line, params = path, rest
			}
		}
		if match == nil {
			match = whole
		}
		found := match.FindStringSubmatchIndex(line)
		if found == nil {
			continue
		}
		to := string(match.ExpandString(nil, rule.To, line, found))
		if to == "" {
			return nil, nil
		}
		if (smtpproxy.Command{Line: to}).Verb() == verb {
			to += params
		}
		return smtpproxy.Pass{Command: to}, nil
	}
	return nil, nil
}
