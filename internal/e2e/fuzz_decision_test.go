package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// exchange is a command, what the hook decides about it, and what the server
// answers if it gets it.
type exchange struct {
	line string
	hook decision
	code int
}

// Ways to the phases of a dialogue in which FuzzDecision decides.
var ways = []struct {
	to        string
	exchanges []exchange
	sasl, own bool // a line of the server's, or the hook's, SASL exchange is due
}{
	{to: "the first command"},
	{to: "EHLO", exchanges: []exchange{{"EHLO x", nil, 250}}},
	{to: "LHLO", exchanges: []exchange{{"LHLO x", nil, 250}}},
	{to: "MAIL", exchanges: []exchange{{"EHLO x", nil, 250}, {"MAIL FROM:<>", nil, 250}}},
	{to: "RCPT", exchanges: []exchange{{"EHLO x", nil, 250}, {"MAIL FROM:<a@b>", nil, 250}, {"RCPT TO:<c@d>", nil, 250}}},
	{to: "RCPT in LMTP", exchanges: []exchange{{"LHLO x", nil, 250}, {"MAIL FROM:<a@b>", nil, 250}, {"RCPT TO:<c@d>", nil, 250}}},
	{to: "the next chunk", exchanges: []exchange{{"MAIL FROM:<a@b>", nil, 250}, {"RCPT TO:<c@d>", nil, 250}, {"BDAT 3", nil, 250}}},
	{to: "a chunk behind one that is missing", exchanges: []exchange{{"MAIL FROM:<a@b>", nil, 250}, {"RCPT TO:<c@d>", nil, 250}, {"BDAT 3", reply{Code: 450}, 0}}},
	{to: "the server's exchange", exchanges: []exchange{{"AUTH PLAIN", pass{Next: true}, 334}}, sasl: true},
	{to: "the hook's exchange", exchanges: []exchange{{"AUTH X", reply{Code: 334}, 0}}, own: true},
	{to: "AUTH refused", exchanges: []exchange{{"AUTH PLAIN AGEAYg==", nil, 535}}},
	{to: "AUTH accepted", exchanges: []exchange{{"AUTH PLAIN AGEAYg==", nil, 235}}},
	{to: "QUIT", exchanges: []exchange{{"QUIT", nil, 221}}},
}

// kinds are what a hook can return, and do instead.
var kinds = []struct {
	name   string
	broken bool // a failure, whatever there is in it
	decide func(p pass, r reply, text string) (decision, error)
}{
	{"nothing", false, func(pass, reply, string) (decision, error) { return nil, nil }},
	{"Pass", false, func(p pass, _ reply, _ string) (decision, error) { return p, nil }},
	{"a pointer to Pass", false, func(p pass, _ reply, _ string) (decision, error) { return &p, nil }},
	{"Reply", false, func(_ pass, r reply, _ string) (decision, error) { return r, nil }},
	{"a pointer to Reply", false, func(_ pass, r reply, _ string) (decision, error) { return &r, nil }},
	{"a nil pointer to Pass", true, func(pass, reply, string) (decision, error) { return (*pass)(nil), nil }},
	{"a nil pointer to Reply", true, func(pass, reply, string) (decision, error) { return (*reply)(nil), nil }},
	{"a type that embeds Pass", true, func(p pass, _ reply, _ string) (decision, error) { return struct{ pass }{p}, nil }},
	{"a type that embeds a nil pointer", true, func(pass, reply, string) (decision, error) { return struct{ *reply }{}, nil }},
	{"an error beside Pass", true, func(p pass, _ reply, text string) (decision, error) { return p, errors.New(text) }},
	{"a nil pointer as an error", true, func(_ pass, r reply, _ string) (decision, error) { return r, (*nilError)(nil) }},
	{"a panic", true, func(_ pass, _ reply, text string) (decision, error) { panic(text) }},
}

// FuzzDecision lets a hook decide anything, at any time. What Session.Command
// makes of it is always one line that can be executed or one reply that can be
// sent, and of what is neither, a 421.
func FuzzDecision(f *testing.F) {
	for way := range uint8(len(ways)) {
		for kind := range uint8(len(kinds)) {
			f.Add(way, kind, "RCPT TO:<e@f>", "RCPT TO:<g@h> NOTIFY=NEVER", 550, 5, 7, 1, "no\fnot at all", uint8(1), kind, 250)
			f.Add(way, kind, "BDAT 5 LAST", "bdat 005", 0, 0, 0, 0, "", uint8(0), kind, 354)
		}
		f.Add(way, uint8(4), "STARTTLS", "", 220, -1, -1, -1, "a\r\n250 b", uint8(200), way, 220)
		f.Add(way, uint8(1), "AUTH PLAIN", "starttls x", 334, 0, 0, 0, "\t\xff\u017f", uint8(0), way, 334)
	}
	f.Fuzz(func(t *testing.T, way, kind uint8, line, command string, code, class, subject, detail int, text string, times, flags uint8, answer int) {
		w, k := ways[int(way)%len(ways)], kinds[int(kind)%len(kinds)]
		p := pass{Command: command, Next: flags&1 != 0}
		r := reply{Code: code, Enhanced: enhanced{class, subject, detail}, Next: flags&1 != 0, Disconnect: flags&2 != 0}
		if times > 0 {
			r.Lines = slices.Repeat(strings.Split(text, "\f"), int(times))
		}
		j := newJudge()
		for _, e := range w.exchanges {
			j.hook = func() (decision, error) { return e.hook, nil }
			if _, ok := j.s.Command(t.Context(), e.line).(pass); ok {
				j.s.Replied(e.code, "x", "SIZE 100")
			}
		}
		j.hook = func() (decision, error) { return k.decide(p, r, text) }
		got, problem := j.judge(line, w.sasl || w.own)
		switch _, passed := got.(pass); {
		case problem != "":
		case w.own && passed:
			problem = "an answer to the hook's own challenge is passed"
		case j.shown && k.broken && j.failure == nil:
			problem = "no failure"
		case k.name == "nothing" && j.failure != nil && !w.own:
			problem = "a failure"
		case passed:
			// Whatever that leads to, the next decision is held to the same.
			j.s.Replied(answer, "x", "SIZE 2")
			_, problem = j.judge(line, answer == 334)
		}
		if problem != "" {
			t.Errorf("%q, after the way to %s: %s, %+v, %+v: got %#v: %s", line, w.to, k.name, p, r, got, problem)
		}
	})
}

// judge is a session whose hook notes how it was called.
type judge struct {
	s       *smtpproxy.Session
	hook    func() (decision, error)
	shown   bool
	failure error
}

func newJudge() *judge {
	j := new(judge)
	p := &smtpproxy.Proxy{
		Hook: decide(func(command) (decision, error) {
			j.shown = true
			return j.hook()
		}),
		OnFailure: func(_ *hookContext, f smtpproxy.Failure) decision {
			j.failure = f.Err
			return nil
		},
	}
	j.s = p.NewSession(connection{})
	return j
}

// endsTransaction tells whether a transaction is over, or of unknown state, when the
// server doesn't get a command and the client this reply.
func endsTransaction(verb string, code int) bool {
	switch verb {
	case "BDAT":
		return true
	case "RSET", "HELO", "EHLO", "LHLO":
		return code/100 == 2
	}
	return false
}

// judge takes one line to its decision, and tells what is wrong with that.
func (j *judge) judge(line string, sasl bool) (got decision, problem string) {
	j.shown, j.failure = false, nil
	conn, txn := j.s.Connection(), j.s.Transaction()
	got = j.s.Command(context.Background(), line)
	verb, chunk := command{Line: line, SASL: sasl}.Verb(), chunkOf(line)
	var discard int64
	switch d := got.(type) {
	case pass:
		problem = wrongLine(d.Command, line, sasl, txn)
		if j.failure != nil {
			problem = "a failure is passed"
		}
	case reply:
		problem = wrongReply(d)
		lost := d.Code == 421 && d.Disconnect
		switch {
		case j.failure != nil && !lost:
			problem = "a failure is no 421"
		case d.Code == 220 && verb == "STARTTLS", d.Code/10 == 25 && verb == "RCPT" && conn.HELO.Verb == "LHLO":
			problem = "the client is promised what the server doesn't know"
		case txn.Active && endsTransaction(verb, d.Code) && !lost && j.s.Transaction().Active:
			problem = "the transaction is there, though the client counts on its end"
		case txn.Active && endsTransaction(verb, d.Code): // or the dialogue is over, and has it still
			txn = j.s.Transaction()
		}
		switch {
		case problem != "":
		case !reflect.DeepEqual(conn, j.s.Connection()), !reflect.DeepEqual(txn, j.s.Transaction()):
			problem = "the state has changed, though the server got nothing"
		case verb == "BDAT" && chunk < 0 && !d.Disconnect:
			problem = "nobody knows how much follows, and the dialogue goes on"
		case verb == "BDAT" && (j.s.Discard() > 0 || !d.Disconnect):
			discard = chunk // before the end, it may be nothing
		}
	default:
		problem = "this is neither Pass nor Reply"
	}
	if problem == "" && j.s.Discard() != discard {
		problem = fmt.Sprintf("%d octets to discard, not %d", j.s.Discard(), discard)
	}
	return got, problem
}

// chunkOf returns the size in a BDAT command, -1 if it has none.
func chunkOf(line string) int64 {
	m := chunkLine.FindStringSubmatch(line)
	if m == nil {
		return -1
	}
	size, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return -1
	}
	return size
}

// wrongLine tells why a line must not be executed in the place of another.
func wrongLine(line, instead string, sasl bool, txn transaction) string {
	verb := command{Line: line}.Verb()
	switch {
	case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return "a control character"
	case line != instead && len(line) > 12288:
		return "too long"
	case sasl:
	case verb == "":
		return "no verb"
	case strings.HasPrefix(verb, "STARTTLS") && !strings.EqualFold(line, "STARTTLS"):
		return "nearly STARTTLS"
	case verb == "MAIL" && txn.Active:
		return "a nested MAIL"
	case verb == "BDAT" && (chunkOf(line) < 0 || txn.Recipients.Len() == 0):
		return "a chunk that no server reads"
	case chunkOf(line) != chunkOf(instead):
		return "another size of chunk"
	}
	return ""
}

// wrongReply tells why a reply can't be sent.
func wrongReply(r reply) string {
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		return err.Error()
	}
	var scanner wire.Reply
	n, code, err := scanner.Next(b.Bytes())
	if n != b.Len() || code != r.Code || err != nil {
		return fmt.Sprintf("not one reply: %d of %q, %v", n, &b, err)
	}
	if n, err := repliesIn(b.Bytes()); n != 1 || err != nil {
		return fmt.Sprintf("not one reply: %q, %v", &b, err)
	}
	got, text, err := textproto.NewReader(bufio.NewReader(&b)).ReadResponse(0)
	prefix := ""
	if r.Enhanced != smtpproxy.NoEnhancedCode {
		prefix = r.Enhanced.String() + " "
	}
	switch {
	case got != r.Code || text != prefix+strings.Join(r.Lines, "\n"+prefix) || err != nil:
		return fmt.Sprintf("net/textproto reads %d %q, %v", got, text, err)
	case r.Code == 354:
		return "354"
	case prefix != "" && (r.Enhanced[0] != r.Code/100 || r.Code/100 == 3):
		return "an enhanced code of another class"
	case (r.Code == 221 || r.Code == 421) && !r.Disconnect, r.Code == 334 && !r.Next:
		return "not filled in"
	case slices.ContainsFunc(r.Lines, func(line string) bool { return len("250 ")+len(prefix)+len(line)+len("\r\n") > 512 }):
		return "a line of more than 512 octets"
	}
	return ""
}
