package hooks

import (
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// isClean tells whether something may stand in a log.
func isClean(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// Attributes are named once, and have values that may be logged.
func FuzzAttributes(f *testing.F) {
	f.Fuzz(func(t *testing.T, args string) {
		list, ok := attributesOf(args)
		if ok != (len(list) > 0) {
			t.Fatalf("%v, %v", list, ok)
		}
		seen := map[string]bool{}
		for _, a := range list {
			if !isName(a.name) || a.name != strings.ToUpper(a.name) || seen[a.name] {
				t.Errorf("the name %q", a.name)
			}
			seen[a.name] = true
			if a.known != (a.raw != "") || len(a.value) > len(a.raw) || len(a.raw) > maxValue && a.name != "FORWARD" {
				t.Errorf("%+v", a)
			}
			if !isClean(a.masked()) {
				t.Errorf("%q is masked as %q", a.value, a.masked())
			}
			if ip, ok := a.addr(); ok && (!ip.IsValid() || ip.Zone() != "" || ip.Is4In6()) {
				t.Errorf("%q is %v", a.value, ip)
			}
			if a.isHostName() && (!isClean(a.value) || strings.ContainsAny(a.value, " <>()@\"") || strings.Contains(a.value, "..")) {
				t.Errorf("%q is a name", a.value)
			}
		}
	})
}

// Whatever a front end tells is valid for the library, or changes nothing.
func FuzzXCLIENT(f *testing.F) {
	trust := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	f.Fuzz(func(t *testing.T, first, second string, flags byte) {
		x := &XCLIENT{Trust: trust, Strict: flags&1 != 0, RawLogin: flags&2 != 0}
		if flags&4 != 0 {
			x.Attributes = []string{"ADDR", "LOGIN", "HELO"}
		}
		hook := smtpproxy.Funcs{
			OnCommand: func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
				cmd.Pipelined = flags&8 != 0
				return x.Command(ctx, cmd, conn, txn)
			},
		}
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: smtpproxy.Chain(hook, &XFORWARD{Trust: trust})})
		peer := s.Connection().Peer
		send := func(line string, good int) {
			if s.Closed() {
				return
			}
			before, info, id := s.Connection(), XCLIENTInfoOf(s.Context()), s.Transaction().ID
			told, _ := ForwardedOf(s.Context(), s.Transaction())
			s.Send(line)
			if err := s.Failure(); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			conn, code := s.Connection(), s.Reply().Code
			now, _ := ForwardedOf(s.Context(), s.Transaction())
			if code != good && (conn.RemoteIP != before.RemoteIP || conn.RemotePort != before.RemotePort || conn.RemotePTR != before.RemotePTR ||
				conn.HELO != before.HELO || conn.Auth != before.Auth || XCLIENTInfoOf(s.Context()) != info || now != told || s.Transaction().ID != id) {
				t.Errorf("%q: %v, and it is %+v", line, s.Reply(), conn)
			}
			if !isClean(s.Reply().String()) || conn.Peer != peer {
				t.Errorf("%q: %v, peer %v", line, s.Reply(), conn.Peer)
			}
			i := XCLIENTInfoOf(s.Context())
			for _, text := range []string{conn.RemotePTR, conn.HELO.Verb, conn.HELO.Host, conn.Auth.Username, conn.Auth.Mechanism,
				i.Session, i.Transport, i.DestName, i.Forward, i.ReverseName, now.Name, now.HELO, now.Proto, now.Ident, now.Source} {
				if !isClean(text) {
					t.Errorf("%q tells %q", line, text)
				}
			}
			if !conn.RemoteIP.IsValid() || conn.RemoteIP.Is4In6() || conn.RemoteIP.Zone() != "" || i.TTL < 0 || i.Timeout < 0 {
				t.Errorf("%q: it is %v, %+v", line, conn.RemoteIP, i)
			}
			if conn.Auth != (smtpproxy.Auth{}) && (conn.Auth.Mechanism != "XCLIENT" || conn.Auth.Username == "") {
				t.Errorf("%q: %+v", line, conn.Auth)
			}
		}
		send("XFORWARD "+second, 250)
		send("XFORWARD "+first, 250)
		send("XCLIENT "+first, 220)
		send("XCLIENT "+second, 220)
		send("XFORWARD "+first, 250)
	})
}
