package hooks_test

import (
	"fmt"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// A printer greets with the name that somebody has given it.
func ExampleRepairHELO() {
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: &hooks.RepairHELO{}})
	s.Send("HELO Second Floor")
	fmt.Println(s.Reply().Code, s.Connection().HELO.Host)
	// Output: 250 [192.0.2.1]
}
