package address

import (
	"math/rand/v2"
	"mime"
	"net/mail"
	"regexp"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// A reading is how a server reads the arguments of MAIL (keyword "FROM:") or RCPT
// ("TO:"): the path without its brackets, "" for the null reverse-path. ok is false
// if it refuses the command. They are the ways that are seen, or asked for by a
// standard, each as lenient as it gets.
type reading func(args, keyword string) (path string, ok bool)

var readings = map[string]reading{
	// Regular expressions, with and without a blank behind the colon. Not being
	// anchored, they find the keyword wherever it is.
	"to the last '>'":              byRegexp(`(?i)KEY<(.*)>`),
	"to the last '>', blank":       byRegexp(`(?i)KEY\s?<(.*)>(\s(.*))?`),
	"to the first '>'":             byRegexp(`(?i)KEY\s*<([^>]*)>`),
	"to the first '>' but escaped": byRegexp(`(?i)^KEY\s*<((?:(?:\\>|[^>])+|"[^"]+"@[^>]+)?)>`),
	"from the last keyword":        balanced(byRegexp(`(?i).*KEY\s*<?([^<>\s]*)`)),
	"from the last '<'":            byRegexp(`(?i)^KEY.*<(.*?)>`),
	"brackets that match":          byRegexp(`(?i)^KEY\s*<((?:[^<>]|<[^<>]*>)*)>`),
	"what has no bracket in it":    balanced(byRegexp(`(?i)^KEY\s*<?\s*([^<>\s]+@[^<>\s]+)`)),

	"between the first brackets": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		_, rest, open := strings.Cut(rest, "<")
		path, _, end := strings.Cut(rest, ">")
		return path, ok && open && end
	},
	// Trims within the brackets, too; without them, takes a word.
	"trimmed": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		rest = strings.TrimSpace(rest)
		if path, bracketed := strings.CutPrefix(rest, "<"); bracketed {
			path, _, end := strings.Cut(path, ">")
			return strings.TrimSpace(path), ok && end
		}
		path, _, _ := strings.Cut(rest, " ")
		return path, ok && isBalanced(path)
	},
	"the first word": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		words := strings.Fields(rest)
		if !ok || len(words) == 0 || !isBalanced(words[0]) {
			return "", false
		}
		path, open := strings.CutPrefix(words[0], "<")
		path, end := strings.CutSuffix(path, ">")
		return path, open == end
	},
	"behind the last colon": func(args, keyword string) (string, bool) {
		if _, ok := cutKeyword(strings.TrimSpace(args), keyword); !ok {
			return "", false
		}
		words := strings.Fields(args[strings.LastIndexByte(args, ':')+1:])
		if len(words) == 0 {
			return "", false
		}
		path, _, _ := strings.Cut(strings.TrimPrefix(words[0], "<"), ">")
		return path, strings.Contains(path, "@") && isBalanced(path)
	},
	// From the first '<', or else the first colon, to a '>' or else a blank outside
	// quotes, which are taken off wherever they are.
	"quotes and escapes anywhere": func(args, keyword string) (string, bool) {
		end := byte('>')
		_, rest, bracketed := strings.Cut(args, "<")
		if !bracketed {
			end = ' '
			_, rest, _ = strings.Cut(args, ":")
			rest = strings.TrimLeft(rest, " ")
		}
		if rest == "" || end == '>' && strings.IndexByte(rest, '>') < 0 {
			return "", false
		}
		if strings.HasPrefix(rest, "@") {
			_, rest, _ = strings.Cut(rest, ":")
		}
		path, quoted := "", false
		for i := 0; i < len(rest) && (quoted || rest[i] != end); i++ {
			switch c := rest[i]; {
			case c == '\\' && i+1 < len(rest):
				i++
				path += rest[i : i+1]
			case c == '"':
				quoted = !quoted
			default:
				path += rest[i : i+1]
			}
		}
		return path, true
	},
	"the last word that could be one": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		words := strings.Fields(rest)
		for len(words) > 1 && (!strings.Contains(words[len(words)-1], "@") || strings.Contains(words[len(words)-1], "=")) {
			words = words[:len(words)-1]
		}
		if !ok || len(words) == 0 || !isBalanced(words[len(words)-1]) {
			return "", false
		}
		path, open := strings.CutPrefix(words[len(words)-1], "<")
		path, end := strings.CutSuffix(path, ">")
		return path, open == end
	},
	"words, then as in a header field": func(args, keyword string) (string, bool) {
		words := strings.Fields(args)
		if len(words) > 1 && strings.HasSuffix(words[0], ":") {
			words[0] += words[1]
		}
		if len(words) == 0 {
			return "", false
		}
		parts := strings.Split(words[0], ":")
		if len(parts) != 2 || !strings.EqualFold(parts[0]+":", keyword) {
			return "", false
		}
		return inHeaderField(parts[1])
	},
	"as in a header field": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		if !ok {
			return "", false
		}
		if _, _, end := strings.Cut(rest, ">"); end {
			i := strings.LastIndexByte(rest, '>') + 1
			rest = rest[:i]
		}
		return inHeaderField(strings.TrimSpace(rest))
	},
	"as in a header field, encoded-words decoded": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		rest = strings.TrimSpace(rest)
		path, open := strings.CutPrefix(rest, "<")
		path, _, end := strings.Cut(path, ">")
		decoded, err := new(mime.WordDecoder).DecodeHeader(path)
		return decoded, ok && open && end && err == nil
	},
	"all of it": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		rest = strings.TrimSpace(rest)
		path, open := strings.CutPrefix(rest, "<")
		path, end := strings.CutSuffix(path, ">")
		return path, ok && open == end && rest != "" && isBalanced(rest)
	},
	// Parameters are taken off the end; the rest is the path.
	"parameters first": func(args, keyword string) (string, bool) {
		rest, ok := cutKeyword(strings.TrimSpace(args), keyword)
		rest = " " + strings.TrimSpace(rest)
		for {
			i := trailingParam.FindStringIndex(rest)
			if i == nil {
				break
			}
			rest = rest[:i[0]]
		}
		rest = strings.TrimSpace(rest)
		path, open := strings.CutPrefix(rest, "<")
		path, end := strings.CutSuffix(path, ">")
		return path, ok && open == end && isBalanced(rest)
	},
	// Octet by octet, quotes and their escapes taken off, the domain to a blank or
	// a '>'.
	"octet by octet": func(args, keyword string) (string, bool) {
		s, ok := cutKeyword(strings.TrimSpace(args), keyword)
		if !ok {
			return "", false
		}
		s, bracketed := strings.CutPrefix(strings.TrimSpace(s), "<")
		if bracketed && strings.HasPrefix(s, ">") && keyword == "FROM:" {
			return "", true
		}
		if strings.HasPrefix(s, "@") {
			if _, s, ok = strings.Cut(s, ":"); !ok {
				return "", false
			}
		}
		local := ""
		if rest, quoted := strings.CutPrefix(s, `"`); quoted {
			for s = rest; s != "" && s[0] != '"'; s = s[1:] {
				if s[0] == '\\' {
					s = s[1:]
				}
				if s == "" {
					return "", false
				}
				local += s[:1]
			}
			s = strings.TrimPrefix(s, `"`)
		} else {
			i := max(strings.IndexByte(s, '@'), 0)
			local, s = s[:i], s[i:]
			if strings.ContainsAny(local, "()<>[]:;\\,\" \t") {
				return "", false
			}
		}
		domain, ok := strings.CutPrefix(s, "@")
		i := strings.IndexAny(domain, " \t>")
		if bracketed && (i < 0 || domain[i] != '>') {
			return "", false
		}
		if i >= 0 {
			domain = domain[:i]
		}
		return Join(local, domain), ok && local != "" && domain != ""
	},
}

var trailingParam = regexp.MustCompile(`\s+[A-Za-z0-9][A-Za-z0-9-]*(?:=[^= \x00-\x1f]+)?\s*$`)

func byRegexp(expr string) reading {
	compiled := make(map[string]*regexp.Regexp)
	for _, keyword := range []string{"FROM:", "TO:"} {
		compiled[keyword] = regexp.MustCompile(strings.ReplaceAll(expr, "KEY", keyword))
	}
	return func(args, keyword string) (string, bool) {
		m := compiled[keyword].FindStringSubmatch(args)
		if m == nil {
			return "", false
		}
		return m[1], true
	}
}

// balanced makes a reading refuse half a path.
func balanced(read reading) reading {
	return func(args, keyword string) (string, bool) {
		path, ok := read(args, keyword)
		return path, ok && isBalanced(path)
	}
}

func cutKeyword(args, keyword string) (rest string, ok bool) {
	if len(args) < len(keyword) || !strings.EqualFold(args[:len(keyword)], keyword) {
		return "", false
	}
	return args[len(keyword):], true
}

// isBalanced reports whether each '"', '<' and '>' of s has its partner. Where that
// isn't so, what was taken for a path is half of one, and no mailbox.
func isBalanced(s string) bool {
	quoted, open := false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			open++
		case c == '>':
			open--
		case c == ' ' || c == '\t':
			return false // two words
		}
	}
	return !quoted && open == 0
}

// inHeaderField reads a mailbox with name, comments and brackets (RFC 5322 section
// 3.4).
func inHeaderField(s string) (path string, ok bool) {
	if s == "<>" {
		return "", true
	}
	addr, err := mail.ParseAddress(s)
	if err != nil {
		return "", false
	}
	i := strings.LastIndexByte(addr.Address, '@')
	return Join(addr.Address[:i], addr.Address[i+1:]), true
}

// meant returns what a path means: without its route, without quoting, letters in
// lower case.
func meant(path string) string {
	if strings.HasPrefix(path, "@") {
		if _, rest, ok := strings.Cut(path, ":"); ok {
			path = rest
		}
	}
	if strings.HasPrefix(path, `"`) {
		if local, rest, ok := cutQuotedString(path); ok {
			path = local + rest
		}
	}
	return ascii.ToLower(path)
}

// checkReadings holds that the arguments of MAIL or RCPT are read by all that accept
// them as the library reads them, or that it leaves them unparsed.
func checkReadings(t *testing.T, args string) (claimed bool) {
	t.Helper()
	for keyword, f := range map[string]struct {
		verb string
		of   func(string) (Path, []Param, string)
	}{"FROM:": {"MAIL ", Mail}, "TO:": {"RCPT ", Rcpt}} {
		p, params, unparsed := f.of(f.verb + args)
		if unparsed != "" {
			want := strings.TrimLeft(args, " \t")
			if want == "" {
				want = " "
			}
			if unparsed != want || p != (Path{}) || len(params) != 0 {
				t.Errorf("%s%q: unparsed %q, but %q %q", f.verb, args, unparsed, p, params)
			}
			continue
		}
		claimed = true
		mailbox := p.Mailbox
		if mailbox == "" && keyword == "TO:" {
			t.Errorf("%s%q: neither parsed nor unparsed", f.verb, args)
		}
		want := meant(mailbox)
		if n := strings.Count(want, "@"); n > 1 || n == 0 && mailbox != "" && mailbox != "postmaster" {
			t.Errorf("%s%q: %d at signs in the mailbox %q", f.verb, args, n, mailbox)
		}
		for name, read := range readings {
			if path, ok := read(args, keyword); ok && meant(path) != want {
				t.Errorf("%s%q is %q, but read %s it is %q", f.verb, args, mailbox, name, path)
			}
		}
	}
	return claimed
}

// pieces are what arguments are put together from.
var pieces = []string{
	"TO:", "from:", "<", ">", "a@b", "e@e", "a", "@", " ", "\t", `"`, `\`, "X=", "X", "=", ":", ",", ";", "(", ")", ".", "[", "]",
	"@c:", "<e@e>", "\u00a0", "postmaster", "=?utf-8?q?e=40e?=",
}

func TestAMailboxIsClaimedOnlyWhereEveryReadingAgrees(t *testing.T) {
	claimed := make(map[string]bool)
	check := func(args string) {
		if !t.Failed() && checkReadings(t, args) {
			claimed[args] = true
		}
	}
	// All short ones.
	length := 4
	if testing.Short() {
		length = 3
	}
	for _, keyword := range []string{"TO:", "FROM:"} {
		var grow func(args string, n int)
		grow = func(args string, n int) {
			check(args)
			for _, p := range pieces {
				if n > 0 {
					grow(args+p, n-1)
				}
			}
		}
		grow(keyword, length)
	}
	short := len(claimed)
	// Longer ones, near what is good.
	r := rand.New(rand.NewPCG(1, 2))
	good := []string{
		"<a@b>", " <a@b> X=1 Y", "a@b", " a@b X", `<"a b"@c>`, `<"a\"b"@c> X`, "<@c,@d:a@b>", "<a@[IPv6:::1]> X", "<a@[x:y]>", "<a..b@c.>",
		"<>", "<>X=1", "<a@b>X=1 Y=Z", "<postmaster>", "<postmaster> X=1",
		`"a"@b X=1`, "@c:a@b X", "a@[x:y] X",
	}
	for range 300_000 {
		s := good[r.IntN(len(good))]
		for range 1 + r.IntN(3) {
			i, j := r.IntN(len(s)+1), 0
			if r.IntN(3) == 0 {
				j = min(r.IntN(3), len(s)-i) // in the place of something
			}
			s = s[:i] + pieces[r.IntN(len(pieces))] + s[i+j:]
		}
		check([]string{"TO:", "FROM:"}[r.IntN(2)] + s)
	}
	if short < 100 || len(claimed) < 5000 {
		t.Errorf("only %d short and %d other arguments are read in one way: the property says little", short, len(claimed)-short)
	}
}
