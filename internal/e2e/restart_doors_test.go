package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// This file holds what everybody is told where the server starts afresh against what the
// hook has found, whichever way the client has come.

// warden is a hook that lets the server start afresh at XCLIENT, and keeps what it is shown.
type warden struct {
	*lifeHook
	mu      sync.Mutex
	origins []smtpproxy.Origin // one for each XCLIENT; the last one for all that follow, too
	sights  []sight
}

// sight is what a hook is shown of a line.
type sight struct {
	line string
	conn connection
	txn  transaction
}

func newWarden(origins ...smtpproxy.Origin) *warden {
	w := &warden{lifeHook: newLifeHook(), origins: origins}
	w.command = func(_ *hookContext, cmd command) (decision, error) {
		if cmd.Verb() == "XCLIENT" {
			return smtpproxy.Reply{Restart: w.next()}, nil
		}
		return nil, nil
	}
	return w
}

// next returns the next origin.
func (w *warden) next() *smtpproxy.Origin {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.origins[0]
	if len(w.origins) > 1 {
		w.origins = w.origins[1:]
	}
	return &o
}

func (w *warden) Command(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error) {
	w.mu.Lock()
	w.sights = append(w.sights, sight{cmd.Line, conn, txn})
	w.mu.Unlock()
	return w.lifeHook.Command(ctx, cmd, conn, txn)
}

// saw returns what it was shown last of a line.
func (w *warden) saw(t *testing.T, line string) sight {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range slices.Backward(w.sights) {
		if s.line == line {
			return s
		}
	}
	t.Fatalf("the hook wasn't shown %s", line)
	return sight{}
}

// around returns what it was shown last of a line, and of the one behind it.
func (w *warden) around(t *testing.T, line string) (at, behind sight) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.sights) - 2; i >= 0; i-- {
		if w.sights[i].line == line {
			return w.sights[i], w.sights[i+1]
		}
	}
	t.Fatalf("the hook wasn't shown %s, and a line behind it", line)
	return sight{}, sight{}
}

// lines returns what it was shown.
func (w *warden) lines() (lines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sights {
		lines = append(lines, s.line)
	}
	return lines
}

// restartDoor is a way for a client to where the server starts afresh.
type restartDoor struct {
	name      string
	tls       string // how there is TLS: one of tlsDoors, or ""
	behind    bool   // STARTTLS comes behind the restart
	atConnect bool   // a hook finds the client to be another's before there is a command
	lmtp      bool
	noTLS     bool // the listener has no TLS configuration
}

var restartDoors = []restartDoor{
	{name: "plain"},
	{name: "a listener without TLS", noTLS: true},
	{name: "STARTTLS, then the restart", tls: "STARTTLS"},
	{name: "the restart, then STARTTLS", tls: "STARTTLS", behind: true},
	{name: "ImplicitTLS", tls: "ImplicitTLS"},
	{name: "tls.NewListener", tls: "tls.NewListener"},
	{name: "LMTP", lmtp: true},
	{name: "LMTP, STARTTLS before", lmtp: true, tls: "STARTTLS"},
	{name: "Connect", atConnect: true},
	{name: "Connect, without TLS", atConnect: true, noTLS: true},
	{name: "Connect, then STARTTLS", atConnect: true, tls: "STARTTLS", behind: true},
	{name: "Connect, ImplicitTLS", atConnect: true, tls: "ImplicitTLS"},
	{name: "Connect, tls.NewListener", atConnect: true, tls: "tls.NewListener"},
	{name: "Connect, LMTP", atConnect: true, lmtp: true},
}

// overUnix connects by a unix socket.
func overUnix(t *testing.T) transport {
	dir, err := os.MkdirTemp("", "") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return transport{Listener: l, halfCloses: true, dial: func() (net.Conn, error) { return net.Dial("unix", l.Addr().String()) }}
}

// restartTransports are those of a server without TLS of its own.
var restartTransports = map[string]func(*testing.T) transport{"TCP": overTCP, "pipe": overPipe, "unix": overUnix}

// forEachRestartDoor runs f for each door and transport.
func forEachRestartDoor(t *testing.T, f func(t *testing.T, d restartDoor, tr transport)) {
	for _, d := range restartDoors {
		for name, over := range restartTransports {
			t.Run(d.name+", "+name, func(t *testing.T) { f(t, d, over(t)) })
		}
	}
}

// hello is the client's greeting.
func (d restartDoor) hello(host string) string {
	if d.lmtp {
		return "LHLO " + host
	}
	return "EHLO " + host
}

// guard makes w the hook of a Proxy for this door, and returns the listener beneath.
func (d restartDoor) guard(p *smtpproxy.Proxy, w *warden, tr transport) net.Listener {
	p.Hook = w
	if d.atConnect {
		var once atomic.Bool
		w.connect = func(*hookContext, connection) (decision, error) {
			if once.Swap(true) {
				return nil, nil
			}
			return reply{Restart: w.next()}, nil
		}
	}
	if d.noTLS {
		return tr
	}
	p.TLSConfig = serverTLS().Clone()
	p.TLSConfig.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	switch d.tls {
	case "ImplicitTLS":
		p.ImplicitTLS = true
	case "tls.NewListener":
		return tls.NewListener(tr, p.TLSConfig)
	}
	return tr
}

// arrive connects a client, and brings it to where the greeting of the fresh server comes
// next.
func (d restartDoor) arrive(t *testing.T, tr transport) *talker {
	t.Helper()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	k := &talker{t, c, bufio.NewReader(c)}
	if d.tls != "" && d.tls != "STARTTLS" {
		k.secure()
	}
	if d.atConnect {
		return k
	}
	k.want("", "220")
	k.want(d.hello("front.example"), "250")
	if d.tls == "STARTTLS" && !d.behind {
		k.startTLS()
		k.want(d.hello("front.example"), "250")
	}
	io.WriteString(k.Conn, "XCLIENT ADDR=192.0.2.7\r\n")
	return k
}

// settle goes on behind that greeting.
func (d restartDoor) settle(k *talker) {
	k.t.Helper()
	if d.behind {
		k.want(d.hello("client.example"), "250")
		k.startTLS()
	}
}

// secure shakes hands.
func (k *talker) secure() {
	k.t.Helper()
	tc := tls.Client(k.Conn, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example"})
	if err := tc.Handshake(); err != nil {
		k.t.Fatal(err)
	}
	k.Conn, k.r = tc, bufio.NewReader(tc)
}

// backendSight is what a backend of go-smtp finds out about its connection.
type backendSight struct {
	remote, local    net.Addr
	session, unwraps connection // through gosmtp.Session and SessionOf
	state            tls.ConnectionState
	hasState         bool
}

// serveShown serves go-smtp, and tells of each session.
func (d restartDoor) serveShown(t *testing.T, p *smtpproxy.Proxy, w *warden, tr transport) <-chan backendSight {
	sessions := make(chan backendSight, 10)
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		s := backendSight{remote: c.Conn().RemoteAddr(), local: c.Conn().LocalAddr(), session: gosmtp.Session(c).Connection()}
		if of, ok := smtpproxy.SessionOf(c.Conn()); ok {
			s.unwraps = of.Connection()
		}
		s.state, s.hasState = gosmtp.TLSConnectionState(c)
		sessions <- s
		return &tlsSession{new(tlsBackend)}, nil
	}))
	srv.LMTP = d.lmtp
	serveBehind(t, srv, d.guard(p, w, tr), p)
	return sessions
}

// newest returns the last of some.
func newest(t *testing.T, sessions <-chan backendSight) backendSight {
	t.Helper()
	s := inTime(t, "a session", sessions)
	for len(sessions) > 0 {
		s = <-sessions
	}
	return s
}

// becomes returns what a connection is when an origin was told of it.
func becomes(c connection, o smtpproxy.Origin) connection {
	c.RemoteIP, c.RemotePort, c.RemotePTR, c.RemoteUID = o.RemoteIP, o.RemotePort, o.RemotePTR, smtpproxy.UID{}
	c.LocalIP, c.LocalPort, c.HELO, c.Auth = o.LocalIP, o.LocalPort, o.HELO, o.Auth
	return c
}

func TestEverybodyIsToldOfTheClientThatTheServerStartsAfreshFor(t *testing.T) {
	forEachRestartDoor(t, func(t *testing.T, d restartDoor, tr transport) {
		w := newWarden(origin)
		sessions := d.serveShown(t, &smtpproxy.Proxy{ServerID: "mx1"}, w, tr)
		k := d.arrive(t, tr)
		k.want("", "220 mx.example ")
		d.settle(k)
		k.want("NOOP", "250")
		hook := w.saw(t, "NOOP").conn
		k.want(d.hello("again.example"), "250")
		k.want("NOOP", "250")
		got := newest(t, sessions)

		w.lifeHook.mu.Lock()
		before := w.conns[0] // as Connect was told of it first
		w.lifeHook.mu.Unlock()
		if peer := netip.AddrPortFrom(before.RemoteIP, before.RemotePort); before.Peer != peer || before.ServerID != "mx1" {
			t.Errorf("at first it is %+v", before)
		}
		want := becomes(before, origin)
		want.TLS = hook.TLS
		if (d.tls != "") != (want.TLS.Protocol == "TLSv1.3") || (d.tls != "") != (want.TLS.SNI == "mx.example") {
			t.Errorf("TLS is %+v", want.TLS)
		}
		for who, got := range map[string]connection{"hook": hook, "gosmtp.Session": got.session, "SessionOf": got.unwraps} {
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: told of\n%+v\nwant\n%+v", who, got, want)
			}
		}
		greeted := want
		greeted.HELO = smtpproxy.HELO{Verb: d.hello("")[:4], Host: "again.example"}
		if got := w.saw(t, "NOOP").conn; !reflect.DeepEqual(got, greeted) {
			t.Errorf("greeted, it is\n%+v\nwant\n%+v", got, greeted)
		}
		wantAddr(t, "RemoteAddr", got.remote, "192.0.2.7:7007")
		wantAddr(t, "LocalAddr", got.local, "203.0.113.25:587")
		if tc, ok := k.Conn.(*tls.Conn); ok != got.hasState {
			t.Errorf("TLS: %v, and for the backend %v", ok, got.hasState)
		} else if ok && got.state.CipherSuite != tc.ConnectionState().CipherSuite {
			t.Errorf("the backend's TLS has cipher %x", got.state.CipherSuite)
		}
		k.want("QUIT", "221")
		k.wantEnd()
		if told := inTime(t, "Disconnect", w.ended); !reflect.DeepEqual(told.conn, greeted) || told.end.Reason != smtpproxy.ReasonQuit {
			t.Errorf("at the end: %s\n%+v", short(told.end), told.conn)
		}
		if len(w.ended) > 0 {
			t.Error("the end is told twice")
		}
	})
}

// wantAddr checks an address of the server's connection that was told.
func wantAddr(t *testing.T, what string, got net.Addr, want string) {
	t.Helper()
	if _, ok := got.(*net.TCPAddr); !ok || got.String() != want {
		t.Errorf("%s is %T %v, want %s", what, got, got, want)
	}
}

// originRow is what an Origin leaves out, and what that leaves.
type originRow struct {
	why  string
	o    smtpproxy.Origin
	then func(c connection) connection // what becomes of a connection
	// The server's addresses, "" being what they were.
	remote, local string
}

var originRows = []originRow{
	{"nothing is told: all stays but who has greeted and authenticated", smtpproxy.Origin{}, func(c connection) connection { return c }, "", ""},
	{"only HELO", smtpproxy.Origin{HELO: origin.HELO}, func(c connection) connection { c.HELO = origin.HELO; return c }, "", ""},
	{"only Auth", smtpproxy.Origin{Auth: origin.Auth}, func(c connection) connection { c.Auth = origin.Auth; return c }, "", ""},
	{"only a name", smtpproxy.Origin{RemotePTR: "client.example"}, func(c connection) connection { c.RemotePTR = "client.example"; return c }, "", ""},
	{"an address: port, name and user are another's", smtpproxy.Origin{RemoteIP: origin.RemoteIP}, func(c connection) connection {
		c.RemoteIP, c.RemotePort, c.RemotePTR, c.RemoteUID = origin.RemoteIP, 0, "", smtpproxy.UID{}
		return c
	}, "192.0.2.7:0", ""},
	{"an address and a port", smtpproxy.Origin{RemoteIP: origin.RemoteIP, RemotePort: 7007}, func(c connection) connection {
		c.RemoteIP, c.RemotePort, c.RemotePTR, c.RemoteUID = origin.RemoteIP, 7007, "", smtpproxy.UID{}
		return c
	}, "192.0.2.7:7007", ""},
	{"only ports: the addresses stay", smtpproxy.Origin{RemotePort: 7007, LocalPort: 587}, func(c connection) connection {
		c.RemotePort, c.LocalPort = 7007, 587
		return c
	}, "127.0.0.9:7007", "127.0.0.8:587"},
	{"only where it has connected to", smtpproxy.Origin{LocalIP: origin.LocalIP}, func(c connection) connection {
		c.LocalIP = origin.LocalIP
		return c
	}, "", "203.0.113.25:2525"},
	{"IPv4 in IPv6 form is IPv4", smtpproxy.Origin{RemoteIP: netip.MustParseAddr("::ffff:192.0.2.7"), LocalIP: netip.MustParseAddr("::ffff:203.0.113.25")},
		func(c connection) connection {
			c.RemoteIP, c.RemotePort, c.RemotePTR, c.RemoteUID, c.LocalIP = origin.RemoteIP, 0, "", smtpproxy.UID{}, origin.LocalIP
			return c
		}, "192.0.2.7:0", "203.0.113.25:2525"},
	{"IPv6 keeps its zone", smtpproxy.Origin{RemoteIP: netip.MustParseAddr("fe80::7%eth0"), RemotePort: 7, LocalIP: netip.MustParseAddr("fe80::8%eth1"), LocalPort: 8},
		func(c connection) connection {
			c.RemoteIP, c.RemotePort, c.RemotePTR, c.RemoteUID = netip.MustParseAddr("fe80::7%eth0"), 7, "", smtpproxy.UID{}
			c.LocalIP, c.LocalPort = netip.MustParseAddr("fe80::8%eth1"), 8
			return c
		}, "[fe80::7%eth0]:7", "[fe80::8%eth1]:8"},
}

// namedAddr is an address of a type of its own, which a server may look for.
type namedAddr struct{ *net.TCPAddr }

// namedConn is a connection with such addresses.
type namedConn struct{ net.Conn }

func addrAs(s string) net.Addr { return namedAddr{net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s))} }

func (namedConn) RemoteAddr() net.Addr { return addrAs("127.0.0.9:9999") }
func (namedConn) LocalAddr() net.Addr  { return addrAs("127.0.0.8:2525") }

func overNamed() transport {
	return newTransport(true, func() (server, client net.Conn, err error) {
		s, c := connectByCable()
		return namedConn{s}, c, nil
	})
}

func TestWhatAnOriginLeavesOutIsUnknownOrStays(t *testing.T) {
	for _, row := range originRows {
		for _, atConnect := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, at Connect %v", row.why, atConnect), func(t *testing.T) {
				d := restartDoor{atConnect: atConnect}
				w := newWarden(row.o)
				tr := overNamed()
				sessions := d.serveShown(t, new(smtpproxy.Proxy), w, tr)
				k := d.arrive(t, tr)
				k.want("", "220")
				k.want("NOOP", "250")
				k.want("EHLO again.example", "250")
				got := newest(t, sessions)
				w.lifeHook.mu.Lock()
				want := row.then(w.conns[0])
				w.lifeHook.mu.Unlock()
				if hook := w.saw(t, "NOOP").conn; !reflect.DeepEqual(hook, want) {
					t.Errorf("the hook is told of\n%+v\nwant\n%+v", hook, want)
				}
				for _, of := range []struct {
					got  net.Addr
					told string
					was  string
				}{{got.remote, row.remote, "127.0.0.9:9999"}, {got.local, row.local, "127.0.0.8:2525"}} {
					if of.told != "" {
						wantAddr(t, "an address", of.got, of.told)
					} else if _, ok := of.got.(namedAddr); !ok || of.got.String() != of.was {
						t.Errorf("an address of which nothing was told is %T %v", of.got, of.got)
					}
				}
			})
		}
	}
}

// On a unix socket there are no ports, and no addresses that one could belong to.
func TestWhatIsToldOfAUnixSocketLeavesItsAddressesUnlessThereAreOthers(t *testing.T) {
	for _, row := range []struct {
		why           string
		o             smtpproxy.Origin
		remote, local string // their types
		keepsUser     bool
	}{
		{"nothing", smtpproxy.Origin{}, "*net.UnixAddr", "*net.UnixAddr", true},
		{"a port of no address", smtpproxy.Origin{RemotePort: 7, LocalPort: 8}, "*net.UnixAddr", "*net.UnixAddr", true},
		{"a name", smtpproxy.Origin{RemotePTR: "x"}, "*net.UnixAddr", "*net.UnixAddr", true},
		{"the client's address", smtpproxy.Origin{RemoteIP: origin.RemoteIP}, "*net.TCPAddr", "*net.UnixAddr", false},
		{"the server's address", smtpproxy.Origin{LocalIP: origin.LocalIP}, "*net.UnixAddr", "*net.TCPAddr", true},
		{"both", origin, "*net.TCPAddr", "*net.TCPAddr", false},
	} {
		t.Run(row.why, func(t *testing.T) {
			d := restartDoor{lmtp: true}
			w := newWarden(row.o)
			tr := overUnix(t)
			sessions := d.serveShown(t, new(smtpproxy.Proxy), w, tr)
			k := d.arrive(t, tr)
			k.want("", "220")
			k.want("LHLO again.example", "250")
			got := newest(t, sessions)
			if remote, local := fmt.Sprintf("%T", got.remote), fmt.Sprintf("%T", got.local); remote != row.remote || local != row.local {
				t.Errorf("addresses are %s and %s", remote, local)
			}
			before := w.saw(t, "XCLIENT ADDR=192.0.2.7").conn
			if after := got.session; (after.RemoteUID == before.RemoteUID) != (row.keepsUser || !before.RemoteUID.Valid) || after.Peer.IsValid() {
				t.Errorf("the client is %+v, and was %+v", after, before)
			}
		})
	}
}

// greetingRow is how a fresh server greets.
type greetingRow struct {
	why    string
	octets string
	closed bool // behind it
}

var greetingRows = []greetingRow{
	{"220", "220 mx.example ESMTP\r\n", false},
	{"several lines (RFC 5321 section 4.2.1)", "220-mx.example ESMTP\r\n220-mind\r\n220 the gap\r\n", false},
	{"554, behind which there is a dialogue (RFC 5321 section 3.1)", "554 5.3.2 no mail here\r\n", false},
	{"450, several lines", "450-4.3.2 come\r\n450 4.3.2 later\r\n", false},
	{"421, the end (RFC 5321 section 3.8)", "421 4.3.2 too busy\r\n", true},
	{"521 (RFC 7504)", "521 mx.example accepts none\r\n", false},
}

func TestTheGreetingOfTheFreshServerIsTheReply(t *testing.T) {
	for _, row := range greetingRows {
		for _, inPieces := range []bool{false, true} {
			forEachRestartDoor(t, func(t *testing.T, d restartDoor, tr transport) {
				p, w := new(smtpproxy.Proxy), newWarden(origin)
				fresh := 1 // which connection it is
				if d.tls == "STARTTLS" && !d.behind {
					fresh = 2
				}
				beneath := d.guard(p, w, tr)
				serveScript(t, p.Listener(beneath), func(n int, c net.Conn, r *bufio.Reader) {
					greeting := "220 old.example\r\n"
					switch {
					case n == fresh:
						greeting = row.octets
					case n > fresh:
						greeting = "220 inside.example\r\n"
					}
					pieces := []string{greeting}
					if inPieces {
						pieces = strings.Split(greeting, "")
					}
					for _, piece := range pieces {
						io.WriteString(c, piece)
					}
					for n != fresh || !row.closed {
						if _, err := r.ReadString('\n'); err != nil {
							return
						}
						io.WriteString(c, "250 done\r\n")
					}
				})
				k := d.arrive(t, tr)
				got := make([]byte, len(row.octets))
				if _, err := io.ReadFull(k.r, got); err != nil || string(got) != row.octets {
					t.Fatalf("%s, in pieces %v: got %q, %v; want %q", row.why, inPieces, got, err, row.octets)
				}
				if row.closed {
					k.wantEnd()
					if told := inTime(t, "Disconnect", w.ended); told.end.By != smtpproxy.SideServer || told.end.Reason != smtpproxy.ReasonRefused || told.end.Reply.Code != 421 {
						t.Errorf("told: %s", short(told.end))
					}
					return
				}
				k.want("NOOP", "250 done")
				d.settle(k)
				k.want("NOOP", "250 done")
			})
		}
	}
}

func TestARestartBehindARestartTellsOfTheLastClient(t *testing.T) {
	forEachRestartDoor(t, func(t *testing.T, d restartDoor, tr transport) {
		w := newWarden(
			origin,
			smtpproxy.Origin{HELO: smtpproxy.HELO{Verb: "HELO", Host: "second.example"}},
			smtpproxy.Origin{RemoteIP: netip.MustParseAddr("2001:db8::3"), LocalPort: 25},
		)
		sessions := d.serveShown(t, new(smtpproxy.Proxy), w, tr)
		k := d.arrive(t, tr)
		k.want("", "220")
		d.settle(k)
		k.want("XCLIENT second", "220")
		k.want("NOOP second", "250")
		want := w.saw(t, "XCLIENT second").conn
		want.HELO, want.Auth = smtpproxy.HELO{Verb: "HELO", Host: "second.example"}, smtpproxy.Auth{}
		if got := w.saw(t, "NOOP second").conn; !reflect.DeepEqual(got, want) || got.RemotePTR != "client.example" || got.RemotePort != 7007 {
			t.Errorf("behind the second, it is\n%+v\nwant\n%+v", got, want)
		}
		k.want(d.hello("second.example"), "250")
		got := newest(t, sessions)
		wantAddr(t, "RemoteAddr", got.remote, "192.0.2.7:7007")
		wantAddr(t, "LocalAddr", got.local, "203.0.113.25:587")
		k.want("XCLIENT third", "220")
		k.want("NOOP third", "250")
		want.RemoteIP, want.RemotePort, want.RemotePTR, want.LocalPort, want.HELO = netip.MustParseAddr("2001:db8::3"), 0, "", 25, smtpproxy.HELO{}
		if got := w.saw(t, "NOOP third").conn; !reflect.DeepEqual(got, want) {
			t.Errorf("behind the third, it is\n%+v\nwant\n%+v", got, want)
		}
		k.want(d.hello("third.example"), "250")
		got = newest(t, sessions)
		wantAddr(t, "RemoteAddr", got.remote, "[2001:db8::3]:0")
		wantAddr(t, "LocalAddr", got.local, "203.0.113.25:25")
	})
}
