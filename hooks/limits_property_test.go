package hooks_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file holds random limits, in random dialogues of several clients at once, against a model:
// a count of tokens, second by second.

// limitsModel is what limits should do. A limit's reply has a code of its own, so that the model
// tells which one decides.
type limitsModel struct {
	limits  []hooks.Limit
	missing map[string]int64 // by bucket, in parts of a token of which one comes back each second
	seen    map[string]int64 // when that was
	now     int64
}

// parts is how many parts a token has.
func parts(l hooks.Limit) int64 {
	if l.Every == 0 {
		return 1
	}
	return int64(l.Every/time.Second) / int64(l.Max)
}

func (m *limitsModel) key(i int, who string) string {
	key := fmt.Sprint(i, " ", who)
	if m.limits[i].Every > 0 {
		m.missing[key] = max(0, m.missing[key]-(m.now-m.seen[key]))
	}
	m.seen[key] = m.now
	return key
}

func (m *limitsModel) has(i int, who string) bool {
	l := m.limits[i]
	return m.missing[m.key(i, who)]+parts(l) <= int64(l.Max)*parts(l)
}

func (m *limitsModel) take(i int, who string, n int) {
	key := m.key(i, who)
	m.missing[key] = max(0, m.missing[key]+int64(n)*parts(m.limits[i]))
}

// modelClient is a connection, and what the model knows of it.
type modelClient struct {
	s       *proxytest.Session
	id      string
	network string
	holds   map[int]string // by limit of connections: for whom
}

// who is whose bucket of a limit it is.
func (c *modelClient) who(l hooks.Limit, conn smtpproxy.Connection, txn smtpproxy.Transaction) (string, bool) {
	switch l.Per {
	case hooks.PerConnection:
		return c.id, true
	case hooks.PerNetwork:
		return c.network, true
	case hooks.PerSender:
		return "<" + strings.ToLower(txn.Sender) + ">", txn.Active
	case hooks.PerLogin:
		return conn.Auth.Username, conn.Auth.Mechanism != ""
	}
	return "", true
}

// decides returns the code that the client gets of those of some limits, 0 if none refuses.
func (m *limitsModel) decides(exceeded []int) (code int) {
	for _, i := range exceeded {
		switch r, refuses := m.limits[i].Beyond.(smtpproxy.Reply); {
		case !refuses:
		case r.Disconnect:
			return r.Code
		case code == 0:
			code = r.Code
		}
	}
	return code
}

// connects returns the code that a client gets which connects.
func (m *limitsModel) connects(c *modelClient) int {
	var exceeded []int
	for i, l := range m.limits {
		if l.What != hooks.Connections || l.Per == hooks.PerLogin {
			continue
		}
		who, _ := c.who(l, smtpproxy.Connection{}, smtpproxy.Transaction{})
		m.hold(c, i, who, &exceeded)
	}
	return m.decides(exceeded)
}

func (m *limitsModel) hold(c *modelClient, i int, who string, exceeded *[]int) {
	_, delays := m.limits[i].Beyond.(smtpproxy.Pass)
	if m.has(i, who) {
		m.take(i, who, 1)
	} else {
		*exceeded = append(*exceeded, i)
		if !delays || m.limits[i].Every > 0 {
			return
		}
		m.take(i, who, 1)
	}
	c.holds[i] = who
}

// leaves gives back what a client holds.
func (m *limitsModel) leaves(c *modelClient) {
	for i, who := range c.holds {
		if m.limits[i].Every == 0 {
			m.take(i, who, -1)
		}
	}
	c.holds = nil
}

// command returns the code that a command gets, and what it has taken that may be given back.
func (m *limitsModel) command(c *modelClient, line string, conn smtpproxy.Connection, txn smtpproxy.Transaction) (code int, taken map[int]string) {
	verb := smtpproxy.Command{Line: line}.Verb()
	if line == "QUIT" {
		return 0, nil
	}
	var exceeded []int
	taken = make(map[int]string)
	for i, l := range m.limits {
		who, counts := c.who(l, conn, txn)
		has := counts && m.has(i, who)
		refused := m.decides(exceeded) != 0
		asked, n := false, 0
		switch message := verb == "DATA" || line == "BDAT 0 LAST"; l.What {
		case hooks.Connections:
			if was, held := c.holds[i]; l.Per == hooks.PerLogin {
				if held && (!counts || was != who) {
					m.take(i, was, -1)
					delete(c.holds, i)
					held = false
				}
				if counts && !held {
					m.hold(c, i, who, &exceeded)
				}
			}
			continue
		case hooks.Commands:
			asked, n = true, 1
		case hooks.Unauthenticated:
			asked, n = conn.Auth.Mechanism == "" && verb != "AUTH", 1
		case hooks.Errors, hooks.UnknownVerbs:
			asked = true
		case hooks.FailedAUTH:
			asked = verb == "AUTH"
		case hooks.WrongRecipients:
			asked = verb == "RCPT"
		case hooks.Recipients:
			asked, n = verb == "RCPT", 1
		case hooks.Messages:
			asked = message || verb == "MAIL" || verb == "RCPT" && l.Per == hooks.PerSender && txn.Recipients.Len() == 0
			if message {
				n = 1
			}
		}
		switch isGivenBack := l.What == hooks.Recipients || l.What == hooks.Messages; {
		case !asked || !counts:
		case !has:
			exceeded = append(exceeded, i)
		case n > 0 && isGivenBack && refused:
		case n > 0:
			if m.take(i, who, 1); isGivenBack {
				taken[i] = who
			}
		}
	}
	if code = m.decides(exceeded); code != 0 {
		m.giveBack(taken)
	}
	return code, taken
}

func (m *limitsModel) giveBack(taken map[int]string) {
	for i, who := range taken {
		m.take(i, who, -1)
	}
	clear(taken)
}

// replied counts what the replies to a command tell that was passed.
func (m *limitsModel) replied(c *modelClient, line string, taken map[int]string, replies []smtpproxy.Reply, conn smtpproxy.Connection, before, after smtpproxy.Transaction) {
	cmd := smtpproxy.Command{Line: line}
	txn := after
	if before.Active && !after.Active {
		txn = before
	}
	good := false
	for _, r := range replies {
		good = good || r.Code < 300
		if r.Code < 400 {
			continue
		}
		for i, l := range m.limits {
			is := false
			switch l.What {
			case hooks.Errors:
				is = true
			case hooks.UnknownVerbs:
				is = r.Code >= 500 && r.Code <= 502 && strings.HasPrefix(line, "X") || line == ""
			case hooks.WrongRecipients:
				is = cmd.Verb() == "RCPT" && r.Code >= 500 && txn.Active
			case hooks.FailedAUTH:
				is = cmd.Verb() == "AUTH" && (r.Code == 535 || r.Code == 450 || r.Code == 550 || r.Code == 554)
			}
			if who, counts := c.who(l, conn, txn); is && counts {
				m.take(i, who, 1)
			}
		}
	}
	if !good {
		m.giveBack(taken)
	}
}

// randomLimits are some that are valid, each with a code of its own.
func randomLimits(r *rand.Rand) (limits []hooks.Limit) {
	for len(limits) < 1+r.IntN(4) {
		l := hooks.Limit{What: hooks.Counted(r.IntN(int(hooks.FailedAUTH)+3) % int(hooks.FailedAUTH+1)), Per: limitsPers[r.IntN(len(limitsPers))], Max: 1 + r.IntN(4)}
		if r.IntN(2) == 0 {
			l.Every = time.Duration(l.Max*(1+r.IntN(5))) * time.Second
		}
		switch r.IntN(4) {
		case 0:
			l.Beyond = smtpproxy.Pass{Delay: 1}
		case 1:
			l.Beyond = smtpproxy.Reply{Code: 460 + len(limits), Disconnect: true}
		default:
			l.Beyond = smtpproxy.Reply{Code: 460 + len(limits)}
		}
		if l.What == hooks.Connections && r.IntN(2) == 0 {
			l.Every = 0
		}
		if l.What == hooks.Time || l.What == hooks.Octets || l.What == hooks.Connections && l.Every > 0 && l.Per == hooks.PerLogin {
			continue // have tests of their own
		}
		if (hooks.Limits{Limits: append(limits, l)}).Validate() == nil {
			limits = append(limits, l)
		}
	}
	return limits
}

var limitsLines = []string{
	"EHLO x", "LHLO x", "MAIL FROM:<a@b>", "MAIL FROM:<A@B>", "MAIL FROM:<c@d>", "MAIL FROM:<>", "RCPT TO:<e@f>", "RCPT TO:<e@f>", "RCPT TO:<g@h>", "DATA", "DATA",
	"BDAT 0 LAST", "BDAT 3", "RSET", "NOOP", "VRFY e", "XYZZY", "", "AUTH PLAIN AGEAYg==", "AUTH PLAIN AGMAZA==", "AUTH GSSAPI", "STARTTLS", "QUIT",
}

// nextOf is what a client says that wants to send mail.
func nextOf(s *proxytest.Session, r *rand.Rand) string {
	switch txn := s.Transaction(); {
	case s.Connection().HELO.Verb == "":
		return limitsLines[r.IntN(2)]
	case !txn.Active:
		return limitsLines[2+r.IntN(4)]
	case txn.Recipients.Len() < 1+r.IntN(2):
		return "RCPT TO:<e@f>"
	}
	return []string{"DATA", "BDAT 0 LAST"}[r.IntN(2)]
}

func TestRandomLimitsDoWhatAModelSays(t *testing.T) {
	seeds := uint64(5000)
	if testing.Short() {
		seeds = 500
	}
	refused, passed := 0, 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r, p := playLimits(t, seed)
			refused, passed = refused+r, passed+p
		})
		if t.Failed() {
			return
		}
	}
	if t.Logf("%d commands and clients refused, %d passed", refused, passed); refused < int(seeds)*5 || passed < int(seeds)*20 {
		t.Error("that says little")
	}
}

func playLimits(t *testing.T, seed uint64) (refused, passed int) {
	r := rand.New(rand.NewPCG(seed, 0))
	limits := randomLimits(r)
	m := &limitsModel{limits: limits, missing: make(map[string]int64), seen: make(map[string]int64)}
	hook := hooks.Limits{Limits: limits}.Hook()
	var clients []*modelClient
	count := func(code int) {
		if code != 0 {
			refused++
		} else {
			passed++
		}
	}
	start := time.Now()
	for range 80 {
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(4)) * time.Second)
		}
		m.now = int64(time.Since(start) / time.Second)
		if len(clients) == 0 || len(clients) < 4 && r.IntN(5) == 0 {
			c := &modelClient{network: fmt.Sprintf("192.0.2.%d", r.IntN(2)), holds: make(map[int]string)}
			c.s = proxytest.ResumeSession(&smtpproxy.Proxy{Hook: hook}, smtpproxy.Connection{RemoteIP: netip.MustParseAddr(c.network)}, smtpproxy.Transaction{})
			c.id = c.s.Connection().ID
			want, got := m.connects(c), 0
			if reply, is := c.s.Connect().(smtpproxy.Reply); is {
				got = reply.Code
			}
			if count(want); got != want {
				t.Fatalf("seed %d: %+v\nconnect: got %d, want %d", seed, limits, got, want)
			}
			if want != 0 {
				m.leaves(c)
				continue
			}
			clients = append(clients, c)
		}
		at := r.IntN(len(clients))
		c := clients[at]
		line := limitsLines[r.IntN(len(limitsLines))]
		if r.IntN(2) == 0 {
			line = nextOf(c.s, r)
		}
		if r.IntN(3) == 0 {
			if verb := (smtpproxy.Command{Line: line}).Verb(); verb != "" && verb != "EHLO" && verb != "LHLO" && verb != "STARTTLS" && verb != "QUIT" {
				c.s.Answer(verb, []int{450, 500, 502, 550, 554}[r.IntN(5)])
			}
		}
		conn, txn := c.s.Connection(), c.s.Transaction()
		want, taken := m.command(c, line, conn, txn)
		got := 0
		if reply, is := c.s.Send(line).(smtpproxy.Reply); is && reply.Code >= 460 && reply.Code < 470 {
			got = reply.Code
		}
		if count(want); got != want {
			t.Fatalf("seed %d: %+v\ngot %d, want %d\n%s", seed, limits, got, want, c.s.Transcript())
		}
		if want == 0 {
			replies := c.s.Replies()
			if len(replies) == 1 && replies[0].Code == 354 {
				c.s.SendContent()
				replies = c.s.Replies()
			} else if len(replies) == 1 && replies[0].Code == 220 && !c.s.Closed() {
				c.s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
			}
			m.replied(c, line, taken, replies, c.s.Connection(), txn, c.s.Transaction())
		}
		if r.IntN(20) == 0 {
			c.s.Close()
		}
		if c.s.Closed() {
			m.leaves(c)
			clients = append(clients[:at], clients[at+1:]...)
		}
	}
	for _, c := range clients {
		c.s.Close()
	}
	return refused, passed
}
