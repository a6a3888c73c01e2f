package apitest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about Restart at the door of a server with a state machine of its own: a
// hook finds the client to be another's, and the server starts afresh.

var (
	frontEnd = netip.MustParseAddrPort("192.0.2.1:49152")
	server   = netip.MustParseAddrPort("192.0.2.25:25")
	// alice is whose connection the front end says it is.
	alice = smtpproxy.Origin{
		RemoteIP: netip.MustParseAddr("198.51.100.7"), RemotePort: 7007, RemotePTR: "client.example",
		LocalIP: netip.MustParseAddr("203.0.113.25"), LocalPort: 587,
		HELO: smtpproxy.HELO{Verb: "EHLO", Host: "client.example"},
		Auth: smtpproxy.Auth{Mechanism: "XCLIENT", Username: "alice"},
	}
)

// toServer is a connection of the front end's.
func toServer() smtpproxy.Connection {
	return smtpproxy.Connection{RemoteIP: frontEnd.Addr(), RemotePort: frontEnd.Port(), LocalIP: server.Addr(), LocalPort: server.Port()}
}

// xclient makes a hook that takes XCLIENT.
func xclient(o *smtpproxy.Origin) smtpproxy.Hook {
	m := new(smtpproxy.Mux)
	m.HandleFunc("XCLIENT", func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return smtpproxy.Reply{Restart: o}, nil
	})
	return m
}

// onConnect makes a hook that decides about clients alone.
func onConnect(f func(conn smtpproxy.Connection) (smtpproxy.Decision, error)) smtpproxy.Hook {
	return smtpproxy.Funcs{OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) { return f(conn) }}
}

// host stands for a server with a state machine of its own: it says what the test wants.
type host struct {
	*smtpproxy.Session
	t testing.TB
}

func newHost(t testing.TB, p *smtpproxy.Proxy) host {
	return host{p.NewSession(toServer()), t}
}

// greets lets the client connect, and greets it.
func (h host) greets() host {
	h.t.Helper()
	if d, ok := h.Connect(h.t.Context()).(smtpproxy.Pass); !ok {
		h.t.Fatalf("the client isn't let in: %+v", d)
	}
	h.Replied(220, "server.example")
	return h
}

// accepts lets the server accept commands.
func (h host) accepts(lines ...string) host {
	h.t.Helper()
	for _, line := range lines {
		if d, ok := h.Command(h.t.Context(), line).(smtpproxy.Pass); !ok {
			h.t.Fatalf("%q isn't passed: %+v", line, d)
		}
		h.Replied(250, "server.example")
	}
	return h
}

// restarts sends a line that restarts the server, and returns the Reply.
func (h host) restarts(line string) smtpproxy.Reply {
	h.t.Helper()
	r, ok := h.Command(h.t.Context(), line).(smtpproxy.Reply)
	if !ok || r.Restart == nil {
		h.t.Fatalf("%q doesn't restart the server: %+v", line, r)
	}
	return r
}

// isLast tells whether a decision is a 421 and the end, and nothing else.
func isLast(d smtpproxy.Decision) bool {
	r, ok := d.(smtpproxy.Reply)
	return ok && r.String() == "421 4.3.0 Service not available, closing transmission channel" && r.Disconnect && r.Restart == nil
}

func TestARestartComesBackWithA421ThatEndsTheConnectionOfAHostThatDoesNotKnowIt(t *testing.T) {
	o := alice
	if r := newHost(t, &smtpproxy.Proxy{Hook: xclient(&o)}).greets().restarts("XCLIENT"); r.Restart == &o {
		t.Error("a host gets the hook's own Origin")
	}
	for name, r := range map[string]smtpproxy.Decision{
		"Command": newHost(t, &smtpproxy.Proxy{Hook: xclient(&o)}).greets().restarts("XCLIENT LOGIN=alice"),
		"Connect": newHost(t, &smtpproxy.Proxy{Hook: onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) {
			return &smtpproxy.Reply{Restart: &o}, nil
		})}).Connect(t.Context()),
	} {
		want := smtpproxy.Reply{Code: 421, Enhanced: smtpproxy.EnhancedCode{4, 3, 0},
			Lines: []string{"Service not available, closing transmission channel"}, Disconnect: true, Restart: &alice}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("%s returns %+v, want %+v", name, r, want)
		}
	}
}

func TestARestartForgetsWhatWasKnownOfTheClientAndKeepsThePeerAndTLS(t *testing.T) {
	p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(xclient(&alice), smtpproxy.Funcs{
		OnKeywords: func(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
			kw.Delete("VRFY")
			return nil
		},
	})}
	conn := toServer()
	conn.ID, conn.ServerID, conn.EarlyTalker, conn.RemotePTR = "id", "mx", true, "front.example"
	conn.RemoteUID, conn.TLS = smtpproxy.UID{ID: 7, Valid: true}, smtpproxy.TLS{Protocol: "TLSv1.3"}
	h := host{p.NewSession(conn), t}.greets().accepts("EHLO front.example")
	h.Command(t.Context(), "AUTH PLAIN AGFsaWNlAHNlY3JldA==")
	h.Replied(235)
	h.accepts("MAIL FROM:<a@a.example>", "RCPT TO:<b@b.example>")
	h.Command(t.Context(), "DATA")
	h.Replied(354)
	h.Replied(554) // some servers keep the transaction then
	h.accepts("MAIL FROM:<a@a.example>", "RCPT TO:<b@b.example>")
	state, id := smtpproxy.State[int](h.Context()), h.Transaction().ID
	if _, refused := h.Command(t.Context(), "VRFY alice").(smtpproxy.Reply); !refused {
		t.Error("a keyword that was deleted isn't refused")
	}
	h.restarts("XCLIENT LOGIN=alice")

	want := conn
	want.RemoteIP, want.RemotePort, want.RemotePTR = alice.RemoteIP, 7007, "client.example"
	want.LocalIP, want.LocalPort, want.HELO, want.Auth = alice.LocalIP, 587, alice.HELO, alice.Auth
	want.RemoteUID, want.EarlyTalker, want.Peer = smtpproxy.UID{}, false, frontEnd
	if got := h.Connection(); !reflect.DeepEqual(got, want) {
		t.Errorf("the client is\n%+v\nwant\n%+v", got, want)
	}
	if x := h.Transaction(); x.Active || x.ID == id || x.Recipients.Len() > 0 || x.Sender != "" {
		t.Errorf("a transaction is left: %+v", x)
	}
	if h.Copies() != 1 || h.Discard() != 0 || h.MustReset() || h.Context().Err() != nil {
		t.Errorf("copies %d, discard %d, must reset %v, context %v", h.Copies(), h.Discard(), h.MustReset(), h.Context().Err())
	}
	h.Replied(220, "server.example")
	if smtpproxy.State[int](h.Context()) != state {
		t.Error("what the hook has kept is lost")
	}
	h.accepts("VRFY alice", "MAIL FROM:<a@a.example>")
	if h.MustReset() {
		t.Error("a server that has started afresh is to forget what it doesn't know")
	}
	if h.Transaction().Recipients.Len() != 0 {
		t.Error("a recipient is left")
	}
}

// rows of what an Origin leaves out.
func TestWhatAnOriginLeavesOutStaysOrIsUnknown(t *testing.T) {
	for _, tt := range []struct {
		why    string
		origin smtpproxy.Origin
		want   func(c *smtpproxy.Connection)
	}{
		{"nothing is told: it is the same client, which has said nothing", smtpproxy.Origin{}, func(*smtpproxy.Connection) {}},
		{"an address alone: the rest of it is unknown", smtpproxy.Origin{RemoteIP: alice.RemoteIP}, func(c *smtpproxy.Connection) {
			c.RemoteIP, c.RemotePort, c.RemotePTR, c.RemoteUID = alice.RemoteIP, 0, "", smtpproxy.UID{}
		}},
		{"an IPv4 address in IPv6 form is one of IPv4", smtpproxy.Origin{RemoteIP: netip.MustParseAddr("::ffff:198.51.100.7"), RemotePTR: "x"}, func(c *smtpproxy.Connection) {
			c.RemoteIP, c.RemotePort, c.RemotePTR, c.RemoteUID = alice.RemoteIP, 0, "x", smtpproxy.UID{}
		}},
		{"a port alone", smtpproxy.Origin{RemotePort: 1}, func(c *smtpproxy.Connection) { c.RemotePort = 1 }},
		{"a host name alone", smtpproxy.Origin{RemotePTR: "x"}, func(c *smtpproxy.Connection) { c.RemotePTR = "x" }},
		{"the server's address alone", smtpproxy.Origin{LocalIP: alice.LocalIP}, func(c *smtpproxy.Connection) { c.LocalIP = alice.LocalIP }},
		{"the server's port alone", smtpproxy.Origin{LocalPort: 1}, func(c *smtpproxy.Connection) { c.LocalPort = 1 }},
	} {
		conn := toServer()
		conn.ID, conn.ServerID, conn.RemotePTR, conn.RemoteUID, conn.Peer = "id", "mx", "front.example", smtpproxy.UID{ID: 7, Valid: true}, frontEnd
		p := &smtpproxy.Proxy{Hook: xclient(&tt.origin)}
		h := host{p.NewSession(conn), t}.greets().accepts("EHLO front.example")
		h.restarts("XCLIENT")
		want := conn
		tt.want(&want)
		if got := h.Connection(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", tt.why, got, want)
		}
	}
}

func TestThePeerThatNewSessionIsToldIsWhoIsConnectedWhateverIsToldOfTheClient(t *testing.T) {
	peer := netip.MustParseAddrPort("[2001:db8::1]:1")
	conn := toServer()
	conn.Peer = peer
	h := host{(&smtpproxy.Proxy{Hook: xclient(&alice)}).NewSession(conn), t}.greets().accepts("EHLO front.example")
	if c := h.Connection(); c.Peer != peer || c.RemoteIP != frontEnd.Addr() {
		t.Errorf("at first: %+v", c)
	}
	h.restarts("XCLIENT")
	if c := h.Connection(); c.Peer != peer || c.RemoteIP != alice.RemoteIP {
		t.Errorf("behind a Restart: %+v", c)
	}
	h.Replied(220)
	h.accepts("EHLO x", "STARTTLS")
	h.StartedTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	h.restarts("XCLIENT")
	if c := h.Connection(); c.Peer != peer {
		t.Errorf("behind TLS, and another: %+v", c)
	}
}

// lateResolver has no name before it is let.
type lateResolver struct{ let chan struct{} }

func (r lateResolver) LookupAddr(_ context.Context, _ string) ([]string, error) {
	<-r.let // whatever ctx says
	return []string{"front.example."}, nil
}

func (lateResolver) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	return []net.IPAddr{{IP: frontEnd.Addr().AsSlice()}}, nil
}

func TestTheHostNameThatIsFoundOfTheFrontEndIsNotThatOfItsClient(t *testing.T) {
	const late = true
	for _, tt := range []struct {
		why    string
		late   bool // the name comes behind the Restart
		origin smtpproxy.Origin
		want   string
	}{
		{"another address, and its name", !late, smtpproxy.Origin{RemoteIP: alice.RemoteIP, RemotePTR: "client.example"}, "client.example"},
		{"another address, which isn't looked up", !late, smtpproxy.Origin{RemoteIP: alice.RemoteIP}, ""},
		{"the name of the same address", !late, smtpproxy.Origin{RemotePTR: "told.example"}, "told.example"},
		{"the same address", !late, smtpproxy.Origin{RemotePort: 1}, "front.example"},
		{"another address and its name, while a lookup goes on", late, smtpproxy.Origin{RemoteIP: alice.RemoteIP, RemotePTR: "client.example"}, "client.example"},
		{"another address, while a lookup goes on", late, smtpproxy.Origin{RemoteIP: alice.RemoteIP}, ""},
		{"the same address, of which nobody waits for the name any more", late, smtpproxy.Origin{RemotePort: 1}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, last := lateResolver{make(chan struct{})}, ""
			h := newHost(t, &smtpproxy.Proxy{LookupPTR: true, Resolver: r, LookupTimeout: time.Second, Hook: smtpproxy.Chain(xclient(&tt.origin),
				smtpproxy.HookFunc(func(_ *smtpproxy.Context, _ smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
					last = conn.RemotePTR
					return nil, nil
				}))})
			defer h.Close()
			if !tt.late {
				close(r.let)
			}
			h.greets().restarts("XCLIENT")
			if tt.late {
				close(r.let)
			}
			synctest.Wait()
			h.Replied(220)
			if h.accepts("NOOP"); last != tt.want {
				t.Errorf("%s: it is %q, want %q", tt.why, last, tt.want)
			}
		})
	}
}

func TestSTARTTLSKeepsWhatARestartHasToldAndIsNotForbiddenByIt(t *testing.T) {
	h := newHost(t, &smtpproxy.Proxy{Hook: xclient(&alice)}).greets().accepts("EHLO front.example")
	h.restarts("XCLIENT LOGIN=alice")
	h.Replied(220)
	h.accepts("EHLO again.example")
	if c := h.Connection(); c.HELO.Host != "again.example" || c.Auth != alice.Auth {
		t.Errorf("behind EHLO: %+v", c)
	}
	h.accepts("STARTTLS")
	h.StartedTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
	if c := h.Connection(); c.HELO != alice.HELO || c.Auth != alice.Auth || c.RemoteIP != alice.RemoteIP || c.RemotePTR != "client.example" ||
		c.LocalIP != alice.LocalIP || c.TLS.Protocol != "TLSv1.3" || c.Peer != frontEnd {
		t.Errorf("in TLS: %+v", c)
	}
}

func TestConnectHooksAreAskedOnceMoreWithTheNewAddressInsideCommand(t *testing.T) {
	const second = time.Second
	ip := func(conn smtpproxy.Connection) bool { return conn.RemoteIP == alice.RemoteIP }
	for _, tt := range []struct {
		why     string
		connect func(conn smtpproxy.Connection) (smtpproxy.Decision, error)
		want    smtpproxy.Reply
		asked   int // behind the first time
		end     string
	}{
		{"it lets it in", func(smtpproxy.Connection) (smtpproxy.Decision, error) { return nil, nil },
			smtpproxy.Reply{Restart: &alice}, 1, ""},
		{"and holds the greeting back", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return smtpproxy.Pass{Delay: second}, nil
			}
			return nil, nil
		}, smtpproxy.Reply{Restart: &alice, Delay: second}, 1, ""},
		{"it refuses it, later", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return smtpproxy.Reply{Code: 554, Lines: []string{"Not you"}, Delay: second}, nil
			}
			return nil, nil
		}, smtpproxy.Reply{Code: 554, Enhanced: smtpproxy.EnhancedCode{5, 0, 0}, Lines: []string{"Not you"}, Disconnect: true, Delay: second}, 1, "hook refused 554 5.0.0 Not you"},
		{"it fails", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return nil, errors.New("no")
			}
			return nil, nil
		}, smtpproxy.Reply{Code: 421}, 1, "hook hook failed 421 4.3.0 Service not available, closing transmission channel"},
		{"it decides what is no decision about a client", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return smtpproxy.Reply{}, nil
			}
			return nil, nil
		}, smtpproxy.Reply{Code: 421}, 1, "hook hook failed 421 4.3.0 Service not available, closing transmission channel"},
		{"it knows more of the client, and isn't asked a third time", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return smtpproxy.Reply{Restart: &smtpproxy.Origin{LocalPort: 465, Auth: smtpproxy.Auth{Username: "bob"}}}, nil
			}
			return nil, nil
		}, smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: alice.RemoteIP, RemotePort: 7007, RemotePTR: "client.example",
			LocalIP: alice.LocalIP, LocalPort: 465, Auth: smtpproxy.Auth{Username: "bob"}}}, 1, ""},
		{"it knows the client's port alone", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemotePort: 8}}, nil
			}
			return nil, nil
		}, smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: alice.RemoteIP, RemotePort: 8, RemotePTR: "client.example",
			LocalIP: alice.LocalIP, LocalPort: 587}}, 1, ""},
		{"it knows the client's name alone", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemotePTR: "x", LocalIP: server.Addr()}}, nil
			}
			return nil, nil
		}, smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: alice.RemoteIP, RemotePort: 7007, RemotePTR: "x",
			LocalIP: server.Addr(), LocalPort: 587}}, 1, ""},
		{"it knows another client, of which nothing is known", func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if ip(conn) {
				return smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: server.Addr()}}, nil
			}
			return nil, nil
		}, smtpproxy.Reply{Restart: &smtpproxy.Origin{RemoteIP: server.Addr(), LocalIP: alice.LocalIP, LocalPort: 587}}, 1, ""},
	} {
		asked, ended := -1, make(chan smtpproxy.End, 1)
		h := newHost(t, &smtpproxy.Proxy{
			Hook: smtpproxy.Chain(smtpproxy.Named("xclient", xclient(&alice)), smtpproxy.Named("gate", onConnect(func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
				asked++
				return tt.connect(conn)
			}))),
			Observers: []smtpproxy.Observer{{Disconnected: func(_ *smtpproxy.Context, _ smtpproxy.Connection, e smtpproxy.End) { ended <- e }}},
		}).greets()
		got, _ := h.Command(t.Context(), "XCLIENT").(smtpproxy.Reply)
		want := tt.want
		if want.Code == 0 {
			want.Code = 421
		}
		if want.Code == 421 {
			want.Enhanced, want.Lines, want.Disconnect = smtpproxy.EnhancedCode{4, 3, 0}, []string{"Service not available, closing transmission channel"}, true
		}
		if !reflect.DeepEqual(got, want) || asked != tt.asked {
			t.Errorf("%s: asked %d times, %+v, want %+v", tt.why, asked, got, want)
		}
		if o := want.Restart; o != nil {
			c := h.Connection()
			told := smtpproxy.Origin{RemoteIP: c.RemoteIP, RemotePort: c.RemotePort, RemotePTR: c.RemotePTR, LocalIP: c.LocalIP, LocalPort: c.LocalPort, HELO: c.HELO, Auth: c.Auth}
			if told != *o {
				t.Errorf("%s: the client is %+v", tt.why, told)
			}
			h.Replied(220)
			h.accepts("NOOP")
		} else if h.Context().Err() == nil {
			t.Errorf("%s: it goes on", tt.why)
		}
		h.Close()
		if e := <-ended; tt.end != "" && fmt.Sprint(e.By, " ", e.Reason, " ", e.Reply) != tt.end {
			t.Errorf("%s: the end is %+v", tt.why, e)
		}
	}
}

// exchanges returns a hook that looks at replies, and what it has seen.
func exchanges() (smtpproxy.Hook, *[]smtpproxy.Exchange) {
	seen := new([]smtpproxy.Exchange)
	return onReply(func(x smtpproxy.Exchange) smtpproxy.Decision { *seen = append(*seen, x); return nil }), seen
}

func TestTheGreetingBehindARestartIsShownAsTheServersReplyToTheCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		look, seen := exchanges()
		var told []smtpproxy.Exchange
		h := newHost(t, &smtpproxy.Proxy{
			Hook: smtpproxy.Chain(smtpproxy.Named("xclient", xclient(&alice)), look, onReply(func(x smtpproxy.Exchange) smtpproxy.Decision {
				if x.Command.Verb() == "XCLIENT" {
					return smtpproxy.Reply{Lines: []string{"Welcome back"}, Delay: time.Second}
				}
				return nil
			})),
			Observers: []smtpproxy.Observer{{Exchanged: func(_ *smtpproxy.Context, x smtpproxy.Exchange) { told = append(told, x) }}},
		}).greets().accepts("EHLO front.example", "MAIL FROM:<a@a.example>")
		id := h.Transaction().ID
		h.restarts("XCLIENT LOGIN=alice")
		if len(*seen) != 3 {
			t.Errorf("the Restart itself was shown: %+v", *seen)
		}
		time.Sleep(time.Minute)
		r := h.Replied(220, "server.example")
		if r.String() != "220 Welcome back" || r.Delay != time.Second {
			t.Errorf("the client gets %+v", r)
		}
		for who, list := range map[string][]smtpproxy.Exchange{"the hook": *seen, "the observer": told} {
			x := list[len(list)-1]
			if len(list) != 4 || x.Command.Line != "XCLIENT LOGIN=alice" || x.Passed.Line != "" || x.By != smtpproxy.ByServer || x.Hook != "" || x.Recipient != -1 {
				t.Errorf("%s is shown %+v", who, x)
			}
			if x.Connection.RemoteIP != alice.RemoteIP || x.Connection.Peer != frontEnd || x.Transaction.ID != id || x.Served != time.Minute {
				t.Errorf("%s is shown %+v", who, x)
			}
		}
	})
}

func TestARefusalBehindARestartIsShownAsThatOfWhoHasRefused(t *testing.T) {
	for _, tt := range []struct {
		why     string
		connect func(smtpproxy.Connection) (smtpproxy.Decision, error)
		want    string
	}{
		{"a hook", func(smtpproxy.Connection) (smtpproxy.Decision, error) { return smtpproxy.Reply{Code: 554}, nil }, "XCLIENT 554 hook gate true"},
		{"a failure, which has no name", func(smtpproxy.Connection) (smtpproxy.Decision, error) { return nil, errors.New("no") }, "XCLIENT 421 failure  true"},
	} {
		look, seen := exchanges()
		first := true
		h := newHost(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(smtpproxy.Named("xclient", xclient(&alice)), look, smtpproxy.Named("gate", onConnect(func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
			if first {
				first = false
				return nil, nil
			}
			return tt.connect(conn)
		})))}).greets()
		h.Command(t.Context(), "XCLIENT")
		x := (*seen)[len(*seen)-1]
		if got := fmt.Sprint(x.Command.Line, " ", x.Reply.Code, " ", x.By, " ", x.Hook, " ", x.Reply.Disconnect); len(*seen) != 2 || got != tt.want {
			t.Errorf("%s: shown %q, want %q", tt.why, got, tt.want)
		}
	}
}

func TestTheGreetingOfARestartedServerIsWhatItSaysWhateverItsCode(t *testing.T) {
	for _, tt := range []struct {
		code int
		over bool
		end  string
		why  string
	}{
		{220, false, "client client gone 2", "the client goes on, and is counted a command more"},
		{554, false, "server refused 1", "RFC 5321 section 3.1: a dialogue follows, if only QUIT"},
		{421, true, "server refused 1", "RFC 5321 section 3.8: the server closes"},
	} {
		ended := make(chan smtpproxy.End, 2)
		h := newHost(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(xclient(&alice), smtpproxy.Funcs{
			OnDisconnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection, e smtpproxy.End) {
				if conn.RemoteIP != alice.RemoteIP || conn.Peer != frontEnd {
					t.Errorf("%d: the end is that of %+v", tt.code, conn)
				}
				ended <- e
			},
		})}).greets().accepts("NOOP")
		h.restarts("XCLIENT")
		r := h.Replied(tt.code, "as it says")
		if r.Code != tt.code || r.Lines[0] != "as it says" || r.Disconnect != tt.over {
			t.Errorf("%d: the client gets %+v (%s)", tt.code, r, tt.why)
		}
		h.Close()
		h.Close()
		if e := <-ended; fmt.Sprint(e.By, " ", e.Reason, " ", e.Commands) != tt.end || e.Verb != "XCLIENT" || e.Reply.Code != tt.code {
			t.Errorf("%d: the end is %+v, want %s (%s)", tt.code, e, tt.end, tt.why)
		}
		time.Sleep(time.Millisecond)
		if len(ended) > 0 {
			t.Errorf("%d: the end is told once more", tt.code)
		}
	}
}

func TestAHostThatGoesOnWithACommandWhereItIsToGreetAfreshGetsA421(t *testing.T) {
	for why, restart := range map[string]func() host{
		"behind a command": func() host {
			h := newHost(t, &smtpproxy.Proxy{Hook: xclient(&alice)}).greets()
			h.restarts("XCLIENT")
			return h
		},
		"at the greeting": func() host {
			h := newHost(t, &smtpproxy.Proxy{Hook: onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) {
				return smtpproxy.Reply{Restart: &alice}, nil
			})})
			h.Connect(t.Context())
			return h
		},
	} {
		h := restart()
		if d := h.Command(t.Context(), "EHLO client.example"); !isLast(d) {
			t.Errorf("%s: %+v", why, d)
		}
		if d := h.Command(t.Context(), "NOOP"); !isLast(d) {
			t.Errorf("%s, and once more: %+v", why, d)
		}
		h = restart()
		h.Replied(220, "server.example")
		h.accepts("EHLO client.example", "NOOP")
	}
}

func TestTheEndOfAHostThatDoesNotKnowARestartIsTheServers(t *testing.T) {
	restart := onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) { return smtpproxy.Reply{Restart: &alice}, nil })
	for why, do := range map[string]func(h host){
		"at a command":    func(h host) { h.greets().restarts("XCLIENT") },
		"at the greeting": func(h host) { h.Connect(t.Context()) },
	} {
		ended := make(chan smtpproxy.End, 1)
		p := &smtpproxy.Proxy{Hook: xclient(&alice), Observers: []smtpproxy.Observer{{Disconnected: func(_ *smtpproxy.Context, _ smtpproxy.Connection, e smtpproxy.End) { ended <- e }}}}
		if why == "at the greeting" {
			p.Hook = restart
		}
		h := newHost(t, p)
		do(h)
		h.Close()
		if e := <-ended; e.By != smtpproxy.SideServer || e.Reason != smtpproxy.ReasonServerClosed || e.Reply.Code != 421 || !e.Reply.Disconnect || e.Commands != 0 {
			t.Errorf("%s: %+v", why, e)
		}
	}
}

func TestASessionThatIsClosedDuringARestartIsNotRestarted(t *testing.T) {
	var h host
	first := true
	h = newHost(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(xclient(&alice), onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) {
		if !first {
			h.Close()
		}
		first = false
		return nil, nil
	}))})
	if d := h.greets().Command(t.Context(), "XCLIENT"); !isLast(d) {
		t.Errorf("decided: %+v", d)
	}
	h = newHost(t, &smtpproxy.Proxy{Hook: onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) {
		h.Close()
		return smtpproxy.Reply{Restart: &alice}, nil
	})})
	if d := h.Connect(t.Context()); !isLast(d) {
		t.Errorf("decided about the client: %+v", d)
	}
}

func TestARestartThatIsNotValidIsAFailureWithItsName(t *testing.T) {
	restart := func(change func(*smtpproxy.Reply)) smtpproxy.Decision {
		o := alice
		r := smtpproxy.Reply{Restart: &o}
		change(&r)
		return r
	}
	none := func(*smtpproxy.Reply) {}
	in := func(change func(*smtpproxy.Origin)) func(*smtpproxy.Reply) {
		return func(r *smtpproxy.Reply) { change(r.Restart) }
	}
	for _, tt := range []struct {
		why, line string
		change    func(*smtpproxy.Reply)
	}{
		{"a code is set", "XCLIENT", func(r *smtpproxy.Reply) { r.Code = 220 }},
		{"an enhanced code is", "XCLIENT", func(r *smtpproxy.Reply) { r.Enhanced = smtpproxy.NoEnhancedCode }},
		{"a line is", "XCLIENT", func(r *smtpproxy.Reply) { r.Lines = []string{""} }},
		{"Disconnect is", "XCLIENT", func(r *smtpproxy.Reply) { r.Disconnect = true }},
		{"Next is", "XCLIENT", func(r *smtpproxy.Reply) { r.Next = true }},
		{"Delay is", "XCLIENT", func(r *smtpproxy.Reply) { r.Delay = 1 }},
		{"a chunk follows the command", "BDAT 5 LAST", none},
		{"the size of the chunk isn't even known", "BDAT x", none},
		{"a handshake follows it", "STARTTLS", none},
		{"a server may look at no more of it than that", "STARTTLSX", none},
		{"a challenge follows it", "AUTH PLAIN", none},
		{"a server may take it for AUTH", "AUTHX", none},
		{"it is a line of the server's SASL exchange", "AGFsaWNlAHNlY3JldA==", none},
		{"it is one of the hook's own", "own", none},
		{"it is a browser's", "GET / HTTP/1.1", none},
		{"a control character is in the name", "XCLIENT", in(func(o *smtpproxy.Origin) { o.RemotePTR = "a\n" })},
		{"one is in the verb", "XCLIENT", in(func(o *smtpproxy.Origin) { o.HELO.Verb = "a\r" })},
		{"one is in the host", "XCLIENT", in(func(o *smtpproxy.Origin) { o.HELO.Host = "\x00" })},
		{"one is in the mechanism", "XCLIENT", in(func(o *smtpproxy.Origin) { o.Auth.Mechanism = "\x7f" })},
		{"one is in the user name", "XCLIENT", in(func(o *smtpproxy.Origin) { o.Auth.Username = "\x1b" })},
	} {
		var failure error
		p := &smtpproxy.Proxy{
			Hook: smtpproxy.Named("teller", smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				switch {
				case cmd.Line == tt.line:
					return restart(tt.change), nil
				case cmd.Line == "AUTH X":
					return smtpproxy.Reply{Code: 334}, nil
				}
				return smtpproxy.Pass{Next: true}, nil
			})),
			OnFailure: func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
				failure = f
				return nil
			},
		}
		h := newHost(t, p).greets().accepts("EHLO front.example")
		switch tt.line {
		case "AGFsaWNlAHNlY3JldA==":
			h.Command(t.Context(), "AUTH LOGIN")
			h.Replied(334)
		case "own":
			h.Command(t.Context(), "AUTH X")
		}
		d := h.Command(t.Context(), tt.line)
		var f smtpproxy.Failure
		if !isLast(d) || !errors.As(failure, &f) || !errors.Is(f, smtpproxy.ErrInvalidDecision) || f.Hook != "teller" || f.Command.Line != tt.line {
			t.Errorf("%s: decided %+v, failure %v of %q", tt.why, d, failure, f.Hook)
		}
		if c := h.Connection(); c.RemoteIP != frontEnd.Addr() {
			t.Errorf("%s: the client is %+v", tt.why, c)
		}

		if tt.line != "XCLIENT" {
			continue
		}
		// What is wrong for a command is wrong for a client.
		failure = nil
		p.Hook = smtpproxy.Named("teller", onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) { return restart(tt.change), nil }))
		if d := newHost(t, p).Connect(t.Context()); !isLast(d) || !errors.As(failure, &f) || !errors.Is(f, smtpproxy.ErrInvalidDecision) || f.Hook != "teller" {
			t.Errorf("%s: decided about the client: %+v, failure %v of %q", tt.why, d, failure, f.Hook)
		}
	}
}

func TestAReplyHookCanNotRestartTheServer(t *testing.T) {
	var failure error
	h := newHost(t, &smtpproxy.Proxy{
		Hook: onReply(func(smtpproxy.Exchange) smtpproxy.Decision { return smtpproxy.Reply{Restart: &alice} }),
		Observers: []smtpproxy.Observer{{Failed: func(_ *smtpproxy.Context, f smtpproxy.Failure) {
			failure = f
		}}},
	}).greets()
	h.Command(t.Context(), "NOOP")
	if r := h.Replied(250, "OK"); r.String() != "250 OK" || r.Disconnect || r.Restart != nil || h.Connection().RemoteIP != frontEnd.Addr() {
		t.Errorf("the client gets %+v", r)
	}
	if !errors.Is(failure, smtpproxy.ErrInvalidDecision) {
		t.Errorf("the failure is %v", failure)
	}
}

func TestWhatAHookDoesToItsOriginLaterIsNothingToTheSessionNorTheOtherWayRound(t *testing.T) {
	o := alice
	var again *smtpproxy.Origin
	h := newHost(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(xclient(&o), onConnect(func(conn smtpproxy.Connection) (smtpproxy.Decision, error) {
		if conn.RemoteIP == alice.RemoteIP {
			again = &smtpproxy.Origin{LocalPort: 465}
			return smtpproxy.Reply{Restart: again}, nil
		}
		return nil, nil
	}))}).greets()
	r := h.restarts("XCLIENT")
	if o != alice || *again != (smtpproxy.Origin{LocalPort: 465}) {
		t.Errorf("a hook's Origin was written to: %+v, %+v", o, *again)
	}
	told := h.Connection()
	o.RemoteIP, o.RemotePTR, o.HELO.Host, again.LocalPort = server.Addr(), "x", "x", 1
	if r.Restart == &o || r.Restart == again || r.Restart.LocalPort != 465 || r.Restart.RemotePTR != "client.example" || !reflect.DeepEqual(h.Connection(), told) {
		t.Errorf("a hook has changed it: %+v, %+v", r.Restart, h.Connection())
	}
	r.Restart.RemotePTR = "x"
	h.Replied(220)
	if h.accepts("STARTTLS"); !reflect.DeepEqual(h.Connection(), told) {
		t.Errorf("the server has changed it: %+v", h.Connection())
	}
}

func TestOnFailureMayRestartTheServer(t *testing.T) {
	p := &smtpproxy.Proxy{
		Hook: smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
			return nil, errors.New("no")
		}),
		OnFailure: func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
			return smtpproxy.Reply{Restart: &alice}
		},
	}
	h := newHost(t, p).greets()
	h.restarts("NOOP")
	if h.Replied(220); h.Connection().RemoteIP != alice.RemoteIP {
		t.Errorf("the client is %+v", h.Connection())
	}
	if d := newHost(t, p).greets().Command(t.Context(), "BDAT 5 LAST"); !isLast(d) {
		t.Errorf("where a hook couldn't: %+v", d)
	}
	p.Hook = onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) { return nil, errors.New("no") })
	if r, _ := newHost(t, p).Connect(t.Context()).(smtpproxy.Reply); r.Restart == nil || *r.Restart != alice {
		t.Errorf("about the client: %+v", r)
	}
}

// noUnwrap is a hook of the user's own that calls another in the library's place.
type noUnwrap struct{ smtpproxy.Hook }

func TestInAChainTheFirstRestartDecidesAndADelayBeforeItCounts(t *testing.T) {
	waits := func(d time.Duration) smtpproxy.Hook {
		return smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
			return smtpproxy.Pass{Delay: d}, nil
		})
	}
	for why, wrap := range map[string]func(smtpproxy.Hook) smtpproxy.Hook{
		"walked along":                      func(h smtpproxy.Hook) smtpproxy.Hook { return h },
		"called by a hook of the user's":    func(h smtpproxy.Hook) smtpproxy.Hook { return noUnwrap{h} },
		"called by one, in another Chain":   func(h smtpproxy.Hook) smtpproxy.Hook { return smtpproxy.Chain(waits(1), noUnwrap{smtpproxy.Chain(h)}) },
		"called by one in one, with a name": func(h smtpproxy.Hook) smtpproxy.Hook { return noUnwrap{smtpproxy.Named("x", noUnwrap{h})} },
	} {
		asked := 0
		chain := smtpproxy.Chain(waits(time.Second), waits(time.Minute), waits(time.Second), xclient(&alice),
			smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				asked++
				return smtpproxy.Reply{Restart: &smtpproxy.Origin{}, Code: 550}, nil
			}))
		h := newHost(t, &smtpproxy.Proxy{Hook: wrap(chain)}).greets()
		r := h.restarts("XCLIENT")
		if r.Delay != time.Minute || *r.Restart != alice || asked > 0 {
			t.Errorf("%s: %+v, the one behind was asked %d times", why, r, asked)
		}
		h.Replied(220)
		if d := h.Command(t.Context(), "NOOP"); !isLast(d) || asked != 1 {
			t.Errorf("%s: %+v, asked %d times", why, d, asked)
		}
	}
}

// A wait that another decision was to have isn't that of a Restart behind it.
func TestADelayOfAnotherChainIsNotThatOfARestart(t *testing.T) {
	chain := smtpproxy.Chain(smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return smtpproxy.Pass{Delay: time.Minute}, nil
	}), xclient(&smtpproxy.Origin{RemotePort: 1}))
	h := newHost(t, &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
		if _, err := chain.Command(ctx, cmd, conn, txn); err != nil {
			return nil, err
		}
		return smtpproxy.Reply{Restart: &alice}, nil
	})}).greets()
	if r := h.restarts("XCLIENT"); r.Delay != 0 {
		t.Errorf("it waits for %v", r.Delay)
	}
}

func TestAChainThatIsCalledByAHookOfTheUsersHasTheLongestDelay(t *testing.T) {
	delays := func(ds ...smtpproxy.Decision) smtpproxy.Hook {
		var hooks []smtpproxy.Hook
		for _, d := range ds {
			hooks = append(hooks, smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
				return d, nil
			}))
		}
		return noUnwrap{smtpproxy.Chain(hooks...)}
	}
	long, short := smtpproxy.Pass{Delay: time.Minute}, smtpproxy.Pass{Delay: time.Second}
	for why, d := range map[string]smtpproxy.Decision{
		"of passes":                      newHost(t, &smtpproxy.Proxy{Hook: delays(short, long, short)}).Command(t.Context(), "NOOP"),
		"of one before a Reply":          newHost(t, &smtpproxy.Proxy{Hook: delays(long, smtpproxy.Reply{Delay: 1})}).Command(t.Context(), "NOOP"),
		"of one before a pointer to one": newHost(t, &smtpproxy.Proxy{Hook: delays(long, &smtpproxy.Reply{})}).Command(t.Context(), "NOOP"),
		"of the Reply's":                 newHost(t, &smtpproxy.Proxy{Hook: delays(short, smtpproxy.Reply{Delay: time.Minute})}).Command(t.Context(), "NOOP"),
	} {
		delay := time.Duration(0)
		switch d := d.(type) {
		case smtpproxy.Pass:
			delay = d.Delay
		case smtpproxy.Reply:
			delay = d.Delay
		}
		if delay != time.Minute {
			t.Errorf("%s: %v", why, delay)
		}
	}
}

func TestBehindARestartTheHookIsAskedAboutTheClientThatItTells(t *testing.T) {
	var shown []string
	note := func(what string, conn smtpproxy.Connection) {
		shown = append(shown, fmt.Sprint(what, " ", conn.RemoteIP, " ", conn.Peer.Addr()))
	}
	chosen := 0
	p := &smtpproxy.Proxy{HookFor: func(smtpproxy.Connection) smtpproxy.Hook {
		chosen++
		return smtpproxy.Chain(smtpproxy.Funcs{
			OnConnect: func(_ *smtpproxy.Context, conn smtpproxy.Connection) (smtpproxy.Decision, error) {
				note("connect", conn)
				return nil, nil
			},
			OnKeywords: func(_ *smtpproxy.Context, conn smtpproxy.Connection, _ *smtpproxy.Keywords) error {
				note("keywords", conn)
				return nil
			},
			OnCommand: func(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
				note(cmd.Verb(), conn)
				return nil, nil
			},
		}, xclient(&alice))
	}}
	h := newHost(t, p).greets().accepts("EHLO front.example")
	h.restarts("XCLIENT")
	h.Replied(220)
	h.accepts("EHLO client.example")
	want := []string{"connect 192.0.2.1 192.0.2.1", "EHLO 192.0.2.1 192.0.2.1", "keywords 192.0.2.1 192.0.2.1",
		"XCLIENT 192.0.2.1 192.0.2.1", "connect 198.51.100.7 192.0.2.1", "EHLO 198.51.100.7 192.0.2.1", "keywords 198.51.100.7 192.0.2.1"}
	if !slices.Equal(shown, want) || chosen != 1 {
		t.Errorf("chosen %d times, shown\n%s", chosen, strings.Join(shown, "\n"))
	}
}

func TestAServerMayTellThatItClosesAtAnyTimeAndIsNotBelievedAnythingElse(t *testing.T) {
	for code, over := range map[int]string{421: "server refused", 250: "library out of step"} {
		ended := make(chan smtpproxy.End, 1)
		h := newHost(t, &smtpproxy.Proxy{Observers: []smtpproxy.Observer{{Disconnected: func(_ *smtpproxy.Context, _ smtpproxy.Connection, e smtpproxy.End) { ended <- e }}}}).greets().accepts("NOOP")
		if r := h.Replied(code, "x"); r.Code != 421 || !r.Disconnect {
			t.Errorf("%d: %+v", code, r)
		}
		h.Close()
		if e := <-ended; fmt.Sprint(e.By, " ", e.Reason) != over {
			t.Errorf("%d: %+v", code, e)
		}
	}
}

func TestAtTheGreetingTheFirstRestartDecidesAndADelayBeforeItCounts(t *testing.T) {
	asked, o := 0, alice
	h := newHost(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(greetsWith(smtpproxy.Pass{Delay: time.Minute}), greetsWith(&smtpproxy.Reply{Restart: &o}),
		onConnect(func(smtpproxy.Connection) (smtpproxy.Decision, error) {
			asked++
			return smtpproxy.Reply{Restart: &smtpproxy.Origin{}}, nil
		}))})
	r, _ := h.Connect(t.Context()).(smtpproxy.Reply)
	if r.Restart == nil || *r.Restart != alice || r.Delay != time.Minute || asked > 0 {
		t.Errorf("%+v, the one behind was asked %d times", r, asked)
	}
	if r.Restart == &o {
		t.Error("a host gets the hook's own Origin")
	}
	h.Replied(220)
	h.accepts("EHLO x")
	if c := h.Connection(); c.RemoteIP != alice.RemoteIP || c.Auth != alice.Auth || c.Peer != frontEnd || asked > 0 {
		t.Errorf("the client is %+v, asked %d times", c, asked)
	}
}
