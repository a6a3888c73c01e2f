package proxytest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// printer prints what it is told. In a test, it is the test's t.
type printer struct{ testing.TB }

func (printer) Helper()           {}
func (printer) Error(args ...any) { fmt.Println(args...) }

// ehlo is a hook that wants to be greeted with EHLO. It has one memory for all clients.
type ehlo struct{ greeted bool }

func (e *ehlo) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	switch {
	case cmd.Verb() == "EHLO":
		e.greeted = true
	case cmd.Verb() == "MAIL" && !e.greeted:
		return smtpproxy.Reply{Code: 550, Lines: []string{"EHLO first"}}, nil
	}
	return nil, nil
}

// The hook works as long as there is one client. Here is what TestHook has to say about it, with
// which this is a test:
//
//	func TestTheHookStandsWhateverComes(t *testing.T) {
//		proxytest.TestHook(t, func() smtpproxy.Hook { return new(ehlo) })
//	}
func ExampleTestHook() {
	var t printer
	proxytest.TestHook(t, func() smtpproxy.Hook { return new(ehlo) })
	// Output:
	// the hook decides differently about the same dialogue if other clients have come before:
	//     got  C: MAIL FROM:<>, H: pass
	//     want C: MAIL FROM:<>, H: 550 5.0.0 EHLO first
	//   -> what belongs to a call or a connection is kept in the hook: keep it in variables, and with smtpproxy.State; if it is meant to, as a limit for all clients is, set HookTest.Varies
}

// What is right for a hook, and not for all, HookTest allows. This one has a verb of its own, and
// answers recipients itself, so that it can't stand in front of LMTP.
func ExampleHookTest() {
	hook := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		switch {
		case cmd.Verb() == "XWHO":
			return smtpproxy.Reply{Lines: []string{strings.ToLower(cmd.Args()[:min(20, len(cmd.Args()))])}}, nil
		case cmd.Verb() == "RCPT":
			return smtpproxy.Reply{Code: 250}, nil
		}
		return nil, nil
	})
	var t printer
	proxytest.HookTest{Lines: []string{"XWHO", "XWHO me"}, NoLMTP: true}.Run(t, func() smtpproxy.Hook { return hook })
	// Output:
}
