package hooks

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy"
)

// StripParameters returns a hook that takes parameters out of the commands of a verb, MAIL
// or RCPT: those with one of some keywords, in any case. It is for clients that send what
// they weren't offered, and servers that refuse it then: Exchange Online's XOORG, say, or the
// AUTH=<> of Outlook and of vCenter. What a parameter stands for, the server isn't told: without
// SMTPUTF8, BODY or REQUIRETLS a message may come out damaged, or unprotected.
//
// Nothing else changes. A command whose path has no angle brackets, or that servers may read
// in different ways, is passed as it is: see smtpproxy.Transaction.Unparsed. Only AUTH=<> makes
// none of those (RFC 4954 section 5). StripParameters panics if verb is neither MAIL nor RCPT,
// and on what is no keyword.
func StripParameters(verb string, keywords ...string) smtpproxy.Hook {
	for _, k := range keywords {
		if !isKeyword(k) {
			panic(fmt.Sprintf("smtpproxy/hooks: %q is no keyword of a parameter", k))
		}
	}
	return ofVerb(verb, func(params []string) []string {
		return slices.DeleteFunc(params, func(p string) bool {
			return slices.ContainsFunc(keywords, func(k string) bool { return hasKeyword(p, k) })
		})
	})
}

// AddParameter returns a hook that adds a parameter, such as "NOTIFY=NEVER", to each command
// of a verb, MAIL or RCPT. It takes the place of one with the same keyword. The server must
// know of it: it gets the parameter whether it has offered it or not. A command that it makes too
// long for Proxy.MaxLineLength is a failure.
//
// [StripParameters] tells which commands are passed as they are. AddParameter panics if verb
// is neither MAIL nor RCPT, and if param is no parameter (RFC 5321 section 4.1.2), or one that
// some servers take for a path.
func AddParameter(verb, param string) smtpproxy.Hook {
	keyword, value, hasValue := strings.Cut(param, "=")
	if !isParameter(param) || strings.Contains(value, "=") || !isASCII(value) || hasValue && value == "" {
		panic(fmt.Sprintf("smtpproxy/hooks: %q is no parameter", param))
	}
	return ofVerb(verb, func(params []string) []string {
		same := func(p string) bool { return hasKeyword(p, keyword) }
		i := slices.IndexFunc(params, same)
		if i < 0 {
			return append(params, " "+param)
		}
		params[i] = params[i][:len(params[i])-len(trimBlanks(params[i]))] + param
		return append(params[:i+1], slices.DeleteFunc(params[i+1:], same)...)
	})
}

// ofVerb returns a hook that changes the parameters of a verb's commands, each with the
// blanks before it. It panics unless such commands have parameters.
func ofVerb(verb string, change func(params []string) []string) smtpproxy.Hook {
	verb = strings.ToUpper(verb)
	if verb != "MAIL" && verb != "RCPT" {
		panic(fmt.Sprintf("smtpproxy/hooks: parameters of %q, which is neither MAIL nor RCPT", verb))
	}
	return smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if cmd.Verb() != verb {
			return nil, nil
		}
		path, rest, ok := cutParameters(cmd)
		if !ok {
			return nil, nil
		}
		line := path + strings.Join(change(splitParameters(rest)), "")
		if line == cmd.Line {
			return nil, nil
		}
		return smtpproxy.Pass{Command: line}, nil
	})
}

// cutParameters cuts what follows the path off a MAIL or RCPT command. ok is false where
// some servers may find another path than others: in a quoted local part, in a parameter,
// behind a keyword that comes again.
func cutParameters(cmd smtpproxy.Command) (path, rest string, ok bool) {
	keyword := map[string]string{"MAIL": "FROM:", "RCPT": "TO:"}[cmd.Verb()]
	args := cmd.Args()
	n := len(keyword)
	if n == 0 || len(args) < n || !strings.EqualFold(args[:n], keyword) || !isText(args) {
		return "", "", false
	}
	args = args[n:]
	if strings.Contains(strings.ToUpper(args), keyword) {
		return "", "", false
	}
	inside, rest, closed := strings.Cut(trimBlanks(args), ">")
	inside, opened := strings.CutPrefix(inside, "<")
	if !opened || !closed || !isWhole(inside) {
		return "", "", false
	}
	if rest != "" && !isBlank(rune(rest[0])) {
		return "", "", false
	}
	for p := range strings.FieldsFuncSeq(rest, isBlank) {
		if !isParameter(p) {
			return "", "", false
		}
	}
	return cmd.Line[:len(cmd.Line)-len(rest)], rest, true
}

// splitParameters returns parameters, each with the blanks before it; blanks behind the
// last one are one more.
func splitParameters(s string) (params []string) {
	for s != "" {
		word := len(s) - len(trimBlanks(s))
		end := strings.IndexFunc(s[word:], isBlank)
		if end < 0 {
			return append(params, s)
		}
		params = append(params, s[:word+end])
		s = s[word+end:]
	}
	return params
}

// hasKeyword tells whether a parameter, perhaps with blanks before it, has a keyword.
func hasKeyword(param, keyword string) bool {
	k, _, _ := strings.Cut(trimBlanks(param), "=")
	return strings.EqualFold(k, keyword)
}

func trimBlanks(s string) string { return strings.TrimLeftFunc(s, isBlank) }

// isWhole tells whether what stands between angle brackets may be a whole path: no
// quoted-string goes on behind it, and no server sees a word in it that ends.
func isWhole(path string) bool {
	quoted := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == '<', isBlank(rune(c)) && !quoted:
			return false
		}
	}
	return !quoted
}

// isParameter tells whether a word behind a path is a parameter to all servers, and no
// other path to some: those that look for the last colon, or for the last angle bracket. AUTH=<>
// is none (RFC 4954 section 5).
func isParameter(word string) bool {
	keyword, value, _ := strings.Cut(word, "=")
	if strings.EqualFold(word, "AUTH=<>") {
		return true
	}
	if _, behind, found := strings.Cut(value, ":"); found && (strings.Contains(behind, "@") || strings.HasSuffix(value, ":")) {
		return false
	}
	return isKeyword(keyword) && isText(value) && !strings.ContainsAny(value, "<> \t")
}

// isKeyword tells whether something is an esmtp-keyword (RFC 5321 section 4.1.2).
func isKeyword(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// isText tells whether something is UTF-8 and has no control characters but tab, and no
// white space beyond ASCII, at which some servers split a line.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r != ' ' && r != '\t' && (unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune("\u180e\u200b\ufeff", r))
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
