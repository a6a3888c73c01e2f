package hooks

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy"
)

// Strict holds clients to the order and the syntax of RFC 5321, which most servers take
// leniently: for those who test a client, and for servers whose clients are programs of one's
// own. What it refuses, the server doesn't see:
//
//   - 503: MAIL, RCPT and DATA before HELO, EHLO or LHLO (section 4.1.4); AUTH, BDAT and
//     STARTTLS before EHLO or LHLO, which offers them (section 2.2); AUTH in a transaction
//     and a second time (RFC 4954 section 4); DATA without a recipient (section 3.3);
//   - 501: arguments of DATA, QUIT and RSET (section 4.1.1) and STARTTLS (RFC 3207 section 4),
//     none of VRFY and EXPN (sections 4.1.1.6 and 4.1.1.7), and more than one space behind a
//     verb, or a tab. Blanks at the end of a line are borne with (section 4.1.1);
//   - 501: a greeting whose name is neither a domain nor an address literal (sections 4.1.1.1
//     and 4.1.3). HELO may have a literal too: not all clients that say it have a name;
//   - 501: a path that isn't one of section 4.1.2, or is longer than section 4.5.3.1 allows; a
//     blank between the colon and the path (section 3.3); a parameter that is none, or is there
//     twice. A source route, if it is one, has to be taken (section 4.1.1.3);
//   - 555: parameters behind HELO, which offers none (section 4.1.1.11);
//   - 553 5.6.7: letters beyond ASCII in a path, without SMTPUTF8 (RFC 6531 section 3.5);
//   - 554, and the connection is closed: something sent behind a command that has to be the
//     last of a group, before its reply (RFC 2920 section 3.1), and behind any command of a
//     client that has said HELO. It may be content, which isn't meant to be commands.
//
// A second MAIL within a transaction, RCPT and DATA without one, malformed BDAT and a line
// without a verb, the library refuses itself. Other verbs are the server's matter, and so is
// what it has announced.
//
// # Dangers
//
// Mail of the real world breaks these rules here and there: on port 25, Strict loses some.
// Behind a front end that sends MAIL right behind XCLIENT, as nginx does, it refuses all, unless
// XCLIENT tells HELO.
type Strict struct{}

// Command implements smtpproxy.Hook.
func (Strict) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	verb := cmd.Verb()
	if verb == "" {
		return nil, nil // the library refuses it, and counts it (Proxy.MaxErrors)
	}
	if r := strictly(verb, &cmd, &conn, &txn); r != nil {
		return *r, nil
	}
	return nil, nil
}

// strictly returns a refusal of a command that breaks the rules, else nil.
func strictly(verb string, cmd *smtpproxy.Command, conn *smtpproxy.Connection, txn *smtpproxy.Transaction) *smtpproxy.Reply {
	if cmd.Pipelined && (cmd.MustBeLast() || conn.HELO.Verb == "HELO") {
		r := refusal(554, 5, 5, 0, verb+" has to wait for its reply")
		r.Disconnect = true
		return &r
	}
	args := strings.TrimRight(cmd.Args(), " \t")
	if r := ordered(verb, conn, txn); r != nil {
		return r
	}
	if behind := cmd.Line[len(verb):]; args != "" && isKnownVerb(verb) && (behind[0] != ' ' || isBlank(rune(behind[1]))) {
		return malformed("One space stands behind " + verb)
	}
	switch verb {
	case "HELO", "EHLO", "LHLO":
		if _, isLiteral := ofLiteral(args); !isLiteral && !isDomain(args, false) {
			return malformed("Syntax: " + verb + " domain or [address]")
		}
	case "DATA", "QUIT", "RSET", "STARTTLS":
		if args != "" {
			return malformed("Syntax: " + verb)
		}
	case "VRFY", "EXPN":
		if args == "" {
			return malformed("Syntax: " + verb + " string")
		}
	case "MAIL":
		return envelope("FROM:", args, conn, false)
	case "RCPT":
		if txn.Active { // else the library refuses it
			return envelope("TO:", args, conn, isUTF8(txn))
		}
	}
	return nil
}

// ordered returns a refusal of a command that comes out of order, else nil.
func ordered(verb string, conn *smtpproxy.Connection, txn *smtpproxy.Transaction) *smtpproxy.Reply {
	text := ""
	switch greeted := conn.HELO.Verb; verb {
	case "MAIL", "RCPT", "DATA":
		if greeted == "" {
			text = "Greet first"
		} else if verb == "DATA" && txn.Active && txn.Recipients.Len() == 0 {
			text = "No valid recipients"
		}
	case "AUTH", "BDAT", "STARTTLS":
		if greeted != "EHLO" && greeted != "LHLO" {
			text = "Greet with EHLO first"
		} else if verb == "AUTH" && (txn.Active || conn.Auth.Mechanism != "") {
			text = "AUTH comes once, before MAIL"
		}
	}
	if text == "" {
		return nil
	}
	r := refusal(503, 5, 5, 1, text)
	return &r
}

// isKnownVerb tells whether a verb's syntax is known.
func isKnownVerb(verb string) bool {
	switch verb {
	case "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP", "AUTH", "STARTTLS":
		return true
	}
	return false
}

// isUTF8 tells whether a transaction has SMTPUTF8.
func isUTF8(txn *smtpproxy.Transaction) bool {
	_, ok := txn.SenderParams.Get("SMTPUTF8")
	return ok || hasUTF8(txn.Unparsed)
}

// hasUTF8 tells whether the parameter SMTPUTF8 is among some.
func hasUTF8(params string) bool {
	for p := range strings.FieldsFuncSeq(params, isBlank) {
		if strings.EqualFold(p, "SMTPUTF8") {
			return true
		}
	}
	return false
}

// envelope returns a refusal of what stands behind MAIL or RCPT, if it breaks the syntax.
// smtputf8 tells whether the transaction has SMTPUTF8.
func envelope(keyword, args string, conn *smtpproxy.Connection, smtputf8 bool) *smtpproxy.Reply {
	if len(args) < len(keyword) || !strings.EqualFold(args[:len(keyword)], keyword) {
		return malformed("Syntax: " + keyword + "<path>")
	}
	path, rest, ok := cutPath(args[len(keyword):])
	isNull := keyword == "FROM:" && path == ""
	isPostmaster := keyword == "TO:" && strings.EqualFold(path, "postmaster") // section 4.1.1.3
	if !ok || !isNull && !isPostmaster && !isPath(path) {
		detail := 7 // RFC 3463 section 3.2: bad sender's mailbox address syntax
		if keyword == "TO:" {
			detail = 3 // destination's
		}
		r := refusal(501, 5, 1, detail, "Syntax: "+keyword+"<path>")
		return &r
	}
	smtputf8 = smtputf8 || keyword == "FROM:" && hasUTF8(rest)
	if rest != "" {
		if conn.HELO.Verb == "HELO" {
			r := refusal(555, 5, 5, 4, "There are no parameters behind HELO")
			return &r
		}
		if bad, ok := areParameters(rest[1:], smtputf8); !ok {
			return malformed("Bad parameter " + shortened(inASCII(bad)))
		}
	}
	if !smtputf8 && strings.ContainsFunc(path, isForeign) {
		r := refusal(553, 5, 6, 7, "Letters beyond ASCII need SMTPUTF8")
		return &r
	}
	return nil
}

// areParameters tells whether something is a list of parameters, with a space between them and
// none twice, or else which one is bad. With SMTPUTF8, letters beyond ASCII may be in values (RFC
// 6531 section 3.3).
func areParameters(s string, smtputf8 bool) (bad string, ok bool) {
	list := strings.Split(s, " ")
	for i, p := range list {
		keyword, value, ok := strings.Cut(p, "=")
		same := func(other string) bool { return hasKeyword(other, keyword) }
		plain := p
		if ok && smtputf8 && utf8.ValidString(value) {
			plain = keyword + "=" + inASCII(value)
		}
		if !isESMTPParam(plain) || slices.ContainsFunc(list[:i], same) {
			return p, false
		}
	}
	return "", true
}

// isESMTPParam tells whether something is an esmtp-param (RFC 5321 section 4.1.2).
func isESMTPParam(param string) bool {
	keyword, value, hasValue := strings.Cut(param, "=")
	outside := func(r rune) bool { return r <= ' ' || r == '=' || r >= 0x7f }
	return isKeyword(keyword) && hasValue == (value != "") && !strings.ContainsFunc(value, outside)
}

// inASCII returns a text with another character for each that is beyond ASCII, as replies
// have it.
func inASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if isForeign(r) {
			return '?'
		}
		return r
	}, s)
}

// isForeign tells whether a rune is beyond ASCII.
func isForeign(r rune) bool { return r >= utf8.RuneSelf }

// cutPath cuts what is in angle brackets off the beginning; a quoted local part may have a
// ">" in it.
func cutPath(s string) (path, rest string, ok bool) {
	if s == "" || s[0] != '<' {
		return "", "", false
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == '>' && !quoted:
			rest = s[i+1:]
			return s[1:i], rest, rest == "" || rest[0] == ' '
		}
	}
	return "", "", false
}

// isPath tells whether something is what stands in the angle brackets of a path: a mailbox,
// perhaps behind a source route (RFC 5321 section 4.1.2).
func isPath(s string) bool {
	if len(s) > 254 || !utf8.ValidString(s) { // section 4.5.3.1.3: 256 with the brackets
		return false
	}
	if strings.HasPrefix(s, "@") {
		route, mailbox, ok := strings.Cut(s, ":")
		if !ok {
			return false
		}
		for at := range strings.SplitSeq(route, ",") {
			if domain, ok := strings.CutPrefix(at, "@"); !ok || !isDomain(domain, true) {
				return false
			}
		}
		s = mailbox
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return false
	}
	local, domain := s[:at], s[at+1:]
	_, isLiteral := ofLiteral(domain)
	return len(local) <= 64 && isLocalPart(local) && (isLiteral || isDomain(domain, true)) // section 4.5.3.1.1
}

// isDomain tells whether something is a Domain (RFC 5321 section 4.1.2), which in a path may
// have U-labels (RFC 6531 section 3.3).
func isDomain(name string, inPath bool) bool {
	if len(name) > 255 { // section 4.5.3.1.2
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			case inPath && isForeign(r) && inLabel(r):
			default:
				return false
			}
		}
	}
	return true
}

// inLabel tells whether a rune beyond ASCII may be in a U-label (RFC 5892).
func inLabel(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd) || strings.ContainsRune("\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb", r)
}

// isLocalPart tells whether something is a Dot-string or a Quoted-string (RFC 5321 section
// 4.1.2, RFC 6531 section 3.3).
func isLocalPart(s string) bool {
	if inner, ok := strings.CutPrefix(s, `"`); ok {
		inner, ok = strings.CutSuffix(inner, `"`)
		for i := 0; ok && i < len(inner); i++ {
			switch c := inner[i]; {
			case c == '\\':
				i++
				ok = i < len(inner) && inner[i] >= ' ' && inner[i] <= '~'
			case c == '"', c < ' ', c == 0x7f:
				ok = false
			}
		}
		return ok
	}
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || strings.ContainsFunc(atom, isSpecial) {
			return false
		}
	}
	return true
}

// isSpecial tells whether a rune is none of an atom (RFC 5322 section 3.2.3).
func isSpecial(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune(`()<>[]:;@\,."`, r)
}
