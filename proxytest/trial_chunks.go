package proxytest

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// This file has the questions about chunks, and about messages that come late, in part, or for several.

// askChunks asks about BDAT.
func (h *hearing) askChunks(r *Result) {
	_, offered := h.keywords["CHUNKING"]
	chunk := strings.Repeat(nextCommand, 5) + "x" // an octet more would make it 6 commands
	bdat := fmt.Sprintf("BDAT %d", len(chunk))
	if !offered {
		if v := h.begin(1); v != nil {
			a := v.say(bdat+" LAST\r\n", 1)
			if len(a.codes) == 0 && a.doing == waits {
				a = v.say(chunk, 1) // it knows it all the same
			}
			r.judgeReplies(v, "BDAT", a, 1)
			r.Answer = "It doesn't offer CHUNKING."
			v.leave()
		}
		return
	}
	r.Answer = "Yes."
	last := func(line string, n int) *visit {
		v := h.begin(n)
		if v == nil {
			r.Answer = ""
			return nil
		}
		want := 1
		if strings.HasSuffix(line, "LAST") {
			want = h.statuses(n)
		}
		a := v.say(line+"\r\n", 0)
		switch {
		case a.anyPositive():
			r.Answer = "It answers before it reads."
			r.find(v, "answers-bdat-early", "It accepts a chunk before it has read it.")
			return nil
		case len(a.codes) > 0:
			r.Answer = "It refuses BDAT, though it offers CHUNKING."
			r.find(v, "refuses-bdat", "It offers CHUNKING and refuses BDAT.")
			return nil
		}
		a = v.say(chunk, want)
		switch {
		case len(a.codes) > want:
			r.Answer = "No."
			r.find(v, "chunk-is-commands", "It takes octets of a chunk for commands.")
			return nil
		case len(a.codes) == 0 && a.doing != closed:
			r.Answer = "No."
			r.find(v, "reads-past-chunk", "It reads more octets than the chunk has.")
			return nil
		}
		if !v.isInStep() {
			r.Answer = "No."
			r.find(v, "chunk-is-commands", "Behind a chunk it doesn't answer the next command once.")
			return nil
		}
		return v
	}
	if v := last(bdat, 1); v != nil {
		v.leave()
	} else {
		return
	}
	if v := last(bdat+" LAST", 1); v != nil {
		v.leave()
	} else {
		return
	}
	if len(h.RefusedTexts) == 0 {
		return
	}
	chunk = h.RefusedTexts[0] + "\r\n" + chunk
	for _, whole := range []bool{true, false} {
		v := h.begin(1)
		if v == nil {
			return
		}
		v.say(fmt.Sprintf("BDAT %d LAST\r\n", len(chunk)), 0)
		if whole {
			if a := v.say(chunk, 1); len(a.codes) > h.statuses(1) || a.doing == waits && !v.isInStep() {
				r.Answer = "No."
				r.find(v, "chunk-is-commands", "It takes octets of a chunk that it has refused for commands.")
			}
			v.leave()
			continue
		}
		v.s.set(func(s *stage) { s.inLines, s.stops = true, true })
		if a := v.say(chunk, 1); a.aside != "" {
			r.Answer = "Yes, but it refuses one before it has read it."
			r.find(v, "refuses-chunk-early", "It refuses a chunk before it has read it.")
		}
		v.leave()
	}
}

// half is content that isn't all of it.
const half = "text\r\nhalf a li"

// askTimeouts asks what the server reads when a Read has failed for its deadline.
func (h *hearing) askTimeouts(r *Result) {
	deadline := false
	var givesUp []string
	try := func(v *visit, name, where, handed string) {
		if v == nil {
			return
		}
		if handed != "" {
			v.say(handed, 0)
		}
		set := false
		v.s.set(func(s *stage) { set = !s.readDeadline.IsZero() })
		if !set {
			v.leave()
			return
		}
		deadline = true
		v.note("", "[the Read's deadline passes]")
		v.s.fail(os.ErrDeadlineExceeded, true)
		a := v.settle(-1)
		switch {
		case a.anyPositive() && name == "gives-up-sasl":
			r.find(v, "succeeds-without-response", "Where the response to AUTH can't be read, it answers with success.")
		case a.anyPositive():
			r.find(v, "accepts-cut-message", "It accepts a message that was cut off.")
		case a.doing == waits:
			v.plainly()
			if a := v.say(nextCommand, 1); len(a.codes) > 0 {
				givesUp = append(givesUp, where)
				r.find(v, name, "Behind a timeout in "+where+" it reads commands.")
			}
		}
		v.leave()
	}
	try(h.content(1), "gives-up-content", "a message", half)
	if _, ok := h.keywords["CHUNKING"]; ok {
		if v := h.begin(1); v != nil && len(v.say("BDAT 100 LAST\r\n", 0).codes) == 0 {
			try(v, "gives-up-chunk", "a chunk", "NOOP\r\nNOOP\r\nhalf")
		}
	}
	if h.takesPLAIN() {
		if v := h.visit(); v != nil && v.ask("AUTH PLAIN") == 334 {
			try(v, "gives-up-sasl", "a SASL exchange", "")
		}
	}
	switch {
	case len(givesUp) > 0:
		r.Answer = "Commands, behind one in " + strings.Join(givesUp, ", ") + "."
	case !deadline && h.cannot == "":
		r.Answer = "It sets no deadline."
	case h.cannot == "":
		r.Answer = "Nothing that it takes for commands."
	}
}

// askCutOff asks whether the server takes a message for whole whose end doesn't come.
func (h *hearing) askCutOff(r *Result) {
	var takes []string
	try := func(v *visit, where, handed string, err error) {
		if v == nil {
			return
		}
		v.say(handed, 0)
		v.note("", "[the client is gone: "+err.Error()+"]")
		v.s.fail(err, false)
		a := v.settle(-1)
		switch {
		case !a.anyPositive():
		case err == io.EOF:
			takes = append(takes, where)
			r.find(v, "takes-eof-for-end", "It takes the end of the connection in "+where+" for that of the message.")
		default:
			r.Answer = "It accepts it."
			r.find(v, "accepts-cut-message", "It accepts a message that was cut off in "+where+".")
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, io.EOF} {
		try(h.content(1), "content", half, err)
		if _, ok := h.keywords["CHUNKING"]; ok {
			if v := h.begin(1); v != nil && len(v.say("BDAT 100 LAST\r\n", 0).codes) == 0 {
				try(v, "a chunk", half, err)
			}
		}
	}
	switch {
	case r.Answer != "" || h.cannot != "" || h.lost != "":
	case len(takes) > 0:
		r.Answer = "Nothing, but it would take io.EOF in " + strings.Join(takes, ", ") + " for its end."
	default:
		r.Answer = "Nothing."
	}
}

// askStatuses asks how many replies a message for two recipients gets.
func (h *hearing) askStatuses(r *Result) {
	if !h.LMTP {
		r.Answer = "It doesn't speak LMTP."
		return
	}
	r.Answer = "Yes."
	judge := func(v *visit, a answer) {
		if len(a.codes) != 2 && a.doing != closed {
			r.Answer = "No."
			r.find(v, "statuses-missing", fmt.Sprintf("A message for 2 recipients gets %d replies.", len(a.codes)))
		}
	}
	v := h.content(2)
	if v == nil {
		r.Answer = ""
		return
	}
	judge(v, v.say("text\r\n.\r\n", 2))
	v.leave()
	if _, ok := h.keywords["CHUNKING"]; !ok {
		return
	}
	if v = h.begin(2); v != nil && len(v.say("BDAT 6 LAST\r\n", 0).codes) == 0 {
		judge(v, v.say("text\r\n", 2))
	}
	v.leave()
}
