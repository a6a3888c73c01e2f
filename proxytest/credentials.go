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
		case x.Reply.Code == 501: // it has most likely cancelled the exchange
			return cancels, nil
		case x.By == smtpproxy.ByLibrary: // which refuses nothing but control characters there
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
			return "MASKED", nil // a verb that nobody knows, too
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
