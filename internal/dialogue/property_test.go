package dialogue

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// likely returns inputs that lead on. Among all that may come, most end a dialogue or do
// nothing.
func likely(m *Machine) string {
	switch m.state {
	case Command:
		const others = ", pass RSET, pass AUTH, pass STARTTLS, pass XCLIENT, answer AUTH 334, answer BDAT 5 550, answer BDAT 5 LAST 550, answer BDAT 0 LAST 550, restart"
		switch {
		case m.msg.recipients > 0:
			return strings.Repeat("pass RCPT, pass DATA, pass DATA, pass BDAT 5, pass BDAT 5 LAST, pass BDAT 0 LAST, ", 2) + "pass LHLO" + others
		case m.msg.active:
			return strings.Repeat("pass RCPT, ", 20) + "pass DATA" + others
		case m.lmtp:
			return strings.Repeat("pass MAIL, ", 20) + "pass HELO" + others
		}
		return strings.Repeat("pass LHLO, pass LHLO, pass MAIL, ", 6) + "pass EHLO" + others
	case Executing:
		switch m.has.verb {
		case DATA:
			return "reply 354, reply 354, reply 354, reply 550"
		case AUTH:
			return "reply 334, reply 334, reply 235, reply 550"
		case XCLIENT:
			return "reply 220, reply 250, reply 550"
		}
		return "reply 250, reply 250, reply 250, reply 250, reply 250, reply 550, reply 421, read"
	case Handover:
		if m.after == Regreeting {
			return "TLS starts, TLS unavailable"
		}
		return "restarted, restarted, restarted, reply 250"
	}
	return map[State]string{
		Greeting:    "reply 220, reply 220, reply 220, restart",
		Regreeting:  "reply 220, reply 220, reply 550",
		Restarting:  "reply 220, reply 220, reply 550",
		Response:    "pass word, answer word 550, answer word 334, read fails",
		OwnResponse: "answer word 235, answer word 550",
		Cancelling:  "reply 550",
		Resetting:   "reply 250",
		Reset:       "hand MAIL",
		Chunk:       "hand chunk, hand chunk, hand part of chunk, refuse content",
		DropChunk:   "drop chunk, drop part",
		Content:     "hand open, hand maybe, hand maybe, hand end, reply 250, reply 550, read, read fails, refuse content",
		MaybeEnd:    "read, read, reply 250, reply 550",
		End:         "reply 250, reply 550, reply 421",
		Undecided:   "read, reply 250, reply 550, time up",
		ReadOn:      "hand open, hand maybe, hand end, read, read fails, time up",
		Surplus:     "hand end, hand open, read fails",
		Refusing:    "reply 250, reply 550, drop rest, drop chunk",
		Unwanted:    "reply 550",
		GivenUp:     "reply 550",
	}[m.state]
}

// choose returns something that may come.
func choose(r *rand.Rand, m *Machine) *input {
	from := inputs
	if list := likely(m); list != "" && r.IntN(16) > 0 {
		from = named(list)
	}
	for range 100 {
		if in := &from[r.IntN(len(from))]; in.kind != asking && in.mayCome(m) {
			return in
		}
	}
	return &endings[0]
}

// policies are those of random dialogues.
var policies = []*Policy{
	{OffersTLS: true, SmallChunks: Unlimited, Recipients: Unlimited, Commands: Unlimited, Errors: Unlimited},
	{ProtectAUTH: true, OffersTLS: true, SmallChunks: 3, Recipients: 3, Commands: 40, Errors: 2},
	{SmallChunks: 0, Recipients: 1, Commands: 20, Errors: 0},
}

// play lets things happen, as long as the dialogue isn't over, and then some more. It
// returns what has happened.
func play(o *observer, steps int, next func(m *Machine) *input) (happened []string, err error) {
	over := 0
	for range steps {
		in := next(&o.m)
		if in == nil {
			break
		}
		happened = append(happened, in.name)
		if err := o.step(in); err != nil {
			return happened, err
		}
		if o.m.state.HasEnded() || o.m.state == Unwanted {
			if over++; over > 5 {
				break
			}
		}
	}
	return happened, nil
}

// Whatever happens, the client gets as many replies as it waits for, no 2xx before the
// server has the end of a message, and the server RSET wherever it may have kept
// something.
func TestRandomDialoguesKeepTheBooksOfTheClientAndTheServer(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dialogues := 20_000
	if testing.Short() {
		dialogues = 4_000
	}
	ways := map[State]int{}
	for i := range dialogues {
		o := observe(New(policies[r.IntN(len(policies))], Start{Relay: i%16 > 0, TLS: r.IntN(4) == 0}))
		happened, err := play(o, 120, func(m *Machine) *input {
			ways[m.state]++
			return choose(r, m)
		})
		if err != nil {
			t.Fatalf("%v, behind:\n%s", err, strings.Join(happened, "\n"))
		}
	}
	t.Logf("states %v", ways)
	for s := range State(states) {
		if ways[s] == 0 {
			t.Errorf("no dialogue was at %v", s)
		}
	}
}
