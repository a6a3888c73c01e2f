package main

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// cramMD5 is a hook that runs the SASL mechanism CRAM-MD5 for users, with their passwords,
// and lets nobody send mail who hasn't authenticated.
type cramMD5 map[string]string

// login is what is remembered of a client. The hook's own 235 tells the client that it is
// authenticated, but neither the server nor Connection.Auth: so who it is stands here, for
// the hook and, through Session.Context, for the server.
type login struct {
	user      string // empty before the 235
	challenge string // that an answer is due to
	failures  int
}

// userOf returns who a client has authenticated as.
func userOf(ctx *smtpproxy.Context) string { return smtpproxy.State[login](ctx).user }

// Keywords implements smtpproxy.KeywordHook: it adds the mechanism to those of the server,
// of which there may be none.
func (cramMD5) Keywords(_ *smtpproxy.Context, conn smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	if conn.TLS.Protocol != "" {
		mechanisms, _ := kw.Get("AUTH")
		kw.Set("AUTH", strings.TrimSpace("CRAM-MD5 "+mechanisms))
	}
	return nil
}

// Command implements smtpproxy.Hook.
func (h cramMD5) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	l := smtpproxy.State[login](ctx)
	switch {
	case cmd.SASL: // the answer to the challenge, which no other hook is shown, nor the server
		return h.finish(l, cmd.Line), nil
	case cmd.Verb() == "AUTH":
		return l.begin(cmd, conn, txn), nil
	case cmd.Verb() == "MAIL" && l.user == "" && conn.Auth.Mechanism == "":
		return reply(530, 5, 7, 0, "Authentication required"), nil
	}
	return nil, nil
}

// begin decides about AUTH (RFC 4954 section 4).
func (l *login) begin(cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) smtpproxy.Decision {
	mechanism, _, hasResponse := strings.Cut(cmd.Args(), " ")
	switch {
	case l.user != "", conn.Auth.Mechanism != "":
		return reply(503, 5, 5, 1, "Already authenticated")
	case !strings.EqualFold(mechanism, "CRAM-MD5"):
		return nil // one of the server's, or of nobody's
	case conn.TLS.Protocol == "":
		return reply(523, 5, 7, 10, "AUTH needs TLS") // RFC 5248 section 2.4
	case txn.Active:
		return reply(503, 5, 5, 1, "Mail transaction in progress")
	case hasResponse:
		return reply(501, 5, 7, 0, "The server speaks first in CRAM-MD5")
	}
	l.challenge = "<" + rand.Text() + "@server.example>"
	return smtpproxy.Reply{Code: 334, Lines: []string{base64.StdEncoding.EncodeToString([]byte(l.challenge))}}
}

// finish decides about the answer to the challenge.
func (h cramMD5) finish(l *login, line string) smtpproxy.Decision {
	if line == "*" {
		return reply(501, 5, 7, 0, "Cancelled")
	}
	answer, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return reply(501, 5, 5, 2, "No base64")
	}
	user, digest, _ := strings.Cut(string(answer), " ")
	password, known := h[user]
	mac := hmac.New(md5.New, []byte(password))
	mac.Write([]byte(l.challenge))
	if want := hex.EncodeToString(mac.Sum(nil)); !hmac.Equal([]byte(digest), []byte(want)) || !known {
		l.failures++
		r := reply(535, 5, 7, 8, "Authentication failed")
		r.Disconnect = l.failures >= 3
		return r
	}
	l.user = user
	return reply(235, 2, 7, 0, "Welcome")
}

func reply(code, class, subject, detail int, text string) smtpproxy.Reply {
	return smtpproxy.Reply{Code: code, Enhanced: smtpproxy.EnhancedCode{class, subject, detail}, Lines: []string{text}}
}
