package smtpproxy

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// Keywords are the lines of a reply to EHLO or LHLO but the first, each a keyword and
// its parameters (RFC 5321 section 4.1.1.1), in the order in which the client gets them. A
// line such as "AUTH=PLAIN", which some servers send to old clients beside "AUTH PLAIN",
// has the keyword "AUTH=".
//
// What nobody changes goes out octet for octet. The methods take keywords in any case.
// They are for the call of the hook, and its goroutine.
type Keywords struct {
	list    []keyword
	deleted []string
	changed bool
	invalid error
}

// keyword is a line of the list.
type keyword struct {
	name, params string // name is in upper case
	line         string // as it is sent
}

func (k keyword) isSame(other keyword) bool { return k.name == other.name }

// keywordsOf returns those of a reply's lines.
func keywordsOf(lines []string) *Keywords {
	kw := new(Keywords)
	for _, line := range lines {
		name, params, _ := strings.Cut(line, " ")
		if auth, mechanism, ok := strings.Cut(name, "="); ok && ascii.EqualFold(auth, "AUTH") {
			name = "AUTH="
			params = strings.TrimRight(mechanism+" "+params, " ")
		}
		kw.list = append(kw.list, keyword{ascii.ToUpper(name), params, line})
	}
	return kw
}

// Get returns the parameters of a keyword, and whether it is there.
func (kw *Keywords) Get(name string) (params string, ok bool) {
	for _, k := range kw.list {
		if ascii.EqualFold(k.name, name) {
			return k.params, true
		}
	}
	return "", false
}

// All returns an iterator over keywords, in upper case, and parameters.
func (kw *Keywords) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, k := range kw.list {
			if !yield(k.name, k.params) {
				return
			}
		}
	}
}

// Set puts a keyword with its parameters in the place of the one that is there, or at
// the end. It doesn't make the server know it. STARTTLS is ignored, since the library
// offers that by itself where it can. A name that is no keyword, and parameters with
// control characters or too long for a line, are a [Failure] of the hook.
func (kw *Keywords) Set(name, params string) {
	name = ascii.ToUpper(name)
	if name == "STARTTLS" {
		return
	}
	line := strings.TrimRight(name+" "+params, " ")
	if name == "AUTH=" {
		line = name + params
	}
	switch {
	case !isKeyword(strings.TrimSuffix(name, "=")) || name[len(name)-1] == '=' && name != "AUTH=":
		kw.fail(fmt.Errorf("%w: %q is no keyword", ErrInvalidDecision, name))
		return
	case ascii.IndexControl(params) >= 0:
		kw.fail(fmt.Errorf("%w: control character in the parameters of %s", ErrInvalidDecision, name))
		return
	case len("250-")+len(line)+len("\r\n") > maxReplyLine:
		kw.fail(fmt.Errorf("%w: the parameters of %s are too long for a line", ErrInvalidDecision, name))
		return
	}
	kw.changed = true
	kw.deleted = slices.DeleteFunc(kw.deleted, func(d string) bool { return d == strings.TrimSuffix(name, "=") })
	k := keyword{name, params, line}
	i := slices.IndexFunc(kw.list, k.isSame)
	if i < 0 {
		kw.list = append(kw.list, k)
		return
	}
	kw.list[i] = k
	// A server may have more lines than one with the keyword.
	kw.list = append(kw.list[:i+1], slices.DeleteFunc(kw.list[i+1:], k.isSame)...)
}

// Delete takes a keyword out of the list. What it stands for is then refused by the
// library, whether it was there or not, or it would only be hidden:
//   - CHUNKING: the command BDAT, which ends the transaction, as each refused chunk does;
//   - STARTTLS, AUTH: the command, and the parameter AUTH= of MAIL;
//   - BINARYMIME: the parameter BODY= of MAIL, but with 8BITMIME and 7BIT;
//   - 8BITMIME: the parameter BODY= of MAIL, but with BINARYMIME;
//   - SIZE, SMTPUTF8: the parameter of MAIL;
//   - DSN: the parameters RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT;
//   - DELIVERBY, FUTURERELEASE: the parameters BY, HOLDFOR and HOLDUNTIL of MAIL;
//   - PIPELINING, ENHANCEDSTATUSCODES: nothing;
//   - any other: the command and the parameter of its name.
//
// That holds until the next reply to HELO, EHLO or LHLO is asked about. What the hook itself
// answers is its own. Delete("AUTH") deletes "AUTH=", too. A name that is neither a keyword
// nor in the list is a [Failure] of the hook.
func (kw *Keywords) Delete(name string) {
	name = strings.TrimSuffix(ascii.ToUpper(name), "=")
	kw.changed = true
	was := len(kw.list)
	kw.list = slices.DeleteFunc(kw.list, func(k keyword) bool { return strings.TrimSuffix(k.name, "=") == name })
	switch {
	case isKeyword(name):
	case len(kw.list) < was:
		return // a line of the server's that means nothing to anybody
	default:
		kw.fail(fmt.Errorf("%w: %q is no keyword", ErrInvalidDecision, name))
		return
	}
	if !slices.Contains(kw.deleted, name) {
		kw.deleted = append(kw.deleted, name)
	}
}

func (kw *Keywords) fail(err error) { kw.invalid = errors.Join(kw.invalid, err) }

// lines returns the list as lines of a reply.
func (kw *Keywords) lines(first string) []string {
	lines := append(make([]string, 0, 1+len(kw.list)), first)
	for _, k := range kw.list {
		lines = append(lines, k.line)
	}
	return lines
}

// isKeyword tells whether a name is an ehlo-keyword (RFC 5321 section 4.1.1.1).
func isKeyword(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-' && i > 0:
		default:
			return false
		}
	}
	return name != ""
}
