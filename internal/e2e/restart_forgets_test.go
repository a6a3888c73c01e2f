package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/foxcpp/go-mockdns"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about what is left where the server starts afresh: what the client has sent
// behind the command, what the library keeps for the connection, and nothing else.

// servePuppet serves each connection of a listener with one puppet.
func servePuppet(t *testing.T, l net.Listener, pup *puppet) {
	serveScript(t, l, func(_ int, c net.Conn, _ *bufio.Reader) {
		pup.lmtp, pup.rcpts = false, 0 // as a server that knows nothing of the connection before
		pup.serve(c)
	})
}

// sentBehind is what a client sends behind the command, at once, and what comes of it.
const sentBehind = "XCLIENT ADDR=192.0.2.7\r\nEHLO client.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n" +
	"DATA\r\nXCLIENT\r\n..\r\n.\r\nMAIL FROM:<c@c.example>\r\nRCPT TO:<d@d.example>\r\nBDAT 9 LAST\r\nXCLIENT\r\nNOOP\r\nQUIT\r\n"

const (
	repliedBehind = "220 250 250 250 354 250 250 250 250 250 221"
	shownBehind   = "EHLO XCLIENT EHLO MAIL RCPT DATA MAIL RCPT BDAT NOOP QUIT"
)

// codes returns the codes of all replies up to the end.
func (k *talker) codes() (codes []string) {
	for {
		got, err := k.reply()
		if err != nil {
			return codes
		}
		codes = append(codes, got[:3])
	}
}

// verbsOf returns the verbs of lines.
func verbsOf(lines []string) string {
	var verbs []string
	for _, line := range lines {
		verbs = append(verbs, command{Line: line}.Verb())
	}
	return strings.Join(verbs, " ")
}

func TestWhatIsSentBehindARestartIsKeptWhereverItIsCut(t *testing.T) {
	serverTLS() // outside of a bubble's time
	for name, front := range fronts {
		for _, inTLS := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, inTLS), func(t *testing.T) {
				for cut := range len(sentBehind) + 1 {
					if testing.Short() && cut%7 > 0 || inTLS && cut%5 > 0 { // TLS takes its time
						continue
					}
					synctest.Test(t, func(t *testing.T) { sendCut(t, front, inTLS, cut) })
				}
			})
		}
	}
}

// sendCut sends all that in two pieces, the second when all that comes of the first is done.
func sendCut(t *testing.T, front func(*smtpproxy.Proxy) fronted, inTLS bool, cut int) {
	w := newWarden(origin)
	p := &smtpproxy.Proxy{Hook: w}
	if inTLS {
		p.TLSConfig, p.ImplicitTLS = serverTLS(), true
	}
	s, tr := front(p), overCable()
	s.start(t, tr)
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	k := &talker{t, c, bufio.NewReader(c)}
	if inTLS {
		k.secure()
	}
	k.want("", "220")
	k.want("EHLO front.example", "250")
	io.WriteString(k.Conn, sentBehind[:cut])
	synctest.Wait()
	io.WriteString(k.Conn, sentBehind[cut:])
	if got := strings.Join(k.codes(), " "); got != repliedBehind {
		t.Errorf("cut at %q: replies %s, want %s", sentBehind[:cut], got, repliedBehind)
	}
	if got := verbsOf(w.lines()); got != shownBehind {
		t.Errorf("cut at %q: the hook was shown %s, want %s", sentBehind[:cut], got, shownBehind)
	}
	var messages []string
	for _, m := range s.Messages() {
		messages = append(messages, fmt.Sprintf("%s %s %q", m.From, strings.Join(m.To, ","), m.Data))
	}
	want := []string{`a@a.example b@b.example "XCLIENT\r\n.\r\n"`, `c@c.example d@d.example "XCLIENT\r\n"`}
	if !slices.Equal(messages, want) {
		t.Errorf("cut at %q: messages %q, want %q", sentBehind[:cut], messages, want)
	}
}

func TestWhatAClientThatHasEndedHasSentBehindARestartIsAnswered(t *testing.T) {
	for name, front := range fronts {
		t.Run(name, func(t *testing.T) {
			w := newWarden(origin)
			s, tr := front(&smtpproxy.Proxy{Hook: w}), overTCP(t)
			s.start(t, tr)
			k := talk(t, tr)
			k.want("EHLO front.example", "250")
			io.WriteString(k.Conn, sentBehind)
			k.Conn.(*net.TCPConn).CloseWrite()
			if got := strings.Join(k.codes(), " "); got != repliedBehind {
				t.Errorf("replies %s, want %s", got, repliedBehind)
			}
		})
	}
}

// A forgottenRow is something of a client, and how a server finds that it is gone.
type forgottenRow struct {
	why     string
	before  string // lines and codes, separated by bars
	behind  string
	execute string // what the fresh server gets
}

var forgottenRows = []forgottenRow{
	{"HELO: the client greets anew", "EHLO front.example|250", "EHLO client.example|250", "EHLO"},
	{"a transaction: RCPT belongs to none", "EHLO x|250|MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250", "RCPT TO:<c@c>|503|DATA|503|BDAT 1 LAST\r\nx|502", ""},
	{"a transaction: MAIL begins the first one", "EHLO x|250|MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250", "MAIL FROM:<c@c>|250|RCPT TO:<d@d>|250", "MAIL RCPT"},
	{"a message that was refused: the fresh server has nothing to reset", "EHLO x|250|MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250|DATA|354|x\r\n.|554", "MAIL FROM:<c@c>|250", "MAIL"},
	{"a chunk that was refused, likewise", "EHLO x|250|MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250|BDAT 5000\r\n" + strings.Repeat("x", 5000) + "|552", "MAIL FROM:<c@c>|250|RCPT TO:<d@d>|250", "MAIL RCPT"},
	{"a transaction behind a HELO that was refused, likewise", "EHLO x|250|MAIL FROM:<a@a>|250|HELO y|501", "MAIL FROM:<c@c>|250", "MAIL"},
	{"LMTP: a message has one status", "LHLO x|250", "MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250|RCPT TO:<c@c>|250|BDAT 1 LAST\r\nx|250|NOOP|250|NOOP|250", "MAIL RCPT RCPT BDAT NOOP NOOP"},
	{"SIZE: a chunk may be longer than the old one's server took", "EHLO x|250", "MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250|BDAT 2000 LAST\r\n" + strings.Repeat("x", 2000) + "|250", "MAIL RCPT BDAT"},
	{"SMTP: a message has as many as recipients", "EHLO x|250", "LHLO y|250|MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250|RCPT TO:<c@c>|250|BDAT 1 LAST\r\nx|250||250|NOOP|250", "LHLO MAIL RCPT RCPT BDAT NOOP"},
	{"AUTH: STARTTLS, which it forbids, is taken again", "EHLO x|250|AUTH PLAIN AHgAeQ==|235|STARTTLS|503", "EHLO x|250|STARTTLS|220", "EHLO"},
	{"a keyword that a hook has deleted: the verb passes", "HELO nothing.example|250|VRFY x|502", "VRFY x|250", "VRFY"},
}

func TestNothingOfTheOldClientIsLeftWhereTheServerStartsAfresh(t *testing.T) {
	for _, row := range forgottenRows {
		t.Run(row.why, func(t *testing.T) {
			w := newWarden(smtpproxy.Origin{})
			w.keywords = func(kw *smtpproxy.Keywords) error {
				if strings.HasPrefix(row.before, "HELO nothing") && len(w.lines()) == 1 {
					kw.Delete("VRFY")
				}
				return nil
			}
			pup := &puppet{codes: map[string][]int{".": {554}, "HELO": {501}}}
			if strings.HasPrefix(row.before, "HELO") {
				pup.codes["HELO"] = nil
			}
			tr := overTCP(t)
			servePuppet(t, (&smtpproxy.Proxy{Hook: w, TLSConfig: serverTLS(), AllowInsecureAuth: true}).Listener(tr), pup)
			k := talk(t, tr)
			k.plays(row.before)
			pup.took()
			k.want("XCLIENT", "220")
			k.plays(row.behind)
			if got := verbsOf(pup.took()); got != row.execute {
				t.Errorf("the fresh server got %q, want %q", got, row.execute)
			}
			before, behind := w.around(t, "XCLIENT")
			if c := behind.conn; c.HELO != (smtpproxy.HELO{}) || c.Auth != (smtpproxy.Auth{}) || c.ID != before.conn.ID {
				t.Errorf("the client is %+v, and was %+v", c, before.conn)
			}
			if x := behind.txn; x.Active || x.Recipients.Len() > 0 || x.Sender != "" || x.ID == before.txn.ID || x.ID == "" {
				t.Errorf("the transaction is %+v, and was %+v", x, before.txn)
			}
		})
	}
}

// plays sends lines and expects the codes behind them, all separated by bars.
func (k *talker) plays(steps string) {
	k.t.Helper()
	for s := strings.Split(steps, "|"); len(s) > 1; s = s[2:] {
		line := s[0]
		if strings.HasPrefix(strings.ToUpper(line), "BDAT") { // the chunk has no line end
			io.WriteString(k, line)
			if !strings.Contains(line, "\r\n") {
				io.WriteString(k, "\r\n")
			}
			line = ""
		}
		k.want(line, s[1])
	}
}

func TestWhoHasAskedForTheNextLineOfTheOldClientDoesNotGetIt(t *testing.T) {
	asks, restarts := new(passLog), newWarden(origin)
	tr := overTCP(t)
	p := &smtpproxy.Proxy{Commands: []string{"XCLIENT"}, Hook: smtpproxy.Chain(decideIn(func(ctx *hookContext, cmd command) (decision, error) {
		asks.Command(ctx, cmd, connection{}, transaction{})
		return pass{Next: true}, nil
	}), restarts)}
	servePuppet(t, p.Listener(tr), new(puppet))
	k := talk(t, tr)
	k.plays("XCLIENT|220|NOOP|250|NOOP|250")
	if got := verbsOf(asks.passed()); got != "XCLIENT" {
		t.Errorf("it was shown %s", got)
	}
	if got := verbsOf(restarts.lines()); got != "XCLIENT" {
		t.Errorf("the other was shown %s", got)
	}
}

// The lookup of the old client's name takes longer than it may, or not.
func TestTheNameOfTheOldClientIsNotTheNewOnes(t *testing.T) {
	for _, row := range []struct {
		why    string
		o      smtpproxy.Origin
		lookup time.Duration // 5 s are waited for
		want   string
	}{
		{"an address without a name", smtpproxy.Origin{RemoteIP: origin.RemoteIP}, time.Second, ""},
		{"an address without a name, and the lookup goes on", smtpproxy.Origin{RemoteIP: origin.RemoteIP}, time.Minute, ""},
		{"a name", smtpproxy.Origin{RemoteIP: origin.RemoteIP, RemotePTR: "client.example"}, time.Second, "client.example"},
		{"a name, and the lookup goes on", smtpproxy.Origin{RemoteIP: origin.RemoteIP, RemotePTR: "client.example"}, time.Minute, "client.example"},
		{"a name alone, and the lookup goes on", smtpproxy.Origin{RemotePTR: "client.example"}, time.Minute, "client.example"},
		{"no address: the client is the same", smtpproxy.Origin{HELO: origin.HELO}, time.Second, "slow.example"},
	} {
		for _, atConnect := range []bool{false, true} {
			for _, stubborn := range []bool{false, true} {
				bubble(t, fmt.Sprintf("%s, at Connect %v, stubborn %v", row.why, atConnect, stubborn), func(t *testing.T) {
					d, w, r := restartDoor{atConnect: atConnect, noTLS: true}, newWarden(row.o), newSlowResolver(row.lookup, stubborn)
					t.Cleanup(func() { close(r.release) })
					tr := from(overCable(), "192.0.2.1:25")
					p := &smtpproxy.Proxy{LookupPTR: true, Resolver: r}
					d.guard(p, w, tr)
					servePuppet(t, p.Listener(tr), new(puppet))
					k := d.arrive(t, tr)
					k.SetDeadline(time.Time{})
					k.want("", "220")
					for range 3 {
						k.want("NOOP", "250")
						if got := w.saw(t, "NOOP").conn.RemotePTR; got != row.want {
							t.Errorf("the name is %q, want %q", got, row.want)
						}
						time.Sleep(time.Minute) // in a bubble
					}
				})
			}
		}
	}
}

func TestTheNameOfTheNewClientIsNotLookedUp(t *testing.T) {
	r := &mockdns.Resolver{Zones: map[string]mockdns.Zone{
		"7.2.0.192.in-addr.arpa.": {PTR: []string{"looked-up.example."}},
		"looked-up.example.":      {A: []string{"192.0.2.7"}},
	}}
	w := newWarden(smtpproxy.Origin{RemoteIP: origin.RemoteIP})
	tr := overTCP(t)
	servePuppet(t, (&smtpproxy.Proxy{Hook: w, LookupPTR: true, Resolver: r}).Listener(tr), new(puppet))
	talk(t, tr).plays("XCLIENT|220|EHLO x|250|NOOP|250")
	if got := w.saw(t, "NOOP").conn.RemotePTR; got != "" {
		t.Errorf("its name is %q", got)
	}
}

func TestWhatIsSentBehindARestartIsNoEarlyTalk(t *testing.T) {
	serverTLS()
	for name, front := range fronts {
		for over, tr := range map[string]func(*testing.T) transport{"TCP": overTCP, "pipe": overPipe, "TLS": overTLS} {
			for _, early := range []bool{false, true} {
				if early && (over == "pipe" || over == "TLS" && name == "reads ahead") {
					continue // nobody can look into it, or not while somebody reads
				}
				t.Run(fmt.Sprintf("%s, %s, the old client talked early %v", name, over, early), func(t *testing.T) {
					talked := make(chan struct{})
					w := newWarden(origin)
					w.connect = func(*hookContext, connection) (decision, error) { <-talked; return nil, nil }
					k := front(&smtpproxy.Proxy{Hook: w}).connect(t, tr(t))
					const octets = "XCLIENT\r\nEHLO client.example\r\nNOOP\r\n"
					if early {
						io.WriteString(k.Conn, "EHLO front.example\r\n"+octets)
						close(talked)
						k.expect("220", "250")
					} else {
						close(talked)
						k.expect("220")
						k.ask("EHLO front.example", "250")
						k.send(octets)
					}
					k.expect("220", "250", "250")
					if before := w.saw(t, "XCLIENT").conn; before.EarlyTalker != early {
						t.Errorf("at first it is told as %v", before.EarlyTalker)
					}
					if behind := w.saw(t, "NOOP").conn; behind.EarlyTalker || behind.RemoteIP != origin.RemoteIP {
						t.Errorf("behind the restart it is %+v", behind)
					}
				})
			}
		}
	}
}

func TestWhoTalksBeforeTheGreetingOfARestartAtConnectTalksEarly(t *testing.T) {
	serverTLS()
	for name, front := range fronts {
		for over, tr := range map[string]func(*testing.T) transport{"TCP": overTCP, "TLS": overTLS} {
			for _, early := range []bool{false, true} {
				if early && over == "TLS" && name == "reads ahead" {
					continue // nobody can look into it while somebody reads
				}
				t.Run(fmt.Sprintf("%s, %s, %v", name, over, early), func(t *testing.T) {
					talked := make(chan struct{})
					w := newWarden(origin)
					w.connect = func(*hookContext, connection) (decision, error) {
						<-talked
						return reply{Restart: w.next()}, nil
					}
					k := front(&smtpproxy.Proxy{Hook: w}).connect(t, tr(t))
					if early {
						io.WriteString(k.Conn, "EHLO client.example\r\nNOOP\r\n")
						close(talked)
						k.expect("220", "250", "250")
					} else {
						if over == "TLS" { // else the hook isn't asked yet
							k.Conn.(interface{ Handshake() error }).Handshake()
						}
						close(talked)
						k.expect("220")
						k.ask("EHLO client.example", "250")
						k.ask("NOOP", "250")
					}
					if got := w.saw(t, "NOOP").conn; got.EarlyTalker != early || got.RemoteIP != origin.RemoteIP {
						t.Errorf("it is %+v", got)
					}
				})
			}
		}
	}
}

// onlyAuthenticated is a policy: who hasn't authenticated sends no mail.
func onlyAuthenticated(_ *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
	if cmd.Verb() == "MAIL" && conn.Auth == (smtpproxy.Auth{}) {
		return reply{Code: 530, Enhanced: enhanced{5, 7, 0}, Lines: []string{"Authenticate first"}}, nil
	}
	return nil, nil
}

func TestAPolicyOnAuthCannotBePassedByWithARestart(t *testing.T) {
	for _, row := range []struct {
		why   string
		o     smtpproxy.Origin
		steps string
	}{
		{"the old client's Auth isn't the new one's", smtpproxy.Origin{}, "AUTH PLAIN AHgAeQ==|235|MAIL FROM:<a@a>|250|XCLIENT|220|MAIL FROM:<a@a>|530|EHLO x|250|MAIL FROM:<a@a>|530"},
		{"an open transaction isn't either", smtpproxy.Origin{}, "AUTH PLAIN AHgAeQ==|235|MAIL FROM:<a@a>|250|RCPT TO:<b@b>|250|XCLIENT|220|DATA|503|RCPT TO:<b@b>|503|MAIL FROM:<a@a>|530"},
		{"what was told counts", origin, "MAIL FROM:<a@a>|530|XCLIENT|220|MAIL FROM:<a@a>|250"},
		{"what the server accepts counts", smtpproxy.Origin{}, "XCLIENT|220|MAIL FROM:<a@a>|530|AUTH PLAIN AHgAeQ==|235|MAIL FROM:<a@a>|250"},
		{"what the server refuses changes nothing", origin, "XCLIENT|220|AUTH PLAIN|535|MAIL FROM:<a@a>|250"},
		{"a second restart takes it back", origin, "XCLIENT|220|MAIL FROM:<a@a>|250|XCLIENT|220|MAIL FROM:<a@a>|530"},
	} {
		t.Run(row.why, func(t *testing.T) {
			w := newWarden(row.o, smtpproxy.Origin{})
			pup := &puppet{codes: map[string][]int{}}
			if strings.Contains(row.steps, "535") {
				pup.codes["AUTH"] = []int{535}
			}
			tr := overTCP(t)
			p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(smtpproxy.HookFunc(onlyAuthenticated), w), AllowInsecureAuth: true}
			servePuppet(t, p.Listener(tr), pup)
			k := talk(t, tr)
			k.plays("EHLO front.example|250|" + row.steps)
			var mails int
			for _, line := range pup.took() {
				if strings.HasPrefix(line, "MAIL") {
					mails++
				}
			}
			if want := strings.Count(row.steps, "MAIL FROM:<a@a>|250"); mails != want {
				t.Errorf("the server got MAIL %d times, want %d", mails, want)
			}
		})
	}
	// Sent at once, the old client's MAIL is in nobody's name.
	w := newWarden(smtpproxy.Origin{})
	tr := overTCP(t)
	servePuppet(t, (&smtpproxy.Proxy{Hook: smtpproxy.Chain(smtpproxy.HookFunc(onlyAuthenticated), w), AllowInsecureAuth: true}).Listener(tr), new(puppet))
	k := talk(t, tr)
	k.plays("EHLO x|250|AUTH PLAIN AHgAeQ==|235")
	io.WriteString(k.Conn, "XCLIENT\r\nMAIL FROM:<a@a>\r\nQUIT\r\n")
	if got := strings.Join(k.codes(), " "); got != "220 530 221" {
		t.Errorf("sent at once: %s", got)
	}
}

// Roundcube sends XCLIENT before STARTTLS.
func TestSTARTTLSBehindXCLIENTKeepsWhatWasTold(t *testing.T) {
	d := restartDoor{tls: "STARTTLS", behind: true}
	w := newWarden(smtpproxy.Origin{RemoteIP: origin.RemoteIP, HELO: origin.HELO, Auth: origin.Auth})
	tr := overTCP(t)
	p := new(smtpproxy.Proxy)
	sessions := d.serveShown(t, p, w, tr)
	k := talk(t, tr)
	k.plays("EHLO localhost|250|XCLIENT LOGIN=alice|220")
	if ehlo := k.want("EHLO localhost", "250"); !strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("offered: %s", ehlo)
	}
	k.startTLS()
	k.want("NOOP", "250")
	inside := w.saw(t, "NOOP").conn
	if inside.Auth != origin.Auth || inside.HELO != origin.HELO || inside.RemoteIP != origin.RemoteIP || inside.TLS.Protocol == "" {
		t.Errorf("inside TLS, the client is %+v", inside)
	}
	k.plays("EHLO localhost|250|MAIL FROM:<a@a.example>|250")
	if got := w.saw(t, "MAIL FROM:<a@a.example>").conn; got.Auth != origin.Auth || got.HELO.Host != "localhost" {
		t.Errorf("greeted, it is %+v", got)
	}
	got := newest(t, sessions)
	wantAddr(t, "RemoteAddr", got.remote, "192.0.2.7:0")
	k.plays("RSET|250|STARTTLS|503|AUTH PLAIN " + b64("\x00alice\x00pass") + "|235|NOOP|250")
	if got := w.saw(t, "NOOP").conn.Auth; got.Mechanism != "PLAIN" || got.Username != "alice" {
		t.Errorf("authenticated, it is %+v", got)
	}
}

func TestAPolicyThatWantsTLSIsKeptOverARestart(t *testing.T) {
	w := newWarden(origin)
	tr := overTCP(t)
	s := servertest.GoSMTP()
	l := (&smtpproxy.Proxy{Hook: w, TLSConfig: serverTLS()}).Listener(tr)
	fronted{s, func(net.Listener) error { return s.Serve(l) }, s.Close}.start(t, tr)
	k := talk(t, tr)
	k.plays("EHLO x|250|XCLIENT|220")
	if ehlo := k.want("EHLO x", "250"); strings.Contains(ehlo, "AUTH") {
		t.Errorf("offered in plaintext: %s", ehlo)
	}
	k.want("AUTH PLAIN "+b64("\x00u\x00p"), "523")
}

func TestStateIDAndTheHookChosenStayOverARestart(t *testing.T) {
	forEachRestartDoor(t, func(t *testing.T, d restartDoor, tr transport) {
		w, asked := newWarden(origin), atomic.Int64{}
		p := new(smtpproxy.Proxy)
		beneath := d.guard(p, w, tr)
		p.Hook = nil
		p.HookFor = func(connection) smtpproxy.Hook { asked.Add(1); return w }
		servePuppet(t, p.Listener(beneath), new(puppet))
		k := d.arrive(t, tr)
		k.want("", "220")
		d.settle(k)
		k.plays("NOOP|250|QUIT|221")
		k.wantEnd()
		told := inTime(t, "Disconnect", w.ended)
		calls := w.called(t)
		if told.kept != len(calls)-1 { // without that of Disconnect
			t.Errorf("%d calls are kept of %d", told.kept, len(calls))
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("HookFor was asked %d times", n)
		}
		w.lifeHook.mu.Lock()
		defer w.lifeHook.mu.Unlock()
		for _, c := range append(w.conns, w.saw(t, "NOOP").conn) {
			if c.ID != told.conn.ID || c.ID == "" {
				t.Errorf("the ID is %s, and %s at the end", c.ID, told.conn.ID)
			}
		}
	})
}

func TestAnEndTellsOfAllConnectionsThatTheServerHadOfAClient(t *testing.T) {
	serverTLS()
	for _, row := range []struct {
		why, steps, want string
		atConnect        bool
	}{
		{"by a command", "< 220|> EHLO x|< 250|> XCLIENT|< 220|> EHLO y|< 250|> NOOP|< 250|> QUIT|< 221|END",
			"client: quit, QUIT 221 closed, 5 commands, 0 messages, 0 recipients", false},
		{"messages count on both sides", `< 220|> EHLO x|< 250|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|. "BDAT 1 LAST\r\nx"|< 250|> XCLIENT|< 220|` +
			`> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|> RCPT TO:<c@c>|< 250|> DATA|< 354|. "x\r\n.\r\n"|< 250|> QUIT|< 221|END`,
			"client: quit, QUIT 221 closed, 10 commands, 2 messages, 3 recipients", false},
		{"at Connect", "< 220|> EHLO y|< 250|> QUIT|< 221|END", "client: quit, QUIT 221 closed, 2 commands, 0 messages, 0 recipients", true},
		{"with STARTTLS between", "< 220|> XCLIENT|< 220|> STARTTLS|< 220|TLS|> XCLIENT|< 220|> NOOP|< 250|> QUIT|< 221|END",
			"client: quit, QUIT 221 closed, 5 commands, 0 messages, 0 recipients", false},
		{"what is sent at once", `< 220|. "XCLIENT\r\nEHLO y\r\nXCLIENT\r\nQUIT\r\n"|< 220|< 250|< 220|< 221|END`,
			"client: quit, QUIT 221 closed, 4 commands, 0 messages, 0 recipients", false},
		{"the client leaves", "< 220|> XCLIENT|< 220|> NOOP|< 250|FIN",
			"client: client gone, NOOP 250, 2 commands, 0 messages, 0 recipients", false},
	} {
		t.Run(row.why, func(t *testing.T) {
			d, w, tr := restartDoor{atConnect: row.atConnect, tls: "STARTTLS"}, newWarden(origin), overTCP(t)
			p := new(smtpproxy.Proxy)
			d.guard(p, w, tr)
			servePuppet(t, p.Listener(tr), new(puppet))
			c, err := tr.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			k := newCaller(t, c)
			k.play(row.steps, nil)
			told := inTime(t, "Disconnect", w.ended)
			if got := short(told.end); got != row.want || told.end.Received != k.sent || told.end.Sent != k.got {
				t.Errorf("told: %s, %d octets received, %d sent\nwant: %s, %d, %d", got, told.end.Received, told.end.Sent, row.want, k.sent, k.got)
			}
			if told.conn.RemoteIP != origin.RemoteIP || told.conn.Peer != netip.AddrPortFrom(w.conns[0].RemoteIP, w.conns[0].RemotePort) {
				t.Errorf("at the end, the client is %+v", told.conn)
			}
			if len(w.ended) > 0 {
				t.Error("the end was told twice")
			}
		})
	}
}

func TestALimitOfTheConnectionCountsOverRestarts(t *testing.T) {
	for _, row := range []struct {
		why   string
		p     smtpproxy.Proxy
		steps string
	}{
		{"commands", smtpproxy.Proxy{MaxCommands: 4}, "NOOP|250|XCLIENT|220|NOOP|250|XCLIENT|220|NOOP|421"},
		{"errors", smtpproxy.Proxy{MaxErrors: 2}, "1|500|XCLIENT|220|2|500|XCLIENT|220|3|421"},
	} {
		t.Run(row.why, func(t *testing.T) {
			w, p := newWarden(origin), row.p
			p.Hook = w
			tr := overTCP(t)
			servePuppet(t, p.Listener(tr), new(puppet))
			k := talk(t, tr)
			k.plays(row.steps)
			k.wantEnd()
			k.Close() // else it is lingered for
			if told := inTime(t, "Disconnect", w.ended); told.end.Reason != smtpproxy.ReasonTooMany {
				t.Errorf("told: %s", short(told.end))
			}
		})
	}
}
