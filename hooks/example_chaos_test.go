package hooks_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A test in Go sets the rules itself. The first two attempts fail, as they do with greylisting,
// and the third does not.
func ExampleChaos() {
	chaos := new(hooks.Chaos)
	err := chaos.Set(1, hooks.ChaosRule{At: "RCPT", Recipient: "^bob@", Times: 2, Code: 451, Enhanced: "4.7.1", Text: "Try again later"})
	if err != nil {
		fmt.Println(err)
	}
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: chaos})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<alice@example.com>")
	for range 3 {
		s.Send("RCPT TO:<bob@example.org>")
		fmt.Println(s.Reply())
	}
	// Output:
	// 451 4.7.1 Try again later
	// 451 4.7.1 Try again later
	// 250 2.1.5 Recipient OK
}

// A test in any language sets them over HTTP.
func ExampleChaos_ServeHTTP() {
	chaos := new(hooks.Chaos)
	put := func(rules string) {
		w := httptest.NewRecorder()
		chaos.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/", strings.NewReader(rules)))
		fmt.Print(w.Code, " ", w.Body)
	}
	put(`{"rules": [{"at": "DATA", "code": 452, "text": "Disk full"}]}`)
	put(`{"rules": [{"at": "message", "code": 452}]}`)
	// Output:
	// 200 {"seed":0,"rules":[{"at":"DATA","code":452,"text":"Disk full"}]}
	// 400 smtpproxy/hooks: rule 1 of Chaos: a code at message, where the server has replied already: refuse DATA, or let the server refuse the content
}
