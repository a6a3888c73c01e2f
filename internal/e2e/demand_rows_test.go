package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has what people have asked elsewhere for, in front of go-smtp, where no other test
// has it. docs/demand.md names these tests, and the others.

// front serves go-smtp behind p until the test ends.
func front(t *testing.T, p *smtpproxy.Proxy, opts ...servertest.Option) (fronted, transport) {
	t.Helper()
	s, tr := behindGoSMTP(p, opts...), overTCP(t)
	s.start(t, tr)
	return s, tr
}

// greeted returns a client that has been greeted.
func greeted(t *testing.T, tr transport) *peer {
	t.Helper()
	c := dialPeer(t, tr)
	c.expect("220")
	return c
}

// asks has a client ask lines, each of which stands behind the reply that it gets.
func (p *peer) asks(steps ...string) {
	p.t.Helper()
	for _, step := range steps {
		code, line, _ := strings.Cut(step, " ")
		p.ask(line, code)
	}
}

func plainAUTH(user, pass string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+pass))
}

func TestEHLOAnnouncesWhatTheServerDoesNotKnow_gosmtp303(t *testing.T) {
	h := onKeywords(func(kw *keywords) error {
		kw.Set("LIMITS", "RCPTMAX=100")
		kw.Set("XVENDOR", "a b")
		kw.Delete("CHUNKING")
		return nil
	})
	_, tr := front(t, &smtpproxy.Proxy{Hook: h})
	c := greeted(t, tr)
	c.send("EHLO client.example\r\n")
	if got := linesOf(c.reply()); got != "PIPELINING|8BITMIME|ENHANCEDSTATUSCODES|AUTH PLAIN|SIZE|LIMITS RCPTMAX=100|XVENDOR a b" {
		t.Errorf("the client got %s", got)
	}
	c.asks("250 MAIL FROM:<a@example.com>", "250 RCPT TO:<b@example.org>", "221 QUIT")
}

func TestAnObserverCountsCommandsAndRepliesOfEachConnection_gosmtp282(t *testing.T) {
	var mu sync.Mutex
	counts := make(map[string]int) // as a metric would have them
	ids := make(map[string]bool)
	ended := make(chan end, 2)
	count := func(what string, conn connection) {
		mu.Lock()
		defer mu.Unlock()
		counts[what]++
		ids[conn.ID] = true
	}
	_, tr := front(t, &smtpproxy.Proxy{Observers: []smtpproxy.Observer{{
		Connected: func(_ *hookContext, conn connection) { count("connected", conn) },
		Exchanged: func(_ *hookContext, x shownExchange) {
			count(fmt.Sprintf("%s %d by the %v", x.Command.Verb(), x.Reply.Code, x.By), x.Connection)
		},
		Disconnected: func(_ *hookContext, conn connection, e end) {
			count(fmt.Sprintf("ended by the %v: %v", e.By, e.Reason), conn)
			ended <- e
		},
	}}})
	for range 2 {
		c := greeted(t, tr)
		c.asks("250 EHLO client.example", "250 MAIL FROM:<a@example.com>", "550 RCPT TO:<nobody@example.org>", "503 MAIL FROM:<a@example.com>", "221 QUIT")
		c.Close()
		<-ended
	}
	mu.Lock()
	defer mu.Unlock()
	want := "map[ 220 by the server:2 EHLO 250 by the server:2 MAIL 250 by the server:2 MAIL 503 by the library:2 " +
		"QUIT 221 by the server:2 RCPT 550 by the server:2 connected:2 ended by the client: quit:2]"
	if got := fmt.Sprint(counts); got != want || len(ids) != 2 {
		t.Errorf("%d connections:\n%s, want\n%s", len(ids), got, want)
	}
}

func TestAHookDecidesAboutHELOAndEHLO_gosmtp136(t *testing.T) {
	h := decide(func(cmd command) (decision, error) {
		if (cmd.Verb() == "HELO" || cmd.Verb() == "EHLO") && cmd.Args() == "localhost" {
			return reply{Code: 550, Lines: []string{"You are not I"}}, nil
		}
		return nil, nil
	})
	s, tr := front(t, &smtpproxy.Proxy{Hook: h})
	c := greeted(t, tr)
	c.asks("550 HELO localhost", "550 EHLO localhost")
	if got := s.Record().Sessions; got != 0 {
		t.Errorf("the server has begun %d sessions", got)
	}
	c.asks("250 HELO client.example", "250 MAIL FROM:<a@example.com>", "221 QUIT")
}

// A hook's reply to EHLO is the whole reply: nothing of the server's list is mixed in.
func TestAReplyToEHLOIsTheHooksOrTheServers_aiosmtpd155(t *testing.T) {
	h := decide(func(cmd command) (decision, error) {
		if cmd.Verb() == "EHLO" && cmd.Args() == "early" {
			return reply{Code: 450, Lines: []string{"Not yet"}}, nil
		}
		return nil, nil
	})
	_, tr := front(t, &smtpproxy.Proxy{Hook: h})
	c := greeted(t, tr)
	c.send("EHLO early\r\nEHLO client.example\r\nNOOP\r\n")
	if got := c.reply(); got != "450 Not yet" {
		t.Errorf("got %q", got)
	}
	if got := linesOf(c.reply()); !strings.HasPrefix(got, "PIPELINING|") {
		t.Errorf("got %q", got)
	}
	c.expect("250")
}

// logFile is what a transcript is written to.
type logFile struct {
	bytes.Buffer
	closed chan struct{}
}

func (f *logFile) Close() error { close(f.closed); return nil }

func TestEachConnectionHasALogOfItsOwnWithoutPasswords_gosmtp144(t *testing.T) {
	var mu sync.Mutex
	files := make(map[string]*logFile)
	transcript := &hooks.Transcript{Open: func(conn connection) (io.WriteCloser, error) {
		mu.Lock()
		defer mu.Unlock()
		f := &logFile{closed: make(chan struct{})}
		files[conn.ID] = f
		return f, nil
	}}
	_, tr := front(t, &smtpproxy.Proxy{Observers: []smtpproxy.Observer{transcript.Observer()}})
	clients := []*peer{greeted(t, tr), greeted(t, tr)}
	for i, c := range clients {
		c.asks(fmt.Sprintf("250 EHLO client%d.example", i), "235 "+plainAUTH("user", "pass"), "221 QUIT")
		c.Close()
	}
	if len(files) != len(clients) {
		t.Fatalf("%d logs", len(files))
	}
	var helos []string
	for id, f := range files {
		<-f.closed
		log := f.String()
		if !strings.Contains(log, "\nC: AUTH PLAIN ****\n") || strings.Contains(log, strings.Fields(plainAUTH("user", "pass"))[2]) {
			t.Errorf("connection %s: %s", id, log)
		}
		for line := range strings.Lines(log) {
			if helo, ok := strings.CutPrefix(line, "C: EHLO "); ok {
				helos = append(helos, strings.TrimSpace(helo))
			}
		}
	}
	slices.Sort(helos)
	if !slices.Equal(helos, []string{"client0.example", "client1.example"}) {
		t.Errorf("the logs are of %q", helos)
	}
}

func TestGreetingAndRepliesHaveATextOfOnesOwnAndAQueueID_gosmtp131(t *testing.T) {
	h := repliesHook(func(x shownExchange) decision {
		switch {
		case x.Reply.Code == 220:
			return reply{Lines: []string{"mx.example ESMTP at your service"}}
		case x.Reply.Code == 550:
			return reply{Code: 554, Enhanced: enhanced{5, 7, 1}, Lines: []string{"See https://mx.example/why"}}
		case x.Command.Verb() == "DATA" && x.Reply.Code == 250:
			return reply{Lines: []string{"queued as " + x.Transaction.ID}}
		}
		return nil
	})
	var shown sync.Map
	ids := smtpproxy.HookFunc(func(_ *hookContext, cmd command, _ connection, txn transaction) (decision, error) {
		if cmd.Verb() == "DATA" {
			shown.Store("ID", txn.ID)
		}
		return nil, nil
	})
	_, tr := front(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(h, ids)})
	c := dialPeer(t, tr)
	c.expect("220 mx.example ESMTP at your service")
	c.asks("250 EHLO client.example", "250 MAIL FROM:<a@example.com>", "250 RCPT TO:<b@example.org>")
	c.ask("RCPT TO:<nobody@example.org>", "554 5.7.1 See https://mx.example/why")
	c.asks("354 DATA")
	c.send("hi\r\n.\r\n")
	id, _ := shown.Load("ID")
	if got := c.reply(); id == "" || got != fmt.Sprint("250 2.0.0 queued as ", id) {
		t.Errorf("got %q, the hook has seen the transaction %v", got, id)
	}
}

// organization is what a hook keeps of MAIL's XOORG.
type organization struct{ name string }

// Exchange Online sends XOORG to who announces it. The server doesn't know it.
func TestXOORGIsAnnouncedReadAndKeptFromTheServer_gosmtp268(t *testing.T) {
	var at sync.Map
	read := smtpproxy.Funcs{
		OnKeywords: func(_ *hookContext, _ connection, kw *keywords) error { kw.Set("XOORG", ""); return nil },
		OnCommand: func(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
			org := smtpproxy.State[organization](ctx)
			switch cmd.Verb() {
			case "MAIL":
				org.name = ""
				for _, param := range strings.Fields(cmd.Args()) {
					if name, ok := strings.CutPrefix(param, "XOORG="); ok {
						org.name = name
					}
				}
			case "RCPT":
				at.Store(cmd.Args(), org.name)
			}
			return nil, nil
		},
	}
	s, tr := front(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(read, hooks.StripParameters("MAIL", "XOORG"))})
	c := greeted(t, tr)
	c.send("EHLO client.example\r\n")
	if got := linesOf(c.reply()); !strings.HasSuffix(got, "|XOORG") {
		t.Errorf("the client got %s", got)
	}
	c.asks("250 MAIL FROM:<a@example.com> SIZE=10 XOORG=example.com", "250 RCPT TO:<b@example.org>", "221 QUIT")
	if name, _ := at.Load("TO:<b@example.org>"); name != "example.com" {
		t.Errorf("the hook has %v at RCPT", name)
	}
	if got := s.Commands(); !slices.Contains(got, "MAIL a@example.com") {
		t.Errorf("the server got %q", got)
	}
}

// Some servers have two lines for AUTH, one of them for old clients. Each is a keyword.
func TestBothKeywordsForAUTHAreChangedByThemselves_emailoauth2proxy427(t *testing.T) {
	script := func(c net.Conn) {
		io.WriteString(c, "220 x\r\n")
		readLines(c, func(string) {
			io.WriteString(c, "250-x\r\n250-AUTH=LOGIN PLAIN\r\n250-AUTH LOGIN PLAIN XOAUTH2\r\n250 SIZE 10\r\n")
		})
	}
	for _, row := range []struct {
		why    string
		change func(kw *keywords)
		want   string
	}{
		{"one", func(kw *keywords) { kw.Set("AUTH", "XOAUTH2") }, "AUTH=LOGIN PLAIN|AUTH XOAUTH2|SIZE 10"},
		{"the old one", func(kw *keywords) { kw.Set("AUTH=", "XOAUTH2") }, "AUTH=XOAUTH2|AUTH LOGIN PLAIN XOAUTH2|SIZE 10"},
		{"both, deleted", func(kw *keywords) { kw.Delete("AUTH") }, "SIZE 10"},
	} {
		c := runScript(t, overTCP(t), &smtpproxy.Proxy{Hook: onKeywords(func(kw *keywords) error { row.change(kw); return nil })}, script)
		c.expect("220")
		c.send("EHLO client.example\r\n")
		if got := linesOf(c.reply()); got != row.want {
			t.Errorf("%s: %s, want %s", row.why, got, row.want)
		}
		c.Close()
	}
}

// To say 250 where there is no recipient leaves the server without one, and DATA is refused. So
// a recipient that isn't allowed is another one at the server, whose mail goes nowhere.
func TestRecipientsThatAreNotAllowedGetA250AndNoMail_mailpit549(t *testing.T) {
	const sink = "RCPT TO:<sink@invalid>"
	allowed := func(cmd command) bool { return strings.HasSuffix(strings.ToLower(cmd.Args()), "@example.org>") }
	for _, row := range []struct {
		why     string
		instead decision
		alone   string // the reply to DATA where no recipient is allowed
		to      string // the recipients of the mails, at the server
	}{
		{"a reply", reply{Code: 250, Enhanced: enhanced{2, 1, 5}}, "502", "[[b@example.org]]"},
		{"another recipient", pass{Command: sink}, "354", "[[sink@invalid b@example.org] [sink@invalid]]"},
	} {
		h := decide(func(cmd command) (decision, error) {
			if cmd.Verb() == "RCPT" && !allowed(cmd) {
				return row.instead, nil
			}
			return nil, nil
		})
		s, tr := front(t, &smtpproxy.Proxy{Hook: h})
		c := greeted(t, tr)
		c.asks("250 EHLO client.example", "250 MAIL FROM:<a@example.com>", "250 RCPT TO:<x@elsewhere.example>", "250 RCPT TO:<b@example.org>", "354 DATA", "250 hi\r\n.")
		c.asks("250 MAIL FROM:<a@example.com>", "250 RCPT TO:<x@elsewhere.example>", row.alone+" DATA")
		if row.alone == "354" {
			c.asks("250 hi\r\n.")
		}
		c.asks("221 QUIT")
		var to [][]string
		for _, m := range s.Messages() {
			to = append(to, m.To)
		}
		if got := fmt.Sprint(to); got != row.to {
			t.Errorf("%s: mails for %s, want %s", row.why, got, row.to)
		}
	}
}

func TestAFloodOfOneCommandEndsTheConnection_aiosmtpd222_gosmtp116(t *testing.T) {
	m := new(smtpproxy.Mux)
	m.Handle("NOOP", hooks.Limits{Limits: []hooks.Limit{{What: hooks.Commands, Max: 3}}}.Hook())
	_, tr := front(t, &smtpproxy.Proxy{Hook: m})
	c := greeted(t, tr)
	c.asks("250 EHLO client.example", "250 NOOP", "250 NOOP", "250 RSET", "250 RSET", "250 RSET", "250 RSET", "250 NOOP")
	c.ask("NOOP", "421 4.7.0")
	c.expectEnd()
}

func TestEachSenderAndEachLoginHasARate_listmonk3017_harakalimit78(t *testing.T) {
	h := hooks.Limits{Limits: []hooks.Limit{
		{What: hooks.Messages, Per: hooks.PerSender, Max: 2, Every: time.Hour, Beyond: reply{Code: 450}},
		{What: hooks.Messages, Per: hooks.PerLogin, Max: 3, Every: time.Hour, Beyond: reply{Code: 452}},
		{What: hooks.Recipients, Per: hooks.PerSender, Max: 4, Every: time.Hour, Beyond: reply{Code: 451}},
	}}.Hook()
	_, tr := front(t, &smtpproxy.Proxy{Hook: h})
	mail := func(sender string) []string {
		return []string{"250 MAIL FROM:<" + sender + ">", "250 RCPT TO:<b@example.org>", "354 DATA", "250 hi\r\n."}
	}
	c := greeted(t, tr) // nobody's
	c.asks("250 EHLO client.example")
	c.asks(append(mail("news@a.example"), mail("news@a.example")...)...)
	c.asks("250 MAIL FROM:<news@a.example>", "450 RCPT TO:<b@example.org>", "250 RSET")
	c.asks(mail("news@b.example")...)
	// The null sender is one like any other.
	c.asks("250 MAIL FROM:<>", "250 RCPT TO:<b@example.org>", "250 RCPT TO:<c@example.org>", "250 RCPT TO:<d@example.org>", "250 RCPT TO:<e@example.org>",
		"451 RCPT TO:<f@example.org>", "221 QUIT")

	c = greeted(t, tr)
	c.asks("250 EHLO client.example", "235 "+plainAUTH("user", "pass"))
	for _, sender := range []string{"c", "d", "e"} {
		c.asks(mail("news@" + sender + ".example")...)
	}
	c.asks("452 MAIL FROM:<news@f.example>", "221 QUIT")
}

// trap is a hook that takes whatever credentials there are, and refuses them.
type trap struct {
	mu  sync.Mutex
	got []string
}

func (h *trap) Command(_ *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
	switch {
	case cmd.SASL:
		secret, err := base64.StdEncoding.DecodeString(cmd.Line)
		if err != nil {
			return reply{Code: 501}, nil
		}
		h.mu.Lock()
		h.got = append(h.got, fmt.Sprintf("%s %q", conn.HELO.Host, secret))
		h.mu.Unlock()
		return reply{Code: 535, Enhanced: enhanced{5, 7, 8}}, nil
	case cmd.Verb() == "AUTH":
		return reply{Code: 334}, nil
	}
	return nil, nil
}

func TestAHoneypotTakesCredentialsAndHasAnEnd_threatgg17(t *testing.T) {
	h := new(trap)
	limits := hooks.Limits{Limits: []hooks.Limit{{What: hooks.Commands, Max: 100}, {What: hooks.Time, Max: 300}}}.Hook()
	s, tr := front(t, &smtpproxy.Proxy{Hook: smtpproxy.Chain(limits, h)})
	c := greeted(t, tr)
	c.asks("250 EHLO bot.example")
	for range 2 {
		c.asks("334 AUTH PLAIN", "535 "+base64.StdEncoding.EncodeToString([]byte("\x00root\x00toor")))
	}
	for range 97 {
		c.asks("250 NOOP")
	}
	c.ask("NOOP", "421 4.7.0")
	c.expectEnd()
	if want := []string{`bot.example "\x00root\x00toor"`, `bot.example "\x00root\x00toor"`}; !slices.Equal(h.got, want) {
		t.Errorf("it has %q", h.got)
	}
	if slices.ContainsFunc(s.Commands(), func(line string) bool { return strings.HasPrefix(line, "AUTH") }) {
		t.Errorf("the server got %q", s.Commands())
	}

	// Who is silent is the server's to end.
	_, tr = front(t, &smtpproxy.Proxy{Hook: h}, servertest.Configure(func(s *smtp.Server) { s.ReadTimeout = 50 * time.Millisecond }))
	c = greeted(t, tr)
	if rest, err := io.ReadAll(c.r); err != nil || !strings.HasPrefix(string(rest), "421 ") {
		t.Errorf("a silent client got %q, %v", rest, err)
	}
}
