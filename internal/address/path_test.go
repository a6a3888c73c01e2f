package address

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// parsed is what parseMail and parseRcpt return.
type parsed struct {
	path   Path
	params []Param
	ok     bool
}

func (p parsed) equal(q parsed) bool {
	return p.path == q.path && p.ok == q.ok && slices.Equal(p.params, q.params)
}

func asParsed(path Path, params []Param, ok bool) parsed {
	return parsed{path, params, ok}
}

func mailboxOf(local, domain, mailbox string) parsed {
	return parsed{Path{local, domain, mailbox}, nil, true}
}

func (p parsed) with(params ...Param) parsed {
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
		{"no brackets, tab behind a space", "a@b \tX\tY", ab.with(Param{"X", ""}, Param{"Y", ""})},
		{"no brackets, parameter", " a@b SIZE=1", ab.with(Param{"SIZE", "1"})},
		{"no brackets, quoted", ` "a b"@x SIZE=1`, mailboxOf("a b", "x", `"a b"@x`).with(Param{"SIZE", "1"})},
		{"no brackets, source route", "@c:a@b", ab},
		{"no brackets, dots", " a..b@c. X", mailboxOf("a..b", "c.", `"a..b"@c.`).with(Param{"X", ""})},
		{"no brackets, like a parameter", " x=a@b", noPath},
		{"no brackets, a second path", "a@b TO:<c@d> FROM:<c@d>", noPath},
		{"no brackets, a second path in a parameter", "a@b X=TO:<c@d> X=FROM:<c@d>", noPath},
		{"no brackets, a second path without brackets", "a@b TO:c@d FROM:c@d", noPath},
		{"no brackets, brackets in a parameter", "a@b X=<c@d>", noPath},
		{"no brackets, comment", "a@b (c@d)", noPath},
		{"no brackets, word", "a@b c@d", noPath},
		{"no brackets, literal", "a@[127.0.0.1] X", mailboxOf("a", "[127.0.0.1]", "a@[127.0.0.1]").with(Param{"X", ""})},
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
		{"general literal with delimiters of a literal's own", `<a@[tag:x=y:z/]> SIZE=1`, mailboxOf("a", `[tag:x=y:z/]`, `a@[tag:x=y:z/]`).with(Param{"SIZE", "1"})},
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

		{"parameter", "<a@b> SIZE=10", ab.with(Param{"SIZE", "10"})},
		{"parameters in order, tabs", "<a@b>\tSIZE=10 \t BODY=8BITMIME", ab.with(Param{"SIZE", "10"}, Param{"BODY", "8BITMIME"})},
		{"keyword in upper case, value as sent", "<a@b> Envid=QQ+2B Ret=hdrs", ab.with(Param{"ENVID", "QQ+2B"}, Param{"RET", "hdrs"})},
		{"keyword without value", "<a@b> smtputf8", ab.with(Param{"SMTPUTF8", ""})},
		{"keyword with an empty value", "<a@b> x=", ab.with(Param{"X", ""})},
		{"equals sign in a value", "<a@b> X=a=b=", ab.with(Param{"X", "a=b="})},
		{"brackets in a value, the last of which ends the path to some servers", "<a@b> AUTH=<>", noPath},
		{"opening bracket in a value", "<a@b> X=<", noPath},
		{"closing bracket in a value", "<a@b> X=>", noPath},
		{"at sign and colon in a value", "<a@b> ORCPT=rfc822;c@d X=e@f:g", ab.with(Param{"ORCPT", "rfc822;c@d"}, Param{"X", "e@f:g"})},
		{"mailbox behind a colon in a value, which some servers take for the path", "<a@b> X=c:d@e", noPath},
		{"parameter behind a colon", "<a@b> X=c: Y=d@e", noPath},
		{"duplicates kept", "<a@b> X=1 X=1 x=2", ab.with(Param{"X", "1"}, Param{"X", "1"}, Param{"X", "2"})},
		{"long s in a keyword, an S to some", "<a@b> ſize=1", noPath},
		{"UTF-8 in a value", "<a@b> ORCPT=utf-8;ö@ä", ab.with(Param{"ORCPT", "utf-8;ö@ä"})},
		{"empty keyword", "<a@b> =1", noPath},
		{"empty keyword among others", "<a@b> X=1 = Y", noPath},
		{"hyphens and digits in a keyword", "<a@b> 8-bit-=1", ab.with(Param{"8-BIT-", "1"})},
		{"hyphen at the start of a keyword", "<a@b> -x", noPath},
		{"underscore in a keyword", "<a@b> x_y", noPath},
		{"dot as a keyword", "<a@b> .", noPath},
		{"parameter without a space before it", "<a@b>SIZE=1 X", ab.with(Param{"SIZE", "1"}, Param{"X", ""})},
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
		{"null reverse-path, parameters", "FROM:<> SIZE=1 BODY=7BIT", null.with(Param{"SIZE", "1"}, Param{"BODY", "7BIT"})},
		{"null reverse-path, empty keyword", "FROM:<> =1", noPath},
		{"null reverse-path, parameter without a space", "FROM:<>SIZE=1", null.with(Param{"SIZE", "1"})},
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
		{"postmaster with a parameter", "TO:<Postmaster> notify=NEVER", mailboxOf("Postmaster", "", "postmaster").with(Param{"NOTIFY", "NEVER"})},
		{"postmaster with a domain", "TO:<Postmaster@b>", mailboxOf("Postmaster", "b", "postmaster@b")},
		{"postmaster with a long s", "TO:<poſtmaster>", noPath},
		{"postmaster without brackets", "TO:postmaster", noPath},
		{"postmaster with an empty domain", "TO:<postmaster@>", noPath},
		{"postmaster behind a route", "TO:<@a:postmaster>", noPath},
		{"postmaster, parameter without a space", "TO:<postmaster>X", mailboxOf("postmaster", "", "postmaster").with(Param{"X", ""})},
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

// checkPath parses keyword+path and checks what is true of every result.
func checkPath(t *testing.T, parse func(string) (Path, []Param, bool), keyword, path string) {
	t.Helper()
	in := keyword + path
	p, params, ok := parse(in)
	if !ok {
		if p != (Path{}) || params != nil {
			t.Fatalf("%q: not ok, but results: %q %q", in, p, params)
		}
		return
	}

	texts := []string{p.Local, p.Domain, p.Mailbox}
	for _, param := range params {
		key, value := param.Key, param.Value
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
	addr := Join(p.Local, p.Domain)
	if p.Mailbox != ascii.ToLower(addr) {
		t.Errorf("%q: mailbox %q of address %q", in, p.Mailbox, addr)
	}
	if strings.ContainsAny(p.Mailbox, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t.Errorf("%q: upper case in mailbox %q", in, p.Mailbox)
	}

	// Round trips: what is written means the same when it is read.
	p2, params2, ok := parse(keyword + "<" + addr + ">")
	if p2 != p || params2 != nil || !ok {
		t.Errorf("%q: address %q parsed again: %q %v", in, addr, p2, ok)
	}
	if p2, _, ok = parse(keyword + "<" + p.Mailbox + ">"); p2.Mailbox != p.Mailbox || !ok {
		t.Errorf("%q: mailbox %q parsed again: %q %v", in, p.Mailbox, p2.Mailbox, ok)
	}
	if p.Domain == "" {
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
	if p2, params2, ok = other(keyword2 + path); p2 != p || !slices.Equal(params2, params) || !ok {
		t.Errorf("%q: differs for the other command: %q %q %v", in, p2, params2, ok)
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
