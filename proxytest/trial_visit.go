package proxytest

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// hearing is a trial under way.
type hearing struct {
	Trial
	l        *stages
	returned chan error // of serve

	keywords   map[string]string // what EHLO announces
	readsAhead bool
	lost       string          // why nothing more can be asked
	cannot     string          // why the question can't be
	told       map[string]bool // whys
	staysOpen  bool
	visits     []*visit // all of them
}

// visit is a connection of the trial's.
type visit struct {
	h *hearing
	s *stage

	transcript strings.Builder
	prologue   string // the transcript up to the reply to EHLO
	greeted    answer
	welcome    answer // to EHLO
}

const notAccepting = "the server doesn't accept connections any more"

// dial connects, and takes the greeting. It returns nil if the server doesn't accept.
func (h *hearing) dial() *visit {
	v := &visit{h: h, s: newStage(h.Timeout, h.Grace)}
	if !h.l.connect(v.s, h.Timeout) {
		if h.lost == "" {
			h.lost = notAccepting
		}
		return nil
	}
	h.visits = append(h.visits, v)
	v.s.awaitReply()
	v.greeted = v.settle(1)
	return v
}

// visit connects and says hello. It returns nil if nothing more can be asked.
func (h *hearing) visit() *visit {
	if h.lost != "" {
		return nil
	}
	v := h.dial()
	if v == nil {
		return nil
	}
	if code := v.greeted.code(); code != 220 {
		h.lost = "the server doesn't greet"
		return nil
	}
	if v.welcome = v.say(h.hello()+" "+h.Host+"\r\n", 1); v.welcome.code() != 250 {
		h.lost = fmt.Sprintf("the server doesn't accept %s %s", h.hello(), h.Host)
		return nil
	}
	v.prologue = v.transcript.String()
	v.transcript.Reset()
	return v
}

func (h *hearing) hello() string {
	if h.LMTP {
		return "LHLO"
	}
	return "EHLO"
}

// leave tells the server that the client is gone.
func (v *visit) leave() {
	if v != nil {
		v.s.fail(io.EOF, false)
	}
}

// note adds a line to the transcript.
func (v *visit) note(prefix, text string) { v.transcript.WriteString(prefix + text + "\n") }

// settle takes what the server has to say, by and large so many replies.
func (v *visit) settle(replies int) answer { return v.take(v.s.settle(replies, v.h.readsAhead)) }

// take notes what the server has said.
func (v *visit) take(a answer) answer {
	for line := range strings.Lines(a.text) {
		text, whole := strings.CutSuffix(line, "\r\n")
		if !whole {
			text = strconv.Quote(line)
		}
		v.note("S: ", text)
	}
	switch {
	case a.doing == closed:
		v.note("", "[the server closes the connection]")
	case a.doing == stuck:
		v.note("", "[nothing comes]")
	case len(a.codes) == 0:
		v.note("", "[the server reads on]")
	}
	return a
}

// say hands the server octets and takes its answer.
func (v *visit) say(octets string, replies int) answer {
	v.note("C: ", shown(octets))
	v.s.give(octets)
	return v.settle(replies)
}

// sayPatiently hands the server octets and takes its answer, whichever of its goroutines
// gives it.
func (v *visit) sayPatiently(octets string) answer {
	v.note("C: ", shown(octets))
	v.s.give(octets)
	return v.take(v.s.settle(0, true))
}

// shown returns octets as a transcript shows them.
func shown(octets string) string {
	text, whole := strings.CutSuffix(octets, "\r\n")
	if whole && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return shortened(text)
	}
	if len(octets) > 200 {
		return fmt.Sprintf("[%d octets]", len(octets))
	}
	return strconv.Quote(octets)
}

func shortened(text string) string {
	if len(text) <= 200 {
		return text
	}
	return fmt.Sprintf("%s... [%d octets]", text[:20], len(text))
}

// ask sends a command and returns the code of the reply, 0 if none comes.
func (v *visit) ask(line string) int { return v.say(line+"\r\n", 1).code() }

// code returns that of the first reply, 0 if there is none.
func (a answer) code() int {
	if len(a.codes) == 0 {
		return 0
	}
	return a.codes[0]
}

func positive(code int) bool { return code/100 == 2 }
func negative(code int) bool { return code/100 == 4 || code/100 == 5 }

// anyPositive tells whether one of the replies is.
func (a answer) anyPositive() bool {
	for _, code := range a.codes {
		if positive(code) {
			return true
		}
	}
	return false
}

// begin opens a transaction with some recipients on a new connection. It returns nil if
// that can't be done.
func (h *hearing) begin(recipients int) *visit {
	v := h.visit()
	if v == nil {
		return nil
	}
	if !v.begin(recipients) {
		return nil
	}
	return v
}

// begin opens a transaction.
func (v *visit) begin(recipients int) bool {
	h := v.h
	if !v.mail() {
		return false
	}
	for _, to := range []string{h.Recipient, h.Other}[:recipients] {
		if code := v.ask("RCPT TO:<" + to + ">"); !positive(code) {
			h.cannot = fmt.Sprintf("the server doesn't accept RCPT TO:<%s>", to)
			return false
		}
	}
	return true
}

// mail says MAIL, behind AUTH if the server wants it.
func (v *visit) mail() bool {
	h := v.h
	line := "MAIL FROM:<" + h.Sender + ">"
	code := v.ask(line)
	if code == 530 && h.Username != "" && positive(v.ask("AUTH PLAIN "+h.plain(h.Password))) {
		code = v.ask(line)
	}
	if !positive(code) {
		h.cannot = fmt.Sprintf("the server doesn't accept %s", line)
	}
	return positive(code)
}

// plain returns a response of the mechanism PLAIN (RFC 4616 section 2).
func (h *hearing) plain(password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + h.Username + "\x00" + password))
}

// content opens a transaction, up to the 354 to DATA. Content is handed over line by line.
func (h *hearing) content(recipients int) *visit {
	v := h.begin(recipients)
	if v == nil || !v.data() {
		return nil
	}
	return v
}

func (v *visit) data() bool {
	if v.ask("DATA") != 354 {
		v.h.cannot = "the server doesn't answer DATA with 354"
		return false
	}
	v.s.set(func(s *stage) { s.inLines = true })
	return true
}

// statuses is how many replies a message for so many recipients gets.
func (h *hearing) statuses(recipients int) int {
	if h.LMTP {
		return recipients
	}
	return 1
}

// size returns the largest message that the server announces to accept, 0 if it tells none.
func (h *hearing) size() int {
	n, _ := strconv.Atoi(h.keywords["SIZE"])
	return n
}

// keywordsOf parses the reply to EHLO.
func keywordsOf(text string) map[string]string {
	keywords := make(map[string]string)
	for i, line := range strings.Split(strings.TrimRight(text, "\r\n"), "\n") {
		if line = strings.TrimRight(line, "\r"); i > 0 && len(line) > 4 {
			keyword, params, _ := strings.Cut(line[4:], " ")
			keywords[strings.ToUpper(keyword)] = params
		}
	}
	return keywords
}

// claim tells which mailbox the library says a RCPT command names, "" if it claims none.
func (tr Trial) claim(args string) string {
	s := NewSession(&smtpproxy.Proxy{})
	s.Send("EHLO client.example")
	s.Send("MAIL FROM:<>")
	s.Send("RCPT " + args)
	for _, r := range s.Transaction().Recipients.All() {
		return r.Recipient
	}
	return ""
}

// run serves a listener until it is closed.
func (h *hearing) run(serve func(net.Listener) error) {
	go func() {
		err := fmt.Errorf("it has ended its goroutine") // as t.FailNow does
		defer func() {
			h.returned <- err
			h.l.Close() // no more waiting for it
		}()
		err = serve(h.l)
	}()
}
