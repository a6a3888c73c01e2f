package dialogue

import (
	"math"
	"testing"
)

func TestAVerbIsTheFirstWordOfPrintableASCIIThatStartsWithALetter(t *testing.T) {
	for _, tt := range []struct {
		why  string
		line string
		name string
		verb Verb
	}{
		{"RFC 5321 section 4.1.1.1", "HELO example.org", "HELO", HELO},
		{"RFC 5321 section 4.1.1.1", "EHLO example.org", "EHLO", EHLO},
		{"RFC 2033 section 4.1", "LHLO example.org", "LHLO", LHLO},
		{"RFC 5321 section 4.1.1.2", "MAIL FROM:<>", "MAIL", MAIL},
		{"RFC 5321 section 4.1.1.3", "RCPT TO:<a@b>", "RCPT", RCPT},
		{"RFC 5321 section 4.1.1.4", "DATA", "DATA", DATA},
		{"RFC 3030 section 2", "BDAT 5 LAST", "BDAT", BDAT},
		{"RFC 5321 section 4.1.1.5", "RSET", "RSET", RSET},
		{"RFC 5321 section 4.1.1.6", "VRFY a", "VRFY", VRFY},
		{"RFC 5321 section 4.1.1.7", "EXPN a", "EXPN", EXPN},
		{"RFC 5321 section 4.1.1.8", "HELP", "HELP", HELP},
		{"RFC 5321 section 4.1.1.9", "NOOP x", "NOOP", NOOP},
		{"RFC 5321 section 4.1.1.10", "QUIT", "QUIT", QUIT},
		{"RFC 4954 section 4", "AUTH PLAIN", "AUTH", AUTH},
		{"RFC 3207 section 4", "STARTTLS", "STARTTLS", STARTTLS},
		{"RFC 1985 section 5", "ETRN x", "ETRN", ETRN},
		{"Postfix", "XCLIENT ADDR=::1", "XCLIENT", XCLIENT},
		{"Postfix", "XFORWARD ADDR=::1", "XFORWARD", XFORWARD},
		{"a verb that nobody knows", "FOO bar", "FOO", Other},
		{"one letter", "X", "X", Other},
		{"what is behind the first word doesn't matter", "NOOP MAIL", "NOOP", NOOP},

		{"RFC 5321 section 2.4: case doesn't matter", "mail FROM:<>", "MAIL", MAIL},
		{"likewise, the first letter alone", "Xa XA", "XA", Other},
		{"likewise, mixed", "rCpT TO:<a@b>", "RCPT", RCPT},
		{"the first and last letter of the alphabet", "az AZ", "AZ", Other},
		{"a tab separates, too", "MAIL\tFROM:<>", "MAIL", MAIL},
		{"several blanks", "MAIL  \tFROM:<>", "MAIL", MAIL},
		{"a blank at the end", "DATA ", "DATA", DATA},
		{"a tab at the end", "DATA\t", "DATA", DATA},
		{"a colon belongs to the word", "DATA: x", "DATA:", Other},
		{"so does what isn't a letter", "a{}~!9 x", "A{}~!9", Other},
		{"a longer word is another", "DATAS", "DATAS", Other},
		{"so is a shorter", "DAT", "DAT", Other},

		{"an empty line", "", "", NoVerb},
		{"a blank before the verb, which some trim", " MAIL FROM:<>", "", NoVerb},
		{"a tab before the verb", "\tMAIL FROM:<>", "", NoVerb},
		{"a digit", "1MAIL", "", NoVerb},
		{"before the capitals", "@MAIL", "", NoVerb},
		{"behind the capitals", "[MAIL", "", NoVerb},
		{"before the small letters", "`mail", "", NoVerb},
		{"behind the small letters", "{mail", "", NoVerb},
		{"the one before the verb", "*", "", NoVerb},
		{"a letter beyond ASCII, which some fold to S", "ſtarttls", "", NoVerb},
		{"likewise within the word", "STARTTLſ", "", NoVerb},
		{"Kelvin sign", "\u212aAIL", "", NoVerb},
		{"ISO 8859-1", "\xe1MAIL", "", NoVerb},
		{"a control octet in the word", "MA\x01IL", "", NoVerb},
		{"the last control octet", "MA\x1fIL", "", NoVerb},
		{"NUL behind the verb", "MAIL\x00FROM", "", NoVerb},
		{"DEL in the word", "MAIL\x7f", "", NoVerb},
		{"the first octet beyond ASCII", "MAIL\x80", "", NoVerb},
		{"CR, which some take for a line end", "DATA\rQUIT", "", NoVerb},
		{"no-break space, at which some split", "MAIL\u00a0FROM", "", NoVerb},
		{"beyond ASCII behind the verb", "MAIL FROM:<ö@b>", "MAIL", MAIL},

		{"glued to STARTTLS", "STARTTLSX", "STARTTLSX", LikeSTARTTLS},
		{"likewise in small letters", "starttls;", "STARTTLS;", LikeSTARTTLS},
		{"a beginning of STARTTLS", "STARTTL", "STARTTL", Other},
		{"STARTTLS not at the start", "XSTARTTLS", "XSTARTTLS", Other},
		{"a misspelt AUTH", "AUTH=PLAIN x", "AUTH=PLAIN", LikeAUTH},
		{"another misspelt AUTH", "authenticate x", "AUTHENTICATE", LikeAUTH},
		{"a header field", "Authorization: Basic x", "AUTHORIZATION:", LikeAUTH},
		{"a beginning of AUTH", "AUT x", "AUT", Other},
		{"AUTH not at the start", "XAUTH x", "XAUTH", Other},

		{"a browser", "GET / HTTP/1.1", "GET", HTTP},
		{"a path is enough: HTTP/0.9", "GET /x", "GET", HTTP},
		{"so is a version", "CONNECT mx.example.org:25 HTTP/1.1", "CONNECT", HTTP},
		{"an asterisk", "OPTIONS * HTTP/1.1", "OPTIONS", HTTP},
		{"the preface of HTTP/2", "PRI * HTTP/2.0", "PRI", HTTP},
		{"in small letters", "post /x HTTP/1.0", "POST", HTTP},
		{"HEAD", "HEAD / HTTP/1.1", "HEAD", HTTP},
		{"PUT", "PUT / HTTP/1.1", "PUT", HTTP},
		{"DELETE", "DELETE / HTTP/1.1", "DELETE", HTTP},
		{"TRACE", "TRACE / HTTP/1.1", "TRACE", HTTP},
		{"PATCH", "PATCH / HTTP/1.1", "PATCH", HTTP},
		{"a tab behind the method", "GET\t/", "GET", HTTP},
		{"a method alone could be a command", "GET", "GET", Other},
		{"neither a path nor a version", "POST x", "POST", Other},
		{"a version glued to something", "GET xHTTP/1.1", "GET", Other},
		{"a version in small letters is none", "GET x http/1.1", "GET", Other},
		{"no method", "FETCH / HTTP/1.1", "FETCH", Other},
		{"a command with a path", "NOOP / HTTP/1.1", "NOOP", NOOP},
	} {
		if name, verb := VerbOf(tt.line); name != tt.name || verb != tt.verb {
			t.Errorf("%s: VerbOf(%q) = %q, %d, want %q, %d", tt.why, tt.line, name, verb, tt.name, tt.verb)
		}
	}
}

func TestArgumentsAreWhatFollowsTheVerb(t *testing.T) {
	for _, tt := range []struct{ why, line, want string }{
		{"a command", "MAIL FROM:<a@b> SIZE=1", "FROM:<a@b> SIZE=1"},
		{"white space between the two", "MAIL \t FROM:<a@b>", "FROM:<a@b>"},
		{"a tab between the two", "NOOP\tx", "x"},
		{"white space at the end stays", "MAIL FROM:<a@b> ", "FROM:<a@b> "},
		{"no arguments", "DATA", ""},
		{"blanks alone", "DATA \t", ""},
		{"without a verb, the whole line", " MAIL FROM:<a@b>", " MAIL FROM:<a@b>"},
		{"likewise where it has words", "ſTARTTLS now", "ſTARTTLS now"},
		{"nothing at all", "", ""},
	} {
		if got := ArgsOf(tt.line); got != tt.want {
			t.Errorf("%s: ArgsOf(%q) = %q, want %q", tt.why, tt.line, got, tt.want)
		}
	}
}

func TestALineIsTheSameStringWhoseverItIs(t *testing.T) {
	for _, line := range []string{"DATA", "RSET", "NOOP", "QUIT", "noop", "NOOP ", "DATAX", "MAIL FROM:<a@b>", "", "\xff"} {
		if got := LineOf([]byte(line)); got != line {
			t.Errorf("%q is taken for %q", line, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { LineOf([]byte("RSET")) }); n != 0 {
		t.Errorf("RSET takes %v allocations", n)
	}
}

func TestWhatKindOfVerbItIs(t *testing.T) {
	for _, tt := range []struct {
		why                          string
		verbs                        []Verb
		known, greets, hold, hasAUTH bool
	}{
		{"no command", []Verb{NoVerb}, false, false, false, false},
		{"a client names itself", []Verb{HELO, EHLO, LHLO}, true, true, false, false},
		{"RFC 2920 section 3.2 (5) and (6)", []Verb{MAIL, RCPT, RSET}, true, false, true, false},
		{"what the client must see at once", []Verb{DATA, BDAT, NOOP, QUIT, VRFY, EXPN, HELP, STARTTLS, ETRN, XCLIENT, XFORWARD}, true, false, false, false},
		{"credentials", []Verb{AUTH}, true, false, false, true},
		{"most likely credentials", []Verb{LikeAUTH}, false, false, false, true},
		{"nobody's", []Verb{LikeSTARTTLS, HTTP, Other}, false, false, false, false},
	} {
		for _, v := range tt.verbs {
			if v.IsKnown() != tt.known || v.Greets() != tt.greets || v.mayHold() != tt.hold || v.hasAUTH() != tt.hasAUTH {
				t.Errorf("%s: verb %d: known %v, greets %v, may hold %v, has AUTH %v", tt.why, v, v.IsKnown(), v.Greets(), v.mayHold(), v.hasAUTH())
			}
		}
	}
}

func TestABDATCommandHasOneFormAndBlanksBehindIt(t *testing.T) {
	const malformed = ""
	for _, tt := range []struct {
		why       string
		line      string
		size      int64
		last      bool
		canonical string
	}{
		{"RFC 3030 section 2", "BDAT 100", 100, false, "BDAT 100"},
		{"the last chunk", "BDAT 100 LAST", 100, true, "BDAT 100 LAST"},
		{"an empty chunk", "BDAT 0", 0, false, "BDAT 0"},
		{"an empty last chunk", "BDAT 0 LAST", 0, true, "BDAT 0 LAST"},
		{"case doesn't matter, and stays", "bdat 7 last", 7, true, "bdat 7 last"},
		{"some take leading zeros for octal", "BDAT 0100", 100, false, "BDAT 100"},
		{"likewise the last", "bdat 007 Last", 7, true, "bdat 7 Last"},
		{"no octal digit", "BDAT 08", 8, false, "BDAT 8"},
		{"zeros alone", "BDAT 000", 0, false, "BDAT 0"},
		{"zeros alone, the last", "BDAT 00 LAST", 0, true, "BDAT 0 LAST"},
		{"zeros before what has 32 bits", "BDAT 00004294967295", math.MaxUint32, false, "BDAT 4294967295"},
		{"the most of 64 bits: how much it may be, admit tells", "BDAT 9223372036854775807", math.MaxInt64, false, "BDAT 9223372036854775807"},
		{"RFC 5321 section 4.1.1: a blank behind it", "BDAT 5 ", 5, false, "BDAT 5"},
		{"blanks behind it", "BDAT 5 \t ", 5, false, "BDAT 5"},
		{"a tab behind it", "BDAT 5\t", 5, false, "BDAT 5"},
		{"blanks behind LAST", "BDAT 5 LAST\t ", 5, true, "BDAT 5 LAST"},
		{"both", "BDAT 05 LAST ", 5, true, "BDAT 5 LAST"},

		{"no size", "BDAT", -1, false, malformed},
		{"no size but a blank", "BDAT ", -1, false, malformed},
		{"no size but blanks", "BDAT  ", -1, false, malformed},
		{"LAST without a size", "BDAT LAST", -1, false, malformed},
		{"LAST behind a blank", "BDAT  LAST", -1, false, malformed},
		{"a sign", "BDAT +3", -1, false, malformed},
		{"a negative size", "BDAT -1", -1, false, malformed},
		{"not decimal", "BDAT 0x3", -1, false, malformed},
		{"the octet before 0", "BDAT 3/", -1, false, malformed},
		{"the octet behind 9", "BDAT 3:", -1, false, malformed},
		{"an underscore, which Go bears with", "BDAT 1_0", -1, false, malformed},
		{"digits beyond ASCII", "BDAT ٣", -1, false, malformed},
		{"two spaces before the size", "BDAT  3", -1, false, malformed},
		{"two spaces before LAST", "BDAT 3  LAST", -1, false, malformed},
		{"a tab before the size", "BDAT\t3", -1, false, malformed},
		{"a tab before LAST", "BDAT 3\tLAST", -1, false, malformed},
		{"not LAST, but some fold it to that", "BDAT 3 laſt", -1, false, malformed},
		{"a beginning of LAST", "BDAT 3 LAS", -1, false, malformed},
		{"more than LAST", "BDAT 3 LAST x", -1, false, malformed},
		{"beyond 64 bits", "BDAT 18446744073709551616", -1, false, malformed},
		{"one beyond 63 bits", "BDAT 9223372036854775808", -1, false, malformed},
		{"another verb", "BDAS 3", -1, false, malformed},
		{"another verb that begins so", "BDATA 3", -1, false, malformed},
	} {
		size, last := ParseBDAT(tt.line)
		if size != tt.size || last != tt.last {
			t.Errorf("%s: ParseBDAT(%q) = %d, %v, want %d, %v", tt.why, tt.line, size, last, tt.size, tt.last)
			continue
		}
		if tt.canonical == malformed {
			continue
		}
		if got := CanonicalBDAT(tt.line); got != tt.canonical {
			t.Errorf("%s: CanonicalBDAT(%q) = %q, want %q", tt.why, tt.line, got, tt.canonical)
		}
	}
}
