package proxytest

import (
	"cmp"
	"encoding/base64"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/secret"
)

// This file is about what stands in a recording where a client has sent credentials.

// cancels is the line with which a client cancels a SASL exchange.
const cancels = "*"

// maskedVerb stands for a line of which nothing may be shown, and which may be a command: nobody
// knows this one either.
const maskedVerb = "MASKED"

// credentials are those of a SASL exchange.
type credentials struct {
	mechanism string
	user      string // known when the server has accepted them
	responses int    // so far
}

// masked returns a line of the client's as readClient reads it, with what stands in the place
// of credentials. That, if it isn't nil, is behind the first, and is known when the exchange
// is over.
func (r *recording) masked(x *smtpproxy.Exchange) (line string, behind func() string) {
	cmd := x.Command
	if cmd.SASL {
		switch {
		case x.Reply.Code == 501:
			// It has cancelled the exchange, or sent what isn't in base64: RFC 4954 section 4
			// wants both refused so. When played, the first comes to the same.
			return cancels, nil
		case x.By == smtpproxy.ByLibrary && isNone(x.Passed): // which refuses nothing but control characters there
			return literal("\x00"), nil
		}
		if r.auth == nil {
			r.auth = new(credentials) // an exchange of the hook's own
		}
		return "", r.auth.next()
	}
	shown, hidden := secret.Split(cmd.Line)
	if hidden == "" {
		switch {
		case !isMasked(cmd):
		case cmd.Verb() == "":
			return secret.Mask, nil
		default:
			return maskedVerb, nil
		}
		r.begins(cmd.Line)
		return literal(cmd.Line), nil
	}
	if cmd.Verb() == "AUTH" && len(strings.Fields(shown)) == 2 {
		r.begins(shown)
		return shown, r.auth.next()
	}
	return literal(shown + secret.Mask), nil
}

// isMasked reports whether nothing of a line may be shown, as that of a password out of
// its place.
func isMasked(cmd smtpproxy.Command) bool { return cmd.String() == secret.Mask }

// withoutSecrets returns a reply as it is sent, without what it repeats of what is masked in the
// command, as a server does that doesn't know it.
func withoutSecrets(x *smtpproxy.Exchange) string {
	text := x.Reply.String()
	for _, cmd := range []smtpproxy.Command{x.Command, x.Passed} {
		_, hidden := secret.Split(cmd.Line)
		mask := secret.Mask
		if hidden == "" && isMasked(cmd) {
			hidden = cmd.Line
			if cmd.Verb() != "" {
				mask = maskedVerb // which a hook that repeats the line repeats when it is played
			}
		}
		if cmd.SASL || hidden == "" {
			continue
		}
		lines := strings.Split(text, "\r\n")
		for i, line := range lines {
			behind := min(len("250 "), len(line))
			lines[i] = line[:behind] + strings.ReplaceAll(secret.ScrubWords(line[behind:], hidden), secret.Mask, mask)
		}
		text = strings.Join(lines, "\r\n")
	}
	return text
}

// begins notes a SASL exchange, if the line begins one.
func (r *recording) begins(line string) {
	if words := strings.Fields(line); len(words) > 1 && (smtpproxy.Command{Line: line}).Verb() == "AUTH" {
		r.auth = &credentials{mechanism: strings.ToUpper(words[1])}
	}
}

// next returns a function that returns the next response.
func (c *credentials) next() func() string {
	c.responses++
	n := c.responses
	return func() string { return base64.StdEncoding.EncodeToString([]byte(c.response(n))) }
}

// response returns the n-th response of a client whose password is "password".
func (c *credentials) response(n int) string {
	user := cmp.Or(c.user, "user")
	switch {
	case n > 1:
	case c.mechanism == "PLAIN":
		return "\x00" + user + "\x00password"
	case c.mechanism == "LOGIN", c.mechanism == "EXTERNAL":
		return user
	case c.mechanism == "CRAM-MD5":
		return user + " 00000000000000000000000000000000"
	case c.mechanism == "XOAUTH2":
		return "user=" + user + "\x01auth=Bearer password\x01\x01"
	case c.mechanism == "OAUTHBEARER":
		return "n,a=" + inGS2(user) + ",\x01auth=Bearer password\x01\x01"
	case strings.HasPrefix(c.mechanism, "SCRAM-"):
		return "n,,n=" + inGS2(user) + ",r=password"
	}
	return "password"
}

// inGS2 returns a name as RFC 5801 section 4 and RFC 5802 section 5.1 write it.
func inGS2(name string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(name) }
