package secret_test

import (
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/secret"
)

func TestACommandLineIsSplitWhereItsSecretStarts(t *testing.T) {
	for _, tt := range []struct{ why, line, want string }{
		{"a command", "MAIL FROM:<a@b> SIZE=1", "MAIL FROM:<a@b> SIZE=1"},
		{"AUTH alone", "AUTH", "AUTH"},
		{"a mechanism", "AUTH PLAIN", "AUTH PLAIN"},
		{"an initial response", "AUTH PLAIN AGEAYg==", "AUTH PLAIN ****"},
		{"an empty initial response", "AUTH PLAIN =", "AUTH PLAIN ****"},
		{"in lower case", "auth plain AGEAYg==", "auth plain ****"},
		{"separated by tabs", "AUTH\tPLAIN\tAGEAYg==", "AUTH PLAIN ****"},
		{"separated by more than it should", "AUTH  \t PLAIN   AGEAYg==  ", "AUTH PLAIN ****"},
		{"more words than there should be", "AUTH PLAIN a s3cret", "AUTH PLAIN ****"},
		{"a mechanism that nobody knows, which may be a response", "AUTH X s3cret", "AUTH ****"},
		{"a response without a mechanism", "AUTH AGEAYg==", "AUTH ****"},
		{"a mechanism and nothing", "AUTH PLAIN  ", "AUTH PLAIN  "},
		{"a mechanism of more than one part", "AUTH scram-sha-256-plus biws", "AUTH scram-sha-256-plus ****"},
		{"a mechanism made of a hash", "AUTH GS2-DT4PIK22T6A biws", "AUTH GS2-DT4PIK22T6A ****"},
		{"a mechanism with an underscore", "AUTH GS2-A_B biws", "AUTH GS2-A_B ****"},
		{"a mechanism as long as may be", "AUTH GS2-ABCDEFGHIJKLMNOPQRSTUV biws", "AUTH GS2-ABCDEFGHIJKLMNOPQRSTUV ****"},
		{"longer than a mechanism", "AUTH GS2-ABCDEFGHIJKLMNOPQRSTUVW biws", "AUTH ****"},
		{"a mechanism and text behind it", "AUTH PLAIN-s3cret x", "AUTH ****"},
		{"a password like a mechanism made of a hash", "AUTH GS2-s3cret!", "AUTH ****"},
		{"an equals sign", "AUTH=PLAIN s3cret", "AUTH=PLAIN ****"},
		{"a colon", "Auth: Plain s3cret", "Auth:Plain ****"},
		{"an equals sign alone", "AUTH=", "AUTH ****"},
		{"an equals sign, no mechanism", "AUTH = s3cret", "AUTH=****"},
		{"an equals sign behind the mechanism", "AUTH PLAIN=s3cret", "AUTH PLAIN=****"},
		{"a colon behind the mechanism", "AUTH PLAIN:s3cret", "AUTH PLAIN:****"},
		{"another verb", "AUTHENTICATE PLAIN s3cret", "AUTHENTICATE PLAIN ****"},
		{"another verb without a mechanism", "Authenticate s3cret", "Authenticate ****"},
		{"a verb that is glued to something", "AUTHs3cret PLAIN x", "AUTH****"},
		{"a mechanism that is glued to the verb", "AUTHPLAIN s3cret", "AUTH****"},
		{"a verb with a hyphen", "AUTH-s3cret", "AUTH****"},
		{"a verb with something else", "AUTH\"s3cret\"", "AUTH****"},
		{"a header field", "Authorization: Basic s3cret", "Authorization:****"},
		{"a blank before", " AUTH PLAIN s3cret", " AUTH PLAIN ****"},
		{"a tab before", "\tAUTH PLAIN s3cret", `\tAUTH PLAIN ****`},
		{"no-break space before and between", "\u00a0AUTH\u00a0PLAIN\u3000s3cret", `\u00a0AUTH PLAIN ****`},
		{"byte order mark, zero width space", "\ufeff\u200bAUTH\u200bPLAIN\ufeffs3cret", `\ufeff\u200bAUTH PLAIN ****`},
		{"a prompt before", "> AUTH PLAIN s3cret", "> AUTH PLAIN ****"},
		{"a name before", "C: AUTH PLAIN s3cret", "C: AUTH PLAIN ****"},
		{"control characters, which the library refuses", "\x00AUTH\x00PLAIN\x01s3cret", `\x00AUTH PLAIN ****`},
		{"as in POP3", "PASS s3cret and more", "PASS ****"},
		{"as in POP3, the user", "USER alice", "USER alice"},
		{"as in POP3, a digest", "apop alice c4c9334bac560ecc979e58001b3e22fb", "apop ****"},
		{"a password with a colon", "Password:s3cret", "Password:****"},
		{"as in NNTP", "AUTHINFO PASS s3cret", "AUTHINFO ****"},
		{"as in IMAP", "a1 LOGIN alice s3cret", "a1 LOGIN ****"},
		{"as in IMAP, by hand", ". login alice s3cret", ". login ****"},
		{"as in IMAP, without a tag", "LOGIN alice s3cret", "LOGIN ****"},
		{"as in IMAP, SASL", "a1 AUTHENTICATE PLAIN AGEAYg==", "a1 AUTHENTICATE PLAIN ****"},
		{"LOGIN alone", "a1 LOGIN", "a1 LOGIN"},
		{"a host called login", "EHLO login s3cret", "EHLO login s3cret"},
		{"help", "HELP AUTH PLAIN", "HELP AUTH PLAIN"},
		{"AUTH of MAIL is no credential", "MAIL FROM:<a@b> AUTH=<>", "MAIL FROM:<a@b> AUTH=<>"},
		{"an empty line", "", ""},
		{"beyond ASCII", "MAIL FROM:<\u00f6@b>", "MAIL FROM:<\u00f6@b>"},
	} {
		shown, hidden := secret.Split(tt.line)
		got := secret.Printable(shown)
		if hidden != "" {
			got = secret.Printable(shown + secret.Mask)
		} else if shown != tt.line {
			t.Errorf("%s: %q has no secret, %q is shown", tt.why, tt.line, shown)
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
		if !strings.HasSuffix(tt.line, hidden) {
			t.Errorf("%s: the secret is %q", tt.why, hidden)
		}
	}
}
