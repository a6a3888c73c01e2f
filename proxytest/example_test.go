package proxytest_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// noNobody refuses the recipient that is nobody.
func noNobody(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if _, to, _, ok := cmd.Path(); cmd.Verb() == "RCPT" && (!ok || to.Localpart == "nobody") {
		return smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 1, 1}, Lines: []string{"No such user"}}, nil
	}
	return nil, nil
}

// A test of a hook takes five lines: in a test, the last would compare.
func Example() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(noNobody)})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@example.com>")
	decision := s.Send("RCPT TO:<nobody@example.org>")
	fmt.Println(decision)
	// Output: 550 5.1.1 No such user
}

// In a test, this plays each dialogue in the files. That of testdata/nobody.txtar may be no
// more than
//
//	Nobody has no mailbox.
//
//	-- mail to nobody --
//	C: EHLO client.example
//	C: MAIL FROM:<alice@example.com>
//	C: RCPT TO:<nobody@example.org>
//	= Transaction.Recipients.Len 0
//
// at first: with PROXYTEST_UPDATE=1 in the environment of "go test", what is said between
// those lines is written into it, among that
//
//	H: 550 5.1.1 No such user
func ExampleRun() {
	var t *testing.T // of func TestNobody(t *testing.T)
	proxytest.Run(t, "testdata/*.txtar", func(*testing.T) *smtpproxy.Proxy {
		return &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(noNobody)}
	})
}

// memory is a file for a recording.
type memory struct{ bytes.Buffer }

func (*memory) Close() error { return nil }

// Here a session of a test is recorded; it may as well be one of a server's, behind
// a listener. The user has another password.
func ExampleRecord() {
	var file memory
	p := &smtpproxy.Proxy{
		Hook:      smtpproxy.HookFunc(noNobody),
		Observers: []smtpproxy.Observer{proxytest.Record(func(smtpproxy.Connection) io.WriteCloser { return &file })},
	}
	s := proxytest.NewSession(p)
	s.Connect()
	s.Send("HELO client.example")
	s.Send("AUTH PLAIN AGFsaWNlAHNlc2FtZQ==")
	s.Send("MAIL FROM:<alice@example.com>")
	s.Send("RCPT TO:<nobody@example.org>")
	s.Answer("RCPT", 452, "4.2.2 Mailbox full")
	s.Send("RCPT TO:<bob@example.org>")
	s.Close()

	_, dialogue, _ := strings.Cut(file.String(), "\n\n")
	fmt.Print(dialogue)
	// Output:
	// -- session --
	// C: (connection)
	// S: 220 proxytest.example ESMTP
	// C: HELO client.example
	// S: 250 server.example
	// C: AUTH PLAIN AGFsaWNlAHBhc3N3b3Jk
	// S: 235 2.7.0 Authentication successful
	// C: MAIL FROM:<alice@example.com>
	// S: 250 2.1.0 Sender OK
	// C: RCPT TO:<nobody@example.org>
	// H: 550 5.1.1 No such user
	// A: RCPT 452 4.2.2 Mailbox full
	// C: RCPT TO:<bob@example.org>
	// S: 452 4.2.2 Mailbox full
	// C: (gone)
}

// oneRecipient lets only authenticated clients write to more than one
// recipient.
func oneRecipient(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() == "RCPT" && txn.Recipients.Len() > 0 && conn.Auth.Mechanism == "" {
		return smtpproxy.Reply{Code: 452, Enhanced: smtpproxy.EnhancedCode{4, 5, 3}, Lines: []string{"Too many recipients"}}, nil
	}
	return nil, nil
}

// A hook finds the connection and the transaction that the test gives it.
func ExampleResumeSession() {
	p := &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(oneRecipient)}
	alice := smtpproxy.Connection{Auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: "alice"}}
	open := smtpproxy.Transaction{
		Active:     true,
		Sender:     "alice@example.com",
		Recipients: smtpproxy.NewRecipients(smtpproxy.Recipient{Recipient: "bob@example.org"}),
	}

	s := proxytest.ResumeSession(p, alice, open)
	s.Send("RCPT TO:<carol@example.org>")
	fmt.Println(s.Reply(), "-", s.Transaction().Recipients.Len(), "recipients")

	s = proxytest.ResumeSession(p, smtpproxy.Connection{}, open)
	s.Send("RCPT TO:<carol@example.org>")
	fmt.Println(s.Reply(), "-", s.Transaction().Recipients.Len(), "recipients")
	// Output:
	// 250 2.1.5 Recipient OK - 2 recipients
	// 452 4.5.3 Too many recipients - 1 recipients
}

// ownAuth answers AUTH X-TOKEN itself, with a challenge of its own.
func ownAuth(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch {
	case cmd.Verb() == "AUTH" && cmd.Args() == "X-TOKEN":
		return smtpproxy.Reply{Code: 334, Lines: []string{"VG9rZW46"}}, nil
	case cmd.SASL && cmd.Line == "*":
		return smtpproxy.Reply{Code: 501, Enhanced: smtpproxy.EnhancedCode{5, 7, 0}, Lines: []string{"Cancelled"}}, nil
	case cmd.SASL && cmd.Line == "c2VjcmV0":
		return smtpproxy.Reply{Code: 235, Enhanced: smtpproxy.EnhancedCode{2, 7, 0}, Lines: []string{"Welcome"}}, nil
	case cmd.SASL:
		return smtpproxy.Reply{Code: 535, Enhanced: smtpproxy.EnhancedCode{5, 7, 8}, Disconnect: true, Lines: []string{"Wrong"}}, nil
	}
	return nil, nil
}

// A hook's own 334 is an exchange between it and the client alone. The client
// may cancel it with "*".
func ExampleSession_Transcript() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.HookFunc(ownAuth)})
	s.Answer("EHLO", 250, "mx.example", "AUTH X-TOKEN")
	s.Send("EHLO client.example")
	s.Send("AUTH X-TOKEN")
	s.Send("*")
	s.Send("AUTH X-TOKEN")
	s.Send("c2VjcmV0")
	s.Send("AUTH X-TOKEN")
	s.Send("Z3Vlc3M=")
	fmt.Print(s.Transcript())
	// Output:
	// C: EHLO client.example
	// H: pass
	// S: 250-mx.example
	// S: 250 AUTH X-TOKEN
	// C: AUTH ****
	// H: 334 VG9rZW46 (next)
	// C: *
	// H: 501 5.7.0 Cancelled
	// C: AUTH ****
	// H: 334 VG9rZW46 (next)
	// C: ****
	// H: 235 2.7.0 Welcome
	// C: AUTH ****
	// H: 334 VG9rZW46 (next)
	// C: ****
	// H: 535 5.7.8 Wrong (close)
}

// The test says what the server answers.
func ExampleSession_Answer() {
	s := proxytest.NewSession(&smtpproxy.Proxy{})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<>")
	s.Answer("RCPT", 550, "5.1.1 No such user")
	for _, to := range []string{"<bob@example.org>", "<Carol@example.org>"} {
		s.Send("RCPT TO:" + to)
		fmt.Println(s.Reply())
	}
	s.Send("DATA")
	s.Answer("DATA", 554, "5.6.0 Nonsense")
	s.SendContent()
	fmt.Println(s.Reply())
	// Output:
	// 550 5.1.1 No such user
	// 250 2.1.5 Recipient OK
	// 554 5.6.0 Nonsense
}

// A client starts TLS, and the hook sees of it what the test says.
func ExampleSession_StartTLS() {
	s := proxytest.NewSession(&smtpproxy.Proxy{})
	s.Send("EHLO client.example")
	s.Send("STARTTLS")
	s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3", Cipher: "TLS_AES_256_GCM_SHA384", KeySize: 256, SNI: "mx.example"})
	fmt.Println(s.Connection().TLS.SNI)
	// Output: mx.example
}
