package dialogue

import (
	"fmt"
	"strings"
)

// This file prints what a Machine returns, and what it keeps, in the words of the
// table.

// words collects words.
type words []string

func (w *words) add(cond bool, word string, args ...any) {
	if cond {
		*w = append(*w, fmt.Sprintf(word, args...))
	}
}

func (w words) String() string { return strings.Join(w, ", ") }

var reasonNames = map[Reason]string{
	AmbiguousEnd: "ambiguous end", BareNewline: "bare newline", BehindSTARTTLS: "behind STARTTLS", ChunkSize: "chunk size",
	OutOfStep: "out of step", OutOfTurn: "out of turn", RefusedEarly: "refused early", TooLong: "too long", TooMany: "too many",
}

var fateNames = map[Fate]string{Forward: "forward", Swallow: "swallow", Keep: "keep", Postpone: "postpone", LoseStep: "lose step"}

var newsNames = map[News]string{
	Greeted: "greeted", Opened: "opened", Added: "added", Cleared: "cleared", Authenticated: "authenticated", Anew: "anew", ContentBegins: "content begins",
}

// printed returns what an input has returned, in words.
func printed(returned any) string {
	var w words
	switch r := returned.(type) {
	case nothing:
	case bool, int, int64:
		return fmt.Sprint(r)
	case Turn:
		w.add(r.NotYet != OutOfTurn, "ready")
		w.add(r.NotYet == OutOfTurn, "not ready")
		w.add(r.NotYet != OutOfTurn && r.At.IsSASL(), "SASL")
		w.add(r.At == OwnResponse, "own")
		w.add(r.Asked, "asked")
		w.add(r.Secret, "secret")
		w.add(r.NotYet == TooMany, "overused")
	case Admission:
		w.add(r.Do == Hand || r.Do == HandFirst, "hand over")
		w.add(r.Do == ResetFirst, "reset first")
		w.add(r.Do == StartTLS, "start TLS")
		w.add(r.Do == Refuse, "refuse %d", codeOf(r.Refusal))
		w.add(r.Nonsense, "nonsense")
		w.add(r.Reason != NoReason, "%s", reasonNames[r.Reason])
		w.add(r.Do == HandFirst, "begins")
	case Outcome:
		w.add(r.Instead != nil, "%d instead", codeOf(r.Instead))
		w.add(true, "send %d", r.Copies)
		w.add(r.Hold, "hold")
		w.add(r.Discard > 0, "discard %d", r.Discard)
		w.add(r.Cancels, "cancel")
		w.add(r.Cleared, "cleared")
		w.add(r.Disconnect, "disconnect")
	case Step:
		w.add(true, "%s", fateNames[r.Fate])
		w.add(r.Hold, "hold")
		w.add(r.News != NoNews, "%s", newsNames[r.News])
	case Begun:
		w.add(r.Missing > 0, "%d times %d", r.Missing, r.Code)
		w.add(r.Cleared, "cleared")
	case Handing:
		w.add(r.Withhold, "withhold")
		w.add(r.Ambiguous, "ambiguous")
		w.add(!r.Withhold && !r.Ambiguous, "hand over")
		w.add(r.Tell, "tell")
		w.add(r.Cleared, "cleared")
	case Refusal:
		w.add(true, "%d", r.Code)
	case finished:
		w.add(r.closes, "closes")
		w.add(r.inMessage, "in message")
	default:
		panic(fmt.Sprintf("what is a %T?", returned))
	}
	return w.String()
}

// kept returns what a machine keeps beside its state and its counts.
func kept(m Machine) string {
	var w words
	w.add(m.lmtp, "LMTP")
	w.add(m.tls, "TLS")
	w.add(m.auth, "auth")
	w.add(m.size != 0, "size %d", m.size)
	w.add(m.msg.active, "active")
	w.add(m.msg.doubtful, "doubtful")
	w.add(m.msg.recipients != 0, "%d recipients", m.msg.recipients)
	w.add(m.msg.owed != 0, "%d owed", m.msg.owed)
	w.add(m.msg.octets != 0, "%d octets", m.msg.octets)
	w.add(m.msg.chunk != 0, "%d to come", m.msg.chunk)
	w.add(m.msg.refused, "refused")
	w.add(m.msg.atStop, "at a stop")
	w.add(m.has.due != 0, "%d due", m.has.due)
	w.add(m.msg.kept != 0, "%d held", m.msg.kept)
	w.add(m.after != 0, "then %v", m.after)
	w.add(m.suspect, "suspect")
	w.add(m.statuses, "statuses")
	w.add(m.reading, "reading")
	w.add(m.reason != NoReason, "%s", reasonNames[m.reason])
	return w.String()
}

// codeOf returns the code of a refusal, 0 if there is none.
func codeOf(r *Refusal) int {
	if r == nil {
		return 0
	}
	return r.Code
}
