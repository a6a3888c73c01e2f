package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file is about when a KeywordHook is asked, and about which list.

// listBook is a hook that writes down each list, and changes it.
type listBook struct {
	change func(kw *keywords)
	mu     sync.Mutex
	lists  []string
	conns  []connection
}

func (b *listBook) Command(*hookContext, command, connection, transaction) (decision, error) {
	return nil, nil
}

func (b *listBook) Keywords(_ *hookContext, conn connection, kw *keywords) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for name, params := range kw.All() {
		list = append(list, strings.TrimSpace(name+" "+params))
	}
	b.lists = append(b.lists, strings.Join(list, "|"))
	b.conns = append(b.conns, conn)
	if b.change != nil {
		b.change(kw)
	}
	return nil
}

// took returns the lists since it was asked last.
func (b *listBook) took() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	lists := b.lists
	b.lists = nil
	return lists
}

// linesOf returns the lines of a reply but the first, as a client reads them.
func linesOf(reply string) string {
	var list []string
	for _, line := range strings.Split(strings.ReplaceAll(reply, " | ", "\r\n"), "\r\n")[1:] {
		list = append(list, line[len("250-"):])
	}
	return strings.Join(list, "|")
}

// TestAHookGetsTheListAsTheClientWouldGetIt is about go-smtp, whose list the library
// changes itself: it takes the server's STARTTLS away, adds its own, holds AUTH back, and
// has keywords of its own inside TLS.
func TestAHookGetsTheListAsTheClientWouldGetIt(t *testing.T) {
	const all = "PIPELINING|8BITMIME|ENHANCEDSTATUSCODES|CHUNKING"
	for _, row := range []struct {
		why    string
		p      smtpproxy.Proxy
		serve  func(t *testing.T, p *smtpproxy.Proxy) transport
		lists  []string // in plaintext, inside TLS
		inside bool
	}{
		{why: "the server's STARTTLS is taken away, and its AUTH is not",
			serve: func(t *testing.T, p *smtpproxy.Proxy) transport {
				tr := overTCP(t)
				srv := serveListener(t, new(tlsBackend), p.Listener(tr))
				srv.TLSConfig = serverTLS()
				return tr
			},
			lists: []string{all + "|AUTH PLAIN|SIZE"}},
		{why: "the library's STARTTLS, AUTH and REQUIRETLS inside TLS alone", p: smtpproxy.Proxy{TLSKeywords: []string{"XINSIDE 1 2"}},
			serve: func(t *testing.T, p *smtpproxy.Proxy) transport { return serveTLS(t, new(tlsBackend), p) },
			lists: []string{all + "|STARTTLS|SIZE", all + "|AUTH PLAIN|SIZE|XINSIDE 1 2|REQUIRETLS"}, inside: true},
		{why: "AUTH outside of TLS, which is allowed", p: smtpproxy.Proxy{AllowInsecureAuth: true},
			serve: func(t *testing.T, p *smtpproxy.Proxy) transport { return serveTLS(t, new(tlsBackend), p) },
			lists: []string{all + "|STARTTLS|AUTH PLAIN|SIZE"}},
	} {
		t.Run(row.why, func(t *testing.T) {
			book := new(listBook)
			row.p.Hook = book
			k := talk(t, row.serve(t, &row.p))
			got := []string{linesOf(k.want("EHLO x", "250"))}
			if row.inside {
				k.startTLS()
				got = append(got, linesOf(k.want("EHLO x", "250")))
			}
			if !slices.Equal(got, row.lists) {
				t.Errorf("the client got\n%q, want\n%q", got, row.lists)
			}
			if shown := book.took(); !slices.Equal(shown, got) {
				t.Errorf("the hook got\n%q, the client\n%q", shown, got)
			}
		})
	}
}

// TestAHookIsAskedAboutEach250AndNoOtherReply is about the puppet, and, where the code is a
// refusal, about a list that is still the one before.
func TestAHookIsAskedAboutEach250AndNoOtherReply(t *testing.T) {
	const list = "PIPELINING|CHUNKING|SIZE 1000"
	for _, row := range []struct {
		why, line string
		code      int
		asked     []string
	}{
		{"EHLO", "EHLO x", 250, []string{list}},
		{"in lower case", "ehlo x", 250, []string{list}},
		{"LHLO", "LHLO x", 250, []string{list}},
		{"HELO, with no list", "HELO x", 250, []string{""}},
		{"EHLO is refused", "EHLO x", 550, nil},
		{"LHLO is refused for now", "LHLO x", 451, nil},
		{"HELO is refused", "HELO x", 501, nil},
		{"a reply that is no greeting's", "NOOP", 250, nil},
		{"a reply with lines to something else", "HELP", 250, nil},
	} {
		for name, open := range doors {
			t.Run(row.why+", "+name, func(t *testing.T) {
				book := &listBook{change: func(kw *keywords) { kw.Set("XSET", "") }}
				pup := &puppet{codes: map[string][]int{strings.ToUpper(row.line[:4]): {row.code}}}
				d := open(t, &smtpproxy.Proxy{Hook: book}, pup)
				if codes := d.say(row.line); codes[0] != row.code {
					t.Errorf("the client got %v", codes)
				}
				if got := book.took(); !slices.Equal(got, row.asked) {
					t.Errorf("the hook was asked about %q, want %q", got, row.asked)
				}
			})
		}
		t.Run(row.why+", fake session", func(t *testing.T) {
			book := &listBook{change: func(kw *keywords) { kw.Set("XSET", "") }}
			s := proxytest.NewSession(&smtpproxy.Proxy{Hook: book})
			s.Answer(row.line[:4], row.code, strings.Split("puppet|"+list, "|")...)
			s.Send(row.line)
			if got := book.took(); !slices.Equal(got, row.asked) {
				t.Errorf("the hook was asked about %q, want %q", got, row.asked)
			}
			if lines := s.Reply().Lines; (lines[len(lines)-1] == "XSET") != (len(row.asked) > 0 && row.asked[0] != "") {
				t.Errorf("the client got %q", lines)
			}
		})
	}
}

// The hook's own answer to EHLO has the list that it wants: there is nothing to ask about.
func TestAHooksOwnAnswerToEHLOIsNotAskedAbout(t *testing.T) {
	book := new(listBook)
	p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(book, always(reply{Lines: []string{"mine", "CHUNKING"}}))}
	s := proxytest.NewSession(p)
	if s.Send("EHLO x"); len(book.took()) > 0 || s.Reply().String() != "250-mine\r\n250 CHUNKING" {
		t.Errorf("asked, or answered %q", s.Reply())
	}
}

// The connection is the one before the reply: who has greeted is known behind it.
func TestTheConnectionIsTheOneBeforeTheReply(t *testing.T) {
	book := new(listBook)
	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: book})
	s.Send("HELO first.example")
	s.Send("EHLO second.example")
	if got := fmt.Sprint(book.conns[0].HELO, book.conns[1].HELO); got != "{ } {HELO first.example}" {
		t.Errorf("the hook saw %s", got)
	}
	if book.conns[1].ID != s.Connection().ID || book.conns[1].RemoteIP != s.Connection().RemoteIP {
		t.Errorf("the hook saw another connection: %+v", book.conns[1])
	}
}

func TestEachHookOfAChainSeesWhatTheOnesBeforeHaveLeft(t *testing.T) {
	first := &listBook{change: func(kw *keywords) { kw.Delete("SIZE"); kw.Set("XA", "1") }}
	second := &listBook{change: func(kw *keywords) { kw.Set("XA", "2"); kw.Set("SIZE", "5"); kw.Delete("CHUNKING") }}
	third := new(listBook)
	p := &smtpproxy.Proxy{Hook: smtpproxy.Chain(first, smtpproxy.Named("second", smtpproxy.Chain(second)), third)}
	for name, open := range doors {
		d := open(t, p, new(puppet))
		d.say("EHLO x")
		got := [][]string{first.took(), second.took(), third.took()}
		want := [][]string{{"PIPELINING|CHUNKING|SIZE 1000"}, {"PIPELINING|CHUNKING|XA 1"}, {"PIPELINING|XA 2|SIZE 5"}}
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		// The last word counts: SIZE is back.
		if codes := d.say("MAIL FROM:<a@b> SIZE=1"); codes[0] != 250 {
			t.Errorf("%s: MAIL: %v", name, codes)
		}
		d.say("RCPT TO:<c@d>")
		if codes := d.say("BDAT 3"); codes[0] != 502 || d.session().Transaction().Active {
			t.Errorf("%s: BDAT: %v; there is still a transaction: %v", name, codes, d.session().Transaction().Active)
		}
	}
}

// What goes to the client octet for octet is what the server wrote, be it ever so odd.
func TestAListThatNobodyChangesGoesOutOctetForOctet(t *testing.T) {
	const odd = "250-x  y\r\n250-\r\n250-size  10 \r\n250-X_Y\tz\r\n250-\xff\r\n250 \r\n"
	script := func(c net.Conn) {
		io.WriteString(c, "220 x\r\n")
		readLines(c, func(string) { io.WriteString(c, odd) })
	}
	for why, hook := range map[string]smtpproxy.Hook{
		"it is looked at":           onKeywords(func(kw *keywords) error { kw.Get("SIZE"); return nil }),
		"what isn't there is taken": deletes("ETRN"),
		"no hook asks":              always(nil),
	} {
		c := runScript(t, overTCP(t), &smtpproxy.Proxy{Hook: hook}, script)
		c.expect("220")
		c.send("EHLO x\r\n")
		got := make([]byte, len(odd))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != odd {
			t.Errorf("%s: got %q, %v", why, got, err)
		}
	}
}

// readLines calls f for each line.
func readLines(c net.Conn, f func(line string)) {
	for line := range readAhead(c) {
		f(line)
	}
}

// The SIZE that chunks are held to is the server's: what the hook tells the client doesn't
// make it take more, or less.
func TestTheSizeThatChunksAreHeldToIsTheServers(t *testing.T) {
	for why, change := range map[string]func(kw *keywords){
		"the hook tells of more": func(kw *keywords) { kw.Set("SIZE", "100000") },
		"the hook tells of less": func(kw *keywords) { kw.Set("SIZE", "1") },
		"the hook tells nothing": func(kw *keywords) { kw.Delete("SIZE") },
	} {
		for name, open := range doors {
			d := open(t, &smtpproxy.Proxy{Hook: &listBook{change: change}}, new(puppet))
			var codes []int
			for _, line := range []string{"EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "BDAT 1000", "BDAT 1"} {
				codes = append(codes, d.say(line)...)
			}
			if want := []int{250, 250, 250, 250, 552}; !slices.Equal(codes, want) {
				t.Errorf("%s, %s: %v, want %v", why, name, codes, want)
			}
		}
	}
}

// TestADeletionHoldsUntilTheNextListIsAskedAbout is about a hook that deletes ETRN when it
// is asked first, and what comes before it is asked again.
func TestADeletionHoldsUntilTheNextListIsAskedAbout(t *testing.T) {
	for _, row := range []struct {
		why   string
		codes map[string][]int
		say   []string
		again bool // it is asked again
	}{
		{"nothing comes between", nil, nil, false},
		{"EHLO again", nil, []string{"EHLO y"}, true},
		{"HELO", nil, []string{"HELO y"}, true},
		{"LHLO", nil, []string{"LHLO y"}, true},
		{"EHLO that is refused", map[string][]int{"EHLO": {250, 550}}, []string{"EHLO y"}, false},
		{"HELO that is refused", map[string][]int{"HELO": {550}}, []string{"HELO y"}, false},
		{"RSET", nil, []string{"RSET"}, false},
		{"a message", nil, []string{"MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "."}, false},
		{"AUTH", nil, []string{"AUTH PLAIN AA=="}, false},
		{"XCLIENT, behind which the client greets again", map[string][]int{"XCLIENT": {220}}, []string{"XCLIENT ADDR=192.0.2.1"}, false},
	} {
		for name, open := range doors {
			for _, greet := range []string{"EHLO x", "HELO x"} {
				asked := 0
				hook := onKeywords(func(kw *keywords) error {
					if asked++; asked == 1 {
						kw.Delete("ETRN")
					}
					return nil
				})
				pup := &puppet{codes: cloneCodes(row.codes)}
				d := open(t, &smtpproxy.Proxy{Hook: hook}, pup)
				if greet == "HELO x" && row.codes["HELO"] != nil {
					pup.codes["HELO"] = []int{250, 550}
				} else if greet == "HELO x" && row.codes["EHLO"] != nil {
					pup.codes["EHLO"] = []int{550}
				}
				d.say(greet)
				for _, line := range row.say {
					d.say(line)
				}
				want := 502
				if row.again {
					want = 250
				}
				if codes := d.say("ETRN x"); codes[0] != want {
					t.Errorf("%s, behind %s, %s: ETRN: %v, want %d", row.why, greet, name, codes, want)
				}
			}
		}
	}
}

// TestBehindSTARTTLSADeletionHoldsUntilTheNewEHLO is about a client that goes on without
// it: what was closed before isn't open because of that.
func TestBehindSTARTTLSADeletionHoldsUntilTheNewEHLO(t *testing.T) {
	asked := 0
	hook := onKeywords(func(kw *keywords) error {
		if asked++; asked == 1 {
			kw.Delete("XOUT")
			kw.Delete("VRFY")
		} else {
			kw.Delete("XINS")
		}
		return nil
	})
	play := func(t *testing.T, say func(line string) int, startTLS func()) {
		say("EHLO x")
		startTLS()
		before := []int{say("VRFY x"), say("XOUT"), say("XINS")}
		say("EHLO x")
		after := []int{say("VRFY x"), say("XOUT"), say("XINS")}
		if got := fmt.Sprint(before, after); got != "[502 502 500] [252 500 502]" {
			t.Errorf("the client got %s", got)
		}
	}
	t.Run("go-smtp", func(t *testing.T) {
		asked = 0
		k := talk(t, serveTLS(t, new(tlsBackend), &smtpproxy.Proxy{Hook: hook}))
		play(t, func(line string) (code int) {
			fmt.Sscanf(k.want(line, ""), "%d", &code)
			return code
		}, k.startTLS)
	})
	t.Run("fake session", func(t *testing.T) {
		asked = 0
		s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hook})
		play(t, func(line string) int { s.Send(line); return s.Reply().Code }, func() {
			s.Send("STARTTLS")
			s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
		})
	})
}

// A client that waits for no reply has sent what is deleted before it could know.
func TestAPipelinedClientGetsNothingPastTheList(t *testing.T) {
	forEachFront(t, func(t *testing.T, tr transport, front func(*smtpproxy.Proxy) fronted) {
		s := front(&smtpproxy.Proxy{Hook: deletes("CHUNKING", "SIZE", "VRFY")})
		c := s.connect(t, tr)
		c.send("EHLO x\r\nMAIL FROM:<a@b> SIZE=3\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 15 LAST\r\nVRFY injected\r\nVRFY x\r\nNOOP\r\nQUIT\r\n")
		c.expect("220")
		if list := linesOf(c.reply()); strings.Contains(list, "CHUNKING") || strings.Contains(list, "SIZE") {
			t.Errorf("the client got %s", list)
		}
		c.expect("555 5.5.4", "250", "250", "502 5.5.1", "502 5.5.1", "250", "221")
		c.expectEnd()
		for _, line := range s.Commands() {
			if strings.Contains(line, "injected") || strings.Contains(line, "SIZE") || strings.HasPrefix(line, "BDAT") || strings.HasPrefix(line, "VRFY") {
				t.Errorf("the server executed %q", line)
			}
		}
	})
}

// With go-smtp, end to end: the client does without CHUNKING, as an SMTP client does.
func TestAClientOfGoSMTPDoesWithoutWhatTheHookHasDeleted(t *testing.T) {
	f := behindGoSMTP(&smtpproxy.Proxy{Hook: deletes("SIZE", "8BITMIME")})
	tr := overTCP(t)
	f.start(t, tr)
	conn, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClient(conn)
	defer c.Close()
	for name, want := range map[string]bool{"SIZE": false, "8BITMIME": false, "CHUNKING": true, "PIPELINING": true} {
		if ok, _ := c.Extension(name); ok != want {
			t.Errorf("%s is offered: %v", name, ok)
		}
	}
	if err := c.SendMail("a@b", []string{"c@d"}, strings.NewReader("hi\r\n")); err != nil {
		t.Errorf("it sends no mail: %v", err)
	}
	if err := c.Mail("a@b", &smtp.MailOptions{}); err != nil {
		t.Error(err)
	}
	if m := f.Messages(); len(m) != 1 || string(m[0].Data) != "hi\r\n" {
		t.Errorf("the server took %q", m)
	}
}
