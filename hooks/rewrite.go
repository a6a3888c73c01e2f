package hooks

import (
	"regexp"

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
	// Verb is that of the commands that the rule is for, in upper case; empty is every
	// line, also one without a verb.
	Verb string

	// Match is found in the line. With the verb MAIL or RCPT, it is looked for in what
	// stands before the parameters, which stay: "RCPT TO:<bob@example.org>". (A command that
	// servers may read in different ways has no parameters here.)
	Match *regexp.Regexp

	// To takes the place of the whole line, but for parameters that stay. $1 in it is what
	// the first group has matched (see regexp.Regexp.Expand). If that comes to nothing, the
	// line stays as it is. The result has to be a command: else it is a failure.
	To string
}

// Command implements smtpproxy.Hook.
func (r Rewrite) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.SASL {
		return nil, nil
	}
	verb := cmd.Verb()
	for i := range r {
		rule := &r[i]
		if rule.Verb != "" && rule.Verb != verb {
			continue
		}
		line, params := cmd.Line, []string(nil)
		if rule.Verb == "MAIL" || rule.Verb == "RCPT" {
			if path, list, ok := cutParameters(cmd.Line); ok {
				line, params = path, list
			}
		}
		found := rule.Match.FindStringSubmatchIndex(line)
		if found == nil {
			continue
		}
		to := string(rule.Match.ExpandString(nil, rule.To, line, found))
		if to == "" {
			return nil, nil
		}
		return smtpproxy.Pass{Command: withParameters(to, params)}, nil
	}
	return nil, nil
}
