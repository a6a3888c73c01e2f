package main

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/xdg-go/scram"
)

const scramSHA256 = "SCRAM-SHA-256" // RFC 7677

// account is a user as a server should know one: without the password.
type account struct {
	name   string
	stored scram.StoredCredentials
}

func newAccount(name, password string) (*account, error) {
	// RFC 7677 section 4: at least 4096 iterations.
	stored, err := derive(name, password, scram.KeyFactors{Salt: rand.Text(), Iters: 4096})
	return &account{name, stored}, err
}

func derive(name, password string, factors scram.KeyFactors) (scram.StoredCredentials, error) {
	c, err := scram.SHA256.NewClient(name, password, "")
	if err != nil {
		return scram.StoredCredentials{}, err
	}
	return c.GetStoredCredentialsWithError(factors)
}

// plain returns a server for one exchange of PLAIN (RFC 4616).
func (a *account) plain(accept func(user string)) sasl.Server {
	return sasl.NewPlainServer(func(identity, name, password string) error {
		got, err := derive(name, password, a.stored.KeyFactors)
		switch {
		case err != nil, name != a.name, identity != "" && identity != name:
			return smtp.ErrAuthFailed
		case subtle.ConstantTimeCompare(got.StoredKey, a.stored.StoredKey) == 0:
			return smtp.ErrAuthFailed
		}
		accept(name)
		return nil
	})
}

// scram returns a server for one exchange of SCRAM-SHA-256 (RFC 7677).
func (a *account) scram(accept func(user string)) (sasl.Server, error) {
	server, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
		if name != a.name {
			return scram.StoredCredentials{}, errors.New("unknown user")
		}
		return a.stored, nil
	})
	if err != nil {
		return nil, err
	}
	return &scramServer{server.NewConversation(), accept}, nil
}

// scramServer makes a sasl.Server of a conversation.
type scramServer struct {
	conversation *scram.ServerConversation
	accept       func(user string)
}

// Next implements sasl.Server. response is nil if AUTH came without an initial
// response.
func (s *scramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	c := s.conversation
	switch {
	case response == nil:
		return nil, false, nil
	case c.Done():
		// SMTP's 235 carries no data. So the server's last message, its
		// signature, went as a challenge, which the client has answered
		// with an empty line (RFC 4954 section 4, RFC 4422 section 5).
		identity := c.AuthzID()
		if !c.Valid() || len(response) > 0 || identity != "" && identity != c.Username() {
			return nil, false, smtp.ErrAuthFailed
		}
		s.accept(c.Username())
		return nil, true, nil
	}
	message, err := c.Step(string(response))
	if err != nil {
		return nil, false, smtp.ErrAuthFailed
	}
	return []byte(message), false, nil
}
