package hooks_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds the hooks, in chains and with any commands, against a model of its own. It
// knows what the attributes mean that it sends, and reads none.

// said is an attribute as it is sent, and what it says: no value for one that makes no sense.
type said struct{ text, name, value string }

const unavailable = "(unavailable)"

var sayings = []said{
	{"ADDR=203.0.113.7", "ADDR", "203.0.113.7"}, {"addr=IPV6:2001:db8::7", "ADDR", "2001:db8::7"},
	{"ADDR=192.0.2.7", "ADDR", "192.0.2.7"}, {"ADDR=::ffff:192.0.2.8", "ADDR", "192.0.2.8"}, {"ADDR=[Unavailable]", "ADDR", "0.0.0.0"},
	{"PORT=7", "PORT", "7"}, {"Port=65535", "PORT", "65535"}, {"PORT=[UNAVAILABLE]", "PORT", unavailable}, {"PORT=0", "PORT", unavailable},
	{"NAME=A.example", "NAME", "a.example"}, {"NAME=[TEMPUNAVAIL]", "NAME", unavailable},
	{"HELO=hi", "HELO", "hi"}, {"HELO=a+0Ab", "HELO", "a?b"}, {"HELO=[UNAVAILABLE]", "HELO", unavailable},
	{"PROTO=SMTP", "PROTO", "HELO"}, {"PROTO=Esmtp", "PROTO", "EHLO"}, {"PROTO=[UNAVAILABLE]", "PROTO", unavailable},
	{"LOGIN=alice", "LOGIN", "alice"}, {"LOGIN=b@c+ab", "LOGIN", "b@c+ab"}, {"LOGIN=[UNAVAILABLE]", "LOGIN", unavailable},
	{"DESTADDR=198.51.100.25", "DESTADDR", "198.51.100.25"}, {"DESTADDR=[UNAVAILABLE]", "DESTADDR", unavailable},
	{"DESTPORT=587", "DESTPORT", "587"}, {"DESTPORT=[UNAVAILABLE]", "DESTPORT", unavailable},
	{"SESSION=a+2Bb", "SESSION", "a+b"}, {"SESSION=[UNAVAILABLE]", "SESSION", unavailable},
	{"TTL=4", "TTL", "4"}, {"TTL=[UNAVAILABLE]", "TTL", unavailable},
	{"IDENT=4abc", "IDENT", "4abc"}, {"IDENT=[UNAVAILABLE]", "IDENT", unavailable}, {"X-MORE=1", "X-MORE", "1"},
	{"ADDR=x", "ADDR", ""}, {"PORT=65536", "PORT", ""}, {"NAME=127.0.0.1", "NAME", ""}, {"ADDR=fe80::1%1", "ADDR", ""}, {"DESTPORT=x", "DESTPORT", ""},
}

// nonsense are arguments that no command takes.
var nonsense = []string{"", " ", "ADDR", "ADDR=", "=1", "ADDR=203.0.113.7 ADDR=203.0.113.7", "a\xff=1", strings.Repeat("x", 300) + "=" + strings.Repeat("y", 300), "LOGIN = admin"}

// world is the model.
type world struct {
	peer      netip.AddrPort
	trust     bool // the front end is in Trust
	x         *hooks.XCLIENT
	ip        string
	port, ptr string
	local     [2]string
	helo      smtpproxy.HELO
	auth      smtpproxy.Auth

	toldHELO  smtpproxy.HELO
	toldAuth  smtpproxy.Auth
	told      map[string]string // with the last burst of XCLIENT
	burst     bool              // it may go on
	split     bool              // likewise, but only with something else: it may be Dovecot's
	forwarded map[string]string // of the transaction; nil if nothing was
}

func (w *world) trusts() bool { return w.trust && strings.HasPrefix(w.ip, "192.0.2.") }

func (w *world) who() string {
	c := smtpproxy.Connection{RemoteIP: netip.MustParseAddr(w.ip), RemotePTR: w.ptr, LocalIP: netip.MustParseAddr(w.local[0]), HELO: w.helo, Auth: w.auth}
	fmt.Sscan(w.port, &c.RemotePort)
	fmt.Sscan(w.local[1], &c.LocalPort)
	return who(c)
}

// known returns what is said, empty if that is that it's unknown.
func known(said map[string]string, name string) string {
	if v := said[name]; v != unavailable {
		return v
	}
	return ""
}

// takes tells whether a list may be taken together with what was told before.
func takes(list []said, before map[string]string, taken []string, strict bool) bool {
	names := slices.Collect(maps.Keys(before))
	for _, a := range list {
		isTaken := slices.Contains(taken, a.name)
		if slices.Contains(names, a.name) || isTaken && a.value == "" || !isTaken && strict {
			return false
		}
		names = append(names, a.name)
	}
	// Only of what is taken is something left; twice within one command is refused anyway.
	return len(list) > 0
}

// xclient returns the code that a command gets, and makes of the world what it says.
func (w *world) xclient(list []said, active, pipelined bool) int {
	burst, split, taken := w.burst, w.split, w.x.Attributes
	w.burst, w.split = false, false
	repeats := slices.ContainsFunc(list, func(a said) bool { _, ok := w.told[a.name]; return ok })
	names := map[string]bool{}
	for _, a := range list {
		repeats = repeats || names[a.name]
		names[a.name] = true
	}
	burst = burst || split && !repeats && len(list) > 0
	before := map[string]string{}
	if burst {
		before = w.told
	}
	switch {
	case !w.trusts() && !(burst && w.trust):
		return 550
	case active:
		return 503
	case !takes(list, before, taken, w.x.Strict || w.x.RawLogin):
		return 501
	}
	told := maps.Clone(before)
	for _, a := range list {
		if slices.Contains(taken, a.name) {
			told[a.name] = a.value
		}
	}
	w.told, w.burst = told, pipelined
	w.split = !pipelined && (known(told, "SESSION") != "" || known(told, "TTL") != "")
	if _, ok := told["ADDR"]; ok {
		w.ip, w.port, w.ptr = told["ADDR"], known(told, "PORT"), known(told, "NAME")
	}
	if _, ok := told["PORT"]; ok {
		w.port = known(told, "PORT")
	}
	if _, ok := told["NAME"]; ok {
		w.ptr = known(told, "NAME")
	}
	w.local[0] = cmp.Or(known(told, "DESTADDR"), w.local[0])
	w.local[1] = cmp.Or(known(told, "DESTPORT"), w.local[1])
	w.helo, w.auth = smtpproxy.HELO{}, smtpproxy.Auth{}
	if host := known(told, "HELO"); host != "" {
		w.helo = smtpproxy.HELO{Verb: cmp.Or(known(told, "PROTO"), "HELO"), Host: host}
	}
	if user := known(told, "LOGIN"); user != "" {
		w.auth = smtpproxy.Auth{Mechanism: "XCLIENT", Username: user}
	}
	w.toldHELO, w.toldAuth = w.helo, w.auth
	return 220
}

func passes(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

var forwardable = []string{"NAME", "ADDR", "PORT", "HELO", "IDENT"}

// xforward is likewise for XFORWARD.
func (w *world) xforward(list []said, active bool) int {
	w.burst, w.split = false, false
	switch {
	case !w.trusts():
		return 550
	case active:
		return 503
	case !takes(list, nil, forwardable, false):
		return 501
	}
	told := maps.Clone(w.forwarded)
	if told == nil {
		told = map[string]string{}
	}
	for _, a := range list {
		told[a.name] = a.value
	}
	w.forwarded = told
	return 250
}

func TestOnlyXCLIENTOfATrustedPeerChangesWhoTheClientIs(t *testing.T) {
	taken, refusals := 0, map[int]int{}
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 1))
		x := &hooks.XCLIENT{Trust: frontEnds, Strict: r.IntN(4) == 0, RawLogin: r.IntN(4) == 0}
		x.Attributes = []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT", "SESSION", "TTL"}
		if r.IntN(3) == 0 {
			x.Attributes = slices.DeleteFunc(x.Attributes, func(string) bool { return r.IntN(3) == 0 })
		}
		xf := &hooks.XFORWARD{Trust: frontEnds}
		w := &world{x: x, trust: true, ip: "192.0.2.1", port: "49152", ptr: "front.example", local: [2]string{"192.0.2.25", "25"}}
		switch r.IntN(4) {
		case 0:
			w.ip, w.trust = "203.0.113.9", false
		case 1:
			x.Trust, xf.Trust, w.trust = nil, nil, false
		}
		pipelined := false
		as := func(h smtpproxy.Hook) smtpproxy.Hook { // lets the test say whether it is pipelined
			f := smtpproxy.Funcs{OnCommand: func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
				cmd.Pipelined = pipelined
				return h.Command(ctx, cmd, conn, txn)
			}}
			if k, ok := h.(smtpproxy.KeywordHook); ok {
				f.OnKeywords = k.Keywords
			}
			return f
		}
		hook := smtpproxy.Chain(as(x), as(xf))
		switch r.IntN(3) {
		case 0:
			hook = smtpproxy.Chain(smtpproxy.HookFunc(passes), smtpproxy.Named("x", as(x)), nil, smtpproxy.Chain(smtpproxy.Named("f", as(xf))))
		case 1:
			m := &smtpproxy.Mux{Else: smtpproxy.HookFunc(passes)}
			m.Handle("XFORWARD", as(xf))
			hook = smtpproxy.Chain(as(x), m)
		}
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hook}, smtpproxy.Connection{
			RemoteIP: netip.MustParseAddr(w.ip), RemotePort: 49152, RemotePTR: w.ptr, LocalIP: netip.MustParseAddr(w.local[0]), LocalPort: 25,
		}, smtpproxy.Transaction{})
		w.peer = s.Connection().Peer
		id := s.Transaction().ID
		for range 40 {
			if s.Closed() {
				break
			}
			pipelined = r.IntN(2) == 0
			line, want := w.next(r, s, pipelined)
			if line != "" {
				s.Send(line)
			}
			reply := s.Reply()
			fail := func(format string, args ...any) {
				t.Fatalf("seed %d: %+v\n%s\n%s", seed, *x, s.Transcript(), fmt.Sprintf(format, args...))
			}
			verb := smtpproxy.Command{Line: line}.Verb()
			switch {
			case want != 0 && reply.Code != want:
				fail("%v, want %d", reply, want)
			case want == 220:
				taken++
			case want != 0:
				refusals[want]++
			case strings.HasSuffix(verb, "LO") && reply.Code == 250:
				w.helo = smtpproxy.HELO{Verb: verb, Host: "front.example"}
				if verb == "HELO" {
					break
				}
				for _, keyword := range []string{"XCLIENT", "XFORWARD"} {
					if _, is := announced(reply.Lines, keyword); is != w.trusts() {
						fail("%s announced: %v", keyword, is)
					}
				}
			case verb == "AUTH" && reply.Code == 235:
				w.auth = smtpproxy.Auth{Mechanism: "PLAIN", Username: "a"}
			case verb == "STARTTLS" && reply.Code == 220:
				s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
				w.helo, w.auth = w.toldHELO, w.toldAuth
			case verb == "DATA" && reply.Code == 354:
				s.SendContent()
			}
			c, txn := s.Connection(), s.Transaction()
			if got := who(c); got != w.who() || c.Peer != w.peer {
				fail("it is\n%s, peer %v, want\n%s", got, c.Peer, w.who())
			}
			if txn.ID != id {
				id, w.forwarded = txn.ID, nil
			}
			f, ok := hooks.ForwardedOf(s.Context(), txn)
			port := ""
			if f.Port != 0 {
				port = fmt.Sprint(f.Port)
			}
			if ok != (w.forwarded != nil) || f.Ident != known(w.forwarded, "IDENT") || f.Name != known(w.forwarded, "NAME") || port != known(w.forwarded, "PORT") {
				fail("forwarded: %+v, want %v", f, w.forwarded)
			}
			if got := hooks.XCLIENTInfoOf(s.Context()).Session; got != known(w.told, "SESSION") {
				fail("SESSION is %q, want %q", got, known(w.told, "SESSION"))
			}
			if err := s.Failure(); err != nil {
				fail("%v", err)
			}
		}
		s.Close()
	}
	if taken < 1000 || refusals[501] < 500 || refusals[503] < 500 || refusals[550] < 2000 || refusals[250] < 500 {
		t.Errorf("%d taken, refused %v: the property says little", taken, refusals)
	}
}

// next returns a command, and the code that it must get; 0 is any.
func (w *world) next(r *rand.Rand, s *proxytest.Session, pipelined bool) (line string, want int) {
	var list []said
	args := nonsense[r.IntN(len(nonsense))]
	if r.IntN(8) > 0 {
		var texts []string
		for range 1 + r.IntN(4) {
			a := sayings[r.IntN(len(sayings))]
			list, texts = append(list, a), append(texts, a.text)
		}
		args = strings.Join(texts, []string{" ", "  ", "\t"}[r.IntN(3)])
	}
	active := s.Transaction().Active
	switch n := r.IntN(40); {
	case n < 14:
		verb := []string{"XCLIENT", "xclient"}[r.IntN(2)]
		return verb + " " + args, w.xclient(list, active, pipelined)
	case n < 20:
		return "XFORWARD " + args, w.xforward(list, active)
	default:
		w.burst, w.split = false, false
		others := []string{"EHLO front.example", "HELO front.example", "LHLO front.example", "MAIL FROM:<a@example.com>", "MAIL FROM:<a@example.com>",
			"RCPT TO:<b@example.org>", "RCPT TO:<b@example.org>", "DATA", "DATA", "RSET", "NOOP", "STARTTLS", "AUTH PLAIN AGEAYg==", "XCLIENTS ADDR=203.0.113.7", "VRFY XCLIENT", "BDAT 3 LAST"}
		return others[r.IntN(len(others))], 0
	}
}
