// Package sasl watches the client's side of a SASL exchange (RFC 4422) as it
// passes a relay (RFC 4954), for the user name that the client claims. It
// takes no part in the exchange and keeps no password, token or proof.
package sasl

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"

	gosasl "github.com/emersion/go-sasl"
)

// maxResponse is the longest response that is decoded. RFC 4954 section 4
// considers 12288 octets sufficient for all deployed mechanisms.
const maxResponse = 12288

// Exchange is one SASL exchange. Its zero value is one of an unknown mechanism.
// It is not for concurrent use.
type Exchange struct {
	Mechanism string // in upper case

	claim    func(response []byte) (name []byte) // reads the first response, which has the name; then nil
	left     int                                 // how many responses may still come
	username string
}

// Observe starts to watch an exchange of the mechanism, a name in upper case. If
// that is unknown, the Username stays empty.
func Observe(mechanism string) *Exchange {
	e := exchangeOf(mechanism)
	e.Mechanism = mechanism
	return &e
}

func exchangeOf(mechanism string) Exchange {
	switch mechanism {
	case gosasl.Plain:
		return Exchange{claim: plain, left: 1}
	case gosasl.Login:
		return Exchange{claim: login, left: 2} // the name, the password
	case gosasl.External:
		return Exchange{claim: external, left: 1}
	case "CRAM-MD5":
		return Exchange{claim: cramMD5, left: 1}
	case gosasl.OAuthBearer:
		// RFC 7628 section 3.2.3: a client that is refused has to send one more
		// response, %x01. It is one too many here, and withdraws the name.
		return Exchange{claim: oauthBearer, left: 1}
	case "XOAUTH2":
		return Exchange{claim: xoauth2, left: 1} // refused: as in OAUTHBEARER, but empty
	}
	if strings.HasPrefix(mechanism, "SCRAM-") {
		// RFC 5802 section 5 has two. RFC 4954 section 4: SMTP's success carries
		// no data, so the server's last message is a 334, answered by an empty one.
		return Exchange{claim: scram, left: 3}
	}
	// ANONYMOUS too: its trace information is no user name (RFC 4505 section 2).
	return Exchange{}
}

// Response takes one response as it is on the wire, without CRLF: the initial
// response of the AUTH command if it has one, then each line of the client.
// After one that can't be of an accepted exchange ("*", bad base64, too long,
// one too many) the Username is empty for good.
func (e *Exchange) Response(line string) {
	response, ok := decode(line)
	if !ok || e.left == 0 {
		*e = Exchange{Mechanism: e.Mechanism}
		return
	}
	e.left--
	if e.claim != nil {
		e.username = printable(e.claim(response))
		e.claim = nil
	}
	clear(response) // of the rest nothing is kept
}

// Username returns the name that the client claims, spelt as the client does
// (no SASLprep). It is worth something only when the server has accepted.
//
// It is the authentication identity, whose password or key was used; for
// EXTERNAL and OAUTHBEARER, which have none, the authorization identity. It is
// empty if the client has not said it, if the server alone knows it (from a
// certificate, a token), and if the response breaks the mechanism's grammar or
// the name holds a control character or invalid UTF-8.
func (e *Exchange) Username() string { return e.username }

// decode decodes a response. The "*" of a client that cancels (RFC 4954
// section 4) is no base64 either.
func decode(line string) (response []byte, ok bool) {
	if line == "=" {
		return nil, true // RFC 4954 section 4: an initial response of zero length
	}
	// RFC 4954 section 4: nothing outside of the alphabet is ignored, as the
	// decoder does with line ends.
	if len(line) > maxResponse || strings.ContainsAny(line, "\r\n") {
		return nil, false
	}
	response, err := base64.StdEncoding.DecodeString(line)
	return response, err == nil
}

// printable returns a copy of the name, or nothing if it is unfit to be shown.
func printable(name []byte) string {
	if !utf8.Valid(name) || bytes.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	return string(name)
}

// plain reads [authzid] NUL authcid NUL passwd (RFC 4616 section 2). The name is
// the authcid, even if the authzid is another: that is whom the client wants to
// act as, and servers may well overlook it.
func plain(response []byte) (name []byte) {
	server := gosasl.NewPlainServer(func(_, username, _ string) error {
		name = []byte(username)
		return nil
	})
	_, _, _ = server.Next(response) // with an error, the name isn't set
	return name
}

// external reads the authorization identity, or nothing (RFC 4422 appendix A).
func external(response []byte) (name []byte) {
	server := gosasl.NewExternalServer(func(identity string) error {
		name = []byte(identity)
		return nil
	})
	_, _, _ = server.Next(response)
	return name
}

// login reads the first response of draft-murchison-sasl-login, the name alone.
func login(response []byte) (name []byte) { return response }

// cramMD5 reads name SP digest (RFC 2195 section 2). The name may hold spaces.
func cramMD5(response []byte) (name []byte) {
	i := bytes.LastIndexByte(response, ' ')
	// RFC 2195 section 2: the digest is 16 octets, in hexadecimal.
	digest, err := hex.DecodeString(string(response[i+1:]))
	if i < 0 || err != nil || len(digest) != 16 {
		return nil
	}
	return response[:i]
}

// oauthBearer reads the authorization identity of the GS2 header (RFC 7628
// section 3.1). What follows, with the token, is between client and server.
// go-sasl's server leaves the name escaped, and refuses keys that the RFC knows.
func oauthBearer(response []byte) (name []byte) {
	authzid, _ := gs2(response)
	return saslname(authzid)
}

// xoauth2 reads "user=" name ^A "auth=" token ^A ^A, which has no RFC.
func xoauth2(response []byte) (name []byte) {
	user, auth, _ := bytes.Cut(response, []byte{1})
	name, okUser := bytes.CutPrefix(user, []byte("user="))
	auth, okEnd := bytes.CutSuffix(auth, []byte{1, 1})
	// A further field could name another user to the server.
	if !okUser || !okEnd || !bytes.HasPrefix(auth, []byte("auth=")) || bytes.IndexByte(auth, 1) >= 0 {
		return nil
	}
	return name
}

// scram reads the client-first-message (RFC 5802 section 7).
func scram(response []byte) (name []byte) {
	_, bare := gs2(response)
	// RFC 5802 section 5.1: "m=" before the name is for the future, and fails.
	username, nonce, _ := bytes.Cut(bare, []byte(","))
	name, ok := bytes.CutPrefix(username, []byte("n="))
	if !ok || !bytes.HasPrefix(nonce, []byte("r=")) {
		return nil
	}
	return saslname(name)
}

// gs2 cuts off the GS2 header: gs2-cb-flag "," [gs2-authzid] "," (RFC 5801
// section 4). Without one both results are nil.
func gs2(message []byte) (authzid, rest []byte) {
	fields := bytes.SplitN(message, []byte(","), 3)
	if len(fields) < 3 {
		return nil, nil
	}
	flag := string(fields[0])
	authzid, ok := bytes.CutPrefix(fields[1], []byte("a="))
	if !ok && len(authzid) > 0 || flag != "n" && flag != "y" && !strings.HasPrefix(flag, "p=") {
		return nil, nil
	}
	return authzid, fields[2]
}

// saslname decodes the "," and "=" of a name (RFC 5801 section 4).
func saslname(name []byte) []byte {
	comma, equals, sign := []byte("=2C"), []byte("=3D"), []byte("=")
	if bytes.Count(name, sign) != bytes.Count(name, comma)+bytes.Count(name, equals) {
		return nil // RFC 5802 section 5.1: any other "=" MUST fail
	}
	name = bytes.ReplaceAll(name, comma, []byte(","))
	return bytes.ReplaceAll(name, equals, sign) // last, since it brings new "="
}
