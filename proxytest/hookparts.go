package proxytest

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file has the parts of a hook's trial.

// base64Of returns what a client sends of a credential.
func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// dialogues returns what well-behaved clients say, a connection each. Those of different visitors
// have no name in common.
func (tr *trial) dialogues(v visitor) [][]string {
	address := func(user string) string { return "<" + user + "@" + v.name() + ">" }
	plain := "AUTH PLAIN " + base64Of("\x00user"+v.name()+"\x00secret"+v.name())
	all := [][]string{
		{"EHLO " + v.name(), "MAIL FROM:" + address("alice"), "RCPT TO:" + address("bob"), "RCPT TO:" + address("carol"), "DATA",
			"MAIL FROM:<>", "RCPT TO:" + address("alice"), "RSET", "QUIT"},
		{"EHLO " + v.name(), "STARTTLS", "EHLO " + v.name(), plain,
			"MAIL FROM:" + address("alice") + " SIZE=20 BODY=8BITMIME", "RCPT TO:" + address("bob") + " NOTIFY=NEVER",
			"BDAT 10", "BDAT 5 LAST", "MAIL FROM:" + address("alice"), "BDAT 7", "NOOP", "QUIT"},
		{"HELO " + v.name(), "VRFY " + v.name(), "MAIL FROM:<>", "RCPT TO:<postmaster>", "DATA", "EXPN staff", "HELP", "NOOP", "QUIT"},
		{"EHLO " + v.name(), "AUTH LOGIN", base64Of("user" + v.name()), base64Of("secret"), "MAIL FROM:" + address("alice"), restartVerb,
			"EHLO again." + v.name(), "AUTH PLAIN", "*", plain, "MAIL FROM:" + address("dave"), "RCPT TO:" + address("bob"), "DATA", restartVerb},
		{restartVerb, "EHLO " + v.name(), "STARTTLS", "EHLO " + v.name(), restartVerb, restartVerb, "EHLO " + v.name(), "QUIT"},
	}
	if !tr.NoLMTP {
		all = append(all, []string{"LHLO " + v.name(), "MAIL FROM:" + address("alice"), "RCPT TO:" + address("bob"), "RCPT TO:" + address("carol"),
			"RCPT TO:" + address("bob"), "DATA", "MAIL FROM:<>", "RCPT TO:" + address("carol"), "BDAT 5", "BDAT 0 LAST", "QUIT"})
	}
	if len(tr.Lines) > 0 {
		greeted := append([]string{"EHLO " + v.name()}, tr.Lines...)
		within := slices.Concat(all[0][:3], tr.Lines, []string{"DATA"}, tr.Lines, []string{"QUIT"})
		all = append(all, tr.Lines, greeted, within)
	}
	return all
}

// usual lets clients come and go as clients do.
func (tr *trial) usual() {
	c, h := tr.course(), tr.newHook()
	tr.take(c.run(func() {
		for v := range visitor(2) {
			for _, lines := range tr.dialogues(v) {
				g := c.comes(h, v)
				g.say(lines...)
				g.goes()
			}
		}
		c.check()
	}), c)
}

// oddLines returns lines that no well-behaved client sends. None holds a control character
// but tab: the library keeps those from the hook.
func oddLines() []string {
	long := strings.Repeat("x", 2000)
	return []string{
		"", " ", "\t", "   \t ", "\xff", "\xff\xfe\x80 \xc3", "NOOP \xc3\x28", "\u017ftarttls", "\u2003EHLO x", "EHLO\u00a0x", "*", "=", "==", "****", "a",
		"1", "-1", "250 OK", "GET / HTTP/1.1", "%s%n%d", "<>", "@", "\"", "<" + long + ">", long[:2000], "NOOP " + long[:1995], "X " + strings.Repeat(" ", 1990),
		"MAIL FROM:<" + long[:1980] + ">", "RCPT TO:<" + strings.Repeat("a@b,", 480) + ">", "EHLO " + strings.Repeat("\xff", 1990), "AUTH PLAIN " + long[:1980],
		"MAIL", "MAIL ", "MAIL FROM", "MAIL FROM:", "MAIL FROM: ", "MAIL FROM:<", "MAIL FROM:>", "MAIL FROM:<>", "MAIL FROM:@", "MAIL FROM:<@>", "MAIL FROM:<a>",
		"MAIL FROM:<a@>", "MAIL FROM:<@b>", "MAIL FROM:<@x,@y:a@b>", "MAIL FROM:<\"a b\\\"@\"@c>", "MAIL FROM:<a@b> FROM:<c@d>", "MAIL FROM:<a@b> =", "MAIL FROM:<a@b> SIZE",
		"MAIL FROM:<a@b> SIZE=-1", "MAIL FROM:<a@b> SIZE=99999999999999999999", "MAIL FROM:<\xc3\xa4@\xff> SMTPUTF8", "MAIL FROM:<a@[127.0.0.1]>", "MAIL FROM:<a@[IPv6:::1]>",
		"MAIL TO:<a@b>", "mail from:<a@b>", "Mail  From : <a@b>", "RCPT", "RCPT TO", "RCPT TO:", "RCPT TO:<>", "RCPT TO:<", "RCPT TO:<a>", "RCPT TO:<@>", "RCPT TO:<a@b", "RCPT TO:a@b",
		"RCPT TO:<postmaster>", "RCPT TO:<a@b> TO:<c@d>", "RCPT TO:<a@b> ORCPT=rfc822;", "rcpt to:<A@B>", "rCpT\tTO:<a@b>", "RCPT TO:<a@b>\t", "RCPT TO:<a@" + strings.Repeat("b.", 300) + "c>",
		"HELO", "HELO ", "helo x", "EHLO", "EHLO  ", "ehlo x y z", "EHLO [127.0.0.1]", "EHLO [", "EHLO \xe4", "EHLO -", "LHLO", "DATA x", "data", "BDAT", "BDAT x", "BDAT -1", "BDAT 0", "BDAT 1 x",
		"bdat 3 last", "BDAT 99999999999999999999", "RSET x", "rset", "NOOP", "noop x", "QUITx", "VRFY", "VRFY @", "vrfy \xff", "EXPN", "HELP", "HELP \xff", "AUTH", "AUTH ", "AUTH =", "AUTH PLAIN",
		"AUTH PLAIN =", "AUTH PLAIN ====", "AUTH PLAIN \xff", "AUTH PLAIN " + base64Of("no separators"), "AUTH PLAIN " + base64Of("\x00\x00"), "AUTH LOGIN", "auth login " + base64Of("\xff"), "AUTH X Y Z",
		"AUTH X", "AUTH EXTERNAL =", "STARTTLS x", "starttls", "ETRN", "TURN", "XCLIENT", "XCLIENT ", "XCLIENT ADDR", "XCLIENT ADDR=", "XCLIENT ADDR=x", "XCLIENT =", "XCLIENT ADDR=192.0.2.300 PORT=-1",
		"XFORWARD", "XFORWARD NAME=", "PROXY TCP4", "XYZZY", "X", "X-Y z", "Z9", "BURL", "SEND", "SOML", "SAML",
	}
}

// odd lets clients send odd lines, at different times, and behind a challenge.
func (tr *trial) odd() {
	c, h := tr.course(), tr.newHook()
	lines := append(oddLines(), tr.Lines...)
	tr.take(c.run(func() {
		greet := "EHLO odd.example"
		for _, before := range [][]string{
			nil, {greet}, {greet, "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>"}, {greet, "AUTH PLAIN"}, {greet, "AUTH PLAIN"},
		} {
			var g *guest
			for _, line := range lines {
				sasl := len(before) == 2
				if g == nil || g.Closed() || sasl && g.server.authenticated {
					if g != nil {
						g.goes()
					}
					g = c.comes(h, 2)
					g.say(before...)
				}
				if sasl && !g.sasl {
					g.say("RSET", "AUTH LOGIN")
				}
				g.say(line)
			}
			g.goes()
			slices.Reverse(lines)
		}
		c.check()
	}), c)
}

// anyOrder lets clients send anything at any time, and the server accept and refuse it.
func (tr *trial) anyOrder() {
	c, h := tr.course(), tr.newHook()
	lines := oddLines()
	for _, dialogue := range tr.dialogues(3) {
		for range 10 {
			lines = append(lines, dialogue...) // so that whole transactions come about
		}
	}
	tr.take(c.run(func() {
		for seed := range uint64(100) {
			r := rand.New(rand.NewPCG(seed, 0))
			g := c.comes(h, visitor(seed%4))
			for range 50 {
				line := lines[r.IntN(len(lines))]
				verb := smtpproxy.Command{Line: line}.Verb()
				code := []int{250, 251, 334, 354, 421, 450, 503, 554}[r.IntN(8)]
				switch {
				case verb == "QUIT" && r.IntN(20) > 0:
				case r.IntN(8) == 0 && verb != "" && mayAnswer(verb, code):
					g.Answer(verb, code)
				default:
					g.say(line)
				}
			}
			g.goes()
		}
		c.check()
	}), c)
}

// leaving lets clients leave while the hook has their line, before it looks and after.
func (tr *trial) leaving() {
	c, h := tr.course(), tr.newHook()
	tr.take(c.run(func() {
		for _, after := range []time.Duration{0, time.Millisecond} {
			for _, lines := range tr.dialogues(1) {
				for i := range lines {
					g := c.comes(h, 1)
					if g.say(lines[:i]...); !g.Closed() {
						g.sayAndLeave(lines[i], after)
					}
					g.goes()
				}
			}
		}
	}), c)
}

// replyHooks returns the hooks among those that h is made of which look at replies.
func replyHooks(h smtpproxy.Hook) (all []smtpproxy.ReplyHook) {
	if r, ok := h.(smtpproxy.ReplyHook); ok {
		all = append(all, r)
	}
	switch h := h.(type) {
	case interface{ Unwrap() smtpproxy.Hook }:
		all = append(all, replyHooks(h.Unwrap())...)
	case interface{ Unwrap() []smtpproxy.Hook }:
		for _, inner := range h.Unwrap() {
			all = append(all, replyHooks(inner)...)
		}
	}
	return all
}

// writes looks whether the hook writes to what it is given.
func (tr *trial) writes() {
	c, h := tr.course(), tr.newHook()
	hooks := replyHooks(h)
	tr.take(c.run(func() {
		if len(hooks) == 0 {
			return
		}
		for _, lines := range tr.dialogues(0) {
			g := c.comes(h, 0)
			g.looks = func(ctx *smtpproxy.Context, x smtpproxy.Exchange) {
				for _, hook := range hooks {
					mine := x
					mine.Reply.Lines = slices.Clone(x.Reply.Lines)
					func() {
						defer func() { _ = recover() }() // which is found elsewhere
						hook.Reply(ctx, mine)
					}()
					if !slices.Equal(mine.Reply.Lines, x.Reply.Lines) {
						c.found(fault{"writes", "", fmt.Sprintf("Reply at %s: the hook has written to Exchange.Reply.Lines: %q became %q",
							c.doing, x.Reply.Lines, mine.Reply.Lines), "",
							"what it writes there is a copy, and nobody's: return a Reply with the Lines that the client is to get"})
					}
				}
			}
			g.say(lines...)
			g.goes()
		}
	}), c)
	if !reflect.DeepEqual(tr.cert, clientCertificate()) {
		tr.found(fault{"writes", "", "the hook has written to the client's certificate, Connection.TLS.PeerCert.X509", "",
			"it is shared with all who look at the connection: change a copy"})
		tr.cert = clientCertificate()
	}
}

// leavings looks whether the hook keeps what is over: goroutines, and what is for a call alone.
func (tr *trial) leavings() {
	h := tr.newHook()
	const rounds = 5
	talk := func(c *course) {
		for range rounds {
			for _, lines := range tr.dialogues(0) {
				g := c.comes(h, 0)
				g.say(lines...)
				g.goes()
			}
			g := c.comes(h, 0)
			g.say("EHLO leaves.example")
			g.sayAndLeave("MAIL FROM:<alice@example.com>", 0)
		}
	}
	// What a hook's first connections make may serve the later ones, too, so those of a course of
	// their own are counted.
	first, second := tr.course(), tr.course()
	for _, c := range []*course{first, second} {
		if tr.take(c.run(func() { talk(c) }), c); tr.stuck {
			return
		}
	}
	end := time.Now().Add(tr.grace)
	left, stack := second.goroutines()
	for ; left >= rounds && time.Now().Before(end); left, stack = second.goroutines() {
		time.Sleep(10 * time.Millisecond)
	}
	if left >= rounds {
		tr.found(fault{"goroutines", "", fmt.Sprintf("%d connections have left %d goroutines, though all are closed", rounds*(len(tr.dialogues(0))+1), left), stack,
			"let each end when ctx is done, or, if it is the connection's, in Disconnect"})
	}
	holds := func() string { return cmp.Or(first.held(), second.held()) }
	held := holds()
	for ; held != "" && time.Now().Before(end); held = holds() {
		time.Sleep(10 * time.Millisecond)
	}
	if held != "" {
		tr.found(fault{"held", "", "the hook holds " + held + " of connections that are closed, or something made from it", "",
			"it is for the call alone: keep what is in it (conn, txn and the *T of State may be kept), and let no goroutine or closure hold it"})
	}
	runtime.KeepAlive(h)
}

// goroutines returns how many goroutines there are that have come of a course, and the stack of
// one.
func (c *course) goroutines() (n int, stack string) {
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	_, blocks, _ := strings.Cut(b.String(), "\n") // how many there are in all
	for block := range strings.SplitSeq(blocks, "\n\n") {
		if !strings.Contains(block, strconv.Quote(labelKey)+":"+strconv.Quote(c.label)) {
			continue
		}
		count, _, _ := strings.Cut(block, " @ ")
		many, _ := strconv.Atoi(strings.TrimSpace(count))
		n += many
		var frames []string
		for line := range strings.Lines(block) {
			if fields := strings.Fields(line); len(fields) > 3 && fields[0] == "#" && strings.HasPrefix(fields[1], "0x") {
				frames = append(frames, strings.Join(fields[2:], " "))
			}
		}
		stack = strings.Join(frames[:min(len(frames), 6)], "\n")
	}
	return n, stack
}

// held tells what of a course is still reachable that only the hook can hold.
func (c *course) held() string {
	runtime.GC()
	for _, p := range c.contexts {
		if p.Value() != nil {
			return "the Context"
		}
	}
	for _, p := range c.keywords {
		if p.Value() != nil {
			return "the Keywords"
		}
	}
	return ""
}

// apartDialogue returns a dialogue of a visitor's, in which there is much to be remembered and
// mixed up.
func (tr *trial) apartDialogue(v visitor) (lines []string) {
	d := tr.dialogues(v)
	switch v {
	case 0:
		lines = slices.Concat(d[0][:4], []string{"RSET", "RSET", "NOOP"}, d[0][:8])
	case 1:
		lines = slices.Concat(d[1][:11], tr.Lines, []string{"VRFY x", "RSET"}, d[0][1:])
	case 2:
		lines = slices.Concat(d[2][:8], []string{"", "XYZZY", "MAIL FROM:<>", "MAIL FROM:<>"}, d[2])
	default:
		lines = slices.Concat(tr.Lines, d[3], tr.Lines, d[0])
	}
	return lines
}

// apartVisitors is how many there are at once.
const apartVisitors = 4

var (
	uuids      = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	challenges = regexp.MustCompile(`(?m)^(H[^:]*: 334) .*`)
)

// plays is what was said in one connection, but for what is another each time.
func (g *guest) plays() string {
	return challenges.ReplaceAllString(uuids.ReplaceAllString(g.told(), "UUID"), "$1 ****")
}

// together lets visitors talk to a hook in one goroutine; each turn, one says something. It returns
// what was said.
func (tr *trial) together(h smtpproxy.Hook, turns []visitor) (plays [apartVisitors]string) {
	c := tr.course()
	var guests [apartVisitors]*guest
	var lines [apartVisitors][]string
	leave := func(v visitor) {
		if guests[v] != nil && plays[v] == "" {
			guests[v].goes()
			plays[v] = guests[v].plays()
		}
	}
	tr.take(c.run(func() {
		for _, v := range turns {
			switch g := guests[v]; {
			case g == nil:
				guests[v], lines[v] = c.comes(h, v), tr.apartDialogue(v)
			case len(lines[v]) > 0:
				g.say(lines[v][0])
				lines[v] = lines[v][1:]
			default:
				leave(v)
			}
		}
		for v, g := range guests {
			if g != nil {
				g.say(lines[v]...)
				leave(visitor(v))
			}
		}
	}), c)
	return plays
}

// atOnce is together with a goroutine for each visitor.
func (tr *trial) atOnce(h smtpproxy.Hook) (plays [apartVisitors]string) {
	var all sync.WaitGroup
	var courses [apartVisitors]*course
	var ok [apartVisitors]bool
	start := make(chan struct{})
	for v := range courses {
		c := tr.course()
		courses[v] = c
		all.Go(func() {
			ok[v] = c.run(func() {
				<-start
				g := c.comes(h, visitor(v))
				g.say(tr.apartDialogue(visitor(v))...)
				g.goes()
				plays[v] = g.plays()
			})
		})
	}
	close(start)
	all.Wait()
	tr.take(!slices.Contains(ok[:], false), courses[:]...)
	return plays
}

// alone lets each visitor talk to a hook that nobody else has talked to.
func (tr *trial) alone() (plays [apartVisitors]string) {
	for v := range visitor(apartVisitors) {
		plays[v] = tr.together(tr.newHook(), []visitor{v})[v]
	}
	return plays
}

// apart looks whether the hook keeps apart what it remembers of connections.
func (tr *trial) apart() {
	if tr.has("changed") {
		return // the race detector would find no more than that
	}
	if tr.Varies || tr.has("panic", "exit", "invalid", "error") {
		for range 10 {
			tr.atOnce(tr.newHook()) // for the race detector
		}
		return
	}
	alone := tr.alone()
	differs := func(when, todo string, plays [apartVisitors]string) bool {
		for v := range plays {
			if was, is := differ(alone[v], plays[v]); was != is && !tr.stuck {
				tr.found(fault{"mixed", "", fmt.Sprintf("the hook decides differently about the same dialogue %s:\n    got  %s\n    want %s", when, is, was), "", todo})
				return true
			}
		}
		return tr.stuck
	}
	if differs("the second time, though newHook has returned a fresh hook", "it keeps something outside of itself, or decides by chance or by the clock: "+
		"let newHook return one whose decisions don't, or set HookTest.Varies", tr.alone()) {
		return
	}
	const todo = "what belongs to a call or a connection is kept in the hook: keep it in variables, and with smtpproxy.State; " +
		"if it is meant to, as a limit for all clients is, set HookTest.Varies"
	if differs("if other clients have come before", todo, tr.together(tr.newHook(), tr.inTurn())) {
		return
	}
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		var turns []visitor
		for range 40 * apartVisitors {
			turns = append(turns, visitor(r.IntN(apartVisitors)))
		}
		if differs("if other clients talk in between", todo, tr.together(tr.newHook(), turns)) {
			return
		}
	}
	for range 10 {
		if differs("if other clients talk at once", todo, tr.atOnce(tr.newHook())) {
			return
		}
	}
}

// differ returns the first lines in which two texts differ.
func differ(a, b string) (string, string) {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	client := ""
	for i := range max(len(as), len(bs)) {
		var x, y string
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		if x != y {
			return short(client + " " + x), short(client + " " + y)
		}
		if strings.HasPrefix(x, "C: ") {
			client = short(x) + ","
		}
	}
	return "", ""
}

// inTurn returns the turns of visitors that come one after the other.
func (tr *trial) inTurn() (turns []visitor) {
	for v := range visitor(apartVisitors) {
		for range len(tr.apartDialogue(v)) + 2 {
			turns = append(turns, v)
		}
	}
	return turns
}
