package hooks_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// Commands get an answer that the server doesn't have.
func ExampleAnswers() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hooks.Answers{
		"HELP": {Code: 214, Lines: []string{"See https://mail.example/help"}},
		"VRFY": {Code: 252, Lines: []string{"Cannot VRFY user, but will take the message"}},
		"EXPN": {Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"Lists aren't shown"}},
	}})
	for _, line := range []string{"HELP", "vrfy alice", "EXPN staff", "NOOP"} {
		s.Send(line)
		fmt.Println(s.Reply())
	}
	// Output:
	// 214 2.0.0 See https://mail.example/help
	// 252 2.0.0 Cannot VRFY user, but will take the message
	// 550 5.7.1 Lists aren't shown
	// 250 2.0.0 OK
}
