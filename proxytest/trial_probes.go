package proxytest

import (
	"net"
	"strings"
	"time"
)

// question is what a trial asks.
type question struct {
	name, text string
	ask        func(h *hearing, r *Result)
}

var questions = []question{
	{"greeting", "Does it greet before it reads?", (*hearing).askGreeting},
	{"read-ahead", "Does its reader run ahead of its replies?", (*hearing).askReadAhead},
	{"replies", "Does it answer each command once?", (*hearing).askReplies},
	{"pieces", "Does it write a reply in one piece?", (*hearing).askPieces},
	{"starttls", "Does it offer a STARTTLS of its own?", (*hearing).askSTARTTLS},
	{"auth", "Does AUTH work without a *tls.Conn?", (*hearing).askAuth},
	{"long-commands", "Is a command line of 2,048 octets one command?", (*hearing).askLongCommands},
	{"paths", "Which path does it take of two?", (*hearing).askPaths},
	{"envelope", "When does it forget a transaction?", (*hearing).askEnvelope},
	{"message-end", "Where does it see the end of a message?", (*hearing).askMessageEnd},
	{"long-lines", "Does it bear with long lines in a message?", (*hearing).askLongLines},
	{"refused-message", "What is the rest of a refused message to it?", (*hearing).askRefusedMessage},
	{"chunks", "Does it take a chunk's octets, and no others?", (*hearing).askChunks},
	{"timeouts", "What does it read behind a timeout?", (*hearing).askTimeouts},
	{"cut-off", "What becomes of a message whose end never comes?", (*hearing).askCutOff},
	{"statuses", "Does each recipient get a status?", (*hearing).askStatuses},
	{"handover", "Does it close at the end of a connection, and serve the next?", (*hearing).askHandover},
	{"end", "Does it end with its listener?", (*hearing).askEnd},
}

// prerequisites are the questions that others depend on.
const prerequisites = 2

// try asks all questions. each gets one, and asks it, or doesn't.
func (tr Trial) try(serve func(net.Listener) error, each func(q question, ask func() Result)) Report {
	h := &hearing{Trial: tr.withDefaults(), l: newStages(), returned: make(chan error, 1), told: make(map[string]bool)}
	h.run(serve)
	defer h.abandon()
	results := make([]Result, len(questions))
	for i, q := range questions {
		results[i] = Result{Probe: q.name, Question: q.text}
		ask := func() Result { return h.answer(q, &results[i]) }
		if i < prerequisites {
			asked := ask()
			ask = func() Result { return asked }
		}
		each(q, ask)
	}
	return Report{results}
}

// answer asks a question.
func (h *hearing) answer(q question, r *Result) Result {
	h.cannot = ""
	if h.lost == "" || q.name == "end" {
		q.ask(h, r)
	}
	why := h.lost
	if why == "" {
		why = h.cannot
	}
	if why != "" && q.name != "end" {
		if r.Answer == "" {
			r.Answer = "Not tried: " + why + "."
		}
		switch {
		case h.told[why] || len(r.Findings) > 0:
		case why == notAccepting:
			r.find(nil, "no-fresh-connection", "It doesn't accept a connection when others have been closed.")
		default:
			r.find(h.last(), "untried", "The trial can't go on: "+why+".")
		}
		h.told[why] = true
	}
	for _, v := range h.visits {
		v.leave()
	}
	return *r
}

// last is the connection that was used last.
func (h *hearing) last() *visit {
	if len(h.visits) == 0 {
		return nil
	}
	return h.visits[len(h.visits)-1]
}

// leave ends the trial.
func (h *hearing) leave() {
	h.l.Close()
	for _, v := range h.visits {
		v.leave()
	}
}

// abandon closes what the server has left open.
func (h *hearing) abandon() {
	h.leave() // the question that does may not have been asked
	for _, v := range h.visits {
		v.s.Close()
	}
}

// find adds a finding. Its ruling tells the rest.
func (r *Result) find(v *visit, name, what string, values ...string) {
	for _, f := range r.Findings {
		if f.Name == name {
			return
		}
	}
	rule, ok := rulings[name]
	if !ok {
		panic("proxytest: no ruling for " + name)
	}
	f := Finding{Name: name, Grade: rule.grade, What: what, Meaning: rule.meaning, Remedy: rule.remedy}
	if v != nil {
		if f.Dialogue = v.transcript.String(); f.Dialogue == "" {
			f.Dialogue = v.prologue
		}
	}
	for i := 0; i+1 < len(values); i += 2 {
		f.Meaning = strings.ReplaceAll(f.Meaning, values[i], values[i+1])
		f.Remedy = strings.ReplaceAll(f.Remedy, values[i], values[i+1])
	}
	r.Findings = append(r.Findings, f)
}

// askGreeting asks for the greeting, and what EHLO announces.
func (h *hearing) askGreeting(r *Result) {
	v := h.dial()
	switch {
	case v == nil:
		if returned, err := h.hasReturned(); returned {
			h.lost = "serve has returned"
			if err != nil {
				h.lost += " the error " + err.Error()
			}
		}
		return
	case v.greeted.code() == 220:
		r.Answer = "Yes."
		if v.s.timeouts > 0 {
			r.Answer = "It waits a little for clients that talk early."
			r.find(v, "waits-for-early-talkers", "It reads before it greets, until a deadline of its own.")
		}
	case v.greeted.doing == waits:
		r.Answer = "No."
		h.lost = "the server doesn't greet"
		r.find(v, "reads-before-greeting", "It reads before it greets.")
		return
	case h.greetsTCP():
		r.Answer = "Not on a connection that isn't a *net.TCPConn."
		h.lost = "the server doesn't greet"
		r.find(v, "wants-tcp-conn", "It greets on a *net.TCPConn alone.")
		return
	case v.greeted.code() != 0:
		h.lost = "the server doesn't greet with 220"
		return
	default:
		h.lost = "the server doesn't greet"
		return
	}
	if v := h.visit(); v != nil {
		h.keywords = keywordsOf(v.welcome.text)
	}
}

// hasReturned tells whether serve has, and its error, where a connection wasn't accepted. A
// server that closes its listener itself, and may be seen to before it returns, has the time to.
func (h *hearing) hasReturned() (returned bool, err error) {
	if !h.l.isClosed() {
		return false, nil // which it is when serve has returned
	}
	select {
	case err = <-h.returned:
		h.returned <- err
		return true, err
	case <-time.After(h.Timeout):
		return false, nil
	}
}

// askReadAhead asks whether somebody reads while a reply is due. A server in step can't,
// so its reply is held back for a little while.
func (h *hearing) askReadAhead(r *Result) {
	v := h.visit()
	if v == nil {
		return
	}
	r.Answer = "No."
	for range 3 {
		v.s.set(func(s *stage) { s.ahead, s.hold = false, true })
		v.note("C: ", "NOOP")
		v.s.give("NOOP\r\n")
		v.s.awaitReply()
		ahead := false
		v.s.set(func(s *stage) { ahead, s.hold = s.ahead, false })
		if ahead {
			v.note("", "[the server reads the next command]")
			v.settle(1)
			h.readsAhead = true
			r.Answer = "Yes."
			r.find(v, "reads-ahead", "It reads the next command before it has answered the one before.")
			return
		}
		v.settle(1)
	}
}

// askReplies asks for one reply to each command.
func (h *hearing) askReplies(r *Result) {
	outside := []string{
		"NOOP", "RSET", "VRFY bob", "HELP", "EXPN bob", "XYZZY", "MAIL", "MAIL FROM:<", "AUTH", "AUTH X-NONE",
		h.hello() + " again.example", h.hello(), "HELO client.example", "QUIT",
	}
	inside := []string{"RCPT", "RCPT TO:<", "DATA", "NOOP", "RSET", "QUIT"}
	if h.RefusedRecipient != "" {
		inside = append(inside, "RCPT TO:<"+h.RefusedRecipient+">")
	}
	r.Answer = "Yes."
	for i, line := range append(outside, inside...) {
		v := h.visit()
		if v == nil || i >= len(outside) && !v.mail() {
			r.Answer = ""
			return
		}
		a := v.say(line+"\r\n", -1)
		r.judgeReplies(v, line, a, 1)
		if line == "DATA" && a.code() == 354 {
			v.say("text\r\n.\r\n", 1)
		}
		v.leave()
	}
}

// judgeReplies holds that there are so many replies to what was said.
func (r *Result) judgeReplies(v *visit, to string, a answer, want int) {
	switch {
	case a.broken, a.rest != "":
		r.Answer = "No."
		r.find(v, "malformed-reply", "What it writes behind "+to+" is no reply, or not all of one.")
	case len(a.codes) == 0 && a.doing != closed:
		r.Answer = "No."
		r.find(v, "no-reply", "It doesn't answer "+to+".")
	case len(a.codes) > want && a.codes[want] == 421:
		r.find(v, "goodbye-behind-reply", "Behind the reply to "+to+" it says goodbye.")
	case len(a.codes) > want:
		r.Answer = "No."
		r.find(v, "many-replies", "It answers "+to+" more than once.")
	}
}

// askPieces asks how it writes the reply to EHLO.
func (h *hearing) askPieces(r *Result) {
	v := h.visit()
	if v == nil {
		return
	}
	r.Answer = "Yes."
	writes := v.welcome.writes
	if len(writes) < 2 {
		return
	}
	r.Answer = "No, a line at a time."
	for _, w := range writes {
		if !strings.HasSuffix(w, "\n") {
			r.Answer = "No, not even a line."
		}
	}
	r.find(v, "replies-in-pieces", "It writes one reply with more than one Write.")
}

func (h *hearing) askSTARTTLS(r *Result) {
	v := h.visit()
	if v == nil {
		return
	}
	r.Answer = "No."
	if _, ok := h.keywords["STARTTLS"]; ok {
		r.Answer = "Yes."
		r.find(v, "offers-starttls", "It offers STARTTLS.")
	}
}

// askLongCommands asks whether each line is one command.
func (h *hearing) askLongCommands(r *Result) {
	const longest = 2048 // Proxy.MaxLineLength
	try := func(octets int) (*visit, answer) {
		v := h.visit()
		if v == nil {
			return nil, answer{}
		}
		line := strings.Repeat("NOOP ", octets/5+1)[:octets-2] + "\r\n"
		a := v.say(line, -1)
		v.leave()
		return v, a
	}
	once := func(a answer) bool { return len(a.codes) == 1 || len(a.codes) == 0 && a.doing == closed }
	v, a := try(longest)
	switch {
	case v == nil:
	case once(a) && positive(a.code()):
		r.Answer = "Yes."
	case once(a):
		r.Answer = "Yes, and refused."
	default:
		good, bad := 5, longest
		for bad-good > 1 {
			_, a := try((good + bad) / 2)
			if h.lost != "" {
				return
			}
			if once(a) {
				good = (good + bad) / 2
			} else {
				bad = (good + bad) / 2
			}
		}
		r.Answer = "No, " + commas(good) + " octets at most."
		r.find(v, "splits-long-commands", "A command line of more than "+commas(good)+" octets doesn't get one reply.", "{n}", digits(good))
	}
}

// askHandover asks for what happens where the library hands a client over.
func (h *hearing) askHandover(r *Result) {
	r.Answer = "Yes."
	for _, open := range []bool{false, true} {
		v := h.visit()
		if open {
			if v == nil || !v.begin(1) {
				r.Answer = ""
				return
			}
		} else if v == nil {
			return
		}
		v.note("", "[the library ends the connection: io.EOF]")
		if !v.s.end() {
			v.note("", "[the server doesn't close it]")
			r.Answer = "No."
			r.find(v, "stays-open", "It doesn't close a connection whose Read returns io.EOF.")
			h.staysOpen = true
			return
		}
		if h.visit() == nil {
			r.Answer = "No."
			return
		}
	}
}

// askEnd ends the trial, and the server with it.
func (h *hearing) askEnd(r *Result) {
	h.leave()
	r.Answer = "Yes."
	select {
	case <-h.returned:
	case <-time.After(h.Timeout):
		r.Answer = "No."
		r.find(nil, "stays-behind-close", "It doesn't return when its listener is closed.")
	}
	deadline := time.Now().Add(h.Timeout)
	for _, v := range h.visits {
		if !v.s.isClosed(max(time.Until(deadline), time.Millisecond)) && h.lost == "" && !h.staysOpen {
			r.Answer = "No."
			v.note("", "[the client is gone: io.EOF]")
			v.note("", "[the server doesn't close the connection]")
			r.find(v, "leaves-connections", "It leaves a connection open whose client is gone.")
		}
	}
}
