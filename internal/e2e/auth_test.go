package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has SASL exchanges (RFC 4954) of go-smtp's, and of the hook's own.

// saslBackend is a backend that knows mechanisms, and counts what it accepted.
type saslBackend struct {
	tlsBackend
	mechanisms map[string]func() sasl.Server
}

type saslSession struct {
	smtp.Session
	b *saslBackend
}

func (b *saslBackend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s, err := b.tlsBackend.NewSession(c)
	return &saslSession{s, b}, err
}

func (s *saslSession) AuthMechanisms() (names []string) {
	for name := range s.b.mechanisms {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *saslSession) Auth(mechanism string) (sasl.Server, error) {
	if s.b.mechanisms[mechanism] == nil {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return s.b.mechanisms[mechanism](), nil
}

// obliging is a mechanism that accepts after its challenges, whatever the
// responses are but "wrong".
type obliging struct {
	challenges []string
	b          *saslBackend
}

func (o *obliging) Next(response []byte) ([]byte, bool, error) {
	if strings.HasSuffix(string(response), "wrong") {
		return nil, false, smtp.ErrAuthFailed
	}
	if response != nil && len(o.challenges) > 0 && o.challenges[0] == "" {
		o.challenges = o.challenges[1:] // the initial response stands in for the first
	}
	o.b.note("response of %d", len(response))
	if len(o.challenges) == 0 {
		o.b.note("accepted")
		return nil, true, nil
	}
	challenge := o.challenges[0]
	o.challenges = o.challenges[1:]
	return []byte(challenge), false, nil
}

// newSASLBackend knows all mechanisms that have a user name, with as many
// challenges as each has.
func newSASLBackend() *saslBackend {
	b := &saslBackend{mechanisms: make(map[string]func() sasl.Server)}
	for name, challenges := range map[string][]string{
		"LOGIN": {"Username:", "Password:"}, "XOAUTH2": {""}, "CRAM-MD5": {"<1@mx.example>"},
		"SCRAM-SHA-256": {"", "r=ab,s=cw==,i=4096", "v=dg=="}, "X-UNKNOWN": {"one", "two"},
	} {
		b.mechanisms[name] = func() sasl.Server { return &obliging{slices.Clone(challenges), b} }
	}
	b.mechanisms["PLAIN"] = func() sasl.Server {
		return sasl.NewPlainServer(func(_, _, password string) error {
			if password != "pass" && password != secretPassword {
				return smtp.ErrAuthFailed
			}
			return nil
		})
	}
	b.mechanisms["ANONYMOUS"] = func() sasl.Server { return sasl.NewAnonymousServer(func(string) error { return nil }) }
	b.mechanisms["EXTERNAL"] = func() sasl.Server { return sasl.NewExternalServer(func(string) error { return nil }) }
	b.mechanisms["OAUTHBEARER"] = func() sasl.Server {
		return sasl.NewOAuthBearerServer(func(o sasl.OAuthBearerOptions) *sasl.OAuthBearerError {
			if o.Token != "token" && o.Token != secretToken {
				return &sasl.OAuthBearerError{Status: "invalid_token"}
			}
			return nil
		})
	}
	return b
}

// seen is a hook that remembers what it is shown, and decides with decide if
// that is set.
type seen struct {
	mu     sync.Mutex
	lines  []string
	auth   []smtpproxy.Auth
	decide func(cmd command) (decision, error)
}

func (s *seen) Command(_ *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := cmd.Line
	if cmd.SASL {
		line = "SASL " + line
	}
	s.lines, s.auth = append(s.lines, line), append(s.auth, conn.Auth)
	if s.decide == nil {
		return nil, nil
	}
	return s.decide(cmd)
}

func (s *seen) all() ([]string, []smtpproxy.Auth) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines), slices.Clone(s.auth)
}

// talkSASL serves go-smtp with many mechanisms behind p, and greets it.
func talkSASL(t *testing.T, p smtpproxy.Proxy, options ...func(*smtp.Server)) (*talker, *saslBackend) {
	t.Helper()
	b := newSASLBackend()
	srv := smtp.NewServer(b)
	srv.AllowInsecureAuth = true
	for _, o := range options {
		o(srv)
	}
	tr := overTCP(t)
	serveBehind(t, srv, tr, &p)
	k := talk(t, tr)
	k.want("EHLO client.example", "250")
	return k, b
}

// say plays lines of the client and of the server in turns.
func (k *talker) say(lines ...string) {
	k.t.Helper()
	for i := 0; i < len(lines); i += 2 {
		io.WriteString(k, lines[i]+"\r\n")
		k.want("", lines[i+1])
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuthTellsTheMechanismAndTheUserFromThe235On(t *testing.T) {
	bearer := "n,a=user@example.com,\x01auth=Bearer token\x01\x01"
	as := func(mechanism, username string) smtpproxy.Auth {
		return smtpproxy.Auth{Mechanism: mechanism, Username: username}
	}
	none, plain := smtpproxy.Auth{}, "AUTH PLAIN "+b64("\x00user\x00pass")
	for name, test := range map[string]struct {
		dialogue []string
		want     smtpproxy.Auth
	}{
		"PLAIN with initial response":   {[]string{plain, "235"}, as("PLAIN", "user")},
		"PLAIN without":                 {[]string{"AUTH PLAIN", "334 ", b64("\x00user\x00pass"), "235"}, as("PLAIN", "user")},
		"PLAIN in lower case":           {[]string{"auth plain " + b64("\x00user\x00pass"), "235"}, as("PLAIN", "user")},
		"PLAIN for somebody else":       {[]string{"AUTH PLAIN " + b64("other\x00user\x00pass"), "235"}, as("PLAIN", "user")},
		"PLAIN after a tab":             {[]string{"AUTH PLAIN\t" + b64("\x00user\x00pass"), "235"}, as("PLAIN", "user")},
		"PLAIN, wrong password":         {[]string{"AUTH PLAIN " + b64("\x00user\x00word"), "535"}, none},
		"PLAIN, wrong, then right":      {[]string{"AUTH PLAIN " + b64("\x00evil\x00word"), "535", plain, "235"}, as("PLAIN", "user")},
		"PLAIN, right, then again":      {[]string{plain, "235", "AUTH PLAIN " + b64("\x00evil\x00pass"), "503"}, as("PLAIN", "user")},
		"PLAIN, cancelled":              {[]string{"AUTH PLAIN", "334 ", "*", "501"}, none},
		"PLAIN, not base64":             {[]string{"AUTH PLAIN", "334 ", "=AAA", "454"}, none},
		"LOGIN":                         {[]string{"AUTH LOGIN", "334 " + b64("Username:"), b64("user"), "334 " + b64("Password:"), b64("pass"), "235"}, as("LOGIN", "user")},
		"LOGIN, cancelled at the end":   {[]string{"AUTH LOGIN", "334", b64("user"), "334", "*", "501"}, none},
		"LOGIN, wrong password":         {[]string{"AUTH LOGIN", "334", b64("user"), "334", b64("wrong"), "535"}, none},
		"ANONYMOUS":                     {[]string{"AUTH ANONYMOUS " + b64("trace"), "235"}, as("ANONYMOUS", "")},
		"EXTERNAL with a name":          {[]string{"AUTH EXTERNAL " + b64("user"), "235"}, as("EXTERNAL", "user")},
		"EXTERNAL with =":               {[]string{"AUTH EXTERNAL =", "235"}, as("EXTERNAL", "")},
		"EXTERNAL after a challenge":    {[]string{"AUTH EXTERNAL", "334 ", "=", "235"}, as("EXTERNAL", "")},
		"OAUTHBEARER":                   {[]string{"AUTH OAUTHBEARER " + b64(bearer), "235"}, as("OAUTHBEARER", "user@example.com")},
		"OAUTHBEARER, wrong token":      {[]string{"AUTH OAUTHBEARER " + b64(strings.Replace(bearer, "token", "other", 1)), "334", "AQ==", "454"}, none},
		"XOAUTH2":                       {[]string{"AUTH XOAUTH2 " + b64("user=user@example.com\x01auth=Bearer token\x01\x01"), "235"}, as("XOAUTH2", "user@example.com")},
		"CRAM-MD5":                      {[]string{"AUTH CRAM-MD5", "334 " + b64("<1@mx.example>"), b64("user 0123456789abcdef0123456789abcdef"), "235"}, as("CRAM-MD5", "user")},
		"SCRAM with initial response":   {[]string{"AUTH SCRAM-SHA-256 " + b64("n,,n=us=2Cer,r=a"), "334", b64("c=biws,r=ab,p=cA=="), "334", "", "235"}, as("SCRAM-SHA-256", "us,er")},
		"SCRAM without":                 {[]string{"AUTH scram-sha-256", "334 ", b64("n,,n=user,r=a"), "334", b64("c=biws,r=ab,p=cA=="), "334", "", "235"}, as("SCRAM-SHA-256", "user")},
		"a mechanism nobody knows":      {[]string{"AUTH X-UNKNOWN", "334", b64("user"), "334", b64("x"), "235"}, as("X-UNKNOWN", "")},
		"a mechanism the server lacks":  {[]string{"AUTH NTLM", "504"}, none},
		"no mechanism":                  {[]string{"AUTH", "50"}, none},
		"RSET and EHLO do not clear it": {[]string{plain, "235", "RSET", "250", "EHLO again.example", "250"}, as("PLAIN", "user")},
	} {
		t.Run(name, func(t *testing.T) {
			hook := &seen{decide: func(command) (decision, error) { return pass{Next: true}, nil }}
			k, _ := talkSASL(t, smtpproxy.Proxy{Hook: hook})
			k.say(test.dialogue...)
			k.want("NOOP", "250")
			lines, auth := hook.all()
			if got := auth[len(auth)-1]; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			// Before the 235 there is nothing, on no line of the exchange.
			for i, line := range lines[:len(lines)-1] {
				if exchange := i < 2 || strings.HasPrefix(line, "SASL"); exchange && auth[i] != (smtpproxy.Auth{}) {
					t.Errorf("at %q: %+v", line, auth[i])
				}
			}
		})
	}
}

// A server with a state machine of its own may let STARTTLS come at any time.
func TestWhatASessionKnewBeforeStartedTLSIsForgotten(t *testing.T) {
	s := new(smtpproxy.Proxy).NewSession(connection{})
	say := func(line string, code int, lines ...string) (passed bool) {
		if _, passed = s.Command(t.Context(), line).(pass); passed {
			s.Replied(code, lines...)
		}
		return passed
	}
	envelope := func() {
		say("MAIL FROM:<a@example.com>", 250)
		say("RCPT TO:<b@example.org>", 250)
	}
	say("LHLO before.example", 250, "mx.example", "SIZE 10")
	say("AUTH PLAIN "+b64("\x00user\x00pass"), 235)
	envelope()
	if s.Connection().Auth.Username != "user" || !s.Transaction().Active || say("BDAT 11", 250) {
		t.Fatalf("got %+v, %+v", s.Connection(), s.Transaction())
	}
	say("RSET", 250)
	envelope()
	say("STARTTLS", 220)
	s.StartedTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	conn, txn := s.Connection(), s.Transaction()
	if conn.HELO != (smtpproxy.HELO{}) || conn.Auth != (smtpproxy.Auth{}) || conn.TLS.Protocol != "TLSv1.3" {
		t.Errorf("got %+v", conn)
	}
	if txn.Active || txn.Sender != "" || txn.Recipients.Len() != 0 || say("BDAT 1", 250) {
		t.Errorf("got %+v", txn)
	}
	envelope()
	if !say("BDAT 11", 250) {
		t.Error("the SIZE of before TLS holds inside")
	}
}

func TestASASLLineMayBeLongerThanACommand(t *testing.T) {
	own := &seen{decide: func(cmd command) (decision, error) {
		if cmd.SASL {
			return reply{Code: 535}, nil
		}
		return reply{Code: 334}, nil
	}}
	for name, test := range map[string]struct {
		hook smtpproxy.Hook
		then string
	}{"the server's exchange": {nil, "334"}, "the hook's exchange": {own, "535"}} {
		p := smtpproxy.Proxy{Hook: test.hook, Commands: []string{"AUTH"}, MaxLineLength: 512}
		unlimited := func(srv *smtp.Server) { srv.MaxLineLength = 0 }
		t.Run(name, func(t *testing.T) {
			k, b := talkSASL(t, p, unlimited)
			k.say("AUTH X-UNKNOWN", "334", strings.Repeat("A", 12288), test.then)
			if test.hook == nil && !strings.Contains(b.log(), "response of 9216") {
				t.Errorf("the server got %s", b.log())
			}

			k, _ = talkSASL(t, p, unlimited)
			k.say("AUTH X-UNKNOWN", "334", strings.Repeat("A", 12289), "500 5.5.6")
			k.wantEnd()

			k, _ = talkSASL(t, p, unlimited)
			k.say("AUTH X-UNKNOWN    "+strings.Repeat("A", 512-len("AUTH X-UNKNOWN    \r\n")), "334")

			k, _ = talkSASL(t, p, unlimited)
			k.say("AUTH X-UNKNOWN    "+strings.Repeat("A", 513-len("AUTH X-UNKNOWN    \r\n")), "500 5.4.0")
			k.wantEnd()
		})
	}
}

func TestNextShowsOneLineOfTheServersExchange(t *testing.T) {
	hook := &seen{decide: func(cmd command) (decision, error) { return pass{Next: !cmd.SASL}, nil }}
	k, _ := talkSASL(t, smtpproxy.Proxy{Hook: hook, Commands: []string{"auth"}})
	k.say("AUTH LOGIN", "334", b64("user"), "334", b64("pass"), "235", "NOOP", "250")
	if lines, _ := hook.all(); !slices.Equal(lines, []string{"AUTH LOGIN", "SASL " + b64("user")}) {
		t.Errorf("the hook was shown %q", lines)
	}
}

// What the server gets instead of a line that the hook has answered is told by
// a server that records it.
func TestAReplyToALineOfTheServersExchangeCancelsIt(t *testing.T) {
	for name, test := range map[string]struct {
		reply    reply
		dialogue []string
		end      bool
	}{
		"refusal":    {reply{Code: 535}, []string{"535", "NOOP", "250", "AUTH PLAIN " + b64("\x00user\x00pass"), "235"}, false},
		"success":    {reply{Code: 235}, []string{"235", "NOOP", "250"}, false},
		"disconnect": {reply{Code: 535, Disconnect: true}, []string{"535"}, true},
		"challenge":  {reply{Code: 334, Lines: []string{"b25l"}}, []string{"334 b25l", "dHdv", "334 b25l", "*", "535", "NOOP", "250"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			hook := &seen{decide: func(cmd command) (decision, error) {
				switch {
				case cmd.Line == "*":
					return reply{Code: 535}, nil
				case cmd.SASL:
					return test.reply, nil
				}
				return pass{Next: true}, nil
			}}
			server := servertest.Strict()
			tr := overTCP(t)
			served := make(chan error, 1)
			go func() { served <- server.Serve((&smtpproxy.Proxy{Hook: hook}).Listener(tr)) }()
			k := talk(t, tr)
			k.say(append([]string{"EHLO client.example", "250", "AUTH PLAIN", "334", b64("\x00user\x00pass")}, test.dialogue...)...)
			if test.end {
				k.wantEnd()
			}
			k.Close()
			server.Close()
			<-served
			rec := server.Record()
			if want := []string{"*"}; !test.end && !slices.Equal(rec.SASL, want) || test.end && len(rec.SASL) > 0 {
				t.Errorf("the server got %q", rec.SASL)
			}
			_, auth := hook.all()
			for i, a := range auth {
				if a != (smtpproxy.Auth{}) {
					t.Errorf("line %d: %+v", i, a)
				}
			}
		})
	}
}

func TestAMechanismOfTheHooksOwnIsBetweenItAndTheClient(t *testing.T) {
	var failed error
	hook := &seen{decide: func(cmd command) (decision, error) {
		switch {
		case cmd.Verb() == "AUTH":
			return reply{Code: 334, Lines: []string{b64("one")}}, nil
		case cmd.Line == "*":
			return reply{Code: 501}, nil
		case cmd.SASL && cmd.Line == "MQ==":
			return reply{Code: 334}, nil
		case cmd.SASL && cmd.Line == "Mg==":
			return reply{Code: 235}, nil
		}
		return nil, nil
	}}
	p := &smtpproxy.Proxy{Hook: hook, OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision {
		failed = f.Err
		return nil
	}}
	server := servertest.Strict()
	tr := overTCP(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.Listener(tr)) }()
	k := talk(t, tr)
	k.say("EHLO client.example", "250",
		"AUTH X-OWN", "334 "+b64("one"), "MQ==", "334 ", "Mg==", "235", "NOOP", "250",
		"AUTH X-OWN", "334 ", "*", "501", "NOOP", "250",
		"AUTH X-OWN", "334 ", "RSET", "421")
	k.wantEnd()
	server.Close()
	<-served
	if got, want := server.Record().Commands, []string{"EHLO client.example", "NOOP", "NOOP"}; !slices.Equal(got, want) {
		t.Errorf("the server executed %q, want %q", got, want)
	}
	lines, auth := hook.all()
	if got := strings.Join(lines, ","); got != "EHLO client.example,AUTH X-OWN,SASL MQ==,SASL Mg==,NOOP,AUTH X-OWN,SASL *,NOOP,AUTH X-OWN,SASL RSET" {
		t.Errorf("the hook was shown %s", got)
	}
	if slices.ContainsFunc(auth, func(a smtpproxy.Auth) bool { return a != smtpproxy.Auth{} }) {
		t.Errorf("a 235 of the hook's changed Auth: %v", auth)
	}
	if !errors.Is(failed, smtpproxy.ErrInvalidDecision) {
		t.Errorf("Pass of the last line: %v", failed)
	}
}

// A server that gives up an AUTH exchange without a word, as go-smtp does at its
// deadline, takes the next line for a command, the library for a response.
func TestALineBehindASASLExchangeThatTheServerMayHaveGivenUpIsNotPassed(t *testing.T) {
	for name, server := range map[string]func(p *smtpproxy.Proxy) fronted{
		"go-smtp": func(p *smtpproxy.Proxy) fronted { return behindGoSMTP(p) },
		"strict":  func(p *smtpproxy.Proxy) fronted { return behindListener(p, servertest.Strict()) },
	} {
		for _, pieces := range [][]string{{"", "MAIL FROM:<evil@e>\r\n"}, {"MAIL FROM", ":<evil@e>\r\n"}} {
			bubble(t, fmt.Sprintf("%s, %q", name, pieces), func(t *testing.T) {
				s := server(&smtpproxy.Proxy{Hook: &passLog{}})
				c := patientPeer(t, s)
				c.expect("220")
				c.ask("EHLO x", "250")
				c.ask("AUTH PLAIN", "334")
				c.send(pieces[0])
				time.Sleep(15 * time.Second) // a bubble's: the server's deadline of 10 passes
				c.send(pieces[1])
				for _, line := range c.diary() {
					if strings.Contains(line, `"2`) {
						t.Errorf("the client got %s", line)
					}
				}
				if commands := s.Commands(); slices.Contains(commands, "MAIL evil@e") {
					t.Errorf("unseen by the hook, the server executed %q", commands)
				}
			})
		}
	}
}
