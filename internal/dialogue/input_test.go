package dialogue

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file gives names to what can happen to a Machine. The table, the walk, the
// random dialogues and the fuzzer have them in common.

// input is something that happens.
type input struct {
	name string
	kind kind
	do   func(m *Machine) (returned any)

	line   Line // of a passing or an answering
	code   int  // of an answering or a reply
	behind bool // of a passing
}

// kind tells when an input may come.
type kind uint8

const (
	anytime     kind = iota
	byListener       // at any time, but only where the library stands in front of the server
	passing          // of a line of the client's, when it's its turn
	answering        // likewise
	dropping         // where a chunk is dropped
	handshaking      // during a handshake
	restarting       // where a hook may find out who the client is
	handingOver      // when it has
	refusing         // where the client waits for a greeting that was a refusal
	finishing        // when all is over
	asking           // before a passing or an answering
	judging          // where content is to be handed over
)

// mayCome tells whether the callers of a Machine in that state may have the input for
// it. What they do wrong is none of the table's.
func (in *input) mayCome(m *Machine) bool {
	turn := m.state == Command || m.state == Response || m.state == OwnResponse || m.state == Greeting && !m.relay
	over := m.state == Closing || m.state == Over
	sasl := m.state == Response || m.state == OwnResponse
	switch in.kind {
	case byListener:
		return m.relay
	case judging:
		return m.relay && (m.state != Executing || m.MayEndInChunk())
	case passing:
		// The answer to the hook's own challenge is the hook's alone.
		return turn && m.state != OwnResponse && (!sasl || in.line == Line{})
	case answering:
		if in.line.Verb == NoVerb && in.code == 421 {
			return true // whoever sends a line out of turn gets this
		}
		return turn && (!sasl || in.line == Line{})
	case dropping:
		return m.relay && (m.state == DropChunk || m.state == Refusing && m.has.verb == BDAT && m.msg.chunk > 0 || over)
	case handshaking:
		return m.relay && (m.state == Handover && m.after == Regreeting || over)
	case restarting:
		return m.state == Command || m.state == Greeting || over
	case handingOver:
		return m.state == Handover && m.after != Regreeting || over
	case refusing:
		return m.relay && (m.state == Postponed || over)
	case finishing:
		return over
	}
	return true
}

// The sizes of what the client sends.
const (
	chunkSize = 5
	rcptSize  = 30
)

var verbNames = map[Verb]string{
	NoVerb: "word", HELO: "HELO", EHLO: "EHLO", LHLO: "LHLO", MAIL: "MAIL", RCPT: "RCPT", DATA: "DATA", BDAT: "BDAT", RSET: "RSET",
	NOOP: "NOOP", QUIT: "QUIT", VRFY: "VRFY", EXPN: "EXPN", HELP: "HELP", AUTH: "AUTH", STARTTLS: "STARTTLS", ETRN: "ETRN",
	XCLIENT: "XCLIENT", XFORWARD: "XFORWARD", LikeAUTH: "AUTHX", LikeSTARTTLS: "STARTTLSX", HTTP: "GET", Other: "FOO",
}

func lineName(l Line) string {
	name := verbNames[l.Verb]
	switch {
	case l.Verb == BDAT && l.Size < 0:
		name += " x"
	case l.Verb == BDAT:
		name += fmt.Sprint(" ", l.Size)
	}
	if l.Last {
		name += " LAST"
	}
	switch {
	case l.ManyArgs && l.Verb == STARTTLS:
		name += " x"
	case l.ManyArgs:
		name += " with many parameters"
	}
	return name
}

// pass is that the hook passes a line.
func pass(l Line) input {
	return input{name: "pass " + lineName(l), kind: passing, line: l, do: func(m *Machine) any { return m.Passed(l, false, false) }}
}

// passBefore is pass where the client has sent something behind the line.
func passBefore(l Line) input {
	return input{name: "pass " + lineName(l) + " and more", kind: passing, line: l, behind: true, do: func(m *Machine) any { return m.Passed(l, false, true) }}
}

// answer is that the hook or the library answers a line.
func answer(l Line, code int) input {
	return input{name: fmt.Sprint("answer ", lineName(l), " ", code), kind: answering, line: l, code: code, do: func(m *Machine) any {
		return m.Answered(Answer{Line: l, Code: code, Disconnect: code == 421 || code == 221})
	}}
}

// answerNonsense is that the library refuses what no server would know what to do with.
func answerNonsense() input {
	return input{name: "answer nonsense 500", kind: answering, line: Line{Verb: LikeSTARTTLS}, code: 500, do: func(m *Machine) any {
		return m.Answered(Answer{Line: Line{Verb: LikeSTARTTLS}, Code: 500, Nonsense: true})
	}}
}

// reply is that the server replies.
func reply(code int) input {
	return input{name: fmt.Sprint("reply ", code), code: code, do: func(m *Machine) any { return m.Replied(Reply{Code: code}) }}
}

func listener(name string, do func(m *Machine) any) input {
	return input{name: name, kind: byListener, do: do}
}

// nothing is what an input returns that returns nothing.
type nothing struct{}

// finished is what Finish returns.
type finished struct{ closes, inMessage bool }

var chunk5, chunk5Last, chunk0Last, malformed = Line{Verb: BDAT, Size: chunkSize}, Line{Verb: BDAT, Size: chunkSize, Last: true},
	Line{Verb: BDAT, Last: true}, Line{Verb: BDAT, Size: -1}

// Groups of inputs.
var (
	// commands pass, or are refused, where the client may send a command.
	commands = []input{
		pass(Line{Verb: HELO}), pass(Line{Verb: EHLO}), pass(Line{Verb: LHLO}),
		pass(Line{Verb: MAIL}), pass(Line{Verb: MAIL, ManyArgs: true}), pass(Line{Verb: RCPT, Size: rcptSize}), pass(Line{Verb: DATA}),
		pass(chunk5), pass(chunk5Last), pass(chunk0Last), pass(malformed),
		pass(Line{Verb: RSET}), pass(Line{Verb: NOOP}), pass(Line{Verb: QUIT}), pass(Line{Verb: AUTH}), pass(Line{Verb: LikeAUTH}),
		pass(Line{Verb: STARTTLS}), passBefore(Line{Verb: STARTTLS}), pass(Line{Verb: STARTTLS, ManyArgs: true}), pass(Line{Verb: LikeSTARTTLS}),
		pass(Line{Verb: XCLIENT}), pass(Line{Verb: Other}),
	}
	// answers are those to commands.
	answers = []input{
		answer(Line{Verb: NOOP}, 250), answer(Line{Verb: NOOP}, 334), answer(Line{Verb: NOOP}, 421), answer(Line{Verb: NOOP}, 550), answerNonsense(),
		answer(Line{Verb: HELO}, 250), answer(Line{Verb: EHLO}, 250), answer(Line{Verb: EHLO}, 550), answer(Line{Verb: LHLO}, 250),
		answer(Line{Verb: MAIL}, 550), answer(Line{Verb: RCPT, Size: rcptSize}, 550), answer(Line{Verb: DATA}, 550),
		answer(Line{Verb: RSET}, 250), answer(Line{Verb: RSET}, 550), answer(Line{Verb: XCLIENT}, 220), answer(Line{Verb: XCLIENT}, 250), answer(Line{Verb: XCLIENT}, 550),
		answer(Line{Verb: AUTH}, 235), answer(Line{Verb: AUTH}, 334), answer(Line{Verb: AUTH}, 550), answer(Line{Verb: LikeAUTH}, 500),
		answer(chunk5, 250), answer(chunk5, 334), answer(chunk5, 421), answer(chunk5, 550), answer(chunk0Last, 550),
		answer(chunk5Last, 250), answer(chunk5Last, 421), answer(chunk5Last, 550), answer(malformed, 501),
	}
	// responses are lines of a SASL exchange.
	responses = []input{
		pass(Line{}), answer(Line{}, 235), answer(Line{}, 250), answer(Line{}, 334), answer(Line{}, 550),
	}
	outOfTurn = answer(Line{}, 421)
	replies   = []input{
		reply(200), reply(220), reply(221), reply(235), reply(250), reply(334), reply(354), reply(399), reply(400), reply(421), reply(450), reply(550), reply(554),
	}
	// ofServer come of what the server does beside its replies.
	ofServer = []input{
		listener("read", func(m *Machine) any { return m.ReadBegins() }),
		listener("read fails", func(m *Machine) any { m.ReadFailed(); return nothing{} }),
		listener("hand open", func(m *Machine) any { return m.Handed(wire.Open) }),
		listener("hand maybe", func(m *Machine) any { return m.Handed(wire.Maybe) }),
		listener("hand end", func(m *Machine) any { return m.Handed(wire.End) }),
		listener("hand part of chunk", func(m *Machine) any { return m.HandedChunk(int(m.msg.chunk) / 2) }),
		listener("hand chunk", func(m *Machine) any { return m.HandedChunk(int(m.msg.chunk)) }),
		listener("hand MAIL", func(m *Machine) any { return m.HandMAIL() }),
		listener("time up", func(m *Machine) any { return m.TimeUp() }),
		{name: "refuse content", kind: judging, do: func(m *Machine) any { m.RefusedContent(BareNewline); return nothing{} }},
		listener("drop rest", func(m *Machine) any { _, copies := m.DroppedRest(); return copies }),
	}
	ofChunk = []input{
		{name: "drop part", kind: dropping, do: func(m *Machine) any { return m.Dropped(int(m.msg.chunk) / 2) }},
		{name: "drop chunk", kind: dropping, do: func(m *Machine) any { return m.Dropped(int(m.msg.chunk)) }},
	}
	ofHandshake = []input{
		{name: "TLS starts", kind: handshaking, do: func(m *Machine) any { m.StartedTLS(); return nothing{} }},
		{name: "TLS unavailable", kind: handshaking, do: func(m *Machine) any { return m.TLSRefused() }},
	}
	ofRestart = []input{
		{name: "restart", kind: restarting, do: func(m *Machine) any { m.Restarts(m.state != Greeting); return nothing{} }},
		{name: "restarted", kind: handingOver, do: func(m *Machine) any { m.Restarted(); return nothing{} }},
	}
	ofPostponed = input{name: "send postponed", kind: refusing, do: func(m *Machine) any { m.AnsweredPostponed(); return nothing{} }}
	// endings are what ends any dialogue.
	endings = []input{
		{name: "hang up", do: func(m *Machine) any { return m.HangUp(TooLong) }},
		{name: "write fails", do: func(m *Machine) any { m.WriteFailed(); return nothing{} }},
		{name: "close", do: func(m *Machine) any { m.Close(); return nothing{} }},
	}
	ofFinish = input{name: "finish", kind: finishing, do: func(m *Machine) any {
		closes, inMessage := m.Finish()
		return finished{closes, inMessage}
	}}
	begin = input{name: "begin", kind: asking, do: func(m *Machine) any { return m.Begin(Other) }}
)

// inputs are all that there are.
var inputs = slices.Concat([]input{begin}, commands, answers, responses, []input{outOfTurn}, replies, ofServer, ofChunk, ofHandshake,
	[]input{ofPostponed}, endings, []input{ofFinish}, ofRestart)

func names(of ...input) string {
	var list []string
	for _, in := range of {
		list = append(list, in.name)
	}
	return strings.Join(list, ", ")
}

// byNames are the inputs by their names.
var byNames = sync.OnceValue(func() map[string]input {
	m := map[string]input{}
	for _, in := range inputs {
		m[in.name] = in
	}
	return m
})

// named returns the inputs with the names that a comma separates.
func named(list string) (found []input) {
	for name := range strings.SplitSeq(list, ", ") {
		in, ok := byNames()[name]
		if !ok {
			panic("no input is called " + name)
		}
		found = append(found, in)
	}
	return found
}
