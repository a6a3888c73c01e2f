package secret_test

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/secret"
)

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestTheSecretOfACommandIsMaskedInATextInAllItsForms(t *testing.T) {
	for _, tt := range []struct{ why, line, text, want string }{
		{"nothing is secret", "NOOP AGEAYg==", "bad AGEAYg==", "bad AGEAYg=="},
		{"a mechanism isn't", "AUTH PLAIN", "bad PLAIN", "bad PLAIN"},
		{"a response", "AUTH PLAIN AGFsaWNlAGNvcnJlY3Q=", "PLAIN AGFsaWNlAGNvcnJlY3Q= is alice, correct", "PLAIN **** is ****, ****"},
		{"without a mechanism", "AUTH AGFsaWNlAGNvcnJlY3Q=", "bad AGFsaWNlAGNvcnJlY3Q= of correct", "bad **** of ****"},
		{"without a mechanism and padding", "AUTH AGFsaWNlAGNvcnJlY3Q", "bad AGFsaWNlAGNvcnJlY3Q of correct", "bad **** of ****"},
		{"with an equals sign", "AUTH=PLAIN correct", "bad AUTH=PLAIN correct", "bad AUTH=PLAIN ****"},
		{"with an equals sign alone", "AUTH=correct", "bad correct", "bad ****"},
		{"with a blank before", " AUTH PLAIN correct", `bad " AUTH PLAIN correct"`, `bad " AUTH PLAIN ****"`},
		{"as in IMAP", "a1 LOGIN alice correct", "alice is not correct", "**** is not ****"},
		{"an unknown mechanism", "AUTH X-OWN correct", "no X-OWN correct", "no ****"},
		{"three octets", "AUTH PLAIN pwd", `"pwd" is no pwd2, pwd`, `"****" is no pwd2, ****`},
		{"three octets, encoded", "AUTH PLAIN AGEAcHdk", `"\x00a\x00pwd": a, pwd`, `"****": ****, ****`},
		{"one octet", "PASS x", "x is not xx", "**** is not xx"},
		{"quoted", `PASS a"\ö` + "\u200b", fmt.Sprintf("bad %q", `a"\ö`+"\u200b"), `bad "****"`},
		{"in upper case", "PASS Correct", "CORRECT: no command", "****: no command"},
		{"in lower case", "AUTH PLAIN AGFsaWNl", "bad agfsawnl", "bad ****"},
		{"in upper case, which takes more octets", "PASS ɐcorrect", "bad ⱯCORRECT!", "bad ****!"},
		{"three octets in upper case", "PASS pwd", "PWD is no PWD2", "**** is no PWD2"},
		{"octets that are no text", "PASS \xffcorrect", "\xffcorrect, \xfecorrect", "****, \xfecorrect"},
		{"in hex", "PASS correct", fmt.Sprintf("%x %X", "correct", "correct"), "**** ****"},
		{"as octets", "PASS correct", fmt.Sprint([]byte("correct")), "[****]"},
		{"encoded", "PASS correct", encoded("correct"), "****"},
		{"one that is a part of another", "PASS corr correct", "correct corr", "**** ****"},
		{"a token", "AUTH OAUTHBEARER " + encoded("n,a=u@x,\x01auth=Bearer t0ken\x01\x01"), "bad t0ken of u@x", "bad **** of ****"},
		{"a token with padding", "AUTH OAUTHBEARER " + encoded("n,,\x01auth=Bearer t0ken==\x01\x01"), "bad t0ken==", "bad ****"},
		{"a password with a blank, encoded", "AUTH PLAIN " + encoded("\x00alice\x00correct horse"), "bad correct horse", "bad ****"},
		{"in the standard alphabet of base64", "AUTH PLAIN c3ViPz4/", "bad sub?>?", "bad ****"},
		{"in the alphabet for URLs", "AUTH PLAIN c3ViPz4_", "bad sub?>?", "bad ****"},
		{"nothing, encoded", "AUTH PLAIN =", "bad = it is", "bad **** it is"},
		{"not quoted", `PASS a"b`, `bad a"b`, "bad ****"},
		{"in brackets", "PASS <correct>", "bad correct", "bad ****"},
		{"a word of several", "PASS a=b c=d", "bad a=b", "bad ****"},
		{"two octets, encoded", "AUTH PLAIN cHc=", "cHc= is pw", "**** is ****"},
		{"two octets, in hex and as octets", "PASS pw", "7077 [112 119]", "**** [****]"},
		{"one octet, which in hex is like any number", "PASS x", "78 120", "78 120"},
	} {
		_, hidden := secret.Split(tt.line)
		if got := secret.Scrub(tt.text, hidden); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, got, tt.want)
		}
	}
}

// A short secret may be a part of any word, so it counts only where it stands alone. A
// longer one is masked wherever it is.
func TestAShortSecretIsMaskedWhereItStandsAlone(t *testing.T) {
	for _, tt := range []struct{ why, secret, text, want string }{
		{"nothing", "", "a b", "a b"},
		{"nothing, in nothing", "", "", ""},
		{"one octet, alone in the text", "x", "x", "****"},
		{"one octet, in nothing", "x", "", ""},
		{"one octet, first and last", "x", "x is x", "**** is ****"},
		{"one octet, in words", "x", "x1 1x ax xa Ax xZ xx", "x1 1x ax xa Ax xZ xx"},
		{"one octet, behind the first", "x", "ax", "ax"},
		{"one octet, beside letters beyond ASCII", "x", "öx xö", "öx xö"},
		{"one octet, beside what is no word", "x", `"x" (x) x=x, x; _x_ -x- x`, `"****" (****) ****=****, ****; _****_ -****- ****`},
		{"two octets", "pw", "pw apw pwa pw", "**** apw pwa ****"},
		{"two octets, longer than the text", "pw", "p", "p"},
		{"three octets", "pwd", "pwd apwd pwda pwd", "**** apwd pwda ****"},
		{"three octets, the last ones cut off", "pwd", "pwd pw", "**** pw"},
		{"three octets, beside a word on one side", "pwd", "a-pwd=1 pwd2", "a-****=1 pwd2"},
		{"four octets", "pwdx", "pwdx apwdx pwdxa pwdx", "**** a**** ****a ****"},
		{"four octets, beside letters beyond ASCII", "pwdx", "öpwdxö", "ö****ö"},
		{"one after the other", ".", "..", "********"},
		{"like the mask", "*", "* *", "**** ****"},
		{"like the mask, of two octets", "**", "** x", "**** x"},
		{"a letter beyond ASCII", "ö", "ö xö öx öö", "**** xö öx öö"},
	} {
		if got := secret.Scrub(tt.text, tt.secret); got != tt.want {
			t.Errorf("%s: %q in %q: %q, want %q", tt.why, tt.secret, tt.text, got, tt.want)
		}
	}
}

func TestWhatIsPrintedIsOneLineOfTextOfLimitedLength(t *testing.T) {
	limit := strings.Repeat("X", 1024)
	for _, tt := range []struct{ why, in, want string }{
		{"nothing", "", ""},
		{"text", `NOOP "x" \`, `NOOP "x" \`},
		{"text beyond ASCII", "MAIL FROM:<\u00f6@b>", "MAIL FROM:<\u00f6@b>"},
		{"what could be taken for something else", "X \u200b\u2028\ufeff\u202e\xff\t", `X \u200b\u2028\ufeff\u202e\xff\t`},
		{"the character that stands for invalid ones", "\ufffd", "\ufffd"},
		{"quotation marks beside an escape", "\"\t", `\"\t`},
		{"as long as it may be", limit, limit},
		{"longer", limit + "X", limit + "..."},
		{"cut within a character", limit[1:] + "\u00f6", limit[1:] + `\xc3...`},
	} {
		if got := secret.Printable(tt.in); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}

func TestWhatIsQuotedIsAGoStringOfLimitedLength(t *testing.T) {
	limit := strings.Repeat("X", 1024)
	for in, want := range map[string]string{
		"":            "",
		"NOOP \"\t\"": "NOOP \"\t\"",
		limit:         limit,
		limit + "X":   limit + "...",
	} {
		if got, err := strconv.Unquote(secret.Quoted(in)); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestWhatRepeatsASecretIsMaskedAndWhatItSaysDecodedIsNot(t *testing.T) {
	response := encoded("\x00alice\x00correct")
	for _, tt := range []struct{ secret, text, want string }{
		{response, "no " + response + ", " + strings.ToUpper(response) + " of alice, correct it", "no ****, **** of alice, correct it"},
		{"Correct horse", "CORRECT HORSE: correct command of a horse?", "****: **** command of a ****?"},
		{"a horse", "a Horse", "****"},
		{"", "nothing", "nothing"},
	} {
		if got := secret.ScrubWords(tt.text, tt.secret); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.secret, got, tt.want)
		}
	}
}
