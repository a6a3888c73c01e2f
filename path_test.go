package smtpproxy

import (
	"math/rand/v2"
	"mime"
	netmail "net/mail"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// parsed is what parseMail and parseRcpt return.
type parsed struct {
	addr    Address
	mailbox string
	params  []param
	ok      bool
}

func (p parsed) equal(q parsed) bool {
	return p.addr == q.addr && p.mailbox == q.mailbox && p.ok == q.ok && slices.Equal(p.params, q.params)
}

func asParsed(addr Address, mailbox string, params Params, ok bool) parsed {
	return parsed{addr, mailbox, params.list, ok}
}

func mailboxOf(local, domain, mailbox string) parsed {
	return parsed{Address{local, domain}, mailbox, nil, true}
}

func (p parsed) with(params ...param) parsed {
	p.params = params
	return p
}

var noPath parsed

// TestPath holds what is the same for MAIL and RCPT: all but the paths without
// a domain.
func TestPath(t *testing.T) {
	ab := mailboxOf("a", "b", "a@b")
	for _, tt := range []struct {
		name string // why this row is here
		in   string // what follows the colon
		want parsed
	}{
		{"plain", "<a@b>", ab},
		{"letters kept in the address, lower case in the mailbox", "<A.b@EXAMPLE.org>", mailboxOf("A.b", "EXAMPLE.org", "a.b@example.org")},
		{"every atext", "<!#$%&'*+-/=?^_`{|}~09azAZ@b>", mailboxOf("!#$%&'*+-/=?^_`{|}~09azAZ", "b", "!#$%&'*+-/=?^_`{|}~09azaz@b")},
		{"space after the colon", " <a@b>", ab},
		{"spaces and tabs around", " \t<a@b>\t ", ab},
		{"no brackets", "a@b", ab},
		{"no brackets, spaces around", "  a@b ", ab},
		{"no brackets, tab before, which is no space to some", "\ta@b", noPath},
		{"no brackets, tab behind", "a@b\t", noPath},
		{"no brackets, tab before a parameter", "a@b\tX", noPath},
		{"no brackets, tab behind a space", "a@b \tX\tY", ab.with(param{"X", ""}, param{"Y", ""})},
		{"no brackets, parameter", " a@b SIZE=1", ab.with(param{"SIZE", "1"})},
		{"no brackets, quoted", ` "a b"@x SIZE=1`, mailboxOf("a b", "x", `"a b"@x`).with(param{"SIZE", "1"})},
		{"no brackets, source route", "@c:a@b", ab},
		{"no brackets, dots", " a..b@c. X", mailboxOf("a..b", "c.", `"a..b"@c.`).with(param{"X", ""})},
		{"no brackets, like a parameter", " x=a@b", noPath},
		{"no brackets, a second path", "a@b TO:<c@d> FROM:<c@d>", noPath},
		{"no brackets, a second path in a parameter", "a@b X=TO:<c@d> X=FROM:<c@d>", noPath},
		{"no brackets, a second path without brackets", "a@b TO:c@d FROM:c@d", noPath},
		{"no brackets, brackets in a parameter", "a@b X=<c@d>", noPath},
		{"no brackets, comment", "a@b (c@d)", noPath},
		{"no brackets, word", "a@b c@d", noPath},
		{"no brackets, literal", "a@[127.0.0.1] X", mailboxOf("a", "[127.0.0.1]", "a@[127.0.0.1]").with(param{"X", ""})},
		{"no brackets, no-break space which servers may trim", "\u00a0a@b", noPath},
		{"no brackets, ideographic space which servers may split at", "a\u3000b@c", noPath},
		{"no-break space before the bracket", "\u00a0<a@b>", noPath},
		{"no-break space behind the bracket", "<a@b>\u00a0", noPath},
		{"no-break space within brackets", "<a\u00a0b@c>", noPath},
		{"no-break space in quotes", "<\"a\u00a0b\"@c>", noPath},
		{"zero width space, byte order mark", "<\u200ba\ufeff@c>", noPath},

		{"quoted for nothing", `<"a"@b>`, ab},
		{"quoted for nothing, upper case", `<"A.B"@c>`, mailboxOf("A.B", "c", "a.b@c")},
		{"quoted pair for nothing", `<"\a"@b>`, ab},
		{"quoted space", `<"a b"@x>`, mailboxOf("a b", "x", `"a b"@x`)},
		{"quoted quote", `<"a\"x"@y>`, mailboxOf(`a"x`, "y", `"a\"x"@y`)},
		{"quoted opening bracket", `<"a<x"@y>`, noPath},
		{"quoted closing bracket, where some servers see the end", `<"a>x"@y>`, noPath},
		{"quoted path", `<"<c@d>"@y>`, noPath},
		{"quoted pair of a closing bracket", `<"a\>x"@y>`, noPath},
		{"quoted backslash", `<"a\\"@b>`, mailboxOf(`a\`, "b", `"a\\"@b`)},
		{"quoted at sign, the first that some servers see", `<"a@b"@C>`, noPath},
		{"quoted pair of an at sign", `<"a\@b"@C>`, noPath},
		{"quoted comment, list and group, which are none", `<"a(b),c:d;"@e>`, mailboxOf("a(b),c:d;", "e", `"a(b),c:d;"@e`)},
		{"quoted encoded-word, which some servers decode", `<"=?utf-8?q?x?="@b>`, noPath},
		{"encoded-word, which some servers decode", `<=?utf-8?q?x?=@b>`, noPath},
		{"quoted double dot", `<"a..b"@c>`, mailboxOf("a..b", "c", `"a..b"@c`)},
		{"quoted empty string is grammatical", `<""@b>`, mailboxOf("", "b", `""@b`)},
		{"quoted UTF-8", `<"ö Ä"@b>`, mailboxOf("ö Ä", "b", `"ö Ä"@b`)},
		{"quoted string not closed", `<"a@b>`, noPath},
		{"quoted string ends in a backslash", `<"a\`, noPath},
		{"quoted closing quote", `<"a\"@b>`, noPath},
		{"quoted tab", "<\"a\tb\"@c>", noPath},
		{"quoted pair of a tab", "<\"a\\\tb\"@c>", noPath},
		{"quoted pair beyond ASCII", `<"\ö"@b>`, noPath},
		{"text behind the quoted string", `<"a"b@c>`, noPath},
		{"text before the quoted string", `<a"b"@c>`, noPath},
		{"quoted string in a dot-string", `<a."b"@c>`, noPath},

		{"source route", "<@a,@b:user@c>", mailboxOf("user", "c", "user@c")},
		{"source route of one", "<@a.example:User@c>", mailboxOf("User", "c", "user@c")},
		{"source route, quoted, literal", `<@a,@b:"u v"@[1.2.3.4]>`, mailboxOf("u v", "[1.2.3.4]", `"u v"@[1.2.3.4]`)},
		{"source route before an IPv6 literal", "<@a,@b:u@[IPv6:::1]>", mailboxOf("u", "[IPv6:::1]", "u@[ipv6:::1]")},
		{"source route alone", "<@a>", noPath},
		{"source route without a mailbox", "<@a:>", noPath},
		{"source route without a domain", "<@:u@c>", noPath},
		{"source route with an empty element", "<@a,:u@c>", noPath},
		{"source route with an element without at sign", "<@a,b:u@c>", noPath},
		{"source route with a literal, which is no Domain", "<@[IPv6:::1]:u@c>", noPath},
		{"two source routes", "<@a:@b:u@c>", noPath},

		{"IPv4 literal", "<a@[192.0.2.1]>", mailboxOf("a", "[192.0.2.1]", "a@[192.0.2.1]")},
		{"IPv4 literal too short", "<a@[192.0.2]>", noPath},
		{"IPv4 literal out of range", "<a@[192.0.2.256]>", noPath},
		{"IPv4 literal with a port", "<a@[192.0.2.1:25]>", noPath},
		{"IPv6 literal without tag", "<a@[2001:db8::1]>", mailboxOf("a", "[2001:db8::1]", "a@[2001:db8::1]")},
		{"IPv6 literal", "<a@[IPv6:2001:DB8::1]>", mailboxOf("a", "[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]")},
		{"IPv6 literal in full", "<a@[IPv6:1:2:3:4:5:6:7:8]>", mailboxOf("a", "[IPv6:1:2:3:4:5:6:7:8]", "a@[ipv6:1:2:3:4:5:6:7:8]")},
		{"IPv6 literal, tag in lower case", "<a@[ipv6:::]>", mailboxOf("a", "[ipv6:::]", "a@[ipv6:::]")},
		{"IPv6 literal with IPv4 in it", "<a@[IPv6:::ffff:192.0.2.1]>", mailboxOf("a", "[IPv6:::ffff:192.0.2.1]", "a@[ipv6:::ffff:192.0.2.1]")},
		{"IPv6 literal that is IPv4", "<a@[IPv6:192.0.2.1]>", noPath},
		{"IPv6 literal with a zone", "<a@[IPv6:fe80::1%eth0]>", noPath},
		{"IPv6 literal too short", "<a@[IPv6:1:2:3]>", noPath},
		{"IPv6 literal with two gaps", "<a@[IPv6:1::2::3]>", noPath},
		{"IPv6 literal without address", "<a@[IPv6:]>", noPath},
		{"general literal", "<a@[X-Tag:Foo:bar]>", mailboxOf("a", "[X-Tag:Foo:bar]", "a@[x-tag:foo:bar]")},
		{"general literal with delimiters of a literal's own", `<a@[tag:x=y:z/]> SIZE=1`, mailboxOf("a", `[tag:x=y:z/]`, `a@[tag:x=y:z/]`).with(param{"SIZE", "1"})},
		{"general literal with an opening bracket of the path", "<a@[tag:x<y]>", noPath},
		{"general literal with an at sign, the last that some servers see", "<a@[tag:x@y]>", noPath},
		{"general literal with a comment", "<a@[tag:(x)]>", noPath},
		{"general literal with a quote", `<a@[tag:"x]>`, noPath},
		{"general literal with a comma", "<a@[tag:x,y]>", noPath},
		{"general literal with a closing bracket of the path", "<a@[tag:x>y]> X", noPath},
		{"general literal without tag", "<a@[:x]>", noPath},
		{"general literal, tag ends in a hyphen", "<a@[x-:y]>", noPath},
		{"general literal, tag with underscore", "<a@[x_y:z]>", noPath},
		{"general literal without content", "<a@[x:]>", noPath},
		{"general literal with a space", "<a@[x:y z]>", noPath},
		{"general literal with a bracket", "<a@[x:[y]]>", noPath},
		{"general literal with a backslash", `<a@[x:\y]>`, noPath},
		{"general literal beyond ASCII", "<a@[x:ö]>", noPath},
		{"empty literal", "<a@[]>", noPath},
		{"name as literal", "<a@[example]>", noPath},
		{"literal not closed", "<a@[192.0.2.1>", noPath},
		{"text behind the literal", "<a@[192.0.2.1]x>", noPath},

		{"hyphens and digits in a domain", "<a@x-y.1.2>", mailboxOf("a", "x-y.1.2", "a@x-y.1.2")},
		{"underscore in a domain", "<a@x_y.example>", mailboxOf("a", "x_y.example", "a@x_y.example")},
		{"hyphen at the edge of a label", "<a@-x-.example>", mailboxOf("a", "-x-.example", "a@-x-.example")},
		{"trailing dot", "<a@B.c.>", mailboxOf("a", "B.c.", "a@b.c.")},
		{"two trailing dots", "<a@b..>", noPath},
		{"leading dot", "<a@.b>", noPath},
		{"empty label", "<a@b..c>", noPath},
		{"dot alone", "<a@.>", noPath},
		{"empty domain", "<a@>", noPath},
		{"two domains", "<a@b@c>", noPath},
		{"other characters in a domain", "<a@b!c>", noPath},
		{"space in a domain", "<a@b c>", noPath},

		{"UTF-8", "<用户@例え.jp>", mailboxOf("用户", "例え.jp", "用户@例え.jp")},
		{"UTF-8 is not folded", "<ÄX@ÖY.de>", mailboxOf("ÄX", "ÖY.de", "Äx@Öy.de")},
		{"long s and Kelvin sign are not folded", "<ſ\u212a@ſ\u212a>", mailboxOf("ſ\u212a", "ſ\u212a", "ſ\u212a@ſ\u212a")},
		{"combining mark and joiner in a domain", "<a@क्\u200dष.example>", mailboxOf("a", "क्\u200dष.example", "a@क्\u200dष.example")},
		{"katakana middle dot in a domain", "<a@ア・イ.jp>", mailboxOf("a", "ア・イ.jp", "a@ア・イ.jp")},
		{"ideographic full stop in a domain", "<a@例。jp>", noPath},
		{"right-to-left override in a domain", "<a@b\u202ec>", noPath},
		{"invalid UTF-8 in the local part", "<\xff@b>", noPath},
		{"invalid UTF-8 in quotes", "<\"\xff\"@b>", noPath},
		{"invalid UTF-8 in the domain", "<a@b\xc3>", noPath},
		{"invalid UTF-8 in a parameter", "<a@b> X=\xe4", noPath},
		{"UTF-8 surrogate", "<\xed\xa0\x80@b>", noPath},

		{"NUL", "<a\x00@b>", noPath},
		{"CR and LF", "<a@b>\r\n", noPath},
		{"LF in quotes", "<\"a\nb\"@c>", noPath},
		{"DEL in quotes", "<\"a\x7f\"@c>", noPath},
		{"C1 control", "<a\u0085@b>", noPath},
		{"control in a parameter", "<a@b> X=\x01", noPath},
		{"vertical tab as a separator", "<a@b>\vX", noPath},

		{"dot at the start of the local part", "<.a@b>", mailboxOf(".a", "b", `".a"@b`)},
		{"dot at the end of the local part", "<a.@b>", mailboxOf("a.", "b", `"a."@b`)},
		{"double dot in the local part", "<A..b@docomo.example>", mailboxOf("A..b", "docomo.example", `"a..b"@docomo.example`)},
		{"dots alone as the local part", "<...@b>", mailboxOf("...", "b", `"..."@b`)},
		{"empty local part", "<@b>", noPath},
		{"space in the local part", "<a b@c>", noPath},
		{"space behind the opening bracket", "< a@b>", noPath},
		{"space before the closing bracket", "<a@b >", noPath},
		{"comment", "<a(b)@c>", noPath},
		{"comment behind the path", "<a@c>(<b@d>)", noPath},
		{"quoted pair in a dot-string", `<a\@x@c>`, noPath},
		{"no domain", "<a>", noPath},
		{"no domain, no brackets", "a", noPath},
		{"two opening brackets", "<<a@b>>", noPath},
		{"two closing brackets", "<a@b>>", noPath},
		{"closing bracket missing", "<a@b", noPath},
		{"opening bracket missing", "a@b>", noPath},
		{"opening bracket alone", "<", noPath},
		{"at sign alone", "<@>", noPath},
		{"quote alone", `"`, noPath},
		{"nothing", "", noPath},
		{"spaces only", " \t", noPath},
		{"display name", "A <a@b>", noPath},
		{"quoted display name", `"A"<a@b>`, noPath},
		{"quoted display name like a mailbox", `"a@b" <c@d>`, noPath},
		{"two paths", "<a@b><c@d>", noPath},
		{"list", "a@b,c@d", noPath},
		{"the keyword again", "TO:<a@b> FROM:<a@b>", noPath},
		{"the keyword again in a route", "<@TO:a@b> X=FROM:", noPath},
		{"the keyword again in a parameter", "<a@b> X=to:c X=from:c", noPath},

		{"parameter", "<a@b> SIZE=10", ab.with(param{"SIZE", "10"})},
		{"parameters in order, tabs", "<a@b>\tSIZE=10 \t BODY=8BITMIME", ab.with(param{"SIZE", "10"}, param{"BODY", "8BITMIME"})},
		{"keyword in upper case, value as sent", "<a@b> Envid=QQ+2B Ret=hdrs", ab.with(param{"ENVID", "QQ+2B"}, param{"RET", "hdrs"})},
		{"keyword without value", "<a@b> smtputf8", ab.with(param{"SMTPUTF8", ""})},
		{"keyword with an empty value", "<a@b> x=", ab.with(param{"X", ""})},
		{"equals sign in a value", "<a@b> X=a=b=", ab.with(param{"X", "a=b="})},
		{"brackets in a value, the last of which ends the path to some servers", "<a@b> AUTH=<>", noPath},
		{"opening bracket in a value", "<a@b> X=<", noPath},
		{"closing bracket in a value", "<a@b> X=>", noPath},
		{"at sign and colon in a value", "<a@b> ORCPT=rfc822;c@d X=e@f:g", ab.with(param{"ORCPT", "rfc822;c@d"}, param{"X", "e@f:g"})},
		{"mailbox behind a colon in a value, which some servers take for the path", "<a@b> X=c:d@e", noPath},
		{"parameter behind a colon", "<a@b> X=c: Y=d@e", noPath},
		{"duplicates kept", "<a@b> X=1 X=1 x=2", ab.with(param{"X", "1"}, param{"X", "1"}, param{"X", "2"})},
		{"long s in a keyword, an S to some", "<a@b> ſize=1", noPath},
		{"UTF-8 in a value", "<a@b> ORCPT=utf-8;ö@ä", ab.with(param{"ORCPT", "utf-8;ö@ä"})},
		{"empty keyword", "<a@b> =1", noPath},
		{"empty keyword among others", "<a@b> X=1 = Y", noPath},
		{"hyphens and digits in a keyword", "<a@b> 8-bit-=1", ab.with(param{"8-BIT-", "1"})},
		{"hyphen at the start of a keyword", "<a@b> -x", noPath},
		{"underscore in a keyword", "<a@b> x_y", noPath},
		{"dot as a keyword", "<a@b> .", noPath},
		{"parameter without a space before it", "<a@b>SIZE=1 X", ab.with(param{"SIZE", "1"}, param{"X", ""})},
		{"text that is no parameter behind the path", "<a@b>.c", noPath},
		{"mailbox behind the path", "<a@b>c@d", noPath},
		{"no-break space between parameters", "<a@b> X=1\u00a0Y=2", noPath},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := asParsed(parseMail("FROM:" + tt.in)); !got.equal(tt.want) {
				t.Errorf("parseMail(FROM:%q):\n got %#v\nwant %#v", tt.in, got, tt.want)
			}
			if got := asParsed(parseRcpt("TO:" + tt.in)); !got.equal(tt.want) {
				t.Errorf("parseRcpt(TO:%q):\n got %#v\nwant %#v", tt.in, got, tt.want)
			}
			checkPath(t, parseMail, "FROM:", tt.in)
			checkPath(t, parseRcpt, "TO:", tt.in)
		})
	}
}

func TestParseMail(t *testing.T) {
	ab := mailboxOf("a", "b", "a@b")
	null := parsed{ok: true}
	for _, tt := range []struct {
		name, in string
		want     parsed
	}{
		{"keyword in lower case", "from:<a@b>", ab},
		{"keyword in mixed case", "fRoM:<a@b>", ab},
		{"space before the keyword", " \tFROM:<a@b>", ab},
		{"space before the colon", "FROM :<a@b>", noPath},
		{"no colon", "FROM<a@b>", noPath},
		{"no keyword", "<a@b>", noPath},
		{"keyword alone", "FROM:", noPath},
		{"nothing", "", noPath},
		{"keyword of the other command", "TO:<a@b>", noPath},
		{"null reverse-path", "FROM:<>", null},
		{"null reverse-path, space", "FROM: <> ", null},
		{"null reverse-path, parameters", "FROM:<> SIZE=1 BODY=7BIT", null.with(param{"SIZE", "1"}, param{"BODY", "7BIT"})},
		{"null reverse-path, empty keyword", "FROM:<> =1", noPath},
		{"null reverse-path, parameter without a space", "FROM:<>SIZE=1", null.with(param{"SIZE", "1"})},
		{"null reverse-path, path behind it", "FROM:<><a@b>", noPath},
		{"null reverse-path, mailbox behind it", "FROM:<>a@b", noPath},
		{"null reverse-path, path in a parameter", "FROM:<> X=<a@b>", noPath},
		{"null reverse-path, the keyword again", "FROM:<> FROM:a@b", noPath},
		{"null reverse-path without brackets", `FROM:""`, noPath},
		{"null reverse-path with a space in it", "FROM:< >", noPath},
		{"null reverse-path with a route", "FROM:<@a:>", noPath},
		{"postmaster needs a domain as a sender", "FROM:<postmaster>", noPath},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := asParsed(parseMail(tt.in)); !got.equal(tt.want) {
				t.Errorf("parseMail(%q):\n got %#v\nwant %#v", tt.in, got, tt.want)
			}
		})
	}
}

func TestParseRcpt(t *testing.T) {
	ab := mailboxOf("a", "b", "a@b")
	for _, tt := range []struct {
		name, in string
		want     parsed
	}{
		{"keyword in lower case", "to:<a@b>", ab},
		{"keyword in mixed case", "tO:<a@b>", ab},
		{"space before the keyword", "\t TO:<a@b>", ab},
		{"space before the colon", "TO :<a@b>", noPath},
		{"no keyword", "<a@b>", noPath},
		{"keyword alone", "TO:", noPath},
		{"nothing", "", noPath},
		{"keyword of the other command", "FROM:<a@b>", noPath},
		{"null path is no forward-path", "TO:<>", noPath},
		{"postmaster", "TO:<postmaster>", mailboxOf("postmaster", "", "postmaster")},
		{"postmaster in mixed case", "TO: <PostMaster>", mailboxOf("PostMaster", "", "postmaster")},
		{"postmaster with a parameter", "TO:<Postmaster> notify=NEVER", mailboxOf("Postmaster", "", "postmaster").with(param{"NOTIFY", "NEVER"})},
		{"postmaster with a domain", "TO:<Postmaster@b>", mailboxOf("Postmaster", "b", "postmaster@b")},
		{"postmaster with a long s", "TO:<poſtmaster>", noPath},
		{"postmaster without brackets", "TO:postmaster", noPath},
		{"postmaster with an empty domain", "TO:<postmaster@>", noPath},
		{"postmaster behind a route", "TO:<@a:postmaster>", noPath},
		{"postmaster, parameter without a space", "TO:<postmaster>X", mailboxOf("postmaster", "", "postmaster").with(param{"X", ""})},
		{"postmaster, path in a parameter", "TO:<postmaster> X=<a@b>", noPath},
		{"postmaster, the keyword again", "TO:<postmaster> TO:a@b", noPath},
		{"other local part without a domain", "TO:<root>", noPath},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := asParsed(parseRcpt(tt.in)); !got.equal(tt.want) {
				t.Errorf("parseRcpt(%q):\n got %#v\nwant %#v", tt.in, got, tt.want)
			}
		})
	}
}

func TestPathAllocs(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     float64
	}{
		{"plain", "<someone@mail.example.org>", 0},
		{"UTF-8", "<用户@例え.jp>", 0},
		{"literal", "<a@[127.0.0.1]>", 0},
		{"upper case: the mailbox", "<Someone@mail.example.org>", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mail, rcpt := "FROM:"+tt.in, "TO:"+tt.in
			if got := testing.AllocsPerRun(100, func() { parseMail(mail) }); got > tt.want {
				t.Errorf("parseMail(%q): %v allocations, want %v", mail, got, tt.want)
			}
			if got := testing.AllocsPerRun(100, func() { parseRcpt(rcpt) }); got > tt.want {
				t.Errorf("parseRcpt(%q): %v allocations, want %v", rcpt, got, tt.want)
			}
		})
	}
}

func TestDotString(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     bool
	}{
		{"atom", "a", true},
		{"atoms", "a.b.c", true},
		{"every special in atext", "!#$%&'*+-/=?^_`{|}~", true},
		{"UTF-8", "用户.ö", true},
		{"empty", "", false},
		{"dot", ".", false},
		{"leading dot", ".a", false},
		{"trailing dot", "a.", false},
		{"double dot", "a..b", false},
		{"space", "a b", false},
		{"at sign", "a@b", false},
		{"quote", `"a"`, false},
		{"control", "a\n", false},
		{"DEL", "a\x7f", false},
		{"invalid UTF-8", "a\xff", false},
		{"replacement character is valid", "\ufffd", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := isDotString(tt.in); got != tt.want {
				t.Errorf("isDotString(%q) = %v", tt.in, got)
			}
		})
	}
	for c := range byte(utf8.RuneSelf) {
		want := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
		if got := isDotString(string(rune(c))); got != want {
			t.Errorf("isDotString(%q) = %v", c, got)
		}
	}
}

func TestAddressString(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Address
		want string
	}{
		{"null", Address{}, ""},
		{"postmaster", Address{Localpart: "Postmaster"}, "Postmaster"},
		{"plain, case kept", Address{"A", "B"}, "A@B"},
		{"empty local part", Address{"", "b"}, `""@b`},
		{"space", Address{"a b", "c"}, `"a b"@c`},
		{"quote and backslash", Address{`a"\b`, "c"}, `"a\"\\b"@c`},
		{"double dot", Address{"a..b", "c"}, `"a..b"@c`},
		{"literal", Address{"a", "[IPv6:::1]"}, "a@[IPv6:::1]"},
		{"UTF-8", Address{"用户", "例え.jp"}, "用户@例え.jp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.in.String(); got != tt.want {
				t.Errorf("%#v.String() = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// checkPath parses keyword+path and checks what is true of every result.
func checkPath(t *testing.T, parse func(string) (Address, string, Params, bool), keyword, path string) {
	t.Helper()
	in := keyword + path
	addr, mailbox, params, ok := parse(in)
	if !ok {
		if addr != (Address{}) || mailbox != "" || params.list != nil {
			t.Fatalf("%q: not ok, but results: %q %q %q", in, addr, mailbox, params.list)
		}
		return
	}

	texts := []string{addr.Localpart, addr.Domain, mailbox}
	for key, value := range params.All() {
		if key == "" || key != ascii.ToUpper(key) || strings.ContainsAny(key, "= ") {
			t.Errorf("%q: keyword %q", in, key)
		}
		if strings.Contains(value, " ") {
			t.Errorf("%q: value %q", in, value)
		}
		texts = append(texts, key, value)
	}
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			t.Errorf("%q: invalid UTF-8 or control character in %q", in, s)
		}
	}
	if mailbox != ascii.ToLower(addr.String()) {
		t.Errorf("%q: mailbox %q of address %q", in, mailbox, addr)
	}
	if strings.ContainsAny(mailbox, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t.Errorf("%q: upper case in mailbox %q", in, mailbox)
	}

	// Round trips: what is written means the same when it is read.
	addr2, mailbox2, params2, ok := parse(keyword + "<" + addr.String() + ">")
	if addr2 != addr || mailbox2 != mailbox || params2.list != nil || !ok {
		t.Errorf("%q: address %q parsed again: %q %q %v", in, addr, addr2, mailbox2, ok)
	}
	if _, mailbox2, _, ok = parse(keyword + "<" + mailbox + ">"); mailbox2 != mailbox || !ok {
		t.Errorf("%q: mailbox %q parsed again: %q %v", in, mailbox, mailbox2, ok)
	}
	if addr.Domain == "" {
		return
	}

	// Whatever has a domain is the same for both commands.
	other, keyword2 := parseRcpt, "TO:"
	if ascii.EqualFold(keyword, keyword2) {
		other, keyword2 = parseMail, "FROM:"
	}
	if strings.Contains(ascii.ToUpper(path), keyword2) {
		return // to the other command, its keyword again
	}
	if addr2, mailbox2, params2, ok = other(keyword2 + path); addr2 != addr || mailbox2 != mailbox ||
		!slices.Equal(params2.list, params.list) || !ok {
		t.Errorf("%q: differs for the other command: %q %q %q %v", in, addr2, mailbox2, params2.list, ok)
	}
}

func FuzzPath(f *testing.F) {
	f.Fuzz(func(t *testing.T, path string) {
		checkPath(t, parseMail, "FROM:", path)
		checkPath(t, parseRcpt, "tO:", path)
		if len(path) > 300 {
			return // the readings take their time
		}
		for _, args := range []string{path, "FROM:" + path, "TO:" + path} {
			checkReadings(t, args)
		}
	})
}

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
		return Address{local, domain}.String(), ok && local != "" && domain != ""
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
	addr, err := netmail.ParseAddress(s)
	if err != nil {
		return "", false
	}
	i := strings.LastIndexByte(addr.Address, '@')
	return Address{addr.Address[:i], addr.Address[i+1:]}.String(), true
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
		of   func(string) (Address, string, Params, string)
	}{"FROM:": {"MAIL ", mailOf}, "TO:": {"RCPT ", rcptOf}} {
		addr, mailbox, params, unparsed := f.of(f.verb + args)
		if unparsed != "" {
			want := strings.TrimLeft(args, " \t")
			if want == "" {
				want = " "
			}
			if unparsed != want || addr != (Address{}) || mailbox != "" || params.Len() != 0 {
				t.Errorf("%s%q: unparsed %q, but %q %q %q", f.verb, args, unparsed, addr, mailbox, params)
			}
			continue
		}
		claimed = true
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

// inTransaction returns a session whose server has accepted the commands.
func inTransaction(t testing.TB, p *Proxy, lines ...string) *Session {
	t.Helper()
	s := p.NewSession(Connection{})
	for _, line := range lines {
		if d, ok := s.Command(t.Context(), line).(Pass); !ok {
			t.Fatalf("%.80q isn't passed: %v", line, d)
		}
		s.Replied(250)
	}
	return s
}

func TestWhatServersReadDifferentlyIsShownAsItWasSent(t *testing.T) {
	for _, tt := range []struct {
		mail, rcpt                 string
		sender, recipient          string
		unparsedMail, unparsedRcpt string
	}{
		{mail: "MAIL FROM:<>", rcpt: "RCPT TO:<postmaster>", recipient: "postmaster"},
		{mail: "MAIL FROM:<a@b> SIZE=1", rcpt: "RCPT TO:<c@d> X", sender: "a@b", recipient: "c@d"},
		{mail: "MAIL FROM:good@ok FROM:<evil@evil>", unparsedMail: "FROM:good@ok FROM:<evil@evil>",
			rcpt: "RCPT TO:good@ok TO:<evil@evil>", unparsedRcpt: "TO:good@ok TO:<evil@evil>"},
		{mail: "mail \t from:good@ok X=FROM:<evil@evil> ", unparsedMail: "from:good@ok X=FROM:<evil@evil> ",
			rcpt: "rcpt \t to:good@ok X=TO:<evil@evil>\t", unparsedRcpt: "to:good@ok X=TO:<evil@evil>\t"},
		{mail: "MAIL FROM:<evil>", unparsedMail: "FROM:<evil>", rcpt: "RCPT TO:<>", unparsedRcpt: "TO:<>"},
		{mail: "MAIL", unparsedMail: " ", rcpt: "RCPT", unparsedRcpt: " "},
		{mail: "MAIL \t", unparsedMail: " ", rcpt: "RCPT \t", unparsedRcpt: " "},
		{mail: "MAIL FROM:<a@b> AUTH=<>", unparsedMail: "FROM:<a@b> AUTH=<>",
			rcpt: "RCPT TO:<a@b> ORCPT=rfc822;<c@d>", unparsedRcpt: "TO:<a@b> ORCPT=rfc822;<c@d>"},
	} {
		var told Recipient
		p := &Proxy{TransportID: func(_ Connection, r Recipient) string { told = r; return "id" }}
		txn := inTransaction(t, p, tt.mail, tt.rcpt).Transaction()
		if txn.Sender != tt.sender || txn.Unparsed != tt.unparsedMail {
			t.Errorf("%q: sender %q, unparsed %q", tt.mail, txn.Sender, txn.Unparsed)
		}
		if r := txn.Recipients.At(0); r.Recipient != tt.recipient || r.Unparsed != tt.unparsedRcpt || r.TransportID != "id" {
			t.Errorf("%q: %+v", tt.rcpt, r)
		}
		if told.Recipient != tt.recipient || told.Unparsed != tt.unparsedRcpt {
			t.Errorf("%q: TransportID was told %+v", tt.rcpt, told)
		}
		if !txn.Active {
			t.Errorf("%q opens no transaction", tt.mail)
		}
	}
}

func TestWhatIsUnparsedIsForgottenWithItsTransaction(t *testing.T) {
	s := inTransaction(t, &Proxy{}, "MAIL FROM:a", "RSET")
	if txn := s.Transaction(); txn.Unparsed != "" {
		t.Errorf("after RSET: %+v", txn)
	}
	s = inTransaction(t, &Proxy{}, "MAIL FROM:a", "EHLO x", "MAIL FROM:<a@b>")
	if txn := s.Transaction(); txn.Unparsed != "" || txn.Sender != "a@b" {
		t.Errorf("after another MAIL: %+v", txn)
	}
	s = (&Proxy{}).ResumeSession(Connection{}, inTransaction(t, &Proxy{}, "MAIL FROM:a", "RCPT TO:b").Transaction())
	if txn := s.Transaction(); txn.Unparsed != "FROM:a" || txn.Recipients.At(0).Unparsed != "TO:b" {
		t.Errorf("resumed: %+v", txn)
	}
}

func TestMailAndRcptHave64ParametersAtMost(t *testing.T) {
	for _, tt := range []struct{ before, path, param string }{
		{"", "MAIL FROM:<>", " a"},
		{"", "MAIL FROM:<a@b>", " a"},
		{"", "mail from: a@b ", "\ta=b"},
		{"", "MAIL FROM:<a@b>", "  SIZE=1000 "},
		{"", `MAIL FROM:<"a b c d e f"@x>`, " a"},
		{"", "MAIL FROM:a", " a"},
		{"", "MAIL FROM:<a@b>", " <>"},
		{"MAIL FROM:<a@b>", "RCPT TO:<postmaster>", " a"},
		{"MAIL FROM:<a@b>", "RCPT TO:<a@b>", " a"},
		{"MAIL FROM:<a@b>", "RCPT \t TO: \t <a@b>", "\t \ta="},
		{"MAIL FROM:<a@b>", "RCPT TO:<a@b>", "\t \ta=<"},
		{"MAIL FROM:<a@b>", "RCPT TO:a", " a"},
		{"MAIL FROM:<a@b>", "RCPT", " a a"}, // the first is no parameter
	} {
		for _, n := range []int{64, 65} {
			line := tt.path + strings.Repeat(tt.param, n)
			if tt.path == "RCPT" {
				line = "RCPT to" + strings.Repeat(" a", n)
			}
			s := (&Proxy{}).NewSession(Connection{})
			if tt.before != "" {
				s = inTransaction(t, &Proxy{}, tt.before)
			}
			d := s.Command(t.Context(), line)
			r, refused := d.(Reply)
			if refused != (n > 64) {
				t.Errorf("%q and %d times %q: %v", tt.path, n, tt.param, d)
			}
			if refused && r.String() != "555 5.5.4 Too many parameters" {
				t.Errorf("%q and %d times %q: %v", tt.path, n, tt.param, r)
			}
			if refused && r.Disconnect {
				t.Errorf("%q and %d times %q ends the connection", tt.path, n, tt.param)
			}
		}
	}

	// It is about what the server gets.
	many := strings.Repeat(" a", 100)
	p := &Proxy{Hook: HookFunc(func(_ *Context, cmd Command, _ Connection, _ Transaction) (Decision, error) {
		if cmd.Verb() == "NOOP" {
			return Pass{Command: "MAIL FROM:<a@b>" + many}, nil
		}
		return Pass{Command: "MAIL FROM:<a@b>"}, nil
	})}
	if r, ok := p.NewSession(Connection{}).Command(t.Context(), "NOOP").(Reply); !ok || r.Code != 555 {
		t.Errorf("MAIL put in by the hook: %v", r)
	}
	if d, ok := p.NewSession(Connection{}).Command(t.Context(), "MAIL FROM:<a@b>"+many).(Pass); !ok {
		t.Errorf("MAIL mended by the hook: %v", d)
	}
	if d, ok := (&Proxy{}).NewSession(Connection{}).Command(t.Context(), "NOOP"+many).(Pass); !ok {
		t.Errorf("NOOP: %v", d)
	}
	s := inTransaction(t, &Proxy{}, "MAIL FROM:<a@b>")
	if r, ok := s.Command(t.Context(), "MAIL FROM:<a@b>"+many).(Reply); !ok || r.Code != 503 {
		t.Errorf("MAIL in a transaction: %v", r)
	}
}

// What is kept of a command is measured by what a great many of them take.
func TestATransactionKeepsWhatItNeedsNotTheLine(t *testing.T) {
	const sessions, recipients = 50, 40
	const param = 32 // octets of one, but its strings
	// octets returns how many a session takes.
	octets := func(mail, rcpt string) int {
		kept := make([]*Session, 0, sessions)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools kept is gone, too
		runtime.ReadMemStats(&before)
		for range sessions {
			lines := []string{strings.Clone(mail)}
			for range recipients {
				lines = append(lines, strings.Clone(rcpt))
			}
			kept = append(kept, inTransaction(t, &Proxy{}, lines...))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(kept)
		return (int(after.HeapAlloc) - int(before.HeapAlloc)) / sessions
	}
	blanks := strings.Repeat(" ", 1900)
	plain := octets("MAIL FROM:<a@a>", "RCPT TO:<b@b>")
	if n := plain / recipients; n > 400 {
		t.Errorf("%d octets for each plain recipient", n)
	}
	// hold holds that a session takes no more than a plain one. If it does, that may
	// be somebody else's.
	hold := func(most int, mail, rcpt string) {
		t.Helper()
		more := 0
		for range 3 {
			if more = octets(mail, rcpt) - plain; more <= most {
				return
			}
		}
		t.Errorf("%.20q... of %d octets, and %d times %.20q... of %d octets: %d octets more than plain ones, want %d at most",
			mail, len(mail), recipients, rcpt, len(rcpt), more, most)
	}
	for _, tt := range []struct {
		args string
		most int // octets more than a plain one
	}{
		{"<b@b>" + blanks, 100},
		{blanks + "<b@b>", 100},
		{"<b@b>" + blanks + "X=1", 100 + param},
		{"<@" + strings.Repeat("a.", 900) + "a:b@b>", 100},
		{"<" + strings.Repeat("@a,", 600) + "@a:b@b> X=", 100 + param},
		{strings.Repeat("\t", 1900) + `<"B"@B>`, 100},
		{"<b@b>" + strings.Repeat(" a", 33), 33*param + 500},
		{"<b@b>" + strings.Repeat(" a", 64), 64*param + 500},
		{"<b@b>" + strings.Repeat(" a", 64) + blanks, 64*param + 500},
	} {
		hold(recipients*tt.most, "MAIL FROM:<a@a>", "RCPT TO:"+tt.args)
		hold(tt.most+400, "MAIL FROM:"+tt.args, "RCPT TO:<b@b>")
	}
	for _, rcpt := range []string{"RCPT " + blanks + "TO:<b@b>", "RCPT " + blanks + "TO:b", "RCPT" + blanks} {
		hold(recipients*100, "MAIL FROM:<a@a>", rcpt)
	}
	for _, mail := range []string{"MAIL FROM:<>" + blanks, "MAIL" + blanks + "FROM:<>", "MAIL" + blanks + "FROM:a", "MAIL" + blanks} {
		hold(500, mail, "RCPT TO:<b@b>")
	}
}
