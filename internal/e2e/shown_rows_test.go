package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file has a row for each kind of reply, whoever gives it: who is shown it, and how. The
// client gets the same octets as where nobody looks.

// What the scripts of many rows begin with, what their clients do then, and what is shown.
const (
	srvHello = "S: 220 x|C: EHLO client.example|S: 250 x|"
	srvRcpt  = srvHello + "C: MAIL FROM:<a@a>|S: 250 2.1.0 x|C: RCPT TO:<b@b>|S: 250 2.1.5 x|"
	srvLMTP  = "S: 220 x|C: LHLO x|S: 250 x|C: MAIL FROM:<a@a>|S: 250 2.1.0 x|C: RCPT TO:<b@b>|S: 250 2.1.5 x|C: RCPT TO:<c@c>|S: 250 2.1.5 x|"
	toLMTP   = "< 220|> LHLO x|< 250|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|> RCPT TO:<c@c>|< 250|"

	shownHello = "- server 220|EHLO server 250|"
	shownRcpt  = shownHello + "MAIL server 250 2.1.0 t0|RCPT server 250 2.1.5 t1|"
	shownLMTP  = "- server 220|LHLO server 250|MAIL server 250 2.1.0 t0|RCPT server 250 2.1.5 t1|RCPT server 250 2.1.5 t2|"
)

// serverRows are about the server's replies.
var serverRows = []shownRow{
	{why: "a greeting, and the client leaves", server: ofScript("S: 220 x|END"),
		say: "< 220|FIN", want: "- server 220", octets: "220 x\r\n"},
	{why: "554 in the place of a greeting (RFC 5321 section 3.1)", server: ofScript("S: 554 5.7.1 no"),
		say: "< 554|END", want: "- server 554 5.7.1", octets: "554 5.7.1 no\r\n"},
	{why: "421 in the place of a greeting (RFC 5321 section 3.8)", server: ofScript("S: 421 4.3.2 x"),
		say: "< 421|END", want: "- server 421 4.3.2 last"},
	{why: "EHLO with keywords", server: ofScript("S: 220 x|C: EHLO x|S> \"250-x\\r\\n250-PIPELINING\\r\\n250 8BITMIME\\r\\n\"|END"),
		say: "< 220|> EHLO x|< 250|FIN", want: "- server 220|EHLO server 250", octets: "220 x\r\n250-x\r\n250-PIPELINING\r\n250 8BITMIME\r\n"},
	{why: "EHLO refused, then HELO", server: ofScript("S: 220 x|C: EHLO x|S: 502 5.5.1 no|C: HELO x|S: 250 x|END"),
		say: "< 220|> EHLO x|< 502|> HELO x|< 250|FIN", want: "- server 220|EHLO server 502 5.5.1|HELO server 250"},
	{why: "a whole message, and more", server: ofScript(srvRcpt + "C: RCPT TO:<c@c>|S: 550 5.1.1 no|C: NOOP|S: 250 2.0.0 x|C: VRFY x|S: 252 2.5.2 x|C: DATA|S: 354 go|C: hi|C: .|S: 250 2.0.0 x|C: QUIT|S: 221 2.0.0 x"),
		say:  toRcpt + "> RCPT TO:<c@c>|< 550|> NOOP|< 250|> VRFY x|< 252|> DATA|< 354|> hi\r\n.|< 250|> QUIT|< 221|END",
		want: shownRcpt + "RCPT server 550 5.1.1 t1|NOOP server 250 2.0.0 t1|VRFY server 252 2.5.2 t1|DATA server 354 t1|DATA server 250 2.0.0 7o t1|QUIT server 221 2.0.0 last"},
	{why: "MAIL refused, DATA refused, QUIT refused", server: ofScript(srvHello + "C: MAIL FROM:<a@a>|S: 550 5.7.1 no|C: MAIL FROM:<b@b>|S: 250 2.1.0 x|C: RCPT TO:<b@b>|S: 251 2.1.5 x|C: DATA|S: 451 4.3.0 no|C: QUIT|S: 500 5.5.1 no|END"),
		say:  hello + "> MAIL FROM:<a@a>|< 550|> MAIL FROM:<b@b>|< 250|> RCPT TO:<b@b>|< 251|> DATA|< 451|> QUIT|< 500|FIN",
		want: shownHello + "MAIL server 550 5.7.1|MAIL server 250 2.1.0 t0|RCPT server 251 2.1.5 t1|DATA server 451 4.3.0 t1|QUIT server 500 5.5.1 t1"},
	{why: "RSET, which ends a transaction", server: ofScript(srvRcpt + "C: RSET|S: 250 2.0.0 x|C: RSET|S: 250 2.0.0 x|END"),
		say: toRcpt + "> RSET|< 250|> RSET|< 250|FIN", want: shownRcpt + "RSET server 250 2.0.0 t1|RSET server 250 2.0.0"},
	{why: "EHLO, which ends a transaction", server: ofScript(srvRcpt + "C: EHLO y|S: 250 x|END"),
		say: toRcpt + "> EHLO y|< 250|FIN", want: shownRcpt + "EHLO server 250 t1"},
	{why: "a message refused, and the RSET that nobody is shown", server: ofScript(srvRcpt + "C: DATA|S: 354 go|C: .|S: 552 5.3.4 no|C: RSET|S: 250 2.0.0 x|C: MAIL FROM:<c@c>|S: 250 2.1.0 x|END"),
		say:  toRcpt + "> DATA|< 354|> .|< 552|> MAIL FROM:<c@c>|< 250|FIN",
		want: shownRcpt + "DATA server 354 t1|DATA server 552 5.3.4 3o t1|MAIL server 250 2.1.0 t0"},
	{why: "421 to that RSET, which is the reply to MAIL", server: ofScript(srvRcpt + "C: DATA|S: 354 go|C: .|S: 552 5.3.4 no|C: RSET|S: 421 4.3.2 x"),
		say:  toRcpt + "> DATA|< 354|> .|< 552|> MAIL FROM:<c@c>|< 421|END",
		want: shownRcpt + "DATA server 354 t1|DATA server 552 5.3.4 3o t1|MAIL server 421 4.3.2 last"},
	{why: "chunks, with their octets", server: ofScript(srvRcpt + "C: BDAT 2|C> \"hi\"|S: 250 2.0.0 x|C: BDAT 3 LAST|C> \"ho\\n\"|S: 250 2.0.0 x|END"),
		say:  toRcpt + `. "BDAT 2\r\nhi"|< 250|. "BDAT 3 LAST\r\nho\n"|< 250|FIN`,
		want: shownRcpt + "BDAT server 250 2.0.0 2o t1|BDAT server 250 2.0.0 3o t1"},
	{why: "a chunk refused, which ends the transaction", server: ofScript(srvRcpt + "C: BDAT 2|C> \"hi\"|S: 452 4.3.1 no|END"),
		say: toRcpt + `. "BDAT 2\r\nhi"|< 452|FIN`, want: shownRcpt + "BDAT server 452 4.3.1 2o t1"},
	{why: "AUTH, in two lines", server: ofScript(srvHello + "C: AUTH PLAIN|S: 334 |C: AHVzZXIAcGFzcw==|S: 235 2.7.0 x|END"), proxy: smtpproxy.Proxy{AllowInsecureAuth: true},
		say: hello + "> AUTH PLAIN|< 334|> AHVzZXIAcGFzcw==|< 235|FIN", want: shownHello + "AUTH server 334|sasl server 235 2.7.0"},
	{why: "AUTH refused, in one line", server: ofScript(srvHello + "C: AUTH PLAIN AHVzZXIAcGFzcw==|S: 535 5.7.8 no|END"), proxy: smtpproxy.Proxy{AllowInsecureAuth: true},
		say: hello + "> AUTH PLAIN AHVzZXIAcGFzcw==|< 535|FIN", want: shownHello + "AUTH server 535 5.7.8"},
	{why: "421 to a command", server: ofScript(srvHello + "C: NOOP|S: 421 4.3.2 x"),
		say: hello + "> NOOP|< 421|END", want: shownHello + "NOOP server 421 4.3.2 last"},
	{why: "421 to nothing, the last word to a client that has sent nothing", server: ofScript(srvHello + "WAIT 1s|S: 421 4.4.2 x"),
		say: hello + "< 421|END", want: shownHello + "- server 421 4.4.2 last"},
	{why: "a refusal before the end of the message", server: ofScript(srvRcpt + "C: DATA|S: 354 go|C: hi|S: 552 5.3.4 no|BROKEN"),
		say: toRcpt + "> DATA|< 354|. \"hi\\r\\n\"|< 552|FIN", want: shownRcpt + "DATA server 354 t1|DATA server 552 5.3.4 4o t1"},
	{why: "250 before the end, which is kept up to it", server: ofScript(srvRcpt + "C: DATA|S: 354 go|C: hi|S: 250 2.0.0 x|C: .|END"),
		say: toRcpt + "> DATA|< 354|> hi|WAIT 1s|> .|< 250|FIN", want: shownRcpt + "DATA server 354 t1|DATA server 250 2.0.0 7o t1"},

	{why: "LMTP statuses, one by one (RFC 2033 section 4.2)", server: ofScript(srvLMTP + "C: DATA|S: 354 go|C: .|S: 250 2.1.5 x|S: 550 5.2.2 no|C: NOOP|S: 250 2.0.0 x|END"),
		say: toLMTP + "> DATA|< 354|> .|< 250|< 550|> NOOP|< 250|FIN", want: shownLMTP + "DATA server 354 t2|DATA server 250 2.1.5 #0 3o t2|DATA server 550 5.2.2 #1 3o t2|NOOP server 250 2.0.0"},
	{why: "an LMTP status of 421, which doesn't hide the next", server: ofScript(srvLMTP + "C: DATA|S: 354 go|C: .|S: 421 4.2.1 no|S: 250 2.1.5 x|END"),
		say: toLMTP + "> DATA|< 354|> .|< 421|< 250|FIN", want: shownLMTP + "DATA server 354 t2|DATA server 421 4.2.1 #0 3o t2|DATA server 250 2.1.5 #1 3o t2"},
	{why: "LMTP statuses after BDAT LAST (RFC 2033 section 4.3)", server: ofScript(srvLMTP + "C: BDAT 2 LAST|C> \"hi\"|S: 250 2.1.5 x|S: 550 5.2.2 no|END"),
		say: toLMTP + `. "BDAT 2 LAST\r\nhi"|< 250|< 550|FIN`, want: shownLMTP + "BDAT server 250 2.1.5 #0 2o t2|BDAT server 550 5.2.2 #1 2o t2"},
	{why: "LMTP statuses before the end, which are kept up to it", server: ofScript(srvLMTP + "C: DATA|S: 354 go|C: hi|S: 250 2.1.5 x|S: 550 5.2.2 no|C: .|C: NOOP|S: 250 2.0.0 x|END"),
		say: toLMTP + "> DATA|< 354|> hi|WAIT 2s|> .|< 250|< 550|> NOOP|< 250|FIN", want: shownLMTP + "DATA server 354 t2|DATA server 250 2.1.5 #0 7o t2|DATA server 550 5.2.2 #1 7o t2|NOOP server 250 2.0.0"},
	{why: "an LMTP status refused before the end, from another goroutine", server: ofScript(srvLMTP + "C: DATA|S: 354 go|C: hi|BESIDE 550 5.2.2 no|C: .|S: 250 2.1.5 x|END"),
		say: toLMTP + "> DATA|< 354|> hi|< 550|> .|< 250|FIN", want: shownLMTP + "DATA server 354 t2|DATA server 550 5.2.2 #0 4o t2|DATA server 250 2.1.5 #1 7o t2"},
	{why: "one status of the server's where a client counts on two, which the library makes up", server: ofScript(srvLMTP + "C: BDAT 2 LAST|C> \"hi\"|S: 554 5.0.0 no|C: NOOP|S: 250 2.0.0 x|END"),
		say: toLMTP + `. "BDAT 2 LAST\r\nhi"|< 554|< 554|> NOOP|< 250|FIN`, want: shownLMTP + "BDAT server 554 5.0.0 #0 2o t2|BDAT library 554 5.0.0 #1 2o t2|NOOP server 250 2.0.0"},

	{why: "after STARTTLS, where the greeting isn't the client's", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
		server: ofScripts(srvHello+"END", "S: 220 y|C: EHLO z|S: 250 x|END"),
		say:    hello + "> STARTTLS|< 220|TLS|> EHLO z|< 250|FIN", want: shownHello + "STARTTLS! library 220 2.0.0|EHLO server 250"},
	{why: "a greeting after STARTTLS that is a refusal, put off to the next command", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
		server: ofScripts(srvHello+"END", "S: 554 5.7.1 no|END"),
		say:    hello + "> STARTTLS|< 220|TLS|> EHLO z|< 554|END", want: shownHello + "STARTTLS! library 220 2.0.0|EHLO! server 554 5.7.1 last"},
	{why: "such a greeting, and the server closes", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
		server: ofScripts(srvHello+"END", "S: 554 5.7.1 no"),
		say:    hello + "> STARTTLS|< 220|TLS|< 554|END", want: shownHello + "STARTTLS! library 220 2.0.0|- server 554 5.7.1 last"},
}

// oddRows are replies with spellings that the library has none of. What nobody changes goes
// out octet for octet.
var oddRows = []struct{ why, octets, want string }{
	{"a code alone (RFC 5321 section 4.2 wants clients to bear with it)", "250\r\n", "250"},
	{"a code and a blank", "250 \r\n", "250"},
	{"a line end without CR", "250 x\n", "250"},
	{"several lines", "250-x\r\n250 y\r\n", "250"},
	{"several lines, the last one a code", "550-x\r\n550\r\n", "550"},
	{"several lines, each with the enhanced code (RFC 2034 section 4)", "550-5.1.1 x\r\n550 5.1.1 y\r\n", "550 5.1.1"},
	{"several lines, the last one without it", "550-5.1.1 x\r\n550 y\r\n", "550"},
	{"several lines, with different ones", "550-5.1.1 x\r\n550 5.1.2 y\r\n", "550"},
	{"an enhanced code alone", "550 5.1.1\r\n", "550 5.1.1"},
	{"an enhanced code of another class", "550 4.1.1 x\r\n", "550"},
	{"what is no enhanced code: a zero leads", "550 5.01.1 x\r\n", "550"},
	{"what is no enhanced code: too large a number", "550 5.1.1000 x\r\n", "550"},
	{"what is no enhanced code: a version", "250 2.0 x\r\n", "250"},
	{"what is no enhanced code: four numbers", "250 2.0.0.1 x\r\n", "250"},
	{"what is no enhanced code: a sign", "250 2.+0.0 x\r\n", "250"},
	{"two blanks, and some behind", "250 2.1.0  x \r\n", "250 2.1.0"},
	{"octets beyond ASCII, and a tab", "550 5.1.1 \xff\tx\r\n", "550 5.1.1"},
	{"more than a hook may say in a line", "550 " + strings.Repeat("x", 600) + "\r\n", "550"},
}

func TestEachReplyIsShownAsItIsAndTheClientGetsItOctetForOctet(t *testing.T) {
	rows := serverRows
	for _, odd := range oddRows {
		octets := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(odd.octets, "\r", `\r`), "\n", `\n`), "\t", `\t`)
		rows = append(rows, shownRow{why: odd.why, server: ofScript("S: 220 x|C: NOOP|S> \"" + strings.ReplaceAll(octets, "\xff", `\xff`) + "\""),
			say: "< 220|> NOOP|ALL", want: "- server 220|NOOP server " + odd.want, octets: "220 x\r\n" + odd.octets})
	}
	for _, row := range append(append(rows, libraryRows...), hookRows...) {
		var first string
		for _, onlooker := range onlookers {
			bubble(t, row.why+", "+onlooker, func(t *testing.T) {
				albums, octets := row.play(t, onlooker)
				for _, a := range albums {
					if got := a.String(); got != row.want {
						t.Errorf("shown: %s\nwant:  %s", got, row.want)
					}
				}
				if onlooker == "nobody" {
					first = octets
				}
				if octets != first || row.octets != "" && octets != row.octets {
					t.Errorf("the client got %q, want %q", octets, row.octets)
				}
			})
		}
	}
}

// lineDecides makes a hook of decisions about lines, or errors; it passes all others.
func lineDecides(decisions map[string]any) func(cmd command) (decision, error) {
	return func(cmd command) (decision, error) {
		if err, is := decisions[cmd.Line].(error); is {
			return nil, err
		}
		d, _ := decisions[cmd.Line].(decision)
		return d, nil
	}
}

// libraryRows are about replies of the library's own.
var libraryRows = []shownRow{
	{why: "MAIL in a transaction", server: ofScript(srvRcpt + "END"),
		say: toRcpt + "> MAIL FROM:<a@a>|< 503|FIN", want: shownRcpt + "MAIL! library 503 5.5.1 t1"},
	{why: "RCPT, DATA and a chunk out of order", server: ofScript(srvHello + "C: MAIL FROM:<a@a>|S: 250 2.1.0 x|END"),
		say:  hello + "> RCPT TO:<b@b>|< 503|> DATA|< 503|> MAIL FROM:<a@a>|< 250|. \"BDAT 2\\r\\nhi\"|< 502|FIN",
		want: shownHello + "RCPT! library 503 5.5.1|DATA! library 503 5.5.1|MAIL server 250 2.1.0 t0|BDAT! library 502 5.5.1 t0"},
	{why: "STARTTLS where there is none", server: ofScript(srvHello + "END"),
		say: hello + "> STARTTLS|< 502|FIN", want: shownHello + "STARTTLS! library 502 5.5.1"},
	{why: "STARTTLS with parameters, and in a transaction", server: ofScript(srvRcpt + "END"), proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
		say: toRcpt + "> STARTTLS x|< 501|> STARTTLS|< 503|FIN", want: shownRcpt + "STARTTLS! library 501 5.5.4 t1|STARTTLS! library 503 5.5.1 t1"},
	{why: "a control character, and no verb", server: ofScript(srvHello + "END"),
		say: hello + `. "NOOP\x01\r\n"|< 500|> 1|< 500|FIN`, want: shownHello + "NOOP\x01! library 500 5.5.2|1! library 500 5.5.2"},
	{why: "a line too long", server: ofScript(srvHello + "END"), proxy: smtpproxy.Proxy{MaxLineLength: 100},
		say: hello + `. "x" x*200|< 500|END`, want: shownHello + "- library 500 5.4.0 last"},
	{why: "a line of an exchange that is too long", server: ofScript(srvHello + "C: AUTH PLAIN|S: 334 x|END"), proxy: smtpproxy.Proxy{AllowInsecureAuth: true},
		say: hello + "> AUTH PLAIN|< 334|. \"x\" x*20000|< 500|END", want: shownHello + "AUTH server 334|AUTH library 500 5.5.6 last"},
	{why: "a command that doesn't come in CommandTimeout", server: ofScript(srvHello + "END"), proxy: smtpproxy.Proxy{CommandTimeout: time.Second},
		say: hello + `. "NO"|< 421|END`, want: shownHello + "- library 421 4.4.2 last"},
	{why: "content that is too slow", server: ofScript(srvRcpt + "C: DATA|S: 354 go|BROKEN \"hi\\r\\n\""), proxy: smtpproxy.Proxy{MinDataRate: 1000},
		say: toRcpt + `> DATA|< 354|. "hi\r\n"|< 421|END`, want: shownRcpt + "DATA server 354 t1|DATA library 421 4.4.2 4o t1 last"},
	{why: "too many commands", server: ofScript(srvHello + "END"), proxy: smtpproxy.Proxy{MaxCommands: 1},
		say: hello + "> NOOP|< 421|END", want: shownHello + "NOOP! library 421 4.7.0 last"},
	{why: "too many errors", server: ofScript(srvHello + "END"), proxy: smtpproxy.Proxy{MaxErrors: 1},
		say: hello + "> 1|< 500|> 2|< 421|END", want: shownHello + "1! library 500 5.5.2|2! library 421 4.7.0 last"},
	{why: "HTTP", server: ofScript(srvHello + "END"),
		say: hello + "> GET / HTTP/1.1|< 502|END", want: shownHello + "GET! library 502 5.5.1 last"},
	{why: "TLS without STARTTLS", server: ofScript(srvHello + "END"),
		say: hello + `. "\x16\x03\x01"|< 554|END`, want: shownHello + "- library 554 5.7.0 last"},
	{why: "a bare newline in a message", server: ofScript(srvRcpt + "C: DATA|S: 354 go|BROKEN"), proxy: smtpproxy.Proxy{RejectBareNewlines: true},
		say: toRcpt + `> DATA|< 354|. "a\nb\r\n.\r\n"|< 550|END`, want: shownRcpt + "DATA server 354 t1|DATA library 550 5.6.0 t1 last"},
	{why: "a bare newline in an LMTP message, a status each", server: ofScript(srvLMTP + "C: DATA|S: 354 go|BROKEN"), proxy: smtpproxy.Proxy{RejectBareNewlines: true},
		say: toLMTP + `> DATA|< 354|. "a\nb\r\n.\r\n"|< 550|< 550|END`, want: shownLMTP + "DATA server 354 t2|DATA library 550 5.6.0 #0 t2 last|DATA library 550 5.6.0 #1 t2 last"},
	{why: "a bare newline in a chunk that isn't the last, which has no status", server: ofScript(srvLMTP + "C: BDAT 4|BROKEN"), proxy: smtpproxy.Proxy{RejectBareNewlines: true},
		say: toLMTP + `. "BDAT 4\r\n\nabc"|< 550|END`, want: shownLMTP + "BDAT library 550 5.6.0 4o t2 last"},
	{why: "a chunk that isn't the last is refused amid it, and has no status", server: ofScript(srvLMTP + "C: BDAT 4|C> \"ab\"|S: 552 5.3.4 no|END"),
		say: toLMTP + `. "BDAT 4\r\nab"|< 552|END`, want: shownLMTP + "BDAT server 552 5.3.4 2o t2"},
	{why: "an ambiguous end of a message that the server has taken", server: ofScript(srvRcpt + "C: DATA|S: 354 go|C: x|S: 250 2.0.0 x|BROKEN"),
		say: toRcpt + "> DATA|< 354|> x|WAIT 1s|. \" .\\r\\ny\\r\\n.\\r\\n\"|< 421|END", want: shownRcpt + "DATA server 354 t1|DATA library 421 4.3.0 3o t1 last"},
	{why: "a server that replies twice", server: ofScript("S: 220 x|C: NOOP|S> \"250 2.0.0 x\\r\\n250 x\\r\\n\"|END"),
		say: "< 220|> NOOP|< 250|< 421|END", want: "- server 220|NOOP server 250 2.0.0|- library 421 4.3.0 last"},
	{why: "a server that writes what is no reply", server: ofScript("S: 220 x|C: NOOP|S: hello|END"),
		say: "< 220|> NOOP|< 421|END", want: "- server 220|NOOP library 421 4.3.0 last"},
	{why: "SMTP where TLS comes first", server: ofScript("END"), proxy: smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true},
		say: "> EHLO x|< 554|END", want: "- library 554 5.7.0 last"},
	{why: "a client that no server takes after STARTTLS", server: ofScripts(srvHello + "END"), proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
		say: hello + "> STARTTLS|< 220|TLS|< 421|END", want: shownHello + "STARTTLS! library 220 2.0.0|- library 421 4.3.2 last"},
	{why: "what a hook has deleted from the keywords", server: ofScript(srvHello + "END"),
		kw:  func(kw *smtpproxy.Keywords) error { kw.Delete("VRFY"); return nil },
		say: hello + "> VRFY x|< 502|FIN", want: shownHello + "VRFY! library 502 5.5.1"},
	{why: "a last LMTP chunk beyond SIZE, dropped, a reply for each recipient", server: ofScript("S: 220 x|C: LHLO x|S> \"250-x\\r\\n250 SIZE 3\\r\\n\"|C: MAIL FROM:<a@a>|S: 250 2.1.0 x|C: RCPT TO:<b@b>|S: 250 2.1.5 x|C: RCPT TO:<c@c>|S: 250 2.1.5 x|C: NOOP|S: 250 2.0.0 x|END"),
		say: toLMTP + `. "BDAT 4 LAST\r\nhiho"|< 552|< 552|> NOOP|< 250|FIN`, want: shownLMTP + "BDAT! library 552 5.3.4 #0 t2|BDAT! library 552 5.3.4 #1 t2|NOOP server 250 2.0.0"},
}

// hookRows are about replies of a hook's, and of its failures.
var hookRows = []shownRow{
	{why: "a hook's replies", server: ofScript(srvHello + "END"),
		command: lineDecides(map[string]any{
			"NOOP":   reply{},
			"VRFY x": reply{Code: 550, Enhanced: enhanced{5, 7, 1}, Lines: []string{"a", "b"}},
			"HELP":   reply{Code: 214, Enhanced: smtpproxy.NoEnhancedCode, Lines: []string{"a"}},
			"QUIT":   reply{Code: 221},
		}),
		say:    hello + "> NOOP|< 250|> VRFY x|< 550|> HELP|< 214|> QUIT|< 221|END",
		want:   shownHello + "NOOP! hook/h 250 2.0.0|VRFY! hook/h 550 5.7.1|HELP! hook/h 214|QUIT! hook/h 221 2.0.0 last",
		octets: "220 x\r\n250 x\r\n250 2.0.0 OK\r\n550-5.7.1 a\r\n550 5.7.1 b\r\n214 a\r\n221 2.0.0 Bye\r\n"},
	{why: "a hook's greeting of a client", server: ofScript("S: 220 x|END"), command: lineDecides(map[string]any{"EHLO x": reply{Lines: []string{"x", "SIZE"}}}),
		say: "< 220|> EHLO x|< 250|FIN", want: "- server 220|EHLO! hook/h 250"},
	{why: "a hook's own exchange", server: ofScript(srvHello + "END"), proxy: smtpproxy.Proxy{AllowInsecureAuth: true},
		command: lineDecides(map[string]any{"AUTH LOGIN": reply{Code: 334, Lines: []string{"VXNlcm5hbWU6"}}, "dXNlcg==": reply{Code: 334, Lines: []string{"UGFzc3dvcmQ6"}}, "cGFzcw==": reply{Code: 235}}),
		say:     hello + "> AUTH LOGIN|< 334|> dXNlcg==|< 334|> cGFzcw==|< 235|FIN", want: shownHello + "AUTH! hook/h 334|sasl! hook/h 334|sasl! hook/h 235 2.0.0"},
	{why: "a hook that ends the server's exchange, which nobody is shown the cancel of", server: ofScript(srvHello + "C: AUTH LOGIN|S: 334 x|C: *|S: 501 5.0.0 x|END"), proxy: smtpproxy.Proxy{AllowInsecureAuth: true},
		command: lineDecides(map[string]any{"AUTH LOGIN": pass{Next: true}, "dXNlcg==": reply{Code: 535}}),
		say:     hello + "> AUTH LOGIN|< 334|> dXNlcg==|< 535|FIN", want: shownHello + "AUTH server 334|sasl! hook/h 535 5.0.0"},
	{why: "a hook that changes the command", server: ofScript(srvHello + "C: VRFY y|S: 252 2.5.2 x|END"), command: lineDecides(map[string]any{"VRFY x": pass{Command: "VRFY y"}}),
		say: hello + "> VRFY x|< 252|FIN", want: shownHello + "VRFY>VRFY y server 252 2.5.2"},
	{why: "a hook that closes", server: ofScript(srvHello + "END"), command: lineDecides(map[string]any{"NOOP": reply{Code: 550, Disconnect: true}}),
		say: hello + "> NOOP|< 550|END", want: shownHello + "NOOP! hook/h 550 5.0.0 last"},
	{why: "a hook's failure", server: ofScript(srvHello + "END"), command: lineDecides(map[string]any{"NOOP": errTest}),
		say: hello + "> NOOP|< 421|END", want: shownHello + "NOOP! failure 421 4.3.0 last"},
	{why: "a hook's failure, and what OnFailure says", server: ofScript(srvHello + "END"), command: lineDecides(map[string]any{"NOOP": errTest}),
		proxy: smtpproxy.Proxy{OnFailure: func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 451} }},
		say:   hello + "> NOOP|< 451|FIN", want: shownHello + "NOOP! hook/h 451 4.0.0"},
	{why: "a hook's failure at the keywords", server: ofScript("S: 220 x|C: EHLO x|S: 250 x|END"), kw: func(*smtpproxy.Keywords) error { return errTest },
		say: "< 220|> EHLO x|< 421|END", want: "- server 220|EHLO failure 421 4.3.0 last"},
	{why: "a client that is refused in the place of the greeting", server: ofScript("END"),
		connect: decidesConnect(reply{Code: 554, Enhanced: enhanced{5, 7, 1}}),
		say:     "< 554|END", want: "- hook/h 554 5.7.1 last"},
	{why: "a hook's failure in the place of the greeting", server: ofScript("END"),
		connect: func(*hookContext, connection) (decision, error) { return nil, errTest },
		say:     "< 421|END", want: "- failure 421 4.3.0 last"},
	{why: "a last LMTP chunk that a hook refuses, for each recipient", server: ofScript(srvLMTP + "C: NOOP|S: 250 2.0.0 x|END"),
		command: lineDecides(map[string]any{"BDAT 2 LAST": reply{Code: 552, Enhanced: enhanced{5, 3, 4}}}),
		say:     toLMTP + `. "BDAT 2 LAST\r\nhi"|< 552|< 552|> NOOP|< 250|FIN`, want: shownLMTP + "BDAT! hook/h 552 5.3.4 #0 t2|BDAT! hook/h 552 5.3.4 #1 t2|NOOP server 250 2.0.0"},
	{why: "go-smtp, which speaks for itself", server: ofGoSMTP(),
		say:  toRcpt + "> RCPT TO:<nobody@b>|< 550|> DATA|< 354|> hi\r\n.|< 250|> QUIT|< 221|END",
		want: shownHello + "MAIL server 250 2.0.0 t0|RCPT server 250 2.0.0 t1|RCPT server 550 5.1.1 t1|DATA server 354 t1|DATA server 250 2.0.0 7o t1|QUIT server 221 2.0.0 last"},
}
