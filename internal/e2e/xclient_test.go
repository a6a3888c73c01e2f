package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about a server that greets again: what dialogues can't show of it.

// answersTo writes a greeting, and what answer returns to each line.
func answersTo(c net.Conn, answer func(line string) string) {
	io.WriteString(c, "220 x\r\n")
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		io.WriteString(c, answer(strings.TrimSuffix(line, "\r\n")))
	}
}

// views is a hook that keeps what it was shown last of each line.
type views struct {
	conn map[string]connection
	txn  map[string]transaction
}

func (v *views) Command(_ *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	v.conn[cmd.Line], v.txn[cmd.Line] = conn, txn
	return nil, nil
}

func TestBehind220ToXCLIENTTheDialogueStartsAnewAndTLSStays(t *testing.T) {
	v := &views{make(map[string]connection), make(map[string]transaction)}
	c := runScript(t, overTLS(t), &smtpproxy.Proxy{Hook: v, TLSConfig: serverTLS(), ImplicitTLS: true}, func(c net.Conn) {
		answersTo(c, func(line string) string {
			switch verb := strings.Fields(line)[0]; verb {
			case "XCLIENT":
				return "220 x again\r\n"
			case "AUTH":
				return "235 2.7.0 welcome\r\n"
			default:
				return "250 " + verb + "\r\n"
			}
		})
	})
	c.expect("220 x")
	for _, row := range []struct{ line, reply string }{
		{"EHLO front.example", "250"},
		{"AUTH PLAIN " + b64("\x00user\x00pass"), "235"},
		{"MAIL FROM:<a@a>", "250"},
		{"RCPT TO:<b@b>", "250"},
		{"XCLIENT NAME=client.example", "220 x again"},
		{"VRFY behind", "250"},
		{"EHLO client.example", "250"},
		{"VRFY greeted", "250"},
	} {
		c.ask(row.line, row.reply)
	}
	before, beforeTxn := v.conn["XCLIENT NAME=client.example"], v.txn["XCLIENT NAME=client.example"]
	if before.HELO.Host != "front.example" || before.Auth.Username != "user" || !beforeTxn.Active || beforeTxn.Recipients.Len() != 1 {
		t.Errorf("before: %+v, %+v", before, beforeTxn)
	}
	behind, behindTxn := v.conn["VRFY behind"], v.txn["VRFY behind"]
	if behind.HELO != (smtpproxy.HELO{}) || behind.Auth != (smtpproxy.Auth{}) {
		t.Errorf("behind 220, the client is %+v, %+v", behind.HELO, behind.Auth)
	}
	if behindTxn.Active || behindTxn.Recipients.Len() > 0 || behindTxn.ID == beforeTxn.ID {
		t.Errorf("behind 220, there is a transaction: %+v", behindTxn)
	}
	if behind.TLS.Protocol == "" || behind.TLS.Protocol != before.TLS.Protocol || behind.ID != before.ID || behind.RemoteIP != before.RemoteIP {
		t.Errorf("behind 220, it is another connection: %+v", behind)
	}
	if greeted := v.conn["VRFY greeted"]; greeted.HELO.Host != "client.example" || greeted.TLS.Protocol == "" {
		t.Errorf("at last: %+v", greeted)
	}
}

func TestASessionStartsAnewBehind220ToXCLIENT(t *testing.T) {
	for _, open := range []bool{false, true} {
		s := new(smtpproxy.Proxy).NewSession(connection{TLS: smtpproxy.TLS{Protocol: "TLSv1.3"}, Auth: smtpproxy.Auth{Mechanism: "PLAIN", Username: "user"}})
		say := func(line string, code int, keywords ...string) {
			t.Helper()
			if d, passed := s.Command(context.Background(), line).(pass); !passed {
				t.Fatalf("%s: %v", line, d)
			}
			s.Replied(code, append([]string{"x"}, keywords...)...)
		}
		say("LHLO front.example", 250, "SIZE 3")
		if open {
			say("MAIL FROM:<a@a>", 250)
			say("RCPT TO:<b@b>", 250)
		}
		say("XCLIENT NAME=client.example", 220)
		if conn, txn := s.Connection(), s.Transaction(); conn.HELO != (smtpproxy.HELO{}) || conn.Auth != (smtpproxy.Auth{}) ||
			conn.TLS.Protocol == "" || txn.Active || txn.Recipients.Len() > 0 {
			t.Errorf("behind 220: %+v, %+v", conn, txn)
		}
		// Neither LMTP nor SIZE is left: the client greets first.
		s.Command(context.Background(), "MAIL FROM:<c@c>")
		if s.MustReset() != open {
			t.Errorf("a transaction was open: %v, MustReset: %v", open, s.MustReset())
		}
		s.Replied(250)
		say("RCPT TO:<d@d>", 250)
		say("RCPT TO:<e@e>", 250)
		say("BDAT 4 LAST", 250)
		if s.Transaction().Active {
			t.Error("more than one reply is due to a message")
		}
	}
}

// A client may take 220 for the start of TLS, and what it then sends would be lines.
func Test220EndsTheConnectionWhereItIsNoReply(t *testing.T) {
	for _, row := range []struct {
		line string
		ends bool
	}{
		{"EHLO y", true}, {"MAIL FROM:<a@a>", true}, {"RSET", true}, {"NOOP", true}, {"VRFY x", true}, {"AUTH PLAIN", true},
		{"XFORWARD NAME=x", true}, {"XCLIENTS", true}, {"NOOP XCLIENT", true},
		{"XCLIENT NAME=x", false}, {"xclient", false},
	} {
		c := runScript(t, overTCP(t), new(smtpproxy.Proxy), func(c net.Conn) {
			answersTo(c, func(line string) string {
				if line == row.line {
					return "220 x again\r\n"
				}
				return "250 x\r\n"
			})
		})
		c.SetDeadline(time.Now().Add(patience))
		c.expect("220")
		c.send(row.line + "\r\n")
		if got := c.reply(); strings.HasPrefix(got, "421 4.3.0 ") != row.ends || strings.HasPrefix(got, "220 x again") == row.ends {
			t.Errorf("%s: got %s", row.line, got)
		}
		if row.ends {
			c.expectEnd()
		} else {
			c.ask("NOOP", "250")
		}
	}
}
