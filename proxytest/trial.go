package proxytest

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestServer puts a server on trial: it tells its author whether it is safe behind
// [smtpproxy.Proxy.Listener], and whether what is promised for it holds. Each question has
// a subtest; what breaks a promise is an error that tells what was done, what came, what it
// means, and what helps. What the library makes up for is logged, and so are the answers.
//
// serve is the server's method Serve, or a function that calls it. It gets a listener of
// the trial's, in memory, and has to return when that is closed. The report is the same as
// data. For a server that needs an account, other addresses than alice@example.com and
// bob@example.org, or that speaks LMTP, use a [Trial].
//
//	func TestMyServerIsSafeBehindTheProxy(t *testing.T) {
//		server := &smtpd.Server{...}
//		proxytest.TestServer(t, server.Serve)
//	}
//
// A server that panics at something ends the test with it, as it would end your program.
func TestServer(t testing.TB, serve func(net.Listener) error) Report {
	t.Helper()
	return Trial{}.Run(t, serve)
}

// Trial is how a server is put on trial. The zero value is for one that takes mail for
// bob@example.org from anybody.
type Trial struct {
	// LMTP is for a server that speaks LMTP (RFC 2033): it is greeted with LHLO. One that
	// tells statuses before it has read the message can't be tried.
	LMTP bool

	// Host is the name of the client. Empty is client.example.
	Host string

	// Sender and Recipient are mailboxes that the server accepts, Other is another
	// recipient. Empty are alice@example.com, bob@example.org and carol@example.org.
	Sender, Recipient, Other string

	// Username and Password are an account for AUTH PLAIN. With them, each transaction
	// whose MAIL the server refuses with 530 is tried again behind AUTH.
	Username, Password string

	// RefusedRecipient is a mailbox that the server refuses at RCPT. Without it, which of
	// two paths the server takes isn't found out.
	RefusedRecipient string

	// RefusedHost is a client's name that the server refuses at EHLO. Without it, EHLO
	// without a name is tried.
	RefusedHost string

	// RefusedTexts are lines of a message, without line ends, for each of which the server
	// refuses it. What it does then is seen for each, and for a message larger than the
	// server's SIZE, if it has one. Without both, a server isn't seen refusing.
	RefusedTexts []string

	// MaxMessage is how many octets of a message the trial sends at most. 0 is 16 MiB.
	MaxMessage int

	// Timeout is how long the server may take for something before it counts as stuck. 0
	// is 3 seconds. It isn't used up by a server that does something.
	Timeout time.Duration

	// Grace is how long a server is waited for that reads on before it replies, or might.
	// 0 is 50 milliseconds.
	Grace time.Duration
}

// Grade is how much a finding matters.
type Grade int

const (
	// Note: the server differs from what one may expect, and the library makes up for it.
	Note Grade = iota

	// Violation: something that is promised doesn't hold with this server, as it is.
	Violation

	// Untried: the server hasn't done what it takes to find out. The finding tells which
	// field of Trial helps.
	Untried
)

// String returns the grade's name: "note", "violation" or "untried".
func (g Grade) String() string {
	switch g {
	case Note:
		return "note"
	case Violation:
		return "violation"
	case Untried:
		return "untried"
	}
	return fmt.Sprintf("Grade(%d)", int(g))
}

// Finding is something that a server was found to do.
type Finding struct {
	// Name is what is found, such as "reads-ahead". It stays the same in versions to come.
	Name string

	Grade Grade

	// What tells what the server does, in one line.
	What string

	// Dialogue is what was done, and what came: lines of the client's (C:) and of the
	// server's (S:), and in brackets what the trial saw.
	Dialogue string

	// Meaning tells what follows for the promises, and Remedy what to do.
	Meaning, Remedy string
}

// String returns the finding as the text of a test's error.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): %s\n", f.Name, f.Grade, f.What)
	for line := range strings.Lines(f.Dialogue) {
		b.WriteString("    " + line)
	}
	if f.Meaning != "" {
		fmt.Fprintf(&b, "What it means: %s\n", f.Meaning)
	}
	fmt.Fprintf(&b, "What to do: %s", f.Remedy)
	return b.String()
}

// Result is what came of one question.
type Result struct {
	// Probe is the question's short name, such as "read-ahead", which its subtest has too.
	Probe string

	// Question is what is asked, and Answer what the server does, in some words.
	Question, Answer string

	// Findings are what should be known of it. A good server has none.
	Findings []Finding
}

// Report is what a trial has found.
type Report struct {
	// Results are in the order of the questions, all of which are always there.
	Results []Result
}

// Findings returns the findings of all questions.
func (r Report) Findings() []Finding {
	var all []Finding
	for _, result := range r.Results {
		all = append(all, result.Findings...)
	}
	return all
}

// Result returns what came of the question with that name, and the zero value if there
// is none.
func (r Report) Result(probe string) Result {
	for _, result := range r.Results {
		if result.Probe == probe {
			return result
		}
	}
	return Result{}
}

// Run puts a server on trial as [TestServer] does. Where t is a *testing.T, each
// question has a subtest.
func (tr Trial) Run(t testing.TB, serve func(net.Listener) error) Report {
	t.Helper()
	return tr.try(serve, func(q question, ask func() Result) {
		in := func(t testing.TB) {
			t.Helper()
			r := ask()
			if r.Answer != "" {
				t.Logf("%s %s", r.Question, r.Answer)
			}
			for _, f := range r.Findings {
				if f.Grade == Note {
					t.Log(f)
				} else {
					t.Error(f)
				}
			}
		}
		if parent, ok := t.(interface {
			Run(string, func(*testing.T)) bool
		}); ok {
			parent.Run(q.name, func(t *testing.T) { t.Helper(); in(t) })
		} else {
			in(t)
		}
	})
}

// Report puts a server on trial outside of a test.
func (tr Trial) Report(serve func(net.Listener) error) Report {
	return tr.try(serve, func(_ question, ask func() Result) { ask() })
}

// withDefaults fills in what is empty.
func (tr Trial) withDefaults() Trial {
	for _, d := range []struct {
		field     *string
		byDefault string
	}{
		{&tr.Host, "client.example"}, {&tr.Sender, "alice@example.com"}, {&tr.Recipient, "bob@example.org"}, {&tr.Other, "carol@example.org"},
	} {
		if *d.field == "" {
			*d.field = d.byDefault
		}
	}
	if tr.MaxMessage <= 0 {
		tr.MaxMessage = 16 << 20
	}
	if tr.Timeout <= 0 {
		tr.Timeout = 3 * time.Second
	}
	if tr.Grace <= 0 {
		tr.Grace = 50 * time.Millisecond
	}
	return tr
}
