package hooks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// StripParameters returns a hook that takes parameters out of the commands of a verb, MAIL
// or RCPT: those with one of some keywords, in any case. It is for clients that send what
// they weren't offered, such as Exchange Online's XOORG, and servers that refuse it then. What
// a parameter stands for, the server isn't told: without SMTPUTF8, BODY or REQUIRETLS a message
// may come out damaged, or unprotected.
//
// A command that servers may read in different ways is passed as it is: see
// smtpproxy.Transaction.Unparsed. StripParameters panics if verb is neither MAIL nor RCPT.
func StripParameters(verb string, keywords ...string) smtpproxy.Hook {
	verb = verbWithParameters(verb)
	return ofVerb(verb, func(params []string) []string {
		return slices.DeleteFunc(params, func(p string) bool {
			return slices.ContainsFunc(keywords, func(k string) bool { return strings.EqualFold(k, keywordOf(p)) })
		})
	})
}

// AddParameter returns a hook that adds a parameter, such as "NOTIFY=NEVER", to each command
// of a verb, MAIL or RCPT. It takes the place of one with the same keyword. The server must
// know of it: it gets the parameter whether it has offered it or not.
//
// A command that servers may read in different ways is passed as it is: see
// smtpproxy.Transaction.Unparsed. AddParameter panics if verb is neither MAIL nor RCPT, and if
// param is no parameter (RFC 5321 section 4.1.2).
func AddParameter(verb, param string) smtpproxy.Hook {
	verb = verbWithParameters(verb)
	if !isParameter(param) {
		panic(fmt.Sprintf("smtpproxy/hooks: %q is no parameter", param))
	}
	return ofVerb(verb, func(params []string) []string {
		params = slices.DeleteFunc(params, func(p string) bool { return strings.EqualFold(keywordOf(p), keywordOf(param)) })
		return append(params, param)
	})
}

// verbWithParameters returns a verb in upper case, and panics unless its commands have
// parameters.
func verbWithParameters(verb string) string {
	v := strings.ToUpper(verb)
	if v != "MAIL" && v != "RCPT" {
		panic(fmt.Sprintf("smtpproxy/hooks: %q has no parameters, but MAIL and RCPT", verb))
	}
	return v
}

// ofVerb returns a hook that changes the parameters of a verb's commands.
func ofVerb(verb string, change func(params []string) []string) smtpproxy.Hook {
	return smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() != verb {
			return nil, nil
		}
		path, params, ok := cutParameters(cmd.Line)
		if !ok {
			return nil, nil
		}
		changed := change(slices.Clone(params))
		if slices.Equal(params, changed) {
			return nil, nil // octet for octet
		}
		return smtpproxy.Pass{Command: withParameters(path, changed)}, nil
	})
}

// keywordOf returns the keyword of a parameter.
func keywordOf(param string) string {
	keyword, _, _ := strings.Cut(param, "=")
	return keyword
}

// isParameter tells whether something is an esmtp-param (RFC 5321 section 4.1.2).
func isParameter(param string) bool {
	keyword, value, hasValue := strings.Cut(param, "=")
	for i := range len(keyword) {
		switch c := keyword[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-' && i > 0:
		default:
			return false
		}
	}
	for _, c := range []byte(value) {
		if c <= ' ' || c == '=' || c >= 0x7f {
			return false
		}
	}
	return keyword != "" && (!hasValue || value != "")
}

// cutParameters cuts the parameters off a MAIL or RCPT command: what follows its path. ok is
// false where servers may see another one: with another angle bracket, or without any.
func cutParameters(line string) (path string, params []string, ok bool) {
	begin := strings.IndexByte(line, '<')
	if begin < 0 || !strings.HasSuffix(strings.TrimRight(line[:begin], " \t"), ":") {
		return "", nil, false
	}
	end := strings.IndexByte(line[begin:], '>')
	if end < 0 {
		return "", nil, false
	}
	end += begin + 1
	rest := line[end:]
	if strings.ContainsAny(rest, "<>") || strings.ContainsAny(line[begin+1:end-1], "<") || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", nil, false
	}
	return line[:end], strings.FieldsFunc(rest, isBlank), true
}

// withParameters is the reverse of cutParameters.
func withParameters(path string, params []string) string {
	return strings.Join(append([]string{path}, params...), " ")
}
